/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* One data request. */
#ifndef VHOST_IO_H
#define VHOST_IO_H

#include <sys/uio.h>
#include <vhost/abi.h>

#define VH_READ 1u
#define VH_WRITE 2u
#define VH_FLUSH 3u   /* off = len = 0 */
#define VH_DISCARD 4u /* advisory: afterwards the range reads as anything that was there, or zeros */
#define VH_ZERO 5u    /* not advisory: reads as zeros afterwards */

/* vh_req.flags; the host sends only what the volume's caps advertise. */
#define VH_REQ_FUA 0x1u       /* WRITE, ZERO: durable when completed */
#define VH_REQ_MAY_UNMAP 0x2u /* ZERO: space may be given back */
#define VH_REQ_FAST_ONLY 0x4u /* ZERO: -EOPNOTSUPP at once if not faster than writing zeros */

/*
 * Read-only to the plugin, except *ctx. `iov` points into guest memory, which the guest may change at any time:
 * read each byte once, and copy before checksumming, compressing or encrypting. The buffers belong to the plugin
 * from acceptance to completion and not one byte longer. The iovecs sum to len (READ, WRITE), or niov is 0.
 * The host guarantees bounds, alignment and the limits of vh_volume_info.
 */
struct vh_req {
	uint32_t size;
	uint16_t op, flags;
	uint64_t off, len; /* volume bytes */
	const struct iovec *iov;
	uint32_t niov, resv;
	void *ctx; /* vh_volume_ops.req_ctx bytes of scratch, 16-aligned, the plugin's while it holds the request */
};
VH_STATIC_ASSERT(sizeof(struct vh_req) == 48, "no padding");

#endif
