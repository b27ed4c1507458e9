/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The parts of `vhost vm`, and what `vhost net list` needs of them. */
#ifndef CMD_VM_H
#define CMD_VM_H

#include "cmd/cmd.h"
#include "ctl/client.h"

/* One call to a VM's control socket. Takes params; reply may be NULL. */
int vm_ask(const char *vm, int timeout_ms, const char *method, JsonObject *params, JsonObject **reply, struct vh_err *e);
void vm_print_json(JsonObject *o); /* one line */
/* Members of a reply, which may lack them: NULL, 0. */
const char *vm_text(JsonObject *o, const char *name);
int64_t vm_num(JsonObject *o, const char *name);
JsonObject *vm_element(JsonObject *o, const char *array, unsigned i); /* NULL behind the last one */

int vm_run_info(struct cmd_ctx *c, struct vh_err *e);    /* vm-show.c */
int vm_run_stats(struct cmd_ctx *c, struct vh_err *e);
int vm_run_balloon(struct cmd_ctx *c, struct vh_err *e);
int vm_run_snapshot(struct cmd_ctx *c, struct vh_err *e); /* vm-disk.c */
int vm_run_resize_disk(struct cmd_ctx *c, struct vh_err *e);
int vm_run_link(struct cmd_ctx *c, struct vh_err *e);    /* vm-link.c */
int vm_run_limit(struct cmd_ctx *c, struct vh_err *e);   /* vm-nic.c */
extern const struct vh_opt *const vm_limit_options[];
int vm_run_console(struct cmd_ctx *c, struct vh_err *e); /* vm-console.c */

#endif
