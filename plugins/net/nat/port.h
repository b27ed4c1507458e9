/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A port of a network: port.c, and repair.c, which puts back what it needs. */
#ifndef NAT_PORT_H
#define NAT_PORT_H

#include "heard.h"
#include "nat.h"
#include "tapport.h"

struct nat_port {
	struct tapport t;
	int bridge;           /* its ifindex */
	char table_name[24];  /* "vhost_BRIDGE" */
	char *rules;          /* table_text(): what to install again */
	struct heard watch;   /* look: the table may be gone */
};

int port_watch(void *port, struct vh_err *e);
int port_repair(void *port, vh_net_step_fn *fn, void *ctx, struct vh_err *e);

#endif
