/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Loads the built dir plugin with a small host of its own: these tests need nothing of the core. */
#ifndef DIRTEST_H
#define DIRTEST_H

#include <vhost/pool.h>
#include "small-host.h"

struct vh_job {
	uint64_t done, total;
	int calls, cancel_after; /* cancelled at that call of progress; 0: never */
	int cancelled;
};

extern const struct vh_pool_ops *dir_ops;
void dirtest_load(void);
void *dirtest_open(const char *path);           /* asserts success */
int dirtest_make(const char *path, struct vh_err *e);
int dirtest_try_open(const char *path, void **pool, struct vh_err *e);
int dirtest_create(void *pool, const char *name, uint64_t bytes, uint32_t prealloc, struct vh_job *j, struct vh_err *e);
/* Attaches, info in *i (may be NULL); NULL and *e on failure. */
void *dirtest_attach(void *pool, const char *name, uint32_t mode, struct vh_volume_info *i, struct vh_err *e);
void dirtest_detach(void *vol);
char *dirtest_tmp(void);        /* a new folder, removed by dirtest_untmp */
void dirtest_untmp(char *path);
int dirtest_count(const char *folder); /* entries, hidden ones too */
/* Runs a command, returns its exit status; output (both streams) to *out when not NULL (g_free). */
int dirtest_run(char **out, const char *arg0, ...) G_GNUC_NULL_TERMINATED;
/* A mount namespace of our own. 0, or a negative errno where we may not. */
int dirtest_unshare(void);
/* Makes system call `nr` fail with `err` in this process from now on (optionally only if arg & mask == value). */
int dirtest_break_syscall(int nr, int err, int arg, uint64_t mask, uint64_t value);
/* Runs fn in a child; returns its exit status, or 128 + signal. */
int dirtest_child(int (*fn)(void *ctx), void *ctx);

#endif
