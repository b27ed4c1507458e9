/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Measures a disk. Words of the command line: rw=read|write|randread|randwrite|flush, bs=4K, depth=32, secs=2 (or ms=),
 * size= (default the disk's), disk=0, seed=, tsc_khz=. Prints: blkbench rw=... bs=... depth=... ops=... ns=... iops=... mibs=...
 * lat_min_ns, lat_avg_ns and lat_max_ns of single requests.
 */
#include "blkdev.h"

#define MAX_DEPTH 128

static struct virtio dev;
static struct { uint64_t start; unsigned slot; } by_head[VQ_MAX];

void guest_main(void)
{
	static char rw[32];
	uint64_t sectors, size, ops = 0, blocks, next = 0, hz = tsc_hz(), begin, end, sum = 0, min = ~UINT64_C(0), max = 0, left;
	unsigned depth = (unsigned)arg_u64("depth", 1), busy = 0, type, random, free_slot[MAX_DEPTH], n_free = 0;
	uint32_t bs = (uint32_t)arg_u64("bs", 4096);
	uint8_t *data;
	struct blk_req *req;
	struct vq *q = &dev.vq[0];

	if (!arg_next("rw", 0, rw, sizeof rw))
		memcpy(rw, "randread", 9);
	random = !memcmp(rw, "rand", 4);
	type = !memcmp(rw, "flush", 5) ? BLK_FLUSH : !memcmp(rw + (random ? 4 : 0), "write", 5) ? BLK_OUT : BLK_IN;
	CHECK(virtio_open(&dev, VIRTIO_BLK, (unsigned)arg_u64("disk", 0), BLK_F_FLUSH | VIRTIO_F_INDIRECT), "no disk");
	CHECK(virtio_queue(&dev, 0, VQ_MAX), "no queue");
	virtio_ok(&dev);
	if (depth > MAX_DEPTH)
		depth = MAX_DEPTH;
	if (depth > q->size / (q->table ? 1 : 3)) /* three descriptors a request, or one that points at three */
		depth = q->size / (q->table ? 1 : 3);
	sectors = virtio_config(&dev, 0, 4) | (uint64_t)virtio_config(&dev, 4, 4) << 32;
	size = arg_u64("size", sectors * 512);
	if (size > sectors * 512)
		size = sectors * 512;
	blocks = size / bs;
	CHECK(blocks, "the disk is smaller than a block");
	req = page_alloc(sizeof *req * MAX_DEPTH);
	data = page_alloc((size_t)bs * depth);
	for (size_t i = 0; i < (size_t)bs * depth; i += 8)
		*(uint64_t *)(data + i) = rnd();
	while (n_free < depth) {
		free_slot[n_free] = n_free;
		n_free++;
	}
	begin = tsc();
	end = begin + hz / 1000 * arg_u64("ms", arg_u64("secs", 2) * 1000);
	for (;;) {
		uint64_t now = tsc();
		int head;
		unsigned added = 0;
		while (n_free && now < end) {
			unsigned s = free_slot[--n_free];
			uint64_t block = random ? rnd() % blocks : next++ % blocks;
			head = blk_submit(q, &req[s], (uint32_t)type, type == BLK_FLUSH ? 0 : block * (bs / 512), data + (size_t)s * bs, type == BLK_FLUSH ? 0 : bs);
			CHECK(head >= 0, "the ring is full");
			by_head[head].start = now;
			by_head[head].slot = s;
			busy++;
			added = 1;
		}
		if (added)
			vq_kick(q);
		if (!busy)
			break;
		while ((head = vq_get(q, NULL)) < 0)
			relax();
		now = tsc();
		do {
			unsigned s = by_head[head].slot;
			uint64_t lat = now - by_head[head].start;
			CHECK(!req[s].status, "request failed with status %u", req[s].status);
			min = lat < min ? lat : min;
			max = lat > max ? lat : max;
			sum += lat;
			ops++;
			busy--;
			free_slot[n_free++] = s;
		} while ((head = vq_get(q, NULL)) >= 0);
	}
	left = tsc() - begin;
	print("blkbench rw=%s bs=%u depth=%u ops=%lu ns=%lu iops=%lu mibs=%lu lat_min_ns=%lu lat_avg_ns=%lu lat_max_ns=%lu\n", rw, bs, depth, ops,
	      muldiv(left, 1000000000u, hz), muldiv(ops, hz, left),
	      type == BLK_FLUSH ? 0 : muldiv(ops * bs, hz, left) >> 20, ops ? muldiv(min, 1000000000u, hz) : 0,
	      ops ? muldiv(sum, 1000000000u, hz) / ops : 0, muldiv(max, 1000000000u, hz));
}
