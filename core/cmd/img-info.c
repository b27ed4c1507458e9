/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost img info, vhost vol info: what is known of an image, without any lease, so that it may be in use. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cmd/image-cmd.h"

const struct vh_opt *const img_info_options[] = {
	CMD_OPT("format", VH_OPT_STR, "The image's format, where none is recorded"),
	CMD_OPT("backing-chain", VH_OPT_BOOL, "List all images below it as well, which opens them", .defval = "off"),
	CMD_OPT_ALLOW, NULL};
const char img_info_help[] =
	"Takes no lease: what a VM is writing may be seen half done. Of a file whose format is neither given nor recorded, the\n"
	"format is told from its contents, and the output says so; what such a file refers to is not opened, unless\n"
	"--backing-chain asks for it.";

struct pair { char *key, *value; uint32_t type; };
struct snap { char *name, *id; uint64_t bytes, vm_state, clock; int64_t when; };

struct info {
	const struct cmd_ctx *c;
	struct cmd_volume v;
	struct vh_vol_stat st;
	char format[32], path[4096];
	const char *source; /* "given", "recorded", "probed"; NULL: unknown */
	struct probe probe;
	struct vh_ref *refs;
	int n_refs, chain, open, left; /* left: not opened on purpose */
	struct cmd_image i;
	GArray *pairs, *snaps;
	uint64_t disk_bytes;
	struct vh_err why; /* the image could not be opened */
};

static void add_pair(void *ctx, const char *key, uint32_t type, const char *value)
{
	struct info *f = ctx;
	struct pair p = {g_strdup(key), g_utf8_make_valid(value ? value : "", -1), type};

	if (f->pairs->len < 1000)
		g_array_append_val(f->pairs, p);
}

static int add_snap(void *ctx, const struct vh_snapshot *s)
{
	struct info *f = ctx;
	struct snap p = {g_utf8_make_valid(s->name ? s->name : "", -1), g_utf8_make_valid(s->id ? s->id : "", -1), s->bytes,
			 s->vm_state, s->clock, s->when};

	g_array_append_val(f->snaps, p);
	return 0;
}

static void pair_clear(void *p)
{
	g_free(((struct pair *)p)->key);
	g_free(((struct pair *)p)->value);
}

static void snap_clear(void *p)
{
	g_free(((struct snap *)p)->name);
	g_free(((struct snap *)p)->id);
}

/* Given, recorded, or told from the contents. Volumes of pools are never probed: theirs is recorded or it is not. */
static int find_format(struct info *f, struct vh_err *e)
{
	const char *given = vh_opt_str(f->c->opts, "format", NULL);
	int ret = store_format_get(f->v.pool, f->v.name, f->format, e);

	if (ret)
		return ret;
	if (f->format[0] || given) {
		f->source = f->format[0] ? "recorded" : "given";
		return store_format_pick(f->v.pool, f->v.name, given, f->format, e);
	}
	if (!strcmp(f->c->cmd->noun, "vol"))
		return 0;
	ret = image_probe(&f->v, &f->probe, e);
	if (ret)
		return ret;
	f->source = "probed";
	if (f->probe.ambiguous) {
		err_remedy(e, "name the format that you mean: --format");
		return err_set(e, -EINVAL, "the file is valid as %s and as %s, which somebody may have made so on purpose",
			       f->probe.hit[0].format, f->probe.hit[1].format);
	}
	g_strlcpy(f->format, f->probe.n ? f->probe.hit[0].format : "", sizeof(f->format));
	return 0;
}

/* Opens what may be opened. Not being able to is part of what is told, unless it was asked for. */
static int look_inside(struct info *f, struct vh_err *e)
{
	int ret, data = 0, probed = f->source && !strcmp(f->source, "probed");
	struct fmt_info fi;

	f->n_refs = store_image_refs(f->v.pool, f->v.name, f->format, &f->refs, &f->why);
	if (f->n_refs < 0) {
		f->n_refs = 0;
		return f->chain ? (err_move(e, &f->why), e->code) : 0;
	}
	for (int k = 0; k < f->n_refs; k++) {
		struct vh_ref known;

		/* Of a format that keeps no name what is recorded counts. */
		if (f->refs[k].role == VH_REF_BACKING && !f->refs[k].name[0] &&
		    store_image_backing(f->v.pool, f->v.name, f->format, &known, NULL) > 0)
			memcpy(f->refs[k].name, known.name, sizeof(known.name));
	}
	for (int k = 0; k < f->n_refs; k++)
		data |= f->refs[k].role == VH_REF_DATA;
	if (probed && data && !f->chain) {
		err_remedy(&f->why, "name its format with --format to have them opened");
		err_set(&f->why, -EACCES, "its further files are not opened, as its format is only probed");
		f->left = 1;
		return 0;
	}
	struct cmd_ctx named = *f->c;
	struct vh_val format = {.size = sizeof(format), .type = VH_OPT_STR, .name = "format", .str = f->format};
	g_autofree const struct vh_val **vals = g_new(const struct vh_val *, f->c->opts->n + 1);
	struct vh_opts opts = {.size = sizeof(opts), .n = f->c->opts->n + 1, .val = vals};

	vals[0] = &format;
	memcpy(vals + 1, f->c->opts->val, f->c->opts->n * sizeof(*vals));
	named.opts = &opts;
	ret = cmd_image_open(&named, &f->v, VH_ATTACH_PEEK, f->chain ? 0 : CMD_IMAGE_ALONE, &f->i, &f->why);
	if (ret)
		return f->chain ? (err_move(e, &f->why), ret) : 0;
	f->open = 1;
	fmt_get_info(f->i.fmt, &fi);
	f->disk_bytes = fi.bytes;
	fmt_describe(f->i.fmt, add_pair, f, NULL);
	if (fmt_format_ops(f->i.fmt)->snapshot_list)
		fmt_snapshot_list(f->i.fmt, add_snap, f, NULL);
	return 0;
}

