/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Images: the flat path, caches, stale answers, drains, policies, faults, flushes, sizes. */
#include "rig.h"

#define MB (1u << 20)
#define U 65536u
#define CAPS (VH_VOL_GROW | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_ZERO_ON_GROW)

/* Allocations made by a thread that runs a loop. Sanitizers have an allocator of their own. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define COUNTED 1
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t m);
void *__libc_realloc(void *p, size_t n);
static _Atomic int counting, allocations;
static void tick(void)
{
	if (counting && loop_current)
		allocations++;
}
void *malloc(size_t n) { tick(); return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { tick(); return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { tick(); return __libc_realloc(p, n); }
#else
#define COUNTED 0
static _Atomic int counting, allocations;
#endif

static void reset(void)
{
	memset(&shim, 0, sizeof(shim));
	rig_stops = 0;
	rig_forget();
}

static struct blk_vol *toy_new(uint64_t bytes)
{
	struct blk_vol *v = fake_vol_new("toy", 0, CAPS);

	rig_create(v, "toy-format", bytes, NULL, NULL, 0);
	return v;
}

static void fill(uint8_t *b, size_t n, uint8_t x) { memset(b, x, n); }
static void is(const uint8_t *b, size_t n, uint8_t x)
{
	for (size_t k = 0; k < n; k++)
		if (b[k] != x)
			g_error("byte %zu is %u, should be %u", k, b[k], x);
}

static void flat(void)
{
	struct blk_vol *v = fake_vol_new("raw", 4 * MB, CAPS);
	struct fmt_image *i;
	struct rig_queue q;
	struct fmt_info info;
	uint8_t *b = g_malloc(MB);

	reset();
	fake_vol_sync(v, 1);
	i = rig_open(v, "raw", 1, FMT_REPORT);
	shim.maps = 0;
	fmt_get_info(i, &info);
	g_assert_cmpuint(info.bytes, ==, 4 * MB);
	g_assert_true(info.discard && info.zero && !info.read_only);
	rig_queue_open(&q, i, 16);
	counting = 1;
	for (int k = 0; k < 100; k++) {
		fill(b, 4096, (uint8_t)k);
		g_assert_cmpint(rig_io(&q, VH_WRITE, k % 2 ? VH_REQ_FUA : 0, b, 4096, (uint64_t)k * 8192 + 17), ==, 0);
		fill(b, 4096, 255);
		g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 4096, (uint64_t)k * 8192 + 17), ==, 0);
		is(b, 4096, (uint8_t)k);
	}
	g_assert_cmpint(rig_io(&q, VH_ZERO, 0, NULL, 8192, 17), ==, 0);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 8192, 17), ==, 0);
	is(b, 8192, 0);
	g_assert_cmpint(rig_io(&q, VH_DISCARD, 0, NULL, 4096, 8192), ==, 0);
	g_assert_cmpuint(fake_vol_ops(v, VH_DISCARD), ==, 1);
	g_assert_cmpint(rig_io(&q, VH_FLUSH, 0, NULL, 0, 0), ==, 0);
	counting = 0;
	g_assert_cmpint(allocations, ==, 0);
	g_assert_cmpuint(shim.maps, ==, 0); /* the plugin is not asked again */
	/* Wrong requests. */
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 512, 4 * MB), ==, -EINVAL);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 4096, 4 * MB - 512), ==, -EINVAL);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 512, UINT64_MAX - 511), ==, -EINVAL);
	g_assert_cmpint(rig_io(&q, VH_ZERO, 0, NULL, UINT64_MAX, 0), ==, -EINVAL);
	g_assert_cmpint(rig_io(&q, 9, 0, NULL, 0, 0), ==, -EOPNOTSUPP);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, NULL, 0, 0), ==, 0);
	rig_queue_close(&q);
	fmt_close(i);
	blk_vol_put(v);
	g_free(b);
}

