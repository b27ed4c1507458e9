/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost vol ...: volumes of pools. Their contents come and go in vol-data.c. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cmd/image-cmd.h"
#include "cmd/vol.h"

int vol_done(struct cmd_ctx *c, const struct cmd_volume *v, const char *what)
{
	if (c->json) {
		JsonBuilder *b = json_builder_new();

		json_builder_begin_object(b);
		js_text(b, "pool", v->pool_name);
		js_text(b, "name", v->name);
		js_text(b, "result", what);
		json_builder_end_object(b);
		out_json(b);
	} else if (!c->quiet) {
		printf("volume %s/%s %s\n", v->pool_name, v->name, what);
	}
	return 0;
}

struct listing {
	struct store_pool *pool;
	const char *pool_name;
	struct store_formats *formats;
	GPtrArray *rows; /* of struct row */
};
struct row { char *name; struct vh_vol_stat st; char format[32]; };

static void row_free(gpointer r)
{
	g_free(((struct row *)r)->name);
	g_free(r);
}

static int row_cmp(gconstpointer a, gconstpointer b)
{
	return strcmp((*(struct row *const *)a)->name, (*(struct row *const *)b)->name);
}

static int list_one(void *ctx, const char *name, const struct vh_vol_stat *st)
{
	struct listing *l = ctx;
	struct row *r = g_new0(struct row, 1);

	r->name = g_strdup(name);
	memcpy(&r->st, st, MIN(st->size, sizeof(r->st)));
	r->st.identity[sizeof(r->st.identity) - 1] = 0;
	store_formats_get(l->formats, name, &r->st, r->format);
	g_ptr_array_add(l->rows, r);
	return 0;
}

static int run_list(struct cmd_ctx *c, struct vh_err *e)
{
	static const char *const header[] = {"NAME", "FORMAT", "SIZE", "ALLOCATED", "MODIFIED", NULL};
	static const int right[] = {0, 0, 1, 1, 0};
	struct listing l = {.pool_name = c->n_args ? c->args[0] : "default"};
	void *pool;
	int ret = store_pool_open(l.pool_name, &l.pool, e);

	if (ret)
		return ret;
	l.rows = g_ptr_array_new_with_free_func(row_free);
	l.formats = store_formats_new(l.pool);
	ret = store_pool_ops(l.pool, &pool)->list(pool, 1, list_one, &l, e);
	if (ret < 0) {
		err_object(e, "pool %s", l.pool_name);
		goto out;
	}
	g_ptr_array_sort(l.rows, row_cmp);
	if (c->json) {
		JsonBuilder *b = json_builder_new();

		json_builder_begin_object(b);
		js_text(b, "pool", l.pool_name);
		json_builder_set_member_name(b, "volumes");
		json_builder_begin_array(b);
		for (unsigned i = 0; i < l.rows->len; i++) {
			struct row *r = l.rows->pdata[i];

			json_builder_begin_object(b);
			js_volume(b, l.pool_name, r->name, &r->st, r->format);
			json_builder_end_object(b);
		}
		json_builder_end_array(b);
		json_builder_end_object(b);
		out_json(b);
	} else {
		struct out_table *t = out_table_new(header, right);

		for (unsigned i = 0; i < l.rows->len; i++) {
			struct row *r = l.rows->pdata[i];
			g_autofree char *size = size_text(r->st.bytes), *alloc = size_text(r->st.allocated);
			g_autofree char *when = time_text(r->st.mtime);

			out_table_row(t, r->name, r->format[0] ? r->format : "-", size, alloc, when ? when : "-");
		}
		out_table_print(t);
	}
out:
	store_formats_free(l.formats);
	g_ptr_array_free(l.rows, TRUE);
	store_pool_close(l.pool);
	return ret < 0 ? ret : 0;
}

