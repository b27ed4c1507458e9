/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What luks.c and luks-write.c share. */
#ifndef PLUGIN_LUKS_I_H
#define PLUGIN_LUKS_I_H

#include <vhost/sugar.h>
#include "luks-lib.h"
#include "luks.h"

#define LUKS_SECTOR 512u
#define LUKS_ALIGN 4096u
#define LUKS_STRIPES 4000u
#define LUKS_MAX_HEADER (32u << 20) /* header and key slots: cryptsetup makes 2 MiB or 16 MiB */
#define LUKS_DISK (UINT64_C(1) << 40) /* how large libcryptsetup believes the copy to be, at most: it is sparse */

/* What a header may cost; more is refused, as it would only serve to keep the host busy. */
#define LUKS_MAX_ITERATIONS (UINT64_C(1) << 26) /* PBKDF2: some 20 s */
#define LUKS_MAX_MEMORY (UINT64_C(1) << 20)     /* Argon2: KiB, 1 GiB, cryptsetup's own most */
#define LUKS_MAX_ARGON (LUKS_MAX_MEMORY * 32)   /* KiB times passes */
#define LUKS_MAX_TRIES 4u                       /* the dearest slots that one search for a passphrase may try */

struct luks {
	const struct vh_host *host;
	struct luks_area area;
	struct crypt_device *cd;
	int fd;             /* the copy: a memfd */
	uint64_t copied;    /* bytes of it that are the area's */
	struct luks_info info;
	uint8_t *key;       /* a page of its own: locked, not dumped */
	size_t key_bytes;
	char log[200];      /* libcryptsetup's last error */
};

/* The sizes of LUKS2; LUKS1 has the first alone. */
static inline int luks_sector_ok(uint32_t bytes)
{
	return bytes >= LUKS_SECTOR && bytes <= 4096 && !(bytes & (bytes - 1));
}

/* A copy of `copied` zero bytes, and a libcryptsetup context over it. */
int luks_new(const struct vh_host *host, const struct luks_area *a, uint64_t size, struct luks **out, struct vh_err *e);
int luks_fail(struct luks *l, struct vh_err *e, int r, const char *what); /* with libcryptsetup's own words */
void luks_pbkdf(const struct luks *l, uint32_t iter_ms, const char *hash, struct crypt_pbkdf_type *p);
int luks_write_all(int fd, const void *buf, size_t n, uint64_t off);
int luks_read_all(int fd, void *buf, size_t n, uint64_t off);
/* The number after the first `name` at or behind p; *p moves behind it. 0: there is no more. */
int luks_json_number(const char **p, const char *name, uint64_t *out);
int luks_fill_info(struct luks *l, struct vh_err *e);
/* The volume key into l->key. */
int luks_find_key(struct luks *l, int slot, const void *pass, size_t n, struct vh_err *e);

#endif
