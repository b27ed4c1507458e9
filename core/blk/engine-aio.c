/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * libaio with O_DIRECT: one io_submit for all that a turn gathered, an eventfd that wakes the loop, and completions read
 * from the ring that the kernel shares, without a system call.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <linux/magic.h>
#include <sys/eventfd.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "blk/blk-i.h"
#include "util/log.h"

#define BATCH 128
#define SPARES 32
#define RESFD 1u /* IOCB_FLAG_RESFD of linux/aio_abi.h, which libaio.h does not go with */
#define RETRY_NS 1000000u

/* What io_setup maps (fs/aio.c); only used when the magic is right. */
#define RING_MAGIC 0xa10a10a1u
struct aio_ring {
	unsigned id, nr, head, tail;
	unsigned magic, compat, incompat, header_length;
	struct io_event events[];
};

struct aio {
	io_context_t ctx;
	struct aio_ring *ring; /* NULL: the kernel's is another; io_getevents then */
	int evfd;
	unsigned cap; /* of the context */
	unsigned in_kernel, flushes; /* flushes: of them */
	struct vh_watch *watch;
	struct vh_timer *retry;
	int no_fdsync; /* this file has no asynchronous fsync */
	/* On tmpfs every read and write ends inside io_submit: the ring is looked at right after it, and signalling the
	 * eventfd for each would only wake the loop for nothing. */
	int in_memory;
	struct iocb *batch[BATCH];
};

/*
 * Contexts without a queue. io_destroy waits for an RCU grace period, some 30 ms, so that a program which opens and closes a
 * few volumes would do little else; those that are left are the kernel's to free when the process ends, all at once.
 */
static struct {
	pthread_mutex_t lock;
	pid_t pid; /* contexts are not inherited by fork */
	unsigned n;
	struct spare { io_context_t ctx; unsigned cap; } spare[SPARES];
} spares = {.lock = PTHREAD_MUTEX_INITIALIZER};

static io_context_t take_spare(unsigned cap)
{
	io_context_t ctx = NULL;

	pthread_mutex_lock(&spares.lock);
	if (spares.pid != getpid()) {
		spares.pid = getpid();
		spares.n = 0;
	}
	for (unsigned i = spares.n; i-- && !ctx;)
		if (spares.spare[i].cap >= cap && spares.spare[i].cap <= 2 * cap) {
			ctx = spares.spare[i].ctx;
			spares.spare[i] = spares.spare[--spares.n];
		}
	pthread_mutex_unlock(&spares.lock);
	return ctx;
}

static int keep_spare(io_context_t ctx, unsigned cap)
{
	int r = 0;

	pthread_mutex_lock(&spares.lock);
	if (spares.pid == getpid() && spares.n < SPARES) {
		spares.spare[spares.n++] = (struct spare){ctx, cap};
		r = 1;
	}
	pthread_mutex_unlock(&spares.lock);
	return r;
}

static void woken(void *ctx, uint32_t events)
{
	/* The queue is a poller of its loop, which polls after every wake-up. */
}

static void retry(void *ctx)
{
	blk_kick(ctx);
}

static void prepare(const struct blk_vol *v, const struct aio *a, struct blk_unit *u)
{
	struct iocb *c = &u->e.iocb;

	memset(c, 0, sizeof(*c));
	c->data = u;
	c->aio_fildes = v->fd;
	if (!a->in_memory || u->op == VH_FLUSH) {
		c->u.c.flags = RESFD;
		c->u.c.resfd = a->evfd;
	}
	if (u->op == VH_FLUSH) {
		c->aio_lio_opcode = IO_CMD_FDSYNC;
		return;
	}
	c->u.c.offset = (long long)(v->fd_base + u->off);
	if (u->niov == 1) {
		c->aio_lio_opcode = u->op == VH_READ ? IO_CMD_PREAD : IO_CMD_PWRITE;
		c->u.c.buf = u->iov->iov_base;
		c->u.c.nbytes = u->len;
	} else {
		c->aio_lio_opcode = u->op == VH_READ ? IO_CMD_PREADV : IO_CMD_PWRITEV;
		c->u.c.buf = (void *)u->iov;
		c->u.c.nbytes = u->niov;
	}
	if (u->flags & VH_REQ_FUA)
		c->aio_rw_flags = RWF_DSYNC;
}

/* Hands a[from..n) to the kernel. What it refuses for good fails, what it has no room for goes back. */
static int submit(struct blk_vq *q, struct aio *a, unsigned n)
{
	unsigned from = 0;

	while (from < n) {
		struct blk_unit *u = a->batch[from]->data;
		int r = io_submit(a->ctx, n - from, a->batch + from);

		if (r > 0) {
			a->in_kernel += (unsigned)r;
			while (r--)
				a->flushes += ((struct blk_unit *)a->batch[from++]->data)->op == VH_FLUSH;
		} else if (r == -EAGAIN || r == 0) {
			while (n > from)
				blk_unpop(q, a->batch[--n]->data);
			if (!a->in_kernel)
				loop_timer_at(a->retry, loop_now(q->loop) + RETRY_NS);
			return 0;
		} else if (r != -EINTR) {
			from++;
			if (u->op == VH_FLUSH && (r == -EINVAL || r == -EOPNOTSUPP)) {
				a->no_fdsync = 1;
				blk_work(q, u);
			} else {
				blk_finish(q, u, r);
			}
		}
	}
	return 1;
}

