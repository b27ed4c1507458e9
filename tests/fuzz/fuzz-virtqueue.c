/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The ring walker against arbitrary guest memory: the input is a few settings and then the first bytes of a small guest
 * memory that holds rings, indirect tables and buffers. Every iovec that comes out must lie inside that memory.
 */
#include <stdlib.h>
#include <string.h>
#include "dev/virtqueue.h"

#define BYTES 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t memory[2 * BYTES];
	struct mem m = {.fd = -1, .bytes = 2 * BYTES, .n = 2};
	struct virtqueue q = {.mem = &m};
	struct iovec iov[64];
	struct vq_chain c = {.iov = iov};
	uint32_t sum = 0;

	if (size < 8)
		return 0;
	m.range[0] = (struct mem_range){0, BYTES, memory, 0};
	m.range[1] = (struct mem_range){MEM_HIGH_BASE, BYTES, memory + BYTES, BYTES};
	memset(memory, 0, sizeof(memory));
	q.size = (uint16_t)(1u << (data[0] & 7));
	q.event_idx = data[1] & 1;
	q.indirect = data[1] >> 1 & 1;
	c.cap = 1 + (data[2] & 63);
	q.desc_gpa = (uint64_t)(data[3] & 0x3f) * 16;
	q.avail_gpa = (uint64_t)data[4] * 16;
	q.used_gpa = (uint64_t)data[5] * 16 + 2048;
	memcpy(memory, data + 8, size - 8 < BYTES ? size - 8 : BYTES);
	if (vq_enable(&q))
		return 0;
	for (unsigned i = 0; i < 300; i++) {
		uint64_t out = 0, in = 0;
		int r = vq_pop(&q, &c);

		if (r <= 0)
			break;
		if (c.n_out + c.n_in > c.cap || c.head >= q.size)
			abort();
		for (unsigned k = 0; k < c.n_out + c.n_in; k++) {
			const uint8_t *p = iov[k].iov_base;
			size_t len = iov[k].iov_len;

			if (!len || p < memory || p >= memory + sizeof(memory) || len > BYTES ||
			    (p < memory + BYTES ? p + len > memory + BYTES : p + len > memory + sizeof(memory)))
				abort();
			if (k < c.n_out) {
				out += len;
				sum += p[0] + p[len - 1];
			} else {
				in += len;
			}
		}
		if (out != c.out_len || in != c.in_len)
			abort();
		if (data[6] & 1 && in)
			iov_from_buf(iov + c.n_out, c.n_in, data[7], &sum, sizeof(sum));
		vq_push(&q, c.head, (uint32_t)in);
		vq_publish(&q);
		vq_notify_off(&q);
		if (data[6] & 2)
			vq_notify_on(&q);
	}
	return 0;
}
