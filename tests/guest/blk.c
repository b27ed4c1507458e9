/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Writes patterns to a disk, reads them back, discards, flushes; checks all of it. size= (default: whole disk, at most 16M). */
#include "blkdev.h"

static struct virtio dev;
static struct blk_req *req;
static uint64_t *buf;

static void fill(uint64_t sector, uint32_t len, uint64_t salt)
{
	for (uint32_t i = 0; i < len / 8; i++)
		buf[i] = (sector * 512 + i * 8) * 0x9e3779b97f4a7c15u ^ salt;
}

static void compare(uint64_t sector, uint32_t len, uint64_t salt)
{
	for (uint32_t i = 0; i < len / 8; i++) {
		uint64_t want = salt ? (sector * 512 + i * 8) * 0x9e3779b97f4a7c15u ^ salt : 0;
		CHECK(buf[i] == want, "sector %lu byte %u: %lx instead of %lx", sector, i * 8, buf[i], want);
	}
}

static void rw(unsigned type, uint64_t sector, uint32_t len)
{
	unsigned s = blk_sync(&dev.vq[0], req, type, sector, buf, len);
	CHECK(!s, "request %u of %u bytes at sector %lu: status %u", type, len, sector, s);
}

void guest_main(void)
{
	uint64_t sectors, size;
	char id[24] = {0};
	const uint32_t step = 65536;
	struct blk_seg seg;

	CHECK(virtio_open(&dev, VIRTIO_BLK, (unsigned)arg_u64("disk", 0), BLK_F_RO | BLK_F_BLK_SIZE | BLK_F_FLUSH | BLK_F_DISCARD | BLK_F_WRITE_ZEROES), "no disk");
	CHECK(virtio_queue(&dev, 0, 64), "no queue");
	virtio_ok(&dev);
	req = page_alloc(4096);
	buf = page_alloc(step);
	sectors = virtio_config(&dev, 0, 4) | (uint64_t)virtio_config(&dev, 4, 4) << 32;
	if (blk_sync(&dev.vq[0], req, BLK_GET_ID, 0, id, 20) != 0)
		id[0] = 0;
	print("disk: %lu sectors, features %lx, id '%s'\n", sectors, dev.features, id);
	size = sectors * 512;
	if (size > arg_u64("size", 16u << 20))
		size = arg_u64("size", 16u << 20);
	size &= ~(uint64_t)(step - 1);
	CHECK(size, "the disk is smaller than 64 KiB");
	if (dev.features & BLK_F_RO) {
		CHECK(blk_sync(&dev.vq[0], req, BLK_OUT, 0, buf, 512) == 1, "a read-only disk took a write");
		rw(BLK_IN, 0, step);
		put("blk: ok read-only\n");
		return;
	}
	for (uint64_t at = 0; at < size; at += step) {
		fill(at / 512, step, 1);
		rw(BLK_OUT, at / 512, step);
	}
	if (dev.features & BLK_F_FLUSH)
		CHECK(!blk_sync(&dev.vq[0], req, BLK_FLUSH, 0, NULL, 0), "flush failed");
	for (unsigned i = 0; i < 64; i++) { /* small and odd places */
		uint64_t sector = rnd() % (size / 512 - 8);
		uint32_t len = (uint32_t)(rnd() % 8 + 1) * 512;
		rw(BLK_IN, sector, len);
		compare(sector, len, 1);
		fill(sector, len, 1);
		rw(BLK_OUT, sector, len);
	}
	for (uint64_t at = 0; at < size; at += step) {
		rw(BLK_IN, at / 512, step);
		compare(at / 512, step, 1);
	}
	put("write and read: ok\n");
	if (dev.features & BLK_F_WRITE_ZEROES) {
		seg = (struct blk_seg){0, step / 512, 0};
		CHECK(!blk_sync(&dev.vq[0], req, BLK_WRITE_ZEROES, 0, &seg, sizeof seg), "write zeroes failed");
		rw(BLK_IN, 0, step);
		compare(0, step, 0);
		put("write zeroes: ok\n");
	}
	if (dev.features & BLK_F_DISCARD && size > step) {
		seg = (struct blk_seg){step / 512, step / 512, 0};
		CHECK(!blk_sync(&dev.vq[0], req, BLK_DISCARD, 0, &seg, sizeof seg), "discard failed");
		rw(BLK_IN, step / 512, step);
		put("discard: ok\n");
	}
	CHECK(blk_sync(&dev.vq[0], req, BLK_IN, sectors, buf, 512) == 1, "a read past the end did not fail");
	CHECK(blk_sync(&dev.vq[0], req, 0x77, 0, buf, 512) == 2, "an unknown request was not refused");
	rw(BLK_IN, sectors - 1, 512);
	put("blk: ok\n");
}
