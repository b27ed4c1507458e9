/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Snapshots of images. Those of other namespaces (trash, groups, mirroring) are the cluster's own affair. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include "ceph.h"

#define SNAPSHOTS_MAX 65536

static int name_ok(const char *snap, int fresh, struct vh_err *e)
{
	return fresh ? ceph_name_new_ok(snap, e) : ceph_name_ok(snap, e);
}

static int changed(uint64_t off, size_t len, int exists, void *ctx)
{
	*(int *)ctx = 1;
	return -ECANCELED;
}

int ceph_snapshot_create(void *pool, const char *name, const char *snap, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	char id[CEPH_ID_MAX];
	rbd_image_t image;
	uint64_t bytes = 0;
	int ret = name_ok(snap, 1, e), differs = 0;

	if (!ret)
		ret = ceph_lease_for(p, name, "taking a snapshot", id, &image, e);
	if (ret)
		return ret;
	ret = rbd_snap_create(image, snap);
	if (ret == -EEXIST) { /* the same is done already; another one would be lost by believing so */
		ret = rbd_get_size(image, &bytes);
		if (!ret)
			ret = rbd_diff_iterate2(image, snap, 0, bytes, 1, 0, changed, &differs);
		if (differs || ret) {
			ceph_hint(e, "choose another name, or delete it first");
			ret = ceph_fail(e, -EEXIST, "it has a snapshot %s already, and has changed since", snap);
		}
	} else if (ret) {
		ret = ceph_fail(e, ret, "the snapshot %s cannot be taken: %s", snap, ceph_why(ret));
	}
	ceph_unlease(p, image, id);
	return ret;
}

int ceph_snapshot_list(void *pool, const char *name, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	rbd_snap_info_t *all = NULL;
	char id[CEPH_ID_MAX];
	rbd_image_t image;
	int n, max = 64, ret = ceph_name_ok(name, e);

	if (ret)
		return ret;
	ret = ceph_id(p, name, id);
	if (!ret)
		ret = rbd_open_by_id_read_only(p->io, id, &image, NULL);
	if (ret)
		return ceph_errno(e, ret, p, name);
	for (;;) {
		int cap = max;

		all = calloc((size_t)cap + 1, sizeof(*all));
		n = all ? rbd_snap_list(image, all, &max) : -ENOMEM;
		if (n != -ERANGE || max <= cap || max > SNAPSHOTS_MAX)
			break;
		free(all);
	}
	for (int k = 0; k < n && !ret; k++) {
		struct vh_vol_stat st = {.size = sizeof(st), .allocated = UINT64_MAX, .flags = VH_STAT_SPARSE};
		rbd_snap_namespace_type_t type;
		struct timespec t = {0};

		if (rbd_snap_get_namespace_type(image, all[k].id, &type) || type != RBD_SNAP_NAMESPACE_TYPE_USER)
			continue;
		if (ceph_name_ok(all[k].name, NULL)) /* ours of a clone under way, or nothing that could be named */
			continue;
		st.bytes = all[k].size;
		if (!rbd_snap_get_timestamp(image, all[k].id, &t))
			st.mtime = (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
		snprintf(st.identity, sizeof(st.identity), "rbd:%s:%lld:%.40s:%s@%llu", p->fsid, (long long)p->id, p->ns ? p->ns : "", id,
			 (unsigned long long)all[k].id);
		ret = fn(ctx, all[k].name, &st) ? 1 : 0;
	}
	if (n >= 0)
		rbd_snap_list_end(all);
	free(all);
	ceph_image_close(p, image, NULL, NULL);
	return n < 0 ? ceph_fail(e, n, "its snapshots cannot be listed: %s", ceph_why(n)) : ret;
}

int ceph_snapshot_remove(void *pool, const char *name, const char *snap, struct vh_job *j, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	char id[CEPH_ID_MAX];
	rbd_image_t image;
	int ret = name_ok(snap, 0, e);

	if (!ret)
		ret = ceph_lease_for(p, name, "deleting a snapshot", id, &image, e);
	if (ret)
		return ret;
	ret = rbd_snap_remove2(image, snap, 0, ceph_progress, j);
	if (ret == -ENOENT)
		ret = 0;
	if (ret == -EBUSY) {
		ceph_hint(e, "flatten its clones, or: rbd snap unprotect");
		ret = ceph_fail(e, ret, "the snapshot %s is protected", snap);
	} else if (ret) {
		ret = ceph_fail(e, ret, "the snapshot %s cannot be deleted: %s", snap, ceph_why(ret));
	}
	ceph_unlease(p, image, id);
	return ret;
}

int ceph_snapshot_rollback(void *pool, const char *name, const char *snap, struct vh_job *j, struct vh_err *e)
{
	struct ceph_pool *p = pool;
	char id[CEPH_ID_MAX];
	rbd_image_t image;
	int ret = name_ok(snap, 0, e);

	if (!ret)
		ret = ceph_lease_for(p, name, "rolling back", id, &image, e);
	if (ret)
		return ret;
	ret = rbd_snap_rollback_with_progress(image, snap, ceph_progress, j);
	if (ret)
		ret = ret == -ENOENT ? ceph_fail(e, ret, "it has no snapshot %s", snap) :
				       ceph_fail(e, ret, "it cannot be rolled back to %s: %s", snap, ceph_why(ret));
	ceph_unlease(p, image, id);
	return ret;
}
