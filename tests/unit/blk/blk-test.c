/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "blk-test.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/statfs.h>
#include <unistd.h>
#include "plug/plug.h"

/* ---- fd tier ---- */

struct filevol {
	int fd;
	struct vh_volume_info info;
};

static int file_info(void *vol, struct vh_volume_info *i)
{
	struct filevol *f = vol;
	uint32_t size = i->size;

	memcpy(i, &f->info, size);
	i->size = size;
	return 0;
}

static int file_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	struct filevol *f = vol;

	if (bytes > (256u << 20))
		return -ENOSPC;
	if (ftruncate(f->fd, (off_t)bytes) < 0)
		return -errno;
	f->info.bytes = bytes;
	return 0;
}

static void file_close(void *vol)
{
	struct filevol *f = vol;

	close(f->fd);
	g_free(f);
}

static const struct vh_volume_ops file_ops = {
	.size = sizeof(file_ops), .info = file_info, .resize = file_resize, .close = file_close};

struct blk_vol *test_file_volume(const char *dir, int flags, uint64_t bytes, uint32_t align, const struct blk_config *c)
{
	g_autofree char *path = g_strdup_printf("%s/blk-test-XXXXXX", dir);
	struct filevol *f = g_new0(struct filevol, 1);
	struct blk_vol *v = NULL;
	int fd = mkstemp(path);

	g_assert_cmpint(fd, >=, 0);
	f->fd = open(path, O_RDWR | O_CLOEXEC | flags);
	unlink(path);
	close(fd);
	if (f->fd < 0) {
		g_free(f);
		return NULL;
	}
	g_assert_cmpint(ftruncate(f->fd, (off_t)bytes), ==, 0);
	f->info = (struct vh_volume_info){.size = sizeof(f->info),
					  .fd = f->fd,
					  .caps = VH_VOL_WRITE_CACHE | VH_VOL_FLUSH | VH_VOL_DISCARD | VH_VOL_ZERO |
						  VH_VOL_GROW | VH_VOL_ZERO_ON_GROW | VH_VOL_DISCARD_ZEROES |
						  (flags & O_DIRECT ? VH_VOL_FD_DIRECT : 0),
					  .bytes = bytes,
					  .logical_block = 512,
					  .physical_block = 4096,
					  .buf_align = align,
					  .len_align = align};
	g_assert_cmpint(blk_vol_new(f, &file_ops, c, &v, NULL), ==, 0);
	return v;
}

const char *test_tmpfs(void)
{
	struct statfs s;

	return !statfs("/dev/shm", &s) && s.f_type == 0x01021994 && !access("/dev/shm", W_OK) ? "/dev/shm" : NULL;
}

const char *test_disk(void)
{
	return g_get_tmp_dir();
}

/* ---- submit tier ---- */

struct fake_q {
	struct fake *f;
	struct vh_queue *hq;
	struct vh_loop *l;
	uint32_t in; /* accepted, not completed */
	int blocked;
	struct vh_task ready_task;
};

static int fake_info(void *vol, struct vh_volume_info *i)
{
	struct fake *f = vol;
	uint32_t size = i->size;

	memcpy(i, &f->info, size);
	i->size = size;
	i->bytes = f->bytes;
	return 0;
}

static int fake_queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **out, struct vh_err *e)
{
	struct fake *f = vol;
	struct fake_q *q;

	if (f->info.max_queues && (uint32_t)atomic_load(&f->n_queues) >= f->info.max_queues)
		return -EUSERS;
	atomic_fetch_add(&f->n_queues, 1);
	atomic_fetch_add(&f->opens, 1);
	q = g_new0(struct fake_q, 1);
	q->f = f;
	q->hq = hq;
	*out = q;
	return 0;
}

static int fake_queue_start(void *vq, struct vh_loop *l)
{
	struct fake_q *q = vq;

	q->l = l;
	return 0;
}

static void fake_queue_close(void *vq)
{
	struct fake_q *q = vq;

	g_assert_cmpuint(q->in, ==, 0);
	atomic_fetch_sub(&q->f->n_queues, 1);
	g_free(q);
}

