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
#include "net/guard.h"
#include "net/port.h"
#include "net/rate.h"
#include "util/log.h"

#define NET_QUEUE_SIZE 256u
#define NET_MACS 64u      /* of each table */
#define NET_HEADER 12u    /* struct virtio_net_hdr_v1, which the tap has, too */
#define NET_FRAME 14u     /* the least that is a packet */
#define NET_SCRATCH 65792u
#define NET_RX_IOV 1023u  /* with the scratch buffer behind them all that readv takes */
#define NET_RX_CHAIN 512u /* iovecs of one receive buffer */
#define NET_RX_WANT 64u   /* receive buffers offered to one readv */
#define NET_TX_BATCH 32
#define NET_TX_IOV (2 * VQ_MAX_CHAIN + 2)

enum { NET_IN, NET_OUT }; /* as the guest sees it */

/* What Linux 6.1 has no names for. */
#ifndef VIRTIO_NET_F_HOST_USO
#define VIRTIO_NET_F_GUEST_USO4 54
#define VIRTIO_NET_F_GUEST_USO6 55
#define VIRTIO_NET_F_HOST_USO 56
#endif
#define NET_GUEST_OFFLOADS                                                                                                     \
	(VIRTIO_BIT(VIRTIO_NET_F_GUEST_CSUM) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO4) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_TSO6) |     \
	 VIRTIO_BIT(VIRTIO_NET_F_GUEST_ECN) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_UFO) | VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO4) |       \
	 VIRTIO_BIT(VIRTIO_NET_F_GUEST_USO6))

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

struct net_tx {
	struct iovec *iov;
	unsigned n_iov; /* 0: it goes nowhere */
	uint16_t head;
	uint8_t guard; /* because of the guard */
	uint32_t len;
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
	uint8_t limited[2];      /* by NET_IN, NET_OUT: there is a limit, */
	uint8_t held[2];         /* and it is used up: the timer goes on */
	struct vh_timer *timer[2];
	unsigned rx_want;        /* receive buffers that the last packets needed */
	unsigned rx_hot;         /* polls of the tap before it is left to epoll again */
	struct net_filter filter;
	struct vh_task update, announce;
	struct iovec *iov;       /* NET_RX_IOV + 1 */
	struct iovec *tx_iov;    /* NET_TX_IOV */
	int vhost, err_fd, call_fd[2]; /* vhost-net's, -1: none */
	uint8_t kernel[2];       /* the kernel serves that ring; atomic for readers */
	uint8_t backend[2];      /* and moves packets */
	struct vh_watch *call_watch[2], *err_watch;
	uint8_t *judged;         /* with a guard: what it saw of each packet of a batch, which is what is sent */
	struct io_uring ring;    /* for batches of sent packets, while the queue runs */
	int have_ring;
	struct net_stream *stream; /* NULL: the fd is a tap's */
	uint8_t *scratch;        /* NET_SCRATCH: the tail of a packet that the offered buffers did not hold */
	uint64_t rx_packets, tx_packets, rx_bytes, tx_bytes, rx_dropped, tx_dropped, guard_dropped; /* atomic for readers */
};

struct net {
	struct virtio_dev dev;
	struct net_port *port;
	unsigned n_pairs;
	struct net_pair *pair;
	char *label;
	uint8_t mac[6]; /* the one it began with */
	struct guard guard;
	struct rate rate[2];
	int kernel_can; /* every pair has a vhost-net */
	int kernel;     /* atomic: it is to be used */
	uint64_t guard_told; /* atomic: when its last complaint was */
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

/* A counter of one thread that others read. */
static inline void net_count(uint64_t *c, uint64_t n)
{
	__atomic_store_n(c, *c + n, __ATOMIC_RELAXED);
}

void net_rx_start(struct net_pair *p);
void net_rx_stop(struct net_pair *p);
void net_tx_start(struct net_pair *p);
void net_tx_stop(struct net_pair *p);
int net_rx_run(struct net_pair *p);    /* packets moved */
int net_tx_run(struct net_pair *p);
void net_rx_buffers(struct net_pair *p); /* the driver says that there are new ones */
/* -stream.c: a pair whose fd is a stream socket. [queue], but for the first two. */
int net_stream_new(struct net_pair *p);
void net_stream_free(struct net_pair *p); /* also after net_stream_new() failed */
int net_stream_broken(const struct net_pair *p);
void net_stream_rx_start(struct net_pair *p);
int net_stream_rx(struct net_pair *p);
int net_stream_tx(struct net_pair *p);
void net_pair_update(struct vh_task *t); /* [queue] takes over filter, activity and link */
void net_update_pairs(struct net *n);    /* [any] posts that to all */
void net_watch(struct net_pair *p);      /* [queue] the tap is watched for what is waited for */
/* virtio-net-vhost.c, [queue] but for the first three */
int net_vhost_new(struct net *n, const struct virtio_net_config *c, struct vh_err *e);
void net_vhost_free(struct net *n);
void net_vhost_negotiated(struct net *n);           /* lock held: features are known, no queue runs */
int net_vhost_start(struct net_pair *p, int dir);   /* 1: the kernel serves it; 0: it is ours */
int net_vhost_stop(struct net_pair *p, int dir);    /* 1: it was the kernel's */
void net_vhost_update(struct net_pair *p);          /* active, link, vectors; whether the kernel still may */
/* virtio-net-limit.c, [queue] but for the first */
int net_limit_new(struct net *n, const struct virtio_net_config *c, struct vh_err *e);
void net_limit_free(struct net *n);
int net_hold(struct net_pair *p, int dir);   /* 1: the limit is used up; goes on by itself */
void net_release(struct net_pair *p, int dir); /* forgets that; the caller goes on */
/* 1: the packet may go, and its iovecs are now the judged bytes and the rest; slot: its place in the batch. There is one
 * free iovec before t->iov. */
int net_judge(struct net_pair *p, struct net_tx *t, unsigned slot);
void net_announce(struct vh_task *t);
void net_ctrl_run(struct virtio_queue *q);
void net_tell_filter(struct vh_task *t); /* [control queue's loop] tells the port what passes */
int net_set_offloads(struct net *n, uint64_t guest); /* bits VIRTIO_NET_F_GUEST_* */

#endif
