/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The qcow2 plugin from the inside over images that are not as they should be: entries, metadata, headers, any bytes. */
#include <malloc.h>
#include <string.h>
#include "qcow2-inside.h"

/* ---- entries ---- */

static void entries(void)
{
	struct given g[] = {{"extended-l2", 1}, {NULL, 0}};
	struct vh_meta *m = mapped(NULL);
	struct vh_extent x;
	struct q2 *q;

	put_be(l2_entry(m, 1, 8), 1, 8);                                  /* zeros, and not data at byte 0 */
	put_be(l2_entry(m, 2, 8), Q2_COMPRESSED | 0, 8);                  /* compressed, at byte 0 */
	put_be(l2_entry(m, 3, 8), Q2_COMPRESSED | 0x12345 | UINT64_C(3) << 54, 8);
	put_be(l2_entry(m, 4, 8), 0x30000 | Q2_COPIED | 0x200, 8);        /* not aligned */
	q = must_open(m, VH_OPEN_RO);
	x = first(q, VH_MAP_READ, 0, 65536, 0);
	g_assert_cmpuint(x.type, ==, VH_EXT_ZERO);
	x = first(q, VH_MAP_READ, 0, 2 * 65536 + 512, 0);
	g_assert_cmpuint(x.type, ==, VH_EXT_COMPRESSED);
	g_assert_cmpuint(x.aux, ==, 512);
	x = first(q, VH_MAP_READ, 0, 3 * 65536 + 512, 0);
	g_assert_cmpuint(x.type, ==, VH_EXT_COMPRESSED);
	g_assert_cmpuint(x.addr, ==, 0x12345);
	g_assert_cmpuint(x.aux, ==, 4 * 512 - 0x145);
	g_assert_cmpuint(x.head, ==, 512);
	g_assert_cmpuint(x.len + x.head + x.tail, ==, 65536);
	first(q, VH_MAP_READ, 0, 4 * 65536, -EIO);
	ops->close(q);
	g_assert_cmpuint(q2_be64(m->data + 72), ==, 0); /* read-only: nothing is marked */
	q = must_open(m, 0);
	first(q, VH_MAP_READ, VH_MAP_NOWAIT, 4 * 65536, -EAGAIN);
	first(q, VH_MAP_READ, 0, 4 * 65536, -EIO);
	first(q, VH_MAP_WRITE, 0, 0, -EIO); /* no more */
	first(q, VH_MAP_READ, 0, 65536, 0);
	ops->close(q);
	g_assert_cmpuint(q2_be64(m->data + 72), ==, Q2_INCOMPAT_CORRUPT);
	struct vh_err e;

	g_assert_cmpint(try_open(m, 0, &q, &e), ==, -EUCLEAN);
	g_assert_nonnull(strstr(e.text, "corrupt"));
	ops->close(must_open(m, VH_OPEN_RO));
	vol_free(m);

	m = mapped(g);
	put_be(l2_entry(m, 1, 16), 0, 8);
	put_be(l2_entry(m, 1, 16) + 8, UINT64_C(1) << 33, 8);             /* subcluster 1 is zeros */
	put_be(l2_entry(m, 0, 16) + 8, 0xffffffff | UINT64_C(1) << 37, 8); /* subcluster 5 is data and zeros */
	put_be(l2_entry(m, 2, 16), Q2_COMPRESSED | 0x50000, 8);
	put_be(l2_entry(m, 2, 16) + 8, 1, 8);                             /* compressed, with a bitmap */
	q = must_open(m, VH_OPEN_RO);
	first(q, VH_MAP_READ, 0, 5 * 2048, -EIO);
	x = first(q, VH_MAP_REPORT, 0, 65536 + 2048, 0);
	g_assert_cmpuint(x.type, ==, VH_EXT_ZERO);
	g_assert_cmpuint(x.len, ==, 2048);
	g_assert_cmpuint(x.flags & VH_EXT_ALLOCATED, !=, 0);
	first(q, VH_MAP_READ, 0, 2 * 65536, -EIO);
	ops->close(q);
	vol_free(m);
}

