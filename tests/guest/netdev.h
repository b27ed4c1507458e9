/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A virtio-net device for the guests net*: one pair of queues and no offloads, or what net_open_as is asked for. */
#ifndef GUEST_NETDEV_H
#define GUEST_NETDEV_H

#include "lib/guest.h"

#define NET_F(n) (UINT64_C(1) << (n))
#define NET_F_MAC NET_F(5)
enum { NET_F_CSUM = 0, NET_F_GUEST_CSUM = 1, NET_F_GUEST_TSO4 = 7, NET_F_HOST_TSO4 = 11, NET_F_MRG_RXBUF = 15, NET_F_CTRL_VQ = 17, NET_F_MQ = 22 };
#define NET_PAIRS 4u
#define NET_HDR 12
#define NET_BUF 2048

struct net { struct virtio v; struct vq *rx, *tx; uint8_t mac[6]; uint8_t *rx_buf, *tx_buf; uint8_t *tx_of_head[VQ_MAX], *rx_of_head[VQ_MAX]; };

static inline void net_give(struct net *n, uint8_t *buf)
{
	struct vbuf b = {buf, NET_BUF};
	int head = vq_add(n->rx, &b, 1, 1);
	CHECK(head >= 0, "the receive ring is full");
	n->rx_of_head[head] = buf;
}

/* Of pair i; net.rx and net.tx are the first one's. */
static inline struct vq *net_rx(struct net *n, unsigned i) { return &n->v.vq[2 * i]; }
static inline struct vq *net_tx(struct net *n, unsigned i) { return &n->v.vq[2 * i + 1]; }

/* Without buffers, and all pairs in use. */
static inline void net_open_as(struct net *n, uint64_t features, unsigned pairs)
{
	static struct { uint8_t class, cmd; uint16_t pairs; volatile uint8_t ack; } order = {4, 0, 0, 0xff};
	struct vbuf b[3] = {{&order, 2}, {&order.pairs, 2}, {(const void *)&order.ack, 1}};

	CHECK(pairs && pairs <= NET_PAIRS, "%u pairs", pairs);
	if (pairs > 1)
		features |= NET_F(NET_F_CTRL_VQ) | NET_F(NET_F_MQ);
	CHECK(virtio_open(&n->v, VIRTIO_NET, (unsigned)arg_u64("nic", 0), features | NET_F_MAC), "no network card");
	CHECK((n->v.features & features) == features, "the card offers %lx of %lx", n->v.features, features);
	for (unsigned i = 0; i < 2 * pairs; i++)
		CHECK(virtio_queue(&n->v, i, VQ_MAX), "no queue %u", i);
	n->rx = net_rx(n, 0);
	n->tx = net_tx(n, 0);
	if (pairs > 1) {
		unsigned ctrl = 2 * virtio_config(&n->v, 8, 2);
		CHECK(ctrl >= 2 * pairs && ctrl < 16 && virtio_queue(&n->v, ctrl, VQ_MAX), "%u pairs are offered", ctrl / 2);
		virtio_ok(&n->v);
		order.pairs = (uint16_t)pairs;
		CHECK(vq_add(&n->v.vq[ctrl], b, 3, 1) >= 0, "no room for a command");
		vq_kick(&n->v.vq[ctrl]);
		for (uint64_t end = now_ns() + 5000000000u; vq_get(&n->v.vq[ctrl], NULL) < 0;)
			CHECK(now_ns() < end, "no answer to a command");
		CHECK(!order.ack, "%u pairs are refused", pairs);
	} else {
		virtio_ok(&n->v);
	}
	for (unsigned i = 0; i < 6; i++)
		n->mac[i] = (uint8_t)virtio_config(&n->v, i, 1);
}

static inline void net_open(struct net *n)
{
	net_open_as(n, 0, 1);
	n->rx_buf = page_alloc((size_t)NET_BUF * n->rx->size);
	n->tx_buf = page_alloc((size_t)NET_BUF * n->tx->size);
	for (unsigned i = 0; i < n->rx->size; i++)
		net_give(n, n->rx_buf + (size_t)i * NET_BUF);
	vq_kick(n->rx);
}

#endif
