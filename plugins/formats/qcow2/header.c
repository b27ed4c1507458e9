/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The first cluster: header, extensions, the backing image's name. Any bytes may be in it. */
#include <stdio.h>
#include "qcow2.h"

#define HEADER_KNOWN 112u /* bytes of a version 3 header whose meaning is known */
#define FEATURE_BYTES 48u

static const struct { uint8_t kind, bit; const char *name; } features[] = {
	{0, 0, "dirty bit"}, {0, 1, "corrupt bit"}, {0, 2, "external data file"}, {0, 3, "compression type"},
	{0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"}, {2, 0, "bitmaps"}, {2, 1, "raw external data"},
};
#define NFEATURES (sizeof(features) / sizeof(features[0]))

void q2_header_free(struct q2_header *h)
{
	for (uint32_t k = 0; k < h->next; k++)
		free(h->ext[k].data);
	free(h->ext);
	free(h->more_data);
	h->ext = NULL;
	h->more_data = NULL;
	h->next = h->more = 0;
}

static int inval(struct vh_err *e, const char *what)
{
	return q2_fail(e, -EINVAL, "the header is damaged: %s", what);
}

/* A text of the file: no NUL inside, so that what is checked is what is used. */
static int text(char *to, size_t cap, const uint8_t *from, uint32_t len, const char *what, struct vh_err *e)
{
	if (len >= cap)
		return q2_fail(e, -EINVAL, "the header is damaged: %s of %u bytes", what, len);
	if (memchr(from, 0, len))
		return q2_fail(e, -EINVAL, "the header is damaged: %s with a NUL inside", what);
	memcpy(to, from, len);
	to[len] = 0;
	return 0;
}

static int ext_keep(struct q2_header *h, uint32_t type, uint32_t len, const uint8_t *data, struct vh_err *e)
{
	struct q2_ext *n = realloc(h->ext, (h->next + 1) * sizeof(*n));

	if (!n)
		return q2_fail(e, -ENOMEM, "no memory for the header");
	h->ext = n;
	n[h->next] = (struct q2_ext){type, len, malloc(len ? len : 1)};
	if (!n[h->next].data)
		return q2_fail(e, -ENOMEM, "no memory for the header");
	memcpy(n[h->next].data, data, len);
	h->next++;
	return 0;
}

static int ext_take(struct q2_header *h, uint32_t type, uint32_t len, const uint8_t *p, struct vh_err *e)
{
	switch (type) {
	case Q2_EXT_BACKING_FORMAT:
		return text(h->backing_format, sizeof(h->backing_format), p, len, "the backing image's format", e);
	case Q2_EXT_DATA_FILE:
		return text(h->data_file, sizeof(h->data_file), p, len, "the data file's name", e);
	case Q2_EXT_FEATURES:
		return 0; /* looked at before, and written anew */
	case Q2_EXT_CRYPT:
		if (len != 16)
			return inval(e, "an encryption extension of a wrong size");
		h->crypt_off = q2_be64(p);
		h->crypt_bytes = q2_be64(p + 8);
		if (h->crypt_off & ((1u << h->bits) - 1) || h->crypt_off >= Q2_MAX_OFFSET || h->crypt_bytes > (UINT64_C(1) << 30))
			return inval(e, "the encryption header lies where nothing can lie");
		return 0;
	case Q2_EXT_BITMAPS:
		if (!(h->autoclear & Q2_AUTOCLEAR_BITMAPS))
			return 0; /* somebody who knows no bitmaps has changed the image: they mean nothing any more */
		if (len != 24 || q2_be32(p + 4))
			return inval(e, "a bitmaps extension of a wrong size");
		h->nbitmaps = q2_be32(p);
		h->bitmaps_bytes = q2_be64(p + 8);
		h->bitmaps_off = q2_be64(p + 16);
		if (!h->nbitmaps || h->nbitmaps > 65535 || h->bitmaps_bytes > UINT64_C(65535) * 1024 || !h->bitmaps_bytes ||
		    h->bitmaps_off & ((1u << h->bits) - 1) || !h->bitmaps_off || h->bitmaps_off >= Q2_MAX_OFFSET)
			return inval(e, "the bitmaps extension contradicts itself");
		return 0;
	default:
		return ext_keep(h, type, len, p, e);
	}
}

/* Calls fn for every extension in [off, end). */
static int ext_walk(struct q2_header *h, const uint8_t *buf, uint32_t off, uint32_t end,
		    int (*fn)(struct q2_header *h, uint32_t type, uint32_t len, const uint8_t *p, struct vh_err *e), struct vh_err *e)
{
	uint32_t n = 0;

	while (end - off >= 8) {
		uint32_t type = q2_be32(buf + off), len = q2_be32(buf + off + 4);
		int r;

		off += 8;
		if (type == Q2_EXT_END)
			break;
		if (len > end - off)
			return q2_fail(e, -EINVAL, "the header is damaged: extension 0x%08x of %u bytes does not fit", type, len);
		if (++n > 1024)
			return inval(e, "too many extensions");
		r = fn(h, type, len, buf + off, e);
		if (r < 0)
			return r;
		off += (uint32_t)q2_min(q2_up(len, 8), end - off);
	}
	return 0;
}

/* Names what is not understood, as the image itself names it. */
static int ext_refuse(struct q2_header *h, uint32_t type, uint32_t len, const uint8_t *p, struct vh_err *e)
{
	uint64_t unknown = h->incompat & ~Q2_INCOMPAT_KNOWN;

	for (uint32_t k = 0; type == Q2_EXT_FEATURES && k + FEATURE_BYTES <= len; k += FEATURE_BYTES) {
		char name[FEATURE_BYTES - 1];

		if (p[k] != 0 || p[k + 1] > 63 || !(unknown >> p[k + 1] & 1))
			continue;
		memcpy(name, p + k + 2, FEATURE_BYTES - 2);
		name[FEATURE_BYTES - 2] = 0;
		for (char *c = name; *c; c++)
			if (*c < ' ' || *c > '~')
				*c = '?';
		return q2_fail(e, -EOPNOTSUPP, "the image needs a feature that is not known here: %s (incompatible bit %u)", name,
			       p[k + 1]);
	}
	return 0;
}

static int versions(struct q2_header *h, const uint8_t *b, struct vh_err *e)
{
	h->version = q2_be32(b + 4);
	h->bits = q2_be32(b + 20);
	if (h->version != 2 && h->version != 3)
		return q2_fail(e, -EOPNOTSUPP, "version %u of the format; 2 and 3 are known", h->version);
	if (h->bits < Q2_MIN_BITS || h->bits > Q2_MAX_BITS)
		return q2_fail(e, -EINVAL, "the header is damaged: clusters of 2^%u bytes", h->bits);
	h->header_bytes = Q2_V2_BYTES;
	h->ref_order = 4;
	if (h->version == 2)
		return 0;
	h->incompat = q2_be64(b + 72);
	h->compat = q2_be64(b + 80);
	h->autoclear = q2_be64(b + 88);
	h->ref_order = q2_be32(b + 96);
	h->header_bytes = q2_be32(b + 100);
	if (h->header_bytes < Q2_V3_BYTES || h->header_bytes > (1u << h->bits) || h->header_bytes % 8)
		return q2_fail(e, -EINVAL, "the header is damaged: its length is %u bytes", h->header_bytes);
	if (h->ref_order > 6)
		return q2_fail(e, -EINVAL, "the header is damaged: counts of 2^%u bits", h->ref_order);
	if (h->header_bytes > Q2_V3_BYTES)
		h->compression = b[104];
	return 0;
}

static int known(struct q2_header *h, const uint8_t *buf, struct vh_err *e)
{
	uint64_t unknown = h->incompat & ~Q2_INCOMPAT_KNOWN;
	int r;

	if (unknown) {
		r = ext_walk(h, buf, h->header_bytes, 1u << h->bits, ext_refuse, e);
		return r < 0 ? r : q2_fail(e, -EOPNOTSUPP, "the image needs a feature that is not known here: incompatible bit %d",
					   __builtin_ctzll(unknown));
	}
	if (h->compression > Q2_ZSTD)
		return q2_fail(e, -EOPNOTSUPP, "compression type %u is not known here", h->compression);
	if (!!(h->incompat & Q2_INCOMPAT_COMPRESSION) != (h->compression != Q2_ZLIB))
		return inval(e, "compression type and feature bit contradict each other");
	if ((h->incompat & Q2_INCOMPAT_EXTENDED) && h->bits < 14)
		return q2_fail(e, -EINVAL, "the header is damaged: extended L2 entries need clusters of at least 16 KiB");
	if (h->crypt > Q2_CRYPT_LUKS)
		return q2_fail(e, -EOPNOTSUPP, "encryption method %u is not known here", h->crypt);
	return 0;
}

static uint64_t l1_needs(const struct q2_header *h)
{
	uint32_t shift = h->bits + h->bits - (h->incompat & Q2_INCOMPAT_EXTENDED ? 4 : 3);

	return (h->bytes >> shift) + !!(h->bytes & ((UINT64_C(1) << shift) - 1));
}

static int tables(struct q2_header *h, uint64_t file, uint64_t flags, struct vh_err *e)
{
	uint64_t mask = (UINT64_C(1) << h->bits) - 1;

	if (h->bytes > INT64_MAX - (UINT64_C(64) << 20))
		return q2_fail(e, -EFBIG, "the header is damaged: a disk of %llu bytes", (unsigned long long)h->bytes);
	if (h->l1_size > Q2_MAX_L1 / 8)
		return q2_fail(e, -EFBIG, "the L1 table has %u entries; at most %u are possible", h->l1_size, Q2_MAX_L1 / 8);
	if (h->l1_off & mask || h->l1_off >= Q2_MAX_OFFSET || (h->l1_size && (!h->l1_off || h->l1_off >= file)))
		return q2_fail(e, -EINVAL, "the header is damaged: the L1 table is at byte %llu of a file of %llu",
			       (unsigned long long)h->l1_off, (unsigned long long)file);
	if (l1_needs(h) > h->l1_size)
		return q2_fail(e, -EINVAL, "the header is damaged: %u L1 entries are too few for a disk of %llu bytes", h->l1_size,
			       (unsigned long long)h->bytes);
	if ((uint64_t)h->rt_clusters << h->bits > Q2_MAX_REFTABLE)
		return q2_fail(e, -EFBIG, "the refcount table has %u clusters; at most %u are possible", h->rt_clusters,
			       Q2_MAX_REFTABLE >> h->bits);
	if ((h->rt_off & mask || h->rt_off >= Q2_MAX_OFFSET || h->rt_off >= file || !h->rt_off || !h->rt_clusters) &&
	    !(flags & VH_OPEN_REPAIR))
		return q2_fail(e, -EINVAL, "the header is damaged: the refcount table has %u clusters at byte %llu of a file of %llu",
			       h->rt_clusters, (unsigned long long)h->rt_off, (unsigned long long)file);
	if (h->nsnaps > Q2_MAX_SNAPSHOTS)
		return q2_fail(e, -EFBIG, "the image has %u snapshots; at most %u are possible", h->nsnaps, Q2_MAX_SNAPSHOTS);
	if (h->nsnaps && (h->snaps_off & mask || h->snaps_off >= Q2_MAX_OFFSET || !h->snaps_off || h->snaps_off >= file))
		return q2_fail(e, -EINVAL, "the header is damaged: the snapshots are at byte %llu of a file of %llu",
			       (unsigned long long)h->snaps_off, (unsigned long long)file);
	return 0;
}

static int parse(struct q2_header *h, uint8_t *buf, uint64_t file, uint64_t flags, struct vh_err *e)
{
	uint64_t backing_off = q2_be64(buf + 8);
	uint32_t backing_len = q2_be32(buf + 16), size = 1u << h->bits, end = size;
	int r;

	h->bytes = q2_be64(buf + 24);
	h->crypt = q2_be32(buf + 32);
	h->l1_size = q2_be32(buf + 36);
	h->l1_off = q2_be64(buf + 40);
	h->rt_off = q2_be64(buf + 48);
	h->rt_clusters = q2_be32(buf + 56);
	h->nsnaps = q2_be32(buf + 60);
	h->snaps_off = q2_be64(buf + 64);
	r = known(h, buf, e);
	if (r < 0)
		return r;
	r = tables(h, file, flags, e);
	if (r < 0)
		return r;
	/* In the first cluster, or data written later could change it. */
	if (backing_off) {
		if (backing_off < h->header_bytes || backing_off > size || backing_len > size - backing_off)
			return inval(e, "the backing image's name does not lie in the first cluster");
		r = text(h->backing, sizeof(h->backing), buf + backing_off, backing_len, "a backing image's name", e);
		if (r < 0)
			return r;
		end = (uint32_t)backing_off;
	}
	if (h->header_bytes > HEADER_KNOWN) {
		h->more = h->header_bytes - HEADER_KNOWN;
		h->more_data = malloc(h->more);
		if (!h->more_data)
			return q2_fail(e, -ENOMEM, "no memory for the header");
		memcpy(h->more_data, buf + HEADER_KNOWN, h->more);
	}
	r = ext_walk(h, buf, h->header_bytes, end, ext_take, e);
	if (r < 0)
		return r;
	if (h->crypt == Q2_CRYPT_LUKS && !h->crypt_off)
		return inval(e, "encrypted with LUKS, and no LUKS header");
	if (!(h->incompat & Q2_INCOMPAT_DATA))
		h->data_file[0] = 0;
	if (!h->nbitmaps) /* without the extension the bit says nothing */
		h->autoclear &= ~Q2_AUTOCLEAR_BITMAPS;
	if ((h->incompat & Q2_INCOMPAT_CORRUPT) && !(flags & (VH_OPEN_RO | VH_OPEN_REPAIR))) {
		q2_hint(e, "repair it, or open it read-only to save what can be read");
		return q2_fail(e, -EUCLEAN, "the image is marked as corrupt");
	}
	return 0;
}

int q2_header_read(struct vh_meta *v, struct q2_header *h, uint64_t flags, struct vh_err *e)
{
	uint8_t first[512], *buf;
	int r = q2_io->read(v, first, sizeof(first), 0);

	memset(h, 0, sizeof(*h));
	if (r < 0)
		return q2_fail(e, r, "cannot read the header");
	if (q2_be32(first) != Q2_MAGIC)
		return q2_fail(e, -EINVAL, "not a qcow2 image");
	r = versions(h, first, e);
	if (r < 0)
		return r;
	buf = malloc((size_t)1 << h->bits);
	if (!buf)
		return q2_fail(e, -ENOMEM, "no memory for the header");
	r = q2_io->read(v, buf, UINT64_C(1) << h->bits, 0);
	if (r < 0) {
		q2_fail(e, r, "cannot read the header");
	} else {
		memcpy(buf, first, sizeof(first)); /* what was checked is what is used */
		r = parse(h, buf, q2_io->bytes(v), flags, e);
	}
	free(buf);
	if (r < 0)
		q2_header_free(h);
	return r;
}

/* Appends an extension; 0 when it does not fit. */
static int put_ext(uint8_t *buf, uint32_t cap, uint32_t *at, uint32_t type, const void *data, uint32_t len)
{
	uint64_t n = 8 + q2_up(len, 8);

	if (n > cap - *at)
		return 0;
	q2_put32(buf + *at, type);
	q2_put32(buf + *at + 4, len);
	if (len)
		memcpy(buf + *at + 8, data, len);
	*at += (uint32_t)n;
	return 1;
}

static int put_features(uint8_t *buf, uint32_t cap, uint32_t *at)
{
	uint8_t table[NFEATURES * FEATURE_BYTES] = {0};

	for (uint32_t k = 0; k < NFEATURES; k++) {
		table[k * FEATURE_BYTES] = features[k].kind;
		table[k * FEATURE_BYTES + 1] = features[k].bit;
		memcpy(table + k * FEATURE_BYTES + 2, features[k].name, strlen(features[k].name));
	}
	return put_ext(buf, cap, at, Q2_EXT_FEATURES, table, sizeof(table));
}

/* Extensions and the backing image's name; 0 when they do not fit. Names of features are left out first. */
static int put_rest(uint8_t *buf, uint32_t cap, uint32_t *at, const struct q2_header *h, int with_features)
{
	uint8_t b[24];
	int ok = 1;

	if (h->backing_format[0])
		ok &= put_ext(buf, cap, at, Q2_EXT_BACKING_FORMAT, h->backing_format, (uint32_t)strlen(h->backing_format));
	if (h->data_file[0])
		ok &= put_ext(buf, cap, at, Q2_EXT_DATA_FILE, h->data_file, (uint32_t)strlen(h->data_file));
	if (h->crypt == Q2_CRYPT_LUKS) {
		q2_put64(b, h->crypt_off);
		q2_put64(b + 8, h->crypt_bytes);
		ok &= put_ext(buf, cap, at, Q2_EXT_CRYPT, b, 16);
	}
	if (with_features)
		ok &= put_features(buf, cap, at);
	if (h->nbitmaps) {
		q2_put32(b, h->nbitmaps);
		q2_put32(b + 4, 0);
		q2_put64(b + 8, h->bitmaps_bytes);
		q2_put64(b + 16, h->bitmaps_off);
		ok &= put_ext(buf, cap, at, Q2_EXT_BITMAPS, b, 24);
	}
	for (uint32_t k = 0; k < h->next; k++)
		ok &= put_ext(buf, cap, at, h->ext[k].type, h->ext[k].data, h->ext[k].len);
	ok &= put_ext(buf, cap, at, Q2_EXT_END, NULL, 0);
	if (h->backing[0]) {
		uint32_t len = (uint32_t)strlen(h->backing);

		if (len > cap - *at)
			return 0;
		memcpy(buf + *at, h->backing, len);
		q2_put64(buf + 8, *at);
		q2_put32(buf + 16, len);
		*at += len;
	}
	return ok;
}

int q2_header_write(struct vh_meta *v, const struct q2_header *h, struct vh_err *e)
{
	uint32_t cap = 1u << h->bits, at, start;
	uint8_t *b = calloc(1, cap);
	int r;

	if (!b)
		return q2_fail(e, -ENOMEM, "no memory for the header");
	q2_put32(b, Q2_MAGIC);
	q2_put32(b + 4, h->version);
	q2_put32(b + 20, h->bits);
	q2_put64(b + 24, h->bytes);
	q2_put32(b + 32, h->crypt);
	q2_put32(b + 36, h->l1_size);
	q2_put64(b + 40, h->l1_off);
	q2_put64(b + 48, h->rt_off);
	q2_put32(b + 56, h->rt_clusters);
	q2_put32(b + 60, h->nsnaps);
	q2_put64(b + 64, h->snaps_off);
	start = Q2_V2_BYTES;
	if (h->version >= 3) {
		start = HEADER_KNOWN + h->more;
		q2_put64(b + 72, h->incompat);
		q2_put64(b + 80, h->compat);
		q2_put64(b + 88, h->autoclear);
		q2_put32(b + 96, h->ref_order);
		q2_put32(b + 100, start);
		b[104] = (uint8_t)h->compression;
		if (h->more)
			memcpy(b + HEADER_KNOWN, h->more_data, h->more);
	}
	at = start;
	if (!put_rest(b, cap, &at, h, h->version >= 3)) {
		memset(b + start, 0, cap - start);
		q2_put64(b + 8, 0);
		q2_put32(b + 16, 0);
		at = start;
		if (!put_rest(b, cap, &at, h, 0)) {
			free(b);
			return q2_fail(e, -ENOSPC, "the header does not fit into a cluster of %u bytes", cap);
		}
	}
	/* Past its end, zeros up to a sector: what was there is not looked at. */
	r = q2_io->write(v, b, q2_min(q2_up(at, 512), cap), 0);
	free(b);
	return r < 0 ? q2_fail(e, r, "cannot write the header") : 0;
}

int q2_probe(const void *buf, uint64_t len, uint64_t bytes)
{
	const uint8_t *b = buf;
	uint32_t version;

	if (len < 8 || q2_be32(b) != Q2_MAGIC)
		return 0;
	version = q2_be32(b + 4);
	return version == 2 || version == 3 ? 100 : 0;
}

int q2_inspect(struct vh_meta *volume0, struct vh_ref *refs, uint32_t cap, struct vh_err *e)
{
	struct q2_header h;
	int r = q2_services(e), n = 0;

	if (r >= 0)
		r = q2_header_read(volume0, &h, VH_OPEN_RO | VH_OPEN_REPAIR, e);
	if (r < 0)
		return r;
	if (h.backing[0]) {
		if (cap) {
			refs[0].role = VH_REF_BACKING;
			memcpy(refs[0].name, h.backing, sizeof(h.backing));
			memcpy(refs[0].format, h.backing_format, sizeof(h.backing_format));
		}
		n++;
	}
	if (h.incompat & Q2_INCOMPAT_DATA) {
		if (!h.data_file[0]) {
			q2_header_free(&h);
			return q2_fail(e, -EINVAL, "the image keeps its data in another file and does not name it");
		}
		if ((uint32_t)n < cap) {
			refs[n].role = VH_REF_DATA;
			memcpy(refs[n].name, h.data_file, sizeof(h.data_file));
			strcpy(refs[n].format, "raw");
		}
		n++;
	}
	q2_header_free(&h);
	return n;
}
