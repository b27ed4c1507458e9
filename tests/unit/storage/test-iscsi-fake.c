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

static unsigned logins(void)
{
	g_autofree char *path = g_build_filename(tgt_dir, "log", NULL), *text = NULL;
	unsigned n = 0;

	g_assert_true(g_file_get_contents(path, &text, NULL, NULL));
	for (const char *p = text; (p = strstr(p, "login ")); p++)
		n++;
	return n;
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
	before = logins();
	for (int i = 0; load_done(l) < 30; i++) {
		g_assert_cmpint(i, <, 3000);
		g_usleep(10 * MS);
	}
	g_assert_cmpuint(load_stop(l), ==, 0);
	g_assert_cmpuint(logins(), ==, before);
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

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_setenv("VHOST_PLUGIN_PATH", PLUGINS, FALSE);
	g_test_add_func("/iscsi-fake/behaves", test_behaves);
	g_test_add_func("/iscsi-fake/lies", test_lies);
	g_test_add_func("/iscsi-fake/answers", test_answers);
	g_test_add_func("/iscsi-fake/busy", test_busy);
	g_test_add_func("/iscsi-fake/grows", test_grows);
	g_test_add_func("/iscsi-fake/late-write", test_late_write);
	return g_test_run();
}
