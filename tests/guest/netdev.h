/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A virtio-net device for the guests netecho and netbench: one pair of queues, no offloads. */
#ifndef GUEST_NETDEV_H
#define GUEST_NETDEV_H

#include "lib/guest.h"

#define NET_F_MAC (UINT64_C(1) << 5)
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

static inline void net_open(struct net *n)
{
	CHECK(virtio_open(&n->v, VIRTIO_NET, (unsigned)arg_u64("nic", 0), NET_F_MAC), "no network card");
	CHECK(virtio_queue(&n->v, 0, VQ_MAX) && virtio_queue(&n->v, 1, VQ_MAX), "no queues");
	n->rx = &n->v.vq[0];
	n->tx = &n->v.vq[1];
	virtio_ok(&n->v);
	for (unsigned i = 0; i < 6; i++)
		n->mac[i] = (uint8_t)virtio_config(&n->v, i, 1);
	n->rx_buf = page_alloc((size_t)NET_BUF * n->rx->size);
	n->tx_buf = page_alloc((size_t)NET_BUF * n->tx->size);
	for (unsigned i = 0; i < n->rx->size; i++)
		net_give(n, n->rx_buf + (size_t)i * NET_BUF);
	vq_kick(n->rx);
}

#endif
