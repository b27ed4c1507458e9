/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Event loops. One turn: wait (or busy-poll), handle fd events, timers and posted tasks, then run what was deferred to
 * the end of the turn (where I/O gathered in the turn is submitted in one system call). struct vh_loop is this loop, so
 * the ABI's vh_loop_ops are these functions.
 */
#ifndef UTIL_LOOP_H
#define UTIL_LOOP_H

#include <vhost/host.h>
#include "util/err.h"

int loop_new(const char *name, struct vh_loop **out, struct vh_err *e); /* [any] no thread yet */
/* Starts the loop's own thread (all signals blocked), or runs it in the calling one until loop_stop. */
int loop_start(struct vh_loop *l, struct vh_err *e);
void loop_run(struct vh_loop *l);
/* [any] Ends after the turn, or as soon as loop_run() begins; joins the loop's own thread when called from another. */
void loop_stop(struct vh_loop *l);
void loop_free(struct vh_loop *l); /* stopped; posted tasks that did not run are dropped */
int loop_tid(struct vh_loop *l);   /* of its thread, for pinning; 0: not running */

/* As vh_loop_ops describes them. */
int loop_watch(struct vh_loop *l, int fd, uint32_t events, void (*fn)(void *ctx, uint32_t events), void *ctx,
	       struct vh_watch **out);
void loop_watch_events(struct vh_watch *w, uint32_t events);
void loop_unwatch(struct vh_watch *w);
int loop_timer(struct vh_loop *l, void (*fn)(void *ctx), void *ctx, struct vh_timer **out);
void loop_timer_at(struct vh_timer *t, uint64_t ns);
void loop_timer_free(struct vh_timer *t);
int loop_post(struct vh_loop *l, struct vh_task *t);
uint64_t loop_now(struct vh_loop *l);
int loop_is_current(struct vh_loop *l);
extern const struct vh_loop_ops loop_service;

/* loop_watch() event bit of the core: edge-triggered, so that an eventfd need not be read. */
#define LOOP_EDGE 0x80000000u

/* [queue] Runs t->fn once at the end of this turn (or of the turn that is running when called inside it). A task is
 * used either with loop_post or with loop_defer. */
void loop_defer(struct vh_loop *l, struct vh_task *t);

/* [queue] Takes back a task that was posted or deferred and has not run; afterwards its memory may go. A foreign thread
 * must not be posting it at the same time. */
void loop_cancel(struct vh_loop *l, struct vh_task *t);

/* [queue], or the loop does not run: one turn, nested in whatever the caller does, that sleeps for at most max_ns. For
 * close paths which must wait for something that ends on this loop. */
void loop_turn(struct vh_loop *l, uint64_t max_ns);

/* [any but the loop's own thread] Runs fn(ctx) on the loop and waits for it. On a loop that does not run: inline. */
void loop_call(struct vh_loop *l, void (*fn)(void *ctx), void *ctx);

/*
 * Busy polling before sleeping, adaptive: the loop spins over its pollers for at most max_ns (0: never) as long as that
 * has paid lately. poll() does what it finds and returns how much that was, 0 for nothing. sleep(1) is called before the
 * loop blocks: it asks for notifications and returns 1 if work came meanwhile (then the loop does not block); sleep(0)
 * after it woke (also when it was not asked to sleep before).
 */
struct loop_poller {
	int (*poll)(struct loop_poller *p);
	int (*sleep)(struct loop_poller *p, int going);
	struct loop_poller *next;
};
void loop_poller_add(struct vh_loop *l, struct loop_poller *p);    /* [queue] */
void loop_poller_remove(struct vh_loop *l, struct loop_poller *p); /* [queue] */
void loop_set_poll_max(struct vh_loop *l, uint64_t ns);            /* [any], default 32 us */

#endif
