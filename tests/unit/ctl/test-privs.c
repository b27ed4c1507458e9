/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Capabilities are gone from every thread, also those that block all signals, and cannot come back. */
#include <fcntl.h>
#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/ctl-i.h"
#include "net/helper.h"
#include "util/loop.h"

#define THREADS 12

static atomic_int stop, spawned;

static void *sleeps(void *arg)
{
	sigset_t all;
	int p[2];
	char c;

	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, NULL);
	if (!arg || pipe2(p, O_CLOEXEC) < 0) {
		while (!atomic_load(&stop)) /* busy in user space */
			;
		return NULL;
	}
	/* blocked in the kernel; EINTR is the caller's to handle, but there shall be none */
	return read(p[0], &c, 1) < 0 ? (void *)1 : NULL;
}

static void *dies(void *arg)
{
	return NULL;
}

/* Makes threads all the time, which inherit what it has. */
static void *spawns(void *arg)
{
	while (!atomic_load(&stop)) {
		pthread_t t;

		if (!pthread_create(&t, NULL, dies, NULL))
			pthread_join(t, NULL);
		atomic_fetch_add(&spawned, 1);
	}
	return NULL;
}

static int all_bare(void)
{
	g_autoptr(GDir) d = g_dir_open("/proc/self/task", 0, NULL);
	const char *tid;

	while ((tid = g_dir_read_name(d))) {
		g_autofree char *path = g_strdup_printf("/proc/self/task/%s/status", tid), *text = NULL;

		if (!g_file_get_contents(path, &text, NULL, NULL))
			continue;
		for (const char *const *k = (const char *const[]){ "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
								    "CapBnd:\t0000000000000000", "CapAmb:\t0000000000000000",
								    "NoNewPrivs:\t1", NULL }; *k; k++)
			if (!strstr(text, *k)) {
				g_printerr("thread %s lacks %s\n", tid, *k);
				return 0;
			}
	}
	return 1;
}

static int drop_in_child(void)
{
	struct vh_loop *l;
	pthread_t t[THREADS], s;
	ERR_AUTO(e);

	if (loop_new("io0", &l, NULL) || loop_start(l, NULL))
		return 2;
	for (uintptr_t i = 0; i < THREADS; i++)
		if (pthread_create(&t[i], NULL, sleeps, (void *)(i > 0 ? i : 0)))
			return 3;
	if (pthread_create(&s, NULL, spawns, NULL))
		return 4;
	while (!atomic_load(&spawned))
		g_usleep(100);
	if (ctl_privs_drop(&e)) {
		g_printerr("%s\n", e.cause);
		return 5;
	}
	if (!all_bare())
		return 6;
	if (prctl(PR_GET_DUMPABLE) != 0)
		return 7;
	atomic_store(&stop, 1);
	pthread_join(s, NULL);
	pthread_join(t[0], NULL);
	/* The loop still works after its interruption. */
	loop_stop(l);
	loop_free(l);
	/* What needs a privilege fails, and there is no way back. */
	if (!chroot("/") || !prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, 12, 0, 0))
		return 8;
	if (ctl_privs_drop(&e)) /* again: nothing to do */
		return 9;
	return 0;
}

static void every_thread(void)
{
	int st;

	if (geteuid()) {
		g_test_skip("needs root");
		return;
	}
	pid_t pid = fork();

	if (!pid)
		_exit(drop_in_child());
	g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
	g_assert_cmpint(st, ==, 0);
}

static void helper_only_for_nics(void)
{
	if (geteuid()) {
		g_test_skip("needs root");
		return;
	}
	g_assert_cmpint(ctl_privs_prepare(0, NULL), ==, 0);
	g_assert_cmpint(net_helper_pid(), ==, 0);
	g_assert_cmpint(ctl_privs_prepare(1, NULL), ==, 0);
	g_assert_cmpint(net_helper_pid(), >, 0);
	ctl_privs_end();
	g_assert_cmpint(net_helper_pid(), ==, 0);
}

/* The helper keeps no fd of its parent: a lock that the VM gives back is free. */
static void helper_holds_nothing(void)
{
	char c;
	int p[2];

	if (geteuid()) {
		g_test_skip("needs root");
		return;
	}
	g_assert_cmpint(pipe2(p, O_CLOEXEC), ==, 0);
	g_assert_cmpint(ctl_privs_prepare(1, NULL), ==, 0);
	close(p[1]);
	g_assert_cmpint(read(p[0], &c, 1), ==, 0); /* would block for ever */
	close(p[0]);
	ctl_privs_end();
}

static void unprivileged(void)
{
	int st;
	pid_t pid = fork();

	if (!pid) {
		if (!geteuid() && (setgid(65534) || setuid(65534)))
			_exit(2);
		_exit(ctl_privs_prepare(3, NULL) || net_helper_pid() || ctl_privs_drop(NULL) ? 1 : 0);
	}
	g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
	g_assert_cmpint(st, ==, 0);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	alarm(100);
	g_test_add_func("/privs/dropped-in-every-thread", every_thread);
	g_test_add_func("/privs/helper-only-for-nics", helper_only_for_nics);
	g_test_add_func("/privs/helper-holds-nothing-of-its-parent", helper_holds_nothing);
	g_test_add_func("/privs/unprivileged-needs-nothing", unprivileged);
	return g_test_run();
}
