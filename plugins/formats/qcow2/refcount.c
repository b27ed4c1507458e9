/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Reference counts of clusters, of any width. The refcount table is in memory, its blocks are tables of the cache q->rb. All
 * changes of counts are made under alloc_lock and only in memory; what a change needs that is not in memory yet is brought
 * there first, without the lock, and then everything is tried again.
 */
#include "refcount.h"

uint64_t q2_ref_max(const struct q2 *q)
{
	return q->h.ref_order == 6 ? UINT64_MAX : (UINT64_C(1) << (1u << q->h.ref_order)) - 1;
}

uint64_t q2_count(const uint8_t *d, uint32_t order, uint32_t i)
{
	switch (order) {
	case 0:
	case 1:
	case 2:
		return d[i >> (3 - order)] >> ((i & ((8u >> order) - 1)) << order) & ((1u << (1u << order)) - 1);
	case 3:
		return d[i];
	case 4:
		return q2_be16(d + 2 * (size_t)i);
	case 5:
		return q2_be32(d + 4 * (size_t)i);
	default:
		return q2_be64(d + 8 * (size_t)i);
	}
}

void q2_count_set(uint8_t *d, uint32_t order, uint32_t i, uint64_t v)
{
	uint32_t shift, mask;

	switch (order) {
	case 0:
	case 1:
	case 2:
		shift = (i & ((8u >> order) - 1)) << order;
		mask = (1u << (1u << order)) - 1;
		d[i >> (3 - order)] = (uint8_t)((d[i >> (3 - order)] & ~(mask << shift)) | (uint32_t)(v & mask) << shift);
		break;
	case 3:
		d[i] = (uint8_t)v;
		break;
	case 4:
		q2_put16(d + 2 * (size_t)i, (uint16_t)v);
		break;
	case 5:
		q2_put32(d + 4 * (size_t)i, (uint32_t)v);
		break;
	default:
		q2_put64(d + 8 * (size_t)i, v);
	}
}

/* ---- where the count of a cluster is ---- */

/* Which bit of q->full. */
static uint64_t full_bit(const struct q2 *q, uint64_t c)
{
	return c / q2_per_table(q);
}

int q2_full(const struct q2 *q, uint64_t c)
{
	return q->full[full_bit(q, c) / 8] >> (full_bit(q, c) & 7) & 1;
}

void q2_full_set(struct q2 *q, uint64_t c, int v)
{
	uint8_t *b = &q->full[full_bit(q, c) / 8], m = (uint8_t)(1u << (full_bit(q, c) & 7));

	*b = v ? *b | m : *b & (uint8_t)~m;
}

/* The table with the count of cluster c, pinned. alloc_lock is held; -EAGAIN: *w says what is missing. */
int q2_locate(struct q2 *q, uint64_t c, struct q2_tbl **t, uint32_t *index, struct q2_want *w)
{
	uint64_t block = c >> q->rb_bits, off, in;
	int r;

	if (block >= q->rt_n) {
		*w = (struct q2_want){Q2_NEED_BLOCK, c};
		return -EAGAIN;
	}
	off = q->rt[block];
	if (!off) {
		*w = (struct q2_want){Q2_NEED_BLOCK, c};
		return -EAGAIN;
	}
	if (off & (q->cluster - 1) || off >= Q2_MAX_OFFSET)
		return -EUCLEAN;
	in = c & ((UINT64_C(1) << q->rb_bits) - 1);
	*index = (uint32_t)(in % q2_per_table(q));
	off += in / q2_per_table(q) * q->rb.slice;
	r = q2_tbl_get(&q->rb, off, Q2_NOWAIT, t);
	if (r == -EAGAIN)
		*w = (struct q2_want){Q2_NEED_TABLE, off};
	return r;
}

/* Brings what is wanted. A table stays pinned in *held until the next turn, so that it is there then. */
int q2_bring(struct q2 *q, const struct q2_want *w, struct q2_tbl **held)
{
	int r;

	q2_unhold(q, held);
	if (w->need == Q2_NEED_TABLE)
		return q2_tbl_get(&q->rb, w->arg, 0, held);
	pthread_mutex_lock(&q->make_lock);
	r = w->need == Q2_NEED_FENCE ? 0 : w->need == Q2_NEED_ZEROS ? q2_zeros_ahead(q, w->arg) : q2_blocks_make(q, w->arg, 1);
	pthread_mutex_unlock(&q->make_lock);
	return r;
}

