/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Networks of kind "bridged": the bridge and its uplink, kept without a port. The bridge carries the network's tag then. */
#include "bridge.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "journal.h"
#include "plugin.h"
#include "rtset.h"
#include "tag.h"
#include "uplink.h"
#include "told.h"

const char *const bridge_kinds[] = { "bridged", NULL };

/* A bridge that VMs made becomes the network's, one of others stays theirs. */
static int take_over(struct nl *nl, const struct nl_link *br, const char *owner, struct vh_err *e)
{
	int r;

	if (!tag_ours(br->alias) || !strcmp(br->alias, owner))
		return 0;
	if (tag_network(br->alias)) {
		net_host->remedy(e, "use another name= for one of them, or run `vhost net gc` when that network is stopped");
		return net_host->err(e, -EBUSY, "bridge %s is that of the started network %.80s", br->name, br->alias + 7);
	}
	r = nl_link_alias(nl, br->ifindex, owner);
	return r < 0 ? net_host->err(e, r, "cannot tag bridge %s: %s", br->name, nl->text[0] ? nl->text : strerror(-r)) : 0;
}

static int write_journal(const struct vh_network *n, const struct bridge_switch *s, const char *name, struct vh_err *e)
{
	char text[64];

	snprintf(text, sizeof(text), "bridge %s %s\n", s->make ? s->tmp : "-", name);
	return told_write(n->state, n->owner, text, e);
}

/* [locked] */
static int start(struct nl *nl, const struct vh_network *n, const struct bridge_want *w, struct vh_err *e)
{
	struct bridge_switch s;
	int r = switch_find(nl, w, n->state, &s, e), was_ours;

	if (r)
		return r;
	was_ours = !strcmp(s.br.alias, n->owner);
	if (was_ours && !s.join && !w->dev.address.family)
		return 0;
	r = write_journal(n, &s, w->dev.name, e);
	if (r)
		return r;
	if (!s.make)
		r = take_over(nl, &s.br, n->owner, e);
	if (r >= 0)
		r = switch_up(nl, w, n->state, &s, e);
	if (r >= 0)
		return 0;
	switch_undo(nl, w, n->state, &s);
	if (!s.make && !was_ours && tag_ours(s.br.alias))
		nl_link_alias(nl, s.br.ifindex, s.br.alias);
	if (!was_ours)
		journal_remove(n->state, n->owner);
	return r;
}

static int check(const struct vh_network *n, struct bridge_want *w, struct vh_err *e)
{
	int r = bridge_want(n->opts, n->name, n->owner, w, e);

	if (!r && (!n->state || !journal_owner_ok(n->owner)))
		r = net_host->err(e, -EINVAL, "the host gave no folder, or the owner tag '%s'", n->owner ? n->owner : "");
	return r;
}

/* [locked] */
static int stop(struct nl *nl, const struct vh_network *n, const struct bridge_want *w, struct vh_err *e)
{
	struct switch_ports p;
	struct nl_link br;
	int r = nl_link_get(nl, 0, w->dev.name, &br);

	if (r && r != -ENODEV)
		return net_host->err(e, r, "cannot look for bridge %s: %s", w->dev.name, nl->text[0] ? nl->text : strerror(-r));
	if (!r && !strcmp(br.kind, "bridge") && !strcmp(br.alias, n->owner)) {
		r = switch_ports(nl, n->state, br.ifindex, &p);
		if (!r && p.n) {
			net_host->remedy(e, "end the VMs that have them, or take them out");
			return net_host->err(e, -EBUSY, "bridge %s has the port%s %s%s", br.name, p.n == 1 ? "" : "s", p.names,
						p.n > 8 ? " and others" : "");
		}
		if (!r)
			r = switch_down(nl, n->state, br.ifindex, n->owner);
		if (r < 0)
			return net_host->err(e, r, "cannot remove bridge %s: %s", br.name, nl->text[0] ? nl->text : strerror(-r));
	}
	/* Somebody has deleted it: the card gets back what it had. */
	if (r == -ENODEV && w->uplink[0])
		uplink_collect(nl, n->state, NULL, NULL);
	journal_remove(n->state, n->owner);
	return 0;
}

typedef int locked_fn(struct nl *nl, const struct vh_network *n, const struct bridge_want *w, struct vh_err *e);

static int locked(const struct vh_network *n, locked_fn *fn, struct vh_err *e)
{
	struct bridge_want w;
	struct nl nl;
	int r = check(n, &w, e), lock;

	if (!r)
		r = told_nl(&nl, e);
	if (r)
		return r;
	lock = told_lock(n->state, 1, e);
	r = lock < 0 ? lock : fn(&nl, n, &w, e);
	if (lock >= 0)
		close(lock);
	nl_release(&nl);
	return r;
}

int bridge_start(const struct vh_network *n, struct vh_err *e)
{
	return locked(n, start, e);
}

int bridge_stop(const struct vh_network *n, struct vh_err *e)
{
	return locked(n, stop, e);
}

