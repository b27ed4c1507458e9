/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The vdi plugin's behaviour: what its files say, parents by UUID, sizes, holes, check and repair. */
#include "vdi-rig.h"

#define KB UINT64_C(1024)
#define MB (KB * 1024)
#define RW 3u /* VH_CHECK_LEAK | VH_CHECK_CORRUPT */

static void fill(struct fmt_image *i, uint64_t off, uint64_t len, int x)
{
	g_autofree uint8_t *b = g_malloc(len);
	ERR_AUTO(e);

	memset(b, x, len);
	if (fmt_pwrite(i, b, len, off, &e) < 0)
		g_error("write: %s", e.cause);
}

static void expect(struct fmt_image *i, uint64_t off, uint64_t len, int x)
{
	g_autofree uint8_t *b = g_malloc(len);
	ERR_AUTO(e);

	if (fmt_pread(i, b, len, off, &e) < 0)
		g_error("read: %s", e.cause);
	for (uint64_t k = 0; k < len; k++)
		if (b[k] != x)
			g_error("byte %" G_GUINT64_FORMAT " reads %u, not %d", off + k, b[k], x);
}

static void erase(struct fmt_image *i, uint16_t op, uint64_t off, uint64_t len)
{
	struct rig_queue q;

	rig_queue_open(&q, i, 4);
	g_assert_cmpint(rig_io(&q, op, op == VH_ZERO ? VH_REQ_MAY_UNMAP : 0, NULL, len, off), ==, 0);
	rig_queue_close(&q);
}

static void resize(struct fmt_image *i, uint64_t bytes)
{
	ERR_AUTO(e);

	if (fmt_resize(i, bytes, &e) < 0)
		g_error("resize: %s", e.cause);
}

static void clean(struct blk_vol *v)
{
	struct vdi_found f;

	g_assert_cmpint(vdi_check_raw(v, 0, &f), ==, 0);
	g_assert_cmpint(f.leaks + f.corrupt, ==, 0);
}

static void modified(struct blk_vol *v, uint8_t u[16])
{
	memcpy(u, fake_vol_data(v) + 408, 16);
}

/* The modification UUID: new and durable before the first change, overwrites in place included; once per opening; not by
 * reading. */
static void stamp(void)
{
	struct blk_vol *v = vdi_new(4 * MB, "block-size=64K", NULL, 0);
	uint8_t a[16], b[16], c[16];
	struct fmt_image *i = vdi_open(v, NULL);
	uint64_t flushes;

	fill(i, 0, 64 * KB, 1);
	fmt_close(i);
	modified(v, a);
	i = vdi_open(v, NULL);
	expect(i, 0, 64 * KB, 1);
	g_assert_cmpint(fmt_flush(i, NULL), ==, 0);
	fmt_close(i);
	modified(v, b);
	g_assert_cmpmem(a, 16, b, 16);
	i = vdi_open(v, NULL);
	flushes = fake_vol_ops(v, VH_FLUSH);
	fill(i, 512, 512, 2); /* in place */
	g_assert_cmpuint(fake_vol_ops(v, VH_FLUSH), ==, flushes + 1);
	modified(v, b);
	g_assert_true(memcmp(a, b, 16));
	fill(i, 4096, 512, 3);
	fill(i, MB, 512, 3);
	g_assert_cmpint(fmt_flush(i, NULL), ==, 0);
	modified(v, c);
	g_assert_cmpmem(b, 16, c, 16);
	fmt_close(i);
	/* A stamp that cannot be written stops the write. */
	i = vdi_open(v, NULL);
	fake_vol_fail_op(v, VH_FLUSH, -EIO);
	g_assert_cmpint(fmt_pwrite(i, a, 16, 0, NULL), <, 0);
	fake_vol_fail_op(v, VH_FLUSH, 0);
	fmt_close(i);
	clean(v);
	blk_vol_put(v);
}

