/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost img compare, measure and their twins of vhost vol. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cmd/image-cmd.h"
#include "plug/plug.h"
#include "store/convert.h"

#define DIFFERENT 1 /* exit statuses of compare are qemu-img's: 0 the same, 1 different, above that a failure */
#define FAILED ((enum exit_status)4)

const struct vh_opt *const img_compare_options[] = {
	CMD_OPT("format", VH_OPT_STR, "The first image's format, where none is recorded"),
	CMD_OPT("other-format", VH_OPT_STR, "The second image's format, where none is recorded"),
	CMD_OPT("strict", VH_OPT_BOOL, "Different sizes, and different allocation, count as well", .defval = "off"),
	CMD_OPT("force-share", VH_OPT_BOOL, "Read them although somebody may be writing them", .defval = "off"),
	CMD_OPT_ALLOW, CMD_OPT_PROGRESS, NULL};
const char img_compare_help[] =
	"Without --strict a disk that is longer is the same if what it has more is zeros. The exit status is 0 when they are the\n"
	"same, 1 when they differ, and above 1 when they could not be compared (4 for what is 1 with other commands).\n"
	"Options of the formats, such as a passphrase: --format.NAME VALUE of the first image, --other-format.NAME VALUE of the other.";
const struct vh_opt *const img_measure_options[] = {
	CMD_OPT("source-format", VH_OPT_STR, "The source's format, where none is recorded"),
	CMD_OPT("format", VH_OPT_STR, "The format to measure for", .defval = "raw"),
	CMD_OPT("size", VH_OPT_SIZE, "Without a source: size of an empty disk", .min = 1, .max = INT64_MAX),
	CMD_OPT("snapshot", VH_OPT_STR, "Measure this internal snapshot of the source"),
	CMD_OPT("options", VH_OPT_STR, "Options of the format, NAME=VALUE,...", .flags = VH_OPT_REPEAT),
	CMD_OPT("force-share", VH_OPT_BOOL, "Read the source although somebody may be writing it", .defval = "off"),
	CMD_OPT_ALLOW, NULL};

static int open_read(struct cmd_ctx *c, const char *arg, const char *format, const struct kvs *options, struct cmd_volume *v,
		     struct store_image **out, struct vh_err *e)
{
	g_autofree char *holder = g_strdup_printf("pid %d vhost %s %s", (int)getpid(), c->cmd->noun, c->cmd->verb);
	g_auto(GStrv) allow = store_allow(c->opts);
	struct store_image_spec s = {.format = vh_opt_str(c->opts, format, NULL), .options = options, .holder = holder,
				     .allow = (const char *const *)allow,
				     .mode = vh_opt_num(c->opts, "force-share", 0) ? VH_ATTACH_PEEK : VH_ATTACH_RO};
	int ret = cmd_target_open(c, arg, 1, v, e);

	if (ret)
		return ret;
	s.pool = v->pool;
	s.volume = v->name;
	ret = store_image_open(&s, out, e);
	if (ret == -EINVAL && !s.format && e && e->remedy && strstr(e->remedy, "format=raw"))
		err_remedy(e, "add --%s FORMAT; `vhost img probe FILE` says what it looks like", format);
	if (ret)
		*out = NULL;
	return cmd_target_error(c, v, ret, e);
}

int img_run_compare(struct cmd_ctx *c, struct vh_err *e)
{
	struct compare cmp = {.a_name = c->args[0], .b_name = c->args[1], .strict = (int)vh_opt_num(c->opts, "strict", 0)};
	struct store_image *a = NULL, *b = NULL;
	struct cmd_volume va = {0}, vb = {0};
	struct kvs given, of_a, of_b;
	struct vh_job j;
	int ret = 0;

	cmd_free_options(c, &given);
	kvs_with_prefix(&given, "format.", &of_a);
	kvs_with_prefix(&given, "other-format.", &of_b);
	for (unsigned k = 0; k < given.n && !ret; k++)
		if (!g_str_has_prefix(given.v[k].key, "format.") && !g_str_has_prefix(given.v[k].key, "other-format."))
			ret = err_usage(e, "--%s is no option of this command", given.v[k].key);
	if (!ret)
		ret = open_read(c, c->args[0], "format", &of_a, &va, &a, e);
	if (!ret)
		ret = open_read(c, c->args[1], "other-format", &of_b, &vb, &b, e);
	if (!ret) {
		cmp.a = store_image_fmt(a);
		cmp.b = store_image_fmt(b);
		job_begin(&j, "comparing", c->quiet || c->json);
		ret = compare_run(&cmp, &j, e);
		job_end(&j);
	}
	if (!ret && c->json) {
		JsonBuilder *js = json_builder_new();

		json_builder_begin_object(js);
		js_bool(js, "same", !cmp.what);
		js_text(js, "differs_in", cmp.what);
		js_bytes(js, "at", cmp.what ? cmp.at : UINT64_MAX);
		json_builder_end_object(js);
		out_json(js);
	} else if (!ret && !c->quiet) {
		if (!cmp.what)
			printf("the disks are the same\n");
		else if (!strcmp(cmp.what, "size"))
			printf("the disks differ in their size\n");
		else
			printf("the disks differ in their %s, at byte %llu\n", cmp.what, (unsigned long long)cmp.at);
	}
	store_image_close(a);
	store_image_close(b);
	cmd_volume_close(&va);
	cmd_volume_close(&vb);
	g_free(of_a.v);
	g_free(of_b.v);
	kvs_clear(&given);
	if (ret && e && err_exit_status(e) == DIFFERENT)
		err_status(e, FAILED);
	return ret ? ret : cmp.what ? DIFFERENT : 0;
}

