/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Internal snapshots, made, read, applied and removed here and by qemu-img in turn: contents and check after each step. */
#include "qcow2-rig.h"

#define DISK "8M"

static const char *const write1 = "-c 'write -P 1 0 1M' -c 'write -P 2 3M 500k' -c 'write -z 5M 200k' -c 'write -P 3 7M 1M'";
static const char *const write2 = "-c 'write -P 11 512k 1M' -c 'write -z 3M 100k' -c 'discard 7M 128k' -c 'write -P 12 6M 70k'";
static const char *const write3 = "-c 'write -P 21 100k 300k' -c 'write -P 22 4M 64k' -c 'write -P 23 7M 10k'";

static const char *const kinds[] = {"cluster_size=4k", "extended_l2=on", "compat=v3", "compat=v2", "cluster_size=512", "cluster_size=2M", "cluster_size=4k,refcount_bits=8",
	"refcount_bits=32,cluster_size=16k", "extended_l2=on,cluster_size=16k", "lazy_refcounts=on", "refcount_bits=4",
	"refcount_bits=64,cluster_size=1k", "preallocation=metadata"};

static void op(const char *name, char what, const char *snap)
{
	struct q2_img m;
	struct vh_err e = {0};
	int r;

	q2_open_(&m, name, 0);
	r = what == 'c' ? fmt_snapshot_create(m.i, snap, &e) : what == 'a' ? fmt_snapshot_apply(m.i, snap, NULL, &e)
							      : fmt_snapshot_remove(m.i, snap, NULL, &e);
	if (r < 0)
		g_error("%c %s %s: %s", what, name, snap, e.cause);
	q2_close_(&m);
}

/* who: 0 here, 1 qemu-img. */
static void by(int who, const char *name, char what, const char *snap)
{
	if (who)
		q2_run("qemu-img snapshot -%c %s %s", what, snap, name);
	else
		op(name, what, snap);
	q2_clean(name);
}

static void content(const char *name, const uint8_t *want, gsize n, const char *when)
{
	gsize n2;
	g_autofree uint8_t *seen = q2_raw(name, &n2);

	g_assert_cmpuint(n, ==, n2);
	q2_same(seen, want, n, when);
	q2_reads(name, NULL, want, n, when);
}

static void of_snapshot(const char *name, const char *snap, const uint8_t *want, gsize n)
{
	struct vh_opts *o = q2_opts("snapshot", snap, (int64_t)0, NULL);
	gsize n2;
	g_autofree uint8_t *seen = NULL;

	q2_reads(name, o, want, n, snap);
	q2_opts_free(o);
	q2_run("qemu-img convert -l snapshot.name=%s -O raw %s snap.raw", snap, name);
	seen = q2_file("snap.raw", &n2); /* qemu-img gives it the disk's size of now */
	q2_same(seen, want, MIN(n, n2), snap);
}

static void turn(const char *create, unsigned mask)
{
	gsize n;
	g_autofree uint8_t *one = NULL, *two = NULL, *three = NULL;

	q2_run("rm -f t && qemu-img create -q -f qcow2 -o %s t %s && qemu-io -f qcow2 %s t", create, DISK, write1);
	one = q2_raw("t", &n);
	by(mask & 1, "t", 'c', "s1");
	content("t", one, n, "after the first snapshot");
	q2_run("qemu-io -f qcow2 %s t", write2);
	q2_clean("t");
	two = q2_raw("t", &n);
	of_snapshot("t", "s1", one, n);
	by(mask >> 1 & 1, "t", 'c', "s2");
	q2_run("qemu-io -f qcow2 %s t", write3);
	three = q2_raw("t", &n);
	of_snapshot("t", "s1", one, n);
	of_snapshot("t", "s2", two, n);
	content("t", three, n, "after the second snapshot");
	by(mask >> 2 & 1, "t", 'a', "s1");
	content("t", one, n, "after going back to the first");
	of_snapshot("t", "s2", two, n);
	q2_run("qemu-io -f qcow2 %s t", write3);
	of_snapshot("t", "s1", one, n);
	by(mask >> 3 & 1, "t", 'd', "s1");
	of_snapshot("t", "s2", two, n);
	by(mask >> 4 & 1, "t", 'a', "s2");
	content("t", two, n, "after going on to the second");
	by(mask >> 5 & 1, "t", 'd', "s2");
	content("t", two, n, "without snapshots");
	q2_run("qemu-io -f qcow2 %s t", write1);
	q2_clean("t");
}

