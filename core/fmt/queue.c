/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Queues: the flat path, intake and completion, notes from other threads, opening and closing. */
#include <sched.h>
#include <stdlib.h>
#include "fmt/impl.h"

void note_push(struct fmt_queue *q, struct note *n)
{
	struct note *head;

	__atomic_add_fetch(&q->posters, 1, __ATOMIC_ACQUIRE); /* the queue outlives us */
	head = __atomic_load_n(&q->notes, __ATOMIC_RELAXED);
	do {
		n->next = head;
	} while (!__atomic_compare_exchange_n(&q->notes, &head, n, 1, __ATOMIC_RELEASE, __ATOMIC_RELAXED));
	loop_post(q->loop, &q->note_task);
	__atomic_sub_fetch(&q->posters, 1, __ATOMIC_RELEASE);
}

/* In the order they were pushed. */
void notes_run(struct fmt_queue *q)
{
	struct note *n, *list;

	if (q->in_notes)
		return;
	q->in_notes = 1;
	while ((n = __atomic_exchange_n(&q->notes, NULL, __ATOMIC_ACQUIRE))) {
		for (list = NULL; n;) {
			struct note *next = n->next;

			n->next = list;
			list = n;
			n = next;
		}
		while ((n = list)) {
			list = n->next;
			n->fn(q, n);
		}
	}
	q->in_notes = 0;
}

static void note_task(struct vh_task *t)
{
	notes_run(container_of(t, struct fmt_queue, note_task));
}

/* One less in flight; whoever drains may be waiting for the last. */
static void ended(struct fmt_queue *q)
{
	q->inflight--;
	if (!q->idle_wanted || q->inflight)
		return;
	pthread_mutex_lock(&q->image->lock);
	q->idle = 1;
	pthread_cond_broadcast(&q->image->cond);
	pthread_mutex_unlock(&q->image->lock);
}

static void deliver(struct fmt_queue *q, struct fmt_io *io, int result)
{
	if (result < 0)
		count(&q->stats.errors, 1);
	io->done(io, result);
	ended(q);
}

/* At the end of the turn: completions that must not run inside fmt_submit. */
static void complete_later(struct fmt_queue *q, struct fmt_io *io, int result)
{
	fio_of(io)->result = result;
	io_list_add(&q->done, io);
	loop_defer(q->loop, &q->done_task);
}

/* Without policy: wrong requests, and what needs no I/O. */
static void complete_early(struct fmt_queue *q, struct fmt_io *io, int result)
{
	q->inflight++;
	complete_later(q, io, result);
}

static int keeps(const struct fmt_queue *q, const struct fmt_io *io, int error)
{
	enum fmt_policy p = io->op == VH_READ ? q->image->on_read_error : q->image->on_write_error;

	return !q->service && !__atomic_load_n(&q->image->no_keep, __ATOMIC_RELAXED) && error != -EINVAL && error != -ECANCELED &&
	       (p == FMT_STOP || (p == FMT_STOP_ENOSPC && error == -ENOSPC));
}

void io_end(struct fmt_queue *q, struct fmt_io *io, int result)
{
	struct fmt_image *i = q->image;

	if (result < 0 && keeps(q, io, result)) {
		io_list_add(&q->kept, io);
		if (!__atomic_exchange_n(&i->is_stopped, 1, __ATOMIC_ACQ_REL) && i->stopped)
			i->stopped(i->stopped_ctx, i->label, result);
		ended(q);
	} else if (q->submitting) {
		complete_later(q, io, result);
	} else {
		deliver(q, io, result);
	}
	if (q->backlog.head && !q->hold)
		loop_defer(q->loop, &q->done_task);
}

static void flat_done(struct blk_io *bio, int result)
{
	fio_ended(container_of(bio, struct fio, bio), result);
}

static void flat_begin(struct fmt_queue *q, struct fmt_io *io)
{
	struct fio *f = fio_of(io);

	if (io->op == VH_DISCARD && !q->flat_discard) {
		complete_early(q, io, 0);
		return;
	}
	if (io->op == FMT_SHARE) {
		q->inflight++;
		share_flat(q, io);
		return;
	}
	f->bio.op = io->op;
	f->bio.flags = io->flags & (VH_REQ_FUA | VH_REQ_MAY_UNMAP);
	f->bio.niov = io->niov;
	f->bio.iov = io->iov;
	f->bio.off = io->op == VH_FLUSH ? 0 : io->off + q->flat_addr;
	f->bio.len = io->len;
	f->bio.done = flat_done;
	q->inflight++;
	blk_submit(q->flat_vq->vq, &f->bio);
}

/* 1: begun, or ended; 0: it must wait. */
static int begin(struct fmt_queue *q, struct fmt_io *io)
{
	struct fmt_layer *top = q->image->layers[0];
	int ok;

	if (q->flat) {
		flat_begin(q, io);
		return 1;
	}
	if (mapped_begin(q, io))
		return 1;
	if (io->op == VH_DISCARD && (!(top->info.caps & VH_FMT_DISCARD))) {
		complete_early(q, io, 0);
		return 1;
	}
	if (q->broken) {
		complete_early(q, io, -ENOMEM);
		return 1;
	}
	q->inflight++;
	q->submitting++;
	ok = req_begin(q, io);
	q->submitting--;
	if (!ok)
		q->inflight--;
	return ok;
}

