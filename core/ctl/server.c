/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The control socket: its life, its connections, and the bounds that no client can pass. Until the first one connects there
 * is neither a thread nor any JSON; then it is served by a loop of its own, at a low priority.
 */
#include "ctl/server-i.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "util/log.h"

#define FLUSH_AT_END_MS 300

size_t conn_waiting(const struct conn *c)
{
	return c->out->len - c->out_at;
}

static void update_watch(struct conn *c)
{
	int in = !c->eof && !c->close_after && c->in->len < VARLINK_MAX && conn_waiting(c) < STREAM_FILL && !(c->mode == CONN_RAW && c->typed_n);

	if (!c->dead)
		loop_watch_events(c->watch, (in ? VH_IN : 0) | (conn_waiting(c) ? VH_OUT : 0));
}

static void reap(struct vh_task *t)
{
	struct ctl_server *s = (struct ctl_server *)((char *)t - offsetof(struct ctl_server, reap_task));
	struct conn **p = &s->conns, *c;

	while ((c = *p)) {
		if (!c->dead) {
			p = &c->next;
			continue;
		}
		*p = c->next;
		s->n_conns--;
		g_byte_array_unref(c->in);
		g_byte_array_unref(c->out);
		g_free(c);
	}
}

void conn_kill(struct conn *c)
{
	if (c->dead)
		return;
	c->dead = 1;
	console_detach(c);
	if (c->job)
		job_forget(c->job);
	c->job = NULL;
	loop_unwatch(c->watch);
	close(c->fd);
	loop_defer(c->s->loop, &c->s->reap_task);
}

static void flush(struct conn *c)
{
	ssize_t n;

	while (!c->dead && conn_waiting(c)) {
		n = send(c->fd, c->out->data + c->out_at, conn_waiting(c), MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
			break;
		if (n < 0) {
			conn_kill(c);
			return;
		}
		c->out_at += (size_t)n;
	}
	if (!conn_waiting(c)) {
		g_byte_array_set_size(c->out, 0);
		c->out_at = 0;
		if (c->close_after || (c->eof && c->mode == CONN_IDLE && !c->in->len))
			conn_kill(c);
	} else if (c->out_at > OUT_MAX / 2) {
		g_byte_array_remove_range(c->out, 0, (guint)c->out_at);
		c->out_at = 0;
	}
}

void conn_send(struct conn *c, const void *data, size_t len)
{
	if (c->dead || !len)
		return;
	if (len > OUT_MAX - MIN(conn_waiting(c), OUT_MAX)) {
		log_debug("ctl", "a client that does not read is dropped");
		conn_kill(c);
		return;
	}
	g_byte_array_append(c->out, data, (guint)len);
	flush(c);
	update_watch(c);
}

static void send_message(struct conn *c, const char *error, JsonObject *params, int continues)
{
	g_autofree char *text = NULL;
	size_t len;

	if (c->dead || c->oneway) {
		g_clear_pointer(&params, json_object_unref);
		return;
	}
	text = varlink_message(error, params, continues, &len);
	conn_send(c, text, len);
}

void conn_reply(struct conn *c, JsonObject *params, int continues)
{
	send_message(c, NULL, params, continues);
}

void conn_error(struct conn *c, const char *error, JsonObject *params)
{
	send_message(c, error, params, 0);
}

void conn_invalid(struct conn *c, const char *parameter)
{
	JsonObject *o = json_object_new();

	json_object_set_string_member(o, "parameter", parameter);
	conn_error(c, VARLINK_SERVICE ".InvalidParameter", o);
}

void conn_failed(struct conn *c, const struct vh_err *e)
{
	JsonObject *o = json_object_new();

	json_object_set_string_member(o, "error", err_symbol(e->code));
	json_object_set_int_member(o, "code", -e->code);
	json_object_set_string_member(o, "message", e->cause ? e->cause : g_strerror(-e->code));
	if (e->remedy)
		json_object_set_string_member(o, "remedy", e->remedy);
	conn_error(c, VARLINK_VM ".Failed", o);
}

/* Works off the requests that are there, as long as each is answered at once and the answers are read. */
static void work(struct conn *c)
{
	while (!c->dead && !c->close_after && c->mode == CONN_IDLE && conn_waiting(c) < STREAM_FILL) {
		uint8_t *end = c->in->len ? memchr(c->in->data, 0, c->in->len) : NULL;
		struct varlink_call call;

		if (!end && c->in->len >= VARLINK_MAX) {
			/* Nothing behind it can be told apart: the end of this connection. */
			conn_invalid(c, "message longer than 64 KiB");
			c->close_after = 1;
			flush(c);
			break;
		}
		if (!end)
			break;
		if (varlink_parse((char *)c->in->data, (size_t)(end - c->in->data), &call) < 0) {
			conn_invalid(c, "message");
			c->close_after = 1;
			flush(c);
			break;
		}
		g_byte_array_remove_range(c->in, 0, (guint)(end - c->in->data) + 1);
		c->oneway = call.oneway;
		ctl_dispatch(c, &call);
		varlink_clear(&call);
	}
	if (!c->dead && c->eof && c->mode == CONN_IDLE && !conn_waiting(c))
		conn_kill(c);
	update_watch(c);
}

void conn_done(struct conn *c)
{
	if (c->dead)
		return;
	console_detach(c);
	c->mode = CONN_IDLE;
	c->job = NULL;
	work(c);
}

void conn_want_input(struct conn *c)
{
	update_watch(c);
}

static void read_raw(struct conn *c)
{
	ssize_t n;

	n = recv(c->fd, c->typed, sizeof(c->typed), MSG_DONTWAIT);
	if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
		conn_kill(c);
		return;
	}
	c->typed_n = n > 0 ? (unsigned)n : 0;
	console_type(c);
}

