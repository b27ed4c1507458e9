/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The parts of the plugin: macvtap.c (ports), network.c (networks), link.c (making links), host.c (the host's own interface on
 * the uplink), tapdev.c (the character device), filter.c (what the guest receives). */
#ifndef MACVTAP_MACVTAP_H
#define MACVTAP_MACVTAP_H

#include <linux/if_link.h>

#include "ip.h"
#include "nl.h"
#include "tapport.h"

#define FILTER_MAX 64u /* multicast addresses of one port; with more it receives all */

/* The options, checked; no kernel object yet. */
struct macvtap_want {
	char uplink[16], host_name[16];
	uint32_t mode; /* MACVLAN_MODE_* */
	int host;      /* an interface of the host's own on the uplink */
	struct ip_prefix address; /* its; family 0: none */
};

struct macvtap_port {
	struct tapport t;
	int uplink; /* its ifindex; that of the interface below when it is a macvlan itself */
	uint32_t mode;
	char host_name[16];
	/* what set_filter() has set */
	uint8_t mac[6];
	int allmulti;
	unsigned n_multicast;
	uint8_t multicast[2 * FILTER_MAX][6];
};

/* macvtap.c */
int macvtap_want(const struct vh_opts *o, struct macvtap_want *w, struct vh_err *e);
const char *macvtap_mode_name(uint32_t mode);

/* link.c */
struct link_want {
	const char *kind; /* "macvtap", "macvlan" */
	const char *tmp;  /* the name under which it is made, which the journal has before; nobody else's is like it */
	const char *name; /* NULL: the kernel's next vnetN */
	const char *owner;
	const uint8_t *mac;
	uint32_t mode, mtu; /* 0: the uplink's */
	int allmulti;
	int quiet; /* no address of the host's making */
};
/* The uplink, or why it cannot be one. */
int link_uplink(struct nl *nl, const struct macvtap_want *w, struct nl_link *up, struct vh_err *e);
void link_tmp_name(char tmp[16]);
/* Makes it, tagged at once, then named and up. On failure nothing is left that can be reached. */
int link_make(struct nl *nl, const struct nl_link *up, const struct link_want *w, struct nl_link *out, struct vh_err *e);

/* host.c: all of it with the journal locked exclusively. */
void host_derive_name(const char *uplink, char name[16]);
/* Finds the interface, which must be vhost's, or makes it. *made, *added: what has to be undone. */
int host_get(struct nl *nl, const struct macvtap_want *w, const struct nl_link *up, const char *owner, const char *tmp,
	     struct nl_link *out, int *made, int *added, struct vh_err *e);
void host_undo(struct nl *nl, const struct macvtap_want *w, const struct nl_link *l, int made, int added);
/* Removes it when no macvtap is left on its uplink and no network but held (may be NULL) holds it. */
int host_remove_unused(struct nl *nl, const char *name, const char *held);

/* tapdev.c: one fd per queue pair. Explains failures; on failure nothing is left open. */
int tapdev_open(struct tap *t, const struct nl_link *l, unsigned pairs, struct vh_err *e);
/* 1: the interface is a wireless one, 0: not, or nobody can tell. */
int tapdev_wireless(const struct nl_link *l);

/* filter.c */
int filter_set(struct macvtap_port *p, const struct vh_net_filter *f, struct vh_err *e);

/* network.c */
int network_start(const struct vh_network *n, struct vh_err *e);
int network_stop(const struct vh_network *n, struct vh_err *e);
int network_plan(const struct vh_network *n, vh_net_step_fn *fn, void *ctx, struct vh_err *e);
int network_describe(const struct vh_network *n, vh_net_part_fn *fn, void *ctx, struct vh_err *e);

#endif
