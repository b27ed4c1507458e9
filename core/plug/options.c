/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <string.h>
#include "plug/options.h"
#include "plug/secret.h"
#include "util/log.h"
#include "util/paths.h"

struct optset {
	struct vh_opts opts;
	GPtrArray *vals;  /* struct vh_val * */
	GPtrArray *texts; /* char * that the values point to */
};

static int has_bounds(const struct vh_opt *o)
{
	return o->min || o->max;
}

static const char *keep(struct optset *s, char *text)
{
	g_ptr_array_add(s->texts, text);
	return text;
}

static int check_range(const struct vh_opt *o, uint64_t v, const char *text, struct vh_err *e)
{
	int64_t max = has_bounds(o) ? o->max : INT64_MAX;

	if (v > INT64_MAX || (int64_t)v > max || (has_bounds(o) && (int64_t)v < o->min)) {
		g_autofree char *range = opt_range_text(o);

		return err_set(e, -ERANGE, "'%s' is out of range%s%s", text, range ? "; it must be " : "", range ? range : "");
	}
	return 0;
}

static int parse_enum(const struct vh_opt *o, const char *text, struct vh_val *v, struct vh_err *e)
{
	g_autofree char *all = NULL;
	const char *near;

	for (int64_t i = 0; o->choices && o->choices[i]; i++)
		if (!strcmp(o->choices[i], text)) {
			v->num = i;
			v->str = o->choices[i];
			return 0;
		}
	near = o->choices ? nearest(text, o->choices) : NULL;
	all = o->choices ? g_strjoinv(", ", (char **)o->choices) : g_strdup("nothing");
	err_set(e, -EINVAL, "'%s' is none of %s", text, all);
	if (near)
		err_remedy(e, "did you mean %s?", near);
	return -EINVAL;
}

/* host:port or [v6]:port. The host is not resolved, only its form is checked. */
static int parse_hostport(const char *text, struct vh_err *e)
{
	const char *colon = strrchr(text, ':'), *host = text, *end = colon;
	int64_t port;
	int v6 = *text == '[';

	if (!colon || (v6 && (colon == text || colon[-1] != ']')))
		return err_set(e, -EINVAL, "'%s' is not host:port or [address]:port", text);
	if (v6) {
		host++;
		end--;
	} else if (memchr(text, ':', (size_t)(colon - text))) {
		return err_set(e, -EINVAL, "'%s' has several colons; write an IPv6 address as [address]:port", text);
	}
	if (end <= host)
		return err_set(e, -EINVAL, "'%s' has no host", text);
	for (const char *p = host; p < end; p++)
		if (v6 ? !g_ascii_isxdigit(*p) && !strchr(":.%", *p) && !g_ascii_isalnum(*p)
		       : !g_ascii_isalnum(*p) && !strchr(".-_", *p))
			return err_set(e, -EINVAL, "'%s' has a character in its host that no host name has", text);
	if (!g_ascii_isdigit(colon[1]) || parse_int(colon + 1, &port, NULL) < 0 || port < 1 || port > 65535)
		return err_set(e, -EINVAL, "'%s' has no port from 1 to 65535", text);
	return 0;
}

static int parse_str(struct optset *s, const struct vh_opt *o, const char *text, struct vh_val *v, struct vh_err *e)
{
	size_t len = strlen(text);

	if (o->max > 0 && ((int64_t)len < o->min || (int64_t)len > o->max)) {
		g_autofree char *range = opt_range_text(o);

		return err_set(e, -ERANGE, "'%s' is %zu bytes long; it must be %s", text, len, range);
	}
	v->str = keep(s, g_strdup(text));
	return 0;
}

