/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "vmdk-file.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct file { int fd; };

static int file_info(void *vol, struct vh_volume_info *i)
{
	struct file *f = vol;
	struct stat st;

	fstat(f->fd, &st);
	i->fd = f->fd;
	i->bytes = (uint64_t)st.st_size;
	i->caps = VH_VOL_WRITE_CACHE | VH_VOL_FLUSH | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_GROW | VH_VOL_ZERO_ON_GROW;
	i->logical_block = 512;
	i->buf_align = i->len_align = 1;
	return 0;
}
static int file_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	struct file *f = vol;

	return ftruncate(f->fd, (off_t)bytes) ? -errno : 0;
}
static void file_close(void *vol)
{
	struct file *f = vol;

	close(f->fd);
	g_free(f);
}
static const struct vh_volume_ops file_ops = {.size = sizeof(file_ops), .info = file_info, .resize = file_resize, .close = file_close};

const struct vh_format_ops *vmdk_ops(void)
{
	const struct vh_format_ops *ops;
	ERR_AUTO(e);

	if (plug_format("vmdk", &ops, &e) < 0)
		g_error("%s", e.cause);
	return ops;
}

struct blk_vol *vmdk_file(const char *path, int make)
{
	struct file *f = g_new0(struct file, 1);
	g_autofree char *name = g_path_get_basename(path);
	struct blk_config c = {.label = name};
	struct blk_vol *v;
	ERR_AUTO(e);

	f->fd = open(path, O_RDWR | O_CLOEXEC | (make ? O_CREAT : 0), 0600);
	if (f->fd < 0) {
		g_free(f);
		return NULL;
	}
	if (blk_vol_new(f, plug_volume_ops(&file_ops), &c, &v, &e) < 0)
		g_error("%s", e.cause);
	return v;
}

struct optset *vmdk_options(vh_schema schema, const char *text)
{
	struct kv kv[16];
	struct kvs given = {kv, 0};
	g_auto(GStrv) parts = g_strsplit(text ? text : "", ",", 16);
	struct optset *o;
	ERR_AUTO(e);

	for (unsigned k = 0; parts[k]; k++) {
		char *eq = strchr(parts[k], '=');

		if (!eq)
			continue;
		*eq = 0;
		kv[given.n++] = (struct kv){parts[k], eq + 1};
	}
	if (optset_parse(schema, &given, "format vmdk", &o, &e) < 0)
		g_error("%s", e.cause);
	return o;
}

static int resolve(void *ctx, const struct vh_ref *ref, int read_only, struct blk_vol **vol, char format[32], struct vh_err *e)
{
	g_autofree char *path = NULL;

	if (strchr(ref->name, '/'))
		return err_set(e, -EACCES, "%s leads out of the folder", ref->name);
	path = g_build_filename(ctx, ref->name, NULL);
	*vol = vmdk_file(path, 0);
	g_strlcpy(format, ref->format, 32);
	return *vol ? 0 : err_set(e, -ENOENT, "there is no %s", path);
}

struct fmt_image *vmdk_file_open(const char *path, int read_only, int repair, const char *options, struct vh_err *e)
{
	g_autofree char *dir = g_path_get_dirname(path);
	struct fmt_spec s = {.vol = vmdk_file(path, 0), .ops = vmdk_ops(), .read_only = read_only, .resolve = resolve, .resolve_ctx = dir,
			     .label = "test", .repair = repair};
	struct optset *o = vmdk_options(s.ops->open_options, options);
	struct fmt_image *i = NULL;

	if (!s.vol) {
		err_set(e, -ENOENT, "there is no %s", path);
	} else {
		s.opts = optset_get(o);
		if (fmt_open(&s, &i, e) < 0)
			i = NULL;
	}
	optset_free(o);
	return i;
}

int vmdk_file_create(const char *path, uint64_t bytes, const char *options, const char *backing, uint32_t prealloc, struct vh_err *e)
{
	const struct vh_format_ops *ops = vmdk_ops();
	g_autofree char *dir = g_path_get_dirname(path), *name = g_path_get_basename(path), *below = NULL;
	struct optset *o = vmdk_options(ops->create_options, options);
	struct blk_vol *vols[64] = {vmdk_file(path, 1)}, *b = NULL;
	struct vh_meta *metas[64];
	struct vh_create_ref refs[63] = {0};
	struct vh_create c = {.size = sizeof(c), .bytes = bytes, .opts = optset_get(o), .name = name, .backing = backing,
			      .backing_format = backing ? "vmdk" : NULL, .volumes = metas, .n = 1, .prealloc = prealloc};
	int n, r;

	if (backing) {
		below = g_build_filename(dir, backing, NULL);
		b = vmdk_file(below, 0);
		g_assert_nonnull(b);
		c.backing_volume = fmt_meta_new(b, 1);
	}
	for (int k = 0; k < 63; k++)
		refs[k].size = sizeof(refs[k]);
	n = ops->create_refs(&c, refs, 63, e);
	for (int k = 0; k < n; k++) {
		g_autofree char *p = g_build_filename(dir, refs[k].name, NULL);

		vols[c.n] = vmdk_file(p, 1);
		g_assert_nonnull(vols[c.n]);
		if (blk_vol_resize(vols[c.n], refs[k].bytes, e) < 0)
			g_error("resize");
		c.n++;
	}
	for (uint32_t k = 0; k < c.n; k++)
		metas[k] = fmt_meta_new(vols[k], 0);
	r = n < 0 ? n : ops->create(&c, NULL, e);
	for (uint32_t k = 0; k < c.n; k++) {
		fmt_meta_free(metas[k]);
		blk_vol_put(vols[k]);
	}
	if (b) {
		fmt_meta_free(c.backing_volume);
		blk_vol_put(b);
	}
	optset_free(o);
	return r;
}

