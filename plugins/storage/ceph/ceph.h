/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The parts of the ceph plugin. A RADOS pool (and namespace) is the pool, its RBD images are the volumes. Each open pool is one
 * client of the cluster. What librbd's threads complete is handed to the queue's loop; nothing else of them gets out.
 */
#ifndef CEPH_H
#define CEPH_H

#include <errno.h>
#include <rados/librados.h>
#include <rbd/librbd.h>
#include <stdatomic.h>
#include <vhost/pool.h>
#include <vhost/sugar.h>

#define CEPH_NAME_MAX 200
#define CEPH_ID_MAX 64
#define CEPH_OID_MAX (CEPH_ID_MAX + 16)
#define CEPH_LOCK "rbd_lock"            /* librbd's lock on an image's header object */
#define CEPH_META "vhost."              /* + key: our values among an image's metadata */
#define CEPH_HOLDER CEPH_META "holder." /* + client: who it is, as long as it has the exclusive lock or tries to get it */
#define CEPH_COOKIE_MAX 400
#define CEPH_PART ".vhost-part."        /* + name: a copy that is not complete; no volume's name begins so */

extern const struct vh_host *ceph_host;
extern const struct vh_io_ops *ceph_io;
extern const struct vh_event_ops *ceph_event; /* these three NULL: the host has no such service */
extern const struct vh_job_ops *ceph_job;
extern const struct vh_log_ops *ceph_log;

#define ceph_fail(e, code, ...) (ceph_host->err((e), (code), __VA_ARGS__))
#define ceph_hint(e, ...) (ceph_host->remedy((e), __VA_ARGS__))
#define ceph_warn(...) do { if (ceph_log) ceph_log->log(VH_LOG_WARN, "ceph.pool", __VA_ARGS__); } while (0)

struct ceph_pool {
	rados_t cluster;
	rados_ioctx_t io;
	char *name, *ns, *user; /* ns: NULL for the default one */
	char fsid[40];
	int64_t id;
	uint64_t io_timeout, answer_timeout; /* s; io: 0 for ever */
	unsigned attached; /* volumes open for I/O: then io_timeout holds */
	unsigned given_up; /* threads that still use the cluster: it is never shut down */
	int trash;
	uint64_t trash_time; /* s */
	/* While list() calls back: what is known of that volume already. */
	const char *listed, *listed_format;
};

/* cluster.c */
int ceph_open(const struct vh_opts *opts, struct vh_object *o, void **pool, struct vh_err *e);
int ceph_make(const struct vh_opts *opts, struct vh_job *j, struct vh_err *e);
void ceph_close(void *pool);
int ceph_info(void *pool, struct vh_pool_info *i, struct vh_err *e);
extern const struct vh_opt *const ceph_pool_options[];
/* One volume more or fewer with I/O: which time limit requests have from now on. */
void ceph_attached(struct ceph_pool *p, int more);
/* "there is no such volume", or "POOL/NAME: why". */
int ceph_errno(struct vh_err *e, int code, const struct ceph_pool *p, const char *name);
const char *ceph_why(int code); /* strerror, with what Ceph means by it */

/* bounded.c: calls that may block for as long as the cluster is away */
struct ceph_call {
	void (*fn)(struct ceph_call *c); /* on a thread of its own */
	int result;                      /* fn's */
	void (*gone)(struct ceph_call *c); /* frees it, after fn, on either thread */
};
/* Runs c->fn; waits for at most `seconds`. 1: it has ended (the caller looks at it and calls gone), 0: it goes on without us, and is
 * counted in p->given_up. */
int ceph_bounded(struct ceph_pool *p, struct ceph_call *c, unsigned seconds);
/* Closes an image within bounded time, and gives back its lease: `id` of one leased for writing, or NULL; a reader's cookie, or NULL. */
void ceph_image_close(struct ceph_pool *p, rbd_image_t image, const char *id, const char *cookie);
int ceph_image_shut(struct ceph_pool *p, rbd_image_t image, const char *id, const char *cookie); /* the same, for as long as it takes */

