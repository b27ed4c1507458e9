/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* An attached volume: a file descriptor for the host's engine, and its lease. On the way of a starting VM. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>
#include "dir.h"

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif
#define PROBE_MAX 4096u

struct dir_volume {
	int fd;      /* for I/O */
	int lock_fd; /* whose open file description holds the lease; the same one when it may write */
	uint32_t mode;
	int direct, leased;
	struct lease_lock lock;
	uint32_t mem_align, off_align, block;
	uint64_t discard; /* caps */
	char serial[32];
	char *path;
};

/* The alignment that O_DIRECT wants, by trying, where statx does not tell. Reads only; what cannot be tried (a small
 * file) counts as 4096. */
static uint32_t probe_align(int fd, uint64_t bytes)
{
	char *buf;
	uint32_t n = PROBE_MAX;

	if (bytes < PROBE_MAX || posix_memalign((void **)&buf, PROBE_MAX, PROBE_MAX))
		return PROBE_MAX;
	for (uint32_t a = 512; a < PROBE_MAX; a *= 2)
		if (pread(fd, buf, a, 0) == (ssize_t)a) {
			n = a;
			break;
		}
	free(buf);
	return n;
}

/* Which of punching holes and zeroing ranges works: known for the common ones, else tried past the end of the file. */
static uint64_t fallocate_caps(const struct dir_volume *v, uint64_t bytes)
{
	const uint64_t punch = VH_VOL_DISCARD | VH_VOL_DISCARD_ZEROES;
	struct statfs fs;
	uint64_t caps = 0;
	int flags = 0;
	off_t past = (off_t)((bytes + 0xfffff) & ~UINT64_C(0xfff));

	if (v->mode == VH_ATTACH_RO || v->mode == VH_ATTACH_PEEK || fstatfs(v->fd, &fs) < 0)
		return 0;
	switch ((uint32_t)fs.f_type) {
	case EXT4_SUPER_MAGIC: /* ext2 and ext3 share its magic; a file without extents is one of theirs */
		if (ioctl(v->fd, FS_IOC_GETFLAGS, &flags) < 0 || !(flags & FS_EXTENT_FL))
			break;
		return punch | VH_VOL_ZERO;
	case XFS_SUPER_MAGIC:
	case BTRFS_SUPER_MAGIC:
		return punch | VH_VOL_ZERO;
	case TMPFS_MAGIC: /* zeroes by punching */
		return punch | VH_VOL_ZERO;
	}
	if (!fallocate(v->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, past, 4096))
		caps |= punch | VH_VOL_ZERO;
	return caps;
}

static int volume_info(void *vol, struct vh_volume_info *out)
{
	struct dir_volume *v = vol;
	struct vh_volume_info i = {.size = out->size, .fd = v->fd};
	struct stat st;

	if (fstat(v->fd, &st) < 0)
		return -errno;
	i.caps = VH_VOL_WRITE_CACHE | VH_VOL_FLUSH | v->discard;
	if (v->mode == VH_ATTACH_RO || v->mode == VH_ATTACH_PEEK)
		i.caps = VH_VOL_READ_ONLY;
	else if (v->mode == VH_ATTACH_RW_EXCL)
		i.caps |= VH_VOL_GROW | VH_VOL_ZERO_ON_GROW;
	if (v->direct)
		i.caps |= VH_VOL_FD_DIRECT;
	if (v->leased)
		i.caps |= VH_VOL_LEASED;
	i.bytes = (uint64_t)st.st_size;
	i.logical_block = 512;
	i.physical_block = v->block;
	i.min_io = v->block;
	i.buf_align = v->direct ? v->mem_align : 1;
	i.len_align = v->direct ? v->off_align : 1;
	i.max_segments = 1024; /* UIO_MAXIOV */
	i.max_bytes = 0x7ffff000;
	i.discard_gran = v->block;
	memcpy(i.serial, v->serial, sizeof(i.serial));
	memcpy(out, &i, i.size < sizeof(i) ? i.size : sizeof(i));
	return 0;
}