static const struct vh_io_ops *io_service(void)
{
	return plug_service(VH_SVC_IO);
}

/* A read of a block beside a write of another's bytes in it is no error: hidden from TSan. */
__attribute__((no_sanitize("thread"), noinline)) static void racy_copy(uint8_t *to, const uint8_t *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		((volatile uint8_t *)to)[i] = ((const volatile uint8_t *)from)[i];
}

static int fake_do(struct fake *f, struct vh_req *r)
{
	const struct vh_volume_info *i = &f->info;
	uint64_t at = r->off, sum = 0, mask = i->len_align - 1;

	if (r->op == VH_FLUSH) {
		atomic_fetch_add(&f->flushes, 1);
		return -f->fail_flush;
	}
	if (r->off + r->len > f->bytes || ((r->off | r->len) & mask && r->op != VH_DISCARD) || !r->len ||
	    (i->max_segments && r->niov > i->max_segments) || (i->max_bytes && r->op <= VH_WRITE && r->len > i->max_bytes))
		atomic_fetch_add(&f->violations, 1);
	if (r->flags & VH_REQ_FUA) {
		if (!(i->caps & VH_VOL_FUA))
			atomic_fetch_add(&f->violations, 1);
		atomic_fetch_add(&f->fua, 1);
	}
	if (r->op == VH_WRITE)
		atomic_fetch_add(&f->writes, 1);
	if (r->op == VH_DISCARD || r->op == VH_ZERO) {
		memset(f->mem + r->off, 0, r->len);
		return 0;
	}
	for (uint32_t k = 0; k < r->niov; k++) {
		if (((uintptr_t)r->iov[k].iov_base & (i->buf_align - 1)) || (r->iov[k].iov_len & mask))
			atomic_fetch_add(&f->violations, 1);
		if (r->op == VH_READ)
			racy_copy(r->iov[k].iov_base, f->mem + at, r->iov[k].iov_len);
		else
			racy_copy(f->mem + at, r->iov[k].iov_base, r->iov[k].iov_len);
		at += r->iov[k].iov_len;
		sum += r->iov[k].iov_len;
	}
	if (sum != r->len)
		atomic_fetch_add(&f->violations, 1);
	return 0;
}

static void *fake_thread(void *arg)
{
	struct fake *f = arg;
	struct fake_req *x;
	int res;

	pthread_mutex_lock(&f->lock);
	for (;;) {
		while (!f->queue && !f->ending)
			pthread_cond_wait(&f->more, &f->lock);
		x = f->queue;
		if (!x)
			break;
		f->queue = x->next;
		if (!f->queue)
			f->queue_tail = &f->queue;
		pthread_mutex_unlock(&f->lock);
		res = fake_do(f, x->r);
		__atomic_fetch_sub(&x->q->in, 1, __ATOMIC_RELAXED);
		io_service()->done_remote(x->r, res);
		free(x);
		pthread_mutex_lock(&f->lock);
	}
	pthread_mutex_unlock(&f->lock);
	return NULL;
}

struct late {
	struct vh_task t;
	struct vh_req *r;
	struct fake_q *q;
};

static void ready_fn(struct vh_task *t)
{
	struct fake_q *q = (struct fake_q *)((char *)t - offsetof(struct fake_q, ready_task));

	q->blocked = 0;
	io_service()->ready(q->hq);
}

static void late_fn(struct vh_task *t)
{
	struct late *x = (struct late *)t;
	struct fake_q *q = x->q;
	int res = fake_do(q->f, x->r);

	__atomic_fetch_sub(&q->in, 1, __ATOMIC_RELAXED);
	io_service()->done(x->r, res);
	if (q->blocked)
		loop_post(q->l, &q->ready_task);
}