static void read_requests(struct conn *c)
{
	uint8_t buf[16384];
	ssize_t n = recv(c->fd, buf, MIN(sizeof(buf), VARLINK_MAX - c->in->len), MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		c->eof = 1;
		/* Nobody follows any more; a call that is being worked off is still answered, for half the line may be open. */
		if (n < 0 || c->mode == CONN_EVENTS || c->mode == CONN_CONSOLE)
			conn_kill(c);
	} else {
		g_byte_array_append(c->in, buf, (guint)n);
	}
	if (!c->dead)
		work(c);
}

static void on_conn(void *ctx, uint32_t events)
{
	struct conn *c = ctx;

	if (c->dead)
		return;
	if (events & VH_OUT) {
		flush(c);
		if (!c->dead && (c->mode == CONN_CONSOLE || c->mode == CONN_RAW))
			console_pump(c);
		else if (!c->dead)
			work(c);
	}
	/* Hung up, and reading has ended before: nobody is there. */
	if (!c->dead && (events & VH_IN) && (c->eof || c->close_after))
		conn_kill(c);
	if (!c->dead && (events & VH_IN) && c->mode == CONN_RAW && !c->typed_n)
		read_raw(c);
	else if (!c->dead && (events & VH_IN) && c->mode != CONN_RAW && c->in->len < VARLINK_MAX)
		read_requests(c);
	if (!c->dead)
		update_watch(c);
}

static int peer_allowed(int fd)
{
	struct ucred u;
	socklen_t len = sizeof(u);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) && (!u.uid || u.uid == geteuid());
}

