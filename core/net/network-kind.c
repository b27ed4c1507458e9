/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Which plugin makes a kind of network: each is asked, for only they know; and whose an option is. */
#include "net/network.h"

#include <string.h>
#include "plug/plug.h"

#define KINDS_MAX 32u
#define KIND_LEN 31u

/* A plugin's word is looked at before it is used: [a-z][a-z0-9-]*. */
static int kind_valid(const char *k)
{
	size_t n = strnlen(k, KIND_LEN + 1);

	if (!n || n > KIND_LEN || !g_ascii_islower(k[0]))
		return 0;
	for (size_t i = 1; i < n; i++)
		if (!g_ascii_islower(k[i]) && !g_ascii_isdigit(k[i]) && k[i] != '-')
			return 0;
	return 1;
}

struct scan {
	GPtrArray *seen; /* ids */
	int (*fn)(void *ctx, const char *kind, const char *type);
	void *ctx;
};

static int scan_one(void *ctx, const struct plug_note *n, const struct vh_err *why_not)
{
	struct scan *s = ctx;
	const struct vh_net_ops *ops;
	int r = 0;

	if (why_not || !(n->kinds & VH_KIND_NET) || g_ptr_array_find_with_equal_func(s->seen, n->id, g_str_equal, NULL))
		return 0;
	g_ptr_array_add(s->seen, g_strdup(n->id));
	/* One that cannot be loaded makes nothing; `vhost plugin list` says why. */
	if (plug_net(n->id, &ops, NULL))
		return 0;
	for (unsigned i = 0; !r && ops->kinds && i < KINDS_MAX && ops->kinds[i]; i++)
		if (kind_valid(ops->kinds[i]))
			r = s->fn(s->ctx, ops->kinds[i], n->id);
	return r;
}

int network_kinds(int (*fn)(void *ctx, const char *kind, const char *type), void *ctx)
{
	struct scan s = {g_ptr_array_new_with_free_func(g_free), fn, ctx};
	int r = plug_scan(scan_one, &s);

	g_ptr_array_free(s.seen, TRUE);
	return r;
}

struct find {
	const char *kind;
	GPtrArray *types, *all; /* that make it; every kind */
};

static int find_one(void *ctx, const char *kind, const char *type)
{
	struct find *f = ctx;

	if (!strcmp(kind, f->kind))
		g_ptr_array_add(f->types, g_strdup(type));
	if (!g_ptr_array_find_with_equal_func(f->all, kind, g_str_equal, NULL))
		g_ptr_array_add(f->all, g_strdup(kind));
	return 0;
}

int network_kind_find(const char *kind, char type[VH_ID_MAX], struct vh_err *e)
{
	struct find f = {kind, g_ptr_array_new_with_free_func(g_free), g_ptr_array_new_with_free_func(g_free)};
	g_autofree char *all = NULL, *several = NULL;
	const char *near;
	int r = 0;

	network_kinds(find_one, &f);
	g_ptr_array_add(f.all, NULL);
	g_ptr_array_add(f.types, NULL);
	if (f.types->len == 2) {
		g_strlcpy(type, f.types->pdata[0], VH_ID_MAX);
	} else if (f.types->len > 2) {
		several = g_strjoinv(", ", (char **)f.types->pdata);
		err_usage(e, "several plugins make networks of kind %s: %s", kind, several);
		err_remedy(e, "choose one by --type");
		r = -EINVAL;
	} else {
		all = g_strjoinv(", ", (char **)f.all->pdata);
		near = nearest(kind, (const char *const *)f.all->pdata);
		r = err_set(e, -ENOENT, "no plugin that is found makes networks of kind '%s'", kind);
		err_status(e, EXIT_USAGE);
		if (near)
			err_remedy(e, "did you mean %s?", near);
		else
			err_remedy(e, *all ? "the kinds are: %s" : "install a network plugin, or point VHOST_PLUGIN_PATH to it%s", all);
	}
	g_ptr_array_free(f.types, TRUE);
	g_ptr_array_free(f.all, TRUE);
	return r;
}

int network_kind_check(const struct vh_net_ops *ops, const char *type, const char *kind, struct vh_err *e)
{
	for (unsigned i = 0; ops->kinds && i < KINDS_MAX && ops->kinds[i]; i++)
		if (kind_valid(ops->kinds[i]) && !strcmp(ops->kinds[i], kind))
			return 0;
	err_remedy(e, "leave out --type");
	return err_usage(e, "plugin %s makes no networks of kind %s", type, kind);
}

/* ---- whose an option is ---- */

vh_schema network_schema(const struct vh_net_ops *ops)
{
	const struct vh_opt **own = g_new0(const struct vh_opt *, OPTIONS_MAX + 1);
	unsigned n = 0;

	for (unsigned i = 0; ops->options && i < OPTIONS_MAX && ops->options[i]; i++)
		if (!(ops->options[i]->flags & VH_OPT_NIC))
			own[n++] = ops->options[i];
	return own;
}

int network_options(const struct network *n, const struct vh_net_ops *ops, struct optset **out, struct vh_err *e)
{
	g_autofree char *what = g_strdup_printf("network %s of kind %s", n->name, n->kind);
	g_autofree vh_schema own = network_schema(ops);

	return optset_parse(own, &n->options, what, out, e);
}

int network_nic_options(const struct network *n, const struct vh_net_ops *ops, const struct kvs *line, struct optset **out,
			struct vh_err *e)
{
	g_autofree char *what = g_strdup_printf("network %s of kind %s", n->name, n->kind);
	g_autofree struct vh_opt *opt = NULL;
	g_autofree struct kv *all = g_new(struct kv, n->options.n + line->n + 1);
	struct kvs merged = {all, n->options.n + line->n};
	unsigned count = schema_import(ops->options, &opt);

	for (unsigned i = 0; i < line->n; i++)
		for (unsigned k = 0; k < count; k++)
			if (!(opt[k].flags & VH_OPT_NIC) && !g_strcmp0(line->v[i].key, opt[k].name)) {
				err_object(e, "%s", what);
				err_usage(e, "option %s is the network's, and the same for all its NICs", opt[k].name);
				err_remedy(e, "leave it out, or define another network with %s=%s", opt[k].name, line->v[i].value);
				return -EINVAL;
			}
	if (n->options.n)
		memcpy(all, n->options.v, n->options.n * sizeof(*all));
	if (line->n)
		memcpy(all + n->options.n, line->v, line->n * sizeof(*all));
	return optset_parse(ops->options, &merged, what, out, e);
}
