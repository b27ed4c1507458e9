/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Making and removing what the ports of a VLAN share. With the journal locked exclusively. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <string.h>
#include <vhost/sugar.h>

#include "brport.h"
#include "plugin.h"
#include "tag.h"
#include "vlan.h"

static int make_bridge(struct nl *nl, const struct vlan_want *w, const char *tmp, struct vlan_shared *s, struct vh_err *e)
{
	const struct vh_log_ops *log = vh_service(net_host, VH_SVC_LOG, sizeof(*log));
	struct bridgedev_want b = { .owner = w->owner, .mark = w->bridge_mark, .altname = w->altname[0] ? w->altname : NULL,
				    .proto = w->proto, .pvid = w->filter ? 0 : w->id };
	int r;

	memcpy(b.name, s->bridge.name, sizeof(b.name));
	r = bridgedev_make(nl, &b, tmp, &s->bridge, e);
	if (!r && w->filter && !s->bridge.filtering)
		r = -EOPNOTSUPP; /* and taken down by the caller */
	if (r == -EOPNOTSUPP && w->filter) {
		net_host->remedy(e, "use a kernel with CONFIG_BRIDGE_VLAN_FILTERING, or mode=device");
		return net_host->err(e, r, "this kernel's bridges know no VLANs");
	}
	if (r == -EOPNOTSUPP) { /* the VLAN device keeps the VLANs apart all the same */
		if (log)
			log->log(VH_LOG_WARN, "vlan.bridge", "this kernel's bridges know no VLANs: guests of VLAN %u can send each other tagged frames",
				 w->id);
		b.proto = b.pvid = 0;
		r = bridgedev_make(nl, &b, tmp, &s->bridge, e);
	}
	if (!r) { /* before it has a carrier: the host is in no VLAN; a kernel without IPv6 refuses this, which is as good */
		nl_link_no_ipv6(nl, s->bridge.ifindex);
		nl_commit(nl);
	}
	return r;
}

/* The uplink as the bridge's port: before, the bridge carries no VLAN; then those that its ports use. */
static int join_uplink(struct nl *nl, const struct vlan_want *w, struct vlan_shared *s, struct vh_err *e)
{
	struct vlan_set used, has;
	int r;

	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, s->uplink.ifindex, NULL, -1);
	nl_put_u32(nl, IFLA_MASTER, (uint32_t)s->bridge.ifindex);
	r = nl_commit(nl);
	if (r == -EBUSY) {
		net_host->remedy(e, "remove the macvlan or macvtap interfaces on %s", w->uplink);
		return net_host->err(e, r, "uplink %s is taken by another kind of interface", w->uplink);
	}
	if (!r)
		r = brvlan_used(nl, s->bridge.ifindex, s->uplink.ifindex, &used, &has);
	if (!r)
		r = brvlan_change(nl, RTM_SETLINK, s->uplink.ifindex, &used);
	if (r < 0)
		return vlan_netlink_error(nl, r, "make a port of the bridge of", w->uplink, e);
	s->uplink.master = s->bridge.ifindex;
	return 0;
}

static int make_vlan(struct nl *nl, const struct vlan_want *w, const char *tmp, const char *full, struct vlan_shared *s, struct vh_err *e)
{
	char what[64];
	size_t info, data;
	int r;

	nl_link_begin(nl, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, AF_UNSPEC, 0, tmp, -1);
	nl_put_u32(nl, IFLA_LINK, (uint32_t)s->uplink.ifindex);
	info = nl_nest(nl, IFLA_LINKINFO);
	nl_put_str(nl, IFLA_INFO_KIND, "vlan");
	data = nl_nest(nl, IFLA_INFO_DATA);
	nl_put_u16(nl, IFLA_VLAN_ID, w->id);
	nl_put_u16(nl, IFLA_VLAN_PROTOCOL, htons(w->proto));
	nl_nest_end(nl, data);
	nl_nest_end(nl, info);
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, 0, tmp, -1);
	nl_put_str(nl, IFLA_IFALIAS, w->owner);
	nl_altname(nl, 0, tmp, w->dev_mark);
	if (full)
		nl_altname(nl, 0, tmp, full);
	r = nl_commit(nl);
	if (!r)
		r = nl_link_get(nl, 0, tmp, &s->dev);
	if (!r)
		return 0;
	/* Of a name that nobody else has; an answer may have been lost. */
	vlan_called(w, what, sizeof(what));
	if (r == -EOPNOTSUPP) {
		net_host->remedy(e, "load the module with 'modprobe 8021q'");
		r = net_host->err(e, r, "this kernel has no VLAN devices (802.1Q)");
	} else {
		r = vlan_netlink_error(nl, r, "make the device of", what, e);
	}
	nl_link_delete(nl, 0, tmp);
	return r;
}

/* Its name (NULL: it has it; one that is up takes none), its place in the bridge, and up: one step. */
static int place_vlan(struct nl *nl, const struct vlan_want *w, const char *name, struct vlan_shared *s)
{
	unsigned n = 0;
	int r;

	/* Refused by a kernel without IPv6, which is as good. */
	nl_link_no_ipv6(nl, s->dev.ifindex);
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, s->dev.ifindex, name, 1);
	nl_put_u32(nl, IFLA_MASTER, (uint32_t)s->bridge.ifindex);
	n = nl->n;
	r = nl_commit(nl);
	return r < 0 && n == 2 && nl->result[0] == r ? nl->result[1] : r;
}

