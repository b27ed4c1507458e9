/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* OpenSSL's libcrypto, loaded for the first encrypted image: linking it makes each command a millisecond slower to start. */
#ifndef FMT_EVP_H
#define FMT_EVP_H

#include <openssl/evp.h>
#include "util/err.h"

#define EVP_LIB(X)                                                                                                     \
	X(EVP_CIPHER_fetch) X(EVP_CIPHER_free) X(EVP_CIPHER_CTX_new) X(EVP_CIPHER_CTX_free) X(EVP_CIPHER_CTX_set_padding)  \
	X(EVP_CipherInit_ex) X(EVP_CipherUpdate) X(EVP_Digest) X(EVP_sha256)

struct evp_lib {
#define EVP_LIB_FIELD(f) __typeof__(f) *f;
	EVP_LIB(EVP_LIB_FIELD)
#undef EVP_LIB_FIELD
};
extern struct evp_lib evp;
int evp_load(struct vh_err *e); /* [any] May block. 0: evp is usable from now on */

#endif
