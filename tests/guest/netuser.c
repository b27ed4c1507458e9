/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A client: asks for an address by DHCP, for its gateway by ARP, sends a UDP packet to dst=ADDRESS port=N and waits for its
 * answer, begins a TCP connection to the same port; then waits for a UDP packet to port 7, if wait= is given. */
#include "netdev.h"

static struct net net;
static uint8_t me[4], gw[4], gw_mac[6], dst[4], frame[1600];
static unsigned next;

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static uint32_t sum(const uint8_t *p, uint32_t n, uint32_t s)
{
	for (; n > 1; n -= 2, p += 2)
		s += get16(p);
	return n ? s + ((uint32_t)*p << 8) : s;
}

static uint16_t fold(uint32_t s)
{
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)~s;
}

static void send_frame(uint32_t len)
{
	uint8_t *t = net.tx_buf + (size_t)(next++ % net.tx->size) * NET_BUF;
	struct vbuf b = {t, NET_HDR + len}; /* not padded: passt of 2023 drops UDP with anything behind it */

	while (vq_get(net.tx, NULL) >= 0)
		;
	memset(t, 0, NET_HDR);
	memcpy(t + NET_HDR, frame, len);
	CHECK(vq_add(net.tx, &b, 1, 0) >= 0, "the send ring is full");
	vq_kick(net.tx);
}

/* The next received frame, into `frame`; its length, 0: none within ms. */
static uint32_t receive(unsigned ms)
{
	uint64_t end = tsc() + tsc_hz() / 1000 * ms;

	while (tsc() < end) {
		uint32_t len;
		int head = vq_get(net.rx, &len);

		if (head < 0) {
			relax();
			continue;
		}
		uint8_t *f = net.rx_of_head[head];

		len = len > NET_HDR && len <= sizeof(frame) ? len - NET_HDR : 0;
		memcpy(frame, f + NET_HDR, len);
		net_give(&net, f);
		vq_kick(net.rx);
		if (len)
			return len;
	}
	return 0;
}

static void ether(const uint8_t *to, unsigned type)
{
	memcpy(frame, to, 6);
	memcpy(frame + 6, net.mac, 6);
	put16(frame + 12, type);
}

/* The head of an IP packet with n bytes behind it, and its payload's checksum at p + at. */
static void ip(uint8_t proto, const uint8_t *to, unsigned n, unsigned at)
{
	uint8_t *p = frame + 14;
	uint16_t c;

	memset(p, 0, 20);
	p[0] = 0x45;
	put16(p + 2, 20 + n);
	p[8] = 64;
	p[9] = proto;
	memcpy(p + 12, me, 4);
	memcpy(p + 16, to, 4);
	put16(p + 10, fold(sum(p, 20, 0)));
	put16(p + 20 + at, 0);
	c = fold(sum(p + 20, n, sum(p + 12, 8, proto + n)));
	put16(p + 20 + at, c);
}

static void udp(unsigned from, unsigned to, unsigned n)
{
	uint8_t *p = frame + 34;

	put16(p, from);
	put16(p + 2, to);
	put16(p + 4, 8 + n);
}

static int is_udp(uint32_t len, unsigned to)
{
	return len >= 42 && get16(frame + 12) == 0x800 && frame[14] == 0x45 && frame[23] == 17 && get16(frame + 36) == to;
}

static void dhcp(void)
{
	static const uint8_t all[6] = {255, 255, 255, 255, 255, 255}, everywhere[4] = {255, 255, 255, 255};
	static const uint8_t tail[] = {0x63, 0x82, 0x53, 0x63, 53, 1, 1, 55, 2, 1, 3, 255};
	uint32_t len;

	for (int tries = 0; tries < 20; tries++) {
		memset(frame, 0, 342);
		memcpy(frame + 42, "\1\1\6\0user", 8);
		memcpy(frame + 42 + 28, net.mac, 6);
		memcpy(frame + 42 + 236, tail, sizeof(tail));
		udp(68, 67, 300);
		ether(all, 0x800);
		ip(17, everywhere, 308, 6);
		send_frame(342);
		while ((len = receive(500))) {
			if (!is_udp(len, 68) || len < 42 + 244 || memcmp(frame + 42 + 4, "user", 4))
				continue;
			memcpy(me, frame + 42 + 16, 4);
			for (uint32_t at = 42 + 240; at + 2 < len && frame[at] != 255; at += 2u + frame[at + 1])
				if (frame[at] == 3 && frame[at + 1] >= 4)
					memcpy(gw, frame + at + 2, 4);
			return;
		}
	}
	fail("nobody answers DHCP");
}