static void on_listen(void *ctx, uint32_t events)
{
	struct ctl_server *s = ctx;
	struct conn *c;
	int fd;

	for (int i = 0; i < 8; i++) {
		fd = accept4(s->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (fd < 0) {
			if (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
				g_usleep(20000); /* it stays ready: not at full speed */
			return;
		}
		if (!peer_allowed(fd) || s->n_conns >= CONNS_MAX) {
			log_debug("ctl", "a client is refused");
			close(fd);
			continue;
		}
		c = g_new0(struct conn, 1);
		c->s = s;
		c->fd = fd;
		c->in = g_byte_array_new();
		c->out = g_byte_array_new();
		if (loop_watch(s->loop, fd, VH_IN, on_conn, c, &c->watch) < 0) {
			close(fd);
			g_byte_array_unref(c->in);
			g_byte_array_unref(c->out);
			g_free(c);
			continue;
		}
		c->next = s->conns;
		s->conns = c;
		s->n_conns++;
	}
}

static void force_stop(void *ctx)
{
	job_start(ctx, NULL, JOB_QUIT, 0, 0);
}

/* [ctl loop] The first thing that it does. */
static void adopt(struct vh_task *t)
{
	struct ctl_server *s = (struct ctl_server *)((char *)t - offsetof(struct ctl_server, adopt_task));

	setpriority(PRIO_PROCESS, 0, 10); /* of this thread: the guest comes first */
	if (loop_timer(s->loop, force_stop, s, &s->force) < 0 ||
	    loop_watch(s->loop, s->listen_fd, VH_IN, on_listen, s, &s->listen_watch) < 0) {
		log_warn("ctl", "%s: the control socket is not served: no memory", s->name);
		return;
	}
	on_listen(s, VH_IN);
}

/* [main loop] */
static void first_client(void *ctx, uint32_t events)
{
	struct ctl_server *s = ctx;
	ERR_AUTO(e);

	loop_unwatch(s->listen_watch);
	s->listen_watch = NULL;
	if (loop_new("ctl", &s->loop, &e) < 0 || loop_start(s->loop, &e) < 0) {
		log_warn("ctl", "%s: the control socket is not served: %s", s->name, e.cause);
		g_clear_pointer(&s->loop, loop_free);
		return;
	}
	loop_post(s->loop, &s->adopt_task);
}

char *ctl_time_text(int64_t us)
{
	g_autoptr(GDateTime) t = g_date_time_new_from_unix_utc(us / G_USEC_PER_SEC);
	g_autofree char *head = t ? g_date_time_format(t, "%Y-%m-%dT%H:%M:%S") : g_strdup("1970-01-01T00:00:00");

	return g_strdup_printf("%s.%03dZ", head, (int)(us / 1000 % 1000));
}

void event_clear(struct event *ev)
{
	g_free(ev->state);
	g_free(ev->reason);
}

void ctl_state_get(struct ctl_server *s, struct event *out)
{
	pthread_mutex_lock(&s->lock);
	out->state = g_strdup(s->state);
	out->reason = g_strdup(s->reason);
	pthread_mutex_unlock(&s->lock);
	out->time = g_get_real_time();
}

void ctl_server_event(struct ctl_server *s, const char *state, const char *reason)
{
	struct event *ev = g_new0(struct event, 1), *old = NULL;

	ev->state = g_strdup(state);
	ev->reason = g_strdup(reason);
	ev->time = g_get_real_time();
	pthread_mutex_lock(&s->lock);
	if (strcmp(state, "reset")) { /* which is no state to be in */
		g_free(s->state);
		g_free(s->reason);
		s->state = g_strdup(state);
		s->reason = g_strdup(reason);
	}
	g_queue_push_tail(&s->events, ev);
	if (s->events.length > EVENTS_MAX || !s->loop)
		old = g_queue_pop_head(&s->events);
	pthread_mutex_unlock(&s->lock);
	if (old) {
		event_clear(old);
		g_free(old);
	}
	if (s->loop)
		loop_post(s->loop, &s->event_task);
}

static void tell_events(struct vh_task *t)
{
	struct ctl_server *s = (struct ctl_server *)((char *)t - offsetof(struct ctl_server, event_task));
	struct event *ev;

	for (;;) {
		pthread_mutex_lock(&s->lock);
		ev = g_queue_pop_head(&s->events);
		pthread_mutex_unlock(&s->lock);
		if (!ev)
			return;
		int last = !strcmp(ev->state, "stopped");

		if (last)
			s->stopped = 1;
		for (struct conn *c = s->conns; c; c = c->next) {
			if (!c->dead && c->mode == CONN_EVENTS)
				conn_reply(c, ctl_event_object(ev), !last);
			if (!c->dead && last && (c->mode == CONN_EVENTS || c->mode == CONN_STOP)) {
				if (c->mode == CONN_STOP)
					conn_reply(c, NULL, 0);
				conn_done(c);
			}
		}
		event_clear(ev);
		g_free(ev);
	}
}

/* The folder's path may be longer than a socket's name: then through a descriptor of the folder. */
static int make_socket(const char *dir, const char *path, struct vh_err *e)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd, dir_fd = -1, err = 0;

	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return err_set(e, -errno, "cannot make the control socket: %s", g_strerror(errno));
	if (strlen(path) < sizeof(a.sun_path)) {
		strcpy(a.sun_path, path);
	} else {
		dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		snprintf(a.sun_path, sizeof(a.sun_path), "/proc/self/fd/%d/control.sock", dir_fd);
	}
	unlink(path);
	/* The folder is 0700: nobody else gets at it between bind and chmod. */
	if (bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || chmod(path, 0600) < 0 || listen(fd, 64) < 0)
		err = errno;
	if (dir_fd >= 0)
		close(dir_fd);
	if (err) {
		close(fd);
		return err_set(e, -err, "cannot make the control socket %s: %s", path, g_strerror(err));
	}
	return fd;
}

int ctl_server_new(struct mach *m, struct vh_loop *main_loop, struct ctl_dir *d, struct ctl_server **out, struct vh_err *e)
{
	static const char *const words[] = { "new", "running", "paused", "io-error", "stopped" };
	struct ctl_server *s = g_new0(struct ctl_server, 1);
	int r;

	pthread_mutex_init(&s->lock, NULL);
	s->mach = m;
	s->main_loop = main_loop;
	s->name = g_strdup(ctl_dir_name(d));
	s->path = g_build_filename(ctl_dir_path(d), "control.sock", NULL);
	s->since = g_get_real_time();
	s->state = g_strdup(words[mach_get_state(m)]);
	s->ring = g_malloc(CONSOLE_RING); /* its pages come with what is written */
	g_queue_init(&s->events);
	s->adopt_task.fn = adopt;
	s->event_task.fn = tell_events;
	s->console_task.fn = console_task;
	s->reap_task.fn = reap;
	s->listen_fd = make_socket(ctl_dir_path(d), s->path, e);
	r = s->listen_fd < 0 ? s->listen_fd : loop_watch(main_loop, s->listen_fd, VH_IN, first_client, s, &s->listen_watch);
	if (r < 0) {
		if (s->listen_fd >= 0)
			err_set(e, r, "cannot watch the control socket: %s", g_strerror(-r));
		ctl_server_free(s);
		return r;
	}
	*out = s;
	return 0;
}

/* [ctl loop] The last thing: what is owed is said, as far as clients take it at once. */
static void finish(void *ctx)
{
	struct ctl_server *s = ctx;
	gint64 end = g_get_monotonic_time() + FLUSH_AT_END_MS * 1000;

	s->closing = 1;
	tell_events(&s->event_task);
	for (struct conn *c = s->conns; c; c = c->next) {
		if (!c->dead && (c->mode == CONN_STOP || c->mode == CONN_JOB)) {
			if (c->mode == CONN_STOP)
				conn_reply(c, NULL, 0);
			else
				conn_error(c, VARLINK_VM ".ShuttingDown", NULL);
		}
		while (!c->dead && (c->mode == CONN_CONSOLE || c->mode == CONN_RAW)) {
			struct pollfd pf = { c->fd, POLLOUT, 0 };
			uint64_t at = c->console_at;

			console_pump(c);
			if (c->console_at == at && (c->dead || !conn_waiting(c)))
				break;
			if (!c->dead && poll(&pf, 1, (int)MAX((end - g_get_monotonic_time()) / 1000, 0)) <= 0)
				break;
			flush(c);
		}
		while (!c->dead && conn_waiting(c)) {
			struct pollfd pf = { c->fd, POLLOUT, 0 };

			if (poll(&pf, 1, (int)MAX((end - g_get_monotonic_time()) / 1000, 0)) <= 0)
				break;
			flush(c);
		}
		conn_kill(c);
	}
	if (s->listen_watch)
		loop_unwatch(s->listen_watch);
	s->listen_watch = NULL;
	if (s->force)
		loop_timer_free(s->force);
	s->force = NULL;
}

void ctl_server_free(struct ctl_server *s)
{
	struct event *ev;

	if (!s)
		return;
	if (s->listen_fd >= 0)
		unlink(s->path);
	if (s->loop) {
		loop_call(s->loop, finish, s);
		loop_stop(s->loop);
		reap(&s->reap_task);
		jobs_drop(s);
		loop_free(s->loop);
	} else if (s->listen_watch) {
		loop_unwatch(s->listen_watch);
	}
	if (s->listen_fd >= 0)
		close(s->listen_fd);
	while ((ev = g_queue_pop_head(&s->events))) {
		event_clear(ev);
		g_free(ev);
	}
	pthread_mutex_destroy(&s->lock);
	g_free(s->state);
	g_free(s->reason);
	g_free(s->ring);
	g_free(s->name);
	g_free(s->path);
	g_free(s);
}
