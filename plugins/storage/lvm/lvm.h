/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The parts of the lvm plugin: a volume group is the pool, a logical volume the volume. */
#ifndef LVM_H
#define LVM_H

#include <glib.h>
#include <json-glib/json-glib.h>
#include "../common/lease.h"

extern const struct vh_host *lvm_host;
extern const struct vh_job_ops *lvm_job; /* NULL: the host has no such service */
extern const struct vh_log_ops *lvm_log; /* NULL: likewise */

#define lvm_fail(e, code, ...) (lvm_host->err((e), (code), __VA_ARGS__))
#define lvm_hint(e, ...) (lvm_host->remedy((e), __VA_ARGS__))
#define lvm_warn(...) do { if (lvm_log) lvm_log->log(VH_LOG_WARN, "lvm.pool", __VA_ARGS__); } while (0)

enum lvm_wipe { LVM_WIPE_NONE, LVM_WIPE_DISCARD, LVM_WIPE_ZERO };

struct lvm_vg {
	char name[128], uuid[64];
	uint64_t size, free, extent, missing;
	int exported, ro;
};
struct lvm_lv;
/* What was looked at last: a command asks several times for the same. What changes something forgets it. */
struct lvm_recent {
	struct lvm_lv *lv;
	struct lvm_vg vg;
	uint64_t at, vg_at; /* ns; 0: nothing */
};
#define LVM_RECENT_NS UINT64_C(2000000000)
struct lvm_pool {
	char *vg, *thin; /* thin: the thin pool that volumes are made in; NULL: none */
	char vg_uuid[64];
	enum lvm_wipe wipe;
	uint64_t timeout; /* ns, of one lvm command */
	struct lvm_recent *recent; /* NULL: nothing is kept */
	GPtrArray *later; /* of struct lvm_lv: to be deactivated when the pool is closed */
	const struct lvm_lv *current; /* the one that list() tells of: its values need no command of their own */
};

