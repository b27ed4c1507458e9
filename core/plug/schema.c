/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Schemas for people: what an option takes, and whether a plugin's schema keeps the rules of vhost/opt.h. */
#include <glib.h>
#include <string.h>
#include "plug/options.h"

static const struct {
	uint32_t type;
	const char *name, *form;
} types[] = {
	{VH_OPT_STR, "string", "TEXT"},        {VH_OPT_PATH, "path", "PATH"},
	{VH_OPT_SIZE, "size", "SIZE"},         {VH_OPT_INT, "integer", "N"},
	{VH_OPT_BOOL, "boolean", "on|off"},    {VH_OPT_ENUM, "choice", NULL},
	{VH_OPT_SECRET, "secret", "SECRET"},   {VH_OPT_HOSTPORT, "hostport", "HOST:PORT"},
	{VH_OPT_MAC, "mac", "MAC"},            {VH_OPT_DURATION, "duration", "TIME"},
};

const char *opt_type_name(const struct vh_opt *o)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(types); i++)
		if (types[i].type == o->type)
			return types[i].name;
	return "unknown";
}

char *opt_form(const struct vh_opt *o)
{
	if (o->type == VH_OPT_ENUM && o->choices)
		return g_strjoinv("|", (char **)o->choices);
	for (unsigned i = 0; i < G_N_ELEMENTS(types); i++)
		if (types[i].type == o->type && types[i].form)
			return g_strdup(types[i].form);
	return g_strdup("VALUE");
}

static char *bound(const struct vh_opt *o, int64_t v)
{
	if (o->type == VH_OPT_DURATION)
		return v % 1000000000 ? g_strdup_printf("%.6gms", (double)v / 1e6) :
					g_strdup_printf("%" G_GINT64_FORMAT "s", v / 1000000000);
	if (o->type == VH_OPT_SIZE) {
		static const char units[] = " KMGT";
		unsigned u = 0;

		while (v && v % 1024 == 0 && u < 4) {
			v /= 1024;
			u++;
		}
		return u ? g_strdup_printf("%" G_GINT64_FORMAT "%c", v, units[u]) : g_strdup_printf("%" G_GINT64_FORMAT, v);
	}
	return g_strdup_printf("%" G_GINT64_FORMAT, v);
}

char *opt_range_text(const struct vh_opt *o)
{
	g_autofree char *lo = NULL, *hi = NULL;

	if (o->type == VH_OPT_STR)
		return o->max > 0 ? g_strdup_printf("%" G_GINT64_FORMAT " to %" G_GINT64_FORMAT " bytes long", o->min, o->max) :
				    NULL;
	if ((o->type != VH_OPT_SIZE && o->type != VH_OPT_INT && o->type != VH_OPT_DURATION) || (!o->min && !o->max))
		return NULL;
	lo = bound(o, o->min);
	if (o->max == INT64_MAX)
		return g_strdup_printf("at least %s", lo);
	hi = bound(o, o->max);
	return g_strdup_printf("%s to %s", lo, hi);
}

static int valid_name(const char *s)
{
	if (!s || !g_ascii_islower(*s))
		return 0;
	for (; *s; s++)
		if (!g_ascii_islower(*s) && !g_ascii_isdigit(*s) && *s != '-')
			return 0;
	return 1;
}

static int check_option(const struct vh_opt *o, struct vh_err *e)
{
	size_t doc = o->doc ? strlen(o->doc) : 0;

	if (o->size < sizeof(*o))
		return err_set(e, -EPROTO, "its size %u is shorter than version 1.0's", o->size);
	if (!valid_name(o->name))
		return err_set(e, -EPROTO, "a name is made of a-z, 0-9 and -, and begins with a letter");
	if (!doc || o->doc[doc - 1] == '.')
		return err_set(e, -EPROTO, "%s", doc ? "its text ends with a full stop" : "it has no text");
	if (!strcmp(opt_type_name(o), "unknown"))
		return err_set(e, -EPROTO, "its type %u is unknown", o->type);
	if (o->flags & VH_MUST_UNDERSTAND & ~OPT_FLAGS_KNOWN)
		return err_set(e, -EOPNOTSUPP, "it has unknown flags that must be understood");
	if (o->type == VH_OPT_ENUM && (!o->choices || !o->choices[0]))
		return err_set(e, -EPROTO, "a choice without choices");
	if (o->max < o->min)
		return err_set(e, -EPROTO, "its highest value is below its lowest");
	if (o->defval && o->flags & VH_OPT_REQUIRED)
		return err_set(e, -EPROTO, "it is required and yet has a default");
	return 0;
}

static int check_default(const struct vh_opt *o, struct vh_err *e)
{
	const struct vh_opt *one[] = {o, NULL};
	struct optset *s;
	int r;

	if (!o->defval)
		return 0;
	r = optset_parse(one, NULL, "schema", &s, e);
	if (r >= 0)
		optset_free(s);
	return r;
}

int schema_check(vh_schema s, struct vh_err *e)
{
	unsigned mains = 0;

	for (unsigned i = 0; s && s[i]; i++) {
		int r = i < OPTIONS_MAX ? check_option(s[i], e) : err_set(e, -EPROTO, "the schema does not end");

		if (r >= 0)
			r = check_default(s[i], e);
		for (unsigned j = 0; r >= 0 && j < i; j++)
			if (!strcmp(s[j]->name, s[i]->name))
				r = err_set(e, -EPROTO, "it is there twice");
		mains += !!(s[i]->flags & VH_OPT_MAIN);
		if (r >= 0 && mains > 1)
			r = err_set(e, -EPROTO, "it is a second main option");
		if (r < 0) {
			err_context(e, "option %s", s[i]->size >= sizeof(**s) && s[i]->name ? s[i]->name : "?");
			return r;
		}
	}
	return 0;
}
