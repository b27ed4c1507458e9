/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * io_uring: one io_uring_enter for all that a turn gathered, completions polled from the shared ring. The eventfd that
 * wakes the loop is switched off while the loop is awake.
 */
#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "blk/blk-i.h"
#include "util/log.h"

#define ENTRIES_MAX 4096u
#define RETRY_NS 1000000u

struct uring {
	struct io_uring ring;
	int evfd, up;
	unsigned in_kernel, unsent; /* unsent: in the submission ring, the kernel has not taken them */
	unsigned entries;
	struct vh_watch *watch;
	struct vh_timer *retry;
};

static void woken(void *ctx, uint32_t events)
{
	/* The queue is a poller of its loop, which polls after every wake-up. */
}

static void enter(struct blk_vq *q, struct uring *g)
{
	int r;

	while (g->unsent) {
		r = io_uring_submit(&g->ring);
		if (r > 0) {
			g->unsent -= (unsigned)r < g->unsent ? (unsigned)r : g->unsent;
		} else if (r != -EINTR) { /* -EAGAIN, -EBUSY: no room now */
			loop_timer_at(g->retry, loop_now(q->loop) + RETRY_NS);
			return;
		}
	}
}

static void retry(void *ctx)
{
	struct blk_vq *q = ctx;

	enter(q, q->priv);
	blk_kick(q);
}

static void prepare(const struct blk_vol *v, struct io_uring_sqe *sqe, struct blk_unit *u)
{
	uint64_t at = v->fd_base + u->off;

	switch (u->op) {
	case VH_READ:
		if (u->niov == 1)
			io_uring_prep_read(sqe, v->fd, u->iov->iov_base, (unsigned)u->len, at);
		else
			io_uring_prep_readv(sqe, v->fd, u->iov, u->niov, at);
		break;
	case VH_WRITE:
		if (u->niov == 1)
			io_uring_prep_write(sqe, v->fd, u->iov->iov_base, (unsigned)u->len, at);
		else
			io_uring_prep_writev(sqe, v->fd, u->iov, u->niov, at);
		if (u->flags & VH_REQ_FUA)
			sqe->rw_flags = RWF_DSYNC;
		break;
	default:
		io_uring_prep_fsync(sqe, v->fd, IORING_FSYNC_DATASYNC);
	}
	io_uring_sqe_set_data(sqe, u);
}

static void uring_send(struct blk_vq *q)
{
	struct uring *g = q->priv;
	struct io_uring_sqe *sqe;
	struct blk_unit *u;

	while (q->out && g->in_kernel < g->entries) {
		if (q->out->op > VH_FLUSH) {
			blk_work(q, blk_pop(q));
			continue;
		}
		sqe = io_uring_get_sqe(&g->ring);
		if (!sqe)
			break;
		u = blk_pop(q);
		prepare(q->v, sqe, u);
		g->in_kernel++;
		g->unsent++;
	}
	enter(q, g);
}

static int uring_reap(struct blk_vq *q)
{
	struct uring *g = q->priv;
	struct io_uring_cqe *cqe[32];
	struct { struct blk_unit *u; int res; } ev[32];
	unsigned n, sum = 0;

	do {
		n = io_uring_peek_batch_cqe(&g->ring, cqe, 32);
		for (unsigned i = 0; i < n; i++) {
			ev[i].u = io_uring_cqe_get_data(cqe[i]);
			ev[i].res = cqe[i]->res;
		}
		io_uring_cq_advance(&g->ring, n);
		g->in_kernel -= n;
		for (unsigned i = 0; i < n; i++) {
			if (ev[i].res == -EAGAIN || ev[i].res == -EINTR) { /* the kernel gave up; nothing was done */
				blk_work(q, ev[i].u);
				continue;
			}
			blk_end(q, ev[i].u, ev[i].res);
		}
		sum += n;
	} while (n == 32 && sum < 1024);
	return (int)sum;
}

static int uring_sleep(struct blk_vq *q, int going)
{
	struct uring *g = q->priv;

	io_uring_cq_eventfd_toggle(&g->ring, going);
	if (!going)
		return 0;
	atomic_thread_fence(memory_order_seq_cst); /* a completion before this saw it off, and is seen here */
	return io_uring_cq_ready(&g->ring) != 0 || IO_URING_READ_ONCE(*g->ring.sq.kflags) & (IORING_SQ_CQ_OVERFLOW | IORING_SQ_TASKRUN);
}

static void uring_close(struct blk_vq *q)
{
	struct uring *g = q->priv;

	if (!g)
		return;
	loop_unwatch(g->watch);
	loop_timer_free(g->retry);
	if (g->up)
		io_uring_queue_exit(&g->ring);
	if (g->evfd >= 0)
		close(g->evfd);
	free(g);
	q->priv = NULL;
}

static int uring_open(struct blk_vq *q, struct vh_err *e)
{
	struct uring *g = calloc(1, sizeof(*g));
	struct io_uring_params p = {.flags = IORING_SETUP_CLAMP};
	int r;

	if (!g)
		return -ENOMEM;
	q->priv = g;
	g->evfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = g->evfd < 0 ? -errno : io_uring_queue_init_params(q->cap < ENTRIES_MAX ? q->cap : ENTRIES_MAX, &g->ring, &p);
	if (!r) {
		g->up = 1;
		g->entries = p.cq_entries;
		r = io_uring_register_eventfd(&g->ring, g->evfd);
	}
	if (!r)
		r = loop_watch(q->loop, g->evfd, VH_IN | LOOP_EDGE, woken, q, &g->watch);
	if (!r)
		r = loop_timer(q->loop, retry, q, &g->retry);
	if (!r)
		return 0;
	uring_close(q);
	if (r == -ENOSYS || r == -EPERM || r == -EACCES || r == -ENOMEM) {
		q->backend = q->v->buffered ? &blk_threads : &blk_aio;
		log_warn("blk", "volume %s: io_uring cannot be used (%s): %s does its I/O; see %s", q->v->label, strerror(-r),
			 q->backend->name, "/proc/sys/kernel/io_uring_disabled and the memlock limit");
		return q->backend->open(q, e);
	}
	return r;
}

const struct blk_backend blk_uring = {
	.name = "io_uring", .open = uring_open, .close = uring_close, .send = uring_send, .reap = uring_reap, .sleep = uring_sleep};