static void read_only(void)
{
	struct blk_vol *v = fake_vol_new("raw", MB, CAPS | VH_VOL_READ_ONLY);
	struct fmt_image *i = rig_open(v, "raw", 0, FMT_REPORT);
	struct rig_queue q;
	uint8_t b[512] = {0};

	reset();
	rig_queue_open(&q, i, 2);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 512, 0), ==, 0);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 512, 0), ==, -EROFS);
	g_assert_cmpint(rig_io(&q, VH_ZERO, 0, NULL, 512, 0), ==, -EROFS);
	g_assert_cmpint(rig_io(&q, VH_FLUSH, 0, NULL, 0, 0), ==, 0);
	g_assert_cmpint(fmt_pwrite(i, b, 512, 0, NULL), ==, -EROFS);
	rig_queue_close(&q);
	fmt_close(i);
	blk_vol_put(v);
}

/* Mapped once, then neither a call of the plugin nor an allocation. */
static void cached(void)
{
	struct blk_vol *v = toy_new(8 * MB);
	struct fmt_image *i;
	struct rig_queue q;
	struct fmt_stats before, after;
	uint8_t *b = g_malloc(4 * MB);

	reset();
	fake_vol_sync(v, 1);
	i = rig_open(v, "toy-format", 1, FMT_REPORT);
	rig_queue_open(&q, i, 16);
	fill(b, 4 * MB, 7);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 4 * MB, 0), ==, 0);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 4 * MB, 0), ==, 0);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 4 * MB, 0), ==, 0);
	is(b, 4 * MB, 7);
	shim.maps = 0;
	allocations = 0;
	fmt_get_stats(i, &before);
	counting = 1;
	for (int k = 0; k < 500; k++) {
		g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 9000, (uint64_t)k * 8000), ==, 0);
		g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 9000, (uint64_t)k * 8000), ==, 0);
	}
	counting = 0;
	fmt_get_stats(i, &after);
	g_assert_cmpuint(shim.maps, ==, 0);
	g_assert_cmpuint(after.map_calls, ==, before.map_calls);
	g_assert_cmpuint(after.cache_hits - before.cache_hits, >=, 1000);
	/* Neither does one that is mapped and allocated. The plugin's own memory is its own. */
	shim.maps = 0;
	counting = 1;
	for (int k = 64; k < 128; k++)
		g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 4096, (uint64_t)k * U + 512), ==, 0);
	counting = 0;
	g_assert_cmpuint(shim.maps, >, 64);
	if (COUNTED)
		g_assert_cmpint(allocations, ==, 0);
	rig_queue_close(&q);
	g_assert_cmpint(rig_check(i), ==, 0);
	fmt_close(i);
	blk_vol_put(v);
	g_free(b);
}

/* Mapped requests hold their range: what changes the mapping waits for them, and they for it. */
static void mapped(void)
{
	struct blk_vol *v = toy_new(4 * MB);
	struct fmt_image *i;
	struct rig_queue q;
	struct rig_async w[64], z, after;
	uint8_t *b = g_malloc(MB);

	reset();
	fake_vol_sync(v, 1);
	i = rig_open(v, "toy-format", 1, FMT_REPORT);
	rig_queue_open(&q, i, 16);
	fill(b, MB, 7);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, MB, 0), ==, 0);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, MB, 0), ==, 0);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, MB, 0), ==, 0);
	for (int round = 0; round < 2; round++) {
		shim.maps = 0;
		fake_vol_hold(v, 1);
		/* Once within the depth of the queue, once far past it: the rest waits in line. */
		for (int k = 0; k < (round ? 64 : 4); k++)
			rig_start(&w[k], &q, k % 2 ? VH_READ : VH_WRITE, 0, b + k * 4096, 4096, (uint64_t)k * 4096);
		rig_start(&z, &q, VH_ZERO, 0, NULL, U, 0);
		rig_start(&after, &q, VH_READ, 0, b + MB / 2, 4096, 4096);
		g_usleep(20000);
		g_assert_cmpuint(shim.maps, ==, 0);
		for (int k = 0; k < (round ? 64 : 4); k++)
			g_assert_false(w[k].done);
		fake_vol_hold(v, 0);
		for (int k = 0; k < (round ? 64 : 4); k++)
			g_assert_cmpint(rig_wait(&w[k]), ==, 0);
		g_assert_cmpint(rig_wait(&z), ==, 0);
		g_assert_cmpint(rig_wait(&after), ==, 0);
		is(b + MB / 2, 4096, 0);
		g_assert_cmpuint(shim.maps, >, 0);
		is(b, 4 * 4096, 7);
		/* And again mapped: with the zeros gone. */
		fill(b, MB, 7);
		g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, U, 0), ==, 0);
		g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, U, 0), ==, 0);
		g_assert_cmpint(rig_io(&q, VH_READ, 0, b, U, 0), ==, 0);
		is(b, U, 7);
	}
	/* An error is the request's own. */
	fake_vol_fail_op(v, VH_WRITE, -EIO);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 4096, 0), ==, -EIO);
	fake_vol_fail_op(v, VH_WRITE, 0);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 4096, 0), ==, 0);
	rig_queue_close(&q);
	g_assert_cmpint(rig_check(i), ==, 0);
	fmt_close(i);
	blk_vol_put(v);
	g_free(b);
}

