/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * One iSCSI session, driven by whoever waits for it: control calls and the fixer's thread. Once it is up a queue may have it,
 * which then drives it from its loop. The library neither reconnects by itself (that would be a new nexus, whose old one may
 * still write) nor has time limits of its own (it counts in whole seconds).
 */
#include <netdb.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>
#include "iscsi.h"

#define REDIRECTS 3
#define UA_MAX 16 /* unit attentions in a row */
#define COMMAND_TIME (20 * SECOND)

struct nexus nexus_random(void)
{
	uint32_t r[2] = {0, 0};

	if (getrandom(r, sizeof(r), 0) != sizeof(r))
		r[0] = (uint32_t)is_now(), r[1] = (uint32_t)getpid();
	/* The highest bit of the qualifier keeps these apart from the ones that are made of a LUN's identity. */
	return (struct nexus){r[0] & 0xffffff, 0x8000 | (r[1] & 0x7fff)};
}

static void connect_cb(struct iscsi_context *ctx, int status, void *data, void *priv)
{
	struct session *s = priv;

	(void)data;
	s->connected = status == SCSI_STATUS_GOOD ? 1 : -1;
	if (s->connected < 0) /* the next text is only about what it does then */
		snprintf(s->error, sizeof(s->error), "%s", iscsi_get_error(ctx));
}

static void login_cb(struct iscsi_context *ctx, int status, void *data, void *priv)
{
	struct session *s = priv;

	(void)ctx, (void)data;
	s->logged_in = 1;
	s->login_status = status;
}

static void session_lose(struct session *s)
{
	struct iscsi_context *ctx = s->ctx;

	if (!ctx)
		return;
	iscsi_destroy_context(ctx); /* ends every command with SCSI_STATUS_CANCELLED */
	s->ctx = NULL;
}

/* Until *flag or the time is up. */
static int drive(struct session *s, const int *flag, uint64_t until, struct why *w)
{
	while (!*flag) {
		struct pollfd p[2] = {{.fd = iscsi_get_fd(s->ctx), .events = (short)iscsi_which_events(s->ctx)},
				      {.fd = s->stop_fd, .events = POLLIN}};
		uint64_t now = is_now(), left = until > now ? until - now : 0;
		int n;

		if (!left)
			return why_set(w, -ETIMEDOUT, "%s:%u does not answer", s->cfg->host, s->cfg->port);
		n = poll(p, s->stop_fd >= 0 ? 2 : 1, (int)(left / MSEC < 1000 ? left / MSEC + 1 : 1000));
		if (n < 0 && errno != EINTR)
			return why_set(w, -errno, "poll: %s", strerror(errno));
		if (n <= 0)
			continue;
		if (s->stop_fd >= 0 && p[1].revents)
			return why_set(w, -ECANCELED, "stopped");
		if (iscsi_service(s->ctx, p[0].revents) < 0 && !*flag) {
			const char *text = iscsi_get_error(s->ctx);

			return why_set(w, -ECONNRESET, "%s:%u: %s", s->cfg->host, s->cfg->port, *text ? text : "the connection is lost");
		}
	}
	return 0;
}

/* ---- logging in ---- */

static int login_failed(const struct config *c, struct session *s, struct why *w)
{
	const char *text = iscsi_get_error(s->ctx);
	char targets[400];

	if (strstr(text, "Authentication fail") || strstr(text, "Authorization fail") || strstr(text, "CHAP")) {
		why_remedy(w, "check %s at the target and here", c->user[0] ? c->target_user[0] ? "user, secret, target-user, "
			   "target-secret and initiator" : "user, secret and initiator" : "initiator, or set user and secret");
		return why_set(w, -EACCES, "%s refuses the login of %s: %.200s", c->target[0] ? c->target : "the portal", c->initiator,
			       text);
	}
	if (strstr(text, "Target not found") || strstr(text, "arget removed")) {
		struct why none = {0};

		if (!session_discover(c, targets, sizeof(targets), &none))
			why_remedy(w, "it offers this host: %.200s", targets[0] ? targets : "nothing");
		return why_set(w, -ENOENT, "the portal %s:%u has no target %s", c->host, c->port, c->target);
	}
	return why_set(w, -ECONNREFUSED, "login to %s at %s:%u failed: %.200s", c->target[0] ? c->target : "the portal", c->host,
		       c->port, *text ? text : "no reason given");
}

static int login_to(struct session *s, const char *address, const struct nexus *x, int discovery, uint64_t until, char redirect[300],
		    struct why *w)
{
	const struct config *c = s->cfg;
	int ret;

