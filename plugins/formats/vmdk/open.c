/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Opening and closing: the extents one after the other, the parent's content id, and what may be changed. */
#include <strings.h>
#include "vmdk.h"

/* The position of an extent's file among the different ones, from 0; *n: how many there are up to it. */
static uint32_t file_of(const struct desc *d, uint32_t k, uint32_t *seen, uint32_t *nseen)
{
	for (uint32_t j = 0; j < *nseen; j++)
		if (!strcmp(d->ext[seen[j]].name, d->ext[k].name))
			return j;
	seen[*nseen] = k;
	return (*nseen)++;
}

static int has_parent(const struct desc *d)
{
	return d->text && d->parent_cid != CID_NONE && d->parent[0];
}

int vmdk_inspect(struct vh_meta *volume0, struct vh_ref *refs, uint32_t cap, struct vh_err *e)
{
	const struct vh_meta_ops *m = vmdk_meta(e);
	uint32_t n = 0, *seen;
	enum file_kind kind;
	struct desc d;
	int r = m ? layout_read(m, volume0, &kind, &d, e) : -EOPNOTSUPP;

	if (r < 0)
		return r;
	seen = calloc(d.n + 1, sizeof(*seen));
	if (!seen) {
		desc_free(&d);
		return fail(e, -ENOMEM, "no memory for the extents");
	}
	for (uint32_t k = 0; kind == FILE_TEXT && k < d.n; k++)
		if (d.ext[k].name)
			file_of(&d, k, seen, &n);
	for (uint32_t k = 0; k < n && k < cap; k++) {
		refs[k].role = VH_REF_DATA;
		refs[k].optional = 0;
		strcpy(refs[k].name, d.ext[seen[k]].name); /* its length was checked */
		strcpy(refs[k].format, "raw");
	}
	if (has_parent(&d)) {
		if (n < cap) {
			refs[n].role = VH_REF_BACKING;
			refs[n].optional = 0;
			strcpy(refs[n].name, d.parent);
			strcpy(refs[n].format, "vmdk");
		}
		n++;
	}
	free(seen);
	desc_free(&d);
	return (int)n;
}

/* Plain extents may be parts of one file; a sparse one has its file for itself. */
static int files_apart(struct image *im, struct vh_err *e)
{
	uint8_t *how = calloc(im->nvols, 1);
	int r = how ? 0 : fail(e, -ENOMEM, "no memory for %u extents", im->nx);

	for (uint32_t k = 0; k < im->nx && r >= 0; k++) {
		const struct extent *x = &im->x[k];
		uint8_t mine = x->kind == KIND_FLAT ? 1 : 2;

		if (x->kind == KIND_ZERO)
			continue;
		if (how[x->vol] && (how[x->vol] | mine) != 1)
			r = fail(e, -EINVAL, "extent file %s is named twice", im->desc.ext[k].name);
		how[x->vol] |= mine;
	}
	free(how);
	return r;
}

static int extents_make(struct image *im, enum file_kind kind, struct vh_err *e)
{
	uint32_t *seen, nseen = 0;

	im->nx = kind == FILE_TEXT ? im->desc.n : 1;
	im->x = calloc(im->nx, sizeof(*im->x));
	seen = calloc(im->nx, sizeof(*seen));
	if (!im->x || !seen) {
		free(seen);
		return fail(e, -ENOMEM, "no memory for %u extents", im->nx);
	}
	for (uint32_t k = 0; k < im->nx; k++) {
		struct extent *x = &im->x[k];

		x->img = im;
		x->desc = k;
		if (kind != FILE_TEXT) { /* whatever its own descriptor calls it: files are renamed */
			x->kind = KIND_SPARSE;
			x->v = im->v0;
			continue;
		}
		x->kind = im->desc.ext[k].kind;
		x->access = im->desc.ext[k].access;
		x->offset = im->desc.ext[k].offset;
		x->sectors = im->desc.ext[k].sectors;
		if (!im->desc.ext[k].name)
			continue;
		x->vol = 1 + file_of(&im->desc, k, seen, &nseen);
		x->v = x->vol < im->nvols ? im->volumes[x->vol] : NULL;
		if (!x->v) {
			free(seen);
			return fail(e, -EINVAL, "extent file %s was not handed over", im->desc.ext[k].name);
		}
	}
	free(seen);
	return kind == FILE_TEXT ? files_apart(im, e) : 0;
}

static int flat_open(struct image *im, struct extent *x, struct vh_err *e)
{
	uint64_t have = im->ops->bytes(x->v), need = (x->offset + x->sectors) * SECTOR;

	if (have >= need || im->repair)
		return 0;
	hint(e, "if what is missing may be lost, check the image with repair");
	return fail(e, -EINVAL, "extent file %s is cut short: it has %llu bytes of %llu", im->desc.ext[x->desc].name, ULL(have),
		    ULL(need));
}

