/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A volume that fails now and then, data and metadata alike: what succeeded stays, what failed leaves a range that may hold the
 * old or the new bytes and nothing else around it, the map never gets damaged, and when the volume works again so does the
 * image, also opened anew.
 */
#include "vdi-rig.h"

#define CELL 512u
#define DISK (3u << 20)
#define NCELLS (DISK / CELL)
#define SET 32 /* bytes of a set of values */

static uint8_t (*may)[SET]; /* per cell: which values it may have */

static void only(unsigned c, uint8_t x)
{
	memset(may[c], 0, SET);
	may[c][x / 8] = (uint8_t)(1u << x % 8);
}

static void also(unsigned c, uint8_t x)
{
	may[c][x / 8] |= (uint8_t)(1u << x % 8);
}

static void compare(struct fmt_image *i, const char *when)
{
	g_autofree uint8_t *disk = g_malloc(DISK);

	g_assert_cmpint(fmt_pread(i, disk, DISK, 0, NULL), ==, 0);
	for (unsigned k = 0; k < DISK; k++)
		if (!(may[k / CELL][disk[k] / 8] >> disk[k] % 8 & 1))
			g_error("%s: byte %u reads %u", when, k, disk[k]);
}

struct one { unsigned c, n; uint8_t x; uint16_t op; };

static void round_of(struct rig_queue *q, uint8_t *buf, uint64_t *s)
{
	struct rig_async a[4];
	struct one o[4];

	for (unsigned k = 0; k < 4; k++) {
		unsigned kind = (unsigned)(rig_rnd(s) % 100), lo = NCELLS / 4 * k;

		/* Each in its own quarter, whose bounds lie within a block. */
		o[k].op = kind < 55 ? VH_WRITE : kind < 70 ? VH_ZERO : kind < 90 ? VH_DISCARD : VH_FLUSH;
		o[k].n = 1 + (unsigned)(rig_rnd(s) % (rig_rnd(s) % 3 ? 16 : 500));
		o[k].c = lo + (unsigned)(rig_rnd(s) % (NCELLS / 4 - o[k].n));
		o[k].x = o[k].op == VH_WRITE ? (uint8_t)(1 + rig_rnd(s) % 255) : 0;
		if (o[k].op == VH_WRITE)
			memset(buf + o[k].c * CELL, o[k].x, o[k].n * CELL);
		rig_start(&a[k], q, o[k].op, o[k].op == VH_ZERO ? VH_REQ_MAY_UNMAP : 0, o[k].op == VH_WRITE ? buf + o[k].c * CELL : NULL,
			  o[k].op == VH_FLUSH ? 0 : (uint64_t)o[k].n * CELL, o[k].op == VH_FLUSH ? 0 : (uint64_t)o[k].c * CELL);
	}
	for (unsigned k = 0; k < 4; k++) {
		int r = rig_wait(&a[k]);

		for (unsigned c = o[k].c; o[k].op != VH_FLUSH && c < o[k].c + o[k].n; c++) {
			if (r == 0 && o[k].op != VH_DISCARD)
				only(c, o[k].x);
			else
				also(c, o[k].x);
		}
	}
}

static void faults(gconstpointer options)
{
	struct blk_vol *base = vdi_new(DISK - 8192, "block-size=64K", NULL, 0);
	struct blk_vol *parent = strstr(options, "static") ? NULL : base;
	struct blk_vol *v;
	uint8_t *buf = g_malloc(DISK);
	uint64_t s = (uint64_t)g_test_rand_int() * 2654435761u | 1;
	struct fmt_image *i = vdi_open(base, NULL);
	struct vdi_found f;
	struct rig_queue q;

	may = g_malloc(NCELLS * SET);
	memset(buf, 99, DISK);
	g_assert_cmpint(fmt_pwrite(i, buf, DISK - 8192, 0, NULL), ==, 0);
	fmt_close(i);
	v = vdi_new(DISK, options, parent, DISK - 8192);
	for (unsigned c = 0; c < NCELLS; c++)
		only(c, parent && c < NCELLS - 16 ? 99 : 0);
	for (int life = 0; life < 6; life++) {
		i = vdi_open(v, parent);
		rig_queue_open(&q, i, 8);
		fake_vol_sync(v, 0);
		fake_vol_fail(v, life == 5 ? 0 : 15000 << life % 3, life % 2 ? -EIO : -ENOSPC);
		for (int k = 0; k < 60; k++)
			round_of(&q, buf, &s);
		if (life == 3) { /* the parts of a flush fail */
			fake_vol_fail_op(v, VH_WRITE, -EIO);
			g_assert_cmpint(rig_io(&q, VH_FLUSH, 0, NULL, 0, 0), <=, 0);
			fake_vol_fail_op(v, VH_WRITE, 0);
		}
		fake_vol_fail(v, 0, 0);
		fake_vol_sync(v, 1);
		g_assert_cmpint(rig_io(&q, VH_FLUSH, 0, NULL, 0, 0), ==, 0);
		compare(i, "when it works again");
		rig_queue_close(&q);
		fmt_close(i);
		g_assert_cmpint(vdi_check_raw(v, 0, &f), ==, 0);
		g_assert_cmpint(f.corrupt + f.leaks, ==, 0);
		i = vdi_open(v, parent);
		compare(i, "opened anew");
		fmt_close(i);
	}
	blk_vol_put(v);
	blk_vol_put(base);
	g_free(buf);
	g_free(may);
}

