/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "util/worker.h"

#include <glib.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>

#include "util/log.h"

/* Memory that is touched counts, and most work is a system call deep; sanitizers make frames several times larger. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_BYTES (1024 * 1024)
#else
#define STACK_BYTES (256 * 1024)
#endif
#define IDLE_SECONDS 5

struct worker_pool {
	pthread_mutex_t lock;
	pthread_cond_t more;  /* work came, or the pool ends */
	pthread_cond_t ended; /* n_threads fell */
	struct work *head, **tail;
	unsigned n_queued, n_idle, n_threads, max_threads;
	int closing, have_last;
	pthread_t last; /* ended, not joined: each ending thread joins the one before it, the pool the very last */
	char name[16];
};

static void *worker_main(void *arg)
{
	struct worker_pool *p = arg;
	struct timespec until;
	struct work *w;
	pthread_t before;
	int join, timed_out;

	pthread_setname_np(pthread_self(), p->name);
	pthread_mutex_lock(&p->lock);
	for (;;) {
		if (p->head) {
			w = p->head;
			p->head = w->next;
			if (!p->head)
				p->tail = &p->head;
			p->n_queued--;
			pthread_mutex_unlock(&p->lock);
			w->fn(w); /* w may be gone afterwards */
			pthread_mutex_lock(&p->lock);
			continue;
		}
		if (p->closing)
			break;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += IDLE_SECONDS;
		p->n_idle++;
		timed_out = pthread_cond_timedwait(&p->more, &p->lock, &until) == ETIMEDOUT;
		p->n_idle--;
		if (timed_out && !p->head)
			break;
	}
	join = p->have_last;
	before = p->last;
	p->last = pthread_self();
	p->have_last = 1;
	pthread_mutex_unlock(&p->lock);
	if (join)
		pthread_join(before, NULL); /* it is at its end already */
	pthread_mutex_lock(&p->lock);
	p->n_threads--;
	pthread_cond_broadcast(&p->ended);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* With the lock held. */
static int thread_start(struct worker_pool *p)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t t;
	int r;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old); /* inherited from the first instruction on */
	p->n_threads++;
	r = pthread_create(&t, &attr, worker_main, p);
	if (r)
		p->n_threads--;
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

int worker_pool_new(const char *name, unsigned max_threads, struct worker_pool **out, struct vh_err *e)
{
	struct worker_pool *p;
	pthread_condattr_t attr;

	if (!max_threads)
		return err_set(e, -EINVAL, "a worker pool needs a thread");
	p = g_try_new0(struct worker_pool, 1);
	if (!p)
		return err_set(e, -ENOMEM, "no memory for a worker pool");
	pthread_mutex_init(&p->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&p->more, &attr);
	pthread_cond_init(&p->ended, &attr);
	pthread_condattr_destroy(&attr);
	p->tail = &p->head;
	p->max_threads = max_threads;
	g_strlcpy(p->name, name, sizeof(p->name));
	*out = p;
	return 0;
}

void worker_submit(struct worker_pool *p, struct work *w)
{
	int alone;

	w->next = NULL;
	pthread_mutex_lock(&p->lock);
	*p->tail = w;
	p->tail = &w->next;
	p->n_queued++;
	if (p->n_queued > p->n_idle && p->n_threads < p->max_threads)
		thread_start(p); /* when that fails, those that run will come to it */
	else
		pthread_cond_signal(&p->more);
	alone = !p->n_threads;
	if (alone) {
		/* No thread at all can be had: late is better than never, so the caller does the work itself. */
		p->head = NULL;
		p->tail = &p->head;
		p->n_queued = 0;
	}
	pthread_mutex_unlock(&p->lock);
	if (alone) {
		log_warn("worker", "%s: no thread can be started; the work blocks its caller", p->name);
		w->fn(w);
	}
}

void worker_pool_free(struct worker_pool *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lock);
	p->closing = 1;
	pthread_cond_broadcast(&p->more);
	while (p->n_threads)
		pthread_cond_wait(&p->ended, &p->lock);
	pthread_mutex_unlock(&p->lock);
	if (p->have_last)
		pthread_join(p->last, NULL);
	pthread_cond_destroy(&p->more);
	pthread_cond_destroy(&p->ended);
	pthread_mutex_destroy(&p->lock);
	g_free(p);
}
