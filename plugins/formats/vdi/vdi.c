/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Opening, closing, what is told of an image, and the plugin's table. */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include "vdi.h"

#define STEP (1u << 18) /* entries read at once: 1 MiB */
#define BAD 100000u     /* damaged entries: more are nothing that could be mended, but rubbish */

const struct vh_host *vdi_host;
const struct vh_meta_ops *vdi_meta;
const struct vh_job_ops *vdi_job;

int vdi_begin(struct vh_err *e)
{
	if (!vdi_meta)
		vdi_meta = vh_service(vdi_host, VH_SVC_META, offsetof(struct vh_meta_ops, discard));
	return vdi_meta ? 0 : vdi_fail(e, -EOPNOTSUPP, "this host has no " VH_SVC_META " service");
}

static int vdi_probe(const void *buf, uint64_t len, uint64_t bytes)
{
	static const uint8_t magic[4] = {0x7f, 0x10, 0xda, 0xbe};

	return len >= 72 && !memcmp((const uint8_t *)buf + 64, magic, 4) ? 100 : 0;
}

static int vdi_inspect(struct vh_meta *volume0, struct vh_ref *refs, uint32_t cap, struct vh_err *e)
{
	struct vdi_header h;
	int r = vdi_begin(e);

	if (r >= 0)
		r = vdi_header_read(volume0, &h, e);
	if (r < 0)
		return r;
	if (!vdi_has_parent(&h))
		return 0;
	if (cap) { /* the file has the parent's UUID, but no name */
		refs[0].role = VH_REF_BACKING;
		refs[0].name[0] = 0;
		strcpy(refs[0].format, "vdi");
	}
	return 1;
}

/* For a repair damage is borne, within limits. */
static int bad_entry(struct vdi *v, struct vh_err *e)
{
	v->damaged = 1;
	if (++v->bad > BAD)
		return vdi_fail(e, -EIO, "more than %u entries are damaged: this is no block map", BAD);
	return v->repair ? 0 : -EIO;
}

static int take_entry(struct vdi *v, uint32_t b, uint32_t x, uint64_t bytes, struct vh_err *e)
{
	int r;

	if (x == VDI_FREE)
		return 0;
	v->map[b] = ~x;
	if (x == VDI_ZERO)
		return 0;
	if (x >= v->h.blocks + VDI_SPARE || vdi_slot_addr(&v->h, x) >= bytes) {
		r = bad_entry(v, e);
		return r < 0 ? vdi_fail(e, r, "the entry of block %u, 0x%x, leads past the end of the file", b, x) : 0;
	}
	if (v->slot[x] != SLOT_FREE) {
		r = bad_entry(v, e);
		return r < 0 ? vdi_fail(e, r, "blocks %u and %u have the same place in the file", v->owner[x], b) : 0;
	}
	v->slot[x] = SLOT_USED;
	v->owner[x] = b;
	if (x >= v->end)
		v->end = x + 1;
	return 0;
}

/* Reads the whole map: which slots are free follows from it. */
static int scan(struct vdi *v, struct vh_err *e)
{
	uint64_t bytes = vdi_meta->bytes(v->volume);
	uint32_t *buf = malloc(STEP * sizeof(*buf));
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t b = 0; b < v->h.blocks && r >= 0; b += STEP) {
		uint32_t n = v->h.blocks - b < STEP ? (uint32_t)(v->h.blocks - b) : STEP;

		r = vdi_meta->read(v->volume, buf, n * 4, v->h.map_off + b * 4);
		if (r < 0)
			vdi_fail(e, r, "cannot read the block map");
		for (uint32_t k = 0; k < n && r >= 0; k++)
			r = take_entry(v, (uint32_t)b + k, le32toh(buf[k]), bytes, e);
	}
	free(buf);
	v->count_wrong = v->h.allocated > v->end ? 1 : v->h.allocated < v->end ? -1 : 0;
	if (r == -EIO)
		vdi_hint(e, "repair the image");
	return r;
}

static void vdi_free(struct vdi *v)
{
	vdi_arrays_free(v);
	free(v->copy);
	pthread_mutex_destroy(&v->lock);
	pthread_mutex_destroy(&v->io);
	free(v);
}

