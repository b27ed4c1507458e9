/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The path of a mapped request: a read or write whose whole range one cached extent answers, with nobody on this queue who
 * wants a range exclusively. It is one I/O on one volume, so it needs no request of the machine: its shared hold on the
 * range and its blk_io lie in the caller's fmt_io. A gate that arrives meanwhile counts it among its holders as any other.
 */
#include "fmt/impl.h"

static void mapped_done(struct blk_io *bio, int result)
{
	struct fio *f = container_of(bio, struct fio, bio);

	fvq_ended(f->vq);
	shared_leave(f->q, &f->lk);
	fio_ended(f, result);
}

int mapped_begin(struct fmt_queue *q, struct fmt_io *io)
{
	struct fmt_layer *l = q->image->layers[0];
	struct fio *f = fio_of(io);
	struct cache_ext c;
	struct fvq *v;
	uint64_t off;

	/* A write that must be durable may have to wait for the mapping's flush; what was absent before a put may be there now. */
	if (q->broken || q->gate_first || load_relaxed(&l->faulted) ||
	    !(io->op == VH_READ ? !load_relaxed(&q->image->puts) : io->op == VH_WRITE && !(io->flags & VH_REQ_FUA)))
		return 0;
	if (!cache_find(io->op == VH_READ ? &q->rcache[0] : &q->wcache, io->off, &c) || c.type != VH_EXT_DATA || c.flags)
		return 0;
	off = io->off - c.pos;
	v = &q->vqs[l->vq_base + c.vol];
	if (io->len > c.len - off || v->inflight >= v->depth)
		return 0;
	count(&q->stats.cache_hits, 1);
	q->inflight++;
	shared_enter(q, &f->lk, io->off, io->off + io->len);
	f->vq = v;
	v->inflight++;
	v->gathered = 1;
	f->bio.op = io->op;
	f->bio.flags = 0;
	f->bio.niov = io->niov;
	f->bio.iov = io->iov;
	f->bio.off = c.addr + off;
	f->bio.len = io->len;
	f->bio.done = mapped_done;
	blk_submit(v->vq, &f->bio);
	return 1;
}
