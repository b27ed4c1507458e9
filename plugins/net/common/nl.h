/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * rtnetlink for the net plugins: several requests go to the kernel in one system call, which works them off without a
 * chance for a signal in between, so a batch is one step as far as our own sudden death is concerned. A request that fails
 * does not hold back those behind it: callers order a batch so that this does no harm.
 *
 * libnl-3 makes, sends and reads the messages, libnl-route-3 fills in what it has a call for: addresses and deletions. It
 * has no bridge's STP state or forward delay and no port isolation, its link objects cannot be read without their
 * statistics, and its calls that also send wait for each answer: links are therefore put together here.
 */
#ifndef NET_COMMON_NL_H
#define NET_COMMON_NL_H

#include <linux/rtnetlink.h>
#include <stdint.h>
#include <vhost/host.h>

#define NL_BATCH_MAX 8u

struct nl_link {
	int ifindex, master;
	int link;               /* what it lies on: a macvlan's uplink */
	uint32_t mtu, flags;
	uint32_t macvlan_mode;  /* macvlans and macvtaps: MACVLAN_MODE_* */
	uint16_t type;          /* ARPHRD_* */
	char name[16], kind[16], alias[256];
	uint8_t mac[6];
	uint8_t stp;            /* bridges: spanning tree runs */
	uint32_t forward_delay; /* bridges: hundredths of a second */
};

struct nl_msg;
struct nl_sock;

/* Not to be moved while it is open. */
struct nl {
	struct nl_sock *sock;
	int fd;                  /* the socket's, for ioctls */
	unsigned n;              /* requests in the batch */
	int bad;                 /* the first -errno while the batch was put together */
	int done;                /* the batch's last request is answered */
	uint32_t first;          /* sequence number of the batch's first request */
	int result[NL_BATCH_MAX]; /* of each request, after nl_commit */
	char text[128];          /* the kernel's words for the first failure, or "" */
	void (*link)(void *ctx, const struct nl_link *l); /* gets every link of a reply */
	void *ctx;
	struct nl_msg *msg[NL_BATCH_MAX];
};

int nl_open(struct nl *nl); /* -errno; nl_release is harmless then */
void nl_release(struct nl *nl); /* libnl has an nl_close */

/* A link request; ifindex 0: by name (IFLA_IFNAME is added when name is not NULL). Up: 1 up, 0 down, -1 as it is. */
void nl_link_begin(struct nl *nl, uint16_t type, uint16_t flags, int family, int ifindex, const char *name, int up);
/* Other flags of the request that was begun last: IFF_ALLMULTI. */
void nl_link_flags(struct nl *nl, unsigned flags, unsigned change);
/* A request of its own: no IPv6 address of the host's making, for it shall have none on a guest's side. A kernel without IPv6
 * refuses it, which is as good: put it first in a batch and look at the results of the others. */
void nl_link_no_ipv6(struct nl *nl, int ifindex);
/* RTM_NEWADDR, -EEXIST if it is there, or RTM_DELADDR. */
void nl_addr(struct nl *nl, uint16_t type, int family, const void *addr, unsigned prefix, int ifindex);
void nl_put(struct nl *nl, uint16_t type, const void *data, size_t len);
void nl_put_u8(struct nl *nl, uint16_t type, uint8_t v);
void nl_put_u32(struct nl *nl, uint16_t type, uint32_t v);
void nl_put_str(struct nl *nl, uint16_t type, const char *s);
size_t nl_nest(struct nl *nl, uint16_t type);      /* a mark for nl_nest_end */
void nl_nest_end(struct nl *nl, size_t mark);
/* Sends the batch and waits for every result. Returns the first failure of a request (result[] has them all), or that of
 * the socket. An empty batch is 0. */
int nl_commit(struct nl *nl);
/* One link by index or, ifindex 0, by name: -ENODEV. */
int nl_link_get(struct nl *nl, int ifindex, const char *name, struct nl_link *out);
/* Every link (master 0) or those enslaved to master. -EAGAIN: they changed meanwhile, and some may have been left out. */
int nl_link_dump(struct nl *nl, int master, void (*fn)(void *ctx, const struct nl_link *l), void *ctx);
int nl_link_delete(struct nl *nl, int ifindex, const char *name);
/* Sends a batch whose first request may fail: the first failure of the others, or of the socket. */
int nl_commit_but_first(struct nl *nl);

#endif
