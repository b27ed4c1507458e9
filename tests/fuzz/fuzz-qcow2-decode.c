/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Any bytes as a compressed cluster: decoded within bounds, or refused; the same twice. Byte 0 chooses method and cluster size. */
#include "fuzz-qcow2.h"

static void *image(unsigned zstd, unsigned bits)
{
	static void *img[2][22];
	static struct vh_meta volume[2][22];
	const struct vh_format_ops *ops = fuzz_qcow2();
	struct vh_meta *m = &volume[zstd][bits];
	struct vh_val size = {sizeof(size), VH_OPT_SIZE, "cluster-size", "", INT64_C(1) << bits};
	struct vh_val type = {sizeof(type), VH_OPT_ENUM, "compression-type", zstd ? "zstd" : "zlib", zstd};
	const struct vh_val *val[] = {&size, &type};
	struct vh_opts opts = {.size = sizeof(opts), .n = 2, .val = val};
	struct vh_create c = {.size = sizeof(c), .bytes = 4 << 20, .volumes = &m, .n = 1, .opts = &opts};
	struct vh_open o = {.size = sizeof(o), .n = 1, .volumes = &m, .host_caps = ~UINT64_C(0), .flags = VH_OPEN_RO};

	if (img[zstd][bits])
		return img[zstd][bits];
	mem_set(m, NULL, 0);
	if (ops->create(&c, NULL, NULL) < 0 || ops->open(&o, &img[zstd][bits], NULL) < 0)
		abort();
	return img[zstd][bits];
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const struct vh_format_ops *ops = fuzz_qcow2();
	unsigned bits = size ? 9 + (data[0] >> 1) % 13 : 9;
	uint64_t n = UINT64_C(1) << bits;
	struct vh_extent x = {.type = VH_EXT_COMPRESSED, .bytes = n};
	uint8_t *a, *b;
	void *img;
	int r, r2;

	if (size < 2)
		return 0;
	img = image(data[0] & 1, bits);
	a = malloc(n); /* of their exact size */
	b = malloc(n);
	if (!a || !b)
		abort();
	memset(a, 1, n);
	memset(b, 2, n);
	r = ops->decode(img, &x, data + 1, size - 1, a, n);
	r2 = ops->decode(img, &x, data + 1, size - 1, b, n);
	if (r != r2 || (r == 0 && memcmp(a, b, n))) /* a byte that was not written would differ */
		abort();
	/* And as a cluster to be encoded. */
	for (uint64_t k = 0; k < n; k++)
		a[k] = data[k % size];
	r = (int)ops->encode(img, a, n, b, n);
	if (r > 0) {
		uint8_t *stored = malloc((size_t)r), *back = malloc(n);

		if (!stored || !back)
			abort();
		memcpy(stored, b, (size_t)r);
		if (ops->decode(img, &x, stored, (uint64_t)r, back, n) || memcmp(a, back, n))
			abort();
		free(stored);
		free(back);
	}
	free(a);
	free(b);
	return 0;
}
