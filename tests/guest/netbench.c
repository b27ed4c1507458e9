/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Sends frames of len= (64) bytes as fast as the ring takes them, for secs= (2): netbench len=... packets=... ns=... pps=... */
#include "netdev.h"

static struct net net;

void guest_main(void)
{
	uint64_t begin, end, sent = 0, done = 0, took, hz = tsc_hz();
	uint32_t len = (uint32_t)arg_u64("len", 64);
	unsigned batch = (unsigned)arg_u64("batch", 32), next = 0;

	net_open(&net);
	if (len < 60)
		len = 60;
	if (len > NET_BUF - NET_HDR)
		len = NET_BUF - NET_HDR;
	for (unsigned i = 0; i < net.tx->size; i++) {
		uint8_t *f = net.tx_buf + (size_t)i * NET_BUF + NET_HDR;
		memset(f, 0xff, 6);
		f[0] = 2; /* to nobody: a local address */
		memcpy(f + 6, net.mac, 6);
		f[12] = 0x88; /* local experimental */
		f[13] = 0xb5;
	}
	begin = tsc();
	end = begin + hz / 1000 * arg_u64("ms", arg_u64("secs", 2) * 1000);
	while (tsc() < end) {
		unsigned n = 0;
		while (vq_get(net.tx, NULL) >= 0)
			done++;
		for (; n < batch; n++) {
			struct vbuf b = {net.tx_buf + (size_t)(next % net.tx->size) * NET_BUF, NET_HDR + len};
			if (vq_add(net.tx, &b, 1, 0) < 0)
				break;
			next++;
			sent++;
		}
		if (n)
			vq_kick(net.tx);
		else
			relax();
	}
	while (done < sent && tsc() < end + hz)
		if (vq_get(net.tx, NULL) >= 0)
			done++;
	took = tsc() - begin;
	CHECK(done == sent, "%lu packets sent, %lu finished", sent, done);
	print("netbench len=%u packets=%lu ns=%lu pps=%lu\n", len, done, muldiv(took, 1000000000u, hz),
	      muldiv(done, hz, took));
}
