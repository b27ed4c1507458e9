/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Copies of the built variants in private folders, so that a test may change owners, modes and bytes. */
#ifndef TEST_PLUG_STAGE_H
#define TEST_PLUG_STAGE_H

#include <glib.h>
#include <glib/gstdio.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "plug/impl.h"

static char *stage_root;

G_GNUC_UNUSED static char *stage_dir(void)
{
	if (!stage_root) {
		stage_root = g_dir_make_tmp("vhost-plug-XXXXXX", NULL);
		g_assert_nonnull(stage_root);
	}
	return g_strdup(stage_root);
}

/* A fresh folder in it. */
G_GNUC_UNUSED static char *stage_folder(void)
{
	static int n;
	g_autofree char *root = stage_dir();
	char *d = g_strdup_printf("%s/%d", root, n++);

	g_assert_cmpint(g_mkdir(d, 0755), ==, 0);
	return d;
}

/* Copies a variant to DIR/AS.so; returns the path. */
G_GNUC_UNUSED static char *stage_as(const char *dir, const char *variant, const char *as)
{
	g_autofree char *from = g_strdup_printf("%s/%s.so", g_getenv("VARIANTS"), variant);
	char *to = g_strdup_printf("%s/%s.so", dir, as);
	g_autofree char *data = NULL;
	gsize len;

	g_assert_true(g_file_get_contents(from, &data, &len, NULL));
	g_assert_true(g_file_set_contents(to, data, (gssize)len, NULL));
	g_assert_cmpint(g_chmod(to, 0755), ==, 0);
	return to;
}

G_GNUC_UNUSED static char *stage(const char *variant)
{
	g_autofree char *dir = stage_folder();

	return stage_as(dir, variant, variant);
}

static int stage_remove(const char *path)
{
	GDir *d = g_dir_open(path, 0, NULL);
	const char *n;

	while (d && (n = g_dir_read_name(d))) {
		g_autofree char *p = g_build_filename(path, n, NULL);

		if (g_file_test(p, G_FILE_TEST_IS_DIR) && !g_file_test(p, G_FILE_TEST_IS_SYMLINK))
			stage_remove(p);
		else
			g_unlink(p);
	}
	if (d)
		g_dir_close(d);
	return g_rmdir(path);
}

G_GNUC_UNUSED static void stage_done(void)
{
	if (stage_root)
		stage_remove(stage_root);
	g_clear_pointer(&stage_root, g_free);
}

#endif
