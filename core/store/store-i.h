/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#ifndef STORE_I_H
#define STORE_I_H

#include <glib.h>
#include "plug/object.h"
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
void hostmeta_drop(const struct store_pool *p, const char *group);

/* attach.c: a value beside a volume, wherever its pool keeps it; "" when there is none. */
int vol_meta_get(struct store_pool *p, const char *volume, const char *key, char value[32], struct vh_err *e);
int vol_meta_set(struct store_pool *p, const char *volume, const char *key, const char *value, struct vh_err *e);

/* resolve.c: what an image refers to. Lives as long as the disk. */
#define CHAIN_MAX 256
struct resolver {
	struct store_pool *pool;
	const char *holder;
	struct blk_config blk;
	uint64_t attach_flags;
	char *seen[CHAIN_MAX]; /* identities of the chain so far */
	unsigned n;
	int peek; /* takes no leases */
};
int resolver_init(struct resolver *r, struct store_pool *p, const char *volume, const char *holder, struct vh_err *e);
void resolver_clear(struct resolver *r);
fmt_resolve_fn resolver_open;

#endif
