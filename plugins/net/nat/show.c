/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What would be made, and what is there. Nothing is changed, and no lock is taken. */
#include "nat.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <vhost/sugar.h>

#include "brport.h"
#include "journal.h"
#include "step.h"
#include "tag.h"
#include "told.h"

static void say(void *ctx, const char *text)
{
	step(ctx, "%s", text);
}

static void say_obstacle(void *ctx, const char *text)
{
	step(ctx, "beware: %s", text);
}

static void service_text(const struct nat_want *w, char *out, size_t cap)
{
	char first[INET_ADDRSTRLEN], last[INET_ADDRSTRLEN];
	struct in_addr in;
	uint32_t a, b;
	size_t n = 0;

	out[0] = '\0';
	if (w->dhcp && w->a4.family) {
		want_range4(w, &a, &b);
		in.s_addr = htonl(a);
		inet_ntop(AF_INET, &in, first, sizeof(first));
		in.s_addr = htonl(b);
		inet_ntop(AF_INET, &in, last, sizeof(last));
		n += (size_t)snprintf(out + n, cap - n, "DHCP %s to %s", first, last);
	}
	if (w->dhcp && w->a6.family)
		n += (size_t)snprintf(out + n, cap - n, "%srouter advertisements and DHCPv6", n ? ", " : "");
	if (w->dns)
		snprintf(out + n, cap - n, "%sDNS", n ? ", " : "");
}

static void plan_network(const struct plan *p, const struct nat_want *w, uint16_t mtu)
{
	char text[160];
	uint8_t mac[6];

	bridgedev_mac(w->bridge, mac);
	step(p, "create bridge %s, MAC %02x:%02x:%02x:%02x:%02x:%02x, MTU %u, without STP", w->bridge, mac[0], mac[1], mac[2],
	     mac[3], mac[4], mac[5], mtu ? mtu : 1500);
	if (w->a4.family)
		step(p, "give bridge %s the address %s", w->bridge, w->text4);
	if (w->a6.family)
		step(p, "give bridge %s the address %s", w->bridge, w->text6);
	else
		step(p, "no IPv6 on bridge %s", w->bridge);
	step(p, "set bridge %s up", w->bridge);
	step(p, "table inet vhost_%s: %s", w->bridge, w->nat ? "masquerade what leaves, let in only answers and forwards" :
	     "drop whatever would be forwarded from or to the bridge");
	sysctl_plan(w, say, (void *)p);
	service_text(w, text, sizeof(text));
	if (service_wanted(w))
		step(p, "start dnsmasq: %s", text);
}

static int plan(const struct plan *p, const char *state, struct nat_want *w, uint16_t mtu, struct vh_err *e)
{
	char last[NAT_ADDR_TEXT], text[NAT_ADDR_TEXT];
	const char *program;
	struct nl_link br;
	struct nl nl;
	int r = told_nl(&nl, e);

	if (r < 0)
		return r;
	r = network_find(&nl, state, w, &br, e);
	nl_release(&nl);
	if (r <= 0)
		return r;
	r = service_wanted(w) ? service_find(e, &program) : 0;
	if (!r && w->pick) {
		r = record_get(state, "address", w->bridge, last, sizeof(last));
		r = subnet_pick(w->network ? w->network : w->bridge, r < 0 ? NULL : last, text, e);
		if (!r)
			r = want_address(w, text, e);
		if (!r)
			r = want_check(w, e);
	}
	if (r < 0)
		return r;
	plan_network(p, w, mtu);
	table_obstacles(w, say_obstacle, (void *)p);
	return 0;
}

int nat_plan(const struct vh_net_open *o, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	struct plan p = { fn, ctx };
	struct nat_want w;
	uint8_t mac[6];
	int r = want_parse(&w, o->opts, o->network, o->kind, e);

	if (!r && !o->state)
		r = net_host->err(e, -EINVAL, "the host gave no folder for the journal");
	if (!r)
		r = plan(&p, o->state, &w, o->mtu, e);
	if (r < 0)
		return r;
	brport_mac(o->mac, mac);
	step(&p, "create tap %s, %u queue pair%s, MAC %02x:%02x:%02x:%02x:%02x:%02x", o->ifname ? o->ifname : "vnetN", o->pairs,
	     o->pairs == 1 ? "" : "s", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
	step(&p, "attach it to bridge %s%s", w.bridge, w.port_isolated ? ", isolated from other isolated ports" : "");
	step(&p, "set it up");
	return 0;
}

int nat_plan_start(const struct vh_network *n, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	struct plan p = { fn, ctx };
	struct nat_want w;
	int r = want_parse(&w, n->opts, n->name, n->kind, e);

	if (!r && !n->state)
		r = net_host->err(e, -EINVAL, "the host gave no folder for the journal");
	return r < 0 ? r : plan(&p, n->state, &w, 0, e);
}

struct show {
	vh_net_part_fn *fn;
	void *ctx;
	const struct nl_link *br;
};

static void link_part(const struct show *s, const struct nl_link *l, const char *kind, const char *above, const char *detail)
{
	struct vh_net_part part = { .size = sizeof(part), .ifindex = (uint32_t)l->ifindex, .kind = kind, .name = l->name, .above = above,
				    .owner = l->alias[0] ? l->alias : NULL, .detail = detail, .mtu = l->mtu, .up = (l->flags & IFF_UP) != 0 };

	memcpy(part.mac, l->mac, sizeof(part.mac));
	s->fn(s->ctx, &part);
}

static void show_port(void *ctx, const struct nl_link *l)
{
	const struct show *s = ctx;

	if (l->master == s->br->ifindex)
		link_part(s, l, "port", s->br->name, NULL);
}

static void show_service(const struct show *s, const char *name, const char *detail, int up)
{
	struct vh_net_part part = { .size = sizeof(part), .kind = "service", .name = name, .above = s->br->name, .detail = detail,
				    .up = up != 0 };

	s->fn(s->ctx, &part);
}

static void show(struct nl *nl, const char *state, const struct nat_want *w, const struct show *s)
{
	char text[200], name[32];

	snprintf(text, sizeof(text), "%s%s%s%s%s", w->nat ? "nat" : "isolated", w->a4.family ? " " : "", w->text4, w->a6.family ? " " : "",
		 w->text6);
	link_part(s, s->br, "bridge", NULL, text);
	snprintf(name, sizeof(name), "nft vhost_%s", w->bridge);
	show_service(s, name, w->nat ? "masquerade" : "drop", table_exists(w->bridge));
	if (service_wanted(w)) {
		int pid = service_pid(state, w->bridge);

		service_text(w, text, sizeof(text));
		show_service(s, "dnsmasq", text, pid);
	}
	for (int tries = 0; tries < 20; tries++)
		if (nl_link_dump(nl, s->br->ifindex, show_port, (void *)s) != -EAGAIN)
			break;
}

int nat_describe(const struct vh_network *n, vh_net_part_fn *fn, void *ctx, struct vh_err *e)
{
	struct nat_want w;
	struct nl_link br;
	struct show s = { fn, ctx, &br };
	struct nl nl;
	int r = want_parse(&w, n->opts, n->name, n->kind, e);

	if (!r && !n->state)
		r = net_host->err(e, -EINVAL, "the host gave no folder for the journal");
	if (r < 0)
		return r;
	r = told_nl(&nl, e);
	if (r < 0)
		return r;
	r = network_find(&nl, n->state, &w, &br, e);
	if (!r)
		show(&nl, n->state, &w, &s);
	nl_release(&nl);
	return r < 0 ? r : 0;
}
