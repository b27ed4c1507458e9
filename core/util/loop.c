/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Event loops: turns, posted and deferred tasks, busy polling, the loop's thread.
 *
 * A turn polls, runs posted tasks and due timers, and ends with the deferred tasks. When it found nothing, the next one
 * spins over the pollers for a while that adapts to what lately paid, and then sleeps in epoll.
 */
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "util/loop-i.h"

#define POLL_MAX_DEFAULT 32000u /* ns */
#define POLL_GROW_FROM 4000u
#define BUSY_EPOLL_NS 20000u /* a loop that never idles looks at its fds this often */
#define DEFER_ROUNDS 8

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_SIZE (2u << 20)
#else
#define STACK_SIZE (256u << 10)
#endif

__thread struct vh_loop *loop_current;

/* A task's host[0] is its link in a list, host[1] is 1 while it is in one. */
#define task_link(t) (*(struct vh_task **)&(t)->host[0])
#define task_flag(t) ((uintptr_t *)&(t)->host[1])

static void loop_wake(struct vh_loop *l)
{
	uint64_t one = 1;

	while (write(l->evfd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

int loop_post(struct vh_loop *l, struct vh_task *t)
{
	struct vh_task *head;

	if (__atomic_exchange_n(task_flag(t), 1, __ATOMIC_ACQ_REL))
		return 0;
	atomic_fetch_add_explicit(&l->posters, 1, memory_order_acquire);
	head = atomic_load_explicit(&l->posted, memory_order_relaxed);
	do {
		task_link(t) = head;
	} while (!atomic_compare_exchange_weak(&l->posted, &head, t));
	/* Pairs with the store to `sleeping` before the loop looks at `posted` a last time: one of the two sees the other. */
	if (!head && atomic_load(&l->sleeping))
		loop_wake(l);
	atomic_fetch_sub_explicit(&l->posters, 1, memory_order_release);
	return 1;
}

static void fetch_posted(struct vh_loop *l)
{
	struct vh_task *t, *in_order = NULL, *last;

	if (!atomic_load_explicit(&l->posted, memory_order_relaxed))
		return;
	t = last = atomic_exchange_explicit(&l->posted, NULL, memory_order_acquire);
	while (t) {
		struct vh_task *next = task_link(t);

		task_link(t) = in_order;
		in_order = t;
		t = next;
	}
	*l->ready_tail = in_order;
	l->ready_tail = &task_link(last);
}

static int run_posted(struct vh_loop *l)
{
	struct vh_task *t, **stop;
	int n = 0;

	fetch_posted(l);
	stop = l->ready_tail;
	/* Up to what was there at the start: a task that posts itself waits for the next turn. */
	while ((t = l->ready) && stop) {
		if (stop == &task_link(t))
			stop = NULL;
		l->ready = task_link(t);
		if (!l->ready)
			l->ready_tail = &l->ready;
		__atomic_store_n(task_flag(t), 0, __ATOMIC_RELEASE); /* before fn: it may be posted again from here on */
		t->fn(t);
		n++;
	}
	return n;
}

void loop_defer(struct vh_loop *l, struct vh_task *t)
{
	if (*task_flag(t))
		return;
	*task_flag(t) = 1;
	task_link(t) = NULL;
	*l->deferred_tail = t;
	l->deferred_tail = &task_link(t);
}

static int run_deferred(struct vh_loop *l)
{
	int n = 0;

	for (int round = 0; l->deferred && round < DEFER_ROUNDS; round++) {
		struct vh_task **stop = l->deferred_tail, *t;

		while ((t = l->deferred) && stop) {
			if (stop == &task_link(t))
				stop = NULL;
			l->deferred = task_link(t);
			if (!l->deferred)
				l->deferred_tail = &l->deferred;
			*task_flag(t) = 0;
			t->fn(t);
			n++;
		}
	}
	return n;
}

static int list_unlink(struct vh_task **head, struct vh_task ***tail, struct vh_task *t)
{
	for (struct vh_task **p = head; *p; p = &task_link(*p)) {
		if (*p != t)
			continue;
		*p = task_link(t);
		if (*tail == &task_link(t))
			*tail = p;
		return 1;
	}
	return 0;
}

void loop_cancel(struct vh_loop *l, struct vh_task *t)
{
	if (!__atomic_load_n(task_flag(t), __ATOMIC_ACQUIRE))
		return;
	fetch_posted(l);
	if (list_unlink(&l->ready, &l->ready_tail, t) || list_unlink(&l->deferred, &l->deferred_tail, t))
		__atomic_store_n(task_flag(t), 0, __ATOMIC_RELEASE);
}

void loop_poller_add(struct vh_loop *l, struct loop_poller *p)
{
	p->next = l->pollers;
	l->pollers = p;
}

void loop_poller_remove(struct vh_loop *l, struct loop_poller *p)
{
	for (struct loop_poller **q = &l->pollers; *q; q = &(*q)->next) {
		if (*q != p)
			continue;
		*q = p->next;
		if (l->poll_cursor == p)
			l->poll_cursor = p->next;
		return;
	}
}

void loop_set_poll_max(struct vh_loop *l, uint64_t ns)
{
	atomic_store_explicit(&l->poll_max, ns, memory_order_relaxed);
}

static int run_pollers(struct vh_loop *l)
{
	struct loop_poller *p, *outer = l->poll_cursor;
	int n = 0;

	for (p = l->pollers; p; p = l->poll_cursor) {
		l->poll_cursor = p->next;
		n += p->poll(p);
	}
	l->poll_cursor = l->nested ? outer : NULL;
	return n;
}

/* Asks for notifications; 1: work came meanwhile, do not block. */
static int pollers_sleep(struct vh_loop *l, int going)
{
	int work = 0;

	for (struct loop_poller *p = l->pollers; p; p = p->next)
		if (p->sleep)
			work |= p->sleep(p, going) && going;
	return work;
}

static int woken(struct vh_loop *l)
{
	return atomic_load_explicit(&l->posted, memory_order_relaxed) || l->ready || l->deferred ||
	       atomic_load_explicit(&l->stop, memory_order_relaxed);
}

/* Spins over the pollers; 1 when there is work for a turn. */
static int spin(struct vh_loop *l, uint64_t since, uint64_t until)
{
	do {
		if (run_pollers(l) || woken(l)) {
			l->now = loop_clock();
			return 1;
		}
		__builtin_ia32_pause();
		l->now = loop_clock();
	} while (l->now < until && l->now < loop_next_timer(l) && l->now - since < l->poll_ns);
	return 0;
}

static int turn(struct vh_loop *l)
{
	int n = run_pollers(l);

	n += run_posted(l);
	n += loop_run_timers(l);
	n += run_deferred(l);
	if (!l->nested)
		loop_reap_watches(l);
	return n;
}

/* Before the fds' handlers, so that posts in them need no eventfd, and so that pollers get the credit for what both see. */
void loop_awake(struct vh_loop *l)
{
	atomic_store_explicit(&l->sleeping, 0, memory_order_relaxed);
	pollers_sleep(l, 0);
	l->polled = run_pollers(l);
}

static void block(struct vh_loop *l, uint64_t until)
{
	uint64_t at = loop_next_timer(l);

	if (until < at)
		at = until;
	atomic_store(&l->sleeping, 1);
	if (pollers_sleep(l, 1) || atomic_load(&l->posted) || woken(l))
		at = 0;
	loop_epoll(l, at == UINT64_MAX ? at : at > l->now ? at - l->now : 0, 1);
}

/* Waits for work, spinning first, and learns from how it went, as QEMU does: a wait that was longer than the spin, but
 * that a longer spin would have covered, doubles it; one that no spin could cover ends spinning. */
static void wait_for_work(struct vh_loop *l, uint64_t until)
{
	uint64_t max = atomic_load_explicit(&l->poll_max, memory_order_relaxed);
	uint64_t start = l->now, waited;

	if (l->poll_ns > max)
		l->poll_ns = max;
	if (l->poll_ns && l->pollers && spin(l, start, until))
		return;
	block(l, until);
	if (!max || !l->pollers)
		return;
	waited = l->now - start;
	if (waited > max)
		l->poll_ns = 0;
	else if (l->polled && waited > l->poll_ns)
		l->poll_ns = l->poll_ns ? 2 * l->poll_ns : POLL_GROW_FROM;
	else if (!l->polled && loop_next_timer(l) > l->now && l->poll_ns && waited <= l->poll_ns + POLL_GROW_FROM)
		l->poll_ns /= 2; /* something that no poller sees was waiting while we spun */
}

static void loop_once(struct vh_loop *l, uint64_t until)
{
	int n = turn(l);

	/* Only ever advances while the loop is busy; wait_for_work() and epoll keep it fresh otherwise. */
	l->now = loop_clock();
	if (!n && !woken(l))
		wait_for_work(l, until);
	else if (l->now - l->last_epoll > BUSY_EPOLL_NS)
		loop_epoll(l, 0, 0);
}

void loop_turn(struct vh_loop *l, uint64_t max_ns)
{
	struct vh_loop *outer = loop_current;

	loop_current = l;
	l->nested++;
	l->now = loop_clock();
	loop_once(l, l->now + max_ns);
	turn(l);
	l->nested--;
	loop_current = outer;
}

/* Under l->lock. The lock is let go while a call runs: it may call into the loop. */
static void run_calls(struct vh_loop *l)
{
	struct loop_call_req *c;

	while ((c = l->calls)) {
		l->calls = c->next;
		if (!l->calls)
			l->calls_tail = &l->calls;
		pthread_mutex_unlock(&l->lock);
		c->fn(c->ctx);
		pthread_mutex_lock(&l->lock);
		c->done = 1;
		pthread_cond_broadcast(&l->cond);
	}
}

static void call_task_fn(struct vh_task *t)
{
	struct vh_loop *l = (struct vh_loop *)((char *)t - offsetof(struct vh_loop, call_task));

	pthread_mutex_lock(&l->lock);
	run_calls(l);
	pthread_mutex_unlock(&l->lock);
}

void loop_run(struct vh_loop *l)
{
	struct vh_loop *outer = loop_current;

	pthread_mutex_lock(&l->lock);
	while (l->running == 2) /* somebody's call runs inline */
		pthread_cond_wait(&l->cond, &l->lock);
	l->running = 1;
	l->runs++;
	l->tid = (int)syscall(SYS_gettid);
	pthread_cond_broadcast(&l->cond);
	pthread_mutex_unlock(&l->lock);

	loop_current = l;
	l->now = loop_clock();
	while (!atomic_load_explicit(&l->stop, memory_order_acquire))
		loop_once(l, UINT64_MAX);

	pthread_mutex_lock(&l->lock);
	run_calls(l);
	l->running = 0;
	l->tid = 0;
	atomic_store(&l->stop, 0);
	pthread_cond_broadcast(&l->cond);
	pthread_mutex_unlock(&l->lock);
	loop_current = outer;
}

static void *thread_main(void *arg)
{
	struct vh_loop *l = arg;

	pthread_setname_np(pthread_self(), l->name);
	loop_run(l);
	return NULL;
}

int loop_start(struct vh_loop *l, struct vh_err *e)
{
	pthread_attr_t attr;
	sigset_t all, old;
	unsigned runs;
	int r;

	pthread_mutex_lock(&l->lock);
	while (l->running == 2) /* somebody's call runs inline */
		pthread_cond_wait(&l->cond, &l->lock);
	if (l->running) {
		pthread_mutex_unlock(&l->lock);
		return err_set(e, -EALREADY, "event loop %s runs already", l->name);
	}
	if (l->has_thread) /* it stopped itself */
		pthread_join(l->thread, NULL);
	l->has_thread = 0;
	atomic_store(&l->stop, 0);
	runs = l->runs;
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&l->thread, &attr, thread_main, l);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (!r) {
		l->has_thread = 1;
		while (l->runs == runs)
			pthread_cond_wait(&l->cond, &l->lock);
	}
	pthread_mutex_unlock(&l->lock);
	return r ? err_set(e, -r, "cannot start the thread of event loop %s: %s", l->name, strerror(r)) : 0;
}

void loop_stop(struct vh_loop *l)
{
	pthread_t thread;
	int join;

	if (loop_current == l) {
		atomic_store_explicit(&l->stop, 1, memory_order_release);
		return;
	}
	pthread_mutex_lock(&l->lock);
	atomic_store(&l->stop, 1); /* also for a loop_run() that is about to begin */
	loop_wake(l);
	join = l->has_thread;
	l->has_thread = 0;
	thread = l->thread;
	pthread_mutex_unlock(&l->lock);
	if (join)
		pthread_join(thread, NULL);
}

int loop_tid(struct vh_loop *l)
{
	int tid;

	pthread_mutex_lock(&l->lock);
	tid = l->tid;
	pthread_mutex_unlock(&l->lock);
	return tid;
}

void loop_call(struct vh_loop *l, void (*fn)(void *ctx), void *ctx)
{
	struct loop_call_req c = {fn, ctx, NULL, 0};
	struct vh_loop *outer = loop_current;

	if (outer == l) {
		fn(ctx);
		return;
	}
	pthread_mutex_lock(&l->lock);
	while (l->running == 2)
		pthread_cond_wait(&l->cond, &l->lock);
	if (!l->running) {
		l->running = 2;
		pthread_mutex_unlock(&l->lock);
		loop_current = l;
		l->now = loop_clock();
		fn(ctx);
		loop_current = outer;
		pthread_mutex_lock(&l->lock);
		l->running = 0;
		pthread_cond_broadcast(&l->cond);
		pthread_mutex_unlock(&l->lock);
		return;
	}
	*l->calls_tail = &c;
	l->calls_tail = &c.next;
	loop_post(l, &l->call_task);
	while (!c.done)
		pthread_cond_wait(&l->cond, &l->lock);
	pthread_mutex_unlock(&l->lock);
}

uint64_t loop_now(struct vh_loop *l)
{
	return l->now;
}

int loop_is_current(struct vh_loop *l)
{
	return loop_current == l;
}

int loop_new(const char *name, struct vh_loop **out, struct vh_err *e)
{
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET};
	struct vh_loop *l = aligned_alloc(64, sizeof(*l));
	int r;

	if (!l)
		return err_set(e, -ENOMEM, "no memory for event loop %s", name);
	memset(l, 0, sizeof(*l));
	strncpy(l->name, name, sizeof(l->name) - 1);
	atomic_store(&l->poll_max, POLL_MAX_DEFAULT);
	l->ready_tail = &l->ready;
	l->deferred_tail = &l->deferred;
	l->calls_tail = &l->calls;
	l->call_task.fn = call_task_fn;
	l->now = l->last_epoll = loop_clock();
	pthread_mutex_init(&l->lock, NULL);
	pthread_cond_init(&l->cond, NULL);
	l->epfd = epoll_create1(EPOLL_CLOEXEC);
	l->evfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (l->epfd < 0 || l->evfd < 0 || epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->evfd, &ev) < 0) {
		r = err_set(e, -errno, "cannot make event loop %s: %s", name, strerror(errno));
		loop_free(l);
		return r;
	}
	*out = l;
	return 0;
}

void loop_free(struct vh_loop *l)
{
	if (!l)
		return;
	loop_stop(l);
	while (atomic_load_explicit(&l->posters, memory_order_acquire)) /* a poster whose task has run is still in post() */
		__builtin_ia32_pause();
	if (l->epfd >= 0)
		close(l->epfd);
	if (l->evfd >= 0)
		close(l->evfd);
	loop_event_fini(l);
	pthread_mutex_destroy(&l->lock);
	pthread_cond_destroy(&l->cond);
	free(l);
}

const struct vh_loop_ops loop_service = {
	.size = sizeof(loop_service),
	.watch = loop_watch,
	.watch_events = loop_watch_events,
	.unwatch = loop_unwatch,
	.timer = loop_timer,
	.timer_at = loop_timer_at,
	.timer_free = loop_timer_free,
	.post = loop_post,
	.now = loop_now,
	.is_current = loop_is_current,
};
