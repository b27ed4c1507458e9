/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The vmdk plugin: images of other programs made by hand, content ids, parents, streams, and what check() finds and mends. */
#include <zlib.h>
#include "vmdk-rig.h"

#define MB (1u << 20)
#define DESC_CID (512 + sizeof("# Disk DescriptorFile\nversion=1\nCID=") - 1)

static uint32_t cid_of(struct blk_vol *v, uint64_t at)
{
	char hex[9] = "";

	memcpy(hex, fake_vol_data(v) + at, 8);
	return (uint32_t)strtoul(hex, NULL, 16);
}

static void expect(struct fmt_image *i, uint64_t off, uint64_t len, uint8_t x)
{
	g_autofree uint8_t *b = g_malloc(len);
	ERR_AUTO(e);

	if (fmt_pread(i, b, len, off, &e) < 0)
		g_error("read: %s", e.cause);
	for (uint64_t k = 0; k < len; k++)
		if (b[k] != x)
			g_error("byte %" G_GUINT64_FORMAT " is %u, not %u", off + k, b[k], x);
}

static void write_at(struct fmt_image *i, uint64_t off, uint64_t len, uint8_t x)
{
	g_autofree uint8_t *b = g_malloc(len);
	ERR_AUTO(e);

	memset(b, x, len);
	if (fmt_pwrite(i, b, len, off, &e) < 0)
		g_error("write: %s", e.cause);
}

static void refused(struct blk_vol *v, int ro, const char *pattern)
{
	ERR_AUTO(e);
	struct fmt_image *i = vmdk_open_with(v, ro, NULL, &e);

	if (i)
		g_error("it opens, although: %s", pattern);
	if (!g_pattern_match_simple(pattern, e.cause))
		g_error("\"%s\" is not \"%s\"", e.cause, pattern);
}

/* ---- other programs' images ---- */

static void sesparse(void)
{
	struct blk_vol *v = vmdk_vol("snap-sesparse.vmdk"), *d = vmdk_vol("snap.vmdk");
	struct fmt_image *i;

	put_64(v, 0, 0xcafebabe);
	put_64(v, 8, G_GUINT64_CONSTANT(0x200000001));
	put_64(v, 16, 1 << 17); /* 64 MiB: four tables */
	put_64(v, 24, 8);
	put_64(v, 32, 64);
	put_64(v, 80, 1);     /* the volatile header */
	put_64(v, 88, 1);
	put_64(v, 128, 8);    /* the directory */
	put_64(v, 136, 1);
	put_64(v, 144, 16);   /* tables */
	put_64(v, 152, 256);
	put_64(v, 192, 2048); /* grains */
	put_64(v, 512, 0xcafecafe);
	put_64(v, 8 * 512, G_GUINT64_CONSTANT(0x1000000000000000));      /* table 0 */
	put_64(v, 8 * 512 + 16, G_GUINT64_CONSTANT(0x1000000000000001)); /* of the third 16 MiB: table 1 */
	/* Entry: a grain's number n is kept as n >> 12 in the lower bits, and its lower 12 bits above them. */
	put_64(v, 16 * 512 + 0, G_GUINT64_CONSTANT(0x3003000000000000)); /* grain 3 */
	put_64(v, 16 * 512 + 8, G_GUINT64_CONSTANT(0x2000000000000000)); /* zero */
	put_64(v, 16 * 512 + 16, G_GUINT64_CONSTANT(0x1000000000000000)); /* unmapped */
	put_64(v, 16 * 512 + 24, G_GUINT64_CONSTANT(0x3001000000000001)); /* grain 0x1001 */
	put_64(v, 16 * 512 + 32, G_GUINT64_CONSTANT(0x0000000000000005)); /* nothing that is known */
	put_64(v, (16 + 64) * 512 + 40, G_GUINT64_CONSTANT(0x3005000000000000));
	for (unsigned n = 0; n < 3; n++) {
		static const uint32_t grain[] = {3, 0x1001, 5};
		uint8_t b[4096];

		memset(b, (int)(10 + n), sizeof(b));
		put_bytes(v, 2048 * 512 + (uint64_t)grain[n] * 4096, b, sizeof(b));
	}
	put_text(d, 0, "# Disk DescriptorFile\nversion=3\nCID=12345678\nparentCID=ffffffff\ncreateType=\"seSparse\"\n"
		 "RW 131072 SESPARSE \"snap-sesparse.vmdk\"\n");
	vmdk_name("snap-sesparse.vmdk", v);
	refused(d, 0, "*seSparse extents can only be read*");
	i = vmdk_open_with(d, 1, NULL, NULL);
	g_assert_nonnull(i);
	expect(i, 0, 4096, 10);
	expect(i, 4096, 8192, 0);
	expect(i, 3 * 4096, 4096, 11);
	g_assert_cmpint(fmt_pread(i, (uint8_t[512]){0}, 512, 4 * 4096, NULL), ==, -EIO);
	expect(i, 5 * 4096, 4096, 0);
	expect(i, 16 * MB, 4096, 0);
	expect(i, 32 * MB + 5 * 4096, 4096, 12);
	fmt_close(i);
	fake_vol_data(v)[512 + 24] = 1;
	refused(d, 1, "*journal must be replayed*");
	vmdk_forget();
	blk_vol_put(v);
	blk_vol_put(d);
}

