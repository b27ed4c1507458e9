/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* New images, in the five subformats that other programs know; the header of each file comes last, behind a flush. */
#include <stdio.h>
#include <strings.h>
#include <sys/random.h>
#include "vmdk.h"

#define GRAIN 128u      /* sectors: 64 KiB, as everybody makes them */
#define GTES 512u
#define GT_SECTORS 4u
#define DESC_AT 1u
#define DESC_SECTORS 20u /* other programs add lines: without room they overwrite what follows */

struct plan { /* what is to be made */
	enum subformat sub;
	uint64_t sectors;
	int zeroed, mapped;
	uint32_t files; /* besides the first */
	char base[1024];
};

struct meta { /* where the parts of a sparse extent are, in sectors */
	uint64_t gd_sectors, gts, rgd_at, gd_at, grains_at;
};

static int split(const struct plan *p)
{
	return p->sub == SUB_SPLIT_SPARSE || p->sub == SUB_SPLIT_FLAT;
}

static int plan_make(const struct vh_create *c, struct plan *p, struct vh_err *e)
{
	const char *name = VH_HAS(c, name) ? c->name : "disk.vmdk";
	size_t n = strlen(name);

	memset(p, 0, sizeof(*p));
	p->sub = (enum subformat)vh_opt_num(c->opts, "subformat", SUB_SPARSE);
	p->sectors = DIV_UP(c->bytes, SECTOR);
	p->zeroed = vh_opt_num(c->opts, "zeroed-grain", 0) != 0;
	p->mapped = c->prealloc != VH_PREALLOC_OFF;
	if (!p->sectors || p->sectors > MAX_SECTORS)
		return fail(e, p->sectors ? -EFBIG : -EINVAL, "a disk of %llu bytes is not possible", ULL(c->bytes));
	if (!desc_name_ok(name) || n > 900)
		return fail(e, -EINVAL, "the image's name cannot stand in a descriptor");
	if (n > 5 && !strcasecmp(name + n - 5, ".vmdk"))
		n -= 5;
	memcpy(p->base, name, n);
	if (p->sub == SUB_FLAT)
		p->files = 1;
	if (split(p) && DIV_UP(p->sectors, SPLIT_SECTORS) > MAX_EXTENTS)
		return fail(e, -EFBIG, "%llu bytes need more than %u files", ULL(c->bytes), MAX_EXTENTS);
	if (split(p))
		p->files = (uint32_t)DIV_UP(p->sectors, SPLIT_SECTORS);
	if (p->zeroed && (p->sub == SUB_FLAT || p->sub == SUB_SPLIT_FLAT || p->sub == SUB_STREAM))
		return fail(e, -EINVAL, "zeroed-grain is for monolithicSparse and twoGbMaxExtentSparse");
	if (p->mapped && p->sub == SUB_STREAM)
		return fail(e, -EINVAL, "a streamOptimized image cannot be preallocated");
	if (!split(p) && p->sub != SUB_FLAT && DIV_UP(p->sectors, GRAIN * GTES) > MAX_GDES)
		return fail(e, -EFBIG, "%llu bytes are more than one sparse file can map", ULL(c->bytes));
	return 0;
}

static uint64_t file_sectors(const struct plan *p, uint32_t k)
{
	return split(p) ? MIN(SPLIT_SECTORS, p->sectors - (uint64_t)k * SPLIT_SECTORS) : p->sectors;
}

static void file_name(const struct plan *p, uint32_t k, char *buf, size_t cap)
{
	if (p->sub == SUB_FLAT)
		snprintf(buf, cap, "%s-flat.vmdk", p->base);
	else if (split(p))
		snprintf(buf, cap, "%s-%c%03u.vmdk", p->base, p->sub == SUB_SPLIT_FLAT ? 'f' : 's', k + 1);
	else
		snprintf(buf, cap, "%s.vmdk", p->base);
}

static struct meta meta_of(uint64_t sectors)
{
	struct meta m = {.gts = DIV_UP(sectors, (uint64_t)GRAIN * GTES)};

	m.gd_sectors = DIV_UP(m.gts * 4, SECTOR);
	m.rgd_at = DESC_AT + DESC_SECTORS;
	m.gd_at = m.rgd_at + m.gd_sectors + m.gts * GT_SECTORS;
	m.grains_at = ROUND_UP(m.gd_at + m.gd_sectors + m.gts * GT_SECTORS, GRAIN);
	return m;
}

