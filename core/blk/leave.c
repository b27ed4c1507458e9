/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A volume whose guest is gone. Requests of a lost storage wait for its return, which is what a guest wants; a machine that is
 * told to end would wait for ever as well. So for as long as was granted it waits (there may be something to flush), and then
 * whatever the plugin has lost (VH_EVENT_DEGRADED) is given up: nothing is sent any more, and what is under way gets the cancel
 * hint. A storage that is there is waited for however slow it is.
 */
#include <time.h>
#include "blk/blk-i.h"
#include "util/log.h"

static uint64_t clock_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Under v->lock. What is pushed later is refused (blk_submit, tier_send). */
void blk_cancel_queues(struct blk_vol *v)
{
	for (struct blk_vq *q = v->queues; q; q = q->next)
		if (!q->closing)
			loop_post(q->loop, &q->lost_task);
}

/* Only while the storage is lost, so for no longer than was granted, whoever runs it. */
static void watch(struct work *w)
{
	struct blk_vol *v = container_of(w, struct blk_vol, leave.work);

	pthread_mutex_lock(&v->lock);
	while (!v->leave.ended && v->leave.down && clock_ns() < v->leave.at) {
		struct timespec t = {(time_t)(v->leave.at / 1000000000u), (long)(v->leave.at % 1000000000u)};

		pthread_cond_clockwait(&v->cond, &v->lock, CLOCK_MONOTONIC, &t);
	}
	if (!v->leave.ended && v->leave.down) {
		if (!(atomic_fetch_or(&v->state, BLK_LOST) & BLK_LOST))
			log_error("blk", "volume %s: its storage is lost, and who used it goes: nothing waits for it any more", v->label);
		blk_cancel_queues(v);
		v->leave.ended = 1;
	}
	v->leave.watched = 0;
	pthread_mutex_unlock(&v->lock);
}

/* With v->lock held, which it gives back. */
static void look(struct blk_vol *v)
{
	int start = v->leave.at && v->leave.down && !v->leave.ended && !v->leave.watched;

	if (start) {
		v->leave.watched = 1;
		v->leave.work.fn = watch;
	}
	pthread_cond_broadcast(&v->cond);
	pthread_mutex_unlock(&v->lock);
	if (start)
		worker_submit(v->workers, &v->leave.work);
}

void blk_vol_leave(struct blk_vol *v, uint64_t ns)
{
	pthread_mutex_lock(&v->lock);
	v->leave.at = clock_ns() + ns;
	look(v);
	if (v->lower)
		blk_vol_leave(v->lower, ns);
}

void blk_leave_event(struct blk_vol *v, int down)
{
	pthread_mutex_lock(&v->lock);
	v->leave.down = down;
	look(v);
}

void blk_leave_fini(struct blk_vol *v)
{
	pthread_mutex_lock(&v->lock);
	v->leave.ended = 1;
	pthread_cond_broadcast(&v->cond);
	pthread_mutex_unlock(&v->lock);
}

int blk_vol_trouble(const struct blk_vol *v, unsigned *late)
{
	struct blk_vol *w = (struct blk_vol *)(uintptr_t)v; /* only its lock is written */
	int down;

	pthread_mutex_lock(&w->lock);
	down = v->leave.down;
	pthread_mutex_unlock(&w->lock);
	*late += atomic_load(&v->stalled);
	return v->lower ? blk_vol_trouble(v->lower, late) | down : down;
}
