/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Slices of L2 tables and of refcount blocks in memory, found by their place in the file. A table in use is pinned; one that
 * is neither pinned nor changed may be forgotten. Changed L2 tables may not simply be written to make room: what they publish must
 * be durable first, so a flush is done (q2_sync). Changed counts may be written at any time.
 */
#include "qcow2.h"

enum { EMPTY, LOADING, READY };

#define MIN_TABLES 64u

int q2_cache_init(struct q2_cache *c, struct q2 *img, uint32_t slice, uint64_t bytes)
{
	uint64_t n = bytes / slice;

	memset(c, 0, sizeof(*c));
	pthread_mutex_init(&c->lock, NULL);
	pthread_mutex_init(&c->write_lock, NULL);
	pthread_cond_init(&c->cond, NULL);
	c->img = img;
	c->slice = slice;
	c->n = n < MIN_TABLES ? MIN_TABLES : n > (1u << 24) ? 1u << 24 : (uint32_t)n;
	c->nbuckets = 64;
	while (c->nbuckets < c->n)
		c->nbuckets *= 2;
	c->tbl = calloc(c->n, sizeof(*c->tbl)); /* touched as it is needed */
	c->bucket = calloc(c->nbuckets, sizeof(struct q2_tbl *));
	return c->tbl && c->bucket ? 0 : -ENOMEM;
}

void q2_cache_fini(struct q2_cache *c)
{
	if (!c->slice)
		return;
	for (uint32_t k = 0; k < c->used; k++) {
		free(c->tbl[k].data);
		free(c->tbl[k].copy);
		pthread_mutex_destroy(&c->tbl[k].lock);
	}
	free(c->tbl);
	free(c->bucket);
	pthread_mutex_destroy(&c->lock);
	pthread_mutex_destroy(&c->write_lock);
	pthread_cond_destroy(&c->cond);
	c->slice = 0;
}

static struct q2_tbl **bucket_of(struct q2_cache *c, uint64_t off)
{
	uint64_t h = off / c->slice * UINT64_C(0x9e3779b97f4a7c15);

	return &c->bucket[(h >> 32) & (c->nbuckets - 1)];
}

static struct q2_tbl *find(struct q2_cache *c, uint64_t off)
{
	struct q2_tbl *t = *bucket_of(c, off);

	while (t && t->off != off)
		t = t->hash_next;
	return t;
}

static void insert(struct q2_cache *c, struct q2_tbl *t, uint64_t off)
{
	struct q2_tbl **b = bucket_of(c, off);

	t->off = off;
	t->hash_next = *b;
	*b = t;
}

static void take_out(struct q2_cache *c, struct q2_tbl *t)
{
	struct q2_tbl **p = bucket_of(c, t->off);

	while (*p != t)
		p = &(*p)->hash_next;
	*p = t->hash_next;
	t->state = EMPTY;
}

/* Who is not pinned is changed by nobody: what is changed is pinned. */
static int may_go(const struct q2_tbl *t)
{
	return !t->pins && t->state != LOADING && !q2_tbl_is_dirty(t) && !t->copy;
}

/* A slot for another table, out of the hash; NULL: all are in use or changed. The cache's lock is held. */
static struct q2_tbl *slot(struct q2_cache *c)
{
	if (c->used < c->n) {
		struct q2_tbl *t = &c->tbl[c->used];

		t->data = malloc(c->slice);
		if (t->data) {
			pthread_mutex_init(&t->lock, NULL);
			c->used++;
			return t;
		}
	}
	for (uint64_t k = 0; k < 2 * (uint64_t)c->used; k++) {
		struct q2_tbl *t = &c->tbl[c->hand];

		c->hand = (c->hand + 1) % c->used;
		if (!may_go(t))
			continue;
		if (t->recent && t->state == READY) {
			t->recent = 0;
			continue;
		}
		if (t->state == READY)
			take_out(c, t);
		return t;
	}
	return NULL;
}

