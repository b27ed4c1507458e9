/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What other programs take from under a port while its VM runs: the bridge, the VLAN device, which ends with its uplink as well, and
 * the uplink, which returns. As in plugins/net/bridge/repair.c the first port to have the lock makes what is missing.
 */
#include "vlan.h"

#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "brport.h"
#include "journal.h"
#include "plugin.h"
#include "tag.h"
#include "told.h"

/* What is amiss. */
#define BRIDGE 1
#define UPLINK 2

static int concerns(void *ctx, const struct link_change *c)
{
	const struct vlan_port *p = ctx;

	if (c->gone)
		return c->ifindex == p->bridge || c->ifindex == p->dev;
	return !strcmp(c->name, p->want.uplink) && (c->ifindex != p->uplink || (p->want.filter && c->master != p->bridge));
}

int vlan_watch(void *port, struct vh_err *e)
{
	struct vlan_port *p = port;

	return linkwatch_open(&p->watch, concerns, p, e);
}

void vlan_seen(struct vlan_port *p, const struct vlan_shared *s)
{
	p->bridge = s->bridge.ifindex;
	p->uplink = s->uplink.ifindex;
	p->dev = s->dev.ifindex;
	snprintf(p->maker, sizeof(p->maker), "%s", s->bridge.alias);
}

/* The tap has lost its bridge. One that people gave another master since, or that is gone itself, is not ours to move. */
static int bridge_gone(struct nl *nl, struct vlan_port *p, const struct vlan_shared *s, struct vh_err *e)
{
	struct nl_link tap;
	int r = nl_link_get(nl, (int)p->t.info.ifindex, NULL, &tap);

	if (r && r != -ENODEV)
		return vlan_netlink_error(nl, r, "look at", p->t.info.ifname, e);
	if (r || (tap.master && tap.master != s->bridge.ifindex))
		return 0;
	if (tap.master && !p->failed)
		vlan_seen(p, s);
	return tap.master && !p->failed ? 0 : BRIDGE;
}

/* By a repair that did not come to its end: it has the name under which it was made. */
static int half_made(const struct nl_link *dev)
{
	return !dev->master && !strncmp(dev->name, "vhb", 3) && tag_ours(dev->alias);
}

/* An uplink that is still there is where people have put it. */
static int uplink_gone(struct nl *nl, struct vlan_port *p, struct vlan_shared *s, struct vh_err *e)
{
	if (!s->uplink.ifindex)
		return 0;
	if (!p->want.filter) {
		if (!s->dev.ifindex || (s->dev.master != p->bridge && (p->failed || half_made(&s->dev))))
			return UPLINK;
		p->uplink = s->uplink.ifindex;
		p->dev = s->dev.ifindex;
		return 0;
	}
	if (s->uplink.master == p->bridge) {
		p->uplink = s->uplink.ifindex;
		return 0;
	}
	if (s->uplink.ifindex != p->uplink || p->failed)
		return UPLINK;
	return s->uplink.master ? shared_check(nl, &p->want, s, e) : 0;
}

static int amiss(struct nl *nl, struct vlan_port *p, struct vlan_shared *s, struct vh_err *e)
{
	int r = shared_find(nl, &p->want, s, e);

	if (r)
		return r;
	if (!s->bridge.ifindex || s->bridge.ifindex != p->bridge)
		return bridge_gone(nl, p, s, e);
	return uplink_gone(nl, p, s, e);
}

/* ---- networks that hold the bridge: their journals name it by its number ---- */

struct holders {
	int bridge;
	const char *maker; /* in: whose it was */
	int maker_lives;
	char (*owner)[256];
	unsigned n;
	int no_memory;
};

static void on_entry(void *ctx, const char *owner, const char *text)
{
	const char *hold = strstr(text, "\nhold ");
	struct holders *h = ctx;
	char (*more)[256];

	h->maker_lives |= !strcmp(owner, h->maker);
	if (strncmp(text, "vlan ", 5) || !hold || atoi(hold + 6) != h->bridge)
		return;
	more = realloc(h->owner, (h->n + 1) * sizeof(*more));
	if (!more) {
		h->no_memory = 1;
		return;
	}
	h->owner = more;
	snprintf(h->owner[h->n++], sizeof(*more), "%s", owner);
}

static int hold_anew(const struct vlan_port *p, const struct holders *h, int bridge, struct vh_err *e)
{
	char text[96];
	int r = 0;

	snprintf(text, sizeof(text), "vlan %s %s\nhold %d\n", p->tmp_bridge, p->tmp_dev, bridge);
	for (unsigned i = 0; i < h->n && !r; i++)
		r = told_write(p->t.state, h->owner[i], text, e);
	return r;
}

/* ---- repairing ---- */

