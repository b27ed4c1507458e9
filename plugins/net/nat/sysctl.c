/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Kernel settings. Those of the bridge go with it. Those of the host that NAT needs are changed only where they are not
 * so already, each written to a file before, and set back in reverse order when the last such network goes; but not where
 * somebody else has changed them since.
 */
#include "nat.h"

#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault.h"
#include "tag.h"

#define FORWARD6 "net/ipv6/conf/all/forwarding"
#define CHANGES_MAX 16384

static int get(const char *name)
{
	char path[256], text[16];
	ssize_t n;
	int fd;

	if (snprintf(path, sizeof(path), "/proc/sys/%s", name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	if (n <= 0)
		return -EIO;
	text[n] = '\0';
	return atoi(text);
}

static int put(const char *name, int value)
{
	char path[256], text[16];
	int fd, r, len;

	if (snprintf(path, sizeof(path), "/proc/sys/%s", name) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	r = NET_FAULT("sysctl");
	if (r)
		return r;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	len = snprintf(text, sizeof(text), "%d\n", value);
	r = write(fd, text, (size_t)len) < 0 ? -errno : 0;
	close(fd);
	return r ? r : NET_FAULT("sysctl answer");
}

static int explain(const char *name, int value, int r, struct vh_err *e)
{
	if (r == -EROFS)
		net_host->remedy(e, "set %s to %d where /proc/sys may be written", name, value);
	else
		net_host->remedy(e, "run as root, or set %s to %d", name, value);
	return net_host->err(e, r, "cannot set %s to %d: %s", name, value, strerror(-r));
}

/* A kernel without IPv6 has none of its settings, and needs none. */
static int set(const char *bridge, const char *family, const char *key, int value, struct vh_err *e)
{
	char name[128];
	int now, r;

	snprintf(name, sizeof(name), "net/%s/conf/%s/%s", family, bridge, key);
	now = get(name);
	if (now == value || (now == -ENOENT && !strcmp(family, "ipv6")))
		return 0;
	r = put(name, value);
	return r < 0 ? explain(name, value, r, e) : 0;
}

int sysctl_bridge(const struct nat_want *w, struct vh_err *e)
{
	int v6 = w->a6.family != 0, r;

	/* No guest is this host's router, nor tells it one. */
	r = set(w->bridge, "ipv6", "accept_ra", 0, e);
	if (!r)
		r = set(w->bridge, "ipv6", "accept_redirects", 0, e);
	if (!r)
		r = set(w->bridge, "ipv4", "accept_redirects", 0, e);
	/* Its addresses work at once, port or not. */
	if (!r)
		r = set(w->bridge, "ipv6", "accept_dad", 0, e);
	if (!r)
		r = set(w->bridge, "ipv6", "disable_ipv6", !v6, e);
	if (!r)
		r = set(w->bridge, "ipv4", "forwarding", w->nat, e);
	if (!r && v6)
		r = set(w->bridge, "ipv6", "forwarding", w->nat, e);
	/* An isolated guest is not told which other addresses the host has. */
	if (!r && !w->nat)
		r = set(w->bridge, "ipv4", "arp_ignore", 1, e);
	return r;
}

struct change {
	const char *state; /* NULL: only told */
	char *text;        /* of the record, CHANGES_MAX */
	void (*fn)(void *ctx, const char *text);
	void *ctx;
	int result;
	char name[128];
	int value;
};

static void record(struct change *c, const char *name, int from, int to)
{
	size_t len = strlen(c->text);

	if (len + 160 > CHANGES_MAX) {
		c->result = -ENOSPC;
		return;
	}
	snprintf(c->text + len, CHANGES_MAX - len, "%s %d %d\n", name, from, to);
	c->result = record_put(c->state, "sysctl", "host", c->text);
}

static void change(struct change *c, const char *name, int from, int to)
{
	char line[256];

	if (c->result)
		return;
	if (!c->state) {
		snprintf(line, sizeof(line), "set %s to %d, and back to %d when the last nat network goes", name, to, from);
		c->fn(c->ctx, line);
		return;
	}
	record(c, name, from, to);
	if (!c->result)
		c->result = put(name, to);
	if (c->result) {
		snprintf(c->name, sizeof(c->name), "%s", name);
		c->value = to;
	}
}

/* A bridge of ours has the setting of its own kind. 1: it is one; -errno, also in *c. */
static int ours(struct change *c, const char *ifname)
{
	struct nl_link l;
	struct nl nl;
	int r = nl_open(&nl);

	if (!r)
		r = nl_link_get(&nl, 0, ifname, &l);
	nl_release(&nl);
	if (r < 0 && r != -ENODEV)
		c->result = r;
	return r < 0 ? r : tag_ours(l.alias);
}

/* Answers come in by any interface that has an address. */
static void forward4(struct change *c, const struct ifaddrs *all)
{
	char name[128];

	for (const struct ifaddrs *a = all; a && !c->result; a = a->ifa_next) {
		if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET || (a->ifa_flags & IFF_LOOPBACK) || strchr(a->ifa_name, ':'))
			continue;
		snprintf(name, sizeof(name), "net/ipv4/conf/%s/forwarding", a->ifa_name);
		if (!get(name) && !ours(c, a->ifa_name))
			change(c, name, 0, 1);
	}
}

/*
 * IPv6 can be forwarded only by all or none, and an interface that forwards takes no router's word any more, unless it is
 * told to (accept_ra=2): without that a host that got its own default route that way would lose it.
 */
static void forward6(struct change *c, const struct ifaddrs *all)
{
	char name[128];

	if (get(FORWARD6) != 0)
		return;
	for (const struct ifaddrs *a = all; a && !c->result; a = a->ifa_next) {
		if (!a->ifa_addr || a->ifa_addr->sa_family != AF_INET6 || (a->ifa_flags & IFF_LOOPBACK))
			continue;
		snprintf(name, sizeof(name), "net/ipv6/conf/%s/accept_ra", a->ifa_name);
		if (get(name) == 1)
			change(c, name, 1, 2);
		/* Setting all back to 0 sets this one to 0 as well. */
		snprintf(name, sizeof(name), "net/ipv6/conf/%s/forwarding", a->ifa_name);
		if (c->state && !c->result && get(name) == 1 && !ours(c, a->ifa_name))
			record(c, name, 1, 0);
	}
	change(c, FORWARD6, 0, 1);
}

static void forward(struct change *c, const struct nat_want *w)
{
	struct ifaddrs *all;

	if (getifaddrs(&all) < 0) {
		c->result = -errno;
		return;
	}
	forward4(c, all);
	if (w->a6.family)
		forward6(c, all);
	freeifaddrs(all);
}

int sysctl_forward(const char *state, const struct nat_want *w, struct vh_err *e)
{
	struct change c = { .state = state, .text = calloc(1, CHANGES_MAX) };
	int r;

	if (!w->nat) {
		free(c.text);
		return 0;
	}
	if (!c.text)
		return net_host->err(e, -ENOMEM, "no memory");
	r = record_get(state, "sysctl", "host", c.text, CHANGES_MAX);
	if (r < 0 && r != -ENOENT) {
		free(c.text);
		return net_host->err(e, r, "cannot read the record of changed settings in %s: %s", state, strerror(-r));
	}
	forward(&c, w);
	free(c.text);
	if (c.result < 0 && !c.name[0])
		return net_host->err(e, c.result, "cannot find out whether the host forwards: %s", strerror(-c.result));
	return c.result < 0 ? explain(c.name, c.value, c.result, e) : 0;
}

void sysctl_plan(const struct nat_want *w, void (*fn)(void *ctx, const char *text), void *ctx)
{
	struct change c = { .fn = fn, .ctx = ctx };

	if (w->nat)
		forward(&c, w);
}

int sysctl_restore(const char *state)
{
	char *text = calloc(1, CHANGES_MAX), *line, name[128];
	int from, to, n = 0, r = text ? record_get(state, "sysctl", "host", text, CHANGES_MAX) : -ENOMEM;

	/* Line by line from the end. */
	while (!r && text[0]) {
		line = strrchr(text, '\n');
		if (line && !line[1])
			*line = '\0';
		line = strrchr(text, '\n');
		line = line ? line + 1 : text;
		if (sscanf(line, "%127s %d %d", name, &from, &to) == 3 && !strncmp(name, "net/ipv", 7) && !strstr(name, "..") &&
		    get(name) == to) {
			r = put(name, from);
			n++;
		}
		*line = '\0';
	}
	free(text);
	if (!r)
		record_drop(state, "sysctl", "host");
	return r == -ENOENT ? 0 : r < 0 ? r : n;
}
