/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "nat.h"
#include "hash.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/sugar.h>

static int name_ok(const char *s, size_t max, const char *also)
{
	size_t n = strlen(s);

	if (!n || n > max || !isalnum((unsigned char)s[0]))
		return 0;
	for (size_t i = 0; i < n; i++)
		if (!isalnum((unsigned char)s[i]) && !strchr(also, s[i]))
			return 0;
	return 1;
}

/* It becomes part of a ruleset, a configuration and file names: narrower than what the kernel takes. */
int want_bridge_ok(const char *name)
{
	return name_ok(name, 15, "._-");
}

static int bridge_name(struct nat_want *w, const char *given, struct vh_err *e)
{
	const char *net = w->network;

	if (given || !net) {
		if (!given)
			given = w->nat ? "vhnat" : "vhisolated";
		if (!want_bridge_ok(given)) {
			net_host->remedy(e, "use at most 15 letters, digits, '-', '_' and '.'");
			return net_host->err(e, -EINVAL, "'%s' cannot be the name of a bridge", given);
		}
		snprintf(w->bridge, sizeof(w->bridge), "%s", given);
		return 0;
	}
	if (!name_ok(net, 63, "._-"))
		return net_host->err(e, -EINVAL, "'%s' cannot be the name of a network", net);
	if (strlen(net) <= 12)
		snprintf(w->bridge, sizeof(w->bridge), "br-%s", net);
	else
		snprintf(w->bridge, sizeof(w->bridge), "br-%.6s%06x", net,
			 (unsigned)(hash64(HASH64, net, strlen(net)) & 0xffffff));
	return 0;
}

static int in_net(const struct ip_prefix *p, int family, const uint8_t *addr)
{
	unsigned full = p->prefix / 8, rest = p->prefix % 8;

	if (p->family != family || memcmp(p->addr, addr, full))
		return 0;
	return !rest || !((p->addr[full] ^ addr[full]) >> (8 - rest));
}

static uint32_t addr4(const struct ip_prefix *p)
{
	return (uint32_t)p->addr[0] << 24 | (uint32_t)p->addr[1] << 16 | (uint32_t)p->addr[2] << 8 | p->addr[3];
}

static uint32_t mask4(const struct ip_prefix *p)
{
	return p->prefix ? ~UINT32_C(0) << (32 - p->prefix) : 0;
}

/* All of the network on that side of the host's own address where there is more of it. */
void want_range4(const struct nat_want *w, uint32_t *first, uint32_t *last)
{
	uint32_t host = addr4(&w->a4), net = host & mask4(&w->a4), broadcast = net | ~mask4(&w->a4);

	*first = w->first;
	*last = w->last;
	if (*first)
		return;
	if (host - net > broadcast - host) {
		*first = net + 1;
		*last = host - 1;
	} else {
		*first = host + 1;
		*last = broadcast - 1;
	}
}

static void net_text(const struct ip_prefix *p, char out[NAT_ADDR_TEXT])
{
	char text[INET6_ADDRSTRLEN];
	uint8_t addr[16] = { 0 };

	for (unsigned i = 0; i < p->prefix; i++)
		addr[i / 8] |= p->addr[i / 8] & (uint8_t)(0x80 >> (i % 8));
	inet_ntop(p->family, addr, text, sizeof(text));
	snprintf(out, NAT_ADDR_TEXT, "%s/%u", text, p->prefix);
}

void want_net4(const struct nat_want *w, char out[NAT_ADDR_TEXT])
{
	net_text(&w->a4, out);
}

void want_net6(const struct nat_want *w, char out[NAT_ADDR_TEXT])
{
	net_text(&w->a6, out);
}

static int take(struct ip_prefix *p, char *keep, const char *text, int family, struct vh_err *e)
{
	uint32_t host;
	int r = ip_prefix_parse(text, p, e);

	if (r < 0)
		return r;
	if (p->family != family) {
		net_host->remedy(e, "IPv4 addresses are for address=, IPv6 ones for address6=");
		return net_host->err(e, -EINVAL, "'%s' is of the other kind of address", text);
	}
	host = family == AF_INET ? addr4(p) & ~mask4(p) : 0;
	if (family == AF_INET && (p->prefix < 8 || p->prefix > 30 || !host || host == ~mask4(p) || p->addr[0] == 127 ||
				  p->addr[0] >= 224)) {
		net_host->remedy(e, "take an address between the network's own and its broadcast address, /8 to /30");
		return net_host->err(e, -EINVAL, "'%s' cannot be the address of the host in a network", text);
	}
	if (family == AF_INET6 && (p->prefix > 126 || p->addr[0] == 0xff || (p->addr[0] == 0xfe && (p->addr[1] & 0xc0) == 0x80))) {
		net_host->remedy(e, "take one like fd12:3456:789a::1/64");
		return net_host->err(e, -EINVAL, "'%s' cannot be the address of the host in a network", text);
	}
	if (strlen(text) >= NAT_ADDR_TEXT)
		return net_host->err(e, -EINVAL, "'%s' is too long", text);
	strcpy(keep, text);
	p->text = keep;
	return 0;
}

