/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Definition files: PATH_CONFIG/pools/NAME.conf, groups [pool] (type, autostart) and [options]. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "plug/optfile.h"
#include "store/store-i.h"
#include "util/paths.h"

#define DEFAULT_POOL "default"

static char *def_path(const char *name)
{
	g_autofree char *file = g_strconcat(name, ".conf", NULL);

	return path_in(PATH_CONFIG, "pools", file, NULL);
}

static char *mark_path(const char *name)
{
	return path_in(PATH_STATE, "pools", name, NULL);
}

/* What start and stop said last: 1, 0, or -1 for nothing since the host started. */
static int mark_read(const char *name)
{
	g_autofree char *path = mark_path(name);
	char c = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -1;
	if (read(fd, &c, 1) != 1)
		c = 0;
	close(fd);
	return c == '1' ? 1 : c == '0' ? 0 : -1;
}

/* Reads the file into *kf (NULL: there is none). */
static int def_read(const char *name, GKeyFile **kf, struct vh_err *e)
{
	g_autofree char *path = def_path(name);
	g_autoptr(GError) err = NULL;

	*kf = NULL;
	if (access(path, F_OK) < 0 && errno == ENOENT)
		return 0; /* the usual case of "default": quicker than GLib's error, which loads character sets */
	*kf = g_key_file_new();
	if (g_key_file_load_from_file(*kf, path, G_KEY_FILE_KEEP_COMMENTS, &err))
		return 0;
	g_key_file_free(*kf);
	*kf = NULL;
	if (g_error_matches(err, G_FILE_ERROR, G_FILE_ERROR_NOENT))
		return 0;
	err_object(e, "pool %s", name);
	return err_set(e, g_error_matches(err, G_FILE_ERROR, G_FILE_ERROR_ACCES) ? -EACCES : -EINVAL, "%s: %s", path,
		       err->message);
}

static int def_write(const char *name, GKeyFile *kf, struct vh_err *e)
{
	g_autofree char *path = def_path(name), *dir = g_path_get_dirname(path), *text = NULL;
	gsize n;
	int ret = path_make(dir, 0755, e);

	if (ret)
		return ret;
	text = g_key_file_to_data(kf, &n, NULL);
	return file_replace(path, text, n, 0644, e);
}

static int not_defined(const char *name, struct vh_err *e)
{
	err_object(e, "pool %s", name);
	err_remedy(e, "vhost pool list shows those that exist, vhost pool define %s --type dir --path FOLDER makes it",
		   name);
	return err_set(e, -ENOENT, "there is no such pool");
}

int store_def_load(const char *name, struct store_def *out, struct vh_err *e)
{
	g_autofree char *type = NULL, *path = NULL;
	GKeyFile *kf;
	int mark, ret = name_check("pool", name, e);

	memset(out, 0, sizeof(*out));
	if (!ret)
		ret = def_read(name, &kf, e);
	if (ret)
		return ret;
	if (!kf && strcmp(name, DEFAULT_POOL))
		return not_defined(name, e);
	mark = mark_read(name);
	if (!kf) {
		path = path_in(PATH_DATA, "images", NULL);
		out->type = g_strdup("dir");
		out->options = (struct kvs){g_new0(struct kv, 1), 1};
		out->options.v[0] = (struct kv){g_strdup("path"), g_steal_pointer(&path)};
		out->autostart = out->builtin = 1;
		out->active = mark != 0;
		return 0;
	}
	type = g_key_file_get_string(kf, "pool", "type", NULL);
	if (!type || !*type) {
		g_key_file_free(kf);
		path = def_path(name);
		err_object(e, "pool %s", name);
		return err_set(e, -EINVAL, "%s has no key type in its group [pool]", path);
	}
	out->type = g_steal_pointer(&type);
	out->autostart = !g_key_file_has_key(kf, "pool", "autostart", NULL) ||
			 g_key_file_get_boolean(kf, "pool", "autostart", NULL);
	out->active = mark >= 0 ? mark : out->autostart;
	optfile_get(kf, &out->options);
	g_key_file_free(kf);
	return 0;
}

void store_def_clear(struct store_def *d)
{
	g_free(d->type);
	kvs_clear(&d->options);
	memset(d, 0, sizeof(*d));
}

/* Whether two definitions mean the same pool; `autostart` is no part of what it is. */
static int def_same(GKeyFile *a, GKeyFile *b)
{
	g_autofree char *type_a = g_key_file_get_string(a, "pool", "type", NULL), *type_b = g_key_file_get_string(b, "pool", "type", NULL);

	return !g_strcmp0(type_a, type_b) && optfile_same(a, b);
}

