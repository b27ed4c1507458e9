/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The folder of running state, and leaving the terminal. */
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "ctl/ctl-i.h"
#include "util/paths.h"

static char *in_state(const char *vm, const char *file)
{
	return path_in(PATH_STATE, vm, file, NULL);
}

static int exists(const char *vm, const char *file)
{
	g_autofree char *p = in_state(vm, file);

	return g_file_test(p, G_FILE_TEST_EXISTS);
}

static int add_name(void *ctx, const char *name)
{
	g_string_append_printf(ctx, "%s ", name);
	return 0;
}

static char *names(void)
{
	GString *s = g_string_new(NULL);

	g_assert_cmpint(ctl_dir_scan(add_name, s, NULL), ==, 0);
	return g_string_free(s, FALSE);
}

static void claim(void)
{
	g_autofree char *none = names(), *folder = in_state("web", NULL);
	struct ctl_dir *a, *b;
	ERR_AUTO(e);
	ERR_AUTO(bad);
	struct stat st;
	int pid;

	g_assert_cmpstr(none, ==, "");
	g_assert_cmpint(ctl_dir_running("web", &pid), ==, -ENOENT);
	g_assert_cmpint(ctl_dir_claim("web", &a, NULL), ==, 0);
	g_assert_cmpstr(ctl_dir_path(a), ==, folder);
	g_assert_cmpstr(ctl_dir_name(a), ==, "web");
	g_assert_cmpint(stat(folder, &st), ==, 0);
	g_assert_cmpint(st.st_mode & 07777, ==, 0700);
	g_assert_cmpint(ctl_dir_running("web", &pid), ==, 0);
	g_assert_cmpint(pid, ==, getpid());
	g_assert_cmpint(ctl_dir_claim("web", &b, &e), ==, -EEXIST);
	g_autofree char *mine = g_strdup_printf("process %d", getpid());

	g_assert_nonnull(strstr(e.cause, mine));
	g_assert_nonnull(strstr(e.remedy, "vhost vm stop web"));
	g_assert_cmpint(err_exit_status(&e), ==, EXIT_EXISTS);
	g_assert_cmpint(ctl_dir_claim("db", &b, NULL), ==, 0);
	g_autofree char *two = names();

	g_assert_cmpstr(two, ==, "db web ");
	ctl_dir_release(b);
	ctl_dir_release(a);
	g_assert_false(exists("web", NULL));
	g_assert_cmpint(ctl_dir_running("web", &pid), ==, -ENOENT);
	g_assert_cmpint(ctl_dir_claim("../web", &a, &bad), ==, -EINVAL);
	ctl_dir_release(NULL);
}

/* A VM that was killed leaves its folder; the next one of that name takes it over. */
static void taken_over(void)
{
	g_autofree char *sock = in_state("web", "control.sock"), *extra = in_state("web", "something");
	struct ctl_dir *d;
	int st, now;
	pid_t pid = fork();

	if (!pid) {
		if (ctl_dir_claim("web", &d, NULL))
			_exit(1);
		g_file_set_contents(sock, "", 0, NULL);
		kill(getpid(), SIGKILL);
	}
	g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
	g_assert_true(WIFSIGNALED(st));
	g_assert_true(exists("web", "pid"));
	g_assert_cmpint(ctl_dir_running("web", &now), ==, -ENOENT);
	g_autofree char *left = names();

	g_assert_cmpstr(left, ==, "web ");
	g_assert_cmpint(ctl_dir_claim("web", &d, NULL), ==, 0);
	g_assert_false(exists("web", "control.sock"));
	g_assert_cmpint(ctl_dir_running("web", &now), ==, 0);
	g_assert_cmpint(now, ==, getpid());
	g_file_set_contents(extra, "", 0, NULL);
	ctl_dir_release(d);
	g_assert_false(exists("web", NULL));
}

/* A forked child that ends must not take the folder away. */
static void child_keeps(void)
{
	struct ctl_dir *d;
	int st;

	g_assert_cmpint(ctl_dir_claim("web", &d, NULL), ==, 0);
	pid_t pid = fork();

	if (!pid) {
		ctl_dir_release(d);
		_exit(0);
	}
	g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
	g_assert_true(exists("web", "pid"));
	ctl_dir_release(d);
}

