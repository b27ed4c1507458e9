/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Crashes of images whose grain tables are not there yet (other programs leave them out), with small tables, so that new ones
 * come all the time, with and without the redundant copy, over a parent. After the crash the image must open, be free of
 * damage, hold what was flushed; and repairing must change nothing that is read.
 */
#include "vmdk-rig.h"

#define DISK (4u << 20)
#define CELL 512u
#define NCELLS (DISK / CELL)
#define OPS 200
#define MAX_VALUES 40

struct op {
	unsigned c, n;
	uint8_t x;
	uint16_t op;
	uint64_t submitted, completed;
};
static struct op ops[OPS];
static unsigned nops, states = 200;
static uint64_t seed;

static uint8_t below(unsigned c, int parent)
{
	return parent ? (uint8_t)(100 + c % 50) : 0;
}

static void allowed(uint64_t time, uint8_t (*v)[MAX_VALUES], uint8_t *n, int parent)
{
	uint64_t floor = 0;

	for (unsigned k = 0; k < nops; k++)
		if (ops[k].op == VH_FLUSH && ops[k].completed && ops[k].completed <= time && ops[k].submitted > floor)
			floor = ops[k].submitted;
	for (unsigned c = 0; c < NCELLS; c++) {
		n[c] = 1;
		v[c][0] = below(c, parent);
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

		memset(o, 0, sizeof(*o));
		o->op = kind < 55 ? VH_WRITE : kind < 65 ? VH_ZERO : kind < 80 ? VH_DISCARD : VH_FLUSH;
		if (o->op != VH_FLUSH) {
			do {
				o->n = 1 + (unsigned)(rig_rnd(s) % (rig_rnd(s) % 3 ? 20 : 200));
				o->c = (unsigned)(rig_rnd(s) % (NCELLS - o->n));
				if (rig_rnd(s) % 3 == 0) {
					o->c &= ~15u;
					o->n = 16;
				}
				busy = 0;
				for (unsigned k = nops - pending; k < nops; k++)
					busy |= ops[k].op != VH_FLUSH && ops[k].c < o->c + o->n && o->c < ops[k].c + ops[k].n;
			} while (busy);
		}
		o->x = o->op == VH_WRITE ? (uint8_t)(1 + rig_rnd(s) % 99) : 0;
		if (o->op == VH_WRITE)
			memset(buf + o->c * CELL, o->x, o->n * CELL);
		o->submitted = fake_vol_time(v);
		rig_start(&a[pending++], rq, o->op, o->op == VH_ZERO ? VH_REQ_MAY_UNMAP : 0,
			  o->op == VH_WRITE ? buf + o->c * CELL : NULL, (uint64_t)o->n * CELL, (uint64_t)o->c * CELL);
		if (pending < 3 && rig_rnd(s) % 2 && nops + 1 < OPS)
			continue;
		for (unsigned k = 0; k < pending; k++)
			g_assert_cmpint(rig_wait(&a[k]), ==, 0);
		for (unsigned k = 0; k < pending; k++)
			ops[nops - k].completed = fake_vol_time(v);
		pending = 0;
	}
	g_free(buf);
}

