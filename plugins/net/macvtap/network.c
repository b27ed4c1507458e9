/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Macvtap networks. There is little to keep: with host=on the host's own interface, without it nothing but the knowledge that
 * the network is started, a journal entry. Which ports are in a network their journal entries tell.
 */
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "journal.h"
#include "macvtap.h"
#include "plugin.h"
#include "step.h"
#include "tag.h"
#include "told.h"

/* The owners of the ports that say to be in a network. */
struct members {
	const char *network;
	char (*owner)[200];
	unsigned n;
	int no_memory;
};

static void remember(void *ctx, const char *owner, const char *text)
{
	struct members *m = ctx;
	const char *line = strstr(text, "\nnetwork ");
	size_t n = strlen(m->network);
	void *more;

	if (strncmp(text, "macvtap ", 8) || !line || strncmp(line + 9, m->network, n) || line[9 + n] != '\n')
		return;
	more = realloc(m->owner, (m->n + 1) * sizeof(*m->owner));
	if (!more) {
		m->no_memory = 1;
		return;
	}
	m->owner = more;
	snprintf(m->owner[m->n++], sizeof(*m->owner), "%s", owner);
}

static int is_member(const struct members *m, const char *owner)
{
	for (unsigned i = 0; i < m->n; i++)
		if (!strcmp(m->owner[i], owner))
			return 1;
	return 0;
}

struct links {
	const struct members *m;
	int uplink; /* 0: the members' macvtaps, else all of vhost's on it */
	char names[128];
	unsigned n;
	vh_net_part_fn *fn; /* NULL: they are only counted and named */
	void *ctx;
	const char *uplink_name;
};

static void tell_link(vh_net_part_fn *fn, void *ctx, const char *kind, const struct nl_link *l, const char *above, const char *detail)
{
	struct vh_net_part part = { .size = sizeof(part), .ifindex = (uint32_t)l->ifindex, .kind = kind, .name = l->name, .above = above,
				    .owner = tag_ours(l->alias) ? l->alias : NULL, .detail = detail, .mtu = l->mtu,
				    .up = (l->flags & IFF_UP) != 0 };

	memcpy(part.mac, l->mac, 6);
	fn(ctx, &part);
}

static void one_link(void *ctx, const struct nl_link *l)
{
	struct links *s = ctx;

	if (strcmp(l->kind, "macvtap") || !tag_ours(l->alias))
		return;
	if (s->uplink ? l->link != s->uplink : !is_member(s->m, l->alias))
		return;
	if (s->fn)
		tell_link(s->fn, s->ctx, "macvtap", l, s->uplink_name, macvtap_mode_name(l->macvlan_mode));
	else if (strlen(s->names) + strlen(l->name) + 3 < sizeof(s->names))
		snprintf(s->names + strlen(s->names), sizeof(s->names) - strlen(s->names), "%s%s", s->n ? ", " : "", l->name);
	s->n++;
}

/* The ports that exist, once: told by a list that did not change meanwhile. */
static int each_port(struct nl *nl, const struct vh_network *n, struct links *s)
{
	struct members m = { .network = n->name };
	int r = journal_scan(n->state, remember, &m);

	if (!r && m.no_memory)
		r = -ENOMEM;
	s->m = &m;
	for (int tries = 0; !r && tries < 20; tries++) {
		s->n = 0;
		s->names[0] = '\0';
		r = nl_link_dump(nl, 0, one_link, s);
		if (r != -EAGAIN)
			break;
		r = tries == 19 ? -EAGAIN : 0;
	}
	free(m.owner);
	return r;
}

static int begin(const struct vh_network *n, struct macvtap_want *w, struct nl *nl, int *lock, struct vh_err *e)
{
	int r = macvtap_want(n->opts, w, e);

	*lock = -1;
	memset(nl, 0, sizeof(*nl));
	nl->fd = -1;
	if (r < 0)
		return r;
	if (!n->state || !journal_owner_ok(n->owner))
		return net_host->err(e, -EINVAL, "the host gave no folder for the journal, or the owner tag '%s'",
				     n->owner ? n->owner : "");
	r = told_nl(nl, e);
	if (r < 0)
		return r;
	*lock = told_lock(n->state, 1, e);
	return *lock < 0 ? *lock : 0;
}

static void end(struct nl *nl, int lock)
{
	nl_release(nl);
	if (lock >= 0)
		close(lock);
}

/* The host's interface becomes the network's, or is made as such. */
static int hold(struct nl *nl, const struct vh_network *n, const struct macvtap_want *w, const struct nl_link *up, const char *tmp,
		struct vh_err *e)
{
	struct nl_link l;
	int made, added, r = host_get(nl, w, up, n->owner, tmp, &l, &made, &added, e);

	if (r < 0 || made || !strcmp(l.alias, n->owner))
		return r;
	if (tag_network(l.alias)) {
		net_host->remedy(e, "stop that network first, or leave out host=on here");
		r = net_host->err(e, -EBUSY, "%s is held by another network (%s)", l.name, l.alias);
	} else {
		r = nl_link_alias(nl, l.ifindex, n->owner);
		if (!r)
			return 0;
		net_host->err(e, r, "cannot hold %s: %s", l.name, nl->text[0] ? nl->text : strerror(-r));
		nl_link_alias(nl, l.ifindex, l.alias); /* the answer may have been lost */
	}
	host_undo(nl, w, &l, 0, added);
	return r;
}

