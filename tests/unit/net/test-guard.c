/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The guard, frame by frame. A frame is written as hexadecimal digits and names; the length of its IP header is filled in
 * unless the row says not to. Each is judged whole and from every shorter part, which may only ask for more.
 */
#include <glib.h>
#include <string.h>

#include "net/guard.h"

static const struct {
	const char *name, *hex;
} names[] = {
	{"M", "020000000001"}, /* the guest's MAC address */
	{"X", "020000000002"},
	{"B", "ffffffffffff"},
	{"A", "c0000205"}, /* 192.0.2.5, the guest's */
	{"O", "c0000206"},
	{"Z", "00000000"},
	{"BC", "ffffffff"},
	{"A6", "20010db8000000000000000000000005"},
	{"O6", "20010db8000000000000000000000006"},
	{"L6", "fe80000000000000000000fffe000001"}, /* of the MAC address */
	{"K6", "fe80000000000000000000fffe000002"},
	{"Z6", "00000000000000000000000000000000"},
	{"ALL6", "ff020000000000000000000000000001"},
	{"V6", "600000000000"}, /* version, length to be filled in */
};

#define ETH(type) "B M " type " "
#define IP4(proto, src, dst) ETH("0800") "4500 0000 0000 0000 40" proto "0000 " src " " dst " "
#define FRAG4(frag, proto, src, dst) ETH("0800") "4500 0000 0000 " frag " 40" proto "0000 " src " " dst " "
#define IP6(next, src, dst) ETH("86dd") "V6 " next "ff " src " " dst " "
#define ARP(op, sha, spa, tha, tpa) ETH("0806") "0001 0800 06 04 " op " " sha " " spa " " tha " " tpa
#define RARP(op, sha, spa, tha, tpa) ETH("8035") "0001 0800 06 04 " op " " sha " " spa " " tha " " tpa
#define PORTS(s, d) s " " d " 0010 0000 0102030405060708"
#define NS(target) "8700 0000 00000000 " target
#define NA(target) "8800 0000 20000000 " target
#define SLLA(m) " 0101 " m
#define TLLA(m) " 0201 " m
#define HOPBYHOP(next) next "00 0502 0000 0100 "
#define OPTIONS(next) next "00 0104 00000000 "
#define FRAGMENT(next, off) next "00 " off " 00001234 "

