/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The parts of the qcow2 plugin. Names: struct q2 is an open image; "table" is a slice of an L2 table or of a refcount
 * block in the cache; "entry" is an L2 entry (with its bitmap where L2 is extended). All offsets are bytes of the image
 * file unless a name says cluster. On disk everything is big-endian; in these structs all is in the host's order, but
 * tables (q2_tbl.data) are kept as they are on disk.
 *
 *   qcow2.c     the plugin's table, open, close, info, options        snapshot.c  internal snapshots
 *   header.c    header and extensions, inspect, probe                 check.c     check and repair
 *   cache.c     tables in memory                                      compress.c  decode, encode, put
 *   refcount.c  reference counts; alloc.c clusters; meta.c which      measure.c amend.c describe.c setback.c empty.c
 *               clusters hold metadata
 *   l2.c        L1, L2 tables and their entries                       bitmap.c    persistent bitmaps
 *   map.c       map(); commit.c commit(); flush.c flush()             crypt.c     LUKS in the header, legacy AES
 *   create.c resize.c
 *
 * Locks, in the order of taking: make_lock (new L2 tables, new refcount blocks, growth of the refcount table, the header) >
 * flush_lock (flush phases) > rt_lock (writing the refcount table) >
 * rb.write_lock (writing refcount blocks), header_lock: these are held over I/O. Then an L2 table's lock >
 * alloc_lock > a refcount table's lock > a cache's lock: never held over I/O nor while waiting. [main] calls run on a drained
 * image, alone, but still call the same functions.
 *
 * Crash rules. A cluster's count is raised in memory when it is reserved, so before anything refers to it, and every
 * flush writes counts before it writes references, with a volume flush between. A reference that is dropped goes the other way:
 * q2_free() only notes the cluster, and its count goes down when the flush that wrote the unlink is known to be durable.
 * New L2 tables and refcount blocks are complete in the file, and flushed, before anything points at them.
 */
#ifndef QCOW2_H
#define QCOW2_H

#include <pthread.h>
#include <stdlib.h>
#include <vhost/format.h>
#include <vhost/sugar.h>

extern const struct vh_host *q2_host;
extern const struct vh_meta_ops *q2_io;  /* set by q2_services() */
extern const struct vh_log_ops *q2_log;  /* NULL: the host has no such service */
extern const struct vh_job_ops *q2_job;  /* NULL: likewise */
int q2_services(struct vh_err *e); /* 0, or -EOPNOTSUPP with the text; first thing in every op that has an e */

#define q2_fail(e, code, ...) (q2_host->err((e), (code), __VA_ARGS__))
#define q2_hint(e, ...) (q2_host->remedy((e), __VA_ARGS__))
#define q2_warn(...) do { if (q2_log) q2_log->log(VH_LOG_WARN, "qcow2.image", __VA_ARGS__); } while (0)
static inline int q2_cancelled(struct vh_job *j) { return j && q2_job && q2_job->cancelled(j); }
static inline void q2_progress(struct vh_job *j, uint64_t done, uint64_t total)
{
	if (j && q2_job)
		q2_job->progress(j, done, total);
}

