/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* LUKS headers: reading them, and finding the key. Everything in a header is hostile until it is checked. */
#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "luks-i.h"

#define KEY_PAGE 4096u
#define CHUNK (64u << 10)
static const uint8_t magic[6] = {'L', 'U', 'K', 'S', 0xba, 0xbe};

int luks_pass_get(const struct vh_host *host, const char *name, struct luks_pass *out, struct vh_err *e)
{
	const struct vh_secret_ops *s = vh_service(host, VH_SVC_SECRET, sizeof(*s));
	int64_t n;

	memset(out, 0, sizeof(*out));
	if (!s)
		return host->err(e, -EOPNOTSUPP, "this host has no " VH_SVC_SECRET " service");
	out->p = mmap(NULL, LUKS_MAX_PASS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (out->p == MAP_FAILED) {
		out->p = NULL;
		return host->err(e, -ENOMEM, "no memory for a passphrase");
	}
	if (mlock(out->p, LUKS_MAX_PASS) < 0) { /* a limit of 0: it is wiped soon */
	}
	madvise(out->p, LUKS_MAX_PASS, MADV_DONTDUMP);
	n = s->get(name, out->p, LUKS_MAX_PASS, e);
	if (n == 0)
		n = host->err(e, -EINVAL, "the passphrase is empty");
	if (n < 0) {
		luks_pass_wipe(out);
		return (int)n;
	}
	out->n = (size_t)n;
	return 0;
}

void luks_pass_wipe(struct luks_pass *p)
{
	if (!p->p)
		return;
	explicit_bzero(p->p, LUKS_MAX_PASS);
	munmap(p->p, LUKS_MAX_PASS);
	memset(p, 0, sizeof(*p));
}

static uint32_t be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | p[1]; }
static uint32_t be32(const uint8_t *p) { return be16(p) << 16 | be16(p + 2); }
static uint64_t be64(const uint8_t *p) { return (uint64_t)be32(p) << 32 | be32(p + 4); }

int luks_probe(const void *buf, uint64_t len)
{
	const uint8_t *p = buf;

	return len >= 8 && !memcmp(p, magic, sizeof(magic)) && (be16(p + 6) == 1 || be16(p + 6) == 2) ? 100 : 0;
}

int luks_write_all(int fd, const void *buf, size_t n, uint64_t off)
{
	const char *p = buf;

	while (n) {
		ssize_t k = pwrite(fd, p, n, (off_t)off);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k < 0 ? -errno : -EIO;
		p += k;
		off += (uint64_t)k;
		n -= (size_t)k;
	}
	return 0;
}

int luks_read_all(int fd, void *buf, size_t n, uint64_t off)
{
	char *p = buf;

	while (n) {
		ssize_t k = pread(fd, p, n, (off_t)off);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k < 0 ? -errno : -EIO;
		p += k;
		off += (uint64_t)k;
		n -= (size_t)k;
	}
	return 0;
}

static void log_line(int level, const char *msg, void *ctx)
{
	struct luks *l = ctx;
	size_t n;

	if (level != CRYPT_LOG_ERROR || !l)
		return;
	n = strcspn(msg, "\n");
	snprintf(l->log, sizeof(l->log), "%.*s", (int)(n < 150 ? n : 150), msg);
}

int luks_fail(struct luks *l, struct vh_err *e, int r, const char *what)
{
	const char *why = l->log[0] ? l->log : strerror(-r);

	return l->host->err(e, r, "%s: %s", what, why);
}

void luks_release(struct luks *l)
{
	if (l->cd)
		luks_lib.crypt_free(l->cd);
	if (l->fd >= 0)
		close(l->fd);
	l->cd = NULL;
	l->fd = -1;
}

void luks_close(struct luks *l)
{
	if (!l)
		return;
	luks_release(l);
	if (l->key) {
		explicit_bzero(l->key, KEY_PAGE);
		munmap(l->key, KEY_PAGE);
	}
	free(l);
}

