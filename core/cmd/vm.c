/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost vm: what runs, and what can be told to it through its control socket. */
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cmd/store-cmd.h"
#include "cmd/vm.h"
#include "ctl/ctl.h"
#include "util/paths.h"

#define REPLY_MS 30000
#define STOP_MS 60000 /* how long `vm stop` waits for a guest that was not given a time */
#define GONE_MS 20000 /* from "down" until the process has ended: flushing, closing ports */

void vm_print_json(JsonObject *o)
{
	JsonNode *n = json_node_new(JSON_NODE_OBJECT);
	g_autofree char *text = NULL;

	json_node_set_object(n, o);
	text = json_to_string(n, FALSE);
	puts(text);
	fflush(stdout);
	json_node_unref(n);
}

const char *vm_text(JsonObject *o, const char *name)
{
	JsonNode *n = o ? json_object_get_member(o, name) : NULL;

	return n && JSON_NODE_HOLDS_VALUE(n) && json_node_get_value_type(n) == G_TYPE_STRING ? json_node_get_string(n) : NULL;
}

int64_t vm_num(JsonObject *o, const char *name)
{
	JsonNode *n = o ? json_object_get_member(o, name) : NULL;

	return n && JSON_NODE_HOLDS_VALUE(n) ? json_node_get_int(n) : 0;
}

JsonObject *vm_element(JsonObject *o, const char *array, unsigned i)
{
	JsonNode *n = o ? json_object_get_member(o, array) : NULL;
	JsonArray *a = n && JSON_NODE_HOLDS_ARRAY(n) ? json_node_get_array(n) : NULL;

	n = a && i < json_array_get_length(a) ? json_array_get_element(a, i) : NULL;
	return n && JSON_NODE_HOLDS_OBJECT(n) ? json_node_get_object(n) : NULL;
}

int vm_ask(const char *vm, int timeout_ms, const char *method, JsonObject *params, JsonObject **reply, struct vh_err *e)
{
	struct ctl_client *c;
	int r = ctl_client_open(vm, timeout_ms, &c, e);

	if (r < 0) {
		g_clear_pointer(&params, json_object_unref);
		return r;
	}
	r = ctl_client_call(c, method, params, 0, reply, e);
	ctl_client_free(c);
	return r;
}

/* ---- list ---- */

struct list {
	struct out_table *t;
	JsonArray *a; /* with --json */
	int all;
};

static void list_row(struct list *l, const char *name, const char *state, JsonObject *info, int pid)
{
	g_autofree char *cpus = NULL, *memory = NULL, *pid_text = NULL;
	JsonObject *o;

	if (l->a) {
		o = json_object_new();
		json_object_set_string_member(o, "name", name);
		json_object_set_string_member(o, "state", state);
		if (pid)
			json_object_set_int_member(o, "pid", pid);
		else
			json_object_set_null_member(o, "pid");
		for (const char *const *k = (const char *const[]){ "cpus", "memory", "since", NULL }; *k; k++)
			if (info && json_object_has_member(info, *k))
				json_object_set_member(o, *k, json_node_copy(json_object_get_member(info, *k)));
			else
				json_object_set_null_member(o, *k);
		json_array_add_object_element(l->a, o);
		return;
	}
	cpus = info ? g_strdup_printf("%d", (int)vm_num(info, "cpus")) : g_strdup("-");
	memory = info ? format_size((uint64_t)vm_num(info, "memory")) : g_strdup("-");
	pid_text = pid ? g_strdup_printf("%d", pid) : g_strdup("-");
	out_table_row(l->t, name, state, pid_text, cpus, memory, info ? vm_text(info, "since") : "-");
}

static int list_one(void *ctx, const char *name)
{
	struct list *l = ctx;
	JsonObject *info = NULL;
	int pid = 0;

	if (ctl_dir_running(name, &pid)) {
		if (l->all)
			list_row(l, name, "dead", NULL, 0);
		return 0;
	}
	if (vm_ask(name, 2000, "Info", NULL, &info, NULL) < 0 && ctl_dir_running(name, &pid))
		return 0; /* it has ended meanwhile */
	list_row(l, name, info ? vm_text(info, "state") : "silent", info, pid);
	g_clear_pointer(&info, json_object_unref);
	return 0;
}

