/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The L1 table, L2 tables, and what their entries say. */
#include "qcow2.h"

#define L1_SECTOR 64u /* entries of 512 bytes */
#define ALL_SUBS UINT64_C(0xffffffff)

/* ---- L1 ---- */

void q2_l1_set(struct q2 *q, uint64_t i, uint64_t v)
{
	__atomic_store_n(&q->l1[i], v, __ATOMIC_RELEASE);
	pthread_mutex_lock(&q->alloc_lock);
	q->l1_dirty[i / L1_SECTOR] = 1;
	q->l1_any_dirty = 1;
	pthread_mutex_unlock(&q->alloc_lock);
}

void q2_l1_close(struct q2 *q)
{
	free(q->l1);
	free(q->l1_copy);
	free(q->l1_dirty);
	free(q->l1_copied);
	q->l1 = q->l1_copy = NULL;
	q->l1_dirty = q->l1_copied = NULL;
}

int q2_l1_alloc(struct q2 *q, uint64_t entries)
{
	uint64_t n = q2_up(entries ? entries : 1, L1_SECTOR);

	q->l1 = calloc(n, 8);
	q->l1_copy = calloc(n, 8); /* touched where something is copied */
	q->l1_dirty = calloc(1, n / L1_SECTOR);
	q->l1_copied = calloc(1, n / L1_SECTOR);
	if (q->l1 && q->l1_copy && q->l1_dirty && q->l1_copied)
		return 0;
	q2_l1_close(q);
	return -ENOMEM;
}

/* Two tables in one place: whoever writes one of them destroys the other. */
static int l1_overlap(struct q2 *q, uint64_t off, struct vh_err *e)
{
	if (q->flags & (VH_OPEN_RO | VH_OPEN_REPAIR))
		return 0;
	q2_hint(e, "repair it, or open it read-only to save what can be read");
	return q2_fail(e, -EUCLEAN, "the L2 table at byte %llu lies over other metadata", (unsigned long long)off);
}

int q2_l1_open(struct q2 *q, struct vh_err *e)
{
	uint64_t have = q2_io->bytes(q->vol), len = (uint64_t)q->h.l1_size * 8;
	int r = q2_l1_alloc(q, q->h.l1_size);

	if (r < 0)
		return q2_fail(e, r, "no memory for the L1 table");
	/* What lies past the end of the file is zeros: it costs no memory. */
	have = have > q->h.l1_off ? have - q->h.l1_off : 0;
	r = len ? q2_read(q, q->l1, q2_min(len, q2_up(have, 8)), q->h.l1_off) : 0;
	if (r < 0)
		return q2_fail(e, r, "cannot read the L1 table");
	for (uint32_t k = 0; k < q->h.l1_size; k++) {
		uint64_t v, off;

		if (!q->l1[k])
			continue;
		v = q->l1[k] = q2_be64(&q->l1[k]);
		off = v & Q2_OFFSET_MASK;
		if (!off || off & (q->cluster - 1))
			continue; /* refused when it is used */
		r = q2_is_meta(q, off, q->cluster) ? l1_overlap(q, off, e) : q2_meta_add(q, off);
		if (r < 0)
			return r == -EUCLEAN ? r : q2_fail(e, r, "no memory for the list of tables");
	}
	return 0;
}

/* ---- entries ---- */

static enum q2_type standard_type(const struct q2 *q, uint64_t e)
{
	uint64_t off = e & Q2_OFFSET_MASK;

	if (e & Q2_COMPRESSED)
		return q->has_data ? Q2_T_INVALID : Q2_T_COMPRESSED;
	if (e & Q2_L2_RESERVED || off & (q->cluster - 1) || ((e & Q2_ZERO) && !q->zero_flag))
		return Q2_T_INVALID;
	if (e & Q2_ZERO)
		return off || (q->has_data && (e & Q2_COPIED)) ? Q2_T_ZERO_ALLOCATED : Q2_T_ZERO;
	if (off)
		return Q2_T_NORMAL;
	return q->has_data && (e & Q2_COPIED) ? Q2_T_NORMAL : Q2_T_UNALLOCATED; /* byte 0 of a data file is as good as any */
}

enum q2_type q2_entry_type(const struct q2 *q, struct q2_entry x, uint32_t sub)
{
	uint64_t off = x.e & Q2_OFFSET_MASK, alloc, zero;
	int has;

