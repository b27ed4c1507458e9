/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Running lvm. It is a process group of its own, so that a Ctrl-C that ends us does not cut it in the middle, and goes on when
 * we are killed: what it has begun it finishes. Past the time limit, or when the job is cancelled, it is asked to end
 * (SIGTERM: lvm gives up waiting for its locks) and only then killed.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "lvm.h"

#define STEP_MS 50
#define GRACE_NS UINT64_C(3000000000)
#define STDERR_MAX 4096

extern char **environ;

static const char config[] = "log{report_command_log=1 command_log_selection=\"all\" prefix=\"\" verbose=0} report{output_format=\"json\" time_format=\"%s\" compact_output=0 binary_values_as_numeric=0} "
			     /* Of thin pools that are made: a full one answers, and does not let its users wait. */
			     "global{units=\"b\" suffix=0} activation{error_when_full=1}";

int lvm_cancelled(struct vh_job *j)
{
	return j && lvm_job && lvm_job->cancelled(j);
}

void lvm_progress(struct vh_job *j, uint64_t done, uint64_t total)
{
	if (j && lvm_job)
		lvm_job->progress(j, done, total);
}

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

/* The user's PATH may lack the folders of administrators' programs. */
static char *find_lvm(void)
{
	static const char *const at[] = {"/usr/sbin/lvm", "/sbin/lvm"};
	char *path = g_find_program_in_path("lvm");

	for (unsigned i = 0; !path && i < G_N_ELEMENTS(at); i++)
		if (!access(at[i], X_OK))
			path = g_strdup(at[i]);
	return path;
}

static char **environment(void)
{
	char **env = g_strdupv(environ);

	env = g_environ_setenv(env, "LC_ALL", "C", TRUE);
	env = g_environ_setenv(env, "LVM_SUPPRESS_FD_WARNINGS", "1", TRUE);
	env = g_environ_unsetenv(env, "LVM_REPORT_FD");
	return env;
}

static int spawn(char *const argv[], const char *program, pid_t *pid, int out[2], int err[2])
{
	posix_spawn_file_actions_t files;
	posix_spawnattr_t attr;
	sigset_t none, all;
	char **env;
	int ret;

	sigemptyset(&none);
	sigfillset(&all);
	posix_spawn_file_actions_init(&files);
	posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&files, out[1], 1);
	posix_spawn_file_actions_adddup2(&files, err[1], 2);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &all);
	posix_spawnattr_setpgroup(&attr, 0);
	env = environment();
	ret = -posix_spawn(pid, program, &files, &attr, argv, env);
	g_strfreev(env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&files);
	return ret;
}

struct child {
	pid_t pid;
	int out, err, status;
	GByteArray *text;
	char tail[STDERR_MAX + 1]; /* the end of standard error */
	size_t n_tail;
	int done, too_long;
};

static int drain(struct child *c, int fd)
{
	char buf[65536];
	ssize_t n = read(fd, buf, sizeof(buf));

	if (n < 0)
		return errno == EINTR || errno == EAGAIN;
	if (n > 0 && fd == c->out) {
		if (c->text->len + (size_t)n > LVM_ANSWER_MAX)
			c->too_long = 1;
		else
			g_byte_array_append(c->text, (const guint8 *)buf, (guint)n);
	} else if (n > 0) {
		size_t take = MIN((size_t)n, STDERR_MAX), keep = MIN(c->n_tail, STDERR_MAX - take);

		memmove(c->tail, c->tail + c->n_tail - keep, keep);
		memcpy(c->tail + keep, buf + n - take, take);
		c->n_tail = keep + take;
	}
	return n > 0;
}

/* Until it has ended: 0, or why it was ended: -ETIMEDOUT, -ECANCELED, -EFBIG. One that not even SIGKILL ends (it waits for a
 * device) is left alone. */
static int follow(struct child *c, uint64_t limit, struct vh_job *j)
{
	uint64_t end = now() + limit;
	int fds[2] = {c->out, c->err}, why = 0, ended = 0, signals = 0;

	while (!ended) {
		struct pollfd p[2] = {{fds[0], POLLIN, 0}, {fds[1], POLLIN, 0}};
		int open = fds[0] >= 0 || fds[1] >= 0, busy = 0;
		pid_t pid;

		poll(p, 2, open ? STEP_MS : 2);
		for (int i = 0; i < 2; i++)
			if (fds[i] >= 0 && p[i].revents) {
				busy = 1;
				if (!drain(c, fds[i]))
					fds[i] = -1;
			}
		/* Somebody that lvm has started may keep its pipes: the process itself counts. */
		pid = busy ? 0 : waitpid(c->pid, &c->status, WNOHANG);
		ended = pid == c->pid || (pid < 0 && errno != EINTR);
		if (!why)
			why = c->too_long ? -EFBIG : now() > end ? -ETIMEDOUT : lvm_cancelled(j) ? -ECANCELED : 0;
		if (why && !ended && (!signals || now() > end)) {
			if (signals == 2)
				break;
			kill(-c->pid, signals++ ? SIGKILL : SIGTERM);
			end = now() + GRACE_NS;
		}
	}
	for (int i = 0; i < 2; i++) /* what is left in the pipes */
		while (fds[i] >= 0) {
			struct pollfd p = {fds[i], POLLIN, 0};

			if (poll(&p, 1, 0) <= 0 || !drain(c, fds[i]))
				break;
		}
	return why;
}

