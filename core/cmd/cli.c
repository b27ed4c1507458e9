/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "cmd/cli.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "plug/plug.h"
#include "util/log.h"

#define OPT(NAME, TYPE, FLAGS, DOC) &(const struct vh_opt){ \
	.size = sizeof(struct vh_opt), .type = TYPE, .flags = FLAGS, .name = NAME, .doc = DOC }

static const struct vh_opt *const globals[] = {
	OPT("json", VH_OPT_BOOL, 0, "Print results and errors as JSON"),
	OPT("verbose", VH_OPT_BOOL, 0, "Say more on standard error (VHOST_LOG=debug says all)"),
	OPT("quiet", VH_OPT_BOOL, 0, "No progress bars, no warnings"),
	OPT("plugin", VH_OPT_PATH, VH_OPT_REPEAT, "A plugin's file to use before those of its name elsewhere"),
	OPT("help", VH_OPT_BOOL, 0, "Explain the command, and end"),
	OPT("version", VH_OPT_BOOL, 0, "Print the version, and end"),
	NULL,
};
const vh_schema cli_globals = globals;

static cmd_tables current;

cmd_tables cli_current(void)
{
	return current;
}

/* ---- the tables ---- */

const struct cmd *cli_find(cmd_tables tables, const char *noun, const char *verb)
{
	for (; *tables; tables++)
		for (const struct cmd *const *c = *tables; *c; c++)
			if (!g_strcmp0((*c)->noun, noun) && !g_strcmp0((*c)->verb, verb))
				return *c;
	return NULL;
}

int cli_has_noun(cmd_tables tables, const char *noun)
{
	for (; *tables; tables++)
		for (const struct cmd *const *c = *tables; *c; c++)
			if ((*c)->noun && !strcmp((*c)->noun, noun))
				return 1;
	return 0;
}

const char **cli_words(cmd_tables tables, const char *noun)
{
	GPtrArray *words = g_ptr_array_new();
	const char *w;
	guint i;

	for (; *tables; tables++) {
		for (const struct cmd *const *c = *tables; *c; c++) {
			if (noun)
				w = (*c)->noun && !strcmp((*c)->noun, noun) ? (*c)->verb : NULL;
			else
				w = (*c)->noun ? (*c)->noun : (*c)->verb;
			for (i = 0; w && i < words->len && strcmp(words->pdata[i], w); i++)
				;
			if (w && i == words->len)
				g_ptr_array_add(words, (void *)w);
		}
	}
	g_ptr_array_add(words, NULL);
	return (const char **)g_ptr_array_free(words, FALSE);
}

char *cmd_title(const struct cmd *c)
{
	return c->noun ? g_strconcat(c->noun, " ", c->verb, NULL) : g_strdup(c->verb);
}

char cmd_letter(const struct cmd *c, const char *option)
{
	size_t n = strlen(option);

	for (const char *l = c->letters; l && *l; l += strcspn(l, " "), l += strspn(l, " "))
		if (l[0] && l[1] == '=' && !strncmp(l + 2, option, n) && (!l[2 + n] || l[2 + n] == ' '))
			return l[0];
	return 0;
}

/* ---- one command line ---- */

struct line {
	cmd_tables tables;
	const struct cmd *cmd; /* NULL as long as it is not known */
	const char *noun;
	char *title; /* of cmd, for errors */
	int json, verbose, quiet, help, version;
	struct kvs given;          /* of cmd->options; strings are argv's or texts' */
	GPtrArray *args, *free_options, *texts;
};

static const struct vh_opt *schema_find(vh_schema s, const char *name)
{
	for (; s && *s; s++)
		if (!strcmp((*s)->name, name))
			return *s;
	return NULL;
}

static void suggest_word(const char *word, const char **words, const char *what, struct vh_err *e)
{
	const char *near = nearest(word, words);
	g_autofree char *all = NULL;

	if (near) {
		err_remedy(e, "did you mean %s?", near);
	} else {
		all = g_strjoinv(", ", (char **)words);
		err_remedy(e, "%s: %s", what, all);
	}
}

static int unknown_option(const struct line *l, const char *name, struct vh_err *e)
{
	g_autoptr(GPtrArray) names = g_ptr_array_new();
	const char *near;

	for (vh_schema s = l->cmd ? l->cmd->options : NULL; s && *s; s++)
		g_ptr_array_add(names, (void *)(*s)->name);
	for (vh_schema s = globals; *s; s++)
		g_ptr_array_add(names, (void *)(*s)->name);
	g_ptr_array_add(names, NULL);
	near = nearest(name, (const char *const *)names->pdata);
	err_usage(e, "there is no option --%s", name);
	if (near)
		err_remedy(e, "did you mean --%s?", near);
	else
		err_remedy(e, "see `vhost%s%s --help`", l->title ? " " : "", l->title ? l->title : "");
	return -EINVAL;
}

