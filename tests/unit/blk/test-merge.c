/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Neighbours of one turn are one request to the kernel, and end as what they were, also when one of them fails; a flush that
 * has nothing to do makes no system call, and every other one does. What reaches the kernel is counted and broken here: the
 * functions that the engines call are this file's.
 */
#include <errno.h>
#include <fcntl.h>
#include <libaio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include "blk-test.h"

#define KB 1024u
#define BYTES (4u << 20)

/* ---- between the engines and the kernel ---- */

static atomic_int calls, largest, syncs; /* reads and writes; iovecs of the largest; flushes of either kind */
static atomic_llong bad_off = -1;        /* whatever touches this byte fails */
static atomic_int ticket, last_sync;      /* when the last flush reached the kernel */
static atomic_int fail_sync, cut;        /* cut: larger ones are shortened by a bad fd to nothing: refused with EINVAL */

static int touches(const struct iocb *c)
{
	long long bad = bad_off, len = 0;
	int vec = c->aio_lio_opcode == IO_CMD_PREADV || c->aio_lio_opcode == IO_CMD_PWRITEV;
	const struct iovec *iov = vec ? c->u.c.buf : NULL;

	for (unsigned long k = 0; vec && k < c->u.c.nbytes; k++)
		len += (long long)iov[k].iov_len;
	if (!vec)
		len = (long long)c->u.c.nbytes;
	return bad >= 0 && bad >= c->u.c.offset && bad < c->u.c.offset + len;
}

int io_submit(io_context_t ctx, long n, struct iocb **c)
{
	long good = 0;
	long r;

	for (; good < n; good++) {
		struct iocb *x = c[good];

		if (x->aio_lio_opcode == IO_CMD_FDSYNC)
			break;
		if (touches(x) || (cut && x->aio_lio_opcode == IO_CMD_PREADV))
			break;
	}
	if (!good && n) {
		if (c[0]->aio_lio_opcode != IO_CMD_FDSYNC)
			return cut && c[0]->aio_lio_opcode == IO_CMD_PREADV ? -EINVAL : -EIO;
		if (fail_sync)
			return -EIO;
		syncs++;
		last_sync = ++ticket;
		good = 1;
	}
	r = syscall(SYS_io_submit, ctx, good, c);
	for (long k = 0; k < r; k++) {
		int vec = c[k]->aio_lio_opcode == IO_CMD_PREADV || c[k]->aio_lio_opcode == IO_CMD_PWRITEV;
		int niov = vec ? (int)c[k]->u.c.nbytes : 1;

		if (c[k]->aio_lio_opcode == IO_CMD_FDSYNC)
			continue;
		calls++;
		if (niov > largest)
			largest = niov;
	}
	return r < 0 ? -errno : (int)r;
}

int fdatasync(int fd)
{
	syncs++;
	if (fail_sync) {
		errno = EIO;
		return -1;
	}
	return (int)syscall(SYS_fdatasync, fd);
}

ssize_t preadv(int fd, const struct iovec *iov, int n, off_t off)
{
	long long bad = bad_off, len = 0;

	for (int k = 0; k < n; k++)
		len += (long long)iov[k].iov_len;
	if (bad >= off && bad < off + len) {
		errno = EIO;
		return -1;
	}
	return syscall(SYS_preadv, fd, iov, n, off, 0);
}

/* ---- requests that are submitted together ---- */

#define MANY 40
struct one {
	struct blk_io io;
	struct iovec iov[2];
	int done, result;
	struct many *m;
};
struct many {
	struct tq *t;
	struct one o[MANY];
	int n;
	atomic_int left;
};

static void one_done(struct blk_io *io, int result)
{
	struct one *o = (struct one *)io;

	g_assert_cmpint(o->done, ==, 0);
	o->done = 1;
	o->result = result;
	atomic_fetch_sub(&o->m->left, 1);
}