static int parse_value(struct optset *s, const struct vh_opt *o, const char *text, struct vh_val *v, struct vh_err *e)
{
	uint64_t u = 0;
	uint8_t mac[6];
	char *form;
	int r, b;

	switch (o->type) {
	case VH_OPT_STR:
		return parse_str(s, o, text, v, e);
	case VH_OPT_PATH:
		if (!*text)
			return err_set(e, -EINVAL, "the path is empty");
		v->str = keep(s, g_canonicalize_filename(text, NULL));
		return 0;
	case VH_OPT_SIZE:
		r = parse_size(text, &u, e);
		if (r < 0 || (r = check_range(o, u, text, e)) < 0)
			return r;
		v->num = (int64_t)u;
		return 0;
	case VH_OPT_DURATION:
		r = parse_duration(text, &u, e);
		if (r < 0 || (r = check_range(o, u, text, e)) < 0)
			return r;
		v->num = (int64_t)u;
		return 0;
	case VH_OPT_INT:
		r = parse_int(text, &v->num, e);
		if (r < 0)
			return r;
		if (has_bounds(o) && (v->num < o->min || v->num > o->max)) {
			g_autofree char *range = opt_range_text(o);

			return err_set(e, -ERANGE, "'%s' is out of range; it must be %s", text, range);
		}
		return 0;
	case VH_OPT_BOOL:
		r = parse_bool(text, &b, e);
		v->num = r < 0 ? 0 : b;
		return r;
	case VH_OPT_ENUM:
		return parse_enum(o, text, v, e);
	case VH_OPT_SECRET:
		r = secret_parse(text, &form, e);
		v->str = r < 0 ? NULL : keep(s, form);
		return r;
	case VH_OPT_HOSTPORT:
		r = parse_hostport(text, e);
		v->str = r < 0 ? NULL : keep(s, g_strdup(text));
		return r;
	case VH_OPT_MAC:
		r = parse_mac(text, mac, e);
		if (r < 0)
			return r;
		for (unsigned i = 0; i < 6; i++)
			u = u << 8 | mac[i];
		v->num = (int64_t)u;
		v->str = keep(s, g_strdup_printf("%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]));
		return 0;
	default:
		return err_set(e, -EOPNOTSUPP, "its type %u is newer than this vhost", o->type);
	}
}

static int add_value(struct optset *s, const struct vh_opt *o, const char *text, struct vh_err *e)
{
	struct vh_val *v = g_new0(struct vh_val, 1);
	int r = parse_value(s, o, text, v, e);

	if (r < 0) {
		g_free(v);
		return r;
	}
	v->size = sizeof(*v);
	v->type = o->type;
	v->name = o->name;
	g_ptr_array_add(s->vals, v);
	return 0;
}

/* ---- the schema: a plugin's, so each entry is taken through a copy of our size ---- */

static unsigned schema_len(vh_schema s)
{
	unsigned n = 0;

	while (s && s[n] && n < OPTIONS_MAX)
		n++;
	return n;
}

static void opt_import(const struct vh_opt *theirs, struct vh_opt *ours)
{
	memset(ours, 0, sizeof(*ours));
	memcpy(ours, theirs, MIN(theirs->size, sizeof(*ours)));
	if (!ours->name)
		ours->name = "";
	if (!ours->doc)
		ours->doc = "";
}

unsigned schema_import(vh_schema s, struct vh_opt **out)
{
	unsigned n = schema_len(s);

	*out = g_new0(struct vh_opt, n + 1);
	for (unsigned i = 0; i < n; i++)
		opt_import(s[i], &(*out)[i]);
	return n;
}

/* The option that a given part means: by key, or the main one for a part without a key. */
static const struct vh_opt *find_option(const struct vh_opt *opt, unsigned n, const char *key)
{
	for (unsigned i = 0; i < n; i++)
		if (key ? !strcmp(opt[i].name, key) : !!(opt[i].flags & VH_OPT_MAIN))
			return &opt[i];
	return NULL;
}

static int unknown_key(const struct vh_opt *opt, unsigned n, const struct kv *kv, const char *what, struct vh_err *e)
{
	g_autofree const char **names = g_new0(const char *, n + 1);
	g_autofree char *all = NULL;
	const char *near;

	for (unsigned i = 0; i < n; i++)
		names[i] = opt[i].name;
	all = g_strjoinv(", ", (char **)names);
	err_object(e, "%s", what);
	if (!kv->key) {
		err_usage(e, "'%s' is not of the form key=value, and there is no main option that it could be for", kv->value);
		near = nearest(kv->value, names);
	} else {
		err_usage(e, "there is no option '%s'", kv->key);
		near = nearest(kv->key, names);
	}
	if (near)
		err_remedy(e, "did you mean %s?", near);
	else if (n)
		err_remedy(e, "options are: %s", all);
	else
		err_remedy(e, "it takes no options");
	return -EINVAL;
}

static int bad_value(const struct vh_opt *o, const char *what, int r, struct vh_err *e)
{
	err_object(e, "%s", what);
	err_context(e, "option %s", o->name);
	err_status(e, EXIT_USAGE);
	return r;
}

/* Every part of `given` belongs to an option; none is given twice that may not be. */
static int check_given(const struct vh_opt *opt, unsigned n, const struct kvs *given, const char *what, struct vh_err *e)
{
	g_autofree unsigned *count = g_new0(unsigned, n + 1);

	for (unsigned i = 0; given && i < given->n; i++) {
		const struct vh_opt *o = find_option(opt, n, given->v[i].key);

		if (!o)
			return unknown_key(opt, n, &given->v[i], what, e);
		if (count[o - opt]++ && !(o->flags & VH_OPT_REPEAT)) {
			err_object(e, "%s", what);
			return err_usage(e, "option %s is given twice", o->name);
		}
		if (o->flags & VH_OPT_DEPRECATED)
			log_warn("options", "%s: option %s is deprecated: %s", what, o->name, o->doc);
	}
	return 0;
}

static int option_values(struct optset *s, const struct vh_opt *opt, unsigned n, const struct vh_opt *o,
			 const struct kvs *given, const char *what, struct vh_err *e)
{
	unsigned found = 0;
	int r;

	for (unsigned i = 0; given && i < given->n; i++) {
		if (find_option(opt, n, given->v[i].key) != o)
			continue;
		found++;
		r = add_value(s, o, given->v[i].value ? given->v[i].value : "", e);
		if (r < 0)
			return bad_value(o, what, r, e);
	}
	if (found)
		return 0;
	if (o->defval) {
		r = add_value(s, o, o->defval, e);
		if (r < 0) {
			err_object(e, "%s", what);
			err_context(e, "the default of option %s", o->name);
			err_status(e, EXIT_REFUSED);
		}
		return r;
	}
	if (o->flags & VH_OPT_REQUIRED) {
		err_object(e, "%s", what);
		err_usage(e, "option %s is missing: %s", o->name, o->doc);
		err_remedy(e, "give the option %s", o->name);
		return -EINVAL;
	}
	return 0;
}

int optset_parse(vh_schema schema, const struct kvs *given, const char *what, struct optset **out, struct vh_err *e)
{
	g_autofree struct vh_opt *opt = NULL;
	unsigned n = schema_import(schema, &opt);
	struct optset *s = g_new0(struct optset, 1);
	int r = check_given(opt, n, given, what, e);

	s->vals = g_ptr_array_new_with_free_func(g_free);
	s->texts = g_ptr_array_new_with_free_func(g_free);
	for (unsigned i = 0; r >= 0 && i < n; i++)
		r = option_values(s, opt, n, &opt[i], given, what, e);
	if (r < 0) {
		optset_free(s);
		return r;
	}
	s->opts.size = sizeof(s->opts);
	s->opts.n = s->vals->len;
	s->opts.val = (const struct vh_val *const *)s->vals->pdata;
	*out = s;
	return 0;
}

const struct vh_opts *optset_get(const struct optset *o)
{
	return o ? &o->opts : NULL;
}

void optset_free(struct optset *o)
{
	if (!o)
		return;
	g_ptr_array_free(o->vals, TRUE);
	g_ptr_array_free(o->texts, TRUE);
	g_free(o);
}

void kvs_with_prefix(const struct kvs *given, const char *prefix, struct kvs *out)
{
	size_t n = strlen(prefix);

	out->v = g_new0(struct kv, given->n + 1);
	out->n = 0;
	for (unsigned i = 0; i < given->n; i++)
		if (given->v[i].key && !strncmp(given->v[i].key, prefix, n)) {
			out->v[out->n].key = given->v[i].key + n;
			out->v[out->n++].value = given->v[i].value;
		}
}

void kvs_without_prefix(const struct kvs *given, const char *prefix, struct kvs *out)
{
	out->v = g_new0(struct kv, given->n + 1);
	out->n = 0;
	for (unsigned i = 0; i < given->n; i++)
		if (!given->v[i].key || !g_str_has_prefix(given->v[i].key, prefix))
			out->v[out->n++] = given->v[i];
}
