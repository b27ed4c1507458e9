/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The load sequence, against real shared objects: what is refused, with which words and which exit status. */
#include "stage.h"

static struct plug_image last;
static struct plug_ident last_note;

/* Opens and loads one staged file; returns the result, the error in *e. */
static int load_path(const char *path, struct vh_err *e)
{
	struct plug_file f;
	int r = plug_file_open(path, &f, e);

	if (r < 0)
		return r;
	last_note = f.note;
	r = plug_image_load(&f, &plug_host, &last, e);
	plug_file_close(&f);
	return r;
}

static void free_tables(void)
{
	for (unsigned i = 0; i < PLUG_TABLES; i++)
		g_clear_pointer(&last.table[i], g_free);
}

static void assert_refused(struct vh_err *e, int r, int status, const char *text)
{
	g_assert_cmpint(r, <, 0);
	g_assert_nonnull(e->cause);
	g_assert_nonnull(e->object);
	if (!strstr(e->cause, text))
		g_error("'%s' is not in '%s'", text, e->cause);
	g_assert_cmpint(err_exit_status(e), ==, status);
	g_assert_true(g_str_has_prefix(e->object, "plugin /"));
}

static void refused(const char *variant, const char *text)
{
	g_autofree char *p = stage(variant);
	ERR_AUTO(e);
	int r = load_path(p, &e);

	assert_refused(&e, r, EXIT_REFUSED, text);
	free_tables();
}

static void accepted(const char *variant)
{
	g_autofree char *p = stage(variant);
	ERR_AUTO(e);
	int r = load_path(p, &e);

	if (r < 0)
		g_error("%s: %s", variant, e.cause);
	g_assert_nonnull(last.table[0]);
}

static void test_good(void)
{
	const struct vh_pool_ops *ops;

	accepted("good");
	ops = last.table[0];
	g_assert_cmpuint(ops->size, ==, sizeof(*ops));
	g_assert_cmpstr(ops->scheme, ==, "variant");
	g_assert_nonnull(ops->attach);
	g_assert_null(ops->create);
	g_assert_cmpstr(last.desc.version, ==, "1.2");
	g_assert_cmpstr(last_note.id, ==, "variant");
	g_assert_cmpuint(last_note.kinds, ==, VH_KIND_POOL);
	g_assert_null(last.table[1]);
	free_tables();
}

static void test_skew(void)
{
	const struct vh_pool_ops *ops;

	accepted("old_table");
	ops = last.table[0];
	g_assert_cmpuint(ops->size, ==, offsetof(struct vh_pool_ops, reattach));
	g_assert_nonnull(ops->attach);
	g_assert_null(ops->reattach);
	g_assert_null(ops->meta_get);
	g_assert_null(ops->path);
	free_tables();

	accepted("cut_member");
	ops = last.table[0];
	g_assert_null(ops->reattach);
	free_tables();

	accepted("long_table");
	ops = last.table[0];
	g_assert_cmpuint(ops->size, ==, sizeof(*ops));
	g_assert_null(ops->path);
	free_tables();

	accepted("unknown_interface");
	free_tables();
	accepted("ignorable_flag");
	free_tables();
	accepted("two_majors");
	free_tables();
}

static void test_identity(void)
{
	g_autofree char *draft = g_strdup_printf("needs draft %u of vhost ABI 1, this is draft %u", VH_ABI_DRAFT + 1, VH_ABI_DRAFT);

	refused("no_note", "not a vhost plugin: it has no identity note");
	refused("wrong_major", "plugin variant needs vhost ABI 2, this is 1");
	g_assert_null(g_getenv("VARIANT_CTOR_RAN")); /* nothing of it ran */
	refused("wrong_draft", draft);
	refused("released", "was built for the release of vhost ABI 1, this is a draft");
	refused("bad_id", "no valid id");
	refused("two_notes", "two identity notes");
	refused("id_mismatch", "note says that it is 'other', its descriptor 'variant'");
	refused("kind_mismatch", "its note has the interface vh.net/1, its descriptor does not list it");
	refused("no_interfaces", "its note has the interface vh.pool/1");
}

static void test_entry(void)
{
	refused("no_entry", "no entry vh_plugin_entry_v1");
	refused("dep_entry", "is not its own but belongs to the library");
	g_assert_null(g_getenv("PLUGDEP_ENTRY_RAN"));
	refused("positive", "its entry returned 7");
	refused("no_desc", "succeeded without a descriptor");
	refused("fail", "its entry failed: No medium found");
	refused("fail_service", "its entry failed: Operation not supported");
}

static void test_entry_text(void)
{
	g_autofree char *p = stage("fail_text");
	ERR_AUTO(e);
	int r = load_path(p, &e);

	assert_refused(&e, r, EXIT_REFUSED, "its entry failed: the license of variant has run out");
	g_assert_cmpint(r, ==, -EKEYEXPIRED);
	g_assert_cmpint(e.code, ==, -EKEYEXPIRED);
	g_assert_cmpstr(e.remedy, ==, "buy a license");
}

