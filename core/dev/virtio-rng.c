/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* virtio-rng: the host kernel's random numbers, written straight into the guest's buffers. */
#include <linux/virtio_ids.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include "dev/virtio.h"
#include "util/log.h"

#define MAX_BYTES 65536u /* per request: what a guest asks for is not what it gets */
#define MAX_IOV 64u

static void rng_serve(struct virtio_queue *q, struct vq_chain *c)
{
	uint32_t done = 0;

	for (unsigned i = c->n_out; i < c->n_out + c->n_in && done < MAX_BYTES; i++) {
		size_t off = 0, len = c->iov[i].iov_len;

		if (len > MAX_BYTES - done)
			len = MAX_BYTES - done;
		while (off < len) {
			ssize_t n = getrandom((char *)c->iov[i].iov_base + off, len - off, GRND_NONBLOCK);

			if (n <= 0) {
				if (n < 0 && errno == EINTR)
					continue;
				log_warn("virtio", "%s: getrandom: %s", q->dev->label, strerror(errno));
				goto out;
			}
			off += (size_t)n;
		}
		done += (uint32_t)len;
	}
out:
	vq_push(&q->vq, c->head, done);
}

static void rng_notify(struct virtio_queue *q)
{
	struct iovec iov[MAX_IOV];
	struct vq_chain c = {.iov = iov, .cap = MAX_IOV};
	int r;

	do {
		vq_notify_off(&q->vq);
		while ((r = vq_pop(&q->vq, &c)) > 0)
			rng_serve(q, &c);
		if (r < 0) {
			virtio_queue_broken(q);
			return;
		}
	} while (vq_notify_on(&q->vq));
	virtio_queue_flush(q);
}

static void rng_free(struct virtio_dev *d)
{
	virtio_pci_exit(d);
	virtio_queues_free(d);
	free(d);
}

static const struct virtio_ops rng_ops = {
	.name = "rng",
	.id = VIRTIO_ID_RNG,
	.pci_class = {0xff, 0, 0},
	.queue_notify = rng_notify,
	.free = rng_free,
};

int virtio_rng_new(struct vm *v, struct pci_host *h, struct vh_loop *l, struct virtio_dev **out, struct vh_err *e)
{
	struct virtio_dev *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return err_set(e, -ENOMEM, "no memory for a random number device");
	d->ops = &rng_ops;
	d->vm = v;
	d->label = "rng";
	d->n_queues = 1;
	d->max_queue_size = 64;
	r = virtio_queues_new(d, e);
	if (!r) {
		d->queue[0].loop = l;
		r = virtio_pci_init(d, h, e);
	}
	if (r) {
		rng_free(d);
		return r;
	}
	*out = d;
	return 0;
}
