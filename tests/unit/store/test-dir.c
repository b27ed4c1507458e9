/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the dir plugin promises in pool.h, on the file system of the temporary folder. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <glib/gstdio.h>
#include "dirtest.h"

static char *tmp;
static void *pool;

static char *in_pool(const char *name)
{
	return g_build_filename(tmp, name, NULL);
}

static void put_file(const char *name, const void *data, size_t n)
{
	g_autofree char *path = in_pool(name);

	g_assert_true(g_file_set_contents(path, data, (gssize)n, NULL));
}

static void setup(void)
{
	tmp = dirtest_tmp();
	pool = dirtest_open(tmp);
}

static void teardown(void)
{
	dir_ops->close(pool);
	dirtest_untmp(tmp);
}

struct counted { int n; uint64_t bytes; GHashTable *names; int with_stat; };

static int count_one(void *ctx, const char *name, const struct vh_vol_stat *st)
{
	struct counted *c = ctx;

	c->n++;
	g_assert_true(!st == !c->with_stat);
	if (st) {
		c->bytes += st->bytes;
		g_assert_true(g_str_has_prefix(st->identity, "file:"));
	}
	if (c->names)
		g_assert_true(g_hash_table_add(c->names, g_strdup(name)));
	return 0;
}

static void test_create(void)
{
	struct vh_vol_stat st = {.size = sizeof(st)};
	struct vh_err e = {0};
	uint64_t mib = 1 << 20;

	setup();
	g_assert_cmpint(dirtest_create(pool, "off", 8 * mib, VH_PREALLOC_OFF, NULL, &e), ==, 0);
	g_assert_cmpint(dirtest_create(pool, "falloc", 8 * mib, VH_PREALLOC_FALLOC, NULL, &e), ==, 0);
	struct vh_job j = {0};
	g_assert_cmpint(dirtest_create(pool, "full", 8 * mib, VH_PREALLOC_FULL, &j, &e), ==, 0);
	g_assert_cmpuint(j.done, ==, 8 * mib);
	g_assert_cmpuint(j.total, ==, 8 * mib);
	g_assert_cmpint(dirtest_count(tmp), ==, 3);

	g_assert_cmpint(dir_ops->stat(pool, "off", &st, &e), ==, 0);
	g_assert_cmpuint(st.bytes, ==, 8 * mib);
	g_assert_cmpuint(st.allocated, <, mib);
	g_assert_true(st.flags & VH_STAT_SPARSE);
	g_assert_false(st.flags & VH_STAT_IN_USE);
	g_assert_cmpint(dir_ops->stat(pool, "falloc", &st, &e), ==, 0);
	g_assert_cmpuint(st.allocated, >=, 8 * mib);
	g_assert_cmpint(dir_ops->stat(pool, "full", &st, &e), ==, 0);
	g_assert_cmpuint(st.allocated, >=, 8 * mib);
	g_autofree char *path = in_pool("full");
	g_autofree char *data = NULL;
	size_t n;
	g_assert_true(g_file_get_contents(path, &data, &n, NULL));
	g_assert_cmpuint(n, ==, 8 * mib);
	for (size_t i = 0; i < n; i++)
		if (data[i])
			g_error("byte %zu is not zero", i);

	/* Idempotent by name: the same again is fine, anything else is not. */
	g_assert_cmpint(dirtest_create(pool, "off", 8 * mib, VH_PREALLOC_OFF, NULL, &e), ==, 0);
	g_assert_cmpint(dirtest_create(pool, "off", 9 * mib, VH_PREALLOC_OFF, NULL, &e), ==, -EEXIST);
	g_assert_nonnull(strstr(e.text, "exists already"));
	g_assert_cmpint(dirtest_create(pool, "off", 8 * mib, VH_PREALLOC_FULL, NULL, NULL), ==, -EEXIST);
	put_file("foreign", "hello", 5);
	g_assert_cmpint(dirtest_create(pool, "foreign", 6, VH_PREALLOC_OFF, NULL, NULL), ==, -EEXIST);
	struct vh_vol_spec s = {.size = sizeof(s), .name = "foreign", .bytes = 5};
	g_assert_cmpint(dir_ops->create(pool, &s, NULL, NULL), ==, 0);
	g_assert_cmpuint(s.zeroed, ==, 0);
	s.name = "fresh";
	g_assert_cmpint(dir_ops->create(pool, &s, NULL, NULL), ==, 0);
	g_assert_cmpuint(s.zeroed, ==, 1);

	/* Removing what is not there succeeds. */
	g_assert_cmpint(dir_ops->remove(pool, "off", NULL, &e), ==, 0);
	g_assert_cmpint(dir_ops->remove(pool, "off", NULL, &e), ==, 0);
	g_assert_cmpint(dir_ops->stat(pool, "off", &st, &e), ==, -ENOENT);
	teardown();
}

