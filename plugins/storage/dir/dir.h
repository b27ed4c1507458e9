/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The parts of the dir plugin. Volumes are regular files directly in one folder; nothing here follows a symlink. */
#ifndef DIR_H
#define DIR_H

#include "../common/lease.h"

#define DIR_NAME_MAX 200          /* leaves room for the sidecar's name around it */
#define DIR_TMP ".vhost-tmp"      /* folder of unfinished files where the file system has no O_TMPFILE */
#define DIR_XATTR "user.vhost."   /* + key */

extern const struct vh_host *dir_host;
extern const struct vh_job_ops *dir_job; /* NULL: the host has no such service */
extern const struct vh_log_ops *dir_log; /* NULL: likewise */

#define dir_fail(e, code, ...) (dir_host->err((e), (code), __VA_ARGS__))
#define dir_hint(e, ...) (dir_host->remedy((e), __VA_ARGS__))
#define dir_warn(...) do { if (dir_log) dir_log->log(VH_LOG_WARN, "dir.volume", __VA_ARGS__); } while (0)

struct dir_pool {
	int fd; /* O_PATH */
	char *path;
};

/* dir.c */
int dir_name_ok(const char *name, struct vh_err *e);     /* for something that may exist already */
int dir_name_new_ok(const char *name, struct vh_err *e); /* for something to be made: the conventions' rule */
/* Refuses what is no regular file before opening it: an open may block (FIFO) or act (device). Returns the fd, or fails
 * with the text. */
int dir_open_file(const struct dir_pool *p, const char *name, int flags, struct vh_err *e);
int dir_errno(struct vh_err *e, int code, const struct dir_pool *p, const char *name); /* "FOLDER/NAME: why" */
int dir_sync(const struct dir_pool *p); /* makes renames, links and unlinks durable */
void dir_identity(const struct stat *st, char out[160]);
const char *dir_kind(mode_t m); /* "a folder", ... */
int dir_cancelled(struct vh_job *j);
void dir_progress(struct vh_job *j, uint64_t done, uint64_t total);

/* tmp.c: files that have no name until they are complete. */
struct dir_tmp {
	int fd;
	char name[64]; /* below DIR_TMP; empty: O_TMPFILE */
};
int dir_tmp_new(const struct dir_pool *p, struct dir_tmp *t, struct vh_err *e);
/* Gives the file its name; -EEXIST. Durable when it returns 0. */
int dir_tmp_publish(const struct dir_pool *p, struct dir_tmp *t, const char *name, struct vh_err *e);
void dir_tmp_drop(const struct dir_pool *p, struct dir_tmp *t);
void dir_tmp_clean(const struct dir_pool *p); /* removes what dead processes left */

/* copy.c */
/* Copies [0, bytes) of src to the empty file dst, sharing blocks where the file system can, keeping holes. */
int dir_copy(int src, int dst, uint64_t bytes, struct vh_job *j, struct vh_err *e);
/* Makes fd, of size `from`, `to` bytes long: the new part reads as zeros and is allocated as prealloc says. On an error
 * the size is `from` again. */
int dir_extend(int fd, uint64_t from, uint64_t to, uint32_t prealloc, struct vh_job *j, struct vh_err *e);

/* lease: open a volume and lock it, for control calls. Returns the fd, which carries the lease until it is closed. */
int dir_lease(const struct dir_pool *p, const char *name, uint32_t mode, const char *why, struct vh_err *e);
void dir_unlease(int fd);

/* meta.c */
int64_t dir_meta_get(void *pool, const char *name, const char *key, char *buf, uint64_t cap, struct vh_err *e);
int dir_meta_set(void *pool, const char *name, const char *key, const char *value, struct vh_err *e);
void dir_meta_copy(int src, int dst); /* what is kept in extended attributes */
int dir_meta_copy_sidecar(const struct dir_pool *p, const char *src, const char *dst, struct vh_err *e);
void dir_meta_forget(const struct dir_pool *p, const char *name); /* after the volume went */

/* create.c, clone.c, list.c, volume.c: members of the pool's table */
extern const struct vh_opt *const dir_create_options[];
int dir_create(void *pool, struct vh_vol_spec *s, struct vh_job *j, struct vh_err *e);
int dir_remove(void *pool, const char *name, struct vh_job *j, struct vh_err *e);
int dir_resize(void *pool, const char *name, uint64_t bytes, uint32_t prealloc, struct vh_job *j, struct vh_err *e);
int dir_clone(void *pool, const char *src, const char *snap, const char *dst, uint32_t how, struct vh_job *j,
	      struct vh_err *e);
int dir_list(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e);
int dir_stat(void *pool, const char *name, struct vh_vol_stat *st, struct vh_err *e);
int dir_attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops, struct vh_err *e);
int dir_reattach(void *pool, void *vol, uint32_t mode, struct vh_err *e);

#endif
