/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "passt.h"

#include <arpa/inet.h>
#include <errno.h>
#include <net/if.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vhost/sugar.h>

#include "plugin.h"

static int add(struct args *a, const char *s)
{
	if (a->n == ARGS_MAX)
		return -E2BIG;
	a->v[a->n] = strdup(s);
	if (!a->v[a->n])
		return -ENOMEM;
	a->v[++a->n] = NULL;
	return 0;
}

static int add_pair(struct args *a, const char *option, const char *value)
{
	int r = add(a, option);

	return r ? r : add(a, value);
}

void args_free(struct args *a)
{
	while (a->n)
		free(a->v[--a->n]);
}

/* A port or a range; 0: neither. *ports: how many. */
static int range(const char **at, unsigned *ports)
{
	unsigned long first, last;
	char *end;

	if (**at < '1' || **at > '9')
		return 0;
	first = last = strtoul(*at, &end, 10);
	if (*end == '-') {
		*at = end + 1;
		if (**at < '1' || **at > '9')
			return 0;
		last = strtoul(*at, &end, 10);
	}
	*at = end;
	*ports = (unsigned)(last - first + 1);
	return first <= last && last <= 65535;
}

static int host_part_ok(const char *s, size_t n)
{
	char text[INET6_ADDRSTRLEN + IFNAMSIZ + 1], *dev;
	uint8_t addr[16];

	if (!n || n >= sizeof(text))
		return 0;
	memcpy(text, s, n);
	text[n] = '\0';
	dev = strchr(text, '%');
	if (dev) {
		*dev++ = '\0';
		if (!*dev || strlen(dev) >= IFNAMSIZ)
			return 0;
	}
	return inet_pton(AF_INET, text, addr) == 1 || inet_pton(AF_INET6, text, addr) == 1;
}

/* [ADDRESS[%INTERFACE]/]PORTS[:PORTS],~PORTS,... */
int args_forward_ok(const char *spec)
{
	const char *slash = strchr(spec, '/'), *at = slash ? slash + 1 : spec;
	unsigned here, there, n = 0;

	if (slash && !host_part_ok(spec, (size_t)(slash - spec)))
		return 0;
	for (;; at++) {
		int except = *at == '~';

		at += except;
		if (!range(&at, &here))
			return 0;
		if (*at == ':' && !except) {
			at++;
			if (!range(&at, &there) || there != here)
				return 0;
		}
		n += !except;
		if (*at != ',')
			return !*at && n;
	}
}

static int address_ok(const char *s, int *family, char *addr, size_t cap, unsigned *prefix)
{
	const char *slash = strchr(s, '/');
	size_t n = slash ? (size_t)(slash - s) : strlen(s);
	uint8_t bin[16];
	char *end;

	if (!n || n >= cap)
		return 0;
	memcpy(addr, s, n);
	addr[n] = '\0';
	*family = inet_pton(AF_INET, addr, bin) == 1 ? AF_INET : inet_pton(AF_INET6, addr, bin) == 1 ? AF_INET6 : 0;
	*prefix = 0;
	if (slash) {
		if (*family != AF_INET || slash[1] < '1' || slash[1] > '9')
			return 0;
		*prefix = (unsigned)strtoul(slash + 1, &end, 10);
		if (*end || *prefix > 32)
			return 0;
	}
	return *family != 0;
}

static int add_address(struct args *a, const char *option, const char *name, const char *value, int mask, struct vh_err *e)
{
	char addr[INET6_ADDRSTRLEN + 1], text[16];
	unsigned prefix;
	int family, r;

	if (!address_ok(value, &family, addr, sizeof(addr), &prefix) || (prefix && !mask)) {
		net_host->remedy(e, mask ? "write it like 192.0.2.2/24 or 2001:db8::2" : "write it like 192.0.2.1 or 2001:db8::1");
		return net_host->err(e, -EINVAL, "%s=%s is no IP address", name, value);
	}
	r = add_pair(a, option, addr);
	snprintf(text, sizeof(text), "%u", prefix);
	return !r && prefix ? add_pair(a, "--netmask", text) : r;
}

static int add_option(struct args *a, const struct vh_val *v, unsigned *forwards, struct vh_err *e)
{
	if (!strcmp(v->name, "tcp") || !strcmp(v->name, "udp")) {
		if (!args_forward_ok(v->str)) {
			net_host->remedy(e, "write it like 2222:22, 8000-8010 or 127.0.0.1/8080:80");
			return net_host->err(e, -EINVAL, "%s=%s names no ports", v->name, v->str);
		}
		++*forwards;
		return add_pair(a, v->name[0] == 't' ? "--tcp-ports" : "--udp-ports", v->str);
	}
	if (!strcmp(v->name, "address"))
		return add_address(a, "--address", v->name, v->str, 1, e);
	if (!strcmp(v->name, "gateway"))
		return add_address(a, "--gateway", v->name, v->str, 0, e);
	if (!strcmp(v->name, "dns"))
		return strcmp(v->str, "none") ? add_address(a, "--dns", v->name, v->str, 0, e) : add_pair(a, "--dns", "none");
	return 0;
}

/* Fixed places, not PATH: who may set that may not choose what a privileged process runs. */
static const char *find_program(const struct vh_opts *o, struct vh_err *e)
{
	static const char *const at[] = { "/usr/bin/passt", "/usr/local/bin/passt" };
	const char *given = vh_opt_str(o, "program", NULL);

	if (given && given[0] == '/' && !access(given, X_OK))
		return given;
	for (unsigned i = 0; i < 2 && !given; i++)
		if (!access(at[i], X_OK))
			return at[i];
	if (given)
		net_host->err(e, -ENOENT, "%s cannot be run: %s", given, given[0] == '/' ? strerror(errno) : "not an absolute path");
	else {
		net_host->remedy(e, "install the package passt, or give program=PATH");
		net_host->err(e, -ENOENT, "passt is not installed (neither %s nor %s)", at[0], at[1]);
	}
	return NULL;
}

int args_make(struct args *a, const struct vh_opts *o, uint16_t mtu, struct vh_err *e)
{
	const char *program = find_program(o, e);
	unsigned tcp = 0, udp = 0;
	char text[16];
	int r;

	a->n = 0;
	if (!program)
		return -ENOENT;
	snprintf(text, sizeof(text), "%u", mtu ? mtu : PASST_MTU);
	r = add(a, program);
	r = r ? r : add(a, "--foreground");
	r = r ? r : add(a, "--quiet");
	r = r ? r : add(a, "--stderr");
	r = r ? r : add_pair(a, "--mtu", text);
	snprintf(text, sizeof(text), "%d", PASST_FD);
	r = r ? r : add_pair(a, "--fd", text);
	/* Else the guest reaches what listens on the host's loopback, by the gateway's address. */
	if (!r && !vh_opt_num(o, "loopback", 0))
		r = add(a, "--no-map-gw");
	for (uint32_t i = 0; i < o->n && !r; i++)
		if (o->val[i]->str)
			r = add_option(a, o->val[i], o->val[i]->name[0] == 't' ? &tcp : &udp, e);
	/* Said, because passt forwards the UDP ports of the TCP ones otherwise. */
	r = r || tcp ? r : add_pair(a, "--tcp-ports", "none");
	r = r || udp ? r : add_pair(a, "--udp-ports", "none");
	if (r == -E2BIG)
		net_host->err(e, r, "more options than passt is given at once");
	else if (r == -ENOMEM)
		net_host->err(e, r, "no memory for passt's arguments");
	if (r)
		args_free(a);
	return r;
}