static void test_too_large(void)
{
	struct vh_err e = {0};

	setup();
	g_assert_cmpint(dirtest_create(pool, "huge", UINT64_C(1) << 63, VH_PREALLOC_OFF, NULL, &e), ==, -EFBIG);
	e = (struct vh_err){0};
	g_assert_cmpint(dirtest_create(pool, "huge", INT64_MAX, VH_PREALLOC_OFF, NULL, &e), ==, -EFBIG);
	/* More than the file system has is refused before anything is allocated. */
	struct vh_pool_info i = {.size = sizeof(i)};
	g_assert_cmpint(dir_ops->info(pool, &i, NULL), ==, 0);
	if (i.capacity < INT64_MAX / 2) {
		g_assert_cmpint(dirtest_create(pool, "huge", i.capacity + (1 << 20), VH_PREALLOC_FALLOC, NULL, NULL), ==,
				-ENOSPC);
		g_assert_cmpint(dirtest_create(pool, "huge", i.capacity + (1 << 20), VH_PREALLOC_FULL, NULL, NULL), ==,
				-ENOSPC);
	}
	g_assert_cmpint(dirtest_count(tmp), ==, 0);
	teardown();
}

static void test_hostile_names(void)
{
	static const char *const bad[] = {"", ".", "..", "../escape", "/etc/passwd", "a/b", "a\nb", "\033[2J", ".hidden",
					  ".vhost-tmp", NULL};
	g_autofree char *longname = g_strnfill(300, 'x');
	struct vh_vol_stat st = {.size = sizeof(st)};
	char buf[64], big[8192];

	setup();
	g_autofree char *secret = g_build_filename(tmp, "..", "vhost-dir-secret", NULL);
	for (int i = 0; i <= (int)G_N_ELEMENTS(bad); i++) {
		const char *n = i == (int)G_N_ELEMENTS(bad) ? longname : bad[i];
		struct vh_err e = {0};

		g_assert_cmpint(dirtest_create(pool, n, 4096, 0, NULL, &e), ==, -EINVAL);
		g_assert_cmpstr(e.text, !=, "");
		g_assert_null(strchr(e.text, '\n')); /* no forged lines */
		g_assert_null(strchr(e.text, '\033'));
		g_assert_cmpint(dir_ops->stat(pool, n, &st, NULL), ==, -EINVAL);
		g_assert_cmpint(dir_ops->remove(pool, n, NULL, NULL), ==, -EINVAL);
		g_assert_cmpint(dir_ops->resize(pool, n, 1, 0, NULL, NULL), ==, -EINVAL);
		g_assert_cmpint(dir_ops->clone(pool, n, NULL, "x", 0, NULL, NULL), ==, -EINVAL);
		g_assert_cmpint(dir_ops->clone(pool, "x", NULL, n, 0, NULL, NULL), ==, -EINVAL);
		g_assert_cmpint(dir_ops->meta_get(pool, n, "format", buf, sizeof(buf), NULL), ==, -EINVAL);
		g_assert_cmpint(dir_ops->meta_set(pool, n, "format", "raw", NULL), ==, -EINVAL);
		g_assert_cmpint(dir_ops->path(pool, n, big, sizeof(big), NULL), ==, -EINVAL);
		for (uint32_t m = 0; m < 4; m++)
			g_assert_null(dirtest_attach(pool, n, m, NULL, NULL));
	}
	/* What may exist already may have more names than what is made. */
	g_assert_cmpint(dirtest_create(pool, "with space", 4096, 0, NULL, NULL), ==, -EINVAL);
	put_file("with space.img", "x", 1);
	g_assert_cmpint(dir_ops->stat(pool, "with space.img", &st, NULL), ==, 0);
	g_assert_cmpint(dirtest_count(tmp), ==, 1);
	teardown();
}