static void test_tables(void)
{
	refused("short_table", "table is too short for the mandatory member attach");
	refused("null_member", "table lacks the mandatory member stat");
	refused("silly_size", "impossible size 2");
	refused("get_null", "lists the interface vh.pool/1 but has no table of it");
	refused("twice", "lists the interface vh.pool/1 twice");
	refused("endless", "list of interfaces does not end");
	refused("short_desc", "too short for the mandatory member get");
	refused("no_get", "lacks the mandatory member get");
	refused("unknown_flag", "flags that this vhost must understand and does not: 0x80000000");
}

static void test_gmodule(void)
{
	refused("gmodule", "defines g_module_check_init");
	refused("gmodule_unload", "defines g_module_unload");
	g_assert_null(g_getenv("VARIANT_CTOR_RAN")); /* its own symbols are seen before anything runs */
	refused("dep_gmodule", "defines g_module_check_init");
	g_assert_null(g_getenv("VARIANT_GMODULE_RAN"));
	g_assert_null(g_getenv("PLUGDEP_GMODULE_RAN"));
}

static void test_hang(void)
{
	gint64 t = g_get_monotonic_time();

	plug_load_timeout_ms = 200;
	refused("hang", "hung for 0.2 s in its entry");
	refused("ctor_hang", "hung for 0.2 s while it was being mapped");
	plug_load_timeout_ms = 5000;
	g_assert_cmpint(g_get_monotonic_time() - t, <, 4000000);
}

static void test_writable(void)
{
	g_autofree char *file = stage("good"), *folder = stage("good"), *sticky = stage("good");
	g_autofree char *dir = g_path_get_dirname(folder), *sdir = g_path_get_dirname(sticky);
	ERR_AUTO(e);
	int r;

	g_chmod(file, 0757);
	r = load_path(file, &e);
	assert_refused(&e, r, EXIT_REFUSED, "the file can be written by everybody");
	g_assert_nonnull(strstr(e.remedy, "chmod go-w"));
	err_clear(&e);
	g_chmod(file, 0775);
	r = load_path(file, &e);
	assert_refused(&e, r, EXIT_REFUSED, "the file can be written by its group");
	err_clear(&e);
	g_chmod(file, 0755);
	g_assert_cmpint(load_path(file, &e), ==, 0);
	free_tables();

	g_chmod(dir, 0777);
	r = load_path(folder, &e);
	assert_refused(&e, r, EXIT_REFUSED, "its folder can be written by everybody");
	err_clear(&e);
	g_chmod(dir, 0755);

	g_chmod(sdir, 01777);
	r = load_path(sticky, &e);
	assert_refused(&e, r, EXIT_REFUSED, "its folder can be written by everybody");
	g_chmod(sdir, 0755);
}

static void test_foreign(void)
{
	g_autofree char *file = stage("good"), *folder = stage("good");
	g_autofree char *dir = g_path_get_dirname(folder);
	ERR_AUTO(e);
	int r;

	if (geteuid() || chown(file, 12345, 12345) < 0) {
		g_test_skip("only root can give files away");
		return;
	}
	r = load_path(file, &e);
	assert_refused(&e, r, EXIT_REFUSED, "the file belongs to user 12345, who is neither root nor you");
	err_clear(&e);
	g_assert_cmpint(chown(dir, 12345, 12345), ==, 0);
	r = load_path(folder, &e);
	assert_refused(&e, r, EXIT_REFUSED, "its folder belongs to user 12345");
	g_assert_cmpint(chown(dir, 0, 0), ==, 0);
}

static void test_symlink(void)
{
	g_autofree char *p = stage("good"), *dir = stage_folder(), *lnk = g_build_filename(dir, "link.so", NULL);
	g_autofree char *tdir = g_path_get_dirname(p);
	ERR_AUTO(e);
	int r;

	g_assert_cmpint(symlink(p, lnk), ==, 0);
	g_assert_cmpint(load_path(lnk, &e), ==, 0);
	free_tables();
	/* What counts is where the file is, not where the link is. */
	g_chmod(tdir, 0777);
	r = load_path(lnk, &e);
	assert_refused(&e, r, EXIT_REFUSED, "its folder can be written");
	g_chmod(tdir, 0755);
}

/* Another file at the same path between the checks and the load: its entry is not called. */
static void test_exchanged(void)
{
	g_autofree char *p = stage("good"), *dir = g_path_get_dirname(p), *other = stage_as(dir, "count", "other");
	struct plug_image image;
	struct plug_file f;
	ERR_AUTO(e);
	int r;

	g_unsetenv("VARIANT_ENTRIES");
	g_assert_cmpint(plug_file_open(p, &f, &e), ==, 0);
	g_assert_cmpint(g_rename(other, p), ==, 0);
	r = plug_image_load(&f, &plug_host, &image, &e);
	assert_refused(&e, r, EXIT_REFUSED, "it was exchanged or changed while it was being loaded");
	g_assert_null(g_getenv("VARIANT_ENTRIES"));
	plug_file_close(&f);
}

