/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Blocking operations on the fd of a volume: for worker threads and control calls. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>
#include "blk/blk-i.h"

int64_t blk_fd_rw(struct blk_vol *v, int op, int flags, const struct iovec *iov, unsigned niov, uint64_t off)
{
	off_t at = (off_t)(v->fd_base + off);
	ssize_t n;

	do {
		if (op == VH_READ)
			n = preadv(v->fd, iov, (int)niov, at);
		else
			n = pwritev2(v->fd, iov, (int)niov, at, flags & VH_REQ_FUA ? RWF_DSYNC : 0);
	} while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

static int fallocate_range(struct blk_vol *v, int mode, uint64_t off, uint64_t len)
{
	int r;

	do {
		r = fallocate(v->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)(v->fd_base + off), (off_t)len);
	} while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

static int unsupported(int r)
{
	return r == -EOPNOTSUPP || r == -ENOSYS || r == -ENOTTY || r == -EINVAL;
}

static int fd_discard(struct blk_vol *v, uint64_t off, uint64_t len)
{
	uint64_t range[2] = {v->fd_base + off, len};
	int r;

	if (v->caps & VH_VOL_FD_BLOCK)
		r = ioctl(v->fd, BLKDISCARD, range) < 0 ? -errno : 0;
	else
		r = fallocate_range(v, FALLOC_FL_PUNCH_HOLE, off, len);
	if (!unsupported(r))
		return r;
	atomic_store(&v->no_discard, 1);
	return 0; /* advisory */
}

static int block_zero_range(struct blk_vol *v, uint64_t off, uint64_t end)
{
	uint64_t range[2] = {v->fd_base + off, end - off};
	int r = off < end ? fallocate_range(v, FALLOC_FL_ZERO_RANGE, off, end - off) : 0;

	return unsupported(r) && ioctl(v->fd, BLKZEROOUT, range) < 0 ? -errno : unsupported(r) ? 0 : r;
}

/* A device whose discarded blocks read as zeros (a thin volume) would take space for zeros that are written: the whole blocks are
 * given back, and only what is left at both ends is written. 1: that is not for here. */
static int block_unmap(struct blk_vol *v, uint64_t off, uint64_t end)
{
	uint64_t gran = v->info.discard_gran > v->info.logical_block ? v->info.discard_gran : v->info.logical_block;
	uint64_t back = gran - v->info.discard_align % gran, first = off + (gran - (off + back) % gran) % gran, rest = (end + back) % gran;
	uint64_t range[2] = {v->fd_base + first, end - rest - first};
	int r;

	if (!(v->caps & VH_VOL_DISCARD) || !(v->caps & VH_VOL_DISCARD_ZEROES) || rest > end || first >= end - rest)
		return 1;
	r = ioctl(v->fd, BLKDISCARD, range) < 0 ? -errno : 0;
	if (unsupported(r))
		return 1;
	if (!r)
		r = block_zero_range(v, off, first);
	return r ? r : block_zero_range(v, end - rest, end);
}

/* Through the page cache offsets are of any kind, the device's own calls take whole sectors. */
static int block_zero(struct blk_vol *v, uint64_t off, uint64_t len, int flags)
{
	uint64_t end = off + len, sector = v->info.logical_block, first = off + (sector - off % sector) % sector, last = end - end % sector;
	int r;

	if (first >= last)
		return blk_fd_write_zeros(v, off, end);
	r = blk_fd_write_zeros(v, off, first);
	if (!r)
		r = blk_fd_write_zeros(v, last, end);
	if (r)
		return r;
	if (flags & VH_REQ_MAY_UNMAP) {
		r = block_unmap(v, first, last);
		if (r <= 0)
			return r;
		r = v->caps & VH_VOL_DISCARD ? fallocate_range(v, FALLOC_FL_PUNCH_HOLE, first, last - first) : -EOPNOTSUPP;
		if (!unsupported(r)) /* reads as zeros on devices too, or is refused */
			return r;
	}
	r = block_zero_range(v, first, last);
	return unsupported(r) ? -EOPNOTSUPP : r;
}

static int fd_zero(struct blk_vol *v, uint64_t off, uint64_t len, int flags)
{
	int r = -EOPNOTSUPP;

	if (v->caps & VH_VOL_FD_BLOCK)
		return block_zero(v, off, len, flags);
	if (flags & VH_REQ_MAY_UNMAP && v->caps & VH_VOL_DISCARD)
		r = fallocate_range(v, FALLOC_FL_PUNCH_HOLE, off, len);
	if (unsupported(r))
		r = fallocate_range(v, FALLOC_FL_ZERO_RANGE, off, len);
	if (unsupported(r) && v->caps & VH_VOL_DISCARD)
		r = fallocate_range(v, FALLOC_FL_PUNCH_HOLE, off, len);
	return unsupported(r) ? -EOPNOTSUPP : r;
}

int blk_fd_op(struct blk_vol *v, int op, int flags, uint64_t off, uint64_t len)
{
	int r;

	switch (op) {
	case VH_FLUSH:
		do {
			r = fdatasync(v->fd) < 0 ? -errno : 0;
		} while (r == -EINTR);
		return r;
	case VH_DISCARD:
		return fd_discard(v, off, len);
	case VH_ZERO:
		return fd_zero(v, off, len, flags);
	}
	return -EOPNOTSUPP;
}

/* Whether the fd really has O_DIRECT set, as its volume says: else libaio would block the loop. */
int blk_fd_direct_ok(struct blk_vol *v)
{
	int fl = fcntl(v->fd, F_GETFL);

	return fl >= 0 && fl & O_DIRECT;
}
