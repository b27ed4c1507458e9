/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Range locks of the top layer. Fair: first come, first served, as far as "first" is defined between queues.
 *
 * Shared holders are a list per queue; taking and releasing one writes nothing that another queue reads. Whoever wants a
 * range exclusively enters the image's list (under excl_lock, so that the order is the same everywhere) and posts a gate
 * to every queue. From its arrival there on, new shared requests of the queue wait behind the gate; when those that came
 * before it have ended, the queue drops its cached extents of the range and acknowledges. With all acknowledgements, and
 * the earlier overlapping exclusive ranges gone, it is granted. Holders never wait for a lock, so nothing can deadlock.
 */
#include <stdlib.h>
#include "fmt/impl.h"

static int overlap(uint64_t alo, uint64_t ahi, uint64_t blo, uint64_t bhi)
{
	return alo < bhi && blo < ahi;
}

static void granted(struct fmt_queue *q, struct note *n)
{
	struct req *r = container_of(n, struct excl, note)->req;

	count(&q->stats.exclusive, 1);
	r->state = RS_MAP;
	if (!gather_later(r))
		req_step(r);
}

/* excl_lock is held. */
static void maybe_grant(struct excl *e)
{
	if (e->acks || e->waits)
		return;
	e->note.fn = granted;
	note_push(e->req->q, &e->note);
}

static void acknowledge(struct fmt_queue *q, struct gate *g)
{
	struct fmt_image *i = q->image;
	struct excl *e = g->e;

	if (q->rcache) {
		cache_drop(&q->rcache[0], e->lo, e->hi);
		cache_drop(&q->wcache, e->lo, e->hi);
	}
	pthread_mutex_lock(&i->excl_lock);
	e->acks--;
	maybe_grant(e);
	pthread_mutex_unlock(&i->excl_lock);
}

static void gate_append(struct fmt_queue *q, struct gate *g)
{
	g->seq = q->seqno++;
	g->active = 1;
	g->next = NULL;
	g->prev = q->gate_last;
	*(q->gate_last ? &q->gate_last->next : &q->gate_first) = g;
	q->gate_last = g;
}

static void gate_unlink(struct fmt_queue *q, struct gate *g)
{
	*(g->prev ? &g->prev->next : &q->gate_first) = g->next;
	*(g->next ? &g->next->prev : &q->gate_last) = g->prev;
	g->active = 0;
}

static void gate_arrives(struct fmt_queue *q, struct note *n)
{
	struct gate *g = container_of(n, struct gate, note);

	gate_append(q, g);
	g->holders = 0;
	for (struct shared *s = q->sh_first; s; s = s->next)
		g->holders += overlap(s->lo, s->hi, g->e->lo, g->e->hi);
	if (!g->holders)
		acknowledge(q, g);
}

/* excl_lock is held. The last queue that forgets it gives it back. */
static void gate_gone(struct fmt_image *i, struct excl *e)
{
	struct req *r;

	if (--e->gates_left)
		return;
	e->next = i->excl_free;
	i->excl_free = e;
	r = i->excl_wait;
	if (r) {
		i->excl_wait = r->next;
		if (!i->excl_wait)
			i->excl_wait_tail = &i->excl_wait;
		note_push(r->q, &r->note);
	}
}

static void gate_leaves(struct fmt_queue *q, struct note *n)
{
	struct gate *g = container_of(n, struct gate, note);
	struct req *ready = NULL, **tail = &ready, *r;
	uint64_t lo = g->e->lo, hi = g->e->hi;

	gate_unlink(q, g);
	q->ring[++q->inval_seq % FMT_RING].lo = lo;
	q->ring[q->inval_seq % FMT_RING].hi = hi;
	for (struct shared *s = q->sh_first; s; s = s->next) {
		if (s->seq < g->seq || !overlap(s->lo, s->hi, lo, hi) || --s->blockers)
			continue;
		r = container_of(s, struct req, lk);
		r->next = NULL;
		*tail = r;
		tail = &r->next;
	}
	pthread_mutex_lock(&q->image->excl_lock);
	gate_gone(q->image, g->e);
	pthread_mutex_unlock(&q->image->excl_lock);
	while ((r = ready)) {
		ready = r->next;
		r->locked = 1;
		req_step(r);
	}
}

void shared_enter(struct fmt_queue *q, struct shared *s, uint64_t lo, uint64_t hi)
{
	*s = (struct shared){.prev = q->sh_last, .lo = lo, .hi = hi, .seq = q->seqno++};
	*(q->sh_last ? &q->sh_last->next : &q->sh_first) = s;
	q->sh_last = s;
}

