/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * null-net: a port that leads nowhere: a tap interface that is up, on no bridge, with no address. For measuring a device
 * model without a network behind it, and for tests. Queues, MTU and link are those of every backend, without netlink.
 *
 * The interface is not persistent: the kernel removes it when the last fd is closed, also after a crash. What a network of
 * kind "null" keeps while it is started stands for the bridges and services of real ones, and needs no privilege: a file in the
 * state folder, named by the owner tag. It ends with stop(), or with gc() when its owner is dead.
 */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vhost/net.h>
#include <vhost/sugar.h>

#define NULL_PAIRS_MAX 16u

struct null_port {
	int ctl; /* a socket, for ioctls on the interface */
	int fd[NULL_PAIRS_MAX];
	uint32_t pairs;
	char ifname[IFNAMSIZ];
	uint8_t mac[6]; /* the guest's */
	uint32_t mtu;
	int up;
};

static const struct vh_host *host;
VH_PLUGIN_NOTE("null-net", VH_KIND_NET);

static int null_ioctl(struct null_port *p, unsigned long request, struct ifreq *r)
{
	memcpy(r->ifr_name, p->ifname, IFNAMSIZ);
	return ioctl(p->ctl, request, r) < 0 ? -errno : 0;
}

static int null_add_queue(struct null_port *p, uint32_t pair, const char *name, struct vh_err *e)
{
	struct ifreq r = {0};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), ret;

	if (fd < 0) {
		ret = -errno;
		if (ret == -ENOENT || ret == -ENODEV)
			host->remedy(e, "load the kernel's module tun");
		return host->err(e, ret, "cannot open /dev/net/tun: %s", strerror(-ret));
	}
	r.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (p->pairs > 1 ? IFF_MULTI_QUEUE : 0));
	snprintf(r.ifr_name, IFNAMSIZ, "%s", name);
	if (ioctl(fd, TUNSETIFF, &r) < 0) {
		ret = -errno;
		close(fd);
		if (ret == -EPERM)
			host->remedy(e, "start the VM as root or with CAP_NET_ADMIN");
		if (ret == -EBUSY || ret == -EINVAL)
			return host->err(e, ret, "cannot make the interface %s: it exists, or is no name", name);
		return host->err(e, ret, "cannot make a tap interface: %s", strerror(-ret));
	}
	memcpy(p->ifname, r.ifr_name, IFNAMSIZ);
	p->fd[pair] = fd;
	return 0;
}

static int null_set_up(struct null_port *p, int up)
{
	struct ifreq r = {0};
	int ret = null_ioctl(p, SIOCGIFFLAGS, &r);

	if (ret)
		return ret;
	r.ifr_flags = (short)(up ? r.ifr_flags | IFF_UP : r.ifr_flags & ~IFF_UP);
	ret = null_ioctl(p, SIOCSIFFLAGS, &r);
	if (!ret)
		p->up = up;
	return ret;
}

static int null_set_mtu(struct null_port *p, uint32_t mtu)
{
	struct ifreq r = {.ifr_mtu = (int)mtu};
	int ret = null_ioctl(p, mtu ? SIOCSIFMTU : SIOCGIFMTU, &r);

	if (!ret)
		p->mtu = (uint32_t)r.ifr_mtu;
	return ret;
}

static void null_close(void *port)
{
	struct null_port *p = port;

	for (uint32_t i = 0; i < NULL_PAIRS_MAX; i++)
		if (p->fd[i] >= 0)
			close(p->fd[i]);
	if (p->ctl >= 0)
		close(p->ctl);
	free(p);
}

static int null_check(const struct vh_net_open *o, struct vh_err *e)
{
	if (o->flags & VH_MUST_UNDERSTAND)
		return host->err(e, -EOPNOTSUPP, "unknown open flags 0x%llx", (unsigned long long)o->flags);
	if (o->pairs < 1 || o->pairs > NULL_PAIRS_MAX)
		return host->err(e, -EINVAL, "%u queue pairs: 1 to %u are possible", o->pairs, NULL_PAIRS_MAX);
	if (o->ifname && strlen(o->ifname) >= IFNAMSIZ)
		return host->err(e, -EINVAL, "the interface name %s has more than %d bytes", o->ifname, IFNAMSIZ - 1);
	return 0;
}

