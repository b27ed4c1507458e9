/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "told.h"

#include <string.h>

#include "journal.h"
#include "plugin.h"

int told_nl(struct nl *nl, struct vh_err *e)
{
	int r = nl_open(nl);

	return r < 0 ? net_host->err(e, r, "cannot open a netlink socket: %s", strerror(-r)) : 0;
}

int told_lock(const char *state, int exclusive, struct vh_err *e)
{
	int fd = journal_lock(state, exclusive);

	return fd < 0 ? net_host->err(e, fd, "cannot lock %s/lock: %s", state, strerror(-fd)) : fd;
}

int told_write(const char *state, const char *owner, const char *text, struct vh_err *e)
{
	int r = journal_write(state, owner, text);

	return r < 0 ? net_host->err(e, r, "cannot write the journal in %s: %s", state, strerror(-r)) : 0;
}