static int take_global(struct line *l, const struct vh_opt *o, const char *value, struct vh_err *e)
{
	static const struct { const char *name; size_t at; } flags[] = {
		{ "json", offsetof(struct line, json) },       { "verbose", offsetof(struct line, verbose) },
		{ "quiet", offsetof(struct line, quiet) },     { "help", offsetof(struct line, help) },
		{ "version", offsetof(struct line, version) },
	};

	if (!strcmp(o->name, "plugin"))
		return plug_add_file(value, e);
	for (unsigned i = 0; i < G_N_ELEMENTS(flags); i++)
		if (!strcmp(o->name, flags[i].name) && parse_bool(value, (int *)(void *)((char *)l + flags[i].at), e)) {
			err_context(e, "option --%s", o->name);
			err_status(e, EXIT_USAGE);
			return -EINVAL;
		}
	return 0;
}

static int is_flag_word(const char *s)
{
	static const char *const words[] = { "on", "off", "yes", "no", "true", "false", NULL };
	return g_strv_contains(words, s);
}

/* An option and its value, NULL when none is attached to it: a flag stands alone, else the next argument is the value. */
static int give_option(struct line *l, const char *name, const char *value, int argc, char **argv, int *i, struct vh_err *e)
{
	const struct vh_opt *global = schema_find(globals, name), *o;
	struct kv kv = { .key = (char *)name };

	o = global ? global : l->cmd ? schema_find(l->cmd->options, name) : NULL;
	if (!o && !(l->cmd && l->cmd->free_options))
		return unknown_option(l, name, e);
	if (!value && o && o->type == VH_OPT_BOOL) {
		/* `--rng off` as well as `--rng=off`; a VM called "off" is named by --name. */
		value = !global && *i + 1 < argc && is_flag_word(argv[*i + 1]) ? argv[++*i] : "on";
	} else if (!value && *i + 1 < argc && strncmp(argv[*i + 1], "--", 2)) {
		value = argv[++*i];
	} else if (!value && !o) {
		value = "on"; /* of a plugin: only a flag can stand alone */
	} else if (!value) {
		err_usage(e, "option --%s needs a value", name);
		err_remedy(e, "write --%s=VALUE", name);
		return -EINVAL;
	}
	if (global)
		return take_global(l, global, value, e);
	if (!o) {
		g_ptr_array_add(l->free_options, g_strconcat(name, "=", value, NULL));
		return 0;
	}
	l->given.v = g_renew(struct kv, l->given.v, l->given.n + 1);
	kv.value = (char *)value;
	l->given.v[l->given.n++] = kv;
	return 0;
}

/* argv[*i] begins with "--" and more. Values: --name=value, or the next argument; flags stand alone. */
static int take_option(struct line *l, int argc, char **argv, int *i, struct vh_err *e)
{
	const char *arg = argv[*i] + 2, *eq = strchr(arg, '=');
	char *name = g_strndup(arg, eq ? (size_t)(eq - arg) : strlen(arg));

	g_ptr_array_add(l->texts, name);
	return give_option(l, name, eq ? eq + 1 : NULL, argc, argv, i, e);
}

/* argv[*i] is "-x...": letters of flags may stand together, the first with a value ends them: -pq, -fraw, -f raw. */
static int take_letters(struct line *l, int argc, char **argv, int *i, struct vh_err *e)
{
	const char *arg = argv[*i] + 1;

	for (; *arg; arg++) {
		const struct vh_opt *o = NULL;
		const char *name = NULL, *p;
		char *own;
		int r;

		for (p = l->cmd->letters; *p && !name; p += strcspn(p, " "), p += strspn(p, " "))
			if (p[0] == *arg && p[1] == '=')
				name = p + 2;
		if (!name && *arg == 'q')
			name = "quiet";
		if (!name) {
			err_usage(e, "there is no option -%c", *arg);
			err_remedy(e, "see `vhost %s --help`", l->title);
			return -EINVAL;
		}
		own = g_strndup(name, strcspn(name, " "));
		g_ptr_array_add(l->texts, own);
		o = schema_find(globals, own);
		o = o ? o : schema_find(l->cmd->options, own);
		if (o && o->type == VH_OPT_BOOL)
			r = give_option(l, own, "on", argc, argv, i, e);
		else
			return give_option(l, own, arg[1] ? arg + 1 : NULL, argc, argv, i, e);
		if (r)
			return r;
	}
	return 0;
}

