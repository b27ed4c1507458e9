/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Making, removing and resizing volumes. What needs more than one change of lvm's metadata is hidden by the tag "creating", which
 * names its maker and goes last; what a dead maker left is removed. The tag "fresh" says that nobody has had the volume for
 * writing since it was made as zeros, so that making it again finds it as it was asked for.
 */
#include <stdio.h>
#include "lvm.h"

LVM_OPT(opt_thin, "thin-pool", VH_OPT_STR, "The thin pool to make it in", .min = 1, .max = 127);
LVM_OPT(opt_thick, "thick", VH_OPT_BOOL, "Not in a thin pool, also where the pool has one", .defval = "off");
LVM_OPT(opt_stripes, "stripes", VH_OPT_INT, "Over how many devices to stripe it", .defval = "1", .min = 1, .max = 128);
LVM_OPT(opt_zero, "zero", VH_OPT_BOOL, "Write zeros over a thick volume: else it has what its blocks had before", .defval = "on");
const struct vh_opt *const lvm_create_options[] = {&opt_thin, &opt_thick, &opt_stripes, &opt_zero, NULL};

int lvm_drop(const struct lvm_pool *p, const char *name, struct vh_job *j, struct vh_err *e)
{
	g_autofree char *full = g_strdup_printf("%s/%s", p->vg, name);

	return lvm_run(p, j, NULL, NULL, e, "lvremove", "-f", full, NULL);
}

int lvm_tag_change(const struct lvm_pool *p, const char *name, const char *add, const char *del, struct vh_err *e)
{
	g_autofree char *full = g_strdup_printf("%s/%s", p->vg, name);
	const char *args[] = {"lvchange", add ? "--addtag" : "--deltag", add ? add : del, full, NULL};

	return lvm_runv(p, NULL, NULL, NULL, e, args);
}

/* 1: it was unfinished, and is gone. -EBUSY: its maker lives. */
static int clean_one(const struct lvm_pool *p, const struct lvm_lv *lv, struct vh_err *e)
{
	g_autofree char *maker = lvm_tag_get(lv->tags, LVM_CREATING);
	int ret;

	if (!maker)
		return 0;
	if (!lvm_maker_gone(maker)) {
		lvm_hint(e, "wait until it is done");
		return lvm_fail(e, -EBUSY, "it is being made by pid %d", atoi(maker));
	}
	ret = lvm_drop(p, lv->name, NULL, e);
	return ret ? ret : 1;
}

void lvm_clean(const struct lvm_pool *p, const GPtrArray *list)
{
	for (guint i = 0; i < list->len; i++)
		clean_one(p, list->pdata[i], NULL);
}

struct layout {
	const char *thin; /* thin pool, NULL: thick */
	unsigned stripes;
	uint64_t bytes; /* in whole extents */
	int zero;       /* it is to be written */
	int zeroed;
};

static int layout_of(const struct lvm_pool *p, const struct lvm_vg *vg, const struct vh_vol_spec *s, struct layout *l, struct vh_err *e)
{
	uint64_t unit;

	l->thin = vh_opt_num(s->opts, "thick", 0) ? NULL : vh_opt_str(s->opts, "thin-pool", p->thin);
	l->stripes = (unsigned)CLAMP(vh_opt_num(s->opts, "stripes", 1), 1, 128);
	l->zero = s->prealloc != VH_PREALLOC_OFF || (!l->thin && vh_opt_num(s->opts, "zero", 1));
	if (l->thin && lvm_name_ok(l->thin, e))
		return -EINVAL;
	if (l->thin && l->stripes > 1) {
		lvm_hint(e, "add --thick on, or leave stripes away: a thin volume lies as its pool does");
		return lvm_fail(e, -EINVAL, "a thin volume has no stripes of its own");
	}
	unit = vg->extent * l->stripes;
	if (s->bytes > INT64_MAX - unit)
		return lvm_fail(e, -EFBIG, "%llu bytes are too many", (unsigned long long)s->bytes);
	l->bytes = MAX((s->bytes + unit - 1) / unit, 1) * unit;
	l->zeroed = l->zero;
	return 0;
}

