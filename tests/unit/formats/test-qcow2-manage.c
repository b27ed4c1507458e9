/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What commands ask of qcow2 beside snapshots and check: amend, measure, empty, another backing image, bitmaps, describe. */
#include "qcow2-rig.h"

#define DISK "16M"

static const char *const fill = "-c 'write -P 1 0 1M' -c 'write -P 2 3M 500k' -c 'write -z 5M 192k' -c 'write -P 3 7M 1M'";

static int amend(const char *name, struct vh_opts *o, struct vh_err *e)
{
	struct q2_img m;
	int r;

	q2_open_(&m, name, 0);
	r = fmt_amend(m.i, o, NULL, e);
	q2_close_(&m);
	q2_opts_free(o);
	return r;
}

static void must(int r, struct vh_err *e)
{
	if (r < 0)
		g_error("%s", e->cause);
}

static char *info_of(const char *name)
{
	return q2_out("qemu-img info %s", name);
}

static void same_disk(const char *name, const uint8_t *want, gsize n)
{
	gsize n2;
	g_autofree uint8_t *now = q2_raw(name, &n2);

	g_assert_cmpuint(n, ==, n2);
	q2_same(now, want, n, name);
	q2_reads(name, NULL, want, n, name);
	q2_clean(name);
}

static void has(const char *name, const char *text)
{
	g_autofree char *i = info_of(name);

	if (!strstr(i, text))
		g_error("'%s' is not in: %s", text, i);
}

static void make(const char *options, const char *also)
{
	q2_run("rm -f t u && qemu-img create -q -f qcow2 -o %s t %s && qemu-io -f qcow2 %s t", options, DISK, fill);
	if (also)
		q2_run("%s", also);
}

static void versions(void)
{
	static const char *const makes[] = {"compat=v3", "compat=v3,refcount_bits=8,cluster_size=4k", "compat=v3,preallocation=metadata"};
	struct vh_err e = {0};
	gsize n;

	for (unsigned k = 0; k < G_N_ELEMENTS(makes); k++) {
		g_autofree uint8_t *want = NULL;

		make(makes[k], "qemu-img snapshot -c s t && qemu-io -f qcow2 -c 'write -P 8 900k 300k' -c 'write -z 8M 64k' t");
		want = q2_raw("t", &n);
		must(amend("t", q2_opts("compat", "v2", (int64_t)0, NULL), &e), &e);
		has("t", "compat: 0.10");
		same_disk("t", want, n);
		must(amend("t", q2_opts("compat", "1.1", (int64_t)3, "lazy-refcounts", "on", (int64_t)1, NULL), &e), &e);
		has("t", "compat: 1.1");
		has("t", "lazy refcounts: true");
		{
			gsize n2;
			g_autofree uint8_t *d = q2_file("t", &n2);

			g_assert_cmpint(d[79] & 1, ==, 0); /* not dirty: it was closed */
		}
		same_disk("t", want, n);
		q2_run("qemu-img snapshot -a s t && qemu-img snapshot -d s t");
		q2_clean("t");
	}
	make("extended_l2=on", NULL);
	g_assert_cmpint(amend("t", q2_opts("compat", "v2", (int64_t)0, NULL), &e), ==, -EINVAL);
	err_clear(&e);
	q2_clean("t");
	make("compat=v3", "qemu-img create -q -f qcow2 -b t -F qcow2 u && qemu-io -f qcow2 -c 'write -z 0 64k' u");
	g_assert_cmpint(amend("u", q2_opts("compat", "v2", (int64_t)0, NULL), &e), ==, -EOPNOTSUPP);
	err_clear(&e);
	q2_clean("u");
	make("compat=v2", NULL);
	g_assert_cmpint(amend("t", q2_opts("lazy-refcounts", "on", (int64_t)1, NULL), &e), ==, -EINVAL);
	err_clear(&e);
	q2_clean("t");
}

