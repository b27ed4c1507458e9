/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Crashes of vdi images. A load of writes, zeroes, discards and flushes on a differencing image over a recording volume; then,
 * for points in time and random subsets of what no flush had covered, what a crash may leave is opened again: it must open,
 * hold no damage, and every byte must be one that was there at the last flush that ended, or was written since. The same for
 * resizes, whose every point in time must show the old size or the new one, and the data in both.
 */
#include "vdi-rig.h"

#define BLOCK 4096u
#define DISK (5u << 20) /* 1280 entries: two pages of the map */
#define CELL 512u
#define NCELLS (DISK / CELL)
#define OPS 260
#define MAX_VALUES 40

struct op {
	unsigned c, n;
	uint8_t x;
	uint16_t op;
	uint64_t submitted, completed;
};
static struct op ops[OPS];
static unsigned nops, states = 300;
static uint64_t seed;
static struct blk_vol *base;

static uint8_t below(unsigned c)
{
	return (uint8_t)(100 + c % 50);
}

static void allowed(uint64_t time, uint8_t (*v)[MAX_VALUES], uint8_t *n)
{
	uint64_t floor = 0;

	for (unsigned k = 0; k < nops; k++)
		if (ops[k].op == VH_FLUSH && ops[k].completed && ops[k].completed <= time && ops[k].submitted > floor)
			floor = ops[k].submitted;
	for (unsigned c = 0; c < NCELLS; c++) {
		n[c] = 1;
		v[c][0] = below(c);
	}
	for (unsigned k = 0; k < nops; k++) {
		if (ops[k].op == VH_FLUSH || ops[k].submitted > time)
			continue;
		for (unsigned c = ops[k].c; c < ops[k].c + ops[k].n; c++) {
			if (ops[k].completed && ops[k].completed < floor && ops[k].op != VH_DISCARD)
				n[c] = 0;
			g_assert_cmpuint(n[c], <, MAX_VALUES);
			v[c][n[c]++] = ops[k].x;
		}
	}
}

/* The busy part of the disk is small, so that blocks are freed and used again; it lies across the pages of the map. */
static void choose(struct op *o, uint64_t *s)
{
	unsigned lo = NCELLS / 2, hi = NCELLS - NCELLS / 5;

	o->n = 1 + (unsigned)(rig_rnd(s) % (rig_rnd(s) % 3 ? 20 : 500));
	o->c = lo + (unsigned)(rig_rnd(s) % (hi - lo - o->n));
	if (rig_rnd(s) % 2) {
		o->n = (o->n + 7) & ~7u;
		o->c &= ~7u;
	}
}

static void load(struct blk_vol *v, struct rig_queue *rq, uint64_t *s)
{
	uint8_t *buf = g_malloc(DISK);
	struct rig_async a[8];
	unsigned pending = 0;

	for (nops = 0; nops < OPS; nops++) {
		struct op *o = &ops[nops];
		unsigned kind = (unsigned)(rig_rnd(s) % 100), busy;

		memset(o, 0, sizeof(*o));
		o->op = kind < 50 ? VH_WRITE : kind < 62 ? VH_ZERO : kind < 80 ? VH_DISCARD : VH_FLUSH;
		if (o->op != VH_FLUSH) {
			do {
				choose(o, s);
				busy = 0;
				for (unsigned k = nops - pending; k < nops; k++)
					busy |= ops[k].op != VH_FLUSH && ops[k].c < o->c + o->n && o->c < ops[k].c + ops[k].n;
			} while (busy);
		}
		o->x = o->op == VH_WRITE ? (uint8_t)(1 + rig_rnd(s) % 255) : 0;
		if (o->op == VH_WRITE)
			memset(buf + o->c * CELL, o->x, o->n * CELL);
		o->submitted = fake_vol_time(v);
		rig_start(&a[pending++], rq, o->op, o->op == VH_ZERO ? VH_REQ_MAY_UNMAP : 0,
			  o->op == VH_WRITE ? buf + o->c * CELL : NULL, (uint64_t)o->n * CELL, (uint64_t)o->c * CELL);
		if (pending < 8 && rig_rnd(s) % 6 && nops + 1 < OPS)
			continue;
		for (unsigned k = 0; k < pending; k++)
			g_assert_cmpint(rig_wait(&a[k]), ==, 0);
		for (unsigned k = 0; k < pending; k++)
			ops[nops - k].completed = fake_vol_time(v);
		pending = 0;
	}
	g_free(buf);
}

