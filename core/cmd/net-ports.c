/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost net ports: the NICs of the VMs that run. */
#include <string.h>
#include "cmd/net.h"
#include "cmd/vm.h"
#include "ctl/ctl.h"

struct scan {
	int (*fn)(void *ctx, const char *vm, unsigned index, JsonObject *nic);
	void *ctx;
};

static int scan_vm(void *ctx, const char *name)
{
	struct scan *s = ctx;
	JsonObject *info, *nic;
	int pid, r = 0;

	/* One that does not answer in time, or ends meanwhile, is as good as gone. */
	if (ctl_dir_running(name, &pid) || vm_ask(name, 2000, "Info", NULL, &info, NULL) < 0)
		return 0;
	for (unsigned i = 0; !r && (nic = vm_element(info, "nics", i)); i++)
		r = s->fn(s->ctx, name, i, nic);
	json_object_unref(info);
	return r;
}

int net_ports(int (*fn)(void *ctx, const char *vm, unsigned index, JsonObject *nic), void *ctx, struct vh_err *e)
{
	struct scan s = {fn, ctx};

	return ctl_dir_scan(scan_vm, &s, e);
}

struct list {
	struct out_table *t;
	JsonArray *a; /* with --json */
};

static int list_nic(void *ctx, const char *vm, unsigned index, JsonObject *nic)
{
	struct list *l = ctx;
	JsonNode *link = json_object_get_member(nic, "link");
	int up = link && JSON_NODE_HOLDS_VALUE(link) && json_node_get_boolean(link);
	const char *network = vm_text(nic, "network"), *master = vm_text(nic, "master");
	g_autofree char *number = g_strdup_printf("%u", index), *mtu = g_strdup_printf("%d", (int)vm_num(nic, "mtu"));
	g_autofree char *queues = g_strdup_printf("%d", (int)vm_num(nic, "queue_pairs"));
	JsonObject *o;

	if (!l->a) {
		out_table_row(l->t, vm, number, network ? network : "-", vm_text(nic, "ifname"), master ? master : "-", vm_text(nic, "mac"),
			      mtu, queues, up ? "up" : "down");
		return 0;
	}
	o = json_object_new();
	json_object_set_string_member(o, "vm", vm);
	json_object_set_int_member(o, "index", index);
	for (const char *const *k = (const char *const[]){ "network", "ifname", "master", "mac", "mtu", "queue_pairs", "link", NULL }; *k; k++)
		if (json_object_has_member(nic, *k))
			json_object_set_member(o, *k, json_node_copy(json_object_get_member(nic, *k)));
		else
			json_object_set_null_member(o, *k);
	json_array_add_object_element(l->a, o);
	return 0;
}

int net_run_ports(struct cmd_ctx *c, struct vh_err *e)
{
	static const char *const header[] = { "VM", "NIC", "NETWORK", "INTERFACE", "BRIDGE", "MAC", "MTU", "QUEUES", "LINK", NULL };
	static const int right[] = { 0, 1, 0, 0, 0, 0, 1, 1, 0 };
	struct list l = { 0 };
	JsonObject *o;
	int r;

	if (c->json)
		l.a = json_array_new();
	else
		l.t = out_table_new(header, right);
	r = net_ports(list_nic, &l, e);
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
