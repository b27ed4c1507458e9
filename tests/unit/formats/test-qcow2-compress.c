/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Compressed clusters: QEMU's are read, ours are read by QEMU; packing, windows, damage, bombs. */
#include <zlib.h>
#include "qcow2-rig.h"

#define MB (1u << 20)

/* The plugin's own calls, without the map tier. */
struct direct { struct blk_vol *v; struct vh_meta *m; void *img; const struct vh_format_ops *ops; };

static void direct_open(struct direct *d, const char *name, const struct vh_opts *o)
{
	gsize n;
	g_autofree uint8_t *data = q2_file(name, &n);
	struct vh_open x = {.size = sizeof(x), .n = 1, .host_caps = VH_FMT_COMPRESSED, .opts = o};
	struct vh_err e = {0};

	d->v = fake_vol_new(name, 0, VH_VOL_GROW | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_ZERO_ON_GROW);
	fake_vol_set(d->v, data, n);
	fake_vol_sync(d->v, 1);
	d->m = fmt_meta_new(d->v, 0);
	x.volumes = &d->m;
	d->ops = q2_ops();
	if (d->ops->open(&x, &d->img, &e) < 0)
		g_error("open: %s", e.cause);
}

static void direct_close(struct direct *d, const char *name)
{
	while (d->ops->flush(d->img, 0) == 1 && d->ops->flush(d->img, 1) == 1)
		;
	d->ops->close(d->img);
	q2_file_set(name, fake_vol_data(d->v), blk_vol_bytes(d->v));
	fmt_meta_free(d->m);
	blk_vol_put(d->v);
}

/* Bytes that get smaller by a third or so, or hardly, or to nothing. */
static void content(uint8_t *b, uint64_t n, unsigned kind)
{
	static uint64_t seed = 1;

	for (uint64_t k = 0; k < n; k++)
		b[k] = kind == 0 ? (uint8_t)(k / 7) : kind == 1 ? (uint8_t)(rig_rnd(&seed) % 40) : kind == 2 ? 0 : (uint8_t)rig_rnd(&seed);
	if (kind == 1 && n > 5000) /* a match that lies further back than the window: must not be used */
		memcpy(b + n - 300, b, 300);
}

struct how { const char *create, *level; };
static const struct how hows[] = {
	{"cluster_size=64k", "default"}, {"cluster_size=64k", "fast"}, {"cluster_size=64k", "9"}, {"cluster_size=64k", "1"},
	{"cluster_size=512", "default"}, {"cluster_size=2M", "fast"}, {"cluster_size=2M,compression_type=zstd", "default"},
	{"cluster_size=64k,compression_type=zstd", "fast"}, {"cluster_size=64k,compression_type=zstd", "19"},
	{"extended_l2=on", "default"}, {"cluster_size=4k,refcount_bits=1", "default"}, {"compat=v2", "fast"},
};

static void write_all(gconstpointer data)
{
	const struct how *h = data;
	g_autofree uint8_t *disk = g_malloc0(9 * MB), *out = g_malloc(2 * MB);
	struct vh_opts *o = q2_opts("compress-level", h->level, (int64_t)0, NULL);
	uint64_t bytes = 8 * MB + 512 * 3, cluster, stored = 0;
	struct vh_image_info i = {.size = sizeof(i)};
	struct vh_err e = {0};
	struct direct d;

	q2_run("rm -f t && qemu-img create -q -f qcow2 -o %s t %" G_GUINT64_FORMAT, h->create, bytes);
	direct_open(&d, "t", o);
	g_assert_cmpint(d.ops->info(d.img, &i), ==, 0);
	g_assert_true(i.caps & VH_FMT_ENCODE);
	cluster = i.unit;
	for (uint64_t pos = 0; pos < bytes; pos += cluster) {
		uint64_t n = MIN(cluster, bytes - pos);
		unsigned kind = (unsigned)(pos / cluster % 5);
		int64_t len;

		if (kind == 4)
			continue;
		content(disk + pos, n, kind);
		len = d.ops->encode(d.img, disk + pos, n, out, n);
		if (len == -ENOSPC) {
			memset(disk + pos, 0, n);
			continue;
		}
		g_assert_cmpint(len, >, 0);
		if (d.ops->put(d.img, pos, n, out, (uint64_t)len, &e) < 0)
			g_error("put: %s", e.cause);
		stored += (uint64_t)len;
	}
	direct_close(&d, "t");
	q2_opts_free(o);
	q2_clean("t");
	{
		gsize n;
		g_autofree uint8_t *seen = q2_raw("t", &n), *file = NULL;

		g_assert_cmpuint(n, ==, bytes);
		q2_same(seen, disk, bytes, "as QEMU reads it");
		q2_reads("t", NULL, disk, bytes, "as it is read here");
		file = q2_file("t", &n); /* packed, not a cluster each */
		if (!strstr(h->create, "refcount_bits=1")) /* there no cluster can be shared */
			g_assert_cmpuint(n, <, stored + stored / 2 + 12 * cluster + 2 * MB / 8);
	}
	/* The same again over them: all that was there becomes free. */
	q2_run("qemu-io -f qcow2 -c 'write -P 7 0 8M' t");
	q2_clean("t");
}