void q2_unhold(struct q2 *q, struct q2_tbl **held)
{
	if (*held)
		q2_tbl_put(&q->rb, *held);
	*held = NULL;
}

static int damaged(struct q2 *q, uint64_t c)
{
	return q2_corrupt(q, "the refcount block of cluster %llu lies where nothing can lie", (unsigned long long)c);
}

/* Changes one count in memory. alloc_lock is held. */
void q2_change(struct q2 *q, struct q2_tbl *t, uint32_t i, uint64_t c, uint64_t old, uint64_t v)
{
	uint32_t lo = i << q->h.ref_order >> 3, hi = (uint32_t)(((uint64_t)(i + 1) << q->h.ref_order) + 7) >> 3;

	pthread_mutex_lock(&t->lock);
	q2_count_set(t->data, q->h.ref_order, i, v);
	q2_tbl_dirty(&q->rb, t, lo, hi);
	pthread_mutex_unlock(&t->lock);
	if (!v) {
		if (c < q->hint)
			q->hint = c;
		if (c == q->comp_off >> q->h.bits)
			q->comp_off = 0;
		q2_full_set(q, c, 0);
	} else if (!old) {
		if (c >= q->end)
			q->end = c + 1;
		if (c >= q->zero_lo && c < q->zero_hi) /* whoever has it may write to it */
			q->zero_lo = c + 1;
	}
}

int q2_ref_get(struct q2 *q, uint64_t c, uint64_t *count)
{
	struct q2_tbl *t, *held = NULL;
	struct q2_want w;
	uint32_t i;
	int r;

	for (;;) {
		pthread_mutex_lock(&q->alloc_lock);
		r = q2_locate(q, c, &t, &i, &w);
		if (r == 0) {
			*count = q2_count(t->data, q->h.ref_order, i);
			q2_tbl_put(&q->rb, t);
		}
		pthread_mutex_unlock(&q->alloc_lock);
		if (r != -EAGAIN)
			break;
		if (w.need != Q2_NEED_TABLE) { /* no block: never used */
			*count = 0;
			r = 0;
			break;
		}
		r = q2_bring(q, &w, &held);
		if (r < 0)
			break;
	}
	q2_unhold(q, &held);
	return r == -EUCLEAN ? damaged(q, c) : r;
}

/* One cluster. delta 0: set to `value`. Blocks that are missing are made where a count goes up. */
static int ref_one(struct q2 *q, uint64_t c, int delta, uint64_t value, int only_look, uint32_t flags)
{
	struct q2_tbl *t, *held = NULL;
	struct q2_want w;
	uint64_t old;
	uint32_t i;
	int r;

	for (;;) {
		pthread_mutex_lock(&q->alloc_lock);
		r = q2_locate(q, c, &t, &i, &w);
		if (r == 0) {
			old = q2_count(t->data, q->h.ref_order, i);
			if (delta)
				value = old + (uint64_t)(int64_t)delta;
			if (delta > 0 && old == q2_ref_max(q))
				r = -ERANGE;
			else if (delta < 0 && !old)
				r = -EUCLEAN;
			else if (!only_look && value != old)
				q2_change(q, t, i, c, old, value);
			q2_tbl_put(&q->rb, t);
		}
		pthread_mutex_unlock(&q->alloc_lock);
		if (r != -EAGAIN || (flags & Q2_NOWAIT))
			break;
		if (w.need != Q2_NEED_TABLE && (delta < 0 || (!delta && !value))) {
			r = delta ? -EUCLEAN : 0;
			break;
		}
		if (w.need != Q2_NEED_TABLE && only_look) { /* 0, and will be made */
			r = 0;
			break;
		}
		r = q2_bring(q, &w, &held);
		if (r < 0)
			break;
	}
	q2_unhold(q, &held);
	return r;
}

int q2_unalloc(struct q2 *q, uint64_t off, uint32_t flags)
{
	return ref_one(q, off >> q->h.bits, -1, 0, 0, flags);
}

int q2_ref_set(struct q2 *q, uint64_t c, uint64_t count)
{
	return count > q2_ref_max(q) ? -ERANGE : ref_one(q, c, 0, count, 0, 0);
}

