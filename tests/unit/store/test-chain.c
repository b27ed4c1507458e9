/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Chains of images as commands change them: rebase and commit keep every byte, also when they are killed at any moment;
 * references stay below the folders that are permitted; leases on the whole chain, with qemu-img as the other side.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "store/store-i.h"

#define MB (1u << 20)
static int all_formats; /* an argument: the killing, with the real formats */
static char *root;
static struct store_pool *pool;

static void setup(void)
{
	g_autofree char *any = NULL;
	char *volume;
	ERR_AUTO(e);

	root = g_dir_make_tmp("vhost-chain-XXXXXX", NULL);
	g_assert_nonnull(root);
	g_setenv("VHOST_ROOT", root, TRUE);
	any = g_build_filename(root, "any", NULL);
	if (store_file_pool(any, &pool, &volume, &e))
		g_error("%s", e.cause);
	g_free(volume);
}

static void teardown(void)
{
	char *argv[] = {(char *)"rm", (char *)"-rf", root, NULL};

	store_pool_close(pool);
	g_assert_true(g_spawn_sync(NULL, argv, NULL, G_SPAWN_SEARCH_PATH, NULL, NULL, NULL, NULL, NULL, NULL));
	g_clear_pointer(&root, g_free);
}

static int have_toy(void)
{
	const struct vh_format_ops *ops;

	if (!plug_format("toy-format", &ops, NULL))
		return 1;
	g_test_skip("the example format toy is not built");
	return 0;
}

static char *path_of(const char *name)
{
	return g_build_filename(root, name, NULL);
}

static void make(const char *name, const char *format, uint64_t bytes, const char *backing)
{
	struct store_create c = {.name = name, .format = format, .bytes = bytes, .backing = backing};
	ERR_AUTO(e);

	if (store_vol_create(pool, &c, NULL, &e))
		g_error("%s: %s", name, e.cause);
}

static struct store_image *open_image(const char *name, uint32_t mode)
{
	struct store_image_spec s = {.pool = pool, .volume = name, .mode = mode, .holder = "pid 1 test"};
	struct store_image *i;
	ERR_AUTO(e);

	if (store_image_open(&s, &i, &e))
		g_error("%s: %s", name, e.cause);
	return i;
}

static uint32_t rnd(uint64_t *s)
{
	*s = *s * UINT64_C(6364136223846793005) + 1442695040888963407;
	return (uint32_t)(*s >> 33);
}

/* Writes here and there: odd places, whole units, zeros. */
static void scribble(const char *name, uint64_t seed, unsigned n)
{
	struct store_image *i = open_image(name, VH_ATTACH_RW_EXCL);
	struct fmt_image *f = store_image_fmt(i);
	g_autofree char *buf = g_malloc(300000);
	struct fmt_info info;
	ERR_AUTO(e);

	fmt_get_info(f, &info);
	for (unsigned k = 0; k < n; k++) {
		uint64_t off = rnd(&seed) % info.bytes, len = 1 + rnd(&seed) % (rnd(&seed) % 2 ? 300000 : 5000);

		len = MIN(len, info.bytes - off);
		for (uint64_t b = 0; b < len; b += 4) {
			uint32_t v = rnd(&seed);

			memcpy(buf + b, &v, MIN(4, len - b));
		}
		if (rnd(&seed) % 4 ? fmt_pwrite(f, buf, len, off, &e) : fmt_pzero(f, len, off, &e))
			g_error("%s", e.cause);
	}
	g_assert_cmpint(fmt_flush(f, &e), ==, 0);
	store_image_close(i);
}

static GByteArray *contents(const char *name)
{
	struct store_image *i = open_image(name, VH_ATTACH_RO);
	GByteArray *a = g_byte_array_new();
	struct fmt_info info;
	ERR_AUTO(e);

	fmt_get_info(store_image_fmt(i), &info);
	g_byte_array_set_size(a, (guint)info.bytes);
	if (fmt_pread(store_image_fmt(i), a->data, info.bytes, 0, &e))
		g_error("%s", e.cause);
	store_image_close(i);
	return a;
}

