/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * map() for writes that change the mapping. The host holds the range exclusively, so what the entries say stays true until
 * commit(), and they are read only once. Clusters that follow each other in the disk are taken in one run where possible.
 */
#include "map.h"

#define MAX_ENTRIES 512u

struct fill { uint32_t bytes; uint8_t how; };

/* Whether a write needs another cluster: there is none, or it is not ours alone, or it is compressed. */
static int needs_new(const struct q2 *q, struct q2_entry e)
{
	if (e.e & Q2_COMPRESSED)
		return 1;
	if (q->has_data)
		return !(e.e & (Q2_OFFSET_MASK | Q2_COPIED));
	return !(e.e & Q2_OFFSET_MASK) || !(e.e & Q2_COPIED);
}

/* Whether there is content that must go along when the cluster moves. */
static int has_content(const struct q2 *q, struct q2_entry e)
{
	if (e.e & Q2_COMPRESSED)
		return 1;
	if (q->extended)
		return (e.bitmap & 0xffffffff) != 0;
	return q2_entry_type(q, e, 0) == Q2_T_NORMAL;
}

/* The part of a unit, from lo to hi, that is not written: lo is where its content is looked up. */
static struct fill fill(const struct q2 *q, struct q2_entry e, int moves, uint64_t lo, uint64_t hi, uint64_t at)
{
	struct fill f = {(uint32_t)(hi - lo), VH_FILL_ZERO};

	if (lo == hi)
		return (struct fill){0, VH_FILL_NONE};
	if (moves && has_content(q, e))
		f.how = VH_FILL_COPY;
	else if (q2_span(q, e, at).type == Q2_T_UNALLOCATED && lo < q->backing_bytes)
		f.how = VH_FILL_BACKING;
	return f;
}

/* Head and tail of [x->pos, x->pos+x->len): a is the first cluster's entry, b the last one's. */
static void fills(const struct q2 *q, struct vh_extent *x, struct q2_entry a, struct q2_entry b, int moves, int zeros)
{
	uint64_t end = x->pos + x->len, sub = UINT64_C(1) << q->sub_bits;
	uint64_t lo = moves && has_content(q, a) ? q2_base(q, x->pos) : x->pos & ~(sub - 1);
	uint64_t hi = moves && has_content(q, b) ? q2_up(end, q->cluster) : q2_up(end, sub);
	struct fill f;

	if (!moves && q2_span(q, a, x->pos).type == Q2_T_NORMAL)
		lo = x->pos;
	if (!moves && q2_span(q, b, end - 1).type == Q2_T_NORMAL)
		hi = end;
	f = fill(q, a, moves, lo, x->pos, x->pos);
	if (!(zeros && f.how == VH_FILL_ZERO)) {
		x->head = f.bytes;
		x->fill_head = f.how;
	}
	f = fill(q, b, moves, end, hi, end - 1);
	if (!(zeros && f.how == VH_FILL_ZERO)) {
		x->tail = f.bytes;
		x->fill_tail = f.how;
	}
}

/* New clusters for [pos, stop), as many as there are in one piece; e: their entries. */
static int write_new(struct q2 *q, struct vh_map *m, const struct q2_entry *e, uint64_t n, uint64_t pos, uint64_t stop)
{
	uint64_t base = q2_base(q, pos), got = n, off = base, end;
	struct vh_extent x = {.pos = pos, .vol = q->data_vol, .type = VH_EXT_DATA, .token = Q2_DO_NEW,
			      .flags = VH_EXT_COMMIT | q2_crypt_flag(q)};
	uint32_t flags = q2_op_flags(m);
	int zeros = 0, r;

	if (!q->has_data) {
		int part = pos != base || (stop & (q->cluster - 1));

		if (part && !q->cipher.size && !(pos != base && has_content(q, e[0])))
			flags |= Q2_WANT_ZEROS;
		r = q2_alloc_run(q, n, flags, &off, &got, &zeros);
		if (r < 0)
			return r;
	}
	end = q2_min(stop, base + (got << q->h.bits));
	x.len = end - pos;
	x.addr = off + (pos - base);
	fills(q, &x, e[0], e[got - 1], 1, zeros);
	return q2_emit(m, &x);
}

