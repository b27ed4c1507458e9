/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Larger and smaller disks. The header has the new size last: until then what lies past the old end is nobody's business.
 * A larger disk must not show, past its old end, what the backing image or the last cluster happens to have there.
 */
#include "map.h"

int q2_l1_grow(struct q2 *q, uint64_t entries, struct vh_err *e)
{
	uint64_t old_off = q->h.l1_off, old_n = q->h.l1_size, old_len = q2_up(old_n * 8, q->cluster), len = q2_up(entries * 8, q->cluster);
	uint64_t *old = q->l1, off = old_off;
	uint8_t *buf;
	int r;

	if (entries <= old_n)
		return 0;
	if (entries > Q2_MAX_L1 / 8)
		return q2_fail(e, -EFBIG, "an L1 table of %llu entries is too large; at most %u are possible", (unsigned long long)entries,
			       Q2_MAX_L1 / 8);
	r = q2_sync(q); /* the table in the file is the one in memory now */
	buf = calloc(1, len);
	if (r < 0 || !buf) {
		free(buf);
		return q2_fail(e, buf ? r : -ENOMEM, "cannot make the L1 table larger");
	}
	for (uint64_t k = 0; k < old_n; k++)
		q2_put64(buf + 8 * k, old[k]);
	if (len > old_len)
		r = q2_alloc(q, len >> q->h.bits, &off);
	/* Where there is room behind the old one, what is there may be anything. */
	if (r >= 0)
		r = off == old_off ? q2_write(q, buf + old_n * 8, len - old_n * 8, off + old_n * 8) : q2_write(q, buf, len, off);
	free(buf);
	if (r >= 0)
		r = q2_sync(q);
	if (r < 0)
		return q2_fail(e, r, "cannot write a larger L1 table");
	q->h.l1_off = off;
	q->h.l1_size = (uint32_t)entries;
	r = q2_header_update(q, e);
	if (r < 0) {
		q->failed = 1;
		return r;
	}
	q->l1 = NULL;
	free(q->l1_copy);
	free(q->l1_dirty);
	free(q->l1_copied);
	r = q2_l1_alloc(q, entries);
	if (r < 0) {
		q->l1 = old; /* as large as before: nothing may be done any more */
		q->h.l1_size = (uint32_t)old_n;
		q->failed = 1;
		return q2_fail(e, r, "no memory for the L1 table");
	}
	memcpy(q->l1, old, old_n * 8);
	free(old);
	if (off != old_off && old_n)
		q2_ref_add(q, old_off, old_n * 8, -1);
	return 0;
}

/* The clusters of [pos, end) go; their entries too when the L2 table stays (`keep`). */
static int drop_table(struct q2 *q, uint64_t pos, uint64_t end, int keep)
{
	struct q2_tbl *t;
	uint32_t index;
	int r = keep ? q2_l2_get_write(q, pos, 0, &t, &index) : q2_l2_get(q, pos, 0, &t, &index);

	if (r < 0)
		return r;
	pthread_mutex_lock(&t->lock);
	for (; pos < end; pos += q->cluster, index++) {
		struct q2_entry e = q2_l2_entry(q, t, index);

		if (!e.e && !e.bitmap)
			continue;
		if (keep)
			q2_l2_set(q, t, index, (struct q2_entry){0, 0});
		if (q2_entry_type(q, e, 0) != Q2_T_INVALID)
			q2_entry_free(q, e, 0);
	}
	pthread_mutex_unlock(&t->lock);
	q2_tbl_put(&q->l2, t);
	return 0;
}

static int shrink(struct q2 *q, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	uint64_t pos = q2_up(bytes, q->cluster), span = q2_l2_bytes(q), first = pos, all = (uint64_t)q->h.l1_size * span;
	int r = 0;

	if (bytes & (q->cluster - 1) && q->h.crypt)
		return q2_fail(e, -EINVAL, "an encrypted disk can only be shrunk to whole clusters of %llu bytes",
			       (unsigned long long)q->cluster);
	while (r >= 0 && pos < all) {
		uint64_t i = pos / span, l1e = q2_l1(q, i), stop = (i + 1) * span;
		int keep = pos % span != 0;

		q2_progress(j, pos - first, all - first);
		if (q2_cancelled(j))
			return q2_fail(e, -ECANCELED, "cancelled; the disk's end is lost already");
		for (; r >= 0 && l1e & Q2_OFFSET_MASK && pos < stop; pos = q2_min(q2_slice_end(q, pos), stop))
			r = drop_table(q, pos, q2_min(q2_slice_end(q, pos), stop), keep);
		pos = stop;
		if (r < 0 || keep || !(l1e & Q2_OFFSET_MASK))
			continue;
		q2_l1_set(q, i, 0);
		q2_meta_del(q, l1e & Q2_OFFSET_MASK);
		q2_free(q, l1e & Q2_OFFSET_MASK, q->cluster, 0);
		if (i % 256 == 255)
			r = q2_sync(q);
	}
	if (r >= 0)
		r = q2_sync(q);
	return r < 0 ? q2_fail(e, r, "cannot free the disk's end") : 0;
}

