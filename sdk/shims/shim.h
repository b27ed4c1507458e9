/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * What the filters of this folder share: a volume and its queues that hand everything to the volume below, so that each
 * filter only writes what it adds. `struct shim` and `struct shim_queue` come first in the filter's own.
 */
#ifndef VHOST_SHIM_H
#define VHOST_SHIM_H

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/filter.h>
#include <vhost/sugar.h>

static const struct vh_host *vh_host_ptr;
static const struct vh_io_ops *shim_io;
static const struct vh_lower_ops *shim_lower;

struct shim {
	struct vh_lower *lower;
};

struct shim_queue {
	struct shim *shim;
	struct vh_lower_q *lower;
	struct vh_loop *loop;
};

static inline int shim_services(struct vh_err *e)
{
	shim_io = vh_service(vh_host_ptr, VH_SVC_IO, VH_END(shim_io, done));
	shim_lower = vh_service(vh_host_ptr, VH_SVC_LOWER, VH_END(shim_lower, resize));
	if (!shim_io || !shim_lower)
		return vh_host_ptr->err(e, -EOPNOTSUPP, "this host has no filters");
	return 0;
}

static inline int shim_info(void *vol, struct vh_volume_info *i)
{
	return shim_lower->info(((struct shim *)vol)->lower, i);
}

static inline int shim_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	return shim_lower->resize(((struct shim *)vol)->lower, bytes, e);
}

/* n: bytes of the filter's own queue. */
static inline int shim_queue_open(void *vol, struct vh_queue *hq, size_t n, void **out, struct vh_err *e)
{
	struct shim_queue *q = calloc(1, n);
	int r;

	if (!q)
		return vh_host_ptr->err(e, -ENOMEM, "no memory");
	q->shim = vol;
	r = shim_lower->queue(q->shim->lower, hq, &q->lower, e);
	if (r) {
		free(q);
		return r;
	}
	*out = q;
	return 0;
}

static inline int shim_queue_start(void *q, struct vh_loop *l)
{
	((struct shim_queue *)q)->loop = l;
	return 0;
}

/* Hands a request down; its end is the end of the one above. */
static inline void shim_done(struct vh_req *r, int result)
{
	shim_io->done(r, result);
}

static inline void shim_pass(struct shim_queue *q, struct vh_req *r)
{
	shim_lower->submit(q->lower, r, shim_done);
}

#endif
