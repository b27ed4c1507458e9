/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What others do to interfaces, as the kernel tells it: for watch() and repair() of a port. */
#ifndef NET_COMMON_LINKWATCH_H
#define NET_COMMON_LINKWATCH_H

#include "heard.h"

struct link_change {
	int ifindex, master, gone; /* gone: it was removed */
	char name[16];
};

struct linkwatch {
	struct heard heard;
	int (*concerns)(void *ctx, const struct link_change *c);
	void *ctx;
};

/* The fd, of a socket that hears of every interface; the first look is due then. Explains failures. */
int linkwatch_open(struct linkwatch *w, int (*concerns)(void *ctx, const struct link_change *c), void *ctx, struct vh_err *e);

#endif