int vmdk_create_refs(const struct vh_create *c, struct vh_create_ref *refs, uint32_t cap, struct vh_err *e)
{
	struct plan p;
	int r = plan_make(c, &p, e);

	if (r < 0)
		return r;
	for (uint32_t k = 0; k < p.files && k < cap; k++) {
		char name[1100];

		file_name(&p, k, name, sizeof(name));
		if (strlen(name) >= sizeof(refs[k].name))
			return fail(e, -ENAMETOOLONG, "the names of further files become too long");
		strcpy(refs[k].name, name);
		refs[k].bytes = (p.sub == SUB_SPLIT_SPARSE ? meta_of(file_sectors(&p, k)).grains_at : file_sectors(&p, k)) * SECTOR;
	}
	return (int)p.files;
}

/* ---- the descriptor ---- */

struct text {
	char *p;
	size_t n, cap;
};

static int add(struct text *t, const char *fmt, ...) VH_PRINTF(2, 3);
static int add(struct text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->p + t->n, t->cap - t->n, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= t->cap - t->n)
		return -ENOSPC;
	t->n += (size_t)n;
	return 0;
}

static int describe(const struct vh_create *c, const struct plan *p, uint32_t parent, struct text *t, struct vh_err *e)
{
	static const char *const kinds[] = {"SPARSE", "FLAT", "SPARSE", "FLAT", "SPARSE"};
	const char *adapter = vh_opt_str(c->opts, "adapter-type", "ide");
	int64_t hw = vh_opt_num(c->opts, "hwversion", -1), compat6 = vh_opt_num(c->opts, "compat6", 0);
	uint32_t cid, heads, spt;
	uint64_t cylinders;
	char name[1100];
	int r;

	if (compat6 && hw >= 0)
		return fail(e, -EINVAL, "compat6 says which hwversion it is");
	if (hw < 0)
		hw = compat6 ? 6 : p->sub == SUB_STREAM ? 13 : 4; /* streams are for imports into ESXi */
	do {
		if (getrandom(&cid, sizeof(cid), 0) != sizeof(cid))
			return fail(e, -EIO, "there are no random numbers");
	} while (cid >= CID_NONE - 1);
	desc_geometry(p->sectors, !strcmp(adapter, "ide"), &cylinders, &heads, &spt);
	r = add(t, "# Disk DescriptorFile\nversion=1\nCID=%08x\nparentCID=%08x\ncreateType=\"%s\"\n", cid, parent,
		vmdk_subformats[p->sub]);
	if (r >= 0 && c->backing)
		r = add(t, "parentFileNameHint=\"%s\"\n", c->backing);
	if (r >= 0)
		r = add(t, "\n# Extent description\n");
	for (uint32_t k = 0; k < (split(p) ? p->files : 1) && r >= 0; k++) {
		file_name(p, k, name, sizeof(name));
		r = add(t, "RW %llu %s \"%s\"%s\n", ULL(file_sectors(p, k)), kinds[p->sub], name,
			p->sub == SUB_FLAT || p->sub == SUB_SPLIT_FLAT ? " 0" : "");
	}
	if (r >= 0)
		r = add(t, "\n# The Disk Data Base\n#DDB\n\nddb.virtualHWVersion = \"%lld\"\nddb.geometry.cylinders = \"%llu\"\n"
			"ddb.geometry.heads = \"%u\"\nddb.geometry.sectors = \"%u\"\nddb.adapterType = \"%s\"\nddb.toolsVersion = \"%lld\"\n",
			(long long)hw, ULL(cylinders), heads, spt, adapter, (long long)vh_opt_num(c->opts, "toolsversion", INT32_MAX));
	if (r < 0)
		return fail(e, -ENAMETOOLONG, "the descriptor has no room for the parent's name");
	return 0;
}

/* ---- files ---- */

static void header(uint8_t *h, uint64_t sectors, const struct plan *p, int with_desc)
{
	struct meta m = meta_of(sectors);
	int stream = p->sub == SUB_STREAM;

	memset(h, 0, SECTOR);
	put32(h, SPARSE_MAGIC);
	/* ESXi takes streams of version 3 only; 2 knows zeroed grains. */
	put32(h + HDR_VERSION, stream ? 3 : p->zeroed ? 2 : 1);
	put32(h + HDR_FLAGS, FLAG_NEWLINE | (stream ? FLAG_COMPRESSED | FLAG_MARKERS : FLAG_RGD) | (p->zeroed ? FLAG_ZERO_GRAIN : 0));
	put64(h + HDR_CAPACITY, sectors);
	put64(h + HDR_GRAIN, GRAIN);
	put64(h + HDR_DESC, with_desc ? DESC_AT : 0);
	put64(h + HDR_DESC_SIZE, with_desc ? DESC_SECTORS : 0);
	put32(h + HDR_GTES, GTES);
	put64(h + HDR_RGD, stream ? 0 : m.rgd_at);
	put64(h + HDR_GD, stream ? GD_AT_END : m.gd_at);
	put64(h + HDR_OVERHEAD, stream ? GRAIN : m.grains_at);
	memcpy(h + HDR_NEWLINE, "\n \r\n", 4);
	put16(h + HDR_COMPRESS, stream ? 1 : 0);
}

