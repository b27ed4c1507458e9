/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The requests of one queue over its session.
 *
 * All that was accepted and has not ended is in one list, in the order in which it came. When the session is lost everything in
 * the list waits; with the next session it is sent in that order, before anything newer. A write may so be done twice, but never
 * after one that was sent later: the session before is ended by the target before the next one begins (volume.c, nexus_for).
 *
 * A request that is too old fails, but only when nothing can be done for it any more: the session goes first. What it was
 * to write the target may still have in its hands until the next session of this nexus has begun; until then no queue of the
 * volume sends modifications ("unfenced").
 */
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include "queue.h"

#define LATER_FIRST (50 * MSEC)
#define CONNECTS 5
#define TRIES_MAX 64         /* unit attentions, busy: in a row, of one request */

struct queue_fix *queue_fix(struct queue *q)
{
	return &q->fix;
}

struct volume *queue_volume(struct queue *q)
{
	return q->v;
}

unsigned queue_index(const struct queue *q)
{
	return q->index;
}

/* ---- sending ---- */

static void rq_cb(struct iscsi_context *ctx, int status, void *data, void *priv);

static void send_one(struct queue *q, struct rq *rq)
{
	rq->task = rq_task(q, rq);
	rq->state = RQ_SENT;
	rq->sent_once = 1;
	q->waiting--;
	gather_sent(q, rq->r, 1);
	if (!iscsi_scsi_command_async(q->s->ctx, q->v->lun.raw, rq->task, rq_cb, NULL, rq))
		return;
	gather_sent(q, rq->r, 0);
	task_put(q, rq->task);
	rq->task = NULL;
	rq->state = RQ_WAIT;
	q->waiting++;
	q->lost = 1;
}

static int may_send(const struct queue *q, const struct rq *rq)
{
	return !atomic_load_explicit(&q->v->lost, memory_order_relaxed) &&
	       (!rq_modifies(rq->r) || !atomic_load_explicit(&q->v->unfenced, memory_order_acquire));
}

void queue_send(struct queue *q, uint64_t now)
{
	for (struct rq *rq = q->head; rq && q->waiting && !q->lost; rq = rq->next)
		if (rq->state == RQ_WAIT && rq->not_before <= now && may_send(q, rq))
			send_one(q, rq);
}

/* What is gathered goes out as far as the socket takes it; then the loop says when it takes more. */
void queue_push(struct queue *q)
{
	uint32_t want;

	if (!q->s)
		return;
	if (!q->lost && iscsi_which_events(q->s->ctx) & POLLOUT && gather_push(q) < 0)
		q->lost = 1;
	if (q->lost) {
		queue_drop(q);
		return;
	}
	want = VH_IN | (iscsi_which_events(q->s->ctx) & POLLOUT ? VH_OUT : 0);
	if (want != q->events) {
		is_loop->watch_events(q->watch, want);
		q->events = want;
	}
}

void queue_arm(struct queue *q, uint64_t after)
{
	uint64_t at = is_loop->now(q->loop) + after;

	if (q->armed && q->armed <= at)
		return;
	q->armed = at;
	is_loop->timer_at(q->timer, at);
}

/* ---- ending ---- */

void queue_finish(struct queue *q, struct rq *rq, int res)
{
	if (rq->prev)
		rq->prev->next = rq->next;
	else
		q->head = rq->next;
	if (rq->next)
		rq->next->prev = rq->prev;
	else
		q->tail = rq->prev;
	if (rq->state == RQ_WAIT)
		q->waiting--;
	is_io->done(rq->r, res);
}

static void again(struct queue *q, struct rq *rq, uint64_t pause)
{
	rq->state = RQ_WAIT;
	q->waiting++;
	rq->not_before = pause ? is_loop->now(q->loop) + pause : 0;
	queue_arm(q, pause ? pause : TICK_DOWN);
}

