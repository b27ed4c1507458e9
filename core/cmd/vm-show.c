/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost vm info | stats | balloon: what a VM tells of itself. */
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include "cmd/store-cmd.h"
#include "cmd/vm.h"

#define REPLY_MS 30000
#define COLUMNS 10 /* of a table, at most */

static char *size_of(JsonObject *o, const char *name)
{
	return format_size((uint64_t)vm_num(o, name));
}

static char *count_of(JsonObject *o, const char *name)
{
	return g_strdup_printf("%" G_GINT64_FORMAT, vm_num(o, name));
}

int vm_run_info(struct cmd_ctx *c, struct vh_err *e)
{
	g_autofree char *memory = NULL;
	const char *reason, *master, *network;
	JsonObject *o, *d;
	int r = vm_ask(c->args[0], REPLY_MS, "Info", NULL, &o, e);

	if (r < 0)
		return r;
	if (c->json) {
		vm_print_json(o);
		json_object_unref(o);
		return 0;
	}
	memory = size_of(o, "memory");
	reason = vm_text(o, "reason");
	printf("Name:    %s\nState:   %s%s%s\nProcess: %d\nSince:   %s\nCPUs:    %d\nMemory:  %s\n", vm_text(o, "name"),
	       vm_text(o, "state"), reason ? ": " : "", reason ? reason : "", (int)vm_num(o, "pid"), vm_text(o, "since"),
	       (int)vm_num(o, "cpus"), memory);
	for (unsigned i = 0; (d = vm_element(o, "disks", i)); i++) {
		g_autofree char *bytes = size_of(d, "bytes");

		printf("Disk:    %s, %s%s%s", vm_text(d, "label"), bytes, json_object_get_boolean_member(d, "read_only") ? ", read-only" : "",
		       json_object_get_boolean_member(d, "lost") ? ", its storage is lost" : "");
		if (vm_num(d, "late"))
			printf(", requests late: %d", (int)vm_num(d, "late"));
		putchar('\n');
	}
	for (unsigned i = 0; (d = vm_element(o, "nics", i)); i++) {
		master = vm_text(d, "master");
		network = vm_text(d, "network");
		printf("NIC:     %s%s%s%s%s%s, MAC %s, MTU %d, %d queue pair%s\n", vm_text(d, "ifname"), master ? " on " : "", master ? master : "",
		       network ? ", network " : "", network ? network : "", json_object_get_boolean_member(d, "link") ? "" : ", link down",
		       vm_text(d, "mac"), (int)vm_num(d, "mtu"), (int)vm_num(d, "queue_pairs"), vm_num(d, "queue_pairs") == 1 ? "" : "s");
	}
	json_object_unref(o);
	return 0;
}

/* One table: the first column is a text, or the element's number; the others are counts, or sizes (a name with _bytes). */
static void table(JsonObject *o, const char *array, const char *const *header, const char *const *member)
{
	static const int right[] = { 0, 1, 1, 1, 1, 1, 1, 1, 1, 1 };
	struct out_table *t;
	JsonObject *d;

	if (!vm_element(o, array, 0))
		return;
	t = out_table_new(header, right);
	for (unsigned i = 0; (d = vm_element(o, array, i)); i++) {
		char *cell[COLUMNS] = { NULL };

		for (unsigned k = 0; k < COLUMNS && member[k]; k++)
			cell[k] = !k ? *member[0] ? g_strdup(vm_text(d, member[0])) : g_strdup_printf("%u", i) :
				  strstr(member[k], "_bytes") ? size_of(d, member[k]) : count_of(d, member[k]);
		out_table_cells(t, (const char *const *)cell);
		for (unsigned k = 0; k < COLUMNS; k++)
			g_free(cell[k]);
	}
	out_table_print(t);
	putchar('\n');
}

