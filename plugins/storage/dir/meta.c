/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Values beside a volume, where its guest cannot write them: the extended attribute user.vhost.KEY, or, where the file
 * system has none, lines of the sidecar file .NAME.vhost. A sidecar names the inode and the birth time of its volume:
 * one that was left by an earlier file of that name says nothing about this one.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "dir.h"

#define SIDECAR_MAX 16384

static int no_xattr(int code)
{
	return code == -EOPNOTSUPP || code == -ENOSYS || code == -EPERM;
}

static int check_key(const char *key, struct vh_err *e)
{
	size_t n = key ? strspn(key, "abcdefghijklmnopqrstuvwxyz.-") : 0;

	if (!n || key[n] || n > 64 || !strcmp(key, "holder") || !strcmp(key, "spec"))
		return dir_fail(e, -EINVAL, "\"%s\" is no name of a value: up to 64 of a-z . -", key ? key : "");
	return 0;
}

static void sidecar_name(const char *name, char *out)
{
	snprintf(out, DIR_NAME_MAX + 16, ".%s.vhost", name);
}

static int stamp(const struct dir_pool *p, const char *name, char out[96])
{
	struct statx s;

	if (statx(p->fd, name, AT_SYMLINK_NOFOLLOW, STATX_INO | STATX_BTIME, &s) < 0)
		return -errno;
	if (!(s.stx_mask & STATX_BTIME))
		memset(&s.stx_btime, 0, sizeof(s.stx_btime));
	snprintf(out, 96, "vhost-meta 1 %llu %lld.%09u\n", (unsigned long long)s.stx_ino, (long long)s.stx_btime.tv_sec,
		 s.stx_btime.tv_nsec);
	return 0;
}

/* The lines of a sidecar after its first, "" when there is none or it belongs to another file. Freed by the caller. */
static int sidecar_read(const struct dir_pool *p, const char *name, char **out)
{
	char side[DIR_NAME_MAX + 16], first[96];
	char *buf;
	ssize_t n = 0;
	int fd, ret = stamp(p, name, first);

	if (ret)
		return ret;
	buf = calloc(1, SIDECAR_MAX + 1);
	if (!buf)
		return -ENOMEM;
	sidecar_name(name, side);
	fd = openat(p->fd, side, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0) {
		n = read(fd, buf, SIDECAR_MAX);
		close(fd);
	}
	if (n < 0)
		n = 0;
	buf[n] = 0;
	if (strncmp(buf, first, strlen(first)))
		buf[0] = 0;
	else
		memmove(buf, buf + strlen(first), (size_t)n - strlen(first) + 1);
	*out = buf;
	return 0;
}

/* The line "key=value\n" of buf, or NULL. */
static char *line_of(char *buf, const char *key)
{
	size_t n = strlen(key);

	for (char *l = buf; *l; l += strcspn(l, "\n"), l += *l == '\n')
		if (!strncmp(l, key, n) && l[n] == '=')
			return l;
	return NULL;
}

static int sidecar_write(const struct dir_pool *p, const char *name, const char *lines, struct vh_err *e)
{
	char side[DIR_NAME_MAX + 16], temp[DIR_NAME_MAX + 20], first[96], *text = NULL;
	int fd = -1, n, ret;

	sidecar_name(name, side);
	if (!lines[0]) {
		if (unlinkat(p->fd, side, 0) < 0 && errno != ENOENT)
			return dir_errno(e, -errno, p, side);
		return 0;
	}
	ret = stamp(p, name, first);
	if (ret)
		return dir_errno(e, ret, p, name);
	n = asprintf(&text, "%s%s", first, lines);
	if (n < 0)
		return -ENOMEM;
	snprintf(temp, sizeof(temp), "%s~", side); /* one name: what a crash leaves, the next writer takes away */
	unlinkat(p->fd, temp, 0);
	fd = openat(p->fd, temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0 || write(fd, text, (size_t)n) != n || fsync(fd) < 0 || renameat(p->fd, temp, p->fd, side) < 0) {
		ret = errno ? -errno : -EIO;
		unlinkat(p->fd, temp, 0);
	} else {
		ret = dir_sync(p);
	}
	if (fd >= 0)
		close(fd);
	free(text);
	return ret ? dir_errno(e, ret, p, side) : 0;
}

