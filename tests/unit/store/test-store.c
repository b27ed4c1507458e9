/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Pools, recorded formats, disks and references, with the real plugins. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include "store/store-i.h"

static char *root;

static void setup(void)
{
	root = g_dir_make_tmp("vhost-store-XXXXXX", NULL);
	g_assert_nonnull(root);
	g_setenv("VHOST_ROOT", root, TRUE);
}

static void teardown(void)
{
	char *argv[] = {(char *)"rm", (char *)"-rf", root, NULL};

	g_assert_true(g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL));
	g_clear_pointer(&root, g_free);
}

static void make_vol(const char *pool, const char *name, uint64_t bytes, const char *format)
{
	struct store_create c = {.name = name, .format = format, .bytes = bytes};
	struct store_pool *p;
	ERR_AUTO(e);

	if (store_pool_open(pool, &p, &e) || store_vol_create(p, &c, NULL, &e))
		g_error("%s", e.cause);
	store_pool_close(p);
}

static int try_disk(const char *spec, struct disk **d, struct vh_err *e)
{
	struct kvs k;
	int ret = kvs_parse(spec, &k, e);

	if (!ret)
		ret = disk_open(&k, "pid 1 vhost run test", NULL, NULL, d, e);
	kvs_clear(&k);
	return ret;
}

/* Opens and closes; the error's text must hold `want` when it is to fail. */
static void check_disk(const char *spec, int code, const char *want)
{
	struct disk *d = NULL;
	ERR_AUTO(e);
	int ret = try_disk(spec, &d, &e);

	if (ret != code)
		g_error("%s: %d, not %d: %s", spec, ret, code, e.cause);
	if (ret) {
		g_assert_null(d);
		g_assert_nonnull(e.object);
		if (want && !strstr(e.cause, want) && !(e.remedy && strstr(e.remedy, want)))
			g_error("%s: \"%s\" (%s) does not say \"%s\"", spec, e.cause, e.remedy, want);
	} else {
		disk_close(d);
	}
}

static void test_disk(void)
{
	g_autofree char *file = NULL, *linked = NULL, *spec = NULL;
	struct fmt_info info;
	struct disk *d, *d2;
	char buf[512];
	ERR_AUTO(e);

	setup();
	make_vol("default", "web", 1 << 20, "raw");
	check_disk("default/web", 0, NULL);
	check_disk("web", 0, NULL);
	check_disk("volume=default/web,readonly=on", 0, NULL);
	check_disk("default/web,engine=threads,cache=writeback,on-error=stop,io-timeout=5s,queues=2", 0, NULL);
	check_disk("default/web,engine=uring", 0, NULL);
	check_disk("default/web,format=raw", 0, NULL);
	check_disk("default/web,format=qcow2", -EINVAL, "recorded as raw, not qcow2");
	check_disk("default/web,serial=123456789012345678901", -ERANGE, "serial");
	check_disk("default/web,enginex=aio", -EINVAL, "engine");
	check_disk("default/web,path=/x", -EINVAL, "path=");
	check_disk("readonly=on", -EINVAL, "POOL/VOLUME");
	check_disk("default/none", -ENOENT, "no such volume");
	check_disk("nopool/web", -ENOENT, "no such pool");
	check_disk("../etc/passwd", -EINVAL, NULL);
	check_disk("default/../../etc/passwd", -EINVAL, NULL);
	check_disk("default/web,pool.path=/x", -EINVAL, "type=");
	check_disk("default/web,filter.x=1", -EINVAL, "filter=");
	check_disk("default/web,filter=nonesuch", -ENOENT, "not found");
	check_disk("default/web,format.nonesuch=1", -EINVAL, "nonesuch");

	/* One writer, whatever path it comes by. */
	file = g_build_filename(root, "data", "images", "web", NULL);
	linked = g_build_filename(root, "link", NULL);
	g_assert_cmpint(symlink(file, linked), ==, 0);
	g_assert_cmpint(try_disk("default/web,serial=abc", &d, &e), ==, 0);
	g_assert_cmpstr(d->serial, ==, "abc");
	g_assert_cmpstr(d->label, ==, "default/web");
	fmt_get_info(d->image, &info);
	g_assert_cmpuint(info.bytes, ==, 1 << 20);
	g_assert_cmpint(fmt_pwrite(d->image, "hello", 5, 1000, &e), ==, 0);
	check_disk("default/web", -EBUSY, "vhost run test");
	spec = g_strdup_printf("path=%s", file);
	check_disk(spec, -EBUSY, "in use by");
	g_free(spec);
	spec = g_strdup_printf("path=%s", linked);
	check_disk(spec, -EBUSY, "in use by");
	check_disk("default/web,readonly=on", -EBUSY, "in use by");
	disk_close(d);
	g_assert_cmpint(try_disk("default/web,readonly=on", &d, &e), ==, 0);
	g_assert_cmpint(try_disk("default/web,readonly=on", &d2, &e), ==, 0);
	g_assert_cmpint(fmt_pread(d2->image, buf, 5, 1000, &e), ==, 0);
	g_assert_cmpmem(buf, 5, "hello", 5);
	g_assert_cmpint(fmt_pwrite(d2->image, "x", 1, 0, NULL), <, 0);
	check_disk("default/web", -EBUSY, NULL);
	disk_close(d2);
	disk_close(d);
	check_disk(spec, 0, NULL);
	g_free(spec);
	spec = g_strdup_printf("type=dir,volume=web,pool.path=%s/data/images", root);
	check_disk(spec, 0, NULL);
	teardown();
}

