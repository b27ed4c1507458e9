/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The helper's ports watched: what other programs take from under them is put back by their plugins. A request of the VM's
 * process always comes first.
 */
#include "net/helper.h"

#include <glib.h>
#include <poll.h>
#include <string.h>

#include "net/pace.h"
#include "util/log.h"

struct watched {
	const struct vh_net_ops *ops;
	void *port;
	int fd;
	char *name;  /* "NIC 0 (vnet0) of VM web" */
	char *said;  /* the last complaint, which is not repeated */
	struct pace pace;
};
static struct watched watched[HELPER_PORTS_MAX];
static unsigned n_watched;

static uint64_t now_ms(void)
{
	return (uint64_t)g_get_monotonic_time() / 1000 + 1;
}

/* "vhost:NAME:PID:START:INDEX" */
static char *port_name(const char *owner, const char *ifname)
{
	g_auto(GStrv) part = g_strsplit(owner, ":", 6);

	return g_strv_length(part) == 5 ? g_strdup_printf("NIC %s (%s) of VM %s", part[4], ifname, part[1]) : g_strdup(ifname);
}

void net_watch_add(const struct vh_net_ops *ops, void *port, const char *owner)
{
	struct vh_net_info info = { .size = sizeof(info) };
	struct watched *w = &watched[n_watched];
	ERR_AUTO(e);
	int fd;

	if (!ops->watch || !ops->repair || n_watched == HELPER_PORTS_MAX)
		return;
	fd = ops->watch(port, &e);
	if (fd < 0 && fd != -EOPNOTSUPP)
		log_warn("net.repair", "%s: what other programs do to its network is not seen: %s", owner, e.cause ? e.cause : g_strerror(-fd));
	if (fd < 0)
		return;
	ops->info(port, &info);
	info.ifname[sizeof(info.ifname) - 1] = '\0';
	*w = (struct watched){ .ops = ops, .port = port, .fd = fd, .name = port_name(owner, info.ifname) };
	/* What was changed since it was opened. */
	pace_heard(&w->pace, now_ms());
	n_watched++;
}

static void drop(struct watched *w)
{
	g_free(w->name);
	g_free(w->said);
	*w = watched[--n_watched];
}

void net_watch_drop(const void *port)
{
	for (unsigned i = 0; i < n_watched; i++)
		if (watched[i].port == port) {
			drop(&watched[i]);
			return;
		}
}

static void tell(void *ctx, const char *text)
{
	const struct watched *w = ctx;

	log_warn("net.repair", "%s: %s", w->name, text ? text : "");
}

static void complain(struct watched *w, int r, const struct vh_err *e)
{
	const char *cause = e->cause ? e->cause : g_strerror(r > -4096 ? -r : EIO);

	if (!g_strcmp0(w->said, cause))
		return;
	g_free(w->said);
	w->said = g_strdup(cause);
	log_error("net.repair", "%s: %s%s%s%s", w->name, cause, e->remedy ? " (" : "", e->remedy ? e->remedy : "", e->remedy ? ")" : "");
}

static void repair(struct watched *w)
{
	ERR_AUTO(e);
	int r = w->ops->repair(w->port, tell, w, &e);

	if (r < 0)
		complain(w, r, &e);
	else
		g_clear_pointer(&w->said, g_free);
	if (pace_done(&w->pace, now_ms(), r))
		log_error("net.repair", "%s: repaired %u times in a row; left alone for %u minutes (find the program that undoes it)", w->name,
			  PACE_ROW, PACE_REST / 60000);
}

/* The first moment at which something is due, in ms from now. -1: never. */
static int next_due(uint64_t now)
{
	int64_t ms = -1;

	for (unsigned i = 0; i < n_watched; i++) {
		uint64_t due = watched[i].pace.due;
		int64_t left = due > now ? (int64_t)(due - now) : 0;

		if (due && (ms < 0 || left < ms))
			ms = left;
	}
	return (int)MIN(ms, G_MAXINT);
}

void net_watch_until(int sock)
{
	struct pollfd p[1 + HELPER_PORTS_MAX];

	while (n_watched) {
		unsigned n = n_watched;
		uint64_t now = now_ms();

		p[0] = (struct pollfd){ sock, POLLIN, 0 };
		for (unsigned i = 0; i < n; i++)
			p[1 + i] = (struct pollfd){ pace_listens(&watched[i].pace) ? watched[i].fd : -1, POLLIN, 0 };
		if (poll(p, 1 + n, next_due(now)) < 0 && errno != EINTR)
			return;
		if (p[0].revents)
			return;
		now = now_ms();
		for (unsigned i = n; i-- > 0;)
			if (p[1 + i].revents & POLLNVAL)
				drop(&watched[i]);
			else if (p[1 + i].revents)
				pace_heard(&watched[i].pace, now);
		/* One, and then a request may have come. */
		for (unsigned i = 0; i < n_watched; i++)
			if (pace_due(&watched[i].pace, now)) {
				repair(&watched[i]);
				break;
			}
	}
}