static void no_damage(struct blk_vol *w, uint64_t time)
{
	struct vdi_found f;

	if (vdi_check_raw(w, 0, &f) < 0 || f.corrupt)
		g_error("seed %" G_GUINT64_FORMAT " time %" G_GUINT64_FORMAT ": %s", seed, time, f.last);
}

static struct blk_vol *crashed(struct blk_vol *v, uint64_t time, uint64_t cs)
{
	struct blk_vol *w = fake_vol_new("crashed", 0, VDI_CAPS);
	uint64_t bytes;
	uint8_t *data;

	fake_vol_sync(w, 1);
	fake_vol_crash(v, time, cs, &data, &bytes);
	fake_vol_set(w, data, bytes);
	g_free(data);
	return w;
}

static void reopen(struct blk_vol *v, uint64_t time, uint64_t cs, uint8_t (*val)[MAX_VALUES], uint8_t *n)
{
	struct blk_vol *w = crashed(v, time, cs);
	uint8_t *disk = g_malloc(DISK);
	struct fmt_image *i;

	no_damage(w, time);
	i = vdi_open(w, base);
	g_assert_cmpint(fmt_pread(i, disk, DISK, 0, NULL), ==, 0);
	for (unsigned c = 0; c < NCELLS; c++)
		for (unsigned b = 0; b < CELL; b++)
			if ((b && disk[c * CELL + b] != disk[c * CELL]) || (!b && !memchr(val[c], disk[c * CELL], n[c])))
				g_error("seed %" G_GUINT64_FORMAT " time %" G_GUINT64_FORMAT " subset %" G_GUINT64_FORMAT
					": byte %u reads %u, may be one of %u values: %u %u", seed, time, cs, c * CELL + b,
					disk[c * CELL + b], n[c], val[c][0], val[c][1]);
	fmt_close(i);
	blk_vol_put(w);
	g_free(disk);
}

static void under_load(void)
{
	uint8_t (*val)[MAX_VALUES] = g_malloc(NCELLS * MAX_VALUES), *n = g_malloc(NCELLS);
	unsigned done = 0;

	while (done < states) {
		struct blk_vol *v = vdi_new(DISK, "block-size=4K", base, DISK);
		struct rig_queue rq;
		struct fmt_image *i;
		uint64_t s, end;

		seed = (uint64_t)g_test_rand_int() | 1;
		s = seed * 0x9e3779b97f4a7c15u | 1;
		fake_vol_sync(v, 0);
		fake_vol_record(v);
		i = vdi_open(v, base);
		rig_queue_open(&rq, i, 8);
		load(v, &rq, &s);
		rig_queue_close(&rq);
		fmt_close(i);
		end = fake_vol_time(v);
		for (unsigned k = 0; k < 100 && done < states; k++, done++) {
			uint64_t time = k < 20 ? end * k / 20 : 1 + rig_rnd(&s) % end;

			allowed(time, val, n);
			reopen(v, time, rig_rnd(&s) % 1000000, val, n);
		}
		blk_vol_put(v);
	}
	g_free(val);
	g_free(n);
}

