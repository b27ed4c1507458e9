/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Images as commands open them: by pool, volume and format, with what they refer to, with or without a lease. */
#include <stdlib.h>
#include <string.h>
#include <vhost/sugar.h>
#include "fmt/options.h"
#include "store/store-i.h"

struct store_image {
	struct fmt_image *image;
	struct resolver resolver;
	char *holder;
	char **allow, **held;
};

char **store_allow(const struct vh_opts *o)
{
	GPtrArray *a = g_ptr_array_new();

	for (uint32_t i = 0; o && i < o->n; i++) {
		const struct vh_val *v = o->val[i];
		char *real;

		if (strcmp(v->name, "allow") || !v->str)
			continue;
		real = realpath(v->str, NULL);
		g_ptr_array_add(a, g_strdup(real ? real : v->str));
		free(real);
	}
	g_ptr_array_add(a, NULL);
	return (char **)g_ptr_array_free(a, FALSE);
}

static int open_once(const struct store_image_spec *s, int other, int *undecided, struct store_image **out, struct vh_err *e)
{
	struct store_image *i = g_new0(struct store_image, 1);
	g_autofree char *label = g_strdup_printf("%s/%s", s->pool->label, s->volume);
	struct store_attach a = {.name = s->volume, .mode = s->mode, .flags = VH_ATTACH_BUFFERED};
	struct fmt_spec f = {.vol = s->vol, .resolve = resolver_open, .resolve_layer = resolver_layer, .label = label,
			     .read_only = s->mode == VH_ATTACH_RO || s->mode == VH_ATTACH_PEEK, .no_backing = s->no_backing,
			     .repair = s->repair};
	struct fmt_options opts = {0};
	char format[32];
	int ret;

	i->holder = g_strdup(s->holder ? s->holder : "vhost");
	i->allow = g_strdupv((char **)(uintptr_t)s->allow);
	i->held = g_strdupv((char **)(uintptr_t)s->held);
	ret = store_format_pick(s->pool, s->volume, s->format, format, e);
	if (!ret)
		ret = plug_format(format, &f.ops, e);
	if (!ret)
		ret = fmt_options_parse(f.ops, s->options, format, &opts, e);
	if (!ret)
		ret = resolver_init(&i->resolver, s->pool, f.ops->inspect ? s->volume : NULL, i->holder, e);
	i->resolver.attach_flags = VH_ATTACH_BUFFERED;
	i->resolver.allow = (const char *const *)i->allow;
	i->resolver.held = (const char *const *)i->held;
	i->resolver.peek = s->mode == VH_ATTACH_PEEK;
	i->resolver.other = other;
	a.holder = i->holder;
	if (!ret && !f.vol)
		ret = store_attach(s->pool, &a, &f.vol, e);
	f.opts = optset_get(opts.set);
	f.below = &opts.below;
	f.resolve_ctx = &i->resolver;
	if (!ret)
		ret = fmt_open(&f, &i->image, e);
	else if (f.vol)
		blk_vol_put(f.vol);
	fmt_options_clear(&opts);
	*undecided = i->resolver.undecided;
	if (ret) {
		char mark[256];

		if ((ret == -EINVAL || ret == -EIO) && !vol_meta_read(s->pool, s->volume, COMMITTING, mark, sizeof(mark), NULL) && mark[0])
			err_remedy(e, "a commit of it was cut short: run it again");
		i->image = NULL;
		store_image_close(i);
		return ret;
	}
	*out = i;
	return 0;
}

int store_image_open(const struct store_image_spec *s, struct store_image **out, struct vh_err *e)
{
	int undecided = 0, again = 0, ret;
	ERR_AUTO(first);

	if (s->vol)
		blk_vol_ref(s->vol); /* for a second attempt */
	ret = open_once(s, 0, &undecided, out, &first);
	again = ret && undecided;
	if (again && !open_once(s, 1, &undecided, out, NULL))
		return 0;
	if (s->vol && !again)
		blk_vol_put(s->vol);
	if (ret)
		err_move(e, &first);
	return ret;
}

struct fmt_image *store_image_fmt(struct store_image *i)
{
	return i->image;
}

void store_image_close(struct store_image *i)
{
	if (!i)
		return;
	if (i->image)
		fmt_close(i->image);
	resolver_clear(&i->resolver);
	g_free(i->holder);
	g_strfreev(i->allow);
	g_strfreev(i->held);
	g_free(i);
}

