/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The engine that copies and compares disks: every way of it against plain reads, under failures, and when it is stopped. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "store/convert.h"
#include "store/store-i.h"

#define DISK ((9u << 20) + 512)

static char *root;
static uint64_t rng = 88172645463325252u;

static uint64_t rnd(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static void make_vol(const char *name, uint64_t bytes, const char *format, const char *backing)
{
	struct store_create c = {.name = name, .format = format, .bytes = bytes, .backing = backing};
	struct store_pool *p;
	ERR_AUTO(e);

	if (store_pool_open("default", &p, &e) || store_vol_create(p, &c, NULL, &e))
		g_error("%s: %s", name, e.cause);
	store_pool_close(p);
}

static void drop_vol(const char *name)
{
	struct store_pool *p;
	ERR_AUTO(e);

	g_assert_cmpint(store_pool_open("default", &p, &e), ==, 0);
	g_assert_cmpint(store_vol_delete(p, name, NULL, &e), ==, 0);
	store_pool_close(p);
}

static struct disk *open_disk(const char *spec, ...) G_GNUC_PRINTF(1, 2);
static struct disk *open_disk(const char *spec, ...)
{
	g_autofree char *text = NULL;
	struct disk *d = NULL;
	struct kvs k;
	va_list ap;
	ERR_AUTO(e);

	va_start(ap, spec);
	text = g_strdup_vprintf(spec, ap);
	va_end(ap);
	if (kvs_parse(text, &k, &e) || disk_open(&k, "pid 1 test", NULL, NULL, &d, &e))
		g_error("%s: %s", text, e.cause);
	kvs_clear(&k);
	return d;
}

/* Data, holes, and zeros that are written out. */
static uint8_t *scribble(struct disk *d)
{
	uint8_t *all = g_malloc0(DISK);
	ERR_AUTO(e);

	for (int k = 0; k < 40; k++) {
		uint64_t off = rnd() % DISK, len = rnd() % (rnd() % 4 ? 9000 : 600000);

		len = MIN(len, DISK - off);
		if (rnd() % 4)
			for (uint64_t i = 0; i < len; i++)
				all[off + i] = (uint8_t)rnd();
		else
			memset(all + off, 0, len);
		g_assert_cmpint(fmt_pwrite(d->image, all + off, len, off, &e), ==, 0);
	}
	g_assert_cmpint(fmt_flush(d->image, &e), ==, 0);
	return all;
}

static void check_disk(struct disk *d, const uint8_t *want, uint64_t off, uint64_t len)
{
	g_autofree uint8_t *got = g_malloc(len);
	ERR_AUTO(e);

	g_assert_cmpint(fmt_pread(d->image, got, len, off, &e), ==, 0);
	for (uint64_t k = 0; k < len; k++)
		if (got[k] != want[k])
			g_error("byte %llu is %02x, not %02x", (unsigned long long)(off + k), got[k], want[k]);
}

static void test_zero(void)
{
	g_autofree uint8_t *b = g_malloc0(70000);

	for (int k = 0; k < 3000; k++) {
		uint64_t off = rnd() % 64, n = rnd() % 5000, at = n ? rnd() % n : 0;

		g_assert_true(zero_all(b + off, n));
		if (!n)
			continue;
		b[off + at] = 1 << rnd() % 8;
		g_assert_false(zero_all(b + off, n));
		b[off + at] = 0;
	}
	/* Runs, against counting. */
	for (int k = 0; k < 300; k++) {
		uint64_t grain = UINT64_C(512) << rnd() % 5, n = rnd() % 60000 + 1, at = 0;
		int zero, first = -1;

		for (int i = 0; i < 6; i++)
			memset(b + rnd() % 60000, rnd() % 2 ? 0 : 7, rnd() % 10000);
		uint64_t run = zero_run(b, n, grain, &zero);

		while (at < n) {
			uint64_t g = MIN(grain, n - at);
			int z = 1;

			for (uint64_t i = 0; i < g; i++)
				z &= !b[at + i];
			if (first < 0)
				first = z;
			if (z != first)
				break;
			at += g;
		}
		g_assert_cmpuint(run, ==, at);
		g_assert_cmpint(zero, ==, first);
		memset(b, 0, 70000);
	}
}

/* Into every kind of target, with every option that matters. */
static void test_copy(void)
{
	static const char *const formats[] = {"raw", "toy-format", NULL};

	make_vol("src", DISK, "raw", NULL);
	make_vol("srct", DISK, "toy-format", NULL);
	for (int k = 0; k < 12; k++) {
		const char *format = formats[rnd() % 2], *source = rnd() % 2 ? "src" : "srct";
		struct disk *s = open_disk("default/%s,cache=%s,on-error=report", source, rnd() % 2 ? "none" : "writeback"), *d;
		g_autofree uint8_t *all = scribble(s), *now = g_malloc(DISK);
		struct convert c = {.src = s->image, .src_name = "s", .dst_name = "d", .parallel = (unsigned)(rnd() % 20)};
		ERR_AUTO(e);

		g_assert_cmpint(fmt_pread(s->image, now, DISK, 0, &e), ==, 0);
		make_vol("dst", DISK + (1u << 20), format, NULL);
		d = open_disk("default/dst,cache=%s,on-error=report", rnd() % 2 ? "none" : "writeback");
		c.dst = d->image;
		c.grain = rnd() % 3 ? 0 : rnd() % 2 ? CONVERT_ALL : 65536;
		c.no_share = rnd() % 2;
		c.fresh = rnd() % 2;
		if (!c.fresh) { /* what was there must be gone */
			g_autofree uint8_t *junk = scribble(d);
		}
		if (rnd() % 2)
			c.bytes = DISK;
		else {
			c.src_off = rnd() % DISK;
			c.bytes = rnd() % (DISK - c.src_off) + 1;
			c.dst_off = rnd() % (DISK + (1u << 20) - c.bytes);
		}
		if (convert_run(&c, NULL, &e))
			g_error("%s", e.cause);
		check_disk(d, now + c.src_off, c.dst_off, c.bytes);
		g_assert_cmpuint(c.written + c.zero + c.shared + c.same, ==, c.bytes);
		disk_close(d);
		disk_close(s);
		drop_vol("dst");
	}
	drop_vol("src");
	drop_vol("srct");
}

static void test_backing(void)
{
	make_vol("base", DISK, "raw", NULL);
	for (int k = 0; k < 6; k++) {
		struct disk *b = open_disk("default/base,on-error=report"), *s, *d;
		g_autofree uint8_t *below = scribble(b), *all = NULL;
		struct convert c = {.src_name = "s", .dst_name = "d", .differs = 1, .bytes = DISK};
		ERR_AUTO(e);

		g_assert_cmpint(fmt_pread(b->image, below, DISK, 0, &e), ==, 0);
		disk_close(b);
		make_vol("src", DISK, rnd() % 2 ? "raw" : "toy-format", NULL);
		s = open_disk("default/src,on-error=report");
		/* The same but for some places. */
		all = g_memdup2(below, DISK);
		for (int i = 0; i < 8; i++) {
			uint64_t off = rnd() % DISK, len = MIN(rnd() % 200000, DISK - off);

			memset(all + off, rnd() % 2 ? 0 : (int)(rnd() & 255), len);
		}
		g_assert_cmpint(fmt_pwrite(s->image, all, DISK, 0, &e), ==, 0);
		make_vol("over", DISK, "toy-format", "base");
		d = open_disk("default/over,on-error=report");
		c.src = s->image;
		c.dst = d->image;
		g_assert_cmpint(convert_run(&c, NULL, &e), ==, 0);
		check_disk(d, all, 0, DISK);
		g_assert_cmpuint(c.same, >, 0);
		g_assert_cmpuint(c.written + c.zero + c.shared + c.same, ==, c.bytes);
		disk_close(d);
		disk_close(s);
		drop_vol("over");
		drop_vol("src");
	}
	drop_vol("base");
}

static void test_compare(void)
{
	make_vol("a", DISK, "raw", NULL);
	make_vol("b", DISK + 65536, "toy-format", NULL);
	for (int k = 0; k < 4; k++) {
		struct disk *a = open_disk("default/a,on-error=report"), *b = open_disk("default/b,on-error=report");
		g_autofree uint8_t *all = scribble(a);
		uint64_t at = rnd() % DISK;
		struct compare c = {.a = a->image, .b = b->image, .a_name = "a", .b_name = "b"};
		uint8_t byte;
		ERR_AUTO(e);

		g_assert_cmpint(fmt_pread(a->image, all, DISK, 0, &e), ==, 0);
		g_assert_cmpint(fmt_pwrite(b->image, all, DISK, 0, &e), ==, 0);
		g_assert_cmpint(compare_run(&c, NULL, &e), ==, 0);
		g_assert_null(c.what);
		byte = all[at] ^ (uint8_t)(1 + rnd() % 255);
		g_assert_cmpint(fmt_pwrite(b->image, &byte, 1, at, &e), ==, 0);
		if (at + 1 < DISK) { /* a later one does not count */
			uint8_t later = (uint8_t)~all[DISK - 1];

			g_assert_cmpint(fmt_pwrite(b->image, &later, 1, DISK - 1, &e), ==, 0);
		}
		g_assert_cmpint(compare_run(&c, NULL, &e), ==, 0);
		g_assert_cmpstr(c.what, ==, "content");
		g_assert_cmpuint(c.at, ==, at);
		g_assert_cmpint(fmt_pwrite(b->image, all, DISK, 0, &e), ==, 0);
		byte = 1;
		g_assert_cmpint(fmt_pwrite(b->image, &byte, 1, DISK + 65535, &e), ==, 0);
		g_assert_cmpint(compare_run(&c, NULL, &e), ==, 0);
		g_assert_cmpstr(c.what, ==, "content");
		g_assert_cmpuint(c.at, ==, DISK + 65535);
		c.strict = 1;
		g_assert_cmpint(compare_run(&c, NULL, &e), ==, 0);
		g_assert_cmpstr(c.what, ==, "size");
		byte = 0;
		g_assert_cmpint(fmt_pwrite(b->image, &byte, 1, DISK + 65535, &e), ==, 0);
		disk_close(a);
		disk_close(b);
	}
	drop_vol("a");
	drop_vol("b");
}

/* Whatever fails, it ends with that error, and with nothing in flight. */
static void test_faults(void)
{
	static const char *const what[] = {"read", "write", "zero"};
	int failed = 0;

	make_vol("src", DISK, "toy-format", NULL);
	struct disk *w = open_disk("default/src,on-error=report");
	g_autofree uint8_t *all = scribble(w);

	disk_close(w);
	for (int k = 0; k < 18; k++) {
		const char *ops = what[k % 3], *error = k % 2 ? "EIO" : "ENOSPC";
		g_autofree char *fault = g_strdup_printf(",filter=fault,filter.ops=%s,filter.error=%s,filter.after=%d,filter.every=1",
							 ops, error, (k % 3 ? 0 : 8) + (int)(rnd() % 12)); /* opening the source reads as well */
		struct disk *s = open_disk("default/src,readonly=on,on-error=report%s", k % 3 ? "" : fault), *d;
		struct convert c = {.src = s->image, .src_name = "s", .dst_name = "d", .bytes = DISK, .fresh = k % 5 != 0};
		ERR_AUTO(e);
		int ret;

		make_vol("dst", DISK, "raw", NULL);
		d = open_disk("default/dst,on-error=report%s", k % 3 ? fault : "");
		c.dst = d->image;
		ret = convert_run(&c, NULL, &e);
		if (ret) {
			failed++;
			g_assert_cmpint(ret, ==, k % 2 ? -EIO : -ENOSPC);
			g_assert_nonnull(e.cause);
			g_assert_nonnull(strstr(e.cause, " at byte "));
		} else {
			check_disk(d, all, 0, DISK);
		}
		disk_close(d);
		disk_close(s);
		drop_vol("dst");
	}
	g_assert_cmpint(failed, >, 6);
	drop_vol("src");
}

static void *stop_soon(void *job)
{
	g_usleep(20000);
	__atomic_store_n(&((struct vh_job *)job)->cancel, 1, __ATOMIC_RELAXED);
	return NULL;
}

static void test_cancel(void)
{
	struct vh_job j = {0};
	struct disk *s, *d;
	pthread_t t;
	gint64 began;
	ERR_AUTO(e);

	make_vol("src", DISK, "toy-format", NULL);
	make_vol("dst", DISK, "raw", NULL);
	s = open_disk("default/src,on-error=report");
	g_free(scribble(s));
	d = open_disk("default/dst,on-error=report");
	struct convert c = {.src = s->image, .dst = d->image, .src_name = "s", .dst_name = "d", .bytes = DISK, .rate = 1 << 20};

	began = g_get_monotonic_time();
	pthread_create(&t, NULL, stop_soon, &j);
	g_assert_cmpint(convert_run(&c, &j, &e), ==, -ECANCELED);
	g_assert_cmpint(g_get_monotonic_time() - began, <, 5000000); /* of nine seconds */
	pthread_join(t, NULL);
	disk_close(d);
	disk_close(s);
	drop_vol("src");
	drop_vol("dst");
}

/* A pipe at either end. */
struct feed { int fd; const uint8_t *buf; uint64_t len; };
static void *feeder(void *arg)
{
	struct feed *f = arg;

	for (uint64_t at = 0, k = 0; at < f->len; k++) {
		uint64_t len = 1 + k * 7919 % 100000;
		ssize_t n = write(f->fd, f->buf + at, MIN(f->len - at, len));

		if (n <= 0)
			break;
		at += (uint64_t)n;
	}
	close(f->fd);
	return NULL;
}

static void test_pipes(void)
{
	make_vol("a", DISK, "toy-format", NULL);
	make_vol("b", DISK, "raw", NULL);
	for (int k = 0; k < 4; k++) {
		struct disk *a = open_disk("default/a,on-error=report"), *b = open_disk("default/b,on-error=report");
		g_autofree uint8_t *all = scribble(a), *got = g_malloc(DISK + 1);
		g_autofree char *path = g_build_filename(root, "out", NULL);
		struct convert out = {.src = a->image, .src_name = "a", .dst_name = "out", .bytes = DISK};
		struct convert in = {.dst = b->image, .src_name = "in", .dst_name = "b", .bytes = DISK, .fresh = 0};
		struct feed f = {.buf = all, .len = k == 3 ? DISK + 1 : k == 2 ? 3000001 : DISK};
		int p[2];
		pthread_t t;
		ERR_AUTO(e);

		g_assert_cmpint(fmt_pread(a->image, all, DISK, 0, &e), ==, 0);
		out.dst_fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
		g_assert_cmpint(convert_run(&out, NULL, &e), ==, 0);
		g_assert_cmpint(pread(out.dst_fd, got, DISK + 1, 0), ==, DISK);
		g_assert_cmpint(memcmp(got, all, DISK), ==, 0);
		close(out.dst_fd);
		g_assert_cmpint(pipe(p), ==, 0);
		f.fd = p[1];
		in.src_fd = p[0];
		if (k == 3)
			f.buf = g_realloc(g_steal_pointer(&all), DISK + 1);
		pthread_create(&t, NULL, feeder, &f);
		if (k == 3) {
			g_assert_cmpint(convert_run(&in, NULL, &e), ==, -EFBIG);
		} else {
			g_assert_cmpint(convert_run(&in, NULL, &e), ==, 0);
			g_assert_cmpuint(in.got, ==, f.len);
			memset(all + f.len, 0, DISK - f.len);
			check_disk(b, all, 0, DISK);
		}
		close(p[0]);
		pthread_join(t, NULL);
		if (k == 3)
			g_free((void *)(uintptr_t)f.buf);
		disk_close(a);
		disk_close(b);
	}
	drop_vol("a");
	drop_vol("b");
}

int main(int argc, char **argv)
{
	char *rm[] = {(char *)"rm", (char *)"-rf", NULL, NULL};
	int ret;

	g_test_init(&argc, &argv, NULL);
	g_setenv("VHOST_PLUGIN_PATH", PLUGINS, TRUE);
	signal(SIGPIPE, SIG_IGN);
	root = g_dir_make_tmp("vhost-convert-XXXXXX", NULL);
	g_assert_nonnull(root);
	g_setenv("VHOST_ROOT", root, TRUE);
	g_test_add_func("/convert/zero", test_zero);
	g_test_add_func("/convert/copy", test_copy);
	g_test_add_func("/convert/backing", test_backing);
	g_test_add_func("/convert/compare", test_compare);
	g_test_add_func("/convert/faults", test_faults);
	g_test_add_func("/convert/cancel", test_cancel);
	g_test_add_func("/convert/pipes", test_pipes);
	ret = g_test_run();
	rm[2] = root;
	g_spawn_sync(NULL, rm, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL);
	return ret;
}
