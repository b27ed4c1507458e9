/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Killed at every step: a child runs one call of the plugin under ptrace and is ended with SIGKILL before its n-th system
 * call, for every n until it runs through. After each death the volume is there wholly or not at all, nothing else is
 * left once the pool has been opened again, and repeating the call finishes it.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "dirtest.h"

static char *tmp;
static int no_tmpfile, no_xattr;

static int create_call(void *pool)
{
	struct vh_err e = {0};
	int ret = dirtest_create(pool, "new", 3 << 20, VH_PREALLOC_FULL, NULL, &e);

	if (ret)
		fprintf(stderr, "# create: %s\n", e.text);
	return ret;
}

static int clone_call(void *pool)
{
	struct vh_err e = {0};
	int ret = dir_ops->clone(pool, "src", NULL, "new", VH_CLONE_FULL, NULL, &e);

	/* Found as it was made, though without attributes it cannot be told from another one. */
	if (ret == -EEXIST && no_xattr)
		ret = 0;
	if (ret)
		fprintf(stderr, "# clone: %s\n", e.text);
	return ret;
}

static int remove_call(void *pool)
{
	return dir_ops->remove(pool, "new", NULL, NULL);
}

static int resize_call(void *pool)
{
	return dir_ops->resize(pool, "new", 3 << 20, VH_PREALLOC_FALLOC, NULL, NULL);
}

static int meta_call(void *pool)
{
	return dir_ops->meta_set(pool, "new", "format", "raw", NULL);
}

static void break_things(void)
{
	if (no_tmpfile)
		dirtest_break_syscall(SYS_openat, EOPNOTSUPP, 2, 020000000, 020000000);
	if (no_xattr) {
		dirtest_break_syscall(SYS_fsetxattr, EOPNOTSUPP, -1, 0, 0);
		dirtest_break_syscall(SYS_fgetxattr, EOPNOTSUPP, -1, 0, 0);
		dirtest_break_syscall(SYS_lgetxattr, EOPNOTSUPP, -1, 0, 0);
		dirtest_break_syscall(SYS_fremovexattr, EOPNOTSUPP, -1, 0, 0);
		dirtest_break_syscall(SYS_flistxattr, EOPNOTSUPP, -1, 0, 0);
	}
}

/* Runs the call and kills it before its n-th system call. 1: it ran through, with success. */
static int run_killed(int (*call)(void *pool), int n)
{
	int status, pid = fork();

	if (!pid) {
		break_things();
		void *pool = dirtest_open(tmp);
		if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
			_exit(99);
		raise(SIGSTOP);
		_exit(call(pool) ? 1 : 0);
	}
	g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
	g_assert_true(WIFSTOPPED(status));
	ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_EXITKILL | PTRACE_O_TRACESYSGOOD);
	for (int i = 0; i < 2 * n + 1; i++) {
		ptrace(PTRACE_SYSCALL, pid, NULL, NULL);
		g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
		if (WIFEXITED(status)) {
			g_assert_cmpint(WEXITSTATUS(status), ==, 0);
			return 1;
		}
	}
	kill(pid, SIGKILL);
	waitpid(pid, &status, 0);
	return 0;
}

static int repeat(void *ctx)
{
	int (*call)(void *pool) = *(int (**)(void *))ctx;
	void *pool;

	break_things();
	pool = dirtest_open(tmp);
	return call(pool) != 0;
}

static int is_name(const char *path, const char *name)
{
	g_autofree char *p = g_build_filename(path, name, NULL);

	return g_file_test(p, G_FILE_TEST_EXISTS);
}

