/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* An attached volume: the device's descriptor for the host's engine, and its lease. */
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include "lvm.h"

struct lvm_volume {
	struct lvm_pool *pool;
	struct lvm_lv *lv;
	struct lvm_lease lease;
	uint32_t mode;
	int direct, zero_thin;
	uint64_t discard_gran, max_discard, max_zero;
	char serial[32];
};

/* A limit of the device's queue, from sysfs. */
static uint64_t limit(const struct lvm_volume *v, const char *name)
{
	g_autofree char *path = g_strdup_printf("/sys/dev/block/%u:%u/queue/%s", v->lease.dev.major, v->lease.dev.minor, name), *text = NULL;

	return g_file_get_contents(path, &text, NULL, NULL) ? g_ascii_strtoull(text, NULL, 10) : 0;
}

static int volume_info(void *vol, struct vh_volume_info *out)
{
	struct lvm_volume *v = vol;
	struct vh_volume_info i = {.size = out->size, .fd = v->lease.fd};
	unsigned physical = 0, min_io = 0, opt_io = 0;
	int logical = 0;

	if (ioctl(v->lease.fd, BLKGETSIZE64, &i.bytes) < 0 || ioctl(v->lease.fd, BLKSSZGET, &logical) < 0)
		return -errno;
	ioctl(v->lease.fd, BLKPBSZGET, &physical);
	ioctl(v->lease.fd, BLKIOMIN, &min_io);
	ioctl(v->lease.fd, BLKIOOPT, &opt_io);
	i.caps = VH_VOL_WRITE_CACHE | VH_VOL_FLUSH | VH_VOL_FD_BLOCK;
	if (v->mode == VH_ATTACH_RO || v->mode == VH_ATTACH_PEEK)
		i.caps |= VH_VOL_READ_ONLY;
	else
		i.caps |= VH_VOL_ZERO | (v->max_zero ? VH_VOL_FAST_ZERO : 0) | (v->max_discard ? VH_VOL_DISCARD : 0) |
			  (v->max_discard && v->zero_thin ? VH_VOL_DISCARD_ZEROES : 0);
	if (v->mode == VH_ATTACH_RW_EXCL)
		i.caps |= VH_VOL_ZERO_ON_GROW; /* by command; a running VM may not: no VH_VOL_GROW */
	if (v->direct)
		i.caps |= VH_VOL_FD_DIRECT;
	if (v->mode != VH_ATTACH_PEEK)
		i.caps |= VH_VOL_LEASED;
	i.logical_block = (uint32_t)logical;
	i.physical_block = physical;
	i.min_io = min_io;
	i.opt_io = opt_io;
	i.buf_align = i.len_align = v->direct ? (uint32_t)logical : 1;
	i.max_segments = 1024; /* UIO_MAXIOV */
	i.max_bytes = 0x7ffff000;
	i.discard_gran = v->discard_gran;
	memcpy(i.serial, v->serial, sizeof(i.serial));
	snprintf(i.wwid, sizeof(i.wwid), "lvm-%s", v->lv->uuid);
	memcpy(out, &i, i.size < sizeof(i) ? i.size : sizeof(i));
	return 0;
}

static int volume_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	struct lvm_volume *v = vol;
	struct lvm_dev dev;
	struct lvm_lv *lv;
	int ret;

	if (v->mode != VH_ATTACH_RW_EXCL)
		return lvm_fail(e, -EROFS, "%s/%s is not attached for writing alone", v->pool->vg, v->lv->name);
	ret = lvm_dev_find(v->pool, v->lv, &dev);
	if (ret == -EACCES || ret == -EPERM) {
		uint64_t now = 0;

		/* It may have been done from outside already. */
		if (!ioctl(v->lease.fd, BLKGETSIZE64, &now) && now >= bytes)
			return 0;
		lvm_hint(e, "lvextend -L %llub %s/%s, then this again", (unsigned long long)bytes, v->pool->vg, v->lv->name);
		return lvm_fail(e, -EPERM, "a running VM has no right to change the volume group any more");
	}
	ret = lvm_lv_get(v->pool, v->lv->name, 0, &lv, e);
	if (ret)
		return ret;
	if (strcmp(lv->uuid, v->lv->uuid))
		ret = lvm_fail(e, -ESTALE, "%s/%s is another volume by now", v->pool->vg, lv->name);
	else
		ret = lvm_resize_lv(v->pool, lv, v->lease.fd, bytes, 0, NULL, e);
	lvm_lv_free(lv);
	return ret;
}