static void cowd(void)
{
	struct blk_vol *v = vmdk_vol("delta.vmdk"), *base = vmdk_vol("base-flat.vmdk"), *b = vmdk_vol("base.vmdk"), *d = vmdk_vol("d.vmdk");
	uint8_t sector[512];
	struct fmt_image *i;

	g_assert_cmpint(blk_vol_resize(base, 4 * MB, NULL), ==, 0);
	memset(fake_vol_data(base), 77, 4 * MB);
	put_text(b, 0, "# Disk DescriptorFile\r\nversion=1\r\nCID=aabbccdd\r\nparentCID=ffffffff\r\ncreateType=\"vmfs\"\r\n\r\n"
		 "RW 8192 VMFS \"base-flat.vmdk\"\r\n");
	put_text(v, 0, "COWD");
	put_32(v, 4, 1);
	put_32(v, 8, 3);
	put_32(v, 12, 8192);
	put_32(v, 16, 1); /* grains of a sector */
	put_32(v, 20, 4);
	put_32(v, 24, 2);
	put_32(v, 4 * 512 + 4, 5);         /* the second 2 MiB */
	put_32(v, 5 * 512 + 4 * 7, 5 + 32); /* its sector 7 */
	memset(sector, 99, sizeof(sector));
	put_bytes(v, (5 + 32) * 512, sector, sizeof(sector));
	put_text(d, 0, "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=aabbccdd\ncreateType=\"vmfsSparse\"\n"
		 "parentFileNameHint=\"base.vmdk\"\nRW 8192 VMFSSPARSE \"delta.vmdk\"\n");
	vmdk_name("delta.vmdk", v);
	vmdk_name("base.vmdk", b);
	vmdk_name("base-flat.vmdk", base);
	i = vmdk_open_with(d, 1, NULL, NULL);
	g_assert_nonnull(i);
	expect(i, 0, 2 * MB + 7 * 512, 77);
	expect(i, 2 * MB + 7 * 512, 512, 99);
	expect(i, 2 * MB + 8 * 512, 512, 77);
	fmt_close(i);
	refused(d, 0, "*COWD extents can only be read*");
	vmdk_forget();
	blk_vol_put(v);
	blk_vol_put(base);
	blk_vol_put(b);
	blk_vol_put(d);
}

/* VirtualBox adds lines to the embedded descriptor, and calls the extent whatever the file was called once. */
static void virtualbox(void)
{
	struct blk_vol *v = vmdk_new(8 * MB, NULL, NULL);
	struct fmt_image *i;
	char *p;

	p = (char *)fake_vol_data(v) + 512;
	p[strlen(p)] = 0;
	put_text(v, 512 + strlen(p), "ddb.uuid.image=\"c2c0ffee-0000-4000-8000-000000000001\"\nddb.uuid.parent=\"00000000-0000-0000-0000-000000000000\"\n"
		 "ddb.uuid.modification=\"00000000-0000-0000-0000-000000000000\"\nddb.comment=\"a \\ b = c\"\n");
	g_assert_nonnull(strstr(p, "disk.vmdk"));
	memcpy(strstr(p, "disk.vmdk"), "gone.vmdk", 9);
	i = vmdk_open(v);
	write_at(i, MB, 100000, 5);
	fmt_close(i);
	i = vmdk_open(v);
	expect(i, MB, 100000, 5);
	g_assert_cmpint(fmt_resize(i, 4000ull * MB, NULL), ==, 0);
	expect(i, MB, 100000, 5);
	fmt_close(i);
	p = (char *)fake_vol_data(v) + 512;
	g_assert_nonnull(strstr(p, "ddb.uuid.modification=\"00000000-0000-0000-0000-000000000000\"\nddb.comment=\"a \\ b = c\"\n"));
	g_assert_nonnull(strstr(p, "RW 8192000 SPARSE \"gone.vmdk\""));
	blk_vol_put(v);
}