static int start(struct child *c, char *const argv[], struct vh_err *e)
{
	g_autofree char *program = find_lvm();
	int out[2], err[2], ret;

	if (!program) {
		lvm_hint(e, "install lvm2");
		return lvm_fail(e, -ENOENT, "there is no program lvm");
	}
	if (pipe2(out, O_CLOEXEC) < 0)
		return lvm_fail(e, -errno, "cannot run lvm: %s", g_strerror(errno));
	if (pipe2(err, O_CLOEXEC) < 0) {
		ret = -errno;
		close(out[0]);
		close(out[1]);
		return lvm_fail(e, ret, "cannot run lvm: %s", g_strerror(-ret));
	}
	ret = spawn(argv, program, &c->pid, out, err);
	close(out[1]);
	close(err[1]);
	if (ret) {
		close(out[0]);
		close(err[0]);
		return lvm_fail(e, ret, "cannot run %s: %s", program, g_strerror(-ret));
	}
	fcntl(out[0], F_SETFL, O_NONBLOCK);
	fcntl(err[0], F_SETFL, O_NONBLOCK);
	c->out = out[0];
	c->err = err[0];
	return 0;
}

/* A command that failed without a word in its log: what it wrote to standard error, shown and not interpreted. */
static const char *last_words(struct child *c)
{
	GString *s = g_string_new(NULL);
	char *out = c->tail;
	const char *end;

	c->tail[c->n_tail] = 0;
	g_auto(GStrv) lines = g_strsplit(c->tail, "\n", 0);
	for (unsigned i = 0; lines[i] && s->len < 300; i++) {
		for (char *p = lines[i]; *p; p++)
			if ((unsigned char)*p < 0x20 || *p == 0x7f)
				*p = ' ';
		if (*g_strstrip(lines[i]))
			g_string_append_printf(s, "%s%s", s->len ? "; " : "", lines[i]);
	}
	g_utf8_validate(s->str, -1, &end);
	g_strlcpy(out, s->str, MIN((size_t)(end - s->str) + 1, sizeof(c->tail)));
	g_string_free(s, TRUE);
	return *out ? out : "it does not say why";
}

int lvm_runv(const struct lvm_pool *p, struct vh_job *j, const char *table, struct lvm_answer *out, struct vh_err *e,
	     const char *const *args)
{
	g_autoptr(GPtrArray) argv = g_ptr_array_new();
	struct child c = {0};
	struct lvm_answer a = {0};
	int ret;

	g_ptr_array_add(argv, (char *)"lvm");
	g_ptr_array_add(argv, (char *)args[0]);
	g_ptr_array_add(argv, (char *)"--config");
	g_ptr_array_add(argv, (char *)config);
	for (unsigned i = 1; args[i]; i++)
		g_ptr_array_add(argv, (char *)args[i]);
	g_ptr_array_add(argv, NULL);
	if (out)
		memset(out, 0, sizeof(*out));
	if (!table)
		lvm_forget(p);
	ret = start(&c, (char *const *)argv->pdata, e);
	if (ret)
		return ret;
	c.text = g_byte_array_new();
	ret = follow(&c, p->timeout, j);
	close(c.out);
	close(c.err);
	if (ret == -ETIMEDOUT) {
		lvm_hint(e, "see whether a device of the volume group hangs, or another lvm command holds the lock");
		lvm_fail(e, ret, "lvm %s has not ended within %u s", args[0], (unsigned)(p->timeout / 1000000000));
	} else if (ret == -ECANCELED) {
		lvm_fail(e, ret, "cancelled");
	} else if (ret) {
		lvm_fail(e, -EPROTO, "lvm %s answers more than %u MiB", args[0], LVM_ANSWER_MAX >> 20);
		ret = -EPROTO;
	} else if (WIFEXITED(c.status) && !WEXITSTATUS(c.status)) {
		ret = table ? lvm_answer_parse(&a, (const char *)c.text->data, c.text->len, table, e) : 0;
	} else {
		if (c.text->len && !lvm_answer_parse(&a, (const char *)c.text->data, c.text->len, NULL, NULL) && a.error)
			lvm_fail(e, -EIO, "lvm %s: %s", args[0], a.error);
		else if (WIFSIGNALED(c.status))
			lvm_fail(e, -EIO, "lvm %s was killed by signal %d", args[0], WTERMSIG(c.status));
		else
			lvm_fail(e, -EIO, "lvm %s: %s", args[0], last_words(&c));
		ret = -EIO;
	}
	g_byte_array_unref(c.text);
	if (!ret && out)
		*out = a;
	else
		lvm_answer_clear(&a);
	return ret;
}

int lvm_run(const struct lvm_pool *p, struct vh_job *j, const char *table, struct lvm_answer *out, struct vh_err *e, ...)
{
	g_autoptr(GPtrArray) args = g_ptr_array_new();
	const char *a;
	va_list ap;

	va_start(ap, e);
	while ((a = va_arg(ap, const char *)))
		g_ptr_array_add(args, (char *)a);
	va_end(ap);
	g_ptr_array_add(args, NULL);
	return lvm_runv(p, j, table, out, e, (const char *const *)args->pdata);
}
