/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A guest's console on this process's standard input and output, or in a file. */
#ifndef CMD_CONSOLE_H
#define CMD_CONSOLE_H

#include "util/err.h"
#include "util/loop.h"

/* Output: gathered in a ring and written by the loop, so that a reader that stands still stops no vCPU for longer than a
 * second; what does not fit then is dropped, and the number of lost bytes is logged at the end. */
struct sink;
int sink_new(struct vh_loop *l, int fd, struct sink **out, struct vh_err *e); /* fd stays the caller's */
void sink_write(struct sink *s, const void *data, size_t len);                /* [any] */
void sink_free(struct sink *s); /* [main] writes what is left, for at most a second */

/* Input: standard input in raw mode when it is a terminal. Ctrl-A x ends the VM, Ctrl-A p presses the power button, Ctrl-A a
 * sends Ctrl-A, Ctrl-A h tells this. */
struct term;
struct term_ops {
	size_t (*input)(void *ctx, const void *data, size_t len); /* [main] how many bytes were taken */
	void (*quit)(void *ctx);                                  /* [main] */
	void (*power)(void *ctx);                                 /* [main] */
};
int term_new(struct vh_loop *l, const struct term_ops *ops, void *ctx, struct term **out, struct vh_err *e);
void term_room(struct term *t); /* [any] the guest takes input again */
void term_free(struct term *t); /* [main] the terminal as it was */

#endif
