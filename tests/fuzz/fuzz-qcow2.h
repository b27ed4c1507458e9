/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The qcow2 plugin over volumes in memory, linked in, so that sanitizers and coverage see all of it. */
#ifndef FUZZ_QCOW2_H
#define FUZZ_QCOW2_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/format.h>
#include <vhost/plugin.h>
#include <vhost/pool.h>
#include <vhost/sugar.h>

#define ROOM (UINT64_C(8) << 20) /* largest volume */

struct vh_meta { uint8_t *d; uint64_t bytes; uint64_t work; }; /* work: bytes that were read and written */

static int mem_read(struct vh_meta *m, void *buf, uint64_t len, uint64_t off)
{
	uint64_t n = off < m->bytes ? m->bytes - off : 0;

	m->work += len;
	if (n > len)
		n = len;
	if (n)
		memcpy(buf, m->d + off, n);
	memset((uint8_t *)buf + n, 0, len - n);
	return 0;
}

static int mem_resize(struct vh_meta *m, uint64_t bytes)
{
	if (bytes > ROOM)
		return -ENOSPC;
	if (bytes > m->bytes)
		memset(m->d + m->bytes, 0, bytes - m->bytes);
	m->bytes = bytes;
	return 0;
}

static int mem_write(struct vh_meta *m, const void *buf, uint64_t len, uint64_t off)
{
	m->work += len;
	if (off > ROOM || len > ROOM - off)
		return -ENOSPC;
	if (off + len > m->bytes)
		mem_resize(m, off + len);
	memcpy(m->d + off, buf, len);
	return 0;
}

static int mem_zero(struct vh_meta *m, uint64_t len, uint64_t off)
{
	if (off > ROOM || len > ROOM - off)
		return -ENOSPC;
	if (off + len > m->bytes)
		mem_resize(m, off + len);
	memset(m->d + off, 0, len);
	return 0;
}

static int mem_flush(struct vh_meta *m) { return 0; }
static uint64_t mem_bytes(struct vh_meta *m) { return m->bytes; }

static int mem_discard(struct vh_meta *m, uint64_t len, uint64_t off)
{
	if (off < m->bytes)
		memset(m->d + off, 0xdd, len < m->bytes - off ? len : m->bytes - off); /* nobody may care */
	return 0;
}

static const struct vh_meta_ops mem_ops = {
	.size = sizeof(mem_ops), .read = mem_read, .write = mem_write, .zero = mem_zero, .flush = mem_flush, .bytes = mem_bytes,
	.resize = mem_resize, .discard = mem_discard};

static const void *fuzz_service(const struct vh_host *host, const char *iid)
{
	return strcmp(iid, VH_SVC_META) ? NULL : (const void *)&mem_ops;
}
static int fuzz_verr(struct vh_err *e, int code, const char *fmt, va_list ap)
{
	char text[2048];

	vsnprintf(text, sizeof(text), fmt, ap); /* the arguments must be what the format says */
	return code;
}
static int fuzz_err(struct vh_err *e, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fuzz_verr(e, code, fmt, ap);
	va_end(ap);
	return code;
}
static void fuzz_remedy(struct vh_err *e, const char *fmt, ...) {}
static const struct vh_host fuzz_host = {
	.size = sizeof(fuzz_host), .service = fuzz_service, .err = fuzz_err, .verr = fuzz_verr, .remedy = fuzz_remedy};

static inline const struct vh_format_ops *fuzz_qcow2(void)
{
	static const struct vh_format_ops *ops;
	const struct vh_plugin *p;

	if (!ops) {
		if (vh_plugin_entry_v1(&fuzz_host, &p))
			abort();
		ops = p->get(VH_IID_FORMAT);
	}
	return ops;
}

static inline void mem_set(struct vh_meta *m, const uint8_t *data, size_t n)
{
	if (!m->d)
		m->d = malloc(ROOM);
	if (!m->d)
		abort();
	if (n)
		memcpy(m->d, data, n);
	m->bytes = n;
	m->work = 0;
}

#endif