static int volume_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	struct dir_volume *v = vol;

	if (v->mode != VH_ATTACH_RW_EXCL)
		return dir_fail(e, -EROFS, "%s is not attached for writing alone", v->path);
	if (bytes > INT64_MAX || ftruncate(v->fd, (off_t)bytes) < 0)
		return dir_fail(e, bytes > INT64_MAX ? -EFBIG : -errno, "%s: cannot be made %llu bytes long", v->path,
				(unsigned long long)bytes);
	/* No fdatasync here: the host's next flush of this descriptor covers the size, and must be the one that hears of a
	 * failed write, which the kernel tells once. */
	return 0;
}

static void volume_close(void *vol)
{
	struct dir_volume *v = vol;

	if (v->mode != VH_ATTACH_PEEK && v->lock_fd >= 0)
		lease_holder_clear(v->lock_fd);
	if (v->fd >= 0)
		close(v->fd);
	if (v->lock_fd >= 0 && v->lock_fd != v->fd)
		close(v->lock_fd);
	free(v->path);
	free(v);
}

static const struct vh_volume_ops volume_ops = {
	.size = sizeof(volume_ops), .info = volume_info, .resize = volume_resize, .close = volume_close};

/* The same file for as long as it exists, wherever it is moved and mounted; a copy has another one. */
static void make_serial(const struct statx *s, char out[32])
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	uint64_t in[3] = {s->stx_ino, 0, 0};

	if (s->stx_mask & STATX_BTIME) {
		in[1] = (uint64_t)s->stx_btime.tv_sec;
		in[2] = s->stx_btime.tv_nsec;
	}
	for (size_t i = 0; i < sizeof(in); i++)
		h = (h ^ ((const unsigned char *)in)[i]) * UINT64_C(0x100000001b3);
	snprintf(out, 32, "vh%016llx", (unsigned long long)h);
}

static int open_direct(const struct dir_pool *p, const char *name, int flags, int buffered, int *direct,
		       struct vh_err *e)
{
	int fd = -EINVAL;

	*direct = 0;
	if (!buffered) {
		fd = dir_open_file(p, name, flags | O_DIRECT, NULL);
		*direct = fd >= 0;
	}
	/* -EINVAL: this file system has no O_DIRECT. Anything else: once more, for the text. */
	return fd < 0 ? dir_open_file(p, name, flags, e) : fd;
}

