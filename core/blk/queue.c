/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Queues: the short way of a request, gathering, completion, time limits. */
#include <stdlib.h>
#include <string.h>
#include "blk/blk-i.h"
#include "util/log.h"

/* ---- time limit: units in flight by age, only when the volume has one ---- */

static void late_check(void *ctx)
{
	struct blk_vq *q = ctx;
	struct blk_vol *v = q->v;
	uint64_t now = loop_now(q->loop);
	struct blk_unit *u;

	for (u = q->oldest; u && u->since + v->timeout <= now; u = u->newer) {
		if (u->late)
			continue;
		u->late = 1;
		q->n_late++;
		if (!atomic_fetch_add(&v->stalled, 1))
			log_warn("blk", "volume %s: a request takes longer than %llu ms; it stays pinned", v->label,
				 (unsigned long long)(v->timeout / 1000000));
		blk_event(v, BLK_EVENT_STALLED, atomic_load(&v->stalled));
		if (q->backend->cancel)
			q->backend->cancel(q, u);
	}
	while (u && u->late)
		u = u->newer;
	loop_timer_at(q->timer, u ? u->since + v->timeout : 0);
}

static void timed_add(struct blk_vq *q, struct blk_unit *u)
{
	u->late = 0;
	u->since = loop_now(q->loop);
	u->newer = NULL;
	u->older = q->newest;
	if (q->newest) {
		q->newest->newer = u;
	} else {
		q->oldest = u;
		loop_timer_at(q->timer, u->since + q->v->timeout);
	}
	q->newest = u;
}

void blk_timed_add(struct blk_vq *q, struct blk_unit *u)
{
	if (unlikely(q->timer != NULL))
		timed_add(q, u);
}

static void timed_remove(struct blk_vq *q, struct blk_unit *u)
{
	*(u->older ? &u->older->newer : &q->oldest) = u->newer;
	*(u->newer ? &u->newer->older : &q->newest) = u->older;
	if (u->late) {
		q->n_late--;
		if (atomic_fetch_sub(&q->v->stalled, 1) == 1)
			blk_event(q->v, BLK_EVENT_MOVING, 0);
	}
	if (!q->oldest)
		loop_timer_at(q->timer, 0);
}

/* ---- units ---- */

void blk_push(struct blk_vq *q, struct blk_unit *u)
{
	u->q = q;
	u->next = NULL;
	u->e.slot = NULL;
	u->dropped = 0;
	*q->out_tail = u;
	q->out_tail = &u->next;
	q->inflight++;
	blk_timed_add(q, u);
	loop_defer(q->loop, &q->send_task);
}

void blk_unpop(struct blk_vq *q, struct blk_unit *u)
{
	u->next = q->out;
	if (!q->out)
		q->out_tail = &u->next;
	q->out = u;
}

void blk_finish(struct blk_vq *q, struct blk_unit *u, int res)
{
	u->res = res;
	u->next = NULL;
	*q->finished_tail = u;
	q->finished_tail = &u->next;
	if (!q->sending)
		loop_defer(q->loop, &q->send_task);
}

/* The plugin was asked to give it up, and has: what for is known here. Unasked it is an error like any other. */
static int given_up(const struct blk_vq *q, struct blk_unit *u)
{
	int late = q->timer && u->late;

	u->dropped = late || atomic_load(&q->v->state) & BLK_LOST;
	return late ? -ETIMEDOUT : -EIO;
}

void blk_end(struct blk_vq *q, struct blk_unit *u, int res)
{
	if (unlikely(u->end == blk_merged)) {
		blk_merge_end(q, u, res);
		return;
	}
	if (u->op != VH_READ && u->op != VH_FLUSH) /* before anybody can know that it has ended; whatever came of it */
		atomic_store_explicit(&q->mods, atomic_load_explicit(&q->mods, memory_order_relaxed) + 1, memory_order_release);
	q->inflight--;
	if (unlikely(res == -ECANCELED))
		res = given_up(q, u);
	if (unlikely(q->timer != NULL))
		timed_remove(q, u);
	if (q->ended)
		q->ended(q, u);
	u->end(u, res);
}

static int end_finished(struct blk_vq *q)
{
	struct blk_unit *u, *list = q->finished;
	int n = 0;

	/* What their done() submits, and fails at once, waits for the next round. */
	q->finished = NULL;
	q->finished_tail = &q->finished;
	while ((u = list)) {
		list = u->next;
		blk_end(q, u, u->res);
		n++;
	}
	return n;
}

