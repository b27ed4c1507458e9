/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The methods of org.varlink.service and org.vhost.VM. */
#include "ctl/server-i.h"

#include <string.h>

struct method {
	const char *name;
	const char *const *params;
	void (*fn)(struct conn *c, const struct varlink_call *call);
};

static void get_info(struct conn *c, const struct varlink_call *call)
{
	JsonObject *o = json_object_new();
	JsonArray *a = json_array_new();

	json_object_set_string_member(o, "vendor", "The vhost authors");
	json_object_set_string_member(o, "product", "vhost");
	json_object_set_string_member(o, "version", VHOST_VERSION);
	json_object_set_string_member(o, "url", "");
	json_array_add_string_element(a, VARLINK_SERVICE);
	json_array_add_string_element(a, VARLINK_VM);
	json_object_set_array_member(o, "interfaces", a);
	conn_reply(c, o, 0);
}

static void get_description(struct conn *c, const struct varlink_call *call)
{
	const char *name = NULL, *text;
	JsonObject *o;

	if (varlink_str(call, "interface", &name) != 1) {
		conn_invalid(c, "interface");
		return;
	}
	text = !strcmp(name, VARLINK_SERVICE) ? varlink_service_idl : !strcmp(name, VARLINK_VM) ? varlink_vm_idl : NULL;
	o = json_object_new();
	json_object_set_string_member(o, text ? "description" : "interface", text ? text : name);
	if (text)
		conn_reply(c, o, 0);
	else
		conn_error(c, VARLINK_SERVICE ".InterfaceNotFound", o);
}

static void set_state(JsonObject *o, const struct event *ev)
{
	json_object_set_string_member(o, "state", ev->state);
	if (ev->reason)
		json_object_set_string_member(o, "reason", ev->reason);
}

static void get_state(struct conn *c, const struct varlink_call *call)
{
	JsonObject *o = json_object_new();
	struct event ev;

	ctl_state_get(c->s, &ev);
	json_object_set_string_member(o, "name", c->s->name);
	set_state(o, &ev);
	event_clear(&ev);
	conn_reply(c, o, 0);
}

static void info(struct conn *c, const struct varlink_call *call)
{
	job_start(c->s, c, JOB_INFO, 0, 0);
}

static void stop(struct conn *c, const struct varlink_call *call)
{
	struct ctl_server *s = c->s;
	int64_t ms = 0;
	int wait = 0, have = varlink_int(call, "timeout", &ms);
	uint64_t at;

	if (have < 0 || ms < 0 || ms > INT32_MAX) {
		conn_invalid(c, "timeout");
		return;
	}
	if (varlink_bool(call, "wait", &wait) < 0) {
		conn_invalid(c, "wait");
		return;
	}
	/* It stands although this client may go; of several the earliest. */
	at = loop_now(s->loop) + (uint64_t)ms * 1000000u;
	if (have && (!s->force_at || at < s->force_at)) {
		s->force_at = at;
		loop_timer_at(s->force, at);
	}
	job_start(s, c, JOB_BUTTON, 0, wait);
}

static void kill_it(struct conn *c, const struct varlink_call *call)
{
	job_start(c->s, c, JOB_QUIT, 0, 0);
}

static void pause_it(struct conn *c, const struct varlink_call *call)
{
	job_start(c->s, c, JOB_PAUSE, 0, 0);
}

static void resume_it(struct conn *c, const struct varlink_call *call)
{
	job_start(c->s, c, JOB_RESUME, 0, 0);
}

static void reset_it(struct conn *c, const struct varlink_call *call)
{
	job_start(c->s, c, JOB_RESET, 0, 0);
}

static void balloon(struct conn *c, const struct varlink_call *call)
{
	int64_t target = 0;

	if (varlink_int(call, "target", &target) != 1 || target < 0)
		conn_invalid(c, "target");
	else if (!mach_balloon(c->s->mach))
		conn_error(c, VARLINK_VM ".NoBalloon", NULL);
	else
		job_start(c->s, c, JOB_BALLOON, target, 0);
}

