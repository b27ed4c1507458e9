/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What there is to tell of an image; another parent; an image made empty. */
#include <stdio.h>
#include "vmdk.h"

static void tell_number(vh_describe_fn *fn, void *ctx, const char *key, uint64_t v)
{
	char s[24];

	snprintf(s, sizeof(s), "%llu", ULL(v));
	fn(ctx, key, VH_DESC_NUMBER, s);
}

static void tell_hex(vh_describe_fn *fn, void *ctx, const char *key, uint32_t v)
{
	char s[16];

	snprintf(s, sizeof(s), "%08x", v);
	fn(ctx, key, VH_DESC_TEXT, s);
}

static void tell_flag(vh_describe_fn *fn, void *ctx, const char *key, int v)
{
	fn(ctx, key, VH_DESC_BOOL, v ? "true" : "false");
}

static void tell_extents(const struct image *im, vh_describe_fn *fn, void *ctx)
{
	static const char *const kinds[] = {"FLAT", "SPARSE", "VMFSSPARSE", "SESPARSE", "ZERO"};
	static const char *const access[] = {"RW", "RDONLY", "NOACCESS"};

	tell_number(fn, ctx, "extents", im->nx);
	for (uint32_t k = 0; k < im->nx && k < 64; k++) {
		const struct extent *x = &im->x[k];
		const char *name = x->v != im->v0 && im->desc.text && x->desc < im->desc.n ? im->desc.ext[x->desc].name : NULL;
		char key[24], s[1200];

		snprintf(key, sizeof(key), "extent-%u", k);
		snprintf(s, sizeof(s), "%s %llu %s%s%s", access[x->access], ULL(x->sectors), kinds[x->kind], name ? " " : "",
			 name ? name : "");
		fn(ctx, key, VH_DESC_TEXT, s);
	}
}

int vmdk_describe(void *img, vh_describe_fn *fn, void *ctx)
{
	struct image *im = img;
	const struct desc *d = &im->desc;
	const struct extent *x = NULL;

	pthread_mutex_lock(&im->lock);
	for (uint32_t k = 0; k < im->nx && !x; k++)
		if (im->x[k].grain)
			x = &im->x[k];
	if (d->text) {
		fn(ctx, "create-type", VH_DESC_TEXT, d->create_type);
		if (d->has_cid)
			tell_hex(fn, ctx, "cid", d->cid);
		tell_hex(fn, ctx, "parent-cid", d->parent_cid);
		if (d->parent[0])
			fn(ctx, "parent", VH_DESC_TEXT, d->parent);
		if (d->adapter[0])
			fn(ctx, "adapter-type", VH_DESC_TEXT, d->adapter);
		if (d->hwversion[0])
			fn(ctx, "hwversion", VH_DESC_TEXT, d->hwversion);
		if (d->tools[0])
			fn(ctx, "toolsversion", VH_DESC_TEXT, d->tools);
	}
	tell_extents(im, fn, ctx);
	if (x) {
		tell_number(fn, ctx, "version", x->version);
		tell_number(fn, ctx, "grain-size", x->grain * SECTOR);
		tell_flag(fn, ctx, "zeroed-grain", x->zero_gte);
		tell_flag(fn, ctx, "compressed", x->compressed);
		tell_flag(fn, ctx, "redundant-tables", x->rgd != NULL);
		tell_flag(fn, ctx, "unclean-shutdown", x->unclean);
	}
	pthread_mutex_unlock(&im->lock);
	return 0;
}

int vmdk_set_backing(void *img, const char *name, const char *format, uint64_t bytes, struct vh_meta *volume,
		     struct vh_err *e)
{
	struct image *im = img;
	struct desc d = {.at = im->desc.at, .room = im->desc.room};
	uint32_t cid = CID_NONE;
	const char *why;
	char hex[16];
	int r;

