/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A network, made and removed. The bridge decides: while it is there and vhost's, the network is up; once it is gone, all that
 * belonged to it is swept up, by whoever removed it, or by the next who looks.
 */
#include "nat.h"

#include <errno.h>
#include <linux/if_link.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <vhost/sugar.h>

#include "fault.h"
#include "journal.h"
#include "tag.h"
#include "told.h"

static int is_up(const struct nl_link *l, const struct nat_record *r)
{
	return !strcmp(l->kind, "bridge") && tag_ours(l->alias) && (!r->ifindex || r->ifindex == l->ifindex);
}

int network_find(struct nl *nl, const char *state, struct nat_want *w, struct nl_link *br, struct vh_err *e)
{
	struct nat_record rec;
	int r = nl_link_get(nl, 0, w->bridge, br);

	if (r == -ENODEV)
		return 1;
	if (r < 0)
		return net_host->err(e, r, "cannot look for bridge %s: %s", w->bridge, nl->text[0] ? nl->text : strerror(-r));
	if (record_read(state, w->bridge, &rec) < 0 || !rec.ifindex || !is_up(br, &rec)) {
		net_host->remedy(e, "choose another bridge by name=, or see 'ip -d link show %s' and 'vhost net gc'", w->bridge);
		return net_host->err(e, -EEXIST, "an interface %s exists already, and is no network of this kind", w->bridge);
	}
	if (rec.options != w->options) {
		net_host->remedy(e, "give the same options to all, or choose another bridge by name=");
		return net_host->err(e, -EBUSY, "the network on bridge %s runs with other options", w->bridge);
	}
	return w->pick ? want_address(w, rec.address, e) : 0;
}

static int pick(const char *state, struct nat_want *w, struct vh_err *e)
{
	char last[NAT_ADDR_TEXT], text[NAT_ADDR_TEXT];
	const char *name = w->network ? w->network : w->bridge;
	int r;

	if (!w->pick)
		return 0;
	r = record_get(state, "address", w->bridge, last, sizeof(last));
	last[strcspn(last, "\n")] = '\0';
	r = subnet_pick(name, r < 0 ? NULL : last, text, e);
	if (!r)
		r = want_address(w, text, e);
	return r < 0 ? r : want_check(w, e);
}

static int write_records(const char *state, const struct nat_want *w, int ifindex, struct vh_err *e)
{
	struct nat_record rec = { .options = w->options, .nat = w->nat, .keep = w->network != NULL, .ifindex = ifindex };
	int r = 0;

	snprintf(rec.address, sizeof(rec.address), "%s", w->text4);
	if (!ifindex && rec.keep && w->a4.family)
		r = record_put(state, "address", w->bridge, w->text4);
	if (!r)
		r = record_write(state, w->bridge, &rec);
	return r < 0 ? net_host->err(e, r, "cannot write the record of %s in %s: %s", w->bridge, state, strerror(-r)) : 0;
}

static int make(struct nl *nl, const char *state, struct nat_want *w, const char *owner, uint16_t mtu, const char *tmp,
		struct nl_link *br, struct vh_err *e)
{
	struct bridgedev_want dev = { .owner = owner, .mtu = mtu, .address = w->a4 };
	int added, r;

	memcpy(dev.name, w->bridge, sizeof(dev.name));
	r = write_records(state, w, 0, e);
	if (!r)
		r = bridgedev_make(nl, &dev, tmp, br, e);
	if (r < 0)
		return r;
	if (!br->mtu)
		br->mtu = mtu ? mtu : 1500;
	r = sysctl_bridge(w, e);
	if (!r && w->a6.family) {
		dev.address = w->a6;
		r = bridgedev_add_address(nl, &dev, br->ifindex, &added, e);
	}
	return r < 0 ? r : write_records(state, w, br->ifindex, e);
}

static void warn(void *ctx, const char *text)
{
	const struct vh_log_ops *log = vh_service(net_host, VH_SVC_LOG, sizeof(*log));
	const struct nat_want *w = ctx;

	if (log)
		log->log(VH_LOG_WARN, "nat.firewall", "network on %s: %s", w->bridge, text);
}

int network_up(struct nl *nl, const char *state, struct nat_want *w, const char *owner, uint16_t mtu, const char *tap,
	       struct nl_link *br, int *made, struct vh_err *e)
{
	char tmp[16] = "", text[128];
	const char *program;
	int r;

	*made = 0;
	network_sweep(nl, state, NULL, NULL);
	r = network_find(nl, state, w, br, e);
	if (r > 0) {
		r = service_wanted(w) ? service_find(e, &program) : 0;
		if (!r)
			r = pick(state, w, e);
		bridgedev_tmp_name(tmp);
	}
	if (r < 0)
		return r;
	snprintf(text, sizeof(text), "nat %s %s\ntap %s\n", tmp[0] ? tmp : "-", w->bridge, tap ? tap : "-");
	r = told_write(state, owner, text, e);
	if (r < 0)
		return r;
	if (tmp[0]) {
		*made = 1;
		r = make(nl, state, w, owner, mtu, tmp, br, e);
	}
	/* Each time, for somebody may have flushed the ruleset. */
	if (!r)
		r = table_put(w, tmp[0] ? owner : br->alias, e);
	if (!r)
		r = sysctl_forward(state, w, e);
	if (!r)
		r = service_start(state, w, br->ifindex, e);
	if (!r) {
		table_obstacles(w, warn, w);
		return 0;
	}
	if (*made && br->ifindex)
		nl_link_delete(nl, br->ifindex, NULL);
	if (*made)
		network_sweep(nl, state, NULL, NULL);
	journal_remove(state, owner);
	return r;
}

struct sweep {
	struct nl *nl;
	const char *state;
	vh_net_gc_fn *fn;
	void *ctx;
	unsigned nat; /* networks that are up and forward */
	int result;
};

static void swept(const struct sweep *s, const char *what, const char *name, int r)
{
	char object[64];

	snprintf(object, sizeof(object), "%s%s", what, name);
	if (s->fn && r)
		s->fn(s->ctx, object, "-", r < 0 ? r : 0);
}

static void sweep_one(void *ctx, const char *bridge)
{
	struct sweep *s = ctx;
	struct nat_record rec;
	struct nl_link l;
	int r;

	record_read(s->state, bridge, &rec); /* one that cannot be read is of a network that never got so far */
	r = nl_link_get(s->nl, 0, bridge, &l);
	if ((r < 0 && r != -ENODEV) || (!r && is_up(&l, &rec))) {
		s->nat += rec.nat || r < 0;
		return;
	}
	r = service_end(s->state, bridge);
	swept(s, "dnsmasq of ", bridge, r);
	if (r >= 0) {
		r = table_remove(bridge);
		swept(s, "table vhost_", bridge, r);
	}
	if (r < 0) {
		s->result = r;
		s->nat += rec.nat;
		return;
	}
	if (!rec.keep)
		record_drop(s->state, "leases", bridge);
	record_drop(s->state, "up", bridge);
}

int network_sweep(struct nl *nl, const char *state, vh_net_gc_fn *fn, void *ctx)
{
	struct sweep s = { .nl = nl, .state = state, .fn = fn, .ctx = ctx };
	int r = record_scan(state, sweep_one, &s);

	if (r < 0)
		return r;
	if (!s.nat) {
		r = sysctl_restore(state);
		swept(&s, "forwarding", "", r);
	}
	return s.result ? s.result : r < 0 ? r : 0;
}
