/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * skeleton: a disk format, to start from. As it stands an image is a header of 4 KiB (magic, version, size of the disk)
 * and the disk's bytes behind it. A format never moves data: map() says where a range lives, and the host reads and
 * writes it there. Metadata goes through vh.meta/1. What is yours to change is marked "YOURS".
 */
#include <endian.h>
#include <stdlib.h>
#include <vhost/format.h>
#include <vhost/sugar.h>

#define SKEL_MAGIC "SKELETON"
#define SKEL_HEADER 4096u
#define SKEL_VERSION 1u

/* On disk, little-endian. */
struct skel_header {
	char magic[8];
	uint32_t version, resv;
	uint64_t bytes;
};

struct skel_image {
	struct vh_meta *volume;
	uint64_t bytes;
	int read_only;
};

VH_PLUGIN_NOTE("skeleton", VH_KIND_FORMAT);
static const struct vh_host *host;

static const struct vh_meta_ops *skel_meta(void)
{
	return vh_service(host, VH_SVC_META, VH_UPTO(struct vh_meta_ops, resize));
}

/* The image may come from anywhere: every number in it is checked before it is used. */
static int skel_read_header(struct vh_meta *volume, uint64_t *bytes, struct vh_err *e)
{
	const struct vh_meta_ops *m = skel_meta();
	struct skel_header h;
	int r;

	if (!m)
		return host->err(e, -EOPNOTSUPP, "this vhost has no service %s", VH_SVC_META);
	r = m->read(volume, &h, sizeof(h), 0);
	if (r < 0)
		return host->err(e, r, "cannot read the header");
	if (memcmp(h.magic, SKEL_MAGIC, sizeof(h.magic)))
		return host->err(e, -EINVAL, "not a skeleton image: it does not begin with %s", SKEL_MAGIC);
	if (le32toh(h.version) != SKEL_VERSION)
		return host->err(e, -EOPNOTSUPP, "version %u of the format is unknown", le32toh(h.version));
	*bytes = le64toh(h.bytes);
	if (!*bytes || *bytes % 512 || *bytes > (uint64_t)INT64_MAX - SKEL_HEADER)
		return host->err(e, -EINVAL, "damaged: the header says that the disk has %llu bytes",
				 (unsigned long long)*bytes);
	return 0;
}

static int skel_write_header(struct vh_meta *volume, uint64_t bytes, struct vh_err *e)
{
	const struct vh_meta_ops *m = skel_meta();
	struct skel_header h = {.magic = SKEL_MAGIC, .version = htole32(SKEL_VERSION), .bytes = htole64(bytes)};
	int r;

	if (!m)
		return host->err(e, -EOPNOTSUPP, "this vhost has no service %s", VH_SVC_META);
	if (!bytes || bytes % 512 || bytes > (uint64_t)INT64_MAX - SKEL_HEADER)
		return host->err(e, -EINVAL, "a disk's size is a multiple of 512 bytes, and not 0");
	/* A volume of fixed size that is large enough (a block device) is fine as it is. */
	r = m->resize(volume, SKEL_HEADER + bytes);
	if (r < 0 && m->bytes(volume) < SKEL_HEADER + bytes)
		return host->err(e, r, "the volume cannot be made large enough");
	r = m->write(volume, &h, sizeof(h), 0);
	if (r >= 0)
		r = m->flush(volume);
	return r < 0 ? host->err(e, r, "cannot write the header") : 0;
}

/* Pure: looks at the first bytes of a file, touches nothing. */
static int skel_probe(const void *buf, uint64_t len, uint64_t bytes)
{
	return len >= 8 && !memcmp(buf, SKEL_MAGIC, 8) ? 100 : 0;
}

static int skel_open(const struct vh_open *o, void **img, struct vh_err *e)
{
	struct skel_image *i;
	int r;

	if (o->flags & VH_MUST_UNDERSTAND & ~(VH_OPEN_RO | VH_OPEN_REPAIR))
		return host->err(e, -EOPNOTSUPP, "unknown open flags 0x%llx", (unsigned long long)o->flags);
	if (o->n != 1)
		return host->err(e, -EINVAL, "an image is one volume");
	i = calloc(1, sizeof(*i));
	if (!i)
		return host->err(e, -ENOMEM, "no memory");
	i->volume = o->volumes[0];
	i->read_only = !!(o->flags & VH_OPEN_RO);
	r = skel_read_header(i->volume, &i->bytes, e);
	if (r < 0) {
		free(i);
		return r;
	}
	*img = i;
	return 0;
}

static void skel_close(void *img)
{
	free(img);
}

