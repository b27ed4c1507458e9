/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * virtio-blk over a disk image. Each queue has its own end of the image on its own loop and its requests, made once, so
 * queues share nothing but the image's map. A batch of the ring is submitted with one kick, completions of a turn are
 * shown with one interrupt, and while the loop is busy the doorbell stays off.
 */
/* The kernel's name for the configuration's layout is the name of our parameters in dev/virtio.h. */
#define virtio_blk_config virtio_blk_space
#include <linux/virtio_blk.h>
#undef virtio_blk_config
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include "dev/virtio.h"
#include "fmt/image.h"
#include "util/log.h"

#define QUEUE_SIZE 256u
#define SEG_MAX (QUEUE_SIZE - 2) /* data segments; header and status come on top */
#define MAX_RANGES 32u           /* ranges of one discard or write-zeroes request */
#define MAX_RANGE_SECTORS (UINT32_C(1) << 22) /* 2 GiB */
#define SECTOR 512u

struct blk_queue;
struct request {
	struct fmt_io io;
	struct blk_queue *q;
	struct iovec *iov; /* QUEUE_SIZE of them; ranges reuse the space */
	uint8_t *status;   /* the guest's byte */
	uint32_t written;
	uint16_t head;
	uint16_t range, n_ranges; /* of a discard or write-zeroes request */
};

struct blk_queue {
	struct virtio_queue *vq;
	struct fmt_queue *fq;
	struct vh_task kick; /* for what is submitted inside a completion, which may itself be inside fmt_kick */
	unsigned n_free;
	struct request *req;
	struct iovec *iov;
	struct request *free[QUEUE_SIZE]; /* the last one that ended is the first one to be used: its memory is warm */
};

struct blk {
	struct virtio_dev dev;
	struct fmt_image *image;
	struct fmt_info info;
	struct virtio_blk_space config; /* under the device's lock */
	uint64_t sectors; /* atomic */
	int write_through; /* atomic: each write is made durable */
	char serial[VIRTIO_BLK_ID_BYTES];
	char *label;
	struct blk_queue *q;
};

static struct blk *blk_of(struct virtio_dev *d)
{
	return container_of(d, struct blk, dev);
}

static void finish(struct request *r, uint8_t status)
{
	struct blk_queue *q = r->q;

	*(volatile uint8_t *)r->status = status;
	vq_push(&q->vq->vq, r->head, r->written);
	q->free[q->n_free++] = r;
	virtio_queue_flush_later(q->vq);
	virtio_queue_put(q->vq);
}

static int submit_range(struct request *r);

static void request_done(struct fmt_io *io, int result)
{
	struct request *r = container_of(io, struct request, io);

	if (!result && r->range < r->n_ranges && !submit_range(r)) {
		loop_defer(r->q->vq->loop, &r->q->kick);
		return;
	}
	if (result || r->range < r->n_ranges)
		finish(r, result == -EOPNOTSUPP ? VIRTIO_BLK_S_UNSUPP : VIRTIO_BLK_S_IOERR);
	else
		finish(r, VIRTIO_BLK_S_OK);
}

/* Whether n sectors from `sector` lie on the disk. */
static int on_disk(struct blk *b, uint64_t sector, uint64_t n)
{
	uint64_t all = __atomic_load_n(&b->sectors, __ATOMIC_RELAXED);

	return sector <= all && n <= all - sector;
}

/* The next range that is not empty. 1: there was none left; ranges were checked before the first one began. */
static int submit_range(struct request *r)
{
	const struct virtio_blk_discard_write_zeroes *range = (const void *)r->iov;

	while (r->range < r->n_ranges) {
		const struct virtio_blk_discard_write_zeroes *x = &range[r->range];

		if (!x->num_sectors) {
			r->range++;
			continue;
		}
		if (r->io.op == VH_ZERO)
			r->io.flags = (uint16_t)((r->io.flags & ~VH_REQ_MAY_UNMAP) |
						 (x->flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP ? VH_REQ_MAY_UNMAP : 0));
		r->io.off = x->sector * SECTOR;
		r->io.len = (uint64_t)x->num_sectors * SECTOR;
		r->range++;
		fmt_submit(r->q->fq, &r->io);
		return 0;
	}
	return 1;
}

