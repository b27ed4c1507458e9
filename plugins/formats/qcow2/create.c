/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * New images: header, refcount table, refcount blocks, L1 table, in this order and each complete before the header says so. What
 * else an image begins with (an encryption header, mapped clusters) is added to that image as to any other.
 */
#include <vhost/pool.h>
#include "refcount.h"

static const char *const compats[] = {"v2", "v3", "0.10", "1.1", NULL};
static const char *const compressions[] = {"zlib", "zstd", NULL};
static const char *const encryptions[] = {"none", "aes", "luks", NULL};
static const char *const ciphers[] = {"aes-128", "aes-192", "aes-256", NULL}, *const modes[] = {"xts", "cbc", NULL},
			*const ivgens[] = {"plain64", "plain", "essiv", NULL}, *const iv_hashes[] = {"sha256", NULL},
			*const hashes[] = {"sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160", NULL};

#define OPT(id, type, name, doc, def, choices, min, max) \
	static const struct vh_opt opt_##id = {sizeof(struct vh_opt), type, 0, name, doc, def, choices, min, max}
OPT(cluster, VH_OPT_SIZE, "cluster-size", "Allocation unit, a power of two from 512 to 2M", "64K", NULL, 512, 2 << 20);
OPT(compat, VH_OPT_ENUM, "compat", "Version of the format; 0.10 is v2, 1.1 is v3", "v3", compats, 0, 0);
OPT(bits, VH_OPT_INT, "refcount-bits", "Width of a cluster's count, a power of two up to 64", "16", NULL, 1, 64);
OPT(extended, VH_OPT_BOOL, "extended-l2", "Subclusters: 32 parts of a cluster that are allocated one by one", "off", NULL, 0, 0);
OPT(lazy, VH_OPT_BOOL, "lazy-refcounts", "Counts are written when the image is closed, and made anew after a crash", "off", NULL, 0, 0);
OPT(compression, VH_OPT_ENUM, "compression-type", "How compressed clusters are stored", "zlib", compressions, 0, 0);
OPT(data, VH_OPT_STR, "data-file", "Name of another file, beside the image, for the disk's data", NULL, NULL, 1, Q2_MAX_NAME);
OPT(raw, VH_OPT_BOOL, "data-file-raw", "The data file alone is a raw image of the disk as well", "off", NULL, 0, 0);
OPT(encrypt, VH_OPT_ENUM, "encrypt", "LUKS, or the old method, which is weak", "none", encryptions, 0, 0);
OPT(insecure, VH_OPT_BOOL, "allow-insecure", "Make an image with the old method, although it is weak", "off", NULL, 0, 0);
OPT(cipher, VH_OPT_ENUM, "cipher-alg", "LUKS: cipher and length of its key", "aes-256", ciphers, 0, 0);
OPT(mode, VH_OPT_ENUM, "cipher-mode", "LUKS: mode of the cipher", "xts", modes, 0, 0);
OPT(ivgen, VH_OPT_ENUM, "ivgen-alg", "LUKS: how a sector's number becomes its IV", "plain64", ivgens, 0, 0);
OPT(ivhash, VH_OPT_ENUM, "ivgen-hash-alg", "LUKS: hash of the IV generator essiv", "sha256", iv_hashes, 0, 0);
OPT(hash, VH_OPT_ENUM, "hash-alg", "LUKS: hash of the key derivation", "sha256", hashes, 0, 0);
OPT(iter, VH_OPT_DURATION, "iter-time", "LUKS: how long deriving the key from the passphrase shall take; 1ms: as short as can be", "2s", NULL, 1000000,
    INT64_C(60000000000));
const struct vh_opt *const q2_create_options[] = {
	&opt_cluster,
	&opt_compat,
	&opt_bits,
	&opt_extended,
	&opt_lazy,
	&opt_compression,
	&opt_data,
	&opt_raw,
	&opt_encrypt,
	&opt_insecure,
	&q2_opt_secret,
	&opt_cipher,
	&opt_mode,
	&opt_ivgen,
	&opt_ivhash,
	&opt_hash,
	&opt_iter,
	NULL,
};

static int is_power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

