/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The submit tier: a plugin moves the data. Slots with the plugin's scratch are made when the queue opens. Completions are
 * collected and delivered after the plugin's call has returned, so that a plugin is never entered from within itself.
 */
#include <stdlib.h>
#include <string.h>
#include "blk/blk-i.h"
#include "plug/plug.h"
#include "util/log.h"

#define BATCH 64

enum slot_state { SLOT_FREE, SLOT_HOST, SLOT_PLUGIN, SLOT_DONE };

struct blk_slot {
	struct vh_req req; /* first: what the plugin hands back */
	struct blk_slot *next;
	struct blk_vq *q;
	struct blk_unit *u;
	atomic_uint state;
	uint32_t resv;
};
_Static_assert(sizeof(struct blk_slot) % 16 == 0, "the scratch behind it is 16-aligned");

/* What plugins know as struct vh_queue is the blk_vq. */
struct tier {
	void *pq; /* the plugin's */
	struct blk_slot *free;
	uint8_t *slots;
	size_t stride;
	unsigned n;
};

static struct blk_slot *slot_at(const struct tier *t, unsigned i)
{
	return (struct blk_slot *)(t->slots + i * t->stride);
}

static void slot_fill(struct blk_slot *s, struct blk_unit *u)
{
	s->u = u;
	u->e.slot = s;
	s->req.op = u->op;
	s->req.flags = u->flags;
	s->req.off = u->off;
	s->req.len = u->len;
	s->req.iov = u->iov;
	s->req.niov = u->niov;
	atomic_store_explicit(&s->state, SLOT_PLUGIN, memory_order_relaxed);
}

static void slot_free(struct tier *t, struct blk_slot *s)
{
	atomic_store_explicit(&s->state, SLOT_FREE, memory_order_relaxed);
	s->next = t->free;
	t->free = s;
}

static void tier_send(struct blk_vq *q)
{
	struct tier *t = q->priv;
	struct vh_req *batch[BATCH];

	/* Those that had waited for others; a plugin that tries to get its storage back would keep them. */
	while (unlikely(atomic_load_explicit(&q->v->state, memory_order_relaxed) & BLK_LOST) && q->out) {
		struct blk_unit *u = blk_pop(q);

		u->dropped = 1;
		blk_finish(q, u, -EIO);
	}
	while (q->out && t->free && !q->blocked) {
		struct blk_slot *s;
		unsigned n = 0, k;

		while (n < BATCH && t->free && q->out) {
			s = t->free;
			t->free = s->next;
			slot_fill(s, blk_pop(q));
			batch[n++] = &s->req;
		}
		q->ready = 0;
		k = q->v->ops->submit(t->pq, batch, n);
		if (k > n) {
			log_warn("blk", "volume %s: the plugin took %u requests of %u", q->v->label, k, n);
			k = n;
		}
		if (k == n)
			continue;
		q->blocked = !q->ready; /* it may have called ready() meanwhile */
		while (n > k) {
			unsigned was = SLOT_PLUGIN;

			s = (struct blk_slot *)batch[--n];
			/* One that it completed all the same is on its way back already. */
			if (!atomic_compare_exchange_strong(&s->state, &was, SLOT_HOST)) {
				log_error("blk", "volume %s: the plugin completed a request that it did not take", q->v->label);
				continue;
			}
			s->u->e.slot = NULL;
			blk_unpop(q, s->u);
			slot_free(t, s);
		}
	}
}

/* Marks a slot as complete; 0 when it was not the plugin's to complete. */
static int slot_take(struct blk_slot *s, int *res)
{
	unsigned was = SLOT_PLUGIN;

	if (!atomic_compare_exchange_strong_explicit(&s->state, &was, SLOT_DONE, memory_order_relaxed, memory_order_relaxed)) {
		log_error("blk", "volume %s: the plugin completed a request twice", s->q->v->label);
		return 0;
	}
	if (unlikely(*res > 0 || *res < -4095)) {
		log_warn("blk", "volume %s: the plugin completed a request with %d", s->q->v->label, *res);
		*res = -EIO;
	} else if (!*res && s->u->op <= VH_WRITE) {
		*res = (int)s->u->len; /* all or nothing */
	}
	return 1;
}

