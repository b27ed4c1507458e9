/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "nl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>

#include "fault.h"

#define ADDR_GEN_MODE_NONE 1 /* IN6_ADDR_GEN_MODE_NONE */

/* libnl's codes are fewer than errno's: what a system call said is told where there was one. Set errno to 0 before. */
static int code(int nle)
{
	if (nle >= 0)
		return 0;
	return nle == -NLE_NOMEM ? -ENOMEM : nle == -NLE_AGAIN ? -ETIMEDOUT : errno ? -errno : -EIO;
}

/* What a kernel says is trusted, but an attribute is read only as far as it goes. */
static uint32_t attr_u32(struct nlattr *a)
{
	return a && nla_len(a) >= (int)sizeof(uint32_t) ? nla_get_u32(a) : 0;
}

static uint16_t attr_u16(struct nlattr *a)
{
	return a && nla_len(a) >= (int)sizeof(uint16_t) ? nla_get_u16(a) : 0;
}

static void attr_str(struct nlattr *a, char *out, size_t cap)
{
	if (a)
		nla_strlcpy(out, a, cap);
}

static int parse_vlan(struct nlattr *data, struct nl_link *l)
{
	struct nlattr *tb[IFLA_VLAN_MAX + 1];
	int r = nla_parse_nested(tb, IFLA_VLAN_MAX, data, NULL);

	if (r < 0)
		return r;
	l->vlan = attr_u16(tb[IFLA_VLAN_ID]);
	l->proto = ntohs(attr_u16(tb[IFLA_VLAN_PROTOCOL]));
	return 0;
}

static void parse_mark(struct nlattr *list, struct nl_link *l)
{
	struct nlattr *a;
	int left;

	nla_for_each_nested(a, list, left)
		if (nla_type(a) == IFLA_ALT_IFNAME && nla_len(a) > 6 && nla_len(a) <= (int)sizeof(l->mark) &&
		    !memcmp(nla_data(a), "vhost.", 6))
			attr_str(a, l->mark, sizeof(l->mark));
}

static int parse_linkinfo(struct nlattr *info, struct nl_link *l)
{
	struct nlattr *tb[IFLA_INFO_MAX + 1], *br[IFLA_BR_MAX + 1];
	int r = nla_parse_nested(tb, IFLA_INFO_MAX, info, NULL);

	if (r < 0)
		return r;
	attr_str(tb[IFLA_INFO_KIND], l->kind, sizeof(l->kind));
	if (tb[IFLA_INFO_DATA] && !strcmp(l->kind, "vlan"))
		return parse_vlan(tb[IFLA_INFO_DATA], l);
	if (tb[IFLA_INFO_DATA] && (!strcmp(l->kind, "macvtap") || !strcmp(l->kind, "macvlan"))) {
		l->macvlan_mode = attr_u32(nla_find(nla_data(tb[IFLA_INFO_DATA]), nla_len(tb[IFLA_INFO_DATA]), IFLA_MACVLAN_MODE));
		return 0;
	}
	if (!tb[IFLA_INFO_DATA] || strcmp(l->kind, "bridge"))
		return 0;
	r = nla_parse_nested(br, IFLA_BR_MAX, tb[IFLA_INFO_DATA], NULL);
	if (r < 0)
		return r;
	l->stp = attr_u32(br[IFLA_BR_STP_STATE]) != 0;
	l->forward_delay = attr_u32(br[IFLA_BR_FORWARD_DELAY]);
	if (br[IFLA_BR_VLAN_FILTERING] && nla_len(br[IFLA_BR_VLAN_FILTERING]) >= 1)
		l->filtering = nla_get_u8(br[IFLA_BR_VLAN_FILTERING]) != 0;
	l->pvid = attr_u16(br[IFLA_BR_VLAN_DEFAULT_PVID]);
	l->proto = ntohs(attr_u16(br[IFLA_BR_VLAN_PROTOCOL]));
	return 0;
}

static int parse_addrgen(struct nlattr *spec)
{
	struct nlattr *inet6 = spec ? nla_find(nla_data(spec), nla_len(spec), AF_INET6) : NULL, *mode;

	mode = inet6 ? nla_find(nla_data(inet6), nla_len(inet6), IFLA_INET6_ADDR_GEN_MODE) : NULL;
	return mode && nla_len(mode) >= 1 ? nla_get_u8(mode) : -1;
}

