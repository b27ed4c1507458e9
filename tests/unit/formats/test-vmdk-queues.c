/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Several queues at once on one image, whose requests meet within grains and tables: every byte read is what was written, and
 * the image is free of faults afterwards. With failing volumes, requests may fail, but nothing else may break.
 */
#include "vmdk-rig.h"

#define DISK (4u << 20)
#define CELL 1024u
#define NCELLS (DISK / CELL)
#define QUEUES 4
#define FLIGHT 12

static unsigned rounds = 250;
static uint8_t model[DISK], known[NCELLS]; /* known 0: a request on it failed */

struct flight {
	struct rig_async a;
	unsigned c, n;
	uint16_t op;
	uint8_t x, *buf;
};

static void settle(struct flight *f)
{
	int r = rig_wait(&f->a);

	for (unsigned c = f->c; c < f->c + f->n; c++) {
		uint8_t *m = model + c * CELL;

		if (f->op == VH_READ && !r && known[c] && memcmp(f->buf + (c - f->c) * CELL, m, CELL))
			g_error("cell %u reads %u, not %u", c, f->buf[(c - f->c) * CELL], m[0]);
		if (f->op == VH_WRITE || f->op == VH_ZERO) {
			memset(m, f->x, CELL);
			known[c] = r == 0;
		} else if (f->op == VH_DISCARD) {
			known[c] = 0; /* old bytes or zeros */
		}
	}
	g_free(f->buf);
	f->buf = NULL;
}

static void load(gconstpointer how)
{
	unsigned bits = GPOINTER_TO_UINT(how);
	struct blk_vol *v = vmdk_small(DISK / 512, bits & 1, !!(bits & 2), !!(bits & 4), NULL, 0xffffffff);
	uint64_t s = (uint64_t)g_test_rand_int() | 1;
	struct fmt_image *i = vmdk_open(v);
	struct rig_queue q[QUEUES];
	static struct flight f[FLIGHT];
	g_autofree uint8_t *all = g_malloc(DISK);
	struct vmdk_found found;

	memset(model, 0, sizeof(model));
	memset(known, 1, sizeof(known));
	fake_vol_sync(v, 0);
	for (unsigned k = 0; k < QUEUES; k++)
		rig_queue_open(&q[k], i, 8);
	for (unsigned r = 0; r < rounds; r++) {
		unsigned n = 0;

		if (bits & 8)
			fake_vol_fail(v, r % 3 ? 0 : 60000, -ENOSPC);
		for (; n < FLIGHT; n++) {
			unsigned kind = (unsigned)(rig_rnd(&s) % 100), busy;
			struct flight *x = &f[n];

			x->op = kind < 35 ? VH_READ : kind < 75 ? VH_WRITE : kind < 83 ? VH_ZERO : kind < 93 ? VH_DISCARD : VH_FLUSH;
			x->c = x->n = 0;
			if (x->op != VH_FLUSH) {
				unsigned tries = 0;

				do { /* close together, so that they meet; never over each other, save reads over reads */
					x->n = 1 + (unsigned)(rig_rnd(&s) % (rig_rnd(&s) % 5 ? 6 : 140));
					x->c = (unsigned)(rig_rnd(&s) % (rig_rnd(&s) % 3 ? 256 : NCELLS - x->n));
					busy = 0;
					for (unsigned k = 0; k < n; k++)
						busy |= f[k].c < x->c + x->n && x->c < f[k].c + f[k].n && (x->op != VH_READ || f[k].op != VH_READ);
				} while (busy && tries++ < 20);
				if (busy)
					break;
			}
			x->x = x->op == VH_WRITE ? (uint8_t)(1 + rig_rnd(&s) % 255) : 0;
			x->buf = x->op == VH_READ || x->op == VH_WRITE ? g_malloc(x->n * CELL) : NULL;
			if (x->op == VH_WRITE)
				memset(x->buf, x->x, x->n * CELL);
			rig_start(&x->a, &q[rig_rnd(&s) % QUEUES], x->op, x->op == VH_ZERO ? VH_REQ_MAY_UNMAP : 0, x->buf,
				  (uint64_t)x->n * CELL, (uint64_t)x->c * CELL);
		}
		while (n)
			settle(&f[--n]);
		fake_vol_fail(v, 0, 0);
	}
	for (unsigned k = 0; k < QUEUES; k++)
		rig_queue_close(&q[k]);
	g_assert_cmpint(fmt_flush(i, NULL), ==, 0); /* not faulted, and all can be written now */
	for (int pass = 0; pass < 2; pass++) {
		g_assert_cmpint(fmt_pread(i, all, DISK, 0, NULL), ==, 0);
		for (unsigned c = 0; c < NCELLS; c++)
			if (known[c] && memcmp(all + c * CELL, model + c * CELL, CELL))
				g_error("cell %u is %u in the end, not %u", c, all[c * CELL], model[c * CELL]);
		fmt_close(i);
		fake_vol_sync(v, 1);
		if (!pass)
			i = vmdk_open(v);
	}
	g_assert_cmpint(vmdk_check_raw(v, 0, &found), ==, 0);
	if (found.corrupt || (found.leaks && !(bits & 8)))
		g_error("%d faults, %d leaks: %s", found.corrupt, found.leaks, found.last);
	blk_vol_put(v);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	if (argc > 1)
		rounds = (unsigned)atoi(argv[1]);
	for (unsigned k = 0; k < 16; k++) {
		g_autofree char *name = g_strdup_printf("/vmdk/queues%s%s%s%s", k & 1 ? "/redundant" : "", k & 2 ? "/zeroed" : "",
							k & 4 ? "/thin" : "", k & 8 ? "/failing" : "");

		g_test_add_data_func(name, GUINT_TO_POINTER(k), load);
	}
	return g_test_run();
}
