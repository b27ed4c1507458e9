/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What dead VMs left: tagged taps and bridges, what a journal names, and the journals themselves. */
#include "bridge.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "journal.h"

struct found {
	struct nl_link *v;
	unsigned n, cap;
	int no_memory;
};

struct gc {
	struct nl nl;
	struct found all;
	const char *state;
	int (*alive)(void *ctx, const char *owner);
	vh_net_gc_fn *fn;
	void *ctx;
};

static void remember(void *ctx, const struct nl_link *l)
{
	struct found *f = ctx;
	struct nl_link *v;

	if (f->n == f->cap) {
		v = realloc(f->v, (f->cap ? 2 * f->cap : 64) * sizeof(*v));
		if (!v) {
			f->no_memory = 1;
			return;
		}
		f->v = v;
		f->cap = f->cap ? 2 * f->cap : 64;
	}
	f->v[f->n++] = *l;
}

static unsigned ports_of(const struct found *f, const struct nl_link *br)
{
	unsigned n = 0;

	for (unsigned i = 0; i < f->n; i++)
		n += f->v[i].ifindex && f->v[i].master == br->ifindex;
	return n;
}

static void drop(struct gc *g, struct nl_link *l, const char *owner)
{
	int r = nl_link_delete(&g->nl, l->ifindex, NULL);
	char what[64];

	snprintf(what, sizeof(what), "%s %s", strcmp(l->kind, "bridge") ? "tap" : "bridge", l->name);
	if (!r || r == -ENODEV)
		l->ifindex = 0; /* no port of anything any more */
	if (g->fn && r != -ENODEV)
		g->fn(g->ctx, what, owner, r);
}

static int dead(const struct gc *g, const struct nl_link *l)
{
	return l->ifindex && !strncmp(l->alias, "vhost:", 6) && !g->alive(g->ctx, l->alias);
}

/* A journal names a bridge by the name under which it was being made; nobody else's has one like it. */
static void check_journal(void *ctx, const char *owner, const char *text)
{
	struct gc *g = ctx;
	char tmp[16], c;

	/* Other plugins keep their journals here as well. */
	if ((strncmp(text, "bridge ", 7) && strncmp(text, "tap ", 4)) || g->alive(g->ctx, owner))
		return;
	if (sscanf(text, "bridge %15s%c", tmp, &c) == 2 && !strncmp(tmp, "vhb", 3))
		for (unsigned i = 0; i < g->all.n; i++)
			if (g->all.v[i].ifindex && !strcmp(g->all.v[i].name, tmp) && !strcmp(g->all.v[i].kind, "bridge") &&
			    !g->all.v[i].alias[0])
				drop(g, &g->all.v[i], owner);
	journal_remove(g->state, owner);
}

int bridge_gc(const char *state, int (*alive)(void *ctx, const char *owner), vh_net_gc_fn *fn, void *ctx, struct vh_err *e)
{
	struct gc g = { .state = state, .alive = alive, .fn = fn, .ctx = ctx };
	int lock, r;

	/* The folder is made before the first object: without it there is nothing of ours. */
	if (!state || (access(state, F_OK) < 0 && errno == ENOENT))
		return 0;
	r = nl_open(&g.nl);
	if (r < 0)
		return bridge_host->err(e, r, "cannot open a netlink socket: %s", strerror(-r));
	lock = journal_lock(state, 1);
	if (lock < 0) {
		nl_release(&g.nl);
		return bridge_host->err(e, lock, "cannot lock %s/lock: %s", state, strerror(-lock));
	}
	for (int tries = 0; tries < 20; tries++) {
		g.all.n = 0;
		r = nl_link_dump(&g.nl, 0, remember, &g.all);
		if (r != -EAGAIN)
			break;
	}
	if (!r && g.all.no_memory)
		r = -ENOMEM;
	if (r < 0) {
		bridge_host->err(e, r, "cannot list the interfaces: %s", strerror(-r));
		goto out;
	}
	for (unsigned i = 0; i < g.all.n; i++)
		if (!strcmp(g.all.v[i].kind, "tun") && dead(&g, &g.all.v[i]))
			drop(&g, &g.all.v[i], g.all.v[i].alias);
	for (unsigned i = 0; i < g.all.n; i++) {
		struct nl_link *l = &g.all.v[i];

		/* Others may have joined it: then the last of them removes it. */
		if (!strcmp(l->kind, "bridge") && dead(&g, l) && !ports_of(&g.all, l))
			drop(&g, l, l->alias);
	}
	r = journal_scan(state, check_journal, &g);
	if (r < 0)
		bridge_host->err(e, r, "cannot read the journals in %s: %s", state, strerror(-r));
out:
	close(lock);
	nl_release(&g.nl);
	free(g.all.v);
	return r;
}
