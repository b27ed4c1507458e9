/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Networks that are held, and told of. A bridge with a network's tag stays when its last port goes. The bridge of mode=filter may
 * be held by several networks: each one's journal has a line "hold IFINDEX", and the tag is one of theirs.
 */
#include <errno.h>
#include <linux/if_ether.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "journal.h"
#include "plugin.h"
#include "tag.h"
#include "vlan.h"
#include "told.h"

struct holds {
	int bridge, own;
	const char *owner;
	char other[256];
};

static void on_entry(void *ctx, const char *owner, const char *text)
{
	const char *p = strstr(text, "\nhold ");
	struct holds *h = ctx;

	if (strncmp(text, "vlan ", 5) || !p || atoi(p + 6) != h->bridge)
		return;
	if (!strcmp(owner, h->owner))
		h->own = 1;
	else
		snprintf(h->other, sizeof(h->other), "%s", owner);
}

static int look_for_holds(const struct vh_network *n, int bridge, struct holds *h, struct vh_err *e)
{
	int r;

	memset(h, 0, sizeof(*h));
	h->bridge = bridge;
	h->owner = n->owner;
	r = journal_scan(n->state, on_entry, h);
	return r < 0 ? net_host->err(e, r, "cannot read the journals in %s: %s", n->state, strerror(-r)) : 0;
}

static int write_hold(const struct vh_network *n, const char *tmp_bridge, const char *tmp_dev, int bridge, struct vh_err *e)
{
	char text[96];
	int k = snprintf(text, sizeof(text), "vlan %s %s\n", tmp_bridge, tmp_dev);

	if (bridge)
		snprintf(text + k, sizeof(text) - (size_t)k, "hold %d\n", bridge);
	return told_write(n->state, n->owner, text, e);
}

/* Both at once. */
static int set_tag(struct nl *nl, const struct vlan_shared *s, const char *tag)
{
	nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, s->bridge.ifindex, NULL, -1);
	nl_put_str(nl, IFLA_IFALIAS, tag);
	if (s->dev.ifindex) {
		nl_link_begin(nl, RTM_SETLINK, 0, AF_UNSPEC, s->dev.ifindex, NULL, -1);
		nl_put_str(nl, IFLA_IFALIAS, tag);
	}
	return nl_commit(nl);
}

static int begin(const struct vh_network *n, struct vlan_want *w, struct nl *nl, int *lock, struct vlan_shared *s, struct vh_err *e)
{
	int r = vlan_want(n->opts, NULL, w, e);

	*lock = -1;
	memset(nl, 0, sizeof(*nl));
	nl->fd = -1;
	if (r < 0)
		return r;
	w->owner = n->owner;
	if (w->id)
		vlan_add(&w->ids, w->id);
	r = told_nl(nl, e);
	if (r < 0)
		return r;
	if (n->owner) {
		if (!n->state || !journal_owner_ok(n->owner) || !tag_network(n->owner))
			return net_host->err(e, -EINVAL, "the host gave the owner tag '%s'", n->owner);
		*lock = told_lock(n->state, 1, e);
		if (*lock < 0)
			return *lock;
	}
	return shared_find(nl, w, s, e);
}

static void end(struct nl *nl, int lock)
{
	if (lock >= 0)
		close(lock);
	nl_release(nl);
}

int vlan_start(const struct vh_network *n, struct vh_err *e)
{
	char tmp_bridge[16], tmp_dev[16];
	struct holds h = { 0 };
	struct vlan_shared s;
	struct vlan_want w;
	int lock, made = 0, r;
	struct nl nl;

	if (!n->owner)
		return net_host->err(e, -EINVAL, "the host gave no owner tag");
	r = begin(n, &w, &nl, &lock, &s, e);
	if (!r)
		r = shared_check(&nl, &w, &s, e);
	if (!r && s.bridge.ifindex)
		r = look_for_holds(n, s.bridge.ifindex, &h, e);
	if (r < 0)
		goto out;
	bridgedev_tmp_name(tmp_bridge);
	bridgedev_tmp_name(tmp_dev);
	if (!h.own)
		r = write_hold(n, tmp_bridge, tmp_dev, s.bridge.ifindex, e);
	if (r < 0)
		goto out;
	r = shared_make(&nl, &w, tmp_bridge, tmp_dev, &s, &made, e);
	if (!r && !h.bridge) /* made just now */
		r = write_hold(n, tmp_bridge, tmp_dev, s.bridge.ifindex, e);
	else if (!r && !tag_network(s.bridge.alias))
		r = set_tag(&nl, &s, n->owner);
	if (r < 0 && h.bridge && !made)
		vlan_netlink_error(&nl, r, "hold bridge", s.bridge.name, e);
	if (r < 0 && !h.own) {
		/* A tag may have been set whose answer was lost: back to what it was. */
		if (h.bridge)
			set_tag(&nl, &s, s.bridge.alias);
		else
			shared_drop(&nl, &w, n->owner);
		journal_remove(n->state, n->owner);
	}
out:
	end(&nl, lock);
	return r;
}

