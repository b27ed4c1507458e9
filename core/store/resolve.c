/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What an image refers to (a backing image, a data file). The name comes out of an image file and is hostile: only a
 * volume of the same pool is opened, never anything outside it, whatever the name; no volume twice in a chain; no chain
 * without an end.
 */
#include <string.h>
#include "store/store-i.h"

static int seen_add(struct resolver *r, const char *volume, struct vh_err *e)
{
	struct vh_vol_stat st;
	int ret = store_vol_stat(r->pool, volume, &st, e);

	if (ret)
		return ret;
	for (unsigned i = 0; i < r->n; i++)
		if (!strcmp(r->seen[i], st.identity))
			return err_set(e, -ELOOP, "%s appears twice in the chain of images", volume);
	if (r->n == CHAIN_MAX)
		return err_set(e, -ELOOP, "the chain of images is longer than %d", CHAIN_MAX);
	r->seen[r->n++] = g_strdup(st.identity);
	return 0;
}

int resolver_init(struct resolver *r, struct store_pool *p, const char *volume, const char *holder, struct vh_err *e)
{
	memset(r, 0, sizeof(*r));
	r->pool = p;
	r->holder = holder;
	return volume ? seen_add(r, volume, e) : 0;
}

void resolver_clear(struct resolver *r)
{
	for (unsigned i = 0; i < r->n; i++)
		g_free(r->seen[i]);
	memset(r, 0, sizeof(*r));
}

/* The volume that a reference names: NAME, or FOLDER/NAME where FOLDER is the pool's. NULL: it is outside. */
static char *inside(struct store_pool *p, const char *ref)
{
	g_autofree char *base = g_path_get_basename(ref), *dir = NULL, *canon = NULL, *pool_dir = NULL;
	char path[4096];

	if (g_str_has_prefix(ref, "./") && !strchr(ref + 2, '/'))
		ref += 2;
	if (!strchr(ref, '/'))
		return strchr(ref, ':') ? NULL : g_strdup(ref); /* "nbd:...", "json:..." are no names of ours */
	if (ref[0] != '/' || !p->ops->path || p->ops->path(p->pool, base, path, sizeof(path), NULL))
		return NULL;
	path[sizeof(path) - 1] = 0;
	dir = g_path_get_dirname(ref);
	canon = g_canonicalize_filename(dir, "/");
	pool_dir = g_path_get_dirname(path);
	return strcmp(canon, pool_dir) ? NULL : g_steal_pointer(&base);
}

int resolver_open(void *ctx, const struct vh_ref *ref, int read_only, struct blk_vol **vol, char format[32],
		  struct vh_err *e)
{
	struct resolver *r = ctx;
	char name[sizeof(ref->name)], want[sizeof(ref->format)];
	g_autofree char *volume = NULL;
	int ret;

	g_strlcpy(name, ref->name, sizeof(name));
	g_strlcpy(want, ref->format, sizeof(want));
	if (!name[0]) {
		err_remedy(e, "name it: format.backing=VOLUME");
		return err_set(e, -EINVAL, "the image has a backing image, but its file does not say which");
	}
	volume = inside(r->pool, name);
	if (!volume) {
		err_remedy(e, "put it into the pool %s, beside the image", r->pool->label);
		return err_set(e, -EPERM, "the image refers to '%s', which is not in its pool", name);
	}
	ret = seen_add(r, volume, e);
	if (!ret)
		ret = store_format_pick(r->pool, volume, want[0] ? want : NULL, format, e);
	if (!ret) {
		struct store_attach a = {.name = volume, .holder = r->holder, .flags = r->attach_flags, .blk = r->blk,
					 .mode = r->peek ? VH_ATTACH_PEEK : read_only ? VH_ATTACH_RO : VH_ATTACH_RW_EXCL};

		a.blk.label = NULL;
		ret = store_attach(r->pool, &a, vol, e);
	}
	return ret ? err_context(e, "%s '%s' of the image", ref->role == VH_REF_BACKING ? "the backing image" :
				 "the data file", name), ret : 0;
}
