/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Checking: every table of both directories, every entry, what shares bytes with what, and space that nothing names. The
 * file is what is checked, so what is in memory is written first. repair.c writes.
 */
#include <stdarg.h>
#include <stdio.h>
#include "vmdk.h"

#define MOST_FINDINGS 10000u /* that are told one by one */
#define LOOK (UINT64_C(1) << 30) /* bytes of space that nothing names which are read, to see whether they are in use */

void check_tell(struct checker *c, uint32_t what, uint64_t sector, const char *fmt, ...)
{
	char text[200];
	va_list ap;

	if (++c->findings > MOST_FINDINGS) {
		c->suppressed++;
		return;
	}
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	c->fn(c->ctx, what, sector * SECTOR, text);
	if (what == VH_CHECK_LEAK ? c->leaks && !c->lost : c->repair)
		c->fn(c->ctx, VH_CHECK_FIXED, sector * SECTOR, text);
}

int bitmap_init(struct bitmap *b, uint64_t granule, uint64_t phase, uint64_t end)
{
	b->granule = granule;
	b->phase = phase % granule;
	b->n = DIV_UP(end, granule) + 1;
	b->bits = calloc(DIV_UP(b->n, 64), 8);
	return b->bits ? 0 : -ENOMEM;
}

static void range(const struct bitmap *b, uint64_t sector, uint64_t n, uint64_t *lo, uint64_t *hi)
{
	*lo = sector > b->phase ? (sector - b->phase) / b->granule : 0;
	*hi = sector + n > b->phase ? MIN(DIV_UP(sector + n - b->phase, b->granule), b->n) : 0;
}

int bitmap_any(const struct bitmap *b, uint64_t sector, uint64_t n)
{
	uint64_t lo, hi;

	range(b, sector, n, &lo, &hi);
	for (uint64_t k = lo; k < hi; k++)
		if (b->bits[k / 64] >> (k % 64) & 1)
			return 1;
	return 0;
}

int bitmap_mark(struct bitmap *b, uint64_t sector, uint64_t n)
{
	uint64_t lo, hi;
	int was = 0;

	range(b, sector, n, &lo, &hi);
	for (uint64_t k = lo; k < hi; k++) {
		was |= (int)(b->bits[k / 64] >> (k % 64) & 1);
		b->bits[k / 64] |= UINT64_C(1) << (k % 64);
	}
	return was;
}

static int cancelled(const struct checker *c)
{
	return c->job && c->job->cancelled && c->job->cancelled(c->j);
}

static int table_ok(const struct extent *x, uint32_t s)
{
	return s && s < x->end && x->gt_sectors <= x->end - s;
}

/* Marks the tables of a directory. Those that lie outside the file, or over others, are of no use; the one that came first
 * there may be the right one, if nobody knows better. */
enum { TABLE_BAD, TABLE_SUSPECT, TABLE_GOOD };
static void mark_tables(struct checker *c, const uint32_t *dir, uint8_t *good, const char *which)
{
	struct extent *x = c->x;

	for (uint32_t k = 0; k < x->ngd; k++) {
		good[k] = TABLE_BAD;
		if (!dir[k])
			continue;
		if (!table_ok(x, dir[k])) {
			check_tell(c, VH_CHECK_CORRUPT, dir[k], "%s grain table %u lies outside the file", which, k);
		} else if (bitmap_any(&c->meta, dir[k], x->gt_sectors)) {
			bitmap_mark(&c->twice, dir[k], x->gt_sectors);
			check_tell(c, VH_CHECK_CORRUPT, dir[k], "%s grain table %u shares bytes with other metadata", which, k);
		} else {
			bitmap_mark(&c->meta, dir[k], x->gt_sectors);
			good[k] = TABLE_GOOD;
		}
	}
}

