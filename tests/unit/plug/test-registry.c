/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Finding plugins by id: search order, names that are not file names, what is said when nothing is found, threads. */
#include "stage.h"

static void test_path_order(void)
{
	g_autofree char *a = stage_folder(), *b = stage_folder(), *sub = g_build_filename(b, "storage", NULL);
	g_autofree char *f1 = NULL, *f2 = NULL, *path = g_strdup_printf("%s::%s", a, b);
	const struct vh_pool_ops *ops;
	struct plug *p;
	ERR_AUTO(e);

	g_mkdir(sub, 0755);
	g_setenv("VHOST_PLUGIN_PATH", path, 1);
	/* Found in a subfolder of the second entry. */
	f1 = stage_as(sub, "good", "variant");
	g_assert_cmpint(plug_pool("variant", &ops, &e), ==, 0);
	g_assert_cmpstr(ops->scheme, ==, "variant");
	g_assert_cmpint(plug_load("variant", &p, &e), ==, 0);
	g_assert_true(g_str_has_suffix(plug_path(p), "/storage/variant.so"));
	g_assert_cmpstr(plug_desc(p)->id, ==, "variant");
	/* What is loaded stays, even if an earlier folder has one now. */
	f2 = stage_as(a, "good", "variant");
	g_assert_cmpint(plug_load("variant", &p, &e), ==, 0);
	g_assert_true(g_str_has_suffix(plug_path(p), "/storage/variant.so"));
}

static void test_not_found(void)
{
	g_autofree char *a = stage_folder(), *f = stage_as(a, "good", "misnamed");
	const struct vh_net_ops *net;
	const struct vh_pool_ops *pool;
	ERR_AUTO(e);

	g_setenv("VHOST_PLUGIN_PATH", a, 1);
	g_assert_cmpint(plug_pool("nothing", &pool, &e), ==, -ENOENT);
	g_assert_cmpint(err_exit_status(&e), ==, EXIT_MISSING);
	g_assert_nonnull(strstr(e.cause, a));
	g_assert_nonnull(strstr(e.cause, VHOST_PLUGIN_DIR "/storage"));
	g_assert_nonnull(strstr(e.remedy, "--plugin"));
	err_clear(&e);
	/* Its name leads to another plugin. */
	g_assert_cmpint(plug_pool("misnamed", &pool, &e), ==, -ENOENT);
	g_assert_nonnull(strstr(e.cause, "misnamed.so is the plugin 'variant'"));
	err_clear(&e);
	/* Right id, wrong kind. */
	g_assert_cmpint(plug_net("variant", &net, &e), ==, -ENOENT);
	g_assert_nonnull(strstr(e.cause, "is a pool plugin"));
	err_clear(&e);
	g_assert_cmpint(plug_pool("../etc/passwd", &pool, &e), ==, -EINVAL);
	g_assert_cmpint(err_exit_status(&e), ==, EXIT_USAGE);
}

static void test_relative_refused(void)
{
	const struct vh_pool_ops *pool;
	ERR_AUTO(e);

	g_setenv("VHOST_PLUGIN_PATH", "/usr/lib:plugins", 1);
	g_assert_cmpint(plug_pool("whatever", &pool, &e), ==, -EINVAL);
	g_assert_nonnull(strstr(e.cause, "'plugins' is not an absolute path"));
	g_assert_cmpint(err_exit_status(&e), ==, EXIT_USAGE);
	g_unsetenv("VHOST_PLUGIN_PATH");
}

/* A plugin whose file has another name than itself is found by its note. */
static void test_scanned(void)
{
	g_autofree char *a = stage_folder(), *f = stage_as(a, "count", "libvendor-1.2");
	g_autofree char *bad = stage_as(a, "no_note", "aaa");
	struct plug *p;
	ERR_AUTO(e);

	g_setenv("VHOST_PLUGIN_PATH", a, 1);
	/* "variant" is loaded already from elsewhere in this process: the scan is seen through a fork. */
	if (g_test_subprocess()) {
		if (plug_load("variant", &p, &e) < 0)
			g_error("%s", e.cause);
		g_assert_true(g_str_has_suffix(plug_path(p), "/libvendor-1.2.so"));
		stage_done();
		return;
	}
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_passed();
}

static void test_direct_refused(void)
{
	g_autofree char *a = stage_folder(), *f = stage_as(a, "wrong_major", "future");
	struct plug *p;
	ERR_AUTO(e);

	g_setenv("VHOST_PLUGIN_PATH", a, 1);
	g_assert_cmpint(plug_load("future", &p, &e), <, 0);
	g_assert_cmpint(err_exit_status(&e), ==, EXIT_REFUSED);
	g_assert_nonnull(strstr(e.cause, "needs vhost ABI 2, this is 1"));
}

static void test_add_file(void)
{
	if (g_test_subprocess()) {
		g_autofree char *a = stage("fini"), *b = stage("good");
		const struct vh_pool_ops *ops;
		struct plug *p;
		ERR_AUTO(e);

		g_unsetenv("VHOST_PLUGIN_PATH");
		g_assert_cmpint(plug_add_file("/nowhere/x.so", &e), ==, -ENOENT);
		g_assert_cmpint(err_exit_status(&e), ==, EXIT_MISSING);
		err_clear(&e);
		g_assert_cmpint(plug_add_file(a, &e), ==, 0);
		g_assert_cmpint(plug_add_file(a, &e), ==, 0); /* the same again */
		g_assert_cmpint(plug_add_file(b, &e), ==, -EEXIST);
		g_assert_nonnull(strstr(e.cause, "is taken already from"));
		err_clear(&e);
		g_assert_null(g_getenv("VARIANT_FINI"));
		g_assert_cmpint(plug_pool("variant", &ops, &e), ==, 0);
		g_assert_cmpint(plug_load("variant", &p, &e), ==, 0);
		g_assert_cmpstr(plug_path(p), ==, a);
		plug_fini();
		g_assert_cmpstr(g_getenv("VARIANT_FINI"), ==, "done");
		g_unsetenv("VARIANT_FINI");
		plug_fini(); /* once */
		g_assert_null(g_getenv("VARIANT_FINI"));
		stage_done();
		return;
	}
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_passed();
}

