/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* New volumes. The format is recorded last: a volume without a record is not used by anything, and making it again
 * finishes it. */
#include <string.h>
#include <unistd.h>
#include "store/store-i.h"
#include "util/paths.h"

#define UNFINISHED "unfinished"

static int about(struct store_pool *p, const char *volume, int ret, struct vh_err *e)
{
	if (ret < 0)
		err_object(e, "volume %s/%s", p->label, volume);
	return ret;
}

static int rw_volume(struct store_pool *p, const char *name, const char *why, struct blk_vol **out, struct vh_err *e)
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

uint64_t store_disk_bytes(struct store_pool *p, const char *volume, const char *format)
{
	struct store_attach a = {.name = volume, .holder = "vhost", .mode = VH_ATTACH_PEEK};
	const struct vh_format_ops *ops;
	struct resolver r = {0};
	struct fmt_spec s = {.read_only = 1, .label = volume, .resolve = resolver_open, .resolve_ctx = &r};
	struct fmt_image *image;
	struct fmt_info info;
	uint64_t bytes = UINT64_MAX;
	ERR_AUTO(e);

	if (!format[0] || plug_format(format, &ops, &e) || resolver_init(&r, p, volume, "vhost", &e))
		return bytes;
	r.peek = 1;
	s.ops = ops;
	if (!store_attach(p, &a, &s.vol, &e) && !fmt_open(&s, &image, &e)) {
		fmt_get_info(image, &info);
		fmt_close(image);
		bytes = info.bytes;
	}
	resolver_clear(&r);
	return bytes;
}

/* Lets the format write its metadata into the new volume. */
static int make_image(struct store_pool *p, const char *name, const struct vh_format_ops *ops, struct vh_create *vc,
		      struct vh_job *j, struct vh_err *e)
{
	struct blk_vol *v;
	struct vh_meta *m;
	int ret = rw_volume(p, name, "create", &v, e);

	if (ret)
		return ret;
	m = fmt_meta_new(v, 0);
	vc->volumes = &m;
	vc->n = 1;
	ret = m ? ops->create(vc, j, e) : -ENOMEM;
	if (ret > 0)
		ret = -EPROTO;
	if (!ret)
		ret = blk_flush(v, e);
	if (ret)
		err_context(e, "format %s", ops->name);
	fmt_meta_free(m);
	blk_vol_put(v);
	return ret;
}

/* A volume with a format that has metadata: "unfinished" is beside it from its first moment until the format is
 * recorded, so that what a crash left is known and made anew. */
static int create_formatted(struct store_pool *p, const struct store_create *c, const struct vh_format_ops *ops,
			    struct vh_create *vc, const struct kvs *pool_options, struct vh_job *j, struct vh_err *e)
{
	uint64_t required = 0, full = 0;
	int zeroed, ret = ops->measure ? ops->measure(vc, 0, &required, &full, e) : 0;

	if (!ret)
		ret = make_volume(p, c->name, c->prealloc ? full : required, c->prealloc, pool_options, j, &zeroed, e);
	if (ret)
		return ret;
	ret = vol_meta_set(p, c->name, UNFINISHED, c->format, e);
	if (!ret)
		ret = make_image(p, c->name, ops, vc, j, e);
	if (!ret && !c->unfinished)
		ret = store_vol_finish(p, c->name, c->format, e);
	if (ret)
		store_vol_remove(p, c->name, NULL, NULL);
	return ret;
}

int store_vol_finish(struct store_pool *p, const char *volume, const char *format, struct vh_err *e)
{
	int ret = store_format_set(p, volume, format, e);

	return ret ? ret : vol_meta_set(p, volume, UNFINISHED, NULL, e);
}

/* What is there under that name already: 1 when it is finished and of this format, 0 when there is nothing, or nothing
 * yet that counts. */
static int look(struct store_pool *p, const struct store_create *c, struct vh_job *j, struct vh_err *e)
{
	char recorded[32], unfinished[32];
	struct vh_vol_stat st;
	int ret;

	if (store_vol_stat(p, c->name, &st, NULL))
		return 0; /* not there; or the pool says what is wrong when it is asked to make it */
	ret = store_format_get(p, c->name, recorded, e);
	if (!ret)
		ret = vol_meta_get(p, c->name, UNFINISHED, unfinished, e);
	if (ret)
		return ret;
	if (!recorded[0] && unfinished[0])
		return store_vol_remove(p, c->name, j, e); /* refused while somebody is still at it */
	if (recorded[0] && strcmp(recorded, c->format)) {
		err_remedy(e, "choose another name, or delete it first");
		return about(p, c->name, err_set(e, -EEXIST, "it exists already, with format %s", recorded), e);
	}
	return recorded[0] != 0;
}

