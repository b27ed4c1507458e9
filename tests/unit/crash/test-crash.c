/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The explorer of crash states: it passes what is safe, and finds each rule that is broken. Which broken plugin, or which
 * format, is the argument: `-b FILE`, or `-f FORMAT [STATES [KEY=VALUE...]]` (secret=on: it is made and opened with a passphrase); without one,
 * its own parts are tried.
 */
#include <stdlib.h>
#include <unistd.h>
#include <glib/gstdio.h>
#include "crash/crash-i.h"
#include "util/log.h"

static const char *format, *broken;
static struct kv options[16], open_options[1];
static struct kvs given = {options, 0}, opening = {open_options, 0};
static uint64_t states = 600;
static int snapshots = 1;
static char *key_file;

static void print(const char *what, const struct crash_result *r)
{
	g_test_message("%s: %" G_GUINT64_FORMAT " states of %" G_GUINT64_FORMAT " rounds (%" G_GUINT64_FORMAT " prefixes, %" G_GUINT64_FORMAT
		       " lost, %" G_GUINT64_FORMAT " torn), %" G_GUINT64_FORMAT " operations, %" G_GUINT64_FORMAT " with leaks, %"
		       G_GUINT64_FORMAT " checked by qemu-img, %" G_GUINT64_FORMAT " read by it%s%s%s%s", what, r->states, r->rounds,
		       r->prefixes, r->lost, r->torn, r->operations, r->leaks, r->qemu_checks, r->qemu_reads, r->text ? "; state " : "",
		       r->text ? r->state : "", r->text ? ": " : "", r->text ? r->text : "");
}

/* In a file that nobody else may read, as secrets must be. */
static void passphrase(void)
{
	int fd = g_file_open_tmp("vhost-key-XXXXXX", &key_file, NULL);

	g_assert_cmpint(fd, >=, 0);
	g_assert_cmpint(write(fd, "open sesame", 11), ==, 11);
	close(fd);
	open_options[0] = options[given.n++] = (struct kv){g_strdup("key-secret"), g_strconcat("file:", key_file, NULL)};
	opening.n = 1;
}

static void safe(void)
{
	g_autofree char *installed = NULL;
	struct crash_spec s = {.format = format, .options = &given, .open_options = &opening, .states = states, .seed = (uint64_t)g_test_rand_int(), 
			       .backing = -1, .snapshots = snapshots, .resizes = 1, .qemu_every = 40};
	struct crash_result r;
	ERR_AUTO(e);
	int ret;

	g_test_message("seed %" G_GUINT64_FORMAT, s.seed);
	ret = crash_run(&s, &r, NULL, &e);
	if (ret < 0)
		g_error("%s: %s", format, e.cause);
	print(format, &r);
	g_assert_null(r.text);
	g_assert_cmpuint(r.states, >=, states);
	g_assert_cmpuint(r.flushes, >, 0);
	g_assert_true(r.prefixes && r.lost && r.torn);
	g_assert_cmpuint(r.checked, ==, r.states);
	if (r.qemu_why_not)
		g_test_message("qemu-img was not asked: %s", r.qemu_why_not);
	installed = g_find_program_in_path("qemu-img");
	if (installed && strcmp(format, "toy-format") && !kvs_get(&given, "block-size") && g_strcmp0(kvs_get(&given, "version"), "luks2"))
		g_assert_null(r.qemu_why_not);
	g_free(r.qemu_why_not);
}

static void found(void)
{
	struct crash_spec s = {.format = "toy-broken", .states = 100000, .seed = (uint64_t)g_test_rand_int(), .depth = 6, .backing = -1, .resizes = 1};
	struct crash_result r;
	ERR_AUTO(e);

	if (plug_add_file(broken, &e) < 0)
		g_error("%s: %s", broken, e.cause);
	g_test_message("seed %" G_GUINT64_FORMAT, s.seed);
	g_assert_cmpint(crash_run(&s, &r, NULL, &e), ==, 1);
	print(broken, &r);
	g_assert_nonnull(r.text);
	g_free(r.text);
}

