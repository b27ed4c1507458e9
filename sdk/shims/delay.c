/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * A filter that makes requests slow: each one waits before it is handed down, for a fixed time and a random one on top.
 *
 *	--disk default/web,filter=delay,filter.time=20ms,filter.jitter=5ms
 */
#include "shim.h"

static const char *const ops_choices[] = {"all", "read", "write", "flush", "discard", "zero", NULL};

static const struct vh_opt opt_ops = {.size = sizeof(struct vh_opt), .type = VH_OPT_ENUM, .name = "ops", .defval = "all",
	.choices = ops_choices, .doc = "Which requests are slow"};
static const struct vh_opt opt_time = {.size = sizeof(struct vh_opt), .type = VH_OPT_DURATION, .name = "time",
	.defval = "10ms", .max = INT64_C(3600000000000), .doc = "How long each one waits"};
static const struct vh_opt opt_jitter = {.size = sizeof(struct vh_opt), .type = VH_OPT_DURATION, .name = "jitter",
	.defval = "0ms", .max = INT64_C(3600000000000), .doc = "Up to this much more, at random"};
static const struct vh_opt *const options[] = {&opt_ops, &opt_time, &opt_jitter, NULL};

static const struct vh_loop_ops *loop_ops;

struct delay {
	struct shim shim;
	uint32_t ops;
	uint64_t time, jitter;
};

/* A waiting request, in its scratch; the list is in order of `at`. */
struct waiting {
	struct vh_req *r;
	struct waiting *next;
	uint64_t at;
};

struct delay_queue {
	struct shim_queue q;
	struct vh_timer *timer;
	struct waiting *first;
	uint64_t random;
};

static void due(void *ctx)
{
	struct delay_queue *q = ctx;
	uint64_t now = loop_ops->now(q->q.loop);

	while (q->first && q->first->at <= now) {
		struct waiting *w = q->first;

		q->first = w->next;
		shim_pass(&q->q, w->r); /* w may be gone */
	}
	loop_ops->timer_at(q->timer, q->first ? q->first->at : 0);
}

static void wait_for(struct delay_queue *q, struct delay *d, struct vh_req *r)
{
	struct waiting *w = r->ctx, **at = &q->first;

	q->random ^= q->random << 13;
	q->random ^= q->random >> 7;
	q->random ^= q->random << 17;
	w->r = r;
	w->at = loop_ops->now(q->q.loop) + d->time + (d->jitter ? q->random % d->jitter : 0);
	while (*at && (*at)->at <= w->at)
		at = &(*at)->next;
	w->next = *at;
	*at = w;
	if (q->first == w)
		loop_ops->timer_at(q->timer, w->at);
}

static uint32_t delay_submit(void *vq, struct vh_req *const *r, uint32_t n)
{
	struct delay_queue *q = vq;
	struct delay *d = (struct delay *)q->q.shim;

	for (uint32_t i = 0; i < n; i++) {
		if (!d->ops || d->ops == r[i]->op)
			wait_for(q, d, r[i]);
		else
			shim_pass(&q->q, r[i]);
	}
	return n;
}

/* What waits can be let go at once. */
static void delay_cancel(void *vq, struct vh_req *r)
{
	struct delay_queue *q = vq;

	for (struct waiting **at = &q->first; *at; at = &(*at)->next) {
		if ((*at)->r != r)
			continue;
		*at = (*at)->next;
		shim_io->done(r, -ECANCELED);
		return;
	}
}

static int delay_queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **out, struct vh_err *e)
{
	int r = shim_queue_open(vol, hq, sizeof(struct delay_queue), out, e);

	(void)depth;
	if (!r)
		((struct delay_queue *)*out)->random = 1;
	return r;
}

static int delay_queue_start(void *vq, struct vh_loop *l)
{
	struct delay_queue *q = vq;

	q->q.loop = l;
	return loop_ops->timer(l, due, q, &q->timer);
}

static void delay_queue_close(void *vq)
{
	struct delay_queue *q = vq;

	if (q->timer)
		loop_ops->timer_free(q->timer);
	free(q);
}

static const struct vh_volume_ops volume_ops = {
	.size = sizeof(volume_ops),
	.req_ctx = sizeof(struct waiting),
	.info = shim_info,
	.queue_open = delay_queue_open,
	.queue_start = delay_queue_start,
	.queue_close = delay_queue_close,
	.submit = delay_submit,
	.cancel = delay_cancel,
	.resize = shim_resize,
	.close = free,
};

static int delay_open(const struct vh_filter_open *o, void **vol, const struct vh_volume_ops **ops, struct vh_err *e)
{
	struct delay *d;
	int r = shim_services(e);

	if (r)
		return r;
	loop_ops = vh_service(vh_host_ptr, VH_SVC_LOOP, VH_END(loop_ops, now));
	d = calloc(1, sizeof(*d));
	if (!d || !loop_ops) {
		free(d);
		return vh_host_ptr->err(e, loop_ops ? -ENOMEM : -EOPNOTSUPP, loop_ops ? "no memory" : "this host has no loops");
	}
	d->shim.lower = o->lower;
	d->ops = (uint32_t)vh_opt_num(o->opts, "ops", 0); /* the choices are in the order of VH_READ ... */
	d->time = (uint64_t)vh_opt_num(o->opts, "time", 10000000);
	d->jitter = (uint64_t)vh_opt_num(o->opts, "jitter", 0);
	*vol = d;
	*ops = &volume_ops;
	return 0;
}

static const struct vh_filter_ops delay_ops = {
	.size = sizeof(delay_ops), .name = "delay", .options = options, .open = delay_open};

VH_PLUGIN_DEFINE("delay", VH_KIND_FILTER, VH_IID_FILTER, &delay_ops, "1.0", "Makes requests slow on purpose", "BSD-2-Clause",
		 0);