/* Ends what can never become a request. */
static int refuse(struct fmt_queue *q, struct fmt_io *io)
{
	if ((io->op < VH_READ || io->op > VH_ZERO) && io->op != FMT_SHARE) {
		complete_early(q, io, -EOPNOTSUPP);
		return 1;
	}
	if (io->off > q->bytes || io->len > q->bytes - io->off || (io->op == VH_FLUSH && io->len)) {
		complete_early(q, io, -EINVAL);
		return 1;
	}
	if (q->read_only && io->op != VH_READ) {
		complete_early(q, io, io->op == VH_FLUSH ? 0 : -EROFS);
		return 1;
	}
	if (!io->len && io->op != VH_FLUSH) {
		complete_early(q, io, 0);
		return 1;
	}
	return 0;
}

void fmt_submit(struct fmt_queue *q, struct fmt_io *io)
{
	fio_of(io)->q = q;
	if (__builtin_expect(io->op >= VH_READ && io->op <= VH_ZERO, 1)) {
		count(&q->stats.ops[io->op], 1);
		count(&q->stats.bytes[io->op], io->len);
	}
	if (q->hold || q->backlog.head) {
		io_list_add(&q->backlog, io);
		return;
	}
	if (refuse(q, io))
		return;
	if (!begin(q, io))
		io_list_add(&q->backlog, io);
}

static int can_begin(const struct fmt_queue *q)
{
	return q->flat || q->broken || q->req_free || q->nreqs < q->depth;
}

static void done_task(struct vh_task *t)
{
	struct fmt_queue *q = container_of(t, struct fmt_queue, done_task);
	struct fmt_io *io;

	while ((io = io_list_take(&q->done)))
		deliver(q, io, fio_of(io)->result);
	/* No code of the user runs between taking one and beginning it, so nothing overtakes. */
	while (!q->hold && q->backlog.head && can_begin(q)) {
		io = io_list_take(&q->backlog);
		if (!refuse(q, io))
			begin(q, io);
	}
}

void fmt_kick(struct fmt_queue *q)
{
	if (q->flat) {
		blk_kick(q->flat_vq->vq);
		return;
	}
	gather_run(q);
	for (uint32_t k = 0; k < q->nvqs; k++) {
		if (!q->vqs[k].gathered)
			continue;
		q->vqs[k].gathered = 0;
		blk_kick(q->vqs[k].vq);
	}
}

int fmt_poll(struct fmt_queue *q)
{
	int n = 0;

	if (q->flat)
		return blk_poll(q->flat_vq->vq);
	for (uint32_t k = 0; k < q->nvqs; k++)
		if (q->vqs[k].inflight)
			n += blk_poll(q->vqs[k].vq);
	return n;
}

/* After fmt_resume: what a policy kept runs again from the start. */
static void resume_note(struct fmt_queue *q, struct note *n)
{
	struct fmt_io *last = q->kept.head;

	__atomic_store_n(&q->resume_posted, 0, __ATOMIC_RELEASE);
	if (!last)
		return;
	/* In front of what waits already. */
	while (fio_of(last)->next)
		last = fio_of(last)->next;
	fio_of(last)->next = q->backlog.head;
	if (!q->backlog.head)
		q->backlog.tail = &fio_of(last)->next;
	q->backlog.head = q->kept.head;
	io_list_init(&q->kept);
	loop_defer(q->loop, &q->done_task);
}

void fmt_resume(struct fmt_image *i)
{
	__atomic_store_n(&i->is_stopped, 0, __ATOMIC_RELEASE);
	pthread_mutex_lock(&i->lock);
	for (uint32_t k = 0; k < FMT_MAX_QUEUES; k++) {
		struct fmt_queue *q = i->queues[k];

		if (q && !__atomic_exchange_n(&q->resume_posted, 1, __ATOMIC_ACQ_REL))
			note_push(q, &q->resume_note);
	}
	pthread_mutex_unlock(&i->lock);
}

void fmt_keep(struct fmt_image *i, int keep)
{
	__atomic_store_n(&i->no_keep, !keep, __ATOMIC_RELAXED);
	if (!keep)
		fmt_resume(i);
}

void queue_apply(struct fmt_queue *q)
{
	struct fmt_image *i = q->image;

	for (uint32_t k = 0; q->rcache && k < i->nlayers; k++)
		cache_clear(&q->rcache[k]);
	cache_clear(&q->wcache);
	q->bytes = i->layers[0]->info.bytes;
	q->flat = i->flat && q->vqs;
	q->flat_discard = i->flat_discard;
	q->flat_addr = i->flat_addr;
	q->flat_vq = q->vqs ? &q->vqs[i->layers[0]->vq_base + i->flat_vol] : NULL;
	if (!q->flat && !q->reqs)
		q->broken = queue_machine(q) < 0;
}

