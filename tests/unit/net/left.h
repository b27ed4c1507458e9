/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A net plugin's table and its journal's folder, and what it leaves for gc(). */
#ifndef TEST_LEFT_H
#define TEST_LEFT_H

#include "journal.h"
#include "netns.h"
#include "plug/options.h"
#include "plug/plug.h"

static const struct vh_net_ops *ops;
static char *state;

static inline int nobody(void *ctx, const char *owner)
{
	return 0;
}

static inline int everybody(void *ctx, const char *owner)
{
	return 1;
}

static inline void count_removed(void *ctx, const char *object, const char *owner, int result)
{
	if (!result)
		++*(unsigned *)ctx;
}

static inline unsigned gc(int (*alive)(void *ctx, const char *owner))
{
	unsigned n = 0;
	ERR_AUTO(e);
	int r = ops->gc(state, alive, count_removed, &n, &e);

	g_assert_cmpstr(e.cause, ==, NULL);
	g_assert_cmpint(r, ==, 0);
	return n;
}

static inline unsigned journals(void)
{
	g_autoptr(GDir) d = g_dir_open(state, 0, NULL);
	const char *name;
	unsigned n = 0;

	while ((name = g_dir_read_name(d)))
		n += strcmp(name, "lock") != 0;
	return n;
}

#endif
