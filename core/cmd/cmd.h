/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Commands: one table parses, makes --help, the man page and shell completion. One file per noun. */
#ifndef CMD_CMD_H
#define CMD_CMD_H

#include <json-glib/json-glib.h>
#include <vhost/opt.h>
#include "plug/options.h"
#include "util/err.h"

struct cmd_ctx {
	const struct cmd *cmd;
	const struct vh_opts *opts; /* of cmd->options, repeated ones in order */
	char **args; unsigned n_args; /* NULL-terminated */
	unsigned n_free; /* so many of args, the last ones, are free options */
	int json, verbose, quiet;
};
/* `vhost NOUN VERB ARGS`; short ones (run, doctor) have no noun. */
struct cmd {
	const char *noun, *verb;
	const char *args;      /* "NAME [FILE]": checked: mandatory, [optional], a last ... repeats */
	const char *summary;   /* one line */
	const char *help;      /* more, or NULL */
	vh_schema options;
	int (*run)(struct cmd_ctx *c, struct vh_err *e); /* exit status >= 0, or negative errno with e set */
	const char *letters; /* one-letter forms of options, "f=format p=progress"; q is always --quiet. NULL: none */
	int free_options; /* unknown --x=y (or --x y) are handed on as cmd_ctx args "x=y", behind the others (plugin options) */
};
extern const struct cmd *const cmd_plugin[], *const cmd_pool[], *const cmd_vol[], *const cmd_img[], *const cmd_crashtest[], *const cmd_net[],
	*const cmd_vm[], *const cmd_run[], *const cmd_doctor[], *const cmd_autostart[]; /* NULL-terminated, one per file */

/* Results: a JSON object to standard output with --json, else the text form. */
void out_json(JsonBuilder *b); /* takes the builder's root; prints one line; frees it */
/* That it was done, of the object that is the first argument: "pool NAME started", or with --json {name, result}. */
int out_done(struct cmd_ctx *c, const char *noun, const char *result);
/* Members of an object. A text that is no UTF-8 is mended; NULL: null. */
void js_text(JsonBuilder *b, const char *name, const char *value);
void js_bool(JsonBuilder *b, const char *name, int value);
/* A table for people: header and cells, columns aligned; right[i] != 0 aligns to the right. */
struct out_table;
struct out_table *out_table_new(const char *const *header, const int *right);
void out_table_row(struct out_table *t, ...); /* one const char * per column */
void out_table_cells(struct out_table *t, const char *const *cell); /* the same, of an array */
void out_table_print(struct out_table *t);    /* and frees */
void out_table_free(struct out_table *t);

#endif
