/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The submit tier: every way to complete, limits, back-pressure, flush scope, latching, time limits, a lost lease. */
#include <errno.h>
#include "blk-test.h"
#include "blk/blk-i.h"
#include "plug/plug.h"

#define BYTES (2u << 20)

static void set_mode(struct fake *f, int mode)
{
	f->inline_done = mode == 0;
	f->remote = mode == 1;
}

static void test_random(void)
{
	for (int mode = 0; mode < 3; mode++) /* inside submit, from threads, from the loop */
		for (uint32_t align = 1; align <= 4096; align *= align == 1 ? 512 : 8) {
			struct blk_config c = {.label = "fake"};
			struct fake *f = fake_new(BYTES, align);
			struct blk_vol *v;

			set_mode(f, mode);
			v = fake_volume(f, &c);
			random_test(v, 4, 8, 400, BYTES, 1);
			random_test(v, 1, 32, 300, BYTES, 1);
			blk_vol_put(v);
			fake_free(f);
		}
}

/* Tight limits: requests are split, and no limit is ever exceeded (fake_free checks). */
static void test_limits(void)
{
	for (int mode = 0; mode < 3; mode++) {
		struct blk_config c = {.label = "fake"};
		struct fake *f = fake_new(BYTES, 512);
		struct blk_vol *v;

		set_mode(f, mode);
		f->info.max_segments = 3;
		f->info.max_bytes = 5000; /* becomes 4608 */
		f->info.max_zero = 3000;
		f->info.max_discard = 4096;
		f->room = 2;
		v = fake_volume(f, &c);
		random_test(v, 2, 16, 400, BYTES, 1);
		blk_vol_put(v);
		fake_free(f);
	}
}

/* No zero, no FUA: emulated by writes and flushes. */
static void test_emulation(void)
{
	struct blk_config c = {.label = "fake"};
	struct fake *f = fake_new(BYTES, 512);
	g_autofree uint8_t *buf = g_malloc0(BYTES);
	struct blk_vol *v;
	struct tq t;

	f->inline_done = 1;
	f->info.caps &= ~VH_VOL_ZERO;
	memset(f->mem, 0x11, BYTES);
	v = fake_volume(f, &c);
	tq_open(&t, v, 8);
	g_assert_cmpint(tq_io(&t, VH_ZERO, 0, NULL, 1000000, 1000), ==, 0);
	g_assert_cmpint(f->mem[999], ==, 0x11);
	g_assert_cmpint(f->mem[1000] | f->mem[500000] | f->mem[1000999], ==, 0);
	g_assert_cmpint(f->mem[1001000], ==, 0x11);
	g_assert_cmpint(tq_io(&t, VH_ZERO, VH_REQ_FAST_ONLY, NULL, 4096, 0), ==, -EOPNOTSUPP);
	g_assert_cmpint(atomic_load(&f->flushes), ==, 0);
	g_assert_cmpint(tq_io(&t, VH_WRITE, VH_REQ_FUA, buf, 4096, 0), ==, 0);
	g_assert_cmpint(atomic_load(&f->flushes), ==, 1);
	g_assert_cmpint(tq_io(&t, VH_ZERO, VH_REQ_FUA, NULL, 4096, 0), ==, 0);
	g_assert_cmpint(atomic_load(&f->flushes), ==, 2);
	g_assert_cmpint(atomic_load(&f->fua), ==, 0);
	tq_close(&t);
	blk_vol_put(v);
	fake_free(f);

	f = fake_new(BYTES, 512);
	f->inline_done = 1;
	f->info.caps |= VH_VOL_FUA;
	v = fake_volume(f, &c);
	tq_open(&t, v, 8);
	g_assert_cmpint(tq_io(&t, VH_WRITE, VH_REQ_FUA, buf, 4096, 0), ==, 0);
	g_assert_cmpint(tq_io(&t, VH_WRITE, VH_REQ_FUA, buf, 100, 5000), ==, 0);
	g_assert_cmpint(atomic_load(&f->flushes), ==, 0);
	g_assert_cmpint(atomic_load(&f->fua), ==, 2);
	tq_close(&t);
	blk_vol_put(v);
	fake_free(f);
}

struct events {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned seen[16];
	uint64_t value[16];
};

