/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The privileged child of a VM's process: it opens the ports, hands their fds over, and keeps what closing them, links and
 * filters need, while the VM's process gives its own privileges away. It is forked before there are threads and guest
 * memory, knows a closed set of requests, and ends, closing every port, when its parent does, however that ends. In between it
 * has the plugins put back what other programs take from under its ports (helper-watch.c).
 */
#ifndef NET_HELPER_H
#define NET_HELPER_H

#include "net/port.h"

/* [main] Forks it: ports are made there from now on. */
int net_helper_start(struct vh_err *e);
int net_helper_active(void); /* [any] */
/* Has it load a plugin already, without waiting; optional. */
void net_helper_preload(const char *type);
/* Opens nothing more and confines itself (capabilities, seccomp), without being waited for: whatever is asked of it later
 * comes after. quiet: it gives its standard error away, for the VM's process leaves the terminal. */
int net_helper_seal(int quiet, struct vh_err *e);
void net_helper_end(void); /* [main] waits until it has closed every port and ended */
/* What a quiet helper says: readable when there is something, which net_helper_said() writes to standard error. -1: no helper.
 * [main] */
int net_helper_said_fd(void);
int net_helper_said(void); /* 0: it has ended */
int net_helper_pid(void);  /* 0: none; for tests */

/* port.c's side; serialised inside, any thread. fds: room for c->pairs; they are the caller's. */
int net_helper_open(const struct net_config *c, const char *owner, const char *state, uint64_t *id, struct vh_net_info *info,
		    int *fds, struct vh_err *e);
int net_helper_set_link(uint64_t id, int up, struct vh_err *e);
int net_helper_set_filter(uint64_t id, const struct vh_net_filter *f, struct vh_err *e);
void net_helper_close(uint64_t id);

/* port.c: before a port is opened: what dead VMs left is removed, if a journal says that there is anything; else it costs the
 * reading of one small folder. */
int net_gc_stale(const struct vh_net_ops *ops, const char *state);

/* helper-child.c: the child, from the fork on. */
enum { HELPER_PRELOAD = 1, HELPER_OPEN, HELPER_SET_LINK, HELPER_SET_FILTER, HELPER_CLOSE, HELPER_SEAL };
#define HELPER_FDS 64u         /* in one message */
#define HELPER_PORTS_MAX 256u
#define HELPER_PAIRS_MAX 256u
#define HELPER_ADDRS_MAX 256u  /* in a filter, of each kind */
void net_helper_child(int sock, int said) __attribute__((noreturn)); /* said: where it writes once it is quiet; -1: nowhere */
/* helper-watch.c: its ports watched and repaired. */
void net_watch_add(const struct vh_net_ops *ops, void *port, const char *owner);
void net_watch_drop(const void *port);
void net_watch_until(int sock); /* returns when that has something to read */
/* helper-seccomp.c: what the child may still call. */
int net_helper_confine(void);

#endif
