/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost img: disk images that are files of no pool. Making, resizing and probing them; the table. */
#include <stdio.h>
#include <string.h>
#include "cmd/image-cmd.h"

static const char *const preallocations[] = {"off", "falloc", "full", "metadata", NULL}; /* in the order of VH_PREALLOC_* */
#define PREALLOC                                                                                                       \
	CMD_OPT("preallocation", VH_OPT_ENUM,                                                                          \
		"off: space as it is written; metadata: the format's tables only; falloc: reserved now; full: written now", \
		.defval = "off", .choices = preallocations)
#define CREATE_OPTIONS                                                                                                 \
	CMD_OPT("size", VH_OPT_SIZE, "Size of the disk; with a backing image that one's is the default", .min = 1, .max = INT64_MAX), \
	CMD_OPT("format", VH_OPT_STR, "Disk format", .defval = "raw"), PREALLOC,                                       \
	CMD_OPT("backing", VH_OPT_STR, "The backing image, as the new image is to name it: relative to its folder"),  \
	CMD_OPT("backing-format", VH_OPT_STR, "The format of the backing image, where none is recorded"),              \
	CMD_OPT("backing-unchecked", VH_OPT_BOOL, "Do not open the backing image; its format and a size are needed", .defval = "off"), \
	CMD_OPT("options", VH_OPT_STR, "Options of the format, NAME=VALUE,...", .flags = VH_OPT_REPEAT), CMD_OPT_ALLOW, \
	CMD_OPT_INSECURE, CMD_OPT_PROGRESS
const struct vh_opt *const img_create_options[] = {CREATE_OPTIONS, NULL};
const struct vh_opt *const vol_create_options[] = {CREATE_OPTIONS, NULL};
const char img_create_help[] =
	"Options of the format are given as --format.NAME VALUE, or as -o NAME=VALUE,...; of the pool, as --NAME VALUE.\n"
	"Making again what is there already, with the same properties, is no error. The format is recorded beside the file.";
#define RESIZE_OPTIONS                                                                                                 \
	CMD_OPT("shrink", VH_OPT_BOOL, "Allow a smaller size: what lies behind it is lost", .defval = "off"),          \
	CMD_OPT("format", VH_OPT_STR, "The format, where none is recorded"), PREALLOC
const struct vh_opt *const img_resize_options[] = {RESIZE_OPTIONS, NULL};
const struct vh_opt *const vol_resize_options[] = {
	RESIZE_OPTIONS, CMD_OPT("volume", VH_OPT_BOOL, "The volume itself, and not the disk of the image in it: more room", .defval = "off"),
	NULL};

/* What -o says of things that have options of their own here. */
static int take_special(struct store_create *s, struct kvs *o, struct vh_err *e)
{
	unsigned n = 0;
	int ret = 0;

	for (unsigned i = 0; i < o->n; i++) {
		struct kv kv = o->v[i];

		if (!strcmp(kv.key, "size") && !ret)
			ret = parse_size(kv.value, &s->bytes, e);
		else if (!strcmp(kv.key, "backing-file") && !ret)
			s->backing = g_intern_string(kv.value);
		else if (!strcmp(kv.key, "backing-fmt") && !ret)
			s->backing_format = g_intern_string(kv.value);
		else if (!strcmp(kv.key, "preallocation") && !ret) {
			for (s->prealloc = 0; preallocations[s->prealloc] && strcmp(preallocations[s->prealloc], kv.value); s->prealloc++)
				;
			if (!preallocations[s->prealloc])
				ret = err_usage(e, "preallocation=%s: off, metadata, falloc and full are possible", kv.value);
		} else {
			o->v[n++] = kv;
			continue;
		}
		g_free(kv.key);
		g_free(kv.value);
	}
	o->n = n;
	return ret;
}

/* The pool's options, and the format's with the prefix that store_vol_create() knows them by. */
static int create_options(const struct cmd_ctx *c, struct store_create *s, struct kvs *out, struct vh_err *e)
{
	struct kvs dash;
	int ret = cmd_dash_options(c, &dash, e);

	cmd_free_options(c, out);
	if (!ret)
		ret = take_special(s, &dash, e);
	for (unsigned i = 0; i < dash.n; i++) {
		g_autofree char *key = g_strconcat("format.", dash.v[i].key, NULL);

		kvs_add(out, key, dash.v[i].value);
	}
	kvs_clear(&dash);
	return ret;
}