/* bytes: those of `want`; what is longer must be zeros. */
static void same(const char *name, const GByteArray *want, const char *when)
{
	g_autoptr(GByteArray) got = contents(name);

	if (got->len < want->len)
		g_error("%s: %s has only %u bytes", when, name, got->len);
	for (guint k = 0; k < got->len; k++)
		if (got->data[k] != (k < want->len ? want->data[k] : 0))
			g_error("%s: %s: byte %u is %u", when, name, k, got->data[k]);
}

static uint64_t rebase(const char *name, const char *backing, int unsafe)
{
	struct store_rebase s = {.pool = pool, .volume = name, .backing = backing, .unsafe = unsafe};
	uint64_t copied;
	ERR_AUTO(e);

	if (store_rebase(&s, &copied, NULL, &e))
		g_error("%s", e.cause);
	return copied;
}

static void test_rebase(void)
{
	g_autoptr(GByteArray) want = NULL, other = NULL;

	if (!have_toy())
		return;
	setup();
	make("a", "raw", 6 * MB, NULL);
	make("b", "raw", 9 * MB, NULL);
	make("short", "raw", 3 * MB, NULL);
	make("deep", "toy-format", 0, "a");
	make("top", "toy-format", 8 * MB, "a");
	scribble("a", 1, 60);
	scribble("b", 2, 60);
	scribble("short", 3, 20);
	scribble("top", 4, 20);
	want = contents("top");
	g_assert_cmpuint(rebase("top", "a", 0), ==, 0); /* the same */
	same("top", want, "the same backing image");
	/* Another name for the same contents: nothing is copied. */
	g_assert_cmpuint(rebase("top", "deep", 0), ==, 0);
	same("top", want, "over an image over the old one");
	g_assert_cmpuint(rebase("top", "b", 0), >, 0);
	same("top", want, "over a larger one with other contents");
	rebase("top", "short", 0);
	same("top", want, "over a shorter one");
	rebase("top", NULL, 0);
	same("top", want, "over none");
	rebase("top", "a", 0); /* all is its own by now, but zeros are written out */
	same("top", want, "over one again");
	/* unsafe: the name changes, and with it what shows through. */
	make("thin", "toy-format", 6 * MB, "a");
	other = contents("b");
	g_assert_cmpuint(rebase("thin", "b", 1), ==, 0);
	g_byte_array_set_size(other, 6 * MB);
	same("thin", other, "unsafe");
	teardown();
}

static void test_rebase_refused(void)
{
	struct store_rebase s = {.backing = "top"};
	uint64_t copied;
	ERR_AUTO(e);

	if (!have_toy())
		return;
	setup();
	make("a", "raw", MB, NULL);
	make("mid", "toy-format", 0, "a");
	make("top", "toy-format", 0, "mid");
	s.pool = pool;
	s.volume = "mid"; /* below it is what it would be over */
	g_assert_cmpint(store_rebase(&s, &copied, NULL, &e), ==, -ELOOP);
	err_clear(&e);
	s.volume = "top"; /* itself */
	g_assert_cmpint(store_rebase(&s, &copied, NULL, &e), ==, -ELOOP);
	err_clear(&e);
	s.backing = "none";
	g_assert_cmpint(store_rebase(&s, &copied, NULL, &e), ==, -ENOENT);
	err_clear(&e);
	s.backing = "/etc/passwd";
	s.backing_format = "raw";
	g_assert_cmpint(store_rebase(&s, &copied, NULL, &e), ==, -EPERM);
	err_clear(&e);
	s.volume = "a"; /* raw has none */
	s.backing = "mid";
	s.backing_format = NULL;
	g_assert_cmpint(store_rebase(&s, &copied, NULL, &e), ==, -EOPNOTSUPP);
	teardown();
}

static int commit(const char *name, int keep, int *emptied)
{
	struct store_commit s = {.pool = pool, .volume = name, .keep = keep};
	uint64_t copied;
	ERR_AUTO(e);
	int ret = store_commit(&s, &copied, emptied, NULL, &e);

	if (ret)
		g_test_message("%s", e.cause);
	return ret;
}

