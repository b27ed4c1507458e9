/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * Group SKEW: an older or newer host against this plugin, and this plugin as an older one against the host. Tables end at
 * inaccessible memory or go on with a poisoned tail, so that whoever looks past `size` is caught.
 */
#include <dlfcn.h>
#include <glib.h>
#include <string.h>
#include "check.h"
#include "plug/object.h"

#define RULES "docs/abi.md#version-rules"
#define TAIL 256

/* The host's tables as each released minor had them; a plugin may count on nothing past its own minor's. 1.0 is the first:
 * a release adds a row and never changes one. */
static const struct {
	uint32_t minor, host;
} released[] = {
	{0, sizeof(struct vh_host)},
};

static const char *const services[] = {VH_SVC_LOG, VH_SVC_LOOP, VH_SVC_IO, VH_SVC_EVENT, VH_SVC_META, VH_SVC_JOB,
	VH_SVC_SECRET, VH_SVC_STATS, VH_SVC_LOWER, NULL};

/* ---- volumes of an image, in memory: what vh.meta/1 reads and writes here ---- */

struct vh_meta {
	uint64_t bytes;
	char data[8 << 20];
};

static int meta_read(struct vh_meta *m, void *buf, uint64_t len, uint64_t off)
{
	memset(buf, 0, len);
	if (off < m->bytes)
		memcpy(buf, m->data + off, MIN(len, m->bytes - off));
	return 0;
}

static int meta_write(struct vh_meta *m, const void *buf, uint64_t len, uint64_t off)
{
	if (off > m->bytes || len > m->bytes - off)
		return -ENOSPC;
	memcpy(m->data + off, buf, len);
	return 0;
}

static int meta_zero(struct vh_meta *m, uint64_t len, uint64_t off)
{
	if (off > m->bytes || len > m->bytes - off)
		return -ENOSPC;
	memset(m->data + off, 0, len);
	return 0;
}

static int meta_flush(struct vh_meta *m)
{
	return 0;
}

static uint64_t meta_bytes(struct vh_meta *m)
{
	return m->bytes;
}

static int meta_resize(struct vh_meta *m, uint64_t bytes)
{
	if (bytes > sizeof(m->data))
		return -ENOSPC;
	m->bytes = bytes;
	return 0;
}

static int meta_discard(struct vh_meta *m, uint64_t len, uint64_t off)
{
	return 0;
}

static const struct vh_meta_ops meta_service = {.size = sizeof(meta_service), .read = meta_read, .write = meta_write,
	.zero = meta_zero, .flush = meta_flush, .bytes = meta_bytes, .resize = meta_resize, .discard = meta_discard};

/* ---- a host whose services can be bent ---- */

static size_t service_tail;
static int service_guard;
static const char *service_missing; /* "": all */

static const void *bent_service(const struct vh_host *h, const char *iid)
{
	const void *t = iid && !strcmp(iid, VH_SVC_META) ? &meta_service : check_service(iid);
	uint32_t size;
	char *copy;

	if (!t || (service_missing && (!*service_missing || !strcmp(iid, service_missing))))
		return NULL;
	if (!service_guard && !service_tail)
		return t;
	memcpy(&size, t, sizeof(size));
	copy = check_guarded(t, size, service_tail);
	size += (uint32_t)service_tail;
	memcpy(copy, &size, sizeof(size));
	return copy;
}

static const struct vh_host *bent_host(uint32_t size, uint32_t minor, size_t tail)
{
	struct vh_host h = check_host, *copy;

	h.size = size + (uint32_t)tail;
	h.minor = minor;
	h.service = bent_service;
	copy = check_guarded(&h, size, tail);
	return copy;
}

/* Maps the plugin and calls its entry with that host; the descriptor and every table are taken as the core takes them. */
static int enter(struct check_ctx *c, const struct vh_host *h)
{
	const struct vh_plugin *p = NULL;
	void *lib = dlopen(c->path, RTLD_NOW | RTLD_LOCAL);
	vh_plugin_entry_fn *entry;
	struct vh_err e = {0};
	int r;

	CHECK(c, lib, "cannot be mapped: %s", dlerror());
	*(void **)&entry = dlsym(lib, VH_PLUGIN_ENTRY);
	CHECK(c, entry, "no entry");
	r = entry(h, &p);
	if (r)
		return r;
	CHECK(c, p, "its entry gave no descriptor");
	CHECK(c, !plug_image_take(&c->note, p, &c->image, &e), "%s", e.cause);
	return 0;
}

