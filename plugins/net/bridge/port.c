/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A tap as a port of the bridge. */
#include "bridge.h"

#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "brport.h"
#include "fault.h"
#include "journal.h"
#include "plugin.h"
#include "tag.h"
#include "told.h"

static int want(const struct vh_net_open *o, struct bridge_want *w, struct vh_err *e)
{
	/* An older host says nothing of networks. */
	const char *network = o->size >= offsetof(struct vh_net_open, network) + sizeof(o->network) ? o->network : NULL;
	int r;

	if ((o->flags & VH_MUST_UNDERSTAND) & ~VH_NET_OPEN_DRY_RUN)
		return net_host->err(e, -EOPNOTSUPP, "a flag of this open is unknown to this plugin");
	r = bridge_want(o->opts, network, o->owner, w, e);
	if (r)
		return r;
	if (!journal_owner_ok(o->owner))
		return net_host->err(e, -EINVAL, "the host gave the owner tag '%s'", o->owner ? o->owner : "");
	w->dev.mtu = o->mtu;
	if (o->ifname && (tap_name_check(o->ifname) || !strcmp(o->ifname, w->dev.name))) {
		net_host->remedy(e, "choose another ifname, or leave it out");
		return net_host->err(e, -EINVAL, "'%s' cannot be the name of the tap", o->ifname);
	}
	return 0;
}

int bridge_plan(const struct vh_net_open *o, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	struct plan p = { fn, ctx };
	struct bridge_switch s;
	struct bridge_want w;
	uint8_t mac[6];
	struct nl nl;
	int r = want(o, &w, e);

	if (r < 0)
		return r;
	r = told_nl(&nl, e);
	if (r < 0)
		return r;
	r = switch_find(&nl, &w, o->state, &s, e);
	if (!r)
		switch_plan(&nl, &w, &s, &p);
	nl_release(&nl);
	if (r < 0)
		return r;
	if (s.make)
		s.br.mtu = s.up.ifindex ? s.up.mtu : w.dev.mtu ? w.dev.mtu : 1500;
	brport_mac(o->mac, mac);
	step(&p, "create tap %s, %u queue pair%s", o->ifname ? o->ifname : "vnetN", o->pairs, o->pairs == 1 ? "" : "s");
	step(&p, "set its MAC to %02x:%02x:%02x:%02x:%02x:%02x and its MTU to %u", mac[0], mac[1], mac[2], mac[3], mac[4],
	     mac[5], w.dev.mtu ? w.dev.mtu : s.br.mtu);
	step(&p, "attach it to bridge %s%s", w.dev.name, w.isolated ? ", isolated from other isolated ports" : "");
	step(&p, "set it up");
	return 0;
}

int bridge_journal(const char *state, const char *owner, const char *tap, const char *bridge, const char *tmp, struct vh_err *e)
{
	char text[128];

	snprintf(text, sizeof(text), "%s%s%s%s%stap %s\n", tmp ? "bridge " : "", tmp ? tmp : "", tmp ? " " : "", tmp ? bridge : "",
		 tmp ? "\n" : "", tap ? tap : "vnetN");
	return told_write(state, owner, text, e);
}

static void port_free(struct bridge_port *p)
{
	heard_close(&p->watch.heard);
	tapport_drop(&p->t);
	free(p);
}

/* The VM's process has copies of the fds, and may be slow to die: with the device itself gone it holds no port. */
static void drop_tap(struct nl *nl, struct bridge_port *p, int delete)
{
	if (delete && p->t.info.ifindex)
		nl_link_delete(nl, (int)p->t.info.ifindex, NULL);
	tap_close(&p->t.tap);
}

/* [locked] Everything but the lock. */
static int attach(struct nl *nl, const struct vh_net_open *o, const struct bridge_want *w, struct bridge_port *p, struct vh_err *e)
{
	struct brport_want port_want = { .owner = o->owner, .guest_mac = o->mac, .mtu = w->dev.mtu, .isolated = w->isolated };
	struct bridge_switch s;
	int r = switch_find(nl, w, o->state, &s, e);

	if (r)
		return r;
	r = bridge_journal(o->state, o->owner, o->ifname, w->dev.name, s.make ? s.tmp : NULL, e);
	if (r < 0)
		return r;
	p->ours = s.make || tag_ours(s.br.alias);
	r = switch_up(nl, w, o->state, &s, e);
	if (!r)
		r = tap_open(&p->t.tap, net_host, o->ifname, o->pairs, e);
	if (!r)
		r = brport_attach(nl, &p->t.tap, &port_want, &s.br, &p->t.info, e);
	p->bridge = s.br.ifindex;
	p->want = *w;
	p->want.dev.owner = p->want.dev.address.text = NULL;
	p->want.have_mac = 1;
	memcpy(p->want.dev.mac, s.br.mac, sizeof(s.br.mac));
	if (!r)
		return 0;
	drop_tap(nl, p, s.made || s.joined);
	switch_undo(nl, w, o->state, &s);
	journal_remove(o->state, o->owner);
	return r;
}

int bridge_open(const struct vh_net_open *o, void **port, struct vh_err *e)
{
	struct bridge_want w;
	struct bridge_port *p;
	int lock, r;
	struct nl nl;

	if (o->flags & VH_NET_OPEN_DRY_RUN) {
		*port = NULL;
		return bridge_plan(o, NULL, NULL, e);
	}
	r = want(o, &w, e);
	if (r < 0)
		return r;
	if (!o->state)
		return net_host->err(e, -EINVAL, "the host gave no folder for the journal");
	r = told_nl(&nl, e);
	if (r < 0)
		return r;
	p = calloc(1, sizeof(*p));
	lock = !p || tapport_keep(&p->t, o) ? net_host->err(e, -ENOMEM, "no memory for a port") : told_lock(o->state, w.create, e);
	if (lock < 0) {
		r = lock;
	} else {
		r = attach(&nl, o, &w, p, e);
		close(lock);
	}
	nl_release(&nl);
	if (!r)
		*port = p;
	else if (p)
		port_free(p);
	return r;
}

void bridge_close(void *port)
{
	struct bridge_port *p = port;
	int lock = -1;
	struct nl nl;

	/* Without lock or netlink the tap still goes with its fds; gc() finds a bridge that stays. */
	if (p->ours && !nl_open(&nl)) {
		lock = journal_lock(p->t.state, 1);
		drop_tap(&nl, p, lock >= 0);
		if (lock >= 0)
			switch_down(&nl, p->t.state, p->bridge, NULL);
		nl_release(&nl);
	} else {
		tap_close(&p->t.tap);
	}
	journal_remove(p->t.state, p->t.owner);
	if (lock >= 0)
		close(lock);
	port_free(p);
}