static void parents(void)
{
	struct blk_vol *base = vdi_new(2 * MB, "block-size=64K", NULL, 0), *child, *other = vdi_new(2 * MB, NULL, NULL, 0);
	struct fmt_image *i = vdi_open(base, NULL);
	ERR_AUTO(e);

	fill(i, 0, 2 * MB, 7);
	fmt_close(i);
	child = vdi_new(4 * MB, "block-size=16K", base, 2 * MB);
	i = vdi_open(child, base);
	expect(i, 0, 2 * MB, 7);
	expect(i, 2 * MB, 2 * MB, 0);
	fill(i, 20000, 100, 8); /* copy on write around it */
	expect(i, 16384, 20000 - 16384, 7);
	expect(i, 20000, 100, 8);
	expect(i, 20100, 4000, 7);
	erase(i, VH_ZERO, 64 * KB, 32 * KB);
	expect(i, 64 * KB, 32 * KB, 0);
	erase(i, VH_DISCARD, 16 * KB, 16 * KB); /* must not show the parent again */
	expect(i, 16 * KB, 16 * KB, 0);
	fmt_close(i);
	i = vdi_open(child, base);
	expect(i, 64 * KB, 32 * KB, 0);
	expect(i, 96 * KB, 64 * KB, 7);
	fmt_close(i);
	clean(child);
	/* No name, a wrong one, a raw one. */
	g_assert_null(vdi_open_with(child, NULL, 0, &e));
	g_assert_nonnull(strstr(e.cause, "nowhere"));
	err_clear(&e);
	g_assert_null(vdi_open_with(child, other, 0, &e));
	g_assert_nonnull(strstr(e.cause, "the parent's is"));
	g_assert_nonnull(e.remedy);
	err_clear(&e);
	/* Reading the parent does no harm, writing it does. */
	i = vdi_open(base, NULL);
	expect(i, 0, 512, 7);
	fmt_close(i);
	fmt_close(vdi_open(child, base));
	i = vdi_open(base, NULL);
	fill(i, MB, 512, 9);
	fmt_close(i);
	g_assert_null(vdi_open_with(child, base, 1, &e));
	g_assert_nonnull(strstr(e.cause, "was changed after"));
	err_clear(&e);
	/* The parent's header is not trusted either. */
	vdi_put32(base, 376, 3);
	g_assert_null(vdi_open_with(child, base, 1, &e));
	err_clear(&e);
	/* Neither static images nor parents of other formats. */
	g_assert_cmpint(vdi_make(other, MB, "static=on", 0, child, MB, &e), ==, -EINVAL);
	err_clear(&e);
	fake_vol_set(other, "x", 1);
	g_assert_cmpint(vdi_make(base, MB, NULL, 0, other, MB, &e), ==, -EINVAL);
	err_clear(&e);
	blk_vol_put(base);
	blk_vol_put(child);
	blk_vol_put(other);
}

static void *raw_open(struct blk_vol *v, struct vh_meta **m, struct blk_vol *parent, uint64_t parent_bytes)
{
	struct vh_meta *below = parent ? fmt_meta_new(parent, 1) : NULL;
	struct vh_open o = {.size = sizeof(o), .n = 1, .volumes = m, .backing = below, .backing_bytes = parent_bytes};
	void *img;
	ERR_AUTO(e);

	*m = fmt_meta_new(v, 0);
	if (vdi_ops()->open(&o, &img, &e) < 0)
		g_error("open: %s", e.cause);
	fmt_meta_free(below);
	return img;
}