int bridge_plan_start(const struct vh_network *n, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	struct plan p = { fn, ctx };
	struct bridge_switch s;
	struct bridge_want w;
	struct nl nl;
	int r = bridge_want(n->opts, n->name, n->owner, &w, e);

	if (!r)
		r = told_nl(&nl, e);
	if (r)
		return r;
	r = switch_find(&nl, &w, n->state, &s, e);
	if (!r) {
		switch_plan(&nl, &w, &s, &p);
		if (!s.make && !s.join)
			step(&p, "use bridge %s as it is", w.dev.name);
	}
	nl_release(&nl);
	return r;
}

/* ---- describe ---- */

struct ports {
	const struct nl_link *br;
	int uplink;
	vh_net_part_fn *fn;
	void *ctx;
	unsigned n, cap;
	struct nl_link *link;
	int no_memory;
};

static void keep_port(void *ctx, const struct nl_link *l)
{
	struct ports *p = ctx;
	struct nl_link *more;

	if (l->master != p->br->ifindex || l->ifindex == p->uplink)
		return;
	if (p->n == p->cap) {
		more = realloc(p->link, (p->cap ? 2 * p->cap : 16) * sizeof(*more));
		if (!more) {
			p->no_memory = 1;
			return;
		}
		p->link = more;
		p->cap = p->cap ? 2 * p->cap : 16;
	}
	p->link[p->n++] = *l;
}

static void tell(const struct ports *p, const char *kind, const struct nl_link *l, const char *above, const char *detail)
{
	struct vh_net_part part = { .size = sizeof(part), .ifindex = (uint32_t)l->ifindex, .kind = kind, .name = l->name, .above = above,
				    .owner = l->alias[0] ? l->alias : NULL, .detail = detail, .mtu = l->mtu, .up = (l->flags & IFF_UP) != 0 };

	memcpy(part.mac, l->mac, sizeof(part.mac));
	p->fn(p->ctx, &part);
}

/* "192.0.2.1/24 2001:db8::1/64", as far as there is room. */
static void addresses(struct nl *nl, int ifindex, char *out, size_t cap)
{
	struct rtset s;
	char one[64];
	size_t at = 0, n;

	out[0] = '\0';
	if (rtset_get(nl, ifindex, &s))
		return;
	for (unsigned i = 0; i < s.addrs; i++) {
		rtset_text(s.msg[i], one, sizeof(one));
		n = strlen(one + 8); /* behind "address " */
		if (at + n + 2 > cap)
			break;
		at += (size_t)snprintf(out + at, cap - at, "%s%s", at ? " " : "", one + 8);
	}
	rtset_free(&s);
}

/* The uplink by its record, or, on a bridge of others, what the definition names. */
static void tell_uplink(struct nl *nl, const struct vh_network *n, const struct bridge_want *w, struct ports *p, char name[16])
{
	int i = uplink_of(n->state, p->br->ifindex, name);
	struct nl_link up;

	name[0] = '\0';
	if (i ? nl_link_get(nl, i, NULL, &up) : !w->uplink[0] || nl_link_get(nl, 0, w->uplink, &up))
		return;
	if (up.master != p->br->ifindex)
		return;
	p->uplink = up.ifindex;
	memcpy(name, up.name, 16);
	tell(p, "uplink", &up, NULL, NULL);
}

int bridge_describe(const struct vh_network *n, vh_net_part_fn *fn, void *ctx, struct vh_err *e)
{
	struct ports p = { .fn = fn, .ctx = ctx };
	char uplink[16], detail[200];
	struct bridge_want w;
	struct nl_link br;
	struct nl nl;
	int r = bridge_want(n->opts, n->name, n->owner, &w, e);

	if (!r)
		r = told_nl(&nl, e);
	if (r)
		return r;
	r = nl_link_get(&nl, 0, w.dev.name, &br);
	if (r || strcmp(br.kind, "bridge")) {
		nl_release(&nl);
		return r && r != -ENODEV ? net_host->err(e, r, "cannot look for bridge %s: %s", w.dev.name, strerror(-r)) : 0;
	}
	p.br = &br;
	tell_uplink(&nl, n, &w, &p, uplink);
	addresses(&nl, br.ifindex, detail, sizeof(detail));
	tell(&p, "bridge", &br, uplink[0] ? uplink : NULL, detail[0] ? detail : NULL);
	r = -EAGAIN;
	for (int tries = 0; tries < 20 && r == -EAGAIN; tries++) {
		p.n = 0;
		r = nl_link_dump(&nl, br.ifindex, keep_port, &p);
	}
	for (unsigned i = 0; i < p.n; i++)
		tell(&p, "port", &p.link[i], br.name, NULL);
	free(p.link);
	nl_release(&nl);
	if (!r && p.no_memory)
		r = -ENOMEM;
	return r ? net_host->err(e, r, "cannot list the ports of bridge %s: %s", br.name, strerror(-r)) : 0;
}
