/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost img check, map and amend. */
#include <stdio.h>
#include <string.h>
#include "cmd/image-cmd.h"

static const char *const repairs[] = {"leaks", "all", NULL};
const struct vh_opt *const img_check_options[] = {
	CMD_OPT_FORMAT, CMD_OPT("repair", VH_OPT_ENUM, "leaks: give back what is lost; all: mend everything, which may drop data",
				.choices = repairs),
	CMD_OPT_ALLOW, CMD_OPT_PROGRESS, NULL};
const char img_check_help[] =
	"Exit status: 0 clean, or all mended; 12 damaged; 13 only space is lost; 1 it could not be checked. (qemu-img check: 0, 2, 3\n"
	"and 1.)";

#define SHOWN 1000u /* findings that are told one by one */

struct findings {
	uint64_t leaks, corrupt, fixed;
	GArray *list;
};
struct finding { uint32_t what; uint64_t off; char *text; };

static const char *word(uint32_t what)
{
	return what == VH_CHECK_LEAK ? "leak" : what == VH_CHECK_CORRUPT ? "corrupt" : "fixed";
}

static void found(void *ctx, uint32_t what, uint64_t off, const char *text)
{
	struct findings *f = ctx;
	struct finding one = {what, off, NULL};

	f->leaks += what == VH_CHECK_LEAK;
	f->corrupt += what == VH_CHECK_CORRUPT;
	f->fixed += what == VH_CHECK_FIXED;
	if (f->list->len >= SHOWN)
		return;
	one.text = g_utf8_make_valid(text ? text : "", -1);
	g_array_append_val(f->list, one);
}

static void finding_clear(void *p)
{
	g_free(((struct finding *)p)->text);
}

static void report(const struct cmd_ctx *c, const struct cmd_volume *v, const struct findings *f, uint64_t leaks, uint64_t corrupt)
{
	const char *result = corrupt ? "damaged" : leaks ? "leaks" : "clean";
	g_autofree char *path = g_strdup_printf("%s/%s", v->pool_name, v->name);

	if (c->json) {
		JsonBuilder *b = json_builder_new();

		json_builder_begin_object(b);
		js_target(b, c, v);
		js_text(b, "result", result);
		js_bytes(b, "corruptions", corrupt);
		js_bytes(b, "leaks", leaks);
		js_bytes(b, "fixed", f->fixed);
		json_builder_set_member_name(b, "findings");
		json_builder_begin_array(b);
		for (guint k = 0; k < f->list->len; k++) {
			struct finding *one = &g_array_index(f->list, struct finding, k);

			json_builder_begin_object(b);
			js_text(b, "kind", word(one->what));
			js_bytes(b, "offset", one->off);
			js_text(b, "text", one->text);
			json_builder_end_object(b);
		}
		json_builder_end_array(b);
		js_bool(b, "findings_complete", f->leaks + f->corrupt + f->fixed <= SHOWN);
		json_builder_end_object(b);
		out_json(b);
		return;
	}
	for (guint k = 0; k < f->list->len; k++) {
		struct finding *one = &g_array_index(f->list, struct finding, k);

		printf("%s at %llu: %s\n", word(one->what), (unsigned long long)one->off, one->text);
	}
	if (f->leaks + f->corrupt + f->fixed > SHOWN)
		printf("... and %llu more\n", (unsigned long long)(f->leaks + f->corrupt + f->fixed - SHOWN));
	if (!c->quiet)
		printf("%s: %s: %llu damaged, %llu leaks%s", path, result, (unsigned long long)corrupt, (unsigned long long)leaks,
		       f->fixed ? "" : "\n");
	if (!c->quiet && f->fixed)
		printf(", %llu mended\n", (unsigned long long)f->fixed);
}

int img_run_check(struct cmd_ctx *c, struct vh_err *e)
{
	const char *repair = vh_opt_str(c->opts, "repair", NULL);
	int mend = !repair ? 0 : !strcmp(repair, "leaks") ? VH_CHECK_LEAK : VH_CHECK_LEAK | VH_CHECK_CORRUPT;
	struct findings first = {0}, after = {0}, *last = &first;
	struct cmd_volume v;
	struct cmd_image i;
	struct vh_job j;
	int ret = cmd_target_open(c, c->args[0], 1, &v, e);

	if (ret)
		return ret;
	first.list = g_array_new(FALSE, FALSE, sizeof(struct finding));
	after.list = g_array_new(FALSE, FALSE, sizeof(struct finding));
	g_array_set_clear_func(first.list, finding_clear);
	g_array_set_clear_func(after.list, finding_clear);
	/* Its own metadata is what is checked: what lies below is not needed for that. */
	ret = cmd_image_open(c, &v, mend ? VH_ATTACH_RW_EXCL : VH_ATTACH_RO, CMD_IMAGE_ALONE | CMD_IMAGE_REPAIR, &i, e);
	if (!ret) {
		job_begin(&j, "checking", c->quiet || c->json);
		ret = fmt_check(i.fmt, mend, found, &first, &j, e);
		if (!ret && mend) { /* what is left of it */
			ret = fmt_flush(i.fmt, e);
			last = &after;
		}
		if (!ret && mend)
			ret = fmt_check(i.fmt, 0, found, &after, &j, e);
		job_end(&j);
		cmd_image_close(&i);
	}
	if (!ret) {
		report(c, &v, &first, last->leaks, last->corrupt);
		ret = last->corrupt ? EXIT_CORRUPT : last->leaks ? EXIT_LEAKS : EXIT_OK;
	}
	cmd_target_error(c, &v, ret, e);
	g_array_unref(first.list);
	g_array_unref(after.list);
	cmd_volume_close(&v);
	return ret;
}

