/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A host for the vmdk plugin, whose sources are linked in so that a fuzzer sees into them: volumes in memory. */
#ifndef FUZZ_VMDK_H
#define FUZZ_VMDK_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/format.h>
#include <vhost/plugin.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
extern int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out);

#define FUZZ_MOST (8u << 20) /* bytes of a volume that are kept; a write further out fails as a full one does */

struct vh_meta {
	uint8_t *data;
	uint64_t bytes, cap, size; /* size: what is told; what is past `bytes` reads as zeros */
};

static int fuzz_read(struct vh_meta *m, void *buf, uint64_t len, uint64_t off)
{
	uint64_t have = off < m->bytes ? m->bytes - off : 0;

	if (have > len)
		have = len;
	if (have)
		memcpy(buf, m->data + off, have);
	memset((uint8_t *)buf + have, 0, len - have);
	return 0;
}

static int fuzz_resize(struct vh_meta *m, uint64_t bytes)
{
	if (bytes > FUZZ_MOST)
		return -28; /* ENOSPC */
	if (bytes > m->cap) {
		uint8_t *p = realloc(m->data, bytes);

		if (!p)
			return -12;
		m->data = p;
		m->cap = bytes;
	}
	if (bytes > m->bytes)
		memset(m->data + m->bytes, 0, bytes - m->bytes);
	m->bytes = m->size = bytes;
	return 0;
}

static int fuzz_write(struct vh_meta *m, const void *buf, uint64_t len, uint64_t off)
{
	uint64_t size = m->size;

	if (off > FUZZ_MOST || len > FUZZ_MOST - off)
		return -28;
	if (off + len > m->bytes && fuzz_resize(m, off + len) < 0)
		return -12;
	m->size = m->size > size ? m->size : size;
	if (buf)
		memcpy(m->data + off, buf, len);
	else
		memset(m->data + off, 0, len);
	return 0;
}

static int fuzz_zero(struct vh_meta *m, uint64_t len, uint64_t off)
{
	return off >= m->bytes ? 0 : fuzz_write(m, NULL, len < m->bytes - off ? len : m->bytes - off, off);
}

static int fuzz_flush(struct vh_meta *m)
{
	return m ? 0 : -5;
}

static uint64_t fuzz_bytes(struct vh_meta *m)
{
	return m->size;
}

static const struct vh_meta_ops fuzz_meta = {.size = sizeof(fuzz_meta), .read = fuzz_read, .write = fuzz_write, .zero = fuzz_zero,
	.flush = fuzz_flush, .bytes = fuzz_bytes, .resize = fuzz_resize, .discard = fuzz_zero};

static const void *fuzz_service(const struct vh_host *host, const char *iid)
{
	return strcmp(iid, VH_SVC_META) ? NULL : &fuzz_meta;
}

static int fuzz_verr(struct vh_err *e, int code, const char *fmt, va_list ap)
{
	char text[4096];

	vsnprintf(text, sizeof(text), fmt, ap); /* texts quote the image: they are part of what is tried */
	return code;
}

static int fuzz_err(struct vh_err *e, int code, const char *fmt, ...) VH_PRINTF(3, 4);
static int fuzz_err(struct vh_err *e, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fuzz_verr(e, code, fmt, ap);
	va_end(ap);
	return code;
}

static void fuzz_remedy(struct vh_err *e, const char *fmt, ...) VH_PRINTF(2, 3);
static void fuzz_remedy(struct vh_err *e, const char *fmt, ...)
{
	(void)e;
	(void)fmt;
}

static const struct vh_host fuzz_host = {.size = sizeof(fuzz_host), .service = fuzz_service, .err = fuzz_err, .verr = fuzz_verr,
	.remedy = fuzz_remedy};

static inline const struct vh_format_ops *fuzz_vmdk(void)
{
	static const struct vh_plugin *p;

	if (!p && vh_plugin_entry_v1(&fuzz_host, &p) < 0)
		abort();
	return p->get(VH_IID_FORMAT);
}

static inline struct vh_meta fuzz_volume(const uint8_t *data, size_t size)
{
	struct vh_meta m = {malloc(size + 1), size, size, size};

	memcpy(m.data, data, size);
	return m;
}

#endif