/* ---- the ports of a network ---- */

struct ports {
	const struct vlan_want *w;
	const struct vlan_shared *s;
	struct nl_link *link;
	struct brvlan_port *vlans;
	unsigned n, cap, n_vlans, cap_vlans;
	int no_memory;
};

static void *grow(void *v, unsigned n, unsigned *cap, size_t size, int *no_memory)
{
	void *bigger;

	if (n < *cap)
		return v;
	bigger = realloc(v, (*cap ? 2 * *cap : 32) * size);
	if (!bigger) {
		*no_memory = 1;
		return v;
	}
	*cap = *cap ? 2 * *cap : 32;
	return bigger;
}

static void add_link(void *ctx, const struct nl_link *l)
{
	struct ports *p = ctx;

	if (!shared_is_user(p->w, p->s, l))
		return;
	p->link = grow(p->link, p->n, &p->cap, sizeof(*p->link), &p->no_memory);
	if (p->n < p->cap)
		p->link[p->n++] = *l;
}

static void add_vlans(void *ctx, const struct brvlan_port *v)
{
	struct ports *p = ctx;

	p->vlans = grow(p->vlans, p->n_vlans, &p->cap_vlans, sizeof(*p->vlans), &p->no_memory);
	if (p->n_vlans < p->cap_vlans)
		p->vlans[p->n_vlans++] = *v;
}

static int list_ports(struct nl *nl, struct ports *p, struct vh_err *e)
{
	int r = 0;

	for (int tries = 0; p->s->bridge.ifindex && tries < 20; tries++) {
		p->n = p->n_vlans = 0;
		r = nl_link_dump(nl, p->s->bridge.ifindex, add_link, p);
		if (!r && p->w->filter)
			r = brvlan_dump(nl, p->s->bridge.ifindex, add_vlans, p);
		if (r != -EAGAIN)
			break;
	}
	if (!r && p->no_memory)
		r = -ENOMEM;
	return r < 0 ? vlan_netlink_error(nl, r, "list the ports of", p->s->bridge.name, e) : 0;
}

static const struct brvlan_port *vlans_of(const struct ports *p, int ifindex)
{
	for (unsigned i = 0; i < p->n_vlans; i++)
		if (p->vlans[i].ifindex == ifindex)
			return &p->vlans[i];
	return NULL;
}

/* Whether a port of the bridge is one of this network: of its VLAN, or of a bridge of all VLANs any. */
static int in_network(const struct ports *p, const struct nl_link *l)
{
	const struct brvlan_port *v = vlans_of(p, l->ifindex);

	return !p->w->filter || !p->w->id || (v && v->pvid == p->w->id);
}

static int refuse_busy(const struct ports *p, struct vh_err *e)
{
	char text[160] = "";
	size_t at = 0;

	for (unsigned i = 0; i < p->n; i++) {
		const struct nl_link *l = &p->link[i];
		int len = tag_ours(l->alias) ? (int)strcspn(l->alias + 6, ":") : 0;

		if (!in_network(p, l))
			continue;
		if (at + 90 > sizeof(text)) {
			at += (size_t)snprintf(text + at, sizeof(text) - at, " ...");
			break;
		}
		at += (size_t)snprintf(text + at, sizeof(text) - at, "%s%s%s%.*s", at ? ", " : "", l->name, len ? " of " : "", len > 63 ? 63 : len,
				       l->alias + 6);
	}
	if (!at)
		return 0;
	net_host->remedy(e, "stop what uses them first");
	return net_host->err(e, -EBUSY, "it has ports: %s", text);
}

int vlan_stop(const struct vh_network *n, struct vh_err *e)
{
	struct ports p = { 0 };
	struct vlan_shared s;
	const char *heir = NULL;
	struct vlan_want w;
	struct holds h;
	int lock, r;
	struct nl nl;

	if (!n->owner)
		return net_host->err(e, -EINVAL, "the host gave no owner tag");
	r = begin(n, &w, &nl, &lock, &s, e);
	if (!r)
		r = look_for_holds(n, s.bridge.ifindex, &h, e);
	if (r < 0)
		goto out;
	p.w = &w;
	p.s = &s;
	if (s.bridge.ifindex && (h.own || !strcmp(s.bridge.alias, n->owner))) {
		r = list_ports(&nl, &p, e);
		if (!r)
			r = refuse_busy(&p, e);
		/* Another network's, or the ports' of other VLANs: the last of them removes it. */
		if (h.other[0])
			heir = h.other;
		for (unsigned i = 0; i < p.n && !heir; i++)
			if (tag_ours(p.link[i].alias))
				heir = p.link[i].alias;
		if (!r && heir && !strcmp(s.bridge.alias, n->owner)) {
			r = set_tag(&nl, &s, heir);
			if (r < 0)
				vlan_netlink_error(&nl, r, "hand over bridge", s.bridge.name, e);
		}
	}
	if (!r && !heir) {
		r = shared_drop(&nl, &w, n->owner);
		if (r < 0)
			vlan_netlink_error(&nl, r, "remove what was made for", w.uplink, e);
	}
	if (r >= 0)
		r = journal_remove(n->state, n->owner);
out:
	free(p.link);
	free(p.vlans);
	end(&nl, lock);
	return r;
}

