/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Tap devices: not persistent, so that the last closed fd removes them, however a process ends. */
#ifndef NET_COMMON_TAP_H
#define NET_COMMON_TAP_H

#include <vhost/net.h>

#define TAP_PAIRS_MAX 256u

struct tap {
	char ifname[16];
	unsigned n; /* queues */
	int fd[TAP_PAIRS_MAX];
};

/* ifname NULL: the kernel's next vnetN. Explains failures (host->err). On failure nothing is left. */
int tap_open(struct tap *t, const struct vh_host *host, const char *ifname, unsigned pairs, struct vh_err *e);
void tap_close(struct tap *t);
uint64_t tap_probe_offload(const struct tap *t); /* VH_NET_* that the kernel takes; leaves all of them off */
int tap_name_check(const char *ifname); /* -EINVAL: no interface can have that name */

#endif
