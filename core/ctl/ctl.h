/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What surrounds a running VM: its folder of running state, its control socket (Varlink), its privileges, and leaving the
 * terminal. All calls are [main], in the order of cmd/run.c, unless a comment says otherwise.
 */
#ifndef CTL_CTL_H
#define CTL_CTL_H

#include "mach/mach.h"

/*
 * The folder PATH_STATE/NAME/ (0700) with its lock and pid file. -EEXIST naming the pid when a VM of that name runs; what a
 * dead one left is taken over. Usable before anything else exists.
 */
struct ctl_dir;
int ctl_dir_claim(const char *name, struct ctl_dir **out, struct vh_err *e);
const char *ctl_dir_path(const struct ctl_dir *d);
const char *ctl_dir_name(const struct ctl_dir *d);
void ctl_dir_release(struct ctl_dir *d); /* removes the folder, unless a forked child calls it */
/* [any] For readers, without touching the lock: 0 and the pid when a VM of that name runs; -ENOENT; -EACCES. */
int ctl_dir_running(const char *name, int *pid);
/* [any] Every name for which there is a folder, sorted; those of dead VMs as well. Ends early when fn returns not 0. */
int ctl_dir_scan(int (*fn)(void *ctx, const char *name), void *ctx, struct vh_err *e);

/*
 * `run --detach`: forks before any thread is made. In the parent returns 1 once the guest runs (*status 0) or the child has
 * failed (*status its exit status, its error already reported); in the child 0, with a session of its own and its output in
 * the state folder's log. ctl_detach_running() tells the parent.
 */
int ctl_detach(const char *name, int *status, struct vh_err *e);
void ctl_detach_running(void);

/*
 * Privileges. prepare(): before any thread and before guest memory exist; forks the small helper child when there are NICs and
 * this process is privileged. drop(): the last call before the guest's first instruction: no capability is left. follow():
 * what a helper that has left the terminal says goes on to this process's log; *out may be NULL, and is for loop_unwatch(). end():
 * the last call of all: the helper's work (what ports leave to it at close) is done when it returns.
 */
int ctl_privs_prepare(unsigned n_nics, struct vh_err *e);
int ctl_privs_drop(struct vh_err *e);
void ctl_privs_follow(struct vh_loop *l, struct vh_watch **out);
void ctl_privs_end(void);

/* The control socket. It has a thread of its own; calls into the machine run on main_loop. No JSON code runs before the first
 * client has connected. */
struct ctl_server;
int ctl_server_new(struct mach *m, struct vh_loop *main_loop, struct ctl_dir *d, struct ctl_server **out, struct vh_err *e);
void ctl_server_event(struct ctl_server *s, const char *state, const char *reason);       /* [main] mach_config.changed */
void ctl_console_output(struct ctl_server *s, const void *data, size_t len);              /* [any] what the serial port sent */
void ctl_console_room(struct ctl_server *s);                                              /* [any] the port takes input again */
void ctl_server_free(struct ctl_server *s);

#endif