static void on_event(void *ctx, uint32_t event, uint64_t value)
{
	struct events *e = ctx;
	unsigned k = event > 0x10000 ? event - 0x10000 + 7 : event;

	pthread_mutex_lock(&e->lock);
	e->seen[k]++;
	e->value[k] = value;
	pthread_cond_broadcast(&e->cond);
	pthread_mutex_unlock(&e->lock);
}

static void wait_event(struct events *e, uint32_t event)
{
	unsigned k = event > 0x10000 ? event - 0x10000 + 7 : event;

	pthread_mutex_lock(&e->lock);
	while (!e->seen[k])
		pthread_cond_wait(&e->cond, &e->lock);
	e->seen[k] = 0;
	pthread_mutex_unlock(&e->lock);
}

static void events_init(struct events *e, struct blk_vol *v)
{
	memset(e, 0, sizeof(*e));
	pthread_mutex_init(&e->lock, NULL);
	pthread_cond_init(&e->cond, NULL);
	blk_vol_listen(v, on_event, e);
}

/* After a failed flush every write and flush fails, on every queue and for blocking calls; reads go on. */
static void test_latch(void)
{
	struct blk_config c = {.label = "fake"};
	struct fake *f = fake_new(BYTES, 512);
	uint8_t b[512] = {0};
	struct events ev;
	struct blk_vol *v;
	struct tq t, u;

	v = fake_volume(f, &c);
	events_init(&ev, v);
	tq_open(&t, v, 8);
	tq_open(&u, v, 8);
	g_assert_cmpint(tq_io(&t, VH_FLUSH, 0, NULL, 0, 0), ==, 0);
	f->fail_flush = ENOSPC;
	g_assert_cmpint(tq_io(&t, VH_FLUSH, 0, NULL, 0, 0), ==, -ENOSPC);
	wait_event(&ev, BLK_EVENT_FAILED);
	f->fail_flush = 0;
	g_assert_cmpint(blk_vol_failed(v), ==, 1);
	g_assert_cmpint(tq_io(&u, VH_FLUSH, 0, NULL, 0, 0), ==, -EIO);
	g_assert_cmpint(tq_io(&u, VH_WRITE, 0, b, 512, 0), ==, -EIO);
	g_assert_cmpint(tq_io(&u, VH_WRITE, 0, b, 5, 0), ==, -EIO);
	g_assert_cmpint(tq_io(&u, VH_ZERO, 0, NULL, 512, 0), ==, -EIO);
	g_assert_cmpint(blk_write(v, b, 512, 0, NULL), ==, -EIO);
	g_assert_cmpint(blk_flush(v, NULL), ==, -EIO);
	g_assert_cmpint(tq_io(&t, VH_READ, 0, b, 512, 0), ==, 0);
	g_assert_cmpint(tq_io(&t, VH_READ, 0, b, 5, 3), ==, 0);
	tq_close(&t);
	tq_close(&u);
	blk_vol_listen(v, NULL, NULL);
	blk_vol_put(v);
	fake_free(f);
}

/* A volume whose flushes are local to a queue: each flush reaches every queue, also what a closed one wrote. */
static void test_flush_scope(void)
{
	struct blk_config c = {.label = "fake"};
	struct fake *f = fake_new(BYTES, 512);
	uint8_t b[512] = {0};
	struct blk_vol *v;
	struct tq t[3];

	f->info.caps |= VH_VOL_FLUSH_QUEUE_LOCAL;
	v = fake_volume(f, &c);
	for (int i = 0; i < 3; i++)
		tq_open(&t[i], v, 8);
	g_assert_cmpint(tq_io(&t[1], VH_WRITE, 0, b, 512, 0), ==, 0);
	g_assert_cmpint(tq_io(&t[0], VH_FLUSH, 0, NULL, 0, 0), ==, 0);
	g_assert_cmpint(atomic_load(&f->flushes), ==, 3);
	tq_close(&t[1]);
	g_assert_cmpint(atomic_load(&f->flushes), ==, 4); /* its own, as it leaves */
	tq_close(&t[2]);
	g_assert_cmpint(atomic_load(&f->flushes), ==, 4); /* it wrote nothing */
	g_assert_cmpint(tq_io(&t[0], VH_FLUSH, 0, NULL, 0, 0), ==, 0);
	g_assert_cmpint(atomic_load(&f->flushes), ==, 5);
	f->fail_flush = EIO;
	g_assert_cmpint(tq_io(&t[0], VH_FLUSH, 0, NULL, 0, 0), ==, -EIO);
	g_assert_cmpint(blk_vol_failed(v), ==, 1);
	tq_close(&t[0]);
	blk_vol_put(v);
	f->fail_flush = 0;
	v = fake_volume(f, &c);
	random_test(v, 4, 8, 300, BYTES, 1);
	blk_vol_put(v);
	fake_free(f);
}