int luks_new(const struct vh_host *host, const struct luks_area *a, uint64_t size, struct luks **out, struct vh_err *e)
{
	struct luks *l = calloc(1, sizeof(*l));
	const char *missing = l ? luks_lib_load() : NULL;
	char path[40];
	int r;

	if (!l)
		return host->err(e, -ENOMEM, "no memory for a LUKS header");
	if (missing) {
		free(l);
		host->remedy(e, "install it (Debian: libcryptsetup12)");
		return host->err(e, -ELIBACC, "LUKS needs libcryptsetup, which cannot be loaded: %s", missing);
	}
	l->host = host;
	l->area = *a;
	l->key = mmap(NULL, KEY_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (l->key == MAP_FAILED)
		l->key = NULL;
	l->fd = memfd_create("luks", MFD_CLOEXEC);
	if (!l->key || l->fd < 0 || ftruncate(l->fd, (off_t)size) < 0) {
		r = host->err(e, -ENOMEM, "no memory for a LUKS header");
		goto error;
	}
	if (mlock(l->key, KEY_PAGE) < 0) { /* a limit of 0: the key may be swapped, as guest memory may */
	}
	madvise(l->key, KEY_PAGE, MADV_DONTDUMP);
	luks_lib.crypt_set_log_callback(NULL, log_line, NULL); /* what has no context must not go to standard output */
	snprintf(path, sizeof(path), "/proc/self/fd/%d", l->fd);
	r = luks_lib.crypt_init(&l->cd, path);
	if (r < 0) {
		l->cd = NULL;
		host->err(e, r, "libcryptsetup cannot begin: %s", strerror(-r));
		goto error;
	}
	luks_lib.crypt_set_log_callback(l->cd, log_line, l);
	luks_lib.crypt_metadata_locking(l->cd, 0); /* the copy is ours alone */
	*out = l;
	return 0;
error:
	luks_close(l);
	return r;
}

static int is_zero(const uint8_t *p, size_t n)
{
	return !n || (!*p && !memcmp(p, p + 1, n - 1));
}

/* The copy stays as sparse as the header is. */
static int copy_in(struct luks *l, uint64_t to, struct vh_err *e)
{
	uint8_t *buf = malloc(CHUNK);
	int r = buf ? 0 : l->host->err(e, -ENOMEM, "no memory for a LUKS header");

	if (to > l->area.bytes)
		to = l->area.bytes;
	while (r >= 0 && l->copied < to) {
		size_t n = to - l->copied < CHUNK ? (size_t)(to - l->copied) : CHUNK;

		r = l->area.read(l->area.ctx, buf, n, l->copied);
		if (r < 0)
			l->host->err(e, r, "cannot read the LUKS header");
		else if (!is_zero(buf, n))
			r = luks_write_all(l->fd, buf, n, l->copied);
		l->copied += n;
	}
	free(buf);
	return r;
}

/* How much of the area LUKS1 takes; its header is 592 bytes. */
static int luks1_end(struct luks *l, const uint8_t *h, uint64_t *end, struct vh_err *e)
{
	uint64_t key = be32(h + 108);

	*end = LUKS_ALIGN;
	if (key > KEY_PAGE / 2)
		return l->host->err(e, -EINVAL, "the LUKS header asks for a key of %" PRIu64 " bytes", key);
	if (be32(h + 164) > LUKS_MAX_ITERATIONS)
		return l->host->err(e, -EINVAL, "the LUKS header asks for %u iterations of its digest", be32(h + 164));
	for (int k = 0; k < 8; k++) {
		const uint8_t *slot = h + 208 + 48 * k;
		uint64_t at = (uint64_t)be32(slot + 40) * LUKS_SECTOR, n = key * be32(slot + 44);

		if (at > LUKS_MAX_HEADER || n > LUKS_MAX_HEADER || at + n > LUKS_MAX_HEADER || at + n > l->area.bytes)
			return l->host->err(e, -EINVAL, "key slot %d of the LUKS header lies outside of it", k);
		if (at + n > *end)
			*end = at + n;
	}
	return 0;
}

int luks_json_number(const char **p, const char *name, uint64_t *out)
{
	const char *at = strstr(*p, name);
	char *end;

	if (!at)
		return 0;
	at += strlen(name);
	while (*at == ' ' || *at == ':' || *at == '"')
		at++;
	errno = 0;
	*out = strtoull(at, &end, 10);
	if (end == at)
		*out = 0; /* "dynamic" */
	else if (errno || *at == '-')
		*out = UINT64_MAX;
	*p = end > at ? end : at;
	return 1;
}

/* LUKS2 keeps its digests' costs and the segments' sizes in JSON that libcryptsetup has checked. */
static int luks2_details(struct luks *l, struct vh_err *e)
{
	const char *json, *p;
	uint64_t n;
	uint32_t flags = 0;
	struct crypt_params_integrity ip = {0};
	int r = luks_lib.crypt_dump_json(l->cd, &json, 0);

	if (r < 0)
		return luks_fail(l, e, r, "the LUKS2 metadata is damaged");
	for (p = json; luks_json_number(&p, "\"iterations\"", &n);)
		if (n > LUKS_MAX_ITERATIONS)
			return l->host->err(e, -EINVAL, "the LUKS header asks for %" PRIu64 " iterations", n);
	p = strstr(json, "\"segments\"");
	if (p && luks_json_number(&p, "\"size\"", &n))
		l->info.payload_bytes = n;
	if (luks_lib.crypt_persistent_flags_get(l->cd, CRYPT_FLAGS_REQUIREMENTS, &flags) < 0 || flags) {
		l->host->remedy(e, "finish what was begun with cryptsetup reencrypt, or convert the data");
		return l->host->err(e, -EOPNOTSUPP, "%s", flags & (CRYPT_REQUIREMENT_OFFLINE_REENCRYPT |
								  CRYPT_REQUIREMENT_ONLINE_REENCRYPT) ?
							  "the LUKS volume is in the middle of a reencryption" :
							  "the LUKS volume needs features that are unknown");
	}
	if (luks_lib.crypt_get_integrity_info(l->cd, &ip) >= 0 && ip.tag_size)
		return l->host->err(e, -EOPNOTSUPP, "LUKS2 with data integrity (%s) is not supported",
				    ip.integrity ? ip.integrity : "dm-integrity");
	return 0;
}

static void text(char *to, size_t cap, const char *from)
{
	snprintf(to, cap, "%s", from ? from : "");
}

int luks_fill_info(struct luks *l, struct vh_err *e)
{
	struct luks_info *i = &l->info;
	const char *mode = luks_lib.crypt_get_cipher_mode(l->cd), *type = luks_lib.crypt_get_type(l->cd), *dash;
	struct crypt_pbkdf_type p;
	int r, most;

	i->version = type && !strcmp(type, CRYPT_LUKS2) ? 2 : 1;
	r = i->version == 2 ? luks2_details(l, e) : 0;
	if (r < 0)
		return r;
	r = luks_lib.crypt_get_sector_size(l->cd);
	i->sector = r > 0 ? (uint32_t)r : LUKS_SECTOR;
	/* libcryptsetup reads what it would not activate. */
	if (!luks_sector_ok(i->sector))
		return l->host->err(e, -EINVAL, "the LUKS2 header says that sectors have %u bytes; 512 to 4096 are possible", i->sector);
	r = luks_lib.crypt_get_volume_key_size(l->cd);
	i->key_bytes = r > 0 ? (uint32_t)r : 0;
	i->payload = luks_lib.crypt_get_data_offset(l->cd) * LUKS_SECTOR;
	text(i->cipher, sizeof(i->cipher), luks_lib.crypt_get_cipher(l->cd));
	dash = mode ? strchr(mode, '-') : NULL;
	snprintf(i->mode, sizeof(i->mode), "%.*s", mode ? (int)(dash ? dash - mode : (long)strlen(mode)) : 0, mode ? mode : "");
	text(i->ivgen, sizeof(i->ivgen), dash ? dash + 1 : "");
	text(i->uuid, sizeof(i->uuid), luks_lib.crypt_get_uuid(l->cd));
	most = luks_lib.crypt_keyslot_max(type);
	i->slots = most > 0 && most <= 32 ? (uint32_t)most : most > 32 ? 32 : 0;
	i->used = 0;
	for (uint32_t k = 0; k < i->slots; k++) {
		crypt_keyslot_info s = luks_lib.crypt_keyslot_status(l->cd, (int)k);

		if (s != CRYPT_SLOT_ACTIVE && s != CRYPT_SLOT_ACTIVE_LAST)
			continue;
		i->used |= 1u << k;
		memset(&p, 0, sizeof(p));
		if (!i->hash[0] && luks_lib.crypt_keyslot_get_pbkdf(l->cd, (int)k, &p) >= 0)
			text(i->hash, sizeof(i->hash), i->version == 2 ? p.type : p.hash);
	}
	return 0;
}

int luks_open(const struct vh_host *host, const struct luks_area *a, struct luks **out, struct vh_err *e)
{
	uint8_t h[LUKS_ALIGN] = {0};
	uint64_t end = 16u << 20, at;
	struct luks *l;
	int r;

	r = a->read(a->ctx, h, a->bytes < sizeof(h) ? a->bytes : sizeof(h), 0);
	if (r < 0)
		return host->err(e, r, "cannot read the LUKS header");
	if (!luks_probe(h, a->bytes < sizeof(h) ? a->bytes : sizeof(h))) {
		if (a->bytes >= 8 && !memcmp(h, magic, sizeof(magic)))
			return host->err(e, -EOPNOTSUPP, "LUKS version %u is unknown", be16(h + 6));
		return host->err(e, -EINVAL, "there is no LUKS header");
	}
	r = luks_new(host, a, a->bytes < LUKS_DISK ? a->bytes : LUKS_DISK, &l, e);
	if (r < 0)
		return r;
	if (be16(h + 6) == 1)
		r = luks1_end(l, h, &end, e);
	else if (be64(h + 8) > 4u << 20)
		r = host->err(e, -EINVAL, "the LUKS2 header says that it is %" PRIu64 " bytes large", be64(h + 8));
	if (r >= 0)
		r = copy_in(l, end, e);
	if (r < 0)
		goto error;
	r = luks_lib.crypt_load(l->cd, CRYPT_LUKS, NULL);
	if (r < 0) {
		luks_fail(l, e, r, "the LUKS header is damaged");
		goto error;
	}
	at = luks_lib.crypt_get_data_offset(l->cd) * LUKS_SECTOR;
	if (be16(h + 6) == 2 && at > end) /* larger key slot areas than usual */
		r = copy_in(l, at < LUKS_MAX_HEADER ? at : LUKS_MAX_HEADER, e);
	if (r >= 0)
		r = luks_fill_info(l, e);
	if (r < 0)
		goto error;
	l->log[0] = 0;
	*out = l;
	return 0;
error:
	luks_close(l);
	return r;
}

const struct luks_info *luks_get_info(const struct luks *l)
{
	return &l->info;
}

/* What the host's ciphers can do; anything else is named. */
static int cipher_of(struct luks *l, struct vh_cipher *c, struct vh_err *e)
{
	const struct luks_info *i = &l->info;
	uint64_t shift = luks_lib.crypt_get_iv_offset(l->cd) * LUKS_SECTOR;

	*c = (struct vh_cipher){.size = sizeof(*c), .sector = i->sector, .iv_unit = LUKS_SECTOR, .iv_from = VH_IV_FROM_ADDRESS,
				.key_bytes = i->key_bytes, .key = l->key};
	if (!strcmp(i->cipher, "aes") && !strcmp(i->mode, "xts") && (i->key_bytes == 32 || i->key_bytes == 64))
		c->algorithm = VH_CIPHER_AES_XTS;
	else if (!strcmp(i->cipher, "aes") && !strcmp(i->mode, "cbc") &&
		 (i->key_bytes == 16 || i->key_bytes == 24 || i->key_bytes == 32))
		c->algorithm = VH_CIPHER_AES_CBC;
	c->iv = !strcmp(i->ivgen, "plain64") ? VH_IV_PLAIN64 : !strcmp(i->ivgen, "plain") ? VH_IV_PLAIN :
		!strcmp(i->ivgen, "essiv:sha256") ? VH_IV_ESSIV_SHA256 : 0;
	if (!c->algorithm || !c->iv) {
		l->host->remedy(e, "convert it with qemu-img or cryptsetup reencrypt to aes-xts-plain64");
		return l->host->err(e, -EOPNOTSUPP, "cipher %s-%s-%s with a key of %u bits is not supported", i->cipher, i->mode, i->ivgen,
				    i->key_bytes * 8);
	}
	if (shift > i->payload || shift % i->sector)
		return l->host->err(e, -EOPNOTSUPP, "sector numbers that begin at %" PRIu64, shift / LUKS_SECTOR);
	c->iv_base = i->payload - shift;
	return 0;
}

/* What trying a slot costs, in units of the most that one may cost; 0: more than that. */
static int affordable(struct luks *l, int slot, uint64_t *cost, uint64_t most)
{
	struct crypt_pbkdf_type p = {0};
	size_t n;
	const char *enc = luks_lib.crypt_keyslot_get_encryption(l->cd, slot, &n);
	uint64_t c, all;

	/* For other ciphers libcryptsetup would go to the kernel, for a header's sake. */
	if (!enc || strncmp(enc, "aes-", 4) || luks_lib.crypt_keyslot_get_pbkdf(l->cd, slot, &p) < 0 || !p.type)
		return 0;
	if (!strcmp(p.type, CRYPT_KDF_PBKDF2)) {
		c = p.iterations;
		all = LUKS_MAX_ITERATIONS;
	} else {
		c = (uint64_t)p.iterations * p.max_memory_kb;
		all = p.max_memory_kb > LUKS_MAX_MEMORY ? 0 : LUKS_MAX_ARGON;
	}
	if (!all || c > all || *cost + c / (all / 1024) > most * 1024)
		return 0;
	*cost += c / (all / 1024);
	return 1;
}

int luks_find_key(struct luks *l, int slot, const void *pass, size_t n, struct vh_err *e)
{
	uint64_t cost = 0;
	int tried = 0, dear = -1, r;

	if (slot >= (int)l->info.slots || (slot >= 0 && !(l->info.used >> slot & 1)))
		return l->host->err(e, -ENOENT, "key slot %d is not in use", slot);
	for (int k = 0; k < (int)l->info.slots; k++) {
		size_t cap = l->info.key_bytes;

		if (!(l->info.used >> k & 1) || (slot >= 0 && slot != k))
			continue;
		if (!affordable(l, k, &cost, slot < 0 ? LUKS_MAX_TRIES : 1)) {
			dear = k;
			continue;
		}
		if (!cap || cap > KEY_PAGE)
			return l->host->err(e, -EINVAL, "the LUKS header asks for a key of %zu bytes", cap);
		l->log[0] = 0;
		tried++;
		r = luks_lib.crypt_volume_key_get(l->cd, k, (char *)l->key, &cap, pass, n);
		if (r >= 0) {
			l->key_bytes = cap;
			return k;
		}
		if (r != -EPERM && r != -ENOENT)
			return luks_fail(l, e, r, "cannot derive the key");
	}
	if (dear >= 0) {
		if (slot < 0)
			l->host->remedy(e, "name the slot (option keyslot), or change its cost with cryptsetup luksConvertKey");
		return l->host->err(e, -E2BIG, "key slot %d asks for more time, memory or another cipher than is allowed%s", dear,
				    tried ? ", and no other one opens with this passphrase" : "");
	}
	if (!tried)
		return l->host->err(e, -ENOKEY, "no key slot is in use: the data cannot be read any more");
	return l->host->err(e, -EACCES, "the passphrase opens %s", slot < 0 ? "none of the key slots" : "not this key slot");
}

int luks_take_key(struct luks *l, const struct luks *from, struct vh_err *e)
{
	int r = from->key_bytes == l->info.key_bytes && from->key_bytes ?
			luks_lib.crypt_volume_key_verify(l->cd, (const char *)from->key, from->key_bytes) : -EPERM;

	if (r < 0)
		return l->host->err(e, -EKEYREJECTED, "the LUKS header has changed: it is not that of this image any more");
	memcpy(l->key, from->key, from->key_bytes);
	l->key_bytes = from->key_bytes;
	return 0;
}

int luks_unlock(struct luks *l, int slot, const void *pass, size_t n, struct vh_cipher *c, struct vh_err *e)
{
	int r = cipher_of(l, c, e);

	return r < 0 ? r : luks_find_key(l, slot, pass, n, e);
}
