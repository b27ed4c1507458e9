/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the head of a file says: which kind it is, the descriptor, the headers of sparse extents and their directories. Any
 * bytes may be there: each is read once, checked, and only then believed. */
#include "vmdk.h"

const struct vh_meta_ops *vmdk_meta(struct vh_err *e)
{
	const struct vh_meta_ops *m = vh_service(vmdk_host, VH_SVC_META, sizeof(*m));

	if (!m)
		fail(e, -EOPNOTSUPP, "this host has no " VH_SVC_META " service");
	return m;
}

int file_kind(const uint8_t *s, uint64_t len, enum file_kind *out)
{
	if (len >= SECTOR && get32(s) == SPARSE_MAGIC)
		*out = FILE_SPARSE;
	else if (len >= SECTOR && get32(s) == COWD_MAGIC)
		*out = FILE_COWD;
	else if (len >= SECTOR && get64(s) == SESPARSE_MAGIC)
		*out = FILE_SESPARSE;
	else if (desc_is_text(s, len))
		*out = FILE_TEXT;
	else
		return -EINVAL;
	return 0;
}

int layout_read(const struct vh_meta_ops *m, struct vh_meta *v, enum file_kind *kind, struct desc *d, struct vh_err *e)
{
	uint64_t bytes = m->bytes(v), at = 0, n = bytes;
	uint8_t s[SECTOR];
	const char *why;
	char *text;
	int r = m->read(v, s, sizeof(s), 0);

	memset(d, 0, sizeof(*d));
	if (r < 0)
		return fail(e, r, "cannot read the beginning of the image");
	if (file_kind(s, sizeof(s), kind) < 0)
		return fail(e, -EINVAL, "neither a VMDK descriptor nor a VMDK extent");
	if (*kind == FILE_COWD || *kind == FILE_SESPARSE)
		return 0;
	if (*kind == FILE_SPARSE) {
		at = get64(s + HDR_DESC);
		n = get64(s + HDR_DESC_SIZE);
		if (!at || !n)
			return 0;
		if (at > MAX_SECTORS || n > DESC_MAX / SECTOR || at * SECTOR >= bytes)
			return fail(e, -EINVAL, "the embedded descriptor (%llu sectors at sector %llu) lies outside the file", ULL(n),
				    ULL(at));
		d->at = at *= SECTOR;
		d->room = n *= SECTOR;
	}
	n = MIN(n, DESC_MAX + 1); /* a volume may be larger than the text in it, which then ends with a NUL */
	text = malloc(n + 1);
	if (!text)
		return fail(e, -ENOMEM, "no memory for the descriptor");
	r = m->read(v, text, n, at);
	if (r < 0) {
		free(text);
		return fail(e, r, "cannot read the descriptor");
	}
	if (n > DESC_MAX && !memchr(text, 0, n)) {
		free(text);
		return fail(e, -EFBIG, "a descriptor of more than %u bytes", DESC_MAX);
	}
	r = desc_parse(d, text, n, &why);
	free(text);
	if (r < 0)
		return fail(e, r, "the descriptor is not usable: %s", why);
	/* A sparse file without a disk of its own carries the descriptor of others. */
	if (*kind == FILE_SPARSE && !get64(s + HDR_CAPACITY) && d->n)
		*kind = FILE_TEXT;
	if (*kind == FILE_TEXT && !d->n) {
		desc_free(d);
		return fail(e, -EINVAL, "the descriptor names no extent");
	}
	return 0;
}

int layout_cid(const struct vh_meta_ops *m, struct vh_meta *v, uint32_t *cid, struct vh_err *e)
{
	enum file_kind kind;
	struct desc d;
	int r = layout_read(m, v, &kind, &d, e);

	if (r < 0)
		return r;
	r = d.has_cid ? 0 : fail(e, -EINVAL, "the image has no content id, so that nothing can be made over it");
	*cid = d.cid;
	desc_free(&d);
	return r;
}

/* Our own files are whole sectors, filled up with line ends, and stay that. */
static int whole_sectors(struct desc *d)
{
	uint64_t n = d->len;
	char *text;

	while (n > 1 && d->text[n - 1] == '\n' && d->text[n - 2] == '\n')
		n--;
	text = realloc(d->text, ROUND_UP(n, SECTOR) + 1);
	if (!text)
		return -ENOMEM;
	d->text = text;
	d->len = ROUND_UP(n, SECTOR);
	memset(text + n, '\n', d->len - n);
	text[d->len] = 0;
	return 0;
}

