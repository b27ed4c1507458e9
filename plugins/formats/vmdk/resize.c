/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Another size of the disk: its last extent becomes longer or shorter. Everything new is made ready where the header does
 * not reach yet; the header, one sector, makes it true. Where the grain directory has no room it moves to the end of the file.
 */
#include <strings.h>
#include "vmdk.h"

static int descriptor(struct image *im, const struct extent *x, uint64_t sectors, struct vh_err *e)
{
	struct desc d = {.at = im->desc.at, .room = im->desc.room};
	const char *why;
	int r;

	if (!im->desc.text)
		return 0;
	r = desc_parse(&d, im->desc.text, im->desc.len, &why);
	if (r >= 0 && x->desc < d.n)
		r = desc_set_sectors(&d, x->desc, sectors);
	if (r >= 0)
		r = desc_set_geometry(&d, x->first + sectors);
	if (r >= 0)
		r = desc_write(im, &d, e);
	desc_free(&d);
	return r < 0 ? fail(e, r, "cannot write the new size into the descriptor") : 0;
}

static int flat_resize(struct image *im, struct extent *x, uint64_t sectors, struct vh_err *e)
{
	uint64_t old = (x->offset + x->sectors) * SECTOR, end = (x->offset + sectors) * SECTOR, have = im->ops->bytes(x->v);
	int r = 0;

	if (sectors < x->sectors) {
		r = descriptor(im, x, sectors, e);
		if (r >= 0 && have == old) {
			r = im->ops->resize(x->v, end);
			r = r == -EOPNOTSUPP ? 0 : r;
		}
		return r < 0 ? fail(e, r, "cannot make the file shorter") : 0;
	}
	if (have > old) /* left over from when it was longer */
		r = im->ops->zero(x->v, MIN(have, end) - old, old);
	if (r >= 0 && have < end)
		r = im->ops->resize(x->v, end);
	if (r >= 0)
		r = im->ops->flush(x->v);
	return r < 0 ? fail(e, r, "cannot make the file %llu bytes long", ULL(end)) : descriptor(im, x, sectors, e);
}

/* ---- sparse ---- */

struct grown {
	uint32_t *gd, *rgd, n;
	uint64_t gd_at, rgd_at;
	uint64_t first, zeros; /* grains: the first new one, and up to where entries must hide the parent */
};

static void entries(uint8_t *raw, const struct extent *x, uint32_t table, const struct grown *w)
{
	for (uint32_t k = 0; k < x->gtes; k++) {
		uint64_t g = (uint64_t)table * x->gtes + k;

		if (g >= w->first)
			put32(raw + (size_t)k * 4, g < w->zeros ? GTE_ZERO : GTE_NONE);
	}
}

static int table_write_both(struct extent *x, const uint8_t *raw, const uint32_t *gd, const uint32_t *rgd, uint32_t k)
{
	uint64_t n = x->gt_sectors * SECTOR;
	int r = rgd && rgd[k] ? x->img->ops->write(x->v, raw, n, (uint64_t)rgd[k] * SECTOR) : 0;

	return r < 0 || !gd[k] ? r : x->img->ops->write(x->v, raw, n, (uint64_t)gd[k] * SECTOR);
}

/* What lies behind the old end in the last table and the last grain was never seen, and may be anything. */
static int old_end(struct extent *x, struct grown *w)
{
	uint64_t within = x->sectors % x->grain, n = x->gt_sectors * SECTOR;
	uint32_t k = (uint32_t)((x->sectors - 1) / x->grain / x->gtes), i = (uint32_t)((x->sectors - 1) / x->grain % x->gtes), g;
	uint8_t *raw = malloc(n);
	int r = raw ? tables_read(x, x->gd, k, 1, raw) : -ENOMEM;

	if (r >= 0 && x->gd[k]) {
		g = get32(raw + (size_t)i * 4);
		if (within && g > GTE_ZERO)
			r = x->img->ops->zero(x->v, (x->grain - within) * SECTOR, (g + within) * SECTOR);
		entries(raw, x, k, w);
		if (r >= 0)
			r = table_write_both(x, raw, x->gd, x->rgd, k);
	}
	free(raw);
	return r;
}

