/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Copies and copy-on-write clones. Either is made under a name that is no volume's and gets its own in one step when it is complete. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "ceph.h"

#define FROM CEPH_META "from" /* what a clone was made of, so that making it again is told from making another */

struct names {
	char part[CEPH_NAME_MAX + 32], base[CEPH_NAME_MAX + 32]; /* the unfinished image, and the snapshot below a clone of no snapshot */
	char from[CEPH_ID_MAX + CEPH_NAME_MAX + 32];
};

/* Gives the finished part its name, from wherever an attempt before stopped. */
static int publish(struct ceph_pool *p, const struct names *n, const char *dst)
{
	char id[CEPH_ID_MAX], there[CEPH_ID_MAX], oid[CEPH_NAME_MAX + 64];
	int ret = ceph_id(p, n->part, id);

	if (ret)
		return ret;
	if (!ceph_id(p, dst, there) && !strcmp(id, there)) { /* cut short after the first of the renaming's steps */
		snprintf(oid, sizeof(oid), "rbd_id.%s", dst);
		ret = rados_remove(p->io, oid);
		if (ret)
			return ret;
	}
	return rbd_rename(p->io, n->part, dst);
}

/* 1: there is one, and it is what is asked for; -EEXIST: another one. */
static int done_already(struct ceph_pool *p, const struct names *n, const char *dst, struct vh_err *e)
{
	char id[CEPH_ID_MAX], part[CEPH_ID_MAX], from[512];
	int ret = ceph_id(p, dst, id);

	if (ret == -ENOENT)
		return 0;
	if (ret)
		return ceph_errno(e, ret, p, dst);
	if (ceph_meta_read(p, id, FROM, from, sizeof(from)) < 0 || strcmp(from, n->from)) {
		ceph_hint(e, "choose another name, or delete it first");
		return ceph_fail(e, -EEXIST, "%s exists already", dst);
	}
	if (!ceph_id(p, n->part, part) && !strcmp(part, id) && (ret = publish(p, n, dst)) < 0)
		return ceph_errno(e, ret, p, dst);
	return 1;
}

/* What a dead attempt left under the unfinished name. */
static int clear_part(struct ceph_pool *p, const struct names *n, const char *dst, struct vh_err *e)
{
	char id[CEPH_ID_MAX];
	int ret = ceph_id(p, n->part, id);

	if (!ret)
		ret = ceph_busy(p, id, 0, e);
	else if (ret == -ENOENT)
		ret = 0;
	if (ret)
		return ret;
	ret = ceph_remove_image(p, n->part, NULL);
	if (ret == -EBUSY) {
		ceph_hint(e, "wait for it; if it died, for 30 s");
		return ceph_fail(e, ret, "a copy with the name %s is being made", dst);
	}
	return ret ? ceph_errno(e, ret, p, dst) : 0;
}

/* The values beside a volume go with its contents, but for those that are about the volume itself. */
static int copy_values(struct ceph_pool *p, rbd_image_t from, rbd_image_t to)
{
	char keys[8192], values[32768], *k = keys, *v = values;
	size_t keys_n = sizeof(keys), values_n = sizeof(values);
	int ret = rbd_metadata_list(from, CEPH_META, 64, keys, &keys_n, values, &values_n);

	if (ret < 0)
		return ret;
	ret = 0;
	while (!ret && k < keys + keys_n && v < values + values_n) {
		if (!strncmp(k, CEPH_META, strlen(CEPH_META)) && strncmp(k, CEPH_HOLDER, strlen(CEPH_HOLDER)) && strcmp(k, FROM))
			ret = rbd_metadata_set(to, k, v);
		k += strlen(k) + 1;
		v += strlen(v) + 1;
	}
	return ret;
}

static int copy(struct ceph_pool *p, rbd_image_t src, const struct names *n, struct vh_job *j, struct vh_err *e)
{
	rbd_image_info_t info;
	rbd_image_options_t o;
	rbd_image_t dst;
	uint64_t features = 0;
	char id[CEPH_ID_MAX], cookie[CEPH_COOKIE_MAX], holder[64];
	int ret = rbd_stat(src, &info, sizeof(info));

	if (!ret)
		ret = rbd_get_features(src, &features);
	if (ret)
		return ret;
	rbd_image_options_create(&o);
	ret = rbd_image_options_set_uint64(o, RBD_IMAGE_OPTION_ORDER, (uint64_t)info.order);
	if (!ret)
		ret = rbd_image_options_set_uint64(o, RBD_IMAGE_OPTION_FEATURES_SET, RBD_FEATURE_EXCLUSIVE_LOCK);
	if (!ret && rbd_get_data_pool_id(src) != p->id) {
		char name[256];
		int len = rados_pool_reverse_lookup(p->cluster, rbd_get_data_pool_id(src), name, sizeof(name));

		ret = len > 0 ? rbd_image_options_set_string(o, RBD_IMAGE_OPTION_DATA_POOL, name) : len;
	}
	if (!ret)
		ret = rbd_create4(p->io, n->part, info.size, o);
	rbd_image_options_destroy(o);
	if (ret)
		return ret;
	ret = ceph_id(p, n->part, id);
	snprintf(holder, sizeof(holder), "pid %d vhost (copying)", (int)getpid());
	if (!ret)
		ret = ceph_lease(p, n->part, id, VH_ATTACH_RW_EXCL, holder, &dst, cookie, e);
	if (ret)
		return ret;
	ret = rbd_copy_with_progress2(src, dst, ceph_progress, j);
	if (!ret)
		ret = copy_values(p, src, dst);
	if (!ret)
		ret = rbd_metadata_set(dst, FROM, n->from);
	if (!ret)
		ret = rbd_flush(dst);
	ceph_image_close(p, dst, id, NULL);
	return ret;
}

