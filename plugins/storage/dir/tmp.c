/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Files that have no name until they are complete. With O_TMPFILE a crash leaves nothing by itself. Where the file
 * system has none, they live in the hidden folder DIR_TMP, locked by their maker: what is not locked is a dead one's and
 * is removed when the pool is next opened. The folder exists only while it is needed, so that opening a pool costs one
 * failing system call, never a scan of the volumes.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>
#include "dir.h"

static int lock_tmp(int fd)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};

	return fcntl(fd, F_OFD_SETLK, &l) < 0 ? -errno : 0;
}

static int named_tmp(const struct dir_pool *p, struct dir_tmp *t)
{
	static unsigned serial;
	struct timespec now;
	struct stat st;
	char at[96];
	int ret;

	for (int tries = 0; tries < 100; tries++) {
		if (mkdirat(p->fd, DIR_TMP, 0700) < 0 && errno != EEXIST)
			return -errno;
		clock_gettime(CLOCK_REALTIME, &now);
		snprintf(t->name, sizeof(t->name), "%d-%u-%lld%09ld", (int)getpid(),
			 __atomic_fetch_add(&serial, 1, __ATOMIC_RELAXED), (long long)now.tv_sec, now.tv_nsec);
		snprintf(at, sizeof(at), DIR_TMP "/%s", t->name);
		t->fd = openat(p->fd, at, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
		if (t->fd < 0) {
			if (errno == ENOENT || errno == EEXIST)
				continue; /* another one removed the empty folder between the two calls */
			return -errno;
		}
		ret = lock_tmp(t->fd);
		if (!ret && !fstat(t->fd, &st) && st.st_nlink)
			return 0;
		close(t->fd); /* a cleaner was quicker than our lock: once more */
		unlinkat(p->fd, at, 0);
		if (ret && ret != -EAGAIN && ret != -EACCES)
			return ret;
	}
	return -EBUSY;
}

int dir_tmp_new(const struct dir_pool *p, struct dir_tmp *t, struct vh_err *e)
{
	int ret;

	memset(t, 0, sizeof(*t));
	t->fd = openat(p->fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (t->fd >= 0)
		return 0;
	ret = named_tmp(p, t);
	return ret ? dir_fail(e, ret, "cannot make a file in %s: %s", p->path, strerror(-ret)) : 0;
}

static void forget_name(const struct dir_pool *p, struct dir_tmp *t)
{
	char at[96];

	if (!t->name[0])
		return;
	snprintf(at, sizeof(at), DIR_TMP "/%s", t->name);
	unlinkat(p->fd, at, 0);
	unlinkat(p->fd, DIR_TMP, AT_REMOVEDIR); /* fails while others use it */
	t->name[0] = 0;
}

int dir_tmp_publish(const struct dir_pool *p, struct dir_tmp *t, const char *name, struct vh_err *e)
{
	char at[96];
	int ret = 0;

	/* The contents before the name: after a power failure the name must not stand for less than was asked for. */
	if (fsync(t->fd) < 0)
		return dir_errno(e, -errno, p, name);
	if (!t->name[0]) {
		snprintf(at, sizeof(at), "/proc/self/fd/%d", t->fd);
		if (linkat(AT_FDCWD, at, p->fd, name, AT_SYMLINK_FOLLOW) < 0)
			ret = -errno;
	} else {
		snprintf(at, sizeof(at), DIR_TMP "/%s", t->name);
		if (linkat(p->fd, at, p->fd, name, 0) < 0)
			ret = -errno;
		if (ret == -EPERM || ret == -EOPNOTSUPP) /* no hard links (FAT) */
			ret = renameat2(p->fd, at, p->fd, name, RENAME_NOREPLACE) < 0 ? -errno : 0;
	}
	if (ret)
		return ret == -EEXIST ? ret : dir_fail(e, ret, "cannot make %s/%s: %s", p->path, name, strerror(-ret));
	forget_name(p, t);
	ret = dir_sync(p);
	return ret ? dir_fail(e, ret, "the folder %s: %s", p->path, strerror(-ret)) : 0;
}

void dir_tmp_drop(const struct dir_pool *p, struct dir_tmp *t)
{
	forget_name(p, t);
	if (t->fd >= 0)
		close(t->fd);
	t->fd = -1;
}

void dir_tmp_clean(const struct dir_pool *p)
{
	int fd = openat(p->fd, DIR_TMP, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), f;
	struct dirent *d;
	DIR *dir;

	if (fd < 0)
		return;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return;
	}
	while ((d = readdir(dir))) {
		if (d->d_name[0] == '.' || (d->d_type != DT_REG && d->d_type != DT_UNKNOWN))
			continue;
		f = openat(dirfd(dir), d->d_name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
		if (f < 0)
			continue;
		if (!lock_tmp(f))
			unlinkat(dirfd(dir), d->d_name, 0);
		close(f);
	}
	closedir(dir);
	unlinkat(p->fd, DIR_TMP, AT_REMOVEDIR);
}