/* An entry that points at metadata lets nobody write it. */
static void no_way_to_metadata(void)
{
	struct vh_meta *m = mapped(NULL);
	uint64_t l1 = q2_be64(m->data + 40), l2 = q2_be64(m->data + l1) & Q2_OFFSET_MASK, rt = q2_be64(m->data + 48);
	uint64_t bad[] = {0, l1, l2, rt, q2_be64(m->data + rt)};
	struct { uint32_t op, flags; } way[] = {{VH_MAP_WRITE, VH_MAP_OVERWRITE_ONLY}, {VH_MAP_WRITE, 0}, {VH_MAP_ZERO, 0},
						{VH_MAP_ZERO, VH_MAP_MAY_UNMAP}, {VH_MAP_DISCARD, 0}};
	struct q2 *q;

	for (unsigned k = 1; k < G_N_ELEMENTS(bad); k++) {
		for (unsigned w = 0; w < G_N_ELEMENTS(way); w++) {
			for (unsigned whole = 0; whole < 2; whole++) {
				struct vh_extent x[8];
				struct vh_map map = {.size = sizeof(map), .op = way[w].op, .flags = way[w].flags, .cap = 8,
						     .pos = whole ? 65536 : 65536 + 4096, .len = whole ? 65536 : 4096, .ext = x};
				int r;

				put_be(l2_entry(m, 1, 8), bad[k] | Q2_COPIED, 8);
				put_be(m->data + 72, 0, 8);
				q = must_open(m, 0);
				r = ops->map(q, &map);
				if (r == 0) /* an entry may be changed as long as nobody writes or punches there */
					for (uint32_t i = 0; i < map.n; i++)
						g_assert_true(x[i].type == VH_EXT_TRIM && !x[i].bytes);
				else
					g_assert_cmpint(r, ==, -EIO);
				if (r == 0 && map.n && (x[0].flags & VH_EXT_COMMIT))
					ops->commit(q, &map, -EIO, 0);
				ops->close(q);
			}
		}
	}
	vol_free(m);
}

/* A cluster of the refcount table's or L2's that is counted as free is not handed out. */
static void free_metadata(void)
{
	struct vh_meta *m = mapped(NULL);
	uint64_t rt = q2_be64(m->data + 48), block = q2_be64(m->data + rt);
	struct q2 *q;

	for (int k = 0; k < 4; k++)
		put_be(m->data + block + 2 * (uint64_t)k, 0, 2);
	q = must_open(m, 0);
	first(q, VH_MAP_WRITE, VH_MAP_NOWAIT, 5 * 65536, -EAGAIN);
	first(q, VH_MAP_WRITE, 0, 5 * 65536, -EIO);
	ops->close(q);
	g_assert_cmpuint(q2_be64(m->data + 72), ==, Q2_INCOMPAT_CORRUPT);
	vol_free(m);
}

/* ---- hostile headers ---- */

struct hostile { uint32_t off, bytes; uint64_t value; uint64_t file; int want; const char *text; };
static const struct hostile hostiles[] = {
	{4, 4, 1, 0, -EOPNOTSUPP, "version 1"},
	{4, 4, 4, 0, -EOPNOTSUPP, "version 4"},
	{20, 4, 8, 0, -EINVAL, "2^8"},
	{20, 4, 22, 0, -EINVAL, "2^22"},
	{20, 4, 0xffffffff, 0, -EINVAL, "2^4294967295"},
	{8, 8, 0x1000, 0, 0, NULL},
	{8, 8, 0xffffffffffffffff, 0, -EINVAL, "backing image's name"},
	{8, 8, 0x20000, 0, -EINVAL, "backing image's name"},
	{24, 8, 0x7fffffffffffffff, 0, -EFBIG, "disk of"},
	{24, 8, UINT64_C(1) << 50, 0, -EINVAL, "too few"},
	{32, 4, 3, 0, -EOPNOTSUPP, "encryption"},
	{36, 4, 0xffffffff, 0, -EFBIG, "L1 table"},
	{36, 4, 0x400001, 0, -EFBIG, "L1 table"},
	{36, 4, 0x400000, 0, -EUCLEAN, "over other metadata"}, /* 32 MiB, of which the file has but little */
	{36, 4, 0x400000, UINT64_C(1) << 40, -EUCLEAN, "over other metadata"},
	{36, 4, 0, 0, -EINVAL, "too few"},
	{40, 8, 0x30200, 0, -EINVAL, "L1 table"},
	{40, 8, UINT64_C(1) << 56, 0, -EINVAL, "L1 table"},
	{40, 8, 0, 0, -EINVAL, "L1 table"},
	{40, 8, UINT64_C(1) << 40, 0, -EINVAL, "L1 table"},
	{48, 8, 0, 0, -EINVAL, "refcount table"},
	{48, 8, 0x10001, 0, -EINVAL, "refcount table"},
	{48, 8, UINT64_C(1) << 40, 0, -EINVAL, "refcount table"},
	{56, 4, 0, 0, -EINVAL, "refcount table"},
	{56, 4, 0xffffffff, 0, -EFBIG, "refcount table"},
	{56, 4, 129, 0, -EFBIG, "refcount table"},
	{60, 4, 0xffffffff, 0, -EFBIG, "snapshots"},
	{60, 4, 1, 0, -EINVAL, "snapshots"},
	{72, 8, 0x20, 0, -EOPNOTSUPP, "incompatible bit 5"},
	{72, 8, UINT64_C(1) << 63, 0, -EOPNOTSUPP, "incompatible bit 63"},
	{72, 8, 2, 0, -EUCLEAN, "corrupt"},
	{72, 8, 8, 0, -EINVAL, "compression"},
	{96, 4, 7, 0, -EINVAL, "2^7"},
	{96, 4, 0xffffffff, 0, -EINVAL, "2^4294967295"},
	{100, 4, 103, 0, -EINVAL, "length"},
	{100, 4, 96, 0, -EINVAL, "length"},
	{100, 4, 0x20000, 0, -EINVAL, "length"},
	{104, 1, 1, 0, -EINVAL, "compression"},
	{104, 1, 9, 0, -EOPNOTSUPP, "compression type 9"},
};

