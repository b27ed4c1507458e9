/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * virtio-console, one port: bytes between two file descriptors and the guest. The descriptors are borrowed and may be
 * shared with others (a terminal), so they are not made non-blocking: at most a pipe's atomic amount is written when the
 * descriptor says that it can take it.
 */
#include <limits.h>
#include <linux/virtio_console.h>
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include "dev/virtio.h"
#include "util/log.h"

#define MAX_IOV 64u
#define MAX_WRITE PIPE_BUF

enum { Q_RX, Q_TX };

struct console {
	struct virtio_dev dev;
	int in_fd, out_fd;
	struct virtio_console_config config;
	/* The loop's. */
	struct vh_watch *in, *out; /* NULL: none, or an fd that cannot be polled (a file), which is always ready */
	int in_ready, out_ready, in_ended;
	uint64_t tx_off; /* bytes of the first chain of the ring that are written already */
	uint32_t rx_lost;
};

static struct console *console_of(struct virtio_dev *d)
{
	return container_of(d, struct console, dev);
}

static int can_write(struct console *c)
{
	return c->out_fd < 0 || !c->out || c->out_ready;
}

/* One chain, or as much of it as goes; 1: it is done. */
static int write_chain(struct console *c, const struct vq_chain *chain)
{
	while (c->tx_off < chain->out_len) {
		char buf[MAX_WRITE];
		size_t n = iov_to_buf(chain->iov, chain->n_out, c->tx_off, buf, sizeof(buf));
		ssize_t w;

		if (!n || c->out_fd < 0)
			break;
		if (!can_write(c))
			return 0;
		w = write(c->out_fd, buf, n);
		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0 && errno == EAGAIN && c->out) {
			c->out_ready = 0;
			return 0;
		}
		if (w < 0) /* nobody listens any more: the guest must not hang for that */
			break;
		c->tx_off += (uint64_t)w;
		c->out_ready = 0; /* until poll says so again */
	}
	c->tx_off = 0;
	return 1;
}

static void console_tx(struct console *c, struct virtio_queue *q)
{
	struct iovec iov[MAX_IOV];
	struct vq_chain chain = {.iov = iov, .cap = MAX_IOV};
	int r;

	do {
		vq_notify_off(&q->vq);
		while ((r = vq_pop(&q->vq, &chain)) > 0) {
			if (!write_chain(c, &chain)) {
				vq_unpop(&q->vq, 1);
				loop_watch_events(c->out, VH_OUT);
				virtio_queue_flush(q);
				return;
			}
			vq_push(&q->vq, chain.head, 0);
		}
		if (r < 0) {
			virtio_queue_broken(q);
			return;
		}
	} while (vq_notify_on(&q->vq));
	virtio_queue_flush(q);
}

/* Input that is there goes into buffers that are there; without buffers the descriptor is left alone. */
static void console_rx(struct console *c, struct virtio_queue *q)
{
	struct iovec iov[MAX_IOV];
	struct vq_chain chain = {.iov = iov, .cap = MAX_IOV};
	ssize_t n;
	int r;

	while (c->in_fd >= 0 && !c->in_ended && (c->in_ready || !c->in)) {
		vq_notify_off(&q->vq);
		r = vq_pop(&q->vq, &chain);
		if (!r && vq_notify_on(&q->vq))
			continue;
		if (r < 0) {
			virtio_queue_broken(q);
			return;
		}
		if (!r) {
			if (c->in)
				loop_watch_events(c->in, 0);
			break;
		}
		if (!chain.n_in) {
			vq_push(&q->vq, chain.head, 0);
			continue;
		}
		n = readv(c->in_fd, chain.iov + chain.n_out, (int)chain.n_in);
		if (n > 0) {
			vq_push(&q->vq, chain.head, (uint32_t)n);
			c->in_ready = 0;
			continue;
		}
		vq_unpop(&q->vq, 1);
		if (n < 0 && errno == EINTR)
			continue;
		c->in_ready = 0;
		if (n == 0 || errno != EAGAIN)
			c->in_ended = 1;
	}
	if (c->in)
		loop_watch_events(c->in, c->in_ended || c->in_ready ? 0 : VH_IN);
	virtio_queue_flush(q);
}

