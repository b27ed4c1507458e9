/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "net/port.h"

#include <dirent.h>
#include <fcntl.h>
#include <glib.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/helper.h"
#include "net/network-i.h"
#include "plug/object.h"
#include "util/paths.h"

#ifndef TUN_F_USO4 /* Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

#define VNET_HDR_LEN 12
#define PAIRS_MAX 256u

struct net_port {
	const struct vh_net_ops *ops; /* NULL: the port is the helper's */
	void *port;
	uint64_t id; /* in the helper */
	struct vh_object *object;
	struct vh_net_info info;
	unsigned pairs, active;
	int *fd; /* our copies */
	char *network;
};

char *net_state_folder(struct vh_err *e)
{
	char *dir = path_in(PATH_STATE, ".net", NULL);

	if (path_make(dir, 0700, e) < 0)
		g_clear_pointer(&dir, g_free);
	return dir;
}

int net_gc_stale(const struct vh_net_ops *ops, const char *state)
{
	struct dirent *d;
	int stale = 0;
	DIR *dir;

	dir = ops->gc ? opendir(state) : NULL;
	if (!dir)
		return 0;
	while (!stale && (d = readdir(dir)))
		stale = g_str_has_prefix(d->d_name, "vhost:") && !net_owner_alive(NULL, d->d_name);
	closedir(dir);
	return stale ? ops->gc(state, net_owner_alive, NULL, NULL, NULL) : 0;
}

static unsigned tun_flags(uint64_t offload)
{
	unsigned f = 0;

	if (!(offload & VH_NET_CSUM))
		return 0;
	f = TUN_F_CSUM;
	f |= offload & VH_NET_TSO4 ? TUN_F_TSO4 : 0;
	f |= offload & VH_NET_TSO6 ? TUN_F_TSO6 : 0;
	/* The kernel takes ECN only for a segmentation that is on. */
	f |= (offload & VH_NET_ECN) && (offload & (VH_NET_TSO4 | VH_NET_TSO6)) ? TUN_F_TSO_ECN : 0;
	f |= offload & VH_NET_UFO ? TUN_F_UFO : 0;
	f |= offload & VH_NET_USO ? TUN_F_USO4 | TUN_F_USO6 : 0;
	return f;
}

int net_port_set_offload(struct net_port *p, uint64_t offload)
{
	if (offload & ~p->info.offload)
		return -EOPNOTSUPP;
	if (p->info.path != VH_NET_PATH_TAP)
		return 0;
	return ioctl(p->fd[0], TUNSETOFFLOAD, (unsigned long)tun_flags(offload)) < 0 ? -errno : 0;
}

int net_port_set_pairs(struct net_port *p, unsigned active)
{
	struct ifreq ifr;

	if (!active || active > p->pairs)
		return -EINVAL;
	if (p->info.path != VH_NET_PATH_TAP) /* one pair, always on */
		return 0;
	while (p->active != active) {
		unsigned i = p->active < active ? p->active : p->active - 1;

		memset(&ifr, 0, sizeof(ifr));
		ifr.ifr_flags = p->active < active ? IFF_ATTACH_QUEUE : IFF_DETACH_QUEUE;
		if (ioctl(p->fd[i], TUNSETQUEUE, &ifr) < 0)
			return -errno;
		p->active += p->active < active ? 1 : -1;
	}
	return 0;
}

/* What is the same for every tap, on every fd of it: a macvtap has these per queue. */
static int set_up_fd(int fd, struct vh_err *e)
{
	int len = VNET_HDR_LEN, one = 1, flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return err_set(e, -errno, "the backend's fd cannot be made non-blocking: %s", g_strerror(errno));
	if (ioctl(fd, TUNSETVNETHDRSZ, &len) < 0)
		return err_set(e, -errno, "the tap takes no header of %d bytes: %s", len, g_strerror(errno));
	if (ioctl(fd, TUNSETVNETLE, &one) < 0)
		return err_set(e, -errno, "the tap takes no little-endian headers: %s", g_strerror(errno));
	return 0;
}

