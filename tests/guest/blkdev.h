/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* virtio-blk requests for the guests blk and blkbench. */
#ifndef GUEST_BLKDEV_H
#define GUEST_BLKDEV_H

#include "lib/guest.h"

#define BLK_IN 0
#define BLK_OUT 1
#define BLK_FLUSH 4
#define BLK_GET_ID 8
#define BLK_DISCARD 11
#define BLK_WRITE_ZEROES 13
#define BLK_F_RO (UINT64_C(1) << 5)
#define BLK_F_BLK_SIZE (UINT64_C(1) << 6)
#define BLK_F_FLUSH (UINT64_C(1) << 9)
#define BLK_F_MQ (UINT64_C(1) << 12)
#define BLK_F_DISCARD (UINT64_C(1) << 13)
#define BLK_F_WRITE_ZEROES (UINT64_C(1) << 14)

struct blk_req { uint32_t type, reserved; uint64_t sector; uint8_t status; uint8_t pad[15]; };
struct blk_seg { uint64_t sector; uint32_t sectors, flags; };

/* Puts a request on the ring; data may be NULL. Its head, or -1. The request stays the caller's until it is finished. */
static inline int blk_submit(struct vq *q, struct blk_req *r, uint32_t type, uint64_t sector, void *data, uint32_t len)
{
	struct vbuf b[3];
	unsigned n = 0, in = 1;
	r->type = type;
	r->reserved = 0;
	r->sector = sector;
	r->status = 0xff;
	b[n++] = (struct vbuf){r, 16};
	if (len) {
		b[n++] = (struct vbuf){data, len};
		in += type == BLK_IN || type == BLK_GET_ID;
	}
	b[n++] = (struct vbuf){&r->status, 1};
	return vq_add(q, b, n, in);
}

static inline unsigned blk_sync(struct vq *q, struct blk_req *r, uint32_t type, uint64_t sector, void *data, uint32_t len)
{
	CHECK(blk_submit(q, r, type, sector, data, len) >= 0, "the ring is full");
	vq_kick(q);
	while (vq_get(q, NULL) < 0)
		relax();
	return r->status;
}

#endif
