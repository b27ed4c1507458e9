/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "rtset-i.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <stdlib.h>
#include <string.h>

#ifndef IFA_PROTO /* Linux 5.18 */
#define IFA_PROTO 11
#endif
#define PROTO_KERNEL_LL 2 /* IFAPROT_KERNEL_LL */
#define SET_MAX 100000u
#ifndef RTA_NH_ID /* Linux 5.3 */
#define RTA_NH_ID 30
#endif

/* ---- messages ---- */

/* The address itself: of a point-to-point one IFA_ADDRESS is the peer. */
static const struct rtattr *local(const struct nlmsghdr *h)
{
	const struct rtattr *a = attr(h, IFA_LOCAL);

	return a ? a : attr(h, IFA_ADDRESS);
}

static int same_attr(const struct rtattr *a, const struct rtattr *b)
{
	return (!a && !b) || (a && b && a->rta_len == b->rta_len && !memcmp(RTA_DATA(a), RTA_DATA(b), RTA_PAYLOAD(a)));
}

/* Whether some hop of a multipath route goes through the interface. */
static int hop_through(const struct rtattr *multi, int ifindex)
{
	const struct rtnexthop *h = multi ? RTA_DATA(multi) : NULL;
	int left = multi ? (int)RTA_PAYLOAD(multi) : 0;

	for (; h && hop_ok(h, left); left -= (int)NLMSG_ALIGN(h->rtnh_len), h = RTNH_NEXT(h))
		if (h->rtnh_ifindex == ifindex)
			return 1;
	return 0;
}

static int concerns(const struct nlmsghdr *h, int ifindex)
{
	const struct rtmsg *r = rtm(h);

	if (h->nlmsg_type == RTM_NEWADDR)
		return h->nlmsg_len >= NLMSG_LENGTH(sizeof(struct ifaddrmsg)) && (int)ifa(h)->ifa_index == ifindex &&
		       (ifa(h)->ifa_family == AF_INET || ifa(h)->ifa_family == AF_INET6) && local(h);
	if (h->nlmsg_len < NLMSG_LENGTH(sizeof(*r)) || r->rtm_type != RTN_UNICAST || r->rtm_flags & RTM_F_CLONED ||
	    attr_u32(h, RTA_TABLE, r->rtm_table) == RT_TABLE_LOCAL)
		return 0;
	return (int)attr_u32(h, RTA_OIF, 0) == ifindex || hop_through(attr(h, RTA_MULTIPATH), ifindex);
}

/* ---- the set ---- */

/* IPv6 has no routes of several hops but routes that are alike, which it tells as one: only the hops through the interface are its. */
static void own_hops(struct nlmsghdr *h, int ifindex)
{
	struct rtattr *multi = (struct rtattr *)(uintptr_t)attr(h, RTA_MULTIPATH);
	char *end = (char *)h + h->nlmsg_len, *behind, *to;
	const struct rtnexthop *hop;
	int left;

	if (is_addr(h) || rtm(h)->rtm_family != AF_INET6 || !multi)
		return;
	hop = RTA_DATA(multi);
	left = (int)RTA_PAYLOAD(multi);
	behind = (char *)multi + RTA_ALIGN(multi->rta_len);
	to = RTA_DATA(multi);
	while (hop_ok(hop, left)) {
		size_t len = NLMSG_ALIGN(hop->rtnh_len);
		const struct rtnexthop *next = RTNH_NEXT(hop);

		left -= (int)len;
		if (hop->rtnh_ifindex == ifindex) {
			memmove(to, hop, len);
			to += len;
		}
		hop = next;
	}
	multi->rta_len = (unsigned short)(to - (char *)multi);
	if (behind < end)
		memmove(to, behind, (size_t)(end - behind));
	h->nlmsg_len = (uint32_t)(to - (char *)h + (behind < end ? end - behind : 0));
}

