/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Net backend "nat": networks of their own behind a bridge. One network is: a bridge, which is also what tells whether it
 * exists and whose it is (its alias); a table of nftables; forwarding, for kind nat; one dnsmasq with its keeper, which
 * ends when the bridge does. All of it is made and removed with the journal locked exclusively.
 */
#ifndef NAT_NAT_H
#define NAT_NAT_H

#include <limits.h>
#include <netinet/in.h>

#include "bridgedev.h"
#include "plugin.h"

/* ---- want.c: the options, checked; no kernel object yet ---- */

#define NAT_ADDR_TEXT 64

struct nat_want {
	char bridge[16];
	const char *network;        /* the defined network's name; NULL: the bridge's is all there is */
	const struct vh_opts *opts; /* for host= and forward=, by want_host() and want_forward() */
	int nat;                    /* masquerades; else isolated */
	int pick;                   /* the address is still to be found */
	int dhcp, dns;
	int port_isolated;
	struct ip_prefix a4, a6;    /* the host's; family 0: none */
	char text4[NAT_ADDR_TEXT], text6[NAT_ADDR_TEXT];
	uint32_t first, last;       /* what DHCP gives out; host byte order; 0: all that there is */
	const char *domain;         /* NULL: none */
	uint64_t options;           /* a hash of what all users of the network must agree on */
};

struct nat_host {
	uint8_t mac[6];
	int family;
	char addr[INET6_ADDRSTRLEN], name[64];
};

struct nat_forward {
	const char *proto;
	int family;
	unsigned port, to_port;
	char addr[INET6_ADDRSTRLEN];
};

int want_parse(struct nat_want *w, const struct vh_opts *opts, const char *network, const char *kind, struct vh_err *e);
/* Gives a want its IPv4 address, "192.168.7.1/24", and what follows from it. */
int want_address(struct nat_want *w, const char *text, struct vh_err *e);
/* Whether its own address fits what else was asked for; once the address is known. */
int want_check(struct nat_want *w, struct vh_err *e);
int want_host(const char *s, struct nat_host *h);
int want_forward(const char *s, struct nat_forward *f);
void want_range4(const struct nat_want *w, uint32_t *first, uint32_t *last);
void want_net4(const struct nat_want *w, char out[NAT_ADDR_TEXT]); /* "192.168.7.0/24" */
void want_net6(const struct nat_want *w, char out[NAT_ADDR_TEXT]);
int want_bridge_ok(const char *name);

/* ---- subnet.c ---- */

/* A private /24 that no route or address of the host meets; the same for a name as long as it is free. */
int subnet_pick(const char *name, const char *last, char out[NAT_ADDR_TEXT], struct vh_err *e);

/* ---- record.c: what a network consists of, for those who did not make it, in the state folder ---- */

struct nat_record {
	uint64_t options;
	int nat, keep; /* keep: a defined network's leases and address outlive it */
	int ifindex;   /* 0: the bridge is being made */
	char address[NAT_ADDR_TEXT];
};

int record_path(char out[PATH_MAX], const char *state, const char *what, const char *bridge);
int record_put(const char *state, const char *what, const char *bridge, const char *text); /* replaces, or nothing happens */
int record_get(const char *state, const char *what, const char *bridge, char *text, size_t cap); /* -ENOENT */
void record_drop(const char *state, const char *what, const char *bridge);
int record_write(const char *state, const char *bridge, const struct nat_record *r);
int record_read(const char *state, const char *bridge, struct nat_record *r);
int record_scan(const char *state, void (*fn)(void *ctx, const char *bridge), void *ctx);

/* ---- table.c: nftables ---- */

int table_put(const struct nat_want *w, const char *owner, struct vh_err *e); /* atomically instead of what was there */
/* Its rules, without a tag, for table_again(): the options are gone by then. free(); NULL: no memory. */
char *table_text(const struct nat_want *w);
int table_again(const char *bridge, const char *rules, const char *owner, struct vh_err *e);
int table_remove(const char *bridge); /* 1: it was there */
int table_exists(const char *bridge);
/* What other tables do to this network's traffic, for people; each with its remedy. */
int table_obstacles(const struct nat_want *w, void (*fn)(void *ctx, const char *text), void *ctx);

/* ---- sysctl.c ---- */

int sysctl_bridge(const struct nat_want *w, struct vh_err *e);
/* Forwarding for a network of kind nat; what changes is recorded first. */
int sysctl_forward(const char *state, const struct nat_want *w, struct vh_err *e);
/* The steps of it, told only. */
void sysctl_plan(const struct nat_want *w, void (*fn)(void *ctx, const char *text), void *ctx);
int sysctl_restore(const char *state); /* how many were set back */

/* ---- service.c, keeper.c: dnsmasq ---- */

int service_wanted(const struct nat_want *w);
int service_find(struct vh_err *e, const char **path); /* where dnsmasq is */
/* Starts it unless it runs. */
int service_start(const char *state, const struct nat_want *w, int ifindex, struct vh_err *e);
/* Its keeper's process, 0: it does not run. */
int service_pid(const char *state, const char *bridge);
/* Waits for the end of one whose bridge is gone, and helps where it may: 1 it was started, 0 it was not, -errno. */
int service_end(const char *state, const char *bridge);

struct keeper {
	const char *program, *conf, *lock, *pid; /* paths */
	int ifindex;
};

struct keeper_report {
	int result;     /* 0 or a negative errno */
	char text[252]; /* dnsmasq's own words */
};

/* Starts a process that runs dnsmasq and ends with the interface. Explains nothing: *report has it. */
int keeper_start(const struct keeper *k, struct keeper_report *report);

/* ---- network.c ---- */

/* 0: it exists, *br and the want's address are filled in; 1: it does not; -errno: it is somebody else's, or not the same. */
int network_find(struct nl *nl, const char *state, struct nat_want *w, struct nl_link *br, struct vh_err *e);
/* Finds or makes it, and mends what is missing. The journal has `owner` before the first object. *made: it was not there. */
int network_up(struct nl *nl, const char *state, struct nat_want *w, const char *owner, uint16_t mtu, const char *tap,
	       struct nl_link *br, int *made, struct vh_err *e);
/* Removes what is left of networks whose bridge is gone. fn may be NULL. */
int network_sweep(struct nl *nl, const char *state, vh_net_gc_fn *fn, void *ctx);

/* ---- port.c, hold.c, show.c: the plugin's calls ---- */

int port_open(const struct vh_net_open *o, void **port, struct vh_err *e);
void port_close(void *port);
int nat_start(const struct vh_network *n, struct vh_err *e);
int nat_stop(const struct vh_network *n, struct vh_err *e);
int nat_plan(const struct vh_net_open *o, vh_net_step_fn *fn, void *ctx, struct vh_err *e);
int nat_plan_start(const struct vh_network *n, vh_net_step_fn *fn, void *ctx, struct vh_err *e);
int nat_describe(const struct vh_network *n, vh_net_part_fn *fn, void *ctx, struct vh_err *e);

#endif
