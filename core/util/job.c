/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "util/job.h"

#include <errno.h>
#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define UPDATE_NS UINT64_C(100000000)

/* What job_begin adds: the bar, and the signal that it took over. */
struct bar {
	char *title;
	uint64_t start_ns;
	int drawn; /* atomic */
	struct sigaction old;
};

static struct vh_job *interruptible; /* atomic: the job of the foreground, for the signal handler */

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

void job_progress(struct vh_job *j, uint64_t done, uint64_t total)
{
	uint64_t now, last;

	if (!j)
		return;
	__atomic_store_n(&j->done, done, __ATOMIC_RELAXED);
	__atomic_store_n(&j->total, total, __ATOMIC_RELAXED);
	if (!j->changed)
		return;
	now = now_ns();
	last = __atomic_load_n(&j->last_ns, __ATOMIC_RELAXED);
	if (now - last < UPDATE_NS)
		return;
	/* Of several threads one shows it. */
	if (__atomic_compare_exchange_n(&j->last_ns, &last, now, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		j->changed(j);
}

int job_cancelled(struct vh_job *j)
{
	return j && __atomic_load_n(&j->cancel, __ATOMIC_RELAXED);
}

const struct vh_job_ops job_service = {
	.size = sizeof(job_service),
	.progress = job_progress,
	.cancelled = job_cancelled,
};

static void bar_draw(struct vh_job *j)
{
	struct bar *b = j->user;
	uint64_t done = __atomic_load_n(&j->done, __ATOMIC_RELAXED), total = __atomic_load_n(&j->total, __ATOMIC_RELAXED);
	uint64_t seconds = (now_ns() - b->start_ns) / 1000000000;
	struct winsize ws = {0};
	char line[256], cells[41];
	unsigned width, full, percent;
	int n;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) < 0 || !ws.ws_col)
		ws.ws_col = 80;
	done = MIN(done, total ? total : done);
	percent = total ? (unsigned)((unsigned __int128)done * 100 / total) : 0;
	width = MIN(40u, ws.ws_col / 3u);
	full = width * percent / 100;
	memset(cells, '#', full);
	memset(cells + full, '.', width - full);
	cells[width] = '\0';
	if (total)
		n = snprintf(line, sizeof(line), "\r%.60s [%s] %3u%% %us\033[K", b->title, cells, percent, (unsigned)seconds);
	else
		n = snprintf(line, sizeof(line), "\r%.60s ... %us\033[K", b->title, (unsigned)seconds);
	if (n > 0 && write(STDERR_FILENO, line, MIN((size_t)n, sizeof(line) - 1)) > 0)
		__atomic_store_n(&b->drawn, 1, __ATOMIC_RELAXED);
}

/* Once: the second Ctrl-C has its usual meaning (SA_RESETHAND), for work that does not listen. */
static void on_interrupt(int sig)
{
	struct vh_job *j = __atomic_load_n(&interruptible, __ATOMIC_RELAXED);

	if (j)
		__atomic_store_n(&j->cancel, 1, __ATOMIC_RELAXED);
}

void job_begin(struct vh_job *j, const char *title, int quiet)
{
	struct sigaction sa = { .sa_handler = on_interrupt, .sa_flags = SA_RESETHAND | SA_RESTART };
	struct bar *b = g_new0(struct bar, 1);

	*j = (struct vh_job){ .user = b };
	b->title = g_strdup(title);
	b->start_ns = now_ns();
	j->last_ns = b->start_ns; /* short work shows nothing */
	if (!quiet && isatty(STDERR_FILENO))
		j->changed = bar_draw;
	__atomic_store_n(&interruptible, j, __ATOMIC_RELAXED);
	sigaction(SIGINT, &sa, &b->old);
}

void job_end(struct vh_job *j)
{
	struct bar *b = j->user;

	if (!b)
		return;
	sigaction(SIGINT, &b->old, NULL);
	__atomic_store_n(&interruptible, NULL, __ATOMIC_RELAXED);
	if (b->drawn && write(STDERR_FILENO, "\r\033[K", 4) < 0)
		b->drawn = 0;
	g_free(b->title);
	g_free(b);
	j->user = NULL;
	j->changed = NULL;
}