/* header.c: what can be read of an image in one round trip, without opening it */
int ceph_name_ok(const char *name, struct vh_err *e);
int ceph_name_new_ok(const char *name, struct vh_err *e);
int ceph_id(const struct ceph_pool *p, const char *name, char id[CEPH_ID_MAX]); /* -ENOENT */
void ceph_header_oid(const char *id, char oid[CEPH_OID_MAX]); /* the object that is an image's header */
int ceph_list(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e);
int ceph_stat(void *pool, const char *name, struct vh_vol_stat *st, struct vh_err *e);
int64_t ceph_meta_get(void *pool, const char *name, const char *key, char *buf, uint64_t cap, struct vh_err *e);
int ceph_meta_set(void *pool, const char *name, const char *key, const char *value, struct vh_err *e);
/* A value of an image's metadata: its length, -ENODATA. */
int64_t ceph_meta_read(const struct ceph_pool *p, const char *id, const char *key, char *buf, uint64_t cap);
int ceph_meta_write(const struct ceph_pool *p, const char *id, const char *key, const char *value); /* NULL removes; -ENOENT: no image */

/* lease.c */
struct ceph_locks { /* of one image */
	int exclusive;
	unsigned n;
	char tag[64], *clients, *cookies, *addrs; /* lists of strings, one after the other */
};
int ceph_locks_get(const struct ceph_pool *p, const char *id, struct ceph_locks *l);
void ceph_locks_clear(struct ceph_locks *l);
/* Opens an image and takes the lease of `mode`, or fails with -EBUSY and the holder's name. *cookie: of a reader's lock, empty when
 * the cluster gives this client none. */
int ceph_lease(struct ceph_pool *p, const char *name, const char *id, uint32_t mode, const char *holder, rbd_image_t *image,
	       char cookie[CEPH_COOKIE_MAX], struct vh_err *e);
/* For control calls, which hold it alone: ceph_unlease closes the image. */
int ceph_lease_for(struct ceph_pool *p, const char *name, const char *why, char id[CEPH_ID_MAX], rbd_image_t *image, struct vh_err *e);
void ceph_unlease(struct ceph_pool *p, rbd_image_t image, const char *id);
void ceph_record_drop(const struct ceph_pool *p, const char *id); /* of this client, after it has given back the lock */
/* 0: nobody has it (reading: nobody who writes), else -EBUSY, naming the holder. What a dead process of this host held is broken. */
int ceph_busy(struct ceph_pool *p, const char *id, int reading, struct vh_err *e);
int ceph_lease_break(void *pool, const char *name, struct vh_job *j, struct vh_err *e);

/* image.c, clone.c, snapshot.c, volume.c: members of the pool's table */
extern const struct vh_opt *const ceph_create_options[];
int ceph_create(void *pool, struct vh_vol_spec *s, struct vh_job *j, struct vh_err *e);
int ceph_remove(void *pool, const char *name, struct vh_job *j, struct vh_err *e);
int ceph_remove_image(struct ceph_pool *p, const char *name, struct vh_job *j);
int ceph_resize(void *pool, const char *name, uint64_t bytes, uint32_t prealloc, struct vh_job *j, struct vh_err *e);
int ceph_clone(void *pool, const char *src, const char *snap, const char *dst, uint32_t how, struct vh_job *j, struct vh_err *e);
int ceph_flatten(void *pool, const char *name, struct vh_job *j, struct vh_err *e);
int ceph_snapshot_create(void *pool, const struct vh_snap_spec *s, struct vh_err *e);
int ceph_snapshot_list(void *pool, const char *name, vh_list_fn *fn, void *ctx, struct vh_err *e);
int ceph_snapshot_remove(void *pool, const char *name, const char *snap, struct vh_job *j, struct vh_err *e);
int ceph_snapshot_rollback(void *pool, const char *name, const char *snap, struct vh_job *j, struct vh_err *e);
int ceph_attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops, struct vh_err *e);
int ceph_progress(uint64_t done, uint64_t total, void *job); /* librbd's callback */
int ceph_cancelled(struct vh_job *j);

#endif
