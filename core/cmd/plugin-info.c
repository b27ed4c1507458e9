/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What a loaded plugin says about itself, as JSON. Runs in the child process of plugin_child(). */
#include <fcntl.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>
#include "cmd/plugin.h"

void plugin_json_int(JsonBuilder *b, const char *name, gint64 value)
{
	json_builder_set_member_name(b, name);
	json_builder_add_int_value(b, value);
}

void plugin_json_kinds(JsonBuilder *b, uint32_t kinds)
{
	json_builder_set_member_name(b, "kinds");
	json_builder_begin_array(b);
	for (unsigned i = 0; i < PLUG_TABLES; i++)
		if (kinds & plug_tables[i].kind)
			json_builder_add_string_value(b, plug_tables[i].word);
	json_builder_end_array(b);
}

/* ---- flags by name ---- */

struct bit {
	uint64_t bit;
	const char *name;
};
static const struct bit plugin_flags[] = {
	{VH_PLUGIN_OWN_THREADS, "own-threads"}, {VH_PLUGIN_NEEDS_NET, "needs-net"}, {VH_PLUGIN_NEEDS_ROOT, "needs-root"}, {0}};
static const struct bit pool_caps[] = {
	{VH_POOL_CREATE, "create"}, {VH_POOL_REMOVE, "remove"}, {VH_POOL_GROW, "grow"}, {VH_POOL_SHRINK, "shrink"},
	{VH_POOL_CLONE_FULL, "clone-full"}, {VH_POOL_CLONE_COW, "clone-cow"}, {VH_POOL_SNAPSHOT, "snapshot"},
	{VH_POOL_LEASE, "lease"}, {VH_POOL_LEASE_HOSTS, "lease-hosts"}, {VH_POOL_META, "meta"}, {VH_POOL_MAKE, "make"},
	{VH_POOL_FILES, "files"}, {0}};
static const struct bit format_caps[] = {
	{VH_FMT_COMPRESSED, "compressed"}, {VH_FMT_OPAQUE, "opaque"}, {VH_FMT_CRYPT, "crypt"}, {VH_FMT_DISCARD, "discard"},
	{VH_FMT_ZERO, "zero"}, {VH_FMT_LOCK_SELF, "lock-self"}, {VH_FMT_DIRTY, "dirty"}, {VH_FMT_BACKING, "backing"}, {0}};
static const struct bit net_caps[] = {
	{VH_NET_MULTI_QUEUE, "multi-queue"}, {VH_NET_SET_LINK, "set-link"}, {VH_NET_SET_FILTER, "set-filter"},
	{VH_NET_RATE, "rate"}, {0}};
static const struct bit no_caps[] = {{0}};
/* In plug_tables' order. */
static const struct bit *const caps_names[PLUG_TABLES] = {pool_caps, format_caps, net_caps, no_caps};

static void json_bits(JsonBuilder *b, const char *member, uint64_t bits, const struct bit *names)
{
	json_builder_set_member_name(b, member);
	json_builder_begin_array(b);
	for (; names->name; names++) {
		if (bits & names->bit)
			json_builder_add_string_value(b, names->name);
		bits &= ~names->bit;
	}
	for (unsigned i = 0; i < 64; i++) /* newer than this vhost */
		if (bits >> i & 1) {
			g_autofree char *text = g_strdup_printf("bit-%u", i);

			json_builder_add_string_value(b, text);
		}
	json_builder_end_array(b);
}

/* ---- info ---- */

static void json_needed(JsonBuilder *b, const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct elf_dyn d = {0};
	struct elf_src s;

	json_builder_set_member_name(b, "needs");
	json_builder_begin_array(b);
	if (fd >= 0 && !elf_open_fd(&s, fd, NULL)) {
		if (!elf_dyn_read(&s, &d, NULL))
			for (unsigned i = 0; d.needed[i]; i++)
				json_builder_add_string_value(b, d.needed[i]);
		elf_dyn_clear(&d);
		elf_close(&s);
	}
	if (fd >= 0)
		close(fd);
	json_builder_end_array(b);
}

/* The name that a table gives itself: scheme, name, kind; the second pointer-sized thing of each is caps, the next it. */
static const char *table_name(const struct plug_table *t, const void *ours)
{
	const char *s;

	memcpy(&s, (const char *)ours + t->members[1].off, sizeof(s));
	return s;
}

static void json_table(JsonBuilder *b, unsigned index, const struct plug_image *image)
{
	const struct plug_table *t = &plug_tables[index];
	const char *ours = image->table[index];
	uint32_t size;
	uint64_t caps;

	memcpy(&size, image->raw[index], sizeof(size));
	memcpy(&caps, ours + t->members[0].off, sizeof(caps));
	json_builder_begin_object(b);
	js_text(b, "id", t->iid);
	js_text(b, "name", table_name(t, ours));
	plugin_json_int(b, "size", size);
	plugin_json_int(b, "known_size", t->size);
	json_bits(b, "caps", caps, caps_names[index]);
	json_builder_set_member_name(b, "absent");
	json_builder_begin_array(b);
	for (unsigned i = 0; i < t->n_members; i++) {
		const struct plug_member *m = &t->members[i];
		const void *p;

		if (!m->pointer || m->mandatory)
			continue;
		memcpy(&p, ours + m->off, sizeof(p));
		if (p)
			continue;
		json_builder_begin_object(b);
		js_text(b, "member", m->name);
		js_text(b, "fallback", m->absent);
		json_builder_end_object(b);
	}
	json_builder_end_array(b);
	json_builder_end_object(b);
}

