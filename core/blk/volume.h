/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Volumes as the core uses them: one interface over the fd tier (libaio, io_uring or threads) and the submit tier
 * (plugins, filters). Handles alignment (read-modify-write under a range lock in the volume's address space), limits,
 * growth, flush scope, failed-flush latching and back-pressure, so that users may send any offset and length.
 */
#ifndef BLK_VOLUME_H
#define BLK_VOLUME_H

#include <vhost/filter.h>
#include <vhost/volume.h>
#include "util/err.h"
#include "util/loop.h"

struct blk_vol;
struct blk_vq; /* one queue of a volume, owned by one loop */

enum blk_engine { BLK_ENGINE_AUTO, BLK_ENGINE_AIO, BLK_ENGINE_URING, BLK_ENGINE_THREADS };

struct blk_config {
	enum blk_engine engine;  /* AUTO: libaio where O_DIRECT works, else threads */
	uint64_t io_timeout_ns;  /* 0: none. After it the volume counts as stalled; the request stays pinned */
	const char *label;       /* "default/web", for errors and statistics */
	int read_only;
	int no_flush; /* flushes do nothing: whoever made the volume makes all of it durable before anybody can find it */
};

/* One request, embedded in the caller's; nothing is allocated. off, len: any bytes (reads past the end give zeros,
 * writes past it grow the volume or fail with -ENOSPC). */
struct blk_io {
	uint16_t op, flags; /* VH_READ..., VH_REQ_* (FUA is emulated where the volume has none) */
	uint32_t niov;
	uint64_t off, len;
	const struct iovec *iov; /* lives until done */
	void (*done)(struct blk_io *io, int result); /* [queue] never from within blk_submit */
	struct blk_io *next;  /* the caller's while it owns the request */
	uint64_t priv[28];    /* the engine's */
};

/* Takes over an attached volume (closed by blk_vol_put); on failure it stays the caller's. ops is the host's copy
 * (plug_volume_ops). */
int blk_vol_new(void *vol, const struct vh_volume_ops *ops, const struct blk_config *c, struct blk_vol **out,
		struct vh_err *e);
/* Puts a filter over a volume; takes over `lower`, which on failure stays the caller's. */
int blk_vol_filter(struct blk_vol *lower, const struct vh_filter_ops *f, const struct vh_opts *opts,
		   const struct blk_config *c, struct blk_vol **out, struct vh_err *e);
/* The vh_object for a volume that is about to be attached, and its binding once it is: events reach the volume, which
 * frees the object with itself. One that was never bound is freed by blk_object_free. */
struct vh_object *blk_object_new(void);
void blk_object_bind(struct vh_object *o, struct blk_vol *v);
void blk_object_free(struct vh_object *o);
struct blk_vol *blk_vol_ref(struct blk_vol *v);
void blk_vol_put(struct blk_vol *v); /* [main] no queue is open at the last one; may block */
/* Once, before the volume is used: fn is called when its plugin has closed it. */
void blk_vol_on_close(struct blk_vol *v, void (*fn)(void *ctx), void *ctx);
const struct vh_volume_info *blk_vol_info(const struct blk_vol *v); /* immutable but for bytes: use blk_vol_bytes */
uint64_t blk_vol_bytes(const struct blk_vol *v);
const char *blk_vol_label(const struct blk_vol *v);
const struct vh_volume_ops *blk_vol_ops(const struct blk_vol *v, void **vol);
int blk_vol_resize(struct blk_vol *v, uint64_t bytes, struct vh_err *e); /* [main] the user has drained for a shrink */
/* [any] In ops->resize: the volume grows under a write, which no contract makes durable before the next flush. */
int blk_growing(void);
/* [any] Who used the volume goes: if its storage is lost by then, what is under way is given up after so many ns, and everything
 * fails with -EIO. Again: a new time. */
void blk_vol_leave(struct blk_vol *v, uint64_t ns);
/* [any] 1: its plugin has lost the storage, and tries to get it back. Adds the requests that are older than io_timeout_ns. */
int blk_vol_trouble(const struct blk_vol *v, unsigned *late);
int blk_vol_failed(const struct blk_vol *v); /* 1 after a failed flush or a lost lease */
enum blk_engine blk_vol_engine(const struct blk_vol *v);
/* Events of the core beside VH_EVENT_*. */
#define BLK_EVENT_STALLED 0x10001u /* a request is older than io_timeout_ns; value = requests that are */
#define BLK_EVENT_MOVING 0x10002u  /* none is any more */
#define BLK_EVENT_FAILED 0x10003u  /* a flush failed: writes are refused from now on; value = the errno */
/* At most one listener: VH_EVENT_*, BLK_EVENT_*; on a thread of the block layer, so it may take locks but not block for
 * long, and must not put the volume. NULL ends it: no call runs or comes afterwards. */
void blk_vol_listen(struct blk_vol *v, void (*fn)(void *ctx, uint32_t event, uint64_t value), void *ctx);

/* [main], while the loop does not run, or through loop_call. depth: most requests that the user keeps in flight. */
int blk_vq_open(struct blk_vol *v, struct vh_loop *l, uint32_t depth, struct blk_vq **out, struct vh_err *e);
void blk_vq_close(struct blk_vq *q); /* the same; no request is in flight */
void blk_submit(struct blk_vq *q, struct blk_io *io); /* [queue] gathers; sent at the end of the loop's turn or by kick */
void blk_kick(struct blk_vq *q);                      /* [queue] sends what is gathered now; may call done() */
/* [queue] Polls for completions without a system call where the engine can; returns how many it delivered. */
int blk_poll(struct blk_vq *q);

/* Blocking I/O for control paths and meta workers; any alignment. [main], [meta]; thread-safe. */
int blk_read(struct blk_vol *v, void *buf, uint64_t len, uint64_t off, struct vh_err *e);
int blk_write(struct blk_vol *v, const void *buf, uint64_t len, uint64_t off, struct vh_err *e);
int blk_zero(struct blk_vol *v, uint64_t len, uint64_t off, struct vh_err *e);
int blk_discard(struct blk_vol *v, uint64_t len, uint64_t off, struct vh_err *e);
int blk_flush(struct blk_vol *v, struct vh_err *e);

/* For copying, share.c. [any], may block as long as a system call does.
 * The data at or after off in a file: [*from, *to), within end. No more: *from = end. Not a file: all of it. */
void blk_next_data(struct blk_vol *v, uint64_t off, uint64_t end, uint64_t *from, uint64_t *to);
/* Lets v share the bytes of another file (reflink). -EOPNOTSUPP: that is not possible here, and nothing has changed. */
int blk_share(struct blk_vol *v, uint64_t off, struct blk_vol *from, uint64_t from_off, uint64_t len);
void blk_write_out(struct blk_vol *v); /* begins to write what the page cache holds; a flush is still needed */

#endif
