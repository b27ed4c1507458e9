/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The tables of the ABI as data: which members there are, which are mandatory, what happens without the others. */
#include <glib.h>
#include <string.h>
#include "plug/impl.h"

#define M(s, m, ptr, mand, absent) {#m, offsetof(struct s, m), sizeof(((struct s *)0)->m), ptr, mand, absent}
#define POOL(m, mand, absent) M(vh_pool_ops, m, 1, mand, absent)
#define FORMAT(m, mand, absent) M(vh_format_ops, m, 1, mand, absent)
#define NET(m, mand, absent) M(vh_net_ops, m, 1, mand, absent)
#define FILTER(m, mand, absent) M(vh_filter_ops, m, 1, mand, absent)
#define VOLUME(m, mand, absent) M(vh_volume_ops, m, 1, mand, absent)

static const struct plug_member pool_members[] = {
	M(vh_pool_ops, caps, 0, 0, NULL),
	POOL(scheme, 1, NULL),
	POOL(pool_options, 0, "the pool takes no options"),
	POOL(vol_create_options, 0, "volumes take no options"),
	POOL(make, 0, "the pool's storage must exist"),
	POOL(open, 1, NULL),
	POOL(close, 1, NULL),
	POOL(info, 1, NULL),
	POOL(list, 1, NULL),
	POOL(stat, 1, NULL),
	POOL(create, 0, "volumes cannot be created"),
	POOL(remove, 0, "volumes cannot be removed"),
	POOL(resize, 0, "volumes that are not in use cannot be resized"),
	POOL(clone, 0, "the host copies"),
	POOL(snapshot_create, 0, "snapshots are the format's"),
	POOL(snapshot_list, 0, "snapshots are the format's"),
	POOL(snapshot_remove, 0, "snapshots are the format's"),
	POOL(snapshot_rollback, 0, "snapshots are the format's"),
	POOL(attach, 1, NULL),
	POOL(reattach, 0, "the host detaches and attaches again"),
	POOL(meta_get, 0, "the host keeps the values in its data folder"),
	POOL(meta_set, 0, "the host keeps the values in its data folder"),
	POOL(path, 0, "volumes have no path"),
	POOL(lease_break, 0, "leases end with their holders"),
	POOL(flatten, 0, "clones cannot be made independent"),
};

static const struct plug_member format_members[] = {
	M(vh_format_ops, caps, 0, 0, NULL),
	FORMAT(name, 1, NULL),
	FORMAT(open_options, 0, "opening takes no options"),
	FORMAT(create_options, 0, "creating takes no options"),
	FORMAT(probe, 0, "never probed"),
	FORMAT(inspect, 0, "an image is one volume"),
	FORMAT(open, 1, NULL),
	FORMAT(close, 1, NULL),
	FORMAT(info, 1, NULL),
	FORMAT(map, 1, NULL),
	FORMAT(commit, 0, "no extent needs a commit"),
	FORMAT(flush, 0, "no metadata to write"),
	FORMAT(decode, 0, "no compressed extents"),
	FORMAT(read, 0, "no opaque extents"),
	FORMAT(write, 0, "no opaque extents"),
	FORMAT(create, 0, "images cannot be created"),
	FORMAT(resize, 0, "images cannot be resized"),
	FORMAT(check, 0, "images cannot be checked"),
	FORMAT(measure, 0, "sizes cannot be told beforehand"),
	FORMAT(snapshot_create, 0, "snapshots are the pool's"),
	FORMAT(snapshot_list, 0, "snapshots are the pool's"),
	FORMAT(snapshot_apply, 0, "snapshots are the pool's"),
	FORMAT(snapshot_remove, 0, "snapshots are the pool's"),
	FORMAT(describe, 0, "nothing more is told of an image"),
	FORMAT(amend_options, 0, "images cannot be amended"),
	FORMAT(amend, 0, "images cannot be amended"),
	FORMAT(set_backing, 0, "the backing image cannot be changed"),
	FORMAT(empty, 0, "images cannot be emptied"),
	FORMAT(encode, 0, "nothing is written compressed"),
	FORMAT(put, 0, "nothing is written compressed"),
	FORMAT(create_refs, 0, "an image is made as one volume"),
};

