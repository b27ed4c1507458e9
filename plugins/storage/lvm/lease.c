/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A volume in use: activated, opened, locked. Its locks lie on the device's one node in devtmpfs, as QEMU's and virtlockd's do; a
 * sole user also claims the device itself (O_EXCL), which counts for every node and name it has, for mounts and for other
 * devices on top of it.
 *
 * What we have activated goes with its last descriptor, however that is closed: device-mapper's deferred removal. So a VM that
 * has dropped its privileges, or is killed, leaves no active volume behind. Volumes that lie on further devices of their own
 * (classic snapshots, RAID, caches) are deactivated by lvm instead, which knows them.
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "lvm.h"

#define TRIES 10
#define PAUSE_US 30000

/* One device of its own, and beneath it only others' (the devices of the group, the thin pool). */
static int is_simple(const struct lvm_lv *lv)
{
	if (lv->layered || strstr(lv->role, "thickorigin") || strstr(lv->role, "thicksnapshot"))
		return 0;
	return lvm_is_thin(lv) || !strcmp(lv->layout, "linear") || !strcmp(lv->layout, "striped");
}

static char *full_name(const struct lvm_pool *p, const struct lvm_lv *lv)
{
	return g_strdup_printf("%s/%s", p->vg, lv->name);
}

static int activate(const struct lvm_pool *p, const struct lvm_lv *lv, struct lvm_dev *dev, struct vh_err *e)
{
	g_autofree char *name = full_name(p, lv);
	/* -K: thin snapshots are marked to be passed over by activation at boot. */
	int ret = lvm_run(p, NULL, NULL, NULL, e, "lvchange", "-ay", "-K", name, NULL);

	if (ret)
		return ret;
	ret = lvm_dev_find(p, lv, dev);
	if (ret == -ENOENT) {
		lvm_hint(e, "see whether the kernel has device-mapper (modprobe dm_mod) and lvm.conf allows activation");
		return lvm_fail(e, -EOPNOTSUPP, "logical volumes cannot be activated here: no device came of it");
	}
	return ret;
}

/* The node of the device, whatever may have taken its number in between. */
static int open_node(const struct lvm_pool *p, const struct lvm_lv *lv, const struct lvm_dev *dev, int flags)
{
	g_autofree char *by_name = g_strdup_printf("/dev/%s/%s", p->vg, lv->name);
	char by_number[32];
	const char *const paths[] = {by_number, by_name};
	struct lvm_dev again;
	int ret = -ENOENT;

	snprintf(by_number, sizeof(by_number), "/dev/dm-%u", dev->minor);
	for (int i = 0; i < 2; i++) {
		int fd = open(paths[i], flags | O_CLOEXEC | O_NOCTTY);
		struct stat st;

		if (fd < 0) {
			ret = errno == ENXIO || errno == ENODEV ? -ENOENT : -errno;
			if (ret == -ENOENT)
				continue;
			return ret;
		}
		if (!fstat(fd, &st) && S_ISBLK(st.st_mode) && st.st_rdev == makedev(dev->major, dev->minor)) {
			/* It is open, so that it keeps its number: is it the one? */
			if (!lvm_dev_find(p, lv, &again) && again.major == dev->major && again.minor == dev->minor)
				return fd;
		}
		close(fd);
		ret = -ENOENT;
	}
	return ret;
}

/* What claims the device without being a process: a mount, another device. */
static int claimed_by(const struct lvm_dev *dev, char *out, size_t cap)
{
	g_autofree char *mounts = NULL, *want = g_strdup_printf("%u:%u", dev->major, dev->minor),
			*holders = g_strdup_printf("/sys/dev/block/%s/holders", want);
	GDir *d;

	if (g_file_get_contents("/proc/self/mountinfo", &mounts, NULL, NULL)) {
		g_auto(GStrv) lines = g_strsplit(mounts, "\n", 0);

		for (unsigned i = 0; lines[i]; i++) {
			g_auto(GStrv) f = g_strsplit(lines[i], " ", 6);

			if (g_strv_length(f) >= 5 && !strcmp(f[2], want)) {
				snprintf(out, cap, "the file system that is mounted on %s", f[4]);
				return 1;
			}
		}
	}
	d = g_dir_open(holders, 0, NULL);
	if (d) {
		const char *name = g_dir_read_name(d);

		if (name)
			snprintf(out, cap, "the device %s on top of it", name);
		g_dir_close(d);
		return name != NULL;
	}
	return 0;
}

static int busy(const struct lvm_pool *p, const struct lvm_lv *lv, const struct lvm_dev *dev, struct vh_err *e)
{
	char who[256];
	int fd, ret;

	if (claimed_by(dev, who, sizeof(who))) {
		lvm_hint(e, "unmount or stop that first");
		return lvm_fail(e, -EBUSY, "in use by %s", who);
	}
	fd = open_node(p, lv, dev, O_RDONLY);
	if (fd < 0)
		return lvm_fail(e, -EBUSY, "in use");
	ret = lease_busy(lvm_host, fd, e);
	close(fd);
	return ret;
}

