/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * All reference counts anew, from what refers to clusters: new blocks and a new table behind everything else, complete and
 * durable before the header names them in one write. What the old ones took is free afterwards.
 */
#include "check.h"
#include "refcount.h"

struct build {
	struct q2 *q;
	struct q2_all all;
	struct vh_job *job;
	uint32_t order, rb_bits;
	uint64_t base;   /* first cluster of the new blocks */
	uint64_t used;   /* blocks that were written */
	uint64_t *rt, n; /* the new table */
	uint8_t *block, *last; /* last: the block in which base lies */
	uint64_t lost;   /* a cluster whose count does not fit */
};

static int keep_flaw(void *ctx, enum q2_flaw what, const struct q2_l2 *t, uint32_t index, uint8_t *entry)
{
	return 0; /* what can be followed is counted; the rest is check's to tell */
}

static uint64_t limit(const struct build *b)
{
	return b->order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << b->order)) - 1;
}

static int block_fill(struct build *b, uint8_t *to, uint64_t first)
{
	const struct q2_counts *c = &b->all.counts;
	uint64_t per = UINT64_C(1) << b->rb_bits, max = limit(b);
	int any = 0;

	for (uint64_t i = 0; i < per && first + i < b->base; i++) {
		uint64_t k = first + i - c->lo, n;

		if (k >= c->n || !c->v[k])
			continue;
		n = q2_count_of(c, k);
		if (!n)
			continue;
		if (n > max) {
			b->lost = first + i;
			return -ERANGE;
		}
		q2_count_set(to, b->order, (uint32_t)i, n);
		any = 1;
	}
	return any;
}

static int window_write(struct build *b)
{
	const struct q2_counts *c = &b->all.counts;
	uint64_t per = UINT64_C(1) << b->rb_bits, tail = b->base >> b->rb_bits;
	int r = 0;

	for (uint64_t k = c->lo >> b->rb_bits; r >= 0 && k << b->rb_bits < c->lo + c->n && k <= tail; k++) {
		if (k == tail) {
			r = block_fill(b, b->last, k * per);
			break;
		}
		memset(b->block, 0, b->q->cluster);
		r = block_fill(b, b->block, k * per);
		if (r <= 0)
			continue;
		b->rt[k] = (b->base + b->used++) << b->q->h.bits;
		r = q2_write(b->q, b->block, b->q->cluster, b->rt[k]);
	}
	return r < 0 ? r : 0;
}

static int table_room(struct build *b, uint64_t n)
{
	uint64_t *rt;

	if (n <= b->n)
		return 0;
	if (n * 8 > Q2_MAX_REFTABLE)
		return -EFBIG;
	rt = realloc(b->rt, n * 8);
	if (!rt)
		return -ENOMEM;
	memset(rt + b->n, 0, (n - b->n) * 8);
	b->rt = rt;
	b->n = n;
	return 0;
}

/* The blocks that count the new blocks themselves, and the table. */
static int tail_write(struct build *b, uint64_t *table_off, uint64_t *table_clusters)
{
	struct q2 *q = b->q;
	uint64_t per = UINT64_C(1) << b->rb_bits, tail = b->base >> b->rb_bits, m = 1, t, end;
	int r;

	for (;;) {
		t = ((tail + m) * 8 + q->cluster - 1) >> q->h.bits;
		end = b->base + b->used + m + t;
		if (end <= (tail + m) << b->rb_bits)
			break;
		m++;
	}
	r = table_room(b, (t << q->h.bits) / 8);
	for (uint64_t k = 0; r >= 0 && k < m; k++) {
		uint8_t *p = k ? b->block : b->last;

		if (k)
			memset(p, 0, q->cluster);
		for (uint64_t i = 0; i < per; i++) {
			uint64_t c = (tail + k) * per + i;

			if (c >= b->base && c < end)
				q2_count_set(p, b->order, (uint32_t)i, 1);
		}
		b->rt[tail + k] = (b->base + b->used + k) << q->h.bits;
		r = q2_write(q, p, q->cluster, b->rt[tail + k]);
	}
	*table_off = (b->base + b->used + m) << q->h.bits;
	*table_clusters = t;
	for (uint64_t k = 0; r >= 0 && k < t; k++) {
		for (uint64_t i = 0; i < q->cluster / 8; i++)
			q2_put64(b->block + 8 * i, b->rt[k * (q->cluster / 8) + i]);
		r = q2_write(q, b->block, q->cluster, *table_off + (k << q->h.bits));
	}
	return r < 0 ? r : q2_io->flush(q->vol);
}

