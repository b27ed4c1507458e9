/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "vmdk-rig.h"
#include "plug/options.h"

static struct { char name[64]; struct blk_vol *v; } named[16];
static int n_named;

const struct vh_format_ops *vmdk_ops(void)
{
	const struct vh_format_ops *ops;
	ERR_AUTO(e);

	if (plug_format("vmdk", &ops, &e) < 0)
		g_error("%s", e.cause);
	return ops;
}

struct blk_vol *vmdk_vol(const char *label)
{
	struct blk_vol *v = fake_vol_new(label, 0, VMDK_CAPS);

	fake_vol_sync(v, 1);
	return v;
}

static struct optset *options(vh_schema schema, const char *text)
{
	g_auto(GStrv) parts = g_strsplit(text ? text : "", ",", 8);
	struct optset *set;
	struct kvs kvs = {0};
	struct kv kv[8];
	ERR_AUTO(e);

	kvs.v = kv;
	for (; parts[kvs.n]; kvs.n++) {
		kv[kvs.n].key = parts[kvs.n];
		kv[kvs.n].value = strchr(parts[kvs.n], '=') + 1;
		*strchr(parts[kvs.n], '=') = 0;
	}
	if (optset_parse(schema, &kvs, "vmdk", &set, &e) < 0)
		g_error("%s", e.cause);
	return set;
}

int vmdk_make(struct blk_vol *const *vols, unsigned n, uint64_t bytes, const char *text, struct blk_vol *parent, struct vh_err *e)
{
	struct optset *set = options(vmdk_ops()->create_options, text);
	struct vh_meta *m[8], *below = parent ? fmt_meta_new(parent, 1) : NULL;
	struct vh_create c = {.size = sizeof(c), .bytes = bytes, .volumes = m, .n = n, .opts = optset_get(set), .name = "disk.vmdk",
			      .backing = parent ? "parent.vmdk" : NULL, .backing_format = parent ? "vmdk" : NULL, .backing_volume = below};
	int r;

	for (unsigned k = 0; k < n; k++)
		m[k] = fmt_meta_new(vols[k], 0);
	r = vmdk_ops()->create(&c, NULL, e);
	for (unsigned k = 0; k < n; k++)
		fmt_meta_free(m[k]);
	fmt_meta_free(below);
	optset_free(set);
	return r;
}

struct blk_vol *vmdk_new(uint64_t bytes, const char *text, struct blk_vol *parent)
{
	struct blk_vol *v = vmdk_vol("disk.vmdk");
	ERR_AUTO(e);

	if (vmdk_make(&v, 1, bytes, text, parent, &e) < 0)
		g_error("create: %s", e.cause);
	return v;
}

void vmdk_name(const char *name, struct blk_vol *v)
{
	g_strlcpy(named[n_named].name, name, sizeof(named[0].name));
	named[n_named++].v = v;
}

void vmdk_forget(void)
{
	n_named = 0;
}

static int resolve(void *ctx, const struct vh_ref *ref, int read_only, struct blk_vol **vol, char format[32], struct vh_err *e)
{
	for (int k = 0; k < n_named; k++) {
		if (strcmp(named[k].name, ref->name))
			continue;
		*vol = blk_vol_ref(named[k].v);
		g_strlcpy(format, ref->format, 32);
		return 0;
	}
	return err_set(e, -EACCES, "%s is not allowed", ref->name);
}

struct fmt_image *vmdk_open_with(struct blk_vol *v, int read_only, const char *text, struct vh_err *e)
{
	struct fmt_spec s = {.vol = blk_vol_ref(v), .ops = vmdk_ops(), .read_only = read_only, .resolve = resolve, .label = "test"};
	struct optset *set = options(s.ops->open_options, text);
	struct fmt_image *i;
	int r;

	s.opts = optset_get(set);
	r = fmt_open(&s, &i, e);
	optset_free(set);
	return r < 0 ? NULL : i;
}

struct fmt_image *vmdk_open(struct blk_vol *v)
{
	ERR_AUTO(e);
	struct fmt_image *i = vmdk_open_with(v, 0, NULL, &e);

	if (!i)
		g_error("open: %s", e.cause);
	return i;
}

int vmdk_raw_open(struct vmdk_raw *r, struct blk_vol *const *vols, unsigned n, uint64_t flags, const char *text, struct vh_err *e)
{
	struct vh_open o = {.size = sizeof(o), .n = n, .volumes = r->meta, .flags = flags, .host_caps = ~VH_FMT_CRYPT};
	struct optset *set = options(vmdk_ops()->open_options, text);
	int ret;

	memset(r, 0, sizeof(*r));
	for (r->n = 0; r->n < n; r->n++)
		r->meta[r->n] = fmt_meta_new(vols[r->n], flags & VH_OPEN_RO ? 1 : 0);
	o.opts = optset_get(set);
	ret = vmdk_ops()->open(&o, &r->img, e);
	optset_free(set);
	if (ret < 0) {
		r->img = NULL;
		vmdk_raw_close(r);
	}
	return ret;
}

void vmdk_raw_close(struct vmdk_raw *r)
{
	if (r->img)
		vmdk_ops()->close(r->img);
	for (unsigned k = 0; k < r->n; k++)
		fmt_meta_free(r->meta[k]);
	memset(r, 0, sizeof(*r));
}