static void *closes(void *arg)
{
	tq_close(arg);
	return NULL;
}

static void *flushes(void *arg)
{
	return GINT_TO_POINTER(tq_io(arg, VH_FLUSH, 0, NULL, 0, 0));
}

static int wait_held(struct fake *f, unsigned n)
{
	unsigned have = 0;

	for (int i = 0; i < 2000 && have < n; i++) {
		pthread_mutex_lock(&f->lock);
		have = f->n_held;
		pthread_mutex_unlock(&f->lock);
		if (have < n)
			g_usleep(5000);
	}
	return (int)have;
}

/* While a queue that wrote is closing, and its own flush is under way, a flush elsewhere still reaches it. */
static void test_flush_closing(void)
{
	struct blk_config c = {.label = "fake"};
	struct fake *f = fake_new(BYTES, 512);
	uint8_t b[512] = {0};
	pthread_t closing, flushing;
	struct blk_vol *v;
	struct tq t[2];
	void *res;

	f->info.caps |= VH_VOL_FLUSH_QUEUE_LOCAL;
	v = fake_volume(f, &c);
	tq_open(&t[0], v, 8);
	tq_open(&t[1], v, 8);
	g_assert_cmpint(tq_io(&t[1], VH_WRITE, 0, b, 512, 0), ==, 0);
	f->hold = 1;
	pthread_create(&closing, NULL, closes, &t[1]);
	g_assert_cmpint(wait_held(f, 1), ==, 1);
	pthread_create(&flushing, NULL, flushes, &t[0]);
	g_assert_cmpint(wait_held(f, 3), ==, 3);
	f->hold = 0;
	fake_release(f);
	pthread_join(flushing, &res);
	pthread_join(closing, NULL);
	g_assert_cmpint(GPOINTER_TO_INT(res), ==, 0);
	tq_close(&t[0]);
	blk_vol_put(v);
	fake_free(f);
}

/* A plugin that completes a request and says that it did not take it: completed once, not sent again. */
static void test_lying(void)
{
	struct blk_config c = {.label = "fake"};
	struct fake *f = fake_new(BYTES, 1);
	struct blk_vol *v;

	set_mode(f, 0);
	f->lies = 1;
	v = fake_volume(f, &c);
	random_test(v, 2, 64, 500, BYTES, 1);
	blk_vol_put(v);
	fake_free(f);
}

/* More in flight than the plugin takes: the rest waits for ready(), nothing is lost. */
static void test_back_pressure(void)
{
	for (int mode = 0; mode < 3; mode++)
		for (uint32_t room = 1; room < 8; room += 3) {
			struct blk_config c = {.label = "fake"};
			struct fake *f = fake_new(BYTES, 1);
			struct blk_vol *v;

			set_mode(f, mode);
			f->room = room;
			v = fake_volume(f, &c);
			random_test(v, 2, 64, 500, BYTES, 1);
			blk_vol_put(v);
			fake_free(f);
		}
}

/* A request that takes too long: an event, a cancel hint, and it still completes once; blocking calls give up. */
static void test_timeout(void)
{
	struct blk_config c = {.label = "fake", .io_timeout_ns = 50000000};
	struct fake *f = fake_new(BYTES, 512);
	uint8_t b[512] = {0};
	struct events ev;
	struct blk_vol *v = fake_volume(f, &c);

	events_init(&ev, v);
	f->hold = 1;
	g_assert_cmpint(blk_write(v, b, 512, 0, NULL), ==, -ETIMEDOUT);
	wait_event(&ev, BLK_EVENT_STALLED);
	while (!atomic_load(&f->cancels))
		g_usleep(1000);
	fake_release(f);
	wait_event(&ev, BLK_EVENT_MOVING);
	f->hold = 0;
	g_assert_cmpint(blk_write(v, b, 512, 0, NULL), ==, 0);
	blk_vol_listen(v, NULL, NULL);
	blk_vol_put(v);
	fake_free(f);
}

