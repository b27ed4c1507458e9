/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What can be done to a disk while its guest runs: snapshots, more size. Each holds the guest's requests for the moment. */
#include <glib.h>
#include <string.h>
#include "mach/mach-i.h"

int mach_disk_find(struct mach *m, const char *name, struct disk **out, struct vh_err *e)
{
	GString *all = g_string_new(NULL);
	char *end;
	guint64 at;

	if (m->state == MACH_STOPPED) {
		g_string_free(all, TRUE);
		return err_set(e, -ESHUTDOWN, "the machine is down");
	}
	*out = NULL;
	for (unsigned i = 0; i < m->n_disks && !*out; i++)
		if (!strcmp(m->disks[i]->label, name))
			*out = m->disks[i];
	for (unsigned i = 0; i < m->n_disks && !*out; i++)
		if (m->disks[i]->serial[0] && !strcmp(m->disks[i]->serial, name))
			*out = m->disks[i];
	at = g_ascii_strtoull(name, &end, 10);
	if (!*out && *name && !*end && at < m->n_disks)
		*out = m->disks[at];
	for (unsigned i = 0; i < m->n_disks && !*out; i++)
		g_string_append_printf(all, "%s%s", i ? ", " : "", m->disks[i]->label);
	if (!*out) {
		err_set(e, -ENOENT, "there is no disk %s", name);
		err_remedy(e, all->len ? "its disks: %s" : "it has no disks%s", all->str);
	}
	g_string_free(all, TRUE);
	return *out ? 0 : -ENOENT;
}

static int about(const struct disk *d, int ret, struct vh_err *e)
{
	if (ret < 0)
		err_object(e, "disk %s", d->label);
	return ret;
}

int mach_snapshot_create(struct mach *m, struct disk *d, const char *name, struct vh_err *e)
{
	return about(d, *name ? fmt_snapshot_create(d->image, name, e) : err_set(e, -EINVAL, "the snapshot's name is empty"), e);
}

int mach_snapshot_list(struct mach *m, struct disk *d, vh_snapshot_fn *fn, void *ctx, struct vh_err *e)
{
	return about(d, fmt_snapshot_list(d->image, fn, ctx, e), e);
}

int mach_snapshot_remove(struct mach *m, struct disk *d, const char *name, struct vh_err *e)
{
	return about(d, fmt_snapshot_remove(d->image, name, NULL, e), e);
}

int mach_resize_disk(struct mach *m, struct disk *d, uint64_t bytes, struct vh_err *e)
{
	struct fmt_info info;
	int ret = 0;

	fmt_get_info(d->image, &info);
	if (bytes < info.bytes) {
		err_remedy(e, "stop it, then: vhost vol resize --shrink");
		ret = err_set(e, -EBUSY, "a disk does not shrink under a guest that runs");
	} else if (bytes % info.logical_block) {
		ret = err_set(e, -EINVAL, "%llu bytes are no multiple of the disk's sectors of %u bytes", (unsigned long long)bytes,
			      info.logical_block);
	}
	if (!ret)
		ret = fmt_resize(d->image, bytes, e);
	if (!ret)
		ret = fmt_flush(d->image, e); /* the new size is durable when the answer comes */
	return about(d, ret, e);
}
