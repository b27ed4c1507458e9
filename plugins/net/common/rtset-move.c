/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Addresses and routes onto an interface, and off it. */
#include "rtset-i.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>

#define CHUNK 900u /* messages to a batch */
#define HZ_USER 100u

static void put_attr(struct nl *nl, const struct rtattr *a)
{
	nl_put(nl, a->rta_type, RTA_DATA(a), RTA_PAYLOAD(a));
}

/* A label is the interface's name, or that with ":something"; of a name that leaves no room for it its beginning. */
static void put_label(struct nl *nl, const char *label, const char *from, const char *to)
{
	const char *colon = strchr(label, ':');
	size_t n = colon ? (size_t)(colon - label) : strlen(label), tail = strlen(label + n);
	char text[16]; /* IFNAMSIZ */

	if (strncmp(label, from, n) || (!colon && from[n])) {
		nl_put_str(nl, IFA_LABEL, label);
		return;
	}
	if (!colon)
		return; /* the kernel's own choice */
	if (tail >= sizeof(text))
		return;
	n = strnlen(to, sizeof(text) - 1 - tail);
	memcpy(text, to, n);
	memcpy(text + n, colon, tail + 1);
	nl_put_str(nl, IFA_LABEL, text);
}

static void put_addr(struct nl *nl, const struct nlmsghdr *h, uint16_t type, uint16_t how, int to, uint32_t flags, const char *from_name,
		     const char *to_name)
{
	struct ifaddrmsg m = *ifa(h);
	int left = (int)h->nlmsg_len - (int)NLMSG_SPACE(sizeof(m));
	const struct rtattr *a = (const struct rtattr *)((const char *)h + NLMSG_SPACE(sizeof(m)));
	char label[16];

	m.ifa_index = (uint32_t)to;
	m.ifa_flags = 0; /* all of them are in IFA_FLAGS */
	nl_begin(nl, type, how, &m, sizeof(m));
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		switch (a->rta_type & NLA_TYPE_MASK) {
		case IFA_LABEL:
			if (!to_name || RTA_PAYLOAD(a) > sizeof(label) || !RTA_PAYLOAD(a))
				break;
			memcpy(label, RTA_DATA(a), RTA_PAYLOAD(a));
			label[RTA_PAYLOAD(a) - 1] = '\0';
			put_label(nl, label, from_name, to_name);
			break;
		case IFA_FLAGS:
		case IFA_MULTICAST:
			break;
		default:
			put_attr(nl, a);
		}
	if (type == RTM_NEWADDR)
		nl_put_u32(nl, IFA_FLAGS, flags);
}

/* A multipath route goes through others as well: only the hops through `from` change. */
static void put_hops(struct nl *nl, const struct rtattr *multi, int from, int to, int onlink)
{
	char *copy = malloc(RTA_PAYLOAD(multi));
	struct rtnexthop *h = (struct rtnexthop *)(void *)copy;
	int left = (int)RTA_PAYLOAD(multi);

	if (!copy)
		return; /* the kernel refuses a route without hops */
	memcpy(copy, RTA_DATA(multi), RTA_PAYLOAD(multi));
	for (; hop_ok(h, left); left -= (int)NLMSG_ALIGN(h->rtnh_len), h = RTNH_NEXT(h)) {
		h->rtnh_flags &= RTNH_F_ONLINK | RTNH_F_PERVASIVE;
		if (h->rtnh_ifindex == from) {
			h->rtnh_ifindex = to;
			h->rtnh_flags |= onlink ? RTNH_F_ONLINK : 0;
		}
	}
	nl_put(nl, RTA_MULTIPATH, copy, RTA_PAYLOAD(multi));
	free(copy);
}

