/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost pool start, and vhost autostart: once after the host has started, by a systemd unit. */
#include <stdio.h>
#include <string.h>
#include "cmd/pool.h"

const struct vh_opt *const pool_start_options[] = {
	CMD_OPT("make", VH_OPT_BOOL, "Build the pool's storage if it is missing", .defval = "off"), NULL};

/* Whether it works: it is opened (which connects and logs in, where that is needed) and asked about itself. */
static int works(const char *name, struct vh_err *e)
{
	struct vh_pool_info info = {.size = sizeof(info)};
	struct store_pool *p;
	void *pool;
	int ret = store_pool_open(name, &p, e);

	if (ret)
		return ret;
	ret = store_pool_ops(p, &pool)->info(pool, &info, e);
	info.detail[sizeof(info.detail) - 1] = 0;
	if (!ret && info.health > 1)
		ret = err_set(e, -EIO, "it cannot be used: %s", info.detail[0] ? info.detail : "its storage does not say why");
	if (ret)
		err_object(e, "pool %s", name);
	store_pool_close(p);
	return ret;
}

/* Allowed, and looked at. What does not work is as it was before. */
static int start(const char *name, int was, struct vh_err *e)
{
	int ret = store_pool_set_active(name, 1, e);

	if (!ret)
		ret = works(name, e);
	if (ret && !was)
		store_pool_set_active(name, 0, NULL);
	return ret;
}

int pool_run_start(struct cmd_ctx *c, struct vh_err *e)
{
	struct store_def d;
	int ret = store_def_load(c->args[0], &d, e), was;

	if (ret)
		return ret;
	was = d.active;
	store_def_clear(&d);
	if (vh_opt_num(c->opts, "make", 0))
		ret = store_pool_make(c->args[0], e);
	if (!ret)
		ret = start(c->args[0], was, e);
	return ret ? ret : pool_done(c, "started");
}

/* ---- autostart ---- */

struct autostart { struct cmd_ctx *c; JsonBuilder *b; unsigned started, failed; };

static int autostart_one(void *ctx, const char *name, const char *type)
{
	struct autostart *a = ctx;
	struct store_def d = {0};
	ERR_AUTO(e);
	int ret = store_def_load(name, &d, &e), skip = !ret && (!d.autostart || d.builtin); /* the built-in one is made on first use */

	if (!ret && !skip)
		ret = start(name, d.active, &e);
	store_def_clear(&d);
	if (skip)
		return 0;
	*(ret ? &a->failed : &a->started) += 1;
	if (a->b) {
		json_builder_begin_object(a->b);
		js_text(a->b, "name", name);
		js_text(a->b, "result", ret ? "failed" : "started");
		js_text(a->b, "error", ret ? err_symbol(e.code) : NULL);
		js_text(a->b, "message", ret ? e.cause : NULL);
		js_text(a->b, "remedy", ret ? e.remedy : NULL);
		json_builder_end_object(a->b);
	} else if (ret) {
		err_object(&e, "pool %s", name);
		err_report(&e, 0);
	} else if (!a->c->quiet) {
		printf("pool %s started\n", name);
	}
	return 0;
}

static int run_autostart(struct cmd_ctx *c, struct vh_err *e)
{
	struct autostart a = {.c = c, .b = c->json ? json_builder_new() : NULL};
	int ret;

	if (a.b) {
		json_builder_begin_object(a.b);
		json_builder_set_member_name(a.b, "pools");
		json_builder_begin_array(a.b);
	}
	ret = store_pool_names(autostart_one, &a, e);
	if (a.b) {
		json_builder_end_array(a.b);
		json_builder_set_member_name(a.b, "started");
		json_builder_add_int_value(a.b, a.started);
		json_builder_set_member_name(a.b, "failed");
		json_builder_add_int_value(a.b, a.failed);
		json_builder_end_object(a.b);
		out_json(a.b);
	} else if (!ret && !c->quiet) {
		printf("%u pool%s started, %u failed\n", a.started, &"s"[a.started == 1], a.failed);
	}
	return ret ? ret : a.failed ? EXIT_FAILED : EXIT_OK;
}

const struct cmd *const cmd_autostart[] = {
	&(const struct cmd){.verb = "autostart", .args = "", .summary = "Start the pools that are to start with the host",
			    .run = run_autostart,
			    .help = "Run once after the host has started, by the unit vhost-autostart.service: every pool with the mark\n"
				    "`autostart` is opened and looked at. One that fails does not keep the others from being started; each\n"
				    "failure is told, and the exit status is 1 then. Nothing stays behind that would have to run."},
	NULL};
