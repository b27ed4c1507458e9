/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Disks of a VM: which volume, in which format, through which filter, with which policies. On the way of a starting VM:
 * no folder is read, nothing is stat'ed twice. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vhost/sugar.h>
#include "fmt/options.h"
#include "store/store-i.h"

static const char *const engines[] = {"auto", "aio", "uring", "threads", NULL};
static const char *const caches[] = {"none", "writeback", NULL};
static const char *const policies[] = {"report", "stop", "stop-enospc", NULL};

#define OPT(NAME, TYPE, DOC, ...)                                                                                      \
	&(const struct vh_opt){.size = sizeof(struct vh_opt), .name = NAME, .type = TYPE, .doc = DOC, ##__VA_ARGS__}

static const struct vh_opt *const options[] = {
	OPT("volume", VH_OPT_STR, "The volume, as POOL/VOLUME; with type=, its name there", .flags = VH_OPT_MAIN),
	OPT("path", VH_OPT_PATH, "A file that is in no pool"),
	OPT("type", VH_OPT_STR, "An ad hoc pool of this type; its options are pool.OPTION=VALUE"),
	OPT("format", VH_OPT_STR, "The disk format, where none is recorded; its options are format.OPTION=VALUE"),
	OPT("readonly", VH_OPT_BOOL, "The guest may only read; others may read as well", .defval = "off"),
	OPT("engine", VH_OPT_ENUM, "How files and devices are read and written", .defval = "auto", .choices = engines),
	OPT("cache", VH_OPT_ENUM, "none: past the host's page cache; writeback: through it", .defval = "none",
	    .choices = caches),
	OPT("serial", VH_OPT_STR, "The serial number that the guest sees", .min = 1, .max = 20),
	OPT("queues", VH_OPT_INT, "Queues; one per vCPU if not given", .min = 1, .max = 256),
	OPT("filter", VH_OPT_STR, "A filter plugin over the volume; its options are filter.OPTION=VALUE"),
	OPT("on-error", VH_OPT_ENUM, "What a failed request does: report it to the guest, stop the guest, or stop it only "
	    "when space is out", .defval = "stop-enospc", .choices = policies),
	OPT("allow", VH_OPT_PATH, "A folder beside the pool's whose files the image may refer to", .flags = VH_OPT_REPEAT),
	OPT("io-timeout", VH_OPT_DURATION, "After this time without an answer a request is late, and given up where the pool can",
	    .min = 1000000, .max = INT64_C(86400000000000)),
	NULL};
const vh_schema disk_options = options;

/* A disk's specification, taken apart. */
struct spec {
	struct kvs plain, pool, format, filter; /* arrays of our own, strings of the caller's */
	struct optset *set;
	const struct vh_opts *o;
	const char *volume_opt, *path, *type, *format_name, *filter_name;
	char *pool_name, *volume;
	struct store_pool *file_pool; /* of path= */
	int read_only;
};

static void spec_clear(struct spec *s)
{
	g_free(s->plain.v);
	g_free(s->pool.v);
	g_free(s->format.v);
	g_free(s->filter.v);
	optset_free(s->set);
	g_free(s->pool_name);
	g_free(s->volume);
	store_pool_close(s->file_pool);
}

static int spec_parse(struct spec *s, const struct kvs *given, struct vh_err *e)
{
	static const char *const prefixes[] = {"pool.", "format.", "filter."};
	struct kvs *const parts[] = {&s->pool, &s->format, &s->filter};
	int ret;

	memset(s, 0, sizeof(*s));
	s->plain.v = g_new0(struct kv, given->n + 1);
	for (unsigned i = 0; i < given->n; i++) {
		unsigned j = 0;

		while (j < 3 && (!given->v[i].key || strncmp(given->v[i].key, prefixes[j], strlen(prefixes[j]))))
			j++;
		if (j == 3)
			s->plain.v[s->plain.n++] = given->v[i];
	}
	for (unsigned j = 0; j < 3; j++)
		kvs_with_prefix(given, prefixes[j], parts[j]);
	ret = optset_parse(disk_options, &s->plain, "disk", &s->set, e);
	if (ret)
		return ret;
	s->o = optset_get(s->set);
	s->volume_opt = vh_opt_str(s->o, "volume", NULL);
	s->path = vh_opt_str(s->o, "path", NULL);
	s->type = vh_opt_str(s->o, "type", NULL);
	s->format_name = vh_opt_str(s->o, "format", NULL);
	s->filter_name = vh_opt_str(s->o, "filter", NULL);
	s->read_only = (int)vh_opt_num(s->o, "readonly", 0);
	err_object(e, "disk");
	if (s->path ? s->volume_opt || s->type : !s->volume_opt) {
		err_remedy(e, "give POOL/VOLUME, or path=FILE, or type=POOLTYPE,volume=NAME");
		return err_usage(e, s->path ? "path= stands alone: it names the file and its folder" : "it names no volume");
	}
	if (s->pool.n && !s->type)
		return err_usage(e, "pool.%s= belongs to type=", s->pool.v[0].key);
	if (s->filter.n && !s->filter_name)
		return err_usage(e, "filter.%s= belongs to filter=", s->filter.v[0].key);
	if (e)
		g_clear_pointer(&e->object, g_free);
	if (s->path) {
		if (access(s->path, F_OK) < 0) {
			err_object(e, "file %s", s->path);
			return err_set(e, -errno, "%s", g_strerror(errno));
		}
		return store_file_pool(s->path, &s->file_pool, &s->volume, e);
	}
	if (s->type) {
		s->volume = g_strdup(s->volume_opt);
		return 0;
	}
	return store_name_split(s->volume_opt, &s->pool_name, &s->volume, e);
}

static int spec_open_pool(struct spec *s, struct store_pool **out, struct vh_err *e)
{
	if (s->path) {
		*out = g_steal_pointer(&s->file_pool);
		return 0;
	}
	if (s->type)
		return store_pool_open_type(s->type, &s->pool, out, e);
	return store_pool_open(s->pool_name, out, e);
}

static char *spec_label(const struct spec *s)
{
	if (s->path)
		return g_strdup(s->path);
	return s->type ? g_strdup_printf("%s:%s", s->type, s->volume) : g_strdup_printf("%s/%s", s->pool_name, s->volume);
}

static int put_filter(const struct spec *s, const struct blk_config *c, struct blk_vol **v, struct vh_err *e)
{
	const struct vh_filter_ops *ops;
	struct optset *set = NULL;
	struct blk_vol *over = NULL;
	int ret = plug_filter(s->filter_name, &ops, e);

	if (!ret)
		ret = optset_parse(ops->options, &s->filter, s->filter_name, &set, e);
	if (!ret)
		ret = blk_vol_filter(*v, ops, optset_get(set), c, &over, e);
	if (ret)
		blk_vol_put(*v);
	*v = ret ? NULL : over;
	optset_free(set);
	return ret;
}

struct open_disk {
	struct disk d;
	struct resolver resolver;
	char *holder;
	char **allow;
};

static int open_once(const struct kvs *given, const char *holder, void (*stopped)(void *ctx, const char *label, int error),
		     void *stopped_ctx, int other, int *undecided, struct disk **out, struct vh_err *e)
{
	struct open_disk *d = g_new0(struct open_disk, 1);
	const struct vh_format_ops *ops;
	struct fmt_options opts = {0};
	struct blk_config blk = {0};
	struct blk_vol *vol = NULL;
	struct spec s;
	char format[32];
	int64_t policy;
	int ret = spec_parse(&s, given, e);

	if (ret)
		goto out;
	d->d.label = spec_label(&s);
	d->d.read_only = s.read_only;
	d->d.queues = (unsigned)vh_opt_num(s.o, "queues", 0);
	g_strlcpy(d->d.serial, vh_opt_str(s.o, "serial", ""), sizeof(d->d.serial));
	d->holder = g_strdup(holder);
	ret = spec_open_pool(&s, &d->d.pool, e);
	if (!ret)
		ret = store_format_pick(d->d.pool, s.volume, s.format_name, format, e);
	if (!ret)
		ret = plug_format(format, &ops, e);
	if (!ret)
		ret = fmt_options_parse(ops, &s.format, format, &opts, e);
	if (!ret)
		/* Raw volumes refer to nothing: their chain needs no identities. */
		ret = resolver_init(&d->resolver, d->d.pool, ops->inspect ? s.volume : NULL, d->holder, e);
	if (ret)
		goto out;
	blk.engine = (enum blk_engine)vh_opt_num(s.o, "engine", 0);
	blk.io_timeout_ns = (uint64_t)vh_opt_num(s.o, "io-timeout", 0);
	blk.label = d->d.label;
	blk.read_only = s.read_only;
	d->resolver.attach_flags = vh_opt_num(s.o, "cache", 0) ? VH_ATTACH_BUFFERED : 0;
	d->resolver.blk = blk;
	d->resolver.other = other;
	d->allow = store_allow(s.o);
	d->resolver.allow = (const char *const *)d->allow;
	struct store_attach a = {.name = s.volume, .holder = d->holder, .flags = d->resolver.attach_flags, .blk = blk,
				 .mode = s.read_only ? VH_ATTACH_RO : VH_ATTACH_RW_EXCL};
	ret = store_attach(d->d.pool, &a, &vol, e);
	if (!ret && s.filter_name)
		ret = put_filter(&s, &blk, &vol, e);
	if (ret)
		goto out;
	policy = vh_opt_num(s.o, "on-error", FMT_STOP_ENOSPC);
	struct fmt_spec fs = {
		.vol = vol, .ops = ops, .opts = optset_get(opts.set), .below = &opts.below, .read_only = s.read_only,
		.resolve = resolver_open, .resolve_layer = resolver_layer, .resolve_ctx = &d->resolver, .label = d->d.label,
		.on_read_error = policy == FMT_STOP ? FMT_STOP : FMT_REPORT, .on_write_error = (enum fmt_policy)policy,
		.stopped = stopped, .stopped_ctx = stopped_ctx};
	ret = fmt_open(&fs, &d->d.image, e);
out:
	fmt_options_clear(&opts);
	spec_clear(&s);
	*undecided = d->resolver.undecided;
	if (ret) {
		err_object(e, "disk %s", d->d.label ? d->d.label : "");
		d->d.image = NULL;
		disk_close(&d->d);
		return ret;
	}
	*out = &d->d;
	return 0;
}

int disk_open(const struct kvs *given, const char *holder, void (*stopped)(void *ctx, const char *label, int error),
	      void *stopped_ctx, struct disk **out, struct vh_err *e)
{
	int undecided = 0, ret;
	ERR_AUTO(first);

	ret = open_once(given, holder, stopped, stopped_ctx, 0, &undecided, out, &first);
	if (ret && undecided && !open_once(given, holder, stopped, stopped_ctx, 1, &undecided, out, NULL))
		return 0;
	if (ret)
		err_move(e, &first);
	return ret;
}

void disk_close(struct disk *disk)
{
	struct open_disk *d = (struct open_disk *)disk;

	if (!d)
		return;
	if (d->d.image)
		fmt_close(d->d.image);
	resolver_clear(&d->resolver);
	store_pool_close(d->d.pool);
	g_free(d->d.label);
	g_free(d->holder);
	g_strfreev(d->allow);
	g_free(d);
}

static void say(void (*step)(void *ctx, const char *text), void *ctx, const char *fmt, ...) G_GNUC_PRINTF(3, 4);
static void say(void (*step)(void *ctx, const char *text), void *ctx, const char *fmt, ...)
{
	g_autofree char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	step(ctx, text);
}

static int plan(struct spec *s, void (*step)(void *ctx, const char *text), void *ctx, struct vh_err *e)
{
	const struct vh_format_ops *ops;
	struct store_pool *pool = NULL;
	struct fmt_options opts = {0};
	struct vh_vol_stat st;
	char path[4096] = "", format[32];
	int ret = spec_open_pool(s, &pool, e);

	if (ret)
		return ret;
	say(step, ctx, "open the %s pool %s", pool->type, pool->label);
	ret = store_vol_stat(pool, s->volume, &st, e);
	if (!ret)
		ret = store_format_pick(pool, s->volume, s->format_name, format, e);
	if (!ret)
		ret = plug_format(format, &ops, e);
	if (!ret)
		ret = fmt_options_parse(ops, &s->format, format, &opts, e);
	fmt_options_clear(&opts);
	if (!ret) {
		g_autofree char *size = format_size(st.bytes);

		if (pool->ops->path && pool->ops->path(pool->pool, s->volume, path, sizeof(path), NULL))
			path[0] = 0;
		path[sizeof(path) - 1] = 0;
		say(step, ctx, "attach the volume %s (%s%s%s), %s", s->volume, size, path[0] ? ", " : "", path,
		    s->read_only ? "shared with readers" : "for this VM alone");
		if (st.flags & VH_STAT_IN_USE)
			say(step, ctx, "note: somebody uses this volume now");
		if (s->filter_name)
			say(step, ctx, "put the filter %s over it", s->filter_name);
		say(step, ctx, "read it as %s, engine %s, cache %s, on errors %s", format, vh_opt_str(s->o, "engine", ""),
		    vh_opt_str(s->o, "cache", ""), vh_opt_str(s->o, "on-error", ""));
	}
	store_pool_close(pool);
	return ret;
}

int disk_plan(const struct kvs *given, void (*step)(void *ctx, const char *text), void *ctx, struct vh_err *e)
{
	struct store_def def = {0};
	struct spec s;
	int ret = spec_parse(&s, given, e);

	/* Opening the built-in pool would make it; a plan makes nothing. */
	if (!ret && s.pool_name && !store_def_load(s.pool_name, &def, NULL) && def.builtin &&
	    !g_file_test(kvs_get(&def.options, "path"), G_FILE_TEST_IS_DIR)) {
		say(step, ctx, "make the pool %s in %s", s.pool_name, kvs_get(&def.options, "path"));
		err_object(e, "disk %s/%s", s.pool_name, s.volume);
		ret = err_set(e, -ENOENT, "there is no such volume");
	} else if (!ret) {
		g_autofree char *label = spec_label(&s);

		ret = plan(&s, step, ctx, e);
		if (ret)
			err_object(e, "disk %s", label);
	}
	store_def_clear(&def);
	spec_clear(&s);
	return ret;
}