static void add(struct many *m, int op, int flags, void *buf, uint64_t len, uint64_t off)
{
	struct one *o = &m->o[m->n++];

	memset(o, 0, sizeof(*o));
	o->iov[0] = (struct iovec){buf, len / 2};
	o->iov[1] = (struct iovec){(uint8_t *)buf + len / 2, len - len / 2};
	o->io = (struct blk_io){.op = (uint16_t)op, .flags = (uint16_t)flags, .off = off, .len = len, .iov = o->iov, .niov = 2,
				.done = one_done};
	o->m = m;
	if (op == VH_FLUSH)
		o->io.niov = 0;
}

static void submit_all(void *ctx)
{
	struct many *m = ctx;

	for (int k = 0; k < m->n; k++)
		blk_submit(m->t->q, &m->o[k].io);
}

static void go(struct many *m)
{
	m->left = m->n;
	calls = largest = 0;
	loop_call(m->t->l, submit_all, m);
	for (int k = 0; m->left; k++) {
		g_usleep(200);
		g_assert_cmpint(k, <, 100000);
	}
}

static struct blk_vol *direct(enum blk_engine engine, uint64_t timeout)
{
	struct blk_config c = {.engine = engine, .label = "merge", .io_timeout_ns = timeout};
	struct blk_vol *v = test_file_volume(test_disk(), O_DIRECT, BYTES, 512, &c);

	if (!v)
		g_test_skip("no O_DIRECT on this file system");
	return v;
}

static uint8_t *aligned(size_t bytes)
{
	uint8_t *p = aligned_alloc(4096, bytes);

	g_assert_nonnull(p);
	return p;
}

static void pattern(uint8_t *p, size_t n)
{
	for (size_t k = 0; k < n; k++)
		p[k] = (uint8_t)(k / 512 * 31 + k % 7);
}

/* Neighbours become one, others do not; data, order and limits are right; writes too. */
static void neighbours(gconstpointer engine)
{
	struct blk_vol *v = direct((enum blk_engine)GPOINTER_TO_INT(engine), 0);
	uint8_t *buf = aligned(BYTES), *back = aligned(BYTES);
	int counted = GPOINTER_TO_INT(engine) == BLK_ENGINE_AIO;
	struct many m = {0};
	struct tq t;

	if (!v)
		return;
	pattern(buf, BYTES);
	tq_open(&t, v, 64);
	m.t = &t;
	for (int k = 0; k < 32; k++) /* 32 of 8 KiB: the most that one may be */
		add(&m, VH_WRITE, 0, buf + k * 8 * KB, 8 * KB, (uint64_t)k * 8 * KB);
	go(&m);
	if (counted) {
		g_assert_cmpint(calls, ==, 1);
		g_assert_cmpint(largest, ==, 64);
	}
	m.n = 0;
	add(&m, VH_WRITE, 0, buf + 256 * KB, 768 * KB, 256 * KB); /* larger than one gets: stays alone */
	add(&m, VH_WRITE, 0, buf + 1024 * KB, 128 * KB, 1024 * KB);
	add(&m, VH_WRITE, 0, buf + 1152 * KB, 128 * KB, 1152 * KB);
	add(&m, VH_WRITE, 0, buf + 1280 * KB, 2816 * KB, 1280 * KB);
	go(&m);
	if (counted)
		g_assert_cmpint(calls, ==, 3);
	for (int k = 0; k < m.n; k++)
		g_assert_cmpint(m.o[k].result, ==, 0);
	m.n = 0;
	memset(back, 0, BYTES);
	for (int k = 0; k < 8; k++) /* not small: alone */
		add(&m, VH_READ, 0, back + k * 128 * KB, 128 * KB, (uint64_t)k * 128 * KB);
	for (int k = 0; k < 16; k++) /* the largest that are joined, with one behind that is larger */
		add(&m, VH_READ, 0, back + 3000 * KB + k * 16 * KB, 16 * KB, 3000 * KB + (uint64_t)k * 16 * KB);
	add(&m, VH_READ, 0, back + 3256 * KB, 20 * KB, 3256 * KB);
	for (int k = 0; k < 4; k++) /* backwards: no neighbours */
		add(&m, VH_READ, 0, back + (31 - k) * 128 * KB, 128 * KB, (uint64_t)(31 - k) * 128 * KB);
	for (int k = 0; k < 4; k++) /* with holes between */
		add(&m, VH_READ, 0, back + (10 + 2 * k) * 128 * KB, 128 * KB, (uint64_t)(10 + 2 * k) * 128 * KB);
	go(&m);
	if (counted)
		g_assert_cmpint(calls, ==, 8 + 1 + 1 + 4 + 4);
	for (int k = 0; k < m.n; k++) {
		g_assert_cmpint(m.o[k].result, ==, 0);
		g_assert_cmpmem(back + m.o[k].io.off, m.o[k].io.len, buf + m.o[k].io.off, m.o[k].io.len);
	}
	/* Neither reads with writes, nor FUA with others. */
	m.n = 0;
	add(&m, VH_READ, 0, back, 4 * KB, 0);
	add(&m, VH_WRITE, 0, buf + 4 * KB, 4 * KB, 4 * KB);
	add(&m, VH_WRITE, VH_REQ_FUA, buf + 8 * KB, 4 * KB, 8 * KB);
	add(&m, VH_WRITE, VH_REQ_FUA, buf + 12 * KB, 4 * KB, 12 * KB);
	add(&m, VH_READ, 0, back + 16 * KB, 4 * KB, 16 * KB);
	go(&m);
	if (counted)
		g_assert_cmpint(calls, ==, 4);
	for (int k = 0; k < m.n; k++)
		g_assert_cmpint(m.o[k].result, ==, 0);
	g_assert_cmpint(blk_read(v, back, BYTES, 0, NULL), ==, 0);
	g_assert_cmpmem(back, BYTES, buf, BYTES);
	tq_close(&t);
	blk_vol_put(v);
	free(buf);
	free(back);
}

