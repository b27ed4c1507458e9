/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What there is to know of an image beside its size and its contents. */
#include <stdio.h>
#include "qcow2.h"

struct say { vh_describe_fn *fn; void *ctx; };

static void text(const struct say *s, const char *key, const char *value)
{
	s->fn(s->ctx, key, VH_DESC_TEXT, value);
}

static void number(const struct say *s, const char *key, uint64_t n)
{
	char v[24];

	snprintf(v, sizeof(v), "%llu", (unsigned long long)n);
	s->fn(s->ctx, key, VH_DESC_NUMBER, v);
}

static void flag(const struct say *s, const char *key, int on)
{
	s->fn(s->ctx, key, VH_DESC_BOOL, on ? "true" : "false");
}

int q2_describe(void *img, vh_describe_fn *fn, void *ctx)
{
	struct q2 *q = img;
	const struct q2_header *h = &q->h;
	static const char *const crypts[] = {"none", "aes", "luks"};
	struct say s = {fn, ctx};

	text(&s, "compat", h->version == 2 ? "0.10" : "1.1");
	number(&s, "refcount-bits", UINT64_C(1) << h->ref_order);
	text(&s, "compression-type", h->compression == Q2_ZSTD ? "zstd" : "zlib");
	flag(&s, "lazy-refcounts", !!(h->compat & Q2_COMPAT_LAZY));
	flag(&s, "extended-l2", q->extended);
	flag(&s, "corrupt", !!(h->incompat & Q2_INCOMPAT_CORRUPT));
	flag(&s, "dirty", !!(h->incompat & Q2_INCOMPAT_DIRTY));
	text(&s, "encrypt", crypts[h->crypt]);
	if (q->has_data) {
		text(&s, "data-file", h->data_file);
		flag(&s, "data-file-raw", q->data_raw);
	}
	number(&s, "bitmaps", h->nbitmaps);
	q2_bitmaps_describe(q, fn, ctx);
	q2_crypt_describe(q, fn, ctx);
	return 0;
}
