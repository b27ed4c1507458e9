/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* New images that count only when they are complete. */
#include <string.h>
#include <unistd.h>
#include "fmt/options.h"
#include "store/store-i.h"
#include "store/unnamed.h"
#include "util/paths.h"

struct store_target {
	struct unnamed file; /* fd -1: it has a name, and the mark */
	struct store_pool *pool;
	int own_pool;
	char *folder, *name, *label, *format;
	struct fmt_image *image; /* of the file; else: */
	struct store_image *named;
	struct resolver resolver;
	char *holder;
	int made, replace, fresh;
};

static void target_free(struct store_target *t)
{
	unnamed_close(&t->file);
	if (t->own_pool)
		store_pool_close(t->pool);
	resolver_clear(&t->resolver);
	g_free(t->holder);
	g_free(t->folder);
	g_free(t->name);
	g_free(t->label);
	g_free(t->format);
	g_free(t);
}

static int folder_pool(struct store_target *t, struct vh_err *e)
{
	struct kv path = {(char *)"path", t->folder};
	struct kvs options = {&path, 1};

	if (t->pool)
		return 0;
	t->own_pool = 1;
	return store_pool_open_type("dir", &options, &t->pool, e);
}

/* The format writes its metadata into the file, which is then opened. */
static int file_image(struct store_target *t, const struct store_target_spec *s, const struct vh_format_ops *ops,
		      const struct vh_opts *create, const struct fmt_options *open, struct vh_job *j, struct vh_err *e)
{
	struct vh_create vc = {.size = sizeof(vc), .prealloc = s->prealloc, .bytes = s->bytes, .opts = create, .name = t->name};
	struct fmt_spec fs = {.ops = ops, .opts = optset_get(open->set), .below = &open->below, .label = t->label, .resolve = resolver_open,
			      .resolve_layer = resolver_layer, .resolve_ctx = &t->resolver};
	struct backing_spec bs = {.volume = t->name, .name = s->backing, .format = s->backing_format, .options = &open->below,
				  .allow = s->allow};
	struct backing b = {0};
	uint64_t required = 0, full = 0, want;
	struct blk_vol *v;
	struct vh_meta *m;
	int ret = unnamed_volume(&t->file, t->label, s->direct, &v, e);

	if (ret)
		return ret;
	if (s->backing)
		ret = folder_pool(t, e);
	bs.pool = t->pool;
	if (!ret && s->backing)
		ret = backing_open(&b, &bs, e);
	if (!ret && s->backing) {
		vc.backing = s->backing;
		vc.backing_format = b.format;
		vc.backing_volume = b.meta;
		vc.backing_bytes = b.bytes;
	}
	if (!ret && ops->measure)
		ret = ops->measure(&vc, 0, &required, &full, e);
	want = !strcmp(ops->name, "raw") ? s->bytes : s->prealloc ? full : 0;
	if (!ret && want)
		ret = blk_vol_resize(v, want, e);
	m = ret ? NULL : fmt_meta_new(v, 0);
	vc.volumes = &m;
	vc.n = 1;
	if (!ret)
		ret = m ? ops->create(&vc, j, e) : -ENOMEM;
	fmt_meta_free(m);
	backing_close(&b);
	if (ret > 0)
		ret = -EPROTO;
	if (ret) {
		err_context(e, "format %s", ops->name);
		blk_vol_put(v);
		return ret;
	}
	fs.vol = v;
	if (s->backing) {
		resolver_init_new(&t->resolver, t->pool, t->name, t->holder);
		t->resolver.attach_flags = VH_ATTACH_BUFFERED;
		t->resolver.allow = s->allow;
	} else {
		fs.resolve = NULL;
	}
	return fmt_open(&fs, &t->image, e);
}

/* To be opened after it was made, an encrypted image, or one over others, needs the secrets that it was made with. Entries are
 * the spec's. */
static void open_options(const struct store_target_spec *s, const struct vh_format_ops *ops, struct kvs *out)
{
	unsigned made = s->options ? s->options->n : 0, open = s->open ? s->open->n : 0;

	*out = (struct kvs){.v = g_new0(struct kv, made + open + 1)};
	for (unsigned k = 0; k < open; k++)
		out->v[out->n++] = s->open->v[k];
	for (unsigned k = 0; k < made; k++) {
		struct kv given = s->options->v[k];

		if (!given.key || !g_str_has_prefix(given.key, "format."))
			continue;
		given.key += strlen("format.");
		if (g_str_has_prefix(given.key, OPT_BELOW) && !kvs_get(out, given.key))
			out->v[out->n++] = given;
		for (vh_schema o = ops->open_options; o && *o; o++)
			if ((*o)->type == VH_OPT_SECRET && !strcmp((*o)->name, given.key) && !kvs_get(out, given.key))
				out->v[out->n++] = given;
	}
}