static int run_list(struct cmd_ctx *c, struct vh_err *e)
{
	static const char *const header[] = { "NAME", "STATE", "PID", "CPUS", "MEMORY", "SINCE", NULL };
	static const int right[] = { 0, 0, 1, 1, 1, 0 };
	struct list l = { .all = (int)vh_opt_num(c->opts, "all", 0) };
	JsonObject *o;
	int r;

	if (c->json)
		l.a = json_array_new();
	else
		l.t = out_table_new(header, right);
	r = ctl_dir_scan(list_one, &l, e);
	if (c->json) {
		o = json_object_new();
		json_object_set_array_member(o, "vms", l.a);
		if (!r)
			vm_print_json(o);
		json_object_unref(o);
	} else {
		out_table_print(l.t);
	}
	return r;
}

/* ---- the simple calls ---- */

static int done(struct cmd_ctx *c, const char *state)
{
	JsonObject *o;

	if (!c->json)
		return 0;
	o = json_object_new();
	json_object_set_string_member(o, "name", c->args[0]);
	json_object_set_string_member(o, "state", state);
	vm_print_json(o);
	json_object_unref(o);
	return 0;
}

static int call(struct cmd_ctx *c, const char *method, struct vh_err *e)
{
	JsonObject *o;
	int r = vm_ask(c->args[0], REPLY_MS, method, NULL, NULL, e);

	if (!r && c->json) {
		r = vm_ask(c->args[0], REPLY_MS, "GetState", NULL, &o, e);
		if (!r) {
			vm_print_json(o);
			json_object_unref(o);
		}
	}
	return r;
}

static int run_pause(struct cmd_ctx *c, struct vh_err *e)
{
	return call(c, "Pause", e);
}

static int run_resume(struct cmd_ctx *c, struct vh_err *e)
{
	return call(c, "Resume", e);
}

static int run_reset(struct cmd_ctx *c, struct vh_err *e)
{
	return call(c, "Reset", e);
}

/* Down is not gone: ports and volumes are closed first, and only then is the name free. */
static int wait_gone(const char *vm, int pid, struct vh_err *e)
{
	g_autofree char *folder = path_in(PATH_STATE, vm, NULL);
	gint64 end = g_get_monotonic_time() + GONE_MS * 1000;
	int now;

	while (!ctl_dir_running(vm, &now) && now == pid) {
		if (g_get_monotonic_time() > end)
			return err_set(e, -ETIMEDOUT, "it is down, but process %d has not ended within %d s", pid, GONE_MS / 1000);
		g_usleep(5000);
	}
	/* Its last act is to remove the folder; one that died in between has left it. */
	for (int i = 0; i < 200 && !access(folder, F_OK) && ctl_dir_running(vm, &now); i++)
		g_usleep(5000);
	return 0;
}

static int run_stop(struct cmd_ctx *c, struct vh_err *e)
{
	int64_t ns = vh_opt_num(c->opts, "timeout", -1);
	int wait = (int)vh_opt_num(c->opts, "wait", 1), pid = 0, r;
	int64_t ms = ns < 0 ? STOP_MS : MIN(ns / 1000000, (int64_t)INT32_MAX / 2);
	JsonObject *o = json_object_new();

	if (ns >= 0)
		json_object_set_int_member(o, "timeout", ms);
	json_object_set_boolean_member(o, "wait", wait);
	ctl_dir_running(c->args[0], &pid);
	r = vm_ask(c->args[0], wait ? (int)ms + (ns < 0 ? 0 : GONE_MS) : REPLY_MS, "Stop", o, NULL, e);
	if (r == -ETIMEDOUT)
		err_remedy(e, "its guest may ignore the power button: add --timeout 10s, or end it with `vhost vm kill %s`", c->args[0]);
	if (r == -ECONNRESET && ctl_dir_running(c->args[0], &pid)) { /* it went before it could answer */
		err_clear(e);
		r = 0;
	}
	if (!r && wait && pid)
		r = wait_gone(c->args[0], pid, e);
	return r ? r : done(c, wait ? "stopped" : "stopping");
}

static int run_kill(struct cmd_ctx *c, struct vh_err *e)
{
	int pid = 0, r;

	ctl_dir_running(c->args[0], &pid);
	r = vm_ask(c->args[0], REPLY_MS, "Kill", NULL, NULL, e);
	if (r == -ECONNRESET) {
		err_clear(e);
		r = 0;
	}
	if (!r && pid)
		r = wait_gone(c->args[0], pid, e);
	return r ? r : done(c, "stopped");
}

