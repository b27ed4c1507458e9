/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * NET: the contract of vhost/net.h, with what --set describes, in a network namespace of the check's own: nothing of the machine is
 * touched, and what a plugin leaves behind is seen. There is a network card in it, vhcard0, for --set uplink=vhcard0. A backend that needs what an empty namespace does not have is skipped with its words.
 */
#include <fcntl.h>
#include <glib.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "check.h"
#include "plug/object.h"

#define OWNER "vhost:vhcheck:1:1:0"
#define NETWORK "vhost:@vhcheck:0123456789abcdef"

struct env {
	struct check_ctx *c;
	const struct vh_net_ops *ops;
	const char *state;
	char *before; /* the namespace's interfaces */
};

/* Every interface by name and number: none may come or go by looking. */
static char *interfaces(void)
{
	struct if_nameindex *all = if_nameindex();
	GString *s = g_string_new(NULL);

	for (unsigned i = 0; all && all[i].if_index; i++)
		g_string_append_printf(s, "%u %s\n", all[i].if_index, all[i].if_name);
	if (all)
		if_freenameindex(all);
	return g_string_free(s, FALSE);
}

static void unchanged(struct env *v, const char *after)
{
	g_autofree char *now = interfaces();

	CHECK(v->c, !strcmp(now, v->before), "after %s there are other interfaces than before: %s", after, now);
}

/* A tap that nobody serves, up. It ends with the process. Where there are no taps there is no card. */
static void make_card(void)
{
	struct ifreq r = {.ifr_flags = IFF_TAP | IFF_NO_PI, .ifr_name = "vhcard0"};
	int tap = open("/dev/net/tun", O_RDWR | O_CLOEXEC), s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	if (tap >= 0 && s >= 0 && !ioctl(tap, TUNSETIFF, &r)) {
		r.ifr_flags = IFF_UP;
		ioctl(s, SIOCSIFFLAGS, &r);
	}
	if (s >= 0)
		close(s);
}

static void env_open(struct env *v, struct check_ctx *c)
{
	memset(v, 0, sizeof(*v));
	v->c = c;
	if (unshare(CLONE_NEWNET) < 0)
		check_skip(c, "needs a network namespace of its own: %s", g_strerror(errno));
	if (!c->net_setup)
		make_card();
	else if (system(c->net_setup))
		check_skip(c, "'%s' failed", c->net_setup);
	v->ops = check_load(c, VH_KIND_NET);
	v->state = check_folder(c);
	v->before = interfaces();
}

static struct vh_net_open spec(struct env *v, uint32_t pairs)
{
	return (struct vh_net_open){.size = sizeof(struct vh_net_open), .pairs = pairs, .opts = check_opts(v->c, v->ops->options, ""),
				    .object = plug_object_new(), .owner = OWNER, .state = v->state, .mac = {0x52, 0x54, 0, 0x76, 0x68, 1},
				    .offload = VH_NET_CSUM};
}

/* What this machine or an empty namespace lacks is no fault of the plugin's; a refusal without a word is. */
static void possible(struct env *v, const char *what, int r, const struct vh_err *e)
{
	CHECK(v->c, r <= 0 && r > -4096, "%s returned %d: 0 or a negative errno is allowed", what, r);
	if (!r)
		return;
	CHECK(v->c, e->cause, "%s failed with %d, and said nothing", what, r);
	unchanged(v, what);
	if (r == -EINVAL || r == -ENOENT || r == -ENODEV || r == -EPERM || r == -EACCES || r == -EOPNOTSUPP)
		check_skip(v->c, "%s: %s (give what it needs with --set)", what, e->cause);
	check_fail(v->c, "%s failed: %d %s", what, r, e->cause);
}

static void *port(struct env *v, uint32_t pairs)
{
	struct vh_net_open o = spec(v, pairs);
	struct vh_err e = {0};
	void *p = NULL;

	possible(v, "open()", v->ops->open(&o, &p, &e), &e);
	return p;
}

static void get_info(struct env *v, void *p, struct vh_net_info *out)
{
	struct { struct vh_net_info i; uint8_t tail[64]; } s; /* what lies behind `size` is not the callee's */

	memset(&s, 0xdb, sizeof(s));
	memset(&s.i, 0, sizeof(s.i));
	s.i.size = sizeof(s.i);
	CHECK(v->c, !v->ops->info(p, &s.i), "info() of an open port failed");
	for (unsigned i = 0; i < sizeof(s.tail); i++)
		CHECK(v->c, s.tail[i] == 0xdb, "info() wrote behind the struct's size");
	*out = s.i;
}

