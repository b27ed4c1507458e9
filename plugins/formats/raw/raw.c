/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * raw: the disk is the volume, or a window of it. Every answer is one extent that stays true until the size changes,
 * nothing is ever allocated or committed, so the host asks once and then does all I/O on the volume itself.
 */
#include <limits.h>
#include <stdlib.h>
#include <vhost/format.h>
#include <vhost/pool.h>
#include <vhost/sugar.h>

static const struct vh_host *vh_host_ptr;

#define RAW_ALIGN 512u /* the host demands that addresses and positions agree modulo a sector */

struct raw {
	const struct vh_meta_ops *ops;
	struct vh_meta *volume;
	uint64_t offset; /* of the window */
	uint64_t bytes;  /* of the disk; changes only in resize(), under drain */
	uint64_t window; /* option `size`; 0: to the volume's end */
};

static const struct vh_meta_ops *raw_meta(struct vh_err *e)
{
	const struct vh_meta_ops *m = vh_service(vh_host_ptr, VH_SVC_META, offsetof(struct vh_meta_ops, discard));

	if (!m)
		vh_host_ptr->err(e, -EOPNOTSUPP, "this host has no " VH_SVC_META " service");
	return m;
}

static int raw_probe(const void *buf, uint64_t len, uint64_t bytes)
{
	return 1; /* anything is a raw disk; whoever probes prefers every other answer */
}

static int raw_open(const struct vh_open *o, void **img, struct vh_err *e)
{
	const struct vh_meta_ops *m = raw_meta(e);
	struct raw *r;
	uint64_t all;

	if (!m)
		return -EOPNOTSUPP;
	if (o->flags & VH_MUST_UNDERSTAND & ~(VH_OPEN_RO | VH_OPEN_REPAIR))
		return vh_host_ptr->err(e, -EOPNOTSUPP, "unknown open flags 0x%llx", (unsigned long long)o->flags);
	if (o->n < 1)
		return vh_host_ptr->err(e, -EINVAL, "no volume was handed over");
	r = calloc(1, sizeof(*r));
	if (!r)
		return vh_host_ptr->err(e, -ENOMEM, "no memory");
	r->ops = m;
	r->volume = o->volumes[0];
	r->offset = (uint64_t)vh_opt_num(o->opts, "offset", 0);
	r->window = (uint64_t)vh_opt_num(o->opts, "size", 0);
	all = m->bytes(r->volume);
	if (r->offset % RAW_ALIGN || r->window % RAW_ALIGN) {
		vh_host_ptr->err(e, -EINVAL, "offset and size must be multiples of %u bytes", RAW_ALIGN);
		goto error_inval;
	}
	if (r->offset > all || r->window > all - r->offset) {
		vh_host_ptr->err(e, -EINVAL, "the window of %llu bytes at %llu lies past the volume's end (%llu bytes)",
				 (unsigned long long)r->window, (unsigned long long)r->offset, (unsigned long long)all);
		goto error_inval;
	}
	r->bytes = r->window ? r->window : all - r->offset;
	*img = r;
	return 0;
error_inval:
	free(r);
	return -EINVAL;
}

static void raw_close(void *img)
{
	free(img);
}

static int raw_info(void *img, struct vh_image_info *i)
{
	struct raw *r = img;

	i->volumes = 1;
	i->caps = VH_FMT_DISCARD | VH_FMT_ZERO | VH_FMT_LOCK_SELF;
	i->bytes = r->bytes;
	i->unit = i->subunit = RAW_ALIGN;
	return 0;
}

static int raw_map(void *img, struct vh_map *m)
{
	struct raw *r = img;
	struct vh_extent *x = m->ext;

	m->n = 0;
	if (m->pos >= r->bytes || !m->cap)
		return -EINVAL;
	memset(x, 0, sizeof(*x));
	x->pos = m->pos;
	x->len = r->bytes - m->pos;
	x->addr = r->offset + m->pos;
	x->type = VH_EXT_DATA;
	switch (m->op) {
	case VH_MAP_READ:
		x->flags = VH_EXT_CACHE;
		break;
	case VH_MAP_REPORT:
		x->flags = VH_EXT_CACHE | VH_EXT_ALLOCATED;
		break;
	case VH_MAP_WRITE:
		x->flags = VH_EXT_PURE | VH_EXT_CACHE;
		break;
	case VH_MAP_ZERO:
	case VH_MAP_DISCARD:
		if (x->len > m->len)
			x->len = m->len;
		x->flags = VH_EXT_PURE;
		if (m->op == VH_MAP_DISCARD) {
			x->type = VH_EXT_TRIM;
			x->bytes = x->len;
		}
		break;
	default:
		return -EOPNOTSUPP;
	}
	m->n = 1;
	return 0;
}