/* Copies the ranges out of guest memory over the iovecs that named them, and checks all. */
static uint8_t start_ranges(struct blk *b, struct request *r, const struct iovec *iov, unsigned n, uint64_t len, int zero)
{
	struct virtio_blk_discard_write_zeroes range[MAX_RANGES];
	uint32_t known = zero ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0;
	unsigned count = (unsigned)(len / sizeof(range[0]));

	if (!virtio_has(&b->dev, zero ? VIRTIO_BLK_F_WRITE_ZEROES : VIRTIO_BLK_F_DISCARD))
		return VIRTIO_BLK_S_UNSUPP;
	if (!len || len > sizeof(range) || len % sizeof(range[0]) || iov_to_buf(iov, n, 0, range, len) != len)
		return VIRTIO_BLK_S_IOERR;
	for (unsigned i = 0; i < count; i++) {
		if (range[i].flags & ~known)
			return VIRTIO_BLK_S_UNSUPP;
		if (range[i].num_sectors > MAX_RANGE_SECTORS || !on_disk(b, range[i].sector, range[i].num_sectors))
			return VIRTIO_BLK_S_IOERR;
	}
	memcpy(r->iov, range, len);
	r->io.op = zero ? VH_ZERO : VH_DISCARD;
	r->io.flags = zero && __atomic_load_n(&b->write_through, __ATOMIC_RELAXED) ? VH_REQ_FUA : 0;
	r->io.niov = 0;
	r->range = 0;
	r->n_ranges = (uint16_t)count;
	if (submit_range(r))
		finish(r, VIRTIO_BLK_S_OK);
	return VIRTIO_BLK_S_OK;
}

/*
 * Begins a request; what is wrong with it is answered at once. iov, n: the readable part behind the header, then the
 * writable one without the status byte; both are parts of r->iov.
 */
static uint8_t start_request(struct blk *b, struct request *r, const struct virtio_blk_outhdr *h, struct iovec *out,
			     unsigned n_out, uint64_t out_len, struct iovec *in, unsigned n_in, uint64_t in_len)
{
	uint64_t len;

	r->n_ranges = r->range = 0;
	switch (h->type) {
	case VIRTIO_BLK_T_IN:
	case VIRTIO_BLK_T_OUT:
		r->io.op = h->type == VIRTIO_BLK_T_IN ? VH_READ : VH_WRITE;
		len = h->type == VIRTIO_BLK_T_IN ? in_len : out_len;
		if ((h->type == VIRTIO_BLK_T_OUT && b->info.read_only) || len % SECTOR || !on_disk(b, h->sector, len / SECTOR))
			return VIRTIO_BLK_S_IOERR;
		if (!len) {
			finish(r, VIRTIO_BLK_S_OK);
			return VIRTIO_BLK_S_OK;
		}
		r->io.flags = h->type == VIRTIO_BLK_T_OUT && __atomic_load_n(&b->write_through, __ATOMIC_RELAXED) ? VH_REQ_FUA : 0;
		r->io.off = h->sector * SECTOR;
		r->io.len = len;
		r->io.iov = h->type == VIRTIO_BLK_T_IN ? in : out;
		r->io.niov = h->type == VIRTIO_BLK_T_IN ? n_in : n_out;
		fmt_submit(r->q->fq, &r->io);
		return VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_FLUSH:
		r->io.op = VH_FLUSH;
		r->io.flags = 0;
		r->io.off = r->io.len = 0;
		r->io.niov = 0;
		fmt_submit(r->q->fq, &r->io);
		return VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_GET_ID:
		iov_from_buf(in, n_in, 0, b->serial, sizeof(b->serial));
		finish(r, VIRTIO_BLK_S_OK);
		return VIRTIO_BLK_S_OK;
	case VIRTIO_BLK_T_DISCARD:
	case VIRTIO_BLK_T_WRITE_ZEROES:
		if (b->info.read_only)
			return VIRTIO_BLK_S_IOERR;
		return start_ranges(b, r, out, n_out, out_len, h->type == VIRTIO_BLK_T_WRITE_ZEROES);
	default:
		return VIRTIO_BLK_S_UNSUPP;
	}
}

/* Splits a chain into header, data and status, wherever the driver drew the borders. */
static int take(struct blk *b, struct blk_queue *q, struct request *r, struct vq_chain *c)
{
	struct iovec *out = c->iov, *in = c->iov + c->n_out;
	unsigned n_out = c->n_out, n_in = c->n_in;
	struct virtio_blk_outhdr h;
	uint8_t status;

	if (c->out_len < sizeof(h) || !c->in_len)
		return vq_break(&q->vq->vq, "a disk request has no header or no status byte");
	iov_to_buf(out, n_out, 0, &h, sizeof(h));
	iov_drop(&out, &n_out, sizeof(h));
	r->status = (uint8_t *)in[n_in - 1].iov_base + in[n_in - 1].iov_len - 1;
	if (--in[n_in - 1].iov_len == 0)
		n_in--;
	r->head = c->head;
	r->written = (uint32_t)c->in_len;
	virtio_queue_get(q->vq);
	status = start_request(b, r, &h, out, n_out, c->out_len - sizeof(h), in, n_in, c->in_len - 1);
	if (status != VIRTIO_BLK_S_OK)
		finish(r, status);
	return 0;
}