static uint64_t grain_at_end(struct blk_vol *v, uint64_t lba, uint8_t x, uint64_t bytes, int marker)
{
	uint64_t at = (blk_vol_bytes(v) + 511) / 512;
	uint8_t in[65536], out[70000];
	uLongf n = sizeof(out);

	memset(in, x, sizeof(in));
	g_assert_cmpint(compress(out, &n, in, bytes), ==, Z_OK);
	if (marker) {
		put_64(v, at * 512, lba);
		put_32(v, at * 512 + 8, (uint32_t)n);
	}
	put_bytes(v, at * 512 + (marker ? 12 : 0), out, n);
	g_assert_cmpint(blk_vol_resize(v, (blk_vol_bytes(v) + 511) / 512 * 512, NULL), ==, 0);
	return at;
}

/* Directory at the end; markers or none; and a last grain that is stored whole, or only as far as the disk goes. */
static void foreign_stream(gconstpointer how)
{
	unsigned bits = GPOINTER_TO_UINT(how);
	int markers = bits & 1, end = !!(bits & 2), whole = !!(bits & 4);
	struct blk_vol *v = vmdk_vol("stream.vmdk");
	struct sparse s = {.version = bits & 8 ? 1 : 3, .flags = 0x10001u | (markers ? 0x20000u : 0), .capacity = 128 * 600 + 5, .grain = 128, .gtes = 512,
			   .desc_at = 0, .overhead = 128, .compress = 1, .gd = end ? UINT64_MAX : 0};
	uint64_t g[3], gt[2], gd;
	struct vmdk_found f;
	struct fmt_image *i;

	g_assert_cmpint(blk_vol_resize(v, 128 * 512, NULL), ==, 0);
	g[0] = grain_at_end(v, 0, 1, 65536, markers);
	g[1] = grain_at_end(v, 128 * 511, 2, 65536, markers);
	g[2] = grain_at_end(v, 128 * 600, 3, whole ? 65536 : 5 * 512, markers);
	for (int k = 0; k < 2; k++) {
		gt[k] = blk_vol_bytes(v) / 512;
		put_32(v, gt[k] * 512 + (k ? 88 * 4 : 0), (uint32_t)g[k ? 2 : 0]);
		put_32(v, gt[k] * 512 + 511 * 4, (uint32_t)(k ? 0 : g[1]));
	}
	gd = blk_vol_bytes(v) / 512;
	put_32(v, gd * 512, (uint32_t)gt[0]);
	put_32(v, gd * 512 + 4, (uint32_t)gt[1]);
	put_32(v, gd * 512 + 508, 0);
	if (end) {
		uint64_t footer = gd + 1 + (markers ? 1 : 0);

		if (markers) {
			put_64(v, (gd + 1) * 512, 1);
			put_32(v, (gd + 1) * 512 + 12, 3);
		}
		put_sparse(v, 0, &s);
		s.gd = gd;
		put_sparse(v, footer, &s);
		put_32(v, (footer + 2) * 512 - 4, 0);
	} else {
		s.gd = gd;
		put_sparse(v, 0, &s);
	}
	i = vmdk_open_with(v, 1, NULL, NULL);
	g_assert_nonnull(i);
	expect(i, 0, 65536, 1);
	expect(i, 65536, 510 * 65536, 0);
	expect(i, 511 * 65536ull, 65536, 2);
	expect(i, 512 * 65536ull, 88 * 65536, 0);
	expect(i, 600 * 65536ull, 5 * 512, 3);
	expect(i, 600 * 65536ull + 700, 3, 3);
	fmt_close(i);
	g_assert_cmpint(vmdk_check_raw(v, 0, &f), ==, 0);
	g_assert_cmpint(f.corrupt + f.leaks, ==, 0);
	refused(v, 0, "*written once*");
	blk_vol_put(v);
}

