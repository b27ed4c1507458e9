/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The iscsi pool against a target that lies, and one that does what it was told later than it should (tests/servers/fake-iscsi). */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "iscsitest.h"

#define MS 1000

static GPid fake;

static void put(const char *name, const char *text)
{
	g_autofree char *path = g_build_filename(tgt_dir, name, NULL);

	if (text)
		g_assert_true(g_file_set_contents(path, text, -1, NULL));
	else
		unlink(path);
}

static void fake_begin(const char *mode)
{
	g_autofree char *port = NULL;

	test_begin();
	port = g_build_filename(tgt_dir, "port", NULL);
	char *argv[] = {(char *)"python3", (char *)FAKE, tgt_dir, NULL};
	g_assert_cmpint(g_mkdir_with_parents(tgt_dir, 0700), ==, 0);
	put("mode", mode);
	g_assert_true(g_spawn_async(NULL, argv, NULL, G_SPAWN_SEARCH_PATH | G_SPAWN_DO_NOT_REAP_CHILD, NULL, NULL, &fake, NULL));
	for (int i = 0; !g_file_test(port, G_FILE_TEST_EXISTS); i++) {
		g_assert_cmpint(i, <, 2000);
		g_usleep(10 * MS);
	}
}

static void fake_end(void)
{
	kill(fake, SIGKILL);
	waitpid(fake, NULL, 0);
	g_spawn_close_pid(fake);
	test_end();
}

static int one(struct tq *t, int op, uint64_t off, uint64_t len, int byte, uint8_t *got)
{
	uint8_t *buf = aligned_alloc(4096, len);
	int r;

	memset(buf, byte, len);
	r = tq_io(t, op, 0, buf, len, off);
	if (got)
		*got = buf[len - 1] == buf[0] ? buf[0] : 0xff;
	free(buf);
	return r;
}

static uint8_t byte_at(struct tq *t, uint64_t off)
{
	uint8_t got = 0;

	g_assert_cmpint(one(t, VH_READ, off, 4096, 0xee, &got), ==, 0);
	return got;
}

static void test_behaves(void)
{
	struct vol x;
	struct tq t;

	fake_begin("");
	vol_open(&x, 1, "");
	g_assert_cmpuint(blk_vol_bytes(x.v), ==, 16 << 20);
	g_assert_cmpstr(blk_vol_info(x.v)->wwid, ==, "naa.5000c50012345678");
	tq_open(&t, x.v, 8);
	g_assert_cmpint(one(&t, VH_WRITE, 0, 4096, 0x11, NULL), ==, 0);
	g_assert_cmpint(one(&t, VH_WRITE, 1 << 20, 2 << 20, 0x22, NULL), ==, 0); /* more than goes at once */
	g_assert_cmpint(byte_at(&t, 0), ==, 0x11);
	g_assert_cmpint(byte_at(&t, (3 << 20) - 4096), ==, 0x22);
	tq_close(&t);
	vol_close(&x);
	fake_end();
}

/* What it says about itself is refused in words, and nothing else happens. */
static void test_lies(void)
{
	static const struct { const char *mode, *text; } lies[] = {
		{"luns-huge", "makes no sense"}, {"luns-odd", "makes no sense"}, {"luns-short", "makes no sense"},
		{"size-huge", "size that makes sense"}, {"block-0", "size that makes sense"}, {"block-3", "size that makes sense"},
		{"block-1g", "size that makes sense"}};

	for (unsigned i = 0; i < G_N_ELEMENTS(lies); i++) {
		struct vol x;
		ERR_AUTO(e);

		fake_begin(lies[i].mode);
		g_assert_cmpint(vol_try(&x, 1, VH_ATTACH_RW_EXCL, "", &e), <, 0);
		if (!strstr(e.cause, lies[i].text))
			g_error("%s: %s", lies[i].mode, e.cause);
		fake_end();
	}
	/* A designator that ends beyond the page is none. */
	struct vol x;
	fake_begin("id-long");
	vol_open(&x, 1, "");
	g_assert_cmpstr(blk_vol_info(x.v)->wwid, ==, "");
	vol_close(&x);
	fake_end();
}

/* Wrong answers to reads and writes: an error, or the session is dropped and it goes on when the target behaves; what lies behind
 * the buffers (which are pages of their own under the sanitizer) is left alone. */
