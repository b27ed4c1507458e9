/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The thread of a volume that gets new sessions for queues that have lost theirs: connecting, logging in and looking whether it is
 * still the same LUN all take answers, for which a queue cannot wait. One at a time: while the target is away each attempt stands
 * for all, and once it is back they take no time. A queue may be closed meanwhile; whoever refers to it last frees it.
 */
#include <stdio.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "iscsi.h"

#define PAUSE_FIRST (50 * MSEC)
#define PAUSE_MAX (2 * SECOND)
#define TELL_EVERY (60 * SECOND)

static void unref(struct queue *q)
{
	if (!--queue_fix(q)->refs)
		queue_free(q);
}

static void put_last(struct volume *v, struct queue *q)
{
	struct queue **at = &v->fix;

	while (*at)
		at = &queue_fix(*at)->next;
	queue_fix(q)->next = NULL;
	*at = q;
}

void fixer_want(struct queue *q)
{
	struct volume *v = queue_volume(q);
	struct queue_fix *f = queue_fix(q);

	pthread_mutex_lock(&v->lock);
	if (!f->wanted) {
		f->wanted = 1;
		f->refs++;
		f->since = is_now();
		f->told = 0;
		put_last(v, q);
		pthread_cond_signal(&v->cond);
	}
	pthread_mutex_unlock(&v->lock);
}

/* Under the lock, which it lets go meanwhile. 1: q has a session, or needs none. */
static int attempt(struct volume *v, struct queue *q)
{
	struct queue_fix *f = queue_fix(q);
	struct session *s = NULL;
	struct why w = {0};
	uint64_t now;
	int ret;

	if (f->closed || atomic_load(&v->lost))
		return 1;
	pthread_mutex_unlock(&v->lock);
	ret = volume_connect(v, queue_index(q), v->stop_fd, &s, &w);
	if (ret == -ESTALE || (ret == -EBUSY && v->reserved))
		volume_lost(v, w.text);
	pthread_mutex_lock(&v->lock);
	if (!ret) {
		is_note("%s of %s: session %u is back", v->name, v->pool->cfg.target, queue_index(q));
		if (f->closed)
			session_close(s, 0);
		else
			atomic_store(&f->fresh, s);
		return 1;
	}
	now = is_now();
	if (ret != -ECANCELED && now - f->since > SECOND && (!f->told || now - f->told > TELL_EVERY)) {
		f->told = now;
		is_warn("%s of %s: the target is lost, requests wait: %s", v->name, v->pool->cfg.target, w.text);
	}
	return f->closed || atomic_load(&v->lost);
}

static void *run(void *arg)
{
	struct volume *v = arg;
	uint64_t pause = PAUSE_FIRST;

	pthread_mutex_lock(&v->lock);
	while (!v->stopping) {
		struct queue *q = v->fix;
		struct pollfd p = {.fd = v->stop_fd, .events = POLLIN};

		if (!q) {
			pthread_cond_wait(&v->cond, &v->lock);
			continue;
		}
		v->fix = queue_fix(q)->next;
		if (attempt(v, q)) {
			queue_fix(q)->wanted = 0;
			unref(q);
			pause = PAUSE_FIRST;
			continue;
		}
		put_last(v, q);
		pthread_mutex_unlock(&v->lock);
		poll(&p, 1, (int)(pause / MSEC));
		pause = pause * 2 < PAUSE_MAX ? pause * 2 : PAUSE_MAX;
		pthread_mutex_lock(&v->lock);
	}
	while (v->fix) {
		struct queue *q = v->fix;

		v->fix = queue_fix(q)->next;
		unref(q);
	}
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

int fixer_start(struct volume *v)
{
	sigset_t all, old;
	int ret = 0;

	if (v->running)
		return 0;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&v->thread, NULL, run, v);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (!ret) {
		v->running = 1;
		pthread_setname_np(v->thread, "iscsi-fixer");
	}
	return -ret;
}

void fixer_stop(struct volume *v)
{
	uint64_t one = 1;

	if (!v->running)
		return;
	pthread_mutex_lock(&v->lock);
	v->stopping = 1;
	pthread_cond_signal(&v->cond);
	pthread_mutex_unlock(&v->lock);
	if (write(v->stop_fd, &one, sizeof(one)) < 0) /* it cannot be full */
		is_warn("eventfd: %s", strerror(errno));
	pthread_join(v->thread, NULL);
	v->running = 0;
}
