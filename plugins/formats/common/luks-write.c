/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * LUKS headers: making them, and changing key slots. libcryptsetup works on the copy; what differs then goes to the area in an
 * order that leaves the old header or the new one: key material first, then (LUKS2) one header and the other, each step
 * flushed. A removed slot's material is overwritten before the header forgets it, as cryptsetup does.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "luks-i.h"

#define BLOCK 65536u

/* Writes what differs in [from, to) of the copy. */
static int copy_out(struct luks *l, uint64_t from, uint64_t to)
{
	uint8_t *a = malloc(2 * BLOCK), *b = a + BLOCK;
	int r = a ? 0 : -ENOMEM, any = 0;

	while (r >= 0 && from < to) {
		size_t n = to - from < BLOCK ? (size_t)(to - from) : BLOCK;

		r = l->area.read(l->area.ctx, a, n, from);
		if (r >= 0)
			r = luks_read_all(l->fd, b, n, from);
		for (size_t k = 0; r >= 0 && k < n; k += LUKS_ALIGN) {
			size_t m = n - k < LUKS_ALIGN ? n - k : LUKS_ALIGN;

			if (!memcmp(a + k, b + k, m))
				continue;
			r = l->area.write(l->area.ctx, b + k, m, from + k);
			any = 1;
		}
		from += n;
	}
	free(a);
	return r >= 0 && any ? l->area.flush(l->area.ctx) : r;
}

static int writable(struct luks *l, struct vh_err *e)
{
	return l->area.write && l->area.flush ? 0 : l->host->err(e, -EROFS, "the image is read-only");
}

static int commit(struct luks *l, struct vh_err *e)
{
	uint8_t h[16];
	uint64_t head = LUKS_ALIGN;
	int r = luks_read_all(l->fd, h, sizeof(h), 0);

	if (r >= 0 && l->info.version == 2)
		head = (uint64_t)h[12] << 24 | (uint64_t)h[13] << 16 | (uint64_t)h[14] << 8 | h[15];
	if (r >= 0 && 2 * head > l->copied)
		r = -EINVAL;
	if (r >= 0)
		r = copy_out(l, l->info.version == 2 ? 2 * head : head, l->copied);
	if (r >= 0)
		r = copy_out(l, 0, head);
	if (r >= 0 && l->info.version == 2)
		r = copy_out(l, head, 2 * head);
	return r < 0 ? l->host->err(e, r, "cannot write the LUKS header") : 0;
}

int luks_check(struct luks *l, int repair, vh_check_fn *fn, void *ctx, struct vh_err *e)
{
	uint8_t a[LUKS_ALIGN], b[LUKS_ALIGN], h[16];
	uint64_t head = 0, bad = UINT64_MAX;
	/* Of the copy: there it is compared with. When it fails, libcryptsetup 2.6 loses what it had parsed, some 20 KiB. */
	int r = l->info.version == 2 ? luks_lib.crypt_repair(l->cd, CRYPT_LUKS2, NULL) : 0;

	if (r < 0)
		return luks_fail(l, e, r, "the LUKS2 header cannot be mended");
	r = luks_read_all(l->fd, h, sizeof(h), 0);
	if (r >= 0 && l->info.version == 2)
		head = (uint64_t)h[12] << 24 | (uint64_t)h[13] << 16 | (uint64_t)h[14] << 8 | h[15];
	for (uint64_t k = 0; r >= 0 && k < 2 * head && bad == UINT64_MAX; k += LUKS_ALIGN) {
		r = l->area.read(l->area.ctx, a, sizeof(a), k);
		if (r >= 0)
			r = luks_read_all(l->fd, b, sizeof(b), k);
		if (r >= 0 && memcmp(a, b, sizeof(a)))
			bad = k; /* libcryptsetup has mended the copy */
	}
	if (r < 0)
		return l->host->err(e, r, "cannot read the LUKS header");
	if (bad == UINT64_MAX)
		return 0;
	fn(ctx, VH_CHECK_CORRUPT, bad, "one of the two copies of the LUKS2 header is damaged; the other one is good");
	if (!repair)
		return 0;
	r = writable(l, e);
	if (r >= 0)
		r = commit(l, e);
	if (r >= 0)
		fn(ctx, VH_CHECK_FIXED, bad, "the damaged copy of the LUKS2 header was written anew");
	return r;
}

/*
 * cryptsetup's own most for Argon2; it takes less where there is less memory. A millisecond is less than measuring makes any sense for, and
 * LUKS1 would spend 125 of them on its digest in any case: it means the least that the format allows.
 */