/* Resizes that fail somewhere: the disk reads as before at once, and, opened anew, has one of the two sizes. */
static void failing_resize(const char *options, uint64_t from, uint64_t to)
{
	uint64_t keep = MIN(from, to), s = (uint64_t)g_test_rand_int() * 2654435761u | 1;
	uint8_t *model = g_malloc0(from), *now = g_malloc(keep);
	unsigned failed = 0;

	for (int k = 0; k < 60; k++) {
		struct blk_vol *v = vdi_new(from, options, NULL, 0);
		struct fmt_image *i = vdi_open(v, NULL);
		struct vdi_found f;
		struct fmt_info info;
		int r;

		memset(model, 0, from);
		for (int n = 0; n < 100; n++) {
			uint64_t at = rig_rnd(&s) % (from / 512 - 8) * 512;

			memset(model + at, 1 + n, 4096);
			g_assert_cmpint(fmt_pwrite(i, model + at, 4096, at, NULL), ==, 0);
		}
		g_assert_cmpint(fmt_flush(i, NULL), ==, 0);
		fake_vol_fail(v, 60000u << k % 4, -EIO);
		r = fmt_resize(i, to, NULL);
		fake_vol_fail(v, 0, 0);
		failed += r < 0;
		if (r < 0 && to < from) { /* what was to go may be gone */
			g_assert_cmpint(fmt_pread(i, now, keep, 0, NULL), ==, 0);
			g_assert_cmpmem(now, keep, model, keep);
		} else if (r < 0) {
			fmt_get_info(i, &info);
			g_assert_cmpuint(info.bytes, ==, from);
		}
		g_assert_cmpint(fmt_pread(i, now, keep, 0, NULL), ==, 0);
		g_assert_cmpmem(now, keep, model, keep);
		fmt_close(i);
		g_assert_cmpint(vdi_check_raw(v, 0, &f), ==, 0);
		g_assert_cmpint(f.corrupt, ==, 0);
		i = vdi_open(v, NULL);
		fmt_get_info(i, &info);
		g_assert_true(info.bytes == from || info.bytes == to);
		g_assert_cmpint(fmt_pread(i, now, keep, 0, NULL), ==, 0);
		g_assert_cmpmem(now, keep, model, keep);
		g_assert_cmpint(fmt_resize(i, to, NULL), ==, 0);
		g_assert_cmpint(fmt_pread(i, now, keep, 0, NULL), ==, 0);
		g_assert_cmpmem(now, keep, model, keep);
		fmt_close(i);
		blk_vol_put(v);
	}
	g_test_message("%u failed", failed);
	g_assert_cmpuint(failed, >, 5); /* three times as many are to be expected */
	g_free(model);
	g_free(now);
}
static void failing_grow(void) { failing_resize("block-size=4K", 1 << 20, UINT64_C(2) << 30); }
static void failing_static(void) { failing_resize("block-size=4K,static=on", 1 << 20, 3 << 20); }
static void failing_shrink(void) { failing_resize("block-size=4K", 2 << 20, 1 << 20); }

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_data_func("/vdi/faults/4k", "block-size=4K", faults);
	g_test_add_data_func("/vdi/faults/64k", "block-size=64K", faults);
	g_test_add_data_func("/vdi/faults/static", "block-size=16K,static=on", faults);
	g_test_add_func("/vdi/faults/grow", failing_grow);
	g_test_add_func("/vdi/faults/grow-static", failing_static);
	g_test_add_func("/vdi/faults/shrink", failing_shrink);
	return g_test_run();
}