static void put_route(struct nl *nl, const struct nlmsghdr *h, uint16_t type, uint16_t how, int from, int to, int onlink)
{
	struct rtmsg m = *rtm(h);
	int left = (int)h->nlmsg_len - (int)NLMSG_SPACE(sizeof(m));
	const struct rtattr *a = (const struct rtattr *)((const char *)h + NLMSG_SPACE(sizeof(m)));
	struct rta_cacheinfo c;

	m.rtm_flags &= RTNH_F_ONLINK | RTNH_F_PERVASIVE; /* the others are the kernel's to tell */
	m.rtm_flags |= onlink && !attr(h, RTA_MULTIPATH) ? RTNH_F_ONLINK : 0;
	nl_begin(nl, type, how, &m, sizeof(m));
	for (; RTA_OK(a, left); a = RTA_NEXT(a, left))
		switch (a->rta_type & NLA_TYPE_MASK) {
		case RTA_OIF:
			nl_put_u32(nl, RTA_OIF, (uint32_t)to);
			break;
		case RTA_MULTIPATH:
			put_hops(nl, a, from, to, onlink);
			break;
		case RTA_CACHEINFO:
			if (RTA_PAYLOAD(a) < sizeof(c) || type != RTM_NEWROUTE)
				break;
			memcpy(&c, RTA_DATA(a), sizeof(c));
			if (c.rta_expires > 0 && c.rta_expires < INT32_MAX)
				nl_put_u32(nl, RTA_EXPIRES, (uint32_t)c.rta_expires / HZ_USER + 1);
			break;
		case RTA_IIF:
		case RTA_UID:
		case RTA_MFC_STATS:
			break;
		default:
			put_attr(nl, a);
		}
}

static int tolerable(int r)
{
	return r == -EEXIST || r == -ESRCH || r == -EADDRNOTAVAIL || r == -ENODEV;
}

/* Works the batch off. What is there, or gone, already is as wanted. */
static int commit(struct nl *nl)
{
	unsigned n = nl->n;
	int r = nl_commit(nl), seen = 0;

	for (unsigned i = 0; i < n && i < nl->cap; i++) {
		if (nl->result[i] && !tolerable(nl->result[i])) {
			if (seen) /* the text is of another one */
				nl->text[0] = '\0';
			return nl->result[i];
		}
		seen |= nl->result[i] != 0;
	}
	return seen ? 0 : r;
}

static int flush(struct nl *nl, int r)
{
	int q = nl->n >= CHUNK ? commit(nl) : 0;

	return r ? r : q;
}

static void add_addr(struct nl *nl, const struct nlmsghdr *h, int to, const char *from_name, const char *to_name)
{
	uint32_t flags = addr_flags(h), unsure = IFA_F_TENTATIVE | IFA_F_DADFAILED | IFA_F_OPTIMISTIC;

	if (ifa(h)->ifa_family == AF_INET) {
		put_addr(nl, h, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, to, flags & ~(uint32_t)IFA_F_SECONDARY, from_name, to_name);
		return;
	}
	/* One that was known to be unique still is: it serves at once, and gets its own flags by a second request. */
	put_addr(nl, h, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, to, flags & unsure ? flags & ~unsure : flags | IFA_F_NODAD, from_name, to_name);
	if (!(flags & unsure))
		put_addr(nl, h, RTM_NEWADDR, NLM_F_REPLACE, to, flags, from_name, to_name);
}

/* Those through a gateway need the others to be there. */
static int has_gateway(const struct nlmsghdr *h)
{
	return attr(h, RTA_GATEWAY) || attr(h, RTA_VIA) || attr(h, RTA_MULTIPATH);
}

static int unreachable(int r)
{
	return r == -EHOSTUNREACH || r == -ENETUNREACH || r == -EINVAL;
}

/* One batch of routes, and those of them again, marked as on-link, whose gateway cannot be reached: the kernel keeps such a route
 * when the network of its gateway goes, but takes no new one. */
