/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Grain tables in memory: read when they are asked for, found by a hash, forgotten (those that are clean and unused) when
 * there are too many. image.lock is held, and dropped while a table is read.
 */
#include "vmdk.h"

static uint64_t slot_of(const struct image *im, const struct extent *x, uint32_t index)
{
	uint64_t h = (uint64_t)index * UINT64_C(0x9e3779b97f4a7c15) + x->first * UINT64_C(0xff51afd7ed558ccd);

	return (h ^ h >> 29) & (im->nhash - 1);
}

uint64_t table_bytes(const struct extent *x)
{
	return sizeof(struct table) + (uint64_t)x->gt_sectors * SECTOR;
}

struct table *table_find(struct extent *x, uint32_t index)
{
	struct image *im = x->img;
	struct table *t = im->nhash ? im->hash[slot_of(im, x, index)] : NULL;

	while (t && (t->x != x || t->index != index))
		t = t->chain;
	return t;
}

static void unlink_lru(struct image *im, struct table *t)
{
	*(t->prev ? &t->prev->next : &im->lru_first) = t->next;
	*(t->next ? &t->next->prev : &im->lru_last) = t->prev;
}

static void append_lru(struct image *im, struct table *t)
{
	t->prev = im->lru_last;
	t->next = NULL;
	*(im->lru_last ? &im->lru_last->next : &im->lru_first) = t;
	im->lru_last = t;
}

static void drop(struct image *im, struct table *t)
{
	struct table **p = &im->hash[slot_of(im, t->x, t->index)];

	while (*p != t)
		p = &(*p)->chain;
	*p = t->chain;
	unlink_lru(im, t);
	im->ntables--;
	im->table_bytes -= table_bytes(t->x);
	free(t->copy);
	free(t);
}

void tables_trim(struct image *im)
{
	struct table *t = im->lru_first, *next;

	for (; t && im->table_bytes > TABLE_BUDGET; t = next) {
		next = t->next;
		if (!t->pins && !t->dirty && !t->copy && !t->fresh && !t->loading)
			drop(im, t);
	}
}

void tables_drop(struct image *im)
{
	while (im->lru_first)
		drop(im, im->lru_first);
}

static int grow_hash(struct image *im)
{
	uint64_t n = im->nhash ? im->nhash * 2 : 64;
	struct table **h, *t, *next;
	uint64_t old = im->nhash;

	if (im->ntables < im->nhash)
		return 0;
	h = calloc(n, sizeof(struct table *));
	if (!h)
		return im->nhash ? 0 : -ENOMEM;
	im->nhash = n;
	for (uint64_t k = 0; k < old; k++) {
		for (t = im->hash[k]; t; t = next) {
			struct table **p = &h[slot_of(im, t->x, t->index)];

			next = t->chain;
			t->chain = *p;
			*p = t;
		}
	}
	free(im->hash);
	im->hash = h;
	return 0;
}

static struct table *add(struct extent *x, uint32_t index)
{
	struct image *im = x->img;
	struct table *t, **p;

	if (grow_hash(im) < 0)
		return NULL;
	t = calloc(1, table_bytes(x));
	if (!t)
		return NULL;
	t->x = x;
	t->index = index;
	t->pins = 1;
	p = &im->hash[slot_of(im, x, index)];
	t->chain = *p;
	*p = t;
	append_lru(im, t);
	im->ntables++;
	im->table_bytes += table_bytes(x);
	tables_trim(im);
	return t;
}

void table_put(struct table *t)
{
	t->pins--;
}

int table_new(struct extent *x, uint32_t index, struct table **out)
{
	*out = add(x, index);
	if (!*out)
		return -ENOMEM;
	(*out)->fresh = (*out)->dirty = 1;
	return 0;
}