/* Makes tables clean, or waits for one to be put. Called without the cache's lock. */
static int make_room(struct q2_cache *c)
{
	struct timespec until;
	int dirty, r;

	pthread_mutex_lock(&c->lock);
	dirty = c->dirty != NULL;
	pthread_mutex_unlock(&c->lock);
	if (dirty) {
		r = c == &c->img->l2 ? q2_sync(c->img) : q2_cache_write(c);
		if (r < 0)
			return r;
	}
	pthread_mutex_lock(&c->lock);
	if (!dirty && c->used) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_sec += 1;
		c->waiters++;
		pthread_cond_timedwait(&c->cond, &c->lock, &until);
		c->waiters--;
	}
	r = c->used ? 0 : -ENOMEM;
	pthread_mutex_unlock(&c->lock);
	return r;
}

/* A table that lies past the end of the file reads as zeros, as the service says. */
static int load(struct q2_cache *c, struct q2_tbl *t)
{
	return q2_io->read(c->img->vol, t->data, c->slice, t->off);
}

int q2_tbl_get(struct q2_cache *c, uint64_t off, uint32_t flags, struct q2_tbl **out)
{
	struct q2_tbl *t;
	int r;

	pthread_mutex_lock(&c->lock);
	for (;;) {
		t = find(c, off);
		if (t && t->state == READY) {
			t->pins++;
			t->recent = 1;
			pthread_mutex_unlock(&c->lock);
			*out = t;
			return 0;
		}
		if (flags & Q2_NOWAIT) {
			pthread_mutex_unlock(&c->lock);
			return -EAGAIN;
		}
		if (t) { /* somebody else is reading it */
			c->waiters++;
			pthread_cond_wait(&c->cond, &c->lock);
			c->waiters--;
			continue;
		}
		t = slot(c);
		if (t)
			break;
		pthread_mutex_unlock(&c->lock);
		r = make_room(c);
		if (r < 0)
			return r;
		pthread_mutex_lock(&c->lock);
	}
	t->state = LOADING;
	t->pins = 1;
	t->recent = 1;
	insert(c, t, off);
	pthread_mutex_unlock(&c->lock);
	r = load(c, t);
	pthread_mutex_lock(&c->lock);
	if (r < 0) {
		t->pins = 0;
		take_out(c, t);
	} else {
		t->state = READY;
	}
	pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
	*out = r < 0 ? NULL : t;
	return r < 0 ? r : 0;
}