int vmdk_raw_sync(struct vmdk_raw *r)
{
	int ret = 1;

	for (uint32_t phase = 0; ret == 1; phase++)
		ret = vmdk_ops()->flush(r->img, phase);
	return ret;
}

static void found(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	struct vmdk_found *f = ctx;

	*(what == VH_CHECK_LEAK ? &f->leaks : what == VH_CHECK_CORRUPT ? &f->corrupt : &f->fixed) += 1;
	g_strlcpy(f->last, text, sizeof(f->last));
}

int vmdk_check_raw(struct blk_vol *v, uint32_t repair, struct vmdk_found *f)
{
	struct vmdk_raw r;
	ERR_AUTO(e);
	int ret = vmdk_raw_open(&r, &v, 1, VH_OPEN_REPAIR | (repair ? 0 : VH_OPEN_RO), NULL, &e);

	memset(f, 0, sizeof(*f));
	if (ret < 0) {
		g_strlcpy(f->last, e.cause, sizeof(f->last));
		return ret;
	}
	ret = vmdk_ops()->check(r.img, repair, found, f, NULL, &e);
	vmdk_raw_close(&r);
	return ret;
}

static uint8_t *room(struct blk_vol *v, uint64_t off, uint64_t n)
{
	if (blk_vol_bytes(v) < off + n)
		g_assert_cmpint(blk_vol_resize(v, off + n, NULL), ==, 0);
	return fake_vol_data(v) + off;
}

void put_bytes(struct blk_vol *v, uint64_t off, const void *p, uint64_t n)
{
	memcpy(room(v, off, n), p, n);
}

void put_32(struct blk_vol *v, uint64_t off, uint32_t x)
{
	x = GUINT32_TO_LE(x);
	put_bytes(v, off, &x, 4);
}

void put_64(struct blk_vol *v, uint64_t off, uint64_t x)
{
	x = GUINT64_TO_LE(x);
	put_bytes(v, off, &x, 8);
}

uint32_t get_32(struct blk_vol *v, uint64_t off)
{
	uint32_t x;

	memcpy(&x, room(v, off, 4), 4);
	return GUINT32_FROM_LE(x);
}

void put_text(struct blk_vol *v, uint64_t off, const char *text)
{
	put_bytes(v, off, text, strlen(text));
}

void put_sparse(struct blk_vol *v, uint64_t at, const struct sparse *s)
{
	memset(room(v, at * 512, 512), 0, 512);
	put_text(v, at * 512, "KDMV");
	put_32(v, at * 512 + 4, s->version);
	put_32(v, at * 512 + 8, s->flags);
	put_64(v, at * 512 + 12, s->capacity);
	put_64(v, at * 512 + 20, s->grain);
	put_64(v, at * 512 + 28, s->desc_at);
	put_64(v, at * 512 + 36, s->desc_size);
	put_32(v, at * 512 + 44, s->gtes);
	put_64(v, at * 512 + 48, s->rgd);
	put_64(v, at * 512 + 56, s->gd);
	put_64(v, at * 512 + 64, s->overhead);
	if (s->flags & 1)
		put_text(v, at * 512 + 73, "\n \r\n");
	put_32(v, at * 512 + 77, s->compress);
}

struct blk_vol *vmdk_small(uint64_t capacity, int rgd, int zero_grain, int thin, const char *parent, uint32_t parent_cid)
{
	struct blk_vol *v = vmdk_vol("small.vmdk");
	uint64_t tables = (capacity / 8 + SMALL_GTES - 1) / SMALL_GTES, at = 24 + 8;
	struct sparse s = {.version = zero_grain ? 2 : 1, .flags = 1u | (rgd ? 2u : 0) | (zero_grain ? 4u : 0), .gtes = SMALL_GTES,
			   .capacity = capacity, .grain = 8, .desc_at = 1, .desc_size = 20, .rgd = rgd ? 24 : 0, .gd = 28};
	g_autofree char *text = NULL;

	g_assert_cmpuint(tables, <=, 4 * 128);
	s.overhead = (at + (thin ? 0 : tables * (rgd ? 2 : 1)) + 7) / 8 * 8;
	g_assert_cmpint(blk_vol_resize(v, s.overhead * 512, NULL), ==, 0);
	put_sparse(v, 0, &s);
	text = g_strdup_printf("# Disk DescriptorFile\nversion=1\nCID=0badcafe\nparentCID=%08x\ncreateType=\"monolithicSparse\"\n%s%s%s"
			       "\nRW %" G_GUINT64_FORMAT " SPARSE \"small.vmdk\"\n\nddb.adapterType = \"ide\"\n", parent_cid,
			       parent ? "parentFileNameHint=\"" : "", parent ? parent : "", parent ? "\"\n" : "", capacity);
	put_text(v, 512, text);
	for (uint64_t k = 0; k < tables && !thin; k++) {
		if (rgd)
			put_32(v, 24 * 512 + k * 4, (uint32_t)(at + k));
		put_32(v, 28 * 512 + k * 4, (uint32_t)(at + (rgd ? tables : 0) + k));
	}
	return v;
}
