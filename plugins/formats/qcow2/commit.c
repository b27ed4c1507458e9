/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * commit(): entries change in memory, what they referred to is noted as freed. All COMMIT extents of one answer lie in one
 * table, so a commit is done wholly or not at all.
 */
#include "map.h"

/* The subclusters of the cluster at `base` that [lo, hi) touches, as bits. */
static uint64_t covered(const struct q2 *q, uint64_t base, uint64_t lo, uint64_t hi)
{
	uint64_t a, b;

	lo = lo < base ? base : lo;
	hi = hi > base + q->cluster ? base + q->cluster : hi;
	if (lo >= hi)
		return 0;
	a = (lo - base) >> q->sub_bits;
	b = (hi - base + (UINT64_C(1) << q->sub_bits) - 1) >> q->sub_bits;
	return (UINT64_C(0xffffffff) >> (32 - (b - a))) << a;
}

static struct q2_entry changed(const struct q2 *q, const struct vh_extent *x, uint64_t base, struct q2_entry old)
{
	uint64_t bits = covered(q, base, x->pos - x->head, x->pos + x->len + x->tail), all = UINT64_C(0xffffffff) << 32;
	struct q2_entry n = old;

	switch (x->token & 0xff) {
	case Q2_DO_NEW:
		n.e = (x->addr - (x->pos - q2_base(q, x->pos)) + (base - q2_base(q, x->pos))) | Q2_COPIED;
		n.bitmap = q->extended ? bits | (old.e & Q2_COMPRESSED ? 0 : (old.bitmap & all & ~(bits << 32))) : 0;
		break;
	case Q2_DO_SAME:
		n.e |= Q2_COPIED;
		if (q->extended)
			n.bitmap = (n.bitmap | bits) & ~(bits << 32);
		else
			n.e &= ~Q2_ZERO;
		break;
	case Q2_DO_UNMAP:
		n = (struct q2_entry){0, 0};
		break;
	case Q2_DO_ZERO:
		n = q->extended ? (struct q2_entry){0, all} : (struct q2_entry){Q2_ZERO, 0};
		break;
	case Q2_DO_KEEP_ZERO:
		if (q->extended)
			n.bitmap = all;
		else
			n.e |= Q2_ZERO;
		break;
	case Q2_DO_SUBS_ZERO:
		n.bitmap = (n.bitmap | bits << 32) & ~bits;
		break;
	}
	return n;
}

static void apply(struct q2 *q, struct q2_tbl *t, const struct vh_extent *x)
{
	uint32_t per = q->l2.slice / q->entry;

	for (uint64_t base = q2_base(q, x->pos); base < x->pos + x->len; base += q->cluster) {
		uint32_t index = (uint32_t)((base >> q->h.bits) % per);
		struct q2_entry old = q2_l2_entry(q, t, index), n = changed(q, x, base, old);

		q2_l2_set(q, t, index, n);
		if ((old.e & (Q2_OFFSET_MASK | Q2_COMPRESSED)) != (n.e & (Q2_OFFSET_MASK | Q2_COMPRESSED)))
			q2_entry_free(q, old, x->type == VH_EXT_TRIM && x->bytes);
	}
}

int q2_take_back(struct q2 *q, struct vh_map *m, int late, uint32_t flags)
{
	for (uint32_t k = 0; k < m->n; k++) {
		struct vh_extent *x = &m->ext[k];
		uint64_t first = x->addr - (x->pos - q2_base(q, x->pos));
		uint64_t n = (q2_up(x->pos + x->len, q->cluster) - q2_base(q, x->pos)) >> q->h.bits;

		if (!(x->flags & VH_EXT_COMMIT) || (x->token & 0xff) != Q2_DO_NEW || q->has_data)
			continue;
		if (late) {
			q2_free_at_close(q, first, n << q->h.bits);
			continue;
		}
		/* The token's upper part says how many are given back already: this may be called again. */
		for (uint64_t c = x->token >> 8; c < n; c++) {
			int r = q2_unalloc(q, first + (c << q->h.bits), flags);

			if (r == -EAGAIN)
				return r;
			if (r < 0)
				q2_warn("the cluster at byte %llu is leaked: its count cannot be read",
					(unsigned long long)(first + (c << q->h.bits)));
			x->token += 1u << 8;
		}
	}
	return 0;
}

int q2_commit(void *img, struct vh_map *m, int status, uint32_t nowait)
{
	struct q2 *q = img;
	struct q2_tbl *t;
	uint32_t first = 0, index;
	int r;

	if (status < 0)
		return q2_take_back(q, m, status == -ETIMEDOUT, nowait ? Q2_NOWAIT : 0);
	while (first < m->n && !(m->ext[first].flags & VH_EXT_COMMIT))
		first++;
	if (first == m->n)
		return 0;
	r = q2_l2_get(q, m->ext[first].pos, nowait ? Q2_NOWAIT : 0, &t, &index);
	if (r == -EAGAIN)
		return r;
	if (r < 0) {
		q2_take_back(q, m, 0, 0);
		return r == -ENOENT ? -EIO : r;
	}
	pthread_mutex_lock(&t->lock);
	for (uint32_t k = first; k < m->n; k++)
		if (m->ext[k].flags & VH_EXT_COMMIT)
			apply(q, t, &m->ext[k]);
	pthread_mutex_unlock(&t->lock);
	q2_tbl_put(&q->l2, t);
	return 0;
}
