/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A tap as a port of a bridge. */
#ifndef NET_COMMON_BRPORT_H
#define NET_COMMON_BRPORT_H

#include "nl.h"
#include "tap.h"

struct brport_want {
	const char *owner;
	const uint8_t *guest_mac;
	uint16_t mtu; /* 0: the bridge's */
	int isolated; /* from other isolated ports */
	/* Adds requests to the batch that attaches the tap, before it goes up; what they end with is checked. NULL: none. */
	void (*extra)(struct nl *nl, int ifindex, void *ctx);
	void *ctx;
};

/* Not the guest's, or the bridge would take the guest's frames for its own; and of the highest first octet, for a bridge
 * takes its lowest port's address. */
void brport_mac(const uint8_t guest[6], uint8_t mac[6]);
/* Attaches a tap that is just made and sets it up, in one batch; fills in info (all but what is the backend's own). */
int brport_attach(struct nl *nl, const struct tap *tap, const struct brport_want *w, const struct nl_link *br,
		  struct vh_net_info *info, struct vh_err *e);
/* Attaches a port that has been one already to a bridge again, in one batch. up: its link is not down. What is the port's own
 * (address, MTU, tag) stays as it is; of w: isolated, extra. */
int brport_again(struct nl *nl, const struct vh_net_info *info, const struct brport_want *w, const struct nl_link *br, struct vh_err *e);

#endif