void plugin_build_info(JsonBuilder *b, const struct plug *p)
{
	const struct plug_image *image = plug_image_of(p);
	const struct plug_ident *note = plug_ident_of(p);
	const struct vh_plugin *d = plug_desc(p);
	g_autofree char *build_id = NULL;
	uint32_t desc_size;

	if (note->build_id_len) {
		GString *s = g_string_new(NULL);

		for (unsigned i = 0; i < note->build_id_len; i++)
			g_string_append_printf(s, "%02x", note->build_id[i]);
		build_id = g_string_free(s, FALSE);
	}
	memcpy(&desc_size, image->theirs, sizeof(desc_size));
	json_builder_begin_object(b);
	js_text(b, "id", d->id);
	js_text(b, "version", d->version);
	js_text(b, "summary", d->summary);
	js_text(b, "license", d->license);
	js_text(b, "path", plug_path(p));
	js_text(b, "build_id", build_id);
	plugin_json_kinds(b, note->kinds);
	plugin_json_int(b, "abi_major", note->major);
	plugin_json_int(b, "abi_minor", d->built_minor);
	plugin_json_int(b, "abi_draft", note->draft);
	plugin_json_int(b, "descriptor_size", desc_size);
	plugin_json_int(b, "descriptor_known_size", sizeof(struct vh_plugin));
	json_bits(b, "flags", d->flags, plugin_flags);
	json_needed(b, plug_path(p));
	json_builder_set_member_name(b, "interfaces");
	json_builder_begin_array(b);
	for (unsigned i = 0; i < PLUG_TABLES; i++)
		if (image->table[i])
			json_table(b, i, image);
	json_builder_end_array(b);
	json_builder_end_object(b);
}

/* ---- help ---- */

static void json_bound(JsonBuilder *b, const char *name, const struct vh_opt *o, int64_t v)
{
	json_builder_set_member_name(b, name);
	if (o->min || o->max)
		json_builder_add_int_value(b, v);
	else
		json_builder_add_null_value(b);
}

static void json_option(JsonBuilder *b, const struct vh_opt *o)
{
	g_autofree char *form = opt_form(o), *range = opt_range_text(o);

	json_builder_begin_object(b);
	js_text(b, "name", o->name);
	js_text(b, "type", opt_type_name(o));
	js_text(b, "form", form);
	js_text(b, "doc", o->doc);
	js_text(b, "default", o->defval);
	js_text(b, "range", range);
	json_bound(b, "min", o, o->min);
	json_bound(b, "max", o, o->max);
	js_bool(b, "required", !!(o->flags & VH_OPT_REQUIRED));
	js_bool(b, "repeat", !!(o->flags & VH_OPT_REPEAT));
	js_bool(b, "live", !!(o->flags & VH_OPT_LIVE));
	js_bool(b, "deprecated", !!(o->flags & VH_OPT_DEPRECATED));
	js_bool(b, "main", !!(o->flags & VH_OPT_MAIN));
	js_bool(b, "nic", !!(o->flags & VH_OPT_NIC));
	json_builder_set_member_name(b, "choices");
	json_builder_begin_array(b);
	for (unsigned i = 0; o->type == VH_OPT_ENUM && o->choices && o->choices[i]; i++)
		json_builder_add_string_value(b, o->choices[i]);
	json_builder_end_array(b);
	json_builder_end_object(b);
}

static void json_scope(JsonBuilder *b, const char *scope, const char *title, vh_schema s)
{
	g_autofree struct vh_opt *opt = NULL;
	unsigned n = schema_import(s, &opt);

	if (!n)
		return;
	json_builder_begin_object(b);
	js_text(b, "scope", scope);
	js_text(b, "title", title);
	json_builder_set_member_name(b, "options");
	json_builder_begin_array(b);
	for (unsigned i = 0; i < n; i++)
		json_option(b, &opt[i]);
	json_builder_end_array(b);
	json_builder_end_object(b);
}

void plugin_build_help(JsonBuilder *b, const struct plug *p)
{
	const struct plug_image *image = plug_image_of(p);
	const struct vh_pool_ops *pool = image->table[0];
	const struct vh_format_ops *format = image->table[1];
	const struct vh_net_ops *net = image->table[2];
	const struct vh_filter_ops *filter = image->table[3];

	json_builder_begin_object(b);
	js_text(b, "id", plug_desc(p)->id);
	js_text(b, "summary", plug_desc(p)->summary);
	json_builder_set_member_name(b, "scopes");
	json_builder_begin_array(b);
	if (pool) {
		json_scope(b, "pool", "Options of a pool", pool->pool_options);
		json_scope(b, "vol_create", "Options for creating a volume", pool->vol_create_options);
	}
	if (format) {
		json_scope(b, "format", "Options for opening an image", format->open_options);
		json_scope(b, "format_create", "Options for creating an image", format->create_options);
	}
	if (net)
		json_scope(b, "net", "Options of a network backend", net->options);
	if (filter)
		json_scope(b, "filter", "Options of a filter", filter->options);
	json_builder_end_array(b);
	json_builder_end_object(b);
}
