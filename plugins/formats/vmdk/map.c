/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Where a range of the disk lives. One piece per grain is worked out, and joined to the one before where both are one run. */
#include "vmdk.h"

struct ask { /* one map call under way */
	struct image *im;
	struct vh_map *m;
	uint64_t pos, stop, limit; /* what was asked ends at stop; an answer may reach to limit */
	int nowait;
};

struct extent *extent_at(struct image *im, uint64_t pos)
{
	uint32_t lo = 0, hi = im->nx;

	while (hi - lo > 1) {
		uint32_t mid = lo + (hi - lo) / 2;

		if (im->x[mid].first <= pos / SECTOR)
			lo = mid;
		else
			hi = mid;
	}
	return &im->x[lo];
}

static int visible(const struct image *im, uint64_t pos)
{
	return im->backing && pos < im->backing_bytes;
}

static void plain(const struct ask *a, struct extent *x, uint64_t end, struct vh_extent *ext)
{
	ext->len = end - a->pos;
	ext->vol = x->vol;
	ext->addr = (x->offset + (a->pos / SECTOR - x->first)) * SECTOR + a->pos % SECTOR;
	ext->type = VH_EXT_DATA;
	switch (a->m->op) {
	case VH_MAP_REPORT:
		ext->flags = VH_EXT_CACHE | VH_EXT_ALLOCATED;
		break;
	case VH_MAP_READ:
		ext->flags = VH_EXT_CACHE;
		break;
	case VH_MAP_WRITE:
		ext->flags = VH_EXT_PURE | VH_EXT_CACHE;
		break;
	default:
		ext->flags = VH_EXT_PURE;
		if (a->m->op == VH_MAP_DISCARD) {
			ext->type = VH_EXT_TRIM;
			ext->bytes = ext->len;
		}
	}
}

/* Nothing of this extent is stored: an extent of zeros, or a piece where neither entry nor change is needed. */
static void nothing(const struct ask *a, uint64_t end, struct vh_extent *ext)
{
	ext->len = end - a->pos;
	ext->type = a->m->op == VH_MAP_READ || a->m->op == VH_MAP_REPORT ? VH_EXT_ZERO : VH_EXT_TRIM;
	ext->flags = ext->type == VH_EXT_ZERO ? VH_EXT_CACHE : VH_EXT_PURE;
}

/* READ and REPORT of [pos, end) whose entry is e. */
static void say(const struct ask *a, struct extent *x, uint64_t e, uint64_t base, uint64_t end, struct vh_extent *ext)
{
	nothing(a, end, ext);
	if (e != GTE_NONE && a->m->op == VH_MAP_REPORT)
		ext->flags |= VH_EXT_ALLOCATED;
	if (e == GTE_NONE && visible(a->im, a->pos)) {
		ext->type = VH_EXT_BACKING;
		ext->len = MIN(end, a->im->backing_bytes) - a->pos;
	} else if (e > GTE_ZERO) {
		ext->type = VH_EXT_DATA;
		ext->vol = x->vol;
		ext->addr = e * SECTOR + (a->pos - base);
	}
}

/* How much is stored is known only from the marker before it; the next grain's place says how much it can be at most. */
static void say_compressed(const struct ask *a, struct extent *x, const struct table *t, uint32_t k, uint64_t base,
			   uint64_t gend, struct vh_extent *ext)
{
	uint64_t e = table_entry(t, k, x->wide), most = MIN(2 * x->grain, x->end - e);

	while (++k < x->gtes && table_entry(t, k, x->wide) <= GTE_ZERO)
		;
	if (k < x->gtes && table_entry(t, k, x->wide) > e)
		most = MIN(most, table_entry(t, k, x->wide) - e);
	ext->type = VH_EXT_COMPRESSED;
	ext->vol = x->vol;
	ext->addr = e * SECTOR;
	ext->aux = (uint32_t)(most * SECTOR);
	ext->bytes = gend - base;
	ext->head = (uint32_t)(a->pos - base);
	ext->len = gend - a->pos;
	ext->tail = 0;
}

static int table_make(struct extent *x, uint32_t index, struct table **t)
{
	uint64_t gt, rgt = 0;
	int r = space_take_tables(x, x->gt_sectors, &gt);

	if (r >= 0 && x->rgd)
		r = space_take_tables(x, x->gt_sectors, &rgt);
	if (r >= 0)
		r = table_new(x, index, t);
	if (r < 0)
		return r;
	x->gd[index] = (uint32_t)gt;
	if (x->rgd)
		x->rgd[index] = (uint32_t)rgt;
	return 0;
}

/* A new grain for [pos, end), the rest of it filled with what would be read there now. */
static int allocate(const struct ask *a, struct extent *x, struct table *t, uint64_t e, uint64_t base, uint64_t end,
		    struct vh_extent *ext)
{
	uint64_t grain = x->grain * SECTOR, s;
	uint8_t fill = e == GTE_NONE && visible(a->im, base) ? VH_FILL_BACKING : VH_FILL_ZERO;
	int r = space_take(x, &s);

