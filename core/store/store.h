/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Named pools (definition files), volumes by "pool/volume" name, and disks: a volume of a pool, its format, its chain. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "fmt/image.h"
#include "plug/options.h"
#include "plug/plug.h"
#include "util/job.h"

struct store_pool;
/* By name from PATH_CONFIG/pools/NAME.conf ("default" is made on first use), or ad hoc from a type and its options. A
 * pool that is stopped is refused. */
int store_pool_open(const char *name, struct store_pool **out, struct vh_err *e);
int store_pool_open_type(const char *type, const struct kvs *options, struct store_pool **out, struct vh_err *e);
void store_pool_close(struct store_pool *p);
const char *store_pool_name(const struct store_pool *p);
const struct vh_pool_ops *store_pool_ops(const struct store_pool *p, void **pool);
/* 1: it is defined so already. -EEXIST: otherwise. */
int store_pool_define(const char *name, const char *type, const struct kvs *options, struct vh_err *e);
int store_pool_undefine(const char *name, struct vh_err *e);
int store_pool_names(int (*fn)(void *ctx, const char *name, const char *type), void *ctx, struct vh_err *e);

/* A pool's definition. Nothing runs for a pool: "active" is whether it may be used. It is what start and stop said last
 * since the host started, else autostart. */
struct store_def {
	char *type;
	struct kvs options; /* as given, paths absolute */
	int autostart, active, builtin; /* builtin: "default", which no file defines */
};
int store_def_load(const char *name, struct store_def *out, struct vh_err *e); /* -ENOENT */
void store_def_clear(struct store_def *d);
int store_pool_make(const char *name, struct vh_err *e); /* builds the pool's storage */
int store_pool_set_active(const char *name, int active, struct vh_err *e);
int store_pool_set_autostart(const char *name, int on, struct vh_err *e);

/* The folder of a file that is in no pool, as an ad hoc pool, and the file's name in it (g_free). The file need not exist. */
int store_file_pool(const char *path, struct store_pool **pool, char **volume, struct vh_err *e);

/* "pool/volume" into its parts (g_free both); "volume" alone is in the pool default. */
int store_name_split(const char *name, char **pool, char **volume, struct vh_err *e);

/* Attaches a volume; `holder` as in vh_attach. mode: VH_ATTACH_*. The volume is an engine's blk_vol. */
struct store_attach { const char *name, *holder; uint32_t mode; uint64_t flags; struct blk_config blk; };
int store_attach(struct store_pool *p, const struct store_attach *a, struct blk_vol **out, struct vh_err *e);
/* The recorded format of a volume, "" when none is recorded. */
int store_format_get(struct store_pool *p, const char *volume, char format[32], struct vh_err *e);
/* The recorded formats of many volumes of one pool, whose stats the caller has: for a listing. */
struct store_formats;
struct store_formats *store_formats_new(struct store_pool *p);
void store_formats_get(struct store_formats *f, const char *volume, const struct vh_vol_stat *st, char format[32]); /* "": none */
void store_formats_free(struct store_formats *f);
int store_format_set(struct store_pool *p, const char *volume, const char *format, struct vh_err *e);
/* The format to use: the recorded one, or `given` (may be NULL) where none is recorded. They must not contradict. */
int store_format_pick(struct store_pool *p, const char *volume, const char *given, char format[32], struct vh_err *e);

/* Whole volumes, as the commands need them. */
int store_vol_stat(struct store_pool *p, const char *volume, struct vh_vol_stat *st, struct vh_err *e);
int store_vol_remove(struct store_pool *p, const char *volume, struct vh_job *j, struct vh_err *e);
int store_vol_flatten(struct store_pool *p, const char *volume, struct vh_job *j, struct vh_err *e);
int store_vol_resize(struct store_pool *p, const char *volume, uint64_t bytes, uint32_t prealloc, struct vh_job *j,
		     struct vh_err *e); /* of the pool's volume, whatever is in it */
/* Before an image's disk becomes `bytes` long: a volume that does not grow by itself is made large enough. */
int store_vol_room(struct store_pool *p, const char *volume, const char *format, uint64_t bytes, struct vh_job *j, struct vh_err *e);
/* Overwrites all of a volume: with zeros by the storage's quickest means, with zeros that are written, with random bytes, or by giving
 * its space back. It is an empty raw disk afterwards. */
enum store_wipe { STORE_WIPE_ZERO, STORE_WIPE_WRITE, STORE_WIPE_RANDOM, STORE_WIPE_DISCARD };
int store_vol_wipe(struct store_pool *p, const char *volume, enum store_wipe how, struct vh_job *j, struct vh_err *e);
/* The pool's own snapshots. create: the volume is leased for reading for the time, unless beside_writer: then what a running
 * guest has not flushed is not in it. list: with stats, -ENOENT of the volume; nothing where the pool has none. */
