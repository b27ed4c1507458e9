/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Findings and their repair. Damage: entries past the end of the file, two entries for one slot, a count in the header that
 * is too low (another program would put a new block over an old one). Leaks: a count that is too high, slots taken by nobody.
 * Holes between the slots are neither, they are used again; a repair closes them, since QEMU's check counts.
 */
#include <stdio.h>
#include <stdlib.h>
#include "vdi.h"

#define TOLD 1000u     /* findings that are told one by one */

struct check {
	vh_check_fn *fn;
	void *ctx;
	int leaks, damage; /* what is to be mended */
	uint32_t found[VH_CHECK_FIXED + 1];
};

static void say(struct check *c, uint32_t what, uint64_t off, const char *text)
{
	if (c->found[what]++ < TOLD)
		c->fn(c->ctx, what, off, text);
}

static void say_rest(struct check *c)
{
	char text[64];

	for (uint32_t what = VH_CHECK_LEAK; what <= VH_CHECK_FIXED; what++) {
		if (c->found[what] <= TOLD)
			continue;
		snprintf(text, sizeof(text), "and %u more", c->found[what] - TOLD);
		c->fn(c->ctx, what, 0, text);
	}
}

static uint64_t entry_off(const struct vdi *v, uint32_t b)
{
	return v->h.map_off + (uint64_t)b * 4;
}

/* What stands for content that is gone. */
static uint32_t lost(const struct vdi *v)
{
	return vdi_has_parent(&v->h) ? VDI_ZERO : VDI_FREE;
}

static int entry_ok(const struct vdi *v, uint32_t x, uint64_t bytes)
{
	return x >= VDI_ZERO || (x < v->h.blocks + VDI_SPARE && vdi_slot_addr(&v->h, x) < bytes);
}

/* Slots again from the map: what is used, the first entry of each slot being its owner. Entries must be good. */
static void rescan(struct vdi *v)
{
	uint64_t n = (uint64_t)v->h.blocks + VDI_SPARE;

	for (uint64_t k = 0; k < n; k++)
		if (v->slot[k] != SLOT_LATE && v->slot[k])
			v->slot[k] = SLOT_FREE;
	v->npending = 0;
	v->hint = 0;
	for (uint32_t b = 0; b < v->h.blocks; b++) {
		uint32_t x = vdi_entry(v, b);

		if (v->pend[b])
			v->pend[b] = 0;
		if (x >= VDI_ZERO || v->slot[x] != SLOT_FREE)
			continue;
		v->slot[x] = SLOT_USED;
		v->owner[x] = b;
	}
	v->end = (uint32_t)n;
	while (v->end && v->slot[v->end - 1] == SLOT_FREE)
		v->end--;
}

/* The entry gets a slot with the same bytes of its own. */
static int separate(struct vdi *v, uint32_t b, uint32_t x, uint32_t *from, struct vh_job *j, struct vh_err *e)
{
	uint32_t to = *from;
	int r;

	while (to < v->h.blocks + VDI_SPARE && v->slot[to] != SLOT_FREE)
		to++;
	if (to == v->h.blocks + VDI_SPARE)
		return vdi_fail(e, -ENOSPC, "no slot is left for a copy");
	*from = to + 1;
	v->slot[to] = SLOT_USED;
	v->owner[to] = b;
	if (to >= v->end)
		v->end = to + 1;
	r = vdi_copy_slots(v, &x, &to, 1, j, e);
	if (r >= 0)
		vdi_entry_set(v, b, to);
	return r;
}

