/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "net/rate.h"

#include <string.h>

#define SECOND INT64_C(1000000000)
#define BURST_LEAST (128u << 10)
#define PACKETS_LEAST 32u

typedef __int128 wide;

static uint64_t burst_of(const struct rate_limit *l)
{
	uint64_t b = l->burst ? l->burst : l->bytes / 20;

	return l->burst || b > BURST_LEAST ? b : BURST_LEAST;
}

static uint64_t packet_burst(const struct rate_limit *l)
{
	return l->packets / 20 > PACKETS_LEAST ? l->packets / 20 : PACKETS_LEAST;
}

void rate_init(struct rate *r)
{
	memset(r, 0, sizeof(*r));
	pthread_mutex_init(&r->lock, NULL);
}

void rate_free(struct rate *r)
{
	pthread_mutex_destroy(&r->lock);
}

int rate_limits(const struct rate_limit *l)
{
	return l->bytes || l->packets;
}

void rate_set(struct rate *r, const struct rate_limit *l, uint64_t now)
{
	pthread_mutex_lock(&r->lock);
	r->limit = *l;
	r->bytes = (wide)burst_of(l) * SECOND;
	r->packets = (wide)packet_burst(l) * SECOND;
	r->at = now;
	pthread_mutex_unlock(&r->lock);
}

void rate_get(struct rate *r, struct rate_limit *l)
{
	pthread_mutex_lock(&r->lock);
	*l = r->limit;
	pthread_mutex_unlock(&r->lock);
}

static wide filled(wide have, uint64_t per_second, uint64_t ns, uint64_t burst)
{
	wide v = have + (wide)per_second * ns, full = (wide)burst * SECOND;

	return v < full ? v : full;
}

/* Until there is one token. */
static uint64_t until(wide have, uint64_t per_second)
{
	wide missing = SECOND - have;

	return !per_second || missing <= 0 ? 0 : (uint64_t)((missing + per_second - 1) / per_second);
}

uint64_t rate_wait(struct rate *r, uint64_t now)
{
	uint64_t a, b;

	pthread_mutex_lock(&r->lock);
	if (now > r->at) {
		r->bytes = filled(r->bytes, r->limit.bytes, now - r->at, burst_of(&r->limit));
		r->packets = filled(r->packets, r->limit.packets, now - r->at, packet_burst(&r->limit));
		r->at = now;
	}
	a = until(r->bytes, r->limit.bytes);
	b = until(r->packets, r->limit.packets);
	a = a > b ? a : b;
	r->waits += a != 0;
	pthread_mutex_unlock(&r->lock);
	return a;
}

void rate_take(struct rate *r, uint64_t bytes)
{
	pthread_mutex_lock(&r->lock);
	if (r->limit.bytes)
		r->bytes -= (wide)bytes * SECOND;
	if (r->limit.packets)
		r->packets -= SECOND;
	pthread_mutex_unlock(&r->lock);
}

void rate_give(struct rate *r, uint64_t bytes)
{
	pthread_mutex_lock(&r->lock);
	if (r->limit.bytes)
		r->bytes += (wide)bytes * SECOND;
	if (r->limit.packets)
		r->packets += SECOND;
	pthread_mutex_unlock(&r->lock);
}

uint64_t rate_waits(struct rate *r)
{
	uint64_t n;

	pthread_mutex_lock(&r->lock);
	n = r->waits;
	pthread_mutex_unlock(&r->lock);
	return n;
}