static int journal_network(const struct vh_network *n, const struct macvtap_want *w, const char *tmp, struct vh_err *e)
{
	char text[128];

	snprintf(text, sizeof(text), "macvlan %s %s\n", w->host ? tmp : "-", w->uplink);
	return told_write(n->state, n->owner, text, e);
}

struct started {
	const char *owner;
	int yes;
};

static void look_started(void *ctx, const char *owner, const char *text)
{
	struct started *s = ctx;

	s->yes |= !strcmp(owner, s->owner);
}

int network_start(const struct vh_network *n, struct vh_err *e)
{
	struct started s = { .owner = n->owner };
	struct macvtap_want w;
	struct nl_link up;
	char tmp[16];
	struct nl nl;
	int lock, r = begin(n, &w, &nl, &lock, e);

	if (!r)
		r = link_uplink(&nl, &w, &up, e);
	if (!r)
		journal_scan(n->state, look_started, &s);
	if (!r) {
		link_tmp_name(tmp);
		r = journal_network(n, &w, tmp, e);
	}
	if (!r && w.host) {
		r = hold(&nl, n, &w, &up, tmp, e);
		if (r < 0 && !s.yes)
			journal_remove(n->state, n->owner);
	}
	end(&nl, lock);
	return r;
}

int network_stop(const struct vh_network *n, struct vh_err *e)
{
	struct started started = { .owner = n->owner };
	struct links s = { 0 };
	struct macvtap_want w;
	struct nl_link host = { 0 };
	struct nl nl;
	int lock, r = begin(n, &w, &nl, &lock, e);

	if (r < 0)
		goto out;
	journal_scan(n->state, look_started, &started);
	if (nl_link_get(&nl, 0, w.host_name, &host) < 0 || strcmp(host.alias, n->owner))
		host.ifindex = 0;
	if (!started.yes && !host.ifindex)
		goto out;
	if (host.ifindex)
		s.uplink = host.link;
	r = each_port(&nl, n, &s);
	if (r < 0) {
		net_host->err(e, r, "cannot list the ports: %s", strerror(-r));
		goto out;
	}
	if (s.n) {
		net_host->remedy(e, "stop the VMs first; 'vhost net list' names them");
		r = net_host->err(e, -EBUSY, "%s%s%s has ports: %s%s", n->name, s.uplink ? " on " : "", s.uplink ? w.uplink : "", s.names,
				  s.n > 8 ? " ..." : "");
		goto out;
	}
	if (host.ifindex)
		r = nl_link_delete(&nl, host.ifindex, NULL);
	if (r == -ENODEV)
		r = 0;
	if (r < 0)
		net_host->err(e, r, "cannot remove %s: %s", host.name, nl.text[0] ? nl.text : strerror(-r));
	else
		journal_remove(n->state, n->owner);
out:
	end(&nl, lock);
	return r;
}

int network_plan(const struct vh_network *n, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	struct plan p = { fn, ctx };
	struct macvtap_want w;
	struct nl_link up, host;
	struct nl nl;
	int r = macvtap_want(n->opts, &w, e), have;

	if (r < 0)
		return r;
	r = told_nl(&nl, e);
	if (r < 0)
		return r;
	r = link_uplink(&nl, &w, &up, e);
	have = !r && !nl_link_get(&nl, 0, w.host_name, &host);
	nl_release(&nl);
	if (r < 0)
		return r;
	if (!w.host) {
		step(&p, "nothing to make: each port of %s makes its macvtap on %s in mode %s", n->name, up.name, macvtap_mode_name(w.mode));
		return 0;
	}
	step(&p, "%s macvlan %s on %s, the host's own interface there", have ? "keep" : "create", w.host_name, up.name);
	if (w.address.text)
		step(&p, "give %s the address %s", w.host_name, w.address.text);
	if (!have)
		step(&p, "set %s up", w.host_name);
	return 0;
}

int network_describe(const struct vh_network *n, vh_net_part_fn *fn, void *ctx, struct vh_err *e)
{
	struct links s = { .fn = fn, .ctx = ctx };
	struct macvtap_want w;
	struct nl_link up, host;
	struct nl nl;
	int r = macvtap_want(n->opts, &w, e);

	if (r < 0)
		return r;
	r = told_nl(&nl, e);
	if (r < 0)
		return r;
	/* What exists is told, also on an uplink that could not be used now. */
	if (!nl_link_get(&nl, 0, w.uplink, &up)) {
		tell_link(fn, ctx, "uplink", &up, NULL, NULL);
		if (w.host && !nl_link_get(&nl, 0, w.host_name, &host) && !strcmp(host.kind, "macvlan"))
			tell_link(fn, ctx, "macvlan", &host, w.uplink, "the host's own interface");
		s.uplink_name = w.uplink;
		r = n->state ? each_port(&nl, n, &s) : 0;
		if (r < 0)
			net_host->err(e, r, "cannot list the ports of %s: %s", n->name, strerror(-r));
	}
	nl_release(&nl);
	return r;
}