/* A failing state is found again by its name, from the same seed and from the record that was kept. */
static void again(void)
{
	g_autofree char *dir = g_dir_make_tmp("vhost-crash-XXXXXX", NULL), *record = g_build_filename(dir, "record", NULL);
	struct crash_spec s = {.format = "toy-broken", .states = 4000, .seed = 7, .backing = 1, .depth = 1, .keep = dir}, one;
	struct crash_result r, r2, r3;
	ERR_AUTO(e);

	if (plug_add_file(broken, &e) < 0)
		g_error("%s: %s", broken, e.cause);
	g_assert_cmpint(crash_run(&s, &r, NULL, &e), ==, 1);
	print("first", &r);
	one = s;
	one.keep = NULL;
	one.only = r.state;
	one.trace = record;
	g_assert_cmpint(crash_run(&one, &r2, NULL, &e), ==, 1);
	print("from the record", &r2);
	g_assert_cmpstr(r.text, ==, r2.text);
	g_assert_cmpuint(r.fingerprint, ==, r2.fingerprint);
	one.trace = NULL;
	g_assert_cmpint(crash_run(&one, &r3, NULL, &e), ==, 1);
	print("from the seed", &r3);
	g_assert_cmpstr(r.text, ==, r3.text);
	g_free(r.text);
	g_free(r2.text);
	g_free(r3.text);
	for (unsigned k = 0; k < 4; k++) {
		static const char *const names[] = {"record", "report", "disk.toy-broken", "base.raw"};
		g_autofree char *path = g_build_filename(dir, names[k], NULL);

		g_assert_cmpint(g_unlink(path), ==, 0);
	}
	g_rmdir(dir);
}

/* ---- parts ---- */

static void mem(void)
{
	g_autofree uint8_t *flat = g_malloc0(1u << 20), *buf = g_malloc(1u << 20);
	uint64_t s = (uint64_t)g_test_rand_int() | 1;
	struct mem a, b;

	image_init(&a);
	image_resize(&a, 1u << 20);
	for (unsigned k = 0; k < 2000; k++) {
		uint64_t n = crash_below(&s, 20000), off = crash_below(&s, (1u << 20) - n);

		if (k % 3) {
			memset(buf, (int)(crash_rnd(&s) % 3), n);
			image_write(&a, off, buf, n);
			memcpy(flat + off, buf, n);
		} else {
			image_zero(&a, off, n);
			memset(flat + off, 0, n);
		}
	}
	image_init(&b);
	image_share(&b, &a);
	memset(buf, 9, 5000);
	image_write(&b, 1000, buf, 5000); /* and the other does not change */
	image_read(&a, 0, buf, 1u << 20);
	g_assert_true(!memcmp(buf, flat, 1u << 20));
	image_resize(&b, 3000);
	image_resize(&b, 9000);
	image_read(&b, 0, buf, 9000);
	for (unsigned k = 1000; k < 9000; k++)
		g_assert_cmpuint(buf[k], ==, k < 3000 ? 9 : 0);
	image_fini(&b);
	image_fini(&a);
}

static void event(struct trace *t, uint16_t op, uint64_t off, uint64_t len, uint8_t x, uint32_t begun, uint32_t applied, uint32_t ended)
{
	struct trace_event v = {.op = op, .off = off, .len = len, .begun = begun, .applied = applied, .ended = ended};

	if (op == VH_WRITE) {
		v.data = g_malloc(len);
		memset(v.data, x, len);
	}
	g_array_append_val(t->events, v);
	t->time = MAX(t->time, ended);
}

static uint8_t byte_at(struct trace *t, uint32_t time, enum crash_style style, uint64_t seed, uint64_t off)
{
	struct mem m;
	uint8_t x;

	image_init(&m);
	trace_state(t, time, style, seed, &m);
	image_read(&m, off, &x, 1);
	image_fini(&m);
	return x;
}

