/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Answers ARP and ICMP echo for ip=10.0.0.2, for secs= (default: until the host ends it). UDP to port 7 ends it. */
#include "netdev.h"

static struct net net;
static uint8_t ip[4] = {10, 0, 0, 2};

static void parse_ip(void)
{
	const char *p = arg_str("ip");
	for (unsigned i = 0; p && i < 4; i++) {
		unsigned v = 0;
		for (; *p >= '0' && *p <= '9'; p++)
			v = v * 10 + (unsigned)(*p - '0');
		ip[i] = (uint8_t)v;
		if (*p == '.')
			p++;
	}
}

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint16_t checksum(const uint8_t *p, uint32_t n)
{
	uint32_t s = 0;
	for (; n > 1; n -= 2, p += 2)
		s += get16(p);
	if (n)
		s += (uint32_t)*p << 8;
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	return (uint16_t)~s;
}

static void turn(uint8_t *f)
{
	memcpy(f, f + 6, 6);
	memcpy(f + 6, net.mac, 6);
}

/* Makes the answer of a frame in place; its length, 0: none, -1: asked to end. */
static int answer(uint8_t *f, uint32_t len)
{
	uint8_t *p = f + 14;

	if (len >= 42 && get16(f + 12) == 0x0806 && get16(p + 6) == 1 && !memcmp(p + 24, ip, 4)) {
		turn(f);
		p[7] = 2;
		memcpy(p + 18, p + 8, 10);
		memcpy(p + 8, net.mac, 6);
		memcpy(p + 14, ip, 4);
		return 42;
	}
	if (len < 34 || get16(f + 12) != 0x0800 || p[0] != 0x45 || memcmp(p + 16, ip, 4) || get16(p + 2) > len - 14 || get16(p + 2) < 28)
		return 0;
	if (p[9] == 17 && get16(p + 22) == 7)
		return -1;
	if (p[9] != 1 || p[20] != 8)
		return 0;
	turn(f);
	memcpy(p + 16, p + 12, 4);
	memcpy(p + 12, ip, 4);
	p[20] = 0;
	p[22] = p[23] = 0;
	uint16_t c = checksum(p + 20, get16(p + 2) - 20u);
	p[22] = (uint8_t)(c >> 8);
	p[23] = (uint8_t)c;
	return 14 + get16(p + 2);
}

void guest_main(void)
{
	uint64_t end, answered = 0;
	unsigned next = 0;
	uint32_t len;
	int head;

	parse_ip();
	net_open(&net);
	end = arg_u64("secs", 0) ? tsc() + tsc_hz() * arg_u64("secs", 0) : ~UINT64_C(0);
	print("netecho: %02x:%02x:%02x:%02x:%02x:%02x at %u.%u.%u.%u\n", net.mac[0], net.mac[1], net.mac[2], net.mac[3], net.mac[4], net.mac[5],
	      ip[0], ip[1], ip[2], ip[3]);
	while (tsc() < end) {
		uint8_t *f, *t;
		int n;
		while (vq_get(net.tx, NULL) >= 0)
			;
		head = vq_get(net.rx, &len);
		if (head < 0) {
			relax();
			continue;
		}
		f = net.rx_of_head[head];
		n = len > NET_HDR && len <= NET_BUF ? answer(f + NET_HDR, len - NET_HDR) : 0;
		if (n > 0) {
			struct vbuf b;
			t = net.tx_buf + (size_t)(next++ % net.tx->size) * NET_BUF;
			memset(t, 0, NET_HDR);
			memcpy(t + NET_HDR, f + NET_HDR, (size_t)n);
			b = (struct vbuf){t, NET_HDR + (uint32_t)n};
			if (vq_add(net.tx, &b, 1, 0) >= 0) {
				vq_kick(net.tx);
				answered++;
			}
		}
		net_give(&net, f);
		vq_kick(net.rx);
		if (n < 0)
			break;
	}
	print("netecho: ok answered=%lu\n", answered);
}