uint64_t store_disk_bytes(struct store_pool *p, const char *volume, const char *format)
{
	struct store_image_spec s = {.pool = p, .volume = volume, .format = format, .mode = VH_ATTACH_PEEK, .no_backing = 1};
	struct store_image *i;
	struct fmt_info info;
	ERR_AUTO(e);

	if (!format[0] || store_image_open(&s, &i, &e))
		return UINT64_MAX;
	fmt_get_info(i->image, &info);
	store_image_close(i);
	return info.bytes;
}

int store_image_refs(struct store_pool *p, const char *volume, const char *format, struct vh_ref **refs, struct vh_err *e)
{
	struct store_attach a = {.name = volume, .holder = "vhost", .mode = VH_ATTACH_PEEK, .flags = VH_ATTACH_BUFFERED};
	const struct vh_format_ops *ops;
	struct blk_vol *v;
	int ret;

	*refs = NULL;
	ret = plug_format(format, &ops, e);
	if (ret || !ops->inspect)
		return ret;
	ret = store_attach(p, &a, &v, e);
	if (ret)
		return ret;
	ret = fmt_refs(v, ops, refs, e);
	blk_vol_put(v);
	return ret;
}

int store_image_backing(struct store_pool *p, const char *volume, const char *format, struct vh_ref *out, struct vh_err *e)
{
	struct vh_ref *refs;
	int n = store_image_refs(p, volume, format, &refs, e), found = 0, ret = 0;

	memset(out, 0, sizeof(*out));
	for (int k = 0; k < n && !found; k++) {
		found = refs[k].role == VH_REF_BACKING;
		if (found)
			*out = refs[k];
	}
	if (found && !out->name[0])
		ret = vol_meta_read(p, volume, BACKING, out->name, sizeof(out->name), e);
	free(refs);
	return n < 0 ? n : ret < 0 ? ret : found;
}

int store_backing_set(struct store_pool *p, const char *volume, const char *format, const char *name, struct vh_err *e)
{
	struct vh_ref *refs;
	int n = store_image_refs(p, volume, format, &refs, e), nameless = 0;
	char was[1024];

	for (int k = 0; k < n; k++)
		nameless |= refs[k].role == VH_REF_BACKING && !refs[k].name[0];
	free(refs);
	if (n < 0)
		return n;
	if (nameless && name && strlen(name) > 255)
		return err_set(e, -ENAMETOOLONG, "a recorded name has at most 255 bytes");
	if (!nameless && (vol_meta_read(p, volume, BACKING, was, sizeof(was), NULL) || !was[0]))
		return 0;
	return vol_meta_set(p, volume, BACKING, nameless ? name : NULL, e);
}

/* The further files that were made together with an image, in its own pool: those that say so themselves. */
static GPtrArray *parts_of(struct store_pool *p, const char *volume)
{
	GPtrArray *parts = g_ptr_array_new_with_free_func(g_free);
	struct resolver r = {0};
	struct vh_ref *refs = NULL;
	char format[32], owner[256];
	int n = 0;

	if (!store_format_get(p, volume, format, NULL) && format[0])
		n = store_image_refs(p, volume, format, &refs, NULL);
	if (n > 0)
		resolver_init_new(&r, p, volume, "vhost");
	for (int k = 0; k < n; k++) {
		g_autofree char *name = NULL;
		struct store_pool *in;

		if (refs[k].role != VH_REF_DATA || resolver_find(&r, refs[k].name, &in, &name, NULL) || in != p)
			continue;
		if (!vol_meta_read(p, name, PART_OF, owner, sizeof(owner), NULL) && !strcmp(owner, volume))
			g_ptr_array_add(parts, g_steal_pointer(&name));
	}
	resolver_clear(&r);
	free(refs);
	return parts;
}

int store_vol_delete(struct store_pool *p, const char *volume, struct vh_job *j, struct vh_err *e)
{
	g_autoptr(GPtrArray) parts = parts_of(p, volume);
	int ret = 0;

	/* The image last: as long as it is there, deleting it again finds what is left. */
	for (guint k = 0; k < parts->len && !ret; k++)
		ret = store_vol_remove(p, parts->pdata[k], j, e);
	return ret ? ret : store_vol_remove(p, volume, j, e);
}