static inline uint64_t q2_be64(const void *p) { uint64_t v; memcpy(&v, p, 8); return __builtin_bswap64(v); }
static inline uint32_t q2_be32(const void *p) { uint32_t v; memcpy(&v, p, 4); return __builtin_bswap32(v); }
static inline uint16_t q2_be16(const void *p) { uint16_t v; memcpy(&v, p, 2); return __builtin_bswap16(v); }
static inline void q2_put64(void *p, uint64_t v) { v = __builtin_bswap64(v); memcpy(p, &v, 8); }
static inline void q2_put32(void *p, uint32_t v) { v = __builtin_bswap32(v); memcpy(p, &v, 4); }
static inline void q2_put16(void *p, uint16_t v) { v = __builtin_bswap16(v); memcpy(p, &v, 2); }
static inline uint64_t q2_up(uint64_t n, uint64_t to) { return (n + to - 1) & ~(to - 1); } /* to: a power of two */
static inline uint64_t q2_min(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* ---- the header ---- */

#define Q2_MAGIC 0x514649fbu
#define Q2_V2_BYTES 72u
#define Q2_V3_BYTES 104u
#define Q2_MIN_BITS 9u
#define Q2_MAX_BITS 21u
#define Q2_MAX_L1 (32u << 20)      /* bytes, as QEMU */
#define Q2_MAX_REFTABLE (8u << 20)
#define Q2_MAX_SNAPSHOTS 65536u
#define Q2_MAX_NAME 1023u          /* of the backing image */
#define Q2_MAX_OFFSET (UINT64_C(1) << 56)

#define Q2_INCOMPAT_DIRTY UINT64_C(0x1)
#define Q2_INCOMPAT_CORRUPT UINT64_C(0x2)
#define Q2_INCOMPAT_DATA UINT64_C(0x4)
#define Q2_INCOMPAT_COMPRESSION UINT64_C(0x8)
#define Q2_INCOMPAT_EXTENDED UINT64_C(0x10)
#define Q2_INCOMPAT_KNOWN UINT64_C(0x1f)
#define Q2_COMPAT_LAZY UINT64_C(0x1)
#define Q2_AUTOCLEAR_BITMAPS UINT64_C(0x1)
#define Q2_AUTOCLEAR_RAW UINT64_C(0x2)
#define Q2_AUTOCLEAR_KNOWN UINT64_C(0x3)

#define Q2_CRYPT_NONE 0u
#define Q2_CRYPT_AES 1u
#define Q2_CRYPT_LUKS 2u
#define Q2_ZLIB 0u
#define Q2_ZSTD 1u

/* Header extensions. */
#define Q2_EXT_END 0u
#define Q2_EXT_BACKING_FORMAT 0xe2792acau
#define Q2_EXT_FEATURES 0x6803f857u
#define Q2_EXT_BITMAPS 0x23852875u
#define Q2_EXT_CRYPT 0x0537be77u
#define Q2_EXT_DATA_FILE 0x44415441u
struct q2_ext { /* one that is kept as it is: every type without a member in q2_header */
	uint32_t type, len;
	uint8_t *data;
};

/* All that is in the first cluster. q2_header_write() writes it. */
struct q2_header {
	uint32_t version, bits;   /* cluster size 1 << bits */
	uint64_t bytes;           /* of the disk */
	uint32_t crypt;           /* Q2_CRYPT_* */
	uint32_t l1_size;         /* entries */
	uint64_t l1_off, rt_off;
	uint32_t rt_clusters;
	uint32_t nsnaps;
	uint64_t snaps_off;
	uint64_t incompat, compat, autoclear;
	uint32_t ref_order;       /* width of a count: 1 << ref_order bits */
	uint32_t header_bytes;
	uint32_t compression;     /* Q2_ZLIB, Q2_ZSTD */
	char backing[Q2_MAX_NAME + 1], backing_format[32]; /* empty: none */
	char data_file[Q2_MAX_NAME + 1];
	uint64_t crypt_off, crypt_bytes;    /* of the LUKS header */
	uint32_t nbitmaps;
	uint64_t bitmaps_off, bitmaps_bytes; /* the directory; nbitmaps 0: no extension */
	struct q2_ext *ext;
	uint32_t next;
	uint32_t more;  /* bytes of the header past the ones that are known (112), kept as they are */
	uint8_t *more_data;
};

/* header.c. Parses and validates; the file is hostile. On failure nothing is to be freed. flags: VH_OPEN_*. */
int q2_header_read(struct vh_meta *v, struct q2_header *h, uint64_t flags, struct vh_err *e);
void q2_header_free(struct q2_header *h);
/* Writes it at once to v (no flush). -ENOSPC with the text: it does not fit into the first cluster. */
int q2_header_write(struct vh_meta *v, const struct q2_header *h, struct vh_err *e);
int q2_probe(const void *buf, uint64_t len, uint64_t bytes);
int q2_inspect(struct vh_meta *volume0, struct vh_ref *refs, uint32_t cap, struct vh_err *e);

/* ---- tables in memory: cache.c ---- */

#define Q2_NOWAIT 1u /* -EAGAIN rather than any I/O or wait */

struct q2_tbl {
	uint64_t off;        /* in the file; the key */
	uint8_t *data;       /* as on disk, cache->slice bytes */
	uint8_t *copy;       /* what a flush is writing; [copy_lo, copy_hi) */
	uint32_t copy_lo, copy_hi;
	uint32_t dirty_lo, dirty_hi; /* bytes changed since the last copy; lo == hi: none */
	uint32_t pins;       /* under the cache's lock */
	uint8_t state, recent, listed;
	struct q2_tbl *hash_next, *dirty_next, *copy_next;
	pthread_mutex_t lock; /* data, dirty; never held over I/O */
};

struct q2_cache {
	struct q2 *img;
	uint32_t slice;      /* bytes of one table */
	uint32_t n, hand, nbuckets;
	uint32_t used;       /* slots that have memory */
	struct q2_tbl *tbl, **bucket, *dirty; /* dirty: those with changes since the last copy */
	struct q2_tbl *copying; /* under flush_lock: those with a copy, pinned by the flush */
	pthread_mutex_t write_lock;
	int waiters;
	pthread_mutex_t lock;
	pthread_cond_t cond; /* a table was loaded, unpinned, or cleaned */
};
static inline int q2_tbl_is_dirty(const struct q2_tbl *t) { return t->dirty_lo < t->dirty_hi; }
/* Writes every changed table at once (counts only: nothing may be published by it). [meta], [main] */
int q2_cache_write(struct q2_cache *c);
/* The same in two steps, flush_lock held: copies of what is changed now (returns 1 when there are any, old ones too) ... */
int q2_cache_copy(struct q2_cache *c);
int q2_cache_write_copies(struct q2_cache *c); /* ... and writing them */
int q2_cache_init(struct q2_cache *c, struct q2 *img, uint32_t slice, uint64_t bytes);
void q2_cache_fini(struct q2_cache *c);
/* The table at `off` (a multiple of c->slice), pinned. Without NOWAIT it is read, and room is made by writing others. */
int q2_tbl_get(struct q2_cache *c, uint64_t off, uint32_t flags, struct q2_tbl **out);
void q2_tbl_put(struct q2_cache *c, struct q2_tbl *t);
void q2_tbl_dirty(struct q2_cache *c, struct q2_tbl *t, uint32_t lo, uint32_t hi); /* t->lock is held */
/* Forgets everything that lies in [off, off+len), which must be clean or not matter any more, and in nobody's use. */
void q2_cache_forget(struct q2_cache *c, uint64_t off, uint64_t len);

/* ---- clusters: refcount.c ---- */

struct q2_run { uint64_t first, n; int punched; }; /* clusters of the file */
struct q2_runs { struct q2_run *v; uint64_t n, cap; };

/* A set of clusters that hold metadata (L2 tables and refcount blocks): guarded by alloc_lock. */
struct q2_set { uint64_t *v; uint64_t n, cap; };

/* ---- the open image ---- */

struct q2_snap { /* snapshot.c */
	char *id, *name;
	uint64_t l1_off, bytes, vm_state, clock, icount;
	uint32_t l1_size, sec, nsec, extra_len; /* extra_len: as it is in the file */
	uint8_t *extra; /* extra data past the known 24 bytes, extra_len - 24 of them, or NULL */
};

struct q2_crypt;  /* crypt.c */
struct q2_bitmaps; /* bitmap.c */

struct q2 {
	struct vh_meta *vol, *data; /* data: the external data file, else vol */
	uint32_t nvols, data_vol;   /* index of data in vh_open.volumes: 0 or 1 */
	uint64_t flags, host_caps;  /* VH_OPEN_*, of vh_open */
	int read_only;
	struct vh_object *object;
	struct q2_header h;
	/* derived */
	uint64_t cluster;           /* bytes */
	uint32_t l2_bits;           /* log2 of the entries of an L2 table */
	uint32_t entry;             /* bytes of an entry: 8, or 16 when extended */
	uint32_t subs, sub_bits;    /* subclusters of a cluster (1 or 32); log2 of their bytes */
	int extended, has_data, data_raw, zero_flag; /* zero_flag: version 3, zeros can be entries */
	uint64_t backing_all;       /* size of the backing image, or 0 */
	uint64_t backing_bytes;     /* positions past this never show the backing image; 0 without one */
	/* L1: l2.c. Entries are read and written with __atomic 64-bit accesses by q2_l1() and q2_l1_set(). */
	uint64_t *l1;               /* h.l1_size entries, host order, with flags */
	uint8_t *l1_dirty;          /* per 512-byte sector of the table */
	uint8_t *l1_copied;         /* sectors of the copy that a flush is writing; under flush_lock */
	uint64_t *l1_copy;          /* as on disk */
	int l1_any_dirty, l1_any_copied;
	struct q2_cache l2, rb;
	/* reference counts: refcount.c */
	uint64_t *rt;               /* refcount table, rt_n entries, host order */
	uint64_t rt_n;
	uint8_t *rt_dirty;          /* per 512-byte sector */
	int rt_any_dirty;
	uint32_t rb_bits;           /* log2 of the counts of a refcount block */
	uint64_t hint;              /* no cluster below it is free */
	uint64_t end;               /* clusters: the last one in use + 1 */
	uint64_t zero_lo, zero_hi;  /* clusters at the end that are known to read as zeros, as nobody has had them */
	uint64_t fence;             /* clusters from here on are being made zeros; UINT64_MAX: none */
	uint64_t zero_low;          /* so few are left of [zero_lo, zero_hi) that more are to be made */
	enum { Q2_AHEAD_NO, Q2_AHEAD_SENT, Q2_AHEAD_MAKING } ahead; /* somebody is sent where one may wait, to make them */
	int no_zeros;               /* zeros cannot be made ahead */
	uint64_t opened_bytes;      /* of the file when it was opened: it is cut back to this, or to its last cluster */
	uint8_t *full;              /* bit per table of refcounts: nothing free in it */
	struct q2_set meta;
	struct q2_runs freed, unlinking, unlinked, late; /* see flush.c; late: timed out, until close */
	uint64_t write_seq, unlinked_seq, barrier_seq;
	pthread_mutex_t flush_lock, make_lock, alloc_lock, header_lock, rt_lock; /* make_lock is recursive; rt_lock: the refcount table
				 * stays where it is in the file */
	int clears;                 /* autoclear bits or bitmaps must be dealt with before data changes */
	int writing;                /* atomic: q2_writing_begin() has been done */
	int failed;                 /* atomic: a metadata write failed half way, or corruption was found: nothing more is written */
	/* B's parts */
	struct q2_snap *snaps;      /* h.nsnaps of them */
	struct q2_crypt *crypt;     /* NULL: plain */
	struct vh_cipher cipher;    /* filled by q2_crypt_open(); size 0: none */
	struct q2_bitmaps *bitmaps; /* NULL: none, or not looked at */
	uint64_t comp_off;          /* compress.c: where the next stored bytes may go; 0: in a new cluster */
	uint64_t snaps_bytes;       /* of the snapshot table, as it is in the file */
	int of_snapshot;            /* h says what a snapshot's disk is: never to be written */
	int level;                  /* compress.c: of open option compress-level */
	uint64_t counters[4];
};

/* qcow2.c */
/* Before the first change of anything, [meta] or [main] only: dirty bit where counts are lazy, unknown autoclear bits and
 * bitmaps dealt with, flushed. Cheap when done already. map.c calls it for every first change. */
int q2_writing_begin(struct q2 *q, struct vh_err *e);
/* Sets the corrupt bit (when writable), logs the text, stops all writing of metadata. Returns -EIO. */
int q2_corrupt(struct q2 *q, const char *fmt, ...) VH_PRINTF(2, 3);
/* Blocking I/O on the image file (vh.meta/1), [meta] and [main] only. */
static inline int q2_read(struct q2 *q, void *buf, uint64_t len, uint64_t off) { return q2_io->read(q->vol, buf, len, off); }
static inline int q2_write(struct q2 *q, const void *buf, uint64_t len, uint64_t off)
{
	return q2_io->write(q->vol, buf, len, off);
}
/* Writes q->h and flushes. Members of q->h that change while the image is in use: incompat, autoclear, rt_*. */
int q2_header_update(struct q2 *q, struct vh_err *e);
/* Opens an image (the op, also for create() and for copies in tests). */
int q2_open(const struct vh_open *o, void **img, struct vh_err *e);
void q2_close(void *img);

/* refcount.c. Counts change in memory, and are written by the next flush. All but q2_alloc_run: [meta], [main]. */
int q2_ref_open(struct q2 *q, struct vh_err *e); /* reads the table */
void q2_ref_close(struct q2 *q);
int q2_ref_get(struct q2 *q, uint64_t cluster, uint64_t *count);
/* Adds delta (+1, -1) to every cluster touched by [off, off+len). -ERANGE: past the width; nothing is changed then. A count that
 * goes to 0 frees the cluster at once, so -1 is only for what was never published, or whose unlink is durable. */
int q2_ref_add(struct q2 *q, uint64_t off, uint64_t len, int delta);
int q2_unalloc(struct q2 *q, uint64_t off, uint32_t flags); /* count 1 to 0 of a cluster that was never published; NOWAIT or not */
int q2_ref_set(struct q2 *q, uint64_t cluster, uint64_t count); /* for repair */
uint64_t q2_ref_max(const struct q2 *q);
/* Count i of a block or a table of one, as it is on disk. */
uint64_t q2_count(const uint8_t *d, uint32_t order, uint32_t i);
void q2_count_set(uint8_t *d, uint32_t order, uint32_t i, uint64_t v);
/* Up to `want` free clusters that follow each other, count 1 each; *got >= 1. NOWAIT or not. *zeros: they read as zeros, which
 * WANT_ZEROS asks for where it costs little. */
#define Q2_WANT_ZEROS 2u
int q2_alloc_run(struct q2 *q, uint64_t want, uint32_t flags, uint64_t *off, uint64_t *got, int *zeros);
/* Exactly n clusters that follow each other; more than one only in [main] calls. Nothing is known of what they hold. */
int q2_alloc(struct q2 *q, uint64_t n, uint64_t *off);
/* [main] These clusters, if all are free: -EEXIST when not. */
int q2_alloc_at(struct q2 *q, uint64_t off, uint64_t n);
/* Drops a reference to every cluster touched by [off, off+len), after the next flush (the unlink must be in memory, marked
 * dirty, or written already). Never fails: without memory it leaks. What becomes free is given back to the volume, unless
 * `punched`: the host has done so. [any] */
void q2_free(struct q2 *q, uint64_t off, uint64_t len, int punched);
/* Metadata clusters: what is in the set, or a fixed part (header, L1, refcount table, snapshot table, bitmap directory,
 * LUKS header), must be neither handed out nor written as data. */
int q2_meta_add(struct q2 *q, uint64_t off);
void q2_meta_del(struct q2 *q, uint64_t off);
int q2_is_meta(struct q2 *q, uint64_t off, uint64_t len); /* any overlap; takes alloc_lock */
/* Replaces the whole refcount table by a new one with room for `clusters`; done with flushes. make_lock held or [main]. */
int q2_rt_grow(struct q2 *q, uint64_t clusters);

/* l2.c */
#define Q2_COPIED (UINT64_C(1) << 63)
#define Q2_COMPRESSED (UINT64_C(1) << 62)
#define Q2_ZERO UINT64_C(1)
#define Q2_OFFSET_MASK UINT64_C(0x00fffffffffffe00)
#define Q2_L1_RESERVED UINT64_C(0x7f000000000001ff)
#define Q2_L2_RESERVED UINT64_C(0x3f000000000001fe) /* of standard entries */

enum q2_type { Q2_T_UNALLOCATED, Q2_T_ZERO, Q2_T_ZERO_ALLOCATED, Q2_T_NORMAL, Q2_T_COMPRESSED, Q2_T_INVALID };
struct q2_entry { uint64_t e, bitmap; }; /* bitmap: 0 where L2 is not extended */

static inline uint64_t q2_l1(struct q2 *q, uint64_t i) { return __atomic_load_n(&q->l1[i], __ATOMIC_ACQUIRE); }
void q2_l1_set(struct q2 *q, uint64_t i, uint64_t v); /* marks it for the next flush */
int q2_l1_alloc(struct q2 *q, uint64_t entries); /* an empty one in memory; the old one must be closed */
int q2_l1_open(struct q2 *q, struct vh_err *e); /* after q2_ref_open() */
void q2_l1_close(struct q2 *q);
/* What an entry says of subcluster `sub` (0 where there are none). INVALID also when reserved bits are set, the offset is
 * unaligned, or the bitmap contradicts itself. A NORMAL cluster that is not extended has every subcluster NORMAL. */
enum q2_type q2_entry_type(const struct q2 *q, struct q2_entry e, uint32_t sub);
/* Stored bytes of a compressed entry: offset and upper bound of the length. */
void q2_compressed(const struct q2 *q, uint64_t e, uint64_t *off, uint32_t *len);
uint64_t q2_compressed_entry(const struct q2 *q, uint64_t off, uint64_t len); /* 0: it cannot be expressed */
/* The table of the active L2 that has pos, pinned, and the index in it. -ENOENT: no L2 table there. */
int q2_l2_get(struct q2 *q, uint64_t pos, uint32_t flags, struct q2_tbl **t, uint32_t *index);
/* The same for changing it: makes the L2 table, or copies one that a snapshot shares. With NOWAIT -EAGAIN when it must. */
int q2_l2_get_write(struct q2 *q, uint64_t pos, uint32_t flags, struct q2_tbl **t, uint32_t *index);
/* Entries of a table; t->lock is held. q2_l2_set marks it dirty. */
struct q2_entry q2_l2_entry(const struct q2 *q, const struct q2_tbl *t, uint32_t index);
void q2_l2_set(struct q2 *q, struct q2_tbl *t, uint32_t index, struct q2_entry e);
/* [meta], [main]: sets the entry of pos; what the old one referred to is freed by q2_free(). */
int q2_entry_replace(struct q2 *q, uint64_t pos, struct q2_entry e);
void q2_entry_free(struct q2 *q, struct q2_entry e, int punched); /* q2_free() of what it refers to in this file */

/* What an entry says from pos to the end of its cluster, or as far as subclusters say the same, within the disk. */
struct q2_span { enum q2_type type; uint64_t len, host; }; /* host: the address of pos, where there is a cluster */
struct q2_span q2_span(const struct q2 *q, struct q2_entry x, uint64_t pos);

/* map.c, commit.c, flush.c */
int q2_map(void *img, struct vh_map *m);
int q2_commit(void *img, struct vh_map *m, int status, uint32_t nowait);
int q2_flush(void *img, uint32_t phase);
/* [meta], [main]: everything committed so far, and all frees, to the file, durable. L1, L2 and counts in the file are then
 * what is in memory, and no free is pending. Takes flush_lock. */
int q2_sync(struct q2 *q);
int q2_unflushed(struct q2 *q); /* [main] whether mappings are in memory only */
void q2_free_at_close(struct q2 *q, uint64_t off, uint64_t len); /* its data may still land there */

/* create.c, resize.c */
int q2_create(struct vh_create *c, struct vh_job *j, struct vh_err *e);
int q2_create_refs(const struct vh_create *c, struct vh_create_ref *refs, uint32_t cap, struct vh_err *e);
int q2_resize(void *img, uint64_t bytes, struct vh_job *j, struct vh_err *e);
extern const struct vh_opt *const q2_create_options[];
/* A larger L1 table (drained): written, flushed, in the header; the old one freed. */
int q2_l1_grow(struct q2 *q, uint64_t entries, struct vh_err *e);
/* How many bytes of metadata a disk with these parameters needs when every cluster is mapped; measure.c uses it too. */
struct q2_geometry { uint64_t bytes, cluster; uint32_t ref_order, entry; };
uint64_t q2_metadata_bytes(const struct q2_geometry *g, uint64_t data_clusters);
/* The geometry that create options mean; also validates them against each other. */
struct q2_create_params {
	struct q2_header h;    /* version, bits, bytes, features, backing, data file, compression, ref_order set */
	uint32_t prealloc;
};
int q2_create_params(const struct vh_create *c, struct q2_create_params *p, struct vh_err *e);

/* ---- B's functions ---- */
/* snapshot.c */
int q2_snaps_load(struct q2 *q, struct vh_err *e); /* in open; validates; bounded memory */
void q2_snaps_free(struct q2 *q);
/* In open, before q2_l1_open(): the image is this snapshot's disk, read-only. */
int q2_snapshot_use(struct q2 *q, const char *name, struct vh_err *e);
int q2_snapshot_create(void *img, const char *name, struct vh_err *e);
int q2_snapshot_list(void *img, vh_snapshot_fn *fn, void *ctx, struct vh_err *e);
int q2_snapshot_apply(void *img, const char *name, struct vh_job *j, struct vh_err *e);
int q2_snapshot_remove(void *img, const char *name, struct vh_job *j, struct vh_err *e);
/* check.c */
int q2_check(void *img, uint32_t repair, vh_check_fn *fn, void *ctx, struct vh_job *j, struct vh_err *e);
/* Called by open() of a dirty image before it may be written: rebuilds the counts, clears the dirty bit. */
int q2_repair_dirty(struct q2 *q, struct vh_err *e);
/* compress.c */
extern const struct vh_opt q2_opt_level;
int q2_compress_open(struct q2 *q, const struct vh_opts *o, struct vh_err *e); /* in open */
int q2_decode(void *img, const struct vh_extent *x, const void *in, uint64_t in_len, void *out, uint64_t out_len);
int64_t q2_encode(void *img, const void *in, uint64_t in_len, void *out, uint64_t cap);
int q2_put(void *img, uint64_t pos, uint64_t len, const void *stored, uint64_t n, struct vh_err *e);
/* measure.c, amend.c, describe.c, setback.c, empty.c */
int q2_measure(const struct vh_create *c, uint64_t used, uint64_t *required, uint64_t *full, struct vh_err *e);
extern const struct vh_opt *const q2_amend_options[];
int q2_amend(void *img, const struct vh_opts *o, struct vh_job *j, struct vh_err *e);
int q2_describe(void *img, vh_describe_fn *fn, void *ctx);
int q2_set_backing(void *img, const char *name, const char *format, uint64_t bytes, struct vh_meta *volume, struct vh_err *e);
int q2_empty(void *img, struct vh_job *j, struct vh_err *e);
/* bitmap.c */
int q2_bitmaps_load(struct q2 *q, struct vh_err *e); /* in open; h.nbitmaps > 0; validates */
void q2_bitmaps_free(struct q2 *q);
/* Before the first change of the image: marks the bitmaps in use (written, not flushed). Failing clears the autoclear bit. */
int q2_bitmaps_begin(struct q2 *q, struct vh_err *e);
void q2_bitmaps_describe(struct q2 *q, vh_describe_fn *fn, void *ctx);
int q2_bitmaps_can_resize(struct q2 *q, uint64_t bytes, struct vh_err *e);
/* crypt.c */
extern const struct vh_opt q2_opt_secret;
uint64_t q2_crypt_bytes(const struct vh_opts *o); /* of the header that create() would make */
void q2_crypt_describe(struct q2 *q, vh_describe_fn *fn, void *ctx);
int q2_crypt_amend(struct q2 *q, const struct vh_opts *o, struct vh_err *e); /* key slots */
int q2_crypt_open(struct q2 *q, const struct vh_opts *o, struct vh_err *e); /* in open; h.crypt != 0; fills q->cipher */
void q2_crypt_close(struct q2 *q);
/* In create(), the new image open, nothing mapped: makes the LUKS header in clusters from q2_alloc(), sets h.crypt*, writes. */
int q2_crypt_create(struct q2 *q, const struct vh_opts *o, struct vh_err *e);

#endif
