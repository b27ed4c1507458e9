/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A lane: one loop, a queue of each image, and the pieces that go through it. All of it runs on the lane's loop. */
#include <string.h>
#include "store/convert-i.h"

static void part_begin(struct piece *p);
static void part_write(struct piece *p);

/* [loop] One request of a piece. */
static void submit(struct piece *p, struct fmt_queue *q, struct out *o, uint16_t op, uint8_t *buf, uint64_t off, uint64_t len,
		   void (*done)(struct fmt_io *io, int result))
{
	o->busy = 1;
	o->p = p;
	o->iov = (struct iovec){buf, len};
	o->io.op = op;
	o->io.flags = op == VH_ZERO ? VH_REQ_MAY_UNMAP : 0;
	o->io.niov = buf ? 1 : 0;
	o->io.iov = op == FMT_SHARE ? (const struct iovec *)(const void *)&p->share : &o->iov;
	o->io.off = off;
	o->io.len = len;
	o->io.done = done;
	p->flying++;
	fmt_submit(q, &o->io);
}

/* A piece that failed still has its place in the order. */
static void over(struct piece *p)
{
	if (p->cv->ordered)
		order_piece(p);
	else
		piece_end(p);
}

static struct out *out_of(struct fmt_io *io)
{
	struct out *o = (struct out *)((char *)io - offsetof(struct out, io));

	o->busy = 0;
	o->p->flying--;
	return o;
}

static void next_part(struct piece *p)
{
	p->cur += p->n;
	p->n = 0;
	if (p->cur == p->len || cv_failed(p->cv))
		piece_end(p);
	else
		part_begin(p);
}

uint64_t piece_run(struct piece *p, enum run_kind *kind)
{
	struct convert *c = p->cv->c;
	const uint8_t *b = p->buf + p->at;
	uint64_t left = p->n - p->at, grain = p->cv->grain, n, first;
	int zero;

	*kind = RUN_DATA;
	if (c->differs) {
		const uint8_t *below = p->aux + p->at;
		int same;

		n = MIN(grain, left);
		same = memcmp(b, below, n) == 0;
		while (n < left) {
			uint64_t g = MIN(grain, left - n);

			if ((memcmp(b + n, below + n, g) == 0) != same)
				break;
			n += g;
		}
		if (same) {
			*kind = RUN_SAME;
			return n;
		}
		left = n;
	}
	if (grain == CONVERT_ALL)
		return left;
	/* The first grain may be short, so that the others lie at multiples. */
	first = grain - (c->dst_off + p->pos + p->cur + p->at) % grain;
	if (first < grain && first < left && zero_all(b, first) != zero_all(b + first, MIN(grain, left - first))) {
		*kind = zero_all(b, first) ? RUN_ZERO : RUN_DATA;
		return first;
	}
	if (first == grain || first >= left)
		n = zero_run(b, left, grain, &zero);
	else
		n = first + zero_run(b + first, left - first, grain, &zero);
	*kind = zero ? RUN_ZERO : RUN_DATA;
	return n;
}

static void written(struct fmt_io *io, int result)
{
	struct out *o = out_of(io);
	struct piece *p = o->p;

	if (result < 0)
		cv_fail(p->cv, result, "writing", p->cv->c->dst_name, io->off);
	else
		cv_account(p->cv, o->zero ? &p->cv->c->zero : &p->cv->c->written, io->len);
	part_write(p);
}

static void part_write(struct piece *p)
{
	struct convert *c = p->cv->c;

	while (p->at < p->n && p->flying < PIECE_IOS && !cv_failed(p->cv)) {
		uint64_t off = c->dst_off + p->pos + p->cur + p->at;
		enum run_kind kind;
		uint64_t n = piece_run(p, &kind);
		unsigned k = 0;

		if (kind == RUN_SAME || (kind == RUN_ZERO && c->fresh)) {
			cv_account(p->cv, kind == RUN_SAME ? &c->same : &c->zero, n);
			p->at += n;
			continue;
		}
		while (p->out[k].busy)
			k++;
		p->out[k].zero = kind == RUN_ZERO;
		submit(p, p->lane->dst, &p->out[k], kind == RUN_ZERO ? VH_ZERO : VH_WRITE,
		       kind == RUN_ZERO ? NULL : p->buf + p->at, off, n, written);
		p->at += n;
	}
	if (!p->flying)
		next_part(p);
}

static void part_compare(struct piece *p)
{
	static const uint8_t zeros[4096];
	uint64_t off = p->cv->c->src_off + p->pos + p->cur;

	for (uint64_t at = 0; at < p->n; at += sizeof(zeros)) {
		uint64_t n = MIN(sizeof(zeros), p->n - at), k = 0;
		const uint8_t *b = p->cv->c->dst ? p->aux + at : zeros;

		if (!memcmp(p->buf + at, b, n))
			continue;
		while (p->buf[at + k] == b[k])
			k++;
		cv_differs(p->cv, off + at + k);
		break;
	}
	cv_account(p->cv, &p->cv->c->same, p->n);
	next_part(p);
}

