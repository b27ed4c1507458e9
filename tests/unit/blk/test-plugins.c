/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Volumes of real plugins from the build tree: the ram and null pools, the filters over them; and what a request costs. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include "../../../sdk/shims/record.h"
#include "blk-test.h"
#include "plug/options.h"
#include "plug/plug.h"

#define BYTES (2u << 20)

/* ---- allocations, counted while armed ---- */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define COUNTING 0
#else
#define COUNTING 1
static atomic_int counting;
static atomic_long allocations;

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t m);
void *__libc_realloc(void *p, size_t n);
void *malloc(size_t n)
{
	if (atomic_load_explicit(&counting, memory_order_relaxed))
		atomic_fetch_add(&allocations, 1);
	return __libc_malloc(n);
}
void *calloc(size_t n, size_t m)
{
	if (atomic_load_explicit(&counting, memory_order_relaxed))
		atomic_fetch_add(&allocations, 1);
	return __libc_calloc(n, m);
}
void *realloc(void *p, size_t n)
{
	if (atomic_load_explicit(&counting, memory_order_relaxed))
		atomic_fetch_add(&allocations, 1);
	return __libc_realloc(p, n);
}
#endif

/* ---- pools ---- */

struct pool {
	const struct vh_pool_ops *ops;
	void *pool;
};

static struct pool pool_open(const char *id, const char *options)
{
	struct pool p = {0};
	struct kvs kvs = {0};
	struct optset *o = NULL;
	ERR_AUTO(e);

	if (plug_pool(id, &p.ops, &e))
		g_error("pool %s: %s", id, e.cause);
	g_assert_cmpint(kvs_parse(options, &kvs, &e), ==, 0);
	g_assert_cmpint(optset_parse(p.ops->pool_options, &kvs, id, &o, &e), ==, 0);
	g_assert_cmpint(p.ops->open(optset_get(o), NULL, &p.pool, &e), ==, 0);
	optset_free(o);
	kvs_clear(&kvs);
	return p;
}

static int attach(struct pool *p, const char *name, uint32_t mode, struct blk_vol **v)
{
	struct vh_object *o = blk_object_new();
	struct vh_attach a = {.size = sizeof(a), .mode = mode, .name = name, .object = o, .holder = "test"};
	struct blk_config c = {.label = name};
	const struct vh_volume_ops *ops;
	void *vol;
	int r = p->ops->attach(p->pool, &a, &vol, &ops, NULL);

	if (r) {
		blk_object_free(o);
		return r;
	}
	g_assert_cmpint(blk_vol_new(vol, plug_volume_ops(ops), &c, v, NULL), ==, 0);
	blk_object_bind(o, *v);
	return 0;
}

static struct blk_vol *filter(struct blk_vol *lower, const char *id, const char *options, uint64_t timeout)
{
	const struct vh_filter_ops *f;
	struct blk_config c = {.label = id, .io_timeout_ns = timeout};
	struct kvs kvs = {0};
	struct optset *o = NULL;
	struct blk_vol *v = NULL;

	g_assert_cmpint(plug_filter(id, &f, NULL), ==, 0);
	g_assert_cmpint(kvs_parse(options, &kvs, NULL), ==, 0);
	g_assert_cmpint(optset_parse(f->options, &kvs, id, &o, NULL), ==, 0);
	g_assert_cmpint(blk_vol_filter(lower, f, optset_get(o), &c, &v, NULL), ==, 0);
	optset_free(o);
	kvs_clear(&kvs);
	return v;
}

