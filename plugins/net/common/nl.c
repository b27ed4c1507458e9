/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "nl.h"

#include <errno.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "fault.h"

#define REPLY_MAX 32768u

int nl_open(struct nl *nl)
{
	struct timeval limit = { .tv_sec = 10 };
	int one = 1;

	memset(nl, 0, sizeof(*nl));
	nl->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
	if (nl->fd < 0)
		return -errno;
	/* Without these answers are only longer, or have no text. */
	setsockopt(nl->fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
	setsockopt(nl->fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	setsockopt(nl->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return 0;
}

void nl_close(struct nl *nl)
{
	if (nl->fd >= 0)
		close(nl->fd);
	nl->fd = -1;
}

static struct nlmsghdr *last_message(struct nl *nl)
{
	struct nlmsghdr *h = (struct nlmsghdr *)nl->buf;

	for (unsigned i = 1; i < nl->n; i++)
		h = (struct nlmsghdr *)((char *)h + NLMSG_ALIGN(h->nlmsg_len));
	return h;
}

static void *grow(struct nl *nl, size_t len)
{
	void *p = nl->buf + nl->len;

	if (nl->too_long || NLMSG_ALIGN(len) > sizeof(nl->buf) - nl->len) {
		nl->too_long = 1;
		return NULL;
	}
	memset(p, 0, NLMSG_ALIGN(len));
	nl->len += NLMSG_ALIGN(len);
	if (nl->n)
		last_message(nl)->nlmsg_len += NLMSG_ALIGN(len);
	return p;
}

static void *message_begin(struct nl *nl, uint16_t type, uint16_t flags, size_t body)
{
	struct nlmsghdr *h;
	unsigned n = nl->n;

	if (n == NL_BATCH_MAX) {
		nl->too_long = 1;
		return NULL;
	}
	nl->n = 0; /* grow() must not lengthen the message before */
	h = grow(nl, NLMSG_HDRLEN + body);
	nl->n = n;
	if (!h)
		return NULL;
	h->nlmsg_len = NLMSG_HDRLEN + NLMSG_ALIGN(body);
	h->nlmsg_type = type;
	h->nlmsg_flags = NLM_F_REQUEST | flags;
	h->nlmsg_seq = ++nl->seq;
	if (!nl->n++)
		nl->first = nl->seq;
	return NLMSG_DATA(h);
}

void nl_link_begin(struct nl *nl, uint16_t type, uint16_t flags, int family, int ifindex, const char *name, int up)
{
	struct ifinfomsg *i = message_begin(nl, type, flags, sizeof(*i));

	if (!i)
		return;
	i->ifi_family = (unsigned char)family;
	i->ifi_index = ifindex;
	if (up >= 0) {
		i->ifi_flags = up ? IFF_UP : 0;
		i->ifi_change = IFF_UP;
	}
	if (name)
		nl_put_str(nl, IFLA_IFNAME, name);
}

void nl_addr_begin(struct nl *nl, uint16_t type, int family, unsigned prefix, int ifindex)
{
	struct ifaddrmsg *a = message_begin(nl, type, type == RTM_NEWADDR ? NLM_F_CREATE | NLM_F_EXCL : 0, sizeof(*a));

	if (!a)
		return;
	a->ifa_family = (unsigned char)family;
	a->ifa_prefixlen = (unsigned char)prefix;
	a->ifa_index = (unsigned)ifindex;
}

void nl_put(struct nl *nl, uint16_t type, const void *data, size_t len)
{
	struct rtattr *a = grow(nl, RTA_LENGTH(len));

	if (!a)
		return;
	a->rta_type = type;
	a->rta_len = (unsigned short)RTA_LENGTH(len);
	if (len)
		memcpy(RTA_DATA(a), data, len);
}

void nl_put_u8(struct nl *nl, uint16_t type, uint8_t v)
{
	nl_put(nl, type, &v, sizeof(v));
}

void nl_put_u32(struct nl *nl, uint16_t type, uint32_t v)
{
	nl_put(nl, type, &v, sizeof(v));
}

void nl_put_str(struct nl *nl, uint16_t type, const char *s)
{
	nl_put(nl, type, s, strlen(s) + 1);
}

size_t nl_nest(struct nl *nl, uint16_t type)
{
	size_t mark = nl->len;

	nl_put(nl, type | NLA_F_NESTED, NULL, 0);
	return mark;
}

void nl_nest_end(struct nl *nl, size_t mark)
{
	if (!nl->too_long)
		((struct rtattr *)(nl->buf + mark))->rta_len = (unsigned short)(nl->len - mark);
}

/* What a kernel says is trusted, but an attribute is read only as far as it goes. */
static uint32_t attr_u32(const struct rtattr *a)
{
	uint32_t v = 0;

	memcpy(&v, RTA_DATA(a), RTA_PAYLOAD(a) < sizeof(v) ? RTA_PAYLOAD(a) : sizeof(v));
	return v;
}

static void attr_str(const struct rtattr *a, char *out, size_t cap)
{
	size_t n = strnlen(RTA_DATA(a), RTA_PAYLOAD(a));

	n = n < cap ? n : cap - 1;
	memcpy(out, RTA_DATA(a), n);
	out[n] = '\0';
}

static void parse_linkinfo(const struct rtattr *info, struct nl_link *l)
{
	int left = (int)RTA_PAYLOAD(info), inner;

	for (const struct rtattr *a = RTA_DATA(info); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		if ((a->rta_type & NLA_TYPE_MASK) == IFLA_INFO_KIND)
			attr_str(a, l->kind, sizeof(l->kind));
		if ((a->rta_type & NLA_TYPE_MASK) != IFLA_INFO_DATA || strcmp(l->kind, "bridge"))
			continue;
		inner = (int)RTA_PAYLOAD(a);
		for (const struct rtattr *b = RTA_DATA(a); RTA_OK(b, inner); b = RTA_NEXT(b, inner)) {
			if (b->rta_type == IFLA_BR_STP_STATE)
				l->stp = attr_u32(b) != 0;
			else if (b->rta_type == IFLA_BR_FORWARD_DELAY)
				l->forward_delay = attr_u32(b);
		}
	}
}

static void parse_link(const struct nlmsghdr *h, struct nl_link *l)
{
	const struct ifinfomsg *i = NLMSG_DATA(h);
	int left = (int)h->nlmsg_len - (int)NLMSG_SPACE(sizeof(*i));

	memset(l, 0, sizeof(*l));
	if (left < 0)
		return;
	l->ifindex = i->ifi_index;
	l->flags = i->ifi_flags;
	for (const struct rtattr *a = IFLA_RTA(i); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
		switch (a->rta_type & NLA_TYPE_MASK) {
		case IFLA_IFNAME:
			attr_str(a, l->name, sizeof(l->name));
			break;
		case IFLA_IFALIAS:
			attr_str(a, l->alias, sizeof(l->alias));
			break;
		case IFLA_MASTER:
			l->master = (int)attr_u32(a);
			break;
		case IFLA_MTU:
			l->mtu = attr_u32(a);
			break;
		case IFLA_ADDRESS:
			if (RTA_PAYLOAD(a) == sizeof(l->mac))
				memcpy(l->mac, RTA_DATA(a), sizeof(l->mac));
			break;
		case IFLA_LINKINFO:
			parse_linkinfo(a, l);
			break;
		}
	}
}

static void take_text(struct nl *nl, const struct nlmsghdr *h, const struct nlmsgerr *err)
{
	size_t at = NLMSG_HDRLEN + sizeof(*err);
	const struct rtattr *a;
	int left;

	if (!(h->nlmsg_flags & NLM_F_ACK_TLVS) || nl->text[0])
		return;
	if (!(h->nlmsg_flags & NLM_F_CAPPED))
		at += NLMSG_ALIGN(err->msg.nlmsg_len) - sizeof(err->msg);
	left = (int)h->nlmsg_len - (int)at;
	for (a = (const struct rtattr *)((const char *)h + at); left > 0 && RTA_OK(a, left); a = RTA_NEXT(a, left))
		if ((a->rta_type & NLA_TYPE_MASK) == NLMSGERR_ATTR_MSG)
			attr_str(a, nl->text, sizeof(nl->text));
}

/* One datagram. Returns 1 when the request `last` has been answered. */
static int take_reply(struct nl *nl, const char *buf, size_t n, int dump)
{
	const struct nlmsghdr *h = (const struct nlmsghdr *)buf;
	uint32_t last = nl->first + nl->n - 1;
	int done = 0, left = (int)n;

	for (; NLMSG_OK(h, (unsigned)left); h = NLMSG_NEXT(h, left)) {
		uint32_t at = h->nlmsg_seq - nl->first;

		if (at >= nl->n)
			continue; /* of an earlier batch that ran into the time limit */
		if (h->nlmsg_type == NLMSG_ERROR || h->nlmsg_type == NLMSG_DONE) {
			const struct nlmsgerr *err = NLMSG_DATA(h);

			if (h->nlmsg_len >= NLMSG_HDRLEN + sizeof(int))
				nl->result[at] = err->error;
			if (dump && (h->nlmsg_flags & NLM_F_DUMP_INTR) && !nl->result[at])
				nl->result[at] = -EAGAIN; /* the list changed while it was told */
			if (h->nlmsg_type == NLMSG_ERROR && err->error && h->nlmsg_len >= NLMSG_HDRLEN + sizeof(*err))
				take_text(nl, h, err);
			done |= h->nlmsg_seq == last;
		} else if (h->nlmsg_type == RTM_NEWLINK) {
			struct nl_link l;

			parse_link(h, &l);
			if (nl->link)
				nl->link(nl->ctx, &l);
			done |= h->nlmsg_seq == last && !dump && !(last_message(nl)->nlmsg_flags & NLM_F_ACK);
		}
	}
	return done;
}

static int receive(struct nl *nl, int dump)
{
	_Alignas(NLMSG_ALIGNTO) char buf[REPLY_MAX];
	ssize_t n;

	do {
		n = recv(nl->fd, buf, sizeof(buf), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? errno == EAGAIN ? -ETIMEDOUT : -errno : -EIO;
	} while (n < 0 || !take_reply(nl, buf, (size_t)n, dump));
	return 0;
}

static void batch_clear(struct nl *nl)
{
	nl->n = nl->len = 0;
	nl->too_long = 0;
}

int nl_commit(struct nl *nl)
{
	struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };
	struct nlmsghdr *last;
	int r = 0, dump;

	if (!nl->n && !nl->too_long)
		return 0;
	memset(nl->result, 0, sizeof(nl->result));
	nl->text[0] = '\0';
	last = last_message(nl);
	dump = nl->n == 1 && (last->nlmsg_flags & NLM_F_DUMP) == NLM_F_DUMP;
	if (nl->too_long)
		r = -EMSGSIZE;
	if (!r)
		r = NET_FAULT("netlink");
	/* Failures are always answered; of what goes well one answer at the end is enough. */
	if (last->nlmsg_type != RTM_GETLINK)
		last->nlmsg_flags |= NLM_F_ACK;
	if (!r && sendto(nl->fd, nl->buf, nl->len, 0, (struct sockaddr *)&kernel, sizeof(kernel)) < 0)
		r = -errno;
	nl->trips++;
	if (!r)
		r = receive(nl, dump);
	for (unsigned i = 0; i < nl->n && !r; i++)
		r = nl->result[i];
	if (!r)
		r = NET_FAULT("netlink answer");
	batch_clear(nl);
	return r;
}

static void keep_link(void *ctx, const struct nl_link *l)
{
	*(struct nl_link *)ctx = *l;
}

int nl_link_get(struct nl *nl, int ifindex, const char *name, struct nl_link *out)
{
	int r;

	memset(out, 0, sizeof(*out));
	nl_link_begin(nl, RTM_GETLINK, 0, AF_UNSPEC, ifindex, name, -1);
	nl_put_u32(nl, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	nl->link = keep_link;
	nl->ctx = out;
	r = nl_commit(nl);
	nl->link = NULL;
	return r ? r : out->ifindex ? 0 : -ENODEV;
}

int nl_link_dump(struct nl *nl, int master, void (*fn)(void *ctx, const struct nl_link *l), void *ctx)
{
	int r;

	nl_link_begin(nl, RTM_GETLINK, NLM_F_DUMP, AF_UNSPEC, 0, NULL, -1);
	nl_put_u32(nl, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	if (master)
		nl_put_u32(nl, IFLA_MASTER, (uint32_t)master);
	nl->link = fn;
	nl->ctx = ctx;
	r = nl_commit(nl);
	nl->link = NULL;
	return r;
}

int nl_link_delete(struct nl *nl, int ifindex, const char *name)
{
	nl_link_begin(nl, RTM_DELLINK, 0, AF_UNSPEC, ifindex, name, -1);
	return nl_commit(nl);
}
