/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#ifndef BRIDGE_BRIDGE_H
#define BRIDGE_BRIDGE_H

#include "bridgedev.h"
#include "tap.h"

/* The options, checked; no kernel object yet. */
struct bridge_want {
	struct bridgedev_want dev;
	int create, isolated;
};

struct bridge_port {
	struct tap tap;
	struct vh_net_info info;
	int bridge;     /* its ifindex */
	int ours;       /* a vhost made the bridge: the last user removes it */
	char *state, *owner;
};

#endif
