/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A NIC: a tap on the network's bridge. */
#include "port.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "brport.h"
#include "journal.h"
#include "told.h"

static void port_free(struct nat_port *p)
{
	heard_close(&p->watch);
	tapport_drop(&p->t);
	free(p->rules);
	free(p);
}

/* [locked exclusively] The VM's process has copies of the fds, and may be slow to die: with the device itself gone it holds
 * no port. */
static void take_down(struct nl *nl, struct nat_port *p)
{
	if (p->t.info.ifindex)
		nl_link_delete(nl, (int)p->t.info.ifindex, NULL);
	tap_close(&p->t.tap);
	if (bridgedev_remove_unused(nl, p->bridge, NULL) == 1)
		network_sweep(nl, p->t.state, NULL, NULL);
}

static int check(const struct vh_net_open *o, struct nat_want *w, struct vh_err *e)
{
	int r;

	if ((o->flags & VH_MUST_UNDERSTAND) & ~VH_NET_OPEN_DRY_RUN)
		return net_host->err(e, -EOPNOTSUPP, "a flag of this open is unknown to this plugin");
	if (!o->state)
		return net_host->err(e, -EINVAL, "the host gave no folder for the journal");
	if (!journal_owner_ok(o->owner))
		return net_host->err(e, -EINVAL, "the host gave the owner tag '%s'", o->owner ? o->owner : "");
	r = want_parse(w, o->opts, o->network, o->kind, e);
	if (r < 0)
		return r;
	if (o->ifname && (tap_name_check(o->ifname) || !strcmp(o->ifname, w->bridge))) {
		net_host->remedy(e, "choose another ifname, or leave it out");
		return net_host->err(e, -EINVAL, "'%s' cannot be the name of the tap", o->ifname);
	}
	return 0;
}

/* [locked exclusively] */
static int attach(struct nl *nl, const struct vh_net_open *o, struct nat_want *w, struct nat_port *p, struct vh_err *e)
{
	struct brport_want pw = { .owner = o->owner, .guest_mac = o->mac, .mtu = o->mtu, .isolated = w->port_isolated };
	struct nl_link br;
	int made, r = network_up(nl, o->state, w, o->owner, o->mtu, o->ifname ? o->ifname : "vnetN", &br, &made, e);

	if (r < 0)
		return r;
	p->bridge = br.ifindex;
	snprintf(p->table_name, sizeof(p->table_name), "vhost_%s", w->bridge);
	p->rules = table_text(w);
	r = p->rules ? 0 : net_host->err(e, -ENOMEM, "no memory for the rules of bridge %s", w->bridge);
	if (!r)
		r = tap_open(&p->t.tap, net_host, o->ifname, o->pairs, e);
	if (!r)
		r = brport_attach(nl, &p->t.tap, &pw, &br, &p->t.info, e);
	if (!r)
		return 0;
	take_down(nl, p);
	journal_remove(o->state, o->owner);
	return r;
}

int port_open(const struct vh_net_open *o, void **port, struct vh_err *e)
{
	struct nat_want w;
	struct nat_port *p;
	struct nl nl;
	int lock, r;

	*port = NULL;
	if (o->flags & VH_NET_OPEN_DRY_RUN)
		return nat_plan(o, NULL, NULL, e);
	r = check(o, &w, e);
	if (r < 0)
		return r;
	p = calloc(1, sizeof(*p));
	if (!p || tapport_keep(&p->t, o)) {
		if (p)
			port_free(p);
		return net_host->err(e, -ENOMEM, "no memory for a port");
	}
	r = told_nl(&nl, e);
	if (r < 0) {
		port_free(p);
		return r;
	}
	lock = told_lock(o->state, 1, e);
	if (lock < 0) {
		r = lock;
	} else {
		r = attach(&nl, o, &w, p, e);
		close(lock);
	}
	nl_release(&nl);
	if (r < 0)
		port_free(p);
	else
		*port = p;
	return r;
}

void port_close(void *port)
{
	struct nat_port *p = port;
	struct nl nl;
	int lock;

	/* Without lock or netlink the tap still goes with its fds; gc() finds the rest. */
	if (nl_open(&nl) < 0) {
		tap_close(&p->t.tap);
		port_free(p);
		return;
	}
	lock = journal_lock(p->t.state, 1);
	if (lock >= 0)
		take_down(&nl, p);
	else
		tap_close(&p->t.tap);
	nl_release(&nl);
	if (lock >= 0) {
		journal_remove(p->t.state, p->t.owner);
		close(lock);
	}
	port_free(p);
}
