/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The bridge that ports share: found or made, with its uplink, and removed with its last user. */
#include "bridge.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <vhost/sugar.h>

#include "plugin.h"
#include "tag.h"
#include "uplink.h"

static int find_bridge(struct nl *nl, const struct bridge_want *w, struct bridge_switch *s, struct vh_err *e)
{
	int r = nl_link_get(nl, 0, w->dev.name, &s->br);

	if (r == -ENODEV && w->create) {
		s->make = 1;
		return 0;
	}
	if (r == -ENODEV) {
		net_host->remedy(e, "add create=on, or make it with 'ip link add %s type bridge'", w->dev.name);
		return net_host->err(e, -ENOENT, "bridge %s does not exist", w->dev.name);
	}
	if (r < 0)
		return net_host->err(e, r, "cannot look for bridge %s: %s", w->dev.name, nl->text[0] ? nl->text : strerror(-r));
	if (strcmp(s->br.kind, "bridge")) {
		net_host->remedy(e, "name a bridge, or another name with create=on");
		return net_host->err(e, -EINVAL, "%s is not a bridge but %s%s", w->dev.name,
					s->br.kind[0] ? "an interface of type " : "a plain interface", s->br.kind);
	}
	return 0;
}

static int find_uplink(struct nl *nl, const struct bridge_want *w, const char *state, struct bridge_switch *s, struct vh_err *e)
{
	char other[16];
	int r = uplink_check(nl, w->uplink, s->br.ifindex, &s->up, e), has;

	if (r)
		return r;
	s->join = s->up.master == 0;
	has = s->make || !s->join ? 0 : uplink_of(state, s->br.ifindex, other);
	if (s->join && !s->make && !tag_ours(s->br.alias)) {
		net_host->remedy(e, "choose another name for the bridge, or join it with 'ip link set %s master %s'", w->uplink, w->dev.name);
		return net_host->err(e, -EEXIST, "bridge %s exists, and was not made by vhost: %s does not join it", w->dev.name, w->uplink);
	}
	/* The record of one that vanished and came back, as another one, is written anew. */
	if (has && has != s->up.ifindex) {
		struct nl_link l;

		if (!nl_link_get(nl, has, NULL, &l) && l.master == s->br.ifindex) {
			net_host->remedy(e, "choose another name for the bridge");
			return net_host->err(e, -EEXIST, "bridge %s has the uplink %s already", w->dev.name, other);
		}
	}
	if (w->dev.mtu > s->up.mtu) {
		net_host->remedy(e, "raise it with 'ip link set %s mtu %u', or leave out mtu=", w->uplink, w->dev.mtu);
		return net_host->err(e, -EINVAL, "MTU %u is more than that of the uplink %s, %u", w->dev.mtu, w->uplink, s->up.mtu);
	}
	return 0;
}

int switch_find(struct nl *nl, const struct bridge_want *w, const char *state, struct bridge_switch *s, struct vh_err *e)
{
	int r;

	memset(s, 0, sizeof(*s));
	r = find_bridge(nl, w, s, e);
	if (!r && w->uplink[0])
		r = find_uplink(nl, w, state, s, e);
	if (!r && s->make)
		bridgedev_tmp_name(s->tmp);
	return r;
}

/* The bridge as it is to be made: with an uplink it has that one's address, which leases and neighbours know, and MTU. */
static void wanted_dev(const struct bridge_want *w, const struct bridge_switch *s, struct bridgedev_want *dev)
{
	*dev = w->dev;
	dev->altname = w->altname[0] ? w->altname : NULL;
	if (!s->up.ifindex)
		return;
	dev->mtu = (uint16_t)(s->up.mtu > UINT16_MAX ? UINT16_MAX : s->up.mtu);
	dev->no_addrgen = s->up.addrgen >= 0;
	if (!w->have_mac)
		memcpy(dev->mac, s->up.mac, sizeof(dev->mac));
}