/* A new cluster with the first `keep` bytes of what x has, and zeros behind. */
static int tail_copy(struct q2 *q, uint64_t pos, struct q2_entry x, uint64_t keep)
{
	uint8_t *buf = calloc(1, q->cluster), *in = NULL;
	uint64_t off;
	int r = buf ? 0 : -ENOMEM;

	if (r >= 0 && x.e & Q2_COMPRESSED) {
		struct vh_extent c = {.pos = pos, .len = q->cluster, .type = VH_EXT_COMPRESSED, .bytes = q->cluster};

		q2_compressed(q, x.e, &c.addr, &c.aux);
		in = malloc(c.aux);
		r = in ? q2_read(q, in, c.aux, c.addr) : -ENOMEM;
		if (r >= 0)
			r = q2_decode(q, &c, in, c.aux, buf, q->cluster);
	} else if (r >= 0) {
		r = q2_read(q, buf, keep, x.e & Q2_OFFSET_MASK);
	}
	if (r >= 0) {
		memset(buf + keep, 0, q->cluster - keep);
		r = q2_alloc(q, 1, &off);
	}
	if (r >= 0) {
		struct q2_entry n = {off | Q2_COPIED, x.e & Q2_COMPRESSED ? 0xffffffff : x.bitmap};

		if (!q->extended)
			n.bitmap = 0;
		r = q2_write(q, buf, q->cluster, off);
		if (r >= 0)
			r = q2_entry_replace(q, pos, n);
	}
	free(buf);
	free(in);
	return r;
}

/* Sees to it that the last cluster, of which the disk ends at `bytes`, has zeros behind that. */
static int tail_zero(struct q2 *q, uint64_t bytes, struct vh_err *e)
{
	uint64_t base = q2_base(q, bytes), keep = bytes - base, sub_end;
	struct q2_entry x;
	struct q2_span s;
	struct q2_tbl *t;
	uint32_t index;
	int r = keep ? q2_l2_get(q, base, 0, &t, &index) : -ENOENT, own;

	if (r == -ENOENT && !keep)
		return 0;
	x = (struct q2_entry){0, 0};
	if (r >= 0) {
		pthread_mutex_lock(&t->lock);
		x = q2_l2_entry(q, t, index);
		pthread_mutex_unlock(&t->lock);
		q2_tbl_put(&q->l2, t);
	} else if (r != -ENOENT) {
		return q2_fail(e, r, "cannot read the mapping of the disk's end");
	}
	s = q2_span(q, x, bytes - 1);
	own = q->has_data || ((x.e & Q2_COPIED) && (q2_l1(q, base >> (q->h.bits + q->l2_bits)) & Q2_COPIED));
	sub_end = q2_min(q2_up(bytes, UINT64_C(1) << q->sub_bits), base + q->cluster);
	r = 0;
	if (s.type == Q2_T_INVALID)
		return q2_corrupt(q, "the mapping of byte %llu of the disk is damaged", (unsigned long long)base);
	if (s.type == Q2_T_UNALLOCATED && q->backing_all > bytes) {
		q2_hint(e, "write to the last sector of the disk first, or grow the backing chain's top only to whole clusters");
		return q2_fail(e, -EOPNOTSUPP, "the disk ends within a cluster that only the larger backing image has");
	}
	if (s.type == Q2_T_COMPRESSED || (s.type == Q2_T_NORMAL && !own && !q->h.crypt))
		r = tail_copy(q, base, x, keep);
	else if (s.type == Q2_T_NORMAL && own && !q->h.crypt && !q2_is_meta(q, s.host, 1))
		r = q2_io->zero(q->data, sub_end - bytes, s.host + 1);
	if (r >= 0 && q->extended && (x.e || x.bitmap) && s.type != Q2_T_COMPRESSED && sub_end < base + q->cluster) {
		uint64_t rest = UINT64_C(0xffffffff) >> ((sub_end - base) >> q->sub_bits) << ((sub_end - base) >> q->sub_bits);

		r = q2_l2_get_write(q, base, 0, &t, &index);
		if (r >= 0) {
			pthread_mutex_lock(&t->lock);
			x = q2_l2_entry(q, t, index);
			x.bitmap = (x.bitmap & ~rest) | rest << 32;
			q2_l2_set(q, t, index, x);
			pthread_mutex_unlock(&t->lock);
			q2_tbl_put(&q->l2, t);
		}
	}
	return r < 0 ? q2_fail(e, r, "cannot clear what lies behind the disk's end") : 0;
}

