/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Leases of this host, by what a volume is (vh_vol_stat.identity) and not by how it was reached: whatever pool, pool type,
 * alias or portal leads to it, it is one file in the state folder's .leases, locked by its holders. The core takes them for
 * every pool whose plugin does not say VH_POOL_LEASE. They end with their holder, however it ends.
 */
#ifndef STORE_LEASE_H
#define STORE_LEASE_H

#include "util/err.h"

struct lease;
/* mode: VH_ATTACH_*; PEEK takes none (*out is NULL). -EBUSY names the holder. `who`: "pid 12 vhost run web". */
int lease_take(const char *identity, uint32_t mode, const char *who, struct lease **out, struct vh_err *e);
/* To another mode, held throughout; -EBUSY leaves it as it was. */
int lease_change(struct lease *l, uint32_t mode, struct vh_err *e);
void lease_drop(struct lease *l); /* NULL is fine */
/* 1: somebody holds one, and *who (may be NULL; g_free) says who. 0: nobody does. */
int lease_look(const char *identity, char **who);

#endif
