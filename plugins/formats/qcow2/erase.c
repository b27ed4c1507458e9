/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * map() for zeros and discards. Whole clusters become zeros by their entry (version 3), or nothing; what was theirs alone is
 * punched by the host and freed when the unlink is durable. Parts of a cluster are punched or written in place.
 */
#include "map.h"

#define MAX_ENTRIES 1024u
enum { STOP = 0, MORE = 1 }; /* results of the steps; < 0: an error */

struct part { /* what is asked of one cluster */
	struct q2_entry e;
	uint64_t pos, end, base;
	int whole, has, own, shows_backing;
};

static int trim(struct vh_map *m, const struct q2 *q, uint64_t pos, uint64_t end, uint32_t token, uint64_t addr, uint64_t bytes)
{
	struct vh_extent x = {.pos = pos, .len = end - pos, .type = VH_EXT_TRIM, .token = token, .vol = bytes ? q->data_vol : 0,
			      .addr = bytes ? addr : 0, .bytes = bytes, .flags = token ? VH_EXT_COMMIT : VH_EXT_PURE};

	return q2_emit(m, &x);
}

static int leave(struct vh_map *m, const struct q2 *q, const struct part *p)
{
	return trim(m, q, p->pos, p->end, 0, 0, 0);
}

/* The whole cluster goes; its bytes are punched if nobody else has them. */
static int drop(struct vh_map *m, struct q2 *q, const struct part *p)
{
	uint64_t host = p->e.e & Q2_OFFSET_MASK, bytes = 0;

	if (p->own && !(p->e.e & Q2_COMPRESSED))
		bytes = q->has_data ? q2_min(q->cluster, q->h.bytes - p->base) : q->cluster;
	if (bytes && !q->has_data && q2_is_meta(q, host, 1))
		return -EUCLEAN;
	return trim(m, q, p->pos, p->end, q->zero_flag && p->shows_backing ? Q2_DO_ZERO : Q2_DO_UNMAP, host, bytes);
}

static int in_place(struct vh_map *m, struct q2 *q, const struct q2_span *s, uint64_t pos, uint64_t end)
{
	struct vh_extent x = {.pos = pos, .len = end - pos, .addr = s->host, .vol = q->data_vol, .type = VH_EXT_DATA,
			      .flags = VH_EXT_PURE | q2_crypt_flag(q)};

	return !q->has_data && q2_is_meta(q, s->host, 1) ? -EUCLEAN : q2_emit(m, &x);
}

/* Writes zeros that need a change. Another change of the same cluster must wait for this one's commit. */
static int written(struct vh_map *m, struct q2 *q, const struct part *p, uint64_t pos, uint64_t end)
{
	int r = q2_write_span(q, m, p->e, pos, end - pos);

	if (r <= 0)
		return r;
	return end < p->base + q->cluster && end < p->end ? STOP : MORE;
}

static int discard_part(struct vh_map *m, struct q2 *q, const struct part *p)
{
	int r = MORE;

	for (uint64_t pos = p->pos; r == MORE && pos < p->end;) {
		struct q2_span s = q2_span(q, p->e, pos);
		uint64_t end = q2_min(p->end, pos + s.len);
		/* What is encrypted would not read as zeros. */
		int punch = s.type == Q2_T_NORMAL && p->own && !q->cipher.size;

		if (punch && !q->has_data && q2_is_meta(q, s.host, 1))
			return -EUCLEAN;
		r = trim(m, q, pos, end, 0, s.host, punch ? end - pos : 0);
		pos = end;
	}
	return r;
}

static int discard(struct vh_map *m, struct q2 *q, const struct part *p)
{
	if (q->data_raw)
		return trim(m, q, p->pos, p->end, 0, p->pos, p->end - p->pos);
	/* Version 2 cannot say that there is nothing while the backing image has something. */
	if (p->whole && p->has && (q->zero_flag || !p->shows_backing))
		return drop(m, q, p);
	return discard_part(m, q, p);
}

/* A part of a cluster, span by span; whole subclusters become zeros by their bits. */
static int zero_part(struct vh_map *m, struct q2 *q, const struct part *p)
{
	uint64_t sub = UINT64_C(1) << q->sub_bits;
	int r = MORE, changed = 0;

	for (uint64_t pos = p->pos; r == MORE && pos < p->end;) {
		struct q2_span s = q2_span(q, p->e, pos);
		uint64_t end = q2_min(p->end, pos + s.len);
		int zero = s.type == Q2_T_ZERO || s.type == Q2_T_ZERO_ALLOCATED;

		if (zero && !q->data_raw) {
			r = trim(m, q, pos, end, 0, 0, 0);
		} else if (s.type == Q2_T_UNALLOCATED && pos >= q->backing_bytes && !q->data_raw) {
			r = trim(m, q, pos, end, 0, 0, 0);
		} else if (q->extended && !q->data_raw && s.type != Q2_T_COMPRESSED && !(pos & (sub - 1)) &&
			   (end - pos >= sub || end == q->h.bytes)) {
			int punch = s.type == Q2_T_NORMAL && p->own && (m->flags & VH_MAP_MAY_UNMAP);

			if (end != q->h.bytes)
				end &= ~(sub - 1);
			if (punch && !q->has_data && q2_is_meta(q, s.host, 1))
				return -EUCLEAN;
			r = trim(m, q, pos, end, Q2_DO_SUBS_ZERO, s.host, punch ? end - pos : 0);
			changed = 1;
		} else {
			if (q->extended && s.type != Q2_T_NORMAL && s.type != Q2_T_COMPRESSED)
				end = q2_min(end, q2_up(pos + 1, sub));
			if (s.type == Q2_T_NORMAL && p->own)
				r = in_place(m, q, &s, pos, end);
			else if (changed) /* what it would copy has yet to become zeros */
				return STOP;
			else
				r = written(m, q, p, pos, end);
		}
		pos = end;
	}
	return r;
}

