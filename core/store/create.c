/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* New volumes. The format is recorded last: a volume without a record is not used by anything, and making it again
 * finishes it. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "store/convert.h"
#include "fmt/options.h"
#include "store/store-i.h"
#include "util/paths.h"

int rw_volume(struct store_pool *p, const char *name, const char *why, struct blk_vol **out, struct vh_err *e)
{
	g_autofree char *holder = g_strdup_printf("pid %d vhost vol %s", (int)getpid(), why);
	/* Through the page cache: no alignment, so that a volume keeps its size to the byte. */
	struct store_attach a = {.name = name, .holder = holder, .mode = VH_ATTACH_RW_EXCL, .flags = VH_ATTACH_BUFFERED};

	return store_attach(p, &a, out, e);
}

/* Makes the volume, or finds it there with an equal spec. *zeroed: it reads as zeros. */
static int make_volume(struct store_pool *p, const char *name, uint64_t bytes, uint32_t prealloc,
		       const struct kvs *options, struct vh_job *j, int *zeroed, struct vh_err *e)
{
	g_autofree char *what = g_strdup_printf("volumes of pool type %s", p->type);
	struct vh_vol_spec s = {.size = sizeof(s), .name = name, .bytes = bytes, .prealloc = prealloc};
	struct optset *set = NULL;
	int ret;

	if (!p->ops->create)
		return err_set(e, -EOPNOTSUPP, "pools of type %s cannot make volumes", p->type);
	ret = optset_parse(p->ops->vol_create_options, options, what, &set, e);
	if (ret)
		return ret;
	s.opts = optset_get(set);
	ret = p->ops->create(p->pool, &s, j, e);
	optset_free(set);
	*zeroed = s.zeroed != 0;
	return ret;
}

/* A further file of an image that is being made says "unfinished" as well, and whose it is. */
static char *part_mark(const char *image)
{
	return g_strdup_printf("part of %s", image);
}

/* Lets the format write its metadata into the new volumes. */
static int make_image(struct store_pool *p, const char *name, const struct vh_format_ops *ops, struct vh_create *vc,
		      const struct vh_create_ref *refs, int n, int zeroed, struct vh_job *j, struct vh_err *e)
{
	g_autofree struct blk_vol **v = g_new0(struct blk_vol *, n + 1);
	g_autofree struct vh_meta **m = g_new0(struct vh_meta *, n + 1);
	int ret = 0;

	for (int k = 0; k <= n && !ret; k++) {
		ret = rw_volume(p, k ? refs[k - 1].name : name, "create", &v[k], e);
		m[k] = ret ? NULL : fmt_meta_new(v[k], 0);
		if (!ret && !m[k])
			ret = -ENOMEM;
		if (!ret && !k && zeroed)
			fmt_meta_clean(m[k]);
	}
	vc->volumes = m;
	vc->n = (uint32_t)n + 1;
	if (!ret)
		ret = ops->create(vc, j, e);
	if (ret > 0)
		ret = -EPROTO;
	for (int k = 0; k <= n && !ret; k++)
		ret = blk_flush(v[k], e);
	if (ret)
		err_context(e, "format %s", ops->name);
	vc->volumes = NULL;
	for (int k = 0; k <= n; k++) {
		fmt_meta_free(m[k]);
		if (v[k])
			blk_vol_put(v[k]);
	}
	return ret;
}

/* What the format wants beside the image; the names are checked like any new volume's. */
static int further_files(const struct vh_format_ops *ops, const struct vh_create *vc, struct vh_create_ref **out,
			 struct vh_err *e)
{
	struct vh_create_ref *refs = NULL;
	int n = 0, cap = 0;

	*out = NULL;
	while (ops->create_refs) {
		for (int k = 0; k < cap; k++)
			refs[k].size = sizeof(*refs);
		n = ops->create_refs(vc, refs, (uint32_t)cap, e);
		if (n <= cap)
			break;
		g_free(refs);
		if (n > 4096)
			return err_set(e, -EFBIG, "format %s wants %d files", ops->name, n);
		cap = n;
		refs = g_new0(struct vh_create_ref, cap);
	}
	for (int k = 0; k < n; k++) {
		refs[k].name[sizeof(refs[k].name) - 1] = 0;
		int ret = name_check("further file", refs[k].name, e);

		if (!ret && !strcmp(refs[k].name, vc->name))
			ret = err_set(e, -EINVAL, "a further file would have the image's own name");
		for (int i = 0; i < k && !ret; i++)
			if (!strcmp(refs[i].name, refs[k].name))
				ret = err_set(e, -EINVAL, "two further files would have the name %s", refs[k].name);
		if (ret) {
			g_free(refs);
			return err_set(e, ret, "format %s", ops->name);
		}
	}
	if (n < 0)
		g_free(refs);
	else
		*out = refs;
	return n < 0 ? err_set(e, n, "format %s", ops->name) : n;
}

