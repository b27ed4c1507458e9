/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Disk images: a chain of formats over volumes, behind one asynchronous interface. Here the mapping state machine runs
 * (docs/design/mapping.md): range locks, extent cache, validation, allocating writes, commit, flush phases, trims, drain,
 * error policy. A device sees only this header.
 */
#ifndef FMT_IMAGE_H
#define FMT_IMAGE_H

#include <vhost/format.h>
#include "blk/volume.h"
#include "util/parse.h"

struct fmt_image;
struct fmt_queue;

enum fmt_policy { FMT_REPORT, FMT_STOP, FMT_STOP_ENOSPC }; /* what a failed request does: error to the guest, or stop it */

/* Resolves a reference of an image (backing, data file): the policy of whoever opens the chain. Returns an attached
 * volume and the name of its format. */
typedef int fmt_resolve_fn(void *ctx, const struct vh_ref *ref, int read_only, struct blk_vol **vol, char format[32],
			   struct vh_err *e);

struct fmt_spec {
	struct blk_vol *vol; /* reference taken over, also on failure */
	const struct vh_format_ops *ops;
	const struct vh_opts *opts; /* of ops->open_options; may be NULL */
	const struct kvs *below;    /* options of the images below: those of the next, and "backing.NAME" of the one after; may be NULL */
	int read_only;
	fmt_resolve_fn *resolve; /* NULL: any reference is refused */
	void *resolve_ctx;
	const char *label;
	enum fmt_policy on_read_error, on_write_error;
	/* [any] Called when a policy stops the guest; the request is kept and run again by fmt_resume(). May be NULL. */
	void (*stopped)(void *ctx, const char *label, int error);
	void *stopped_ctx;
	/* Before the references of the image at this depth of the chain (0: the top) are resolved: whose names they are. May be
	 * NULL. */
	void (*resolve_layer)(void *ctx, uint32_t depth);
	/* The backing image is left alone: for calls that need no data (info, a new name). The format is told VH_OPEN_REPAIR, so that
	 * it does not miss it. */
	int no_backing;
	int repair;     /* opened even if it is damaged, for fmt_check() */
};

struct fmt_info {
	uint64_t bytes;
	uint32_t logical_block, physical_block, min_io, opt_io;
	uint32_t max_segments; /* 0: no limit */
	uint32_t discard_gran;
	int read_only, discard, zero; /* what requests make sense */
	char serial[32], wwid[64];
};

struct fmt_io {
	uint16_t op, flags; /* VH_READ ..., VH_REQ_FUA, VH_REQ_MAY_UNMAP */
	uint32_t niov;
	uint64_t off, len; /* bytes of the disk, any alignment, inside it (else -EINVAL) */
	const struct iovec *iov;
	void (*done)(struct fmt_io *io, int result); /* [queue] never from within fmt_submit */
	uint64_t priv[48]; /* the core's */
};

int fmt_open(const struct fmt_spec *s, struct fmt_image **out, struct vh_err *e); /* [main] may block */
void fmt_close(struct fmt_image *i); /* [main] queues closed; flushes, closes the chain and its volumes; may block */
void fmt_get_info(const struct fmt_image *i, struct fmt_info *out);
/* [main], the loop not running, or in loop_call. depth: most fmt_io in flight. */
int fmt_queue_open(struct fmt_image *i, struct vh_loop *l, uint32_t depth, struct fmt_queue **out, struct vh_err *e);
/* The same; nothing in flight. What an error policy kept, or a drain held back, ends with -ECANCELED. */
void fmt_queue_close(struct fmt_queue *q);
void fmt_submit(struct fmt_queue *q, struct fmt_io *io); /* [queue] */
void fmt_kick(struct fmt_queue *q);                      /* [queue] sends what is gathered; may call done() */
int fmt_poll(struct fmt_queue *q);                       /* [queue] completions found without a system call */
/* [main] Stops intake on all queues and waits until nothing is in flight; requests submitted meanwhile wait. Nests. */
void fmt_drain_begin(struct fmt_image *i);
void fmt_drain_end(struct fmt_image *i);
void fmt_resume(struct fmt_image *i); /* [any] runs again what an error policy kept */
/* [any] keep 0: no request is kept any more; those that are run again, and their errors are delivered. For a machine that is
 * reset or goes down, where every request must end. */
