/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Writes that allocate together: counted, and each with its own result. */
#include "rig.h"

#define MB (1u << 20)
#define U 65536u
#define N 16u
#define CAPS (VH_VOL_GROW | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_ZERO_ON_GROW)

static struct blk_vol *v;
static struct fmt_image *image;
static struct rig_queue q[2];
static uint8_t *data, *back;

static void up(enum fmt_policy policy)
{
	memset(&shim, 0, sizeof(shim));
	rig_forget();
	v = fake_vol_new("toy", 0, CAPS);
	rig_create(v, "toy-format", 4 * MB, NULL, NULL, 0);
	image = rig_open(v, "toy-format", 1, policy);
	for (int k = 0; k < 2; k++)
		rig_queue_open(&q[k], image, 64);
	data = g_malloc(2 * MB);
	back = g_malloc(2 * MB);
	for (unsigned k = 0; k < 2 * MB; k++)
		data[k] = (uint8_t)(1 + k / 509 % 250);
}

static void down(void)
{
	for (int k = 0; k < 2; k++)
		rig_queue_close(&q[k]);
	fmt_close(image); /* what may still land is kept until then */
	image = rig_open(v, "toy-format", 1, FMT_REPORT);
	g_assert_cmpint(rig_check(image), ==, 0);
	fmt_close(image);
	blk_vol_put(v);
	g_free(data);
	g_free(back);
}

static void same(uint64_t len, uint64_t off)
{
	memset(back, 0, len);
	g_assert_cmpint(rig_io(&q[0], VH_READ, 0, back, len, off), ==, 0);
	g_assert_cmpint(memcmp(back, data + off, len), ==, 0);
}

/* Some requests in one turn of the loop, as a guest's doorbell brings them. */
struct batch {
	struct rig_queue *q;
	struct rig_async a[64];
	unsigned n, kick;
};

static void ended(struct fmt_io *io, int result)
{
	struct rig_async *a = (struct rig_async *)io;

	a->result = result;
	a->done = 1;
}

static struct rig_async *add(struct batch *b, uint16_t op, uint16_t flags, uint64_t len, uint64_t off)
{
	struct rig_async *a = &b->a[b->n++];

	memset(a, 0, sizeof(*a));
	a->iov = (struct iovec){data + off, len};
	a->io = (struct fmt_io){.op = op, .flags = flags, .off = off, .len = len, .iov = &a->iov, .niov = 1, .done = ended};
	return a;
}

static void submit(void *ctx)
{
	struct batch *b = ctx;

	for (unsigned k = 0; k < b->n; k++)
		fmt_submit(b->q->q, &b->a[k].io);
	if (b->kick)
		fmt_kick(b->q->q);
}

static void go(struct batch *b)
{
	loop_call(b->q->l, submit, b);
	for (unsigned k = 0; k < b->n; k++)
		rig_wait(&b->a[k]);
}

static void sequence(struct batch *b, unsigned n, unsigned len, uint64_t off, uint16_t flags)
{
	b->n = 0;
	for (unsigned k = 0; k < n; k++)
		add(b, VH_WRITE, flags, len, off + (uint64_t)k * len);
}

static void all(struct batch *b, int result)
{
	for (unsigned k = 0; k < b->n; k++)
		g_assert_cmpint(b->a[k].result, ==, result);
}

/* What a batch cost. */
struct cost { uint64_t maps, exclusive, gathered, commits, writes; };
static struct cost now(void)
{
	struct fmt_stats s;

	fmt_get_stats(image, &s);
	return (struct cost){s.map_calls, s.exclusive, s.gathered, s.commits, fake_vol_ops(v, VH_WRITE)};
}
static struct cost since(struct cost c)
{
	struct cost n = now();

	return (struct cost){n.maps - c.maps, n.exclusive - c.exclusive, n.gathered - c.gathered, n.commits - c.commits, n.writes - c.writes};
}

