/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "fmt/options.h"

#include <glib.h>

int fmt_options_parse(const struct vh_format_ops *ops, const struct kvs *given, const char *what, struct fmt_options *out,
		      struct vh_err *e)
{
	struct kvs empty = {0}, own;
	int r;

	out->set = NULL;
	kvs_without_prefix(given ? given : &empty, OPT_BELOW, &own);
	kvs_with_prefix(given ? given : &empty, OPT_BELOW, &out->below);
	r = optset_parse(ops->open_options, &own, what, &out->set, e);
	g_free(own.v);
	if (r < 0)
		fmt_options_clear(out);
	return r;
}

int fmt_options_at(const struct vh_format_ops *ops, const struct kvs *below, uint32_t depth, struct fmt_options *out,
		   struct vh_err *e)
{
	struct kvs at, next;
	int r = 0;

	*out = (struct fmt_options){0};
	kvs_with_prefix(below, "", &at);
	for (uint32_t k = 1; k < depth; k++) {
		kvs_with_prefix(&at, OPT_BELOW, &next);
		g_free(at.v);
		at = next;
	}
	if (at.n)
		r = fmt_options_parse(ops, &at, ops->name, out, e);
	g_free(at.v);
	return r;
}

void fmt_options_clear(struct fmt_options *o)
{
	optset_free(o->set);
	g_free(o->below.v);
	*o = (struct fmt_options){0};
}