/* The next word: a noun, a short command, a verb; behind them an argument. */
static int take_word(struct line *l, const char *word, struct vh_err *e)
{
	g_autofree const char **words = NULL;

	if (l->cmd) {
		g_ptr_array_add(l->args, g_strdup(word));
		return 0;
	}
	if (!l->noun) {
		l->cmd = cli_find(l->tables, NULL, word);
		if (!l->cmd && cli_has_noun(l->tables, word))
			l->noun = word;
		if (!l->cmd && !l->noun) {
			words = cli_words(l->tables, NULL);
			err_usage(e, "there is no command '%s'", word);
			suggest_word(word, words, "commands", e);
			return -EINVAL;
		}
	} else {
		l->cmd = cli_find(l->tables, l->noun, word);
		if (!l->cmd) {
			words = cli_words(l->tables, l->noun);
			err_object(e, "%s", l->noun);
			err_usage(e, "there is no command '%s %s'", l->noun, word);
			suggest_word(word, words, "commands", e);
			return -EINVAL;
		}
	}
	if (l->cmd)
		l->title = cmd_title(l->cmd);
	return 0;
}

static int parse_line(struct line *l, int argc, char **argv, struct vh_err *e)
{
	int i, words_only = 0, r = 0;

	for (i = 1; i < argc && !r; i++) {
		if (words_only || argv[i][0] != '-' || !argv[i][1])
			r = take_word(l, argv[i], e);
		else if (!strcmp(argv[i], "--"))
			words_only = 1;
		else if (!strcmp(argv[i], "-h"))
			l->help = 1;
		else if (argv[i][1] == '-')
			r = take_option(l, argc, argv, &i, e);
		else if (l->cmd && g_ascii_isdigit(argv[i][1]))
			r = take_word(l, argv[i], e); /* a negative number */
		else if (l->cmd && l->cmd->letters)
			r = take_letters(l, argc, argv, &i, e);
		else
			r = unknown_option(l, argv[i] + 1, e);
	}
	/* How an error is shown must not depend on where it is: --json counts from anywhere. */
	for (; i < argc && !words_only; i++) {
		words_only = !strcmp(argv[i], "--");
		l->json |= !strcmp(argv[i], "--json");
	}
	return r;
}

/* "NAME [FILE]", "FILE...": mandatory, optional, the last may repeat. */
static int check_args(const struct line *l, struct vh_err *e)
{
	g_auto(GStrv) spec = g_strsplit(l->cmd->args ? l->cmd->args : "", " ", -1);
	unsigned i, max = 0, repeat = 0;

	for (i = 0; spec[i]; i++) {
		if (!*spec[i])
			continue;
		repeat |= !!strstr(spec[i], "...");
		if (spec[i][0] != '[' && max >= l->args->len) {
			err_usage(e, "%s is missing", spec[i]);
			err_remedy(e, "write `vhost %s %s`", l->title, l->cmd->args);
			return -EINVAL;
		}
		max++;
	}
	if (l->args->len > max && !repeat) {
		err_usage(e, "there is no place for the argument '%s'", (char *)l->args->pdata[max]);
		err_remedy(e, "write `vhost %s%s%s`; a value with spaces needs quotes", l->title, max ? " " : "",
			   max ? l->cmd->args : "");
		return -EINVAL;
	}
	return 0;
}

static int check_required(const struct line *l, struct vh_err *e)
{
	unsigned i;

	for (vh_schema s = l->cmd->options; s && *s; s++) {
		if (!((*s)->flags & VH_OPT_REQUIRED))
			continue;
		for (i = 0; i < l->given.n && strcmp(l->given.v[i].key, (*s)->name); i++)
			;
		if (i == l->given.n) {
			g_autofree char *form = opt_form(*s);

			err_usage(e, "option --%s is missing: %s", (*s)->name, (*s)->doc);
			err_remedy(e, "add --%s %s", (*s)->name, form);
			return -EINVAL;
		}
	}
	return 0;
}

