/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Net backend "bridge": a tap on a Linux bridge, which it makes when told to. */
#include "bridge.h"

#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vhost/sugar.h>

#include "brport.h"
#include "collect.h"
#include "fault.h"
#include "journal.h"
#include "plugin.h"
#include "step.h"
#include "tag.h"

const struct vh_host *net_host;

static int want(const struct vh_net_open *o, struct bridge_want *w, struct vh_err *e)
{
	const char *name = vh_opt_str(o->opts, "name", NULL), *address = vh_opt_str(o->opts, "address", NULL);

	memset(w, 0, sizeof(*w));
	if ((o->flags & VH_MUST_UNDERSTAND) & ~VH_NET_OPEN_DRY_RUN)
		return net_host->err(e, -EOPNOTSUPP, "a flag of this open is unknown to this plugin");
	if (!name || tap_name_check(name)) {
		net_host->remedy(e, "use at most 15 letters, digits, '-', '_' and '.'");
		return net_host->err(e, -EINVAL, "'%s' cannot be the name of a bridge", name ? name : "");
	}
	if (!journal_owner_ok(o->owner))
		return net_host->err(e, -EINVAL, "the host gave the owner tag '%s'", o->owner ? o->owner : "");
	snprintf(w->dev.name, sizeof(w->dev.name), "%s", name);
	w->create = vh_opt_num(o->opts, "create", 0) != 0;
	w->isolated = vh_opt_num(o->opts, "isolated", 0) != 0;
	w->dev.mtu = o->mtu;
	w->dev.owner = o->owner;
	if (o->ifname && (tap_name_check(o->ifname) || !strcmp(o->ifname, name))) {
		net_host->remedy(e, "choose another ifname, or leave it out");
		return net_host->err(e, -EINVAL, "'%s' cannot be the name of the tap", o->ifname);
	}
	if (address && !w->create) {
		net_host->remedy(e, "add create=on, or give the bridge its address with 'ip address add'");
		return net_host->err(e, -EINVAL, "address= is for a bridge that is made here");
	}
	return address ? ip_prefix_parse(address, &w->dev.address, e) : 0;
}

/* 0 and the bridge; 1: there is none, and it shall be made. */
static int find_bridge(struct nl *nl, const struct bridge_want *w, struct nl_link *br, struct vh_err *e)
{
	int r = nl_link_get(nl, 0, w->dev.name, br);

	if (r == -ENODEV && w->create)
		return 1;
	if (r == -ENODEV) {
		net_host->remedy(e, "add create=on, or make it with 'ip link add %s type bridge'", w->dev.name);
		return net_host->err(e, -ENOENT, "bridge %s does not exist", w->dev.name);
	}
	if (r < 0)
		return net_host->err(e, r, "cannot look for bridge %s: %s", w->dev.name, nl->text[0] ? nl->text : strerror(-r));
	if (strcmp(br->kind, "bridge")) {
		net_host->remedy(e, "name a bridge, or another name with create=on");
		return net_host->err(e, -EINVAL, "%s is not a bridge but %s%s", w->dev.name,
					br->kind[0] ? "an interface of type " : "a plain interface", br->kind);
	}
	return 0;
}

static void warn_silent(const struct nl_link *br)
{
	const struct vh_log_ops *log = vh_service(net_host, VH_SVC_LOG, sizeof(*log));

	if (!log)
		return;
	if (!(br->flags & IFF_UP))
		log->log(VH_LOG_WARN, "bridge.port", "bridge %s is down: nothing passes until 'ip link set %s up'", br->name,
			 br->name);
	else if (br->stp && br->forward_delay)
		log->log(VH_LOG_WARN, "bridge.port", "bridge %s runs STP: the guest hears nothing for its first %u s", br->name,
			 2 * br->forward_delay / 100);
}

