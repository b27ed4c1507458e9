/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Help as text, as JSON, and the commands `help` and `completion`. */
#include <stdio.h>
#include <string.h>

#include "cmd/cli.h"

/* The text of one option behind its name. */
static char *option_doc(const struct vh_opt *o)
{
	GString *s = g_string_new(o->doc);
	g_autofree char *range = opt_range_text(o);

	if (range)
		g_string_append_printf(s, "; %s", range);
	if (o->defval)
		g_string_append_printf(s, " (default %s)", o->defval);
	if (o->flags & VH_OPT_REQUIRED)
		g_string_append(s, " (required)");
	if (o->flags & VH_OPT_REPEAT)
		g_string_append(s, " (may be repeated)");
	if (o->flags & VH_OPT_DEPRECATED)
		g_string_append(s, " (deprecated)");
	return g_string_free(s, FALSE);
}

static char *option_head(const struct cmd *c, const struct vh_opt *o)
{
	g_autofree char *form = opt_form(o);
	char letter = c ? cmd_letter(c, o->name) : 0, first[8] = "";

	if (letter)
		g_snprintf(first, sizeof(first), "-%c, ", letter);
	if (o->type == VH_OPT_BOOL)
		return g_strdup_printf("%s--%s", first, o->name);
	return g_strdup_printf("%s--%s %s", first, o->name, form);
}

/* "  head   text", the text on a line of its own when the head is long. */
static void add_entry(GString *s, const char *head, const char *text)
{
	if (strlen(head) > 24)
		g_string_append_printf(s, "  %s\n  %-24s  %s\n", head, "", text);
	else
		g_string_append_printf(s, "  %-24s  %s\n", head, text);
}

static void add_options(GString *s, const char *title, const struct cmd *c, vh_schema options)
{
	if (!options || !*options)
		return;
	g_string_append_printf(s, "\n%s:\n", title);
	for (; *options; options++) {
		g_autofree char *head = option_head(c, *options), *doc = option_doc(*options);

		add_entry(s, head, doc);
	}
}

static void add_commands(GString *s, cmd_tables tables, const char *noun)
{
	for (; *tables; tables++) {
		for (const struct cmd *const *c = *tables; *c; c++) {
			g_autofree char *head = NULL;

			if (g_strcmp0((*c)->noun, noun))
				continue;
			head = g_strconcat((*c)->verb, (*c)->args && *(*c)->args ? " " : "", (*c)->args, NULL);
			add_entry(s, head, (*c)->summary);
		}
	}
}

GString *help_top(cmd_tables tables)
{
	GString *s = g_string_new("Usage: vhost COMMAND [VERB] [NAME]... [--option value]...\n\n"
				  "A modular hypervisor: virtual machines whose storage, disk formats and networks are plugins.\n"
				  "\nCommands:\n");
	g_autofree const char **words = cli_words(tables, NULL);

	add_commands(s, tables, NULL);
	for (unsigned i = 0; words[i]; i++) {
		g_autofree const char **verbs = cli_words(tables, words[i]);
		g_autofree char *all = NULL;

		if (!verbs[0])
			continue;
		all = g_strjoinv(" | ", (char **)verbs);
		add_entry(s, words[i], all);
	}
	add_options(s, "Options of every command", NULL, cli_globals);
	g_string_append(s, "\n`vhost COMMAND [VERB] --help` explains one; `vhost help man` prints the manual page,\n"
			   "`vhost completion bash` the completion script.\n");
	return s;
}

GString *help_noun(cmd_tables tables, const char *noun)
{
	GString *s = g_string_new(NULL);

	g_string_printf(s, "Usage: vhost %s VERB [NAME]... [--option value]...\n\nCommands:\n", noun);
	add_commands(s, tables, noun);
	g_string_append_printf(s, "\n`vhost %s VERB --help` explains one.\n", noun);
	return s;
}

GString *help_command(const struct cmd *c)
{
	GString *s = g_string_new(NULL);
	g_autofree char *title = cmd_title(c);
	int any = (c->options && *c->options) || c->free_options;

	g_string_printf(s, "Usage: vhost %s%s%s%s\n\n%s\n", title, c->args && *c->args ? " " : "", c->args ? c->args : "",
			any ? " [--option value]..." : "", c->summary);
	if (c->help)
		g_string_append_printf(s, "\n%s%s", c->help, g_str_has_suffix(c->help, "\n") ? "" : "\n");
	add_options(s, "Options", c, c->options);
	if (c->free_options)
		g_string_append(s, "\nFurther options are the plugin's: see `vhost plugin help NAME`.\n");
	add_options(s, "Options of every command", NULL, cli_globals);
	return s;
}

/* ---- JSON ---- */

