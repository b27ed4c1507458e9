/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The parts of the vdi plugin. File: a header in the first sector, a block map of one 32-bit entry per block of the disk,
 * then the data: an array of slots, each `extra` bytes and a block. An entry is the number of a slot, VDI_FREE (the parent
 * image, or zeros) or VDI_ZERO.
 *
 * Crash rules: commit() changes memory only. flush() phase 0 raises the header's count of slots and copies the changed
 * pages of the map; phase 1, after the host's flush of the data, writes those copies and nothing newer. A slot that was
 * given up is used by another block only when a volume flush that began after its unlink was written has ended; its own block
 * may have it back at any time, for what an old entry shows then is that block's own data.
 */
#ifndef VDI_H
#define VDI_H

#include <errno.h>
#include <pthread.h>
#include <vhost/format.h>
#include <vhost/sugar.h>

extern const struct vh_host *vdi_host;
extern const struct vh_meta_ops *vdi_meta; /* NULL before vdi_begin() has succeeded */
extern const struct vh_job_ops *vdi_job;   /* NULL: the host has no such service */

#define vdi_fail(e, code, ...) (vdi_host->err((e), (code), __VA_ARGS__))
#define vdi_hint(e, ...) (vdi_host->remedy((e), __VA_ARGS__))
#define ULL(x) ((unsigned long long)(x))

#define VDI_SECTOR 512u
#define VDI_FREE UINT32_C(0xffffffff)
#define VDI_ZERO UINT32_C(0xfffffffe)
#define VDI_MIN_BLOCK (4u << 10)
#define VDI_MAX_BLOCK (16u << 20)
#define VDI_MAX_BLOCKS (UINT32_C(1) << 26) /* 64 TiB of 1 MiB blocks; a map of 256 MiB */
/* Entries may name so many slots more than there are blocks: resize() moves the first slots behind the last ones to make
 * room for a larger map, and a crash may leave them there. Enough for the largest map and the smallest slots. */
#define VDI_SPARE (VDI_MAX_BLOCKS / (VDI_MIN_BLOCK / 4) + 2)
#define VDI_PAGE 1024u                     /* entries of a page of the map, which is written as one */

/* Types of an image, in the header. */
#define VDI_TYPE_DYNAMIC 1u
#define VDI_TYPE_STATIC 2u
#define VDI_TYPE_UNDO 3u
#define VDI_TYPE_DIFF 4u

/* A header that has been checked. */
struct vdi_header {
	uint8_t raw[VDI_SECTOR]; /* as in the file */
	uint32_t raw_len;        /* bytes of it that are the header's; what lies behind may be the map */
	uint32_t version, type, flags;
	uint32_t map_off, data_off;
	uint32_t block, extra, blocks, allocated;
	uint64_t bytes;
	uint8_t uuid[16], modified[16], parent[16], parent_modified[16];
};

/* What a slot is. Only FREE ones are given to any block that asks. */
enum vdi_slot {
	SLOT_FREE = 0,
	SLOT_USED,      /* in the map, or promised to a map() in flight */
	SLOT_FREED,     /* given up since the last flush began */
	SLOT_UNLINKING, /* ... and the flush that is under way writes that */
	SLOT_UNLINKED,  /* ... and it is written, but not known to be durable */
	SLOT_LATE,      /* data may still land in it: taken until the image is closed */
};

struct vdi_copy { /* of a page of the map, to be written by phase 1 */
	uint32_t page;
	uint32_t entry[VDI_PAGE];
};

struct vdi {
	struct vh_meta *volume;
	pthread_mutex_t io;   /* order of writes of header and map; taken before `lock` */
	pthread_mutex_t lock; /* all below; held for memory work only */
	struct vdi_header h;
	int read_only, repair, damaged; /* damaged: nothing is written but by check() */
	int opaque;       /* blocks do not begin on sectors: read through read() */
	int stamped;      /* the modification UUID is new and durable */
	int touched;      /* a repair may have written without that */
	uint32_t bad;     /* entries that are damaged, as found at open */
	int count_wrong;  /* header's count as it was found: 1 too high, -1 too low */
	uint64_t parent_bytes;  /* of the parent as it is now */
	uint64_t backing_bytes; /* what shows through: at most the disk; 0 without a parent */
	uint64_t stride;  /* bytes of a slot */
	uint32_t *map;    /* per block: ~entry, so that untouched memory is FREE */
	uint32_t *pend;   /* per block: 1 + the slot that it gave up last, if that slot's owner still is this block */
	uint32_t *owner;  /* per slot: its block */
	uint8_t *slot;    /* per slot: enum vdi_slot */
	uint8_t *dirty;   /* per page of the map */
	uint32_t ndirty;
	uint32_t end, hint; /* no slot at or past `end` is anything but FREE; none below `hint` is FREE */
	uint32_t npending;  /* slots FREED, UNLINKING or UNLINKED */
	struct vdi_copy *copy;
	uint32_t ncopy;
};