static int bridge_plan(const struct vh_net_open *o, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	struct plan p = { fn, ctx };
	struct bridge_want w;
	struct nl_link br;
	uint8_t mac[6];
	struct nl nl;
	int r = want(o, &w, e);

	if (r < 0)
		return r;
	r = nl_open(&nl);
	if (r < 0)
		return net_host->err(e, r, "cannot open a netlink socket: %s", strerror(-r));
	r = find_bridge(&nl, &w, &br, e);
	nl_release(&nl);
	if (r < 0)
		return r;
	if (r) {
		bridgedev_mac(w.dev.name, mac);
		step(&p, "create bridge %s, MAC %02x:%02x:%02x:%02x:%02x:%02x, MTU %u, without STP", w.dev.name, mac[0], mac[1], mac[2],
		     mac[3], mac[4], mac[5], w.dev.mtu ? w.dev.mtu : 1500);
		if (w.dev.address.text)
			step(&p, "give bridge %s the address %s", w.dev.name, w.dev.address.text);
		step(&p, "set bridge %s up", w.dev.name);
		br.mtu = w.dev.mtu ? w.dev.mtu : 1500;
	}
	brport_mac(o->mac, mac);
	step(&p, "create tap %s, %u queue pair%s", o->ifname ? o->ifname : "vnetN", o->pairs, o->pairs == 1 ? "" : "s");
	step(&p, "set its MAC to %02x:%02x:%02x:%02x:%02x:%02x and its MTU to %u", mac[0], mac[1], mac[2], mac[3], mac[4],
	     mac[5], w.dev.mtu ? w.dev.mtu : br.mtu);
	step(&p, "attach it to bridge %s%s", w.dev.name, w.isolated ? ", isolated from other isolated ports" : "");
	step(&p, "set it up");
	return 0;
}

static int write_plan(const struct vh_net_open *o, const struct bridge_want *w, const char *tmp, struct vh_err *e)
{
	char text[128];
	int r;

	snprintf(text, sizeof(text), "%s%s%s%s%stap %s\n", tmp ? "bridge " : "", tmp ? tmp : "", tmp ? " " : "", tmp ? w->dev.name : "",
		 tmp ? "\n" : "", o->ifname ? o->ifname : "vnetN");
	r = journal_write(o->state, o->owner, text);
	return r < 0 ? net_host->err(e, r, "cannot write the journal in %s: %s", o->state, strerror(-r)) : 0;
}

static void port_free(struct bridge_port *p)
{
	free(p->state);
	free(p->owner);
	free(p);
}

/* What open() did, backwards. remove_bridge: [locked exclusively] also the bridge, if vhost made it and nobody uses it. */
static void take_down(struct nl *nl, struct bridge_port *p, int remove_bridge)
{
	/* The VM's process has copies of the fds, and may be slow to die: with the device itself gone it holds no port. */
	if (remove_bridge && p->info.ifindex)
		nl_link_delete(nl, (int)p->info.ifindex, NULL);
	tap_close(&p->tap);
	if (remove_bridge && p->bridge)
		bridgedev_remove_unused(nl, p->bridge, NULL);
}

static int bridge_open(const struct vh_net_open *o, void **port, struct vh_err *e)
{
	struct brport_want port_want = { 0 };
	struct bridge_want w;
	struct nl_link br = { 0 };
	struct bridge_port *p;
	char tmp[16] = "";
	int lock, added = 0, r;
	struct nl nl;

	if (o->flags & VH_NET_OPEN_DRY_RUN) {
		*port = NULL;
		return bridge_plan(o, NULL, NULL, e);
	}
	r = want(o, &w, e);
	if (r < 0)
		return r;
	if (!o->state)
		return net_host->err(e, -EINVAL, "the host gave no folder for the journal");
	r = nl_open(&nl);
	if (r < 0)
		return net_host->err(e, r, "cannot open a netlink socket: %s", strerror(-r));
	p = calloc(1, sizeof(*p));
	if (p) {
		p->state = strdup(o->state);
		p->owner = strdup(o->owner);
	}
	if (!p || !p->state || !p->owner) {
		r = net_host->err(e, -ENOMEM, "no memory for a port");
		goto no_lock;
	}
	lock = journal_lock(o->state, w.create);
	if (lock < 0) {
		r = net_host->err(e, lock, "cannot lock %s/lock: %s", o->state, strerror(-lock));
		goto no_lock;
	}
	r = find_bridge(&nl, &w, &br, e);
	if (r < 0)
		goto unlock;
	if (r)
		bridgedev_tmp_name(tmp);
	r = write_plan(o, &w, tmp[0] ? tmp : NULL, e);
	if (r < 0)
		goto unlock;
	p->ours = tmp[0] || tag_ours(br.alias);
	if (tmp[0]) {
		r = bridgedev_make(&nl, &w.dev, tmp, &br, e);
		if (r < 0)
			goto undo;
		if (!w.dev.mtu)
			br.mtu = br.mtu ? br.mtu : 1500;
	} else {
		if (p->ours && w.dev.address.family)
			r = bridgedev_add_address(&nl, &w.dev, br.ifindex, &added, e);
		if (r < 0)
			goto undo;
		warn_silent(&br);
	}
	p->bridge = br.ifindex;
	r = tap_open(&p->tap, net_host, o->ifname, o->pairs, e);
	if (r < 0)
		goto undo;
	port_want.owner = w.dev.owner;
	port_want.guest_mac = o->mac;
	port_want.mtu = w.dev.mtu;
	port_want.isolated = w.isolated;
	r = brport_attach(&nl, &p->tap, &port_want, &br, &p->info, e);
	if (r < 0)
		goto undo;
	close(lock);
	nl_release(&nl);
	*port = p;
	return 0;
undo:
	if (added)
		bridgedev_drop_address(&nl, &w.dev, br.ifindex);
	take_down(&nl, p, tmp[0] != '\0');
	journal_remove(o->state, o->owner);
unlock:
	close(lock);
no_lock:
	nl_release(&nl);
	if (p)
		port_free(p);
	return r;
}