static void disk_call(struct conn *c, const struct varlink_call *call, enum job_op op, int named)
{
	const char *disk = NULL, *name = NULL;

	if (varlink_str(call, "disk", &disk) != 1)
		conn_invalid(c, "disk");
	else if (named && varlink_str(call, "name", &name) != 1)
		conn_invalid(c, "name");
	else
		job_start_disk(c->s, c, op, disk, name, 0);
}

static void snapshot_create(struct conn *c, const struct varlink_call *call)
{
	disk_call(c, call, JOB_SNAP_CREATE, 1);
}

static void snapshot_list(struct conn *c, const struct varlink_call *call)
{
	disk_call(c, call, JOB_SNAP_LIST, 0);
}

static void snapshot_delete(struct conn *c, const struct varlink_call *call)
{
	disk_call(c, call, JOB_SNAP_DELETE, 1);
}

static void resize_disk(struct conn *c, const struct varlink_call *call)
{
	const char *disk = NULL;
	int64_t bytes = 0;

	if (varlink_str(call, "disk", &disk) != 1)
		conn_invalid(c, "disk");
	else if (varlink_int(call, "bytes", &bytes) != 1 || bytes < 1)
		conn_invalid(c, "bytes");
	else
		job_start_disk(c->s, c, JOB_RESIZE_DISK, disk, NULL, bytes);
}

static void set_link(struct conn *c, const struct varlink_call *call)
{
	const char *nic = NULL;
	int up = 0;

	if (varlink_str(call, "nic", &nic) != 1)
		conn_invalid(c, "nic");
	else if (varlink_bool(call, "up", &up) != 1)
		conn_invalid(c, "up");
	else
		job_start_disk(c->s, c, JOB_LINK, nic, NULL, up);
}

/* 1: given, 0: not, -1: odd, which the client is told. rate 0 lifts the limit. */
static int limit_of(struct conn *c, const struct varlink_call *call, const char *rate, const char *burst, const char *packets,
		    struct rate_limit *l)
{
	const char *const name[] = { rate, burst, packets };
	uint64_t *const to[] = { &l->bytes, &l->burst, &l->packets };
	int have = 0;

	*l = (struct rate_limit){ 0 };
	for (unsigned i = 0; i < 3; i++) {
		int64_t v = 0;
		int r = varlink_int(call, name[i], &v);

		if (r < 0 || v < 0 || (uint64_t)v > RATE_MAX) {
			conn_invalid(c, name[i]);
			return -1;
		}
		have |= r > 0;
		*to[i] = (uint64_t)v;
	}
	return have;
}

static void limit_nic(struct conn *c, const struct varlink_call *call)
{
	struct rate_limit in, out;
	int have_in, have_out;
	int64_t nic = 0;

	if (varlink_int(call, "nic", &nic) != 1) {
		conn_invalid(c, "nic");
		return;
	}
	have_in = limit_of(c, call, "rate_in", "burst_in", "packets_in", &in);
	if (have_in < 0)
		return;
	have_out = limit_of(c, call, "rate_out", "burst_out", "packets_out", &out);
	if (have_out >= 0)
		job_start_limit(c->s, c, nic, have_in ? &in : NULL, have_out ? &out : NULL);
}

static void stats(struct conn *c, const struct varlink_call *call)
{
	job_start(c->s, c, JOB_STATS, 0, 0);
}

static void console(struct conn *c, const struct varlink_call *call)
{
	int replay = 1;

	if (varlink_bool(call, "replay", &replay) < 0) {
		conn_invalid(c, "replay");
		return;
	}
	if (c->oneway || (!call->upgrade && !call->more)) {
		conn_error(c, VARLINK_SERVICE ".ExpectedMore", NULL);
		return;
	}
	console_attach(c, replay);
	c->mode = call->upgrade ? CONN_RAW : CONN_CONSOLE;
	if (call->upgrade)
		conn_reply(c, NULL, 0);
	console_pump(c);
	if (!c->dead && c->mode == CONN_RAW)
		console_type(c);
}

