/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Flush, in two phases with a flush of all volumes between (docs/design/mapping.md, "Durability").
 *
 * Phase 0 takes over the list of frees, then copies the changed L1 and L2 tables, then writes counts, in this order: every unlink of
 * that list is in the copies, and every reference of the copies is in the counts. Phase 1 writes the copies. A free goes freed ->
 * unlinking (its unlink is in a copy) -> unlinked (that copy is written) -> its count goes down once a volume flush that
 * began after that has ended, which is known when the next phase 1 comes.
 */
#include "refcount.h"

#define L1_SECTOR 64u

static int runs_add(struct q2_runs *l, struct q2_run x)
{
	struct q2_run *last = l->n ? &l->v[l->n - 1] : NULL;

	if (last && last->first + last->n == x.first && last->punched == x.punched) {
		last->n += x.n;
		return 0;
	}
	if (l->n == l->cap) {
		uint64_t cap = l->cap ? 2 * l->cap : 64;
		struct q2_run *v = realloc(l->v, cap * sizeof(*v));

		if (!v)
			return -ENOMEM;
		l->v = v;
		l->cap = cap;
	}
	l->v[l->n++] = x;
	return 0;
}

/* Moves all of `from` behind `to`. Without memory they are leaked, not lost. */
static void runs_move(struct q2_runs *to, struct q2_runs *from)
{
	if (!to->n) {
		struct q2_runs t = *to;

		*to = *from;
		*from = t;
		return;
	}
	for (uint64_t k = 0; k < from->n; k++)
		runs_add(to, from->v[k]);
	from->n = 0;
}

static void note(struct q2 *q, struct q2_runs *l, uint64_t off, uint64_t len, int punched)
{
	struct q2_run x = {off >> q->h.bits, ((off + len - 1) >> q->h.bits) - (off >> q->h.bits) + 1, punched};

	if (!len)
		return;
	pthread_mutex_lock(&q->alloc_lock);
	if (runs_add(l, x) < 0)
		q2_warn("no memory: %llu clusters are leaked", (unsigned long long)x.n);
	pthread_mutex_unlock(&q->alloc_lock);
}

void q2_free(struct q2 *q, uint64_t off, uint64_t len, int punched)
{
	note(q, &q->freed, off, len, punched);
}

void q2_free_at_close(struct q2 *q, uint64_t off, uint64_t len)
{
	note(q, &q->late, off, len, 1);
}

static void give_space(struct q2 *q, uint64_t c, uint64_t n)
{
	if (n && VH_HAS(q2_io, discard))
		q2_io->discard(q->vol, n << q->h.bits, c << q->h.bits);
}

/* Counts go down; what nothing refers to any more is given back to the volume before anybody else can have it. */
static void release(struct q2 *q, struct q2_runs *l)
{
	for (uint64_t k = 0; k < l->n; k++) {
		struct q2_run *x = &l->v[k];
		uint64_t last = 0, count;
		int r = 0;

		for (uint64_t c = x->first; !x->punched && c <= x->first + x->n; c++) {
			int only = c < x->first + x->n && q2_ref_get(q, c, &count) == 0 && count == 1;

			if (only) {
				last++;
				continue;
			}
			give_space(q, c - last, last);
			last = 0;
		}
		for (uint64_t c = x->first; c < x->first + x->n; c++) {
			r = q2_ref_add(q, c << q->h.bits, q->cluster, -1);
			if (r == -EUCLEAN)
				q2_corrupt(q, "cluster %llu was in use, and its count is 0", (unsigned long long)c);
			else if (r < 0)
				q2_warn("cluster %llu is leaked: its count cannot be read", (unsigned long long)c);
		}
	}
	l->n = 0;
}

static int copy_tables(struct q2 *q)
{
	int any = 0, r;

	pthread_mutex_lock(&q->alloc_lock);
	runs_move(&q->unlinking, &q->freed);
	for (uint64_t s = 0; q->l1_any_dirty && s * L1_SECTOR < q->h.l1_size; s++) {
		if (!q->l1_dirty[s])
			continue;
		for (uint64_t k = s * L1_SECTOR; k < (s + 1) * L1_SECTOR; k++)
			q2_put64(&q->l1_copy[k], q2_l1(q, k));
		q->l1_copied[s] = 1;
		q->l1_dirty[s] = 0;
		q->l1_any_copied = 1;
	}
	q->l1_any_dirty = 0;
	any = q->l1_any_copied || q->unlinking.n; /* what was unlinked in the file already is freed by this flush as well */
	pthread_mutex_unlock(&q->alloc_lock);
	r = q2_cache_copy(&q->l2);
	return r < 0 ? r : r | any;
}

/* The changed sectors of the refcount table as they are now: index, then its entries. NULL: none, or *r says why not. */
static uint64_t *rt_changes(struct q2 *q, uint64_t *n, int *r)
{
	uint64_t *v = NULL, sectors = (q->rt_n + RT_SECTOR - 1) / RT_SECTOR;

	*n = 0;
	*r = 0;
	pthread_mutex_lock(&q->alloc_lock);
	for (uint64_t s = 0; q->rt_any_dirty && s < sectors; s++)
		*n += q->rt_dirty[s];
	if (*n) {
		v = malloc(*n * (1 + RT_SECTOR) * 8);
		*r = v ? 0 : -ENOMEM;
	}
	*n = 0;
	for (uint64_t s = 0; v && s < sectors; s++) {
		uint64_t *to = v + *n * (1 + RT_SECTOR);

		if (!q->rt_dirty[s])
			continue;
		to[0] = s;
		for (uint64_t k = 0; k < RT_SECTOR; k++)
			q2_put64(&to[1 + k], s * RT_SECTOR + k < q->rt_n ? q->rt[s * RT_SECTOR + k] : 0);
		q->rt_dirty[s] = 0;
		++*n;
	}
	if (v)
		q->rt_any_dirty = 0;
	pthread_mutex_unlock(&q->alloc_lock);
	return v;
}