static int new_tables(struct extent *x, struct grown *w)
{
	uint8_t *raw = malloc(x->gt_sectors * SECTOR);
	uint64_t s;
	int r = raw ? 0 : -ENOMEM;

	pthread_mutex_lock(&x->img->lock);
	for (uint32_t copy = 0; copy < 2; copy++) {
		uint32_t *dir = copy ? w->gd : w->rgd;

		for (uint32_t k = x->ngd; k < w->n && dir && r >= 0; k++) {
			r = space_take_tables(x, x->gt_sectors, &s);
			dir[k] = (uint32_t)s;
		}
	}
	pthread_mutex_unlock(&x->img->lock);
	for (uint32_t k = x->ngd; k < w->n && r >= 0; k++) {
		memset(raw, 0, x->gt_sectors * SECTOR);
		entries(raw, x, k, w);
		r = table_write_both(x, raw, w->gd, w->rgd, k);
	}
	free(raw);
	return r;
}

static int directory_write(struct extent *x, const uint32_t *dir, uint32_t n, uint64_t at)
{
	uint64_t bytes = ROUND_UP((uint64_t)n * 4, SECTOR);
	uint8_t *raw = calloc(1, bytes);
	int r = raw ? 0 : -ENOMEM;

	for (uint32_t k = 0; k < n && raw; k++)
		put32(raw + (size_t)k * 4, dir[k]);
	if (r >= 0)
		r = x->img->ops->write(x->v, raw, bytes, at * SECTOR);
	free(raw);
	return r;
}

static int directories(struct extent *x, struct grown *w)
{
	uint64_t need = DIV_UP((uint64_t)w->n * 4, SECTOR);
	int r = 0;

	w->gd_at = x->gd_at;
	w->rgd_at = x->rgd_at;
	if (need > DIV_UP((uint64_t)x->ngd * 4, SECTOR)) {
		pthread_mutex_lock(&x->img->lock);
		if (w->rgd)
			r = space_take_tables(x, need, &w->rgd_at);
		if (r >= 0)
			r = space_take_tables(x, need, &w->gd_at);
		pthread_mutex_unlock(&x->img->lock);
	}
	if (r >= 0 && w->rgd)
		r = directory_write(x, w->rgd, w->n, w->rgd_at);
	return r < 0 ? r : directory_write(x, w->gd, w->n, w->gd_at);
}

static int header_publish(struct extent *x, uint64_t sectors, const struct grown *w)
{
	uint8_t old[SECTOR];
	int r;

	memcpy(old, x->header, SECTOR);
	put64(x->header + HDR_CAPACITY, sectors);
	put64(x->header + HDR_GD, w->gd_at);
	if (w->rgd)
		put64(x->header + HDR_RGD, w->rgd_at);
	r = header_write(x);
	if (r < 0)
		memcpy(x->header, old, SECTOR);
	return r;
}

static int sparse_grow(struct image *im, struct extent *x, uint64_t sectors, struct vh_err *e)
{
	struct grown w = {.n = (uint32_t)extent_gdes(x, sectors), .first = DIV_UP(x->sectors, x->grain)};
	uint64_t parent = im->parent_bytes / SECTOR;
	int r;

	if (im->backing && im->parent_bytes > im->sectors * SECTOR) {
		/* Nothing in the format says how much of the parent was seen: what is new must hide the rest of it. */
		if (!x->zero_gte || x->sectors % x->grain) {
			hint(e, "convert it to an image without a parent");
			return fail(e, -EOPNOTSUPP, "the parent is larger than the disk, and would be seen behind its old end");
		}
		w.zeros = MIN(DIV_UP(parent - x->first, x->grain), DIV_UP(sectors, x->grain));
	}
	w.gd = calloc(w.n, 4);
	w.rgd = x->rgd ? calloc(w.n, 4) : NULL;
	r = w.gd && (w.rgd || !x->rgd) ? 0 : -ENOMEM;
	if (r >= 0) {
		memcpy(w.gd, x->gd, (size_t)x->ngd * 4);
		if (w.rgd)
			memcpy(w.rgd, x->rgd, (size_t)x->ngd * 4);
		r = old_end(x, &w);
	}
	if (r >= 0)
		r = new_tables(x, &w);
	if (r >= 0)
		r = directories(x, &w);
	if (r >= 0)
		r = im->ops->flush(x->v);
	if (r >= 0)
		r = header_publish(x, sectors, &w);
	if (r < 0) {
		free(w.gd);
		free(w.rgd);
		return fail(e, r, "cannot write the tables of a larger disk");
	}
	free(x->gd);
	free(x->rgd);
	x->gd = w.gd;
	x->rgd = w.rgd;
	x->ngd = w.n;
	x->gd_at = w.gd_at;
	x->rgd_at = w.rgd_at;
	x->capacity = sectors;
	r = descriptor(im, x, sectors, e);
	return r;
}