/* CVE-2026-2243 and its kin: what a marker says of the grain behind it. */
static void hostile_grains(void)
{
	static const struct { uint32_t size; uint64_t lba; } bad[] = {
		{0, 0}, {0xffffffff, 0}, {0x7fffffff, 0}, {65536 * 2, 0}, {200, 128}, {200, UINT64_MAX}, {3, 0}};
	struct sparse s = {.version = 3, .flags = 0x30001u, .capacity = 256, .grain = 128, .gtes = 512, .overhead = 128, .compress = 1, .gd = 20};

	for (unsigned k = 0; k < G_N_ELEMENTS(bad) + 2; k++) {
		struct blk_vol *v = vmdk_vol("bad.vmdk");
		uint8_t b[65536];
		struct vmdk_found f;
		struct fmt_image *i;
		uint64_t g;

		g_assert_cmpint(blk_vol_resize(v, 128 * 512, NULL), ==, 0);
		put_sparse(v, 0, &s);
		put_32(v, 20 * 512, 24);
		g = grain_at_end(v, 0, 9, k == G_N_ELEMENTS(bad) ? 40000 : 65536, 1);
		put_32(v, 24 * 512, (uint32_t)g);
		if (k < G_N_ELEMENTS(bad)) {
			put_64(v, g * 512, bad[k].lba);
			put_32(v, g * 512 + 8, bad[k].size);
		} else if (k > G_N_ELEMENTS(bad)) {
			fake_vol_data(v)[g * 512 + 12 + get_32(v, g * 512 + 8) - 1] ^= 0x55; /* the check sum */
		}
		i = vmdk_open_with(v, 1, NULL, NULL);
		g_assert_nonnull(i);
		if (fmt_pread(i, b, 512, 0, NULL) != -EIO)
			g_error("case %u reads", k);
		expect(i, 65536, 65536, 0);
		fmt_close(i);
		g_assert_cmpint(vmdk_check_raw(v, 0, &f), ==, 0);
		g_assert_cmpint(f.corrupt, ==, 1);
		blk_vol_put(v);
	}
}

/* A zeroed entry means zeros only where the header says that the image has such. */
static void zeroed_entries(void)
{
	for (int flag = 0; flag < 2; flag++) {
		struct blk_vol *v = vmdk_small(4096, 1, flag, 0, NULL, 0xffffffff);
		uint8_t b[512] = {0};
		struct fmt_image *i;

		put_32(v, (uint64_t)get_32(v, 28 * 512) * 512 + 4, 1);
		put_32(v, (uint64_t)get_32(v, 24 * 512) * 512 + 4, 1);
		i = vmdk_open(v);
		g_assert_cmpint(fmt_pread(i, b, 512, 4096, NULL), ==, flag ? 0 : -EIO);
		g_assert_cmpint(b[0], ==, 0);
		g_assert_cmpint(fmt_pread(i, b, 512, 0, NULL), ==, 0);
		fmt_close(i);
		blk_vol_put(v);
	}
}

/* ---- content ids and parents ---- */

static void first_write(gconstpointer how)
{
	struct blk_vol *v = vmdk_new(4 * MB, NULL, NULL), *d[2] = {vmdk_vol("disk.vmdk"), vmdk_vol("disk-flat.vmdk")};
	int flat = GPOINTER_TO_INT(how);
	uint64_t at = flat ? DESC_CID - 512 : DESC_CID;
	const struct fake_event *ev;
	struct fmt_image *i;
	uint32_t before, n, wrote = UINT32_MAX, flushed = UINT32_MAX, data = UINT32_MAX;

	if (flat) {
		blk_vol_put(v);
		v = d[0];
		g_assert_cmpint(blk_vol_resize(d[1], 4 * MB, NULL), ==, 0);
		g_assert_cmpint(vmdk_make(d, 2, 4 * MB, "subformat=monolithicFlat", NULL, NULL), ==, 0);
		vmdk_name("disk-flat.vmdk", d[1]);
	}
	before = cid_of(v, at);
	i = vmdk_open(v);
	expect(i, 0, MB, 0);
	g_assert_cmpint(fmt_flush(i, NULL), ==, 0);
	fmt_close(i);
	g_assert_cmpuint(cid_of(v, at), ==, before); /* reading changes nothing */
	fake_vol_record(v);
	i = vmdk_open(v);
	write_at(i, 70000, 512, 1);
	g_assert_cmpuint(cid_of(v, at), !=, before);
	before = cid_of(v, at);
	write_at(i, 170000, 512, 1);
	g_assert_cmpuint(cid_of(v, at), ==, before); /* once */
	fmt_close(i);
	ev = fake_vol_events(v, &n);
	for (uint32_t k = 0; k < n; k++) {
		if (ev[k].op == VH_WRITE && ev[k].off <= at && ev[k].off + 512 > at && wrote == UINT32_MAX)
			wrote = k;
		if (ev[k].op == VH_FLUSH && wrote < k && flushed == UINT32_MAX)
			flushed = k;
		if (ev[k].op == VH_WRITE && ev[k].off >= 65536 && data == UINT32_MAX)
			data = k;
	}
	g_assert_cmpuint(wrote, <, flushed);
	g_assert_cmpuint(flushed, <, flat ? UINT32_MAX : data); /* durable before the first byte */
	blk_vol_put(v);
	vmdk_forget();
	if (flat)
		blk_vol_put(d[1]);
	else
		blk_vol_put(d[0]), blk_vol_put(d[1]);
}

