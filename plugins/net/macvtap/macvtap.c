/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Net backend "macvtap": a port straight on a network card, without a bridge. */
#include "macvtap.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vhost/sugar.h>

#include "collect.h"
#include "fault.h"
#include "journal.h"
#include "plugin.h"
#include "step.h"
#include "told.h"

const struct vh_host *net_host;

static const char *const mode_names[] = { "bridge", "vepa", "private", "passthru", NULL };
static const uint32_t modes[] = { MACVLAN_MODE_BRIDGE, MACVLAN_MODE_VEPA, MACVLAN_MODE_PRIVATE, MACVLAN_MODE_PASSTHRU };

const char *macvtap_mode_name(uint32_t mode)
{
	for (unsigned i = 0; mode_names[i]; i++)
		if (modes[i] == mode)
			return mode_names[i];
	return "unknown";
}

int macvtap_want(const struct vh_opts *o, struct macvtap_want *w, struct vh_err *e)
{
	const char *uplink = vh_opt_str(o, "uplink", NULL), *address = vh_opt_str(o, "address", NULL);
	int64_t mode = vh_opt_num(o, "mode", 0);

	memset(w, 0, sizeof(*w));
	if (!uplink || tap_name_check(uplink)) {
		net_host->remedy(e, "use the name of a network card, as 'ip link' shows it");
		return net_host->err(e, -EINVAL, "'%s' cannot be the name of an uplink", uplink ? uplink : "");
	}
	snprintf(w->uplink, sizeof(w->uplink), "%s", uplink);
	host_derive_name(w->uplink, w->host_name);
	w->mode = mode >= 0 && mode < 4 ? modes[mode] : MACVLAN_MODE_BRIDGE;
	w->host = vh_opt_num(o, "host", 0) != 0;
	if (w->host && w->mode != MACVLAN_MODE_BRIDGE) {
		net_host->remedy(e, "use mode=bridge, or leave out host=on");
		return net_host->err(e, -EINVAL, "host=on needs mode=bridge: in mode %s the ports reach nothing on this host",
				     macvtap_mode_name(w->mode));
	}
	if (address && !w->host) {
		net_host->remedy(e, "add host=on");
		return net_host->err(e, -EINVAL, "address= is for the host's own interface on the uplink");
	}
	return address ? ip_prefix_parse(address, &w->address, e) : 0;
}

static int check_open(const struct vh_net_open *o, struct macvtap_want *w, struct vh_err *e)
{
	if ((o->flags & VH_MUST_UNDERSTAND) & ~VH_NET_OPEN_DRY_RUN)
		return net_host->err(e, -EOPNOTSUPP, "a flag of this open is unknown to this plugin");
	if (!journal_owner_ok(o->owner))
		return net_host->err(e, -EINVAL, "the host gave the owner tag '%s'", o->owner ? o->owner : "");
	if (!o->pairs || o->pairs > TAP_PAIRS_MAX)
		return net_host->err(e, -EINVAL, "%u queue pairs, but a macvtap has 1 to %u", o->pairs, TAP_PAIRS_MAX);
	if (o->ifname && tap_name_check(o->ifname)) {
		net_host->remedy(e, "use at most 15 letters, digits, '-', '_' and '.'");
		return net_host->err(e, -EINVAL, "'%s' cannot be the name of an interface", o->ifname);
	}
	return macvtap_want(o->opts, w, e);
}

static int macvtap_plan(const struct vh_net_open *o, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	struct plan p = { fn, ctx };
	struct macvtap_want w;
	struct nl_link up, host;
	struct nl nl;
	int r = check_open(o, &w, e), have;

	if (r < 0)
		return r;
	r = told_nl(&nl, e);
	if (r < 0)
		return r;
	r = link_uplink(&nl, &w, &up, e);
	have = !r && w.host && !nl_link_get(&nl, 0, w.host_name, &host);
	nl_release(&nl);
	if (r < 0)
		return r;
	if (w.host && !have)
		step(&p, "create macvlan %s on %s, the host's own interface there", w.host_name, up.name);
	if (w.host && w.address.text)
		step(&p, "give %s the address %s", w.host_name, w.address.text);
	if (w.host && !have)
		step(&p, "set %s up", w.host_name);
	step(&p, "create macvtap %s on %s in mode %s, MAC %02x:%02x:%02x:%02x:%02x:%02x, MTU %u", o->ifname ? o->ifname : "vnetN",
	     up.name, macvtap_mode_name(w.mode), o->mac[0], o->mac[1], o->mac[2], o->mac[3], o->mac[4], o->mac[5],
	     o->mtu ? o->mtu : up.mtu);
	step(&p, "set it up and open its device, %u queue pair%s", o->pairs, o->pairs == 1 ? "" : "s");
	return 0;
}

