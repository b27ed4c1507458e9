/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "io-env.h"
#include "plug/object.h"

static struct check_ctx *the_check; /* completions come without a context */

/* ---- vh.io/1, watched ---- */

static void end_here(struct io_req *r)
{
	struct io_queue *q = r->q;

	r->next = q->ended;
	q->ended = r;
	loop_defer(q->loop, &q->send_task);
}

static void take_result(struct io_req *r, int result)
{
	int was = atomic_exchange(&r->state, IO_ENDED);

	if (was == IO_ENDED || was == IO_IDLE)
		check_fail(the_check, "a request was completed twice (op %u at %llu+%llu)", r->req.op, (unsigned long long)r->req.off,
			   (unsigned long long)r->req.len);
	if (result > 0 || result < -4095)
		check_fail(the_check, "a request was completed with %d: 0 or a negative errno is allowed", result);
	r->result = result;
}

static void done(struct vh_req *vr, int result)
{
	struct io_req *r = (struct io_req *)vr;

	if (!loop_is_current(r->q->loop))
		check_fail(the_check, "done() was called on a thread that does not own the queue: use done_remote()");
	take_result(r, result);
	end_here(r);
}

static void remote_fn(struct vh_task *t)
{
	end_here((struct io_req *)((char *)t - offsetof(struct io_req, task)));
}

static void done_remote(struct vh_req *vr, int result)
{
	struct io_req *r = (struct io_req *)vr;

	take_result(r, result);
	r->task.fn = remote_fn;
	loop_post(r->q->loop, &r->task);
}

static void ready(struct vh_queue *hq)
{
	struct io_queue *q = (struct io_queue *)hq;

	if (!loop_is_current(q->loop))
		check_fail(the_check, "ready() was called on a thread that does not own the queue");
	q->blocked = 0;
	q->ready = 1;
	loop_defer(q->loop, &q->send_task);
}

static const struct vh_io_ops watched_io = {
	.size = sizeof(watched_io), .done = done, .done_remote = done_remote, .ready = ready};

/* ---- requests ---- */

uint64_t io_random(struct io_queue *q, uint64_t bound)
{
	q->random ^= q->random << 13;
	q->random ^= q->random >> 7;
	q->random ^= q->random << 17;
	return bound ? q->random % bound : 0;
}

