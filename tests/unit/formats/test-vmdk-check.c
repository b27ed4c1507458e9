/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Damaged images: what opening refuses, how little that costs, what check() finds, and that mending keeps what can be kept. */
#include <sys/resource.h>
#include <time.h>
#include "vmdk-rig.h"

#define SECTORS 8192u /* 4 MiB: eight tables of 128 grains of 4 KiB */
#define DISK (SECTORS * 512u)
#define ALL (VH_CHECK_LEAK | VH_CHECK_CORRUPT)

static uint8_t model[DISK];

/* Every third grain holds its number. */
static struct blk_vol *filled(int rgd)
{
	struct blk_vol *v = vmdk_small(SECTORS, rgd, 0, 0, NULL, 0xffffffff);
	struct fmt_image *i = vmdk_open(v);

	memset(model, 0, DISK);
	for (unsigned g = 0; g < DISK / SMALL_GRAIN; g += 3) {
		memset(model + g * SMALL_GRAIN, (int)(1 + g % 250), SMALL_GRAIN);
		g_assert_cmpint(fmt_pwrite(i, model + g * SMALL_GRAIN, SMALL_GRAIN, g * SMALL_GRAIN, NULL), ==, 0);
	}
	fmt_close(i);
	return v;
}

static uint64_t gt(struct blk_vol *v, unsigned table, int redundant)
{
	return (uint64_t)get_32(v, (redundant ? 24 : 28) * 512 + table * 4) * 512;
}

static void is_model(struct blk_vol *v)
{
	g_autofree uint8_t *b = g_malloc(DISK);
	struct fmt_image *i = vmdk_open(v);

	g_assert_cmpint(fmt_pread(i, b, DISK, 0, NULL), ==, 0);
	for (unsigned k = 0; k < DISK; k++)
		if (b[k] != model[k])
			g_error("byte %u is %u, not %u", k, b[k], model[k]);
	/* And it can be written again. */
	memset(b, 251, 3 * SMALL_GRAIN);
	g_assert_cmpint(fmt_pwrite(i, b, 3 * SMALL_GRAIN, 70 * SMALL_GRAIN + 100, NULL), ==, 0);
	fmt_close(i);
}

static void mended(struct blk_vol *v, int corrupt)
{
	struct vmdk_found f;

	g_assert_cmpint(vmdk_check_raw(v, 0, &f), ==, 0);
	g_assert_cmpint(f.corrupt, >=, corrupt);
	g_assert_cmpint(f.fixed, ==, 0);
	if (vmdk_check_raw(v, ALL, &f) < 0)
		g_error("repair fails: %s", f.last);
	g_assert_cmpint(f.corrupt, >=, corrupt);
	g_assert_cmpint(f.fixed, >=, f.corrupt);
	g_assert_cmpint(vmdk_check_raw(v, 0, &f), ==, 0);
	if (f.corrupt || f.leaks)
		g_error("after the repair: %s", f.last);
	is_model(v);
	g_assert_cmpint(vmdk_check_raw(v, 0, &f), ==, 0);
	if (f.corrupt || f.leaks)
		g_error("after the repair and writes: %s", f.last);
	blk_vol_put(v);
}

static void not_opened(struct blk_vol *v, const char *pattern)
{
	ERR_AUTO(e);
	struct fmt_image *i = vmdk_open_with(v, 0, NULL, &e);

	g_assert_null(i);
	if (!g_pattern_match_simple(pattern, e.cause))
		g_error("\"%s\" is not \"%s\"", e.cause, pattern);
}

static void directory_lost(void)
{
	struct blk_vol *v = filled(1);
	struct fmt_image *i;

	put_64(v, 56, 1u << 30); /* outside the file */
	not_opened(v, "*grain directory*outside the file*");
	mended(v, 1);
	v = filled(1);
	put_64(v, 48, 1u << 30);
	not_opened(v, "*redundant grain directory*outside the file*");
	i = vmdk_open_with(v, 1, NULL, NULL); /* reading needs only the first */
	g_assert_nonnull(i);
	fmt_close(i);
	mended(v, 1);
}

