/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What a port of taps is, whatever it hangs on: the first member of a plugin's own, and the calls of the vtable that need no more. */
#ifndef NET_COMMON_TAPPORT_H
#define NET_COMMON_TAPPORT_H

#include "tap.h"

struct tapport {
	struct tap tap;
	struct vh_net_info info;
	char *state, *owner; /* open()'s, copied: of the journal's entry */
};

int tapport_keep(struct tapport *p, const struct vh_net_open *o); /* -ENOMEM; tapport_drop() either way */
void tapport_drop(struct tapport *p);                             /* the copies */
int tapport_info(void *port, struct vh_net_info *i);
int tapport_queue_fd(void *port, uint32_t pair, struct vh_err *e);
int tapport_set_link(void *port, uint32_t up, struct vh_err *e);

#endif
