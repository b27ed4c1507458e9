/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Answers: where a range lives, what a write needs, what becomes of a commit. Memory work under one short lock. */
#include "vdi.h"

#define FAR 4096u /* blocks that an answer may reach past what was asked for */

static int allocated(uint32_t x)
{
	return x < VDI_ZERO;
}

/* Whether an unmapped position shows the parent. */
static int shows_parent(const struct vdi *v, uint32_t x, uint64_t pos)
{
	return x == VDI_FREE && pos < v->backing_bytes;
}

static uint64_t block_end(const struct vdi *v, uint32_t b)
{
	uint64_t end = ((uint64_t)b + 1) * v->h.block;

	return end < v->h.bytes ? end : v->h.bytes;
}

/* READ and REPORT: what block b says from pos to its end, or to where the parent ends. */
static void say(const struct vdi *v, uint32_t b, uint64_t pos, uint32_t op, struct vh_extent *x)
{
	uint32_t entry = vdi_entry(v, b);

	x->pos = pos;
	x->len = block_end(v, b) - pos;
	x->flags = VH_EXT_CACHE;
	if (op == VH_MAP_REPORT && entry != VDI_FREE)
		x->flags |= VH_EXT_ALLOCATED;
	if (allocated(entry)) {
		x->type = v->opaque ? VH_EXT_OPAQUE : VH_EXT_DATA;
		x->addr = v->opaque ? 0 : vdi_slot_addr(&v->h, entry) + (pos & (v->h.block - 1));
		if (v->opaque)
			x->flags &= ~VH_EXT_CACHE;
	} else if (shows_parent(v, entry, pos)) {
		x->type = VH_EXT_BACKING;
		if (x->len > v->backing_bytes - pos)
			x->len = v->backing_bytes - pos;
	} else {
		x->type = VH_EXT_ZERO;
	}
}

static int joins(const struct vh_extent *a, const struct vh_extent *b)
{
	return a->type == b->type && a->flags == b->flags && (a->type != VH_EXT_DATA || a->addr + a->len == b->addr);
}

/* Questions: neighbours are joined, also past the end of the range. */
static void map_read(const struct vdi *v, struct vh_map *m)
{
	uint64_t pos = m->pos, stop = m->pos + m->len, far = stop + (uint64_t)FAR * v->h.block;

	while (pos < v->h.bytes && pos < far) {
		struct vh_extent x = {0};

		say(v, (uint32_t)(pos / v->h.block), pos, m->op, &x);
		if (m->n && joins(&m->ext[m->n - 1], &x)) {
			m->ext[m->n - 1].len += x.len;
		} else {
			if (pos >= stop || m->n == m->cap)
				return;
			m->ext[m->n++] = x;
		}
		pos += x.len;
	}
}

/* The blocks from pos on that can be overwritten where they are, as one extent. */
static void overwrite(const struct vdi *v, uint64_t pos, struct vh_extent *x)
{
	uint32_t b = (uint32_t)(pos / v->h.block), first = vdi_entry(v, b);

	x->pos = pos;
	x->type = VH_EXT_DATA;
	x->flags = VH_EXT_PURE | VH_EXT_CACHE;
	x->addr = vdi_slot_addr(&v->h, first) + (pos & (v->h.block - 1));
	x->len = block_end(v, b) - pos;
	for (uint32_t k = 1; !v->h.extra && k < FAR && (uint64_t)b + k < v->h.blocks && pos + x->len < v->h.bytes; k++) {
		if (vdi_entry(v, b + k) != first + k)
			break;
		x->len = block_end(v, b + k) - pos;
	}
}

static int allocate(struct vdi *v, uint32_t b, uint64_t pos, uint64_t end, struct vh_extent *x)
{
	uint64_t base = (uint64_t)b * v->h.block;
	uint8_t fill = shows_parent(v, vdi_entry(v, b), base) ? VH_FILL_BACKING : VH_FILL_ZERO;
	uint32_t slot;
	int r = vdi_slot_take(v, b, &slot);

	if (r < 0)
		return r;
	x->type = VH_EXT_DATA;
	x->flags = VH_EXT_COMMIT;
	x->pos = pos;
	x->len = end - pos;
	x->addr = vdi_slot_addr(&v->h, slot) + (pos - base);
	x->head = (uint32_t)(pos - base);
	x->tail = (uint32_t)(base + v->h.block - end);
	x->fill_head = x->head ? fill : VH_FILL_NONE;
	x->fill_tail = x->tail ? fill : VH_FILL_NONE;
	return 0;
}

