/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Reference counts in the file, changed and looked up in bulk; COPIED made to agree with them. */
#include "bulk.h"
#include "refcount.h"

#define BATCH (UINT64_C(1) << 20)
#define HELD (UINT64_C(8) << 20) /* bytes of blocks that are kept for looking up */

static int block_ok(const struct q2 *q, uint64_t b)
{
	uint64_t off = b < q->rt_n ? q->rt[b] : 0;

	return off && !(off & (q->cluster - 1)) && off < Q2_MAX_OFFSET;
}

/* Counts of the clusters [first, first + per) in `block`; 1: changed. */
static int block_apply(struct q2 *q, uint8_t *block, const struct q2_counts *c, uint64_t first, int sign, int dry)
{
	uint64_t per = UINT64_C(1) << q->rb_bits, max = q2_ref_max(q), lo = first < c->lo ? c->lo - first : 0;
	uint64_t hi = c->lo + c->n < first + per ? c->lo + c->n - first : per;
	int changed = 0;

	for (uint64_t i = lo; i < hi; i++) {
		uint64_t d = q2_count_of(c, first + i - c->lo), old;

		if (!d)
			continue;
		old = q2_count(block, q->h.ref_order, (uint32_t)i);
		if (sign < 0 && d > old)
			return -EUCLEAN;
		if (sign > 0 && d > max - old)
			return -ERANGE;
		if (!dry)
			q2_count_set(block, q->h.ref_order, (uint32_t)i, sign < 0 ? old - d : old + d);
		changed = !dry;
	}
	return changed;
}

static int any_counted(const struct q2_counts *c, uint64_t first, uint64_t per)
{
	uint64_t lo = first < c->lo ? c->lo : first, hi = first + per < c->lo + c->n ? first + per : c->lo + c->n;

	for (uint64_t k = lo; k < hi; k++)
		if (c->v[k - c->lo])
			return 1;
	return 0;
}

int q2_counts_apply(struct q2 *q, const struct q2_counts *c, int sign, int dry)
{
	uint64_t per = UINT64_C(1) << q->rb_bits, room = BATCH > q->cluster ? BATCH : q->cluster, n;
	uint8_t *buf = malloc(room);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t b = c->lo >> q->rb_bits; r >= 0 && b << q->rb_bits < c->lo + c->n; b += n) {
		int changed = 0;

		n = 1;
		if (!any_counted(c, b << q->rb_bits, per))
			continue;
		if (!block_ok(q, b)) {
			r = -EUCLEAN;
			break;
		}
		while ((n + 1) << q->h.bits <= room && (b + n) << q->rb_bits < c->lo + c->n && block_ok(q, b + n) &&
		       q->rt[b + n] == q->rt[b] + (n << q->h.bits))
			n++;
		r = q2_read(q, buf, n << q->h.bits, q->rt[b]);
		for (uint64_t k = 0; r >= 0 && k < n; k++) {
			r = block_apply(q, buf + (k << q->h.bits), c, (b + k) << q->rb_bits, sign, dry);
			changed |= r > 0;
		}
		if (r >= 0 && changed)
			r = q2_write(q, buf, n << q->h.bits, q->rt[b]);
	}
	free(buf);
	return r < 0 ? r : 0;
}

void q2_ref_changed(struct q2 *q, int lowered)
{
	for (uint64_t b = 0; b < q->rt_n; b++)
		if (block_ok(q, b))
			q2_cache_forget(&q->rb, q->rt[b], q->cluster);
	if (q2_find_end(q) < 0) /* what is free behind the end must be known, or nothing is zeroed there */
		q->no_zeros = 1;
	if (!lowered)
		return;
	pthread_mutex_lock(&q->alloc_lock);
	memset(q->full, 0, (q->rt_n << q->rb_bits) / q2_per_table(q) / 8 + 1);
	q->hint = 0;
	q->comp_off = 0;
	pthread_mutex_unlock(&q->alloc_lock);
}

void q2_l2_forget(struct q2 *q)
{
	for (uint64_t k = 0; k < q->h.l1_size; k++) {
		uint64_t off = q2_l1(q, k) & Q2_OFFSET_MASK;

		if (off && !(off & (q->cluster - 1)))
			q2_cache_forget(&q->l2, off, q->cluster);
	}
}

/* ---- looking up ---- */

int q2_refs_init(struct q2_refs *r, struct q2 *q)
{
	memset(r, 0, sizeof(*r));
	r->q = q;
	r->n = q->rt_n;
	r->last = UINT64_MAX;
	r->block = calloc(r->n + 1, sizeof(*r->block));
	return r->block ? 0 : -ENOMEM;
}