int desc_write(struct image *im, struct desc *d, struct vh_err *e)
{
	int pad = !d->room && im->desc.len % SECTOR == 0 ? whole_sectors(d) : 0;
	uint64_t old = im->desc.len;
	uint64_t room = MAX(ROUND_UP(MAX(old, d->len), SECTOR), d->room);
	struct desc old_desc;
	uint8_t *a, *b;
	int r = 0;

	if (pad < 0)
		return fail(e, pad, "no memory for the descriptor");
	if (d->room && d->len > d->room)
		return fail(e, -ENOSPC, "the descriptor has room for %llu bytes, %llu are needed", ULL(d->room), ULL(d->len));
	a = calloc(2, room);
	if (!a)
		return fail(e, -ENOMEM, "no memory for the descriptor");
	b = a + room;
	memcpy(a, im->desc.text, old);
	memcpy(b, d->text, d->len);
	if (!d->room && d->len < old)
		memset(b + d->len, '\n', old - d->len); /* should the file not become shorter */
	/* Sectors that stay as they are are not touched: most changes are one sector, and cannot be torn. */
	for (uint64_t s = 0; s < room && r >= 0; s += SECTOR) {
		uint64_t n = d->room ? SECTOR : MIN(SECTOR, MAX(old, d->len) > s ? MAX(old, d->len) - s : 0);

		if (n && memcmp(a + s, b + s, n))
			r = im->ops->write(im->v0, b + s, n, d->at + s);
	}
	free(a);
	if (r >= 0 && !d->room && d->len < old) {
		r = im->ops->resize(im->v0, d->len);
		r = r == -EOPNOTSUPP ? 0 : r;
	}
	if (r >= 0)
		r = im->ops->flush(im->v0);
	if (r < 0)
		return fail(e, r, "cannot write the descriptor");
	pthread_mutex_lock(&im->lock);
	old_desc = im->desc;
	im->desc = *d;
	pthread_mutex_unlock(&im->lock);
	desc_free(&old_desc);
	memset(d, 0, sizeof(*d));
	return 0;
}

static int power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

uint64_t extent_gdes(const struct extent *x, uint64_t sectors)
{
	return DIV_UP(sectors, x->grain * x->gtes);
}

static int geometry_ok(struct extent *x, struct vh_err *e)
{
	if (!x->capacity || x->capacity > MAX_SECTORS)
		return fail(e, -EINVAL, "an extent of %llu sectors", ULL(x->capacity));
	if (!power_of_two(x->grain) || x->grain > MAX_GRAIN)
		return fail(e, -EINVAL, "grains of %llu sectors; a power of two up to %u is possible", ULL(x->grain), MAX_GRAIN);
	if (!x->gtes || x->gtes > MAX_GTES)
		return fail(e, -EINVAL, "grain tables of %u entries; 1 to %u are possible", x->gtes, MAX_GTES);
	x->gt_sectors = DIV_UP((uint64_t)x->gtes * (x->wide ? 8 : 4), SECTOR);
	if (extent_gdes(x, x->capacity) > MAX_GDES)
		return fail(e, -EFBIG, "the grain directory has more than %u entries", MAX_GDES);
	x->ngd = (uint32_t)extent_gdes(x, x->capacity);
	return 0;
}

/* The header that counts is at the end of the file: before the end-of-stream marker, and padding of whoever copied it. */
static int find_footer(struct image *im, struct extent *x, uint8_t *footer)
{
	uint64_t end = im->ops->bytes(x->v) / SECTOR;
	uint8_t *tail;
	uint64_t n = MIN(end, 130);
	int r;

	if (end < 3)
		return -ENOENT;
	tail = malloc(n * SECTOR);
	if (!tail)
		return -ENOMEM;
	r = im->ops->read(x->v, tail, n * SECTOR, (end - n) * SECTOR);
	for (uint64_t k = n; r >= 0 && k-- > 0;) {
		if (k + end - n == 0 || get32(tail + k * SECTOR) != SPARSE_MAGIC || get64(tail + k * SECTOR + HDR_GD) == GD_AT_END)
			continue;
		memcpy(footer, tail + k * SECTOR, SECTOR);
		free(tail);
		return 0;
	}
	free(tail);
	return r < 0 ? r : -ENOENT;
}

