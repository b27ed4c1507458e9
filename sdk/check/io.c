/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* Group IO: volumes keep what the data-path contract promises (docs/design/io.md). */
#include <errno.h>
#include <fcntl.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "io-env.h"

/* ---- what the volume says ---- */

static int pow2(uint64_t n)
{
	return n && !(n & (n - 1));
}

static void info_sane(struct check_ctx *c)
{
	struct io_env env;
	struct vh_volume_info a, b;
	struct { struct vh_volume_info i; } small;

	io_open(&env, c, VH_ATTACH_RW_EXCL);
	io_info(&env, &a);
	io_info(&env, &b);
	CHECK(c, !memcmp(&a, &b, sizeof(a)), "two calls of info() differ");
	CHECK(c, !a.logical_block || pow2(a.logical_block), "logical_block %u is no power of two", a.logical_block);
	CHECK(c, !a.physical_block || pow2(a.physical_block), "physical_block %u is no power of two", a.physical_block);
	CHECK(c, !a.buf_align || pow2(a.buf_align), "buf_align %u is no power of two", a.buf_align);
	CHECK(c, !a.len_align || pow2(a.len_align), "len_align %u is no power of two", a.len_align);
	CHECK(c, a.bytes <= INT64_MAX, "the size is impossible");
	CHECK(c, !a.max_bytes || a.max_bytes >= env.info.len_align, "max_bytes is less than len_align");
	CHECK(c, memchr(a.serial, 0, sizeof(a.serial)) && memchr(a.wwid, 0, sizeof(a.wwid)), "serial or wwid has no NUL");
	CHECK(c, !(a.caps & VH_VOL_FAST_ZERO) || a.caps & VH_VOL_ZERO, "FAST_ZERO without ZERO");
	CHECK(c, !(a.caps & VH_VOL_GROW) || env.ops->resize, "GROW without resize()");
	CHECK(c, a.caps & VH_VOL_FLUSH || !(a.caps & VH_VOL_WRITE_CACHE), "WRITE_CACHE without FLUSH");
	CHECK(c, a.fd >= 0 || (env.ops->queue_open && env.ops->queue_start && env.ops->queue_close && env.ops->submit),
	      "neither an fd nor a complete submit tier");
	CHECK(c, a.fd < 0 || !(a.fd_base % env.info.len_align), "fd_base is misaligned");
	/* An older host's struct: nothing behind it is written. */
	small.i = (struct vh_volume_info){.size = 24};
	memset((char *)&small.i + 24, 0x77, sizeof(small.i) - 24);
	CHECK(c, !env.ops->info(env.vol, &small.i), "info() refuses a host that knows less");
	for (size_t k = 24; k < sizeof(small.i); k++)
		CHECK(c, ((uint8_t *)&small.i)[k] == 0x77, "info() wrote past the size that the host gave");
	io_close(&env);
}

static int open_fds(uint8_t *set, unsigned n, int *not_cloexec)
{
	int count = 0;

	for (unsigned fd = 0; fd < n; fd++) {
		int fl = fcntl((int)fd, F_GETFD);

		set[fd] = fl >= 0;
		count += fl >= 0;
		if (fl >= 0 && fd > 2 && !(fl & FD_CLOEXEC))
			*not_cloexec = (int)fd;
	}
	return count;
}

#define N_FDS 512

static void fds_cloexec(struct check_ctx *c)
{
	uint8_t before[N_FDS], during[N_FDS], after[N_FDS];
	int bad = -1, inherited = -1;
	struct io_env env;
	struct io_queue q;

	check_load(c, VH_KIND_POOL);
	open_fds(before, N_FDS, &inherited);
	io_open(&env, c, VH_ATTACH_RW_EXCL);
	if (env.info.fd < 0)
		io_queue_open(&q, &env, 0);
	open_fds(during, N_FDS, &bad);
	CHECK(c, bad < 0 || bad == inherited, "fd %d was opened without CLOEXEC", bad);
	if (env.info.fd < 0)
		io_queue_close(&q);
	io_close(&env);
	open_fds(after, N_FDS, &bad);
	for (unsigned fd = 3; fd < N_FDS; fd++)
		CHECK(c, before[fd] || !after[fd], "fd %u is still open after close()", fd);
}

