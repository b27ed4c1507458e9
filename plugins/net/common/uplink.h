/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * An interface of the host as a bridge's uplink. Its addresses and routes move to the bridge, and back when the bridge goes; the
 * host stays reachable all the time: what is to serve is added before what served is removed. A record beside the journals,
 * "uplink:IFINDEX" of the bridge, is written before the first change and removed after the last. All of it with the journal
 * locked exclusively, on bridges that vhost made.
 */
#ifndef NET_COMMON_UPLINK_H
#define NET_COMMON_UPLINK_H

#include "nl.h"
#include "step.h"

/* Whether the interface can be one; explains why it cannot. bridge: its ifindex, 0: it is still to be made. */
int uplink_check(struct nl *nl, const char *name, int bridge, struct nl_link *out, struct vh_err *e);
/* Nothing to do for one that is. On failure everything is as before. */
int uplink_join(struct nl *nl, const char *state, const struct nl_link *up, const struct nl_link *br, struct vh_err *e);
int uplink_plan(struct nl *nl, const struct nl_link *up, const char *bridge, const struct plan *p, struct vh_err *e);
/* The bridge's uplink, by its record: its ifindex and name, or 0. */
int uplink_of(const char *state, int bridge, char name[16]);
/* Moves everything back; of a bridge that is gone, what the record has. What cannot be is logged, for the bridge is about to go. 0
 * also when it has none. */
int uplink_leave(struct nl *nl, const char *state, int bridge);
/* gc: records of bridges that are gone: what was on their uplinks comes back, unless somebody has given them addresses. fn may
 * be NULL. */
void uplink_collect(struct nl *nl, const char *state, void (*fn)(void *ctx, const char *uplink, int result), void *ctx);

#endif
