/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Which formats a file could be: every plugin's probe() sees the same first bytes, and none of them opens anything. */
#include <stdlib.h>
#include <string.h>
#include "cmd/image-cmd.h"
#include "plug/plug.h"

#define HEAD (UINT64_C(128) << 10)

static int note_format(void *ctx, const struct plug_note *n, const struct vh_err *why_not)
{
	GPtrArray *ids = ctx;

	if (!why_not && n->kinds & VH_KIND_FORMAT && !g_ptr_array_find_with_equal_func(ids, n->id, g_str_equal, NULL))
		g_ptr_array_add(ids, g_strdup(n->id));
	return 0;
}

static int surer(const void *a, const void *b)
{
	const struct probe_hit *x = a, *y = b;

	return x->certainty != y->certainty ? y->certainty - x->certainty : strcmp(x->format, y->format);
}

int image_probe(const struct cmd_volume *v, struct probe *out, struct vh_err *e)
{
	struct store_attach a = {.name = v->name, .holder = "vhost probe", .mode = VH_ATTACH_PEEK, .flags = VH_ATTACH_BUFFERED};
	g_autoptr(GPtrArray) ids = g_ptr_array_new_with_free_func(g_free);
	g_autofree char *buf = NULL;
	unsigned sure = 0;
	struct blk_vol *vol;
	uint64_t bytes, len;
	int ret = store_attach(v->pool, &a, &vol, e);

	memset(out, 0, sizeof(*out));
	if (ret)
		return ret;
	bytes = blk_vol_bytes(vol);
	len = MIN(bytes, HEAD);
	buf = g_malloc(len + 1);
	ret = len ? blk_read(vol, buf, len, 0, e) : 0;
	blk_vol_put(vol);
	if (ret)
		return ret;
	plug_scan(note_format, ids);
	for (guint i = 0; i < ids->len && out->n < G_N_ELEMENTS(out->hit); i++) {
		const struct vh_format_ops *ops;
		int certainty;

		if (plug_format(ids->pdata[i], &ops, NULL) || !ops->probe)
			continue;
		certainty = ops->probe(buf, len, bytes);
		if (certainty <= 0)
			continue;
		g_strlcpy(out->hit[out->n].format, ids->pdata[i], sizeof(out->hit[0].format));
		out->hit[out->n++].certainty = MIN(certainty, 100);
		sure += certainty >= 50;
	}
	qsort(out->hit, out->n, sizeof(out->hit[0]), surer);
	out->ambiguous = sure > 1;
	return 0;
}
