/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What is in a network namespace, as text to compare: links with masters, names, aliases and flags, addresses, routes, and the VLANs of
 * bridge ports. net_state_all(): each attribute of addresses and routes, in the kernel's order, but for what runs down by itself.
 * Asked by a plain socket: shares no code with the plugins, and starts no program, which takes seconds in the lab.
 */
#ifndef TEST_NLSTATE_H
#define TEST_NLSTATE_H

#include <glib.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static inline void state_hex(GString *s, const char *name, const struct rtattr *a)
{
	const uint8_t *p = RTA_DATA(a);

	g_string_append_printf(s, " %s=", name);
	for (unsigned i = 0; i < RTA_PAYLOAD(a); i++)
		g_string_append_printf(s, p[i] > ' ' && p[i] < 127 && p[i] != '\\' ? "%c" : "\\%02x", p[i]);
}

static inline void state_linkinfo(GString *s, const struct rtattr *info)
{
	const struct rtattr *a = RTA_DATA(info), *d;
	int left = (int)RTA_PAYLOAD(info), n;
	g_autofree char *kind = NULL;

	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		switch (a->rta_type) {
		case IFLA_INFO_KIND:
			state_hex(s, "kind", a);
			kind = g_strndup(RTA_DATA(a), RTA_PAYLOAD(a));
			break;
		case IFLA_INFO_SLAVE_KIND:
			state_hex(s, "port", a);
			break;
		case IFLA_INFO_SLAVE_DATA:
			d = RTA_DATA(a);
			n = (int)RTA_PAYLOAD(a);
			for (; RTA_OK(d, n); d = RTA_NEXT(d, n))
				if (d->rta_type == IFLA_BRPORT_ISOLATED)
					state_hex(s, "isolated", d);
			break;
		case IFLA_INFO_DATA:
			d = RTA_DATA(a);
			n = (int)RTA_PAYLOAD(a);
			for (; RTA_OK(d, n); d = RTA_NEXT(d, n))
				if (!g_strcmp0(kind, "bridge") ? d->rta_type == IFLA_BR_VLAN_FILTERING || d->rta_type == IFLA_BR_VLAN_DEFAULT_PVID ||
								 d->rta_type == IFLA_BR_VLAN_PROTOCOL || d->rta_type == IFLA_BR_STP_STATE :
								 !g_strcmp0(kind, "vlan"))
					state_hex(s, "data", d);
			break;
		}
}

/* Lifetimes only as: is there one. */
static inline void state_any(GString *s, const struct nlmsghdr *h, const struct rtattr *a)
{
	g_autofree char *name = g_strdup_printf("%u", a->rta_type & NLA_TYPE_MASK);

	if (h->nlmsg_type == RTM_NEWADDR && a->rta_type == IFA_CACHEINFO) {
		const struct ifa_cacheinfo *c = RTA_DATA(a);

		g_string_append_printf(s, " valid %d preferred %d", c->ifa_valid != UINT32_MAX, c->ifa_prefered == UINT32_MAX ? 2 : c->ifa_prefered > 0);
	} else if (h->nlmsg_type == RTM_NEWROUTE && a->rta_type == RTA_CACHEINFO) {
		g_string_append_printf(s, " expires %d", ((const struct rta_cacheinfo *)RTA_DATA(a))->rta_expires != 0);
	} else {
		state_hex(s, name, a);
	}
}

static inline void state_addrgenmode(GString *s, const struct rtattr *spec)
{
	const struct rtattr *f = RTA_DATA(spec), *a;
	int left = (int)RTA_PAYLOAD(spec), n;

	for (; RTA_OK(f, left); f = RTA_NEXT(f, left)) {
		if (f->rta_type != AF_INET6)
			continue;
		a = RTA_DATA(f);
		n = (int)RTA_PAYLOAD(f);
		for (; RTA_OK(a, n); a = RTA_NEXT(a, n))
			if (a->rta_type == IFLA_INET6_ADDR_GEN_MODE)
				state_hex(s, "addrgenmode", a);
	}
}

