/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the ports of a VLAN share: found, judged, made, removed. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/if_ether.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <string.h>
#include <unistd.h>

#include "brport.h"
#include "plugin.h"
#include "tag.h"
#include "vlan.h"

int vlan_netlink_error(struct nl *nl, int r, const char *what, const char *name, struct vh_err *e)
{
	if (r == -EPERM || r == -EACCES)
		net_host->remedy(e, "run as root, or give the program CAP_NET_ADMIN");
	return net_host->err(e, r, "cannot %s %s: %s", what, name, nl->text[0] ? nl->text : strerror(-r));
}

struct found {
	const struct vlan_want *w;
	struct vlan_shared *s;
	unsigned n; /* single questions in the batch */
};

static void on_link(void *ctx, const struct nl_link *l)
{
	struct found *f = ctx;

	if (f->n > 0 && l->at == 0)
		f->s->uplink = *l;
	else if (f->n > 1 && l->at == 1)
		f->s->bridge = *l;
	else if (f->n > 2 && l->at == 2)
		f->s->dev = *l;
	else if (!strcmp(l->kind, "vlan") && l->proto == f->w->proto && l->vlan && l->vlan <= VLAN_ID_MAX && f->s->uplink.ifindex &&
		 l->link == f->s->uplink.ifindex && vlan_has(&f->w->ids, l->vlan))
		f->s->taken = *l;
}

/* One round trip. */
int shared_find(struct nl *nl, const struct vlan_want *w, struct vlan_shared *s, struct vh_err *e)
{
	struct found f = { w, s, w->filter ? 2 : 3 };
	int r;

	for (int tries = 0;; tries++) {
		memset(s, 0, sizeof(*s));
		nl->link = on_link;
		nl->ctx = &f;
		nl_link_ask(nl, 0, w->uplink, NULL);
		nl_link_ask(nl, 0, NULL, w->bridge_mark);
		if (w->filter)
			nl_ask_kind(nl, "vlan");
		else
			nl_link_ask(nl, 0, NULL, w->dev_mark);
		r = nl_commit(nl);
		nl->link = NULL;
		for (unsigned i = 0; r == -ENODEV && i < 3; i++)
			if (nl->result[i] && nl->result[i] != -ENODEV)
				r = nl->result[i];
		if (r != -EAGAIN || tries == 20)
			return !r || r == -ENODEV ? 0 : vlan_netlink_error(nl, r, "look at", w->uplink, e);
	}
}

uint32_t shared_mtu(const struct vlan_want *w, const struct vlan_shared *s)
{
	return !w->filter && s->dev.ifindex && s->dev.mtu < s->uplink.mtu ? s->dev.mtu : s->uplink.mtu;
}

int shared_is_user(const struct vlan_want *w, const struct vlan_shared *s, const struct nl_link *l)
{
	return l->master == s->bridge.ifindex && l->ifindex != (w->filter ? s->uplink.ifindex : s->dev.ifindex);
}

static int check_uplink(const struct vlan_want *w, const struct nl_link *up, struct vh_err *e)
{
	char path[64];

	if (!up->ifindex) {
		net_host->remedy(e, "name one that 'ip link' shows");
		return net_host->err(e, -ENOENT, "uplink %s does not exist", w->uplink);
	}
	if (strcmp(up->name, w->uplink)) { /* one uplink, one mark */
		net_host->remedy(e, "use uplink=%s", up->name);
		return net_host->err(e, -EINVAL, "uplink %s is another name of %s", w->uplink, up->name);
	}
	if (up->type != ARPHRD_ETHER || up->flags & IFF_LOOPBACK)
		return net_host->err(e, -EINVAL, "uplink %s is no Ethernet interface, and only those have VLANs", w->uplink);
	snprintf(path, sizeof(path), "/sys/class/net/%s/phy80211", w->uplink);
	if (!access(path, F_OK)) {
		net_host->remedy(e, "use a wired interface");
		return net_host->err(e, -EINVAL, "uplink %s is a wireless interface: its access point takes frames of one address only, without tags",
				     w->uplink);
	}
	if (!(up->flags & IFF_UP)) {
		net_host->remedy(e, "set it up with 'ip link set %s up'", w->uplink);
		return net_host->err(e, -ENETDOWN, "uplink %s is down", w->uplink);
	}
	return 0;
}

