/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Loop devices, which lead around every lock: they open what they lie on without asking for any. So whoever takes a lease looks whether one
 * lies on the volume, and, for a volume on a device, whether one lies below it, and then at the lease of what is below that.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "lease.h"

#define DEEP 16 /* devices on devices */

/* A file's first line, without its end. */
static int line_of(const char *path, char *buf, size_t cap)
{
	FILE *f = fopen(path, "re");
	int ok = f && fgets(buf, (int)cap, f);

	if (f)
		fclose(f);
	if (ok)
		buf[strcspn(buf, "\n")] = 0;
	return ok;
}

/* What a loop device lies on: its path as it is now, and what is there. */
static int backing(const char *loop, char *path, size_t cap, struct stat *st)
{
	char at[128];

	snprintf(at, sizeof(at), "/sys/block/%.40s/loop/backing_file", loop);
	return line_of(at, path, cap) && !stat(path, st);
}

static int same(const struct stat *a, const struct stat *b)
{
	if (S_ISBLK(a->st_mode) || S_ISBLK(b->st_mode))
		return S_ISBLK(a->st_mode) && S_ISBLK(b->st_mode) && a->st_rdev == b->st_rdev;
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

static int reads_only(const char *loop)
{
	char at[128], text[8];

	snprintf(at, sizeof(at), "/sys/block/%.40s/ro", loop);
	return line_of(at, text, sizeof(text)) && text[0] == '1';
}

int lease_loop_above(const struct vh_host *host, int fd, uint32_t mode, struct vh_err *e)
{
	DIR *blocks = mode == VH_ATTACH_PEEK ? NULL : opendir("/sys/block");
	char path[4096];
	struct stat mine, st;
	struct dirent *d;
	int ret = 0;

	if (blocks && fstat(fd, &mine) < 0) {
		closedir(blocks);
		return 0;
	}
	while (blocks && !ret && (d = readdir(blocks))) {
		if (strncmp(d->d_name, "loop", 4) || !backing(d->d_name, path, sizeof(path), &st) || !same(&st, &mine) ||
		    (mode == VH_ATTACH_RO && reads_only(d->d_name)))
			continue;
		host->remedy(e, "unmount what is on it, then: losetup -d /dev/%s", d->d_name);
		ret = host->err(e, -EBUSY, "in use by the loop device /dev/%s on top of it", d->d_name);
	}
	if (blocks)
		closedir(blocks);
	return ret;
}

/* The node that the kernel has made: device-mapper's other names are nodes of their own where no udev makes them links. */
static int kernel_node(dev_t dev, char *out, size_t cap)
{
	char at[64], to[4096];
	const char *name;
	ssize_t n;

	snprintf(at, sizeof(at), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	n = readlink(at, to, sizeof(to) - 1);
	if (n < 0)
		return 0;
	to[n] = 0;
	name = strrchr(to, '/');
	return (size_t)snprintf(out, cap, "/dev/%s", name ? name + 1 : to) < cap;
}

/* Locks are a node's, not its device's. */
static int node_leased(const struct vh_host *host, const char *node, const struct stat *st, uint32_t mode, struct vh_err *e)
{
	int fd = open(node, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY), ret = 0;
	struct stat now;

	if (fd < 0)
		return 0;
	if (!fstat(fd, &now) && same(st, &now) && (mode == VH_ATTACH_RO ? lease_lock_writer(fd) : lease_lock_test(fd)))
		ret = lease_busy(host, fd, e);
	close(fd);
	return ret;
}

static int backing_leased(const struct vh_host *host, const char *loop, uint32_t mode, struct vh_err *e)
{
	char path[4096], node[300];
	struct stat st;
	int ret;

	if (!backing(loop, path, sizeof(path), &st))
		return 0;
	ret = node_leased(host, path, &st, mode, e);
	if (!ret && S_ISBLK(st.st_mode) && kernel_node(st.st_rdev, node, sizeof(node)))
		ret = node_leased(host, node, &st, mode, e);
	if (ret)
		host->remedy(e, "it lies on %s through /dev/%s: stop that first", path, loop);
	else if (S_ISBLK(st.st_mode))
		ret = lease_loop_below(host, st.st_rdev, mode, e);
	return ret;
}

static int walk(const struct vh_host *host, const char *dir, uint32_t mode, int depth, struct vh_err *e)
{
	DIR *slaves = depth ? opendir(dir) : NULL;
	struct dirent *d;
	int ret = 0;

	while (slaves && !ret && (d = readdir(slaves))) {
		char next[128];

		if (d->d_name[0] == '.')
			continue;
		if (!strncmp(d->d_name, "loop", 4) && isdigit((unsigned char)d->d_name[4])) {
			ret = backing_leased(host, d->d_name, mode, e);
			continue;
		}
		snprintf(next, sizeof(next), "/sys/block/%.40s/slaves", d->d_name);
		ret = walk(host, next, mode, depth - 1, e);
	}
	if (slaves)
		closedir(slaves);
	return ret;
}

int lease_loop_below(const struct vh_host *host, dev_t dev, uint32_t mode, struct vh_err *e)
{
	char dir[64];

	if (mode == VH_ATTACH_PEEK)
		return 0;
	snprintf(dir, sizeof(dir), "/sys/dev/block/%u:%u/slaves", major(dev), minor(dev));
	return walk(host, dir, mode, DEEP, e);
}
