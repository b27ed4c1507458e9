/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the kernel says about one interface, by a single request. */
#include "net/port.h"

#include <linux/rtnetlink.h>
#include <net/if.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#define NAME_MAX_LEN 16u

static int ask(const char *ifname, int ifindex, uint32_t mask, char *buf, size_t cap)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
		struct rtattr a;
		uint32_t mask;
		struct rtattr n;
		char name[NAME_MAX_LEN];
	} req = {
		.h = { .nlmsg_len = sizeof(req), .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST, .nlmsg_seq = 1 },
		.i = { .ifi_index = ifindex },
		.a = { .rta_len = RTA_LENGTH(sizeof(uint32_t)), .rta_type = IFLA_EXT_MASK },
		.mask = mask,
		.n = { .rta_len = RTA_LENGTH(NAME_MAX_LEN), .rta_type = IFLA_IFNAME },
	};
	struct timeval limit = { .tv_sec = 2 };
	const struct nlmsghdr *h = (const struct nlmsghdr *)buf;
	ssize_t n;
	int fd, r = 0;

	if (ifname)
		strncpy(req.name, ifname, NAME_MAX_LEN - 1);
	else
		req.h.nlmsg_len -= (uint32_t)sizeof(req.n) + NAME_MAX_LEN;
	fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	n = send(fd, &req, req.h.nlmsg_len, 0) < 0 ? -1 : recv(fd, buf, cap, 0);
	if (n < 0)
		r = -errno;
	close(fd);
	if (!r && !NLMSG_OK(h, (unsigned)n))
		r = -EPROTO;
	if (!r && h->nlmsg_type == NLMSG_ERROR)
		r = h->nlmsg_len >= NLMSG_LENGTH(sizeof(int)) && *(const int *)NLMSG_DATA(h) ? *(const int *)NLMSG_DATA(h) : -EPROTO;
	return r ? r : h->nlmsg_type == RTM_NEWLINK ? 0 : -EPROTO;
}

static const struct rtattr *find(const char *buf, unsigned short type)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)buf;
	int left = (int)h->nlmsg_len - (int)NLMSG_SPACE(sizeof(struct ifinfomsg));

	for (const struct rtattr *a = IFLA_RTA((struct ifinfomsg *)NLMSG_DATA(h)); RTA_OK(a, left); a = RTA_NEXT(a, left))
		if ((a->rta_type & NLA_TYPE_MASK) == type)
			return a;
	return NULL;
}

int net_port_stats(const struct net_port *p, struct net_port_stats *out)
{
	_Alignas(8) char buf[16384];
	struct rtnl_link_stats64 s = { 0 };
	const struct rtattr *a;
	int r = net_port_info(p)->ifindex ? ask(NULL, (int)net_port_info(p)->ifindex, 0, buf, sizeof(buf)) : -EOPNOTSUPP;

	if (r < 0)
		return r;
	a = find(buf, IFLA_STATS64);
	if (!a)
		return -EOPNOTSUPP;
	memcpy(&s, RTA_DATA(a), RTA_PAYLOAD(a) < sizeof(s) ? RTA_PAYLOAD(a) : sizeof(s));
	/* What the host sends is what the guest receives. */
	*out = (struct net_port_stats){ s.tx_packets, s.tx_bytes, s.tx_errors, s.tx_dropped,
					s.rx_packets, s.rx_bytes, s.rx_errors, s.rx_dropped };
	return 0;
}

int net_master(const char *ifname, char master[16])
{
	_Alignas(8) char buf[16384];
	const struct rtattr *a;
	uint32_t index;
	int r = ask(ifname, 0, RTEXT_FILTER_SKIP_STATS, buf, sizeof(buf));

	master[0] = '\0';
	if (r < 0)
		return r;
	a = find(buf, IFLA_MASTER);
	if (!a || RTA_PAYLOAD(a) < sizeof(index))
		return 0;
	memcpy(&index, RTA_DATA(a), sizeof(index));
	return if_indextoname(index, master) ? 0 : -ENODEV;
}
