/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the parts of the event loop share: loop.c (turns, tasks, pollers) and loop-event.c (fds and timers). */
#ifndef UTIL_LOOP_I_H
#define UTIL_LOOP_I_H

#include <pthread.h>
#include <stdatomic.h>
#include "util/loop.h"

struct loop_call_req {
	void (*fn)(void *ctx);
	void *ctx;
	struct loop_call_req *next;
	int done;
};

struct vh_loop {
	/* Written by other threads. A poster pushes on `posted`; the one that finds it empty while the loop sleeps
	 * writes the eventfd, so a burst costs one write. */
	_Alignas(64) _Atomic(struct vh_task *) posted;
	atomic_int sleeping;
	atomic_uint posters; /* inside loop_post(): the loop outlives them */
	atomic_int stop;
	atomic_uint_fast64_t poll_max;

	_Alignas(64) int epfd;
	int evfd;
	int nested, polled; /* depth of loop_turn(); what the pollers found when it last woke */
	uint64_t now;
	struct vh_task *ready, **ready_tail;       /* taken from `posted`, in order */
	struct vh_task *deferred, **deferred_tail; /* linked by host[0] */
	struct loop_poller *pollers, *poll_cursor;
	uint64_t poll_ns, last_epoll; /* how long it spins at present; when fds were last looked at */
	struct vh_watch *dead;        /* unwatched while events of theirs may be in hand */
	struct vh_timer **heap;       /* armed timers, a binary heap; room for all timers that exist */
	unsigned armed, timers, heap_cap;

	pthread_mutex_t lock; /* what follows; control calls only */
	pthread_cond_t cond;
	struct loop_call_req *calls, **calls_tail;
	struct vh_task call_task;
	int running; /* 1: it runs, 2: a call runs inline */
	int has_thread, tid;
	unsigned runs; /* how often it began */
	pthread_t thread;
	char name[16];
};

extern __thread struct vh_loop *loop_current;

uint64_t loop_clock(void);
/* Handles ready fds, waiting for at most `ns` (UINT64_MAX: for ever); returns how many there were. blocking: the loop
 * said that it sleeps, so loop_awake() comes before the first handler. */
int loop_epoll(struct vh_loop *l, uint64_t ns, int blocking);
void loop_awake(struct vh_loop *l);
int loop_run_timers(struct vh_loop *l);
uint64_t loop_next_timer(const struct vh_loop *l); /* UINT64_MAX: none */
void loop_reap_watches(struct vh_loop *l);
void loop_event_fini(struct vh_loop *l);

#endif