static uint32_t fake_submit(void *vq, struct vh_req *const *r, uint32_t n)
{
	struct fake_q *q = vq;
	struct fake *f = q->f;
	uint32_t k;

	atomic_fetch_add(&f->submits, 1);
	for (k = 0; k < n; k++) {
		if (f->room && __atomic_load_n(&q->in, __ATOMIC_RELAXED) >= f->room) {
			q->blocked = 1;
			q->ready_task.fn = ready_fn;
			if (f->remote || f->hold) /* nobody else tells */
				loop_post(q->l, &q->ready_task);
			break;
		}
		__atomic_fetch_add(&q->in, 1, __ATOMIC_RELAXED);
		memset(r[k]->ctx, 0xaa, 64);
		if (f->hold) {
			pthread_mutex_lock(&f->lock);
			f->held[f->n_held++] = (struct fake_req){r[k], q, NULL};
			pthread_mutex_unlock(&f->lock);
		} else if (f->inline_done) {
			int res = fake_do(f, r[k]);

			__atomic_fetch_sub(&q->in, 1, __ATOMIC_RELAXED);
			io_service()->done(r[k], res);
		} else if (f->remote) {
			struct fake_req *x = malloc(sizeof(*x));

			*x = (struct fake_req){r[k], q, NULL};
			pthread_mutex_lock(&f->lock);
			*f->queue_tail = x;
			f->queue_tail = &x->next;
			pthread_cond_signal(&f->more);
			pthread_mutex_unlock(&f->lock);
		} else {
			struct late *x = r[k]->ctx;

			*x = (struct late){{late_fn, {NULL, NULL}}, r[k], q};
			loop_post(q->l, &x->t);
		}
	}
	if (f->lies && n > 1 && k == n) {
		q->ready_task.fn = ready_fn;
		loop_post(q->l, &q->ready_task);
		k--;
	}
	return k;
}

static void fake_cancel(void *vq, struct vh_req *r)
{
	struct fake_q *q = vq;

	struct fake *f = q->f;
	int found = 0;

	atomic_fetch_add(&f->cancels, 1);
	pthread_mutex_lock(&f->lock);
	for (unsigned i = 0; f->obey && i < f->n_held && !found; i++)
		if (f->held[i].r == r) {
			f->held[i] = f->held[--f->n_held];
			found = 1;
		}
	pthread_mutex_unlock(&f->lock);
	if (found) {
		__atomic_fetch_sub(&q->in, 1, __ATOMIC_RELAXED);
		io_service()->done(r, -ECANCELED);
	}
}

static int fake_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	struct fake *f = vol;

	if (bytes > f->cap)
		return -ENOSPC;
	f->bytes = bytes;
	return 0;
}

static void fake_close(void *vol)
{
	struct fake *f = vol;

	g_assert_cmpint(atomic_load(&f->n_queues), ==, 0);
}

const struct vh_volume_ops fake_ops = {
	.size = sizeof(fake_ops),
	.req_ctx = 64,
	.info = fake_info,
	.queue_open = fake_queue_open,
	.queue_start = fake_queue_start,
	.queue_close = fake_queue_close,
	.submit = fake_submit,
	.cancel = fake_cancel,
	.resize = fake_resize,
	.close = fake_close,
};

struct fake *fake_new(uint64_t bytes, uint32_t align)
{
	struct fake *f = g_new0(struct fake, 1);

	f->cap = 2 * bytes + (4u << 20);
	f->mem = g_malloc0(f->cap);
	f->bytes = bytes;
	f->info = (struct vh_volume_info){.size = sizeof(f->info),
					  .fd = -1,
					  .caps = VH_VOL_WRITE_CACHE | VH_VOL_FLUSH | VH_VOL_DISCARD | VH_VOL_ZERO |
						  VH_VOL_GROW | VH_VOL_ZERO_ON_GROW | VH_VOL_DISCARD_ZEROES,
					  .logical_block = 512,
					  .buf_align = align,
					  .len_align = align,
					  .discard_gran = align < 512 ? 512 : align};
	f->queue_tail = &f->queue;
	pthread_mutex_init(&f->lock, NULL);
	pthread_cond_init(&f->more, NULL);
	for (int i = 0; i < 4; i++)
		pthread_create(&f->threads[i], NULL, fake_thread, f);
	return f;
}