void io_buffers(struct io_req *r, uint64_t len, unsigned pieces, int fill)
{
	const struct vh_volume_info *i = &r->q->env->info;
	uint64_t unit = i->len_align, align = i->buf_align > 1 ? i->buf_align : 1, at = 0, pos = 0;
	unsigned n = 0, max = i->max_segments && i->max_segments < IO_IOV_MAX ? i->max_segments : IO_IOV_MAX;

	if (pieces > max)
		pieces = max;
	/* Each piece may begin at its own odd address. */
	r->map_len = (len + pieces * (align + 64) + 8191) & ~(size_t)4095;
	r->map = mmap(NULL, r->map_len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (r->map == MAP_FAILED)
		abort(); /* the kit's own */
	while (at < len) {
		uint64_t k = n + 1 >= pieces ? len - at : unit * (1 + io_random(r->q, (len - at) / unit / 2 + 1));

		if (pieces >= len / unit)
			k = unit;
		if (k > len - at)
			k = len - at;
		pos = (pos + io_random(r->q, 64) + align - 1) & ~(align - 1);
		if (pos + k > r->map_len) /* cannot be: room for every lead was counted */
			abort();
		r->iov[n++] = (struct iovec){r->map + pos, k};
		pos += k;
		at += k;
	}
	r->req.iov = r->iov;
	r->req.niov = n;
	for (unsigned p = 0; p < n; p++) {
		uint8_t *b = r->iov[p].iov_base;

		for (size_t k = 0; k < r->iov[p].iov_len; k++)
			b[k] = fill < 0 ? (uint8_t)io_random(r->q, 256) : (uint8_t)fill;
	}
}

void io_submit_req(struct io_req *r)
{
	struct io_queue *q = r->q;

	r->req.size = sizeof(r->req);
	r->cancelled = 0;
	atomic_store(&r->state, IO_OFFERED);
	if (r->req.op != VH_READ && r->req.op != VH_WRITE) {
		r->req.iov = NULL;
		r->req.niov = 0;
	}
	r->next = NULL;
	*q->out_tail = r;
	q->out_tail = &r->next;
	q->inflight++;
	loop_defer(q->loop, &q->send_task);
}

static void send(struct io_queue *q)
{
	struct vh_req *batch[IO_DEPTH];
	uint32_t n = 0, k;

	if (q->blocked)
		return;
	for (struct io_req *r = q->out; r; r = r->next) {
		atomic_store(&r->state, IO_TAKEN); /* it may be completed inside submit, or by a thread before that returns */
		batch[n++] = &r->req;
	}
	q->ready = 0;
	q->submitting = 1;
	k = q->env->ops->submit(q->pq, batch, n);
	q->submitting = 0;
	CHECK(the_check, k <= n, "submit() took %u requests of %u", k, n);
	for (uint32_t i = k; i < n; i++) {
		struct io_req *r = (struct io_req *)batch[i];

		CHECK(the_check, atomic_load(&r->state) == IO_TAKEN, "a request that submit() did not take was completed");
		atomic_store(&r->state, IO_OFFERED);
	}
	/* The list links of ended requests are reused: the rest is relinked from the batch. */
	q->out = NULL;
	q->out_tail = &q->out;
	for (uint32_t i = k; i < n; i++) {
		struct io_req *r = (struct io_req *)batch[i];

		r->next = NULL;
		*q->out_tail = r;
		q->out_tail = &r->next;
	}
	q->blocked = k < n && !q->ready;
}

static void send_fn(struct vh_task *t)
{
	struct io_queue *q = (struct io_queue *)((char *)t - offsetof(struct io_queue, send_task));
	struct io_req *list;

	if (q->out && !q->submitting)
		send(q);
	list = q->ended;
	q->ended = NULL;
	while (list) {
		struct io_req *r = list;

		list = r->next;
		q->inflight--;
		r->ended(r);
		/* From here on a touch of the buffers or of the request's scratch crashes. */
		if (r->map)
			mprotect(r->map, r->map_len, PROT_NONE);
		atomic_store(&r->state, IO_IDLE);
	}
}

struct one {
	struct io_queue *q;
	uint16_t op, flags;
	uint64_t off, len;
	void *buf;
	atomic_int ended;
	int result;
};

static void one_ended(struct io_req *r)
{
	struct one *o = (struct one *)r->want;
	uint8_t *b = o->buf;

	for (uint32_t i = 0; i < r->req.niov && b && r->req.op == VH_READ; b += r->iov[i++].iov_len)
		memcpy(b, r->iov[i].iov_base, r->iov[i].iov_len);
	r->want = NULL;
	o->result = r->result;
	atomic_store(&o->ended, 1);
}

static void one_start(void *ctx)
{
	struct one *o = ctx;
	struct io_req *r = &o->q->req[0];

	if (r->map)
		munmap(r->map, r->map_len);
	r->map = NULL;
	r->req.op = o->op;
	r->req.flags = o->flags;
	r->req.off = o->off;
	r->req.len = o->len;
	r->want = (uint8_t *)o;
	r->ended = one_ended;
	if (o->op == VH_READ || o->op == VH_WRITE) {
		uint8_t *b = o->buf;

		io_buffers(r, o->len, 3, 0x5a);
		for (uint32_t i = 0; i < r->req.niov && b && o->op == VH_WRITE; b += r->iov[i++].iov_len)
			memcpy(r->iov[i].iov_base, b, r->iov[i].iov_len);
	}
	io_submit_req(r);
}

int io_do(struct io_queue *q, uint16_t op, uint16_t flags, uint64_t off, uint64_t len, void *buf)
{
	struct one o = {.q = q, .op = op, .flags = flags, .off = off, .len = len, .buf = buf};

	loop_call(q->loop, one_start, &o);
	while (!atomic_load(&o.ended))
		g_usleep(50);
	while (atomic_load(&q->req[0].state) != IO_IDLE)
		g_usleep(50);
	return o.result;
}

/* ---- queues ---- */

static void start_fn(void *ctx)
{
	struct io_queue *q = ctx;
	int r = q->env->ops->queue_start(q->pq, q->loop);

	CHECK(the_check, !r, "queue_start() failed: %d", r);
}

void io_queue_open(struct io_queue *q, struct io_env *env, unsigned index)
{
	struct vh_err e = {0};
	int r;

	memset(q, 0, sizeof(*q));
	q->env = env;
	q->index = index;
	q->out_tail = &q->out;
	q->send_task.fn = send_fn;
	q->random = check_random(env->c) | 1;
	for (unsigned i = 0; i < IO_DEPTH; i++) {
		q->req[i].q = q;
		q->req[i].iov = g_new0(struct iovec, IO_IOV_MAX);
		/* Exactly as long as it was asked for, before an inaccessible page. */
		q->req[i].req.ctx = env->ops->req_ctx ? check_guarded("", 0, (env->ops->req_ctx + 15) & ~15u) : NULL;
	}
	CHECK(env->c, !loop_new("check", &q->loop, &e), "%s", e.cause);
	r = env->ops->queue_open(env->vol, (struct vh_queue *)q, IO_DEPTH, &q->pq, &e);
	CHECK(env->c, !r, "queue_open() of queue %u failed: %d %s", index, r, e.cause ? e.cause : "");
	CHECK(env->c, !loop_start(q->loop, &e), "%s", e.cause);
	loop_call(q->loop, start_fn, q);
}

static void close_fn(void *ctx)
{
	struct io_queue *q = ctx;

	q->env->ops->queue_close(q->pq);
}

void io_queue_close(struct io_queue *q)
{
	loop_call(q->loop, close_fn, q);
	loop_stop(q->loop);
	loop_free(q->loop);
	for (unsigned i = 0; i < IO_DEPTH; i++) {
		g_free(q->req[i].iov);
		if (q->req[i].map)
			munmap(q->req[i].map, q->req[i].map_len);
	}
}

/* ---- the volume ---- */

void io_info(struct io_env *env, struct vh_volume_info *i)
{
	/* With an inaccessible page behind it. */
	struct vh_volume_info *g = check_guarded(&(struct vh_volume_info){.size = sizeof(*i), .fd = -1}, sizeof(*i), 0);
	int r = env->ops->info(env->vol, g);

	CHECK(env->c, !r, "info() failed: %d", r);
	CHECK(env->c, g->size == sizeof(*g), "info() changed the size that the host had preset");
	*i = *g;
}

int io_attach(struct io_env *env, uint32_t mode, void **vol, const struct vh_volume_ops **ops, struct vh_err *e)
{
	struct vh_attach a = {.size = sizeof(a), .mode = mode, .name = env->name, .object = env->object, .holder = "check"};
	int r = env->pops->attach(env->pool, &a, vol, ops, e);

	if (!r) {
		CHECK(env->c, *ops && *vol, "attach() gave no volume");
		*ops = plug_volume_ops(*ops);
		CHECK(env->c, *ops, "the volume's table lacks info or close");
	}
	return r;
}

void io_open(struct io_env *env, struct check_ctx *c, uint32_t mode)
{
	const char *name = kvs_get(c->set, "check.volume"), *data = kvs_get(c->set, "check.data");
	struct vh_err e = {0};
	int r;

	memset(env, 0, sizeof(*env));
	the_check = c;
	check_io = &watched_io;
	env->c = c;
	env->keeps = !data || strcmp(data, "off");
	env->object = plug_object_new();
	g_strlcpy(env->name, name ? name : "check-io", sizeof(env->name));
	env->pool = check_pool_open(c, &env->pops);
	if (env->pops->create && !name) {
		struct vh_vol_spec s = {.size = sizeof(s), .name = env->name, .bytes = 8u << 20};

		s.opts = check_opts(c, env->pops->vol_create_options, "create.");
		r = env->pops->create(env->pool, &s, NULL, &e);
		CHECK(c, !r, "create() failed: %d %s", r, e.cause ? e.cause : "");
	}
	r = io_attach(env, mode, &env->vol, &env->ops, &e);
	if (r == -ENOENT && !name)
		check_skip(c, "there is no volume to check with: name one that may be overwritten with --set check.volume=NAME");
	CHECK(c, !r, "attach() failed: %d %s", r, e.cause ? e.cause : "");
	io_info(env, &env->info);
	if (!env->info.logical_block)
		env->info.logical_block = 512;
	if (!env->info.buf_align)
		env->info.buf_align = env->info.logical_block;
	if (!env->info.len_align)
		env->info.len_align = env->info.logical_block;
	env->region = env->info.bytes < IO_REGION ? env->info.bytes : IO_REGION;
	env->region -= env->region % IO_STRIPE;
	CHECK(c, env->region, "the volume is too small to check: %llu bytes", (unsigned long long)env->info.bytes);
}

void io_close(struct io_env *env)
{
	env->ops->close(env->vol);
	env->pops->close(env->pool);
	plug_object_free(env->object);
}

void io_need_submit(struct io_env *env)
{
	if (env->info.fd >= 0)
		check_skip(env->c, "the volume gives an fd: the host moves the data");
}
