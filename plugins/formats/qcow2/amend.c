/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Properties of an image that can be changed afterwards: version, lazy counts, width of counts, the data file, key slots. */
#include "check.h"

static const char *const compats[] = {"v2", "v3", "0.10", "1.1", NULL};

#define OPT(id, type, name, doc, choices, min, max) \
	static const struct vh_opt opt_##id = {sizeof(struct vh_opt), type, 0, name, doc, NULL, choices, min, max}
OPT(compat, VH_OPT_ENUM, "compat", "Version of the format; 0.10 is v2, 1.1 is v3", compats, 0, 0);
OPT(bits, VH_OPT_INT, "refcount-bits", "Width of a cluster's count, a power of two up to 64", NULL, 1, 64);
OPT(lazy, VH_OPT_BOOL, "lazy-refcounts", "Counts are written when the image is closed, and made anew after a crash", NULL, 0, 0);
OPT(raw, VH_OPT_BOOL, "data-file-raw", "The data file alone is a raw image of the disk as well; can only be turned off", NULL, 0, 0);
OPT(data, VH_OPT_STR, "data-file", "Name of the file with the disk's data, when it was renamed", NULL, 1, Q2_MAX_NAME);
OPT(slot, VH_OPT_INT, "keyslot", "Key slot for the new passphrase; alone: to remove", NULL, 0, 31);
OPT(new_secret, VH_OPT_SECRET, "new-secret", "Secret with a passphrase to add", NULL, 0, 0);
OPT(old_secret, VH_OPT_SECRET, "old-secret", "Secret with a passphrase to remove", NULL, 0, 0);
OPT(iter, VH_OPT_DURATION, "iter-time", "How long deriving the key from the new passphrase shall take", NULL, 1000000,
    INT64_C(60000000000));
const struct vh_opt *const q2_amend_options[] = {
	&opt_compat,
	&opt_bits,
	&opt_lazy,
	&opt_raw,
	&opt_data,
	&opt_slot,
	&opt_new_secret,
	&opt_old_secret,
	&opt_iter,
	NULL,
};

struct zeros { struct q2 *q; uint64_t n; int look; };

/* Without a backing image, what is not there reads as zeros: nothing else is needed in version 2. */
static int no_zero_flag(void *ctx, const struct q2_l2 *t, uint32_t index, uint8_t *p)
{
	struct zeros *z = ctx;
	uint64_t e = q2_be64(p);

	if (e & Q2_COMPRESSED || !(e & Q2_ZERO))
		return 0;
	z->n++;
	if (!z->look)
		q2_put64(p, 0);
	return !z->look;
}

static int zeros_walk(struct q2 *q, struct zeros *z, struct vh_job *j, struct vh_err *e)
{
	struct q2_walk w = {.q = q, .each = no_zero_flag, .ctx = z, .job = j};
	struct q2_all all;
	int r = q2_all_init(&all, q, NULL, NULL, e);

	if (r < 0)
		return r;
	w.l2s = &all.l2s;
	r = q2_walk(&w);
	q2_all_free(&all);
	return r < 0 ? q2_fail(e, r, r == -EUCLEAN ? "the image's metadata is damaged" : "cannot read or write the metadata") : 0;
}

static int can_downgrade(const struct q2 *q, struct vh_err *e)
{
	uint64_t bad = q->h.incompat & ~Q2_INCOMPAT_DIRTY;

	if (!bad && !q->h.nbitmaps)
		return 0;
	q2_hint(e, "convert it to a new image instead");
	return q2_fail(e, -EINVAL, "version 2 has no %s", q->h.nbitmaps ? "bitmaps" : bad & Q2_INCOMPAT_DATA ? "external data files" :
		       bad & Q2_INCOMPAT_COMPRESSION ? "compression but zlib" : bad & Q2_INCOMPAT_EXTENDED ? "extended L2 entries" :
		       "mark of corruption: repair the image first");
}

static int header(struct q2 *q, const struct q2_header *h, struct vh_err *e)
{
	int r = q2_header_write(q->vol, h, e);

	if (r == -ENOSPC)
		return r; /* nothing was written */
	if (r >= 0) {
		r = q2_io->flush(q->vol);
		if (r < 0)
			q2_fail(e, r, "cannot flush the header");
	}
	if (r < 0)
		__atomic_store_n(&q->failed, 1, __ATOMIC_RELEASE);
	else
		q->h = *h;
	return r;
}

static int downgrade(struct q2 *q, struct vh_job *j, struct vh_err *e)
{
	struct zeros z = {.q = q, .look = 1};
	struct q2_header h;
	int r = can_downgrade(q, e);

	if (r >= 0)
		r = zeros_walk(q, &z, j, e);
	if (r >= 0 && z.n && q->h.backing[0]) {
		q2_hint(e, "convert it to a new image with compat=v2");
		return q2_fail(e, -EOPNOTSUPP, "%llu clusters hide a backing image with zeros, which version 2 cannot say",
			       (unsigned long long)z.n);
	}
	if (r >= 0 && z.n) {
		z.look = 0;
		r = zeros_walk(q, &z, NULL, e);
		q2_l2_forget(q);
		if (r >= 0) {
			r = q2_io->flush(q->vol);
			if (r < 0)
				q2_fail(e, r, "cannot flush the metadata");
		}
	}
	if (r >= 0 && (q->h.ref_order != 4 || z.n))
		r = q2_rebuild(q, 4, NULL, e);
	if (r >= 0 && z.n) { /* a cluster that was shared may have one owner left */
		r = q2_copied(q, 1, NULL, NULL, NULL);
		if (r >= 0)
			r = q2_sync(q);
		if (r < 0)
			q2_fail(e, r, "cannot write the metadata");
	}
	if (r < 0)
		return r;
	h = q->h;
	h.version = 2;
	h.header_bytes = Q2_V2_BYTES;
	h.incompat = h.compat = h.autoclear = 0;
	r = header(q, &h, e);
	if (r >= 0)
		q->zero_flag = 0;
	return r;
}