static void part_filled(struct piece *p)
{
	p->at = 0;
	if (p->cv->c->compare)
		part_compare(p);
	else if (p->cv->ordered)
		order_piece(p);
	else
		part_write(p);
}

static void below_read(struct fmt_io *io, int result)
{
	struct piece *p = out_of(io)->p;

	if (result < 0) {
		cv_fail(p->cv, result, "reading", p->cv->c->dst_name, io->off);
		over(p);
		return;
	}
	part_filled(p);
}

static void part_read(struct piece *p)
{
	struct convert *c = p->cv->c;

	if (c->differs && c->dst)
		submit(p, p->lane->dst, &p->out[0], VH_READ, p->aux, c->dst_off + p->pos + p->cur, p->n, below_read);
	else
		part_filled(p);
}

static void source_read(struct fmt_io *io, int result)
{
	struct piece *p = out_of(io)->p;

	if (result < 0) {
		cv_fail(p->cv, result, "reading", p->cv->c->src_name, io->off);
		over(p);
		return;
	}
	part_read(p);
}

static void part_begin(struct piece *p)
{
	struct convert *c = p->cv->c;

	p->n = MIN(p->len - p->cur, p->cv->piece_bytes);
	if (p->filled)
		part_read(p);
	else
		submit(p, p->lane->src, &p->out[0], VH_READ, p->buf, c->src_off + p->pos + p->cur, p->n, source_read);
}

static void zeroed(struct fmt_io *io, int result)
{
	struct piece *p = out_of(io)->p;

	if (result < 0)
		cv_fail(p->cv, result, "writing", p->cv->c->dst_name, io->off);
	else
		cv_account(p->cv, &p->cv->c->zero, io->len);
	piece_end(p);
}

static void shared(struct fmt_io *io, int result)
{
	struct piece *p = out_of(io)->p;

	if (result == -EOPNOTSUPP) {
		__atomic_store_n(&p->cv->share, -1, __ATOMIC_RELAXED);
		p->kind = PIECE_DATA;
		part_begin(p);
		return;
	}
	if (result < 0) {
		cv_fail(p->cv, result, "writing", p->cv->c->dst_name, io->off);
	} else {
		__atomic_store_n(&p->cv->share, 1, __ATOMIC_RELAXED);
		cv_account(p->cv, &p->cv->c->shared, io->len);
	}
	piece_end(p);
}

static void begin(struct vh_task *t)
{
	struct piece *p = (struct piece *)((char *)t - offsetof(struct piece, task));
	struct convert *c = p->cv->c;

	if (cv_failed(p->cv))
		over(p);
	else if (p->kind == PIECE_ZERO)
		submit(p, p->lane->dst, &p->out[0], VH_ZERO, NULL, c->dst_off + p->pos, p->len, zeroed);
	else if (p->kind == PIECE_SHARE)
		submit(p, p->lane->dst, &p->out[0], FMT_SHARE, NULL, c->dst_off + p->pos, p->len, shared);
	else
		part_begin(p);
}

void piece_start(struct piece *p)
{
	struct cv *cv = p->cv;

	p->cur = p->n = p->at = 0;
	p->flying = 0;
	if (!cv->nlanes) {
		p->n = p->len;
		order_piece(p);
		return;
	}
	p->lane = &cv->lane[cv->next_lane++ % cv->nlanes];
	p->task = (struct vh_task){.fn = begin};
	loop_post(p->lane->loop, &p->task);
}

int lanes_open(struct cv *cv, struct vh_err *e)
{
	struct convert *c = cv->c;
	int to_queue = c->dst && (!cv->ordered || c->differs), ret = 0;
	unsigned each = (cv->npieces + cv->nlanes - 1) / MAX(cv->nlanes, 1u);

	for (unsigned k = 0; k < cv->nlanes && !ret; k++) {
		struct lane *l = &cv->lane[k];

		l->cv = cv;
		ret = loop_new("convert", &l->loop, e);
		if (ret)
			break;
		loop_set_poll_max(l->loop, 0); /* the cores have other work */
		if (c->src)
			ret = fmt_queue_open(c->src, l->loop, each, &l->src, e);
		if (!ret && to_queue)
			ret = fmt_queue_open(c->dst, l->loop, MIN(each * 4, 64u), &l->dst, e);
		if (!ret)
			ret = loop_start(l->loop, e);
	}
	return ret;
}

void lanes_close(struct cv *cv)
{
	for (unsigned k = 0; k < cv->nlanes; k++) {
		struct lane *l = &cv->lane[k];

		if (!l->loop)
			continue;
		loop_stop(l->loop);
		fmt_queue_close(l->src);
		fmt_queue_close(l->dst);
		loop_free(l->loop);
	}
}
