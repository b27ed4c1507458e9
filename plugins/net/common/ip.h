/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* An IP address with its prefix length, as people write it. */
#ifndef NET_COMMON_IP_H
#define NET_COMMON_IP_H

#include <stdint.h>
#include <vhost/host.h>

struct ip_prefix {
	int family; /* AF_INET, AF_INET6; 0: none */
	unsigned prefix;
	uint8_t addr[16];
	const char *text; /* borrowed */
};

/* "192.0.2.1/24" or "2001:db8::1/64". Explains failures. */
int ip_prefix_parse(const char *s, struct ip_prefix *out, struct vh_err *e);

#endif