static int new_file(struct store_target *t, const struct store_target_spec *s, struct vh_job *j, struct vh_err *e)
{
	struct kvs empty = {0}, given = {0}, own, opening;
	struct fmt_options open = {0};
	struct vh_create vc = {.size = sizeof(vc), .bytes = s->bytes, .name = t->name};
	struct optset *create = NULL;
	const struct vh_format_ops *ops;
	int ret = plug_format(s->format, &ops, e);

	if (ret)
		return ret;
	if (!ops->create)
		return err_set(e, -EOPNOTSUPP, "images of format %s cannot be made", s->format);
	if (s->backing && !(ops->caps & VH_FMT_BACKING))
		return err_usage(e, "images of format %s have no backing image", s->format);
	kvs_with_prefix(s->options ? s->options : &empty, "format.", &given);
	kvs_without_prefix(&given, OPT_BELOW, &own);
	ret = optset_parse(ops->create_options, &own, s->format, &create, e);
	g_free(own.v);
	g_free(given.v);
	open_options(s, ops, &opening);
	if (!ret)
		ret = fmt_options_parse(ops, &opening, s->format, &open, e);
	g_free(opening.v);
	vc.opts = optset_get(create);
	if (!ret && ops->create_refs && ops->create_refs(&vc, NULL, 0, NULL) > 0)
		ret = -EOPNOTSUPP; /* several files: with names, and the mark */
	if (!ret && s->prealloc > VH_PREALLOC_OFF)
		ret = -EOPNOTSUPP; /* which the pool does */
	if (!ret)
		ret = unnamed_open(t->folder, &t->file, e);
	if (!ret)
		ret = file_image(t, s, ops, optset_get(create), &open, j, e);
	else
		t->file.fd = t->file.dir = -1;
	optset_free(create);
	fmt_options_clear(&open);
	return ret;
}

/* A volume with a name and the mark. */
static int new_volume(struct store_target *t, const struct store_target_spec *s, struct vh_job *j, struct vh_err *e)
{
	struct store_create c = {.name = t->name, .format = s->format, .bytes = s->bytes, .prealloc = s->prealloc,
				 .options = s->options, .unfinished = 1, .backing = s->backing,
				 .backing_format = s->backing_format, .allow = s->allow, .zeroed = &t->fresh, .token = s->token};
	struct store_image_spec is = {.pool = t->pool, .volume = t->name, .format = s->format, .options = s->open,
				      .holder = s->holder, .mode = VH_ATTACH_RW_EXCL, .allow = s->allow};
	const struct vh_format_ops *ops;
	struct kvs opening;
	int ret = plug_format(s->format, &ops, e);

	if (!ret)
		ret = store_vol_create(t->pool, &c, j, e);
	if (ret)
		return ret;
	t->made = 1;
	open_options(s, ops, &opening);
	is.options = &opening;
	ret = store_image_open(&is, &t->named, e);
	g_free(opening.v);
	return ret;
}

int store_target_new(const struct store_target_spec *s, struct store_target **out, struct vh_job *j, struct vh_err *e)
{
	struct store_target *t = g_new0(struct store_target, 1);
	int ret = 0;

	t->file.fd = t->file.dir = -1;
	t->format = g_strdup(s->format);
	t->holder = g_strdup(s->holder);
	t->replace = s->replace;
	t->fresh = 1;
	if (s->path) {
		t->folder = g_path_get_dirname(s->path);
		t->name = g_path_get_basename(s->path);
		t->label = g_strdup(s->path);
		if (!s->replace && g_file_test(s->path, G_FILE_TEST_EXISTS)) {
			err_remedy(e, "choose another name, or add --force");
			ret = err_set(e, -EEXIST, "it exists already");
		} else if (g_file_test(s->path, G_FILE_TEST_EXISTS) && !g_file_test(s->path, G_FILE_TEST_IS_REGULAR)) {
			ret = err_set(e, -EEXIST, "it is no regular file; to write into it, use --no-create");
		}
		if (!ret)
			ret = new_file(t, s, j, e);
		if (ret == -EOPNOTSUPP && t->file.fd < 0 && (!e || !e->code)) {
			if (s->replace && unlink(s->path) < 0 && errno != ENOENT)
				ret = err_set(e, -errno, "%s", g_strerror(errno));
			else if (!(ret = folder_pool(t, e)))
				ret = new_volume(t, s, j, e);
		}
	} else {
		t->pool = s->pool;
		t->name = g_strdup(s->volume);
		t->label = g_strdup_printf("%s/%s", s->pool->label, s->volume);
		ret = new_volume(t, s, j, e);
	}
	if (ret) {
		if (ret != -EALREADY)
			err_object(e, s->path ? "file %s" : "volume %s", t->label);
		store_target_drop(t);
		return ret;
	}
	*out = t;
	return 0;
}

