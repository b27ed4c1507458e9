/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A network that stays without ports: the same objects, under the network's own tag. */
#include "nat.h"

#include <errno.h>
#include <linux/if_link.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "journal.h"
#include "tag.h"
#include "told.h"

static int begin(const struct vh_network *n, struct nat_want *w, struct nl *nl, int *lock, struct vh_err *e)
{
	int r;

	if (!n->state || !n->name)
		return net_host->err(e, -EINVAL, "the host gave no folder for the journal, or no name");
	if (!journal_owner_ok(n->owner) || !tag_network(n->owner))
		return net_host->err(e, -EINVAL, "the host gave the owner tag '%s'", n->owner ? n->owner : "");
	r = want_parse(w, n->opts, n->name, n->kind, e);
	if (r < 0)
		return r;
	r = told_nl(nl, e);
	if (r < 0)
		return r;
	*lock = told_lock(n->state, 1, e);
	if (*lock >= 0)
		return 0;
	nl_release(nl);
	return *lock;
}

/* A VM made it: from now on it is the network's. */
static int take_over(struct nl *nl, const struct vh_network *n, const struct nat_want *w, const struct nl_link *br,
		     struct vh_err *e)
{
	int r;

	if (!strcmp(br->alias, n->owner))
		return 0;
	r = nl_link_alias(nl, br->ifindex, n->owner);
	if (!r) {
		r = table_put(w, n->owner, e);
		if (!r)
			return 0;
	} else {
		r = net_host->err(e, r, "cannot tag bridge %s: %s", w->bridge, nl->text[0] ? nl->text : strerror(-r));
	}
	nl_link_alias(nl, br->ifindex, br->alias); /* also when its answer was lost */
	journal_remove(n->state, n->owner);
	return r;
}

int nat_start(const struct vh_network *n, struct vh_err *e)
{
	struct nat_want w;
	struct nl_link br;
	struct nl nl;
	int lock, made, r = begin(n, &w, &nl, &lock, e);

	if (r < 0)
		return r;
	r = network_up(&nl, n->state, &w, n->owner, 0, NULL, &br, &made, e);
	if (!r && !made)
		r = take_over(&nl, n, &w, &br, e);
	close(lock);
	nl_release(&nl);
	return r;
}

struct ports {
	int bridge;
	unsigned n;
	char names[160];
};

static void add_port(void *ctx, const struct nl_link *l)
{
	struct ports *p = ctx;
	size_t len = strlen(p->names);

	if (l->master != p->bridge)
		return;
	if (p->n++ < 4)
		snprintf(p->names + len, sizeof(p->names) - len, "%s%s", len ? ", " : "", l->name);
	else if (p->n == 6)
		snprintf(p->names + len, sizeof(p->names) - len, ", ...");
}

static int ports_of(struct nl *nl, int bridge, struct ports *p)
{
	int r = -EAGAIN;

	for (int tries = 0; tries < 20 && r == -EAGAIN; tries++) {
		memset(p, 0, sizeof(*p));
		p->bridge = bridge;
		r = nl_link_dump(nl, bridge, add_port, p);
	}
	return r;
}

/* Whichever start made it. */
static int held_by(const struct vh_network *n, const char *alias)
{
	size_t len = strlen(n->name);

	return tag_network(alias) && !strncmp(alias + 7, n->name, len) && alias[7 + len] == ':';
}

static int stop(struct nl *nl, const struct vh_network *n, const struct nat_want *w, struct vh_err *e)
{
	struct nl_link br;
	struct ports p;
	int r = nl_link_get(nl, 0, w->bridge, &br);

	if (!r && held_by(n, br.alias)) {
		r = ports_of(nl, br.ifindex, &p);
		if (!r && p.n) {
			net_host->remedy(e, "end the VMs that are in it first ('vhost net ports')");
			return net_host->err(e, -EBUSY, "network %s has %u port%s: %s", n->name, p.n, p.n == 1 ? "" : "s", p.names);
		}
		if (!r)
			r = bridgedev_remove_unused(nl, br.ifindex, br.alias);
	}
	if (r < 0 && r != -ENODEV)
		return net_host->err(e, r, "cannot remove bridge %s: %s", w->bridge, nl->text[0] ? nl->text : strerror(-r));
	r = network_sweep(nl, n->state, NULL, NULL);
	if (r < 0)
		return net_host->err(e, r, "cannot remove what was on bridge %s: %s", w->bridge, strerror(-r));
	r = journal_remove(n->state, n->owner);
	return r < 0 ? net_host->err(e, r, "cannot end the journal in %s: %s", n->state, strerror(-r)) : 0;
}

int nat_stop(const struct vh_network *n, struct vh_err *e)
{
	struct nat_want w;
	struct nl nl;
	int lock, r = begin(n, &w, &nl, &lock, e);

	if (r < 0)
		return r;
	r = stop(&nl, n, &w, e);
	close(lock);
	nl_release(&nl);
	return r;
}
