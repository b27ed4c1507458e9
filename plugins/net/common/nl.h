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

#define NL_BATCH_MAX 1024u /* what one system call takes */

struct nl_link {
	int ifindex, master;
	int link;               /* what it lies on (a VLAN's parent, a macvlan's uplink), in this namespace; 0: nothing */
	unsigned at;            /* the request of the batch that it answers */
	uint32_t mtu, flags;
	uint32_t macvlan_mode;  /* macvlans and macvtaps: MACVLAN_MODE_* */
	uint16_t type;          /* ARPHRD_* */
	char name[16], kind[16], alias[256];
	char mark[64];          /* its alternative name that begins with "vhost.", or "" */
	uint8_t mac[6];
	uint8_t stp;            /* bridges: spanning tree runs */
	uint32_t forward_delay; /* bridges: hundredths of a second */
	int addrgen;            /* IN6_ADDR_GEN_MODE_*, -1: no IPv6 */
	uint8_t filtering;      /* bridges: they look at VLANs */
	uint16_t pvid;          /* such bridges: what a port gets when it joins; 0: none */
	uint16_t vlan, proto;   /* VLAN devices: id, ETH_P_8021Q or ETH_P_8021AD (this of bridges as well) */
};

struct nl_msg;
struct nl_sock;

/* Not to be moved while it is open. */
struct nl {
	struct nl_sock *sock;
	int fd;                  /* the socket's, for ioctls */
	unsigned n, cap;         /* requests in the batch; room for them, 8 at least */
	int bad;                 /* the first -errno while the batch was put together */
	int done;                /* the batch's last request is answered */
	uint32_t first;          /* sequence number of the batch's first request */
	int *result;             /* of each request, after nl_commit */
	char text[128];          /* the kernel's words for the first failure, or "" */
	void (*link)(void *ctx, const struct nl_link *l); /* gets every link of a reply */
	void (*raw)(void *ctx, struct nlmsghdr *h); /* gets every message of a list, instead of link */
	void *ctx;
	struct nl_msg **msg;
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
/* Any other request, which begins with this struct. */
void nl_begin(struct nl *nl, uint16_t type, uint16_t flags, const void *head, size_t len);
void nl_put(struct nl *nl, uint16_t type, const void *data, size_t len);
void nl_put_u8(struct nl *nl, uint16_t type, uint8_t v);
void nl_put_u16(struct nl *nl, uint16_t type, uint16_t v);
void nl_put_u32(struct nl *nl, uint16_t type, uint32_t v);
void nl_put_str(struct nl *nl, uint16_t type, const char *s);
size_t nl_nest(struct nl *nl, uint16_t type);      /* a mark for nl_nest_end */
void nl_nest_end(struct nl *nl, size_t mark);
/* Sends the batch and waits for every result. Returns the first failure of a request (result[] has them all), or that of
 * the socket. An empty batch is 0. */
int nl_commit(struct nl *nl);
/* Asks for one link, within a batch whose last request is a question as well: nl->link gets it. alt: by an alternative name. */
void nl_link_ask(struct nl *nl, int ifindex, const char *name, const char *alt);
/* Another name for a link, of up to 127 bytes; ifindex 0: the link named name. */
void nl_altname(struct nl *nl, int ifindex, const char *name, const char *alt);
/* One link by index or, ifindex 0, by name: -ENODEV. */
int nl_link_get(struct nl *nl, int ifindex, const char *name, struct nl_link *out);
/* Every link (master 0) or those enslaved to master. -EAGAIN: they changed meanwhile, and some may have been left out. */
int nl_link_dump(struct nl *nl, int master, void (*fn)(void *ctx, const struct nl_link *l), void *ctx);
/* Every address (RTM_GETADDR) or route (RTM_GETROUTE) of a family, as the kernel tells it. -EAGAIN as above. */
int nl_raw_dump(struct nl *nl, uint16_t type, int family, void (*fn)(void *ctx, struct nlmsghdr *h), void *ctx);
/* Asks for every link of a kind, as the last of a batch; a kernel that does not know the kind tells of all. */
void nl_ask_kind(struct nl *nl, const char *kind);
/* Sets the alias, in a batch of its own. */
int nl_link_alias(struct nl *nl, int ifindex, const char *alias);
int nl_link_delete(struct nl *nl, int ifindex, const char *name);
/* Sends a batch whose first request may fail: the first failure of the others, or of the socket. */
int nl_commit_but_first(struct nl *nl);

#endif