/* [pos, end) of a disk that is being made larger must not show the backing image. */
static int hide_backing(struct q2 *q, uint64_t pos, uint64_t end, struct vh_job *j)
{
	uint64_t from = pos, off;
	int r = 0;

	for (; r >= 0 && pos < end; pos += q->cluster) {
		struct q2_entry x = {Q2_ZERO, 0};

		if (!(pos & ((UINT64_C(256) << q->h.bits) - 1))) {
			q2_progress(j, pos - from, end - from);
			if (q2_cancelled(j))
				return -ECANCELED;
		}
		if (q->extended)
			x = (struct q2_entry){0, UINT64_C(0xffffffff) << 32};
		if (!q->zero_flag) { /* then only data can hide it */
			r = q2_alloc(q, 1, &off);
			if (r >= 0)
				r = q2_io->zero(q->vol, q->cluster, off);
			x.e = off | Q2_COPIED;
		}
		if (r >= 0)
			r = q2_entry_replace(q, pos, x);
	}
	return r;
}

static int larger(struct q2 *q, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	uint64_t entries = (bytes + q2_l2_bytes(q) - 1) / q2_l2_bytes(q), from = q2_up(q->h.bytes, q->cluster);
	int r = q2_l1_grow(q, entries, e);

	if (r >= 0)
		r = tail_zero(q, q->h.bytes, e);
	if (r < 0)
		return r;
	if (q->has_data && q2_io->bytes(q->data) < bytes) {
		r = q2_io->resize(q->data, bytes);
		if (r < 0)
			return q2_fail(e, r, "cannot make the data file %llu bytes large", (unsigned long long)bytes);
	}
	if (q->h.backing[0] && q->backing_all > from)
		r = hide_backing(q, from, q2_min(bytes, q->backing_all), j);
	if (r >= 0)
		r = q2_sync(q);
	return r < 0 ? q2_fail(e, r, "cannot prepare the disk's new end") : 0;
}

int q2_resize(void *img, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	struct q2 *q = img;
	uint64_t old = q->h.bytes;
	int r = q2_services(e);

	if (r < 0)
		return r;
	if (q->read_only)
		return q2_fail(e, -EROFS, "the image is read-only");
	if (q->failed)
		return q2_fail(e, -EIO, "the image is damaged");
	if (bytes % 512)
		return q2_fail(e, -EINVAL, "the size must be a multiple of 512 bytes");
	if (bytes > INT64_MAX - (UINT64_C(64) << 20))
		return q2_fail(e, -EFBIG, "%llu bytes are too many", (unsigned long long)bytes);
	if (bytes == old)
		return 0;
	if (q->h.nsnaps && q->h.version < 3) {
		q2_hint(e, "remove the snapshots, or amend the image to v3");
		return q2_fail(e, -EOPNOTSUPP, "an image of version 2 with snapshots cannot change its size");
	}
	r = q2_bitmaps_can_resize(q, bytes, e);
	if (r >= 0)
		r = q2_writing_begin(q, e);
	if (r >= 0)
		r = bytes > old ? larger(q, bytes, j, e) : shrink(q, bytes, j, e);
	if (r < 0)
		return r;
	q->h.bytes = bytes;
	r = q2_header_update(q, e);
	if (r < 0) {
		q->h.bytes = old;
		q->failed = 1; /* which size a reader will find is not known */
		return r;
	}
	q->backing_bytes = q2_min(q->backing_all, bytes); /* what is new has entries that hide it */
	if (q->has_data && bytes < old)
		q2_io->resize(q->data, bytes);
	return 0;
}