int shared_acquire(struct req *r, uint64_t lo, uint64_t hi)
{
	struct fmt_queue *q = r->q;
	struct shared *s = &r->lk;

	shared_enter(q, s, lo, hi);
	for (struct gate *g = q->gate_first; g; g = g->next)
		s->blockers += overlap(lo, hi, g->e->lo, g->e->hi);
	r->locked = !s->blockers;
	return r->locked;
}

void shared_leave(struct fmt_queue *q, struct shared *s)
{
	*(s->prev ? &s->prev->next : &q->sh_first) = s->next;
	*(s->next ? &s->next->prev : &q->sh_last) = s->prev;
	for (struct gate *g = q->gate_first; g; g = g->next)
		if (g->seq > s->seq && overlap(s->lo, s->hi, g->e->lo, g->e->hi) && !--g->holders)
			acknowledge(q, g);
}

void shared_release(struct req *r)
{
	r->locked = 0;
	shared_leave(r->q, &r->lk);
}

/* Tickets stay the image's when a queue is closed: others may still have gates of them. The next queue finds them. */
int excl_pool(struct fmt_image *i, uint32_t n)
{
	struct excl *a;
	int enough;

	pthread_mutex_lock(&i->excl_lock);
	i->excl_want += n;
	enough = i->excl_total >= i->excl_want;
	pthread_mutex_unlock(&i->excl_lock);
	if (enough)
		return 0;
	a = calloc(n + 1, sizeof(*a)); /* [0] links the arrays */
	if (!a)
		return -ENOMEM;
	pthread_mutex_lock(&i->excl_lock);
	i->excl_total += n;
	a[0].next = i->excl_all;
	i->excl_all = a;
	for (uint32_t k = 1; k <= n; k++) {
		a[k].next = i->excl_free;
		i->excl_free = &a[k];
	}
	pthread_mutex_unlock(&i->excl_lock);
	return 0;
}

void excl_unpool(struct fmt_image *i, uint32_t n)
{
	pthread_mutex_lock(&i->excl_lock);
	i->excl_want -= n;
	pthread_mutex_unlock(&i->excl_lock);
}

static void retry(struct fmt_queue *q, struct note *n)
{
	struct req *r = container_of(n, struct req, note);

	excl_acquire(r, r->lk.lo, r->lk.hi);
}

void excl_acquire(struct req *r, uint64_t lo, uint64_t hi)
{
	struct fmt_image *i = r->q->image;
	struct excl *e;

	pthread_mutex_lock(&i->excl_lock);
	e = i->excl_free;
	if (!e) {
		r->lk.lo = lo;
		r->lk.hi = hi;
		r->note.fn = retry;
		r->next = NULL;
		*i->excl_wait_tail = r;
		i->excl_wait_tail = &r->next;
		pthread_mutex_unlock(&i->excl_lock);
		return;
	}
	i->excl_free = e->next;
	r->excl = e;
	e->req = r;
	e->lo = lo;
	e->hi = hi;
	e->map = NULL;
	e->waits = e->acks = e->gates_left = 0;
	e->mask = 0;
	for (struct excl *o = i->excl_first; o; o = o->next)
		e->waits += overlap(lo, hi, o->lo, o->hi);
	e->next = NULL;
	e->prev = i->excl_last;
	*(i->excl_last ? &i->excl_last->next : &i->excl_first) = e;
	i->excl_last = e;
	for (uint32_t k = 0; k < FMT_MAX_QUEUES; k++) {
		if (!i->queues[k])
			continue;
		e->mask |= UINT64_C(1) << k;
		e->acks++;
		e->gates_left++;
		e->gate[k].e = e;
		e->gate[k].note.fn = gate_arrives;
		note_push(i->queues[k], &e->gate[k].note);
	}
	pthread_mutex_unlock(&i->excl_lock);
	notes_run(r->q); /* our own gate, at least; may step r: nothing after this */
}

void excl_release(struct req *r)
{
	struct fmt_image *i = r->q->image;
	struct excl *e = r->excl;

	r->excl = NULL;
	pthread_mutex_lock(&i->excl_lock);
	e->map = NULL;
	*(e->prev ? &e->prev->next : &i->excl_first) = e->next;
	*(e->next ? &e->next->prev : &i->excl_last) = e->prev;
	for (struct excl *o = e->next; o; o = o->next) {
		if (overlap(e->lo, e->hi, o->lo, o->hi)) {
			o->waits--;
			maybe_grant(o);
		}
	}
	for (uint32_t k = 0; k < FMT_MAX_QUEUES; k++) {
		if (!(e->mask >> k & 1))
			continue;
		e->gate[k].note.fn = gate_leaves;
		note_push(i->queues[k], &e->gate[k].note);
	}
	pthread_mutex_unlock(&i->excl_lock);
}

