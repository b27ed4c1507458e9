/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Macvtaps and macvlans. Unlike a tap they outlive their maker, so each is made under a random name and tagged in the same
 * batch; then it gets its name and goes up in one step.
 */
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>

#include "bridgedev.h"
#include "macvtap.h"
#include "plugin.h"

void link_tmp_name(char tmp[16])
{
	bridgedev_tmp_name(tmp);
	tmp[2] = 'm';
}

static int is_macvlan(const struct nl_link *l)
{
	return !strcmp(l->kind, "macvtap") || !strcmp(l->kind, "macvlan");
}

int link_uplink(struct nl *nl, const struct macvtap_want *w, struct nl_link *up, struct vh_err *e)
{
	struct nl_link master;
	int r = nl_link_get(nl, 0, w->uplink, up);

	if (r == -ENODEV) {
		net_host->remedy(e, "'ip link' lists the interfaces");
		return net_host->err(e, -ENOENT, "uplink %s does not exist", w->uplink);
	}
	if (r < 0)
		return net_host->err(e, r, "cannot look for uplink %s: %s", w->uplink, nl->text[0] ? nl->text : strerror(-r));
	net_host->remedy(e, "name the network card that leads outside");
	if (up->flags & IFF_LOOPBACK)
		return net_host->err(e, -EINVAL, "%s cannot be an uplink: it is the loopback", w->uplink);
	if (up->type != ARPHRD_ETHER)
		return net_host->err(e, -EINVAL, "%s cannot be an uplink: it carries no Ethernet frames (%s%s)", w->uplink,
				     up->kind[0] ? "type " : "hardware type ", up->kind[0] ? up->kind : "not Ethernet");
	if (tapdev_wireless(up)) {
		net_host->remedy(e, "use a network card with a cable, a network of kind nat, or --net user");
		return net_host->err(e, -EINVAL, "%s cannot be an uplink: a wireless interface sends with its own MAC address only",
				     w->uplink);
	}
	/* The kernel puts one on a macvlan on what that lies on. */
	if (is_macvlan(up) && up->link) {
		r = nl_link_get(nl, up->link, NULL, up);
		return r < 0 ? net_host->err(e, r, "cannot look below uplink %s: %s", w->uplink, strerror(-r)) : 0;
	}
	if (!up->master)
		return 0;
	if (nl_link_get(nl, up->master, NULL, &master) < 0)
		return 0; /* the kernel will say what is wrong */
	if (!strcmp(master.kind, "bridge")) {
		net_host->remedy(e, "use type=bridge,name=%s", master.name);
		return net_host->err(e, -EBUSY, "%s cannot be an uplink: it is a port of bridge %s", w->uplink, master.name);
	}
	if (!strcmp(master.kind, "bond") || !strcmp(master.kind, "team")) {
		net_host->remedy(e, "use uplink=%s", master.name);
		return net_host->err(e, -EBUSY, "%s cannot be an uplink: it belongs to %s %s", w->uplink, master.kind, master.name);
	}
	return 0;
}

/* Who is on the uplink, looked at only when something has failed. */
struct who {
	int uplink;
	const uint8_t *mac;
	struct nl_link passthru, any, same_mac;
};

static void look(void *ctx, const struct nl_link *l)
{
	struct who *w = ctx;

	if (w->mac && l->ifindex == w->uplink && !memcmp(l->mac, w->mac, 6))
		w->same_mac = *l;
	if (l->link != w->uplink || !is_macvlan(l))
		return;
	if (l->macvlan_mode == MACVLAN_MODE_PASSTHRU)
		w->passthru = *l;
	/* Not the one that is being made. */
	if (l->flags & IFF_UP && w->mac && !memcmp(l->mac, w->mac, 6))
		w->same_mac = *l;
	w->any = *l;
}

static int explain_busy(struct nl *nl, int r, const struct nl_link *up, const struct link_want *w, struct vh_err *e)
{
	struct who who = { .uplink = up->ifindex, .mac = w->mac };
	char text[128];

	snprintf(text, sizeof(text), "%s", nl->text);
	if (nl_link_dump(nl, 0, look, &who) < 0)
		memset(&who, 0, sizeof(who));
	if (r == -EADDRINUSE && who.same_mac.ifindex) {
		net_host->remedy(e, "give this NIC another mac=");
		return net_host->err(e, r, "%s%s%s%s has the MAC address %02x:%02x:%02x:%02x:%02x:%02x already", who.same_mac.name,
				     who.same_mac.alias[0] ? " (" : "", who.same_mac.alias, who.same_mac.alias[0] ? ")" : "",
				     w->mac[0], w->mac[1], w->mac[2], w->mac[3], w->mac[4], w->mac[5]);
	}
	if (who.passthru.ifindex) {
		net_host->remedy(e, "end who has it, or use another uplink");
		return net_host->err(e, -EBUSY, "%s has all of %s for itself (mode=passthru)%s%s", who.passthru.name, up->name,
				     who.passthru.alias[0] ? ": " : "", who.passthru.alias);
	}
	if (w->mode == MACVLAN_MODE_PASSTHRU && who.any.ifindex) {
		net_host->remedy(e, "use another mode=, or another uplink");
		return net_host->err(e, -EBUSY, "mode=passthru needs %s for itself, but %s is on it%s%s", up->name, who.any.name,
				     who.any.alias[0] ? ": " : "", who.any.alias);
	}
	if (r == -EBUSY)
		return net_host->err(e, r, "something else (a bridge, a bond, Open vSwitch) takes all frames of %s", up->name);
	return net_host->err(e, r, "cannot make a %s on %s: %s", w->kind, up->name, text[0] ? text : strerror(-r));
}

