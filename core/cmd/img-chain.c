/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost img snapshot, rebase and commit. */
#include <stdio.h>
#include <string.h>
#include "cmd/image-cmd.h"

const struct vh_opt *const img_snapshot_options[] = {CMD_OPT_FORMAT, CMD_OPT_ALLOW, CMD_OPT_PROGRESS, NULL};
const char img_snapshot_help[] =
	"ACTION is create, list, apply or delete. Snapshots are kept in the image; apply makes the disk what it was, and loses what\n"
	"was written since. Of a VM that runs: vhost vm snapshot.";

static int js_snap(void *ctx, const struct vh_snapshot *s)
{
	js_snapshot(ctx, s->id, s->name, s->bytes, s->when, s->vm_state, s->clock);
	return 0;
}

static int row_snap(void *ctx, const struct vh_snapshot *s)
{
	g_autofree char *when = time_text(s->when), *bytes = size_text(s->bytes), *state = size_text(s->vm_state);

	out_table_row(ctx, s->id ? s->id : "-", s->name ? s->name : "-", bytes, when ? when : "-", state);
	return 0;
}

static int list(struct cmd_ctx *c, const struct cmd_volume *v, struct fmt_image *i, struct vh_err *e)
{
	static const char *const header[] = {"ID", "NAME", "DISK SIZE", "TIME", "VM STATE", NULL};
	static const int right[] = {0, 0, 1, 0, 1};
	struct out_table *t;
	JsonBuilder *b;
	int ret;

	if (!c->json) {
		t = out_table_new(header, right);
		ret = fmt_snapshot_list(i, row_snap, t, e);
		out_table_print(t);
		return ret;
	}
	b = json_builder_new();
	json_builder_begin_object(b);
	js_target(b, c, v);
	json_builder_set_member_name(b, "snapshots");
	json_builder_begin_array(b);
	ret = fmt_snapshot_list(i, js_snap, b, e);
	json_builder_end_array(b);
	json_builder_end_object(b);
	if (ret)
		g_object_unref(b);
	else
		out_json(b);
	return ret;
}

int img_run_snapshot(struct cmd_ctx *c, struct vh_err *e)
{
	static const char *const actions[] = {"list", "create", "apply", "delete", "rollback", NULL};
	static const char *const done[] = {NULL, "snapshot made", "snapshot applied", "snapshot deleted", "snapshot applied"};
	const char *name = c->n_args - c->n_free > 2 ? c->args[2] : NULL;
	struct cmd_volume v;
	struct cmd_image i;
	unsigned what = 0;
	struct vh_job j;
	int ret;

	while (actions[what] && strcmp(actions[what], c->args[0]))
		what++;
	if (!actions[what]) {
		err_remedy(e, "create, list, rollback (or apply) or delete");
		return err_usage(e, "'%s' is nothing to be done with snapshots", c->args[0]);
	}
	if (!what == !!name)
		return err_usage(e, name ? "list takes no name" : "the snapshot's name is missing");
	if (name && !*name)
		return err_usage(e, "the snapshot's name is empty");
	ret = cmd_target_open(c, c->args[1], 1, &v, e);
	if (ret)
		return ret;
	/* Listing needs no lease: what is in use can be listed as well. Snapshots are of this image alone. */
	ret = cmd_image_open(c, &v, what ? VH_ATTACH_RW_EXCL : VH_ATTACH_PEEK, what ? 0 : CMD_IMAGE_ALONE, &i, e);
	if (!ret) {
		job_begin(&j, "working on the snapshot", c->quiet || c->json);
		ret = what == 0 ? list(c, &v, i.fmt, e) : what == 1 ? fmt_snapshot_create(i.fmt, name, e) :
		      what != 3 ? fmt_snapshot_apply(i.fmt, name, &j, e) : fmt_snapshot_remove(i.fmt, name, &j, e);
		job_end(&j);
		cmd_image_close(&i);
	}
	if (!ret && what)
		cmd_target_done(c, &v, done[what], NULL, NULL);
	cmd_target_error(c, &v, ret, e);
	cmd_volume_close(&v);
	return ret;
}

/* ---- rebase, commit ---- */

