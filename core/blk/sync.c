/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Blocking I/O for control calls and meta workers. It goes through a queue of the volume's own, on a loop of its own that
 * starts with the first such call, so that alignment, limits, growth, latching and the time limit are those of every other
 * request. A plugin that has no queue left for it serves it through one of the user's.
 */
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "blk/blk-i.h"

#define SYNC_DEPTH 32
#define STEP (1u << 20)

/* On the heap with its data: when the time is up the caller goes, and the request stays pinned until it ends. */
struct sync_req {
	struct blk_io io;
	struct vh_task task;
	struct blk_vq *q;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int ended, gone, res;
	struct iovec iov;
	void *buf;
};

static void req_free(struct sync_req *r)
{
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->cond);
	free(r->buf);
	free(r);
}

static void leave(struct blk_vol *v, struct blk_vq *q)
{
	pthread_mutex_lock(&v->lock);
	v->sync.users--;
	q->guests--; /* blk_vq_close waits for this */
	pthread_cond_broadcast(&v->cond);
	pthread_mutex_unlock(&v->lock);
}

static void req_done(struct blk_io *io, int res)
{
	struct sync_req *r = container_of(io, struct sync_req, io);
	struct blk_vq *q = r->q;
	int gone;

	pthread_mutex_lock(&r->lock);
	r->res = res;
	r->ended = 1;
	gone = r->gone;
	pthread_cond_signal(&r->cond);
	pthread_mutex_unlock(&r->lock);
	if (gone) {
		req_free(r);
		leave(q->v, q);
	}
}

static void req_submit(struct vh_task *t)
{
	struct sync_req *r = container_of(t, struct sync_req, task);

	blk_submit(r->q, &r->io);
}

struct open_ctx {
	struct blk_vol *v;
	struct vh_err *e;
	int r;
};

static void open_fn(void *ctx)
{
	struct open_ctx *o = ctx;

	o->r = blk_vq_open_internal(o->v, o->v->sync.loop, SYNC_DEPTH, &o->v->sync.q, o->e);
}

/* Under sync.mutex. */
static int own_queue(struct blk_vol *v, struct vh_err *e)
{
	struct open_ctx o = {v, e, 0};
	int r;

	if (v->sync.q)
		return 0;
	r = v->sync.loop ? 0 : loop_new("blk-sync", &v->sync.loop, e);
	if (!r && !loop_tid(v->sync.loop)) {
		loop_set_poll_max(v->sync.loop, 0);
		r = loop_start(v->sync.loop, e);
	}
	if (r)
		return r;
	loop_call(v->sync.loop, open_fn, &o);
	return o.r;
}

static void close_fn(void *ctx)
{
	struct blk_vol *v = ctx;

	blk_vq_close(v->sync.q);
	v->sync.q = NULL;
}

/* Waits for what goes through the volume's own queue, and closes it. */
static int give_up(struct blk_vol *v)
{
	int had = 0;

	pthread_mutex_lock(&v->sync.mutex);
	if (v->sync.q) {
		pthread_mutex_lock(&v->lock);
		while (v->sync.users)
			pthread_cond_wait(&v->cond, &v->lock);
		pthread_mutex_unlock(&v->lock);
		loop_call(v->sync.loop, close_fn, v);
		had = 1;
	}
	pthread_mutex_unlock(&v->sync.mutex);
	return had;
}

int blk_sync_make_room(struct blk_vol *v)
{
	return give_up(v);
}

void blk_sync_fini(struct blk_vol *v)
{
	give_up(v);
	loop_free(v->sync.loop);
}