static int full(struct ceph_pool *p, const char *src, const char *id, const char *snap, const char *dst, const struct names *n,
		struct vh_job *j, struct vh_err *e)
{
	char holder[64], cookie[CEPH_COOKIE_MAX] = "";
	rbd_image_t image;
	int ret;

	snprintf(holder, sizeof(holder), "pid %d vhost (copying)", (int)getpid());
	if (snap)
		ret = rbd_open_by_id_read_only(p->io, id, &image, snap);
	else
		ret = ceph_lease(p, src, id, VH_ATTACH_RO, holder, &image, cookie, e);
	if (ret)
		return snap && ret == -ENOENT ? ceph_fail(e, ret, "%s has no snapshot %s", src, snap) :
		       snap ? ceph_errno(e, ret, p, src) : ret;
	ret = copy(p, image, n, j, e);
	ceph_image_close(p, image, NULL, cookie);
	if (!ret && ceph_cancelled(j))
		ret = ceph_fail(e, -ECANCELED, "cancelled");
	return ret ? ceph_fail(e, ret == -ENOENT ? -EIO : ret, "copying to %s: %s", dst, ceph_why(ret)) : 0;
}

static int cow(struct ceph_pool *p, const char *src, const char *snap, const char *dst, const struct names *n, struct vh_err *e)
{
	const char *base = snap ? snap : n->base;
	char id[CEPH_ID_MAX], new_id[CEPH_ID_MAX];
	rbd_image_options_t o;
	rbd_image_t image, clone;
	int ret = ceph_lease_for(p, src, "cloning", id, &image, e);

	if (ret)
		return ret;
	if (!snap) {
		ret = rbd_snap_remove2(image, base, 0, ceph_progress, NULL); /* a dead attempt's */
		ret = ret == -ENOENT || !ret ? rbd_snap_create(image, base) : ret;
	}
	rbd_image_options_create(&o);
	if (!ret)
		ret = rbd_image_options_set_uint64(o, RBD_IMAGE_OPTION_CLONE_FORMAT, 2);
	if (!ret)
		ret = rbd_image_options_set_uint64(o, RBD_IMAGE_OPTION_FEATURES_SET, RBD_FEATURE_EXCLUSIVE_LOCK | RBD_FEATURE_LAYERING);
	if (!ret) {
		ret = rbd_clone3(p->io, src, base, p->io, n->part, o);
		if (ret == -ENOENT)
			ret = ceph_fail(e, ret, "%s has no snapshot %s", src, base);
	}
	rbd_image_options_destroy(o);
	if (!ret)
		ret = ceph_id(p, n->part, new_id);
	if (!ret)
		ret = rbd_open_by_id(p->io, new_id, &clone, NULL);
	if (!ret) {
		ret = copy_values(p, image, clone);
		if (!ret)
			ret = rbd_metadata_set(clone, FROM, n->from);
		ceph_image_close(p, clone, NULL, NULL);
	}
	if (!snap) { /* with a clone it goes out of sight, and away with the last clone */
		int r = rbd_snap_remove2(image, base, 0, ceph_progress, NULL);

		ret = ret || r == -ENOENT ? ret : r;
	}
	ceph_unlease(p, image, id);
	return ret ? ceph_fail(e, ret == -ENOENT ? -EIO : ret, "cloning %s to %s: %s", src, dst, ceph_why(ret)) : 0;
}

int ceph_clone(void *pool, const char *src, const char *snap, const char *dst, uint32_t how, struct vh_job *j, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	char id[CEPH_ID_MAX];
	struct names n;
	int ret = ceph_name_ok(src, e);

	if (!ret)
		ret = ceph_name_new_ok(dst, e);
	if (!ret && snap)
		ret = ceph_name_ok(snap, e);
	if (ret)
		return ret;
	if (how != VH_CLONE_FULL && how != VH_CLONE_COW)
		return ceph_fail(e, -EINVAL, "no such way of cloning");
	ret = ceph_id(p, src, id);
	if (ret)
		return ceph_errno(e, ret, p, src);
	snprintf(n.part, sizeof(n.part), CEPH_PART "%s", dst);
	snprintf(n.base, sizeof(n.base), CEPH_PART "%s", dst);
	snprintf(n.from, sizeof(n.from), "%s%s%s %s", id, snap ? "@" : "", snap ? snap : "", how == VH_CLONE_COW ? "cow" : "full");
	ret = done_already(p, &n, dst, e);
	if (ret)
		return ret < 0 ? ret : 0;
	ret = clear_part(p, &n, dst, e);
	if (!ret)
		ret = how == VH_CLONE_COW ? cow(p, src, snap, dst, &n, e) : full(p, src, id, snap, dst, &n, j, e);
	if (!ret) {
		ret = publish(p, &n, dst);
		ret = ret ? ceph_errno(e, ret == -ENOENT ? -EIO : ret, p, dst) : 0;
	}
	if (ret)
		ceph_remove_image(p, n.part, NULL);
	return ret;
}

int ceph_flatten(void *pool, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	char id[CEPH_ID_MAX];
	rbd_image_t image;
	int ret = ceph_lease_for(p, name, "flattening", id, &image, e);

	if (ret)
		return ret;
	ret = rbd_flatten_with_progress(image, ceph_progress, j);
	if (ret == -EINVAL) /* it has no parent: it is flat */
		ret = 0;
	ceph_unlease(p, image, id);
	return ret ? ceph_errno(e, ret == -ENOENT ? -EIO : ret, p, name) : 0;
}