int store_snapshot_create(struct store_pool *p, const char *volume, const char *snap, int beside_writer, struct vh_err *e);
int store_snapshot_list(struct store_pool *p, const char *volume, vh_list_fn *fn, void *ctx, struct vh_err *e);
int store_snapshot_remove(struct store_pool *p, const char *volume, const char *snap, struct vh_job *j, struct vh_err *e);
int store_snapshot_rollback(struct store_pool *p, const char *volume, const char *snap, struct vh_job *j, struct vh_err *e);
/* store_vol_remove, and the further files that were made for its image with it. */
int store_vol_delete(struct store_pool *p, const char *volume, struct vh_job *j, struct vh_err *e);
/* The size of the disk inside, without a lease (it may be in use): UINT64_MAX when it cannot be told. */
uint64_t store_disk_bytes(struct store_pool *p, const char *volume, const char *format);
struct store_create {
	const char *name, *format;
	uint64_t bytes; /* of the disk; the volume's own size follows from the format. 0 with `backing`: that one's */
	uint32_t prealloc; /* VH_PREALLOC_*, or VH_PREALLOC_METADATA */
	const struct kvs *options; /* the pool's for volumes, and "format." ones; may be NULL */
	/* With `unfinished`, up to 30 bytes, may be NULL: what it will hold. When it is there already, complete, but for the end of
	 * an attempt that had the same token, that end is made now: -EALREADY. */
	const char *token;
	int unfinished; /* it must be new, and stays marked, and nobody's, until store_vol_finish(): its contents come */
	/* The backing image as the image is to name it (a relative name is relative to the new image's folder), and its format
	 * (NULL: the recorded one). It is opened to see that it is there, unless backing_blind. */
	const char *backing, *backing_format;
	int backing_blind;
	const char *const *allow; /* real paths of folders that it may lie in, beside the pool's; may be NULL */
	int *zeroed; /* out, may be NULL: the disk reads as zeros */
};
/* Makes a volume with its format in it, and records the format last: one without a record is unfinished. Further files that
 * the format needs are made beside it. */
int store_vol_create(struct store_pool *p, const struct store_create *c, struct vh_job *j, struct vh_err *e);
/* A volume for bytes that are yet to come, marked as unfinished; what an attempt before left is made anew, anything else there is
 * refused. mark: "upload", or "copy of IDENTITY". *made: it is to be removed on failure. 1: one with that mark is complete. */
int store_vol_new(struct store_pool *p, const char *volume, const char *mark, uint64_t bytes, struct vh_job *j, int *zeroed, int *made,
		  struct vh_err *e);
int store_vol_done(struct store_pool *p, const char *volume, const char *format, struct vh_err *e); /* they are there */
int store_vol_finish(struct store_pool *p, const char *volume, const char *format, struct vh_err *e);
void store_vol_abandon(struct store_pool *p, const char *volume, const char *format); /* an unfinished one goes, with its files */
/* Within a pool by its own means where it has them, else by copying. snap: of this snapshot of the pool (NULL: of the volume).
 * how: VH_CLONE_*; COW and snapshots only where the pool has them. */
int store_vol_clone(struct store_pool *from, const char *src, const char *snap, struct store_pool *to, const char *dst, uint32_t how,
		    struct vh_job *j, struct vh_err *e);
/* Volume bytes from and to a file descriptor, holes kept where both sides have them. import: the rest of the volume
 * becomes zeros. bytes: of the source, UINT64_MAX: up to its end. */
int store_import(struct blk_vol *v, int fd, uint64_t bytes, struct vh_job *j, struct vh_err *e);
int store_export(struct blk_vol *v, int fd, struct vh_job *j, struct vh_err *e);
int store_copy(struct blk_vol *src, struct blk_vol *dst, struct vh_job *j, struct vh_err *e);

/* An image for commands, with all that it refers to; nothing of it is cached by the host's direct I/O, so that several of
 * one process may look at the same file. */