static void widths(void)
{
	static const unsigned bits[] = {1, 64, 2, 8, 32, 4, 16};
	struct vh_err e = {0};
	gsize n;
	g_autofree uint8_t *want = NULL;

	make("cluster_size=1k,lazy_refcounts=on", "qemu-img bitmap --add t b");
	want = q2_raw("t", &n);
	for (unsigned k = 0; k < G_N_ELEMENTS(bits); k++) {
		g_autofree char *text = g_strdup_printf("refcount bits: %u\n", bits[k]);

		must(amend("t", q2_opts("refcount-bits", "", (int64_t)bits[k], NULL), &e), &e);
		has("t", text);
		{
			gsize n2;
			g_autofree uint8_t *d = q2_file("t", &n2);

			g_assert_cmpint(d[79] & 1, ==, 0);
		}
		same_disk("t", want, n);
		q2_run("qemu-io -f qcow2 -c 'write -P %u 9M 100k' t", k + 1);
		memset(want + (9 << 20), (int)k + 1, 100 << 10);
		same_disk("t", want, n);
	}
	q2_run("qemu-img snapshot -c a t && qemu-img snapshot -c b t");
	g_assert_cmpint(amend("t", q2_opts("refcount-bits", "", (int64_t)1, NULL), &e), ==, -ERANGE);
	err_clear(&e);
	same_disk("t", want, n);
	g_assert_cmpint(amend("t", q2_opts("refcount-bits", "", (int64_t)3, NULL), &e), ==, -EINVAL);
	err_clear(&e);
	must(amend("t", q2_opts("refcount-bits", "", (int64_t)2, NULL), &e), &e);
	same_disk("t", want, n);
}

static void data_file(void)
{
	struct vh_err e = {0};

	q2_run("rm -f t d e && qemu-img create -q -f qcow2 -o data_file=d,data_file_raw=on t %s", DISK);
	must(amend("t", q2_opts("data-file-raw", "off", (int64_t)0, NULL), &e), &e);
	has("t", "data file raw: false");
	g_assert_cmpint(amend("t", q2_opts("data-file-raw", "on", (int64_t)1, NULL), &e), ==, -EINVAL);
	err_clear(&e);
	q2_run("cp d e");
	must(amend("t", q2_opts("data-file", "e", (int64_t)0, NULL), &e), &e);
	has("t", "data file: e");
	g_assert_cmpint(amend("t", q2_opts("data-file", "../e", (int64_t)0, NULL), &e), ==, -EINVAL);
	err_clear(&e);
	make("compat=v3", NULL);
	g_assert_cmpint(amend("t", q2_opts("data-file", "e", (int64_t)0, NULL), &e), ==, -EINVAL);
	err_clear(&e);
}

static void empty(void)
{
	static const char *const makes[] = {"compat=v3", "compat=v2,cluster_size=512", "extended_l2=on"};
	struct vh_err e = {0};
	struct q2_img m;
	gsize n;

	for (unsigned k = 0; k < G_N_ELEMENTS(makes); k++) {
		g_autofree uint8_t *base = NULL;

		q2_run("rm -f b && qemu-img create -q -f qcow2 b %s && qemu-io -f qcow2 -c 'write -P 55 0 9M' b", DISK);
		base = q2_raw("b", &n);
		q2_run("rm -f t && qemu-img create -q -f qcow2 -b b -F qcow2 -o %s t && qemu-io -f qcow2 %s t", makes[k], fill);
		q2_open_(&m, "t", 0);
		must(fmt_empty(m.i, NULL, &e), &e);
		q2_close_(&m);
		same_disk("t", base, n);
		q2_run("qemu-io -f qcow2 %s t", fill);
		q2_clean("t");
	}
	make("compat=v3", "qemu-img snapshot -c s t"); /* the snapshot stays */
	{
		g_autofree uint8_t *want = q2_raw("t", &n), *zero = g_malloc0(n);

		q2_open_(&m, "t", 0);
		must(fmt_empty(m.i, NULL, &e), &e);
		q2_close_(&m);
		same_disk("t", zero, n);
		q2_run("qemu-img snapshot -a s t");
		same_disk("t", want, n);
	}
}

