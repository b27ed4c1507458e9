/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Key slots, check, and what the image tells of itself. Each reads the header anew. */
#include <inttypes.h>
#include <stdio.h>
#include "impl.h"

static const struct vh_opt opt_new = {sizeof(struct vh_opt), VH_OPT_SECRET, 0, "new-secret",
				      "Secret with a passphrase to add", NULL, NULL, 0, 0};
static const struct vh_opt opt_old = {sizeof(struct vh_opt), VH_OPT_SECRET, 0, "old-secret",
				      "Secret with a passphrase to remove, after the new one is there", NULL, NULL, 0, 0};
static const struct vh_opt opt_slot = {sizeof(struct vh_opt), VH_OPT_INT, 0, "keyslot",
				       "Key slot for the new passphrase; alone: to remove", NULL, NULL, 0, 31};
static const struct vh_opt opt_iter = {sizeof(struct vh_opt), VH_OPT_DURATION, 0, "iter-time",
				       "How long deriving the key from the new passphrase shall take", "2s", NULL, 1000000,
				       INT64_C(60000000000)};
const struct vh_opt *const luks_amend_options[] = {&opt_new, &opt_old, &opt_slot, &opt_iter, NULL};

static int add(struct image *i, struct luks *l, const char *name, const struct vh_opts *o, struct vh_err *e)
{
	struct luks_pass pass;
	int r = luks_take_key(l, i->luks, e);

	if (r >= 0)
		r = luks_pass_get(luks_host(), name, &pass, e);
	if (r < 0)
		return r;
	r = luks_slot_add(l, (int)vh_opt_num(o, "keyslot", -1), (uint32_t)(vh_opt_num(o, "iter-time", 0) / 1000000), NULL, 0, pass.p,
			  pass.n, e);
	luks_pass_wipe(&pass);
	return r;
}

/* What `name` opens, but for slot `keep` (-1: none). */
static int drop(struct luks *l, const char *name, int keep, struct vh_err *e)
{
	struct luks_pass pass;
	int r = luks_pass_get(luks_host(), name, &pass, e);

	if (r < 0)
		return r;
	r = luks_slot_remove_but(l, keep, pass.p, pass.n, e);
	luks_pass_wipe(&pass);
	return r;
}

int luks_image_amend(void *img, const struct vh_opts *o, struct vh_job *j, struct vh_err *e)
{
	struct image *i = img;
	const char *new = vh_opt_str(o, "new-secret", NULL), *old = vh_opt_str(o, "old-secret", NULL);
	int slot = (int)vh_opt_num(o, "keyslot", -1), r;
	struct luks *l;

	if (!new && !old && slot < 0)
		return luks_host()->err(e, -EINVAL, "nothing to change: give new-secret, old-secret or keyslot");
	if (!new && old && slot >= 0)
		return luks_host()->err(e, -EINVAL, "remove by old-secret or by keyslot, not by both");
	if (i->locked)
		return luks_host()->err(e, -ENOKEY, "the image is locked");
	r = luks_open(luks_host(), &i->area, &l, e);
	if (r < 0)
		return r;
	r = new ? add(i, l, new, o, e) : -1;
	if (old && (!new || r >= 0))
		r = drop(l, old, r, e);
	else if (!new)
		r = luks_slot_remove(l, slot, 0, e);
	luks_close(l);
	return r < 0 ? r : 0;
}

int luks_image_check(void *img, uint32_t repair, vh_check_fn *fn, void *ctx, struct vh_job *j, struct vh_err *e)
{
	struct image *i = img;
	const struct luks_info *n = luks_get_info(i->luks);
	uint64_t all = i->ops->bytes(i->volume);
	struct luks *l;
	int r;

	if (n->payload + i->bytes > all)
		fn(ctx, VH_CHECK_CORRUPT, all, "the volume ends before the disk does");
	r = luks_open(luks_host(), &i->area, &l, e);
	if (r < 0) {
		fn(ctx, VH_CHECK_CORRUPT, 0, "the LUKS header cannot be read any more");
		return r;
	}
	if (!luks_get_info(l)->used)
		fn(ctx, VH_CHECK_CORRUPT, 0, "no key slot is in use: once closed, the disk can never be read again");
	r = luks_check(l, repair != 0, fn, ctx, e);
	luks_close(l);
	return r;
}

int luks_image_describe(void *img, vh_describe_fn *fn, void *ctx)
{
	struct image *i = img;
	const struct luks_info *n = luks_get_info(i->luks);
	char b[64];

	fn(ctx, "version", VH_DESC_TEXT, n->version == 2 ? "luks2" : "luks1");
	fn(ctx, "uuid", VH_DESC_TEXT, n->uuid);
	snprintf(b, sizeof(b), "%s-%u", n->cipher, n->key_bytes * 8 / (strcmp(n->mode, "xts") ? 1 : 2));
	fn(ctx, "cipher-alg", VH_DESC_TEXT, b);
	fn(ctx, "cipher-mode", VH_DESC_TEXT, n->mode);
	fn(ctx, "ivgen-alg", VH_DESC_TEXT, n->ivgen);
	if (n->hash[0])
		fn(ctx, n->version == 2 ? "key-derivation" : "hash-alg", VH_DESC_TEXT, n->hash);
	snprintf(b, sizeof(b), "%u", n->sector);
	fn(ctx, "sector-size", VH_DESC_NUMBER, b);
	snprintf(b, sizeof(b), "%" PRIu64, n->payload);
	fn(ctx, "payload-offset", VH_DESC_NUMBER, b);
	snprintf(b, sizeof(b), "%d of %u", __builtin_popcount(n->used), n->slots);
	fn(ctx, "keyslots", VH_DESC_TEXT, b);
	for (uint32_t k = 0; k < n->slots && k < 32; k++) {
		if (!(n->used >> k & 1))
			continue;
		snprintf(b, sizeof(b), "keyslot-%u", k);
		fn(ctx, b, VH_DESC_BOOL, "true");
	}
	return 0;
}