	s->connected = s->logged_in = 0;
	s->error[0] = 0;
	s->ctx = iscsi_create_context(c->initiator);
	if (!s->ctx)
		return why_set(w, -ENOMEM, "no memory");
	iscsi_set_log_level(s->ctx, 0); /* whatever LIBISCSI_DEBUG says: a plugin writes to nobody's stderr */
	iscsi_set_noautoreconnect(s->ctx, 1);
	iscsi_set_isid_random(s->ctx, x->rnd, x->qual);
	iscsi_set_session_type(s->ctx, discovery ? ISCSI_SESSION_DISCOVERY : ISCSI_SESSION_NORMAL);
	if (!discovery)
		iscsi_set_targetname(s->ctx, c->target);
	if (c->user[0])
		iscsi_set_initiator_username_pwd(s->ctx, c->user, c->secret->text);
	if (c->target_user[0])
		iscsi_set_target_username_pwd(s->ctx, c->target_user, c->target_secret->text);
	if (iscsi_connect_async(s->ctx, address, connect_cb, s) < 0)
		return why_set(w, -ECONNREFUSED, "%s: %s", address, iscsi_get_error(s->ctx));
	ret = drive(s, &s->connected, until, w);
	if (ret)
		return ret;
	if (s->connected < 0) {
		const char *text = strncmp(s->error, "iscsi_service: ", 15) ? s->error : s->error + 15;

		why_remedy(w, "check the portal's address, and that the target is running");
		return why_set(w, -ECONNREFUSED, "%s:%u cannot be reached: %s", c->host, c->port, text);
	}
	if (iscsi_login_async(s->ctx, login_cb, s) < 0)
		return why_set(w, -EIO, "login to %s:%u: %s", c->host, c->port, iscsi_get_error(s->ctx));
	ret = drive(s, &s->logged_in, until, w);
	if (ret)
		return ret == -ECONNRESET && strstr(iscsi_get_error(s->ctx), "CHAP") ? login_failed(c, s, NULL) : ret;
	if (s->login_status == SCSI_STATUS_REDIRECT) {
		const char *to = iscsi_get_target_address(s->ctx);

		snprintf(redirect, 300, "%s", to ? to : "");
		return redirect[0] ? 1 : why_set(w, -EPROTO, "%s:%u sends us elsewhere, but not where", c->host, c->port);
	}
	if (s->login_status != SCSI_STATUS_GOOD)
		return login_failed(c, s, w);
	return 0;
}

/* One address after the other; names only where waiting for a name server is fine, which is every caller here. */
static int login_any(struct session *s, const struct nexus *x, int discovery, struct why *w)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL;
	const struct config *c = s->cfg;
	uint64_t until = is_now() + c->login_timeout;
	char address[300], host[256] = "", redirect[300] = "";
	int ret = getaddrinfo(c->host, NULL, &hints, &list);

	if (ret)
		return why_set(w, -EHOSTUNREACH, "the portal's name %s has no address: %s", c->host, gai_strerror(ret));
	ret = -EHOSTUNREACH;
	for (struct addrinfo *a = list; a && ret < 0; a = a->ai_next) {
		struct why one = {0};

		if (getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST))
			continue;
		snprintf(address, sizeof(address), a->ai_family == AF_INET6 ? "[%.255s]:%u" : "%.255s:%u", host, c->port);
		for (int hops = 0; hops <= REDIRECTS; hops++) {
			ret = login_to(s, address, x, discovery, until, redirect, &one);
			if (ret != 1)
				break;
			session_lose(s);
			snprintf(address, sizeof(address), "%.299s", redirect);
			ret = why_set(&one, -ELOOP, "%s:%u sends us from portal to portal", c->host, c->port);
			if (hops < REDIRECTS)
				one.text[0] = 0;
		}
		if (ret < 0) {
			session_lose(s);
			if (w) /* the last address' reason */
				*w = one;
		}
		if (ret == -EACCES || ret == -ENOENT || ret == -ECANCELED)
			break;
	}
	freeaddrinfo(list);
	return ret;
}

int session_open(const struct config *c, const struct nexus *x, int discovery, int stop_fd, struct session **out, struct why *w)
{
	struct session *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return why_set(w, -ENOMEM, "no memory");
	s->cfg = c;
	s->stop_fd = stop_fd;
	ret = login_any(s, x, discovery, w);
	if (ret) {
		free(s);
		return ret;
	}
	*out = s;
	return 0;
}

