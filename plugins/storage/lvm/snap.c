/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Snapshots and clones. A snapshot of VOLUME is the logical volume VOLUME+SNAP with the tag "snapshot", thin where the volume is,
 * else a classic one, as large as its origin, so that it never overflows. A clone is a thin snapshot that is a volume of its
 * own: lvm keeps it when its origin goes, so that it counts as independent.
 */
#include "lvm.h"

#define MERGE_NS UINT64_C(3600000000000)

int lvm_volume_get(const struct lvm_pool *p, const char *name, int live, struct lvm_lv **out, struct vh_err *e)
{
	g_autofree char *removing = NULL;
	int ret = lvm_lv_get(p, name, live, out, e);

	if (ret)
		return ret;
	removing = lvm_tag_find((*out)->tags, LVM_REMOVING);
	if (removing) {
		lvm_hint(e, "delete it again");
		ret = lvm_fail(e, -EBUSY, "its deletion was cut short");
	} else if (!lvm_is_volume(*out)) {
		ret = lvm_is_thin_pool(*out) ? lvm_fail(e, -EINVAL, "a thin pool is no volume") :
					       lvm_fail(e, -ENOENT, "there is no such volume in the volume group %s", p->vg);
	}
	if (ret)
		g_clear_pointer(out, lvm_lv_free);
	return ret;
}

static int find_snap(const struct lvm_pool *p, const char *name, const char *snap, struct lvm_lv **out, struct vh_err *e)
{
	g_autofree char *full = lvm_snap_name(name, snap, e);
	int ret;

	*out = NULL;
	if (!full)
		return -EINVAL;
	ret = lvm_lv_get(p, full, 1, out, NULL);
	if (!ret && !lvm_snap_of(*out, name)) {
		g_clear_pointer(out, lvm_lv_free);
		ret = -ENOENT;
	}
	if (ret == -ENOENT)
		return lvm_fail(e, ret, "it has no snapshot %s", snap);
	return ret ? lvm_lv_get(p, full, 1, out, e) : 0; /* once more, for the text */
}

/* Room in what a snapshot is made in. */
static int may_snapshot(const struct lvm_pool *p, const struct lvm_lv *lv, struct vh_err *e)
{
	struct lvm_vg vg;
	int ret = lvm_vg_get(p, &vg, e);

	if (!ret && vg.missing)
		ret = lvm_fail(e, -EIO, "a device of the volume group %s is missing", p->vg);
	if (!ret && !lvm_is_thin(lv) && lv->bytes > vg.free) {
		lvm_hint(e, "only snapshots of thin volumes take no room beforehand");
		ret = lvm_fail(e, -ENOSPC, "a classic snapshot needs as much as its volume, %llu bytes, and the volume group %s has %llu free",
			       (unsigned long long)lv->bytes, p->vg, (unsigned long long)vg.free);
	}
	return ret;
}

static int take(const struct lvm_pool *p, const struct lvm_lv *lv, const char *full, const char *snap, struct vh_job *j, struct vh_err *e)
{
	g_autofree char *tag = lvm_tag(LVM_SNAPSHOT, snap), *from = g_strdup_printf("%s/%s", p->vg, lv->name);

	if (lvm_is_thin(lv))
		return lvm_run(p, j, NULL, NULL, e, "lvcreate", "-s", "-an", "-ky", "-n", full, "--addtag", tag, from, NULL);
	return lvm_run(p, j, NULL, NULL, e, "lvcreate", "-s", "-l", "100%ORIGIN", "-n", full, "--addtag", tag, from, NULL);
}

