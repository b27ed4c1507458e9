/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Every engine on every kind of file, with random requests against an in-memory oracle. */
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "blk-test.h"

#define BYTES (4u << 20)

struct variant {
	const char *name;
	enum blk_engine engine;
	int direct, tmpfs;
	uint32_t align;
};

static const struct variant variants[] = {
	{"aio/disk/direct-512", BLK_ENGINE_AIO, 1, 0, 512},
	{"aio/disk/direct-4096", BLK_ENGINE_AIO, 1, 0, 4096},
	{"aio/tmpfs/direct-512", BLK_ENGINE_AIO, 1, 1, 512},
	{"aio/disk/buffered", BLK_ENGINE_AIO, 0, 0, 512},
	{"uring/disk/direct-512", BLK_ENGINE_URING, 1, 0, 512},
	{"uring/disk/direct-4096", BLK_ENGINE_URING, 1, 0, 4096},
	{"uring/disk/buffered", BLK_ENGINE_URING, 0, 0, 512},
	{"uring/tmpfs/buffered", BLK_ENGINE_URING, 0, 1, 512},
	{"threads/disk/direct-4096", BLK_ENGINE_THREADS, 1, 0, 4096},
	{"threads/disk/buffered", BLK_ENGINE_THREADS, 0, 0, 512},
	{"threads/tmpfs/buffered", BLK_ENGINE_THREADS, 0, 1, 512},
	{"auto/disk/direct-512", BLK_ENGINE_AUTO, 1, 0, 512},
};

static struct blk_vol *variant_volume(const struct variant *t, uint64_t timeout)
{
	struct blk_config c = {.engine = t->engine, .label = t->name, .io_timeout_ns = timeout};
	const char *dir = t->tmpfs ? test_tmpfs() : test_disk();
	struct blk_vol *v = dir ? test_file_volume(dir, t->direct ? O_DIRECT : 0, BYTES, t->align, &c) : NULL;

	if (!v)
		g_test_skip(dir ? "no O_DIRECT on this file system" : "no tmpfs at /dev/shm");
	return v;
}

static void test_random(const void *arg)
{
	struct blk_vol *v = variant_volume(arg, 0);

	if (!v)
		return;
	random_test(v, 1, 16, 600, BYTES, 1);
	random_test(v, 4, 8, 300, BYTES, 1);
	blk_vol_put(v);
	/* The same with a time limit: blocking calls then go through a queue too. */
	v = variant_volume(arg, 30000000000u);
	random_test(v, 2, 8, 200, BYTES, 1);
	g_assert_cmpint(blk_vol_failed(v), ==, 0);
	blk_vol_put(v);
}