const struct vh_opt *const img_rebase_options[] = {
	CMD_OPT_FORMAT,
	CMD_OPT("backing", VH_OPT_STR, "The new backing image, as the image is to name it; empty: none", .flags = VH_OPT_REQUIRED),
	CMD_OPT("backing-format", VH_OPT_STR, "Its format, where none is recorded"),
	CMD_OPT("unsafe", VH_OPT_BOOL, "Change only the name: for a backing image that was moved or renamed", .defval = "off"),
	CMD_OPT_ALLOW, CMD_OPT_PROGRESS, NULL};
const char img_rebase_help[] =
	"What would read otherwise through the new backing image is copied into the image first, so that its contents stay. It may be\n"
	"interrupted at any point and run again.";

static void js_copied(JsonBuilder *b, void *ctx)
{
	js_bytes(b, "copied_bytes", *(uint64_t *)ctx);
}

int img_run_rebase(struct cmd_ctx *c, struct vh_err *e)
{
	const char *backing = vh_opt_str(c->opts, "backing", "");
	g_auto(GStrv) allow = store_allow(c->opts);
	struct store_rebase s = {.format = vh_opt_str(c->opts, "format", NULL), .backing = *backing ? backing : NULL,
				 .backing_format = vh_opt_str(c->opts, "backing-format", NULL), .allow = (const char *const *)allow,
				 .unsafe = (int)vh_opt_num(c->opts, "unsafe", 0)};
	struct kvs free, open;
	struct cmd_volume v;
	uint64_t copied;
	struct vh_job j;
	int ret = cmd_target_open(c, c->args[0], 1, &v, e);

	if (ret)
		return ret;
	cmd_free_options(c, &free);
	kvs_with_prefix(&free, "format.", &open);
	s.pool = v.pool;
	s.volume = v.name;
	s.options = &open;
	job_begin(&j, "rebasing", c->quiet || c->json);
	ret = store_rebase(&s, &copied, &j, e);
	job_end(&j);
	if (!ret)
		cmd_target_done(c, &v, "rebased", js_copied, &copied);
	cmd_target_error(c, &v, ret, e);
	g_free(open.v);
	kvs_clear(&free);
	cmd_volume_close(&v);
	return ret;
}

const struct vh_opt *const img_commit_options[] = {
	CMD_OPT_FORMAT, CMD_OPT("keep", VH_OPT_BOOL, "Leave the image as it is; without this it is emptied", .defval = "off"),
	CMD_OPT_ALLOW, CMD_OPT_PROGRESS, NULL};
const char img_commit_help[] =
	"Writes what the image has of its own into its backing image, which grows where it is shorter; then empties the image, where\n"
	"its format can. It may be interrupted at any point and run again. Other images over the same backing image see other\n"
	"contents afterwards.";

struct committed { uint64_t copied; int emptied; };

static void js_committed(JsonBuilder *b, void *ctx)
{
	struct committed *d = ctx;

	js_bytes(b, "copied_bytes", d->copied);
	js_bool(b, "emptied", d->emptied);
}

int img_run_commit(struct cmd_ctx *c, struct vh_err *e)
{
	g_auto(GStrv) allow = store_allow(c->opts);
	struct store_commit s = {.format = vh_opt_str(c->opts, "format", NULL), .allow = (const char *const *)allow,
				 .keep = (int)vh_opt_num(c->opts, "keep", 0)};
	struct committed d = {0};
	struct kvs free, open;
	struct cmd_volume v;
	struct vh_job j;
	int ret = cmd_target_open(c, c->args[0], 1, &v, e);

	if (ret)
		return ret;
	cmd_free_options(c, &free);
	kvs_with_prefix(&free, "format.", &open);
	s.pool = v.pool;
	s.volume = v.name;
	s.options = &open;
	job_begin(&j, "committing", c->quiet || c->json);
	ret = store_commit(&s, &d.copied, &d.emptied, &j, e);
	job_end(&j);
	if (!ret)
		cmd_target_done(c, &v, d.emptied || s.keep ? "committed" : "committed; it could not be emptied", js_committed, &d);
	cmd_target_error(c, &v, ret, e);
	g_free(open.v);
	kvs_clear(&free);
	cmd_volume_close(&v);
	return ret;
}
