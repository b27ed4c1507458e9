/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* One failing call's text: what the ABI calls struct vh_err. Used by value, zero-initialised. */
#ifndef UTIL_ERR_H
#define UTIL_ERR_H

#include <errno.h>
#include <stdarg.h>
#include <vhost/abi.h>

/* Exit statuses of every command (docs/conventions.md). */
enum exit_status { EXIT_OK, EXIT_FAILED, EXIT_USAGE, EXIT_NOT_FOUND, EXIT_EXISTS, EXIT_REFUSED, EXIT_MISSING,
		   EXIT_GUEST_RESET = 10, EXIT_GUEST_PANIC = 11,
		   EXIT_CORRUPT = 12, EXIT_LEAKS = 13 };

struct vh_err {
	int code;     /* negative errno, 0: nothing failed */
	int status;   /* enum exit_status when the code alone does not tell; else 0 */
	char *object; /* what it happened to: "volume default/web" */
	char *cause;  /* contexts, outermost first, joined by ": ", then the cause */
	char *remedy; /* what to do about it, or NULL */
};

/* Frees the texts when the variable goes out of scope. */
#define ERR_AUTO(name) __attribute__((cleanup(err_clear))) struct vh_err name = {0}

/* All take e == NULL, and return the code so that `return err_set(e, -EIO, ...)` fails and explains in one line. The
 * first cause stands, further err_set() calls become context in front of it. */
int err_set(struct vh_err *e, int code, const char *fmt, ...) VH_PRINTF(3, 4);
int err_vset(struct vh_err *e, int code, const char *fmt, va_list ap) VH_PRINTF(3, 0);
int err_usage(struct vh_err *e, const char *fmt, ...) VH_PRINTF(2, 3); /* -EINVAL, EXIT_USAGE */
int err_context(struct vh_err *e, const char *fmt, ...) VH_PRINTF(2, 3); /* in front; returns e->code */
void err_object(struct vh_err *e, const char *fmt, ...) VH_PRINTF(2, 3); /* the first one stands */
void err_remedy(struct vh_err *e, const char *fmt, ...) VH_PRINTF(2, 3); /* the last one stands */
void err_status(struct vh_err *e, enum exit_status s);
void err_clear(struct vh_err *e);
void err_move(struct vh_err *to, struct vh_err *from); /* `from` is clear afterwards; drops it when to is NULL */
/* Standard error: "vhost: OBJECT: CAUSE (REMEDY)", or a JSON object. Returns the exit status. */
int err_report(const struct vh_err *e, int json);
int err_exit_status(const struct vh_err *e);
const char *err_symbol(int code); /* "ENOENT" */

#endif
