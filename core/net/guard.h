/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What a guest may send: frames that come from its own addresses, and none that only a router or a DHCP server sends. The
 * judgement is a function of the frame's first bytes and of the offload header alone; whoever sends the frame sends the very
 * bytes that were judged, for the guest can change its memory at any time.
 */
#ifndef NET_GUARD_H
#define NET_GUARD_H

#include <stddef.h>
#include <stdint.h>
#include "util/err.h"

#define GUARD_ADDRS 64u
#define GUARD_FIRST 128u /* bytes of a frame that settle nearly every judgement; else it asks for more, */
#define GUARD_MOST 1536u /* of which there are never more: what would need them is malformed */

enum guard_mode {
	GUARD_OFF,
	GUARD_MAC,  /* the source MAC address, and no VLAN tags */
	GUARD_FULL, /* and ARP, IPv4, IPv6, neighbour discovery, no router or DHCP server, nothing else at all */
};

struct guard_addr {
	uint8_t len; /* 4 or 16 */
	uint8_t byte[16];
};

struct guard {
	enum guard_mode mode;
	int tags; /* frames may carry up to two VLAN tags: the port is a trunk */
	uint8_t mac[6];
	unsigned n_addrs;
	struct guard_addr addr[GUARD_ADDRS]; /* besides them the link-local one that follows from the MAC address is the guest's */
};

enum guard_verdict {
	GUARD_PASS,
	GUARD_MORE, /* says nothing yet: again with up to GUARD_MOST bytes */
	GUARD_BAD_MAC,
	GUARD_BAD_TAG,
	GUARD_BAD_ARP,
	GUARD_BAD_IPV4,
	GUARD_BAD_IPV6,
	GUARD_BAD_ND,      /* neighbour discovery in another's name, or in fragments */
	GUARD_BAD_ROUTER,  /* router advertisements and redirects */
	GUARD_BAD_DHCP,    /* what a DHCP server or relay sends */
	GUARD_BAD_TYPE,    /* no protocol that the guard knows */
	GUARD_BAD_FORM,    /* headers that are cut off or contradict themselves */
	GUARD_BAD_OFFLOAD, /* the host's checksum would be written into what was judged */
	GUARD_VERDICTS
};

/* frame: its first `have` bytes of `len`; hdr: the 12 bytes of struct virtio_net_hdr_v1 that go with it. [any] */
enum guard_verdict guard_check(const struct guard *g, const uint8_t *hdr, const uint8_t *frame, size_t have, size_t len);
const char *guard_text(enum guard_verdict v); /* "an ARP packet in another's name" */
int guard_add(struct guard *g, const char *addr, struct vh_err *e); /* 192.0.2.5, 2001:db8::5 */

#endif
