/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The iscsi pool under a load whose target is killed, stopped, changed and reserved. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>
#include "iscsitest.h"

#define MS 1000

/* Waits until *p is at least want; 0 when it takes longer than `seconds`. */
static int reached(uint64_t (*fn)(void *ctx), void *ctx, uint64_t want, double seconds)
{
	for (int i = 0; i < seconds * 200; i++) {
		if (fn(ctx) >= want)
			return 1;
		g_usleep(5 * MS);
	}
	return 0;
}

static uint64_t done_of(void *l)
{
	return load_done(l);
}

/* Both queues go on: so many writes more. */
static void both_go_on(struct load *a, struct load *b)
{
	g_assert_true(reached(done_of, a, load_done(a) + 200, 20));
	g_assert_true(reached(done_of, b, load_done(b) + 200, 20));
}

static void test_restart(void)
{
	struct load *a, *b;
	struct vol x;

	tgt_begin();
	tgt("lun", "1 1 64M");
	vol_open(&x, 1, "");
	a = load_start(x.v, 0, 1024, 32);
	b = load_start(x.v, 1024, 1024, 32);
	for (int i = 0; i < 4; i++) {
		both_go_on(a, b);
		tgt("kill", "");
		if (i & 1)
			g_usleep(300 * MS); /* attempts are refused */
		tgt("start", "");
	}
	both_go_on(a, b);
	tgt("stop", "");
	g_usleep(500 * MS);
	tgt("cont", "");
	both_go_on(a, b);
	/* Not one failed, and what was acknowledged last is what is there. */
	g_assert_cmpuint(load_stop(a), ==, 0);
	g_assert_cmpuint(load_stop(b), ==, 0);
	g_assert_cmpuint(load_verify(a, x.v), ==, 0);
	g_assert_cmpuint(load_verify(b, x.v), ==, 0);
	vol_close(&x);
	tgt_end();
}

/* The session alone is cut: the target goes on with what it has. */
static void test_cut(void)
{
	struct load *a, *b;
	struct vol x;

	tgt_begin();
	tgt("lun", "1 1 64M");
	vol_open(&x, 1, "");
	a = load_start(x.v, 0, 512, 32);
	b = load_start(x.v, 512, 512, 32);
	for (int i = 0; i < 20; i++) {
		both_go_on(a, b);
		tgt("cut", "1");
	}
	both_go_on(a, b);
	g_assert_cmpuint(load_stop(a), ==, 0);
	g_assert_cmpuint(load_stop(b), ==, 0);
	g_assert_cmpuint(load_verify(a, x.v), ==, 0);
	g_assert_cmpuint(load_verify(b, x.v), ==, 0);
	vol_close(&x);
	tgt_end();
}

/* Nobody waits for anything: the loss is noticed all the same, and costs no time. */
static void test_cut_idle(void)
{
	struct rusage from, to;
	struct vol x;
	struct tq t;

	tgt_begin();
	tgt("lun", "1 1 16M");
	vol_open(&x, 1, "");
	tq_open(&t, x.v, 8);
	tgt("cut", "1");
	getrusage(RUSAGE_SELF, &from);
	g_usleep(1000 * MS);
	getrusage(RUSAGE_SELF, &to);
	g_assert_cmpint((to.ru_utime.tv_sec + to.ru_stime.tv_sec - from.ru_utime.tv_sec - from.ru_stime.tv_sec) * 1000000 +
			to.ru_utime.tv_usec + to.ru_stime.tv_usec - from.ru_utime.tv_usec - from.ru_stime.tv_usec, <, 300 * MS);
	g_assert_cmpint(tq_io(&t, VH_FLUSH, 0, NULL, 0, 0), ==, 0);
	tq_close(&t);
	/* The same in the middle of closing: with the target away for good. */
	tq_open(&t, x.v, 8);
	tgt("kill", "");
	g_usleep(200 * MS);
	tq_close(&t);
	vol_close(&x);
	tgt("start", "");
	tgt_end();
}

/* ---- one request at a time ---- */

static int one(struct tq *t, int op, int flags, uint64_t off, uint64_t len, int byte, uint8_t *got)
{
	uint8_t *buf = aligned_alloc(4096, (len + 4095) & ~UINT64_C(4095));
	int r;

	memset(buf, byte, len);
	r = tq_io(t, op, flags, op <= (int)VH_WRITE ? buf : NULL, len, off);
	if (got)
		memcpy(got, buf, len);
	free(buf);
	return r;
}