static int keep(struct rtset *s, const struct nlmsghdr *h, int ifindex)
{
	struct nlmsghdr *copy, **more;

	if (s->n >= SET_MAX)
		return -E2BIG;
	if (s->n == s->cap) {
		more = realloc(s->msg, (s->cap ? 2 * s->cap : 32) * sizeof(struct nlmsghdr *));
		if (!more)
			return -ENOMEM;
		s->msg = more;
		s->cap = s->cap ? 2 * s->cap : 32;
	}
	copy = malloc(NLMSG_ALIGN(h->nlmsg_len));
	if (!copy)
		return -ENOMEM;
	memcpy(copy, h, h->nlmsg_len);
	if (ifindex)
		own_hops(copy, ifindex);
	s->msg[s->n++] = copy;
	s->addrs += is_addr(h);
	return 0;
}

struct get {
	struct rtset *s;
	int ifindex;
};

static void take(void *ctx, struct nlmsghdr *h)
{
	struct get *g = ctx;

	if (!g->s->bad && (h->nlmsg_type == RTM_NEWADDR || h->nlmsg_type == RTM_NEWROUTE) && concerns(h, g->ifindex))
		g->s->bad = keep(g->s, h, g->ifindex);
}

void rtset_free(struct rtset *s)
{
	for (unsigned i = 0; i < s->n; i++)
		free(s->msg[i]);
	free(s->msg);
	memset(s, 0, sizeof(*s));
}

static int dump(struct nl *nl, struct rtset *s, int ifindex)
{
	static const struct { uint16_t type; int family; } part[] = {
		{ RTM_GETADDR, AF_INET }, { RTM_GETADDR, AF_INET6 }, { RTM_GETROUTE, AF_INET }, { RTM_GETROUTE, AF_INET6 },
	};
	struct get g = { s, ifindex };
	int r = 0;

	for (unsigned i = 0; i < sizeof(part) / sizeof(part[0]) && !r; i++) {
		r = nl_raw_dump(nl, part[i].type, part[i].family, take, &g);
		/* A kernel without IPv6 has none of its addresses. */
		if ((r == -EOPNOTSUPP || r == -EAFNOSUPPORT) && part[i].family == AF_INET6)
			r = 0;
		r = r ? r : s->bad;
	}
	return r;
}

int rtset_get(struct nl *nl, int ifindex, struct rtset *s)
{
	int r = -EAGAIN;

	memset(s, 0, sizeof(*s));
	for (int tries = 0; tries < 20 && r == -EAGAIN; tries++) {
		rtset_free(s);
		r = dump(nl, s, ifindex);
	}
	if (r)
		rtset_free(s);
	return r;
}

static void drop(struct rtset *s, unsigned i)
{
	s->addrs -= is_addr(s->msg[i]);
	free(s->msg[i]);
	memmove(&s->msg[i], &s->msg[i + 1], (--s->n - i) * sizeof(struct nlmsghdr *));
}

static int link_local(const struct nlmsghdr *h)
{
	const uint8_t *a = RTA_DATA(local(h));

	return ifa(h)->ifa_family == AF_INET6 ? a[0] == 0xfe && (a[1] & 0xc0) == 0x80 : ifa(h)->ifa_scope == RT_SCOPE_LINK;
}

const struct nlmsghdr *rtset_unmovable(const struct rtset *s)
{
	for (unsigned i = s->addrs; i < s->n; i++)
		if (attr(s->msg[i], RTA_NH_ID))
			return s->msg[i];
	return NULL;
}

static int has_same_address(const struct rtset *s, const struct nlmsghdr *h)
{
	for (unsigned i = 0; i < s->addrs; i++)
		if (ifa(s->msg[i])->ifa_family == ifa(h)->ifa_family && same_attr(local(s->msg[i]), local(h)))
			return 1;
	return 0;
}

int rtset_has_other(const struct rtset *s, const struct rtset *known)
{
	for (unsigned i = 0; i < s->addrs; i++)
		if (!link_local(s->msg[i]) && !has_same_address(known, s->msg[i]))
			return 1;
	return 0;
}