/* There is a volume of that name: 0 when it is what is asked for. */
static int exists(const struct lvm_lv *lv, const struct layout *l, struct vh_vol_spec *s, struct vh_err *e)
{
	g_autofree char *fresh = lvm_tag_find(lv->tags, LVM_FRESH);
	int striped = !strcmp(lv->layout, "striped");

	if (!lvm_is_volume(lv) || lv->bytes != l->bytes || g_strcmp0(lv->thin[0] ? lv->thin : NULL, l->thin) ||
	    (!l->thin && striped != (l->stripes > 1))) {
		lvm_hint(e, "choose another name, or delete it first");
		return lvm_fail(e, -EEXIST, "exists already, with %llu bytes%s", (unsigned long long)lv->bytes,
				lv->bytes == l->bytes ? " and other properties" : "");
	}
	s->zeroed = fresh != NULL;
	return 0;
}

/* Room enough, and what a thin pool makes of its blocks. */
static int room(const struct lvm_pool *p, const struct lvm_vg *vg, struct layout *l, struct vh_err *e)
{
	struct lvm_lv *t;
	int ret = 0;

	if (!l->thin && l->bytes > vg->free)
		return lvm_fail(e, -ENOSPC, "%llu bytes are needed, the volume group %s has %llu free", (unsigned long long)l->bytes, p->vg,
				(unsigned long long)vg->free);
	if (!l->thin)
		return 0;
	if (lvm_lv_get(p, l->thin, 1, &t, NULL) || !lvm_is_thin_pool(t)) {
		lvm_hint(e, "make it: lvcreate --type thin-pool -n %s -l 90%%FREE --errorwhenfull y %s", l->thin, p->vg);
		return lvm_fail(e, -ENOENT, "there is no thin pool %s in the volume group %s", l->thin, p->vg);
	}
	l->zeroed |= t->zero; /* else the rest of a block that is written to in part has what it had before */
	if (t->data >= 100 || t->meta >= 100) {
		lvm_hint(e, "extend it: lvextend -L +SIZE %s/%s", p->vg, l->thin);
		ret = lvm_fail(e, -ENOSPC, "the thin pool %s is full", l->thin);
	}
	lvm_lv_free(t);
	return ret;
}

static int make(const struct lvm_pool *p, const char *name, const struct layout *l, const char *creating, struct vh_job *j,
		struct vh_err *e)
{
	g_autofree char *size = g_strdup_printf("%llub", (unsigned long long)l->bytes), *stripes = g_strdup_printf("%u", l->stripes);
	const char *args[24] = {"lvcreate", "-n", name, "-y"};
	int n = 4;

	if (l->zeroed) {
		args[n++] = "--addtag";
		args[n++] = "vhost." LVM_FRESH "=1";
	}
	if (creating) {
		args[n++] = "--addtag";
		args[n++] = creating;
	}
	if (l->thin) {
		args[n++] = "-an";
		args[n++] = "-V";
		args[n++] = size;
		args[n++] = "--thinpool";
		args[n++] = l->thin;
	} else {
		/* Its contents are ours to wipe, or asked to be left; lvm looks for nothing in them. */
		args[n++] = "-an";
		args[n++] = "--setautoactivation"; /* which thin ones do not have */
		args[n++] = "n";
		args[n++] = "-Zn";
		args[n++] = "-Wn";
		args[n++] = "-L";
		args[n++] = size;
		if (l->stripes > 1) {
			args[n++] = "-i";
			args[n++] = stripes;
			args[n++] = "-I";
			args[n++] = "64k";
		}
	}
	args[n++] = p->vg;
	return lvm_runv(p, j, NULL, NULL, e, args);
}

static int fill(const struct lvm_pool *p, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct lvm_lease l;
	struct lvm_lv *lv;
	int ret = lvm_lv_get(p, name, 1, &lv, e);

	if (ret)
		return ret;
	ret = lvm_lease_why(p, lv, VH_ATTACH_RW_EXCL, "creating", &l, e);
	if (!ret) {
		ret = lvm_zero(l.fd, 0, lv->bytes, j, e);
		lvm_unlease(p, lv, &l);
	} else {
		lvm_hint(e, "--zero off makes it without");
	}
	lvm_lv_free(lv);
	return ret;
}

