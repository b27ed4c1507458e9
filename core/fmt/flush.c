/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Flush in phases. At most one runs per image; requests that come meanwhile wait for the next one, all of them together,
 * since the one that runs may have begun before their writes ended. The first request of a batch leads it on its queue:
 * plugin's phase on a worker, all volumes, next phase, until the plugin has written everything, then the volumes once
 * more.
 */
#include "fmt/impl.h"

enum { FL_PHASE = 0, FL_VOLUMES };

static void flush_end_note(struct fmt_queue *q, struct note *n)
{
	struct req *r = container_of(n, struct req, note);

	r->state = RS_END;
	req_step(r);
}

static void lead_note(struct fmt_queue *q, struct note *n)
{
	struct req *r = container_of(n, struct req, note);

	r->phase = 0;
	r->part = FL_PHASE;
	r->flush_seq = __atomic_load_n(&q->image->commit_seq, __ATOMIC_SEQ_CST);
	count(&q->stats.flushes, 1);
	req_step(r);
}

static void lead(struct req *r)
{
	r->note.fn = lead_note;
	note_push(r->q, &r->note);
}

/* Joins the next flush; in state RS_FLUSH the request waits for its end, or leads. */
void flush_begin(struct req *r)
{
	struct fmt_image *i = r->q->image;
	int first;

	r->state = RS_FLUSH;
	r->part = UINT32_MAX; /* neither leads nor has ended */
	r->phase = 0;
	r->answered = 0;
	r->next = NULL;
	pthread_mutex_lock(&i->flush_lock);
	first = !i->flushing;
	if (first) {
		i->flushing = 1;
		i->flush_now = r;
	} else {
		*i->flush_next_tail = r;
		i->flush_next_tail = &r->next;
	}
	pthread_mutex_unlock(&i->flush_lock);
	if (first)
		lead(r);
}

static void flush_end(struct req *leader)
{
	struct fmt_image *i = leader->q->image;
	int error = leader->error;
	struct req *r, *list, *next;

	if (!error)
		__atomic_store_n(&i->flushed_seq, leader->flush_seq, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&i->flush_lock);
	list = i->flush_now;
	next = i->flush_now = i->flush_next;
	i->flush_next = NULL;
	i->flush_next_tail = &i->flush_next;
	i->flushing = next != NULL;
	pthread_mutex_unlock(&i->flush_lock);
	while ((r = list)) {
		list = r->next;
		if (error && r != leader)
			r->error = error; /* its queue does not look at it before the note */
		r->note.fn = flush_end_note;
		note_push(r->q, &r->note);
	}
	if (next)
		lead(next);
}

static void phase_on_worker(struct meta_item *m)
{
	struct req *r = container_of(m, struct req, item);
	struct fmt_layer *l = r->item_layer;
	int res;

	if (l->lock_core)
		pthread_rwlock_wrlock(&l->lock);
	res = load_relaxed(&l->faulted) ? -EIO : l->ops->flush(l->img, r->phase);
	if (l->lock_core)
		pthread_rwlock_unlock(&l->lock);
	if (res == -EAGAIN || res > 1) {
		layer_fault(l, "flush() returned what it must not");
		res = -EIO;
	}
	req_answer(r, res);
}

static void flush_volumes(struct req *r, struct fmt_layer *l)
{
	while (r->flush_vol < l->nvols) {
		uint32_t v = r->flush_vol;
		struct sub *s;

		if (!l->vols[v]) {
			r->flush_vol++;
			continue;
		}
		s = sub_get(r);
		if (!s)
			return;
		s->vq = &r->q->vqs[l->vq_base + v];
		s->bio.op = VH_FLUSH;
		s->bio.flags = 0;
		s->bio.off = s->bio.len = 0;
		s->bio.niov = 0;
		s->bio.iov = NULL;
		r->flush_vol++;
		sub_submit(s);
	}
}

/* Steps the leader; always waits: the end comes by a note. */
int flush_step(struct req *r)
{
	struct fmt_layer *l = r->q->image->layers[0];

	if (r->part == FL_PHASE) {
		if (!l->ops->flush) {
			r->result = 0;
		} else if (!r->answered) {
			req_call(r, l, phase_on_worker, META_FLUSH);
			return 0;
		}
		r->answered = 0;
		if (r->result < 0) {
			req_error(r, r->result);
			r->part = UINT32_MAX;
			flush_end(r);
			return 0;
		}
		r->more_phases = r->result; /* 1: another phase comes */
		if (++r->phase > FMT_PHASES) {
			layer_fault(l, "flush() never ends");
			r->more_phases = 0;
			req_error(r, -EIO);
		}
		r->part = FL_VOLUMES;
		r->flush_vol = 0;
	}
	if (r->part == FL_VOLUMES) {
		if (!r->error)
			flush_volumes(r, l);
		if (r->nsubs || (!r->error && r->flush_vol < l->nvols))
			return 0;
		if (!r->error && r->more_phases) {
			r->part = FL_PHASE;
			return flush_step(r);
		}
		r->part = UINT32_MAX;
		flush_end(r);
	}
	return 0;
}
