/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost pool ... */
#include <stdio.h>
#include <string.h>
#include "cmd/pool.h"

static int run_define(struct cmd_ctx *c, struct vh_err *e)
{
	const char *name = c->args[0];
	struct kvs options;
	int ret, again;

	cmd_free_options(c, &options);
	ret = store_pool_define(name, vh_opt_str(c->opts, "type", "dir"), &options, e);
	kvs_clear(&options);
	again = ret == 1;
	if (ret < 0) {
		err_object(e, "pool %s", name);
		return ret;
	}
	ret = 0;
	if (vh_opt_num(c->opts, "make", 0))
		ret = store_pool_make(name, e);
	if (!ret && !vh_opt_num(c->opts, "autostart", 1))
		ret = store_pool_set_autostart(name, 0, e);
	if (ret) { /* defined wholly or not at all */
		if (!again)
			store_pool_undefine(name, NULL);
		return ret;
	}
	return out_done(c, "pool", "defined");
}

static int run_undefine(struct cmd_ctx *c, struct vh_err *e)
{
	int ret = store_pool_undefine(c->args[0], e);

	return ret ? ret : out_done(c, "pool", "undefined");
}

struct busy { struct store_pool *p; char *name; };

static int find_busy(void *ctx, const char *name, const struct vh_vol_stat *unused)
{
	struct busy *b = ctx;
	struct vh_vol_stat st;

	if (store_vol_stat(b->p, name, &st, NULL) || !(st.flags & VH_STAT_IN_USE))
		return 0;
	b->name = g_strdup(name);
	return 1;
}

static int run_stop(struct cmd_ctx *c, struct vh_err *e)
{
	struct busy b = {0};
	struct store_def d;
	void *pool;
	int ret = store_def_load(c->args[0], &d, e), active;

	if (ret)
		return ret;
	active = d.active;
	store_def_clear(&d);
	/* A pool that cannot be opened has nobody in it. */
	if (active && !store_pool_open(c->args[0], &b.p, NULL)) {
		store_pool_ops(b.p, &pool)->list(pool, 0, find_busy, &b, NULL);
		store_pool_close(b.p);
	}
	if (b.name) {
		err_object(e, "pool %s", c->args[0]);
		err_remedy(e, "stop its VMs first");
		ret = err_set(e, -EBUSY, "its volume %s is in use", b.name);
		g_free(b.name);
		return ret;
	}
	ret = store_pool_set_active(c->args[0], 0, e);
	return ret ? ret : out_done(c, "pool", "stopped");
}

static int run_autostart(struct cmd_ctx *c, struct vh_err *e)
{
	int on = 1, ret = 0;

	if (c->n_args > 1) {
		ret = parse_bool(c->args[1], &on, e);
		if (ret)
			err_status(e, EXIT_USAGE);
	}
	if (!ret)
		ret = store_pool_set_autostart(c->args[0], on, e);
	return ret ? ret : out_done(c, "pool", on ? "is started with the host" : "is not started with the host");
}

/* What a listing and `pool info` tell of one pool. */
struct view {
	struct store_def def;
	struct vh_pool_info info;
	const struct vh_pool_ops *ops;
	const char *state; /* active, stopped, broken */
	char *why;         /* broken: the error */
};

static void view_load(const char *name, struct view *v)
{
	struct store_pool *p = NULL;
	ERR_AUTO(err);
	void *pool;

	memset(v, 0, sizeof(*v));
	v->info.size = sizeof(v->info);
	v->info.capacity = v->info.allocated = v->info.available = UINT64_MAX;
	if (store_def_load(name, &v->def, &err)) {
		v->state = "broken";
	} else if (!v->def.active) {
		v->state = "stopped";
	} else if (v->def.builtin && !g_file_test(kvs_get(&v->def.options, "path"), G_FILE_TEST_EXISTS)) {
		v->state = "active"; /* opening would make it; looking makes nothing */
		v->why = g_strdup("made on first use");
		return;
	} else if (store_pool_open(name, &p, &err)) {
		v->state = "broken";
	} else {
		v->ops = store_pool_ops(p, &pool);
		if (v->ops->info(pool, &v->info, &err))
			v->state = "broken";
		else
			v->state = v->info.health ? "degraded" : "active";
		store_pool_close(p);
	}
	v->info.detail[sizeof(v->info.detail) - 1] = 0;
	v->why = g_strdup(err.cause ? err.cause : v->info.detail[0] ? v->info.detail : NULL);
}

static void view_clear(struct view *v)
{
	store_def_clear(&v->def);
	g_free(v->why);
}

static void view_json(JsonBuilder *b, const char *name, const struct view *v)
{
	json_builder_begin_object(b);
	js_text(b, "name", name);
	js_text(b, "type", v->def.type);
	js_text(b, "state", v->state);
	js_bool(b, "autostart", v->def.autostart);
	js_bytes(b, "capacity", v->info.capacity);
	js_bytes(b, "allocated", v->info.allocated);
	js_bytes(b, "available", v->info.available);
	js_text(b, "detail", v->why);
	json_builder_set_member_name(b, "options");
	json_builder_begin_object(b);
	for (unsigned i = 0; i < v->def.options.n; i++)
		js_text(b, v->def.options.v[i].key, v->def.options.v[i].value);
	json_builder_end_object(b);
	json_builder_end_object(b);
}