static int run_events(struct cmd_ctx *c, struct vh_err *e)
{
	struct ctl_client *cl;
	JsonObject *o = NULL;
	int r = ctl_client_open(c->args[0], -1, &cl, e);

	if (r < 0)
		return r;
	for (r = ctl_client_call(cl, "Events", NULL, CTL_MORE, &o, e) < 0 ? -1 : 1; r > 0; r = ctl_client_next(cl, &o, e)) {
		const char *reason = vm_text(o, "reason");

		if (c->json)
			vm_print_json(o);
		else
			printf("%s  %s%s%s\n", vm_text(o, "time"), vm_text(o, "state"), reason ? ": " : "", reason ? reason : "");
		fflush(stdout);
		g_clear_pointer(&o, json_object_unref);
	}
	ctl_client_free(cl);
	return r < 0 ? e->code ? e->code : -EIO : 0;
}

static const struct vh_opt *const list_options[] = {
	CMD_OPT("all", VH_OPT_BOOL, "Also those that died and left their folder behind", .defval = "off"), NULL };
static const struct vh_opt *const stop_options[] = {
	CMD_OPT("timeout", VH_OPT_DURATION, "End the VM by force, its volumes flushed, when its guest has not gone down by then"),
	CMD_OPT("wait", VH_OPT_BOOL, "Return when the VM has ended; off: at once", .defval = "on"), NULL };
static const struct vh_opt *const console_options[] = {
	CMD_OPT("replay", VH_OPT_BOOL, "Begin with the last 64 KiB of what the guest wrote", .defval = "on"), NULL };

#define VM(VERB, ARGS, SUMMARY, RUN, ...)                                                                              \
	&(const struct cmd){ .noun = "vm", .verb = VERB, .args = ARGS, .summary = SUMMARY, .run = RUN, ##__VA_ARGS__ }

const struct cmd *const cmd_vm[] = {
	VM("list", "", "List the VMs that run", run_list, .options = list_options),
	VM("info", "NAME", "Show one VM: state, size, disks, NICs", vm_run_info),
	VM("stop", "NAME", "Press the power button and wait until the VM has ended", run_stop, .options = stop_options,
	   .help = "A guest that does not listen to the power button goes on: --timeout 30s ends it by force then."),
	VM("kill", "NAME", "End a VM at once; its volumes are flushed", run_kill),
	VM("pause", "NAME", "Stop a VM's processors", run_pause),
	VM("resume", "NAME", "Let a paused VM go on, also after an I/O error has been mended", run_resume),
	VM("reset", "NAME", "Reset a VM as its reset button would", run_reset),
	VM("console", "NAME", "Connect to a VM's serial port", vm_run_console, .options = console_options,
	   .help = "Ctrl-] leaves. Any number may be connected; all see the output, all may type."),
	VM("balloon", "NAME [SIZE]", "Show the balloon, or let the guest keep SIZE of its memory", vm_run_balloon),
	VM("snapshot", "NAME DISK ACTION [SNAPSHOT]", "Make, list or delete snapshots of a disk while the guest runs", vm_run_snapshot,
	   .help = "DISK is its label, serial number or number (vm info); ACTION is create, list or delete. The guest's requests wait for\n"
		   "the moment. What the guest has not flushed yet is not in the snapshot, as after a power cut."),
	VM("resize-disk", "NAME DISK SIZE", "Make a disk larger while the guest runs; +SIZE: by that much", vm_run_resize_disk),
	VM("link", "NAME NIC [on|off]", "Show the link of a NIC, or set it up or down", vm_run_link,
	   .help = "NIC is its interface or its number (vm info). The guest sees the change as a cable that is plugged in or out."),
	VM("limit", "NAME NIC", "Limit what a NIC receives and sends from now on", vm_run_limit, .options = vm_limit_options,
	   .help = "NIC is its number (vm info), from 0. A direction that is not named stays as it is; 0 lifts a limit."),
	VM("stats", "NAME", "Show a VM's counters", vm_run_stats),
	VM("events", "NAME", "Follow a VM's changes of state, one a line", run_events),
	NULL
};
