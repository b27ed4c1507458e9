/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost autostart: networks and pools that are to start with the host, once after that has started, by a systemd unit. */
#include <stdio.h>
#include <string.h>
#include "cmd/pool.h"
#include "net/network.h"

struct autostart { struct cmd_ctx *c; JsonBuilder *b; unsigned started, failed; };

/* Whether one that has the mark was started. One that fails does not keep the others from it. */
static void tell(struct autostart *a, const char *noun, const char *name, int ret, struct vh_err *e)
{
	*(ret < 0 ? &a->failed : &a->started) += 1;
	if (a->b) {
		json_builder_begin_object(a->b);
		js_text(a->b, "name", name);
		js_text(a->b, "result", ret < 0 ? "failed" : "started");
		js_text(a->b, "error", ret < 0 ? err_symbol(e->code) : NULL);
		js_text(a->b, "message", ret < 0 ? e->cause : NULL);
		js_text(a->b, "remedy", ret < 0 ? e->remedy : NULL);
		json_builder_end_object(a->b);
	} else if (ret < 0) {
		err_object(e, "%s %s", noun, name);
		err_report(e, 0);
	} else if (!a->c->quiet) {
		printf("%s %s started\n", noun, name);
	}
}

static int one_network(void *ctx, const char *name)
{
	struct network n;
	ERR_AUTO(e);
	int ret = network_load(name, &n, &e), skip = !ret && !n.autostart;

	network_clear(&n);
	if (skip)
		return 0;
	if (!ret)
		ret = network_start(name, &e);
	tell(ctx, "network", name, ret, &e);
	return 0;
}

static int one_pool(void *ctx, const char *name, const char *type)
{
	struct store_def d = {0};
	ERR_AUTO(e);
	int ret = store_def_load(name, &d, &e), skip = !ret && (!d.autostart || d.builtin); /* the built-in one is made on first use */

	if (!ret && !skip)
		ret = pool_start(name, d.active, &e);
	store_def_clear(&d);
	if (!skip)
		tell(ctx, "pool", name, ret, &e);
	return 0;
}

static void begin(struct autostart *a, const char *what)
{
	if (a->b) {
		json_builder_set_member_name(a->b, what);
		json_builder_begin_array(a->b);
	}
}

static void end(struct autostart *a)
{
	if (a->b)
		json_builder_end_array(a->b);
}

static int run_autostart(struct cmd_ctx *c, struct vh_err *e)
{
	struct autostart a = {.c = c, .b = c->json ? json_builder_new() : NULL};
	unsigned networks;
	int ret, r;

	if (a.b)
		json_builder_begin_object(a.b);
	/* Networks first: a pool's server may be reached through one. */
	begin(&a, "networks");
	ret = network_names(one_network, &a, e);
	end(&a);
	networks = a.started;
	begin(&a, "pools");
	r = store_pool_names(one_pool, &a, ret ? NULL : e);
	end(&a);
	ret = ret ? ret : r;
	if (a.b) {
		json_builder_set_member_name(a.b, "started");
		json_builder_add_int_value(a.b, a.started);
		json_builder_set_member_name(a.b, "failed");
		json_builder_add_int_value(a.b, a.failed);
		json_builder_end_object(a.b);
		out_json(a.b);
	} else if (!ret && !c->quiet) {
		if (networks)
			printf("%u network%s, ", networks, &"s"[networks == 1]);
		printf("%u pool%s started, %u failed\n", a.started - networks, &"s"[a.started - networks == 1], a.failed);
	}
	return ret ? ret : a.failed ? EXIT_FAILED : EXIT_OK;
}

const struct cmd *const cmd_autostart[] = {
	&(const struct cmd){.verb = "autostart", .args = "", .summary = "Start the networks and pools that are to start with the host",
			    .run = run_autostart,
			    .help = "Run once after the host has started, by the unit vhost-autostart.service: every network with the mark\n"
				    "`autostart` is started, then every pool with it is opened and looked at. One that fails does not keep the\n"
				    "others from being started; each failure is told, and the exit status is 1 then. Nothing stays behind that\n"
				    "would have to run."},
	NULL};
