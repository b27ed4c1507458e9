/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * luks: an encrypted disk. The volume begins with a LUKS1 or LUKS2 header; the rest is the disk, sector by sector. The host
 * encrypts and decrypts: the plugin finds the key and says where the data is, which never changes while the image is open.
 */
#include <inttypes.h>
#include <stdlib.h>
#include "impl.h"

static const struct vh_host *vh_host_ptr;

const struct vh_host *luks_host(void)
{
	return vh_host_ptr;
}

const struct vh_meta_ops *luks_meta(struct vh_err *e)
{
	const struct vh_meta_ops *m = vh_service(vh_host_ptr, VH_SVC_META, offsetof(struct vh_meta_ops, discard));

	if (!m)
		vh_host_ptr->err(e, -EOPNOTSUPP, "this host has no " VH_SVC_META " service");
	return m;
}

static int area_read(void *ctx, void *buf, uint64_t len, uint64_t off)
{
	const struct vh_meta_ops *m = luks_meta(NULL);

	return m->read(ctx, buf, len, off);
}

static int area_write(void *ctx, const void *buf, uint64_t len, uint64_t off)
{
	const struct vh_meta_ops *m = luks_meta(NULL);

	return m->write(ctx, buf, len, off);
}

static int area_flush(void *ctx)
{
	const struct vh_meta_ops *m = luks_meta(NULL);

	return m->flush(ctx);
}

void luks_area_of(struct luks_area *a, struct vh_meta *volume, const struct vh_meta_ops *m, int read_only)
{
	*a = (struct luks_area){.ctx = volume, .read = area_read, .write = read_only ? NULL : area_write,
				.flush = read_only ? NULL : area_flush, .bytes = m->bytes(volume)};
}

static int probe(const void *buf, uint64_t len, uint64_t bytes)
{
	return luks_probe(buf, len);
}

static void image_close(void *img)
{
	struct image *i = img;

	luks_close(i->luks);
	free(i);
}

static int unlock(struct image *i, const struct vh_opts *o, int repair, struct vh_err *e)
{
	const char *name = vh_opt_str(o, "key-secret", NULL);
	struct luks_pass pass;
	int r;

	if (!name && repair) {
		i->locked = 1;
		return 0;
	}
	if (!name) {
		vh_host_ptr->remedy(e, "give key-secret=NAME, the name of a secret with the passphrase");
		return vh_host_ptr->err(e, -ENOKEY, "the image is encrypted and no passphrase is given");
	}
	r = luks_pass_get(vh_host_ptr, name, &pass, e);
	if (r < 0)
		return r;
	r = luks_unlock(i->luks, (int)vh_opt_num(o, "keyslot", -1), pass.p, pass.n, &i->cipher, e);
	luks_pass_wipe(&pass);
	return r < 0 ? r : 0;
}

static int size_up(struct image *i, struct vh_err *e)
{
	const struct luks_info *n = luks_get_info(i->luks);
	uint64_t all = i->ops->bytes(i->volume);

	if (n->payload < 4096) {
		vh_host_ptr->remedy(e, "put header and data into one file, as cryptsetup makes them without --header");
		return vh_host_ptr->err(e, -EOPNOTSUPP, "the LUKS header stands alone: its data is somewhere else");
	}
	if (n->payload > all || n->payload_bytes > all - n->payload || n->payload % n->sector)
		return vh_host_ptr->err(e, -EINVAL, "the volume of %" PRIu64 " bytes ends before its data, which begin at %" PRIu64, all,
					n->payload);
	i->bytes = (n->payload_bytes ? n->payload_bytes : all - n->payload) / n->sector * n->sector;
	return 0;
}

static int image_open(const struct vh_open *o, void **img, struct vh_err *e)
{
	const struct vh_meta_ops *m = luks_meta(e);
	struct image *i;
	int r;

	if (!m)
		return -EOPNOTSUPP;
	if (o->flags & VH_MUST_UNDERSTAND & ~(VH_OPEN_RO | VH_OPEN_REPAIR))
		return vh_host_ptr->err(e, -EOPNOTSUPP, "unknown open flags 0x%llx", (unsigned long long)o->flags);
	if (o->n < 1)
		return vh_host_ptr->err(e, -EINVAL, "no volume was handed over");
	if (!(o->host_caps & VH_FMT_CRYPT))
		return vh_host_ptr->err(e, -EOPNOTSUPP, "this host cannot encrypt");
	i = calloc(1, sizeof(*i));
	if (!i)
		return vh_host_ptr->err(e, -ENOMEM, "no memory");
	i->ops = m;
	i->volume = o->volumes[0];
	luks_area_of(&i->area, i->volume, m, o->flags & VH_OPEN_RO);
	r = luks_open(vh_host_ptr, &i->area, &i->luks, e);
	if (r >= 0)
		r = size_up(i, e);
	if (r >= 0)
		r = unlock(i, o->opts, o->flags & VH_OPEN_REPAIR, e);
	if (r < 0) {
		image_close(i);
		return r;
	}
	luks_release(i->luks);
	*img = i;
	return 0;
}