void luks_pbkdf(const struct luks *l, uint32_t iter_ms, const char *hash, struct crypt_pbkdf_type *p)
{
	int least = iter_ms == 1;

	*p = (struct crypt_pbkdf_type){.type = CRYPT_KDF_PBKDF2, .hash = hash ? hash : "sha256"};
	if (l->info.version == 2) {
		p->type = CRYPT_KDF_ARGON2ID;
		p->max_memory_kb = least ? 32 : (uint32_t)LUKS_MAX_MEMORY;
		p->parallel_threads = least ? 1 : 4;
	}
	if (least) {
		p->flags = CRYPT_PBKDF_NO_BENCHMARK;
		p->iterations = l->info.version == 2 ? 4 : 1000;
	} else {
		p->time_ms = iter_ms ? iter_ms : 2000;
	}
}

/* Key bits and mode, checked. */
struct plan {
	size_t key_bytes;
	char mode[48]; /* "xts-plain64" */
	uint64_t payload;
};

static int known(const char *s, const char *const *list)
{
	while (*list && strcmp(s, *list))
		list++;
	return *list != NULL;
}

static int plan_of(const struct vh_host *host, const struct luks_spec *s, struct plan *p, struct vh_err *e)
{
	static const char *const ciphers[] = {"aes-128", "aes-192", "aes-256", NULL}, *const modes[] = {"xts", "cbc", NULL},
				*const ivs[] = {"plain64", "plain", "essiv", NULL};
	const char *cipher = s->cipher ? s->cipher : "aes-256", *mode = s->mode ? s->mode : "xts";
	const char *iv = s->ivgen ? s->ivgen : "plain64", *iv_hash = s->ivgen_hash ? s->ivgen_hash : "sha256";
	uint64_t bytes;

	if (!known(cipher, ciphers) || !known(mode, modes) || !known(iv, ivs)) {
		host->remedy(e, "aes-128, aes-192 or aes-256; xts or cbc; plain64, plain or essiv");
		return host->err(e, -EOPNOTSUPP, "cipher %s in mode %s with IV generator %s is not supported", cipher, mode, iv);
	}
	if (!strcmp(iv, "essiv") && strcmp(iv_hash, "sha256"))
		return host->err(e, -EOPNOTSUPP, "the IV generator essiv is supported with sha256, not with %s", iv_hash);
	p->key_bytes = (size_t)atoi(cipher + 4) / 8;
	if (!strcmp(mode, "xts")) {
		if (p->key_bytes == 24)
			return host->err(e, -EOPNOTSUPP, "aes-192 does not go with xts");
		p->key_bytes *= 2;
	}
	if (s->sector && (!luks_sector_ok(s->sector) || (s->version != 2 && s->sector != 512)))
		return host->err(e, -EOPNOTSUPP, "sectors of %u bytes: LUKS1 has 512, LUKS2 512, 1024, 2048 or 4096", s->sector);
	if (s->version > 2)
		return host->err(e, -EOPNOTSUPP, "LUKS version %u is unknown", s->version);
	snprintf(p->mode, sizeof(p->mode), "%s-%s%s", mode, iv, strcmp(iv, "essiv") ? "" : ":sha256");
	bytes = p->key_bytes * LUKS_STRIPES;
	p->payload = s->version == 2 ? 16u << 20 : LUKS_ALIGN + 8 * ((bytes + LUKS_ALIGN - 1) & ~(uint64_t)(LUKS_ALIGN - 1));
	if (s->align) {
		if (s->align % LUKS_ALIGN || s->align > 1u << 30)
			return host->err(e, -EINVAL, "the payload cannot be aligned to %" PRIu64 " bytes", s->align);
		p->payload = (p->payload + s->align - 1) / s->align * s->align;
	}
	return 0;
}

int64_t luks_header_bytes(const struct vh_host *host, const struct luks_spec *s, struct vh_err *e)
{
	struct plan p;
	int r = plan_of(host, s, &p, e);

	return r < 0 ? r : (int64_t)p.payload;
}

static int format(struct luks *l, const struct luks_spec *s, const struct plan *p, const void *pass, size_t n)
{
	struct crypt_params_luks1 one = {.hash = s->hash ? s->hash : "sha256"};
	struct crypt_params_luks2 two = {.sector_size = s->sector ? s->sector : LUKS_SECTOR};
	struct crypt_pbkdf_type kdf;
	int r;

	l->info.version = s->version == 2 ? 2 : 1;
	luks_pbkdf(l, s->iter_ms, s->hash, &kdf);
	r = luks_lib.crypt_set_pbkdf_type(l->cd, &kdf);
	if (r >= 0)
		r = luks_lib.crypt_set_data_offset(l->cd, p->payload / LUKS_SECTOR);
	two.pbkdf = &kdf;
	if (r >= 0)
		r = luks_lib.crypt_format(l->cd, s->version == 2 ? CRYPT_LUKS2 : CRYPT_LUKS1, "aes", p->mode, NULL, NULL, p->key_bytes,
				 s->version == 2 ? (void *)&two : (void *)&one);
	if (r >= 0)
		r = luks_lib.crypt_keyslot_add_by_volume_key(l->cd, 0, NULL, 0, pass, n);
	return r < 0 ? r : 0;
}