static void check_info(struct env *v, const struct vh_net_info *i, uint32_t pairs)
{
	struct check_ctx *c = v->c;

	CHECK(c, i->path == VH_NET_PATH_TAP || i->path == VH_NET_PATH_STREAM, "info() tells the datapath %u", i->path);
	CHECK(c, i->pairs >= 1 && i->pairs <= pairs, "info() tells %u queue pairs, %u were wanted", i->pairs, pairs);
	CHECK(c, memchr(i->ifname, 0, sizeof(i->ifname)), "the interface's name does not end");
	CHECK(c, !(i->mac[0] & 1), "the guest's MAC address is a group's");
	if (i->path != VH_NET_PATH_TAP)
		return;
	CHECK(c, i->vnet_hdr == 10 || i->vnet_hdr == 12, "a tap's header of %u bytes: 10 or 12", i->vnet_hdr);
	CHECK(c, i->mtu >= 68, "MTU %u", i->mtu);
	CHECK(c, i->ifindex && if_nametoindex(i->ifname) == i->ifindex, "interface '%s' has not the number %u", i->ifname, i->ifindex);
}

static void net_open(struct check_ctx *c)
{
	struct vh_net_info i;
	struct env v;
	void *p;

	env_open(&v, c);
	p = port(&v, 1);
	get_info(&v, p, &i);
	check_info(&v, &i, 1);
	v.ops->close(p);
	unchanged(&v, "close()");
	p = port(&v, 1); /* nothing of the first one is in its way */
	v.ops->close(p);
	unchanged(&v, "a second close()");
}

static void net_fds(struct check_ctx *c)
{
	uint32_t pairs;
	struct vh_net_info i;
	struct env v;
	int fd, seen[4] = {-1, -1, -1, -1};
	void *p;

	env_open(&v, c);
	pairs = v.ops->caps & VH_NET_MULTI_QUEUE ? 4 : 1;
	p = port(&v, pairs);
	get_info(&v, p, &i);
	check_info(&v, &i, pairs);
	for (uint32_t k = 0; k < i.pairs; k++) {
		fd = v.ops->queue_fd(p, k, NULL);
		CHECK(c, fd >= 0, "queue pair %u of %u has no fd: %d", k, i.pairs, fd);
		CHECK(c, fcntl(fd, F_GETFL) & O_NONBLOCK, "the fd of queue pair %u blocks", k);
		CHECK(c, fcntl(fd, F_GETFD) & FD_CLOEXEC, "the fd of queue pair %u is not close-on-exec", k);
		CHECK(c, fd == v.ops->queue_fd(p, k, NULL), "the fd of queue pair %u changes", k);
		for (uint32_t n = 0; n < k; n++)
			CHECK(c, seen[n] != fd, "queue pairs %u and %u have the same fd", n, k);
		seen[k] = fd;
	}
	CHECK(c, v.ops->queue_fd(p, i.pairs, NULL) < 0, "queue pair %u of %u has an fd", i.pairs, i.pairs);
	v.ops->close(p);
	unchanged(&v, "close()");
}

static void net_flags(struct check_ctx *c)
{
	struct vh_err e = {0};
	struct vh_net_open o;
	struct env v;
	void *first, *p = NULL;
	int r;

	env_open(&v, c);
	first = port(&v, 1);
	o = spec(&v, 1);
	o.owner = "vhost:vhcheck:1:1:1";
	o.flags = UINT64_C(1) << 31;
	r = v.ops->open(&o, &p, &e);
	/* First: a service that a port has may outlive this process. */
	v.ops->close(first);
	CHECK(c, r == -EOPNOTSUPP, "a flag that must be understood and is not known gave %d, not -EOPNOTSUPP", r);
	unchanged(&v, "close() after a refused open()");
}

static unsigned steps; /* told so far; a check has its process to itself */

static void step(void *ctx, const char *text)
{
	CHECK(ctx, text && *text && g_utf8_validate(text, -1, NULL) && !strchr(text, '\n'), "a step is no line of text");
	steps++;
}

static void net_plan(struct check_ctx *c)
{
	struct vh_err e = {0};
	struct vh_net_open o;
	struct env v;

	steps = 0;
	env_open(&v, c);
	if (!v.ops->plan)
		check_skip(c, "a dry run does not tell its steps");
	o = spec(&v, 1);
	o.flags = VH_NET_OPEN_DRY_RUN;
	possible(&v, "plan()", v.ops->plan(&o, step, c, &e), &e);
	CHECK(c, steps, "plan() tells no step of what open() would do");
	unchanged(&v, "plan()");
}

