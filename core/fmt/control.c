/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What the commands ask of a format: resizing, checking, snapshots, options, backing image. Each call runs on the drained and
 * flushed image, so that the plugin sees no request in flight and nothing in memory that the file lacks; guests' requests
 * wait. What such a call changed reaches the queues when the drain ends: info is asked again, caches are dropped.
 */
#include "fmt/impl.h"

static int absent(const struct fmt_layer *l, const char *what, struct vh_err *e)
{
	return err_set(e, -EOPNOTSUPP, "images of format %s %s", l->ops->name, what);
}

/* Whether the image may be changed at all. `what`: NULL, or why the format cannot. */
static int may_change(struct fmt_image *i, const char *what, struct vh_err *e)
{
	struct fmt_layer *l = i->layers[0];

	if (what)
		return absent(l, what, e);
	if (i->read_only)
		return err_set(e, -EROFS, "image %s is read-only", i->label);
	if (load_relaxed(&l->faulted))
		return err_set(e, -EIO, "image %s is faulted: the plugin of format %s broke its contract", i->label, l->ops->name);
	return 0;
}

static int begin(struct fmt_image *i, struct vh_err *e)
{
	int r;

	fmt_drain_begin(i);
	r = chain_flush(i, e);
	if (r < 0)
		fmt_drain_end(i);
	return r;
}

static void tell_size(struct fmt_image *i)
{
	void (*fn)(void *ctx, uint64_t bytes);
	void *ctx;

	pthread_mutex_lock(&i->lock);
	fn = i->listener;
	ctx = i->listener_ctx;
	pthread_mutex_unlock(&i->lock);
	if (fn)
		fn(ctx, load_relaxed(&i->bytes));
}

/* Ends what begin() began. What the call wrote is durable when this returns 0; a new size is told. */
static int end(struct fmt_image *i, int r, uint64_t was, const char *verb, struct vh_err *e)
{
	if (r > 0) {
		layer_fault(i->layers[0], "a control call returned a positive number");
		r = -EIO;
	}
	if (r == 0)
		r = chain_flush(i, e);
	fmt_drain_end(i);
	if (load_relaxed(&i->bytes) != was)
		tell_size(i);
	return r < 0 ? err_set(e, r, "cannot %s image %s", verb, i->label) : 0;
}

int fmt_resize(struct fmt_image *i, uint64_t bytes, struct vh_err *e)
{
	struct fmt_layer *l = i->layers[0];
	int r = may_change(i, l->ops->resize ? NULL : "cannot change their size", e);

	if (r < 0)
		return r;
	fmt_drain_begin(i);
	r = l->ops->resize(l->img, bytes, NULL, e);
	if (r > 0)
		r = -EIO;
	fmt_drain_end(i);
	if (r < 0)
		return err_set(e, r, "cannot resize image %s", i->label);
	tell_size(i);
	return 0;
}

int fmt_check(struct fmt_image *i, int repair, vh_check_fn *fn, void *ctx, struct vh_job *j, struct vh_err *e)
{
	struct fmt_layer *l = i->layers[0];
	int r;

	if (!l->ops->check)
		return absent(l, "cannot be checked", e);
	if (repair && i->read_only)
		return err_set(e, -EROFS, "image %s is read-only", i->label);
	fmt_drain_begin(i);
	r = l->ops->check(l->img, (uint32_t)repair, fn, ctx, j, e);
	fmt_drain_end(i);
	return r > 0 ? -EIO : r;
}

const char *fmt_format_name(const struct fmt_image *i)
{
	return i->layers[0]->ops->name;
}

const struct vh_format_ops *fmt_format_ops(const struct fmt_image *i)
{
	return i->layers[0]->ops;
}

int fmt_describe(struct fmt_image *i, vh_describe_fn *fn, void *ctx, struct vh_err *e)
{
	struct fmt_layer *l = i->layers[0];
	int r = l->ops->describe ? l->ops->describe(l->img, fn, ctx) : 0;

	return r < 0 ? err_set(e, r, "format %s says nothing of image %s", l->ops->name, i->label) : 0;
}