	if (r < 0)
		return r;
	t->pins++;
	ext->type = VH_EXT_DATA;
	ext->flags = VH_EXT_COMMIT;
	ext->vol = x->vol;
	ext->addr = s * SECTOR + (a->pos - base);
	ext->len = end - a->pos;
	ext->head = (uint32_t)(a->pos - base);
	ext->tail = (uint32_t)(base + grain - end);
	ext->fill_head = ext->head ? fill : VH_FILL_NONE;
	ext->fill_tail = ext->tail ? fill : VH_FILL_NONE;
	return 0;
}

/* ZERO and DISCARD: what is to be done with [pos, end) of a grain. */
enum erasure { ERASE_NOTHING, ERASE_WRITE, ERASE_PUNCH, ERASE_UNLINK, ERASE_ALLOCATE };
static enum erasure erasure(const struct ask *a, const struct extent *x, uint64_t e, int whole)
{
	int free_it = whole && (x->zero_gte || !visible(a->im, a->pos));

	if (e > GTE_ZERO) {
		if (free_it && (a->m->op == VH_MAP_DISCARD || (a->m->flags & VH_MAP_MAY_UNMAP)))
			return ERASE_UNLINK;
		return a->m->op == VH_MAP_DISCARD ? ERASE_PUNCH : ERASE_WRITE;
	}
	if (a->m->op == VH_MAP_DISCARD || e == GTE_ZERO || !visible(a->im, a->pos))
		return ERASE_NOTHING;
	return free_it ? ERASE_UNLINK : ERASE_ALLOCATE;
}

static int erase(const struct ask *a, struct extent *x, struct table *t, uint64_t e, uint64_t base, uint64_t end,
		 enum erasure how, struct vh_extent *ext)
{
	if (how == ERASE_ALLOCATE)
		return allocate(a, x, t, e, base, end, ext);
	nothing(a, end, ext);
	ext->vol = x->vol;
	ext->addr = how == ERASE_NOTHING || e <= GTE_ZERO ? 0 : e * SECTOR + (a->pos - base);
	if (how == ERASE_WRITE)
		ext->type = VH_EXT_DATA;
	if (how == ERASE_PUNCH)
		ext->bytes = ext->len;
	if (how != ERASE_UNLINK)
		return 0;
	if (e > GTE_ZERO) {
		if (list_reserve(&x->freed, x->promised + 1) < 0)
			return -ENOMEM;
		x->promised++;
		ext->bytes = x->grain * SECTOR; /* punched by the host, freed by commit() */
	}
	t->pins++;
	ext->flags = VH_EXT_COMMIT;
	return 0;
}

/* 1: an answer ends before this piece. */
static int sparse(struct ask *a, struct extent *x, uint64_t x_end, struct vh_extent *ext)
{
	uint64_t g = (a->pos / SECTOR - x->first) / x->grain, grain = x->grain * SECTOR;
	uint64_t base = x->first * SECTOR + g * grain, gend = MIN(base + grain, x_end), end = MIN(gend, a->limit), e = GTE_NONE;
	uint32_t index = (uint32_t)(g / x->gtes), k = (uint32_t)(g % x->gtes), op = a->m->op;
	enum erasure how = ERASE_NOTHING;
	struct table *t;
	int r = table_get(x, index, a->nowait, &t), changes;

	if (r < 0)
		return r;
	if (t)
		e = table_entry(t, k, x->wide);
	else if (op != VH_MAP_WRITE) /* all that a table would cover */
		end = MIN(MIN(x_end, (x->first + (uint64_t)(index + 1) * x->gtes * x->grain) * SECTOR), a->limit);
	if (!entry_ok(x, e)) {
		r = -EIO;
		goto out;
	}
	if (op == VH_MAP_READ || op == VH_MAP_REPORT) {
		if (x->compressed && e > GTE_ZERO) {
			if (a->im->stream && stream_unwritten(a->im, e)) {
				r = -EAGAIN; /* vmdk_map() writes it out when it may */
				goto out;
			}
			say_compressed(a, x, t, k, base, gend, ext);
			ext->flags = op == VH_MAP_REPORT ? VH_EXT_ALLOCATED : 0;
		} else {
			say(a, x, e, base, end, ext);
		}
		goto out;
	}
	if (op == VH_MAP_WRITE && e > GTE_ZERO) {
		ext->type = VH_EXT_DATA;
		ext->flags = VH_EXT_PURE | VH_EXT_CACHE;
		ext->vol = x->vol;
		ext->addr = e * SECTOR + (a->pos - base);
		ext->len = end - a->pos;
		goto out;
	}
	if (op == VH_MAP_WRITE && (a->m->flags & VH_MAP_OVERWRITE_ONLY)) {
		r = 1;
		goto out;
	}
	if (op != VH_MAP_WRITE) {
		if (!t && visible(a->im, a->pos) && op == VH_MAP_ZERO)
			end = MIN(gend, a->limit); /* grain by grain, then */
		how = erasure(a, x, e, a->pos == base && end == gend);
	}
	changes = op == VH_MAP_WRITE || how == ERASE_UNLINK || how == ERASE_ALLOCATE;
	if (changes)
		r = space_begin(x, a->nowait);
	if (r >= 0 && changes && !t && !table_find(x, index))
		r = table_make(x, index, &t);
	else if (r >= 0 && changes && !t) /* another range of the same table was faster */
		r = table_get(x, index, a->nowait, &t);
	if (r >= 0 && op == VH_MAP_WRITE)
		r = allocate(a, x, t, e, base, end, ext);
	else if (r >= 0)
		r = erase(a, x, t, e, base, end, how, ext);
out:
	if (t)
		table_put(t);
	return r;
}