static void table_pointers(void)
{
	for (int redundant = 0; redundant < 2; redundant++) {
		static const uint32_t bad[] = {0, 1u << 30, 0xffffffff, 0, 1, 24, 28};

		for (unsigned k = 0; k < G_N_ELEMENTS(bad); k++) {
			struct blk_vol *v = filled(1);

			put_32(v, (redundant ? 24 : 28) * 512 + 2 * 4, k == 3 ? (uint32_t)(gt(v, 5, redundant) / 512) : bad[k]);
			mended(v, 1);
		}
	}
}

static void table_contents(void)
{
	struct blk_vol *v = filled(1);

	memset(fake_vol_data(v) + gt(v, 3, 0), 0xfe, 512); /* the better copy is taken, whichever it is */
	mended(v, 1);
	v = filled(1);
	memset(fake_vol_data(v) + gt(v, 3, 1), 0xfe, 512);
	mended(v, 1);
}

static void entries(void)
{
	static const uint32_t bad[] = {1, 2, 20, 0xffffffff, 0x7fffffff, 24, 28, 33};

	for (unsigned k = 0; k < G_N_ELEMENTS(bad); k++) {
		for (int rgd = 0; rgd < 2; rgd++) {
			struct blk_vol *v = filled(rgd);
			struct fmt_image *i;

			put_32(v, gt(v, 2, 0) + 4 * 5, bad[k]);
			if (rgd)
				put_32(v, gt(v, 2, 1) + 4 * 5, bad[k]);
			memset(model + (2 * 128 + 5) * SMALL_GRAIN, 0, SMALL_GRAIN); /* that one is lost */
			i = vmdk_open(v);
			g_assert_cmpint(fmt_pwrite(i, model, 1, 100 * SMALL_GRAIN * 3 + SMALL_GRAIN, NULL), ==, -EIO); /* nothing is allocated */
			g_assert_cmpint(fmt_pwrite(i, model, 10, 0, NULL), ==, 0);
			fmt_close(i);
			mended(v, 1);
		}
	}
}

static void shared(void)
{
	struct blk_vol *v = filled(1);
	struct fmt_image *i;
	unsigned a = 2 * 128 + 5, b = 4 * 128 + 1; /* 261 and 513: both hold data */

	g_assert_cmpuint(model[a * SMALL_GRAIN], !=, 0);
	g_assert_cmpuint(model[b * SMALL_GRAIN], !=, 0);
	for (int copy = 0; copy < 2; copy++)
		put_32(v, gt(v, 4, copy) + 4, get_32(v, gt(v, 2, copy) + 4 * 5));
	memcpy(model + b * SMALL_GRAIN, model + a * SMALL_GRAIN, SMALL_GRAIN);
	i = vmdk_open(v);
	g_assert_cmpint(fmt_pwrite(i, "x", 1, SMALL_GRAIN, NULL), ==, -EIO); /* no change to an image like that */
	fmt_close(i);
	mended(v, 1);
	/* Each has its own now. */
	v = filled(1);
	for (int copy = 0; copy < 2; copy++)
		put_32(v, gt(v, 4, copy) + 4, get_32(v, gt(v, 2, copy) + 4 * 5) + 3); /* not even in a slot */
	memcpy(model + b * SMALL_GRAIN, fake_vol_data(v) + (uint64_t)get_32(v, gt(v, 4, 0) + 4) * 512, SMALL_GRAIN);
	{
		struct vmdk_found f;

		g_assert_cmpint(vmdk_check_raw(v, ALL, &f), ==, 0);
		g_assert_cmpint(f.corrupt, >=, 1);
		is_model(v);
	}
	blk_vol_put(v);
}