void fmt_keep(struct fmt_image *i, int keep);
/* [any] As blk_vol_leave() and blk_vol_trouble(), for all volumes of the chain. */
void fmt_leave(struct fmt_image *i, uint64_t ns);
int fmt_trouble(const struct fmt_image *i, unsigned *late);
int fmt_flush(struct fmt_image *i, struct vh_err *e);                   /* [main] blocking, durable when it returns */
int fmt_resize(struct fmt_image *i, uint64_t bytes, struct vh_err *e);  /* [main] drains; tells the listener */
void fmt_listen(struct fmt_image *i, void (*fn)(void *ctx, uint64_t bytes), void *ctx); /* size changes, [any] */
/* Blocking access for commands (upload, download, convert). [main] */
int fmt_pread(struct fmt_image *i, void *buf, uint64_t len, uint64_t off, struct vh_err *e);
int fmt_pwrite(struct fmt_image *i, const void *buf, uint64_t len, uint64_t off, struct vh_err *e);
int fmt_pzero(struct fmt_image *i, uint64_t len, uint64_t off, struct vh_err *e);
/* The extents of [off, off+len) merged over the chain: fn(ctx, off, len, VH_EXT_*, depth in the chain, volume address). */
int fmt_report(struct fmt_image *i, uint64_t off, uint64_t len,
	       int (*fn)(void *ctx, uint64_t off, uint64_t len, uint32_t type, uint32_t depth, uint64_t addr), void *ctx,
	       struct vh_err *e);
/* The same with where data lies, and without a limit of what is known: a piece of the disk, neighbours joined. type: VH_EXT_DATA
 * (vol, addr), ZERO, COMPRESSED, OPAQUE. allocated: the image at `depth` decides what is here. holes: holes of the host's
 * files count as ZERO. fn: not 0 ends the walk, and is returned. [main], beside requests. */
struct fmt_range { uint64_t off, len, addr; struct blk_vol *vol; uint32_t type, depth, allocated, crypt; };
typedef int fmt_walk_fn(void *ctx, const struct fmt_range *r);
int fmt_walk(struct fmt_image *i, uint64_t off, uint64_t len, int holes, fmt_walk_fn *fn, void *ctx, struct vh_err *e);

/* fmt_io.op beside VH_READ ...: the disk takes the bytes of a file by sharing them (reflink), in whole allocation units. iov
 * points at a struct fmt_share. -EOPNOTSUPP: not here, and nothing has changed: read and write them. */
#define FMT_SHARE 32u
struct fmt_share { struct blk_vol *from; uint64_t addr; };

/* Compressed units. unit: encode and put one at a time (shorter at the disk's end). once: nothing but put() in ascending
 * order fills this image. compressed.c */
struct fmt_encoding { uint32_t unit; int once; };
int fmt_encoding(struct fmt_image *i, struct fmt_encoding *out, struct vh_err *e); /* -EOPNOTSUPP */
int64_t fmt_encode(struct fmt_image *i, const void *in, uint64_t in_len, void *out, uint64_t cap); /* [any] -ENOSPC: write it plainly */
/* [any] may block. The unit holds nothing of this image yet, and no request on it is in flight. */
int fmt_put(struct fmt_image *i, uint64_t pos, uint64_t len, const void *stored, uint64_t n, struct vh_err *e);
/* Allocation unit and what can be zeroed within it. */
void fmt_units(const struct fmt_image *i, uint32_t *unit, uint32_t *subunit);
void fmt_write_out(struct fmt_image *i); /* [any] begins to write what the host's page cache holds of the image */

