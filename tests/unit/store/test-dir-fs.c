/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The dir plugin on other file systems, mounted in a mount namespace of our own: xfs and btrfs with reflinks, tmpfs,
 * ramfs (no attributes), a full one, a read-only one. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <linux/fs.h>
#include <sys/wait.h>
#include <unistd.h>
#include "dirtest.h"

static char *tmp;

struct fs { const char *type, *options, *mkfs; int megs, reflink, attrs; };

/* What works everywhere. Runs in a child with the file system mounted on tmp. Returns 0, or prints what failed. */
#define CHECK(x)                                                                                                       \
	do {                                                                                                           \
		if (!(x)) {                                                                                            \
			printf("# %s: failed: %s (%s)\n", fs->type, #x, e.text);                                       \
			return 1;                                                                                      \
		}                                                                                                      \
	} while (0)

static int everything(const struct fs *fs)
{
	struct vh_vol_stat st = {.size = sizeof(st)}, st2 = {.size = sizeof(st2)};
	struct vh_pool_info pi = {.size = sizeof(pi)};
	static char buf[1 << 20] __attribute__((aligned(4096)));
	struct vh_volume_info i;
	struct vh_err e = {0};
	char format[32];
	void *pool, *v;

	CHECK(!dirtest_try_open(tmp, &pool, &e));
	CHECK(!dirtest_create(pool, "v", 20 << 20, VH_PREALLOC_OFF, NULL, &e));
	CHECK(!dir_ops->meta_set(pool, "v", "format", "raw", &e));
	CHECK(dir_ops->meta_get(pool, "v", "format", format, sizeof(format), &e) == 3);
	v = dirtest_attach(pool, "v", VH_ATTACH_RW_EXCL, &i, &e);
	CHECK(v);
	memset(buf, 'x', sizeof(buf));
	for (int n = 0; n < 16; n++)
		CHECK(pwrite(i.fd, buf, sizeof(buf), (off_t)n << 20) == sizeof(buf));
	if (i.caps & VH_VOL_FD_DIRECT) /* the alignments that it tells are enough */
		CHECK(pread(i.fd, buf + i.buf_align, i.len_align, i.len_align) == (ssize_t)i.len_align);
	if (i.caps & VH_VOL_DISCARD)
		CHECK(!fallocate(i.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 1 << 20) && !pread(i.fd, buf, 4096, 20 << 20));
	CHECK(!dirtest_attach(pool, "v", VH_ATTACH_RO, NULL, &e) && e.code == -EBUSY && strstr(e.text, "pid "));
	e.code = 0;
	e.text[0] = 0;
	dirtest_detach(v);
	CHECK(!dir_ops->clone(pool, "v", NULL, "w", VH_CLONE_FULL, NULL, &e));
	CHECK(!dir_ops->stat(pool, "w", &st, &e) && st.bytes == 20 << 20);
	CHECK(!dir_ops->stat(pool, "v", &st2, &e) && st.allocated <= st2.allocated + (1 << 20));
	CHECK(dir_ops->meta_get(pool, "w", "format", format, sizeof(format), &e) == 3);
	g_autofree char *a = g_build_filename(tmp, "v", NULL), *b = g_build_filename(tmp, "w", NULL);
	CHECK(!dirtest_run(NULL, "cmp", a, b, NULL));
	if (fs->reflink) { /* 20 clones of 15 MiB fit where there is room for two */
		for (int n = 0; n < 20; n++) {
			char name[16];

			snprintf(name, sizeof(name), "clone%d", n);
			CHECK(!dir_ops->clone(pool, "v", NULL, name, VH_CLONE_FULL, NULL, &e));
		}
		CHECK(!dir_ops->info(pool, &pi, &e) && pi.available > 20 << 20);
	}
	CHECK(dirtest_count(tmp) >= 2 + (fs->attrs ? 0 : 2));
	CHECK(!dir_ops->resize(pool, "w", 21 << 20, VH_PREALLOC_FALLOC, NULL, &e));
	CHECK(!dir_ops->stat(pool, "w", &st, &e) && st.bytes == 21 << 20);
	CHECK(!dir_ops->remove(pool, "w", NULL, &e));
	CHECK(!dir_ops->remove(pool, "v", NULL, &e));
	for (int n = 0; n < 20 && fs->reflink; n++) {
		char name[16];

		snprintf(name, sizeof(name), "clone%d", n);
		CHECK(!dir_ops->remove(pool, name, NULL, &e));
	}
	if (!strcmp(fs->type, "btrfs")) {
		struct vh_val val = {.size = sizeof(val), .type = VH_OPT_BOOL, .name = "nocow", .num = 1};
		const struct vh_val *list = &val;
		struct vh_opts o = {.size = sizeof(o), .n = 1, .val = &list};
		struct vh_vol_spec s = {.size = sizeof(s), .name = "n", .bytes = 1 << 20, .opts = &o};
		int flags = 0, fd;

		CHECK(!dir_ops->create(pool, &s, NULL, &e));
		g_autofree char *n = g_build_filename(tmp, "n", NULL);
		fd = open(n, O_RDONLY);
		CHECK(fd >= 0 && !ioctl(fd, FS_IOC_GETFLAGS, &flags) && flags & FS_NOCOW_FL);
		close(fd);
	}
	/* No space: nothing stays, and the error says what to do. */
	CHECK(!dir_ops->info(pool, &pi, &e));
	if (strcmp(fs->type, "ramfs")) { /* which has no limit */
		CHECK(dirtest_create(pool, "big", pi.capacity + (64 << 20), VH_PREALLOC_FALLOC, NULL, &e) == -ENOSPC);
		CHECK(e.remedy[0]);
		e.code = 0;
		e.text[0] = 0;
		uint64_t room = pi.available > (8 << 20) ? (pi.available - (8 << 20)) & ~UINT64_C(0xfffff) : 4096;
		CHECK(!dirtest_create(pool, "fill", room, VH_PREALLOC_OFF,
				      NULL, &e));
		v = dirtest_attach(pool, "fill", VH_ATTACH_RW_EXCL, &i, &e);
		CHECK(v);
		for (uint64_t off = 0; off < i.bytes; off += sizeof(buf))
			if (pwrite(i.fd, buf, sizeof(buf), (off_t)off) < 0)
				break;
		dirtest_detach(v);
		CHECK(dir_ops->clone(pool, "fill", NULL, "fill2", VH_CLONE_FULL, NULL, &e) == (fs->reflink ? 0 : -ENOSPC));
		e.text[0] = 0;
		if (!fs->reflink) {
			g_autofree char *left = g_build_filename(tmp, "fill2", NULL);
			CHECK(!g_file_test(left, G_FILE_TEST_EXISTS));
			CHECK(dirtest_create(pool, "full", 32 << 20, VH_PREALLOC_FULL, NULL, &e) == -ENOSPC);
			CHECK(dir_ops->resize(pool, "fill", i.bytes + (64 << 20), VH_PREALLOC_FULL, NULL, &e) == -ENOSPC);
			CHECK(!dir_ops->stat(pool, "fill", &st, &e) && st.bytes == i.bytes);
		}
	}
	dir_ops->close(pool);
	/* Read-only: it opens, says so, and refuses to write. */
	if (strcmp(fs->type, "ramfs")) {
		e.text[0] = 0;
		if (mount(NULL, tmp, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL))
			return 1;
		CHECK(!dirtest_try_open(tmp, &pool, &e));
		CHECK(!dir_ops->info(pool, &pi, &e) && pi.health == 1 && strstr(pi.detail, "read-only"));
		CHECK(dirtest_create(pool, "x", 4096, 0, NULL, &e) == -EROFS);
		CHECK(!dirtest_attach(pool, "fill", VH_ATTACH_RW_EXCL, NULL, &e) && e.code == -EROFS);
		v = dirtest_attach(pool, "fill", VH_ATTACH_RO, NULL, &e);
		CHECK(v);
		dirtest_detach(v);
		dir_ops->close(pool);
	}
	return 0;
}

static int in_namespace(void *ctx)
{
	const struct fs *fs = ctx;
	g_autofree char *image = g_strconcat(tmp, ".img", NULL), *out = NULL;
	int ret;

	if (dirtest_unshare())
		return 77;
	if (fs->mkfs) {
		int fd = open(image, O_CREAT | O_RDWR | O_CLOEXEC, 0600);

		if (fd < 0 || ftruncate(fd, (off_t)fs->megs << 20))
			return 77;
		close(fd);
		ret = dirtest_run(&out, fs->mkfs, "-q", image, NULL) ||
		      dirtest_run(&out, "mount", "-o", "loop", "-t", fs->type, image, tmp, NULL);
		unlink(image);
		if (ret) {
			g_strdelimit(out, "\n", ' ');
			printf("# %s: %s\n", fs->type, out ? out : "no such program");
			return 77;
		}
	} else if (mount("none", tmp, fs->type, 0, fs->options)) {
		return 77;
	}
	ret = everything(fs);
	if (umount2(tmp, MNT_DETACH))
		return 1;
	return ret;
}

static void test_fs(gconstpointer data)
{
	struct fs fs = *(const struct fs *)data;
	int ret;

	if (geteuid()) {
		g_test_skip("needs root to mount a file system");
		return;
	}
	tmp = dirtest_tmp();
	ret = dirtest_child(in_namespace, &fs);
	if (ret == 77) {
		g_autofree char *why = g_strdup_printf("%s cannot be made or mounted here", fs.type);
		g_test_skip(why);
	} else {
		g_assert_cmpint(ret, ==, 0);
	}
	dirtest_untmp(tmp);
}

int main(int argc, char **argv)
{
	static const struct fs all[] = {
		{"tmpfs", "size=64m", NULL, 0, 0, 1},
		{"ramfs", NULL, NULL, 0, 0, 0},
		{"xfs", NULL, "mkfs.xfs", 320, 1, 1},
		{"btrfs", NULL, "mkfs.btrfs", 320, 1, 1},
		{"ext4", NULL, "mkfs.ext4", 64, 0, 1},
		{"ext2", NULL, "mkfs.ext2", 64, 0, 1},
	};

	g_test_init(&argc, &argv, NULL);
	dirtest_load();
	for (unsigned i = 0; i < G_N_ELEMENTS(all); i++) {
		g_autofree char *name = g_strdup_printf("/dir-fs/%s", all[i].type);

		g_test_add_data_func(name, &all[i], test_fs);
	}
	return g_test_run();
}
