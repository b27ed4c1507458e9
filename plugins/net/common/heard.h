/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A netlink socket that hears what others do: for watch() and repair() of a port. */
#ifndef NET_COMMON_HEARD_H
#define NET_COMMON_HEARD_H

#include <vhost/net.h>

struct nl_msg;
struct nl_sock;
struct heard {
	struct nl_sock *sock; /* NULL: nobody listens */
	int look;             /* there may be something to repair */
};

/* The fd; the first look is due then. on_message sets `look`; of: "interfaces". Explains failures. */
int heard_open(struct heard *h, int protocol, int group, int (*on_message)(struct nl_msg *msg, void *ctx), void *ctx, const char *of,
	       struct vh_err *e);
/* Reads all that has come; when some was lost there may be something to repair. It is for the caller to clear `look`, once all is
 * well. */
void heard_read(struct heard *h);
void heard_close(struct heard *h);

#endif
