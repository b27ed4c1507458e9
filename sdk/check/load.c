/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* Group LOAD: the file, its note, its entry, its descriptor, its tables and schemas. */
#include <dlfcn.h>
#include <fcntl.h>
#include <glib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include "check.h"
#include "state.h"

#define LOADING "docs/abi.md#loading"
#define IDENTITY "docs/abi.md#identity"
#define TABLES "docs/abi.md#tables"
#define OPTIONS "docs/abi.md#options"

static void open_elf(struct check_ctx *c, struct elf_src *s, struct elf_dyn *d)
{
	struct vh_err e = {0};
	int fd = open(c->path, O_RDONLY | O_CLOEXEC);

	CHECK(c, fd >= 0, "cannot be opened: %s", g_strerror(errno));
	CHECK(c, !elf_open_fd(s, fd, &e), "%s", e.cause);
	if (d)
		CHECK(c, !elf_dyn_read(s, d, &e), "%s", e.cause);
}

static void load_note(struct check_ctx *c)
{
	struct plug_ident n;
	struct vh_err e = {0};
	struct elf_src s;

	open_elf(c, &s, NULL);
	CHECK(c, !note_read(&s, &n, &e), "%s", e.cause);
	CHECK(c, !note_check(&n, &e), "%s", e.cause);
	CHECK(c, n.kinds, "its note names no kind of interface");
	CHECK(c, !(n.kinds & ~(VH_KIND_POOL | VH_KIND_FORMAT | VH_KIND_NET | VH_KIND_FILTER)), "its note has unknown kinds: 0x%x",
	      n.kinds);
	for (unsigned i = (unsigned)strlen(n.id); i < VH_ID_MAX; i++)
		CHECK(c, !n.id[i], "the id in its note is not padded with NULs");
}

static void load_loads(struct check_ctx *c)
{
	check_load(c, 0);
}

static void load_one_symbol(struct check_ctx *c)
{
	struct elf_src s;
	struct elf_dyn d;
	int found = 0;

	open_elf(c, &s, &d);
	for (unsigned i = 0; d.exports[i]; i++) {
		CHECK(c, g_str_has_prefix(d.exports[i], "vh_plugin_entry_v"),
		      "it exports %s; build with -fvisibility=hidden, or with a version script", d.exports[i]);
		found |= !strcmp(d.exports[i], VH_PLUGIN_ENTRY);
	}
	CHECK(c, found, "it does not export %s", VH_PLUGIN_ENTRY);
}

static void load_hardened(struct check_ctx *c)
{
	struct elf_src s;
	struct elf_dyn d;

	open_elf(c, &s, &d);
	CHECK(c, !d.exec_stack, "it asks for an executable stack");
	CHECK(c, d.relro, "it has no RELRO segment; link with -Wl,-z,relro");
	CHECK(c, !d.textrel, "it has text relocations");
	CHECK(c, !d.runpath || !*d.runpath || *d.runpath == '/' || g_str_has_prefix(d.runpath, "$ORIGIN"),
	      "it searches libraries relative to the working directory: %s", d.runpath);
	for (unsigned i = 0; i < s.n_ph; i++)
		CHECK(c, !(s.ph[i].type == 1 && (s.ph[i].flags & 3) == 3), "a segment of it is both writable and executable");
}

/* A file opened, the plugin mapped and its entry called by hand, as plainly as can be. */
static const struct vh_plugin *enter(struct check_ctx *c, struct state *before, struct state *mapped, struct state *entered)
{
	vh_plugin_entry_fn *entry;
	const struct vh_plugin *p = NULL;
	void *h;
	int r;

	state_take(before);
	h = dlopen(c->path, RTLD_NOW | RTLD_LOCAL);
	CHECK(c, h, "cannot be mapped: %s", dlerror());
	if (mapped)
		state_take(mapped);
	*(void **)&entry = dlsym(h, VH_PLUGIN_ENTRY);
	CHECK(c, entry, "no entry");
	r = entry(&check_host, &p);
	CHECK(c, !r, "its entry returned %d", r);
	CHECK(c, p, "its entry gave no descriptor");
	if (entered)
		state_take(entered);
	return p;
}

