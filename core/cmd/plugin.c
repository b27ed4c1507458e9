/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost plugin list | info | help | new. */
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <vhost/sugar.h>
#include "cmd/plugin.h"

/* ---- list: notes only, nothing is run ---- */

struct list {
	JsonBuilder *b; /* with --json */
	struct out_table *t;
	uint32_t kind;
	unsigned n;
};

static void list_json(JsonBuilder *b, const struct plug_note *n, const struct vh_err *why_not)
{
	json_builder_begin_object(b);
	js_text(b, "id", *n->id ? n->id : NULL);
	plugin_json_kinds(b, n->kinds);
	js_text(b, "path", n->path);
	plugin_json_int(b, "abi_major", n->major);
	plugin_json_int(b, "abi_minor", n->minor);
	plugin_json_int(b, "abi_draft", n->draft);
	json_builder_set_member_name(b, "loadable");
	json_builder_add_boolean_value(b, !why_not);
	js_text(b, "refused", why_not ? why_not->cause : NULL);
	json_builder_end_object(b);
}

static int list_one(void *ctx, const struct plug_note *n, const struct vh_err *why_not)
{
	struct list *l = ctx;
	g_autofree char *kinds = NULL, *abi = NULL;

	if (l->kind && !(n->kinds & l->kind))
		return 0;
	l->n++;
	if (l->b) {
		list_json(l->b, n, why_not);
		return 0;
	}
	kinds = n->kinds ? plug_kinds_text(n->kinds) : g_strdup("-");
	abi = !n->major ? g_strdup("-") : n->draft ? g_strdup_printf("%u draft %u", n->major, n->draft) :
						     g_strdup_printf("%u.%u", n->major, n->minor);
	out_table_row(l->t, *n->id ? n->id : "-", kinds, abi, n->path, why_not ? why_not->cause : "ok");
	return 0;
}

static int run_list(struct cmd_ctx *c, struct vh_err *e)
{
	static const char *const header[] = {"NAME", "KIND", "ABI", "FILE", "STATE", NULL};
	int64_t kind = vh_opt_num(c->opts, "kind", -1);
	struct list l = {.kind = kind < 0 ? 0 : plug_tables[kind].kind};
	g_auto(GStrv) dirs = NULL;
	int r = plug_search_path(l.kind, &dirs, e);

	if (r < 0)
		return r;
	if (c->json) {
		l.b = json_builder_new();
		json_builder_begin_object(l.b);
		json_builder_set_member_name(l.b, "plugins");
		json_builder_begin_array(l.b);
	} else {
		l.t = out_table_new(header, NULL);
	}
	plug_scan(list_one, &l);
	if (c->json) {
		json_builder_end_array(l.b);
		json_builder_set_member_name(l.b, "searched");
		json_builder_begin_array(l.b);
		for (unsigned i = 0; dirs[i]; i++)
			json_builder_add_string_value(l.b, dirs[i]);
		json_builder_end_array(l.b);
		json_builder_end_object(l.b);
		out_json(l.b);
	} else {
		out_table_print(l.t);
	}
	return 0;
}

/* ---- help: the options, from the schemas ---- */

static void help_text_option(JsonObject *o)
{
	const char *def = plugin_text(o, "default"), *range = plugin_text(o, "range");
	g_autofree char *head = g_strdup_printf("%s=%s", plugin_text(o, "name"), plugin_text(o, "form"));
	GString *notes = g_string_new(NULL);

	if (json_object_get_boolean_member(o, "required"))
		g_string_append(notes, ", required");
	if (json_object_get_boolean_member(o, "main"))
		g_string_append(notes, ", main option");
	if (json_object_get_boolean_member(o, "nic"))
		g_string_append(notes, ", of one NIC");
	if (json_object_get_boolean_member(o, "repeat"))
		g_string_append(notes, ", may be repeated");
	if (json_object_get_boolean_member(o, "live"))
		g_string_append(notes, ", may be changed while in use");
	if (json_object_get_boolean_member(o, "deprecated"))
		g_string_append(notes, ", deprecated");
	if (range)
		g_string_append_printf(notes, ", %s", range);
	if (def)
		g_string_append_printf(notes, ", default %s", def);
	printf("  %-24s %s%s%s%s\n", head, plugin_text(o, "doc"), notes->len ? " (" : "", notes->len ? notes->str + 2 : "",
	       notes->len ? ")" : "");
	g_string_free(notes, TRUE);
}

static void help_text(JsonObject *o)
{
	JsonArray *scopes = json_object_get_array_member(o, "scopes");

	printf("%s: %s\n", plugin_text(o, "id"), plugin_text(o, "summary"));
	if (!json_array_get_length(scopes))
		puts("It takes no options.");
	for (unsigned i = 0; i < json_array_get_length(scopes); i++) {
		JsonObject *s = json_array_get_object_element(scopes, i);
		JsonArray *opts = json_object_get_array_member(s, "options");

		printf("\n%s:\n", plugin_text(s, "title"));
		for (unsigned j = 0; j < json_array_get_length(opts); j++)
			help_text_option(json_array_get_object_element(opts, j));
	}
}

static int run_help(struct cmd_ctx *c, struct vh_err *e)
{
	g_autoptr(JsonNode) node = NULL;
	int r = plugin_child(c->args[0], plugin_build_help, &node, e);

	if (r < 0)
		return r;
	if (c->json)
		plugin_print_json(node);
	else
		help_text(json_node_get_object(node));
	return 0;
}

