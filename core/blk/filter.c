/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Filters: a plugin's volume over one of ours, and what it may do with the one below (vh.lower/1). */
#include <stdlib.h>
#include <string.h>
#include "blk/blk-i.h"
#include "plug/plug.h"

#define CHUNK 64

struct vh_lower {
	struct blk_vol *v;
};

struct lower_io {
	struct blk_io io;
	struct vh_req *req;
	void (*done)(struct vh_req *r, int result);
	struct vh_lower_q *q;
	struct lower_io *next;
};

/* Requests for the queue below. A filter may make several of one; the pool then grows, and stays. */
struct vh_lower_q {
	struct blk_vq *q;
	struct lower_io *free;
	struct chunk {
		struct chunk *next;
		struct lower_io io[CHUNK];
	} *chunks;
	struct vh_lower_q *next;
};

static int pool_grow(struct vh_lower_q *lq)
{
	struct chunk *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->next = lq->chunks;
	lq->chunks = c;
	for (unsigned i = 0; i < CHUNK; i++) {
		c->io[i].q = lq;
		c->io[i].next = lq->free;
		lq->free = &c->io[i];
	}
	return 0;
}

static void lower_done(struct blk_io *io, int res)
{
	struct lower_io *l = container_of(io, struct lower_io, io);
	struct vh_req *req = l->req;
	void (*done)(struct vh_req *r, int result) = l->done;

	l->next = l->q->free;
	l->q->free = l;
	done(req, res);
}

static void lower_submit(struct vh_lower_q *lq, struct vh_req *r, void (*done)(struct vh_req *r, int result))
{
	struct lower_io *l;

	if (!lq->free && pool_grow(lq) < 0) {
		done(r, -ENOMEM);
		return;
	}
	l = lq->free;
	lq->free = l->next;
	l->req = r;
	l->done = done;
	l->io.op = r->op;
	l->io.flags = r->flags;
	l->io.off = r->off;
	l->io.len = r->len;
	l->io.iov = r->iov;
	l->io.niov = r->niov;
	l->io.done = lower_done;
	blk_submit(lq->q, &l->io);
}

static void lower_q_free(struct vh_lower_q *lq)
{
	struct chunk *c;

	blk_vq_close(lq->q);
	while ((c = lq->chunks)) {
		lq->chunks = c->next;
		free(c);
	}
	free(lq);
}

static int lower_queue(struct vh_lower *l, struct vh_queue *hq, struct vh_lower_q **out, struct vh_err *e)
{
	struct blk_vq *upper = (struct blk_vq *)hq;
	struct vh_lower_q *lq = calloc(1, sizeof(*lq));
	int r = -ENOMEM;

	if (lq)
		r = blk_vq_open(l->v, upper->loop, upper->cap, &lq->q, e);
	for (unsigned n = 0; !r && n < upper->cap; n += CHUNK)
		r = pool_grow(lq);
	if (r) {
		if (lq)
			lower_q_free(lq);
		return err_set(e, r, "no queue of the volume below: %s", strerror(-r));
	}
	lq->next = upper->lower;
	upper->lower = lq;
	*out = lq;
	return 0;
}

void blk_lower_close(struct blk_vq *q)
{
	struct vh_lower_q *lq;

	while ((lq = q->lower)) {
		q->lower = lq->next;
		lower_q_free(lq);
	}
}

static int lower_info(struct vh_lower *l, struct vh_volume_info *i)
{
	struct vh_volume_info full = *blk_vol_info(l->v);
	uint32_t size = i->size;

	full.bytes = blk_vol_bytes(l->v);
	full.fd = -1;
	full.fd_base = 0;
	memcpy(i, &full, size < sizeof(full) ? size : sizeof(full));
	i->size = size;
	return 0;
}

static int lower_resize(struct vh_lower *l, uint64_t bytes, struct vh_err *e)
{
	return blk_vol_resize(l->v, bytes, e);
}

const struct vh_lower_ops blk_lower_service = {.size = sizeof(blk_lower_service),
					       .info = lower_info,
					       .queue = lower_queue,
					       .submit = lower_submit,
					       .resize = lower_resize};

/* What happens to the volume below happens to the one above. */
static void forward(void *ctx, uint32_t event, uint64_t value)
{
	struct blk_vol *upper = ctx;

	if (event == VH_EVENT_LEASE_LOST)
		atomic_fetch_or(&upper->state, BLK_LOST);
	blk_event(upper, event, value);
}

int blk_vol_filter(struct blk_vol *lower, const struct vh_filter_ops *f, const struct vh_opts *opts,
		   const struct blk_config *c, struct blk_vol **out, struct vh_err *e)
{
	struct vh_lower *l = calloc(1, sizeof(*l));
	struct vh_object *o = blk_object_new();
	struct vh_filter_open fo = {.size = sizeof(fo), .lower = l, .object = o, .opts = opts};
	struct blk_config mine = *c;
	const struct vh_volume_ops *theirs = NULL, *ops;
	void *vol = NULL;
	int r;

	if (!l || !o) {
		r = err_set(e, -ENOMEM, "no memory for filter %s", f->name);
		goto fail;
	}
	l->v = lower;
	mine.engine = BLK_ENGINE_AUTO;
	r = f->open(&fo, &vol, &theirs, e);
	if (r) {
		r = err_set(e, r < 0 ? r : -EPROTO, "filter %s does not open", f->name);
		goto fail;
	}
	ops = theirs ? plug_volume_ops(theirs) : NULL;
	if (!ops) {
		r = err_set(e, -EPROTO, "filter %s has no usable table of functions", f->name);
		goto fail;
	}
	r = blk_vol_make(vol, ops, &mine, lower, out, e);
	if (r) {
		ops->close(vol);
		err_context(e, "filter %s", f->name);
		goto fail;
	}
	(*out)->lower_handle = l;
	blk_object_bind(o, *out);
	blk_vol_listen(lower, forward, *out);
	return 0;
fail:
	blk_object_free(o);
	free(l);
	return r;
}

/* The filter's own volume is closed. */
void blk_lower_free(struct blk_vol *v)
{
	blk_vol_put(v->lower);
	free(v->lower_handle);
}