/* `posters` lets the queue outlive a thread that has pushed its unit but not posted the task yet. */
void blk_end_remote(struct blk_vq *q, struct blk_unit *u, int res)
{
	struct blk_unit *head;

	u->res = res;
	atomic_fetch_add_explicit(&q->posters, 1, memory_order_acquire);
	head = atomic_load_explicit(&q->remote, memory_order_relaxed);
	do {
		u->next = head;
	} while (!atomic_compare_exchange_weak_explicit(&q->remote, &head, u, memory_order_release, memory_order_relaxed));
	if (!head)
		loop_post(q->loop, &q->remote_task);
	atomic_fetch_sub_explicit(&q->posters, 1, memory_order_release);
}

static int end_remote(struct blk_vq *q)
{
	struct blk_unit *u, *in_order = NULL;
	int n = 0;

	if (likely(!atomic_load_explicit(&q->remote, memory_order_relaxed)))
		return 0;
	u = atomic_exchange_explicit(&q->remote, NULL, memory_order_acquire);
	while (u) {
		struct blk_unit *next = u->next;

		u->next = in_order;
		in_order = u;
		u = next;
	}
	while ((u = in_order)) {
		in_order = u->next;
		blk_end(q, u, u->res);
		n++;
	}
	return n;
}

/* Ends whatever is complete. What done() submits meanwhile is sent by the deferred task. */
static int reap(struct blk_vq *q)
{
	int n = 0;

	if (q->reaping)
		return 0;
	q->reaping = 1;
	if (q->backend->reap)
		n += q->backend->reap(q);
	n += end_remote(q);
	n += end_finished(q);
	q->reaping = 0;
	if ((n && q->out && !q->blocked) || q->finished) /* the backend was full, and has room now */
		loop_defer(q->loop, &q->send_task);
	return n;
}

void blk_kick(struct blk_vq *q)
{
	if (q->sending) /* called by done() from below: the deferred task takes it up */
		return;
	q->sending = 1;
	if (q->out && q->out->next && q->merge_free)
		blk_merge(q);
	if (q->out && !q->blocked)
		q->backend->send(q);
	q->sending = 0;
	reap(q);
}

static void send_fn(struct vh_task *t)
{
	blk_kick(container_of(t, struct blk_vq, send_task));
}

static void remote_fn(struct vh_task *t)
{
	reap(container_of(t, struct blk_vq, remote_task));
}

int blk_poll(struct blk_vq *q)
{
	return reap(q);
}

static int poller_poll(struct loop_poller *p)
{
	return blk_poll(container_of(p, struct blk_vq, poller));
}

static int poller_sleep(struct loop_poller *p, int going)
{
	struct blk_vq *q = container_of(p, struct blk_vq, poller);

	return q->backend->sleep ? q->backend->sleep(q, going) : 0;
}

/* ---- requests ---- */

static void fail_end(struct blk_unit *u, int res)
{
	struct blk_io *io = unit_io(u);

	io->done(io, res);
}

void blk_io_fail(struct blk_vq *q, struct blk_io *io, int res)
{
	struct blk_unit *u = &io_priv(io)->u;

	u->q = q;
	u->end = fail_end;
	u->op = VH_READ; /* it changed nothing */
	u->e.slot = NULL;
	q->inflight++;
	blk_timed_add(q, u);
	blk_finish(q, u, res);
}

void blk_latch(struct blk_vol *v, int res)
{
	if (atomic_fetch_or(&v->state, BLK_FAILED) & BLK_FAILED)
		return;
	log_error("blk", "volume %s: a flush failed (%s); writes are refused until it is reopened", v->label, strerror(-res));
	blk_event(v, BLK_EVENT_FAILED, (uint64_t)-res);
}

static void rw_end(struct blk_unit *u, int res)
{
	struct blk_io *io = unit_io(u);
	struct blk_vq *q = u->q;

	if (u->op != VH_READ)
		blk_modify_end(q, &io_priv(io)->range);
	if (likely(res >= 0)) {
		if (unlikely((uint64_t)res != u->len)) {
			blk_slow_start(q, io); /* a short transfer: carefully, from the start */
			return;
		}
		res = 0;
	}
	io->done(io, res);
}

static void flush_end(struct blk_unit *u, int res)
{
	struct blk_io *io = unit_io(u);

	if (likely(res >= 0))
		blk_flush_covered(u->q->v, u->len);
	else if (!u->dropped) /* else none has failed: there was none */
		blk_latch(u->q->v, res);
	io->done(io, res < 0 ? res : 0);
}

