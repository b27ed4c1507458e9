/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A macvtap's fds come from a character device whose number only sysfs tells. /dev/tapN may be missing (no udev, a
 * container), or be that of another network namespace, where an interface has the same number: it is used only when it has the
 * right device number, and otherwise a node is made where nobody sees it: on a tmpfs without a mount point, which is gone
 * with the last fd. sysfs shows the interfaces of the namespace in which it was mounted, so it is mounted the same way.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "fault.h"
#include "macvtap.h"
#include "plugin.h"

#ifdef VH_NET_TEST
const char *tapdev_test_sysfs; /* the test's own instead */
#endif

/* A file system that is in nobody's tree. An fd, or -errno. */
static int mount_unseen(const char *type, unsigned attr)
{
	int fs = fsopen(type, FSOPEN_CLOEXEC), m = -1, err;

	if (fs < 0)
		return -errno;
	if (!fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		m = fsmount(fs, FSMOUNT_CLOEXEC, attr);
	err = errno;
	close(fs);
	return m < 0 ? -err : m;
}

static ssize_t read_at(int dir, const char *path, char *buf, size_t cap)
{
	int fd = openat(dir, path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, buf, cap - 1);
	if (n < 0)
		n = -errno;
	else
		buf[n] = '\0';
	close(fd);
	return n;
}

/* The mounted /sys may be that of another namespace: it is believed only about an interface that has our tag there. */
static int mounted_sysfs(const struct nl_link *l)
{
	char path[64], alias[256];
	int dir = open("/sys", O_PATH | O_DIRECTORY | O_CLOEXEC);
	ssize_t n;

	if (dir < 0)
		return -errno;
	snprintf(path, sizeof(path), "class/net/%s/ifalias", l->name);
	n = read_at(dir, path, alias, sizeof(alias));
	if (n >= 0)
		alias[strcspn(alias, "\n")] = '\0';
	if (n >= 0 && l->alias[0] && !strcmp(alias, l->alias))
		return dir;
	close(dir);
	return -ENOENT;
}

static int sysfs(const struct nl_link *l)
{
	int m;

#ifdef VH_NET_TEST
	if (tapdev_test_sysfs)
		return open(tapdev_test_sysfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
#endif
	m = mount_unseen("sysfs", MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	return m < 0 ? mounted_sysfs(l) : m;
}

int tapdev_wireless(const struct nl_link *l)
{
	static const char *const sign[] = { "wireless", "phy80211" };
	char path[64];
	int dir, yes = 0;

	if (l->kind[0]) /* a card has no kind; all else is not wireless itself */
		return 0;
	dir = sysfs(l);
	if (dir < 0)
		return 0;
	for (unsigned i = 0; i < 2 && !yes; i++) {
		snprintf(path, sizeof(path), "class/net/%s/%s", l->name, sign[i]);
		yes = !faccessat(dir, path, F_OK, 0);
	}
	close(dir);
	return yes;
}

static int device_number(const struct nl_link *l, dev_t *dev)
{
	char path[64], text[32];
	unsigned major, minor;
	int dir = sysfs(l);
	ssize_t n;

	if (dir < 0)
		return dir;
	snprintf(path, sizeof(path), "class/net/%s/tap%d/dev", l->name, l->ifindex);
	n = read_at(dir, path, text, sizeof(text));
	close(dir);
	if (n < 0)
		return (int)n;
	if (sscanf(text, "%u:%u", &major, &minor) != 2)
		return -EPROTO;
	*dev = makedev(major, minor);
	return 0;
}

static int open_checked(int dir, const char *path, dev_t dev)
{
	int fd = openat(dir, path, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (!fstat(fd, &st) && S_ISCHR(st.st_mode) && st.st_rdev == dev)
		return fd;
	close(fd);
	return -ENXIO;
}

/* *nodes: the tmpfs with the node, or -1; kept for the next queue. */
static int open_queue(const struct nl_link *l, dev_t dev, int *nodes)
{
	char path[32];
	struct stat st;

	snprintf(path, sizeof(path), "/dev/tap%d", l->ifindex);
	/* Looked at before: opening another one would join it. */
	if (*nodes < 0 && !lstat(path, &st) && S_ISCHR(st.st_mode) && st.st_rdev == dev) {
		int fd = open_checked(AT_FDCWD, path, dev);

		if (fd >= 0)
			return fd;
	}
	if (*nodes < 0) {
		int m = mount_unseen("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);

		if (m < 0)
			return m;
		if (mknodat(m, "tap", S_IFCHR | 0600, dev) < 0) {
			int err = errno;

			close(m);
			return -err;
		}
		*nodes = m;
	}
	return open_checked(*nodes, "tap", dev);
}

static int explain(int r, const struct nl_link *l, struct vh_err *e)
{
	if (r == -EPERM || r == -EACCES)
		net_host->remedy(e, "run as root, or let udev give this user /dev/tap%d", l->ifindex);
	return net_host->err(e, r, "cannot open the device of macvtap %s: %s", l->name, strerror(-r));
}

int tapdev_open(struct tap *t, const struct nl_link *l, unsigned pairs, struct vh_err *e)
{
	struct ifreq ifr;
	int nodes = -1, fd, r;
	dev_t dev = 0;

	memset(t, 0, sizeof(*t));
	memcpy(t->ifname, l->name, sizeof(t->ifname));
	r = device_number(l, &dev);
	if (r < 0) {
		net_host->remedy(e, "run as root; in a container, allow it to mount sysfs");
		return net_host->err(e, r, "sysfs does not tell the device of macvtap %s: %s", l->name, strerror(-r));
	}
	for (unsigned i = 0; i < pairs && !r; i++) {
		r = NET_FAULT("open tap");
		fd = r ? r : open_queue(l, dev, &nodes);
		if (fd < 0) {
			r = explain(fd, l, e);
			break;
		}
		t->fd[t->n++] = fd;
		memset(&ifr, 0, sizeof(ifr));
		ifr.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (pairs > 1 ? IFF_MULTI_QUEUE : 0));
		if (ioctl(fd, TUNSETIFF, &ifr) < 0 || ioctl(fd, TUNGETIFF, &ifr) < 0)
			r = net_host->err(e, -errno, "cannot set up queue pair %u of macvtap %s: %s", i, l->name, strerror(errno));
		else if (strncmp(ifr.ifr_name, l->name, IFNAMSIZ))
			r = net_host->err(e, -ENXIO, "the device of macvtap %s is that of %.15s", l->name, ifr.ifr_name);
	}
	if (nodes >= 0)
		close(nodes);
	if (r < 0)
		tap_close(t);
	return r;
}