/* Only the part that has the error gets it; with a time limit nothing stays counted as stalled. */
static void errors(void)
{
	struct blk_vol *v = direct(BLK_ENGINE_AIO, 10000000000u);
	uint8_t *buf = aligned(BYTES), *back = aligned(BYTES);
	struct many m = {0};
	struct tq t;

	if (!v)
		return;
	pattern(buf, BYTES);
	tq_open(&t, v, 64);
	m.t = &t;
	for (int op = VH_WRITE; op; op = op == VH_WRITE ? VH_READ : 0) {
		for (int bad = 0; bad < 10; bad++) {
			m.n = 0;
			memset(back, 0, BYTES);
			for (int k = 0; k < 10; k++)
				add(&m, op, 0, (op == VH_WRITE ? buf : back) + k * 8 * KB, 8 * KB, (uint64_t)k * 8 * KB);
			bad_off = bad * 8 * KB + 5000;
			go(&m);
			bad_off = -1;
			for (int k = 0; k < 10; k++)
				g_assert_cmpint(m.o[k].result, ==, k == bad ? -EIO : 0);
			if (op == VH_WRITE)
				g_assert_cmpint(tq_io(&t, VH_WRITE, 0, buf + bad * 8 * KB, 8 * KB, (uint64_t)bad * 8 * KB), ==, 0);
			for (int k = 0; k < 10 && op == VH_READ; k++)
				if (k != bad)
					g_assert_cmpmem(back + k * 8 * KB, 8 * KB, buf + k * 8 * KB, 8 * KB);
		}
	}
	/* What the kernel will not take as one, it gets singly. */
	m.n = 0;
	memset(back, 0, BYTES);
	for (int k = 0; k < 30; k++) {
		add(&m, VH_READ, 0, back + k * 8 * KB, 8 * KB, (uint64_t)k * 8 * KB);
		m.o[k].iov[0].iov_len = 8 * KB;
		m.o[k].io.niov = 1;
	}
	cut = 1;
	go(&m);
	cut = 0;
	g_assert_cmpint(calls, ==, 30);
	for (int k = 0; k < 30; k++)
		g_assert_cmpint(m.o[k].result, ==, 0);
	g_assert_cmpmem(back, 80 * KB, buf, 80 * KB);
	tq_close(&t);
	blk_vol_put(v);
	free(buf);
	free(back);
}

