/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "ctl/varlink.h"

#include <glib.h>
#include <string.h>

/* What the parser must not see: deep nesting, for it recurses, and anything but one object, for what json-glib 1.6 has built
 * of a first value is lost in a cycle when a second one follows. */
int varlink_shape_ok(const char *s, size_t n)
{
	unsigned depth = 0;
	int in_string = 0, ended = 0;

	for (size_t i = 0; i < n; i++) {
		if (in_string) {
			if (s[i] == '\\')
				i++;
			else if (s[i] == '"')
				in_string = 0;
			continue;
		}
		if (strchr(" \t\r\n", s[i]))
			continue;
		if (ended || (!depth && s[i] != '{'))
			return 0;
		if (s[i] == '"') {
			in_string = 1;
		} else if (s[i] == '{' || s[i] == '[') {
			if (++depth > VARLINK_DEPTH)
				return 0;
		} else if (s[i] == '}' || s[i] == ']') {
			ended = !--depth;
		} else if (s[i] == '/' || s[i] == '\'') {
			return 0; /* comments and other quotes, which the parser knows and JSON does not */
		}
	}
	return ended;
}

static int flag(JsonObject *o, const char *name, int *out)
{
	JsonNode *n = json_object_get_member(o, name);

	*out = 0;
	if (!n || JSON_NODE_HOLDS_NULL(n))
		return 0;
	if (!JSON_NODE_HOLDS_VALUE(n) || json_node_get_value_type(n) != G_TYPE_BOOLEAN)
		return -EPROTO;
	*out = json_node_get_boolean(n);
	return 0;
}

int varlink_parse(const char *s, size_t n, struct varlink_call *c)
{
	JsonNode *root, *node;
	JsonObject *o;

	memset(c, 0, sizeof(*c));
	if (!n || !g_utf8_validate(s, (gssize)n, NULL) || !varlink_shape_ok(s, n))
		return -EPROTO;
	c->parser = json_parser_new();
	if (!json_parser_load_from_data(c->parser, s, (gssize)n, NULL))
		goto bad;
	root = json_parser_get_root(c->parser);
	if (!root || !JSON_NODE_HOLDS_OBJECT(root))
		goto bad;
	o = json_node_get_object(root);
	node = json_object_get_member(o, "method");
	if (!node || !JSON_NODE_HOLDS_VALUE(node) || json_node_get_value_type(node) != G_TYPE_STRING)
		goto bad;
	c->method = json_node_get_string(node);
	node = json_object_get_member(o, "parameters");
	if (node && !JSON_NODE_HOLDS_NULL(node)) {
		if (!JSON_NODE_HOLDS_OBJECT(node))
			goto bad;
		c->params = json_node_get_object(node);
	}
	if (flag(o, "more", &c->more) || flag(o, "oneway", &c->oneway) || flag(o, "upgrade", &c->upgrade))
		goto bad;
	return 0;
bad:
	varlink_clear(c);
	return -EPROTO;
}

void varlink_clear(struct varlink_call *c)
{
	g_clear_object(&c->parser);
}

static JsonNode *param(const struct varlink_call *c, const char *name)
{
	JsonNode *n = c->params ? json_object_get_member(c->params, name) : NULL;

	return n && JSON_NODE_HOLDS_NULL(n) ? NULL : n;
}

static int is(JsonNode *n, GType type)
{
	return JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == type;
}

int varlink_int(const struct varlink_call *c, const char *name, int64_t *out)
{
	JsonNode *n = param(c, name);

	if (!n)
		return 0;
	if (!is(n, G_TYPE_INT64))
		return -EINVAL;
	*out = json_node_get_int(n);
	return 1;
}

int varlink_bool(const struct varlink_call *c, const char *name, int *out)
{
	JsonNode *n = param(c, name);

	if (!n)
		return 0;
	if (!is(n, G_TYPE_BOOLEAN))
		return -EINVAL;
	*out = json_node_get_boolean(n);
	return 1;
}

