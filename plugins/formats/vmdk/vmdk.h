/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What the parts of the vmdk plugin share.
 *
 *   image    a descriptor and its extents, one after the other on the disk
 *   extent   a file (or a part of one) that holds a run of the disk: plain, or sparse with grains behind two levels of tables
 *   grain    the unit of allocation; a grain table has `gtes` entries, a grain directory says where the tables are
 *   slot     a place for a grain in the file; which are taken is worked out from the tables before the first change
 *
 * Locks: image.lock guards all that changes while the image is open, and is never held during I/O; who finds something under
 * way waits on image.cond, unless it must not wait.
 */
#ifndef VMDK_H
#define VMDK_H

#include <pthread.h>
#include <stdlib.h>
#include <vhost/format.h>
#include <vhost/pool.h>
#include <vhost/sugar.h>

extern const struct vh_host *vmdk_host;
#define fail(e, code, ...) (vmdk_host->err((e), (code), __VA_ARGS__))
#define hint(e, ...) (vmdk_host->remedy((e), __VA_ARGS__))
#define ULL(x) ((unsigned long long)(x))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define ROUND_UP(n, to) (((n) + (to)-1) / (to) * (to))
#define DIV_UP(n, by) (((n) + (by)-1) / (by))

#define SECTOR 512u
#define DESC_MAX (1u << 20)          /* bytes of a descriptor */
#define MAX_EXTENTS 4000u
#define MAX_SECTORS (UINT64_C(1) << 53)
#define MAX_GRAIN ((16u << 20) / SECTOR) /* sectors: the host's largest unit */
#define MIN_GRAIN 8u                 /* of an image that is written: 4 KiB, as the specification has it */
#define MAX_GTES 65536u
#define MAX_GDES (4u << 20)          /* of all extents of an image together */
#define TABLE_BUDGET (16u << 20)     /* bytes of grain tables that are kept in memory although they are clean */
#define FILE_SECTORS (UINT64_C(1) << 32) /* what an entry can address */
#define CID_NONE 0xffffffffu
#define SPLIT_SECTORS (2047u << 11)  /* of an extent of a split disk, as VMware makes them */

/* The header of a sparse extent ("KDMV"), little-endian, one sector. */
#define SPARSE_MAGIC 0x564d444bu
#define COWD_MAGIC 0x44574f43u
#define SESPARSE_MAGIC UINT64_C(0xcafebabe)
#define FLAG_NEWLINE 0x1u
#define FLAG_RGD 0x2u
#define FLAG_ZERO_GRAIN 0x4u
#define FLAG_COMPRESSED 0x10000u
#define FLAG_MARKERS 0x20000u
#define GD_AT_END UINT64_MAX
#define HDR_VERSION 4
#define HDR_FLAGS 8
#define HDR_CAPACITY 12
#define HDR_GRAIN 20
#define HDR_DESC 28
#define HDR_DESC_SIZE 36
#define HDR_GTES 44
#define HDR_RGD 48
#define HDR_GD 56
#define HDR_OVERHEAD 64
#define HDR_UNCLEAN 72
#define HDR_NEWLINE 73
#define HDR_COMPRESS 77
#define MARKER_EOS 0u
#define MARKER_GT 1u
#define MARKER_GD 2u
#define MARKER_FOOTER 3u

#define GTE_NONE 0u /* in memory, whatever the kind of extent */
#define GTE_ZERO 1u