/* Lease lost: nothing is sent any more, reads neither; what is in flight gets the cancel hint. */
static void test_lease(void)
{
	struct blk_config c = {.label = "fake"};
	struct fake *f = fake_new(BYTES, 512);
	const struct vh_event_ops *events = plug_service(VH_SVC_EVENT);
	uint8_t b[512] = {0};
	struct events ev;
	struct blk_vol *v = fake_volume(f, &c);
	struct tq t;
	int before;

	events_init(&ev, v);
	tq_open(&t, v, 8);
	g_assert_cmpint(tq_io(&t, VH_READ, 0, b, 512, 0), ==, 0);
	events->post(f->object, VH_EVENT_DEGRADED, 0);
	wait_event(&ev, VH_EVENT_DEGRADED);
	f->bytes = BYTES * 2;
	events->post(f->object, VH_EVENT_SIZE, 0);
	wait_event(&ev, VH_EVENT_SIZE);
	g_assert_cmpuint(blk_vol_bytes(v), ==, BYTES * 2);
	g_assert_cmpuint(ev.value[VH_EVENT_SIZE], ==, BYTES * 2);
	before = atomic_load(&f->submits);
	events->post(f->object, VH_EVENT_LEASE_LOST, 0);
	g_assert_cmpint(tq_io(&t, VH_READ, 0, b, 512, 0), ==, -EIO);
	g_assert_cmpint(tq_io(&t, VH_WRITE, 0, b, 5, 0), ==, -EIO);
	g_assert_cmpint(tq_io(&t, VH_FLUSH, 0, NULL, 0, 0), ==, -EIO);
	wait_event(&ev, VH_EVENT_LEASE_LOST);
	g_assert_cmpint(blk_read(v, b, 512, 0, NULL), ==, -EIO);
	g_assert_cmpint(atomic_load(&f->submits), ==, before);
	tq_close(&t);
	blk_vol_listen(v, NULL, NULL);
	blk_vol_put(v);
	fake_free(f);
}

struct waits {
	struct tq *t;
	int op, res;
	GThread *thread;
};

static void *waits_main(void *arg)
{
	struct waits *w = arg;
	uint8_t b[512] = {0};

	w->res = tq_io(w->t, w->op, 0, b, 512, 0);
	return NULL;
}

/* The guest is gone. A storage that is slow is waited for; one that is lost is given up once its time is over: what is under
 * way, what had waited for that (two writes to one place), and what comes afterwards. */
static void test_leave(void)
{
	struct blk_config c = {.label = "fake"};
	struct fake *f = fake_new(BYTES, 512);
	const struct vh_event_ops *events = plug_service(VH_SVC_EVENT);
	struct blk_vol *v = fake_volume(f, &c);
	struct waits w[4] = {{.op = VH_WRITE}, {.op = VH_WRITE}, {.op = VH_READ}, {.op = VH_FLUSH}};
	unsigned held = 0, late = 0;
	struct events ev;
	uint8_t b[512];
	struct tq t;

	events_init(&ev, v);
	f->hold = f->obey = 1;
	tq_open(&t, v, 8);
	for (unsigned i = 0; i < G_N_ELEMENTS(w); i++) {
		w[i].t = &t;
		w[i].thread = g_thread_new("waits", waits_main, &w[i]);
	}
	while (held < 3) { /* the second write waits for the first one */
		g_usleep(1000);
		pthread_mutex_lock(&f->lock);
		held = f->n_held;
		pthread_mutex_unlock(&f->lock);
	}
	blk_vol_leave(v, 0);
	g_usleep(50000);
	g_assert_cmpint(atomic_load(&f->cancels), ==, 0);
	g_assert_cmpint(blk_vol_trouble(v, &late), ==, 0);
	blk_vol_leave(v, UINT64_C(600000000000));
	events->post(f->object, VH_EVENT_DEGRADED, 0);
	wait_event(&ev, VH_EVENT_DEGRADED);
	g_assert_cmpint(blk_vol_trouble(v, &late), ==, 1);
	events->post(f->object, VH_EVENT_RECOVERED, 0);
	wait_event(&ev, VH_EVENT_RECOVERED);
	g_assert_cmpint(blk_vol_trouble(v, &late), ==, 0);
	events->post(f->object, VH_EVENT_DEGRADED, 0);
	g_usleep(50000);
	g_assert_cmpint(atomic_load(&f->cancels), ==, 0);
	blk_vol_leave(v, 0);
	for (unsigned i = 0; i < G_N_ELEMENTS(w); i++) {
		g_thread_join(w[i].thread);
		g_assert_cmpint(w[i].res, ==, -EIO);
	}
	g_assert_cmpint(tq_io(&t, VH_READ, 0, b, 512, 0), ==, -EIO);
	g_assert_cmpint(blk_flush(v, NULL), ==, -EIO);
	g_assert_cmpint(atomic_load(&f->writes), ==, 0);
	g_assert_cmpuint(late, ==, 0);
	tq_close(&t);
	blk_vol_listen(v, NULL, NULL);
	blk_vol_put(v);
	fake_free(f);
}

