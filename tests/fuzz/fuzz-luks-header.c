/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Any bytes as the beginning of a LUKS volume: opening, describing, checking and trying a passphrase must end, soon and in
 * bounded memory. The checksum of a LUKS2 header is made right, else nothing behind it would ever be reached. Of such a header
 * the input has the first 512 bytes, then what is at byte 4096: the JSON.
 */
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include "luks-i.h"
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define __SANITIZE_ADDRESS__ 1
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#else
static void __lsan_disable(void) { }
static void __lsan_enable(void) { }
#endif

#define AREA (17u << 20) /* LUKS2 wants room for its key slots */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const void *no_service(const struct vh_host *h, const char *iid)
{
	return NULL;
}

static int say(struct vh_err *e, int code, const char *fmt, ...)
{
	return code;
}

static int vsay(struct vh_err *e, int code, const char *fmt, va_list ap)
{
	return code;
}

static void hint(struct vh_err *e, const char *fmt, ...)
{
}

static const struct vh_host host = {.size = sizeof(host), .service = no_service, .err = say, .verr = vsay, .remedy = hint};

struct bytes {
	uint8_t *p;
	size_t n;
};

static int area_read(void *ctx, void *buf, uint64_t len, uint64_t off)
{
	const struct bytes *b = ctx;
	uint64_t have = off < b->n ? b->n - off : 0;

	if (off > AREA || len > AREA - off)
		abort(); /* it asked for what is not there */
	if (have > len)
		have = len;
	memcpy(buf, b->p + (have ? off : 0), have);
	memset((uint8_t *)buf + have, 0, len - have);
	return 0;
}

static void make_checksum_right(struct bytes *b)
{
	uint64_t size = 0;
	uint8_t *all;
	unsigned n;

	if (b->n < 4096 || b->p[6] || b->p[7] != 2)
		return;
	for (int k = 0; k < 8; k++)
		size = size << 8 | b->p[8 + k];
	if (size < 4096 || size > 1u << 20)
		return;
	memset(b->p + 448, 0, 64);
	memset(b->p + 72, 0, 32);
	memcpy(b->p + 72, "sha256", 6);
	all = calloc(1, size);
	memcpy(all, b->p, b->n < size ? b->n : size);
	EVP_Digest(all, size, b->p + 448, &n, EVP_sha256(), NULL);
	free(all);
}

static void found(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	if (off >= AREA)
		abort();
}

/* Deriving keys is slow by design; what is dear is refused elsewhere. */
static int cheap(const struct luks *l, const uint8_t *header)
{
	struct crypt_pbkdf_type p;
	const char *json = "";
	uint64_t n;

	/* The digest of the key that was found: LUKS1's at byte 164, LUKS2's in the JSON, like the slots'. */
	if (header[7] == 1 && (header[164] || header[165]))
		return 0;
	if (header[7] == 2 && luks_lib.crypt_dump_json(l->cd, &json, 0) < 0)
		return 0;
	while (luks_json_number(&json, "\"iterations\"", &n))
		if (n > 65535)
			return 0;
	for (uint32_t k = 0; k < l->info.slots; k++) {
		memset(&p, 0, sizeof(p));
		if ((l->info.used >> k & 1) && (luks_lib.crypt_keyslot_get_pbkdf(l->cd, (int)k, &p) < 0 || p.iterations > 2000 ||
						p.max_memory_kb > 64))
			return 0;
	}
	return 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int two = size > 512 && !data[6] && data[7] == 2;
	struct bytes b = {.p = calloc(1, size + 4096), .n = two ? size + 4096 - 512 : size};
	struct luks_area a = {.ctx = &b, .read = area_read, .bytes = AREA};
	struct luks *l;
	struct vh_cipher c;

	if (!b.p || size > AREA / 2) {
		free(b.p);
		return 0;
	}
	memcpy(b.p, data, two ? 512 : size);
	if (two)
		memcpy(b.p + 4096, data + 512, size - 512);
	make_checksum_right(&b);
	if (luks_open(&host, &a, &l, NULL) >= 0) {
		const struct luks_info *i = luks_get_info(l);

		if (!memchr(i->cipher, 0, sizeof(i->cipher)) || !memchr(i->uuid, 0, sizeof(i->uuid)) || i->slots > 32)
			abort();
		if (cheap(l, b.p) && luks_unlock(l, -1, "pass", 4, &c, NULL) >= 0 &&
		    (!c.key_bytes || c.key_bytes > 64 || c.sector < 512 || c.sector > 4096))
			abort();
		__lsan_disable(); /* libcryptsetup's own, see luks_check() */
		luks_check(l, 0, found, NULL, NULL);
		__lsan_enable();
		luks_close(l);
	}
	free(b.p);
	return 0;
}