static int skel_info(void *img, struct vh_image_info *i)
{
	struct skel_image *s = img;
	struct vh_image_info full = {.size = i->size, .volumes = 1, .caps = VH_FMT_DISCARD | VH_FMT_ZERO | VH_FMT_LOCK_SELF,
		.bytes = s->bytes, .unit = 512, .subunit = 512};

	memcpy(i, &full, i->size < sizeof(full) ? i->size : sizeof(full));
	return 0;
}

/*
 * YOURS: where does [pos, pos+len) live? Here everything is in one piece, so one extent reaches to the end of the disk,
 * every write is an overwrite in place (PURE), and nothing ever needs a commit.
 */
static int skel_map(void *img, struct vh_map *m)
{
	struct skel_image *i = img;
	struct vh_extent *x = m->ext;

	m->n = 0;
	if (!m->cap || m->pos >= i->bytes)
		return -EINVAL;
	memset(x, 0, sizeof(*x));
	x->pos = m->pos;
	x->len = i->bytes - m->pos;
	x->addr = SKEL_HEADER + m->pos;
	x->type = VH_EXT_DATA;
	switch (m->op) {
	case VH_MAP_READ:
		x->flags = VH_EXT_CACHE;
		break;
	case VH_MAP_REPORT:
		x->flags = VH_EXT_ALLOCATED;
		break;
	case VH_MAP_WRITE:
		x->flags = VH_EXT_PURE | VH_EXT_CACHE;
		break;
	case VH_MAP_ZERO: /* the host writes zeros there */
	case VH_MAP_DISCARD:
		if (x->len > m->len)
			x->len = m->len;
		x->flags = VH_EXT_PURE;
		if (m->op == VH_MAP_DISCARD) {
			x->type = VH_EXT_TRIM; /* the host punches [addr, addr+bytes) */
			x->bytes = x->len;
		}
		break;
	default:
		return -EOPNOTSUPP;
	}
	m->n = 1;
	return 0;
}

static int skel_create(struct vh_create *c, struct vh_job *j, struct vh_err *e)
{
	if (c->backing)
		return host->err(e, -EOPNOTSUPP, "this format has no backing files");
	if (c->n != 1)
		return host->err(e, -EINVAL, "an image is one volume");
	return skel_write_header(c->volumes[0], c->bytes, e);
}

static int skel_resize(void *img, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	struct skel_image *i = img;
	int r;

	if (i->read_only)
		return host->err(e, -EROFS, "the image is open read-only");
	r = skel_write_header(i->volume, bytes, e);
	if (!r)
		i->bytes = bytes;
	return r;
}

static int skel_check(void *img, uint32_t repair, vh_check_fn *fn, void *ctx, struct vh_job *j, struct vh_err *e)
{
	struct skel_image *i = img;
	const struct vh_meta_ops *m = skel_meta();

	if (m && m->bytes(i->volume) < SKEL_HEADER + i->bytes)
		fn(ctx, VH_CHECK_CORRUPT, m->bytes(i->volume), "the volume ends before the disk does");
	return 0;
}

static int skel_measure(const struct vh_create *c, uint64_t used, uint64_t *required, uint64_t *full, struct vh_err *e)
{
	*required = SKEL_HEADER + (used < c->bytes ? used : c->bytes);
	*full = SKEL_HEADER + c->bytes;
	return 0;
}

/* ---- tables, entry ---- */

static const struct vh_format_ops skel_ops = {
	.size = sizeof(struct vh_format_ops),
	.caps = VH_FMT_DISCARD | VH_FMT_ZERO | VH_FMT_LOCK_SELF,
	.name = "skeleton",
	.probe = skel_probe,
	.open = skel_open,
	.close = skel_close,
	.info = skel_info,
	.map = skel_map,
	.create = skel_create,
	.resize = skel_resize,
	.check = skel_check,
	.measure = skel_measure,
};

static const void *skel_get(const char *iid)
{
	return strcmp(iid, VH_IID_FORMAT) ? NULL : &skel_ops;
}

static const char *const skel_interfaces[] = {VH_IID_FORMAT, NULL};
static const struct vh_plugin skel_plugin = {
	.size = sizeof(struct vh_plugin),
	.built_minor = VH_ABI_MINOR,
	.id = "skeleton",
	.version = "0.1",
	.summary = "A header and the disk behind it",
	.license = "BSD-2-Clause",
	.interfaces = skel_interfaces,
	.get = skel_get,
};

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *h, const struct vh_plugin **out)
{
	host = h;
	*out = &skel_plugin;
	return 0;
}