static inline uint32_t get32(const void *p)
{
	const uint8_t *b = p;

	return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static inline uint64_t get64(const void *p)
{
	return get32(p) | (uint64_t)get32((const uint8_t *)p + 4) << 32;
}

static inline void put32(void *p, uint32_t v)
{
	uint8_t *b = p;

	b[0] = (uint8_t)v;
	b[1] = (uint8_t)(v >> 8);
	b[2] = (uint8_t)(v >> 16);
	b[3] = (uint8_t)(v >> 24);
}

static inline void put64(void *p, uint64_t v)
{
	put32(p, (uint32_t)v);
	put32((uint8_t *)p + 4, (uint32_t)(v >> 32));
}

static inline void put16(void *p, uint32_t v)
{
	((uint8_t *)p)[0] = (uint8_t)v;
	((uint8_t *)p)[1] = (uint8_t)(v >> 8);
}

/* ---- desc.c: the descriptor, a text. Pure functions over bytes of any origin. ---- */

enum ext_kind { KIND_FLAT, KIND_SPARSE, KIND_COWD, KIND_SESPARSE, KIND_ZERO };
enum ext_access { ACCESS_RW, ACCESS_RDONLY, ACCESS_NONE };

struct desc_extent {
	enum ext_access access;
	enum ext_kind kind;
	uint64_t sectors, offset; /* offset: sectors into the file, of plain extents */
	uint32_t num_at, num_len; /* where the text has the number of sectors */
	char *name;               /* NULL: none */
};

struct desc {
	char *text; /* NUL-terminated */
	uint64_t len;
	uint64_t at, room; /* bytes: where volume 0 has it, and how much fits; room 0: it is the file */
	uint32_t cid, parent_cid;
	int has_cid;
	char create_type[64], parent[1024], adapter[32], hwversion[16], tools[16];
	struct desc_extent *ext;
	uint32_t n;
};

/* Parses len bytes (up to the first NUL). Returns 0, or a negative errno with the reason in *why. */
int desc_parse(struct desc *d, const char *text, uint64_t len, const char **why);
void desc_free(struct desc *d);
/* Sets, or with NULL removes, the line of a key; a new line comes behind that of `after`. -ENOMEM. */
int desc_set(struct desc *d, const char *key, const char *value, int quote, const char *after);
int desc_set_sectors(struct desc *d, uint32_t k, uint64_t sectors);
int desc_set_geometry(struct desc *d, uint64_t sectors);
void desc_geometry(uint64_t sectors, int ide, uint64_t *cylinders, uint32_t *heads, uint32_t *spt);
/* Whether a name can stand in a descriptor. */
int desc_name_ok(const char *name);
int desc_is_text(const void *buf, uint64_t len); /* 0..100 */

/* ---- the image ---- */

struct extent;

struct table { /* a grain table in memory */
	struct table *chain, *prev, *next; /* hash; least recently used first */
	struct extent *x;
	uint32_t index; /* in the directory */
	uint32_t pins;  /* users that have dropped the lock, answers in flight */
	int loading, dirty, fresh; /* fresh: no directory in the file knows it yet */
	int publishing;            /* fresh, and in the flush that is under way */
	uint32_t *copy;            /* what flush() writes */
	uint32_t e[];              /* entries: 32 bits, or with x->wide 64 */
};

struct list { /* of sectors of a file */
	uint64_t *v, n, cap;
};

struct extent {
	struct image *img;
	enum ext_kind kind;
	enum ext_access access;
	uint32_t vol, desc; /* index of its volume, and in the descriptor */
	struct vh_meta *v;
	uint64_t first, sectors; /* of the disk */
	uint64_t offset;         /* plain: where it begins in the file */
	/* sparse ones; all in sectors */
	uint8_t header[SECTOR];
	uint32_t version, flags;
	uint64_t capacity, grain, desc_at, desc_size, overhead;
	uint64_t gd_at, rgd_at; /* rgd_at 0: none */
	uint64_t gt_sectors;    /* of one table */
	uint32_t gtes, ngd;
	uint32_t *gd, *rgd; /* per table: its sector (seSparse: its number + 1); 0: none */
	int wide, compressed, markers, zero_gte, at_end;
	uint64_t gt_base, grain_base; /* seSparse */
	uint64_t end;       /* of the file, or of what has been given out */
	int ready;          /* may be changed: 0 no, 1 under way, 2 yes */
	int unclean, marked; /* the file said so when it was opened; we have set it */
	int damaged;        /* two entries share bytes: nothing is allocated or freed */
	/* space.c */
	uint64_t *bits, nbits, cap; /* taken slots, up to the last taken one */
	uint64_t phase, nfree, hint, min_slot;
	uint64_t tab_at, tab_left; /* room for new tables */
	struct list freed, unlinked, written, held;
	uint64_t promised;
};

struct stream; /* a streamOptimized image that is being written; stream.c */
struct codec;  /* codec.c */

struct image {
	const struct vh_meta_ops *ops;
	struct vh_meta *v0;
	struct vh_meta **volumes;
	uint32_t nvols;
	int read_only, repair;
	struct desc desc; /* text NULL: a bare extent */
	struct extent *x;
	uint32_t nx;
	uint64_t sectors;
	uint32_t unit;
	int backing;
	uint64_t backing_bytes, parent_bytes; /* what is seen of the parent; its size */
	int stream_format;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int cid_state; /* 0: as it was, 1: being changed, 2: changed */
	struct table **hash, *lru_first, *lru_last;
	uint64_t nhash, ntables, table_bytes;
	struct stream *stream;
	struct codec *codec;
};

/* layout.c: headers, read once into locals, checked, then believed. */
const struct vh_meta_ops *vmdk_meta(struct vh_err *e);
enum file_kind { FILE_TEXT, FILE_SPARSE, FILE_COWD, FILE_SESPARSE };
int file_kind(const uint8_t *sector, uint64_t len, enum file_kind *out);
/* Reads the head of volume 0: what it is, and its descriptor (text NULL when it has none). */
int layout_read(const struct vh_meta_ops *m, struct vh_meta *v, enum file_kind *kind, struct desc *d, struct vh_err *e);
int extent_header(struct image *im, struct extent *x, struct vh_err *e);
int extent_directory(struct image *im, struct extent *x, uint64_t *budget, struct vh_err *e);
int layout_cid(const struct vh_meta_ops *m, struct vh_meta *v, uint32_t *cid, struct vh_err *e);
int desc_write(struct image *im, struct desc *d, struct vh_err *e); /* d replaces the image's */
uint64_t extent_gdes(const struct extent *x, uint64_t sectors);

/* open.c */
int vmdk_inspect(struct vh_meta *volume0, struct vh_ref *refs, uint32_t cap, struct vh_err *e);
int vmdk_open(const struct vh_open *o, void **img, struct vh_err *e);
void vmdk_close(void *img);
int vmdk_info(void *img, struct vh_image_info *i);
int sync_volumes(struct image *im);
int sync_all(struct image *im); /* every phase of a flush; [main] or [meta] */

/* table.c; the lock is held */
static inline uint64_t table_entry(const struct table *t, uint32_t k, int wide)
{
	return wide ? ((const uint64_t *)(const void *)t->e)[k] : t->e[k];
}
/* Pinned, or NULL where the directory has none. -EAGAIN with nowait; drops the lock while it reads. */
int table_get(struct extent *x, uint32_t index, int nowait, struct table **out);
struct table *table_find(struct extent *x, uint32_t index);
int table_new(struct extent *x, uint32_t index, struct table **out); /* empty, fresh, pinned */
void table_put(struct table *t);
void tables_trim(struct image *im);
void tables_drop(struct image *im); /* all; none is pinned */
int entry_ok(const struct extent *x, uint64_t entry);
uint64_t table_bytes(const struct extent *x);

/* space.c; the lock is held unless it says otherwise */
int space_begin(struct extent *x, int nowait); /* makes the extent ready to be changed */
int space_take(struct extent *x, uint64_t *sector);
void space_give(struct extent *x, uint64_t sector);
int space_take_tables(struct extent *x, uint64_t sectors, uint64_t *sector);
void space_reset(struct extent *x);
/* [main], no lock: reads the tables again, gives back to the volume what they do not name, and ends the file behind the rest. */
int space_shrink(struct extent *x);
uint64_t space_end(const struct extent *x); /* sectors in use; 0: not known */
int list_reserve(struct list *l, uint64_t more);
int image_begin(struct image *im, int nowait); /* the image is going to be changed: a new CID */
int header_write(struct extent *x); /* no lock */
/* Reads tables of a directory, n of them from `index` on, as they are in the file; those that are missing are zeros. No lock. */
int tables_read(struct extent *x, const uint32_t *dir, uint32_t index, uint32_t n, uint8_t *buf);
#define TABLES_AT_ONCE 64u

/* map.c, commit.c, stream.c, ... */
int vmdk_map(void *img, struct vh_map *m);
int vmdk_commit(void *img, struct vh_map *m, int status, uint32_t nowait);
void take_back(struct image *im, const struct vh_map *m, int late);
int vmdk_flush(void *img, uint32_t phase);
int vmdk_decode(void *img, const struct vh_extent *x, const void *in, uint64_t in_len, void *out, uint64_t out_len);
int64_t vmdk_encode(void *img, const void *in, uint64_t in_len, void *out, uint64_t cap);
int vmdk_put(void *img, uint64_t pos, uint64_t len, const void *stored, uint64_t n, struct vh_err *e);
int vmdk_create(struct vh_create *c, struct vh_job *j, struct vh_err *e);
int vmdk_create_refs(const struct vh_create *c, struct vh_create_ref *refs, uint32_t cap, struct vh_err *e);
int vmdk_measure(const struct vh_create *c, uint64_t used, uint64_t *required, uint64_t *full, struct vh_err *e);
int vmdk_resize(void *img, uint64_t bytes, struct vh_job *j, struct vh_err *e);
int vmdk_check(void *img, uint32_t repair, vh_check_fn *fn, void *ctx, struct vh_job *j, struct vh_err *e);
int vmdk_describe(void *img, vh_describe_fn *fn, void *ctx);
int vmdk_set_backing(void *img, const char *name, const char *format, uint64_t bytes, struct vh_meta *volume,
		     struct vh_err *e);
int vmdk_empty(void *img, struct vh_job *j, struct vh_err *e);
struct extent *extent_at(struct image *im, uint64_t pos);

/* stream.c */
int stream_open(struct image *im, struct vh_err *e); /* the file is a fresh stream that may be filled */
int stream_flush(struct image *im);
void stream_close(struct image *im); /* [main] flushed */
void stream_free(struct image *im);
int stream_unwritten(struct image *im, uint64_t sector); /* what was put there is still in memory; lock held */
int stream_write_out(struct image *im);

/* codec.c: levels as in the option compress-level. */
#define LEVEL_DEFAULT 0
#define LEVEL_FAST 1
struct codec *codec_new(int level);
void codec_free(struct codec *c);
/* 0, -ENOSPC: not smaller than cap, -ENOMEM, -EIO */
int64_t codec_encode(struct codec *c, const void *in, uint64_t in_len, void *out, uint64_t cap);
/* Bytes decoded (at most out_len; *more: there are further ones), or -EIO, -ENOMEM. */
int64_t codec_decode(struct codec *c, const void *in, uint64_t in_len, void *out, uint64_t out_len, int *more);
uint64_t codec_store(const void *in, uint64_t in_len, void *out); /* uncompressed zlib; out has room for CODEC_ROOM */
#define CODEC_ROOM(n) ((n) + 5 * ((n) / 65535 + 1) + 6)

/* repair.c: one extent's tables, see check.c */
struct bitmap {
	uint64_t granule, phase, n;
	uint64_t *bits;
};
struct checker {
	struct image *im;
	struct extent *x;
	int repair, leaks, damaged_dir, lost; /* mend what is corrupt, give back leaks; the directories must be written anew; tables are gone, and what they named is not known */
	uint64_t end; /* of the file before anything was repaired */
	vh_check_fn *fn;
	void *ctx;
	const struct vh_job_ops *job;
	struct vh_job *j;
	uint64_t findings, suppressed, looked;
	struct bitmap meta, used, twice; /* twice: what two tables of a directory, or a table and other metadata, both have */
	uint8_t *gt, *rgt;
};
void check_tell(struct checker *c, uint32_t what, uint64_t sector, const char *fmt, ...) VH_PRINTF(4, 5);
int bitmap_init(struct bitmap *b, uint64_t granule, uint64_t phase, uint64_t end);
int bitmap_mark(struct bitmap *b, uint64_t sector, uint64_t n); /* 1: some of it was marked */
int bitmap_any(const struct bitmap *b, uint64_t sector, uint64_t n);
uint64_t repair_take(struct extent *x, uint64_t sectors);
int repair_table(struct checker *c, uint32_t k, int good, int rgood);
int repair_directories(struct checker *c);
int repair_copy(struct checker *c, uint64_t from, uint64_t *to);
int check_space(struct checker *c);

/* create options, in the order of the choices */
enum subformat { SUB_SPARSE, SUB_FLAT, SUB_SPLIT_SPARSE, SUB_SPLIT_FLAT, SUB_STREAM };
extern const char *const vmdk_subformats[], *const vmdk_adapters[];

#endif