/* A slow answer that says "nothing here" of more than was asked arrives after another queue has written there. */
static _Atomic int stale_stage;
static void stale_hook(struct vh_map *m, int before)
{
	if (m->op != VH_MAP_READ || before || m->pos != 0 || (m->flags & VH_MAP_NOWAIT) || stale_stage)
		return;
	stale_stage = 1; /* the answer is made; it is handed over once the write has ended */
	for (int k = 0; stale_stage != 2 && k < 100000; k++)
		g_usleep(100);
}

static _Atomic int stale_pass;
static int stale_map_read(void *img, struct vh_map *m)
{
	const struct vh_format_ops *ops;

	if (plug_format("toy-format", &ops, NULL) < 0)
		return -EIO;
	if (m->op == VH_MAP_READ && m->pos == 0 && !stale_pass) {
		struct vh_map all = *m;
		int r;

		if (m->flags & VH_MAP_NOWAIT)
			return -EAGAIN;
		stale_pass = 1;
		all.len = MB; /* the whole disk, of which 4 KiB were asked for */
		r = ops->map(img, &all);
		m->n = all.n;
		return r;
	}
	return ops->map(img, m);
}

static void stale(void)
{
	struct blk_vol *v = toy_new(MB);
	struct fmt_image *i;
	struct rig_queue q1, q2;
	struct rig_async a;
	uint8_t b[4096], c[4096];

	reset();
	shim.lock_self = 1; /* the plugin's calls are one at a time here, but for the one that sleeps */
	i = rig_open(v, "toy-format", 1, FMT_REPORT);
	fill(b, 4096, 9);
	/* The table is in memory, so that only the slow answer waits. */
	g_assert_cmpint(fmt_pwrite(i, b, 512, MB - 512, NULL), ==, 0);
	shim.on_map = stale_hook;
	shim.map = stale_map_read;
	rig_queue_open(&q1, i, 4);
	rig_queue_open(&q2, i, 4);
	rig_start(&a, &q1, VH_READ, 0, c, 4096, 0);
	while (!stale_stage)
		g_usleep(100);
	g_assert_cmpint(rig_io(&q2, VH_WRITE, 0, b, 4096, 8 * U), ==, 0);
	g_assert_false(a.done);
	stale_stage = 2;
	g_assert_cmpint(rig_wait(&a), ==, 0);
	is(c, 4096, 0);
	g_assert_cmpint(rig_io(&q1, VH_READ, 0, c, 4096, 8 * U), ==, 0);
	is(c, 4096, 9);
	rig_queue_close(&q1);
	rig_queue_close(&q2);
	fmt_close(i);
	blk_vol_put(v);
	reset();
}

