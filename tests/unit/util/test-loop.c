/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>
#include "util/loop.h"

static struct vh_loop *make(void)
{
	struct vh_loop *l = NULL;

	g_assert_cmpint(loop_new("test", &l, NULL), ==, 0);
	return l;
}

static struct vh_loop *start(void)
{
	struct vh_loop *l = make();

	g_assert_cmpint(loop_start(l, NULL), ==, 0);
	return l;
}

static void end(struct vh_loop *l)
{
	loop_stop(l);
	loop_free(l);
}

static uint64_t mono(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

/* Posted tasks run exactly once per successful post, on the loop, however many threads post. */
struct counted {
	struct vh_task t;
	struct vh_loop *l;
	atomic_long ran;
};

static void count_fn(struct vh_task *t)
{
	struct counted *c = (struct counted *)t;

	g_assert_true(loop_is_current(c->l));
	atomic_fetch_add(&c->ran, 1);
}

#define POSTERS 4
#define TASKS 16
#define POSTS 20000
static struct counted tasks[TASKS];
static atomic_long accepted[TASKS];

static void *poster(void *arg)
{
	unsigned seed = (unsigned)(uintptr_t)arg;

	for (int i = 0; i < POSTS; i++) {
		unsigned k = (unsigned)rand_r(&seed) % TASKS;

		if (loop_post(tasks[k].l, &tasks[k].t))
			atomic_fetch_add(&accepted[k], 1);
		if (i % 1000 == 0)
			g_usleep(200); /* let it fall asleep now and then */
	}
	return NULL;
}

static void nothing(void *ctx)
{
}

static void test_post(void)
{
	struct vh_loop *l = start();
	pthread_t th[POSTERS];

	for (int i = 0; i < TASKS; i++)
		tasks[i] = (struct counted){.t = {.fn = count_fn}, .l = l};
	for (int i = 0; i < POSTERS; i++)
		pthread_create(&th[i], NULL, poster, (void *)(uintptr_t)(i + 1));
	for (int i = 0; i < POSTERS; i++)
		pthread_join(th[i], NULL);
	for (uint64_t until = mono() + 5000000000u; mono() < until; g_usleep(1000)) {
		int left = 0;

		for (int i = 0; i < TASKS; i++)
			left += atomic_load(&tasks[i].ran) != atomic_load(&accepted[i]);
		if (!left)
			break;
	}
	loop_call(l, nothing, NULL);
	for (int i = 0; i < TASKS; i++) {
		g_assert_cmpint(atomic_load(&tasks[i].ran), >, 0);
		g_assert_cmpint(atomic_load(&tasks[i].ran), ==, atomic_load(&accepted[i]));
	}
	end(l);
}

/* Order of posts from one thread; a task that is posted already is not posted twice. */
static char trace[64];
struct letter {
	struct vh_task t;
	char c;
};

static void letter_fn(struct vh_task *t)
{
	strncat(trace, &((struct letter *)t)->c, 1);
}

static struct vh_loop *defer_loop;
static struct letter d1 = {{letter_fn, {0}}, 'd'}, p2 = {{letter_fn, {0}}, '2'};

static void defer_fn(struct vh_task *t)
{
	strcat(trace, "p");
	loop_defer(defer_loop, &d1.t);
	loop_defer(defer_loop, &d1.t);
	g_assert_cmpint(loop_post(defer_loop, &p2.t), ==, 1);
	g_assert_cmpint(loop_post(defer_loop, &p2.t), ==, 0);
}

static void stop_fn(struct vh_task *t)
{
	loop_stop(defer_loop);
}

static void test_order(void)
{
	struct letter a = {{letter_fn, {0}}, 'a'}, b = {{letter_fn, {0}}, 'b'}, x = {{letter_fn, {0}}, 'x'};
	struct vh_task t = {defer_fn, {0}}, s = {stop_fn, {0}};
	struct vh_loop *l = defer_loop = make();

	trace[0] = 0;
	loop_post(l, &a.t);
	loop_post(l, &x.t);
	loop_post(l, &b.t);
	loop_cancel(l, &x.t);
	loop_post(l, &t);
	loop_post(l, &a.t);
	loop_turn(l, 0);
	loop_post(l, &x.t);
	loop_post(l, &s);
	loop_post(l, &b.t);
	loop_run(l);
	/* a b p in order, what p deferred at the end of that turn, what it posted in the next one */
	g_assert_cmpstr(trace, ==, "abpd2xb");
	loop_defer(l, &d1.t);
	loop_cancel(l, &d1.t);
	loop_turn(l, 0);
	g_assert_cmpstr(trace, ==, "abpd2xb");
	loop_free(l);
}

/* loop_call: on the loop, inline when it does not run, from inside itself, and never lost while the loop stops. */
struct call {
	struct vh_loop *l;
	int n;
};

static void call_fn(void *ctx)
{
	struct call *c = ctx;

	g_assert_true(loop_is_current(c->l));
	if (c->n++ == 0)
		loop_call(c->l, call_fn, c);
}

static void *caller(void *arg)
{
	struct call *shared = arg;

	for (int i = 0; i < 300; i++) {
		struct call c = {shared->l, 0};

		loop_call(c.l, call_fn, &c);
		g_assert_cmpint(c.n, ==, 2);
	}
	return NULL;
}

static void test_call(void)
{
	struct vh_loop *l = make();
	struct call c = {l, 0};
	pthread_t th[3];

	loop_call(l, call_fn, &c);
	g_assert_cmpint(c.n, ==, 2);
	g_assert_cmpint(loop_tid(l), ==, 0);
	for (int i = 0; i < 3; i++)
		pthread_create(&th[i], NULL, caller, &c);
	for (int i = 0; i < 40; i++) {
		g_assert_cmpint(loop_start(l, NULL), ==, 0);
		g_assert_cmpint(loop_tid(l), !=, 0);
		g_assert_cmpint(loop_start(l, NULL), ==, -EALREADY);
		g_usleep(100);
		loop_stop(l);
	}
	for (int i = 0; i < 3; i++)
		pthread_join(th[i], NULL);
	loop_free(l);
}

/* Timers fire in order, not early, once; disarming and freeing work, also inside a timer. */
struct tick {
	struct vh_timer *t, *other;
	uint64_t at;
	int fired;
	struct vh_loop *l;
};
static uint64_t last_fired;

static void tick_fn(void *ctx)
{
	struct tick *t = ctx;

	g_assert_cmpuint(mono(), >=, t->at);
	g_assert_cmpuint(t->at, >=, last_fired);
	last_fired = t->at;
	t->fired++;
}

static void freeing_fn(void *ctx)
{
	struct tick *t = ctx;

	t->fired++;
	loop_timer_free(t->other);
	loop_timer_free(t->t);
}

static void test_timers(void)
{
	struct vh_loop *l = make();
	struct tick t[100] = {0}, f = {0};
	uint64_t t0 = mono();

	for (int i = 0; i < 100; i++) {
		g_assert_cmpint(loop_timer(l, tick_fn, &t[i], &t[i].t), ==, 0);
		t[i].at = t0 + 1000000 + (uint64_t)g_random_int_range(0, 20000000);
		loop_timer_at(t[i].t, t0 + 500000000000u);
		loop_timer_at(t[i].t, t[i].at);
	}
	for (int i = 0; i < 100; i += 10)
		loop_timer_at(t[i].t, 0);
	g_assert_cmpint(loop_timer(l, freeing_fn, &f, &f.t), ==, 0);
	f.other = t[3].t;
	loop_timer_at(f.t, t0 + 500000);
	while (mono() < t0 + 25000000)
		loop_turn(l, 30000000);
	g_assert_cmpint(f.fired, ==, 1);
	for (int i = 0; i < 100; i++) {
		g_assert_cmpint(t[i].fired, ==, i % 10 && i != 3 ? 1 : 0);
		if (i != 3)
			loop_timer_free(t[i].t);
	}
	loop_free(l);
}

/* Fds: level-triggered, paused with 0, unwatched safely while both are ready in one batch. */
struct fdw {
	struct vh_watch *w;
	int fd, n;
	struct fdw *kill;
};

static void fdw_fn(void *ctx, uint32_t events)
{
	struct fdw *f = ctx;

	g_assert_cmpuint(events & VH_IN, ==, VH_IN);
	f->n++;
	if (f->kill) {
		loop_unwatch(f->kill->w);
		loop_unwatch(f->w);
	}
}

static void test_fds(void)
{
	struct vh_loop *l = make();
	struct fdw a = {0}, b = {0};
	struct vh_watch *w;
	int p[2];

	g_assert_cmpint(pipe(p), ==, 0);
	a.fd = eventfd(1, EFD_CLOEXEC);
	b.fd = eventfd(1, EFD_CLOEXEC);
	g_assert_cmpint(loop_watch(l, a.fd, VH_IN, fdw_fn, &a, &a.w), ==, 0);
	g_assert_cmpint(loop_watch(l, a.fd, VH_IN, fdw_fn, &a, &w), ==, -EEXIST);
	g_assert_cmpint(loop_watch(l, b.fd, 0, fdw_fn, &b, &b.w), ==, 0);
	loop_turn(l, 0);
	loop_turn(l, 0);
	g_assert_cmpint(a.n, ==, 2);
	g_assert_cmpint(b.n, ==, 0);
	loop_watch_events(b.w, VH_IN);
	loop_watch_events(a.w, 0);
	loop_turn(l, 0);
	g_assert_cmpint(a.n, ==, 2);
	g_assert_cmpint(b.n, ==, 1);
	loop_watch_events(a.w, VH_IN);
	a.kill = &b;
	b.kill = &a;
	loop_turn(l, 0); /* both ready: only the first one's handler runs */
	g_assert_cmpint(a.n + b.n, ==, 4);
	loop_turn(l, 0);
	g_assert_cmpint(a.n + b.n, ==, 4);
	/* a hang-up is reported, and not while paused */
	struct fdw h = {.fd = p[0]};
	g_assert_cmpint(loop_watch(l, p[0], VH_IN, fdw_fn, &h, &h.w), ==, 0);
	loop_watch_events(h.w, 0);
	close(p[1]);
	loop_turn(l, 0);
	g_assert_cmpint(h.n, ==, 0);
	loop_watch_events(h.w, VH_IN);
	loop_turn(l, 0);
	g_assert_cmpint(h.n, ==, 1);
	loop_unwatch(h.w);
	close(p[0]);
	/* an edge is reported once */
	struct fdw e = {.fd = a.fd};
	g_assert_cmpint(loop_watch(l, a.fd, VH_IN | LOOP_EDGE, fdw_fn, &e, &e.w), ==, 0);
	loop_turn(l, 0);
	loop_turn(l, 0);
	g_assert_cmpint(e.n, ==, 1);
	loop_unwatch(e.w);
	close(a.fd);
	close(b.fd);
	loop_free(l);
	g_assert_cmpint(loop_new("x", &l, NULL), ==, 0);
	int fd = g_file_open_tmp(NULL, NULL, NULL);
	g_assert_cmpint(loop_watch(l, fd, VH_IN, fdw_fn, &e, &w), ==, -EPERM);
	close(fd);
	loop_free(l);
}

/* Pollers: sleep(1) before blocking and sleep(0) after; work that comes meanwhile is not slept over. */
struct pl {
	struct loop_poller p;
	atomic_int work;
	int done, sleeps, wakes, asleep;
};

static int pl_poll(struct loop_poller *p)
{
	struct pl *x = (struct pl *)p;
	int n = atomic_exchange(&x->work, 0);

	g_assert_false(x->asleep);
	x->done += n;
	return n;
}

static int pl_sleep(struct loop_poller *p, int going)
{
	struct pl *x = (struct pl *)p;

	x->asleep = going;
	if (going)
		x->sleeps++;
	else
		x->wakes++;
	return going && atomic_load(&x->work);
}

static void test_pollers(void)
{
	struct vh_loop *l = make();
	struct pl x = {.p = {pl_poll, pl_sleep, NULL}};

	loop_poller_add(l, &x.p);
	loop_turn(l, 1000000);
	g_assert_cmpint(x.sleeps, ==, 1);
	g_assert_cmpint(x.wakes, >=, 1);
	g_assert_false(x.asleep);
	atomic_store(&x.work, 3);
	loop_turn(l, 1000000000u);
	g_assert_cmpint(x.done, ==, 3);
	loop_poller_remove(l, &x.p);
	loop_turn(l, 0);
	g_assert_cmpint(x.done, ==, 3);
	loop_free(l);
}

/* The loop's thread blocks every signal. */
static void mask_fn(void *ctx)
{
	pthread_sigmask(SIG_SETMASK, NULL, ctx);
}

static void test_signals(void)
{
	struct vh_loop *l = start();
	sigset_t set;

	loop_call(l, mask_fn, &set);
	for (int s = 1; s < 32; s++)
		if (s != SIGKILL && s != SIGSTOP)
			g_assert_true(sigismember(&set, s));
	end(l);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/loop/post", test_post);
	g_test_add_func("/loop/order", test_order);
	g_test_add_func("/loop/call", test_call);
	g_test_add_func("/loop/timers", test_timers);
	g_test_add_func("/loop/fds", test_fds);
	g_test_add_func("/loop/pollers", test_pollers);
	g_test_add_func("/loop/signals", test_signals);
	return g_test_run();
}