static void suspect_tables(struct checker *c, const uint32_t *dir, uint8_t *good)
{
	for (uint32_t k = 0; k < c->x->ngd; k++)
		if (good[k] && bitmap_any(&c->twice, dir[k], c->x->gt_sectors))
			good[k] = TABLE_SUSPECT;
}

/* Entries that cannot be, in one copy of a table. */
static uint32_t bad_entries(const struct extent *x, const uint8_t *raw)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < x->gtes; i++)
		n += !entry_ok(x, get32(raw + (size_t)i * 4));
	return n;
}

/* The entries of table k, which is in c->gt. 1: they were changed. */
static int check_entries(struct checker *c, uint32_t k)
{
	struct extent *x = c->x;
	int changed = 0, r;

	for (uint32_t i = 0; i < x->gtes; i++) {
		uint64_t g = get32(c->gt + (size_t)i * 4), at = ((uint64_t)k * x->gtes + i) * x->grain, to;
		int none = g == GTE_NONE || (g == GTE_ZERO && x->zero_gte), lost = 0;

		if (none)
			continue;
		if (at >= x->capacity)
			continue; /* never seen; resize() knows */
		if (!entry_ok(x, g)) {
			check_tell(c, VH_CHECK_CORRUPT, g, "the entry of disk sector %llu leads outside the file or into the header",
				   ULL(x->first + at));
			lost = 1;
		} else if (bitmap_any(&c->meta, g, x->grain)) {
			check_tell(c, VH_CHECK_CORRUPT, g, "the grain of disk sector %llu lies over metadata", ULL(x->first + at));
			lost = 1;
		} else if (bitmap_mark(&c->used, g, x->grain)) {
			check_tell(c, VH_CHECK_CORRUPT, g, "the grain of disk sector %llu is another's as well", ULL(x->first + at));
			if (!c->repair)
				continue;
			r = repair_copy(c, g, &to); /* both keep what they read */
			if (r < 0)
				return r;
			put32(c->gt + (size_t)i * 4, (uint32_t)to);
			changed = 1;
		}
		if (lost && c->repair) {
			put32(c->gt + (size_t)i * 4, GTE_NONE);
			changed = 1;
		}
	}
	return changed;
}

static int check_table(struct checker *c, uint32_t k, int how, int rhow)
{
	struct extent *x = c->x;
	uint64_t n = x->gt_sectors * SECTOR;
	int good = how && !(how == TABLE_SUSPECT && rhow == TABLE_GOOD), rgood = rhow && !(rhow == TABLE_SUSPECT && how == TABLE_GOOD);
	int r = 0, rewrite = 0, late = x->unclean && good && x->rgd && !x->rgd[k];

	if (!good && !rgood) {
		if (x->gd[k] || (x->rgd && x->rgd[k])) { /* told already */
			x->gd[k] = c->repair ? 0 : x->gd[k];
			if (x->rgd && c->repair)
				x->rgd[k] = 0;
			c->damaged_dir = c->lost = 1;
		}
		return 0;
	}
	if (!good && !x->gd[k] && x->unclean) {
		check_tell(c, VH_CHECK_LEAK, x->rgd[k], "the redundant copy of grain table %u is ahead of the first directory", k);
		if (c->leaks || c->repair) {
			x->rgd[k] = 0;
			c->damaged_dir = 1;
		}
		return 0;
	}
	if (good)
		r = tables_read(x, x->gd, k, 1, c->gt);
	if (r >= 0 && rgood)
		r = tables_read(x, x->rgd, k, 1, c->rgt);
	if (r < 0)
		return r;
	if (x->rgd && good != rgood)
		check_tell(c, late ? VH_CHECK_LEAK : VH_CHECK_CORRUPT, good ? x->gd[k] : x->rgd[k], "grain table %u is there only in the %s copy", k,
			   good ? "first" : "redundant");
	if (good && rgood && memcmp(c->gt, c->rgt, n)) {
		int redundant = bad_entries(x, c->gt) > bad_entries(x, c->rgt);

		/* After a crash that is how it must be, and the first one counts. */
		check_tell(c, x->unclean && !redundant ? VH_CHECK_LEAK : VH_CHECK_CORRUPT, x->rgd[k],
			   "the copies of grain table %u differ", k);
		if (redundant)
			memcpy(c->gt, c->rgt, n);
		rewrite = 1;
	}
	if (!good)
		memcpy(c->gt, c->rgt, n);
	r = check_entries(c, k);
	if (r < 0 || !(c->repair || (c->leaks && (late || (rewrite && x->unclean)))))
		return r;
	if (r || rewrite || (x->rgd && good != rgood))
		return repair_table(c, k, good, rgood);
	return 0;
}

