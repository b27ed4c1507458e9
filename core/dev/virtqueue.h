/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Split virtqueues. All state that the driver writes is read once into locals and checked against guest memory; a chain
 * that loops, leaves memory or is longer than allowed breaks the queue, never the process.
 *
 * A queue belongs to one thread at a time. What is inline here is what every request passes through.
 */
#ifndef DEV_VIRTQUEUE_H
#define DEV_VIRTQUEUE_H

#include <linux/virtio_ring.h>
#include <sys/uio.h>
#include "vm/memory.h"

#define VQ_MAX_SIZE 1024u
#define VQ_MAX_CHAIN 1024u /* descriptors of one chain, indirect ones included */

struct virtqueue {
	/* Host pointers, checked when the queue is enabled. */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	const struct mem *mem;
	uint16_t size;
	uint16_t last_avail; /* next entry of the available ring to take */
	uint16_t avail_idx;  /* the driver's index as last seen */
	uint16_t used_idx;   /* ours, pushed; published: made visible */
	uint16_t published;
	uint8_t enabled, broken, event_idx, indirect;
	const char *why; /* it is broken */
	uint64_t desc_gpa, avail_gpa, used_gpa;
};
/* One chain: readable iovecs first, then writable ones; empty buffers are left out. */
struct vq_chain {
	uint16_t head;
	unsigned n_out, n_in; /* out: driver to device */
	uint64_t out_len, in_len;
	struct iovec *iov; /* the caller's array of `cap` */
	unsigned cap;
};

/* The caller has set mem, size, the addresses, event_idx and indirect. -EINVAL: size, alignment or an address is wrong. */
int vq_enable(struct virtqueue *q);
void vq_disable(struct virtqueue *q);

/* Goes on where somebody else stopped who served the ring meanwhile: at that entry of the available ring. */
void vq_resume(struct virtqueue *q, uint16_t last_avail);

/* The rarer parts of vq_pop. */
int vq_walk(struct virtqueue *q, struct vq_chain *c);
int vq_break(struct virtqueue *q, const char *why); /* -EPROTO; every later vq_pop gives it, too */

static inline uint16_t vq_load16(const void *p, int order)
{
	return __atomic_load_n((const uint16_t *)p, order);
}

/* Whether vq_pop would have something to do. */
static inline int vq_pending(struct virtqueue *q)
{
	if (q->avail_idx != q->last_avail)
		return 1;
	q->avail_idx = vq_load16(&q->avail->idx, __ATOMIC_ACQUIRE);
	return q->avail_idx != q->last_avail;
}

/* 1: a chain, 0: none, -EPROTO: the queue is broken; that includes a chain that needs more than cap iovecs. */
static inline int vq_pop(struct virtqueue *q, struct vq_chain *c)
{
	uint16_t head;
	int r;

	if (__builtin_expect(q->broken, 0))
		return -EPROTO;
	if (!vq_pending(q))
		return 0;
	if (__builtin_expect((uint16_t)(q->avail_idx - q->last_avail) > q->size, 0))
		return vq_break(q, "the available index jumped");
	head = vq_load16(&q->avail->ring[q->last_avail & (q->size - 1)], __ATOMIC_RELAXED);
	if (__builtin_expect(head >= q->size, 0))
		return vq_break(q, "a chain begins outside the descriptor table");
	c->head = head;
	r = vq_walk(q, c);
	if (__builtin_expect(r, 0))
		return r;
	q->last_avail++;
	return 1;
}

/* Undoes the last n vq_pop calls, whose chains were not pushed. */
static inline void vq_unpop(struct virtqueue *q, unsigned n)
{
	q->last_avail = (uint16_t)(q->last_avail - n);
}

/* Into the used ring, not yet visible. */
static inline void vq_push(struct virtqueue *q, uint16_t head, uint32_t written)
{
	struct vring_used_elem *u = &q->used->ring[q->used_idx & (q->size - 1)];

	__atomic_store_n(&u->id, head, __ATOMIC_RELAXED);
	__atomic_store_n(&u->len, written, __ATOMIC_RELAXED);
	q->used_idx++;
}

/* Makes the pushed ones visible; 1 if the driver wants an interrupt. The stores and loads of both sides are sequentially
 * consistent: either we see the driver's wish, or it sees our index. */
static inline int vq_publish(struct virtqueue *q)
{
	uint16_t was = q->published, now = q->used_idx;

	if (was == now)
		return 0;
	q->published = now;
	__atomic_store_n(&q->used->idx, now, __ATOMIC_SEQ_CST);
	if (q->event_idx)
		return vring_need_event(vq_load16(&q->avail->ring[q->size], __ATOMIC_SEQ_CST), now, was);
	return !(vq_load16(&q->avail->flags, __ATOMIC_SEQ_CST) & VRING_AVAIL_F_NO_INTERRUPT);
}

/* Asks the driver not to ring the doorbell; it may ring all the same. With event_idx, saying nothing is saying so. */
static inline void vq_notify_off(struct virtqueue *q)
{
	if (!q->event_idx)
		__atomic_store_n(&q->used->flags, VRING_USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
}

/* The opposite; 1 if something came meanwhile, for which the driver may not ring. */
static inline int vq_notify_on(struct virtqueue *q)
{
	if (q->event_idx)
		__atomic_store_n((uint16_t *)&q->used->ring[q->size], q->last_avail, __ATOMIC_SEQ_CST);
	else
		__atomic_store_n(&q->used->flags, 0, __ATOMIC_SEQ_CST);
	q->avail_idx = vq_load16(&q->avail->idx, __ATOMIC_SEQ_CST);
	return q->avail_idx != q->last_avail;
}

/* Byte access over iovecs; return bytes done, fewer than len at their end. */
size_t iov_to_buf(const struct iovec *iov, unsigned n, size_t off, void *buf, size_t len);
size_t iov_from_buf(const struct iovec *iov, unsigned n, size_t off, const void *buf, size_t len);
/* Drops `len` bytes from the front of the array, changing *iov and *n and the entry it ends in; returns bytes dropped. */
size_t iov_drop(struct iovec **iov, unsigned *n, size_t len);
/* Shortens the array to its first `len` bytes; returns the number of entries left. */
unsigned iov_cut(struct iovec *iov, unsigned n, size_t len);

#endif