/* The plugin has few queues: control calls use their own while there is room, else one of the user's. */
static void test_few_queues(void)
{
	struct blk_config c = {.label = "fake"};
	struct fake *f = fake_new(BYTES, 512);
	uint8_t b[512] = {0};
	struct blk_vol *v;
	struct tq t;

	f->info.max_queues = 1;
	v = fake_volume(f, &c);
	g_assert_cmpint(blk_write(v, b, 512, 0, NULL), ==, 0);
	g_assert_cmpint(atomic_load(&f->n_queues), ==, 1);
	tq_open(&t, v, 8); /* takes the place of the volume's own */
	g_assert_cmpint(atomic_load(&f->n_queues), ==, 1);
	g_assert_cmpint(blk_write(v, b, 512, 0, NULL), ==, 0);
	g_assert_cmpint(tq_io(&t, VH_READ, 0, b, 512, 0), ==, 0);
	tq_close(&t);
	g_assert_cmpint(blk_read(v, b, 512, 0, NULL), ==, 0);
	blk_vol_put(v);
	fake_free(f);
}

struct async {
	struct blk_io io;
	struct iovec iov;
	struct tq *t;
	struct vh_task task;
	atomic_int ended;
};

static void async_done(struct blk_io *io, int res)
{
	g_assert_cmpint(res, ==, 0);
	atomic_store(&((struct async *)io)->ended, 1);
}

static void async_fn(struct vh_task *t)
{
	struct async *a = (struct async *)((char *)t - offsetof(struct async, task));

	blk_submit(a->t->q, &a->io);
}

static void async_start(struct async *a, struct tq *t, uint16_t op, void *buf, uint64_t len, uint64_t off)
{
	*a = (struct async){.iov = {buf, len}, .t = t, .task = {async_fn, {NULL, NULL}}};
	a->io = (struct blk_io){.op = op, .off = off, .len = len, .iov = &a->iov, .niov = 1, .done = async_done};
	loop_post(t->l, &a->task);
}

static unsigned held(struct fake *f)
{
	unsigned n;

	pthread_mutex_lock(&f->lock);
	n = f->n_held;
	pthread_mutex_unlock(&f->lock);
	return n;
}

/* The first unaligned write of a volume waits for the aligned ones that were sent before, on any queue; an aligned one that
 * comes after it waits for it; what does not overlap waits for nobody. */
static void test_first_unaligned(void)
{
	struct blk_config c = {.label = "fake"};
	struct fake *f = fake_new(BYTES, 4096);
	struct blk_vol *v = fake_volume(f, &c);
	uint8_t *b = g_aligned_alloc(1, 16384, 4096);
	struct async x, y, z, other;
	struct tq t, u;

	memset(b, 5, 16384);
	tq_open(&t, v, 8);
	tq_open(&u, v, 8);
	f->hold = 1;
	async_start(&x, &t, VH_WRITE, b, 4096, 8192);
	while (held(f) != 1)
		g_usleep(100);
	async_start(&y, &u, VH_WRITE, b, 10, 8200);
	while (!atomic_load(&v->rmw_on))
		g_usleep(100);
	async_start(&z, &t, VH_WRITE, b, 4096, 8192);
	async_start(&other, &t, VH_WRITE, b, 4096, 65536);
	while (held(f) != 2) /* x and other */
		g_usleep(100);
	g_usleep(20000);
	g_assert_cmpuint(held(f), ==, 2);
	fake_release(f);
	while (held(f) != 1) /* y reads its block */
		g_usleep(100);
	g_assert_true(atomic_load(&x.ended));
	g_assert_true(atomic_load(&other.ended));
	fake_release(f);
	while (held(f) != 1) /* and writes it */
		g_usleep(100);
	g_assert_false(atomic_load(&z.ended));
	fake_release(f);
	while (held(f) != 1)
		g_usleep(100);
	g_assert_true(atomic_load(&y.ended));
	fake_release(f);
	while (!atomic_load(&z.ended))
		g_usleep(100);
	tq_close(&t);
	tq_close(&u);
	blk_vol_put(v);
	fake_free(f);
	g_aligned_free(b);
}

