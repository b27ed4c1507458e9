/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* One request as a state machine. Only its queue's thread steps it; docs/design/mapping.md draws it. */
#include "fmt/impl.h"

void req_error(struct req *r, int error)
{
	if (!r->error)
		r->error = error;
}

static void begin(struct req *r);

/* What it holds, but for its place. */
static void let_go(struct req *r)
{
	if (r->locked)
		shared_release(r);
	if (r->excl)
		excl_release(r);
	for (int k = 0; k < BUF_KINDS; k++)
		buf_put(r, k);
	crypt_drop(r);
}

static void finish(struct req *r)
{
	struct fmt_queue *q = r->q;
	struct fmt_io *io = r->io;
	struct req *with = r->with, *w;
	int error = r->error, again = error && with && !r->timed_out;

	let_go(r);
	r->with = NULL;
	if (again) { /* each for itself: an error is only that of the part that has it */
		r->alone = 1;
		begin(r);
	} else {
		r->next = q->req_free;
		q->req_free = r;
		io_end(q, io, error);
	}
	while ((w = with)) {
		with = w->with_next;
		w->alone = 1;
		w->error = error;
		if (again)
			begin(w);
		else
			finish(w);
	}
}

static void escalate(struct req *r)
{
	uint64_t mask = r->q->image->layers[0]->info.unit - 1;

	if (r->locked)
		shared_release(r);
	r->escalate = 0;
	r->map.n = 0;
	r->state = RS_LOCK;
	if (!gather_behind(r))
		excl_acquire(r, r->pos & ~mask, (r->end + mask) & ~mask);
}

/* An overwrite in place may be answered further than was asked; what is written is what was asked. */
static void clip(struct vh_map *m)
{
	uint64_t end = m->pos + m->len;

	while (m->n && m->ext[m->n - 1].pos >= end)
		m->n--;
	if (m->n && m->ext[m->n - 1].len > end - m->ext[m->n - 1].pos)
		m->ext[m->n - 1].len = end - m->ext[m->n - 1].pos;
}

/* The exclusive rounds: the answer to a map is there. */
static void mapped(struct req *r, int res)
{
	if (res == -EOPNOTSUPP && r->op_map == VH_MAP_DISCARD) {
		r->state = RS_END;
		return;
	}
	if (res == -EOPNOTSUPP && r->op_map == VH_MAP_ZERO) { /* then zeros are written like anything else */
		r->op_map = VH_MAP_WRITE;
		return;
	}
	r->state = RS_DATA;
	r->xi = r->xj = r->part = 0;
	r->map_live = 0;
	if (res < 0) {
		r->map.n = 0;
		req_error(r, res);
		r->state = RS_END;
		return;
	}
	clip(&r->map);
	for (uint32_t k = 0; k < r->map.n; k++)
		r->map_live |= !!(r->ext[k].flags & VH_EXT_COMMIT);
	if (r->map_live && excl_overlap(r)) {
		layer_fault(r->q->image->layers[0], "an allocation overlaps one that is in flight");
		req_error(r, -EIO);
	}
}

/* 1: go on, 0: wait. */
static int map_step(struct req *r)
{
	struct fmt_layer *l = r->q->image->layers[0];
	uint64_t len = r->end - r->pos;
	int res;

	if (r->answered) {
		r->answered = 0;
		mapped(r, r->result);
		return 1;
	}
	if (r->pos == r->end || r->error) {
		r->state = RS_END;
		return 1;
	}
	if (l->info.max_map && len > l->info.max_map)
		len = l->info.max_map;
	if (l->crypt && r->pos + len < r->end && len > crypt_sector(l->crypt)) /* no sector is shared between two rounds */
		len -= (r->pos + len) & (crypt_sector(l->crypt) - 1);
	r->map = (struct vh_map){.op = r->op_map, .cap = FMT_WRITE_EXT, .pos = r->pos, .len = len, .ext = r->ext};
	if (r->op_map == VH_MAP_ZERO && (r->io->flags & VH_REQ_MAY_UNMAP))
		r->map.flags = VH_MAP_MAY_UNMAP;
	res = req_map(r, l, &r->map);
	if (res == 1)
		return 0;
	mapped(r, res);
	return 1;
}

static int commit_step(struct req *r)
{
	int res = 0;

	if (r->map_live) {
		if (r->answered) {
			r->answered = 0;
			res = r->result;
		} else {
			/* Its data has ended, and what commit() gives back may be given to others at once. */
			pthread_mutex_lock(&r->q->image->excl_lock);
			r->excl->map = NULL;
			pthread_mutex_unlock(&r->q->image->excl_lock);
			res = req_commit(r, r->error ? (r->timed_out ? -ETIMEDOUT : r->error) : 0);
			if (res == 1)
				return 0;
		}
		r->map_live = 0;
	}
	if (res < 0)
		req_error(r, res);
	if (!r->error && r->map.n) {
		const struct vh_extent *x = &r->ext[r->map.n - 1];

		r->pos = x->pos + x->len;
	}
	r->map.n = 0;
	r->state = r->error ? RS_END : RS_MAP;
	return 1;
}