/* Blocking access to a volume that is not open as an image, for calls of create(), inspect() and measure(). */
struct vh_meta *fmt_meta_new(struct blk_vol *vol, int read_only); /* does not take the reference; NULL: no memory */
/* The volume reads as zeros now: zeroing what was not written since is nothing to be done. */
void fmt_meta_clean(struct vh_meta *m);
void fmt_meta_free(struct vh_meta *m);
/* Runs the format's check() on the drained image; -EOPNOTSUPP without one. repair: VH_CHECK_LEAK | VH_CHECK_CORRUPT. [main] */
int fmt_check(struct fmt_image *i, int repair, vh_check_fn *fn, void *ctx, struct vh_job *j, struct vh_err *e);
/*
 * control.c: what the commands ask of a format. [main]. Each one drains the image, flushes it, makes the call and drops what
 * was cached; guests' requests wait meanwhile. -EOPNOTSUPP with a text where the format has no such call.
 */
const char *fmt_format_name(const struct fmt_image *i); /* of the top image */
const struct vh_format_ops *fmt_format_ops(const struct fmt_image *i);
int fmt_describe(struct fmt_image *i, vh_describe_fn *fn, void *ctx, struct vh_err *e); /* nothing to tell: no error */
int fmt_amend(struct fmt_image *i, const struct vh_opts *o, struct vh_job *j, struct vh_err *e);
/* volume: the first one of the new backing image, or NULL. Afterwards the image is only good to be closed. */
int fmt_set_backing(struct fmt_image *i, const char *name, const char *format, uint64_t bytes, struct blk_vol *volume,
		    struct vh_err *e);
int fmt_empty(struct fmt_image *i, struct vh_job *j, struct vh_err *e);
int fmt_snapshot_create(struct fmt_image *i, const char *name, struct vh_err *e);
int fmt_snapshot_list(struct fmt_image *i, vh_snapshot_fn *fn, void *ctx, struct vh_err *e); /* or fn's value */
int fmt_snapshot_apply(struct fmt_image *i, const char *name, struct vh_job *j, struct vh_err *e); /* may change the size */
int fmt_snapshot_remove(struct fmt_image *i, const char *name, struct vh_job *j, struct vh_err *e);

/* One image of the chain; depth 0 is the top. The texts live as long as the image. */
struct fmt_layer_info {
	const char *label, *format;
	uint64_t bytes, backing_bytes; /* of the disk; positions at or past backing_bytes never show the backing image */
	uint64_t volume_bytes, end;    /* of its first volume, and what of it is in use (0: unknown) */
	uint64_t caps;                 /* VH_FMT_* */
	uint32_t unit, volumes;
	struct blk_vol *volume;        /* the first, borrowed */
};
uint32_t fmt_layers(const struct fmt_image *i);
int fmt_layer_get(const struct fmt_image *i, uint32_t depth, struct fmt_layer_info *out); /* -ENOENT */
/* fmt_report of the image at one depth alone: what it leaves to its backing image comes as VH_EXT_BACKING. In the place of the
 * depth fn gets 1 where the format says that this image decides what is here. */
int fmt_report_layer(struct fmt_image *i, uint32_t depth, uint64_t off, uint64_t len,
		     int (*fn)(void *ctx, uint64_t off, uint64_t len, uint32_t type, uint32_t depth, uint64_t addr), void *ctx,
		     struct vh_err *e);
/* What the image in a volume refers to, without opening it: how many, *refs for free(). */
int fmt_refs(struct blk_vol *vol, const struct vh_format_ops *ops, struct vh_ref **refs, struct vh_err *e);

/* Counters for tests and `vhost vm stats`. */
struct fmt_stats {
	uint64_t ops[6], bytes[6], errors, map_calls, commits, cache_hits, flushes;
	uint64_t exclusive, gathered; /* ranges that were locked for a change of the mapping; writes that went along with one */
};
void fmt_get_stats(const struct fmt_image *i, struct fmt_stats *out);

#endif
