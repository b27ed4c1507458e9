/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A volume in memory behind core/blk's interface, for tests of what is above it: completions are delayed and reordered,
 * failures are injected, everything is recorded and can be replayed as a crash would leave it.
 */
#ifndef FAKE_BLK_H
#define FAKE_BLK_H

#include "blk/volume.h"

struct fake_event {
	uint16_t op; /* VH_WRITE, VH_ZERO, VH_DISCARD, VH_FLUSH */
	uint64_t off, len, submitted, applied, completed; /* times; completed 0: never */
	uint8_t *data;
};

struct blk_vol *fake_vol_new(const char *label, uint64_t bytes, uint64_t caps);
/* Atomic, at any time: in a million; writes fail half done. */
void fake_vol_fail(struct blk_vol *v, unsigned per_million, int error);
void fake_vol_hold(struct blk_vol *v, int held);    /* nothing completes while it is held */
void fake_vol_sync(struct blk_vol *v, int sync);    /* complete in the next turn, in order */
void fake_vol_fail_op(struct blk_vol *v, uint16_t op, int error); /* every such request fails; 0: no more */
uint8_t *fake_vol_data(struct blk_vol *v);          /* nobody else uses it meanwhile */
void fake_vol_set(struct blk_vol *v, const void *data, uint64_t bytes);
uint64_t fake_vol_ops(struct blk_vol *v, uint16_t op); /* requests so far */

/* Recording. Time is a counter of events. */
void fake_vol_record(struct blk_vol *v);
uint64_t fake_vol_time(struct blk_vol *v);
/* What a crash at `time` may leave: everything that a finished flush covers, and a random part of the rest, by sectors. */
void fake_vol_crash(struct blk_vol *v, uint64_t time, uint64_t seed, uint8_t **data, uint64_t *bytes);
const struct fake_event *fake_vol_events(struct blk_vol *v, uint32_t *n);

extern _Atomic uint64_t fake_blocking_calls; /* of blk_read ... blk_flush, made on a thread that runs a loop */

#endif