/* Left by a repair, of this port or of another one, that failed half way, and by its undoing. */
static int sweep(struct nl *nl, struct vlan_port *p, int what, struct vlan_shared *s, struct vh_err *e)
{
	int swept = 0;

	if (p->tmp_bridge[0]) {
		nl_link_delete(nl, 0, p->tmp_bridge);
		nl_link_delete(nl, 0, p->tmp_dev);
		swept = 1;
	}
	if (what == BRIDGE && s->bridge.ifindex && tag_ours(s->bridge.alias) && !(s->bridge.flags & IFF_UP))
		swept |= bridgedev_remove_unused(nl, s->bridge.ifindex, s->bridge.alias) == 1;
	if (s->dev.ifindex && half_made(&s->dev))
		swept |= !nl_link_delete(nl, s->dev.ifindex, NULL);
	return swept ? shared_find(nl, &p->want, s, e) : 0;
}

/* It is not there, or cannot be one: the guests have each other all the same, and the next look is about the uplink. */
static int check(struct nl *nl, struct vlan_port *p, int what, struct vlan_shared *s, struct vh_err *e)
{
	int r;

	if (what == UPLINK)
		return shared_check(nl, &p->want, s, e);
	r = shared_check(nl, &p->want, s, NULL);
	if (!r)
		return 0;
	if (r != -ENOENT && r != -EBUSY && r != -EINVAL && r != -ENETDOWN)
		return shared_check(nl, &p->want, s, e);
	s->uplink.ifindex = s->dev.ifindex = 0;
	return shared_check_bridge(nl, &p->want, s, e);
}

/* [locked] */
static int mend(struct nl *nl, struct vlan_port *p, int what, struct vlan_shared *s, int *made, struct vh_err *e)
{
	struct vlan_want *w = &p->want;
	struct port_vlans vlans = { w, 0 };
	struct brport_want again = { .isolated = w->isolated };
	struct holders h = { .bridge = p->bridge, .maker = p->maker };
	int r = sweep(nl, p, what, s, e), fresh;

	if (!r)
		r = check(nl, p, what, s, e);
	if (r)
		return r;
	fresh = !s->bridge.ifindex;
	journal_scan(p->t.state, on_entry, &h);
	if (!fresh)
		w->owner = s->bridge.alias;
	else if (h.maker_lives && (!h.n || tag_network(p->maker)))
		w->owner = p->maker;
	else
		w->owner = h.n ? h.owner[0] : p->t.owner;
	bridgedev_tmp_name(p->tmp_bridge);
	bridgedev_tmp_name(p->tmp_dev);
	p->failed = 1;
	r = h.no_memory ? net_host->err(e, -ENOMEM, "no memory for the networks of %s", w->uplink) :
			  vlan_journal(p->t.state, p->t.owner, p->tmp_bridge, p->tmp_dev, e);
	if (!r)
		r = shared_make(nl, w, p->tmp_bridge, p->tmp_dev, s, made, e);
	if (!r && fresh)
		r = hold_anew(p, &h, s->bridge.ifindex, e);
	if (!r && what == BRIDGE) {
		vlans.uplink = s->uplink.ifindex;
		again.extra = w->filter ? put_vlans : NULL;
		again.ctx = &vlans;
		r = brport_again(nl, &p->t.info, &again, &s->bridge, e);
	}
	if (r && fresh && *made) {
		shared_drop(nl, w, w->owner);
		hold_anew(p, &h, p->bridge, NULL);
	}
	w->owner = NULL;
	free(h.owner);
	if (r)
		return r;
	vlan_seen(p, s);
	p->failed = 0;
	p->tmp_bridge[0] = p->tmp_dev[0] = '\0';
	return 0;
}

static void tell(const struct vlan_port *p, int what, const struct vlan_shared *s, int fresh, vh_net_step_fn *fn, void *ctx)
{
	struct plan to = { fn, ctx };

	if (what == BRIDGE && fresh)
		step(&to, "bridge %s was deleted by another program: it is made again%s%s", s->bridge.name,
		     s->uplink.ifindex ? ", with its uplink " : "", s->uplink.ifindex ? p->want.uplink : "");
	else if (what == BRIDGE)
		step(&to, "its bridge was deleted by another program, and is there again as %s: %s is its port", s->bridge.name, p->t.info.ifname);
	else if (p->want.filter)
		step(&to, "uplink %s has returned: it is a port of bridge %s again", p->want.uplink, s->bridge.name);
	else
		step(&to, "the VLAN device on uplink %s was gone: it is there again as %s", p->want.uplink, s->dev.name);
}

int vlan_repair(void *port, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	struct vlan_port *p = port;
	int lock = -1, r, made = 0, fresh;
	struct vlan_shared s;
	struct nl nl;

	heard_read(&p->watch.heard);
	if (!p->watch.heard.look)
		return 0;
	r = told_nl(&nl, e);
	if (r < 0)
		return r;
	r = amiss(&nl, p, &s, e);
	if (r > 0) {
		lock = told_lock(p->t.state, 1, e);
		r = lock < 0 ? lock : amiss(&nl, p, &s, e); /* somebody may have been quicker */
	}
	if (r > 0) {
		int what = r;

		fresh = !s.bridge.ifindex;
		r = mend(&nl, p, what, &s, &made, e);
		if (!r) {
			tell(p, what, &s, fresh, fn, ctx);
			r = 1;
		}
	}
	if (!r)
		p->watch.heard.look = 0;
	if (lock >= 0)
		close(lock);
	nl_release(&nl);
	return r;
}
