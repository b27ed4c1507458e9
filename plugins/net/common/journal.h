/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The write-ahead journal of what a port makes: one file per owner tag in the state folder, written before the first
 * kernel object, gone after the last. Beside it a lock, for those who make and remove shared objects (bridges).
 */
#ifndef NET_COMMON_JOURNAL_H
#define NET_COMMON_JOURNAL_H

#include <vhost/host.h>

/* Exclusive to make or remove what others share, shared to use it. Waits for at most 10 s. Returns an fd to close. */
int journal_lock(const char *state, int exclusive);
int journal_owner_ok(const char *owner); /* whether a tag can be a file's name and a link's alias */
/* Lines of text; replaces what was there. */
int journal_write(const char *state, const char *owner, const char *text);
int journal_remove(const char *state, const char *owner);
/* Every entry; its text is cut at 1023 bytes. -errno of the folder; a folder that does not exist has none. */
int journal_scan(const char *state, void (*fn)(void *ctx, const char *owner, const char *text), void *ctx);

#endif