enum { FIX = 0, RAW = 1, TAGS = 2, MACMODE = 4, LONG = 8 };
static const struct row {
	const char *what;
	enum guard_verdict want;
	const char *frame;
	unsigned how;
	uint8_t csum[4]; /* where the host shall write a checksum: start, offset; little-endian as in the header. 0: none */
} rows[] = {
	/* The MAC address, and what is around it. */
	{"own MAC, any type", GUARD_PASS, ETH("88b5") "00", MACMODE},
	{"another's MAC", GUARD_BAD_MAC, "B X 88b5 00", MACMODE},
	{"another's MAC, IP in order", GUARD_BAD_MAC, "B X 0800 4500 0000 0000 0000 40060000 A O 00"},
	{"a tag", GUARD_BAD_TAG, "B M 8100 0005 0800 00", MACMODE},
	{"a tag of a provider", GUARD_BAD_TAG, "B M 88a8 0005 0800 00", MACMODE},
	{"an old tag", GUARD_BAD_TAG, "B M 9100 0005 0800 00", MACMODE},
	{"a tag on a trunk", GUARD_PASS, "B M 8100 0005 88b5 00", MACMODE | TAGS},
	{"three tags on a trunk", GUARD_BAD_TAG, "B M 88a8 0005 8100 0006 8100 0007 0800 00", MACMODE | TAGS},
	{"a tag cut off", GUARD_BAD_FORM, "B M 8100 00", MACMODE | TAGS},
	{"a type that is none", GUARD_BAD_TYPE, ETH("88b5") "00"},
	{"a bridge's frame", GUARD_BAD_TYPE, "0180c2000000 M 0026 424203 0000 00 00"},
	{"a checksum over the MAC", GUARD_BAD_OFFLOAD, ETH("88b5") "0000000000000000", MACMODE, {4, 0, 4, 0}},
	{"a checksum behind it", GUARD_PASS, ETH("88b5") "0000000000000000", MACMODE, {14, 0, 2, 0}},
	/* ARP */
	{"a question", GUARD_PASS, ARP("0001", "M", "A", "000000000000", "O")},
	{"an answer", GUARD_PASS, ARP("0002", "M", "A", "X", "O")},
	{"a probe", GUARD_PASS, ARP("0001", "M", "Z", "000000000000", "A")},
	{"an answer without address", GUARD_BAD_ARP, ARP("0002", "M", "Z", "X", "O")},
	{"a question in another's name", GUARD_BAD_ARP, ARP("0001", "M", "O", "000000000000", "A")},
	{"an answer in another's name", GUARD_BAD_ARP, ARP("0002", "M", "O", "X", "A")},
	{"an answer with another's MAC", GUARD_BAD_ARP, ARP("0002", "X", "A", "X", "O")},
	{"an answer in padding", GUARD_BAD_ARP, ARP("0002", "M", "O", "X", "A") " 000000000000000000000000"},
	{"ARP of lengths unheard of", GUARD_BAD_ARP, ETH("0806") "0001 0800 06 08 0002 M A X O 00000000"},
	{"ARP of another medium", GUARD_BAD_ARP, ETH("0806") "0006 0800 06 04 0002 M A X O"},
	{"ARP cut off", GUARD_BAD_FORM, ETH("0806") "0001 0800 06 04 0002 M A X 00"},
	{"ARP behind a tag", GUARD_BAD_ARP, "B M 8100 0005 0806 0001 0800 06 04 0002 M O X A", TAGS},
	{"ARP behind two tags", GUARD_BAD_ARP, "B M 88a8 0005 8100 0006 0806 0001 0800 06 04 0002 M O X A", TAGS},
	{"own ARP behind a tag", GUARD_PASS, "B M 8100 0005 0806 0001 0800 06 04 0002 M A X O", TAGS},
	{"an announcement by RARP", GUARD_PASS, RARP("0003", "M", "Z", "M", "Z")},
	{"a RARP answer", GUARD_BAD_ARP, RARP("0004", "M", "Z", "M", "A")},
	{"a RARP for another", GUARD_BAD_ARP, RARP("0003", "M", "Z", "X", "Z")},
	{"a checksum over ARP", GUARD_BAD_OFFLOAD, ARP("0002", "M", "A", "X", "O"), FIX, {14, 0, 14, 0}},
	/* IPv4 */
	{"TCP", GUARD_PASS, IP4("06", "A", "O") "0000000000000000"},
	{"TCP of another's", GUARD_BAD_IPV4, IP4("06", "O", "A") "0000000000000000"},
	{"TCP of nobody's", GUARD_BAD_IPV4, IP4("06", "Z", "A") "0000000000000000"},
	{"TCP of all", GUARD_BAD_IPV4, IP4("06", "BC", "A") "0000000000000000"},
	{"TCP behind a tag", GUARD_BAD_IPV4, "B M 8100 0005 0800 45000014 0000 0000 40060000 O A", TAGS | RAW},
	{"TCP with its checksum to be filled in", GUARD_PASS, IP4("06", "A", "O") "00000000000000000000000000000000000000000", FIX, {34, 0, 16, 0}},
	{"a checksum over the source", GUARD_BAD_OFFLOAD, IP4("06", "A", "O") "00000000000000000000", FIX, {14, 0, 12, 0}},
	{"a checksum half over the destination", GUARD_BAD_OFFLOAD, IP4("06", "A", "O") "00000000000000000000", FIX, {14, 0, 19, 0}},
	{"a checksum over the end of memory", GUARD_PASS, IP4("06", "A", "O") "0000", FIX, {0xff, 0xff, 0xff, 0xff}}, /* the kernel's to refuse */
	{"a checksum over a port", GUARD_BAD_OFFLOAD, IP4("11", "A", "O") PORTS("1000", "0035"), FIX, {34, 0, 0, 0}},
	{"UDP with its checksum to be filled in", GUARD_PASS, IP4("11", "A", "O") PORTS("1000", "0035"), FIX, {34, 0, 6, 0}},
	{"version 5", GUARD_BAD_FORM, ETH("0800") "55000014 0000 0000 40060000 A O", RAW},
	{"a header of 16 bytes", GUARD_BAD_FORM, ETH("0800") "44000014 0000 0000 40060000 A O", RAW},
	{"a header longer than the frame", GUARD_BAD_FORM, ETH("0800") "4f000014 0000 0000 40060000 A O", RAW},
	{"a length past the frame", GUARD_BAD_FORM, ETH("0800") "45000100 0000 0000 40060000 A O", RAW},
	{"a length of nothing", GUARD_BAD_FORM, ETH("0800") "45000000 0000 0000 40060000 A O", RAW},
	{"cut off", GUARD_BAD_FORM, ETH("0800") "45000014 0000 0000 40060000 A", RAW},
	{"asking for an address", GUARD_PASS, IP4("11", "Z", "BC") PORTS("0044", "0043")},
	{"asking again", GUARD_PASS, IP4("11", "A", "O") PORTS("0044", "0043")},
	{"offering one", GUARD_BAD_DHCP, IP4("11", "A", "BC") PORTS("0043", "0044")},
	{"offering one without one", GUARD_BAD_DHCP, IP4("11", "Z", "BC") PORTS("0043", "0044")},
	{"offering one behind options", GUARD_BAD_DHCP, ETH("0800") "46000000 0000 0000 40110000 A BC 01010101 " PORTS("0043", "0044")},
	{"offering one behind a tag", GUARD_BAD_DHCP, "B M 8100 0005 0800 45000000 0000 0000 40110000 A BC " PORTS("0043", "0044"), TAGS},
	{"offering one in fragments", GUARD_BAD_DHCP, FRAG4("2000", "11", "A", "BC") "0043 0044 0100 0000"},
	{"offering one in fragments too short to tell", GUARD_BAD_FORM, FRAG4("2000", "11", "A", "BC") "0043"},
	{"the rest of fragments", GUARD_PASS, FRAG4("0001", "11", "A", "BC") "0102030405"},
	{"the rest of another's fragments", GUARD_BAD_IPV4, FRAG4("0001", "11", "O", "BC") "0102030405"},
	{"asking in fragments without an address", GUARD_BAD_IPV4, FRAG4("2000", "11", "Z", "BC") PORTS("0044", "0043")},
	{"the rest of nobody's fragments", GUARD_BAD_IPV4, FRAG4("0001", "11", "Z", "BC") PORTS("0044", "0043")},
	{"joining a group without an address", GUARD_PASS, IP4("02", "Z", "e0000016") "22000000"},
	/* IPv6 */
	{"TCP 6", GUARD_PASS, IP6("06", "A6", "O6") "0000000000000000"},
	{"TCP 6 of the link", GUARD_PASS, IP6("06", "L6", "O6") "0000000000000000"},
	{"TCP 6 of another's", GUARD_BAD_IPV6, IP6("06", "O6", "A6") "0000000000000000"},
	{"TCP 6 of another's link", GUARD_BAD_IPV6, IP6("06", "K6", "A6") "0000000000000000"},
	{"TCP 6 of nobody's", GUARD_BAD_IPV6, IP6("06", "Z6", "A6") "0000000000000000"},
	{"version 4", GUARD_BAD_FORM, ETH("86dd") "400000000000 3bff A6 O6", RAW},
	{"a length past the frame 6", GUARD_BAD_FORM, ETH("86dd") "600000000010 3bff A6 O6", RAW},
	{"cut off 6", GUARD_BAD_FORM, ETH("86dd") "600000000000 3bff A6 20", RAW},
	{"a checksum over the source 6", GUARD_BAD_OFFLOAD, IP6("06", "A6", "O6") "0000000000000000000000000000000000000000", FIX, {14, 0, 12, 0}},
	{"an echo", GUARD_PASS, IP6("3a", "A6", "O6") "8000 0000 0001 0001"},
	{"an echo with its checksum to be filled in", GUARD_PASS, IP6("3a", "A6", "O6") "8000 0000 0001 0001", FIX, {54, 0, 2, 0}},
	{"an echo of another's", GUARD_BAD_IPV6, IP6("3a", "O6", "A6") "8000 0000 0001 0001"},
	{"an echo in fragments", GUARD_PASS, IP6("2c", "A6", "O6") FRAGMENT("3a", "0001") "8000 0000 0001 0001"},
	{"the rest of an echo", GUARD_PASS, IP6("2c", "A6", "O6") FRAGMENT("3a", "0008") "0102030405060708"},
	{"the rest of another's", GUARD_BAD_IPV6, IP6("2c", "O6", "A6") FRAGMENT("3a", "0008") "0102030405060708"},
	{"asking for an address 6", GUARD_PASS, IP6("11", "L6", "ALL6") PORTS("0222", "0223")},
	{"offering one 6", GUARD_BAD_DHCP, IP6("11", "L6", "ALL6") PORTS("0223", "0222")},
	{"offering one behind extensions", GUARD_BAD_DHCP, IP6("00", "L6", "ALL6") HOPBYHOP("3c") OPTIONS("11") PORTS("0223", "0222")},
	{"offering one in fragments 6", GUARD_BAD_DHCP, IP6("2c", "L6", "ALL6") FRAGMENT("11", "0001") PORTS("0223", "0222")},
	{"offering one behind a fragment too short", GUARD_BAD_FORM, IP6("2c", "L6", "ALL6") FRAGMENT("3c", "0001")},
	{"offering one behind options that end in the next fragment", GUARD_BAD_FORM, IP6("2c", "L6", "ALL6") FRAGMENT("3c", "0001") "1105 0104 00000000"},
	{"a report of groups", GUARD_PASS, IP6("00", "Z6", "ALL6") HOPBYHOP("3a") "8f00 0000 0000 0000"},
	{"an error of nobody's", GUARD_BAD_IPV6, IP6("3a", "Z6", "ALL6") "0100 0000 0000 0000"},
	/* Neighbour discovery */
	{"a solicitation", GUARD_PASS, IP6("3a", "A6", "ALL6") NS("O6") SLLA("M")},
	{"a solicitation with another's MAC", GUARD_BAD_ND, IP6("3a", "A6", "ALL6") NS("O6") SLLA("X")},
	{"a solicitation with another's MAC in its second option", GUARD_BAD_ND, IP6("3a", "A6", "ALL6") NS("O6") SLLA("M") SLLA("X")},
	{"a solicitation of another's", GUARD_BAD_IPV6, IP6("3a", "O6", "ALL6") NS("A6") SLLA("M")},
	{"whether an address is free", GUARD_PASS, IP6("3a", "Z6", "ALL6") NS("A6")},
	{"whether an address is free, with a nonce", GUARD_PASS, IP6("3a", "Z6", "ALL6") NS("A6") " 0e01 010203040506"},
	{"whether another's address is free", GUARD_BAD_ND, IP6("3a", "Z6", "ALL6") NS("O6")},
	{"whether an address is free, with a MAC", GUARD_BAD_ND, IP6("3a", "Z6", "ALL6") NS("A6") SLLA("M")},
	{"an advertisement", GUARD_PASS, IP6("3a", "A6", "ALL6") NA("A6") TLLA("M")},
	{"an advertisement of the link", GUARD_PASS, IP6("3a", "L6", "ALL6") NA("L6") TLLA("M")},
	{"an advertisement for another", GUARD_BAD_ND, IP6("3a", "A6", "ALL6") NA("O6") TLLA("M")},
	{"an advertisement with another's MAC", GUARD_BAD_ND, IP6("3a", "A6", "ALL6") NA("A6") TLLA("X")},
	{"an advertisement of another's", GUARD_BAD_IPV6, IP6("3a", "O6", "ALL6") NA("A6") TLLA("M")},
	{"an advertisement of nobody's", GUARD_BAD_IPV6, IP6("3a", "Z6", "ALL6") NA("A6") TLLA("M")},
	{"an advertisement for another behind extensions", GUARD_BAD_ND, IP6("00", "A6", "ALL6") HOPBYHOP("3c") OPTIONS("3a") NA("O6")},
	{"an advertisement for another behind a route", GUARD_BAD_ND, IP6("2b", "A6", "ALL6") "3a00 0000 00000000 " NA("O6")},
	{"an advertisement for another behind authentication", GUARD_BAD_ND, IP6("33", "A6", "ALL6") "3a01 0000 00000000 00000000 " NA("O6")},
	{"an advertisement for another in a fragment", GUARD_BAD_ND, IP6("2c", "A6", "ALL6") FRAGMENT("3a", "0000") NA("O6")},
	{"an own advertisement in a fragment", GUARD_BAD_ND, IP6("2c", "A6", "ALL6") FRAGMENT("3a", "0001") NA("A6")},
	{"an advertisement behind a fragment of options", GUARD_BAD_ND, IP6("2c", "A6", "ALL6") FRAGMENT("3c", "0001") OPTIONS("3a") NA("A6")},
	{"an option of no length", GUARD_BAD_ND, IP6("3a", "A6", "ALL6") NA("A6") " 0200 M"},
	{"an option past the end", GUARD_BAD_FORM, IP6("3a", "A6", "ALL6") NA("A6") " 0202 M"},
	{"a MAC of 14 bytes", GUARD_BAD_ND, IP6("3a", "A6", "ALL6") NA("A6") " 0202 M 0000000000000000"},
	{"an advertisement cut off", GUARD_BAD_FORM, IP6("3a", "A6", "ALL6") "8800 0000 20000000 0000"},
	{"an option far behind", GUARD_BAD_ND, IP6("3a", "A6", "ALL6") NA("A6") " 0e20", LONG},
	{"a checksum over an advertisement", GUARD_BAD_OFFLOAD, IP6("3a", "A6", "ALL6") NA("A6") TLLA("M"), FIX, {54, 0, 8, 0}},
	{"a checksum over an advertisement's MAC", GUARD_BAD_OFFLOAD, IP6("3a", "A6", "ALL6") NA("A6") TLLA("M"), FIX, {54, 0, 26, 0}},
	{"inverse discovery", GUARD_BAD_ND, IP6("3a", "A6", "ALL6") "8e00 0000 00000000"},
	{"asking for routers", GUARD_PASS, IP6("3a", "L6", "ALL6") "8500 0000 00000000" SLLA("M")},
	{"asking for routers without an address", GUARD_PASS, IP6("3a", "Z6", "ALL6") "8500 0000 00000000"},
	{"asking for routers with another's MAC", GUARD_BAD_ND, IP6("3a", "L6", "ALL6") "8500 0000 00000000" SLLA("X")},
	{"a router", GUARD_BAD_ROUTER, IP6("3a", "L6", "ALL6") "8600 0000 40000708 0000000000000000"},
	{"a router of another's", GUARD_BAD_ROUTER, IP6("3a", "K6", "ALL6") "8600 0000 40000708 0000000000000000"},
	{"a router behind extensions", GUARD_BAD_ROUTER, IP6("00", "L6", "ALL6") HOPBYHOP("3c") OPTIONS("3a") "8600 0000 40000708 0000000000000000"},
	{"a router in fragments", GUARD_BAD_ROUTER, IP6("2c", "L6", "ALL6") FRAGMENT("3a", "0001") "8600 0000 40000708"},
	{"a router behind a tag", GUARD_BAD_ROUTER, "B M 8100 0005 86dd V6 3aff L6 ALL6 8600 0000 40000708 0000000000000000", TAGS},
	{"a redirect", GUARD_BAD_ROUTER, IP6("3a", "L6", "A6") "8900 0000 00000000 O6 O6"},
};