static int bridge_info(void *port, struct vh_net_info *i)
{
	struct bridge_port *p = port;
	uint32_t size = i->size;

	p->info.size = size;
	memcpy(i, &p->info, size < sizeof(p->info) ? size : sizeof(p->info));
	return 0;
}

static int bridge_queue_fd(void *port, uint32_t pair, struct vh_err *e)
{
	struct bridge_port *p = port;

	if (pair >= p->tap.n)
		return net_host->err(e, -EINVAL, "tap %s has no queue pair %u", p->tap.ifname, pair);
	return p->tap.fd[pair];
}

static int bridge_set_link(void *port, uint32_t up, struct vh_err *e)
{
	struct bridge_port *p = port;
	struct nl nl;
	int r = nl_open(&nl);

	if (!r) {
		nl_link_begin(&nl, RTM_SETLINK, 0, AF_UNSPEC, (int)p->info.ifindex, NULL, up != 0);
		r = nl_commit(&nl);
	}
	if (r < 0)
		net_host->err(e, r, "cannot set %s %s: %s", p->tap.ifname, up ? "up" : "down",
				 nl.text[0] ? nl.text : strerror(-r));
	else
		p->info.link = up != 0;
	nl_release(&nl);
	return r;
}

static void bridge_close(void *port)
{
	struct bridge_port *p = port;
	int lock = -1;
	struct nl nl;

	/* Without lock or netlink the tap still goes with its fds; gc() finds a bridge that stays. */
	if (p->ours && !nl_open(&nl)) {
		lock = journal_lock(p->state, 1);
		take_down(&nl, p, lock >= 0);
		nl_release(&nl);
	} else {
		tap_close(&p->tap);
	}
	journal_remove(p->state, p->owner);
	if (lock >= 0)
		close(lock);
	port_free(p);
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

static const struct vh_opt opt_name = { sizeof(struct vh_opt), VH_OPT_STR, VH_OPT_REQUIRED | VH_OPT_MAIN, "name",
	"The bridge", NULL, NULL, 1, 15 };
static const struct vh_opt opt_create = { sizeof(struct vh_opt), VH_OPT_BOOL, 0, "create",
	"Make the bridge if it does not exist; its last user removes it", "off", NULL, 0, 0 };
static const struct vh_opt opt_address = { sizeof(struct vh_opt), VH_OPT_STR, 0, "address",
	"The host's address on a bridge that is made here, as 192.0.2.1/24", NULL, NULL, 1, 64 };
static const struct vh_opt opt_isolated = { sizeof(struct vh_opt), VH_OPT_BOOL, VH_OPT_NIC, "isolated",
	"Reach only ports of the bridge that are not isolated themselves", "off", NULL, 0, 0 };
static const struct vh_opt *const options[] = { &opt_name, &opt_create, &opt_address, &opt_isolated, NULL };

static const struct vh_net_ops bridge_ops = {
	.size = sizeof(struct vh_net_ops),
	.caps = VH_NET_MULTI_QUEUE | VH_NET_SET_LINK,
	.kind = "bridge",
	.options = options,
	.open = bridge_open,
	.plan = bridge_plan,
	.info = bridge_info,
	.queue_fd = bridge_queue_fd,
	.set_link = bridge_set_link,
	.close = bridge_close,
	.gc = bridge_gc,
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
