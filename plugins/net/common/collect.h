/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* gc(): what dead VMs, and networks that nobody holds any more, left. */
#ifndef NET_COMMON_COLLECT_H
#define NET_COMMON_COLLECT_H

#include "nl.h"

#include <vhost/net.h>

struct collect {
	struct nl nl;
	const char *state;
	int (*alive)(void *ctx, const char *owner);
	vh_net_gc_fn *fn; /* may be NULL */
	void *ctx;
	struct nl_link *link; /* every interface; ifindex 0: removed meanwhile */
	unsigned n, cap;
	int no_memory;
};

/* One journal entry of a dead owner. 1: it is this plugin's and done with, 0: another plugin's, -errno: kept for later. */
typedef int collect_entry_fn(struct collect *c, const char *owner, const char *text);

/* Removes the tagged objects of the dead: taps and macvtaps, then bridges without ports and macvlans without macvtaps beside them,
 * then VLANs; then asks about the journals.
 * Takes the journal's lock. */
int collect_run(const char *state, int (*alive)(void *ctx, const char *owner), vh_net_gc_fn *fn, void *ctx,
		collect_entry_fn *entry, struct vh_err *e);
/* Removes one, and tells. */
void collect_drop(struct collect *c, struct nl_link *l, const char *owner);
/* The untagged one of that kind which was being made under this name, when its maker died. */
void collect_drop_unborn(struct collect *c, const char *kind, const char *tmp, const char *owner);

#endif
