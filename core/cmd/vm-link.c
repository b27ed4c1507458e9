/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost vm link: the cable of a guest's NIC. */
#include <stdio.h>
#include <string.h>
#include "cmd/store-cmd.h"
#include "cmd/vm.h"

#define REPLY_MS 30000

static void print(struct cmd_ctx *c, const char *nic, JsonObject *o)
{
	if (c->json)
		vm_print_json(o);
	else if (!c->quiet)
		printf("NIC %s (%s) of VM %s: link %s\n", nic, vm_text(o, "ifname"), c->args[0],
		       json_object_get_boolean_member(o, "link") ? "up" : "down");
}

static int show(struct cmd_ctx *c, struct vh_err *e)
{
	JsonObject *o, *nic, *found = NULL;
	int r = vm_ask(c->args[0], REPLY_MS, "Info", NULL, &o, e);
	unsigned i;

	if (r < 0)
		return r;
	for (i = 0; !found && (nic = vm_element(o, "nics", i)); i++) {
		g_autofree char *number = g_strdup_printf("%u", i);

		if (!g_strcmp0(vm_text(nic, "ifname"), c->args[1]) || !strcmp(number, c->args[1]))
			found = nic;
	}
	if (found && json_object_has_member(found, "link")) {
		JsonObject *one = json_object_new();
		g_autofree char *number = g_strdup_printf("%u", i - 1);

		json_object_set_int_member(one, "nic", i - 1);
		json_object_set_string_member(one, "ifname", vm_text(found, "ifname"));
		json_object_set_boolean_member(one, "link", json_object_get_boolean_member(found, "link"));
		print(c, number, one);
		json_object_unref(one);
	} else {
		err_object(e, "VM %s", c->args[0]);
		err_remedy(e, "vhost vm info %s lists its NICs", c->args[0]);
		r = err_set(e, -ENOENT, "there is no NIC %s", c->args[1]);
	}
	json_object_unref(o);
	return r;
}

int vm_run_link(struct cmd_ctx *c, struct vh_err *e)
{
	g_autofree char *number = NULL;
	JsonObject *o;
	int up, r;

	if (c->n_args < 3)
		return show(c, e);
	r = parse_bool(c->args[2], &up, e);
	if (r) {
		err_status(e, EXIT_USAGE);
		return r;
	}
	o = json_object_new();
	json_object_set_string_member(o, "nic", c->args[1]);
	json_object_set_boolean_member(o, "up", up);
	r = vm_ask(c->args[0], REPLY_MS, "SetLink", o, &o, e);
	if (r < 0)
		return r;
	number = g_strdup_printf("%d", (int)vm_num(o, "nic"));
	print(c, number, o);
	json_object_unref(o);
	return 0;
}
