/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Encrypted images: a LUKS header inside the image, or QEMU's old AES, which is the passphrase itself used as the key. Here the key
 * is found and the cipher described; the host applies it. LUKS numbers sectors by their place in the file, AES by their place on
 * the disk.
 */
#include <stdio.h>
#include "qcow2.h"
#if Q2_HAVE_LUKS
#include "../common/luks.h"
#else
struct luks;
#endif

#define MAX_PASS 512u
#define AES_KEY 16u

struct q2_crypt {
	struct q2 *q;
	struct luks *luks;
#if Q2_HAVE_LUKS
	struct luks_area area;
#endif
	uint8_t key[AES_KEY];
};

const struct vh_opt q2_opt_secret = {
	sizeof(struct vh_opt), VH_OPT_SECRET, 0, "key-secret", "Secret with the passphrase of an encrypted image", NULL, NULL, 0, 0};

/* The passphrase named by an option; *n 0: none is named. To be wiped. */
static int pass_get(const struct vh_opts *o, const char *option, uint8_t *buf, size_t *n, struct vh_err *e)
{
	const char *name = vh_opt_str(o, option, NULL);
	const struct vh_secret_ops *s = vh_service(q2_host, VH_SVC_SECRET, VH_UPTO(struct vh_secret_ops, get));
	int64_t len;

	*n = 0;
	if (!name)
		return 0;
	if (!s)
		return q2_fail(e, -EOPNOTSUPP, "this host has no " VH_SVC_SECRET " service");
	len = s->get(name, buf, MAX_PASS, e);
	if (len < 0)
		return q2_fail(e, (int)len, "cannot get the passphrase '%s'", name);
	if (!len)
		return q2_fail(e, -EINVAL, "the passphrase '%s' is empty", name);
	*n = (size_t)len;
	return 0;
}

static int pass_must(const struct vh_opts *o, const char *option, uint8_t *buf, size_t *n, struct vh_err *e)
{
	int r = pass_get(o, option, buf, n, e);

	if (r < 0 || *n)
		return r;
	q2_hint(e, "name its passphrase with %s=", option);
	return q2_fail(e, -EACCES, "the image is encrypted, and no passphrase was given");
}

/* ---- the old method ---- */

static void aes_key(struct q2 *q, const uint8_t *pass, size_t n)
{
	memset(q->crypt->key, 0, AES_KEY);
	memcpy(q->crypt->key, pass, n < AES_KEY ? n : AES_KEY);
	q->cipher = (struct vh_cipher){.size = sizeof(q->cipher), .algorithm = VH_CIPHER_AES_CBC, .sector = 512, .iv = VH_IV_PLAIN64,
				       .iv_from = VH_IV_FROM_POSITION, .key_bytes = AES_KEY, .key = q->crypt->key};
}

/* ---- LUKS ---- */

#if Q2_HAVE_LUKS
static int area_read(void *ctx, void *buf, uint64_t len, uint64_t off)
{
	struct q2 *q = ctx;

	return off > q->h.crypt_bytes || len > q->h.crypt_bytes - off ? -EIO : q2_read(q, buf, len, q->h.crypt_off + off);
}

static int area_write(void *ctx, const void *buf, uint64_t len, uint64_t off)
{
	struct q2 *q = ctx;

	return off > q->h.crypt_bytes || len > q->h.crypt_bytes - off ? -EIO : q2_write(q, buf, len, q->h.crypt_off + off);
}

static int area_flush(void *ctx)
{
	struct q2 *q = ctx;

	return q2_io->flush(q->vol);
}

static struct luks_area area(struct q2 *q)
{
	return (struct luks_area){q, area_read, q->read_only ? NULL : area_write, q->read_only ? NULL : area_flush, q->h.crypt_bytes};
}

static int luks_find(struct q2 *q, struct vh_err *e)
{
	uint64_t file = q2_io->bytes(q->vol);

	if (q->h.crypt_off >= file || q->h.crypt_bytes > file - q->h.crypt_off)
		return q2_fail(e, -EUCLEAN, "the encryption header lies outside the file");
	q->crypt->area = area(q);
	return luks_open(q2_host, &q->crypt->area, &q->crypt->luks, e);
}

