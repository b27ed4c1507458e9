/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Dispatch, and what is made from the command tables: help, the man page, completion, JSON. */
#ifndef CMD_CLI_H
#define CMD_CLI_H

#include <glib.h>
#include "cmd/cmd.h"

/* A NULL-terminated list of tables, each NULL-terminated: main has the program's, tests have their own. */
typedef const struct cmd *const *const *cmd_tables;

/* Runs argv (argv[0] is skipped); returns the exit status. Errors are on standard error already. */
int cli_run(cmd_tables tables, int argc, char **argv);

/* The options that every command takes. */
extern const vh_schema cli_globals;

/* NULL when there is none; noun NULL: a short command. */
const struct cmd *cli_find(cmd_tables tables, const char *noun, const char *verb);
int cli_has_noun(cmd_tables tables, const char *noun);
/* The first words (nouns and short commands), or a noun's verbs; each once, in the tables' order. g_free the array. */
const char **cli_words(cmd_tables tables, const char *noun);
char cmd_letter(const struct cmd *c, const char *option); /* of an option, 0: none */
char *cmd_title(const struct cmd *c); /* "pool create"; g_free */

GString *help_top(cmd_tables tables);
GString *help_noun(cmd_tables tables, const char *noun);
GString *help_command(const struct cmd *c);
GString *help_man(cmd_tables tables);
GString *help_bash(cmd_tables tables);
void help_json(JsonBuilder *b, cmd_tables tables, const char *noun, const char *verb); /* NULL: all */

extern const struct cmd *const cmd_help[]; /* help, completion */
/* The tables that `vhost help` describes: those of the cli_run() that runs. */
cmd_tables cli_current(void);

#endif