static int mark_metadata(struct checker *c)
{
	struct extent *x = c->x;
	uint64_t gd = DIV_UP((uint64_t)x->ngd * 4, SECTOR);

	bitmap_mark(&c->meta, 0, 1);
	if (x->desc_at && x->desc_at < x->end && bitmap_mark(&c->meta, x->desc_at, x->desc_size) && x->desc_at == 0)
		return 0;
	if (x->gd_at && bitmap_mark(&c->meta, x->gd_at, gd))
		check_tell(c, VH_CHECK_CORRUPT, x->gd_at, "the grain directory lies over the header or the descriptor");
	if (x->rgd && x->rgd_at && bitmap_mark(&c->meta, x->rgd_at, gd))
		check_tell(c, VH_CHECK_CORRUPT, x->rgd_at, "the redundant grain directory lies over other metadata");
	return 0;
}

/* Whether all grains lie in slots, so that a bit per slot is enough. */
static int aligned(struct extent *x, int *r)
{
	uint64_t phase = x->overhead % x->grain, each = x->gt_sectors * SECTOR;
	uint8_t *raw = malloc(each);
	int yes = 1;

	*r = raw ? 0 : -ENOMEM;
	for (uint32_t k = 0; k < x->ngd && *r >= 0 && yes; k++) {
		if (!table_ok(x, x->gd[k]))
			continue;
		*r = tables_read(x, x->gd, k, 1, raw);
		for (uint32_t i = 0; i < x->gtes && *r >= 0; i++) {
			uint64_t g = get32(raw + (size_t)i * 4);

			if (g > GTE_ZERO && entry_ok(x, g) && (g - phase) % x->grain)
				yes = 0;
		}
	}
	free(raw);
	return yes;
}

static int check_sparse(struct checker *c)
{
	struct extent *x = c->x;
	uint64_t phase = x->overhead % x->grain, end = MIN(x->end, FILE_SECTORS);
	uint8_t *good = calloc(2, x->ngd), *rgood = good + x->ngd;
	int r = 0, slots = aligned(x, &r);

	c->meta.bits = c->used.bits = c->twice.bits = NULL;
	c->gt = malloc(2 * x->gt_sectors * SECTOR);
	c->rgt = c->gt + x->gt_sectors * SECTOR;
	if (r >= 0 && (!good || !c->gt))
		r = -ENOMEM;
	if (r >= 0)
		r = bitmap_init(&c->meta, 1, 0, end);
	if (r >= 0)
		r = bitmap_init(&c->twice, 1, 0, end);
	/* Copies of grains come behind the end. */
	if (r >= 0)
		r = bitmap_init(&c->used, slots ? x->grain : 1, phase, end);
	if (r >= 0)
		r = mark_metadata(c);
	if (r >= 0 && !x->gd_at) {
		check_tell(c, VH_CHECK_CORRUPT, 0, "the grain directory lies outside the file");
		c->damaged_dir = 1;
	}
	if (r >= 0 && (x->flags & FLAG_RGD) && get64(x->header + HDR_RGD) && !x->rgd) {
		check_tell(c, VH_CHECK_CORRUPT, 0, "the redundant grain directory lies outside the file");
		x->rgd = c->repair ? calloc(x->ngd, 4) : NULL;
		c->damaged_dir = 1;
	}
	if (r >= 0)
		mark_tables(c, x->gd, good, "first");
	if (r >= 0 && x->rgd)
		mark_tables(c, x->rgd, rgood, "redundant");
	if (r >= 0) {
		suspect_tables(c, x->gd, good);
		suspect_tables(c, x->rgd ? x->rgd : x->gd, rgood);
	}
	for (uint32_t k = 0; k < x->ngd && r >= 0; k++) {
		r = check_table(c, k, good[k], rgood[k]);
		if (!(k % 64) && cancelled(c))
			r = -ECANCELED;
		if (!(k % 64) && c->job && c->job->progress)
			c->job->progress(c->j, x->first + (uint64_t)k * x->gtes * x->grain, c->im->sectors);
	}
	if (r >= 0 && (c->repair || c->leaks))
		r = repair_directories(c);
	if (r >= 0)
		r = check_space(c);
	free(good);
	free(c->gt);
	free(c->meta.bits);
	free(c->used.bits);
	free(c->twice.bits);
	c->meta.bits = c->used.bits = c->twice.bits = NULL;
	return r;
}

