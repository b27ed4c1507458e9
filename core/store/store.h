/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Named pools (definition files), volumes by "pool/volume" name, and disks: a volume of a pool, its format, its chain. */
#ifndef STORE_STORE_H
#define STORE_STORE_H

#include "fmt/image.h"
#include "plug/options.h"
#include "plug/plug.h"

struct store_pool;
/* By name from PATH_CONFIG/pools/NAME.conf ("default" is made on first use), or ad hoc from a type and its options. */
int store_pool_open(const char *name, struct store_pool **out, struct vh_err *e);
int store_pool_open_type(const char *type, const struct kvs *options, struct store_pool **out, struct vh_err *e);
void store_pool_close(struct store_pool *p);
const char *store_pool_name(const struct store_pool *p);
const struct vh_pool_ops *store_pool_ops(const struct store_pool *p, void **pool);
int store_pool_define(const char *name, const char *type, const struct kvs *options, struct vh_err *e); /* -EEXIST */
int store_pool_undefine(const char *name, struct vh_err *e);
int store_pool_names(int (*fn)(void *ctx, const char *name, const char *type), void *ctx, struct vh_err *e);

/* Attaches a volume; `holder` as in vh_attach. mode: VH_ATTACH_*. The volume is an engine's blk_vol. */
struct store_attach { const char *name, *holder; uint32_t mode; uint64_t flags; struct blk_config blk; };
int store_attach(struct store_pool *p, const struct store_attach *a, struct blk_vol **out, struct vh_err *e);
/* The recorded format of a volume, "" when none is recorded. */
int store_format_get(struct store_pool *p, const char *volume, char format[32], struct vh_err *e);
int store_format_set(struct store_pool *p, const char *volume, const char *format, struct vh_err *e);

/*
 * --disk, and [disk N] of a VM's file: POOL/VOLUME (main key `volume`), or path=FILE, or type=POOLTYPE,volume=NAME with
 * pool.OPTION=...; format=, readonly=, engine=aio|uring|threads, cache=none|writeback, serial=, queues=, filter=NAME,
 * filter.OPTION=..., on-error=report|stop|stop-enospc, io-timeout=, format.OPTION=...
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

#endif
