/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>
#include "cmd/console.h"
#include "util/log.h"

#define RING (256u << 10)
#define PIECE 4096u /* what a pipe takes without blocking once poll() says that it is writable */

struct sink {
	struct vh_loop *loop;
	struct vh_watch *watch; /* NULL: a file, always writable */
	struct vh_task task;
	int fd, broken;
	pthread_mutex_t lock;
	pthread_cond_t room;
	size_t head, fill; /* of the ring */
	uint64_t lost;
	char ring[RING];
};

static int writable(int fd, int ms)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	return poll(&p, 1, ms) > 0;
}

/* Writes what the descriptor takes now; with the lock held, which is given up for the write. */
static void drain(struct sink *s)
{
	while (s->fill && !s->broken && writable(s->fd, 0)) {
		size_t n = MIN(MIN(s->fill, RING - s->head), PIECE);
		const char *p = s->ring + s->head;
		ssize_t w;
		pthread_mutex_unlock(&s->lock);
		w = write(s->fd, p, n); /* only this function, on the loop, takes from the ring */
		pthread_mutex_lock(&s->lock);
		if (w < 0 && (errno == EINTR || errno == EAGAIN))
			break;
		if (w < 0) {
			s->broken = 1; /* the reader has gone */
			break;
		}
		s->head = (s->head + (size_t)w) % RING;
		s->fill -= (size_t)w;
	}
	if (s->broken)
		s->fill = 0;
	pthread_cond_broadcast(&s->room);
}

static void sink_turn(struct sink *s)
{
	size_t left;
	pthread_mutex_lock(&s->lock);
	drain(s);
	left = s->fill;
	pthread_mutex_unlock(&s->lock);
	if (s->watch)
		loop_watch_events(s->watch, left ? VH_OUT : 0);
	else if (left)
		loop_post(s->loop, &s->task);
}

static void sink_ready(void *ctx, uint32_t events)
{
	sink_turn(ctx);
}

static void sink_posted(struct vh_task *t)
{
	sink_turn((struct sink *)((char *)t - offsetof(struct sink, task)));
}

int sink_new(struct vh_loop *l, int fd, struct sink **out, struct vh_err *e)
{
	struct sink *s = g_new0(struct sink, 1);
	int r;

	s->loop = l;
	s->fd = fd;
	s->task.fn = sink_posted;
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->room, NULL);
	r = loop_watch(l, fd, 0, sink_ready, s, &s->watch);
	if (r && r != -EPERM && r != -EEXIST) {
		g_free(s);
		return err_set(e, r, "cannot watch the console's output");
	}
	*out = s;
	return 0;
}

void sink_write(struct sink *s, const void *data, size_t len)
{
	const char *p = data;
	struct timespec until;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec++;
	pthread_mutex_lock(&s->lock);
	while (len && !s->broken) {
		size_t at = (s->head + s->fill) % RING, n = MIN(MIN(len, RING - s->fill), RING - at);
		if (!n) {
			if (loop_is_current(s->loop) || pthread_cond_timedwait(&s->room, &s->lock, &until)) {
				s->lost += len;
				break;
			}
			continue;
		}
		memcpy(s->ring + at, p, n);
		s->fill += n;
		p += n;
		len -= n;
	}
	pthread_mutex_unlock(&s->lock);
	loop_post(s->loop, &s->task);
}

void sink_free(struct sink *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	for (unsigned i = 0; i < 100 && s->fill && !s->broken; i++) {
		drain(s);
		if (s->fill)
			writable(s->fd, 10);
	}
	s->lost += s->fill;
	pthread_mutex_unlock(&s->lock);
	if (s->lost)
		log_warn("console", "%" PRIu64 " bytes of console output were lost: their reader stood still", s->lost);
	if (s->watch)
		loop_unwatch(s->watch);
	loop_cancel(s->loop, &s->task);
	pthread_cond_destroy(&s->room);
	pthread_mutex_destroy(&s->lock);
	g_free(s);
}

#define ESCAPE 1 /* Ctrl-A */

struct term {
	struct vh_loop *loop;
	struct vh_watch *watch;
	struct vh_task task;
	const struct term_ops *ops;
	void *ctx;
	int raw, escaped;
	struct termios before;
	size_t at, fill;
	char buf[1024];
};

static void say(const char *text)
{
	if (write(STDERR_FILENO, text, strlen(text)) < 0)
		return;
}

/* Takes the escape sequences out of what was typed; returns what goes to the guest. */
static size_t unescape(struct term *t, char *p, size_t n)
{
	size_t k = 0;
	for (size_t i = 0; i < n; i++) {
		char c = p[i];
		if (!t->escaped) {
			if (c == ESCAPE && t->raw)
				t->escaped = 1;
			else
				p[k++] = c;
			continue;
		}
		t->escaped = 0;
		if (c == 'x')
			t->ops->quit(t->ctx);
		else if (c == 'p')
			t->ops->power(t->ctx);
		else if (c == 'a' || c == ESCAPE)
			p[k++] = ESCAPE;
		else
			say("\r\nCtrl-A x  end the VM\r\nCtrl-A p  power button\r\nCtrl-A a  send Ctrl-A\r\n");
	}
	return k;
}

static void push(struct term *t)
{
	t->at += t->ops->input(t->ctx, t->buf + t->at, t->fill - t->at);
	if (t->at == t->fill)
		t->at = t->fill = 0;
	if (t->watch)
		loop_watch_events(t->watch, t->fill ? 0 : VH_IN);
}

static void term_ready(void *ctx, uint32_t events)
{
	struct term *t = ctx;
	ssize_t n = read(STDIN_FILENO, t->buf, sizeof t->buf);

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n <= 0) {
		loop_unwatch(t->watch);
		t->watch = NULL;
		return;
	}
	t->at = 0;
	t->fill = unescape(t, t->buf, (size_t)n);
	push(t);
}

static void term_posted(struct vh_task *task)
{
	push((struct term *)((char *)task - offsetof(struct term, task)));
}

int term_new(struct vh_loop *l, const struct term_ops *ops, void *ctx, struct term **out, struct vh_err *e)
{
	struct term *t = g_new0(struct term, 1);
	int r;

	t->loop = l;
	t->ops = ops;
	t->ctx = ctx;
	t->task.fn = term_posted;
	r = loop_watch(l, STDIN_FILENO, VH_IN, term_ready, t, &t->watch);
	if (r && r != -EPERM && r != -EBADF) { /* a file or /dev/null: nobody types */
		g_free(t);
		return err_set(e, r, "cannot watch standard input");
	}
	if (t->watch && isatty(STDIN_FILENO) && !tcgetattr(STDIN_FILENO, &t->before)) {
		struct termios raw = t->before;
		cfmakeraw(&raw);
		raw.c_oflag |= OPOST; /* our own messages keep their line ends */
		t->raw = !tcsetattr(STDIN_FILENO, TCSANOW, &raw);
	}
	*out = t;
	return 0;
}

void term_room(struct term *t)
{
	loop_post(t->loop, &t->task);
}

void term_free(struct term *t)
{
	if (!t)
		return;
	if (t->watch)
		loop_unwatch(t->watch);
	loop_cancel(t->loop, &t->task);
	if (t->raw)
		tcsetattr(STDIN_FILENO, TCSANOW, &t->before);
	g_free(t);
}
