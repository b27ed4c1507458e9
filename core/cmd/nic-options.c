/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "cmd/nic-options.h"

#include <glib.h>
#include <string.h>

const char *const nic_option_names[] = {"guard", "ip", "guard-tags", "rate-in", "rate-out", "burst-in", "burst-out", "packets-in",
					"packets-out", "vhost", NULL};

static int choice(const char *key, const char *val, const char *const *words, int *out, struct vh_err *e)
{
	for (int i = 0; words[i]; i++)
		if (!strcmp(val, words[i])) {
			*out = i;
			return 0;
		}
	return err_usage(e, "--net %s=%s is not one of %s, %s, %s", key, val, words[0], words[1], words[2]);
}

/* Several in one value, for a VM's file has a key only once. */
static int addresses(const char *val, struct guard *g, struct vh_err *e)
{
	g_auto(GStrv) all = g_strsplit_set(val, " ;", -1);
	int r = 0;

	for (unsigned i = 0; all[i] && !r; i++)
		if (*all[i])
			r = guard_add(g, all[i], e);
	return r ? err_context(e, "--net ip=%s", val) : 0;
}

static int amount(const char *key, const char *val, uint64_t *out, struct vh_err *e)
{
	int r = parse_size(val, out, e);

	if (!r && *out > RATE_MAX)
		r = err_usage(e, "--net %s=%s is more than there can be (1T)", key, val);
	return r;
}

int nic_option(const char *key, const char *val, struct mach_nic *n, struct vh_err *e)
{
	static const char *const guards[] = {"off", "mac", "full", NULL}, *const vhosts[] = {"auto", "on", "off", NULL};
	const struct {
		const char *name;
		uint64_t *to;
	} amounts[] = {
		{"rate-in", &n->in.bytes},    {"rate-out", &n->out.bytes},     {"burst-in", &n->in.burst},
		{"burst-out", &n->out.burst}, {"packets-in", &n->in.packets}, {"packets-out", &n->out.packets},
	};
	int r, v = 0;

	if (!strcmp(key, "guard")) {
		r = choice(key, val, guards, &v, e);
		n->guard.mode = (enum guard_mode)v;
		return r ? r : 1;
	}
	if (!strcmp(key, "vhost")) {
		r = choice(key, val, vhosts, &n->vhost, e);
		return r ? r : 1;
	}
	if (!strcmp(key, "ip")) {
		r = addresses(val, &n->guard, e);
		return r ? r : 1;
	}
	if (!strcmp(key, "guard-tags")) {
		r = parse_bool(val, &n->guard.tags, e);
		return r ? r : 1;
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(amounts); i++)
		if (!strcmp(key, amounts[i].name)) {
			r = amount(key, val, amounts[i].to, e);
			return r ? r : 1;
		}
	return 0;
}

int nic_options_check(const struct mach_nic *n, struct vh_err *e)
{
	if (n->guard.mode == GUARD_FULL && !n->guard.n_addrs) {
		err_remedy(e, "add ip=ADDR for each address of the guest's, or use guard=mac");
		return err_usage(e, "--net guard=full without ip=: addresses are not learned, so the guest could send nothing");
	}
	if (n->guard.mode != GUARD_FULL && n->guard.n_addrs) {
		err_remedy(e, "add guard=full, or leave out ip=");
		return err_usage(e, "--net ip= says what guard=full lets pass, and there is no guard=full");
	}
	if (n->guard.tags && !n->guard.mode)
		return err_usage(e, "--net guard-tags=on without a guard");
	if ((n->in.burst && !n->in.bytes) || (n->out.burst && !n->out.bytes))
		return err_usage(e, "--net burst-%s= without rate-%s=", n->in.burst && !n->in.bytes ? "in" : "out",
				 n->in.burst && !n->in.bytes ? "in" : "out");
	if (n->vhost == VIRTIO_NET_VHOST_ON && (n->guard.mode || rate_limits(&n->in) || rate_limits(&n->out)))
		return err_usage(e, "--net vhost=on: the kernel's vhost-net knows neither guards nor limits");
	return 0;
}