static void load_leaves_state(struct check_ctx *c)
{
	struct state before, mapped, entered;
	char *diff;

	enter(c, &before, &mapped, &entered);
	diff = state_diff(&before, &mapped);
	CHECK(c, !diff, "mapping it changed the process: %s", diff);
	diff = state_diff(&mapped, &entered);
	CHECK(c, !diff, "its entry changed the process: %s", diff);
}

static void load_get_leaves_state(struct check_ctx *c)
{
	struct state before, entered, after;
	const struct vh_plugin *p = enter(c, &before, NULL, &entered);
	char *diff;

	for (unsigned i = 0; p->interfaces[i]; i++)
		p->get(p->interfaces[i]);
	state_take(&after);
	diff = state_diff(&entered, &after);
	CHECK(c, !diff, "get() changed the process: %s", diff);
}

static void load_silent(struct check_ctx *c)
{
	struct state before;
	const struct vh_plugin *p = enter(c, &before, NULL, NULL);

	for (unsigned i = 0; p->interfaces[i]; i++)
		p->get(p->interfaces[i]);
	fflush(NULL);
	CHECK(c, !lseek(1, 0, SEEK_END), "it wrote to standard output or error");
}

static void load_fini_leaves_nothing(struct check_ctx *c)
{
	struct state before, after;
	const struct vh_plugin *p = enter(c, &before, NULL, NULL);
	char *diff;

	if (!VH_HAS(p, fini))
		check_skip(c, "it has no fini");
	p->fini();
	state_take(&after);
	diff = state_diff(&before, &after);
	CHECK(c, !diff, "after fini() the process differs: %s", diff);
}

static void load_unknown_interface(struct check_ctx *c)
{
	const struct vh_plugin *p;

	check_load(c, 0);
	p = c->image.theirs;
	CHECK(c, !p->get("vh.teleport/9"), "get() gave a table for an interface that does not exist");
	CHECK(c, !p->get(""), "get() gave a table for an empty name");
	for (unsigned i = 0; i < PLUG_TABLES; i++) {
		g_autofree char *next = g_strdup(plug_tables[i].iid);

		next[strlen(next) - 1] = '9';
		CHECK(c, !p->get(next), "get() gave a table for %s", next);
		if (!(c->note.kinds & plug_tables[i].kind))
			CHECK(c, !p->get(plug_tables[i].iid), "get() gave a table of %s, which it does not list", plug_tables[i].iid);
	}
}

static void load_get_stable(struct check_ctx *c)
{
	check_load(c, 0);
	for (unsigned i = 0; i < PLUG_TABLES; i++)
		if (c->image.raw[i])
			CHECK(c, c->image.theirs->get(plug_tables[i].iid) == c->image.raw[i],
			      "get() gave another table of %s the second time", plug_tables[i].iid);
}

static void load_reserved(struct check_ctx *c)
{
	check_load(c, 0);
	for (unsigned i = 0; i < PLUG_TABLES; i++) {
		uint32_t resv;

		if (!c->image.raw[i])
			continue;
		memcpy(&resv, (const char *)c->image.raw[i] + 4, 4);
		CHECK(c, !resv, "the reserved word of its %s table is %u", plug_tables[i].iid, resv);
	}
}

static void load_text(struct check_ctx *c)
{
	const struct vh_plugin *d;
	const char *texts[4];

	check_load(c, 0);
	d = &c->image.desc;
	texts[0] = d->id;
	texts[1] = d->version;
	texts[2] = d->summary;
	texts[3] = d->license;
	for (unsigned i = 0; i < 4; i++) {
		CHECK(c, strlen(texts[i]) < 256 && !strchr(texts[i], '\n'), "a text of its descriptor is not one short line");
		CHECK(c, g_utf8_validate(texts[i], -1, NULL), "a text of its descriptor is not UTF-8");
	}
	CHECK(c, d->summary[strlen(d->summary) - 1] != '.', "its summary ends with a full stop");
}