/* The queue for one request; it stays open until `users` falls. */
static int enter(struct blk_vol *v, struct blk_vq **out, struct vh_err *e)
{
	ERR_AUTO(own);
	int r, full;

	pthread_mutex_lock(&v->sync.mutex);
	pthread_mutex_lock(&v->lock);
	full = !v->sync.q && v->fd < 0 && v->info.max_queues && v->n_queues >= v->info.max_queues;
	pthread_mutex_unlock(&v->lock);
	r = full ? -EUSERS : own_queue(v, &own);
	pthread_mutex_lock(&v->lock);
	*out = r ? NULL : v->sync.q;
	for (struct blk_vq *q = v->queues; r == -EUSERS && q && !*out; q = q->next)
		if (!q->closing && loop_tid(q->loop))
			*out = q;
	if (*out) {
		v->sync.users++;
		(*out)->guests++;
	}
	pthread_mutex_unlock(&v->lock);
	pthread_mutex_unlock(&v->sync.mutex);
	if (*out)
		return 0;
	if (!own.code)
		return err_set(e, -EBUSY, "volume %s has no queue left for control calls", v->label);
	err_move(e, &own);
	return r;
}

/* Waits for r; -ETIMEDOUT: it is no longer the caller's. */
static int wait_for(struct blk_vol *v, struct sync_req *r, struct vh_err *e)
{
	struct timespec until;
	int timed_out = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_nsec += (long)(v->timeout % 1000000000u);
	until.tv_sec += (time_t)(v->timeout / 1000000000u) + until.tv_nsec / 1000000000;
	until.tv_nsec %= 1000000000;
	pthread_mutex_lock(&r->lock);
	while (!r->ended && !timed_out) {
		if (v->timeout)
			timed_out = pthread_cond_timedwait(&r->cond, &r->lock, &until) == ETIMEDOUT;
		else
			pthread_cond_wait(&r->cond, &r->lock);
	}
	r->gone = !r->ended; /* then req_done() cleans up */
	timed_out = r->gone;
	pthread_mutex_unlock(&r->lock);
	if (!timed_out)
		return 0;
	return err_set(e, -ETIMEDOUT, "volume %s did not answer within %llu ms", v->label,
		       (unsigned long long)(v->timeout / 1000000));
}

static int queue_io(struct blk_vol *v, uint16_t op, void *buf, uint64_t len, uint64_t off, struct vh_err *e)
{
	struct sync_req *r = calloc(1, sizeof(*r));
	pthread_condattr_t attr;
	int res;

	if (r && op <= VH_WRITE)
		r->buf = aligned_alloc(4096, (len + 4095) & ~(uint64_t)4095);
	if (!r || (op <= VH_WRITE && !r->buf)) {
		free(r);
		return err_set(e, -ENOMEM, "no memory for a request of %llu bytes", (unsigned long long)len);
	}
	if (op == VH_WRITE)
		memcpy(r->buf, buf, len);
	r->iov = (struct iovec){r->buf, len};
	r->io = (struct blk_io){.op = op, .off = off, .len = len, .iov = &r->iov, .niov = op <= VH_WRITE, .done = req_done};
	r->task.fn = req_submit;
	pthread_mutex_init(&r->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&r->cond, &attr);
	pthread_condattr_destroy(&attr);
	res = enter(v, &r->q, e);
	if (res) {
		req_free(r);
		return res;
	}
	loop_post(r->q->loop, &r->task);
	res = wait_for(v, r, e);
	if (res)
		return res;
	leave(v, r->q);
	res = r->res;
	if (!res && op == VH_READ)
		memcpy(buf, r->buf, len);
	req_free(r);
	return res;
}

/* ---- a volume with an fd and no time limit: on this thread ---- */

static int fd_full(struct blk_vol *v, int op, uint8_t *buf, uint64_t len, uint64_t off)
{
	while (len) {
		struct iovec iov = {buf, len < v->max_bytes ? len : v->max_bytes};
		int64_t n = blk_fd_rw(v, op, 0, &iov, 1, off);

		if (n < 0)
			return (int)n;
		if (op == VH_READ && (uint64_t)n < iov.iov_len && (n & (int64_t)v->len_mask || !n)) { /* the file's end */
			memset(buf + n, 0, len - (uint64_t)n);
			return 0;
		}
		if (!n)
			return -ENOSPC;
		buf += n;
		len -= (uint64_t)n;
		off += (uint64_t)n;
	}
	return 0;
}

