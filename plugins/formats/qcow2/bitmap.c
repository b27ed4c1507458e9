/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Persistent dirty bitmaps, which this program does not keep up to date. So that nobody takes an incremental backup from one that misses
 * changes, those that should have followed are marked as in use, which everybody understands as inconsistent, before the
 * first change. Bitmaps that are disabled say something of the past, and stay as they are.
 */
#include <stdio.h>
#include "check.h"

#define FIXED 24u
#define IN_USE 1u
#define AUTO 2u
#define MAX_DIRECTORY (UINT64_C(16) << 20)
#define MAX_TABLE (UINT64_C(1) << 27) /* entries */
#define TABLE_RESERVED UINT64_C(0xff000000000001fe)

struct q2_bitmap { uint64_t table_off, at; uint32_t table_size, flags; uint8_t granularity; char *name; };
struct q2_bitmaps { uint32_t n; struct q2_bitmap *v; };

void q2_bitmaps_free(struct q2 *q)
{
	for (uint32_t k = 0; q->bitmaps && k < q->bitmaps->n; k++)
		free(q->bitmaps->v[k].name);
	if (q->bitmaps)
		free(q->bitmaps->v);
	free(q->bitmaps);
	q->bitmaps = NULL;
}

static int parse(struct q2 *q, const uint8_t *dir, uint64_t len)
{
	struct q2_bitmaps *b = calloc(1, sizeof(*b));
	uint64_t at = 0;

	if (!b)
		return -ENOMEM;
	q->bitmaps = b;
	b->v = calloc(q->h.nbitmaps, sizeof(*b->v));
	if (!b->v)
		return -ENOMEM;
	for (uint32_t k = 0; k < q->h.nbitmaps; k++) {
		struct q2_bitmap *m = &b->v[k];
		const uint8_t *p = dir + at;
		uint32_t name, extra;

		if (len - at < FIXED)
			return -EUCLEAN;
		m->table_off = q2_be64(p);
		m->table_size = q2_be32(p + 8);
		m->flags = q2_be32(p + 12);
		m->granularity = p[17];
		m->at = at;
		name = q2_be16(p + 18);
		extra = q2_be32(p + 20);
		if (!name || extra > len - at - FIXED || name > len - at - FIXED - extra || m->granularity > 63)
			return -EUCLEAN;
		m->name = strndup((const char *)p + FIXED + extra, name);
		if (!m->name)
			return -ENOMEM;
		b->n = k + 1;
		at += q2_up(FIXED + (uint64_t)extra + name, 8);
		if (at > len)
			return -EUCLEAN;
	}
	return at == len ? 0 : -EUCLEAN;
}

/* Damage is no reason not to open the image: nobody here reads the bitmaps. */
int q2_bitmaps_load(struct q2 *q, struct vh_err *e)
{
	uint64_t file = q2_io->bytes(q->vol);
	uint8_t *dir;
	int r;

	q2_bitmaps_free(q);
	if (!q->h.nbitmaps)
		return 0;
	if (q->h.bitmaps_bytes > MAX_DIRECTORY || q->h.bitmaps_off >= file || q->h.bitmaps_bytes > file - q->h.bitmaps_off ||
	    (uint64_t)q->h.nbitmaps * FIXED > q->h.bitmaps_bytes) {
		q2_warn("the directory of bitmaps is damaged");
		return 0;
	}
	dir = malloc(q->h.bitmaps_bytes);
	if (!dir)
		return q2_fail(e, -ENOMEM, "no memory for the directory of bitmaps");
	r = q2_read(q, dir, q->h.bitmaps_bytes, q->h.bitmaps_off);
	if (r < 0)
		q2_fail(e, r, "cannot read the directory of bitmaps");
	else
		r = parse(q, dir, q->h.bitmaps_bytes);
	free(dir);
	if (r >= 0)
		return 0;
	q2_bitmaps_free(q);
	if (r != -EUCLEAN)
		return r == -ENOMEM ? q2_fail(e, r, "no memory for the directory of bitmaps") : r;
	q2_warn("the directory of bitmaps is damaged");
	return 0;
}

static int set_in_use(struct q2 *q, struct q2_bitmap *m)
{
	uint8_t b[4];
	int r;

	q2_put32(b, m->flags | IN_USE);
	r = q2_write(q, b, 4, q->h.bitmaps_off + m->at + 12);
	if (r >= 0)
		m->flags |= IN_USE;
	return r;
}

