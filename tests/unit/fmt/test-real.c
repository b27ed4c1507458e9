/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The map tier over the real block layer: images in a file, by each engine, O_DIRECT with its alignments and without. */
#include <fcntl.h>
#include <glib.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "fmt/image.h"
#include "plug/plug.h"

#define MB (1u << 20)
#define DISK (6 * MB)
#define QUEUES 3

struct file { int fd, direct; };

static int file_info(void *vol, struct vh_volume_info *i)
{
	struct file *f = vol;
	struct stat st;

	fstat(f->fd, &st);
	i->fd = f->fd;
	i->bytes = (uint64_t)st.st_size;
	i->caps = VH_VOL_WRITE_CACHE | VH_VOL_FLUSH | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_GROW | VH_VOL_ZERO_ON_GROW |
		  (f->direct ? VH_VOL_FD_DIRECT : 0);
	i->logical_block = 512;
	i->buf_align = i->len_align = f->direct ? 4096 : 1;
	return 0;
}
static int file_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	struct file *f = vol;

	if (f->direct)
		bytes = (bytes + 4095) & ~4095ull;
	return ftruncate(f->fd, (off_t)bytes) ? -errno : 0;
}
static void file_close(void *vol)
{
	struct file *f = vol;

	close(f->fd);
	g_free(f);
}
static const struct vh_volume_ops file_ops = {.size = sizeof(file_ops), .info = file_info, .resize = file_resize, .close = file_close};

static struct blk_vol *file_vol(const char *path, enum blk_engine engine, int direct)
{
	struct file *f = g_new0(struct file, 1);
	struct blk_config c = {.engine = engine, .label = "file"};
	struct blk_vol *v;
	struct vh_err e = {0};

	f->direct = direct;
	f->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | (direct ? O_DIRECT : 0), 0600);
	if (f->fd < 0) {
		g_free(f);
		return NULL;
	}
	if (blk_vol_new(f, plug_volume_ops(&file_ops), &c, &v, &e) < 0) {
		g_test_message("%s", e.cause);
		err_clear(&e);
		file_close(f);
		return NULL;
	}
	return v;
}

/* A queue's own third of the disk, so that its model needs no lock. */
struct driver {
	struct vh_loop *l;
	struct fmt_queue *q;
	struct fmt_io io;
	struct iovec iov[3];
	uint8_t *buf, *model;
	uint64_t base, len, rnd;
	int left;
	_Atomic int done;
	struct vh_task task;
};

static uint64_t rnd(struct driver *d)
{
	d->rnd ^= d->rnd << 13;
	d->rnd ^= d->rnd >> 7;
	d->rnd ^= d->rnd << 17;
	return d->rnd;
}

static void next(struct vh_task *t);
static void ended(struct fmt_io *io, int result)
{
	struct driver *d = (struct driver *)((char *)io - offsetof(struct driver, io));
	uint64_t at = io->off - d->base;

	g_assert_cmpint(result, ==, 0);
	if (io->op == VH_READ) {
		for (uint64_t k = 0; k < io->len; k++)
			if (d->buf[k] != d->model[at + k])
				g_error("byte %" G_GUINT64_FORMAT " reads %u, should be %u", io->off + k, d->buf[k], d->model[at + k]);
	} else if (io->op == VH_WRITE) {
		memcpy(d->model + at, d->buf, io->len);
	} else if (io->op == VH_ZERO) {
		memset(d->model + at, 0, io->len);
	}
	loop_post(d->l, &d->task);
}

static void next(struct vh_task *t)
{
	struct driver *d = (struct driver *)((char *)t - offsetof(struct driver, task));
	uint64_t len = 1 + rnd(d) % (rnd(d) % 4 ? 9000 : 300000), cut;
	unsigned what = (unsigned)(rnd(d) % 20);

	if (!d->left--) {
		d->done = 1;
		return;
	}
	if (rnd(d) % 2)
		len = (len + 511) & ~511ull;
	memset(&d->io, 0, sizeof(d->io));
	d->io.op = what < 9 ? VH_READ : what < 17 ? VH_WRITE : what < 19 ? VH_ZERO : VH_FLUSH;
	d->io.flags = d->io.op == VH_ZERO ? VH_REQ_MAY_UNMAP : what == 16 ? VH_REQ_FUA : 0;
	d->io.done = ended;
	if (d->io.op != VH_FLUSH) {
		d->io.len = len;
		d->io.off = d->base + rnd(d) % (d->len - len);
		if (len % 512 == 0)
			d->io.off &= ~511ull;
		if (d->io.off < d->base)
			d->io.off = d->base;
	}
	if (d->io.op == VH_WRITE)
		memset(d->buf, (int)rnd(d), len);
	if (d->io.op == VH_WRITE || d->io.op == VH_READ) {
		cut = rnd(d) % len;
		d->iov[0] = (struct iovec){d->buf, cut};
		d->iov[1] = (struct iovec){d->buf + cut, len - cut};
		d->io.iov = cut ? d->iov : d->iov + 1;
		d->io.niov = cut ? 2 : 1;
	}
	fmt_submit(d->q, &d->io);
}

