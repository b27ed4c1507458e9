/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* A filter: a volume over a volume (fault injection, throttling, replication, a cache). Submit tier only. */
#ifndef VHOST_FILTER_H
#define VHOST_FILTER_H

#include <vhost/opt.h>
#include <vhost/volume.h>

struct vh_lower;   /* the host's handle of the volume below */
struct vh_lower_q; /* and of one queue of it */

#define VH_SVC_LOWER "vh.lower/1"
struct vh_lower_ops {
	uint32_t size, resv;
	int (*info)(struct vh_lower *l, struct vh_volume_info *i); /* [main] fd is always -1 */
	/* [main] In queue_open: the lower queue that runs on the same loop as hq. Closed by the host after queue_close. */
	int (*queue)(struct vh_lower *l, struct vh_queue *hq, struct vh_lower_q **out, struct vh_err *e);
	/* [queue] Hands r down; `done` is called once, on the same loop, perhaps inside. r is the filter's and lives until
	 * then; never refused (the host queues). Limits of info() apply, alignment too. */
	void (*submit)(struct vh_lower_q *q, struct vh_req *r, void (*done)(struct vh_req *r, int result));
	int (*resize)(struct vh_lower *l, uint64_t bytes, struct vh_err *e); /* [main] */
};

struct vh_filter_open {
	uint32_t size, resv;
	struct vh_lower *lower;
	struct vh_object *object; /* for events and counters */
	const struct vh_opts *opts;
};

struct vh_filter_ops {
	uint32_t size, resv;
	uint64_t caps; /* none yet */
	const char *name; /* as in --disk ...,filter=NAME */
	vh_schema options; /* NULL: none */
	/* [main] May block. The volume is closed by ops->close; the lower one outlives it. Mandatory. */
	int (*open)(const struct vh_filter_open *o, void **vol, const struct vh_volume_ops **ops, struct vh_err *e);
};

#endif
