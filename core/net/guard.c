/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "net/guard.h"

#include <arpa/inet.h>
#include <string.h>

#define ETH_LEN 14u
#define TAG_LEN 4u
#define TAGS_MOST 2u
#define EXTENSIONS_MOST 16u
#define HDR_NEEDS_CSUM 1u /* VIRTIO_NET_HDR_F_NEEDS_CSUM */

enum { TYPE_IPV4 = 0x0800, TYPE_ARP = 0x0806, TYPE_RARP = 0x8035, TYPE_VLAN = 0x8100, TYPE_IPV6 = 0x86dd, TYPE_QINQ = 0x88a8,
       TYPE_QINQ_OLD = 0x9100 };
enum { P_HOPBYHOP = 0, P_IGMP = 2, P_TCP = 6, P_UDP = 17, P_ROUTING = 43, P_FRAGMENT = 44, P_AH = 51, P_ICMPV6 = 58, P_OPTIONS = 60 };
enum { MLD_REPORT = 131, MLD_DONE = 132, ND_RS = 133, ND_RA = 134, ND_NS = 135, ND_NA = 136, ND_REDIRECT = 137, INVERSE_NS = 141,
       INVERSE_NA = 142, MLD2_REPORT = 143 };

/* A frame being read: nothing before `judged` may change any more, and nothing behind `end` is the packet's. */
struct look {
	const struct guard *g;
	const uint8_t *p;
	size_t have, len, end, judged;
};

/* GUARD_PASS: [off, off + n) can be read. */
static enum guard_verdict need(struct look *l, size_t off, size_t n)
{
	if (off > l->end || n > l->end - off)
		return GUARD_BAD_FORM;
	if (off + n > GUARD_MOST)
		return GUARD_BAD_FORM;
	if (off + n > l->have)
		return GUARD_MORE;
	if (off + n > l->judged)
		l->judged = off + n;
	return GUARD_PASS;
}

#define NEED(l, off, n)                                                                                                        \
	do {                                                                                                                   \
		enum guard_verdict need_ = need(l, off, n);                                                                    \
		if (need_ != GUARD_PASS)                                                                                       \
			return need_;                                                                                          \
	} while (0)

static unsigned get16(const uint8_t *p)
{
	return (unsigned)p[0] << 8 | p[1];
}

static int zero(const uint8_t *p, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (p[i])
			return 0;
	return 1;
}

static int is_mac(const struct look *l, const uint8_t *p)
{
	return !memcmp(p, l->g->mac, 6);
}

static int is_own(const struct guard *g, const uint8_t *p, unsigned len)
{
	for (unsigned i = 0; i < g->n_addrs; i++)
		if (g->addr[i].len == len && !memcmp(p, g->addr[i].byte, len))
			return 1;
	return 0;
}

/* fe80::/64 with the interface identifier that RFC 4291 makes of the MAC address. */
static int is_link_local(const struct guard *g, const uint8_t *p)
{
	const uint8_t *m = g->mac;
	const uint8_t own[16] = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, m[0] ^ 2, m[1], m[2], 0xff, 0xfe, m[3], m[4], m[5]};

	return !memcmp(p, own, 16);
}

static int is_own6(const struct guard *g, const uint8_t *p)
{
	return is_own(g, p, 16) || is_link_local(g, p);
}

static enum guard_verdict check_arp(struct look *l, size_t at, int reverse)
{
	const uint8_t *p = l->p + at;
	unsigned op;

	NEED(l, at, 28);
	op = get16(p + 6);
	if (get16(p) != 1 || get16(p + 2) != TYPE_IPV4 || p[4] != 6 || p[5] != 4 || !is_mac(l, p + 8))
		return GUARD_BAD_ARP;
	if (reverse) /* how a machine tells switches where it is: no address is told */
		return op == 3 && is_mac(l, p + 18) && zero(p + 14, 4) && zero(p + 24, 4) ? GUARD_PASS : GUARD_BAD_ARP;
	if (op != 1 && op != 2)
		return GUARD_BAD_ARP;
	if (op == 1 && zero(p + 14, 4)) /* a probe tells nothing either */
		return GUARD_PASS;
	return is_own(l->g, p + 14, 4) ? GUARD_PASS : GUARD_BAD_ARP;
}

/* UDP from `off`: its source port is not that of a server. */
static enum guard_verdict check_udp(struct look *l, size_t off, unsigned server)
{
	NEED(l, off, 8);
	l->judged = off + 4; /* length and checksum may be filled in */
	return get16(l->p + off) == server ? GUARD_BAD_DHCP : GUARD_PASS;
}