static int null_open(const struct vh_net_open *o, void **port, struct vh_err *e)
{
	struct null_port *p;
	int r = null_check(o, e);

	if (r)
		return r;
	p = calloc(1, sizeof(*p));
	if (!p)
		return host->err(e, -ENOMEM, "no memory");
	for (uint32_t i = 0; i < NULL_PAIRS_MAX; i++)
		p->fd[i] = -1;
	p->pairs = o->pairs;
	memcpy(p->mac, o->mac, sizeof(p->mac));
	p->ctl = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (p->ctl < 0)
		r = host->err(e, -errno, "no socket: %s", strerror(errno));
	for (uint32_t i = 0; !r && i < p->pairs; i++)
		r = null_add_queue(p, i, i ? p->ifname : o->ifname ? o->ifname : "vnet%d", e);
	if (!r && (r = null_set_mtu(p, o->mtu)))
		host->err(e, r, "cannot set the MTU of %s to %u: %s", p->ifname, o->mtu, strerror(-r));
	if (!r && vh_opt_num(o->opts, "link", 1) && (r = null_set_up(p, 1)))
		host->err(e, r, "cannot bring %s up: %s", p->ifname, strerror(-r));
	if (r) {
		/* Closing the fds takes back everything that was done. */
		null_close(p);
		return r;
	}
	*port = p;
	return 0;
}

static int null_plan(const struct vh_net_open *o, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	char text[128];

	snprintf(text, sizeof(text), "make tap %s with %u queue pair%s", o->ifname ? o->ifname : "vnetN", o->pairs,
		 o->pairs == 1 ? "" : "s");
	fn(ctx, text);
	if (o->mtu) {
		snprintf(text, sizeof(text), "set its MTU to %u", o->mtu);
		fn(ctx, text);
	}
	if (vh_opt_num(o->opts, "link", 1))
		fn(ctx, "bring it up");
	return 0;
}

static int null_info(void *port, struct vh_net_info *i)
{
	struct null_port *p = port;
	struct vh_net_info full = {.size = i->size, .path = VH_NET_PATH_TAP, .pairs = p->pairs, .mtu = p->mtu, .vnet_hdr = 12,
		.offload = VH_NET_CSUM | VH_NET_TSO4 | VH_NET_TSO6 | VH_NET_ECN, .link = (uint8_t)p->up};
	struct ifreq r = {0};

	memcpy(full.ifname, p->ifname, sizeof(full.ifname));
	memcpy(full.mac, p->mac, sizeof(full.mac));
	if (!null_ioctl(p, SIOCGIFINDEX, &r))
		full.ifindex = (uint32_t)r.ifr_ifindex;
	memcpy(i, &full, i->size < sizeof(full) ? i->size : sizeof(full));
	return 0;
}

static int null_queue_fd(void *port, uint32_t pair, struct vh_err *e)
{
	struct null_port *p = port;

	return pair < p->pairs ? p->fd[pair] : host->err(e, -EINVAL, "there is no queue pair %u", pair);
}

static int null_set_link(void *port, uint32_t up, struct vh_err *e)
{
	struct null_port *p = port;
	int r = null_set_up(p, !!up);

	return r ? host->err(e, r, "cannot bring %s %s: %s", p->ifname, up ? "up" : "down", strerror(-r)) : 0;
}

/* ---- networks ---- */

#define NULL_MARK "null-net\n"

