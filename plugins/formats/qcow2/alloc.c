/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Taking free clusters; making zeros ahead of them. */
#include "refcount.h"

/* The first free run in memory from cluster `from` on, at most `want`, not changed yet; *t is pinned. alloc_lock is held. */
static int find_run(struct q2 *q, uint64_t from, uint64_t want, struct q2_tbl **t, uint32_t *index, uint64_t *n, struct q2_want *w)
{
	uint32_t per = q2_per_table(q), i;
	uint64_t c = from;

	for (;;) {
		uint64_t base;
		int r;

		if (c >> q->rb_bits < q->rt_n && q->rt[c >> q->rb_bits] && q2_full(q, c)) {
			c = (c / per + 1) * per;
			continue;
		}
		q->hint = c; /* nothing before is free */
		r = q2_locate(q, c, t, &i, w);
		if (r < 0)
			return r;
		base = c - i;
		while (i < per && q2_count((*t)->data, q->h.ref_order, i))
			i++;
		q->hint = base + i;
		for (*n = 0; *n < want && i + *n < per && !q2_count((*t)->data, q->h.ref_order, i + (uint32_t)*n); ++*n)
			;
		if (*n) {
			*index = i;
			return 0;
		}
		q2_tbl_put(&q->rb, *t);
		q2_full_set(q, base, 1);
		c = base + per;
	}
}

/*
 * Zeros that are running out are made while there are some left, by one request that is sent where it may wait; the others go on
 * meanwhile. 1: that is this one.
 */
static int low_water(struct q2 *q, uint64_t c, uint32_t flags, struct q2_want *w)
{
	if (q->zero_hi - c > q->zero_low || q->no_zeros || q->fence != UINT64_MAX || q->ahead == Q2_AHEAD_MAKING)
		return 0;
	if (flags & Q2_NOWAIT) {
		if (q->ahead == Q2_AHEAD_SENT)
			return 0;
		q->ahead = Q2_AHEAD_SENT;
	} else {
		q->ahead = Q2_AHEAD_MAKING;
	}
	*w = (struct q2_want){Q2_NEED_ZEROS, q->end > q->zero_hi ? q->end : q->zero_hi};
	return 1;
}

/* How many clusters of the run [c, c+n) are taken, so that all of them are alike; *zeros: what they are. 0: *w is wanted. */
static uint64_t alike(struct q2 *q, uint64_t c, uint64_t n, uint32_t flags, int *zeros, struct q2_want *w)
{
	*zeros = 0;
	if (c >= q->fence) {
		*w = (struct q2_want){Q2_NEED_FENCE, 0};
		return 0;
	}
	n = q2_min(n, q->fence - c);
	if (!(flags & Q2_WANT_ZEROS))
		return n;
	if (c >= q->zero_lo && c < q->zero_hi) {
		if (low_water(q, c, flags, w))
			return 0;
		*zeros = 1;
		return q2_min(n, q->zero_hi - c);
	}
	if (c >= q->end && c >= q->zero_hi && !q->no_zeros) {
		*w = (struct q2_want){Q2_NEED_ZEROS, c};
		return 0;
	}
	return c < q->end ? q2_min(n, q->end - c) : n;
}

/* In memory only. -EUCLEAN: cluster *first is free by its count, and is metadata. */
static int take_run(struct q2 *q, uint64_t want, uint32_t flags, uint64_t *first, uint64_t *got, int *zeros, struct q2_want *w)
{
	struct q2_tbl *t;
	uint64_t n, c;
	uint32_t i;
	int r = find_run(q, q->hint, want, &t, &i, &n, w);

	if (r < 0) {
		*first = q->hint;
		return r;
	}
	c = q->hint;
	n = alike(q, c, n, flags, zeros, w);
	r = n ? 0 : -EAGAIN;
	for (uint64_t k = 0; r == 0 && k < n; k++) {
		if (!q2_is_meta_cluster(q, c + k))
			continue;
		*first = c + k;
		r = -EUCLEAN;
	}
	if (r == 0) {
		for (uint64_t k = 0; k < n; k++)
			q2_change(q, t, i + (uint32_t)k, c + k, 0, 1);
		q->hint = c + n;
		*first = c;
		*got = n;
	}
	q2_tbl_put(&q->rb, t);
	return r;
}

int q2_alloc_run(struct q2 *q, uint64_t want, uint32_t flags, uint64_t *off, uint64_t *got, int *zeros)
{
	struct q2_tbl *held = NULL;
	struct q2_want w;
	uint64_t first = 0;
	int r;

	for (;;) {
		pthread_mutex_lock(&q->alloc_lock);
		r = take_run(q, want, flags, &first, got, zeros, &w);
		pthread_mutex_unlock(&q->alloc_lock);
		if (r == -EUCLEAN && (flags & Q2_NOWAIT))
			r = -EAGAIN; /* to be told where one may wait */
		if (r != -EAGAIN || (flags & Q2_NOWAIT))
			break;
		r = q2_bring(q, &w, &held);
		if (r < 0)
			break;
	}
	q2_unhold(q, &held);
	*off = first << q->h.bits;
	if (r == -EUCLEAN)
		return q2_corrupt(q, "the count of cluster %llu is damaged, or says that metadata is free space",
				  (unsigned long long)first);
	return r;
}

