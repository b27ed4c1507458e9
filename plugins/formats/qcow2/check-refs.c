/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Gathers what an image refers to beside its L2 tables, and counts all of it. */
#include <stdio.h>
#include "check.h"
#include "snapshot.h"

struct odd { void (*fn)(void *ctx, uint64_t off, const char *text); void *ctx; };

static int range_add(struct q2_all *a, uint64_t off, uint64_t len, const char *what, int shared)
{
	struct q2_range *v;

	if (!len)
		return 0;
	if (a->nranges == a->ranges_cap) {
		uint64_t cap = a->ranges_cap ? 2 * a->ranges_cap : 64;

		v = realloc(a->range, cap * sizeof(*v));
		if (!v)
			return -ENOMEM;
		a->range = v;
		a->ranges_cap = cap;
	}
	a->range[a->nranges++] = (struct q2_range){off, len, what, shared};
	return 0;
}

static void tell(const struct odd *o, uint64_t off, const char *text)
{
	if (o->fn)
		o->fn(o->ctx, off, text);
}

static void l1_entries(struct q2_all *a, const struct odd *o, uint64_t off, const uint64_t *l1, uint64_t n, const char *of)
{
	char text[128];

	for (uint64_t k = 0; k < n; k++) {
		if (!l1[k])
			continue;
		if (l1[k] & Q2_L1_RESERVED) {
			snprintf(text, sizeof(text), "L1 entry %llu%s has reserved bits set: 0x%llx", (unsigned long long)k, of,
				 (unsigned long long)l1[k]);
			tell(o, off + 8 * k, text);
		}
		if ((l1[k] & Q2_OFFSET_MASK) & (a->q->cluster - 1)) {
			snprintf(text, sizeof(text), "L1 entry %llu%s names a table that is not aligned to a cluster: 0x%llx",
				 (unsigned long long)k, of, (unsigned long long)l1[k]);
			tell(o, off + 8 * k, text);
		}
	}
}

static int snapshots(struct q2_all *a, const struct odd *o, struct vh_err *e)
{
	struct q2 *q = a->q;
	uint64_t sum = 0;
	int r = range_add(a, q->h.snaps_off, q->h.nsnaps ? q->snaps_bytes : 0, "the snapshot table", 0);

	for (uint32_t k = 0; r >= 0 && k < q->h.nsnaps; k++) {
		const struct q2_snap *s = &q->snaps[k];
		uint64_t *l1, len = (uint64_t)s->l1_size * 8;
		char of[300];

		snprintf(of, sizeof(of), " of snapshot '%.200s'", s->name);
		sum += len <= a->file ? len : 0;
		if (sum > a->file || q2_snap_l1(q, s, &l1, NULL) < 0) { /* in all they cannot be larger than the file */
			char text[360];

			snprintf(text, sizeof(text), "the L1 table%s lies outside the file, or over others", of);
			tell(o, s->l1_off, text);
			a->unknown = 1;
			continue;
		}
		a->short_entries += q->h.version >= 3 && s->extra_len < 16;
		r = range_add(a, s->l1_off, len, "a snapshot's L1 table", 0);
		l1_entries(a, o, s->l1_off, l1, s->l1_size, of);
		if (r >= 0)
			r = q2_l2s_add(q, &a->l2s, l1, s->l1_size, 0);
		free(l1);
	}
	return r;
}

static int bitmap_range(void *ctx, uint64_t off, uint64_t len)
{
	return range_add(ctx, off, len, "a bitmap", 0);
}

/* Tables may be longer than the file: nothing else may be put where they would be. */
static void reaching(struct q2_all *a, const struct odd *o)
{
	struct q2 *q = a->q;
	uint64_t rt = (uint64_t)q->h.rt_clusters << q->h.bits;

	for (uint64_t k = 0; k < a->nranges; k++) {
		const struct q2_range *x = &a->range[k];
		char text[128];

		if (x->off >= a->file)
			continue;
		if (x->off + x->len >= a->file + q->cluster) {
			snprintf(text, sizeof(text), "%s reaches past the end of the file", x->what);
			tell(o, x->off, text);
		}
		if ((x->off + x->len - 1) >> q->h.bits >= a->clusters)
			a->clusters = ((x->off + x->len - 1) >> q->h.bits) + 1;
	}
	if (q->h.rt_off < a->file && (q->h.rt_off + rt) >> q->h.bits > a->clusters)
		a->clusters = (q->h.rt_off + rt) >> q->h.bits;
}

