/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Typed values from what a person typed, by a plugin's schema (vhost/opt.h). */
#ifndef PLUG_OPTIONS_H
#define PLUG_OPTIONS_H

#include <vhost/opt.h>
#include "util/err.h"
#include "util/parse.h"

#define OPTIONS_MAX 256u /* of one scope */
#define OPT_FLAGS_KNOWN (VH_OPT_REQUIRED | VH_OPT_REPEAT | VH_OPT_LIVE | VH_OPT_DEPRECATED | VH_OPT_MAIN | VH_OPT_NIC)

struct optset; /* owns the values; their names point into the schema */
/* Every key of `given` must be in the schema (near names are suggested); defaults are applied, ranges checked. `what`
 * names the scope in errors: "pool type dir". A NULL schema takes no option. `given` may be NULL. Values come in the
 * schema's order, repeated ones in the order given. A part without a key is the MAIN option's. */
int optset_parse(vh_schema s, const struct kvs *given, const char *what, struct optset **out, struct vh_err *e);
const struct vh_opts *optset_get(const struct optset *o); /* NULL for NULL */
void optset_free(struct optset *o);
/* The keys of `given` that start with prefix, without it; used for `pool.`, `format.` options. Pointers into `given`;
 * only out->v is the caller's: g_free. */
void kvs_with_prefix(const struct kvs *given, const char *prefix, struct kvs *out);
void kvs_without_prefix(const struct kvs *given, const char *prefix, struct kvs *out); /* the others */

/* A schema as an array of structs of this host's size, for showing it; g_free. Returns how many. */
unsigned schema_import(vh_schema s, struct vh_opt **out);
/* Whether a schema keeps the rules of vhost/opt.h; defaults are parsed as well. */
int schema_check(vh_schema s, struct vh_err *e);
const char *opt_type_name(const struct vh_opt *o); /* "size", as in JSON */
char *opt_form(const struct vh_opt *o);            /* "SIZE", "on|off", "a|b|c"; g_free */
char *opt_range_text(const struct vh_opt *o);      /* "1 to 64", NULL: no bounds; g_free */

#endif
