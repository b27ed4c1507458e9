/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * A disk format says where a range of the virtual disk lives; the host moves the data. docs/design/mapping.md tells
 * the whole story, with the state machine; what a format author must know stands here.
 *
 * - The host owns range locks: a map for WRITE without VH_MAP_OVERWRITE_ONLY, for ZERO or DISCARD, holds its range,
 *   rounded to info.unit, exclusively until its commit has returned: overlapping ones are never in flight together.
 * - The host validates every extent; a bad answer fails the request with -EIO and faults the image.
 * - A format never does data I/O; metadata I/O goes through vh.meta/1, in [meta] context only.
 */
#ifndef VHOST_FORMAT_H
#define VHOST_FORMAT_H

#include <vhost/opt.h>
#include <vhost/volume.h>

/* vh_extent.type */
#define VH_EXT_DATA 1u       /* at addr of volume vol */
#define VH_EXT_ZERO 2u       /* READ, REPORT: reads as zeros */
#define VH_EXT_BACKING 3u    /* READ, REPORT: ask the next image, same position */
#define VH_EXT_COMPRESSED 4u /* READ, REPORT: one unit, at most aux bytes at addr; decode() */
#define VH_EXT_OPAQUE 5u     /* through read() and write() */
#define VH_EXT_TRIM 6u       /* DISCARD, ZERO: [addr, addr+bytes) of volume vol may be punched before commit; bytes may be 0 */

/* vh_extent.flags */
#define VH_EXT_PURE 0x1u      /* WRITE: overwriting in place needs no metadata change */
#define VH_EXT_COMMIT 0x2u    /* commit() must be called for this map */
#define VH_EXT_CACHE 0x4u     /* READ, or PURE WRITE: valid until the host drops it (commit, drain); may be cached */
#define VH_EXT_ALLOCATED 0x8u /* REPORT: this image, not its backing, decides what is here */
#define VH_EXT_CRYPT 0x10u    /* DATA: stored encrypted with info.cipher */

/* vh_extent.fill_head, fill_tail */
#define VH_FILL_NONE 0u
#define VH_FILL_ZERO 1u
#define VH_FILL_BACKING 2u /* from the layer below, zeros past its end */
#define VH_FILL_COPY 3u    /* from this image's old content */

/*
 * One run of the virtual disk. `head` and `tail` are the bytes of the allocation unit before pos and after pos+len that
 * the host writes too, from fill_head and fill_tail: the volume range is [addr-head, addr+len+tail).
 */
struct vh_extent {
	uint64_t pos, len; /* virtual bytes */
	uint64_t addr;     /* the volume address of pos (DATA), of the unit's stored bytes (COMPRESSED, TRIM) */
	uint64_t token;    /* the plugin's own, unread by the host */
	uint64_t bytes;    /* TRIM: bytes at addr. COMPRESSED: bytes of the decoded unit */
	uint32_t vol;      /* index into vh_open.volumes */
	uint32_t aux;      /* COMPRESSED: upper bound of the stored bytes */
	uint32_t head, tail; /* COMPRESSED: decoded bytes of the unit before pos and after pos+len */
	uint16_t type, flags;
	uint8_t fill_head, fill_tail, resv[2];
};
VH_STATIC_ASSERT(sizeof(struct vh_extent) == 64, "frozen when v1 is");

#define VH_MAP_READ 1u
#define VH_MAP_WRITE 2u
#define VH_MAP_ZERO 3u
#define VH_MAP_DISCARD 4u
#define VH_MAP_REPORT 5u

/* vh_map.flags */
#define VH_MAP_NOWAIT 0x1u         /* -EAGAIN rather than any wait, without side effects */
#define VH_MAP_OVERWRITE_ONLY 0x2u /* WRITE: only PURE answers; n = 0 when the first byte needs more */
#define VH_MAP_MAY_UNMAP 0x4u      /* ZERO: units may be freed */

/*
 * The plugin appends up to cap extents, the first at pos, each where the last one ended, not past pos+len for
 * allocating answers (a PURE, READ or REPORT answer may reach further: the host caches it), and sets n. n may cover
 * less than len: the host comes again. At most one call's worth of reservations hangs on one map.
 */