void fake_free(struct fake *f)
{
	pthread_mutex_lock(&f->lock);
	f->ending = 1;
	pthread_cond_broadcast(&f->more);
	pthread_mutex_unlock(&f->lock);
	for (int i = 0; i < 4; i++)
		pthread_join(f->threads[i], NULL);
	pthread_mutex_destroy(&f->lock);
	pthread_cond_destroy(&f->more);
	g_assert_cmpint(atomic_load(&f->violations), ==, 0);
	g_free(f->mem);
	g_free(f);
}

/* Completes what was held, as if done by another thread. */
void fake_release(struct fake *f)
{
	pthread_mutex_lock(&f->lock);
	while (f->n_held) {
		struct fake_req x = f->held[--f->n_held];

		__atomic_fetch_sub(&x.q->in, 1, __ATOMIC_RELAXED);
		io_service()->done_remote(x.r, 0);
	}
	pthread_mutex_unlock(&f->lock);
}

struct blk_vol *fake_volume(struct fake *f, const struct blk_config *c)
{
	struct vh_object *o = blk_object_new();
	struct blk_vol *v = NULL;

	f->object = o;
	g_assert_cmpint(blk_vol_new(f, &fake_ops, c, &v, NULL), ==, 0);
	blk_object_bind(o, v);
	return v;
}

/* ---- queues ---- */

struct call {
	struct tq *t;
	struct blk_vol *v;
	uint32_t depth;
	struct blk_io io;
	int res, ended;
	pthread_mutex_t lock;
	pthread_cond_t cond;
};

static void open_fn(void *ctx)
{
	struct call *c = ctx;

	g_assert_cmpint(blk_vq_open(c->v, c->t->l, c->depth, &c->t->q, NULL), ==, 0);
}

static void close_fn(void *ctx)
{
	struct call *c = ctx;

	blk_vq_close(c->t->q);
}

void tq_open(struct tq *t, struct blk_vol *v, uint32_t depth)
{
	struct call c = {.t = t, .v = v, .depth = depth};

	g_assert_cmpint(loop_new("tq", &t->l, NULL), ==, 0);
	g_assert_cmpint(loop_start(t->l, NULL), ==, 0);
	loop_call(t->l, open_fn, &c);
}

void tq_close(struct tq *t)
{
	struct call c = {.t = t};

	loop_call(t->l, close_fn, &c);
	loop_stop(t->l);
	loop_free(t->l);
}

static void call_done(struct blk_io *io, int res)
{
	struct call *c = (struct call *)((char *)io - offsetof(struct call, io));

	g_assert_true(loop_is_current(c->t->l));
	pthread_mutex_lock(&c->lock);
	c->res = res;
	c->ended++;
	pthread_cond_signal(&c->cond);
	pthread_mutex_unlock(&c->lock);
}

static void call_fn(void *ctx)
{
	struct call *c = ctx;

	blk_submit(c->t->q, &c->io);
	g_assert_cmpint(c->ended, ==, 0);
}

int tq_iov(struct tq *t, int op, int flags, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov)
{
	struct call c = {.t = t,
			 .io = {.op = (uint16_t)op, .flags = (uint16_t)flags, .niov = niov, .off = off, .len = len, .iov = iov,
				.done = call_done}};

	pthread_mutex_init(&c.lock, NULL);
	pthread_cond_init(&c.cond, NULL);
	loop_call(t->l, call_fn, &c);
	pthread_mutex_lock(&c.lock);
	while (!c.ended)
		pthread_cond_wait(&c.cond, &c.lock);
	pthread_mutex_unlock(&c.lock);
	pthread_mutex_destroy(&c.lock);
	pthread_cond_destroy(&c.cond);
	return c.res;
}

int tq_io(struct tq *t, int op, int flags, void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = {buf, len};

	return tq_iov(t, op, flags, off, len, &iov, op == VH_READ || op == VH_WRITE);
}

/* ---- the random test ---- */

#define RIOV 12
#define RMAX (96u << 10)

struct rnd_q;
struct rnd_op {
	struct blk_io io;
	struct rnd_q *q;
	struct iovec iov[RIOV];
	uint8_t *buf;
	uint8_t *want; /* of a read: the bytes at submission */
	int busy;
};