void rtset_age(struct rtset *s, uint32_t seconds)
{
	for (unsigned i = s->addrs; i-- > 0;) {
		struct rtattr *a = (struct rtattr *)(uintptr_t)attr(s->msg[i], IFA_CACHEINFO);
		struct ifa_cacheinfo c;

		if (!a || RTA_PAYLOAD(a) < sizeof(c))
			continue;
		memcpy(&c, RTA_DATA(a), sizeof(c));
		if (c.ifa_valid != UINT32_MAX && c.ifa_valid <= seconds) {
			drop(s, i);
			continue;
		}
		c.ifa_valid -= c.ifa_valid == UINT32_MAX ? 0 : seconds;
		c.ifa_prefered -= c.ifa_prefered == UINT32_MAX ? 0 : c.ifa_prefered < seconds ? c.ifa_prefered : seconds;
		memcpy(RTA_DATA(a), &c, sizeof(c));
	}
}

static int same_route(const struct nlmsghdr *a, const struct nlmsghdr *b)
{
	const struct rtmsg *x = rtm(a), *y = rtm(b);

	return x->rtm_family == y->rtm_family && x->rtm_dst_len == y->rtm_dst_len && x->rtm_tos == y->rtm_tos && x->rtm_scope == y->rtm_scope &&
	       attr_u32(a, RTA_TABLE, x->rtm_table) == attr_u32(b, RTA_TABLE, y->rtm_table) &&
	       attr_u32(a, RTA_PRIORITY, 0) == attr_u32(b, RTA_PRIORITY, 0) && same_attr(attr(a, RTA_DST), attr(b, RTA_DST)) &&
	       same_attr(attr(a, RTA_GATEWAY), attr(b, RTA_GATEWAY)) && same_attr(attr(a, RTA_PREFSRC), attr(b, RTA_PREFSRC));
}

int rtset_has_route(const struct rtset *s, const struct nlmsghdr *h)
{
	for (unsigned i = s ? s->addrs : 0; s && i < s->n; i++)
		if (same_route(h, s->msg[i]))
			return 1;
	return 0;
}

/* Whether an address has this network, so that the kernel makes this route for it. */
static int network_of(const struct nlmsghdr *addr, const struct nlmsghdr *route)
{
	const struct rtattr *a = attr(addr, IFA_ADDRESS), *d = attr(route, RTA_DST);
	unsigned bits = ifa(addr)->ifa_prefixlen;
	const uint8_t *x, *y;

	if (!a || !d || ifa(addr)->ifa_family != rtm(route)->rtm_family || rtm(route)->rtm_dst_len != bits || RTA_PAYLOAD(a) != RTA_PAYLOAD(d) ||
	    bits > 8 * RTA_PAYLOAD(a))
		return 0;
	x = RTA_DATA(a);
	y = RTA_DATA(d);
	return !memcmp(x, y, bits / 8) && (!(bits % 8) || !((x[bits / 8] ^ y[bits / 8]) >> (8 - bits % 8)));
}

/* A kernel's own route counts when it was there before, or when it is of an address that came since. */
static int kernel_extra(const struct rtset *s, const struct rtset *before, const struct nlmsghdr *h)
{
	if (rtm(h)->rtm_protocol != RTPROT_KERNEL || rtset_has_route(before, h))
		return 0;
	for (unsigned i = 0; i < s->addrs; i++)
		if (network_of(s->msg[i], h) && !has_same_address(before, s->msg[i]))
			return 0;
	return 1;
}

void rtset_drop_own(struct rtset *s, const struct rtset *keep_these)
{
	for (unsigned i = s->addrs; i-- > 0;) {
		const struct nlmsghdr *h = s->msg[i];
		const struct rtattr *proto = attr(h, IFA_PROTO);

		if (ifa(h)->ifa_family == AF_INET6 && link_local(h) && (!proto || *(const uint8_t *)RTA_DATA(proto) == PROTO_KERNEL_LL) &&
		    !has_same_address(keep_these, h))
			drop(s, i);
	}
	for (unsigned i = s->n; i-- > s->addrs;)
		if (kernel_extra(s, keep_these, s->msg[i]))
			drop(s, i);
}

