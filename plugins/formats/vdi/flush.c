/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What reaches the file, and in which order. Writes of header and map are made under `io`, never under `lock`. */
#include <endian.h>
#include <stdlib.h>
#include "vdi.h"

/* Writes the header as memory has it now. `io` is held. */
static int header_put(struct vdi *v)
{
	struct vdi_header h;

	pthread_mutex_lock(&v->lock);
	h = v->h;
	pthread_mutex_unlock(&v->lock);
	return vdi_header_write(v->volume, &h);
}

/*
 * A child tells by the modification UUID whether its parent still is what it was; so a new one is durable before the first
 * byte changes.
 */
int vdi_stamp(struct vdi *v)
{
	uint8_t u[16], old[16];
	int r = 0;

	pthread_mutex_lock(&v->io);
	if (!v->stamped) {
		r = vdi_uuid_make(u, NULL);
		if (r >= 0) {
			pthread_mutex_lock(&v->lock);
			memcpy(old, v->h.modified, 16);
			memcpy(v->h.modified, u, 16);
			pthread_mutex_unlock(&v->lock);
			r = header_put(v);
			if (r >= 0)
				r = vdi_meta->flush(v->volume);
			if (r >= 0) {
				__atomic_store_n(&v->stamped, 1, __ATOMIC_RELEASE);
			} else {
				pthread_mutex_lock(&v->lock);
				memcpy(v->h.modified, old, 16);
				pthread_mutex_unlock(&v->lock);
			}
		}
	}
	pthread_mutex_unlock(&v->io);
	return r < 0 ? r : 0;
}

/* Pages of copies that did not reach the file are dirty again. */
static void copies_drop(struct vdi *v, uint32_t from)
{
	for (uint32_t k = from; k < v->ncopy; k++) {
		v->ndirty += !v->dirty[v->copy[k].page];
		v->dirty[v->copy[k].page] = 1;
	}
	free(v->copy);
	v->copy = NULL;
	v->ncopy = 0;
}

static int copies_make(struct vdi *v)
{
	uint32_t pages = (v->h.blocks + VDI_PAGE - 1) / VDI_PAGE;

	copies_drop(v, 0);
	if (!v->ndirty)
		return 0;
	v->copy = malloc((uint64_t)v->ndirty * sizeof(*v->copy));
	if (!v->copy)
		return -ENOMEM;
	for (uint32_t p = 0; p < pages && v->ndirty; p++) {
		struct vdi_copy *c = &v->copy[v->ncopy];

		if (!v->dirty[p])
			continue;
		c->page = p;
		for (uint32_t k = 0; k < VDI_PAGE && p * VDI_PAGE + k < v->h.blocks; k++)
			c->entry[k] = htole32(vdi_entry(v, p * VDI_PAGE + k));
		v->dirty[p] = 0;
		v->ndirty--;
		v->ncopy++;
	}
	return 0;
}

/* `io` is held. The count of slots may only ever be too high in the file: other programs append at it. */
static int phase_copy(struct vdi *v)
{
	int r, count, more;
	uint32_t old;

	pthread_mutex_lock(&v->lock);
	r = copies_make(v);
	if (r >= 0)
		vdi_slots_move(v, SLOT_FREED, SLOT_UNLINKING);
	more = v->ncopy || v->npending;
	old = v->h.allocated;
	count = v->end != old;
	if (r >= 0)
		v->h.allocated = v->end;
	pthread_mutex_unlock(&v->lock);
	if (r < 0)
		return r;
	if (count) {
		r = header_put(v);
		if (r < 0) {
			pthread_mutex_lock(&v->lock);
			v->h.allocated = old; /* so that the next flush writes it */
			pthread_mutex_unlock(&v->lock);
			return r;
		}
		v->count_wrong = 0;
	}
	return more;
}

static int phase_write(struct vdi *v)
{
	uint32_t k;
	int r = 0;

	/* This phase comes after a volume flush, and that after the unlinks which an earlier flush wrote. */
	pthread_mutex_lock(&v->lock);
	vdi_slots_move(v, SLOT_UNLINKED, SLOT_FREE);
	pthread_mutex_unlock(&v->lock);
	for (k = 0; k < v->ncopy && r >= 0; k++) {
		const struct vdi_copy *c = &v->copy[k];
		uint64_t first = (uint64_t)c->page * VDI_PAGE, n = v->h.blocks - first;

		r = vdi_meta->write(v->volume, c->entry, (n < VDI_PAGE ? n : VDI_PAGE) * 4, v->h.map_off + first * 4);
	}
	pthread_mutex_lock(&v->lock);
	copies_drop(v, r < 0 ? k - 1 : k);
	if (r >= 0)
		vdi_slots_move(v, SLOT_UNLINKING, SLOT_UNLINKED);
	pthread_mutex_unlock(&v->lock);
	return r < 0 ? r : 0;
}

int vdi_flush(void *img, uint32_t phase)
{
	struct vdi *v = img;
	int r;

	if (v->read_only || v->damaged)
		return v->ndirty ? -EIO : 0;
	pthread_mutex_lock(&v->io);
	r = phase ? phase_write(v) : phase_copy(v);
	pthread_mutex_unlock(&v->io);
	return r < 0 ? r : r > 0;
}

int vdi_sync(struct vdi *v, struct vh_err *e)
{
	int r = 0;

	/* The first round writes the unlinks, the second one frees the slots, the third one counts them. */
	for (int round = 0; round < 3 && r >= 0; round++) {
		r = vdi_flush(v, 0);
		if (r >= 0)
			r = vdi_meta->flush(v->volume) < 0 ? -EIO : r;
		if (r > 0)
			r = vdi_flush(v, 1);
		if (r >= 0)
			r = vdi_meta->flush(v->volume);
	}
	return r < 0 ? vdi_fail(e, r, "cannot write the block map") : 0;
}

int vdi_header_update(struct vdi *v, struct vdi_header *h)
{
	int r = vdi_header_write(v->volume, h);

	if (r >= 0)
		r = vdi_meta->flush(v->volume);
	if (r >= 0)
		v->h = *h;
	else
		v->damaged = 1;
	return r < 0 ? r : 0;
}
