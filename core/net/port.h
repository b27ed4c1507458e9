/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A NIC's host side: a net plugin's port with its fds set up (header size, offloads, queues on and off). */
#ifndef NET_PORT_H
#define NET_PORT_H

#include <vhost/net.h>
#include "util/err.h"

struct net_port;
struct net_config {
	const struct vh_net_ops *ops;
	const char *type;    /* the plugin's id, by which the helper loads it; NULL: ops->kind */
	const struct vh_opts *opts;
	unsigned pairs;
	uint8_t mac[6];
	uint16_t mtu;        /* 0: the backend's */
	uint64_t offload;    /* VH_NET_* wanted */
	const char *ifname;  /* or NULL */
	const char *vm;      /* the VM's name, for the owner tag */
	unsigned index;      /* of the NIC in its VM */
	const char *state;   /* not used: the journal is one for all VMs, PATH_STATE/.net/ */
	const char *network, *kind; /* the defined network that it is in; NULL: none */
};
/* [main], or any one thread: in the helper when there is one (helper.h), else here. */
int net_port_open(const struct net_config *c, struct net_port **out, struct vh_err *e);
void net_port_close(struct net_port *p);
const struct vh_net_info *net_port_info(const struct net_port *p); /* offload: what the fds really can */
const char *net_port_network(const struct net_port *p); /* NULL: of none */
int net_port_fd(const struct net_port *p, unsigned pair); /* non-blocking; a tap: IFF_VNET_HDR with 12-byte headers */
/* What the guest can receive, within info's offload (VH_NET_TSO4 and others need VH_NET_CSUM); none at first. */
int net_port_set_offload(struct net_port *p, uint64_t offload);
int net_port_set_pairs(struct net_port *p, unsigned active); /* TUNSETQUEUE; at first all are on */
/* -EOPNOTSUPP, and set_link without a text: the backend cannot; the device stops its queues (lets all pass) itself. Either way
 * info's link follows. */
int net_port_set_link(struct net_port *p, int up, struct vh_err *e);
int net_port_set_filter(struct net_port *p, const struct vh_net_filter *f, struct vh_err *e);
/* [any] The device says that a stream's other side is gone: info's link is down from now on. */
void net_port_lost(struct net_port *p);
int net_port_plan(const struct net_config *c, vh_net_step_fn *fn, void *ctx, struct vh_err *e);
struct net_port_stats { uint64_t rx_packets, rx_bytes, rx_errors, rx_dropped, tx_packets, tx_bytes, tx_errors, tx_dropped; };
/* The kernel's counts, as the guest sees them: rx is what it received. [any], one netlink call. */
int net_port_stats(const struct net_port *p, struct net_port_stats *out);
/* The interface's bridge or other master, "" when it has none; -ENODEV. [any] */
int net_master(const char *ifname, char master[16]);
/* Removes what dead VMs left, in every loaded net plugin that can; run at the start of commands that make ports. */
int net_gc(const struct vh_net_ops *ops, vh_net_gc_fn *fn, void *ctx, struct vh_err *e);
/* 02:... from the VM's name and the NIC's index: the same at every start. */
void net_mac_derive(const char *vm, unsigned index, uint8_t mac[6]);
/* Owner tags: "vhost:NAME:PID:STARTTIME:INDEX" (STARTTIME from /proc/PID/stat, so that pids may be reused), and a network's that
 * is held (network.h). */
char *net_owner_tag(const char *vm, unsigned index);
int net_owner_alive(void *unused, const char *owner); /* 1 also for what is no tag */
/* When a process started, in clock ticks since boot; -ESRCH: there is none, or only its zombie. */
int net_proc_start(int pid, uint64_t *start);

#endif
