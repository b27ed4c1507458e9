/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Sectors through OpenSSL's EVP, which uses AES-NI and VAES. Everything that looks up, allocates or derives happens when an
 * image or a queue is opened; a sector costs one IV and one pass over its bytes. The bytes of `in` are read once.
 */
#include <stdlib.h>
#include <string.h>
#include "fmt/crypt.h"
#include "fmt/evp.h"

#define ESSIV_KEY 32u /* SHA-256 */

struct crypt {
	struct vh_cipher c;
	EVP_CIPHER *cipher, *essiv; /* essiv: NULL without */
	uint8_t essiv_key[ESSIV_KEY];
	uint32_t step; /* how much the number grows from one sector to the next */
	uint32_t unit; /* bytes that numbers count in */
};

struct crypt_ctx {
	EVP_CIPHER_CTX *dir[2], *essiv; /* decrypt, encrypt */
};

static const char *name_of(const struct vh_cipher *c)
{
	switch (c->algorithm) {
	case VH_CIPHER_AES_XTS:
		return c->key_bytes == 64 ? "AES-256-XTS" : c->key_bytes == 32 ? "AES-128-XTS" : NULL;
	case VH_CIPHER_AES_CBC:
		return c->key_bytes == 32 ? "AES-256-CBC" : c->key_bytes == 24 ? "AES-192-CBC" :
		       c->key_bytes == 16 ? "AES-128-CBC" : NULL;
	default:
		return NULL;
	}
}

static int check(const struct vh_cipher *c, struct vh_err *e)
{
	if (c->size < sizeof(*c) || !c->key)
		return err_set(e, -EINVAL, "the format does not describe its cipher");
	if (c->algorithm != VH_CIPHER_AES_XTS && c->algorithm != VH_CIPHER_AES_CBC)
		return err_set(e, -EOPNOTSUPP, "cipher number %u is unknown", c->algorithm);
	if (!name_of(c))
		return err_set(e, -EOPNOTSUPP, "AES in %s mode takes no key of %u bytes",
			       c->algorithm == VH_CIPHER_AES_XTS ? "XTS" : "CBC", c->key_bytes);
	if (c->sector < 512 || c->sector > 4096 || c->sector & (c->sector - 1))
		return err_set(e, -EOPNOTSUPP, "sectors of %u bytes; 512 to 4096 are possible", c->sector);
	if (c->iv != VH_IV_PLAIN64 && c->iv != VH_IV_PLAIN && c->iv != VH_IV_ESSIV_SHA256)
		return err_set(e, -EOPNOTSUPP, "IV generator number %u is unknown", c->iv);
	if (c->iv_from > VH_IV_FROM_ADDRESS || c->iv_base % c->sector)
		return err_set(e, -EINVAL, "the format says nonsense of where sectors are counted from");
	if (c->iv_unit && c->iv_unit != 512 && c->iv_unit != c->sector)
		return err_set(e, -EOPNOTSUPP, "sector numbers that count %u bytes", c->iv_unit);
	return 0;
}

int crypt_new(const struct vh_cipher *v, struct crypt **out, struct vh_err *e)
{
	struct crypt *c;
	struct crypt_ctx *x;
	unsigned n = 0;
	int r = check(v, e);

	if (!r)
		r = evp_load(e);
	if (r < 0)
		return r;
	c = calloc(1, sizeof(*c));
	if (!c)
		return err_set(e, -ENOMEM, "no memory for a cipher");
	c->c = *v;
	c->unit = v->iv_unit ? v->iv_unit : v->sector;
	c->step = v->sector / c->unit;
	c->cipher = evp.EVP_CIPHER_fetch(NULL, name_of(v), NULL);
	if (c->cipher && v->iv == VH_IV_ESSIV_SHA256) {
		c->essiv = evp.EVP_CIPHER_fetch(NULL, "AES-256-ECB", NULL);
		if (!c->essiv || !evp.EVP_Digest(v->key, v->key_bytes, c->essiv_key, &n, evp.EVP_sha256(), NULL) || n != ESSIV_KEY) {
			evp.EVP_CIPHER_free(c->cipher);
			c->cipher = NULL;
		}
	}
	if (!c->cipher) {
		r = err_set(e, -EOPNOTSUPP, "the crypto library has no %s", name_of(v));
		goto error;
	}
	x = crypt_ctx_new(c); /* keys that the library refuses: XTS with two equal halves */
	if (!x) {
		r = err_set(e, -EINVAL, "the crypto library refuses the image's key for %s", name_of(v));
		goto error;
	}
	crypt_ctx_free(x);
	*out = c;
	return 0;
error:
	crypt_free(c);
	return r;
}