static int nothing_own(void *ctx, uint64_t off, uint64_t len, uint32_t type, uint32_t depth, uint64_t addr)
{
	g_assert_cmpuint(type, ==, VH_EXT_BACKING);
	return 0;
}

static void test_commit(void)
{
	static const struct { const char *format; uint64_t base, top; int keep; } v[] = {
		{"raw", 6 * MB, 6 * MB, 0}, {"raw", 3 * MB, 8 * MB, 0}, {"toy-format", 6 * MB, 6 * MB, 1}, {"toy-format", 7 * MB, 4 * MB, 0},
		{"raw", 3 * MB + 512, 5 * MB + 1024, 0}};
	int emptied;

	if (!have_toy())
		return;
	for (unsigned k = 0; k < G_N_ELEMENTS(v); k++) {
		g_autoptr(GByteArray) want = NULL, all = NULL;
		struct store_image *i;
		struct fmt_info info;
		ERR_AUTO(e);

		setup();
		make("base", v[k].format, v[k].base, NULL);
		scribble("base", 10 + k, 30);
		make("top", "toy-format", v[k].top, "base");
		scribble("top", 20 + k, 30);
		want = contents("top");
		all = contents("base");
		if (all->len < want->len)
			g_byte_array_set_size(all, want->len);
		memcpy(all->data, want->data, want->len);
		g_assert_cmpint(commit("top", v[k].keep, &emptied), ==, 0);
		g_assert_cmpint(emptied, ==, !v[k].keep);
		same("top", want, "after commit");
		same("base", all, "after commit");
		if (emptied) {
			i = open_image("top", VH_ATTACH_RO);
			fmt_get_info(store_image_fmt(i), &info);
			g_assert_cmpint(fmt_report_layer(store_image_fmt(i), 0, 0, info.bytes, nothing_own, NULL, &e), ==, 0);
			store_image_close(i);
		}
		g_assert_cmpint(commit("top", 0, &emptied), ==, 0); /* again */
		same("top", want, "after another commit");
		same("base", all, "after another commit");
		g_assert_cmpint(commit("base", 0, &emptied), <, 0); /* over nothing */
		teardown();
	}
}

/* Runs in a child, which is killed after `us`; 1 when it had ended by itself. */
static int killed_after(unsigned us, void (*fn)(void))
{
	pid_t p = fork();
	int status;

	g_assert_cmpint(p, >=, 0);
	if (!p) {
		fn();
		_exit(0);
	}
	g_usleep(us);
	kill(p, SIGKILL);
	g_assert_cmpint(waitpid(p, &status, 0), ==, p);
	if (!WIFSIGNALED(status))
		g_assert_cmpint(status, ==, 0);
	return !WIFSIGNALED(status);
}

static void child_rebase(void)
{
	rebase("top", "b", 0);
}

static void child_commit(void)
{
	int emptied;

	g_assert_cmpint(commit("top", 0, &emptied), ==, 0);
}

/* Formats that compare identifiers refuse the image until the commit is run again, and the error says so. */
static int cut_short(const char *name)
{
	struct store_image_spec s = {.pool = pool, .volume = name, .mode = VH_ATTACH_RO, .holder = "pid 1 test"};
	struct store_image *i;
	ERR_AUTO(e);

	if (!store_image_open(&s, &i, &e)) {
		store_image_close(i);
		return 0;
	}
	if (!e.remedy || !strstr(e.remedy, "cut short"))
		g_error("%s (%s)", e.cause, e.remedy);
	return 1;
}

/* Kills at later and later moments until it ends by itself: content is the same at each of them. */
static void killed_as(const char *format, void (*fn)(void), int is_commit)
{
	g_autoptr(GByteArray) want = NULL, grown = NULL;
	const struct vh_format_ops *ops;
	unsigned kills = 0, us = 1000;

	if (plug_format(format, &ops, NULL)) {
		g_test_message("the format %s is not built", format);
		return;
	}
	setup();
	make("a", format, 5 * MB, NULL);
	make("b", format, 9 * MB, NULL);
	scribble("a", 31, 40);
	scribble("b", 32, 40);
	make("top", format, 8 * MB, "a");
	scribble("top", 33, 40);
	want = contents("top");
	while (!killed_after(us, fn)) {
		if (!is_commit || !cut_short("top"))
			same("top", want, "killed");
		if (is_commit) { /* the lower one shows the new contents, or the old */
			g_autoptr(GByteArray) base = contents("a");

			g_assert_cmpuint(base->len, <=, 8 * MB);
		}
		us += us / 4;
		g_assert_cmpuint(++kills, <, 400);
	}
	g_test_message("%s: killed %u times", format, kills);
	g_assert_cmpuint(kills, >, 0);
	same("top", want, "at last");
	if (is_commit)
		same("a", want, "at last");
	teardown();
}