struct listing { JsonBuilder *b; struct out_table *t; };

static int list_one(void *ctx, const char *name, const char *type)
{
	struct listing *l = ctx;
	struct view v;

	view_load(name, &v);
	if (l->b) {
		view_json(l->b, name, &v);
	} else {
		g_autofree char *cap = size_text(v.info.capacity), *alloc = size_text(v.info.allocated),
				*avail = size_text(v.info.available);

		out_table_row(l->t, name, v.def.type ? v.def.type : "-", v.state, v.def.autostart ? "yes" : "no", cap, alloc,
			      avail);
	}
	view_clear(&v);
	return 0;
}

static int run_list(struct cmd_ctx *c, struct vh_err *e)
{
	static const char *const header[] = {"NAME", "TYPE", "STATE", "AUTOSTART", "CAPACITY", "ALLOCATED", "AVAILABLE", NULL};
	static const int right[] = {0, 0, 0, 0, 1, 1, 1};
	struct listing l = {0};
	int ret;

	if (c->json) {
		l.b = json_builder_new();
		json_builder_begin_object(l.b);
		json_builder_set_member_name(l.b, "pools");
		json_builder_begin_array(l.b);
	} else {
		l.t = out_table_new(header, right);
	}
	ret = store_pool_names(list_one, &l, e);
	if (c->json) {
		json_builder_end_array(l.b);
		json_builder_end_object(l.b);
		out_json(l.b);
	} else {
		out_table_print(l.t);
	}
	return ret;
}

static int run_info(struct cmd_ctx *c, struct vh_err *e)
{
	struct store_def d;
	struct view v;
	int ret = store_def_load(c->args[0], &d, e);

	if (ret)
		return ret;
	store_def_clear(&d);
	view_load(c->args[0], &v);
	if (c->json) {
		JsonBuilder *b = json_builder_new();

		view_json(b, c->args[0], &v);
		out_json(b);
	} else {
		g_autofree char *cap = size_text(v.info.capacity), *alloc = size_text(v.info.allocated),
				*avail = size_text(v.info.available);

		printf("Name:       %s\nType:       %s\nState:      %s%s%s%s\nAutostart:  %s\n", c->args[0], v.def.type, v.state,
		       v.why ? " (" : "", v.why ? v.why : "", v.why ? ")" : "", v.def.autostart ? "yes" : "no");
		printf("Capacity:   %s\nAllocated:  %s\nAvailable:  %s\n", cap, alloc, avail);
		for (unsigned i = 0; i < v.def.options.n; i++)
			printf("Option:     %s=%s\n", v.def.options.v[i].key, v.def.options.v[i].value);
	}
	view_clear(&v);
	return 0;
}

static int run_refresh(struct cmd_ctx *c, struct vh_err *e)
{
	struct store_def d;
	int ret = store_def_load(c->args[0], &d, e);

	if (ret)
		return ret;
	store_def_clear(&d);
	return out_done(c, "pool", "needs no refresh: nothing about it is cached");
}

static const struct vh_opt *const define_options[] = {
	CMD_OPT("type", VH_OPT_STR, "The pool type: a storage plugin", .defval = "dir"),
	CMD_OPT("make", VH_OPT_BOOL, "Build the pool's storage too (dir: the folder)", .defval = "off"),
	CMD_OPT("autostart", VH_OPT_BOOL, "The pool may be used as soon as the host has started", .defval = "on"), NULL};
#define POOL(VERB, ARGS, SUMMARY, RUN, ...)                                                                            \
	&(const struct cmd){.noun = "pool", .verb = VERB, .args = ARGS, .summary = SUMMARY, .run = RUN, ##__VA_ARGS__}

const struct cmd *const cmd_pool[] = {
	POOL("list", "", "List the pools", run_list),
	POOL("info", "NAME", "Show one pool: state, capacity, options", run_info),
	POOL("define", "NAME", "Define a pool", run_define, .options = define_options, .free_options = 1,
	     .help = "The options of the pool type are given as --OPTION VALUE; `vhost plugin help TYPE` lists them:\n"
		     "  vhost pool define fast --type dir --path /srv/vm --make\n"
		     "Defining a pool again that is defined so already is no error."),
	POOL("undefine", "NAME", "Forget a pool; its volumes stay", run_undefine),
	POOL("start", "NAME", "Allow the use of a pool, after checking that it works", pool_run_start, .options = pool_start_options),
	POOL("stop", "NAME", "Forbid the use of a pool until it is started", run_stop),
	POOL("autostart", "NAME [on|off]", "Whether the pool may be used as soon as the host has started", run_autostart),
	POOL("refresh", "NAME", "Not needed: nothing about a pool is cached", run_refresh),
	POOL("capabilities", "[NAME]", "Show what a pool can do now, or what every type of pool can do", pool_run_capabilities,
	     .help = pool_capabilities_help),
	NULL};
