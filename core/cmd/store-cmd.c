/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <string.h>
#include "cmd/store-cmd.h"

void cmd_free_options(const struct cmd_ctx *c, struct kvs *out)
{
	out->v = g_new0(struct kv, c->n_free + 1);
	out->n = 0;
	for (unsigned i = c->n_args - c->n_free; i < c->n_args; i++) {
		const char *eq = strchr(c->args[i], '=');

		out->v[out->n++] = (struct kv){g_strndup(c->args[i], eq ? (size_t)(eq - c->args[i]) : strlen(c->args[i])),
					       g_strdup(eq ? eq + 1 : "on")};
	}
}

int cmd_volume_open(const char *arg, struct cmd_volume *v, struct vh_err *e)
{
	int ret;

	memset(v, 0, sizeof(*v));
	ret = store_name_split(arg, &v->pool_name, &v->name, e);
	if (!ret)
		ret = store_pool_open(v->pool_name, &v->pool, e);
	if (ret)
		cmd_volume_close(v);
	return ret;
}

void cmd_volume_close(struct cmd_volume *v)
{
	store_pool_close(v->pool);
	g_free(v->pool_name);
	g_free(v->name);
	memset(v, 0, sizeof(*v));
}

int cmd_size(const char *text, uint64_t now, uint64_t *out, struct vh_err *e)
{
	int sign = text[0] == '+' || text[0] == '-';
	uint64_t n;
	int ret = parse_size(text + sign, &n, e);

	if (ret) {
		err_status(e, EXIT_USAGE);
		return ret;
	}
	if (text[0] == '+' && __builtin_add_overflow(now, n, &n))
		return err_set(e, -ERANGE, "%s more is too much", text + 1);
	if (text[0] == '-' && __builtin_sub_overflow(now, n, &n))
		return err_set(e, -ERANGE, "%s less is too much", text + 1);
	*out = n;
	return 0;
}

void js_bytes(JsonBuilder *b, const char *name, uint64_t value)
{
	json_builder_set_member_name(b, name);
	if (value > INT64_MAX)
		json_builder_add_null_value(b);
	else
		json_builder_add_int_value(b, (gint64)value);
}

char *size_text(uint64_t bytes)
{
	return bytes == UINT64_MAX ? g_strdup("-") : format_size(bytes);
}

char *time_text(int64_t ns)
{
	g_autoptr(GDateTime) t = ns ? g_date_time_new_from_unix_utc(ns / 1000000000) : NULL;

	return t ? g_date_time_format_iso8601(t) : NULL;
}

void js_volume(JsonBuilder *b, const char *pool, const char *name, const struct vh_vol_stat *st, const char *format)
{
	g_autofree char *when = time_text(st->mtime);

	js_text(b, "pool", pool);
	js_text(b, "name", name);
	js_text(b, "format", format[0] ? format : NULL);
	js_bytes(b, "bytes", st->bytes);
	js_bytes(b, "allocated", st->allocated);
	js_text(b, "modified", when);
	js_text(b, "identity", st->identity);
}
