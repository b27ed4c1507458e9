/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Any bytes as a plugin's answer: an accepted one must keep what the map tier relies on. */
#include <stdlib.h>
#include <string.h>
#include "fmt/validate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
	if (!ok)
		abort(); /* what a fuzz target is for */
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct vh_extent ext[16];
	struct fmt_rules r;
	struct vh_map m;
	uint64_t at;

	if (size < sizeof(r) + sizeof(m))
		return 0;
	memcpy(&r, data, sizeof(r));
	memcpy(&m, data + sizeof(r), sizeof(m));
	data += sizeof(r) + sizeof(m);
	size -= sizeof(r) + sizeof(m);
	memset(ext, 0, sizeof(ext));
	memcpy(ext, data, size < sizeof(ext) ? size : sizeof(ext));
	/* What the core itself guarantees. */
	r.bytes &= INT64_MAX;
	r.unit = 1u << (r.unit % 25);
	m.size = sizeof(m);
	m.cap = 16;
	m.ext = ext;
	if (r.bytes) {
		m.pos %= r.bytes;
		m.len = m.len % (r.bytes - m.pos) + 1;
	}
	if (fmt_validate(&r, &m))
		return 0;
	must(m.n <= 16);
	at = m.pos;
	for (uint32_t i = 0; i < m.n; i++) {
		const struct vh_extent *x = &ext[i];

		must(x->pos == at && x->len && x->len <= r.bytes - at);
		at += x->len;
		if (x->type == VH_EXT_DATA) {
			must(x->vol < r.volumes && x->addr >= x->head);
			must(x->addr + x->len + x->tail <= INT64_MAX && x->addr + x->len + x->tail > x->addr);
			must(x->pos >= x->head && x->head < r.unit && x->tail < r.unit);
		}
		must(!(x->flags & VH_EXT_COMMIT) || r.has_commit);
		must(x->type != VH_EXT_BACKING || at <= r.backing_bytes);
		if (x->type == VH_EXT_COMPRESSED)
			must(x->bytes <= r.unit && x->head + x->len + x->tail == x->bytes);
	}
	return 0;
}
