/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What time does to a queue: new sessions are taken up, silence is noticed, old requests fail, sizes are looked at. */
#include <string.h>
#include "queue.h"

#define SILENCE (5 * SECOND) /* then a ping, and after as much again the session counts as lost */

static void ping_cb(struct iscsi_context *ctx, int status, void *data, void *priv)
{
	(void)ctx, (void)status, (void)data, (void)priv; /* hearing anything at all is enough */
}

static void look_cb(struct iscsi_context *ctx, int status, void *data, void *priv)
{
	struct queue *q = priv;
	struct scsi_task *t = data;
	uint64_t bytes;
	int res;

	(void)ctx;
	q->looking = 0;
	if (!t)
		return;
	/* Another size, or a unit attention about it or about the LUN itself. */
	if (!q->dropping && status == SCSI_STATUS_GOOD)
		q->lost |= !lun_size(t->datain.data, t->datain.size > 0 ? (size_t)t->datain.size : 0, q->v->lun.block, &bytes) ||
			   bytes != atomic_load(&q->v->bytes);
	else if (!q->dropping && sense_judge(q->v, VH_READ, status, t, &res) == V_RESYNC)
		q->lost = 1;
	scsi_free_scsi_task(t);
}

/* A volume's first queue asks now and then for the size: not every target tells by itself, and an idle guest asks for nothing. */
static void look(struct queue *q, uint64_t now)
{
	uint8_t cdb[16] = {SCSI_OPCODE_SERVICE_ACTION_IN, SCSI_READCAPACITY16, [13] = 32};
	struct scsi_task *t;

	if (q->looking || now - q->looked < LOOK_EVERY)
		return;
	q->looked = now;
	t = scsi_create_task(sizeof(cdb), cdb, SCSI_XFER_READ, 32);
	if (!t)
		return;
	q->looking = 1;
	if (iscsi_scsi_command_async(q->s->ctx, q->v->lun.raw, t, look_cb, NULL, q) < 0) {
		scsi_free_scsi_task(t);
		q->looking = 0;
		q->lost = 1;
	}
}

static void watch_silence(struct queue *q, uint64_t now)
{
	int sent = q->looking;

	for (struct rq *rq = q->head; rq && !sent; rq = rq->next)
		sent = rq->state == RQ_SENT && now - rq->since > SILENCE;
	if (!sent || now - q->heard < SILENCE)
		return;
	if (q->pinged <= q->heard) {
		q->pinged = now;
		if (iscsi_nop_out_async(q->s->ctx, ping_cb, NULL, 0, NULL) < 0)
			q->lost = 1;
	} else if (now - q->pinged > SILENCE) {
		is_warn("%s of %s: the target does not answer", q->v->name, q->v->pool->cfg.target);
		q->lost = 1;
	}
}

/* What a lost session was sent may still be done: no modifications until its successor has begun. */
static void fence(struct queue *q)
{
	if (q->fenced_off || atomic_load(&q->v->lost))
		return;
	q->fenced_off = 1;
	atomic_fetch_add(&q->v->unfenced, 1);
}

void queue_give_up(struct queue *q, struct rq *rq)
{
	if (atomic_load(&q->v->lost)) /* fail_old() has the reason */
		return;
	if (!q->s && rq->sent_once && rq_modifies(rq->r))
		fence(q);
	queue_finish(q, rq, -ECANCELED);
}

/*
 * What waits ends at once: nobody has its buffers. What is sent does not: the target may fill or read them, and whether it has done
 * it only the answer tells, or the end of the session.
 */
void queue_cancel(void *queue, struct vh_req *r)
{
	struct queue *q = queue;
	struct rq *rq = r->ctx;

	rq->cancelled = 1;
	if (rq->state == RQ_WAIT)
		queue_give_up(q, rq);
}

static void fail_old(struct queue *q, uint64_t now)
{
	uint64_t limit = q->v->pool->cfg.timeout;
	int lost = atomic_load(&q->v->lost), harm = 0, any = 0;

	for (struct rq *rq = q->head; rq; rq = rq->next)
		if (lost || (limit && now - rq->since >= limit)) {
			any = 1;
			harm |= rq->sent_once && rq_modifies(rq->r);
		}
	if (!any)
		return;
	queue_drop(q);
	if (harm)
		fence(q);
	for (struct rq *rq = q->head, *next; rq; rq = next) {
		next = rq->next;
		if (lost || (limit && now - rq->since >= limit))
			queue_finish(q, rq, lost ? -EIO : -ETIMEDOUT);
	}
}

void queue_tick(void *ctx)
{
	struct queue *q = ctx;
	int looks = !q->index && q->v->mode != VH_ATTACH_PEEK;
	uint64_t now = is_loop->now(q->loop);

	q->armed = 0;
	if (!q->s) {
		struct session *s = atomic_exchange(&q->fix.fresh, NULL);

		if (s)
			queue_back(q, s);
	}
	if (q->s) {
		if (q->waiting)
			queue_send(q, now);
		if (q->head || q->looking)
			watch_silence(q, now);
		if (looks && !q->lost)
			look(q, now);
		queue_push(q);
	}
	fail_old(q, now);
	if (!q->s || q->waiting)
		queue_arm(q, TICK_DOWN);
	else if (q->head || q->looking)
		queue_arm(q, TICK);
	else if (looks)
		queue_arm(q, LOOK_EVERY);
}
