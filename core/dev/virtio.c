/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * How queues run on loops, and how a device stops. The driver's side (vCPU threads, under the device's lock) only says
 * what it wants and posts a task; starting and stopping happen on the queue's own loop. A reset is therefore never
 * waited for by a vCPU: the status reads as before until every queue has stopped and every request has ended.
 */
#include <linux/virtio_config.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "dev/virtio.h"
#include "util/log.h"

static void queue_turn(struct virtio_queue *q)
{
	if (q->running && !q->vq.broken)
		q->dev->ops->queue_notify(q);
}

static void queue_rang(void *ctx, uint32_t events)
{
	(void)events;
	queue_turn(ctx);
}

static int queue_poll(struct loop_poller *p)
{
	struct virtio_queue *q = container_of(p, struct virtio_queue, poller);

	return q->vq.broken ? 0 : q->dev->ops->queue_poll(q);
}

static int queue_sleep(struct loop_poller *p, int going)
{
	struct virtio_queue *q = container_of(p, struct virtio_queue, poller);
	int work = 0;

	if (q->vq.broken)
		return 0;
	if (!q->quiet) {
		if (going)
			work = vq_notify_on(&q->vq);
		else
			vq_notify_off(&q->vq);
	}
	if (q->dev->ops->queue_sleep)
		work |= q->dev->ops->queue_sleep(q, going);
	return work;
}

static void queue_flush(struct vh_task *t)
{
	struct virtio_queue *q = container_of(t, struct virtio_queue, flush);

	q->flush_armed = 0;
	if (q->vq.enabled)
		virtio_queue_flush(q);
}

/* [queue] The ring is served here. */
static void queue_serve(struct virtio_queue *q)
{
	struct virtio_dev *d = q->dev;
	int r;

	r = loop_watch(q->loop, q->kick_fd, VH_IN | LOOP_EDGE, queue_rang, q, &q->watch);
	if (r) {
		log_error("virtio", "%s: queue %u cannot be watched: %s", d->label, q->index, strerror(-r));
		q->watch = NULL;
		q->vq.broken = 1;
	}
	if (d->ops->queue_poll)
		loop_poller_add(q->loop, &q->poller);
	queue_turn(q);
}

/* [queue] */
static void queue_go(struct virtio_queue *q)
{
	q->running = 1;
	q->quiet = q->foreign = 0;
	if (q->dev->ops->queue_start)
		q->dev->ops->queue_start(q);
	if (!q->foreign)
		queue_serve(q);
}

void virtio_queue_take(struct virtio_queue *q)
{
	if (q->running)
		queue_go(q);
}

/* Any thread but with the lock: the queue is quiet. Twice for one stop does no harm. */
static void queue_stopped(struct virtio_queue *q)
{
	struct virtio_dev *d = q->dev;

	pthread_mutex_lock(&d->lock);
	if (q->stop_pending) {
		q->stop_pending = 0;
		q->started = 0;
		vq_disable(&q->vq);
		if (!d->resetting) {
			q->reg_reset = 0;
			q->reg_enable = 0;
		} else if (--d->stopping == 0) {
			virtio_transport_reset(d);
		}
		pthread_cond_broadcast(&d->idle);
	}
	pthread_mutex_unlock(&d->lock);
}

/* [queue] */
static void queue_halt(struct virtio_queue *q)
{
	struct virtio_dev *d = q->dev;

	loop_unwatch(q->watch);
	q->watch = NULL;
	if (d->ops->queue_poll && !q->foreign)
		loop_poller_remove(q->loop, &q->poller);
	if (d->ops->queue_stop)
		d->ops->queue_stop(q);
	q->running = 0;
	q->stopping = 1;
	if (!q->inflight)
		virtio_queue_idle(q);
}

/* The last request of a stopping queue has ended: nothing touches its rings any more. */
void virtio_queue_idle(struct virtio_queue *q)
{
	q->stopping = 0;
	if (q->flush_armed) {
		loop_cancel(q->loop, &q->flush);
		q->flush_armed = 0;
	}
	queue_stopped(q);
}

static void queue_sync(struct vh_task *t)
{
	struct virtio_queue *q = container_of(t, struct virtio_queue, sync);
	int want = __atomic_load_n(&q->want, __ATOMIC_ACQUIRE);

	if (q->stopping)
		return;
	if (want && !q->running)
		queue_go(q);
	else if (!want && q->running)
		queue_halt(q);
	else if (!want)
		queue_stopped(q);
}

void virtio_sync_queue(void *queue)
{
	struct virtio_queue *q = queue;

	loop_cancel(q->loop, &q->sync);
	queue_sync(&q->sync);
}