static void parents(void)
{
	struct blk_vol *base = vmdk_new(2 * MB, NULL, NULL), *top;
	struct vmdk_raw r;
	struct vh_ref ref[2] = {{.size = sizeof(ref[0])}, {.size = sizeof(ref[0])}};
	struct vh_meta *m;
	struct fmt_image *i = vmdk_open(base);
	char *long_name = g_strnfill(1023, 'x'), *too_long = g_strnfill(5000, 'y');
	ERR_AUTO(e);

	write_at(i, 0, 2 * MB, 8);
	fmt_close(i);
	vmdk_name("parent.vmdk", base);
	vmdk_name("other.vmdk", base);
	top = vmdk_new(4 * MB, NULL, base);
	i = vmdk_open(top);
	expect(i, 0, 2 * MB, 8);
	expect(i, 2 * MB, 2 * MB, 0);
	fmt_close(i);
	put_text(base, DESC_CID, "00000042");
	refused(top, 1, "*has content id 00000042, this image was made over*");
	i = vmdk_open_with(top, 1, "parent-cid=ignore", &e);
	g_assert_nonnull(i);
	fmt_close(i);
	/* Named anew: the id is taken over. */
	g_assert_cmpint(vmdk_raw_open(&r, &top, 1, 0, "parent-cid=ignore", &e), ==, 0);
	m = fmt_meta_new(base, 1);
	g_assert_cmpint(vmdk_ops()->set_backing(r.img, "other.vmdk", "vmdk", 2 * MB, m, &e), ==, 0);
	g_assert_cmpint(vmdk_ops()->set_backing(r.img, "other.raw", "raw", 2 * MB, m, NULL), ==, -EINVAL);
	g_assert_cmpint(vmdk_ops()->set_backing(r.img, "a\"b", "vmdk", 2 * MB, m, NULL), ==, -EINVAL);
	g_assert_cmpint(vmdk_ops()->set_backing(r.img, too_long, "vmdk", 2 * MB, m, NULL), ==, -ENAMETOOLONG);
	vmdk_raw_close(&r);
	i = vmdk_open(top);
	expect(i, 0, 2 * MB, 8);
	fmt_close(i);
	fmt_meta_free(m);
	m = fmt_meta_new(top, 1);
	g_assert_cmpint(vmdk_ops()->inspect(m, ref, 2, &e), ==, 1);
	g_assert_cmpuint(ref[0].role, ==, VH_REF_BACKING);
	g_assert_cmpstr(ref[0].name, ==, "other.vmdk");
	g_assert_cmpstr(ref[0].format, ==, "vmdk");
	g_assert_cmpint(vmdk_raw_open(&r, &top, 1, 0, NULL, &e), ==, 0);
	fmt_meta_free(m);
	m = fmt_meta_new(base, 1);
	g_assert_cmpint(vmdk_ops()->set_backing(r.img, long_name, "vmdk", 2 * MB, m, &e), ==, 0); /* there is room for it */
	g_assert_cmpint(vmdk_ops()->set_backing(r.img, NULL, NULL, 0, NULL, &e), ==, 0);
	vmdk_raw_close(&r);
	i = vmdk_open(top);
	expect(i, 0, 4 * MB, 0);
	fmt_close(i);
	fmt_meta_free(m);
	g_free(long_name);
	g_free(too_long);
	blk_vol_put(top);
	blk_vol_put(base);
	vmdk_forget();
}

