/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A private network that the host does not know yet. */
#include "nat.h"
#include "hash.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netlink/netlink.h>
#include <netlink/route/route.h>
#include <stdio.h>
#include <string.h>

struct taken {
	uint32_t net, mask; /* of the candidate */
	int hit;
};

/* Addresses are routes of the table `local`, so this sees them too. */
static void look(struct nl_object *o, void *ctx)
{
	struct nl_addr *dst = rtnl_route_get_dst((struct rtnl_route *)o);
	struct taken *t = ctx;
	uint32_t net, mask;
	unsigned prefix;

	if (!dst || nl_addr_get_family(dst) != AF_INET || nl_addr_get_len(dst) != 4)
		return;
	prefix = nl_addr_get_prefixlen(dst);
	if (!prefix || prefix > 32)
		return;
	memcpy(&net, nl_addr_get_binary_addr(dst), 4);
	net = ntohl(net);
	mask = ~UINT32_C(0) << (32 - prefix);
	if (mask > t->mask)
		mask = t->mask;
	t->hit |= (net & mask) == (t->net & mask);
}

static int is_free(struct nl_cache *routes, uint32_t net)
{
	struct taken t = { net, ~UINT32_C(0) << 8, 0 };

	nl_cache_foreach(routes, look, &t);
	return !t.hit;
}

static uint32_t find(struct nl_cache *routes, const char *name)
{
	static const struct {
		uint32_t base, n; /* n networks of 256 addresses */
	} block[] = { { 0xc0a80000, 256 }, { 0xac100000, 4096 }, { 0x0a000000, 65536 } };
	uint64_t h = hash64(HASH64, name, strlen(name));

	h ^= h >> 32;
	for (unsigned b = 0; b < sizeof(block) / sizeof(block[0]); b++)
		for (uint32_t i = 0; i < block[b].n; i++) {
			uint32_t net = block[b].base + (uint32_t)((h + i) % block[b].n) * 256;

			if (is_free(routes, net))
				return net;
		}
	return 0;
}

int subnet_pick(const char *name, const char *last, char out[NAT_ADDR_TEXT], struct vh_err *e)
{
	struct nl_sock *sock = nl_socket_alloc();
	struct nl_cache *routes = NULL;
	unsigned a, b, c;
	char tail[2];
	uint32_t net = 0;
	int r = sock ? nl_connect(sock, NETLINK_ROUTE) : -NLE_NOMEM;

	if (!r)
		r = rtnl_route_alloc_cache(sock, AF_INET, 0, &routes);
	if (r < 0) {
		if (sock)
			nl_socket_free(sock);
		return net_host->err(e, -EIO, "cannot read the host's routes: %s", nl_geterror(r));
	}
	if (last && sscanf(last, "%u.%u.%u.1/24%1s", &a, &b, &c, tail) == 3 && a < 224 && b < 256 && c < 256)
		net = a << 24 | b << 16 | c << 8;
	if (!net || !is_free(routes, net))
		net = find(routes, name);
	nl_cache_free(routes);
	nl_socket_free(sock);
	if (!net) {
		net_host->remedy(e, "give one by address=");
		return net_host->err(e, -EADDRNOTAVAIL, "the host has routes into every private IPv4 network");
	}
	snprintf(out, NAT_ADDR_TEXT, "%u.%u.%u.1/24", net >> 24, net >> 16 & 255, net >> 8 & 255);
	return 0;
}