void excl_attach(struct fmt_queue *q)
{
	struct fmt_image *i = q->image;

	pthread_mutex_lock(&i->excl_lock);
	i->queues[q->index] = q;
	for (struct excl *e = i->excl_first; e; e = e->next) { /* nothing of ours is in flight: no acknowledgement is due */
		struct gate *g = &e->gate[q->index];

		e->mask |= UINT64_C(1) << q->index;
		e->gates_left++;
		g->e = e;
		g->holders = 0;
		gate_append(q, g);
	}
	pthread_mutex_unlock(&i->excl_lock);
}

void excl_detach(struct fmt_queue *q)
{
	struct fmt_image *i = q->image;

	pthread_mutex_lock(&i->excl_lock);
	i->queues[q->index] = NULL;
	for (struct excl *e = i->excl_first; e; e = e->next)
		e->mask &= ~(UINT64_C(1) << q->index);
	pthread_mutex_unlock(&i->excl_lock);
}

void excl_settle(struct fmt_queue *q)
{
	struct fmt_image *i = q->image;
	struct gate *g;

	notes_run(q); /* gates that arrived or were leaving */
	while ((g = q->gate_first)) {
		gate_unlink(q, g);
		pthread_mutex_lock(&i->excl_lock);
		gate_gone(i, g->e);
		pthread_mutex_unlock(&i->excl_lock);
	}
}

int excl_ahead(struct req *r)
{
	struct fmt_image *i = r->q->image;
	int found = 0;

	pthread_mutex_lock(&i->excl_lock);
	for (struct excl *o = i->excl_first; o && !found; o = o->next)
		found = o->req->q == r->q && o->req->op == VH_WRITE && o->lo <= r->pos && r->end <= o->hi;
	pthread_mutex_unlock(&i->excl_lock);
	return found;
}

int excl_overlap(struct req *r)
{
	struct fmt_image *i = r->q->image;
	const struct vh_map *m = &r->map;
	int bad = 0;

	pthread_mutex_lock(&i->excl_lock);
	for (struct excl *o = i->excl_first; o && !bad; o = o->next) {
		if (o == r->excl || !o->map)
			continue;
		for (uint32_t k = 0; k < m->n && !bad; k++) {
			const struct vh_extent *a = &m->ext[k];

			if (a->type != VH_EXT_DATA || !(a->flags & VH_EXT_COMMIT))
				continue;
			for (uint32_t j = 0; j < o->map->n && !bad; j++) {
				const struct vh_extent *b = &o->map->ext[j];

				bad = b->type == VH_EXT_DATA && (b->flags & VH_EXT_COMMIT) && a->vol == b->vol &&
				      overlap(a->addr - a->head, a->addr + a->len + a->tail, b->addr - b->head,
					      b->addr + b->len + b->tail);
			}
		}
	}
	r->excl->map = bad ? NULL : m;
	pthread_mutex_unlock(&i->excl_lock);
	return bad;
}

/* Shrinks [*lo, *hi) around [klo, khi) so that it does not touch [a, b). */
static int clip(uint64_t a, uint64_t b, uint64_t klo, uint64_t khi, uint64_t *lo, uint64_t *hi)
{
	if (!overlap(a, b, *lo, *hi))
		return 1;
	if (klo < khi && a >= khi)
		*hi = a;
	else if (klo < khi && b <= klo)
		*lo = b;
	else if (klo < khi && overlap(a, b, klo, khi)) { /* was unlocked by then: keep nothing but what we hold now */
		if (*lo < klo)
			*lo = klo;
		if (*hi > khi)
			*hi = khi;
	} else
		return 0;
	return *lo < *hi;
}

int lock_clip(const struct fmt_queue *q, uint64_t seq, uint64_t klo, uint64_t khi, uint64_t *lo, uint64_t *hi)
{
	if (q->inval_seq - seq >= FMT_RING) {
		if (*lo < klo)
			*lo = klo;
		if (*hi > khi)
			*hi = khi;
		return *lo < *hi;
	}
	for (uint64_t s = seq + 1; s <= q->inval_seq; s++)
		if (!clip(q->ring[s % FMT_RING].lo, q->ring[s % FMT_RING].hi, klo, khi, lo, hi))
			return 0;
	for (const struct gate *g = q->gate_first; g; g = g->next)
		if (!clip(g->e->lo, g->e->hi, klo, khi, lo, hi))
			return 0;
	return *lo < *hi;
}