static void kind(gconstpointer data)
{
	static const unsigned masks[] = {0, 1, 2, 4, 8, 16, 32, 42, 21};
	unsigned k = (unsigned)GPOINTER_TO_SIZE(data);

	if (q2_all)
		turn(kinds[k], 0);
	turn(kinds[k], masks[1 + k % (G_N_ELEMENTS(masks) - 1)]);
}

static void compressed(void)
{
	gsize n;
	g_autofree uint8_t *one = NULL, *two = NULL;

	q2_run("rm -f t u && qemu-img create -q -f qcow2 u %s && qemu-io -f qcow2 %s u && qemu-img convert -c -O qcow2 u t", DISK, write1);
	one = q2_raw("t", &n);
	by(0, "t", 'c', "s1");
	q2_run("qemu-io -f qcow2 %s t", write2);
	q2_clean("t");
	two = q2_raw("t", &n);
	of_snapshot("t", "s1", one, n);
	by(0, "t", 'a', "s1");
	content("t", one, n, "compressed, applied");
	by(0, "t", 'd', "s1");
	content("t", one, n, "compressed, removed");
}

/* The disk had another size when the snapshot was taken. */
static void sizes(void)
{
	gsize n;
	g_autofree uint8_t *one = NULL;

	for (unsigned k = 0; k < 2; k++) {
		g_clear_pointer(&one, g_free);
		q2_run("rm -f t && qemu-img create -q -f qcow2 -o cluster_size=512 t %s && qemu-io -f qcow2 %s t", DISK, write1);
		one = q2_raw("t", &n);
		by(0, "t", 'c', "s1");
		q2_run("qemu-img resize -q %s -f qcow2 t %s", k ? "--shrink" : "", k ? "2M" : "40M");
		q2_clean("t");
		of_snapshot("t", "s1", one, n);
		by(0, "t", 'a', "s1");
		content("t", one, n, "of another size, applied");
		by(0, "t", 'd', "s1");
		content("t", one, n, "of another size, removed");
	}
}

static int listed(void *ctx, const struct vh_snapshot *s)
{
	GString *t = ctx;

	g_string_append_printf(t, "%s:%s:%" G_GUINT64_FORMAT ":%" G_GUINT64_FORMAT " ", s->id, s->name, s->bytes, s->vm_state);
	g_assert_cmpint(s->when, >, INT64_C(1600000000) * 1000000000);
	return 0;
}

static void list(void)
{
	g_autoptr(GString) t = g_string_new(NULL);
	g_autofree char *out = NULL;
	struct q2_img m;
	struct vh_err e = {0};

	q2_run("rm -f t && qemu-img create -q -f qcow2 t %s && qemu-img snapshot -c one t", DISK);
	op("t", 'c', "two words");
	q2_run("qemu-img snapshot -c three t");
	op("t", 'd', "1"); /* by its id */
	q2_open_(&m, "t", Q2_RO);
	g_assert_cmpint(fmt_snapshot_list(m.i, listed, t, &e), ==, 0);
	q2_close_(&m);
	g_assert_cmpstr(t->str, ==, "2:two words:8388608:0 3:three:8388608:0 ");
	out = q2_out("qemu-img snapshot -l t");
	g_assert_nonnull(strstr(out, "two words"));
	q2_open_(&m, "t", 0);
	g_assert_cmpint(fmt_snapshot_create(m.i, "three", &e), ==, -EEXIST);
	err_clear(&e);
	g_assert_cmpint(fmt_snapshot_create(m.i, "", &e), ==, -EINVAL);
	err_clear(&e);
	g_assert_cmpint(fmt_snapshot_apply(m.i, "nothing", NULL, &e), ==, -ENOENT);
	err_clear(&e);
	g_assert_cmpint(fmt_snapshot_remove(m.i, "nothing", NULL, &e), ==, -ENOENT);
	err_clear(&e);
	q2_close_(&m);
	q2_clean("t");
}

/* A count of one bit cannot say that two share a cluster: refused, and nothing is changed. */
static void narrow(void)
{
	gsize n;
	g_autofree uint8_t *one = NULL;
	struct q2_img m;
	struct vh_err e = {0};

	q2_run("rm -f t && qemu-img create -q -f qcow2 -o refcount_bits=1 t %s && qemu-io -f qcow2 %s t", DISK, write1);
	one = q2_raw("t", &n);
	q2_open_(&m, "t", 0);
	g_assert_cmpint(fmt_snapshot_create(m.i, "one", &e), ==, -ERANGE);
	g_assert_nonnull(strstr(e.cause, "1 bits"));
	err_clear(&e);
	q2_close_(&m);
	q2_clean("t");
	content("t", one, n, "after a snapshot was refused");
}

