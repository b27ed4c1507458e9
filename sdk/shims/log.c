/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * A filter that tells what passes through it: one line per request at level trace, topic log.io, and counters by kind.
 *
 *	VHOST_LOG=log.io=trace vhost run --disk default/web,filter=log ...
 */
#include "shim.h"
#include <inttypes.h>

static const struct vh_log_ops *log_ops;
#define TOPIC "log.io"

static const char *const op_names[] = {"?", "read", "write", "flush", "discard", "zero"};
#define N_OPS 6u

struct logger {
	struct shim shim;
	uint64_t *requests[N_OPS], *bytes, *errors;
};

struct scratch {
	struct logger *log;
};

static const char *op_name(unsigned op)
{
	return op_names[op < N_OPS ? op : 0];
}

static void count(uint64_t *counter, uint64_t n)
{
	if (counter)
		__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static void log_done(struct vh_req *r, int result)
{
	struct scratch *s = r->ctx;

	if (result < 0)
		count(s->log->errors, 1);
	if (log_ops->enabled(VH_LOG_TRACE, TOPIC))
		log_ops->log(VH_LOG_TRACE, TOPIC, "%s %" PRIu64 "+%" PRIu64 " = %d", op_name(r->op), r->off, r->len, result);
	shim_io->done(r, result);
}

static uint32_t log_submit(void *vq, struct vh_req *const *r, uint32_t n)
{
	struct shim_queue *q = vq;
	struct logger *l = (struct logger *)q->shim;

	for (uint32_t i = 0; i < n; i++) {
		struct scratch *s = r[i]->ctx;

		s->log = l;
		count(l->requests[r[i]->op < N_OPS ? r[i]->op : 0], 1);
		count(l->bytes, r[i]->len);
		shim_lower->submit(q->lower, r[i], log_done);
	}
	return n;
}

static int log_queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **out, struct vh_err *e)
{
	(void)depth;
	return shim_queue_open(vol, hq, sizeof(struct shim_queue), out, e);
}

static const struct vh_volume_ops volume_ops = {
	.size = sizeof(volume_ops),
	.req_ctx = sizeof(struct scratch),
	.info = shim_info,
	.queue_open = log_queue_open,
	.queue_start = shim_queue_start,
	.queue_close = free,
	.submit = log_submit,
	.resize = shim_resize,
	.close = free,
};

static int log_open(const struct vh_filter_open *o, void **vol, const struct vh_volume_ops **ops, struct vh_err *e)
{
	const struct vh_stats_ops *stats = vh_service(vh_host_ptr, VH_SVC_STATS, VH_END(stats, counter));
	struct logger *l;
	int r = shim_services(e);

	if (r)
		return r;
	log_ops = vh_service(vh_host_ptr, VH_SVC_LOG, VH_END(log_ops, log));
	l = calloc(1, sizeof(*l));
	if (!l || !log_ops) {
		free(l);
		return vh_host_ptr->err(e, log_ops ? -ENOMEM : -EOPNOTSUPP, log_ops ? "no memory" : "this host has no log");
	}
	l->shim.lower = o->lower;
	for (unsigned i = 1; stats && i < N_OPS; i++)
		l->requests[i] = stats->counter(o->object, op_names[i]);
	if (stats) {
		l->bytes = stats->counter(o->object, "bytes");
		l->errors = stats->counter(o->object, "errors");
	}
	*vol = l;
	*ops = &volume_ops;
	return 0;
}

static const struct vh_filter_ops log_filter_ops = {.size = sizeof(log_filter_ops), .name = "log", .open = log_open};

VH_PLUGIN_DEFINE("log", VH_KIND_FILTER, VH_IID_FILTER, &log_filter_ops, "1.0", "Tells which requests pass", "BSD-2-Clause", 0);
