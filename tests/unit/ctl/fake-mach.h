/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A machine that is only its states and its serial port: what the control server calls, noted down. */
#ifndef TEST_FAKE_MACH_H
#define TEST_FAKE_MACH_H

#include <stdatomic.h>
#include "ctl/ctl.h"

struct fake {
	struct vh_loop *main;
	struct ctl_server *server;
	enum mach_state state;
	atomic_int buttons, wrong_thread, fail, no_balloon, input_room;
	char input[4096];
	unsigned input_n;
	struct mem mem;
	uint64_t balloon, disk_bytes;
	char snapshot[64];
	struct vh_net_info nic;
	unsigned nics;
	int limits[2]; /* given, of in and out */
	struct rate_limit limit[2];
};
extern struct fake fake;
void fake_set(enum mach_state s, const char *word, const char *reason); /* [main loop] */

#endif
