/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What plugins get: the host table and the services that the core's lowest layers give. The layers above register theirs
 * (vh.io/1, vh.meta/1, vh.lower/1) when they start.
 */
#include <glib.h>
#include <string.h>
#include "plug/impl.h"
#include "plug/secret.h"
#include "util/job.h"
#include "util/log.h"
#include "util/loop.h"

#define SERVICES_MAX 16

extern const struct vh_event_ops plug_event_service;
extern const struct vh_stats_ops plug_stats_service;

/* ---- log ---- */

static const struct vh_log_ops log_service = {
	.size = sizeof(log_service), .enabled = log_enabled, .log = log_line, .vlog = log_vline};

/* ---- loop: the loop's own functions, and in debug builds a check that the caller is on the loop's thread ---- */

#ifndef NDEBUG
/* A loop that no thread runs yet belongs to whoever sets it up. */
static void check_thread(struct vh_loop *l, const char *what)
{
	if (!loop_is_current(l) && loop_tid(l))
		log_error("plug", "a plugin called %s of vh.loop/1 on a thread that does not own the loop", what);
}

static int checked_watch(struct vh_loop *l, int fd, uint32_t events, void (*fn)(void *ctx, uint32_t events), void *ctx,
			 struct vh_watch **out)
{
	check_thread(l, "watch");
	return loop_watch(l, fd, events, fn, ctx, out);
}

static int checked_timer(struct vh_loop *l, void (*fn)(void *ctx), void *ctx, struct vh_timer **out)
{
	check_thread(l, "timer");
	return loop_timer(l, fn, ctx, out);
}

static uint64_t checked_now(struct vh_loop *l)
{
	check_thread(l, "now");
	return loop_now(l);
}

static const struct vh_loop_ops checked_loop_service = {
	.size = sizeof(checked_loop_service),
	.watch = checked_watch,
	.watch_events = loop_watch_events,
	.unwatch = loop_unwatch,
	.timer = checked_timer,
	.timer_at = loop_timer_at,
	.timer_free = loop_timer_free,
	.post = loop_post,
	.now = checked_now,
	.is_current = loop_is_current,
};
#define LOOP_SERVICE (&checked_loop_service)
#else
#define LOOP_SERVICE (&loop_service)
#endif

/* ---- secrets: secret.c ---- */

static const struct vh_secret_ops secret_service = {.size = sizeof(secret_service), .get = secret_get};

/* ---- the registry of services ---- */

struct service {
	const char *iid;
	const void *table;
};
static const struct service builtin[] = {
	{VH_SVC_LOG, &log_service},      {VH_SVC_LOOP, LOOP_SERVICE},         {VH_SVC_EVENT, &plug_event_service},
	{VH_SVC_JOB, &job_service},      {VH_SVC_SECRET, &secret_service},    {VH_SVC_STATS, &plug_stats_service},
};
/* Written before the first plugin is loaded, or by one thread at a time; read by any. */
static struct service registered[SERVICES_MAX];
static unsigned n_registered;

int plug_service_register(const char *iid, const void *table)
{
	unsigned n = __atomic_load_n(&n_registered, __ATOMIC_ACQUIRE);

	for (unsigned i = 0; i < n; i++)
		if (!strcmp(registered[i].iid, iid))
			return registered[i].table == table ? 0 : -EEXIST;
	if (n == SERVICES_MAX)
		return -ENOSPC;
	registered[n].iid = iid;
	registered[n].table = table;
	__atomic_store_n(&n_registered, n + 1, __ATOMIC_RELEASE);
	return 0;
}

int plug_service_replace(const char *iid, const void *table)
{
	for (unsigned i = 0; i < n_registered; i++) {
		if (strcmp(registered[i].iid, iid))
			continue;
		registered[i].table = table;
		return 0;
	}
	return plug_service_register(iid, table);
}

const void *plug_service(const char *iid)
{
	unsigned n = __atomic_load_n(&n_registered, __ATOMIC_ACQUIRE);

	if (!iid)
		return NULL;
	for (unsigned i = 0; i < G_N_ELEMENTS(builtin); i++)
		if (!strcmp(builtin[i].iid, iid))
			return builtin[i].table;
	for (unsigned i = 0; i < n; i++)
		if (!strcmp(registered[i].iid, iid))
			return registered[i].table;
	return NULL;
}

static const void *host_service(const struct vh_host *host, const char *iid)
{
	return plug_service(iid);
}

/* Without an error of its own a text belongs to the load that runs on this thread, if any. */
static int host_verr(struct vh_err *e, int code, const char *fmt, va_list ap)
{
	return err_vset(e ? e : plug_entry_err, code, fmt, ap);
}

static int host_err(struct vh_err *e, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	code = host_verr(e, code, fmt, ap);
	va_end(ap);
	return code;
}

static void host_remedy(struct vh_err *e, const char *fmt, ...)
{
	g_autofree char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	err_remedy(e ? e : plug_entry_err, "%s", text);
}

const struct vh_host plug_host = {
	.size = sizeof(plug_host),
	.minor = VH_ABI_MINOR,
	.service = host_service,
	.err = host_err,
	.verr = host_verr,
	.remedy = host_remedy,
};