static void reopen(struct blk_vol *v, uint64_t time, uint64_t cs, uint8_t (*val)[MAX_VALUES], uint8_t *n)
{
	struct blk_vol *w = vmdk_vol("crashed");
	uint8_t *data, *disk = g_malloc(DISK), *again = g_malloc(DISK);
	struct vmdk_found f;
	struct fmt_image *i;
	uint64_t bytes;
	ERR_AUTO(e);

	fake_vol_crash(v, time, cs, &data, &bytes);
	fake_vol_set(w, data, bytes);
	g_assert_cmpint(vmdk_check_raw(w, 0, &f), ==, 0);
	if (f.corrupt)
		g_error("seed %" G_GUINT64_FORMAT " time %" G_GUINT64_FORMAT " subset %" G_GUINT64_FORMAT ": %s", seed, time, cs, f.last);
	i = vmdk_open_with(w, 1, NULL, &e);
	if (!i)
		g_error("open: %s", e.cause);
	g_assert_cmpint(fmt_pread(i, disk, DISK, 0, NULL), ==, 0);
	fmt_close(i);
	for (unsigned c = 0; c < NCELLS; c++) /* sectors are whole */
		if (!memchr(val[c], disk[c * CELL], n[c]) || memcmp(disk + c * CELL, disk + c * CELL + 1, CELL - 1))
			g_error("seed %" G_GUINT64_FORMAT " time %" G_GUINT64_FORMAT " subset %" G_GUINT64_FORMAT
				": sector %u reads %u, may be one of %u values: %u %u", seed, time, cs, c, disk[c * CELL], n[c],
				val[c][0], val[c][1]);
	if (cs % 4 == 0) { /* work goes on, and brings the copies in step; or a repair does */
		if (cs % 8) {
			g_assert_cmpint(vmdk_check_raw(w, VH_CHECK_LEAK | VH_CHECK_CORRUPT, &f), ==, 0);
		} else {
			i = vmdk_open(w);
			memset(again, 222, 70000);
			g_assert_cmpint(fmt_pwrite(i, again, 70000, 300000, NULL), ==, 0);
			memset(disk + 300000, 222, 70000);
			fmt_close(i);
		}
		i = vmdk_open(w);
		g_assert_cmpint(fmt_pread(i, again, DISK, 0, NULL), ==, 0);
		fmt_close(i);
		g_assert_true(!memcmp(again, disk, DISK));
		g_assert_cmpint(vmdk_check_raw(w, 0, &f), ==, 0);
		g_assert_cmpint(f.corrupt, ==, 0);
	}
	blk_vol_put(w);
	g_free(disk);
	g_free(again);
	g_free(data);
}

static void crash(gconstpointer how)
{
	unsigned bits = GPOINTER_TO_UINT(how), done = 0, rounds = 0;
	uint8_t (*val)[MAX_VALUES] = g_malloc(NCELLS * MAX_VALUES), *n = g_malloc(NCELLS);
	int parent = !!(bits & 4);
	struct blk_vol *base = NULL;
	struct fmt_image *i;

	if (parent) {
		uint8_t *b = g_malloc(DISK);

		base = vmdk_small(DISK / 512, 0, 0, 0, NULL, 0xffffffff);
		put_text(base, 512 + strlen("# Disk DescriptorFile\nversion=1\n"), "CID=00000007");
		i = vmdk_open(base);
		for (unsigned c = 0; c < NCELLS; c++)
			memset(b + c * CELL, below(c, 1), CELL);
		g_assert_cmpint(fmt_pwrite(i, b, DISK, 0, NULL), ==, 0);
		fmt_close(i);
		put_text(base, 512 + strlen("# Disk DescriptorFile\nversion=1\n"), "CID=00000007"); /* as overlays know it */
		vmdk_name("parent.vmdk", base);
		g_free(b);
	}
	while (done < states) {
		struct blk_vol *v = vmdk_small(DISK / 512, bits & 1, !!(bits & 2), 1, parent ? "parent.vmdk" : NULL, parent ? 7 : 0xffffffff);
		struct rig_queue rq;
		uint64_t s, end;

		fake_vol_sync(v, 0);
		seed = (uint64_t)g_test_rand_int() | 1;
		s = seed * 0x9e3779b97f4a7c15u | 1;
		fake_vol_record(v);
		i = vmdk_open(v);
		rig_queue_open(&rq, i, 8);
		load(v, &rq, &s);
		rig_queue_close(&rq);
		fmt_close(i);
		end = fake_vol_time(v);
		for (unsigned k = 0; k < 100 && done < states; k++, done++) {
			uint64_t time = k < 20 ? end * k / 20 : 1 + rig_rnd(&s) % end;

			allowed(time, val, n, parent);
			reopen(v, time, rig_rnd(&s) % 1000000, val, n);
		}
		blk_vol_put(v);
		rounds++;
	}
	g_test_message("%u crashes of %u runs", done, rounds);
	if (base)
		blk_vol_put(base);
	vmdk_forget();
	g_free(val);
	g_free(n);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	if (argc > 1)
		states = (unsigned)atoi(argv[1]);
	g_test_add_data_func("/vmdk/crash/thin", GUINT_TO_POINTER(0), crash);
	g_test_add_data_func("/vmdk/crash/thin-redundant", GUINT_TO_POINTER(1), crash);
	g_test_add_data_func("/vmdk/crash/thin-redundant-zeroed-parent", GUINT_TO_POINTER(7), crash);
	g_test_add_data_func("/vmdk/crash/thin-redundant-parent", GUINT_TO_POINTER(5), crash);
	return g_test_run();
}