int varlink_str(const struct varlink_call *c, const char *name, const char **out)
{
	JsonNode *n = param(c, name);

	if (!n)
		return 0;
	if (!is(n, G_TYPE_STRING))
		return -EINVAL;
	*out = json_node_get_string(n);
	return 1;
}

const char *varlink_unknown(const struct varlink_call *c, const char *const *known)
{
	g_autoptr(GList) names = c->params ? json_object_get_members(c->params) : NULL;

	for (GList *l = names; l; l = l->next)
		if (!known || !g_strv_contains(known, l->data))
			return l->data;
	return NULL;
}

char *varlink_message(const char *error, JsonObject *params, int continues, size_t *len)
{
	JsonNode *root = json_node_new(JSON_NODE_OBJECT);
	JsonObject *o = json_object_new();
	JsonGenerator *gen = json_generator_new();
	gsize n;
	char *text;

	if (error)
		json_object_set_string_member(o, "error", error);
	json_object_set_object_member(o, "parameters", params ? params : json_object_new());
	if (continues)
		json_object_set_boolean_member(o, "continues", TRUE);
	json_node_take_object(root, o);
	json_generator_set_root(gen, root);
	text = json_generator_to_data(gen, &n);
	json_node_unref(root);
	g_object_unref(gen);
	if (!g_utf8_validate(text, (gssize)n, NULL)) { /* labels may come from file names */
		char *valid = g_utf8_make_valid(text, (gssize)n);

		g_free(text);
		text = valid;
		n = strlen(text);
	}
	*len = n + 1;
	return text;
}

const char varlink_service_idl[] =
	"# The Varlink Service Interface is provided by every varlink service. It\n"
	"# describes the service and the interfaces it implements.\n"
	"interface org.varlink.service\n\n"
	"method GetInfo() -> (\n  vendor: string,\n  product: string,\n  version: string,\n  url: string,\n  interfaces: []string\n)\n\n"
	"method GetInterfaceDescription(interface: string) -> (description: string)\n\n"
	"error InterfaceNotFound (interface: string)\n"
	"error MethodNotFound (method: string)\n"
	"error MethodNotImplemented (method: string)\n"
	"error InvalidParameter (parameter: string)\n"
	"error ExpectedMore ()\n";

