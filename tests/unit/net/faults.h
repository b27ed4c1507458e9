/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The fault hook of a net plugin that is built into its test: a step refused, every one from it on, or the last thing a process did. */
#ifndef TEST_FAULTS_H
#define TEST_FAULTS_H

#include <errno.h>
#include <glib.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "fault.h"

int (*net_fault_hook)(const char *step);
static unsigned fault_at, fault_count, fault_netlink; /* netlink: the batches among them */
static int fault_kill, fault_sticky;
static int (*fault_skip)(const char *step); /* NULL: each step counts */
static char fault_name[32];                 /* the step that was hit */

static inline int fault_step(const char *step)
{
	if (fault_skip && fault_skip(step))
		return 0;
	fault_count++;
	fault_netlink += !strcmp(step, "netlink");
	if (!fault_at || (fault_sticky ? fault_count < fault_at : fault_count != fault_at))
		return 0;
	if (fault_count == fault_at)
		g_strlcpy(fault_name, step, sizeof(fault_name));
	if (fault_kill)
		kill(getpid(), SIGKILL);
	return -EIO;
}

/* at 0: only counts. */
static inline void fault(unsigned at, int sticky, int killing)
{
	fault_at = at;
	fault_sticky = sticky;
	fault_kill = killing;
	fault_count = fault_netlink = 0;
	net_fault_hook = fault_step;
}

#endif
