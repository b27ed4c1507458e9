/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Other sizes, other parents, nothing at all. A crash at any point leaves the image as it was or as it shall be (a
 * shrinking one may have lost what it was about to lose): the header's sector, which is written last, decides.
 */
#include <endian.h>
#include <stdlib.h>
#include "vdi.h"

static int writable(struct vdi *v, struct vh_err *e)
{
	int r;

	if (v->read_only)
		return vdi_fail(e, -EROFS, "the image is open read-only");
	if (v->damaged)
		return vdi_hint(e, "repair it first"), vdi_fail(e, -EIO, "the block map is damaged");
	r = vdi_stamp(v);
	return r < 0 ? vdi_fail(e, r, "cannot write a new modification UUID") : vdi_sync(v, e);
}

/* What the parent or old data would show behind the old end must read as zeros. */
static int clear_behind(struct vdi *v, struct vh_err *e)
{
	uint64_t used = v->h.bytes % v->h.block;
	uint32_t b = (uint32_t)(v->h.bytes / v->h.block), entry;
	int r;

	if (!used)
		return 0;
	entry = vdi_entry(v, b);
	if (entry == VDI_FREE && v->parent_bytes > v->h.bytes) {
		vdi_hint(e, "write to the last sector of the disk first");
		return vdi_fail(e, -EOPNOTSUPP, "the parent is larger than the disk, and would show behind its old end");
	}
	if (entry >= VDI_ZERO)
		return 0;
	r = vdi_meta->zero(v->volume, v->h.block - used, vdi_slot_addr(&v->h, entry) + used);
	return r < 0 ? vdi_fail(e, r, "cannot clear the rest of the last block") : 0;
}

/* Writes entries [first, n) of a map in memory order. */
static int map_put(struct vdi *v, const uint32_t *map, uint32_t first, uint32_t n, uint32_t off)
{
	uint32_t buf[VDI_PAGE];
	int r = 0;

	for (uint32_t b = first; b < n && r >= 0;) {
		uint32_t k = 0;

		for (; k < VDI_PAGE && b + k < n; k++)
			buf[k] = htole32(~map[b + k]);
		r = vdi_meta->write(v->volume, buf, k * 4, off + (uint64_t)b * 4);
		b += k;
	}
	return r;
}

/* New blocks of a static image: slots at the end, which read as zeros. */
static int extend(struct vdi *v, const struct vdi_header *h, uint32_t first, uint32_t end, struct vh_err *e)
{
	uint64_t from = h->data_off + first * v->stride, to = h->data_off + end * v->stride;
	uint64_t have = vdi_meta->bytes(v->volume);
	int r = have < to ? vdi_meta->resize(v->volume, to) : 0;

	if (r >= 0 && from < have)
		r = vdi_meta->zero(v->volume, (have < to ? have : to) - from, from);
	return r < 0 ? vdi_fail(e, r, "cannot make the file %llu bytes large", ULL(to)) : 0;
}

/* Gives up the blocks from `first` on. */
static int drop(struct vdi *v, uint32_t first, struct vh_err *e)
{
	int any = 0;

	for (uint32_t b = first; b < v->h.blocks; b++) {
		uint32_t entry = vdi_entry(v, b), x = vdi_has_parent(&v->h) ? VDI_ZERO : VDI_FREE;

		if (entry < VDI_ZERO)
			vdi_slot_unlink(v, b, entry);
		if (entry != x)
			vdi_entry_set(v, b, x);
		any |= entry != x;
	}
	return any ? vdi_sync(v, e) : 0;
}

static uint32_t blocks_of(const struct vdi *v)
{
	return (uint32_t)(v->h.bytes / v->h.block + (v->h.bytes % v->h.block != 0));
}

static int grow(struct vdi *v, uint64_t bytes, uint32_t blocks, struct vh_job *j, struct vh_err *e)
{
	uint32_t cut, old = v->h.blocks, end;
	struct vdi_header h;
	struct vdi t = {0};
	int r = clear_behind(v, e);

	if (r >= 0 && v->h.type != VDI_TYPE_STATIC)
		r = drop(v, blocks_of(v), e); /* some images have more blocks than their disk needs */
	if (r < 0)
		return r;
	if (v->h.type == VDI_TYPE_STATIC && blocks > old) /* dense, so that the new slots can follow */
		r = vdi_compact(v, NULL, j, e);
	h = v->h;
	if (r >= 0)
		r = vdi_make_room(v, blocks, &h.map_off, &cut, j, e);
	if (r >= 0)
		r = vdi_arrays(v, blocks, &t, e);
	if (r < 0)
		return r;
	/* What shall be is put together beside what is, which stays true until the header has changed. */
	h.data_off += (uint32_t)(cut * v->stride);
	for (uint32_t b = 0; b < old && cut; b++)
		if (~t.map[b] < VDI_ZERO)
			t.map[b] = ~(~t.map[b] - cut);
	if (cut) {
		memmove(t.slot, t.slot + cut, blocks + VDI_SPARE - cut);
		memset(t.slot + blocks + VDI_SPARE - cut, 0, cut);
		memmove(t.owner, t.owner + cut, (blocks + VDI_SPARE - cut) * sizeof(*t.owner));
		memset(t.pend, 0, blocks * sizeof(*t.pend)); /* after vdi_sync() none means anything */
	}
	t.end = end = v->end - (v->end < cut ? v->end : cut);
	for (uint32_t b = old; b < blocks; b++) {
		if (h.type == VDI_TYPE_STATIC) {
			t.map[b] = ~end;
			t.slot[end] = SLOT_USED;
			t.owner[end++] = b;
		} else {
			t.map[b] = ~((uint64_t)b * h.block < v->parent_bytes ? VDI_ZERO : VDI_FREE);
		}
	}
	if (end > t.end)
		r = extend(v, &h, t.end, end, e);
	if (r >= 0)
		r = map_put(v, t.map, h.map_off == v->h.map_off ? old : 0, blocks, h.map_off);
	if (r >= 0)
		r = vdi_meta->flush(v->volume);
	h.bytes = bytes;
	h.blocks = blocks;
	h.allocated = end;
	if (r >= 0)
		r = vdi_header_update(v, &h);
	if (r < 0) {
		vdi_arrays_free(&t);
		if (v->damaged)
			vdi_hint(e, "open the image again: it has the old size or the new one");
		return vdi_fail(e, r, "cannot write the new block map");
	}
	vdi_arrays_free(v);
	vdi_arrays_move(&t, v);
	v->end = end;
	v->hint = 0;
	return 0;
}