static void test_only_regular_files(void)
{
	struct vh_vol_stat st = {.size = sizeof(st)};
	static const char *const names[] = {"fifo", "link", "dangling", "folder", "socket", "device", NULL};
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct counted c = {0};

	setup();
	put_file("file", "data", 4);
	for (int i = 0; names[i]; i++) {
		g_autofree char *p = in_pool(names[i]), *target = in_pool("file");
		int ret = 0;

		if (i == 0)
			ret = mkfifo(p, 0600);
		else if (i == 1)
			ret = symlink(target, p);
		else if (i == 2)
			ret = symlink("/nonexistent", p);
		else if (i == 3)
			ret = mkdir(p, 0700);
		else if (i == 4) {
			int s = socket(AF_UNIX, SOCK_STREAM, 0);
			g_strlcpy(un.sun_path, p, sizeof(un.sun_path));
			ret = bind(s, (struct sockaddr *)&un, sizeof(un));
			close(s);
		} else if (mknod(p, S_IFCHR | 0600, makedev(1, 3)) < 0) {
			continue; /* not root */
		}
		g_assert_cmpint(ret, ==, 0);
		/* None of these may block (the FIFO) or follow (the links). */
		for (uint32_t m = 0; m < 4; m++) {
			struct vh_err e = {0};
			g_assert_null(dirtest_attach(pool, names[i], m, NULL, &e));
			g_assert_cmpint(e.code, ==, -EINVAL);
		}
		struct vh_err e = {0};
		g_assert_cmpint(dir_ops->stat(pool, names[i], &st, &e), ==, -EINVAL);
		g_assert_cmpstr(e.text, !=, "");
		g_assert_cmpint(dir_ops->remove(pool, names[i], NULL, NULL), ==, -EINVAL);
		g_assert_cmpint(dir_ops->clone(pool, names[i], NULL, "x", 0, NULL, NULL), ==, -EINVAL);
		g_assert_cmpint(dir_ops->clone(pool, "file", NULL, names[i], 0, NULL, NULL), <, 0);
		g_assert_cmpint(dirtest_create(pool, names[i], 4096, 0, NULL, NULL), <, 0);
		g_assert_cmpint(dir_ops->meta_set(pool, names[i], "format", "raw", NULL), <, 0);
	}
	g_assert_cmpint(dir_ops->list(pool, 0, count_one, &c, NULL), ==, 0);
	g_assert_cmpint(c.n, ==, 1);
	teardown();
}

static int list_10000(void *ctx)
{
	struct counted c = {.with_stat = 1, .names = g_hash_table_new(g_str_hash, g_str_equal)};

	/* Opening a volume for a listing would be 10,000 opens: let every openat but the folder's own fail. */
	if (dirtest_break_syscall(SYS_openat, EMFILE, 2, O_DIRECTORY, 0) || dirtest_break_syscall(SYS_open, EMFILE, -1, 0, 0))
		return 77;
	gint64 t = g_get_monotonic_time();
	if (dir_ops->list(pool, 1, count_one, &c, NULL) || c.n != 10000 || c.bytes != UINT64_C(10000) * 4096)
		return 1;
	printf("# 10000 volumes with stats: %lld us\n", (long long)(g_get_monotonic_time() - t));
	return g_get_monotonic_time() - t > 20 * G_USEC_PER_SEC; /* far beyond the goal of one second: loaded machines */
}

static void test_list_10000(void)
{
	setup();
	for (int i = 0; i < 10000; i++) {
		g_autofree char *n = g_strdup_printf("vm-%05d.img", i), *p = in_pool(n);
		int fd = open(p, O_CREAT | O_WRONLY, 0600);
		g_assert_cmpint(ftruncate(fd, 4096), ==, 0);
		close(fd);
	}
	put_file(".vm-00001.img.vhost", "x", 1);
	g_assert_cmpint(dirtest_child(list_10000, NULL), ==, 0);
	teardown();
}

static int stop_at_3(void *ctx, const char *name, const struct vh_vol_stat *st)
{
	return ++*(int *)ctx == 3;
}