struct vh_map {
	uint32_t size, op, flags, cap, n, resv;
	uint64_t pos, len;
	struct vh_extent *ext;
	void *ctx; /* the plugin's, kept from map to commit */
};

/* What an image refers to; filled by inspect(). */
#define VH_REF_BACKING 1u
#define VH_REF_DATA 2u /* external data file, or an extent file */
struct vh_ref {
	uint32_t size, role;
	uint32_t optional, resv;
	/* As the image has it, NUL-terminated; the host resolves it by policy. Empty (BACKING only): there is one, but the image
	 * does not name it. Of the image being opened the open option `backing` then says which (the format has it in its
	 * schema), else what is recorded beside the volume. */
	char name[1024];
	char format[32];  /* NUL-terminated; empty: not recorded */
};

/* vh_image_info.caps and vh_open.host_caps: extent types and features. */
#define VH_FMT_COMPRESSED UINT64_C(0x1)
#define VH_FMT_OPAQUE UINT64_C(0x2)
#define VH_FMT_CRYPT UINT64_C(0x4)
#define VH_FMT_DISCARD UINT64_C(0x8)   /* map(DISCARD) */
#define VH_FMT_ZERO UINT64_C(0x10)     /* map(ZERO) */
#define VH_FMT_LOCK_SELF UINT64_C(0x20) /* map and commit of disjoint ranges may run in parallel; else the host serialises */
#define VH_FMT_DIRTY UINT64_C(0x40)    /* the image was not closed cleanly */
#define VH_FMT_BACKING UINT64_C(0x80)  /* has a backing image */
#define VH_FMT_WRITE_ONCE UINT64_C(0x100) /* filled by put() in ascending order, then closed: map(WRITE) is refused */
#define VH_FMT_ENCODE UINT64_C(0x200)  /* encode() and put() work on this image */

/*
 * How VH_EXT_CRYPT extents are stored: DATA, whole sectors, each encrypted for itself with an IV made of its number. The host
 * reads and writes whole sectors: pos and addr of an extent agree modulo `sector`; it begins and ends at a sector's edge, or
 * where the question did; an allocation with its head and tail covers whole sectors. The disk, unit and subunit are multiples of
 * `sector`. ZERO, TRIM and COMPRESSED are never encrypted; zeros written to a CRYPT extent are stored as encrypted ones.
 */
#define VH_CIPHER_AES_XTS 1u
#define VH_CIPHER_AES_CBC 2u
#define VH_IV_PLAIN64 1u /* little-endian, 64 bits, zeros behind */
#define VH_IV_ESSIV_SHA256 2u
#define VH_IV_PLAIN 3u   /* little-endian, 32 bits */
#define VH_IV_FROM_POSITION 0u /* numbers count from the beginning of the virtual disk */
#define VH_IV_FROM_ADDRESS 1u  /* ... from byte iv_base of the volume */
struct vh_cipher {
	uint32_t size, algorithm;
	uint32_t sector, iv; /* bytes of one IV: 512 to 4096 */
	uint32_t iv_from, key_bytes;
	uint64_t iv_base; /* a multiple of sector; no CRYPT extent lies before it */
	const uint8_t *key; /* lives and stays as it is until close(); the host makes its own schedule of it */
	uint32_t iv_unit; /* bytes that sector numbers count in: 512 or, also when 0, `sector` */
	uint32_t resv;
};

struct vh_image_info {
	uint32_t size, volumes; /* how many volumes it has */
	uint64_t caps;
	uint64_t bytes;         /* the virtual disk */
	uint32_t unit, subunit; /* allocation unit and what can be zeroed within it; powers of two */
	uint64_t backing_bytes; /* positions at or past this are never BACKING */
	uint64_t max_map;       /* most bytes one allocating map covers; 0: any */
	const struct vh_cipher *cipher; /* for VH_EXT_CRYPT */
	uint64_t end; /* volume 0 is in use up to here; 0: unknown. On a volume of fixed size, how full it is */
};