static void refs_drop(struct q2_refs *r)
{
	for (uint64_t k = 0; r->held && k < r->n; k++) {
		if (r->block[k])
			r->held--;
		free(r->block[k]);
		r->block[k] = NULL;
	}
	r->last = UINT64_MAX;
}

void q2_refs_free(struct q2_refs *r)
{
	if (r->block)
		refs_drop(r);
	free(r->block);
	r->block = NULL;
}

static int refs_load(struct q2_refs *r, uint64_t b)
{
	struct q2 *q = r->q;
	int e;

	r->last = UINT64_MAX;
	if (!r->block[b]) {
		if (r->held && (r->held + 1) << q->h.bits > HELD)
			refs_drop(r);
		r->block[b] = malloc(q->cluster);
		if (!r->block[b])
			return -ENOMEM;
		r->held++;
		e = q2_read(q, r->block[b], q->cluster, q->rt[b]);
		if (e < 0)
			return e;
	}
	r->last = b;
	r->last_block = r->block[b];
	return 0;
}

int q2_refs_get(struct q2_refs *r, uint64_t cluster, uint64_t *count)
{
	uint64_t b = cluster >> r->q->rb_bits;
	int e;

	if (b != r->last) {
		*count = 0;
		if (!block_ok(r->q, b))
			return 0;
		e = refs_load(r, b);
		if (e < 0)
			return e;
	}
	*count = q2_count(r->last_block, r->q->h.ref_order, (uint32_t)(cluster & ((UINT64_C(1) << r->q->rb_bits) - 1)));
	return 0;
}

/* ---- COPIED ---- */

struct copied {
	struct q2_refs refs;
	int fix, r;
	void (*told)(void *ctx, uint64_t off, uint64_t entry, uint64_t count, int is_l1);
	void *ctx;
};

static int copied_entry(void *ctx, const struct q2_l2 *t, uint32_t index, uint8_t *p)
{
	struct copied *c = ctx;
	struct q2 *q = c->refs.q;
	uint64_t e = q2_be64(p), off = e & Q2_OFFSET_MASK, count;

	if (!off || e & Q2_COMPRESSED || off & (q->cluster - 1) || c->r < 0)
		return 0;
	c->r = q2_refs_get(&c->refs, off >> q->h.bits, &count);
	if (c->r < 0 || (count == 1) == !!(e & Q2_COPIED))
		return 0;
	if (c->told)
		c->told(c->ctx, t->off + (uint64_t)index * q->entry, e, count, 0);
	if (c->fix)
		q2_put64(p, count == 1 ? e | Q2_COPIED : e & ~Q2_COPIED);
	return c->fix;
}

static int copied_l1(struct copied *c)
{
	struct q2 *q = c->refs.q;

	for (uint64_t k = 0; k < q->h.l1_size && c->r >= 0; k++) {
		uint64_t v = q2_l1(q, k), off = v & Q2_OFFSET_MASK, count;

		if (!off || off & (q->cluster - 1))
			continue;
		c->r = q2_refs_get(&c->refs, off >> q->h.bits, &count);
		if (c->r < 0 || (count == 1) == !!(v & Q2_COPIED))
			continue;
		if (c->told)
			c->told(c->ctx, q->h.l1_off + 8 * k, v, count, 1);
		if (c->fix)
			q2_l1_set(q, k, count == 1 ? v | Q2_COPIED : v & ~Q2_COPIED);
	}
	return c->r;
}

int q2_copied(struct q2 *q, int fix, void (*told)(void *ctx, uint64_t off, uint64_t entry, uint64_t count, int is_l1), void *ctx,
	      struct vh_job *job)
{
	struct copied c = {.fix = fix, .told = told, .ctx = ctx};
	struct q2_l2s l2s = {0};
	struct q2_walk w = {.q = q, .l2s = &l2s, .each = copied_entry, .ctx = &c, .job = job};
	int r = q2_refs_init(&c.refs, q);

	if (r >= 0)
		r = q2_l2s_add(q, &l2s, q->l1, q->h.l1_size, 1);
	if (r >= 0)
		r = copied_l1(&c);
	if (r >= 0 && !q->has_data) {
		uint64_t file = q2_io->bytes(q->vol), n = 0;

		q2_l2s_sort(&l2s);
		while (n < l2s.n && l2s.v[n].off < file)
			n++;
		l2s.n = n;
		r = q2_walk(&w);
	}
	if (r >= 0)
		r = c.r;
	q2_refs_free(&c.refs);
	q2_l2s_free(&l2s);
	if (fix)
		q2_l2_forget(q);
	return r;
}