static size_t assemble(const char *text, uint8_t *out)
{
	g_auto(GStrv) words = g_strsplit_set(text, " ", -1);
	size_t n = 0;

	for (unsigned i = 0; words[i]; i++) {
		const char *w = words[i];

		for (unsigned k = 0; k < G_N_ELEMENTS(names); k++)
			if (!strcmp(names[k].name, w))
				w = names[k].hex;
		for (; w[0] && w[1]; w += 2) {
			g_assert_true(g_ascii_isxdigit(w[0]) && g_ascii_isxdigit(w[1]));
			out[n++] = (uint8_t)(g_ascii_xdigit_value(w[0]) << 4 | g_ascii_xdigit_value(w[1]));
		}
	}
	return n;
}

static void fix(uint8_t *f, size_t n)
{
	size_t at = 12;

	while (at + 4 < n && (f[at] == 0x81 || f[at] == 0x91 || (f[at] == 0x88 && f[at + 1] == 0xa8)))
		at += 4;
	if (f[at] == 8 && f[at + 1] == 0 && n >= at + 22) {
		f[at + 4] = (uint8_t)((n - at - 2) >> 8);
		f[at + 5] = (uint8_t)(n - at - 2);
	} else if (f[at] == 0x86 && n >= at + 42) {
		f[at + 6] = (uint8_t)((n - at - 42) >> 8);
		f[at + 7] = (uint8_t)(n - at - 42);
	}
}