static void rw_granted(struct blk_range *r)
{
	struct blk_priv *p = container_of(r, struct blk_priv, range);

	blk_push(r->q, &p->u);
}

/* The bits of a request's buffers that are misaligned, or ~0 when they are not `len` bytes. */
static uint64_t many_bits(const struct blk_vol *v, const struct blk_io *io)
{
	uint64_t bits = 0, sum = 0;

	if (io->niov > v->max_segments)
		return ~UINT64_C(0);
	for (uint32_t i = 0; i < io->niov; i++) {
		bits |= ((uintptr_t)io->iov[i].iov_base & v->buf_mask) | (io->iov[i].iov_len & v->len_mask);
		sum += io->iov[i].iov_len;
	}
	return sum == io->len ? bits : ~UINT64_C(0);
}

/* Whether one unit does it: aligned, in bounds, within limits. */
static inline int is_plain(const struct blk_vol *v, const struct blk_io *io)
{
	uint64_t bits = (io->off | io->len) & v->len_mask;

	if (likely(io->niov == 1))
		bits |= ((uintptr_t)io->iov->iov_base & v->buf_mask) | (io->iov->iov_len ^ io->len);
	else
		bits |= many_bits(v, io);
	/* len - 1: no bytes at all are not plain either; bytes and max_bytes are far from overflowing. */
	return !bits && !(io->flags & ~v->unit_flags) && io->len - 1 < v->max_bytes &&
	       io->off <= INT64_MAX && io->off + io->len <= atomic_load_explicit(&v->bytes, memory_order_relaxed);
}

static int check(struct blk_vol *v, const struct blk_io *io)
{
	unsigned s = atomic_load_explicit(&v->state, memory_order_relaxed);
	uint64_t end, sum = 0;

	if (s & BLK_LOST)
		return -EIO;
	if (io->op != VH_READ) {
		if (s & BLK_FAILED)
			return -EIO;
		if (s & BLK_READ_ONLY)
			return io->op == VH_FLUSH ? 1 : -EROFS;
	}
	if (io->op == VH_FLUSH)
		return v->caps & (VH_VOL_FLUSH | VH_VOL_WRITE_CACHE) ? 0 : 1;
	if (io->op < VH_READ || io->op > VH_ZERO || __builtin_add_overflow(io->off, io->len, &end) || end > INT64_MAX)
		return -EINVAL;
	if (io->op <= VH_WRITE) {
		for (uint32_t i = 0; i < io->niov; i++)
			if (__builtin_add_overflow(sum, io->iov[i].iov_len, &sum))
				return -EINVAL;
		if (sum != io->len)
			return -EINVAL;
	}
	return io->len ? 0 : 1;
}

static void submit_rest(struct blk_vq *q, struct blk_io *io)
{
	struct blk_unit *u = &io_priv(io)->u;
	int r = check(q->v, io);
	uint64_t mods = 0;

	if (r) {
		blk_io_fail(q, io, r < 0 ? r : 0);
	} else if (io->op == VH_FLUSH && blk_flush_needless(q->v, &mods)) {
		blk_io_fail(q, io, 0); /* which succeeds */
	} else if (io->op == VH_FLUSH) {
		*u = (struct blk_unit){.q = q, .end = flush_end, .op = VH_FLUSH, .len = mods};
		blk_flush_push(q, u);
	} else {
		blk_slow_start(q, io);
	}
}

void blk_submit(struct blk_vq *q, struct blk_io *io)
{
	struct blk_priv *p = io_priv(io);
	struct blk_vol *v = q->v;
	unsigned refused = io->op == VH_READ ? BLK_LOST : BLK_LOST | BLK_FAILED | BLK_READ_ONLY;

	if (unlikely(io->op - VH_READ > VH_WRITE - VH_READ || !is_plain(v, io) ||
		     (atomic_load_explicit(&v->state, memory_order_relaxed) & refused))) {
		submit_rest(q, io);
		return;
	}
	p->u.q = q;
	p->u.end = rw_end;
	p->u.iov = io->iov;
	p->u.niov = io->niov;
	p->u.off = io->off;
	p->u.len = io->len;
	p->u.op = io->op;
	p->u.flags = io->flags;
	if (io->op == VH_WRITE) {
		q->wrote = 1;
		p->range.granted = rw_granted;
		if (!blk_modify_begin(q, &p->range, io->off, io->off + io->len))
			return;
	}
	blk_push(q, &p->u);
}