/* Every block in front of both ends must be there, whichever size the image has. */
static void resized(struct blk_vol *v, uint64_t time, uint64_t cs, const uint8_t *disk, uint64_t from, uint64_t to)
{
	struct blk_vol *w = crashed(v, time, cs);
	uint64_t keep = MIN(from, to), bytes;
	uint8_t *now = g_malloc(keep);
	struct fmt_info info;
	struct fmt_image *i;

	no_damage(w, time);
	i = vdi_open(w, NULL);
	fmt_get_info(i, &info);
	bytes = info.bytes;
	if (bytes != from && bytes != to)
		g_error("seed %" G_GUINT64_FORMAT " time %" G_GUINT64_FORMAT ": %" G_GUINT64_FORMAT " bytes", seed, time, bytes);
	g_assert_cmpint(fmt_pread(i, now, keep, 0, NULL), ==, 0);
	for (uint64_t k = 0; k < keep; k++)
		if (now[k] != disk[k])
			g_error("seed %" G_GUINT64_FORMAT " time %" G_GUINT64_FORMAT " subset %" G_GUINT64_FORMAT ": byte %"
				G_GUINT64_FORMAT " reads %u, was %u", seed, time, cs, k, now[k], disk[k]);
	if (bytes == to && to > from) {
		g_assert_cmpint(fmt_pread(i, now, MIN(keep, to - from), from, NULL), ==, 0);
		for (uint64_t k = 0; k < MIN(keep, to - from); k++)
			g_assert_cmpuint(now[k], ==, 0);
	}
	/* It can be used, and resized again. */
	g_assert_cmpint(fmt_resize(i, to, NULL), ==, 0);
	g_assert_cmpint(fmt_pwrite(i, disk, keep, 0, NULL), ==, 0);
	fmt_close(i);
	no_damage(w, time);
	blk_vol_put(w);
	g_free(now);
}

static void resizing(const char *options, uint64_t from, uint64_t to, unsigned times)
{
	uint8_t *disk = g_malloc0(from);
	struct fmt_image *i;
	struct blk_vol *v;
	uint64_t s, end;

	seed = (uint64_t)g_test_rand_int() | 1;
	s = seed * 0x9e3779b97f4a7c15u | 1;
	v = vdi_new(from, options, NULL, 0);
	i = vdi_open(v, NULL);
	for (int k = 0; k < 200; k++) { /* in no order, so that everything has to move */
		uint64_t at = rig_rnd(&s) % (from / 512 - 8) * 512;

		memset(disk + at, 1 + k, 4096);
		g_assert_cmpint(fmt_pwrite(i, disk + at, 4096, at, NULL), ==, 0);
	}
	fmt_close(i);
	fake_vol_record(v);
	i = vdi_open(v, NULL);
	g_assert_cmpint(fmt_resize(i, to, NULL), ==, 0);
	end = fake_vol_time(v);
	for (unsigned k = 0; k < times; k++)
		resized(v, k < end && end <= times ? k : 1 + rig_rnd(&s) % end, rig_rnd(&s) % 1000000, disk, from, to);
	fmt_close(i);
	blk_vol_put(v);
	g_free(disk);
}

static void grow_in_place(void) { resizing("block-size=4K", 2 << 20, (6 << 20) + 512, states / 10); }
static void grow_and_move(void) { resizing("block-size=4K", (1 << 20) + 512, UINT64_C(4) << 30, states / 10); }
static void grow_static(void) { resizing("block-size=4K,static=on", 1 << 20, 3 << 20, states / 10); }
static void shrink(void) { resizing("block-size=4K", 4 << 20, (1 << 20) + 1536, states / 10); }

int main(int argc, char **argv)
{
	int r;

	g_test_init(&argc, &argv, NULL);
	if (argc > 1)
		states = (unsigned)atoi(argv[1]);
	base = vdi_new(DISK, "block-size=16K", NULL, 0);
	{
		struct fmt_image *i = vdi_open(base, NULL);
		uint8_t *b = g_malloc(DISK);

		for (unsigned c = 0; c < NCELLS; c++)
			memset(b + c * CELL, below(c), CELL);
		g_assert_cmpint(fmt_pwrite(i, b, DISK, 0, NULL), ==, 0);
		fmt_close(i);
		g_free(b);
	}
	g_test_add_func("/vdi/crash/load", under_load);
	g_test_add_func("/vdi/crash/grow-in-place", grow_in_place);
	g_test_add_func("/vdi/crash/grow-and-move", grow_and_move);
	g_test_add_func("/vdi/crash/grow-static", grow_static);
	g_test_add_func("/vdi/crash/shrink", shrink);
	r = g_test_run();
	blk_vol_put(base);
	return r;
}