/* What a flush covered is there in every state, what it did not may be missing, whole or by sectors. */
static void trace(void)
{
	struct trace *t = trace_new(1);
	unsigned lost[STYLES] = {0}, torn = 0;

	event(t, VH_WRITE, 0, 4096, 1, 1, 2, 3);     /* durable by the flush */
	event(t, VH_WRITE, 4096, 4096, 2, 4, 5, 9);  /* in flight when the flush began: not covered */
	event(t, VH_FLUSH, 0, 0, 0, 6, 7, 8);
	event(t, VH_WRITE, 0, 512, 3, 10, 11, 12);   /* after it */
	event(t, VH_WRITE, 8192, 8192, 4, 13, 14, 15);
	trace_end(t);
	g_assert_cmpuint(byte_at(t, 2, STYLE_PREFIX, 0, 0), ==, 1);
	g_assert_cmpuint(byte_at(t, 1, STYLE_PREFIX, 0, 0), ==, 0);
	g_assert_cmpuint(byte_at(t, 7, STYLE_NOTHING, 0, 0), ==, 0); /* the flush had not ended */
	for (uint64_t seed = 0; seed < 300; seed++) {
		for (unsigned style = 0; style < STYLES; style++) {
			uint8_t first = byte_at(t, 15, style, seed, 0), covered = byte_at(t, 15, style, seed, 600),
				open = byte_at(t, 15, style, seed, 4096), half = 0;

			g_assert_true(first == 1 || first == 3);
			g_assert_cmpuint(covered, ==, 1);
			g_assert_true(open == 0 || open == 2);
			lost[style] += first == 1 || open == 0 || byte_at(t, 15, style, seed, 8192) == 0;
			for (unsigned k = 1; k < 8; k++)
				half |= byte_at(t, 15, style, seed, 4096 + 512 * k) != open;
			g_assert_true(!half || style >= STYLE_TORN);
			torn += half;
			for (unsigned k = 0; k < 512; k += 100) /* a sector is never half */
				g_assert_cmpuint(byte_at(t, 15, style, seed, 4096 + k), ==, open);
		}
	}
	g_assert_cmpuint(torn, >, 0);
	for (unsigned style = 1; style < STYLES; style++)
		g_assert_cmpuint(lost[style], >, 0);
	g_assert_cmpuint(lost[STYLE_PREFIX], ==, 0);
	trace_free(t);
}

static int may_be(struct oracle *o, uint32_t time, uint64_t sector, uint32_t value)
{
	uint8_t buf[CRASH_SECTOR] = {0};
	char *wrong;

	if (value != VALUE_ZERO)
		oracle_fill(buf, value, sector, 1);
	oracle_at(o, time);
	wrong = oracle_wrong(o, sector, buf, 0);
	g_free(wrong);
	return !wrong;
}