static void test_answers(void)
{
	static const struct { const char *mode; int op, fails; } wrong[] = {
		{"short", VH_READ, 1}, {"over", VH_READ, 0}, {"beyond", VH_READ, 0}, {"garbage", VH_READ, 0}, {"garbage", VH_WRITE, 0},
		{"itt", VH_READ, 0}, {"itt", VH_WRITE, 0}, {"r2t-beyond", VH_WRITE, 0}};

	for (unsigned i = 0; i < G_N_ELEMENTS(wrong); i++) {
		struct vol x;
		struct tq t;
		int r;

		fake_begin("");
		vol_open(&x, 1, "timeout=1s");
		tq_open(&t, x.v, 8);
		g_assert_cmpint(one(&t, VH_WRITE, 0, 8192, 0x31, NULL), ==, 0);
		put("mode", wrong[i].mode);
		r = one(&t, wrong[i].op, 0, 4096, 0x32, NULL);
		if (wrong[i].fails)
			g_assert_cmpint(r, ==, -EIO);
		else if (r)
			g_assert_true(r == -ETIMEDOUT || r == -EIO);
		put("mode", "");
		g_assert_cmpint(one(&t, VH_WRITE, 0, 4096, 0x33, NULL), ==, 0);
		g_assert_cmpint(byte_at(&t, 0), ==, 0x33);
		g_assert_cmpint(byte_at(&t, 4096), ==, 0x31);
		tq_close(&t);
		vol_close(&x);
		fake_end();
	}
}

static unsigned logged(const char *word)
{
	g_autofree char *path = g_build_filename(tgt_dir, "log", NULL), *text = NULL;
	unsigned n = 0;

	g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
	for (const char *p = text; (p = strstr(p, word)); p++)
		n++;
	return n;
}

/* ---- many reads at once ---- */

#define DEEP 32
#define DEEP_BLOCKS 64

struct deep {
	struct tq t;
	struct deep_read { struct blk_io io; struct iovec iov; struct deep *d; uint8_t *buf; } r[DEEP];
	unsigned left, at, wrong; /* its loop's */
	atomic_uint flying;
};

static void deep_next(struct deep_read *r)
{
	r->io.off = (uint64_t)(r->d->at++ % DEEP_BLOCKS) * 4096;
	r->d->left--;
	blk_submit(r->d->t.q, &r->io);
}

static void deep_ended(struct blk_io *io, int res)
{
	struct deep_read *r = (struct deep_read *)((char *)io - offsetof(struct deep_read, io));
	uint8_t want = (uint8_t)(io->off / 4096 + 1);

	r->d->wrong += res || r->buf[0] != want || memcmp(r->buf, r->buf + 1, 4095);
	if (r->d->left)
		deep_next(r);
	else
		atomic_fetch_sub(&r->d->flying, 1);
}

static void deep_begin(void *ctx)
{
	struct deep *d = ctx;

	atomic_store(&d->flying, DEEP);
	for (unsigned i = 0; i < DEEP; i++)
		deep_next(&d->r[i]);
}

static void deep_start(struct deep *d, unsigned n)
{
	d->left = n;
	loop_call(d->t.l, deep_begin, d);
}

static void deep_wait(struct deep *d)
{
	for (int i = 0; atomic_load(&d->flying); i++) {
		if (i == 2000)
			g_error("%u reads have no end", atomic_load(&d->flying));
		g_usleep(10 * MS);
	}
	g_assert_cmpuint(d->wrong, ==, 0);
}

static void deep_run(struct deep *d, unsigned n)
{
	deep_start(d, n);
	deep_wait(d);
}

/* Answers of many reads are waited for together; every one ends all the same, also where they are shorter than what was waited for, or
 * the last ones, or where the session ends meanwhile. */
static void test_deep(void)
{
	struct deep *d = g_new0(struct deep, 1);
	struct vol x;

	fake_begin("");
	vol_open(&x, 1, "");
	tq_open(&d->t, x.v, DEEP);
	for (unsigned i = 0; i < DEEP; i++) {
		struct deep_read *r = &d->r[i];

		r->d = d;
		r->buf = aligned_alloc(4096, 4096);
		r->iov = (struct iovec){r->buf, 4096};
		r->io = (struct blk_io){.op = VH_READ, .len = 4096, .iov = &r->iov, .niov = 1, .done = deep_ended};
	}
	for (unsigned i = 0; i < DEEP_BLOCKS; i++)
		g_assert_cmpint(one(&d->t, VH_WRITE, i * 4096, 4096, (int)i + 1, NULL), ==, 0);
	put("mode", "bursts");
	deep_run(d, 3000);
	for (unsigned n = DEEP; n < DEEP + 40; n++)
		deep_run(d, n);
	put("mode", "busy");
	deep_run(d, DEEP);
	g_assert_cmpuint(logged("ping"), ==, 0); /* nothing was left lying until it was asked for */
	put("mode", "drop");
	deep_start(d, 500);
	g_usleep(50 * MS);
	put("mode", "");
	deep_wait(d);
	tq_close(&d->t);
	for (unsigned i = 0; i < DEEP; i++)
		free(d->r[i].buf);
	g_free(d);
	vol_close(&x);
	fake_end();
}