static enum guard_verdict check_ipv4(struct look *l, size_t at)
{
	const uint8_t *p = l->p + at;
	size_t head, total, off;
	unsigned frag;

	NEED(l, at, 20);
	head = (size_t)(p[0] & 15) * 4;
	total = get16(p + 2);
	if (p[0] >> 4 != 4 || head < 20 || total < head || total > l->len - at)
		return GUARD_BAD_FORM;
	l->end = at + total;
	NEED(l, at, head);
	off = at + head;
	frag = get16(p + 6);
	if (p[9] == P_UDP && !(frag & 0x1fff)) {
		enum guard_verdict v = check_udp(l, off, 67);

		if (v != GUARD_PASS)
			return v;
	}
	if (is_own(l->g, p + 12, 4))
		return GUARD_PASS;
	if (!zero(p + 12, 4))
		return GUARD_BAD_IPV4;
	/* Who has no address yet asks for one, and may join groups. */
	if (p[9] == P_IGMP && !(frag & 0x3fff))
		return GUARD_PASS;
	if (p[9] == P_UDP && !(frag & 0x3fff) && get16(l->p + off) == 68 && get16(l->p + off + 2) == 67)
		return GUARD_PASS;
	return GUARD_BAD_IPV4;
}

/* The options behind a neighbour discovery message. may_tell: it has an address, and so may tell its MAC address. */
static enum guard_verdict check_nd_options(struct look *l, size_t off, int may_tell)
{
	while (off < l->end) {
		size_t n;

		NEED(l, off, 2);
		n = (size_t)l->p[off + 1] * 8;
		if (!n)
			return GUARD_BAD_ND;
		NEED(l, off, n);
		if (l->p[off] == 1 || l->p[off] == 2) {
			if (n != 8 || !may_tell || !is_mac(l, l->p + off + 2))
				return GUARD_BAD_ND;
		}
		off += n;
	}
	return GUARD_PASS;
}

/* src: the packet's source address. */
static enum guard_verdict check_icmpv6(struct look *l, size_t off, const uint8_t *src, int fragment)
{
	int unspecified = zero(src, 16), own = is_own6(l->g, src);
	unsigned type;

	NEED(l, off, 4);
	type = l->p[off];
	if (type < ND_RS || type > ND_REDIRECT) {
		l->judged = off + 2; /* the host may fill in the checksum */
		if (type == INVERSE_NS || type == INVERSE_NA)
			return GUARD_BAD_ND;
		if (unspecified && !fragment && (type == MLD_REPORT || type == MLD_DONE || type == MLD2_REPORT))
			return GUARD_PASS;
		return own ? GUARD_PASS : GUARD_BAD_IPV6;
	}
	if (type == ND_RA || type == ND_REDIRECT)
		return GUARD_BAD_ROUTER;
	if (fragment) /* RFC 6980: nobody may take it; whoever does all the same is to be protected */
		return GUARD_BAD_ND;
	if (type == ND_RS) {
		NEED(l, off, 8);
		if (!own && !unspecified)
			return GUARD_BAD_IPV6;
		return check_nd_options(l, off + 8, own);
	}
	NEED(l, off, 24);
	if (type == ND_NS) {
		if (!own && !unspecified)
			return GUARD_BAD_IPV6;
		/* Without a source it asks whether its own future address is free. */
		if (unspecified && !is_own6(l->g, l->p + off + 8))
			return GUARD_BAD_ND;
		return check_nd_options(l, off + 24, own);
	}
	if (!own)
		return GUARD_BAD_IPV6;
	return is_own6(l->g, l->p + off + 8) ? check_nd_options(l, off + 24, 1) : GUARD_BAD_ND;
}

static enum guard_verdict check_ipv6(struct look *l, size_t at)
{
	const uint8_t *src = l->p + at + 8;
	size_t off = at + 40;
	int fragment = 0;
	unsigned next;

