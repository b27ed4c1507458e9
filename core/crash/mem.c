/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The contents of a volume: chunks, those of zeros left out, shared with another until they are written. */
#include "crash/crash-i.h"

static const uint8_t zeros[MEM_CHUNK];

void image_init(struct mem *m)
{
	memset(m, 0, sizeof(*m));
}

void image_fini(struct mem *m)
{
	for (uint64_t k = 0; k < m->cap; k++)
		if (!m->shared[k])
			g_free(m->chunk[k]);
	g_free(m->chunk);
	g_free(m->shared);
	image_init(m);
}

static void reserve(struct mem *m, uint64_t bytes)
{
	uint64_t n = (bytes + MEM_CHUNK - 1) / MEM_CHUNK, cap = m->cap ? m->cap : 256;

	if (n <= m->cap)
		return;
	while (cap < n)
		cap *= 2;
	m->chunk = g_renew(uint8_t *, m->chunk, cap);
	m->shared = g_renew(uint8_t, m->shared, cap);
	memset(m->chunk + m->cap, 0, (cap - m->cap) * sizeof(*m->chunk));
	memset(m->shared + m->cap, 0, cap - m->cap);
	m->cap = cap;
}

static uint8_t *own(struct mem *m, uint64_t k)
{
	if (!m->chunk[k]) {
		m->chunk[k] = g_malloc0(MEM_CHUNK);
	} else if (m->shared[k]) {
		m->chunk[k] = g_memdup2(m->chunk[k], MEM_CHUNK);
	}
	m->shared[k] = 0;
	return m->chunk[k];
}

static void drop(struct mem *m, uint64_t k)
{
	if (!m->shared[k])
		g_free(m->chunk[k]);
	m->chunk[k] = NULL;
	m->shared[k] = 0;
}

void image_write(struct mem *m, uint64_t off, const void *data, uint64_t len)
{
	const uint8_t *p = data;

	reserve(m, off + len);
	if (off + len > m->bytes)
		m->bytes = off + len;
	for (uint64_t n; len; off += n, p += n, len -= n) {
		n = MIN(len, MEM_CHUNK - off % MEM_CHUNK);
		if (!m->chunk[off / MEM_CHUNK] && !memcmp(p, zeros, n))
			continue;
		memcpy(own(m, off / MEM_CHUNK) + off % MEM_CHUNK, p, n);
	}
}

void image_zero(struct mem *m, uint64_t off, uint64_t len)
{
	len = off < m->bytes ? MIN(len, m->bytes - off) : 0;
	for (uint64_t n; len; off += n, len -= n) {
		n = MIN(len, MEM_CHUNK - off % MEM_CHUNK);
		if (n == MEM_CHUNK)
			drop(m, off / MEM_CHUNK);
		else if (m->chunk[off / MEM_CHUNK])
			memset(own(m, off / MEM_CHUNK) + off % MEM_CHUNK, 0, n);
	}
}

void image_read(const struct mem *m, uint64_t off, void *buf, uint64_t len)
{
	uint8_t *p = buf;

	for (uint64_t n; len; off += n, p += n, len -= n) {
		uint64_t k = off / MEM_CHUNK;

		n = MIN(len, MEM_CHUNK - off % MEM_CHUNK);
		if (off < m->bytes && m->chunk[k]) /* behind the end of `bytes` a chunk is zeros */
			memcpy(p, m->chunk[k] + off % MEM_CHUNK, n);
		else
			memset(p, 0, n);
	}
}

void image_resize(struct mem *m, uint64_t bytes)
{
	if (bytes < m->bytes)
		image_zero(m, bytes, m->bytes - bytes);
	reserve(m, bytes);
	m->bytes = bytes;
}

void image_share(struct mem *to, const struct mem *from)
{
	to->bytes = from->bytes;
	if (!from->cap)
		return;
	reserve(to, from->cap * MEM_CHUNK);
	memcpy(to->chunk, from->chunk, from->cap * sizeof(*from->chunk));
	memset(to->shared, 1, from->cap);
}