void q2_tbl_put(struct q2_cache *c, struct q2_tbl *t)
{
	pthread_mutex_lock(&c->lock);
	if (!--t->pins && c->waiters)
		pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

void q2_tbl_dirty(struct q2_cache *c, struct q2_tbl *t, uint32_t lo, uint32_t hi)
{
	if (q2_tbl_is_dirty(t)) {
		if (lo < t->dirty_lo)
			t->dirty_lo = lo;
		if (hi > t->dirty_hi)
			t->dirty_hi = hi;
		return;
	}
	t->dirty_lo = lo;
	t->dirty_hi = hi;
	pthread_mutex_lock(&c->lock);
	if (!t->listed) {
		t->listed = 1;
		t->dirty_next = c->dirty;
		c->dirty = t;
	}
	pthread_mutex_unlock(&c->lock);
}

/* Takes the list of changed tables, each pinned once more. */
static struct q2_tbl *take_dirty(struct q2_cache *c)
{
	struct q2_tbl *list;

	pthread_mutex_lock(&c->lock);
	list = c->dirty;
	c->dirty = NULL;
	for (struct q2_tbl *t = list; t; t = t->dirty_next) {
		t->listed = 0;
		t->pins++;
	}
	pthread_mutex_unlock(&c->lock);
	return list;
}

/* Puts back one that could not be dealt with. Its t->lock is held, its changes are still marked. */
static void relist(struct q2_cache *c, struct q2_tbl *t)
{
	pthread_mutex_lock(&c->lock);
	if (!t->listed) {
		t->listed = 1;
		t->dirty_next = c->dirty;
		c->dirty = t;
	}
	pthread_mutex_unlock(&c->lock);
}

/* Whole blocks of the volume where the table is that large: then nothing has to be read for it. */
static void whole_blocks(const struct q2_cache *c, uint32_t *lo, uint32_t *hi)
{
	uint32_t block = c->slice < 4096 ? c->slice : 4096;

	*lo &= ~(block - 1);
	*hi = (uint32_t)q2_up(*hi, block);
}

int q2_cache_write(struct q2_cache *c)
{
	struct q2_tbl *t, *next;
	uint8_t *buf = malloc(c->slice);
	int r = 0;

	if (!buf)
		return -ENOMEM;
	pthread_mutex_lock(&c->write_lock);
	for (t = take_dirty(c); t; t = next) {
		uint32_t lo, hi;

		pthread_mutex_lock(&t->lock);
		next = t->dirty_next; /* before it may be listed again */
		lo = t->dirty_lo;
		hi = t->dirty_hi;
		if (r >= 0) {
			t->dirty_lo = t->dirty_hi = 0;
			memcpy(buf, t->data, c->slice);
		} else {
			relist(c, t);
		}
		pthread_mutex_unlock(&t->lock);
		if (r >= 0) {
			whole_blocks(c, &lo, &hi);
			r = q2_write(c->img, buf + lo, hi - lo, t->off + lo);
			if (r < 0) {
				pthread_mutex_lock(&t->lock);
				q2_tbl_dirty(c, t, lo, hi);
				pthread_mutex_unlock(&t->lock);
			}
		}
		q2_tbl_put(c, t);
	}
	pthread_mutex_unlock(&c->write_lock);
	free(buf);
	return r;
}

/* Copies the changes of one table; the pin goes over to the copy. */
static int copy_one(struct q2_cache *c, struct q2_tbl *t)
{
	int had = t->copy != NULL;

	pthread_mutex_lock(&t->lock);
	if (!had)
		t->copy = malloc(c->slice);
	if (!t->copy) {
		relist(c, t);
		pthread_mutex_unlock(&t->lock);
		q2_tbl_put(c, t);
		return -ENOMEM;
	}
	memcpy(t->copy, t->data, c->slice);
	t->copy_lo = had && t->copy_lo < t->dirty_lo ? t->copy_lo : t->dirty_lo;
	t->copy_hi = had && t->copy_hi > t->dirty_hi ? t->copy_hi : t->dirty_hi;
	t->dirty_lo = t->dirty_hi = 0;
	pthread_mutex_unlock(&t->lock);
	if (had) {
		q2_tbl_put(c, t); /* pinned already */
	} else {
		t->copy_next = c->copying;
		c->copying = t;
	}
	return 0;
}

int q2_cache_copy(struct q2_cache *c)
{
	struct q2_tbl *t, *next;
	int r = 0;

	for (t = take_dirty(c); t; t = next) {
		next = t->dirty_next;
		if (r >= 0) {
			r = copy_one(c, t);
			continue;
		}
		pthread_mutex_lock(&t->lock);
		relist(c, t);
		pthread_mutex_unlock(&t->lock);
		q2_tbl_put(c, t);
	}
	return r < 0 ? r : c->copying != NULL;
}

int q2_cache_write_copies(struct q2_cache *c)
{
	while (c->copying) {
		struct q2_tbl *t = c->copying;
		uint32_t lo = t->copy_lo, hi = t->copy_hi;
		int r;

		whole_blocks(c, &lo, &hi);
		r = q2_write(c->img, t->copy + lo, hi - lo, t->off + lo);
		if (r < 0)
			return r; /* the copy stays, and the next flush takes it up again */
		c->copying = t->copy_next;
		pthread_mutex_lock(&c->lock);
		free(t->copy);
		t->copy = NULL;
		pthread_mutex_unlock(&c->lock);
		q2_tbl_put(c, t);
	}
	return 0;
}

void q2_cache_forget(struct q2_cache *c, uint64_t off, uint64_t len)
{
	pthread_mutex_lock(&c->lock);
	for (uint64_t o = off & ~(uint64_t)(c->slice - 1); o < off + len; o += c->slice) {
		struct q2_tbl *t = find(c, o);

		if (!t || t->pins || t->state != READY)
			continue;
		for (struct q2_tbl **p = &c->dirty; t->listed && *p; p = &(*p)->dirty_next) {
			if (*p != t)
				continue;
			*p = t->dirty_next;
			t->listed = 0;
			break;
		}
		t->dirty_lo = t->dirty_hi = 0;
		take_out(c, t);
	}
	pthread_mutex_unlock(&c->lock);
}
