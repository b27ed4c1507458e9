/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd/cli.h"

#define OPT(NAME, TYPE, ...) &(const struct vh_opt){ \
	.size = sizeof(struct vh_opt), .type = TYPE, .name = NAME, .doc = "the " NAME, __VA_ARGS__ }

static GString *seen;

static int record(struct cmd_ctx *c, struct vh_err *e)
{
	g_string_append_printf(seen, "%s%s%s", c->cmd->noun ? c->cmd->noun : "", c->cmd->noun ? " " : "", c->cmd->verb);
	for (unsigned i = 0; i < c->n_args; i++)
		g_string_append_printf(seen, " <%s>", c->args[i]);
	g_assert_null(c->args[c->n_args]);
	for (unsigned i = 0; i < c->opts->n; i++) {
		const struct vh_val *v = c->opts->val[i];

		if (v->str)
			g_string_append_printf(seen, " %s=%s", v->name, v->str);
		else
			g_string_append_printf(seen, " %s=%" G_GINT64_FORMAT, v->name, v->num);
	}
	g_string_append_printf(seen, "%s%s%s free=%u", c->json ? " json" : "", c->verbose ? " verbose" : "",
			       c->quiet ? " quiet" : "", c->n_free);
	return 0;
}

static int fails(struct cmd_ctx *c, struct vh_err *e)
{
	if (c->n_args)
		return atoi(c->args[0]);
	err_object(e, "pool web");
	err_remedy(e, "stop it");
	return err_set(e, -EBUSY, "is in use");
}

static int prints(struct cmd_ctx *c, struct vh_err *e)
{
	static const char *const header[] = { "NAME", "SIZE", "NOTE", NULL };
	static const int right[] = { 0, 1, 0 };
	struct out_table *t = out_table_new(header, right);

	out_table_row(t, "a", "1", "x");
	out_table_row(t, "l\xc3\xa4nger\033", "10 GiB", NULL);
	out_table_print(t);
	return 0;
}

static const char *const words[] = { "dir", "lvm", NULL };
static const struct vh_opt *const create_options[] = {
	OPT("type", VH_OPT_ENUM, .flags = VH_OPT_REQUIRED, .choices = words), OPT("size", VH_OPT_SIZE, .defval = "1K"),
	OPT("force", VH_OPT_BOOL, .defval = "off"), OPT("disk", VH_OPT_STR, .flags = VH_OPT_REPEAT), NULL,
};
static const struct cmd create = { .noun = "pool", .verb = "create", .args = "NAME [FILE]", .summary = "Make a pool",
	.options = create_options, .run = record };
static const struct cmd tune = { .noun = "pool", .verb = "tune", .args = "NAME...", .summary = "Tune pools", .run = record,
	.free_options = 1 };
static const struct cmd broken = { .noun = "pool", .verb = "broken", .args = "[N]", .summary = "Fail", .run = fails };
static const struct cmd list = { .noun = "pool", .verb = "list", .summary = "List pools", .help = ".dotted\n'quoted'",
	.run = prints };
static const struct cmd doctor = { .verb = "doctor", .summary = "Look around", .run = record };
static const struct cmd *const table_pool[] = { &create, &tune, &broken, &list, NULL };
static const struct cmd *const table_short[] = { &doctor, NULL };
static const struct cmd *const *const tables[] = { table_pool, table_short, cmd_help, NULL };

static int run_words(const char *line)
{
	g_auto(GStrv) argv = NULL;
	int argc;

	g_assert_true(g_shell_parse_argv(line, &argc, &argv, NULL));
	g_string_truncate(seen, 0);
	return cli_run(tables, argc, argv);
}

static void understood(void)
{
	static const struct { const char *line, *want; } t[] = {
		{ "vhost doctor", "doctor free=0" },
		{ "vhost pool create a --type dir", "pool create <a> type=dir size=1024 force=0 free=0" },
		{ "vhost pool create --type=lvm a b --size 2M --force", "pool create <a> <b> type=lvm size=2097152 force=1 free=0" },
		{ "vhost --quiet pool --verbose create a --json --type dir --force=off",
		  "pool create <a> type=dir size=1024 force=0 json verbose quiet free=0" },
		{ "vhost pool create a --type dir --disk=x,y=1 --disk z", "pool create <a> type=dir size=1024 force=0 disk=x,y=1 disk=z free=0" },
		{ "vhost pool create a --type dir --disk=--odd", "pool create <a> type=dir size=1024 force=0 disk=--odd free=0" },
		{ "vhost pool create --type dir -- --a -b", "pool create <--a> <-b> type=dir size=1024 force=0 free=0" },
		{ "vhost pool tune a b c", "pool tune <a> <b> <c> free=0" },
		{ "vhost pool tune --path /x a --thin --n=2 --host ''", "pool tune <a> <path=/x> <thin=on> <n=2> <host=> free=4" },
	};

	for (unsigned i = 0; i < G_N_ELEMENTS(t); i++) {
		g_assert_cmpint(run_words(t[i].line), ==, 0);
		g_assert_cmpstr(seen->str, ==, t[i].want);
	}
}

