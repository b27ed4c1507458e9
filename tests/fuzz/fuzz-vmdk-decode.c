/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Any bytes as a compressed grain, behind a marker or not; and what encode() makes of them must come back. */
#include "fuzz-vmdk.h"

static void put(uint8_t *p, uint64_t v, unsigned n)
{
	for (unsigned k = 0; k < n; k++)
		p[k] = (uint8_t)(v >> (8 * k));
}

/* A stream of four grains of 4 KiB and a bit that nothing was put into yet. */
static struct vh_meta image(int markers)
{
	uint8_t h[8 * 512] = {0};

	memcpy(h, "KDMV", 4);
	put(h + 4, 3, 4);
	put(h + 8, 0x10000 | (markers ? 0x20000 : 0), 4);
	put(h + 12, 35, 8);
	put(h + 20, 8, 8);
	put(h + 44, 512, 4);
	put(h + 56, UINT64_MAX, 8);
	put(h + 64, 8, 8);
	put(h + 77, 1, 2);
	return fuzz_volume(h, sizeof(h));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct vh_format_ops *ops = fuzz_vmdk();
	struct vh_meta v, *ptr = &v;
	struct vh_open o = {.size = sizeof(o), .n = 1, .volumes = &ptr, .host_caps = ~UINT64_C(0)};
	struct vh_extent x = {.pos = 4096, .len = 4096, .bytes = 4096, .type = VH_EXT_COMPRESSED};
	uint8_t out[4096 + 1], in[4096], stored[4096];
	void *img = NULL;
	int64_t n;

	if (size < 1)
		return 0;
	v = image(data[0] & 1);
	if (ops->open(&o, &img, NULL) < 0)
		abort();
	if (data[0] & 2) {
		x.pos = 4 * 4096;
		x.bytes = x.len = 3 * 512;
	}
	out[x.bytes] = 0xA7;
	ops->decode(img, &x, data + 1, size - 1, out, x.bytes);
	if (out[x.bytes] != 0xA7)
		abort();
	memset(in, 0, sizeof(in));
	memcpy(in, data, size < sizeof(in) ? size : sizeof(in));
	n = ops->encode(img, in, sizeof(in), stored, sizeof(in));
	if (n <= 0 || n > (int64_t)sizeof(in) || ops->put(img, 0, sizeof(in), stored, (uint64_t)n, NULL) < 0 || ops->flush(img, 0) < 0)
		abort();
	ops->close(img);
	/* Opened again, the grain is what it was. */
	o.flags = VH_OPEN_RO;
	if (ops->open(&o, &img, NULL) < 0)
		abort();
	{
		struct vh_map m = {.size = sizeof(m), .op = VH_MAP_READ, .cap = 1, .pos = 0, .len = 4096, .ext = &x};

		if (ops->map(img, &m) < 0 || m.n != 1)
			abort();
		if ((data[0] & 1) && (x.type != VH_EXT_COMPRESSED || x.addr + x.aux > v.bytes ||
				      ops->decode(img, &x, v.data + x.addr, x.aux, out, 4096) < 0 || memcmp(out, in, 4096)))
			abort();
	}
	ops->close(img);
	free(v.data);
	return 0;
}