/* Whether it reads as zeros (1, 0): then there is nothing in it that could be lost. */
static int reads_zeros(struct store_pool *p, const char *name, struct vh_job *j, struct vh_err *e)
{
	g_autofree char *holder = g_strdup_printf("pid %d vhost vol create", (int)getpid());
	struct store_attach a = {.name = name, .holder = holder, .mode = VH_ATTACH_RO, .flags = VH_ATTACH_BUFFERED};
	struct blk_vol *v;
	uint64_t at;
	int ret = store_attach(p, &a, &v, e);

	if (ret)
		return ret;
	ret = zero_volume(v, j, &at, e);
	blk_vol_put(v);
	return ret;
}

/* A volume that was not there, or had nothing in it yet (a crash may have left it before it was marked). */
int make_empty(struct store_pool *p, const char *name, uint64_t bytes, uint32_t prealloc, const struct kvs *options,
	       struct vh_job *j, int *zeroed, struct vh_err *e)
{
	struct vh_vol_stat st;
	int there = !store_vol_stat(p, name, &st, NULL);
	int ret = make_volume(p, name, bytes, prealloc, options, j, zeroed, e);

	if (ret || !there || *zeroed)
		return ret;
	ret = reads_zeros(p, name, j, e);
	*zeroed = ret == 1;
	if (ret)
		return MIN(ret, 0);
	err_remedy(e, "choose another name, or delete it first");
	return vol_about(p, name, err_set(e, -EEXIST, "it exists already, and not by this program's making"), e);
}

static int make_part(struct store_pool *p, const char *image, const struct vh_create_ref *ref, uint32_t prealloc,
		     const struct kvs *options, struct vh_job *j, struct vh_err *e)
{
	g_autofree char *mark = part_mark(image);
	struct vh_vol_stat st;
	char found[256];
	int zeroed, ret = 0;

	if (!store_vol_stat(p, ref->name, &st, NULL)) { /* what a crash left is made anew */
		ret = vol_meta_read(p, ref->name, UNFINISHED, found, sizeof(found), e);
		if (!ret && !strcmp(found, mark))
			ret = store_vol_remove(p, ref->name, j, e);
	}
	if (!ret)
		ret = make_empty(p, ref->name, ref->bytes, prealloc, options, j, &zeroed, e);
	return ret ? ret : vol_meta_set(p, ref->name, UNFINISHED, mark, e);
}

/* All is there and the format recorded: the marks go, the image's own last. */
static int finish(struct store_pool *p, const char *name, const struct vh_create_ref *refs, int n, struct vh_err *e)
{
	g_autofree char *mark = part_mark(name);
	char found[256];
	int ret = 0;

	for (int k = 0; k < n && !ret; k++) {
		ret = vol_meta_read(p, refs[k].name, UNFINISHED, found, sizeof(found), e);
		if (ret || strcmp(found, mark))
			continue;
		ret = vol_meta_set(p, refs[k].name, PART_OF, name, e);
		if (!ret)
			ret = vol_meta_set(p, refs[k].name, UNFINISHED, NULL, e);
	}
	return ret ? ret : vol_meta_set(p, name, UNFINISHED, NULL, e);
}

static const char *mark_of(const struct store_create *c)
{
	return c->token ? c->token : c->format;
}

/* What an image can need at once beside its disk: the tables that replace others while it is emptied or resized. */
static uint64_t with_slack(uint64_t full)
{
	uint64_t slack = MAX(full >> 10, UINT64_C(1) << 20);

	return full > UINT64_MAX - slack ? full : full + slack;
}