	if (im->read_only)
		return fail(e, -EROFS, "the image is read-only");
	if (!im->desc.text)
		return fail(e, -EOPNOTSUPP, "the file has no descriptor, which would name a parent");
	for (uint32_t k = 0; k < im->nx && name; k++)
		if (im->x[k].kind == KIND_FLAT)
			return fail(e, -EINVAL, "a flat image cannot have a parent");
	if (name && format && format[0] && strcmp(format, "vmdk"))
		return fail(e, -EINVAL, "the parent of a VMDK image must be one too, not %s", format);
	if (name && !desc_name_ok(name))
		return fail(e, strlen(name) >= sizeof(d.parent) ? -ENAMETOOLONG : -EINVAL, "the parent's name cannot stand in a descriptor");
	if (name && !volume)
		return fail(e, -EINVAL, "the parent was not handed over, and so its content id is not known");
	if (name && (r = layout_cid(im->ops, volume, &cid, e)) < 0)
		return r;
	r = sync_all(im);
	if (r < 0)
		return fail(e, r, "cannot flush the image");
	snprintf(hex, sizeof(hex), "%08x", cid);
	r = desc_parse(&d, im->desc.text, im->desc.len, &why);
	if (r >= 0)
		r = desc_set(&d, "parentCID", hex, 0, "CID");
	if (r >= 0)
		r = desc_set(&d, "parentFileNameHint", name, 1, "createType");
	if (r >= 0 && d.room && d.len > d.room)
		r = -ENAMETOOLONG;
	if (r < 0) {
		desc_free(&d);
		return fail(e, r, "the descriptor has no room for the parent's name");
	}
	r = desc_write(im, &d, e);
	desc_free(&d);
	return r;
}

/* Runs of tables that follow each other in the file. */
static int tables_zero(struct extent *x, const uint32_t *dir)
{
	int r = 0;

	for (uint32_t k = 0, run; dir && k < x->ngd && r >= 0; k += run) {
		run = 1;
		if (!dir[k])
			continue;
		while (k + run < x->ngd && dir[k + run] == dir[k] + run * x->gt_sectors)
			run++;
		if (dir[k] >= x->end || run * x->gt_sectors > x->end - dir[k])
			return -EIO;
		r = x->img->ops->zero(x->v, run * x->gt_sectors * SECTOR, (uint64_t)dir[k] * SECTOR);
	}
	return r;
}

static int extent_empty(struct extent *x)
{
	struct image *im = x->img;
	int r;

	if (x->kind == KIND_ZERO)
		return 0;
	if (x->kind == KIND_FLAT) {
		r = im->ops->zero(x->v, x->sectors * SECTOR, x->offset * SECTOR);
		return r < 0 ? r : im->ops->flush(x->v);
	}
	pthread_mutex_lock(&im->lock);
	r = space_begin(x, 0);
	pthread_mutex_unlock(&im->lock);
	if (r < 0)
		return r;
	r = tables_zero(x, x->rgd);
	if (r >= 0)
		r = tables_zero(x, x->gd);
	if (r >= 0)
		r = im->ops->flush(x->v); /* no entry may name what is given back next */
	return r < 0 ? r : space_shrink(x);
}

int vmdk_empty(void *img, struct vh_job *j, struct vh_err *e)
{
	struct image *im = img;
	int r = 0;

	if (im->read_only)
		return fail(e, -EROFS, "the image is read-only");
	for (uint32_t k = 0; k < im->nx; k++) {
		const struct extent *x = &im->x[k];

		if (x->compressed || x->kind == KIND_COWD || x->kind == KIND_SESPARSE || x->access != ACCESS_RW)
			return fail(e, -EOPNOTSUPP, "extent %u can only be read", k);
	}
	r = sync_all(im);
	if (r < 0)
		return fail(e, r, "cannot flush the image");
	pthread_mutex_lock(&im->lock);
	r = image_begin(im, 0);
	if (r >= 0)
		tables_drop(im);
	pthread_mutex_unlock(&im->lock);
	for (uint32_t k = 0; k < im->nx && r >= 0; k++)
		r = extent_empty(&im->x[k]);
	return r < 0 ? fail(e, r, "cannot make the image empty") : 0;
}