/* A busy target is waited for; its sessions stay. */
static void test_busy(void)
{
	struct load *l;
	struct vol x;
	unsigned before;

	fake_begin("");
	vol_open(&x, 1, "");
	put("mode", "busy");
	l = load_start(x.v, 0, 64, 8);
	before = logged("login ");
	for (int i = 0; load_done(l) < 30; i++) {
		g_assert_cmpint(i, <, 3000);
		g_usleep(10 * MS);
	}
	g_assert_cmpuint(load_stop(l), ==, 0);
	g_assert_cmpuint(logged("login "), ==, before);
	put("mode", "");
	g_assert_cmpuint(load_verify(l, x.v), ==, 0);
	vol_close(&x);
	fake_end();
}

static void test_grows(void)
{
	struct vol x;
	struct tq t;

	fake_begin("");
	vol_open(&x, 1, "");
	tq_open(&t, x.v, 8);
	g_assert_cmpint(one(&t, VH_WRITE, 0, 4096, 0x41, NULL), ==, 0);
	put("mode", "grow");
	g_assert_cmpint(one(&t, VH_WRITE, 0, 4096, 0x42, NULL), ==, 0);
	for (int i = 0; blk_vol_bytes(x.v) != 32 << 20; i++) {
		g_assert_cmpint(i, <, 300); /* sooner than by asking for it */
		g_usleep(10 * MS);
	}
	g_assert_cmpint(byte_at(&t, 0), ==, 0x42);
	g_assert_cmpint(one(&t, VH_WRITE, (32 << 20) - 4096, 4096, 0x43, NULL), ==, 0);
	tq_close(&t);
	vol_close(&x);
	fake_end();
}

struct late { struct tq *t; int byte; atomic_int ended; int res; };

static void *write_late(void *arg)
{
	struct late *l = arg;

	l->res = one(l->t, VH_WRITE, 0, 4096, l->byte, NULL);
	atomic_store(&l->ended, 1);
	return NULL;
}

/*
 * The target has a write in its hands that was told to have failed. What is written afterwards, on this queue or on another one, is
 * never overwritten by it, however late it comes.
 */
static void test_late_write(void)
{
	struct late other = {.byte = 0x53};
	struct tq a, b;
	struct vol x;
	GThread *thread;

	fake_begin("");
	vol_open(&x, 1, "timeout=2s,login-timeout=1s");
	tq_open(&a, x.v, 8);
	tq_open(&b, x.v, 8);
	g_assert_cmpint(one(&a, VH_WRITE, 0, 4096, 0x51, NULL), ==, 0);
	g_assert_cmpint(one(&b, VH_WRITE, 4096, 4096, 0x51, NULL), ==, 0);
	put("nologin", "");
	put("mode", "hold");
	g_assert_cmpint(one(&a, VH_WRITE, 0, 4096, 0x52, NULL), ==, -ETIMEDOUT);
	/* The other queue's session is as good as ever, and yet it must not go on. */
	put("mode", "");
	other.t = &b;
	thread = g_thread_new("other", write_late, &other);
	g_usleep(700 * MS);
	g_assert_false(atomic_load(&other.ended));
	put("nologin", NULL);
	g_thread_join(thread);
	g_assert_cmpint(other.res, ==, 0);
	put("release", "");
	g_usleep(200 * MS);
	g_assert_cmpint(byte_at(&b, 0), ==, 0x53);
	/* And on its own. */
	put("release", NULL);
	put("mode", "hold");
	g_assert_cmpint(one(&a, VH_WRITE, 0, 4096, 0x54, NULL), ==, -ETIMEDOUT);
	put("mode", "");
	g_assert_cmpint(one(&a, VH_WRITE, 0, 4096, 0x55, NULL), ==, 0);
	put("release", "");
	g_usleep(200 * MS);
	g_assert_cmpint(byte_at(&a, 0), ==, 0x55);
	/* Nor by the next one who has the LUN. */
	put("release", NULL);
	put("mode", "hold");
	g_assert_cmpint(one(&a, VH_WRITE, 0, 4096, 0x56, NULL), ==, -ETIMEDOUT);
	put("nologin", "");
	tq_close(&a);
	tq_close(&b);
	vol_close(&x);
	put("mode", "");
	put("nologin", NULL);
	vol_open(&x, 1, "");
	tq_open(&a, x.v, 8);
	g_assert_cmpint(one(&a, VH_WRITE, 0, 4096, 0x57, NULL), ==, 0);
	put("release", "");
	g_usleep(200 * MS);
	g_assert_cmpint(byte_at(&a, 0), ==, 0x57);
	tq_close(&a);
	vol_close(&x);
	fake_end();
}

