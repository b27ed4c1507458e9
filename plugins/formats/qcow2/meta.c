/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Which clusters hold metadata: they are neither handed out nor written to as data, whatever the image says. */
#include "refcount.h"

static int in(const struct q2 *q, uint64_t c, uint64_t off, uint64_t len)
{
	return off && len && c >= off >> q->h.bits && c <= (off + len - 1) >> q->h.bits;
}

static uint64_t set_slot(const struct q2_set *s, uint64_t c)
{
	uint64_t k = (c * UINT64_C(0x9e3779b97f4a7c15) >> 20) & (s->cap - 1);

	while (s->v[k] && s->v[k] != c)
		k = (k + 1) & (s->cap - 1);
	return k;
}

/* Cluster 0 is the header's and never in the set, so 0 marks what is free. alloc_lock is held. */
static int set_add(struct q2_set *s, uint64_t c)
{
	if (2 * (s->n + 1) > s->cap) {
		struct q2_set n = {.cap = s->cap ? 2 * s->cap : 256};

		n.v = calloc(n.cap, 8);
		if (!n.v)
			return -ENOMEM;
		for (uint64_t k = 0; k < s->cap; k++)
			if (s->v[k])
				n.v[set_slot(&n, s->v[k])] = s->v[k];
		n.n = s->n;
		free(s->v);
		*s = n;
	}
	if (!s->v[set_slot(s, c)])
		s->n++;
	s->v[set_slot(s, c)] = c;
	return 0;
}

static void set_del(struct q2_set *s, uint64_t c)
{
	uint64_t k;

	if (!s->cap || !s->v[k = set_slot(s, c)])
		return;
	s->v[k] = 0;
	s->n--;
	for (k = (k + 1) & (s->cap - 1); s->v[k]; k = (k + 1) & (s->cap - 1)) { /* what had to give way goes back */
		uint64_t x = s->v[k];

		s->v[k] = 0;
		s->v[set_slot(s, x)] = x;
	}
}

int q2_is_meta_cluster(const struct q2 *q, uint64_t c)
{
	return !c || in(q, c, q->h.l1_off, (uint64_t)q->h.l1_size * 8) ||
	       in(q, c, q->h.rt_off, (uint64_t)q->h.rt_clusters << q->h.bits) ||
	       in(q, c, q->h.nsnaps ? q->h.snaps_off : 0, 1) || in(q, c, q->h.crypt_off, q->h.crypt_bytes) ||
	       in(q, c, q->h.nbitmaps ? q->h.bitmaps_off : 0, q->h.bitmaps_bytes) || (q->meta.cap && q->meta.v[set_slot(&q->meta, c)]);
}

int q2_meta_add(struct q2 *q, uint64_t off)
{
	int r;

	pthread_mutex_lock(&q->alloc_lock);
	r = off >> q->h.bits ? set_add(&q->meta, off >> q->h.bits) : 0;
	pthread_mutex_unlock(&q->alloc_lock);
	return r;
}

void q2_meta_del(struct q2 *q, uint64_t off)
{
	pthread_mutex_lock(&q->alloc_lock);
	set_del(&q->meta, off >> q->h.bits);
	pthread_mutex_unlock(&q->alloc_lock);
}

int q2_is_meta(struct q2 *q, uint64_t off, uint64_t len)
{
	int yes = 0;

	if (!len)
		return 0;
	pthread_mutex_lock(&q->alloc_lock);
	for (uint64_t c = off >> q->h.bits; !yes && c <= (off + len - 1) >> q->h.bits; c++)
		yes = q2_is_meta_cluster(q, c);
	pthread_mutex_unlock(&q->alloc_lock);
	return yes;
}