static int all_are(struct tq *t, uint64_t off, uint64_t len, int byte)
{
	uint8_t *buf = malloc(len);
	int ok = 1;

	g_assert_cmpint(one(t, VH_READ, 0, off, len, 0xee, buf), ==, 0);
	for (uint64_t i = 0; i < len; i++)
		ok &= buf[i] == (uint8_t)byte;
	free(buf);
	return ok;
}

struct late { struct tq *t; int byte, res; };

static void *write_late(void *arg)
{
	struct late *l = arg;

	l->res = one(l->t, VH_WRITE, 0, 0, 65536, l->byte, NULL);
	return NULL;
}

static void test_timeout(void)
{
	struct tq a, b;
	struct vol x;
	struct late late = {&a, 0x11, 0};
	GThread *thread;
	gint64 from;

	tgt_begin();
	tgt("lun", "1 1 64M");
	vol_open(&x, 1, "timeout=1500ms,login-timeout=1s");
	tq_open(&a, x.v, 8);
	tq_open(&b, x.v, 8);
	g_assert_cmpint(one(&a, VH_WRITE, 0, 0, 65536, 0x10, NULL), ==, 0);
	tgt("stop", "");
	from = g_get_monotonic_time();
	thread = g_thread_new("late", write_late, &late);
	g_thread_join(thread);
	g_assert_cmpint(late.res, ==, -ETIMEDOUT);
	g_assert_cmpint(g_get_monotonic_time() - from, >=, 1400 * MS);
	g_assert_cmpint(g_get_monotonic_time() - from, <, 4000 * MS);
	/* The other queue's session is well. What it writes after the failure was told must not be overwritten by what the target
	 * still has of the first one. */
	thread = g_thread_new("late", write_late, &(struct late){&b, 0x22, 0});
	g_usleep(300 * MS);
	tgt("cont", "");
	g_thread_join(thread);
	if (one(&b, VH_WRITE, 0, 0, 65536, 0x33, NULL)) /* that one was out of time as well */
		g_assert_cmpint(one(&b, VH_WRITE, 0, 0, 65536, 0x33, NULL), ==, 0);
	g_usleep(300 * MS);
	g_assert_true(all_are(&b, 0, 65536, 0x33));
	g_assert_true(all_are(&a, 0, 65536, 0x33));
	tq_close(&a);
	tq_close(&b);
	vol_close(&x);
	tgt_end();
}

static void test_operations(void)
{
	const struct vh_volume_info *i;
	struct vol x;
	struct tq t;

	tgt_begin();
	tgt("lun", "1 1 64M");
	vol_open(&x, 1, "");
	i = blk_vol_info(x.v);
	g_assert_cmpint(i->caps & (VH_VOL_FLUSH | VH_VOL_WRITE_CACHE | VH_VOL_DISCARD | VH_VOL_ZERO), ==,
			VH_VOL_FLUSH | VH_VOL_WRITE_CACHE | VH_VOL_DISCARD | VH_VOL_ZERO);
	g_assert_true(i->wwid[0] && i->serial[0]);
	tq_open(&t, x.v, 16);
	g_assert_cmpint(one(&t, VH_WRITE, VH_REQ_FUA, 0, 4 << 20, 0x5a, NULL), ==, 0);
	g_assert_true(all_are(&t, 0, 4 << 20, 0x5a));
	g_assert_cmpint(one(&t, VH_ZERO, 0, 65536, 65536, 0, NULL), ==, 0);
	g_assert_cmpint(one(&t, VH_ZERO, VH_REQ_MAY_UNMAP | VH_REQ_FUA, 131072, 65536, 0, NULL), ==, 0);
	g_assert_true(all_are(&t, 65536, 131072, 0));
	g_assert_true(all_are(&t, 0, 65536, 0x5a));
	g_assert_true(all_are(&t, 196608, 65536, 0x5a));
	g_assert_cmpint(one(&t, VH_DISCARD, 0, 1 << 20, 1 << 20, 0, NULL), ==, 0);
	if (i->caps & VH_VOL_DISCARD_ZEROES)
		g_assert_true(all_are(&t, 1 << 20, 1 << 20, 0));
	g_assert_true(all_are(&t, 2 << 20, 65536, 0x5a));
	g_assert_cmpint(one(&t, VH_FLUSH, 0, 0, 0, 0, NULL), ==, 0);
	/* Parts of blocks, which the core merges. */
	g_assert_cmpint(one(&t, VH_WRITE, 0, 100, 1000, 0x77, NULL), ==, 0);
	g_assert_true(all_are(&t, 100, 1000, 0x77));
	g_assert_true(all_are(&t, 0, 100, 0x5a));
	tq_close(&t);
	vol_close(&x);
	tgt_end();
}

/* ---- the LUN changes ---- */

static atomic_ullong size_told;