/* A read of neighbours across the end of a file that is shorter than the volume says: short as a whole. */
static void short_file(void)
{
	struct blk_vol *v = direct(BLK_ENGINE_AIO, 0);
	uint8_t *buf = aligned(64 * KB);
	struct many m = {0};
	struct tq t;

	if (!v)
		return;
	pattern(buf, 64 * KB);
	tq_open(&t, v, 16);
	m.t = &t;
	g_assert_cmpint(tq_io(&t, VH_WRITE, 0, buf, 64 * KB, BYTES - 64 * KB), ==, 0);
	g_assert_cmpint(ftruncate(blk_vol_info(v)->fd, BYTES - 32 * KB - 512), ==, 0);
	memset(buf, 0xee, 64 * KB);
	for (int k = 0; k < 8; k++)
		add(&m, VH_READ, 0, buf + k * 8 * KB, 8 * KB, BYTES - 64 * KB + (uint64_t)k * 8 * KB);
	go(&m);
	for (int k = 0; k < 8; k++)
		g_assert_cmpint(m.o[k].result, ==, 0);
	for (unsigned k = 0; k < 64 * KB; k++)
		g_assert_cmpint(buf[k], ==, k < 32 * KB - 512 ? (uint8_t)(k / 512 * 31 + k % 7) : 0);
	tq_close(&t);
	blk_vol_put(v);
	free(buf);
}

/* ---- flushes ---- */

static int flushes(struct tq *t)
{
	int before = syncs;

	g_assert_cmpint(tq_io(t, VH_FLUSH, 0, NULL, 0, 0), ==, 0);
	return syncs - before;
}

/* A file that nobody finds after a crash: neither the queues nor blocking calls, nor FUA, make it durable. */
static void none(void)
{
	struct blk_config c = {.engine = BLK_ENGINE_AIO, .label = "none", .no_flush = 1};
	struct blk_vol *v = test_file_volume(test_disk(), O_DIRECT, BYTES, 512, &c);
	uint8_t *buf = aligned(4 * KB), *back = aligned(4 * KB);
	struct tq a;
	int before = syncs;

	if (!v) {
		g_test_skip("no O_DIRECT on this file system");
		return;
	}
	pattern(buf, 4 * KB);
	tq_open(&a, v, 8);
	g_assert_cmpint(tq_io(&a, VH_WRITE, 0, buf, 4 * KB, 0), ==, 0);
	g_assert_cmpint(flushes(&a), ==, 0);
	g_assert_cmpint(tq_io(&a, VH_WRITE, VH_REQ_FUA, buf, 4 * KB, 8 * KB), ==, 0);
	g_assert_cmpint(tq_io(&a, VH_ZERO, VH_REQ_FUA, NULL, 4 * KB, 16 * KB), ==, 0);
	g_assert_cmpint(blk_write(v, buf, 512, 100, NULL), ==, 0);
	g_assert_cmpint(blk_flush(v, NULL), ==, 0);
	g_assert_cmpint(blk_vol_resize(v, BYTES * 2, NULL), ==, 0);
	g_assert_cmpint(syncs, ==, before);
	g_assert_cmpint(tq_io(&a, VH_READ, 0, back, 4 * KB, 8 * KB), ==, 0);
	g_assert_cmpmem(back, 4 * KB, buf, 4 * KB);
	tq_close(&a);
	blk_vol_put(v);
	free(buf);
	free(back);
}