static int usable(const struct lvm_pool *p, const struct lvm_lv *lv, uint32_t mode, struct vh_err *e)
{
	if (strstr(lv->health, "partial")) {
		lvm_hint(e, "bring the device back (lvm pvs tells which), or restore the volume from a copy");
		return lvm_fail(e, -EIO, "a device that it lies on is missing");
	}
	if (lv->merging) {
		lvm_hint(e, "wait until it is done: lvm lvs %s/%s", p->vg, lv->name);
		return lvm_fail(e, -EBUSY, "a snapshot is being merged into it");
	}
	if (lv->ro && (mode == VH_ATTACH_RW_EXCL || mode == VH_ATTACH_RW_SHARED)) {
		lvm_hint(e, "use it read-only, or: lvchange -prw %s/%s", p->vg, lv->name);
		return lvm_fail(e, -EROFS, "it is read-only");
	}
	return 0;
}

/* -ENOENT: the device went while we looked. -EAGAIN: somebody has it for a moment. */
static int take(const struct lvm_pool *p, const struct lvm_lv *lv, uint32_t mode, int flags, struct lvm_lease *l)
{
	int fd, ret, tries = TRIES;

	if (mode == VH_ATTACH_RW_EXCL)
		flags |= O_EXCL;
	do {
		fd = open_node(p, lv, &l->dev, flags);
	} while (fd == -EBUSY && --tries && !usleep(PAUSE_US)); /* a reader that looks whether it is mounted */
	if (fd < 0)
		return fd;
	ret = mode == VH_ATTACH_PEEK ? 0 : lease_lock_set(fd, &l->lock, mode);
	/* A reader shares with readers, not with who has it mounted. */
	if (!ret && (mode == VH_ATTACH_RO || mode == VH_ATTACH_RW_SHARED)) {
		int probe;

		tries = TRIES;
		do {
			probe = open_node(p, lv, &l->dev, O_RDONLY | O_EXCL);
		} while (probe == -EBUSY && --tries && !usleep(PAUSE_US));
		if (probe >= 0)
			close(probe);
		else
			ret = probe;
	}
	if (ret)
		close(fd);
	else
		l->fd = fd;
	return ret;
}

int lvm_lease(const struct lvm_pool *p, const struct lvm_lv *lv, uint32_t mode, int direct, const char *text, struct lvm_lease *l,
	      struct vh_err *e)
{
	int flags = (mode == VH_ATTACH_RO || mode == VH_ATTACH_PEEK ? O_RDONLY : O_RDWR) | (direct ? O_DIRECT : 0), ret, activated = 0;

	*l = (struct lvm_lease){.fd = -1, .mode = (int)mode, .lock.byte0 = F_UNLCK};
	ret = usable(p, lv, mode, e);
	if (ret)
		return ret;
	for (int tries = 0; tries < TRIES; tries++) {
		ret = lvm_dev_find(p, lv, &l->dev);
		if (ret == -ENOENT) {
			ret = activate(p, lv, &l->dev, e);
			activated |= !ret;
			if (ret && ret != -EACCES && ret != -EPERM)
				return ret;
		}
		if (ret == -EACCES || ret == -EPERM) {
			lvm_hint(e, "run as root");
			return lvm_fail(e, ret, "the devices of logical volumes are the administrator's");
		}
		if (!ret)
			ret = take(p, lv, mode, flags, l);
		if (ret != -ENOENT) /* its last user has just closed it: once more */
			break;
	}
	if (ret == -EBUSY)
		return busy(p, lv, &l->dev, e);
	if (!ret) {
		ret = lease_loop_above(lvm_host, l->fd, mode, e);
		if (!ret)
			ret = lease_loop_below(lvm_host, makedev(l->dev.major, l->dev.minor), mode, e);
		if (ret) {
			if (activated && is_simple(lv))
				lvm_dev_drop(p, lv);
			l->activated = activated && !is_simple(lv);
			lvm_unlease(p, lv, l);
			return ret;
		}
	}
	if (ret)
		return lvm_fail(e, ret, "cannot open its device: %s", g_strerror(-ret));
	if (activated && is_simple(lv)) {
		ret = lvm_dev_drop(p, lv);
		if (ret)
			lvm_warn("%s/%s stays active after its use: %s", p->vg, lv->name, g_strerror(-ret));
	} else if (activated) {
		l->activated = 1;
	}
	if (mode != VH_ATTACH_PEEK)
		lease_holder_write(l->fd, text, mode != VH_ATTACH_RW_EXCL);
	return 0;
}

int lvm_lease_why(const struct lvm_pool *p, const struct lvm_lv *lv, uint32_t mode, const char *why, struct lvm_lease *l,
		  struct vh_err *e)
{
	g_autofree char *text = g_strdup_printf("pid %d vhost (%s)", (int)getpid(), why);

	return lvm_lease(p, lv, mode, 0, text, l, e);
}

void lvm_unlease(const struct lvm_pool *p, const struct lvm_lv *lv, struct lvm_lease *l)
{
	if (l->fd < 0)
		return;
	if (l->mode != VH_ATTACH_PEEK)
		lease_holder_clear(l->fd);
	close(l->fd);
	l->fd = -1;
	if (l->activated)
		lvm_deactivate(p, lv);
}

/* A VM may not any more, and leaves it active; and somebody else may have it open. */
void lvm_deactivate(const struct lvm_pool *p, const struct lvm_lv *lv)
{
	g_autofree char *name = full_name(p, lv);
	struct lvm_dev dev;

	if (!lvm_dev_find(p, lv, &dev) && !dev.open)
		lvm_run(p, NULL, NULL, NULL, NULL, "lvchange", "-an", name, NULL);
}

int lvm_in_use(const struct lvm_pool *p, const struct lvm_lv *lv)
{
	struct lvm_dev dev;

	return !lvm_dev_find(p, lv, &dev) && dev.open > 0;
}