/* More than 16383 of one kind is counted apart: many snapshots of one disk. */
static void many(void)
{
	struct q2_img m;
	struct vh_err e = {0};
	gsize n;
	g_autofree uint8_t *one = NULL;

	q2_run("rm -f t && qemu-img create -q -f qcow2 -o cluster_size=2M t %s && qemu-io -f qcow2 %s t", DISK, write1);
	one = q2_raw("t", &n);
	q2_open_(&m, "t", 0);
	for (unsigned k = 0; k < 100; k++) {
		g_autofree char *name = g_strdup_printf("s%u", k);

		if (fmt_snapshot_create(m.i, name, &e) < 0)
			g_error("%s: %s", name, e.cause);
	}
	q2_close_(&m);
	q2_clean("t");
	of_snapshot("t", "s77", one, n);
	q2_open_(&m, "t", 0);
	for (unsigned k = 0; k < 100; k++) {
		g_autofree char *name = g_strdup_printf("s%u", (k * 37) % 100);

		if (fmt_snapshot_remove(m.i, name, NULL, &e) < 0)
			g_error("%s: %s", name, e.cause);
	}
	q2_close_(&m);
	q2_clean("t");
	content("t", one, n, "after a hundred snapshots");
}

/* An entry keeps what it has and we do not know: extra data, the machine's state, a name that is not text. */
static void foreign_entry(void)
{
	gsize n;
	g_autofree uint8_t *d = NULL, *after = NULL;
	uint64_t off;
	uint8_t *p;

	q2_run("rm -f t && qemu-img create -q -f qcow2 t %s && qemu-img snapshot -c one t", DISK);
	d = q2_file("t", &n);
	d = g_realloc(d, n + 64);
	memset(d + n, 0, 64);
	n += 64;
	off = q2_be(d + 64, 8);
	p = d + off;
	g_assert_cmpuint(q2_be(p + 36, 4), ==, 24);
	memmove(p + 40 + 24 + 8, p + 40 + 24, 8);
	q2_put(p + 36, 4, 32);
	q2_put(p + 40 + 24, 8, 0x1122334455667788);
	q2_put(p + 40, 8, 12345); /* state of the machine */
	q2_file_set("t", d, n);
	op("t", 'c', "two");
	after = q2_file("t", &n);
	p = after + q2_be(after + 64, 8);
	g_assert_cmpuint(q2_be(p + 36, 4), ==, 32);
	g_assert_cmphex(q2_be(p + 40 + 24, 8), ==, 0x1122334455667788);
	g_assert_cmpuint(q2_be(p + 40, 8), ==, 12345);
	g_assert_cmpint(memcmp(p + 40 + 32, "1one", 4), ==, 0);
	q2_clean("t");
}

static void no_bytes(void)
{
	q2_run("rm -f t && qemu-img create -q -f qcow2 t 0");
	by(0, "t", 'c', "s1");
	q2_run("qemu-img resize -q -f qcow2 t 1M && qemu-io -f qcow2 -c 'write -P 1 0 1M' t");
	by(0, "t", 'c', "s2");
	by(0, "t", 'a', "s1");
	by(0, "t", 'd', "s1");
	by(0, "t", 'a', "s2");
	by(0, "t", 'd', "s2");
	q2_run("qemu-io -f qcow2 -c 'read -P 1 0 1M' t");
}

