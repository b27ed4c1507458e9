/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Moving slots about. The image is drained, and vdi_sync() has been called: what is not USED or LATE is FREE. */
#include <stdlib.h>
#include <sys/mman.h>
#include "vdi.h"

#define STEP (1u << 20) /* bytes copied at once */
#define BATCH 256u      /* slots moved between two writings of the map */

int vdi_cancelled(struct vh_job *j)
{
	return vdi_job && j && vdi_job->cancelled(j);
}

/*
 * The arrays are as large as the map says, and mostly untouched: memory of the kernel's own, which costs nothing until it is
 * written, whatever the allocator and the limits for commitment do. A page before it has its length.
 */
#define PAGE 4096u

static void *array_new(const void *old, uint64_t have, uint64_t want)
{
	uint64_t len = want + PAGE;
	uint8_t *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	memcpy(p, &len, sizeof(len));
	/* By pieces, so that zeros stay untouched. */
	for (uint64_t at = 0; old && at < have && at < want; at += PAGE) {
		uint64_t n = (have < want ? have : want) - at;
		const uint8_t *from = (const uint8_t *)old + at;

		n = n < PAGE ? n : PAGE;
		if (from[0] || memcmp(from, from + 1, n - 1))
			memcpy(p + PAGE + at, from, n);
	}
	return p + PAGE;
}

static void array_free(void *array)
{
	uint64_t len;

	if (!array)
		return;
	memcpy(&len, (uint8_t *)array - PAGE, sizeof(len));
	munmap((uint8_t *)array - PAGE, len);
}

void vdi_arrays_free(struct vdi *v)
{
	array_free(v->map);
	array_free(v->pend);
	array_free(v->owner);
	array_free(v->slot);
	array_free(v->dirty);
}

int vdi_arrays(const struct vdi *v, uint32_t blocks, struct vdi *out, struct vh_err *e)
{
	uint64_t old = v->map ? v->h.blocks : 0, n = blocks > old ? blocks : old, slots = n + VDI_SPARE;
	uint64_t old_slots = v->map ? old + VDI_SPARE : 0;
	struct vdi t = {.map = array_new(v->map, old * 4, n * 4), .pend = array_new(v->pend, old * 4, n * 4),
			.owner = array_new(v->owner, old_slots * 4, slots * 4), .slot = array_new(v->slot, old_slots, slots),
			.dirty = array_new(v->dirty, (old + VDI_PAGE - 1) / VDI_PAGE, n / VDI_PAGE + 1)};

	if (!t.map || !t.pend || !t.owner || !t.slot || !t.dirty) {
		vdi_arrays_free(&t);
		return vdi_fail(e, -ENOMEM, "no memory for a block map of %u entries", blocks);
	}
	vdi_arrays_move(&t, out);
	return 0;
}

void vdi_arrays_move(struct vdi *from, struct vdi *to)
{
	to->map = from->map;
	to->pend = from->pend;
	to->owner = from->owner;
	to->slot = from->slot;
	to->dirty = from->dirty;
}

int vdi_copy_slots(struct vdi *v, const uint32_t *from, const uint32_t *to, uint32_t n, struct vh_job *j, struct vh_err *e)
{
	uint8_t *buf = malloc(STEP);
	int r = buf ? 0 : -ENOMEM;

	for (uint32_t k = 0; k < n && r >= 0; k++) {
		for (uint64_t off = 0; off < v->stride && r >= 0; off += STEP) {
			uint64_t len = v->stride - off < STEP ? v->stride - off : STEP;

			r = vdi_meta->read(v->volume, buf, len, v->h.data_off + from[k] * v->stride + off);
			if (r >= 0)
				r = vdi_meta->write(v->volume, buf, len, v->h.data_off + to[k] * v->stride + off);
		}
		if (r >= 0 && vdi_cancelled(j))
			r = -ECANCELED;
	}
	free(buf);
	if (r >= 0)
		r = vdi_meta->flush(v->volume);
	return r < 0 ? vdi_fail(e, r, "cannot move blocks within the file") : 0;
}

