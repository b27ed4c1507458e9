/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "brvlan.h"

#include <errno.h>
#include <linux/if_bridge.h>
#include <netlink/msg.h>
#include <stdio.h>
#include <string.h>

int vlan_range(const struct vlan_set *s, unsigned *from, unsigned *first, unsigned *last)
{
	unsigned i = *from;

	while (i <= VLAN_ID_MAX && !vlan_has(s, i))
		i++;
	if (i > VLAN_ID_MAX)
		return 0;
	*first = i;
	while (i < VLAN_ID_MAX && vlan_has(s, i + 1))
		i++;
	*last = i;
	*from = i + 1;
	return 1;
}

const char *vlan_text(const struct vlan_set *s, char *out, size_t cap)
{
	unsigned from = 0, a, b;
	size_t n = 0;

	out[0] = '\0';
	while (vlan_range(s, &from, &a, &b)) {
		if (n + 20 > cap) {
			snprintf(out + n, cap - n, " ...");
			break;
		}
		n += (size_t)snprintf(out + n, cap - n, a == b ? "%s%u" : "%s%u-%u", n ? ", " : "", a, b);
	}
	return out;
}

static void put_info(struct nl *nl, uint16_t flags, unsigned id)
{
	struct bridge_vlan_info v = { .flags = flags, .vid = (uint16_t)id };

	nl_put(nl, IFLA_BRIDGE_VLAN_INFO, &v, sizeof(v));
}

int brvlan_put(struct nl *nl, uint16_t type, int ifindex, const struct vlan_set *s, unsigned *from)
{
	unsigned a, b, more, n = 0;
	size_t spec;

	nl_link_begin(nl, type, 0, AF_BRIDGE, ifindex, NULL, -1);
	spec = nl_nest(nl, IFLA_AF_SPEC);
	while (n++ < BRVLAN_RANGES && vlan_range(s, from, &a, &b)) {
		if (a != b)
			put_info(nl, BRIDGE_VLAN_INFO_RANGE_BEGIN, a);
		put_info(nl, a != b ? BRIDGE_VLAN_INFO_RANGE_END : 0, b);
	}
	nl_nest_end(nl, spec);
	more = *from;
	return vlan_range(s, &more, &a, &b);
}

void brvlan_put_one(struct nl *nl, uint16_t type, int ifindex, unsigned flags, uint16_t id)
{
	size_t spec;

	nl_link_begin(nl, type, 0, AF_BRIDGE, ifindex, NULL, -1);
	spec = nl_nest(nl, IFLA_AF_SPEC);
	if (flags & BRVLAN_SELF)
		nl_put_u16(nl, IFLA_BRIDGE_FLAGS, BRIDGE_FLAGS_SELF);
	put_info(nl, flags & BRVLAN_UNTAGGED ? BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED : 0, id);
	nl_nest_end(nl, spec);
}

int brvlan_change(struct nl *nl, uint16_t type, int ifindex, const struct vlan_set *s)
{
	unsigned from = 0, look = 0, a, b;
	int r = 0, more = vlan_range(s, &look, &a, &b);

	while (more && !r) {
		for (unsigned n = 0; more && n < NL_BATCH_MAX; n++)
			more = brvlan_put(nl, type, ifindex, s, &from);
		r = nl_commit(nl);
	}
	return r;
}

struct dump {
	int bridge;
	void (*fn)(void *ctx, const struct brvlan_port *p);
	void *ctx;
};

static void take_info(struct brvlan_port *p, const struct bridge_vlan_info *v, unsigned *begin)
{
	if (v->vid > VLAN_ID_MAX)
		return;
	if (v->flags & BRIDGE_VLAN_INFO_RANGE_BEGIN) {
		*begin = v->vid;
		return;
	}
	for (unsigned id = v->flags & BRIDGE_VLAN_INFO_RANGE_END ? *begin : v->vid; id <= v->vid; id++) {
		vlan_add(&p->all, id);
		if (v->flags & BRIDGE_VLAN_INFO_UNTAGGED)
			vlan_add(&p->untagged, id);
	}
	if (v->flags & BRIDGE_VLAN_INFO_PVID)
		p->pvid = v->vid;
}

static void on_port(void *ctx, struct nlmsghdr *h)
{
	struct nlattr *tb[IFLA_MAX + 1], *a;
	const struct ifinfomsg *i;
	struct dump *d = ctx;
	struct brvlan_port p;
	unsigned begin = 0;
	int left;

	if (nlmsg_parse(h, sizeof(*i), tb, IFLA_MAX, NULL) < 0)
		return;
	i = nlmsg_data(h);
	memset(&p, 0, sizeof(p));
	p.ifindex = i->ifi_index;
	if (tb[IFLA_MASTER] && nla_len(tb[IFLA_MASTER]) >= 4)
		p.master = (int)nla_get_u32(tb[IFLA_MASTER]);
	if (d->bridge && p.master != d->bridge)
		return;
	if (tb[IFLA_AF_SPEC])
		nla_for_each_nested(a, tb[IFLA_AF_SPEC], left)
			if (nla_type(a) == IFLA_BRIDGE_VLAN_INFO && nla_len(a) >= (int)sizeof(struct bridge_vlan_info))
				take_info(&p, nla_data(a), &begin);
	d->fn(d->ctx, &p);
}

int brvlan_dump(struct nl *nl, int bridge, void (*fn)(void *ctx, const struct brvlan_port *p), void *ctx)
{
	struct dump d = { bridge, fn, ctx };
	int r;

	nl_link_begin(nl, RTM_GETLINK, NLM_F_DUMP, AF_BRIDGE, 0, NULL, -1);
	nl_put_u32(nl, IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN_COMPRESSED);
	nl->raw = on_port;
	nl->ctx = &d;
	r = nl_commit(nl);
	nl->raw = NULL;
	return r;
}

struct use {
	int but;
	struct vlan_set *used, *has;
};

static void note_use(void *ctx, const struct brvlan_port *p)
{
	const struct use *u = ctx;

	for (unsigned i = 0; i < 64; i++)
		(p->ifindex == u->but ? u->has : u->used)->w[i] |= p->all.w[i];
}

int brvlan_used(struct nl *nl, int bridge, int but, struct vlan_set *used, struct vlan_set *has)
{
	struct use u = { but, used, has };
	int r = 0;

	for (int tries = 0; tries < 20; tries++) {
		memset(used, 0, sizeof(*used));
		memset(has, 0, sizeof(*has));
		r = brvlan_dump(nl, bridge, note_use, &u);
		if (r != -EAGAIN)
			break;
	}
	return r;
}

int brvlan_prune(struct nl *nl, int bridge, int uplink)
{
	struct vlan_set used, has;
	int r = brvlan_used(nl, bridge, uplink, &used, &has);

	for (unsigned i = 0; i < 64; i++)
		has.w[i] &= ~used.w[i];
	return r < 0 ? r : brvlan_change(nl, RTM_DELLINK, uplink, &has);
}