static void drain(void)
{
	struct blk_vol *v = toy_new(4 * MB);
	struct fmt_image *i;
	struct rig_queue q[4];
	static struct rig_async a[4][8];
	uint8_t *b = g_malloc(64 * U);
	uint64_t writes;

	reset();
	i = rig_open(v, "toy-format", 0, FMT_REPORT);
	for (int k = 0; k < 4; k++)
		rig_queue_open(&q[k], i, 8);
	fill(b, 64 * U, 3);
	for (int round = 0; round < 50; round++) {
		for (int k = 0; k < 4; k++)
			for (int j = 0; j < 4; j++)
				rig_start(&a[k][j], &q[k], j % 2 ? VH_READ : VH_WRITE, 0, b + (k * 8 + j) * U, U / 2 + 512,
					  (uint64_t)((k * 5 + j * 7 + round) % 60) * U + 100);
		fmt_drain_begin(i);
		for (int k = 0; k < 4; k++)
			for (int j = 0; j < 4; j++)
				g_assert_true(a[k][j].done);
		writes = fake_vol_ops(v, VH_WRITE) + fake_vol_ops(v, VH_READ);
		for (int k = 0; k < 4; k++)
			rig_start(&a[k][7], &q[k], VH_READ, 0, b + (k * 8 + 7) * U, 4096, (uint64_t)k * U);
		fmt_drain_begin(i); /* nests */
		fmt_drain_end(i);
		g_usleep(500);
		for (int k = 0; k < 4; k++)
			g_assert_false(a[k][7].done);
		g_assert_cmpuint(fake_vol_ops(v, VH_WRITE) + fake_vol_ops(v, VH_READ), ==, writes);
		fmt_drain_end(i);
		for (int k = 0; k < 4; k++)
			g_assert_cmpint(rig_wait(&a[k][7]), ==, 0);
	}
	for (int k = 0; k < 4; k++)
		rig_queue_close(&q[k]);
	g_assert_cmpint(rig_check(i), ==, 0);
	fmt_close(i);
	blk_vol_put(v);
	g_free(b);
}

static void policies_of(const char *format, struct blk_vol *v)
{
	struct fmt_image *i;
	struct rig_queue q;
	struct rig_async a, c;
	uint8_t b[4096];

	reset();
	i = rig_open(v, format, 0, FMT_STOP);
	rig_queue_open(&q, i, 4);
	fill(b, 4096, 5);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 4096, U), ==, 0);
	fake_vol_fail_op(v, VH_WRITE, -EIO);
	rig_start(&a, &q, VH_WRITE, 0, b, 4096, 0);
	rig_start(&c, &q, VH_WRITE, 0, b, 4096, 5 * U);
	for (int k = 0; !rig_stops && k < 10000; k++)
		g_usleep(100);
	g_usleep(5000);
	g_assert_cmpint(rig_stops, ==, 1);
	g_assert_cmpint(rig_stop_error, ==, -EIO);
	g_assert_false(a.done || c.done);
	fmt_drain_begin(i); /* what is kept is not in flight */
	fmt_drain_end(i);
	g_assert_false(a.done || c.done);
	fmt_resume(i); /* still broken: stops once more */
	for (int k = 0; rig_stops < 2 && k < 10000; k++)
		g_usleep(100);
	g_assert_cmpint(rig_stops, >=, 2);
	g_usleep(5000);
	fake_vol_fail_op(v, VH_WRITE, 0);
	fmt_resume(i);
	g_assert_cmpint(rig_wait(&a), ==, 0);
	g_assert_cmpint(rig_wait(&c), ==, 0);
	fill(b, 4096, 0);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 4096, 5 * U), ==, 0);
	is(b, 4096, 5);
	/* What is kept when the queue is closed is cancelled. */
	fake_vol_fail_op(v, VH_WRITE, -EIO);
	rig_start(&a, &q, VH_WRITE, 0, b, 4096, 0);
	g_usleep(20000);
	g_assert_false(a.done);
	rig_queue_close(&q);
	g_assert_cmpint(rig_wait(&a), ==, -ECANCELED);
	fake_vol_fail_op(v, VH_WRITE, 0);
	fmt_close(i);
	/* Stop on ENOSPC only. */
	reset();
	i = rig_open(v, format, 0, FMT_STOP_ENOSPC);
	rig_queue_open(&q, i, 4);
	fake_vol_fail_op(v, VH_WRITE, -EIO);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 4096, 0), ==, -EIO);
	fake_vol_fail_op(v, VH_WRITE, -ENOSPC);
	rig_start(&a, &q, VH_WRITE, 0, b, 4096, 0);
	g_usleep(20000);
	g_assert_false(a.done);
	g_assert_cmpint(rig_stop_error, ==, -ENOSPC);
	fake_vol_fail_op(v, VH_WRITE, 0);
	fmt_resume(i);
	g_assert_cmpint(rig_wait(&a), ==, 0);
	rig_queue_close(&q);
	fmt_close(i);
	blk_vol_put(v);
}

static void policies_flat(void) { policies_of("raw", fake_vol_new("raw", 4 * MB, CAPS)); }
static void policies_toy(void) { policies_of("toy-format", toy_new(4 * MB)); }

