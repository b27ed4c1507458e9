/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost pool capabilities: what the plugins say of themselves, in one table. */
#include <stdio.h>
#include <string.h>
#include "cmd/pool.h"
#include "plug/plug.h"

const char pool_capabilities_help[] =
	"Without a name: all pool types whose plugins are found, by their plugins' own word. `vhost`: it is done for them by vhost\n"
	"itself (copying a volume; keeping two users of this host apart; keeping a volume's format in the data folder). `format`: what\n"
	"the image's format can do is used instead. With the name of a pool: what that one can do now.";

static const struct { uint64_t cap; const char *name, *instead, *text; } all[] = {
	{VH_POOL_CREATE, "create", NULL, "makes volumes"},
	{VH_POOL_REMOVE, "remove", NULL, "deletes volumes"},
	{VH_POOL_GROW, "grow", NULL, "makes volumes larger"},
	{VH_POOL_SHRINK, "shrink", NULL, "makes volumes smaller"},
	{VH_POOL_CLONE_FULL, "clone-full", "vhost", "makes independent copies"},
	{VH_POOL_CLONE_COW, "clone-cow", NULL, "makes copy-on-write clones"},
	{VH_POOL_SNAPSHOT, "snapshot", "format", "takes snapshots of volumes"},
	{VH_POOL_LEASE, "lease", "vhost", "keeps two users of this host apart"},
	{VH_POOL_LEASE_HOSTS, "lease-hosts", NULL, "keeps writers of several hosts apart"},
	{VH_POOL_META, "meta", "vhost", "keeps a volume's format beside it"},
	{VH_POOL_MAKE, "make", NULL, "builds its own storage"},
	{VH_POOL_FILES, "files", NULL, "volumes are files or device nodes"},
};

static void js_caps(JsonBuilder *b, uint64_t caps)
{
	json_builder_set_member_name(b, "capabilities");
	json_builder_begin_object(b);
	for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
		g_autofree char *member = g_strdelimit(g_strdup(all[i].name), "-", '_');

		js_bool(b, member, !!(caps & all[i].cap));
	}
	json_builder_end_object(b);
}

static const char *word(uint64_t caps, unsigned i)
{
	return caps & all[i].cap ? "yes" : all[i].instead ? all[i].instead : "no";
}

static int of_pool(struct cmd_ctx *c, struct vh_err *e)
{
	struct vh_pool_info info = {.size = sizeof(info)};
	struct store_pool *p;
	void *pool;
	int ret = store_pool_open(c->args[0], &p, e);

	if (ret)
		return ret;
	ret = store_pool_ops(p, &pool)->info(pool, &info, e);
	if (ret) {
		err_object(e, "pool %s", c->args[0]);
	} else if (c->json) {
		JsonBuilder *b = json_builder_new();

		json_builder_begin_object(b);
		js_text(b, "name", c->args[0]);
		js_caps(b, info.caps);
		json_builder_end_object(b);
		out_json(b);
	} else {
		for (unsigned i = 0; i < G_N_ELEMENTS(all); i++)
			printf("%-12s %-6s  %s\n", all[i].name, word(info.caps, i), all[i].text);
	}
	store_pool_close(p);
	return ret;
}

struct type { char *id, *path; const struct vh_pool_ops *ops; struct vh_err why; };

static void type_free(gpointer t)
{
	struct type *ty = t;

	g_free(ty->id);
	g_free(ty->path);
	err_clear(&ty->why);
	g_free(ty);
}

/* Only the notes of the files are read here. What is refused is no pool type that could be used. */
static int found(void *ctx, const struct plug_note *n, const struct vh_err *why_not)
{
	GPtrArray *types = ctx;
	struct type *t;

	if (why_not || !(n->kinds & VH_KIND_POOL))
		return 0;
	for (guint i = 0; i < types->len; i++)
		if (!strcmp(((struct type *)types->pdata[i])->id, n->id))
			return 0; /* the first one is used */
	t = g_new0(struct type, 1);
	t->id = g_strdup(n->id);
	t->path = g_strdup(n->path);
	g_ptr_array_add(types, t);
	return 0;
}

static int by_id(gconstpointer a, gconstpointer b)
{
	return strcmp((*(struct type *const *)a)->id, (*(struct type *const *)b)->id);
}

static void table(GPtrArray *types)
{
	g_autoptr(GPtrArray) row = g_ptr_array_new();
	struct out_table *t;

	g_ptr_array_add(row, (char *)"CAPABILITY");
	for (guint k = 0; k < types->len; k++)
		if (((struct type *)types->pdata[k])->ops)
			g_ptr_array_add(row, ((struct type *)types->pdata[k])->id);
	g_ptr_array_add(row, (char *)"WHAT IT DOES");
	g_ptr_array_add(row, NULL);
	t = out_table_new((const char *const *)row->pdata, NULL);
	for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
		g_ptr_array_set_size(row, 0);
		g_ptr_array_add(row, (char *)(uintptr_t)all[i].name);
		for (guint k = 0; k < types->len; k++)
			if (((struct type *)types->pdata[k])->ops)
				g_ptr_array_add(row, (char *)(uintptr_t)word(((struct type *)types->pdata[k])->ops->caps, i));
		g_ptr_array_add(row, (char *)(uintptr_t)all[i].text);
		out_table_cells(t, (const char *const *)row->pdata);
	}
	out_table_print(t);
	for (guint k = 0; k < types->len; k++) {
		struct type *ty = types->pdata[k];

		if (!ty->ops)
			printf("%s cannot be used: %s\n", ty->id, ty->why.cause ? ty->why.cause : "it cannot be loaded");
	}
}

static int of_types(struct cmd_ctx *c)
{
	g_autoptr(GPtrArray) types = g_ptr_array_new_with_free_func(type_free);
	JsonBuilder *b;

	plug_scan(found, types);
	g_ptr_array_sort(types, by_id);
	for (guint k = 0; k < types->len; k++) {
		struct type *t = types->pdata[k];

		if (plug_pool(t->id, &t->ops, &t->why))
			t->ops = NULL;
	}
	if (!c->json) {
		table(types);
		return 0;
	}
	b = json_builder_new();
	json_builder_begin_object(b);
	json_builder_set_member_name(b, "types");
	json_builder_begin_array(b);
	for (guint k = 0; k < types->len; k++) {
		struct type *t = types->pdata[k];

		json_builder_begin_object(b);
		js_text(b, "type", t->id);
		js_text(b, "path", t->path);
		js_text(b, "error", t->ops ? NULL : t->why.cause ? t->why.cause : "it cannot be loaded");
		if (t->ops)
			js_caps(b, t->ops->caps);
		json_builder_end_object(b);
	}
	json_builder_end_array(b);
	json_builder_end_object(b);
	out_json(b);
	return 0;
}

int pool_run_capabilities(struct cmd_ctx *c, struct vh_err *e)
{
	return c->n_args ? of_pool(c, e) : of_types(c);
}
