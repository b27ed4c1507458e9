/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A limit of bytes and packets per second with room for bursts: a token bucket that all queues of one direction share. A
 * packet of any size goes when there is a token at all; what it takes too much has to come in again before the next one.
 */
#ifndef NET_RATE_H
#define NET_RATE_H

#include <pthread.h>
#include <stdint.h>

#define RATE_MAX (UINT64_C(1) << 40) /* per second, of bytes; bursts, too */

struct rate_limit {
	uint64_t bytes;   /* per second; 0: as many as there are */
	uint64_t burst;   /* bytes at once after a silence; 0: what comes in in 50 ms, at least 128 KiB */
	uint64_t packets; /* per second; 0: as many as there are. Burst: what comes in in 50 ms, at least 32 */
};

struct rate {
	pthread_mutex_t lock;
	struct rate_limit limit;
	__int128 bytes, packets; /* tokens, in parts of a thousand million, so that no rounding loses any */
	uint64_t at;            /* they are as of this time */
	uint64_t waits;
};

/* All [any]. `now` is any clock in nanoseconds that does not go back. */
void rate_init(struct rate *r);
void rate_free(struct rate *r);
void rate_set(struct rate *r, const struct rate_limit *l, uint64_t now); /* bursts are full at first */
void rate_get(struct rate *r, struct rate_limit *l);
int rate_limits(const struct rate_limit *l);
uint64_t rate_wait(struct rate *r, uint64_t now); /* 0: a packet may go; else how long until one may, which is counted */
void rate_take(struct rate *r, uint64_t bytes); /* of one packet that goes */
void rate_give(struct rate *r, uint64_t bytes); /* that did not go after all */
uint64_t rate_waits(struct rate *r);

#endif
