/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Whose an object is, by its alias: "vhost:NAME:PID:START:N" a VM's, "vhost:@NAME:ID" a network's that `net start` holds. */
#ifndef NET_COMMON_TAG_H
#define NET_COMMON_TAG_H

#include <string.h>

static inline int tag_ours(const char *alias)
{
	return !strncmp(alias, "vhost:", 6);
}

static inline int tag_network(const char *alias)
{
	return !strncmp(alias, "vhost:@", 7);
}

/* Whether who takes this away as its last user may remove it: a VM's always, a network's only by that network (held). */
static inline int tag_removable(const char *alias, const char *held)
{
	return tag_ours(alias) && (!tag_network(alias) || (held && !strcmp(alias, held)));
}

#endif