/* A port of something else: its frames would not come to us. */
static int check_master(struct nl *nl, const struct vlan_want *w, const struct vlan_shared *s, struct vh_err *e)
{
	struct nl_link m = { 0 };

	if (!s->uplink.master || (w->filter && s->uplink.master == s->bridge.ifindex))
		return 0;
	nl_link_get(nl, s->uplink.master, NULL, &m);
	if (!w->filter && !strncmp(m.mark, "vhost.trunk.", 12)) {
		net_host->remedy(e, "use mode=filter, as its other VLANs do, or end the VMs there first");
		return net_host->err(e, -EBUSY, "uplink %s is a port of %s, which has all its VLANs", w->uplink, m.name);
	}
	if (strcmp(m.kind, "bridge"))
		net_host->remedy(e, "use uplink=%s", m.name[0] ? m.name : "its master");
	else
		net_host->remedy(e, "use a port of its own, or take it away with 'ip link set %s nomaster'", w->uplink);
	return net_host->err(e, -EBUSY, "uplink %s is a port of %s %s already, which takes its frames", w->uplink,
			     m.kind[0] ? m.kind : "interface", m.name[0] ? m.name : "?");
}

struct addresses {
	int ifindex;
	char text[80];
};

static void on_address(void *ctx, struct nlmsghdr *h)
{
	const struct ifaddrmsg *a = NLMSG_DATA(h);
	char ip[INET6_ADDRSTRLEN] = "?";
	struct addresses *s = ctx;
	struct rtattr *t;
	int left;

	if (h->nlmsg_type != RTM_NEWADDR || h->nlmsg_len < NLMSG_LENGTH(sizeof(*a)) || (int)a->ifa_index != s->ifindex ||
	    a->ifa_scope == RT_SCOPE_LINK || s->text[0])
		return;
	left = (int)IFA_PAYLOAD(h);
	for (t = IFA_RTA(a); RTA_OK(t, left); t = RTA_NEXT(t, left))
		if ((t->rta_type == IFA_LOCAL || (t->rta_type == IFA_ADDRESS && ip[0] == '?')) &&
		    RTA_PAYLOAD(t) >= (a->ifa_family == AF_INET ? 4 : 16))
			inet_ntop(a->ifa_family, RTA_DATA(t), ip, sizeof(ip));
	snprintf(s->text, sizeof(s->text), "%s/%u", ip, a->ifa_prefixlen);
}

/* The host speaks without tags there; a bridge that carries tagged VLANs only would end that. */
static int check_addresses(struct nl *nl, const struct vlan_want *w, const struct vlan_shared *s, struct vh_err *e)
{
	struct addresses a = { .ifindex = s->uplink.ifindex };
	int r;

	for (int tries = 0;; tries++) {
		nl_link_begin(nl, RTM_GETADDR, NLM_F_DUMP, AF_UNSPEC, 0, NULL, -1);
		nl->raw = on_address;
		nl->ctx = &a;
		r = nl_commit(nl);
		nl->raw = NULL;
		if (r != -EAGAIN || tries == 20)
			break;
	}
	if (r < 0)
		return vlan_netlink_error(nl, r, "list the addresses of", w->uplink, e);
	if (!a.text[0])
		return 0;
	net_host->remedy(e, "use mode=device, which leaves the uplink's untagged traffic to the host, or an uplink without addresses");
	return net_host->err(e, -EBUSY, "the host has %s on uplink %s, and would lose it as a port of a bridge", a.text, w->uplink);
}

static int check_bridge(struct nl *nl, const struct vlan_want *w, struct vlan_shared *s, struct vh_err *e)
{
	const struct nl_link *br = &s->bridge;
	char what[64];

	if (strcmp(br->kind, "bridge") || !tag_ours(br->alias) || (w->filter && (!br->filtering || br->pvid))) {
		net_host->remedy(e, "remove it with 'ip link del %s', or take its name %s away", br->name, w->bridge_mark);
		return net_host->err(e, -EBUSY, "%s was the bridge of %s, but somebody has changed it", br->name,
				     vlan_called(w, what, sizeof(what)));
	}
	if (w->filter && br->proto != w->proto) {
		net_host->remedy(e, "use mode=device for this one");
		return net_host->err(e, -EBUSY, "bridge %s of %s tags by 802.1%s, and can do only one", br->name, w->uplink,
				     br->proto == ETH_P_8021AD ? "ad" : "Q");
	}
	if (w->named && strcmp(br->name, w->bridge)) {
		net_host->remedy(e, "leave out bridge=");
		return net_host->err(e, -EBUSY, "%s has the bridge %s already", vlan_called(w, what, sizeof(what)), br->name);
	}
	return 0;
}