static void console_input(struct conn *c, const struct varlink_call *call)
{
	g_autofree uint8_t *bytes = NULL;
	const char *data = NULL;
	JsonObject *o;
	gsize n;

	if (varlink_str(call, "data", &data) != 1) {
		conn_invalid(c, "data");
		return;
	}
	bytes = g_base64_decode(data, &n);
	o = json_object_new();
	json_object_set_int_member(o, "taken", c->s->stopped ? 0 : (int64_t)serial_input(mach_serial(c->s->mach), bytes, n));
	conn_reply(c, o, 0);
}

JsonObject *ctl_event_object(const struct event *ev)
{
	g_autofree char *time = ctl_time_text(ev->time);
	JsonObject *o = json_object_new();

	json_object_set_string_member(o, "time", time);
	set_state(o, ev);
	return o;
}

static void events(struct conn *c, const struct varlink_call *call)
{
	int more = call->more && !c->oneway && !c->s->stopped;
	struct event ev;

	ctl_state_get(c->s, &ev);
	conn_reply(c, ctl_event_object(&ev), more);
	event_clear(&ev);
	if (more && !c->dead)
		c->mode = CONN_EVENTS;
}

static const char *const with_interface[] = { "interface", NULL };
static const char *const with_stop[] = { "timeout", "wait", NULL };
static const char *const with_target[] = { "target", NULL };
static const char *const with_replay[] = { "replay", NULL };
static const char *const with_disk[] = { "disk", NULL };
static const char *const with_snapshot[] = { "disk", "name", NULL };
static const char *const with_bytes[] = { "disk", "bytes", NULL };
static const char *const with_link[] = { "nic", "up", NULL };
static const char *const with_limits[] = { "nic", "rate_in", "burst_in", "packets_in", "rate_out", "burst_out", "packets_out", NULL };
static const char *const with_data[] = { "data", NULL };

static const struct method methods[] = {
	{ VARLINK_SERVICE ".GetInfo", NULL, get_info },
	{ VARLINK_SERVICE ".GetInterfaceDescription", with_interface, get_description },
	{ VARLINK_VM ".GetState", NULL, get_state },
	{ VARLINK_VM ".Info", NULL, info },
	{ VARLINK_VM ".Stop", with_stop, stop },
	{ VARLINK_VM ".Kill", NULL, kill_it },
	{ VARLINK_VM ".Pause", NULL, pause_it },
	{ VARLINK_VM ".Resume", NULL, resume_it },
	{ VARLINK_VM ".Reset", NULL, reset_it },
	{ VARLINK_VM ".Console", with_replay, console },
	{ VARLINK_VM ".ConsoleInput", with_data, console_input },
	{ VARLINK_VM ".Balloon", with_target, balloon },
	{ VARLINK_VM ".SnapshotCreate", with_snapshot, snapshot_create },
	{ VARLINK_VM ".SnapshotList", with_disk, snapshot_list },
	{ VARLINK_VM ".SnapshotDelete", with_snapshot, snapshot_delete },
	{ VARLINK_VM ".ResizeDisk", with_bytes, resize_disk },
	{ VARLINK_VM ".SetLink", with_link, set_link },
	{ VARLINK_VM ".LimitNic", with_limits, limit_nic },
	{ VARLINK_VM ".Stats", NULL, stats },
	{ VARLINK_VM ".Events", NULL, events },
};

void ctl_dispatch(struct conn *c, const struct varlink_call *call)
{
	const char *dot = strrchr(call->method, '.'), *odd;
	g_autofree char *interface = dot ? g_strndup(call->method, (gsize)(dot - call->method)) : g_strdup("");
	JsonObject *o;

	for (unsigned i = 0; i < G_N_ELEMENTS(methods); i++) {
		if (strcmp(methods[i].name, call->method))
			continue;
		odd = varlink_unknown(call, methods[i].params);
		if (odd)
			conn_invalid(c, odd);
		else
			methods[i].fn(c, call);
		return;
	}
	o = json_object_new();
	if (strcmp(interface, VARLINK_SERVICE) && strcmp(interface, VARLINK_VM)) {
		json_object_set_string_member(o, "interface", interface);
		conn_error(c, VARLINK_SERVICE ".InterfaceNotFound", o);
	} else {
		json_object_set_string_member(o, "method", call->method);
		conn_error(c, VARLINK_SERVICE ".MethodNotFound", o);
	}
}