static void rules(struct guard *g, unsigned how)
{
	*g = (struct guard){.mode = how & MACMODE ? GUARD_MAC : GUARD_FULL, .tags = (how & TAGS) != 0, .mac = {2, 0, 0, 0, 0, 1}};
	g_assert_cmpint(guard_add(g, "192.0.2.5", NULL), ==, 0);
	g_assert_cmpint(guard_add(g, "2001:db8::5", NULL), ==, 0);
}

static void test_row(gconstpointer data)
{
	const struct row *r = data;
	uint8_t f[4096] = {0}, hdr[12] = {0};
	struct guard g;
	size_t n;

	rules(&g, r->how);
	n = assemble(r->frame, f);
	if (r->how & LONG) { /* an option of 256 bytes, then a bad one */
		n += 254;
		f[n] = 2;
		f[n + 1] = 1;
		n += 8;
	}
	if (!(r->how & RAW))
		fix(f, n);
	if (r->csum[0] || r->csum[2]) {
		hdr[0] = 1;
		memcpy(hdr + 6, r->csum, 4);
	}
	g_assert_cmpstr(guard_text(guard_check(&g, hdr, f, n, n)), ==, guard_text(r->want));
	for (size_t have = 0; have < n; have++) {
		enum guard_verdict v = guard_check(&g, hdr, f, have, n);

		if (v != GUARD_MORE)
			g_assert_cmpint(v, ==, r->want);
	}
	if (!(r->how & MACMODE)) /* the guard that looks at MAC addresses only says nothing about the rest */
		return;
	g.mode = GUARD_FULL;
	if (r->want != GUARD_PASS)
		g_assert_cmpint(guard_check(&g, hdr, f, n, n), !=, GUARD_PASS);
}