/* Owns every byte b of the volume with (b / 300) % queues == index: blocks are shared by all queues, bytes by none. */
struct rnd_q {
	struct tq t;
	struct blk_vol *v;
	unsigned index, queues, depth, left, inflight;
	uint64_t bytes;
	uint8_t *oracle; /* shared, each queue touches its own bytes */
	unsigned seed;
	int modify;
	struct rnd_op *ops;
	struct vh_task task;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int ended;
};

static unsigned rnd(struct rnd_q *q, unsigned n)
{
	return (unsigned)rand_r(&q->seed) % n;
}

#define STRIPE 300u

static int overlaps(struct rnd_q *q, uint64_t off, uint64_t len)
{
	for (unsigned i = 0; i < q->depth; i++)
		if (q->ops[i].busy && q->ops[i].io.op != VH_FLUSH && q->ops[i].io.off < off + len &&
		    off < q->ops[i].io.off + q->ops[i].io.len)
			return 1;
	return 0;
}

static void rnd_fill(struct rnd_q *q);

static void rnd_done(struct blk_io *io, int res)
{
	struct rnd_op *o = (struct rnd_op *)io;
	struct rnd_q *q = o->q;

	g_assert_cmpint(res, ==, 0);
	g_assert_true(o->busy);
	o->busy = 0;
	q->inflight--;
	if (io->op == VH_READ) {
		uint64_t at = 0;

		for (unsigned i = 0; i < io->niov; i++) {
			if (memcmp(io->iov[i].iov_base, o->want + at, io->iov[i].iov_len)) {
				for (uint64_t k = 0; k < io->iov[i].iov_len; k++)
					if (((uint8_t *)io->iov[i].iov_base)[k] != o->want[at + k])
						g_error("read of %u bytes at %" G_GUINT64_FORMAT ", byte %" G_GUINT64_FORMAT
							": got %02x, expected %02x",
							(unsigned)io->len, io->off, io->off + at + k,
							((uint8_t *)io->iov[i].iov_base)[k], o->want[at + k]);
			}
			at += io->iov[i].iov_len;
		}
	}
	loop_defer(q->t.l, &q->task);
}

/* A range of own bytes: inside one stripe, or, with one queue, anything. */
static void pick(struct rnd_q *q, uint64_t *off, uint64_t *len)
{
	if (q->queues > 1) {
		uint64_t stripes = q->bytes / STRIPE / q->queues;
		uint64_t base = ((uint64_t)rnd(q, (unsigned)stripes) * q->queues + q->index) * STRIPE;
		unsigned a = rnd(q, STRIPE);

		*off = base + a;
		*len = 1 + rnd(q, STRIPE - a);
		return;
	}
	*len = 1 + rnd(q, rnd(q, 3) ? 4096 : RMAX);
	*off = (uint64_t)rnd(q, (unsigned)(q->bytes - *len));
	switch (rnd(q, 4)) {
	case 0:
		*off &= ~4095ull;
		*len = (*len + 4095) & ~4095ull;
		break;
	case 1:
		*off &= ~511ull;
		*len = (*len + 511) & ~511ull;
		break;
	}
	if (*off + *len > q->bytes)
		*off = q->bytes - *len;
}

