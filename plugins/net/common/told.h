/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The steps with which every change begins, explained when they fail. */
#ifndef NET_COMMON_TOLD_H
#define NET_COMMON_TOLD_H

#include "nl.h"

int told_nl(struct nl *nl, struct vh_err *e);                                  /* nl_open() */
int told_lock(const char *state, int exclusive, struct vh_err *e);             /* journal_lock() */
int told_write(const char *state, const char *owner, const char *text, struct vh_err *e); /* journal_write() */

#endif