/* ZERO and DISCARD of [pos, end) within block b. */
static int erase(struct vdi *v, const struct vh_map *m, uint32_t b, uint64_t pos, uint64_t end, struct vh_extent *x)
{
	uint64_t base = (uint64_t)b * v->h.block;
	uint32_t entry = vdi_entry(v, b);
	int whole = pos == base && end == block_end(v, b);

	x->pos = pos;
	x->len = end - pos;
	x->type = VH_EXT_TRIM;
	x->flags = VH_EXT_PURE;
	if (allocated(entry) && whole && v->h.type != VDI_TYPE_STATIC &&
	    (m->op == VH_MAP_DISCARD || (m->flags & VH_MAP_MAY_UNMAP))) {
		x->flags = VH_EXT_COMMIT; /* the host punches it, then commit() gives it up */
		x->addr = vdi_slot_addr(&v->h, entry);
		x->bytes = v->h.block;
	} else if (allocated(entry)) {
		x->addr = vdi_slot_addr(&v->h, entry) + (pos - base);
		if (m->op == VH_MAP_DISCARD)
			x->bytes = x->len;
		else
			x->type = VH_EXT_DATA;
	} else if (m->op == VH_MAP_ZERO && shows_parent(v, entry, pos)) {
		if (!whole)
			return allocate(v, b, pos, end, x);
		x->flags = VH_EXT_COMMIT; /* nothing to punch, but the entry changes */
	}
	return 0;
}

/* Slots of an answer, from its address. */
static uint32_t slot_of(const struct vdi *v, const struct vh_extent *x)
{
	return (uint32_t)((x->addr - v->h.data_off) / v->stride);
}

static void take_back(struct vdi *v, const struct vh_map *m, int late)
{
	for (uint32_t k = 0; k < m->n; k++) {
		const struct vh_extent *x = &m->ext[k];
		uint32_t b = (uint32_t)(x->pos / v->h.block), last = (uint32_t)((x->pos + x->len - 1) / v->h.block);
		uint32_t slot;

		if (!(x->flags & VH_EXT_COMMIT) || x->type != VH_EXT_DATA)
			continue;
		slot = slot_of(v, x);
		for (; b <= last; b++, slot++)
			vdi_slot_take_back(v, b, slot, late);
	}
}

/* Two allocations, one behind the other in the file, with nothing to fill between them. */
static int allocations_join(const struct vh_extent *a, const struct vh_extent *b)
{
	return a->type == VH_EXT_DATA && b->type == VH_EXT_DATA && a->flags == VH_EXT_COMMIT && b->flags == VH_EXT_COMMIT &&
	       !a->tail && !b->head && a->addr + a->len == b->addr;
}

static int map_change(struct vdi *v, struct vh_map *m)
{
	uint64_t pos = m->pos, stop = m->pos + m->len;
	int r = 0;

	while (pos < stop) {
		uint32_t b = (uint32_t)(pos / v->h.block);
		uint64_t end = block_end(v, b) < stop ? block_end(v, b) : stop;
		struct vh_extent x = {0};

		if (m->op == VH_MAP_WRITE && allocated(vdi_entry(v, b))) {
			overwrite(v, pos, &x);
		} else if (m->op == VH_MAP_WRITE) {
			if (m->flags & VH_MAP_OVERWRITE_ONLY)
				break;
			r = allocate(v, b, pos, end, &x);
		} else {
			r = erase(v, m, b, pos, end, &x);
		}
		if (r < 0)
			break;
		if (m->n && allocations_join(&m->ext[m->n - 1], &x)) {
			struct vh_extent *a = &m->ext[m->n - 1];

			a->len += x.len;
			a->tail = x.tail;
			a->fill_tail = x.fill_tail;
		} else if (m->n == m->cap) {
			if (x.type == VH_EXT_DATA && (x.flags & VH_EXT_COMMIT))
				vdi_slot_take_back(v, b, slot_of(v, &x), 0);
			break;
		} else {
			m->ext[m->n++] = x;
		}
		pos += x.len;
	}
	if (r < 0 && m->n)
		r = 0; /* the host comes again for the rest, and is told then */
	return r;
}