/* Of many at once exactly one has it, over and over. */
static void raced(void)
{
	int held[2];
	g_assert_cmpint(pipe2(held, O_CLOEXEC), ==, 0);
	pid_t pids[8];

	for (int i = 0; i < 8; i++) {
		pids[i] = fork();
		if (pids[i])
			continue;
		for (int k = 0; k < 200; k++) {
			g_autofree char *mark = NULL;
			struct ctl_dir *d;
			int fd, r = ctl_dir_claim("race", &d, NULL);

			if (r == -EEXIST)
				continue;
			if (r)
				_exit(1);
			mark = g_build_filename(ctl_dir_path(d), "mark", NULL);
			fd = open(mark, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
			if (fd < 0)
				_exit(2); /* somebody else is in here */
			close(fd);
			(void)!write(held[1], "x", 1);
			ctl_dir_release(d);
		}
		_exit(0);
	}
	close(held[1]);
	for (int i = 0; i < 8; i++) {
		int st;

		g_assert_cmpint(waitpid(pids[i], &st, 0), ==, pids[i]);
		g_assert_cmpint(st, ==, 0);
	}
	char buf[2000];

	g_assert_cmpint(read(held[0], buf, sizeof(buf)), >, 0);
	close(held[0]);
}

static void foreign_folder(void)
{
	g_autofree char *dir = in_state("evil", NULL);
	struct ctl_dir *d;
	ERR_AUTO(e);

	if (geteuid()) {
		g_test_skip("needs root");
		return;
	}
	g_assert_cmpint(g_mkdir_with_parents(dir, 0777), ==, 0);
	g_assert_cmpint(chown(dir, 65534, 65534), ==, 0);
	g_assert_cmpint(ctl_dir_claim("evil", &d, &e), ==, -EPERM);
	g_assert_nonnull(strstr(e.cause, "not a folder of this user"));
}

/* What the "VM" of a detached run does; returns its exit status. */
static int detached(const char *how)
{
	struct ctl_dir *d;
	int status, r = ctl_detach("det", &status, NULL);

	if (r > 0)
		return status;
	if (r < 0)
		return 99;
	if (getsid(0) != getpid())
		_exit(50);
	if (!strcmp(how, "fails")) {
		fprintf(stderr, "it went wrong\n");
		_exit(6);
	}
	if (!strcmp(how, "killed"))
		kill(getpid(), SIGKILL);
	if (ctl_dir_claim("det", &d, NULL))
		_exit(51);
	fprintf(stderr, "before\n");
	if (!ctl_detached())
		_exit(52);
	ctl_detach_running();
	if (ctl_detached())
		_exit(53);
	printf("after\n");
	fflush(stdout);
	fprintf(stderr, "and error\n");
	g_usleep(300000);
	ctl_dir_release(d);
	_exit(0);
}

static void detach(void)
{
	static const struct {
		const char *how;
		int status;
	} c[] = { { "runs", 0 }, { "fails", 6 }, { "killed", 99 } };

	for (unsigned i = 0; i < G_N_ELEMENTS(c); i++) {
		int p[2], st;
		char out[4096] = "";
		ssize_t n;
		size_t at = 0;

		g_assert_cmpint(pipe2(p, O_CLOEXEC), ==, 0);
		pid_t pid = fork();

		if (!pid) {
			dup2(p[1], 1);
			dup2(p[1], 2);
			close(p[0]);
			close(p[1]);
			_exit(detached(c[i].how));
		}
		close(p[1]);
		/* The end of the pipe comes although the child runs on: it has given the terminal back. */
		while ((n = read(p[0], out + at, sizeof(out) - 1 - at)) > 0)
			at += (size_t)n;
		close(p[0]);
		g_assert_cmpint(waitpid(pid, &st, 0), ==, pid);
		g_assert_cmpint(WEXITSTATUS(st), ==, c[i].status);
		if (!i) {
			g_autofree char *path = in_state("det", "log"), *text = NULL;
			struct stat log;

			g_assert_cmpstr(out, ==, "before\n");
			for (int k = 0; k < 100; k++) {
				g_clear_pointer(&text, g_free);
				g_file_get_contents(path, &text, NULL, NULL);
				if (text && strstr(text, "and error"))
					break;
				g_usleep(2000);
			}
			g_assert_cmpstr(text, ==, "after\nand error\n");
			g_assert_cmpint(stat(path, &log), ==, 0);
			g_assert_cmpint(log.st_mode & 0777, ==, 0600);
		} else if (i == 1) {
			g_assert_cmpstr(out, ==, "it went wrong\n");
		}
	}
	for (int k = 0; k < 1000 && exists("det", NULL); k++)
		g_usleep(5000);
	g_assert_false(exists("det", NULL));
}

int main(int argc, char **argv)
{
	g_autofree char *root = NULL, *rm = NULL;
	int r;

	g_test_init(&argc, &argv, NULL);
	alarm(100);
	root = g_dir_make_tmp("vhost-dir-XXXXXX", NULL);
	g_setenv("VHOST_ROOT", root, TRUE);
	g_test_add_func("/dir/claimed-once", claim);
	g_test_add_func("/dir/taken-over-from-the-dead", taken_over);
	g_test_add_func("/dir/kept-by-forked-children", child_keeps);
	g_test_add_func("/dir/raced-for", raced);
	g_test_add_func("/dir/foreign-folder-is-refused", foreign_folder);
	g_test_add_func("/detach/running-failing-killed", detach);
	r = g_test_run();
	rm = g_strdup_printf("rm -rf '%s'", root);
	return system(rm) ? 1 : r;
}