static int zero(struct vh_map *m, struct q2 *q, const struct part *p)
{
	struct q2_span s = q2_span(q, p->e, p->pos);

	if (!p->whole || q->data_raw)
		return zero_part(m, q, p);
	if (!p->has) {
		if (!p->shows_backing || s.type == Q2_T_ZERO)
			return !q->extended || s.len >= p->end - p->pos || !p->shows_backing ?
				       leave(m, q, p) : trim(m, q, p->pos, p->end, Q2_DO_ZERO, 0, 0);
		return q->zero_flag ? trim(m, q, p->pos, p->end, Q2_DO_ZERO, 0, 0) : written(m, q, p, p->pos, p->end);
	}
	if (s.type == Q2_T_ZERO_ALLOCATED && s.len >= p->end - p->pos && !(m->flags & VH_MAP_MAY_UNMAP))
		return leave(m, q, p);
	if (!q->zero_flag && p->shows_backing)
		return p->own && s.type == Q2_T_NORMAL ? in_place(m, q, &s, p->pos, p->end) : written(m, q, p, p->pos, p->end);
	if ((m->flags & VH_MAP_MAY_UNMAP) || !p->own)
		return drop(m, q, p);
	if (q->zero_flag)
		return trim(m, q, p->pos, p->end, Q2_DO_KEEP_ZERO, 0, 0);
	return in_place(m, q, &s, p->pos, p->end);
}

static int erase_one(struct vh_map *m, struct q2 *q, struct q2_entry e, uint64_t pos, uint64_t end)
{
	struct part p = {.e = e, .pos = pos, .end = end, .base = q2_base(q, pos)};

	if (q2_span(q, e, pos).type == Q2_T_INVALID)
		return -EUCLEAN;
	p.whole = pos == p.base && (end == p.base + q->cluster || end == q->h.bytes);
	p.has = !!(e.e & (Q2_OFFSET_MASK | Q2_COMPRESSED)) || (q->has_data && (e.e & Q2_COPIED));
	p.own = p.has && !(e.e & Q2_COMPRESSED) && ((e.e & Q2_COPIED) || q->has_data);
	p.shows_backing = p.base < q->backing_bytes;
	return m->op == VH_MAP_DISCARD ? discard(m, q, &p) : zero(m, q, &p);
}

static int erase_table(struct q2 *q, struct vh_map *m, uint64_t pos, uint64_t stop)
{
	struct q2_entry e[MAX_ENTRIES];
	struct q2_tbl *t;
	uint32_t index, n;
	int r = q2_l2_get_write(q, pos, q2_op_flags(m), &t, &index);

	if (r < 0)
		return m->n ? 0 : r;
	stop = q2_min(q2_min(stop, q2_slice_end(q, pos)), q2_base(q, pos) + ((uint64_t)MAX_ENTRIES << q->h.bits));
	n = (uint32_t)((q2_up(stop, q->cluster) - q2_base(q, pos)) >> q->h.bits);
	pthread_mutex_lock(&t->lock);
	for (uint32_t k = 0; k < n; k++)
		e[k] = q2_l2_entry(q, t, index + k);
	pthread_mutex_unlock(&t->lock);
	q2_tbl_put(&q->l2, t);
	for (uint32_t k = 0; pos < stop; k++) {
		uint64_t end = q2_min(stop, q2_base(q, pos) + q->cluster);

		r = erase_one(m, q, e[k], pos, end);
		if (r == -EUCLEAN)
			return m->n ? 0 : q2_bad_entry(q, m, pos);
		if (r < 0)
			return m->n ? 0 : r;
		if (r == STOP)
			return 0;
		pos = end;
	}
	return 0;
}

/* Where there is no L2 table: whether nothing has to be done for [pos, end). */
static int nothing_there(const struct q2 *q, const struct vh_map *m, uint64_t pos)
{
	return !q->data_raw && (m->op == VH_MAP_DISCARD || pos >= q->backing_bytes);
}

int q2_map_erase(struct q2 *q, struct vh_map *m)
{
	uint64_t pos = m->pos, stop = m->pos + m->len;

	while (pos < stop) {
		uint64_t i = pos >> (q->h.bits + q->l2_bits), end = q2_min(stop, (i + 1) << (q->h.bits + q->l2_bits));

		if (q2_l1(q, i) & Q2_OFFSET_MASK || !nothing_there(q, m, pos))
			return erase_table(q, m, pos, stop);
		if (!trim(m, q, pos, end, 0, 0, 0))
			return 0;
		pos = end;
	}
	return 0;
}
