/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * LUKS headers for format plugins: the format `luks` (a whole volume), and qcow2 (a header inside the image). libcryptsetup
 * reads and writes headers and key slots in a copy in memory; neither device mapper nor root is needed. The data is the
 * host's business: luks_unlock() fills in the vh_cipher for vh_image_info.
 *
 * Every call blocks (key derivation takes seconds by design): [main], or a job. Bytes count from where the header begins.
 */
#ifndef PLUGIN_LUKS_H
#define PLUGIN_LUKS_H

#include <stddef.h>
#include <vhost/format.h>
#include <vhost/host.h>

#define LUKS_MAX_PASS 512u /* bytes of a passphrase or key file: libcryptsetup's own limit is as wide as QEMU's needs */

/* Where a header is. 0 or -errno. */
struct luks_area {
	void *ctx;
	int (*read)(void *ctx, void *buf, uint64_t len, uint64_t off);
	int (*write)(void *ctx, const void *buf, uint64_t len, uint64_t off); /* NULL: read-only */
	int (*flush)(void *ctx);                                               /* NULL only if write is */
	uint64_t bytes; /* what may be read and written: for `luks` the volume's size, for qcow2 the header's length */
};

struct luks_info {
	uint32_t version; /* 1 or 2 */
	uint32_t sector;  /* bytes, 512 to 4096 */
	uint32_t key_bytes, slots; /* slots: how many there can be */
	uint32_t used;             /* bit k: slot k has a passphrase */
	uint32_t resv;
	uint64_t payload;          /* where the header says that the data begins (qcow2: without meaning) */
	uint64_t payload_bytes;    /* 0: to the volume's end */
	char cipher[32];           /* "aes" */
	char mode[32], ivgen[48];  /* "xts", "plain64"; "cbc", "essiv:sha256" */
	char hash[32], uuid[40];
};

/* What to make. Zero or NULL: the default. */
struct luks_spec {
	uint32_t version;   /* 1 */
	uint32_t sector;    /* 512; LUKS2 also 1024, 2048, 4096 */
	uint32_t iter_ms;   /* how long deriving a key shall take, 2000 */
	uint32_t resv;
	const char *cipher; /* "aes-128", "aes-192" (not with xts), "aes-256" (default) */
	const char *mode;   /* "xts" (default), "cbc" */
	const char *ivgen;  /* "plain64" (default), "plain", "essiv" */
	const char *ivgen_hash; /* of essiv: "sha256" only */
	const char *hash;   /* "sha256" (default), "sha1", "sha512" ...: what the crypto library has */
	uint64_t align;     /* of the payload, 0: 1 MiB; 4096 at least */
};

struct luks;

/* 100: these first bytes are a LUKS header, 0: they are not. */
int luks_probe(const void *buf, uint64_t len);

/*
 * Reads and checks the header; no passphrase yet. Any bytes may be there: memory is bounded by LUKS_MAX_HEADER (luks.c).
 * `host` and what `a` points to must live until luks_close().
 */
int luks_open(const struct vh_host *host, const struct luks_area *a, struct luks **out, struct vh_err *e);
void luks_close(struct luks *l); /* wipes the key; NULL is fine */
const struct luks_info *luks_get_info(const struct luks *l);

/*
 * Finds the key slot that the passphrase opens (slot -1: any; bounded time and memory whatever the header demands) and
 * fills in *c: c->key lives until luks_close(). Returns the slot. -EACCES: wrong passphrase. -EOPNOTSUPP: a cipher that
 * the host does not have, named. iv_from is FROM_ADDRESS and iv_base the payload: qcow2 sets iv_base to 0.
 */
int luks_unlock(struct luks *l, int slot, const void *pass, size_t n, struct vh_cipher *c, struct vh_err *e);

/* Bytes that header and key slots of such an image take, to be made room for: a multiple of 4096. */
int64_t luks_header_bytes(const struct vh_host *host, const struct luks_spec *s, struct vh_err *e);
/* Writes a new header with slot 0 for the passphrase; a->bytes must have room for luks_header_bytes(). */
int luks_create(const struct vh_host *host, const struct luks_spec *s, const struct luks_area *a, const void *pass, size_t n,
		struct vh_err *e);

/* Key slots; what a crash leaves of them is the old or the new state, and the image opens with the passphrases of it. */
/* Adds one; `old` must open some slot. slot -1: the first free one. Returns the slot. iter_ms 0: 2000. */
int luks_slot_add(struct luks *l, int slot, uint32_t iter_ms, const void *old, size_t old_n, const void *pass, size_t n,
		  struct vh_err *e);
/* Removes slot k; the last one only with `last`, which makes the data unreadable for ever. */
int luks_slot_remove(struct luks *l, int slot, int last, struct vh_err *e);
/* Removes every slot that `pass` opens, but never the last one. Returns how many. */
int luks_slot_remove_by(struct luks *l, const void *pass, size_t n, struct vh_err *e);

#endif
