/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* CRASH: what a crash may leave of an image can be used, as docs/design/crash.md has it; core/crash does the work. */
#include <glib.h>
#include <string.h>
#include "check.h"
#include "crash/crash.h"
#include "plug/plug.h"
#include "util/log.h"

#define STATES 400u

/* --set create.KEY=VALUE for making images, KEY=VALUE for opening them. */
static void given(const struct check_ctx *c, struct kvs *create, struct kvs *open)
{
	unsigned n = c->set ? c->set->n : 0;

	create->v = g_new0(struct kv, n + 1);
	open->v = g_new0(struct kv, n + 1);
	for (unsigned k = 0; k < n; k++) {
		const struct kv *p = &c->set->v[k];

		if (!p->key || g_str_has_prefix(p->key, "check."))
			continue;
		if (g_str_has_prefix(p->key, "create."))
			create->v[create->n++] = (struct kv){p->key + strlen("create."), p->value};
		else
			open->v[open->n++] = *p;
	}
}

static void states(struct check_ctx *c)
{
	struct kvs create = {0}, open = {0};
	struct crash_spec s = {.format = c->note.id, .options = &create, .open_options = &open, .states = STATES,
			       .seed = c->seed % 1000000, .backing = -1, .snapshots = 1, .resizes = 1, .keep = NULL};
	const struct vh_format_ops *ops;
	struct crash_result r;
	ERR_AUTO(e);
	int ret;

	log_configure("error"); /* hundreds of images that were not closed cleanly */
	if (plug_add_file(c->path, &e) < 0 || plug_format(c->note.id, &ops, &e) < 0)
		check_fail(c, "it cannot be loaded: %s", e.cause);
	if (!ops->create)
		check_skip(c, "it makes no images");
	given(c, &create, &open);
	ret = crash_run(&s, &r, NULL, &e);
	if (ret < 0)
		check_skip(c, "no image of it can be tried: %s", e.cause);
	CHECK(c, ret == 0, "state %s: %s (vhost img crashtest --format %s --seed %" G_GUINT64_FORMAT " --states %u --qemu-every 0 shows more)",
	      r.state, r.text, s.format, s.seed, STATES);
	CHECK(c, r.states >= STATES && r.flushes, "only %" G_GUINT64_FORMAT " states came of it", r.states);
}

static const struct check checks[] = {
	{"crash-states", "whatever a crash leaves opens, holds what was flushed, and is clean but for leaks", "docs/design/crash.md#a-round",
	 states, VH_KIND_FORMAT, 240},
	{NULL, NULL, NULL, NULL, 0, 0},
};
const struct check_group group_crash = {"CRASH", "images after crashes", checks};
