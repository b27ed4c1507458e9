/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Check and repair. Every reference is counted and compared with the counts in the file; what is wrong is told one by one. Repair
 * changes entries that contradict themselves, makes counts agree, in place, or all anew where the refcount structure itself is
 * damaged, and then COPIED.
 */
#include <stdarg.h>
#include <stdio.h>
#include "check.h"
#include "refcount.h"
#include "snapshot.h"

#define BATCH (UINT64_C(1) << 20)
#define MAX_WINDOWS 256u

struct check {
	struct q2 *q;
	struct q2_all all;
	uint32_t repair;  /* VH_CHECK_LEAK, VH_CHECK_CORRUPT */
	int quiet;        /* flaws have been told */
	vh_check_fn *fn;
	void *ctx;
	struct vh_job *job;
	uint64_t bad;     /* what is damaged and stays so */
	int rebuild, copied, changed;
	int lost;         /* an entry could not be followed */
};

/* fix: it is mended, which is told as well. */
static void VH_PRINTF(5, 6) say(struct check *c, uint32_t what, int fix, uint64_t off, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (!fix && what == VH_CHECK_CORRUPT)
		c->bad++;
	if (c->fn)
		c->fn(c->ctx, what, off, text);
	if (c->fn && fix)
		c->fn(c->ctx, VH_CHECK_FIXED, off, text);
}
#define tell(c, ...) say(c, VH_CHECK_CORRUPT, 0, __VA_ARGS__)
#define tell_mended(c, ...) say(c, VH_CHECK_CORRUPT, !!((c)->repair & VH_CHECK_CORRUPT), __VA_ARGS__) /* where corruption is mended */

static void odd(void *ctx, uint64_t off, const char *text)
{
	((struct check *)ctx)->lost = 1;
	tell((struct check *)ctx, off, "%s", text);
}

static int fix_entry(struct check *c, uint8_t *p, uint64_t e)
{
	if (!(c->repair & VH_CHECK_CORRUPT))
		return 0;
	q2_put64(p, e);
	c->changed = 1;
	return 1;
}

static int flaw(void *ctx, enum q2_flaw what, const struct q2_l2 *t, uint32_t index, uint8_t *p)
{
	struct check *c = ctx;
	uint64_t at = t->off + (uint64_t)index * c->q->entry, e = p ? q2_be64(p) : 0;
	unsigned long long x = e;

	if (c->quiet)
		return 0;
	c->lost |= what == Q2_FLAW_TABLE || what == Q2_FLAW_UNALIGNED || what == Q2_FLAW_OUTSIDE;
	switch (what) {
	case Q2_FLAW_TABLE:
		tell(c, t->off, "an L2 table lies past the end of the file");
		return 0;
	case Q2_FLAW_RESERVED:
		tell(c, at, "an L2 entry has reserved bits set: 0x%llx", x);
		return 0;
	case Q2_FLAW_UNALIGNED:
		tell(c, at, "an L2 entry names a cluster that is not aligned: 0x%llx", x);
		return 0;
	case Q2_FLAW_ZERO_UNALIGNED:
		tell_mended(c, at, "an L2 entry of zeros names a cluster that is not aligned: 0x%llx", x);
		return fix_entry(c, p, c->q->extended ? 0 : Q2_ZERO); /* as before, it reads as zeros, or as what its bitmap says */
	case Q2_FLAW_OUTSIDE:
		tell(c, at, "an L2 entry refers to what lies past the end of the file: 0x%llx", x);
		return 0;
	case Q2_FLAW_COPIED:
		tell_mended(c, at, "an entry of a compressed cluster is marked as the only owner: 0x%llx", x);
		return fix_entry(c, p, e & ~Q2_COPIED);
	case Q2_FLAW_COMPRESSED:
		tell(c, at, "a compressed cluster where there can be none: 0x%llx", x);
		return 0;
	case Q2_FLAW_BITMAP:
		tell(c, at, "the bitmap of subclusters contradicts itself or its entry: 0x%llx 0x%llx", x,
		     (unsigned long long)q2_be64(p + 8));
		return 0;
	}
	return 0;
}

/* ---- the refcount table ---- */