/* Not rtnl_link: that reads all of a link, and refuses it whole when one detail is newer than the library. */
static int parse_link(struct nlmsghdr *h, struct nl_link *l)
{
	struct nlattr *tb[IFLA_MAX + 1];
	const struct ifinfomsg *i;
	int r = nlmsg_parse(h, sizeof(*i), tb, IFLA_MAX, NULL);

	memset(l, 0, sizeof(*l));
	if (r < 0)
		return r;
	i = nlmsg_data(h);
	l->ifindex = i->ifi_index;
	l->flags = i->ifi_flags;
	l->type = i->ifi_type;
	l->addrgen = parse_addrgen(tb[IFLA_AF_SPEC]);
	attr_str(tb[IFLA_IFNAME], l->name, sizeof(l->name));
	attr_str(tb[IFLA_IFALIAS], l->alias, sizeof(l->alias));
	l->master = (int)attr_u32(tb[IFLA_MASTER]);
	if (!tb[IFLA_LINK_NETNSID]) /* a number of another namespace means another interface here */
		l->link = (int)attr_u32(tb[IFLA_LINK]);
	l->mtu = attr_u32(tb[IFLA_MTU]);
	if (tb[IFLA_PROP_LIST])
		parse_mark(tb[IFLA_PROP_LIST], l);
	if (tb[IFLA_ADDRESS] && nla_len(tb[IFLA_ADDRESS]) == sizeof(l->mac))
		nla_memcpy(l->mac, tb[IFLA_ADDRESS], sizeof(l->mac));
	return tb[IFLA_LINKINFO] ? parse_linkinfo(tb[IFLA_LINKINFO], l) : 0;
}

/* libnl drops the kernel's own text. */
static void take_text(struct nl *nl, struct nlmsghdr *h, const struct nlmsgerr *err)
{
	size_t at = sizeof(*err);
	struct nlattr *a;

	if (!(h->nlmsg_flags & NLM_F_ACK_TLVS) || nl->text[0])
		return;
	if (!(h->nlmsg_flags & NLM_F_CAPPED))
		at += NLMSG_ALIGN(err->msg.nlmsg_len) - sizeof(err->msg);
	if (at > (size_t)nlmsg_datalen(h))
		return;
	a = nla_find((struct nlattr *)((char *)nlmsg_data(h) + at), nlmsg_datalen(h) - (int)at, NLMSGERR_ATTR_MSG);
	attr_str(a, nl->text, sizeof(nl->text));
}

static void set_result(struct nl *nl, const struct nlmsghdr *h, int r)
{
	uint32_t at = h->nlmsg_seq - nl->first;

	if (!nl->result[at])
		nl->result[at] = r;
}

static void answered(struct nl *nl, const struct nlmsghdr *h)
{
	nl->done |= h->nlmsg_seq == nl->first + nl->n - 1;
}

/* libnl's own check knows one request at a time. Those behind it see only answers to the batch. */
static int on_sequence(struct nl_msg *msg, void *arg)
{
	struct nl *nl = arg;

	/* Skipped: of an earlier batch that ran into the time limit. */
	return nlmsg_hdr(msg)->nlmsg_seq - nl->first < nl->n ? NL_OK : NL_SKIP;
}

static int on_error(struct sockaddr_nl *from, struct nlmsgerr *err, void *arg)
{
	struct nlmsghdr *h = (struct nlmsghdr *)((char *)err - NLMSG_HDRLEN);
	struct nl *nl = arg;

	set_result(nl, h, err->error);
	take_text(nl, h, err);
	answered(nl, h);
	return NL_SKIP;
}

static int on_ack(struct nl_msg *msg, void *arg)
{
	answered(arg, nlmsg_hdr(msg));
	return NL_OK;
}

/* The list changed while it was told. */
static int on_interrupted(struct nl_msg *msg, void *arg)
{
	set_result(arg, nlmsg_hdr(msg), -EAGAIN);
	return NL_OK;
}

static int on_finish(struct nl_msg *msg, void *arg)
{
	struct nlmsghdr *h = nlmsg_hdr(msg);

	if (nlmsg_datalen(h) >= (int)sizeof(int) && *(int *)nlmsg_data(h) < 0)
		set_result(arg, h, *(int *)nlmsg_data(h));
	answered(arg, h);
	return NL_OK;
}

static int on_message(struct nl_msg *msg, void *arg)
{
	struct nlmsghdr *h = nlmsg_hdr(msg);
	struct nl *nl = arg;
	struct nl_link l;

	if (nl->raw) {
		nl->raw(nl->ctx, h);
		return NL_OK;
	}
	if (h->nlmsg_type != RTM_NEWLINK)
		return NL_OK;
	if (parse_link(h, &l) < 0) {
		set_result(nl, h, -EPROTO);
	} else if (nl->link) {
		l.at = h->nlmsg_seq - nl->first;
		nl->link(nl->ctx, &l);
	}
	/* One of a list ends with NLMSG_DONE, the answer to a change with its ack. */
	if (!(h->nlmsg_flags & NLM_F_MULTI) && !(nlmsg_hdr(nl->msg[nl->n - 1])->nlmsg_flags & NLM_F_ACK))
		answered(nl, h);
	return NL_OK;
}

