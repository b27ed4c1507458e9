/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What copying needs of volumes that are files: where their holes are, sharing ranges between files, writing out early. */
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "blk/blk-i.h"

static int is_file(const struct blk_vol *v)
{
	return v->fd >= 0 && !(v->caps & VH_VOL_FD_BLOCK);
}

void blk_next_data(struct blk_vol *v, uint64_t off, uint64_t end, uint64_t *from, uint64_t *to)
{
	off_t d, h;

	*from = off;
	*to = end;
	if (!is_file(v))
		return;
	d = lseek(v->fd, (off_t)(v->fd_base + off), SEEK_DATA);
	if (d < 0) {
		/* ENXIO: a hole up to the end of the file. Anything else: everything counts as data. */
		*from = errno == ENXIO ? end : off;
		return;
	}
	if ((uint64_t)d - v->fd_base >= end) {
		*from = end;
		return;
	}
	*from = (uint64_t)d - v->fd_base;
	h = lseek(v->fd, d, SEEK_HOLE);
	if (h > d && (uint64_t)h - v->fd_base < end)
		*to = (uint64_t)h - v->fd_base;
}

int blk_share(struct blk_vol *v, uint64_t off, struct blk_vol *from, uint64_t from_off, uint64_t len)
{
	struct file_clone_range r = {.src_fd = from->fd, .src_offset = from->fd_base + from_off, .src_length = len,
				     .dest_offset = v->fd_base + off};
	uint64_t end = off + len, mask = v->len_mask;
	unsigned s = atomic_load(&v->state);
	struct blk_range range;
	int ret = 0;

	if (!is_file(v) || !is_file(from) || !len || end < off || (off | len) & mask)
		return -EOPNOTSUPP;
	if (s & (BLK_LOST | BLK_FAILED | BLK_READ_ONLY))
		return s & BLK_READ_ONLY ? -EROFS : -EIO;
	if (from_off > blk_vol_bytes(from) || len > blk_vol_bytes(from) - from_off)
		return -EOPNOTSUPP;
	if (end > blk_vol_bytes(v))
		ret = v->caps & VH_VOL_GROW ? blk_grow_now(v, end, NULL) : -ENOSPC;
	if (ret)
		return ret;
	if (mask)
		blk_range_begin(v, NULL, &range, off, end, 0);
	do {
		ret = ioctl(v->fd, FICLONERANGE, &r) < 0 ? -errno : 0;
	} while (ret == -EINTR);
	atomic_fetch_add(&v->other_mods, 1); /* the next flush is not needless, whatever came of it */
	if (mask)
		blk_range_end(v, &range);
	switch (ret) {
	case -EXDEV: /* another file system */
	case -EINVAL: /* not at its blocks */
	case -ENOTTY:
	case -ENOSYS:
	case -EBADF:
	case -ETXTBSY:
	case -EPERM:
		return -EOPNOTSUPP;
	}
	return ret;
}

void blk_write_out(struct blk_vol *v)
{
	if (is_file(v) && v->buffered)
		sync_file_range(v->fd, (off_t)v->fd_base, 0, SYNC_FILE_RANGE_WRITE);
}
