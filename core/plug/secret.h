/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Where secrets come from. What an option of type SECRET holds is never the secret itself:
 *
 *   NAME          the file NAME in the configuration's folder secrets/
 *   file:PATH     that file
 *   fd:N          an inherited file descriptor, read to its end
 *   prompt:[TEXT] asked for on the terminal, without echo
 *
 * Files must be regular, root's or the caller's own, and nobody else's to read.
 */
#ifndef PLUG_SECRET_H
#define PLUG_SECRET_H

#include "util/err.h"

#define SECRET_MAX 65536u

/* Whether a value has one of these forms; *out is it with an absolute path, for g_free(). */
int secret_parse(const char *value, char **out, struct vh_err *e);
/* [any] Copies the secret; its length, or -errno. What a pipe or a person gave once is kept, locked, for the next time. */
int64_t secret_get(const char *value, void *buf, uint64_t cap, struct vh_err *e);
void secret_forget(void); /* [any] wipes what is kept: when everything is open, and at the end */

#endif