static void oracle(void)
{
	struct oracle *o = oracle_new(100, 120, 50);
	struct oracle_op ops[] = {
		{.op = VH_WRITE, .c = 10, .n = 10, .begun = 1, .ended = 2},
		{.op = VH_FLUSH, .begun = 3, .ended = 4},
		{.op = VH_DISCARD, .c = 10, .n = 5, .begun = 5, .ended = 6},
		{.op = VH_WRITE, .c = 15, .n = 1, .begun = 7, .ended = 8, .fua = 1},
		{.op = VH_ZERO, .c = 12, .n = 1, .begun = 9, .ended = 10},
		{.op = ORACLE_RESIZE, .c = 100, .n = 20, .size = 120, .begun = 11, .ended = 12},
		{.op = VH_FLUSH, .begun = 13, .ended = 14},
	};
	uint8_t buf[CRASH_SECTOR] = {0};
	char *wrong;

	for (unsigned k = 0; k < G_N_ELEMENTS(ops); k++)
		oracle_begin(o, &ops[k]);
	g_assert_true(may_be(o, 1, 10, VALUE_OP) && may_be(o, 2, 10, VALUE_BASE) && !may_be(o, 2, 10, VALUE_ZERO));
	g_assert_true(may_be(o, 4, 10, VALUE_OP) && !may_be(o, 4, 10, VALUE_BASE)); /* flushed */
	g_assert_true(may_be(o, 3, 10, VALUE_BASE));                                /* the flush has not ended */
	g_assert_true(may_be(o, 14, 10, VALUE_OP) && may_be(o, 14, 10, VALUE_ZERO)); /* discards promise nothing */
	g_assert_true(may_be(o, 8, 15, VALUE_OP + 3) && !may_be(o, 8, 15, VALUE_OP) && may_be(o, 7, 15, VALUE_OP)); /* FUA */
	g_assert_true(may_be(o, 10, 12, VALUE_OP) && may_be(o, 14, 12, VALUE_ZERO) && !may_be(o, 14, 12, VALUE_OP));
	g_assert_true(!may_be(o, 0, 10, VALUE_OP)); /* not begun */
	g_assert_true(may_be(o, 14, 60, VALUE_ZERO) && !may_be(o, 14, 60, VALUE_BASE) && may_be(o, 14, 40, VALUE_BASE));
	memset(buf, 0xa5, sizeof(buf)); /* a hole, decrypted */
	buf[0] = 1;
	oracle_at(o, 14);
	wrong = oracle_wrong(o, 10, buf, 1);
	g_assert_null(wrong);
	for (unsigned c = 12; c < 18; c += 3) { /* zeros are durable there; a write, with no discard */
		wrong = oracle_wrong(o, c, buf, 1);
		g_assert_nonnull(wrong);
		g_free(wrong);
	}
	wrong = oracle_wrong(o, 10, buf, 0);
	g_assert_nonnull(wrong);
	g_free(wrong);
	oracle_at(o, 12);
	g_assert_true(oracle_size_ok(o, 100) && oracle_size_ok(o, 120));
	oracle_at(o, 14);
	g_assert_true(!oracle_size_ok(o, 100) && oracle_size_ok(o, 120));
	oracle_fill(buf, VALUE_OP, 11, 1); /* another sector's */
	wrong = oracle_wrong(o, 10, buf, 0);
	g_assert_nonnull(wrong);
	g_free(wrong);
	oracle_fill(buf, VALUE_OP, 10, 1);
	buf[300] ^= 1;
	wrong = oracle_wrong(o, 10, buf, 0);
	g_assert_nonnull(wrong);
	g_free(wrong);
	oracle_free(o);
}

int main(int argc, char **argv)
{
	g_autofree char *path = NULL;
	int result;

	g_test_init(&argc, &argv, NULL);
	if (!g_getenv("VHOST_LOG"))
		log_configure("error"); /* thousands of images that were not closed cleanly */
	if (argc > 2 && !strcmp(argv[1], "-b")) {
		broken = argv[2];
		path = g_strdup_printf("/crash/found/%s", argc > 3 ? argv[3] : "it");
		g_test_add_func(path, found);
	} else if (argc > 2 && !strcmp(argv[1], "-a")) {
		broken = argv[2];
		g_test_add_func("/crash/again", again);
	} else if (argc > 2 && !strcmp(argv[1], "-f")) {
		format = argv[2];
		if (argc > 3)
			states = strtoull(argv[3], NULL, 10);
		for (int k = 4; k < argc && given.n < G_N_ELEMENTS(options); k++) {
			char *eq = strchr(argv[k], '=');

			g_assert_nonnull(eq);
			if (g_str_has_prefix(argv[k], "load.")) /* another test's */
				continue;
			if (!strcmp(argv[k], "crash.snapshots=off")) {
				snapshots = 0;
				continue;
			}
			if (!strcmp(argv[k], "secret=on")) {
				passphrase();
				continue;
			}
			options[given.n].key = g_strndup(argv[k], (gsize)(eq - argv[k]));
			options[given.n++].value = eq + 1;
		}
		g_test_add_func("/crash/safe", safe);
	} else {
		g_test_add_func("/crash/mem", mem);
		g_test_add_func("/crash/trace", trace);
		g_test_add_func("/crash/oracle", oracle);
	}
	result = g_test_run();
	if (key_file)
		g_unlink(key_file);
	return result;
}
