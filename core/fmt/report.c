/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What is where: the extents of an image and of its chain, for commands. */
#include "fmt/impl.h"

struct report_call {
	struct meta_item item;
	struct fmt_layer *l;
	struct vh_map *m;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int done, result;
};

static void report_on_worker(struct meta_item *item)
{
	struct report_call *c = container_of(item, struct report_call, item);
	int r = meta_map(c->l, c->m, 0);

	pthread_mutex_lock(&c->lock);
	c->result = r;
	c->done = 1;
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

int layer_report(struct fmt_layer *l, struct vh_map *m)
{
	struct report_call c = {.item.fn = report_on_worker, .l = l, .m = m};

	pthread_mutex_init(&c.lock, NULL);
	pthread_cond_init(&c.cond, NULL);
	meta_submit(&l->sched, &c.item, META_MAP);
	pthread_mutex_lock(&c.lock);
	while (!c.done)
		pthread_cond_wait(&c.cond, &c.lock);
	pthread_mutex_unlock(&c.lock);
	pthread_mutex_destroy(&c.lock);
	pthread_cond_destroy(&c.cond);
	return c.result;
}

/* Joins neighbours before they are told. */
struct report {
	int (*fn)(void *ctx, uint64_t off, uint64_t len, uint32_t type, uint32_t depth, uint64_t addr);
	void *ctx;
	uint64_t off, len, addr;
	uint32_t type, depth;
};

static int report_add(struct report *p, uint64_t off, uint64_t len, uint32_t type, uint32_t depth, uint64_t addr)
{
	int r = 0;

	if (p->len && p->type == type && p->depth == depth && (type != VH_EXT_DATA || p->addr + p->len == addr) &&
	    type != VH_EXT_COMPRESSED) {
		p->len += len;
		return 0;
	}
	if (p->len)
		r = p->fn(p->ctx, p->off, p->len, p->type, p->depth, p->addr);
	p->off = off;
	p->len = len;
	p->type = type;
	p->depth = depth;
	p->addr = addr;
	return r;
}

typedef int report_fn(void *ctx, uint64_t off, uint64_t len, uint32_t type, uint32_t depth, uint64_t addr);

/* From the image at `top` down, or of that one alone. */
static int report(struct fmt_image *i, uint32_t top, int alone, uint64_t off, uint64_t len, report_fn *fn, void *ctx,
		  struct vh_err *e)
{
	struct report p = {.fn = fn, .ctx = ctx};
	uint64_t pos = off, end = off + len, win = end;
	uint32_t depth = top;
	int r = 0;

	while (r == 0 && pos < end) {
		struct vh_extent ext[FMT_READ_EXT];
		struct vh_map m = {.op = VH_MAP_REPORT, .cap = FMT_READ_EXT, .pos = pos, .len = win - pos, .ext = ext};
		struct fmt_layer *l = i->layers[depth];

		r = layer_report(l, &m);
		if (r < 0)
			return err_set(e, r, "image %s: format %s cannot say what is at %llu", i->label, l->ops->name,
				       (unsigned long long)pos);
		for (uint32_t k = 0; k < m.n && r == 0 && pos < win; k++) {
			const struct vh_extent *x = &ext[k];
			uint64_t n = x->pos + x->len < win ? x->pos + x->len - pos : win - pos, below;

			if (x->type != VH_EXT_BACKING) {
				r = report_add(&p, pos, n, x->type, alone ? !!(x->flags & VH_EXT_ALLOCATED) : depth,
					       x->type == VH_EXT_DATA || x->type == VH_EXT_COMPRESSED ? x->addr : 0);
				pos += n;
				continue;
			}
			if (alone) {
				r = report_add(&p, pos, n, VH_EXT_BACKING, 0, 0);
				pos += n;
				continue;
			}
			below = depth + 1 < i->nlayers ? i->layers[depth + 1]->info.bytes : 0;
			if (pos >= below) {
				r = report_add(&p, pos, n, VH_EXT_ZERO, depth, 0);
				pos += n;
				continue;
			}
			win = pos + (n < below - pos ? n : below - pos);
			depth++;
			break;
		}
		if (pos == win) {
			depth = top;
			win = end;
		}
	}
	if (r == 0 && p.len)
		r = fn(ctx, p.off, p.len, p.type, p.depth, p.addr);
	return r;
}

int fmt_report(struct fmt_image *i, uint64_t off, uint64_t len, report_fn *fn, void *ctx, struct vh_err *e)
{
	int r = image_outside(i, len, off, e);

	return r < 0 ? r : report(i, 0, 0, off, len, fn, ctx, e);
}

int fmt_report_layer(struct fmt_image *i, uint32_t depth, uint64_t off, uint64_t len, report_fn *fn, void *ctx,
		     struct vh_err *e)
{
	uint64_t bytes;

	if (depth >= i->nlayers)
		return err_set(e, -ENOENT, "the chain of image %s has %u images", i->label, i->nlayers);
	bytes = i->layers[depth]->info.bytes;
	if (off > bytes || len > bytes - off)
		return err_set(e, -EINVAL, "%llu bytes at %llu lie outside the disk of %llu bytes", (unsigned long long)len,
			       (unsigned long long)off, (unsigned long long)bytes);
	return report(i, depth, 1, off, len, fn, ctx, e);
}
