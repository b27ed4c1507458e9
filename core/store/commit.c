/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Writing an image into its backing image. The order makes it safe to be cut short anywhere: the backing image gets what the
 * image reads as, which changes nothing of what the image reads as; that is durable before the image forgets anything; and
 * the image learns of a grown backing image before it is emptied.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "fmt/options.h"
#include "store/store-i.h"

#define PIECE (UINT64_C(2) << 20)
#define ZERO_PIECE (UINT64_C(256) << 20)

struct commit {
	const struct store_commit *s;
	char *holder, *name, *volume; /* name: as the image has it */
	struct resolver find;
	struct store_pool *pool;      /* of the backing image, the resolver's */
	char format[32], top_format[32];
	char *held[2], **allow;
	struct fmt_image *top, *base;
	uint64_t copied;
};

/* Which file the backing image is, and of what format. */
static int find_base(struct commit *c, struct vh_err *e)
{
	const struct store_commit *s = c->s;
	struct vh_ref ref;
	struct vh_vol_stat st;
	int n, ret = store_format_pick(s->pool, s->volume, s->format, c->top_format, e);

	if (ret)
		return ret;
	n = store_image_backing(s->pool, s->volume, c->top_format, &ref, e);
	if (n < 0)
		return n;
	if (!n)
		return err_set(e, -EINVAL, "it has no backing image to be written into");
	c->name = g_strdup(ref.name);
	ret = resolver_find(&c->find, c->name, &c->pool, &c->volume, e);
	if (!ret)
		ret = store_format_pick(c->pool, c->volume, ref.format[0] ? ref.format : NULL, c->format, e);
	if (!ret)
		ret = store_vol_stat(c->pool, c->volume, &st, e);
	if (!ret)
		c->held[0] = g_strdup(st.identity);
	return ret;
}

/*
 * A format that compares identifiers (vmdk, vdi) finds its backing image changed as soon as we have written to it. Until the
 * image knows the new one, a mark says that it was us: then it is opened without that comparison.
 */
static int mark_read(struct commit *c, struct vh_err *e)
{
	char mark[256];
	int ret = vol_meta_read(c->s->pool, c->s->volume, COMMITTING, mark, sizeof(mark), e);

	return ret < 0 ? ret : !strcmp(mark, c->held[0]);
}

static int write_piece(struct commit *c, char *buf, uint64_t len, uint64_t off, struct vh_err *e)
{
	int ret = fmt_pread(c->top, buf, len, off, e);

	return ret ? ret : fmt_pwrite(c->base, buf, len, off, e);
}

static int write_down(struct commit *c, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	g_autofree char *buf = g_malloc(PIECE);
	struct run own = {0}, base = {0};
	uint64_t off = 0, next;
	int ret = 0;

	for (; off < bytes && !ret; off = next) {
		job_progress(j, off, bytes);
		if (job_cancelled(j))
			return err_set(e, -ECANCELED, "cancelled; the image is complete, run it again to go on");
		if (off >= own.end)
			ret = run_at(c->top, 1, off, bytes, &own, e);
		next = own.end;
		if (ret || own.type == VH_EXT_BACKING)
			continue;
		if (own.type == VH_EXT_ZERO) {
			if (off >= base.end)
				ret = run_at(c->base, 0, off, own.end, &base, e);
			next = MIN(own.end, base.end);
			if (ret || base.type == VH_EXT_ZERO)
				continue;
			next = MIN(next, off + ZERO_PIECE);
			ret = fmt_pzero(c->base, next - off, off, e);
		} else {
			next = MIN(own.end, off + PIECE - off % PIECE);
			ret = write_piece(c, buf, next - off, off, e);
		}
		c->copied += next - off;
	}
	return ret ? ret : fmt_flush(c->base, e);
}

/* Tells the image of its backing image anew (its size, its identifier), then forgets what the image has. */
static int empty_top(struct commit *c, struct store_image **top, struct store_image_spec *spec, int grown,
		     struct vh_job *j, int *emptied, struct vh_err *e)
{
	const struct vh_format_ops *ops = fmt_format_ops(c->top);
	struct fmt_layer_info base;
	int ret = 0;