/* [main] At the end, where all is free: blocks for the counts first, then the run. */
static int alloc_many(struct q2 *q, uint64_t n, uint64_t *off)
{
	uint64_t per = UINT64_C(1) << q->rb_bits, s = q->end;
	int r = 0;

	/* So far ahead that the run is covered also behind the blocks that are made for it, which moves it on. */
	for (int k = 0; r >= 0 && q2_uncovered(q, s, n); k++, s = q->end)
		r = k < 16 ? q2_blocks_make(q, s, n + ((per + n / per + 4) << k)) : -EFBIG;
	if (r >= 0 && q2_is_meta(q, s << q->h.bits, n << q->h.bits))
		return q2_corrupt(q, "cluster %llu and those behind it count as free, and hold metadata", (unsigned long long)s);
	for (uint64_t k = 0; r >= 0 && k < n; k++) {
		uint64_t count;

		r = q2_ref_get(q, s + k, &count);
		if (r >= 0 && count)
			r = q2_corrupt(q, "cluster %llu lies behind the last one in use, and is in use", (unsigned long long)(s + k));
		if (r >= 0)
			r = q2_ref_set(q, s + k, 1);
		for (uint64_t j = 0; r < 0 && j < k; j++)
			q2_ref_set(q, s + j, 0);
	}
	*off = s << q->h.bits;
	return r;
}

int q2_alloc(struct q2 *q, uint64_t n, uint64_t *off)
{
	uint64_t got;
	int zeros;

	return n == 1 ? q2_alloc_run(q, 1, 0, off, &got, &zeros) : n ? alloc_many(q, n, off) : -EINVAL;
}

int q2_alloc_at(struct q2 *q, uint64_t off, uint64_t n)
{
	uint64_t c = off >> q->h.bits, count;
	int r = 0;

	for (uint64_t k = 0; r >= 0 && k < n; k++) {
		r = q2_ref_get(q, c + k, &count);
		if (r >= 0 && count)
			return -EEXIST;
	}
	for (uint64_t k = 0; r >= 0 && k < n; k++)
		r = q2_ref_set(q, c + k, 1);
	return r;
}

/* What is zeroed must be nobody's, also if something is wrong with q->end. */
static int really_free(struct q2 *q, uint64_t c, uint64_t n)
{
	uint64_t count = 0;
	int r = q2_is_meta(q, c << q->h.bits, n << q->h.bits) ? -EUCLEAN : 0;

	for (uint64_t k = 0; r >= 0 && k < n; k++) {
		r = q2_ref_get(q, c + k, &count);
		if (r >= 0 && count)
			r = -EUCLEAN;
	}
	return r;
}

/*
 * Clusters at the end of the file are made to read as zeros in strides, so that writing a part of one need not write the rest
 * of it as well. The fence keeps others from being given what is being zeroed.
 */
int q2_zeros_ahead(struct q2 *q, uint64_t c)
{
	uint64_t lo, n;
	int r;

	pthread_mutex_lock(&q->alloc_lock);
	n = q2_min(q->end << q->h.bits >> 4, UINT64_C(16) << 20) >> q->h.bits;
	n = n < 4 ? 4 : n;
	lo = q->end > q->zero_hi ? q->end : q->zero_hi;
	if (c < lo || q->no_zeros || (lo + n) >> (56 - q->h.bits)) { /* another was faster, or nothing goes any more */
		q->no_zeros |= (lo + n) >> (56 - q->h.bits) != 0;
		q->ahead = Q2_AHEAD_NO;
		pthread_mutex_unlock(&q->alloc_lock);
		return 0;
	}
	q->fence = lo;
	pthread_mutex_unlock(&q->alloc_lock);
	r = really_free(q, lo, n);
	if (r < 0) {
		pthread_mutex_lock(&q->alloc_lock);
		q->fence = UINT64_MAX;
		q->no_zeros = 1;
		q->ahead = Q2_AHEAD_NO;
		pthread_mutex_unlock(&q->alloc_lock);
		return 0;
	}
	r = q2_io->zero(q->vol, n << q->h.bits, lo << q->h.bits);
	pthread_mutex_lock(&q->alloc_lock);
	q->fence = UINT64_MAX;
	q->ahead = Q2_AHEAD_NO;
	if (r < 0) {
		q->no_zeros = 1; /* then the host writes them, as far as there is room */
	} else {
		if (q->zero_lo >= q->zero_hi || q->zero_hi != lo)
			q->zero_lo = lo;
		q->zero_hi = lo + n;
		q->zero_low = n / 2;
	}
	pthread_mutex_unlock(&q->alloc_lock);
	return 0;
}
