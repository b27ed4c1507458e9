/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A plugin's options in a definition file (pools, networks): the group [options]. One that is given more than once stands there as
 * NAME, NAME#2, NAME#3. */
#ifndef PLUG_OPTFILE_H
#define PLUG_OPTFILE_H

#include <glib.h>
#include "plug/options.h"

/* Options that optset_parse() has taken, so that they mean the same wherever the file is read: paths are absolute, the main
 * option has its name. */
int optfile_put(GKeyFile *kf, vh_schema s, const struct kvs *options, struct vh_err *e);
void optfile_get(GKeyFile *kf, struct kvs *out); /* kvs_clear */
int optfile_same(GKeyFile *a, GKeyFile *b);

#endif
