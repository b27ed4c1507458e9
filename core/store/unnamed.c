/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A volume that is a file without a name (O_TMPFILE): it goes with the process, until it gets one. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "store/unnamed.h"

#define ALIGN 4096u

struct file_vol {
	int fd, direct;
	uint64_t caps;
};

static int file_info(void *vol, struct vh_volume_info *out)
{
	struct file_vol *v = vol;
	struct vh_volume_info i = {.size = out->size, .fd = v->fd};
	struct stat st;

	if (fstat(v->fd, &st) < 0)
		return -errno;
	i.caps = v->caps;
	i.bytes = (uint64_t)st.st_size;
	i.logical_block = 512;
	i.physical_block = i.min_io = ALIGN;
	i.buf_align = i.len_align = v->direct ? ALIGN : 1;
	i.max_segments = 1024; /* UIO_MAXIOV */
	i.max_bytes = 0x7ffff000;
	i.discard_gran = ALIGN;
	memcpy(out, &i, MIN(i.size, sizeof(i)));
	return 0;
}

static int file_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	struct file_vol *v = vol;

	if (bytes > INT64_MAX || ftruncate(v->fd, (off_t)bytes) < 0)
		return err_set(e, bytes > INT64_MAX ? -EFBIG : -errno, "the file cannot be made %llu bytes long",
			       (unsigned long long)bytes);
	return 0;
}

static void file_close(void *vol)
{
	g_free(vol);
}

static const struct vh_volume_ops file_ops = {
	.size = sizeof(file_ops), .info = file_info, .resize = file_resize, .close = file_close};

int unnamed_open(const char *folder, struct unnamed *u, struct vh_err *e)
{
	memset(u, 0, sizeof(*u));
	u->dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (u->dir < 0)
		return u->fd = -1, err_set(e, -errno, "the folder %s: %s", folder, g_strerror(errno));
	u->fd = openat(u->dir, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0666);
	if (u->fd < 0) {
		int code = errno;

		unnamed_close(u);
		/* EISDIR: a kernel or a file system that knows no O_TMPFILE. */
		if (code == EOPNOTSUPP || code == EISDIR || code == ENOSYS || code == EINVAL)
			return -EOPNOTSUPP;
		return err_set(e, -code, "cannot make a file in %s: %s", folder, g_strerror(code));
	}
	return 0;
}

int unnamed_volume(struct unnamed *u, const char *label, int direct, struct blk_vol **out, struct vh_err *e)
{
	struct file_vol *v = g_new0(struct file_vol, 1);
	struct blk_config c = {.label = label, .no_flush = 1};
	struct stat st;
	int ret;

	v->fd = u->fd;
	/* No flush: there is nothing to be found after a crash before it has a name, and unnamed_publish() makes all of it durable
	 * first. Each would be a commit of the file system's journal. */
	v->caps = VH_VOL_GROW | VH_VOL_ZERO_ON_GROW;
	/* Behind the end: the file may be complete, and be opened again to see whether it is good. */
	if (!fstat(u->fd, &st) && !fallocate(u->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
					     (st.st_size + ALIGN - 1) / ALIGN * ALIGN, ALIGN))
		v->caps |= VH_VOL_DISCARD | VH_VOL_DISCARD_ZEROES | VH_VOL_ZERO;
	if (direct) {
		int fl = fcntl(u->fd, F_GETFL);

		v->direct = fl >= 0 && !fcntl(u->fd, F_SETFL, fl | O_DIRECT);
		if (v->direct)
			v->caps |= VH_VOL_FD_DIRECT;
	}
	ret = blk_vol_new(v, &file_ops, &c, out, e);
	if (ret)
		g_free(v);
	return ret;
}

int unnamed_publish(struct unnamed *u, const char *name, int replace, struct vh_err *e)
{
	char at[64], temp[300];

	/* What the image's closing wrote is in here as well. */
	if (fsync(u->fd) < 0)
		return err_set(e, -errno, "cannot make it durable: %s", g_strerror(errno));
	snprintf(at, sizeof(at), "/proc/self/fd/%d", u->fd);
	if (linkat(AT_FDCWD, at, u->dir, name, AT_SYMLINK_FOLLOW) < 0) {
		if (errno == EEXIST && !replace)
			err_remedy(e, "choose another name, or add --force");
		if (errno != EEXIST || !replace)
			return err_set(e, -errno, "%s", g_strerror(errno));
		snprintf(temp, sizeof(temp), ".%.200s.%d~", name, (int)getpid());
		unlinkat(u->dir, temp, 0);
		if (linkat(AT_FDCWD, at, u->dir, temp, AT_SYMLINK_FOLLOW) < 0 || renameat(u->dir, temp, u->dir, name) < 0) {
			int code = errno;

			unlinkat(u->dir, temp, 0);
			return err_set(e, -code, "%s", g_strerror(code));
		}
	}
	return 0;
}

int unnamed_settle(struct unnamed *u, struct vh_err *e)
{
	if (fsync(u->dir) < 0 && errno != EINVAL && errno != EACCES)
		return err_set(e, -errno, "the folder cannot be made durable: %s", g_strerror(errno));
	return 0;
}

void unnamed_close(struct unnamed *u)
{
	if (u->fd >= 0)
		close(u->fd);
	if (u->dir >= 0)
		close(u->dir);
	u->fd = u->dir = -1;
}