static int parent_open(struct vdi *v, const struct vh_open *o, struct vh_err *e)
{
	int r;

	if (!vdi_has_parent(&v->h))
		return 0;
	if (!o->backing) { /* the host leaves it alone; what it would show, if it were asked for, is not zeros */
		v->parent_bytes = UINT64_MAX;
		v->backing_bytes = v->h.bytes;
		return 0;
	}
	r = v->repair ? 0 : vdi_parent_check(&v->h, o->backing, e);
	v->parent_bytes = o->backing_bytes;
	v->backing_bytes = v->parent_bytes < v->h.bytes ? v->parent_bytes : v->h.bytes;
	return r;
}

static int vdi_open(const struct vh_open *o, void **img, struct vh_err *e)
{
	struct vdi *v;
	int r;

	if (o->flags & VH_MUST_UNDERSTAND & ~(VH_OPEN_RO | VH_OPEN_REPAIR))
		return vdi_fail(e, -EOPNOTSUPP, "unknown open flags 0x%llx", ULL(o->flags));
	if (o->n < 1)
		return vdi_fail(e, -EINVAL, "no volume was handed over");
	r = vdi_begin(e);
	if (r < 0)
		return r;
	v = calloc(1, sizeof(*v));
	if (!v)
		return vdi_fail(e, -ENOMEM, "no memory");
	pthread_mutex_init(&v->lock, NULL);
	pthread_mutex_init(&v->io, NULL);
	v->volume = o->volumes[0];
	v->read_only = !!(o->flags & VH_OPEN_RO);
	v->repair = !!(o->flags & VH_OPEN_REPAIR);
	r = vdi_header_read(v->volume, &v->h, e);
	if (r < 0)
		goto error;
	v->stride = (uint64_t)v->h.block + v->h.extra;
	v->opaque = v->stride % VDI_SECTOR || (v->h.data_off + v->h.extra) % VDI_SECTOR;
	if (!v->read_only && (v->opaque || v->h.version >> 16 == 0)) {
		vdi_hint(e, "open it read-only, and convert it");
		r = vdi_fail(e, -EOPNOTSUPP, v->opaque ? "its blocks do not begin on sectors: it can only be read" :
							 "images of version 0.1 can only be read");
		goto error;
	}
	r = parent_open(v, o, e);
	if (r >= 0)
		r = vdi_arrays(v, v->h.blocks, v, e);
	if (r >= 0)
		r = scan(v, e);
	if (r < 0)
		goto error;
	*img = v;
	return 0;
error:
	vdi_free(v);
	return r;
}

/* All is flushed, but for what the flush itself made known: slots that are free now. */
static void vdi_close(void *img)
{
	struct vdi *v = img;
	uint64_t end;

	if ((v->stamped || v->touched) && !v->damaged && !v->ndirty && !v->ncopy) {
		vdi_slots_move(v, SLOT_UNLINKED, SLOT_FREE); /* the host's last flush came after their unlinks */
		end = v->h.data_off + v->end * v->stride;
		/* The tail of the last block may have been left out as zeros; other programs want it to be there. */
		if (!v->npending && vdi_meta->bytes(v->volume) < end)
			vdi_meta->resize(v->volume, end);
		if (!v->npending && v->h.allocated != v->end && vdi_meta->flush(v->volume) >= 0) {
			v->h.allocated = v->end;
			if (vdi_header_write(v->volume, &v->h) >= 0)
				vdi_meta->flush(v->volume);
		}
	}
	vdi_free(v);
}

static int vdi_info(void *img, struct vh_image_info *i)
{
	struct vdi *v = img;

	i->volumes = 1;
	i->caps = VH_FMT_DISCARD | VH_FMT_ZERO | VH_FMT_LOCK_SELF | (v->opaque ? VH_FMT_OPAQUE : 0) |
		  (vdi_has_parent(&v->h) ? VH_FMT_BACKING : 0);
	i->bytes = v->h.bytes;
	i->unit = i->subunit = v->h.block;
	i->backing_bytes = v->backing_bytes;
	pthread_mutex_lock(&v->lock);
	i->end = v->h.data_off + v->end * v->stride;
	pthread_mutex_unlock(&v->lock);
	return 0;
}