static const struct refusal { const char *line; int status; const char *text; } refusals[] = {
	{ "vhost bogus", 2, "vhost: there is no command 'bogus' (commands: pool, doctor, help, completion)\n" },
	{ "vhost pol create", 2, "vhost: there is no command 'pol' (did you mean pool?)\n" },
	{ "vhost pool craete", 2, "vhost: pool: there is no command 'pool craete' (did you mean create?)\n" },
	{ "vhost pool create a", 2, "vhost: pool create: option --type is missing: the type (add --type dir|lvm)\n" },
	{ "vhost pool create a --typ dir", 2, "vhost: pool create: there is no option --typ (did you mean --type?)\n" },
	{ "vhost pool create a --jsn", 2, "vhost: pool create: there is no option --jsn (did you mean --json?)\n" },
	{ "vhost pool create a --banana=1", 2,
	  "vhost: pool create: there is no option --banana (see `vhost pool create --help`)\n" },
	{ "vhost pool create a -x", 2, "vhost: pool create: there is no option --x (see `vhost pool create --help`)\n" },
	{ "vhost pool create a --size", 2, "vhost: pool create: option --size needs a value (write --size=VALUE)\n" },
	{ "vhost pool create a --size --force", 2, "vhost: pool create: option --size needs a value (write --size=VALUE)\n" },
	{ "vhost pool create --type dir", 2, "vhost: pool create: NAME is missing (write `vhost pool create NAME [FILE]`)\n" },
	{ "vhost pool create a b c --type dir", 2, "vhost: pool create: there is no place for the argument 'c' (*)\n" },
	{ "vhost doctor now", 2, "vhost: doctor: there is no place for the argument 'now' (*)\n" },
	{ "vhost pool create a --type raid", 2, "vhost: pool create: option type: 'raid' is none of dir, lvm\n" },
	{ "vhost pool create a --type dir --size ten", 2, "vhost: pool create: option size: 'ten' is not a size*\n" },
	{ "vhost pool create a --type dir --force=maybe", 2, "vhost: pool create: option force: 'maybe' is neither on nor off\n" },
	{ "vhost pool create a --type dir --type lvm", 2, "vhost: pool create: option type is given twice\n" },
	{ "vhost --json=x doctor", 2, "vhost: option --json: 'x' is neither on nor off\n" },
	{ "vhost --plugin /nonexistent/x.so doctor", 6, "vhost: *nonexistent/x.so*\n" },
	{ "vhost pool broken", 4, "vhost: pool web: is in use (stop it)\n" },
	{ "vhost pool broken 10", 10, "" },
	{ "vhost pool broken -5", 1, "vhost: Input/output error\n" },
	{ "vhost", 2, "Usage: vhost COMMAND*" },
	{ "vhost pool", 2, "Usage: vhost pool VERB*" },
	{ "vhost --json", 2, "{\"error\":\"EINVAL\",\"object\":null,\"message\":\"a command is missing\",\"remedy\":*}\n" },
	{ "vhost bogus --json", 2, "{\"error\":\"EINVAL\",\"object\":null,\"message\":*\"remedy\":\"commands: *}\n" },
	{ "vhost help bogus", 2, "vhost: help: there is no command 'bogus' (`vhost help` lists the commands)\n" },
	{ "vhost help pool creat", 2, "vhost: help: there is no command 'pool creat' (did you mean create?)\n" },
	{ "vhost completion fish", 2, "vhost: completion: there is completion for bash only, not for 'fish'\n" },
};

static void refused(gconstpointer arg)
{
	const struct refusal *r = arg;

	if (g_test_subprocess()) {
		int status = run_words(r->line);

		g_assert_cmpint(seen->len, ==, 0);
		_exit(status == r->status ? 0 : 100 + status);
	}
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_passed();
	g_test_trap_assert_stderr(r->text);
	g_test_trap_assert_stdout("");
}

