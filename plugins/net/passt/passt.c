/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Net backend "passt": networking without any privilege. The guest's packets become sockets of the host in a passt process. */
#include "passt.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vhost/sugar.h>

#include "fault.h"
#include "journal.h"
#include "plugin.h"
#include "step.h"

const struct vh_host *net_host;

struct passt_port {
	struct child child;
	struct vh_net_info info;
	char *state, *owner;
};

static int check(const struct vh_net_open *o, struct vh_err *e)
{
	if ((o->flags & VH_MUST_UNDERSTAND) & ~VH_NET_OPEN_DRY_RUN)
		return net_host->err(e, -EOPNOTSUPP, "a flag of this open is unknown to this plugin");
	if (!journal_owner_ok(o->owner))
		return net_host->err(e, -EINVAL, "the host gave the owner tag '%s'", o->owner ? o->owner : "");
	if (o->pairs != 1) {
		net_host->remedy(e, "leave out queues=");
		return net_host->err(e, -EINVAL, "%u queue pairs, but user networking has one", o->pairs);
	}
	if (o->ifname) {
		net_host->remedy(e, "leave out ifname=");
		return net_host->err(e, -EINVAL, "user networking has no interface that could be named %s", o->ifname);
	}
	return 0;
}

static int passt_plan(const struct vh_net_open *o, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	struct plan p = { fn, ctx };
	char line[220] = "";
	struct args a;
	int r = check(o, e);

	r = r ? r : args_make(&a, o->opts, o->mtu, e);
	if (r < 0)
		return r;
	for (unsigned i = 1; i < a.n && strlen(line) + strlen(a.v[i]) + 6 < sizeof(line); i++)
		snprintf(line + strlen(line), sizeof(line) - strlen(line), " %s", a.v[i]);
	step(&p, "start %s%s", a.v[0], line);
	step(&p, "connect the guest to it by a socket; no interface is made");
	args_free(&a);
	return 0;
}

static int note(const struct vh_net_open *o, const struct child *c, struct vh_err *e)
{
	char text[256];
	int r;

	snprintf(text, sizeof(text), "passt %d %" PRIu64 "\n%s%s%s", (int)c->pid, c->start, o->network ? "network " : "",
		 o->network ? o->network : "", o->network ? "\n" : "");
	r = journal_write(o->state, o->owner, text);
	return r < 0 ? net_host->err(e, r, "cannot write the journal in %s: %s", o->state, strerror(-r)) : 0;
}

static void port_free(struct passt_port *p)
{
	if (!p)
		return;
	free(p->state);
	free(p->owner);
	free(p);
}

static struct passt_port *port_new(const struct vh_net_open *o)
{
	struct passt_port *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->child = (struct child){ .pidfd = -1, .sock = -1 };
	p->state = strdup(o->state);
	p->owner = strdup(o->owner);
	if (!p->state || !p->owner) {
		port_free(p);
		return NULL;
	}
	p->info = (struct vh_net_info){ .path = VH_NET_PATH_STREAM, .ifname = "passt", .pairs = 1, .mtu = o->mtu ? o->mtu : PASST_MTU,
					.link = 1 };
	memcpy(p->info.mac, o->mac, 6);
	return p;
}

static int passt_open(const struct vh_net_open *o, void **port, struct vh_err *e)
{
	struct passt_port *p;
	struct args a;
	int r;

	if (o->flags & VH_NET_OPEN_DRY_RUN) {
		*port = NULL;
		return passt_plan(o, NULL, NULL, e);
	}
	r = check(o, e);
	if (!r && !o->state)
		r = net_host->err(e, -EINVAL, "the host gave no folder for the journal");
	r = r ? r : args_make(&a, o->opts, o->mtu, e);
	if (r < 0)
		return r;
	p = port_new(o);
	if (!p)
		r = net_host->err(e, -ENOMEM, "no memory for a port");
	/* Twice: before it is started, and when its number is known. In between its socket alone ends it. */
	r = r ? r : note(o, &p->child, e);
	r = r ? r : child_start(&p->child, &a, e);
	args_free(&a);
	r = r ? r : note(o, &p->child, e);
	if (!r) {
		*port = p;
		return 0;
	}
	if (p) {
		child_end(&p->child);
		journal_remove(p->state, p->owner);
		port_free(p);
	}
	return r;
}

static int passt_info(void *port, struct vh_net_info *i)
{
	struct passt_port *p = port;
	uint32_t size = i->size;

	p->info.size = size;
	memcpy(i, &p->info, size < sizeof(p->info) ? size : sizeof(p->info));
	return 0;
}

static int passt_queue_fd(void *port, uint32_t pair, struct vh_err *e)
{
	struct passt_port *p = port;

	return pair ? net_host->err(e, -EINVAL, "user networking has no queue pair %u", pair) : p->child.sock;
}