/* All that is in the ring; returns how many. */
static int take_all(struct blk_queue *q)
{
	struct blk *b = blk_of(q->vq->dev);
	struct virtqueue *vq = &q->vq->vq;
	struct vq_chain c = {.cap = QUEUE_SIZE};
	int n = 0, r;

	for (;;) {
		struct request *req;

		if (!q->n_free) {
			if (!vq_pending(vq))
				break;
			r = vq_break(vq, "more requests than the queue has entries");
		} else {
			req = q->free[q->n_free - 1];
			req->q = q;
			req->io.done = request_done;
			req->iov = c.iov = q->iov + (req - q->req) * (ptrdiff_t)QUEUE_SIZE;
			r = vq_pop(vq, &c);
			if (!r)
				break;
			if (r > 0) {
				q->n_free--;
				r = take(b, q, req, &c);
				if (r)
					q->free[q->n_free++] = req;
			}
		}
		if (r < 0) {
			virtio_queue_broken(q->vq);
			break;
		}
		n++;
	}
	return n;
}

static int blk_poll_queue(struct virtio_queue *vq)
{
	struct blk_queue *q = vq->user;
	int n;

	vq->batch++;
	n = take_all(q);
	if (n)
		fmt_kick(q->fq);
	if (vq->inflight)
		n += fmt_poll(q->fq);
	vq->batch--;
	if (vq->vq.published != vq->vq.used_idx)
		virtio_queue_flush(vq);
	return n;
}

static void blk_notify(struct virtio_queue *vq)
{
	blk_poll_queue(vq);
}

static void blk_config_read(struct virtio_dev *d, unsigned off, void *data, unsigned len)
{
	memcpy(data, (const uint8_t *)&blk_of(d)->config + off, len);
}

static int writes_back(const struct blk *b)
{
	if (virtio_has(&b->dev, VIRTIO_BLK_F_CONFIG_WCE))
		return b->config.wce;
	return virtio_has(&b->dev, VIRTIO_BLK_F_FLUSH);
}

static void blk_config_write(struct virtio_dev *d, unsigned off, const void *data, unsigned len)
{
	struct blk *b = blk_of(d);

	if (off != offsetof(struct virtio_blk_space, wce) || len != 1 || !virtio_has(d, VIRTIO_BLK_F_CONFIG_WCE))
		return;
	b->config.wce = *(const uint8_t *)data & 1;
	__atomic_store_n(&b->write_through, !writes_back(b), __ATOMIC_RELAXED);
}

static int blk_start(struct virtio_dev *d)
{
	struct blk *b = blk_of(d);

	/* A driver that knows of no flush cannot ask for durability: it gets it with each write. */
	__atomic_store_n(&b->write_through, !writes_back(b), __ATOMIC_RELAXED);
	return 0;
}

static void blk_reset(struct virtio_dev *d)
{
	blk_of(d)->config.wce = 1;
}

/* [any] The image's size has changed. */
static void blk_resized(void *ctx, uint64_t bytes)
{
	struct blk *b = ctx;

	pthread_mutex_lock(&b->dev.lock);
	b->config.capacity = bytes / SECTOR;
	__atomic_store_n(&b->sectors, bytes / SECTOR, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&b->dev.lock);
	virtio_notify_config(&b->dev);
}

struct queue_call {
	struct blk *b;
	struct blk_queue *q;
	struct vh_err *e;
	int result;
};

static void open_queue(void *ctx)
{
	struct queue_call *c = ctx;

	c->result = fmt_queue_open(c->b->image, c->q->vq->loop, QUEUE_SIZE, &c->q->fq, c->e);
}

static void kick_queue(struct vh_task *t)
{
	fmt_kick(container_of(t, struct blk_queue, kick)->fq);
}

static void close_queue(void *ctx)
{
	struct queue_call *c = ctx;

	loop_cancel(c->q->vq->loop, &c->q->kick);
	fmt_queue_close(c->q->fq);
}

static void blk_free(struct virtio_dev *d)
{
	struct blk *b = blk_of(d);

	fmt_listen(b->image, NULL, NULL);
	virtio_pci_exit(d);
	for (unsigned i = 0; b->q && i < d->n_queues; i++) {
		struct queue_call c = {.b = b, .q = &b->q[i]};

		if (c.q->fq)
			loop_call(c.q->vq->loop, close_queue, &c);
		free(c.q->req);
		free(c.q->iov);
	}
	virtio_queues_free(d);
	free(b->q);
	free(b->label);
	free(b);
}

static const struct virtio_ops blk_ops = {
	.name = "blk",
	.id = VIRTIO_ID_BLOCK,
	.pci_class = {1, 0x80, 0},
	.config_read = blk_config_read,
	.config_write = blk_config_write,
	.start = blk_start,
	.reset = blk_reset,
	.queue_notify = blk_notify,
	.queue_poll = blk_poll_queue,
	.free = blk_free,
};