/* Writes fail in the midst of it: the disk is as before, or as after; repair has nothing to decide. */
static void failures(void)
{
	gsize n, size;
	g_autofree uint8_t *one = NULL, *two = NULL, *file = NULL, *seen = NULL;
	unsigned refused = 0;

	q2_run("rm -f t && qemu-img create -q -f qcow2 -o cluster_size=512 t %s && qemu-io -f qcow2 %s t && qemu-img snapshot -c s0 t", DISK,
	       write1);
	one = q2_raw("t", &n);
	q2_run("qemu-io -f qcow2 %s t", write2);
	two = q2_raw("t", &n);
	file = q2_file("t", &size);
	seen = g_malloc(n);
	for (unsigned k = 0; k < 30; k++) {
		struct q2_img m;
		struct q2_found f;
		struct vh_err e = {0};
		int r;

		q2_file_set("t", file, size);
		q2_open_(&m, "t", 0);
		fake_vol_fail(m.v, 20000, k % 4 < 2 ? -ENOSPC : -EIO);
		r = k % 2 ? fmt_snapshot_create(m.i, "s1", &e) : fmt_snapshot_apply(m.i, "s0", NULL, &e);
		fake_vol_fail(m.v, 0, 0);
		err_clear(&e);
		refused += r < 0;
		q2_close_(&m);
		q2_open_(&m, "t", Q2_REPAIR);
		if (q2_check_(&m, VH_CHECK_LEAK | VH_CHECK_CORRUPT, &f, &e) < 0)
			g_error("%s", e.cause);
		if (fmt_pread(m.i, seen, n, 0, &e) < 0)
			g_error("%s", e.cause);
		q2_close_(&m);
		q2_clean("t");
		if (memcmp(seen, two, n) && (k % 2 || memcmp(seen, one, n)))
			g_error("turn %u (%d): the disk is neither as before nor as after", k, r);
		of_snapshot("t", "s0", one, n);
	}
	g_assert_cmpuint(refused, >, 3);
}

static void crashes(void)
{
	struct q2_img m;
	struct vh_err e = {0};
	gsize n;
	g_autofree uint8_t *one = NULL, *two = NULL;
	uint64_t end, seed = 99;

	q2_run("rm -f t && qemu-img create -q -f qcow2 -o cluster_size=4k t %s && qemu-io -f qcow2 %s t", DISK, write1);
	q2_run("qemu-img snapshot -c s0 t");
	one = q2_raw("t", &n);
	q2_run("qemu-io -f qcow2 %s t", write2);
	two = q2_raw("t", &n);
	for (unsigned what = 0; what < 3; what++) {
		q2_open_(&m, "t", 0);
		fake_vol_record(m.v);
		if ((what == 0 ? fmt_snapshot_create(m.i, "s1", &e) : what == 1 ? fmt_snapshot_apply(m.i, "s0", NULL, &e)
										: fmt_snapshot_remove(m.i, "s0", NULL, &e)) < 0)
			g_error("%s", e.cause);
		end = fake_vol_time(m.v);
		for (unsigned k = 0; k < 25; k++) {
			g_autofree uint8_t *seen = g_malloc(n);
			struct q2_img x;
			struct q2_found f;
			uint8_t *data;
			uint64_t bytes;

			fake_vol_crash(m.v, rig_rnd(&seed) % (end + 1), rig_rnd(&seed), &data, &bytes);
			q2_file_set("x", data, bytes);
			free(data);
			q2_open_(&x, "x", Q2_REPAIR);
			if (fmt_pread(x.i, seen, n, 0, &e) < 0)
				g_error("%s", e.cause);
			if (memcmp(seen, two, n) && !(what == 1 && !memcmp(seen, one, n)))
				g_error("after a crash in step %u the disk is neither as before nor as after", what);
			if (q2_check_(&x, VH_CHECK_LEAK | VH_CHECK_CORRUPT, &f, &e) < 0)
				g_error("%s", e.cause);
			q2_close_(&x);
			q2_clean("x");
		}
		m.name[0] = 'y';
		q2_close_(&m);
	}
}

static void add(void)
{
	for (gsize k = 0; k < (q2_all ? G_N_ELEMENTS(kinds) : 2); k++) {
		g_autofree char *name = g_strdup_printf("/qcow2/snapshot/%s", kinds[k]);

		g_test_add_data_func(name, GSIZE_TO_POINTER(k), kind);
	}
	g_test_add_func("/qcow2/snapshot/compressed", compressed);
	g_test_add_func("/qcow2/snapshot/sizes", sizes);
	g_test_add_func("/qcow2/snapshot/list", list);
	g_test_add_func("/qcow2/snapshot/narrow", narrow);
	g_test_add_func("/qcow2/snapshot/many", many);
	g_test_add_func("/qcow2/snapshot/foreign-entry", foreign_entry);
	g_test_add_func("/qcow2/snapshot/no-bytes", no_bytes);
	g_test_add_func("/qcow2/snapshot/failures", failures);
	g_test_add_func("/qcow2/snapshot/crashes", crashes);
}

int main(int argc, char **argv)
{
	return q2_main(argc, argv, add);
}
