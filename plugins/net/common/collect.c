/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "collect.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "journal.h"
#include "plugin.h"
#include "tag.h"
#include "uplink.h"
#include "told.h"

#define MARK_TRUNK "vhost.trunk." /* plugins/net/vlan */

static void remember(void *ctx, const struct nl_link *l)
{
	struct collect *c = ctx;
	struct nl_link *v;

	if (c->n == c->cap) {
		v = realloc(c->link, (c->cap ? 2 * c->cap : 64) * sizeof(*v));
		if (!v) {
			c->no_memory = 1;
			return;
		}
		c->link = v;
		c->cap = c->cap ? 2 * c->cap : 64;
	}
	c->link[c->n++] = *l;
}

/* Not the side of the uplink: a VLAN device of ours, or the port for which a trunk's bridge was made. */
static int uplink_side(const struct nl_link *br, const struct nl_link *port)
{
	if (!strcmp(port->kind, "vlan") && tag_ours(port->alias))
		return 1;
	return !strncmp(br->mark, MARK_TRUNK, strlen(MARK_TRUNK)) && !strcmp(br->mark + strlen(MARK_TRUNK), port->name);
}

/* Without `but`, 0: all. */
static unsigned ports_of(const struct collect *c, const struct nl_link *br, int but)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n; i++)
		n += c->link[i].ifindex && c->link[i].master == br->ifindex && c->link[i].ifindex != but &&
		     !uplink_side(br, &c->link[i]);
	return n;
}

static void release_ports(struct collect *c, int bridge)
{
	for (unsigned i = 0; i < c->n; i++)
		if (c->link[i].master == bridge)
			c->link[i].master = 0;
}

void collect_drop(struct collect *c, struct nl_link *l, const char *owner)
{
	int r = nl_link_delete(&c->nl, l->ifindex, NULL);
	char what[64];

	snprintf(what, sizeof(what), "%s %s", strcmp(l->kind, "tun") ? l->kind : "tap", l->name);
	if (!r || r == -ENODEV)
		l->ifindex = 0; /* no port of anything any more */
	if (c->fn && r != -ENODEV)
		c->fn(c->ctx, what, owner, r);
}

static int dead(const struct collect *c, const struct nl_link *l)
{
	return l->ifindex && tag_ours(l->alias) && !c->alive(c->ctx, l->alias);
}

void collect_drop_unborn(struct collect *c, const char *kind, const char *tmp, const char *owner)
{
	for (unsigned i = 0; i < c->n; i++) {
		struct nl_link *l = &c->link[i];

		if (l->ifindex && !strcmp(l->name, tmp) && !strcmp(l->kind, kind) && !l->alias[0])
			collect_drop(c, l, owner);
	}
}

/* What the host had on an uplink goes back there, when that is the last port. 1: it has none now. */
static int left_by_uplink(struct collect *c, const struct nl_link *br)
{
	char name[16];
	int up = uplink_of(c->state, br->ifindex, name);

	if (!up)
		return !ports_of(c, br, 0);
	if (ports_of(c, br, up) || uplink_leave(&c->nl, c->state, br->ifindex))
		return 0;
	for (unsigned i = 0; i < c->n; i++)
		if (c->link[i].ifindex == up)
			c->link[i].master = 0;
	return 1;
}

static void restored(void *ctx, const char *uplink, int result)
{
	const struct collect *c = ctx;
	char what[64];

	snprintf(what, sizeof(what), "record of uplink %s", uplink);
	if (c->fn)
		c->fn(c->ctx, what, "a bridge that is gone", result);
}

/* A network of the living holds an interface by a line of its journal, whoever's tag that has. */
static void note_hold(void *ctx, const char *owner, const char *text)
{
	struct collect *c = ctx;
	const char *p = strstr(text, "\nhold ");
	int ifindex = p ? atoi(p + 6) : 0;

	if (ifindex <= 0 || !c->alive(c->ctx, owner))
		return;
	for (unsigned i = 0; i < c->n; i++)
		if (c->link[i].ifindex == ifindex && tag_ours(c->link[i].alias))
			snprintf(c->link[i].alias, sizeof(c->link[i].alias), "%s", owner);
}

/* A macvlan is the host's own interface beside the ports on an uplink. */
static unsigned macvtaps_beside(const struct collect *c, const struct nl_link *l)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n; i++)
		n += c->link[i].ifindex && c->link[i].link == l->link && !strcmp(c->link[i].kind, "macvtap") && tag_ours(c->link[i].alias);
	return n;
}

static void drop_objects(struct collect *c)
{
	static const char *const leaf[] = { "tun", "macvtap" };

	for (unsigned i = 0; i < c->n; i++)
		for (unsigned k = 0; k < sizeof(leaf) / sizeof(leaf[0]); k++)
			if (!strcmp(c->link[i].kind, leaf[k]) && dead(c, &c->link[i]))
				collect_drop(c, &c->link[i], c->link[i].alias);
	for (unsigned i = 0; i < c->n; i++) {
		struct nl_link *l = &c->link[i];
		int ifindex = l->ifindex;

		/* Others may have joined it: then the last of them removes it. */
		if (!strcmp(l->kind, "bridge") && dead(c, l) && left_by_uplink(c, l))
			collect_drop(c, l, l->alias);
		if (ifindex && !l->ifindex)
			release_ports(c, ifindex);
		if (!strcmp(l->kind, "macvlan") && dead(c, l) && !macvtaps_beside(c, l))
			collect_drop(c, l, l->alias);
	}
	uplink_collect(&c->nl, c->state, restored, c);
	for (unsigned i = 0; i < c->n; i++)
		if (!strcmp(c->link[i].kind, "vlan") && !c->link[i].master && dead(c, &c->link[i]))
			collect_drop(c, &c->link[i], c->link[i].alias);
}

struct entries {
	struct collect *c;
	collect_entry_fn *fn;
};

static void check_entry(void *ctx, const char *owner, const char *text)
{
	const struct entries *s = ctx;

	if (!s->c->alive(s->c->ctx, owner) && s->fn(s->c, owner, text) > 0)
		journal_remove(s->c->state, owner);
}

int collect_run(const char *state, int (*alive)(void *ctx, const char *owner), vh_net_gc_fn *fn, void *ctx,
		collect_entry_fn *entry, struct vh_err *e)
{
	struct collect c = { .state = state, .alive = alive, .fn = fn, .ctx = ctx };
	struct entries s = { &c, entry };
	int lock, r;

	/* The folder is made before the first object: without it there is nothing of ours. */
	if (!state || (access(state, F_OK) < 0 && errno == ENOENT))
		return 0;
	r = told_nl(&c.nl, e);
	if (r < 0)
		return r;
	lock = told_lock(state, 1, e);
	if (lock < 0) {
		nl_release(&c.nl);
		return lock;
	}
	for (int tries = 0; tries < 20; tries++) {
		c.n = 0;
		r = nl_link_dump(&c.nl, 0, remember, &c);
		if (r != -EAGAIN)
			break;
	}
	if (!r && c.no_memory)
		r = -ENOMEM;
	if (r < 0) {
		net_host->err(e, r, "cannot list the interfaces: %s", strerror(-r));
		goto out;
	}
	journal_scan(state, note_hold, &c);
	drop_objects(&c);
	r = journal_scan(state, check_entry, &s);
	if (r < 0)
		net_host->err(e, r, "cannot read the journals in %s: %s", state, strerror(-r));
out:
	close(lock);
	nl_release(&c.nl);
	free(c.link);
	return r;
}
