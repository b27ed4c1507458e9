/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost net list | info: networks, and the switch that one is. */
#include <string.h>
#include "cmd/net.h"
#include "cmd/vm.h"

const struct vh_opt *const net_info_options[] = {
	CMD_OPT("dot", VH_OPT_BOOL, "Draw it for Graphviz"),
	CMD_OPT("svg", VH_OPT_BOOL, "Draw it as SVG"), NULL};

/* ---- list ---- */

struct list {
	struct out_table *t;
	JsonBuilder *b;
	GHashTable *ports; /* name -> how many */
};

static int count_port(void *ctx, const char *vm, unsigned index, JsonObject *nic)
{
	const char *name = vm_text(nic, "network");
	GHashTable *h = ctx;

	if (name)
		g_hash_table_insert(h, g_strdup(name), GUINT_TO_POINTER(GPOINTER_TO_UINT(g_hash_table_lookup(h, name)) + 1));
	return 0;
}

static void network_json(JsonBuilder *b, const char *name, const struct network *n, const char *state, const char *why)
{
	js_text(b, "name", name);
	js_text(b, "kind", n->kind);
	js_text(b, "type", n->type);
	js_text(b, "state", state);
	js_text(b, "detail", why);
	js_bool(b, "autostart", n->autostart);
	json_builder_set_member_name(b, "options");
	json_builder_begin_object(b);
	for (unsigned i = 0; i < n->options.n; i++)
		js_text(b, n->options.v[i].key, n->options.v[i].value);
	json_builder_end_object(b);
}

static int list_one(void *ctx, const char *name)
{
	struct list *l = ctx;
	struct network n;
	ERR_AUTO(e);
	const char *state = network_load(name, &n, &e) ? "broken" : net_state_word(network_state(name));
	unsigned ports = GPOINTER_TO_UINT(g_hash_table_lookup(l->ports, name));
	g_autofree char *number = g_strdup_printf("%u", ports);

	if (l->b) {
		json_builder_begin_object(l->b);
		network_json(l->b, name, &n, state, e.cause);
		json_builder_set_member_name(l->b, "ports");
		json_builder_add_int_value(l->b, ports);
		json_builder_end_object(l->b);
	} else {
		out_table_row(l->t, name, n.kind ? n.kind : "-", n.type ? n.type : "-", state, n.autostart ? "yes" : "no", number);
	}
	network_clear(&n);
	return 0;
}

int net_run_list(struct cmd_ctx *c, struct vh_err *e)
{
	static const char *const header[] = { "NAME", "KIND", "TYPE", "STATE", "AUTOSTART", "PORTS", NULL };
	static const int right[] = { 0, 0, 0, 0, 0, 1 };
	struct list l = { .ports = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL) };
	int r = net_ports(count_port, l.ports, e);

	if (c->json) {
		l.b = json_builder_new();
		json_builder_begin_object(l.b);
		json_builder_set_member_name(l.b, "networks");
		json_builder_begin_array(l.b);
	} else {
		l.t = out_table_new(header, right);
	}
	if (!r)
		r = network_names(list_one, &l, e);
	if (c->json) {
		json_builder_end_array(l.b);
		json_builder_end_object(l.b);
		if (r)
			g_object_unref(l.b);
		else
			out_json(l.b);
	} else {
		out_table_print(l.t);
	}
	g_hash_table_unref(l.ports);
	return r;
}

/* ---- info ---- */

static void part_json(JsonBuilder *b, const struct network_part *p)
{
	g_autofree char *mac = p->have_mac ? g_strdup_printf("%02x:%02x:%02x:%02x:%02x:%02x", p->mac[0], p->mac[1], p->mac[2], p->mac[3],
							       p->mac[4], p->mac[5]) : NULL;

	json_builder_begin_object(b);
	js_text(b, "kind", p->kind);
	js_text(b, "name", p->name);
	js_text(b, "above", p->above);
	js_text(b, "detail", p->detail);
	js_text(b, "mac", mac);
	json_builder_set_member_name(b, "ifindex");
	json_builder_add_int_value(b, p->ifindex);
	json_builder_set_member_name(b, "mtu");
	json_builder_add_int_value(b, p->mtu);
	js_bool(b, "up", p->up);
	js_text(b, "owner", p->owner);
	js_text(b, "vm", p->vm);
	json_builder_set_member_name(b, "nic");
	if (p->vm)
		json_builder_add_int_value(b, p->nic);
	else
		json_builder_add_null_value(b);
	json_builder_end_object(b);
}

static void info_json(const struct network *n, const char *state, const struct network_parts *p)
{
	JsonBuilder *b = json_builder_new();

	json_builder_begin_object(b);
	network_json(b, n->name, n, state, NULL);
	json_builder_set_member_name(b, "parts");
	json_builder_begin_array(b);
	for (unsigned i = 0; i < p->n; i++)
		part_json(b, &p->v[i]);
	json_builder_end_array(b);
	js_bool(b, "cut", p->cut);
	json_builder_end_object(b);
	out_json(b);
}

static void info_text(const struct network *n, const char *state, const struct network_parts *p)
{
	printf("Name:       %s\nKind:       %s\nType:       %s\nState:      %s\nAutostart:  %s\n", n->name, n->kind, n->type, state,
	       n->autostart ? "yes" : "no");
	for (unsigned i = 0; i < n->options.n; i++)
		printf("Option:     %s=%s\n", n->options.v[i].key, n->options.v[i].value);
	putchar('\n');
	net_draw_text(stdout, p);
	if (!p->n)
		puts("Nothing of it exists now: its first NIC makes what it needs.");
	if (p->cut)
		printf("(more than %u parts: the rest is not shown)\n", NETWORK_PARTS_MAX);
}

char *net_part_text(const struct network_part *p)
{
	GString *s = g_string_new(p->kind);

	if (p->vm)
		g_string_append_printf(s, ", VM %s NIC %d", p->vm, p->nic);
	if (p->detail && *p->detail)
		g_string_append_printf(s, ", %s", p->detail);
	if (p->mtu)
		g_string_append_printf(s, ", MTU %u", p->mtu);
	if (p->ifindex)
		g_string_append(s, p->up ? ", up" : ", down");
	return g_string_free(s, FALSE);
}

int net_run_info(struct cmd_ctx *c, struct vh_err *e)
{
	int dot = vh_opt_num(c->opts, "dot", 0) != 0, svg = vh_opt_num(c->opts, "svg", 0) != 0;
	struct network_parts parts;
	g_autofree char *title = NULL;
	struct network n;
	const char *state;
	int r;

	if (dot + svg + (c->json != 0) > 1)
		return err_usage(e, "--dot, --svg and --json are three forms of the same: choose one");
	r = network_load(c->args[0], &n, e);
	if (r)
		return r;
	r = network_describe(&n, &parts, e);
	if (r) {
		err_object(e, "network %s", n.name);
		network_clear(&n);
		return r;
	}
	state = net_state_word(network_state(n.name));
	title = g_strdup_printf("%s: %s, %s", n.name, n.kind, state);
	if (dot)
		net_draw_dot(stdout, title, &parts);
	else if (svg)
		net_draw_svg(stdout, title, &parts);
	else if (c->json)
		info_json(&n, state, &parts);
	else
		info_text(&n, state, &parts);
	network_parts_clear(&parts);
	network_clear(&n);
	return 0;
}