static void hostile_headers(void)
{
	for (unsigned k = 0; k < G_N_ELEMENTS(hostiles); k++) {
		const struct hostile *h = &hostiles[k];
		struct vh_meta *m = mapped(NULL);
		struct vh_ref refs[4] = {0};
		struct vh_err e = {0};
		struct q2 *q;
		size_t before = mallinfo2().uordblks + mallinfo2().hblkhd, after;
		gint64 t = g_get_monotonic_time();
		int r;

		put_be(m->data + h->off, h->value, (int)h->bytes);
		if (h->file)
			m->bytes = h->file;
		r = try_open(m, 0, &q, &e);
		after = mallinfo2().uordblks + mallinfo2().hblkhd;
		if (r != h->want || (h->text && !strstr(e.text, h->text)))
			g_error("hostile header %u (byte %u): %d, %s; wanted %d, %s", k, h->off, r, e.text, h->want, h->text);
		if (r < 0)
			g_assert_cmpuint(strlen(e.text), >, 0);
		/* Reserved; touched is only what the file really has. */
		g_assert_cmpuint(after, <, before + (UINT64_C(120) << 20));
		g_assert_cmpint(g_get_monotonic_time() - t, <, G_USEC_PER_SEC * 5);
		if (r == 0)
			ops->close(q);
		ops->inspect(m, refs, 4, &e);
		vol_free(m);
	}
}

/* The largest L1 table, in a file that is one hole: what it claims must not cost more than it may. */
static void largest_l1(void)
{
	struct vh_meta *m = mapped(NULL);
	gint64 t = g_get_monotonic_time();
	struct mallinfo2 before = mallinfo2(), after;
	struct q2 *q;

	m->bytes = UINT64_C(1) << 50;
	put_be(m->data + 24, UINT64_C(1) << 51, 8);
	put_be(m->data + 36, 0x400000, 4);
	put_be(m->data + 40, UINT64_C(1) << 40, 8);
	q = must_open(m, VH_OPEN_RO);
	after = mallinfo2();
	/* The table, and as much again that is reserved and touched where something is written. */
	g_assert_cmpuint(after.uordblks + after.hblkhd, <, before.uordblks + before.hblkhd + (UINT64_C(80) << 20));
	first(q, VH_MAP_READ, 0, UINT64_C(1) << 50, 0);
	ops->close(q);
	g_assert_cmpint(g_get_monotonic_time() - t, <, G_USEC_PER_SEC * 5);
	vol_free(m);
}

/* The name of an unknown feature comes from the image's own table. */
static void feature_by_name(void)
{
	struct vh_meta *m = vol_new();
	struct vh_err e;
	struct q2 *q;
	uint8_t *p;

	create(m, 1 << 20, 0, NULL);
	put_be(m->data + 72, 1 << 6, 8);
	for (p = m->data + 112; q2_be32(p) != Q2_EXT_FEATURES; p += 8 + (q2_be32(p + 4) + 7) / 8 * 8)
		;
	p[8] = 0;
	p[9] = 6;
	memset(p + 10, 0, 46);
	strcpy((char *)p + 10, "moon phases");
	g_assert_cmpint(try_open(m, 0, &q, &e), ==, -EOPNOTSUPP);
	g_assert_nonnull(strstr(e.text, "moon phases"));
	vol_free(m);
}

/* L2 tables over the header, the L1 table, themselves. */
static void overlaps(void)
{
	struct vh_meta *m = mapped(NULL);
	uint64_t l1 = q2_be64(m->data + 40), rt = q2_be64(m->data + 48), l2 = q2_be64(m->data + l1);
	struct vh_err e;
	struct q2 *q;

	put_be(m->data + l1, l1 | Q2_COPIED, 8);
	g_assert_cmpint(try_open(m, 0, &q, &e), ==, -EUCLEAN);
	ops->close(must_open(m, VH_OPEN_RO));
	put_be(m->data + l1, rt | Q2_COPIED, 8);
	g_assert_cmpint(try_open(m, 0, &q, &e), ==, -EUCLEAN);
	put_be(m->data + l1, q2_be64(m->data + rt) | Q2_COPIED, 8);
	g_assert_cmpint(try_open(m, 0, &q, &e), ==, -EUCLEAN);
	put_be(m->data + l1, l2, 8);
	put_be(m->data + rt, rt, 8); /* the refcount table is its own block */
	g_assert_cmpint(try_open(m, 0, &q, &e), ==, -EUCLEAN);
	vol_free(m);
}