/* Whether an entry, in its form in memory, can be one of this extent. */
int entry_ok(const struct extent *x, uint64_t entry)
{
	if (entry == GTE_NONE || (entry == GTE_ZERO && x->zero_gte))
		return 1;
	if (entry >= x->end || entry < MAX(1, x->kind == KIND_SPARSE && x->desc_at == 1 ? 1 + x->desc_size : 1))
		return 0;
	/* A grain over the directories: a guest could rewrite them. */
	for (int k = 0; k < 2; k++) {
		uint64_t at = k ? x->rgd_at : x->gd_at, n = DIV_UP((uint64_t)x->ngd * (x->wide ? 8 : 4), SECTOR);

		if (at && !x->compressed && entry < at + n && at < entry + x->grain)
			return 0;
	}
	return 1;
}

static uint64_t table_sector(const struct extent *x, uint32_t d)
{
	return x->wide ? x->gt_base + (uint64_t)(d - 1) * x->gt_sectors : d;
}

/* seSparse: two bits of type, then the number of the grain with its upper 12 bits last. What is no entry becomes one that
 * entry_ok() refuses. */
static uint64_t wide_entry(const struct extent *x, uint64_t v)
{
	switch (v >> 60) {
	case 0:
		return v ? UINT64_MAX : GTE_NONE;
	case 1:
	case 2:
		return GTE_ZERO;
	case 3:
		v = (v >> 48 & 0xfff) | (v & UINT64_C(0xffffffffffff)) << 12;
		return v < MAX_SECTORS / x->grain ? x->grain_base + v * x->grain : UINT64_MAX;
	default:
		return UINT64_MAX;
	}
}

/* Whether n tables from sector s on lie in the file. Its end only grows while tables are read without the lock. */
static int tables_inside(const struct extent *x, uint64_t s, uint64_t n)
{
	uint64_t end = __atomic_load_n(&x->end, __ATOMIC_RELAXED);

	return s && s < end && n * x->gt_sectors <= end - s;
}

int tables_read(struct extent *x, const uint32_t *dir, uint32_t index, uint32_t n, uint8_t *buf)
{
	uint64_t each = x->gt_sectors * SECTOR;

	for (uint32_t k = 0, run; k < n; k += run) {
		uint64_t s = dir[index + k] ? table_sector(x, dir[index + k]) : 0;
		int r;

		run = 1;
		if (!s) {
			memset(buf + k * each, 0, each);
			continue;
		}
		while (k + run < n && dir[index + k + run] && table_sector(x, dir[index + k + run]) == s + run * x->gt_sectors)
			run++;
		if (!tables_inside(x, s, run))
			return -EIO;
		r = x->img->ops->read(x->v, buf + k * each, run * each, s * SECTOR);
		if (r < 0)
			return r;
	}
	return 0;
}

static void decode_entries(struct extent *x, void *e)
{
	uint8_t *raw = e;

	for (uint32_t k = 0; k < x->gtes; k++) {
		if (x->wide)
			((uint64_t *)e)[k] = wide_entry(x, get64(raw + (size_t)k * 8));
		else
			((uint32_t *)e)[k] = get32(raw + (size_t)k * 4);
	}
}

int table_get(struct extent *x, uint32_t index, int nowait, struct table **out)
{
	struct image *im = x->img;
	struct table *t;
	int r;

	*out = NULL;
	for (;;) {
		t = table_find(x, index);
		if (t && !t->loading) {
			if (t != im->lru_last) {
				unlink_lru(im, t);
				append_lru(im, t);
			}
			t->pins++;
			*out = t;
			return 0;
		}
		if (!t && !x->gd[index])
			return 0;
		if (nowait)
			return -EAGAIN;
		if (!t)
			break;
		pthread_cond_wait(&im->cond, &im->lock);
	}
	t = add(x, index);
	if (!t)
		return -ENOMEM;
	t->loading = 1;
	pthread_mutex_unlock(&im->lock);
	r = tables_read(x, x->gd, index, 1, (uint8_t *)t->e);
	if (r >= 0)
		decode_entries(x, t->e);
	pthread_mutex_lock(&im->lock);
	t->loading = 0;
	pthread_cond_broadcast(&im->cond);
	if (r < 0) {
		drop(im, t); /* nobody else has it: who waits looks again */
		return r;
	}
	*out = t;
	return 0;
}