void virtio_forget_queue(void *queue)
{
	struct virtio_queue *q = queue;

	loop_cancel(q->loop, &q->sync);
	loop_cancel(q->loop, &q->flush);
}

void virtio_start_queue(struct virtio_queue *q)
{
	if (q->started)
		return;
	q->started = 1;
	__atomic_store_n(&q->want, 1, __ATOMIC_RELEASE);
	virtio_transport_bell(q, 1);
	loop_post(q->loop, &q->sync);
}

void virtio_stop_queue(struct virtio_queue *q)
{
	if (!q->started || q->stop_pending)
		return;
	virtio_transport_bell(q, 0);
	q->stop_pending = 1;
	__atomic_store_n(&q->want, 0, __ATOMIC_RELEASE);
	loop_post(q->loop, &q->sync);
}

void virtio_begin_reset(struct virtio_dev *d)
{
	if (d->resetting)
		return;
	d->resetting = 1;
	d->stopping = 0;
	for (unsigned i = 0; i < d->n_queues; i++)
		if (d->queue[i].started) {
			d->stopping++;
			virtio_stop_queue(&d->queue[i]);
		}
	if (!d->stopping)
		virtio_transport_reset(d);
}

void virtio_queue_interrupt(struct virtio_queue *q)
{
	struct virtio_dev *d = q->dev;
	uint16_t vector;

	if (pci_msix_enabled(&d->pci)) {
		vector = __atomic_load_n(&q->vector, __ATOMIC_RELAXED);
		if (vector != VIRTIO_NO_VECTOR)
			pci_msix_signal(&d->pci, vector);
		return;
	}
	__atomic_fetch_or(&d->isr, 1, __ATOMIC_SEQ_CST);
	pci_intx(&d->pci, 1);
}

static void config_interrupt(struct virtio_dev *d)
{
	uint16_t vector;

	if (pci_msix_enabled(&d->pci)) {
		vector = __atomic_load_n(&d->config_vector, __ATOMIC_RELAXED);
		if (vector != VIRTIO_NO_VECTOR)
			pci_msix_signal(&d->pci, vector);
		return;
	}
	__atomic_fetch_or(&d->isr, 2, __ATOMIC_SEQ_CST);
	pci_intx(&d->pci, 1);
}

void virtio_notify_config(struct virtio_dev *d)
{
	__atomic_fetch_add(&d->generation, 1, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&d->lock);
	/* Before DRIVER_OK nobody listens; a driver reads the configuration when it starts. */
	if (d->status & VIRTIO_CONFIG_S_DRIVER_OK && !d->resetting)
		config_interrupt(d);
	pthread_mutex_unlock(&d->lock);
}

void virtio_need_reset(struct virtio_dev *d, const char *why)
{
	if (__atomic_exchange_n(&d->needs_reset, 1, __ATOMIC_SEQ_CST))
		return;
	log_warn("virtio", "%s: the guest's driver broke the rules (%s): stopped until it resets the device", d->label, why);
	virtio_notify_config(d);
}

void virtio_queue_broken(struct virtio_queue *q)
{
	virtio_queue_flush(q);
	virtio_need_reset(q->dev, q->vq.why ? q->vq.why : "broken queue");
}

int virtio_queues_new(struct virtio_dev *d, struct vh_err *e)
{
	d->queue = calloc(d->n_queues, sizeof(*d->queue));
	if (!d->queue)
		return err_set(e, -ENOMEM, "no memory for %u queues", d->n_queues);
	for (unsigned i = 0; i < d->n_queues; i++)
		d->queue[i].kick_fd = -1;
	for (unsigned i = 0; i < d->n_queues; i++) {
		struct virtio_queue *q = &d->queue[i];

		q->dev = d;
		q->index = i;
		q->vq.mem = vm_mem(d->vm);
		q->vector = VIRTIO_NO_VECTOR;
		q->poller.poll = queue_poll;
		q->poller.sleep = queue_sleep;
		q->flush.fn = queue_flush;
		q->sync.fn = queue_sync;
		q->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (q->kick_fd < 0) {
			int r = err_set(e, -errno, "cannot make a doorbell: %s", strerror(errno));
			virtio_queues_free(d);
			return r;
		}
	}
	return 0;
}

void virtio_queues_free(struct virtio_dev *d)
{
	for (unsigned i = 0; d->queue && i < d->n_queues; i++)
		if (d->queue[i].kick_fd >= 0)
			close(d->queue[i].kick_fd);
	free(d->queue);
	d->queue = NULL;
}

void virtio_free(struct virtio_dev *d)
{
	if (d)
		d->ops->free(d);
}
