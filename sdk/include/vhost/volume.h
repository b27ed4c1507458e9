/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * A volume: a flat array of bytes. Best tier first: if info() gives an fd, the host does all I/O on it and never calls
 * submit (fd tier); else submit() carries every request (submit tier).
 *
 * Rules of the submit tier: exactly one completion per accepted request, in any order, with 0 or a negative errno:
 * no partial success. Completion may happen inside submit; the host never calls submit of the same queue from within
 * a completion. FLUSH makes durable every write whose completion was delivered on any queue of the volume before the
 * flush was submitted (unless VH_VOL_FLUSH_QUEUE_LOCAL). A failed flush latches: the host trusts the volume no more
 * until it is reopened.
 */
#ifndef VHOST_VOLUME_H
#define VHOST_VOLUME_H

#include <vhost/host.h>
#include <vhost/io.h>

/* vh_volume_info.caps */
#define VH_VOL_READ_ONLY UINT64_C(0x1)
#define VH_VOL_WRITE_CACHE UINT64_C(0x2)       /* completed writes may be lost without FLUSH */
#define VH_VOL_FLUSH UINT64_C(0x4)
#define VH_VOL_FUA UINT64_C(0x8)               /* VH_REQ_FUA understood; else the host writes and flushes */
#define VH_VOL_DISCARD UINT64_C(0x10)
#define VH_VOL_ZERO UINT64_C(0x20)             /* VH_ZERO understood; else the host writes zeros */
#define VH_VOL_FAST_ZERO UINT64_C(0x40)        /* VH_REQ_FAST_ONLY understood */
#define VH_VOL_GROW UINT64_C(0x80)             /* resize() upwards works while in use, on the host's demand */
#define VH_VOL_ZERO_ON_GROW UINT64_C(0x100)    /* grown ranges read as zeros */
#define VH_VOL_FLUSH_QUEUE_LOCAL UINT64_C(0x200) /* FLUSH covers its own queue only: the host flushes every queue */
#define VH_VOL_DISCARD_ZEROES UINT64_C(0x400)  /* a discarded, aligned range reads as zeros */
#define VH_VOL_FD_DIRECT UINT64_C(0x800)       /* fd: opened with O_DIRECT; I/O obeys the alignments below */
#define VH_VOL_FD_BLOCK UINT64_C(0x1000)       /* fd: a block device (BLKDISCARD, BLKZEROOUT), else a regular file */
#define VH_VOL_LEASED UINT64_C(0x2000)         /* attach() took an exclusive lease where the backend has one */

/* 0 in a limit means unknown, and then: block sizes 512, alignments the logical block, no maximum. */
struct vh_volume_info {
	uint32_t size;
	int32_t fd; /* fd tier: borrowed, stays the plugin's, valid until close; -1: submit tier */
	uint64_t caps;
	uint64_t bytes;
	uint64_t fd_base; /* byte of the fd where the volume begins */
	uint32_t logical_block, physical_block, min_io, opt_io;
	uint32_t buf_align;    /* address alignment of each iovec */
	uint32_t len_align;    /* offset and length alignment of READ and WRITE, and of each iovec's length */
	uint32_t max_segments; /* iovecs */
	uint32_t max_queues;
	uint64_t max_bytes;     /* READ, WRITE */
	uint64_t discard_gran, discard_align, max_discard, max_zero; /* bytes */
	char serial[32]; /* NUL-padded; what the guest may see */
	char wwid[64];   /* NUL-padded text, globally unique, or empty */
};

struct vh_volume_ops {
	uint32_t size;
	uint32_t req_ctx; /* bytes of per-request scratch that the host provides in vh_req.ctx; at most 4096 */
	/* [main], must not block. Fills *i below i->size. Called again after every resize and VH_EVENT_SIZE. Mandatory. */
	int (*info)(void *vol, struct vh_volume_info *i);
	/* [main] May block (a login). `depth`: most requests in flight. `hq`: for vh_io_ops.ready and vh_lower_ops.
	 * Mandatory without an fd; -EUSERS past max_queues. */
	int (*queue_open)(void *vol, struct vh_queue *hq, uint32_t depth, void **q, struct vh_err *e);
	/* [queue] Binds it to its loop; from here on all its work happens there. Mandatory without an fd. */
	int (*queue_start)(void *q, struct vh_loop *l);
	/* [queue] All requests are complete. Frees the queue. Must not block. Mandatory without an fd. */
	void (*queue_close)(void *q);
	/* [queue] Takes requests from the front; returns how many (0..n). The rest stays the host's until
	 * vh_io_ops.ready. A request that cannot be done is accepted and completed with an error. Never blocks.
	 * Mandatory without an fd. */
	uint32_t (*submit)(void *q, struct vh_req *const *r, uint32_t n);
	/* [queue] A hint; the request still completes once, with -ECANCELED or its true result. Absent: the host waits. */
	void (*cancel)(void *q, struct vh_req *r);
	/* [main] May block. Durable when it returns; with an fd the host sees to that by a flush, so that a write error is
	 * reported to it and not used up by an fsync in here. Shrinking only when the host has drained the volume. Absent:
	 * -EOPNOTSUPP. */
	int (*resize)(void *vol, uint64_t bytes, struct vh_err *e);
	/* [main] May block. All queues are closed. Releases the lease. Does not flush. Mandatory. */
	void (*close)(void *vol);
};

#endif