static void test_formats_are_not_guessed(void)
{
	g_autofree char *file = NULL, *spec = NULL;
	struct store_pool *p;
	char format[32];
	ERR_AUTO(e);

	setup();
	make_vol("default", "x", 4096, "raw");
	file = g_build_filename(root, "data", "images", "foreign", NULL);
	/* A guest may write any format's header into its raw disk. */
	static const char qcow2[512] = "QFI\xfb\0\0\0\3";
	g_assert_true(g_file_set_contents(file, qcow2, sizeof(qcow2), NULL));
	check_disk("default/foreign", -EINVAL, "format");
	spec = g_strdup_printf("path=%s", file);
	check_disk(spec, -EINVAL, "not recorded");
	check_disk("default/foreign,format=raw", 0, NULL);
	g_assert_cmpint(store_pool_open("default", &p, &e), ==, 0);
	g_assert_cmpint(store_format_get(p, "foreign", format, &e), ==, 0);
	g_assert_cmpstr(format, ==, ""); /* using it records nothing */
	g_assert_cmpint(store_format_set(p, "foreign", "raw", &e), ==, 0);
	check_disk("default/foreign", 0, NULL);
	check_disk(spec, 0, NULL);
	g_assert_cmpint(store_format_set(p, "foreign", "", NULL), <, 0);
	g_assert_cmpint(store_format_set(p, "foreign", "0123456789012345678901234567890123456789", NULL), <, 0);
	/* A record that is too long, written by other means, is no format. */
	g_assert_cmpint(setxattr(file, "user.vhost.format", "0123456789012345678901234567890123456789", 40, 0), ==, 0);
	g_assert_cmpint(store_format_get(p, "foreign", format, NULL), <, 0);
	store_pool_close(p);
	teardown();
}

static int ref(struct resolver *r, const char *name, const char *format, uint32_t role, int ro, struct vh_err *e)
{
	struct vh_ref v = {.size = sizeof(v), .role = role};
	struct blk_vol *vol = NULL;
	char got[32];
	int ret;

	g_strlcpy(v.name, name, sizeof(v.name));
	g_strlcpy(v.format, format, sizeof(v.format));
	ret = resolver_open(r, &v, ro, &vol, got, e);
	if (!ret) {
		g_assert_cmpstr(got, ==, "raw");
		blk_vol_put(vol);
	}
	return ret;
}

