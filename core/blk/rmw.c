/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The range lock of a volume, for writes that do not cover whole blocks. Such a write reads its first and last block,
 * merges and writes them back; meanwhile no other modification may touch these blocks, or it would be lost.
 *
 * Modifications of whole blocks only count themselves on their queue (blk_modify_begin). The first unaligned one sets
 * rmw_on: from then on everybody registers here, and the exclusive one waits until each queue's count has been seen at 0
 * once. When there was no unaligned write for a while rmw_on is cleared again.
 */
#include <time.h>
#include "blk/blk-i.h"

#define LINGER_NS 500000000u

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC_COARSE, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int all_quiet(const struct blk_vol *v)
{
	for (struct blk_vq *q = v->queues; q; q = q->next)
		if (atomic_load(&q->writes))
			return 0;
	return 1;
}

/* First come, first served: whoever conflicts with an earlier one, be it holding or waiting, waits. */
static int may_hold(const struct blk_vol *v, const struct blk_range *r)
{
	for (const struct blk_range *o = v->ranges; o != r; o = o->next)
		if ((o->exclusive || r->exclusive) && o->off < r->end && r->off < o->end)
			return 0;
	return 1;
}

static void grant(struct blk_vol *v)
{
	int quiet = -1;

	for (struct blk_range *r = v->ranges; r; r = r->next) {
		if (r->state != RANGE_WAITING || !may_hold(v, r))
			continue;
		if (r->exclusive) {
			if (quiet < 0)
				quiet = all_quiet(v);
			if (!quiet)
				continue;
		}
		r->state = RANGE_HELD;
		if (r->q)
			loop_post(r->q->loop, &r->task);
		else
			pthread_cond_broadcast(&v->cond);
	}
}

static void granted_fn(struct vh_task *t)
{
	struct blk_range *r = container_of(t, struct blk_range, task);

	r->granted(r);
}

int blk_range_begin(struct blk_vol *v, struct blk_vq *q, struct blk_range *r, uint64_t off, uint64_t end, int exclusive)
{
	int held;

	r->off = off;
	r->end = end;
	r->q = q;
	r->exclusive = (uint8_t)exclusive;
	r->next = NULL;
	r->state = RANGE_WAITING;
	r->task = (struct vh_task){granted_fn, {NULL, NULL}};
	pthread_mutex_lock(&v->lock);
	*v->ranges_tail = r;
	v->ranges_tail = &r->next;
	if (exclusive) {
		v->n_exclusive++;
		atomic_store(&v->rmw_on, 1);
	}
	held = may_hold(v, r) && (!exclusive || all_quiet(v));
	if (held)
		r->state = RANGE_HELD;
	while (!q && r->state != RANGE_HELD)
		pthread_cond_wait(&v->cond, &v->lock);
	pthread_mutex_unlock(&v->lock);
	return held || !q;
}

void blk_range_end(struct blk_vol *v, struct blk_range *r)
{
	pthread_mutex_lock(&v->lock);
	for (struct blk_range **p = &v->ranges; *p; p = &(*p)->next) {
		if (*p != r)
			continue;
		*p = r->next;
		if (v->ranges_tail == &r->next)
			v->ranges_tail = p;
		break;
	}
	r->state = RANGE_NONE;
	if (r->exclusive) {
		v->n_exclusive--;
		v->last_exclusive = now_ns();
	} else if (!v->n_exclusive && now_ns() - v->last_exclusive > LINGER_NS) {
		atomic_store(&v->rmw_on, 0);
	}
	grant(v);
	pthread_mutex_unlock(&v->lock);
}

void blk_range_quiet(struct blk_vol *v)
{
	pthread_mutex_lock(&v->lock);
	grant(v);
	pthread_mutex_unlock(&v->lock);
}
