/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the parts of map() and commit() share. */
#ifndef QCOW2_MAP_H
#define QCOW2_MAP_H

#include "qcow2.h"

/* vh_extent.token of COMMIT extents: what commit() makes of each cluster's entry. */
#define Q2_DO_NEW 1u      /* the clusters at addr, just allocated */
#define Q2_DO_SAME 2u     /* the cluster stays, what was written becomes data */
#define Q2_DO_UNMAP 3u    /* nothing: the backing image, or zeros, show */
#define Q2_DO_ZERO 4u     /* zeros, no cluster */
#define Q2_DO_KEEP_ZERO 5u /* zeros, the cluster stays */
#define Q2_DO_SUBS_ZERO 6u /* the subclusters of [pos, pos+len) are zeros */

static inline uint32_t q2_op_flags(const struct vh_map *m) { return m->flags & VH_MAP_NOWAIT ? Q2_NOWAIT : 0; }
static inline uint64_t q2_base(const struct q2 *q, uint64_t pos) { return pos & ~(q->cluster - 1); }
static inline uint16_t q2_crypt_flag(const struct q2 *q) { return q->cipher.size ? VH_EXT_CRYPT : 0; }
/* Bytes of the disk that one table of L2 covers, and one L2 table. */
static inline uint64_t q2_slice_bytes(const struct q2 *q) { return (uint64_t)(q->l2.slice / q->entry) << q->h.bits; }
static inline uint64_t q2_l2_bytes(const struct q2 *q) { return UINT64_C(1) << (q->h.bits + q->l2_bits); }
static inline uint64_t q2_slice_end(const struct q2 *q, uint64_t pos)
{
	return (pos & ~(q2_slice_bytes(q) - 1)) + q2_slice_bytes(q);
}

/* Appends an extent, or lets the last one grow; 0: no room. */
int q2_emit(struct vh_map *m, const struct vh_extent *x);
int q2_bad_entry(struct q2 *q, const struct vh_map *m, uint64_t pos); /* -EAGAIN, or -EIO after the report */
/* write.c: allocating answers for [m->pos, end) of one table; at most up to `end`. *t is pinned, and put. */
int q2_map_write(struct q2 *q, struct vh_map *m);
/* Appends the answer for writing [pos, pos+len), which lies in one cluster with entry e; 0: not all of it. */
int q2_write_span(struct q2 *q, struct vh_map *m, struct q2_entry e, uint64_t pos, uint64_t len);
int q2_map_erase(struct q2 *q, struct vh_map *m); /* erase.c */
/* commit.c: takes back what the answer has reserved; may be called again after -EAGAIN. */
int q2_take_back(struct q2 *q, struct vh_map *m, int late, uint32_t flags);

#endif