static int run_delete(struct cmd_ctx *c, struct vh_err *e)
{
	struct vh_vol_stat st;
	struct cmd_volume v;
	struct vh_job j;
	int ret = cmd_volume_open(c->args[0], &v, e);

	if (ret)
		return ret;
	/* Pools find deleting twice no error; a person who mistypes a name does. */
	ret = store_vol_stat(v.pool, v.name, &st, e);
	if (ret == -ENOENT && store_pool_ops(v.pool, NULL)->remove)
		store_vol_remove(v.pool, v.name, NULL, NULL); /* what an attempt that was cut short may have left */
	if (!ret) {
		job_begin(&j, "deleting", c->quiet || c->json);
		ret = store_vol_delete(v.pool, v.name, &j, e);
		job_end(&j);
	}
	if (!ret)
		vol_done(c, &v, "deleted");
	cmd_volume_close(&v);
	return ret;
}

static const struct vh_opt *const clone_options[] = {
	CMD_OPT("snapshot", VH_OPT_STR, "Clone this snapshot of the pool, and not the volume as it is"),
	CMD_OPT("cow", VH_OPT_BOOL, "Share what is not changed with the source, which stays needed, where the pool can (`clone-cow`)",
		.defval = "off"), NULL};

static int run_clone(struct cmd_ctx *c, struct vh_err *e)
{
	struct cmd_volume from, to = {0};
	g_autofree char *dst = NULL;
	struct vh_job j;
	int ret = cmd_volume_open(c->args[0], &from, e);

	if (ret)
		return ret;
	/* A bare new name stays in the source's pool. */
	dst = strchr(c->args[1], '/') ? g_strdup(c->args[1]) : g_strdup_printf("%s/%s", from.pool_name, c->args[1]);
	ret = cmd_volume_open(dst, &to, e);
	if (!ret) {
		struct store_pool *dest = strcmp(from.pool_name, to.pool_name) ? to.pool : from.pool;

		job_begin(&j, "cloning", c->quiet || c->json);
		ret = store_vol_clone(from.pool, from.name, vh_opt_str(c->opts, "snapshot", NULL), dest, to.name,
				      vh_opt_num(c->opts, "cow", 0) ? VH_CLONE_COW : VH_CLONE_FULL, &j, e);
		job_end(&j);
	}
	if (!ret)
		vol_done(c, &to, "created");
	cmd_volume_close(&to);
	cmd_volume_close(&from);
	return ret;
}

static int run_flatten(struct cmd_ctx *c, struct vh_err *e)
{
	struct cmd_volume v;
	struct vh_job j;
	int ret = cmd_volume_open(c->args[0], &v, e);

	if (ret)
		return ret;
	job_begin(&j, "flattening", c->quiet || c->json);
	ret = store_vol_flatten(v.pool, v.name, &j, e);
	job_end(&j);
	if (!ret)
		vol_done(c, &v, "flattened");
	cmd_volume_close(&v);
	return ret;
}

static int run_path(struct cmd_ctx *c, struct vh_err *e)
{
	const struct vh_pool_ops *ops;
	char path[4096] = "";
	struct vh_vol_stat st;
	struct cmd_volume v;
	void *pool;
	int ret = cmd_volume_open(c->args[0], &v, e);

	if (ret)
		return ret;
	ops = store_pool_ops(v.pool, &pool);
	ret = store_vol_stat(v.pool, v.name, &st, e);
	if (!ret && !ops->path)
		ret = err_set(e, -EOPNOTSUPP, "volumes of this pool have no path");
	if (!ret)
		ret = ops->path(pool, v.name, path, sizeof(path), e);
	path[sizeof(path) - 1] = 0;
	if (ret) {
		err_object(e, "volume %s/%s", v.pool_name, v.name);
	} else if (c->json) {
		JsonBuilder *b = json_builder_new();

		json_builder_begin_object(b);
		js_text(b, "path", path);
		json_builder_end_object(b);
		out_json(b);
	} else {
		puts(path);
	}
	cmd_volume_close(&v);
	return ret;
}

