/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What is in a network namespace, as text to compare: links with masters, names, aliases and flags, addresses, routes, and the VLANs of
 * bridge ports. Asked by a plain socket: shares no code with the plugins, and starts no program, which takes seconds in the lab.
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

static inline void state_message(GString *s, const struct nlmsghdr *h)
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
		break;
	case RTM_NEWROUTE:
		/* The kernel's own, for multicast and local addresses, come when a carrier does. */
		if (((const struct rtmsg *)l)->rtm_type != RTN_UNICAST)
			return;
		head = sizeof(struct rtmsg);
		g_string_append(s, "route");
		break;
	default:
		return;
	}
	a = (const struct rtattr *)((const char *)l + NLMSG_ALIGN(head));
	left = (int)h->nlmsg_len - (int)NLMSG_SPACE(head);
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		unsigned type = a->rta_type & NLA_TYPE_MASK;

		if (h->nlmsg_type == RTM_NEWADDR) {
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
		} else if (type == IFLA_LINKINFO) {
			state_linkinfo(s, a);
		}
	}
	g_string_append_c(s, '\n');
}

static inline void state_dump(GString *s, int fd, uint16_t type, uint8_t family)
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
			state_message(s, h);
		}
	}
}

static inline char *net_state(void)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	GString *s = g_string_new(NULL);

	g_assert_cmpint(fd, >=, 0);
	state_dump(s, fd, RTM_GETLINK, AF_UNSPEC);
	state_dump(s, fd, RTM_GETLINK, AF_BRIDGE);
	state_dump(s, fd, RTM_GETADDR, AF_UNSPEC);
	state_dump(s, fd, RTM_GETROUTE, AF_UNSPEC);
	close(fd);
	return g_string_free(s, FALSE);
}

static inline void same_state(const char *before)
{
	g_autofree char *after = net_state();

	g_assert_cmpstr(before, ==, after);
}

#endif
