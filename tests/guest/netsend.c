/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Sends the frames frame=HEX frame=HEX ..., M in them for the card's MAC address, times= (1) over; then waits for secs= (0). */
#include "netdev.h"

static struct net net;

static unsigned digit(char c)
{
	return (unsigned)(c <= '9' ? c - '0' : (c | 32) - 'a' + 10);
}

static uint32_t frame(unsigned n, uint8_t *to)
{
	static char hex[2048];
	uint32_t len = 0;

	if (!arg_next("frame", n, hex, sizeof(hex)))
		return 0;
	for (const char *p = hex; *p && len < NET_BUF - NET_HDR - 64;) {
		if (*p == 'M') {
			memcpy(to + len, net.mac, 6);
			len += 6;
			p++;
		} else if (p[1]) {
			to[len++] = (uint8_t)(digit(p[0]) << 4 | digit(p[1]));
			p += 2;
		} else {
			break;
		}
	}
	for (; len < 60; len++)
		to[len] = 0;
	return len;
}

void guest_main(void)
{
	uint64_t times = arg_u64("times", 1), sent = 0, done = 0, end;
	unsigned next = 0;

	net_open(&net);
	for (uint64_t t = 0; t < times; t++)
		for (unsigned i = 0;; i++) {
			uint8_t *f = net.tx_buf + (size_t)(next % net.tx->size) * NET_BUF;
			uint32_t len = frame(i, f + NET_HDR);
			struct vbuf b = {f, NET_HDR + len};
			if (!len)
				break;
			memset(f, 0, NET_HDR);
			while (vq_add(net.tx, &b, 1, 0) < 0) /* full: those that went first are done with */
				while (vq_get(net.tx, NULL) >= 0)
					done++;
			vq_kick(net.tx);
			next++;
			sent++;
		}
	print("netsend: ok sent=%lu\n", sent);
	end = tsc() + tsc_hz() * arg_u64("secs", 0);
	while (tsc() < end && done < sent)
		if (vq_get(net.tx, NULL) >= 0)
			done++;
	print("netsend: done=%lu\n", done);
	while (tsc() < end)
		relax();
}