static void logout_cb(struct iscsi_context *ctx, int status, void *data, void *priv)
{
	(void)ctx, (void)data, (void)status;
	*(int *)priv = 1;
}

void session_close(struct session *s, uint64_t wait)
{
	int out = 0;

	if (!s)
		return;
	s->stop_fd = -1;
	if (s->ctx && wait && iscsi_is_logged_in(s->ctx) && !iscsi_logout_async(s->ctx, logout_cb, &out))
		drive(s, &out, is_now() + wait, NULL);
	session_lose(s);
	free(s);
}

int session_dead(struct session *s)
{
	struct pollfd p;

	if (!s->ctx)
		return 1;
	for (int i = 0; i < 16; i++) {
		p = (struct pollfd){.fd = iscsi_get_fd(s->ctx), .events = POLLIN};
		if (poll(&p, 1, 0) <= 0)
			return 0;
		if (iscsi_service(s->ctx, p.revents) < 0) {
			session_lose(s);
			return 1;
		}
	}
	return 0;
}

/* ---- discovery ---- */

struct discovery { int done, status; char *out; size_t cap; unsigned more; };

static void discovery_cb(struct iscsi_context *ctx, int status, void *data, void *priv)
{
	struct discovery *d = priv;
	size_t n = 0;

	(void)ctx;
	d->done = 1;
	d->status = status;
	if (status != SCSI_STATUS_GOOD)
		return;
	for (const struct iscsi_discovery_address *a = data; a; a = a->next) {
		char name[224];
		size_t k = a->target_name ? is_text(name, sizeof(name), (const uint8_t *)a->target_name, strlen(a->target_name)) : 0;

		if (!k)
			continue;
		if (n + k + 20 > d->cap) {
			d->more++;
			continue;
		}
		n += (size_t)snprintf(d->out + n, d->cap - n, "%s%s", n ? ", " : "", name);
	}
	if (d->more)
		snprintf(d->out + n, d->cap - n, ", %u more", d->more);
}

int session_discover(const struct config *c, char *out, size_t cap, struct why *w)
{
	struct discovery d = {.out = out, .cap = cap};
	struct nexus x = nexus_random();
	struct config plain = *c;
	struct session *s;
	int ret;

	*out = 0;
	plain.target[0] = 0;
	ret = session_open(&plain, &x, 1, -1, &s, w);
	if (ret == -EACCES && c->user[0]) { /* many portals ask for no name when they only list */
		plain.user[0] = plain.target_user[0] = 0;
		if (w)
			w->text[0] = w->remedy[0] = 0;
		ret = session_open(&plain, &x, 1, -1, &s, w);
	}
	if (ret)
		return ret;
	if (iscsi_discovery_async(s->ctx, discovery_cb, &d) < 0)
		ret = why_set(w, -EIO, "the portal cannot be asked for its targets: %s", iscsi_get_error(s->ctx));
	if (!ret)
		ret = drive(s, &d.done, is_now() + c->login_timeout, w);
	if (!ret && d.status != SCSI_STATUS_GOOD)
		ret = why_set(w, -EIO, "the portal does not tell its targets: %s", iscsi_get_error(s->ctx));
	session_close(s, ret ? 0 : SECOND);
	return ret;
}

/* ---- commands ---- */

static void cmd_cb(struct iscsi_context *ctx, int status, void *data, void *priv)
{
	struct cmd *c = priv;

	(void)ctx, (void)data;
	c->status = status;
	c->done = 1;
}

int cmd_start(struct session *s, struct cmd *c, int lun, const uint8_t *cdb, int cdb_len, int dir, int len, const void *out,
	      struct why *w)
{
	uint8_t copy[16];

	memset(c, 0, sizeof(*c));
	memcpy(copy, cdb, (size_t)cdb_len);
	if (!s->ctx)
		return why_set(w, -ENOTCONN, "the session with %s is lost", s->cfg->target);
	c->task = scsi_create_task(cdb_len, copy, dir, len);
	if (!c->task)
		return why_set(w, -ENOMEM, "no memory");
	if (out) {
		c->data = (struct iscsi_data){.size = (size_t)len, .data = (unsigned char *)(uintptr_t)out};
	}
	if (!iscsi_scsi_command_async(s->ctx, lun, c->task, cmd_cb, out ? &c->data : NULL, c))
		return 0;
	why_set(w, -EIO, "%s", iscsi_get_error(s->ctx));
	cmd_end(c);
	return -EIO;
}

