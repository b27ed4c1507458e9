/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * For tests: a pool whose volumes are like those of a storage server. They are files of a folder, but the plugin moves their
 * data itself (submit tier), they do not grow by being written, they have the pool's snapshots, there is nothing to lock on
 * this host, and with sticky=on a lease outlives its holder until it is broken. Two definitions of one folder lead to the
 * same volumes.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>
#include <vhost/pool.h>
#include <vhost/sugar.h>

static const struct vh_host *vh_host_ptr;
static const struct vh_io_ops *io;

struct pool { int fd, sticky; };
struct vol { struct pool *p; int fd; uint32_t mode; char name[128]; };

static const struct vh_opt opt_path = {.size = sizeof(struct vh_opt), .type = VH_OPT_PATH, .flags = VH_OPT_REQUIRED | VH_OPT_MAIN,
	.name = "path", .doc = "The folder"};
static const struct vh_opt opt_sticky = {.size = sizeof(struct vh_opt), .type = VH_OPT_BOOL, .name = "sticky", .defval = "off",
	.doc = "Leases outlive their holders"};
static const struct vh_opt opt_secret = {.size = sizeof(struct vh_opt), .type = VH_OPT_SECRET, .name = "secret", .doc = "To be had, or not"};
static const struct vh_opt opt_tag = {.size = sizeof(struct vh_opt), .type = VH_OPT_STR, .flags = VH_OPT_REPEAT, .name = "tag",
	.doc = "Any words"};
static const struct vh_opt *const pool_options[] = {&opt_path, &opt_sticky, &opt_secret, &opt_tag, NULL};

static int fail(struct vh_err *e, const char *name)
{
	int code = -errno;

	return vh_host_ptr->err(e, code, code == -ENOENT ? "there is no volume %s" : "%s cannot be used", name);
}

static int good(const char *name)
{
	return *name && *name != '.' && !strchr(name, '/') && !strchr(name, '@') && strlen(name) < 100;
}

static int vol_info(void *vol, struct vh_volume_info *i)
{
	struct vol *v = vol;
	int ro = v->mode == VH_ATTACH_RO || v->mode == VH_ATTACH_PEEK;
	struct vh_volume_info mine = {.size = i->size, .fd = -1, .len_align = 512, .buf_align = 1, .logical_block = 512,
				      .caps = VH_VOL_FLUSH | VH_VOL_WRITE_CACHE | (ro ? VH_VOL_READ_ONLY : 0)};
	struct stat st;

	if (fstat(v->fd, &st) < 0)
		return -errno;
	mine.bytes = (uint64_t)st.st_size;
	memcpy(i, &mine, i->size < sizeof(mine) ? i->size : sizeof(mine));
	return 0;
}

static int queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **q, struct vh_err *e)
{
	(void)hq, (void)depth, (void)e;
	*q = vol;
	return 0;
}

static int queue_start(void *q, struct vh_loop *l)
{
	(void)q, (void)l;
	return 0;
}

static void queue_close(void *q)
{
	(void)q;
}

static int one(struct vol *v, const struct vh_req *r)
{
	uint64_t at = r->off;
	struct stat st;

	if (r->op == VH_FLUSH)
		return fdatasync(v->fd) < 0 ? -errno : 0;
	if (r->op != VH_READ && r->op != VH_WRITE)
		return -EOPNOTSUPP;
	if (fstat(v->fd, &st) < 0 || r->off + r->len > (uint64_t)st.st_size)
		return -ENOSPC;
	for (uint32_t k = 0; k < r->niov; k++)
		for (size_t done = 0; done < r->iov[k].iov_len;) {
			char *p = (char *)r->iov[k].iov_base + done;
			size_t len = r->iov[k].iov_len - done;
			ssize_t n = r->op == VH_READ ? pread(v->fd, p, len, (off_t)at) : pwrite(v->fd, p, len, (off_t)at);

			if (n <= 0)
				return n ? -errno : -EIO;
			at += (uint64_t)n;
			done += (size_t)n;
		}
	return 0;
}