/* Directory and tables, in one of two copies. */
static int tables_write(const struct vh_meta_ops *ops, struct vh_meta *v, const struct meta *m, uint64_t sectors, uint64_t at,
			int mapped)
{
	uint8_t *gd = calloc(m->gd_sectors, SECTOR), gt[GT_SECTORS * SECTOR];
	uint64_t grains = DIV_UP(sectors, GRAIN), first = at + m->gd_sectors;
	int r = gd ? 0 : -ENOMEM;

	for (uint64_t k = 0; k < m->gts && r >= 0; k++) {
		put32(gd + k * 4, (uint32_t)(first + k * GT_SECTORS));
		if (!mapped)
			continue;
		memset(gt, 0, sizeof(gt));
		for (uint32_t j = 0; j < GTES && k * GTES + j < grains; j++)
			put32(gt + j * 4, (uint32_t)(m->grains_at + (k * GTES + j) * GRAIN));
		r = ops->write(v, gt, sizeof(gt), (first + k * GT_SECTORS) * SECTOR);
	}
	if (r >= 0)
		r = ops->write(v, gd, m->gd_sectors * SECTOR, at * SECTOR);
	free(gd);
	return r;
}

static int sparse_create(const struct vh_meta_ops *ops, struct vh_meta *v, uint64_t sectors, const struct plan *p,
			 const struct text *desc)
{
	struct meta m = meta_of(sectors);
	uint64_t bytes = m.grains_at * SECTOR;
	uint8_t h[SECTOR], *d = calloc(DESC_SECTORS, SECTOR);
	int r = d ? 0 : -ENOMEM;

	if (p->mapped)
		bytes += ROUND_UP(sectors, GRAIN) * SECTOR;
	if (r >= 0 && bytes > FILE_SECTORS * SECTOR)
		r = -EFBIG;
	if (r >= 0)
		r = ops->resize(v, bytes);
	if (r == -EOPNOTSUPP && ops->bytes(v) >= bytes)
		r = 0; /* a volume of fixed size */
	if (r >= 0)
		r = ops->zero(v, bytes, 0);
	if (r >= 0)
		r = tables_write(ops, v, &m, sectors, m.rgd_at, p->mapped);
	if (r >= 0)
		r = tables_write(ops, v, &m, sectors, m.gd_at, p->mapped);
	if (r >= 0 && desc) {
		memcpy(d, desc->p, desc->n);
		r = ops->write(v, d, DESC_SECTORS * SECTOR, DESC_AT * SECTOR);
	}
	free(d);
	if (r >= 0)
		r = ops->flush(v); /* what was there before must not appear under the new header */
	header(h, sectors, p, desc != NULL);
	if (r >= 0)
		r = ops->write(v, h, SECTOR, 0);
	return r < 0 ? r : ops->flush(v);
}

/* Only what comes before the first grain: the rest is written by put(), in ascending order. */
static int stream_create(const struct vh_meta_ops *ops, struct vh_meta *v, const struct plan *p, const struct text *desc,
			 struct vh_err *e)
{
	uint8_t *head = calloc(GRAIN, SECTOR);
	int r;

	if (!head)
		return -ENOMEM;
	header(head, p->sectors, p, 1);
	memcpy(head + DESC_AT * SECTOR, desc->p, desc->n);
	r = ops->resize(v, 0);
	if (r >= 0)
		r = ops->write(v, head, GRAIN * SECTOR, 0);
	free(head);
	if (r >= 0 && ops->bytes(v) != GRAIN * SECTOR)
		r = ops->resize(v, GRAIN * SECTOR);
	if (r == -EOPNOTSUPP)
		return fail(e, r, "a streamOptimized image ends where its volume ends, and this one has a fixed size");
	return r < 0 ? r : ops->flush(v);
}

static int flat_create(const struct vh_meta_ops *ops, struct vh_meta *v, uint64_t sectors)
{
	uint64_t bytes = sectors * SECTOR;
	int r = ops->bytes(v) == bytes ? 0 : ops->resize(v, bytes);

	return r == -EOPNOTSUPP && ops->bytes(v) >= bytes ? 0 : r;
}