static void set_backing(void)
{
	struct blk_vol *base = vdi_new(2 * MB, NULL, NULL, 0), *child = vdi_new(2 * MB, "block-size=64K", NULL, 0);
	struct vh_meta *m, *b = fmt_meta_new(base, 1);
	struct fmt_image *i = vdi_open(base, NULL);
	void *img;
	ERR_AUTO(e);

	fill(i, 0, 2 * MB, 5);
	fmt_close(i);
	img = raw_open(child, &m, NULL, 0);
	g_assert_cmpint(vdi_ops()->set_backing(img, "x", "raw", 2 * MB, b, &e), ==, -EOPNOTSUPP);
	err_clear(&e);
	g_assert_cmpint(vdi_ops()->set_backing(img, "x", "vdi", 2 * MB, b, &e), ==, 0);
	vdi_ops()->close(img);
	fmt_meta_free(m);
	i = vdi_open(child, base);
	expect(i, 0, 2 * MB, 5);
	fill(i, 0, 64 * KB, 6);
	fmt_close(i);
	/* A changed parent is refused until it is set anew. */
	i = vdi_open(base, NULL);
	fill(i, MB, MB, 4);
	fmt_close(i);
	g_assert_null(vdi_open_with(child, base, 1, NULL));
	/* Emptied, the parent shows everywhere; without it, zeros do. */
	{
		struct vh_open o = {.size = sizeof(o), .n = 1, .volumes = &m, .flags = VH_OPEN_REPAIR, .backing = b};

		m = fmt_meta_new(child, 0);
		g_assert_cmpint(vdi_ops()->open(&o, &img, &e), ==, 0);
		g_assert_cmpint(vdi_ops()->set_backing(img, "x", "vdi", 2 * MB, b, &e), ==, 0);
		g_assert_cmpint(vdi_ops()->empty(img, NULL, &e), ==, 0);
		vdi_ops()->close(img);
		fmt_meta_free(m);
	}
	g_assert_cmpuint(blk_vol_bytes(child), ==, VDI_DATA_OFF);
	i = vdi_open(child, base);
	expect(i, 0, MB, 5);
	expect(i, MB, MB, 4);
	fmt_close(i);
	img = raw_open(child, &m, base, 2 * MB);
	g_assert_cmpint(vdi_ops()->set_backing(img, NULL, NULL, 0, NULL, &e), ==, 0);
	vdi_ops()->close(img);
	fmt_meta_free(m);
	fmt_meta_free(b);
	i = vdi_open(child, NULL);
	expect(i, 0, 2 * MB, 0);
	fmt_close(i);
	clean(child);
	blk_vol_put(base);
	blk_vol_put(child);
}

/* Discards give space back, the hole is used again, also when the image was closed meanwhile; repair closes it. */
static void holes(void)
{
	struct blk_vol *v = vdi_new(4 * MB, "block-size=64K", NULL, 0);
	struct fmt_image *i = vdi_open(v, NULL);
	uint8_t before[16], after[16];
	uint64_t full;
	struct vdi_found f;

	fill(i, 0, 4 * MB, 1);
	g_assert_cmpint(fmt_flush(i, NULL), ==, 0);
	full = blk_vol_bytes(v);
	g_assert_cmpuint(vdi_get32(v, 388), ==, 64);
	erase(i, VH_DISCARD, MB, MB);
	expect(i, MB, MB, 0);
	for (uint64_t k = MB; k < 2 * MB; k++)
		g_assert_cmpuint(fake_vol_data(v)[VDI_DATA_OFF + k], ==, 0); /* punched */
	fmt_close(i);
	g_assert_cmpuint(vdi_get32(v, VDI_MAP_OFF + 16 * 4), ==, 0xffffffff);
	clean(v);
	i = vdi_open(v, NULL);
	fill(i, MB, MB, 2);
	g_assert_cmpint(fmt_flush(i, NULL), ==, 0);
	g_assert_cmpuint(blk_vol_bytes(v), ==, full);
	/* Again without a flush between: a block has its own place back. */
	for (int k = 0; k < 5; k++) {
		erase(i, VH_DISCARD, 0, 4 * MB);
		fill(i, 0, 4 * MB, 3 + k);
	}
	g_assert_cmpuint(blk_vol_bytes(v), ==, full);
	erase(i, VH_DISCARD, 0, MB);
	erase(i, VH_ZERO, 3 * MB, MB);
	fmt_close(i);
	modified(v, before);
	g_assert_cmpuint(vdi_get32(v, 388), ==, 48); /* what is free at the end is no hole */
	g_assert_cmpint(vdi_check_raw(v, RW, &f), ==, 0);
	g_assert_cmpint(f.leaks + f.corrupt, ==, 0);
	g_assert_cmpint(f.fixed, ==, 1);
	modified(v, after); /* the disk reads as before: children may go on */
	g_assert_cmpmem(before, 16, after, 16);
	g_assert_cmpuint(vdi_get32(v, 388), ==, 32);
	g_assert_cmpuint(blk_vol_bytes(v), ==, VDI_DATA_OFF + 2 * MB);
	i = vdi_open(v, NULL);
	expect(i, 0, MB, 0);
	expect(i, MB, 2 * MB, 7);
	expect(i, 3 * MB, MB, 0);
	fmt_close(i);
	clean(v);
	blk_vol_put(v);
}

