/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The parts of the plugin: bridge.c (options, tables), switch.c (the bridge that ports share), port.c (taps on it), repair.c (what
 * others take away), network.c. */
#ifndef BRIDGE_BRIDGE_H
#define BRIDGE_BRIDGE_H

#include "bridgedev.h"
#include "linkwatch.h"
#include "step.h"
#include "tapport.h"

/* The options, checked; no kernel object yet. */
struct bridge_want {
	struct bridgedev_want dev;
	int create, isolated;
	char uplink[16];   /* "": none */
	char altname[128]; /* "": none */
	int have_mac;
};
/* network NULL: of a port by itself. owner may be NULL when nothing is made. */
int bridge_want(const struct vh_opts *opts, const char *network, const char *owner, struct bridge_want *w, struct vh_err *e);
extern const char *const bridge_kinds[];

/* ---- switch.c: the bridge, with its uplink. All with the journal locked: exclusively where something is made or removed. ---- */

struct bridge_switch {
	struct nl_link br;      /* ifindex 0: there is none yet */
	struct nl_link up;      /* the uplink wanted; ifindex 0: none */
	int make, join;         /* what is to be done */
	char tmp[16];           /* the name under which it will be made */
	int made, joined, added; /* what was done */
};
/* Looks, and changes nothing: 0, or why it cannot be. */
int switch_find(struct nl *nl, const struct bridge_want *w, const char *state, struct bridge_switch *s, struct vh_err *e);
void switch_plan(struct nl *nl, const struct bridge_want *w, const struct bridge_switch *s, const struct plan *p);
int switch_up(struct nl *nl, const struct bridge_want *w, const char *state, struct bridge_switch *s, struct vh_err *e);
/* What switch_up() did, backwards. */
void switch_undo(struct nl *nl, const struct bridge_want *w, const char *state, struct bridge_switch *s);
/* [exclusively] Removes a bridge that vhost made and nobody uses, after its uplink has what it had. held: as for
 * bridgedev_remove_unused. 1 removed, 0 not, -errno. */
int switch_down(struct nl *nl, const char *state, int bridge, const char *held);
/* Its ports but the uplink. */
struct switch_ports {
	int bridge, uplink;
	unsigned n;
	char names[160]; /* the first ones, for people */
};
int switch_ports(struct nl *nl, const char *state, int bridge, struct switch_ports *p);

/* ---- port.c ---- */

struct bridge_port {
	struct tapport t;
	int bridge;     /* its ifindex */
	int ours;       /* a vhost made the bridge: the last user removes it */
	struct bridge_want want; /* for repairs: without owner and texts; the MAC address is the one that the bridge has */
	struct linkwatch watch;
	int failed;              /* the last repair, and its undoing may have failed as well */
	char tmp[16];            /* the name under which that one made a bridge, or "" */
};
int bridge_plan(const struct vh_net_open *o, vh_net_step_fn *fn, void *ctx, struct vh_err *e);
int bridge_open(const struct vh_net_open *o, void **port, struct vh_err *e);
void bridge_close(void *port);
/* The journal's entry of a port; tmp: the name under which the bridge is being made, NULL: it is there. */
int bridge_journal(const char *state, const char *owner, const char *tap, const char *bridge, const char *tmp, struct vh_err *e);

/* ---- repair.c ---- */

int bridge_watch(void *port, struct vh_err *e);
int bridge_repair(void *port, vh_net_step_fn *fn, void *ctx, struct vh_err *e);

/* ---- network.c ---- */

int bridge_start(const struct vh_network *n, struct vh_err *e);
int bridge_stop(const struct vh_network *n, struct vh_err *e);
int bridge_plan_start(const struct vh_network *n, vh_net_step_fn *fn, void *ctx, struct vh_err *e);
int bridge_describe(const struct vh_network *n, vh_net_part_fn *fn, void *ctx, struct vh_err *e);

#endif
