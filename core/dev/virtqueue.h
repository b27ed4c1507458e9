/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Split virtqueues. All state that the driver writes is read once into locals and checked against guest memory; a chain
 * that loops, leaves memory or is longer than the queue breaks the queue, never the process.
 */
#ifndef DEV_VIRTQUEUE_H
#define DEV_VIRTQUEUE_H

#include <sys/uio.h>
#include "vm/memory.h"

#define VQ_MAX_SIZE 1024
struct virtqueue {
	const struct mem *mem;
	uint16_t size;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	int enabled, broken, event_idx, indirect;
	/* Host pointers, checked when the queue is enabled. */
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t last_avail, used_idx, signalled_used;
	int signalled_valid;
	void *user;
};
/* One chain: readable iovecs first, then writable ones. */
struct vq_chain {
	uint16_t head;
	unsigned n_out, n_in;   /* out: driver to device */
	uint64_t out_len, in_len;
	struct iovec *iov;      /* the caller's array of `cap` */
	unsigned cap;
};
int vq_enable(struct virtqueue *q); /* checks addresses and alignment; -EINVAL */
void vq_disable(struct virtqueue *q);
/* 1: a chain, 0: none, < 0: the queue is broken (-EPROTO) or the chain needs more than cap iovecs. */
int vq_pop(struct virtqueue *q, struct vq_chain *c);
int vq_pending(const struct virtqueue *q);
void vq_push(struct virtqueue *q, uint16_t head, uint32_t written); /* into the used ring, not yet visible */
int vq_publish(struct virtqueue *q); /* makes the pushed ones visible; 1 if the driver wants an interrupt */
void vq_notify_off(struct virtqueue *q);
int vq_notify_on(struct virtqueue *q); /* 1 if something came meanwhile */
/* Byte access over iovecs; return bytes done. */
size_t iov_to_buf(const struct iovec *iov, unsigned n, size_t off, void *buf, size_t len);
size_t iov_from_buf(const struct iovec *iov, unsigned n, size_t off, const void *buf, size_t len);

#endif
