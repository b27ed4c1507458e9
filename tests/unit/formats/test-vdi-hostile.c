/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Images that lie: every one is refused with a text, in under a second and in little memory. And images that are only
 * unusual, which are read. */
#include <unistd.h>
#include "vdi-rig.h"

#define MB (1u << 20)

static uint64_t peak(void)
{
	g_autofree char *text = NULL;
	const char *p = g_file_get_contents("/proc/self/status", &text, NULL, NULL) ? strstr(text, "VmHWM:") : NULL;

	return p ? g_ascii_strtoull(p + 6, NULL, 10) * 1024 : 0;
}

/* Inspected, opened to read, to write, for repair, checked, as a parent: none may do more than refuse. */
static void refused(struct blk_vol *v, const char *why)
{
	int64_t t = g_get_monotonic_time();
	uint64_t before = peak();
	struct vdi_found f;
	ERR_AUTO(e);

	g_assert_null(vdi_open_with(v, NULL, 1, &e));
	if (!e.cause || !strstr(e.cause, why))
		g_error("it says '%s', not '%s'", e.cause, why);
	err_clear(&e);
	g_assert_null(vdi_open_with(v, NULL, 0, &e));
	vdi_check_raw(v, 0, &f);
	g_assert_cmpint(g_get_monotonic_time() - t, <, 3 * G_USEC_PER_SEC); /* three openings */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	g_assert_cmpuint(peak() - before, <, 64u << 20);
#else
	(void)before;
#endif
}

static const struct { uint32_t off, value; const char *why; } lies[] = {
	{64, 0, "not a VDI image"},
	{68, 0x00010002, "version 1.2 is unknown"},
	{68, 0x00020001, "version 2.1 is unknown"},
	{72, 383, "383 bytes long"},
	{72, 0xffffffff, "4294967295 bytes long"},
	{76, 0, "type 0"},
	{76, 5, "type 5"},
	{76, 4, "without its parent's UUID"},
	{340, 0, "within the header"},
	{340, 471, "within the header"},
	{340, 4097, "no multiple of 4"},
	{340, 0xfffffffc, "within the block map"},
	{340, 2 * MB, "within the block map"},
	{344, 4096, "within the block map"},
	{344, 0, "within the block map"},
	{344, 0xffffffff, "past the end of the file"}, /* through the entries */
	{360, 4096, "sectors of 4096"},
	{368, 0xffffffff, "larger than its 64 blocks"},
	{372, 0x80000000, "larger than its 64 blocks"},
	{376, 0, "blocks of 0 bytes"},
	{376, 2048, "blocks of 2048 bytes"},
	{376, 65537, "blocks of 65537 bytes"},
	{376, 0x80000000, "blocks of 2147483648 bytes"},
	{376, 32768, "larger than its 64 blocks"},
	{380, 0xffffffff, "extra data"},
	{384, 63, "larger than its 63 blocks"},
	{384, 0xffffffff, "4294967295 entries"},
	{384, (1u << 26) + 1, "entries; at most"},
	{384, 1u << 26, "within the block map"},
	{388, 0x7fffffff, "said to be allocated"},
	{424, 1, "a static image with a parent's UUID"}, /* made static below */
	{4096 + 5 * 4, 0, "blocks 0 and 5 have the same place"},
	{4096 + 5 * 4, 0xfffffffd, "past the end of the file"},
	{4096 + 63 * 4, 64, "past the end of the file"},
};

static void header(void)
{
	for (unsigned k = 0; k < G_N_ELEMENTS(lies); k++) {
		struct blk_vol *v = vdi_new(4 * MB, "block-size=64K,static=on", NULL, 0);

		g_test_message("%u at byte %u", lies[k].value, lies[k].off);
		if (lies[k].off == 76 && lies[k].value == 4)
			vdi_put32(v, 76, 4);
		vdi_put32(v, lies[k].off, lies[k].value);
		refused(v, lies[k].why);
		blk_vol_put(v);
	}
}

static void short_files(void)
{
	struct blk_vol *good = vdi_new(4 * MB, "block-size=64K,static=on", NULL, 0);
	static const struct { uint64_t bytes; const char *why; } cuts[] = {
		{0, "not a VDI image"}, {1, "not a VDI image"}, {71, "not a VDI image"}, {72, "bytes long"}, {400, ""}, {472, "past the end"},
		{4096, "past the end"}, {4096 + 64 * 4 - 1, "past the end"}, {4096 + 64 * 4, "past the end"}, {MB, "past the end"},
		{3 * MB, "past the end"}};

	for (unsigned k = 0; k < G_N_ELEMENTS(cuts); k++) {
		struct blk_vol *v = fake_vol_new("cut", 0, VDI_CAPS);

		fake_vol_sync(v, 1);
		fake_vol_set(v, fake_vol_data(good), cuts[k].bytes);
		refused(v, cuts[k].why);
		blk_vol_put(v);
	}
	blk_vol_put(good);
}