static int join(struct vh_extent *a, const struct vh_extent *b)
{
	if (a->type != b->type || a->flags != b->flags || a->pos + a->len != b->pos || a->len + b->len < a->len)
		return 0;
	switch (a->type) {
	case VH_EXT_DATA:
		if (a->vol != b->vol || a->addr + a->len != b->addr || a->tail || b->head)
			return 0;
		a->tail = b->tail;
		a->fill_tail = b->fill_tail;
		break;
	case VH_EXT_TRIM:
		if (!a->bytes != !b->bytes)
			return 0;
		if (a->bytes && (a->vol != b->vol || a->addr + a->bytes != b->addr || a->bytes != a->len))
			return 0;
		a->bytes += b->bytes;
		break;
	case VH_EXT_COMPRESSED:
		return 0;
	default:
		break;
	}
	a->len += b->len;
	return 1;
}

static int piece(struct ask *a, struct vh_extent *ext)
{
	struct extent *x = extent_at(a->im, a->pos);
	uint64_t x_end = (x->first + x->sectors) * SECTOR;
	int reads = a->m->op == VH_MAP_READ || a->m->op == VH_MAP_REPORT;

	memset(ext, 0, sizeof(*ext));
	ext->pos = a->pos;
	if (x->access == ACCESS_NONE)
		return -EACCES;
	if (!reads && x->access != ACCESS_RW)
		return -EROFS;
	switch (x->kind) {
	case KIND_FLAT:
		plain(a, x, MIN(x_end, a->limit), ext);
		return 0;
	case KIND_ZERO:
		if (a->m->op == VH_MAP_WRITE)
			return -EROFS;
		nothing(a, MIN(x_end, a->limit), ext);
		return 0;
	default:
		return sparse(a, x, x_end, ext);
	}
}

static int walk(struct ask *a)
{
	struct vh_map *m = a->m;
	unsigned further = 1024; /* pieces past what was asked for, as long as they go on where the last one ends */
	unsigned pieces = 8192;  /* of one call: the host comes again, and others want the lock */
	int r;

	while (a->pos < a->limit && (pieces-- || !m->n)) {
		struct vh_extent ext;

		if (a->pos >= a->stop && !further--)
			break;
		if (a->pos >= a->stop)
			a->nowait = 1;
		r = piece(a, &ext);
		if (r && a->pos >= a->stop)
			break;
		if (r == 1 || (r == -EAGAIN && m->n))
			break;
		if (r < 0) {
			take_back(a->im, m, 0);
			m->n = 0;
			return r;
		}
		if (!m->n || !join(&m->ext[m->n - 1], &ext)) {
			if (a->pos >= a->stop)
				break;
			if (m->n == m->cap) {
				struct vh_map one = *m; /* there is no room for it */

				one.ext = &ext;
				one.n = 1;
				take_back(a->im, &one, 0);
				break;
			}
			m->ext[m->n++] = ext;
		}
		a->pos += ext.len;
	}
	return 0;
}

int vmdk_map(void *img, struct vh_map *m)
{
	struct image *im = img;
	uint64_t bytes = im->sectors * SECTOR;
	int reads = m->op == VH_MAP_READ || m->op == VH_MAP_REPORT, only = m->flags & VH_MAP_OVERWRITE_ONLY, r = 0;
	struct ask a = {im, m, m->pos, m->pos + m->len, reads || only ? bytes : m->pos + m->len, m->flags & VH_MAP_NOWAIT};

	m->n = 0;
	if (!m->cap || !m->len || m->pos >= bytes || m->len > bytes - m->pos || m->op < VH_MAP_READ || m->op > VH_MAP_REPORT)
		return -EINVAL;
	if (!reads && im->read_only)
		return -EROFS;
	if (!reads && im->stream_format)
		return -EOPNOTSUPP;
	if (reads && !a.nowait && im->stream) { /* what is read must be in the file */
		r = stream_write_out(im);
		if (r < 0)
			return r;
	}
	pthread_mutex_lock(&im->lock);
	if (!reads && im->cid_state != 2) {
		if (only)
			goto out;
		r = image_begin(im, a.nowait);
	}
	if (r >= 0)
		r = walk(&a);
out:
	pthread_mutex_unlock(&im->lock);
	return r;
}