static void skew_host_released(struct check_ctx *c)
{
	for (unsigned i = 0; i < G_N_ELEMENTS(released); i++) {
		int r = enter(c, bent_host(released[i].host, released[i].minor, 0));

		CHECK(c, !r, "its entry returned %d to a host of minor %u", r, released[i].minor);
	}
}

static void skew_host_newer(struct check_ctx *c)
{
	int r = enter(c, bent_host(sizeof(struct vh_host), VH_ABI_MINOR + 7, TAIL));

	CHECK(c, !r, "its entry returned %d to a host whose table is longer", r);
}

static void skew_services_exact(struct check_ctx *c)
{
	int r;

	service_guard = 1;
	r = enter(c, bent_host(sizeof(struct vh_host), VH_ABI_MINOR, 0));
	CHECK(c, !r, "its entry returned %d", r);
}

static void skew_services_newer(struct check_ctx *c)
{
	int r;

	service_tail = TAIL;
	r = enter(c, bent_host(sizeof(struct vh_host), VH_ABI_MINOR + 7, TAIL));
	CHECK(c, !r, "its entry returned %d to a host with longer services", r);
}

static void without(struct check_ctx *c, const char *which)
{
	int r;

	service_missing = which;
	r = enter(c, bent_host(sizeof(struct vh_host), VH_ABI_MINOR, 0));
	CHECK(c, r <= 0, "its entry returned %d", r);
	CHECK(c, !r || r == -EOPNOTSUPP, "without %s its entry returned %d; -EOPNOTSUPP says that the host lacks a service",
	      *which ? which : "any service", r);
}

static void skew_services_missing(struct check_ctx *c)
{
	for (unsigned i = 0; services[i]; i++)
		without(c, services[i]);
	without(c, "");
}

/* ---- the plugin as an older one: its own tables, cut ---- */

static void skew_desc_cut(struct check_ctx *c)
{
	check_load(c, 0);
	for (uint32_t size = 8; size <= c->image.theirs->size; size += 8) {
		struct plug_image image = {0};
		struct vh_plugin *cut;
		struct vh_err e = {0};
		int r, want = size >= VH_END(c->image.theirs, get);

		cut = check_guarded(c->image.theirs, size, 0);
		cut->size = size;
		r = plug_image_take(&c->note, cut, &image, &e);
		CHECK(c, (r == 0) == want, "the host %s a descriptor of %u bytes: %s", want ? "refused" : "took", size,
		      e.cause ? e.cause : "");
		if (!r)
			CHECK(c, size >= sizeof(*cut) || !image.desc.fini, "the host found fini in a descriptor of %u bytes", size);
	}
}

static void cut_table(struct check_ctx *c, const struct plug_table *t, const void *raw)
{
	uint32_t full;

	memcpy(&full, raw, 4);
	for (uint32_t size = 8; size <= full && size <= t->size; size += 8) {
		g_autofree char *ours = g_malloc(t->size);
		char *cut = check_guarded(raw, size, 0);
		struct vh_err e = {0};
		int r, want = 1;

		memcpy(cut, &size, 4);
		for (unsigned i = 0; i < t->n_members; i++)
			want &= !t->members[i].mandatory || t->members[i].off + t->members[i].size <= size;
		r = plug_table_import(t, cut, ours, &e);
		CHECK(c, (r == 0) == want, "the host %s a %s table of %u bytes: %s", want ? "refused" : "took", t->iid, size,
		      e.cause ? e.cause : "");
		for (unsigned i = 0; i < t->n_members; i++) {
			const struct plug_member *m = &t->members[i];
			uint64_t v = 0;

			memcpy(&v, ours + m->off, MIN(m->size, sizeof(v)));
			CHECK(c, m->off + m->size <= size || !v, "the host found %s in a %s table of %u bytes", m->name, t->iid, size);
		}
	}
}

static void skew_tables_cut(struct check_ctx *c)
{
	check_load(c, 0);
	for (unsigned i = 0; i < PLUG_TABLES; i++)
		if (c->image.raw[i])
			cut_table(c, &plug_tables[i], c->image.raw[i]);
}

static void skew_tables_longer(struct check_ctx *c)
{
	check_load(c, 0);
	for (unsigned i = 0; i < PLUG_TABLES; i++) {
		const struct plug_table *t = &plug_tables[i];
		g_autofree char *ours = g_malloc(t->size);
		struct vh_err e = {0};
		uint32_t size;
		char *copy;

		if (!c->image.raw[i])
			continue;
		memcpy(&size, c->image.raw[i], 4);
		copy = check_guarded(c->image.raw[i], size, TAIL);
		size += TAIL;
		memcpy(copy, &size, 4);
		CHECK(c, !plug_table_import(t, copy, ours, &e), "%s", e.cause);
		memcpy(&size, ours, 4);
		CHECK(c, size <= t->size, "the host's copy of %s claims %u bytes", t->iid, size);
	}
}

