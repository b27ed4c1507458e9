/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Receive buffers and filters: what packets from a tap (-rxtx.c) and from a stream (-stream.c) have in common. */
#ifndef DEV_VIRTIO_NET_RX_H
#define DEV_VIRTIO_NET_RX_H

#include "dev/virtio-net-i.h"

struct net_rx_batch {
	struct {
		uint16_t head;
		uint32_t len;
	} buf[NET_QUEUE_SIZE];
	unsigned n;     /* buffers */
	unsigned n_iov; /* their iovecs, in p->iov */
	size_t len;
};

#define RX_HOT 32 /* empty polls of the fd before it is left to epoll */

/* Tells the guest of what was received since, and how soon to look again. */
static inline int net_rx_moved(struct net_pair *p, uint64_t before)
{
	int n = (int)(p->rx_packets + p->rx_dropped - before);

	virtio_queue_flush(p->rx);
	if (n)
		p->rx_hot = RX_HOT;
	else if (p->rx_hot)
		p->rx_hot--;
	return n;
}

/* One more receive buffer. 1, 0: there is none, < 0: broken. */
static inline int net_rx_take(struct net_pair *p, struct net_rx_batch *b)
{
	struct vq_chain c = {.iov = p->iov + b->n_iov, .cap = NET_RX_CHAIN};
	int r;

	if (b->n == NET_QUEUE_SIZE || b->n_iov > NET_RX_IOV - NET_RX_CHAIN)
		return 0;
	r = vq_pop(&p->rx->vq, &c);
	if (r <= 0)
		return r;
	if (c.in_len < NET_HEADER)
		return vq_break(&p->rx->vq, "a receive buffer has no room for the header");
	if (c.n_out)
		memmove(c.iov, c.iov + c.n_out, c.n_in * sizeof(*c.iov));
	b->buf[b->n].head = c.head;
	b->buf[b->n].len = (uint32_t)c.in_len;
	b->n++;
	b->n_iov += c.n_in;
	b->len += c.in_len;
	return 1;
}

static inline int net_mac_in(const uint8_t mac[6], const uint8_t (*table)[6], unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		if (!memcmp(mac, table[i], 6))
			return 1;
	return 0;
}

static inline int net_passes(const struct net_filter *f, const uint8_t *frame, size_t len)
{
	static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	if (f->promisc)
		return 1;
	if (f->vlans_on && len >= 16 && frame[12] == 0x81 && frame[13] == 0) {
		unsigned vid = (frame[14] << 8 | frame[15]) & 0xfff;

		if (!(f->vlan[vid / 64] >> (vid % 64) & 1))
			return 0;
	}
	if (frame[0] & 1) {
		if (!memcmp(frame, broadcast, 6))
			return !f->nobcast;
		if (f->nomulti)
			return 0;
		return f->allmulti || f->multi_overflow || net_mac_in(frame, f->multi, f->n_multi);
	}
	if (f->nouni)
		return 0;
	return f->alluni || f->uni_overflow || !memcmp(frame, f->mac, 6) || net_mac_in(frame, f->uni, f->n_uni);
}

#endif
