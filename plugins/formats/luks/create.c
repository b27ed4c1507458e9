/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* New images, and how large they become. */
#include <inttypes.h>
#include "impl.h"

static const char *const versions[] = {"luks1", "luks2", NULL}, *const ciphers[] = {"aes-128", "aes-192", "aes-256", NULL},
			*const modes[] = {"xts", "cbc", NULL}, *const ivgens[] = {"plain64", "plain", "essiv", NULL},
			*const hashes[] = {"sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160", NULL},
			*const iv_hashes[] = {"sha256", NULL};

#define OPT(ID, TYPE, NAME, DOC, DEF, CHOICES, MIN, MAX) \
	static const struct vh_opt ID = {sizeof(struct vh_opt), TYPE, 0, NAME, DOC, DEF, CHOICES, MIN, MAX}
static const struct vh_opt opt_key = {sizeof(struct vh_opt), VH_OPT_SECRET, VH_OPT_REQUIRED, "key-secret",
				      "Secret with the passphrase", NULL, NULL, 0, 0};
OPT(opt_version, VH_OPT_ENUM, "version", "Kind of header; luks1 is what QEMU reads too", "luks1", versions, 0, 0);
OPT(opt_cipher, VH_OPT_ENUM, "cipher-alg", "Cipher and length of its key", "aes-256", ciphers, 0, 0);
OPT(opt_mode, VH_OPT_ENUM, "cipher-mode", "Mode of the cipher", "xts", modes, 0, 0);
OPT(opt_ivgen, VH_OPT_ENUM, "ivgen-alg", "How a sector's number becomes its IV", "plain64", ivgens, 0, 0);
OPT(opt_ivhash, VH_OPT_ENUM, "ivgen-hash-alg", "Hash of the IV generator essiv", "sha256", iv_hashes, 0, 0);
OPT(opt_hash, VH_OPT_ENUM, "hash-alg", "Hash of the key derivation", "sha256", hashes, 0, 0);
OPT(opt_sector, VH_OPT_SIZE, "sector-size", "Bytes encrypted as one: 512, with luks2 also 1024, 2048 or 4096", "512", NULL, 512, 4096);
OPT(opt_iter, VH_OPT_DURATION, "iter-time", "How long deriving the key from the passphrase shall take; 1ms: as short as can be", "2s", NULL, 1000000,
    INT64_C(60000000000));
const struct vh_opt *const luks_create_options[] = {&opt_key,  &opt_version, &opt_cipher, &opt_mode, &opt_ivgen, &opt_ivhash,
						    &opt_hash, &opt_sector,  &opt_iter,   NULL};

static struct luks_spec spec_of(const struct vh_opts *o)
{
	const char *version = vh_opt_str(o, "version", "luks1");

	return (struct luks_spec){.version = strcmp(version, "luks2") ? 1 : 2,
				  .sector = (uint32_t)vh_opt_num(o, "sector-size", 512),
				  .iter_ms = (uint32_t)(vh_opt_num(o, "iter-time", 0) / 1000000),
				  .cipher = vh_opt_str(o, "cipher-alg", NULL),
				  .mode = vh_opt_str(o, "cipher-mode", NULL),
				  .ivgen = vh_opt_str(o, "ivgen-alg", NULL),
				  .ivgen_hash = vh_opt_str(o, "ivgen-hash-alg", NULL),
				  .hash = vh_opt_str(o, "hash-alg", NULL)};
}

static int64_t total(const struct vh_create *c, const struct luks_spec *s, struct vh_err *e)
{
	int64_t head = luks_header_bytes(luks_host(), s, e);

	if (head < 0)
		return head;
	if (c->bytes % s->sector)
		return luks_host()->err(e, -EINVAL, "%" PRIu64 " bytes do not consist of sectors of %u bytes", c->bytes, s->sector);
	if (c->bytes > (uint64_t)(INT64_MAX - head))
		return luks_host()->err(e, -EFBIG, "%" PRIu64 " bytes are too many", c->bytes);
	return head + (int64_t)c->bytes;
}

int luks_image_measure(const struct vh_create *c, uint64_t used, uint64_t *required, uint64_t *full, struct vh_err *e)
{
	struct luks_spec s = spec_of(c->opts);
	int64_t all = total(c, &s, e);

	if (all < 0)
		return (int)all;
	*required = *full = (uint64_t)all; /* zeros are noise too: there is nothing that need not be stored */
	return 0;
}

int luks_image_create(struct vh_create *c, struct vh_job *j, struct vh_err *e)
{
	const struct vh_meta_ops *m = luks_meta(e);
	struct luks_spec s = spec_of(c->opts);
	const char *name = vh_opt_str(c->opts, "key-secret", NULL);
	struct luks_pass pass;
	struct luks_area area;
	uint64_t have;
	int64_t all;
	int r;

	if (!m)
		return -EOPNOTSUPP;
	if (c->backing)
		return luks_host()->err(e, -EINVAL, "a luks disk cannot have a backing file");
	if (c->n < 1)
		return luks_host()->err(e, -EINVAL, "no volume was handed over");
	if (!name)
		return luks_host()->err(e, -ENOKEY, "no passphrase is given (option key-secret)");
	all = total(c, &s, e);
	if (all < 0)
		return (int)all;
	have = m->bytes(c->volumes[0]);
	r = have == (uint64_t)all ? 0 : m->resize(c->volumes[0], (uint64_t)all);
	if (r < 0 && !(r == -EOPNOTSUPP && have > (uint64_t)all)) /* a volume of fixed size may be larger */
		return luks_host()->err(e, r, "cannot make the volume %" PRId64 " bytes large", all);
	r = luks_pass_get(luks_host(), name, &pass, e);
	if (r < 0)
		return r;
	luks_area_of(&area, c->volumes[0], m, 0);
	r = luks_create(luks_host(), &s, &area, pass.p, pass.n, e);
	luks_pass_wipe(&pass);
	return r;
}