static uint16_t in_blocks(uint32_t bytes, uint32_t block, uint32_t most)
{
	uint32_t n = bytes / block;

	return (uint16_t)(n > most ? most : n);
}

static void describe(struct blk *b)
{
	const struct fmt_info *i = &b->info;
	struct virtio_blk_space *c = &b->config;
	uint32_t block = i->logical_block >= SECTOR ? i->logical_block : SECTOR, segs = SEG_MAX;
	uint32_t gran = i->discard_gran > block ? i->discard_gran : block;

	b->dev.features = VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) | VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) | VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) |
			  VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY) | VIRTIO_BIT(VIRTIO_BLK_F_CONFIG_WCE) |
			  (b->dev.n_queues > 1 ? VIRTIO_BIT(VIRTIO_BLK_F_MQ) : 0) |
			  (i->read_only ? VIRTIO_BIT(VIRTIO_BLK_F_RO) : 0);
	if (!i->read_only)
		b->dev.features |= (i->discard ? VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) : 0) |
				   (i->zero ? VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES) : 0);
	if (i->max_segments && i->max_segments < segs)
		segs = i->max_segments;
	b->sectors = i->bytes / SECTOR;
	c->capacity = b->sectors;
	c->seg_max = segs;
	c->blk_size = block;
	while (c->physical_block_exp < 15 && block << (c->physical_block_exp + 1) <= i->physical_block)
		c->physical_block_exp++;
	c->min_io_size = in_blocks(i->min_io, block, UINT16_MAX);
	c->opt_io_size = i->opt_io / block;
	c->wce = 1;
	c->num_queues = (uint16_t)b->dev.n_queues;
	c->max_discard_sectors = c->max_write_zeroes_sectors = MAX_RANGE_SECTORS;
	c->max_discard_seg = c->max_write_zeroes_seg = MAX_RANGES;
	c->discard_sector_alignment = gran / SECTOR;
	c->write_zeroes_may_unmap = i->discard ? 1 : 0;
}

static int make_queue(struct blk *b, unsigned n, struct vh_err *e)
{
	struct blk_queue *q = &b->q[n];
	struct queue_call c = {.b = b, .q = q, .e = e};

	q->vq = &b->dev.queue[n];
	q->vq->user = q;
	q->kick.fn = kick_queue;
	q->req = calloc(QUEUE_SIZE, sizeof(*q->req)); /* zero pages until a request uses them */
	q->iov = calloc((size_t)QUEUE_SIZE * QUEUE_SIZE, sizeof(*q->iov));
	if (!q->req || !q->iov)
		return err_set(e, -ENOMEM, "no memory for a queue's requests");
	for (unsigned i = 0; i < QUEUE_SIZE; i++)
		q->free[QUEUE_SIZE - 1 - i] = &q->req[i];
	q->n_free = QUEUE_SIZE;
	loop_call(q->vq->loop, open_queue, &c);
	return c.result;
}

int virtio_blk_new(struct vm *v, struct pci_host *h, const struct virtio_blk_config *c, struct virtio_dev **out,
		   struct vh_err *e)
{
	struct blk *b = calloc(1, sizeof(*b));
	struct virtio_dev *d;
	int r;

	if (!b)
		return err_set(e, -ENOMEM, "no memory for a disk device");
	d = &b->dev;
	b->image = c->image;
	d->ops = &blk_ops;
	d->vm = v;
	d->n_queues = c->queues ? c->queues : 1;
	d->max_queue_size = QUEUE_SIZE;
	d->config_size = offsetof(struct virtio_blk_space, max_secure_erase_sectors);
	b->label = strdup(c->label ? c->label : "disk");
	b->q = calloc(d->n_queues, sizeof(*b->q));
	d->label = b->label;
	if (!b->label || !b->q) {
		r = err_set(e, -ENOMEM, "no memory for a disk device");
		goto fail;
	}
	fmt_get_info(c->image, &b->info);
	/* As the spec has it: NUL-padded, without a NUL when all bytes are used. */
	memcpy(b->serial, b->info.serial, sizeof(b->serial));
	if (c->serial && *c->serial) {
		memset(b->serial, 0, sizeof(b->serial));
		memcpy(b->serial, c->serial, strnlen(c->serial, sizeof(b->serial)));
	}
	describe(b);
	r = virtio_queues_new(d, e);
	for (unsigned i = 0; !r && i < d->n_queues; i++) {
		d->queue[i].loop = c->loops[i % c->n_loops];
		r = make_queue(b, i, e);
	}
	if (!r)
		r = virtio_pci_init(d, h, e);
	if (r)
		goto fail;
	fmt_listen(b->image, blk_resized, b);
	*out = d;
	return 0;
fail:
	blk_free(d);
	return r;
}
