/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
#include <dirent.h>
#include <fcntl.h>
#include <fenv.h>
#include <glib.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "state.h"

extern char **environ;

static unsigned count_threads(void)
{
	DIR *d = opendir("/proc/self/task");
	struct dirent *e;
	unsigned n = 0;

	while (d && (e = readdir(d)))
		n += e->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

void state_take(struct state *s)
{
	const char *l = setlocale(LC_ALL, NULL);

	memset(s, 0, sizeof(*s));
	s->threads = count_threads();
	for (int i = 0; i < STATE_FDS; i++)
		s->fd[i] = fcntl(i, F_GETFD) >= 0;
	for (int i = 1; i < STATE_SIGNALS; i++) {
		struct sigaction sa;

		if (sigaction(i, NULL, &sa) < 0)
			continue;
		s->action[i].handler = sa.sa_flags & SA_SIGINFO ? (void *)sa.sa_sigaction : (void *)sa.sa_handler;
		s->action[i].flags = sa.sa_flags;
	}
	sigprocmask(SIG_BLOCK, NULL, &s->mask);
	s->umask = umask(0);
	umask(s->umask);
	if (!getcwd(s->cwd, sizeof(s->cwd)))
		s->cwd[0] = 0;
	g_strlcpy(s->locale, l ? l : "", sizeof(s->locale));
	for (unsigned i = 0; environ && environ[i]; i++)
		s->environment = s->environment * 31 + g_str_hash(environ[i]);
	for (int i = 0; i < STATE_LIMITS; i++)
		getrlimit(i, &s->limit[i]);
	s->rounding = fegetround();
}

static char *fd_target(int fd)
{
	g_autofree char *link = g_strdup_printf("/proc/self/fd/%d", fd);
	char to[256];
	ssize_t n = readlink(link, to, sizeof(to) - 1);

	to[n > 0 ? n : 0] = 0;
	return g_strdup(to);
}

char *state_diff(const struct state *a, const struct state *b)
{
	if (a->threads != b->threads)
		return g_strdup_printf("%u threads became %u", a->threads, b->threads);
	for (int i = 0; i < STATE_FDS; i++)
		if (a->fd[i] != b->fd[i])
			return b->fd[i] ? g_strdup_printf("fd %d was opened: %s", i, fd_target(i)) :
					  g_strdup_printf("fd %d was closed", i);
	for (int i = 1; i < STATE_SIGNALS; i++)
		if (a->action[i].handler != b->action[i].handler || a->action[i].flags != b->action[i].flags)
			return g_strdup_printf("the action of signal %d (%s)", i, strsignal(i));
	for (int i = 1; i < STATE_SIGNALS; i++)
		if (sigismember(&a->mask, i) != sigismember(&b->mask, i))
			return g_strdup_printf("signal %d (%s) was %s", i, strsignal(i),
					       sigismember(&b->mask, i) ? "blocked" : "unblocked");
	if (a->umask != b->umask)
		return g_strdup_printf("the umask, from %03o to %03o", a->umask, b->umask);
	if (strcmp(a->cwd, b->cwd))
		return g_strdup_printf("the working directory, to %s", b->cwd);
	if (strcmp(a->locale, b->locale))
		return g_strdup_printf("the locale, from %s to %s", a->locale, b->locale);
	if (a->environment != b->environment)
		return g_strdup("the environment");
	for (int i = 0; i < STATE_LIMITS; i++)
		if (a->limit[i].rlim_cur != b->limit[i].rlim_cur || a->limit[i].rlim_max != b->limit[i].rlim_max)
			return g_strdup_printf("resource limit %d", i);
	if (a->rounding != b->rounding)
		return g_strdup("the floating-point rounding mode");
	return NULL;
}