static void test_ram(void)
{
	struct pool p = pool_open("ram", "size=2M,limit=64M");
	struct vh_vol_stat st = {.size = sizeof(st)};
	struct blk_vol *v, *w;

	g_assert_cmpint(attach(&p, "x", VH_ATTACH_RW_EXCL, &v), ==, 0);
	g_assert_cmpint(attach(&p, "x", VH_ATTACH_RW_EXCL, &w), ==, -EBUSY);
	g_assert_cmpint(attach(&p, "x", VH_ATTACH_RO, &w), ==, -EBUSY);
	g_assert_cmpuint(blk_vol_bytes(v), ==, BYTES);
	random_test(v, 4, 8, 400, BYTES, 1);
	g_assert_cmpint(blk_vol_resize(v, 2 * BYTES, NULL), ==, 0);
	random_test(v, 1, 16, 400, 2 * BYTES, 1);
	g_assert_cmpint(p.ops->remove(p.pool, "x", NULL, NULL), ==, -EBUSY);
	blk_vol_put(v);
	g_assert_cmpint(p.ops->stat(p.pool, "x", &st, NULL), ==, 0);
	g_assert_cmpuint(st.bytes, ==, 2 * BYTES);
	g_assert_cmpint(attach(&p, "x", VH_ATTACH_RO, &v), ==, 0);
	g_assert_cmpint(attach(&p, "x", VH_ATTACH_RO, &w), ==, 0);
	g_assert_cmpint(blk_write(v, &st, 8, 0, NULL), ==, -EROFS);
	blk_vol_put(v);
	blk_vol_put(w);
	g_assert_cmpint(p.ops->remove(p.pool, "x", NULL, NULL), ==, 0);
	g_assert_cmpint(p.ops->remove(p.pool, "x", NULL, NULL), ==, 0);
	g_assert_cmpint(p.ops->stat(p.pool, "x", &st, NULL), ==, -ENOENT);
	p.ops->close(p.pool);
}

static void test_filters(void)
{
	struct pool p = pool_open("ram", "size=2M");
	uint8_t b[4096];
	struct blk_vol *v;
	struct timespec a, z;
	struct tq t;

	/* everything passes: log over delay over fault, all harmless */
	g_assert_cmpint(attach(&p, "x", VH_ATTACH_RW_EXCL, &v), ==, 0);
	v = filter(v, "fault", "permille=0", 0);
	v = filter(v, "delay", "time=0ms,jitter=1ms", 0);
	v = filter(v, "log", "", 0);
	random_test(v, 3, 8, 200, BYTES, 1);
	blk_vol_put(v);

	g_assert_cmpint(attach(&p, "x", VH_ATTACH_RW_EXCL, &v), ==, 0);
	v = filter(v, "fault", "ops=write,every=3,error=ENOSPC,count=2", 0);
	tq_open(&t, v, 8);
	for (int i = 1; i <= 12; i++) {
		memset(b, i, sizeof(b));
		g_assert_cmpint(tq_io(&t, VH_WRITE, 0, b, 4096, 0), ==, i == 3 || i == 6 ? -ENOSPC : 0);
		g_assert_cmpint(tq_io(&t, VH_READ, 0, b, 4096, 0), ==, 0);
		g_assert_cmpint(b[100], ==, i == 3 || i == 6 ? i - 1 : i);
	}
	g_assert_cmpint(blk_vol_failed(v), ==, 0);
	tq_close(&t);
	blk_vol_put(v);

	/* an answer is lost: the data is there */
	g_assert_cmpint(attach(&p, "x", VH_ATTACH_RW_EXCL, &v), ==, 0);
	v = filter(v, "fault", "ops=write,every=1,done=on", 0);
	memset(b, 77, sizeof(b));
	g_assert_cmpint(blk_write(v, b, 4096, 0, NULL), ==, -EIO);
	g_assert_cmpint(blk_read(v, b, 10, 5, NULL), ==, 0);
	g_assert_cmpint(b[0], ==, 77);
	blk_vol_put(v);

	/* slow, and slower than the limit: the cancel hint ends it early */
	g_assert_cmpint(attach(&p, "x", VH_ATTACH_RW_EXCL, &v), ==, 0);
	v = filter(v, "delay", "time=30ms", 0);
	clock_gettime(CLOCK_MONOTONIC, &a);
	g_assert_cmpint(blk_read(v, b, 10, 5, NULL), ==, 0);
	clock_gettime(CLOCK_MONOTONIC, &z);
	g_assert_cmpint((z.tv_sec - a.tv_sec) * 1000 + (z.tv_nsec - a.tv_nsec) / 1000000, >=, 29);
	blk_vol_put(v);
	g_assert_cmpint(attach(&p, "x", VH_ATTACH_RW_EXCL, &v), ==, 0);
	v = filter(v, "delay", "time=1min", 30000000);
	tq_open(&t, v, 8);
	g_assert_cmpint(tq_io(&t, VH_READ, 0, b, 4096, 0), ==, -ETIMEDOUT);
	/* A flush that was given up is none that has failed: writes go on. */
	g_assert_cmpint(tq_io(&t, VH_FLUSH, 0, NULL, 0, 0), ==, -ETIMEDOUT);
	g_assert_cmpint(blk_vol_failed(v), ==, 0);
	tq_close(&t);
	blk_vol_put(v);
	p.ops->close(p.pool);
}

