/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost plugin new: the templates of sdk/template, built into the program, with the new name put in. */
#include <glib.h>
#include <glib/gstdio.h>
#include <stdio.h>
#include <string.h>
#include <vhost/sugar.h>
#include "cmd/plugin.h"
#include "templates.h"
#include "util/paths.h"

/* In the templates "skeleton" is the plugin's name and skel_ or SKEL_ begins its C names. */
static char *fill_in(const char *text, const char *id)
{
	g_autofree char *c = g_strconcat(id, "_", NULL), *upper = NULL;
	GString *s = g_string_new(text);

	g_strdelimit(c, "-", '_');
	/* A C name does not begin with a digit. */
	if (g_ascii_isdigit(*c)) {
		char *n = g_strconcat("p", c, NULL);

		g_free(c);
		c = n;
	}
	upper = g_ascii_strup(c, -1);
	g_string_replace(s, "\"SKELETON\"", "\"\1\"", 0);
	g_string_replace(s, "skeleton", id, 0);
	g_string_replace(s, "skel_", c, 0);
	g_string_replace(s, "SKEL_", upper, 0);
	/* A format's magic has eight bytes whatever its name is. */
	if (strstr(s->str, "\1")) {
		g_autofree char *magic = g_ascii_strup(id, -1), *eight = g_strdup_printf("%-8.8s", magic);

		g_string_replace(s, "\1", eight, 0);
	}
	return g_string_free(s, FALSE);
}

static int write_one(const char *dir, const char *name, const char *text, const char *id, struct vh_err *e)
{
	g_autofree char *filled = fill_in(text, id), *file = fill_in(name, id), *path = g_build_filename(dir, file, NULL);

	if (g_file_test(path, G_FILE_TEST_EXISTS)) {
		err_object(e, "%s", path);
		return err_set(e, -EEXIST, "it is there already");
	}
	return file_replace(path, filled, strlen(filled), 0644, e);
}

int plugin_new(struct cmd_ctx *c, struct vh_err *e)
{
	const char *id = c->args[0], *dir = c->n_args > 1 ? c->args[1] : id, *kind = vh_opt_str(c->opts, "kind", "");
	int r;

	if (!note_id_valid(id, VH_ID_MAX)) {
		err_object(e, "plugin '%s'", id);
		return err_usage(e, "a plugin's name is made of a-z, 0-9 and -, has at most %d bytes, and does not begin with -",
				 VH_ID_MAX - 1);
	}
	r = path_make(dir, 0755, e);
	for (unsigned i = 0; r >= 0 && i < G_N_ELEMENTS(template_files); i++)
		if (!strcmp(template_files[i].kind, kind))
			r = write_one(dir, template_files[i].name, template_files[i].text, id, e);
	if (r < 0)
		return r;
	if (c->json) {
		JsonBuilder *b = json_builder_new();

		json_builder_begin_object(b);
		js_text(b, "id", id);
		js_text(b, "kind", kind);
		js_text(b, "folder", dir);
		json_builder_end_object(b);
		out_json(b);
	} else {
		printf("%s: a %s plugin that works. Next:\n  cd %s && meson setup build && ninja -C build\n"
		       "  vhost --plugin build/%s.so plugin info %s\n", dir, kind, dir, id, id);
	}
	return 0;
}