/* vdi.c */
int vdi_begin(struct vh_err *e); /* whether the host has what everything here needs */

/* header.c */
int vdi_header_parse(const uint8_t *buf, uint64_t len, struct vdi_header *h, struct vh_err *e); /* pure */
int vdi_header_read(struct vh_meta *m, struct vdi_header *h, struct vh_err *e);
void vdi_header_encode(struct vdi_header *h); /* into h->raw; version 1.1 only */
void vdi_header_new(struct vdi_header *h);    /* h->raw from nothing */
int vdi_header_write(struct vh_meta *m, struct vdi_header *h); /* encodes as well */
int vdi_uuid_make(uint8_t u[16], struct vh_err *e);
int vdi_uuid_null(const uint8_t u[16]);
void vdi_uuid_text(const uint8_t u[16], char out[37]);
int vdi_parent_check(const struct vdi_header *child, struct vh_meta *parent, struct vh_err *e);
static inline int vdi_has_parent(const struct vdi_header *h) { return !vdi_uuid_null(h->parent); }
static inline uint64_t vdi_slot_addr(const struct vdi_header *h, uint64_t slot) /* of the block's first byte */
{
	return h->data_off + slot * ((uint64_t)h->block + h->extra) + h->extra;
}

/* slots.c: which slots are free. `lock` is held. */
static inline uint32_t vdi_entry(const struct vdi *v, uint32_t b) { return ~v->map[b]; }
void vdi_entry_set(struct vdi *v, uint32_t b, uint32_t x); /* marks it dirty */
int vdi_slot_take(struct vdi *v, uint32_t b, uint32_t *slot); /* for block b; -ENOSPC */
void vdi_slot_take_back(struct vdi *v, uint32_t b, uint32_t slot, int late);
void vdi_slot_unlink(struct vdi *v, uint32_t b, uint32_t slot);
void vdi_slot_free(struct vdi *v, uint32_t slot); /* at once: nothing in the file names it */
void vdi_slots_move(struct vdi *v, enum vdi_slot from, enum vdi_slot to);

/* map.c */
int vdi_map(void *img, struct vh_map *m);
int vdi_commit(void *img, struct vh_map *m, int status, uint32_t nowait);
int vdi_read(void *img, struct vh_req *r);

/* flush.c */
int vdi_flush(void *img, uint32_t phase);
int vdi_stamp(struct vdi *v); /* a new modification UUID, durable; once per opening */
/* Everything that memory knows is durable, and what was given up is FREE. Only where the image is drained. */
int vdi_sync(struct vdi *v, struct vh_err *e);
/* Writes h, flushes, and then takes it over; drained. When it fails nobody knows what the file says: nothing is written any
 * more. */
int vdi_header_update(struct vdi *v, struct vdi_header *h);

/* layout.c, resize.c: moving things about; the image is drained and vdi_sync() has been called. */
int vdi_copy_slots(struct vdi *v, const uint32_t *from, const uint32_t *to, uint32_t n, struct vh_job *j, struct vh_err *e);
int vdi_compact(struct vdi *v, uint32_t *closed, struct vh_job *j, struct vh_err *e);
/* Finds a place for a map of so many entries beside the one that is there, and empties the first *cut slots for it. */
int vdi_make_room(struct vdi *v, uint32_t blocks, uint32_t *map_off, uint32_t *cut, struct vh_job *j, struct vh_err *e);
/* Arrays for so many blocks, filled with what v's have, if it has any: into *out, whose own are not freed. */
int vdi_arrays(const struct vdi *v, uint32_t blocks, struct vdi *out, struct vh_err *e);
void vdi_arrays_move(struct vdi *from, struct vdi *to);
void vdi_arrays_free(struct vdi *v);
int vdi_cancelled(struct vh_job *j);
void vdi_truncate(struct vdi *v);
int vdi_resize(void *img, uint64_t bytes, struct vh_job *j, struct vh_err *e);
int vdi_empty(void *img, struct vh_job *j, struct vh_err *e);
int vdi_set_backing(void *img, const char *name, const char *format, uint64_t bytes, struct vh_meta *volume, struct vh_err *e);

/* create.c */
extern const struct vh_opt *const vdi_create_options[];
int vdi_create(struct vh_create *c, struct vh_job *j, struct vh_err *e);
int vdi_measure(const struct vh_create *c, uint64_t used, uint64_t *required, uint64_t *full, struct vh_err *e);

/* check.c */
int vdi_check(void *img, uint32_t repair, vh_check_fn *fn, void *ctx, struct vh_job *j, struct vh_err *e);

#endif