	*emptied = 0;
	fmt_layer_get(c->base, 0, &base);
	if (ops->set_backing)
		ret = fmt_set_backing(c->top, c->name, c->format, base.bytes, base.volume, e);
	/* Without set_backing() an image that keeps the old size would hide what it gave away. */
	if (!ret)
		ret = vol_meta_set(c->s->pool, c->s->volume, COMMITTING, NULL, e);
	if (ret || c->s->keep || !ops->empty || (grown && !ops->set_backing))
		return ret;
	store_image_close(*top);
	*top = NULL;
	spec->repair = 0;
	ret = store_image_open(spec, top, e);
	if (!ret)
		ret = fmt_empty(store_image_fmt(*top), j, e);
	*emptied = !ret;
	return ret;
}

int store_commit(const struct store_commit *s, uint64_t *copied, int *emptied, struct vh_job *j, struct vh_err *e)
{
	struct commit c = {.s = s, .holder = g_strdup_printf("pid %d vhost commit", (int)getpid())};
	struct store_image *top = NULL, *base = NULL;
	struct store_attach a = {.mode = VH_ATTACH_RW_EXCL, .flags = VH_ATTACH_BUFFERED};
	struct kvs empty = {0}, below;
	struct fmt_layer_info t, b;
	unsigned n = 0;
	int ret, grown = 0;

	*copied = 0;
	*emptied = 0;
	kvs_with_prefix(s->options ? s->options : &empty, OPT_BELOW, &below);
	resolver_init_new(&c.find, s->pool, s->volume, c.holder);
	c.find.allow = s->allow;
	/* What the image may refer to, its backing image may as well. */
	c.allow = g_new0(char *, (s->allow ? g_strv_length((char **)(uintptr_t)s->allow) : 0) + 2);
	if (c.find.root)
		c.allow[n++] = g_strdup(c.find.root);
	for (const char *const *dir = s->allow; dir && *dir; dir++)
		c.allow[n++] = g_strdup(*dir);
	ret = find_base(&c, e);
	struct store_image_spec down = {.pool = c.pool, .volume = c.volume, .format = c.format, .options = &below, .holder = c.holder,
					.mode = VH_ATTACH_RW_EXCL, .allow = (const char *const *)c.allow};
	struct store_image_spec up = {.pool = s->pool, .volume = s->volume, .format = c.top_format, .options = s->options,
				      .holder = c.holder, .mode = VH_ATTACH_RW_EXCL, .allow = s->allow,
				      .held = (const char *const *)c.held};
	/* The lower one's lease first: it stays as it is while the upper one is opened over it, and is only then opened, as its
	 * format may write at once. */
	a.name = c.volume;
	a.holder = c.holder;
	if (!ret)
		ret = store_attach(c.pool, &a, &down.vol, e);
	if (!ret) {
		ret = mark_read(&c, e);
		up.repair = ret > 0;
		if (ret >= 0)
			ret = store_image_open(&up, &top, e);
		if (!ret)
			ret = vol_meta_set(s->pool, s->volume, COMMITTING, c.held[0], e);
		if (ret)
			blk_vol_put(down.vol);
	}
	if (!ret)
		ret = store_image_open(&down, &base, e);
	if (!ret) {
		c.base = store_image_fmt(base);
		c.top = store_image_fmt(top);
		fmt_layer_get(c.base, 0, &b);
		fmt_layer_get(c.top, 0, &t);
		grown = t.bytes > b.bytes;
		if (grown)
			ret = fmt_resize(c.base, t.bytes, e);
	}
	if (!ret)
		ret = write_down(&c, t.bytes, j, e);
	*copied = c.copied;
	if (!ret)
		ret = empty_top(&c, &top, &up, grown, j, emptied, e);
	store_image_close(top);
	store_image_close(base);
	resolver_clear(&c.find);
	g_strfreev(c.allow);
	g_free(c.held[0]);
	g_free(c.holder);
	g_free(c.name);
	g_free(c.volume);
	g_free(below.v);
	return ret;
}