/* One piece through an aligned buffer; returns how many bytes it was, or an error. */
static int64_t fd_bounce(struct blk_vol *v, int op, uint8_t *buf, uint64_t len, uint64_t off, uint8_t *tmp)
{
	uint64_t mask = v->len_mask, a = off & ~mask, end, b;
	int r = 0;

	end = off + len < a + STEP ? off + len : a + STEP;
	b = (end + mask) & ~mask;
	if (op == VH_READ) {
		r = fd_full(v, VH_READ, tmp, b - a, a);
		memcpy(buf, tmp + (off - a), end - off);
	} else {
		if (off != a)
			r = fd_full(v, VH_READ, tmp, mask + 1, a);
		if (!r && end != b && (b - a > mask + 1 || off == a))
			r = fd_full(v, VH_READ, tmp + (b - a) - mask - 1, mask + 1, b - mask - 1);
		memcpy(tmp + (off - a), buf, end - off);
		if (!r)
			r = fd_full(v, VH_WRITE, tmp, b - a, a);
	}
	return r ? r : (int64_t)(end - off);
}

static int fd_move(struct blk_vol *v, int op, uint8_t *buf, uint64_t len, uint64_t off)
{
	uint8_t *tmp = NULL;
	int64_t n = 0;

	while (len) {
		uint64_t whole = len & ~v->len_mask;

		if (!((uintptr_t)buf & v->buf_mask) && !(off & v->len_mask) && whole) {
			n = fd_full(v, op, buf, whole, off);
			n = n ? n : (int64_t)whole;
		} else {
			if (!tmp && !(tmp = aligned_alloc(BLK_ALIGN_MAX, STEP)))
				return -ENOMEM;
			n = fd_bounce(v, op, buf, len, off, tmp);
		}
		if (n < 0)
			break;
		buf += n;
		len -= (uint64_t)n;
		off += (uint64_t)n;
	}
	free(tmp);
	return n < 0 ? (int)n : 0;
}

int blk_fd_write_zeros(struct blk_vol *v, uint64_t off, uint64_t end)
{
	int r = 0;

	for (uint64_t n; off < end && !r; off += n) {
		n = end - off < BLK_BOUNCE ? end - off : BLK_BOUNCE;
		r = fd_move(v, VH_WRITE, (uint8_t *)(uintptr_t)blk_zeros(), n, off);
	}
	return r;
}

static int fd_zero_range(struct blk_vol *v, uint64_t len, uint64_t off)
{
	uint64_t mask = v->len_mask, end = off + len, first = (off + mask) & ~mask, last = end & ~mask;
	int r = -EOPNOTSUPP;

	if (first >= last)
		return blk_fd_write_zeros(v, off, end);
	if (v->caps & VH_VOL_ZERO && !atomic_load(&v->no_zero))
		/* A file keeps the blocks that it has; a thin volume would take some for zeros. */
		r = blk_fd_op(v, VH_ZERO, v->caps & VH_VOL_FD_BLOCK ? VH_REQ_MAY_UNMAP : 0, first, last - first);
	if (r == -EOPNOTSUPP) {
		atomic_store(&v->no_zero, 1);
		r = blk_fd_write_zeros(v, first, last);
	}
	if (!r)
		r = blk_fd_write_zeros(v, off, first);
	return r ? r : blk_fd_write_zeros(v, last, end);
}