static void net_link(struct check_ctx *c)
{
	struct vh_net_info i;
	struct env v;
	void *p;

	env_open(&v, c);
	if (!v.ops->set_link || !(v.ops->caps & VH_NET_SET_LINK))
		check_skip(c, "the host stops the queues of this backend");
	p = port(&v, 1);
	for (uint32_t up = 0; up < 2; up++) {
		struct vh_err e = {0};
		int r = v.ops->set_link(p, up, &e);

		CHECK(c, !r, "set_link(%u) failed: %d %s", up, r, e.cause ? e.cause : "");
		get_info(&v, p, &i);
		CHECK(c, i.link == up, "set_link(%u), but info() tells %u", up, i.link);
	}
	v.ops->close(p);
	unchanged(&v, "close()");
}

static int alive(void *ctx, const char *owner)
{
	return *(int *)ctx;
}

static void changed(void *ctx, const char *text)
{
	check_fail(ctx, "repair() of what is whole changed something: %s", text ? text : "NULL");
}

static void net_watch(struct check_ctx *c)
{
	struct vh_err e = {0};
	struct vh_net_info i;
	struct pollfd f = {.events = POLLIN};
	struct env v;
	void *p;
	int r;

	env_open(&v, c);
	CHECK(c, !v.ops->watch == !v.ops->repair, "watch() and repair() come together");
	if (!v.ops->watch)
		check_skip(c, "this backend repairs nothing");
	p = port(&v, 1);
	f.fd = v.ops->watch(p, &e);
	if (f.fd < 0)
		CHECK(c, e.cause || f.fd == -EOPNOTSUPP, "watch() failed with %d, and said nothing", f.fd);
	for (int k = 0; f.fd >= 0 && k < 3; k++) {
		r = v.ops->repair(p, changed, c, &e);
		CHECK(c, !r, "repair() of what is whole gave %d %s, not 0", r, e.cause ? e.cause : "");
		CHECK(c, poll(&f, 1, 0) >= 0 && !(f.revents & POLLNVAL), "watch() gave %d, which is no open fd", f.fd);
		CHECK(c, fcntl(f.fd, F_GETFD) & FD_CLOEXEC, "the fd of watch() is not close-on-exec");
	}
	get_info(&v, p, &i);
	check_info(&v, &i, 1);
	v.ops->close(p);
	CHECK(c, f.fd < 0 || fcntl(f.fd, F_GETFD) < 0, "close() left the fd of watch() open");
	unchanged(&v, "close()");
}

static void net_gc(struct check_ctx *c)
{
	struct vh_err e = {0};
	struct vh_net_info i;
	struct env v;
	int all = 1, r;
	void *p;

	env_open(&v, c);
	if (!v.ops->gc)
		check_skip(c, "nothing is ever left behind");
	CHECK(c, !v.ops->gc("/nonexistent/folder", alive, NULL, &all, NULL), "gc() of a folder that does not exist is no success");
	p = port(&v, 1);
	r = v.ops->gc(v.state, alive, NULL, &all, &e);
	CHECK(c, !r, "gc() failed: %d %s", r, e.cause ? e.cause : "");
	get_info(&v, p, &i);
	check_info(&v, &i, 1); /* what the living have stays */
	v.ops->close(p);
	unchanged(&v, "gc() and close()");
}

/* ---- networks ---- */

static int word(const char *k)
{
	if (!g_ascii_islower(k[0]) || strnlen(k, 32) > 31)
		return 0;
	for (; *k; k++)
		if (!g_ascii_islower(*k) && !g_ascii_isdigit(*k) && *k != '-')
			return 0;
	return 1;
}

static void net_kinds(struct check_ctx *c)
{
	const struct vh_net_ops *ops = check_load(c, VH_KIND_NET);

	if (!ops->kinds)
		check_skip(c, "this backend makes ports only");
	CHECK(c, ops->kinds[0], "an empty list of kinds: leave it out");
	for (unsigned i = 0; ops->kinds[i]; i++) {
		CHECK(c, i < 32, "the list of kinds does not end");
		CHECK(c, word(ops->kinds[i]), "kind %u is not of the form [a-z][a-z0-9-]*", i);
		for (unsigned k = 0; k < i; k++)
			CHECK(c, strcmp(ops->kinds[i], ops->kinds[k]), "kind %s is there twice", ops->kinds[i]);
	}
	CHECK(c, !ops->start == !ops->stop, "start() and stop() come together");
}

static void part(void *ctx, const struct vh_net_part *p)
{
	CHECK(ctx, p->size >= offsetof(struct vh_net_part, above), "a part of %u bytes has no name", p->size);
	CHECK(ctx, p->kind && *p->kind && p->name && *p->name, "a part without kind or name");
	CHECK(ctx, g_utf8_validate(p->name, -1, NULL), "a part's name is no UTF-8");
}