int img_run_create(struct cmd_ctx *c, struct vh_err *e)
{
	struct store_create s = {.format = vh_opt_str(c->opts, "format", "raw"), .bytes = (uint64_t)vh_opt_num(c->opts, "size", 0),
				 .prealloc = (uint32_t)vh_opt_num(c->opts, "preallocation", 0),
				 .backing = vh_opt_str(c->opts, "backing", NULL),
				 .backing_format = vh_opt_str(c->opts, "backing-format", NULL),
				 .backing_blind = (int)vh_opt_num(c->opts, "backing-unchecked", 0)};
	g_auto(GStrv) allow = store_allow(c->opts);
	g_autofree char *title = NULL;
	struct cmd_volume v;
	struct kvs options;
	struct vh_job j;
	int ret = create_options(c, &s, &options, e);

	if (!ret && c->n_args - c->n_free > 1)
		ret = cmd_size(c->args[1], 0, &s.bytes, e);
	if (!ret && !s.bytes && !s.backing) {
		err_remedy(e, "add --size, or --backing to take that image's");
		ret = err_usage(e, "the size of the disk is missing");
	}
	if (!ret && !s.backing && (s.backing_format || s.backing_blind))
		ret = err_usage(e, "--backing-format and --backing-unchecked go with --backing");
	if (ret || (ret = cmd_target_open(c, c->args[0], 0, &v, e))) {
		kvs_clear(&options);
		return ret;
	}
	s.name = v.name;
	s.options = &options;
	s.allow = (const char *const *)allow;
	title = g_strdup_printf("creating %s", v.name);
	job_begin(&j, title, c->quiet || c->json);
	ret = store_vol_create(v.pool, &s, &j, e);
	job_end(&j);
	kvs_clear(&options);
	if (!ret)
		cmd_target_done(c, &v, "created", NULL, NULL);
	cmd_target_error(c, &v, ret, e);
	cmd_volume_close(&v);
	return ret;
}

static int check_size(const char *size, uint64_t now, int shrink, uint64_t *bytes, struct vh_err *e)
{
	int ret = cmd_size(size, now, bytes, e);

	if (!ret && *bytes < now && !shrink) {
		err_remedy(e, "add --shrink; what lies behind the new end is lost");
		ret = err_usage(e, "the disk would become smaller");
	}
	return ret;
}

/* A disk inside a format: the format moves its own end, in the image that is opened for it alone. */
static int resize_image(struct cmd_ctx *c, const struct cmd_volume *v, uint64_t *bytes, struct vh_err *e)
{
	struct fmt_info info;
	struct cmd_image i;
	int ret = cmd_image_open(c, v, VH_ATTACH_RW_EXCL, 0, &i, e);

	if (ret)
		return ret;
	if (vh_opt_num(c->opts, "preallocation", 0)) {
		err_remedy(e, "leave --preallocation away");
		ret = err_set(e, -EOPNOTSUPP, "what a resized image of format %s gets more is never allocated beforehand",
			      fmt_format_name(i.fmt));
	}
	fmt_get_info(i.fmt, &info);
	if (!ret)
		ret = check_size(c->args[1], info.bytes, (int)vh_opt_num(c->opts, "shrink", 0), bytes, e);
	if (!ret && *bytes > info.bytes) { /* its lease is let go for the time, and the image read anew */
		g_autofree char *format = g_strdup(fmt_format_name(i.fmt));

		cmd_image_close(&i);
		ret = store_vol_room(v->pool, v->name, format, *bytes, NULL, e);
		if (!ret)
			ret = cmd_image_open(c, v, VH_ATTACH_RW_EXCL, 0, &i, e);
		if (ret)
			return ret;
	}
	if (!ret)
		ret = fmt_resize(i.fmt, *bytes, e);
	if (!ret)
		ret = fmt_flush(i.fmt, e);
	cmd_image_close(&i);
	return ret;
}

static void js_disk_bytes(JsonBuilder *b, void *ctx)
{
	js_bytes(b, "disk_bytes", *(uint64_t *)ctx);
}

