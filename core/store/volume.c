/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Whole volumes by their pools' own means, each under the lease that it needs. */
#include <string.h>
#include <unistd.h>
#include "store/store-i.h"
#include "util/paths.h"

static int cannot(struct store_pool *p, const char *volume, const char *what, struct vh_err *e)
{
	return vol_about(p, volume, err_set(e, -EOPNOTSUPP, "pools of type %s cannot %s", p->type, what), e);
}

static int lease(struct store_pool *p, const char *volume, uint32_t mode, const char *what, struct lease **out, struct vh_err *e)
{
	g_autofree char *who = g_strdup_printf("pid %d vhost vol %s", (int)getpid(), what);

	return store_lease(p, volume, mode, who, out, e);
}

int store_vol_remove(struct store_pool *p, const char *volume, struct vh_job *j, struct vh_err *e)
{
	g_autofree char *group = NULL;
	struct lease *l = NULL;
	ERR_AUTO(why);
	int ret;

	if (!p->ops->remove)
		return cannot(p, volume, "delete volumes", e);
	group = hostmeta_group(p, volume);
	ret = lease(p, volume, VH_ATTACH_RW_EXCL, "delete", &l, &why);
	if (ret && ret != -ENOENT) { /* what is not there may have left something that the pool cleans up */
		err_move(e, &why);
		return ret;
	}
	ret = hostmeta_deleting(p, group, 1, e);
	if (!ret)
		ret = p->ops->remove(p->pool, volume, j, e);
	if (!ret && group)
		hostmeta_drop(p, group);
	else if (!ret)
		hostmeta_sweep(p, volume);
	else
		hostmeta_deleting(p, group, 0, NULL);
	lease_drop(l);
	return vol_about(p, volume, ret, e);
}

int store_vol_resize(struct store_pool *p, const char *volume, uint64_t bytes, uint32_t prealloc, struct vh_job *j,
		     struct vh_err *e)
{
	struct lease *l;
	int ret;

	if (!p->ops->resize)
		return cannot(p, volume, "resize volumes", e);
	ret = lease(p, volume, VH_ATTACH_RW_EXCL, "resize", &l, e);
	if (ret)
		return ret;
	ret = p->ops->resize(p->pool, volume, bytes, prealloc, j, e);
	lease_drop(l);
	return vol_about(p, volume, ret, e);
}

int store_vol_flatten(struct store_pool *p, const char *volume, struct vh_job *j, struct vh_err *e)
{
	struct lease *l;
	int ret;

	if (!p->ops->flatten)
		return cannot(p, volume, "make clones independent", e);
	ret = lease(p, volume, VH_ATTACH_RW_EXCL, "flatten", &l, e);
	if (ret)
		return ret;
	ret = p->ops->flatten(p->pool, volume, j, e);
	lease_drop(l);
	return vol_about(p, volume, ret, e);
}

static int snap_name(const char *snap, struct vh_err *e)
{
	return name_check("snapshot", snap, e);
}

int store_snapshot_create(struct store_pool *p, const char *volume, const char *snap, int beside_writer, struct vh_err *e)
{
	struct vh_snap_spec s = {.size = sizeof(s), .flags = beside_writer ? VH_SNAP_IN_USE : 0, .volume = volume, .snap = snap};
	struct lease *l = NULL;
	int ret = vol_about(p, volume, snap_name(snap, e), e);

	if (!ret && !p->ops->snapshot_create)
		ret = cannot(p, volume, "take snapshots", e);
	if (!ret)
		ret = lease(p, volume, beside_writer ? VH_ATTACH_PEEK : VH_ATTACH_RO, "snapshot create", &l, e);
	if (ret)
		return ret;
	ret = p->ops->snapshot_create(p->pool, &s, e);
	lease_drop(l);
	return vol_about(p, volume, ret, e);
}

int store_snapshot_list(struct store_pool *p, const char *volume, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	int ret = p->ops->snapshot_list ? p->ops->snapshot_list(p->pool, volume, fn, ctx, e) : 0;

	return vol_about(p, volume, MIN(ret, 0), e);
}

/* Whoever uses the volume does not see its snapshots; the pool refuses for one that is in use itself. */
int store_snapshot_remove(struct store_pool *p, const char *volume, const char *snap, struct vh_job *j, struct vh_err *e)
{
	int ret = vol_about(p, volume, snap_name(snap, e), e);

	if (!ret && !p->ops->snapshot_remove)
		ret = cannot(p, volume, "delete snapshots", e);
	return ret ? ret : vol_about(p, volume, p->ops->snapshot_remove(p->pool, volume, snap, j, e), e);
}

int store_snapshot_rollback(struct store_pool *p, const char *volume, const char *snap, struct vh_job *j, struct vh_err *e)
{
	struct lease *l = NULL;
	int ret = vol_about(p, volume, snap_name(snap, e), e);

	if (!ret && !p->ops->snapshot_rollback)
		ret = cannot(p, volume, "go back to snapshots", e);
	if (!ret)
		ret = lease(p, volume, VH_ATTACH_RW_EXCL, "snapshot rollback", &l, e);
	if (ret)
		return ret;
	ret = p->ops->snapshot_rollback(p->pool, volume, snap, j, e);
	lease_drop(l);
	return vol_about(p, volume, ret, e);
}
