/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* Optional inline helpers for plugin authors. Not ABI: they compile into the plugin. */
#ifndef VHOST_SUGAR_H
#define VHOST_SUGAR_H

#include <errno.h>
#include <string.h>
#include <vhost/plugin.h>
#include <vhost/opt.h>

static inline const struct vh_val *vh_opt_get(const struct vh_opts *o, const char *name)
{
	for (uint32_t i = 0; o && i < o->n; i++)
		if (!strcmp(o->val[i]->name, name))
			return o->val[i];
	return NULL;
}

/* The value, or `absent` when the option has neither value nor default. */
static inline int64_t vh_opt_num(const struct vh_opts *o, const char *name, int64_t absent)
{
	const struct vh_val *v = vh_opt_get(o, name);
	return v ? v->num : absent;
}

static inline const char *vh_opt_str(const struct vh_opts *o, const char *name, const char *absent)
{
	const struct vh_val *v = vh_opt_get(o, name);
	return v ? v->str : absent;
}

/* A service, or NULL also when the host's table is too short to hold the first n bytes. */
static inline const void *vh_service(const struct vh_host *h, const char *iid, size_t n)
{
	const uint32_t *size = (const uint32_t *)h->service(h, iid);
	return size && *size >= n ? size : NULL;
}

/*
 * Writes note, descriptor and entry of a plugin of one interface. In one .c file of the plugin:
 *
 *   VH_PLUGIN_DEFINE("ram", VH_KIND_POOL, VH_IID_POOL, &ram_ops, "1.0", "Volumes in memory", "MIT", 0)
 *
 * and use vh_host_ptr afterwards.
 */
#define VH_PLUGIN_DEFINE(ID, KIND, IID, OPS, VERSION, SUMMARY, LICENSE, FLAGS)                                        \
	VH_PLUGIN_NOTE(ID, KIND);                                                                                     \
	static const struct vh_host *vh_host_ptr;                                                                     \
	static const char *const vh_plugin_iids[] = {IID, NULL};                                                      \
	static const void *vh_plugin_get(const char *iid)                                                             \
	{                                                                                                             \
		return strcmp(iid, IID) ? NULL : (const void *)(OPS);                                                 \
	}                                                                                                             \
	static const struct vh_plugin vh_plugin_instance = {                                                          \
		sizeof(struct vh_plugin), VH_ABI_MINOR, ID, VERSION, SUMMARY, LICENSE, FLAGS, vh_plugin_iids,         \
		vh_plugin_get, NULL};                                                                                 \
	VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)                    \
	{                                                                                                             \
		vh_host_ptr = host;                                                                                   \
		*out = &vh_plugin_instance;                                                                           \
		return 0;                                                                                             \
	}                                                                                                             \
	VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)

#endif
