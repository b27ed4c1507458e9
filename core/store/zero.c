/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Finding zeros, at the speed of memory: data ends it within a few bytes, zeros are or'ed together 256 bytes at a time in
 * vectors of the compiler's choice. */
#include <glib.h>
#include <string.h>
#include "store/convert.h"

#define PIECE (UINT64_C(1) << 20)

typedef uint64_t vec4 __attribute__((vector_size(32), aligned(1), may_alias));

int zero_all(const void *buf, uint64_t n)
{
	const uint8_t *p = buf;
	uint64_t w = 0;

	if (!n)
		return 1;
	/* Most data says so at once: at its beginning, in the middle, or at its end. */
	if (p[0] | p[n - 1] | p[n / 2])
		return 0;
	for (; n >= 256; n -= 256, p += 256) {
		const vec4 *v = (const vec4 *)(const void *)p;
		vec4 o = v[0] | v[1] | v[2] | v[3] | v[4] | v[5] | v[6] | v[7];

		if (o[0] | o[1] | o[2] | o[3])
			return 0;
	}
	for (; n >= 8; n -= 8, p += 8) {
		memcpy(&w, p, 8);
		if (w)
			return 0;
	}
	while (n--)
		w |= *p++;
	return !w;
}

uint64_t zero_run(const uint8_t *p, uint64_t n, uint64_t grain, int *zero)
{
	uint64_t at = grain < n ? grain : n;

	*zero = zero_all(p, at);
	while (at < n) {
		uint64_t g = grain < n - at ? grain : n - at;

		if (zero_all(p + at, g) != *zero)
			break;
		at += g;
	}
	return at;
}

int zero_volume(struct blk_vol *v, struct vh_job *j, uint64_t *at, struct vh_err *e)
{
	uint64_t bytes = blk_vol_bytes(v), from, to, n;
	g_autofree char *buf = g_malloc(PIECE);
	int ret;

	for (uint64_t off = 0; off < bytes; off = to) {
		blk_next_data(v, off, bytes, &from, &to);
		for (; from < to; from += n) {
			n = MIN(to - from, PIECE);
			ret = job_cancelled(j) ? err_set(e, -ECANCELED, "cancelled") : blk_read(v, buf, n, from, e);
			if (ret)
				return ret;
			if (!zero_all(buf, n)) {
				*at = from;
				return 0;
			}
		}
	}
	return 1;
}
