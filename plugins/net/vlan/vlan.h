/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A VLAN of an uplink, built in one of two ways. device: a VLAN device on the uplink and a bridge of its own, both shared by the
 * ports of that VLAN. filter: one VLAN-filtering bridge for all VLANs of the uplink, which is a port of it. What is shared is found
 * again by its mark, an alternative name that tells uplink and id; its alias is the owner tag.
 */
#ifndef VLAN_VLAN_H
#define VLAN_VLAN_H

#include "bridgedev.h"
#include "brvlan.h"
#include "linkwatch.h"
#include "step.h"
#include "tapport.h"

/* The options, checked. */
struct vlan_want {
	char uplink[16];
	uint16_t id;      /* 0: none, as for trunks */
	uint16_t native;  /* what is untagged on this port, 0: nothing */
	uint16_t proto;   /* ETH_P_8021Q, ETH_P_8021AD */
	uint8_t filter, trunk, isolated, named; /* named: bridge= was given */
	struct vlan_set tagged, ids; /* ids: all that the port carries */
	char bridge[16], altname[64]; /* how the bridge is to be called, and its long name or "" */
	char bridge_mark[64], dev_mark[64];
	uint16_t mtu;     /* 0: the uplink's */
	const char *owner;
};

/* What is there. An ifindex of 0: it is not. */
struct vlan_shared {
	struct nl_link uplink, bridge, dev; /* dev: the VLAN device; none with filter */
	struct nl_link taken;               /* a VLAN device that is not ours and takes one of our ids */
};

struct vlan_port {
	struct tapport t;
	struct vlan_want want; /* owner is not kept */
	/* For repairs: what the port lay on when it was last whole, by number, and the tag of the bridge. */
	int bridge, uplink, dev;
	char maker[256];
	struct linkwatch watch;
	int failed;            /* the last repair, and its undoing may have failed as well */
	char tmp_bridge[16], tmp_dev[16]; /* the names under which that one made things, or "" */
};

/* A port's VLANs, in the batch that attaches it (brport_want.extra): at no time it carries anything else. */
struct port_vlans {
	const struct vlan_want *w;
	int uplink; /* 0: there is none now */
};
void put_vlans(struct nl *nl, int ifindex, void *ctx);
/* The journal's entry of a port; the names under which things are made. */
int vlan_journal(const char *state, const char *owner, const char *tmp_bridge, const char *tmp_dev, struct vh_err *e);

/* want.c. o may be NULL: a network's options only. */
int vlan_want(const struct vh_opts *opts, const struct vh_net_open *o, struct vlan_want *w, struct vh_err *e);
/* The name of the VLAN device, of at most 15 characters; full: "UPLINK.ID". try 0, 1: where the first one is taken. */
void vlan_dev_name(const struct vlan_want *w, unsigned tries, char out[16], char full[32]);
/* 0: "VLAN 10 of eth0", "a trunk on eth0": how errors call it */
const char *vlan_called(const struct vlan_want *w, char *out, size_t cap);

/* shared.c: with the journal locked exclusively, but for find. */
int shared_find(struct nl *nl, const struct vlan_want *w, struct vlan_shared *s, struct vh_err *e);
/* Whether it can be made or used; also what find cannot see. */
int shared_check(struct nl *nl, const struct vlan_want *w, struct vlan_shared *s, struct vh_err *e);
/* The part of it that is about the bridge. */
int shared_check_bridge(struct nl *nl, const struct vlan_want *w, struct vlan_shared *s, struct vh_err *e);
/* Makes what is missing, under these names first; without an uplink the bridge alone. Undoes itself. *made: anything was made. */
int shared_make(struct nl *nl, const struct vlan_want *w, const char *tmp_bridge, const char *tmp_dev, struct vlan_shared *s, int *made,
		struct vh_err *e);
/* Removes what nobody uses any more, and held (a network's tag, may be NULL) may let go: 1 removed, 0 in use or not to be removed. */
int shared_drop(struct nl *nl, const struct vlan_want *w, const char *held);
/* The highest MTU that a port can have. */
uint32_t shared_mtu(const struct vlan_want *w, const struct vlan_shared *s);
/* Whether l is a port of the bridge that somebody uses it by: not the uplink's side. */
int shared_is_user(const struct vlan_want *w, const struct vlan_shared *s, const struct nl_link *l);
/* The steps that make would do. */
void shared_plan(const struct plan *p, const struct vlan_want *w, const struct vlan_shared *s);
int vlan_netlink_error(struct nl *nl, int r, const char *what, const char *name, struct vh_err *e);

/* network.c */
int vlan_start(const struct vh_network *n, struct vh_err *e);
int vlan_stop(const struct vh_network *n, struct vh_err *e);
int vlan_plan_start(const struct vh_network *n, vh_net_step_fn *fn, void *ctx, struct vh_err *e);
int vlan_describe(const struct vh_network *n, vh_net_part_fn *fn, void *ctx, struct vh_err *e);

/* repair.c */
void vlan_seen(struct vlan_port *p, const struct vlan_shared *s); /* the port is whole */
int vlan_watch(void *port, struct vh_err *e);
int vlan_repair(void *port, vh_net_step_fn *fn, void *ctx, struct vh_err *e);

/* gc.c */
int vlan_gc(const char *state, int (*alive)(void *ctx, const char *owner), vh_net_gc_fn *fn, void *ctx, struct vh_err *e);

#endif
