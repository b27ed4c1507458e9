/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Volumes whose bytes come from elsewhere: clones, by the pool or by copying, and uploads. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "store/store-i.h"
#include "util/paths.h"

#define UPLOAD "upload"

#define COPY_OF "copy of "

/* What is made anew when it is found again: an unfinished copy or upload. */
static int may_go(const char *mark)
{
	return g_str_has_prefix(mark, COPY_OF) || !strcmp(mark, UPLOAD);
}

int store_vol_new(struct store_pool *to, const char *dst, const char *mark, uint64_t bytes, struct vh_job *j, int *zeroed,
		  int *made, struct vh_err *e)
{
	char recorded[32] = "", found[256] = "";
	struct kvs none = {0};
	struct vh_vol_stat st;
	int ret = 0;

	if (!store_vol_stat(to, dst, &st, NULL)) {
		ret = store_format_get(to, dst, recorded, e);
		if (!ret)
			ret = vol_meta_read(to, dst, UNFINISHED, found, sizeof(found), e);
		if (!ret && recorded[0] && !strcmp(found, mark))
			return 1;
		if (!ret && recorded[0]) {
			err_remedy(e, "choose another name, or delete it first");
			ret = err_set(e, -EEXIST, "it exists already");
		} else if (!ret && may_go(found)) {
			ret = store_vol_remove(to, dst, j, e); /* refused while somebody is still at it */
		}
	}
	if (!ret)
		ret = make_empty(to, dst, bytes, VH_PREALLOC_OFF, &none, j, zeroed, e);
	*made = !ret;
	return ret ? ret : vol_meta_set(to, dst, UNFINISHED, mark, e);
}

/* Between pools, or where a pool cannot: by reading and writing. */
static int clone_by_copy(struct store_pool *from, const char *src, struct store_pool *to, const char *dst,
			 struct vh_job *j, struct vh_err *e)
{
	g_autofree char *holder = g_strdup_printf("pid %d vhost vol clone", (int)getpid());
	struct store_attach a = {.name = src, .holder = holder, .mode = VH_ATTACH_RO, .flags = VH_ATTACH_BUFFERED};
	g_autofree char *mark = NULL;
	struct blk_vol *in = NULL, *out = NULL;
	struct vh_vol_stat st;
	char format[32];
	int zeroed = 0, made = 0, ret = store_format_pick(from, src, NULL, format, e), done;

	if (!ret)
		ret = store_vol_stat(from, src, &st, e);
	if (!ret)
		ret = store_attach(from, &a, &in, e);
	if (ret)
		return ret;
	mark = g_strconcat(COPY_OF, st.identity, NULL);
	ret = store_vol_new(to, dst, mark, blk_vol_bytes(in), j, &zeroed, &made, e);
	done = ret == 1;
	if (done)
		ret = 0;
	if (!ret && !done)
		ret = rw_volume(to, dst, "clone", &out, e);
	if (out && !zeroed)
		ret = blk_zero(out, blk_vol_bytes(out), 0, e);
	if (!ret && out)
		ret = store_copy(in, out, j, e);
	if (out)
		blk_vol_put(out);
	blk_vol_put(in);
	if (!ret)
		ret = store_vol_done(to, dst, format, e);
	if (ret && made)
		store_vol_remove(to, dst, NULL, NULL); /* cancelled or failed: nothing stays */
	return vol_about(to, dst, ret, e);
}

int store_vol_done(struct store_pool *p, const char *volume, const char *format, struct vh_err *e)
{
	int ret = store_format_set(p, volume, format, e);

	return ret ? ret : vol_meta_set(p, volume, UNFINISHED, NULL, e);
}

/* A copy of an image that keeps its data in further files would write into the original's. */
int store_one_file(struct store_pool *p, const char *volume, struct vh_err *e)
{
	struct vh_ref *refs = NULL;
	char format[32];
	int n, ret = 0;

	if (store_format_get(p, volume, format, NULL) || !format[0])
		return 0; /* said where it matters */
	n = store_image_refs(p, volume, format, &refs, e);
	for (int k = 0; k < n && !ret; k++)
		if (refs[k].role == VH_REF_DATA) {
			err_remedy(e, "convert it into a new image: vhost vol convert");
			ret = err_set(e, -EOPNOTSUPP, "its data is in further files (%s), which this would not reach", refs[k].name);
		}
	free(refs);
	return n < 0 ? n : ret;
}

/* A pool that keeps no values beside its volumes does not copy them either. */
static int clone_values(struct store_pool *p, const char *src, const char *dst, struct vh_err *e)
{
	char there[32], format[32], backing[1024] = "";
	int ret = store_format_get(p, dst, there, e);

	if (!ret && !there[0])
		ret = store_format_get(p, src, format, e);
	if (ret || there[0] || !format[0])
		return ret;
	ret = vol_meta_read(p, src, BACKING, backing, sizeof(backing), e);
	if (!ret && backing[0])
		ret = vol_meta_set(p, dst, BACKING, backing, e);
	return ret ? ret : store_format_set(p, dst, format, e);
}

static int clone_by_pool(struct store_pool *p, const char *src, const char *snap, const char *dst, uint32_t how, struct vh_job *j,
			 struct vh_err *e)
{
	g_autofree char *who = g_strdup_printf("pid %d vhost vol clone", (int)getpid());
	struct lease *l = NULL;
	int ret = snap ? 0 : store_lease(p, src, VH_ATTACH_RO, who, &l, e);

	if (ret)
		return ret;
	ret = p->ops->clone(p->pool, src, snap, dst, how, j, e);
	lease_drop(l);
	return ret ? vol_about(p, ret == -EEXIST ? dst : src, ret, e) : clone_values(p, src, dst, e);
}

int store_vol_clone(struct store_pool *from, const char *src, const char *snap, struct store_pool *to, const char *dst, uint32_t how,
		    struct vh_job *j, struct vh_err *e)
{
	uint64_t need = how == VH_CLONE_COW ? VH_POOL_CLONE_COW : VH_POOL_CLONE_FULL;
	int special = snap || how != VH_CLONE_FULL, ret = name_check("volume", dst, e);

	if (!ret && snap)
		ret = name_check("snapshot", snap, e);
	if (ret)
		return vol_about(to, dst, ret, e);
	ret = store_one_file(from, src, e);
	if (ret)
		return vol_about(from, src, ret, e);
	if (special && (from != to || !from->ops->clone || !(from->ops->caps & need))) {
		err_remedy(e, from != to ? "clone within the pool, then convert that one" :
			      how == VH_CLONE_COW ? "make a full clone, or an image with a backing image: vhost vol create --backing" :
						    "clone the volume itself");
		return vol_about(from, src, err_set(e, -EOPNOTSUPP, from != to ? "snapshots and copy-on-write clones stay in their pool" :
						"this type of pool makes no such clones"), e);
	}
	if (from == to && from->ops->clone) {
		ret = clone_by_pool(from, src, snap, dst, how, j, e);
		if (ret != -EOPNOTSUPP || special)
			return ret;
		err_clear(e);
	}
	return clone_by_copy(from, src, to, dst, j, e);
}