static void test_list_stops(void)
{
	int n = 0;

	setup();
	for (int i = 0; i < 9; i++) {
		char name[8];
		snprintf(name, sizeof(name), "v%d", i);
		g_assert_cmpint(dirtest_create(pool, name, 512, 0, NULL, NULL), ==, 0);
	}
	g_assert_cmpint(dir_ops->list(pool, 1, stop_at_3, &n, NULL), ==, 1);
	g_assert_cmpint(n, ==, 3);
	teardown();
}

static void test_info(void)
{
	struct vh_pool_info i = {.size = sizeof(i)};

	setup();
	g_assert_cmpint(dir_ops->info(pool, &i, NULL), ==, 0);
	g_assert_cmpuint(i.health, ==, 0);
	g_assert_cmpuint(i.capacity, >, 0);
	g_assert_cmpuint(i.available, <=, i.capacity);
	g_assert_cmpuint(i.allocated, <=, i.capacity);
	g_assert_cmpuint(i.caps, ==, dir_ops->caps);
	/* A shorter struct of an older host is not written past its end. */
	struct { struct vh_pool_info i; } guard;
	memset(&guard, 0xa5, sizeof(guard));
	guard.i.size = offsetof(struct vh_pool_info, capacity);
	g_assert_cmpint(dir_ops->info(pool, &guard.i, NULL), ==, 0);
	g_assert_cmpuint(guard.i.capacity, ==, UINT64_C(0xa5a5a5a5a5a5a5a5));
	teardown();
}

static void test_make_open(void)
{
	g_autofree char *root = NULL, *deep = NULL, *file = NULL;
	struct vh_err e = {0};
	struct stat st;
	void *p;

	root = dirtest_tmp();
	deep = g_build_filename(root, "a", "b", "pool", NULL);
	file = g_build_filename(root, "file", NULL);
	g_assert_cmpint(dirtest_try_open(deep, &p, &e), ==, -ENOENT);
	g_assert_nonnull(strstr(e.text, deep));
	g_assert_cmpstr(e.remedy, !=, "");
	g_assert_cmpint(dirtest_make(deep, NULL), ==, 0);
	g_assert_cmpint(dirtest_make(deep, NULL), ==, 0);
	g_assert_cmpint(stat(deep, &st), ==, 0);
	g_assert_cmpuint(st.st_mode & 07777, ==, geteuid() ? 0700 : 0711);
	g_assert_true(g_file_set_contents(file, "x", 1, NULL));
	e = (struct vh_err){0};
	g_assert_cmpint(dirtest_try_open(file, &p, &e), ==, -ENOTDIR);
	e = (struct vh_err){0};
	g_assert_cmpint(dirtest_make(file, &e), ==, -ENOTDIR);
	g_assert_cmpint(dirtest_try_open("relative", &p, NULL), ==, -EINVAL);
	dirtest_untmp(g_steal_pointer(&root));
}

static int as_nobody(void *ctx)
{
	struct vh_err e = {0};
	void *p;

	if (setgid(65534) || setuid(65534))
		return 77;
	if (dirtest_try_open(ctx, &p, &e) != -EACCES)
		return 1;
	return !strstr(e.text, "closed") || strstr(e.text, "closed does not let") == NULL || !strstr(e.remedy, "chmod");
}

static void test_names_refusing_folder(void)
{
	g_autofree char *root = NULL, *closed = NULL, *deep = NULL;

	if (geteuid()) {
		g_test_skip("needs root to become another user");
		return;
	}
	root = dirtest_tmp();
	g_chmod(root, 0755);
	closed = g_build_filename(root, "closed", NULL);
	deep = g_build_filename(closed, "x", "pool", NULL);
	g_assert_cmpint(dirtest_make(deep, NULL), ==, 0);
	g_chmod(closed, 0700);
	g_assert_cmpint(dirtest_child(as_nobody, deep), ==, 0);
	dirtest_untmp(g_steal_pointer(&root));
}

