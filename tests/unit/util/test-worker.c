/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <dirent.h>
#include <glib.h>
#include <pthread.h>
#include <signal.h>

#include "util/worker.h"

struct item {
	struct work w;
	int ran, blocked;
	unsigned order;
};

static unsigned counter, running, most;

static void count(struct work *w)
{
	struct item *it = (struct item *)w;
	unsigned now = __atomic_add_fetch(&running, 1, __ATOMIC_SEQ_CST), seen = __atomic_load_n(&most, __ATOMIC_SEQ_CST);
	sigset_t set;

	while (now > seen && !__atomic_compare_exchange_n(&most, &seen, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
	pthread_sigmask(SIG_BLOCK, NULL, &set);
	it->blocked = sigismember(&set, SIGTERM) && sigismember(&set, SIGINT) && sigismember(&set, SIGUSR1);
	it->order = __atomic_fetch_add(&counter, 1, __ATOMIC_SEQ_CST);
	g_usleep(it->order % 7 * 100);
	__atomic_sub_fetch(&running, 1, __ATOMIC_SEQ_CST);
	it->ran++;
}

static void all_work_is_done(void)
{
	static struct item items[500];
	struct worker_pool *p;

	counter = most = 0;
	g_assert_cmpint(worker_pool_new("test", 4, &p, NULL), ==, 0);
	for (unsigned i = 0; i < G_N_ELEMENTS(items); i++) {
		items[i].w.fn = count;
		worker_submit(p, &items[i].w);
	}
	worker_pool_free(p); /* waits */
	for (unsigned i = 0; i < G_N_ELEMENTS(items); i++) {
		g_assert_cmpint(items[i].ran, ==, 1);
		g_assert_true(items[i].blocked);
	}
	g_assert_cmpuint(most, <=, 4);
	g_assert_cmpuint(most, >=, 2);
}

static void one_thread_keeps_order(void)
{
	static struct item items[200];
	struct worker_pool *p;

	counter = 0;
	g_assert_cmpint(worker_pool_new("a-name-that-is-too-long", 1, &p, NULL), ==, 0);
	for (unsigned i = 0; i < G_N_ELEMENTS(items); i++) {
		items[i].w.fn = count;
		worker_submit(p, &items[i].w);
	}
	worker_pool_free(p);
	for (unsigned i = 0; i < G_N_ELEMENTS(items); i++)
		g_assert_cmpuint(items[i].order, ==, i);
}

struct chain {
	struct work w;
	struct worker_pool *p;
	unsigned left;
};

static void chained(struct work *w)
{
	struct chain *c = (struct chain *)w;

	if (--c->left)
		worker_submit(c->p, &c->w); /* its memory may be used again as soon as fn runs */
}

static void work_may_submit_work(void)
{
	struct chain c[3];
	struct worker_pool *p;

	g_assert_cmpint(worker_pool_new("chain", 2, &p, NULL), ==, 0);
	for (unsigned i = 0; i < G_N_ELEMENTS(c); i++) {
		c[i] = (struct chain){ .w.fn = chained, .p = p, .left = 1000 };
		worker_submit(p, &c[i].w);
	}
	worker_pool_free(p);
	for (unsigned i = 0; i < G_N_ELEMENTS(c); i++)
		g_assert_cmpuint(c[i].left, ==, 0);
}

static unsigned threads_now(void)
{
	DIR *d = opendir("/proc/self/task");
	unsigned n = 0;

	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

static void idle_threads_end(void)
{
	static struct item items[8];
	struct worker_pool *p;
	unsigned before = threads_now();

	g_assert_cmpint(worker_pool_new("idle", 8, &p, NULL), ==, 0);
	g_assert_cmpuint(threads_now(), ==, before); /* none before there is work */
	for (unsigned i = 0; i < G_N_ELEMENTS(items); i++) {
		items[i].w.fn = count;
		worker_submit(p, &items[i].w);
	}
	g_assert_cmpuint(threads_now(), >, before);
	for (unsigned i = 0; i < 120 && threads_now() > before; i++)
		g_usleep(100000);
	g_assert_cmpuint(threads_now(), ==, before);
	worker_submit(p, &items[0].w); /* and come back */
	worker_pool_free(p);
	g_assert_cmpint(items[0].ran, ==, 2);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/worker/all-work-is-done", all_work_is_done);
	g_test_add_func("/worker/one-thread-keeps-order", one_thread_keeps_order);
	g_test_add_func("/worker/work-may-submit-work", work_may_submit_work);
	g_test_add_func("/worker/idle-threads-end", idle_threads_end);
	return g_test_run();
}
