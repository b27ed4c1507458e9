/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Crashes: a load of writes, zeroes, discards and flushes on a toy image over a recording volume; then, for points in time
 * and random subsets of what no flush had covered, the volume as a crash may leave it is opened again. It must open, its
 * check must be clean, and every byte must be one that was there at the last flush that ended, or was written since.
 */
#include "rig.h"

#define DISK (1u << 20)
#define CELL 512u
#define NCELLS (DISK / CELL)
#define OPS 260
#define MAX_VALUES 24

struct op {
	unsigned c, n;
	uint8_t x;
	uint16_t op;
	uint64_t submitted, completed;
};
static struct op ops[OPS];
static unsigned nops;
static uint64_t seed;

/* What the backing image holds: never what a lost cluster would read as, so that a mapping without its data shows. */
static uint8_t below(unsigned c)
{
	return (uint8_t)(100 + c % 50);
}

/* Which values a cell may hold after a crash at `time`. */
static void allowed(uint64_t time, uint8_t (*v)[MAX_VALUES], uint8_t *n)
{
	uint64_t floor = 0;

	for (unsigned k = 0; k < nops; k++)
		if ((ops[k].op == VH_FLUSH) && ops[k].completed && ops[k].completed <= time && ops[k].submitted > floor)
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

static void load(struct blk_vol *v, struct rig_queue *rq, uint64_t *s)
{
	uint8_t *buf = g_malloc(DISK);
	struct rig_async a[3];
	unsigned pending = 0;

	for (nops = 0; nops < OPS; nops++) {
		struct op *o = &ops[nops];
		unsigned kind = (unsigned)(rig_rnd(s) % 100), busy;

		/* Up to three at once, which never overlap: who wins is not the question here. */
		memset(o, 0, sizeof(*o));
		o->op = kind < 55 ? VH_WRITE : kind < 65 ? VH_ZERO : kind < 80 ? VH_DISCARD : VH_FLUSH;
		if (o->op != VH_FLUSH) {
			do {
				o->n = 1 + (unsigned)(rig_rnd(s) % (rig_rnd(s) % 3 ? 20 : 300));
				o->c = (unsigned)(rig_rnd(s) % (NCELLS - o->n));
				if (rig_rnd(s) % 3 == 0) {
					o->c &= ~127u;
					o->n = 128;
				}
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
		if (pending < 3 && rig_rnd(s) % 2 && nops + 1 < OPS)
			continue;
		for (unsigned k = 0; k < pending; k++)
			g_assert_cmpint(rig_wait(&a[k]), ==, 0);
		/* All of them ended by now; that is late, and so demands less of flushes, but not of what they cover. */
		for (unsigned k = 0; k < pending; k++)
			ops[nops - k].completed = fake_vol_time(v);
		pending = 0;
	}
	g_free(buf);
}

static void reopen(struct blk_vol *v, uint64_t time, uint64_t cs, uint8_t (*val)[MAX_VALUES], uint8_t *n)
{
	struct blk_vol *w = fake_vol_new("crashed", 0, VH_VOL_GROW | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_ZERO_ON_GROW);
	uint8_t *data, *disk = g_malloc(DISK);
	uint64_t bytes;
	struct fmt_image *i;

	fake_vol_sync(w, 1);
	fake_vol_crash(v, time, cs, &data, &bytes);
	fake_vol_set(w, data, bytes);
	i = rig_open(w, "toy-format", 0, FMT_REPORT);
	g_assert_cmpint(rig_check(i), ==, 0);
	g_assert_cmpint(fmt_pread(i, disk, DISK, 0, NULL), ==, 0);
	for (unsigned c = 0; c < NCELLS; c++)
		for (unsigned b = 0; b < CELL; b++)
			if (!memchr(val[c], disk[c * CELL + b], n[c]))
				g_error("seed %" G_GUINT64_FORMAT " time %" G_GUINT64_FORMAT " subset %" G_GUINT64_FORMAT
					": byte %u reads %u, may be one of %u values: %u %u", seed, time, cs, c * CELL + b,
					disk[c * CELL + b], n[c], val[c][0], val[c][1]);
	fmt_close(i);
	blk_vol_put(w);
	g_free(disk);
	g_free(data);
}

static unsigned states = 600;

static void crash(void)
{
	struct blk_vol *v = fake_vol_new("toy", 0, VH_VOL_GROW | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_ZERO_ON_GROW);
	uint8_t (*val)[MAX_VALUES] = g_malloc(NCELLS * MAX_VALUES), *n = g_malloc(NCELLS);
	struct blk_vol *base = fake_vol_new("base", DISK, 0);
	unsigned done = 0, round = 0;

	rig_register("base", base);
	for (unsigned c = 0; c < NCELLS; c++)
		memset(fake_vol_data(base) + c * CELL, below(c), CELL);

	while (done < states) {
		struct rig_queue rq;
		struct fmt_image *i;
		uint64_t s, end;

		seed = (uint64_t)g_test_rand_int() | 1;
		s = seed * 0x9e3779b97f4a7c15u | 1;
		rig_create(v, "toy-format", DISK, "base", "raw", DISK);
		fake_vol_record(v);
		i = rig_open(v, "toy-format", 0, FMT_REPORT);
		rig_queue_open(&rq, i, 8);
		load(v, &rq, &s);
		rig_queue_close(&rq);
		fmt_close(i);
		end = fake_vol_time(v);
		for (unsigned k = 0; k < 200 && done < states; k++, done++) {
			uint64_t time = k < 20 ? end * k / 20 : 1 + rig_rnd(&s) % end;

			allowed(time, val, n);
			reopen(v, time, rig_rnd(&s) % 1000000, val, n);
		}
		blk_vol_put(v);
		v = fake_vol_new("toy", 0, VH_VOL_GROW | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_ZERO_ON_GROW);
		round++;
	}
	g_test_message("%u crashes of %u runs", done, round);
	blk_vol_put(v);
	blk_vol_put(base);
	rig_forget();
	g_free(val);
	g_free(n);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	if (argc > 1)
		states = (unsigned)atoi(argv[1]);
	g_test_add_func("/fmt/crash/toy", crash);
	return g_test_run();
}