/* Reads past the end give zeros, writes past it grow the file in steps, discarded and zeroed ranges read as zeros. */
static void test_edges(const void *arg)
{
	struct blk_vol *v = variant_volume(arg, 0);
	g_autofree uint8_t *buf = g_malloc(1 << 20), *back = g_malloc(1 << 20);
	struct tq t;

	if (!v)
		return;
	tq_open(&t, v, 4);
	memset(buf, 0x77, 1 << 20);
	g_assert_cmpint(tq_io(&t, VH_WRITE, 0, buf, 100000, BYTES - 100000), ==, 0);
	g_assert_cmpint(tq_io(&t, VH_READ, 0, back, 200000, BYTES - 100000), ==, 0);
	for (int i = 0; i < 200000; i++)
		g_assert_cmpint(back[i], ==, i < 100000 ? 0x77 : 0);
	memset(back, 1, 4096);
	g_assert_cmpint(tq_io(&t, VH_READ, 0, back, 4096, BYTES * 10ull), ==, 0);
	g_assert_cmpint(back[0] | back[4095], ==, 0);
	g_assert_cmpuint(blk_vol_bytes(v), ==, BYTES);

	g_assert_cmpint(tq_io(&t, VH_WRITE, 0, buf, 1000, BYTES + 5000), ==, 0);
	g_assert_cmpuint(blk_vol_bytes(v), >=, BYTES + 6000 + (1 << 20));
	g_assert_cmpint(tq_io(&t, VH_READ, 0, back, 7000, BYTES), ==, 0);
	for (int i = 0; i < 7000; i++)
		g_assert_cmpint(back[i], ==, i >= 5000 && i < 6000 ? 0x77 : 0);
	g_assert_cmpint(tq_io(&t, VH_WRITE, 0, buf, 512, 1ull << 40), ==, -ENOSPC);
	g_assert_cmpint(blk_write(v, buf, 512, 1ull << 40, NULL), ==, -ENOSPC);

	g_assert_cmpint(tq_io(&t, VH_WRITE, 0, buf, 1 << 20, 0), ==, 0);
	g_assert_cmpint(tq_io(&t, VH_DISCARD, 0, NULL, 65536, 65536), ==, 0);
	g_assert_cmpint(tq_io(&t, VH_ZERO, VH_REQ_MAY_UNMAP, NULL, 50001, 199999), ==, 0);
	g_assert_cmpint(tq_io(&t, VH_ZERO, 0, NULL, 3, 400000), ==, 0);
	g_assert_cmpint(tq_io(&t, VH_FLUSH, 0, NULL, 0, 0), ==, 0);
	g_assert_cmpint(blk_read(v, back, 1 << 20, 0, NULL), ==, 0);
	for (int i = 0; i < 1 << 20; i++) {
		int zero = (i >= 65536 && i < 131072) || (i >= 199999 && i < 250000) || (i >= 400000 && i < 400003);

		g_assert_cmpint(back[i], ==, zero ? 0 : 0x77);
	}
	g_assert_cmpint(blk_zero(v, 1001, 500001, NULL), ==, 0);
	g_assert_cmpint(blk_zero(v, 5, 600001, NULL), ==, 0);
	g_assert_cmpint(blk_discard(v, 300000, 650000, NULL), ==, 0);
	g_assert_cmpint(blk_flush(v, NULL), ==, 0);
	g_assert_cmpint(tq_io(&t, VH_READ, 0, back, 1 << 20, 0), ==, 0);
	g_assert_cmpint(back[500000] + back[500001] + back[501001] + back[501002], ==, 2 * 0x77);
	g_assert_cmpint(back[600000] + back[600001] + back[600005] + back[600006], ==, 2 * 0x77);
	g_assert_cmpint(back[649999], ==, 0x77);
	g_assert_cmpint(back[700000], ==, 0);
	g_assert_cmpint(back[950000], ==, 0x77);

	/* nonsense */
	struct iovec iov = {buf, 512};
	g_assert_cmpint(tq_iov(&t, VH_READ, 0, 0, 1024, &iov, 1), ==, -EINVAL);
	g_assert_cmpint(tq_iov(&t, VH_READ, 0, UINT64_MAX - 511, 512, &iov, 1), ==, -EINVAL);
	g_assert_cmpint(tq_iov(&t, 77, 0, 0, 512, &iov, 1), ==, -EINVAL);
	g_assert_cmpint(tq_iov(&t, VH_READ, 0, 0, 0, &iov, 0), ==, 0);
	tq_close(&t);
	blk_vol_put(v);
}

/* Hundreds of one-byte pieces at odd addresses. */
static void test_pieces(const void *arg)
{
	struct blk_vol *v = variant_volume(arg, 0);
	g_autofree uint8_t *buf = g_malloc(8192), *back = g_malloc(8192);
	g_autofree struct iovec *iov = g_new(struct iovec, 3000);
	struct tq t;

	if (!v)
		return;
	tq_open(&t, v, 4);
	for (int i = 0; i < 3000; i++) {
		buf[2 * i] = (uint8_t)(i * 7);
		buf[2 * i + 1] = 0xee;
		iov[i] = (struct iovec){buf + 2 * i, 1};
	}
	g_assert_cmpint(tq_iov(&t, VH_WRITE, 0, 12345, 3000, iov, 3000), ==, 0);
	for (int i = 0; i < 3000; i++)
		iov[i].iov_base = back + 2 * i;
	memset(back, 0xee, 8192);
	g_assert_cmpint(tq_iov(&t, VH_READ, 0, 12345, 3000, iov, 3000), ==, 0);
	g_assert_cmpmem(buf, 6000, back, 6000);
	tq_close(&t);
	blk_vol_put(v);
}