static void crash_everywhere(const char *what, int (*call)(void *pool), int needs_new, int leaves_new)
{
	struct vh_vol_stat st = {.size = sizeof(st)};
	int steps = 0, through = 0;

	while (!through) {
		tmp = dirtest_tmp();
		void *pool = dirtest_open(tmp);
		g_assert_cmpint(dirtest_create(pool, "src", 3 << 20, VH_PREALLOC_FULL, NULL, NULL), ==, 0);
		if (needs_new)
			g_assert_cmpint(dirtest_create(pool, "new", 1 << 20, VH_PREALLOC_OFF, NULL, NULL), ==, 0);
		dir_ops->close(pool);

		through = run_killed(call, steps++);
		pool = dirtest_open(tmp); /* cleans up */
		/* Whole or not there, and nothing else. */
		int there = is_name(tmp, "new");
		g_assert_cmpint(dirtest_count(tmp), ==, 1 + there);
		if (there) {
			g_assert_cmpint(dir_ops->stat(pool, "new", &st, NULL), ==, 0);
			g_assert_true(st.bytes == 3 << 20 || (needs_new && st.bytes == 1 << 20));
			g_assert_false(st.flags & VH_STAT_IN_USE); /* the lease died too */
		}
		dir_ops->close(pool);
		g_assert_cmpint(dirtest_child(repeat, &call), ==, 0);
		pool = dirtest_open(tmp);
		g_assert_cmpint(is_name(tmp, "new"), ==, leaves_new);
		g_assert_cmpint(dirtest_count(tmp), ==, 1 + leaves_new);
		if (leaves_new) {
			g_assert_cmpint(dir_ops->stat(pool, "new", &st, NULL), ==, 0);
			g_assert_cmpuint(st.bytes, ==, 3 << 20);
		}
		dir_ops->close(pool);
		dirtest_untmp(tmp);
	}
	g_test_message("%s: killed at %d steps", what, steps - 1);
	g_assert_cmpint(steps, >, 4);
}

static void test_all(void)
{
	crash_everywhere("create", create_call, 0, 1);
	crash_everywhere("clone", clone_call, 0, 1);
	crash_everywhere("remove", remove_call, 1, 0);
	crash_everywhere("resize", resize_call, 1, 1);
}

static void test_no_tmpfile(void)
{
	no_tmpfile = 1;
	crash_everywhere("create without O_TMPFILE", create_call, 0, 1);
	crash_everywhere("clone without O_TMPFILE", clone_call, 0, 1);
	no_xattr = 1;
	crash_everywhere("create without O_TMPFILE and attributes", create_call, 0, 1);
	crash_everywhere("clone without O_TMPFILE and attributes", clone_call, 0, 1);
	no_tmpfile = no_xattr = 0;
}

/* A value in a sidecar is the old or the new one, and a removed volume leaves nothing, wherever the writer died. */
static void test_sidecar(void)
{
	int through = 0;

	no_xattr = 1;
	for (int n = 0; !through; n++) {
		tmp = dirtest_tmp();
		void *pool = dirtest_open(tmp);
		g_assert_cmpint(dirtest_create(pool, "new", 4096, 0, NULL, NULL), ==, 0);
		through = run_killed(meta_call, n);
		int (*call)(void *pool) = meta_call;
		g_assert_cmpint(dirtest_child(repeat, &call), ==, 0);
		g_assert_cmpint(dirtest_count(tmp), ==, 2);
		if (n % 2)
			run_killed(meta_call, n);
		g_assert_cmpint(dir_ops->remove(pool, "new", NULL, NULL), ==, 0);
		g_assert_cmpint(dirtest_count(tmp), ==, 0);
		dir_ops->close(pool);
		dirtest_untmp(tmp);
	}
	no_xattr = 0;
}

/* The cleaning at open takes nothing from a live process. */
static void test_cleaning_spares_the_living(void)
{
	int p[2], pid, status;
	char c;

	no_tmpfile = 1;
	tmp = dirtest_tmp();
	g_assert_cmpint(pipe(p), ==, 0);
	pid = fork();
	if (!pid) {
		break_things();
		void *pool = dirtest_open(tmp);
		if (write(p[1], "x", 1) != 1)
			_exit(1);
		for (int i = 0; i < 200; i++) {
			char name[16];

			snprintf(name, sizeof(name), "v%d", i);
			if (dirtest_create(pool, name, 4096, VH_PREALLOC_OFF, NULL, NULL))
				_exit(1);
		}
		_exit(0);
	}
	g_assert_cmpint(read(p[0], &c, 1), ==, 1);
	while (waitpid(pid, &status, WNOHANG) == 0)
		dir_ops->close(dirtest_open(tmp));
	g_assert_cmpint(status, ==, 0);
	g_assert_cmpint(dirtest_count(tmp), ==, 200);
	dirtest_untmp(tmp);
	no_tmpfile = 0;
	close(p[0]);
	close(p[1]);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	dirtest_load();
	g_test_add_func("/dir-crash/killed-at-every-step", test_all);
	g_test_add_func("/dir-crash/killed-at-every-step-without-o-tmpfile", test_no_tmpfile);
	g_test_add_func("/dir-crash/sidecar", test_sidecar);
	g_test_add_func("/dir-crash/cleaning-spares-the-living", test_cleaning_spares_the_living);
	return g_test_run();
}
