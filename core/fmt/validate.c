/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The validator of answers: whatever a plugin says, nothing past this function can be led outside the disk, the unit that
 * is locked, or the volumes of the image. */
#include "fmt/validate.h"

#define SECTOR 512u
#define TYPES(t) (1u << (t))

static uint32_t types_of(uint32_t op)
{
	switch (op) {
	case VH_MAP_READ:
	case VH_MAP_REPORT:
		return TYPES(VH_EXT_DATA) | TYPES(VH_EXT_ZERO) | TYPES(VH_EXT_BACKING) | TYPES(VH_EXT_COMPRESSED) |
		       TYPES(VH_EXT_OPAQUE);
	case VH_MAP_WRITE:
		return TYPES(VH_EXT_DATA) | TYPES(VH_EXT_OPAQUE);
	case VH_MAP_ZERO:
		return TYPES(VH_EXT_DATA) | TYPES(VH_EXT_OPAQUE) | TYPES(VH_EXT_TRIM);
	case VH_MAP_DISCARD:
		return TYPES(VH_EXT_TRIM);
	default:
		return 0;
	}
}

/* [addr - before, addr + len + after) lies in a volume's possible addresses. */
static int addr_ok(uint64_t addr, uint64_t before, uint64_t len, uint64_t after)
{
	return addr >= before && addr <= INT64_MAX && len <= INT64_MAX - addr && after <= INT64_MAX - addr - len;
}

static int volume_ok(const struct fmt_rules *r, uint32_t vol)
{
	return vol < r->volumes && (vol >= 64 || !(r->missing >> vol & 1));
}

static const char *check_fill(const struct fmt_rules *r, const struct vh_extent *x, uint32_t fill, uint32_t bytes)
{
	if (fill > VH_FILL_COPY)
		return "unknown fill";
	if (bytes && fill == VH_FILL_NONE)
		return "head or tail without a fill";
	if (bytes && fill == VH_FILL_BACKING && !(r->caps & VH_FMT_BACKING))
		return "fill from a backing image that there is not";
	return (void)x, NULL;
}

static const char *check_data(const struct fmt_rules *r, const struct vh_extent *x)
{
	uint64_t mask = r->unit - 1, end = x->pos + x->len;
	const char *why;

	if (!volume_ok(r, x->vol))
		return "no such volume";
	if (!addr_ok(x->addr, x->head, x->len, x->tail))
		return "volume address out of range";
	if ((x->addr ^ x->pos) & (SECTOR - 1))
		return "position and volume address disagree within a sector";
	if (!x->head && !x->tail)
		return x->fill_head > VH_FILL_COPY || x->fill_tail > VH_FILL_COPY ? "unknown fill" : NULL;
	if (!(x->flags & VH_EXT_COMMIT))
		return "head or tail without COMMIT";
	if (x->head > (x->pos & mask) || x->tail > ((r->unit - (end & mask)) & mask))
		return "head or tail reaches out of the allocation unit";
	why = check_fill(r, x, x->fill_head, x->head);
	return why ? why : check_fill(r, x, x->fill_tail, x->tail);
}

static const char *check_compressed(const struct fmt_rules *r, const struct vh_extent *x)
{
	if (!r->has_decode || !(r->caps & VH_FMT_COMPRESSED))
		return "COMPRESSED without decode()";
	if (!volume_ok(r, x->vol))
		return "no such volume";
	if (!x->bytes || x->bytes > r->unit || x->len > x->bytes || x->head > x->bytes - x->len ||
	    x->tail != x->bytes - x->len - x->head)
		return "head, len and tail do not make up a compressed unit";
	if (x->head > x->pos)
		return "a compressed unit begins before the disk";
	if (!x->aux || x->aux > 2 * (uint64_t)r->unit)
		return "stored size of a compressed unit out of range";
	return addr_ok(x->addr, 0, x->aux, 0) ? NULL : "volume address out of range";
}

/* Sectors are read and written whole: none may be shared between two extents, or lie partly outside of the volume. */
static const char *check_crypt(const struct fmt_rules *r, const struct vh_map *m, const struct vh_extent *x)
{
	uint64_t mask = r->crypt_sector - 1, end = x->pos + x->len, head = x->pos & mask;

	if ((x->addr ^ x->pos) & mask)
		return "position and volume address disagree within a sector of the cipher";
	if (x->addr < r->crypt_base + (head > x->head ? head : x->head) || (end & mask && x->addr + x->len > INT64_MAX - mask))
		return "an encrypted sector outside of what the cipher covers";
	if (x->flags & VH_EXT_COMMIT)
		return (x->pos - x->head) & mask || (end + x->tail) & mask ? "an allocation of parts of encrypted sectors" : NULL;
	if (head && x->pos != m->pos)
		return "an encrypted extent begins within a sector";
	return end & mask && end != m->pos + m->len ? "an encrypted extent ends within a sector" : NULL;
}

