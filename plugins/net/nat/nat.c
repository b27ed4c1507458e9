/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Net backend "nat": isolated networks, and networks behind the host's address. */
#include "nat.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <vhost/sugar.h>

#include "collect.h"
#include "journal.h"
#include "port.h"
#include "told.h"

const struct vh_host *net_host;

/* A journal names a bridge by the name under which it was being made; nobody else's has one like it. */
static int journal_entry(struct collect *c, const char *owner, const char *text)
{
	char tmp[16];

	if (strncmp(text, "nat ", 4))
		return 0;
	if (sscanf(text, "nat %15s", tmp) == 1 && !strncmp(tmp, "vhb", 3))
		collect_drop_unborn(c, "bridge", tmp, owner);
	return 1;
}

/* First the bridges of the dead; then what belonged to a bridge that is gone. */
static int nat_gc(const char *state, int (*alive)(void *ctx, const char *owner), vh_net_gc_fn *fn, void *ctx, struct vh_err *e)
{
	int lock, r = collect_run(state, alive, fn, ctx, journal_entry, e);
	struct nl nl;

	if (r < 0 || !state || access(state, F_OK) < 0)
		return r;
	r = told_nl(&nl, e);
	if (r < 0)
		return r;
	lock = told_lock(state, 1, e);
	if (lock < 0) {
		nl_release(&nl);
		return lock;
	}
	r = network_sweep(&nl, state, fn, ctx);
	close(lock);
	nl_release(&nl);
	return r < 0 ? net_host->err(e, r, "cannot remove all that networks left: %s", strerror(-r)) : 0;
}

static const char *const kinds[] = { "isolated", "nat", NULL };

#define OPT(VAR, TYPE, FLAGS, NAME, DOC, DEF, ...) \
	static const struct vh_opt VAR = { sizeof(struct vh_opt), TYPE, FLAGS, NAME, DOC, DEF, __VA_ARGS__ }
OPT(opt_name, VH_OPT_STR, VH_OPT_MAIN, "name", "The bridge (default: after the network)", NULL, NULL, 1, 15);
OPT(opt_kind, VH_OPT_ENUM, 0, "kind", "What the network is, where it is not a defined one", "nat", kinds, 0, 0);
OPT(opt_address, VH_OPT_STR, 0, "address",
    "The host's address in the network, as 192.168.77.1/24; nat without one: a free /24", NULL, NULL, 1, 32);
OPT(opt_address6, VH_OPT_STR, 0, "address6",
    "The host's IPv6 address in the network, as fd12:3456:789a::1/64", NULL, NULL, 1, 60);
OPT(opt_dhcp, VH_OPT_BOOL, 0, "dhcp",
    "Give the guests addresses, by DHCP and router advertisements (default: on with an address)", NULL, NULL, 0, 0);
OPT(opt_range, VH_OPT_STR, 0, "dhcp-range",
    "First and last address that DHCP gives, as 192.168.77.100-192.168.77.199", NULL, NULL, 1, 40);
OPT(opt_dns, VH_OPT_BOOL, 0, "dns", "Answer the guests' DNS queries (default: on with an address)", NULL, NULL, 0, 0);
OPT(opt_domain, VH_OPT_STR, 0, "domain", "The guests' DNS domain", NULL, NULL, 1, 200);
OPT(opt_host, VH_OPT_STR, VH_OPT_REPEAT, "host",
    "MAC=ADDRESS or MAC=ADDRESS=NAME: what DHCP gives to this guest", NULL, NULL, 1, 160);
OPT(opt_forward, VH_OPT_STR, VH_OPT_REPEAT, "forward",
    "tcp|udp:PORT:ADDRESS:PORT: a port of the host that is a guest's", NULL, NULL, 1, 80);
OPT(opt_isolated, VH_OPT_BOOL, VH_OPT_NIC, "isolated",
    "Reach only ports of the bridge that are not isolated themselves", "off", NULL, 0, 0);
static const struct vh_opt *const options[] = { &opt_name, &opt_kind, &opt_address, &opt_address6, &opt_dhcp, &opt_range, &opt_dns,
	&opt_domain, &opt_host, &opt_forward, &opt_isolated, NULL };

static const struct vh_net_ops nat_ops = {
	.size = sizeof(struct vh_net_ops),
	.caps = VH_NET_MULTI_QUEUE | VH_NET_SET_LINK,
	.kind = "nat",
	.options = options,
	.open = port_open,
	.plan = nat_plan,
	.info = tapport_info,
	.queue_fd = tapport_queue_fd,
	.set_link = tapport_set_link,
	.close = port_close,
	.gc = nat_gc,
	.kinds = kinds,
	.start = nat_start,
	.stop = nat_stop,
	.plan_start = nat_plan_start,
	.describe = nat_describe,
	.watch = port_watch,
	.repair = port_repair,
};

VH_PLUGIN_NOTE("nat", VH_KIND_NET);

static const void *nat_get(const char *iid)
{
	return strcmp(iid, VH_IID_NET) ? NULL : &nat_ops;
}

static const char *const iids[] = { VH_IID_NET, NULL };
static const struct vh_plugin desc = {
	sizeof(struct vh_plugin), VH_ABI_MINOR, "nat", "1.0", "Isolated networks and networks behind NAT", "LGPL-2.1-or-later",
	VH_PLUGIN_NEEDS_ROOT, iids, nat_get, NULL,
};

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
	net_host = host;
	*out = &desc;
	return 0;
}
