/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A client of a VM's control socket, for commands: blocking, one call at a time. */
#ifndef CTL_CLIENT_H
#define CTL_CLIENT_H

#include <json-glib/json-glib.h>
#include "util/err.h"

struct ctl_client;
#define CTL_MORE 1u    /* several replies: ctl_client_next */
#define CTL_UPGRADE 2u /* bare bytes on ctl_client_fd after the reply */

/* -ENOENT, EXIT_NOT_FOUND: no such VM runs. timeout_ms: for connecting and each reply, < 0: none. */
int ctl_client_open(const char *vm, int timeout_ms, struct ctl_client **out, struct vh_err *e);
/* method: the part behind "org.vhost.VM.", or a whole name. Takes params (NULL: none). reply may be NULL, else the caller's. */
int ctl_client_call(struct ctl_client *c, const char *method, JsonObject *params, unsigned flags, JsonObject **reply,
		    struct vh_err *e);
/* The next reply of a call with CTL_MORE: 1, 0 after the last one or when the VM has ended, -errno. */
int ctl_client_next(struct ctl_client *c, JsonObject **reply, struct vh_err *e);
int ctl_client_fd(const struct ctl_client *c);
/* After CTL_UPGRADE: bytes that came with the reply. */
size_t ctl_client_rest(struct ctl_client *c, void *buf, size_t cap);
/* Waits until the VM's process has closed the connection: 0, -ETIMEDOUT. */
int ctl_client_wait_end(struct ctl_client *c, int timeout_ms);
void ctl_client_free(struct ctl_client *c);

#endif
