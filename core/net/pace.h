/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * When a port that others may have harmed is looked at and repaired. A change is left to settle, for it seldom comes alone; a
 * program that undoes each repair finds at most one in a second, and after ten of them none for ten minutes; what cannot be
 * repaired is tried again at the next change, and ever more seldom without one. Without a clock of its own.
 */
#ifndef NET_PACE_H
#define NET_PACE_H

#include <stdint.h>

#define PACE_SETTLE 200u      /* ms from a change to the look at it */
#define PACE_APART 1000u      /* from a repair, or a vain try, to the next look */
#define PACE_RETRY 60000u     /* the longest wait for another try */
#define PACE_ROW 10u          /* repairs, each soon after the one before it ... */
#define PACE_SOON 60000u
#define PACE_REST 600000u     /* ... and then this long none */

struct pace {
	uint64_t due;       /* 0: there is nothing to look at */
	uint64_t earliest;
	uint64_t last;      /* repair */
	unsigned row, failed;
	int heard;
};

/* `now` is any clock in ms that does not go back, and never 0. */
static inline void pace_heard(struct pace *p, uint64_t now)
{
	uint64_t at = now + PACE_SETTLE > p->earliest ? now + PACE_SETTLE : p->earliest;

	p->heard = 1;
	if (!p->due || at < p->due)
		p->due = at;
}

/* Whether a change makes a difference: else nobody needs to listen. */
static inline int pace_listens(const struct pace *p)
{
	return !p->heard;
}

static inline int pace_due(const struct pace *p, uint64_t now)
{
	return p->due && now >= p->due;
}

/* How a look ended: 1 repaired, and looked at again, 0 nothing amiss, negative: it cannot be. 1: that was enough for a while. */
static inline int pace_done(struct pace *p, uint64_t now, int result)
{
	uint64_t wait = PACE_APART;

	p->heard = 0;
	p->due = 0;
	if (!result) {
		p->failed = 0;
		return 0;
	}
	p->earliest = now + PACE_APART;
	if (result < 0) {
		for (unsigned i = 0; i < p->failed && wait < PACE_RETRY; i++)
			wait *= 2;
		p->failed++;
		p->due = now + (wait < PACE_RETRY ? wait : PACE_RETRY);
		return 0;
	}
	p->failed = 0;
	p->row = p->last && now - p->last < PACE_SOON ? p->row + 1 : 1;
	p->last = now;
	if (p->row >= PACE_ROW)
		p->earliest = now + PACE_REST;
	p->due = p->earliest;
	if (p->row < PACE_ROW)
		return 0;
	p->row = 0;
	return 1;
}

#endif
