/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#ifndef BRIDGE_BRIDGE_H
#define BRIDGE_BRIDGE_H

#include "nl.h"
#include "tap.h"

extern const struct vh_host *bridge_host;

/* The options, checked; no kernel object yet. */
struct bridge_want {
	char name[16];
	int create, isolated;
	int family; /* of the address, 0: none */
	unsigned prefix;
	uint8_t addr[16];
	const char *addr_text;
	uint16_t mtu;
	const char *owner;
};

struct bridge_port {
	struct tap tap;
	struct vh_net_info info;
	int bridge;     /* its ifindex */
	int ours;       /* a vhost made the bridge: the last user removes it */
	char *state, *owner;
};

/* make.c: [locked exclusively] the bridge itself. tmp: the name under which it is made, as the journal has it. */
void bridge_tmp_name(char tmp[16]);
void bridge_mac(const char *name, uint8_t mac[6]);
int bridge_make(struct nl *nl, const struct bridge_want *w, const char *tmp, struct nl_link *out, struct vh_err *e);
/* An address for one that another VM has made: *added when it was not there. */
int bridge_add_address(struct nl *nl, const struct bridge_want *w, int ifindex, int *added, struct vh_err *e);
void bridge_drop_address(struct nl *nl, const struct bridge_want *w, int ifindex);
/* Removes it if vhost made it and it has no port left: 1 removed, 0 not ours or in use, -errno. */
int bridge_remove_unused(struct nl *nl, int ifindex);

int bridge_gc(const char *state, int (*alive)(void *ctx, const char *owner), vh_net_gc_fn *fn, void *ctx, struct vh_err *e);

#endif