/* ---- info ---- */

static void print_list(JsonObject *o, const char *member, const char *title)
{
	JsonArray *a = json_object_get_array_member(o, member);
	GString *s = g_string_new(NULL);

	for (unsigned i = 0; i < json_array_get_length(a); i++)
		g_string_append_printf(s, "%s%s", i ? " " : "", json_array_get_string_element(a, i));
	printf("%-14s %s\n", title, s->len ? s->str : "none");
	g_string_free(s, TRUE);
}

static void print_interface(JsonObject *t)
{
	JsonArray *absent = json_object_get_array_member(t, "absent");
	gint64 size = json_object_get_int_member(t, "size"), known = json_object_get_int_member(t, "known_size");

	printf("\n%s \"%s\"\n", plugin_text(t, "id"), plugin_text(t, "name"));
	printf("  %-14s %" G_GINT64_FORMAT " bytes, this vhost knows %" G_GINT64_FORMAT "%s\n", "table", size, known,
	       size == known ? "" : size < known ? " (an older plugin)" : " (a newer plugin)");
	printf("  ");
	print_list(t, "caps", "can");
	for (unsigned i = 0; i < json_array_get_length(absent); i++) {
		JsonObject *m = json_array_get_object_element(absent, i);

		printf("  %-14s %s: %s\n", i ? "" : "absent", plugin_text(m, "member"), plugin_text(m, "fallback"));
	}
}

static void info_text(JsonObject *o)
{
	JsonArray *tables = json_object_get_array_member(o, "interfaces");
	gint64 draft = json_object_get_int_member(o, "abi_draft");
	g_autofree char *state = draft ? g_strdup_printf(" (draft %" G_GINT64_FORMAT ")", draft) : g_strdup("");

	printf("%-14s %s\n%-14s %s\n%-14s %s\n%-14s %s\n%-14s %s\n", "id", plugin_text(o, "id"), "version",
	       plugin_text(o, "version"), "summary", plugin_text(o, "summary"), "license", plugin_text(o, "license"), "file",
	       plugin_text(o, "path"));
	printf("%-14s %s\n", "build id", plugin_text(o, "build_id") ? plugin_text(o, "build_id") : "none");
	printf("%-14s %" G_GINT64_FORMAT ".%" G_GINT64_FORMAT "%s\n", "ABI", json_object_get_int_member(o, "abi_major"),
	       json_object_get_int_member(o, "abi_minor"), state);
	printf("%-14s %" G_GINT64_FORMAT " bytes, this vhost knows %" G_GINT64_FORMAT "\n", "descriptor",
	       json_object_get_int_member(o, "descriptor_size"), json_object_get_int_member(o, "descriptor_known_size"));
	print_list(o, "flags", "flags");
	print_list(o, "needs", "libraries");
	for (unsigned i = 0; i < json_array_get_length(tables); i++)
		print_interface(json_array_get_object_element(tables, i));
}

static int run_info(struct cmd_ctx *c, struct vh_err *e)
{
	g_autoptr(JsonNode) node = NULL;
	int r = plugin_child(c->args[0], plugin_build_info, &node, e);

	if (r < 0)
		return r;
	if (c->json)
		plugin_print_json(node);
	else
		info_text(json_node_get_object(node));
	return 0;
}

/* ---- the tables ---- */

#define OPT(NAME, TYPE, FLAGS, DOC, ...) &(const struct vh_opt){ \
	.size = sizeof(struct vh_opt), .type = TYPE, .flags = FLAGS, .name = NAME, .doc = DOC, __VA_ARGS__ }

static const char *const list_kinds[] = {"pool", "format", "net", "filter", NULL}; /* in plug_tables' order */
static const struct vh_opt *const list_options[] = {
	OPT("kind", VH_OPT_ENUM, 0, "Only those of this kind", .choices = list_kinds), NULL};
static const char *const new_kinds[] = {"storage", "format", "net", NULL};
static const struct vh_opt *const new_options[] = {
	OPT("kind", VH_OPT_ENUM, VH_OPT_REQUIRED, "What it shall be", .choices = new_kinds), NULL};

static const struct cmd list_cmd = {"plugin", "list", NULL, "List the plugins that can be found",
	"Reads the plugins' notes only: nothing of them is run. Searched are --plugin files, the folders\n"
	"of VHOST_PLUGIN_PATH, and the installed ones.", list_options, run_list, 0};
static const struct cmd info_cmd = {"plugin", "info", "NAME", "Tell what a plugin is and can do",
	"NAME is a plugin's name, or the path of its file. The plugin is loaded in a child process:\n"
	"a broken one can do no harm.",
	NULL, run_info, 0};
static const struct cmd help_cmd = {"plugin", "help", "NAME", "Tell a plugin's options",
	"NAME is a plugin's name, or the path of its file. The plugin is loaded in a child process.", NULL, run_help, 0};
static const struct cmd new_cmd = {"plugin", "new", "NAME [FOLDER]", "Start a plugin of your own",
	"Writes a small plugin that works, with its build file and README, into FOLDER (default: NAME).\n"
	"It needs the installed headers (pkg-config vhost-plugin) and nothing else of vhost.", new_options, plugin_new, 0};
const struct cmd *const cmd_plugin[] = {&list_cmd, &info_cmd, &help_cmd, &new_cmd, NULL};