/* Those that are not known cannot be marked: then the caller clears the autoclear bit, which says as much of all. */
int q2_bitmaps_begin(struct q2 *q, struct vh_err *e)
{
	int r = 0;

	if (!q->h.nbitmaps)
		return 0;
	if (!q->bitmaps)
		return -EUCLEAN;
	for (uint32_t k = 0; r >= 0 && k < q->bitmaps->n; k++) {
		struct q2_bitmap *m = &q->bitmaps->v[k];

		if (!(m->flags & AUTO) || m->flags & IN_USE)
			continue;
		q2_warn("bitmap '%s' is not kept up to date from now on, and is marked as inconsistent", m->name);
		r = set_in_use(q, m);
	}
	return r;
}

/* A bitmap that counts has the disk's size. */
int q2_bitmaps_can_resize(struct q2 *q, uint64_t bytes, struct vh_err *e)
{
	for (uint32_t k = 0; q->bitmaps && k < q->bitmaps->n; k++) {
		const struct q2_bitmap *m = &q->bitmaps->v[k];

		if (m->flags & (IN_USE | AUTO))
			continue;
		q2_hint(e, "remove the bitmap first (qemu-img bitmap --remove)");
		return q2_fail(e, -EBUSY, "bitmap '%s' is of the disk's size now", m->name);
	}
	return 0;
}

static int bitmap_ranges(struct q2 *q, const struct q2_bitmap *m, int (*fn)(void *ctx, uint64_t off, uint64_t len), void *ctx)
{
	uint64_t len = (uint64_t)m->table_size * 8, file = q2_io->bytes(q->vol), chunk = 65536, *t;
	int r, bad = 0;

	if (m->table_size > MAX_TABLE || m->table_off & (q->cluster - 1) || m->table_off >= Q2_MAX_OFFSET ||
	    (len && (m->table_off >= file || len > file - m->table_off)))
		return -EUCLEAN;
	r = fn(ctx, m->table_off, len);
	t = malloc(chunk);
	if (!t)
		return -ENOMEM;
	for (uint64_t at = 0; r >= 0 && at < len; at += chunk) {
		uint64_t n = q2_min(chunk, len - at);

		r = q2_read(q, t, n, m->table_off + at);
		for (uint64_t k = 0; r >= 0 && k < n / 8; k++) {
			uint64_t e = q2_be64(&t[k]), off = e & Q2_OFFSET_MASK;

			if (e & TABLE_RESERVED || (off && e & 1) || off & (q->cluster - 1)) {
				bad = 1;
				continue;
			}
			if (off && off >= file)
				bad = 1;
			else if (off)
				r = fn(ctx, off, q->cluster);
		}
	}
	free(t);
	return r < 0 ? r : bad ? -EUCLEAN : 0;
}

int q2_bitmaps_ranges(struct q2 *q, int (*fn)(void *ctx, uint64_t off, uint64_t len), void *ctx)
{
	int r = 0, one;

	if (!q->h.nbitmaps)
		return 0;
	if (!q->bitmaps)
		return -EUCLEAN;
	r = fn(ctx, q->h.bitmaps_off, q->h.bitmaps_bytes);
	for (uint32_t k = 0; r >= 0 && k < q->bitmaps->n; k++) {
		one = bitmap_ranges(q, &q->bitmaps->v[k], fn, ctx);
		if (one < 0 && one != -EUCLEAN)
			return one;
		r = one < 0 ? one : r;
		if (one == -EUCLEAN && k + 1 < q->bitmaps->n)
			r = 0; /* the others still count */
	}
	return r;
}

void q2_bitmaps_describe(struct q2 *q, vh_describe_fn *fn, void *ctx)
{
	char key[64], value[1400];

	for (uint32_t k = 0; q->bitmaps && k < q->bitmaps->n && k < 256; k++) {
		const struct q2_bitmap *m = &q->bitmaps->v[k];

		snprintf(key, sizeof(key), "bitmap-%u", k);
		snprintf(value, sizeof(value), "%.1023s (granularity %llu%s%s)", m->name, m->granularity < 63 ? 1ULL << m->granularity : 0ULL,
			 m->flags & AUTO ? ", auto" : "", m->flags & IN_USE ? ", in-use" : "");
		fn(ctx, key, VH_DESC_TEXT, value);
	}
}