static gpointer load_thread(gpointer arg)
{
	const struct vh_pool_ops *ops = NULL;
	ERR_AUTO(e);

	if (plug_pool("variant", &ops, &e) < 0)
		g_error("%s", e.cause);
	return (gpointer)ops;
}

/* Eight threads want the same plugin: one entry call, one table. */
static void test_threads(void)
{
	if (g_test_subprocess()) {
		g_autofree char *a = stage_folder(), *f = stage_as(a, "count", "variant");
		GThread *t[8];
		gpointer table = NULL;

		g_setenv("VHOST_PLUGIN_PATH", a, 1);
		for (unsigned i = 0; i < 8; i++)
			t[i] = g_thread_new("load", load_thread, NULL);
		for (unsigned i = 0; i < 8; i++) {
			gpointer got = g_thread_join(t[i]);

			g_assert_nonnull(got);
			g_assert_true(!table || table == got);
			table = got;
		}
		g_assert_cmpstr(g_getenv("VARIANT_ENTRIES"), ==, "1");
		stage_done();
		return;
	}
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_passed();
}

/* A failed entry is not called a second time; the reason stays. */
static void test_failure_stays(void)
{
	if (g_test_subprocess()) {
		g_autofree char *f = stage("fail_text");
		const struct vh_pool_ops *ops;
		g_autofree char *first = NULL;
		ERR_AUTO(e);

		g_assert_cmpint(plug_add_file(f, &e), ==, 0);
		g_assert_cmpint(plug_pool("variant", &ops, &e), ==, -EKEYEXPIRED);
		first = g_strdup(e.cause);
		err_clear(&e);
		g_assert_cmpint(plug_pool("variant", &ops, &e), ==, -EKEYEXPIRED);
		g_assert_cmpstr(e.cause, ==, first);
		g_assert_cmpstr(e.remedy, ==, "buy a license");
		g_assert_cmpint(err_exit_status(&e), ==, EXIT_REFUSED);
		stage_done();
		return;
	}
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_passed();
}

struct count { unsigned good, bad; };
static int count_fn(void *ctx, const struct plug_note *n, const struct vh_err *why_not)
{
	struct count *c = ctx;

	g_assert_nonnull(n->path);
	if (why_not) {
		g_assert_nonnull(why_not->cause);
		c->bad++;
	} else {
		g_assert_cmpstr(n->id, ==, "variant");
		c->good++;
	}
	return 0;
}

static void test_scan(void)
{
	g_autofree char *a = stage_folder(), *f1 = stage_as(a, "good", "one"), *f2 = stage_as(a, "no_note", "two");
	g_autofree char *f3 = stage_as(a, "wrong_major", "three"), *twice = g_strdup_printf("%s:%s", a, a);
	g_autofree char *txt = g_build_filename(a, "README.txt", NULL);
	struct count c = {0};

	g_assert_true(g_file_set_contents(txt, "hello", -1, NULL));
	g_setenv("VHOST_PLUGIN_PATH", twice, 1);
	if (g_test_subprocess()) {
		g_assert_cmpint(plug_scan(count_fn, &c), ==, 0);
		g_assert_cmpuint(c.good, ==, 1);
		g_assert_cmpuint(c.bad, ==, 2);
		stage_done();
		return;
	}
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_passed();
}

static int v_info(void *vol, struct vh_volume_info *i) { return 0; }
static void v_close(void *vol) {}

static void test_volume_ops(void)
{
	static const struct vh_volume_ops full = {.size = sizeof(full), .req_ctx = 64, .info = v_info, .close = v_close};
	static const struct vh_volume_ops shorter = {.size = offsetof(struct vh_volume_ops, close), .info = v_info,
						     .close = v_close};
	const struct vh_volume_ops *a = plug_volume_ops(&full);

	g_assert_nonnull(a);
	g_assert_true(a != &full && a == plug_volume_ops(&full));
	g_assert_cmpuint(a->req_ctx, ==, 64);
	g_assert_null(a->submit);
	g_assert_null(plug_volume_ops(&shorter));
	g_assert_null(plug_volume_ops(NULL));
}

int main(int argc, char **argv)
{
	int r;

	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/plug/registry/path-order", test_path_order);
	g_test_add_func("/plug/registry/not-found", test_not_found);
	g_test_add_func("/plug/registry/relative-refused", test_relative_refused);
	g_test_add_func("/plug/registry/found-by-note", test_scanned);
	g_test_add_func("/plug/registry/direct-refused", test_direct_refused);
	g_test_add_func("/plug/registry/plugin-file", test_add_file);
	g_test_add_func("/plug/registry/threads", test_threads);
	g_test_add_func("/plug/registry/failure-stays", test_failure_stays);
	g_test_add_func("/plug/registry/scan", test_scan);
	g_test_add_func("/plug/registry/volume-ops", test_volume_ops);
	r = g_test_run();
	stage_done();
	return r;
}