static void leaks(void)
{
	struct blk_vol *v = filled(1);
	uint64_t bytes = blk_vol_bytes(v);
	struct vmdk_found f;

	put_32(v, bytes + 40000, 1);
	put_32(v, bytes + 100000, 1);
	g_assert_cmpint(vmdk_check_raw(v, 0, &f), ==, 0);
	g_assert_cmpint(f.leaks, ==, 1);
	g_assert_cmpint(f.corrupt, ==, 0);
	g_assert_cmpint(vmdk_check_raw(v, VH_CHECK_LEAK, &f), ==, 0);
	g_assert_cmpint(f.fixed, ==, 1);
	g_assert_cmpint(vmdk_check_raw(v, 0, &f), ==, 0);
	g_assert_cmpint(f.leaks, ==, 0);
	is_model(v);
	blk_vol_put(v);
}

/* With both copies of a table gone its grains stay where they are: somebody may find them again. */
static void lost_table(void)
{
	struct blk_vol *v = filled(1);
	uint64_t grain = (uint64_t)get_32(v, gt(v, 2, 0) + 4 * 5) * 512;
	struct vmdk_found f;

	put_32(v, 24 * 512 + 2 * 4, 1u << 31);
	put_32(v, 28 * 512 + 2 * 4, 1u << 31);
	memset(model + 2 * 128 * SMALL_GRAIN, 0, 128 * SMALL_GRAIN);
	g_assert_cmpint(vmdk_check_raw(v, ALL, &f), ==, 0);
	g_assert_cmpint(f.corrupt, >=, 1);
	g_assert_cmpint(f.leaks, >=, 1);
	g_assert_cmpuint(fake_vol_data(v)[grain], ==, 1 + (2 * 128 + 5) % 250);
	is_model(v);
	blk_vol_put(v);
}

static void flat_cut_short(void)
{
	struct blk_vol *d[2] = {vmdk_vol("disk.vmdk"), vmdk_vol("disk-flat.vmdk")};
	struct vmdk_raw r;
	ERR_AUTO(e);

	g_assert_cmpint(vmdk_make(d, 2, DISK, "subformat=monolithicFlat", NULL, &e), ==, 0);
	vmdk_name("disk-flat.vmdk", d[1]);
	g_assert_cmpint(blk_vol_resize(d[1], DISK / 2, NULL), ==, 0);
	not_opened(d[0], "*cut short*");
	g_assert_cmpint(vmdk_raw_open(&r, d, 2, VH_OPEN_REPAIR, NULL, &e), ==, 0);
	vmdk_raw_close(&r);
	blk_vol_put(d[0]);
	blk_vol_put(d[1]);
	vmdk_forget();
}

/* ---- hostile headers ---- */

static uint64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static long peak_kib(void)
{
	struct rusage u;

	getrusage(RUSAGE_SELF, &u);
	return u.ru_maxrss;
}