int store_pool_define(const char *name, const char *type, const struct kvs *options, struct vh_err *e)
{
	g_autofree char *what = g_strdup_printf("pool type %s", type);
	const struct vh_pool_ops *ops;
	struct optset *set = NULL;
	GKeyFile *kf, *old = NULL;
	int ret = name_check("pool", name, e);

	if (!ret)
		ret = plug_pool(type, &ops, e);
	if (!ret)
		ret = optset_parse(ops->pool_options, options, what, &set, e);
	if (ret)
		return ret;
	kf = g_key_file_new();
	g_key_file_set_string(kf, "pool", "type", type);
	g_key_file_set_boolean(kf, "pool", "autostart", TRUE);
	ret = optfile_put(kf, ops->pool_options, options, e);
	optset_free(set);
	if (!ret)
		ret = def_read(name, &old, e);
	if (!ret && !old) {
		ret = def_write(name, kf, e);
	} else if (!ret && def_same(old, kf)) {
		ret = 1;
	} else if (!ret) {
		err_object(e, "pool %s", name);
		err_remedy(e, "vhost pool undefine %s first, or choose another name", name);
		ret = err_set(e, -EEXIST, "it is defined already, otherwise");
	}
	if (old)
		g_key_file_free(old);
	g_key_file_free(kf);
	return ret;
}

int store_pool_undefine(const char *name, struct vh_err *e)
{
	g_autofree char *path = NULL, *mark = NULL;
	int ret = name_check("pool", name, e);

	if (ret)
		return ret;
	path = def_path(name);
	mark = mark_path(name);
	if (unlink(path) < 0) {
		if (errno == ENOENT && strcmp(name, DEFAULT_POOL))
			return not_defined(name, e);
		ret = -errno;
		err_object(e, "pool %s", name);
		if (ret == -ENOENT)
			return err_set(e, -EPERM, "it is built in: no file defines it");
		return err_set(e, ret, "cannot remove %s: %s", path, g_strerror(-ret));
	}
	unlink(mark);
	return 0;
}

static int by_name(gconstpointer a, gconstpointer b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int store_pool_names(int (*fn)(void *ctx, const char *name, const char *type), void *ctx, struct vh_err *e)
{
	g_autofree char *dir = path_in(PATH_CONFIG, "pools", NULL);
	g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
	GDir *d = g_dir_open(dir, 0, NULL);
	const char *file;
	int ret = 0, have_default = 0;

	while (d && (file = g_dir_read_name(d))) {
		g_autofree char *name = g_str_has_suffix(file, ".conf") ? g_strndup(file, strlen(file) - 5) : NULL;

		if (!name || name_check("pool", name, NULL))
			continue;
		have_default |= !strcmp(name, DEFAULT_POOL);
		g_ptr_array_add(names, g_steal_pointer(&name));
	}
	if (d)
		g_dir_close(d);
	if (!have_default)
		g_ptr_array_add(names, g_strdup(DEFAULT_POOL));
	g_ptr_array_sort(names, by_name);
	for (unsigned i = 0; i < names->len && !ret; i++) {
		const char *name = names->pdata[i];
		ERR_AUTO(bad);
		struct store_def def;

		/* A broken file is listed too: its name, no type. */
		if (store_def_load(name, &def, &bad)) {
			ret = fn(ctx, name, NULL);
			continue;
		}
		ret = fn(ctx, name, def.type);
		store_def_clear(&def);
	}
	return ret;
}

int store_pool_set_active(const char *name, int active, struct vh_err *e)
{
	g_autofree char *path = NULL, *dir = NULL;
	struct store_def d;
	int ret = store_def_load(name, &d, e);

	if (ret)
		return ret;
	store_def_clear(&d);
	path = mark_path(name);
	dir = g_path_get_dirname(path);
	ret = path_make(dir, 0755, e);
	return ret ? ret : file_replace(path, active ? "1\n" : "0\n", 2, 0644, e);
}

int store_pool_set_autostart(const char *name, int on, struct vh_err *e)
{
	struct store_def d;
	GKeyFile *kf;
	int ret = store_def_load(name, &d, e);

	if (!ret)
		ret = def_read(name, &kf, e);
	if (ret)
		return ret;
	if (!kf) { /* the built-in one gets a file of its own */
		kf = g_key_file_new();
		g_key_file_set_string(kf, "pool", "type", d.type);
		g_key_file_set_string(kf, "options", "path", kvs_get(&d.options, "path"));
	}
	g_key_file_set_boolean(kf, "pool", "autostart", !!on);
	ret = def_write(name, kf, e);
	g_key_file_free(kf);
	store_def_clear(&d);
	return ret;
}