static void test_growth(void)
{
	struct blk_config c = {.label = "fake"};
	struct fake *f = fake_new(BYTES, 512);
	uint8_t b[1000];
	struct blk_vol *v = fake_volume(f, &c);
	struct tq t, u;

	memset(b, 9, sizeof(b));
	tq_open(&t, v, 8);
	tq_open(&u, v, 8);
	g_assert_cmpint(tq_io(&t, VH_WRITE, 0, b, 1000, BYTES - 10), ==, 0);
	g_assert_cmpuint(blk_vol_bytes(v), >, BYTES + 990);
	g_assert_cmpint(tq_io(&u, VH_READ, 0, b, 1000, BYTES - 10), ==, 0);
	g_assert_cmpint(b[0] + b[999], ==, 18);
	g_assert_cmpint(tq_io(&u, VH_WRITE, 0, b, 1000, f->cap - 1000), ==, 0); /* no room for a step: exactly */
	g_assert_cmpuint(blk_vol_bytes(v), ==, f->cap);
	g_assert_cmpint(tq_io(&u, VH_WRITE, 0, b, 1000, f->cap - 999), ==, -ENOSPC);
	g_assert_cmpint(blk_vol_resize(v, BYTES, NULL), ==, 0);
	g_assert_cmpuint(blk_vol_bytes(v), ==, BYTES);
	tq_close(&t);
	tq_close(&u);
	blk_vol_put(v);
	f->info.caps &= ~VH_VOL_GROW;
	v = fake_volume(f, &c);
	tq_open(&t, v, 8);
	g_assert_cmpint(tq_io(&t, VH_WRITE, 0, b, 512, BYTES), ==, -ENOSPC);
	tq_close(&t);
	blk_vol_put(v);
	fake_free(f);
}

/* What a plugin says about its volume is checked. */
static void test_nonsense(void)
{
	struct blk_config c = {.label = "fake"};
	struct fake *f = fake_new(BYTES, 512);
	struct blk_vol *v;

#define REFUSED(member, value) do { \
		struct vh_volume_info save = f->info; \
		struct vh_err e = {0}; \
		f->info.member = value; \
		g_assert_cmpint(blk_vol_new(f, &fake_ops, &c, &v, &e), <, 0); \
		g_assert_nonnull(e.cause); \
		g_assert_cmpstr(e.object, ==, "volume fake"); \
		err_clear(&e); \
		f->info = save; \
	} while (0)
	REFUSED(len_align, 100);
	REFUSED(len_align, 1u << 31);
	REFUSED(buf_align, 3);
	REFUSED(logical_block, 513);
	REFUSED(max_bytes, 100);
	REFUSED(max_zero, 100);
	REFUSED(max_discard, 100);
	REFUSED(fd, 12345);
	fake_free(f);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/blk/tier/random", test_random);
	g_test_add_func("/blk/tier/limits", test_limits);
	g_test_add_func("/blk/tier/emulation", test_emulation);
	g_test_add_func("/blk/tier/latch", test_latch);
	g_test_add_func("/blk/tier/flush-scope", test_flush_scope);
	g_test_add_func("/blk/tier/flush-closing", test_flush_closing);
	g_test_add_func("/blk/tier/lying", test_lying);
	g_test_add_func("/blk/tier/back-pressure", test_back_pressure);
	g_test_add_func("/blk/tier/timeout", test_timeout);
	g_test_add_func("/blk/tier/lease", test_lease);
	g_test_add_func("/blk/tier/leave", test_leave);
	g_test_add_func("/blk/tier/few-queues", test_few_queues);
	g_test_add_func("/blk/tier/first-unaligned", test_first_unaligned);
	g_test_add_func("/blk/tier/growth", test_growth);
	g_test_add_func("/blk/tier/nonsense", test_nonsense);
	return g_test_run();
}