static int sparse_header(struct image *im, struct extent *x, struct vh_err *e)
{
	static const uint8_t newline[] = "\n \r\n", none[4];
	uint8_t h[SECTOR];
	int r;

	memcpy(h, x->header, sizeof(h));
	if (get64(h + HDR_GD) == GD_AT_END) {
		r = find_footer(im, x, h);
		if (r < 0 && r != -ENOENT)
			return fail(e, r, "cannot read the end of the file");
		x->at_end = 1;
		if (r == -ENOENT && x->end > MAX(get64(h + HDR_OVERHEAD), 1) && !im->repair)
			return fail(e, -EINVAL, "the stream has no end: it was not written completely, or the file is cut short");
		if (r == -ENOENT)
			x->at_end = 2; /* nothing was put there yet */
	}
	x->version = get32(h + HDR_VERSION);
	x->flags = get32(h + HDR_FLAGS);
	x->capacity = get64(h + HDR_CAPACITY);
	x->grain = get64(h + HDR_GRAIN);
	x->gtes = get32(h + HDR_GTES);
	x->desc_at = get64(h + HDR_DESC);
	x->desc_size = get64(h + HDR_DESC_SIZE);
	x->gd_at = x->at_end == 2 ? 0 : get64(h + HDR_GD);
	x->rgd_at = x->flags & FLAG_RGD ? get64(h + HDR_RGD) : 0;
	x->overhead = get64(h + HDR_OVERHEAD);
	x->unclean = h[HDR_UNCLEAN] != 0;
	x->zero_gte = !!(x->flags & FLAG_ZERO_GRAIN);
	x->compressed = !!(x->flags & FLAG_COMPRESSED);
	x->markers = !!(x->flags & FLAG_MARKERS);
	if (x->version < 1 || x->version > 3)
		return fail(e, -EOPNOTSUPP, "version %u of sparse extents is not known (1 to 3 are)", x->version);
	if ((x->flags & FLAG_NEWLINE) && memcmp(h + HDR_NEWLINE, newline, 4) && memcmp(h + HDR_NEWLINE, none, 4))
		return fail(e, -EINVAL, "line ends in the header were changed: the file was copied as a text");
	if (x->compressed && (h[HDR_COMPRESS] | h[HDR_COMPRESS + 1] << 8) != 1)
		return fail(e, -EOPNOTSUPP, "compression %u is not known (only 1, deflate, is)",
			    h[HDR_COMPRESS] | h[HDR_COMPRESS + 1] << 8);
	if (!x->desc_at || !x->desc_size || x->desc_at > MAX_SECTORS || x->desc_size > DESC_MAX / SECTOR)
		x->desc_at = x->desc_size = 0;
	return geometry_ok(x, e);
}

static int cowd_header(struct extent *x, struct vh_err *e)
{
	const uint8_t *h = x->header;
	int r;

	x->version = get32(h + 4);
	x->capacity = get32(h + 12);
	x->grain = get32(h + 16);
	x->gd_at = get32(h + 20);
	x->gtes = 4096;
	if (x->version != 1)
		return fail(e, -EOPNOTSUPP, "version %u of COWD extents is not known", x->version);
	r = geometry_ok(x, e);
	if (r >= 0 && get32(h + 24) < x->ngd)
		return fail(e, -EINVAL, "the grain directory has %u entries, %u are needed", get32(h + 24), x->ngd);
	return r;
}

static int sesparse_header(struct image *im, struct extent *x, struct vh_err *e)
{
	const uint8_t *h = x->header;
	uint8_t v[SECTOR];
	uint64_t at = get64(h + 80);
	int r;

	if (get64(h + 8) != UINT64_C(0x200000001) || get64(h + 40))
		return fail(e, -EOPNOTSUPP, "version 0x%llx (flags 0x%llx) of seSparse extents is not known", ULL(get64(h + 8)),
			    ULL(get64(h + 40)));
	x->capacity = get64(h + 16);
	x->grain = get64(h + 24);
	if (x->grain != 8 || get64(h + 32) != 64)
		return fail(e, -EOPNOTSUPP, "seSparse grains of %llu sectors, tables of %llu; only 8 and 64 are known",
			    ULL(get64(h + 24)), ULL(get64(h + 32)));
	x->wide = 1;
	x->gtes = 4096;
	x->gd_at = get64(h + 128);
	x->gt_base = get64(h + 144);
	x->grain_base = get64(h + 192);
	x->zero_gte = 1;
	r = geometry_ok(x, e);
	if (r < 0)
		return r;
	if (x->gd_at > MAX_SECTORS || x->gt_base > MAX_SECTORS || x->grain_base > MAX_SECTORS || at > MAX_SECTORS)
		return fail(e, -EINVAL, "the seSparse header points outside the file");
	if (get64(h + 136) < DIV_UP((uint64_t)x->ngd * 8, SECTOR))
		return fail(e, -EINVAL, "the grain directory has %llu sectors, too few for %u entries", ULL(get64(h + 136)), x->ngd);
	r = im->ops->read(x->v, v, sizeof(v), at * SECTOR);
	if (r < 0)
		return fail(e, r, "cannot read the volatile header");
	if (get64(v) != UINT64_C(0xcafecafe))
		return fail(e, -EINVAL, "the seSparse volatile header is damaged");
	if (v[24])
		return fail(e, -EOPNOTSUPP, "the seSparse journal must be replayed, which only ESXi can: it was not closed cleanly");
	return 0;
}

