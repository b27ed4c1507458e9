/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost vol snapshot: the pool's own snapshots where it has them, else the image format's. */
#include <stdio.h>
#include <string.h>
#include "cmd/image-cmd.h"
#include "cmd/vol.h"

static const char *const keepers[] = {"auto", "pool", "format", NULL};
const struct vh_opt *const vol_snapshot_options[] = {
	CMD_OPT("by", VH_OPT_ENUM, "Who keeps the snapshot: the pool, or the image's format", .defval = "auto", .choices = keepers),
	CMD_OPT("force-share", VH_OPT_BOOL, "With create: although a VM is writing; what its guest has not flushed is not in it",
		.defval = "off"),
	CMD_OPT_FORMAT, CMD_OPT_ALLOW, CMD_OPT_PROGRESS, NULL};
const char vol_snapshot_help[] =
	"ACTION is create, list, rollback (or apply) or delete. A pool that has snapshots of its own (`vhost pool capabilities`) keeps them:\n"
	"they cost nothing on the way of I/O, work for any format, and can be cloned (`vol clone --snapshot`). Elsewhere the image's format\n"
	"keeps them inside the image (qcow2). --by chooses where both could. Rolling back makes the disk what it was, and loses what was\n"
	"written since. Of a running VM's disk: `vhost vm snapshot`, which waits for what is under way.";

struct listing { JsonBuilder *b; struct out_table *t; };

static void row(struct listing *l, const char *keeper, const char *id, const char *name, uint64_t bytes, int64_t when, uint64_t vm_state,
		uint64_t vm_clock)
{
	g_autofree char *time = time_text(when), *size = size_text(bytes);

	if (!l->b) {
		out_table_row(l->t, id ? id : "-", name ? name : "-", size, time ? time : "-", keeper);
		return;
	}
	json_builder_begin_object(l->b);
	js_text(l->b, "id", id);
	js_text(l->b, "name", name);
	js_bytes(l->b, "disk_bytes", bytes);
	js_text(l->b, "time", time);
	js_bytes(l->b, "vm_state_bytes", vm_state);
	js_bytes(l->b, "vm_clock_ns", vm_clock);
	js_text(l->b, "kept_by", keeper);
	json_builder_end_object(l->b);
}

static int pool_row(void *ctx, const char *name, const struct vh_vol_stat *st)
{
	row(ctx, "pool", NULL, name, st ? st->bytes : UINT64_MAX, st ? st->mtime : 0, UINT64_MAX, UINT64_MAX);
	return 0;
}

static int format_row(void *ctx, const struct vh_snapshot *s)
{
	row(ctx, "format", s->id, s->name, s->bytes, s->when, s->vm_state, s->clock);
	return 0;
}

/* Those inside the image. must: nobody else keeps any, so that a format that cannot is an error; else it has none. */
static int list_format(struct cmd_ctx *c, const struct cmd_volume *v, int must, struct listing *l, struct vh_err *e)
{
	const struct vh_format_ops *ops;
	struct cmd_image i;
	char format[32];
	int ret = store_format_pick(v->pool, v->name, vh_opt_str(c->opts, "format", NULL), format, NULL);

	if (!must && (ret || plug_format(format, &ops, NULL) || !ops->snapshot_list))
		return 0;
	ret = cmd_image_open(c, v, VH_ATTACH_PEEK, CMD_IMAGE_ALONE, &i, e);
	if (ret)
		return ret;
	ret = fmt_snapshot_list(i.fmt, format_row, l, e);
	cmd_image_close(&i);
	return ret;
}

static int list(struct cmd_ctx *c, const struct cmd_volume *v, int pools, struct vh_err *e)
{
	static const char *const header[] = {"ID", "NAME", "DISK SIZE", "TIME", "KEPT BY", NULL};
	static const int right[] = {0, 0, 1, 0, 0};
	struct listing l = {0};
	int64_t by = vh_opt_num(c->opts, "by", 0);
	struct vh_vol_stat st;
	int ret = store_vol_stat(v->pool, v->name, &st, e);

	if (ret)
		return ret;
	if (!pools)
		by = 2;
	if (c->json) {
		l.b = json_builder_new();
		json_builder_begin_object(l.b);
		js_target(l.b, c, v);
		json_builder_set_member_name(l.b, "snapshots");
		json_builder_begin_array(l.b);
	} else {
		l.t = out_table_new(header, right);
	}
	if (by != 2)
		ret = store_snapshot_list(v->pool, v->name, pool_row, &l, e);
	if (!ret && by != 1)
		ret = list_format(c, v, by == 2, &l, e);
	if (c->json) {
		json_builder_end_array(l.b);
		json_builder_end_object(l.b);
		if (ret)
			g_object_unref(l.b);
		else
			out_json(l.b);
	} else if (ret) {
		out_table_free(l.t);
	} else {
		out_table_print(l.t);
	}
	return ret;
}

static int by_pool(struct cmd_ctx *c, const struct cmd_volume *v, const char *action, const char *name, struct vh_err *e)
{
	const char *what = NULL;
	struct vh_job j;
	int ret;

	job_begin(&j, "working on the snapshot", c->quiet || c->json);
	if (!strcmp(action, "create")) {
		what = "snapshot made";
		ret = store_snapshot_create(v->pool, v->name, name, (int)vh_opt_num(c->opts, "force-share", 0), e);
	} else if (!strcmp(action, "delete")) {
		what = "snapshot deleted";
		ret = store_snapshot_remove(v->pool, v->name, name, &j, e);
	} else {
		what = "snapshot applied";
		ret = store_snapshot_rollback(v->pool, v->name, name, &j, e);
	}
	job_end(&j);
	if (!ret)
		cmd_target_done(c, v, what, NULL, NULL);
	return ret;
}

int vol_run_snapshot(struct cmd_ctx *c, struct vh_err *e)
{
	static const char *const actions[] = {"list", "create", "delete", "rollback", "apply", NULL};
	const char *name = c->n_args - c->n_free > 2 ? c->args[2] : NULL, *action = c->args[0];
	int64_t by = vh_opt_num(c->opts, "by", 0);
	struct cmd_volume v;
	int lists = !strcmp(action, "list"), ret, pools;

	if (!g_strv_contains(actions, action)) {
		err_remedy(e, "create, list, rollback or delete");
		return err_usage(e, "'%s' is nothing to be done with snapshots", action);
	}
	if (lists == !!name)
		return err_usage(e, name ? "list takes no name" : "the snapshot's name is missing");
	ret = cmd_volume_open(c->args[1], &v, e);
	if (ret)
		return ret;
	pools = !!(store_pool_ops(v.pool, NULL)->caps & VH_POOL_SNAPSHOT);
	if (by == 1 && !pools) {
		err_remedy(e, "--by format keeps it inside the image");
		ret = err_set(e, -EOPNOTSUPP, "this type of pool has no snapshots");
	} else if (lists) {
		ret = list(c, &v, pools, e);
	} else if (by != 2 && pools) {
		ret = by_pool(c, &v, action, name, e);
	} else {
		cmd_volume_close(&v);
		return img_run_snapshot(c, e);
	}
	if (ret)
		cmd_target_error(c, &v, ret, e);
	cmd_volume_close(&v);
	return ret;
}
