/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The parts of the plugin: passt.c (ports), args.c (options to passt's arguments), child.c (the process). */
#ifndef PASST_PASST_H
#define PASST_PASST_H

#include <stdint.h>
#include <sys/types.h>
#include <vhost/net.h>

#define PASST_FD 3        /* the socket's number in passt */
#define PASST_MTU 65520u  /* what passt likes best */
#define ARGS_MAX 96u

struct args {
	char *v[ARGS_MAX + 1]; /* NULL-terminated; v[0]: the program */
	unsigned n;
};

/* Explains failures. Options are checked, for passt tells little of what is wrong with them. */
int args_make(struct args *a, const struct vh_opts *o, uint16_t mtu, struct vh_err *e);
void args_free(struct args *a);
int args_forward_ok(const char *spec); /* one of tcp=, udp= */

struct child {
	pid_t pid;
	uint64_t start; /* when, in clock ticks since boot: pids are reused */
	int pidfd, sock;
};
/* Starts passt and waits until it serves; its own words are the failure's text. On failure nothing is left. */
int child_start(struct child *c, const struct args *a, struct vh_err *e);
/* Ends it: 1 it is gone, 0 not within some seconds, and this process may not kill it. */
int child_end(struct child *c);
/* Somebody's passt by its journal: 1 killed, 0 it was gone, -errno. */
int child_kill(pid_t pid, uint64_t start);

#endif