static int switch_over(struct build *b, uint64_t off, uint64_t clusters, struct vh_err *e)
{
	struct q2 *q = b->q;
	struct q2_header h = q->h;
	int r;

	h.rt_off = off;
	h.rt_clusters = (uint32_t)clusters;
	h.ref_order = b->order;
	r = q2_header_write(q->vol, &h, e);
	if (r >= 0) {
		r = q2_io->flush(q->vol);
		if (r < 0)
			q2_fail(e, r, "cannot flush the header");
	}
	if (r < 0) {
		__atomic_store_n(&q->failed, 1, __ATOMIC_RELEASE);
		return r;
	}
	for (uint64_t k = 0; k < q->rt_n; k++) {
		if (!q->rt[k] || q->rt[k] & (q->cluster - 1))
			continue;
		q2_meta_del(q, q->rt[k]);
		q2_cache_forget(&q->rb, q->rt[k], q->cluster);
	}
	for (uint64_t k = 0; k < b->n; k++)
		if (b->rt[k])
			q2_cache_forget(&q->rb, b->rt[k], q->cluster);
	q2_ref_close(q);
	q->h.rt_off = off;
	q->h.rt_clusters = (uint32_t)clusters;
	q->h.ref_order = b->order;
	q->rb_bits = b->rb_bits;
	q->hint = q->end = q->comp_off = 0;
	q->zero_lo = q->zero_hi = 0;
	q->rt_any_dirty = 0;
	for (uint64_t k = 0; k < q->h.l1_size; k++) { /* an old block may have lain over one */
		uint64_t l2 = q2_l1(q, k) & Q2_OFFSET_MASK;

		if (l2 && !(l2 & (q->cluster - 1)))
			q2_meta_add(q, l2);
	}
	r = q2_ref_open(q, e);
	if (r < 0)
		__atomic_store_n(&q->failed, 1, __ATOMIC_RELEASE);
	return r;
}

static int build(struct build *b, struct vh_err *e)
{
	struct q2 *q = b->q;
	struct q2_walk w = {.flaw = keep_flaw, .job = b->job};
	uint64_t off, clusters;
	int r = q2_all_init(&b->all, q, NULL, NULL, e);

	if (r < 0)
		return r;
	b->base = b->all.clusters; /* behind everything */
	b->all.window = (Q2_WINDOW >> b->rb_bits) << b->rb_bits;
	if (!b->all.window)
		b->all.window = UINT64_C(1) << b->rb_bits;
	r = table_room(b, (b->base >> b->rb_bits) + 1);
	for (uint64_t lo = 0; r >= 0 && lo < b->base; lo += b->all.window) {
		if (lo && lo > b->all.max) { /* nothing up there */
			lo = b->base;
			break;
		}
		r = q2_all_count(&b->all, lo, &w, 0);
		if (r >= 0)
			r = window_write(b);
		q2_progress(b->job, q2_min(lo + b->all.window, b->base), b->base);
	}
	if (r >= 0)
		r = tail_write(b, &off, &clusters);
	if (r == -ERANGE) {
		q2_hint(e, "choose a larger refcount-bits");
		return q2_fail(e, r, "the count of cluster %llu does not fit into %u bits", (unsigned long long)b->lost, 1u << b->order);
	}
	if (r == -EFBIG)
		return q2_fail(e, r, "the refcount table would be larger than %u bytes", Q2_MAX_REFTABLE);
	if (r < 0)
		return q2_fail(e, r, "cannot write new reference counts");
	return switch_over(b, off, clusters, e);
}

int q2_rebuild(struct q2 *q, uint32_t order, struct vh_job *j, struct vh_err *e)
{
	struct build b = {.q = q, .job = j, .order = order, .rb_bits = q->h.bits + 3 - order};
	int r;

	b.block = malloc(q->cluster);
	b.last = calloc(1, q->cluster);
	r = b.block && b.last ? build(&b, e) : q2_fail(e, -ENOMEM, "no memory for reference counts");
	q2_all_free(&b.all);
	free(b.block);
	free(b.last);
	free(b.rt);
	return r;
}