static int luks_key(struct q2 *q, const uint8_t *pass, size_t n, struct vh_err *e)
{
	int r;

	q->cipher.size = sizeof(q->cipher);
	r = luks_unlock(q->crypt->luks, -1, pass, n, &q->cipher, e);
	if (r < 0) {
		memset(&q->cipher, 0, sizeof(q->cipher));
		return r;
	}
	q->cipher.size = sizeof(q->cipher);
	q->cipher.iv_from = VH_IV_FROM_ADDRESS;
	q->cipher.iv_base = 0;
	return 0;
}

static struct luks_spec spec(const struct vh_opts *o)
{
	return (struct luks_spec){.version = 1, .cipher = vh_opt_str(o, "cipher-alg", NULL), .mode = vh_opt_str(o, "cipher-mode", NULL),
				  .ivgen = vh_opt_str(o, "ivgen-alg", NULL), .hash = vh_opt_str(o, "hash-alg", NULL),
				  .ivgen_hash = vh_opt_str(o, "ivgen-hash-alg", NULL),
				  .iter_ms = (uint32_t)(vh_opt_num(o, "iter-time", 0) / 1000000)};
}

static int luks_make(struct q2 *q, const struct vh_opts *o, const uint8_t *pass, size_t n, struct vh_err *e)
{
	struct luks_spec s = spec(o);
	int64_t bytes = luks_header_bytes(q2_host, &s, e);
	uint64_t off, clusters;
	struct luks_area a;
	int r;

	if (bytes < 0)
		return (int)bytes;
	clusters = ((uint64_t)bytes + q->cluster - 1) >> q->h.bits;
	r = q2_alloc(q, clusters, &off);
	if (r >= 0)
		r = q2_io->zero(q->vol, clusters << q->h.bits, off);
	if (r < 0)
		return q2_fail(e, r, "no room for the encryption header");
	q->h.crypt_off = off;
	q->h.crypt_bytes = (uint64_t)bytes;
	a = area(q);
	r = luks_create(q2_host, &s, &a, pass, n, e);
	if (r >= 0) {
		r = q2_sync(q);
		if (r < 0)
			q2_fail(e, r, "cannot write the encryption header");
	}
	if (r < 0) {
		q->h.crypt_off = q->h.crypt_bytes = 0;
		return r;
	}
	q->h.crypt = Q2_CRYPT_LUKS;
	return q2_header_update(q, e);
}

uint64_t q2_crypt_bytes(const struct vh_opts *o)
{
	struct luks_spec s = spec(o);
	int64_t n = luks_header_bytes(q2_host, &s, NULL);

	return n < 0 ? 2u << 20 : (uint64_t)n;
}

void q2_crypt_describe(struct q2 *q, vh_describe_fn *fn, void *ctx)
{
	const struct luks_info *i;
	char v[128];

	if (!q->crypt || !q->crypt->luks)
		return;
	i = luks_get_info(q->crypt->luks);
	snprintf(v, sizeof(v), "%s-%s-%s", i->cipher, i->mode, i->ivgen);
	fn(ctx, "encrypt-cipher", VH_DESC_TEXT, v);
	fn(ctx, "encrypt-hash", VH_DESC_TEXT, i->hash);
	fn(ctx, "encrypt-uuid", VH_DESC_TEXT, i->uuid);
	for (uint32_t k = 0; k < i->slots && k < 32; k++) {
		snprintf(v, sizeof(v), "encrypt-slot-%u", k);
		fn(ctx, v, VH_DESC_BOOL, i->used >> k & 1 ? "true" : "false");
	}
}

