/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Reading what lvm answers: {"report": [{TABLE: [{...}, ...]}], "log": [{"log_type": "error", "log_message": ...}, ...]}. */
#include <math.h>
#include <stdlib.h>
#include "lvm.h"

#define DEPTH_MAX 16

/*
 * A copy of the text without commas before closing brackets: lvm 2.03 leaves one there when its selection drops the last row. NULL:
 * it is nested deeper than any answer, which json-glib's parser, that calls itself for each bracket, is not given; nor
 * is a second value, which makes it lose the first (1.6).
 */
static char *tidy(const char *text, size_t len, size_t *out_len)
{
	char *out = g_malloc(len + 1);
	int depth = 0, quoted = 0, ended = 0;
	size_t n = 0, comma = SIZE_MAX; /* where the last comma is that only space has followed */

	for (size_t i = 0; i < len; i++) {
		char c = text[i];

		out[n++] = c;
		if (quoted) {
			if (c == '\\' && i + 1 < len)
				out[n++] = text[++i];
			else if (c == '"')
				quoted = 0;
			continue;
		}
		if (strchr(" \t\r\n", c))
			continue;
		if ((c == ']' || c == '}') && comma != SIZE_MAX)
			out[comma] = ' ';
		comma = c == ',' ? n - 1 : SIZE_MAX;
		if (ended || ((c == '{' || c == '[') && ++depth > DEPTH_MAX)) {
			g_free(out);
			return NULL;
		}
		if (c == '"')
			quoted = 1;
		else if (c == '}' || c == ']')
			ended = --depth <= 0;
	}
	out[n] = 0;
	*out_len = n;
	return out;
}

static JsonNode *member(JsonObject *o, const char *key, JsonNodeType type)
{
	JsonNode *n = o ? json_object_get_member(o, key) : NULL;

	return n && json_node_get_node_type(n) == type ? n : NULL;
}

static JsonArray *array_of(JsonObject *o, const char *key)
{
	JsonNode *n = member(o, key, JSON_NODE_ARRAY);

	return n ? json_node_get_array(n) : NULL;
}

const char *lvm_text(JsonObject *row, const char *key)
{
	JsonNode *n = member(row, key, JSON_NODE_VALUE);
	const char *s = n && json_node_get_value_type(n) == G_TYPE_STRING ? json_node_get_string(n) : NULL;

	return s ? s : "";
}

int lvm_number(JsonObject *row, const char *key, uint64_t *out, struct vh_err *e)
{
	const char *s = lvm_text(row, key);
	char *end;
	guint64 n;

	errno = 0;
	n = g_ascii_strtoull(s, &end, 10);
	/* ERANGE and nothing else: GLib takes a lock when it is called first, which leaves EAGAIN behind when others wait for it. */
	if (end == s || *end || errno == ERANGE || s[0] < '0' || s[0] > '9')
		return lvm_fail(e, -EPROTO, "lvm's answer has no number %s, but \"%.40s\"", key, s);
	*out = n;
	return 0;
}

double lvm_percent(JsonObject *row, const char *key)
{
	const char *s = lvm_text(row, key);
	char *end;
	double d = g_ascii_strtod(s, &end);

	return end == s || *end || !isfinite(d) || d < 0 || d > 100 ? -1 : d;
}

static JsonObject *object_at(JsonArray *a, guint i)
{
	JsonNode *n = json_array_get_element(a, i);

	return n && json_node_get_node_type(n) == JSON_NODE_OBJECT ? json_node_get_object(n) : NULL;
}

/* The errors of the log, one after the other. */
static char *log_errors(JsonArray *log)
{
	GString *s = g_string_new(NULL);

	for (guint i = 0; log && i < json_array_get_length(log) && s->len < 400; i++) {
		JsonObject *row = object_at(log, i);
		const char *m = lvm_text(row, "log_message");

		if (!row || strcmp(lvm_text(row, "log_type"), "error") || !*m)
			continue;
		if (s->len)
			g_string_append(s, "; ");
		g_string_append(s, m);
	}
	if (s->len > 400) {
		const char *end;

		g_string_truncate(s, 400);
		if (!g_utf8_validate(s->str, (gssize)s->len, &end))
			g_string_truncate(s, (gsize)(end - s->str));
		g_string_append(s, "...");
	}
	for (char *c = s->str; *c; c++) /* nothing that could forge a line */
		if ((unsigned char)*c < 0x20 || *c == 0x7f)
			*c = ' ';
	g_strstrip(s->str);
	while (*s->str && s->str[strlen(s->str) - 1] == '.')
		s->str[strlen(s->str) - 1] = 0;
	if (!*s->str) {
		g_string_free(s, TRUE);
		return NULL;
	}
	return g_string_free(s, FALSE);
}

int lvm_answer_parse(struct lvm_answer *a, const char *text, size_t len, const char *table, struct vh_err *e)
{
	g_autoptr(GError) error = NULL;
	g_autofree char *tidied = NULL;
	JsonArray *report;
	JsonObject *root;
	JsonNode *node;

	memset(a, 0, sizeof(*a));
	/* Some of its hints are on the same stream, before. */
	while (len && *text != '{') {
		const char *line = memchr(text, '\n', len);

		len = line ? len - (size_t)(line + 1 - text) : 0;
		text = line ? line + 1 : text;
	}
	if (len > LVM_ANSWER_MAX)
		return lvm_fail(e, -EPROTO, "lvm's answer is longer than %u MiB", LVM_ANSWER_MAX >> 20);
	tidied = len && !memchr(text, 0, len) ? tidy(text, len, &len) : NULL;
	if (!tidied)
		return lvm_fail(e, -EPROTO, "lvm's answer is no report");
	a->parser = json_parser_new();
	if (!json_parser_load_from_data(a->parser, tidied, (gssize)len, &error)) {
		lvm_answer_clear(a);
		return lvm_fail(e, -EPROTO, "lvm's answer is no JSON: %s", error->message);
	}
	node = json_parser_get_root(a->parser);
	root = node && json_node_get_node_type(node) == JSON_NODE_OBJECT ? json_node_get_object(node) : NULL;
	if (!root) {
		lvm_answer_clear(a);
		return lvm_fail(e, -EPROTO, "lvm's answer is no report");
	}
	a->error = log_errors(array_of(root, "log"));
	a->rows = g_ptr_array_new();
	report = array_of(root, "report");
	for (guint i = 0; table && report && i < json_array_get_length(report); i++) {
		JsonArray *rows = array_of(object_at(report, i), table);

		for (guint k = 0; rows && k < json_array_get_length(rows); k++) {
			JsonObject *row = object_at(rows, k);

			if (!row) {
				lvm_answer_clear(a);
				return lvm_fail(e, -EPROTO, "a row of lvm's answer is no object");
			}
			g_ptr_array_add(a->rows, row);
		}
	}
	if (table && !report && !a->error) {
		lvm_answer_clear(a);
		return lvm_fail(e, -EPROTO, "lvm's answer has no report");
	}
	return 0;
}

void lvm_answer_clear(struct lvm_answer *a)
{
	g_clear_object(&a->parser);
	g_clear_pointer(&a->rows, g_ptr_array_unref);
	g_clear_pointer(&a->error, g_free);
}