int extent_header(struct image *im, struct extent *x, struct vh_err *e)
{
	enum file_kind k;
	int r = im->ops->read(x->v, x->header, SECTOR, 0);

	if (r < 0)
		return fail(e, r, "cannot read the header");
	if (file_kind(x->header, SECTOR, &k) < 0 || k == FILE_TEXT)
		return fail(e, -EINVAL, "not the sparse extent that it should be");
	x->end = MIN(DIV_UP(im->ops->bytes(x->v), SECTOR), UINT64_C(1) << 54);
	x->kind = k == FILE_SPARSE ? KIND_SPARSE : k == FILE_COWD ? KIND_COWD : KIND_SESPARSE;
	return k == FILE_SPARSE ? sparse_header(im, x, e) : k == FILE_COWD ? cowd_header(x, e) : sesparse_header(im, x, e);
}

static uint32_t *directory(struct image *im, struct extent *x, uint64_t at, const char *what, struct vh_err *e)
{
	uint64_t n = (uint64_t)x->ngd * (x->wide ? 8 : 4);
	uint32_t *d;
	uint8_t *raw;

	if (!at || at > MAX_SECTORS || at > x->end || DIV_UP(n, SECTOR) > x->end - at) {
		fail(e, -EINVAL, "the %s (%llu bytes at sector %llu) lies outside the file", what, ULL(n), ULL(at));
		return NULL;
	}
	raw = malloc(n);
	d = x->wide ? malloc((size_t)x->ngd * 4) : (uint32_t *)(void *)raw;
	if (!raw || !d || im->ops->read(x->v, raw, n, at * SECTOR) < 0) {
		fail(e, raw && d ? -EIO : -ENOMEM, raw && d ? "cannot read the %s" : "no memory for the %s", what);
		if (x->wide)
			free(d);
		free(raw);
		return NULL;
	}
	for (uint32_t k = 0; k < x->ngd; k++) {
		uint64_t v = x->wide ? get64(raw + (size_t)k * 8) : get32(raw + (size_t)k * 4);

		if (x->wide && v) /* the number of a table, with a mark; what has no mark leads nowhere */
			v = v >> 32 == 0x10000000 && (uint32_t)v < UINT32_MAX ? (uint32_t)v + 1 : UINT32_MAX;
		d[k] = (uint32_t)v;
	}
	if (x->wide)
		free(raw);
	return d;
}

int extent_directory(struct image *im, struct extent *x, uint64_t *budget, struct vh_err *e)
{
	if (x->ngd > *budget)
		return fail(e, -EFBIG, "the grain directories have more than %u entries", MAX_GDES);
	*budget -= x->ngd;
	if (x->at_end == 2) {
		x->gd = calloc(x->ngd, 4);
		return x->gd ? 0 : fail(e, -ENOMEM, "no memory for the grain directory");
	}
	x->gd = directory(im, x, x->gd_at, "grain directory", x->rgd_at && im->repair ? NULL : e);
	if (!x->gd && x->rgd_at && im->repair) { /* check() makes it anew from the other one */
		x->gd = calloc(x->ngd, 4);
		x->gd_at = 0;
	}
	if (!x->gd)
		return -EINVAL;
	if (x->rgd_at) {
		x->rgd = directory(im, x, x->rgd_at, "redundant grain directory", im->repair || im->read_only ? NULL : e);
		if (!x->rgd && !im->repair && !im->read_only)
			return -EINVAL;
		if (!x->rgd)
			x->rgd_at = 0;
	}
	return 0;
}