static void backing(void)
{
	g_autofree char *longest = g_strnfill(1100, 'x');
	struct vh_err e = {0};
	struct q2_img m;
	gsize n;
	g_autofree uint8_t *want = NULL;

	make("cluster_size=512", "cp t b && qemu-img create -q -f qcow2 -o cluster_size=512 -b b -F qcow2 u && qemu-io -f qcow2 -c 'write -P 9 2M 1M' u");
	want = q2_raw("u", &n);
	q2_run("cp b c-with-a-longer-name");
	q2_open_(&m, "u", 0);
	g_assert_cmpint(fmt_set_backing(m.i, longest, "qcow2", n, NULL, &e), ==, -ENAMETOOLONG);
	err_clear(&e);
	longest[600] = 0; /* longer than the cluster in which it must lie */
	g_assert_cmpint(fmt_set_backing(m.i, longest, "qcow2", n, NULL, &e), ==, -ENAMETOOLONG);
	err_clear(&e);
	must(fmt_set_backing(m.i, "c-with-a-longer-name", "qcow2", n, NULL, &e), &e);
	q2_close_(&m);
	has("u", "backing file: c-with-a-longer-name");
	has("u", "backing file format: qcow2");
	same_disk("u", want, n);
	q2_open_(&m, "u", 0);
	must(fmt_set_backing(m.i, NULL, NULL, 0, NULL, &e), &e);
	q2_close_(&m);
	{
		g_autofree char *i = info_of("u");

		g_assert_null(strstr(i, "backing"));
	}
	q2_clean("u");
}

/* In-use and disabled bitmaps; what qemu-img makes of them. */
static void bitmaps(void)
{
	g_autofree char *i = NULL, *out = NULL;
	struct vh_err e = {0};
	struct q2_img m;
	uint8_t b[512] = {1};

	make("compat=v3", "qemu-img bitmap --add t on && qemu-img bitmap --add --disable -g 4k t off");
	q2_open_(&m, "t", Q2_RO); /* looking changes nothing */
	q2_close_(&m);
	q2_open_(&m, "t", 0);
	q2_close_(&m);
	i = info_of("t");
	g_assert_null(strstr(i, "in-use"));
	q2_clean("t");
	q2_open_(&m, "t", 0);
	must(fmt_pwrite(m.i, b, sizeof(b), 12 << 20, &e), &e);
	must(fmt_flush(m.i, &e), &e);
	q2_close_(&m);
	g_clear_pointer(&i, g_free);
	i = info_of("t");
	g_assert_nonnull(strstr(i, "[0]: in-use"));
	out = q2_out("qemu-img info --output=json t");
	g_assert_nonnull(strstr(out, "\"in-use\""));
	g_assert_cmpint(q2_try("qemu-img bitmap --disable t on"), !=, 0); /* inconsistent: only to be removed */
	q2_run("qemu-img bitmap --enable t off && qemu-img bitmap --disable t off && qemu-img bitmap --remove t on");
	q2_clean("t");
	/* A disabled one counts, and has the disk's size. */
	q2_open_(&m, "t", 0);
	g_assert_cmpint(fmt_resize(m.i, 32 << 20, &e), ==, -EBUSY);
	err_clear(&e);
	q2_close_(&m);
	q2_run("qemu-img bitmap --remove t off");
	q2_open_(&m, "t", 0);
	must(fmt_resize(m.i, 32 << 20, &e), &e);
	q2_close_(&m);
	q2_clean("t");
}

/* A snapshot, an amendment, a new backing image: the content or the size may change, and the bitmap knows nothing of it. */
static void bitmaps_managed(void)
{
	struct vh_err e = {0};
	struct q2_img m;
	gsize n;
	uint8_t *d;

	make("compat=v3", "qemu-img snapshot -c s t && qemu-img bitmap --add t on");
	q2_open_(&m, "t", 0);
	must(fmt_snapshot_apply(m.i, "s", NULL, &e), &e);
	q2_close_(&m);
	has("t", "in-use");
	q2_clean("t");
	/* Somebody who knows no bitmaps was here: the extension means nothing any more, and is dropped with the next change. */
	make("compat=v3", "qemu-img bitmap --add t on");
	d = q2_file("t", &n);
	d[95] &= 0xfe;
	q2_file_set("t", d, n);
	g_free(d);
	q2_open_(&m, "t", 0);
	must(fmt_snapshot_create(m.i, "x", &e), &e);
	q2_close_(&m);
	g_assert_cmpint(q2_verdict("t"), ==, 3); /* its clusters are leaked now */
}