static void js_name(JsonBuilder *b, const struct vh_ref *r)
{
	json_builder_begin_object(b);
	js_text(b, "name", r->name);
	js_text(b, "format", r->format[0] ? r->format : NULL);
	json_builder_end_object(b);
}

static void js_layer(JsonBuilder *b, const struct fmt_layer_info *l)
{
	js_text(b, "image", l->label);
	js_text(b, "format", l->format);
	js_bytes(b, "disk_bytes", l->bytes);
	js_bytes(b, "bytes", l->volume_bytes);
}

static void js_pairs(JsonBuilder *b, const struct info *f)
{
	json_builder_set_member_name(b, "properties");
	json_builder_begin_object(b);
	for (guint k = 0; k < f->pairs->len; k++) {
		struct pair *p = &g_array_index(f->pairs, struct pair, k);
		g_autofree char *key = g_strdelimit(g_strdup(p->key), "-", '_');

		if (p->type == VH_DESC_BOOL) {
			js_bool(b, key, !strcmp(p->value, "true"));
		} else if (p->type == VH_DESC_NUMBER) {
			json_builder_set_member_name(b, key);
			json_builder_add_int_value(b, g_ascii_strtoll(p->value, NULL, 10));
		} else {
			js_text(b, key, p->value);
		}
	}
	json_builder_end_object(b);
}

void js_snapshot(JsonBuilder *b, const char *id, const char *name, uint64_t bytes, int64_t when, uint64_t vm_state, uint64_t clock)
{
	g_autofree char *text = time_text(when);

	json_builder_begin_object(b);
	js_text(b, "id", id);
	js_text(b, "name", name);
	js_bytes(b, "disk_bytes", bytes);
	js_text(b, "time", text);
	js_bytes(b, "vm_state_bytes", vm_state);
	js_bytes(b, "vm_clock_ns", clock);
	json_builder_end_object(b);
}

static void print_json(struct info *f)
{
	JsonBuilder *b = json_builder_new();
	struct fmt_layer_info l;

	json_builder_begin_object(b);
	if (strcmp(f->c->cmd->noun, "vol"))
		js_target(b, f->c, &f->v);
	js_volume(b, f->v.pool_name, f->v.name, &f->st, f->format);
	js_text(b, "format_source", f->source);
	js_bytes(b, "disk_bytes", f->disk_bytes);
	js_bool(b, "in_use", !!(f->st.flags & VH_STAT_IN_USE));
	js_text(b, "path", f->path[0] ? f->path : NULL);
	if (f->open) {
		fmt_layer_get(f->i.fmt, 0, &l);
		js_bytes(b, "cluster_bytes", l.unit);
		js_bytes(b, "end", l.end ? l.end : UINT64_MAX);
		js_bool(b, "dirty", !!(l.caps & VH_FMT_DIRTY));
		js_bool(b, "encrypted", !!(l.caps & VH_FMT_CRYPT));
	}
	json_builder_set_member_name(b, "backing");
	int k = 0;
	while (k < f->n_refs && f->refs[k].role != VH_REF_BACKING)
		k++;
	if (k < f->n_refs)
		js_name(b, &f->refs[k]);
	else
		json_builder_add_null_value(b);
	json_builder_set_member_name(b, "data_files");
	json_builder_begin_array(b);
	for (k = 0; k < f->n_refs; k++)
		if (f->refs[k].role == VH_REF_DATA)
			json_builder_add_string_value(b, f->refs[k].name);
	json_builder_end_array(b);
	js_pairs(b, f);
	json_builder_set_member_name(b, "snapshots");
	json_builder_begin_array(b);
	for (guint n = 0; n < f->snaps->len; n++) {
		struct snap *s = &g_array_index(f->snaps, struct snap, n);

		js_snapshot(b, s->id, s->name, s->bytes, s->when, s->vm_state, s->clock);
	}
	json_builder_end_array(b);
	if (f->chain) {
		json_builder_set_member_name(b, "chain");
		json_builder_begin_array(b);
		for (uint32_t d = 0; f->open && !fmt_layer_get(f->i.fmt, d, &l); d++) {
			json_builder_begin_object(b);
			js_layer(b, &l);
			json_builder_end_object(b);
		}
		json_builder_end_array(b);
	}
	js_text(b, "not_opened", f->why.code ? f->why.cause : NULL);
	json_builder_end_object(b);
	out_json(b);
}