static int by_value(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static int block_ok(const struct check *c, uint64_t b)
{
	uint64_t off = b < c->q->rt_n ? c->q->rt[b] : 0;

	return off && !(off & (c->q->cluster - 1)) && off < c->all.file;
}

static int table(struct check *c)
{
	struct q2 *q = c->q;
	uint64_t *v = malloc((q->rt_n + 1) * 8), n = 0;

	if (!v)
		return -ENOMEM;
	if (!q->rt_n || !q->h.rt_off || q->h.rt_off & (q->cluster - 1) || q->h.rt_off >= c->all.file) {
		tell_mended(c, q->h.rt_off, "the refcount table lies where nothing can lie");
		c->rebuild = 1;
	}
	for (uint64_t b = 0; b < q->rt_n; b++) {
		uint64_t at = q->h.rt_off + 8 * b, off = q->rt[b];

		if (!off)
			continue;
		if (off & (q->cluster - 1)) {
			tell_mended(c, at, "refcount block %llu is not aligned to a cluster: 0x%llx",
			     (unsigned long long)b, (unsigned long long)off);
			c->rebuild = 1;
		} else if (off >= c->all.file) {
			tell_mended(c, at, "refcount block %llu lies past the end of the file",
			     (unsigned long long)b);
			c->rebuild = 1;
		} else {
			v[n++] = off;
		}
	}
	qsort(v, n, 8, by_value);
	for (uint64_t k = 1; k < n; k++) {
		if (v[k] != v[k - 1])
			continue;
		tell_mended(c, v[k], "two entries of the refcount table name the same block");
		c->rebuild = 1;
	}
	free(v);
	return 0;
}

/* ---- comparing ---- */

/* One cluster that is not as it should be; returns what its count in the file is afterwards. */
static uint64_t differs(struct check *c, uint64_t cluster, uint64_t have, uint64_t want)
{
	uint32_t what = have > want ? VH_CHECK_LEAK : VH_CHECK_CORRUPT;
	int fix = (c->repair & what) && want <= q2_ref_max(c->q);

	if (have > want && c->lost && !(c->repair & VH_CHECK_CORRUPT)) /* perhaps what the damaged entry meant */
		fix = 0;

	say(c, what, fix, cluster << c->q->h.bits,
	     have > want ? "cluster %llu is leaked: its count is %llu, and %llu refer to it"
			 : "cluster %llu: its count is %llu, and %llu refer to it",
	     (unsigned long long)cluster, (unsigned long long)have, (unsigned long long)want);
	return fix ? want : have;
}

/* v: what was counted from `first` on, NULL: nothing; block NULL: there is none. Returns 1 when the block was changed. */
static int compare(struct check *c, uint8_t *block, uint64_t first, uint64_t lo, uint64_t hi, const struct q2_counts *n)
{
	uint32_t order = c->q->h.ref_order;
	int changed = 0;

	for (uint64_t i = lo; i < hi; i++) {
		uint16_t v = n ? n->v[first + i - n->lo] : 0;
		uint64_t have = !block ? 0 : order == 4 ? q2_be16(block + 2 * i) : q2_count(block, order, (uint32_t)i);
		uint64_t want = v & Q2_COUNT_BIG;

		if (want == Q2_COUNT_BIG)
			want = q2_count_of(n, first + i - n->lo);
		if (have != want) {
			uint64_t now = differs(c, first + i, have, want);

			if (!block) {
				c->rebuild = 1; /* a new block in place might be put over what is in use and not counted */
			} else if (now != have) {
				q2_count_set(block, order, (uint32_t)i, now);
				changed = 1;
			}
			if (c->repair)
				have = now;
		}
		if (v & (have == 1 ? Q2_SEEN_SHARED : Q2_SEEN_COPIED))
			c->copied = 1;
	}
	return changed;
}

static int any(const struct q2_counts *n, uint64_t first, uint64_t lo, uint64_t hi)
{
	for (uint64_t i = lo; n && i < hi; i++)
		if (n->v[first + i - n->lo])
			return 1;
	return 0;
}

/* n NULL: nothing was counted in [lo, lo+len). */
static int compare_window(struct check *c, const struct q2_counts *n, uint64_t lo, uint64_t len, uint8_t *buf)
{
	struct q2 *q = c->q;
	uint64_t per = UINT64_C(1) << q->rb_bits, room = BATCH > q->cluster ? BATCH : q->cluster, k;
	int r = 0;

	for (uint64_t b = lo >> q->rb_bits; r >= 0 && b << q->rb_bits < lo + len; b += k) {
		int changed = 0;

		k = 1;
		if (block_ok(c, b)) {
			while ((k + 1) << q->h.bits <= room && (b + k) << q->rb_bits < lo + len && block_ok(c, b + k) &&
			       q->rt[b + k] == q->rt[b] + (k << q->h.bits))
				k++;
			r = q2_read(q, buf, k << q->h.bits, q->rt[b]);
		}
		for (uint64_t j = 0; r >= 0 && j < k; j++) {
			uint64_t first = (b + j) << q->rb_bits, from = first < lo ? lo - first : 0;
			uint64_t to = lo + len < first + per ? lo + len - first : per;

			if (block_ok(c, b))
				changed |= compare(c, buf + (j << q->h.bits), first, from, to, n);
			else if (any(n, first, from, to))
				compare(c, NULL, first, from, to, n);
		}
		if (r >= 0 && changed && !(c->rebuild && c->repair & VH_CHECK_CORRUPT)) {
			r = q2_write(q, buf, k << q->h.bits, q->rt[b]);
			c->changed = 1;
		}
	}
	return r;
}

/* Metadata that something else lies over, though the counts may agree. */
static void overlaps(struct check *c)
{
	struct q2 *q = c->q;
	const struct q2_counts *n = &c->all.counts;

	for (uint64_t k = 0; k < c->all.nranges; k++) {
		const struct q2_range *x = &c->all.range[k];

		for (uint64_t i = x->off >> q->h.bits; i <= (x->off + x->len - 1) >> q->h.bits; i++) {
			if (i < n->lo || i >= n->lo + n->n || q2_count_of(n, i - n->lo) < 2)
				continue;
			tell(c, i << q->h.bits, "something else lies over %s", x->what);
			break;
		}
	}
	for (uint64_t b = 0; b < q->rt_n; b++) {
		uint64_t i = q->rt[b] >> q->h.bits;

		if (!block_ok(c, b) || i < n->lo || i >= n->lo + n->n || q2_count_of(n, i - n->lo) < 2)
			continue;
		tell_mended(c, q->rt[b], "something else lies over refcount block %llu", (unsigned long long)b);
		c->rebuild = 1;
	}
	for (uint64_t i = q->h.rt_off >> q->h.bits; i < (q->h.rt_off >> q->h.bits) + q->h.rt_clusters; i++) {
		if (i < n->lo || i >= n->lo + n->n || q2_count_of(n, i - n->lo) < 2)
			continue;
		tell_mended(c, i << q->h.bits, "something else lies over the refcount table");
		c->rebuild = 1;
	}
}

static int windows(struct check *c, struct vh_err *e)
{
	struct q2_walk w = {.flaw = flaw, .ctx = c, .job = c->job};
	uint8_t *buf = malloc(BATCH > c->q->cluster ? BATCH : c->q->cluster);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t lo = 0; r >= 0 && lo < c->all.clusters; lo += c->all.window) {
		uint64_t len = q2_min(c->all.window, c->all.clusters - lo);

		if (lo && lo > c->all.max) {
			r = compare_window(c, NULL, lo, c->all.clusters - lo, buf);
			break;
		}
		if (lo / c->all.window >= MAX_WINDOWS) {
			free(buf);
			return q2_fail(e, -EFBIG, "clusters are used over more than %llu bytes of the file",
				       (unsigned long long)(lo << c->q->h.bits));
		}
		r = q2_all_count(&c->all, lo, &w, 1);
		c->quiet = 1;
		if (r >= 0) {
			overlaps(c);
			r = compare_window(c, &c->all.counts, lo, len, buf);
		}
		q2_progress(c->job, lo + len, c->all.clusters);
	}
	free(buf);
	return r < 0 ? q2_fail(e, r, r == -ECANCELED ? "cancelled" : r == -ENOMEM ? "no memory for the check" : "cannot read or write the metadata") : 0;
}

