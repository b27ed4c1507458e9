/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What other programs take from under a port while its VM runs: the bridge, deleted, and the uplink, which vanished and is there
 * again. Every port of the bridge is asked, in as many processes; the first to have the journal's lock makes what is missing, exactly
 * as open() does, and the others join it.
 */
#include "bridge.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "brport.h"
#include "journal.h"
#include "plugin.h"
#include "tag.h"
#include "told.h"
#include "uplink.h"

/* What is amiss. */
#define BRIDGE 1
#define UPLINK 2

static int concerns(void *ctx, const struct link_change *c)
{
	const struct bridge_port *p = ctx;

	if (c->gone)
		return c->ifindex == p->bridge;
	if (!strcmp(c->name, p->want.dev.name))
		return c->ifindex != p->bridge;
	return p->want.uplink[0] && !strcmp(c->name, p->want.uplink) && c->master != p->bridge;
}

int bridge_watch(void *port, struct vh_err *e)
{
	struct bridge_port *p = port;

	return linkwatch_open(&p->watch, concerns, p, e);
}

/* The tap has lost its bridge. One that people gave another master since, or that is gone itself, is not ours to move. */
static int bridge_gone(struct nl *nl, struct bridge_port *p)
{
	struct nl_link tap, master;
	int r = nl_link_get(nl, (int)p->t.info.ifindex, NULL, &tap);

	if (r)
		return r == -ENODEV ? 0 : r;
	if (!tap.master)
		return BRIDGE;
	r = nl_link_get(nl, tap.master, NULL, &master);
	if (!r && !strcmp(master.kind, "bridge") && !strcmp(master.name, p->want.dev.name)) {
		if (p->failed) /* by us, but not all the way */
			return BRIDGE;
		p->bridge = master.ifindex;
		p->ours = tag_ours(master.alias);
	}
	return 0;
}

/* An uplink that is still there is where people have put it. */
static int uplink_gone(struct nl *nl, const struct bridge_port *p, struct vh_err *e)
{
	struct nl_link up;
	char name[16];
	int has = uplink_of(p->t.state, p->bridge, name), r;

	r = has ? nl_link_get(nl, has, NULL, &up) : -ENODEV;
	if (!r) {
		memcpy(name, up.name, sizeof(name));
		return up.master && up.master != p->bridge ? uplink_check(nl, name, p->bridge, &up, e) : 0;
	}
	if (r == -ENODEV)
		r = nl_link_get(nl, 0, p->want.uplink, &up);
	if (r && r != -ENODEV)
		return net_host->err(e, r, "cannot look for uplink %s: %s", p->want.uplink, nl->text[0] ? nl->text : strerror(-r));
	return r || up.master == p->bridge ? 0 : UPLINK;
}

static int amiss(struct nl *nl, struct bridge_port *p, struct vh_err *e)
{
	struct nl_link br;
	int r = nl_link_get(nl, p->bridge, NULL, &br);

	if (r == -ENODEV || (!r && strcmp(br.kind, "bridge")))
		r = bridge_gone(nl, p);
	else if (!r && p->ours && p->want.uplink[0])
		return uplink_gone(nl, p, e);
	return r < 0 ? net_host->err(e, r, "cannot look for bridge %s: %s", p->want.dev.name, nl->text[0] ? nl->text : strerror(-r)) : r;
}

/* Whose the bridge was: its network's, when that is started, else the VM's that made it, as the journals say. */
struct maker {
	const char *bridge;
	char owner[256];
};

static void on_entry(void *ctx, const char *owner, const char *text)
{
	struct maker *m = ctx;
	char name[16];

	if (sscanf(text, "bridge %*15s %15s", name) != 1 || strcmp(name, m->bridge))
		return;
	if (!m->owner[0] || (tag_network(owner) && !tag_network(m->owner)))
		snprintf(m->owner, sizeof(m->owner), "%s", owner);
}

/* It is not there, or cannot be one. */
static int refused(int r)
{
	return r == -ENOENT || r == -EBUSY || r == -EINVAL;
}

