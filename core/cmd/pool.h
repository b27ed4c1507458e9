/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#ifndef CMD_POOL_H
#define CMD_POOL_H

#include "cmd/store-cmd.h"

/* pool-start.c */
int pool_run_start(struct cmd_ctx *c, struct vh_err *e);
/* Allowed, and looked at; was: it was allowed before. What does not work is as it was. */
int pool_start(const char *name, int was, struct vh_err *e);
extern const struct vh_opt *const pool_start_options[];
/* pool-caps.c */
int pool_run_capabilities(struct cmd_ctx *c, struct vh_err *e);
extern const char pool_capabilities_help[];

#endif
