/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Ciphers of images, apart from requests: what a vh_cipher says, applied to sectors in memory. */
#ifndef FMT_CRYPT_H
#define FMT_CRYPT_H

#include <vhost/format.h>
#include "util/err.h"

struct crypt;
struct crypt_ctx; /* both directions; one thread at a time */

/* Checks the cipher and takes a copy of its description; the key is read here and by crypt_ctx_new(). */
int crypt_new(const struct vh_cipher *c, struct crypt **out, struct vh_err *e);
void crypt_free(struct crypt *c); /* its contexts first; NULL is fine */
int crypt_same(const struct crypt *c, const struct vh_cipher *now);
uint32_t crypt_sector(const struct crypt *c);
uint32_t crypt_step(const struct crypt *c); /* from one sector's number to the next */
struct crypt_ctx *crypt_ctx_new(const struct crypt *c); /* NULL: no memory */
void crypt_ctx_free(struct crypt_ctx *x);
/* The number (for the IV) of the sector at virtual byte pos, volume byte addr. */
uint64_t crypt_number(const struct crypt *c, uint64_t pos, uint64_t addr);
/* Whole sectors, the first with this number; out may be in. Allocates nothing. 0 or -EIO. */
int crypt_run(const struct crypt *c, struct crypt_ctx *x, int encrypt, uint64_t number, const void *in, void *out, uint64_t len);

#endif