/* ---- the fd tier ---- */

static void fd_tier(struct check_ctx *c)
{
	struct io_env env;
	struct stat st;
	int fl;

	io_open(&env, c, VH_ATTACH_RW_EXCL);
	if (env.info.fd < 0)
		check_skip(c, "the volume gives no fd");
	fl = fcntl(env.info.fd, F_GETFL);
	CHECK(c, fl >= 0 && !fstat(env.info.fd, &st), "the fd is not open");
	CHECK(c, (fl & O_ACCMODE) == O_RDWR, "the fd of a volume attached for writing is not open for reading and writing");
	CHECK(c, !!(fl & O_DIRECT) == !!(env.info.caps & VH_VOL_FD_DIRECT), "FD_DIRECT and the fd's O_DIRECT disagree");
	CHECK(c, !(fl & O_APPEND), "the fd is open with O_APPEND");
	CHECK(c, S_ISBLK(st.st_mode) == !!(env.info.caps & VH_VOL_FD_BLOCK), "FD_BLOCK and the fd's type disagree");
	CHECK(c, S_ISBLK(st.st_mode) || S_ISREG(st.st_mode), "the fd is neither a file nor a block device");
	CHECK(c, S_ISBLK(st.st_mode) || (uint64_t)st.st_size >= env.info.fd_base + env.info.bytes, "the file is smaller than the volume");
	io_close(&env);
}