/* What a record holds, done again on what the volume was, makes what the volume is; every entry is in its place. */
static void replay(const char *path, uint8_t *mem, uint64_t bytes, unsigned *writes, unsigned *flushes)
{
	g_autofree char *file = NULL;
	g_autofree uint8_t *open = NULL;
	const struct record_head *h;
	gsize len, at;
	uint16_t last = 0;
	uint64_t time = 0;

	g_assert_true(g_file_get_contents(path, &file, &len, NULL));
	h = (const struct record_head *)(void *)file;
	g_assert_cmpmem(h->magic, 8, RECORD_MAGIC, 8);
	g_assert_cmpuint(h->version, ==, RECORD_VERSION);
	g_assert_cmpuint(h->volume, ==, bytes);
	open = g_malloc0(len / sizeof(struct record_entry) + 2); /* by id: begun, not ended */
	*writes = *flushes = 0;
	for (at = h->bytes; at < len;) {
		const struct record_entry *x = (const struct record_entry *)(void *)(file + at);

		g_assert_cmpuint(len - at, >=, x->bytes);
		g_assert_cmpuint(x->bytes, ==, sizeof(*x) + (x->what == RECORD_BEGIN && x->op == VH_WRITE ? (x->len + 7) / 8 * 8 : 0));
		g_assert_cmpuint(x->time, >=, time);
		time = x->time;
		last = x->op;
		at += x->bytes;
		if (x->op == RECORD_CLOSE)
			continue;
		g_assert_cmpuint(open[x->id], ==, x->what == RECORD_END);
		open[x->id] = x->what == RECORD_BEGIN ? 1 : 2;
		if (x->what == RECORD_END) {
			g_assert_cmpint(x->result, ==, 0);
			*flushes += x->op == VH_FLUSH;
			continue;
		}
		g_assert_cmpuint(x->op, !=, VH_READ);
		*writes += x->op == VH_WRITE;
		g_assert_true(x->op == VH_FLUSH || (x->off <= bytes && x->len <= bytes - x->off));
		if (x->op == VH_WRITE)
			memcpy(mem + x->off, x + 1, x->len);
		else if (x->op == VH_ZERO || x->op == VH_DISCARD)
			memset(mem + x->off, 0, x->len);
	}
	g_assert_cmpuint(last, ==, RECORD_CLOSE);
	for (gsize k = 1; k < len / sizeof(struct record_entry); k++)
		g_assert_cmpuint(open[k], !=, 1);
}

static void test_record(void)
{
	g_autofree char *dir = g_dir_make_tmp("vhost-record-XXXXXX", NULL), *path = g_build_filename(dir, "log", NULL);
	g_autofree char *opts = g_strdup_printf("log=%s", path);
	g_autofree uint8_t *mem = g_malloc0(BYTES), *now = g_malloc(BYTES);
	struct pool p = pool_open("ram", "size=2M");
	const struct vh_filter_ops *f;
	struct kvs kvs = {0};
	struct optset *o = NULL;
	struct blk_config c = {.label = "record"};
	struct blk_vol *v, *w;
	unsigned writes, flushes;
	ERR_AUTO(e);

	g_assert_cmpint(attach(&p, "x", VH_ATTACH_RW_EXCL, &v), ==, 0);
	v = filter(v, "record", opts, 0);
	random_test(v, 3, 8, 300, BYTES, 1);
	g_assert_cmpint(blk_flush(v, NULL), ==, 0);
	g_assert_cmpint(blk_read(v, now, BYTES, 0, NULL), ==, 0);

	/* A record is never written over. */
	g_assert_cmpint(plug_filter("record", &f, NULL), ==, 0);
	g_assert_cmpint(kvs_parse(opts, &kvs, NULL), ==, 0);
	g_assert_cmpint(optset_parse(f->options, &kvs, "record", &o, NULL), ==, 0);
	g_assert_cmpint(attach(&p, "y", VH_ATTACH_RW_EXCL, &w), ==, 0);
	g_assert_cmpint(blk_vol_filter(w, f, optset_get(o), &c, &w, &e), ==, -EEXIST);
	g_assert_nonnull(e.remedy);
	blk_vol_put(w);
	optset_free(o);
	kvs_clear(&kvs);

	blk_vol_put(v);
	replay(path, mem, BYTES, &writes, &flushes);
	g_assert_cmpuint(writes, >, 100);
	g_assert_cmpuint(flushes, >, 0);
	g_assert_cmpmem(mem, BYTES, now, BYTES);
	p.ops->close(p.pool);
	g_assert_cmpint(unlink(path), ==, 0);
	g_assert_cmpint(rmdir(dir), ==, 0);
}

