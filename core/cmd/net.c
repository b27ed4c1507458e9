/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost net list | plan | gc: the ports of VMs. (Networks as named objects come later.) */
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include "cmd/store-cmd.h"
#include "cmd/vm.h"
#include "ctl/ctl.h"
#include "net/port.h"
#include "plug/plug.h"

/* ---- list ---- */

struct list {
	struct out_table *t;
	JsonArray *a; /* with --json */
};

static int list_one(void *ctx, const char *name)
{
	struct list *l = ctx;
	JsonObject *info, *nic, *o;
	int pid;

	if (ctl_dir_running(name, &pid) || vm_ask(name, 2000, "Info", NULL, &info, NULL) < 0)
		return 0;
	for (unsigned i = 0; (nic = vm_element(info, "nics", i)); i++) {
		JsonNode *link = json_object_get_member(nic, "link");
		int up = link && JSON_NODE_HOLDS_VALUE(link) && json_node_get_boolean(link);
		g_autofree char *index = g_strdup_printf("%u", i), *mtu = g_strdup_printf("%d", (int)vm_num(nic, "mtu"));
		g_autofree char *queues = g_strdup_printf("%d", (int)vm_num(nic, "queue_pairs"));

		if (!l->a) {
			out_table_row(l->t, name, index, vm_text(nic, "ifname"), vm_text(nic, "master"), vm_text(nic, "mac"), mtu, queues,
				      up ? "up" : "down");
			continue;
		}
		o = json_object_new();
		json_object_set_string_member(o, "vm", name);
		json_object_set_int_member(o, "index", i);
		for (const char *const *k = (const char *const[]){ "ifname", "master", "mac", "mtu", "queue_pairs", "link", NULL }; *k; k++)
			if (json_object_has_member(nic, *k))
				json_object_set_member(o, *k, json_node_copy(json_object_get_member(nic, *k)));
			else
				json_object_set_null_member(o, *k);
		json_array_add_object_element(l->a, o);
	}
	json_object_unref(info);
	return 0;
}

static int run_list(struct cmd_ctx *c, struct vh_err *e)
{
	static const char *const header[] = { "VM", "NIC", "INTERFACE", "BRIDGE", "MAC", "MTU", "QUEUES", "LINK", NULL };
	static const int right[] = { 0, 1, 0, 0, 0, 1, 1, 0 };
	struct list l = { 0 };
	JsonObject *o;
	int r;

	if (c->json)
		l.a = json_array_new();
	else
		l.t = out_table_new(header, right);
	r = ctl_dir_scan(list_one, &l, e);
	if (c->json) {
		o = json_object_new();
		json_object_set_array_member(o, "ports", l.a);
		if (!r)
			vm_print_json(o);
		json_object_unref(o);
	} else {
		out_table_print(l.t);
	}
	return r;
}

/* ---- plan ---- */

static void plan_step(void *ctx, const char *text)
{
	if (ctx)
		json_array_add_string_element(ctx, text);
	else
		puts(text);
}

static int run_plan(struct cmd_ctx *c, struct vh_err *e)
{
	const char *type = vh_opt_str(c->opts, "type", "bridge"), *mac = vh_opt_str(c->opts, "mac", NULL);
	struct net_config nc = { .type = type, .vm = "plan", .ifname = vh_opt_str(c->opts, "ifname", NULL),
				 .pairs = (unsigned)vh_opt_num(c->opts, "queues", 1), .mtu = (uint16_t)vh_opt_num(c->opts, "mtu", 0) };
	g_autofree char *what = g_strdup_printf("network type %s", type);
	struct optset *set = NULL;
	JsonArray *steps = NULL;
	JsonObject *o;
	struct kvs kvs;
	int r;

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
	if (!steps)
		return r;
	o = json_object_new();
	json_object_set_string_member(o, "type", type);
	json_object_set_array_member(o, "steps", steps);
	if (!r)
		vm_print_json(o);
	json_object_unref(o);
	return r;
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

#define NET(VERB, ARGS, SUMMARY, RUN, ...)                                                                             \
	&(const struct cmd){ .noun = "net", .verb = VERB, .args = ARGS, .summary = SUMMARY, .run = RUN, ##__VA_ARGS__ }

const struct cmd *const cmd_net[] = {
	NET("list", "", "List the network interfaces of the VMs that run", run_list),
	NET("plan", "", "Show what would be made for a NIC, without making it", run_plan, .options = plan_options, .free_options = 1,
	    .help = "The options of the network type are given as --OPTION VALUE; `vhost plugin help TYPE` lists them:\n"
		    "  vhost net plan --type bridge --name br0 --create on"),
	NET("gc", "", "Remove the interfaces and bridges that dead VMs left behind", run_gc, .options = gc_options,
	    .help = "Only what carries a dead VM's tag is removed. Starting a VM does the same."),
	NULL
};
