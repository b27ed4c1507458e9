/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost vol ...: volumes of pools. Their contents come and go in vol-data.c. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cmd/store-cmd.h"
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

static int run_create(struct cmd_ctx *c, struct vh_err *e)
{
	struct store_create s = {.format = vh_opt_str(c->opts, "format", "raw"), .bytes = (uint64_t)vh_opt_num(c->opts, "size", 0),
				 .prealloc = (uint32_t)vh_opt_num(c->opts, "preallocation", 0)};
	g_autofree char *title = NULL;
	struct cmd_volume v;
	struct kvs options;
	struct vh_job j;
	int ret = cmd_volume_open(c->args[0], &v, e);

	if (ret)
		return ret;
	cmd_free_options(c, &options);
	s.name = v.name;
	s.options = &options;
	title = g_strdup_printf("creating %s", v.name);
	job_begin(&j, title, c->quiet || c->json);
	ret = store_vol_create(v.pool, &s, &j, e);
	job_end(&j);
	kvs_clear(&options);
	if (!ret)
		vol_done(c, &v, "created");
	cmd_volume_close(&v);
	return ret;
}

struct listing {
	struct store_pool *pool;
	const char *pool_name;
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
	store_format_get(l->pool, name, r->format, NULL);
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
	g_ptr_array_free(l.rows, TRUE);
	store_pool_close(l.pool);
	return ret < 0 ? ret : 0;
}

static int run_info(struct cmd_ctx *c, struct vh_err *e)
{
	char format[32], path[4096] = "";
	const struct vh_pool_ops *ops;
	struct vh_vol_stat st;
	struct cmd_volume v;
	uint64_t bytes;
	void *pool;
	int ret = cmd_volume_open(c->args[0], &v, e);

	if (ret)
		return ret;
	ret = store_vol_stat(v.pool, v.name, &st, e);
	if (!ret)
		ret = store_format_get(v.pool, v.name, format, e);
	if (ret)
		goto out;
	ops = store_pool_ops(v.pool, &pool);
	if (!ops->path || ops->path(pool, v.name, path, sizeof(path), NULL))
		path[0] = 0;
	path[sizeof(path) - 1] = 0;
	bytes = !strcmp(format, "raw") ? st.bytes : store_disk_bytes(v.pool, v.name, format);
	if (c->json) {
		JsonBuilder *b = json_builder_new();

		json_builder_begin_object(b);
		js_volume(b, v.pool_name, v.name, &st, format);
		js_bytes(b, "disk_bytes", bytes);
		js_bool(b, "in_use", !!(st.flags & VH_STAT_IN_USE));
		js_text(b, "path", path[0] ? path : NULL);
		json_builder_end_object(b);
		out_json(b);
	} else {
		g_autofree char *size = size_text(st.bytes), *alloc = size_text(st.allocated), *disk = size_text(bytes);
		g_autofree char *when = time_text(st.mtime);

		printf("Name:       %s/%s\nFormat:     %s\nDisk size:  %s\nSize:       %s\nAllocated:  %s\n", v.pool_name, v.name,
		       format[0] ? format : "not recorded", disk, size, alloc);
		printf("Modified:   %s\nIn use:     %s\nIdentity:   %s\n", when ? when : "-",
		       st.flags & VH_STAT_IN_USE ? "yes" : "no", st.identity);
		if (path[0])
			printf("Path:       %s\n", path);
	}
out:
	cmd_volume_close(&v);
	return ret;
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

/* A disk inside a format: the format moves its own end, in the image that is opened for it alone. */
static int resize_image(const struct cmd_volume *v, const char *format, const char *size, int shrink, struct vh_err *e)
{
	g_autofree char *name = g_strdup_printf("%s/%s", v->pool_name, v->name);
	g_autofree char *holder = g_strdup_printf("pid %d vhost vol resize", (int)getpid());
	struct kv kv[] = {{(char *)"volume", name}, {(char *)"format", (char *)format}};
	struct kvs spec = {kv, 2};
	struct fmt_info info;
	struct disk *d;
	uint64_t bytes;
	int ret = disk_open(&spec, holder, NULL, NULL, &d, e);

	if (ret)
		return ret;
	fmt_get_info(d->image, &info);
	ret = cmd_size(size, info.bytes, &bytes, e);
	if (!ret && bytes < info.bytes && !shrink) {
		err_remedy(e, "add --shrink; what lies behind the new end is lost");
		ret = err_usage(e, "the disk would become smaller");
	}
	if (!ret)
		ret = fmt_resize(d->image, bytes, e);
	disk_close(d);
	return ret;
}

static int run_resize(struct cmd_ctx *c, struct vh_err *e)
{
	const char *given = vh_opt_str(c->opts, "format", NULL);
	int shrink = (int)vh_opt_num(c->opts, "shrink", 0);
	const struct vh_pool_ops *ops;
	struct vh_vol_stat st;
	struct cmd_volume v;
	char format[32];
	uint64_t bytes;
	struct vh_job j;
	void *pool;
	int ret = cmd_volume_open(c->args[0], &v, e);

	if (ret)
		return ret;
	ret = store_vol_stat(v.pool, v.name, &st, e);
	if (!ret)
		ret = store_format_pick(v.pool, v.name, given, format, e);
	if (ret)
		goto out;
	if (strcmp(format, "raw")) {
		ret = resize_image(&v, format, c->args[1], shrink, e);
		goto out;
	}
	ops = store_pool_ops(v.pool, &pool);
	ret = cmd_size(c->args[1], st.bytes, &bytes, e);
	if (ret)
		goto out;
	if (bytes < st.bytes && !shrink) {
		err_remedy(e, "add --shrink; what lies behind the new end is lost");
		ret = err_usage(e, "the volume would become smaller");
		goto out;
	}
	if (!ops->resize) {
		ret = err_set(e, -EOPNOTSUPP, "this type of pool cannot resize volumes");
		goto out;
	}
	job_begin(&j, "resizing", c->quiet || c->json);
	ret = ops->resize(pool, v.name, bytes, (uint32_t)vh_opt_num(c->opts, "preallocation", 0), &j, e);
	job_end(&j);
out:
	if (ret)
		err_object(e, "volume %s/%s", v.pool_name, v.name);
	else
		vol_done(c, &v, "resized");
	cmd_volume_close(&v);
	return ret;
}

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
		ret = store_vol_clone(from.pool, from.name, dest, to.name, &j, e);
		job_end(&j);
	}
	if (!ret)
		vol_done(c, &to, "created");
	cmd_volume_close(&to);
	cmd_volume_close(&from);
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