/* How many I/Os one volume of a layer may have in flight from one queue: deep layers are cold, and kernels bound the sum. */
static uint32_t vq_depth(uint32_t layer, uint32_t depth)
{
	uint32_t all = depth + (depth / 2 < 8 ? 8 : depth / 2 > 64 ? 64 : depth / 2);

	if (layer >= 8)
		return 4;
	return layer ? (all < 32 ? all : 32) : all;
}

static void vqs_close(struct fmt_queue *q)
{
	for (uint32_t k = 0; q->vqs && k < q->nvqs; k++)
		if (q->vqs[k].vq)
			blk_vq_close(q->vqs[k].vq);
	free(q->vqs);
	q->vqs = NULL;
}

static int vqs_open(struct fmt_queue *q, struct vh_err *e)
{
	struct fmt_image *i = q->image;
	uint32_t n = 0;

	q->nvqs = i->nvqs;
	q->vqs = calloc(q->nvqs ? q->nvqs : 1, sizeof(*q->vqs));
	if (!q->vqs)
		return err_set(e, -ENOMEM, "no memory for a queue");
	for (uint32_t k = 0; k < i->nlayers; k++) {
		for (uint32_t v = 0; v < i->layers[k]->nvols; v++, n++) {
			struct fvq *f = &q->vqs[n];
			int r;

			f->wait_tail = &f->wait;
			f->depth = vq_depth(k, q->depth);
			if (!i->layers[k]->vols[v])
				continue;
			r = blk_vq_open(i->layers[k]->vols[v], q->loop, f->depth, &f->vq, e);
			if (r < 0)
				return r;
		}
	}
	return 0;
}

int queue_open(struct fmt_image *i, struct vh_loop *l, uint32_t depth, int service, struct fmt_queue **out, struct vh_err *e)
{
	struct fmt_queue *q = calloc(1, sizeof(*q));
	int r;

	if (!q)
		return err_set(e, -ENOMEM, "no memory for a queue");
	q->image = i;
	q->loop = l;
	q->depth = depth ? depth : 1;
	q->service = service;
	q->read_only = i->read_only;
	q->done_task.fn = done_task;
	q->gather_task.fn = gather_task;
	q->gather_tail = &q->gather;
	q->note_task.fn = note_task;
	q->resume_note.fn = resume_note;
	io_list_init(&q->backlog);
	io_list_init(&q->done);
	io_list_init(&q->kept);
	r = vqs_open(q, e);
	if (r < 0)
		goto error;
	queue_apply(q);
	if (q->broken) {
		r = err_set(e, -ENOMEM, "no memory for a queue of depth %u", depth);
		goto error;
	}
	pthread_mutex_lock(&i->lock);
	for (q->index = 0; q->index < FMT_MAX_QUEUES && i->queues[q->index]; q->index++)
		;
	if (q->index < FMT_MAX_QUEUES) {
		q->hold = i->drains && !service;
		q->idle_wanted = q->hold;
		q->idle = 1;
		i->nqueues++;
		excl_attach(q);
	}
	pthread_mutex_unlock(&i->lock);
	if (q->index == FMT_MAX_QUEUES) {
		r = err_set(e, -EUSERS, "an image has at most %u queues", FMT_MAX_QUEUES);
		goto error;
	}
	*out = q;
	return 0;
error:
	queue_machine_free(q);
	vqs_close(q);
	free(q);
	return r;
}

int fmt_queue_open(struct fmt_image *i, struct vh_loop *l, uint32_t depth, struct fmt_queue **out, struct vh_err *e)
{
	return queue_open(i, l, depth, 0, out, e);
}

static void cancel_list(struct fmt_queue *q, struct io_list *l)
{
	struct fmt_io *io;

	while ((io = io_list_take(l)))
		io->done(io, -ECANCELED);
}

void fmt_queue_close(struct fmt_queue *q)
{
	struct fmt_image *i;

	if (!q)
		return;
	i = q->image;
	cancel_list(q, &q->kept);
	cancel_list(q, &q->backlog);
	done_task(&q->done_task);
	pthread_mutex_lock(&i->lock);
	excl_detach(q);
	i->nqueues--;
	for (int k = 0; k < 6; k++) {
		i->closed.ops[k] += q->stats.ops[k];
		i->closed.bytes[k] += q->stats.bytes[k];
	}
	i->closed.errors += q->stats.errors;
	i->closed.map_calls += q->stats.map_calls;
	i->closed.commits += q->stats.commits;
	i->closed.cache_hits += q->stats.cache_hits;
	i->closed.flushes += q->stats.flushes;
	i->closed.exclusive += q->stats.exclusive;
	i->closed.gathered += q->stats.gathered;
	pthread_mutex_unlock(&i->lock);
	excl_settle(q);
	while (__atomic_load_n(&q->posters, __ATOMIC_ACQUIRE))
		sched_yield();
	loop_cancel(q->loop, &q->note_task);
	loop_cancel(q->loop, &q->done_task);
	loop_cancel(q->loop, &q->gather_task);
	vqs_close(q);
	queue_machine_free(q);
	free(q);
}