int lvm_snapshot_create(void *pool, const struct vh_snap_spec *s, struct vh_err *e)
{
	const char *name = s->volume, *snap = s->snap;
	/* Beside a writer: lvm suspends the device while it takes the snapshot, which is all that is needed. */
	uint32_t mode = s->flags & VH_SNAP_IN_USE ? VH_ATTACH_PEEK : VH_ATTACH_RO;
	struct lvm_pool *p = pool;
	g_autofree char *full = NULL;
	struct lvm_lv *lv, *there;
	struct lvm_lease l;
	int ret;

	if (s->flags & VH_MUST_UNDERSTAND & ~VH_SNAP_IN_USE)
		return lvm_fail(e, -EOPNOTSUPP, "a snapshot flag that pools of type lvm do not know");
	ret = lvm_volume_get(p, name, LVM_LIVE, &lv, e);
	if (ret)
		return ret;
	full = lvm_snap_name(name, snap, e);
	ret = full ? 0 : -EINVAL;
	if (!ret && !lvm_lv_get(p, full, 0, &there, NULL)) {
		if (lvm_snap_of(there, name) && !strcmp(there->origin, name))
			ret = lvm_fail(e, -EEXIST, "it has a snapshot %s already", snap);
		else
			ret = lvm_fail(e, -EEXIST, "%s/%s exists already and is no snapshot of it", p->vg, full);
		lvm_lv_free(there);
	}
	if (!ret)
		ret = may_snapshot(p, lv, e);
	lv->layered = !lvm_is_thin(lv);
	if (!ret)
		ret = lvm_lease_why(p, lv, mode, "snapshot", &l, e);
	if (!ret) {
		ret = take(p, lv, full, snap, NULL, e);
		lvm_unlease(p, lv, &l);
	}
	lvm_lv_free(lv);
	return ret;
}

int lvm_snapshot_list(void *pool, const char *name, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	struct lvm_pool *p = pool;
	GPtrArray *list;
	struct lvm_lv *lv;
	int ret = lvm_volume_get(p, name, LVM_LIVE, &lv, e);

	if (ret)
		return ret;
	lvm_lv_free(lv);
	ret = lvm_lvs(p, NULL, 0, &list, e);
	for (guint i = 0; !ret && i < list->len; i++) {
		const struct lvm_lv *s = list->pdata[i];
		const char *snap = lvm_snap_of(s, name);
		struct vh_vol_stat v = {.size = sizeof(v)};

		if (!snap)
			continue;
		lvm_fill_stat(p, s, &v);
		ret = fn(ctx, snap, &v) ? 1 : 0;
	}
	if (list)
		g_ptr_array_unref(list);
	return ret;
}

int lvm_snapshot_remove(void *pool, const char *name, const char *snap, struct vh_job *j, struct vh_err *e)
{
	struct lvm_pool *p = pool;
	struct lvm_lv *s;
	int ret = find_snap(p, name, snap, &s, e);

	if (ret)
		return ret == -ENOENT ? 0 : ret;
	ret = lvm_drop(p, s->name, NULL, e);
	lvm_lv_free(s);
	return ret;
}

/* A thin volume takes the snapshot's place at once. Into a thick one the old blocks are copied back, which the kernel does only
 * while it is active, and lvm waits for: the larger the difference, the longer. */
static int merge(const struct lvm_pool *p, const struct lvm_lv *lv, const char *from, struct vh_job *j, struct vh_err *e)
{
	g_autofree char *origin = g_strdup_printf("%s/%s", p->vg, lv->name);
	struct lvm_pool patient = *p;
	int ret = lvm_is_thin(lv) ? 0 : lvm_run(p, NULL, NULL, NULL, e, "lvchange", "-ay", origin, NULL);

	patient.timeout = MAX(p->timeout, MERGE_NS);
	return ret ? ret : lvm_run(&patient, j, NULL, NULL, e, "lvconvert", "--merge", "--interval", "1", from, NULL);
}

/*
 * lvm's way back uses up the snapshot. So it is taken anew afterwards: the volume is the same as it then. The tag "rollback" on
 * the volume says that this is still to be done, for a call that was cut short and is repeated.
 */
int lvm_snapshot_rollback(void *pool, const char *name, const char *snap, struct vh_job *j, struct vh_err *e)
{
	struct lvm_pool *p = pool;
	g_autofree char *again = NULL, *tag = NULL, *full = lvm_snap_name(name, snap, e), *from = NULL;
	struct lvm_lv *lv, *s = NULL;
	struct lvm_lease l = {.fd = -1};
	int ret = full ? lvm_volume_get(p, name, LVM_LIVE, &lv, e) : -EINVAL;

	if (ret)
		return ret;
	again = lvm_tag_get(lv->tags, LVM_ROLLBACK);
	tag = lvm_tag(LVM_ROLLBACK, snap);
	from = g_strdup_printf("%s/%s", p->vg, full);
	ret = find_snap(p, name, snap, &s, NULL);
	if (ret == -ENOENT && !g_strcmp0(again, snap)) {
		ret = 1; /* it is merged */
	} else if (ret) { /* who uses the volume hears of that first */
		int busy = lvm_lease_why(p, lv, VH_ATTACH_RW_EXCL, "rollback", &l, e);

		if (!busy)
			lvm_unlease(p, lv, &l);
		ret = busy ? busy : find_snap(p, name, snap, &s, e);
	}
	if (!ret) {
		ret = lvm_lease_why(p, lv, VH_ATTACH_RW_EXCL, "rollback", &l, e);
		if (!ret && !again)
			ret = lvm_tag_change(p, name, tag, NULL, e);
		if (!ret || l.fd >= 0)
			lvm_unlease(p, lv, &l); /* lvm merges only what nobody has open */
		if (!ret)
			ret = merge(p, lv, from, j, e);
	}
	if (ret >= 0)
		ret = take(p, lv, full, snap, NULL, e);
	if (!lvm_is_thin(lv))
		lvm_deactivate(p, lv);
	if (!ret)
		ret = lvm_tag_change(p, name, NULL, tag, e);
	lvm_lv_free(s);
	lvm_lv_free(lv);
	return ret;
}