/* The largest map that is possible, in a sparse file: its zeros all name one place. */
static void huge_map(void)
{
	struct blk_vol *v = fake_vol_new("huge", 300 * (uint64_t)MB, VDI_CAPS), *small = vdi_new(4 * MB, "block-size=4K", NULL, 0);

	fake_vol_sync(v, 1);
	memcpy(fake_vol_data(v), fake_vol_data(small), 512);
	vdi_put32(v, 344, 290 * MB);
	vdi_put32(v, 384, 1u << 26);
	refused(v, "blocks 0 and 1 have the same place");
	blk_vol_put(v);
	blk_vol_put(small);
}

/* A header of VirtualBox's first version, whose data begins right behind the map, on no sector. */
static struct blk_vol *old_image(void)
{
	struct blk_vol *v = fake_vol_new("old", 0, VDI_CAPS);
	uint8_t *b = g_malloc0(420 + 8 * 4 + 3 * 8192);

	fake_vol_sync(v, 1);
	fake_vol_set(v, b, 420 + 8 * 4 + 3 * 8192);
	vdi_put32(v, 64, 0xbeda107f);
	vdi_put32(v, 68, 1);
	vdi_put32(v, 72, 1);
	vdi_put32(v, 352, 8 * 8192 - 512);
	vdi_put32(v, 360, 8192);
	vdi_put32(v, 364, 8);
	vdi_put32(v, 368, 3);
	for (int k = 0; k < 8; k++)
		vdi_put32(v, 420 + k * 4, k == 1 ? 2 : k == 2 ? 0 : k == 7 ? 1 : k == 5 ? 0xfffffffe : 0xffffffff);
	for (int k = 0; k < 3; k++)
		memset(fake_vol_data(v) + 452 + k * 8192, 10 + k, 8192);
	g_free(b);
	return v;
}

static void version_01(void)
{
	static const uint8_t want[8] = {0, 12, 10, 0, 0, 0, 0, 11};
	struct blk_vol *v = old_image();
	struct fmt_image *i;
	uint8_t b[8 * 8192 - 512];
	struct vdi_found f;
	ERR_AUTO(e);

	g_assert_null(vdi_open_with(v, NULL, 0, &e));
	g_assert_nonnull(strstr(e.cause, "only be read"));
	g_assert_nonnull(e.remedy);
	err_clear(&e);
	i = vdi_open_with(v, NULL, 1, &e);
	g_assert_nonnull(i);
	g_assert_cmpint(fmt_pread(i, b, sizeof(b), 0, NULL), ==, 0);
	for (unsigned k = 0; k < sizeof(b); k++)
		g_assert_cmpuint(b[k], ==, want[k / 8192]);
	g_assert_cmpint(fmt_pread(i, b, 700, 8192 - 350, NULL), ==, 0);
	for (unsigned k = 0; k < 700; k++)
		g_assert_cmpuint(b[k], ==, k < 350 ? 0 : 12);
	fmt_close(i);
	g_assert_cmpint(vdi_check_raw(v, 0, &f), ==, 0);
	g_assert_cmpint(f.corrupt + f.leaks, ==, 0);
	blk_vol_put(v);
}

