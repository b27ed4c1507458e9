/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Sends frames of len= (64) bytes as fast as the rings take them, for secs= (2) or ms=; queues= (1), each by a CPU of its own;
 * gso=1: TCP over IPv4 for the host to cut into segments of 1448; to=HEX: the receiver's MAC address, else nobody's.
 * netbench len=... queues=... packets=... ns=... pps=... mbps=...
 */
#include "netdev.h"

#define FRAME 65536u

static struct net net;
static uint8_t *frame[NET_PAIRS];
static uint32_t len;
static uint64_t until, sent, done;
static unsigned batch, finished;
static volatile int go;

static void put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
}

static unsigned digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
}

/* One frame, which is sent over and over: nobody writes to it. */
static void make_frame(uint8_t *p, int gso)
{
	static const uint8_t ip[] = {0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 2, 192, 0, 2, 9};
	const char *to = arg_str("to");
	uint8_t *f = p + NET_HDR;
	uint32_t sum = 0;

	memset(p, 0, NET_HDR);
	memset(f, 0xff, 6);
	f[0] = 2; /* to nobody: a local address */
	for (unsigned i = 0; to && i < 6 && to[2 * i] && to[2 * i + 1]; i++)
		f[i] = (uint8_t)(digit(to[2 * i]) << 4 | digit(to[2 * i + 1]));
	memcpy(f + 6, net.mac, 6);
	if (!gso) {
		put16(f + 12, 0x88b5); /* local experimental */
		return;
	}
	put16(f + 12, 0x0800);
	memcpy(f + 14, ip, sizeof(ip));
	put16(f + 16, len - 14);
	for (unsigned i = 0; i < 20; i += 2)
		sum += (uint32_t)(f[14 + i] << 8 | f[15 + i]);
	sum = (sum & 0xffff) + (sum >> 16);
	put16(f + 24, ~sum & 0xffff);
	put16(f + 34, 5001);
	put16(f + 36, 5001);
	f[46] = 0x50; /* no options */
	f[47] = 0x10; /* ACK */
	put16(f + 48, 0xffff);
	p[0] = 1;     /* the checksum is the host's to fill in, */
	p[1] = 1;     /* in segments of TCP over IPv4 */
	p[2] = 54;
	p[4] = 1448 & 0xff;
	p[5] = 1448 >> 8;
	p[6] = 34;
	p[8] = 16;
}

static void run(unsigned cpu)
{
	struct vq *tx = net_tx(&net, cpu);
	struct vbuf b = {frame[cpu], NET_HDR + len};
	uint64_t s = 0, d = 0;

	while (!go)
		relax();
	while (tsc() < until) {
		unsigned n = 0;

		while (vq_get(tx, NULL) >= 0)
			d++;
		for (; n < batch && vq_add(tx, &b, 1, 0) >= 0; n++)
			s++;
		if (n)
			vq_kick(tx);
		else
			relax();
	}
	for (uint64_t end = until + tsc_hz(); d < s && tsc() < end;)
		if (vq_get(tx, NULL) >= 0)
			d++;
	__atomic_add_fetch(&sent, s, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&done, d, __ATOMIC_SEQ_CST);
	__atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST);
}

void guest_main(void)
{
	unsigned pairs = (unsigned)arg_u64("queues", 1);
	uint64_t begin, took, hz = tsc_hz();
	int gso = arg_u64("gso", 0) != 0;

	len = (uint32_t)arg_u64("len", gso ? 65000 : 64);
	batch = (unsigned)arg_u64("batch", 32);
	net_open_as(&net, gso ? NET_F(NET_F_CSUM) | NET_F(NET_F_HOST_TSO4) : 0, pairs);
	if (len < 60)
		len = 60;
	if (len > FRAME - NET_HDR)
		len = FRAME - NET_HDR;
	for (unsigned i = 0; i < pairs; i++)
		make_frame(frame[i] = page_alloc(FRAME), gso);
	CHECK(smp_start(pairs - 1, run) == pairs - 1, "not %u CPUs", pairs);
	begin = tsc();
	until = begin + hz / 1000 * arg_u64("ms", arg_u64("secs", 2) * 1000);
	go = 1;
	run(0);
	while (__atomic_load_n(&finished, __ATOMIC_SEQ_CST) < pairs)
		relax();
	took = tsc() - begin;
	CHECK(done == sent, "%lu packets sent, %lu finished", sent, done);
	print("netbench len=%u queues=%u packets=%lu ns=%lu pps=%lu mbps=%lu\n", len, pairs, done, muldiv(took, 1000000000u, hz),
	      muldiv(done, hz, took), muldiv(done * len * 8 / 1000, hz / 1000, took));
}
