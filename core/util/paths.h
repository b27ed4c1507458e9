/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The folders of docs/conventions.md, for root or for a user; VHOST_ROOT=DIR puts all of them below DIR (tests). */
#ifndef UTIL_PATHS_H
#define UTIL_PATHS_H

#include "util/err.h"

enum path_dir { PATH_CONFIG, PATH_DATA, PATH_STATE };
/* "DIR/part/part..."; NULL ends the parts. The caller frees with g_free. */
char *path_in(enum path_dir dir, ...) __attribute__((sentinel));
int path_make(const char *dir, unsigned mode, struct vh_err *e); /* mkdir -p */
/* 0, or -EINVAL with the rule: [A-Za-z0-9][A-Za-z0-9._-]{0,62} */
int name_check(const char *what, const char *name, struct vh_err *e);
/* Writes a file so that after a crash the old or the new one is there: temporary, fsync, rename, fsync of the folder. */
int file_replace(const char *path, const void *data, size_t len, unsigned mode, struct vh_err *e);

#endif