static inline void state_message(GString *s, const struct nlmsghdr *h, int all)
{
	const struct ifinfomsg *l = NLMSG_DATA(h);
	const struct rtattr *a;
	size_t head;
	int left;

	switch (h->nlmsg_type) {
	case RTM_NEWLINK:
		head = sizeof(*l);
		g_string_append_printf(s, "%s %d %x", l->ifi_family == AF_BRIDGE ? "vlans" : "link", l->ifi_index,
				       l->ifi_flags & (IFF_UP | IFF_NOARP | IFF_PROMISC | IFF_ALLMULTI));
		break;
	case RTM_NEWADDR:
		head = sizeof(struct ifaddrmsg);
		g_string_append_printf(s, "address %u/%u", ((struct ifaddrmsg *)l)->ifa_index, ((struct ifaddrmsg *)l)->ifa_prefixlen);
		if (all)
			g_string_append_printf(s, " scope %u flags %x", ((struct ifaddrmsg *)l)->ifa_scope, ((struct ifaddrmsg *)l)->ifa_flags);
		break;
	case RTM_NEWROUTE:
		/* The kernel's own, for multicast and local addresses, come when a carrier does. */
		if (!all && ((const struct rtmsg *)l)->rtm_type != RTN_UNICAST)
			return;
		head = sizeof(struct rtmsg);
		g_string_append(s, "route");
		if (all)
			for (unsigned i = 0; i < head; i++)
				g_string_append_printf(s, "%s%02x", i ? "" : " ", ((const uint8_t *)l)[i]);
		break;
	default:
		return;
	}
	a = (const struct rtattr *)((const char *)l + NLMSG_ALIGN(head));
	left = (int)h->nlmsg_len - (int)NLMSG_SPACE(head);
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		unsigned type = a->rta_type & NLA_TYPE_MASK;

		if (all && h->nlmsg_type != RTM_NEWLINK) {
			state_any(s, h, a);
		} else if (h->nlmsg_type == RTM_NEWADDR) {
			if (type == IFA_LOCAL || type == IFA_ADDRESS)
				state_hex(s, "ip", a);
		} else if (h->nlmsg_type == RTM_NEWROUTE) {
			if (type == RTA_DST || type == RTA_OIF || type == RTA_GATEWAY || type == RTA_TABLE || type == RTA_PRIORITY)
				state_hex(s, "r", a);
		} else if (l->ifi_family == AF_BRIDGE) {
			if (type == IFLA_AF_SPEC)
				state_hex(s, "ids", a);
		} else if (type == IFLA_IFNAME || type == IFLA_IFALIAS || type == IFLA_ADDRESS || type == IFLA_MTU || type == IFLA_LINK ||
			   type == IFLA_MASTER || type == IFLA_PROMISCUITY || type == IFLA_PROP_LIST) {
			state_hex(s, "", a);
		} else if (all && (type == IFLA_QDISC || type == IFLA_TXQLEN || type == IFLA_GROUP || type == IFLA_BROADCAST)) {
			state_hex(s, "", a);
		} else if (all && type == IFLA_AF_SPEC) {
			state_addrgenmode(s, a);
		} else if (type == IFLA_LINKINFO) {
			state_linkinfo(s, a);
		}
	}
	g_string_append_c(s, '\n');
}

static inline void state_dump(GString *s, int fd, uint16_t type, uint8_t family, int all)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
		struct rtattr a;
		uint32_t mask;
	} ask = { { sizeof(ask), type, NLM_F_REQUEST | NLM_F_DUMP, 1, 0 }, { .ifi_family = family }, { 8, IFLA_EXT_MASK },
		  family == AF_BRIDGE ? RTEXT_FILTER_BRVLAN : RTEXT_FILTER_SKIP_STATS };
	static char buf[1 << 16];
	ssize_t n;

	if (type != RTM_GETLINK)
		ask.h.nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg));
	g_assert_cmpint(send(fd, &ask, ask.h.nlmsg_len, 0), ==, ask.h.nlmsg_len);
	for (int done = 0; !done;) {
		n = recv(fd, buf, sizeof(buf), 0);
		g_assert_cmpint(n, >, 0);
		for (struct nlmsghdr *h = (struct nlmsghdr *)buf; NLMSG_OK(h, (size_t)n); h = NLMSG_NEXT(h, n)) {
			done |= h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR;
			state_message(s, h, all);
		}
	}
}

static inline char *state_dumps(int all)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	GString *s = g_string_new(NULL);

	g_assert_cmpint(fd, >=, 0);
	state_dump(s, fd, RTM_GETLINK, AF_UNSPEC, all);
	state_dump(s, fd, RTM_GETLINK, AF_BRIDGE, all);
	state_dump(s, fd, RTM_GETADDR, AF_UNSPEC, all);
	state_dump(s, fd, RTM_GETROUTE, AF_UNSPEC, all);
	close(fd);
	return g_string_free(s, FALSE);
}

static inline char *net_state(void)
{
	return state_dumps(0);
}

static inline char *net_state_all(void)
{
	return state_dumps(1);
}

static inline void same_state(const char *before)
{
	g_autofree char *after = net_state();

	g_assert_cmpstr(before, ==, after);
}

#endif
