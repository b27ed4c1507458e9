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

#define LUKS_MAX_PASS 65536u /* bytes of a passphrase or key file, as vh.secret/1 has it */

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
	uint64_t align;     /* of the payload, a multiple of 4096; 0: 4096 */
};

struct luks;

/* A passphrase from vh.secret/1, in memory that is locked where that may be, and wiped. */
struct luks_pass {
	uint8_t *p;
	size_t n;
};
int luks_pass_get(const struct vh_host *host, const char *name, struct luks_pass *out, struct vh_err *e); /* the option's value */
void luks_pass_wipe(struct luks_pass *p); /* also of zeros */

/* 100: these first bytes are a LUKS header, 0: they are not. */
int luks_probe(const void *buf, uint64_t len);

/*
 * Reads and checks the header; no passphrase yet. Any bytes may be there: memory is bounded by LUKS_MAX_HEADER (luks-i.h).
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

/* Gives the copy of the header back (2 to 32 MiB); what is left is the key, and luks_get_info(). */
void luks_release(struct luks *l);
/* The key that `from` found, if it is this header's too: a header opened anew to be changed. -EKEYREJECTED. */
int luks_take_key(struct luks *l, const struct luks *from, struct vh_err *e);
/* Both copies of a LUKS2 header; tells what it finds, and writes the good one over the bad one. l: just opened. */
int luks_check(struct luks *l, int repair, vh_check_fn *fn, void *ctx, struct vh_err *e);

/* Bytes that header and key slots of such an image take, to be made room for: a multiple of 4096. */
int64_t luks_header_bytes(const struct vh_host *host, const struct luks_spec *s, struct vh_err *e);
/* Writes a new header with slot 0 for the passphrase; a->bytes must have room for luks_header_bytes(). */
int luks_create(const struct vh_host *host, const struct luks_spec *s, const struct luks_area *a, const void *pass, size_t n,
		struct vh_err *e);

/* Key slots; what a crash leaves of them is the old or the new state, and the image opens with the passphrases of it. */
/* Adds one; `old` must open some slot, or is NULL where the key is known. slot -1: the first free one. Returns the slot. */
int luks_slot_add(struct luks *l, int slot, uint32_t iter_ms, const void *old, size_t old_n, const void *pass, size_t n,
		  struct vh_err *e);
/* Removes slot k; the last one only with `last`, which makes the data unreadable for ever. */
int luks_slot_remove(struct luks *l, int slot, int last, struct vh_err *e);
/* Removes every slot that `pass` opens, but not slot `keep` (-1: none is kept), and never the last one. Returns how many. */
int luks_slot_remove_but(struct luks *l, int keep, const void *pass, size_t n, struct vh_err *e);
int luks_slot_remove_by(struct luks *l, const void *pass, size_t n, struct vh_err *e); /* keeps none */

#endif