static int bad_map(void *img, struct vh_map *m)
{
	m->n = 1;
	m->ext[0] = (struct vh_extent){.pos = m->pos, .len = m->len, .type = VH_EXT_DATA, .vol = 3};
	return 0;
}

static void faulty(void)
{
	struct blk_vol *v = toy_new(MB);
	struct fmt_image *i;
	struct rig_queue q;
	uint8_t b[4096] = {0};
	ERR_AUTO(e);

	reset();
	i = rig_open(v, "toy-format", 1, FMT_REPORT);
	rig_queue_open(&q, i, 4);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 4096, 0), ==, 0);
	shim.map = bad_map;
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 4096, 0), ==, -EIO);
	shim.map = NULL;
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 4096, 0), ==, -EIO);
	g_assert_cmpint(rig_io(&q, VH_FLUSH, 0, NULL, 0, 0), ==, -EIO);
	g_assert_cmpint(fmt_pread(i, b, 512, 0, &e), ==, -EIO);
	rig_queue_close(&q);
	shim.flushes = 0;
	fmt_close(i);
	g_assert_cmpuint(shim.flushes, ==, 0); /* what a faulted image would write is not wanted */
	blk_vol_put(v);
}

/* Eight flushes at once take two runs at most: the one that is under way, and one for all the others. */
static void flushes(void)
{
	struct blk_vol *v = toy_new(MB);
	struct fmt_image *i;
	struct rig_queue q[4];
	static struct rig_async a[4][4];
	uint8_t b[4096] = {1};

	reset();
	i = rig_open(v, "toy-format", 1, FMT_REPORT);
	for (int k = 0; k < 4; k++)
		rig_queue_open(&q[k], i, 8);
	g_assert_cmpint(rig_io(&q[0], VH_WRITE, 0, b, 4096, 0), ==, 0);
	shim.flushes = 0;
	fake_vol_hold(v, 1);
	for (int j = 0; j < 4; j++)
		for (int k = 0; k < 4; k++)
			rig_start(&a[k][j], &q[k], VH_FLUSH, 0, NULL, 0, 0);
	g_usleep(5000);
	fake_vol_hold(v, 0);
	for (int j = 0; j < 4; j++)
		for (int k = 0; k < 4; k++)
			g_assert_cmpint(rig_wait(&a[k][j]), ==, 0);
	g_assert_cmpuint(shim.flushes, <=, 2);
	/* FUA of an allocating write is a flush too, and so is one in place while the mapping is not durable. */
	shim.flushes = 0;
	g_assert_cmpint(rig_io(&q[0], VH_WRITE, VH_REQ_FUA, b, 4096, 3 * U), ==, 0);
	g_assert_cmpuint(shim.flushes, ==, 1);
	g_assert_cmpint(rig_io(&q[0], VH_WRITE, VH_REQ_FUA, b, 4096, 3 * U), ==, 0);
	g_assert_cmpuint(shim.flushes, ==, 1);
	g_assert_cmpint(rig_io(&q[0], VH_WRITE, 0, b, 4096, 4 * U), ==, 0);
	g_assert_cmpint(rig_io(&q[0], VH_WRITE, VH_REQ_FUA, b, 512, 4 * U), ==, 0);
	g_assert_cmpuint(shim.flushes, ==, 2);
	/* A failed flush is told to everyone who waited for it. */
	fake_vol_fail_op(v, VH_FLUSH, -EIO);
	for (int k = 0; k < 4; k++)
		rig_start(&a[k][0], &q[k], VH_FLUSH, 0, NULL, 0, 0);
	for (int k = 0; k < 4; k++)
		g_assert_cmpint(rig_wait(&a[k][0]), ==, -EIO);
	fake_vol_fail_op(v, VH_FLUSH, 0);
	for (int k = 0; k < 4; k++)
		rig_queue_close(&q[k]);
	fmt_close(i);
	blk_vol_put(v);
}

static uint64_t told;
static void size_changed(void *ctx, uint64_t bytes) { told = bytes; }

