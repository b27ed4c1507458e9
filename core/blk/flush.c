/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Flushes. One flush covers the writes of every queue, unless the volume says that its flushes are local to a queue: then
 * a round flushes each queue, one round at a time, and requests that come during a round wait for the next one together.
 */
#include "blk/blk-i.h"

static void start_round(struct blk_vol *v);

static void post_result(struct blk_vol *v, struct blk_unit *list, int res)
{
	while (list) {
		struct blk_unit *u = list;

		list = u->next;
		u->e.slot = NULL;
		blk_end_remote(u->q, u, res);
	}
}

/* One queue is done. */
static void part_done(struct blk_vol *v, struct blk_vq *q, int res)
{
	struct blk_unit *list = NULL;
	int result = 0;

	pthread_mutex_lock(&v->lock);
	if (q)
		q->flush_busy = 0;
	if (res < 0)
		v->flush.result = res;
	if (!--v->flush.left) {
		list = v->flush.current;
		result = v->flush.result;
		v->flush.current = NULL;
		if (v->flush.waiting)
			start_round(v);
	}
	pthread_mutex_unlock(&v->lock);
	if (result < 0)
		blk_latch(v, result);
	post_result(v, list, result);
}

static void part_end(struct blk_unit *u, int res)
{
	part_done(u->q->v, u->q, res);
}

static void part_fn(struct vh_task *t)
{
	struct blk_vq *q = container_of(t, struct blk_vq, flush_task);

	q->flush_unit = (struct blk_unit){.op = VH_FLUSH, .end = part_end};
	blk_push(q, &q->flush_unit);
}

/* Under v->lock. */
static void start_round(struct blk_vol *v)
{
	v->flush.current = v->flush.waiting;
	v->flush.waiting = NULL;
	v->flush.result = 0;
	v->flush.left = 0;
	for (struct blk_vq *q = v->queues; q; q = q->next) {
		if (q->closing)
			continue;
		v->flush.left++;
		q->flush_busy = 1;
		q->flush_task.fn = part_fn;
		loop_post(q->loop, &q->flush_task);
	}
}

void blk_flush_push(struct blk_vq *q, struct blk_unit *u)
{
	struct blk_vol *v = q->v;

	if (!(v->caps & VH_VOL_FLUSH_QUEUE_LOCAL)) {
		blk_push(q, u);
		return;
	}
	u->q = q;
	u->e.slot = NULL;
	q->inflight++;
	blk_timed_add(q, u);
	pthread_mutex_lock(&v->lock);
	u->next = v->flush.waiting;
	v->flush.waiting = u;
	if (!v->flush.left)
		start_round(v);
	pthread_mutex_unlock(&v->lock);
}

/*
 * Each count only grows, and is read here under the lock, so that a later sum is never smaller, and an equal one means that
 * nothing has ended in between on any queue. A modification is counted before its completion is delivered: whoever asks
 * for a flush because of it comes later.
 */
int blk_flush_needless(struct blk_vol *v, uint64_t *mods)
{
	uint64_t sum;
	int r;

	if (v->fd < 0)
		return 0;
	pthread_mutex_lock(&v->lock);
	sum = v->flush.closed + atomic_load_explicit(&v->other_mods, memory_order_acquire);
	for (struct blk_vq *q = v->queues; q; q = q->next)
		sum += atomic_load_explicit(&q->mods, memory_order_acquire);
	r = sum == v->flush.covered;
	pthread_mutex_unlock(&v->lock);
	*mods = sum;
	return r;
}

void blk_flush_covered(struct blk_vol *v, uint64_t mods)
{
	if (v->fd < 0)
		return;
	pthread_mutex_lock(&v->lock);
	if (v->flush.covered == UINT64_MAX || v->flush.covered < mods) /* an earlier flush may end later */
		v->flush.covered = mods;
	pthread_mutex_unlock(&v->lock);
}

struct last {
	struct blk_unit u;
	int ended;
};

static void last_end(struct blk_unit *u, int res)
{
	if (res < 0)
		blk_latch(u->q->v, res);
	container_of(u, struct last, u)->ended = 1;
}

static int busy(struct blk_vq *q)
{
	int r;

	pthread_mutex_lock(&q->v->lock);
	r = q->flush_busy || q->guests;
	pthread_mutex_unlock(&q->v->lock);
	return r;
}

/* A queue with flushes of its own leaves nothing unflushed behind: no later flush would reach it. */
void blk_flush_leave(struct blk_vq *q)
{
	struct blk_vol *v = q->v;
	struct last last = {.u = {.op = VH_FLUSH, .end = last_end}};
	int local = !!(v->caps & VH_VOL_FLUSH_QUEUE_LOCAL);

	/* Rounds still include this queue meanwhile: one that ends before this flush has must cover its writes, too. */
	if (local && q->wrote && !(atomic_load(&v->state) & (BLK_FAILED | BLK_LOST | BLK_READ_ONLY))) {
		blk_push(q, &last.u);
		while (!last.ended)
			loop_turn(q->loop, 10000000);
	}
	pthread_mutex_lock(&v->lock);
	q->closing = 1;
	pthread_mutex_unlock(&v->lock);
	while (busy(q)) /* a part of a round, or a blocking call (sync.c), is on its way */
		loop_turn(q->loop, 10000000);
}