static int shrink(struct vdi *v, uint64_t bytes, uint32_t blocks, struct vh_job *j, struct vh_err *e)
{
	struct vdi_header h;
	int r = drop(v, blocks, e);

	if (r >= 0)
		r = vdi_compact(v, NULL, j, e);
	if (r >= 0 && v->end > blocks) {
		vdi_hint(e, "close the image and repeat it");
		r = vdi_fail(e, -EBUSY, "data of a write that timed out may still come behind the new end");
	}
	if (r < 0)
		return r;
	h = v->h;
	h.bytes = bytes;
	h.blocks = blocks;
	h.allocated = v->end;
	r = vdi_header_update(v, &h);
	if (r < 0)
		return vdi_fail(e, r, "cannot write the header");
	vdi_truncate(v);
	return 0;
}

int vdi_resize(void *img, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	struct vdi *v = img;
	uint64_t blocks = bytes / v->h.block + (bytes % v->h.block != 0);
	int r;

	if (bytes % VDI_SECTOR)
		return vdi_fail(e, -EINVAL, "%llu bytes are no whole sectors of %u", ULL(bytes), VDI_SECTOR);
	if (blocks > VDI_MAX_BLOCKS)
		return vdi_fail(e, -EFBIG, "%llu blocks of %u bytes; at most %u are possible", ULL(blocks), v->h.block, VDI_MAX_BLOCKS);
	r = writable(v, e);
	if (r < 0 || bytes == v->h.bytes)
		return r;
	/* More blocks than the disk needs are no reason to lose the map's rest: they go with the header. */
	r = bytes > v->h.bytes ? grow(v, bytes, blocks > v->h.blocks ? (uint32_t)blocks : v->h.blocks, j, e) :
				 shrink(v, bytes, (uint32_t)blocks, j, e);
	v->backing_bytes = v->parent_bytes < v->h.bytes ? v->parent_bytes : v->h.bytes;
	return r;
}

int vdi_empty(void *img, struct vh_job *j, struct vh_err *e)
{
	struct vdi *v = img;
	int r;

	if (v->h.type == VDI_TYPE_STATIC)
		return vdi_fail(e, -EOPNOTSUPP, "a static image has all its blocks, always");
	r = writable(v, e);
	if (r < 0)
		return r;
	for (uint32_t b = 0; b < v->h.blocks; b++) {
		uint32_t entry = vdi_entry(v, b);

		if (entry < VDI_ZERO)
			vdi_slot_unlink(v, b, entry);
		if (entry != VDI_FREE)
			vdi_entry_set(v, b, VDI_FREE);
	}
	r = vdi_sync(v, e);
	if (r >= 0)
		vdi_truncate(v);
	return r;
}

int vdi_set_backing(void *img, const char *name, const char *format, uint64_t bytes, struct vh_meta *volume, struct vh_err *e)
{
	struct vdi *v = img;
	struct vdi_header h, p;
	int r;

	if (name && (!format || strcmp(format, "vdi") || !volume))
		return vdi_fail(e, -EOPNOTSUPP, "the parent of a vdi image is a vdi image: it is known by its UUID alone");
	if (name && v->h.type == VDI_TYPE_STATIC)
		return vdi_fail(e, -EOPNOTSUPP, "a static image has no use for a parent");
	r = writable(v, e);
	if (r >= 0 && name)
		r = vdi_header_read(volume, &p, e);
	if (r < 0)
		return r;
	h = v->h;
	memset(h.parent, 0, 16);
	memset(h.parent_modified, 0, 16);
	if (name) {
		memcpy(h.parent, p.uuid, 16);
		memcpy(h.parent_modified, p.modified, 16);
		if (!vdi_has_parent(&h))
			return vdi_fail(e, -EINVAL, "the parent image has no UUID");
	}
	if (h.type != VDI_TYPE_STATIC)
		h.type = name ? VDI_TYPE_DIFF : VDI_TYPE_DYNAMIC;
	r = vdi_header_update(v, &h);
	if (r < 0)
		return vdi_fail(e, r, "cannot write the header");
	v->parent_bytes = name ? bytes : 0;
	v->backing_bytes = v->parent_bytes < h.bytes ? v->parent_bytes : h.bytes;
	return 0;
}