int want_address(struct nat_want *w, const char *text, struct vh_err *e)
{
	int r = take(&w->a4, w->text4, text, AF_INET, e);

	if (!r)
		w->pick = 0;
	return r;
}

static int parse_range(struct nat_want *w, const char *s, struct vh_err *e)
{
	const char *dash = strchr(s, '-');
	char first[INET_ADDRSTRLEN];
	struct in_addr a, b;

	if (dash && (size_t)(dash - s) < sizeof(first)) {
		memcpy(first, s, (size_t)(dash - s));
		first[dash - s] = '\0';
		if (inet_pton(AF_INET, first, &a) == 1 && inet_pton(AF_INET, dash + 1, &b) == 1 && ntohl(a.s_addr) <= ntohl(b.s_addr) &&
		    a.s_addr) {
			w->first = ntohl(a.s_addr);
			w->last = ntohl(b.s_addr);
			return 0;
		}
	}
	net_host->remedy(e, "write it like 192.168.77.100-192.168.77.199");
	return net_host->err(e, -EINVAL, "dhcp-range '%s' is not two IPv4 addresses", s);
}

static int number(const char *s, size_t n, unsigned max)
{
	unsigned v = 0;

	if (!n || n > 5)
		return -EINVAL;
	for (size_t i = 0; i < n; i++) {
		if (!isdigit((unsigned char)s[i]))
			return -EINVAL;
		v = 10 * v + (unsigned)(s[i] - '0');
	}
	return v && v <= max ? (int)v : -EINVAL;
}

static int address(const char *s, size_t n, char out[INET6_ADDRSTRLEN])
{
	uint8_t bin[16];
	int family;

	if (!n || n >= INET6_ADDRSTRLEN)
		return 0;
	memcpy(out, s, n);
	out[n] = '\0';
	family = strchr(out, ':') ? AF_INET6 : AF_INET;
	if (inet_pton(family, out, bin) != 1)
		return 0;
	inet_ntop(family, bin, out, INET6_ADDRSTRLEN);
	return family;
}

/* MAC=IP[=NAME] */
int want_host(const char *s, struct nat_host *h)
{
	const char *ip, *end;
	unsigned v[6];
	int used = 0;

	memset(h, 0, sizeof(*h));
	for (int i = 0; i < 17; i++)
		if (i % 3 == 2 ? s[i] != ':' : !isxdigit((unsigned char)s[i]))
			return -EINVAL;
	if (sscanf(s, "%2x:%2x:%2x:%2x:%2x:%2x%n", &v[0], &v[1], &v[2], &v[3], &v[4], &v[5], &used) != 6 || used != 17 || s[17] != '=')
		return -EINVAL;
	for (int i = 0; i < 6; i++)
		h->mac[i] = (uint8_t)v[i];
	ip = s + 18;
	end = strchrnul(ip, '=');
	h->family = address(ip, (size_t)(end - ip), h->addr);
	if (!h->family)
		return -EINVAL;
	if (*end) {
		if (!name_ok(end + 1, 63, "-"))
			return -EINVAL;
		strcpy(h->name, end + 1);
	}
	return 0;
}

/* tcp:8080:192.168.77.10:80, or tcp:8080:[fd00::10]:80 */
int want_forward(const char *s, struct nat_forward *f)
{
	const char *port = strchr(s, ':'), *addr = port ? strchr(port + 1, ':') : NULL, *to, *end;
	int r;

	memset(f, 0, sizeof(*f));
	if (!addr)
		return -EINVAL;
	if (!strncmp(s, "tcp:", 4))
		f->proto = "tcp";
	else if (!strncmp(s, "udp:", 4))
		f->proto = "udp";
	else
		return -EINVAL;
	r = number(port + 1, (size_t)(addr - port - 1), 65535);
	if (r < 0)
		return r;
	f->port = (unsigned)r;
	addr++;
	to = strrchr(addr, ':');
	if (!to)
		return -EINVAL;
	end = to;
	r = number(to + 1, strlen(to + 1), 65535);
	if (r < 0)
		return r;
	f->to_port = (unsigned)r;
	if (*addr == '[') {
		if (end - addr < 2 || end[-1] != ']')
			return -EINVAL;
		f->family = address(addr + 1, (size_t)(end - addr - 2), f->addr);
		return f->family == AF_INET6 ? 0 : -EINVAL;
	}
	f->family = address(addr, (size_t)(end - addr), f->addr);
	return f->family == AF_INET ? 0 : -EINVAL;
}

static int inside(const struct nat_want *w, int family, const char *text)
{
	uint8_t bin[16];

	return inet_pton(family, text, bin) == 1 && in_net(family == AF_INET ? &w->a4 : &w->a6, family, bin);
}