static void put(const char *path, const void *data, size_t len)
{
	g_assert_true(g_file_set_contents(path, data, (gssize)len, NULL));
	g_chmod(path, 0755);
}

static void test_damaged(void)
{
	g_autofree char *p = stage("good"), *dir = g_path_get_dirname(p);
	g_autofree char *bad = g_build_filename(dir, "bad.so", NULL), *data = NULL;
	gsize len;

	g_assert_true(g_file_get_contents(p, &data, &len, NULL));
	for (gsize n = 0; n < len; n += n < 1024 ? 64 : 1777) {
		ERR_AUTO(e);
		int r;

		put(bad, data, n);
		r = load_path(bad, &e);
		/* Cut anywhere: refused, and never a crash. A cut in the section headers alone hurts nobody. */
		if (r < 0)
			g_assert_nonnull(e.cause);
		else
			free_tables();
		if (n < 4096)
			assert_refused(&e, r, EXIT_REFUSED, "");
		g_unlink(bad);
	}
	for (unsigned i = 0; i < 4; i++) {
		static const struct { const char *text; gsize at; char byte; } bend[] = {
			{"not an ELF file", 0, 'x'}, {"another machine", 4, 1}, {"not a shared object", 16, 2},
			{"program headers", 54, 1}};
		g_autofree char *copy = g_memdup2(data, len);
		ERR_AUTO(e);
		int r;

		copy[bend[i].at] = bend[i].byte;
		put(bad, copy, len);
		r = load_path(bad, &e);
		assert_refused(&e, r, EXIT_REFUSED, bend[i].text);
	}
}

static void test_not_files(void)
{
	g_autofree char *dir = stage_folder();
	ERR_AUTO(e);
	int r = load_path(dir, &e);

	assert_refused(&e, r, EXIT_REFUSED, "not a regular file");
	err_clear(&e);
	r = load_path("/dev/null", &e);
	assert_refused(&e, r, EXIT_REFUSED, "");
	err_clear(&e);
	g_assert_cmpint(load_path("/nonexistent/x.so", &e), ==, -ENOENT);
}

/* A library that it was linked with is gone: that is "missing", not "refused". */
static void test_missing_library(void)
{
	g_autofree char *p = stage("dep_entry"), *data = NULL;
	char *name;
	ERR_AUTO(e);
	gsize len;
	int r;

	g_assert_true(g_file_get_contents(p, &data, &len, NULL));
	name = memmem(data, len, "libplugdep-dep_entry.so", 23);
	g_assert_nonnull(name);
	memcpy(name, "libnowhere-", 11);
	put(p, data, len);
	r = load_path(p, &e);
	assert_refused(&e, r, EXIT_MISSING, "libnowhere-dep_entry.so: cannot open shared object file");
	g_assert_cmpstr(e.remedy, ==, "install the library that it needs");
}

static void test_every_refusal_differs(void)
{
	static const char *const variants[] = {"no_note", "wrong_major", "wrong_draft", "bad_id", "two_notes", "id_mismatch",
		"kind_mismatch", "no_entry", "dep_entry", "short_table", "null_member", "get_null", "fail", "positive",
		"no_desc", "gmodule", "unknown_flag", "short_desc"};
	g_autoptr(GHashTable) seen = g_hash_table_new_full(g_str_hash, g_str_equal, g_free, NULL);

	for (unsigned i = 0; i < G_N_ELEMENTS(variants); i++) {
		g_autofree char *p = stage(variants[i]);
		ERR_AUTO(e);

		g_assert_cmpint(load_path(p, &e), <, 0);
		free_tables();
		g_assert_true(g_hash_table_add(seen, g_strdup(e.cause)));
	}
}

int main(int argc, char **argv)
{
	int r;

	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/plug/load/good", test_good);
	g_test_add_func("/plug/load/older-and-newer-tables", test_skew);
	g_test_add_func("/plug/load/identity", test_identity);
	g_test_add_func("/plug/load/entry", test_entry);
	g_test_add_func("/plug/load/entry-text", test_entry_text);
	g_test_add_func("/plug/load/tables", test_tables);
	g_test_add_func("/plug/load/gmodule-hooks", test_gmodule);
	g_test_add_func("/plug/load/writable", test_writable);
	g_test_add_func("/plug/load/foreign", test_foreign);
	g_test_add_func("/plug/load/symlink", test_symlink);
	g_test_add_func("/plug/load/exchanged", test_exchanged);
	g_test_add_func("/plug/load/damaged", test_damaged);
	g_test_add_func("/plug/load/not-files", test_not_files);
	g_test_add_func("/plug/load/missing-library", test_missing_library);
	g_test_add_func("/plug/load/every-refusal-differs", test_every_refusal_differs);
	/* Last: the constructor that hangs keeps the loader's lock. */
	g_test_add_func("/plug/load/hang", test_hang);
	r = g_test_run();
	stage_done();
	return r;
}