static void killed(void (*fn)(void), int is_commit)
{
	static const char *const formats[] = {"qcow2", "vmdk", "vdi", NULL}, *const toy[] = {"toy-format", NULL};

	for (const char *const *f = all_formats ? formats : toy; *f; f++)
		killed_as(*f, fn, is_commit);
}

static void test_rebase_killed(void)
{
	killed(child_rebase, 0);
}

static void test_commit_killed(void)
{
	killed(child_commit, 1);
}

/* ---- references ---- */

static int try_open(const char *name, const char *allow, char **text)
{
	const char *const list[] = {allow, NULL};
	struct store_image_spec s = {.pool = pool, .volume = name, .mode = VH_ATTACH_RO, .holder = "pid 1 test",
				     .allow = allow ? list : NULL};
	struct store_image *i;
	ERR_AUTO(e);
	int ret = store_image_open(&s, &i, &e);

	if (!ret)
		store_image_close(i);
	if (text)
		*text = g_strdup(e.cause);
	return ret;
}

static void test_folders(void)
{
	g_autofree char *sub = NULL, *deep = NULL, *out = NULL, *inner = NULL, *link_in = NULL, *link_out = NULL, *plain = NULL,
			*link_file = NULL, *twin = NULL, *text = NULL, *folder = NULL;
	struct store_create c = {.format = "toy-format", .bytes = MB};
	char *volume;
	struct store_pool *outer = pool, *in;
	ERR_AUTO(e);

	if (!have_toy())
		return;
	setup();
	folder = path_of("pool");
	sub = path_of("pool/sub");
	deep = path_of("pool/sub/deep");
	out = path_of("outside");
	g_assert_cmpint(mkdir(folder, 0700) | mkdir(sub, 0700) | mkdir(deep, 0700) | mkdir(out, 0700), ==, 0);
	outer = pool;
	inner = path_of("pool/x");
	g_assert_cmpint(store_file_pool(inner, &pool, &volume, &e), ==, 0);
	g_free(volume);
	/* pool/top -> sub/mid -> deep/base: each name is relative to the image that has it. */
	plain = path_of("pool/sub/deep/base");
	g_assert_cmpint(store_file_pool(plain, &in, &volume, &e), ==, 0);
	c.name = "base";
	g_assert_cmpint(store_vol_create(in, &c, NULL, &e), ==, 0);
	g_free(volume);
	store_pool_close(in);
	twin = path_of("pool/sub/mid");
	g_assert_cmpint(store_file_pool(twin, &in, &volume, &e), ==, 0);
	c.name = "mid";
	c.backing = "deep/base";
	if (store_vol_create(in, &c, NULL, &e))
		g_error("%s", e.cause);
	g_free(volume);
	store_pool_close(in);
	make("top", "toy-format", 0, "sub/mid");
	g_assert_cmpint(try_open("top", NULL, NULL), ==, 0);
	{
		struct store_image *i = open_image("top", VH_ATTACH_RO);

		g_assert_cmpuint(fmt_layers(store_image_fmt(i)), ==, 3);
		store_image_close(i);
	}
	/* Up again, as long as it stays below the pool's folder. */
	make("flat", "raw", MB, NULL);
	g_assert_cmpint(store_file_pool(twin, &in, &volume, &e), ==, 0);
	g_free(volume);
	c.name = "up";
	c.backing = "../flat";
	g_assert_cmpint(store_vol_create(in, &c, NULL, &e), ==, -EPERM); /* for itself its own folder is all */
	err_clear(&e);
	const char *const wide[] = {folder, NULL};
	c.allow = wide;
	if (store_vol_create(in, &c, NULL, &e))
		g_error("%s", e.cause);
	c.allow = NULL;
	store_pool_close(in);
	make("overup", "toy-format", 0, "sub/up");
	g_assert_cmpint(try_open("overup", NULL, NULL), ==, 0);
	/* Links: inside they are followed, out of it never. */
	link_in = path_of("pool/in");
	link_out = path_of("pool/out");
	link_file = path_of("pool/file");
	g_assert_cmpint(symlink("sub/deep", link_in), ==, 0);
	g_assert_cmpint(symlink(out, link_out), ==, 0);
	make("over-link", "toy-format", 0, "in/base");
	g_assert_cmpint(try_open("over-link", NULL, NULL), ==, 0);
	g_autofree char *far = path_of("outside/far");
	g_assert_cmpint(store_file_pool(far, &in, &volume, &e), ==, 0);
	g_free(volume);
	c.name = "far";
	c.backing = NULL;
	g_assert_cmpint(store_vol_create(in, &c, NULL, &e), ==, 0);
	store_pool_close(in);
	g_assert_cmpint(symlink(far, link_file), ==, 0);
	static const char *const refused[] = {"out/far", "file", "../outside/far", "sub/../../outside/far", NULL};
	for (unsigned k = 0; refused[k]; k++) {
		struct store_create over = {.name = "bad", .format = "toy-format", .backing = refused[k], .backing_blind = 1,
					    .backing_format = "toy-format", .bytes = MB};
		g_autofree char *real = realpath(out, NULL);

		err_clear(&e);
		if (store_vol_create(pool, &over, NULL, &e))
			g_error("%s", e.cause);
		g_assert_cmpint(try_open("bad", NULL, &text), ==, -EPERM);
		g_assert_nonnull(strstr(text, refused[k]));
		g_clear_pointer(&text, g_free);
		g_assert_cmpint(try_open("bad", real, NULL), ==, 0); /* where a person permits the folder */
		g_assert_cmpint(store_vol_delete(pool, "bad", NULL, &e), ==, 0);
	}
	/* Protocols are refused by their names. */
	static const char *const protocols[] = {"nbd:localhost:1", "json:{\"driver\":\"file\"}", "file:flat", "fat:rw:/", NULL};
	for (unsigned k = 0; protocols[k]; k++) {
		struct store_create over = {.name = "bad", .format = "toy-format", .backing = protocols[k], .backing_blind = 1,
					    .backing_format = "raw", .bytes = MB};

		g_assert_cmpint(store_vol_create(pool, &over, NULL, &e), ==, 0);
		g_assert_cmpint(try_open("bad", "/", &text), ==, -EPERM);
		g_assert_nonnull(strstr(text, "protocol"));
		g_clear_pointer(&text, g_free);
		g_assert_cmpint(store_vol_delete(pool, "bad", NULL, &e), ==, 0);
	}
	store_pool_close(pool);
	pool = outer;
	teardown();
}