/* What is stored never refers further back than 4 KiB: a decoder with that window and one byte of room at a time sees it. */
static void window(void)
{
	static const char *const levels[] = {"fast", "default", "9", "1"};
	g_autofree uint8_t *in = g_malloc(65536), *out = g_malloc(65536), *back = g_malloc(65536);
	struct direct d;

	q2_run("rm -f t && qemu-img create -q -f qcow2 t 1M");
	for (unsigned k = 0; k < G_N_ELEMENTS(levels); k++) {
		struct vh_opts *o = q2_opts("compress-level", levels[k], (int64_t)0, NULL);

		direct_open(&d, "t", o);
		for (unsigned kind = 0; kind < 3; kind++) {
			z_stream z = {0};
			int64_t n;
			int r = Z_OK;

			content(in, 65536, 1);
			for (unsigned c = 0; kind && c < 65536; c += 256) /* far matches are the only ones */
				memcpy(in + (c + 5000 * kind) % 65280, in + c, 256);
			n = d.ops->encode(d.img, in, 65536, out, 65536);
			g_assert_cmpint(n, >, 0);
			g_assert_cmpint(inflateInit2(&z, -12), ==, Z_OK);
			z.next_in = out;
			z.avail_in = (uInt)n;
			for (unsigned at = 0; at < 65536 && r == Z_OK; at++) {
				z.next_out = back + at;
				z.avail_out = 1;
				r = inflate(&z, Z_NO_FLUSH);
				if (z.avail_out)
					g_error("level %s: nothing comes at byte %u: %s", levels[k], at, z.msg ? z.msg : "?");
			}
			inflateEnd(&z);
			q2_same(back, in, 65536, levels[k]);
		}
		d.ops->close(d.img);
		fmt_meta_free(d.m);
		blk_vol_put(d.v);
		q2_opts_free(o);
	}
}

static void bad_level(void)
{
	static const char *const bad[] = {"0", "10", "-1", "fastest", "3x", ""};
	struct q2_img m;

	q2_run("rm -f t && qemu-img create -q -f qcow2 t 1M");
	for (unsigned k = 0; k < G_N_ELEMENTS(bad); k++) {
		struct vh_opts *o = q2_opts("compress-level", bad[k], (int64_t)0, NULL);
		struct vh_err e = {0};

		g_assert_cmpint(q2_try_open(&m, "t", 0, o, &e), ==, -EINVAL);
		g_assert_nonnull(strstr(e.cause, "compress-level"));
		err_clear(&e);
		q2_opts_free(o);
	}
}