/* Whether this plugin can change the extent. */
static int writable(struct image *im, struct extent *x, struct vh_err *e)
{
	int r = 0;

	if (x->access != ACCESS_RW || x->kind == KIND_FLAT || x->kind == KIND_ZERO)
		return 0;
	if (x->compressed && x->at_end == 2 && im->nx == 1)
		return stream_open(im, e);
	if (x->compressed && !im->repair)
		r = fail(e, -EROFS, "a streamOptimized image is written once, and this one is complete");
	else if (x->kind == KIND_COWD || x->kind == KIND_SESPARSE)
		r = fail(e, -EROFS, "%s extents can only be read", x->kind == KIND_COWD ? "COWD" : "seSparse");
	else if (x->grain < MIN_GRAIN)
		r = fail(e, -EROFS, "grains of %llu sectors can only be read; %u is the smallest that is written", ULL(x->grain),
			 MIN_GRAIN);
	else if (x->first * SECTOR % im->unit)
		r = fail(e, -EROFS, "an extent begins within a grain, at byte %llu; such disks can only be read",
			 ULL(x->first * SECTOR));
	if (r < 0)
		hint(e, "open it read-only, or convert it to another subformat");
	return r;
}

static int extents_open(struct image *im, enum file_kind kind, struct vh_err *e)
{
	uint64_t budget = MAX_GDES, at = 0;
	int r = 0;

	im->unit = SECTOR;
	for (uint32_t k = 0; k < im->nx && r >= 0; k++) {
		struct extent *x = &im->x[k];
		const char *name = kind == FILE_TEXT && im->desc.ext[k].name ? im->desc.ext[k].name : NULL;

		x->first = at;
		if (x->kind == KIND_FLAT) {
			r = flat_open(im, x, e);
		} else if (x->kind != KIND_ZERO) {
			r = extent_header(im, x, e);
			if (r >= 0 && kind != FILE_TEXT)
				x->sectors = x->capacity;
			if (r >= 0 && x->sectors > x->capacity)
				r = fail(e, -EINVAL, "it has %llu sectors, the descriptor says %llu", ULL(x->capacity), ULL(x->sectors));
			if (r >= 0)
				r = extent_directory(im, x, &budget, e);
			im->unit = MAX(im->unit, (uint32_t)(x->grain * SECTOR));
			im->stream_format |= x->compressed;
		}
		if (r < 0 && name && x->kind != KIND_FLAT)
			fail(e, r, "extent file %s", name);
		at += x->sectors;
		if (r >= 0 && at > MAX_SECTORS)
			r = fail(e, -EFBIG, "the extents are larger than a disk can be");
	}
	im->sectors = at;
	for (uint32_t k = 0; k < im->nx && r >= 0 && !im->read_only; k++)
		r = writable(im, &im->x[k], e);
	return r;
}

static int parent_check(struct image *im, const struct vh_open *o, struct vh_err *e)
{
	uint32_t cid;
	int r;

	im->backing = has_parent(&im->desc);
	im->parent_bytes = im->backing ? o->backing_bytes : 0;
	im->backing_bytes = im->backing ? MIN(o->backing_bytes, im->sectors * SECTOR) : 0;
	if (!im->backing || !VH_HAS(o, backing) || !o->backing || im->repair || vh_opt_num(o->opts, "parent-cid", 0))
		return 0;
	r = layout_cid(im->ops, o->backing, &cid, e);
	if (r < 0)
		return fail(e, r, "cannot read the content id of the parent %s", im->desc.parent);
	if (cid == im->desc.parent_cid)
		return 0;
	hint(e, "if the parent is the right one all the same, open it with parent-cid=ignore, and set the parent again");
	return fail(e, -EINVAL, "the parent %s has content id %08x, this image was made over %08x: it was changed since, or is another",
		    im->desc.parent, cid, im->desc.parent_cid);
}

static void image_free(struct image *im)
{
	stream_free(im);
	tables_drop(im);
	free(im->hash);
	for (uint32_t k = 0; im->x && k < im->nx; k++) {
		struct extent *x = &im->x[k];

		free(x->gd);
		free(x->rgd);
		free(x->bits);
		free(x->freed.v);
		free(x->unlinked.v);
		free(x->written.v);
		free(x->held.v);
	}
	free(im->x);
	free(im->volumes);
	desc_free(&im->desc);
	codec_free(im->codec);
	pthread_mutex_destroy(&im->lock);
	pthread_cond_destroy(&im->cond);
	free(im);
}

