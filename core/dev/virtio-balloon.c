/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * virtio-balloon: pages that the guest gives up go back to the host; it may take them again by touching them, when the
 * target falls or, with deflate-on-oom, when it must. Free page reporting gives back what the guest does not use anyway.
 * Page numbers are the guest's word: each is checked against memory, and a wrong one does nothing.
 */
#include <linux/virtio_balloon.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "dev/virtio.h"
#include "util/log.h"

#define PAGE 4096u
#define MAX_IOV 256u
#define MAX_STATS 64u /* entries read of one report */

/* Queues in the order of the negotiated ones, as Linux and QEMU have it; without free page hints reporting comes last. */
enum { Q_INFLATE, Q_DEFLATE, Q_STATS, N_QUEUES = 5 };

struct balloon {
	struct virtio_dev dev;
	/* Under the device's lock. */
	uint32_t num_pages, actual;
	uint64_t target;
	struct balloon_stats stats;
	/* The stats queue's loop. */
	int held; /* the driver's stats buffer is here, to be given back when new figures are wanted */
	uint16_t held_head;
	struct vh_task refresh;
};

static struct balloon *balloon_of(struct virtio_dev *d)
{
	return container_of(d, struct balloon, dev);
}

static struct mem *memory(struct balloon *b)
{
	return vm_mem(b->dev.vm);
}

/* Runs of neighbouring pages, up or down, are one call. */
struct run {
	uint64_t from, pages;
};

static void release_run(struct balloon *b, struct run *r)
{
	if (r->pages && mem_ptr(memory(b), r->from * PAGE, r->pages * PAGE))
		mem_release(memory(b), r->from * PAGE, r->pages * PAGE);
	r->pages = 0;
}

static void inflate(struct balloon *b, const struct vq_chain *c)
{
	struct run run = {0, 0};
	uint32_t pfn[256];

	for (uint64_t at = 0; at < c->out_len;) {
		size_t n = iov_to_buf(c->iov, c->n_out, at, pfn, sizeof(pfn));

		at += n;
		for (size_t i = 0; i < n / sizeof(pfn[0]); i++) {
			if (!mem_ptr(memory(b), (uint64_t)pfn[i] * PAGE, PAGE))
				continue;
			/* A run must not cross from one range of memory to the other. */
			if (run.pages && pfn[i] == run.from + run.pages && mem_ptr(memory(b), run.from * PAGE, (run.pages + 1) * PAGE)) {
				run.pages++;
			} else if (run.pages && (uint64_t)pfn[i] + 1 == run.from &&
				   mem_ptr(memory(b), (uint64_t)pfn[i] * PAGE, (run.pages + 1) * PAGE)) {
				run.from--;
				run.pages++;
			} else {
				release_run(b, &run);
				run = (struct run){pfn[i], 1};
			}
		}
		if (n % sizeof(pfn[0]))
			break;
	}
	release_run(b, &run);
}

/* Each writable buffer of a report is a free range; the pages come back zeroed when they are used again. */
static void report(struct balloon *b, const struct vq_chain *c)
{
	const struct mem *m = memory(b);

	for (unsigned i = c->n_out; i < c->n_out + c->n_in; i++)
		for (unsigned r = 0; r < m->n; r++) {
			uint64_t off = (uint64_t)((uint8_t *)c->iov[i].iov_base - m->range[r].host);

			if (off < m->range[r].bytes) {
				mem_release(memory(b), m->range[r].gpa + off, c->iov[i].iov_len);
				break;
			}
		}
}

static void take_stats(struct balloon *b, const struct vq_chain *c)
{
	struct virtio_balloon_stat s[MAX_STATS];
	size_t n = iov_to_buf(c->iov, c->n_out, 0, s, sizeof(s)) / sizeof(s[0]);
	struct timespec now;
	uint64_t *const by_tag[] = {
		[VIRTIO_BALLOON_S_SWAP_IN] = &b->stats.swap_in,
		[VIRTIO_BALLOON_S_SWAP_OUT] = &b->stats.swap_out,
		[VIRTIO_BALLOON_S_MAJFLT] = &b->stats.major_faults,
		[VIRTIO_BALLOON_S_MINFLT] = &b->stats.minor_faults,
		[VIRTIO_BALLOON_S_MEMFREE] = &b->stats.free,
		[VIRTIO_BALLOON_S_MEMTOT] = &b->stats.total,
		[VIRTIO_BALLOON_S_AVAIL] = &b->stats.available,
		[VIRTIO_BALLOON_S_CACHES] = &b->stats.disk_caches,
	};

	clock_gettime(CLOCK_REALTIME, &now);
	pthread_mutex_lock(&b->dev.lock);
	for (size_t i = 0; i < n; i++)
		if (s[i].tag < sizeof(by_tag) / sizeof(by_tag[0]))
			*by_tag[s[i].tag] = s[i].val;
	if (n) {
		b->stats.have = 1;
		b->stats.last_update = (uint64_t)now.tv_sec;
	}
	pthread_mutex_unlock(&b->dev.lock);
}

static int is_stats(const struct virtio_queue *q)
{
	return q->index == Q_STATS && virtio_has(q->dev, VIRTIO_BALLOON_F_STATS_VQ);
}

static void serve(struct balloon *b, struct virtio_queue *q, const struct vq_chain *c)
{
	if (q->index == Q_INFLATE) {
		inflate(b, c);
	} else if (is_stats(q)) {
		take_stats(b, c);
		if (b->held) /* only one is ever wanted; an older one goes back */
			vq_push(&q->vq, b->held_head, 0);
		b->held = 1;
		b->held_head = c->head;
		return;
	} else if (q->index >= Q_STATS && virtio_has(q->dev, VIRTIO_BALLOON_F_REPORTING)) {
		report(b, c);
	}
	vq_push(&q->vq, c->head, 0);
}

