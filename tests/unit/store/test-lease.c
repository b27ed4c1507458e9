/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Leases of this host: every pair of modes, in one process and in two; the holder's name; its end, however it comes. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "store/store-i.h"
#include "util/paths.h"

static char *root;

static void setup(void)
{
	root = g_dir_make_tmp("vhost-lease-XXXXXX", NULL);
	g_setenv("VHOST_ROOT", root, TRUE);
}

static void teardown(void)
{
	char *argv[] = {(char *)"rm", (char *)"-rf", root, NULL};

	g_assert_true(g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL));
	g_clear_pointer(&root, g_free);
}

static unsigned files(void)
{
	g_autofree char *dir = path_in(PATH_STATE, ".leases", NULL);
	GDir *d = g_dir_open(dir, 0, NULL);
	unsigned n = 0;

	while (d && g_dir_read_name(d))
		n++;
	if (d)
		g_dir_close(d);
	return n;
}

/* Whether somebody with the second mode may come when somebody with the first is there. */
static const int together[3][3] = {
	[VH_ATTACH_RO] = {1, 0, 0}, [VH_ATTACH_RW_EXCL] = {0, 0, 0}, [VH_ATTACH_RW_SHARED] = {0, 0, 1}};

static pid_t hold(const char *identity, uint32_t mode, const char *who)
{
	int p[2];
	char c;
	pid_t pid;

	g_assert_cmpint(pipe(p), ==, 0);
	pid = fork();
	if (!pid) {
		struct lease *l;

		if (lease_take(identity, mode, who, &l, NULL) || write(p[1], "x", 1) != 1)
			_exit(1);
		pause();
		_exit(0);
	}
	close(p[1]);
	g_assert_cmpint(read(p[0], &c, 1), ==, 1);
	close(p[0]);
	return pid;
}

