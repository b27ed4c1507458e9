/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the parts of networks share. */
#ifndef NET_NETWORK_I_H
#define NET_NETWORK_I_H

#include "net/network.h"

/* network-hold.c: whoever changes definitions or holds has it: an fd to close, or -errno with text. Waits for a while. */
int network_lock(struct vh_err *e);
/* port.c: the folder of journals, made; g_free. */
char *net_state_folder(struct vh_err *e);
/* network.c: there is a file, readable or not */
int network_defined(const char *name);

#endif