int vdi_map(void *img, struct vh_map *m)
{
	struct vdi *v = img;
	int asks = m->op == VH_MAP_READ || m->op == VH_MAP_REPORT, nowait = m->flags & VH_MAP_NOWAIT, r = 0;

	m->n = 0;
	if (m->pos >= v->h.bytes || !m->cap || !m->len || m->len > v->h.bytes - m->pos)
		return -EINVAL;
	if (m->op < VH_MAP_READ || m->op > VH_MAP_REPORT)
		return -EOPNOTSUPP;
	if (!asks && (v->read_only || v->damaged))
		return v->read_only ? -EROFS : -EIO;
	/* Before the first change, the modification UUID: an overwrite in place is one as well. */
	if (!asks && !__atomic_load_n(&v->stamped, __ATOMIC_ACQUIRE)) {
		if (m->flags & VH_MAP_OVERWRITE_ONLY)
			return 0;
		if (nowait)
			return -EAGAIN;
		r = vdi_stamp(v);
		if (r < 0)
			return r;
	}
	if (nowait) {
		if (pthread_mutex_trylock(&v->lock))
			return -EAGAIN;
	} else {
		pthread_mutex_lock(&v->lock);
	}
	if (asks)
		map_read(v, m);
	else
		r = map_change(v, m);
	pthread_mutex_unlock(&v->lock);
	return r;
}

static void take_effect(struct vdi *v, const struct vh_map *m)
{
	for (uint32_t k = 0; k < m->n; k++) {
		const struct vh_extent *x = &m->ext[k];
		uint32_t b = (uint32_t)(x->pos / v->h.block), last = (uint32_t)((x->pos + x->len - 1) / v->h.block), slot;

		if (!(x->flags & VH_EXT_COMMIT))
			continue;
		if (x->type == VH_EXT_TRIM) {
			uint32_t entry = vdi_entry(v, b);

			if (allocated(entry))
				vdi_slot_unlink(v, b, entry);
			vdi_entry_set(v, b, (uint64_t)b * v->h.block < v->backing_bytes ? VDI_ZERO : VDI_FREE);
			continue;
		}
		slot = slot_of(v, x);
		for (; b <= last; b++, slot++) {
			vdi_entry_set(v, b, slot);
			v->pend[b] = 0;
		}
	}
}

int vdi_commit(void *img, struct vh_map *m, int status, uint32_t nowait)
{
	struct vdi *v = img;

	if (nowait) {
		if (pthread_mutex_trylock(&v->lock))
			return -EAGAIN;
	} else {
		pthread_mutex_lock(&v->lock);
	}
	if (status < 0)
		take_back(v, m, status == -ETIMEDOUT);
	else
		take_effect(v, m);
	pthread_mutex_unlock(&v->lock);
	return 0;
}

/* OPAQUE: old images whose blocks do not begin on sectors. Only ever opened to read. */
int vdi_read(void *img, struct vh_req *req)
{
	struct vdi *v = img;
	uint64_t pos = req->off, end = req->off + req->len, used = 0;
	uint32_t seg = 0;

	while (pos < end && seg < req->niov) {
		uint64_t n = block_end(v, (uint32_t)(pos / v->h.block)) - pos, left = req->iov[seg].iov_len - used;
		uint32_t entry;
		int r = 0;

		n = n < end - pos ? n : end - pos;
		n = n < left ? n : left;
		pthread_mutex_lock(&v->lock);
		entry = vdi_entry(v, (uint32_t)(pos / v->h.block));
		pthread_mutex_unlock(&v->lock);
		if (n && allocated(entry))
			r = vdi_meta->read(v->volume, (uint8_t *)req->iov[seg].iov_base + used, n,
					   vdi_slot_addr(&v->h, entry) + (pos & (v->h.block - 1)));
		else if (n)
			memset((uint8_t *)req->iov[seg].iov_base + used, 0, n);
		if (r < 0)
			return r;
		pos += n;
		used += n;
		if (used == req->iov[seg].iov_len) {
			seg++;
			used = 0;
		}
	}
	return pos == end ? 0 : -EINVAL;
}
