/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "linkwatch.h"

#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <string.h>
#include <sys/socket.h>

static int on_message(struct nl_msg *msg, void *arg)
{
	struct nlmsghdr *h = nlmsg_hdr(msg);
	struct linkwatch *w = arg;
	struct nlattr *tb[IFLA_MAX + 1];
	struct link_change c = { 0 };
	const struct ifinfomsg *i;

	if ((h->nlmsg_type != RTM_NEWLINK && h->nlmsg_type != RTM_DELLINK) || nlmsg_parse(h, sizeof(*i), tb, IFLA_MAX, NULL) < 0)
		return NL_OK;
	i = nlmsg_data(h);
	/* A bridge tells of its ports in messages of its own family, also that one has left it. */
	if (i->ifi_family != AF_UNSPEC || w->heard.look)
		return NL_OK;
	c.ifindex = i->ifi_index;
	c.gone = h->nlmsg_type == RTM_DELLINK;
	if (tb[IFLA_IFNAME])
		nla_strlcpy(c.name, tb[IFLA_IFNAME], sizeof(c.name));
	if (tb[IFLA_MASTER] && nla_len(tb[IFLA_MASTER]) >= (int)sizeof(uint32_t))
		c.master = (int)nla_get_u32(tb[IFLA_MASTER]);
	w->heard.look = w->concerns(w->ctx, &c) != 0;
	return NL_OK;
}

int linkwatch_open(struct linkwatch *w, int (*concerns)(void *ctx, const struct link_change *c), void *ctx, struct vh_err *e)
{
	w->concerns = concerns;
	w->ctx = ctx;
	return heard_open(&w->heard, NETLINK_ROUTE, RTNLGRP_LINK, on_message, w, "interfaces", e);
}