static struct vh_network network(struct env *v, const char *kind, const char *owner)
{
	static const struct vh_opt *own[OPTIONS_MAX + 1];
	unsigned n = 0;

	for (vh_schema s = v->ops->options; s && *s && n < OPTIONS_MAX; s++)
		if (!((*s)->flags & VH_OPT_NIC))
			own[n++] = *s;
	own[n] = NULL;
	return (struct vh_network){.size = sizeof(struct vh_network), .name = "vhcheck", .kind = kind, .opts = check_opts(v->c, own, ""),
				   .owner = owner, .state = v->state};
}

static void look(struct env *v, const struct vh_network *held)
{
	struct vh_network n = *held;
	struct vh_err e = {0};
	g_autofree char *before = interfaces(), *after = NULL;

	n.owner = NULL;
	if (v->ops->plan_start)
		possible(v, "plan_start()", v->ops->plan_start(&n, step, v->c, &e), &e);
	if (v->ops->describe)
		possible(v, "describe()", v->ops->describe(&n, part, v->c, &e), &e);
	after = interfaces();
	CHECK(v->c, !strcmp(before, after), "plan_start() or describe() changed the interfaces");
}

static void one_kind(struct env *v, const char *kind)
{
	struct vh_network n = network(v, kind, NETWORK);
	struct check_ctx *c = v->c;
	struct vh_err e = {0};
	g_autofree char *started = NULL, *again = NULL;
	int all = 1, none = 0;

	look(v, &n);
	unchanged(v, "looking at a network");
	CHECK(c, !v->ops->stop(&n, NULL), "stop() of a network of kind %s that is not started is no success", kind);
	possible(v, "start()", v->ops->start(&n, &e), &e);
	started = interfaces();
	CHECK(c, !v->ops->start(&n, &e), "start() of a started network of kind %s failed: %s", kind, e.cause ? e.cause : "");
	look(v, &n);
	if (v->ops->gc)
		v->ops->gc(v->state, alive, NULL, &all, NULL);
	again = interfaces();
	CHECK(c, !strcmp(started, again), "start() again, or gc() with a living owner, changed the interfaces");
	CHECK(c, !v->ops->stop(&n, &e), "stop() of kind %s failed: %s", kind, e.cause ? e.cause : "");
	unchanged(v, "stop()");
	CHECK(c, !v->ops->stop(&n, &e), "stop() again is no success");
	if (!v->ops->gc)
		return;
	possible(v, "start()", v->ops->start(&n, &e), &e);
	CHECK(c, !v->ops->gc(v->state, alive, NULL, &none, NULL), "gc() failed");
	unchanged(v, "gc() with a dead owner");
	g_autofree char *journal = g_build_filename(v->state, NETWORK, NULL);

	CHECK(c, access(journal, F_OK) < 0, "gc() with a dead owner left its journal");
}

static void net_start(struct check_ctx *c)
{
	struct env v;

	env_open(&v, c);
	if (!v.ops->kinds || !v.ops->start || !v.ops->stop)
		check_skip(c, "networks of this backend need nothing kept");
	for (unsigned i = 0; v.ops->kinds[i] && i < 32; i++)
		one_kind(&v, v.ops->kinds[i]);
}

#define HDR "vhost/net.h"
static const struct check checks[] = {
	{"net-open", "a port has its interface, and close() leaves nothing behind", HDR, net_open, VH_KIND_NET, 60},
	{"net-fds", "each queue pair has an fd of its own, non-blocking and close-on-exec", HDR, net_fds, VH_KIND_NET, 60},
	{"net-flags", "open flags that must be understood are", HDR, net_flags, VH_KIND_NET, 60},
	{"net-plan", "plan() tells the steps and makes none", HDR, net_plan, VH_KIND_NET, 60},
	{"net-link", "the link goes down and up, and info() tells it", HDR, net_link, VH_KIND_NET, 60},
	{"net-watch", "repair() leaves what is whole as it is", HDR, net_watch, VH_KIND_NET, 60},
	{"net-gc", "gc() leaves what the living have", HDR, net_gc, VH_KIND_NET, 60},
	{"net-kinds", "kinds of networks are words, each once", HDR, net_kinds, VH_KIND_NET, 60},
	{"net-start", "start() and stop() may be repeated, gc() does for the dead what stop() does, looking changes nothing", HDR, net_start, VH_KIND_NET,
	 120},
	{0},
};
const struct check_group group_net = {"NET", "network backends: the contract of vhost/net.h", checks};
