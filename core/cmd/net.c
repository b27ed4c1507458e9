/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost net plan | gc, and the table of all that `vhost net` can do. */
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include "cmd/net.h"
#include "cmd/vm.h"
#include "net/port.h"
#include "plug/plug.h"

/* ---- plan ---- */

static void plan_step(void *ctx, const char *text)
{
	if (ctx)
		json_array_add_string_element(ctx, text);
	else
		puts(text);
}

static int plan_print(const char *what, const char *name, JsonArray *steps, int r)
{
	JsonObject *o;

	if (!steps)
		return r;
	o = json_object_new();
	json_object_set_string_member(o, what, name);
	json_object_set_array_member(o, "steps", steps);
	if (!r)
		vm_print_json(o);
	json_object_unref(o);
	return r;
}

/* What starting a network makes, or its first NIC. */
static int plan_network(struct cmd_ctx *c, struct vh_err *e)
{
	JsonArray *steps = c->json ? json_array_new() : NULL;
	struct network n;
	int r = network_load(c->args[0], &n, e);

	if (!r)
		r = network_plan(&n, plan_step, steps, e);
	network_clear(&n);
	return plan_print("network", c->args[0], steps, r);
}

static int run_plan(struct cmd_ctx *c, struct vh_err *e)
{
	const char *type = vh_opt_str(c->opts, "type", "bridge"), *mac = vh_opt_str(c->opts, "mac", NULL);
	struct net_config nc = { .type = type, .vm = "plan", .ifname = vh_opt_str(c->opts, "ifname", NULL),
				 .pairs = (unsigned)vh_opt_num(c->opts, "queues", 1), .mtu = (uint16_t)vh_opt_num(c->opts, "mtu", 0) };
	g_autofree char *what = g_strdup_printf("network type %s", type);
	struct optset *set = NULL;
	JsonArray *steps = NULL;
	struct kvs kvs;
	int r;

	if (c->n_args > c->n_free) {
		if (c->n_free) {
			err_remedy(e, "leave out --%s, or the name", c->args[c->n_args - c->n_free]);
			return err_usage(e, "a network that is defined has its options");
		}
		return plan_network(c, e);
	}
	err_object(e, "%s", what);
	r = plug_net(type, &nc.ops, e);
	if (r < 0)
		return r;
	if (mac)
		r = parse_mac(mac, nc.mac, e);
	else
		net_mac_derive(nc.vm, 0, nc.mac);
	if (r < 0)
		return r;
	cmd_free_options(c, &kvs);
	r = optset_parse(nc.ops->options, &kvs, what, &set, e);
	kvs_clear(&kvs);
	if (r < 0)
		return r;
	nc.opts = optset_get(set);
	if (c->json)
		steps = json_array_new();
	r = net_port_plan(&nc, plan_step, steps, e);
	optset_free(set);
	return plan_print("type", type, steps, r);
}

/* ---- gc ---- */

struct gc {
	GPtrArray *types;
	JsonArray *a; /* with --json */
	const char *type;
	unsigned removed, failed;
	int first; /* failure */
};

static int add_type(void *ctx, const struct plug_note *n, const struct vh_err *why_not)
{
	GPtrArray *a = ctx;

	if (!why_not && n->kinds & VH_KIND_NET && !g_ptr_array_find_with_equal_func(a, n->id, g_str_equal, NULL))
		g_ptr_array_add(a, g_strdup(n->id));
	return 0;
}

static void gc_one(void *ctx, const char *object, const char *owner, int result)
{
	struct gc *g = ctx;
	JsonObject *o;

	g->removed += !result;
	g->failed += result < 0;
	if (result < 0 && !g->first)
		g->first = result;
	if (!g->a) {
		printf("%s of %s: %s\n", object, owner, result ? g_strerror(-result) : "removed");
		return;
	}
	o = json_object_new();
	json_object_set_string_member(o, "object", object);
	json_object_set_string_member(o, "owner", owner);
	json_object_set_string_member(o, "type", g->type);
	json_object_set_boolean_member(o, "removed", !result);
	if (result)
		json_object_set_string_member(o, "error", err_symbol(result));
	json_array_add_object_element(g->a, o);
}