int cmd_wait(struct session *s, struct cmd *c, unsigned n, struct why *w)
{
	uint64_t until = is_now() + (s->cfg->login_timeout > COMMAND_TIME ? s->cfg->login_timeout : COMMAND_TIME);

	for (unsigned i = 0; i < n; i++) {
		int ret = c[i].task && !c[i].done ? drive(s, &c[i].done, until, w) : 0;

		if (ret) { /* their memory may go as soon as we return */
			session_lose(s);
			return ret;
		}
	}
	return 0;
}

int cmd_lost(const struct cmd *c)
{
	return c->task && (!c->done || c->status == SCSI_STATUS_CANCELLED || c->status == SCSI_STATUS_ERROR ||
			   c->status == SCSI_STATUS_TIMEOUT);
}

int cmd_result(const struct cmd *c, const char *what, struct why *w)
{
	const struct scsi_sense *sense;

	if (!c->task || !c->done)
		return why_set(w, -EIO, "%s: the session is lost", what);
	sense = &c->task->sense;
	switch (c->status) {
	case SCSI_STATUS_GOOD:
		return 0;
	case SCSI_STATUS_CHECK_CONDITION:
		if (sense->key == SCSI_SENSE_UNIT_ATTENTION)
			return -EAGAIN;
		return why_set(w, sense->key == SCSI_SENSE_ILLEGAL_REQUEST && sense->ascq == SCSI_SENSE_ASCQ_LOGICAL_UNIT_NOT_SUPPORTED ?
			       -ENXIO : sense->key == SCSI_SENSE_ILLEGAL_REQUEST ? -EOPNOTSUPP : -EIO,
			       "%s: the target says %s, %s (%02x/%04x)", what, scsi_sense_key_str((int)sense->key),
			       scsi_sense_ascq_str(sense->ascq), (unsigned)sense->key, (unsigned)sense->ascq);
	case SCSI_STATUS_BUSY:
	case SCSI_STATUS_TASK_SET_FULL:
		return -EAGAIN;
	case SCSI_STATUS_RESERVATION_CONFLICT:
		return why_set(w, -EBUSY, "%s: another host has reserved the LUN", what);
	}
	if (cmd_lost(c))
		return why_set(w, -ECONNRESET, "%s: the session was lost", what);
	return why_set(w, -EIO, "%s: it was not done (status %#x)", what, (unsigned)c->status);
}

size_t cmd_data(const struct cmd *c, const uint8_t **data)
{
	*data = c->task ? c->task->datain.data : NULL;
	return *data && c->task->datain.size > 0 ? (size_t)c->task->datain.size : 0;
}

void cmd_end(struct cmd *c)
{
	if (c->task)
		scsi_free_scsi_task(c->task);
	c->task = NULL;
}

int cmd_run(struct session *s, struct cmd *c, int lun, const uint8_t *cdb, int cdb_len, int dir, int len, const void *out,
	    const char *what, struct why *w)
{
	int ret = 0;

	for (int i = 0; i < UA_MAX; i++) {
		ret = cmd_start(s, c, lun, cdb, cdb_len, dir, len, out, w);
		if (!ret)
			ret = cmd_wait(s, c, 1, w);
		if (!ret)
			ret = cmd_result(c, what, w);
		if (!ret)
			return 0;
		cmd_end(c);
		if (ret != -EAGAIN)
			return ret;
		if (i > 4)
			poll(NULL, 0, 20);
	}
	return why_set(w, -EBUSY, "%s: the target is busy", what);
}

struct reset { int done, status; uint32_t response; };

static void reset_cb(struct iscsi_context *ctx, int status, void *data, void *priv)
{
	struct reset *r = priv;

	(void)ctx;
	r->done = 1;
	r->status = status;
	r->response = status == SCSI_STATUS_GOOD && data ? *(uint32_t *)data : UINT32_MAX;
}

int session_lun_reset(struct session *s, int lun, struct why *w)
{
	struct reset r = {0};
	int ret;

	if (!s->ctx || iscsi_task_mgmt_lun_reset_async(s->ctx, (uint32_t)lun, reset_cb, &r) < 0)
		return why_set(w, -EIO, "resetting the LUN: the session is lost");
	ret = drive(s, &r.done, is_now() + COMMAND_TIME, w);
	if (ret) {
		session_lose(s);
		return ret;
	}
	if (r.status != SCSI_STATUS_GOOD || r.response)
		return why_set(w, -EIO, "the target does not reset the LUN (response %d)", (int)r.response);
	return 0;
}
