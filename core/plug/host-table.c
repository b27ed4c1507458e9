/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What plugins get: the host table and the services that the core's lowest layers give. The layers above register theirs
 * (vh.io/1, vh.meta/1, vh.lower/1) when they start.
 */
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "plug/impl.h"
#include "util/job.h"
#include "util/log.h"
#include "util/loop.h"
#include "util/paths.h"

#define SERVICES_MAX 16
#define SECRET_MAX 65536

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

/* ---- secrets: files of the configuration's folder secrets/ ---- */

static int secret_open(const char *name, struct vh_err *e)
{
	g_autofree char *dir = path_in(PATH_CONFIG, "secrets", NULL);
	g_autofree char *path = g_build_filename(dir, name, NULL);
	struct stat st;
	int fd;

	err_object(e, "secret %s", name);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	if (fd < 0) {
		int r = err_set(e, -errno, "%s cannot be opened: %s", path, g_strerror(errno));

		if (r == -ENOENT)
			err_remedy(e, "put the secret into that file, with mode 0600");
		return r;
	}
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || st.st_mode & (S_IRWXG | S_IRWXO) ||
	    (st.st_uid != 0 && st.st_uid != geteuid())) {
		close(fd);
		err_set(e, -EACCES, "%s can be read by others, or is not yours", path);
		err_remedy(e, "chown it to yourself and chmod 0600 '%s'", path);
		return -EACCES;
	}
	return fd;
}

/* One newline at the end is the editor's, not the secret's. */
static int64_t secret_get(const char *name, void *buf, uint64_t cap, struct vh_err *e)
{
	char *tmp = NULL;
	int64_t r = name_check("secret", name, e);
	size_t len = 0;
	int fd;

	if (r < 0)
		return r;
	fd = secret_open(name, e);
	if (fd < 0)
		return fd;
	tmp = g_malloc(SECRET_MAX + 1);
	while (len <= SECRET_MAX) {
		ssize_t n = read(fd, tmp + len, SECRET_MAX + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0) {
			r = err_set(e, -errno, "cannot be read: %s", g_strerror(errno));
			goto out;
		}
		if (!n)
			break;
		len += (size_t)n;
	}
	if (len && tmp[len - 1] == '\n')
		len--;
	if (len > cap || len > SECRET_MAX) {
		r = err_set(e, -ENOSPC, "it is longer than the %llu bytes that fit", (unsigned long long)MIN(cap, SECRET_MAX));
		goto out;
	}
	memcpy(buf, tmp, len);
	r = (int64_t)len;
out:
	explicit_bzero(tmp, SECRET_MAX + 1);
	g_free(tmp);
	close(fd);
	return r;
}

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