/* A volume that does not grow as the image is written is made as large as the image can become. */
static int make_room(struct store_pool *p, const char *name, uint64_t now, uint64_t full, int *zeroed, struct vh_job *j, struct vh_err *e)
{
	struct blk_vol *v;
	uint64_t caps;
	int ret = full > now ? rw_volume(p, name, "create", &v, e) : 0;

	if (ret || full <= now)
		return ret;
	caps = blk_vol_info(v)->caps;
	blk_vol_put(v);
	if (caps & VH_VOL_GROW)
		return 0;
	ret = store_vol_resize(p, name, with_slack(full), VH_PREALLOC_OFF, j, e);
	if (!ret && !(caps & VH_VOL_ZERO_ON_GROW))
		*zeroed = 0;
	return ret;
}

int store_vol_room(struct store_pool *p, const char *volume, const char *format, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	struct vh_create vc = {.size = sizeof(vc), .bytes = bytes, .name = volume};
	const struct vh_format_ops *ops;
	struct optset *set = NULL;
	uint64_t required, full = 0, now;
	struct blk_vol *v;
	int ret = plug_format(format, &ops, e), grows;

	if (ret || !ops->measure)
		return ret;
	ret = rw_volume(p, volume, "resize", &v, e);
	if (ret)
		return ret;
	grows = !!(blk_vol_info(v)->caps & VH_VOL_GROW);
	now = blk_vol_bytes(v);
	blk_vol_put(v);
	if (grows)
		return 0;
	if (!optset_parse(ops->create_options, NULL, format, &set, NULL)) {
		vc.opts = optset_get(set);
		ret = ops->measure(&vc, 0, &required, &full, e);
		optset_free(set);
	}
	return ret || full <= now ? ret : store_vol_resize(p, volume, with_slack(full), VH_PREALLOC_OFF, j, e);
}

/* A volume with a format that has metadata: "unfinished" is beside it from its first moment until the format is
 * recorded, so that what a crash left is known and made anew. */
static int create_formatted(struct store_pool *p, const struct store_create *c, const struct vh_format_ops *ops,
			    struct vh_create *vc, const struct kvs *pool_options, struct vh_job *j, struct vh_err *e)
{
	uint32_t prealloc = c->prealloc == VH_PREALLOC_METADATA ? VH_PREALLOC_OFF : c->prealloc;
	g_autofree struct vh_create_ref *refs = NULL;
	uint64_t required = 0, full = 0;
	int made = 0, zeroed = 0, n = further_files(ops, vc, &refs, e), ret = n;

	if (ret >= 0)
		ret = ops->measure ? ops->measure(vc, 0, &required, &full, e) : 0;
	/* With further files the data goes there; the image's own grows as its format writes it. */
	if (!ret && n)
		ret = make_empty(p, c->name, required, VH_PREALLOC_OFF, pool_options, j, &zeroed, e);
	else if (!ret)
		ret = make_empty(p, c->name, c->prealloc ? full : required, prealloc, pool_options, j, &zeroed, e);
	if (ret)
		return ret;
	ret = vol_meta_set(p, c->name, UNFINISHED, mark_of(c), e);
	if (!ret && !n && !c->prealloc)
		ret = make_room(p, c->name, required, full, &zeroed, j, e);
	for (; made < n && !ret; made += !ret)
		ret = make_part(p, c->name, &refs[made], prealloc, pool_options, j, e);
	if (!ret)
		ret = make_image(p, c->name, ops, vc, refs, n, zeroed, j, e);
	if (!ret && c->backing)
		ret = store_backing_set(p, c->name, c->format, c->backing, e);
	if (!ret && !c->unfinished)
		ret = store_format_set(p, c->name, c->format, e);
	if (ret) {
		while (made-- > 0)
			store_vol_remove(p, refs[made].name, NULL, NULL);
		store_vol_remove(p, c->name, NULL, NULL);
	}
	return ret || c->unfinished ? ret : finish(p, c->name, refs, n, e);
}

/* The further files that an unfinished image names, as far as they are marked as its own. */
static int unfinished_parts(struct store_pool *p, const char *volume, const char *format, struct vh_create_ref **out,
			    struct vh_err *e)
{
	g_autofree char *mark = part_mark(volume);
	struct vh_ref *refs = NULL;
	char found[256];
	int n = store_image_refs(p, volume, format, &refs, e), parts = 0;

