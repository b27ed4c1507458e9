/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What is in the folder: one readdir, and one fstatat per volume when stats are wanted. No file is opened. */
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>
#include "dir.h"

static void fill(const struct stat *st, struct vh_vol_stat *v)
{
	v->bytes = (uint64_t)st->st_size;
	v->allocated = (uint64_t)st->st_blocks * 512;
	v->mtime = (int64_t)st->st_mtim.tv_sec * 1000000000 + st->st_mtim.tv_nsec;
	v->flags = v->allocated < v->bytes ? VH_STAT_SPARSE : 0;
	dir_identity(st, v->identity);
}

int dir_list(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	struct dir_pool *p = pool;
	struct vh_vol_stat v;
	struct dirent *d;
	struct stat st;
	int fd = openat(p->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir) {
		ret = -errno;
		if (fd >= 0)
			close(fd);
		return dir_fail(e, ret, "cannot list the folder %s: %s", p->path, strerror(-ret));
	}
	while (!ret && (errno = 0, d = readdir(dir))) {
		if (d->d_name[0] == '.' || (d->d_type != DT_REG && d->d_type != DT_UNKNOWN) || dir_name_ok(d->d_name, NULL))
			continue;
		if (with_stat || d->d_type == DT_UNKNOWN) {
			if (fstatat(dirfd(dir), d->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(st.st_mode))
				continue; /* gone meanwhile */
			memset(&v, 0, sizeof(v));
			v.size = sizeof(v);
			fill(&st, &v);
		}
		ret = fn(ctx, d->d_name, with_stat ? &v : NULL) ? 1 : 0;
	}
	if (!ret && errno)
		ret = dir_fail(e, -errno, "cannot list the folder %s: %s", p->path, strerror(errno));
	closedir(dir);
	return ret;
}

int dir_stat(void *pool, const char *name, struct vh_vol_stat *out, struct vh_err *e)
{
	struct dir_pool *p = pool;
	struct vh_vol_stat v = {.size = out->size};
	struct stat st;
	int fd = dir_open_file(p, name, O_RDONLY, NULL);

	if (fd < 0 && fd != -EACCES)
		return dir_open_file(p, name, O_RDONLY, e); /* once more, for the text */
	/* A file that may not be read still has a size. */
	if ((fd < 0 ? fstatat(p->fd, name, &st, AT_SYMLINK_NOFOLLOW) : fstat(fd, &st)) < 0) {
		int code = -errno;

		if (fd >= 0)
			close(fd);
		return dir_errno(e, code, p, name);
	}
	fill(&st, &v);
	if (fd >= 0) {
		if (lease_lock_test(fd))
			v.flags |= VH_STAT_IN_USE;
		close(fd);
	}
	memcpy(out, &v, v.size < sizeof(v) ? v.size : sizeof(v));
	return 0;
}