static int check_map(struct vdi *v, struct check *c, int *bad, struct vh_job *j, struct vh_err *e)
{
	uint32_t next = 0;
	uint64_t bytes = vdi_meta->bytes(v->volume);
	char text[128];
	int r = 0;

	for (uint32_t b = 0; b < v->h.blocks; b++) {
		uint32_t x = vdi_entry(v, b);

		if (entry_ok(v, x, bytes))
			continue;
		++*bad;
		snprintf(text, sizeof(text), "the entry of block %u, 0x%x, leads past the end of the file", b, x);
		say(c, VH_CHECK_CORRUPT, entry_off(v, b), text);
		if (c->damage) {
			vdi_entry_set(v, b, lost(v));
			say(c, VH_CHECK_FIXED, entry_off(v, b), "the block reads as zeros");
		}
	}
	if (*bad && c->damage)
		rescan(v);
	for (uint32_t b = 0; b < v->h.blocks && r >= 0; b++) {
		uint32_t x = vdi_entry(v, b);

		if (x >= VDI_ZERO || !entry_ok(v, x, bytes) || v->owner[x] == b)
			continue;
		++*bad;
		snprintf(text, sizeof(text), "blocks %u and %u have the same place in the file", v->owner[x], b);
		say(c, VH_CHECK_CORRUPT, entry_off(v, b), text);
		if (!c->damage)
			continue;
		r = separate(v, b, x, &next, j, e);
		if (r >= 0)
			say(c, VH_CHECK_FIXED, entry_off(v, b), "each of them has a copy");
	}
	return r;
}

static void check_slots(struct vdi *v, struct check *c, int *leaks)
{
	uint32_t end = v->end;

	for (uint32_t n = 0; n < end; n++) {
		if (v->slot[n] != SLOT_USED || (v->owner[n] < v->h.blocks && vdi_entry(v, v->owner[n]) == n))
			continue;
		++*leaks;
		say(c, VH_CHECK_LEAK, vdi_slot_addr(&v->h, n), "a place in the file is taken and no block has it");
		if (c->leaks) {
			vdi_slot_free(v, n);
			say(c, VH_CHECK_FIXED, vdi_slot_addr(&v->h, n), "it is free");
		}
	}
}

static int check_count(struct check *c, int wrong)
{
	int high = wrong > 0;

	if (!wrong)
		return 0;
	say(c, high ? VH_CHECK_LEAK : VH_CHECK_CORRUPT, 388,
	    high ? "the header's count of blocks in the file is too high" : "the header's count of blocks in the file is too low");
	return high ? c->leaks : c->damage;
}

/* Holes are closed, and the file ends where its last block does. */
static int tidy(struct vdi *v, struct check *c, struct vh_job *j, struct vh_err *e)
{
	uint32_t closed = 0;
	char text[64];
	int r = vdi_compact(v, &closed, j, e);

	if (r >= 0 && closed) {
		snprintf(text, sizeof(text), "%u holes between the blocks are closed", closed);
		say(c, VH_CHECK_FIXED, v->h.data_off, text);
	}
	if (r >= 0 && v->h.type != VDI_TYPE_STATIC)
		vdi_truncate(v);
	return r;
}

int vdi_check(void *img, uint32_t repair, vh_check_fn *fn, void *ctx, struct vh_job *j, struct vh_err *e)
{
	struct vdi *v = img;
	struct check c = {fn, ctx, !!(repair & VH_CHECK_LEAK), !!(repair & VH_CHECK_CORRUPT), {0}};
	int bad = 0, leaks = 0, wrong = v->count_wrong, count, r = 0; /* any flush puts the count right */

	if (repair && v->read_only)
		return vdi_fail(e, -EROFS, "the image is open read-only");
	if (v->damaged && !c.damage)
		c.leaks = 0; /* nothing may be written while what is in use is not known */
	if (c.leaks || c.damage) {
		v->touched = 1;
		/* Only mending damage changes what the disk reads as: else children go on. */
		r = v->damaged ? vdi_stamp(v) : vdi_sync(v, NULL);
		if (r < 0)
			return vdi_fail(e, r, "cannot write to the image");
	}
	r = check_map(v, &c, &bad, j, e);
	if (r < 0)
		return r;
	check_slots(v, &c, &leaks);
	count = check_count(&c, wrong);
	if (!c.leaks && !c.damage) {
		say_rest(&c);
		return 0;
	}
	if (c.damage)
		v->damaged = 0; /* the map is good again: it may be written */
	r = vdi_sync(v, e);
	if (r >= 0 && count)
		say(&c, VH_CHECK_FIXED, 388, "it is right");
	if (r >= 0 && c.leaks)
		r = tidy(v, &c, j, e);
	say_rest(&c);
	return r < 0 ? r : 0;
}