static int run_gc(struct cmd_ctx *c, struct vh_err *e)
{
	const char *only = vh_opt_str(c->opts, "type", NULL);
	g_autoptr(GPtrArray) types = g_ptr_array_new_with_free_func(g_free);
	struct gc g = { .a = c->json ? json_array_new() : NULL };
	const struct vh_net_ops *ops;
	JsonObject *o;
	int r = 0;

	if (only)
		g_ptr_array_add(types, g_strdup(only));
	else
		plug_scan(add_type, types);
	r = network_forget_dead(e);
	for (unsigned i = 0; i < types->len && !r; i++) {
		ERR_AUTO(skip);

		g.type = types->pdata[i];
		/* A plugin that cannot be loaded has left nothing that others could not do without. */
		r = plug_net(g.type, &ops, only ? e : &skip);
		if (r < 0 && !only) {
			r = 0;
			continue;
		}
		if (!r)
			r = net_gc(ops, gc_one, &g, e);
	}
	if (c->json) {
		o = json_object_new();
		json_object_set_array_member(o, "objects", g.a);
		json_object_set_int_member(o, "removed", g.removed);
		if (!r)
			vm_print_json(o);
		json_object_unref(o);
	} else if (!r && !g.removed && !g.failed && !c->quiet) {
		puts("nothing to remove");
	}
	if (!r && g.failed)
		r = err_set(e, g.first, "%u object%s could not be removed", g.failed, g.failed == 1 ? "" : "s");
	return r;
}

static const struct vh_opt *const plan_options[] = {
	CMD_OPT("type", VH_OPT_STR, "The network type: a net plugin", .defval = "bridge"),
	CMD_OPT("queues", VH_OPT_INT, "Queue pairs", .defval = "1", .min = 1, .max = 256),
	CMD_OPT("mtu", VH_OPT_INT, "The interface's MTU", .min = 68, .max = 65521),
	CMD_OPT("mac", VH_OPT_MAC, "The guest's MAC address"), CMD_OPT("ifname", VH_OPT_STR, "The interface's name"), NULL };
static const struct vh_opt *const gc_options[] = { CMD_OPT("type", VH_OPT_STR, "Of this network type only"), NULL };

const struct cmd *const cmd_net[] = {
	NET("list", "", "List the networks", net_run_list),
	NET("info", "NAME", "Show one network: the switch that it is, drawn from the uplink down to the VMs", net_run_info, .options = net_info_options),
	NET("define", "NAME", "Define a network", net_run_define, .options = net_define_options, .free_options = 1,
	    .help = "The options of the network's plugin are given as --OPTION VALUE; `vhost plugin help TYPE` lists them. Those of one NIC\n"
		    "are given with the NIC: vhost run --net NAME,OPTION=VALUE. Nothing is made: the first NIC, or start, does that.\n"
		    "  vhost net define lan --kind bridged --uplink eth0\n"
		    "Defining a network again that is defined so already is no error."),
	NET("delete", "NAME", "Forget a network that is neither started nor in use", net_run_delete),
	NET("start", "NAME", "Make what a network needs, and keep it until stop; also what is missing of one that is started", net_run_start),
	NET("stop", "NAME", "Remove what start made, when no VM uses it", net_run_stop),
	NET("autostart", "NAME [on|off]", "Whether `vhost autostart` starts the network", net_run_autostart),
	NET("ports", "", "List the network interfaces of the VMs that run", net_run_ports),
	NET("plan", "[NAME]", "Show what starting a network would make, or, without a name, a NIC, without making it", run_plan,
	    .options = plan_options, .free_options = 1,
	    .help = "Without a name the options of the network type are given as --OPTION VALUE; `vhost plugin help TYPE` lists them:\n"
		    "  vhost net plan --type bridge --name br0 --create on"),
	NET("gc", "", "Remove what dead VMs and interrupted commands left behind", run_gc, .options = gc_options,
	    .help = "Only what carries the tag of a dead VM, or of a network that nobody holds, is removed. Starting a VM does the same."),
	NULL
};