static void io_done(struct vh_req *r, int res)
{
	struct blk_slot *s = (struct blk_slot *)r;

	if (slot_take(s, &res))
		blk_finish(s->q, s->u, res);
}

static void io_done_remote(struct vh_req *r, int res)
{
	struct blk_slot *s = (struct blk_slot *)r;

	if (slot_take(s, &res))
		blk_end_remote(s->q, s->u, res);
}

static void io_ready(struct vh_queue *hq)
{
	struct blk_vq *q = (struct blk_vq *)hq;

	q->ready = 1;
	q->blocked = 0;
	if (q->out && !q->sending)
		loop_defer(q->loop, &q->send_task);
}

const struct vh_io_ops blk_io_service = {
	.size = sizeof(blk_io_service), .done = io_done, .done_remote = io_done_remote, .ready = io_ready};

static void tier_ended(struct blk_vq *q, struct blk_unit *u)
{
	if (u->e.slot) /* it got as far as that */
		slot_free(q->priv, u->e.slot);
}

static void tier_cancel(struct blk_vq *q, struct blk_unit *u)
{
	struct tier *t = q->priv;

	if (u->e.slot && atomic_load(&u->e.slot->state) == SLOT_PLUGIN && q->v->ops->cancel)
		q->v->ops->cancel(t->pq, &u->e.slot->req);
}

static void tier_cancel_all(struct blk_vq *q)
{
	struct tier *t = q->priv;

	for (unsigned i = 0; q->v->ops->cancel && i < t->n; i++)
		if (atomic_load(&slot_at(t, i)->state) == SLOT_PLUGIN)
			q->v->ops->cancel(t->pq, &slot_at(t, i)->req);
}

static void tier_close(struct blk_vq *q)
{
	struct tier *t = q->priv;

	if (!t)
		return;
	if (t->pq)
		q->v->ops->queue_close(t->pq);
	blk_lower_close(q);
	free(t->slots);
	free(t);
	q->priv = NULL;
}

static int tier_open(struct blk_vq *q, struct vh_err *e)
{
	const struct vh_volume_ops *ops = q->v->ops;
	struct tier *t = calloc(1, sizeof(*t));
	int r;

	if (!t)
		return -ENOMEM;
	q->priv = t;
	t->n = q->cap;
	t->stride = (sizeof(struct blk_slot) + ops->req_ctx + 15) & ~(size_t)15;
	t->slots = aligned_alloc(16, t->n * t->stride);
	if (!t->slots) {
		tier_close(q);
		return -ENOMEM;
	}
	memset(t->slots, 0, t->n * t->stride);
	for (unsigned i = t->n; i-- > 0;) {
		struct blk_slot *s = slot_at(t, i);

		s->q = q;
		s->req.size = sizeof(s->req);
		s->req.ctx = s + 1;
		slot_free(t, s);
	}
	q->ended = tier_ended;
	r = ops->queue_open(q->v->vol, (struct vh_queue *)q, t->n, &t->pq, e);
	if (r) {
		t->pq = NULL;
		tier_close(q);
		return r < 0 ? r : -EIO;
	}
	r = ops->queue_start(t->pq, q->loop);
	if (r) {
		tier_close(q);
		return r < 0 ? r : -EIO;
	}
	return 0;
}

const struct blk_backend blk_submit_tier = {
	.name = "submit",
	.open = tier_open,
	.close = tier_close,
	.send = tier_send,
	.cancel = tier_cancel,
	.cancel_all = tier_cancel_all,
};

/* Registered before any plugin's entry can ask for it. */
__attribute__((constructor)) static void register_services(void)
{
	plug_service_register(VH_SVC_IO, &blk_io_service);
	plug_service_register(VH_SVC_LOWER, &blk_lower_service);
}