#define VH_OPEN_RO UINT64_C(0x1)     /* no write to any volume, not even a dirty bit */
#define VH_OPEN_REPAIR UINT64_C(0x2) /* open even if damaged, for check() */
struct vh_open {
	uint32_t size, n;
	struct vh_meta *const *volumes; /* [0] is the image file, the rest as inspect() listed them */
	uint64_t flags, host_caps;
	struct vh_object *object;
	const struct vh_opts *opts;
	uint64_t backing_bytes; /* size of the backing image now; 0 without */
	struct vh_meta *backing; /* its first volume, to read only (an identifier to compare); NULL without */
};

/* One finding of check(). */
#define VH_CHECK_LEAK 1u
#define VH_CHECK_CORRUPT 2u
#define VH_CHECK_FIXED 3u
typedef void vh_check_fn(void *ctx, uint32_t what, uint64_t off, const char *text);

struct vh_create {
	/* VH_PREALLOC_*, or VH_PREALLOC_METADATA: with all but OFF every unit is mapped; the host reserves or writes the data
	 * by the volume's own means. */
	uint32_t size, prealloc;
	uint64_t bytes;
	struct vh_meta *const *volumes;
	uint32_t n, resv;
	const struct vh_opts *opts;
	const char *backing, *backing_format; /* NULL: none */
	uint64_t backing_bytes;
	struct vh_meta *backing_volume; /* as vh_open.backing; NULL without */
	const char *name; /* the image file's own, without folders; the names of further files derive from it */
};
#define VH_PREALLOC_METADATA 3u /* beside those of pool.h */

/* A further file that create() needs. */
struct vh_create_ref {
	uint32_t size, resv;
	uint64_t bytes;  /* to make it of */
	char name[1024]; /* NUL-terminated, without folders */
};

struct vh_snapshot {
	uint32_t size, resv;
	const char *name, *id; /* id: unique in the image */
	uint64_t bytes;        /* of the disk when it was taken */
	int64_t when;          /* ns since 1970, 0: unknown */
	uint64_t vm_state;     /* bytes of a machine's state in it */
	uint64_t clock;        /* ns that the guest had run; 0: unknown */
};
typedef int vh_snapshot_fn(void *ctx, const struct vh_snapshot *s); /* not 0 ends the list, and is returned */

/* One property of an image for people and programs: key [a-z0-9-]+. */
#define VH_DESC_TEXT 1u
#define VH_DESC_NUMBER 2u /* decimal */
#define VH_DESC_BOOL 3u   /* "true", "false" */
typedef void vh_describe_fn(void *ctx, const char *key, uint32_t type, const char *value);