static void copied_told(void *ctx, uint64_t off, uint64_t entry, uint64_t count, int is_l1)
{
	struct check *c = ctx;

	tell_mended(c, off, "an %s entry is %smarked as the only owner, and the count is %llu: 0x%llx",
	     is_l1 ? "L1" : "L2", entry & Q2_COPIED ? "" : "not ", (unsigned long long)count, (unsigned long long)entry);
}

/* Written again, an entry has all that it must have. */
static int entries_complete(struct q2 *q, struct vh_err *e)
{
	int r = q2_snaps_write(q, q->snaps, q->h.nsnaps, e);

	for (uint32_t k = 0; r >= 0 && k < q->h.nsnaps; k++)
		if (q->snaps[k].extra_len < 24)
			q->snaps[k].extra_len = 24;
	if (r >= 0) {
		r = q2_sync(q);
		if (r < 0)
			q2_fail(e, r, "cannot write the metadata");
	}
	return r;
}

static int finish(struct check *c, struct vh_err *e)
{
	struct q2 *q = c->q;
	uint64_t incompat = q->h.incompat;
	int r = 0;

	if (c->changed) {
		r = q2_io->flush(q->vol);
		q2_ref_changed(q, 1);
		q2_l2_forget(q);
	}
	if (r >= 0 && !(c->repair & VH_CHECK_CORRUPT)) {
		r = c->copied ? q2_copied(q, 0, copied_told, c, c->job) : 0;
		return r < 0 ? q2_fail(e, r, "cannot read the metadata") : 0;
	}
	if (r >= 0 && c->rebuild)
		r = q2_rebuild(q, q->h.ref_order, c->job, e);
	else if (r < 0)
		q2_fail(e, r, "cannot flush the repaired metadata");
	if (r < 0)
		return r;
	if (c->copied || c->rebuild) {
		r = q2_copied(q, 1, copied_told, c, NULL);
		if (r >= 0)
			r = q2_sync(q);
		if (r < 0)
			return q2_fail(e, r, "cannot write the metadata");
	}
	if (c->all.short_entries) {
		r = entries_complete(q, e);
		if (r < 0)
			return r;
	}
	if (c->bad || !(incompat & (Q2_INCOMPAT_CORRUPT | Q2_INCOMPAT_DIRTY)))
		return 0;
	q->h.incompat &= ~(Q2_INCOMPAT_CORRUPT | Q2_INCOMPAT_DIRTY);
	r = q2_header_update(q, e);
	if (r < 0)
		q->h.incompat = incompat;
	else if (incompat & Q2_INCOMPAT_CORRUPT)
		c->fn ? c->fn(c->ctx, VH_CHECK_FIXED, 0, "the image is not marked as corrupt any more") : (void)0;
	return r;
}

