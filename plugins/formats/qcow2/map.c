/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* map(): reading, reporting, and overwriting in place. The rest is in write.c and erase.c. */
#include "map.h"

#define AHEAD 4096u /* entries looked at past what was asked for */

static int follows(const struct vh_extent *a, const struct vh_extent *b)
{
	if (a->type != b->type || a->flags != b->flags || a->token != b->token || a->pos + a->len != b->pos || a->tail || b->head)
		return 0;
	switch (a->type) {
	case VH_EXT_DATA:
		return a->vol == b->vol && a->addr + a->len == b->addr;
	case VH_EXT_TRIM:
		return !a->bytes ? !b->bytes : b->bytes && a->vol == b->vol && a->addr + a->bytes == b->addr && a->bytes == a->len;
	case VH_EXT_ZERO:
	case VH_EXT_BACKING:
		return 1;
	default:
		return 0;
	}
}

int q2_emit(struct vh_map *m, const struct vh_extent *x)
{
	struct vh_extent *last = m->n ? &m->ext[m->n - 1] : NULL;

	if (last && follows(last, x)) {
		last->len += x->len;
		last->bytes += x->bytes;
		last->tail = x->tail;
		last->fill_tail = x->fill_tail;
		return 1;
	}
	if (m->n == m->cap)
		return 0;
	m->ext[m->n++] = *x;
	return 1;
}

int q2_bad_entry(struct q2 *q, const struct vh_map *m, uint64_t pos)
{
	if (m->flags & VH_MAP_NOWAIT)
		return -EAGAIN; /* to be told where one may wait */
	return q2_corrupt(q, "the mapping of byte %llu of the disk is damaged", (unsigned long long)pos);
}

/* [pos, pos+len) is in no cluster here. */
static struct vh_extent nothing(const struct q2 *q, uint64_t pos, uint64_t len)
{
	struct vh_extent x = {.pos = pos, .len = len, .type = VH_EXT_ZERO, .flags = VH_EXT_CACHE};

	if (pos < q->backing_bytes) {
		x.type = VH_EXT_BACKING;
		x.len = q2_min(len, q->backing_bytes - pos);
	}
	return x;
}

/* Appends what is to be said of one span; 0: no room; < 0: the entry is damaged. */
static int say(struct q2 *q, struct vh_map *m, struct q2_entry e, struct q2_span s, uint64_t pos)
{
	struct vh_extent x = {.pos = pos, .len = s.len, .flags = VH_EXT_CACHE};
	uint32_t stored;

	if (m->op == VH_MAP_REPORT)
		x.flags |= VH_EXT_ALLOCATED;
	switch (s.type) {
	case Q2_T_NORMAL:
		x.type = VH_EXT_DATA;
		x.addr = s.host;
		x.vol = q->data_vol;
		x.flags |= q2_crypt_flag(q);
		return q2_emit(m, &x);
	case Q2_T_ZERO:
	case Q2_T_ZERO_ALLOCATED:
		x.type = VH_EXT_ZERO;
		return q2_emit(m, &x);
	case Q2_T_UNALLOCATED:
		x = nothing(q, pos, s.len);
		if (!q2_emit(m, &x))
			return 0;
		if (x.len == s.len)
			return 1;
		x = nothing(q, pos + x.len, s.len - x.len);
		return q2_emit(m, &x);
	case Q2_T_COMPRESSED:
		if (!(q->host_caps & VH_FMT_COMPRESSED))
			return -EOPNOTSUPP;
		x.type = VH_EXT_COMPRESSED;
		x.flags &= (uint16_t)~VH_EXT_CACHE;
		q2_compressed(q, e.e, &x.addr, &stored);
		x.aux = stored;
		x.bytes = q->cluster;
		x.head = (uint32_t)(pos & (q->cluster - 1));
		x.tail = (uint32_t)(q->cluster - x.head - x.len);
		return q2_emit(m, &x);
	default:
		return -EIO;
	}
}

/* The spans of one pinned table from *pos on. Past `stop` only the last extent grows. 1: the table is through. */
static int read_table(struct q2 *q, struct vh_map *m, struct q2_tbl *t, uint32_t index, uint64_t *pos, uint64_t stop)
{
	uint64_t end = q2_min(q2_slice_end(q, *pos), q->h.bytes);
	uint32_t ahead = 0;
	int r = 1;

	pthread_mutex_lock(&t->lock);
	while (r > 0 && *pos < end) {
		struct q2_entry e = q2_l2_entry(q, t, index);
		uint64_t next = q2_base(q, *pos) + q->cluster;

		while (r > 0 && *pos < next && *pos < end) {
			struct q2_span s = q2_span(q, e, *pos);
			uint32_t n = m->n;

			if (*pos >= stop && ++ahead > AHEAD)
				r = 0;
			else
				r = say(q, m, e, s, *pos);
			if (r > 0 && *pos >= stop && m->n > n) { /* another extent, which nobody asked for */
				m->n = n;
				r = 0;
			}
			if (r > 0)
				*pos += s.len;
		}
		index++;
	}
	pthread_mutex_unlock(&t->lock);
	return r;
}

