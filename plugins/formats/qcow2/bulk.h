/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Everything that an image refers to, walked in bulk: each L2 table once, in the order of the file, however many L1
 * tables share it, past the caches. For snapshots, check and repair, [main] only, after q2_sync(). Memory is bounded: what must be
 * known of every cluster is worked out for a window of clusters at a time.
 */
#ifndef QCOW2_BULK_H
#define QCOW2_BULK_H

#include "qcow2.h"

/* ---- L2 tables ---- */

struct q2_l2 { uint64_t off; uint32_t refs, seen; }; /* refs: L1 entries that name it; seen: Q2_SEEN_* of active ones, 0: none */
struct q2_l2s { struct q2_l2 *v; uint64_t n, cap, sorted; };
/* L1 entries that name no table, or one where none can be, are left out. The list is sorted and joined by q2_l2s_sort(). */
int q2_l2s_add(struct q2 *q, struct q2_l2s *s, const uint64_t *l1, uint64_t n, int active);
void q2_l2s_sort(struct q2_l2s *s);
void q2_l2s_free(struct q2_l2s *s);

/* ---- references to clusters of a window ---- */

#define Q2_WINDOW (UINT64_C(24) << 20) /* clusters; two bytes each */
#define Q2_SEEN_COPIED 0x8000u /* an active entry names it, with COPIED */
#define Q2_SEEN_SHARED 0x4000u /* ... and without */
struct q2_counts {
	uint64_t lo, n;   /* the clusters [lo, lo+n) */
	uint16_t *v;
	uint64_t room;    /* of v */
	struct q2_many { uint64_t c, n; } *many; /* those that do not fit: a hash, c+1, 0 is free */
	uint64_t nmany, many_cap;
	int no_memory;
};
int q2_counts_init(struct q2_counts *c, uint64_t lo, uint64_t n); /* again for another window: the memory is kept */
void q2_counts_free(struct q2_counts *c);
void q2_count_add(struct q2_counts *c, uint64_t cluster, uint64_t refs, unsigned seen);
void q2_count_range(struct q2_counts *c, uint32_t bits, uint64_t off, uint64_t len, uint64_t refs);
static inline uint64_t q2_count_many(const struct q2_counts *c, uint64_t i);
#define Q2_COUNT_BIG 0x3fffu
/* References of cluster lo+i. */
static inline uint64_t q2_count_of(const struct q2_counts *c, uint64_t i)
{
	uint64_t n = c->v[i] & Q2_COUNT_BIG;

	return n < Q2_COUNT_BIG ? n : q2_count_many(c, i);
}
uint64_t q2_count_lookup(const struct q2_counts *c, uint64_t cluster);
static inline uint64_t q2_count_many(const struct q2_counts *c, uint64_t i) { return q2_count_lookup(c, c->lo + i); }

/* ---- the walk ---- */

enum q2_flaw { /* of an entry of an L2 table */
	Q2_FLAW_RESERVED,     /* reserved bits */
	Q2_FLAW_UNALIGNED,    /* not counted */
	Q2_FLAW_ZERO_UNALIGNED, /* the same, but it reads as zeros anyway */
	Q2_FLAW_OUTSIDE,      /* past the end of the file; not counted */
	Q2_FLAW_COPIED,       /* compressed and COPIED */
	Q2_FLAW_COMPRESSED,   /* compressed, where data is in another file, or with a bitmap; not counted */
	Q2_FLAW_BITMAP,       /* subclusters that are allocated and zeros, or allocated nowhere */
	Q2_FLAW_TABLE,        /* the L2 table itself lies outside the file */
};

struct q2_walk {
	struct q2 *q;
	const struct q2_l2s *l2s;
	struct q2_counts *counts; /* NULL: nothing is counted */
	int clear_copied;         /* COPIED is cleared in all that the tables say, and they are written back */
	int with_tables;          /* the tables themselves are counted as well */
	/* One flaw; index of the entry in the table at t->off; `entry` may be changed: then 1 is returned, and it is written. NULL:
	 * the walk ends with -EUCLEAN. */
	int (*flaw)(void *ctx, enum q2_flaw what, const struct q2_l2 *t, uint32_t index, uint8_t *entry);
	/* Each entry instead of counting; returns 1 when it changed it. */
	int (*each)(void *ctx, const struct q2_l2 *t, uint32_t index, uint8_t *entry);
	void *ctx;
	struct vh_job *job;
	uint64_t max;  /* out: the highest cluster that is referred to, when counting; the largest of several walks */
};
int q2_walk(struct q2_walk *w);

/* ---- counts in the file ---- */

/* Adds (sign 1) or takes away (-1) what was counted to the counts in the file, block by block. Blocks must exist where something was
 * counted: else -EUCLEAN; likewise when a count would fall below 0. -ERANGE: past the width. dry: only looks. */
int q2_counts_apply(struct q2 *q, const struct q2_counts *c, int sign, int dry);
/* What memory knows of counts is forgotten after the blocks in the file were changed. lowered: something may be free now. */
void q2_ref_changed(struct q2 *q, int lowered);
void q2_l2_forget(struct q2 *q); /* the same for cached L2 tables of the active L1 */

/* Counts as the file has them, for looking up; blocks are read as they are needed. */
struct q2_refs { struct q2 *q; uint8_t **block; uint64_t n, last, held; uint8_t *last_block; };
int q2_refs_init(struct q2_refs *r, struct q2 *q);
void q2_refs_free(struct q2_refs *r);
int q2_refs_get(struct q2_refs *r, uint64_t cluster, uint64_t *count);

/* Sets COPIED in the active L1 and the L2 tables that it names exactly where the count is 1. told: one call for each that is wrong
 * (may be NULL); fix 0: nothing is changed. The L1 entries change in memory, for the next flush. */
int q2_copied(struct q2 *q, int fix, void (*told)(void *ctx, uint64_t off, uint64_t entry, uint64_t count, int is_l1), void *ctx,
	      struct vh_job *job);

#endif
