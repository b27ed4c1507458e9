/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Definition files: PATH_CONFIG/networks/NAME.conf, groups [network] (kind, type, autostart) and [options]. */
#include "net/network.h"

#include <string.h>
#include <unistd.h>
#include "net/network-i.h"
#include "plug/optfile.h"
#include "plug/plug.h"
#include "util/paths.h"

#define GROUP "network"

static char *def_path(const char *name)
{
	g_autofree char *file = g_strconcat(name, ".conf", NULL);

	return path_in(PATH_CONFIG, "networks", file, NULL);
}

int network_defined(const char *name)
{
	g_autofree char *path = def_path(name);

	return !access(path, F_OK) || errno != ENOENT;
}

/* NULL: there is none. */
static int def_read(const char *name, GKeyFile **kf, struct vh_err *e)
{
	g_autofree char *path = def_path(name);
	g_autoptr(GError) err = NULL;

	*kf = g_key_file_new();
	if (g_key_file_load_from_file(*kf, path, G_KEY_FILE_KEEP_COMMENTS, &err))
		return 0;
	g_clear_pointer(kf, g_key_file_free);
	if (g_error_matches(err, G_FILE_ERROR, G_FILE_ERROR_NOENT))
		return 0;
	err_object(e, "network %s", name);
	return err_set(e, g_error_matches(err, G_FILE_ERROR, G_FILE_ERROR_ACCES) ? -EACCES : -EINVAL, "%s: %s", path, err->message);
}

static int def_write(const char *name, GKeyFile *kf, struct vh_err *e)
{
	g_autofree char *path = def_path(name), *dir = g_path_get_dirname(path), *text = NULL;
	gsize n;
	int r = path_make(dir, 0755, e);

	if (r)
		return r;
	text = g_key_file_to_data(kf, &n, NULL);
	return file_replace(path, text, n, 0644, e);
}

static int add_name(void *ctx, const char *name)
{
	g_string_append_printf(ctx, "%s%s", ((GString *)ctx)->len ? ", " : "", name);
	return 0;
}

static int not_defined(const char *name, struct vh_err *e)
{
	g_autoptr(GString) all = g_string_new(NULL);

	network_names(add_name, all, NULL);
	err_object(e, "network %s", name);
	err_remedy(e, "vhost net define %s --kind KIND makes one; %s%s", name, all->len ? "there are: " : "none is defined", all->str);
	return err_set(e, -ENOENT, "there is no such network");
}

static int lacks_key(const char *name, const char *key, struct vh_err *e)
{
	g_autofree char *path = def_path(name);

	err_object(e, "network %s", name);
	return err_set(e, -EINVAL, "%s has no key %s in its group [" GROUP "]", path, key);
}

int network_load(const char *name, struct network *out, struct vh_err *e)
{
	GKeyFile *kf = NULL;
	int r = name_check("network", name, e);

	memset(out, 0, sizeof(*out));
	if (!r)
		r = def_read(name, &kf, e);
	if (r)
		return r;
	if (!kf)
		return not_defined(name, e);
	out->name = g_strdup(name);
	out->kind = g_key_file_get_string(kf, GROUP, "kind", NULL);
	out->type = g_key_file_get_string(kf, GROUP, "type", NULL);
	out->autostart = g_key_file_get_boolean(kf, GROUP, "autostart", NULL);
	optfile_get(kf, &out->options);
	g_key_file_free(kf);
	if (!out->kind || !*out->kind)
		r = lacks_key(name, "kind", e);
	else if (!out->type || !*out->type)
		r = lacks_key(name, "type", e);
	if (r)
		network_clear(out);
	return r;
}

void network_clear(struct network *n)
{
	g_free(n->name);
	g_free(n->kind);
	g_free(n->type);
	kvs_clear(&n->options);
	memset(n, 0, sizeof(*n));
}

/* `autostart` is no part of what a network is. */
static int def_same(GKeyFile *a, GKeyFile *b)
{
	for (const char *const *k = (const char *const[]){"kind", "type", NULL}; *k; k++) {
		g_autofree char *x = g_key_file_get_string(a, GROUP, *k, NULL), *y = g_key_file_get_string(b, GROUP, *k, NULL);

		if (g_strcmp0(x, y))
			return 0;
	}
	return optfile_same(a, b);
}

/* A NIC's option in a definition is refused by name, for every NIC says for itself what it wants. */
static int no_nic_option(const char *name, const struct vh_net_ops *ops, const struct kvs *options, struct vh_err *e)
{
	g_autofree struct vh_opt *opt = NULL;
	unsigned n = schema_import(ops->options, &opt);

	for (unsigned i = 0; i < options->n; i++)
		for (unsigned k = 0; k < n; k++)
			if (opt[k].flags & VH_OPT_NIC && options->v[i].key && !strcmp(options->v[i].key, opt[k].name)) {
				err_usage(e, "option %s is of one NIC, not of a network", opt[k].name);
				err_remedy(e, "give it to the NIC: --net %s,%s=%s", name, opt[k].name, options->v[i].value);
				return -EINVAL;
			}
	return 0;
}