int q2_crypt_amend(struct q2 *q, const struct vh_opts *o, struct vh_err *e)
{
	uint8_t old[MAX_PASS], fresh[MAX_PASS];
	size_t old_n = 0, fresh_n = 0;
	int slot = (int)vh_opt_num(o, "keyslot", -1), r;

	if (!vh_opt_get(o, "new-secret") && !vh_opt_get(o, "old-secret") && slot < 0)
		return 0;
	if (q->h.crypt != Q2_CRYPT_LUKS || !q->crypt || !q->crypt->luks)
		return q2_fail(e, -EINVAL, "only an image that is encrypted with LUKS has key slots");
	r = pass_get(o, "new-secret", fresh, &fresh_n, e);
	if (r >= 0)
		r = pass_get(o, "old-secret", old, &old_n, e);
	if (r >= 0 && fresh_n) /* the key is known since the image was opened */
		r = luks_slot_add(q->crypt->luks, slot, (uint32_t)(vh_opt_num(o, "iter-time", 0) / 1000000), NULL, 0, fresh, fresh_n, e);
	if (r >= 0 && old_n)
		r = luks_slot_remove_by(q->crypt->luks, old, old_n, e);
	else if (r >= 0 && slot >= 0 && !fresh_n)
		r = luks_slot_remove(q->crypt->luks, slot, 0, e);
	explicit_bzero(old, sizeof(old));
	explicit_bzero(fresh, sizeof(fresh));
	return r < 0 ? r : 0;
}
#else
static int no_luks(struct vh_err *e)
{
	q2_hint(e, "build it with libcryptsetup");
	return q2_fail(e, -EOPNOTSUPP, "LUKS is not built in");
}
static int luks_find(struct q2 *q, struct vh_err *e) { return no_luks(e); }
static int luks_key(struct q2 *q, const uint8_t *pass, size_t n, struct vh_err *e) { return no_luks(e); }
static int luks_make(struct q2 *q, const struct vh_opts *o, const uint8_t *pass, size_t n, struct vh_err *e) { return no_luks(e); }
static void luks_close(struct luks *l) {}
uint64_t q2_crypt_bytes(const struct vh_opts *o) { return 2u << 20; }
void q2_crypt_describe(struct q2 *q, vh_describe_fn *fn, void *ctx) {}
int q2_crypt_amend(struct q2 *q, const struct vh_opts *o, struct vh_err *e)
{
	return vh_opt_get(o, "new-secret") || vh_opt_get(o, "old-secret") || vh_opt_get(o, "keyslot") ? no_luks(e) : 0;
}
#endif

/* ---- what the rest of the plugin calls ---- */

/* Without a passphrase the image can be checked, and repaired, since neither needs the data. */
int q2_crypt_open(struct q2 *q, const struct vh_opts *o, struct vh_err *e)
{
	uint8_t pass[MAX_PASS];
	size_t n;
	int r = 0;

	q->crypt = calloc(1, sizeof(*q->crypt));
	if (!q->crypt)
		return q2_fail(e, -ENOMEM, "no memory for the encryption");
	q->crypt->q = q;
	if (q->h.crypt == Q2_CRYPT_LUKS)
		r = luks_find(q, q->flags & VH_OPEN_REPAIR ? NULL : e);
	if (q->flags & VH_OPEN_REPAIR)
		return 0;
	if (r >= 0)
		r = pass_must(o, "key-secret", pass, &n, e);
	if (r < 0)
		return r;
	if (q->h.crypt == Q2_CRYPT_AES)
		aes_key(q, pass, n);
	else
		r = luks_key(q, pass, n, e);
	explicit_bzero(pass, sizeof(pass));
	return r < 0 ? r : 0;
}

void q2_crypt_close(struct q2 *q)
{
	if (!q->crypt)
		return;
	luks_close(q->crypt->luks);
	explicit_bzero(q->crypt, sizeof(*q->crypt));
	free(q->crypt);
	q->crypt = NULL;
	memset(&q->cipher, 0, sizeof(q->cipher));
}

int q2_crypt_create(struct q2 *q, const struct vh_opts *o, struct vh_err *e)
{
	uint32_t method = (uint32_t)vh_opt_num(o, "encrypt", Q2_CRYPT_NONE);
	uint8_t pass[MAX_PASS];
	size_t n;
	int r = pass_must(o, "key-secret", pass, &n, e);

	if (r < 0)
		return r;
	if (method == Q2_CRYPT_LUKS) {
		r = luks_make(q, o, pass, n, e);
	} else {
		q->h.crypt = Q2_CRYPT_AES;
		r = q2_header_update(q, e);
	}
	explicit_bzero(pass, sizeof(pass));
	return r;
}