/* A free name for the bridge that is not there yet. */
static int pick_name(struct nl *nl, const struct vlan_want *w, struct vlan_shared *s, struct vh_err *e)
{
	char name[16];
	struct nl_link l;
	int r;

	memcpy(name, w->bridge, sizeof(name));
	for (unsigned i = 2;; i++) {
		r = nl_link_get(nl, 0, name, &l);
		if (r == -ENODEV)
			break;
		if (r < 0)
			return vlan_netlink_error(nl, r, "look for", name, e);
		if (w->named || i > 99) {
			net_host->remedy(e, "choose another name with bridge=, or leave it out");
			return net_host->err(e, -EEXIST, "%s exists already, and is not the bridge of %s%s%s", name, w->uplink,
					     tag_ours(l.alias) ? " but of " : "", tag_ours(l.alias) ? l.alias : "");
		}
		snprintf(name, sizeof(name), "%.12s.%u", w->bridge, i);
	}
	memcpy(s->bridge.name, name, sizeof(name));
	return 0;
}

static int check_dev(struct nl *nl, const struct vlan_want *w, struct vlan_shared *s, struct vh_err *e)
{
	struct found f = { w, s, 0 };
	struct nl_link m = { 0 };
	const char *owner;
	int r;

	if (s->dev.ifindex && (strcmp(s->dev.kind, "vlan") || !tag_ours(s->dev.alias) || s->dev.link != s->uplink.ifindex ||
			       s->dev.vlan != w->id || s->dev.proto != w->proto)) {
		net_host->remedy(e, "remove it with 'ip link del %s'", s->dev.name);
		return net_host->err(e, -EBUSY, "%s was VLAN %u of %s, but somebody has changed it", s->dev.name, w->id, w->uplink);
	}
	if (s->dev.ifindex && s->dev.master && s->dev.master != s->bridge.ifindex) {
		nl_link_get(nl, s->dev.master, NULL, &m);
		net_host->remedy(e, "take it away with 'ip link set %s nomaster'", s->dev.name);
		return net_host->err(e, -EBUSY, "VLAN device %s has become a port of %s", s->dev.name, m.name);
	}
	if (w->filter || !s->dev.ifindex) {
		for (int tries = 0; !w->filter; tries++) {
			nl->link = on_link;
			nl->ctx = &f;
			nl_ask_kind(nl, "vlan");
			r = nl_commit(nl);
			nl->link = NULL;
			if (r < 0 && (r != -EAGAIN || tries == 20))
				return vlan_netlink_error(nl, r, "list the VLANs of", w->uplink, e);
			if (r != -EAGAIN)
				break;
		}
		if (s->taken.ifindex) {
			if (s->taken.master)
				nl_link_get(nl, s->taken.master, NULL, &m);
			owner = s->taken.alias[0] ? s->taken.alias : m.name[0] ? m.name : "";
			if (!strcmp(m.kind, "bridge") && !tag_ours(s->taken.alias))
				net_host->remedy(e, "use its bridge with --net type=bridge,name=%s, or remove it with 'ip link del %s'", m.name,
						 s->taken.name);
			else
				net_host->remedy(e, "%s", tag_ours(s->taken.alias) ? "use mode=device, as its users do, or end them first" :
										     "use another id, or remove it with 'ip link del'");
			return net_host->err(e, -EBUSY, "VLAN %u of %s is taken by %s, which %s%s%s", s->taken.vlan, w->uplink, s->taken.name,
					     tag_ours(s->taken.alias) ? "belongs to " : "is not vhost's",
					     !owner[0] || tag_ours(s->taken.alias) ? "" : s->taken.alias[0] ? " but of " : " but a port of ", owner);
		}
	}
	return 0;
}

int shared_check_bridge(struct nl *nl, const struct vlan_want *w, struct vlan_shared *s, struct vh_err *e)
{
	return s->bridge.ifindex ? check_bridge(nl, w, s, e) : pick_name(nl, w, s, e);
}

int shared_check(struct nl *nl, const struct vlan_want *w, struct vlan_shared *s, struct vh_err *e)
{
	int r = check_uplink(w, &s->uplink, e);

	if (!r)
		r = check_master(nl, w, s, e);
	if (!r && s->bridge.ifindex)
		r = check_bridge(nl, w, s, e);
	if (!r)
		r = check_dev(nl, w, s, e);
	if (!r && w->filter && !s->uplink.master)
		r = check_addresses(nl, w, s, e);
	if (!r && w->mtu > shared_mtu(w, s)) {
		net_host->remedy(e, "use mtu=%u, or raise it with 'ip link set %s mtu %u'", shared_mtu(w, s),
				 s->uplink.mtu < w->mtu ? w->uplink : s->dev.name, w->mtu);
		r = net_host->err(e, -EINVAL, "MTU %u is larger than that of %s (%u)", w->mtu,
				  s->uplink.mtu < w->mtu ? w->uplink : s->dev.name, shared_mtu(w, s));
	}
	return !r && !s->bridge.ifindex ? pick_name(nl, w, s, e) : r;
}
