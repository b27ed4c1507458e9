/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the parts of virtio-net share: virtio-net.c (set-up, configuration), -rxtx.c (packets), -ctrl.c (control queue). */
#ifndef DEV_VIRTIO_NET_I_H
#define DEV_VIRTIO_NET_I_H

/* The kernel's name for the configuration's layout is the name of our parameters in dev/virtio.h. */
#define virtio_net_config virtio_net_space
#include <linux/virtio_net.h>
#undef virtio_net_config
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include "dev/virtio.h"
#include "net/port.h"
#include "util/log.h"

#define NET_QUEUE_SIZE 256u
#define NET_MACS 64u      /* of each table */
#define NET_HEADER 12u    /* struct virtio_net_hdr_v1, which the tap has, too */
#define NET_FRAME 14u     /* the least that is a packet */
#define NET_SCRATCH 65792u
#define NET_RX_IOV 1023u  /* with the scratch buffer behind them all that readv takes */
#define NET_RX_CHAIN 512u /* iovecs of one receive buffer */
#define NET_RX_WANT 64u   /* receive buffers offered to one readv */

/* What passes to the guest. Each pair has a copy on its own loop. */
struct net_filter {
	uint8_t mac[6];
	uint8_t promisc, allmulti, alluni, nomulti, nouni, nobcast;
	uint8_t vlans_on; /* the driver keeps the VLAN table */
	uint8_t uni_overflow, multi_overflow;
	uint16_t n_uni, n_multi;
	uint8_t uni[NET_MACS][6], multi[NET_MACS][6];
	uint64_t vlan[64];
};

struct net;
struct net_stream;
struct net_pair {
	struct net *net;
	unsigned index;
	int fd;
	struct vh_loop *loop;
	struct virtio_queue *rx, *tx;
	/* [queue] */
	struct vh_watch *watch;
	uint8_t rx_on, tx_on;    /* the queue runs */
	uint8_t active;          /* the driver uses this pair, and the link is up */
	uint8_t starved;         /* no receive buffers: the tap is not watched */
	uint8_t blocked;         /* the tap takes no more */
	uint8_t dead;            /* the tap failed */
	uint8_t link, mergeable, filtering;
	unsigned rx_want;        /* receive buffers that the last packets needed */
	unsigned rx_hot;         /* polls of the tap before it is left to epoll again */
	struct net_filter filter;
	struct vh_task update;
	struct iovec *iov;       /* NET_RX_IOV + 1 */
	struct iovec *tx_iov;    /* 2 * VQ_MAX_CHAIN */
	struct io_uring ring;    /* for batches of sent packets, while the queue runs */
	int have_ring;
	struct net_stream *stream; /* NULL: the fd is a tap's */
	uint8_t *scratch;        /* NET_SCRATCH: the tail of a packet that the offered buffers did not hold */
	uint64_t rx_packets, tx_packets, rx_dropped, tx_dropped;
};

struct net {
	struct virtio_dev dev;
	struct net_port *port;
	unsigned n_pairs;
	struct net_pair *pair;
	char *label;
	uint8_t mac[6]; /* the one it began with */
	struct vh_loop *loop; /* the control queue's */
	struct vh_task tell;
	/* Under the device's lock. */
	struct virtio_net_space config;
	struct net_filter filter;
	unsigned active; /* pairs */
	int link;
};

static inline struct net *net_of(struct virtio_dev *d)
{
	return container_of(d, struct net, dev);
}
/* The control queue follows the pairs in use: which index it has depends on whether multi-queue was negotiated. */
static inline unsigned net_ctrl_index(const struct net *n)
{
	return virtio_has(&n->dev, VIRTIO_NET_F_MQ) ? 2 * n->n_pairs : 2;
}

void net_rx_start(struct net_pair *p);
void net_rx_stop(struct net_pair *p);
void net_tx_start(struct net_pair *p);
void net_tx_stop(struct net_pair *p);
int net_rx_run(struct net_pair *p);    /* packets moved */
int net_tx_run(struct net_pair *p);
void net_rx_buffers(struct net_pair *p); /* the driver says that there are new ones */
void net_pair_watch(struct net_pair *p); /* [queue] the fd's events, as the pair is now */
/* -stream.c: a pair whose fd is a stream socket. [queue], but for the first two. */
int net_stream_new(struct net_pair *p);
void net_stream_free(struct net_pair *p); /* also after net_stream_new() failed */
int net_stream_broken(const struct net_pair *p);
void net_stream_rx_start(struct net_pair *p);
int net_stream_rx(struct net_pair *p);
int net_stream_tx(struct net_pair *p);
void net_pair_update(struct vh_task *t); /* [queue] takes over filter, activity and link */
void net_update_pairs(struct net *n);    /* [any] posts that to all */
void net_ctrl_run(struct virtio_queue *q);
void net_tell_filter(struct vh_task *t); /* [control queue's loop] tells the port what passes */
int net_set_offloads(struct net *n, uint64_t guest); /* bits VIRTIO_NET_F_GUEST_* */

#endif
