/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * skeleton: a network backend, to start from. As it stands a port is a plain tap interface that is up and belongs to
 * nothing. A backend only makes the interface and hands over one fd per queue pair; the host does all I/O on them and sets
 * header size and offloads itself. What is yours to change is marked "YOURS".
 */
#include <fcntl.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <vhost/net.h>
#include <vhost/sugar.h>

#define SKEL_PAIRS 8

struct skel_port {
	int fd[SKEL_PAIRS];
	uint32_t pairs, mtu;
	char ifname[IFNAMSIZ];
	uint8_t mac[6];
	int up;
};

VH_PLUGIN_NOTE("skeleton", VH_KIND_NET);
static const struct vh_host *host;

static int skel_ifreq(const struct skel_port *p, unsigned long request, struct ifreq *r)
{
	int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), ret;

	if (s < 0)
		return -errno;
	memcpy(r->ifr_name, p->ifname, IFNAMSIZ);
	ret = ioctl(s, request, r) < 0 ? -errno : 0;
	close(s);
	return ret;
}

static int skel_set_up(struct skel_port *p, int up)
{
	struct ifreq r = {0};
	int ret = skel_ifreq(p, SIOCGIFFLAGS, &r);

	if (ret)
		return ret;
	r.ifr_flags = (short)(up ? r.ifr_flags | IFF_UP : r.ifr_flags & ~IFF_UP);
	ret = skel_ifreq(p, SIOCSIFFLAGS, &r);
	if (!ret)
		p->up = up;
	return ret;
}

static int skel_set_mtu(struct skel_port *p, uint32_t mtu)
{
	struct ifreq r = {0};
	int ret;

	r.ifr_mtu = (int)mtu;
	ret = mtu ? skel_ifreq(p, SIOCSIFMTU, &r) : skel_ifreq(p, SIOCGIFMTU, &r);
	if (!ret)
		p->mtu = (uint32_t)r.ifr_mtu;
	return ret;
}

/* One queue pair; the first one makes the interface, and the last fd that is closed removes it. */
static int skel_queue(struct skel_port *p, uint32_t pair, const char *wanted, struct vh_err *e)
{
	struct ifreq r = {0};
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), ret;

	if (fd < 0)
		return host->err(e, -errno, "cannot open /dev/net/tun: %s", strerror(errno));
	r.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (p->pairs > 1 ? IFF_MULTI_QUEUE : 0));
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%s", pair ? p->ifname : wanted);
	if (ioctl(fd, TUNSETIFF, &r) < 0) {
		ret = -errno;
		close(fd);
		if (ret == -EPERM)
			host->remedy(e, "run as root or with CAP_NET_ADMIN");
		return host->err(e, ret, "cannot make a tap interface: %s", strerror(-ret));
	}
	memcpy(p->ifname, r.ifr_name, IFNAMSIZ);
	p->fd[pair] = fd;
	return 0;
}

static void skel_close(void *port)
{
	struct skel_port *p = port;

	for (uint32_t i = 0; i < SKEL_PAIRS; i++)
		if (p->fd[i] >= 0)
			close(p->fd[i]);
	free(p);
}

/* Transactional: what was made before an error is removed again. YOURS: what the interface is connected to. */
static int skel_open(const struct vh_net_open *o, void **port, struct vh_err *e)
{
	struct skel_port *p;
	int r = 0;

	if (o->flags & VH_MUST_UNDERSTAND)
		return host->err(e, -EOPNOTSUPP, "unknown open flags 0x%llx", (unsigned long long)o->flags);
	if (o->pairs > SKEL_PAIRS)
		return host->err(e, -EINVAL, "at most %d queue pairs", SKEL_PAIRS);
	p = calloc(1, sizeof(*p));
	if (!p)
		return host->err(e, -ENOMEM, "no memory");
	for (uint32_t i = 0; i < SKEL_PAIRS; i++)
		p->fd[i] = -1;
	p->pairs = o->pairs ? o->pairs : 1;
	memcpy(p->mac, o->mac, sizeof(p->mac));
	for (uint32_t i = 0; !r && i < p->pairs; i++)
		r = skel_queue(p, i, o->ifname ? o->ifname : "vnet%d", e);
	if (!r && (r = skel_set_mtu(p, o->mtu)))
		host->err(e, r, "cannot set the MTU of %s to %u: %s", p->ifname, o->mtu, strerror(-r));
	if (!r && (r = skel_set_up(p, 1)))
		host->err(e, r, "cannot bring %s up: %s", p->ifname, strerror(-r));
	if (r) {
		skel_close(p);
		return r;
	}
	*port = p;
	return 0;
}

static int skel_plan(const struct vh_net_open *o, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	fn(ctx, o->ifname ? "make the tap interface with the name that was given" : "make a tap interface vnetN");
	fn(ctx, "bring it up");
	return 0;
}

static int skel_info(void *port, struct vh_net_info *i)
{
	struct skel_port *p = port;
	struct vh_net_info full = {.size = i->size, .path = VH_NET_PATH_TAP, .pairs = p->pairs, .mtu = p->mtu, .vnet_hdr = 12,
		.offload = VH_NET_CSUM | VH_NET_TSO4 | VH_NET_TSO6 | VH_NET_ECN, .link = (uint8_t)p->up};

	memcpy(full.ifname, p->ifname, sizeof(full.ifname));
	memcpy(full.mac, p->mac, sizeof(full.mac));
	full.ifindex = if_nametoindex(p->ifname);
	memcpy(i, &full, i->size < sizeof(full) ? i->size : sizeof(full));
	return 0;
}

static int skel_queue_fd(void *port, uint32_t pair, struct vh_err *e)
{
	struct skel_port *p = port;

	return pair < p->pairs ? p->fd[pair] : host->err(e, -EINVAL, "there is no queue pair %u", pair);
}

static int skel_set_link(void *port, uint32_t up, struct vh_err *e)
{
	struct skel_port *p = port;
	int r = skel_set_up(p, !!up);

	return r ? host->err(e, r, "cannot bring %s %s: %s", p->ifname, up ? "up" : "down", strerror(-r)) : 0;
}

static const struct vh_net_ops skel_ops = {
	.size = sizeof(struct vh_net_ops),
	.caps = VH_NET_MULTI_QUEUE | VH_NET_SET_LINK,
	.kind = "skeleton",
	.open = skel_open,
	.plan = skel_plan,
	.info = skel_info,
	.queue_fd = skel_queue_fd,
	.set_link = skel_set_link,
	.close = skel_close,
};

static const void *skel_get(const char *iid)
{
	return strcmp(iid, VH_IID_NET) ? NULL : &skel_ops;
}

static const char *const skel_interfaces[] = {VH_IID_NET, NULL};
static const struct vh_plugin skel_plugin = {
	.size = sizeof(struct vh_plugin),
	.built_minor = VH_ABI_MINOR,
	.id = "skeleton",
	.version = "0.1",
	.summary = "A plain tap interface",
	.license = "BSD-2-Clause",
	.flags = VH_PLUGIN_NEEDS_ROOT,
	.interfaces = skel_interfaces,
	.get = skel_get,
};

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *h, const struct vh_plugin **out)
{
	host = h;
	*out = &skel_plugin;
	return 0;
}
