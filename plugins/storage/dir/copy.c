/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Moving and making file contents: shared where possible, holes kept, cancellable at any 16 MiB. */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>
#include "dir.h"

#define STEP (16u << 20)
#define BUF (1u << 20)

static int all_zero(const char *p, size_t n)
{
	return !n || (!*p && !memcmp(p, p + 1, n - 1));
}

/* One run of data by reading and writing; blocks of zeros become holes. */
static int copy_plain(int src, int dst, uint64_t off, uint64_t len, char *buf)
{
	while (len) {
		ssize_t n = pread(src, buf, len < BUF ? len : BUF, (off_t)off), w;

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (!n)
			return 0; /* shorter than it was: the rest stays a hole */
		for (ssize_t at = 0; at < n; at += w) {
			if (all_zero(buf, (size_t)n)) {
				w = n;
				continue;
			}
			w = pwrite(dst, buf + at, (size_t)(n - at), (off_t)off + at);
			if (w < 0 && errno == EINTR)
				w = 0;
			if (w < 0)
				return -errno;
		}
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

int dir_copy(int src, int dst, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	int ranges = 1, ret = 0;
	char *buf = NULL;
	uint64_t off = 0;

	if (ioctl(dst, FICLONE, src) == 0) {
		dir_progress(j, bytes, bytes);
		return 0;
	}
	if (ftruncate(dst, (off_t)bytes) < 0)
		return dir_fail(e, -errno, "cannot make %llu bytes: %s", (unsigned long long)bytes, strerror(errno));
	while (off < bytes && !ret) {
		off_t data = lseek(src, (off_t)off, SEEK_DATA), hole;
		uint64_t end = bytes;

		if (data < 0 && errno == ENXIO)
			break; /* a hole up to the end */
		if (data < 0) {
			data = (off_t)off; /* no SEEK_DATA: everything counts as data */
		} else if ((hole = lseek(src, data, SEEK_HOLE)) > data) {
			end = (uint64_t)hole < bytes ? (uint64_t)hole : bytes;
		}
		if ((uint64_t)data >= bytes)
			break;
		off = (uint64_t)data;
		while (off < end && !ret) {
			uint64_t n = end - off < STEP ? end - off : STEP;

			if (dir_cancelled(j)) {
				ret = -ECANCELED;
				break;
			}
			if (ranges) {
				off_t from = (off_t)off, to = (off_t)off;
				ssize_t did = copy_file_range(src, &from, dst, &to, n, 0);

				if (did > 0) {
					off += (uint64_t)did;
					dir_progress(j, off, bytes);
					continue;
				}
				if (did < 0 && errno == EINTR)
					continue;
				if (did < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO)) {
					ret = -errno;
					break;
				}
				ranges = 0;
			}
			if (!buf && !(buf = malloc(BUF))) {
				ret = -ENOMEM;
				break;
			}
			ret = copy_plain(src, dst, off, n, buf);
			off += n;
			dir_progress(j, off, bytes);
		}
	}
	free(buf);
	if (ret == -ENOSPC || ret == -EDQUOT)
		dir_hint(e, "free space in the pool's file system");
	if (ret)
		return ret == -ECANCELED ? dir_fail(e, ret, "cancelled") :
					   dir_fail(e, ret, "copying: %s", strerror(-ret));
	dir_progress(j, bytes, bytes);
	return 0;
}

static int write_zeros(int fd, uint64_t from, uint64_t to, struct vh_job *j)
{
	char *buf = calloc(1, BUF);
	uint64_t total = to - from, start = from, synced = from;
	int ret = buf ? 0 : -ENOMEM;

	while (!ret && from < to) {
		ssize_t n = pwrite(fd, buf, to - from < BUF ? to - from : BUF, (off_t)from);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			ret = n < 0 ? -errno : -EIO;
			break;
		}
		from += (uint64_t)n;
		dir_progress(j, from - start, total);
		if (dir_cancelled(j))
			ret = -ECANCELED;
		/* Writing behind keeps the progress honest and the page cache for others. */
		if (from - synced >= STEP) {
			sync_file_range(fd, (off_t)synced, (off_t)(from - synced), SYNC_FILE_RANGE_WRITE);
			synced = from;
		}
	}
	free(buf);
	return ret;
}

int dir_extend(int fd, uint64_t from, uint64_t to, uint32_t prealloc, struct vh_job *j, struct vh_err *e)
{
	int ret = 0;

	if (to > INT64_MAX)
		return dir_fail(e, -EFBIG, "a file cannot be that large");
	if (prealloc == VH_PREALLOC_OFF) {
		if (ftruncate(fd, (off_t)to) < 0)
			ret = -errno;
	} else if (to > from) {
		struct statvfs fs;

		/* A short answer to "no space" before minutes of allocating, which would fill the disk for everyone. */
		if (fstatvfs(fd, &fs) == 0 && fs.f_blocks && (to - from) / fs.f_frsize > fs.f_bfree)
			ret = -ENOSPC;
		else
			ret = fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from)) < 0 ?
				      -errno : 0;
		if (!ret && prealloc == VH_PREALLOC_FALLOC)
			ret = ftruncate(fd, (off_t)to) < 0 ? -errno : 0;
		else if (!ret || ret == -EOPNOTSUPP)
			ret = write_zeros(fd, from, to, j);
	}
	if (!ret)
		return 0;
	if (prealloc != VH_PREALLOC_OFF &&
	    (ftruncate(fd, (off_t)from) < 0 ||
	     fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(to - from)) < 0))
		dir_warn("could not give back all space of a failed allocation");
	if (ret == -ENOSPC || ret == -EDQUOT)
		dir_hint(e, "free space, or use --preallocation off");
	if (ret == -EFBIG)
		dir_hint(e, "this file system, or a limit of the user (ulimit -f), does not take files that large");
	return ret == -ECANCELED ? dir_fail(e, ret, "cancelled") :
				   dir_fail(e, ret, "cannot allocate %llu bytes: %s", (unsigned long long)(to - from),
					    strerror(-ret));
}
