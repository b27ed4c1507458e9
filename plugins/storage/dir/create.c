/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Making, removing and resizing volumes. A new one gets its name last, in one step. */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "dir.h"

#define SPEC DIR_XATTR "spec"

static const struct vh_opt opt_nocow = {
	.size = sizeof(struct vh_opt), .type = VH_OPT_BOOL, .name = "nocow", .defval = "off",
	.doc = "Write in place on btrfs (no copy-on-write, no checksums of the contents)"};
const struct vh_opt *const dir_create_options[] = {&opt_nocow, NULL};

/* What was asked for when a volume was made, so that asking again is told from asking for another one. */
static void spec_text(const struct vh_vol_spec *s, char out[64])
{
	snprintf(out, 64, "%llu %u %d", (unsigned long long)s->bytes, s->prealloc,
		 (int)vh_opt_num(s->opts, "nocow", 0));
}

/* There is a file of that name: 0 when it is what *s asks for. */
static int exists(const struct dir_pool *p, struct vh_vol_spec *s, struct vh_err *e)
{
	char mine[64], theirs[64] = "";
	struct stat st;
	ssize_t n;
	int fd = dir_open_file(p, s->name, O_RDONLY, e);

	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0) {
		n = -errno;
		close(fd);
		return dir_errno(e, (int)n, p, s->name);
	}
	n = fgetxattr(fd, SPEC, theirs, sizeof(theirs) - 1);
	close(fd);
	spec_text(s, mine);
	if ((uint64_t)st.st_size != s->bytes || (n > 0 && strcmp(mine, theirs)) ||
	    (n <= 0 && s->prealloc && (uint64_t)st.st_blocks * 512 < s->bytes)) {
		dir_hint(e, "choose another name, or delete it first");
		return dir_fail(e, -EEXIST, "exists already, with %llu bytes%s", (unsigned long long)st.st_size,
				(uint64_t)st.st_size == s->bytes ? " and other properties" : "");
	}
	s->zeroed = !st.st_blocks;
	return 0;
}

int dir_create(void *pool, struct vh_vol_spec *s, struct vh_job *j, struct vh_err *e)
{
	struct dir_pool *p = pool;
	struct dir_tmp t = {.fd = -1};
	struct stat st;
	char spec[64];
	int ret = dir_name_new_ok(s->name, e);

	if (ret)
		return ret;
	if (s->prealloc > VH_PREALLOC_FULL)
		return dir_fail(e, -EINVAL, "no such way of preallocation");
	if (!fstatat(p->fd, s->name, &st, AT_SYMLINK_NOFOLLOW))
		return exists(p, s, e);
	ret = dir_tmp_new(p, &t, e);
	if (ret)
		return ret;
	if (vh_opt_num(s->opts, "nocow", 0)) {
		int flags = 0;

		/* Only while the file is empty, and an error where the file system does not know it. */
		if (ioctl(t.fd, FS_IOC_GETFLAGS, &flags) < 0 || (flags |= FS_NOCOW_FL, ioctl(t.fd, FS_IOC_SETFLAGS, &flags) < 0)) {
			ret = -errno;
			dir_hint(e, "leave nocow off: it is for btrfs");
			ret = dir_fail(e, ret, "nocow: %s", strerror(-ret));
			goto out;
		}
	}
	ret = dir_extend(t.fd, 0, s->bytes, s->prealloc, j, e);
	if (ret)
		goto out;
	spec_text(s, spec);
	fsetxattr(t.fd, SPEC, spec, strlen(spec), 0); /* where there are attributes */
	ret = dir_cancelled(j) ? dir_fail(e, -ECANCELED, "cancelled") : dir_tmp_publish(p, &t, s->name, e);
	if (ret == -EEXIST)
		ret = exists(p, s, e); /* another one was quicker */
	else if (!ret)
		s->zeroed = 1;
out:
	dir_tmp_drop(p, &t);
	return ret;
}

int dir_remove(void *pool, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct dir_pool *p = pool;
	struct stat st, held;
	int fd, ret = dir_name_ok(name, e);

	if (ret)
		return ret;
	if (fstatat(p->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 && errno == ENOENT) {
		dir_meta_forget(p, name);
		return 0;
	}
	fd = dir_lease(p, name, VH_ATTACH_RW_EXCL, "deleting", e);
	if (fd < 0)
		return fd;
	if (fstat(fd, &held) < 0 || fstatat(p->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_ino != held.st_ino ||
	    st.st_dev != held.st_dev)
		ret = dir_fail(e, -EBUSY, "%s/%s was replaced meanwhile", p->path, name);
	else if (unlinkat(p->fd, name, 0) < 0)
		ret = dir_errno(e, -errno, p, name);
	if (ret) {
		dir_unlease(fd);
		return ret;
	}
	/* The name is gone, whatever comes: a repeated call finds it done. */
	dir_meta_forget(p, name);
	dir_unlease(fd);
	ret = dir_sync(p);
	return ret ? dir_fail(e, ret, "the folder %s: %s", p->path, strerror(-ret)) : 0;
}

int dir_resize(void *pool, const char *name, uint64_t bytes, uint32_t prealloc, struct vh_job *j, struct vh_err *e)
{
	struct dir_pool *p = pool;
	struct stat st;
	int fd, ret = 0;

	if (prealloc > VH_PREALLOC_FULL)
		return dir_fail(e, -EINVAL, "no such way of preallocation");
	fd = dir_lease(p, name, VH_ATTACH_RW_EXCL, "resizing", e);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0)
		ret = dir_errno(e, -errno, p, name);
	else if (bytes > (uint64_t)st.st_size)
		ret = dir_extend(fd, (uint64_t)st.st_size, bytes, prealloc, j, e);
	else if (bytes < (uint64_t)st.st_size && ftruncate(fd, (off_t)bytes) < 0)
		ret = dir_errno(e, -errno, p, name);
	if (!ret && fsync(fd) < 0)
		ret = dir_errno(e, -errno, p, name);
	dir_unlease(fd);
	return ret;
}