static uint32_t submit(void *q, struct vh_req *const *r, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		io->done(r[i], one(q, r[i]));
	return n;
}

static void lock_name(const char *name, char out[160])
{
	snprintf(out, 160, ".lock-%s", name);
}

static void vol_close(void *vol)
{
	struct vol *v = vol;
	char lock[160];

	lock_name(v->name, lock);
	if (v->p->sticky && v->mode == VH_ATTACH_RW_EXCL)
		unlinkat(v->p->fd, lock, 0);
	close(v->fd);
	free(v);
}

static const struct vh_volume_ops volume_ops = {
	.size = sizeof(volume_ops), .info = vol_info, .queue_open = queue_open, .queue_start = queue_start, .queue_close = queue_close,
	.submit = submit, .close = vol_close};

static int p_open(const struct vh_opts *opts, struct vh_object *o, void **pool, struct vh_err *e)
{
	struct pool *p = calloc(1, sizeof(*p));
	const struct vh_secret_ops *secrets = vh_service(vh_host_ptr, VH_SVC_SECRET, VH_END(secrets, get));
	char key[64];
	int64_t n = vh_opt_str(opts, "secret", NULL) ? secrets->get(vh_opt_str(opts, "secret", NULL), key, sizeof(key), e) : 0;

	(void)o;
	if (n < 0) {
		free(p);
		return (int)n;
	}
	io = vh_service(vh_host_ptr, VH_SVC_IO, VH_END(io, done));
	p->fd = open(vh_opt_str(opts, "path", ""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (p->fd < 0) {
		free(p);
		return vh_host_ptr->err(e, -errno, "the folder cannot be opened");
	}
	p->sticky = (int)vh_opt_num(opts, "sticky", 0);
	*pool = p;
	return 0;
}

static void p_close(void *pool)
{
	close(((struct pool *)pool)->fd);
	free(pool);
}

#define CAPS (VH_POOL_CREATE | VH_POOL_REMOVE | VH_POOL_GROW | VH_POOL_SHRINK | VH_POOL_CLONE_FULL | VH_POOL_CLONE_COW | VH_POOL_SNAPSHOT)
static int p_info(void *pool, struct vh_pool_info *i, struct vh_err *e)
{
	struct vh_pool_info mine = {.size = i->size, .caps = CAPS, .capacity = UINT64_MAX, .allocated = UINT64_MAX,
				    .available = UINT64_MAX};

	(void)pool, (void)e;
	memcpy(i, &mine, i->size < sizeof(mine) ? i->size : sizeof(mine));
	return 0;
}

static void fill(const struct stat *s, struct vh_vol_stat *st)
{
	struct vh_vol_stat mine = {.size = st->size, .bytes = (uint64_t)s->st_size, .allocated = (uint64_t)s->st_blocks * 512};

	snprintf(mine.identity, sizeof(mine.identity), "shelf:%llu:%llu", (unsigned long long)s->st_dev, (unsigned long long)s->st_ino);
	memcpy(st, &mine, st->size < sizeof(mine) ? st->size : sizeof(mine));
}

static int each(struct pool *p, const char *of, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	int fd = openat(p->fd, of ? ".snaps" : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	size_t n = of ? strlen(of) : 0;
	struct dirent *de;

	if (!d)
		return of && errno == ENOENT ? 0 : fail(e, "the folder");
	while (!r && (de = readdir(d))) {
		struct vh_vol_stat st = {.size = sizeof(st)};
		const char *name = de->d_name;
		struct stat s;

		if (of ? strncmp(name, of, n) || name[n] != '@' : !good(name))
			continue;
		if (fstatat(dirfd(d), name, &s, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISREG(s.st_mode))
			continue;
		fill(&s, &st);
		st.mtime = (int64_t)s.st_mtim.tv_sec * 1000000000 + s.st_mtim.tv_nsec;
		r = fn(ctx, of ? name + n + 1 : name, with_stat ? &st : NULL);
	}
	closedir(d);
	return r;
}

static int p_list(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	return each(pool, NULL, with_stat, fn, ctx, e);
}

static int p_stat(void *pool, const char *name, struct vh_vol_stat *st, struct vh_err *e)
{
	struct stat s;

	errno = ENOENT;
	if (!good(name) || fstatat(((struct pool *)pool)->fd, name, &s, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(e, name);
	fill(&s, st);
	return 0;
}

static int p_create(void *pool, struct vh_vol_spec *s, struct vh_job *j, struct vh_err *e)
{
	struct pool *p = pool;
	struct stat st;
	int fd;

	(void)j;
	if (!good(s->name))
		return vh_host_ptr->err(e, -EINVAL, "no such name");
	if (s->bytes % 512)
		s->bytes += 512 - s->bytes % 512;
	if (!fstatat(p->fd, s->name, &st, AT_SYMLINK_NOFOLLOW))
		return (uint64_t)st.st_size == s->bytes ? 0 : vh_host_ptr->err(e, -EEXIST, "it exists with another size");
	fd = openat(p->fd, ".", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0 || ftruncate(fd, (off_t)s->bytes) < 0)
		return fail(e, s->name);
	char at[64];
	snprintf(at, sizeof(at), "/proc/self/fd/%d", fd);
	int r = linkat(AT_FDCWD, at, p->fd, s->name, AT_SYMLINK_FOLLOW) < 0 ? fail(e, s->name) : 0;
	close(fd);
	s->zeroed = !r;
	return r;
}

static int p_remove(void *pool, const char *name, struct vh_job *j, struct vh_err *e)
{
	(void)j;
	return unlinkat(((struct pool *)pool)->fd, name, 0) < 0 && errno != ENOENT ? fail(e, name) : 0;
}

static int p_resize(void *pool, const char *name, uint64_t bytes, uint32_t prealloc, struct vh_job *j, struct vh_err *e)
{
	int fd = openat(((struct pool *)pool)->fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW), r = 0;

	(void)prealloc, (void)j;
	if (fd < 0 || ftruncate(fd, (off_t)((bytes + 511) / 512 * 512)) < 0)
		r = fail(e, name);
	if (fd >= 0)
		close(fd);
	return r;
}

static int copy_file(struct pool *p, const char *from, const char *to, int replace, struct vh_err *e)
{
	int in = openat(p->fd, from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), out;
	char buf[65536];
	ssize_t n;

	if (in < 0)
		return fail(e, from);
	out = openat(p->fd, to, O_WRONLY | O_CREAT | O_CLOEXEC | (replace ? O_TRUNC : O_EXCL), 0600);
	if (out < 0) {
		n = fail(e, to);
		close(in);
		return (int)n;
	}
	while ((n = read(in, buf, sizeof(buf))) > 0)
		if (write(out, buf, (size_t)n) != n)
			break;
	close(in);
	close(out);
	return n ? fail(e, to) : 0;
}

static int snap_path(struct pool *p, const char *name, const char *snap, char out[320])
{
	struct stat st;

	snprintf(out, 320, ".snaps/%.120s@%.120s", name, snap);
	mkdirat(p->fd, ".snaps", 0700);
	return fstatat(p->fd, out, &st, 0) < 0 ? -errno : 0;
}

static int p_clone(void *pool, const char *src, const char *snap, const char *dst, uint32_t how, struct vh_job *j, struct vh_err *e)
{
	char path[320];

	(void)how, (void)j;
	if (snap)
		snap_path(pool, src, snap, path);
	return copy_file(pool, snap ? path : src, dst, 0, e);
}

static int snapshot_create(void *pool, const struct vh_snap_spec *s, struct vh_err *e)
{
	char path[320];

	if (s->flags & VH_MUST_UNDERSTAND & ~VH_SNAP_IN_USE)
		return vh_host_ptr->err(e, -EOPNOTSUPP, "a snapshot flag is not known");
	if (!snap_path(pool, s->volume, s->snap, path))
		return vh_host_ptr->err(e, -EEXIST, "the snapshot %s exists already", s->snap);
	return copy_file(pool, s->volume, path, 0, e);
}

static int snapshot_list(void *pool, const char *name, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	return each(pool, name, 1, fn, ctx, e);
}

static int snapshot_remove(void *pool, const char *name, const char *snap, struct vh_job *j, struct vh_err *e)
{
	char path[320];

	(void)j;
	snap_path(pool, name, snap, path);
	return unlinkat(((struct pool *)pool)->fd, path, 0) < 0 && errno != ENOENT ? fail(e, snap) : 0;
}

static int snapshot_rollback(void *pool, const char *name, const char *snap, struct vh_job *j, struct vh_err *e)
{
	char path[320];

	(void)j;
	if (snap_path(pool, name, snap, path))
		return vh_host_ptr->err(e, -ENOENT, "there is no snapshot %s", snap);
	return copy_file(pool, path, name, 1, e);
}

static int p_attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops, struct vh_err *e)
{
	int ro = a->mode == VH_ATTACH_RO || a->mode == VH_ATTACH_PEEK, fd, l;
	struct pool *p = pool;
	char lock[160], who[200] = "";
	struct vol *v;

	if (a->flags & VH_MUST_UNDERSTAND & ~VH_ATTACH_BUFFERED || a->mode > VH_ATTACH_PEEK)
		return vh_host_ptr->err(e, a->mode > VH_ATTACH_PEEK ? -EINVAL : -EOPNOTSUPP, "an attach mode or flag is not known");
	errno = ENOENT;
	fd = good(a->name) ? openat(p->fd, a->name, (ro ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOFOLLOW) : -1;
	if (fd < 0)
		return fail(e, a->name);
	lock_name(a->name, lock);
	if (p->sticky && a->mode == VH_ATTACH_RW_EXCL) {
		l = openat(p->fd, lock, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (l < 0) {
			l = openat(p->fd, lock, O_RDONLY | O_CLOEXEC);
			if (l >= 0 && read(l, who, sizeof(who) - 1) < 0)
				who[0] = 0;
			close(l);
			close(fd);
			return vh_host_ptr->err(e, -EBUSY, "in use by %s", who);
		}
		if (write(l, a->holder, strlen(a->holder)) < 0)
			who[0] = 0;
		close(l);
	}
	v = calloc(1, sizeof(*v));
	v->p = p;
	v->fd = fd;
	v->mode = a->mode;
	strcpy(v->name, a->name);
	*vol = v;
	*ops = &volume_ops;
	return 0;
}

static int lease_break(void *pool, const char *name, struct vh_job *j, struct vh_err *e)
{
	char lock[160];

	(void)j;
	lock_name(name, lock);
	return unlinkat(((struct pool *)pool)->fd, lock, 0) < 0 && errno != ENOENT ? fail(e, name) : 0;
}

static const struct vh_pool_ops shelf_ops = {
	.size = sizeof(shelf_ops), .caps = CAPS, .scheme = "shelf", .pool_options = pool_options, .open = p_open, .close = p_close,
	.info = p_info, .list = p_list, .stat = p_stat, .create = p_create, .remove = p_remove, .resize = p_resize, .clone = p_clone,
	.snapshot_create = snapshot_create, .snapshot_list = snapshot_list, .snapshot_remove = snapshot_remove,
	.snapshot_rollback = snapshot_rollback, .attach = p_attach, .lease_break = lease_break};

VH_PLUGIN_DEFINE("shelf", VH_KIND_POOL, VH_IID_POOL, &shelf_ops, "1.0", "Like a storage server, for tests", "LGPL-2.1-or-later", 0);
