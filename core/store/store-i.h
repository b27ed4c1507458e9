/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#ifndef STORE_I_H
#define STORE_I_H

#include <glib.h>
#include "plug/object.h"
#include "store/lease.h"
#include "store/store.h"

struct store_pool {
	char *name; /* NULL: ad hoc, not in any file */
	char *label; /* for people: the name, or "dir pool" */
	char *type;
	const struct vh_pool_ops *ops;
	void *pool;
	struct vh_object *object;
};

/* hostmeta.c: values of volumes whose pool type keeps none, in PATH_DATA/volumes/POOL.conf */
int64_t hostmeta_get(const struct store_pool *p, const char *volume, const char *key, char *buf, size_t cap,
		     struct vh_err *e);
int hostmeta_set(const struct store_pool *p, const char *volume, const char *key, const char *value, struct vh_err *e);
/* The place of a volume's values, taken before it is removed (NULL: none are kept here), and forgetting them afterwards. */
char *hostmeta_group(const struct store_pool *p, const char *volume);
int hostmeta_deleting(const struct store_pool *p, const char *group, int on, struct vh_err *e); /* they do not count any more, or again */
void hostmeta_drop(const struct store_pool *p, const char *group);
/* Of a volume that is not there: what a deletion that was cut short did not come to forget. */
void hostmeta_sweep(const struct store_pool *p, const char *volume);

/* attach.c: an error's object is the volume; returns ret. */
int vol_about(struct store_pool *p, const char *volume, int ret, struct vh_err *e);
/* attach.c: the host's lease, for pools whose plugin has none (else *out is NULL), around a call of the plugin. */
int store_lease(struct store_pool *p, const char *volume, uint32_t mode, const char *who, struct lease **out, struct vh_err *e);

/* create.c */
#define UNFINISHED "unfinished" /* beside a volume until what it is made for is complete */
int rw_volume(struct store_pool *p, const char *name, const char *why, struct blk_vol **out, struct vh_err *e); /* alone */
/* A volume that was not there, or had nothing in it yet; *zeroed: it reads as zeros. */
int make_empty(struct store_pool *p, const char *name, uint64_t bytes, uint32_t prealloc, const struct kvs *options, struct vh_job *j,
	       int *zeroed, struct vh_err *e);

/* clone.c: -EOPNOTSUPP for an image whose data is in further files: what is done to the volume alone would not be enough. */
int store_one_file(struct store_pool *p, const char *volume, struct vh_err *e);

/* attach.c: a value beside a volume, wherever its pool keeps it; "" when there is none. */
int vol_meta_get(struct store_pool *p, const char *volume, const char *key, char value[32], struct vh_err *e);
int vol_meta_read(struct store_pool *p, const char *volume, const char *key, char *buf, size_t cap, struct vh_err *e);
int vol_meta_set(struct store_pool *p, const char *volume, const char *key, const char *value, struct vh_err *e);

/* resolve.c: what an image refers to. Lives as long as the image: it holds the pools of folders that the chain leads to. */
#define CHAIN_MAX 256
#define BACKING "backing" /* beside an image whose format keeps no name of its backing image */
#define REBASING "rebasing" /* the same, while it is being changed */
#define COMMITTING "committing" /* beside an image that is being committed: its backing image's identity */
#define PART_OF "part-of" /* beside a further file of an image: the image's name */
struct resolver {
	struct store_pool *pool;
	const char *holder;
	struct blk_config blk;
	uint64_t attach_flags;
	const char *const *allow; /* folders outside of the pool's where files may lie; NULL: none */
	const char *const *held;  /* identities of volumes whose lease the caller has: they are attached without one */
	int peek;                 /* takes no leases */
	GHashTable *seen;         /* identities of the image and all that it refers to, so far */
	GPtrArray *pools;         /* of other folders */
	char *root, *dir, *next_dir; /* real paths: the pool's folder (NULL: it has none), the folders of the image whose
				      * references are resolved and of its backing image */
	/* Whose references are resolved, and whose will be: for names that are recorded beside an image. */
	struct store_pool *from, *next_from;
	char *from_name, *next_name;
	unsigned images;
	/* A rebase of an image without a name of its own was cut short: which of two records is right only its format can tell.
	 * undecided: the resolver met such a one; other: it is to take the newer record. */
	int undecided, other;
};
int resolver_init(struct resolver *r, struct store_pool *p, const char *volume, const char *holder, struct vh_err *e);
/* For an image that is yet to be made: only its place is known. */
void resolver_init_new(struct resolver *r, struct store_pool *p, const char *volume, const char *holder);
void resolver_clear(struct resolver *r);
fmt_resolve_fn resolver_open;
void resolver_layer(void *ctx, uint32_t depth); /* fmt_spec.resolve_layer */
/* Where the name leads, by the policy: the pool (the resolver's) and the volume in it (g_free). Opens nothing. */
int resolver_find(struct resolver *r, const char *name, struct store_pool **pool, char **volume, struct vh_err *e);

/* backing.c: a backing image by the name that an image has, or is to have, for it; it stays open, and leased for reading. */
struct backing {
	struct resolver r;
	struct fmt_image *image;
	struct blk_vol *volume; /* its first, borrowed */
	struct vh_meta *meta;   /* of that one */
	uint64_t bytes;
	char format[32];
};
struct backing_spec {
	struct store_pool *pool; /* the image that has it */
	const char *volume;
	int there;               /* that one exists (and must not be in the chain) */
	const char *name, *format;
	const struct kvs *options; /* for opening it; may be NULL */
	const char *const *allow;
	int alone;               /* without what is below it */
};
int backing_open(struct backing *b, const struct backing_spec *s, struct vh_err *e);
void backing_close(struct backing *b);

/* rebase.c: the longest run of one kind at off; alone: of the top image itself, own: it decides what is here. NULL and past the
 * end: zeros. */
struct run { uint64_t end; uint32_t type, own; };
int run_at(struct fmt_image *i, int alone, uint64_t off, uint64_t end, struct run *r, struct vh_err *e);
int read_or_zeros(struct fmt_image *i, char *buf, uint64_t len, uint64_t off, struct vh_err *e);

#endif