static int map_read(struct q2 *q, struct vh_map *m)
{
	uint64_t pos = m->pos, stop = m->pos + m->len;
	uint32_t tables = 0;

	while (pos < stop && m->n < m->cap) {
		struct q2_tbl *t;
		uint32_t index;
		int r = q2_l2_get(q, pos, q2_op_flags(m), &t, &index);

		if (r == -ENOENT) {
			uint64_t end = q2_min((pos & ~(q2_l2_bytes(q) - 1)) + q2_l2_bytes(q), q->h.bytes);
			struct vh_extent x = nothing(q, pos, end - pos);

			if (!q2_emit(m, &x) || ++tables > AHEAD)
				break;
			pos += x.len;
			continue;
		}
		if (r < 0)
			return m->n && r == -EAGAIN ? 0 : r;
		r = read_table(q, m, t, index, &pos, stop);
		q2_tbl_put(&q->l2, t);
		if (r == -EIO && !m->n)
			return q2_bad_entry(q, m, pos);
		if (r < 0)
			return m->n ? 0 : r;
		if (!r)
			break;
	}
	return 0;
}

/* As far as everything is ours alone, in place, and no metadata. */
static int map_pure(struct q2 *q, struct vh_map *m)
{
	uint64_t pos = m->pos, end = q2_min(q2_slice_end(q, pos), q->h.bytes), checked = 0;
	struct q2_tbl *t;
	uint32_t index, ahead = 0;
	int r = q2_l2_get(q, pos, q2_op_flags(m), &t, &index), bad = 0;

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	if (!(q2_l1(q, pos >> (q->h.bits + q->l2_bits)) & Q2_COPIED))
		end = pos; /* the table is a snapshot's too, and so is all in it, whatever its entries say */
	pthread_mutex_lock(&t->lock);
	for (; pos < end && ahead <= AHEAD; index++) {
		struct q2_entry e = q2_l2_entry(q, t, index);
		uint64_t next = q2_min(q2_base(q, pos) + q->cluster, end);

		while (pos < next) {
			struct q2_span s = q2_span(q, e, pos);
			struct vh_extent x = {.pos = pos, .len = s.len, .addr = s.host, .vol = q->data_vol, .type = VH_EXT_DATA,
					      .flags = VH_EXT_PURE | VH_EXT_CACHE | q2_crypt_flag(q)};
			uint32_t n = m->n;

			if (s.type != Q2_T_NORMAL || !(e.e & Q2_COPIED) || (pos >= m->pos + m->len && ++ahead > AHEAD)) {
				bad = s.type == Q2_T_INVALID && pos == m->pos;
				end = pos;
				break;
			}
			if (!q->has_data && q2_base(q, s.host) != checked && q2_is_meta(q, s.host, 1)) {
				bad = pos == m->pos;
				end = pos;
				break;
			}
			checked = q2_base(q, s.host);
			if (!q2_emit(m, &x) || (pos >= m->pos + m->len && m->n > n)) {
				m->n = n;
				end = pos;
				break;
			}
			pos += s.len;
		}
	}
	pthread_mutex_unlock(&t->lock);
	q2_tbl_put(&q->l2, t);
	return bad ? q2_bad_entry(q, m, m->pos) : 0;
}

int q2_map(void *img, struct vh_map *m)
{
	struct q2 *q = img;
	int r;

	m->n = 0;
	if (m->pos >= q->h.bytes || !m->cap || !m->len)
		return -EINVAL;
	if (m->op == VH_MAP_READ || m->op == VH_MAP_REPORT)
		return map_read(q, m);
	if (__atomic_load_n(&q->failed, __ATOMIC_ACQUIRE))
		return -EIO;
	/* Overwriting in place changes nothing here but what else is said of the data. */
	if (!__atomic_load_n(&q->writing, __ATOMIC_ACQUIRE) && (q->clears || !(m->flags & VH_MAP_OVERWRITE_ONLY))) {
		if (m->flags & VH_MAP_NOWAIT)
			return -EAGAIN;
		r = q2_writing_begin(q, NULL);
		if (r < 0)
			return r;
	}
	switch (m->op) {
	case VH_MAP_WRITE:
		return m->flags & VH_MAP_OVERWRITE_ONLY ? map_pure(q, m) : q2_map_write(q, m);
	case VH_MAP_ZERO:
	case VH_MAP_DISCARD:
		return q2_map_erase(q, m);
	default:
		return -EOPNOTSUPP;
	}
}