/* ---- map ---- */

const struct vh_opt *const img_map_options[] = {
	CMD_OPT_FORMAT, CMD_OPT("offset", VH_OPT_SIZE, "Begin here", .defval = "0", .max = INT64_MAX),
	CMD_OPT("length", VH_OPT_SIZE, "So many bytes; without it to the end", .min = 1, .max = INT64_MAX),
	CMD_OPT("holes", VH_OPT_BOOL, "Tell holes of the host's files as zeros", .defval = "on"),
	CMD_OPT("lock", VH_OPT_BOOL, "Keep writers out meanwhile; off: look at an image in use", .defval = "on"),
	CMD_OPT_ALLOW, NULL};
const char img_map_help[] =
	"One line for each range that is of one kind: data, zero (holes of the host's files as well), compressed, opaque; depth 0 is the\n"
	"image itself, 1 its backing image, and so on. With --json one object a line.";

struct map { const struct cmd_ctx *c; };

static const char *kind(uint32_t type)
{
	return type == VH_EXT_DATA ? "data" : type == VH_EXT_ZERO ? "zero" : type == VH_EXT_COMPRESSED ? "compressed" : "opaque";
}

static int map_line(void *ctx, const struct fmt_range *r)
{
	struct map *m = ctx;
	int has = (r->type == VH_EXT_DATA || r->type == VH_EXT_COMPRESSED) && r->vol;
	const char *file = has ? blk_vol_label(r->vol) : NULL;

	if (m->c->json) {
		JsonBuilder *b = json_builder_new();

		json_builder_begin_object(b);
		js_bytes(b, "offset", r->off);
		js_bytes(b, "bytes", r->len);
		js_text(b, "kind", kind(r->type));
		js_bytes(b, "depth", r->depth);
		js_bool(b, "allocated", (int)r->allocated);
		js_bool(b, "encrypted", (int)r->crypt);
		js_text(b, "file", file);
		js_bytes(b, "file_offset", has ? r->addr : UINT64_MAX);
		json_builder_end_object(b);
		out_json(b);
	} else if (has) {
		printf("%#18llx %#14llx  %-10s %5u  %#14llx  %s\n", (unsigned long long)r->off, (unsigned long long)r->len,
		       kind(r->type), r->depth, (unsigned long long)r->addr, file);
	} else {
		printf("%#18llx %#14llx  %-10s %5u\n", (unsigned long long)r->off, (unsigned long long)r->len, kind(r->type),
		       r->depth);
	}
	return ferror(stdout) ? -EIO : 0;
}

int img_run_map(struct cmd_ctx *c, struct vh_err *e)
{
	uint64_t off = (uint64_t)vh_opt_num(c->opts, "offset", 0), len = (uint64_t)vh_opt_num(c->opts, "length", INT64_MAX);
	struct map m = {.c = c};
	struct fmt_info info;
	struct cmd_volume v;
	struct cmd_image i;
	int ret = cmd_target_open(c, c->args[0], 1, &v, e);

	if (ret)
		return ret;
	ret = cmd_image_open(c, &v, vh_opt_num(c->opts, "lock", 1) ? VH_ATTACH_RO : VH_ATTACH_PEEK, 0, &i, e);
	if (!ret) {
		fmt_get_info(i.fmt, &info);
		off = MIN(off, info.bytes);
		if (!c->json)
			printf("%18s %14s  %-10s %5s  %14s  %s\n", "OFFSET", "BYTES", "KIND", "DEPTH", "FILE OFFSET", "FILE");
		ret = fmt_walk(i.fmt, off, MIN(len, info.bytes - off), (int)vh_opt_num(c->opts, "holes", 1), map_line, &m,
			       e);
		cmd_image_close(&i);
	}
	cmd_target_error(c, &v, ret, e);
	cmd_volume_close(&v);
	return ret;
}

/* ---- amend ---- */

const struct vh_opt *const img_amend_options[] = {
	CMD_OPT_FORMAT, CMD_OPT("options", VH_OPT_STR, "What to change: NAME=VALUE,...", .flags = VH_OPT_REQUIRED | VH_OPT_REPEAT),
	CMD_OPT_ALLOW, CMD_OPT_PROGRESS, NULL};
const char img_amend_help[] = "The options are the format's: `vhost plugin help FORMAT` lists those that can be changed.";

int img_run_amend(struct cmd_ctx *c, struct vh_err *e)
{
	struct optset *set = NULL;
	struct cmd_volume v;
	struct cmd_image i;
	struct kvs given;
	struct vh_job j;
	int ret = cmd_target_open(c, c->args[0], 1, &v, e);

	if (ret)
		return ret;
	ret = cmd_dash_options(c, &given, e);
	if (!ret)
		ret = cmd_image_open(c, &v, VH_ATTACH_RW_EXCL, 0, &i, e);
	if (!ret) {
		g_autofree char *what = g_strdup_printf("changeable options of format %s", fmt_format_name(i.fmt));

		if (fmt_format_ops(i.fmt)->amend)
			ret = optset_parse(fmt_format_ops(i.fmt)->amend_options, &given, what, &set, e);
		job_begin(&j, "changing", c->quiet || c->json);
		if (!ret)
			ret = fmt_amend(i.fmt, optset_get(set), &j, e);
		job_end(&j);
		optset_free(set);
		cmd_image_close(&i);
	}
	if (!ret)
		cmd_target_done(c, &v, "changed", NULL, NULL);
	cmd_target_error(c, &v, ret, e);
	kvs_clear(&given);
	cmd_volume_close(&v);
	return ret;
}
