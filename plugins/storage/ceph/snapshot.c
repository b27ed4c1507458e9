/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Snapshots of images. Those of other namespaces (trash, groups, mirroring) are the cluster's own affair. */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "ceph.h"

#define SNAPSHOTS_MAX 65536
#define ASK_MS 3000 /* for the holder of the lock to say that it is there */
#define TAKE_S 15u  /* for it to take the snapshot */

static int name_ok(const char *snap, int fresh, struct vh_err *e)
{
	return fresh ? ceph_name_new_ok(snap, e) : ceph_name_ok(snap, e);
}

static int changed(uint64_t off, size_t len, int exists, void *ctx)
{
	*(int *)ctx = 1;
	return -ECANCELED;
}

/* ---- beside a writer ---- */

/*
 * librbd passes the request on to whoever holds the image's lock, and that one stops its writes for the moment of the snapshot. A
 * holder that does not answer for so long that the cluster forgets its watch (30 s) would be taken for dead by librbd, and shut
 * out for good. That is for `vol unlock` to decide. So the holder is asked first whether it is there, by the notification that
 * makes every user of an image look at its header again, and then gets less time than the cluster gives it.
 */
struct snapping {
	struct ceph_call call;
	struct ceph_pool *pool;
	rbd_image_t image;
	char snap[CEPH_NAME_MAX + 1];
};

static void snapping_fn(struct ceph_call *call)
{
	struct snapping *s = (struct snapping *)call;

	call->result = rbd_snap_create(s->image, s->snap);
}

static void snapping_gone(struct ceph_call *call)
{
	struct snapping *s = (struct snapping *)call;

	ceph_image_shut(s->pool, s->image, NULL, NULL);
	free(s);
}

/* Whether `client` ("client.123") is among those who have just answered: le32 count, then le64 client, le64 cookie, le32 length and
 * so many bytes of each (librados.h, rados_notify2). */
static int answered(const char *reply, size_t len, const char *client)
{
	unsigned long long number = strncmp(client, "client.", 7) ? 0 : strtoull(client + 7, NULL, 10);
	size_t at = 4;
	uint32_t n, more;
	uint64_t who;

	if (len < at)
		return 0;
	memcpy(&n, reply, sizeof(n));
	for (n = le32toh(n); number && n-- && len - at >= 20; at += more) {
		memcpy(&who, reply + at, sizeof(who));
		if (le64toh(who) == number)
			return 1;
		memcpy(&more, reply + at + 16, sizeof(more));
		more = le32toh(more);
		at += 20;
		if (more > len - at)
			break;
	}
	return 0;
}

static int holder_is_there(struct ceph_pool *p, const char *id, struct vh_err *e)
{
	size_t reply_n = 0;
	char oid[CEPH_OID_MAX], *reply = NULL;
	struct ceph_locks l;
	int ret = ceph_locks_get(p, id, &l);

	if (ret)
		return ceph_fail(e, ret, "its locks cannot be read: %s", ceph_why(ret));
	if (l.n && !l.exclusive) /* librbd cannot take any while the lock is held by readers */
		ret = ceph_busy(p, id, 0, e);
	if (l.n && l.exclusive) {
		ceph_header_oid(id, oid);
		ret = rados_notify2(p->io, oid, NULL, 0, ASK_MS, &reply, &reply_n);
		if (ret && ret != -ETIMEDOUT) /* somebody did not answer, perhaps another one */
			ret = ceph_fail(e, ret, "its users cannot be asked: %s", ceph_why(ret));
		else
			ret = reply && answered(reply, reply_n, l.clients) ? 0 : ceph_busy(p, id, 0, e);
		if (ret == -EBUSY)
			ceph_hint(e, "it does not answer, and only it could take the snapshot; if it is dead for certain: vhost vol unlock");
		if (reply)
			rados_buffer_free(reply);
	}
	ceph_locks_clear(&l);
	return ret;
}

static int create_in_use(struct ceph_pool *p, const char *name, const char *snap, struct vh_err *e)
{
	struct snapping *s;
	char id[CEPH_ID_MAX];
	int ret = ceph_id(p, name, id);

	if (ret)
		return ceph_errno(e, ret, p, name);
	ret = holder_is_there(p, id, e);
	if (ret)
		return ret;
	s = calloc(1, sizeof(*s));
	if (!s)
		return ceph_fail(e, -ENOMEM, "out of memory");
	s->call = (struct ceph_call){.fn = snapping_fn, .gone = snapping_gone};
	s->pool = p;
	snprintf(s->snap, sizeof(s->snap), "%s", snap);
	ret = rbd_open_by_id(p->io, id, &s->image, NULL);
	if (ret) {
		free(s);
		return ceph_errno(e, ret, p, name);
	}
	if (!ceph_bounded(p, &s->call, TAKE_S)) {
		ceph_hint(e, "see whether there is one: vhost vol snapshot list");
		return ceph_fail(e, -ETIMEDOUT, "its holder did not take the snapshot %s within %u s", snap, TAKE_S);
	}
	ret = s->call.result;
	if (ret == -EEXIST) /* it goes on changing: no way to tell whether that one is the same */
		ceph_hint(e, "choose another name, or delete it first");
	if (ret)
		ret = ret == -EEXIST ? ceph_fail(e, ret, "it has a snapshot %s already", snap) :
				       ceph_fail(e, ret, "the snapshot %s cannot be taken: %s", snap, ceph_why(ret));
	ceph_image_close(p, s->image, NULL, NULL);
	free(s);
	return ret;
}

int ceph_snapshot_create(void *pool, const struct vh_snap_spec *s, struct vh_err *e)
{
	const char *name = s->volume, *snap = s->snap;
	struct ceph_pool *p = pool;
	char id[CEPH_ID_MAX];
	rbd_image_t image;
	uint64_t bytes = 0;
	int ret, differs = 0;

	if (s->flags & VH_MUST_UNDERSTAND & ~VH_SNAP_IN_USE)
		return ceph_fail(e, -EOPNOTSUPP, "a snapshot flag that pools of type ceph do not know");
	ret = name_ok(snap, 1, e);
	if (!ret && s->flags & VH_SNAP_IN_USE) {
		ret = ceph_name_ok(name, e);
		return ret ? ret : create_in_use(p, name, snap, e);
	}
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
