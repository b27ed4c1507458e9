/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The manual page and the completion script, from the tables. */
#include <string.h>

#include "cmd/cli.h"

/* Text as roff takes it: no accidental requests, hyphens that can be copied. */
static void roff_add(GString *s, const char *text)
{
	int line_start = !s->len || s->str[s->len - 1] == '\n';

	for (; text && *text; text++) {
		if (line_start && (*text == '.' || *text == '\''))
			g_string_append(s, "\\&");
		if (*text == '\\')
			g_string_append(s, "\\e");
		else if (*text == '-')
			g_string_append(s, "\\-");
		else
			g_string_append_c(s, *text);
		line_start = *text == '\n';
	}
}

static void roff_options(GString *s, const struct cmd *c, vh_schema o)
{
	for (; o && *o; o++) {
		g_autofree char *form = opt_form(*o), *range = opt_range_text(*o);
		char letter = c ? cmd_letter(c, (*o)->name) : 0;

		g_string_append(s, ".TP\n.B ");
		if (letter)
			g_string_append_printf(s, "\\-%c\\fR, \\fB", letter);
		roff_add(s, "--");
		roff_add(s, (*o)->name);
		if ((*o)->type != VH_OPT_BOOL) {
			g_string_append(s, " \\fI");
			roff_add(s, form);
			g_string_append(s, "\\fP");
		}
		g_string_append_c(s, '\n');
		roff_add(s, (*o)->doc);
		if (range) {
			roff_add(s, "; ");
			roff_add(s, range);
		}
		roff_add(s, ".");
		if ((*o)->defval) {
			roff_add(s, " Default: ");
			roff_add(s, (*o)->defval);
			roff_add(s, ".");
		}
		if ((*o)->flags & VH_OPT_REQUIRED)
			roff_add(s, " Required.");
		if ((*o)->flags & VH_OPT_REPEAT)
			roff_add(s, " May be repeated.");
		g_string_append_c(s, '\n');
	}
}

static void roff_command(GString *s, const struct cmd *c)
{
	g_autofree char *title = cmd_title(c);

	g_string_append(s, ".SS \"vhost ");
	roff_add(s, title);
	if (c->args && *c->args) {
		g_string_append_c(s, ' ');
		roff_add(s, c->args);
	}
	g_string_append(s, "\"\n");
	roff_add(s, c->summary);
	roff_add(s, ".\n");
	if (c->help) {
		g_string_append(s, ".PP\n.nf\n");
		roff_add(s, c->help);
		if (!g_str_has_suffix(c->help, "\n"))
			g_string_append_c(s, '\n');
		g_string_append(s, ".fi\n");
	}
	roff_options(s, c, c->options);
	if (c->free_options) {
		g_string_append(s, ".PP\n");
		roff_add(s, "Further options are the plugin's: vhost plugin help NAME.\n");
	}
}

GString *help_man(cmd_tables tables)
{
	GString *s = g_string_new(NULL);

	g_string_append_printf(s, ".TH VHOST 1 \"\" \"vhost %s\" \"User Commands\"\n", VHOST_VERSION);
	g_string_append(s, ".nh\n.ad l\n.SH NAME\nvhost \\- virtual machines whose storage, disk formats and networks are plugins\n"
			   ".SH SYNOPSIS\n.B vhost\n.I COMMAND\n.RI [ VERB ]\n.RI [ NAME ]...\n[\\-\\-option value]...\n"
			   ".SH OPTIONS\nThese are taken by every command.\n");
	roff_options(s, NULL, cli_globals);
	g_string_append(s, ".SH COMMANDS\n");
	for (cmd_tables t = tables; *t; t++)
		for (const struct cmd *const *c = *t; *c; c++)
			roff_command(s, *c);
	g_string_append(s,
			".SH VALUES\nSizes take K, M, G, T (binary), times ms, s, min. A value with parts is written\n"
			"key=value,key=value; a comma inside a value is doubled; a first part without = is the main key's value.\n"
			".SH EXIT STATUS\n.TP\n0\nDone; of a guest: powered off.\n.TP\n1\nFailed.\n.TP\n2\nWrong usage.\n.TP\n3\n"
			"Not found.\n.TP\n4\nExists already, or is in use.\n.TP\n5\nA plugin was refused.\n.TP\n6\n"
			"A plugin or library is missing.\n.TP\n10\nThe guest reset, with \\-\\-on\\-reboot=exit.\n.TP\n11\n"
			"The guest panicked.\n.TP\n12\nimg check, vol check: the image is damaged.\n.TP\n13\n"
			"img check, vol check: only space is lost.\n"
			".SH ENVIRONMENT\n.TP\nVHOST_PLUGIN_PATH\nFolders that are searched for plugins, separated by colons.\n"
			".TP\nVHOST_LOG\nerror, warn, info, debug or trace, or TOPIC=LEVEL,...\n"
			".TP\nVHOST_ROOT\nA folder below which configuration, data and state are, instead of the usual ones.\n"
			".SH FILES\n.TP\n/etc/vhost, $XDG_CONFIG_HOME/vhost\nConfiguration.\n"
			".TP\n/var/lib/vhost, $XDG_DATA_HOME/vhost\nData.\n"
			".TP\n/run/vhost, $XDG_RUNTIME_DIR/vhost\nWhat runs.\n");
	return s;
}