static void console_notify(struct virtio_queue *q)
{
	struct console *c = console_of(q->dev);

	if (q->index == Q_RX)
		console_rx(c, q);
	else if (q->index == Q_TX)
		console_tx(c, q);
}

static void in_event(void *ctx, uint32_t events)
{
	struct console *c = ctx;
	struct virtio_queue *q = &c->dev.queue[Q_RX];

	(void)events;
	c->in_ready = 1;
	if (q->running && !q->vq.broken)
		console_rx(c, q);
	else
		loop_watch_events(c->in, 0); /* until the driver is there */
}

static void out_event(void *ctx, uint32_t events)
{
	struct console *c = ctx;
	struct virtio_queue *q = &c->dev.queue[Q_TX];

	(void)events;
	c->out_ready = 1;
	loop_watch_events(c->out, 0);
	if (q->running && !q->vq.broken)
		console_tx(c, q);
}

static void console_start(struct virtio_queue *q)
{
	struct console *c = console_of(q->dev);

	if (q->index == Q_RX && c->in_fd >= 0 && !c->in) {
		if (loop_watch(q->loop, c->in_fd, 0, in_event, c, &c->in))
			c->in = NULL;
		else
			c->in_ready = 0;
	}
	if (q->index == Q_TX && c->out_fd >= 0 && !c->out && loop_watch(q->loop, c->out_fd, VH_OUT, out_event, c, &c->out))
		c->out = NULL;
}

static void console_stop(struct virtio_queue *q)
{
	struct console *c = console_of(q->dev);

	if (q->index == Q_RX) {
		loop_unwatch(c->in);
		c->in = NULL;
	} else if (q->index == Q_TX) {
		loop_unwatch(c->out);
		c->out = NULL;
		c->out_ready = 0;
		c->tx_off = 0;
	}
}

static void console_config_read(struct virtio_dev *d, unsigned off, void *data, unsigned len)
{
	memcpy(data, (const uint8_t *)&console_of(d)->config + off, len);
}

/* emerg_wr: one character, before any queue is there. */
static void console_config_write(struct virtio_dev *d, unsigned off, const void *data, unsigned len)
{
	struct console *c = console_of(d);

	if (off == offsetof(struct virtio_console_config, emerg_wr) && len && c->out_fd >= 0 && write(c->out_fd, data, 1) < 0)
		log_debug("virtio", "%s: %s", d->label, strerror(errno));
}

static void console_free(struct virtio_dev *d)
{
	virtio_pci_exit(d);
	virtio_queues_free(d);
	free(console_of(d));
}

static const struct virtio_ops console_ops = {
	.name = "console",
	.id = VIRTIO_ID_CONSOLE,
	.pci_class = {7, 0x80, 0},
	.config_read = console_config_read,
	.config_write = console_config_write,
	.queue_start = console_start,
	.queue_stop = console_stop,
	.queue_notify = console_notify,
	.free = console_free,
};

int virtio_console_new(struct vm *v, struct pci_host *h, struct vh_loop *l, int in_fd, int out_fd, struct virtio_dev **out,
		       struct vh_err *e)
{
	struct console *c = calloc(1, sizeof(*c));
	struct virtio_dev *d;
	struct winsize w;
	int r;

	if (!c)
		return err_set(e, -ENOMEM, "no memory for a console device");
	d = &c->dev;
	c->in_fd = in_fd;
	c->out_fd = out_fd;
	d->ops = &console_ops;
	d->vm = v;
	d->label = "console";
	d->n_queues = 2;
	d->max_queue_size = 64;
	d->config_size = sizeof(c->config);
	d->features = VIRTIO_BIT(VIRTIO_CONSOLE_F_EMERG_WRITE);
	c->config.max_nr_ports = 1;
	if (out_fd >= 0 && !ioctl(out_fd, TIOCGWINSZ, &w) && w.ws_col && w.ws_row) {
		d->features |= VIRTIO_BIT(VIRTIO_CONSOLE_F_SIZE);
		c->config.cols = w.ws_col;
		c->config.rows = w.ws_row;
	}
	r = virtio_queues_new(d, e);
	for (unsigned i = 0; !r && i < d->n_queues; i++)
		d->queue[i].loop = l;
	if (!r)
		r = virtio_pci_init(d, h, e);
	if (r) {
		console_free(d);
		return r;
	}
	*out = d;
	return 0;
}