	NEED(l, at, 40);
	if (l->p[at] >> 4 != 6 || get16(l->p + at + 4) > l->len - off)
		return GUARD_BAD_FORM;
	l->end = off + get16(l->p + at + 4); /* a jumbogram, whose length is 0, does not fit into any frame here */
	next = l->p[at + 6];
	for (unsigned i = 0;; i++) {
		size_t n;

		if (i == EXTENSIONS_MOST)
			return GUARD_BAD_FORM;
		if (next == P_FRAGMENT) {
			unsigned where;

			NEED(l, off, 8);
			next = l->p[off];
			where = get16(l->p + off + 2);
			off += 8;
			fragment = 1;
			if (where & 0xfff8) /* what it continues was judged by its first fragment */
				return is_own6(l->g, src) ? GUARD_PASS : GUARD_BAD_IPV6;
			continue;
		}
		if (next != P_HOPBYHOP && next != P_ROUTING && next != P_OPTIONS && next != P_AH)
			break;
		NEED(l, off, 2);
		n = next == P_AH ? ((size_t)l->p[off + 1] + 2) * 4 : ((size_t)l->p[off + 1] + 1) * 8;
		NEED(l, off, n);
		next = l->p[off];
		off += n;
	}
	/* RFC 7112: the first fragment holds all headers, up to the one that says what it is. */
	if (next == P_ICMPV6)
		return check_icmpv6(l, off, src, fragment);
	if (next == P_UDP) {
		enum guard_verdict v = check_udp(l, off, 547);

		if (v != GUARD_PASS)
			return v;
	}
	return is_own6(l->g, src) ? GUARD_PASS : GUARD_BAD_IPV6;
}

static enum guard_verdict check_frame(struct look *l)
{
	size_t at = ETH_LEN - 2;
	unsigned type, tags = 0;

	NEED(l, 0, ETH_LEN);
	if (!is_mac(l, l->p + 6))
		return GUARD_BAD_MAC;
	for (type = get16(l->p + at); type == TYPE_VLAN || type == TYPE_QINQ || type == TYPE_QINQ_OLD; type = get16(l->p + at)) {
		if (!l->g->tags || tags++ == TAGS_MOST)
			return GUARD_BAD_TAG;
		at += TAG_LEN;
		NEED(l, at, 2);
	}
	at += 2;
	if (l->g->mode == GUARD_MAC)
		return GUARD_PASS;
	switch (type) {
	case TYPE_ARP:
	case TYPE_RARP:
		return check_arp(l, at, type == TYPE_RARP);
	case TYPE_IPV4:
		return check_ipv4(l, at);
	case TYPE_IPV6:
		return check_ipv6(l, at);
	default:
		return GUARD_BAD_TYPE;
	}
}

enum guard_verdict guard_check(const struct guard *g, const uint8_t *hdr, const uint8_t *frame, size_t have, size_t len)
{
	struct look l = {.g = g, .p = frame, .have = have, .len = len, .end = len};
	enum guard_verdict v = check_frame(&l);

	/* The kernel writes a sum of the sender's choice where the sender says: not into what was just found good. */
	if (v == GUARD_PASS && hdr[0] & HDR_NEEDS_CSUM) {
		size_t start = hdr[6] | (size_t)hdr[7] << 8, field = start + (hdr[8] | (size_t)hdr[9] << 8);

		if (field < l.judged)
			return GUARD_BAD_OFFLOAD;
	}
	return v;
}

const char *guard_text(enum guard_verdict v)
{
	static const char *const text[GUARD_VERDICTS] = {
		[GUARD_PASS] = "nothing wrong",
		[GUARD_MORE] = "too few bytes to tell",
		[GUARD_BAD_MAC] = "another's MAC address",
		[GUARD_BAD_TAG] = "a VLAN tag",
		[GUARD_BAD_ARP] = "ARP in another's name",
		[GUARD_BAD_IPV4] = "another's IPv4 address",
		[GUARD_BAD_IPV6] = "another's IPv6 address",
		[GUARD_BAD_ND] = "neighbour discovery in another's name",
		[GUARD_BAD_ROUTER] = "a router advertisement or redirect",
		[GUARD_BAD_DHCP] = "DHCP as a server",
		[GUARD_BAD_TYPE] = "neither ARP nor IP",
		[GUARD_BAD_FORM] = "malformed headers",
		[GUARD_BAD_OFFLOAD] = "a checksum to be written over addresses",
	};

	return (unsigned)v < GUARD_VERDICTS ? text[v] : "?";
}

int guard_add(struct guard *g, const char *addr, struct vh_err *e)
{
	struct guard_addr a = {0};

	if (inet_pton(AF_INET, addr, a.byte) == 1)
		a.len = 4;
	else if (inet_pton(AF_INET6, addr, a.byte) == 1)
		a.len = 16;
	else
		return err_set(e, -EINVAL, "%s is no IPv4 or IPv6 address", addr);
	if (zero(a.byte, a.len) || a.byte[0] == (a.len == 4 ? 224 : 0xff) || (a.len == 4 && a.byte[0] > 224))
		return err_set(e, -EINVAL, "%s is not the address of one machine", addr);
	if (g->n_addrs == GUARD_ADDRS)
		return err_set(e, -E2BIG, "more than %u addresses", GUARD_ADDRS);
	g->addr[g->n_addrs++] = a;
	return 0;
}