static void test_resize(void)
{
	struct vh_vol_stat st = {.size = sizeof(st)};
	struct vh_err e = {0};

	setup();
	put_file("v", "data", 4);
	g_assert_cmpint(dir_ops->resize(pool, "v", 1 << 20, VH_PREALLOC_FALLOC, NULL, &e), ==, 0);
	g_assert_cmpint(dir_ops->stat(pool, "v", &st, NULL), ==, 0);
	g_assert_cmpuint(st.bytes, ==, 1 << 20);
	g_assert_cmpuint(st.allocated, >=, 1 << 20);
	g_assert_cmpint(dir_ops->resize(pool, "v", 2 << 20, VH_PREALLOC_FULL, NULL, &e), ==, 0);
	g_assert_cmpint(dir_ops->stat(pool, "v", &st, NULL), ==, 0);
	g_assert_cmpuint(st.bytes, ==, 2 << 20);
	g_assert_cmpint(dir_ops->resize(pool, "v", 2 << 20, VH_PREALLOC_OFF, NULL, &e), ==, 0);
	g_assert_cmpint(dir_ops->resize(pool, "v", 3, VH_PREALLOC_OFF, NULL, &e), ==, 0);
	g_autofree char *p = in_pool("v"), *data = NULL;
	size_t n;
	g_assert_true(g_file_get_contents(p, &data, &n, NULL));
	g_assert_cmpmem(data, n, "dat", 3);
	g_assert_cmpint(dir_ops->resize(pool, "none", 3, 0, NULL, &e), ==, -ENOENT);
	/* Cancelled: the old size. */
	struct vh_job j = {.cancel_after = 2};
	g_assert_cmpint(dir_ops->resize(pool, "v", 64 << 20, VH_PREALLOC_FULL, &j, &e), ==, -ECANCELED);
	g_assert_cmpint(dir_ops->stat(pool, "v", &st, NULL), ==, 0);
	g_assert_cmpuint(st.bytes, ==, 3);
	g_assert_cmpuint(st.allocated, <, 1 << 20);
	teardown();
}

/* A file of `mib` MiB with data in some and holes between. */
static void make_sparse(const char *name, int mib)
{
	g_autofree char *p = in_pool(name);
	g_autofree char *block = g_malloc(1 << 20);
	int fd = open(p, O_CREAT | O_RDWR, 0600);

	for (int i = 0; i < mib; i += 5) {
		memset(block, 'A' + i % 26, 1 << 20);
		g_assert_cmpint(pwrite(fd, block, 1 << 20, (off_t)i << 20), ==, 1 << 20);
	}
	g_assert_cmpint(ftruncate(fd, ((off_t)mib << 20) + 777), ==, 0);
	close(fd);
}

static void check_same(const char *a, const char *b)
{
	g_autofree char *pa = in_pool(a), *pb = in_pool(b);
	struct vh_vol_stat sa = {.size = sizeof(sa)}, sb = {.size = sizeof(sb)};

	g_assert_cmpint(dirtest_run(NULL, "cmp", pa, pb, NULL), ==, 0);
	g_assert_cmpint(dir_ops->stat(pool, a, &sa, NULL), ==, 0);
	g_assert_cmpint(dir_ops->stat(pool, b, &sb, NULL), ==, 0);
	g_assert_cmpuint(sb.allocated, <=, sa.allocated + (1 << 20)); /* holes kept */
	g_assert_cmpstr(sa.identity, !=, sb.identity);
}

static int clone_without(void *ctx)
{
	int level = GPOINTER_TO_INT(ctx);

	/* FICLONE */
	if (dirtest_break_syscall(SYS_ioctl, EOPNOTSUPP, 1, 0xffffffff, 0x40049409))
		return 77;
	if (level >= 1 && dirtest_break_syscall(SYS_copy_file_range, EXDEV, -1, 0, 0))
		return 77;
	if (level >= 2 && dirtest_break_syscall(SYS_lseek, EINVAL, -1, 0, 0))
		return 77;
	if (level >= 3 && dirtest_break_syscall(SYS_openat, EOPNOTSUPP, 2, 020000000, 020000000)) /* O_TMPFILE */
		return 77;
	g_autofree char *dst = g_strdup_printf("copy%d", level);
	struct vh_err e = {0};
	if (dir_ops->clone(pool, "src", NULL, dst, VH_CLONE_FULL, NULL, &e)) {
		printf("# %s\n", e.text);
		return 1;
	}
	return 0;
}

