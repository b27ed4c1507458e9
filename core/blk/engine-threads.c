/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The engine of buffered volumes: worker threads, except for reads that the page cache can answer, which are done at once
 * on the loop. The other engines run here what the kernel has no asynchronous form for.
 */
#include <sys/uio.h>
#include "blk/blk-i.h"

#define INLINE_MAX (64u << 10) /* more is better copied by a worker */

static void work_fn(struct work *w)
{
	struct blk_unit *u = container_of(w, struct blk_unit, e.work);
	struct blk_vol *v = u->q->v;
	int res;

	if (u->op <= VH_WRITE)
		res = (int)blk_fd_rw(v, u->op, u->flags, u->iov, u->niov, u->off);
	else
		res = blk_fd_op(v, u->op, u->flags, u->off, u->len);
	blk_end_remote(u->q, u, res);
}

void blk_work(struct blk_vq *q, struct blk_unit *u)
{
	u->e.work.fn = work_fn;
	worker_submit(q->v->workers, &u->e.work);
}

static int read_cached(struct blk_vol *v, struct blk_unit *u)
{
	ssize_t n;

	if (u->op != VH_READ || u->len > INLINE_MAX || !v->buffered)
		return 0;
	n = preadv2(v->fd, u->iov, (int)u->niov, (off_t)(v->fd_base + u->off), RWF_NOWAIT);
	return n == (ssize_t)u->len;
}

static void threads_send(struct blk_vq *q)
{
	struct blk_unit *u;

	while ((u = blk_pop(q))) {
		if (read_cached(q->v, u))
			blk_finish(q, u, (int)u->len);
		else
			blk_work(q, u);
	}
}

static int threads_open(struct blk_vq *q, struct vh_err *e)
{
	return 0;
}

static void threads_close(struct blk_vq *q)
{
}

const struct blk_backend blk_threads = {
	.name = "threads", .open = threads_open, .close = threads_close, .send = threads_send};
