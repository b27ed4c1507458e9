/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vhost img convert, vhost img dd, vhost vol convert: copying disks into new images, into existing ones, from and to pipes. */
#include <fcntl.h>
#include <malloc.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "cmd/image-cmd.h"
#include "store/convert.h"

static const char *const preallocations[] = {"off", "falloc", "full", "metadata", NULL}; /* in the order of VH_PREALLOC_* */
static const char *const caches[] = {"auto", "none", "writeback", NULL};

#define COMMON                                                                                                         \
	CMD_OPT("source-format", VH_OPT_STR, "The source's format, where none is recorded"),                           \
	CMD_OPT("format", VH_OPT_STR, "The target's format", .defval = "raw"),                                         \
	CMD_OPT("options", VH_OPT_STR, "Options of the target's format, NAME=VALUE,...", .flags = VH_OPT_REPEAT),      \
	CMD_OPT("force", VH_OPT_BOOL, "Replace a file of that name, when the new one is complete", .defval = "off"),   \
	CMD_OPT("parallel", VH_OPT_INT, "Requests in flight", .min = 1, .max = 64),                                    \
	CMD_OPT("cache", VH_OPT_ENUM, "How the target is written: past the page cache (none), through it, or what suits its size", \
		.defval = "auto", .choices = caches),                                                                  \
	CMD_OPT("force-share", VH_OPT_BOOL, "Read the source although somebody may be writing it", .defval = "off"),   \
	CMD_OPT_ALLOW, CMD_OPT_INSECURE, CMD_OPT_PROGRESS

const struct vh_opt *const img_convert_options[] = {
	COMMON,
	CMD_OPT("size", VH_OPT_SIZE, "Size of the disk, when the source is a pipe", .min = 1, .max = INT64_MAX),
	CMD_OPT("snapshot", VH_OPT_STR, "Copy this internal snapshot of the source"),
	CMD_OPT("backing", VH_OPT_STR, "The target's backing image: only what differs from it is written"),
	CMD_OPT("backing-format", VH_OPT_STR, "The format of the backing image, where none is recorded"),
	CMD_OPT("compress", VH_OPT_BOOL, "Write compressed data", .defval = "off"),
	CMD_OPT("compress-level", VH_OPT_STR, "How hard to compress, as the target's format names it"),
	CMD_OPT("no-create", VH_OPT_BOOL, "Write into a target that exists", .defval = "off"),
	CMD_OPT("target-is-zero", VH_OPT_BOOL, "With --no-create: it reads as zeros everywhere", .defval = "off"),
	CMD_OPT("sparse", VH_OPT_SIZE, "Runs of zeros of so many bytes are not written; 0: everything is", .max = 1 << 30),
	CMD_OPT("preallocation", VH_OPT_ENUM, "Of the target: off, falloc, full, metadata", .defval = "off",
		.choices = preallocations),
	CMD_OPT("reflink", VH_OPT_BOOL, "Share the source's blocks where the file system can", .defval = "on"),
	CMD_OPT("rate-limit", VH_OPT_SIZE, "Bytes a second"),
	CMD_OPT("unordered", VH_OPT_BOOL, "As with qemu-img; writes are never held back for order", .defval = "on"), NULL};
const char img_convert_help[] =
	"SOURCE and TARGET may be - for a pipe; raw data is streamed, any other format goes through a temporary file. The source's\n"
	"own options are --source.NAME VALUE, those of the new image --format.NAME VALUE (or -o NAME=VALUE,...). The target has\n"
	"its name only when it is complete and on disk; after a failure or a kill there is none, and running it again finishes.";

const struct vh_opt *const img_dd_options[] = {
	COMMON,
	CMD_OPT("block-size", VH_OPT_SIZE, "Bytes of a block", .defval = "512", .min = 1, .max = INT64_MAX),
	CMD_OPT("count", VH_OPT_INT, "Blocks to copy", .min = 0, .max = INT64_MAX),
	CMD_OPT("skip", VH_OPT_INT, "Blocks of the source to leave out", .defval = "0", .min = 0, .max = INT64_MAX), NULL};

struct job_spec {
	struct cmd_ctx *c;
	struct cmd_volume from, to;
	struct store_image *src, *old; /* old: a target that exists */
	struct store_target *target;
	struct kvs source_opts, create, open;
	char **allow;
	char *holder;
	int to_pipe;
	struct convert v;
};