static void skew_unknown_flag(struct check_ctx *c)
{
	struct plug_image image = {0};
	struct vh_plugin p;
	struct vh_err e = {0};

	check_load(c, 0);
	p = c->image.desc;
	p.flags |= UINT64_C(1) << 31;
	CHECK(c, plug_image_take(&c->note, &p, &image, &e) == -EOPNOTSUPP, "the host took a flag that it must understand");
	p.flags = c->image.desc.flags | UINT64_C(1) << 62;
	memset(&e, 0, sizeof(e));
	CHECK(c, !plug_image_take(&c->note, &p, &image, &e), "the host refused a flag that it may ignore: %s", e.cause);
}

/* ---- structs of calls ---- */

/* The plugin fills an out-struct only below the size that the caller set. */
static void short_out(struct check_ctx *c, const char *what, uint32_t full, int (*call)(void *ctx, void *s), void *ctx)
{
	for (uint32_t size = 8; size <= full; size += 8) {
		char *s = check_guarded("", 0, full + 64);
		int r;

		memset(s, 0xdb, full + 64);
		memset(s, 0, size);
		memcpy(s, &size, 4);
		r = call(ctx, s);
		CHECK(c, r <= 0, "%s returned %d", what, r);
		for (uint32_t i = size; i < full + 64; i++)
			CHECK(c, (unsigned char)s[i] == 0xdb, "%s wrote at byte %u of a struct of %u bytes", what, i, size);
	}
}

struct pool_call {
	const struct vh_pool_ops *ops;
	void *pool;
};
static int call_pool_info(void *ctx, void *s)
{
	struct pool_call *p = ctx;

	return p->ops->info(p->pool, s, NULL);
}
static int call_pool_stat(void *ctx, void *s)
{
	struct pool_call *p = ctx;

	return p->ops->stat(p->pool, "skewed", s, NULL);
}

static void skew_pool_structs(struct check_ctx *c)
{
	struct vh_vol_spec spec = {.size = sizeof(spec), .name = "skewed", .bytes = 1 << 20};
	struct pool_call p;
	struct vh_err e = {0};

	p.pool = check_pool_open(c, &p.ops);
	short_out(c, "info()", sizeof(struct vh_pool_info), call_pool_info, &p);
	if (p.ops->create && p.ops->caps & VH_POOL_CREATE) {
		int r;

		spec.opts = check_opts(c, p.ops->vol_create_options, "create.");
		r = p.ops->create(p.pool, &spec, NULL, &e);
		CHECK(c, !r, "create() failed: %d %s", r, e.cause ? e.cause : "");
		short_out(c, "stat()", sizeof(struct vh_vol_stat), call_pool_stat, &p);
	}
	p.ops->close(p.pool);
}

/* attach() with a flag that it must understand, and with a longer struct. */
static void skew_pool_attach(struct check_ctx *c)
{
	struct vh_vol_spec spec = {.size = sizeof(spec), .name = "skewed", .bytes = 1 << 20};
	struct vh_attach a = {.size = sizeof(a), .mode = VH_ATTACH_RO, .name = "skewed", .object = NULL,
		.holder = "vhost-plugin-check", .flags = UINT64_C(1) << 31};
	const struct vh_volume_ops *vo = NULL;
	const struct vh_pool_ops *ops;
	struct vh_attach *longer;
	struct vh_err e = {0};
	void *pool, *vol = NULL;
	int r;

	pool = check_pool_open(c, &ops);
	if (!ops->create || !(ops->caps & VH_POOL_CREATE))
		check_skip(c, "the pool cannot create volumes");
	spec.opts = check_opts(c, ops->vol_create_options, "create.");
	r = ops->create(pool, &spec, NULL, &e);
	CHECK(c, !r, "create() failed: %d %s", r, e.cause ? e.cause : "");
	r = ops->attach(pool, &a, &vol, &vo, NULL);
	CHECK(c, r == -EOPNOTSUPP, "attach() with an unknown flag that must be understood returned %d, not -EOPNOTSUPP", r);
	a.flags = UINT64_C(1) << 62;
	longer = check_guarded(&a, sizeof(a), TAIL);
	longer->size = sizeof(a) + TAIL;
	r = ops->attach(pool, longer, &vol, &vo, &e);
	CHECK(c, !r, "attach() with a longer struct and a flag that may be ignored failed: %d %s", r, e.cause ? e.cause : "");
	CHECK(c, plug_volume_ops(vo), "the volume's table lacks info or close");
	vo->close(vol);
	ops->close(pool);
}

