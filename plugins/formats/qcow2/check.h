/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#ifndef QCOW2_CHECK_H
#define QCOW2_CHECK_H

#include "bulk.h"

/* check-refs.c: everything that the image refers to. */
struct q2_all {
	struct q2 *q;
	struct q2_l2s l2s;          /* of the active L1 and all snapshots */
	uint64_t file, clusters;    /* bytes of the file; clusters that anything may refer to */
	uint64_t max;               /* the highest cluster that is referred to; known after the first window */
	uint64_t window;
	struct q2_counts counts;
	struct q2_range { uint64_t off, len; const char *what; int shared; } *range; /* fixed metadata but L2 tables and counts */
	uint64_t nranges, ranges_cap;
	uint32_t short_entries; /* of the snapshot table, without what version 3 asks for */
	int unknown; /* a snapshot's references cannot be followed: no count may be lowered */
};
/* odd: one thing that is wrong and cannot be followed. NULL: then -EUCLEAN where snapshots' references are not known. */
int q2_all_init(struct q2_all *a, struct q2 *q, void (*odd)(void *ctx, uint64_t off, const char *text), void *ctx, struct vh_err *e);
void q2_all_free(struct q2_all *a);
/* Counts the window from lo on. walk: flaw, ctx and job are set; with_counts: the refcount table and its blocks as well. */
int q2_all_count(struct q2_all *a, uint64_t lo, struct q2_walk *walk, int with_counts);

/* rebuild.c: all counts anew, of this width, behind everything else; the header switches over. */
int q2_rebuild(struct q2 *q, uint32_t order, struct vh_job *j, struct vh_err *e);

/* bitmap.c: calls fn for everything that bitmaps have in the file; -EUCLEAN: damaged. */
int q2_bitmaps_ranges(struct q2 *q, int (*fn)(void *ctx, uint64_t off, uint64_t len), void *ctx);

#endif