/* Free options: --source.X for reading, --format.X and -o for creating. */
static int sort_options(struct job_spec *s, struct vh_err *e)
{
	const char *level = vh_opt_str(s->c->opts, "compress-level", NULL), *snap = vh_opt_str(s->c->opts, "snapshot", NULL);
	struct kvs given, dash;
	int ret = cmd_dash_options(s->c, &dash, e);

	cmd_free_options(s->c, &given);
	for (unsigned k = 0; k < given.n && !ret; k++) {
		if (!strncmp(given.v[k].key, "source.", 7))
			kvs_add(&s->source_opts, given.v[k].key + 7, given.v[k].value);
		else
			kvs_add(&s->create, given.v[k].key, given.v[k].value);
	}
	for (unsigned k = 0; k < dash.n; k++) {
		g_autofree char *key = g_strconcat("format.", dash.v[k].key, NULL);

		kvs_add(&s->create, key, dash.v[k].value);
	}
	if (snap)
		kvs_add(&s->source_opts, "snapshot", snap);
	if (level)
		kvs_add(&s->open, "compress-level", level);
	kvs_clear(&given);
	kvs_clear(&dash);
	return ret;
}

static int open_source(struct job_spec *s, const char *arg, struct vh_err *e)
{
	const struct vh_opts *o = s->c->opts;
	struct store_image_spec is = {.format = vh_opt_str(o, "source-format", NULL), .options = &s->source_opts,
				      .holder = s->holder, .allow = (const char *const *)s->allow,
				      .mode = vh_opt_num(o, "force-share", 0) ? VH_ATTACH_PEEK : VH_ATTACH_RO};
	struct fmt_info info;
	struct stat st;
	int ret;

	s->v.src_name = arg;
	if (!strcmp(arg, "-")) {
		uint64_t size = (uint64_t)vh_opt_num(o, "size", 0);

		s->v.src_name = "standard input";
		s->v.src_fd = STDIN_FILENO;
		if (is.format && strcmp(is.format, "raw"))
			return err_usage(e, "what comes from a pipe is raw");
		if (!size && !fstat(STDIN_FILENO, &st) && S_ISREG(st.st_mode)) {
			off_t at = lseek(STDIN_FILENO, 0, SEEK_CUR);

			size = st.st_size > at ? (uint64_t)(st.st_size - at) : 0;
		}
		s->v.bytes = size;
		if (size)
			return 0;
		err_remedy(e, "add --size");
		return err_usage(e, "the size of the disk cannot be told from a pipe");
	}
	ret = cmd_target_open(s->c, arg, 1, &s->from, e);
	if (ret)
		return ret;
	is.pool = s->from.pool;
	is.volume = s->from.name;
	ret = store_image_open(&is, &s->src, e);
	if (ret == -EINVAL && !is.format && e && e->remedy && strstr(e->remedy, "format=raw"))
		err_remedy(e, "add --source-format FORMAT; `vhost img probe FILE` says what it looks like");
	if (ret)
		return s->src = NULL, cmd_target_error(s->c, &s->from, ret, e);
	s->v.src = store_image_fmt(s->src);
	fmt_get_info(s->v.src, &info);
	s->v.bytes = info.bytes;
	return 0;
}

/* Past the page cache when the copy would push everything else out of it. */
static int go_direct(const struct job_spec *s)
{
	int64_t cache = vh_opt_num(s->c->opts, "cache", 0);
	long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);

	if (cache || s->v.compress || s->v.bytes % 4096)
		return cache == 1 && !(s->v.bytes % 4096);
	return pages > 0 && s->v.bytes > (uint64_t)pages * (uint64_t)page / 2;
}

static int in_use(struct job_spec *s, struct vh_err *e)
{
	struct vh_vol_stat st;

	if (!vh_opt_num(s->c->opts, "force", 0) || store_vol_stat(s->to.pool, s->to.name, &st, NULL) ||
	    !(st.flags & VH_STAT_IN_USE) || (s->from.pool && !strcmp(s->from.name, s->to.name)))
		return 0;
	return err_set(e, -EBUSY, "somebody uses the file that is to be replaced");
}

/* What the new volume will hold, so that an attempt that was cut short at its very end is known by the next. */
static char *token(const struct job_spec *s)
{
	g_autoptr(GChecksum) sum = g_checksum_new(G_CHECKSUM_SHA256);
	g_autofree char *text = NULL;
	struct vh_vol_stat st;

	if (!s->from.pool || store_vol_stat(s->from.pool, s->from.name, &st, NULL))
		return NULL;
	text = g_strdup_printf("%s %lld %llu %llu %llu", st.identity, (long long)st.mtime, (unsigned long long)st.bytes,
			       (unsigned long long)s->v.src_off, (unsigned long long)s->v.bytes);
	g_checksum_update(sum, (const guchar *)text, -1);
	for (unsigned k = 0; k < s->c->opts->n; k++) {
		const struct vh_val *v = s->c->opts->val[k];

		g_checksum_update(sum, (const guchar *)v->name, -1);
		g_checksum_update(sum, (const guchar *)(v->str ? v->str : ""), -1);
		g_checksum_update(sum, (const guchar *)&v->num, sizeof(v->num));
	}
	for (unsigned k = s->c->n_args - s->c->n_free; k < s->c->n_args; k++)
		g_checksum_update(sum, (const guchar *)s->c->args[k], -1);
	return g_strndup(g_checksum_get_string(sum), 30);
}