void switch_plan(struct nl *nl, const struct bridge_want *w, const struct bridge_switch *s, const struct plan *p)
{
	struct bridgedev_want dev;
	uint8_t mac[6];

	wanted_dev(w, s, &dev);
	if (s->make) {
		bridgedev_want_mac(&dev, mac);
		step(p, "create bridge %s, MAC %02x:%02x:%02x:%02x:%02x:%02x, MTU %u, without STP", dev.name, mac[0], mac[1], mac[2],
		     mac[3], mac[4], mac[5], dev.mtu ? dev.mtu : 1500);
		if (dev.altname)
			step(p, "give bridge %s the longer name %s too", dev.name, dev.altname);
		if (dev.address.text)
			step(p, "give bridge %s the address %s", dev.name, dev.address.text);
		step(p, "set bridge %s up", dev.name);
	}
	if (s->join)
		uplink_plan(nl, &s->up, dev.name, p, NULL);
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

struct given_back {
	const char *uplink;
	int result;
};

static void given_back(void *ctx, const char *uplink, int result)
{
	struct given_back *g = ctx;

	if (!strcmp(uplink, g->uplink))
		g->result = result;
}

int switch_up(struct nl *nl, const struct bridge_want *w, const char *state, struct bridge_switch *s, struct vh_err *e)
{
	struct given_back back = { w->uplink, 0 };
	struct bridgedev_want dev;
	int r = 0;

	if (s->join) {
		/* What it had when somebody deleted its bridge comes back first: the record of that says nothing once it has joined. */
		uplink_collect(nl, state, given_back, &back);
		if (back.result < 0) {
			net_host->remedy(e, "look what %s lacks (ip addr, ip route); vhost net gc tries it once more", w->uplink);
			return net_host->err(e, back.result, "uplink %s cannot be given back what it had on a bridge that was deleted: %s",
					     w->uplink, nl->text[0] ? nl->text : strerror(-back.result));
		}
		r = uplink_check(nl, w->uplink, s->br.ifindex, &s->up, e);
		if (r)
			return r;
	}
	wanted_dev(w, s, &dev);
	if (s->make) {
		r = bridgedev_make(nl, &dev, s->tmp, &s->br, e);
		if (r < 0)
			return r;
		s->made = 1;
		if (dev.mtu)
			s->br.mtu = dev.mtu;
		else
			s->br.mtu = s->br.mtu ? s->br.mtu : 1500;
	} else {
		if (tag_ours(s->br.alias) && dev.address.family)
			r = bridgedev_add_address(nl, &dev, s->br.ifindex, &s->added, e);
		if (r < 0)
			return r;
		warn_silent(&s->br);
	}
	if (s->join) {
		r = uplink_join(nl, state, &s->up, &s->br, e);
		s->joined = !r;
	}
	return r;
}

void switch_undo(struct nl *nl, const struct bridge_want *w, const char *state, struct bridge_switch *s)
{
	if (s->added)
		bridgedev_drop_address(nl, &w->dev, s->br.ifindex);
	if (s->joined)
		uplink_leave(nl, state, s->br.ifindex);
	if (s->made)
		bridgedev_remove_unused(nl, s->br.ifindex, w->dev.owner);
}

static void count_port(void *ctx, const struct nl_link *l)
{
	struct switch_ports *p = ctx;
	size_t at = strlen(p->names);

	if (l->master != p->bridge || l->ifindex == p->uplink)
		return;
	if (p->n++ < 8 && at < sizeof(p->names))
		snprintf(p->names + at, sizeof(p->names) - at, "%s%s", at ? ", " : "", l->name);
}

int switch_ports(struct nl *nl, const char *state, int bridge, struct switch_ports *p)
{
	char name[16];
	int r = -EAGAIN;

	for (int tries = 0; tries < 20 && r == -EAGAIN; tries++) {
		memset(p, 0, sizeof(*p));
		p->bridge = bridge;
		p->uplink = uplink_of(state, bridge, name);
		r = nl_link_dump(nl, bridge, count_port, p);
	}
	return r;
}

int switch_down(struct nl *nl, const char *state, int bridge, const char *held)
{
	struct switch_ports p;
	struct nl_link br;
	char name[16];
	int r;

	if (uplink_of(state, bridge, name)) {
		r = nl_link_get(nl, bridge, NULL, &br);
		if (r == -ENODEV) /* somebody has deleted it */
			return uplink_leave(nl, state, bridge);
		if (!r && !tag_removable(br.alias, held))
			return 0;
		if (!r)
			r = switch_ports(nl, state, bridge, &p);
		if (!r && p.n)
			return 0;
		if (!r)
			r = uplink_leave(nl, state, bridge);
		if (r && r != -ENODEV)
			return r;
	}
	return bridgedev_remove_unused(nl, bridge, held);
}