static void rq_cb(struct iscsi_context *ctx, int status, void *data, void *priv)
{
	struct rq *rq = priv;
	struct queue *q = rq->q;
	struct scsi_task *t = rq->task;
	enum verdict verdict;
	int res = -EIO;

	(void)ctx, (void)data;
	if (!t || rq->state != RQ_SENT)
		return;
	rq->task = NULL;
	gather_sent(q, rq->r, 0);
	verdict = q->dropping ? V_RESYNC : sense_judge(q->v, rq->syncing ? VH_FLUSH : rq->r->op, status, t, &res);
	task_put(q, t);
	if ((verdict == V_AGAIN || verdict == V_LATER) && ++rq->tries > TRIES_MAX)
		verdict = V_DONE;
	if (rq->cancelled && (verdict == V_AGAIN || verdict == V_LATER)) { /* it was not done, and shall not be */
		res = -ECANCELED;
		verdict = V_DONE;
	}
	switch (verdict) {
	case V_DONE:
		if (!res && rq->r->op == VH_ZERO && rq->r->flags & VH_REQ_FUA && !rq->syncing) { /* durable only after this */
			rq->syncing = 1;
			again(q, rq, 0);
			if (!q->lost)
				send_one(q, rq);
			return;
		}
		queue_finish(q, rq, res);
		return;
	case V_AGAIN:
		again(q, rq, 0);
		if (!q->lost && may_send(q, rq))
			send_one(q, rq);
		return;
	case V_LATER:
		again(q, rq, LATER_FIRST << (rq->tries < 5 ? rq->tries : 5));
		return;
	case V_LOST:
		volume_lost(q->v, "another host has taken its reservation");
		/* fallthrough */
	case V_RESYNC:
		q->lost = 1; /* whoever drives the session drops it */
		again(q, rq, 0);
	}
}

/* ---- losing a session, and having one again ---- */

void queue_drop(struct queue *q)
{
	struct session *s = q->s;

	if (!s)
		return;
	is_loop->unwatch(q->watch);
	q->watch = NULL;
	q->s = NULL;
	q->looking = 0;
	q->dropping = 1;
	session_close(s, 0); /* every command comes back, and no buffer is touched any more */
	q->dropping = 0;
	for (struct rq *rq = q->head; rq; rq = rq->next)
		if (rq->state == RQ_SENT) {
			if (rq->task) {
				gather_sent(q, rq->r, 0);
				task_put(q, rq->task);
			}
			rq->task = NULL;
			again(q, rq, 0);
		}
	for (struct rq *rq = q->head, *next; rq; rq = next) {
		next = rq->next;
		if (rq->cancelled)
			queue_give_up(q, rq);
	}
	q->lost = 0;
	volume_down(q->v);
	fixer_want(q);
	queue_arm(q, TICK_DOWN);
}

static void on_socket(void *ctx, uint32_t events)
{
	struct queue *q = ctx;
	int revents = (events & VH_IN ? POLLIN : 0) | (events & VH_OUT ? POLLOUT : 0);

	if (events & VH_IN)
		gather_heard(q);
	if (iscsi_service(q->s->ctx, revents) < 0)
		q->lost = 1;
	queue_push(q);
	gather_again(q);
}

static int adopt(struct queue *q, struct session *s)
{
	q->s = s;
	q->heard = is_loop->now(q->loop);
	q->pinged = 0;
	q->lowat = 1;
	q->fast = 0;
	q->events = VH_IN;
	q->lost = 0;
	return is_loop->watch(q->loop, iscsi_get_fd(s->ctx), VH_IN, on_socket, q, &q->watch);
}

void queue_back(struct queue *q, struct session *s)
{
	if (adopt(q, s)) { /* no memory: once more, later */
		session_close(s, 0);
		q->s = NULL;
		fixer_want(q);
		return;
	}
	if (q->fenced_off) {
		q->fenced_off = 0;
		atomic_fetch_sub(&q->v->unfenced, 1);
	}
	volume_up(q->v);
	for (struct rq *rq = q->head; rq; rq = rq->next)
		rq->not_before = 0;
	queue_send(q, is_loop->now(q->loop));
	queue_push(q);
}

/* ---- the table's ---- */

uint32_t queue_submit(void *queue, struct vh_req *const *r, uint32_t n)
{
	struct queue *q = queue;
	uint64_t now = is_loop->now(q->loop);

	for (uint32_t i = 0; i < n; i++) {
		struct rq *rq = r[i]->ctx;
		const struct lun *l = &q->v->lun;

		if (r[i]->op == VH_ZERO && r[i]->flags & VH_REQ_FAST_ONLY && !(r[i]->flags & VH_REQ_MAY_UNMAP && l->write_same_unmap &&
									      l->zeroes_unmapped)) {
			is_io->done(r[i], -EOPNOTSUPP);
			continue;
		}
		if (r[i]->op < VH_READ || r[i]->op > VH_ZERO) {
			is_io->done(r[i], -EOPNOTSUPP);
			continue;
		}
		rq->next = NULL;
		rq->prev = q->tail;
		rq->r = r[i];
		rq->q = q;
		rq->task = NULL;
		rq->since = now;
		rq->not_before = 0;
		rq->state = RQ_WAIT;
		rq->sent_once = rq->syncing = rq->cancelled = 0;
		rq->tries = 0;
		if (q->tail)
			q->tail->next = rq;
		else
			q->head = rq;
		q->tail = rq;
		q->waiting++;
		if (q->s && !q->lost && may_send(q, rq))
			send_one(q, rq);
	}
	queue_push(q);
	gather_set(q);
	queue_arm(q, q->waiting ? TICK_DOWN : TICK);
	return n;
}