static void needless(gconstpointer engine)
{
	struct blk_config c = {.engine = (enum blk_engine)GPOINTER_TO_INT(engine), .label = "flush"};
	int is_direct = c.engine == BLK_ENGINE_AIO;
	struct blk_vol *v = test_file_volume(test_disk(), is_direct ? O_DIRECT : 0, BYTES, 512, &c);
	uint8_t *buf = aligned(64 * KB);
	struct tq a, b;

	if (!v) {
		g_test_skip("no O_DIRECT on this file system");
		return;
	}
	memset(buf, 1, 64 * KB);
	tq_open(&a, v, 8);
	tq_open(&b, v, 8);
	g_assert_cmpint(flushes(&a), ==, 1); /* who knows what came before */
	g_assert_cmpint(flushes(&a), ==, 0);
	g_assert_cmpint(flushes(&b), ==, 0);
	for (int op = VH_WRITE; op <= (int)VH_ZERO; op++) {
		if (op == VH_FLUSH)
			continue;
		g_assert_cmpint(tq_io(&a, op, 0, buf, 4 * KB, 8 * KB), ==, 0);
		g_assert_cmpint(flushes(&b), ==, 1); /* another queue's */
		g_assert_cmpint(flushes(&a), ==, 0);
	}
	g_assert_cmpint(tq_io(&a, VH_READ, 0, buf, 4 * KB, 0), ==, 0);
	g_assert_cmpint(flushes(&a), ==, 0);
	g_assert_cmpint(tq_io(&a, VH_WRITE, 0, buf, 100, 777), ==, 0); /* merged into its block */
	g_assert_cmpint(flushes(&a), ==, 1);
	g_assert_cmpint(tq_io(&a, VH_WRITE, 0, buf, 4 * KB, BYTES), ==, 0); /* grows */
	g_assert_cmpint(flushes(&a), ==, 1);
	/* Blocking calls, sizes. */
	g_assert_cmpint(blk_write(v, buf, 512, 0, NULL), ==, 0);
	g_assert_cmpint(flushes(&a), ==, 1);
	g_assert_cmpint(blk_zero(v, 512, 0, NULL), ==, 0);
	g_assert_cmpint(flushes(&a), ==, 1);
	g_assert_cmpint(blk_discard(v, 4096, 0, NULL), ==, 0);
	g_assert_cmpint(flushes(&a), ==, 1);
	g_assert_cmpint(blk_vol_resize(v, BYTES * 2, NULL), ==, 0);
	g_assert_cmpint(flushes(&a), ==, 1);
	g_assert_cmpint(flushes(&a), ==, 0);
	/* Blocks shared with a file, or the attempt where the file system cannot. */
	blk_share(v, 64 * KB, v, 0, 4 * KB);
	g_assert_cmpint(flushes(&a), ==, 1);
	g_assert_cmpint(flushes(&a), ==, 0);
	/* A queue's writes outlive it. */
	g_assert_cmpint(tq_io(&b, VH_WRITE, 0, buf, 4 * KB, 0), ==, 0);
	tq_close(&b);
	g_assert_cmpint(flushes(&a), ==, 1);
	g_assert_cmpint(flushes(&a), ==, 0);
	/* A write that failed may have changed something. */
	if (is_direct) {
		bad_off = 4096;
		g_assert_cmpint(tq_io(&a, VH_WRITE, 0, buf, 4 * KB, 4 * KB), ==, -EIO);
		bad_off = -1;
		g_assert_cmpint(flushes(&a), ==, 1);
	}
	/* One that fails leaves it dirty, and the volume refuses from then on. */
	g_assert_cmpint(tq_io(&a, VH_WRITE, 0, buf, 4 * KB, 0), ==, 0);
	fail_sync = 1;
	g_assert_cmpint(tq_io(&a, VH_FLUSH, 0, NULL, 0, 0), ==, -EIO);
	fail_sync = 0;
	g_assert_cmpint(tq_io(&a, VH_FLUSH, 0, NULL, 0, 0), ==, -EIO);
	tq_close(&a);
	blk_vol_put(v);
	free(buf);
}

