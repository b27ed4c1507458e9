/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Options for opening an image: its own, and those of the images below it, whose names begin with "backing." once a step. */
#ifndef FMT_OPTIONS_H
#define FMT_OPTIONS_H

#include <vhost/format.h>
#include "plug/options.h"

#define OPT_BELOW "backing."

struct fmt_options {
	struct optset *set;
	struct kvs below; /* without the prefix; pointers into what was given */
};
/* given may be NULL. `what` names the scope in errors. */
int fmt_options_parse(const struct vh_format_ops *ops, const struct kvs *given, const char *what, struct fmt_options *out,
		      struct vh_err *e);
/* Of the image `depth` steps below the one for which `below` was given. */
int fmt_options_at(const struct vh_format_ops *ops, const struct kvs *below, uint32_t depth, struct fmt_options *out,
		   struct vh_err *e);
void fmt_options_clear(struct fmt_options *o);

#endif