#define VOL(VERB, ARGS, SUMMARY, RUN, ...)                                                                             \
	&(const struct cmd){.noun = "vol", .verb = VERB, .args = ARGS, .summary = SUMMARY, .run = RUN, ##__VA_ARGS__}

const struct cmd *const cmd_vol[] = {
	VOL("list", "[POOL]", "List the volumes of a pool", run_list),
	VOL("info", "POOL/NAME", "Show one volume and the image in it", img_run_info, .options = img_info_options,
	    .free_options = 1, .letters = IMG_LETTERS),
	VOL("create", "POOL/NAME", "Make a volume", img_run_create, .options = vol_create_options, .free_options = 1,
	    .letters = IMG_CREATE_LETTERS, .help = img_create_help),
	VOL("delete", "POOL/NAME", "Delete a volume", run_delete),
	VOL("resize", "POOL/NAME SIZE", "Change a volume's size; +SIZE, -SIZE: by that much", img_run_resize,
	    .options = vol_resize_options, .free_options = 1, .letters = "f=format"),
	VOL("check", "POOL/NAME", "Look for errors in an image's metadata, and mend them", img_run_check,
	    .options = img_check_options, .free_options = 1, .letters = "f=format p=progress r=repair", .help = img_check_help),
	VOL("snapshot", "ACTION POOL/NAME [SNAPSHOT]", "Make, list, roll back to or delete snapshots of a volume", vol_run_snapshot,
	    .options = vol_snapshot_options, .free_options = 1, .letters = IMG_LETTERS, .help = vol_snapshot_help),
	VOL("rebase", "POOL/NAME", "Change an image's backing image", img_run_rebase, .options = img_rebase_options,
	    .free_options = 1, .letters = "f=format b=backing F=backing-format u=unsafe p=progress", .help = img_rebase_help),
	VOL("commit", "POOL/NAME", "Write an image into its backing image", img_run_commit, .options = img_commit_options,
	    .free_options = 1, .letters = "f=format d=keep p=progress", .help = img_commit_help),
	VOL("map", "POOL/NAME", "Show where the ranges of a disk lie", img_run_map, .options = img_map_options,
	    .free_options = 1, .letters = "f=format s=offset l=length", .help = img_map_help),
	VOL("amend", "POOL/NAME", "Change options of an image's format", img_run_amend, .options = img_amend_options,
	    .free_options = 1, .letters = "f=format o=options p=progress", .help = img_amend_help),
	VOL("convert", "POOL/NAME POOL/NEW", "Copy a disk into a new volume, in any format", img_run_convert,
	    .options = img_convert_options, .free_options = 1, .letters = IMG_CONVERT_LETTERS, .help = img_convert_help),
	VOL("compare", "POOL/NAME POOL/OTHER", "Say whether two volumes hold the same disk", img_run_compare,
	    .options = img_compare_options, .free_options = 1, .letters = IMG_COMPARE_LETTERS, .help = img_compare_help),
	VOL("measure", "[POOL/NAME]", "Say how large an image would be", img_run_measure, .options = img_measure_options,
	    .free_options = 1, .letters = IMG_MEASURE_LETTERS),
	VOL("clone", "POOL/NAME [POOL/]NEW", "Make an independent copy of a volume", run_clone, .options = clone_options),
	VOL("flatten", "POOL/NAME", "Make a clone that shares independent of its source", run_flatten),
	VOL("upload", "POOL/NAME FILE", "Write a file (-: standard input) into a volume", vol_run_upload,
	    .options = vol_upload_options,
	    .help = "The volume takes the file's bytes from its beginning; the rest of it becomes zeros. Holes stay holes."),
	VOL("download", "POOL/NAME FILE", "Write a volume's bytes to a file (-: standard output)", vol_run_download,
	    .options = vol_download_options),
	VOL("bench", "POOL/NAME", "Measure how fast requests are", img_run_bench, .options = img_bench_options, .free_options = 1,
	    .letters = IMG_BENCH_LETTERS),
	VOL("wipe", "POOL/NAME", "Overwrite all of a volume", vol_run_wipe, .options = vol_wipe_options, .help = vol_wipe_help),
	VOL("unlock", "POOL/NAME", "Say who uses a volume, and take its lease away from a holder that is gone", vol_run_unlock,
	    .options = vol_unlock_options, .help = vol_unlock_help),
	VOL("path", "POOL/NAME", "Print a volume's file or device node", run_path),
	VOL("set", "POOL/NAME", "Record a volume's format, or its backing image", img_run_set, .options = img_set_options,
	    .letters = "f=format b=backing", .help = img_set_help),
	NULL};