static int make_dev(struct nl *nl, const struct vlan_want *w, const char *tmp, struct vlan_shared *s, struct vh_err *e)
{
	char name[16], full[32];
	int r = 0, fresh = !s->dev.ifindex;

	vlan_dev_name(w, 0, name, full);
	if (fresh)
		r = make_vlan(nl, w, tmp, strcmp(name, full) ? full : NULL, s, e);
	if (r < 0)
		return r;
	r = place_vlan(nl, w, fresh ? name : NULL, s);
	if (r == -EEXIST && fresh) {
		vlan_dev_name(w, 1, name, full);
		r = place_vlan(nl, w, name, s);
	}
	if (r == -EEXIST) {
		net_host->remedy(e, "rename it with 'ip link set %s name ...'", name);
		net_host->err(e, r, "an interface named %s exists already, and is not VLAN %u of %s", name, w->id, w->uplink);
	} else if (r < 0) {
		vlan_netlink_error(nl, r, "attach", name, e);
	}
	if (r < 0 && fresh) {
		nl_link_delete(nl, s->dev.ifindex, NULL);
		s->dev.ifindex = 0;
	} else if (r < 0) { /* as it was */
		nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, s->dev.ifindex, NULL, -1);
		nl_put_u32(nl, IFLA_MASTER, 0);
		nl_commit(nl);
	} else {
		if (fresh)
			memcpy(s->dev.name, name, sizeof(name));
		s->dev.master = s->bridge.ifindex;
	}
	return r;
}

int shared_make(struct nl *nl, const struct vlan_want *w, const char *tmp_bridge, const char *tmp_dev, struct vlan_shared *s, int *made,
		struct vh_err *e)
{
	int r = 0, fresh = !s->bridge.ifindex;

	*made = 0;
	if (fresh)
		r = make_bridge(nl, w, tmp_bridge, s, e);
	if (!r && w->filter && s->uplink.ifindex && s->uplink.master != s->bridge.ifindex) {
		*made = 1;
		r = join_uplink(nl, w, s, e);
		if (r < 0 && !fresh) {
			nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, s->uplink.ifindex, NULL, -1);
			nl_put_u32(nl, IFLA_MASTER, 0);
			nl_commit(nl);
		}
	}
	if (!r && !w->filter && s->uplink.ifindex && (!s->dev.ifindex || s->dev.master != s->bridge.ifindex)) {
		*made = 1;
		r = make_dev(nl, w, tmp_dev, s, e);
	}
	/* Which lets go of the uplink. */
	if (r < 0 && fresh && s->bridge.ifindex) {
		nl_link_delete(nl, s->bridge.ifindex, NULL);
		s->bridge.ifindex = 0;
	}
	*made |= fresh;
	return r;
}

struct users {
	const struct vlan_want *w;
	const struct vlan_shared *s;
	unsigned n;
};

static void count_user(void *ctx, const struct nl_link *l)
{
	struct users *u = ctx;

	u->n += shared_is_user(u->w, u->s, l) != 0;
}

int shared_drop(struct nl *nl, const struct vlan_want *w, const char *held)
{
	struct vlan_shared s;
	struct users u = { w, &s, 0 };
	int dev, r = shared_find(nl, w, &s, NULL);

	if (r < 0)
		return r;
	if (s.bridge.ifindex && tag_ours(s.bridge.alias)) {
		for (int tries = 0; tries < 20; tries++) {
			u.n = 0;
			r = nl_link_dump(nl, s.bridge.ifindex, count_user, &u);
			if (r != -EAGAIN)
				break;
		}
		if (r < 0)
			return r;
		if (u.n || !tag_removable(s.bridge.alias, held))
			return w->filter && s.uplink.ifindex && s.uplink.master == s.bridge.ifindex ?
				       brvlan_prune(nl, s.bridge.ifindex, s.uplink.ifindex) : 0;
	} else {
		s.bridge.ifindex = 0;
	}
	dev = s.dev.ifindex && !strcmp(s.dev.kind, "vlan") && tag_removable(s.dev.alias, held) &&
	      (!s.dev.master || s.dev.master == s.bridge.ifindex);
	if (!s.bridge.ifindex && !dev)
		return 0;
	if (s.bridge.ifindex)
		nl_link_begin(nl, RTM_DELLINK, 0, AF_UNSPEC, s.bridge.ifindex, NULL, -1);
	if (dev)
		nl_link_begin(nl, RTM_DELLINK, 0, AF_UNSPEC, s.dev.ifindex, NULL, -1);
	r = nl_commit(nl);
	return r < 0 ? r : 1;
}

void shared_plan(const struct plan *p, const struct vlan_want *w, const struct vlan_shared *s)
{
	const char *ad = w->proto == ETH_P_8021AD ? " (802.1ad)" : "";
	char name[16], full[32];

	if (!s->bridge.ifindex && w->filter)
		step(p, "create bridge %s, which filters VLANs%s and carries none yet, without STP", s->bridge.name, ad);
	else if (!s->bridge.ifindex)
		step(p, "create bridge %s for VLAN %u%s of %s, without STP", s->bridge.name, w->id, ad, w->uplink);
	if (w->filter && (!s->bridge.ifindex || s->uplink.master != s->bridge.ifindex))
		step(p, "make uplink %s a port of bridge %s", w->uplink, s->bridge.name);
	if (w->filter)
		return;
	vlan_dev_name(w, 0, name, full);
	if (!s->dev.ifindex)
		step(p, "create VLAN device %s, id %u%s, MTU %u, on uplink %s", name, w->id, ad, s->uplink.mtu, w->uplink);
	if (!s->dev.ifindex || !s->dev.master)
		step(p, "attach VLAN device %s to bridge %s and set it up", s->dev.ifindex ? s->dev.name : name, s->bridge.name);
}