/* Damaged, cut short, too long: -EIO, never more than was asked for. */
static void damaged(void)
{
	static const char *const types[] = {"zlib", "zstd"};
	g_autofree uint8_t *in = g_malloc(65536), *out = g_malloc(65536), *back = g_malloc(65536 + 64);
	struct vh_extent x = {.type = VH_EXT_COMPRESSED, .bytes = 65536};
	uint64_t seed = 3;
	struct direct d;

	for (unsigned t = 0; t < 2; t++) {
		int64_t n;
		unsigned wrong = 0;

		q2_run("rm -f t && qemu-img create -q -f qcow2 -o compression_type=%s t 1M", types[t]);
		direct_open(&d, "t", NULL);
		content(in, 65536, 1);
		n = d.ops->encode(d.img, in, 65536, out, 65536);
		g_assert_cmpint(n, >, 1000);
		memset(out + n, 0xa5, 512); /* the neighbour's bytes follow */
		g_assert_cmpint(d.ops->decode(d.img, &x, out, (uint64_t)n + 512, back, 65536), ==, 0);
		q2_same(back, in, 65536, types[t]);
		for (unsigned k = 0; k < 400; k++) {
			g_autofree uint8_t *bad = g_memdup2(out, (gsize)n);
			uint64_t len = k % 2 ? (uint64_t)n : 1 + rig_rnd(&seed) % (uint64_t)(n - 1);
			int r;

			if (k % 2)
				bad[rig_rnd(&seed) % (uint64_t)n] ^= (uint8_t)(1u << rig_rnd(&seed) % 8);
			memset(back + 65536, 0x77, 64);
			r = d.ops->decode(d.img, &x, bad, len, back, 65536);
			g_assert_true(r == 0 || r == -EIO);
			if (r == 0 && memcmp(back, in, 65536))
				wrong++; /* deflate has no checksum */
			if (r == 0 && k % 2 == 0)
				g_error("%s: %" G_GUINT64_FORMAT " of %" G_GINT64_FORMAT " bytes were enough", types[t], len, n);
			for (unsigned c = 0; c < 64; c++)
				g_assert_cmpuint(back[65536 + c], ==, 0x77);
		}
		g_test_message("%s: %u of 200 flipped bits went unnoticed", types[t], wrong);
		/* What decodes to less than a cluster is damaged. */
		{
			g_autofree uint8_t *little = g_malloc(4096);
			z_stream z = {.next_in = in, .avail_in = 1000, .next_out = little, .avail_out = 4096};

			if (t == 0) {
				deflateInit2(&z, 6, Z_DEFLATED, -12, 9, 0);
				g_assert_cmpint(deflate(&z, Z_FINISH), ==, Z_STREAM_END);
				g_assert_cmpint(d.ops->decode(d.img, &x, little, z.total_out, back, 65536), ==, -EIO);
				deflateEnd(&z);
			}
		}
		d.ops->close(d.img);
		fmt_meta_free(d.m);
		blk_vol_put(d.v);
	}
}

/* put() wants whole clusters of images that can hold compressed ones. */
static void refused(void)
{
	uint8_t b[600] = {0};
	struct vh_err e = {0};
	struct direct d;

	q2_run("rm -f t && qemu-img create -q -f qcow2 -o cluster_size=512 t 1M");
	direct_open(&d, "t", NULL);
	g_assert_cmpint(d.ops->put(d.img, 5, 512, b, 100, &e), ==, -EINVAL);
	err_clear(&e);
	g_assert_cmpint(d.ops->put(d.img, 0, 511, b, 100, &e), ==, -EINVAL);
	err_clear(&e);
	g_assert_cmpint(d.ops->put(d.img, 0, 512, b, 512, &e), ==, -EINVAL);
	err_clear(&e);
	g_assert_cmpint(d.ops->put(d.img, 2 * MB, 512, b, 100, &e), ==, -EINVAL);
	err_clear(&e);
	direct_close(&d, "t");
	q2_clean("t");
}

static void add(void)
{
	for (gsize k = 0; k < G_N_ELEMENTS(hows); k++) {
		g_autofree char *name = g_strdup_printf("/qcow2/compress/%s-%s", hows[k].create, hows[k].level);

		g_test_add_data_func(name, &hows[k], write_all);
	}
	g_test_add_func("/qcow2/compress/window", window);
	g_test_add_func("/qcow2/compress/bad-level", bad_level);
	g_test_add_func("/qcow2/compress/damaged", damaged);
	g_test_add_func("/qcow2/compress/refused", refused);
}

int main(int argc, char **argv)
{
	return q2_main(argc, argv, add);
}