static void test_clone(void)
{
	struct vh_job j = {0};
	struct vh_err e = {0};
	char fmt[32];

	setup();
	make_sparse("src", 40);
	g_assert_cmpint(dir_ops->meta_set(pool, "src", "format", "raw", &e), ==, 0);
	g_assert_cmpint(dir_ops->clone(pool, "src", NULL, "copy", VH_CLONE_FULL, &j, &e), ==, 0);
	g_assert_cmpuint(j.done, ==, j.total);
	check_same("src", "copy");
	g_assert_cmpint(dir_ops->meta_get(pool, "copy", "format", fmt, sizeof(fmt), &e), ==, 3);
	g_assert_cmpstr(fmt, ==, "raw");
	/* Again: found done. Another source: exists. */
	g_assert_cmpint(dir_ops->clone(pool, "src", NULL, "copy", VH_CLONE_FULL, NULL, &e), ==, 0);
	make_sparse("other", 3);
	g_assert_cmpint(dir_ops->clone(pool, "other", NULL, "copy", VH_CLONE_FULL, NULL, &e), ==, -EEXIST);
	g_assert_cmpint(dir_ops->clone(pool, "src", NULL, "src", VH_CLONE_FULL, NULL, NULL), ==, -EEXIST);
	g_assert_cmpint(dir_ops->clone(pool, "none", NULL, "x", VH_CLONE_FULL, NULL, NULL), ==, -ENOENT);
	g_assert_cmpint(dir_ops->clone(pool, "src", NULL, "x", VH_CLONE_COW, NULL, NULL), ==, -EOPNOTSUPP);
	g_assert_cmpint(dir_ops->clone(pool, "src", "snap", "x", VH_CLONE_FULL, NULL, NULL), ==, -EOPNOTSUPP);
	/* Every way down: no reflink, no copy_file_range, no SEEK_DATA, no O_TMPFILE. */
	for (int level = 0; level < 4; level++) {
		g_autofree char *dst = g_strdup_printf("copy%d", level);
		g_assert_cmpint(dirtest_child(clone_without, GINT_TO_POINTER(level)), ==, 0);
		check_same("src", dst);
	}
	g_assert_cmpint(dirtest_count(tmp), ==, 7); /* no DIR_TMP left */
	teardown();
}

static int cancel_clone(void *ctx)
{
	struct vh_job j = {.cancel_after = 1};

	if (dirtest_break_syscall(SYS_ioctl, EOPNOTSUPP, 1, 0xffffffff, 0x40049409) ||
	    dirtest_break_syscall(SYS_copy_file_range, EXDEV, -1, 0, 0))
		return 77;
	if (ctx && dirtest_break_syscall(SYS_openat, EOPNOTSUPP, 2, 020000000, 020000000))
		return 77;
	return dir_ops->clone(pool, "src", NULL, "copy", VH_CLONE_FULL, &j, NULL) != -ECANCELED;
}

static void test_cancel_leaves_nothing(void)
{
	struct vh_job j = {.cancel_after = 3};
	struct vh_err e = {0};

	setup();
	g_assert_cmpint(dirtest_create(pool, "v", 64 << 20, VH_PREALLOC_FULL, &j, &e), ==, -ECANCELED);
	g_assert_cmpint(dirtest_count(tmp), ==, 0);
	make_sparse("src", 40);
	g_assert_cmpint(dirtest_child(cancel_clone, NULL), ==, 0);
	g_assert_cmpint(dirtest_child(cancel_clone, tmp), ==, 0);
	g_assert_cmpint(dirtest_count(tmp), ==, 1);
	/* The source's lease is gone with it. */
	void *v = dirtest_attach(pool, "src", VH_ATTACH_RW_EXCL, NULL, &e);
	g_assert_nonnull(v);
	dirtest_detach(v);
	teardown();
}

