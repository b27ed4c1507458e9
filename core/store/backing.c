/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A backing image that is named by a person: for new images and for changing the one of an image. */
#include <string.h>
#include "fmt/options.h"
#include "store/store-i.h"

int backing_open(struct backing *b, const struct backing_spec *s, struct vh_err *e)
{
	struct fmt_spec f = {.read_only = 1, .resolve = resolver_open, .resolve_layer = resolver_layer, .resolve_ctx = &b->r,
			     .no_backing = s->alone};
	struct vh_ref ref = {.size = sizeof(ref), .role = VH_REF_BACKING};
	struct fmt_options opts = {0};
	struct fmt_layer_info top;
	int ret = 0;

	memset(b, 0, sizeof(*b));
	if (g_strlcpy(ref.name, s->name, sizeof(ref.name)) >= sizeof(ref.name))
		return err_set(e, -ENAMETOOLONG, "the backing image's name has more than %zu bytes", sizeof(ref.name) - 1);
	if (s->format && g_strlcpy(ref.format, s->format, sizeof(ref.format)) >= sizeof(ref.format))
		return err_usage(e, "'%s' is no name of a format", s->format);
	if (s->there)
		ret = resolver_init(&b->r, s->pool, s->volume, "vhost", e);
	else
		resolver_init_new(&b->r, s->pool, s->volume, "vhost");
	b->r.attach_flags = VH_ATTACH_BUFFERED;
	b->r.allow = s->allow;
	if (!ret)
		ret = resolver_open(&b->r, &ref, 1, &f.vol, b->format, e);
	if (ret) {
		if (ret == -EINVAL && !s->format)
			err_remedy(e, "add --backing-format FORMAT");
		return ret;
	}
	resolver_layer(&b->r, 1);
	ret = plug_format(b->format, &f.ops, e);
	if (!ret)
		ret = fmt_options_parse(f.ops, s->options, b->format, &opts, e);
	f.opts = optset_get(opts.set);
	f.below = &opts.below;
	if (ret)
		blk_vol_put(f.vol);
	else
		ret = fmt_open(&f, &b->image, e);
	fmt_options_clear(&opts);
	if (ret) {
		b->image = NULL;
		return err_context(e, "the backing image %s", s->name), ret;
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
