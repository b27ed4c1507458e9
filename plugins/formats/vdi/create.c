/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* New images, and how large they get. */
#include <endian.h>
#include <stdlib.h>
#include "vdi.h"

#define MAP_OFF 4096u
#define DATA_ALIGN (1u << 20) /* as VirtualBox does; what lies between lets the map grow */
#define STEP (1u << 16)       /* entries written at once */

static const struct vh_opt opt_static = {
	.size = sizeof(struct vh_opt), .type = VH_OPT_BOOL, .name = "static", .defval = "off",
	.doc = "All blocks are there from the beginning, in order, and stay"};
static const struct vh_opt opt_block = {
	.size = sizeof(struct vh_opt), .type = VH_OPT_SIZE, .name = "block-size", .defval = "1M", .min = VDI_MIN_BLOCK,
	.max = VDI_MAX_BLOCK, .doc = "Bytes of a block, a power of two; QEMU knows 1M only"};
const struct vh_opt *const vdi_create_options[] = {&opt_static, &opt_block, NULL};

/* What an image of these options will look like. */
static int plan(const struct vh_create *c, struct vdi_header *h, struct vh_err *e)
{
	uint64_t block = (uint64_t)vh_opt_num(c->opts, "block-size", 1 << 20), blocks, data;

	memset(h, 0, sizeof(*h));
	if (block < VDI_MIN_BLOCK || block > VDI_MAX_BLOCK || (block & (block - 1)))
		return vdi_fail(e, -EINVAL, "blocks of %llu bytes; a power of two from %u to %u is possible", ULL(block), VDI_MIN_BLOCK,
				VDI_MAX_BLOCK);
	blocks = c->bytes / block + (c->bytes % block != 0);
	if (c->bytes % VDI_SECTOR)
		return vdi_fail(e, -EINVAL, "%llu bytes are no whole sectors of %u", ULL(c->bytes), VDI_SECTOR);
	if (blocks > VDI_MAX_BLOCKS) {
		vdi_hint(e, "choose a larger block-size");
		return vdi_fail(e, -EFBIG, "%llu blocks of %llu bytes; at most %u are possible", ULL(blocks), ULL(block), VDI_MAX_BLOCKS);
	}
	data = (MAP_OFF + blocks * 4 + DATA_ALIGN - 1) & ~(uint64_t)(DATA_ALIGN - 1);
	h->type = vh_opt_num(c->opts, "static", 0) || c->prealloc ? VDI_TYPE_STATIC : VDI_TYPE_DYNAMIC;
	h->map_off = MAP_OFF;
	h->data_off = (uint32_t)data;
	h->block = (uint32_t)block;
	h->blocks = (uint32_t)blocks;
	h->bytes = c->bytes;
	h->allocated = h->type == VDI_TYPE_STATIC ? h->blocks : 0;
	return 0;
}

static int parent(const struct vh_create *c, struct vdi_header *h, struct vh_err *e)
{
	struct vdi_header p;
	int r;

	if (h->type == VDI_TYPE_STATIC)
		return vdi_fail(e, -EINVAL, "an image with a parent cannot be static or preallocated");
	if (!c->backing_format || strcmp(c->backing_format, "vdi") || !c->backing_volume)
		return vdi_fail(e, -EINVAL, "the parent of a vdi image is a vdi image: it is known by its UUID alone");
	r = vdi_header_read(c->backing_volume, &p, e);
	if (r < 0)
		return vdi_fail(e, r, "the parent image cannot be read");
	if (vdi_uuid_null(p.uuid))
		return vdi_fail(e, -EINVAL, "the parent image has no UUID");
	h->type = VDI_TYPE_DIFF;
	memcpy(h->parent, p.uuid, 16);
	memcpy(h->parent_modified, p.modified, 16);
	return 0;
}

static int map_write(struct vh_meta *m, const struct vdi_header *h)
{
	uint32_t *buf = malloc(STEP * sizeof(*buf));
	int r = buf ? 0 : -ENOMEM;

	for (uint64_t b = 0; b < h->blocks && r >= 0; b += STEP) {
		uint32_t n = h->blocks - b < STEP ? (uint32_t)(h->blocks - b) : STEP;

		for (uint32_t k = 0; k < n; k++)
			buf[k] = htole32(h->type == VDI_TYPE_STATIC ? (uint32_t)b + k : VDI_FREE);
		r = vdi_meta->write(m, buf, n * 4, h->map_off + b * 4);
	}
	free(buf);
	return r;
}

int vdi_create(struct vh_create *c, struct vh_job *j, struct vh_err *e)
{
	uint64_t have, end;
	struct vdi_header h;
	struct vh_meta *m;
	int r;

	if (c->n < 1)
		return vdi_fail(e, -EINVAL, "no volume was handed over");
	m = c->volumes[0];
	r = vdi_begin(e);
	if (r >= 0)
		r = plan(c, &h, e);
	if (r >= 0 && c->backing)
		r = parent(c, &h, e);
	if (r >= 0)
		r = vdi_uuid_make(h.uuid, e);
	if (r >= 0)
		r = vdi_uuid_make(h.modified, e);
	if (r < 0)
		return r;
	end = h.data_off + (uint64_t)h.allocated * h.block;
	have = vdi_meta->bytes(m);
	r = have < end ? vdi_meta->resize(m, end) : 0;
	/* What was in a static image's place before must not show; and no old header may, over a map of now. */
	if (r >= 0)
		r = vdi_meta->zero(m, MAP_OFF, 0);
	if (r >= 0 && h.allocated && have > h.data_off)
		r = vdi_meta->zero(m, (have < end ? have : end) - h.data_off, h.data_off);
	if (r >= 0)
		r = vdi_meta->flush(m);
	if (r >= 0)
		r = map_write(m, &h);
	if (r >= 0)
		r = vdi_meta->flush(m);
	if (r < 0)
		return vdi_fail(e, r, "cannot write the block map");
	vdi_header_new(&h);
	r = vdi_header_write(m, &h);
	if (r >= 0)
		r = vdi_meta->flush(m);
	return r < 0 ? vdi_fail(e, r, "cannot write the header") : 0;
}

int vdi_measure(const struct vh_create *c, uint64_t used, uint64_t *required, uint64_t *full, struct vh_err *e)
{
	struct vdi_header h;
	uint64_t need;
	int r = plan(c, &h, e);

	if (r < 0)
		return r;
	need = used / h.block + (used % h.block != 0);
	if (need > h.blocks || h.type == VDI_TYPE_STATIC)
		need = h.blocks;
	*required = h.data_off + need * h.block;
	*full = h.data_off + (uint64_t)h.blocks * h.block;
	return 0;
}