static int upgrade(struct q2 *q, struct vh_err *e)
{
	struct q2_header h = q->h;
	int r;

	h.version = 3;
	h.header_bytes = 112;
	r = header(q, &h, e);
	if (r >= 0)
		q->zero_flag = 1;
	return r;
}

static int lazy(struct q2 *q, int on, struct vh_err *e)
{
	struct q2_header h = q->h;

	if (on && h.version < 3) {
		q2_hint(e, "amend it to compat=v3 as well");
		return q2_fail(e, -EINVAL, "version 2 has no lazy counts");
	}
	if (on) {
		h.compat |= Q2_COMPAT_LAZY;
	} else {
		h.compat &= ~Q2_COMPAT_LAZY;
		h.incompat &= ~Q2_INCOMPAT_DIRTY; /* the counts are in the file: q2_sync() was done */
	}
	return header(q, &h, e);
}

static int data_file(struct q2 *q, const struct vh_opts *o, struct vh_err *e)
{
	const struct vh_val *raw = vh_opt_get(o, "data-file-raw"), *name = vh_opt_get(o, "data-file");
	struct q2_header h = q->h;

	if (!raw && !name)
		return 0;
	if (!q->has_data)
		return q2_fail(e, -EINVAL, "the image has no external data file, and cannot get one");
	if (raw && raw->num && !q->data_raw)
		return q2_fail(e, -EINVAL, "data-file-raw cannot be turned on: the data file may hold what is not the disk's");
	if (raw && !raw->num)
		h.autoclear &= ~Q2_AUTOCLEAR_RAW;
	if (name) {
		if (strchr(name->str, '/') || strlen(name->str) > Q2_MAX_NAME)
			return q2_fail(e, -EINVAL, "data-file is the name of a file beside the image, without folders");
		memset(h.data_file, 0, sizeof(h.data_file));
		strcpy(h.data_file, name->str);
	}
	q->data_raw = !!(h.autoclear & Q2_AUTOCLEAR_RAW);
	return header(q, &h, e);
}

static int width(struct q2 *q, uint64_t bits, struct vh_job *j, struct vh_err *e)
{
	if (!bits || bits & (bits - 1) || bits > 64)
		return q2_fail(e, -EINVAL, "refcount-bits must be a power of two up to 64");
	if (q->h.version < 3 && bits != 16) {
		q2_hint(e, "amend it to compat=v3 as well");
		return q2_fail(e, -EINVAL, "counts of version 2 have 16 bits");
	}
	return (uint32_t)__builtin_ctzll(bits) == q->h.ref_order ? 0 : q2_rebuild(q, (uint32_t)__builtin_ctzll(bits), j, e);
}

/* First what makes other things possible, and last what forbids them. */
int q2_amend(void *img, const struct vh_opts *o, struct vh_job *j, struct vh_err *e)
{
	struct q2 *q = img;
	const struct vh_val *compat = vh_opt_get(o, "compat"), *bits = vh_opt_get(o, "refcount-bits"), *l = vh_opt_get(o, "lazy-refcounts");
	int r = q2_services(e), v3 = compat ? compat->num % 2 : -1;

	if (r < 0)
		return r;
	if (q->read_only)
		return q2_fail(e, -EROFS, "the image is open for reading only");
	if (v3 == 0 && ((bits && bits->num != 16) || (l && l->num)))
		return q2_fail(e, -EINVAL, "version 2 has no lazy counts, and counts of 16 bits only");
	r = q2_writing_begin(q, e);
	if (r < 0)
		return r;
	r = q2_sync(q);
	if (r < 0)
		return q2_fail(e, r, "cannot write the metadata");
	if (v3 == 1 && q->h.version == 2)
		r = upgrade(q, e);
	if (r >= 0)
		r = q2_crypt_amend(q, o, e);
	if (r >= 0)
		r = data_file(q, o, e);
	if (r >= 0 && l)
		r = lazy(q, !!l->num, e);
	if (r >= 0 && bits)
		r = width(q, (uint64_t)bits->num, j, e);
	if (r >= 0 && v3 == 0 && q->h.version == 3)
		r = downgrade(q, j, e);
	if (r >= 0) {
		r = q2_sync(q);
		if (r < 0)
			q2_fail(e, r, "cannot write the metadata");
	}
	/* The next change needs the dirty bit, which the first one did not. */
	if (r >= 0 && (q->h.compat & Q2_COMPAT_LAZY) && !(q->h.incompat & Q2_INCOMPAT_DIRTY))
		__atomic_store_n(&q->writing, 0, __ATOMIC_RELEASE);
	return r;
}