static int run(struct check *c, struct vh_err *e)
{
	int r = q2_all_init(&c->all, c->q, odd, c, e);

	if (r >= 0 && c->all.short_entries)
		tell_mended(c, c->q->h.snaps_off, "%u entries of the snapshot table are incomplete", c->all.short_entries);
	if (r >= 0 && c->all.unknown && c->repair) {
		q2_hint(e, "save what can be read by converting it to a new image");
		r = q2_fail(e, -EUCLEAN, "it cannot be repaired: what the snapshots refer to is not known");
	}
	if (r >= 0)
		r = table(c);
	if (r >= 0)
		r = windows(c, e);
	if (r >= 0)
		r = finish(c, e);
	q2_all_free(&c->all);
	return r;
}

int q2_check(void *img, uint32_t repair, vh_check_fn *fn, void *ctx, struct vh_job *j, struct vh_err *e)
{
	struct q2 *q = img;
	struct check c = {.q = q, .repair = repair, .fn = fn, .ctx = ctx, .job = j};
	int r = q2_services(e);

	if (r < 0)
		return r;
	if (repair && q->read_only)
		return q2_fail(e, -EROFS, "the image is open for reading only");
	if (q->of_snapshot) {
		q2_hint(e, "open the image without naming a snapshot");
		return q2_fail(e, -EOPNOTSUPP, "a snapshot cannot be checked alone");
	}
	if (!q->read_only && !__atomic_load_n(&q->failed, __ATOMIC_ACQUIRE)) {
		r = q2_sync(q);
		if (r < 0)
			return q2_fail(e, r, "cannot write the metadata");
	}
	return run(&c, e);
}

int q2_repair_dirty(struct q2 *q, struct vh_err *e)
{
	struct check c = {.q = q, .repair = VH_CHECK_LEAK | VH_CHECK_CORRUPT};
	int r = run(&c, e);

	if (r < 0)
		return r;
	if (c.bad) {
		q2_hint(e, "check and repair the image, or open it read-only to save what can be read");
		return q2_fail(e, -EUCLEAN, "the image was not closed cleanly, and has damage that cannot be put right by itself");
	}
	return 0;
}
