/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The fds and timers of an event loop. */
#include <stdlib.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>
#include "util/loop-i.h"

struct vh_watch {
	struct vh_loop *loop;
	int fd;
	uint32_t events;
	void (*fn)(void *ctx, uint32_t events); /* NULL: unwatched */
	void *ctx;
	struct vh_watch *next;
};

struct vh_timer {
	struct vh_loop *loop;
	void (*fn)(void *ctx);
	void *ctx;
	uint64_t at;
	unsigned index; /* in the heap, from 1; 0: disarmed */
};

uint64_t loop_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static int watch_ctl(struct vh_watch *w, int op, uint32_t events)
{
	struct epoll_event ev = {.events = events & (VH_IN | VH_OUT), .data.ptr = w};

	if (events & LOOP_EDGE)
		ev.events |= EPOLLET;
	return epoll_ctl(w->loop->epfd, op, w->fd, &ev) < 0 ? -errno : 0;
}

int loop_watch(struct vh_loop *l, int fd, uint32_t events, void (*fn)(void *ctx, uint32_t events), void *ctx,
	       struct vh_watch **out)
{
	struct vh_watch *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	*w = (struct vh_watch){l, fd, events, fn, ctx, NULL};
	/* Added even when paused, so that an fd that cannot be polled is refused here. */
	r = watch_ctl(w, EPOLL_CTL_ADD, events);
	if (!r && !(events & (VH_IN | VH_OUT)))
		r = watch_ctl(w, EPOLL_CTL_DEL, 0);
	if (r) {
		free(w);
		return r;
	}
	*out = w;
	return 0;
}

void loop_watch_events(struct vh_watch *w, uint32_t events)
{
	int was = !!(w->events & (VH_IN | VH_OUT)), is = !!(events & (VH_IN | VH_OUT));

	if (events == w->events)
		return;
	w->events = events;
	/* Paused means out of the set: epoll would report a hang-up even with no events asked for. */
	if (was || is)
		watch_ctl(w, !was ? EPOLL_CTL_ADD : is ? EPOLL_CTL_MOD : EPOLL_CTL_DEL, events);
}

void loop_unwatch(struct vh_watch *w)
{
	if (!w)
		return;
	if (w->events & (VH_IN | VH_OUT))
		watch_ctl(w, EPOLL_CTL_DEL, 0);
	w->fn = NULL;
	w->next = w->loop->dead;
	w->loop->dead = w;
}

/* Only between batches of events, which hold pointers to watches. */
void loop_reap_watches(struct vh_loop *l)
{
	while (l->dead) {
		struct vh_watch *w = l->dead;

		l->dead = w->next;
		free(w);
	}
}

int loop_epoll(struct vh_loop *l, uint64_t ns, int blocking)
{
	struct epoll_event ev[64];
	struct timespec ts = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
	int n, handled = 0;

	n = epoll_pwait2(l->epfd, ev, 64, ns == UINT64_MAX ? NULL : &ts, NULL);
	if (n < 0 && (errno == ENOSYS || errno == EPERM)) { /* an old kernel, or a strict seccomp filter */
		uint64_t ms = ns == UINT64_MAX ? UINT64_MAX : (ns + 999999) / 1000000;

		n = epoll_wait(l->epfd, ev, 64, ms > 1000000 ? (ns == UINT64_MAX ? -1 : 1000000) : (int)ms);
	}
	l->now = l->last_epoll = loop_clock();
	if (blocking)
		loop_awake(l);
	for (int i = 0; i < n; i++) {
		struct vh_watch *w = ev[i].data.ptr;
		uint32_t e = ev[i].events & (VH_IN | VH_OUT);

		if (!w) { /* the loop's own eventfd, edge-triggered: what was posted is run by the turn */
			continue;
		}
		if (ev[i].events & (EPOLLERR | EPOLLHUP))
			e |= VH_IN | VH_OUT;
		handled++;
		if (w->fn && (w->events & (VH_IN | VH_OUT)))
			w->fn(w->ctx, e);
	}
	return handled;
}

/* The heap is an array from 1; heap[i/2] is not later than heap[i]. */
static void heap_put(struct vh_loop *l, unsigned i, struct vh_timer *t)
{
	l->heap[i] = t;
	t->index = i;
}

static void heap_fix(struct vh_loop *l, unsigned i, struct vh_timer *t)
{
	for (; i > 1 && l->heap[i / 2]->at > t->at; i /= 2)
		heap_put(l, i, l->heap[i / 2]);
	for (unsigned c; (c = 2 * i) <= l->armed; i = c) {
		if (c < l->armed && l->heap[c + 1]->at < l->heap[c]->at)
			c++;
		if (l->heap[c]->at >= t->at)
			break;
		heap_put(l, i, l->heap[c]);
	}
	heap_put(l, i, t);
}

int loop_timer(struct vh_loop *l, void (*fn)(void *ctx), void *ctx, struct vh_timer **out)
{
	struct vh_timer *t = calloc(1, sizeof(*t));

	if (!t)
		return -ENOMEM;
	if (l->timers + 2 > l->heap_cap) { /* arming never allocates */
		unsigned cap = l->heap_cap ? 2 * l->heap_cap : 16;
		struct vh_timer **heap = realloc(l->heap, cap * sizeof(*heap));

		if (!heap) {
			free(t);
			return -ENOMEM;
		}
		l->heap = heap;
		l->heap_cap = cap;
	}
	l->timers++;
	*t = (struct vh_timer){l, fn, ctx, 0, 0};
	*out = t;
	return 0;
}

void loop_timer_at(struct vh_timer *t, uint64_t ns)
{
	struct vh_loop *l = t->loop;

	if (ns) {
		t->at = ns;
		heap_fix(l, t->index ? t->index : ++l->armed, t);
	} else if (t->index) {
		struct vh_timer *last = l->heap[l->armed--];
		unsigned i = t->index;

		t->index = 0;
		if (last != t)
			heap_fix(l, i, last);
	}
}

void loop_timer_free(struct vh_timer *t)
{
	if (!t)
		return;
	loop_timer_at(t, 0);
	t->loop->timers--;
	free(t);
}

uint64_t loop_next_timer(const struct vh_loop *l)
{
	return l->armed ? l->heap[1]->at : UINT64_MAX;
}

int loop_run_timers(struct vh_loop *l)
{
	uint64_t now = l->now;
	int n = 0;

	/* Bounded, so that one which arms itself for the past cannot hold the loop. */
	for (unsigned max = l->armed; max && l->armed && l->heap[1]->at <= now; max--, n++) {
		struct vh_timer *t = l->heap[1];

		loop_timer_at(t, 0);
		t->fn(t->ctx);
	}
	return n;
}

void loop_event_fini(struct vh_loop *l)
{
	loop_reap_watches(l);
	free(l->heap);
}
