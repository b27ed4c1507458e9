/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Split virtqueues: set-up and the walk over a chain. */
#include <string.h>
#include "dev/virtqueue.h"

int vq_enable(struct virtqueue *q)
{
	uint64_t size = q->size;

	if (!size || size > VQ_MAX_SIZE || size & (size - 1) || q->desc_gpa & 15 || q->avail_gpa & 1 || q->used_gpa & 3)
		return -EINVAL;
	q->desc = mem_ptr(q->mem, q->desc_gpa, size * sizeof(struct vring_desc));
	/* With the event words behind the rings, which lie there whether negotiated or not. */
	q->avail = mem_ptr(q->mem, q->avail_gpa, 4 + 2 * size + 2);
	q->used = mem_ptr(q->mem, q->used_gpa, 4 + 8 * size + 2);
	if (!q->desc || !q->avail || !q->used)
		return -EINVAL;
	q->last_avail = q->avail_idx = q->used_idx = q->published = 0;
	q->broken = 0;
	q->why = NULL;
	q->enabled = 1;
	return 0;
}

void vq_disable(struct virtqueue *q)
{
	q->enabled = 0;
	q->desc = NULL;
	q->avail = NULL;
	q->used = NULL;
}

void vq_resume(struct virtqueue *q, uint16_t last_avail)
{
	q->last_avail = q->avail_idx = last_avail;
	q->used_idx = q->published = vq_load16(&q->used->idx, __ATOMIC_ACQUIRE);
}

int vq_break(struct virtqueue *q, const char *why)
{
	q->broken = 1;
	q->why = why;
	return -EPROTO;
}

/* Indirect tables may lie at any address. Volatile: each half is read once, whatever the driver does meanwhile. */
struct __attribute__((packed, may_alias)) half {
	uint64_t v;
};

static inline uint64_t read_half(const struct vring_desc *d, unsigned n)
{
	return ((const volatile struct half *)d)[n].v;
}

int vq_walk(struct virtqueue *q, struct vq_chain *c)
{
	const struct mem *m = q->mem;
	const struct vring_desc *table = q->desc;
	struct iovec *iov = c->iov;
	unsigned n = 0, n_out = 0, i = c->head, count = q->size, left = count;
	uint64_t out_len = 0, in_len = 0;
	int writable = 0, indirect = 0;

	for (;;) {
		uint64_t addr, rest;
		uint32_t len, flags;
		void *p;

		if (!left--)
			return vq_break(q, "a chain is longer than its table");
		addr = read_half(&table[i], 0);
		rest = read_half(&table[i], 1);
		len = (uint32_t)rest;
		flags = (uint32_t)(rest >> 32) & 0xffff;
		if (__builtin_expect(flags & VRING_DESC_F_INDIRECT, 0)) {
			if (!q->indirect || indirect || flags & VRING_DESC_F_NEXT)
				return vq_break(q, "an indirect descriptor where none may be");
			count = len / sizeof(*table);
			if (!count || len % sizeof(*table) || count > VQ_MAX_CHAIN)
				return vq_break(q, "an indirect table has a wrong length");
			table = mem_ptr(m, addr, len);
			if (!table)
				return vq_break(q, "an indirect table lies outside memory");
			indirect = 1; /* by the address it cannot be told: it may be the ring's own table */
			left = count;
			i = 0;
			continue;
		}
		if (flags & VRING_DESC_F_WRITE) {
			if (!writable) {
				writable = 1;
				n_out = n;
			}
			in_len += len;
		} else {
			if (writable)
				return vq_break(q, "a readable descriptor follows a writable one");
			out_len += len;
		}
		if (len) {
			if (n == c->cap)
				return vq_break(q, "a chain has too many buffers");
			p = mem_ptr(m, addr, len);
			if (!p)
				return vq_break(q, "a buffer lies outside memory");
			iov[n].iov_base = p;
			iov[n].iov_len = len;
			n++;
		}
		if (!(flags & VRING_DESC_F_NEXT))
			break;
		i = (uint32_t)(rest >> 48);
		if (i >= count)
			return vq_break(q, "a chain leaves its table");
	}
	if (out_len + in_len > UINT32_MAX)
		return vq_break(q, "a chain is longer than 4 GiB");
	c->n_out = writable ? n_out : n;
	c->n_in = n - c->n_out;
	c->out_len = out_len;
	c->in_len = in_len;
	return 0;
}

size_t iov_to_buf(const struct iovec *iov, unsigned n, size_t off, void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		size_t part;

		if (off >= iov[i].iov_len) {
			off -= iov[i].iov_len;
			continue;
		}
		part = iov[i].iov_len - off < len - done ? iov[i].iov_len - off : len - done;
		memcpy((char *)buf + done, (char *)iov[i].iov_base + off, part);
		done += part;
		off = 0;
	}
	return done;
}

size_t iov_from_buf(const struct iovec *iov, unsigned n, size_t off, const void *buf, size_t len)
{
	size_t done = 0;

	for (unsigned i = 0; i < n && done < len; i++) {
		size_t part;

		if (off >= iov[i].iov_len) {
			off -= iov[i].iov_len;
			continue;
		}
		part = iov[i].iov_len - off < len - done ? iov[i].iov_len - off : len - done;
		memcpy((char *)iov[i].iov_base + off, (const char *)buf + done, part);
		done += part;
		off = 0;
	}
	return done;
}

size_t iov_drop(struct iovec **iov, unsigned *n, size_t len)
{
	size_t done = 0;

	while (*n && done < len) {
		size_t part = len - done;

		if (part < (*iov)->iov_len) {
			(*iov)->iov_base = (char *)(*iov)->iov_base + part;
			(*iov)->iov_len -= part;
			return len;
		}
		done += (*iov)->iov_len;
		(*iov)++;
		(*n)--;
	}
	return done;
}

unsigned iov_cut(struct iovec *iov, unsigned n, size_t len)
{
	unsigned i = 0;

	for (; i < n && len; i++) {
		if (iov[i].iov_len > len)
			iov[i].iov_len = len;
		len -= iov[i].iov_len;
	}
	return i;
}