/* Writes counts; new blocks are durable before the table names them. */
static int write_counts(struct q2 *q)
{
	uint64_t n, *v, rt_off;
	int r;

	/* The table must not grow, and so move, between looking and writing. */
	pthread_mutex_lock(&q->rt_lock);
	rt_off = q->h.rt_off;
	v = rt_changes(q, &n, &r);
	if (r >= 0)
		r = q2_cache_write(&q->rb);
	if (r >= 0 && n)
		r = q2_io->flush(q->vol);
	for (uint64_t k = 0; r >= 0 && k < n; k++)
		r = q2_write(q, &v[k * (1 + RT_SECTOR) + 1], q2_min(512, q->rt_n * 8), rt_off + v[k * (1 + RT_SECTOR)] * 512);
	if (r < 0) {
		pthread_mutex_lock(&q->alloc_lock);
		for (uint64_t k = 0; k < n; k++)
			q->rt_dirty[v[k * (1 + RT_SECTOR)]] = 1;
		q->rt_any_dirty |= n > 0;
		pthread_mutex_unlock(&q->alloc_lock);
	}
	pthread_mutex_unlock(&q->rt_lock);
	free(v);
	return r;
}

/* Phase 0: 1 when there is something to publish. flush_lock is held. */
static int prepare(struct q2 *q)
{
	int any = copy_tables(q), r = 0;

	if (any < 0)
		return any;
	/* With lazy counts the dirty bit stands for them: they are made anew after a crash. */
	if (!(q->h.compat & Q2_COMPAT_LAZY) || !(__atomic_load_n(&q->h.incompat, __ATOMIC_RELAXED) & Q2_INCOMPAT_DIRTY))
		r = write_counts(q);
	q->barrier_seq = q->write_seq;
	return r < 0 ? r : any;
}

static int write_l1(struct q2 *q)
{
	uint64_t sectors = (q->h.l1_size + L1_SECTOR - 1) / L1_SECTOR;

	for (uint64_t s = 0; q->l1_any_copied && s < sectors; s++) {
		int r;

		if (!q->l1_copied[s])
			continue;
		r = q2_write(q, &q->l1_copy[s * L1_SECTOR], q2_min(512, (q->h.l1_size - s * L1_SECTOR) * 8), q->h.l1_off + s * 512);
		if (r < 0)
			return r;
		q->l1_copied[s] = 0;
	}
	q->l1_any_copied = 0;
	return 0;
}

/* Phase 1. flush_lock is held; everything written up to barrier_seq is durable. */
static int publish(struct q2 *q)
{
	int r;

	if (q->unlinked.n && q->unlinked_seq <= q->barrier_seq)
		release(q, &q->unlinked);
	r = q2_cache_write_copies(&q->l2);
	if (r >= 0)
		r = write_l1(q);
	if (r < 0)
		return r;
	q->write_seq++;
	if (q->unlinking.n) {
		runs_move(&q->unlinked, &q->unlinking);
		q->unlinked_seq = q->write_seq;
	}
	return 0;
}

int q2_flush(void *img, uint32_t phase)
{
	struct q2 *q = img;
	int r;

	if (q->read_only)
		return 0;
	if (__atomic_load_n(&q->failed, __ATOMIC_ACQUIRE))
		return -EIO;
	pthread_mutex_lock(&q->flush_lock);
	r = phase ? publish(q) : prepare(q);
	pthread_mutex_unlock(&q->flush_lock);
	return r;
}

static int flush_volumes(struct q2 *q)
{
	int r = q->has_data ? q2_io->flush(q->data) : 0;

	return r < 0 ? r : q2_io->flush(q->vol);
}

int q2_sync(struct q2 *q)
{
	int r;

	if (__atomic_load_n(&q->failed, __ATOMIC_ACQUIRE))
		return -EIO;
	pthread_mutex_lock(&q->flush_lock);
	r = prepare(q);
	if (r > 0) {
		r = flush_volumes(q);
		if (r >= 0)
			r = publish(q);
	}
	if (r >= 0)
		r = flush_volumes(q);
	if (r >= 0) {
		q->barrier_seq = q->write_seq;
		release(q, &q->unlinked);
		r = write_counts(q);
	}
	if (r >= 0)
		r = q2_io->flush(q->vol);
	pthread_mutex_unlock(&q->flush_lock);
	return r < 0 ? r : 0;
}

int q2_unflushed(struct q2 *q)
{
	int yes;

	pthread_mutex_lock(&q->l2.lock);
	yes = q->l2.dirty != NULL || q->l2.copying != NULL;
	pthread_mutex_unlock(&q->l2.lock);
	return yes || q->l1_any_dirty || q->l1_any_copied;
}