static int fd_io(struct blk_vol *v, uint16_t op, void *buf, uint64_t len, uint64_t off)
{
	uint64_t mask = v->len_mask, bytes = blk_vol_bytes(v), end = off + len;
	unsigned s = atomic_load(&v->state);
	struct blk_range range;
	int r = 0;

	if (s & BLK_LOST || (op != VH_READ && s & BLK_FAILED))
		return -EIO;
	if (op != VH_READ && s & BLK_READ_ONLY)
		return op == VH_FLUSH ? 0 : -EROFS;
	if (op == VH_FLUSH && !(v->caps & (VH_VOL_FLUSH | VH_VOL_WRITE_CACHE)))
		return 0;
	if (op == VH_FLUSH) {
		r = blk_fd_op(v, VH_FLUSH, 0, 0, 0);
		if (r)
			blk_latch(v, r);
		return r;
	}
	if (op == VH_READ) {
		uint64_t n = end <= bytes ? len : bytes > off ? bytes - off : 0;

		memset((uint8_t *)buf + n, 0, len - n);
		return fd_move(v, VH_READ, buf, n, off);
	}
	if (op == VH_DISCARD) {
		uint64_t gran = v->info.discard_gran > mask + 1 ? v->info.discard_gran : mask + 1, align = v->info.discard_align;

		end = end < bytes ? end : bytes;
		off += (gran - (off + gran - align % gran) % gran) % gran;
		if (end > off)
			end -= (end + gran - align % gran) % gran;
		if (!(v->caps & VH_VOL_DISCARD) || end <= off || end > bytes)
			return 0;
		len = end - off;
	} else if (end > bytes) {
		r = v->caps & VH_VOL_GROW ? blk_grow_now(v, end, NULL) : -ENOSPC;
		if (r)
			return r;
	}
	if (mask)
		blk_range_begin(v, NULL, &range, off & ~mask, (end + mask) & ~mask, op != VH_DISCARD && (off | len) & mask);
	if (op == VH_WRITE)
		r = fd_move(v, VH_WRITE, buf, len, off);
	else
		r = op == VH_ZERO ? fd_zero_range(v, len, off) : blk_fd_op(v, VH_DISCARD, 0, off, len);
	if (mask)
		blk_range_end(v, &range);
	return r;
}

/* ---- the calls ---- */

static int sync_io(struct blk_vol *v, uint16_t op, const char *what, void *buf, uint64_t len, uint64_t off, struct vh_err *e)
{
	uint8_t *p = buf;
	int r = 0;

	if (off > INT64_MAX || len > INT64_MAX - off)
		return err_set(e, -EINVAL, "volume %s has no byte %llu", v->label, (unsigned long long)off);
	if (v->fd >= 0 && !v->timeout) {
		if (len || op == VH_FLUSH)
			r = fd_io(v, op, buf, len, off);
		if (op != VH_READ && op != VH_FLUSH) /* also when it failed: a part may be done */
			atomic_fetch_add(&v->other_mods, 1);
	} else if (op > VH_WRITE) {
		r = queue_io(v, op, NULL, len, off, e);
	} else {
		/* In pieces that end at multiples of a block, so that no block is merged twice. */
		for (uint64_t n; len && !r; len -= n, off += n, p += n) {
			n = STEP - (off & (STEP - 1));
			n = n < len ? n : len;
			r = queue_io(v, op, p, n, off, e);
		}
	}
	return r < 0 ? err_set(e, r, "cannot %s volume %s at byte %llu: %s", what, v->label, (unsigned long long)off, strerror(-r))
		     : 0;
}

int blk_read(struct blk_vol *v, void *buf, uint64_t len, uint64_t off, struct vh_err *e)
{
	return sync_io(v, VH_READ, "read", buf, len, off, e);
}

int blk_write(struct blk_vol *v, const void *buf, uint64_t len, uint64_t off, struct vh_err *e)
{
	return sync_io(v, VH_WRITE, "write", (void *)(uintptr_t)buf, len, off, e);
}

int blk_zero(struct blk_vol *v, uint64_t len, uint64_t off, struct vh_err *e)
{
	return sync_io(v, VH_ZERO, "zero", NULL, len, off, e);
}

int blk_discard(struct blk_vol *v, uint64_t len, uint64_t off, struct vh_err *e)
{
	return sync_io(v, VH_DISCARD, "discard", NULL, len, off, e);
}

int blk_flush(struct blk_vol *v, struct vh_err *e)
{
	return sync_io(v, VH_FLUSH, "flush", NULL, 0, 0, e);
}