	if (!q->extended)
		return standard_type(q, x.e);
	if (x.e & Q2_COMPRESSED)
		return q->has_data || x.bitmap ? Q2_T_INVALID : Q2_T_COMPRESSED;
	alloc = x.bitmap & ALL_SUBS;
	zero = x.bitmap >> 32;
	has = off || (q->has_data && (x.e & Q2_COPIED));
	if (x.e & (Q2_L2_RESERVED | Q2_ZERO) || off & (q->cluster - 1) || alloc & zero || (alloc && !has))
		return Q2_T_INVALID;
	if (zero >> sub & 1)
		return has ? Q2_T_ZERO_ALLOCATED : Q2_T_ZERO;
	return alloc >> sub & 1 ? Q2_T_NORMAL : Q2_T_UNALLOCATED;
}

struct q2_span q2_span(const struct q2 *q, struct q2_entry x, uint64_t pos)
{
	uint64_t at = pos & (q->cluster - 1), end = q->cluster;
	uint32_t sub = (uint32_t)(at >> q->sub_bits);
	struct q2_span s = {.type = q2_entry_type(q, x, sub), .host = (x.e & Q2_OFFSET_MASK) + at};

	if (q->data_raw && (s.type == Q2_T_NORMAL || s.type == Q2_T_ZERO_ALLOCATED) && s.host != pos)
		s.type = Q2_T_INVALID; /* a raw file has everything where the disk has it */
	if (q->extended && s.type != Q2_T_COMPRESSED && s.type != Q2_T_INVALID) {
		while (++sub < q->subs && q2_entry_type(q, x, sub) == s.type)
			;
		end = (uint64_t)sub << q->sub_bits;
	}
	s.len = q2_min(end - at, q->h.bytes - pos);
	return s;
}

void q2_compressed(const struct q2 *q, uint64_t e, uint64_t *off, uint32_t *len)
{
	uint32_t x = 62 - (q->h.bits - 8);

	*off = e & ((UINT64_C(1) << x) - 1);
	if (*off > Q2_MAX_OFFSET) /* more bits than an offset has: nothing lies there */
		*off = Q2_MAX_OFFSET;
	*len = (uint32_t)(((e & ~(Q2_COPIED | Q2_COMPRESSED)) >> x) + 1) * 512 - (uint32_t)(*off & 511);
}

uint64_t q2_compressed_entry(const struct q2 *q, uint64_t off, uint64_t len)
{
	uint32_t x = 62 - (q->h.bits - 8);
	uint64_t sectors;

	if (!len || off >= Q2_MAX_OFFSET || off >> x)
		return 0;
	sectors = (off + len - 1) / 512 - off / 512;
	return sectors >> (q->h.bits - 8) ? 0 : Q2_COMPRESSED | off | sectors << x;
}

struct q2_entry q2_l2_entry(const struct q2 *q, const struct q2_tbl *t, uint32_t index)
{
	const uint8_t *p = t->data + (size_t)index * q->entry;

	return (struct q2_entry){q2_be64(p), q->extended ? q2_be64(p + 8) : 0};
}

void q2_l2_set(struct q2 *q, struct q2_tbl *t, uint32_t index, struct q2_entry x)
{
	uint32_t at = index * q->entry;

	q2_put64(t->data + at, x.e);
	if (q->extended)
		q2_put64(t->data + at + 8, x.bitmap);
	q2_tbl_dirty(&q->l2, t, at, at + q->entry);
}

void q2_entry_free(struct q2 *q, struct q2_entry x, int punched)
{
	uint64_t off = x.e & Q2_OFFSET_MASK;
	uint32_t len;

	if (x.e & Q2_COMPRESSED) {
		q2_compressed(q, x.e, &off, &len);
		q2_free(q, off, len, 0);
	} else if (off && !q->has_data) {
		q2_free(q, off, q->cluster, punched);
	}
}

/* ---- L2 tables ---- */