/* A write that ends while a flush is under way is not that flush's. */
static void not_that_flush(void)
{
	struct blk_vol *v = direct(BLK_ENGINE_AIO, 0);
	uint8_t *buf = aligned(64 * KB);
	struct many m = {0};
	struct tq t;

	if (!v)
		return;
	tq_open(&t, v, 16);
	m.t = &t;
	g_assert_cmpint(flushes(&t), ==, 1);
	for (int k = 0; k < 50; k++) {
		int before = syncs;

		/* Both in one turn: the flush begins before the write has ended, in whatever order they end. */
		m.n = 0;
		add(&m, VH_WRITE, 0, buf, 4 * KB, 0);
		add(&m, VH_FLUSH, 0, NULL, 0, 0);
		go(&m);
		g_assert_cmpint(syncs - before, ==, 0); /* nothing had ended */
		g_assert_cmpint(flushes(&t), ==, 1);
	}
	tq_close(&t);
	blk_vol_put(v);
	free(buf);
}

/* Many queues write and flush at once; a flush of one may be covered by that of another, but some flush has reached the kernel
 * since the write was submitted. */
struct racer { struct tq t; uint8_t *buf; unsigned n; GThread *thread; };
static gpointer race(gpointer arg)
{
	struct racer *r = arg;

	for (unsigned k = 0; k < 150; k++) {
		int at = ++ticket;

		g_assert_cmpint(tq_io(&r->t, VH_WRITE, 0, r->buf, 4 * KB, (r->n * 150u + k) * 4ull * KB), ==, 0);
		g_assert_cmpint(tq_io(&r->t, VH_FLUSH, 0, NULL, 0, 0), ==, 0);
		g_assert_cmpint(last_sync, >, at);
	}
	return NULL;
}
static void races(void)
{
	struct blk_vol *v = direct(BLK_ENGINE_AIO, 0);
	struct racer r[4];
	int before;

	if (!v)
		return;
	before = syncs;
	for (unsigned k = 0; k < 4; k++) {
		r[k].n = k;
		r[k].buf = aligned(4096);
		tq_open(&r[k].t, v, 4);
	}
	for (unsigned k = 0; k < 4; k++)
		r[k].thread = g_thread_new("race", race, &r[k]);
	for (unsigned k = 0; k < 4; k++)
		g_thread_join(r[k].thread);
	g_assert_cmpint(syncs, >, before);
	flushes(&r[0].t);
	g_assert_cmpint(flushes(&r[0].t), ==, 0); /* all of them are covered, once nothing is written any more */
	for (unsigned k = 0; k < 4; k++) {
		tq_close(&r[k].t);
		free(r[k].buf);
	}
	blk_vol_put(v);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_data_func("/blk/merge/neighbours-aio", GINT_TO_POINTER(BLK_ENGINE_AIO), neighbours);
	g_test_add_data_func("/blk/merge/neighbours-uring", GINT_TO_POINTER(BLK_ENGINE_URING), neighbours);
	g_test_add_data_func("/blk/merge/neighbours-threads", GINT_TO_POINTER(BLK_ENGINE_THREADS), neighbours);
	g_test_add_func("/blk/merge/errors-are-their-own", errors);
	g_test_add_func("/blk/merge/short-file", short_file);
	g_test_add_data_func("/blk/flush/needless-aio", GINT_TO_POINTER(BLK_ENGINE_AIO), needless);
	g_test_add_data_func("/blk/flush/needless-threads", GINT_TO_POINTER(BLK_ENGINE_THREADS), needless);
	g_test_add_func("/blk/flush/none", none);
	g_test_add_func("/blk/flush/not-that-flush", not_that_flush);
	g_test_add_func("/blk/flush/races", races);
	return g_test_run();
}
