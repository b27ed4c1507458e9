/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* For tests: a pool whose volumes are block devices by their path (option path, a folder of nodes), handed over and nothing else: what a
 * volume costs that is a bare device. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <vhost/pool.h>
#include <vhost/sugar.h>

static const struct vh_host *vh_host_ptr;

struct pool { int fd; };
struct vol { int fd, direct, ro; };

static const struct vh_opt opt_path = {.size = sizeof(struct vh_opt), .type = VH_OPT_PATH, .flags = VH_OPT_REQUIRED | VH_OPT_MAIN,
	.name = "path", .doc = "The folder of device nodes"};
static const struct vh_opt *const pool_options[] = {&opt_path, NULL};

static int p_open(const struct vh_opts *opts, struct vh_object *o, void **pool, struct vh_err *e)
{
	struct pool *p = calloc(1, sizeof(*p));
	int code;

	(void)o;
	p->fd = open(vh_opt_str(opts, "path", ""), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	code = -errno;
	if (p->fd >= 0) {
		*pool = p;
		return 0;
	}
	free(p);
	return vh_host_ptr->err(e, code, "the folder cannot be opened");
}

static void p_close(void *pool)
{
	close(((struct pool *)pool)->fd);
	free(pool);
}

static int p_info(void *pool, struct vh_pool_info *i, struct vh_err *e)
{
	struct vh_pool_info mine = {.size = i->size, .capacity = UINT64_MAX, .allocated = UINT64_MAX, .available = UINT64_MAX};

	(void)pool, (void)e;
	memcpy(i, &mine, i->size < sizeof(mine) ? i->size : sizeof(mine));
	return 0;
}

static int open_dev(struct pool *p, const char *name, int flags, struct stat *st, struct vh_err *e)
{
	int fd = openat(p->fd, name, flags | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return vh_host_ptr->err(e, -errno, "the device %s cannot be opened", name);
	if (fstat(fd, st) < 0 || !S_ISBLK(st->st_mode)) {
		close(fd);
		return vh_host_ptr->err(e, -ENOENT, "%s is no block device", name);
	}
	return fd;
}

static int p_stat(void *pool, const char *name, struct vh_vol_stat *st, struct vh_err *e)
{
	struct vh_vol_stat mine = {.size = st->size, .allocated = UINT64_MAX};
	struct stat s;
	int fd = open_dev(pool, name, O_RDONLY, &s, e);

	if (fd < 0)
		return fd;
	ioctl(fd, BLKGETSIZE64, &mine.bytes);
	close(fd);
	snprintf(mine.identity, sizeof(mine.identity), "bare:%u:%u", major(s.st_rdev), minor(s.st_rdev));
	memcpy(st, &mine, st->size < sizeof(mine) ? st->size : sizeof(mine));
	return 0;
}

static int p_list(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	int fd = openat(((struct pool *)pool)->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), ret = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *de;

	if (!d)
		return vh_host_ptr->err(e, -errno, "the folder cannot be read");
	while (!ret && (de = readdir(d))) {
		struct vh_vol_stat st = {.size = sizeof(st)};

		if (de->d_name[0] != '.' && !p_stat(pool, de->d_name, &st, NULL))
			ret = fn(ctx, de->d_name, with_stat ? &st : NULL);
	}
	closedir(d);
	return ret ? 1 : 0;
}

static int vol_info(void *vol, struct vh_volume_info *out)
{
	struct vol *v = vol;
	struct vh_volume_info i = {.size = out->size, .fd = v->fd, .caps = VH_VOL_WRITE_CACHE | VH_VOL_FLUSH | VH_VOL_FD_BLOCK};
	int logical = 512;

	if (ioctl(v->fd, BLKGETSIZE64, &i.bytes) < 0 || ioctl(v->fd, BLKSSZGET, &logical) < 0)
		return -errno;
	i.caps |= (v->ro ? VH_VOL_READ_ONLY : 0) | (v->direct ? VH_VOL_FD_DIRECT : 0);
	i.logical_block = i.physical_block = (uint32_t)logical;
	i.buf_align = i.len_align = v->direct ? (uint32_t)logical : 1;
	i.max_segments = 1024;
	i.max_bytes = 0x7ffff000;
	memcpy(out, &i, i.size < sizeof(i) ? i.size : sizeof(i));
	return 0;
}

static void vol_close(void *vol)
{
	close(((struct vol *)vol)->fd);
	free(vol);
}

static const struct vh_volume_ops volume_ops = {.size = sizeof(volume_ops), .info = vol_info, .close = vol_close};

static int p_attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops, struct vh_err *e)
{
	struct vol v = {.direct = !(a->flags & VH_ATTACH_BUFFERED), .ro = a->mode == VH_ATTACH_RO || a->mode == VH_ATTACH_PEEK};
	struct stat st;

	if (a->flags & VH_MUST_UNDERSTAND & ~VH_ATTACH_BUFFERED || a->mode > VH_ATTACH_PEEK)
		return vh_host_ptr->err(e, -EOPNOTSUPP, "an attach mode or flag is not known");
	v.fd = open_dev(pool, a->name, (v.ro ? O_RDONLY : O_RDWR) | (v.direct ? O_DIRECT : 0), &st, e);
	if (v.fd < 0)
		return v.fd;
	*vol = malloc(sizeof(v));
	memcpy(*vol, &v, sizeof(v));
	*ops = &volume_ops;
	return 0;
}

static const struct vh_pool_ops bare_ops = {.size = sizeof(bare_ops), .scheme = "bare", .pool_options = pool_options,
	.open = p_open, .close = p_close, .info = p_info, .list = p_list, .stat = p_stat, .attach = p_attach};

VH_PLUGIN_DEFINE("bare", VH_KIND_POOL, VH_IID_POOL, &bare_ops, "1.0", "Block devices by their path, for tests", "LGPL-2.1-or-later", 0);