static void volume_free(struct lvm_volume *v)
{
	lvm_lv_free(v->lv);
	g_free(v);
}

static void volume_close(void *vol)
{
	struct lvm_volume *v = vol;

	/* The host still has the device open, until after this. */
	if (v->lease.activated)
		g_ptr_array_add(v->pool->later, lvm_lv_copy(v->lv));
	v->lease.activated = 0;
	lvm_unlease(v->pool, v->lv, &v->lease);
	volume_free(v);
}

static const struct vh_volume_ops volume_ops = {
	.size = sizeof(volume_ops), .info = volume_info, .resize = volume_resize, .close = volume_close};

/* The same volume's wherever it is; a copy has another one. */
static void make_serial(const struct lvm_lv *lv, char out[32])
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (const unsigned char *c = (const unsigned char *)lv->uuid; *c; c++)
		h = (h ^ *c) * UINT64_C(0x100000001b3);
	snprintf(out, 32, "vh%016llx", (unsigned long long)h);
}

/* What its thin pool means for a volume: zeros or not; and what its user should know before it is too late. */
static void look_at_thin(struct lvm_volume *v)
{
	struct lvm_lv *t;

	if (!lvm_is_thin(v->lv) || lvm_lv_get(v->pool, v->lv->thin, 1, &t, NULL))
		return;
	v->zero_thin = t->zero;
	if (t->data >= 80 || t->meta >= 80)
		lvm_warn("the thin pool %s/%s is full to %.1f%% (metadata %.1f%%): when nothing is left, writers are stopped", v->pool->vg, t->name,
			 t->data, t->meta);
	if (v->mode != VH_ATTACH_RO && v->mode != VH_ATTACH_PEEK && !strcmp(t->when_full, "queue"))
		lvm_warn("the thin pool %s/%s makes writers wait when it is full, for a minute by default, before they see an error: "
			 "lvchange --errorwhenfull y", v->pool->vg, t->name);
	lvm_lv_free(t);
}

int lvm_attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops, struct vh_err *e)
{
	const uint64_t known = VH_ATTACH_BUFFERED;
	struct lvm_pool *p = pool;
	g_autofree char *fresh = NULL;
	struct lvm_volume *v;
	struct lvm_lv *lv;
	int ret;

	if (a->flags & VH_MUST_UNDERSTAND & ~known)
		return lvm_fail(e, -EOPNOTSUPP, "an attach flag that pools of type lvm do not know");
	if (a->mode > VH_ATTACH_PEEK)
		return lvm_fail(e, -EINVAL, "no such attach mode");
	ret = lvm_volume_get(p, a->name, LVM_RECENT, &lv, e);
	if (ret)
		return ret;
	v = g_new0(struct lvm_volume, 1);
	v->pool = p;
	v->lv = lv;
	v->mode = a->mode;
	v->direct = !(a->flags & VH_ATTACH_BUFFERED);
	ret = lvm_lease(p, lv, a->mode, v->direct, a->holder ? a->holder : "an unnamed user", &v->lease, e);
	fresh = ret ? NULL : lvm_tag_find(lv->tags, LVM_FRESH);
	if (fresh && (a->mode == VH_ATTACH_RW_EXCL || a->mode == VH_ATTACH_RW_SHARED)) {
		ret = lvm_tag_change(p, lv->name, NULL, fresh, e);
		if (ret)
			lvm_unlease(p, lv, &v->lease);
	}
	if (ret) {
		volume_free(v);
		return ret;
	}
	look_at_thin(v);
	v->discard_gran = limit(v, "discard_granularity");
	v->max_discard = limit(v, "discard_max_bytes");
	v->max_zero = limit(v, "write_zeroes_max_bytes");
	make_serial(lv, v->serial);
	*vol = v;
	*ops = &volume_ops;
	return 0;
}
