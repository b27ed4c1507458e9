/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * host=on: a macvlan of the host's own on the uplink. The uplink itself and what is on it never hear each other; over this
 * interface the host and the guests do. All ports on the uplink share it, and the last one removes it.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "bridgedev.h"
#include "hash.h"
#include "macvtap.h"
#include "plugin.h"
#include "tag.h"

void host_derive_name(const char *uplink, char name[16])
{
	uint32_t h = hash32(HASH32, uplink, strlen(uplink));

	if (strlen(uplink) <= 12) {
		snprintf(name, 16, "mv-%.12s", uplink);
		return;
	}
	snprintf(name, 16, "mv-%.5s-%06x", uplink, h >> 8);
}

static void put_address(struct nl *nl, uint16_t type, const struct macvtap_want *w, int ifindex)
{
	nl_addr(nl, type, w->address.family, w->address.addr, w->address.prefix, ifindex);
}

static int find(struct nl *nl, const struct macvtap_want *w, const struct nl_link *up, struct nl_link *out, struct vh_err *e)
{
	int r = nl_link_get(nl, 0, w->host_name, out);

	if (r == -ENODEV)
		return 0;
	if (r < 0)
		return net_host->err(e, r, "cannot look for %s: %s", w->host_name, nl->text[0] ? nl->text : strerror(-r));
	if (!strcmp(out->kind, "macvlan") && out->link == up->ifindex && tag_ours(out->alias))
		return 1;
	net_host->remedy(e, "rename or remove it, or leave out host=on");
	return net_host->err(e, -EEXIST, "the host's interface on %s would be named %s, which exists already%s%s%s", up->name,
			     w->host_name, out->alias[0] ? " (" : "", out->alias, out->alias[0] ? ")" : "");
}

int host_get(struct nl *nl, const struct macvtap_want *w, const struct nl_link *up, const char *owner, const char *tmp,
	     struct nl_link *out, int *made, int *added, struct vh_err *e)
{
	struct link_want want = { .kind = "macvlan", .tmp = tmp, .name = w->host_name, .owner = owner, .mode = MACVLAN_MODE_BRIDGE };
	uint8_t mac[6];
	int r = find(nl, w, up, out, e);

	*made = *added = 0;
	if (r < 0)
		return r;
	if (!r) {
		bridgedev_mac(w->host_name, mac);
		want.mac = mac;
		r = link_make(nl, up, &want, out, e);
		if (r < 0)
			return r;
		*made = 1;
	}
	if (!w->address.family)
		return 0;
	put_address(nl, RTM_NEWADDR, w, out->ifindex);
	r = nl_commit(nl);
	*added = r != -EEXIST; /* also when its answer was lost */
	if (!r || r == -EEXIST)
		return 0;
	r = net_host->err(e, r, "cannot give %s the address %s: %s", w->host_name, w->address.text,
			  nl->text[0] ? nl->text : strerror(-r));
	host_undo(nl, w, out, *made, *added);
	*made = *added = 0;
	return r;
}

void host_undo(struct nl *nl, const struct macvtap_want *w, const struct nl_link *l, int made, int added)
{
	if (made) {
		nl_link_delete(nl, l->ifindex, NULL);
	} else if (added) {
		put_address(nl, RTM_DELADDR, w, l->ifindex);
		nl_commit(nl);
	}
}

struct users {
	int uplink;
	unsigned n;
};

static void count(void *ctx, const struct nl_link *l)
{
	struct users *u = ctx;

	u->n += l->link == u->uplink && !strcmp(l->kind, "macvtap") && tag_ours(l->alias);
}

int host_remove_unused(struct nl *nl, const char *name, const char *held)
{
	struct users u = { 0 };
	struct nl_link l;
	int r = nl_link_get(nl, 0, name, &l);

	if (r == -ENODEV)
		return 0;
	if (r < 0)
		return r;
	if (strcmp(l.kind, "macvlan") || !tag_removable(l.alias, held))
		return 0;
	u.uplink = l.link;
	for (int tries = 0; tries < 20; tries++) {
		u.n = 0;
		r = nl_link_dump(nl, 0, count, &u);
		if (r != -EAGAIN)
			break;
	}
	if (r < 0 || u.n)
		return r;
	r = nl_link_delete(nl, l.ifindex, NULL);
	return r < 0 ? r : 1;
}
