/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Leases on something that has an inode here: a file, a block device's node. Compiled into each plugin that has such volumes. */
#ifndef LEASE_H
#define LEASE_H

#include <errno.h>
#include <sys/stat.h>
#include <vhost/pool.h>
#include <vhost/sugar.h>

/* lock.c */
struct lease_lock {
	short byte0; /* F_UNLCK, F_RDLCK, F_WRLCK */
	uint8_t use, forbid; /* bit masks of QEMU's permissions */
};
/* Moves the locks of fd's open file description from *l to those of `mode`, atomically as far as others can tell.
 * -EBUSY: somebody's conflict, *l as before. -ENOLCK: the file system has no locks. */
int lease_lock_set(int fd, struct lease_lock *l, uint32_t mode);
int lease_lock_test(int fd);   /* 1 when anyone else holds a lease on it */
int lease_lock_writer(int fd); /* 1 when anyone else writes it */

/* loop.c: -EBUSY, naming it: a loop device lies on the volume (read-only ones are readers); what a loop device below it lies on is in
 * use in a mode that does not go with this one. */
int lease_loop_above(const struct vh_host *host, int fd, uint32_t mode, struct vh_err *e);
int lease_loop_below(const struct vh_host *host, dev_t dev, uint32_t mode, struct vh_err *e);

/* holder.c: who holds a lease, beside the object (an extended attribute), found by inode, or by device number, whatever the
 * path. */
void lease_holder_write(int fd, const char *holder, int shared);
void lease_holder_clear(int fd);
int lease_busy(const struct vh_host *host, int fd, struct vh_err *e); /* fails with -EBUSY, naming the holder */

#endif