static int image_info(void *img, struct vh_image_info *n)
{
	struct image *i = img;

	n->volumes = 1;
	n->caps = VH_FMT_LOCK_SELF | (i->locked ? 0 : VH_FMT_CRYPT);
	n->bytes = i->bytes;
	n->unit = n->subunit = luks_get_info(i->luks)->sector;
	n->cipher = i->locked ? NULL : &i->cipher;
	return 0;
}

static int image_map(void *img, struct vh_map *m)
{
	struct image *i = img;
	struct vh_extent *x = m->ext;

	m->n = 0;
	if (i->locked)
		return -ENOKEY;
	if (m->pos >= i->bytes || !m->cap)
		return -EINVAL;
	memset(x, 0, sizeof(*x));
	x->pos = m->pos;
	x->len = i->bytes - m->pos;
	x->addr = luks_get_info(i->luks)->payload + m->pos;
	x->type = VH_EXT_DATA;
	x->flags = VH_EXT_CRYPT | VH_EXT_CACHE;
	if (m->op == VH_MAP_REPORT)
		x->flags |= VH_EXT_ALLOCATED;
	else if (m->op == VH_MAP_WRITE)
		x->flags |= VH_EXT_PURE;
	else if (m->op != VH_MAP_READ)
		return -EOPNOTSUPP; /* the host writes zeros, encrypted; a hole would read as noise */
	m->n = 1;
	return 0;
}

static int image_resize(void *img, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	struct image *i = img;
	const struct luks_info *n = luks_get_info(i->luks);
	int r;

	if (n->payload_bytes)
		return vh_host_ptr->err(e, -EOPNOTSUPP, "the LUKS2 header fixes the size of the data");
	if (bytes % n->sector)
		return vh_host_ptr->err(e, -EINVAL, "%" PRIu64 " bytes do not consist of sectors of %u bytes", bytes, n->sector);
	if (bytes > (uint64_t)INT64_MAX - n->payload)
		return vh_host_ptr->err(e, -EFBIG, "%" PRIu64 " bytes are too many", bytes);
	r = i->ops->resize(i->volume, n->payload + bytes);
	if (r < 0)
		return vh_host_ptr->err(e, r, "cannot make the volume %" PRIu64 " bytes large", n->payload + bytes);
	i->bytes = bytes;
	return 0;
}

static const struct vh_opt opt_key = {
	sizeof(struct vh_opt), VH_OPT_SECRET, 0, "key-secret", "Secret with the passphrase", NULL, NULL, 0, 0};
static const struct vh_opt opt_slot = {
	sizeof(struct vh_opt), VH_OPT_INT, 0, "keyslot", "Key slot to try; -1 for all", "-1", NULL, -1, 31};
static const struct vh_opt *const open_options[] = {&opt_key, &opt_slot, NULL};

static const struct vh_format_ops luks_ops = {
	.size = sizeof(struct vh_format_ops),
	.caps = VH_FMT_CRYPT | VH_FMT_LOCK_SELF,
	.name = "luks",
	.open_options = open_options,
	.create_options = luks_create_options,
	.probe = probe,
	.open = image_open,
	.close = image_close,
	.info = image_info,
	.map = image_map,
	.create = luks_image_create,
	.resize = image_resize,
	.check = luks_image_check,
	.measure = luks_image_measure,
	.describe = luks_image_describe,
	.amend_options = luks_amend_options,
	.amend = luks_image_amend,
};

VH_PLUGIN_DEFINE("luks", VH_KIND_FORMAT, VH_IID_FORMAT, &luks_ops, "1.0", "Encrypted disks: LUKS1 and LUKS2", "LGPL-2.1-or-later", 0);
