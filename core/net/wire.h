/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Messages between the VM's process and its helper: fixed-width values and strings, one after the other. A getter past the
 * end gives 0 or "" and marks the message bad, so that a reader checks once, at the end. */
#ifndef NET_WIRE_H
#define NET_WIRE_H

#include <stdint.h>
#include <string.h>

#define WIRE_MAX 16384u

struct wire {
	uint32_t len, at;
	int bad;
	uint8_t data[WIRE_MAX];
};

static inline void wire_put(struct wire *w, const void *p, size_t n)
{
	if (n > WIRE_MAX - w->len) {
		w->bad = 1;
		return;
	}
	if (n)
		memcpy(w->data + w->len, p, n);
	w->len += (uint32_t)n;
}

static inline void wire_put_u64(struct wire *w, uint64_t v)
{
	wire_put(w, &v, sizeof(v));
}

/* NULL and "" stay different. */
static inline void wire_put_str(struct wire *w, const char *s)
{
	wire_put_u64(w, s ? strlen(s) + 1 : 0);
	if (s)
		wire_put(w, s, strlen(s) + 1);
}

static inline const void *wire_get(struct wire *w, size_t n)
{
	const void *p = w->data + w->at;

	if (w->bad || n > w->len - w->at) {
		w->bad = 1;
		return NULL;
	}
	w->at += (uint32_t)n;
	return p;
}

static inline uint64_t wire_get_u64(struct wire *w)
{
	const void *p = wire_get(w, sizeof(uint64_t));
	uint64_t v = 0;

	if (p)
		memcpy(&v, p, sizeof(v));
	return v;
}

static inline const char *wire_get_str(struct wire *w)
{
	uint64_t n = wire_get_u64(w);
	const char *s;

	if (!n)
		return NULL;
	s = n <= WIRE_MAX ? wire_get(w, n) : NULL;
	if (!s || s[n - 1]) {
		w->bad = 1;
		return NULL;
	}
	return s;
}

#endif
