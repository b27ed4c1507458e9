/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Writes that follow each other into a unit that is not there yet allocate it together. The first of them has the unit's range
 * exclusively; the others wait for it, would be told afterwards what it knows already, and would write one small piece
 * each. Instead of that, they go along: one map, one I/O, one commit. The holder waits for the end of the turn (or for
 * fmt_kick), when all that a guest has rung for is there.
 *
 * Only those go along that nothing else holds up, each beginning where the one before it ended, within the range. They end with
 * the holder; when it fails, each, the holder too, begins again from the start, alone.
 */
#include "fmt/impl.h"

static int may_gather(const struct req *r)
{
	return r->op == VH_WRITE && !r->alone && !(r->io->flags & VH_REQ_FUA);
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
