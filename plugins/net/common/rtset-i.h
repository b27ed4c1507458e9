/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* How the kernel's messages are read; rtset.c keeps them, rtset-move.c puts them on an interface. */
#ifndef NET_COMMON_RTSET_I_H
#define NET_COMMON_RTSET_I_H

#include <linux/if_addr.h>
#include <string.h>

#include "rtset.h"

static inline const struct rtattr *attr(const struct nlmsghdr *h, unsigned short type)
{
	size_t head = h->nlmsg_type == RTM_NEWADDR ? sizeof(struct ifaddrmsg) : sizeof(struct rtmsg);
	int left = (int)h->nlmsg_len - (int)NLMSG_SPACE(head);
	const struct rtattr *a = (const struct rtattr *)((const char *)h + NLMSG_SPACE(head));

	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		if ((a->rta_type & NLA_TYPE_MASK) == type)
			return a;
	return NULL;
}

static inline uint32_t attr_u32(const struct nlmsghdr *h, unsigned short type, uint32_t absent)
{
	const struct rtattr *a = attr(h, type);
	uint32_t v = absent;

	if (a && RTA_PAYLOAD(a) >= sizeof(v))
		memcpy(&v, RTA_DATA(a), sizeof(v));
	return v;
}

static inline const struct ifaddrmsg *ifa(const struct nlmsghdr *h)
{
	return NLMSG_DATA(h);
}

static inline const struct rtmsg *rtm(const struct nlmsghdr *h)
{
	return NLMSG_DATA(h);
}

static inline int is_addr(const struct nlmsghdr *h)
{
	return h->nlmsg_type == RTM_NEWADDR;
}

static inline uint32_t addr_flags(const struct nlmsghdr *h)
{
	return attr_u32(h, IFA_FLAGS, ifa(h)->ifa_flags);
}

/* RTNH_OK reads the length before it looks whether there is one. */
static inline int hop_ok(const struct rtnexthop *h, int left)
{
	return left >= (int)sizeof(*h) && RTNH_OK(h, left);
}

int rtset_has_route(const struct rtset *s, const struct nlmsghdr *h); /* s may be NULL */

#endif