int img_run_resize(struct cmd_ctx *c, struct vh_err *e)
{
	uint32_t prealloc = (uint32_t)vh_opt_num(c->opts, "preallocation", 0);
	struct vh_vol_stat st;
	struct cmd_volume v;
	char format[32];
	uint64_t bytes;
	struct vh_job j;
	int ret = cmd_target_open(c, c->args[0], 1, &v, e);

	if (ret)
		return ret;
	ret = store_vol_stat(v.pool, v.name, &st, e);
	if (!ret)
		ret = store_format_pick(v.pool, v.name, vh_opt_str(c->opts, "format", NULL), format, e);
	if (ret)
		goto out;
	if (strcmp(format, "raw") && vh_opt_num(c->opts, "volume", 0)) {
		if (vh_opt_num(c->opts, "shrink", 0)) {
			ret = err_usage(e, "a volume that holds an image is never made smaller than that");
			goto out;
		}
	} else if (strcmp(format, "raw")) {
		ret = resize_image(c, &v, &bytes, e);
		goto out;
	}
	ret = check_size(c->args[1], st.bytes, (int)vh_opt_num(c->opts, "shrink", 0), &bytes, e);
	if (!ret && prealloc > VH_PREALLOC_FULL)
		ret = err_usage(e, "a raw disk has no metadata to allocate");
	if (ret)
		goto out;
	job_begin(&j, "resizing", c->quiet || c->json);
	ret = store_vol_resize(v.pool, v.name, bytes, prealloc, &j, e);
	job_end(&j);
out:
	if (ret)
		cmd_target_error(c, &v, ret, e);
	else
		cmd_target_done(c, &v, "resized", js_disk_bytes, &bytes);
	cmd_volume_close(&v);
	return ret;
}

const struct vh_opt *const img_set_options[] = {
	CMD_OPT("format", VH_OPT_STR, "Record this as the format"),
	CMD_OPT("backing", VH_OPT_STR, "Record this as the backing image of a format that keeps no name of it; empty: none"), NULL};
const char img_set_help[] =
	"For a file that came by other means. Only raw disks are known to be raw by nothing but the record: a guest can write any\n"
	"format's header into its own disk, so the format is never guessed.";

int img_run_set(struct cmd_ctx *c, struct vh_err *e)
{
	const char *given = vh_opt_str(c->opts, "format", NULL), *backing = vh_opt_str(c->opts, "backing", NULL);
	const struct vh_format_ops *ops;
	struct cmd_volume v;
	char format[32];
	int ret;

	if (!given && !backing) {
		err_remedy(e, "add --format or --backing");
		return err_usage(e, "there is nothing to be recorded");
	}
	ret = cmd_target_open(c, c->args[0], 1, &v, e);
	if (ret)
		return ret;
	if (given)
		ret = plug_format(given, &ops, e);
	if (!ret && given)
		ret = store_format_set(v.pool, v.name, given, e);
	if (!ret && backing)
		ret = store_format_pick(v.pool, v.name, given, format, e);
	if (!ret && backing)
		ret = store_backing_set(v.pool, v.name, format, *backing ? backing : NULL, e);
	if (!ret)
		cmd_target_done(c, &v, "changed", NULL, NULL);
	cmd_target_error(c, &v, ret, e);
	cmd_volume_close(&v);
	return ret;
}

static int run_probe(struct cmd_ctx *c, struct vh_err *e)
{
	static const char *const header[] = {"FORMAT", "CERTAINTY", NULL};
	static const int right[] = {0, 1};
	struct cmd_volume v;
	struct probe p;
	int ret = cmd_target_open(c, c->args[0], 1, &v, e);

	if (ret)
		return ret;
	ret = image_probe(&v, &p, e);
	if (ret) {
		cmd_target_error(c, &v, ret, e);
	} else if (c->json) {
		JsonBuilder *b = json_builder_new();

		json_builder_begin_object(b);
		js_target(b, c, &v);
		js_text(b, "format", p.ambiguous || !p.n ? NULL : p.hit[0].format);
		js_bool(b, "ambiguous", p.ambiguous);
		json_builder_set_member_name(b, "formats");
		json_builder_begin_array(b);
		for (unsigned i = 0; i < p.n; i++) {
			json_builder_begin_object(b);
			js_text(b, "format", p.hit[i].format);
			json_builder_set_member_name(b, "certainty");
			json_builder_add_int_value(b, p.hit[i].certainty);
			json_builder_end_object(b);
		}
		json_builder_end_array(b);
		json_builder_end_object(b);
		out_json(b);
	} else {
		struct out_table *t = out_table_new(header, right);

		for (unsigned i = 0; i < p.n; i++) {
			g_autofree char *sure = g_strdup_printf("%d", p.hit[i].certainty);

			out_table_row(t, p.hit[i].format, sure);
		}
		out_table_print(t);
		if (p.ambiguous)
			printf("This file is valid as more than one format: somebody may have made it so on purpose.\n");
	}
	cmd_volume_close(&v);
	return ret;
}