/* After a failure: what of it is there goes, if it is ours and not that of somebody who was quicker. */
static void drop_own(const struct lvm_pool *p, const char *name, const char *creating)
{
	struct lvm_lv *lv;

	if (!creating || lvm_lv_get(p, name, 0, &lv, NULL))
		return;
	g_autofree char *tag = lvm_tag_find(lv->tags, LVM_CREATING);
	if (!g_strcmp0(tag, creating))
		lvm_drop(p, name, NULL, NULL);
	lvm_lv_free(lv);
}

int lvm_create(void *pool, struct vh_vol_spec *s, struct vh_job *j, struct vh_err *e)
{
	struct lvm_pool *p = pool;
	g_autofree char *creating = NULL;
	struct lvm_lv *lv = NULL;
	struct layout l = {0};
	struct lvm_vg vg;
	int ret = lvm_name_new_ok(s->name, e);

	if (!ret && s->prealloc > VH_PREALLOC_FULL)
		ret = lvm_fail(e, -EINVAL, "no such way of preallocation");
	if (!ret)
		ret = lvm_vg_get(p, &vg, e);
	if (!ret)
		ret = layout_of(p, &vg, s, &l, e);
	if (ret)
		return ret;
	if (!lvm_lv_get(p, s->name, 0, &lv, NULL)) {
		g_autofree char *removing = lvm_tag_find(lv->tags, LVM_REMOVING);

		ret = clean_one(p, lv, e);
		if (!ret && removing) {
			ret = lvm_remove(p, s->name, j, e);
			ret = ret ? ret : 1;
		}
		if (!ret)
			ret = exists(lv, &l, s, e);
		else if (ret == 1)
			ret = lvm_vg_get(p, &vg, e) ? -EIO : 1; /* what was left took room */
		lvm_lv_free(lv);
		if (ret != 1)
			return ret;
	}
	if (vg.missing) {
		lvm_hint(e, "bring it back, or: vgreduce --removemissing %s", p->vg);
		return lvm_fail(e, -EIO, "a device of the volume group %s is missing", p->vg);
	}
	ret = room(p, &vg, &l, e);
	if (!ret && l.zero) {
		g_autofree char *maker = lvm_maker();

		creating = lvm_tag(LVM_CREATING, maker);
	}
	if (!ret)
		ret = make(p, s->name, &l, creating, creating ? j : NULL, e); /* what has no mark is not cut short */
	if (!ret && creating)
		ret = fill(p, s->name, j, e);
	if (!ret && creating)
		ret = lvm_tag_change(p, s->name, NULL, creating, e);
	if (ret) {
		drop_own(p, s->name, creating);
		return ret;
	}
	s->zeroed = (uint32_t)l.zeroed;
	return 0;
}

/* Snapshots that would go with it, or are known by its name. */
static int has_snapshots(const struct lvm_pool *p, const char *name, struct vh_err *e)
{
	g_autofree char *select = g_strdup_printf("origin=\"%s\"", name);
	GPtrArray *list;
	int ret = lvm_lvs(p, select, 0, &list, e);

	if (ret)
		return ret;
	for (guint i = 0; i < list->len && !ret; i++) {
		const struct lvm_lv *lv = list->pdata[i];
		const char *snap = lvm_snap_of(lv, name);

		if (snap || !lvm_is_thin(lv)) {
			lvm_hint(e, "delete its snapshots first");
			ret = lvm_fail(e, -EBUSY, "it has the snapshot %s", snap ? snap : lv->name);
		}
	}
	g_ptr_array_unref(list);
	return ret;
}

static int wipe(const struct lvm_pool *p, const struct lvm_lv *lv, struct vh_job *j, struct vh_err *e)
{
	g_autofree char *removing = lvm_tag_find(lv->tags, LVM_REMOVING), *fresh = lvm_tag_find(lv->tags, LVM_FRESH);
	struct lvm_lease l;
	int ret = lvm_lease_why(p, lv, VH_ATTACH_RW_EXCL, "deleting", &l, e);

	if (ret)
		return ret;
	if (p->wipe != LVM_WIPE_NONE && !fresh) {
		if (!removing) /* from here on it is what it was no more */
			ret = lvm_tag_change(p, lv->name, "vhost." LVM_REMOVING "=1", NULL, e);
		/* Zeros over a thin volume would take blocks for all of it: given back, they are zeroed when they are used again. */
		if (!ret && (p->wipe == LVM_WIPE_DISCARD || lvm_is_thin(lv)))
			ret = lvm_discard(l.fd, 0, lv->bytes, j, e);
		else if (!ret)
			ret = lvm_zero(l.fd, 0, lv->bytes, j, e);
	}
	lvm_unlease(p, lv, &l);
	return ret;
}