const char varlink_vm_idl[] =
	"# One running virtual machine. Bytes and counts are integers, times RFC 3339.\n"
	"# States: new, running, paused, io-error, stopped.\n"
	"interface org.vhost.VM\n\n"
	"# lost: its storage is not there, requests wait. late: requests that are older than its io-timeout.\n"
	"type Disk (label: string, serial: string, bytes: int, read_only: bool, lost: bool, late: int)\n"
	"type Nic (ifname: string, mac: string, mtu: int, queue_pairs: int, link: bool, master: ?string, network: ?string)\n"
	"type Cpu (exits: int, io: int, mmio: int, halts: int)\n"
	"type DiskStats (\n  label: string,\n  reads: int, read_bytes: int, writes: int, write_bytes: int,\n"
	"  zeroes: int, zero_bytes: int, discards: int, discard_bytes: int, flushes: int,\n"
	"  errors: int, map_calls: int, commits: int, cache_hits: int\n)\n"
	"# As the guest sees it: rx is what it received. The interface's counters, and behind them the device's: what the guest's filters\n"
	"# or missing buffers kept out, what the interface refused, what the guard dropped, how often a limit held something up,\n"
	"# and how many queues the kernel's vhost-net serves.\n"
	"type NicStats (\n  ifname: string,\n  rx_packets: int, rx_bytes: int, rx_errors: int, rx_dropped: int,\n"
	"  tx_packets: int, tx_bytes: int, tx_errors: int, tx_dropped: int,\n"
	"  rx_filtered: int, tx_refused: int, guard_dropped: int, rate_in_waits: int, rate_out_waits: int,\n  kernel_queues: int\n)\n"
	"# actual and target: memory that the guest has and shall have; the rest as the guest last reported it.\n"
	"type BalloonStats (\n  actual: int, target: int, swap_in: ?int, swap_out: ?int, major_faults: ?int, minor_faults: ?int,\n"
	"  free: ?int, total: ?int, available: ?int, disk_caches: ?int, updated: ?int\n)\n"
	"# Of the process: all, what is the guest's, and what is not.\n"
	"type MemoryStats (resident: int, guest: int, overhead: int)\n"
	"type Snapshot (id: string, name: string, disk_bytes: int, time: ?string)\n"
	"type Counter (object: string, name: string, value: int)\n\n"
	"method GetState() -> (name: string, state: string, reason: ?string)\n\n"
	"method Info() -> (\n  name: string, pid: int, state: string, reason: ?string, since: string, cpus: int, memory: int,\n"
	"  disks: []Disk, nics: []Nic\n)\n\n"
	"# Presses the power button. timeout: milliseconds, after which the machine is ended with its volumes flushed.\n"
	"# wait: the reply comes when the machine is down.\n"
	"method Stop(timeout: ?int, wait: ?bool) -> ()\n\n"
	"# Ends the machine at once, volumes flushed.\n"
	"method Kill() -> ()\n\nmethod Pause() -> ()\n\nmethod Resume() -> ()\n\nmethod Reset() -> ()\n\n"
	"# What the serial port sends, after (replay, the default) the last 64 KiB of what it sent. Called with \"upgrade\" the\n"
	"# connection carries bare bytes both ways after the reply; called with \"more\" each reply has data in base64, and how\n"
	"# many bytes were lost before them because the client was slow.\n"
	"method Console(replay: ?bool) -> (data: ?string, lost: ?int)\n\n"
	"# Types on the serial port. data: base64. taken: how many bytes the port had room for.\n"
	"method ConsoleInput(data: string) -> (taken: int)\n\n"
	"# Memory that the guest shall keep, in bytes.\n"
	"method Balloon(target: int) -> (actual: int, target: int)\n\n"
	"# Snapshots that the disk's format keeps in the image. disk: its label, serial number or number. The guest's requests wait\n"
	"# for the moment; what it has not flushed is not in the snapshot.\n"
	"method SnapshotCreate(disk: string, name: string) -> ()\n\n"
	"method SnapshotList(disk: string) -> (snapshots: []Snapshot)\n\n"
	"method SnapshotDelete(disk: string, name: string) -> ()\n\n"
	"# Grows a disk; the guest is told.\n"
	"method ResizeDisk(disk: string, bytes: int) -> (disk: string, bytes: int)\n\n"
	"# The link of a NIC, which is its interface's name or a number, up or down; the guest is told.\n"
	"method SetLink(nic: string, up: bool) -> (nic: int, ifname: string, link: bool)\n\n"
	"# Limits of what a NIC (its number) receives and sends from now on: bytes a second, bytes at once after a silence, packets a\n"
	"# second. A direction of which nothing is given stays as it is; else what is not given of it, or 0, is no limit.\n"
	"method LimitNic(\n  nic: int, rate_in: ?int, burst_in: ?int, packets_in: ?int, rate_out: ?int, burst_out: ?int, packets_out: ?int\n) -> ()\n\n"
	"method Stats() -> (\n  cpus: []Cpu, disks: []DiskStats, nics: []NicStats, balloon: ?BalloonStats, memory: MemoryStats, counters: []Counter\n)\n\n"
	"# The state now and, called with \"more\", every change of it.\n"
	"method Events() -> (time: string, state: string, reason: ?string)\n\n"
	"# What went wrong: errno's symbol and number, the text, and what to do about it.\n"
	"error Failed (error: string, code: int, message: string, remedy: ?string)\n"
	"error NoBalloon ()\n"
	"error ShuttingDown ()\n";
