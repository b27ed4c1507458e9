/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Networks: definitions with a name (PATH_CONFIG/networks/NAME.conf), from which NICs of `--net NAME` take their plugin and its
 * options; and which of them are held (PATH_STATE/.net/networks/NAME), so that what they need stays without a NIC. One that is
 * not held comes with its first NIC and goes with its last.
 */
#ifndef NET_NETWORK_H
#define NET_NETWORK_H

#include <glib.h>
#include <vhost/net.h>
#include "plug/options.h"
#include "util/err.h"

struct network {
	char *name, *kind, *type; /* type: the plugin's id */
	struct kvs options;       /* the network's, as given */
	int autostart;
};

/* network.c: definitions. type NULL: the plugin that makes the kind. 1: it is defined so already. -EEXIST: otherwise. */
int network_define(const char *name, const char *kind, const char *type, const struct kvs *options, struct vh_err *e);
int network_load(const char *name, struct network *out, struct vh_err *e); /* -ENOENT */
void network_clear(struct network *n);
int network_delete(const char *name, struct vh_err *e); /* -EBUSY: it is started */
int network_set_autostart(const char *name, int on, struct vh_err *e);
int network_names(int (*fn)(void *ctx, const char *name), void *ctx, struct vh_err *e); /* sorted; broken files too */

/* network-kind.c: the plugin that makes networks of a kind, and the options that are a network's or a NIC's. */
int network_kind_find(const char *kind, char type[VH_ID_MAX], struct vh_err *e);
int network_kind_check(const struct vh_net_ops *ops, const char *type, const char *kind, struct vh_err *e);
/* [kind, plugin] pairs of everything that is found; fn may be called with the same kind more than once. */
int network_kinds(int (*fn)(void *ctx, const char *kind, const char *type), void *ctx);
/* Without those of a NIC; g_free. */
vh_schema network_schema(const struct vh_net_ops *ops);
int network_options(const struct network *n, const struct vh_net_ops *ops, struct optset **out, struct vh_err *e);
/* What open() gets: the network's, and the NIC's own from `line`, in which no option of the network may be. */
int network_nic_options(const struct network *n, const struct vh_net_ops *ops, const struct kvs *line, struct optset **out,
			struct vh_err *e);

/* network-hold.c */
enum network_state { NETWORK_STOPPED, NETWORK_STARTED, NETWORK_CHANGING /* by a process that lives */, NETWORK_LEFT /* by a dead one */ };
enum network_state network_state(const char *name);
/* Both may block. 1: there was nothing to do but to make what was missing; there was nothing to stop. */
int network_start(const char *name, struct vh_err *e);
int network_stop(const char *name, struct vh_err *e);
/* What start and stop were doing when they died, and networks without a definition, are held no more: before gc(). */
int network_forget_dead(struct vh_err *e);
int network_held(const char *owner); /* for net_owner_alive: of a tag "vhost:@NAME:ID"; 1 also for what is no tag */
int network_plan(const struct network *n, vh_net_step_fn *fn, void *ctx, struct vh_err *e);

/* network-parts.c: what describe() told, checked and copied. */
struct network_part {
	char *kind, *name, *above, *owner, *detail; /* UTF-8; above, owner, detail: NULL when there is none */
	char *vm;         /* whose the port is, by its owner tag; NULL: nobody's */
	int nic;          /* and which of its NICs */
	uint32_t ifindex, mtu;
	uint8_t mac[6];
	int have_mac, up;
	int parent;       /* index of the part above, -1: none; never a cycle */
	unsigned depth;
};
#define NETWORK_PARTS_MAX 4096u
struct network_parts { struct network_part *v; unsigned n; int cut; /* more were told than are kept */ };
int network_describe(const struct network *n, struct network_parts *out, struct vh_err *e);
void network_parts_clear(struct network_parts *p);

#endif
