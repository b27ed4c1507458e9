/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost img crashtest: the proof of crash safety (core/crash) as a command. */
#include <stdio.h>
#include "cmd/store-cmd.h"
#include "crash/crash.h"
#include "util/log.h"

static void js_count(JsonBuilder *b, const char *name, uint64_t value)
{
	json_builder_set_member_name(b, name);
	json_builder_add_int_value(b, (gint64)value);
}

static void print_json(const struct crash_spec *s, const struct crash_result *r, int wrong)
{
	g_autofree char *record = g_strdup_printf("%016llx", (unsigned long long)r->fingerprint);
	JsonBuilder *b = json_builder_new();

	json_builder_begin_object(b);
	js_text(b, "format", s->format);
	js_text(b, "result", wrong ? "failed" : "passed");
	js_count(b, "seed", s->seed);
	js_count(b, "states", r->states);
	js_count(b, "rounds", r->rounds);
	js_count(b, "operations", r->operations);
	js_count(b, "writes", r->writes);
	js_count(b, "flushes", r->flushes);
	js_count(b, "prefixes", r->prefixes);
	js_count(b, "lost", r->lost);
	js_count(b, "torn", r->torn);
	js_count(b, "checked", r->checked);
	js_count(b, "with_leaks", r->leaks);
	js_count(b, "repaired", r->repaired);
	js_count(b, "continued", r->continued);
	js_count(b, "qemu_checks", r->qemu_checks);
	js_count(b, "qemu_reads", r->qemu_reads);
	js_text(b, "qemu_left_out", r->qemu_why_not);
	js_text(b, "state", wrong ? r->state : NULL);
	js_text(b, "record", wrong || s->only ? record : NULL);
	js_text(b, "failure", r->text);
	json_builder_end_object(b);
	out_json(b);
}

static void print_text(const struct crash_spec *s, const struct crash_result *r)
{
	printf("format %s: %llu states of %llu rounds are good\n", s->format, (unsigned long long)r->states,
	       (unsigned long long)r->rounds);
	printf("%llu operations were %llu writes and %llu flushes of its files\n", (unsigned long long)r->operations,
	       (unsigned long long)r->writes, (unsigned long long)r->flushes);
	printf("%llu prefixes, %llu with lost writes, %llu torn; %llu had leaks, %llu were repaired, %llu went on\n",
	       (unsigned long long)r->prefixes, (unsigned long long)r->lost, (unsigned long long)r->torn,
	       (unsigned long long)r->leaks, (unsigned long long)r->repaired, (unsigned long long)r->continued);
	if (!r->checked)
		printf("no state was checked: the format has no check\n");
	if (r->qemu_why_not)
		printf("qemu-img was not asked: %s\n", r->qemu_why_not);
	else if (s->qemu_every)
		printf("qemu-img checked %llu of them and read %llu\n", (unsigned long long)r->qemu_checks,
		       (unsigned long long)r->qemu_reads);
}

/* "key=value" of repeated options. */
static int pairs(const struct cmd_ctx *c, const char *name, struct kvs *out, struct vh_err *e)
{
	out->v = g_new0(struct kv, c->opts->n + 1);
	out->n = 0;
	for (uint32_t k = 0; k < c->opts->n; k++) {
		const struct vh_val *v = c->opts->val[k];
		char *eq;

		if (strcmp(v->name, name))
			continue;
		eq = strchr(v->str, '=');
		if (!eq)
			return err_usage(e, "--%s %s: it has the form KEY=VALUE", name, v->str);
		out->v[out->n].key = g_strndup(v->str, (gsize)(eq - v->str));
		out->v[out->n++].value = g_strdup(eq + 1);
	}
	return 0;
}

