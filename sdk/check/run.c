/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* Runs one check: in a forked child with a deadline, or in this process for a debugger. */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "check.h"

#define DEADLINE 20

/* How the check that runs now reports: over a pipe from a child, or by a jump. */
static int report_fd = -1;
static jmp_buf back;
static struct check_outcome *here;

struct message {
	int result;
	char text[2048];
};

static void report(enum check_result r, const char *fmt, va_list ap) __attribute__((noreturn));
static void report(enum check_result r, const char *fmt, va_list ap)
{
	struct message m = {.result = r};

	vsnprintf(m.text, sizeof(m.text), fmt, ap);
	if (report_fd >= 0) {
		/* The process ends at once: a plugin's exit handlers are not part of the check. */
		if (write(report_fd, &m, sizeof(m)) != sizeof(m))
			_exit(3);
		_exit(0);
	}
	here->result = r;
	g_strlcpy(here->text, m.text, sizeof(here->text));
	longjmp(back, 1);
}

void check_fail(struct check_ctx *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	report(CHECK_FAILED, fmt, ap);
}

void check_skip(struct check_ctx *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	report(CHECK_SKIPPED, fmt, ap);
}

static void pass(struct check_ctx *c, const char *fmt, ...) __attribute__((noreturn, format(printf, 2, 3)));
static void pass(struct check_ctx *c, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	report(CHECK_PASS, fmt, ap);
}

static void remove_tree(const char *path)
{
	GDir *d = g_dir_open(path, 0, NULL);
	const char *n;

	while (d && (n = g_dir_read_name(d))) {
		g_autofree char *p = g_build_filename(path, n, NULL);

		if (g_file_test(p, G_FILE_TEST_IS_DIR) && !g_file_test(p, G_FILE_TEST_IS_SYMLINK))
			remove_tree(p);
		else
			unlink(p);
	}
	if (d)
		g_dir_close(d);
	rmdir(path);
}

static double seconds_since(const struct timespec *t)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - t->tv_sec) + (double)(now.tv_nsec - t->tv_nsec) / 1e9;
}

/* The child: output goes to the memfd, the result to the pipe. */
static void child(const struct check *k, struct check_ctx *c, int fd, int out) __attribute__((noreturn));
static void child(const struct check *k, struct check_ctx *c, int fd, int out)
{
	int null = open("/dev/null", O_RDONLY);

	setpgid(0, 0); /* what it starts is ended with it */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* a crash is a result, not a core file */
	report_fd = fcntl(fd, F_DUPFD_CLOEXEC, 200);
	dup2(null, 0);
	dup2(out, 1);
	dup2(out, 2);
	for (int i = 3; i < 64; i++) /* what it has open is known */
		close(i);
	g_setenv("VHOST_ROOT", c->tmp, 1); /* nothing of this machine's own configuration or state */
	k->fn(c);
	pass(c, "%s", "");
}

static void read_output(int fd, struct check_outcome *o)
{
	off_t end = lseek(fd, 0, SEEK_END), from = end > (off_t)sizeof(o->output) - 1 ? end - (off_t)sizeof(o->output) + 1 : 0;
	ssize_t n = pread(fd, o->output, sizeof(o->output) - 1, from);

	o->output[n > 0 ? n : 0] = 0;
}

static void judge(struct check_outcome *o, const struct message *m, ssize_t got, int status, int timed_out, unsigned limit)
{
	if (timed_out) {
		o->result = CHECK_TIMEOUT;
		snprintf(o->text, sizeof(o->text), "it hung: not done after %u s", limit);
	} else if (WIFSIGNALED(status)) {
		o->result = CHECK_CRASHED;
		snprintf(o->text, sizeof(o->text), "it crashed: %s", strsignal(WTERMSIG(status)));
	} else if (got != sizeof(*m) || WEXITSTATUS(status)) {
		o->result = CHECK_CRASHED;
		snprintf(o->text, sizeof(o->text), "it ended the process with exit status %d%s", WEXITSTATUS(status),
			 got == sizeof(*m) ? " (errors that a tool found)" : "");
	} else {
		o->result = (enum check_result)m->result;
		memcpy(o->text, m->text, sizeof(o->text));
		o->text[sizeof(o->text) - 1] = 0;
	}
}

static void run_forked(const struct check *k, struct check_ctx *c, struct check_outcome *o)
{
	unsigned limit = k->seconds ? k->seconds : DEADLINE;
	int out = memfd_create("output", MFD_CLOEXEC), p[2] = {-1, -1}, status = 0, timed_out;
	struct message m = {0};
	struct pollfd pf;
	ssize_t got = 0;
	pid_t pid;

	fflush(NULL);
	if (out < 0 || pipe2(p, O_CLOEXEC) < 0 || (pid = fork()) < 0) {
		o->result = CHECK_FAILED;
		snprintf(o->text, sizeof(o->text), "the kit itself failed: %s", strerror(errno));
		goto out;
	}
	if (!pid)
		child(k, c, p[1], out);
	setpgid(pid, pid);
	close(p[1]);
	p[1] = -1;
	pf = (struct pollfd){.fd = p[0], .events = POLLIN};
	timed_out = poll(&pf, 1, (int)limit * 1000) == 0;
	if (!timed_out)
		got = read(p[0], &m, sizeof(m));
	if (timed_out)
		kill(-pid, SIGKILL);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	kill(-pid, SIGKILL); /* what it left behind */
	judge(o, &m, got, status, timed_out, limit);
	read_output(out, o);
out:
	for (unsigned i = 0; i < 2; i++)
		if (p[i] >= 0)
			close(p[i]);
	if (out >= 0)
		close(out);
}

void check_run(const struct check *k, const struct check_ctx *base, int in_process, struct check_outcome *o)
{
	struct check_ctx *c = g_memdup2(base, sizeof(*base));
	struct timespec t;

	memset(o, 0, sizeof(*o));
	clock_gettime(CLOCK_MONOTONIC, &t);
	/* Each check has random numbers of its own, so that --only repeats what a whole run did. */
	c->random = c->seed ^ g_str_hash(k->id) * UINT64_C(0x9e3779b97f4a7c15);
	c->tmp = g_dir_make_tmp("vhost-check-XXXXXX", NULL);
	if (!c->tmp) {
		o->result = CHECK_FAILED;
		g_strlcpy(o->text, "the kit itself failed: no temporary folder", sizeof(o->text));
	} else if (k->kinds && !(c->note.kinds & k->kinds)) {
		g_autofree char *kinds = plug_kinds_text(k->kinds);

		o->result = CHECK_SKIPPED;
		snprintf(o->text, sizeof(o->text), "not a %s plugin", kinds);
	} else if (in_process) {
		here = o;
		if (!setjmp(back)) {
			k->fn(c);
			o->result = CHECK_PASS;
		}
		here = NULL;
	} else {
		run_forked(k, c, o);
	}
	o->seconds = seconds_since(&t);
	if (c->tmp)
		remove_tree(c->tmp);
	g_free(c->tmp);
	g_free(c);
}

const char *check_result_name(enum check_result r)
{
	static const char *const names[] = {"pass", "fail", "skip", "crash", "timeout"};

	return names[r];
}