/* In the cluster that is there already, in which [pos, end) lies: as far as all of it is data, or all is not. */
static int write_same(struct q2 *q, struct vh_map *m, struct q2_entry e, uint64_t pos, uint64_t end)
{
	struct q2_span s = q2_span(q, e, pos);
	struct vh_extent x = {.pos = pos, .len = q2_min(s.len, end - pos), .addr = s.host, .vol = q->data_vol, .type = VH_EXT_DATA};

	x.flags = q2_crypt_flag(q);
	if (!q->has_data && q2_is_meta(q, s.host, 1))
		return -EUCLEAN;
	if (s.type == Q2_T_NORMAL) {
		x.flags |= VH_EXT_PURE;
	} else {
		x.flags |= VH_EXT_COMMIT;
		x.token = Q2_DO_SAME;
		fills(q, &x, e, e, 0, 0);
	}
	return q2_emit(m, &x);
}

/* Appends extents for [pos, stop), whose entries are e[0..n), as far as it goes. */
static int write_some(struct q2 *q, struct vh_map *m, const struct q2_entry *e, uint64_t n, uint64_t pos, uint64_t stop)
{
	uint64_t k = 0;

	while (pos < stop && m->n < m->cap) {
		uint64_t end = q2_min(stop, q2_base(q, pos) + q->cluster), j = k;
		int r;

		if (q2_span(q, e[k], pos).type == Q2_T_INVALID)
			r = -EUCLEAN;
		else if (needs_new(q, e[k])) {
			while (++j < n && needs_new(q, e[j]) && q2_entry_type(q, e[j], 0) != Q2_T_INVALID)
				end = q2_min(stop, end + q->cluster);
			r = write_new(q, m, e + k, j - k, pos, end);
		} else {
			r = write_same(q, m, e[k], pos, end);
		}
		if (r == -EUCLEAN)
			return m->n ? 0 : q2_bad_entry(q, m, pos);
		if (r < 0)
			return m->n ? 0 : r; /* the host comes again for the rest */
		if (!r)
			return 0;
		end = m->ext[m->n - 1].pos + m->ext[m->n - 1].len;
		k += (q2_base(q, end) - q2_base(q, pos)) >> q->h.bits;
		pos = end;
	}
	return 0;
}

int q2_write_span(struct q2 *q, struct vh_map *m, struct q2_entry e, uint64_t pos, uint64_t len)
{
	int r = write_some(q, m, &e, 1, pos, pos + len);

	return r < 0 ? r : m->n && m->ext[m->n - 1].pos + m->ext[m->n - 1].len == pos + len;
}

int q2_map_write(struct q2 *q, struct vh_map *m)
{
	uint64_t pos = m->pos, stop = q2_min(m->pos + m->len, q2_slice_end(q, m->pos)), n;
	struct q2_entry e[MAX_ENTRIES];
	struct q2_tbl *t;
	uint32_t index;
	int r;

	stop = q2_min(stop, q2_base(q, pos) + ((uint64_t)MAX_ENTRIES << q->h.bits));
	n = (q2_up(stop, q->cluster) - q2_base(q, pos)) >> q->h.bits;
	r = q2_l2_get_write(q, pos, q2_op_flags(m), &t, &index);
	if (r < 0)
		return r;
	pthread_mutex_lock(&t->lock);
	for (uint64_t k = 0; k < n; k++)
		e[k] = q2_l2_entry(q, t, index + (uint32_t)k);
	pthread_mutex_unlock(&t->lock);
	q2_tbl_put(&q->l2, t);
	return write_some(q, m, e, n, pos, stop);
}
