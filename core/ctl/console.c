/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The serial port's output is kept in a ring, from which each client that follows it takes at its own pace: one that is
 * too slow loses bytes (and is told how many), and nobody waits for it.
 */
#include "ctl/server-i.h"

#include <string.h>

void ctl_console_output(struct ctl_server *s, const void *data, size_t len)
{
	const uint8_t *p = data;
	size_t at, n;

	pthread_mutex_lock(&s->lock);
	s->ring_total += len;
	if (len > CONSOLE_RING) {
		p += len - CONSOLE_RING;
		len = CONSOLE_RING;
	}
	at = (size_t)((s->ring_total - len) % CONSOLE_RING);
	n = MIN(len, CONSOLE_RING - at);
	memcpy(s->ring + at, p, n);
	memcpy(s->ring, p + n, len - n);
	pthread_mutex_unlock(&s->lock);
	if (atomic_load(&s->streams))
		loop_post(s->loop, &s->console_task);
}

void ctl_console_room(struct ctl_server *s)
{
	if (atomic_load(&s->streams))
		loop_post(s->loop, &s->console_task);
}

void console_attach(struct conn *c, int replay)
{
	struct ctl_server *s = c->s;

	/* Counted first: output that comes after the look below is posted. */
	atomic_fetch_add(&s->streams, 1);
	pthread_mutex_lock(&s->lock);
	c->console_at = replay ? s->ring_total - MIN(s->ring_total, CONSOLE_RING) : s->ring_total;
	pthread_mutex_unlock(&s->lock);
}

void console_detach(struct conn *c)
{
	if (c->mode == CONN_CONSOLE || c->mode == CONN_RAW)
		atomic_fetch_sub(&c->s->streams, 1);
}

static size_t take(struct conn *c, uint8_t *buf, size_t cap, uint64_t *lost)
{
	struct ctl_server *s = c->s;
	uint64_t first;
	size_t at, n, len;

	pthread_mutex_lock(&s->lock);
	first = s->ring_total - MIN(s->ring_total, CONSOLE_RING);
	*lost = c->console_at < first ? first - c->console_at : 0;
	c->console_at += *lost;
	len = (size_t)MIN(s->ring_total - c->console_at, cap);
	at = (size_t)(c->console_at % CONSOLE_RING);
	n = MIN(len, CONSOLE_RING - at);
	memcpy(buf, s->ring + at, n);
	memcpy(buf + n, s->ring, len - n);
	c->console_at += len;
	pthread_mutex_unlock(&s->lock);
	return len;
}

void console_pump(struct conn *c)
{
	uint8_t buf[8192];
	uint64_t lost;
	size_t n;

	while (!c->dead && conn_waiting(c) < STREAM_FILL) {
		n = take(c, buf, sizeof(buf), &lost);
		if (!n && !lost)
			return;
		if (c->mode == CONN_RAW) {
			if (lost) {
				g_autofree char *text = g_strdup_printf("\r\n[%" G_GUINT64_FORMAT " bytes lost]\r\n", lost);

				conn_send(c, text, strlen(text));
			}
			conn_send(c, buf, n);
		} else {
			JsonObject *o = json_object_new();
			g_autofree char *text = g_base64_encode(buf, n);

			json_object_set_string_member(o, "data", text);
			json_object_set_int_member(o, "lost", (int64_t)lost);
			conn_reply(c, o, 1);
		}
	}
}

void console_type(struct conn *c)
{
	size_t n;

	while (!c->s->stopped) {
		if (!c->typed_n && c->in->len) { /* what came together with the request */
			c->typed_n = MIN(c->in->len, (guint)sizeof(c->typed));
			memcpy(c->typed, c->in->data, c->typed_n);
			g_byte_array_remove_range(c->in, 0, c->typed_n);
		}
		if (!c->typed_n)
			break;
		n = serial_input(mach_serial(c->s->mach), c->typed, c->typed_n);
		memmove(c->typed, c->typed + n, c->typed_n - n);
		c->typed_n -= (unsigned)n;
		if (c->typed_n)
			break; /* the port says when it has room */
	}
	conn_want_input(c);
}

void console_task(struct vh_task *t)
{
	struct ctl_server *s = (struct ctl_server *)((char *)t - offsetof(struct ctl_server, console_task));

	for (struct conn *c = s->conns; c; c = c->next) {
		if (c->dead || (c->mode != CONN_CONSOLE && c->mode != CONN_RAW))
			continue;
		console_pump(c);
		if (!c->dead && c->mode == CONN_RAW)
			console_type(c);
	}
}