static void one_allocation(void)
{
	struct batch *b = g_new0(struct batch, 1);
	struct cost c;

	up(FMT_REPORT);
	b->q = &q[0];
	sequence(b, 1, 512, 20 * U, 0); /* the table's page is in memory from now on */
	go(b);
	for (b->kick = 0; b->kick < 2; b->kick++) {
		c = now();
		sequence(b, N, U / N, b->kick * 4 * U, 0);
		go(b);
		all(b, 0);
		c = since(c);
		g_assert_cmpuint(c.exclusive, ==, 1);
		g_assert_cmpuint(c.gathered, ==, N - 1);
		g_assert_cmpuint(c.commits, ==, 1);
		g_assert_cmpuint(c.writes, ==, 1);
		g_assert_cmpuint(c.maps, ==, 2); /* is it there; make it */
		same(U, b->kick * 4 * U);
	}
	b->kick = 0;
	/* Two units, one after the other: two allocations, nothing else. */
	c = now();
	sequence(b, 32, 4096, 8 * U, 0);
	go(b);
	c = since(c);
	g_assert_cmpuint(c.exclusive, ==, 2);
	g_assert_cmpuint(c.gathered, ==, 30);
	same(2 * U, 8 * U);
	/* From the middle of a unit, to the middle: the rest is zeros. */
	c = now();
	sequence(b, 6, 3000, 12 * U + 1000, 0);
	go(b);
	c = since(c);
	g_assert_cmpuint(c.exclusive, ==, 1);
	g_assert_cmpuint(c.writes, ==, 1);
	same(18000, 12 * U + 1000);
	memset(data + 12 * U, 0, 1000);
	memset(data + 12 * U + 19000, 0, U - 19000);
	same(U, 12 * U);
	down();
	g_free(b);
}

/* Who does not follow, is flushed through, or would make too many segments, goes alone, and nothing is lost. */
static void not_all_go(void)
{
	struct batch *b = g_new0(struct batch, 1);
	struct cost c;

	up(FMT_REPORT);
	b->q = &q[0];
	sequence(b, 1, 512, 20 * U, 0);
	go(b);
	c = now();
	sequence(b, N, U / N, 0, VH_REQ_FUA);
	go(b);
	all(b, 0);
	g_assert_cmpuint(since(c).gathered, ==, 0);
	same(U, 0);
	c = now();
	b->n = 0;
	for (unsigned k = 0; k < N / 2; k++) /* every other piece */
		add(b, VH_WRITE, 0, U / N, U + 2 * k * (U / N));
	go(b);
	all(b, 0);
	g_assert_cmpuint(since(c).gathered, ==, 0);
	for (unsigned k = 0; k < N / 2; k++)
		same(U / N, U + 2 * k * (U / N));
	c = now();
	sequence(b, 64, 1024, 2 * U, 0); /* 64 segments */
	go(b);
	all(b, 0);
	g_assert_cmpuint(since(c).gathered, >, 8);
	g_assert_cmpuint(since(c).gathered, <, 63);
	same(U, 2 * U);
	c = now();
	sequence(b, 8, 4096, 3 * U, 0); /* a read between, and the same bytes again */
	add(b, VH_READ, 0, 4096, 3 * U + 8 * 4096)->iov.iov_base = back;
	add(b, VH_WRITE, 0, 4096, 3 * U + 7 * 4096);
	add(b, VH_WRITE, 0, 4096, 3 * U + 8 * 4096);
	go(b);
	all(b, 0);
	g_assert_cmpuint(since(c).gathered, ==, 8); /* the seven that follow, and the last one */
	same(9 * 4096, 3 * U);
	down();
	g_free(b);
}

static int map_slowly(void *img, struct vh_map *m)
{
	const struct vh_format_ops *ops;

	if (plug_format("toy-format", &ops, NULL) < 0)
		return -EIO;
	if (m->flags & VH_MAP_OVERWRITE_ONLY) {
		if (m->flags & VH_MAP_NOWAIT)
			return -EAGAIN;
		g_usleep(300);
	}
	return ops->map(img, m);
}

/* Who learns together that nothing is there does not allocate one after the other: one ticket. */
static void found_together(void)
{
	struct batch *b = g_new0(struct batch, 1);
	struct cost c;

	up(FMT_REPORT);
	b->q = &q[0];
	sequence(b, 1, U, 0, 0);
	go(b);
	g_assert_cmpint(rig_io(&q[0], VH_FLUSH, 0, NULL, 0, 0), ==, 0);
	/* All wait behind a discard, and are let go at once. */
	c = now();
	b->n = 0;
	add(b, VH_DISCARD, 0, U, 0)->io.niov = 0;
	for (unsigned k = 0; k < N; k++)
		add(b, VH_WRITE, 0, U / N, k * (U / N));
	go(b);
	all(b, 0);
	c = since(c);
	g_assert_cmpuint(c.exclusive, ==, 2);
	g_assert_cmpuint(c.gathered, ==, N - 1);
	same(U, 0);
	/* All come back from a worker, one by one. */
	shim.map = map_slowly;
	c = now();
	sequence(b, N, U / N, 4 * U, 0);
	go(b);
	all(b, 0);
	shim.map = NULL;
	g_assert_cmpuint(since(c).exclusive, ==, 1);
	same(U, 4 * U);
	down();
	g_free(b);
}

