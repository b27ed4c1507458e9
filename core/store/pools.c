/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Pools by name: opened when they are used, closed afterwards; there is no daemon that would hold them. */
#include <stdlib.h>
#include <string.h>
#include "store/store-i.h"
#include "util/log.h"
#include "util/paths.h"

static int open_with(const char *name, const char *type, const struct kvs *options, int may_make,
		     struct store_pool **out, struct vh_err *e)
{
	g_autofree char *what = g_strdup_printf("pool type %s", type);
	struct store_pool *p = g_new0(struct store_pool, 1);
	struct optset *set = NULL;
	int ret;

	p->name = g_strdup(name);
	p->label = name ? g_strdup(name) : g_strdup_printf("%s pool", type);
	p->type = g_strdup(type);
	ret = plug_pool(type, &p->ops, e);
	if (ret)
		goto out;
	ret = optset_parse(p->ops->pool_options, options, what, &set, e);
	if (ret)
		goto out;
	p->object = plug_object_new();
	plug_object_bind(p->object, p->label, NULL, NULL);
	if (may_make && p->ops->make) {
		/* The pool that is made on first use: only an attempt tells, so that using it costs no check. */
		ERR_AUTO(first);

		ret = p->ops->open(optset_get(set), p->object, &p->pool, &first);
		if (ret == -ENOENT) {
			ret = p->ops->make(optset_get(set), NULL, e);
			if (!ret) {
				log_info("store", "made the pool %s", p->label);
				ret = p->ops->open(optset_get(set), p->object, &p->pool, e);
			}
		} else if (ret) {
			err_move(e, &first);
		}
	} else {
		ret = p->ops->open(optset_get(set), p->object, &p->pool, e);
	}
out:
	optset_free(set);
	if (ret) {
		err_object(e, "pool %s", p->label);
		if (ret == -ENOENT && name && p->ops && p->ops->make)
			err_remedy(e, "vhost pool start %s --make builds it", name);
		p->pool = NULL;
		store_pool_close(p);
		return ret;
	}
	*out = p;
	return 0;
}

int store_pool_open(const char *name, struct store_pool **out, struct vh_err *e)
{
	struct store_def d;
	int ret = store_def_load(name, &d, e);

	if (ret)
		return ret;
	if (!d.active) {
		err_object(e, "pool %s", name);
		err_remedy(e, "vhost pool start %s", name);
		ret = err_set(e, -ESHUTDOWN, "it is stopped");
	} else {
		ret = open_with(name, d.type, &d.options, d.builtin, out, e);
	}
	store_def_clear(&d);
	return ret;
}

int store_pool_open_type(const char *type, const struct kvs *options, struct store_pool **out, struct vh_err *e)
{
	return open_with(NULL, type, options, 0, out, e);
}

int store_file_pool(const char *path, struct store_pool **pool, char **volume, struct vh_err *e)
{
	g_autofree char *abs = g_canonicalize_filename(path, NULL), *base = NULL;
	/* Through every symlink to the file itself: its folder is the pool, and its lock is the inode's anyway. */
	char *real = realpath(abs, NULL), *dir;
	struct kv kv = {(char *)"path", NULL};
	struct kvs options = {&kv, 1};
	int ret;

	*volume = NULL;
	if (!real && errno == ENOENT) { /* to be made */
		g_autofree char *parent = g_path_get_dirname(abs);

		base = g_path_get_basename(abs);
		real = realpath(parent, NULL);
		kv.value = g_strdup(real);
	} else if (real) {
		base = g_path_get_basename(real);
		kv.value = g_path_get_dirname(real);
	}
	if (!real || !*path || path[strlen(path) - 1] == '/') {
		ret = real ? -EISDIR : -errno;
		err_object(e, "file %s", path);
		free(real);
		g_free(kv.value);
		return err_set(e, ret, "%s", g_strerror(-ret));
	}
	free(real);
	dir = kv.value;
	ret = store_pool_open_type("dir", &options, pool, e);
	if (!ret) {
		g_free((*pool)->label);
		(*pool)->label = g_strdup(dir);
		*volume = g_steal_pointer(&base);
	}
	g_free(dir);
	return ret;
}

void store_pool_close(struct store_pool *p)
{
	if (!p)
		return;
	if (p->pool)
		p->ops->close(p->pool);
	if (p->object)
		plug_object_free(p->object);
	g_free(p->name);
	g_free(p->label);
	g_free(p->type);
	g_free(p);
}

const char *store_pool_name(const struct store_pool *p)
{
	return p->label;
}

const struct vh_pool_ops *store_pool_ops(const struct store_pool *p, void **pool)
{
	if (pool)
		*pool = p->pool;
	return p->ops;
}

int store_pool_make(const char *name, struct vh_err *e)
{
	const struct vh_pool_ops *ops;
	struct optset *set = NULL;
	struct store_def d;
	int ret = store_def_load(name, &d, e);

	if (ret)
		return ret;
	ret = plug_pool(d.type, &ops, e);
	if (!ret)
		ret = optset_parse(ops->pool_options, &d.options, d.type, &set, e);
	if (!ret && !ops->make) {
		err_remedy(e, "build it with the tools of that storage");
		ret = err_set(e, -EOPNOTSUPP, "pools of type %s are not made by vhost", d.type);
	} else if (!ret) {
		ret = ops->make(optset_get(set), NULL, e);
	}
	if (ret)
		err_object(e, "pool %s", name);
	optset_free(set);
	store_def_clear(&d);
	return ret;
}

int store_name_split(const char *name, char **pool, char **volume, struct vh_err *e)
{
	const char *slash = strchr(name, '/');

	*pool = *volume = NULL;
	if (slash == name || (slash && !slash[1]) || !*name) {
		err_remedy(e, "write POOL/VOLUME, or path=FILE for a file of no pool");
		return err_usage(e, "'%s' names no volume", name);
	}
	*pool = slash ? g_strndup(name, (size_t)(slash - name)) : g_strdup("default");
	*volume = g_strdup(slash ? slash + 1 : name);
	return 0;
}
