/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Changing the backing image. While the old one is still below, everything that would read otherwise through the new one is
 * written into the image: each such write leaves its contents as they are, so that a crash, or an interrupt, harms nothing
 * and the command may be run again. The name in the image changes last, in one step of its format.
 */
#include <string.h>
#include <unistd.h>
#include "fmt/options.h"
#include "store/convert.h"
#include "store/store-i.h"

#define OPT_NEW "new-backing." /* options of the image that is to come below */
#define PIECE (UINT64_C(2) << 20)

static int first_run(void *ctx, uint64_t off, uint64_t len, uint32_t type, uint32_t depth, uint64_t addr)
{
	struct run *r = ctx;

	r->end = off + len;
	r->type = type;
	r->own = depth;
	return 1;
}

int run_at(struct fmt_image *i, int alone, uint64_t off, uint64_t end, struct run *r, struct vh_err *e)
{
	struct fmt_layer_info top = {0};
	uint64_t bytes;
	int ret;

	if (i)
		fmt_layer_get(i, 0, &top);
	bytes = top.bytes;
	if (off >= bytes) { /* past the end, or no image at all */
		*r = (struct run){end, VH_EXT_ZERO, 0};
		return 0;
	}
	end = MIN(end, bytes);
	ret = alone ? fmt_report_layer(i, 0, off, end - off, first_run, r, e) : fmt_report(i, off, end - off, first_run, r, e);
	return ret < 0 ? ret : 0;
}

int read_or_zeros(struct fmt_image *i, char *buf, uint64_t len, uint64_t off, struct vh_err *e)
{
	struct fmt_layer_info top = {0};
	uint64_t n;

	if (i)
		fmt_layer_get(i, 0, &top);
	n = off < top.bytes ? MIN(len, top.bytes - off) : 0;
	memset(buf + n, 0, len - n);
	return n ? fmt_pread(i, buf, n, off, e) : 0;
}

struct rebase {
	struct fmt_image *top, *below; /* below: the new backing image, or NULL */
	uint64_t unit, backing_bytes, copied; /* backing_bytes: of the old one */
	char *old, *new;
};

/* Unit by unit, so that as little as can be is allocated. */
static int keep_piece(struct rebase *b, uint64_t off, uint64_t len, struct vh_err *e)
{
	uint64_t n;
	int ret = fmt_pread(b->top, b->old, len, off, e);

	if (!ret)
		ret = read_or_zeros(b->below, b->new, len, off, e);
	for (uint64_t at = 0; at < len && !ret; at += n) {
		n = MIN(b->unit - (off + at) % b->unit, len - at);
		if (!memcmp(b->old + at, b->new + at, n))
			continue;
		/* Where nothing is below yet, a format may take zeros for done when nothing is there; the new image would show. */
		if (zero_all(b->old + at, n) && off + at + n <= b->backing_bytes)
			ret = fmt_pzero(b->top, n, off + at, e);
		else
			ret = fmt_pwrite(b->top, b->old + at, n, off + at, e);
		b->copied += n;
	}
	return ret;
}

static int keep_contents(struct rebase *b, struct vh_job *j, struct vh_err *e)
{
	struct fmt_layer_info top;
	struct run own = {0}, old = {0}, new = {0};
	uint64_t off = 0, next;
	int ret = 0;

	fmt_layer_get(b->top, 0, &top);
	b->backing_bytes = top.backing_bytes;
	b->unit = MIN(MAX(top.unit, 4096u), PIECE);
	for (; off < top.bytes && !ret; off = next) {
		job_progress(j, off, top.bytes);
		if (job_cancelled(j))
			return err_set(e, -ECANCELED, "cancelled; the backing image is the old one still");
		if (off >= own.end)
			ret = run_at(b->top, 1, off, off < top.backing_bytes ? MIN(top.backing_bytes, top.bytes) : top.bytes, &own, e);
		next = own.end;
		/* Behind the end of the old backing image zeros may be nobody's, whatever the format says. */
		if (ret || (own.type != VH_EXT_BACKING && own.type != VH_EXT_ZERO) ||
		    (own.type == VH_EXT_ZERO && own.own && off < top.backing_bytes))
			continue;
		if (off >= old.end)
			ret = run_at(b->top, 0, off, own.end, &old, e);
		if (!ret && off >= new.end)
			ret = run_at(b->below, 0, off, own.end, &new, e);
		if (ret)
			continue;
		next = MIN(own.end, MIN(old.end, new.end));
		if (old.type == VH_EXT_ZERO && new.type == VH_EXT_ZERO)
			continue;
		next = MIN(next, off + PIECE - off % PIECE);
		ret = keep_piece(b, off, next - off, e);
	}
	return ret ? ret : fmt_flush(b->top, e);
}

int store_rebase(const struct store_rebase *s, uint64_t *copied, struct vh_job *j, struct vh_err *e)
{
	g_autofree char *holder = g_strdup_printf("pid %d vhost rebase", (int)getpid());
	struct store_image_spec spec = {.pool = s->pool, .volume = s->volume, .format = s->format, .options = s->options,
					.holder = holder, .mode = VH_ATTACH_RW_EXCL, .no_backing = s->unsafe, .allow = s->allow};
	struct backing_spec new = {.pool = s->pool, .volume = s->volume, .there = 1, .name = s->backing, .format = s->backing_format,
				   .allow = s->allow, .alone = s->unsafe};
	struct kvs empty = {0}, own, of_new;
	struct rebase b = {0};
	struct backing below = {0};
	struct store_image *top = NULL;
	int ret;

	kvs_without_prefix(s->options ? s->options : &empty, OPT_NEW, &own);
	kvs_with_prefix(s->options ? s->options : &empty, OPT_NEW, &of_new);
	spec.options = &own;
	new.options = &of_new;
	ret = store_image_open(&spec, &top, e);

	*copied = 0;
	if (ret) {
		if (ret == -ENOENT && !s->unsafe)
			err_remedy(e, "if only the name of the backing image is wrong, add --unsafe");
		goto out;
	}
	b.top = store_image_fmt(top);
	if (!fmt_format_ops(b.top)->set_backing) /* before a long copy, not after it */
		ret = err_set(e, -EOPNOTSUPP, "images of format %s cannot change their backing image", fmt_format_name(b.top));
	if (!ret && s->backing)
		ret = backing_open(&below, &new, e);
	if (!ret && !s->unsafe) {
		b.below = below.image;
		b.old = g_malloc(PIECE);
		b.new = g_malloc(PIECE);
		ret = keep_contents(&b, j, e);
	}
	if (!ret && s->backing)
		ret = vol_meta_set(s->pool, s->volume, REBASING, s->backing, e);
	if (!ret)
		ret = fmt_set_backing(b.top, s->backing, s->backing ? below.format : NULL, below.bytes, below.volume, e);
	if (!ret)
		ret = store_backing_set(s->pool, s->volume, fmt_format_name(b.top), s->backing, e);
	if (!ret && s->backing)
		ret = vol_meta_set(s->pool, s->volume, REBASING, NULL, e);
	*copied = b.copied;
	store_image_close(top);
	backing_close(&below);
	g_free(b.old);
	g_free(b.new);
out:
	g_free(own.v);
	g_free(of_new.v);
	return ret;
}