static int write_plan(const struct vh_net_open *o, const struct macvtap_want *w, const char *tmp, const char *host_tmp,
		      struct vh_err *e)
{
	char text[512];

	snprintf(text, sizeof(text), "macvtap %s %s\n%s%s%s%s%s%s", tmp, w->uplink, w->host ? "macvlan " : "", w->host ? host_tmp : "",
		 w->host ? "\n" : "", o->network ? "network " : "", o->network ? o->network : "", o->network ? "\n" : "");
	return told_write(o->state, o->owner, text, e);
}

static void warn_down(const struct nl_link *up)
{
	const struct vh_log_ops *log = vh_service(net_host, VH_SVC_LOG, sizeof(*log));

	if (log && !(up->flags & IFF_UP))
		log->log(VH_LOG_WARN, "macvtap.port", "uplink %s is down: nothing passes until 'ip link set %s up'", up->name, up->name);
}

static void port_free(struct macvtap_port *p)
{
	if (!p)
		return;
	tapport_drop(&p->t);
	free(p);
}

static struct macvtap_port *port_new(const struct vh_net_open *o, const struct macvtap_want *w)
{
	struct macvtap_port *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	if (tapport_keep(&p->t, o)) {
		port_free(p);
		return NULL;
	}
	p->mode = w->mode;
	memcpy(p->host_name, w->host_name, sizeof(p->host_name));
	memcpy(p->mac, o->mac, 6);
	p->allmulti = 1; /* until the guest says what it wants */
	return p;
}

/* Made, named, up, its device open. On failure nothing is left. */
static int make_port(struct nl *nl, struct macvtap_port *p, const struct vh_net_open *o, const struct nl_link *up, const char *tmp,
		     struct vh_err *e)
{
	struct link_want want = { .kind = "macvtap", .tmp = tmp, .name = o->ifname, .owner = o->owner, .mac = o->mac,
				  .mode = p->mode, .mtu = o->mtu, .allmulti = 1, .quiet = 1 };
	struct nl_link l;
	int r = link_make(nl, up, &want, &l, e);

	if (r < 0)
		return r;
	r = tapdev_open(&p->t.tap, &l, o->pairs, e);
	if (r < 0) {
		nl_link_delete(nl, l.ifindex, NULL);
		return r;
	}
	p->uplink = l.link ? l.link : up->ifindex;
	p->t.info = (struct vh_net_info){ .path = VH_NET_PATH_TAP, .ifindex = (uint32_t)l.ifindex, .pairs = p->t.tap.n, .mtu = l.mtu,
					.vnet_hdr = 12, .offload = tap_probe_offload(&p->t.tap), .link = 1 };
	memcpy(p->t.info.ifname, p->t.tap.ifname, sizeof(p->t.info.ifname));
	memcpy(p->t.info.mac, o->mac, 6);
	return 0;
}

static int make_all(struct nl *nl, struct macvtap_port *p, const struct vh_net_open *o, const struct macvtap_want *w, struct vh_err *e)
{
	char tmp[16], host_tmp[16];
	struct nl_link up, host = { 0 };
	int made = 0, added = 0, r = link_uplink(nl, w, &up, e);

	if (r < 0)
		return r;
	link_tmp_name(tmp);
	link_tmp_name(host_tmp);
	r = write_plan(o, w, tmp, host_tmp, e);
	if (r < 0)
		return r;
	warn_down(&up);
	if (w->host)
		r = host_get(nl, w, &up, o->owner, host_tmp, &host, &made, &added, e);
	if (!r)
		r = make_port(nl, p, o, &up, tmp, e);
	if (r < 0) {
		host_undo(nl, w, &host, made, added);
		journal_remove(o->state, o->owner);
	}
	return r;
}

static int macvtap_open(const struct vh_net_open *o, void **port, struct vh_err *e)
{
	struct macvtap_want w;
	struct macvtap_port *p;
	struct nl nl;
	int lock, r;

	if (o->flags & VH_NET_OPEN_DRY_RUN) {
		*port = NULL;
		return macvtap_plan(o, NULL, NULL, e);
	}
	r = check_open(o, &w, e);
	if (r < 0)
		return r;
	if (!o->state)
		return net_host->err(e, -EINVAL, "the host gave no folder for the journal");
	p = port_new(o, &w);
	if (!p)
		return net_host->err(e, -ENOMEM, "no memory for a port");
	lock = told_lock(o->state, w.host, e);
	if (lock < 0) {
		port_free(p);
		return lock;
	}
	r = told_nl(&nl, e);
	if (!r)
		r = make_all(&nl, p, o, &w, e);
	nl_release(&nl);
	close(lock);
	if (r < 0)
		port_free(p);
	else
		*port = p;
	return r;
}

