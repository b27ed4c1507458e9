/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Net backend "bridge": taps on a Linux bridge, which it makes when told to, with a NIC of the host as its uplink. */
#include "bridge.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <vhost/sugar.h>

#include "collect.h"
#include "hash.h"
#include "plugin.h"

const struct vh_host *net_host;

/* "br-NAME"; of a long name its beginning and what tells it from others, and the whole as a second name. */
static void derive_name(const char *network, struct bridge_want *w)
{
	uint64_t h = hash64(HASH64, network, strlen(network));

	if (snprintf(w->dev.name, sizeof(w->dev.name), "br-%s", network) < (int)sizeof(w->dev.name))
		return;
	h ^= h >> 32;
	snprintf(w->dev.name, sizeof(w->dev.name), "br-%.5s-%06x", network, (unsigned)(h & 0xffffff));
	snprintf(w->altname, sizeof(w->altname), "br-%s", network);
}

static int check_name(const char *what, const char *name, struct vh_err *e)
{
	if (!tap_name_check(name))
		return 0;
	net_host->remedy(e, "use at most 15 letters, digits, '-', '_' and '.'");
	return net_host->err(e, -EINVAL, "'%s' cannot be the name of %s", name, what);
}

int bridge_want(const struct vh_opts *opts, const char *network, const char *owner, struct bridge_want *w, struct vh_err *e)
{
	const char *name = vh_opt_str(opts, "name", NULL), *address = vh_opt_str(opts, "address", NULL);
	const char *uplink = vh_opt_str(opts, "uplink", NULL);
	int64_t mac = vh_opt_num(opts, "bridge-mac", 0);
	int r = 0;

	memset(w, 0, sizeof(*w));
	if (!name && !network) {
		net_host->remedy(e, "add name=, or use a network (vhost net define)");
		return net_host->err(e, -EINVAL, "the bridge's name is missing");
	}
	if (name)
		r = check_name("a bridge", name, e);
	if (!r && uplink)
		r = check_name("an uplink", uplink, e);
	if (r)
		return r;
	if (name)
		snprintf(w->dev.name, sizeof(w->dev.name), "%s", name);
	else
		derive_name(network, w);
	snprintf(w->uplink, sizeof(w->uplink), "%s", uplink ? uplink : "");
	/* Somebody's bridge has its name; what has an uplink or no name of its own is made here. */
	w->create = vh_opt_num(opts, "create", uplink || !name) != 0;
	w->isolated = vh_opt_num(opts, "isolated", 0) != 0;
	w->dev.owner = owner;
	w->have_mac = mac != 0;
	for (int i = 0; i < 6; i++)
		w->dev.mac[i] = (uint8_t)((uint64_t)mac >> (40 - 8 * i));
	if (uplink && !w->create) {
		net_host->remedy(e, "leave out create=off, or uplink=");
		return net_host->err(e, -EINVAL, "uplink= is for a bridge that is made here");
	}
	if (uplink && !strcmp(uplink, w->dev.name)) {
		net_host->remedy(e, "choose another name=");
		return net_host->err(e, -EINVAL, "the bridge cannot have the name of its uplink");
	}
	if (address && uplink) {
		net_host->remedy(e, "give the address to %s: it moves to the bridge with the others", uplink);
		return net_host->err(e, -EINVAL, "address= is for a bridge without uplink=");
	}
	if (address && !w->create) {
		net_host->remedy(e, "add create=on, or give the bridge its address with 'ip address add'");
		return net_host->err(e, -EINVAL, "address= is for a bridge that is made here");
	}
	return address ? ip_prefix_parse(address, &w->dev.address, e) : 0;
}

/* A journal names a bridge by the name under which it was being made; nobody else's has one like it. */
static int journal_entry(struct collect *c, const char *owner, const char *text)
{
	char tmp[16], end;

	if (strncmp(text, "bridge ", 7) && strncmp(text, "tap ", 4))
		return 0;
	if (sscanf(text, "bridge %15s%c", tmp, &end) == 2 && !strncmp(tmp, "vhb", 3))
		collect_drop_unborn(c, "bridge", tmp, owner);
	return 1;
}

static int bridge_gc(const char *state, int (*alive)(void *ctx, const char *owner), vh_net_gc_fn *fn, void *ctx, struct vh_err *e)
{
	return collect_run(state, alive, fn, ctx, journal_entry, e);
}

static const struct vh_opt opt_name = { sizeof(struct vh_opt), VH_OPT_STR, VH_OPT_MAIN, "name",
	"The bridge; a network's is br-NAME unless it is given", NULL, NULL, 1, 15 };
static const struct vh_opt opt_create = { sizeof(struct vh_opt), VH_OPT_BOOL, 0, "create",
	"Make the bridge if it does not exist; its last user removes it (default: on with an uplink, or for a network without name)", NULL, NULL, 0, 0 };
static const struct vh_opt opt_address = { sizeof(struct vh_opt), VH_OPT_STR, 0, "address",
	"The host's address on a bridge that is made here, as 192.0.2.1/24", NULL, NULL, 1, 64 };
static const struct vh_opt opt_isolated = { sizeof(struct vh_opt), VH_OPT_BOOL, VH_OPT_NIC, "isolated",
	"Reach only ports of the bridge that are not isolated themselves", "off", NULL, 0, 0 };
static const struct vh_opt opt_uplink = { sizeof(struct vh_opt), VH_OPT_STR, 0, "uplink",
	"A network card of the host to join; its addresses and routes move to the bridge, and back with its last user", NULL, NULL, 1, 15 };
static const struct vh_opt opt_mac = { sizeof(struct vh_opt), VH_OPT_MAC, 0, "bridge-mac",
	"The MAC address of a bridge that is made here (default: the uplink's, else one that stays the same)", NULL, NULL, 0, 0 };
static const struct vh_opt *const options[] = { &opt_name, &opt_create, &opt_uplink, &opt_address, &opt_mac, &opt_isolated, NULL };

static const struct vh_net_ops bridge_ops = {
	.size = sizeof(struct vh_net_ops),
	.caps = VH_NET_MULTI_QUEUE | VH_NET_SET_LINK,
	.kind = "bridge",
	.options = options,
	.open = bridge_open,
	.plan = bridge_plan,
	.info = tapport_info,
	.queue_fd = tapport_queue_fd,
	.set_link = tapport_set_link,
	.close = bridge_close,
	.gc = bridge_gc,
	.kinds = bridge_kinds,
	.start = bridge_start,
	.stop = bridge_stop,
	.plan_start = bridge_plan_start,
	.describe = bridge_describe,
	.watch = bridge_watch,
	.repair = bridge_repair,
};

VH_PLUGIN_NOTE("bridge", VH_KIND_NET);

static const void *bridge_get(const char *iid)
{
	return strcmp(iid, VH_IID_NET) ? NULL : &bridge_ops;
}

static const char *const iids[] = { VH_IID_NET, NULL };
static const struct vh_plugin desc = {
	sizeof(struct vh_plugin), VH_ABI_MINOR, "bridge", "1.0", "Taps on a Linux bridge", "LGPL-2.1-or-later",
	VH_PLUGIN_NEEDS_ROOT, iids, bridge_get, NULL,
};

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
	net_host = host;
	*out = &desc;
	return 0;
}