static void print_balloon(JsonObject *b)
{
	g_autofree char *actual = size_of(b, "actual"), *target = size_of(b, "target"), *avail = size_of(b, "available");
	g_autofree char *unused = size_of(b, "free"), *total = size_of(b, "total");

	printf("Balloon: the guest has %s, shall have %s\n", actual, target);
	if (json_object_has_member(b, "total"))
		printf("Guest:   %s in all, %s available, %s free\n", total, avail, unused);
	else
		puts("Guest:   has reported nothing yet");
}

int vm_run_stats(struct cmd_ctx *c, struct vh_err *e)
{
	static const char *const cpu_head[] = { "CPU", "EXITS", "IO", "MMIO", "HALTS", NULL };
	static const char *const cpu_member[] = { "", "exits", "io", "mmio", "halts", NULL };
	static const char *const disk_head[] = { "DISK", "READS", "READ", "WRITES", "WRITTEN", "FLUSHES", "ERRORS", NULL };
	static const char *const disk_member[] = { "label", "reads", "read_bytes", "writes", "write_bytes", "flushes", "errors", NULL };
	static const char *const nic_head[] = { "NIC", "RX PACKETS", "RX", "RX DROPPED", "TX PACKETS", "TX", "TX DROPPED", "GUARD", "WAITS IN", "WAITS OUT",
						NULL };
	static const char *const nic_member[] = { "ifname", "rx_packets", "rx_bytes", "rx_dropped", "tx_packets", "tx_bytes", "tx_dropped",
						  "guard_dropped", "rate_in_waits", "rate_out_waits", NULL };
	JsonObject *o, *m, *d;
	JsonNode *n;
	int r = vm_ask(c->args[0], REPLY_MS, "Stats", NULL, &o, e);

	if (r < 0)
		return r;
	if (c->json) {
		vm_print_json(o);
		json_object_unref(o);
		return 0;
	}
	table(o, "cpus", cpu_head, cpu_member);
	table(o, "disks", disk_head, disk_member);
	table(o, "nics", nic_head, nic_member);
	n = json_object_get_member(o, "memory");
	m = n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
	if (m) {
		g_autofree char *guest = size_of(m, "guest"), *overhead = size_of(m, "overhead");

		printf("Memory:  %s of the guest's touched, %s of the process besides\n", guest, overhead);
	}
	n = json_object_get_member(o, "balloon");
	if (n && JSON_NODE_HOLDS_OBJECT(n))
		print_balloon(json_node_get_object(n));
	for (unsigned i = 0; (d = vm_element(o, "counters", i)); i++)
		printf("%s %s: %" G_GINT64_FORMAT "\n", vm_text(d, "object"), vm_text(d, "name"), vm_num(d, "value"));
	json_object_unref(o);
	return 0;
}

static int set_balloon(struct cmd_ctx *c, struct vh_err *e)
{
	JsonObject *o = NULL;
	uint64_t bytes;
	int r = parse_size(c->args[1], &bytes, e);

	if (r < 0) {
		err_status(e, EXIT_USAGE);
		return r;
	}
	if (bytes > INT64_MAX)
		return err_usage(e, "'%s' is more than any VM has", c->args[1]);
	o = json_object_new();
	json_object_set_int_member(o, "target", (int64_t)bytes);
	r = vm_ask(c->args[0], REPLY_MS, "Balloon", o, &o, e);
	if (!r && c->json)
		vm_print_json(o);
	if (!r)
		json_object_unref(o);
	return r;
}

int vm_run_balloon(struct cmd_ctx *c, struct vh_err *e)
{
	JsonObject *o;
	JsonNode *n;
	int r;

	if (c->n_args > 1)
		return set_balloon(c, e);
	r = vm_ask(c->args[0], REPLY_MS, "Stats", NULL, &o, e);
	if (r < 0)
		return r;
	n = json_object_get_member(o, "balloon");
	if (!n || !JSON_NODE_HOLDS_OBJECT(n)) {
		err_remedy(e, "start it with --balloon on");
		r = err_set(e, -EOPNOTSUPP, "the VM has no balloon");
	} else if (c->json) {
		vm_print_json(json_node_get_object(n));
	} else {
		print_balloon(json_node_get_object(n));
	}
	json_object_unref(o);
	return r;
}
