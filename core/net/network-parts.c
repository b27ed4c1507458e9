/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The parts of a network, as its plugin tells them: copied, bounded, made UTF-8, and put into a tree. */
#include "net/network.h"

#include <stdlib.h>
#include <string.h>
#include "plug/plug.h"
#include "util/paths.h"

#define TEXT_MAX 255u

struct gather {
	GArray *a; /* struct network_part */
	int cut;
};

/* A plugin's text: a line, no matter what is in it. NULL stays. */
static char *text(const char *s)
{
	g_autofree char *bytes = s ? g_strndup(s, TEXT_MAX) : NULL;
	char *t = bytes ? g_utf8_make_valid(bytes, -1) : NULL;

	for (char *p = t; p && *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = ' ';
	return t;
}

/* "vhost:VM:PID:START:NIC". What ports share carries its maker's tag, which says nothing of who uses it. */
static void read_owner(struct network_part *p)
{
	if (strcmp(p->kind, "port") && strcmp(p->kind, "macvtap"))
		return;
	g_auto(GStrv) part = p->owner ? g_strsplit(p->owner, ":", 6) : NULL;

	if (part && g_strv_length(part) == 5 && !strcmp(part[0], "vhost") && !name_check("VM", part[1], NULL)) {
		p->vm = g_strdup(part[1]);
		p->nic = atoi(part[4]);
	}
}

static void take(void *ctx, const struct vh_net_part *theirs)
{
	static const uint8_t none[6];
	struct network_part p = {.parent = -1};
	struct vh_net_part ours = {0};
	struct gather *g = ctx;

	if (g->a->len == NETWORK_PARTS_MAX) {
		g->cut = 1;
		return;
	}
	/* An older plugin's is shorter; it is no part without a name. */
	memcpy(&ours, theirs, MIN(theirs->size, sizeof(ours)));
	if (theirs->size < G_STRUCT_OFFSET(struct vh_net_part, above) || !ours.name)
		return;
	p.kind = text(ours.kind ? ours.kind : "part");
	p.name = text(ours.name);
	p.above = text(ours.above);
	p.owner = text(ours.owner);
	p.detail = text(ours.detail);
	p.ifindex = ours.ifindex;
	p.mtu = ours.mtu;
	p.up = ours.up != 0;
	memcpy(p.mac, ours.mac, sizeof(p.mac));
	p.have_mac = memcmp(p.mac, none, sizeof(none)) != 0;
	read_owner(&p);
	g_array_append_val(g->a, p);
}

/* A part hangs below one that came before it, so that there is no circle; of one name the nearest. */
static void link_up(struct network_parts *p)
{
	g_autoptr(GHashTable) at = g_hash_table_new(g_str_hash, g_str_equal);

	for (unsigned i = 0; i < p->n; i++) {
		struct network_part *v = &p->v[i];
		gpointer up = v->above ? g_hash_table_lookup(at, v->above) : NULL;

		if (up) {
			v->parent = (int)(uintptr_t)up - 1;
			v->depth = p->v[v->parent].depth + 1;
		}
		g_hash_table_insert(at, v->name, (gpointer)(uintptr_t)(i + 1));
	}
}

int network_describe(const struct network *n, struct network_parts *out, struct vh_err *e)
{
	struct gather g = {g_array_new(FALSE, FALSE, sizeof(struct network_part)), 0};
	g_autofree char *state = path_in(PATH_STATE, ".net", NULL);
	const struct vh_net_ops *ops;
	struct optset *set = NULL;
	struct vh_network vn = {.size = sizeof(vn), .name = n->name, .kind = n->kind, .state = state};
	int r = plug_net(n->type, &ops, e);

	if (!r)
		r = network_options(n, ops, &set, e);
	if (!r && ops->describe) {
		vn.opts = optset_get(set);
		r = ops->describe(&vn, take, &g, e);
		r = r < -4095 ? -EIO : MIN(r, 0);
		if (r && e && !e->cause)
			err_set(e, r, "its plugin says only: %s", g_strerror(-r));
	}
	optset_free(set);
	out->n = g.a->len;
	out->cut = g.cut;
	out->v = (struct network_part *)(void *)g_array_free(g.a, FALSE);
	link_up(out);
	if (r)
		network_parts_clear(out);
	return r;
}

void network_parts_clear(struct network_parts *p)
{
	for (unsigned i = 0; i < p->n; i++) {
		g_free(p->v[i].kind);
		g_free(p->v[i].name);
		g_free(p->v[i].above);
		g_free(p->v[i].owner);
		g_free(p->v[i].detail);
		g_free(p->v[i].vm);
	}
	g_free(p->v);
	memset(p, 0, sizeof(*p));
}