static char *clean(const char *s)
{
	char *t = g_utf8_make_valid(s, -1);

	for (char *p = t; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
	return t;
}

static void line(const char *key, const char *value)
{
	g_autofree char *k = g_strdup_printf("%s:", key), *v = clean(value);

	k[0] = g_ascii_toupper(k[0]);
	printf("%-19s %s\n", k, v);
}

static void print_text(struct info *f)
{
	g_autofree char *size = size_text(f->st.bytes), *alloc = size_text(f->st.allocated), *disk = size_text(f->disk_bytes);
	g_autofree char *when = time_text(f->st.mtime), *name = g_strdup_printf("%s/%s", f->v.pool_name, f->v.name);
	struct fmt_layer_info l;

	line(strcmp(f->c->cmd->noun, "vol") ? "image" : "name", name);
	if (f->source && !strcmp(f->source, "probed"))
		printf("%-19s %s (told from the contents, which a guest may have written; not recorded)\n", "Format:", f->format);
	else
		line("format", f->format[0] ? f->format : "not recorded");
	line("disk size", disk);
	line("size", size);
	line("allocated", alloc);
	line("modified", when ? when : "-");
	line("in use", f->st.flags & VH_STAT_IN_USE ? "yes: read without a lease, beside whoever writes it" : "no");
	line("identity", f->st.identity);
	if (f->path[0])
		line("path", f->path);
	for (int k = 0; k < f->n_refs; k++) {
		g_autofree char *text = f->refs[k].format[0] ? g_strdup_printf("%s (%s)", f->refs[k].name, f->refs[k].format) :
								g_strdup(f->refs[k].name);

		line(f->refs[k].role == VH_REF_BACKING ? "backing image" : "data file", text);
	}
	if (f->open) {
		g_autofree char *unit = NULL;

		fmt_layer_get(f->i.fmt, 0, &l);
		unit = size_text(l.unit);
		if (fmt_format_ops(f->i.fmt)->commit)
			line("cluster size", unit);
		if (l.caps & VH_FMT_DIRTY)
			line("state", "not closed cleanly");
	}
	for (guint k = 0; k < f->pairs->len; k++)
		line(g_array_index(f->pairs, struct pair, k).key, g_array_index(f->pairs, struct pair, k).value);
	for (guint n = 0; n < f->snaps->len; n++) {
		struct snap *s = &g_array_index(f->snaps, struct snap, n);
		g_autofree char *t = time_text(s->when), *bytes = size_text(s->bytes);
		g_autofree char *text = g_strdup_printf("%s  %s  %s  %s", s->id, s->name, bytes, t ? t : "-");

		line("snapshot", text);
	}
	for (uint32_t d = 1; f->chain && f->open && !fmt_layer_get(f->i.fmt, d, &l); d++) {
		g_autofree char *bytes = size_text(l.bytes), *text = g_strdup_printf("%s (%s, %s)", l.label, l.format, bytes);

		line("below it", text);
	}
	if (f->why.code)
		line("not opened", f->why.cause);
}

int img_run_info(struct cmd_ctx *c, struct vh_err *e)
{
	struct info f = {.c = c, .chain = (int)vh_opt_num(c->opts, "backing-chain", 0), .disk_bytes = UINT64_MAX};
	const struct vh_pool_ops *ops;
	void *pool;
	int ret = cmd_target_open(c, c->args[0], 1, &f.v, e);

	if (ret)
		return ret;
	f.pairs = g_array_new(FALSE, FALSE, sizeof(struct pair));
	f.snaps = g_array_new(FALSE, FALSE, sizeof(struct snap));
	g_array_set_clear_func(f.pairs, pair_clear);
	g_array_set_clear_func(f.snaps, snap_clear);
	ret = store_vol_stat(f.v.pool, f.v.name, &f.st, e);
	if (!ret)
		ret = find_format(&f, e);
	ops = store_pool_ops(f.v.pool, &pool);
	if (!ret && (!ops->path || ops->path(pool, f.v.name, f.path, sizeof(f.path), NULL)))
		f.path[0] = 0;
	f.path[sizeof(f.path) - 1] = 0;
	if (!ret && !strcmp(f.format, "raw"))
		f.disk_bytes = f.st.bytes;
	if (!ret && f.format[0])
		ret = look_inside(&f, e);
	if (!ret && c->json)
		print_json(&f);
	else if (!ret)
		print_text(&f);
	/* Of a volume there is more to tell than its image; a file is one. */
	if (!ret && f.why.code && !f.left && strcmp(c->cmd->noun, "vol")) {
		ret = f.why.code;
		err_move(e, &f.why);
	}
	cmd_target_error(c, &f.v, ret, e);
	if (f.open)
		cmd_image_close(&f.i);
	free(f.refs);
	err_clear(&f.why);
	g_array_unref(f.pairs);
	g_array_unref(f.snaps);
	cmd_volume_close(&f.v);
	return ret;
}
