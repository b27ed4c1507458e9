/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The parts of `vhost net`. */
#ifndef CMD_NET_H
#define CMD_NET_H

#include <stdio.h>
#include "cmd/store-cmd.h"
#include "net/network.h"

#define NET(VERB, ARGS, SUMMARY, RUN, ...)                                                                             \
	&(const struct cmd){ .noun = "net", .verb = VERB, .args = ARGS, .summary = SUMMARY, .run = RUN, ##__VA_ARGS__ }

/* net-ports.c: every NIC of the VMs that run; the reply of their control sockets. */
int net_ports(int (*fn)(void *ctx, const char *vm, unsigned index, JsonObject *nic), void *ctx, struct vh_err *e);
int net_run_ports(struct cmd_ctx *c, struct vh_err *e);
/* net-def.c */
int net_run_define(struct cmd_ctx *c, struct vh_err *e);
int net_run_delete(struct cmd_ctx *c, struct vh_err *e);
int net_run_autostart(struct cmd_ctx *c, struct vh_err *e);
int net_run_start(struct cmd_ctx *c, struct vh_err *e);
int net_run_stop(struct cmd_ctx *c, struct vh_err *e);
extern const struct vh_opt *const net_define_options[];
/* "started", "stopped", ... */
const char *net_state_word(enum network_state s);
/* net-info.c */
int net_run_list(struct cmd_ctx *c, struct vh_err *e);
int net_run_info(struct cmd_ctx *c, struct vh_err *e);
extern const struct vh_opt *const net_info_options[];
/* What a part is called, and what is said of it: "vnet0", "port, VM web NIC 0, VLAN 10 untagged"; g_free. */
char *net_part_text(const struct network_part *p);
/* net-draw.c */
void net_draw_text(FILE *f, const struct network_parts *p);
void net_draw_dot(FILE *f, const char *title, const struct network_parts *p);
void net_draw_svg(FILE *f, const char *title, const struct network_parts *p);

#endif
