/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* The one symbol of a plugin and what it returns. */
#ifndef VHOST_PLUGIN_H
#define VHOST_PLUGIN_H

#include <vhost/abi.h>
#include <vhost/host.h>

/* Interface ids. A changed meaning is a new id; a file may offer several. */
#define VH_IID_POOL "vh.pool/1"     /* struct vh_pool_ops, pool.h */
#define VH_IID_FORMAT "vh.format/1" /* struct vh_format_ops, format.h */
#define VH_IID_NET "vh.net/1"       /* struct vh_net_ops, net.h */
#define VH_IID_FILTER "vh.filter/1" /* struct vh_filter_ops, filter.h */

/* vh_plugin.flags, must-understand half. */
#define VH_PLUGIN_OWN_THREADS UINT64_C(0x1) /* starts threads of its own */
#define VH_PLUGIN_NEEDS_NET UINT64_C(0x2)   /* opens network connections */
#define VH_PLUGIN_NEEDS_ROOT UINT64_C(0x4)  /* control calls need privileges; I/O does not */

struct vh_plugin {
	uint32_t size;        /* sizeof(struct vh_plugin) as the plugin was built */
	uint32_t built_minor; /* VH_ABI_MINOR as it was built; shown, never compared */
	const char *id;       /* equals the note's */
	const char *version;  /* the plugin's own, free text */
	const char *summary;  /* one line */
	const char *license;  /* SPDX expression, or "proprietary" */
	uint64_t flags;       /* VH_PLUGIN_* */
	/* NULL-terminated list of VH_IID_*; ids that the host does not know are passed over. Mandatory. */
	const char *const *interfaces;
	/* [main] The table of an interface named in `interfaces`; its first member is uint32_t size, it lives as long
	 * as the file is mapped. NULL for anything else. Must not block. Mandatory. */
	const void *(*get)(const char *iid);
	/* [main] The last call: no object of the plugin is open any more. Joins the plugin's threads and deletes its
	 * thread keys; may block. The file stays mapped. Absent: nothing to do. */
	void (*fini)(void);
};

/*
 * [main] The only exported symbol of a plugin, called once per process, before any other call, under a watchdog.
 * Must not block, start threads, open files, or change signals, locale, umask or working directory. `host` lives
 * as long as the process. On success returns 0 and sets *out to a struct that lives as long as the file is mapped;
 * else a negative errno: -EOPNOTSUPP when the host lacks a service that the plugin cannot do without. A text is attached
 * to such a failure by host->err(NULL, code, ...).
 */
VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out);
typedef int vh_plugin_entry_fn(const struct vh_host *host, const struct vh_plugin **out);
#define VH_PLUGIN_ENTRY "vh_plugin_entry_v1"

#endif