int vlan_plan_start(const struct vh_network *n, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	struct vh_network quiet = *n;
	struct plan p = { fn, ctx };
	struct vlan_shared s;
	struct vlan_want w;
	struct nl nl;
	int lock, r;

	quiet.owner = NULL;
	r = begin(&quiet, &w, &nl, &lock, &s, e);
	if (!r)
		r = shared_check(&nl, &w, &s, e);
	if (!r)
		shared_plan(&p, &w, &s);
	end(&nl, lock);
	return r;
}

/* ---- describe ---- */

static void tell(vh_net_part_fn *fn, void *ctx, const struct nl_link *l, const char *kind, const char *above, const char *detail)
{
	struct vh_net_part part = { .size = sizeof(part), .ifindex = (uint32_t)l->ifindex, .kind = kind, .name = l->name, .above = above,
				    .owner = tag_ours(l->alias) ? l->alias : NULL, .detail = detail, .mtu = l->mtu,
				    .up = (l->flags & IFF_UP) != 0 };

	memcpy(part.mac, l->mac, sizeof(part.mac));
	fn(ctx, &part);
}

static const char *port_vlans(const struct ports *p, const struct nl_link *l, char *out, size_t cap)
{
	const struct brvlan_port *v = vlans_of(p, l->ifindex);
	struct vlan_set tagged;
	char ids[120];

	if (!p->w->filter) {
		snprintf(out, cap, "VLAN %u untagged", p->w->id);
		return out;
	}
	if (!v)
		return NULL;
	for (unsigned i = 0; i < 64; i++)
		tagged.w[i] = v->all.w[i] & ~v->untagged.w[i];
	vlan_text(&tagged, ids, sizeof(ids));
	out[0] = '\0';
	if (v->pvid)
		snprintf(out, cap, "VLAN %u untagged", v->pvid);
	if (ids[0])
		snprintf(out + strlen(out), cap - strlen(out), "%sVLAN %s tagged", out[0] ? ", " : "", ids);
	return out[0] ? out : "no VLAN";
}

int vlan_describe(const struct vh_network *n, vh_net_part_fn *fn, void *ctx, struct vh_err *e)
{
	struct vh_network quiet = *n;
	struct ports p = { 0 };
	struct vlan_shared s;
	struct vlan_want w;
	char text[180];
	struct nl nl;
	int lock, r;

	quiet.owner = NULL;
	r = begin(&quiet, &w, &nl, &lock, &s, e);
	p.w = &w;
	p.s = &s;
	if (!r)
		r = list_ports(&nl, &p, e);
	if (r < 0)
		goto out;
	if (s.uplink.ifindex)
		tell(fn, ctx, &s.uplink, "uplink", NULL, w.filter && s.bridge.ifindex && s.uplink.master == s.bridge.ifindex ?
		     port_vlans(&p, &s.uplink, text, sizeof(text)) : NULL);
	if (s.dev.ifindex) {
		snprintf(text, sizeof(text), "%s %u", w.proto == ETH_P_8021AD ? "service VLAN" : "VLAN", w.id);
		tell(fn, ctx, &s.dev, "vlan", s.uplink.ifindex ? s.uplink.name : NULL, text);
	}
	if (s.bridge.ifindex)
		tell(fn, ctx, &s.bridge, "bridge", s.dev.ifindex && s.dev.master == s.bridge.ifindex ? s.dev.name :
		     w.filter && s.uplink.ifindex && s.uplink.master == s.bridge.ifindex ? s.uplink.name : NULL,
		     w.filter ? "filters VLANs" : NULL);
	for (unsigned i = 0; i < p.n; i++)
		if (in_network(&p, &p.link[i]))
			tell(fn, ctx, &p.link[i], "port", s.bridge.name, port_vlans(&p, &p.link[i], text, sizeof(text)));
out:
	free(p.link);
	free(p.vlans);
	end(&nl, lock);
	return r;
}