static int check_repeated(const struct nat_want *w, struct vh_err *e)
{
	for (uint32_t i = 0; i < w->opts->n; i++) {
		const struct vh_val *v = w->opts->val[i];
		struct nat_forward f;
		struct nat_host h;

		if (!strcmp(v->name, "host")) {
			if (want_host(v->str, &h) < 0) {
				net_host->remedy(e, "write it like host=52:54:00:12:34:56=192.168.77.10=web");
				return net_host->err(e, -EINVAL, "host '%s' is not MAC=ADDRESS or MAC=ADDRESS=NAME", v->str);
			}
			if (!w->dhcp)
				return net_host->err(e, -EINVAL, "host= is for a network with dhcp=on");
			if (!w->pick && !inside(w, h.family, h.addr))
				return net_host->err(e, -EINVAL, "the host's address %s is not in the network", h.addr);
		} else if (!strcmp(v->name, "forward")) {
			if (want_forward(v->str, &f) < 0) {
				net_host->remedy(e, "write it like forward=tcp:8080:192.168.77.10:80");
				return net_host->err(e, -EINVAL, "forward '%s' is not tcp|udp:PORT:ADDRESS:PORT", v->str);
			}
			if (!w->nat) {
				net_host->remedy(e, "use kind nat");
				return net_host->err(e, -EINVAL, "forward= would open an isolated network");
			}
			if (!w->pick && !inside(w, f.family, f.addr))
				return net_host->err(e, -EINVAL, "the address %s of forward= is not in the network", f.addr);
		}
	}
	return 0;
}

int want_check(struct nat_want *w, struct vh_err *e)
{
	uint32_t net = addr4(&w->a4) & mask4(&w->a4), broadcast = net | ~mask4(&w->a4);

	if (w->first && !w->pick && (!w->a4.family || w->first <= net || w->last >= broadcast)) {
		net_host->remedy(e, "give both ends of dhcp-range= in the network of address=");
		return net_host->err(e, -EINVAL, "dhcp-range is not in the network of the host's address %s", w->a4.family ? w->text4 : "(none)");
	}
	return check_repeated(w, e);
}

static uint64_t hash_options(const struct nat_want *w, const char *kind)
{
	uint64_t h = hash64(HASH64, kind, strlen(kind) + 1);

	if (w->network)
		h = hash64(h, w->network, strlen(w->network) + 1);
	for (uint32_t i = 0; i < w->opts->n; i++) {
		const struct vh_val *v = w->opts->val[i];

		if (!strcmp(v->name, "isolated") || !strcmp(v->name, "kind") || !strcmp(v->name, "name"))
			continue;
		h = hash64(h, v->name, strlen(v->name) + 1);
		h = hash64(h, &v->num, sizeof(v->num));
		if (v->str)
			h = hash64(h, v->str, strlen(v->str) + 1);
	}
	return h;
}

int want_parse(struct nat_want *w, const struct vh_opts *opts, const char *network, const char *kind, struct vh_err *e)
{
	const char *a4 = vh_opt_str(opts, "address", NULL), *a6 = vh_opt_str(opts, "address6", NULL);
	const char *range = vh_opt_str(opts, "dhcp-range", NULL);
	int r;

	memset(w, 0, sizeof(*w));
	if (!kind)
		kind = vh_opt_str(opts, "kind", "nat");
	w->opts = opts;
	w->network = network;
	w->nat = !strcmp(kind, "nat");
	if (!w->nat && strcmp(kind, "isolated"))
		return net_host->err(e, -EINVAL, "'%s' is no kind of network that this plugin makes", kind);
	w->port_isolated = vh_opt_num(opts, "isolated", 0) != 0;
	w->pick = w->nat && !a4;
	w->domain = vh_opt_str(opts, "domain", NULL);
	r = bridge_name(w, vh_opt_str(opts, "name", NULL), e);
	if (!r && a4)
		r = want_address(w, a4, e);
	if (!r && a6)
		r = take(&w->a6, w->text6, a6, AF_INET6, e);
	if (!r && range)
		r = parse_range(w, range, e);
	if (r < 0)
		return r;
	w->dhcp = vh_opt_num(opts, "dhcp", a4 || a6 || w->pick) != 0;
	w->dns = vh_opt_num(opts, "dns", a4 || a6 || w->pick) != 0;
	if ((w->dhcp || w->dns) && !a4 && !a6 && !w->pick) {
		net_host->remedy(e, "add address=192.168.77.1/24");
		return net_host->err(e, -EINVAL, "DHCP and DNS need an address of the host in the network");
	}
	if (w->dhcp && w->a6.family && w->a6.prefix != 64) {
		net_host->remedy(e, "take a /64, or dhcp=off");
		return net_host->err(e, -EINVAL, "guests can make themselves addresses only in a /64, not in %s", w->text6);
	}
	if (range && !w->dhcp)
		return net_host->err(e, -EINVAL, "dhcp-range= is for a network with dhcp=on");
	if (w->domain && !name_ok(w->domain, 200, ".-")) {
		net_host->remedy(e, "use letters, digits, '-' and '.'");
		return net_host->err(e, -EINVAL, "'%s' cannot be a domain", w->domain);
	}
	w->options = hash_options(w, kind);
	return want_check(w, e);
}
