/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What every net plugin has: the host that loaded it, for errors and services. The plugin defines it. */
#ifndef NET_COMMON_PLUGIN_H
#define NET_COMMON_PLUGIN_H

#include <vhost/net.h>

extern const struct vh_host *net_host;

#endif
