/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Calls of librados that may block for as long as the cluster is away: on a thread of their own, waited for as long as was said. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "ceph.h"

struct wait {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	struct ceph_call *call;
	int ended, left;
};

static void wait_free(struct wait *w)
{
	pthread_cond_destroy(&w->cond);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

static void *run(void *arg)
{
	struct wait *w = arg;
	int left;

	w->call->fn(w->call);
	pthread_mutex_lock(&w->lock);
	w->ended = 1;
	left = w->left;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
	if (left) {
		w->call->gone(w->call);
		wait_free(w);
	}
	return NULL;
}

int ceph_bounded(struct ceph_pool *p, struct ceph_call *c, unsigned seconds)
{
	struct wait *w = calloc(1, sizeof(*w));
	pthread_condattr_t attr;
	struct timespec until;
	pthread_t t;
	int ended;

	if (w) {
		w->call = c;
		pthread_mutex_init(&w->lock, NULL);
		pthread_condattr_init(&attr);
		pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
		pthread_cond_init(&w->cond, &attr);
		pthread_condattr_destroy(&attr);
	}
	if (!w || pthread_create(&t, NULL, run, w)) {
		if (w)
			wait_free(w);
		c->fn(c); /* better late than never */
		return 1;
	}
	pthread_detach(t);
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += seconds;
	pthread_mutex_lock(&w->lock);
	while (!w->ended && !pthread_cond_timedwait(&w->cond, &w->lock, &until))
		;
	ended = w->ended;
	w->left = !ended;
	if (!ended)
		p->given_up++;
	pthread_mutex_unlock(&w->lock);
	if (ended)
		wait_free(w);
	return ended;
}

struct closing {
	struct ceph_call call;
	struct ceph_pool *pool;
	rbd_image_t image;
	char *id, *cookie;
};

int ceph_image_shut(struct ceph_pool *p, rbd_image_t image, const char *id, const char *cookie)
{
	int ret;

	if (cookie && *cookie)
		rbd_unlock(image, cookie);
	ret = rbd_close(image);
	if (id)
		ceph_record_drop(p, id);
	return ret;
}

static void closing_fn(struct ceph_call *call)
{
	struct closing *c = (struct closing *)call;

	call->result = ceph_image_shut(c->pool, c->image, c->id, c->cookie);
}

static void closing_gone(struct ceph_call *call)
{
	struct closing *c = (struct closing *)call;

	free(c->id);
	free(c->cookie);
	free(c);
}

void ceph_image_close(struct ceph_pool *p, rbd_image_t image, const char *id, const char *cookie)
{
	struct closing *c = calloc(1, sizeof(*c));

	if (!c) {
		rbd_close(image);
		return;
	}
	c->call.fn = closing_fn;
	c->call.gone = closing_gone;
	c->pool = p;
	c->image = image;
	c->id = id ? strdup(id) : NULL;
	c->cookie = cookie ? strdup(cookie) : NULL;
	/* Live, it takes milliseconds; on a dead cluster, some time limits one after the other. */
	if (!ceph_bounded(p, &c->call, 10)) {
		ceph_warn("the cluster does not answer: an image of pool %s is left behind unclosed", p->name);
		return;
	}
	closing_gone(&c->call);
}