static const char *check_flags(const struct fmt_rules *r, const struct vh_map *m, const struct vh_extent *x)
{
	uint32_t f = x->flags;
	int reading = m->op == VH_MAP_READ || m->op == VH_MAP_REPORT;

	if (f & ~(VH_EXT_PURE | VH_EXT_COMMIT | VH_EXT_CACHE | VH_EXT_ALLOCATED | VH_EXT_CRYPT))
		return "unknown flag";
	if ((f & VH_EXT_CRYPT) && (!(r->caps & VH_FMT_CRYPT) || !r->crypt_sector))
		return "CRYPT without a cipher";
	if ((f & VH_EXT_CRYPT) && x->type != VH_EXT_DATA)
		return "CRYPT on what is not DATA";
	if ((f & VH_EXT_PURE) && (f & VH_EXT_COMMIT))
		return "PURE and COMMIT at once";
	if (reading)
		return f & VH_EXT_COMMIT ? "COMMIT in an answer that changes nothing" : NULL;
	if ((f & VH_EXT_COMMIT) && !r->has_commit)
		return "COMMIT without commit()";
	if ((f & VH_EXT_CACHE) && !(m->op == VH_MAP_WRITE && (f & VH_EXT_PURE)))
		return "CACHE on an answer that cannot be kept";
	if (x->type != VH_EXT_OPAQUE && !(f & (VH_EXT_PURE | VH_EXT_COMMIT)))
		return "neither PURE nor COMMIT";
	if (x->type == VH_EXT_OPAQUE && (f & (VH_EXT_COMMIT | VH_EXT_CACHE)))
		return "OPAQUE that commits or is cached";
	if ((m->flags & VH_MAP_OVERWRITE_ONLY) && !(f & VH_EXT_PURE))
		return "an answer that is not PURE to OVERWRITE_ONLY";
	return NULL;
}

static const char *check_extent(const struct fmt_rules *r, const struct vh_map *m, const struct vh_extent *x, uint64_t at)
{
	const char *why;

	if (x->pos != at)
		return "an extent does not begin where the one before it ended";
	if (!x->len || x->len > r->bytes - at)
		return "an extent is empty or reaches past the disk";
	if (x->type > 31 || !(types_of(m->op) & TYPES(x->type)))
		return "a type that does not answer this operation";
	why = check_flags(r, m, x);
	if (why)
		return why;
	/* Only what changes nothing may go on past the range that is locked. */
	if (x->pos + x->len > m->pos + m->len && m->op != VH_MAP_READ && m->op != VH_MAP_REPORT &&
	    !(m->op == VH_MAP_WRITE && (x->flags & VH_EXT_PURE)))
		return "an allocation past what was asked for";
	switch (x->type) {
	case VH_EXT_DATA:
		why = check_data(r, x);
		return why || !(x->flags & VH_EXT_CRYPT) ? why : check_crypt(r, m, x);
	case VH_EXT_COMPRESSED:
		return check_compressed(r, x);
	case VH_EXT_BACKING:
		if (!(r->caps & VH_FMT_BACKING))
			return "BACKING without a backing image";
		return x->pos + x->len > r->backing_bytes ? "BACKING past the backing image's size" : NULL;
	case VH_EXT_OPAQUE:
		return r->caps & VH_FMT_OPAQUE ? NULL : "OPAQUE without read() and write()";
	case VH_EXT_TRIM:
		if (x->bytes && (!volume_ok(r, x->vol) || !addr_ok(x->addr, 0, x->bytes, 0)))
			return "TRIM outside the volumes";
		if (x->bytes > x->len + 2 * (uint64_t)r->unit)
			return "TRIM of more than the range";
		if (m->op == VH_MAP_ZERO && x->bytes && !(x->flags & VH_EXT_COMMIT))
			return "a pure TRIM cannot make zeros";
		return NULL;
	default:
		return NULL; /* ZERO */
	}
}

/* No two allocations of one answer may share bytes of a volume. */
static int allocations_overlap(const struct vh_map *m)
{
	for (uint32_t i = 0; i < m->n; i++) {
		const struct vh_extent *a = &m->ext[i];

		if (a->type != VH_EXT_DATA || !(a->flags & VH_EXT_COMMIT))
			continue;
		for (uint32_t j = 0; j < i; j++) {
			const struct vh_extent *b = &m->ext[j];

			if (b->type == VH_EXT_DATA && b->vol == a->vol && a->addr - a->head < b->addr + b->len + b->tail &&
			    b->addr - b->head < a->addr + a->len + a->tail)
				return 1;
		}
	}
	return 0;
}

const char *fmt_validate(const struct fmt_rules *r, const struct vh_map *m)
{
	uint64_t at = m->pos;

	if (m->n > m->cap)
		return "more extents than there was room for";
	if (!m->n)
		return m->op == VH_MAP_WRITE && (m->flags & VH_MAP_OVERWRITE_ONLY) ? NULL : "an answer that does not advance";
	if (r->read_only && m->op != VH_MAP_READ && m->op != VH_MAP_REPORT)
		return "a change of a read-only image";
	if (!m->len || m->pos >= r->bytes || m->len > r->bytes - m->pos)
		return "a question outside the disk";
	for (uint32_t i = 0; i < m->n; i++) {
		const char *why;

		if (at >= r->bytes)
			return "an extent past the disk";
		why = check_extent(r, m, &m->ext[i], at);
		if (why)
			return why;
		at += m->ext[i].len;
	}
	return allocations_overlap(m) ? "two allocations of one answer overlap" : NULL;
}
