/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What refcount.c, alloc.c, blocks.c and meta.c share. */
#ifndef QCOW2_REFCOUNT_H
#define QCOW2_REFCOUNT_H

#include "qcow2.h"

#define RT_SECTOR 64u /* entries of 512 bytes of the refcount table */

/* What is missing in memory for a call that got -EAGAIN: a table (its place in the file), the block of a cluster (or room for it in
 * the refcount table), zeros ahead from a cluster on, or that somebody else ends making these. */
enum q2_need { Q2_NEED_TABLE, Q2_NEED_BLOCK, Q2_NEED_ZEROS, Q2_NEED_FENCE };
struct q2_want { enum q2_need need; uint64_t arg; };

static inline uint32_t q2_per_table(const struct q2 *q) { return q->rb.slice * 8 >> q->h.ref_order; } /* counts */
/* The table with the count of cluster c, pinned. alloc_lock is held; -EAGAIN: *w says what is missing; -EUCLEAN: damaged. */
int q2_locate(struct q2 *q, uint64_t c, struct q2_tbl **t, uint32_t *index, struct q2_want *w);
int q2_bring(struct q2 *q, const struct q2_want *w, struct q2_tbl **held); /* no lock is held; [meta] */
void q2_unhold(struct q2 *q, struct q2_tbl **held);
/* alloc_lock is held for these. */
void q2_change(struct q2 *q, struct q2_tbl *t, uint32_t i, uint64_t c, uint64_t old, uint64_t v);
int q2_full(const struct q2 *q, uint64_t c);
void q2_full_set(struct q2 *q, uint64_t c, int v);
int q2_is_meta_cluster(const struct q2 *q, uint64_t c);

/* [main] Looks for the last cluster that is in use. Where blocks at the table's end are empty not all of them are looked at: then
 * it errs on the far side. */
int q2_find_end(struct q2 *q);
int q2_rt_alloc(struct q2 *q, uint64_t entries); /* an empty table in memory */
/* make_lock is held or [main]: all blocks for the counts of [c, c+n), where they are missing. */
int q2_blocks_make(struct q2 *q, uint64_t c, uint64_t n);
uint64_t q2_uncovered(const struct q2 *q, uint64_t c, uint64_t n); /* how many are missing */
int q2_zeros_ahead(struct q2 *q, uint64_t c);

#endif