	*out = n > 0 ? g_new0(struct vh_create_ref, n) : NULL;
	for (int k = 0; k < n; k++) {
		g_autofree char *base = g_path_get_basename(refs[k].name);

		if (refs[k].role != VH_REF_DATA || vol_meta_read(p, base, UNFINISHED, found, sizeof(found), NULL) ||
		    strcmp(found, mark))
			continue;
		g_strlcpy((*out)[parts++].name, base, sizeof((*out)->name));
	}
	free(refs);
	return n < 0 ? n : parts;
}

int store_vol_finish(struct store_pool *p, const char *volume, const char *format, struct vh_err *e)
{
	g_autofree struct vh_create_ref *parts = NULL;
	int n = unfinished_parts(p, volume, format, &parts, e), ret = n < 0 ? n : store_format_set(p, volume, format, e);

	return vol_about(p, volume, ret ? ret : finish(p, volume, parts, n, e), e);
}

void store_vol_abandon(struct store_pool *p, const char *volume, const char *format)
{
	g_autofree struct vh_create_ref *parts = NULL;
	int n = unfinished_parts(p, volume, format, &parts, NULL);

	while (n-- > 0)
		store_vol_remove(p, parts[n].name, NULL, NULL);
	store_vol_remove(p, volume, NULL, NULL);
}

/* What is there under that name already: 1 when it is finished and of this format, 0 when there is nothing, or nothing
 * yet that counts. */
static int look(struct store_pool *p, const struct store_create *c, struct vh_job *j, struct vh_err *e)
{
	char recorded[32], unfinished[256];
	struct vh_vol_stat st;
	int ret;

	if (store_vol_stat(p, c->name, &st, NULL))
		return 0; /* not there; or the pool says what is wrong when it is asked to make it */
	ret = store_format_get(p, c->name, recorded, e);
	if (!ret)
		ret = vol_meta_read(p, c->name, UNFINISHED, unfinished, sizeof(unfinished), e);
	if (ret)
		return ret;
	if (!recorded[0] && unfinished[0])
		return store_vol_remove(p, c->name, j, e); /* refused while somebody is still at it */
	if (recorded[0] && strcmp(recorded, c->format)) {
		err_remedy(e, "choose another name, or delete it first");
		return vol_about(p, c->name, err_set(e, -EEXIST, "it exists already, with format %s", recorded), e);
	}
	return recorded[0] != 0;
}

/* An image of that format is there: whether it is what is asked for. */
static int same_image(struct store_pool *p, const struct store_create *c, const struct vh_format_ops *ops,
		      const struct vh_create *vc, struct vh_err *e)
{
	uint64_t bytes = store_disk_bytes(p, c->name, c->format);
	g_autofree struct vh_create_ref *parts = NULL;
	struct vh_ref ref;
	const char *backing;
	char unfinished[256];
	int n, ret = 0;

	n = store_image_backing(p, c->name, c->format, &ref, e);
	backing = n > 0 ? ref.name : NULL;
	if (n < 0) {
		ret = n;
	} else if (bytes != vc->bytes) {
		err_remedy(e, "choose another name, or delete it first");
		ret = err_set(e, -EEXIST, "it exists already, with a disk of %llu bytes", (unsigned long long)bytes);
	} else if (g_strcmp0(backing, c->backing)) {
		err_remedy(e, "choose another name, or delete it first");
		ret = err_set(e, -EEXIST, "it exists already, with %s%s", backing ? "the backing image " : "no backing image",
			      backing ? backing : "");
	}
	if (!ret)
		ret = vol_meta_read(p, c->name, UNFINISHED, unfinished, sizeof(unfinished), e);
	if (ret || !unfinished[0])
		return ret;
	n = further_files(ops, vc, &parts, e);
	return n < 0 ? n : finish(p, c->name, parts, n, e);
}

static int backing_for(struct store_pool *p, const struct store_create *c, const struct kvs *options, struct backing *b,
		       struct vh_create *vc, struct vh_err *e)
{
	struct backing_spec s = {.pool = p, .volume = c->name, .name = c->backing, .format = c->backing_format, .options = options,
				 .allow = c->allow};
	int ret;