static void heard(void *ctx, uint32_t event, uint64_t value)
{
	if (event == VH_EVENT_SIZE)
		atomic_store(&size_told, value);
}

static uint64_t told(void *ctx)
{
	return atomic_load(&size_told);
}

static void test_grows(void)
{
	struct vol x;
	struct tq t;
	struct late late = {&t, 0x46, 0};
	GThread *thread;

	tgt_begin();
	tgt("lun", "1 1 64M");
	vol_open(&x, 1, "");
	blk_vol_listen(x.v, heard, NULL);
	tq_open(&t, x.v, 8);
	g_assert_cmpint(one(&t, VH_WRITE, 0, 4096, 4096, 0x44, NULL), ==, 0);
	tgt("unlun", "1 1");
	tgt("grow", "1 1 96M");
	/* Waits while it is not there, goes on afterwards, and notices. */
	thread = g_thread_new("late", write_late, &late);
	g_usleep(200 * MS);
	tgt("lun", "1 1 96M");
	g_thread_join(thread);
	g_assert_cmpint(late.res, ==, 0);
	g_assert_true(all_are(&t, 0, 4096, 0x46));
	g_assert_true(reached(told, NULL, 96 << 20, 10));
	g_assert_cmpuint(blk_vol_bytes(x.v), ==, 96 << 20);
	g_assert_cmpint(one(&t, VH_WRITE, 0, 95 << 20, 4096, 0x45, NULL), ==, 0);
	/* tgtd does not tell an idle session anything: it is asked. */
	tgt("unlun", "1 1");
	tgt("grow", "1 1 128M");
	tgt("lun", "1 1 128M");
	g_assert_true(reached(told, NULL, 128 << 20, 15));
	blk_vol_listen(x.v, NULL, NULL);
	tq_close(&t);
	vol_close(&x);
	tgt_end();
}

static void test_other_disk(void)
{
	g_autofree char *image = NULL, *now = NULL;
	struct vol x;
	struct tq t;
	gsize n;

	tgt_begin();
	tgt("lun", "1 1 16M");
	vol_open(&x, 1, "timeout=2s");
	tq_open(&t, x.v, 8);
	g_assert_cmpint(one(&t, VH_WRITE, 0, 4096, 4096, 0x44, NULL), ==, 0);
	tgt("unlun", "1 1");
	g_assert_cmpint(one(&t, VH_READ, 0, 0, 4096, 0, NULL), ==, -ETIMEDOUT);
	/* Another disk takes the number: it must not get a byte. */
	tgt("move", "1-1.img old.img");
	tgt("lun", "1 1 16M scsi_id=another,scsi_sn=other");
	g_assert_cmpint(one(&t, VH_WRITE, 0, 4096, 4096, 0x55, NULL), ==, -ETIMEDOUT);
	image = g_build_filename(tgt_dir, "1-1.img", NULL);
	g_assert_true(g_file_get_contents(image, &now, &n, NULL));
	for (gsize i = 0; i < n; i++)
		g_assert_cmpint(now[i], ==, 0);
	tq_close(&t);
	vol_close(&x);
	tgt_end();
}

static void test_gone(void)
{
	struct vol x;
	struct tq t;
	gint64 from;
	ERR_AUTO(e);

	tgt_begin();
	tgt("lun", "1 1 16M");
	g_assert_cmpint(vol_try(&x, 7, VH_ATTACH_RW_EXCL, "", &e), ==, -ENOENT);
	g_assert_nonnull(strstr(e.cause, "no LUN 7"));
	vol_open(&x, 1, "timeout=1s");
	tq_open(&t, x.v, 8);
	tgt("unlun", "1 1");
	from = g_get_monotonic_time();
	g_assert_cmpint(one(&t, VH_READ, 0, 0, 4096, 0, NULL), ==, -ETIMEDOUT);
	g_assert_cmpint(g_get_monotonic_time() - from, <, 4000 * MS);
	tq_close(&t);
	vol_close(&x);
	tgt_end();
}

/* ---- reservations ---- */

#define HOST_A "reservation=on,initiator=iqn.2024-01.test:host-a"
#define HOST_B "reservation=on,initiator=iqn.2024-01.test:host-b"