/* Data before each block: of whole sectors it is kept and stepped over, also by a resize that moves blocks. */
static void extra_data(void)
{
	struct blk_vol *v = vdi_new(4 * MB, "block-size=64K", NULL, 0);
	g_autofree uint8_t *b = g_malloc(MB), *z = g_malloc0(MB);
	struct fmt_image *i;
	struct vdi_found f;

	vdi_put32(v, 380, 1024);
	i = vdi_open(v, NULL);
	for (unsigned k = 0; k < MB; k++)
		b[k] = (uint8_t)(k / 512 + 1);
	g_assert_cmpint(fmt_pwrite(i, b, MB, 512, NULL), ==, 0);
	fmt_close(i);
	g_assert_cmpuint(fake_vol_data(v)[MB], ==, 0); /* the extra data of block 0 */
	g_assert_cmpuint(fake_vol_data(v)[MB + 1024 + 512], ==, b[0]);
	g_assert_cmpuint(fake_vol_data(v)[MB + 65536 + 1024], ==, 0);
	memset(fake_vol_data(v) + MB, 0xee, 1024);
	i = vdi_open(v, NULL);
	g_assert_cmpint(fmt_resize(i, UINT64_C(40) << 30, NULL), ==, 0); /* the map needs 2.5 MiB */
	g_assert_cmpint(fmt_pread(i, z, MB, 512, NULL), ==, 0);
	g_assert_cmpmem(b, MB, z, MB);
	fmt_close(i);
	g_assert_cmpint(vdi_check_raw(v, 0, &f), ==, 0);
	g_assert_cmpint(f.corrupt + f.leaks, ==, 0);
	/* The block's own extra data has moved with it. */
	{
		uint32_t slot = vdi_get32(v, vdi_get32(v, 340));

		g_assert_cmpuint(fake_vol_data(v)[vdi_get32(v, 344) + (uint64_t)slot * (65536 + 1024)], ==, 0xee);
	}
	/* Not of whole sectors: read through the plugin. */
	vdi_put32(v, 380, 1000);
	g_assert_null(vdi_open_with(v, NULL, 0, NULL));
	i = vdi_open_with(v, NULL, 1, NULL);
	g_assert_nonnull(i);
	g_assert_cmpint(fmt_pread(i, z, MB, 512, NULL), ==, 0);
	fmt_close(i);
	blk_vol_put(v);
}

/* A header of 1.1 in its short form ends where the map may begin. */
static void short_header(void)
{
	struct blk_vol *v = vdi_new(4 * MB, "block-size=64K", NULL, 0);
	struct fmt_image *i;
	uint8_t b[512];

	vdi_put32(v, 72, 384);
	vdi_put32(v, 340, 456);
	for (int k = 0; k < 64; k++)
		vdi_put32(v, 456 + 4 * k, 0xffffffff);
	i = vdi_open(v, NULL);
	memset(b, 5, sizeof(b));
	for (int k = 0; k < 64; k++)
		g_assert_cmpint(fmt_pwrite(i, b, 512, k * 65536, NULL), ==, 0);
	fmt_close(i);
	for (int k = 0; k < 64; k++)
		g_assert_cmpuint(vdi_get32(v, 456 + 4 * k), ==, k);
	i = vdi_open(v, NULL);
	memset(b, 0, sizeof(b));
	g_assert_cmpint(fmt_pread(i, b, 512, 63 * 65536, NULL), ==, 0);
	g_assert_cmpuint(b[511], ==, 5);
	fmt_close(i);
	blk_vol_put(v);
}

static void probing(void)
{
	struct blk_vol *v = vdi_new(MB, NULL, NULL, 0);

	g_assert_cmpint(vdi_ops()->probe(fake_vol_data(v), 512, 512), ==, 100);
	g_assert_cmpint(vdi_ops()->probe(fake_vol_data(v), 68, 68), ==, 0);
	fake_vol_data(v)[64] ^= 1;
	g_assert_cmpint(vdi_ops()->probe(fake_vol_data(v), 512, 512), ==, 0);
	blk_vol_put(v);
}

static void bad_creates(void)
{
	static const struct { uint64_t bytes; const char *options; } bad[] = {
		{1000, NULL}, {MB, "block-size=12K"}, {UINT64_C(1) << 60, NULL}, {UINT64_MAX - 511, NULL}, {UINT64_C(1) << 40, "block-size=4K"}};

	for (unsigned k = 0; k < G_N_ELEMENTS(bad); k++) {
		struct blk_vol *v = fake_vol_new("new", 0, VDI_CAPS);
		ERR_AUTO(e);

		fake_vol_sync(v, 1);
		g_assert_cmpint(vdi_make(v, bad[k].bytes, bad[k].options, 0, NULL, 0, &e), <, 0);
		g_assert_nonnull(e.cause);
		g_assert_cmpuint(blk_vol_bytes(v), ==, 0);
		err_clear(&e);
		blk_vol_put(v);
	}
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/vdi/hostile/header", header);
	g_test_add_func("/vdi/hostile/short-files", short_files);
	g_test_add_func("/vdi/hostile/huge-map", huge_map);
	g_test_add_func("/vdi/hostile/bad-creates", bad_creates);
	g_test_add_func("/vdi/unusual/version-0.1", version_01);
	g_test_add_func("/vdi/unusual/extra-data", extra_data);
	g_test_add_func("/vdi/unusual/short-header", short_header);
	g_test_add_func("/vdi/probe", probing);
	return g_test_run();
}
