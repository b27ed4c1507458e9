/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What an image holds, merged over its chain: for commands that copy, compare or show it. [main] */
#include "fmt/impl.h"

#define WALK_EXT 64u

/* Joins neighbours before they are told. */
struct walk {
	fmt_walk_fn *fn;
	void *ctx;
	int holes;
	struct fmt_range r;
};

/* Where a file of the host has a hole its image has zeros. */
static int tell_data(struct walk *w)
{
	struct fmt_range r = w->r;
	uint64_t at = r.addr, end = r.addr + r.len, from, to;
	int ret = 0;

	while (at < end && !ret) {
		blk_next_data(r.vol, at, end, &from, &to);
		if (from > at) {
			struct fmt_range z = {.off = r.off + (at - r.addr), .len = from - at, .type = VH_EXT_ZERO, .depth = r.depth,
					      .allocated = r.allocated};

			ret = w->fn(w->ctx, &z);
		}
		if (from < to && from < end && !ret) {
			struct fmt_range d = r;

			d.off = r.off + (from - r.addr);
			d.addr = from;
			d.len = to - from;
			ret = w->fn(w->ctx, &d);
			at = to;
		} else {
			at = end;
		}
	}
	return ret;
}

static int tell(struct walk *w)
{
	if (!w->r.len)
		return 0;
	/* A hole is decrypted like anything else. */
	return w->holes && w->r.type == VH_EXT_DATA && w->r.vol && !w->r.crypt ? tell_data(w) : w->fn(w->ctx, &w->r);
}

static int add(struct walk *w, const struct fmt_range *n)
{
	struct fmt_range *r = &w->r;
	int ret;

	if (r->len && r->type == n->type && r->depth == n->depth && r->vol == n->vol && r->allocated == n->allocated && r->crypt == n->crypt &&
	    (n->type != VH_EXT_DATA || r->addr + r->len == n->addr) && n->type != VH_EXT_COMPRESSED) {
		r->len += n->len;
		return 0;
	}
	ret = tell(w);
	*r = *n;
	return ret;
}

int fmt_walk(struct fmt_image *i, uint64_t off, uint64_t len, int holes, fmt_walk_fn *fn, void *ctx, struct vh_err *e)
{
	struct walk w = {.fn = fn, .ctx = ctx, .holes = holes};
	uint64_t pos = off, end = off + len, win = end, bytes = load_relaxed(&i->bytes);
	struct vh_extent ext[WALK_EXT];
	uint32_t depth = 0;
	int r = 0;

	if (off > bytes || len > bytes - off)
		return err_set(e, -EINVAL, "%llu bytes at %llu lie outside the disk of %llu bytes", (unsigned long long)len,
			       (unsigned long long)off, (unsigned long long)bytes);
	while (r == 0 && pos < end) {
		struct vh_map m = {.op = VH_MAP_REPORT, .cap = WALK_EXT, .pos = pos, .len = win - pos, .ext = ext};
		struct fmt_layer *l = i->layers[depth];

		r = meta_map(l, &m, 1);
		if (r == -EAGAIN)
			r = layer_report(l, &m);
		if (r < 0)
			return err_set(e, r, "image %s: format %s cannot say what is at %llu", i->label, l->ops->name,
				       (unsigned long long)pos);
		for (uint32_t k = 0; k < m.n && r == 0 && pos < win; k++) {
			const struct vh_extent *x = &ext[k];
			uint64_t n = x->pos + x->len < win ? x->pos + x->len - pos : win - pos, below;
			struct fmt_range f = {.off = pos, .len = n, .type = x->type, .depth = depth,
					      .allocated = !!(x->flags & VH_EXT_ALLOCATED), .crypt = !!(x->flags & VH_EXT_CRYPT)};

			if (x->type != VH_EXT_BACKING) {
				if (x->type == VH_EXT_DATA || x->type == VH_EXT_COMPRESSED) {
					f.vol = l->vols[x->vol];
					f.addr = x->addr;
				}
				r = add(&w, &f);
				pos += n;
				continue;
			}
			below = depth + 1 < i->nlayers ? i->layers[depth + 1]->info.bytes : 0;
			if (pos >= below) {
				f.type = VH_EXT_ZERO;
				r = add(&w, &f);
				pos += n;
				continue;
			}
			win = pos + (n < below - pos ? n : below - pos);
			depth++;
			break;
		}
		if (pos == win) {
			depth = 0;
			win = end;
		}
	}
	return r ? r : tell(&w);
}
