/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "ip.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "plugin.h"

int ip_prefix_parse(const char *s, struct ip_prefix *out, struct vh_err *e)
{
	char addr[INET6_ADDRSTRLEN + 1];
	const char *slash = strchr(s, '/');
	unsigned long prefix;
	char *end;

	if (slash && slash != s && (size_t)(slash - s) < sizeof(addr)) {
		memcpy(addr, s, (size_t)(slash - s));
		addr[slash - s] = '\0';
		prefix = strtoul(slash + 1, &end, 10);
		out->family = inet_pton(AF_INET, addr, out->addr) == 1 ? AF_INET :
			      inet_pton(AF_INET6, addr, out->addr) == 1 ? AF_INET6 : 0;
		if (out->family && slash[1] >= '0' && slash[1] <= '9' && !*end && prefix >= 1 &&
		    prefix <= (out->family == AF_INET ? 32 : 128)) {
			out->prefix = (unsigned)prefix;
			out->text = s;
			return 0;
		}
	}
	out->family = 0;
	net_host->remedy(e, "write it like 192.0.2.1/24 or 2001:db8::1/64");
	return net_host->err(e, -EINVAL, "address '%s' is no IP address with a prefix length", s);
}
