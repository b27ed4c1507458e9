/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost net define | delete | autostart | start | stop: networks as objects. */
#include <string.h>
#include "cmd/net.h"
#include "cmd/vm.h"

const struct vh_opt *const net_define_options[] = {
	CMD_OPT("kind", VH_OPT_STR, "What the network is: bridged, vlan, macvtap, isolated, nat, as far as there are plugins for it",
		.flags = VH_OPT_REQUIRED),
	CMD_OPT("type", VH_OPT_STR, "The plugin that makes it, where several make its kind"),
	CMD_OPT("autostart", VH_OPT_BOOL, "Start it with the host", .defval = "off"), NULL};

const char *net_state_word(enum network_state s)
{
	static const char *const words[] = {[NETWORK_STOPPED] = "stopped", [NETWORK_STARTED] = "started", [NETWORK_CHANGING] = "changing",
					    [NETWORK_LEFT] = "left behind"};

	return words[s];
}

int net_run_define(struct cmd_ctx *c, struct vh_err *e)
{
	const char *name = c->args[0];
	struct kvs options;
	int r, again;

	cmd_free_options(c, &options);
	r = network_define(name, vh_opt_str(c->opts, "kind", ""), vh_opt_str(c->opts, "type", NULL), &options, e);
	kvs_clear(&options);
	if (r < 0) {
		err_object(e, "network %s", name);
		return r;
	}
	again = r == 1;
	r = vh_opt_num(c->opts, "autostart", 0) ? network_set_autostart(name, 1, e) : 0;
	if (r) { /* defined wholly or not at all */
		if (!again)
			network_delete(name, NULL);
		return r;
	}
	return out_done(c, "network", "defined");
}

struct users {
	const char *network;
	GString *names;
	unsigned n;
};

static int find_user(void *ctx, const char *vm, unsigned index, JsonObject *nic)
{
	struct users *u = ctx;

	if (g_strcmp0(vm_text(nic, "network"), u->network))
		return 0;
	if (u->n++ < 8)
		g_string_append_printf(u->names, "%sVM %s NIC %u (%s)", u->names->len ? ", " : "", vm, index, vm_text(nic, "ifname"));
	return 0;
}

/* -EBUSY with the names of its users. */
static int unused(const char *name, struct vh_err *e)
{
	struct users u = {name, g_string_new(NULL), 0};
	int r = net_ports(find_user, &u, e);

	if (!r && u.n) {
		err_object(e, "network %s", name);
		err_remedy(e, "stop the VM%s first", u.n == 1 ? "" : "s");
		r = err_set(e, -EBUSY, "it is in use by %s%s", u.names->str, u.n > 8 ? " and others" : "");
	}
	g_string_free(u.names, TRUE);
	return r;
}

int net_run_delete(struct cmd_ctx *c, struct vh_err *e)
{
	struct network n;
	int r = network_load(c->args[0], &n, NULL);

	/* A broken file is nobody's network, and can go. */
	if (!r) {
		network_clear(&n);
		r = unused(c->args[0], e);
		if (r)
			return r;
	}
	r = network_delete(c->args[0], e);
	return r ? r : out_done(c, "network", "deleted");
}

int net_run_autostart(struct cmd_ctx *c, struct vh_err *e)
{
	int on = 1, r = 0;

	if (c->n_args > 1) {
		r = parse_bool(c->args[1], &on, e);
		if (r)
			err_status(e, EXIT_USAGE);
	}
	if (!r)
		r = network_set_autostart(c->args[0], on, e);
	return r ? r : out_done(c, "network", on ? "is started with the host" : "is not started with the host");
}

int net_run_start(struct cmd_ctx *c, struct vh_err *e)
{
	int r = network_start(c->args[0], e);

	return r < 0 ? r : out_done(c, "network", "started");
}

int net_run_stop(struct cmd_ctx *c, struct vh_err *e)
{
	struct network n;
	int r = network_load(c->args[0], &n, e);

	if (r)
		return r;
	network_clear(&n);
	r = unused(c->args[0], e);
	if (!r)
		r = network_stop(c->args[0], e);
	return r < 0 ? r : out_done(c, "network", "stopped");
}