int fmt_amend(struct fmt_image *i, const struct vh_opts *o, struct vh_job *j, struct vh_err *e)
{
	struct fmt_layer *l = i->layers[0];
	uint64_t was = load_relaxed(&i->bytes);
	int r = may_change(i, l->ops->amend ? NULL : "have no options that can be changed", e);

	if (r >= 0)
		r = begin(i, e);
	return r < 0 ? r : end(i, l->ops->amend(l->img, o, j, e), was, "amend", e);
}

int fmt_set_backing(struct fmt_image *i, const char *name, const char *format, uint64_t bytes, struct blk_vol *volume,
		    struct vh_err *e)
{
	struct fmt_layer *l = i->layers[0];
	struct vh_meta meta = {volume, 1};
	uint64_t was = load_relaxed(&i->bytes);
	int r = may_change(i, l->ops->set_backing ? NULL : "cannot change their backing image", e);

	if (r >= 0)
		r = begin(i, e);
	if (r < 0)
		return r;
	return end(i, l->ops->set_backing(l->img, name, format, bytes, volume ? &meta : NULL, e), was,
		   "change the backing image of", e);
}

int fmt_empty(struct fmt_image *i, struct vh_job *j, struct vh_err *e)
{
	struct fmt_layer *l = i->layers[0];
	uint64_t was = load_relaxed(&i->bytes);
	int r = may_change(i, l->ops->empty ? NULL : "cannot be emptied", e);

	if (r >= 0)
		r = begin(i, e);
	return r < 0 ? r : end(i, l->ops->empty(l->img, j, e), was, "empty", e);
}

#define NO_SNAPSHOTS "have no snapshots of their own"

int fmt_snapshot_create(struct fmt_image *i, const char *name, struct vh_err *e)
{
	struct fmt_layer *l = i->layers[0];
	uint64_t was = load_relaxed(&i->bytes);
	int r = may_change(i, l->ops->snapshot_create ? NULL : NO_SNAPSHOTS, e);

	if (r >= 0)
		r = begin(i, e);
	return r < 0 ? r : end(i, l->ops->snapshot_create(l->img, name, e), was, "make a snapshot of", e);
}

int fmt_snapshot_list(struct fmt_image *i, vh_snapshot_fn *fn, void *ctx, struct vh_err *e)
{
	struct fmt_layer *l = i->layers[0];
	int r;

	if (!l->ops->snapshot_list)
		return absent(l, NO_SNAPSHOTS, e);
	fmt_drain_begin(i);
	r = l->ops->snapshot_list(l->img, fn, ctx, e);
	fmt_drain_end(i);
	return r < 0 ? err_set(e, r, "cannot list the snapshots of image %s", i->label) : r;
}

int fmt_snapshot_apply(struct fmt_image *i, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct fmt_layer *l = i->layers[0];
	uint64_t was = load_relaxed(&i->bytes);
	int r = may_change(i, l->ops->snapshot_apply ? NULL : NO_SNAPSHOTS, e);

	if (r >= 0)
		r = begin(i, e);
	return r < 0 ? r : end(i, l->ops->snapshot_apply(l->img, name, j, e), was, "apply a snapshot to", e);
}

int fmt_snapshot_remove(struct fmt_image *i, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct fmt_layer *l = i->layers[0];
	uint64_t was = load_relaxed(&i->bytes);
	int r = may_change(i, l->ops->snapshot_remove ? NULL : NO_SNAPSHOTS, e);

	if (r >= 0)
		r = begin(i, e);
	return r < 0 ? r : end(i, l->ops->snapshot_remove(l->img, name, j, e), was, "remove a snapshot of", e);
}

uint32_t fmt_layers(const struct fmt_image *i)
{
	return i->nlayers;
}

int fmt_layer_get(const struct fmt_image *i, uint32_t depth, struct fmt_layer_info *out)
{
	const struct fmt_layer *l;

	memset(out, 0, sizeof(*out));
	if (depth >= i->nlayers)
		return -ENOENT;
	l = i->layers[depth];
	out->label = depth ? blk_vol_label(l->vols[0]) : i->label;
	out->format = l->ops->name;
	out->bytes = l->info.bytes;
	out->backing_bytes = l->info.backing_bytes;
	out->volume_bytes = blk_vol_bytes(l->vols[0]);
	out->end = l->info.end;
	out->caps = l->info.caps;
	out->unit = l->info.unit;
	out->volumes = l->nvols;
	out->volume = l->vols[0];
	return 0;
}