static void fd_oracle(struct check_ctx *c)
{
	struct io_env env;
	uint64_t unit, base;
	uint8_t *oracle, *buf, *m;

	io_open(&env, c, VH_ATTACH_RW_EXCL);
	if (env.info.fd < 0)
		check_skip(c, "the volume gives no fd");
	unit = env.info.caps & VH_VOL_FD_DIRECT ? env.info.len_align : 1;
	base = env.info.fd_base;
	oracle = g_malloc0(env.region);
	m = mmap(NULL, 2 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (uint64_t at = 0; at < env.region; at += 1 << 20) {
		uint64_t n = MIN(env.region - at, 1 << 20);

		CHECK(c, pread(env.info.fd, m, n, (off_t)(base + at)) == (ssize_t)n, "cannot read the volume: %s", g_strerror(errno));
		memcpy(oracle + at, m, n);
	}
	for (int i = 0; i < 400; i++) {
		uint64_t len = (1 + check_below(c, IO_STRIPE / unit)) * unit, off = check_below(c, (env.region - len) / unit + 1) * unit;

		/* The least alignment that the volume claims, no better. */
		buf = m + env.info.buf_align * (check_below(c, 2) ? 1 : 3) % 4096;
		if (check_below(c, 2)) {
			for (uint64_t k = 0; k < len; k++)
				oracle[off + k] = buf[k] = (uint8_t)check_random(c);
			CHECK(c, pwrite(env.info.fd, buf, len, (off_t)(base + off)) == (ssize_t)len,
			      "an aligned write of %" G_GUINT64_FORMAT " bytes at %" G_GUINT64_FORMAT " failed: %s", len, off,
			      g_strerror(errno));
		} else {
			CHECK(c, pread(env.info.fd, buf, len, (off_t)(base + off)) == (ssize_t)len, "an aligned read failed: %s",
			      g_strerror(errno));
			CHECK(c, !memcmp(buf, oracle + off, len), "a read at %" G_GUINT64_FORMAT " differs from what was written", off);
		}
	}
	munmap(m, 2 << 20);
	g_free(oracle);
	io_close(&env);
}

/* ---- random requests of several queues against an oracle ---- */

static void random_fill(struct io_queue *q);

static int overlaps(struct io_queue *q, uint64_t off, uint64_t len)
{
	for (unsigned i = 0; i < IO_DEPTH; i++) {
		struct io_req *r = &q->req[i];

		if (atomic_load(&r->state) != IO_IDLE && r->req.off < off + len && off < r->req.off + r->req.len)
			return 1;
	}
	return 0;
}

static void random_ended(struct io_req *r)
{
	struct io_queue *q = r->q;
	uint64_t at = r->req.off;

	if (r->cancelled && r->result == -ECANCELED) {
		if (r->req.op != VH_READ && r->req.op != VH_FLUSH) /* done or not */
			memset(q->known + r->req.off, 0, r->req.len);
		goto out;
	}
	CHECK(q->env->c, !r->result, "a request failed with %d (op %u at %llu+%llu)", r->result, r->req.op,
	      (unsigned long long)r->req.off, (unsigned long long)r->req.len);
	for (uint32_t p = 0; r->req.op == VH_READ && p < r->req.niov; p++)
		for (size_t k = 0; k < r->iov[p].iov_len; k++, at++)
			CHECK(q->env->c, !q->known[at] || ((uint8_t *)r->iov[p].iov_base)[k] == r->want[at - r->req.off],
			      "byte %llu reads as %02x, %02x was written", (unsigned long long)at,
			      ((uint8_t *)r->iov[p].iov_base)[k], r->want[at - r->req.off]);
out:
	g_free(r->want);
	r->want = NULL;
	loop_defer(q->loop, &q->fill_task);
}

static void random_one(struct io_queue *q, struct io_req *r)
{
	const struct vh_volume_info *i = &q->env->info;
	uint64_t stripes = q->env->region / IO_STRIPE / q->queues, unit = i->len_align, off, len, what = io_random(q, 100), at;
	uint64_t limit = i->max_bytes && i->max_bytes < IO_STRIPE ? i->max_bytes : IO_STRIPE;

	off = (io_random(q, stripes) * q->queues + q->index) * IO_STRIPE;
	at = io_random(q, IO_STRIPE / unit) * unit;
	len = (1 + io_random(q, (IO_STRIPE - at) / unit)) * unit;
	off += at;
	if (len > limit)
		len = limit / unit * unit;
	if (overlaps(q, off, len))
		return;
	if (r->map)
		munmap(r->map, r->map_len);
	r->map = NULL;
	r->req = (struct vh_req){.ctx = r->req.ctx, .off = off, .len = len, .op = VH_READ};
	r->ended = random_ended;
	if (what >= 45 && what < 90)
		r->req.op = VH_WRITE;
	else if (what >= 90 && what < 94 && i->caps & VH_VOL_ZERO)
		r->req.op = VH_ZERO;
	else if (what >= 94 && what < 97 && i->caps & VH_VOL_DISCARD)
		r->req.op = VH_DISCARD;
	else if (what >= 97 && i->caps & VH_VOL_FLUSH)
		r->req.op = VH_FLUSH;
	if (r->req.op == VH_ZERO && i->max_zero && len > i->max_zero)
		r->req.len = len = i->max_zero / unit * unit;
	if (r->req.op == VH_DISCARD) {
		uint64_t gran = i->discard_gran ? i->discard_gran : unit;

		off = (off + gran - 1) / gran * gran + i->discard_align % gran;
		len = len / gran * gran;
		if (i->max_discard && len > i->max_discard)
			len = i->max_discard / gran * gran;
		if (!len || off + len > (r->req.off / IO_STRIPE + 1) * IO_STRIPE || overlaps(q, off, len))
			return;
		r->req.off = off;
		r->req.len = len;
	}
	if (r->req.op == VH_FLUSH)
		r->req.off = r->req.len = 0;
	if ((r->req.op == VH_WRITE || r->req.op == VH_ZERO) && i->caps & VH_VOL_FUA && !io_random(q, 8))
		r->req.flags |= VH_REQ_FUA;
	if (r->req.op == VH_ZERO && io_random(q, 2))
		r->req.flags |= VH_REQ_MAY_UNMAP;
	if (r->req.op == VH_READ || r->req.op == VH_WRITE)
		io_buffers(r, len, q->odd ? 1 + (unsigned)io_random(q, IO_IOV_MAX) : 1 + (unsigned)io_random(q, 4), -1);
	switch (r->req.op) {
	case VH_READ:
		r->want = g_malloc(len);
		memcpy(r->want, q->oracle + off, len);
		break;
	case VH_WRITE:
		at = off;
		for (uint32_t p = 0; p < r->req.niov; at += r->iov[p++].iov_len)
			memcpy(q->oracle + at, r->iov[p].iov_base, r->iov[p].iov_len);
		memset(q->known + off, q->env->keeps, len);
		break;
	case VH_ZERO:
		memset(q->oracle + off, 0, len);
		memset(q->known + off, q->env->keeps, len);
		break;
	case VH_DISCARD:
		memset(q->oracle + off, 0, len);
		memset(q->known + off, q->env->keeps && i->caps & VH_VOL_DISCARD_ZEROES, len);
	}
	q->left--;
	io_submit_req(r);
}

static void random_fill(struct io_queue *q)
{
	for (unsigned i = 0; i < IO_DEPTH && q->left; i++) {
		struct io_req *r = &q->req[i];

		if (atomic_load(&r->state) == IO_IDLE)
			random_one(q, r);
		else if (q->cancel && atomic_load(&r->state) == IO_TAKEN && !r->cancelled && !io_random(q, 4)) {
			r->cancelled = 1;
			q->env->ops->cancel(q->pq, &r->req);
		}
	}
	if (!q->left && !q->inflight)
		atomic_store(&q->finished, 1);
	else if (!q->inflight || q->cancel)
		loop_post(q->loop, &q->fill_task);
}

static void fill_fn(struct vh_task *t)
{
	random_fill((struct io_queue *)((char *)t - offsetof(struct io_queue, fill_task)));
}

static unsigned queue_count(struct io_env *env, unsigned wanted)
{
	return env->info.max_queues && env->info.max_queues < wanted ? env->info.max_queues : wanted;
}

static void random_run(struct io_env *env, unsigned queues, unsigned ops, int odd, int cancel)
{
	struct io_queue *q = g_new0(struct io_queue, queues);
	uint8_t *oracle = g_malloc0(env->region), *known = g_malloc0(env->region);

	for (unsigned i = 0; i < queues; i++) {
		io_queue_open(&q[i], env, i);
		q[i].left = ops;
		q[i].oracle = oracle;
		q[i].known = known;
		q[i].queues = queues;
		q[i].odd = odd;
		q[i].cancel = cancel;
		q[i].fill_task.fn = fill_fn;
	}
	for (unsigned i = 0; i < queues; i++)
		loop_post(q[i].loop, &q[i].fill_task);
	for (unsigned i = 0; i < queues; i++)
		while (!atomic_load(&q[i].finished))
			g_usleep(200);
	for (unsigned i = 0; i < queues; i++)
		io_queue_close(&q[i]);
	g_free(oracle);
	g_free(known);
	g_free(q);
}

static void random_one_queue(struct check_ctx *c)
{
	struct io_env env;

	io_open(&env, c, VH_ATTACH_RW_EXCL);
	io_need_submit(&env);
	random_run(&env, 1, 1500, 0, 0);
	io_close(&env);
}

static void random_queues(struct check_ctx *c)
{
	struct io_env env;

	io_open(&env, c, VH_ATTACH_RW_EXCL);
	io_need_submit(&env);
	if (queue_count(&env, 8) < 2)
		check_skip(c, "the volume has one queue");
	random_run(&env, queue_count(&env, 8), 500, 0, 0);
	random_run(&env, queue_count(&env, 3), 500, 0, 0);
	io_close(&env);
}

static void random_pieces(struct check_ctx *c)
{
	struct io_env env;

	io_open(&env, c, VH_ATTACH_RW_EXCL);
	io_need_submit(&env);
	random_run(&env, queue_count(&env, 2), 300, 1, 0);
	io_close(&env);
}

static void random_cancel(struct check_ctx *c)
{
	struct io_env env;

	io_open(&env, c, VH_ATTACH_RW_EXCL);
	io_need_submit(&env);
	if (!env.ops->cancel)
		check_skip(c, "there is no cancel()");
	random_run(&env, queue_count(&env, 2), 500, 0, 1);
	io_close(&env);
}

/* ---- one thing at a time ---- */

/* A request that cannot be done is accepted and completed with an error. */
static void unknown_op(struct check_ctx *c)
{
	struct io_env env;
	struct io_queue q;
	int r;

	io_open(&env, c, VH_ATTACH_RW_EXCL);
	io_need_submit(&env);
	io_queue_open(&q, &env, 0);
	r = io_do(&q, 999, 0, 0, env.info.len_align, NULL);
	CHECK(c, r < 0, "an unknown operation was completed with %d", r);
	r = io_do(&q, VH_READ, 0, 0, env.info.len_align, NULL);
	CHECK(c, !r, "a read after it failed with %d", r);
	io_queue_close(&q);
	io_close(&env);
}

/* The guest changes its buffers while they are being written: nothing else suffers. */
struct scribbler {
	uint8_t *volatile p;
	size_t len;
	atomic_int stop;
};

/* The race is the check's purpose: ThreadSanitizer shall not see it. */
__attribute__((no_sanitize("thread"))) static void *scribble(void *arg)
{
	struct scribbler *s = arg;
	unsigned seed = 1;

	while (!atomic_load(&s->stop))
		s->p[(unsigned)rand_r(&seed) % s->len] = (uint8_t)seed;
	return NULL;
}

struct scribbled {
	struct io_queue *q;
	struct scribbler *s;
	uint64_t off, len;
	atomic_int ended;
	int result;
};

static void scribbled_ended(struct io_req *r)
{
	struct scribbled *x = (struct scribbled *)r->want;

	r->want = NULL;
	r->map = NULL; /* the scribbler's */
	x->result = r->result;
	atomic_store(&x->ended, 1);
}

static void scribbled_start(void *ctx)
{
	struct scribbled *x = ctx;
	struct io_req *r = &x->q->req[0];

	r->iov[0] = (struct iovec){x->s->p, x->len};
	r->map = NULL;
	r->req = (struct vh_req){.ctx = r->req.ctx, .op = VH_WRITE, .off = x->off, .len = x->len, .iov = r->iov, .niov = 1};
	r->want = (uint8_t *)x;
	r->ended = scribbled_ended;
	io_submit_req(r);
}

static void scribbling_guest(struct check_ctx *c)
{
	struct scribbler s = {.len = 16384};
	struct scribbled x;
	struct io_env env;
	struct io_queue q;
	uint8_t *b;
	pthread_t t;
	int r;

	io_open(&env, c, VH_ATTACH_RW_EXCL);
	io_need_submit(&env);
	if (env.info.max_bytes && env.info.max_bytes < s.len)
		s.len = env.info.max_bytes / env.info.len_align * env.info.len_align;
	io_queue_open(&q, &env, 0);
	b = g_malloc0(s.len);
	s.p = mmap(NULL, s.len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	memset(b, 0x21, s.len);
	r = io_do(&q, VH_WRITE, 0, 0, s.len, b);
	r = r ? r : io_do(&q, VH_WRITE, 0, 2 * s.len, s.len, b);
	CHECK(c, !r, "a write failed with %d", r);
	pthread_create(&t, NULL, scribble, &s);
	for (int i = 0; i < 200; i++) {
		x = (struct scribbled){.q = &q, .s = &s, .off = s.len, .len = s.len};
		loop_call(q.loop, scribbled_start, &x);
		while (!atomic_load(&x.ended) || atomic_load(&q.req[0].state) != IO_IDLE)
			g_usleep(20);
		CHECK(c, !x.result, "a write whose buffer changed meanwhile failed with %d", x.result);
	}
	atomic_store(&s.stop, 1);
	pthread_join(t, NULL);
	for (int i = 0; i <= 2; i += 2) {
		r = io_do(&q, VH_READ, 0, (uint64_t)i * s.len, s.len, b);
		CHECK(c, !r, "a read failed with %d", r);
		for (size_t k = 0; env.keeps && k < s.len; k++)
			CHECK(c, b[k] == 0x21, "a neighbour of the written range changed");
	}
	io_queue_close(&q);
	io_close(&env);
}

/* A flush covers the writes of every queue, and what was flushed outlives close and attach. */
static void flush_persists(struct check_ctx *c)
{
	struct io_env env;
	struct io_queue q[2];
	struct vh_err e = {0};
	unsigned n;
	uint8_t *b;
	int r;

	io_open(&env, c, VH_ATTACH_RW_EXCL);
	io_need_submit(&env);
	if (!(env.info.caps & VH_VOL_FLUSH))
		check_skip(c, "the volume has no flush");
	n = queue_count(&env, 2);
	b = g_malloc(env.info.len_align);
	for (unsigned i = 0; i < n; i++)
		io_queue_open(&q[i], &env, i);
	memset(b, 0x42, env.info.len_align);
	r = io_do(&q[0], VH_WRITE, 0, 0, env.info.len_align, b);
	CHECK(c, !r, "a write failed with %d", r);
	r = io_do(&q[n - 1], VH_FLUSH, 0, 0, 0, NULL);
	CHECK(c, !r, "a flush failed with %d", r);
	for (unsigned i = 0; i < n; i++)
		io_queue_close(&q[i]);
	env.ops->close(env.vol);
	r = io_attach(&env, VH_ATTACH_RO, &env.vol, &env.ops, &e);
	CHECK(c, !r, "the volume cannot be attached again: %d %s", r, e.cause ? e.cause : "");
	io_queue_open(&q[0], &env, 0);
	r = io_do(&q[0], VH_READ, 0, 0, env.info.len_align, b);
	CHECK(c, !r, "a read failed with %d", r);
	CHECK(c, !env.keeps || (b[0] == 0x42 && b[env.info.len_align - 1] == 0x42), "what was flushed is gone");
	io_queue_close(&q[0]);
	io_close(&env);
}

/* Sole use: a second attach for writing is refused and says so; readers may share. */
static void attach_modes(struct check_ctx *c)
{
	const struct vh_volume_ops *ops;
	struct vh_volume_info i;
	struct vh_err e = {0};
	struct io_env env;
	void *other;
	int r;

	io_open(&env, c, VH_ATTACH_RW_EXCL);
	CHECK(c, !(env.info.caps & VH_VOL_READ_ONLY), "attached for writing, the volume says that it is read-only");
	if (env.pops->caps & VH_POOL_LEASE) {
		r = io_attach(&env, VH_ATTACH_RW_EXCL, &other, &ops, &e);
		CHECK(c, r == -EBUSY, "a second attach for sole use gave %d, not -EBUSY", r);
		CHECK(c, e.cause, "-EBUSY came without a text that names the holder");
		r = io_attach(&env, VH_ATTACH_RO, &other, &ops, NULL);
		CHECK(c, r == -EBUSY, "an attach for reading beside a sole writer gave %d, not -EBUSY", r);
	}
	env.ops->close(env.vol);
	r = io_attach(&env, VH_ATTACH_RO, &env.vol, &env.ops, &e);
	CHECK(c, !r, "attach(RO) failed with %d", r);
	io_info(&env, &i);
	CHECK(c, i.fd >= 0 || i.caps & VH_VOL_READ_ONLY || !env.keeps, "attached for reading, the volume does not say that it is read-only");
	CHECK(c, i.fd < 0 || (fcntl(i.fd, F_GETFL) & O_ACCMODE) == O_RDONLY, "attached for reading, the fd can write");
	r = io_attach(&env, VH_ATTACH_RO, &other, &ops, NULL);
	CHECK(c, !r, "a second attach for reading failed with %d", r);
	if (env.pops->caps & VH_POOL_LEASE) {
		void *writer;
		const struct vh_volume_ops *wops;

		r = io_attach(&env, VH_ATTACH_RW_EXCL, &writer, &wops, NULL);
		CHECK(c, r == -EBUSY, "an attach for writing beside readers gave %d, not -EBUSY", r);
	}
	ops->close(other);
	io_close(&env);
}

/* Growing while requests run: the size is new, the old contents stay, the new bytes are zeros where that is promised. */
static void resize_grows(struct check_ctx *c)
{
	struct io_env env;
	struct vh_volume_info i;
	struct vh_err e = {0};
	struct io_queue q;
	uint8_t *b;
	int r;

	io_open(&env, c, VH_ATTACH_RW_EXCL);
	if (!env.ops->resize || !(env.info.caps & VH_VOL_GROW))
		check_skip(c, "the volume does not grow in use");
	r = env.ops->resize(env.vol, env.info.bytes + IO_STRIPE, &e);
	CHECK(c, !r, "resize() failed: %d %s", r, e.cause ? e.cause : "");
	io_info(&env, &i);
	CHECK(c, i.bytes >= env.info.bytes + IO_STRIPE, "the volume did not grow");
	if (env.info.fd < 0) {
		b = g_malloc(env.info.len_align);
		io_queue_open(&q, &env, 0);
		r = io_do(&q, VH_READ, 0, env.info.bytes, env.info.len_align, b);
		CHECK(c, !r, "a read of the new bytes failed with %d", r);
		for (uint32_t k = 0; i.caps & VH_VOL_ZERO_ON_GROW && k < env.info.len_align; k++)
			CHECK(c, !b[k], "a new byte is not zero");
		io_queue_close(&q);
	}
	r = env.ops->resize(env.vol, env.info.bytes, &e);
	CHECK(c, !r || r == -EOPNOTSUPP, "shrinking back failed: %d %s", r, e.cause ? e.cause : "");
	io_close(&env);
}

/* Queues come and go without leaving threads behind; more than max_queues are refused. */
static void queue_life(struct check_ctx *c)
{
	struct io_env env;
	struct vh_err e = {0};
	struct io_queue q;
	void *pq[64];
	unsigned n;
	int r;

	io_open(&env, c, VH_ATTACH_RW_EXCL);
	io_need_submit(&env);
	for (int i = 0; i < 50; i++) {
		io_queue_open(&q, &env, 0);
		r = io_do(&q, VH_READ, 0, 0, env.info.len_align, NULL);
		CHECK(c, !r, "a read failed with %d", r);
		io_queue_close(&q);
	}
	if (env.info.max_queues && env.info.max_queues < 64) {
		io_queue_open(&q, &env, 0);
		for (n = 0; n < env.info.max_queues - 1; n++)
			CHECK(c, !env.ops->queue_open(env.vol, (struct vh_queue *)&q, 1, &pq[n], &e), "queue %u of %u failed", n + 1,
			      env.info.max_queues);
		r = env.ops->queue_open(env.vol, (struct vh_queue *)&q, 1, &pq[n], &e);
		CHECK(c, r == -EUSERS, "a queue past max_queues gave %d, not -EUSERS", r);
		while (n--)
			env.ops->queue_close(pq[n]);
		io_queue_close(&q);
	}
	io_close(&env);
}

#define DOC "docs/design/io.md"
static const struct check checks[] = {
	{"io-info", "what info() says is possible, and fits the host's struct", DOC "#volumes", info_sane, VH_KIND_POOL, 0},
	{"io-fds", "every fd is opened with CLOEXEC and closed again", DOC "#volumes", fds_cloexec, VH_KIND_POOL, 0},
	{"io-attach-modes", "sole use excludes others, readers share", DOC "#volumes", attach_modes, VH_KIND_POOL, 0},
	{"io-fd", "the fd is what info() says", DOC "#fd-tier", fd_tier, VH_KIND_POOL, 0},
	{"io-fd-data", "aligned reads and writes of the fd work", DOC "#fd-tier", fd_oracle, VH_KIND_POOL, 60},
	{"io-random", "every request is completed once, on its queue, with the right data", DOC "#submit-tier", random_one_queue,
	 VH_KIND_POOL, 60},
	{"io-random-queues", "so are those of several queues at once", DOC "#submit-tier", random_queues, VH_KIND_POOL, 60},
	{"io-pieces", "buffers may be in many small pieces", DOC "#submit-tier", random_pieces, VH_KIND_POOL, 60},
	{"io-cancel", "a cancelled request is completed once all the same", DOC "#submit-tier", random_cancel, VH_KIND_POOL, 60},
	{"io-unknown-op", "an operation that it does not know is completed with an error", DOC "#submit-tier", unknown_op,
	 VH_KIND_POOL, 0},
	{"io-scribble", "a guest that changes its buffers harms only itself", DOC "#submit-tier", scribbling_guest, VH_KIND_POOL, 60},
	{"io-flush", "what was flushed stays", DOC "#flush", flush_persists, VH_KIND_POOL, 0},
	{"io-grow", "a volume that says so grows in use", DOC "#growth", resize_grows, VH_KIND_POOL, 0},
	{"io-queues", "queues come and go", DOC "#submit-tier", queue_life, VH_KIND_POOL, 60},
	{0},
};

const struct check_group group_io = {"IO", "volumes keep the data-path contract", checks};
