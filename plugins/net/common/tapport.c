/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "tapport.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "nl.h"
#include "plugin.h"

int tapport_keep(struct tapport *p, const struct vh_net_open *o)
{
	p->state = strdup(o->state);
	p->owner = strdup(o->owner);
	return p->state && p->owner ? 0 : -ENOMEM;
}

void tapport_drop(struct tapport *p)
{
	free(p->state);
	free(p->owner);
}

int tapport_info(void *port, struct vh_net_info *i)
{
	struct tapport *p = port;
	uint32_t size = i->size;

	p->info.size = size;
	memcpy(i, &p->info, size < sizeof(p->info) ? size : sizeof(p->info));
	return 0;
}

int tapport_queue_fd(void *port, uint32_t pair, struct vh_err *e)
{
	struct tapport *p = port;

	if (pair >= p->tap.n)
		return net_host->err(e, -EINVAL, "tap %s has no queue pair %u", p->tap.ifname, pair);
	return p->tap.fd[pair];
}

int tapport_set_link(void *port, uint32_t up, struct vh_err *e)
{
	struct tapport *p = port;
	struct nl nl;
	int r = nl_open(&nl);

	if (!r) {
		nl_link_begin(&nl, RTM_SETLINK, 0, AF_UNSPEC, (int)p->info.ifindex, NULL, up != 0);
		r = nl_commit(&nl);
	}
	if (r < 0)
		net_host->err(e, r, "cannot set %s %s: %s", p->tap.ifname, up ? "up" : "down", nl.text[0] ? nl.text : strerror(-r));
	else
		p->info.link = up != 0;
	nl_release(&nl);
	return r;
}