/* Lengths are found only in an undisturbed row of bytes; there is no header, so no offload. */
static int set_up_stream(struct net_port *p, struct vh_err *e)
{
	int type = 0, flags = fcntl(p->fd[0], F_GETFL);
	socklen_t len = sizeof(type);

	if (p->pairs != 1)
		return err_set(e, -EPROTO, "the backend gave %u queue pairs for a stream, which has one", p->pairs);
	if (getsockopt(p->fd[0], SOL_SOCKET, SO_TYPE, &type, &len) < 0 || type != SOCK_STREAM)
		return err_set(e, -EPROTO, "the backend's fd is no stream socket");
	if (flags < 0 || fcntl(p->fd[0], F_SETFL, flags | O_NONBLOCK) < 0)
		return err_set(e, -errno, "the backend's fd cannot be made non-blocking: %s", g_strerror(errno));
	p->info.offload = 0;
	return 0;
}

static int set_up(struct net_port *p, const struct net_config *c, struct vh_err *e)
{
	static const uint64_t drop[] = { 0, VH_NET_USO, VH_NET_UFO, VH_NET_ECN, VH_NET_TSO6, VH_NET_TSO4, VH_NET_CSUM };
	uint64_t can = p->info.offload & c->offload;
	int r = 0;

	if (p->info.path == VH_NET_PATH_STREAM)
		return set_up_stream(p, e);
	if (p->info.path != VH_NET_PATH_TAP)
		return err_set(e, -EOPNOTSUPP, "the backend's datapath is of kind %u, which this vhost does not know", p->info.path);
	if (p->info.vnet_hdr < VNET_HDR_LEN)
		return err_set(e, -EOPNOTSUPP, "the backend's header is %u bytes, virtio 1 needs %d", p->info.vnet_hdr, VNET_HDR_LEN);
	for (unsigned i = 0; i < p->pairs && !r; i++)
		r = set_up_fd(p->fd[i], e);
	if (r < 0)
		return r;
	if (!(can & VH_NET_CSUM))
		can = 0;
	/* What the fd refuses nobody can have, whatever the plugin says. */
	for (unsigned i = 0; i < G_N_ELEMENTS(drop); i++) {
		can &= ~drop[i];
		if (!ioctl(p->fd[0], TUNSETOFFLOAD, (unsigned long)tun_flags(can)))
			break;
	}
	p->info.offload = can;
	return ioctl(p->fd[0], TUNSETOFFLOAD, 0UL) < 0 ?
		       err_set(e, -errno, "the tap's offloads cannot be turned off: %s", g_strerror(errno)) : 0;
}

static int open_here(struct net_port *p, const struct net_config *c, const char *owner, const char *state, struct vh_err *e)
{
	struct vh_net_open o = {
		.size = sizeof(o), .pairs = c->pairs, .opts = c->opts, .owner = owner, .ifname = c->ifname, .state = state,
		.mtu = c->mtu, .offload = c->offload, .network = c->network, .kind = c->kind,
	};
	int r;

	memcpy(o.mac, c->mac, sizeof(o.mac));
	net_gc_stale(c->ops, state);
	p->ops = c->ops;
	o.object = p->object = plug_object_new();
	r = c->ops->open(&o, &p->port, e);
	if (r < 0)
		return r > -4096 ? r : -EIO;
	p->info.size = sizeof(p->info);
	r = c->ops->info(p->port, &p->info);
	if (r < 0)
		return err_set(e, r, "the backend says nothing about its port: %s", g_strerror(-r));
	if (!p->info.pairs || p->info.pairs > c->pairs)
		return err_set(e, -EPROTO, "the backend gave %u queue pairs, %u were wanted", p->info.pairs, c->pairs);
	for (; p->pairs < p->info.pairs; p->pairs++) {
		r = c->ops->queue_fd(p->port, p->pairs, e);
		if (r < 0)
			return err_set(e, r, "the backend gave no fd for queue pair %u", p->pairs);
		p->fd[p->pairs] = fcntl(r, F_DUPFD_CLOEXEC, 3);
		if (p->fd[p->pairs] < 0)
			return err_set(e, -errno, "cannot keep the fd of queue pair %u: %s", p->pairs, g_strerror(errno));
	}
	return 0;
}