static void balloon_notify(struct virtio_queue *q)
{
	struct balloon *b = balloon_of(q->dev);
	struct iovec iov[MAX_IOV];
	struct vq_chain c = {.iov = iov, .cap = MAX_IOV};
	int r;

	do {
		vq_notify_off(&q->vq);
		while ((r = vq_pop(&q->vq, &c)) > 0)
			serve(b, q, &c);
		if (r < 0) {
			virtio_queue_broken(q);
			return;
		}
	} while (vq_notify_on(&q->vq));
	virtio_queue_flush(q);
}

static void balloon_stop(struct virtio_queue *q)
{
	if (q->index == Q_STATS)
		balloon_of(q->dev)->held = 0;
}

/* [queue] Gives the stats buffer back: the driver answers with fresh figures. */
static void balloon_refresh(struct vh_task *t)
{
	struct balloon *b = container_of(t, struct balloon, refresh);
	struct virtio_queue *q = &b->dev.queue[Q_STATS];

	if (!q->running || !b->held || q->vq.broken)
		return;
	b->held = 0;
	vq_push(&q->vq, b->held_head, 0);
	virtio_queue_flush(q);
}

static void balloon_config_read(struct virtio_dev *d, unsigned off, void *data, unsigned len)
{
	struct balloon *b = balloon_of(d);
	uint32_t c[2] = {b->num_pages, b->actual};

	memcpy(data, (uint8_t *)c + off, len);
}

static void balloon_config_write(struct virtio_dev *d, unsigned off, const void *data, unsigned len)
{
	if (off == offsetof(struct virtio_balloon_config, actual) && len == 4)
		memcpy(&balloon_of(d)->actual, data, 4);
}

/* The next driver begins with an empty balloon and its own figures. */
static void balloon_reset(struct virtio_dev *d)
{
	struct balloon *b = balloon_of(d);

	b->actual = 0;
	memset(&b->stats, 0, sizeof(b->stats));
}

static void forget_refresh(void *ctx)
{
	struct balloon *b = ctx;

	loop_cancel(b->dev.queue[Q_STATS].loop, &b->refresh);
}

static void balloon_free(struct virtio_dev *d)
{
	struct balloon *b = balloon_of(d);

	virtio_pci_exit(d);
	if (d->queue && d->queue[Q_STATS].loop) {
		if (loop_is_current(d->queue[Q_STATS].loop))
			forget_refresh(b);
		else
			loop_call(d->queue[Q_STATS].loop, forget_refresh, b);
	}
	virtio_queues_free(d);
	free(b);
}

static const struct virtio_ops balloon_ops = {
	.name = "balloon",
	.id = VIRTIO_ID_BALLOON,
	.pci_class = {0xff, 0, 0},
	.config_read = balloon_config_read,
	.config_write = balloon_config_write,
	.reset = balloon_reset,
	.queue_stop = balloon_stop,
	.queue_notify = balloon_notify,
	.free = balloon_free,
};

int virtio_balloon_new(struct vm *v, struct pci_host *h, struct vh_loop *l, struct virtio_dev **out, struct vh_err *e)
{
	struct balloon *b = calloc(1, sizeof(*b));
	struct virtio_dev *d;
	int r;

	if (!b)
		return err_set(e, -ENOMEM, "no memory for a balloon device");
	d = &b->dev;
	b->refresh.fn = balloon_refresh;
	b->target = vm_mem(v)->bytes;
	d->ops = &balloon_ops;
	d->vm = v;
	d->label = "balloon";
	d->n_queues = N_QUEUES;
	d->max_queue_size = 128;
	d->config_size = 8;
	d->features = VIRTIO_BIT(VIRTIO_BALLOON_F_STATS_VQ) | VIRTIO_BIT(VIRTIO_BALLOON_F_DEFLATE_ON_OOM) |
		      VIRTIO_BIT(VIRTIO_BALLOON_F_REPORTING);
	r = virtio_queues_new(d, e);
	for (unsigned i = 0; !r && i < d->n_queues; i++)
		d->queue[i].loop = l;
	if (!r)
		r = virtio_pci_init(d, h, e);
	if (r) {
		balloon_free(d);
		return r;
	}
	*out = d;
	return 0;
}

void virtio_balloon_set(struct virtio_dev *d, uint64_t target_bytes)
{
	struct balloon *b = balloon_of(d);
	uint64_t all = vm_mem(d->vm)->bytes;

	if (target_bytes > all)
		target_bytes = all;
	pthread_mutex_lock(&d->lock);
	b->target = target_bytes;
	b->num_pages = (uint32_t)((all - target_bytes) / PAGE);
	pthread_mutex_unlock(&d->lock);
	virtio_notify_config(d);
}

void virtio_balloon_get(struct virtio_dev *d, struct balloon_stats *out)
{
	struct balloon *b = balloon_of(d);
	uint64_t all = vm_mem(d->vm)->bytes, inside;

	pthread_mutex_lock(&d->lock);
	*out = b->stats;
	inside = (uint64_t)b->actual * PAGE;
	out->actual = inside < all ? all - inside : 0; /* the driver's word */
	out->target = b->target;
	pthread_mutex_unlock(&d->lock);
	/* The answer comes in time for the next question. */
	loop_post(d->queue[Q_STATS].loop, &b->refresh);
}