/* ---- any bytes ---- */

static void drive(struct q2 *q)
{
	struct vh_extent x[8];
	struct vh_image_info info = {.size = sizeof(info)};

	g_assert_cmpint(ops->info(q, &info), ==, 0);
	for (int k = 0; k < 12; k++) {
		uint32_t op = 1 + (uint32_t)(rnd() % 5);
		uint64_t pos = rnd() % (info.bytes ? info.bytes : 1);
		struct vh_map map = {.size = sizeof(map), .op = op, .cap = 8, .pos = pos, .len = 1 + rnd() % 200000, .ext = x};
		int owes = 0;

		map.len = MIN(map.len, info.bytes - pos);
		if (q->read_only && op != VH_MAP_READ && op != VH_MAP_REPORT)
			continue;
		if (op == VH_MAP_WRITE && rnd() % 2)
			map.flags = VH_MAP_OVERWRITE_ONLY;
		if (op == VH_MAP_ZERO && rnd() % 2)
			map.flags = VH_MAP_MAY_UNMAP;
		if (!map.len || ops->map(q, &map) < 0)
			continue;
		for (uint32_t i = 0; i < map.n; i++)
			owes |= x[i].flags & VH_EXT_COMMIT;
		if (owes)
			ops->commit(q, &map, rnd() % 4 ? 0 : -EIO, 0);
		if (rnd() % 4 == 0)
			flush(q);
	}
}

/* Bytes of the metadata changed at random: errors, but no crash, no hang, no loop. */
static void any_bytes(void)
{
	static const struct given kinds[][3] = {
		{{NULL, 0}}, {{"cluster-size", 512}, {NULL, 0}}, {{"extended-l2", 1}, {NULL, 0}}, {{"compat", 0}, {NULL, 0}},
		{{"refcount-bits", 1}, {"cluster-size", 4096}, {NULL, 0}}, {{"lazy-refcounts", 1}, {NULL, 0}},
	};
	unsigned opened = 0, n = g_test_slow() ? 20000 : 1500;

	for (unsigned k = 0; k < n; k++) {
		struct vh_meta *m = mapped(kinds[k % G_N_ELEMENTS(kinds)]);
		uint64_t flags = rnd() % 3 == 0 ? VH_OPEN_RO : rnd() % 4 == 0 ? VH_OPEN_REPAIR : 0;
		struct vh_ref refs[4] = {0};
		struct vh_err e = {0};
		struct q2 *q;
		int found_n = 0;

		m->limit = 64 << 20;
		for (uint64_t j = 1 + rnd() % 6; j > 0; j--) {
			uint64_t where = rnd() % 3 ? rnd() % 160 : rnd() % m->bytes;

			if (where >= m->cap)
				continue;
			if (rnd() % 2)
				m->data[where] = (uint8_t)rnd();
			else
				m->data[where] ^= (uint8_t)(1u << rnd() % 8);
		}
		ops->inspect(m, refs, 4, &e);
		if (try_open(m, flags, &q, &e) < 0) {
			g_assert_cmpuint(strlen(e.text), >, 0);
			vol_free(m);
			continue;
		}
		opened++;
		drive(q);
		memset(&e, 0, sizeof(e));
		if (rnd() % 2)
			ops->check(q, flags & VH_OPEN_RO ? 0 : (uint32_t)(rnd() % 4), found, &found_n, NULL, &e);
		ops->close(q);
		vol_free(m);
	}
	g_test_message("%u of %u images could be opened", opened, n);
	g_assert_cmpuint(opened, >, n / 10);
}

static void add(void)
{
	g_test_add_func("/qcow2/entries", entries);
	g_test_add_func("/qcow2/no-way-to-metadata", no_way_to_metadata);
	g_test_add_func("/qcow2/free-metadata", free_metadata);
	g_test_add_func("/qcow2/hostile-headers", hostile_headers);
	g_test_add_func("/qcow2/largest-l1", largest_l1);
	g_test_add_func("/qcow2/feature-by-name", feature_by_name);
	g_test_add_func("/qcow2/overlaps", overlaps);
	g_test_add_func("/qcow2/any-bytes", any_bytes);
}

int main(int argc, char **argv)
{
	return inside_main(argc, argv, add);
}
