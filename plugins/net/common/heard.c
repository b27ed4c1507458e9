/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "heard.h"

#include <errno.h>
#include <netlink/netlink.h>

#include "plugin.h"

#define READ_MAX 10000u

int heard_open(struct heard *h, int protocol, int group, int (*on_message)(struct nl_msg *msg, void *ctx), void *ctx, const char *of,
	       struct vh_err *e)
{
	int r;

	h->look = 1;
	h->sock = nl_socket_alloc();
	if (!h->sock)
		return net_host->err(e, -ENOMEM, "no memory for a socket");
	nl_socket_disable_seq_check(h->sock);
	nl_socket_modify_cb(h->sock, NL_CB_VALID, NL_CB_CUSTOM, on_message, ctx);
	r = nl_connect(h->sock, protocol);
	if (!r)
		r = nl_socket_add_membership(h->sock, group);
	if (!r)
		r = nl_socket_set_nonblocking(h->sock);
	if (!r)
		return nl_socket_get_fd(h->sock);
	heard_close(h);
	return net_host->err(e, -EIO, "cannot listen to what others do to %s: %s", of, nl_geterror(r));
}

void heard_read(struct heard *h)
{
	int r = h->sock ? 0 : -NLE_AGAIN;

	/* A host that never stops changing things does not keep us here. */
	for (unsigned i = 0; i < READ_MAX && r != -NLE_AGAIN; i++) {
		r = nl_recvmsgs_default(h->sock);
		if (r < 0 && r != -NLE_AGAIN) /* there was no room for all that has come */
			h->look = 1;
	}
}

void heard_close(struct heard *h)
{
	if (h->sock)
		nl_socket_free(h->sock);
	h->sock = NULL;
}