static int run_crashtest(struct cmd_ctx *c, struct vh_err *e)
{
	struct kvs create = {0}, open = {0};
	struct crash_spec s = {
		.format = vh_opt_str(c->opts, "format", NULL),
		.options = &create,
		.open_options = &open,
		.bytes = (uint64_t)vh_opt_num(c->opts, "size", 0),
		.states = (uint64_t)vh_opt_num(c->opts, "states", 2000),
		.seed = (uint64_t)vh_opt_num(c->opts, "seed", 1),
		.operations = (unsigned)vh_opt_num(c->opts, "operations", 0),
		.depth = (unsigned)vh_opt_num(c->opts, "depth", 5),
		.backing = (int)vh_opt_num(c->opts, "backing", 0) - 1,
		.snapshots = vh_opt_num(c->opts, "snapshots", 0) != 0,
		.resizes = vh_opt_num(c->opts, "resizes", 0) != 0,
		.qemu_every = (uint64_t)vh_opt_num(c->opts, "qemu-every", 50),
		.keep = vh_opt_str(c->opts, "keep", NULL),
		.only = vh_opt_str(c->opts, "only", NULL),
		.trace = vh_opt_str(c->opts, "record", NULL),
	};
	struct crash_result r = {0};
	struct vh_job j;
	int ret = pairs(c, "option", &create, e);

	if (!ret)
		ret = pairs(c, "open-option", &open, e);
	/* Plugins tell of each image that was not closed cleanly, and here are thousands. */
	if (!c->verbose && !g_getenv("VHOST_LOG"))
		log_configure("error");
	if (!ret) {
		job_begin(&j, "crashing", c->quiet || c->json);
		ret = crash_run(&s, &r, &j, e);
		job_end(&j);
	}
	kvs_clear(&create);
	kvs_clear(&open);
	if (ret < 0)
		err_object(e, "format %s", s.format);
	if (ret >= 0 && c->json)
		print_json(&s, &r, ret);
	else if (ret == 0 && !c->quiet)
		print_text(&s, &r);
	if (ret > 0 && !c->json) {
		printf("state %s: %s\n", r.state, r.text);
		printf("to see it again: --seed %llu --only %s, with the same other options%s\n", (unsigned long long)s.seed, r.state,
		       s.depth > 1 ? " (with several operations in flight the record may differ: --keep keeps it, --record uses it)"
				   : "");
		printf("record %016llx%s%s\n", (unsigned long long)r.fingerprint, s.keep ? ", kept with the image in " : "",
		       s.keep ? s.keep : "");
	}
	g_free(r.text);
	g_free(r.qemu_why_not);
	return ret > 0 ? EXIT_FAILED : ret;
}

static const char *const backing_choices[] = {"auto", "off", "on", NULL};
static const struct vh_opt *const crashtest_options[] = {
	CMD_OPT("format", VH_OPT_STR, "The format to be tried", .flags = VH_OPT_REQUIRED),
	CMD_OPT("option", VH_OPT_STR, "KEY=VALUE, an option of making images of that format", .flags = VH_OPT_REPEAT),
	CMD_OPT("open-option", VH_OPT_STR, "KEY=VALUE, an option of opening them", .flags = VH_OPT_REPEAT),
	CMD_OPT("states", VH_OPT_INT, "How many states to look at", .defval = "2000", .min = 1, .max = INT64_C(1) << 40),
	CMD_OPT("seed", VH_OPT_INT, "Seed of the load and of the choice of states", .defval = "1", .min = 0, .max = INT64_C(1) << 40),
	CMD_OPT("operations", VH_OPT_INT, "Operations of one round; 0: 90, fewer where units are large", .defval = "0", .max = 10000),
	CMD_OPT("depth", VH_OPT_INT, "Operations in flight; with 1 a seed gives the same record each time", .defval = "5", .min = 1,
		.max = 8),
	CMD_OPT("size", VH_OPT_SIZE, "Size of the disk; 0: some of the format's units", .defval = "0", .max = INT64_C(1) << 32),
	CMD_OPT("backing", VH_OPT_ENUM, "On a backing image, raw where it can be; auto: every second round", .defval = "auto",
		.choices = backing_choices),
	CMD_OPT("snapshots", VH_OPT_BOOL, "The load takes, applies and removes snapshots, where the format has them", .defval = "on"),
	CMD_OPT("resizes", VH_OPT_BOOL, "The load grows the disk, where the format can", .defval = "on"),
	CMD_OPT("qemu-every", VH_OPT_INT, "Show every Nth state to qemu-img, where it knows the format; 0: none", .defval = "50",
		.max = INT64_C(1) << 40),
	CMD_OPT("keep", VH_OPT_PATH, "Folder for the image of a failing state, and the record that it came from"),
	CMD_OPT("only", VH_OPT_STR, "Look at this one state, as a failure printed it"),
	CMD_OPT("record", VH_OPT_PATH, "Use the record of a failing state instead of running a load"),
	NULL,
};

static const struct cmd crashtest = {
	.noun = "img",
	.verb = "crashtest",
	.summary = "Crash images of a format on purpose, and see what is left",
	.help = "Runs a load on a new image in memory that records all writes and flushes of its files, builds the states that a\n"
		"crash may leave (every prefix; of what no flush had covered, lost, reordered and torn parts), and opens each: no\n"
		"sector may read as what it cannot hold, the format's check may find leaks only, a repair must end clean, and the\n"
		"image must go on working. Ends with status 1 at the first state that is wrong, and prints how to see it again.",
	.options = crashtest_options,
	.run = run_crashtest,
};
const struct cmd *const cmd_crashtest[] = {&crashtest, NULL};