static int features(const struct vh_create *c, struct q2_header *h, struct vh_err *e)
{
	const char *data = vh_opt_str(c->opts, "data-file", "");
	uint64_t cluster = (uint64_t)vh_opt_num(c->opts, "cluster-size", 65536), bits = (uint64_t)vh_opt_num(c->opts, "refcount-bits", 16);

	h->version = vh_opt_num(c->opts, "compat", 1) % 2 ? 3 : 2;
	if (!is_power_of_two(cluster) || cluster < 512 || cluster > 2 << 20)
		return q2_fail(e, -EINVAL, "the cluster size must be a power of two from 512 to 2M");
	if (!is_power_of_two(bits) || bits > 64)
		return q2_fail(e, -EINVAL, "refcount-bits must be a power of two up to 64");
	h->bits = (uint32_t)__builtin_ctzll(cluster);
	h->ref_order = (uint32_t)__builtin_ctzll(bits);
	h->compression = (uint32_t)vh_opt_num(c->opts, "compression-type", 0);
	h->crypt = (uint32_t)vh_opt_num(c->opts, "encrypt", 0);
	if (h->crypt == Q2_CRYPT_AES && !vh_opt_num(c->opts, "allow-insecure", 0)) {
		q2_hint(e, "take encrypt=luks, or add allow-insecure=on (--allow-insecure)");
		return q2_fail(e, -EPERM, "encrypt=aes is weak: its key is the passphrase itself, its IVs can be predicted, and QEMU runs no guest from it");
	}
	if (h->compression != Q2_ZLIB)
		h->incompat |= Q2_INCOMPAT_COMPRESSION;
	if (vh_opt_num(c->opts, "extended-l2", 0))
		h->incompat |= Q2_INCOMPAT_EXTENDED;
	if (vh_opt_num(c->opts, "lazy-refcounts", 0))
		h->compat |= Q2_COMPAT_LAZY;
	if (*data)
		h->incompat |= Q2_INCOMPAT_DATA;
	if (vh_opt_num(c->opts, "data-file-raw", 0))
		h->autoclear |= Q2_AUTOCLEAR_RAW;
	h->header_bytes = h->version == 2 ? Q2_V2_BYTES : 112;
	if (h->version == 2 && (h->incompat || h->compat || h->autoclear || h->ref_order != 4)) {
		q2_hint(e, "leave compat at v3");
		return q2_fail(e, -EINVAL, "version 2 has neither extended L2 entries nor lazy counts, zstd, data files, or other widths "
			       "of counts than 16");
	}
	if ((h->incompat & Q2_INCOMPAT_EXTENDED) && h->bits < 14)
		return q2_fail(e, -EINVAL, "extended-l2 needs clusters of at least 16K");
	if (strchr(data, '/') || strlen(data) > Q2_MAX_NAME)
		return q2_fail(e, -EINVAL, "data-file is the name of a file beside the image, without folders");
	strcpy(h->data_file, data);
	if ((h->autoclear & Q2_AUTOCLEAR_RAW) && (!*data || c->backing || h->crypt))
		return q2_fail(e, -EINVAL, "data-file-raw needs a data-file, and goes with neither a backing image nor encryption");
	if (*data && h->crypt == Q2_CRYPT_AES)
		return q2_fail(e, -EINVAL, "a data file cannot be encrypted the old way");
	return 0;
}

static uint64_t l1_entries(const struct q2_header *h)
{
	uint32_t shift = h->bits + h->bits - (h->incompat & Q2_INCOMPAT_EXTENDED ? 4 : 3);

	return (h->bytes + (UINT64_C(1) << shift) - 1) >> shift;
}

int q2_create_params(const struct vh_create *c, struct q2_create_params *p, struct vh_err *e)
{
	struct q2_header *h = &p->h;
	int r;

	memset(p, 0, sizeof(*p));
	r = features(c, h, e);
	if (r < 0)
		return r;
	p->prealloc = c->prealloc;
	if (c->bytes > INT64_MAX - (UINT64_C(64) << 20))
		return q2_fail(e, -EFBIG, "a disk of %llu bytes is too large", (unsigned long long)c->bytes);
	h->bytes = q2_up(c->bytes, 512);
	if (l1_entries(h) > Q2_MAX_L1 / 8) {
		q2_hint(e, "choose a larger cluster-size");
		return q2_fail(e, -EFBIG, "a disk of %llu bytes is too large for clusters of %u bytes", (unsigned long long)c->bytes,
			       1u << h->bits);
	}
	h->l1_size = (uint32_t)l1_entries(h);
	if (c->backing) {
		if (!*c->backing || strlen(c->backing) > Q2_MAX_NAME)
			return q2_fail(e, -ENAMETOOLONG, "the backing image's name has more than %u bytes", Q2_MAX_NAME);
		if (!c->backing_format || !*c->backing_format || strlen(c->backing_format) >= sizeof(h->backing_format))
			return q2_fail(e, -EINVAL, "the backing image's format must be known");
		if (c->prealloc != VH_PREALLOC_OFF && !(h->incompat & Q2_INCOMPAT_EXTENDED))
			return q2_fail(e, -EINVAL, "with a backing image, clusters can be allocated ahead only with extended-l2");
		strcpy(h->backing, c->backing);
		strcpy(h->backing_format, c->backing_format);
	}
	if (c->prealloc != VH_PREALLOC_OFF && h->crypt && h->version == 2)
		return q2_fail(e, -EINVAL, "an encrypted image of version 2 cannot be allocated ahead");
	return 0;
}

