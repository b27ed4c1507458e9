/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* New refcount blocks, and a larger refcount table. */
#include "refcount.h"

uint64_t q2_uncovered(const struct q2 *q, uint64_t c, uint64_t n)
{
	uint64_t m = 0;

	for (uint64_t b = c >> q->rb_bits; b <= (c + n - 1) >> q->rb_bits; b++)
		m += b >= q->rt_n || !q->rt[b];
	return m;
}

/* Whether nothing says of [c, c+n) that it is metadata. */
static int untouched(struct q2 *q, uint64_t c, uint64_t n)
{
	return !q2_is_meta(q, c << q->h.bits, n << q->h.bits);
}

/* Writes the block for cluster `first` and those that follow, in which [lo, hi) is in use, to cluster `at`. */
static int block_write(struct q2 *q, uint8_t *buf, uint64_t first, uint64_t lo, uint64_t hi, uint64_t at)
{
	uint64_t end = first + (UINT64_C(1) << q->rb_bits);

	memset(buf, 0, q->cluster);
	for (uint64_t c = lo > first ? lo : first; c < hi && c < end; c++)
		q2_count_set(buf, q->h.ref_order, (uint32_t)(c - first), 1);
	q2_cache_forget(&q->rb, at << q->h.bits, q->cluster);
	return q2_write(q, buf, q->cluster, at << q->h.bits);
}

/* Clusters that were in nobody's reach until now. */
static void end_is(struct q2 *q, uint64_t end)
{
	if (q->end < end)
		q->end = end;
	if (q->zero_lo < q->zero_hi && q->zero_lo < end)
		q->zero_lo = end;
}

/*
 * The blocks that [c, c+n) needs are put into free clusters from the first uncovered one on, where they count themselves.
 * They are complete in the file before anybody can find them; the table's entries follow them by a flush (flush.c).
 */
int q2_blocks_make(struct q2 *q, uint64_t c, uint64_t n)
{
	uint64_t m, k = 0, at, last, b;
	uint8_t *buf;
	int r = 0;

	if ((c + n) >> (56 - q->h.bits))
		return -EFBIG;
	m = q2_uncovered(q, c, n);
	if (!m)
		return 0;
	/* Where there are no blocks nothing is in use. */
	for (at = c; at >> q->rb_bits < q->rt_n && q->rt[at >> q->rb_bits]; at = ((at >> q->rb_bits) + 1) << q->rb_bits)
		;
	at = at >> q->rb_bits << q->rb_bits;
	while (q2_uncovered(q, c, at + m > c + n ? at + m - c : n) > m)
		m++;
	last = (at + m > c + n ? at + m : c + n) - 1;
	if (last >> q->rb_bits >= q->rt_n)
		return q2_rt_grow(q, last + 1);
	if (!untouched(q, at, m))
		return q2_corrupt(q, "cluster %llu is counted nowhere, and holds metadata", (unsigned long long)at);
	buf = malloc(q->cluster);
	if (!buf)
		return -ENOMEM;
	for (b = c >> q->rb_bits; r >= 0 && k < m; b++)
		if (!q->rt[b])
			r = block_write(q, buf, b << q->rb_bits, at, at + m, at + k++);
	free(buf);
	for (k = 0; r >= 0 && k < m; k++) {
		if (q->rt[(at + k) >> q->rb_bits]) /* reaches into an old block */
			r = q2_ref_set(q, at + k, 1);
		if (r >= 0)
			r = q2_meta_add(q, (at + k) << q->h.bits);
	}
	if (r < 0)
		return r;
	pthread_mutex_lock(&q->alloc_lock);
	for (b = c >> q->rb_bits, k = 0; k < m; b++) {
		if (q->rt[b])
			continue;
		q->rt[b] = (at + k++) << q->h.bits;
		q->rt_dirty[b / RT_SECTOR] = 1;
		q->rt_any_dirty = 1;
	}
	end_is(q, at + m);
	pthread_mutex_unlock(&q->alloc_lock);
	return 0;
}

/* ---- a larger refcount table ---- */

struct grown { uint64_t first, blocks, table, entries; }; /* clusters; blocks first, then the table */