static void test_references(void)
{
	static const char *const outside[] = {
		"/etc/passwd", "../base", "sub/base", "../../images/base", "json:{}", "nbd:localhost:10809", "http://x/y",
		"file:base", "", ".", "..", "/", "base/", "/base", NULL};
	g_autofree char *abs = NULL, *odd = NULL, *trick = NULL;
	struct store_pool *p;
	struct resolver r;
	ERR_AUTO(e);

	setup();
	make_vol("default", "top", 4096, "raw");
	make_vol("default", "base", 4096, "raw");
	make_vol("default", "base2", 4096, "raw");
	g_assert_cmpint(store_pool_open("default", &p, &e), ==, 0);
	g_assert_cmpint(resolver_init(&r, p, "top", "test", &e), ==, 0);
	for (int i = 0; outside[i]; i++) {
		ERR_AUTO(bad);
		int ret = ref(&r, outside[i], "raw", VH_REF_BACKING, 1, &bad);

		if (ret >= 0)
			g_error("'%s' was opened", outside[i]);
	}
	g_assert_cmpint(ref(&r, "base", "raw", VH_REF_BACKING, 1, &e), ==, 0);
	g_assert_cmpint(ref(&r, "base", "raw", VH_REF_BACKING, 1, &e), ==, -ELOOP);
	err_clear(&e);
	g_assert_cmpint(ref(&r, "top", "raw", VH_REF_BACKING, 1, &e), ==, -ELOOP);
	err_clear(&e);
	abs = g_build_filename(root, "data", "images", "base2", NULL);
	/* A hard link is the same volume. */
	trick = g_build_filename(root, "data", "images", "alias", NULL);
	g_assert_cmpint(link(abs, trick), ==, 0);
	odd = g_build_filename(root, "data", "images", "..", "images", "base2", NULL);
	g_assert_cmpint(ref(&r, odd, "", VH_REF_DATA, 0, &e), ==, 0);
	g_assert_cmpint(ref(&r, "alias", "", VH_REF_BACKING, 1, &e), ==, -ELOOP);
	err_clear(&e);
	resolver_clear(&r);
	g_assert_cmpint(resolver_init(&r, p, "top", "test", &e), ==, 0);
	g_assert_cmpint(ref(&r, abs, "raw", VH_REF_BACKING, 1, &e), ==, 0);
	g_assert_cmpint(ref(&r, "base", "qcow2", VH_REF_BACKING, 1, &e), ==, -EINVAL);
	err_clear(&e);
	resolver_clear(&r);
	/* A symlink inside the pool does not lead out of it. */
	g_assert_cmpint(unlink(trick), ==, 0);
	g_assert_cmpint(symlink("/etc/passwd", trick), ==, 0);
	g_assert_cmpint(resolver_init(&r, p, "top", "test", &e), ==, 0);
	g_assert_cmpint(ref(&r, "alias", "raw", VH_REF_BACKING, 1, &e), ==, -EPERM);
	err_clear(&e);
	/* No chain without an end. */
	for (int i = 0; i < CHAIN_MAX + 4; i++) {
		g_autofree char *name = g_strdup_printf("c%d", i);
		ERR_AUTO(long_chain);
		g_autofree char *path = g_build_filename(root, "data", "images", name, NULL);

		g_assert_true(g_file_set_contents(path, "x", 1, NULL));
		int ret = ref(&r, name, "raw", VH_REF_BACKING, 1, &long_chain);
		g_assert_cmpint(ret, ==, i < CHAIN_MAX - 1 ? 0 : -ELOOP);
	}
	resolver_clear(&r);
	store_pool_close(p);
	teardown();
}

static void test_toy_format(void)
{
	struct store_create c = {.name = "t", .format = "toy-format", .bytes = 8 << 20};
	const struct vh_format_ops *ops;
	struct store_pool *p;
	struct fmt_info info;
	struct disk *d;
	char format[32];
	ERR_AUTO(e);

	if (plug_format("toy-format", &ops, &e)) {
		g_test_skip("the example format toy is not built");
		return;
	}
	setup();
	g_assert_cmpint(store_pool_open("default", &p, &e), ==, 0);
	if (store_vol_create(p, &c, NULL, &e))
		g_error("%s", e.cause);
	g_assert_cmpint(store_format_get(p, "t", format, &e), ==, 0);
	g_assert_cmpstr(format, ==, "toy-format");
	g_assert_cmpint(vol_meta_get(p, "t", "unfinished", format, &e), ==, 0);
	g_assert_cmpstr(format, ==, "");
	g_assert_cmpuint(store_disk_bytes(p, "t", "toy-format"), ==, 8 << 20);
	g_assert_cmpint(store_vol_create(p, &c, NULL, &e), ==, 0); /* the same again */
	c.bytes = 9 << 20;
	g_assert_cmpint(store_vol_create(p, &c, NULL, &e), ==, -EEXIST);
	err_clear(&e);
	c.format = "raw";
	g_assert_cmpint(store_vol_create(p, &c, NULL, &e), ==, -EEXIST);
	err_clear(&e);
	g_assert_cmpint(try_disk("default/t", &d, &e), ==, 0);
	fmt_get_info(d->image, &info);
	g_assert_cmpuint(info.bytes, ==, 8 << 20);
	g_assert_cmpint(fmt_pwrite(d->image, "data", 4, 5 << 20, &e), ==, 0);
	disk_close(d);
	/* What a crash left between making the volume and recording its format is made anew. */
	struct store_create u = {.name = "u", .format = "toy-format", .bytes = 4 << 20};
	g_autofree char *file = g_build_filename(root, "data", "images", "u", NULL);
	g_assert_true(g_file_set_contents(file, "half a header", 13, NULL));
	g_assert_cmpint(vol_meta_set(p, "u", "unfinished", "toy-format", &e), ==, 0);
	if (store_vol_create(p, &u, NULL, &e))
		g_error("%s", e.cause);
	g_assert_cmpuint(store_disk_bytes(p, "u", "toy-format"), ==, 4 << 20);
	store_pool_close(p);
	teardown();
}

