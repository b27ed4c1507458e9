/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cmd/cmd.h"

void out_json(JsonBuilder *b)
{
	g_autoptr(JsonNode) root = json_builder_get_root(b);
	g_autoptr(JsonGenerator) gen = json_generator_new();
	g_autofree char *text = NULL, *valid = NULL;

	json_generator_set_root(gen, root);
	text = json_generator_to_data(gen, NULL);
	valid = g_utf8_make_valid(text, -1); /* names of files need not be UTF-8, JSON must be */
	puts(valid);
	g_object_unref(b);
}

void js_text(JsonBuilder *b, const char *name, const char *value)
{
	json_builder_set_member_name(b, name);
	if (value) {
		g_autofree char *valid = g_utf8_make_valid(value, -1);

		json_builder_add_string_value(b, valid);
	} else {
		json_builder_add_null_value(b);
	}
}

void js_bool(JsonBuilder *b, const char *name, int value)
{
	json_builder_set_member_name(b, name);
	json_builder_add_boolean_value(b, !!value);
}

struct out_table {
	unsigned n;
	unsigned *width;
	char *right;
	GPtrArray *cells; /* row by row, the header first */
};

/* Names come from disks and plugins: nothing in them may move the cursor. */
static char *cell_clean(const char *text)
{
	char *s = g_utf8_make_valid(text ? text : "-", -1);

	for (char *p = s; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	return s;
}

static void cell_add(struct out_table *t, unsigned column, const char *text)
{
	char *cell = cell_clean(text);

	t->width[column] = MAX(t->width[column], (unsigned)g_utf8_strlen(cell, -1));
	g_ptr_array_add(t->cells, cell);
}

struct out_table *out_table_new(const char *const *header, const int *right)
{
	struct out_table *t = g_new0(struct out_table, 1);

	while (header[t->n])
		t->n++;
	t->width = g_new0(unsigned, t->n + 1);
	t->right = g_new0(char, t->n + 1);
	t->cells = g_ptr_array_new_with_free_func(g_free);
	for (unsigned i = 0; i < t->n; i++) {
		t->right[i] = right && right[i];
		cell_add(t, i, header[i]);
	}
	return t;
}

void out_table_row(struct out_table *t, ...)
{
	va_list ap;

	va_start(ap, t);
	for (unsigned i = 0; i < t->n; i++)
		cell_add(t, i, va_arg(ap, const char *));
	va_end(ap);
}

void out_table_cells(struct out_table *t, const char *const *cell)
{
	for (unsigned i = 0; i < t->n; i++)
		cell_add(t, i, cell[i]);
}

void out_table_free(struct out_table *t)
{
	g_ptr_array_free(t->cells, TRUE);
	g_free(t->width);
	g_free(t->right);
	g_free(t);
}

void out_table_print(struct out_table *t)
{
	for (unsigned i = 0; i < t->cells->len; i++) {
		const char *cell = t->cells->pdata[i];
		unsigned column = i % t->n, pad = t->width[column] - (unsigned)g_utf8_strlen(cell, -1);
		int last = column == t->n - 1;

		if (t->right[column])
			printf("%*s%s%s", (int)pad, "", cell, last ? "\n" : "  ");
		else if (last)
			printf("%s\n", cell); /* no spaces at the end of a line */
		else
			printf("%s%*s", cell, (int)pad + 2, "");
	}
	out_table_free(t);
}

int out_done(struct cmd_ctx *c, const char *noun, const char *result)
{
	if (c->json) {
		JsonBuilder *b = json_builder_new();

		json_builder_begin_object(b);
		js_text(b, "name", c->args[0]);
		js_text(b, "result", result);
		json_builder_end_object(b);
		out_json(b);
	} else if (!c->quiet) {
		printf("%s %s %s\n", noun, c->args[0], result);
	}
	return 0;
}