void crypt_free(struct crypt *c)
{
	if (!c)
		return;
	evp.EVP_CIPHER_free(c->cipher);
	evp.EVP_CIPHER_free(c->essiv);
	explicit_bzero(c, sizeof(*c));
	free(c);
}

int crypt_same(const struct crypt *c, const struct vh_cipher *now)
{
	return now && now->size >= sizeof(*now) && now->algorithm == c->c.algorithm && now->sector == c->c.sector &&
	       now->iv == c->c.iv && now->iv_from == c->c.iv_from && now->iv_base == c->c.iv_base &&
	       now->iv_unit == c->c.iv_unit && now->key_bytes == c->c.key_bytes && now->key == c->c.key;
}

uint32_t crypt_sector(const struct crypt *c)
{
	return c->c.sector;
}

uint32_t crypt_step(const struct crypt *c)
{
	return c->step;
}

struct crypt_ctx *crypt_ctx_new(const struct crypt *c)
{
	struct crypt_ctx *x = calloc(1, sizeof(*x));
	const uint8_t iv[16] = {0};
	int ok = x != NULL;

	for (int d = 0; ok && d < 2; d++) {
		x->dir[d] = evp.EVP_CIPHER_CTX_new();
		ok = x->dir[d] && evp.EVP_CipherInit_ex(x->dir[d], c->cipher, NULL, c->c.key, iv, d) &&
		     evp.EVP_CIPHER_CTX_set_padding(x->dir[d], 0);
	}
	if (ok && c->essiv) {
		x->essiv = evp.EVP_CIPHER_CTX_new();
		ok = x->essiv && evp.EVP_CipherInit_ex(x->essiv, c->essiv, NULL, c->essiv_key, NULL, 1) &&
		     evp.EVP_CIPHER_CTX_set_padding(x->essiv, 0);
	}
	if (ok)
		return x;
	crypt_ctx_free(x);
	return NULL;
}

void crypt_ctx_free(struct crypt_ctx *x)
{
	if (!x)
		return;
	evp.EVP_CIPHER_CTX_free(x->dir[0]); /* which wipes the key schedule */
	evp.EVP_CIPHER_CTX_free(x->dir[1]);
	evp.EVP_CIPHER_CTX_free(x->essiv);
	free(x);
}

uint64_t crypt_number(const struct crypt *c, uint64_t pos, uint64_t addr)
{
	return (c->c.iv_from == VH_IV_FROM_ADDRESS ? addr - c->c.iv_base : pos) / c->unit;
}

/* dm-crypt's and QEMU's generators. */
static int make_iv(const struct crypt *c, struct crypt_ctx *x, uint64_t number, uint8_t iv[16])
{
	uint64_t n = htole64(c->c.iv == VH_IV_PLAIN ? number & UINT32_MAX : number);
	int len;

	memset(iv, 0, 16);
	memcpy(iv, &n, sizeof(n));
	return !c->essiv || (evp.EVP_CipherUpdate(x->essiv, iv, &len, iv, 16) && len == 16);
}

int crypt_run(const struct crypt *c, struct crypt_ctx *x, int encrypt, uint64_t number, const void *in, void *out, uint64_t len)
{
	const uint8_t *from = in;
	EVP_CIPHER_CTX *ctx = x->dir[encrypt != 0];
	uint8_t *to = out, iv[16];
	int sector = (int)c->c.sector, n;

	for (; len >= c->c.sector; len -= c->c.sector, from += sector, to += sector, number += c->step)
		if (!make_iv(c, x, number, iv) || !evp.EVP_CipherInit_ex(ctx, NULL, NULL, NULL, iv, -1) ||
		    !evp.EVP_CipherUpdate(ctx, to, &n, from, sector) || n != sector)
			return -EIO;
	return len ? -EIO : 0;
}
