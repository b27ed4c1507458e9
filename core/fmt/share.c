/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * FMT_SHARE: instead of moving data, the volume shares it with another file (reflink). Under the same locks as a write: the
 * format allocates, the file system links the blocks on a worker, the format commits. Nothing is left when it cannot be done.
 */
#include "fmt/impl.h"

static void flat_ended(struct fmt_queue *q, struct note *n)
{
	struct fio *f = container_of(n, struct fio, share.note);

	io_end(q, container_of((uint64_t *)f, struct fmt_io, priv[0]), f->result);
}

static void flat_work(struct work *w)
{
	struct fio *f = container_of(w, struct fio, share.work);
	struct fmt_io *io = container_of((uint64_t *)f, struct fmt_io, priv[0]);
	struct fmt_image *i = f->q->image;
	const struct fmt_share *s = (const void *)io->iov;

	f->result = blk_share(i->layers[0]->vols[i->flat_vol], i->flat_addr + io->off, s->from, s->addr, io->len);
	f->share.note.fn = flat_ended;
	note_push(f->q, &f->share.note);
}

void share_flat(struct fmt_queue *q, struct fmt_io *io)
{
	struct fio *f = fio_of(io);

	f->share.work.fn = flat_work;
	worker_submit(q->image->meta_pool, &f->share.work);
}

/* The extents that follow each other in the volume, as one. */
static uint32_t group_end(const struct req *r, uint64_t *len)
{
	uint32_t k = r->xi;

	*len = r->ext[k].len;
	while (k + 1 < r->map.n && r->ext[k + 1].type == VH_EXT_DATA && r->ext[k + 1].vol == r->ext[k].vol &&
	       r->ext[k].addr + r->ext[k].len == r->ext[k + 1].addr && !r->ext[k + 1].head && !r->ext[k + 1].tail)
		*len += r->ext[++k].len;
	return k;
}

static void req_work(struct work *w)
{
	struct meta_item *m = container_of(w, struct meta_item, work);
	struct req *r = container_of(m, struct req, item);
	const struct vh_extent *x = &r->ext[r->xi];
	const struct fmt_share *s = (const void *)r->io->iov;
	uint64_t len;

	group_end(r, &len);
	req_answer(r, blk_share(r->item_layer->vols[x->vol], x->addr, s->from, s->addr + (x->pos - r->io->off), len));
}

int share_step(struct req *r)
{
	const struct vh_extent *x = &r->ext[r->xi];
	uint64_t len;

	if (!r->answered) {
		if (x->type != VH_EXT_DATA || x->head || x->tail || (x->flags & VH_EXT_CRYPT)) {
			req_error(r, -EOPNOTSUPP);
			return 1;
		}
		r->waiting = WAIT_META;
		r->item_layer = r->q->image->layers[0];
		r->item.work.fn = req_work;
		worker_submit(r->q->image->meta_pool, &r->item.work);
		return 0;
	}
	r->answered = 0;
	if (r->result < 0)
		req_error(r, r->result);
	else
		r->xi = group_end(r, &len) + 1;
	r->part = 0;
	return 1;
}