static void end(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void test_pairs(void)
{
	setup();
	for (uint32_t a = 0; a < 3; a++)
		for (uint32_t b = 0; b < 3; b++) {
			struct lease *x, *y = NULL;
			ERR_AUTO(e);
			ERR_AUTO(e2);
			pid_t pid;
			int ret;

			g_assert_cmpint(lease_take("x:1", a, "pid 1 first", &x, &e), ==, 0);
			ret = lease_take("x:1", b, "pid 1 second", &y, &e);
			g_assert_cmpint(ret, ==, together[a][b] ? 0 : -EBUSY);
			if (ret)
				g_assert_nonnull(strstr(e.cause, "in use by pid 1 first"));
			/* Another volume is another matter. */
			lease_drop(y);
			g_assert_cmpint(lease_take("x:2", b, "pid 1 third", &y, NULL), ==, 0);
			lease_drop(y);
			lease_drop(x);
			g_assert_cmpint(lease_look("x:1", NULL), ==, 0);
			g_assert_cmpuint(files(), ==, 0);

			pid = hold("x:1", a, "pid 77 vhost run web");
			ret = lease_take("x:1", b, "pid 1 second", &y, &e2);
			g_assert_cmpint(ret, ==, together[a][b] ? 0 : -EBUSY);
			if (ret)
				g_assert_nonnull(strstr(e2.cause, "pid 77 vhost run web since 2"));
			else
				lease_drop(y);
			g_assert_cmpint(lease_look("x:1", NULL), ==, 1);
			end(pid); /* by SIGKILL: the lease goes with it */
			g_assert_cmpint(lease_look("x:1", NULL), ==, 0);
			g_assert_cmpint(lease_take("x:1", VH_ATTACH_RW_EXCL, "pid 1 next", &y, NULL), ==, 0);
			lease_drop(y);
			g_assert_cmpuint(files(), ==, 0);
		}
	teardown();
}

static void test_peek(void)
{
	struct lease *x, *y;

	setup();
	g_assert_cmpint(lease_take("x:1", VH_ATTACH_RW_EXCL, "pid 1 first", &x, NULL), ==, 0);
	g_assert_cmpint(lease_take("x:1", VH_ATTACH_PEEK, "pid 1 second", &y, NULL), ==, 0);
	g_assert_null(y);
	lease_drop(x);
	teardown();
}

static void test_change(void)
{
	struct lease *x, *y;
	ERR_AUTO(e);

	setup();
	g_assert_cmpint(lease_take("x:1", VH_ATTACH_RO, "pid 1 first", &x, NULL), ==, 0);
	g_assert_cmpint(lease_take("x:1", VH_ATTACH_RO, "pid 1 second", &y, NULL), ==, 0);
	g_assert_cmpint(lease_change(x, VH_ATTACH_RW_EXCL, &e), ==, -EBUSY);
	g_assert_cmpint(lease_change(x, VH_ATTACH_RW_SHARED, NULL), ==, -EBUSY);
	lease_drop(y); /* x is a reader still, and keeps writers out */
	g_assert_cmpint(lease_take("x:1", VH_ATTACH_RW_EXCL, "pid 1 second", &y, NULL), ==, -EBUSY);
	g_assert_cmpint(lease_take("x:1", VH_ATTACH_RO, "pid 1 second", &y, NULL), ==, 0);
	lease_drop(y);
	static const uint32_t way[] = {VH_ATTACH_RW_EXCL, VH_ATTACH_RO, VH_ATTACH_RW_SHARED, VH_ATTACH_RO, VH_ATTACH_RW_EXCL,
				       VH_ATTACH_RW_SHARED, VH_ATTACH_RW_EXCL};
	for (unsigned k = 0; k < G_N_ELEMENTS(way); k++) {
		g_assert_cmpint(lease_change(x, way[k], NULL), ==, 0);
		for (uint32_t b = 0; b < 3; b++) {
			int ret = lease_take("x:1", b, "pid 1 other", &y, NULL);

			g_assert_cmpint(ret, ==, together[way[k]][b] ? 0 : -EBUSY);
			lease_drop(y);
		}
	}
	lease_drop(x);
	g_assert_cmpuint(files(), ==, 0);
	teardown();
}

/* Readers that come and go: the one that is there is named, not one that left. */
static void test_names(void)
{
	g_autofree char *who = NULL, *who2 = NULL;
	pid_t a, b;

	setup();
	a = hold("x:1", VH_ATTACH_RO, "pid 1 gone");
	b = hold("x:1", VH_ATTACH_RO, "pid 2 stays\nforged");
	g_assert_cmpint(lease_look("x:1", &who), ==, 1);
	g_assert_nonnull(strstr(who, "pid 1 gone"));
	g_assert_nonnull(strstr(who, "and 1 more"));
	end(a);
	g_assert_cmpint(lease_look("x:1", &who2), ==, 1);
	g_assert_nonnull(strstr(who2, "pid 2 stays forged"));
	g_assert_null(strstr(who2, "gone"));
	end(b);
	teardown();
}

/* Many at once, for one volume: never two inside, whoever removes the file when. */
static void test_storm(void)
{
	struct shared { int inside, worst, got; } *s = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pid_t pid[6];

	setup();
	for (unsigned k = 0; k < G_N_ELEMENTS(pid); k++) {
		pid[k] = fork();
		if (pid[k])
			continue;
		for (gint64 until = g_get_monotonic_time() + 1500000; g_get_monotonic_time() < until;) {
			struct lease *l;

			if (lease_take("x:1", VH_ATTACH_RW_EXCL, "pid 1 storm", &l, NULL))
				continue;
			int n = __atomic_add_fetch(&s->inside, 1, __ATOMIC_SEQ_CST);
			if (n > 1)
				__atomic_store_n(&s->worst, n, __ATOMIC_SEQ_CST);
			__atomic_add_fetch(&s->got, 1, __ATOMIC_SEQ_CST);
			__atomic_sub_fetch(&s->inside, 1, __ATOMIC_SEQ_CST);
			lease_drop(l);
		}
		_exit(0);
	}
	for (unsigned k = 0; k < G_N_ELEMENTS(pid); k++) {
		int st;

		g_assert_cmpint(waitpid(pid[k], &st, 0), ==, pid[k]);
		g_assert_cmpint(st, ==, 0);
	}
	g_assert_cmpint(s->worst, ==, 0);
	g_assert_cmpint(s->got, >, 100);
	g_assert_cmpuint(files(), ==, 0);
	munmap(s, 4096);
	teardown();
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/lease/pairs", test_pairs);
	g_test_add_func("/lease/peek", test_peek);
	g_test_add_func("/lease/change", test_change);
	g_test_add_func("/lease/names", test_names);
	g_test_add_func("/lease/storm", test_storm);
	return g_test_run();
}