static int run_set(struct cmd_ctx *c, struct vh_err *e)
{
	const char *format = vh_opt_str(c->opts, "format", "");
	const struct vh_format_ops *ops;
	struct cmd_volume v;
	int ret = cmd_volume_open(c->args[0], &v, e);

	if (ret)
		return ret;
	ret = plug_format(format, &ops, e);
	if (!ret)
		ret = store_format_set(v.pool, v.name, format, e);
	if (!ret)
		vol_done(c, &v, "changed");
	cmd_volume_close(&v);
	return ret;
}

static const char *const preallocations[] = {"off", "falloc", "full", NULL};
#define PREALLOC                                                                                                       \
	CMD_OPT("preallocation", VH_OPT_ENUM, "off: space as it is written; falloc: reserved now; full: written now",  \
		.defval = "off", .choices = preallocations)
static const struct vh_opt *const create_options[] = {
	CMD_OPT("size", VH_OPT_SIZE, "Size of the disk", .flags = VH_OPT_REQUIRED, .min = 1, .max = INT64_MAX),
	CMD_OPT("format", VH_OPT_STR, "Disk format", .defval = "raw"), PREALLOC, NULL};
static const struct vh_opt *const resize_options[] = {
	CMD_OPT("shrink", VH_OPT_BOOL, "Allow a smaller size: what lies behind it is lost", .defval = "off"),
	CMD_OPT("format", VH_OPT_STR, "The format, where none is recorded"), PREALLOC, NULL};
static const struct vh_opt *const set_options[] = {
	CMD_OPT("format", VH_OPT_STR, "Record this as the volume's format", .flags = VH_OPT_REQUIRED), NULL};

#define VOL(VERB, ARGS, SUMMARY, RUN, ...)                                                                             \
	&(const struct cmd){.noun = "vol", .verb = VERB, .args = ARGS, .summary = SUMMARY, .run = RUN, ##__VA_ARGS__}

const struct cmd *const cmd_vol[] = {
	VOL("list", "[POOL]", "List the volumes of a pool", run_list),
	VOL("info", "POOL/NAME", "Show one volume", run_info),
	VOL("create", "POOL/NAME", "Make a volume", run_create, .options = create_options, .free_options = 1,
	    .help = "The options of the pool type are given as --OPTION VALUE, those of the format as --format.OPTION VALUE.\n"
		    "Making a volume again that is there already, with the same properties, is no error."),
	VOL("delete", "POOL/NAME", "Delete a volume", run_delete),
	VOL("resize", "POOL/NAME SIZE", "Change a volume's size; +SIZE: by that much", run_resize, .options = resize_options),
	VOL("clone", "POOL/NAME [POOL/]NEW", "Make an independent copy of a volume", run_clone),
	VOL("upload", "POOL/NAME FILE", "Write a file (-: standard input) into a volume", vol_run_upload,
	    .options = vol_upload_options,
	    .help = "The volume takes the file's bytes from its beginning; the rest of it becomes zeros. Holes stay holes."),
	VOL("download", "POOL/NAME FILE", "Write a volume's bytes to a file (-: standard output)", vol_run_download,
	    .options = vol_download_options),
	VOL("path", "POOL/NAME", "Print a volume's file or device node", run_path),
	VOL("set", "POOL/NAME", "Record a volume's format", run_set, .options = set_options,
	    .help = "For a file that was put into the pool by other means. Only raw disks are known to be raw by nothing but\n"
		    "the record: a guest can write any format's header into its own disk, so the format is never guessed."),
	NULL};