int store_vol_create(struct store_pool *p, const struct store_create *c, struct vh_job *j, struct vh_err *e)
{
	struct kvs empty = {0}, pool_options = {0}, format_options = {0};
	const struct kvs *given = c->options ? c->options : &empty;
	const struct vh_format_ops *ops;
	struct optset *set = NULL;
	int zeroed, there, ret = name_check("volume", c->name, e);

	if (!ret)
		ret = plug_format(c->format, &ops, e);

	if (ret)
		return about(p, c->name, ret, e);
	pool_options.v = g_new0(struct kv, given->n + 1);
	for (unsigned i = 0; i < given->n; i++)
		if (!given->v[i].key || strncmp(given->v[i].key, "format.", 7))
			pool_options.v[pool_options.n++] = given->v[i];
	kvs_with_prefix(given, "format.", &format_options);
	ret = optset_parse(ops->create_options, &format_options, c->format, &set, e);
	there = ret ? ret : look(p, c, j, e);
	if (there < 0) {
		ret = there;
	} else if (there && c->unfinished) {
		err_remedy(e, "choose another name, or delete it first");
		ret = err_set(e, -EEXIST, "it exists already");
	} else if (!ops->create || !strcmp(c->format, "raw")) { /* raw: the volume is the disk, complete in one step */
		ret = make_volume(p, c->name, c->bytes, c->prealloc, &pool_options, j, &zeroed, e);
		if (!ret && c->unfinished)
			ret = vol_meta_set(p, c->name, UNFINISHED, c->format, e);
		else if (!ret && !there)
			ret = store_format_set(p, c->name, c->format, e);
	} else if (there) {
		uint64_t bytes = store_disk_bytes(p, c->name, c->format);

		if (bytes != c->bytes) {
			err_remedy(e, "choose another name, or delete it first");
			ret = err_set(e, -EEXIST, "it exists already, with a disk of %llu bytes", (unsigned long long)bytes);
		}
	} else {
		struct vh_create vc = {.size = sizeof(vc), .prealloc = c->prealloc, .bytes = c->bytes, .opts = optset_get(set)};

		ret = create_formatted(p, c, ops, &vc, &pool_options, j, e);
	}
	optset_free(set);
	g_free(pool_options.v);
	g_free(format_options.v);
	return about(p, c->name, ret, e);
}

/* Between pools, or where a pool cannot: by reading and writing. */
static int clone_by_copy(struct store_pool *from, const char *src, struct store_pool *to, const char *dst,
			 struct vh_job *j, struct vh_err *e)
{
	g_autofree char *holder = g_strdup_printf("pid %d vhost vol clone", (int)getpid());
	struct store_attach a = {.name = src, .holder = holder, .mode = VH_ATTACH_RO, .flags = VH_ATTACH_BUFFERED};
	struct kvs none = {0};
	struct blk_vol *in = NULL, *out = NULL;
	struct vh_vol_stat st;
	char format[32], recorded[32];
	int zeroed = 0, ret = store_format_pick(from, src, NULL, format, e);

	if (!ret && !store_vol_stat(to, dst, &st, NULL)) {
		/* An unfinished copy has no record yet and is made anew. */
		ret = store_format_get(to, dst, recorded, e);
		if (!ret && recorded[0]) {
			err_remedy(e, "choose another name, or delete it first");
			ret = about(to, dst, err_set(e, -EEXIST, "it exists already"), e);
		}
	}
	if (!ret)
		ret = store_attach(from, &a, &in, e);
	if (ret)
		return ret;
	ret = about(to, dst, make_volume(to, dst, blk_vol_bytes(in), VH_PREALLOC_OFF, &none, j, &zeroed, e), e);
	if (!ret)
		ret = rw_volume(to, dst, "clone", &out, e);
	if (!ret && !zeroed)
		ret = blk_zero(out, blk_vol_bytes(out), 0, e);
	if (!ret)
		ret = store_copy(in, out, j, e);
	if (out)
		blk_vol_put(out);
	blk_vol_put(in);
	if (ret && out)
		store_vol_remove(to, dst, NULL, NULL); /* cancelled or failed: nothing stays */
	return ret ? about(to, dst, ret, e) : store_format_set(to, dst, format, e);
}

int store_vol_clone(struct store_pool *from, const char *src, struct store_pool *to, const char *dst, struct vh_job *j,
		    struct vh_err *e)
{
	int ret = name_check("volume", dst, e);

	if (ret)
		return about(to, dst, ret, e);
	if (from == to && from->ops->clone) {
		ret = from->ops->clone(from->pool, src, NULL, dst, VH_CLONE_FULL, j, e);
		if (ret != -EOPNOTSUPP)
			return about(from, ret == -EEXIST ? dst : src, ret, e);
		err_clear(e);
	}
	return clone_by_copy(from, src, to, dst, j, e);
}