static const struct plug_member net_members[] = {
	M(vh_net_ops, caps, 0, 0, NULL),
	NET(kind, 1, NULL),
	NET(options, 0, "takes no options"),
	NET(open, 1, NULL),
	NET(plan, 0, "a dry run does not tell its steps"),
	NET(info, 1, NULL),
	NET(queue_fd, 1, NULL),
	NET(set_link, 0, "the host stops its queues"),
	NET(set_filter, 0, "every frame passes"),
	NET(close, 1, NULL),
	NET(gc, 0, "nothing is ever left behind"),
	NET(kinds, 0, "makes ports only, no networks"),
	NET(start, 0, "a network needs nothing kept"),
	NET(stop, 0, "a network needs nothing kept"),
	NET(plan_start, 0, "what starting a network makes is not told"),
	NET(describe, 0, "the parts of a network are not told"),
	NET(watch, 0, "what others remove from under a port is not put back"),
	NET(repair, 0, "what others remove from under a port is not put back"),
};

static const struct plug_member filter_members[] = {
	M(vh_filter_ops, caps, 0, 0, NULL),
	FILTER(name, 1, NULL),
	FILTER(options, 0, "takes no options"),
	FILTER(open, 1, NULL),
};

static const struct plug_member volume_members[] = {
	M(vh_volume_ops, req_ctx, 0, 0, NULL),
	VOLUME(info, 1, NULL),
	VOLUME(queue_open, 0, "I/O goes through the volume's fd"),
	VOLUME(queue_start, 0, "I/O goes through the volume's fd"),
	VOLUME(queue_close, 0, "I/O goes through the volume's fd"),
	VOLUME(submit, 0, "I/O goes through the volume's fd"),
	VOLUME(cancel, 0, "the host waits"),
	VOLUME(resize, 0, "volumes in use cannot be resized"),
	VOLUME(close, 1, NULL),
};

const struct plug_table plug_tables[PLUG_TABLES] = {
	{VH_IID_POOL, "pool", "storage", VH_KIND_POOL, sizeof(struct vh_pool_ops), pool_members,
	 G_N_ELEMENTS(pool_members)},
	{VH_IID_FORMAT, "format", "formats", VH_KIND_FORMAT, sizeof(struct vh_format_ops), format_members,
	 G_N_ELEMENTS(format_members)},
	{VH_IID_NET, "net", "net", VH_KIND_NET, sizeof(struct vh_net_ops), net_members, G_N_ELEMENTS(net_members)},
	{VH_IID_FILTER, "filter", "storage", VH_KIND_FILTER, sizeof(struct vh_filter_ops), filter_members,
	 G_N_ELEMENTS(filter_members)},
};

const struct plug_table plug_volume_table = {
	"volume", "volume", "", 0, sizeof(struct vh_volume_ops), volume_members, G_N_ELEMENTS(volume_members)};

const struct plug_table *plug_table_by_iid(const char *iid)
{
	for (unsigned i = 0; i < PLUG_TABLES; i++)
		if (!strcmp(plug_tables[i].iid, iid))
			return &plug_tables[i];
	return NULL;
}

const struct plug_table *plug_table_by_kind(uint32_t kind)
{
	for (unsigned i = 0; i < PLUG_TABLES; i++)
		if (plug_tables[i].kind == kind)
			return &plug_tables[i];
	return NULL;
}

int plug_table_import(const struct plug_table *t, const void *theirs, void *ours, struct vh_err *e)
{
	uint32_t size;

	memset(ours, 0, t->size);
	memcpy(&size, theirs, sizeof(size));
	if (size < sizeof(size) || size % 4)
		return err_set(e, -EPROTO, "its %s table has the impossible size %u", t->iid, size);
	memcpy(ours, theirs, MIN(size, t->size));
	size = MIN(size, t->size);
	memcpy(ours, &size, sizeof(size));
	for (unsigned i = 0; i < t->n_members; i++) {
		const struct plug_member *m = &t->members[i];
		const void *p;

		/* A member that was cut in two is no member. */
		if (m->off + m->size > size)
			memset((char *)ours + m->off, 0, m->size);
		if (!m->mandatory)
			continue;
		memcpy(&p, (const char *)ours + m->off, sizeof(p));
		if (!p)
			return err_set(e, -EPROTO, "its %s table %s the mandatory member %s", t->iid,
				       m->off + m->size > size ? "is too short for" : "lacks", m->name);
	}
	return 0;
}

char *plug_kinds_text(uint32_t kinds)
{
	GString *s = g_string_new(NULL);

	for (unsigned i = 0; i < PLUG_TABLES; i++)
		if (kinds & plug_tables[i].kind)
			g_string_append_printf(s, "%s%s", s->len ? "+" : "", plug_tables[i].word);
	if (!s->len)
		g_string_append(s, "nothing known");
	return g_string_free(s, FALSE);
}
