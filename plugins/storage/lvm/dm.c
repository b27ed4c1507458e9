/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The kernel's side of a volume, by device-mapper's own interface: which device it has, and that it goes with its last user. */
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "lvm.h"

/* "LVM-" and both uuids without their dashes: what lvm calls the device, whatever its names are. */
static int dm_uuid(const struct lvm_pool *p, const struct lvm_lv *lv, char out[DM_UUID_LEN])
{
	const char *parts[] = {p->vg_uuid, lv->uuid};
	size_t n = g_strlcpy(out, "LVM-", DM_UUID_LEN);

	for (int i = 0; i < 2; i++)
		for (const char *c = parts[i]; *c; c++)
			if (*c != '-') {
				if (n + 1 >= DM_UUID_LEN)
					return -EPROTO;
				out[n++] = *c;
			}
	out[n] = 0;
	return 0;
}

static int call(const struct lvm_pool *p, const struct lvm_lv *lv, unsigned long request, unsigned flags, struct dm_ioctl *d)
{
	int fd = open("/dev/mapper/control", O_RDWR | O_CLOEXEC), ret;

	if (fd < 0)
		return errno == ENOENT || errno == ENODEV || errno == ENXIO ? -ENOENT : -errno;
	memset(d, 0, sizeof(*d));
	d->version[0] = DM_VERSION_MAJOR;
	d->data_size = sizeof(*d);
	d->data_start = sizeof(*d);
	d->flags = flags;
	ret = dm_uuid(p, lv, d->uuid);
	if (!ret && ioctl(fd, request, d) < 0)
		ret = errno == ENXIO ? -ENOENT : -errno;
	close(fd);
	return ret;
}

int lvm_dev_find(const struct lvm_pool *p, const struct lvm_lv *lv, struct lvm_dev *out)
{
	struct dm_ioctl d;
	int ret = call(p, lv, DM_DEV_STATUS, 0, &d);

	if (ret)
		return ret;
	out->major = major(d.dev);
	out->minor = minor(d.dev);
	out->open = d.open_count;
	return d.flags & DM_ACTIVE_PRESENT_FLAG ? 0 : -ENOENT;
}

int lvm_dev_drop(const struct lvm_pool *p, const struct lvm_lv *lv)
{
	struct dm_ioctl d;

	return call(p, lv, DM_DEV_REMOVE, DM_DEFERRED_REMOVE, &d);
}
