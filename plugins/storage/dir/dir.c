/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The pool type `dir`: opening, making, naming, and the tables. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include "../common/name.h"
#include "dir.h"

const struct vh_host *dir_host;
const struct vh_job_ops *dir_job;
const struct vh_log_ops *dir_log;

int dir_cancelled(struct vh_job *j)
{
	return j && dir_job && dir_job->cancelled(j);
}

void dir_progress(struct vh_job *j, uint64_t done, uint64_t total)
{
	if (j && dir_job)
		dir_job->progress(j, done, total);
}

int dir_name_ok(const char *name, struct vh_err *e)
{
	char shown[64];
	size_t n = name ? strnlen(name, DIR_NAME_MAX + 1) : 0;

	if (!n)
		return dir_fail(e, -EINVAL, "a volume's name is missing");
	if (n > DIR_NAME_MAX)
		return dir_fail(e, -EINVAL, "the volume name \"%s\" is longer than %d bytes", name_printable(name, shown),
				DIR_NAME_MAX);
	if (name[0] == '.')
		return dir_fail(e, -EINVAL, "\"%s\" is no volume name: hidden files are not volumes",
				name_printable(name, shown));
	for (const unsigned char *c = (const unsigned char *)name; *c; c++)
		if (*c == '/' || *c < 0x20 || *c == 0x7f)
			return dir_fail(e, -EINVAL, "\"%s\" is no volume name: %s", name_printable(name, shown),
					*c == '/' ? "volumes of a dir pool are files directly in its folder" :
						    "control characters are not allowed");
	return 0;
}

int dir_name_new_ok(const char *name, struct vh_err *e)
{
	char shown[64];
	int ret = dir_name_ok(name, e);

	if (ret)
		return ret;
	for (size_t n = 0; name[n]; n++) {
		char c = name[n];
		int alnum = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');

		if (n >= 63 || (!alnum && (!n || !strchr("._-", c))))
			return dir_fail(e, -EINVAL,
					"\"%s\" is no volume name: up to 63 letters, digits, '.', '_' and '-', the "
					"first a letter or digit", name_printable(name, shown));
	}
	return 0;
}

void dir_identity(const struct stat *st, char out[160])
{
	snprintf(out, 160, "file:%u:%u:%llu", major(st->st_dev), minor(st->st_dev), (unsigned long long)st->st_ino);
}

const char *dir_kind(mode_t m)
{
	return S_ISDIR(m) ? "a folder" : S_ISLNK(m) ? "a symbolic link" : S_ISFIFO(m) ? "a FIFO" :
	       S_ISSOCK(m) ? "a socket" : S_ISBLK(m) || S_ISCHR(m) ? "a device node" : "no regular file";
}

int dir_errno(struct vh_err *e, int code, const struct dir_pool *p, const char *name)
{
	if (code == -ENOENT)
		return dir_fail(e, code, "there is no such volume in %s", p->path);
	if (code == -EACCES)
		dir_hint(e, "give user %d the right to the file, or run as its owner", (int)geteuid());
	return dir_fail(e, code, "%s/%s: %s", p->path, name, strerror(-code));
}

