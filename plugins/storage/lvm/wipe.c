/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Making a range of a device read as zeros, or giving it back, in steps that can be cancelled. */
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "lvm.h"

#define STEP (UINT64_C(64) << 20)

static int over(int fd, unsigned long what, uint64_t from, uint64_t to, struct vh_job *j)
{
	for (uint64_t off = from; off < to; ) {
		uint64_t range[2] = {off, MIN(STEP, to - off)};

		if (lvm_cancelled(j))
			return -ECANCELED;
		if (ioctl(fd, what, range) < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		off += range[1];
		lvm_progress(j, off - from, to - from);
	}
	return fsync(fd) < 0 ? -errno : 0;
}

int lvm_zero(int fd, uint64_t from, uint64_t to, struct vh_job *j, struct vh_err *e)
{
	int ret = from < to ? over(fd, BLKZEROOUT, from, to, j) : 0;

	if (ret == -ECANCELED)
		return lvm_fail(e, ret, "cancelled");
	return ret ? lvm_fail(e, ret, "writing zeros: %s", g_strerror(-ret)) : 0;
}

int lvm_discard(int fd, uint64_t from, uint64_t to, struct vh_job *j, struct vh_err *e)
{
	int ret = from < to ? over(fd, BLKDISCARD, from, to, j) : 0;

	if (ret == -ECANCELED)
		return lvm_fail(e, ret, "cancelled");
	if (ret == -EOPNOTSUPP)
		lvm_hint(e, "define the pool with wipe=zero or wipe=none");
	return ret ? lvm_fail(e, ret, "discarding: %s", g_strerror(-ret)) : 0;
}