static int raw_create(struct vh_create *c, struct vh_job *j, struct vh_err *e)
{
	const struct vh_meta_ops *m = raw_meta(e);
	int r;

	if (!m)
		return -EOPNOTSUPP;
	if (c->backing)
		return vh_host_ptr->err(e, -EINVAL, "a raw disk cannot have a backing file");
	if (c->n < 1)
		return vh_host_ptr->err(e, -EINVAL, "no volume was handed over");
	if (m->bytes(c->volumes[0]) == c->bytes)
		return 0;
	if (!VH_HAS(m, resize))
		return vh_host_ptr->err(e, -EOPNOTSUPP, "this host cannot change a volume's size");
	r = m->resize(c->volumes[0], c->bytes);
	if (r == -EOPNOTSUPP && m->bytes(c->volumes[0]) > c->bytes)
		return 0; /* a volume of fixed size, large enough: a whole logical volume, say */
	return r < 0 ? vh_host_ptr->err(e, r, "cannot make the volume %llu bytes large", (unsigned long long)c->bytes) : 0;
}

static int raw_resize(void *img, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	struct raw *r = img;
	int res;

	if (r->window)
		return vh_host_ptr->err(e, -EINVAL, "the disk is a window of fixed size (option `size`)");
	if (bytes > (uint64_t)INT64_MAX - r->offset)
		return vh_host_ptr->err(e, -EFBIG, "%llu bytes are too many", (unsigned long long)bytes);
	if (!VH_HAS(r->ops, resize))
		return vh_host_ptr->err(e, -EOPNOTSUPP, "this host cannot change a volume's size");
	res = r->ops->resize(r->volume, r->offset + bytes);
	if (res < 0)
		return vh_host_ptr->err(e, res, "cannot make the volume %llu bytes large",
					(unsigned long long)(r->offset + bytes));
	r->bytes = bytes;
	return 0;
}

static int raw_check(void *img, uint32_t repair, vh_check_fn *fn, void *ctx, struct vh_job *j, struct vh_err *e)
{
	struct raw *r = img;
	uint64_t all = r->ops->bytes(r->volume);

	if (r->offset + r->bytes > all)
		fn(ctx, VH_CHECK_CORRUPT, all, "the volume ends before the disk does");
	return 0;
}

static int raw_measure(const struct vh_create *c, uint64_t used, uint64_t *required, uint64_t *full, struct vh_err *e)
{
	if (used > c->bytes)
		used = c->bytes;
	*required = used;
	*full = c->bytes;
	return 0;
}

static const struct vh_opt raw_opt_offset = {
	sizeof(struct vh_opt), VH_OPT_SIZE, 0, "offset", "Byte of the volume where the disk begins, a multiple of 512", "0",
	NULL, 0, INT64_MAX};
static const struct vh_opt raw_opt_size = {
	sizeof(struct vh_opt), VH_OPT_SIZE, 0, "size", "Bytes of the disk, a multiple of 512; 0 for the rest of the volume",
	"0", NULL, 0, INT64_MAX};
static const struct vh_opt *const raw_open_options[] = {&raw_opt_offset, &raw_opt_size, NULL};

static const struct vh_format_ops raw_ops = {
	.size = sizeof(struct vh_format_ops),
	.caps = VH_FMT_DISCARD | VH_FMT_ZERO | VH_FMT_LOCK_SELF,
	.name = "raw",
	.open_options = raw_open_options,
	.probe = raw_probe,
	.open = raw_open,
	.close = raw_close,
	.info = raw_info,
	.map = raw_map,
	.create = raw_create,
	.resize = raw_resize,
	.check = raw_check,
	.measure = raw_measure,
};

VH_PLUGIN_DEFINE("raw", VH_KIND_FORMAT, VH_IID_FORMAT, &raw_ops, "1.0", "The disk is the volume itself, or a window of it",
		 "LGPL-2.1-or-later", 0);