int store_target_fresh(const struct store_target *t)
{
	return t->fresh;
}

struct fmt_image *store_target_image(struct store_target *t)
{
	return t->image ? t->image : store_image_fmt(t->named);
}

/* An image that is filled once has its end written when it is closed, which cannot fail: it is looked at. */
static int reopens(struct store_target *t, struct vh_err *e)
{
	const struct vh_format_ops *ops;
	struct fmt_spec fs = {.read_only = 1, .label = t->label};
	struct fmt_image *image;
	int ret = plug_format(t->format, &ops, e);

	if (ret)
		return ret;
	ret = unnamed_volume(&t->file, t->label, 0, &fs.vol, e);
	fs.ops = ops;
	if (!ret)
		ret = fmt_open(&fs, &image, e);
	if (!ret)
		fmt_close(image);
	return ret;
}

static int send_file(int from, int to, struct vh_err *e)
{
	off_t at = 0;

	for (;;) {
		char buf[65536], *p = buf;
		ssize_t n = pread(from, buf, sizeof(buf), at), w;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(e, -errno, "reading: %s", g_strerror(errno));
		if (!n)
			return 0;
		at += n;
		for (; n; n -= w, p += w) {
			w = write(to, p, (size_t)n);
			if (w < 0 && errno != EINTR)
				return err_set(e, -errno, "writing: %s", g_strerror(errno));
			w = MAX(w, 0);
		}
	}
}

int store_target_send(struct store_target *t, int fd, struct vh_err *e)
{
	int ret;

	if (!t->image) {
		store_target_drop(t);
		err_remedy(e, "choose a folder for temporary files (TMPDIR) that has O_TMPFILE, or another format");
		return err_set(e, -EOPNOTSUPP, "an image of several files, or of a file with a name, does not go into a pipe");
	}
	ret = fmt_flush(t->image, e);
	fmt_close(t->image);
	t->image = NULL;
	if (!ret)
		ret = send_file(t->file.fd, fd, e);
	store_target_drop(t);
	return ret;
}

int store_target_finish(struct store_target *t, struct vh_err *e)
{
	struct fmt_encoding enc = {0};
	int ret = fmt_flush(store_target_image(t), e), once;

	fmt_encoding(store_target_image(t), &enc, NULL);
	once = enc.once;
	if (t->image) {
		fmt_close(t->image);
		t->image = NULL;
		if (!ret && once)
			ret = reopens(t, e);
		if (!ret)
			ret = unnamed_publish(&t->file, t->name, t->replace, e);
		/* The record beside it: without one it is a file like any other, whose format must be given. It makes itself durable, most often
		 * by a commit of the file system's journal that has the name in it as well; the other way round would be two. */
		if (!ret && !folder_pool(t, NULL) && !name_check("volume", t->name, NULL))
			store_format_set(t->pool, t->name, t->format, NULL);
		if (!ret)
			ret = unnamed_settle(&t->file, e);
	} else {
		store_image_close(t->named);
		t->named = NULL;
		if (!ret)
			ret = store_vol_finish(t->pool, t->name, t->format, e);
		if (!ret)
			t->made = 0;
	}
	if (ret)
		err_object(e, t->folder ? "file %s" : "volume %s", t->label);
	store_target_drop(t);
	return ret;
}

void store_target_drop(struct store_target *t)
{
	if (!t)
		return;
	if (t->image)
		fmt_close(t->image);
	store_image_close(t->named);
	if (t->made)
		store_vol_abandon(t->pool, t->name, t->format);
	target_free(t);
}
