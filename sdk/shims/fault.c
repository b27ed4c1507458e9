/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * A filter that fails requests: some of them at random, every Nth one, or all of a kind.
 *
 *	--disk default/web,filter=fault,filter.ops=write,filter.permille=5,filter.error=EIO
 */
#include "shim.h"

static const char *const ops_choices[] = {"all", "read", "write", "flush", "discard", "zero", NULL};
static const char *const error_choices[] = {"EIO", "ENOSPC", "ETIMEDOUT", NULL};
static const int errors[] = {EIO, ENOSPC, ETIMEDOUT};

static const struct vh_opt opt_ops = {.size = sizeof(struct vh_opt), .type = VH_OPT_ENUM, .name = "ops", .defval = "all",
	.choices = ops_choices, .doc = "Which requests may fail"};
static const struct vh_opt opt_error = {.size = sizeof(struct vh_opt), .type = VH_OPT_ENUM, .name = "error", .defval = "EIO",
	.choices = error_choices, .doc = "The error that they fail with"};
static const struct vh_opt opt_permille = {.size = sizeof(struct vh_opt), .type = VH_OPT_INT, .name = "permille",
	.defval = "0", .max = 1000, .doc = "How many of a thousand fail, at random"};
static const struct vh_opt opt_every = {.size = sizeof(struct vh_opt), .type = VH_OPT_INT, .name = "every", .defval = "0",
	.max = INT64_C(1) << 40, .doc = "Every Nth one fails, 0: none"};
static const struct vh_opt opt_after = {.size = sizeof(struct vh_opt), .type = VH_OPT_INT, .name = "after", .defval = "0",
	.max = INT64_C(1) << 40, .doc = "How many pass before the first one fails"};
static const struct vh_opt opt_count = {.size = sizeof(struct vh_opt), .type = VH_OPT_INT, .name = "count", .defval = "0",
	.max = INT64_C(1) << 40, .doc = "How many fail at most, 0: no end"};
static const struct vh_opt opt_done = {.size = sizeof(struct vh_opt), .type = VH_OPT_BOOL, .name = "done", .defval = "off",
	.doc = "Whether a failing request is carried out all the same, as one whose answer was lost"};
static const struct vh_opt opt_seed = {.size = sizeof(struct vh_opt), .type = VH_OPT_INT, .name = "seed", .defval = "1",
	.min = 1, .max = INT64_MAX, .doc = "Seed of the random choice"};
static const struct vh_opt *const options[] = {&opt_ops, &opt_error, &opt_permille, &opt_every, &opt_after, &opt_count,
					       &opt_done, &opt_seed, NULL};

struct fault {
	struct shim shim;
	uint32_t ops, permille;
	int error, carry_out;
	uint64_t every, after, count;
	_Atomic uint64_t seen, failed;
	uint64_t seed;
};

struct fault_queue {
	struct shim_queue q;
	uint64_t random; /* xorshift */
};

static int fails(struct fault_queue *q, const struct vh_req *r)
{
	struct fault *f = (struct fault *)q->q.shim;
	uint64_t n;
	int hit;

	if (f->ops && f->ops != r->op)
		return 0;
	n = atomic_fetch_add_explicit(&f->seen, 1, memory_order_relaxed);
	if (n < f->after)
		return 0;
	q->random ^= q->random << 13;
	q->random ^= q->random >> 7;
	q->random ^= q->random << 17;
	hit = (f->every && (n - f->after) % f->every == f->every - 1) || q->random % 1000 < f->permille;
	if (!hit)
		return 0;
	return !f->count || atomic_fetch_add_explicit(&f->failed, 1, memory_order_relaxed) < f->count;
}

/* A request that was carried out, and whose answer is lost. */
static void fault_done(struct vh_req *r, int result)
{
	struct fault *const *f = r->ctx;

	(void)result;
	shim_io->done(r, -(*f)->error);
}

static uint32_t fault_submit(void *vq, struct vh_req *const *r, uint32_t n)
{
	struct fault_queue *q = vq;
	struct fault *f = (struct fault *)q->q.shim;

	for (uint32_t i = 0; i < n; i++) {
		if (!fails(q, r[i])) {
			shim_pass(&q->q, r[i]);
		} else if (f->carry_out) {
			*(struct fault **)r[i]->ctx = f;
			shim_lower->submit(q->q.lower, r[i], fault_done);
		} else {
			shim_io->done(r[i], -f->error);
		}
	}
	return n;
}

static int fault_queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **out, struct vh_err *e)
{
	int r = shim_queue_open(vol, hq, sizeof(struct fault_queue), out, e);

	(void)depth;
	if (!r)
		((struct fault_queue *)*out)->random = ((struct fault *)vol)->seed;
	return r;
}

static const struct vh_volume_ops volume_ops = {
	.size = sizeof(volume_ops),
	.req_ctx = sizeof(struct fault *),
	.info = shim_info,
	.queue_open = fault_queue_open,
	.queue_start = shim_queue_start,
	.queue_close = free,
	.submit = fault_submit,
	.resize = shim_resize,
	.close = free,
};

static int fault_open(const struct vh_filter_open *o, void **vol, const struct vh_volume_ops **ops, struct vh_err *e)
{
	struct fault *f;
	int r = shim_services(e);

	if (r)
		return r;
	f = calloc(1, sizeof(*f));
	if (!f)
		return vh_host_ptr->err(e, -ENOMEM, "no memory");
	f->shim.lower = o->lower;
	f->ops = (uint32_t)vh_opt_num(o->opts, "ops", 0); /* the choices are in the order of VH_READ ... */
	f->error = errors[vh_opt_num(o->opts, "error", 0)];
	f->permille = (uint32_t)vh_opt_num(o->opts, "permille", 0);
	f->every = (uint64_t)vh_opt_num(o->opts, "every", 0);
	f->after = (uint64_t)vh_opt_num(o->opts, "after", 0);
	f->count = (uint64_t)vh_opt_num(o->opts, "count", 0);
	f->carry_out = vh_opt_num(o->opts, "done", 0) != 0;
	f->seed = (uint64_t)vh_opt_num(o->opts, "seed", 1);
	*vol = f;
	*ops = &volume_ops;
	return 0;
}

static const struct vh_filter_ops fault_ops = {
	.size = sizeof(fault_ops), .name = "fault", .options = options, .open = fault_open};

VH_PLUGIN_DEFINE("fault", VH_KIND_FILTER, VH_IID_FILTER, &fault_ops, "1.0", "Fails requests on purpose", "BSD-2-Clause", 0);