int vmdk_raw_open(struct vmdk_raw *r, struct blk_vol *const *vols, uint32_t n, uint64_t flags, const char *options, struct vh_err *e)
{
	struct vh_open o = {.size = sizeof(o), .n = n, .volumes = r->meta, .flags = flags, .host_caps = UINT64_MAX & ~VH_FMT_CRYPT};
	struct optset *s;
	int ret;

	memset(r, 0, sizeof(*r));
	r->ops = vmdk_ops();
	r->n = n;
	for (uint32_t k = 0; k < n; k++) {
		r->vol[k] = blk_vol_ref(vols[k]);
		r->meta[k] = fmt_meta_new(vols[k], flags & VH_OPEN_RO ? 1 : 0);
	}
	s = vmdk_options(r->ops->open_options, options);
	o.opts = optset_get(s);
	ret = r->ops->open(&o, &r->img, e);
	optset_free(s);
	if (ret < 0) {
		r->img = NULL;
		vmdk_raw_close(r);
	}
	return ret;
}

void vmdk_raw_close(struct vmdk_raw *r)
{
	if (r->img)
		r->ops->close(r->img);
	for (uint32_t k = 0; k < r->n; k++) {
		fmt_meta_free(r->meta[k]);
		blk_vol_put(r->vol[k]);
	}
	memset(r, 0, sizeof(*r));
}

#define GRAIN 65536u
#define BATCH 8

struct job {
	struct vmdk_raw *r;
	uint8_t *in, *out;
	uint64_t len;
	int64_t n;
};

static gpointer encode(gpointer p)
{
	struct job *j = p;

	j->n = j->r->ops->encode(j->r->img, j->in, j->len, j->out, j->len);
	return NULL;
}

int vmdk_file_stream(const char *raw, const char *path, const char *level, const char *flush_at, struct vh_err *e)
{
	g_autofree char *data = NULL, *opts = g_strdup_printf("compress-level=%s", level);
	uint64_t flush = flush_at ? strtoull(flush_at, NULL, 0) : UINT64_MAX;
	struct vmdk_raw r;
	struct blk_vol *v;
	gsize size;
	int ret;

	if (!g_file_get_contents(raw, &data, &size, NULL))
		return err_set(e, -ENOENT, "there is no %s", raw);
	ret = vmdk_file_create(path, size, "subformat=streamOptimized", NULL, 0, e);
	if (ret < 0)
		return ret;
	v = vmdk_file(path, 0);
	ret = vmdk_raw_open(&r, &v, 1, 0, opts, e);
	blk_vol_put(v);
	if (ret < 0)
		return ret;
	for (uint64_t pos = 0; pos < size && ret >= 0; pos += BATCH * GRAIN) {
		struct job j[BATCH];
		GThread *t[BATCH] = {0};

		for (unsigned k = 0; k < BATCH && pos + k * GRAIN < size; k++) {
			uint64_t at = pos + k * GRAIN, len = MIN(GRAIN, size - at);

			if (!data[at] && !memcmp(data + at, data + at + 1, len - 1))
				continue; /* zeros */
			j[k] = (struct job){&r, (uint8_t *)data + at, g_malloc(len), len, 0};
			t[k] = g_thread_new("encode", encode, &j[k]);
		}
		for (unsigned k = 0; k < BATCH; k++) {
			uint64_t at = pos + k * GRAIN;

			if (!t[k])
				continue;
			g_thread_join(t[k]);
			if (ret >= 0)
				ret = j[k].n > 0 ? r.ops->put(r.img, at, j[k].len, j[k].out, (uint64_t)j[k].n, e) : err_set(e, -EIO, "encode");
			g_free(j[k].out);
			if (ret >= 0 && at / GRAIN == flush)
				ret = r.ops->flush(r.img, 0);
		}
	}
	if (ret >= 0)
		ret = r.ops->flush(r.img, 0);
	vmdk_raw_close(&r);
	return ret < 0 ? err_set(e, ret, "cannot write the stream") : 0;
}