/* Nothing makes it look beyond its limit, and a chain of headers ends. */
static void test_limits(void)
{
	static uint8_t f[65536], hdr[12];
	struct guard g;
	size_t n;

	rules(&g, 0);
	n = assemble(IP6("00", "A6", "ALL6"), f);
	for (unsigned i = 0; i < 100; i++, n += 8) /* hop-by-hop behind hop-by-hop */
		memcpy(f + n, "\0\0\1\4\0\0\0\0", 8);
	fix(f, n);
	g_assert_cmpint(guard_check(&g, hdr, f, n, n), ==, GUARD_BAD_FORM);
	n = assemble(IP6("00", "A6", "ALL6"), f);
	memcpy(f + n, "\x3a\xff", 2); /* 2 KiB of options, then a router */
	n += 2048;
	f[n] = 134;
	n += 16;
	fix(f, n);
	g_assert_cmpint(guard_check(&g, hdr, f, GUARD_MOST, n), ==, GUARD_BAD_FORM);
	/* A large segment is judged by its headers. */
	n = assemble(IP4("06", "A", "O"), f);
	memset(f + n, 0, 8);
	f[16] = 0xff;
	f[17] = 0xff;
	g_assert_cmpint(guard_check(&g, hdr, f, GUARD_FIRST, 14 + 65535), ==, GUARD_PASS);
}

