/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "util/err.h"

#include <glib.h>
#include <json-glib/json-glib.h>
#include <stdio.h>
#include <string.h>

#define TEXT_MAX 4096

/* A plugin's or a file's words go to a terminal: one line, no escape sequences, valid UTF-8, bounded. */
static char *text_vclean(const char *fmt, va_list ap)
{
	char buf[TEXT_MAX];
	char *out, *p;

	if (vsnprintf(buf, sizeof(buf), fmt, ap) < 0)
		g_strlcpy(buf, fmt, sizeof(buf));
	out = g_utf8_make_valid(buf, -1);
	for (p = out; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
	return g_strchomp(out);
}

static void text_set(char **to, const char *fmt, va_list ap)
{
	g_free(*to);
	*to = text_vclean(fmt, ap);
}

static void context_add(struct vh_err *e, const char *fmt, va_list ap)
{
	g_autofree char *text = text_vclean(fmt, ap);
	char *old = e->cause;

	if (!old) {
		e->cause = g_steal_pointer(&text);
	} else if (strlen(old) < 4 * TEXT_MAX) {
		e->cause = g_strconcat(text, ": ", old, NULL);
		g_free(old);
	}
}

int err_vset(struct vh_err *e, int code, const char *fmt, va_list ap)
{
	if (code >= 0) /* a failing call that names no failure is still one */
		code = -EIO;
	if (!e)
		return code;
	if (!e->code)
		e->code = code;
	context_add(e, fmt, ap);
	return code;
}

int err_set(struct vh_err *e, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	code = err_vset(e, code, fmt, ap);
	va_end(ap);
	return code;
}

int err_usage(struct vh_err *e, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	err_vset(e, -EINVAL, fmt, ap);
	va_end(ap);
	err_status(e, EXIT_USAGE);
	return -EINVAL;
}

int err_context(struct vh_err *e, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return -EIO;
	va_start(ap, fmt);
	context_add(e, fmt, ap);
	va_end(ap);
	if (!e->code)
		e->code = -EIO;
	return e->code;
}

void err_object(struct vh_err *e, const char *fmt, ...)
{
	va_list ap;

	if (!e || e->object)
		return;
	va_start(ap, fmt);
	text_set(&e->object, fmt, ap);
	va_end(ap);
}

void err_remedy(struct vh_err *e, const char *fmt, ...)
{
	va_list ap;

	if (!e)
		return;
	va_start(ap, fmt);
	text_set(&e->remedy, fmt, ap);
	va_end(ap);
}

void err_status(struct vh_err *e, enum exit_status s)
{
	if (e)
		e->status = s;
}

void err_clear(struct vh_err *e)
{
	if (!e)
		return;
	g_free(e->object);
	g_free(e->cause);
	g_free(e->remedy);
	*e = (struct vh_err){0};
}

void err_move(struct vh_err *to, struct vh_err *from)
{
	if (to == from)
		return;
	if (!to) {
		err_clear(from);
		return;
	}
	err_clear(to);
	*to = *from;
	*from = (struct vh_err){0};
}

int err_exit_status(const struct vh_err *e)
{
	if (e->status)
		return e->status;
	switch (-e->code) {
	case 0:
		return e->cause ? EXIT_FAILED : EXIT_OK;
	case ENOENT:
	case ENODEV:
	case ENXIO:
		return EXIT_NOT_FOUND;
	case EEXIST:
	case EBUSY:
	case ETXTBSY:
	case ENOTEMPTY:
	case EADDRINUSE:
		return EXIT_EXISTS;
	case ELIBACC:
		return EXIT_MISSING;
	default:
		return EXIT_FAILED;
	}
}

static void report_json(const struct vh_err *e, const char *cause)
{
	g_autoptr(JsonBuilder) b = json_builder_new();
	g_autoptr(JsonGenerator) gen = json_generator_new();
	g_autoptr(JsonNode) root = NULL;
	g_autofree char *text = NULL;

	json_builder_begin_object(b);
	json_builder_set_member_name(b, "error");
	json_builder_add_string_value(b, err_symbol(e->code));
	json_builder_set_member_name(b, "object");
	json_builder_add_string_value(b, e->object);
	json_builder_set_member_name(b, "message");
	json_builder_add_string_value(b, cause);
	json_builder_set_member_name(b, "remedy");
	json_builder_add_string_value(b, e->remedy);
	json_builder_end_object(b);
	root = json_builder_get_root(b);
	json_generator_set_root(gen, root);
	text = json_generator_to_data(gen, NULL);
	fprintf(stderr, "%s\n", text);
}

int err_report(const struct vh_err *e, int json)
{
	const char *cause = e->cause ? e->cause : e->code ? g_strerror(-e->code) : "failed";
	int status = err_exit_status(e);

	fflush(stdout); /* results that came before the failure are read before it */
	if (json)
		report_json(e, cause);
	else
		fprintf(stderr, "vhost: %s%s%s%s%s%s\n", e->object ? e->object : "", e->object ? ": " : "", cause,
			e->remedy ? " (" : "", e->remedy ? e->remedy : "", e->remedy ? ")" : "");
	return status ? status : EXIT_FAILED;
}

const char *err_symbol(int code)
{
	const char *name;

	if (!code)
		return "OK";
	name = strerrorname_np(code < 0 ? -code : code);
	return name ? name : "EUNKNOWN";
}