/* Kinds that are read only: entries, and what is compressed is decoded. */
static int check_readable(struct checker *c)
{
	struct extent *x = c->x;
	uint64_t grain = x->grain * SECTOR;
	uint8_t *in = malloc(2 * grain), *out = malloc(grain);
	int r = in && out ? 0 : -ENOMEM;

	if (x->at_end == 2 && x->end > MAX(x->overhead, 1) && !c->im->stream)
		check_tell(c, VH_CHECK_CORRUPT, x->end, "the stream has no end: it was not written completely, or the file is cut short");
	for (uint64_t pos = x->first * SECTOR, end = (x->first + x->sectors) * SECTOR; pos < end && r >= 0;) {
		struct vh_extent ext[8];
		struct vh_map m = {.size = sizeof(m), .op = VH_MAP_REPORT, .cap = 8, .pos = pos, .len = end - pos, .ext = ext};

		r = vmdk_map(c->im, &m);
		if (cancelled(c))
			r = -ECANCELED;
		if (r == -EIO) {
			check_tell(c, VH_CHECK_CORRUPT, pos / SECTOR, "the table or the entry of disk sector %llu leads outside the file",
				   ULL(pos / SECTOR));
			r = 0;
			pos += MIN(end - pos, grain - pos % grain);
			continue;
		}
		for (uint32_t k = 0; k < m.n && r >= 0; k++) {
			const struct vh_extent *y = &ext[k];

			pos = y->pos + y->len;
			if (y->type != VH_EXT_COMPRESSED)
				continue;
			r = c->im->ops->read(x->v, in, y->aux, y->addr);
			if (r >= 0 && vmdk_decode(c->im, y, in, y->aux, out, y->bytes) < 0)
				check_tell(c, VH_CHECK_CORRUPT, y->addr / SECTOR, "the grain of disk sector %llu is damaged",
					   ULL(y->pos / SECTOR));
		}
		if (c->job && c->job->progress)
			c->job->progress(c->j, pos, c->im->sectors * SECTOR);
	}
	free(in);
	free(out);
	return r;
}

static int check_flat(struct checker *c)
{
	struct extent *x = c->x;
	uint64_t need = (x->offset + x->sectors) * SECTOR, have = c->im->ops->bytes(x->v);

	if (have >= need)
		return 0;
	check_tell(c, VH_CHECK_CORRUPT, have / SECTOR, "the file of extent %u is cut short by %llu bytes", x->desc, ULL(need - have));
	return c->repair ? c->im->ops->resize(x->v, need) : 0;
}

static int all_zero(const uint8_t *p, uint64_t n)
{
	return !n || (!p[0] && !memcmp(p, p + 1, n - 1));
}