/* Values of volumes whose pool keeps none go into the data folder, by the volume's identity. */
static void test_host_values(void)
{
	struct store_pool *p;
	struct vh_pool_ops bare;
	char v[32];
	ERR_AUTO(e);

	setup();
	make_vol("default", "v", 4096, "raw");
	g_assert_cmpint(store_pool_open("default", &p, &e), ==, 0);
	bare = *p->ops;
	bare.meta_get = NULL;
	bare.meta_set = NULL;
	p->ops = &bare;
	g_assert_cmpint(store_format_get(p, "v", v, &e), ==, 0);
	g_assert_cmpstr(v, ==, "");
	g_assert_cmpint(store_format_set(p, "v", "toy-format", &e), ==, 0);
	g_assert_cmpint(store_format_get(p, "v", v, &e), ==, 0);
	g_assert_cmpstr(v, ==, "toy-format");
	g_assert_cmpint(store_format_get(p, "none", v, &e), ==, -ENOENT);
	err_clear(&e);
	g_assert_cmpint(store_vol_remove(p, "v", NULL, &e), ==, 0);
	g_autofree char *file = g_build_filename(root, "data", "volumes", "default.conf", NULL), *text = NULL;
	g_assert_true(g_file_get_contents(file, &text, NULL, NULL));
	g_assert_null(strstr(text, "toy-format"));
	store_pool_close(p);
	teardown();
}

static int no_scans(void *unused)
{
	static const int scans[] = {SYS_getdents, SYS_getdents64};
	scmp_filter_ctx c = seccomp_init(SCMP_ACT_ALLOW);
	struct disk *d;
	ERR_AUTO(e);

	for (unsigned i = 0; i < G_N_ELEMENTS(scans); i++)
		if (seccomp_rule_add(c, SCMP_ACT_ERRNO(EPERM), scans[i], 0))
			return 77;
	if (seccomp_load(c))
		return 77;
	seccomp_release(c);
	if (try_disk("default/web", &d, &e)) {
		g_printerr("# %s\n", e.cause);
		return 1;
	}
	disk_close(d);
	return 0;
}

/* A VM's start reads no folder, however many volumes or pools there are. */
static void test_no_scans(void)
{
	int status, pid;

	setup();
	make_vol("default", "web", 1 << 20, "raw");
	fflush(NULL);
	pid = fork();
	if (!pid)
		_exit(no_scans(NULL));
	g_assert_cmpint(waitpid(pid, &status, 0), ==, pid);
	g_assert_cmpint(status, ==, 0);
	teardown();
}

static void *open_one(void *spec)
{
	for (int i = 0; i < 5; i++)
		check_disk(spec, 0, NULL);
	return NULL;
}

/* A machine opens its disks side by side. */
static void test_parallel(void)
{
	static const char *const names[] = {"a", "b", "c", "d"};
	pthread_t t[G_N_ELEMENTS(names)];

	setup();
	for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
		make_vol("default", names[i], 1 << 20, "raw");
	for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
		g_assert_cmpint(pthread_create(&t[i], NULL, open_one, (void *)names[i]), ==, 0);
	for (unsigned i = 0; i < G_N_ELEMENTS(names); i++)
		pthread_join(t[i], NULL);
	teardown();
}

static void step(void *ctx, const char *text)
{
	g_string_append_printf(ctx, "%s\n", text);
}

static void test_plan(void)
{
	g_autoptr(GString) s = g_string_new(NULL);
	struct kvs k;
	ERR_AUTO(e);

	setup();
	g_assert_cmpint(kvs_parse("default/web", &k, &e), ==, 0);
	g_assert_cmpint(disk_plan(&k, step, s, &e), ==, -ENOENT);
	err_clear(&e);
	g_autofree char *images = g_build_filename(root, "data", NULL);
	g_assert_false(g_file_test(images, G_FILE_TEST_EXISTS)); /* a plan makes nothing */
	make_vol("default", "web", 1 << 20, "raw");
	g_string_truncate(s, 0);
	g_assert_cmpint(disk_plan(&k, step, s, &e), ==, 0);
	g_assert_nonnull(strstr(s->str, "open the dir pool default"));
	g_assert_nonnull(strstr(s->str, "attach the volume web (1 MiB"));
	g_assert_nonnull(strstr(s->str, "as raw"));
	kvs_clear(&k);
	teardown();
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_setenv("VHOST_PLUGIN_PATH", PLUGINS, FALSE); /* when it is run by hand */
	g_test_add_func("/store/disk", test_disk);
	g_test_add_func("/store/formats-are-not-guessed", test_formats_are_not_guessed);
	g_test_add_func("/store/references-stay-inside", test_references);
	g_test_add_func("/store/toy-format", test_toy_format);
	g_test_add_func("/store/host-kept-values", test_host_values);
	g_test_add_func("/store/start-reads-no-folder", test_no_scans);
	g_test_add_func("/store/plan", test_plan);
	g_test_add_func("/store/disks-open-side-by-side", test_parallel);
	return g_test_run();
}