int luks_create(const struct vh_host *host, const struct luks_spec *s, const struct luks_area *a, const void *pass, size_t n,
		struct vh_err *e)
{
	struct plan p;
	struct luks *l;
	int r = plan_of(host, s, &p, e);

	if (r < 0)
		return r;
	if (!n)
		return host->err(e, -EINVAL, "the passphrase is empty");
	if (a->bytes < p.payload)
		return host->err(e, -ENOSPC, "the LUKS header needs %" PRIu64 " bytes, there are %" PRIu64, p.payload, a->bytes);
	r = luks_new(host, a, p.payload + LUKS_DISK / 1024, &l, e);
	if (r < 0)
		return r;
	l->copied = p.payload;
	r = format(l, s, &p, pass, n);
	if (r < 0)
		luks_fail(l, e, r, "cannot make the LUKS header");
	else
		r = commit(l, e);
	luks_close(l);
	return r;
}

int luks_slot_add(struct luks *l, int slot, uint32_t iter_ms, const void *old, size_t old_n, const void *pass, size_t n,
		  struct vh_err *e)
{
	struct crypt_pbkdf_type kdf;
	int r = writable(l, e);

	if (r < 0)
		return r;
	if (!n)
		return l->host->err(e, -EINVAL, "the new passphrase is empty");
	if (slot >= (int)l->info.slots)
		return l->host->err(e, -ERANGE, "there are key slots 0 to %u", l->info.slots - 1);
	if (slot >= 0 && l->info.used >> slot & 1) {
		l->host->remedy(e, "remove it first, or name another one");
		return l->host->err(e, -EEXIST, "key slot %d is in use", slot);
	}
	r = old ? luks_find_key(l, -1, old, old_n, e) : l->key_bytes ? 0 : l->host->err(e, -ENOKEY, "the image is locked");
	if (r < 0)
		return r;
	luks_pbkdf(l, iter_ms, l->info.version == 1 && l->info.hash[0] ? l->info.hash : NULL, &kdf);
	r = luks_lib.crypt_set_pbkdf_type(l->cd, &kdf);
	if (r >= 0)
		r = luks_lib.crypt_keyslot_add_by_volume_key(l->cd, slot < 0 ? CRYPT_ANY_SLOT : slot, (const char *)l->key, l->key_bytes, pass, n);
	if (r < 0)
		return luks_fail(l, e, r, "cannot add a key slot");
	slot = r;
	r = commit(l, e);
	if (r >= 0)
		r = luks_fill_info(l, e);
	return r < 0 ? r : slot;
}

int luks_slot_remove(struct luks *l, int slot, int last, struct vh_err *e)
{
	int r = writable(l, e);

	if (r < 0)
		return r;
	if (slot < 0 || slot >= (int)l->info.slots || !(l->info.used >> slot & 1))
		return l->host->err(e, -ENOENT, "key slot %d is not in use", slot);
	if (!last && l->info.used == 1u << slot) {
		l->host->remedy(e, "add another passphrase first; erasing the image means to delete it");
		return l->host->err(e, -EPERM, "key slot %d is the last one: without it the data could never be read again", slot);
	}
	r = luks_lib.crypt_keyslot_destroy(l->cd, slot);
	if (r < 0)
		return luks_fail(l, e, r, "cannot remove the key slot");
	r = commit(l, e);
	return r < 0 ? r : luks_fill_info(l, e);
}

int luks_slot_remove_but(struct luks *l, int keep, const void *pass, size_t n, struct vh_err *e)
{
	int removed = 0, r = writable(l, e);

	for (int k = 0; r >= 0 && k < (int)l->info.slots; k++) {
		if (!(l->info.used >> k & 1) || k == keep)
			continue;
		r = luks_find_key(l, k, pass, n, NULL);
		if (r == -EACCES || r == -E2BIG) {
			r = 0;
			continue;
		}
		if (r < 0)
			return l->host->err(e, r, "cannot try key slot %d", k);
		r = luks_slot_remove(l, k, 0, e);
		removed += r >= 0;
	}
	if (r < 0)
		return r;
	return removed ? removed : l->host->err(e, -EACCES, "the passphrase opens none of the key slots");
}

int luks_slot_remove_by(struct luks *l, const void *pass, size_t n, struct vh_err *e)
{
	return luks_slot_remove_but(l, -1, pass, n, e);
}
