/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost img bench: as qemu-img bench, so that both can be told to do the same. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "cmd/image-cmd.h"
#include "store/convert.h"

static const char *const engines[] = {"auto", "aio", "uring", "threads", NULL};
static const char *const caches[] = {"none", "writeback", NULL};

const struct vh_opt *const img_bench_options[] = {
	CMD_OPT("format", VH_OPT_STR, "The image's format, where none is recorded"),
	CMD_OPT("count", VH_OPT_INT, "Requests", .defval = "75000", .min = 1, .max = INT64_MAX),
	CMD_OPT("depth", VH_OPT_INT, "Requests in flight", .defval = "64", .min = 1, .max = 4096),
	CMD_OPT("buffer-size", VH_OPT_SIZE, "Bytes of a request", .defval = "4K", .min = 1, .max = 1 << 30),
	CMD_OPT("step-size", VH_OPT_SIZE, "From one request to the next; 0: their size", .defval = "0"),
	CMD_OPT("offset", VH_OPT_SIZE, "Where the first begins", .defval = "0"),
	CMD_OPT("write", VH_OPT_BOOL, "Write; what the disk holds is lost", .defval = "off"),
	CMD_OPT("random", VH_OPT_BOOL, "Anywhere, instead of in a row", .defval = "off"),
	CMD_OPT("pattern", VH_OPT_INT, "The byte that is written", .defval = "0", .min = 0, .max = 255),
	CMD_OPT("flush-interval", VH_OPT_INT, "Flush after so many requests; 0: never", .defval = "0", .min = 0, .max = INT64_MAX),
	CMD_OPT("no-drain", VH_OPT_BOOL, "Go on while a flush runs", .defval = "off"),
	CMD_OPT("shared-buffer", VH_OPT_BOOL, "All requests use one buffer, as qemu-img's do: what is read is mixed up", .defval = "off"),
	CMD_OPT("queues", VH_OPT_INT, "Queues, each with a thread of its own", .defval = "1", .min = 1, .max = 64),
	CMD_OPT("engine", VH_OPT_ENUM, "How files are read and written", .defval = "auto", .choices = engines),
	CMD_OPT("cache", VH_OPT_ENUM, "none: past the page cache", .defval = "none", .choices = caches), CMD_OPT_ALLOW, NULL};

static int open_disk(struct cmd_ctx *c, struct disk **d, struct vh_err *e)
{
	g_autofree char *holder = g_strdup_printf("pid %d vhost %s %s", (int)getpid(), c->cmd->noun, c->cmd->verb);
	const struct vh_opts *o = c->opts;
	const char *format = vh_opt_str(o, "format", NULL);
	g_auto(GStrv) allow = store_allow(o);
	struct kvs k = {0}, given;
	int ret;

	kvs_add(&k, strcmp(c->cmd->noun, "vol") ? "path" : "volume", c->args[0]);
	if (format)
		kvs_add(&k, "format", format);
	kvs_add(&k, "engine", engines[vh_opt_num(o, "engine", 0)]);
	kvs_add(&k, "cache", caches[vh_opt_num(o, "cache", 0)]);
	kvs_add(&k, "readonly", vh_opt_num(o, "write", 0) ? "off" : "on");
	kvs_add(&k, "on-error", "report");
	for (unsigned i = 0; allow[i]; i++)
		kvs_add(&k, "allow", allow[i]);
	cmd_free_options(c, &given);
	for (unsigned i = 0; i < given.n; i++)
		kvs_add(&k, given.v[i].key, given.v[i].value);
	ret = disk_open(&k, holder, NULL, NULL, d, e);
	kvs_clear(&given);
	kvs_clear(&k);
	return ret;
}

int img_run_bench(struct cmd_ctx *c, struct vh_err *e)
{
	const struct vh_opts *o = c->opts;
	struct bench b = {.count = (uint64_t)vh_opt_num(o, "count", 75000), .depth = (unsigned)vh_opt_num(o, "depth", 64),
			  .bytes = (uint64_t)vh_opt_num(o, "buffer-size", 4096), .step = (uint64_t)vh_opt_num(o, "step-size", 0),
			  .off = (uint64_t)vh_opt_num(o, "offset", 0), .write = (int)vh_opt_num(o, "write", 0),
			  .random = (int)vh_opt_num(o, "random", 0), .pattern = (uint8_t)vh_opt_num(o, "pattern", 0),
			  .flush_every = (uint64_t)vh_opt_num(o, "flush-interval", 0),
			  .no_drain = (int)vh_opt_num(o, "no-drain", 0), .queues = (unsigned)vh_opt_num(o, "queues", 1),
			  .shared = (int)vh_opt_num(o, "shared-buffer", 0)};
	struct disk *d = NULL;
	struct vh_job j;
	int ret;

	if (b.flush_every && !b.write)
		return err_usage(e, "--flush-interval goes with --write");
	ret = open_disk(c, &d, e);
	if (ret)
		return ret;
	b.image = d->image;
	job_begin(&j, "running", 1);
	ret = bench_run(&b, &j, e);
	job_end(&j);
	if (!ret && c->json) {
		JsonBuilder *js = json_builder_new();

		json_builder_begin_object(js);
		js_bytes(js, "requests", b.count);
		js_bytes(js, "request_bytes", b.bytes);
		json_builder_set_member_name(js, "seconds");
		json_builder_add_double_value(js, b.seconds);
		js_bytes(js, "per_second", (uint64_t)((double)b.count / b.seconds));
		json_builder_end_object(js);
		out_json(js);
	} else if (!ret) {
		printf("Run completed in %.3f seconds: %.0f requests, %.1f MiB a second.\n", b.seconds, (double)b.count / b.seconds,
		       (double)b.count * (double)b.bytes / b.seconds / 1048576);
	}
	if (ret)
		err_object(e, "image %s", d->label);
	disk_close(d);
	return ret;
}
