/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Typed values from what a person typed, by a plugin's schema (vhost/opt.h). */
#ifndef PLUG_OPTIONS_H
#define PLUG_OPTIONS_H

#include <vhost/opt.h>
#include "util/err.h"
#include "util/parse.h"

struct optset; /* owns the values */
/* Every key of `given` must be in the schema (near names are suggested); defaults are applied, ranges checked. `what`
 * names the scope in errors: "pool type dir". A NULL schema takes no option. */
int optset_parse(vh_schema s, const struct kvs *given, const char *what, struct optset **out, struct vh_err *e);
const struct vh_opts *optset_get(const struct optset *o);
void optset_free(struct optset *o);
/* The keys of `given` that start with prefix, without it; used for `pool.`, `format.` options. Pointers into `given`. */
void kvs_with_prefix(const struct kvs *given, const char *prefix, struct kvs *out);

#endif