/* Whether [sector, sector+n) holds anything; as far as there is patience. */
static int holds_data(struct checker *c, uint64_t sector, uint64_t n)
{
	uint64_t piece = 1u << 20;
	uint8_t *buf = malloc(piece);
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t at = sector * SECTOR, end = at + n * SECTOR; at < end && r == 0 && c->looked < LOOK; at += piece) {
		piece = MIN(piece, end - at);
		c->looked += piece;
		r = c->im->ops->read(c->x->v, buf, piece, at);
		if (r >= 0)
			r = !all_zero(buf, piece);
	}
	free(buf);
	return r;
}

int check_space(struct checker *c)
{
	struct extent *x = c->x;
	int give_back = c->leaks && !c->lost; /* what a lost table named may still be wanted */
	uint64_t file = c->end, at = MAX(x->overhead, c->used.phase), n;
	int r = 0;

	for (uint64_t k = 0; k < x->held.n; k++)
		bitmap_mark(&c->used, x->held.v[k], x->grain);
	at = ROUND_UP(at - c->used.phase, x->grain) + c->used.phase;
	for (; at < file && r >= 0; at += n) { /* slot by slot: the rest of one that tables have is theirs */
		n = MIN(x->grain, file - at);
		if (bitmap_any(&c->used, at, n) || bitmap_any(&c->meta, at, n))
			continue;
		while (at + n < file && !bitmap_any(&c->used, at + n, x->grain) && !bitmap_any(&c->meta, at + n, x->grain))
			n += MIN(x->grain, file - at - n);
		r = holds_data(c, at, n);
		if (r <= 0)
			continue;
		check_tell(c, VH_CHECK_LEAK, at, "%llu bytes hold data that nothing refers to", ULL(n * SECTOR));
		r = give_back ? c->im->ops->discard(x->v, n * SECTOR, at * SECTOR) : 0;
		/* A volume that punches nothing, or not to the last sector. */
		if (give_back && (r == -EOPNOTSUPP || (r >= 0 && holds_data(c, at, n) > 0)))
			r = c->im->ops->zero(x->v, n * SECTOR, at * SECTOR);
	}
	return r < 0 ? r : 0;
}

int vmdk_check(void *img, uint32_t repair, vh_check_fn *fn, void *ctx, struct vh_job *j, struct vh_err *e)
{
	struct image *im = img;
	struct checker c = {.im = im, .fn = fn, .ctx = ctx, .j = j};
	int r = im->read_only ? 0 : sync_all(im);

	c.repair = !im->read_only && (repair & VH_CHECK_CORRUPT);
	c.leaks = !im->read_only && (repair & VH_CHECK_LEAK);
	c.job = vh_service(vmdk_host, VH_SVC_JOB, sizeof(*c.job));
	if (r < 0)
		return fail(e, r, "cannot flush the image");
	for (uint32_t k = 0; k < im->nx && r >= 0; k++) {
		c.x = &im->x[k];
		c.damaged_dir = c.lost = 0;
		c.end = c.x->v ? MIN(im->ops->bytes(c.x->v) / SECTOR, FILE_SECTORS) : 0;
		if (c.x->kind == KIND_FLAT)
			r = check_flat(&c);
		else if (c.x->kind == KIND_SPARSE && !c.x->compressed)
			r = check_sparse(&c);
		else if (c.x->kind != KIND_ZERO)
			r = check_readable(&c);
	}
	if (c.suppressed)
		fn(ctx, VH_CHECK_CORRUPT, 0, "and many more faults, which are not told one by one");
	if ((c.repair || c.leaks) && r >= 0) { /* what was in memory may be another now */
		pthread_mutex_lock(&im->lock);
		tables_drop(im);
		for (uint32_t k = 0; k < im->nx; k++)
			space_reset(&im->x[k]);
		pthread_mutex_unlock(&im->lock);
		r = sync_volumes(im);
	}
	return r < 0 ? fail(e, r, r == -ECANCELED ? "cancelled" : "cannot read or write the image's tables") : 0;
}