static int more_room(struct nl *nl)
{
	unsigned cap = nl->cap ? 2 * nl->cap : 8;
	struct nl_msg **msg = realloc(nl->msg, cap * sizeof(*msg));
	int *result;

	if (!msg)
		return -ENOMEM;
	nl->msg = msg;
	result = realloc(nl->result, cap * sizeof(*result));
	if (!result)
		return -ENOMEM;
	memset(result + nl->cap, 0, (cap - nl->cap) * sizeof(*result));
	nl->result = result;
	nl->cap = cap;
	return 0;
}

int nl_open(struct nl *nl)
{
	struct timeval limit = { .tv_sec = 10 };
	struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);
	int one = 1, room = 4 << 20, r;

	memset(nl, 0, sizeof(*nl));
	nl->fd = -1;
	if (!cb)
		return -ENOMEM;
	nl_cb_err(cb, NL_CB_CUSTOM, on_error, nl);
	nl_cb_set(cb, NL_CB_SEQ_CHECK, NL_CB_CUSTOM, on_sequence, nl);
	nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_message, nl);
	nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_ack, nl);
	nl_cb_set(cb, NL_CB_FINISH, NL_CB_CUSTOM, on_finish, nl);
	nl_cb_set(cb, NL_CB_DUMP_INTR, NL_CB_CUSTOM, on_interrupted, nl);
	nl->sock = nl_socket_alloc_cb(cb);
	nl_cb_put(cb);
	if (!nl->sock || more_room(nl) < 0) {
		nl_release(nl);
		return -ENOMEM;
	}
	errno = 0;
	r = code(nl_connect(nl->sock, NETLINK_ROUTE));
	if (r < 0) {
		nl_release(nl);
		return r;
	}
	nl->fd = nl_socket_get_fd(nl->sock);
	/* Without these answers are only longer, or have no text. */
	setsockopt(nl->fd, SOL_NETLINK, NETLINK_EXT_ACK, &one, sizeof(one));
	setsockopt(nl->fd, SOL_NETLINK, NETLINK_CAP_ACK, &one, sizeof(one));
	/* libnl's 32 KiB are too few for a batch that moves hundreds of addresses, or for its answers. */
	if (setsockopt(nl->fd, SOL_SOCKET, SO_RCVBUFFORCE, &room, sizeof(room)) < 0)
		setsockopt(nl->fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
	if (setsockopt(nl->fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof(room)) < 0)
		setsockopt(nl->fd, SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
	setsockopt(nl->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	return 0;
}

static void batch_clear(struct nl *nl)
{
	for (unsigned i = 0; i < nl->n; i++)
		nlmsg_free(nl->msg[i]);
	nl->n = 0;
	nl->bad = 0;
}

void nl_release(struct nl *nl)
{
	batch_clear(nl);
	if (nl->sock)
		nl_socket_free(nl->sock);
	free(nl->msg);
	free(nl->result);
	nl->msg = NULL;
	nl->result = NULL;
	nl->cap = 0;
	nl->sock = NULL;
	nl->fd = -1;
}

static void fail(struct nl *nl, int r)
{
	if (!nl->bad)
		nl->bad = r;
}

/* Takes the message, which may be NULL: no memory. */
static int batch_add(struct nl *nl, struct nl_msg *msg)
{
	struct nlmsghdr *h;

	if (!msg)
		fail(nl, -ENOMEM);
	else if (nl->n == NL_BATCH_MAX)
		fail(nl, -EMSGSIZE);
	else if (nl->n == nl->cap && more_room(nl) < 0)
		fail(nl, -ENOMEM);
	if (nl->bad) {
		nlmsg_free(msg);
		return 0;
	}
	h = nlmsg_hdr(msg);
	h->nlmsg_flags |= NLM_F_REQUEST;
	h->nlmsg_seq = nl_socket_use_seq(nl->sock);
	if (!nl->n)
		nl->first = h->nlmsg_seq;
	nl->msg[nl->n++] = msg;
	return 1;
}

void nl_link_begin(struct nl *nl, uint16_t type, uint16_t flags, int family, int ifindex, const char *name, int up)
{
	struct ifinfomsg i = { .ifi_family = (unsigned char)family, .ifi_index = ifindex };

	if (up >= 0) {
		i.ifi_flags = up ? IFF_UP : 0;
		i.ifi_change = IFF_UP;
	}
	if (!batch_add(nl, nlmsg_alloc_simple(type, flags)))
		return;
	if (nlmsg_append(nl->msg[nl->n - 1], &i, sizeof(i), NLMSG_ALIGNTO) < 0)
		fail(nl, -EMSGSIZE);
	if (name)
		nl_put_str(nl, IFLA_IFNAME, name);
}

void nl_begin(struct nl *nl, uint16_t type, uint16_t flags, const void *head, size_t len)
{
	if (batch_add(nl, nlmsg_alloc_simple(type, flags)) &&
	    nlmsg_append(nl->msg[nl->n - 1], (void *)(uintptr_t)head, len, NLMSG_ALIGNTO) < 0)
		fail(nl, -EMSGSIZE);
}

void nl_link_flags(struct nl *nl, unsigned flags, unsigned change)
{
	struct ifinfomsg *i = nl->bad || !nl->n ? NULL : nlmsg_data(nlmsg_hdr(nl->msg[nl->n - 1]));

	if (!i) {
		fail(nl, -EMSGSIZE);
		return;
	}
	i->ifi_flags |= flags;
	i->ifi_change |= change;
}

void nl_link_no_ipv6(struct nl *nl, int ifindex)
{
	size_t a, b;

	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, ifindex, NULL, -1);
	a = nl_nest(nl, IFLA_AF_SPEC);
	b = nl_nest(nl, AF_INET6);
	nl_put_u8(nl, IFLA_INET6_ADDR_GEN_MODE, ADDR_GEN_MODE_NONE);
	nl_nest_end(nl, b);
	nl_nest_end(nl, a);
}

void nl_addr(struct nl *nl, uint16_t type, int family, const void *addr, unsigned prefix, int ifindex)
{
	struct nl_addr *local = nl_addr_build(family, addr, family == AF_INET ? 4 : 16);
	struct rtnl_addr *a = rtnl_addr_alloc();
	struct nl_msg *msg = NULL;
	int r = -NLE_NOMEM;

	if (local && a) {
		nl_addr_set_prefixlen(local, (int)prefix);
		rtnl_addr_set_ifindex(a, ifindex);
		r = rtnl_addr_set_local(a, local);
	}
	if (r >= 0)
		r = type == RTM_NEWADDR ? rtnl_addr_build_add_request(a, NLM_F_CREATE | NLM_F_EXCL, &msg) :
					  rtnl_addr_build_delete_request(a, 0, &msg);
	if (r < 0)
		fail(nl, r == -NLE_NOMEM ? -ENOMEM : -EINVAL);
	else
		batch_add(nl, msg);
	if (a)
		rtnl_addr_put(a);
	nl_addr_put(local);
}

void nl_put(struct nl *nl, uint16_t type, const void *data, size_t len)
{
	if (!nl->bad && (!nl->n || len > UINT16_MAX || nla_put(nl->msg[nl->n - 1], type, (int)len, data) < 0))
		fail(nl, -EMSGSIZE);
}

void nl_put_u8(struct nl *nl, uint16_t type, uint8_t v)
{
	nl_put(nl, type, &v, sizeof(v));
}

void nl_put_u16(struct nl *nl, uint16_t type, uint16_t v)
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
	struct nlattr *a = nl->bad || !nl->n ? NULL : nla_nest_start(nl->msg[nl->n - 1], type);

	if (!a) {
		fail(nl, -EMSGSIZE);
		return 0;
	}
	return (size_t)((char *)a - (char *)nlmsg_hdr(nl->msg[nl->n - 1]));
}

