/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* What a plugin must leave alone in its host's process: taken twice and compared. */
#ifndef SDK_CHECK_STATE_H
#define SDK_CHECK_STATE_H

#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#define STATE_FDS 256
#define STATE_SIGNALS 65
#define STATE_LIMITS 16

struct state {
	unsigned threads;
	uint8_t fd[STATE_FDS];
	struct { void *handler; int flags; } action[STATE_SIGNALS];
	sigset_t mask;
	mode_t umask;
	char cwd[256], locale[256];
	uint64_t environment; /* hash */
	struct rlimit limit[STATE_LIMITS];
	int rounding;
};

void state_take(struct state *s);
/* NULL: equal; else what differs (never freed). */
char *state_diff(const struct state *a, const struct state *b);

#endif