/* A capability without the function that it promises. */
static void load_caps(struct check_ctx *c)
{
	const struct vh_format_ops *f = check_load(c, VH_KIND_FORMAT);
	const struct vh_pool_ops *p = check_load(c, VH_KIND_POOL);
	const struct vh_net_ops *n = check_load(c, VH_KIND_NET);

#define NEEDS(t, cap, fn) CHECK(c, !t || !(t->caps & cap) || t->fn, "it has the capability %s but no %s", #cap, #fn)
	NEEDS(p, VH_POOL_CREATE, create);
	NEEDS(p, VH_POOL_REMOVE, remove);
	NEEDS(p, VH_POOL_GROW, resize);
	NEEDS(p, VH_POOL_SHRINK, resize);
	NEEDS(p, VH_POOL_CLONE_FULL, clone);
	NEEDS(p, VH_POOL_CLONE_COW, clone);
	NEEDS(p, VH_POOL_SNAPSHOT, snapshot_create);
	NEEDS(p, VH_POOL_SNAPSHOT, snapshot_list);
	NEEDS(p, VH_POOL_SNAPSHOT, snapshot_remove);
	NEEDS(p, VH_POOL_META, meta_get);
	NEEDS(p, VH_POOL_META, meta_set);
	NEEDS(p, VH_POOL_MAKE, make);
	NEEDS(p, VH_POOL_FILES, path);
	NEEDS(f, VH_FMT_COMPRESSED, decode);
	NEEDS(f, VH_FMT_OPAQUE, read);
	NEEDS(n, VH_NET_SET_LINK, set_link);
	NEEDS(n, VH_NET_SET_FILTER, set_filter);
#undef NEEDS
}

static void check_schema(struct check_ctx *c, const char *what, vh_schema s)
{
	struct vh_err e = {0};

	CHECK(c, !schema_check(s, &e), "%s: %s", what, e.cause);
}

static void load_schemas(struct check_ctx *c)
{
	const struct vh_filter_ops *fi = check_load(c, VH_KIND_FILTER);
	const struct vh_format_ops *f = check_load(c, VH_KIND_FORMAT);
	const struct vh_pool_ops *p = check_load(c, VH_KIND_POOL);
	const struct vh_net_ops *n = check_load(c, VH_KIND_NET);

	if (p) {
		check_schema(c, "pool_options", p->pool_options);
		check_schema(c, "vol_create_options", p->vol_create_options);
	}
	if (f) {
		check_schema(c, "open_options", f->open_options);
		check_schema(c, "create_options", f->create_options);
	}
	if (n)
		check_schema(c, "options", n->options);
	if (fi)
		check_schema(c, "options", fi->options);
}

static const struct check checks[] = {
	{"load-note", "it has an identity note of this ABI and draft, with known kinds", IDENTITY, load_note, 0, 0},
	{"load-loads", "it passes the whole load sequence of the core", LOADING, load_loads, 0, 0},
	{"load-one-symbol", "it exports its entry and nothing else", LOADING, load_one_symbol, 0, 0},
	{"load-hardened", "no executable stack, RELRO, no text relocations, no relative search path", LOADING, load_hardened, 0, 0},
	{"load-leaves-state", "mapping and entry start no thread and leave fds, signals, folder, umask, locale and limits alone",
	 LOADING, load_leaves_state, 0, 0},
	{"load-get-leaves-state", "get() leaves the process alone as well", LOADING, load_get_leaves_state, 0, 0},
	{"load-silent", "it writes to neither standard output nor standard error", LOADING, load_silent, 0, 0},
	{"load-fini", "fini() joins all threads and closes all fds", LOADING, load_fini_leaves_nothing, 0, 0},
	{"load-unknown-interface", "get() of an interface that it does not list is NULL", TABLES, load_unknown_interface, 0, 0},
	{"load-get-stable", "get() gives the same table every time", TABLES, load_get_stable, 0, 0},
	{"load-reserved", "reserved words are zero", TABLES, load_reserved, 0, 0},
	{"load-text", "id, version, summary and license are short lines of UTF-8", TABLES, load_text, 0, 0},
	{"load-caps", "every capability has the functions that it promises", TABLES, load_caps, 0, 0},
	{"load-schemas", "option schemas keep the rules, and their defaults are valid", OPTIONS, load_schemas, 0, 0},
	{0},
};
const struct check_group group_load = {"LOAD", "the file, its entry, its tables", checks};