static void resize(void)
{
	struct blk_vol *v = fake_vol_new("raw", MB, CAPS), *base, *t;
	struct fmt_image *i = rig_open(v, "raw", 0, FMT_REPORT);
	struct rig_queue q;
	uint8_t *b = g_malloc(2 * MB);

	reset();
	fmt_listen(i, size_changed, NULL);
	rig_queue_open(&q, i, 4);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 512, MB), ==, -EINVAL);
	g_assert_cmpint(fmt_resize(i, 2 * MB, NULL), ==, 0);
	g_assert_cmpuint(told, ==, 2 * MB);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 512, MB), ==, 0);
	g_assert_cmpint(fmt_resize(i, MB / 2, NULL), ==, 0);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 512, MB / 2), ==, -EINVAL);
	rig_queue_close(&q);
	fmt_close(i);
	blk_vol_put(v);

	/* A grown overlay does not show what lies below past its old end. */
	base = fake_vol_new("base", 2 * MB, CAPS);
	fill(fake_vol_data(base), 2 * MB, 0xAA);
	rig_register("base", base);
	t = fake_vol_new("top", 0, CAPS);
	rig_create(t, "toy-format", MB + 512, "base", "raw", 2 * MB);
	i = rig_open(t, "toy-format", 0, FMT_REPORT);
	rig_queue_open(&q, i, 4);
	g_assert_cmpint(fmt_resize(i, 2 * MB, NULL), ==, 0);
	fill(b, 2 * MB, 1);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, 2 * MB, 0), ==, 0);
	is(b, MB + 512, 0xAA);
	is(b + MB + 512, MB - 512, 0);
	fill(b, 512, 0xBB); /* allocates the cluster in which the old end lies */
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 512, MB), ==, 0);
	g_assert_cmpint(rig_io(&q, VH_READ, 0, b, MB, MB), ==, 0);
	is(b, 512, 0xBB);
	is(b + 512, MB - 512, 0);
	rig_queue_close(&q);
	fmt_close(i);
	blk_vol_put(t);
	blk_vol_put(base);
	g_free(b);
}

/* A write that timed out may land later: its cluster is nobody's until the image is closed. */
static void timeout_leaks(void)
{
	struct blk_vol *v = toy_new(MB);
	struct fmt_image *i;
	struct rig_queue q;
	uint8_t b[4096] = {1};

	reset();
	i = rig_open(v, "toy-format", 1, FMT_REPORT);
	rig_queue_open(&q, i, 4);
	fake_vol_fail_op(v, VH_WRITE, -EIO);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 4096, 0), ==, -EIO);
	g_assert_cmpint(rig_check(i), ==, 0);
	fake_vol_fail_op(v, VH_WRITE, -ETIMEDOUT);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 4096, 0), ==, -ETIMEDOUT);
	g_assert_cmpint(rig_check(i), ==, 1);
	fake_vol_fail_op(v, VH_WRITE, 0);
	g_assert_cmpint(rig_io(&q, VH_WRITE, 0, b, 4096, 0), ==, 0);
	rig_queue_close(&q);
	fmt_close(i);
	i = rig_open(v, "toy-format", 0, FMT_REPORT);
	g_assert_cmpint(rig_check(i), ==, 0);
	fmt_close(i);
	blk_vol_put(v);
}

static int chain_resolve(void *ctx, const struct vh_ref *ref, int read_only, struct blk_vol **vol, char format[32],
			 struct vh_err *e)
{
	++*(int *)ctx;
	*vol = fake_vol_new("again", 0, CAPS); /* an image that names itself, under another name each time */
	rig_create(*vol, "toy-format", MB, "again", "toy-format", MB);
	g_strlcpy(format, "toy-format", 32);
	return 0;
}

static void endless_chain(void)
{
	int n = 0;
	struct fmt_spec s = {.resolve = chain_resolve, .resolve_ctx = &n, .label = "endless"};
	struct fmt_image *i;
	ERR_AUTO(e);

	reset();
	s.vol = fake_vol_new("first", 0, CAPS);
	rig_create(s.vol, "toy-format", MB, "again", "toy-format", MB);
	g_assert_cmpint(plug_format("toy-format", &s.ops, &e), ==, 0);
	g_assert_cmpint(fmt_open(&s, &i, &e), ==, -ELOOP);
	g_assert_cmpint(n, ==, 256);
	/* And without leave to open others at all. */
	err_clear(&e);
	s.resolve = NULL;
	s.vol = fake_vol_new("first", 0, CAPS);
	rig_create(s.vol, "toy-format", MB, "/etc/shadow", "raw", MB);
	g_assert_cmpint(fmt_open(&s, &i, &e), ==, -EACCES);
	g_assert_nonnull(strstr(e.cause, "/etc/shadow"));
}