int q2_create_refs(const struct vh_create *c, struct vh_create_ref *refs, uint32_t cap, struct vh_err *e)
{
	struct q2_create_params p;
	int r = q2_services(e);

	if (r >= 0)
		r = q2_create_params(c, &p, e);
	if (r < 0)
		return r;
	if (!p.h.data_file[0])
		return 0;
	if (cap) {
		memset(refs[0].name, 0, sizeof(refs[0].name));
		strcpy(refs[0].name, p.h.data_file);
		refs[0].bytes = p.h.bytes;
	}
	return 1;
}

/* Clusters: header, refcount table, blocks, L1. Each number depends on the others. */
struct layout { uint64_t rt, blocks, l1, all; };

static struct layout plan(const struct q2_header *h)
{
	uint64_t cluster = UINT64_C(1) << h->bits, per_block = cluster * 8 >> h->ref_order;
	struct layout l = {.rt = 1, .blocks = 1, .l1 = (h->l1_size * UINT64_C(8) + cluster - 1) >> h->bits};

	for (;;) {
		l.all = 1 + l.rt + l.blocks + l.l1;
		if (l.blocks * per_block < l.all)
			l.blocks++;
		else if (l.rt * cluster / 8 < l.blocks)
			l.rt++;
		else
			return l;
	}
}

static int write_blocks(const struct q2_header *h, const struct layout *l, struct vh_meta *v)
{
	uint64_t cluster = UINT64_C(1) << h->bits, per = cluster * 8 >> h->ref_order;
	uint8_t *b = malloc(cluster);
	int r = b ? 0 : -ENOMEM;

	for (uint64_t k = 0; r >= 0 && k < l->blocks; k++) {
		memset(b, 0, cluster);
		for (uint64_t c = k * per; c < l->all && c < (k + 1) * per; c++)
			q2_count_set(b, h->ref_order, (uint32_t)(c - k * per), 1);
		r = q2_io->write(v, b, cluster, (1 + l->rt + k) << h->bits);
	}
	for (uint64_t k = 0; r >= 0 && k < l->rt; k++) {
		memset(b, 0, cluster);
		for (uint64_t i = 0; i < cluster / 8 && k * cluster / 8 + i < l->blocks; i++)
			q2_put64(b + 8 * i, (1 + l->rt + k * cluster / 8 + i) << h->bits);
		r = q2_io->write(v, b, cluster, (1 + k) << h->bits);
	}
	free(b);
	return r;
}

static int write_image(struct q2_header *h, struct vh_meta *v, struct vh_err *e)
{
	struct layout l = plan(h);
	struct q2_header plain;
	int r;

	h->rt_off = UINT64_C(1) << h->bits;
	h->rt_clusters = (uint32_t)l.rt;
	h->l1_off = (1 + l.rt + l.blocks) << h->bits;
	plain = *h;
	plain.crypt = Q2_CRYPT_NONE; /* until there is what it needs */
	r = q2_io->zero(v, l.all << h->bits, 0);
	if (r >= 0)
		r = q2_io->flush(v); /* old tables must not appear under the new header */
	if (r >= 0)
		r = write_blocks(h, &l, v);
	if (r >= 0)
		r = q2_io->flush(v);
	if (r < 0)
		return q2_fail(e, r, "cannot write the tables of a new image");
	r = q2_header_write(v, &plain, e);
	if (r < 0)
		return r;
	r = q2_io->flush(v);
	return r < 0 ? q2_fail(e, r, "cannot write the header") : 0;
}