/* Growing within the map's room, and past it, so that the first blocks have to move; static; down again. */
static void sizes(const char *options, uint64_t block, struct blk_vol *parent, uint64_t parent_bytes, int below)
{
	struct blk_vol *v = vdi_new(2 * MB, options, parent, parent_bytes);
	struct fmt_image *i = vdi_open(v, parent);
	int is_static = strstr(options, "static") != NULL;
	uint64_t far = 262144 * block * 2, odd = 5 * MB + 512; /* the map of `far` needs 2 MiB */

	fill(i, MB, MB, 1);
	fill(i, 512, 512, 2);
	resize(i, odd);
	expect(i, 512, 512, 2);
	expect(i, 1024, MB - 1024, below);
	expect(i, MB, MB, 1);
	expect(i, 2 * MB, odd - 2 * MB, 0);
	fill(i, odd - 512, 512, 3);
	resize(i, 6 * MB);
	expect(i, odd - 512, 512, 3);
	expect(i, odd, 6 * MB - odd, 0);
	if (!is_static) {
		for (int k = 0; k < 2; k++) {
			uint32_t data = vdi_get32(v, 344);

			resize(i, far * (k + 1));
			g_assert_cmpuint(vdi_get32(v, 344), >, data);
			expect(i, 512, 512, 2);
			expect(i, MB, MB, 1);
			expect(i, far * (k + 1) - MB, MB, 0);
			fill(i, far * (k + 1) - 4096, 4096, 4 + k);
		}
		expect(i, far - 4096, 4096, 4);
		fmt_close(i);
		clean(v);
		i = vdi_open(v, parent);
		expect(i, 2 * far - 4096, 4096, 5);
		expect(i, odd - 512, 512, 3);
	}
	resize(i, MB + 100 * 512); /* shrink, then see that nothing comes back */
	expect(i, MB, 100 * 512, 1);
	expect(i, 512, 512, 2);
	g_assert_cmpuint(blk_vol_bytes(v), <=, vdi_get32(v, 344) + 2 * MB);
	resize(i, 6 * MB);
	expect(i, MB, 100 * 512, 1);
	expect(i, MB + 100 * 512, 5 * MB - 100 * 512, 0);
	fill(i, 5 * MB, MB, 9);
	fmt_close(i);
	clean(v);
	i = vdi_open(v, parent);
	expect(i, 1024, MB - 1024, below);
	expect(i, 5 * MB, MB, 9);
	if (is_static)
		for (unsigned b = 0; b < 6 * MB / block; b++)
			g_assert_cmpuint(vdi_get32(v, VDI_MAP_OFF + b * 4), <, 6 * MB / block);
	fmt_close(i);
	blk_vol_put(v);
}
static void sizes_4k(void) { sizes("block-size=4K", 4 * KB, NULL, 0, 0); }
static void sizes_64k(void) { sizes("block-size=64K", 64 * KB, NULL, 0, 0); }
static void sizes_static(void) { sizes("block-size=64K,static=on", 64 * KB, NULL, 0, 0); }
static void sizes_child(void)
{
	struct blk_vol *base = vdi_new(8 * MB, "block-size=64K", NULL, 0);
	struct fmt_image *i = vdi_open(base, NULL);

	/* The parent is larger than the child: what is grown later must not show it. */
	fill(i, 0, 8 * MB, 77);
	fmt_close(i);
	sizes("block-size=4K", 4 * KB, base, 8 * MB, 77);
	blk_vol_put(base);
}