static int macvtap_queue_fd(void *port, uint32_t pair, struct vh_err *e)
{
	struct macvtap_port *p = port;

	if (pair >= p->t.tap.n)
		return net_host->err(e, -EINVAL, "macvtap %s has no queue pair %u", p->t.tap.ifname, pair);
	return p->t.tap.fd[pair];
}

static int macvtap_set_filter(void *port, const struct vh_net_filter *f, struct vh_err *e)
{
	return filter_set(port, f, e);
}

static void macvtap_close(void *port)
{
	struct macvtap_port *p = port;
	int lock = -1, r;
	struct nl nl;

	/* Without lock or netlink gc() finds what stays. */
	r = nl_open(&nl);
	if (!r && p->mode == MACVLAN_MODE_BRIDGE)
		lock = journal_lock(p->t.state, 1);
	if (!r)
		r = nl_link_delete(&nl, (int)p->t.info.ifindex, NULL);
	tap_close(&p->t.tap);
	if (lock >= 0)
		host_remove_unused(&nl, p->host_name, NULL);
	nl_release(&nl);
	/* The entry stays with the interface. */
	if (!r || r == -ENODEV)
		journal_remove(p->t.state, p->t.owner);
	if (lock >= 0)
		close(lock);
	port_free(p);
}

/* A journal names interfaces by what they were called while they were being made; nobody else's are called so. */
static int journal_entry(struct collect *c, const char *owner, const char *text)
{
	static const char *const kind[] = { "macvtap", "macvlan" };
	int ours = 0;

	for (const char *line = text; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		for (unsigned i = 0; i < 2; i++) {
			size_t n = strlen(kind[i]);
			char tmp[16];

			if (strncmp(line, kind[i], n) || line[n] != ' ')
				continue;
			ours = 1;
			if (sscanf(line + n, " %15s", tmp) == 1 && !strncmp(tmp, "vhm", 3))
				collect_drop_unborn(c, kind[i], tmp, owner);
		}
	return ours;
}

static int macvtap_gc(const char *state, int (*alive)(void *ctx, const char *owner), vh_net_gc_fn *fn, void *ctx, struct vh_err *e)
{
	return collect_run(state, alive, fn, ctx, journal_entry, e);
}

static const struct vh_opt opt_uplink = { sizeof(struct vh_opt), VH_OPT_STR, VH_OPT_REQUIRED | VH_OPT_MAIN, "uplink",
	"The network card that leads outside", NULL, NULL, 1, 15 };
static const struct vh_opt opt_mode = { sizeof(struct vh_opt), VH_OPT_ENUM, 0, "mode",
	"Whom a port reaches: the others on the uplink as well, through the next switch (vepa), none of them, or the uplink is its own",
	"bridge", mode_names, 0, 0 };
static const struct vh_opt opt_host = { sizeof(struct vh_opt), VH_OPT_BOOL, 0, "host",
	"Make an interface of the host's own on the uplink, over which it and the guests reach each other", "off", NULL, 0, 0 };
static const struct vh_opt opt_address = { sizeof(struct vh_opt), VH_OPT_STR, 0, "address",
	"The address of that interface, as 192.0.2.1/24", NULL, NULL, 1, 64 };
static const struct vh_opt *const options[] = { &opt_uplink, &opt_mode, &opt_host, &opt_address, NULL };
static const char *const kinds[] = { "macvtap", NULL };

static const struct vh_net_ops macvtap_ops = {
	.size = sizeof(struct vh_net_ops),
	.caps = VH_NET_MULTI_QUEUE | VH_NET_SET_LINK | VH_NET_SET_FILTER,
	.kind = "macvtap",
	.options = options,
	.open = macvtap_open,
	.plan = macvtap_plan,
	.info = tapport_info,
	.queue_fd = macvtap_queue_fd,
	.set_link = tapport_set_link,
	.set_filter = macvtap_set_filter,
	.close = macvtap_close,
	.gc = macvtap_gc,
	.kinds = kinds,
	.start = network_start,
	.stop = network_stop,
	.plan_start = network_plan,
	.describe = network_describe,
};

VH_PLUGIN_NOTE("macvtap", VH_KIND_NET);

static const void *macvtap_get(const char *iid)
{
	return strcmp(iid, VH_IID_NET) ? NULL : &macvtap_ops;
}

static const char *const iids[] = { VH_IID_NET, NULL };
static const struct vh_plugin desc = {
	sizeof(struct vh_plugin), VH_ABI_MINOR, "macvtap", "1.0", "Ports straight on a network card", "LGPL-2.1-or-later",
	VH_PLUGIN_NEEDS_ROOT, iids, macvtap_get, NULL,
};

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
	net_host = host;
	*out = &desc;
	return 0;
}
