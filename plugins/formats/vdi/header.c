/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The header: little-endian, VirtualBox's versions 1.1 and, to read, 0.1. Any bytes may be in the file. */
#include <stdio.h>
#include <sys/random.h>
#include "vdi.h"

#define SIGNATURE UINT32_C(0xbeda107f)
#define V11 UINT32_C(0x00010001)
#define V01 UINT32_C(0x00000001)
#define TEXT "<<< Oracle VM VirtualBox Disk Image >>>\n"
#define PRE 72u          /* text, signature, version */
#define HEADER_OLD 384u  /* 1.1 without the logical geometry */
#define HEADER_NEW 400u
#define V01_END 420u     /* the map follows at once */

static uint32_t get32(const uint8_t *p)
{
	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static uint64_t get64(const uint8_t *p)
{
	return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static void put32(uint8_t *p, uint32_t x)
{
	for (int k = 0; k < 4; k++)
		p[k] = (uint8_t)(x >> 8 * k);
}

int vdi_uuid_null(const uint8_t u[16])
{
	static const uint8_t null[16];

	return !memcmp(u, null, 16);
}

/* As VirtualBox and QEMU show it: the first three fields are little-endian in the file. */
void vdi_uuid_text(const uint8_t u[16], char out[37])
{
	snprintf(out, 37, "%08x-%04x-%04x-%02x%02x-%02x%02x%02x%02x%02x%02x", get32(u), u[4] | u[5] << 8, u[6] | u[7] << 8, u[8],
		 u[9], u[10], u[11], u[12], u[13], u[14], u[15]);
}

int vdi_uuid_make(uint8_t u[16], struct vh_err *e)
{
	if (getrandom(u, 16, 0) != 16)
		return vdi_fail(e, -EIO, "the kernel gives no random bytes for a UUID");
	u[7] = (uint8_t)((u[7] & 0x0f) | 0x40);
	u[8] = (uint8_t)((u[8] & 0x3f) | 0x80);
	return 0;
}

static int parse_v11(struct vdi_header *h, struct vh_err *e)
{
	const uint8_t *p = h->raw;
	uint32_t len = get32(p + 72), sector = get32(p + 360);

	if (len < HEADER_OLD || len > VDI_SECTOR * 8)
		return vdi_fail(e, -EINVAL, "the header says that it is %u bytes long; %u or more are needed", len, HEADER_OLD);
	if (sector && sector != VDI_SECTOR)
		return vdi_fail(e, -EOPNOTSUPP, "sectors of %u bytes; only %u is possible", sector, VDI_SECTOR);
	h->raw_len = PRE + len < VDI_SECTOR ? PRE + len : VDI_SECTOR;
	h->type = get32(p + 76);
	h->flags = get32(p + 80);
	h->map_off = get32(p + 340);
	h->data_off = get32(p + 344);
	h->bytes = get64(p + 368);
	h->block = get32(p + 376);
	h->extra = get32(p + 380);
	h->blocks = get32(p + 384);
	h->allocated = get32(p + 388);
	memcpy(h->uuid, p + 392, 16);
	memcpy(h->modified, p + 408, 16);
	memcpy(h->parent, p + 424, 16);
	memcpy(h->parent_modified, p + 440, 16);
	if (h->map_off < PRE + len || h->map_off % 4)
		return vdi_fail(e, -EINVAL, "the block map is said to be at byte %u, which is within the header or no multiple of 4",
				h->map_off);
	return 0;
}

static void parse_v01(struct vdi_header *h)
{
	const uint8_t *p = h->raw;

	h->raw_len = V01_END;
	h->type = get32(p + 72);
	h->flags = get32(p + 76);
	h->bytes = get64(p + 352);
	h->block = get32(p + 360);
	h->blocks = get32(p + 364);
	h->allocated = get32(p + 368);
	memcpy(h->uuid, p + 372, 16);
	memcpy(h->modified, p + 388, 16);
	memcpy(h->parent, p + 404, 16);
	h->map_off = V01_END;
}

/* What both versions must obey. */
static int sane(struct vdi_header *h, struct vh_err *e)
{
	uint64_t map_end;

	if (h->block < VDI_MIN_BLOCK || h->block > VDI_MAX_BLOCK || (h->block & (h->block - 1)))
		return vdi_fail(e, -EOPNOTSUPP, "blocks of %u bytes; a power of two from %u to %u is possible", h->block, VDI_MIN_BLOCK,
				VDI_MAX_BLOCK);
	if (h->extra > VDI_MAX_BLOCK)
		return vdi_fail(e, -EINVAL, "%u bytes of extra data before each block are too many", h->extra);
	if (h->blocks > VDI_MAX_BLOCKS)
		return vdi_fail(e, -EFBIG, "the block map has %u entries; at most %u are possible", h->blocks, VDI_MAX_BLOCKS);
	if (h->bytes > (uint64_t)h->blocks * h->block)
		return vdi_fail(e, -EINVAL, "the disk of %llu bytes is larger than its %u blocks of %u bytes", ULL(h->bytes), h->blocks,
				h->block);
	map_end = h->map_off + (uint64_t)h->blocks * 4;
	if (h->version == V01) {
		if (map_end > UINT32_MAX)
			return vdi_fail(e, -EINVAL, "the block map of %u entries is too large for version 0.1", h->blocks);
		h->data_off = (uint32_t)map_end;
	}
	if (h->data_off < map_end)
		return vdi_fail(e, -EINVAL, "the data is said to begin at byte %u, within the block map, which ends at %llu",
				h->data_off, ULL(map_end));
	if (h->allocated > h->blocks + VDI_SPARE)
		return vdi_fail(e, -EINVAL, "%u of %u blocks are said to be allocated", h->allocated, h->blocks);
	if (h->type < VDI_TYPE_DYNAMIC || h->type > VDI_TYPE_DIFF)
		return vdi_fail(e, -EOPNOTSUPP, "images of type %u are unknown", h->type);
	if (h->type >= VDI_TYPE_UNDO && !vdi_has_parent(h))
		return vdi_fail(e, -EINVAL, "a differencing image without its parent's UUID");
	if (h->type == VDI_TYPE_STATIC && vdi_has_parent(h))
		return vdi_fail(e, -EINVAL, "a static image with a parent's UUID");
	return 0;
}

int vdi_header_parse(const uint8_t *buf, uint64_t len, struct vdi_header *h, struct vh_err *e)
{
	int r = 0;

	memset(h, 0, sizeof(*h));
	if (len < VDI_SECTOR || get32(buf + 64) != SIGNATURE)
		return vdi_fail(e, -EINVAL, "not a VDI image");
	memcpy(h->raw, buf, VDI_SECTOR);
	h->version = get32(buf + 68);
	if (h->version == V11)
		r = parse_v11(h, e);
	else if (h->version == V01)
		parse_v01(h);
	else
		return vdi_fail(e, -EOPNOTSUPP, "version %u.%u is unknown; 1.1 and 0.1 are", h->version >> 16, h->version & 0xffff);
	return r < 0 ? r : sane(h, e);
}

int vdi_header_read(struct vh_meta *m, struct vdi_header *h, struct vh_err *e)
{
	uint64_t bytes = vdi_meta->bytes(m);
	uint8_t buf[VDI_SECTOR];
	int r = bytes < PRE ? 0 : vdi_meta->read(m, buf, sizeof(buf), 0);

	if (bytes < PRE)
		return vdi_fail(e, -EINVAL, "not a VDI image: %llu bytes are no header", ULL(bytes));
	if (r < 0)
		return vdi_fail(e, r, "cannot read the header");
	r = vdi_header_parse(buf, sizeof(buf), h, e);
	if (r < 0)
		return r;
	if (h->map_off + (uint64_t)h->blocks * 4 > bytes)
		return vdi_fail(e, -EINVAL, "the block map of %u entries reaches past the end of the file (%llu bytes)", h->blocks,
				ULL(bytes));
	return 0;
}

void vdi_header_encode(struct vdi_header *h)
{
	uint8_t *p = h->raw;

	put32(p + 76, h->type);
	put32(p + 340, h->map_off);
	put32(p + 344, h->data_off);
	put32(p + 368, (uint32_t)h->bytes);
	put32(p + 372, (uint32_t)(h->bytes >> 32));
	put32(p + 384, h->blocks);
	put32(p + 388, h->allocated);
	memcpy(p + 392, h->uuid, 16);
	memcpy(p + 408, h->modified, 16);
	memcpy(p + 424, h->parent, 16);
	memcpy(p + 440, h->parent_modified, 16);
}

void vdi_header_new(struct vdi_header *h)
{
	uint8_t *p = h->raw;

	memset(p, 0, VDI_SECTOR);
	memcpy(p, TEXT, sizeof(TEXT) - 1);
	h->version = V11;
	h->raw_len = PRE + HEADER_NEW;
	put32(p + 64, SIGNATURE);
	put32(p + 68, V11);
	put32(p + 72, HEADER_NEW);
	put32(p + 360, VDI_SECTOR); /* the geometries are left to whoever needs one, but for their sectors */
	put32(p + 468, VDI_SECTOR);
	put32(p + 376, h->block);
	put32(p + 380, h->extra);
	vdi_header_encode(h);
}

int vdi_header_write(struct vh_meta *m, struct vdi_header *h)
{
	vdi_header_encode(h);
	return vdi_meta->write(m, h->raw, h->raw_len, 0);
}

int vdi_parent_check(const struct vdi_header *child, struct vh_meta *parent, struct vh_err *e)
{
	char want[37], have[37];
	struct vdi_header h;
	int r = vdi_header_read(parent, &h, e);

	if (r < 0)
		return vdi_fail(e, r, "the parent image cannot be told by its UUID");
	if (memcmp(h.uuid, child->parent, 16)) {
		vdi_uuid_text(child->parent, want);
		vdi_uuid_text(h.uuid, have);
		vdi_hint(e, "give the image with UUID %s as backing=", want);
		return vdi_fail(e, -EINVAL, "the backing image given has UUID %s, the parent's is %s", have, want);
	}
	if (!vdi_uuid_null(child->parent_modified) && memcmp(h.modified, child->parent_modified, 16)) {
		vdi_uuid_text(child->parent_modified, want);
		vdi_uuid_text(h.modified, have);
		vdi_hint(e, "if its change did no harm, set the backing image anew");
		return vdi_fail(e, -EINVAL, "the parent image was changed after this image was made: its modification UUID is %s, and "
				"was %s", have, want);
	}
	return 0;
}
