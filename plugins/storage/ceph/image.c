/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Making, deleting and resizing images. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "ceph.h"

#define THICK_STEP (UINT64_C(64) << 20)

#define OPT(NAME, TYPE, DOC, ...)                                                                                      \
	&(const struct vh_opt){.size = sizeof(struct vh_opt), .name = NAME, .type = TYPE, .doc = DOC, ##__VA_ARGS__}

const struct vh_opt *const ceph_create_options[] = {
	OPT("object-size", VH_OPT_SIZE, "Bytes of one object, a power of two; without it the cluster's default", .min = 4096,
	    .max = 32 << 20),
	OPT("features", VH_OPT_STR, "The image's features, separated by spaces or semicolons; without it the cluster's default", .min = 1,
	    .max = 256),
	OPT("data-pool", VH_OPT_STR, "The RADOS pool of the data, an erasure-coded one for example", .min = 1, .max = 128),
	NULL};

int ceph_cancelled(struct vh_job *j)
{
	return j && ceph_job && ceph_job->cancelled(j);
}

int ceph_progress(uint64_t done, uint64_t total, void *job)
{
	if (job && ceph_job)
		ceph_job->progress(job, done, total);
	return 0;
}

static int feature(const char *word, size_t n, uint64_t *bit)
{
	static const struct { const char *name; uint64_t bit; } all[] = {
		{"layering", RBD_FEATURE_LAYERING}, {"striping", RBD_FEATURE_STRIPINGV2}, {"exclusive-lock", RBD_FEATURE_EXCLUSIVE_LOCK},
		{"object-map", RBD_FEATURE_OBJECT_MAP}, {"fast-diff", RBD_FEATURE_FAST_DIFF}, {"deep-flatten", RBD_FEATURE_DEEP_FLATTEN},
		{"journaling", RBD_FEATURE_JOURNALING},
	};

	for (size_t k = 0; k < sizeof(all) / sizeof(*all); k++)
		if (strlen(all[k].name) == n && !memcmp(all[k].name, word, n)) {
			*bit = all[k].bit;
			return 1;
		}
	return 0;
}

struct wanted {
	uint64_t features; /* 0: the cluster's default */
	int order;         /* 0: likewise */
	int64_t data_pool; /* -1: none */
	const char *data_pool_name;
};

static int wanted_read(const struct ceph_pool *p, const struct vh_vol_spec *s, struct wanted *w, struct vh_err *e)
{
	const char *text = vh_opt_str(s->opts, "features", NULL);
	uint64_t object = (uint64_t)vh_opt_num(s->opts, "object-size", 0), bit = 0;

	memset(w, 0, sizeof(*w));
	if (object & (object - 1))
		return ceph_fail(e, -EINVAL, "object-size is a power of two, not %llu", (unsigned long long)object);
	for (; object > 1; object >>= 1)
		w->order++;
	while (text && *text) {
		size_t n = strcspn(text, " ;,");

		if (n && !feature(text, n, &bit)) {
			ceph_hint(e, "layering, exclusive-lock, object-map, fast-diff, deep-flatten, journaling");
			return ceph_fail(e, -EINVAL, "there is no image feature \"%.*s\"", (int)n, text);
		}
		w->features |= n ? bit : 0;
		text += n + strspn(text + n, " ;,");
	}
	if (w->features && !(w->features & RBD_FEATURE_EXCLUSIVE_LOCK)) {
		ceph_hint(e, "add exclusive-lock to features");
		return ceph_fail(e, -EINVAL, "an image without an exclusive lock could not be used for writing");
	}
	w->data_pool = -1;
	w->data_pool_name = vh_opt_str(s->opts, "data-pool", NULL);
	if (w->data_pool_name) {
		w->data_pool = rados_pool_lookup(p->cluster, w->data_pool_name);
		if (w->data_pool < 0)
			return ceph_fail(e, w->data_pool == -ENOENT ? -EINVAL : (int)w->data_pool, "the data pool %s: %s",
					 w->data_pool_name, w->data_pool == -ENOENT ? "there is no such pool" : ceph_why((int)w->data_pool));
	}
	return 0;
}

static int any_data(uint64_t off, size_t len, int exists, void *ctx)
{
	*(int *)ctx |= exists;
	return exists ? -ECANCELED : 0;
}

/* There is an image of that name: 0 when it is what is asked for, *zeroed: nothing was written to it. -ENOENT: only its name. */
static int same(struct ceph_pool *p, struct vh_vol_spec *s, const struct wanted *w, struct vh_err *e)
{
	rbd_image_info_t info;
	uint64_t features = 0;
	rbd_image_t image;
	char id[CEPH_ID_MAX];
	int64_t data_pool;
	int data = 0, ret = ceph_id(p, s->name, id);

	if (!ret)
		ret = rbd_open_by_id_read_only(p->io, id, &image, NULL);
	if (ret)
		return ret;
	ret = rbd_stat(image, &info, sizeof(info));
	if (!ret)
		ret = rbd_get_features(image, &features);
	data_pool = rbd_get_data_pool_id(image);
	if (!ret && (info.size != s->bytes || (w->order && info.order != w->order) ||
		     (w->features && (features & ~(uint64_t)RBD_FEATURE_DATA_POOL) != w->features) ||
		     data_pool != (w->data_pool < 0 ? p->id : w->data_pool))) {
		ceph_hint(e, "choose another name, or delete it first");
		ret = ceph_fail(e, -EEXIST, "exists already, with %llu bytes%s", (unsigned long long)info.size,
				info.size == s->bytes ? " and other properties" : "");
	} else if (!ret && VH_KNOWS(s, zeroed)) {
		int r = rbd_diff_iterate2(image, NULL, 0, info.size, 1, 1, any_data, &data);

		s->zeroed = !r && !data;
	} else if (ret) {
		ret = ceph_fail(e, ret == -ENOENT ? -EIO : ret, "%s/%s: %s", p->name, s->name, ceph_why(ret));
	}
	rbd_close(image);
	return ret;
}

static int make(struct ceph_pool *p, const struct vh_vol_spec *s, const struct wanted *w)
{
	rbd_image_options_t o;
	int ret = 0;

	rbd_image_options_create(&o);
	if (w->order)
		ret = rbd_image_options_set_uint64(o, RBD_IMAGE_OPTION_ORDER, (uint64_t)w->order);
	if (!ret && w->features)
		ret = rbd_image_options_set_uint64(o, RBD_IMAGE_OPTION_FEATURES, w->features);
	else if (!ret)
		ret = rbd_image_options_set_uint64(o, RBD_IMAGE_OPTION_FEATURES_SET, RBD_FEATURE_EXCLUSIVE_LOCK);
	if (!ret && w->data_pool_name)
		ret = rbd_image_options_set_string(o, RBD_IMAGE_OPTION_DATA_POOL, w->data_pool_name);
	if (!ret)
		ret = rbd_create4(p->io, s->name, s->bytes, o);
	rbd_image_options_destroy(o);
	return ret;
}

/* Writes zeros that take space over [*at, to); stops at *at. */
static int thick(rbd_image_t image, uint64_t *at, uint64_t to, struct vh_job *j)
{
	for (uint64_t n; *at < to; *at += n) {
		ssize_t r;

		n = to - *at < THICK_STEP ? to - *at : THICK_STEP;
		r = ceph_cancelled(j) ? -ECANCELED : rbd_write_zeroes(image, *at, n, RBD_WRITE_ZEROES_FLAG_THICK_PROVISION, 0);
		if (r < 0)
			return (int)r;
		ceph_progress(*at + n, to, j);
	}
	return 0;
}

static int fill(struct ceph_pool *p, const char *name, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	char id[CEPH_ID_MAX];
	rbd_image_t image;
	uint64_t at = 0;
	int ret = ceph_lease_for(p, name, "preallocating", id, &image, e);

	if (ret)
		return ret;
	ret = thick(image, &at, bytes, j);
	if (ret)
		ceph_fail(e, ret, "writing zeros at %llu: %s", (unsigned long long)at, ceph_why(ret));
	ceph_unlease(p, image, id);
	return ret;
}

int ceph_create(void *pool, struct vh_vol_spec *s, struct vh_job *j, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	struct wanted w;
	int ret = ceph_name_new_ok(s->name, e);

	if (!ret)
		ret = wanted_read(p, s, &w, e);
	if (ret)
		return ret;
	if (s->prealloc == VH_PREALLOC_FALLOC) {
		ceph_hint(e, "preallocation=full writes zeros");
		return ceph_fail(e, -EOPNOTSUPP, "Ceph reserves no space");
	}
	if (s->prealloc > VH_PREALLOC_FULL)
		return ceph_fail(e, -EINVAL, "no such way of preallocation");
	if (ceph_cancelled(j))
		return ceph_fail(e, -ECANCELED, "cancelled");
	ret = make(p, s, &w);
	if (ret == -EEXIST) {
		/* What its maker did not finish has a name and no header; one who is still at it needs a moment. */
		for (int tries = 0; (ret = same(p, s, &w, e)) == -ENOENT && tries < 20; tries++)
			nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
		if (ret != -ENOENT)
			return ret;
		ret = rbd_remove(p->io, s->name);
		if (ret == -ENOENT)
			ret = 0;
		if (!ret)
			ret = make(p, s, &w);
	}
	if (ret) {
		if (ret == -EINVAL)
			ceph_hint(e, "fast-diff needs object-map, object-map and journaling need exclusive-lock");
		return ceph_errno(e, ret == -ENOENT ? -EIO : ret, p, s->name);
	}
	if (VH_KNOWS(s, zeroed))
		s->zeroed = 1;
	if (s->prealloc == VH_PREALLOC_FULL) {
		ret = fill(p, s->name, s->bytes, j, e);
		if (ret)
			rbd_remove(p->io, s->name);
	}
	return ret;
}

/* rbd_remove, whatever is left of the image. */
int ceph_remove_image(struct ceph_pool *p, const char *name, struct vh_job *j)
{
	int ret = rbd_remove_with_progress(p->io, name, ceph_progress, j);

	return ret == -ENOENT ? 0 : ret;
}

int ceph_remove(void *pool, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	char id[CEPH_ID_MAX];
	int ret = ceph_name_ok(name, e);

	if (ret)
		return ret;
	ret = ceph_id(p, name, id);
	if (ret == -ENOENT) { /* perhaps cut short when only the entry of the directory was left */
		ret = ceph_remove_image(p, name, j);
		return ret ? ceph_errno(e, ret, p, name) : 0;
	}
	if (ret)
		return ceph_errno(e, ret, p, name);
	ret = ceph_busy(p, id, 0, e);
	if (ret)
		return ret;
	/* Both look for watchers and take the lock themselves. */
	ret = p->trash ? rbd_trash_move(p->io, name, p->trash_time) : ceph_remove_image(p, name, j);
	if (ret == -ENOENT)
		ret = 0;
	switch (-ret) {
	case 0:
		return 0;
	case EBUSY:
		ceph_hint(e, "what died uncleanly is forgotten after 30 s");
		return ceph_fail(e, ret, "somebody has it open");
	case ENOTEMPTY:
		ceph_hint(e, "delete its snapshots first, or set the pool's option trash");
		return ceph_fail(e, -EBUSY, "it has snapshots");
	}
	return ceph_errno(e, ret, p, name);
}

int ceph_resize(void *pool, const char *name, uint64_t bytes, uint32_t prealloc, struct vh_job *j, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	uint64_t was = 0;
	char id[CEPH_ID_MAX];
	rbd_image_t image;
	int ret;

	if (prealloc == VH_PREALLOC_FALLOC)
		return ceph_fail(e, -EOPNOTSUPP, "Ceph reserves no space");
	if (bytes > INT64_MAX || prealloc > VH_PREALLOC_FULL)
		return ceph_fail(e, -EINVAL, "no such size, or no such way of preallocation");
	ret = ceph_lease_for(p, name, "resizing", id, &image, e);
	if (ret)
		return ret;
	ret = rbd_get_size(image, &was);
	if (!ret && bytes != was)
		ret = rbd_resize2(image, bytes, 1, ceph_progress, j);
	if (ret)
		ret = ceph_errno(e, ret == -ENOENT ? -EIO : ret, p, name);
	if (!ret && prealloc == VH_PREALLOC_FULL) {
		ret = thick(image, &was, bytes, NULL);
		ret = ret ? ceph_errno(e, ret, p, name) : 0;
	}
	ceph_unlease(p, image, id);
	return ret;
}