static int run_command(struct line *l, struct vh_err *e)
{
	struct optset *set = NULL;
	struct cmd_ctx ctx = { .cmd = l->cmd, .json = l->json, .verbose = l->verbose, .quiet = l->quiet };
	int r = check_args(l, e);

	if (!r)
		r = check_required(l, e);
	if (!r) {
		r = optset_parse(l->cmd->options, &l->given, l->title, &set, e);
		if (r < 0)
			err_status(e, EXIT_USAGE);
	}
	if (r < 0) {
		err_object(e, "%s", l->title);
		return r;
	}
	ctx.opts = optset_get(set);
	ctx.n_free = l->free_options->len;
	for (guint i = 0; i < l->free_options->len; i++)
		g_ptr_array_add(l->args, g_strdup(l->free_options->pdata[i]));
	ctx.n_args = l->args->len;
	g_ptr_array_add(l->args, NULL);
	ctx.args = (char **)l->args->pdata;
	r = l->cmd->run(&ctx, e);
	if (r < 0 && !e->code)
		err_set(e, r, "%s", g_strerror(-r));
	if (r < 0 && e->status == EXIT_USAGE)
		err_object(e, "%s", l->title);
	optset_free(set);
	return r;
}

static void print_and_free(GString *s, FILE *to)
{
	fputs(s->str, to);
	g_string_free(s, TRUE);
}

static void print_version(int json)
{
	JsonBuilder *b;

	if (!json) {
		printf("vhost %s (plugin ABI %u.%u draft %u)\n", VHOST_VERSION, VH_ABI_MAJOR, VH_ABI_MINOR, VH_ABI_DRAFT);
		return;
	}
	b = json_builder_new();
	json_builder_begin_object(b);
	json_builder_set_member_name(b, "version");
	json_builder_add_string_value(b, VHOST_VERSION);
	json_builder_set_member_name(b, "abi_major");
	json_builder_add_int_value(b, VH_ABI_MAJOR);
	json_builder_set_member_name(b, "abi_minor");
	json_builder_add_int_value(b, VH_ABI_MINOR);
	json_builder_set_member_name(b, "abi_draft");
	json_builder_add_int_value(b, VH_ABI_DRAFT);
	json_builder_end_object(b);
	out_json(b);
}

static void print_help(const struct line *l)
{
	JsonBuilder *b;

	if (l->json) {
		b = json_builder_new();
		help_json(b, l->tables, l->cmd ? l->cmd->noun : l->noun, l->cmd ? l->cmd->verb : NULL);
		out_json(b);
	} else {
		print_and_free(l->cmd ? help_command(l->cmd) : l->noun ? help_noun(l->tables, l->noun) : help_top(l->tables), stdout);
	}
}

static void line_clear(struct line *l)
{
	g_ptr_array_free(l->args, TRUE);
	g_ptr_array_free(l->free_options, TRUE);
	g_ptr_array_free(l->texts, TRUE);
	g_free(l->given.v);
	g_free(l->title);
}

int cli_run(cmd_tables tables, int argc, char **argv)
{
	struct line l = { .tables = tables, .args = g_ptr_array_new_with_free_func(g_free),
		.free_options = g_ptr_array_new_with_free_func(g_free), .texts = g_ptr_array_new_with_free_func(g_free) };
	ERR_AUTO(e);
	int r;

	current = tables;
	signal(SIGXFSZ, SIG_IGN); /* a limit of the user's is an error of that file's */
	signal(SIGPIPE, SIG_IGN); /* a peer that goes is an error of that peer's, not our end */
	r = parse_line(&l, argc, argv, &e);
	if (l.quiet)
		log_configure("error");
	else if (l.verbose && !log_enabled(VH_LOG_INFO, NULL))
		log_configure("info");
	if (r < 0) {
		if (l.title)
			err_object(&e, "%s", l.title);
	} else if (l.version) {
		print_version(l.json);
	} else if (l.help) {
		print_help(&l);
	} else if (!l.cmd) {
		if (l.json) {
			r = err_usage(&e, "a command is missing");
			err_remedy(&e, "see `vhost%s%s --help`", l.noun ? " " : "", l.noun ? l.noun : "");
		} else {
			print_and_free(l.noun ? help_noun(tables, l.noun) : help_top(tables), stderr);
			r = EXIT_USAGE;
		}
	} else {
		r = run_command(&l, &e);
	}
	/* A full disk or a closed pipe must not look like success. */
	if (r >= 0 && (fflush(stdout) || ferror(stdout)) && errno != EPIPE)
		r = err_set(&e, errno ? -errno : -EIO, "cannot write the results: %s", g_strerror(errno ? errno : EIO));
	if (r < 0)
		r = err_report(&e, l.json);
	line_clear(&l);
	return r;
}