/* What is kept beside the source goes with the clone in the same change of metadata. */
static void copy_tags(const struct lvm_lv *lv, GPtrArray *args, GPtrArray *own)
{
	static const char *const not[] = {LVM_CREATING, LVM_REMOVING, LVM_SNAPSHOT, LVM_CLONE, LVM_FRESH, LVM_ROLLBACK};
	g_auto(GStrv) tags = g_strsplit(lv->tags, ",", 0);

	for (unsigned i = 0; tags[i]; i++) {
		int skip = !g_str_has_prefix(tags[i], "vhost.");

		for (unsigned k = 0; k < G_N_ELEMENTS(not); k++)
			skip |= g_str_has_prefix(tags[i] + (skip ? 0 : 6), not[k]) && !skip;
		if (skip)
			continue;
		g_ptr_array_add(args, (char *)"--addtag");
		g_ptr_array_add(args, tags[i]);
		g_ptr_array_add(own, g_steal_pointer(&tags[i]));
		tags[i] = g_strdup("");
	}
}

int lvm_clone(void *pool, const char *src, const char *snap, const char *dst, uint32_t how, struct vh_job *j, struct vh_err *e)
{
	struct lvm_pool *p = pool;
	g_autoptr(GPtrArray) args = g_ptr_array_new(), own = g_ptr_array_new_with_free_func(g_free);
	g_autofree char *from = NULL, *mark = NULL, *theirs = NULL;
	struct lvm_lv *lv, *s = NULL, *there;
	struct lvm_lease l = {.fd = -1};
	int ret = lvm_name_new_ok(dst, e);

	if (ret)
		return ret;
	ret = lvm_volume_get(p, src, LVM_LIVE, &lv, e);
	if (!ret && snap)
		ret = find_snap(p, src, snap, &s, e);
	if (ret)
		goto out;
	if (!lvm_is_thin(lv)) { /* the host copies */
		ret = lvm_fail(e, -EOPNOTSUPP, "only thin volumes share their blocks with a clone");
		goto out;
	}
	mark = lvm_tag(LVM_CLONE, s ? s->uuid : lv->uuid);
	if (!lvm_lv_get(p, dst, 0, &there, NULL)) {
		theirs = lvm_tag_find(there->tags, LVM_CLONE);
		ret = !g_strcmp0(mark, theirs) ? 1 : lvm_fail(e, -EEXIST, "exists already");
		if (ret < 0)
			lvm_hint(e, "choose another name, or delete it first");
		lvm_lv_free(there);
	}
	if (!ret)
		ret = may_snapshot(p, lv, e);
	if (ret)
		goto out;
	from = g_strdup_printf("%s/%s", p->vg, s ? s->name : src);
	for (const char *const *a = (const char *const[]){"lvcreate", "-s", "-an", "-kn", "-n", dst, "--addtag", mark,
							   NULL}; *a; a++)
		g_ptr_array_add(args, (char *)*a);
	copy_tags(lv, args, own);
	g_ptr_array_add(args, from);
	g_ptr_array_add(args, NULL);
	/* A snapshot does not change; the volume itself might be written to right now. */
	if (!s)
		ret = lvm_lease_why(p, lv, VH_ATTACH_RO, "cloning", &l, e);
	if (!ret)
		ret = lvm_runv(p, NULL, NULL, NULL, e, (const char *const *)args->pdata); /* at once: not to be cut short */
	if (!s && l.fd >= 0)
		lvm_unlease(p, lv, &l);
out:
	lvm_lv_free(lv);
	lvm_lv_free(s);
	return ret > 0 ? 0 : ret;
}