static void measured(void)
{
	static const struct { const char *qemu; const char *names[3]; int64_t values[3]; uint64_t bytes; } m[] = {
		{"cluster_size=64k", {NULL}, {0}, UINT64_C(1) << 40},
		{"cluster_size=512", {"cluster-size"}, {512}, UINT64_C(1) << 30},
		{"cluster_size=2M,refcount_bits=64", {"cluster-size", "refcount-bits"}, {2 << 20, 64}, UINT64_C(5) << 40},
		{"extended_l2=on", {"extended-l2"}, {1}, (UINT64_C(3) << 30) + 512},
		{"refcount_bits=1", {"refcount-bits"}, {1}, 12345678 / 512 * 512},
	};

	for (unsigned k = 0; k < G_N_ELEMENTS(m); k++) {
		struct vh_opts *o = q2_opts(m[k].names[0] ? m[k].names[0] : "x", "", m[k].values[0], m[k].names[1], "", m[k].values[1], NULL);
		struct vh_create c = {.size = sizeof(c), .bytes = m[k].bytes, .opts = o};
		uint64_t required, full;
		g_autofree char *out = q2_out("qemu-img measure -O qcow2 -o %s --size %" G_GUINT64_FORMAT, m[k].qemu, m[k].bytes);
		unsigned long long want_required, want_full;
		struct vh_err e = {0};

		g_assert_cmpint(sscanf(out, "required size: %llu\nfully allocated size: %llu", &want_required, &want_full), ==, 2);
		must(q2_ops()->measure(&c, 0, &required, &full, &e), &e);
		g_assert_cmpuint(required, ==, want_required);
		g_assert_cmpuint(full, ==, want_full);
		q2_opts_free(o);
	}
}

static void described(void *ctx, const char *key, uint32_t type, const char *value)
{
	g_string_append_printf(ctx, "%s=%s\n", key, value);
}

static void describe(void)
{
	g_autoptr(GString) s = g_string_new(NULL);
	struct vh_err e = {0};
	struct q2_img m;

	make("compat=v3,lazy_refcounts=on,refcount_bits=8,compression_type=zstd", "qemu-img bitmap --add -g 8k t the-bitmap");
	q2_open_(&m, "t", Q2_RO);
	must(fmt_describe(m.i, described, s, &e), &e);
	q2_close_(&m);
	for (unsigned k = 0; k < 7; k++) {
		static const char *const want[] = {"compat=1.1\n", "lazy-refcounts=true\n", "refcount-bits=8\n", "compression-type=zstd\n",
						   "corrupt=false\n", "extended-l2=false\n", "the-bitmap (granularity 8192, auto)"};

		if (!strstr(s->str, want[k]))
			g_error("'%s' is not in: %s", want[k], s->str);
	}
}

static void add(void)
{
	g_test_add_func("/qcow2/manage/versions", versions);
	g_test_add_func("/qcow2/manage/widths", widths);
	g_test_add_func("/qcow2/manage/data-file", data_file);
	g_test_add_func("/qcow2/manage/empty", empty);
	g_test_add_func("/qcow2/manage/backing", backing);
	g_test_add_func("/qcow2/manage/bitmaps", bitmaps);
	g_test_add_func("/qcow2/manage/bitmaps-managed", bitmaps_managed);
	g_test_add_func("/qcow2/manage/measure", measured);
	g_test_add_func("/qcow2/manage/describe", describe);
}

int main(int argc, char **argv)
{
	return q2_main(argc, argv, add);
}