void nl_nest_end(struct nl *nl, size_t mark)
{
	struct nl_msg *msg = nl->bad ? NULL : nl->msg[nl->n - 1];

	if (msg && nla_nest_end(msg, (struct nlattr *)((char *)nlmsg_hdr(msg) + mark)) < 0)
		fail(nl, -EMSGSIZE);
}

/* All requests by one system call. */
static int send_batch(struct nl *nl)
{
	struct iovec *iov = calloc(nl->n, sizeof(*iov));
	int r;

	if (!iov)
		return -ENOMEM;
	for (unsigned i = 0; i < nl->n; i++) {
		iov[i].iov_base = nlmsg_hdr(nl->msg[i]);
		iov[i].iov_len = NLMSG_ALIGN(nlmsg_hdr(nl->msg[i])->nlmsg_len);
	}
	errno = 0;
	r = code(nl_send_iovec(nl->sock, nl->msg[0], iov, nl->n));
	free(iov);
	return r;
}

static int receive(struct nl *nl)
{
	int r = 0;

	while (!r && !nl->done) {
		errno = 0;
		r = code(nl_recvmsgs_default(nl->sock));
	}
	return r;
}

int nl_commit(struct nl *nl)
{
	int r = nl->bad;

	if (!nl->n && !r)
		return 0;
	memset(nl->result, 0, nl->cap * sizeof(*nl->result));
	nl->text[0] = '\0';
	nl->done = 0;
	if (!r)
		r = NET_FAULT("netlink");
	if (!r) {
		struct nlmsghdr *last = nlmsg_hdr(nl->msg[nl->n - 1]);

		/* Failures are always answered; of what goes well one answer at the end is enough. */
		if (last->nlmsg_type != RTM_GETLINK && last->nlmsg_type != RTM_GETADDR && last->nlmsg_type != RTM_GETROUTE)
			last->nlmsg_flags |= NLM_F_ACK;
		r = send_batch(nl);
	}
	if (!r)
		r = receive(nl);
	for (unsigned i = 0; i < nl->n && !r; i++)
		r = nl->result[i];
	if (!r)
		r = NET_FAULT("netlink answer");
	batch_clear(nl);
	return r;
}

