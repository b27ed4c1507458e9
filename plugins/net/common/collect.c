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

static unsigned ports_of(const struct collect *c, const struct nl_link *br)
{
	unsigned n = 0;

	for (unsigned i = 0; i < c->n; i++)
		n += c->link[i].ifindex && c->link[i].master == br->ifindex;
	return n;
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

		/* Others may have joined it: then the last of them removes it. */
		if (!strcmp(l->kind, "bridge") && dead(c, l) && !ports_of(c, l))
			collect_drop(c, l, l->alias);
		if (!strcmp(l->kind, "macvlan") && dead(c, l) && !macvtaps_beside(c, l))
			collect_drop(c, l, l->alias);
	}
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
	r = nl_open(&c.nl);
	if (r < 0)
		return net_host->err(e, r, "cannot open a netlink socket: %s", strerror(-r));
	lock = journal_lock(state, 1);
	if (lock < 0) {
		nl_release(&c.nl);
		return net_host->err(e, lock, "cannot lock %s/lock: %s", state, strerror(-lock));
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