static int null_mark_path(char path[PATH_MAX], const char *state, const char *owner)
{
	if (!state || !owner || strncmp(owner, "vhost:", 6) || strchr(owner, '/'))
		return -EINVAL;
	return snprintf(path, PATH_MAX, "%s/%s", state, owner) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int null_start(const struct vh_network *n, struct vh_err *e)
{
	char path[PATH_MAX];
	int r = null_mark_path(path, n->state, n->owner), fd;

	if (r)
		return host->err(e, r, "the host gave no folder, or an owner tag that is none");
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return host->err(e, -errno, "cannot write %s: %s", path, strerror(errno));
	r = write(fd, NULL_MARK, strlen(NULL_MARK)) == (ssize_t)strlen(NULL_MARK) ? 0 : -ENOSPC;
	close(fd);
	if (!r)
		return 0;
	unlink(path);
	return host->err(e, r, "cannot write %s: %s", path, strerror(-r));
}

static int null_stop(const struct vh_network *n, struct vh_err *e)
{
	char path[PATH_MAX];
	int r = null_mark_path(path, n->state, n->owner);

	if (r)
		return host->err(e, r, "the host gave no folder, or an owner tag that is none");
	return unlink(path) < 0 && errno != ENOENT ? host->err(e, -errno, "cannot remove %s: %s", path, strerror(errno)) : 0;
}

static int null_plan_start(const struct vh_network *n, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	fn(ctx, "note that the network is started: it leads nowhere, and needs nothing else");
	return 0;
}

/* Whether a file is one of ours, by what is in it: other plugins' journals lie beside it. */
static int null_is_mark(int dir, const char *name)
{
	char text[32] = "";
	int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), ours;

	if (fd < 0)
		return 0;
	ours = read(fd, text, sizeof(text) - 1) > 0 && !strcmp(text, NULL_MARK);
	close(fd);
	return ours;
}

static int null_gc(const char *state, int (*alive)(void *ctx, const char *owner), vh_net_gc_fn *fn, void *ctx, struct vh_err *e)
{
	DIR *d = opendir(state);
	struct dirent *f;

	if (!d)
		return errno == ENOENT ? 0 : host->err(e, -errno, "cannot read %s: %s", state, strerror(errno));
	while ((f = readdir(d))) {
		if (strncmp(f->d_name, "vhost:", 6) || !null_is_mark(dirfd(d), f->d_name) || alive(ctx, f->d_name))
			continue;
		int r = unlinkat(dirfd(d), f->d_name, 0) < 0 ? -errno : 0;

		if (fn && r != -ENOENT)
			fn(ctx, "mark of a network", f->d_name, r);
	}
	closedir(d);
	return 0;
}

static int null_describe(const struct vh_network *n, vh_net_part_fn *fn, void *ctx, struct vh_err *e)
{
	struct vh_net_part p = {.size = sizeof(p), .kind = "service", .name = "nowhere", .detail = "takes every frame"};

	fn(ctx, &p);
	return 0;
}

static const struct vh_opt null_opt_link = {
	sizeof(struct vh_opt), VH_OPT_BOOL, VH_OPT_NIC, "link", "whether the interface is up at first", "on", NULL, 0, 0};
static const struct vh_opt null_opt_note = {
	sizeof(struct vh_opt), VH_OPT_STR, 0, "note", "what the network is for", NULL, NULL, 1, 100};
static const struct vh_opt *const null_options[] = {&null_opt_link, &null_opt_note, NULL};
static const char *const null_kinds[] = {"null", NULL};

static const struct vh_net_ops null_ops = {
	.size = sizeof(struct vh_net_ops),
	.caps = VH_NET_MULTI_QUEUE | VH_NET_SET_LINK,
	.kind = "null-net",
	.options = null_options,
	.open = null_open,
	.plan = null_plan,
	.info = null_info,
	.queue_fd = null_queue_fd,
	.set_link = null_set_link,
	.close = null_close,
	.gc = null_gc,
	.kinds = null_kinds,
	.start = null_start,
	.stop = null_stop,
	.plan_start = null_plan_start,
	.describe = null_describe,
};

static const void *null_get(const char *iid)
{
	return strcmp(iid, VH_IID_NET) ? NULL : &null_ops;
}

static const char *const null_interfaces[] = {VH_IID_NET, NULL};
static const struct vh_plugin null_plugin = {
	.size = sizeof(struct vh_plugin),
	.built_minor = VH_ABI_MINOR,
	.id = "null-net",
	.version = "1.0",
	.summary = "A tap interface that leads nowhere",
	.license = "BSD-2-Clause",
	.flags = VH_PLUGIN_NEEDS_ROOT,
	.interfaces = null_interfaces,
	.get = null_get,
};

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *h, const struct vh_plugin **out)
{
	host = h;
	*out = &null_plugin;
	return 0;
}