struct seen { uint64_t at; char text[512]; };
static int report(void *ctx, uint64_t off, uint64_t len, uint32_t type, uint32_t depth, uint64_t addr)
{
	struct seen *s = ctx;
	size_t n = strlen(s->text);

	g_assert_cmpuint(off, ==, s->at);
	s->at = off + len;
	g_snprintf(s->text + n, sizeof(s->text) - n, "%s%u@%u+%uK", n ? " " : "", type, depth, (unsigned)(len / 1024));
	return 0;
}

static void reports(void)
{
	struct blk_vol *base = fake_vol_new("base", 256 * 1024, CAPS), *t = fake_vol_new("top", 0, CAPS);
	struct fmt_image *i;
	struct seen s = {0};
	uint8_t b[4096] = {1};

	reset();
	rig_register("base", base);
	rig_create(t, "toy-format", MB, "base", "raw", MB);
	i = rig_open(t, "toy-format", 0, FMT_REPORT);
	g_assert_cmpint(fmt_pwrite(i, b, 4096, U, NULL), ==, 0);
	g_assert_cmpint(fmt_report(i, 0, MB, report, &s, NULL), ==, 0);
	g_assert_cmpuint(s.at, ==, MB);
	g_assert_cmpstr(s.text, ==, "1@1+64K 1@0+64K 1@1+128K 2@0+768K");
	fmt_close(i);
	blk_vol_put(t);
	blk_vol_put(base);
}

/* Queues that come and go, with their loops stopped first, while another one allocates and frees. */
static void comings_and_goings(void)
{
	struct blk_vol *v = toy_new(2 * MB);
	struct fmt_image *i;
	struct rig_queue q, r;
	static struct rig_async a[8], o;
	uint8_t *b = g_malloc(8 * U), c[512] = {1};
	unsigned n = 0;

	reset();
	i = rig_open(v, "toy-format", 0, FMT_REPORT);
	rig_queue_open(&q, i, 8);
	for (int k = 0; k < 8; k++)
		a[k].done = 1;
	for (int round = 0; round < 150; round++) {
		for (int k = 0; k < 8; k++)
			if (a[k].done)
				rig_start(&a[k], &q, n++ % 2 ? VH_DISCARD : VH_WRITE, 0, b + k * U, U, (uint64_t)(k + round % 16) * U);
		rig_queue_open(&r, i, 4);
		rig_start(&o, &r, round % 2 ? VH_WRITE : VH_READ, 0, c, 512, (uint64_t)(round % 32) * U);
		g_assert_cmpint(rig_wait(&o), ==, 0);
		rig_queue_close(&r);
	}
	for (int k = 0; k < 8; k++)
		g_assert_cmpint(rig_wait(&a[k]), ==, 0);
	rig_queue_close(&q);
	g_assert_cmpint(rig_check(i), ==, 0);
	fmt_close(i);
	blk_vol_put(v);
	g_free(b);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/fmt/image/flat", flat);
	g_test_add_func("/fmt/image/read-only", read_only);
	g_test_add_func("/fmt/image/cached-ranges-cost-no-call-and-no-allocation", cached);
	g_test_add_func("/fmt/image/mapped-requests-hold-their-range", mapped);
	g_test_add_func("/fmt/image/stale-answer-is-not-cached", stale);
	g_test_add_func("/fmt/image/drain-under-load", drain);
	g_test_add_func("/fmt/image/queues-come-and-go", comings_and_goings);
	g_test_add_func("/fmt/image/policies-flat", policies_flat);
	g_test_add_func("/fmt/image/policies-mapped", policies_toy);
	g_test_add_func("/fmt/image/bad-answer-faults", faulty);
	g_test_add_func("/fmt/image/flushes-coalesce", flushes);
	g_test_add_func("/fmt/image/resize", resize);
	g_test_add_func("/fmt/image/timeout-leaks-until-close", timeout_leaks);
	g_test_add_func("/fmt/image/endless-chain-is-refused", endless_chain);
	g_test_add_func("/fmt/image/report", reports);
	return g_test_run();
}
