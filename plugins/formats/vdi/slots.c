/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Which slots of the data are free. All in memory; found again at open by reading the map. */
#include "vdi.h"

void vdi_entry_set(struct vdi *v, uint32_t b, uint32_t x)
{
	uint32_t p = b / VDI_PAGE;

	v->map[b] = ~x;
	v->ndirty += !v->dirty[p];
	v->dirty[p] = 1;
}

static int is_pending(uint8_t s)
{
	return s == SLOT_FREED || s == SLOT_UNLINKING || s == SLOT_UNLINKED;
}

static void slot_set(struct vdi *v, uint32_t n, enum vdi_slot s)
{
	v->npending += (uint32_t)is_pending((uint8_t)s) - (uint32_t)is_pending(v->slot[n]);
	v->slot[n] = (uint8_t)s;
}

void vdi_slot_free(struct vdi *v, uint32_t n)
{
	slot_set(v, n, SLOT_FREE);
	if (n < v->hint)
		v->hint = n;
	while (v->end && v->slot[v->end - 1] == SLOT_FREE)
		v->end--;
}

/* The slot that block b gave up and that nobody else has had since. */
static int own_pending(const struct vdi *v, uint32_t b, uint32_t *n)
{
	*n = v->pend[b] - 1;
	return v->pend[b] && v->owner[*n] == b;
}

int vdi_slot_take(struct vdi *v, uint32_t b, uint32_t *slot)
{
	uint32_t n;

	if (!own_pending(v, b, &n) || !is_pending(v->slot[n])) {
		n = v->hint;
		while (n < v->end && v->slot[n] != SLOT_FREE)
			n++;
		v->hint = n;
		/* Each block has at most one slot, so that `blocks` are enough, but for those that wait for late data. */
		if (n >= v->h.blocks + VDI_SPARE)
			return -ENOSPC;
		v->pend[b] = 0;
	}
	slot_set(v, n, SLOT_USED);
	v->owner[n] = b;
	if (n >= v->end)
		v->end = n + 1;
	*slot = n;
	return 0;
}

void vdi_slot_take_back(struct vdi *v, uint32_t b, uint32_t n, int late)
{
	uint32_t own;

	if (late) {
		slot_set(v, n, SLOT_LATE);
		v->pend[b] = 0;
	} else if (own_pending(v, b, &own) && own == n) {
		slot_set(v, n, SLOT_FREED); /* the file may still name it */
	} else {
		vdi_slot_free(v, n);
	}
}

void vdi_slot_unlink(struct vdi *v, uint32_t b, uint32_t n)
{
	slot_set(v, n, SLOT_FREED);
	v->pend[b] = n + 1;
}

void vdi_slots_move(struct vdi *v, enum vdi_slot from, enum vdi_slot to)
{
	uint32_t end = v->end;

	for (uint32_t n = 0; v->npending && n < end; n++) {
		if (v->slot[n] != from)
			continue;
		if (to != SLOT_FREE) {
			slot_set(v, n, to);
			continue;
		}
		if (v->pend[v->owner[n]] == n + 1)
			v->pend[v->owner[n]] = 0;
		vdi_slot_free(v, n);
	}
}
