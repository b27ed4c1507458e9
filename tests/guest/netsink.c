/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Counts what comes in, for ms= (1000) from the tenth frame on, on queues= (1) queues, each by a CPU of its own; gso=1: large TCP
 * frames uncut, in mergeable buffers. netsink: MAC, then netsink packets=... bytes=... pps=... mbps=...
 */
#include "netdev.h"

static struct net net;
static uint64_t packets[NET_PAIRS][8], bytes[NET_PAIRS][8]; /* a cache line each */
static uint64_t until;
static unsigned finished;
static int mergeable;

static void run(unsigned cpu)
{
	struct vq *rx = net_rx(&net, cpu);
	uint8_t *buf = page_alloc((size_t)NET_BUF * rx->size), *of[VQ_MAX];
	unsigned left = 0, given = 0;
	int counting = 0;
	uint64_t n = 0, b = 0;
	uint32_t len;
	int head;

	for (unsigned i = 0; i < rx->size; i++) {
		struct vbuf v = {buf + (size_t)i * NET_BUF, NET_BUF};
		head = vq_add(rx, &v, 1, 1);
		CHECK(head >= 0, "the receive ring is full");
		of[head] = buf + (size_t)i * NET_BUF;
	}
	vq_kick(rx);
	while (!__atomic_load_n(&until, __ATOMIC_ACQUIRE) || tsc() < until) {
		struct vbuf v;

		head = vq_get(rx, &len);
		if (head < 0) {
			if (given) {
				vq_kick(rx);
				given = 0;
			}
			relax();
			continue;
		}
		v = (struct vbuf){of[head], NET_BUF};
		if (!left) { /* a frame begins */
			left = mergeable ? (unsigned)(of[head][10] | of[head][11] << 8) : 1;
			len -= NET_HDR;
			n++;
		}
		left--;
		b += len;
		head = vq_add(rx, &v, 1, 1);
		of[head] = (uint8_t *)v.p;
		if (++given == 32) {
			vq_kick(rx);
			given = 0;
		}
		if (n == 10 && !__atomic_load_n(&until, __ATOMIC_ACQUIRE))
			__atomic_store_n(&until, tsc() + tsc_hz() / 1000 * arg_u64("ms", 1000), __ATOMIC_RELEASE);
		if (!counting && __atomic_load_n(&until, __ATOMIC_ACQUIRE)) {
			n = b = 0;
			counting = 1;
		}
	}
	packets[cpu][0] = counting ? n : 0;
	bytes[cpu][0] = counting ? b : 0;
	__atomic_add_fetch(&finished, 1, __ATOMIC_SEQ_CST);
}

void guest_main(void)
{
	unsigned pairs = (unsigned)arg_u64("queues", 1);
	uint64_t n = 0, b = 0, ms = arg_u64("ms", 1000);

	mergeable = arg_u64("gso", 0) != 0;
	net_open_as(&net, mergeable ? NET_F(NET_F_GUEST_CSUM) | NET_F(NET_F_GUEST_TSO4) | NET_F(NET_F_MRG_RXBUF) : 0, pairs);
	print("netsink: ");
	for (unsigned i = 0; i < 6; i++)
		print("%02x", net.mac[i]);
	print("\n");
	CHECK(smp_start(pairs - 1, run) == pairs - 1, "not %u CPUs", pairs);
	run(0);
	while (__atomic_load_n(&finished, __ATOMIC_SEQ_CST) < pairs)
		relax();
	for (unsigned i = 0; i < pairs; i++) {
		n += packets[i][0];
		b += bytes[i][0];
	}
	print("netsink packets=%lu bytes=%lu pps=%lu mbps=%lu\n", n, b, n * 1000 / ms, b * 8 / 1000 / ms);
}