/* Whether completion must wait for a flush of the image. */
static int wants_flush(struct req *r)
{
	struct fmt_image *i = r->q->image;

	if (r->error || !(r->io->flags & VH_REQ_FUA) || (r->op != VH_WRITE && r->op != VH_ZERO))
		return 0;
	if (r->excl)
		return 1;
	/* Overwritten in place and durable there, but is the mapping? */
	return i->layers[0]->ops->flush && __atomic_load_n(&i->commit_seq, __ATOMIC_SEQ_CST) !=
						   __atomic_load_n(&i->flushed_seq, __ATOMIC_SEQ_CST);
}

static void end_step(struct req *r)
{
	if (!wants_flush(r)) {
		finish(r);
		return;
	}
	if (r->locked)
		shared_release(r);
	if (r->excl)
		excl_release(r);
	flush_begin(r);
}

void req_step(struct req *r)
{
	while (!r->waiting) {
		switch (r->state) {
		case RS_LOCK:
			if (!r->locked)
				return;
			r->state = r->op == VH_READ ? RS_READ : RS_WRITE;
			break;
		case RS_READ:
			if (!reader_step(r) || r->nsubs)
				return;
			finish(r);
			return;
		case RS_WRITE:
			if (!write_pure_step(r) || r->nsubs)
				return;
			if (!r->error && r->escalate) {
				escalate(r);
				return;
			}
			end_step(r);
			return;
		case RS_MAP:
			if (!map_step(r))
				return;
			break;
		case RS_DATA:
			if (!write_data_step(r) || r->nsubs)
				return;
			buf_put(r, BUF_FILL);
			buf_put(r, BUF_DECODE);
			r->state = RS_COMMIT;
			break;
		case RS_COMMIT:
			if (!commit_step(r))
				return;
			break;
		case RS_FLUSH:
			flush_step(r);
			return;
		case RS_END:
			if (r->phase != UINT32_MAX) { /* a flush has ended */
				finish(r);
				return;
			}
			end_step(r);
			return;
		}
	}
}

static void begin(struct req *r)
{
	struct fmt_io *io = r->io;
	struct fmt_layer *l = r->q->image->layers[0];

	r->op = io->op;
	r->state = RS_LOCK;
	r->nsubs = 0;
	r->error = r->waiting = r->answered = r->locked = r->escalate = r->timed_out = r->zero_src = r->own_busy = r->share = 0;
	r->map_live = r->more_phases = 0;
	r->excl = NULL;
	r->cop = NULL;
	r->pos = io->off;
	r->end = io->off + io->len;
	r->run.vq = NULL;
	r->map.n = 0;
	r->phase = UINT32_MAX;
	if (io->op == VH_READ || io->op == VH_WRITE)
		vec_init(&r->v, io->iov, io->niov, io->len);
	if (load_relaxed(&l->faulted)) {
		r->error = -EIO;
		finish(r);
		return;
	}
	switch (io->op) {
	case VH_READ:
		reader_init(&r->rd, 0, io->off, io->len, &r->v);
		/* fall through */
	case VH_WRITE:
		r->op_map = VH_MAP_WRITE;
		if (shared_acquire(r, r->pos, r->end))
			req_step(r);
		break;
	case VH_FLUSH:
		flush_begin(r);
		break;
	case FMT_SHARE:
		r->share = 1;
		r->op_map = VH_MAP_WRITE;
		if ((r->pos | r->end) & (l->info.unit - 1))
			req_error(r, -EOPNOTSUPP); /* the rest of a unit would be read and written */
		escalate(r);
		break;
	default:
		r->zero_src = 1;
		r->op_map = io->op == VH_DISCARD ? VH_MAP_DISCARD : l->info.caps & VH_FMT_ZERO ? VH_MAP_ZERO : VH_MAP_WRITE;
		escalate(r);
	}
}

int req_begin(struct fmt_queue *q, struct fmt_io *io)
{
	struct req *r = q->req_free;

	if (r)
		q->req_free = r->next;
	else if (q->nreqs < q->depth)
		r = &q->reqs[q->nreqs++];
	else
		return 0;
	r->q = q;
	r->io = io;
	r->alone = r->behind = 0;
	r->with = NULL;
	begin(r);
	return 1;
}