static void json_options(JsonBuilder *b, const char *name, const struct cmd *c, vh_schema s)
{
	json_builder_set_member_name(b, name);
	json_builder_begin_array(b);
	for (; s && *s; s++) {
		json_builder_begin_object(b);
		js_text(b, "name", (*s)->name);
		if (c && cmd_letter(c, (*s)->name)) {
			char letter[2] = { cmd_letter(c, (*s)->name), 0 };

			js_text(b, "letter", letter);
		}
		js_text(b, "type", opt_type_name(*s));
		js_text(b, "doc", (*s)->doc);
		js_text(b, "default", (*s)->defval);
		js_bool(b, "required", !!((*s)->flags & VH_OPT_REQUIRED));
		js_bool(b, "repeat", !!((*s)->flags & VH_OPT_REPEAT));
		if ((*s)->choices) {
			json_builder_set_member_name(b, "choices");
			json_builder_begin_array(b);
			for (const char *const *w = (*s)->choices; *w; w++)
				json_builder_add_string_value(b, *w);
			json_builder_end_array(b);
		}
		json_builder_end_object(b);
	}
	json_builder_end_array(b);
}

void help_json(JsonBuilder *b, cmd_tables tables, const char *noun, const char *verb)
{
	json_builder_begin_object(b);
	json_builder_set_member_name(b, "commands");
	json_builder_begin_array(b);
	for (; *tables; tables++) {
		for (const struct cmd *const *p = *tables; *p; p++) {
			const struct cmd *c = *p;

			if ((noun || verb) && (g_strcmp0(c->noun, noun) || (verb && strcmp(c->verb, verb))))
				continue;
			json_builder_begin_object(b);
			js_text(b, "noun", c->noun);
			js_text(b, "verb", c->verb);
			js_text(b, "args", c->args);
			js_text(b, "summary", c->summary);
			js_text(b, "help", c->help);
			js_bool(b, "plugin_options", c->free_options);
			json_options(b, "options", c, c->options);
			json_builder_end_object(b);
		}
	}
	json_builder_end_array(b);
	json_options(b, "global_options", NULL, cli_globals);
	json_builder_end_object(b);
}

/* ---- the commands ---- */

static int help_run(struct cmd_ctx *c, struct vh_err *e)
{
	const char *noun = c->n_args > 0 ? c->args[0] : NULL, *verb = c->n_args > 1 ? c->args[1] : NULL;
	cmd_tables t = cli_current();
	const struct cmd *found = NULL;
	g_autofree const char **words = NULL;
	const char *near;
	GString *s;

	if (noun && !verb)
		found = cli_find(t, NULL, noun);
	else if (noun)
		found = cli_find(t, noun, verb);
	if (noun && !found && (verb || (strcmp(noun, "man") && !cli_has_noun(t, noun)))) {
		words = cli_words(t, verb && cli_has_noun(t, noun) ? noun : NULL);
		near = nearest(verb && cli_has_noun(t, noun) ? verb : noun, words);
		err_usage(e, "there is no command '%s%s%s'", noun, verb ? " " : "", verb ? verb : "");
		if (near)
			err_remedy(e, "did you mean %s?", near);
		else
			err_remedy(e, "`vhost help` lists the commands");
		return -EINVAL;
	}
	if (c->json) {
		JsonBuilder *b = json_builder_new();

		help_json(b, t, found ? found->noun : noun, found ? found->verb : NULL);
		out_json(b);
		return EXIT_OK;
	}
	s = found ? help_command(found) : !noun ? help_top(t) : cli_has_noun(t, noun) ? help_noun(t, noun) : help_man(t);
	fputs(s->str, stdout);
	g_string_free(s, TRUE);
	return EXIT_OK;
}

static int completion_run(struct cmd_ctx *c, struct vh_err *e)
{
	GString *s;

	if (strcmp(c->args[0], "bash"))
		return err_usage(e, "there is completion for bash only, not for '%s'", c->args[0]);
	s = help_bash(cli_current());
	if (c->json) {
		JsonBuilder *b = json_builder_new();

		json_builder_begin_object(b);
		js_text(b, "script", s->str);
		json_builder_end_object(b);
		out_json(b);
	} else {
		fputs(s->str, stdout);
	}
	g_string_free(s, TRUE);
	return EXIT_OK;
}

static const struct cmd help_cmd = {
	.verb = "help",
	.args = "[NOUN] [VERB]",
	.summary = "Explain a command",
	.help = "`vhost help man` prints the whole manual page in roff; `vhost help --json` the tables that it is made from.",
	.run = help_run,
};
static const struct cmd completion_cmd = {
	.verb = "completion",
	.args = "SHELL",
	.summary = "Print the completion script of a shell (bash)",
	.help = "Put it where the shell looks for it:\n  vhost completion bash > /usr/share/bash-completion/completions/vhost",
	.run = completion_run,
};
const struct cmd *const cmd_help[] = { &help_cmd, &completion_cmd, NULL };
