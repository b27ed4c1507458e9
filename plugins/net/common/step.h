/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The steps that plan() tells, for people. */
#ifndef NET_COMMON_STEP_H
#define NET_COMMON_STEP_H

#include <stdarg.h>
#include <stdio.h>
#include <vhost/net.h>

struct plan {
	vh_net_step_fn *fn; /* NULL: only checked, nothing told */
	void *ctx;
};

static inline void __attribute__((format(printf, 2, 3))) step(const struct plan *p, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	if (p->fn)
		p->fn(p->ctx, text);
}

#endif
