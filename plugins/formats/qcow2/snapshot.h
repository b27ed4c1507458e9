/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#ifndef QCOW2_SNAPSHOT_H
#define QCOW2_SNAPSHOT_H

#include "bulk.h"

struct q2_snap *q2_snap_find(struct q2 *q, const char *name); /* by name, else by id */
/* Makes these n the table: in new clusters, the header switched in one write. q->snaps stays the caller's to set. */
int q2_snaps_write(struct q2 *q, const struct q2_snap *v, uint32_t n, struct vh_err *e);
/* A snapshot's L1 table in the host's order, to be freed. */
int q2_snap_l1(struct q2 *q, const struct q2_snap *s, uint64_t **out, struct vh_err *e);

/* A new active L1 table, in new clusters; the header is switched over in one write, what the old one alone used becomes free. All
 * that the new one names has been counted for it already. */
int q2_l1_replace(struct q2 *q, const uint64_t *l1, uint32_t size, uint64_t bytes, struct vh_err *e);

#endif