static int new_target(struct job_spec *s, const char *path, struct vh_job *j, struct vh_err *e)
{
	const struct vh_opts *o = s->c->opts;
	struct store_target_spec ts = {.format = vh_opt_str(o, "format", "raw"), .bytes = s->v.bytes,
				       .prealloc = (uint32_t)vh_opt_num(o, "preallocation", 0), .options = &s->create,
				       .open = &s->open, .backing = vh_opt_str(o, "backing", NULL),
				       .backing_format = vh_opt_str(o, "backing-format", NULL),
				       .allow = (const char *const *)s->allow, .replace = (int)vh_opt_num(o, "force", 0),
				       .holder = s->holder, .direct = go_direct(s)};
	g_autofree char *mark = path ? NULL : token(s);
	int ret;

	ts.token = mark;
	if (path) {
		ts.path = path;
	} else {
		ts.pool = s->to.pool;
		ts.volume = s->to.name;
	}
	ret = store_target_new(&ts, &s->target, j, e);
	if (ret)
		return ret;
	s->v.dst = store_target_image(s->target);
	s->v.fresh = !ts.backing && store_target_fresh(s->target);
	s->v.differs = ts.backing != NULL;
	return 0;
}

static int old_target(struct job_spec *s, struct vh_err *e)
{
	const struct vh_opts *o = s->c->opts;
	struct store_image_spec is = {.options = &s->open, .holder = s->holder, .allow = (const char *const *)s->allow,
				      .mode = VH_ATTACH_RW_EXCL, .pool = s->to.pool, .volume = s->to.name};
	char recorded[32] = "";
	int ret;

	for (unsigned k = 0; k < s->create.n; k++) /* there is nothing to make: the format's options are for opening */
		if (g_str_has_prefix(s->create.v[k].key, "format."))
			kvs_add(&s->open, s->create.v[k].key + 7, s->create.v[k].value);
	/* The default of --format is for new ones. */
	ret = store_format_get(s->to.pool, s->to.name, recorded, e);
	is.format = recorded[0] ? NULL : vh_opt_str(o, "format", NULL);
	if (!ret)
		ret = store_image_open(&is, &s->old, e);
	if (ret)
		return s->old = NULL, cmd_target_error(s->c, &s->to, ret, e);
	s->v.dst = store_image_fmt(s->old);
	s->v.fresh = (int)vh_opt_num(o, "target-is-zero", 0);
	return 0;
}

static int open_target(struct job_spec *s, const char *arg, struct vh_job *j, struct vh_err *e)
{
	const struct vh_opts *o = s->c->opts;
	const char *format = vh_opt_str(o, "format", "raw");
	int old = (int)vh_opt_num(o, "no-create", 0), ret;

	s->v.dst_name = arg;
	s->to_pipe = !strcmp(arg, "-");
	if (s->to_pipe && old)
		return err_usage(e, "--no-create needs a target with a name");
	if (s->to_pipe) {
		g_autofree char *path = NULL;

		s->v.dst_name = "standard output";
		s->v.dst_fd = STDOUT_FILENO;
		if (isatty(STDOUT_FILENO))
			return err_usage(e, "a disk is not written to a terminal");
		if (!strcmp(format, "raw") && !s->v.compress)
			return 0;
		path = g_strdup_printf("%s/vhost-%d.image", g_get_tmp_dir(), (int)getpid());
		return new_target(s, path, j, e);
	}
	ret = cmd_target_open(s->c, arg, old, &s->to, e);
	if (!ret)
		ret = in_use(s, e);
	if (ret)
		return ret;
	if (old)
		return old_target(s, e);
	return new_target(s, strcmp(s->c->cmd->noun, "vol") ? arg : NULL, j, e);
}

static int finish(struct job_spec *s, struct vh_err *e)
{
	int ret = 0;

	if (s->target) {
		struct store_target *t = s->target;

		s->target = NULL;
		return s->to_pipe ? store_target_send(t, STDOUT_FILENO, e) : store_target_finish(t, e);
	}
	if (s->old)
		ret = fmt_flush(s->v.dst, e);
	else if (fdatasync(s->v.dst_fd) < 0 && errno != EINVAL && errno != EROFS && errno != ENOTSUP)
		ret = err_set(e, -errno, "standard output: %s", g_strerror(errno));
	return ret;
}