int vmdk_open(const struct vh_open *o, void **img, struct vh_err *e)
{
	const struct vh_meta_ops *m = vmdk_meta(e);
	enum file_kind kind;
	struct image *im;
	int r;

	if (!m)
		return -EOPNOTSUPP;
	if (o->flags & VH_MUST_UNDERSTAND & ~(VH_OPEN_RO | VH_OPEN_REPAIR))
		return fail(e, -EOPNOTSUPP, "unknown open flags 0x%llx", ULL(o->flags));
	if (o->n < 1)
		return fail(e, -EINVAL, "no volume was handed over");
	im = calloc(1, sizeof(*im));
	if (!im)
		return fail(e, -ENOMEM, "no memory for an image");
	pthread_mutex_init(&im->lock, NULL);
	pthread_cond_init(&im->cond, NULL);
	im->ops = m;
	im->v0 = o->volumes[0];
	im->nvols = o->n;
	im->volumes = calloc(o->n, sizeof(struct vh_meta *));
	if (!im->volumes) {
		image_free(im);
		return fail(e, -ENOMEM, "no memory for %u files", o->n);
	}
	memcpy(im->volumes, o->volumes, o->n * sizeof(struct vh_meta *));
	im->read_only = !!(o->flags & VH_OPEN_RO);
	im->repair = !!(o->flags & VH_OPEN_REPAIR);
	r = layout_read(m, im->v0, &kind, &im->desc, e);
	if (r >= 0)
		r = extents_make(im, kind, e);
	if (r >= 0)
		r = extents_open(im, kind, e);
	if (r >= 0 && im->stream_format) {
		if (!(o->host_caps & VH_FMT_COMPRESSED))
			r = fail(e, -EOPNOTSUPP, "this host cannot read compressed images");
		im->codec = r >= 0 ? codec_new((int)vh_opt_num(o->opts, "compress-level", 0)) : NULL;
		if (r >= 0 && !im->codec)
			r = fail(e, -ENOMEM, "no memory for an image");
	}
	if (r >= 0)
		r = parent_check(im, o, e);
	if (r < 0) {
		image_free(im);
		return r;
	}
	*img = im;
	return 0;
}

int sync_volumes(struct image *im)
{
	int r = 0;

	for (uint32_t k = 0; k < im->nvols && r >= 0; k++)
		if (im->volumes[k])
			r = im->ops->flush(im->volumes[k]);
	return r;
}

int sync_all(struct image *im)
{
	int r = 1;

	for (uint32_t phase = 0; r == 1; phase++) {
		r = vmdk_flush(im, phase);
		if (r == 1 && sync_volumes(im) < 0)
			return -EIO;
	}
	return r < 0 ? r : sync_volumes(im);
}

/* Tells in the header that all is in order, but only if it is. */
static void tidy(struct image *im)
{
	int clean = 1;

	for (struct table *t = im->lru_first; t; t = t->next)
		clean &= !t->dirty && !t->copy && !t->fresh;
	for (uint32_t k = 0; k < im->nx && clean && !im->stream; k++) {
		struct extent *x = &im->x[k];

		if (!x->marked || im->ops->flush(x->v) < 0)
			continue;
		x->header[HDR_UNCLEAN] = 0;
		header_write(x);
	}
	/* Volumes may have grown to a whole block when their last part was written; these kinds of files end where they end. */
	if (im->desc.text && !im->desc.room && im->cid_state == 2 && im->ops->bytes(im->v0) > im->desc.len)
		im->ops->resize(im->v0, im->desc.len);
}

void vmdk_close(void *img)
{
	struct image *im = img;

	if (!im->read_only)
		tidy(im);
	if (im->stream)
		stream_close(im);
	image_free(im);
}

int vmdk_info(void *img, struct vh_image_info *i)
{
	struct image *im = img;

	i->volumes = im->nvols;
	i->caps = VH_FMT_LOCK_SELF;
	if (im->stream_format)
		i->caps |= VH_FMT_COMPRESSED;
	else
		i->caps |= VH_FMT_DISCARD | VH_FMT_ZERO;
	if (im->stream)
		i->caps |= VH_FMT_WRITE_ONCE | VH_FMT_ENCODE;
	if (im->backing)
		i->caps |= VH_FMT_BACKING;
	i->bytes = im->sectors * SECTOR;
	i->unit = i->subunit = im->unit;
	i->backing_bytes = im->backing_bytes;
	pthread_mutex_lock(&im->lock);
	for (uint32_t k = 0; k < im->nx; k++)
		if (im->x[k].unclean)
			i->caps |= VH_FMT_DIRTY;
	if (VH_KNOWS(i, end) && im->nx == 1 && im->x[0].v == im->v0 && im->x[0].kind == KIND_SPARSE && !im->stream_format)
		i->end = space_end(&im->x[0]) * SECTOR;
	pthread_mutex_unlock(&im->lock);
	return 0;
}