/* Filters over the fd tier, with its alignment below. */
static void test_filter_fd(void)
{
	struct blk_config c = {.label = "file"};
	struct blk_vol *v = test_file_volume(test_disk(), O_DIRECT, BYTES, 4096, &c);

	if (!v) {
		g_test_skip("no O_DIRECT on this file system");
		return;
	}
	v = filter(v, "log", "", 0);
	random_test(v, 3, 8, 200, BYTES, 1);
	blk_vol_put(v);
}

/* ---- what a request costs ---- */

#define DEPTH 32
struct load {
	struct tq t;
	struct slot {
		struct blk_io io;
		struct iovec iov;
		struct load *l;
		void *buf;
	} slot[DEPTH];
	unsigned left, inflight, step;
	uint16_t op;
	atomic_int ended;
	struct vh_task task;
};

static void load_done(struct blk_io *io, int res)
{
	struct slot *s = (struct slot *)io;
	struct load *l = s->l;

	g_assert_cmpint(res, ==, 0);
	l->inflight--;
	if (l->left) {
		l->left--;
		l->inflight++;
		blk_submit(l->t.q, io);
	} else if (!l->inflight) {
		atomic_store(&l->ended, 1);
	}
}

static void load_fn(struct vh_task *t)
{
	struct load *l = (struct load *)((char *)t - offsetof(struct load, task));

	for (unsigned i = 0; i < DEPTH; i++) {
		struct slot *s = &l->slot[i];

		s->iov = (struct iovec){(uint8_t *)s->buf + (l->step & 1), 4096};
		s->io = (struct blk_io){.op = l->op, .off = i * 8192u + l->step, .len = 4096, .iov = &s->iov, .niov = 1, .done = load_done};
		l->left--;
		l->inflight++;
		blk_submit(l->t.q, &s->io);
	}
}

static void run_load(struct load *l, unsigned n, uint16_t op, unsigned step)
{
	l->left = n;
	l->op = op;
	l->step = step;
	atomic_store(&l->ended, 0);
	l->task.fn = load_fn;
	loop_post(l->t.l, &l->task);
	while (!atomic_load(&l->ended))
		g_usleep(200);
}

static void cost(struct blk_vol *v)
{
	g_autofree struct load *l = g_new0(struct load, 1);
	const unsigned steps[] = {0, 512, 7};

	for (int i = 0; i < DEPTH; i++) {
		l->slot[i].l = l;
		l->slot[i].buf = g_aligned_alloc(1, 8192, 4096);
		memset(l->slot[i].buf, 1, 8192);
	}
	tq_open(&l->t, v, DEPTH);
	for (unsigned k = 0; k < G_N_ELEMENTS(steps); k++) /* aligned, half aligned, not at all */
		for (uint16_t op = VH_READ; op <= VH_WRITE; op++) {
			run_load(l, 200, op, steps[k]);
#if COUNTING
			atomic_store(&allocations, 0);
			atomic_store(&counting, 1);
			run_load(l, 2000, op, steps[k]);
			atomic_store(&counting, 0);
			g_assert_cmpint(atomic_load(&allocations), ==, 0);
#endif
		}
	tq_close(&l->t);
	for (int i = 0; i < DEPTH; i++)
		g_aligned_free(l->slot[i].buf);
}