/* An overlay that grows must not show what its parent has behind the old end. */
static void grown_over_parent(void)
{
	struct blk_vol *base = vmdk_new(8 * MB, NULL, NULL), *top;
	struct fmt_image *i = vmdk_open(base);
	ERR_AUTO(e);

	write_at(i, 0, 8 * MB, 8);
	fmt_close(i);
	vmdk_name("parent.vmdk", base);
	top = vmdk_new(2 * MB, NULL, base);
	i = vmdk_open(top);
	g_assert_cmpint(fmt_resize(i, 6 * MB, &e), ==, -EOPNOTSUPP);
	fmt_close(i);
	blk_vol_put(top);
	top = vmdk_new(2 * MB, "zeroed-grain=on", base);
	for (int k = 0; k < 2; k++) {
		i = vmdk_open(top);
		if (!k)
			g_assert_cmpint(fmt_resize(i, 10 * MB, NULL), ==, 0);
		expect(i, 0, 2 * MB, 8);
		expect(i, 2 * MB, 8 * MB, 0);
		fmt_close(i);
	}
	blk_vol_put(top);
	blk_vol_put(base);
	vmdk_forget();
}

/* ---- descriptors ---- */

static void descriptors(void)
{
	static const struct { const char *text, *want; } bad[] = {
		{"# Disk DescriptorFile\nversion=1\nCID=1\n", "*names no extent*"},
		{"# Disk DescriptorFile\nversion=9\nCID=1\nRW 1 FLAT \"a\" 0\n", "*another version*"},
		{"# Disk DescriptorFile\nversion=1\nCID=xyz\nRW 1 FLAT \"a\" 0\n", "*no number of 32 bits*"},
		{"# Disk DescriptorFile\nversion=1\nCID=123456789\nRW 1 FLAT \"a\" 0\n", "*no number of 32 bits*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 99999999999999999999 FLAT \"a\" 0\n", "*no possible number*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 0 FLAT \"a\" 0\n", "*no possible number*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW -1 FLAT \"a\" 0\n", "*no possible number*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 1 FLAT \"a\n", "*file name*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 1 FLAT \"\" 0\n", "*file name*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 1 FLAT\n", "*file name*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 1 FLAT \"a\tb\" 0\n", "*file name*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 1 FLAT \"a\" 99999999999999999999\n", "*offset*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 1 VMFSRDM \"a\"\n", "*type that is not known*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 1 FLAT \"../../etc/shadow\" 0\n", "*../../etc/shadow*not allowed*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 1 FLAT \"/dev/sda\" 0\n", "*/dev/sda*not allowed*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=2\nparentFileNameHint=\"/etc/shadow\"\nRW 1 ZERO\n", "*/etc/shadow*not allowed*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 9007199254740992 ZERO\nRW 9007199254740992 ZERO\n", "*larger than a disk*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 8193 FLAT \"there\" 0\n", "*cut short*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 1 FLAT \"there\" 9007199254740991\n", "*cut short*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 1 SPARSE \"there\"\n", "*not the sparse extent*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 1 SPARSE \"there\"\nRW 1 SPARSE \"there\"\n", "*named twice*"},
		{"# Disk DescriptorFile\nversion=1\nCID=1\nRW 1 FLAT \"there\" 0\nRW 1 SPARSE \"there\"\n", "*named twice*"},
		{"no descriptor", "*neither*"},
	};
	struct blk_vol *there = vmdk_vol("there");
	struct fmt_image *i;

	g_assert_cmpint(blk_vol_resize(there, 4 * MB, NULL), ==, 0);
	vmdk_name("there", there);
	for (unsigned k = 0; k < G_N_ELEMENTS(bad); k++) {
		struct blk_vol *d = vmdk_vol("d.vmdk");

		put_text(d, 0, bad[k].text);
		refused(d, 1, bad[k].want);
		blk_vol_put(d);
	}
	{ /* a file in two pieces, in the other order, zeros between; keys with spaces, lower case, twice */
		struct blk_vol *d = vmdk_vol("d.vmdk");

		put_text(d, 0, "\xef\xbb\xbf# disk descriptorfile\n  VERSION = 1 \r\ncid = \"AbCd0001\"\nCID=2\nencoding=\"UTF-8\"\n"
			 "  RW 4096 FLAT \"there\" 4096 extra\nRW 128 ZERO\nRDONLY 4096 FLAT \"there\" 0\nNOACCESS 8 ZERO\n");
		memset(fake_vol_data(there), 1, 2 * MB);
		memset(fake_vol_data(there) + 2 * MB, 2, 2 * MB);
		i = vmdk_open(d);
		expect(i, 0, 2 * MB, 2);
		expect(i, 2 * MB, 65536, 0);
		expect(i, 2 * MB + 65536, 2 * MB, 1);
		write_at(i, 0, 512, 7);
		g_assert_cmpint(fmt_pwrite(i, "x", 1, 3 * MB, NULL), ==, -EROFS);
		g_assert_cmpint(fmt_pwrite(i, "x", 1, 2 * MB, NULL), ==, -EROFS);
		g_assert_cmpint(fmt_pread(i, (char[1]){0}, 1, 4 * MB + 65536, NULL), ==, -EACCES);
		fmt_close(i);
		g_assert_cmpuint(fake_vol_data(there)[2 * MB], ==, 7);
		blk_vol_put(d);
	}
	{ /* many extents */
		struct blk_vol *d = vmdk_vol("d.vmdk");
		GString *s = g_string_new("# Disk DescriptorFile\nversion=1\nCID=1\n");

		for (int k = 0; k < 5000; k++)
			g_string_append_printf(s, "RW 128 FLAT \"f%d\"\n", k);
		put_text(d, 0, s->str);
		refused(d, 1, "*too many extents*");
		g_string_free(s, TRUE);
		blk_vol_put(d);
	}
	blk_vol_put(there);
	vmdk_forget();
}

