/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Writes that follow each other into a unit that is not there yet allocate it together. The first of them has the unit's range
 * exclusively; the others wait for it, would be told afterwards what it knows already, and would write one small piece
 * each. Instead of that, they go along: one map, one I/O, one commit. The holder waits for the end of the turn (or for
 * fmt_kick), when all that a guest has rung for is there.
 *
 * Who finds at the same time that its bytes are not there, since it came back from a worker or another's gate has left, gets
 * behind the gate of the first one: a ticket each would be one allocation after the other.
 *
 * Only those go along that nothing else holds up, each beginning where the one before it ended, within the range. They end with
 * the holder; when it fails, each, the holder too, begins again from the start, alone.
 */
#include "fmt/impl.h"

#define BEHIND 4u /* so often one waits for others; then it is one's turn */

static int may_gather(const struct req *r)
{
	return r->op == VH_WRITE && !r->alone && !(r->io->flags & VH_REQ_FUA);
}

static void behind_note(struct fmt_queue *q, struct note *n)
{
	struct req *r = container_of(n, struct req, note);

	if (shared_acquire(r, r->pos, r->end))
		req_step(r);
}

/* By a note, as the other's gate comes by one, which was pushed before. */
int gather_behind(struct req *r)
{
	if (!may_gather(r) || r->behind == BEHIND || !excl_ahead(r))
		return 0;
	r->behind++;
	r->note.fn = behind_note;
	note_push(r->q, &r->note);
	return 1;
}

int gather_later(struct req *r)
{
	struct fmt_queue *q = r->q;

	if (!may_gather(r) || r->end == r->excl->hi || q->depth < 2)
		return 0;
	r->next = NULL;
	*q->gather_tail = r;
	q->gather_tail = &r->next;
	loop_defer(q->loop, &q->gather_task);
	return 1;
}

/* Segments of [.., +len) behind the n that are there; 0: no room. */
static int add_iov(struct req *r, uint32_t *n, struct vec v, uint64_t len)
{
	uint32_t more;

	if (vec_take(&v, len, r->giov + *n, FMT_GATHER - *n, &more) != len)
		return 0;
	*n += more;
	return 1;
}

static void take_along(struct req *r)
{
	struct fmt_queue *q = r->q;
	const struct gate *g = &r->excl->gate[q->index];
	struct shared *next;
	uint32_t n = 0;

	r->with_tail = &r->with;
	for (struct shared *s = q->sh_first; s && r->end < r->excl->hi; s = next) {
		struct req *w = container_of(s, struct req, lk);

		next = s->next;
		/* One blocker, and that is us: it came behind our gate, and lies in our range. */
		if (s->lo != r->end || s->hi > r->excl->hi || s->seq < g->seq || s->blockers != 1 || !may_gather(w))
			continue;
		if ((!n && !add_iov(r, &n, r->v, r->end - r->pos)) || !add_iov(r, &n, w->v, s->hi - s->lo))
			break;
		r->end = s->hi;
		shared_release(w);
		w->with_next = NULL;
		*r->with_tail = w;
		r->with_tail = &w->with_next;
		count(&q->stats.gathered, 1);
	}
	if (r->with)
		vec_init(&r->v, r->giov, n, r->end - r->pos);
}

void gather_run(struct fmt_queue *q)
{
	struct req *r;

	while ((r = q->gather)) {
		q->gather = r->next;
		if (!q->gather)
			q->gather_tail = &q->gather;
		take_along(r);
		req_step(r);
	}
}

void gather_task(struct vh_task *t)
{
	gather_run(container_of(t, struct fmt_queue, gather_task));
}
