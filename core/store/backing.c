/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A backing image that is named by a person: for new images and for changing the one of an image. */
#include <string.h>
#include "store/store-i.h"

int backing_open(struct backing *b, struct store_pool *p, const char *volume, int there, const char *name, const char *format,
		 const char *const *allow, int alone, struct vh_err *e)
{
	struct fmt_spec f = {.read_only = 1, .resolve = resolver_open, .resolve_layer = resolver_layer, .resolve_ctx = &b->r,
			     .no_backing = alone};
	struct vh_ref ref = {.size = sizeof(ref), .role = VH_REF_BACKING};
	struct fmt_layer_info top;
	int ret = 0;

	memset(b, 0, sizeof(*b));
	if (g_strlcpy(ref.name, name, sizeof(ref.name)) >= sizeof(ref.name))
		return err_set(e, -ENAMETOOLONG, "the backing image's name has more than %zu bytes", sizeof(ref.name) - 1);
	if (format && g_strlcpy(ref.format, format, sizeof(ref.format)) >= sizeof(ref.format))
		return err_usage(e, "'%s' is no name of a format", format);
	if (there)
		ret = resolver_init(&b->r, p, volume, "vhost", e);
	else
		resolver_init_new(&b->r, p, volume, "vhost");
	b->r.attach_flags = VH_ATTACH_BUFFERED;
	b->r.allow = allow;
	if (!ret)
		ret = resolver_open(&b->r, &ref, 1, &f.vol, b->format, e);
	if (ret) {
		if (ret == -EINVAL && !format)
			err_remedy(e, "add --backing-format FORMAT");
		return ret;
	}
	resolver_layer(&b->r, 1);
	ret = plug_format(b->format, &f.ops, e);
	if (ret)
		blk_vol_put(f.vol);
	else
		ret = fmt_open(&f, &b->image, e);
	if (ret) {
		b->image = NULL;
		return err_context(e, "the backing image %s", name), ret;
	}
	fmt_layer_get(b->image, 0, &top);
	b->volume = top.volume;
	b->bytes = top.bytes;
	b->meta = fmt_meta_new(top.volume, 1);
	return b->meta ? 0 : err_set(e, -ENOMEM, "no memory for an image");
}

void backing_close(struct backing *b)
{
	fmt_meta_free(b->meta);
	fmt_close(b->image);
	resolver_clear(&b->r);
	memset(b, 0, sizeof(*b));
}