int q2_ref_add(struct q2 *q, uint64_t off, uint64_t len, int delta)
{
	uint64_t lo = off >> q->h.bits, hi, c;
	int r = 0;

	if (!len)
		return 0;
	if (off >= Q2_MAX_OFFSET || len > Q2_MAX_OFFSET - off)
		return -ERANGE;
	hi = (off + len - 1) >> q->h.bits;
	for (c = lo; r >= 0 && c <= hi; c++)
		r = ref_one(q, c, delta, 0, 1, 0);
	for (c = lo; r >= 0 && c <= hi; c++) {
		r = ref_one(q, c, delta, 0, 0, 0);
		if (r < 0) /* what was done is taken back as far as it goes: too many counts are leaks */
			for (uint64_t k = lo; delta > 0 && k < c; k++)
				ref_one(q, k, -delta, 0, 0, 0);
	}
	return r;
}

/* ---- the refcount table ---- */

int q2_rt_alloc(struct q2 *q, uint64_t entries)
{
	uint64_t n = q2_up(entries ? entries : 1, RT_SECTOR), bits = (n << q->rb_bits) / q2_per_table(q);

	q->rt = calloc(n, 8);
	q->rt_dirty = calloc(1, n / RT_SECTOR);
	q->full = calloc(1, bits / 8 + 1);
	q->rt_n = entries;
	if (q->rt && q->rt_dirty && q->full)
		return 0;
	q2_ref_close(q);
	return -ENOMEM;
}

void q2_ref_close(struct q2 *q)
{
	free(q->rt);
	free(q->rt_dirty);
	free(q->full);
	q->rt = NULL;
	q->rt_dirty = q->full = NULL;
	q->rt_n = 0;
}

int q2_find_end(struct q2 *q)
{
	uint64_t end = 0, file = (q2_io->bytes(q->vol) + q->cluster - 1) >> q->h.bits;
	uint32_t tries = 64;

	q->zero_lo = q->zero_hi = 0;
	for (uint64_t b = q->rt_n; b-- > 0;) {
		uint64_t per = q2_per_table(q), first = b << q->rb_bits;

		if (!q->rt[b])
			continue;
		if (q->rt[b] & (q->cluster - 1) || q->rt[b] >= Q2_MAX_OFFSET)
			continue;
		for (uint64_t c = first + (UINT64_C(1) << q->rb_bits); c > first && tries; c -= per, tries--) {
			struct q2_tbl *t;
			int r = q2_tbl_get(&q->rb, q->rt[b] + (c - per - first) / per * q->rb.slice, 0, &t);

			if (r < 0) { /* then it is taken to be far enough behind all that can be in use */
				if (q->end < file)
					q->end = file;
				return r;
			}
			for (uint64_t i = per; i-- > 0 && !end;)
				if (q2_count(t->data, q->h.ref_order, (uint32_t)i))
					end = c - per + i + 1;
			q2_tbl_put(&q->rb, t);
			if (end) {
				q->end = end;
				return 0;
			}
		}
		if (!tries) {
			q->end = (b + 1) << q->rb_bits;
			return 0;
		}
	}
	q->end = 1;
	return 0;
}

int q2_ref_open(struct q2 *q, struct vh_err *e)
{
	uint64_t len = (uint64_t)q->h.rt_clusters << q->h.bits, have = q2_io->bytes(q->vol);
	int r = q2_rt_alloc(q, len / 8);

	if (r < 0)
		return q2_fail(e, r, "no memory for the refcount table");
	have = have > q->h.rt_off ? have - q->h.rt_off : 0;
	r = len ? q2_read(q, q->rt, q2_min(len, q2_up(have, 8)), q->h.rt_off) : 0;
	if (r < 0)
		return q2_fail(e, r, "cannot read the refcount table");
	for (uint64_t k = 0; k < q->rt_n; k++) {
		uint64_t off;

		if (!q->rt[k])
			continue;
		off = q->rt[k] = q2_be64(&q->rt[k]);
		if (off & (q->cluster - 1) || off >= Q2_MAX_OFFSET)
			continue; /* refused when it is used */
		if (q2_is_meta(q, off, q->cluster) && !(q->flags & (VH_OPEN_RO | VH_OPEN_REPAIR))) {
			q2_hint(e, "repair it, or open it read-only to save what can be read");
			return q2_fail(e, -EUCLEAN, "the refcount block at byte %llu lies over other metadata",
				       (unsigned long long)off);
		}
		if (q2_meta_add(q, off) < 0)
			return q2_fail(e, -ENOMEM, "no memory for the list of refcount blocks");
	}
	if (q->flags & VH_OPEN_REPAIR) { /* nothing is sure yet */
		q->end = (have + q->h.rt_off + q->cluster - 1) >> q->h.bits;
		return 0;
	}
	r = q2_find_end(q);
	return r < 0 ? q2_fail(e, r, "cannot read a refcount block") : 0;
}