/* The blocks of `from` live in `to` from now on, durably, and `from` is FREE. */
static int move(struct vdi *v, const uint32_t *from, const uint32_t *to, uint32_t n, struct vh_job *j, struct vh_err *e)
{
	int r = vdi_copy_slots(v, from, to, n, j, e);

	for (uint32_t k = 0; k < n; k++) {
		uint32_t b = v->owner[from[k]];

		if (r < 0) {
			vdi_slot_free(v, to[k]);
			continue;
		}
		vdi_slot_unlink(v, b, from[k]);
		v->pend[b] = 0; /* nobody asks for it before it is FREE */
		v->owner[to[k]] = b;
		vdi_entry_set(v, b, to[k]);
	}
	return r < 0 ? r : vdi_sync(v, e);
}

static int movable(const struct vdi *v, uint32_t n)
{
	return v->slot[n] == SLOT_USED && v->owner[n] < v->h.blocks && vdi_entry(v, v->owner[n]) == n;
}

static void reserve(struct vdi *v, uint32_t n)
{
	v->slot[n] = SLOT_USED;
	if (n >= v->end)
		v->end = n + 1;
}

int vdi_compact(struct vdi *v, uint32_t *closed, struct vh_job *j, struct vh_err *e)
{
	uint32_t from[BATCH], to[BATCH], n, r = 0;
	int res = 0;

	do {
		uint32_t low = 0, high = v->end;

		for (n = 0; n < BATCH; n++, low++) {
			while (low < high && v->slot[low] != SLOT_FREE)
				low++;
			while (high > low && !movable(v, high - 1))
				high--;
			if (low >= high)
				break;
			from[n] = --high;
			to[n] = low;
		}
		for (uint32_t k = 0; k < n; k++)
			reserve(v, to[k]);
		res = n ? move(v, from, to, n, j, e) : 0;
		r += n;
	} while (n && res >= 0);
	if (closed)
		*closed = r;
	return res;
}

/* Empties the slots [0, cut). */
static int vacate(struct vdi *v, uint32_t cut, struct vh_job *j, struct vh_err *e)
{
	uint32_t limit = v->h.blocks + VDI_SPARE, to_next = cut, n = 0, from[BATCH], to[BATCH];
	int r = 0;

	for (uint32_t k = 0; k <= cut && r >= 0; k++) {
		if (n && (k == cut || n == BATCH)) {
			r = move(v, from, to, n, j, e);
			n = 0;
		}
		if (k == cut || r < 0 || v->slot[k] == SLOT_FREE)
			continue;
		if (!movable(v, k))
			return vdi_hint(e, "close the image and repeat it"),
			       vdi_fail(e, -EBUSY, "data of a write that timed out may still come where the block map has to go");
		while (to_next < limit && v->slot[to_next] != SLOT_FREE)
			to_next++;
		if (to_next == limit)
			return vdi_fail(e, -ENOSPC, "no slots are left to move blocks to");
		from[n] = k;
		to[n++] = to_next;
		reserve(v, to_next);
	}
	return r;
}

static uint64_t up(uint64_t x, uint64_t to)
{
	return (x + to - 1) / to * to;
}

int vdi_make_room(struct vdi *v, uint32_t blocks, uint32_t *map_off, uint32_t *cut, struct vh_job *j, struct vh_err *e)
{
	uint64_t need = (uint64_t)blocks * 4, start, data;

	*map_off = v->h.map_off;
	*cut = 0;
	if (v->h.map_off + need <= v->h.data_off)
		return 0;
	start = up(v->h.raw_len, VDI_SECTOR); /* before the map that there is: room that an earlier move left */
	if (start + need <= v->h.map_off) {
		*map_off = (uint32_t)start;
		return 0;
	}
	start = up(v->h.map_off + (uint64_t)v->h.blocks * 4, VDI_SECTOR);
	data = v->h.data_off + up(start + need - v->h.data_off, v->stride);
	if (data > UINT32_MAX)
		return vdi_fail(e, -EFBIG, "a block map of %u entries leaves no room below 4 GiB, where the data must begin", blocks);
	*map_off = (uint32_t)start;
	*cut = (uint32_t)((data - v->h.data_off) / v->stride);
	return vacate(v, *cut, j, e);
}

/* Gives back what lies behind the last slot. */
void vdi_truncate(struct vdi *v)
{
	uint64_t end = v->h.data_off + v->end * v->stride;

	if (vdi_meta->bytes(v->volume) > end)
		vdi_meta->resize(v->volume, end); /* a volume of fixed size stays as it is */
}