static int commit_routes(struct nl *nl, const struct nlmsghdr *const *sent, int from, int to, unsigned *refused)
{
	const struct nlmsghdr *again[CHUNK];
	unsigned n = nl->n, k = 0;
	int r = commit(nl);

	/* Of several failures one that is no verdict on a route counts. */
	for (unsigned i = 0; i < n && unreachable(r); i++)
		if (nl->result[i] && !tolerable(nl->result[i]) && !unreachable(nl->result[i]))
			r = nl->result[i];
	if (!unreachable(r))
		return r;
	for (unsigned i = 0; i < n; i++)
		if (unreachable(nl->result[i]))
			again[k++] = sent[i];
	for (unsigned i = 0; i < k; i++)
		put_route(nl, again[i], RTM_NEWROUTE, NLM_F_CREATE, from, to, 1);
	r = commit(nl);
	return unreachable(r) && refused ? (*refused += 1, 0) : r;
}

static int add_routes(struct nl *nl, const struct rtset *s, int gateway, int from, int to, unsigned *refused)
{
	const struct nlmsghdr *sent[CHUNK];
	int r = 0;

	for (unsigned i = s->n; i-- > s->addrs && !r;) {
		if (has_gateway(s->msg[i]) != gateway)
			continue;
		sent[nl->n] = s->msg[i];
		put_route(nl, s->msg[i], RTM_NEWROUTE, NLM_F_CREATE, from, to, 0);
		if (nl->n == CHUNK || nl->bad)
			r = commit_routes(nl, sent, from, to, refused);
	}
	return nl->n && !r ? commit_routes(nl, sent, from, to, refused) : r;
}

int rtset_add(struct nl *nl, const struct rtset *s, int from, int to, const char *from_name, const char *to_name,
	      unsigned *refused)
{
	int r = 0;

	/* The kernel lists IPv4 addresses from the oldest on, IPv6 ones from the newest; the first is preferred as a source. */
	for (unsigned i = 0; i < s->addrs; i++)
		if (ifa(s->msg[i])->ifa_family == AF_INET) {
			add_addr(nl, s->msg[i], to, from_name, to_name);
			r = flush(nl, r);
		}
	for (unsigned i = s->addrs; i-- > 0;)
		if (ifa(s->msg[i])->ifa_family == AF_INET6) {
			add_addr(nl, s->msg[i], to, from_name, to_name);
			r = flush(nl, r);
		}
	if (nl->n || nl->bad) {
		int q = commit(nl);

		r = r ? r : q;
	}
	/* The kernel puts each in front of those that are alike, so the last one comes first. */
	for (int gateway = 0; gateway < 2 && !r; gateway++)
		r = add_routes(nl, s, gateway, from, to, refused);
	return r;
}

int rtset_remove(struct nl *nl, const struct rtset *s, int ifindex)
{
	int r = 0;

	for (unsigned i = s->addrs; i < s->n; i++) {
		put_route(nl, s->msg[i], RTM_DELROUTE, 0, 0, ifindex, 0);
		r = flush(nl, r);
	}
	/* From the end: with the first address of a network the kernel removes the others of it. */
	for (unsigned i = s->addrs; i-- > 0;) {
		put_addr(nl, s->msg[i], RTM_DELADDR, 0, ifindex, 0, NULL, NULL);
		r = flush(nl, r);
	}
	if (nl->n || nl->bad) {
		int q = commit(nl);

		r = r ? r : q;
	}
	return r;
}

int rtset_trim(struct nl *nl, const struct rtset *a, const struct rtset *b, int from, int to)
{
	struct rtset now;
	int r = rtset_get(nl, to, &now);

	if (r)
		return r;
	for (unsigned i = now.addrs; i < now.n && !r; i++) {
		if (rtm(now.msg[i])->rtm_protocol == RTPROT_KERNEL && !rtset_has_route(a, now.msg[i]) && !rtset_has_route(b, now.msg[i]))
			put_route(nl, now.msg[i], RTM_DELROUTE, 0, from, to, 0);
		r = flush(nl, r);
	}
	if (nl->n || nl->bad)
		r = commit(nl);
	rtset_free(&now);
	return r;
}
