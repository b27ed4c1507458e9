/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "linkwatch.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <string.h>
#include <sys/socket.h>

#include "plugin.h"

#define READ_MAX 10000u

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
	if (i->ifi_family != AF_UNSPEC || w->look)
		return NL_OK;
	c.ifindex = i->ifi_index;
	c.gone = h->nlmsg_type == RTM_DELLINK;
	if (tb[IFLA_IFNAME])
		nla_strlcpy(c.name, tb[IFLA_IFNAME], sizeof(c.name));
	if (tb[IFLA_MASTER] && nla_len(tb[IFLA_MASTER]) >= (int)sizeof(uint32_t))
		c.master = (int)nla_get_u32(tb[IFLA_MASTER]);
	w->look = w->concerns(w->ctx, &c) != 0;
	return NL_OK;
}

int linkwatch_open(struct linkwatch *w, int (*concerns)(void *ctx, const struct link_change *c), void *ctx, struct vh_err *e)
{
	int r;

	w->concerns = concerns;
	w->ctx = ctx;
	w->look = 1;
	w->sock = nl_socket_alloc();
	if (!w->sock)
		return net_host->err(e, -ENOMEM, "no memory for a socket");
	nl_socket_disable_seq_check(w->sock);
	nl_socket_modify_cb(w->sock, NL_CB_VALID, NL_CB_CUSTOM, on_message, w);
	r = nl_connect(w->sock, NETLINK_ROUTE);
	if (!r)
		r = nl_socket_add_membership(w->sock, RTNLGRP_LINK);
	if (!r)
		r = nl_socket_set_nonblocking(w->sock);
	if (!r)
		return nl_socket_get_fd(w->sock);
	linkwatch_close(w);
	return net_host->err(e, -EIO, "cannot listen to what others do to interfaces: %s", nl_geterror(r));
}

void linkwatch_read(struct linkwatch *w)
{
	int r = w->sock ? 0 : -NLE_AGAIN;

	/* A host that never stops changing its interfaces does not keep us here. */
	for (unsigned i = 0; i < READ_MAX && r != -NLE_AGAIN; i++) {
		r = nl_recvmsgs_default(w->sock);
		if (r < 0 && r != -NLE_AGAIN) /* there was no room for all that has come */
			w->look = 1;
	}
}

void linkwatch_close(struct linkwatch *w)
{
	if (w->sock)
		nl_socket_free(w->sock);
	w->sock = NULL;
}