static void headers(void)
{
	static const struct sparse good = {.version = 1, .flags = 3, .gtes = 512, .capacity = 1 << 20, .grain = 128, .rgd = 21, .gd = 60, .overhead = 128};
	static const struct { unsigned off; uint64_t x; int bytes; } bad[] = {
		{4, 0, 4}, {4, 4, 4}, {4, 0xffffffff, 4},                                     /* version */
		{12, 0, 8}, {12, UINT64_MAX, 8}, {12, UINT64_C(1) << 53, 8}, {12, UINT64_C(1) << 40, 8}, /* capacity */
		{20, 0, 8}, {20, 3, 8}, {20, UINT64_C(1) << 63, 8}, {20, 65536, 8},           /* grains */
		{44, 0, 4}, {44, 0xffffffff, 4}, {44, 70000, 4},                                 /* entries of a table */
		{48, UINT64_MAX - 1, 8}, {56, 0, 8}, {56, 1 << 20, 8}, {56, UINT64_MAX, 8}, {56, UINT64_MAX / 512, 8},
		{28, UINT64_MAX, 8}, {28, UINT64_C(1) << 54, 8},                              /* descriptor */
		{36, UINT64_MAX, 8}, {36, 1 << 20, 8},
		{73, 0x0a0a0d20, 4},                                                         /* copied as a text */
		{8, 0x10003, 4},                                                             /* compressed, by what? */
	};
	long before = peak_kib();
	uint64_t t = now_ms();

	for (unsigned k = 0; k < G_N_ELEMENTS(bad); k++) {
		struct blk_vol *v = vmdk_vol("bad.vmdk");
		struct vmdk_found f;

		g_assert_cmpint(blk_vol_resize(v, 4u << 20, NULL), ==, 0);
		put_sparse(v, 0, &good);
		put_64(v, 28, 1);
		put_64(v, 36, 20);
		put_text(v, 512, "# Disk DescriptorFile\nversion=1\nCID=1\nRW 1048576 SPARSE \"bad.vmdk\"\n");
		{
			struct fmt_image *i = vmdk_open_with(v, 1, NULL, NULL);

			if (k == 0)
				g_assert_nonnull(i); /* it is good without the change, but for the tables */
			if (i)
				fmt_close(i);
		}
		if (bad[k].bytes == 8)
			put_64(v, bad[k].off, bad[k].x);
		else
			put_32(v, bad[k].off, (uint32_t)bad[k].x);
		{
			ERR_AUTO(e);
			struct fmt_image *i = vmdk_open_with(v, 0, NULL, &e);

			if (i)
				g_error("case %u opens", k);
			g_assert_nonnull(e.cause);
		}
		vmdk_check_raw(v, 0, &f);
		vmdk_check_raw(v, ALL, &f);
		blk_vol_put(v);
	}
	g_assert_cmpuint(now_ms() - t, <, 20000); /* generous: sanitizers, a busy machine */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	g_assert_cmpint(peak_kib() - before, <, 65536);
#else
	(void)before;
#endif
}

/* Directories all over the place, tables that are each other, in a file that is large only by name. */
static void loops(void)
{
	struct blk_vol *v = vmdk_vol("loop.vmdk");
	struct sparse s = {.version = 1, .flags = 1, .gtes = 512, .capacity = 1u << 24, .grain = 128, .gd = 1, .overhead = 8};
	struct vmdk_found f;
	struct fmt_image *i;
	uint8_t b[512];

	g_assert_cmpint(blk_vol_resize(v, 4u << 20, NULL), ==, 0);
	put_sparse(v, 0, &s);
	for (unsigned k = 0; k < 256; k++)
		put_32(v, 512 + k * 4, 1); /* the directory is its own tables, which are their own grains */
	i = vmdk_open(v);
	g_assert_cmpint(fmt_pread(i, b, 512, 0, NULL), ==, -EIO);
	g_assert_cmpint(fmt_pwrite(i, b, 512, 0, NULL), ==, -EIO);
	g_assert_cmpint(fmt_pwrite(i, b, 512, 300 * 65536, NULL), ==, -EIO);
	fmt_close(i);
	g_assert_cmpint(vmdk_check_raw(v, 0, &f), ==, 0);
	g_assert_cmpint(f.corrupt, >=, 255);
	g_assert_cmpint(vmdk_check_raw(v, ALL, &f), ==, 0);
	g_assert_cmpint(vmdk_check_raw(v, 0, &f), ==, 0);
	g_assert_cmpint(f.corrupt, ==, 0);
	blk_vol_put(v);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/vmdk/hostile/headers", headers);
	g_test_add_func("/vmdk/hostile/loops", loops);
	g_test_add_func("/vmdk/check/directory-lost", directory_lost);
	g_test_add_func("/vmdk/check/table-pointers", table_pointers);
	g_test_add_func("/vmdk/check/table-contents", table_contents);
	g_test_add_func("/vmdk/check/entries", entries);
	g_test_add_func("/vmdk/check/shared", shared);
	g_test_add_func("/vmdk/check/leaks", leaks);
	g_test_add_func("/vmdk/check/lost-table", lost_table);
	g_test_add_func("/vmdk/check/flat-cut-short", flat_cut_short);
	return g_test_run();
}