static int meta_rounds(void *ctx)
{
	char buf[256];
	struct vh_err e = {0};
	g_autofree char *longest = g_strnfill(255, 'v'), *toolong = g_strnfill(256, 'v');
	int n0 = dirtest_count(tmp);

	if (ctx && (dirtest_break_syscall(SYS_fsetxattr, EOPNOTSUPP, -1, 0, 0) ||
		    dirtest_break_syscall(SYS_lgetxattr, EOPNOTSUPP, -1, 0, 0) ||
		    dirtest_break_syscall(SYS_fgetxattr, EOPNOTSUPP, -1, 0, 0) ||
		    dirtest_break_syscall(SYS_flistxattr, EOPNOTSUPP, -1, 0, 0) ||
		    dirtest_break_syscall(SYS_fremovexattr, EOPNOTSUPP, -1, 0, 0)))
		return 77;
	g_assert_cmpint(dir_ops->meta_get(pool, "v", "format", buf, sizeof(buf), &e), ==, -ENODATA);
	g_assert_cmpint(dir_ops->meta_set(pool, "v", "format", "raw", &e), ==, 0);
	g_assert_cmpint(dir_ops->meta_set(pool, "v", "note", longest, &e), ==, 0);
	g_assert_cmpint(dir_ops->meta_get(pool, "v", "format", buf, sizeof(buf), &e), ==, 3);
	g_assert_cmpstr(buf, ==, "raw");
	g_assert_cmpint(dir_ops->meta_get(pool, "v", "note", buf, sizeof(buf), &e), ==, 255);
	g_assert_cmpstr(buf, ==, longest);
	g_assert_cmpint(dir_ops->meta_get(pool, "v", "note", buf, 100, NULL), ==, -ENOSPC);
	g_assert_cmpint(dir_ops->meta_set(pool, "v", "format", "qcow2", &e), ==, 0);
	g_assert_cmpint(dir_ops->meta_get(pool, "v", "format", buf, sizeof(buf), &e), ==, 5);
	g_assert_cmpint(dir_ops->meta_set(pool, "v", "note", NULL, &e), ==, 0);
	g_assert_cmpint(dir_ops->meta_set(pool, "v", "note", NULL, &e), ==, 0);
	g_assert_cmpint(dir_ops->meta_get(pool, "v", "note", buf, sizeof(buf), &e), ==, -ENODATA);
	g_assert_cmpint(dir_ops->meta_get(pool, "v", "form", buf, sizeof(buf), NULL), ==, -ENODATA);
	g_assert_cmpint(dir_ops->meta_set(pool, "v", "bad key", "x", NULL), ==, -EINVAL);
	g_assert_cmpint(dir_ops->meta_set(pool, "v", "", "x", NULL), ==, -EINVAL);
	g_assert_cmpint(dir_ops->meta_set(pool, "v", "holder", "x", NULL), ==, -EINVAL);
	g_assert_cmpint(dir_ops->meta_set(pool, "v", "note", toolong, NULL), ==, -EINVAL);
	g_assert_cmpint(dir_ops->meta_set(pool, "v", "note", "a\nformat=raw", NULL), ==, -EINVAL);
	g_assert_cmpint(dir_ops->meta_get(pool, "none", "format", buf, sizeof(buf), NULL), ==, -ENOENT);
	g_assert_cmpint(dir_ops->meta_set(pool, "none", "format", "raw", NULL), ==, -ENOENT);
	g_assert_cmpint(dirtest_count(tmp) - n0, ==, ctx ? 1 : 0);
	if (ctx) {
		/* The clone takes its values along; another file of the same name has none of them. */
		g_assert_cmpint(dir_ops->clone(pool, "v", NULL, "w", 0, NULL, &e), ==, 0);
		g_assert_cmpint(dir_ops->meta_get(pool, "w", "format", buf, sizeof(buf), &e), ==, 5);
		g_autofree char *p = in_pool("v"), *q = in_pool("fresh");
		put_file("fresh", "other", 5);
		g_assert_cmpint(rename(q, p), ==, 0);
		g_assert_cmpint(dir_ops->meta_get(pool, "v", "format", buf, sizeof(buf), &e), ==, -ENODATA);
		g_assert_cmpint(dir_ops->remove(pool, "v", NULL, &e), ==, 0);
		g_assert_cmpint(dir_ops->remove(pool, "w", NULL, &e), ==, 0);
		g_assert_cmpint(dirtest_count(tmp), ==, 0);
	}
	return 0;
}

static void test_meta(void)
{
	setup();
	g_assert_cmpint(dirtest_create(pool, "v", 4096, 0, NULL, NULL), ==, 0);
	g_assert_cmpint(meta_rounds(NULL), ==, 0);
	g_assert_cmpint(dir_ops->remove(pool, "v", NULL, NULL), ==, 0);
	g_assert_cmpint(dirtest_create(pool, "v", 4096, 0, NULL, NULL), ==, 0);
	g_assert_cmpint(dirtest_child(meta_rounds, tmp), ==, 0);
	teardown();
}