static void static_image(void)
{
	struct blk_vol *v = vdi_new(2 * MB, "static=on,block-size=64K", NULL, 0);
	struct fmt_image *i = vdi_open(v, NULL);
	uint64_t commits, maps;
	struct fmt_stats st;
	struct rig_queue q;
	uint8_t b[512];

	g_assert_cmpuint(blk_vol_bytes(v), ==, VDI_DATA_OFF + 2 * MB);
	g_assert_cmpuint(vdi_get32(v, 76), ==, 2);
	g_assert_cmpuint(vdi_get32(v, 388), ==, 32);
	fill(i, 0, 2 * MB, 1);
	erase(i, VH_DISCARD, 0, MB);
	expect(i, 0, MB, 0);
	g_assert_cmpuint(vdi_get32(v, VDI_MAP_OFF), ==, 0); /* punched, and still its own */
	fmt_get_stats(i, &st);
	g_assert_cmpuint(st.commits, ==, 0);
	/* Allocated ranges cost no call of the plugin. */
	rig_queue_open(&q, i, 4);
	rig_io(&q, VH_READ, 0, b, 512, 0);
	rig_io(&q, VH_WRITE, 0, b, 512, 0);
	fmt_get_stats(i, &st);
	maps = st.map_calls;
	commits = st.commits;
	for (unsigned k = 0; k < 2000; k++)
		g_assert_cmpint(rig_io(&q, k % 2 ? VH_READ : VH_WRITE, 0, b, 512, (uint64_t)k * 1024), ==, 0);
	fmt_get_stats(i, &st);
	g_assert_cmpuint(st.map_calls, ==, maps);
	g_assert_cmpuint(st.commits, ==, commits);
	rig_queue_close(&q);
	fmt_close(i);
	blk_vol_put(v);
}

/* A full volume: errors, and nothing is lost or leaked. */
static void no_space(void)
{
	struct blk_vol *v = vdi_new(4 * MB, "block-size=64K", NULL, 0);
	struct fmt_image *i = vdi_open(v, NULL);
	g_autofree uint8_t *b = g_malloc0(MB);

	fill(i, 0, MB, 1);
	fake_vol_fail_op(v, VH_WRITE, -ENOSPC);
	g_assert_cmpint(fmt_pwrite(i, b, MB, 2 * MB, NULL), ==, -ENOSPC);
	fake_vol_fail_op(v, VH_WRITE, 0);
	expect(i, 0, MB, 1);
	expect(i, 2 * MB, MB, 0);
	fill(i, 3 * MB, MB, 2);
	fmt_close(i);
	g_assert_cmpuint(vdi_get32(v, 388), ==, 32);
	clean(v);
	blk_vol_put(v);
}