static int sparse_shrink(struct image *im, struct extent *x, uint64_t sectors, struct vh_err *e)
{
	struct grown w = {.n = (uint32_t)extent_gdes(x, sectors), .gd_at = x->gd_at, .rgd_at = x->rgd_at, .rgd = x->rgd};
	uint64_t kept = DIV_UP(sectors, x->grain);
	uint8_t *raw = malloc(x->gt_sectors * SECTOR);
	uint32_t k = w.n - 1;
	int r = raw ? 0 : -ENOMEM;

	/* First the disk is shorter, everywhere it is said; then what nobody sees any more is taken out of the tables. */
	if (r >= 0)
		r = descriptor(im, x, sectors, e);
	if (r >= 0)
		r = header_publish(x, sectors, &w);
	if (r >= 0)
		r = tables_read(x, x->gd, k, 1, raw);
	if (r >= 0 && x->gd[k]) {
		for (uint32_t i = 0; i < x->gtes; i++)
			if ((uint64_t)k * x->gtes + i >= kept)
				put32(raw + (size_t)i * 4, GTE_NONE);
		r = table_write_both(x, raw, x->gd, x->rgd, k);
	}
	free(raw);
	if (r >= 0) {
		x->ngd = w.n;
		x->capacity = sectors;
		if (x->rgd)
			r = directory_write(x, x->rgd, x->ngd, x->rgd_at);
	}
	if (r >= 0)
		r = directory_write(x, x->gd, x->ngd, x->gd_at);
	if (r >= 0)
		r = im->ops->flush(x->v);
	if (r >= 0)
		r = space_shrink(x);
	return r < 0 ? fail(e, r, "cannot write the tables of a smaller disk") : 0;
}

static int possible(const struct image *im, const struct extent *x, uint64_t sectors, struct vh_err *e)
{
	uint64_t end = x->first + x->sectors, most = 1u << 22;

	if (im->read_only)
		return fail(e, -EROFS, "the image is read-only");
	if (x->compressed || x->kind == KIND_COWD || x->kind == KIND_SESPARSE || x->kind == KIND_ZERO || x->access != ACCESS_RW)
		return fail(e, -EOPNOTSUPP, "the size of such an image cannot be changed");
	if (sectors > MAX_SECTORS || (x->kind == KIND_SPARSE && extent_gdes(x, sectors) > MAX_GDES))
		return fail(e, -EFBIG, "%llu bytes are more than the format can map", ULL(sectors * SECTOR));
	if (sectors <= x->first)
		return fail(e, -EOPNOTSUPP, "the last of %u files begins at %llu bytes, and none can go", im->nx, ULL(x->first * SECTOR));
	if (sectors > end && (im->nx > 1 || !strncasecmp(im->desc.create_type, "twoGb", 5)) && sectors - x->first > most) {
		hint(e, "convert it to monolithicSparse or monolithicFlat");
		return fail(e, -EOPNOTSUPP, "a split disk of this size needs more files; the last one may grow to %llu bytes",
			    ULL(most * SECTOR));
	}
	for (uint32_t k = 0; k + 1 < im->nx; k++)
		if (x->kind == KIND_FLAT && im->x[k].v == x->v)
			return fail(e, -EOPNOTSUPP, "the last extent shares its file with another");
	return 0;
}

int vmdk_resize(void *img, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	struct image *im = img;
	struct extent *x = &im->x[im->nx - 1];
	uint64_t sectors = DIV_UP(bytes, SECTOR);
	int r = possible(im, x, sectors, e);

	if (r < 0 || sectors == im->sectors)
		return r;
	r = sync_all(im);
	if (r < 0)
		return fail(e, r, "cannot flush the image");
	pthread_mutex_lock(&im->lock);
	r = image_begin(im, 0);
	if (r >= 0 && x->kind == KIND_SPARSE)
		r = space_begin(x, 0);
	tables_drop(im);
	pthread_mutex_unlock(&im->lock);
	if (r < 0) {
		if (x->damaged)
			hint(e, "check the image with repair");
		return fail(e, r, "cannot change the image");
	}
	if (x->kind == KIND_FLAT)
		r = flat_resize(im, x, sectors - x->first, e);
	else if (sectors > im->sectors)
		r = sparse_grow(im, x, sectors - x->first, e);
	else
		r = sparse_shrink(im, x, sectors - x->first, e);
	pthread_mutex_lock(&im->lock);
	if (x->kind == KIND_SPARSE)
		space_reset(x); /* the tables say anew what is free */
	if (r >= 0) {
		x->sectors = sectors - x->first;
		im->sectors = sectors;
		im->backing_bytes = MIN(im->backing_bytes, sectors * SECTOR);
	}
	pthread_mutex_unlock(&im->lock);
	return r;
}