int dir_attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops, struct vh_err *e)
{
	const uint64_t known = VH_ATTACH_BUFFERED;
	struct dir_pool *p = pool;
	struct dir_volume *v;
	struct statx s;
	int ret, ro = a->mode == VH_ATTACH_RO || a->mode == VH_ATTACH_PEEK;

	if (a->flags & VH_MUST_UNDERSTAND & ~known)
		return dir_fail(e, -EOPNOTSUPP, "an attach flag that pools of type dir do not know");
	if (a->mode > VH_ATTACH_PEEK)
		return dir_fail(e, -EINVAL, "no such attach mode");
	v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	v->fd = v->lock_fd = -1;
	v->mode = a->mode;
	v->lock.byte0 = F_UNLCK;
	ret = open_direct(p, a->name, ro ? O_RDONLY : O_RDWR, !!(a->flags & VH_ATTACH_BUFFERED), &v->direct, e);
	if (ret < 0) {
		if (ret == -EROFS)
			dir_hint(e, "use it read-only");
		goto fail;
	}
	v->fd = ret;
	if (asprintf(&v->path, "%s/%s", p->path, a->name) < 0) {
		v->path = NULL;
		ret = -ENOMEM;
		goto fail;
	}
	if (a->mode != VH_ATTACH_PEEK) {
		/* A reader's lease sits on a writable description where it can, so that it can be raised in place. */
		v->lock_fd = ro ? dir_open_file(p, a->name, O_RDWR, NULL) : v->fd;
		if (v->lock_fd < 0)
			v->lock_fd = v->fd;
		ret = lease_lock_set(v->lock_fd, &v->lock, a->mode);
		if (ret == -EBUSY) {
			ret = lease_busy(dir_host, v->lock_fd, e);
			goto fail;
		}
		if (ret == -ENOLCK) {
			dir_warn("%s: this file system has no locks: nothing keeps others from writing the volume",
				 v->path);
		} else if (ret) {
			ret = dir_fail(e, ret, "cannot lock %s: %s", v->path, strerror(-ret));
			goto fail;
		}
		ret = lease_loop_above(dir_host, v->fd, a->mode, e);
		if (ret)
			goto fail;
		v->leased = v->lock.byte0 != F_UNLCK;
		lease_holder_write(v->lock_fd, a->holder, a->mode != VH_ATTACH_RW_EXCL);
	}
	if (statx(v->fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME | STATX_DIOALIGN, &s) < 0) {
		ret = dir_errno(e, -errno, p, a->name);
		goto fail;
	}
	v->block = s.stx_blksize >= 512 && s.stx_blksize <= 4096 ? s.stx_blksize : 4096;
	if (v->direct && s.stx_mask & STATX_DIOALIGN && !s.stx_dio_offset_align) {
		/* Opened, but this file cannot do it (data journalling, encryption). */
		int flags = fcntl(v->fd, F_GETFL);

		v->direct = 0;
		if (flags < 0 || fcntl(v->fd, F_SETFL, flags & ~O_DIRECT) < 0) {
			ret = dir_errno(e, -errno, p, a->name);
			goto fail;
		}
	} else if (v->direct && s.stx_mask & STATX_DIOALIGN) {
		v->mem_align = s.stx_dio_mem_align;
		v->off_align = s.stx_dio_offset_align;
	} else if (v->direct) {
		v->mem_align = v->off_align = probe_align(v->fd, s.stx_size);
	}
	v->discard = fallocate_caps(v, s.stx_size);
	make_serial(&s, v->serial);
	*vol = v;
	*ops = &volume_ops;
	return 0;
fail:
	if (!v->leased)
		v->mode = VH_ATTACH_PEEK; /* no record to take back */
	volume_close(v);
	return ret;
}

int dir_reattach(void *pool, void *vol, uint32_t mode, struct vh_err *e)
{
	struct dir_volume *v = vol;
	int was_ro = v->mode == VH_ATTACH_RO || v->mode == VH_ATTACH_PEEK;
	int ro = mode == VH_ATTACH_RO || mode == VH_ATTACH_PEEK, ret, fd = -1;
	char at[64];

	if (mode > VH_ATTACH_PEEK)
		return dir_fail(e, -EINVAL, "no such attach mode");
	if (v->mode == VH_ATTACH_PEEK || mode == VH_ATTACH_PEEK)
		return dir_fail(e, -EOPNOTSUPP, "a volume that is only peeked at is detached and attached again");
	if (was_ro && !ro) {
		snprintf(at, sizeof(at), "/proc/self/fd/%d", v->fd);
		fd = open(at, O_RDWR | O_CLOEXEC | (v->direct ? O_DIRECT : 0));
		if (fd < 0 || v->lock_fd == v->fd) {
			ret = dir_fail(e, fd < 0 ? -errno : -EACCES, "%s may not be written by user %d", v->path,
				       (int)geteuid());
			if (fd >= 0)
				close(fd);
			return ret;
		}
	}
	if (v->leased) {
		ret = lease_lock_set(v->lock_fd, &v->lock, mode);
		if (ret) {
			if (fd >= 0)
				close(fd);
			return ret == -EBUSY ? lease_busy(dir_host, v->lock_fd, e) :
					       dir_fail(e, ret, "cannot lock %s: %s", v->path, strerror(-ret));
		}
	}
	/* The number of the descriptor is known to the host: the writable one takes its place. */
	if (fd >= 0) {
		dup3(fd, v->fd, O_CLOEXEC);
		close(fd);
	}
	v->mode = mode;
	if (!ro) {
		struct stat st;

		v->discard = fstat(v->fd, &st) < 0 ? 0 : fallocate_caps(v, (uint64_t)st.st_size);
	}
	return 0;
}