int net_port_open(const struct net_config *c, struct net_port **out, struct vh_err *e)
{
	g_autofree char *owner = net_owner_tag(c->vm, c->index), *state = NULL;
	struct net_port *p;
	int r;

	err_object(e, "NIC %u", c->index);
	if (!c->pairs || c->pairs > PAIRS_MAX)
		return err_set(e, -EINVAL, "%u queue pairs, but a NIC has 1 to %u", c->pairs, PAIRS_MAX);
	if (c->pairs > 1 && !(c->ops->caps & VH_NET_MULTI_QUEUE)) {
		err_remedy(e, "leave out queues=");
		return err_set(e, -EOPNOTSUPP, "backend %s has one queue pair only", c->ops->kind);
	}
	state = net_state_folder(e);
	if (!state)
		return e ? e->code : -EIO;
	p = g_new0(struct net_port, 1);
	p->fd = g_new(int, c->pairs);
	p->network = g_strdup(c->network);
	if (net_helper_active()) {
		r = net_helper_open(c, owner, state, &p->id, &p->info, p->fd, e);
		p->pairs = r < 0 ? 0 : p->info.pairs;
	} else {
		r = open_here(p, c, owner, state, e);
	}
	p->info.ifname[sizeof(p->info.ifname) - 1] = '\0';
	p->active = p->pairs;
	if (r < 0 && !p->port) { /* nothing was opened, here or there */
		plug_object_free(p->object);
		g_free(p->fd);
		g_free(p->network);
		g_free(p);
		return r;
	}
	if (!r)
		r = set_up(p, c, e);
	if (r < 0) {
		net_port_close(p);
		return r;
	}
	*out = p;
	return 0;
}

void net_port_close(struct net_port *p)
{
	if (!p)
		return;
	/* First ours: the backend looks whether it was the last user of what it made. */
	for (unsigned i = 0; i < p->pairs; i++)
		close(p->fd[i]);
	if (p->ops)
		p->ops->close(p->port);
	else
		net_helper_close(p->id);
	if (p->object)
		plug_object_free(p->object);
	g_free(p->fd);
	g_free(p->network);
	g_free(p);
}

const char *net_port_network(const struct net_port *p)
{
	return p->network;
}

const struct vh_net_info *net_port_info(const struct net_port *p)
{
	return &p->info;
}

int net_port_fd(const struct net_port *p, unsigned pair)
{
	return pair < p->pairs ? p->fd[pair] : -EINVAL;
}

int net_port_set_link(struct net_port *p, int up, struct vh_err *e)
{
	int r;

	if (!p->ops)
		r = net_helper_set_link(p->id, up, e);
	else
		r = p->ops->set_link ? p->ops->set_link(p->port, up != 0, e) : -EOPNOTSUPP;
	if (!r || r == -EOPNOTSUPP)
		p->info.link = up != 0;
	return r;
}

void net_port_lost(struct net_port *p)
{
	__atomic_store_n(&p->info.link, 0, __ATOMIC_RELAXED);
}

int net_port_set_filter(struct net_port *p, const struct vh_net_filter *f, struct vh_err *e)
{
	if (!p->ops)
		return net_helper_set_filter(p->id, f, e);
	return p->ops->set_filter ? p->ops->set_filter(p->port, f, e) : -EOPNOTSUPP;
}

int net_port_plan(const struct net_config *c, vh_net_step_fn *fn, void *ctx, struct vh_err *e)
{
	g_autofree char *owner = net_owner_tag(c->vm, c->index), *state = path_in(PATH_STATE, ".net", NULL);
	struct vh_net_open o = {
		.size = sizeof(o), .pairs = c->pairs, .opts = c->opts, .owner = owner, .ifname = c->ifname, .state = state,
		.mtu = c->mtu, .offload = c->offload, .flags = VH_NET_OPEN_DRY_RUN, .network = c->network, .kind = c->kind,
	};

	err_object(e, "NIC %u", c->index);
	memcpy(o.mac, c->mac, sizeof(o.mac));
	if (!c->ops->plan) {
		fn(ctx, "steps not told by this backend");
		return 0;
	}
	return c->ops->plan(&o, fn, ctx, e);
}

int net_gc(const struct vh_net_ops *ops, vh_net_gc_fn *fn, void *ctx, struct vh_err *e)
{
	g_autofree char *state = path_in(PATH_STATE, ".net", NULL);

	return ops->gc ? ops->gc(state, net_owner_alive, fn, ctx, e) : 0;
}