static void shown(gconstpointer arg)
{
	const struct refusal *r = arg;

	if (g_test_subprocess())
		_exit(run_words(r->line));
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_passed();
	g_test_trap_assert_stdout(r->text);
	g_test_trap_assert_stderr("");
}

static const struct refusal outputs[] = {
	{ "vhost --help", 0, "Usage: vhost COMMAND*\n  pool *create | tune | broken | list\n*--json *" },
	{ "vhost -h pool", 0, "Usage: vhost pool VERB*create NAME ?FILE]*Make a pool\n*" },
	{ "vhost pool create --help", 0,
	  "Usage: vhost pool create NAME ?FILE] *Make a pool\n*--type dir|lvm *(required)\n*--size SIZE *(default 1K)\n*"
	  "--force *--disk TEXT *(may be repeated)\n*--json*" },
	{ "vhost help pool create", 0, "Usage: vhost pool create NAME *" },
	{ "vhost pool tune --help", 0, "*plugin help NAME*" },
	{ "vhost pool create --help --json", 0, "{\"commands\":?{\"noun\":\"pool\",\"verb\":\"create\",*\"choices\":?\"dir\",\"lvm\"]*" },
	{ "vhost help man", 0, ".TH VHOST 1*.SS \"vhost pool create NAME ?FILE]\"\n*\n\\&.dotted\n\\&'quoted'\n*" },
	{ "vhost completion bash", 0, "*complete -F _vhost vhost\n" },
	{ "vhost --version", 0, "vhost 0.*\n" },
	{ "vhost --version --json", 0, "{\"version\":\"0.*}\n" },
	{ "vhost pool list", 0, "NAME       SIZE  NOTE\na             1  x\nl\xc3\xa4nger?  10 GiB  -\n" },
};

/* The script must do what the table says when a shell runs it. */
static void completes(void)
{
	static const struct { const char *words, *want; } t[] = {
		{ "vhost po", "pool" }, { "vhost pool cr", "create" }, { "vhost pool create --ty", "--type" },
		{ "vhost pool create --type l", "lvm" }, { "vhost --json pool create a --type d", "dir" },
		{ "vhost pool create --size 1", "" }, { "vhost doctor --js", "--json" }, { "vhost pool create --type = d", "dir" },
	};
	GString *script = help_bash(tables);

	for (unsigned i = 0; i < G_N_ELEMENTS(t); i++) {
		g_autofree char *quoted = g_shell_quote(script->str), *out = NULL, *cmd = NULL, *full = NULL;
		g_autoptr(GError) error = NULL;
		int status;

		full = g_strdup_printf("%s\nCOMP_WORDS=(%s); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _vhost; echo -n \"${COMPREPLY[@]}\"",
				       script->str, t[i].words);
		g_free(quoted);
		quoted = g_shell_quote(full);
		cmd = g_strconcat("bash -uc ", quoted, NULL);
		g_assert_true(g_spawn_command_line_sync(cmd, &out, NULL, &status, &error));
		g_assert_cmpint(status, ==, 0);
		g_assert_cmpstr(out, ==, t[i].want);
	}
	g_string_free(script, TRUE);
}

static void full_disk_is_no_success(void)
{
	if (access("/dev/full", W_OK)) {
		g_test_skip("no /dev/full");
		return;
	}
	if (g_test_subprocess()) {
		if (!freopen("/dev/full", "w", stdout))
			_exit(99);
		_exit(run_words("vhost pool list") == EXIT_FAILED ? 0 : 100);
	}
	g_test_trap_subprocess(NULL, 0, 0);
	g_test_trap_assert_passed();
	g_test_trap_assert_stderr("vhost: cannot write the results: No space left on device\n");
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	seen = g_string_new(NULL);
	g_test_add_func("/cli/understood", understood);
	for (unsigned i = 0; i < G_N_ELEMENTS(refusals); i++) {
		g_autofree char *name = g_strdup_printf("/cli/refused/%u", i + 1);

		g_test_add_data_func(name, &refusals[i], refused);
	}
	for (unsigned i = 0; i < G_N_ELEMENTS(outputs); i++) {
		g_autofree char *name = g_strdup_printf("/cli/shown/%u", i + 1);

		g_test_add_data_func(name, &outputs[i], shown);
	}
	g_test_add_func("/cli/completes", completes);
	g_test_add_func("/cli/full-disk-is-no-success", full_disk_is_no_success);
	int r = g_test_run();

	g_string_free(seen, TRUE);
	return r;
}