int lvm_remove(void *pool, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct lvm_pool *p = pool;
	struct lvm_dev dev;
	struct lvm_lv *lv;
	int ret = lvm_name_ok(name, e);

	if (ret)
		return ret;
	ret = lvm_lv_get(p, name, 1, &lv, e);
	if (ret == -ENOENT)
		return 0;
	if (ret)
		return ret;
	ret = clean_one(p, lv, e);
	if (!ret && !lvm_is_volume(lv))
		ret = lvm_fail(e, -EINVAL, "%s/%s is no volume of its own", p->vg, name);
	if (!ret)
		ret = has_snapshots(p, name, e);
	/* One that is not active has no users, and lvm removes none that is open. */
	if (!ret && (p->wipe != LVM_WIPE_NONE || lvm_dev_find(p, lv, &dev) != -ENOENT))
		ret = wipe(p, lv, j, e);
	if (!ret)
		ret = lvm_drop(p, name, NULL, e);
	lvm_lv_free(lv);
	return ret > 0 ? 0 : ret;
}

int lvm_resize_lv(const struct lvm_pool *p, const struct lvm_lv *lv, int fd, uint64_t bytes, int prealloc, struct vh_job *j,
		  struct vh_err *e)
{
	g_autofree char *full = g_strdup_printf("%s/%s", p->vg, lv->name), *size = NULL, *fresh = lvm_tag_find(lv->tags, LVM_FRESH);
	uint64_t now, end;
	struct lvm_vg vg;
	int ret = lvm_vg_get(p, &vg, e);

	if (ret)
		return ret;
	if (vg.missing)
		return lvm_fail(e, -EIO, "a device of the volume group %s is missing", p->vg);
	if (bytes > INT64_MAX - vg.extent)
		return lvm_fail(e, -EFBIG, "%llu bytes are too many", (unsigned long long)bytes);
	end = MAX((bytes + vg.extent - 1) / vg.extent, 1) * vg.extent;
	now = lv->bytes;
	if (end == now)
		return 0;
	if (!lvm_is_thin(lv) && end > now && end - now > vg.free)
		return lvm_fail(e, -ENOSPC, "%llu bytes more are needed, the volume group %s has %llu free", (unsigned long long)(end - now),
				p->vg, (unsigned long long)vg.free);
	/* What a thin volume had beyond its end would be there again when it grows. */
	if (end < now && lvm_is_thin(lv))
		ret = lvm_discard(fd, end, now, j, e);
	size = g_strdup_printf("%llub", (unsigned long long)end);
	if (!ret)
		ret = end > now ? lvm_run(p, NULL, NULL, NULL, e, "lvextend", "-L", size, full, NULL) :
				  lvm_run(p, NULL, NULL, NULL, e, "lvreduce", "-f", "-L", size, full, NULL);
	/* What the new blocks had is nobody's business. */
	if (!ret && end > now && (!lvm_is_thin(lv) || prealloc))
		ret = lvm_zero(fd, now, end, j, e);
	return ret;
}

int lvm_resize(void *pool, const char *name, uint64_t bytes, uint32_t prealloc, struct vh_job *j, struct vh_err *e)
{
	struct lvm_pool *p = pool;
	struct lvm_lease l;
	struct lvm_lv *lv;
	int ret;

	if (prealloc > VH_PREALLOC_FULL)
		return lvm_fail(e, -EINVAL, "no such way of preallocation");
	ret = lvm_volume_get(p, name, LVM_LIVE, &lv, e);
	if (ret)
		return ret;
	ret = lvm_lease_why(p, lv, VH_ATTACH_RW_EXCL, "resizing", &l, e);
	if (!ret) {
		ret = lvm_resize_lv(p, lv, l.fd, bytes, prealloc != VH_PREALLOC_OFF, j, e);
		lvm_unlease(p, lv, &l);
	}
	lvm_lv_free(lv);
	return ret;
}
