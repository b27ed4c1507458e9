/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Calls of a format's plugin: on the queue's thread with NOWAIT first, and where that says -EAGAIN, the same call on a
 * meta worker of the layer. A layer whose plugin does not lock itself has one worker and a lock around everything.
 */
#include <stdlib.h>
#include "fmt/impl.h"

static void run_items(struct work *w)
{
	struct meta_runner *r = container_of(w, struct meta_runner, work);
	struct meta_sched *s = r->sched;

	pthread_mutex_lock(&s->lock);
	for (;;) {
		struct meta_item *m = NULL;

		for (int p = 0; p < META_PRIOS && !m; p++) {
			m = s->head[p];
			if (!m)
				continue;
			s->head[p] = m->next;
			if (!s->head[p])
				s->tail[p] = &s->head[p];
		}
		if (!m)
			break;
		pthread_mutex_unlock(&s->lock);
		m->fn(m);
		pthread_mutex_lock(&s->lock);
	}
	r->next = s->idle;
	s->idle = r;
	pthread_mutex_unlock(&s->lock);
}

int meta_init(struct meta_sched *s, struct worker_pool *pool, uint32_t threads)
{
	pthread_mutex_init(&s->lock, NULL);
	s->pool = pool;
	for (int p = 0; p < META_PRIOS; p++)
		s->tail[p] = &s->head[p];
	for (uint32_t t = 0; t < threads && t < 4; t++) {
		s->runner[t] = (struct meta_runner){.work.fn = run_items, .sched = s, .next = s->idle};
		s->idle = &s->runner[t];
	}
	return 0;
}

void meta_fini(struct meta_sched *s)
{
	pthread_mutex_destroy(&s->lock);
}

void meta_submit(struct meta_sched *s, struct meta_item *m, enum meta_prio prio)
{
	struct meta_runner *r;

	m->next = NULL;
	pthread_mutex_lock(&s->lock);
	*s->tail[prio] = m;
	s->tail[prio] = &m->next;
	r = s->idle;
	if (r)
		s->idle = r->next;
	pthread_mutex_unlock(&s->lock);
	if (r)
		worker_submit(s->pool, &r->work);
}

/* 0, or -EAGAIN. `shared`: the call changes nothing of the image. */
static int layer_lock(struct fmt_layer *l, int shared, int nowait)
{
	int r = 0;

	if (!l->lock_core)
		return 0;
	if (!nowait)
		r = pthread_rwlock_wrlock(&l->lock);
	else if (shared)
		r = pthread_rwlock_tryrdlock(&l->lock);
	else
		r = pthread_rwlock_trywrlock(&l->lock);
	return r ? -EAGAIN : 0;
}

static void layer_unlock(struct fmt_layer *l)
{
	if (l->lock_core)
		pthread_rwlock_unlock(&l->lock);
}

static int owes_commit(const struct vh_map *m)
{
	for (uint32_t k = 0; k < m->n && k < m->cap; k++)
		if (m->ext[k].flags & VH_EXT_COMMIT)
			return 1;
	return 0;
}

int meta_map(struct fmt_layer *l, struct vh_map *m, int nowait)
{
	int shared = m->op == VH_MAP_READ || m->op == VH_MAP_REPORT || (m->flags & VH_MAP_OVERWRITE_ONLY);
	struct vh_map asked;
	const char *why;
	int r;

	if (load_relaxed(&l->faulted))
		return -EIO;
	m->size = sizeof(*m);
	m->n = m->resv = 0;
	m->ctx = NULL;
	m->flags = nowait ? m->flags | VH_MAP_NOWAIT : m->flags & ~VH_MAP_NOWAIT;
	asked = *m;
	r = layer_lock(l, shared, nowait);
	if (r)
		return r;
	r = l->ops->map(l->img, m);
	asked.n = m->n; /* what was asked is ours, whatever the plugin wrote there */
	asked.ctx = m->ctx;
	*m = asked;
	if (r == 0) {
		why = fmt_validate(&l->rules, m);
		if (why) {
			layer_fault(l, why);
			if (l->ops->commit && owes_commit(m))
				l->ops->commit(l->img, m, -EIO, 0);
			r = -EIO;
		}
	} else if (r > 0 || r < -4095 || (r == -EAGAIN && !nowait)) {
		layer_fault(l, r == -EAGAIN ? "-EAGAIN from a call that may wait" : "a result that is no negative errno");
		r = -EIO;
	}
	layer_unlock(l);
	return r;
}

int meta_commit(struct fmt_layer *l, struct vh_map *m, int status, int nowait)
{
	int r = layer_lock(l, 0, nowait);

	if (r)
		return r;
	r = l->ops->commit(l->img, m, status, (uint32_t)nowait);
	layer_unlock(l);
	if (r == -EAGAIN && nowait)
		return r;
	if (r > 0 || r == -EAGAIN || r == -EUCLEAN || (r < 0 && status < 0)) {
		layer_fault(l, status < 0 ? "it could not take an allocation back" : "its mapping is damaged");
		r = -EIO;
	}
	if (r == 0 && status == 0)
		__atomic_add_fetch(&l->image->commit_seq, 1, __ATOMIC_SEQ_CST);
	return r;
}

static void answered(struct fmt_queue *q, struct note *n)
{
	struct req *r = container_of(n, struct req, note);

	r->waiting = WAIT_NO;
	r->answered = 1;
	req_step(r);
}

void req_answer(struct req *r, int result)
{
	r->result = result;
	r->note.fn = answered;
	note_push(r->q, &r->note);
}

void req_call(struct req *r, struct fmt_layer *l, void (*fn)(struct meta_item *m), enum meta_prio prio)
{
	r->waiting = WAIT_META;
	r->item_layer = l;
	r->item.fn = fn;
	meta_submit(&l->sched, &r->item, prio);
}

static void cpu_work(struct work *w)
{
	struct meta_item *m = container_of(w, struct meta_item, work);

	m->fn(m);
}

void req_call_cpu(struct req *r, void (*fn)(struct meta_item *m))
{
	r->waiting = WAIT_META;
	r->item.fn = fn;
	r->item.work.fn = cpu_work;
	worker_submit(r->q->image->cpu_pool, &r->item.work);
}

static void map_on_worker(struct meta_item *m)
{
	struct req *r = container_of(m, struct req, item);

	__atomic_add_fetch(&r->item_layer->map_calls, 1, __ATOMIC_RELAXED);
	req_answer(r, meta_map(r->item_layer, r->state == RS_MAP || (r->state == RS_WRITE) ? &r->map : &r->rd.map, 0));
}

int req_map(struct req *r, struct fmt_layer *l, struct vh_map *m)
{
	int res;

	count(&r->q->stats.map_calls, 1);
	res = meta_map(l, m, 1);
	if (res != -EAGAIN)
		return res;
	req_call(r, l, map_on_worker, META_MAP);
	return 1;
}

static void commit_on_worker(struct meta_item *m)
{
	struct req *r = container_of(m, struct req, item);

	req_answer(r, meta_commit(r->item_layer, &r->map, r->error ? (r->timed_out ? -ETIMEDOUT : r->error) : 0, 0));
}

int req_commit(struct req *r, int status)
{
	struct fmt_layer *l = r->q->image->layers[0];
	int res = meta_commit(l, &r->map, status, 1);

	count(&r->q->stats.commits, 1);
	if (res != -EAGAIN)
		return res;
	req_call(r, l, commit_on_worker, META_COMMIT);
	return 1;
}