static void passt_close(void *port)
{
	struct passt_port *p = port;

	/* One that lives on is gc()'s, by its entry. */
	if (child_end(&p->child))
		journal_remove(p->state, p->owner);
	port_free(p);
}

struct collect {
	const char *state;
	int (*alive)(void *ctx, const char *owner);
	vh_net_gc_fn *fn;
	void *ctx;
};

static void check_entry(void *ctx, const char *owner, const char *text)
{
	const struct collect *c = ctx;
	char what[40];
	uint64_t start;
	int pid, r;

	if (sscanf(text, "passt %d %" SCNu64, &pid, &start) != 2 || c->alive(c->ctx, owner))
		return;
	r = child_kill(pid, start);
	snprintf(what, sizeof(what), "process passt %d", pid);
	if (r && c->fn)
		c->fn(c->ctx, what, owner, r > 0 ? 0 : r);
	if (r >= 0)
		journal_remove(c->state, owner);
}

static int passt_gc(const char *state, int (*alive)(void *ctx, const char *owner), vh_net_gc_fn *fn, void *ctx, struct vh_err *e)
{
	struct collect c = { state, alive, fn, ctx };
	int r = state ? journal_scan(state, check_entry, &c) : 0;

	return r < 0 ? net_host->err(e, r, "cannot read the journals in %s: %s", state, strerror(-r)) : 0;
}

struct parts {
	const struct vh_network *n;
	vh_net_part_fn *fn;
	void *ctx;
};

static void tell_part(void *ctx, const char *owner, const char *text)
{
	const struct parts *d = ctx;
	const char *line = strstr(text, "\nnetwork ");
	struct vh_net_part part = { .size = sizeof(part), .kind = "service", .owner = owner, .detail = "user networking", .up = 1 };
	size_t len = strlen(d->n->name);
	char name[24];
	int pid;

	if (sscanf(text, "passt %d", &pid) != 1 || pid <= 0 || !line || strncmp(line + 9, d->n->name, len) || line[9 + len] != '\n')
		return;
	snprintf(name, sizeof(name), "passt %d", pid);
	part.name = name;
	d->fn(d->ctx, &part);
}

static int passt_describe(const struct vh_network *n, vh_net_part_fn *fn, void *ctx, struct vh_err *e)
{
	struct parts d = { n, fn, ctx };
	int r = n->state ? journal_scan(n->state, tell_part, &d) : 0;

	return r < 0 ? net_host->err(e, r, "cannot read the journals in %s: %s", n->state, strerror(-r)) : 0;
}

#define OPT(NAME, TYPE, FLAGS, DOC, DEFAULT, MAX)                                                                      \
	&(const struct vh_opt){ sizeof(struct vh_opt), TYPE, FLAGS, NAME, DOC, DEFAULT, NULL, (MAX) > 0, MAX }
static const struct vh_opt *const options[] = {
	OPT("tcp", VH_OPT_STR, VH_OPT_REPEAT | VH_OPT_NIC, "Ports of the host that lead to the guest, as 2222:22 or 127.0.0.1/8080:80", NULL, 200),
	OPT("udp", VH_OPT_STR, VH_OPT_REPEAT | VH_OPT_NIC, "The same for UDP", NULL, 200),
	OPT("address", VH_OPT_STR, VH_OPT_REPEAT | VH_OPT_NIC, "The guest's address by DHCP, one for IPv4, one for IPv6; the host's unless given", NULL, 64),
	OPT("gateway", VH_OPT_STR, VH_OPT_REPEAT, "The gateway's address that the guest is told", NULL, 64),
	OPT("dns", VH_OPT_STR, VH_OPT_REPEAT, "Name servers that the guest is told, or none; those of /etc/resolv.conf unless given", NULL, 64),
	OPT("loopback", VH_OPT_BOOL, 0, "The guest reaches what listens on the host's loopback, by the gateway's address", "off", 0),
	OPT("program", VH_OPT_PATH, 0, "passt, where it is not in /usr/bin or /usr/local/bin", NULL, 0),
	NULL,
};
static const char *const kinds[] = { "user", NULL };

static const struct vh_net_ops passt_ops = {
	.size = sizeof(struct vh_net_ops),
	.kind = "passt",
	.options = options,
	.open = passt_open,
	.plan = passt_plan,
	.info = passt_info,
	.queue_fd = passt_queue_fd,
	.close = passt_close,
	.gc = passt_gc,
	.kinds = kinds,
	.describe = passt_describe,
};

VH_PLUGIN_NOTE("passt", VH_KIND_NET);

static const void *passt_get(const char *iid)
{
	return strcmp(iid, VH_IID_NET) ? NULL : &passt_ops;
}

static const char *const iids[] = { VH_IID_NET, NULL };
static const struct vh_plugin desc = {
	sizeof(struct vh_plugin), VH_ABI_MINOR, "passt", "1.0", "User networking through passt", "LGPL-2.1-or-later", 0, iids, passt_get, NULL,
};

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
	net_host = host;
	*out = &desc;
	return 0;
}