static void js_counts(JsonBuilder *b, void *ctx)
{
	const struct convert *v = ctx;

	js_bytes(b, "disk_bytes", v->bytes);
	js_bytes(b, "written", v->written);
	js_bytes(b, "shared", v->shared);
	js_bytes(b, "zero", v->zero);
	js_bytes(b, "same", v->same);
}

static void job_spec_clear(struct job_spec *s)
{
	store_target_drop(s->target);
	store_image_close(s->old);
	store_image_close(s->src);
	cmd_volume_close(&s->from);
	cmd_volume_close(&s->to);
	kvs_clear(&s->source_opts);
	kvs_clear(&s->create);
	kvs_clear(&s->open);
	g_strfreev(s->allow);
	g_free(s->holder);
}

static int check_options(const struct vh_opts *o, struct vh_err *e)
{
	int old = (int)vh_opt_num(o, "no-create", 0);

	if (vh_opt_num(o, "target-is-zero", 0) && !old)
		return err_usage(e, "--target-is-zero goes with --no-create; a new target is known to be zeros");
	if (old && vh_opt_str(o, "backing", NULL))
		return err_usage(e, "--backing goes with new targets");
	if (vh_opt_str(o, "backing-format", NULL) && !vh_opt_str(o, "backing", NULL))
		return err_usage(e, "--backing-format goes with --backing");
	if (vh_opt_str(o, "compress-level", NULL) && !vh_opt_num(o, "compress", 0))
		return err_usage(e, "--compress-level goes with --compress");
	return 0;
}

static int copy(struct cmd_ctx *c, int dd, struct vh_err *e)
{
	const struct vh_opts *o = c->opts;
	int to_pipe = !strcmp(c->args[1], "-"), done;
	struct job_spec s = {.c = c, .v = {.src_fd = -1, .dst_fd = -1, .parallel = (unsigned)vh_opt_num(o, "parallel", 0),
					   .compress = (int)vh_opt_num(o, "compress", 0), .no_share = !vh_opt_num(o, "reflink", 1),
					   .rate = (uint64_t)vh_opt_num(o, "rate-limit", 0)}};
	int64_t sparse = vh_opt_num(o, "sparse", -1);
	struct vh_job j;
	int ret = check_options(o, e);

	if (ret)
		return ret;
	/* Codecs take and give back a few hundred KiB for every unit: not to the kernel and back, page by page, each time. */
	mallopt(M_MMAP_THRESHOLD, 8 << 20);
	mallopt(M_TRIM_THRESHOLD, 16 << 20);
	s.allow = store_allow(o);
	s.holder = g_strdup_printf("pid %d vhost %s %s", (int)getpid(), c->cmd->noun, c->cmd->verb);
	s.v.grain = sparse < 0 ? 0 : sparse ? (uint64_t)sparse : CONVERT_ALL;
	job_begin(&j, "converting", c->quiet || c->json || to_pipe);
	ret = sort_options(&s, e);
	if (!ret)
		ret = open_source(&s, c->args[0], e);
	if (!ret && dd) {
		uint64_t bs = (uint64_t)vh_opt_num(o, "block-size", 512), count = (uint64_t)vh_opt_num(o, "count", INT64_MAX), n;

		if (__builtin_mul_overflow((uint64_t)vh_opt_num(o, "skip", 0), bs, &s.v.src_off))
			s.v.src_off = s.v.bytes;
		s.v.src_off = MIN(s.v.src_off, s.v.bytes);
		s.v.bytes -= s.v.src_off;
		if (!__builtin_mul_overflow(count, bs, &n))
			s.v.bytes = MIN(s.v.bytes, n);
		if (!s.v.src && s.v.src_off)
			ret = err_usage(e, "nothing of a pipe can be left out");
	}
	if (!ret)
		ret = open_target(&s, c->args[1], &j, e);
	done = ret == -EALREADY;
	if (done)
		ret = 0;
	if (!ret && !done)
		ret = convert_run(&s.v, &j, e);
	if (!ret && !done)
		ret = finish(&s, e);
	job_end(&j);
	if (ret && s.to.pool)
		cmd_target_error(c, &s.to, ret, e);
	if (!ret && !to_pipe)
		cmd_target_done(c, &s.to, s.old ? "written" : "created", js_counts, &s.v);
	job_spec_clear(&s);
	return ret;
}

int img_run_convert(struct cmd_ctx *c, struct vh_err *e)
{
	return copy(c, 0, e);
}

int img_run_dd(struct cmd_ctx *c, struct vh_err *e)
{
	return copy(c, 1, e);
}