static int measure(struct cmd_ctx *c, struct kvs *create, struct vh_create *vc, struct fmt_image *src, uint64_t *required,
		   uint64_t *full, struct vh_err *e)
{
	const char *format = vh_opt_str(c->opts, "format", "raw");
	const struct vh_format_ops *ops;
	struct optset *set = NULL;
	uint64_t used = 0, unit;
	int ret = plug_format(format, &ops, e);

	if (!ret)
		ret = optset_parse(ops->create_options, create, format, &set, e);
	vc->opts = optset_get(set);
	unit = ret ? 0 : (uint64_t)vh_opt_num(vc->opts, "cluster-size", 65536);
	if (!ret && src)
		ret = measure_used(src, strcmp(format, "raw") && unit >= 512 ? unit : 4096, &used, e);
	if (!ret && !ops->measure)
		ret = err_set(e, -EOPNOTSUPP, "format %s cannot say how much it needs", format);
	if (!ret)
		ret = ops->measure(vc, MIN(used, vc->bytes), required, full, e);
	optset_free(set);
	return ret;
}

int img_run_measure(struct cmd_ctx *c, struct vh_err *e)
{
	struct vh_create vc = {.size = sizeof(vc), .bytes = (uint64_t)vh_opt_num(c->opts, "size", 0), .name = "measure"};
	const char *snap = vh_opt_str(c->opts, "snapshot", NULL);
	int source = c->n_args > c->n_free;
	struct kvs given, create = {0}, options = {0};
	struct store_image *src = NULL;
	struct cmd_volume v = {0};
	uint64_t required = 0, full = 0;
	struct fmt_info info;
	int ret = cmd_dash_options(c, &create, e);

	cmd_free_options(c, &given);
	for (unsigned k = 0; k < given.n && !ret; k++) {
		if (!strncmp(given.v[k].key, "format.", 7))
			kvs_add(&create, given.v[k].key + 7, given.v[k].value);
		else if (!strncmp(given.v[k].key, "source.", 7))
			kvs_add(&options, given.v[k].key + 7, given.v[k].value);
		else
			ret = err_usage(e, "--%s is no option of this command", given.v[k].key);
	}
	if (snap)
		kvs_add(&options, "snapshot", snap);
	if (!ret && source == !!vc.bytes)
		ret = err_usage(e, source ? "the source says how large it is: leave --size away" : "give a source, or --size");
	if (!ret && source) {
		ret = open_read(c, c->args[0], "source-format", &options, &v, &src, e);
		if (!ret) {
			fmt_get_info(store_image_fmt(src), &info);
			vc.bytes = info.bytes;
		}
	}
	if (!ret)
		ret = measure(c, &create, &vc, src ? store_image_fmt(src) : NULL, &required, &full, e);
	if (!ret && c->json) {
		JsonBuilder *js = json_builder_new();

		json_builder_begin_object(js);
		js_bytes(js, "required", required);
		js_bytes(js, "fully_allocated", full);
		json_builder_end_object(js);
		out_json(js);
	} else if (!ret) {
		printf("required size: %llu\nfully allocated size: %llu\n", (unsigned long long)required, (unsigned long long)full);
	}
	store_image_close(src);
	cmd_volume_close(&v);
	kvs_clear(&given);
	kvs_clear(&create);
	kvs_clear(&options);
	return ret;
}