static void repair(void)
{
	struct blk_vol *v = vdi_new(4 * MB, "block-size=64K", NULL, 0);
	struct fmt_image *i = vdi_open(v, NULL);
	uint8_t before[16], after[16];
	struct vdi_found f;
	ERR_AUTO(e);

	fill(i, 0, MB, 1);
	fill(i, MB, MB, 2);
	fmt_close(i);
	modified(v, before);
	vdi_put32(v, VDI_MAP_OFF + 3 * 4, 20);        /* block 3 is where block 20 is */
	vdi_put32(v, VDI_MAP_OFF + 40 * 4, 63);       /* past the end of the file */
	vdi_put32(v, VDI_MAP_OFF + 41 * 4, 0x7fffffff);
	vdi_put32(v, 388, 5);
	g_assert_null(vdi_open_with(v, NULL, 0, &e));
	g_assert_cmpstr(e.remedy, ==, "repair the image");
	err_clear(&e);
	g_assert_cmpint(vdi_check_raw(v, 0, &f), ==, 0);
	g_assert_cmpint(f.corrupt, ==, 4);
	g_assert_cmpint(vdi_check_raw(v, VH_CHECK_LEAK, &f), ==, 0); /* leaks only: hands off a damaged map */
	g_assert_cmpint(f.fixed, ==, 0);
	g_assert_cmpint(vdi_check_raw(v, RW, &f), ==, 0);
	g_assert_cmpint(f.corrupt, ==, 4);
	g_assert_cmpint(f.fixed, >=, 4);
	modified(v, after);
	g_assert_true(memcmp(before, after, 16)); /* damage that was mended reads otherwise */
	clean(v);
	i = vdi_open(v, NULL);
	expect(i, 0, 3 * 64 * KB, 1);
	expect(i, 3 * 64 * KB, 64 * KB, 2); /* a copy: what block 3 held is gone */
	expect(i, 4 * 64 * KB, MB - 4 * 64 * KB, 1);
	expect(i, MB, MB, 2);
	expect(i, 40 * 64 * KB, 128 * KB, 0);
	fill(i, 3 * 64 * KB, 64 * KB, 4); /* no longer shared */
	expect(i, 20 * 64 * KB, 64 * KB, 2);
	fmt_close(i);
	/* A count that is too high is a leak. */
	vdi_put32(v, 388, 50);
	g_assert_cmpint(vdi_check_raw(v, VH_CHECK_LEAK, &f), ==, 0);
	g_assert_cmpint(f.leaks, ==, 1);
	g_assert_cmpint(f.fixed, ==, 1);
	clean(v);
	blk_vol_put(v);
}

struct told { GString *s; };
static void tell(void *ctx, const char *key, uint32_t type, const char *value)
{
	g_string_append_printf(ctx, "%s=%s ", key, value);
}

static void tells(void)
{
	struct blk_vol *v = vdi_new(4 * MB, "block-size=64K", NULL, 0);
	struct vh_create c = {.size = sizeof(c), .bytes = 100 * MB};
	GString *s = g_string_new(NULL);
	uint64_t required, full;
	struct vh_meta *m;
	void *img = raw_open(v, &m, NULL, 0);

	vdi_ops()->describe(img, tell, s);
	g_assert_nonnull(strstr(s->str, "version=1.1 type=dynamic block-size=65536 blocks=64 blocks-allocated=0 uuid="));
	vdi_ops()->close(img);
	fmt_meta_free(m);
	g_string_free(s, TRUE);
	g_assert_cmpint(vdi_ops()->measure(&c, 10 * MB + 1, &required, &full, NULL), ==, 0);
	g_assert_cmpuint(required, ==, 12 * MB);
	g_assert_cmpuint(full, ==, 101 * MB);
	c.prealloc = VH_PREALLOC_FALLOC;
	g_assert_cmpint(vdi_ops()->measure(&c, 0, &required, &full, NULL), ==, 0);
	g_assert_cmpuint(required, ==, full);
	blk_vol_put(v);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/vdi/first-change-gives-a-new-uuid", stamp);
	g_test_add_func("/vdi/parent-by-uuid", parents);
	g_test_add_func("/vdi/set-backing-and-empty", set_backing);
	g_test_add_func("/vdi/holes-are-used-again", holes);
	g_test_add_func("/vdi/sizes-4k", sizes_4k);
	g_test_add_func("/vdi/sizes-64k", sizes_64k);
	g_test_add_func("/vdi/sizes-static", sizes_static);
	g_test_add_func("/vdi/sizes-child", sizes_child);
	g_test_add_func("/vdi/static", static_image);
	g_test_add_func("/vdi/no-space", no_space);
	g_test_add_func("/vdi/check-and-repair", repair);
	g_test_add_func("/vdi/describe-and-measure", tells);
	return g_test_run();
}
