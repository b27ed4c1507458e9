/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* What checks build on: the host that plugins get, guarded memory, options, random numbers. */
#include <glib.h>
#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <vhost/filter.h>
#include "check.h"
#include "plug/object.h"

/* ---- services that no layer has registered: present, of the right size, and an error to use ---- */

static void inert(void)
{
	static const char text[] = "the plugin used a service outside of any call that may use it\n";

	if (write(2, text, sizeof(text) - 1) < 0)
		_exit(3);
	abort();
}

#define INERT(type, n) \
	static struct type inert_##type; \
	_Static_assert(sizeof(struct type) == 8 + (n) * sizeof(void *), "a table of n pointers")
INERT(vh_io_ops, 3);
INERT(vh_meta_ops, 7);
INERT(vh_lower_ops, 4);

static const void *fill_inert(void *table, uint32_t size)
{
	memcpy(table, &size, sizeof(size));
	for (uint32_t at = 8; at < size; at += sizeof(void *)) {
		void (*fn)(void) = inert;

		memcpy((char *)table + at, &fn, sizeof(fn));
	}
	return table;
}

const struct vh_io_ops *check_io;

const void *check_service(const char *iid)
{
	const void *t = plug_service(iid);

	if (iid && check_io && !strcmp(iid, VH_SVC_IO))
		return check_io;

	if (t || !iid)
		return t;
	if (!strcmp(iid, VH_SVC_IO))
		return fill_inert(&inert_vh_io_ops, sizeof(inert_vh_io_ops));
	if (!strcmp(iid, VH_SVC_META))
		return fill_inert(&inert_vh_meta_ops, sizeof(inert_vh_meta_ops));
	if (!strcmp(iid, VH_SVC_LOWER))
		return fill_inert(&inert_vh_lower_ops, sizeof(inert_vh_lower_ops));
	return NULL;
}

static const void *host_service(const struct vh_host *h, const char *iid)
{
	return check_service(iid);
}

static int host_verr(struct vh_err *e, int code, const char *fmt, va_list ap)
{
	return plug_host.verr(e, code, fmt, ap);
}

static int host_err(struct vh_err *e, int code, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	code = plug_host.verr(e, code, fmt, ap);
	va_end(ap);
	return code;
}

static void host_remedy(struct vh_err *e, const char *fmt, ...)
{
	g_autofree char *text = NULL;
	va_list ap;

	va_start(ap, fmt);
	text = g_strdup_vprintf(fmt, ap);
	va_end(ap);
	plug_host.remedy(e, "%s", text);
}

const struct vh_host check_host = {.size = sizeof(check_host), .minor = VH_ABI_MINOR, .service = host_service,
	.err = host_err, .verr = host_verr, .remedy = host_remedy};

/* ---- loading ---- */

static GSList *images;

static void load(struct check_ctx *c)
{
	struct plug_file f;
	struct vh_err e = {0};
	int r;

	if (c->loaded)
		return;
	r = plug_file_open(c->path, &f, &e);
	if (!r)
		r = plug_image_load(&f, &check_host, &c->image, &e);
	CHECK(c, !r, "it does not load: %s", e.cause ? e.cause : g_strerror(-r));
	plug_file_close(&f);
	err_clear(&e);
	/* A plugin stays mapped, and so do its tables: they outlive the check, which with --in-process is not the process. */
	images = g_slist_prepend(images, g_memdup2(&c->image, sizeof c->image));
	c->loaded = 1;
}

static unsigned kind_index(uint32_t kind)
{
	return (unsigned)(plug_table_by_kind(kind) - plug_tables);
}

const void *check_load(struct check_ctx *c, uint32_t kind)
{
	load(c);
	return kind ? c->image.table[kind_index(kind)] : NULL;
}

const void *check_raw(struct check_ctx *c, uint32_t kind)
{
	load(c);
	return c->image.raw[kind_index(kind)];
}

void *check_pool_open(struct check_ctx *c, const struct vh_pool_ops **ops)
{
	const struct vh_pool_ops *p = check_load(c, VH_KIND_POOL);
	const struct vh_opts *o = check_opts(c, p->pool_options, "");
	struct vh_err e = {0};
	void *pool = NULL;
	int r = p->make ? p->make(o, NULL, &e) : 0;

	CHECK(c, !r, "make() failed: %d %s", r, e.cause ? e.cause : "");
	r = p->open(o, plug_object_new(), &pool, &e);
	CHECK(c, !r, "open() failed: %d %s", r, e.cause ? e.cause : "");
	*ops = p;
	return pool;
}

/* ---- options ---- */

static int wanted(const struct kvs *set, const char *prefix, const char *name)
{
	g_autofree char *key = g_strconcat(prefix, name, NULL);

	return !!kvs_get(set, key);
}

const struct vh_opts *check_opts(struct check_ctx *c, vh_schema schema, const char *prefix)
{
	struct vh_opt *opt;
	unsigned n = schema_import(schema, &opt), at = 0;
	struct kvs given = {.v = g_new0(struct kv, n + c->set->n + 1)};
	struct optset *s = NULL;
	struct vh_err e = {0};

	for (unsigned i = 0; i < c->set->n; i++) {
		const char *key = c->set->v[i].key;

		if (key && (*prefix ? g_str_has_prefix(key, prefix) : !strchr(key, '.')))
			given.v[at++] = (struct kv){(char *)key + strlen(prefix), c->set->v[i].value};
	}
	for (unsigned i = 0; i < n; i++) {
		if (!(opt[i].flags & VH_OPT_REQUIRED) || wanted(c->set, prefix, opt[i].name))
			continue;
		if (opt[i].type != VH_OPT_PATH)
			check_skip(c, "the option %s is required: give it with --set %s%s=VALUE", opt[i].name, prefix, opt[i].name);
		given.v[at++] = (struct kv){(char *)opt[i].name, (char *)check_folder(c)};
	}
	given.n = at;
	CHECK(c, !optset_parse(schema, &given, "options", &s, &e), "%s (--set?)", e.cause);
	return optset_get(s);
}

/* ---- memory, folders, random numbers ---- */

void *check_guarded(const void *data, size_t n, size_t tail)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), len = (n + tail + page - 1) / page * page;
	char *m = mmap(NULL, len + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (m == MAP_FAILED || mprotect(m + len, page, PROT_NONE) < 0)
		abort(); /* the kit's own; nothing can be checked without memory */
	memset(m, 0xdb, len);
	memcpy(m + len - n - tail, data, n);
	return m + len - n - tail;
}

const char *check_folder(struct check_ctx *c)
{
	static unsigned n;
	char *d = g_strdup_printf("%s/%u", c->tmp, n++);

	CHECK(c, !g_mkdir(d, 0755), "the kit itself failed: no folder %s", d);
	return d;
}

uint64_t check_random(struct check_ctx *c)
{
	/* splitmix64 */
	uint64_t z = c->random += UINT64_C(0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
	return z ^ z >> 31;
}

uint64_t check_below(struct check_ctx *c, uint64_t bound)
{
	return bound ? check_random(c) % bound : 0;
}