static void refs(void)
{
	struct vh_create_ref r[8];
	struct vh_create c = {.size = sizeof(c), .bytes = 5000ull * MB, .name = "web.vmdk"};
	static const struct vh_val sub[5] = {{sizeof(sub[0]), VH_OPT_ENUM, "subformat", "", 0}, {sizeof(sub[0]), VH_OPT_ENUM, "subformat", "", 1},
		{sizeof(sub[0]), VH_OPT_ENUM, "subformat", "", 2}, {sizeof(sub[0]), VH_OPT_ENUM, "subformat", "", 3},
		{sizeof(sub[0]), VH_OPT_ENUM, "subformat", "", 4}};
	static const int want[] = {0, 1, 3, 3, 0};
	static const char *const name[] = {"", "web-flat.vmdk", "web-s001.vmdk", "web-f001.vmdk", ""};

	for (int k = 0; k < 5; k++) {
		const struct vh_val *val = &sub[k];
		struct vh_opts o = {sizeof(o), 1, &val};

		for (int j = 0; j < 8; j++)
			r[j] = (struct vh_create_ref){.size = sizeof(r[0])};
		c.opts = &o;
		g_assert_cmpint(vmdk_ops()->create_refs(&c, r, 8, NULL), ==, want[k]);
		if (want[k])
			g_assert_cmpstr(r[0].name, ==, name[k]);
		if (k == 3)
			g_assert_cmpuint(r[0].bytes + r[1].bytes + r[2].bytes, ==, c.bytes);
	}
	c.opts = NULL;
	c.name = "a\"b.vmdk";
	g_assert_cmpint(vmdk_ops()->create_refs(&c, r, 8, NULL), ==, -EINVAL);
}

/* ---- streams ---- */

static void ascending(void)
{
	struct blk_vol *v = vmdk_new(100 * MB, "subformat=streamOptimized", NULL);
	uint8_t *in = g_malloc(65536), *out = g_malloc(65536);
	const struct fake_event *ev;
	struct vmdk_raw r;
	uint64_t end = 0, s = 99;
	uint32_t n;
	struct fmt_image *i;
	ERR_AUTO(e);

	fake_vol_record(v);
	g_assert_cmpint(vmdk_raw_open(&r, &v, 1, 0, NULL, &e), ==, 0);
	for (unsigned g = 0; g < 1600; g += 1 + (unsigned)(rig_rnd(&s) % 40)) {
		int64_t k;

		for (unsigned b = 0; b < 65536; b++)
			in[b] = (uint8_t)(g % 3 ? rig_rnd(&s) : g);
		k = vmdk_ops()->encode(r.img, in, 65536, out, 65536);
		g_assert_cmpint(k, >, 0); /* never refuses */
		g_assert_cmpint(k, <=, 65536);
		g_assert_cmpint(vmdk_ops()->put(r.img, g * 65536ull, 65536, out, (uint64_t)k, &e), ==, 0);
		g_assert_cmpint(vmdk_ops()->put(r.img, g * 65536ull, 65536, out, (uint64_t)k, NULL), ==, -EINVAL); /* not twice */
	}
	g_assert_cmpint(vmdk_ops()->put(r.img, 512, 65536, out, 10, NULL), ==, -EINVAL);
	g_assert_cmpint(vmdk_ops()->put(r.img, 100ull * MB, 65536, out, 10, NULL), ==, -EINVAL);
	g_assert_cmpint(vmdk_raw_sync(&r), ==, 0);
	vmdk_raw_close(&r);
	ev = fake_vol_events(v, &n);
	for (uint32_t k = 0; k < n; k++) {
		if (ev[k].op != VH_WRITE) /* growing is recorded as zeros */
			continue;
		g_assert_cmpuint(ev[k].off, >=, end);
		end = ev[k].off + ev[k].len;
	}
	g_assert_cmpuint(end, ==, blk_vol_bytes(v));
	i = vmdk_open_with(v, 1, NULL, &e);
	g_assert_nonnull(i);
	expect(i, 0, 65536, 0); /* grain 0 is a multiple of 3: filled with its number */
	fmt_close(i);
	g_free(in);
	g_free(out);
	blk_vol_put(v);
}