static void test_reservation(void)
{
	struct vol a, b;
	struct tq t, t2, u;

	tgt_begin();
	tgt("lun", "1 1 16M");
	vol_open(&a, 1, HOST_A);
	tq_open(&t, a.v, 8);
	tq_open(&t2, a.v, 8);
	g_assert_cmpint(one(&t, VH_WRITE, 0, 0, 4096, 0x66, NULL), ==, 0);
	g_assert_cmpint(one(&t2, VH_WRITE, 0, 4096, 4096, 0x66, NULL), ==, 0);
	for (unsigned i = 0; i < 2; i++) {
		ERR_AUTO(e);

		g_assert_cmpint(vol_try(&b, 1, i ? VH_ATTACH_RO : VH_ATTACH_RW_EXCL, HOST_B, &e), ==, -EBUSY);
		g_assert_nonnull(strstr(e.cause, "another host"));
		g_assert_nonnull(strstr(e.cause, "key 0x5648"));
	}
	/* One that does not ask is kept out by the target. */
	vol_open(&b, 1, "initiator=iqn.2024-01.test:host-b,timeout=1s");
	tq_open(&u, b.v, 8);
	g_assert_cmpint(one(&u, VH_WRITE, 0, 0, 4096, 0x67, NULL), <, 0);
	tq_close(&u);
	vol_close(&b);
	/* It is held over a loss of the session, and over a new start of a target that forgets it. */
	tgt("cut", "1");
	g_assert_true(all_are(&t, 0, 8192, 0x66));
	tgt("kill", "");
	tgt("start", "");
	g_assert_cmpint(one(&t, VH_WRITE, 0, 0, 4096, 0x68, NULL), ==, 0);
	{
		ERR_AUTO(e);

		g_assert_cmpint(vol_try(&b, 1, VH_ATTACH_RW_EXCL, HOST_B, &e), ==, -EBUSY);
	}
	g_assert_true(all_are(&t2, 4096, 4096, 0x66));
	tq_close(&t);
	tq_close(&t2);
	vol_close(&a);
	vol_open(&b, 1, HOST_B);
	tq_open(&u, b.v, 8);
	g_assert_true(all_are(&u, 0, 4096, 0x68));
	tq_close(&u);
	vol_close(&b);
	tgt_end();
}

static atomic_int lease_lost;

static void heard_lease(void *ctx, uint32_t event, uint64_t value)
{
	if (event == VH_EVENT_LEASE_LOST)
		atomic_store(&lease_lost, 1);
}

/* Whoever is broken stops, for good. */
static void test_broken(void)
{
	const struct vh_pool_ops *ops;
	struct vol a, b;
	struct tq t, u;
	void *pool;

	tgt_begin();
	tgt("lun", "1 1 16M");
	vol_open(&a, 1, HOST_A);
	blk_vol_listen(a.v, heard_lease, NULL);
	tq_open(&t, a.v, 8);
	g_assert_cmpint(one(&t, VH_WRITE, 0, 0, 4096, 0x71, NULL), ==, 0);
	{
		ERR_AUTO(e);

		vol_open(&b, 1, "initiator=iqn.2024-01.test:host-b");
		ops = store_pool_ops(b.pool, &pool);
		if (ops->lease_break(pool, "lun1", NULL, &e))
			g_error("%s", e.cause);
		vol_close(&b);
	}
	vol_open(&b, 1, HOST_B);
	tq_open(&u, b.v, 8);
	g_assert_cmpint(one(&t, VH_WRITE, 0, 0, 4096, 0x72, NULL), <, 0);
	g_assert_true(all_are(&u, 0, 4096, 0x71));
	tq_close(&u);
	vol_close(&b);
	/* Given back, but what it knew of the disk is old. */
	g_assert_cmpint(one(&t, VH_READ, 0, 0, 4096, 0, NULL), <, 0);
	g_assert_cmpint(one(&t, VH_WRITE, 0, 0, 4096, 0x73, NULL), <, 0);
	for (int i = 0; !atomic_load(&lease_lost) && i < 500; i++)
		g_usleep(10 * MS);
	g_assert_true(atomic_load(&lease_lost));
	blk_vol_listen(a.v, NULL, NULL);
	tq_close(&t);
	vol_close(&a);
	tgt_end();
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_setenv("VHOST_PLUGIN_PATH", PLUGINS, FALSE);
	g_autofree char *tgtd = g_find_program_in_path("tgtd");

	if (!tgtd) {
		puts("1..0 # SKIP tgtd is not installed (Debian: tgt)");
		return 0;
	}
	g_test_add_func("/iscsi/operations", test_operations);
	g_test_add_func("/iscsi/restart", test_restart);
	g_test_add_func("/iscsi/cut", test_cut);
	g_test_add_func("/iscsi/cut-idle", test_cut_idle);
	g_test_add_func("/iscsi/timeout", test_timeout);
	g_test_add_func("/iscsi/grows", test_grows);
	g_test_add_func("/iscsi/other-disk", test_other_disk);
	g_test_add_func("/iscsi/gone", test_gone);
	g_test_add_func("/iscsi/reservation", test_reservation);
	g_test_add_func("/iscsi/broken", test_broken);
	return g_test_run();
}
