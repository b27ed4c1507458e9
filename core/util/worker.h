/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A pool of threads for blocking work (control jobs, meta calls, decode). Threads start on demand and end when idle. */
#ifndef UTIL_WORKER_H
#define UTIL_WORKER_H

#include "util/err.h"

struct worker_pool;
/* The caller's, embedded; no allocation. fn runs on a worker with all signals blocked. */
struct work {
	void (*fn)(struct work *w);
	struct work *next;
};
int worker_pool_new(const char *name, unsigned max_threads, struct worker_pool **out, struct vh_err *e);
void worker_submit(struct worker_pool *p, struct work *w); /* [any] first in, first out */
void worker_pool_free(struct worker_pool *p);              /* waits for all work */

#endif