static int full_once;
static int map_full(void *img, struct vh_map *m)
{
	const struct vh_format_ops *ops;

	if (plug_format("toy-format", &ops, NULL) < 0)
		return -EIO;
	if (m->op == VH_MAP_WRITE && !(m->flags & VH_MAP_OVERWRITE_ONLY) && full_once) {
		full_once = 0;
		return -ENOSPC;
	}
	return ops->map(img, m);
}

/* The allocation fails once, together: each tries for itself, and all of them succeed. */
static void fails_together(void)
{
	struct batch *b = g_new0(struct batch, 1);
	struct cost c;

	up(FMT_REPORT);
	b->q = &q[0];
	sequence(b, 1, 512, 20 * U, 0);
	go(b);
	shim.map = map_full;
	full_once = 1;
	c = now();
	sequence(b, N, U / N, 0, 0);
	go(b);
	all(b, 0);
	g_assert_cmpuint(since(c).gathered, ==, N - 1);
	same(U, 0);
	/* Alone it fails. */
	full_once = 1;
	sequence(b, 1, 4096, 5 * U, 0);
	go(b);
	all(b, -ENOSPC);
	/* The volume fails for good: everybody's error, nothing is allocated, and later it goes. */
	fake_vol_fail_op(v, VH_WRITE, -EIO);
	c = now();
	sequence(b, N, U / N, 7 * U, 0);
	go(b);
	all(b, -EIO);
	fake_vol_fail_op(v, VH_WRITE, 0);
	memset(back, 1, U);
	g_assert_cmpint(rig_io(&q[0], VH_READ, 0, back, U, 7 * U), ==, 0);
	for (unsigned k = 0; k < U; k++)
		g_assert_cmpuint(back[k], ==, 0);
	sequence(b, N, U / N, 7 * U, 0);
	go(b);
	all(b, 0);
	same(U, 7 * U);
	/* Time out: nobody tries again while the data may still land. */
	fake_vol_fail_op(v, VH_WRITE, -ETIMEDOUT);
	c = now();
	sequence(b, N, U / N, 9 * U, 0);
	go(b);
	all(b, -ETIMEDOUT);
	g_assert_cmpuint(since(c).exclusive, ==, 1);
	fake_vol_fail_op(v, VH_WRITE, 0);
	down();
	g_free(b);
}

/* What a policy keeps is kept one by one, and runs again. */
static void kept(void)
{
	struct batch *b = g_new0(struct batch, 1);

	up(FMT_STOP);
	b->q = &q[0];
	sequence(b, 1, 512, 20 * U, 0);
	go(b);
	fake_vol_fail_op(v, VH_WRITE, -EIO);
	sequence(b, N, U / N, 0, 0);
	loop_call(b->q->l, submit, b);
	for (int k = 0; !rig_stops && k < 10000; k++)
		g_usleep(100);
	g_usleep(5000);
	for (unsigned k = 0; k < N; k++)
		g_assert_false(b->a[k].done);
	fmt_drain_begin(image);
	fmt_drain_end(image);
	fake_vol_fail_op(v, VH_WRITE, 0);
	fmt_resume(image);
	for (unsigned k = 0; k < N; k++)
		g_assert_cmpint(rig_wait(&b->a[k]), ==, 0);
	same(U, 0);
	down();
	g_free(b);
}

/* Two queues into the same units at once, pieces by turns, under drains: everything arrives. */
static void two_queues(void)
{
	struct batch *b[2] = {g_new0(struct batch, 1), g_new0(struct batch, 1)};

	up(FMT_REPORT);
	for (unsigned round = 0; round < 30; round++) {
		uint64_t at = (uint64_t)round * U;

		for (unsigned k = 0; k < 2; k++) {
			b[k]->q = &q[k];
			b[k]->kick = round & 1;
			sequence(b[k], N / 2, U / N, at + k * (U / 2), 0);
			loop_call(q[k].l, submit, b[k]);
		}
		if (round % 3 == 0) {
			fmt_drain_begin(image);
			fmt_drain_end(image);
		}
		for (unsigned k = 0; k < 2; k++) {
			for (unsigned j = 0; j < b[k]->n; j++)
				g_assert_cmpint(rig_wait(&b[k]->a[j]), ==, 0);
		}
		same(U, at);
	}
	down();
	g_free(b[0]);
	g_free(b[1]);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/fmt/gather/one-allocation", one_allocation);
	g_test_add_func("/fmt/gather/not-all-go", not_all_go);
	g_test_add_func("/fmt/gather/found-together", found_together);
	g_test_add_func("/fmt/gather/fails-together", fails_together);
	g_test_add_func("/fmt/gather/kept", kept);
	g_test_add_func("/fmt/gather/two-queues", two_queues);
	return g_test_run();
}
