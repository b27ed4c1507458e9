/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost vm snapshot | resize-disk: disks of guests that run. */
#include <stdio.h>
#include <string.h>
#include "cmd/store-cmd.h"
#include "cmd/vm.h"

#define DISK_MS 600000 /* a snapshot of a large disk copies its tables */

static JsonObject *params(struct cmd_ctx *c, const char *snapshot)
{
	JsonObject *o = json_object_new();

	json_object_set_string_member(o, "disk", c->args[1]);
	if (snapshot)
		json_object_set_string_member(o, "name", snapshot);
	return o;
}

static int list(struct cmd_ctx *c, struct vh_err *e)
{
	static const char *const header[] = {"ID", "NAME", "DISK SIZE", "TIME", NULL};
	static const int right[] = {0, 0, 1, 0};
	struct out_table *t;
	JsonObject *o, *s;
	int r = vm_ask(c->args[0], DISK_MS, "SnapshotList", params(c, NULL), &o, e);

	if (r < 0)
		return r;
	if (c->json) {
		vm_print_json(o);
	} else {
		t = out_table_new(header, right);
		for (unsigned i = 0; (s = vm_element(o, "snapshots", i)); i++) {
			g_autofree char *bytes = size_text((uint64_t)vm_num(s, "disk_bytes"));
			const char *time = vm_text(s, "time");

			out_table_row(t, vm_text(s, "id"), vm_text(s, "name"), bytes, time ? time : "-");
		}
		out_table_print(t);
	}
	json_object_unref(o);
	return 0;
}

int vm_run_snapshot(struct cmd_ctx *c, struct vh_err *e)
{
	const char *action = c->args[2], *name = c->n_args > 3 ? c->args[3] : NULL;
	int create = !strcmp(action, "create");
	JsonObject *o;
	int r;

	if (!strcmp(action, "apply")) {
		err_remedy(e, "stop it, then: vhost vol snapshot apply POOL/VOLUME %s", name ? name : "NAME");
		return err_usage(e, "a snapshot is not applied under a guest that runs");
	}
	if (!strcmp(action, "list"))
		return name ? err_usage(e, "list takes no name") : list(c, e);
	if (!create && strcmp(action, "delete")) {
		err_remedy(e, "create, list or delete");
		return err_usage(e, "'%s' is nothing to be done with snapshots", action);
	}
	if (!name || !*name)
		return err_usage(e, "the snapshot's name is missing");
	r = vm_ask(c->args[0], DISK_MS, create ? "SnapshotCreate" : "SnapshotDelete", params(c, name), &o, e);
	if (r < 0)
		return r;
	json_object_unref(o);
	if (c->json) {
		o = params(c, name);
		json_object_set_string_member(o, "vm", c->args[0]);
		json_object_set_string_member(o, "result", create ? "created" : "deleted");
		vm_print_json(o);
		json_object_unref(o);
	} else if (!c->quiet) {
		printf("snapshot %s of disk %s of VM %s %s\n", name, c->args[1], c->args[0], create ? "made" : "deleted");
	}
	return 0;
}

/* The size now, for "+5G". */
static int size_now(struct cmd_ctx *c, uint64_t *bytes, struct vh_err *e)
{
	JsonObject *o, *d;
	int r = vm_ask(c->args[0], DISK_MS, "Info", NULL, &o, e), found = 0;

	if (r < 0)
		return r;
	for (unsigned i = 0; !found && (d = vm_element(o, "disks", i)); i++) {
		g_autofree char *number = g_strdup_printf("%u", i);

		found = !g_strcmp0(vm_text(d, "label"), c->args[1]) || !strcmp(number, c->args[1]) ||
			(c->args[1][0] && !g_strcmp0(vm_text(d, "serial"), c->args[1]));
		*bytes = (uint64_t)vm_num(d, "bytes");
	}
	json_object_unref(o);
	return found ? 0 : err_set(e, -ENOENT, "there is no disk %s", c->args[1]);
}

int vm_run_resize_disk(struct cmd_ctx *c, struct vh_err *e)
{
	uint64_t bytes, now = 0;
	JsonObject *o;
	int r = c->args[2][0] == '+' ? size_now(c, &now, e) : 0;

	if (!r)
		r = cmd_size(c->args[2], now, &bytes, e);
	if (!r && bytes > INT64_MAX)
		r = err_usage(e, "'%s' is more than any disk has", c->args[2]);
	if (r)
		return r;
	o = params(c, NULL);
	json_object_set_int_member(o, "bytes", (int64_t)bytes);
	r = vm_ask(c->args[0], DISK_MS, "ResizeDisk", o, &o, e);
	if (r < 0)
		return r;
	if (c->json) {
		vm_print_json(o);
	} else if (!c->quiet) {
		g_autofree char *size = size_text((uint64_t)vm_num(o, "bytes"));

		printf("disk %s of VM %s has %s now\n", c->args[1], c->args[0], size);
	}
	json_object_unref(o);
	return 0;
}
