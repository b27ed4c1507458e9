/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A kernel file's bytes: whatever they are, what is accepted lies inside the file and above 1 MiB, and can be placed. */
#include <stdlib.h>
#include <string.h>
#include "boot/image.h"

struct bytes { const uint8_t *p; size_t n; };

static int bytes_read(void *ctx, uint64_t off, void *buf, size_t len)
{
	struct bytes *b = ctx;
	if (off > b->n || len > b->n - off)
		return -ENODATA;
	memcpy(buf, b->p + off, len);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct bytes b = {data, size};
	struct boot_source f = {size, bytes_read, &b};
	struct boot_kernel k;
	struct vh_err e = {0};
	const uint64_t low = UINT64_C(2) << 30;

	if (!boot_parse(&f, &k, &e) && (k.kind != KIND_BZIMAGE || !bzimage_place(&k, low, &e))) {
		if (!k.n || k.n > BOOT_MAX_SEGMENTS)
			abort();
		for (unsigned i = 0; i < k.n; i++) {
			struct boot_segment *s = &k.seg[i];
			if (s->off > size || s->file_bytes > size - s->off || s->file_bytes > s->mem_bytes || s->gpa < LAYOUT_KERNEL_MIN ||
			    s->gpa + s->mem_bytes < s->gpa)
				abort();
			if (k.kind == KIND_BZIMAGE && s->gpa + s->mem_bytes > low)
				abort();
		}
		if (!k.entry && !k.pvh_entry)
			abort();
	}
	err_clear(&e);
	return 0;
}