static int l2_tbl(struct q2 *q, uint64_t l1e, uint64_t pos, uint32_t flags, struct q2_tbl **t, uint32_t *index)
{
	uint64_t off = l1e & Q2_OFFSET_MASK, n = (pos >> q->h.bits) & ((UINT64_C(1) << q->l2_bits) - 1);
	uint32_t per = q->l2.slice / q->entry;

	if (off & (q->cluster - 1) || l1e & Q2_L1_RESERVED || off >= Q2_MAX_OFFSET) {
		if (flags & Q2_NOWAIT)
			return -EAGAIN;
		return q2_corrupt(q, "the L1 entry of byte %llu of the disk is damaged (0x%llx)", (unsigned long long)pos,
				  (unsigned long long)l1e);
	}
	*index = (uint32_t)(n % per);
	return q2_tbl_get(&q->l2, off + n / per * q->l2.slice, flags, t);
}

int q2_l2_get(struct q2 *q, uint64_t pos, uint32_t flags, struct q2_tbl **t, uint32_t *index)
{
	uint64_t i = pos >> (q->h.bits + q->l2_bits), v = i < q->h.l1_size ? q2_l1(q, i) : 0;

	return v & Q2_OFFSET_MASK ? l2_tbl(q, v, pos, flags, t, index) : -ENOENT;
}

/* Copies the L2 table at `from`, which a snapshot has too: it has no changes in memory, since it was not ours alone. */
static int l2_copy(struct q2 *q, uint64_t from, uint64_t to)
{
	uint32_t n = (uint32_t)q2_min(q->cluster, 65536);
	uint8_t *buf = malloc(n);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t at = 0; r >= 0 && at < q->cluster; at += n) {
		r = q2_read(q, buf, n, from + at);
		if (r >= 0)
			r = q2_write(q, buf, n, to + at);
	}
	free(buf);
	return r;
}

/* An L2 table of our own for L1 entry i. It is complete in the file before the next flush can write the L1 entry. */
static int l2_make(struct q2 *q, uint64_t i)
{
	uint64_t old, off;
	int r = 0;

	pthread_mutex_lock(&q->make_lock);
	old = q2_l1(q, i);
	if (old & Q2_COPIED && old & Q2_OFFSET_MASK)
		goto out; /* another did it meanwhile */
	if (old & (Q2_L1_RESERVED | (q->cluster - 1))) {
		r = q2_corrupt(q, "L1 entry %llu is damaged (0x%llx)", (unsigned long long)i, (unsigned long long)old);
		goto out;
	}
	r = q2_alloc(q, 1, &off);
	if (r < 0)
		goto out;
	q2_cache_forget(&q->l2, off, q->cluster);
	if (old & Q2_OFFSET_MASK)
		r = l2_copy(q, old & Q2_OFFSET_MASK, off);
	else
		r = q2_io->zero(q->vol, q->cluster, off);
	if (r >= 0)
		r = q2_meta_add(q, off);
	if (r < 0) {
		q2_ref_add(q, off, q->cluster, -1);
		goto out;
	}
	q2_l1_set(q, i, off | Q2_COPIED);
	if (old & Q2_OFFSET_MASK) {
		q2_meta_del(q, old & Q2_OFFSET_MASK);
		q2_free(q, old & Q2_OFFSET_MASK, q->cluster, 0);
	}
out:
	pthread_mutex_unlock(&q->make_lock);
	return r < 0 ? r : 0;
}

int q2_l2_get_write(struct q2 *q, uint64_t pos, uint32_t flags, struct q2_tbl **t, uint32_t *index)
{
	uint64_t i = pos >> (q->h.bits + q->l2_bits), v;
	int r;

	if (i >= q->h.l1_size)
		return -EIO;
	v = q2_l1(q, i);
	if (!(v & Q2_COPIED) || !(v & Q2_OFFSET_MASK)) {
		if (flags & Q2_NOWAIT)
			return -EAGAIN;
		r = l2_make(q, i);
		if (r < 0)
			return r;
		v = q2_l1(q, i);
	}
	return l2_tbl(q, v, pos, flags, t, index);
}

int q2_entry_replace(struct q2 *q, uint64_t pos, struct q2_entry x)
{
	struct q2_entry old;
	struct q2_tbl *t;
	uint32_t index;
	int r = q2_l2_get_write(q, pos, 0, &t, &index);

	if (r < 0)
		return r;
	pthread_mutex_lock(&t->lock);
	old = q2_l2_entry(q, t, index);
	q2_l2_set(q, t, index, x);
	pthread_mutex_unlock(&t->lock);
	q2_tbl_put(&q->l2, t);
	q2_entry_free(q, old, 0);
	return 0;
}