void nl_link_ask(struct nl *nl, int ifindex, const char *name, const char *alt)
{
	nl_link_begin(nl, RTM_GETLINK, 0, AF_UNSPEC, ifindex, name, -1);
	if (alt)
		nl_put_str(nl, IFLA_ALT_IFNAME, alt);
	nl_put_u32(nl, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
}

void nl_ask_kind(struct nl *nl, const char *kind)
{
	size_t info;

	nl_link_begin(nl, RTM_GETLINK, NLM_F_DUMP, AF_UNSPEC, 0, NULL, -1);
	nl_put_u32(nl, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	info = nl_nest(nl, IFLA_LINKINFO);
	nl_put_str(nl, IFLA_INFO_KIND, kind);
	nl_nest_end(nl, info);
}

void nl_altname(struct nl *nl, int ifindex, const char *name, const char *alt)
{
	size_t list;

	nl_link_begin(nl, RTM_NEWLINKPROP, NLM_F_CREATE | NLM_F_EXCL | NLM_F_APPEND, AF_UNSPEC, ifindex, name, -1);
	list = nl_nest(nl, IFLA_PROP_LIST | NLA_F_NESTED);
	nl_put_str(nl, IFLA_ALT_IFNAME, alt);
	nl_nest_end(nl, list);
}

int nl_commit_but_first(struct nl *nl)
{
	unsigned n = nl->n;
	int r = nl_commit(nl);

	if (r < 0 && nl->result[0] == r) {
		r = 0;
		for (unsigned i = 1; i < n && i < nl->cap && !r; i++)
			r = nl->result[i];
	}
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
	nl_link_ask(nl, ifindex, name, NULL);
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

int nl_raw_dump(struct nl *nl, uint16_t type, int family, void (*fn)(void *ctx, struct nlmsghdr *h), void *ctx)
{
	struct rtmsg m = { .rtm_family = (unsigned char)family }; /* an ifaddrmsg is shorter, and begins with its family as well */
	int r;

	nl_begin(nl, type, NLM_F_DUMP, &m, type == RTM_GETADDR ? sizeof(struct ifaddrmsg) : sizeof(m));
	nl->raw = fn;
	nl->ctx = ctx;
	r = nl_commit(nl);
	nl->raw = NULL;
	return r;
}

int nl_link_alias(struct nl *nl, int ifindex, const char *alias)
{
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, ifindex, NULL, -1);
	nl_put_str(nl, IFLA_IFALIAS, alias);
	return nl_commit(nl);
}

int nl_link_delete(struct nl *nl, int ifindex, const char *name)
{
	struct rtnl_link *l = rtnl_link_alloc();
	struct nl_msg *msg = NULL;
	int r = l ? 0 : -NLE_NOMEM;

	if (l && ifindex)
		rtnl_link_set_ifindex(l, ifindex);
	if (l && name)
		rtnl_link_set_name(l, name);
	if (!r) /* libnl aborts when it has neither */
		r = ifindex || name ? rtnl_link_build_delete_request(l, &msg) : -NLE_INVAL;
	if (r < 0)
		fail(nl, r == -NLE_NOMEM ? -ENOMEM : -EINVAL);
	else
		batch_add(nl, msg);
	if (l)
		rtnl_link_put(l);
	return nl_commit(nl);
}