int dir_open_file(const struct dir_pool *p, const char *name, int flags, struct vh_err *e)
{
	struct stat st;
	int fd, ret = dir_name_ok(name, e);

	if (ret)
		return ret;
	if (fstatat(p->fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return dir_errno(e, -errno, p, name);
	if (!S_ISREG(st.st_mode)) {
		dir_hint(e, "volumes of a dir pool are regular files%s", S_ISLNK(st.st_mode) ? "; name its target" : "");
		return dir_fail(e, -EINVAL, "%s/%s is %s", p->path, name, dir_kind(st.st_mode));
	}
	fd = openat(p->fd, name, flags | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0)
		return dir_errno(e, -errno, p, name);
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		close(fd);
		return dir_fail(e, -EINVAL, "%s/%s changed while it was opened", p->path, name);
	}
	/* Left on, it would make io_uring answer -EAGAIN where it should wait. */
	fcntl(fd, F_SETFL, flags & O_DIRECT);
	return fd;
}

int dir_sync(const struct dir_pool *p)
{
	int fd = openat(p->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;

	if (fd < 0)
		return errno == EACCES ? 0 : -errno; /* a folder that may be searched but not read cannot be synced */
	if (fsync(fd) < 0 && errno != EINVAL && errno != EROFS)
		ret = -errno;
	close(fd);
	return ret;
}

int dir_lease(const struct dir_pool *p, const char *name, uint32_t mode, const char *why, struct vh_err *e)
{
	struct lease_lock l = {.byte0 = F_UNLCK};
	char text[320];
	int fd = dir_open_file(p, name, mode == VH_ATTACH_RO ? O_RDONLY : O_RDWR, e), ret;

	if (fd < 0)
		return fd;
	ret = lease_lock_set(fd, &l, mode);
	if (ret == -EBUSY)
		ret = lease_busy(dir_host, fd, e);
	else if (ret == -ENOLCK) /* no leases on this file system: nobody else has one either */
		ret = 0;
	else if (ret)
		ret = dir_fail(e, ret, "cannot lock %s/%s: %s", p->path, name, strerror(-ret));
	if (!ret)
		ret = lease_loop_above(dir_host, fd, mode, e);
	if (ret) {
		close(fd);
		return ret;
	}
	snprintf(text, sizeof(text), "pid %d vhost (%s)", (int)getpid(), why);
	lease_holder_write(fd, text, mode == VH_ATTACH_RO);
	return fd;
}

void dir_unlease(int fd)
{
	if (fd >= 0) {
		lease_holder_clear(fd);
		close(fd);
	}
}

/* Names the first part of a path that refuses us, which the kernel's bare "Permission denied" does not. */
static int refused(const char *path, int code, struct vh_err *e)
{
	char part[4096];

	for (const char *c = path; code == -EACCES && *c; ) {
		c += strspn(c, "/");
		c += strcspn(c, "/");
		if (!*c || (size_t)(c - path) >= sizeof(part))
			break;
		memcpy(part, path, (size_t)(c - path));
		part[c - path] = 0;
		if (faccessat(AT_FDCWD, part, X_OK, AT_EACCESS) < 0 && errno == EACCES) {
			dir_hint(e, "chmod o+x %s, or run as its owner", part);
			return dir_fail(e, code, "the folder %s: %s does not let user %d pass", path, part,
					(int)geteuid());
		}
	}
	return dir_fail(e, code, "the folder %s: %s", path, strerror(-code));
}

static int open_pool(const struct vh_opts *opts, struct vh_object *o, void **pool, struct vh_err *e)
{
	const char *path = vh_opt_str(opts, "path", NULL);
	struct dir_pool *p;
	int ret;

	if (!path || path[0] != '/')
		return dir_fail(e, -EINVAL, "the option path, an absolute folder, is missing");
	p = calloc(1, sizeof(*p));
	if (!p || !(p->path = strdup(path))) {
		free(p);
		return -ENOMEM;
	}
	p->fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (p->fd < 0) {
		ret = -errno;
		if (ret == -ENOENT)
			dir_hint(e, "make the folder, or mount what belongs there");
		ret = refused(path, ret, e);
		free(p->path);
		free(p);
		return ret;
	}
	dir_tmp_clean(p);
	*pool = p;
	return 0;
}

static void close_pool(void *pool)
{
	struct dir_pool *p = pool;

	close(p->fd);
	free(p->path);
	free(p);
}

/* Builds the folder and its missing parents; ones that exist stay as they are. */
static int make(const struct vh_opts *opts, struct vh_job *j, struct vh_err *e)
{
	const char *path = vh_opt_str(opts, "path", NULL);
	mode_t mode = geteuid() ? 0700 : 0711;
	char part[4096];
	size_t n;

	if (!path || path[0] != '/' || (n = strlen(path)) >= sizeof(part))
		return dir_fail(e, -EINVAL, "the option path, an absolute folder, is missing");
	for (size_t i = 1; i <= n; i++) {
		if (path[i] && path[i] != '/')
			continue;
		memcpy(part, path, i);
		part[i] = 0;
		if (mkdir(part, mode) < 0 && errno != EEXIST) {
			struct stat st;
			int code = -errno;

			if (stat(part, &st) < 0)
				return refused(part, code, e);
		}
	}
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return refused(path, -errno, e);
	close(fd);
	return 0;
}

static int info(void *pool, struct vh_pool_info *i, struct vh_err *e)
{
	struct dir_pool *p = pool;
	struct statvfs v;
	uint32_t size = i->size;
	struct vh_pool_info r = {.size = size};

	if (fstatvfs(p->fd, &v) < 0)
		return refused(p->path, -errno, e);
	r.caps = VH_POOL_CREATE | VH_POOL_REMOVE | VH_POOL_GROW | VH_POOL_SHRINK | VH_POOL_CLONE_FULL | VH_POOL_LEASE |
		 VH_POOL_META | VH_POOL_MAKE | VH_POOL_FILES;
	r.capacity = (uint64_t)v.f_blocks * v.f_frsize;
	r.allocated = (uint64_t)(v.f_blocks - v.f_bfree) * v.f_frsize;
	r.available = (uint64_t)v.f_bavail * v.f_frsize;
	if (v.f_flag & ST_RDONLY) {
		r.caps &= VH_POOL_FILES | VH_POOL_LEASE;
		r.health = 1;
		snprintf(r.detail, sizeof(r.detail), "the file system is mounted read-only");
	} else if (faccessat(p->fd, ".", W_OK | X_OK, AT_EACCESS) < 0) {
		r.caps &= VH_POOL_FILES | VH_POOL_LEASE | VH_POOL_GROW | VH_POOL_SHRINK;
		r.health = 1;
		snprintf(r.detail, sizeof(r.detail), "user %d may not write to the folder", (int)geteuid());
	}
	memcpy(i, &r, size < sizeof(r) ? size : sizeof(r));
	return 0;
}

static int path(void *pool, const char *name, char *buf, uint64_t cap, struct vh_err *e)
{
	struct dir_pool *p = pool;
	int ret = dir_name_ok(name, e);

	if (ret)
		return ret;
	if ((uint64_t)snprintf(buf, cap, "%s/%s", p->path, name) >= cap)
		return dir_fail(e, -ENAMETOOLONG, "the path is too long");
	return 0;
}

static const struct vh_opt opt_path = {
	.size = sizeof(struct vh_opt), .type = VH_OPT_PATH, .flags = VH_OPT_REQUIRED | VH_OPT_MAIN, .name = "path",
	.doc = "The folder that holds the volumes"};
static const struct vh_opt *const pool_options[] = {&opt_path, NULL};

static const struct vh_pool_ops dir_ops = {
	.size = sizeof(dir_ops),
	.caps = VH_POOL_CREATE | VH_POOL_REMOVE | VH_POOL_GROW | VH_POOL_SHRINK | VH_POOL_CLONE_FULL | VH_POOL_LEASE |
		VH_POOL_META | VH_POOL_MAKE | VH_POOL_FILES,
	.scheme = "dir",
	.pool_options = pool_options,
	.vol_create_options = dir_create_options,
	.make = make,
	.open = open_pool,
	.close = close_pool,
	.info = info,
	.list = dir_list,
	.stat = dir_stat,
	.create = dir_create,
	.remove = dir_remove,
	.resize = dir_resize,
	.clone = dir_clone,
	.attach = dir_attach,
	.reattach = dir_reattach,
	.meta_get = dir_meta_get,
	.meta_set = dir_meta_set,
	.path = path,
};

static const char *const iids[] = {VH_IID_POOL, NULL};

static const void *get(const char *iid)
{
	return strcmp(iid, VH_IID_POOL) ? NULL : &dir_ops;
}

static const struct vh_plugin plugin = {
	.size = sizeof(plugin), .built_minor = VH_ABI_MINOR, .id = "dir", .version = "1.0",
	.summary = "Volumes as files in a folder", .license = "LGPL-2.1-or-later", .interfaces = iids, .get = get};

VH_PLUGIN_NOTE("dir", VH_KIND_POOL);

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
	dir_host = host;
	dir_job = vh_service(host, VH_SVC_JOB, sizeof(*dir_job));
	dir_log = vh_service(host, VH_SVC_LOG, sizeof(*dir_log));
	*out = &plugin;
	return 0;
}