struct vh_format_ops {
	uint32_t size, resv;
	uint64_t caps; /* VH_FMT_* it may use */
	const char *name; /* "raw", "qcow2" */
	vh_schema open_options, create_options;
	/* [any] Pure: 0..100, how surely these first bytes of a file of `bytes` are this format; for commands that probe
	 * and say so. Absent: never probed. */
	int (*probe)(const void *buf, uint64_t len, uint64_t bytes);
	/* [meta] Names the further files of the image, without side effects: returns how many (fills up to cap). Absent:
	 * none. Must bound everything it reads: the file is hostile. */
	int (*inspect)(struct vh_meta *volume0, struct vh_ref *refs, uint32_t cap, struct vh_err *e);
	int (*open)(const struct vh_open *o, void **img, struct vh_err *e); /* [main] may block. Mandatory. */
	/* [main] The image is drained, and flushed unless it is faulted. May write (a clean bit). Mandatory. */
	void (*close)(void *img);
	int (*info)(void *img, struct vh_image_info *i); /* [main] must not block. Mandatory. */
	/* With NOWAIT [queue], else [meta]. Mandatory. -ENOSPC, -EIO. A failing map leaves no reservation. Also without
	 * LOCK_SELF, NOWAIT calls of READ, REPORT and OVERWRITE_ONLY may run beside each other: they change nothing. */
	int (*map)(void *img, struct vh_map *m);
	/* Once per map that returned a COMMIT extent: status 0 when all its data is complete (not durable), < 0 drops the
	 * reservation. -ETIMEDOUT: the data may still land: the unit must not be used again before close. First with
	 * nowait = 1 [queue], then, after -EAGAIN, with 0 [meta]. commit(0) failing: the old mapping stands, and the
	 * reservation is gone; -EUCLEAN: it does not stand, which faults the image. commit(< 0)
	 * must not fail but with -EAGAIN. Absent: no COMMIT extents. */
	int (*commit)(void *img, struct vh_map *m, int status, uint32_t nowait);
	/* [meta] Two-phase: writes metadata for what was committed before the call; returns 1: "flush all volumes, then
	 * call with phase + 1", 0: done (the host flushes the volumes once more). Nothing that publishes a mapping may
	 * reach a volume before a volume flush issued after its commit. Absent: nothing to write. */
	int (*flush)(void *img, uint32_t phase);
	/* [any], a CPU worker. Decodes one COMPRESSED unit; out sums to the extent's bytes. -EIO: damaged. */
	int (*decode)(void *img, const struct vh_extent *x, const void *in, uint64_t in_len, void *out, uint64_t out_len);
	/* [meta] OPAQUE ranges; may block. */
	int (*read)(void *img, struct vh_req *r);
	int (*write)(void *img, struct vh_req *r);
	/* [main] Jobs; the image is drained where there is one. Absent: -EOPNOTSUPP. */
	int (*create)(struct vh_create *c, struct vh_job *j, struct vh_err *e);
	int (*resize)(void *img, uint64_t bytes, struct vh_job *j, struct vh_err *e);
	/* repair: which findings to mend: 0 none, VH_CHECK_LEAK, or VH_CHECK_LEAK | VH_CHECK_CORRUPT. What was mended is told as
	 * VH_CHECK_FIXED as well. */
	int (*check)(void *img, uint32_t repair, vh_check_fn *fn, void *ctx, struct vh_job *j, struct vh_err *e);
	/* Bytes needed for a disk of c->bytes: *required when `used` of them hold data, *full when all do. */
	int (*measure)(const struct vh_create *c, uint64_t used, uint64_t *required, uint64_t *full, struct vh_err *e);
	int (*snapshot_create)(void *img, const char *name, struct vh_err *e);
	int (*snapshot_list)(void *img, vh_snapshot_fn *fn, void *ctx, struct vh_err *e);
	int (*snapshot_apply)(void *img, const char *name, struct vh_job *j, struct vh_err *e);
	int (*snapshot_remove)(void *img, const char *name, struct vh_job *j, struct vh_err *e);
	/* [any] Tells what there is to tell, bounded. Absent: nothing. */
	int (*describe)(void *img, vh_describe_fn *fn, void *ctx);
	/* [main] The image is drained and flushed. Changes what the options name (those without a default and not given are
	 * left as they are): version, features, widths, key slots. Absent: -EOPNOTSUPP. */
	vh_schema amend_options;
	int (*amend)(void *img, const struct vh_opts *o, struct vh_job *j, struct vh_err *e);
	/* [main] Drained. From now on the image names this backing image (NULL: none) of this size, whose first volume is
	 * `volume`; no mapping changes. The host closes the image afterwards. -ENAMETOOLONG. Absent: -EOPNOTSUPP. */
	int (*set_backing)(void *img, const char *name, const char *format, uint64_t bytes, struct vh_meta *volume,
			   struct vh_err *e);
	/* [main] Drained. Forgets every mapping: the backing image, or zeros, show everywhere. Absent: -EOPNOTSUPP. */
	int (*empty)(void *img, struct vh_job *j, struct vh_err *e);
	/* [any] A CPU worker; pure, several at once. Encodes one unit (shorter at the disk's end): returns the stored bytes;
	 * -ENOSPC: it does not get smaller, write it plainly. `cap` is in_len. */
	int64_t (*encode)(void *img, const void *in, uint64_t in_len, void *out, uint64_t cap);
	/* [meta] One at a time, the unit unmapped (or only in the backing image) and not in flight: stores n encoded bytes for
	 * [pos, pos+len) and maps them, durable by the next flush. WRITE_ONCE: pos ascends, and encode() never refuses. */
	int (*put)(void *img, uint64_t pos, uint64_t len, const void *stored, uint64_t n, struct vh_err *e);
	/* [main] Names the further files that create() with these arguments needs (c->volumes unset): returns how many, fills
	 * up to cap. The host makes them beside the image and hands them over as volumes[1..]. Absent: none. */
	int (*create_refs)(const struct vh_create *c, struct vh_create_ref *refs, uint32_t cap, struct vh_err *e);
};

#endif