static void test_addresses(void)
{
	static const char *const bad[] = {"", "192.0.2", "192.0.2.5/24", "::", "0.0.0.0", "255.255.255.255", "224.0.0.1", "ff02::1", "fe80::1%eth0"};
	struct guard g = {0};
	char text[32];

	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
		g_assert_cmpint(guard_add(&g, bad[i], NULL), ==, -EINVAL);
	g_assert_cmpuint(g.n_addrs, ==, 0);
	for (unsigned i = 0; i < GUARD_ADDRS; i++) {
		g_snprintf(text, sizeof(text), "10.0.0.%u", i + 1);
		g_assert_cmpint(guard_add(&g, text, NULL), ==, 0);
	}
	g_assert_cmpint(guard_add(&g, "10.1.0.1", NULL), ==, -E2BIG);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	for (unsigned i = 0; i < G_N_ELEMENTS(rows); i++) {
		g_autofree char *slug = g_strdelimit(g_strdup(rows[i].what), " ,/", '-');
		g_autofree char *path = g_strdup_printf("/guard/%s%s", slug, rows[i].how & TAGS ? "-trunk" : "");

		g_test_add_data_func(path, &rows[i], test_row);
	}
	g_test_add_func("/guard/limits", test_limits);
	g_test_add_func("/guard/addresses", test_addresses);
	return g_test_run();
}