#define LVM_OPT(VAR, NAME, TYPE, DOC, ...) \
	static const struct vh_opt VAR = {.size = sizeof(struct vh_opt), .type = TYPE, .name = NAME, .doc = DOC, ##__VA_ARGS__}

/* report.c: what lvm answers, in JSON; nothing of it is trusted to have the right shape. */
struct lvm_answer {
	JsonParser *parser;
	GPtrArray *rows; /* of JsonObject, the table that was asked for */
	char *error;     /* the log's errors, or NULL */
};
#define LVM_ANSWER_MAX (256u << 20)
/* table NULL: only the log. -EPROTO: it is no such answer. */
int lvm_answer_parse(struct lvm_answer *a, const char *text, size_t len, const char *table, struct vh_err *e);
void lvm_answer_clear(struct lvm_answer *a);
const char *lvm_text(JsonObject *row, const char *key); /* "" when it is missing or no text */
int lvm_number(JsonObject *row, const char *key, uint64_t *out, struct vh_err *e); /* -EPROTO */
double lvm_percent(JsonObject *row, const char *key);   /* -1: unknown */

/* run.c: one lvm command, in bounded time. Arguments end with NULL. j may be NULL; a cancelled job ends the command. */
int lvm_run(const struct lvm_pool *p, struct vh_job *j, const char *table, struct lvm_answer *out, struct vh_err *e, ...)
	G_GNUC_NULL_TERMINATED;
int lvm_runv(const struct lvm_pool *p, struct vh_job *j, const char *table, struct lvm_answer *out, struct vh_err *e,
	     const char *const *argv);
int lvm_cancelled(struct vh_job *j);
void lvm_progress(struct vh_job *j, uint64_t done, uint64_t total);

/* view.c: the volume group and its volumes as they are now. */
struct lvm_lv {
	char *name, *uuid, *layout, *role, *tags, *thin, *origin, *health, *when_full;
	uint64_t bytes;
	int64_t time;      /* ns since 1970 */
	double data, meta; /* percent, -1: unknown */
	int ro, zero, merging;
	int layered; /* devices of its own beneath it: a snapshot is being taken of it */
};
int lvm_vg_get(const struct lvm_pool *p, struct lvm_vg *out, struct vh_err *e); /* -ENOENT */
void lvm_lv_free(struct lvm_lv *lv);
struct lvm_lv *lvm_lv_copy(const struct lvm_lv *lv);
void lvm_forget(const struct lvm_pool *p);
/* The volumes, snapshots and thin pools that match a selection (NULL: all) of lvm's; `live`: with what only the kernel knows. */
int lvm_lvs(const struct lvm_pool *p, const char *select, int live, GPtrArray **out, struct vh_err *e);
#define LVM_LIVE 1
#define LVM_RECENT 2 /* what was seen a moment ago will do: for what only reads */
int lvm_lv_get(const struct lvm_pool *p, const char *name, int live, struct lvm_lv **out, struct vh_err *e); /* -ENOENT */
int lvm_volume_get(const struct lvm_pool *p, const char *name, int live, struct lvm_lv **out, struct vh_err *e); /* usable as a volume */
int lvm_is_thin(const struct lvm_lv *lv);
int lvm_is_thin_pool(const struct lvm_lv *lv);
int lvm_is_volume(const struct lvm_lv *lv); /* not a thin pool, nor a snapshot of ours, nor unfinished */

/* name.c */
int lvm_vg_name_ok(const char *name, struct vh_err *e);
int lvm_name_ok(const char *name, struct vh_err *e);
int lvm_name_new_ok(const char *name, struct vh_err *e);
char *lvm_snap_name(const char *volume, const char *snap, struct vh_err *e); /* NULL: no such name can be */
const char *lvm_snap_of(const struct lvm_lv *lv, const char *volume); /* the snapshot's own name, NULL: it is none of this volume */
/* Tags "vhost.KEY=VALUE": lvm allows few characters, so that the others are written as &XX. */
char *lvm_tag(const char *key, const char *value);
char *lvm_tag_get(const char *tags, const char *key);  /* the value, NULL: there is no such tag */
char *lvm_tag_find(const char *tags, const char *key); /* the whole tag */
char *lvm_maker(void);                    /* who makes something now, as a value of the tag "creating" */
int lvm_maker_gone(const char *maker);
#define LVM_CREATING "creating" /* hidden, and a dead maker's is removed */
#define LVM_REMOVING "removing" /* being wiped: only removing it goes on */
#define LVM_SNAPSHOT "snapshot" /* the snapshot's name */
#define LVM_CLONE "clone"       /* of which volume (uuid) it is a clone */
#define LVM_FRESH "fresh"       /* made as zeros, and not written to since */
#define LVM_ROLLBACK "rollback" /* the snapshot that it goes back to, which is to be taken anew */

/* dm.c: the kernel's device of a volume, by its uuids. */
struct lvm_dev { unsigned major, minor; int open; };
int lvm_dev_find(const struct lvm_pool *p, const struct lvm_lv *lv, struct lvm_dev *out); /* -ENOENT: not active */
/* The device goes when nobody has it open any more, however its users end. */
int lvm_dev_drop(const struct lvm_pool *p, const struct lvm_lv *lv);

/* lease.c: an activated, opened and locked volume. */
struct lvm_lease {
	int fd, mode;
	int activated; /* by us, and lvm is to deactivate it */
	struct lease_lock lock;
	struct lvm_dev dev;
};
/* `text`: who, as vh_attach.holder. -EBUSY names the holder. */
int lvm_lease(const struct lvm_pool *p, const struct lvm_lv *lv, uint32_t mode, int direct, const char *text, struct lvm_lease *out,
	      struct vh_err *e);
void lvm_unlease(const struct lvm_pool *p, const struct lvm_lv *lv, struct lvm_lease *l);
int lvm_lease_why(const struct lvm_pool *p, const struct lvm_lv *lv, uint32_t mode, const char *why, struct lvm_lease *out,
		  struct vh_err *e); /* for control calls */
void lvm_deactivate(const struct lvm_pool *p, const struct lvm_lv *lv);
int lvm_in_use(const struct lvm_pool *p, const struct lvm_lv *lv);

/* wipe.c */
int lvm_zero(int fd, uint64_t from, uint64_t to, struct vh_job *j, struct vh_err *e);
int lvm_discard(int fd, uint64_t from, uint64_t to, struct vh_job *j, struct vh_err *e);

/* Members of the pool's table. */
extern const struct vh_opt *const lvm_pool_options[], *const lvm_create_options[];
int lvm_make(const struct vh_opts *opts, struct vh_job *j, struct vh_err *e);
int lvm_open(const struct vh_opts *opts, struct vh_object *o, void **pool, struct vh_err *e);
void lvm_close(void *pool);
int lvm_info(void *pool, struct vh_pool_info *i, struct vh_err *e);
int lvm_list(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e);
int lvm_stat(void *pool, const char *name, struct vh_vol_stat *st, struct vh_err *e);
int lvm_create(void *pool, struct vh_vol_spec *s, struct vh_job *j, struct vh_err *e);
int lvm_remove(void *pool, const char *name, struct vh_job *j, struct vh_err *e);
int lvm_resize(void *pool, const char *name, uint64_t bytes, uint32_t prealloc, struct vh_job *j, struct vh_err *e);
int lvm_resize_lv(const struct lvm_pool *p, const struct lvm_lv *lv, int fd, uint64_t bytes, int prealloc, struct vh_job *j,
		  struct vh_err *e);
int lvm_clone(void *pool, const char *src, const char *snap, const char *dst, uint32_t how, struct vh_job *j, struct vh_err *e);
int lvm_snapshot_create(void *pool, const struct vh_snap_spec *s, struct vh_err *e);
int lvm_snapshot_list(void *pool, const char *name, vh_list_fn *fn, void *ctx, struct vh_err *e);
int lvm_snapshot_remove(void *pool, const char *name, const char *snap, struct vh_job *j, struct vh_err *e);
int lvm_snapshot_rollback(void *pool, const char *name, const char *snap, struct vh_job *j, struct vh_err *e);
int lvm_attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops, struct vh_err *e);
int64_t lvm_meta_get(void *pool, const char *name, const char *key, char *buf, uint64_t cap, struct vh_err *e);
int lvm_meta_set(void *pool, const char *name, const char *key, const char *value, struct vh_err *e);
void lvm_fill_stat(const struct lvm_pool *p, const struct lvm_lv *lv, struct vh_vol_stat *v);
void lvm_clean(const struct lvm_pool *p, const GPtrArray *list); /* removes what dead makers left */
int lvm_tag_change(const struct lvm_pool *p, const char *name, const char *add, const char *del, struct vh_err *e); /* one of both */
int lvm_drop(const struct lvm_pool *p, const char *name, struct vh_job *j, struct vh_err *e); /* lvremove */

#endif