int q2_all_init(struct q2_all *a, struct q2 *q, void (*odd)(void *ctx, uint64_t off, const char *text), void *ctx, struct vh_err *e)
{
	struct odd o = {odd, ctx};
	uint64_t per = UINT64_C(1) << q->rb_bits;
	int r;

	memset(a, 0, sizeof(*a));
	a->q = q;
	a->file = q2_io->bytes(q->vol);
	a->clusters = ((a->file + q->cluster - 1) >> q->h.bits) + 1; /* a compressed cluster may reach past the end by less than one */
	a->window = Q2_WINDOW / per * per;
	if (!a->window)
		a->window = per;
	r = range_add(a, 0, 1, "the header", 0);
	if (r >= 0)
		r = range_add(a, q->h.l1_off, (uint64_t)q->h.l1_size * 8, "the L1 table", 0);
	if (r >= 0 && q->h.crypt_off)
		r = range_add(a, q->h.crypt_off, q->h.crypt_bytes, "the encryption header", 0);
	l1_entries(a, &o, q->h.l1_off, q->l1, q->h.l1_size, "");
	if (r >= 0)
		r = q2_l2s_add(q, &a->l2s, q->l1, q->h.l1_size, 1);
	if (r >= 0 && q->h.nsnaps && !q->snaps) {
		tell(&o, q->h.snaps_off, "the snapshot table is damaged, so what the snapshots use is not known");
		a->unknown = 1;
	}
	if (r >= 0 && !a->unknown)
		r = snapshots(a, &o, e);
	if (a->unknown && !odd) {
		q2_hint(e, "save what can be read by converting it to a new image");
		return q2_fail(e, -EUCLEAN, "what the snapshots refer to is not known");
	}
	if (r >= 0 && q->h.nbitmaps) {
		r = q2_bitmaps_ranges(q, bitmap_range, a);
		if (r == -EUCLEAN) {
			tell(&o, q->h.bitmaps_off, "the bitmaps' directory or tables are damaged");
			r = 0;
		}
	}
	if (r < 0)
		return r == -ENOMEM ? q2_fail(e, r, "no memory for the list of tables") : r == -EUCLEAN ? r : q2_fail(e, r, "cannot read the metadata");
	q2_l2s_sort(&a->l2s);
	reaching(a, &o);
	return 0;
}

void q2_all_free(struct q2_all *a)
{
	q2_l2s_free(&a->l2s);
	q2_counts_free(&a->counts);
	free(a->range);
	a->range = NULL;
}

static void count_range(struct q2_all *a, uint64_t off, uint64_t len)
{
	if (off >= a->file || len > Q2_MAX_OFFSET) /* said by whoever follows it */
		return;
	if (((off + len - 1) >> a->q->h.bits) > a->max)
		a->max = q2_min((off + len - 1) >> a->q->h.bits, a->clusters - 1);
	q2_count_range(&a->counts, a->q->h.bits, off, len, 1);
}

int q2_all_count(struct q2_all *a, uint64_t lo, struct q2_walk *walk, int with_counts)
{
	struct q2 *q = a->q;
	int r = q2_counts_init(&a->counts, lo, q2_min(a->window, a->clusters - lo));

	if (r < 0)
		return r;
	for (uint64_t k = 0; k < a->nranges; k++)
		count_range(a, a->range[k].off, a->range[k].len);
	if (with_counts) {
		count_range(a, q->h.rt_off, (uint64_t)q->h.rt_clusters << q->h.bits);
		for (uint64_t b = 0; b < q->rt_n; b++)
			if (q->rt[b] && !(q->rt[b] & (q->cluster - 1)))
				count_range(a, q->rt[b], q->cluster);
	}
	walk->q = q;
	walk->l2s = &a->l2s;
	walk->counts = &a->counts;
	walk->with_tables = 1;
	walk->max = a->max;
	r = q2_walk(walk);
	if (walk->max > a->max)
		a->max = q2_min(walk->max, a->clusters - 1);
	return r;
}