	vc->backing = c->backing;
	vc->backing_format = c->backing_format;
	vc->backing_bytes = c->bytes;
	if (c->backing_blind && !c->backing_format)
		return err_usage(e, "the format of a backing image that is not opened must be given");
	if (c->backing_blind && !c->bytes)
		return err_usage(e, "the size must be given when the backing image is not opened");
	if (c->backing_blind)
		return 0;
	ret = backing_open(b, &s, e);
	if (ret)
		return ret;
	vc->backing_format = b->format;
	vc->backing_volume = b->meta;
	vc->backing_bytes = b->bytes;
	if (!vc->bytes)
		vc->bytes = b->bytes;
	return 0;
}

int store_vol_create(struct store_pool *p, const struct store_create *c, struct vh_job *j, struct vh_err *e)
{
	struct kvs empty = {0}, pool_options = {0}, all = {0}, own = {0}, below = {0};
	const struct kvs *given = c->options ? c->options : &empty;
	struct vh_create vc = {.size = sizeof(vc), .prealloc = c->prealloc, .bytes = c->bytes, .name = c->name};
	const struct vh_format_ops *ops;
	struct optset *set = NULL;
	struct backing b = {0};
	char mark[256];
	int zeroed, there, ret = name_check("volume", c->name, e);

	if (!ret)
		ret = plug_format(c->format, &ops, e);

	if (ret)
		return vol_about(p, c->name, ret, e);
	pool_options.v = g_new0(struct kv, given->n + 1);
	for (unsigned i = 0; i < given->n; i++)
		if (!given->v[i].key || strncmp(given->v[i].key, "format.", 7))
			pool_options.v[pool_options.n++] = given->v[i];
	kvs_with_prefix(given, "format.", &all);
	kvs_without_prefix(&all, OPT_BELOW, &own);
	kvs_with_prefix(&all, OPT_BELOW, &below);
	ret = optset_parse(ops->create_options, &own, c->format, &set, e);
	if (!ret && below.n && (!c->backing || c->backing_blind))
		ret = err_usage(e, "option %s%s is for a backing image, and none is %s", OPT_BELOW, below.v[0].key,
				c->backing ? "opened" : "given");
	vc.opts = optset_get(set);
	there = ret ? ret : look(p, c, j, e);
	if (there < 0) {
		ret = there;
	} else if (there && c->token && !vol_meta_read(p, c->name, UNFINISHED, mark, sizeof(mark), NULL) && !strcmp(mark, c->token)) {
		ret = store_vol_finish(p, c->name, c->format, e);
		ret = ret ? ret : -EALREADY;
	} else if (there && c->unfinished) {
		err_remedy(e, "choose another name, or delete it first");
		ret = err_set(e, -EEXIST, "it exists already");
	} else if (!ops->create || !strcmp(c->format, "raw")) { /* raw: the volume is the disk, complete in one step */
		if (c->backing) {
			err_remedy(e, "choose a format that has backing images");
			ret = err_usage(e, "a disk of format %s has no backing image", c->format);
		} else if (c->prealloc == VH_PREALLOC_METADATA) {
			ret = err_usage(e, "format %s has no metadata to allocate", c->format);
		} else if (c->unfinished) { /* what is there and not known is somebody's */
			ret = make_empty(p, c->name, c->bytes, c->prealloc, &pool_options, j, &zeroed, e);
		} else {
			ret = make_volume(p, c->name, c->bytes, c->prealloc, &pool_options, j, &zeroed, e);
		}
		if (!ret && c->zeroed)
			*c->zeroed = zeroed;
		if (!ret && c->unfinished)
			ret = vol_meta_set(p, c->name, UNFINISHED, mark_of(c), e);
		else if (!ret && !there)
			ret = store_format_set(p, c->name, c->format, e);
	} else {
		if (c->backing && !(ops->caps & VH_FMT_BACKING))
			ret = err_usage(e, "images of format %s have no backing image", c->format);
		if (!ret && c->backing)
			ret = backing_for(p, c, &below, &b, &vc, e);
		if (!ret)
			ret = there ? same_image(p, c, ops, &vc, e) : create_formatted(p, c, ops, &vc, &pool_options, j, e);
		if (!ret && c->zeroed)
			*c->zeroed = 1; /* what the image does not map */
		backing_close(&b);
	}
	optset_free(set);
	g_free(pool_options.v);
	g_free(all.v);
	g_free(own.v);
	g_free(below.v);
	return ret == -EALREADY ? ret : vol_about(p, c->name, ret, e);
}