/* ---- leases of a chain; the other side is qemu ---- */

static int shell(const char *fmt, const char *name)
{
	g_autofree char *path = path_of(name), *cmd = g_strdup_printf(fmt, path), *full = g_strconcat(cmd, " >/dev/null 2>&1", NULL);
	int status = system(full);

	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int try_attach(const char *name, uint32_t mode)
{
	struct store_attach a = {.name = name, .holder = "pid 1 test", .mode = mode, .flags = VH_ATTACH_BUFFERED};
	struct blk_vol *v;
	ERR_AUTO(e);
	int ret = store_attach(pool, &a, &v, &e);

	if (!ret)
		blk_vol_put(v);
	return ret;
}

static void test_leases(void)
{
	g_autofree char *qemu = g_find_program_in_path("qemu-img"), *io = g_find_program_in_path("qemu-io"), *over = NULL;
	struct store_image *i;

	if (!have_toy())
		return;
	if (!qemu || !io) {
		g_test_skip("qemu-img and qemu-io are not installed");
		return;
	}
	setup();
	make("base", "raw", 4 * MB, NULL);
	make("mid", "toy-format", 0, "base");
	make("top", "toy-format", 0, "mid");
	/* We write the top: nobody may write anything of the chain, all may read what is below. */
	i = open_image("top", VH_ATTACH_RW_EXCL);
	g_assert_cmpint(try_attach("mid", VH_ATTACH_RW_EXCL), ==, -EBUSY);
	g_assert_cmpint(try_attach("base", VH_ATTACH_RW_EXCL), ==, -EBUSY);
	g_assert_cmpint(try_attach("base", VH_ATTACH_RO), ==, 0);
	g_assert_cmpint(try_attach("top", VH_ATTACH_RO), ==, -EBUSY);
	g_assert_cmpint(shell("qemu-img resize -f raw %s 5M", "base"), !=, 0);
	g_assert_cmpint(shell("qemu-io -f raw -c 'write 0 512' %s", "base"), !=, 0);
	g_assert_cmpint(shell("qemu-io -r -f raw -c 'read 0 512' %s", "base"), ==, 0);
	store_image_close(i);
	g_assert_cmpint(shell("qemu-io -f raw -c 'write 0 512' %s", "base"), ==, 0);
	/* QEMU writes an image over ours. */
	g_assert_cmpint(shell("qemu-img create -q -f qcow2 -b base -F raw %s", "over"), ==, 0);
	over = path_of("over");
	g_autofree char *vm = g_find_program_in_path("qemu-system-x86_64");
	g_autofree char *drive = g_strdup_printf("file=%s,format=qcow2,if=none,id=d", over), *pidfile = path_of("qemu.pid");
	const char *const argv[] = {vm, "-M", "q35,accel=tcg", "-m", "16", "-nodefaults", "-S", "-display", "none", "-daemonize",
				    "-pidfile", pidfile, "-drive", drive, "-device", "virtio-blk-pci,drive=d", NULL};
	g_autofree char *pid = NULL;
	int status = -1;

	if (!vm) {
		g_test_message("qemu-system-x86_64 is not installed: only one direction was tried");
		teardown();
		return;
	}
	g_assert_true(g_spawn_sync(NULL, (char **)(uintptr_t)argv, NULL, 0, NULL, NULL, NULL, NULL, &status, NULL));
	g_assert_cmpint(status, ==, 0);
	g_assert_true(g_file_get_contents(pidfile, &pid, NULL, NULL));
	g_assert_cmpint(try_attach("base", VH_ATTACH_RW_EXCL), ==, -EBUSY);
	g_assert_cmpint(try_attach("base", VH_ATTACH_RO), ==, 0);
	g_assert_cmpint(try_attach("over", VH_ATTACH_RO), ==, -EBUSY);
	i = open_image("mid", VH_ATTACH_RW_EXCL); /* beside it, over the same base */
	store_image_close(i);
	{
		struct store_commit s = {.pool = pool, .volume = "mid"};
		uint64_t copied;
		int emptied;
		ERR_AUTO(e);

		g_assert_cmpint(store_commit(&s, &copied, &emptied, NULL, &e), ==, -EBUSY);
	}
	kill(atoi(pid), SIGKILL);
	for (int k = 0; !kill(atoi(pid), 0) && k < 500; k++)
		g_usleep(10000);
	g_assert_cmpint(try_attach("base", VH_ATTACH_RW_EXCL), ==, 0);
	teardown();
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_setenv("VHOST_PLUGIN_PATH", PLUGINS, FALSE);
	all_formats = argc > 1 && !strcmp(argv[1], "formats");
	g_test_add_func("/chain/rebase-killed", test_rebase_killed);
	g_test_add_func("/chain/commit-killed", test_commit_killed);
	if (all_formats)
		return g_test_run();
	g_test_add_func("/chain/rebase", test_rebase);
	g_test_add_func("/chain/rebase-refused", test_rebase_refused);
	g_test_add_func("/chain/commit", test_commit);
	g_test_add_func("/chain/folders", test_folders);
	g_test_add_func("/chain/leases", test_leases);
	return g_test_run();
}