static void run(const char *format, enum blk_engine engine, int direct)
{
	g_autofree char *dir = g_strdup_printf("%s/vhost-fmt-XXXXXX", g_get_tmp_dir()), *path = NULL;
	const struct vh_format_ops *ops;
	struct fmt_spec s = {.label = "real"};
	struct driver d[QUEUES];
	struct fmt_image *i;
	struct blk_vol *v;
	struct vh_meta *m;
	uint8_t *all = g_malloc(DISK);
	struct vh_err e = {0};

	g_assert_nonnull(g_mkdtemp(dir));
	path = g_build_filename(dir, "image", NULL);
	v = file_vol(path, engine, direct);
	if (!v) {
		g_test_skip("this file system or kernel does not serve that engine");
		goto out;
	}
	if (plug_format(format, &ops, &e) < 0)
		g_error("%s", e.cause);
	m = fmt_meta_new(v, 0);
	{
		struct vh_create c = {.size = sizeof(c), .bytes = DISK, .volumes = &m, .n = 1};

		if (ops->create(&c, NULL, &e) < 0)
			g_error("create: %s", e.cause);
	}
	fmt_meta_free(m);
	s.ops = ops;
	for (int pass = 0; pass < 2; pass++) {
		s.vol = pass ? file_vol(path, engine, direct) : v;
		if (fmt_open(&s, &i, &e) < 0)
			g_error("open: %s", e.cause);
		if (pass) {
			if (fmt_pread(i, all, DISK, 0, &e) < 0)
				g_error("read: %s", e.cause);
			for (int k = 0; k < QUEUES; k++) {
				g_assert_cmpint(memcmp(all + d[k].base, d[k].model, d[k].len), ==, 0);
				g_free(d[k].model);
			}
			fmt_close(i);
			break;
		}
		for (int k = 0; k < QUEUES; k++) {
			memset(&d[k], 0, sizeof(d[k]));
			d[k].len = DISK / QUEUES - 777;
			d[k].base = (uint64_t)k * (DISK / QUEUES) + 333; /* the thirds meet within a sector and a cluster */
			d[k].buf = g_malloc(512 * 1024);
			d[k].model = g_malloc0(d[k].len);
			d[k].rnd = (uint64_t)g_test_rand_int() | 1;
			d[k].left = 250;
			d[k].task.fn = next;
			if (loop_new("q", &d[k].l, &e) < 0 || fmt_queue_open(i, d[k].l, 4, &d[k].q, &e) < 0 || loop_start(d[k].l, &e) < 0)
				g_error("queue: %s", e.cause);
		}
		for (int k = 0; k < QUEUES; k++)
			loop_post(d[k].l, &d[k].task);
		for (int k = 0; k < QUEUES; k++) {
			for (int t = 0; !d[k].done; t++) {
				g_usleep(1000);
				if (t > 100000)
					g_error("it does not end");
			}
			loop_stop(d[k].l);
			fmt_queue_close(d[k].q);
			loop_free(d[k].l);
			g_free(d[k].buf);
		}
		fmt_close(i);
	}
	g_unlink(path);
out:
	g_unlink(path);
	g_rmdir(dir);
	g_free(all);
}

static void raw_auto(void) { run("raw", BLK_ENGINE_AUTO, 1); }
static void toy_auto(void) { run("toy-format", BLK_ENGINE_AUTO, 1); }
static void toy_threads(void) { run("toy-format", BLK_ENGINE_THREADS, 0); }
static void toy_uring(void) { run("toy-format", BLK_ENGINE_URING, 0); }
static void vdi_auto(void) { run("vdi", BLK_ENGINE_AUTO, 1); }
static void vdi_threads(void) { run("vdi", BLK_ENGINE_THREADS, 0); }

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/fmt/real/raw-direct", raw_auto);
	g_test_add_func("/fmt/real/toy-direct", toy_auto);
	g_test_add_func("/fmt/real/toy-threads", toy_threads);
	g_test_add_func("/fmt/real/toy-uring", toy_uring);
	g_test_add_func("/fmt/real/vdi-direct", vdi_auto);
	g_test_add_func("/fmt/real/vdi-threads", vdi_threads);
	return g_test_run();
}