static int vdi_describe(void *img, vh_describe_fn *fn, void *ctx)
{
	static const char *const types[] = {"", "dynamic", "static", "undo", "differencing"};
	struct vdi *v = img;
	struct vdi_header h;
	uint32_t used = 0;
	char text[37];

	pthread_mutex_lock(&v->lock);
	h = v->h;
	for (uint32_t n = 0; n < v->end; n++)
		used += v->slot[n] == SLOT_USED;
	pthread_mutex_unlock(&v->lock);
	fn(ctx, "version", VH_DESC_TEXT, h.version >> 16 ? "1.1" : "0.1");
	fn(ctx, "type", VH_DESC_TEXT, types[h.type]);
	snprintf(text, sizeof(text), "%u", h.block);
	fn(ctx, "block-size", VH_DESC_NUMBER, text);
	if (h.extra) {
		snprintf(text, sizeof(text), "%u", h.extra);
		fn(ctx, "block-extra", VH_DESC_NUMBER, text);
	}
	snprintf(text, sizeof(text), "%u", h.blocks);
	fn(ctx, "blocks", VH_DESC_NUMBER, text);
	snprintf(text, sizeof(text), "%u", used);
	fn(ctx, "blocks-allocated", VH_DESC_NUMBER, text);
	vdi_uuid_text(h.uuid, text);
	fn(ctx, "uuid", VH_DESC_TEXT, text);
	vdi_uuid_text(h.modified, text);
	fn(ctx, "modification-uuid", VH_DESC_TEXT, text);
	if (!vdi_has_parent(&h))
		return 0;
	vdi_uuid_text(h.parent, text);
	fn(ctx, "parent-uuid", VH_DESC_TEXT, text);
	vdi_uuid_text(h.parent_modified, text);
	fn(ctx, "parent-modification-uuid", VH_DESC_TEXT, text);
	return 0;
}

static const struct vh_opt opt_backing = {
	.size = sizeof(struct vh_opt), .type = VH_OPT_STR, .name = "backing", .min = 1, .max = 1023,
	.doc = "The parent of a differencing image, beside it; the file has only its UUID"};
static const struct vh_opt *const open_options[] = {&opt_backing, NULL};

static const struct vh_format_ops ops = {
	.size = sizeof(ops),
	.caps = VH_FMT_DISCARD | VH_FMT_ZERO | VH_FMT_LOCK_SELF | VH_FMT_BACKING | VH_FMT_OPAQUE,
	.name = "vdi",
	.open_options = open_options,
	.create_options = vdi_create_options,
	.probe = vdi_probe,
	.inspect = vdi_inspect,
	.open = vdi_open,
	.close = vdi_close,
	.info = vdi_info,
	.map = vdi_map,
	.commit = vdi_commit,
	.flush = vdi_flush,
	.read = vdi_read,
	.create = vdi_create,
	.resize = vdi_resize,
	.check = vdi_check,
	.measure = vdi_measure,
	.describe = vdi_describe,
	.set_backing = vdi_set_backing,
	.empty = vdi_empty,
};

static const char *const iids[] = {VH_IID_FORMAT, NULL};

static const void *get(const char *iid)
{
	return strcmp(iid, VH_IID_FORMAT) ? NULL : &ops;
}

static const struct vh_plugin plugin = {
	.size = sizeof(plugin), .built_minor = VH_ABI_MINOR, .id = "vdi", .version = "1.0",
	.summary = "VirtualBox disk images: dynamic, static, differencing", .license = "LGPL-2.1-or-later", .interfaces = iids,
	.get = get};

VH_PLUGIN_NOTE("vdi", VH_KIND_FORMAT);

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
	vdi_host = host;
	vdi_job = vh_service(host, VH_SVC_JOB, sizeof(*vdi_job));
	vdi_meta = vh_service(host, VH_SVC_META, offsetof(struct vh_meta_ops, discard));
	*out = &plugin;
	return 0;
}