static int explain_make(struct nl *nl, int r, const struct nl_link *up, const struct link_want *w, struct vh_err *e)
{
	if (r == -EBUSY || r == -EINVAL || r == -EEXIST || r == -EADDRINUSE)
		return explain_busy(nl, r, up, w, e);
	if (r == -EPERM || r == -EACCES)
		net_host->remedy(e, "run as root, or give the program CAP_NET_ADMIN");
	else if (r == -EOPNOTSUPP)
		net_host->remedy(e, "load the module with 'modprobe %s'", w->kind);
	return net_host->err(e, r, "cannot make a %s on %s: %s", w->kind, up->name, nl->text[0] ? nl->text : strerror(-r));
}

static void keep(void *ctx, const struct nl_link *l)
{
	*(struct nl_link *)ctx = *l;
}

static int commit_and_get(struct nl *nl, struct nl_link *out, int but_first)
{
	int r;

	nl->link = keep;
	nl->ctx = out;
	r = but_first ? nl_commit_but_first(nl) : nl_commit(nl);
	nl->link = NULL;
	return r;
}

static int make(struct nl *nl, const struct nl_link *up, const struct link_want *w, struct nl_link *out)
{
	size_t info, data;

	nl_link_begin(nl, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, AF_UNSPEC, 0, w->tmp, -1);
	nl_put_u32(nl, IFLA_LINK, (uint32_t)up->ifindex);
	nl_put(nl, IFLA_ADDRESS, w->mac, 6);
	if (w->mtu)
		nl_put_u32(nl, IFLA_MTU, w->mtu);
	info = nl_nest(nl, IFLA_LINKINFO);
	nl_put_str(nl, IFLA_INFO_KIND, w->kind);
	data = nl_nest(nl, IFLA_INFO_DATA);
	nl_put_u32(nl, IFLA_MACVLAN_MODE, w->mode);
	nl_nest_end(nl, data);
	nl_nest_end(nl, info);
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, 0, w->tmp, -1);
	nl_put_str(nl, IFLA_IFALIAS, w->owner);
	nl_link_begin(nl, RTM_GETLINK, 0, AF_UNSPEC, 0, w->tmp, -1);
	nl_put_u32(nl, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	return commit_and_get(nl, out, 0);
}

/* Named before it goes up, so that hooks of the host see its real name first. */
static int settle(struct nl *nl, const struct link_want *w, struct nl_link *out, unsigned *naming)
{
	int i = out->ifindex;

	/* The first one may fail; without it there is nothing to do, and it cannot. */
	if (w->quiet)
		nl_link_no_ipv6(nl, i);
	else
		nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, i, NULL, -1);
	if (w->mode == MACVLAN_MODE_PASSTHRU) { /* made with the uplink's, which the kernel gives back at the end */
		nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, i, NULL, -1);
		nl_put(nl, IFLA_ADDRESS, w->mac, 6);
	}
	*naming = nl->n;
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, i, w->name ? w->name : "vnet%d", -1);
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, i, NULL, 1);
	if (w->allmulti)
		nl_link_flags(nl, IFF_ALLMULTI, IFF_ALLMULTI);
	nl_link_begin(nl, RTM_GETLINK, 0, AF_UNSPEC, i, NULL, -1);
	nl_put_u32(nl, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	return commit_and_get(nl, out, 1);
}

static int explain_settle(struct nl *nl, int r, const struct nl_link *up, const struct link_want *w, unsigned naming,
			  struct vh_err *e)
{
	if (nl->result[naming] == -EEXIST) {
		net_host->remedy(e, "choose another ifname, or leave it out");
		return net_host->err(e, -EEXIST, "an interface named %s exists already", w->name ? w->name : "vnetN");
	}
	if (r == -EADDRINUSE)
		return explain_busy(nl, r, up, w, e);
	return net_host->err(e, r, "cannot set up %s on %s: %s", w->kind, up->name, nl->text[0] ? nl->text : strerror(-r));
}

int link_make(struct nl *nl, const struct nl_link *up, const struct link_want *w, struct nl_link *out, struct vh_err *e)
{
	struct nl_link made = { 0 };
	unsigned naming;
	int r;

	memset(out, 0, sizeof(*out));
	if (w->mtu > up->mtu) {
		net_host->remedy(e, "leave out mtu=, or 'ip link set %s mtu %u'", up->name, w->mtu);
		return net_host->err(e, -EINVAL, "MTU %u is more than the %u of uplink %s", w->mtu, up->mtu, up->name);
	}
	r = make(nl, up, w, &made);
	if (!r && !made.ifindex)
		r = -ENODEV;
	if (r < 0) {
		r = explain_make(nl, r, up, w, e);
		goto undo;
	}
	*out = made;
	r = settle(nl, w, out, &naming);
	if (r < 0) {
		r = explain_settle(nl, r, up, w, naming, e);
		goto undo;
	}
	return 0;
undo:
	/* An answer may have been lost: by the number where it is known, else by the name that nobody else has. */
	nl_link_delete(nl, made.ifindex, made.ifindex ? NULL : w->tmp);
	out->ifindex = 0;
	return r;
}
