/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Full copies of volumes: by reflink in no time, else by copying what is no hole. */
#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "dir.h"

#define ORIGIN DIR_XATTR "clone-of"

/* What was copied: its identity and its state then. A call that is repeated after a crash finds it on the copy. */
static void origin_text(const struct stat *st, char out[256])
{
	char id[160];

	dir_identity(st, id);
	snprintf(out, 256, "%s %lld %lld.%09ld", id, (long long)st->st_size, (long long)st->st_mtim.tv_sec,
		 st->st_mtim.tv_nsec);
}

static int done_before(const struct dir_pool *p, const char *dst, const char *origin, struct vh_err *e)
{
	char theirs[256] = "";
	int fd = dir_open_file(p, dst, O_RDONLY, NULL);
	ssize_t n = fd < 0 ? -1 : fgetxattr(fd, ORIGIN, theirs, sizeof(theirs) - 1);

	if (fd >= 0)
		close(fd);
	if (n > 0 && !strcmp(theirs, origin))
		return 0;
	dir_hint(e, "choose another name, or delete it first");
	return dir_fail(e, -EEXIST, "the destination %s exists already", dst);
}

int dir_clone(void *pool, const char *src, const char *snap, const char *dst, uint32_t how, struct vh_job *j,
	      struct vh_err *e)
{
	struct dir_pool *p = pool;
	struct dir_tmp t = {.fd = -1};
	struct stat st, there;
	char origin[256];
	int fd, ret = dir_name_new_ok(dst, e);

	if (ret)
		return ret;
	if (snap)
		return dir_fail(e, -EOPNOTSUPP, "pools of type dir have no snapshots");
	if (how != VH_CLONE_FULL)
		return dir_fail(e, -EOPNOTSUPP, "pools of type dir make full copies only");
	fd = dir_lease(p, src, VH_ATTACH_RO, "cloning", e);
	if (fd < 0)
		return fd;
	if (fstat(fd, &st) < 0) {
		ret = dir_errno(e, -errno, p, src);
		goto out;
	}
	origin_text(&st, origin);
	if (!fstatat(p->fd, dst, &there, AT_SYMLINK_NOFOLLOW)) {
		ret = done_before(p, dst, origin, e);
		goto out;
	}
	ret = dir_tmp_new(p, &t, e);
	if (ret)
		goto out;
	ret = dir_copy(fd, t.fd, (uint64_t)st.st_size, j, e);
	if (ret)
		goto out;
	dir_meta_copy(fd, t.fd);
	fsetxattr(t.fd, ORIGIN, origin, strlen(origin), 0);
	ret = dir_cancelled(j) ? dir_fail(e, -ECANCELED, "cancelled") : dir_tmp_publish(p, &t, dst, e);
	if (ret == -EEXIST)
		ret = done_before(p, dst, origin, e);
	else if (!ret)
		ret = dir_meta_copy_sidecar(p, src, dst, e);
out:
	dir_tmp_drop(p, &t);
	dir_unlease(fd);
	return ret;
}