int network_define(const char *name, const char *kind, const char *type, const struct kvs *options, struct vh_err *e)
{
	struct network n = {.name = (char *)name, .kind = (char *)kind, .options = *options};
	const struct vh_net_ops *ops;
	g_autofree vh_schema schema = NULL;
	struct optset *set = NULL;
	char found[VH_ID_MAX];
	GKeyFile *kf, *old = NULL;
	int r = name_check("network", name, e), lock;

	if (!r && !type)
		r = network_kind_find(kind, found, e);
	if (r)
		return r;
	n.type = (char *)(type ? type : found);
	r = plug_net(n.type, &ops, e);
	if (!r)
		r = network_kind_check(ops, n.type, kind, e);
	if (!r)
		r = no_nic_option(name, ops, options, e);
	if (!r)
		r = network_options(&n, ops, &set, e);
	if (r)
		return r;
	optset_free(set);
	kf = g_key_file_new();
	g_key_file_set_string(kf, GROUP, "kind", kind);
	g_key_file_set_string(kf, GROUP, "type", n.type);
	g_key_file_set_boolean(kf, GROUP, "autostart", FALSE);
	schema = network_schema(ops);
	r = optfile_put(kf, schema, options, e);
	lock = r ? r : network_lock(e);
	if (!r)
		r = lock < 0 ? lock : def_read(name, &old, e);
	if (!r && !old) {
		r = def_write(name, kf, e);
	} else if (!r && def_same(old, kf)) {
		r = 1;
	} else if (!r) {
		err_object(e, "network %s", name);
		err_remedy(e, "vhost net delete %s first, or choose another name", name);
		r = err_set(e, -EEXIST, "it is defined already, otherwise");
	}
	if (lock >= 0)
		close(lock);
	if (old)
		g_key_file_free(old);
	g_key_file_free(kf);
	return r;
}

int network_delete(const char *name, struct vh_err *e)
{
	g_autofree char *path = NULL;
	int r = name_check("network", name, e), lock;

	if (r)
		return r;
	path = def_path(name);
	lock = network_lock(e);
	if (lock < 0)
		return lock;
	if (network_state(name) != NETWORK_STOPPED && network_defined(name)) {
		err_object(e, "network %s", name);
		err_remedy(e, "vhost net stop %s", name);
		r = err_set(e, -EBUSY, "it is started");
	} else if (unlink(path) < 0) {
		r = -errno;
	}
	close(lock);
	if (r == -ENOENT)
		return not_defined(name, e);
	if (r && r != -EBUSY) {
		err_object(e, "network %s", name);
		err_set(e, r, "cannot remove %s: %s", path, g_strerror(-r));
	}
	return r;
}

int network_set_autostart(const char *name, int on, struct vh_err *e)
{
	struct network n;
	GKeyFile *kf = NULL;
	int r = network_load(name, &n, e), lock;

	if (r)
		return r;
	network_clear(&n);
	lock = network_lock(e);
	if (lock < 0)
		return lock;
	r = def_read(name, &kf, e);
	if (!r && !kf)
		r = not_defined(name, e);
	if (!r) {
		g_key_file_set_boolean(kf, GROUP, "autostart", !!on);
		r = def_write(name, kf, e);
	}
	if (kf)
		g_key_file_free(kf);
	close(lock);
	return r;
}

static int by_name(gconstpointer a, gconstpointer b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

int network_names(int (*fn)(void *ctx, const char *name), void *ctx, struct vh_err *e)
{
	g_autofree char *dir = path_in(PATH_CONFIG, "networks", NULL);
	g_autoptr(GPtrArray) names = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GError) err = NULL;
	GDir *d = g_dir_open(dir, 0, &err);
	const char *file;
	int r = 0;

	if (!d && !g_error_matches(err, G_FILE_ERROR, G_FILE_ERROR_NOENT))
		return err_set(e, -EACCES, "%s", err->message);
	while (d && (file = g_dir_read_name(d))) {
		g_autofree char *name = g_str_has_suffix(file, ".conf") ? g_strndup(file, strlen(file) - 5) : NULL;

		if (name && !name_check("network", name, NULL))
			g_ptr_array_add(names, g_steal_pointer(&name));
	}
	if (d)
		g_dir_close(d);
	g_ptr_array_sort(names, by_name);
	for (unsigned i = 0; i < names->len && !r; i++)
		r = fn(ctx, names->pdata[i]);
	return r;
}