static int text_create(const struct vh_meta_ops *ops, struct vh_meta *v, struct text *desc)
{
	int r;

	while (desc->n % SECTOR && desc->n < desc->cap) /* whole sectors: volumes may know nothing less */
		desc->p[desc->n++] = '\n';
	r = ops->write(v, desc->p, desc->n, 0);

	if (r >= 0 && ops->bytes(v) != desc->n)
		r = ops->resize(v, desc->n);
	if (r == -EOPNOTSUPP)
		r = ops->bytes(v) > desc->n ? ops->zero(v, MIN(ops->bytes(v), DESC_MAX) - desc->n, desc->n) : 0;
	return r < 0 ? r : ops->flush(v);
}

static int parent_of(const struct vh_meta_ops *ops, const struct vh_create *c, const struct plan *p, uint32_t *cid,
		     struct vh_err *e)
{
	int r;

	*cid = CID_NONE;
	if (!c->backing)
		return 0;
	if (p->sub == SUB_FLAT || p->sub == SUB_SPLIT_FLAT)
		return fail(e, -EINVAL, "a flat image cannot have a parent");
	if (p->mapped)
		return fail(e, -EINVAL, "preallocated, the image would hide its parent");
	if (c->backing_format && strcmp(c->backing_format, "vmdk"))
		return fail(e, -EINVAL, "the parent of a VMDK image must be one too, not %s", c->backing_format);
	if (!desc_name_ok(c->backing))
		return fail(e, -EINVAL, "the parent's name cannot stand in a descriptor");
	if (!VH_HAS(c, backing_volume) || !c->backing_volume)
		return fail(e, -EINVAL, "the parent was not handed over, and so its content id is not known");
	r = layout_cid(ops, c->backing_volume, cid, e);
	return r < 0 ? fail(e, r, "parent %s", c->backing) : 0;
}

int vmdk_create(struct vh_create *c, struct vh_job *j, struct vh_err *e)
{
	const struct vh_meta_ops *ops = vmdk_meta(e);
	struct text t = {0};
	struct plan p;
	uint32_t parent;
	int r = ops ? plan_make(c, &p, e) : -EOPNOTSUPP;

	if (r >= 0 && c->n < 1 + p.files)
		r = fail(e, -EINVAL, "%u files are needed, %u were handed over", 1 + p.files, c->n);
	if (r >= 0)
		r = parent_of(ops, c, &p, &parent, e);
	if (r < 0)
		return r;
	t.cap = p.sub == SUB_FLAT || split(&p) ? DESC_MAX : (size_t)DESC_SECTORS * SECTOR;
	t.p = malloc(t.cap);
	r = t.p ? describe(c, &p, parent, &t, e) : -ENOMEM;
	for (uint32_t k = 0; k < p.files && r >= 0; k++) {
		if (p.sub == SUB_SPLIT_SPARSE)
			r = sparse_create(ops, c->volumes[1 + k], file_sectors(&p, k), &p, NULL);
		else
			r = flat_create(ops, c->volumes[1 + k], file_sectors(&p, k));
	}
	if (r >= 0) {
		if (p.files)
			r = text_create(ops, c->volumes[0], &t);
		else if (p.sub == SUB_STREAM)
			r = stream_create(ops, c->volumes[0], &p, &t, e);
		else
			r = sparse_create(ops, c->volumes[0], p.sectors, &p, &t);
	}
	free(t.p);
	return r < 0 ? fail(e, r, "cannot write the image's files") : 0;
}

int vmdk_measure(const struct vh_create *c, uint64_t used, uint64_t *required, uint64_t *full, struct vh_err *e)
{
	uint64_t grain = GRAIN * SECTOR, meta = 0, each = grain, n;
	struct plan p;
	int r = plan_make(c, &p, e);

	if (r < 0)
		return r;
	if (p.sub == SUB_FLAT || p.sub == SUB_SPLIT_FLAT) {
		*required = *full = p.sectors * SECTOR + ROUND_UP(1024 + (uint64_t)p.files * 64, SECTOR);
		return 0;
	}
	for (uint32_t k = 0; k < MAX(p.files, 1); k++)
		meta += meta_of(file_sectors(&p, k)).grains_at * SECTOR;
	if (p.files)
		meta += ROUND_UP(1024 + (uint64_t)p.files * 64, SECTOR);
	n = DIV_UP(p.sectors, GRAIN);
	if (p.sub == SUB_STREAM) { /* when nothing gets smaller */
		each = ROUND_UP(12 + CODEC_ROOM(grain), SECTOR);
		meta = grain + meta_of(p.sectors).gts * (GT_SECTORS + 1) * SECTOR + (meta_of(p.sectors).gd_sectors + 4) * SECTOR;
	}
	*full = meta + n * each;
	*required = p.mapped ? *full : meta + MIN(DIV_UP(used, grain), n) * each;
	return 0;
}