static void test_cost(void)
{
	struct pool p = pool_open("null", "size=16M"), r = pool_open("ram", "size=16M");
	struct blk_config c = {.label = "file"};
	struct blk_vol *v;

	if (!COUNTING)
		g_test_message("allocations are not counted under a sanitizer");
	g_assert_cmpint(attach(&p, "x", VH_ATTACH_RW_EXCL, &v), ==, 0);
	cost(v);
	blk_vol_put(v);
	g_assert_cmpint(attach(&r, "x", VH_ATTACH_RW_EXCL, &v), ==, 0);
	v = filter(v, "fault", "", 0);
	cost(v);
	blk_vol_put(v);
	for (int engine = BLK_ENGINE_AIO; engine <= BLK_ENGINE_THREADS; engine++) {
		c.engine = (enum blk_engine)engine;
		v = test_file_volume(test_disk(), O_DIRECT, 16u << 20, 4096, &c);
		if (!v)
			continue;
		cost(v);
		blk_vol_put(v);
	}
	p.ops->close(p.pool);
	r.ops->close(r.pool);
}

/* ---- block devices ---- */

struct dev {
	int fd;
	struct vh_volume_info info;
};

static int dev_info(void *vol, struct vh_volume_info *i)
{
	memcpy(i, &((struct dev *)vol)->info, i->size);
	return 0;
}

static void dev_close(void *vol)
{
}

static const struct vh_volume_ops dev_ops = {.size = sizeof(dev_ops), .info = dev_info, .close = dev_close};

static void test_block_device(void)
{
	int ctl = open("/dev/loop-control", O_RDWR | O_CLOEXEC), n = ctl < 0 ? -1 : ioctl(ctl, LOOP_CTL_GET_FREE), fd, back;
	g_autofree char *path = g_strdup_printf("/dev/loop%d", n), *file = g_strdup_printf("%s/blk-loop-XXXXXX", test_disk());
	struct loop_config lc = {.block_size = 512, .info.lo_flags = LO_FLAGS_AUTOCLEAR};
	struct blk_config c = {.label = path};
	struct blk_vol *v;
	struct dev d;

	if (ctl >= 0)
		close(ctl);
	fd = n < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC | O_DIRECT);
	if (fd < 0) {
		g_test_skip("no loop device can be used here");
		return;
	}
	back = mkstemp(file);
	unlink(file);
	g_assert_cmpint(ftruncate(back, BYTES), ==, 0);
	lc.fd = (uint32_t)back;
	if (ioctl(fd, LOOP_CONFIGURE, &lc) < 0) {
		g_test_skip("no loop device can be set up here");
		close(fd);
		close(back);
		return;
	}
	d = (struct dev){fd, {.size = sizeof(d.info), .fd = fd,
			      .caps = VH_VOL_WRITE_CACHE | VH_VOL_FLUSH | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_FD_BLOCK |
				      VH_VOL_FD_DIRECT, .bytes = BYTES, .logical_block = 512, .discard_gran = 4096}};
	for (int engine = BLK_ENGINE_AUTO; engine <= BLK_ENGINE_THREADS; engine++) {
		c.engine = (enum blk_engine)engine;
		g_assert_cmpint(blk_vol_new(&d, &dev_ops, &c, &v, NULL), ==, 0);
		random_test(v, 2, 8, 300, BYTES, 1);
		g_assert_cmpint(blk_discard(v, BYTES / 2, 0, NULL), ==, 0);
		g_assert_cmpint(blk_write(v, "x", 1, BYTES, NULL), ==, -ENOSPC);
		blk_vol_put(v);
	}
	ioctl(fd, LOOP_CLR_FD, 0);
	close(fd);
	close(back);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/blk/plugins/ram", test_ram);
	g_test_add_func("/blk/plugins/filters", test_filters);
	g_test_add_func("/blk/plugins/record", test_record);
	g_test_add_func("/blk/plugins/filter-over-file", test_filter_fd);
	g_test_add_func("/blk/plugins/no-allocation-per-request", test_cost);
	g_test_add_func("/blk/plugins/block-device", test_block_device);
	return g_test_run();
}
