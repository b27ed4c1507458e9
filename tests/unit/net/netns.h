/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A network namespace per test, and what is in it as iproute2 tells it: an oracle that shares no code with the plugin. */
#ifndef TEST_NETNS_H
#define TEST_NETNS_H

#include <glib.h>
#include <glib/gstdio.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static inline int netns_fresh(void)
{
	g_autofree char *ip = g_find_program_in_path("ip");

	if (geteuid() || unshare(CLONE_NEWNET) < 0) {
		g_test_skip("needs root and network namespaces");
		return 0;
	}
	if (access("/dev/net/tun", R_OK | W_OK) < 0) {
		g_test_skip("/dev/net/tun is missing");
		return 0;
	}
	if (!ip && access("/sbin/ip", X_OK) < 0) {
		g_test_skip("iproute2's ip is missing");
		return 0;
	}
	return 1;
}

static inline char *sh(const char *fmt, ...) G_GNUC_PRINTF(1, 2);
static inline char *sh(const char *fmt, ...)
{
	GString *s = g_string_new(NULL);
	g_autofree char *cmd = NULL;
	char buf[4096];
	va_list ap;
	size_t n;
	FILE *f;

	va_start(ap, fmt);
	cmd = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	f = popen(cmd, "re");
	g_assert_nonnull(f);
	while ((n = fread(buf, 1, sizeof(buf), f)) > 0)
		g_string_append_len(s, buf, (gssize)n);
	pclose(f);
	return g_string_free(s, FALSE);
}

#define run_ok(...) g_free(sh(__VA_ARGS__))

/* Without the carrier: the kernel follows it up to a second later. */
static inline char *netns_state(void)
{
	return sh("PATH=$PATH:/sbin:/usr/sbin; ip -o link | sed 's/^[0-9]*: //;s/NO-CARRIER,//;s/,LOWER_UP//;s/ state [A-Z]*//'; ip -o addr | sed 's/^[0-9]*: //;s/ valid_lft.*//'; "
		  "bridge -d -o link | sed 's/^[0-9]*: //;s/NO-CARRIER,//;s/,LOWER_UP//;s/ state [a-z]*//'; ip route; ip -6 route");
}

static inline char *temp_folder(const char *name)
{
	g_autofree char *pattern = g_strdup_printf("%s/vhost-%s-XXXXXX", g_get_tmp_dir(), name);
	char *dir = g_mkdtemp(g_steal_pointer(&pattern));

	g_assert_nonnull(dir);
	return dir;
}

#endif