static GThread *write_begin(struct late *l, struct tq *t, int byte)
{
	*l = (struct late){.t = t, .byte = byte};
	return g_thread_new("late", write_late, l);
}

static unsigned written(int byte) /* at block 0, by the target */
{
	g_autofree char *line = g_strdup_printf("write 0 4096 %d\n", byte);

	return logged(line);
}

static void wait_logged(const char *word, unsigned n)
{
	for (int i = 0; logged(word) < n; i++) {
		g_assert_cmpint(i, <, 2000);
		g_usleep(10 * MS);
	}
}

/* The queue's session ends, and no other begins. */
static void lose(struct tq *t)
{
	put("nologin", "");
	put("mode", "drop");
	g_assert_cmpint(one(t, VH_READ, 8192, 4096, 0, NULL), ==, -ETIMEDOUT); /* it waits, so that it can be given up */
	put("mode", "");
}

/*
 * Whoever has waited too long (io-timeout) may give up what is not at the target: it ends, and is never sent. What is there
 * stays until it is known what came of it.
 */
static void test_cancel(void)
{
	struct late l;
	struct tq a, b;
	struct vol x;
	GThread *thread;

	fake_begin("");
	vol_io_timeout = 200000000;
	vol_open(&x, 1, "login-timeout=1s");
	tq_open(&a, x.v, 8);
	tq_open(&b, x.v, 8);
	g_assert_cmpint(one(&a, VH_WRITE, 0, 4096, 0x61, NULL), ==, 0);
	/* Sent, and the session is well: it ends as it truly did, however late. */
	put("mode", "hold");
	thread = write_begin(&l, &a, 0x62);
	wait_logged("held ", 1);
	g_usleep(600 * MS);
	g_assert_false(atomic_load(&l.ended));
	put("mode", "hold-answer");
	put("release", "");
	g_thread_join(thread);
	g_assert_cmpint(l.res, ==, 0);
	put("release", NULL);
	/* A session that is lost: what waits for the next one is given up, flushes without being taken for failed ones. */
	lose(&a);
	g_assert_cmpint(one(&a, VH_WRITE, 0, 4096, 0x63, NULL), ==, -ETIMEDOUT);
	g_assert_cmpint(tq_io(&a, VH_FLUSH, 0, NULL, 0, 0), ==, -ETIMEDOUT);
	g_assert_cmpint(blk_vol_failed(x.v), ==, 0);
	g_assert_cmpint(one(&b, VH_WRITE, 4096, 4096, 0x63, NULL), ==, 0); /* the other queue's is well, and nothing is in its way */
	put("nologin", NULL);
	for (int i = 0; one(&a, VH_WRITE, 0, 4096, 0x64, NULL); i++)
		g_assert_cmpint(i, <, 50);
	g_assert_cmpint(byte_at(&b, 0), ==, 0x64);
	g_assert_cmpuint(written(0x63), ==, 0);
	/* A write in the target's hands when the session is lost: given up with it, and nobody writes before it is known to be dead. */
	put("mode", "hold");
	thread = write_begin(&l, &a, 0x65);
	wait_logged("held ", 2);
	lose(&a);
	g_thread_join(thread);
	g_assert_cmpint(l.res, ==, -ETIMEDOUT);
	g_assert_cmpint(one(&b, VH_WRITE, 0, 4096, 0x66, NULL), ==, -ETIMEDOUT);
	put("nologin", NULL);
	for (int i = 0; one(&b, VH_WRITE, 0, 4096, 0x67, NULL); i++)
		g_assert_cmpint(i, <, 50);
	put("release", "");
	g_usleep(200 * MS);
	g_assert_cmpint(byte_at(&a, 0), ==, 0x67);
	g_assert_cmpuint(written(0x65) + written(0x66), ==, 0);
	tq_close(&a);
	tq_close(&b);
	vol_close(&x);
	fake_end();
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_setenv("VHOST_PLUGIN_PATH", PLUGINS, FALSE);
	g_test_add_func("/iscsi-fake/behaves", test_behaves);
	g_test_add_func("/iscsi-fake/lies", test_lies);
	g_test_add_func("/iscsi-fake/answers", test_answers);
	g_test_add_func("/iscsi-fake/deep", test_deep);
	g_test_add_func("/iscsi-fake/busy", test_busy);
	g_test_add_func("/iscsi-fake/grows", test_grows);
	g_test_add_func("/iscsi-fake/late-write", test_late_write);
	g_test_add_func("/iscsi-fake/cancel", test_cancel);
	return g_test_run();
}