struct store_image_spec {
	struct store_pool *pool;
	const char *volume, *format; /* format NULL: the recorded one */
	const struct kvs *options;   /* of the format's open_options; may be NULL */
	const char *holder;
	uint32_t mode;               /* VH_ATTACH_RO, RW_EXCL, PEEK; what lies below is opened RO, or PEEK */
	int no_backing, repair;      /* as in fmt_spec */
	const char *const *allow;    /* real paths of folders beside the pool's; may be NULL */
	const char *const *held;     /* identities of volumes whose leases the caller has; may be NULL */
	struct blk_vol *vol;         /* attached already (the reference is taken over, also on failure); NULL: by name */
};
/* The real paths of an option `allow` that may be repeated; g_strfreev. */
char **store_allow(const struct vh_opts *o);
struct store_image;
int store_image_open(const struct store_image_spec *s, struct store_image **out, struct vh_err *e);
struct fmt_image *store_image_fmt(struct store_image *i);
void store_image_close(struct store_image *i); /* what fails then is logged: fmt_flush() before it tells */
/*
 * Changing the backing image. Safe: what reads otherwise through the new one (NULL: none) is copied into the image first, so
 * that its contents stay; it may be cut short at any point and run again. unsafe: only the name changes.
 */
struct store_rebase {
	struct store_pool *pool;
	const char *volume, *format, *backing, *backing_format;
	const struct kvs *options;
	const char *const *allow;
	int unsafe;
};
int store_rebase(const struct store_rebase *s, uint64_t *copied, struct vh_job *j, struct vh_err *e);
/*
 * Writes what an image has of its own into its backing image, which grows where it is shorter, and then empties the image
 * unless `keep` (*emptied: 0 when its format cannot). It may be cut short at any point and run again.
 */
struct store_commit {
	struct store_pool *pool;
	const char *volume, *format;
	const struct kvs *options;
	const char *const *allow;
	int keep;
};
int store_commit(const struct store_commit *s, uint64_t *copied, int *emptied, struct vh_job *j, struct vh_err *e);
/* Its backing image, by its format's word or, where that keeps no name, by the record beside it: 1, or 0 when it has none. A name
 * that is nowhere is empty. */
int store_image_backing(struct store_pool *p, const char *volume, const char *format, struct vh_ref *out, struct vh_err *e);
/* Records a backing image's name where the format does not keep it, else forgets the record. NULL: none. */
int store_backing_set(struct store_pool *p, const char *volume, const char *format, const char *name, struct vh_err *e);
/* What the image in a volume refers to, by its format's word, without opening any of it: how many, *refs for free(). */
int store_image_refs(struct store_pool *p, const char *volume, const char *format, struct vh_ref **refs, struct vh_err *e);

/*
 * --disk, and [disk N] of a VM's file: POOL/VOLUME (main key `volume`), or path=FILE, or type=POOLTYPE,volume=NAME with
 * pool.OPTION=...; format=, readonly=, engine=aio|uring|threads, cache=none|writeback, serial=, queues=, filter=NAME,
 * filter.OPTION=..., on-error=report|stop|stop-enospc, io-timeout=, allow=DIR, format.OPTION=...
 */
struct disk {
	struct store_pool *pool;
	struct fmt_image *image;
	char *label;
	char serial[32];
	unsigned queues; /* 0: one per vCPU, as far as the host has cores */
	int read_only;
};
extern const vh_schema disk_options;
int disk_open(const struct kvs *spec, const char *holder, void (*stopped)(void *ctx, const char *label, int error),
	      void *stopped_ctx, struct disk **out, struct vh_err *e); /* [main] may block; any thread */
int disk_plan(const struct kvs *spec, void (*step)(void *ctx, const char *text), void *ctx, struct vh_err *e);
void disk_close(struct disk *d);


/* target.c: a new image that is filled before it counts. A file has no name until then; a volume of a pool, and a file where
 * that cannot be, keeps its "unfinished" mark. */
struct store_target;
struct store_target_spec {
	const char *path;          /* or: */
	struct store_pool *pool; const char *volume;
	const char *format;
	uint64_t bytes;            /* of the disk */
	uint32_t prealloc;
	const struct kvs *options; /* of creating: the pool's, and "format." ones; may be NULL */
	const struct kvs *open;    /* open_options for writing, without prefix; may be NULL */
	const char *backing, *backing_format; /* as in store_create; may be NULL */
	const char *const *allow;
	const char *token;         /* as in store_create */
	int replace;               /* a file of that name goes when the new one is complete */
	int direct;                /* past the page cache */
	const char *holder;
};
int store_target_new(const struct store_target_spec *s, struct store_target **out, struct vh_job *j, struct vh_err *e);
struct fmt_image *store_target_image(struct store_target *t);
int store_target_fresh(const struct store_target *t); /* its disk reads as zeros (or as its backing image) */
int store_target_finish(struct store_target *t, struct vh_err *e); /* durable, then it has its name; frees t, also on failure */
/* Instead of a name: its bytes to a file descriptor. Frees t. Only of a file. */
int store_target_send(struct store_target *t, int fd, struct vh_err *e);
void store_target_drop(struct store_target *t);                    /* nothing stays */

#endif