/* What was put is read before anything is flushed; an unfinished stream says that it is one. */
static void unfinished(void)
{
	struct blk_vol *v = vmdk_new(10 * MB, "subformat=streamOptimized", NULL), *half;
	uint8_t in[65536], out[65536];
	struct vmdk_found f;
	struct fmt_image *i;
	struct vmdk_raw r;
	ERR_AUTO(e);

	i = vmdk_open_with(v, 1, NULL, &e);
	g_assert_nonnull(i); /* nothing was put yet */
	expect(i, 0, 10 * MB, 0);
	fmt_close(i);
	g_assert_cmpint(vmdk_raw_open(&r, &v, 1, 0, NULL, &e), ==, 0);
	for (uint64_t g = 0; g < 20; g++) {
		struct vh_extent x;
		struct vh_map m = {.size = sizeof(m), .op = VH_MAP_READ, .cap = 1, .pos = g * 65536, .len = 65536, .ext = &x};
		int64_t n;

		memset(in, (int)g + 1, sizeof(in));
		n = vmdk_ops()->encode(r.img, in, 65536, out, 65536);
		g_assert_cmpint(vmdk_ops()->put(r.img, g * 65536, 65536, out, (uint64_t)n, &e), ==, 0);
		if (g % 3)
			continue;
		g_assert_cmpint(vmdk_ops()->map(r.img, &m), ==, 0);
		g_assert_cmpuint(x.type, ==, VH_EXT_COMPRESSED);
		g_assert_cmpint(vmdk_ops()->decode(r.img, &x, fake_vol_data(v) + x.addr, MIN(x.aux, blk_vol_bytes(v) - x.addr), out, x.bytes), ==, 0);
		g_assert_true(!memcmp(in, out, sizeof(in)));
	}
	half = vmdk_vol("half.vmdk");
	fake_vol_set(half, fake_vol_data(v), blk_vol_bytes(v));
	refused(half, 1, "*has no end*");
	g_assert_cmpint(vmdk_check_raw(half, 0, &f), ==, 0);
	g_assert_cmpint(f.corrupt, ==, 1);
	g_assert_cmpint(vmdk_raw_sync(&r), ==, 0);
	vmdk_raw_close(&r);
	i = vmdk_open_with(v, 1, NULL, &e);
	g_assert_nonnull(i);
	for (unsigned g = 0; g < 20; g++)
		expect(i, g * 65536, 65536, (uint8_t)(g + 1));
	fmt_close(i);
	blk_vol_put(half);
	blk_vol_put(v);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/vmdk/foreign/sesparse", sesparse);
	g_test_add_func("/vmdk/foreign/cowd", cowd);
	g_test_add_func("/vmdk/foreign/virtualbox", virtualbox);
	for (unsigned k = 0; k < 16; k++) {
		g_autofree char *name = g_strdup_printf("/vmdk/foreign/stream%s%s%s%s", k & 1 ? "-markers" : "", k & 2 ? "-at-end" : "",
							k & 4 ? "-whole" : "", k & 8 ? "-version-1" : "");

		g_test_add_data_func(name, GUINT_TO_POINTER(k), foreign_stream);
	}
	g_test_add_func("/vmdk/foreign/zeroed-entries", zeroed_entries);
	g_test_add_func("/vmdk/hostile/grains", hostile_grains);
	g_test_add_func("/vmdk/hostile/descriptors", descriptors);
	g_test_add_data_func("/vmdk/cid/first-write", GINT_TO_POINTER(0), first_write);
	g_test_add_data_func("/vmdk/cid/first-write-flat", GINT_TO_POINTER(1), first_write);
	g_test_add_func("/vmdk/parents", parents);
	g_test_add_func("/vmdk/parents/grown", grown_over_parent);
	g_test_add_func("/vmdk/create/refs", refs);
	g_test_add_func("/vmdk/stream/ascending", ascending);
	g_test_add_func("/vmdk/stream/unfinished", unfinished);
	return g_test_run();
}