static void skew_net_flag(struct check_ctx *c)
{
	const struct vh_net_ops *ops = check_load(c, VH_KIND_NET);
	struct vh_net_open o = {.size = sizeof(o), .pairs = 1, .owner = "vhost:check:1:1:0", .mac = {2, 0, 0, 0, 0, 1},
		.flags = UINT64_C(1) << 31};
	void *port = NULL;
	int r;

	o.opts = check_opts(c, ops->options, "");
	o.state = check_folder(c);
	r = ops->open(&o, &port, NULL);
	CHECK(c, r == -EOPNOTSUPP, "open() with an unknown flag that must be understood returned %d, not -EOPNOTSUPP", r);
}

static void skew_format_flag(struct check_ctx *c)
{
	struct vh_meta *volume = g_new0(struct vh_meta, 1);
	struct vh_open o = {.size = sizeof(o), .n = 1, .volumes = &volume, .host_caps = ~UINT64_C(0)};
	struct vh_err e = {0};
	const struct vh_format_ops *ops;
	void *img = NULL;
	int r = enter(c, bent_host(sizeof(struct vh_host), VH_ABI_MINOR, 0));

	CHECK(c, !r, "its entry returned %d", r);
	ops = c->image.table[plug_table_by_kind(VH_KIND_FORMAT) - plug_tables];
	volume->bytes = sizeof(volume->data);
	o.object = plug_object_new();
	o.opts = check_opts(c, ops->open_options, "");
	if (ops->create) {
		struct vh_create cr = {.size = sizeof(cr), .bytes = 1 << 20, .volumes = &volume, .n = 1,
			.opts = check_opts(c, ops->create_options, "create.")};

		r = ops->create(&cr, NULL, &e);
		CHECK(c, !r, "create() failed: %d %s", r, e.cause ? e.cause : "");
	}
	o.flags = 0;
	if (ops->open(&o, &img, NULL))
		check_skip(c, "no image to open: it neither creates one nor opens an empty volume");
	ops->close(img);
	o.flags = UINT64_C(1) << 31;
	r = ops->open(&o, &img, NULL);
	CHECK(c, r == -EOPNOTSUPP, "open() with an unknown flag that must be understood returned %d, not -EOPNOTSUPP", r);
}

static const struct check checks[] = {
	{"skew-host-released", "it works with the host table of every released minor, and reads nothing past it", RULES,
	 skew_host_released, 0, 0},
	{"skew-host-newer", "a longer host table and a higher minor change nothing", RULES, skew_host_newer, 0, 0},
	{"skew-services-exact", "it reads nothing past the end of a service's table", RULES, skew_services_exact, 0, 0},
	{"skew-services-newer", "longer services change nothing", RULES, skew_services_newer, 0, 0},
	{"skew-services-missing", "without a service its entry works, or says -EOPNOTSUPP", RULES, skew_services_missing, 0, 0},
	{"skew-desc-cut", "its descriptor cut at every word is refused or understood, and nothing past it is read", RULES,
	 skew_desc_cut, 0, 0},
	{"skew-tables-cut", "its tables cut at every word are refused or understood, and nothing past them is read", RULES,
	 skew_tables_cut, 0, 0},
	{"skew-tables-longer", "its tables made longer are understood", RULES, skew_tables_longer, 0, 0},
	{"skew-unknown-flag", "an unknown flag that must be understood is refused, one that may be ignored is ignored", RULES,
	 skew_unknown_flag, 0, 0},
	{"skew-pool-structs", "info() and stat() write nothing past the caller's size", RULES, skew_pool_structs, VH_KIND_POOL, 0},
	{"skew-pool-attach", "attach() refuses unknown flags that must be understood, and takes a longer struct", RULES,
	 skew_pool_attach, VH_KIND_POOL, 0},
	{"skew-net-flag", "open() refuses unknown flags that must be understood", RULES, skew_net_flag, VH_KIND_NET, 0},
	{"skew-format-flag", "open() refuses unknown flags that must be understood", RULES, skew_format_flag, VH_KIND_FORMAT, 0},
	{0},
};
const struct check_group group_skew = {"SKEW", "older and newer hosts and plugins", checks};