/* Maps the clusters of [pos, end), which one table of L2 covers. `old`: bytes of the file that may hold anything. */
static int map_ahead(struct q2 *q, uint64_t pos, uint64_t end, int hidden, uint64_t old)
{
	struct q2_entry x = {0, 0};

	while (pos < end) {
		uint64_t want = (end - pos + q->cluster - 1) >> q->h.bits, got = want, off = pos, used = q->end << q->h.bits;
		struct q2_tbl *t;
		uint32_t index;
		int zeros, r = 0;

		if (!q->has_data)
			r = q2_alloc_run(q, want, 0, &off, &got, &zeros);
		/* Also what was a table that has become too small. */
		if (r >= 0 && !q->has_data && (off < old || off < used) && !hidden)
			r = q2_io->zero(q->vol, got << q->h.bits, off);
		if (r >= 0)
			r = q2_l2_get_write(q, pos, 0, &t, &index);
		if (r < 0)
			return r;
		pthread_mutex_lock(&t->lock);
		for (uint64_t k = 0; k < got; k++) {
			x.e = (off + (k << q->h.bits)) | Q2_COPIED | (hidden && !q->extended ? Q2_ZERO : 0);
			x.bitmap = !q->extended || q->h.backing[0] ? 0 : hidden ? UINT64_C(0xffffffff) << 32 : UINT64_C(0xffffffff);
			q2_l2_set(q, t, index + (uint32_t)k, x);
		}
		pthread_mutex_unlock(&t->lock);
		q2_tbl_put(&q->l2, t);
		pos += got << q->h.bits;
	}
	return 0;
}

static int preallocate(struct q2 *q, uint64_t old, struct vh_job *j)
{
	uint64_t step = (uint64_t)(q->l2.slice / q->entry) << q->h.bits, end;
	int hidden = q->h.crypt != Q2_CRYPT_NONE, r = 0; /* what is not written yet would be decrypted */

	for (uint64_t pos = 0; r >= 0 && pos < q->h.bytes; pos += step) {
		q2_progress(j, pos, q->h.bytes);
		r = q2_cancelled(j) ? -ECANCELED : map_ahead(q, pos, q2_min(pos + step, q->h.bytes), hidden, old);
	}
	if (r >= 0)
		r = q2_sync(q);
	end = q->end << q->h.bits;
	if (r >= 0 && q2_io->bytes(q->vol) < end)
		r = q2_io->resize(q->vol, end);
	return r;
}

static int finish(const struct vh_create *c, const struct q2_create_params *p, uint64_t old, struct vh_job *j, struct vh_err *e)
{
	struct vh_open o = {.size = sizeof(o), .n = c->n, .volumes = c->volumes, .host_caps = ~UINT64_C(0), .backing_bytes = c->backing_bytes};
	struct q2 *q;
	void *img;
	int r = q2_open(&o, &img, e);

	if (r < 0)
		return r;
	q = img;
	r = q2_writing_begin(q, e);
	if (r >= 0 && p->h.crypt)
		r = q2_crypt_create(q, c->opts, e);
	if (r >= 0 && p->prealloc != VH_PREALLOC_OFF) {
		r = preallocate(q, old, j);
		if (r < 0)
			q2_fail(e, r, "cannot allocate ahead");
	}
	if (r >= 0) {
		r = q2_sync(q);
		if (r < 0)
			q2_fail(e, r, "cannot write the new image");
	}
	q2_close(q);
	return r;
}

int q2_create(struct vh_create *c, struct vh_job *j, struct vh_err *e)
{
	struct q2_create_params p;
	uint64_t old;
	int r = q2_services(e);

	if (r >= 0)
		r = q2_create_params(c, &p, e);
	if (r < 0)
		return r;
	if (c->n < 1 + (uint32_t)!!p.h.data_file[0])
		return q2_fail(e, -EINVAL, "too few volumes were handed over");
	old = q2_io->bytes(c->volumes[0]);
	if (p.h.data_file[0] && q2_io->bytes(c->volumes[1]) < p.h.bytes) {
		r = q2_io->resize(c->volumes[1], p.h.bytes);
		if (r < 0)
			return q2_fail(e, r, "cannot make the data file %llu bytes large", (unsigned long long)p.h.bytes);
	}
	r = write_image(&p.h, c->volumes[0], e);
	if (r < 0 || (!p.h.crypt && p.prealloc == VH_PREALLOC_OFF))
		return r;
	return finish(c, &p, old, j, e);
}