static void test_attach_info(void)
{
	struct vh_volume_info i;
	struct vh_err e = {0};
	char serial[32], buf[8192] __attribute__((aligned(4096)));
	void *v;

	setup();
	g_assert_cmpint(dirtest_create(pool, "v", 1 << 20, 0, NULL, NULL), ==, 0);
	v = dirtest_attach(pool, "v", VH_ATTACH_RW_EXCL, &i, &e);
	g_assert_nonnull(v);
	g_assert_cmpint(i.fd, >=, 0);
	g_assert_cmpuint(i.bytes, ==, 1 << 20);
	g_assert_cmpuint(i.fd_base, ==, 0);
	g_assert_true(i.caps & VH_VOL_LEASED);
	g_assert_true(i.caps & VH_VOL_GROW && i.caps & VH_VOL_ZERO_ON_GROW && i.caps & VH_VOL_FLUSH);
	g_assert_false(i.caps & VH_VOL_READ_ONLY);
	g_assert_cmpint(i.serial[0], !=, 0);
	memcpy(serial, i.serial, sizeof(serial));
	/* What it says about alignment is true. */
	if (i.caps & VH_VOL_FD_DIRECT) {
		g_assert_true(fcntl(i.fd, F_GETFL) & O_DIRECT);
		g_assert_cmpint(pread(i.fd, buf, i.len_align, i.len_align), ==, (ssize_t)i.len_align);
		g_assert_cmpuint(i.buf_align, <=, 4096);
	}
	g_assert_true(fcntl(i.fd, F_GETFD) & FD_CLOEXEC);
	g_assert_false(fcntl(i.fd, F_GETFL) & O_NONBLOCK); /* io_uring would answer -EAGAIN */
	dirtest_detach(v);

	struct vh_attach a = {.size = sizeof(a), .mode = VH_ATTACH_RW_EXCL, .name = "v", .flags = VH_ATTACH_BUFFERED};
	const struct vh_volume_ops *ops;
	g_assert_cmpint(dir_ops->attach(pool, &a, &v, &ops, &e), ==, 0);
	i.size = sizeof(i);
	g_assert_cmpint(ops->info(v, &i), ==, 0);
	g_assert_false(i.caps & VH_VOL_FD_DIRECT);
	g_assert_false(fcntl(i.fd, F_GETFL) & O_DIRECT);
	g_assert_cmpmem(serial, 32, i.serial, 32); /* the same file, the same serial */
	g_assert_cmpint(ops->resize(v, 2 << 20, &e), ==, 0);
	g_assert_cmpint(ops->info(v, &i), ==, 0);
	g_assert_cmpuint(i.bytes, ==, 2 << 20);
	ops->close(v);
	a.flags = 0x8000; /* must-understand, unknown */
	g_assert_cmpint(dir_ops->attach(pool, &a, &v, &ops, &e), ==, -EOPNOTSUPP);

	v = dirtest_attach(pool, "v", VH_ATTACH_RO, &i, &e);
	g_assert_true(i.caps & VH_VOL_READ_ONLY);
	g_assert_false(i.caps & VH_VOL_GROW);
	g_assert_cmpint(write(i.fd, buf, 4096), ==, -1);
	dirtest_detach(v);
	g_assert_null(dirtest_attach(pool, "none", VH_ATTACH_RO, &i, &e));
	g_assert_cmpint(e.code, ==, -ENOENT);
	teardown();
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	dirtest_load();
	g_test_add_func("/dir/make-and-open", test_make_open);
	g_test_add_func("/dir/error-names-the-refusing-folder", test_names_refusing_folder);
	g_test_add_func("/dir/info", test_info);
	g_test_add_func("/dir/create-remove-idempotent", test_create);
	g_test_add_func("/dir/create-too-large", test_too_large);
	g_test_add_func("/dir/hostile-names", test_hostile_names);
	g_test_add_func("/dir/only-regular-files", test_only_regular_files);
	g_test_add_func("/dir/list-10000", test_list_10000);
	g_test_add_func("/dir/list-stops", test_list_stops);
	g_test_add_func("/dir/resize", test_resize);
	g_test_add_func("/dir/clone-every-way", test_clone);
	g_test_add_func("/dir/cancel-leaves-nothing", test_cancel_leaves_nothing);
	g_test_add_func("/dir/meta-xattr-and-sidecar", test_meta);
	g_test_add_func("/dir/attach-info", test_attach_info);
	return g_test_run();
}