/* ---- bash ---- */

/* "--size --type ..."; the names are [a-z0-9-] by the schema's rules, so nothing needs quotes. */
static void bash_options(GString *s, vh_schema o)
{
	for (; o && *o; o++)
		g_string_append_printf(s, " --%s", (*o)->name);
}

/* case branches "'pool create --type') w='dir lvm';;" for what can be told from the table. */
static void bash_values(GString *s, const char *title, vh_schema o)
{
	for (; o && *o; o++) {
		if ((*o)->type == VH_OPT_ENUM) {
			g_autofree char *words = g_strjoinv(" ", (char **)(*o)->choices);

			g_string_append_printf(s, "\t%s--%s') w='%s' ;;\n", title, (*o)->name, words);
		} else if ((*o)->type == VH_OPT_PATH) {
			g_string_append_printf(s, "\t%s--%s') files=1 ;;\n", title, (*o)->name);
		} else if ((*o)->type != VH_OPT_BOOL) {
			g_string_append_printf(s, "\t%s--%s') w=' ' ;;\n", title, (*o)->name);
		}
	}
}

GString *help_bash(cmd_tables tables)
{
	GString *s = g_string_new("# bash completion of vhost; made by `vhost completion bash`\n_vhost()\n{\n"
				  "\tlocal cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} i w= files= cmd= n=0\n"
				  "\tfor ((i = 1; i < COMP_CWORD && n < 2; i++)); do\n"
				  "\t\tcase ${COMP_WORDS[i]} in\n"
				  "\t\t--plugin) i=$((i + 1)); [[ ${COMP_WORDS[i]} != = ]] || i=$((i + 1)); continue ;;\n"
				  "\t\t-*) continue ;;\n\t\tesac\n"
				  "\t\tcmd+=\"${COMP_WORDS[i]} \"; n=$((n + 1))\n");
	g_autofree const char **words = cli_words(tables, NULL);
	g_autofree char *all = g_strjoinv(" ", (char **)words);

	g_string_append(s, "\t\tcase $cmd in\n");
	for (unsigned i = 0; words[i]; i++)
		if (cli_find(tables, NULL, words[i]))
			g_string_append_printf(s, "\t\t'%s ') n=2 ;;\n", words[i]);
	g_string_append(s, "\t\tesac\n\tdone\n\t[[ $prev == = ]] && prev=${COMP_WORDS[COMP_CWORD-2]}\n"
			   "\t[[ $cur == = ]] && cur=\n\tcase \"$cmd$prev\" in\n");
	for (cmd_tables t = tables; *t; t++) {
		for (const struct cmd *const *c = *t; *c; c++) {
			g_autofree char *title = cmd_title(*c), *prefix = g_strdup_printf("\"%s \"'", title);

			bash_values(s, prefix, (*c)->options);
		}
	}
	bash_values(s, "*'", cli_globals);
	g_string_append(s, "\tesac\n\tif [[ -z $w && -z $files ]]; then\n\t\tcase $cmd in\n");
	g_string_append_printf(s, "\t\t'') w='%s", all);
	bash_options(s, cli_globals);
	g_string_append(s, "' ;;\n");
	for (unsigned i = 0; words[i]; i++) {
		g_autofree const char **verbs = cli_words(tables, words[i]);
		g_autofree char *joined = g_strjoinv(" ", (char **)verbs);

		if (verbs[0])
			g_string_append_printf(s, "\t\t'%s ') w='%s' ;;\n", words[i], joined);
	}
	for (cmd_tables t = tables; *t; t++) {
		for (const struct cmd *const *c = *t; *c; c++) {
			g_autofree char *title = cmd_title(*c);
			int file = (*c)->args && strstr((*c)->args, "FILE");

			g_string_append_printf(s, "\t\t'%s ') w='", title);
			bash_options(s, (*c)->options);
			bash_options(s, cli_globals);
			g_string_append_printf(s, "'%s ;;\n", file ? " files=1" : "");
		}
	}
	g_string_append(s, "\t\tesac\n\tfi\n\tCOMPREPLY=($(compgen -W \"$w\" -- \"$cur\"))\n"
			   "\t[[ -z $files ]] || COMPREPLY+=($(compgen -f -- \"$cur\"))\n}\n"
			   "complete -F _vhost vhost\n");
	return s;
}
