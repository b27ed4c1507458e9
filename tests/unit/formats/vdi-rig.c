/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "vdi-rig.h"
#include "plug/options.h"

const struct vh_format_ops *vdi_ops(void)
{
	const struct vh_format_ops *ops;
	ERR_AUTO(e);

	if (plug_format("vdi", &ops, &e) < 0)
		g_error("%s", e.cause);
	return ops;
}

static struct optset *opts(vh_schema schema, const char *text)
{
	struct optset *set;
	struct kvs kvs = {0};
	struct kv kv[8];
	g_auto(GStrv) parts = g_strsplit(text ? text : "", ",", 8);
	ERR_AUTO(e);

	kvs.v = kv;
	for (; parts[kvs.n]; kvs.n++) {
		kv[kvs.n].key = parts[kvs.n];
		kv[kvs.n].value = strchr(parts[kvs.n], '=') + 1;
		*strchr(parts[kvs.n], '=') = 0;
	}
	if (optset_parse(schema, &kvs, "vdi", &set, &e) < 0)
		g_error("%s", e.cause);
	return set;
}

int vdi_make(struct blk_vol *v, uint64_t bytes, const char *options, uint32_t prealloc, struct blk_vol *parent,
	     uint64_t parent_bytes, struct vh_err *e)
{
	struct optset *set = opts(vdi_ops()->create_options, options);
	struct vh_meta *m = fmt_meta_new(v, 0), *below = parent ? fmt_meta_new(parent, 1) : NULL;
	struct vh_create c = {.size = sizeof(c), .bytes = bytes, .volumes = &m, .n = 1, .opts = optset_get(set), .prealloc = prealloc,
			      .backing = parent ? "parent" : NULL, .backing_format = parent ? "vdi" : NULL,
			      .backing_bytes = parent_bytes, .backing_volume = below};
	int r = vdi_ops()->create(&c, NULL, e);

	fmt_meta_free(m);
	fmt_meta_free(below);
	optset_free(set);
	return r;
}

struct blk_vol *vdi_new(uint64_t bytes, const char *options, struct blk_vol *parent, uint64_t parent_bytes)
{
	struct blk_vol *v = fake_vol_new("vdi", 0, VDI_CAPS);
	ERR_AUTO(e);

	fake_vol_sync(v, 1);
	if (vdi_make(v, bytes, options, 0, parent, parent_bytes, &e) < 0)
		g_error("create: %s", e.cause);
	return v;
}

static int resolve(void *ctx, const struct vh_ref *ref, int read_only, struct blk_vol **vol, char format[32], struct vh_err *e)
{
	if (strcmp(ref->name, "the-parent") || !ctx)
		return err_set(e, -ENOENT, "the backing image '%s' is nowhere", ref->name);
	g_assert_cmpstr(ref->format, ==, "vdi");
	g_assert_true(read_only);
	*vol = blk_vol_ref(ctx);
	strcpy(format, "vdi");
	return 0;
}

struct fmt_image *vdi_open_with(struct blk_vol *v, struct blk_vol *parent, int read_only, struct vh_err *e)
{
	struct optset *set = opts(vdi_ops()->open_options, parent ? "backing=the-parent" : NULL);
	struct fmt_spec s = {.vol = blk_vol_ref(v), .ops = vdi_ops(), .opts = optset_get(set), .resolve = resolve, .resolve_ctx = parent,
			     .label = "test", .read_only = read_only};
	struct fmt_image *i = NULL;

	if (fmt_open(&s, &i, e) < 0)
		i = NULL;
	optset_free(set);
	return i;
}

struct fmt_image *vdi_open(struct blk_vol *v, struct blk_vol *parent)
{
	struct fmt_image *i;
	ERR_AUTO(e);

	i = vdi_open_with(v, parent, 0, &e);
	if (!i)
		g_error("open: %s", e.cause);
	return i;
}

uint32_t vdi_get32(struct blk_vol *v, uint64_t off)
{
	const uint8_t *p = fake_vol_data(v) + off;

	return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

void vdi_put32(struct blk_vol *v, uint64_t off, uint32_t x)
{
	for (int k = 0; k < 4; k++)
		fake_vol_data(v)[off + k] = (uint8_t)(x >> 8 * k);
}

static void found(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	struct vdi_found *f = ctx;

	f->leaks += what == VH_CHECK_LEAK;
	f->corrupt += what == VH_CHECK_CORRUPT;
	f->fixed += what == VH_CHECK_FIXED;
	g_strlcpy(f->last, text, sizeof(f->last));
	g_test_message("check: %u at %" G_GUINT64_FORMAT ": %s", what, off, text);
}

int vdi_check_raw(struct blk_vol *v, uint32_t repair, struct vdi_found *f)
{
	struct vh_meta *m = fmt_meta_new(v, 0);
	struct vh_open o = {.size = sizeof(o), .n = 1, .volumes = &m, .flags = VH_OPEN_REPAIR | (repair ? 0 : VH_OPEN_RO)};
	void *img;
	int r;
	ERR_AUTO(e);

	memset(f, 0, sizeof(*f));
	r = vdi_ops()->open(&o, &img, &e);
	if (r >= 0) {
		r = vdi_ops()->check(img, repair, found, f, NULL, &e);
		vdi_ops()->close(img);
	}
	if (r < 0)
		g_test_message("%s", e.cause);
	fmt_meta_free(m);
	return r;
}