/* ---- opening and closing ---- */

/* The volume's own queue is opened under sync.mutex, which making room takes: it only asks. */
static int queue_room(struct blk_vol *v, int internal, struct vh_err *e)
{
	uint32_t max = v->info.max_queues, n;

	pthread_mutex_lock(&v->lock);
	n = v->n_queues;
	pthread_mutex_unlock(&v->lock);
	if (v->fd >= 0 || !max || n < max || (!internal && blk_sync_make_room(v)))
		return 0;
	return err_set(e, -EUSERS, "volume %s has no more than %u queues", v->label, max);
}

static void lost_fn(struct vh_task *t)
{
	struct blk_vq *q = container_of(t, struct blk_vq, lost_task);

	if (q->backend->cancel_all)
		q->backend->cancel_all(q);
}

static int vq_open(struct blk_vol *v, struct vh_loop *l, uint32_t depth, int internal, struct blk_vq **out, struct vh_err *e)
{
	struct blk_vq *q;
	int r;

	if (!depth || depth > 65536)
		return err_set(e, -EINVAL, "queue depth %u is not 1 to 65536", depth);
	r = queue_room(v, internal, e);
	if (r)
		return r;
	q = aligned_alloc(64, sizeof(*q));
	if (!q)
		return err_set(e, -ENOMEM, "no memory for a queue of volume %s", v->label);
	memset(q, 0, sizeof(*q));
	q->v = v;
	q->loop = l;
	q->internal = (uint8_t)internal;
	q->backend = v->backend;
	q->out_tail = &q->out;
	q->finished_tail = &q->finished;
	q->slow_tail = &q->slow_head;
	q->send_task.fn = send_fn;
	q->remote_task.fn = remote_fn;
	q->lost_task.fn = lost_fn;
	q->poller = (struct loop_poller){poller_poll, poller_sleep, NULL};
	q->depth = depth;
	q->cap = depth + BLK_EXTRA;
	r = blk_slow_init(q, e);
	if (!r)
		r = blk_merge_init(q, e);
	if (!r && v->timeout)
		r = loop_timer(l, late_check, q, &q->timer);
	if (!r) {
		pthread_mutex_lock(&v->main_lock);
		r = q->backend->open(q, e);
		pthread_mutex_unlock(&v->main_lock);
	}
	if (r) {
		loop_timer_free(q->timer);
		blk_slow_fini(q);
		blk_merge_fini(q);
		free(q);
		return err_set(e, r, "cannot open a queue of volume %s: %s", v->label, strerror(-r));
	}
	loop_poller_add(l, &q->poller);
	pthread_mutex_lock(&v->lock);
	q->next = v->queues;
	v->queues = q;
	v->n_queues++;
	pthread_mutex_unlock(&v->lock);
	if (!internal) /* that one is no user of the volume */
		blk_vol_ref(v);
	*out = q;
	return 0;
}

int blk_vq_open(struct blk_vol *v, struct vh_loop *l, uint32_t depth, struct blk_vq **out, struct vh_err *e)
{
	return vq_open(v, l, depth, 0, out, e);
}

int blk_vq_open_internal(struct blk_vol *v, struct vh_loop *l, uint32_t depth, struct blk_vq **out, struct vh_err *e)
{
	return vq_open(v, l, depth, 1, out, e);
}

void blk_vq_close(struct blk_vq *q)
{
	struct blk_vol *v;
	int internal;

	if (!q)
		return;
	v = q->v;
	blk_flush_leave(q);
	pthread_mutex_lock(&v->lock);
	for (struct blk_vq **p = &v->queues; *p; p = &(*p)->next)
		if (*p == q) {
			*p = q->next;
			break;
		}
	v->flush.closed += atomic_load_explicit(&q->mods, memory_order_relaxed);
	v->n_queues--;
	pthread_mutex_unlock(&v->lock);
	loop_poller_remove(q->loop, &q->poller);
	while (atomic_load_explicit(&q->posters, memory_order_acquire))
		__builtin_ia32_pause();
	q->backend->close(q);
	loop_cancel(q->loop, &q->send_task);
	loop_cancel(q->loop, &q->remote_task);
	loop_cancel(q->loop, &q->flush_task);
	loop_cancel(q->loop, &q->lost_task);
	loop_timer_free(q->timer);
	blk_slow_fini(q);
	blk_merge_fini(q);
	internal = q->internal;
	free(q);
	if (!internal)
		blk_vol_put(v);
}
