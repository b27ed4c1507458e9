/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/paths.h"

static char *root;

static void folders(void)
{
	g_autofree char *c = path_in(PATH_CONFIG, "pools", "a.conf", NULL), *d = path_in(PATH_DATA, NULL);
	g_autofree char *s = path_in(PATH_STATE, "vm", NULL), *want_c = g_build_filename(root, "config/pools/a.conf", NULL);
	g_autofree char *want_d = g_build_filename(root, "data", NULL), *want_s = g_build_filename(root, "state/vm", NULL);

	g_assert_cmpstr(c, ==, want_c);
	g_assert_cmpstr(d, ==, want_d);
	g_assert_cmpstr(s, ==, want_s);
	g_unsetenv("VHOST_ROOT");
	if (!geteuid()) {
		g_autofree char *sys = path_in(PATH_DATA, "images", NULL), *run = path_in(PATH_STATE, NULL);

		g_assert_cmpstr(sys, ==, "/var/lib/vhost/images");
		g_assert_cmpstr(run, ==, "/run/vhost");
	} else {
		g_setenv("XDG_DATA_HOME", "/x", TRUE);
		g_autofree char *user = path_in(PATH_DATA, "images", NULL);

		g_assert_cmpstr(user, ==, "/x/vhost/images");
	}
	g_setenv("VHOST_ROOT", root, TRUE);
}

static void make(void)
{
	g_autofree char *deep = g_build_filename(root, "a/b//c/", NULL), *file = g_build_filename(root, "file", NULL);
	g_autofree char *below = g_build_filename(root, "file/x", NULL);
	struct stat st;
	ERR_AUTO(e);

	g_assert_cmpint(path_make(deep, 0700, NULL), ==, 0);
	g_assert_cmpint(path_make(deep, 0700, NULL), ==, 0);
	g_assert_cmpint(stat(deep, &st), ==, 0);
	g_assert_cmpuint(st.st_mode & 0777, ==, 0700);
	g_assert_true(g_file_set_contents(file, "x", 1, NULL));
	g_assert_cmpint(path_make(below, 0700, &e), ==, -ENOTDIR);
	g_assert_nonnull(strstr(e.cause, "/file is not a folder"));
	g_assert_cmpint(path_make("/", 0700, NULL), ==, 0);
	g_assert_cmpint(path_make("", 0700, NULL), ==, -EINVAL);
}

static void names(void)
{
	g_autofree char *l63 = g_strnfill(63, 'a'), *l64 = g_strnfill(64, 'a');
	static const char *const bad[] = { "", ".", "..", ".a", "-a", "_a", "a/b", "a b", "a\n", "\xc3\xa4", "a:b" };
	static const char *const good[] = { "a", "0", "web-1.x_y", "A..b" };
	ERR_AUTO(e);

	for (unsigned i = 0; i < G_N_ELEMENTS(good); i++)
		g_assert_cmpint(name_check("pool", good[i], NULL), ==, 0);
	for (unsigned i = 0; i < G_N_ELEMENTS(bad); i++)
		g_assert_cmpint(name_check("pool", bad[i], NULL), ==, -EINVAL);
	g_assert_cmpint(name_check("pool", l63, NULL), ==, 0);
	g_assert_cmpint(name_check("pool", l64, &e), ==, -EINVAL);
	g_assert_cmpint(err_exit_status(&e), ==, EXIT_USAGE);
}

static void replace(void)
{
	g_autofree char *file = g_build_filename(root, "conf", NULL), *nowhere = g_build_filename(root, "no/conf", NULL);
	g_autofree char *text = NULL, *sub = g_build_filename(root, "sub", NULL), *in_sub = g_build_filename(sub, "f", NULL);
	struct stat st;
	g_autoptr(GDir) d = NULL;
	ERR_AUTO(e);

	g_assert_cmpint(file_replace(file, "one", 3, 0600, NULL), ==, 0);
	g_assert_cmpint(file_replace(file, "two!", 4, 0640, NULL), ==, 0);
	g_assert_true(g_file_get_contents(file, &text, NULL, NULL));
	g_assert_cmpstr(text, ==, "two!");
	g_assert_cmpint(stat(file, &st), ==, 0);
	g_assert_cmpuint(st.st_mode & 0777, ==, 0640);
	g_assert_cmpint(file_replace(nowhere, "x", 1, 0600, &e), ==, -ENOENT);
	/* A rename that fails (the target is a folder) leaves no temporary file. */
	g_assert_cmpint(g_mkdir_with_parents(in_sub, 0700), ==, 0);
	g_assert_cmpint(file_replace(in_sub, "x", 1, 0600, NULL), ==, -EISDIR);
	d = g_dir_open(sub, 0, NULL);
	g_assert_cmpstr(g_dir_read_name(d), ==, "f");
	g_assert_null(g_dir_read_name(d));
}

int main(int argc, char **argv)
{
	int r;
	g_autofree char *rm = NULL;

	g_test_init(&argc, &argv, NULL);
	root = g_dir_make_tmp("vhost-paths-XXXXXX", NULL);
	g_setenv("VHOST_ROOT", root, TRUE);
	g_test_add_func("/paths/folders", folders);
	g_test_add_func("/paths/make", make);
	g_test_add_func("/paths/names", names);
	g_test_add_func("/paths/replace", replace);
	r = g_test_run();
	rm = g_strdup_printf("rm -rf '%s'", root);
	if (system(rm))
		r = 1;
	g_free(root);
	return r;
}
