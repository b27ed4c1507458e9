/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A table that other programs remove while VMs run: `nft flush ruleset` in a script of the host's is enough, and an isolated network
 * is none any more. Every port listens, the first to have the journal's lock installs it again.
 */
#include <errno.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "port.h"
#include "step.h"
#include "tag.h"
#include "told.h"

/* Of all that is told of nftables, which may be much, only this. */
static int on_message(struct nl_msg *msg, void *arg)
{
	struct nlmsghdr *h = nlmsg_hdr(msg);
	struct nat_port *p = arg;
	struct nlattr *name;

	if (h->nlmsg_type != (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE))
		return NL_OK;
	name = nlmsg_find_attr(h, sizeof(struct nfgenmsg), NFTA_TABLE_NAME);
	if (name && nla_len(name) > 6 && !strncmp(nla_data(name), "vhost_", 6) &&
	    !nla_strcmp(name, p->table_name))
		p->watch.look = 1;
	return NL_OK;
}

int port_watch(void *port, struct vh_err *e)
{
	struct nat_port *p = port;

	return heard_open(&p->watch, NETLINK_NETFILTER, NFNLGRP_NFTABLES, on_message, p, "nftables", e);
}

/* [locked] 1: installed. Without the bridge there is no network, and no table of it. */
static int mend(struct nl *nl, struct nat_port *p, struct vh_err *e)
{
	struct nl_link br;
	int r = nl_link_get(nl, p->bridge, NULL, &br);

	if (r && r != -ENODEV)
		return net_host->err(e, r, "cannot look for bridge %s: %s", p->table_name + 6, nl->text[0] ? nl->text : strerror(-r));
	if (r || strcmp(br.kind, "bridge") || !tag_ours(br.alias) || table_exists(p->table_name + 6))
		return 0;
	r = table_again(p->table_name + 6, p->rules, br.alias, e);
	return r ? r : 1;
}

int port_repair(void *port, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	struct nat_port *p = port;
	struct plan to = { fn, ctx };
	struct nl nl;
	int lock, r;

	heard_read(&p->watch);
	if (!p->watch.look)
		return 0;
	r = told_nl(&nl, e);
	if (r < 0)
		return r;
	lock = told_lock(p->t.state, 1, e);
	r = lock < 0 ? lock : mend(&nl, p, e);
	if (r > 0)
		step(&to, "the table inet %s was removed by another program: it is installed again", p->table_name);
	if (!r)
		p->watch.look = 0;
	if (lock >= 0)
		close(lock);
	nl_release(&nl);
	return r;
}
