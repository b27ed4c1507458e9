/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Plugins: finding them by name, reading their notes without running them, loading, and their tables, copied into
 * zeroed ones of this host's size, so that a member is usable if and only if it is not NULL.
 */
#ifndef PLUG_PLUG_H
#define PLUG_PLUG_H

#include <vhost/filter.h>
#include <vhost/format.h>
#include <vhost/net.h>
#include <vhost/plugin.h>
#include <vhost/pool.h>
#include "util/err.h"

extern const struct vh_host plug_host; /* what plugins get */
/* A layer adds its service (vh.io/1, vh.meta/1, vh.lower/1) before plugins of its kind are loaded; from one thread at a
 * time. The same table again is no error; another one for the same id is -EEXIST. */
int plug_service_register(const char *iid, const void *table);
/* For the conformance kit, before it loads a plugin: a table of its own instead of a layer's. */
int plug_service_replace(const char *iid, const void *table);
const void *plug_service(const char *iid); /* NULL: none */

struct plug; /* one loaded file; lives until the process ends */

/* `--plugin FILE`: read (not loaded) now, found by its id before any search path. */
int plug_add_file(const char *path, struct vh_err *e);
/* Loads by id ("dir", "raw", "bridge") if it is not loaded yet. Not found: -ENOENT, EXIT_MISSING, naming every place
 * that was searched. [main], or any thread: serialised inside. */
int plug_pool(const char *id, const struct vh_pool_ops **out, struct vh_err *e);
int plug_format(const char *id, const struct vh_format_ops **out, struct vh_err *e);
int plug_net(const char *id, const struct vh_net_ops **out, struct vh_err *e);
int plug_filter(const char *id, const struct vh_filter_ops **out, struct vh_err *e);
/* The copy of a volume's table of the host's size; cached per table. NULL when it lacks info or close. */
const struct vh_volume_ops *plug_volume_ops(const struct vh_volume_ops *theirs);
/* Calls fini() of everything loaded, when no object is open any more. */
void plug_fini(void);

/* For `vhost plugin ...`. */
struct plug_note { char *path; char id[VH_ID_MAX]; uint32_t major, minor, draft, kinds; };
int plug_scan(int (*fn)(void *ctx, const struct plug_note *n, const struct vh_err *why_not), void *ctx);
int plug_load(const char *id, struct plug **out, struct vh_err *e);
const struct vh_plugin *plug_desc(const struct plug *p);
const char *plug_path(const struct plug *p);

#endif
