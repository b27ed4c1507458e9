/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * vhost-plugin-check: what a check sees. A check is a function that returns when the plugin keeps the rule, and does not
 * return from check_fail() or check_skip(). It runs in a child process of its own with a deadline, so it may load the
 * plugin, change anything of the process, and crash: a crash or a hang is the plugin's failure.
 */
#ifndef SDK_CHECK_H
#define SDK_CHECK_H

#include "plug/impl.h"
#include "plug/options.h"

struct check_ctx {
	const char *path;        /* the plugin's file, absolute */
	struct plug_ident note;
	uint64_t seed;           /* --seed; the same seed makes the same run */
	const struct kvs *set;   /* --set key=value: options for opening; create.key=value: for creating */
	const char *net_setup;   /* --net-setup: a shell command for each check's network namespace; NULL: it stays empty */
	uint64_t random;         /* check_random's state */
	char *tmp;               /* the check's private folder */
	struct plug_image image; /* once check_load() was called */
	int loaded;
};

struct check {
	const char *id;   /* "load-one-symbol": group, rule */
	const char *rule; /* what the plugin must do, one line */
	const char *doc;  /* where the rule stands: "docs/abi.md#loading" */
	void (*fn)(struct check_ctx *c);
	uint32_t kinds;   /* VH_KIND_*: only for plugins that offer one of these; 0: all */
	uint32_t seconds; /* deadline; 0: 20 */
};
struct check_group {
	const char *name, *about;
	const struct check *checks; /* ends with an id of NULL */
};
extern const struct check_group group_load, group_skew, group_io, group_map, group_crash, group_pool, group_net;
extern const struct check_group *const check_groups[]; /* NULL-terminated, in order of running */

/* Both end the check. */
void check_fail(struct check_ctx *c, const char *fmt, ...) VH_PRINTF(2, 3) __attribute__((noreturn));
void check_skip(struct check_ctx *c, const char *fmt, ...) VH_PRINTF(2, 3) __attribute__((noreturn));
#define CHECK(c, cond, ...) \
	do { \
		if (!(cond)) \
			check_fail(c, __VA_ARGS__); \
	} while (0)

uint64_t check_random(struct check_ctx *c);                  /* 64 random bits */
uint64_t check_below(struct check_ctx *c, uint64_t bound);   /* 0..bound-1 */
/* A new, empty folder (0755), removed with everything in it after the check. Lives as long as the check. */
const char *check_folder(struct check_ctx *c);

/* The host that checks hand to plugins: the core's, with inert tables for services that nobody has registered. */
extern const struct vh_host check_host;
const void *check_service(const char *iid);
extern const struct vh_io_ops *check_io; /* set before loading: the vh.io/1 that the plugin gets */
/* Loads the plugin as the core does; fails the check when that fails. Returns the host's copy of a table, NULL when the
 * plugin does not offer that interface. */
const void *check_load(struct check_ctx *c, uint32_t kind);
/* The table as the plugin has it. */
const void *check_raw(struct check_ctx *c, uint32_t kind);
/* Values for a schema: what --set gave, a fresh folder for a required path, defaults. `prefix`: "" or "create.". Skips the
 * check when a required option is missing. Lives as long as the check. */
const struct vh_opts *check_opts(struct check_ctx *c, vh_schema schema, const char *prefix);

/* A copy of n bytes whose end touches an inaccessible page: reading past it crashes. With tail > 0 that many bytes of
 * 0xdb follow first. Never freed. 8-aligned when n + tail is. */
void *check_guarded(const void *data, size_t n, size_t tail);

/* A pool or a port to check with, opened by the plugin; closed by the caller. */
void *check_pool_open(struct check_ctx *c, const struct vh_pool_ops **ops);

/* ---- the runner's own ---- */

enum check_result { CHECK_PASS, CHECK_FAILED, CHECK_SKIPPED, CHECK_CRASHED, CHECK_TIMEOUT };
struct check_outcome {
	enum check_result result;
	char text[2048];   /* why */
	char output[1024]; /* the last of what was written to standard output and error meanwhile */
	double seconds;
};
void check_run(const struct check *k, const struct check_ctx *base, int in_process, struct check_outcome *out);
const char *check_result_name(enum check_result r);

#endif
