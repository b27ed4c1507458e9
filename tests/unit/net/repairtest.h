/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Ports that are repaired: after netcase.h, or plugtest.h. */
#ifndef TEST_REPAIRTEST_H
#define TEST_REPAIRTEST_H

#include "nlstate.h"

static char told[4096]; /* by the last repair(), each in a line */

static inline void hear(void *ctx, const char *text)
{
	g_strlcat(told, text, sizeof(told));
	g_strlcat(told, "\n", sizeof(told));
}

static inline int repair(void *port, struct vh_err *e)
{
	told[0] = '\0';
	return ops->repair(port, hear, NULL, e);
}

/* Put back, and the look after it finds all well. */
static inline void repaired(void *port, const char *text)
{
	ERR_AUTO(e);
	int r = repair(port, &e);

	g_assert_cmpstr(e.cause, ==, NULL);
	g_assert_cmpint(r, ==, 1);
	if (!strstr(told, text))
		g_error("'%s' is not in '%s'", text, told);
	g_assert_cmpint(repair(port, &e), ==, 0);
	g_assert_cmpstr(e.cause, ==, NULL);
	g_assert_cmpstr(told, ==, "");
}

static inline void in_vain(void *port, int code, const char *cause, const char *remedy)
{
	ERR_AUTO(e);

	int r = repair(port, &e);

	g_test_message("%s", e.cause ? e.cause : told);
	g_assert_cmpint(r, ==, code);
	g_assert_nonnull(e.cause);
	if (!strstr(e.cause, cause))
		g_error("'%s' is not in '%s'", cause, e.cause);
	if (!e.remedy || !strstr(e.remedy, remedy))
		g_error("'%s' is not in '%s'", remedy, e.remedy);
	g_assert_cmpstr(told, ==, "");
}

static inline void untouched(void *port)
{
	g_autofree char *before = net_state();
	ERR_AUTO(e);

	g_assert_cmpint(repair(port, &e), ==, 0);
	g_assert_cmpstr(e.cause, ==, NULL);
	same_state(before);
}

/* What is made anew has another number, and so another place in lists. */
static inline int by_text(gconstpointer a, gconstpointer b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static inline char *unordered(void)
{
	g_autofree char *text = netns_state();
	g_auto(GStrv) line = g_strsplit(text, "\n", -1);

	qsort(line, g_strv_length(line), sizeof(*line), by_text);
	return g_strjoinv("\n", line);
}

static inline void same_as(const char *before)
{
	g_autofree char *now = unordered();

	g_assert_cmpstr(before, ==, now);
}

static inline void *watched(const struct spec *s)
{
	void *port = must_open(s);

	g_assert_cmpint(ops->watch(port, NULL), >=, 0);
	untouched(port);
	return port;
}

#endif