static int begin(struct blk_vq *q);

static void aio_send(struct blk_vq *q)
{
	struct aio *a = q->priv;
	struct blk_unit *u;
	unsigned n = 0;

	if (unlikely(!a->ctx) && !begin(q))
		return;
	while (a->in_kernel + n < q->cap && (u = blk_pop(q))) {
		if (u->op > VH_FLUSH || (u->op == VH_FLUSH && a->no_fdsync)) {
			blk_work(q, u);
			continue;
		}
		prepare(q->v, a, u);
		a->batch[n++] = &u->e.iocb;
		if (n == BATCH) {
			if (!submit(q, a, n))
				return;
			n = 0;
		}
	}
	if (n)
		submit(q, a, n);
}

static unsigned get_events(struct aio *a, struct io_event *ev, unsigned max)
{
	struct aio_ring *ring = a->ring;
	struct timespec zero = {0, 0};
	unsigned head, tail, n = 0;
	int r;

	if (unlikely(!ring)) {
		r = a->in_kernel ? io_getevents(a->ctx, 0, max, ev, &zero) : 0;
		return r > 0 ? (unsigned)r : 0;
	}
	head = ring->head; /* only this thread moves it */
	tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE);
	while (head != tail && n < max) {
		ev[n++] = ring->events[head];
		head = head + 1 == ring->nr ? 0 : head + 1;
	}
	if (n)
		__atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
	return n;
}

static int aio_reap(struct blk_vq *q)
{
	struct aio *a = q->priv;
	struct io_event ev[32];
	unsigned n, sum = 0;

	/* Bounded: what done() submits may complete at once, and others want their turn. */
	do {
		n = get_events(a, ev, 32);
		a->in_kernel -= n;
		for (unsigned i = 0; i < n; i++)
			a->flushes -= ((struct blk_unit *)ev[i].data)->op == VH_FLUSH;
		for (unsigned i = 0; i < n; i++)
			blk_end(q, ev[i].data, (int)(long)ev[i].res);
		sum += n;
	} while (n == 32 && sum < 1024);
	return (int)sum;
}

static int aio_sleep(struct blk_vq *q, int going)
{
	struct aio *a = q->priv;

	if (!going)
		return 0;
	if (a->ring && a->ring->head != __atomic_load_n(&a->ring->tail, __ATOMIC_ACQUIRE))
		return 1;
	return a->in_memory && a->in_kernel > a->flushes; /* should it not have ended after all: nobody would wake us */
}

static void aio_close(struct blk_vq *q)
{
	struct aio *a = q->priv;

	if (!a)
		return;
	loop_unwatch(a->watch);
	loop_timer_free(a->retry);
	if (a->ctx && (a->in_kernel || !keep_spare(a->ctx, a->cap)))
		io_destroy(a->ctx);
	if (a->evfd >= 0)
		close(a->evfd);
	free(a);
	q->priv = NULL;
}

/* The context comes with the first request: many a volume is opened only to be looked at. 0: the workers do all this. */
static int begin(struct blk_vq *q)
{
	struct aio *a = q->priv;
	struct aio_ring *ring;
	int r = 0;

	a->cap = q->cap;
	a->ctx = take_spare(q->cap);
	if (!a->ctx)
		r = io_setup((int)q->cap, &a->ctx);
	if (!r) {
		ring = (struct aio_ring *)a->ctx;
		a->ring = ring->magic == RING_MAGIC && !ring->incompat && ring->header_length == sizeof(*ring) ? ring : NULL;
		return 1;
	}
	log_warn("blk", "volume %s: libaio cannot be used (%s): worker threads do its I/O, more slowly; see %s", q->v->label,
		 strerror(-r), "/proc/sys/fs/aio-max-nr");
	a->ctx = NULL;
	aio_close(q);
	q->backend = &blk_threads;
	q->backend->send(q);
	return 0;
}

static int aio_open(struct blk_vq *q, struct vh_err *e)
{
	struct aio *a = calloc(1, sizeof(*a));
	struct statfs fs;
	int r;

	if (!a)
		return -ENOMEM;
	q->priv = a;
	a->in_memory = !fstatfs(q->v->fd, &fs) && fs.f_type == TMPFS_MAGIC;
	a->evfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = a->evfd < 0 ? -errno : loop_watch(q->loop, a->evfd, VH_IN | LOOP_EDGE, woken, q, &a->watch);
	if (!r)
		r = loop_timer(q->loop, retry, q, &a->retry);
	if (r)
		aio_close(q);
	return r;
}

const struct blk_backend blk_aio = {
	.name = "aio", .open = aio_open, .close = aio_close, .send = aio_send, .reap = aio_reap, .sleep = aio_sleep};
