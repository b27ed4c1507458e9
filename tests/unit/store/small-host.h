/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The errors of a host that tests of one pool plugin make for it: a text on top of another one stands before it. */
#ifndef SMALL_HOST_H
#define SMALL_HOST_H

#include <glib.h>
#include <stdarg.h>
#include <stdio.h>
#include <vhost/plugin.h>

struct vh_err {
	int code; /* the first */
	char text[1024], remedy[512];
};

static inline int host_verr(struct vh_err *e, int code, const char *fmt, va_list ap)
{
	char text[512];

	if (!e)
		return code;
	vsnprintf(text, sizeof(text), fmt, ap);
	if (e->text[0]) {
		g_autofree char *old = g_strdup(e->text);

		snprintf(e->text, sizeof(e->text), "%s: %s", text, old);
	} else {
		snprintf(e->text, sizeof(e->text), "%s", text);
		e->code = code;
	}
	return code;
}

static inline int host_err(struct vh_err *e, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	host_verr(e, code, fmt, ap);
	va_end(ap);
	return code;
}

static inline void host_remedy(struct vh_err *e, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (e)
		vsnprintf(e->remedy, sizeof(e->remedy), fmt, ap);
	va_end(ap);
}

#endif