int64_t dir_meta_get(void *pool, const char *name, const char *key, char *buf, uint64_t cap, struct vh_err *e)
{
	struct dir_pool *p = pool;
	char at[DIR_NAME_MAX + 64], attr[96], *lines, *l;
	struct stat st;
	ssize_t n;
	int ret = dir_name_ok(name, e);

	if (!ret)
		ret = check_key(key, e);
	if (ret)
		return ret;
	/* One system call, and the volume is not opened: this is on the way of a starting VM. */
	snprintf(at, sizeof(at), "/proc/self/fd/%d/%s", p->fd, name);
	snprintf(attr, sizeof(attr), DIR_XATTR "%s", key);
	n = lgetxattr(at, attr, buf, cap ? cap - 1 : 0);
	if (n >= 0 && cap) {
		buf[n] = 0;
		return n;
	}
	ret = n < 0 ? -errno : -ERANGE;
	if (ret == -ERANGE)
		return dir_fail(e, -ENOSPC, "the value of %s is too long", key);
	if (fstatat(p->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return dir_errno(e, -errno, p, name);
	if (!S_ISREG(st.st_mode))
		return dir_fail(e, -EINVAL, "%s/%s is %s, and volumes are regular files", p->path, name, dir_kind(st.st_mode));
	if (ret != -ENODATA && !no_xattr(ret))
		return dir_errno(e, ret, p, name);
	ret = sidecar_read(p, name, &lines);
	if (ret)
		return dir_errno(e, ret, p, name);
	l = line_of(lines, key);
	if (!l) {
		free(lines);
		return -ENODATA;
	}
	l += strlen(key) + 1;
	n = (ssize_t)strcspn(l, "\n");
	if ((uint64_t)n >= cap) {
		free(lines);
		return dir_fail(e, -ENOSPC, "the value of %s is too long", key);
	}
	memcpy(buf, l, (size_t)n);
	buf[n] = 0;
	free(lines);
	return n;
}

int dir_meta_set(void *pool, const char *name, const char *key, const char *value, struct vh_err *e)
{
	struct dir_pool *p = pool;
	char attr[96], *lines = NULL, *l, *fresh = NULL;
	int fd, ret = check_key(key, e);

	if (ret)
		return ret;
	if (value && (strlen(value) > 255 || strchr(value, '\n')))
		return dir_fail(e, -EINVAL, "a value is one line of at most 255 bytes");
	fd = dir_open_file(p, name, O_RDONLY, e);
	if (fd < 0)
		return fd;
	snprintf(attr, sizeof(attr), DIR_XATTR "%s", key);
	ret = (value ? fsetxattr(fd, attr, value, strlen(value), 0) : fremovexattr(fd, attr)) < 0 ? -errno : 0;
	if (ret == -ENODATA)
		ret = 0;
	if (!ret && fsync(fd) < 0 && errno != EROFS && errno != EINVAL)
		ret = -errno;
	close(fd);
	if (!no_xattr(ret))
		return ret ? dir_errno(e, ret, p, name) : 0;

	ret = sidecar_read(p, name, &lines);
	if (ret)
		return dir_errno(e, ret, p, name);
	l = line_of(lines, key);
	if (l) {
		char *end = l + strcspn(l, "\n");
		memmove(l, end + (*end == '\n'), strlen(end + (*end == '\n')) + 1);
	}
	if (value ? asprintf(&fresh, "%s%s=%s\n", lines, key, value) < 0 : !(fresh = strdup(lines)))
		ret = -ENOMEM;
	else if (strlen(fresh) > SIDECAR_MAX - 96)
		ret = dir_fail(e, -ENOSPC, "too many values beside the volume");
	else
		ret = sidecar_write(p, name, fresh, e);
	free(lines);
	free(fresh);
	return ret;
}

void dir_meta_copy(int src, int dst)
{
	char names[4096], value[256];
	ssize_t n = flistxattr(src, names, sizeof(names)), len;

	for (char *k = names; n > 0 && k < names + n; k += strlen(k) + 1) {
		if (strncmp(k, DIR_XATTR, strlen(DIR_XATTR)) || !strcmp(k, DIR_XATTR "holder") ||
		    !strcmp(k, DIR_XATTR "spec"))
			continue;
		len = fgetxattr(src, k, value, sizeof(value));
		if (len >= 0)
			fsetxattr(dst, k, value, (size_t)len, 0);
	}
}

int dir_meta_copy_sidecar(const struct dir_pool *p, const char *src, const char *dst, struct vh_err *e)
{
	char *lines;
	int ret = sidecar_read(p, src, &lines);

	if (ret)
		return 0;
	if (lines[0])
		ret = sidecar_write(p, dst, lines, e);
	free(lines);
	return ret;
}

void dir_meta_forget(const struct dir_pool *p, const char *name)
{
	char side[DIR_NAME_MAX + 20];

	sidecar_name(name, side);
	unlinkat(p->fd, side, 0);
	strcat(side, "~");
	unlinkat(p->fd, side, 0);
}
