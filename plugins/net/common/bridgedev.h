/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Bridges that vhost makes and removes. All of it with the journal locked exclusively. */
#ifndef NET_COMMON_BRIDGEDEV_H
#define NET_COMMON_BRIDGEDEV_H

#include "ip.h"
#include "nl.h"

struct bridgedev_want {
	char name[16];
	const char *owner;
	uint16_t mtu; /* 0: the kernel's */
	struct ip_prefix address; /* the host's; family 0: none */
	uint8_t mac[6];          /* all zeros: bridgedev_mac() */
	int no_addrgen;          /* it makes no IPv6 address of its own */
	const char *mark, *altname; /* further names; NULL: none */
	/* It looks at VLANs of this protocol (ETH_P_8021Q ...; 0: it does not), ports get this one when they join (0: none), and
	 * the host itself is in none. A kernel that cannot: -EOPNOTSUPP, not explained. */
	uint16_t proto, pvid;
};

/* The name under which it is made, which the journal has before; nobody else's is like it. */
void bridgedev_tmp_name(char tmp[16]);
/* Its address, which depends on its name and the host. */
void bridgedev_mac(const char *name, uint8_t mac[6]);
void bridgedev_want_mac(const struct bridgedev_want *w, uint8_t mac[6]); /* the one that it gets */
int bridgedev_make(struct nl *nl, const struct bridgedev_want *w, const char *tmp, struct nl_link *out, struct vh_err *e);
/* An address for one that another VM has made: *added when it was not there. */
int bridgedev_add_address(struct nl *nl, const struct bridgedev_want *w, int ifindex, int *added, struct vh_err *e);
void bridgedev_drop_address(struct nl *nl, const struct bridgedev_want *w, int ifindex);
/* Removes it if vhost made it, it has no port left, and no network but held (may be NULL) holds it: 1 removed, 0 not, -errno. */
int bridgedev_remove_unused(struct nl *nl, int ifindex, const char *held);

#endif