/* ---- as text ---- */

static void put_text(char *out, size_t cap, const char *what, int family, const struct rtattr *a, unsigned prefix, const char *absent)
{
	char text[INET6_ADDRSTRLEN] = "";
	size_t at = strlen(out);

	if (!a || RTA_PAYLOAD(a) != (family == AF_INET ? 4 : 16) || !inet_ntop(family, RTA_DATA(a), text, sizeof(text))) {
		if (absent)
			snprintf(out + at, cap - at, "%s%s", what, absent);
		return;
	}
	if (prefix == UINT32_MAX)
		snprintf(out + at, cap - at, "%s%s", what, text);
	else
		snprintf(out + at, cap - at, "%s%s/%u", what, text, prefix);
}

void rtset_text(const struct nlmsghdr *h, char *out, size_t cap)
{
	uint32_t metric, table;
	size_t at;

	out[0] = '\0';
	if (is_addr(h)) {
		put_text(out, cap, "address ", ifa(h)->ifa_family, local(h), ifa(h)->ifa_prefixlen, "?");
		return;
	}
	put_text(out, cap, rtm(h)->rtm_family == AF_INET6 ? "IPv6 route " : "route ", rtm(h)->rtm_family, attr(h, RTA_DST), rtm(h)->rtm_dst_len,
		 "default");
	put_text(out, cap, " via ", rtm(h)->rtm_family, attr(h, RTA_GATEWAY), UINT32_MAX, NULL);
	metric = attr_u32(h, RTA_PRIORITY, 0);
	table = attr_u32(h, RTA_TABLE, rtm(h)->rtm_table);
	at = strlen(out);
	if (metric)
		at += (size_t)snprintf(out + at, cap - at, " metric %u", metric);
	if (table != RT_TABLE_MAIN && at < cap)
		snprintf(out + at, cap - at, " of table %u", table);
}

void rtset_write(const struct rtset *s, FILE *f)
{
	for (unsigned i = 0; i < s->n; i++) {
		const uint8_t *b = (const uint8_t *)s->msg[i];

		fputs("nl ", f);
		for (uint32_t k = 0; k < s->msg[i]->nlmsg_len; k++)
			fprintf(f, "%02x", b[k]);
		putc('\n', f);
	}
}

static int nibble(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

int rtset_read_line(struct rtset *s, const char *line)
{
	struct nlmsghdr *h;
	int r = -EPROTO;
	size_t n;

	if (strncmp(line, "nl ", 3))
		return 0;
	n = strcspn(line + 3, "\n");
	h = n % 2 || n / 2 < NLMSG_LENGTH(sizeof(struct ifaddrmsg)) ? NULL : calloc(1, NLMSG_ALIGN(n / 2));
	if (!h)
		return -EPROTO;
	for (size_t i = 0; i < n; i++)
		if (nibble(line[3 + i]) < 0)
			goto out;
	for (size_t i = 0; i < n / 2; i++)
		((uint8_t *)h)[i] = (uint8_t)(nibble(line[3 + 2 * i]) << 4 | nibble(line[4 + 2 * i]));
	if (h->nlmsg_len != n / 2 || (h->nlmsg_type != RTM_NEWADDR && h->nlmsg_type != RTM_NEWROUTE) || (is_addr(h) && s->addrs != s->n))
		goto out;
	if (h->nlmsg_type == RTM_NEWROUTE && n / 2 < NLMSG_LENGTH(sizeof(struct rtmsg)))
		goto out;
	if (is_addr(h) && !local(h))
		goto out;
	r = keep(s, h, 0);
	r = r ? r : 1;
out:
	free(h);
	return r;
}
