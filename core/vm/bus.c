/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A sorted array of regions under a reader/writer lock that is held for the look-up alone, never while a handler runs:
 * a handler may therefore add and remove regions of its own bus (a BAR that moves by a write to ECAM). What keeps a
 * region's handler safe from bus_remove is a count of running handlers per region; a thread's own running handlers are
 * known from a list on its stack, so that a handler may remove even the region it was called for.
 */
#include "vm/bus.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct entry {
	uint64_t base, last; /* inclusive, so that a region may end at the top of the address space */
	const struct bus_ops *ops;
	void *ctx;
	struct bus_region *region;
	unsigned running; /* handlers; the bus holds one more until the region is removed: whoever drops the last frees */
};

struct bus {
	pthread_rwlock_t lock; /* entries, n, room; taken for some ten instructions */
	struct entry **entries;
	unsigned n, room;
	/* bus_remove waits here for `running` to fall; waiters is read without the mutex */
	pthread_mutex_t wait_lock;
	pthread_cond_t wait_cond;
	unsigned waiters;
};

struct frame {
	struct entry *e;
	struct frame *outer;
};
static __thread struct frame *frames; /* of the handlers that run on this thread */

struct bus *bus_new(void)
{
	struct bus *b = calloc(1, sizeof *b);
	if (!b)
		return NULL;
	pthread_rwlock_init(&b->lock, NULL);
	pthread_mutex_init(&b->wait_lock, NULL);
	pthread_cond_init(&b->wait_cond, NULL);
	return b;
}

void bus_free(struct bus *b)
{
	if (!b)
		return;
	for (unsigned i = 0; i < b->n; i++)
		free(b->entries[i]);
	free(b->entries);
	pthread_rwlock_destroy(&b->lock);
	pthread_mutex_destroy(&b->wait_lock);
	pthread_cond_destroy(&b->wait_cond);
	free(b);
}

/* The first entry that ends at or after addr. */
static unsigned lower_bound(const struct bus *b, uint64_t addr)
{
	unsigned lo = 0, hi = b->n;
	while (lo < hi) {
		unsigned mid = (lo + hi) / 2;
		if (b->entries[mid]->last < addr)
			lo = mid + 1;
		else
			hi = mid;
	}
	return lo;
}

int bus_add(struct bus *b, struct bus_region *r)
{
	struct entry *e;
	unsigned at;
	int ret = 0;

	if (!r->len || r->base + (r->len - 1) < r->base)
		return -EINVAL;
	e = malloc(sizeof *e);
	if (!e)
		return -ENOMEM;
	*e = (struct entry){r->base, r->base + (r->len - 1), r->ops, r->ctx, r, 1};
	pthread_rwlock_wrlock(&b->lock);
	at = lower_bound(b, e->base);
	if (at < b->n && b->entries[at]->base <= e->last) {
		ret = -EEXIST;
	} else if (b->n == b->room) {
		struct entry **p = realloc(b->entries, (b->room * 2 + 16) * sizeof *p);
		if (!p) {
			ret = -ENOMEM;
		} else {
			b->entries = p;
			b->room = b->room * 2 + 16;
		}
	}
	if (!ret) {
		memmove(b->entries + at + 1, b->entries + at, (b->n - at) * sizeof *b->entries);
		b->entries[at] = e;
		b->n++;
		e = NULL;
	}
	pthread_rwlock_unlock(&b->lock);
	free(e);
	return ret;
}

static void entry_put(struct bus *b, struct entry *e)
{
	if (__atomic_sub_fetch(&e->running, 1, __ATOMIC_SEQ_CST) == 0) {
		free(e);
		return;
	}
	if (__atomic_load_n(&b->waiters, __ATOMIC_SEQ_CST)) {
		pthread_mutex_lock(&b->wait_lock);
		pthread_cond_broadcast(&b->wait_cond);
		pthread_mutex_unlock(&b->wait_lock);
	}
}

void bus_remove(struct bus *b, struct bus_region *r)
{
	struct entry *e = NULL;
	unsigned own = 1;

	pthread_rwlock_wrlock(&b->lock);
	for (unsigned i = 0; i < b->n; i++)
		if (b->entries[i]->region == r) {
			e = b->entries[i];
			memmove(b->entries + i, b->entries + i + 1, (b->n - i - 1) * sizeof *b->entries);
			b->n--;
			break;
		}
	pthread_rwlock_unlock(&b->lock);
	if (!e)
		return;
	for (struct frame *f = frames; f; f = f->outer)
		own += f->e == e;
	if (__atomic_load_n(&e->running, __ATOMIC_SEQ_CST) > own) {
		pthread_mutex_lock(&b->wait_lock);
		__atomic_add_fetch(&b->waiters, 1, __ATOMIC_SEQ_CST);
		while (__atomic_load_n(&e->running, __ATOMIC_SEQ_CST) > own)
			pthread_cond_wait(&b->wait_cond, &b->wait_lock);
		__atomic_sub_fetch(&b->waiters, 1, __ATOMIC_SEQ_CST);
		pthread_mutex_unlock(&b->wait_lock);
	}
	entry_put(b, e);
}

/* The region that holds all of [addr, addr+len), pinned; or NULL, and whether regions hold part of it. */
static struct entry *entry_get(struct bus *b, uint64_t addr, unsigned len, int *part)
{
	struct entry *e = NULL;
	pthread_rwlock_rdlock(&b->lock);
	unsigned at = lower_bound(b, addr);
	if (at < b->n && b->entries[at]->base <= addr && b->entries[at]->last - addr >= len - 1) {
		e = b->entries[at];
		__atomic_add_fetch(&e->running, 1, __ATOMIC_SEQ_CST);
	}
	/* Without a region from addr on, an access that wraps around finds those at the bottom. */
	*part = !e && (at < b->n ? b->entries[at]->base <= addr || b->entries[at]->base - addr < len : addr + len < addr);
	pthread_rwlock_unlock(&b->lock);
	return e;
}

/* Whether regions hold part of an access that none holds whole. */
static int bus_one(struct bus *b, uint64_t addr, void *data, unsigned len, int write)
{
	int part;
	struct entry *e = entry_get(b, addr, len, &part);
	if (!e)
		return part;
	struct frame f = {e, frames};
	frames = &f;
	if (write && e->ops->write)
		e->ops->write(e->ctx, addr - e->base, data, len);
	else if (!write && e->ops->read)
		e->ops->read(e->ctx, addr - e->base, data, len);
	frames = f.outer;
	entry_put(b, e);
	return 0;
}

/* An access that no region holds whole is what the hardware makes of it: one byte after the other. */
void bus_read(struct bus *b, uint64_t addr, void *data, unsigned len)
{
	memset(data, 0xff, len);
	if (bus_one(b, addr, data, len, 0))
		for (unsigned i = 0; i < len; i++)
			bus_one(b, addr + i, (uint8_t *)data + i, 1, 0);
}

void bus_write(struct bus *b, uint64_t addr, const void *data, unsigned len)
{
	if (bus_one(b, addr, (void *)data, len, 1))
		for (unsigned i = 0; i < len; i++)
			bus_one(b, addr + i, (uint8_t *)data + i, 1, 1);
}