static void arp(void)
{
	static const uint8_t all[6] = {255, 255, 255, 255, 255, 255};
	uint32_t len;

	for (int tries = 0; tries < 20; tries++) {
		ether(all, 0x806);
		memcpy(frame + 14, "\0\1\10\0\6\4\0\1", 8);
		memcpy(frame + 22, net.mac, 6);
		memcpy(frame + 28, me, 4);
		memset(frame + 32, 0, 6);
		memcpy(frame + 38, gw, 4);
		send_frame(42);
		while ((len = receive(500)))
			if (len >= 42 && get16(frame + 12) == 0x806 && get16(frame + 20) == 2 && !memcmp(frame + 28, gw, 4)) {
				memcpy(gw_mac, frame + 22, 6);
				return;
			}
	}
	fail("the gateway does not answer ARP");
}

static void ask(unsigned port)
{
	uint32_t len;

	for (int tries = 0; tries < 20; tries++) {
		memcpy(frame + 42, "question", 8);
		udp(4000, port, 8);
		ether(gw_mac, 0x800);
		ip(17, dst, 16, 6);
		send_frame(50);
		while ((len = receive(500)))
			if (is_udp(len, 4000) && get16(frame + 38) > 8 && get16(frame + 38) < 40) {
				frame[34 + get16(frame + 38)] = 0;
				print("netuser: answer <%s>\n", (char *)frame + 42);
				return;
			}
	}
	fail("no answer by UDP");
}

static void connect(unsigned port)
{
	uint32_t len;

	for (int tries = 0; tries < 20; tries++) {
		uint8_t *p = frame + 34;

		memset(p, 0, 24);
		put16(p, 4001);
		put16(p + 2, port);
		p[7] = 1;
		p[12] = 0x60;
		p[13] = 2; /* SYN */
		put16(p + 14, 16384);
		memcpy(p + 20, "\2\4\5\264", 4);
		ether(gw_mac, 0x800);
		ip(6, dst, 24, 16);
		send_frame(58);
		while ((len = receive(1000)))
			if (len >= 54 && get16(frame + 12) == 0x800 && frame[23] == 6 && get16(p + 2) == 4001 && (p[13] & 0x12) == 0x12) {
				print("netuser: connected, ack=%u\n", p[11]);
				return;
			}
	}
	fail("no connection by TCP");
}

void guest_main(void)
{
	unsigned port = (unsigned)arg_u64("port", 7777);
	const char *s = arg_str("dst");

	for (unsigned i = 0; s && i < 4; i++, s += *s == '.') {
		unsigned v = 0;

		for (; *s >= '0' && *s <= '9'; s++)
			v = v * 10 + (unsigned)(*s - '0');
		dst[i] = (uint8_t)v;
	}
	net_open(&net);
	dhcp();
	print("netuser: dhcp address=%u.%u.%u.%u gateway=%u.%u.%u.%u\n", me[0], me[1], me[2], me[3], gw[0], gw[1], gw[2], gw[3]);
	arp();
	print("netuser: arp\n");
	ask(port);
	connect(port);
	if (arg_u64("wait", 0)) {
		print("netuser: waits\n");
		for (uint64_t end = tsc() + tsc_hz() * 60; tsc() < end;)
			if (is_udp(receive(1000), 7)) {
				print("netuser: called by <%c%c%c>\n", frame[42], frame[43], frame[44]);
				break;
			}
	}
	print("netuser: ok\n");
}
