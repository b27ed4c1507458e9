/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "fault.h"

#ifndef TUN_F_USO4 /* Linux 6.2 */
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

int tap_name_check(const char *ifname)
{
	size_t n = strlen(ifname);

	/* '%' would be a pattern to the kernel, ':' an alias. */
	if (!n || n >= IFNAMSIZ || strpbrk(ifname, "/%: \t\n") || !strcmp(ifname, ".") || !strcmp(ifname, ".."))
		return -EINVAL;
	return 0;
}

static int explain_open(const struct vh_host *host, int err, struct vh_err *e)
{
	if (err == ENOENT || err == ENODEV || err == ENXIO) {
		host->remedy(e, "load the module with 'modprobe tun'; in a container, give it the device");
		return host->err(e, -err, "/dev/net/tun is missing: this kernel or container has no taps");
	}
	if (err == EACCES || err == EPERM)
		host->remedy(e, "run as root, or allow this user to open it");
	return host->err(e, -err, "cannot open /dev/net/tun: %s", strerror(err));
}

static int explain_set(const struct vh_host *host, const char *ifname, unsigned pairs, unsigned i, int err, struct vh_err *e)
{
	switch (err) {
	case EPERM:
	case EACCES:
		host->remedy(e, "run as root, or give the program CAP_NET_ADMIN");
		return host->err(e, -err, "this process may not make taps");
	case EBUSY:
	case EEXIST:
		if (i)
			break;
		host->remedy(e, "choose another ifname, or leave it out");
		return host->err(e, -EEXIST, "an interface named %s exists already", ifname);
	case E2BIG:
		host->remedy(e, "ask for fewer queues");
		return host->err(e, -err, "the kernel makes only %u of %u queue pairs", i, pairs);
	}
	return host->err(e, -err, "cannot make queue pair %u of tap %s: %s", i, ifname ? ifname : "vnetN", strerror(err));
}

int tap_open(struct tap *t, const struct vh_host *host, const char *ifname, unsigned pairs, struct vh_err *e)
{
	struct ifreq ifr;
	int fd, r;

	memset(t, 0, sizeof(*t));
	if (!pairs || pairs > TAP_PAIRS_MAX)
		return host->err(e, -EINVAL, "%u queue pairs, but a tap has 1 to %u", pairs, TAP_PAIRS_MAX);
	if (ifname && tap_name_check(ifname)) {
		host->remedy(e, "use at most 15 letters, digits, '-', '_' and '.'");
		return host->err(e, -EINVAL, "'%s' cannot be the name of an interface", ifname);
	}
	strncpy(t->ifname, ifname ? ifname : "vnet%d", IFNAMSIZ - 1);
	for (unsigned i = 0; i < pairs; i++) {
		fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
		if (fd < 0) {
			r = explain_open(host, errno, e);
			tap_close(t);
			return r;
		}
		t->fd[t->n++] = fd;
		memset(&ifr, 0, sizeof(ifr));
		memcpy(ifr.ifr_name, t->ifname, IFNAMSIZ);
		/* The first one must make the tap: without EXCL it would join one that somebody else has. A single queue
		 * is not made as one of many: those cost the kernel 256 queue objects and a hash per packet. */
		ifr.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (pairs > 1 ? IFF_MULTI_QUEUE : 0) |
					(i ? 0 : IFF_TUN_EXCL));
		r = NET_FAULT("TUNSETIFF");
		if (!r && ioctl(fd, TUNSETIFF, &ifr) < 0)
			r = -errno;
		if (r) {
			r = explain_set(host, ifname, pairs, i, -r, e);
			tap_close(t);
			return r;
		}
		memcpy(t->ifname, ifr.ifr_name, IFNAMSIZ - 1);
	}
	return 0;
}

void tap_close(struct tap *t)
{
	for (unsigned i = 0; i < t->n; i++)
		close(t->fd[i]);
	t->n = 0;
}

uint64_t tap_probe_offload(const struct tap *t)
{
	static const struct {
		unsigned tun;
		uint64_t mask;
	} part[] = {
		{ TUN_F_TSO4, VH_NET_TSO4 },
		{ TUN_F_TSO6, VH_NET_TSO6 },
		{ TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN, VH_NET_ECN },
		{ TUN_F_UFO, VH_NET_UFO },
		{ TUN_F_USO4 | TUN_F_USO6, VH_NET_USO },
	};
	unsigned all = TUN_F_CSUM;
	uint64_t mask = VH_NET_CSUM;

	for (unsigned i = 0; i < sizeof(part) / sizeof(part[0]); i++) {
		all |= part[i].tun;
		mask |= part[i].mask;
	}
	if (ioctl(t->fd[0], TUNSETOFFLOAD, (unsigned long)all) < 0) {
		mask = ioctl(t->fd[0], TUNSETOFFLOAD, (unsigned long)TUN_F_CSUM) < 0 ? 0 : VH_NET_CSUM;
		for (unsigned i = 0; mask && i < sizeof(part) / sizeof(part[0]); i++)
			if (!ioctl(t->fd[0], TUNSETOFFLOAD, (unsigned long)(TUN_F_CSUM | part[i].tun)))
				mask |= part[i].mask;
	}
	ioctl(t->fd[0], TUNSETOFFLOAD, 0UL);
	return mask;
}