/* Where it is put: in the first clusters that the old one does not cover, where nothing can be. */
static int grown_plan(struct q2 *q, uint64_t clusters, struct grown *g)
{
	uint64_t per = q->cluster / 8, want = (clusters >> q->rb_bits) + 1;

	g->first = q->rt_n << q->rb_bits;
	if (want < q->rt_n + q->rt_n / 2)
		want = q->rt_n + q->rt_n / 2;
	if (want > Q2_MAX_REFTABLE / 8 && (clusters >> q->rb_bits) < Q2_MAX_REFTABLE / 8)
		want = Q2_MAX_REFTABLE / 8;
	g->blocks = 1;
	for (;;) {
		uint64_t need;

		g->table = (want + per - 1) / per;
		need = (g->blocks + g->table + (UINT64_C(1) << q->rb_bits) - 1) >> q->rb_bits;
		if (need > g->blocks) {
			g->blocks = need;
		} else if (q->rt_n + g->blocks > g->table * per) {
			want = q->rt_n + g->blocks;
		} else {
			break;
		}
	}
	g->entries = g->table * per;
	return g->table << q->h.bits > Q2_MAX_REFTABLE ? -EFBIG : 0;
}

static int grown_write(struct q2 *q, const struct grown *g, uint64_t *rt)
{
	uint64_t used = g->blocks + g->table, per_block = UINT64_C(1) << q->rb_bits;
	uint8_t *buf = malloc(q->cluster);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t b = 0; r >= 0 && b < g->blocks; b++)
		r = block_write(q, buf, g->first + b * per_block, g->first, g->first + used, g->first + b);
	for (uint64_t b = 0; r >= 0 && b < g->table; b++) {
		for (uint64_t k = 0; k < q->cluster / 8; k++)
			q2_put64(buf + 8 * k, rt[b * (q->cluster / 8) + k]);
		r = q2_write(q, buf, q->cluster, (g->first + g->blocks + b) << q->h.bits);
	}
	free(buf);
	if (r >= 0)
		r = q2_cache_write(&q->rb); /* blocks that only memory's table names so far */
	return r < 0 ? r : q2_io->flush(q->vol);
}

static int grow(struct q2 *q, uint64_t clusters)
{
	struct grown g;
	struct q2_header h = q->h;
	struct q2 n; /* the new table's members */
	uint64_t old_off = q->h.rt_off, old_len = (uint64_t)q->h.rt_clusters << q->h.bits;
	int r = grown_plan(q, clusters, &g);

	if (r < 0)
		return r;
	if (!untouched(q, g.first, g.blocks + g.table))
		return q2_corrupt(q, "cluster %llu is counted nowhere, and holds metadata", (unsigned long long)g.first);
	memset(&n, 0, sizeof(n));
	n.rb = (struct q2_cache){.slice = q->rb.slice};
	n.h.ref_order = q->h.ref_order;
	n.rb_bits = q->rb_bits;
	r = q2_rt_alloc(&n, g.entries);
	if (r < 0)
		return r;
	memcpy(n.rt, q->rt, q->rt_n * 8);
	for (uint64_t k = 0; k < g.blocks; k++)
		n.rt[q->rt_n + k] = (g.first + k) << q->h.bits;
	r = grown_write(q, &g, n.rt);
	if (r < 0)
		goto error;
	h.rt_off = (g.first + g.blocks) << q->h.bits;
	h.rt_clusters = (uint32_t)g.table;
	pthread_mutex_lock(&q->header_lock);
	h.incompat = q->h.incompat;
	h.autoclear = q->h.autoclear;
	r = q2_header_write(q->vol, &h, NULL);
	if (r >= 0)
		r = q2_io->flush(q->vol);
	if (r < 0) { /* which of the two tables a reader will find is not known */
		__atomic_store_n(&q->failed, 1, __ATOMIC_RELEASE);
		pthread_mutex_unlock(&q->header_lock);
		goto error;
	}
	pthread_mutex_lock(&q->alloc_lock);
	free(q->rt);
	free(q->rt_dirty);
	memcpy(n.full, q->full, ((q->rt_n << q->rb_bits) / q2_per_table(q)) / 8);
	free(q->full);
	q->rt = n.rt;
	q->rt_dirty = n.rt_dirty;
	q->full = n.full;
	q->rt_n = n.rt_n;
	q->rt_any_dirty = 0;
	q->h.rt_off = h.rt_off;
	q->h.rt_clusters = h.rt_clusters;
	end_is(q, g.first + g.blocks + g.table);
	pthread_mutex_unlock(&q->alloc_lock);
	pthread_mutex_unlock(&q->header_lock);
	for (uint64_t k = 0; k < g.blocks; k++)
		q2_meta_add(q, (g.first + k) << q->h.bits);
	if (q2_ref_add(q, old_off, old_len, -1) < 0)
		q2_warn("the old refcount table at byte %llu is leaked", (unsigned long long)old_off);
	return 0;
error:
	q2_ref_close(&n);
	return r;
}

int q2_rt_grow(struct q2 *q, uint64_t clusters)
{
	int r;

	pthread_mutex_lock(&q->rt_lock);
	r = grow(q, clusters);
	pthread_mutex_unlock(&q->rt_lock);
	return r;
}
