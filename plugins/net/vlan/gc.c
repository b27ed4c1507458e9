/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What dead VMs and networks left. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "collect.h"
#include "journal.h"
#include "tag.h"
#include "vlan.h"

static int journal_entry(struct collect *c, const char *owner, const char *text)
{
	char bridge[16], dev[16], end;

	if (strncmp(text, "vlan ", 5))
		return 0;
	if (sscanf(text, "vlan %15s %15s%c", bridge, dev, &end) == 3 && !strncmp(bridge, "vhb", 3) && !strncmp(dev, "vhb", 3)) {
		collect_drop_unborn(c, "bridge", bridge, owner);
		collect_drop_unborn(c, "vlan", dev, owner);
	}
	return 1;
}

struct trunks {
	unsigned n;
	struct nl_link bridge[64];
};

static void add_trunk(void *ctx, const struct nl_link *l)
{
	struct trunks *t = ctx;

	if (!strcmp(l->kind, "bridge") && tag_ours(l->alias) && l->filtering && !strncmp(l->mark, "vhost.trunk.", 12) &&
	    t->n < sizeof(t->bridge) / sizeof(t->bridge[0]))
		t->bridge[t->n++] = *l;
}

/* The dead ports' VLANs, which uplinks still let in. */
static void prune_trunks(const char *state)
{
	struct trunks *t = calloc(1, sizeof(*t));
	int lock = t && !access(state, F_OK) ? journal_lock(state, 1) : -1;
	struct nl_link up;
	struct nl nl;

	if (lock >= 0 && !nl_open(&nl)) {
		nl.link = add_trunk;
		nl.ctx = t;
		nl_ask_kind(&nl, "bridge");
		nl_commit(&nl);
		nl.link = NULL;
		for (unsigned i = 0; i < t->n; i++)
			if (!nl_link_get(&nl, 0, t->bridge[i].mark + 12, &up) && up.master == t->bridge[i].ifindex)
				brvlan_prune(&nl, up.master, up.ifindex);
		nl_release(&nl);
	}
	if (lock >= 0)
		close(lock);
	free(t);
}

int vlan_gc(const char *state, int (*alive)(void *ctx, const char *owner), vh_net_gc_fn *fn, void *ctx, struct vh_err *e)
{
	int r = collect_run(state, alive, fn, ctx, journal_entry, e);

	if (!r && state)
		prune_trunks(state);
	return r;
}