/* [locked] */
static int mend(struct nl *nl, struct bridge_port *p, int what, struct bridge_switch *s, struct vh_err *e)
{
	struct maker m = { .bridge = p->want.dev.name };
	struct bridge_want w = p->want;
	struct brport_want again = { .isolated = w.isolated };
	struct nl_link up;
	int r;

	journal_scan(p->t.state, on_entry, &m);
	w.dev.owner = m.owner[0] ? m.owner : p->t.owner;
	w.create = p->ours;
	/* As its maker wanted it, whoever that was: the port has had it from the bridge. */
	if (!w.dev.mtu && p->t.info.mtu != 1500)
		w.dev.mtu = (uint16_t)p->t.info.mtu;
	/* The guests have each other at least; the next look is about the uplink. */
	if (what == BRIDGE && w.uplink[0] && (!p->ours || refused(uplink_check(nl, w.uplink, 0, &up, NULL)))) {
		w.dev.no_addrgen = 1;
		w.uplink[0] = '\0';
	}
	if (p->tmp[0]) /* before the journal forgets it */
		nl_link_delete(nl, 0, p->tmp);
	r = switch_find(nl, &w, p->t.state, s, e);
	/* One that is not up yet was being made by another port when that failed. */
	if (!r && what == BRIDGE && p->ours && !s->make && !(s->br.flags & IFF_UP) &&
	    bridgedev_remove_unused(nl, s->br.ifindex, w.dev.owner) == 1)
		r = switch_find(nl, &w, p->t.state, s, e);
	memcpy(p->tmp, s->tmp, sizeof(p->tmp));
	if (!r && s->make)
		r = bridge_journal(p->t.state, p->t.owner, p->t.info.ifname, w.dev.name, s->tmp, e);
	if (!r)
		r = switch_up(nl, &w, p->t.state, s, e);
	if (!r && what == BRIDGE)
		r = brport_again(nl, &p->t.info, &again, &s->br, e);
	if (r) {
		p->failed = 1;
		switch_undo(nl, &w, p->t.state, s);
		return r;
	}
	p->tmp[0] = '\0';
	p->failed = 0;
	p->bridge = s->br.ifindex;
	p->ours = tag_ours(s->br.alias);
	return 0;
}

static void tell(const struct bridge_port *p, int what, const struct bridge_switch *s, vh_net_step_fn *fn, void *ctx)
{
	struct plan to = { fn, ctx };
	const char *br = p->want.dev.name, *up = p->want.uplink;

	if (what == BRIDGE && s->made)
		step(&to, "bridge %s was deleted by another program: it is made again%s%s", br, s->joined ? ", with its uplink " : "",
		     s->joined ? up : "");
	else if (what == BRIDGE)
		step(&to, "bridge %s was deleted by another program, and is there again: %s is its port", br, p->t.info.ifname);
	if (s->joined && !s->made)
		step(&to, "uplink %s has returned: it is a port of bridge %s again", up, br);
}

int bridge_repair(void *port, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	struct bridge_port *p = port;
	struct bridge_switch s;
	int lock = -1, r, what;
	struct nl nl;

	heard_read(&p->watch.heard);
	if (!p->watch.heard.look)
		return 0;
	r = told_nl(&nl, e);
	if (r < 0)
		return r;
	what = amiss(&nl, p, e);
	if (what > 0) {
		lock = told_lock(p->t.state, p->ours, e);
		what = lock < 0 ? lock : amiss(&nl, p, e); /* somebody may have been quicker */
	}
	r = what;
	if (what == BRIDGE && !p->ours && nl_link_get(&nl, 0, p->want.dev.name, &s.br) == -ENODEV) {
		net_host->remedy(e, "make it again: %s joins it by itself", p->t.info.ifname);
		r = net_host->err(e, -ENOENT, "bridge %s was deleted by another program, and vhost has not made it", p->want.dev.name);
	} else if (what > 0) {
		r = mend(&nl, p, what, &s, e);
	}
	if (what > 0 && !r) {
		r = what == BRIDGE || s.joined;
		tell(p, what, &s, fn, ctx);
	}
	if (!r)
		p->watch.heard.look = 0;
	if (lock >= 0)
		close(lock);
	nl_release(&nl);
	return r;
}