static void test_read_only(void)
{
	struct blk_config c = {.label = "ro", .read_only = 1};
	struct blk_vol *v = test_file_volume(test_disk(), 0, BYTES, 512, &c);
	uint8_t b[512];
	struct tq t;

	tq_open(&t, v, 4);
	g_assert_cmpint(tq_io(&t, VH_READ, 0, b, 512, 0), ==, 0);
	g_assert_cmpint(tq_io(&t, VH_WRITE, 0, b, 512, 0), ==, -EROFS);
	g_assert_cmpint(tq_io(&t, VH_ZERO, 0, NULL, 512, 0), ==, -EROFS);
	g_assert_cmpint(tq_io(&t, VH_DISCARD, 0, NULL, 512, 0), ==, -EROFS);
	g_assert_cmpint(tq_io(&t, VH_FLUSH, 0, NULL, 0, 0), ==, 0);
	g_assert_cmpint(blk_write(v, b, 1, 0, NULL), ==, -EROFS);
	g_assert_cmpint(blk_flush(v, NULL), ==, 0);
	tq_close(&t);
	blk_vol_put(v);
}

/* From here on this thread, and those that it makes, get no context of libaio: as when /proc/sys/fs/aio-max-nr is reached. */
static void no_more_contexts(void)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_setup, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EAGAIN),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = {G_N_ELEMENTS(code), code};

	g_assert_cmpint(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), ==, 0);
	g_assert_cmpint(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog), ==, 0);
}

static void test_contexts(void)
{
	struct blk_config c = {.engine = BLK_ENGINE_AIO, .label = "contexts"};
	g_autofree uint8_t *buf = NULL;
	struct blk_vol *v;
	struct tq a, b;

	if (!g_test_subprocess()) {
		g_test_trap_subprocess(NULL, 0, 0);
		g_test_trap_assert_passed();
		/* Only the second queue had to do without. */
		g_test_trap_assert_stderr("*libaio cannot be used*");
		g_test_trap_assert_stderr_unmatched("*libaio cannot be used*libaio cannot be used*");
		return;
	}
	v = test_file_volume(test_disk(), O_DIRECT, BYTES, 512, &c);
	if (!v) {
		g_printerr("libaio cannot be used: no O_DIRECT here\n");
		return;
	}
	buf = g_malloc0(8192);
	tq_open(&a, v, 8);
	g_assert_cmpint(tq_io(&a, VH_WRITE, 0, buf, 4096, 0), ==, 0);
	tq_close(&a);
	no_more_contexts();
	tq_open(&a, v, 8);
	tq_open(&b, v, 8);
	for (int i = 0; i < 4; i++) {
		memset(buf, i + 1, 4096);
		g_assert_cmpint(tq_io(&a, VH_WRITE, 0, buf, 4096, 0), ==, 0); /* with the context that the first one left */
		g_assert_cmpint(tq_io(&b, VH_READ, 0, buf + 4096, 4096, 0), ==, 0);
		g_assert_cmpmem(buf, 4096, buf + 4096, 4096);
		g_assert_cmpint(tq_io(&b, VH_WRITE, 0, buf, 4096, 8192), ==, 0);
		g_assert_cmpint(tq_io(&b, VH_FLUSH, 0, NULL, 0, 0), ==, 0);
	}
	tq_close(&a);
	tq_close(&b);
	blk_vol_put(v);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	for (unsigned i = 0; i < G_N_ELEMENTS(variants); i++) {
		const struct variant *t = &variants[i];
		g_autofree char *a = g_strdup_printf("/blk/engine/%s/random", t->name);
		g_autofree char *b = g_strdup_printf("/blk/engine/%s/edges", t->name);
		g_autofree char *c = g_strdup_printf("/blk/engine/%s/pieces", t->name);

		g_test_add_data_func(a, t, test_random);
		g_test_add_data_func(b, t, test_edges);
		g_test_add_data_func(c, t, test_pieces);
	}
	g_test_add_func("/blk/engine/read-only", test_read_only);
	g_test_add_func("/blk/engine/contexts", test_contexts);
	return g_test_run();
}