static void rnd_one(struct rnd_q *q, struct rnd_op *o)
{
	struct blk_io *io = &o->io;
	unsigned what = rnd(q, 100);
	uint64_t off, len, at = 0;
	size_t lead = rnd(q, 3) ? 0 : rnd(q, 64);

	pick(q, &off, &len);
	if (overlaps(q, off, len))
		return;
	*io = (struct blk_io){.done = rnd_done, .off = off, .len = len, .iov = o->iov};
	if (what < 45 || !q->modify) {
		io->op = VH_READ;
		memcpy(o->want, q->oracle + off, len);
	} else if (what < 88) {
		io->op = VH_WRITE;
		io->flags = rnd(q, 10) ? 0 : VH_REQ_FUA;
	} else if (what < 94) {
		io->op = VH_ZERO;
		io->flags = rnd(q, 2) ? VH_REQ_MAY_UNMAP : 0;
		memset(q->oracle + off, 0, len);
	} else {
		*io = (struct blk_io){.done = rnd_done, .op = VH_FLUSH};
		len = 0;
	}
	/* The buffer in pieces, sometimes at odd addresses. */
	while (io->op <= VH_WRITE && at < len) {
		uint64_t n = io->niov == RIOV - 1 || !rnd(q, 3) ? len - at : 1 + rnd(q, (unsigned)(len - at));

		if (lead == 0 && rnd(q, 4) && n > 4096)
			n &= ~4095ull;
		o->iov[io->niov++] = (struct iovec){o->buf + lead + at, n};
		at += n;
	}
	if (io->op == VH_READ)
		memset(o->buf, 0x5a, lead + len);
	if (io->op == VH_WRITE) {
		for (uint64_t k = 0; k < len; k++)
			o->buf[lead + k] = (uint8_t)rand_r(&q->seed);
		memcpy(q->oracle + off, o->buf + lead, len);
	}
	o->busy = 1;
	q->inflight++;
	q->left--;
	blk_submit(q->t.q, io);
	g_assert_true(o->busy);
	if (!rnd(q, 8))
		blk_kick(q->t.q);
}

static void rnd_fill(struct rnd_q *q)
{
	for (unsigned i = 0; i < q->depth && q->left; i++)
		if (!q->ops[i].busy)
			rnd_one(q, &q->ops[i]);
	if (!q->left && !q->inflight) {
		pthread_mutex_lock(&q->lock);
		q->ended = 1;
		pthread_cond_signal(&q->cond);
		pthread_mutex_unlock(&q->lock);
	} else if (!q->inflight) {
		loop_defer(q->t.l, &q->task);
	}
}

static void rnd_task(struct vh_task *t)
{
	rnd_fill((struct rnd_q *)((char *)t - offsetof(struct rnd_q, task)));
}

void random_test(struct blk_vol *v, unsigned queues, unsigned depth, unsigned ops, uint64_t bytes, int modify)
{
	g_autofree uint8_t *oracle = g_malloc0(bytes), *back = g_malloc0(bytes);
	g_autofree struct rnd_q *q = g_new0(struct rnd_q, queues);

	g_assert_cmpint(blk_read(v, oracle, bytes, 0, NULL), ==, 0);
	for (unsigned i = 0; i < queues; i++) {
		q[i] = (struct rnd_q){.v = v, .index = i, .queues = queues, .depth = depth, .left = ops, .bytes = bytes,
				      .oracle = oracle, .seed = (unsigned)g_test_rand_int(), .modify = modify};
		pthread_mutex_init(&q[i].lock, NULL);
		pthread_cond_init(&q[i].cond, NULL);
		q[i].task.fn = rnd_task;
		q[i].ops = g_new0(struct rnd_op, depth);
		for (unsigned k = 0; k < depth; k++) {
			q[i].ops[k].q = &q[i];
			q[i].ops[k].buf = g_aligned_alloc(1, RMAX + 4096 + 64, 4096);
			q[i].ops[k].want = g_malloc(RMAX + 4096);
		}
		tq_open(&q[i].t, v, depth);
	}
	for (unsigned i = 0; i < queues; i++)
		loop_post(q[i].t.l, &q[i].task);
	for (unsigned i = 0; i < queues; i++) {
		pthread_mutex_lock(&q[i].lock);
		while (!q[i].ended)
			pthread_cond_wait(&q[i].cond, &q[i].lock);
		pthread_mutex_unlock(&q[i].lock);
	}
	for (unsigned i = 0; i < queues; i++) {
		tq_close(&q[i].t);
		for (unsigned k = 0; k < depth; k++) {
			g_aligned_free(q[i].ops[k].buf);
			g_free(q[i].ops[k].want);
		}
		g_free(q[i].ops);
		pthread_mutex_destroy(&q[i].lock);
		pthread_cond_destroy(&q[i].cond);
	}
	g_assert_cmpint(blk_read(v, back, bytes, 0, NULL), ==, 0);
	g_assert_cmpmem(back, bytes, oracle, bytes);
}