void queue_free(struct queue *q)
{
	while (q->n_tasks)
		scsi_free_scsi_task(q->tasks[--q->n_tasks]);
	free(q->tasks);
	free(q);
}

static int index_take(struct volume *v, unsigned *index)
{
	int ret = -EUSERS;

	pthread_mutex_lock(&v->lock);
	for (unsigned i = 0; i < v->pool->cfg.sessions && i < 64 && ret; i++)
		if (!(v->used >> i & 1)) {
			v->used |= UINT64_C(1) << i;
			*index = i;
			ret = 0;
		}
	pthread_mutex_unlock(&v->lock);
	return ret;
}

static void index_give(struct volume *v, unsigned index)
{
	pthread_mutex_lock(&v->lock);
	v->used &= ~(UINT64_C(1) << index);
	pthread_mutex_unlock(&v->lock);
}

int queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **out, struct vh_err *e)
{
	struct volume *v = vol;
	struct queue *q = calloc(1, sizeof(*q));
	struct why w = {0};
	int ret = 0;

	(void)hq;
	if (!q)
		return is_host->err(e, -ENOMEM, "no memory");
	q->v = v;
	q->depth = depth;
	q->fix.refs = 1;
	q->tasks = calloc(depth, sizeof(*q->tasks));
	while (q->tasks && q->n_tasks < depth) {
		uint8_t cdb[16] = {0};

		q->tasks[q->n_tasks] = scsi_create_task(sizeof(cdb), cdb, SCSI_XFER_NONE, 0);
		if (!q->tasks[q->n_tasks])
			break;
		q->n_tasks++;
	}
	if (!q->tasks || q->n_tasks < depth)
		ret = why_set(&w, -ENOMEM, "no memory");
	if (!ret && index_take(v, &q->index))
		ret = why_set(&w, -EUSERS, "%s has no more than %u sessions (the pool's option sessions)", v->name, v->pool->cfg.sessions);
	if (ret) {
		queue_free(q);
		return is_fail(e, ret, &w);
	}
	ret = fixer_start(v);
	/* What is left at the target of a session before may end this one as it begins. */
	for (int i = 0; !ret && i < CONNECTS && !q->s; i++) {
		struct why once = {0};
		int r = volume_connect(v, q->index, -1, &q->s, &once);

		if (r != -ECONNRESET || i == CONNECTS - 1) {
			ret = r;
			w = once;
		} else {
			poll(NULL, 0, 50);
		}
	}
	if (ret) {
		if (q->index)
			why_remedy(&w, "if the target allows fewer sessions, set the pool's option sessions");
		index_give(v, q->index);
		queue_free(q);
		return is_fail(e, ret, &w);
	}
	*out = q;
	return 0;
}

int queue_start(void *queue, struct vh_loop *l)
{
	struct queue *q = queue;
	int ret;

	q->loop = l;
	q->looked = is_loop->now(l);
	ret = is_loop->timer(l, queue_tick, q, &q->timer);
	if (!ret)
		ret = is_loop->timer(l, gather_guard, q, &q->guard);
	if (!ret)
		ret = adopt(q, q->s);
	if (!ret)
		queue_arm(q, TICK);
	return ret;
}

void queue_close(void *queue)
{
	struct queue *q = queue;
	struct volume *v = q->v;
	struct session *s;
	int last;

	if (q->watch)
		is_loop->unwatch(q->watch);
	if (q->timer)
		is_loop->timer_free(q->timer);
	if (q->guard)
		is_loop->timer_free(q->guard);
	q->dropping = 1; /* a ping or a look may be under way, and ends with the session */
	if (!q->s)
		volume_up(v);
	if (q->fenced_off)
		atomic_fetch_sub(&v->unfenced, 1);
	pthread_mutex_lock(&v->lock);
	q->fix.closed = 1;
	pthread_mutex_unlock(&v->lock);
	s = atomic_exchange(&q->fix.fresh, NULL);
	session_close(s, 0);
	session_close(q->s, 0);
	index_give(v, q->index);
	pthread_mutex_lock(&v->lock);
	last = !--q->fix.refs;
	pthread_mutex_unlock(&v->lock);
	if (last)
		queue_free(q);
}