#define IMG(VERB, ARGS, SUMMARY, RUN, ...)                                                                             \
	&(const struct cmd){.noun = "img", .verb = VERB, .args = ARGS, .summary = SUMMARY, .run = RUN, ##__VA_ARGS__}

const struct cmd *const cmd_img[] = {
	IMG("create", "FILE [SIZE]", "Make an image", img_run_create, .options = img_create_options, .free_options = 1,
	    .letters = IMG_CREATE_LETTERS, .help = img_create_help),
	IMG("info", "FILE", "Show what an image is, also one that is in use", img_run_info, .options = img_info_options,
	    .free_options = 1, .letters = IMG_LETTERS, .help = img_info_help),
	IMG("check", "FILE", "Look for errors in an image's metadata, and mend them", img_run_check, .options = img_check_options,
	    .free_options = 1, .letters = "f=format p=progress r=repair", .help = img_check_help),
	IMG("resize", "FILE SIZE", "Change the size of an image's disk; +SIZE, -SIZE: by that much", img_run_resize,
	    .options = img_resize_options, .free_options = 1, .letters = "f=format"),
	IMG("snapshot", "ACTION FILE [NAME]", "Make, list, apply or delete an image's internal snapshots", img_run_snapshot,
	    .options = img_snapshot_options, .free_options = 1, .letters = IMG_LETTERS, .help = img_snapshot_help),
	IMG("rebase", "FILE", "Change an image's backing image", img_run_rebase, .options = img_rebase_options,
	    .free_options = 1, .letters = "f=format b=backing F=backing-format u=unsafe p=progress", .help = img_rebase_help),
	IMG("commit", "FILE", "Write an image into its backing image", img_run_commit, .options = img_commit_options,
	    .free_options = 1, .letters = "f=format d=keep p=progress", .help = img_commit_help),
	IMG("map", "FILE", "Show where the ranges of a disk lie", img_run_map, .options = img_map_options, .free_options = 1,
	    .letters = "f=format s=offset l=length", .help = img_map_help),
	IMG("amend", "FILE", "Change options of an image's format", img_run_amend, .options = img_amend_options,
	    .free_options = 1, .letters = "f=format o=options p=progress", .help = img_amend_help),
	IMG("set", "FILE", "Record an image's format, or its backing image", img_run_set, .options = img_set_options,
	    .letters = "f=format b=backing", .help = img_set_help),
	IMG("convert", "SOURCE TARGET", "Copy a disk into a new image of any format", img_run_convert,
	    .options = img_convert_options, .free_options = 1, .letters = IMG_CONVERT_LETTERS, .help = img_convert_help),
	IMG("compare", "FILE OTHER", "Say whether two images hold the same disk", img_run_compare,
	    .options = img_compare_options, .free_options = 1, .letters = IMG_COMPARE_LETTERS, .help = img_compare_help),
	IMG("dd", "SOURCE TARGET", "Copy a part of a disk into a new image", img_run_dd, .options = img_dd_options,
	    .free_options = 1, .letters = "f=source-format O=format o=options U=force-share"),
	IMG("measure", "[SOURCE]", "Say how large an image would be", img_run_measure, .options = img_measure_options,
	    .free_options = 1, .letters = IMG_MEASURE_LETTERS),
	IMG("bench", "FILE", "Measure how fast requests are", img_run_bench, .options = img_bench_options, .free_options = 1,
	    .letters = IMG_BENCH_LETTERS),
	IMG("probe", "FILE", "Say which formats a file could be", run_probe,
	    .help = "Only this command and `img info` look at contents to tell a format, and nothing else relies on it: a guest can\n"
		    "write any format's header into its own disk."),
	NULL};
