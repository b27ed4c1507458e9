/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A library that a plugin brings along, and that happens to have symbols which the loader looks for. */
#include <stdlib.h>
#include <vhost/plugin.h>

VH_EXPORT void plugdep_used(void);
void plugdep_used(void)
{
}

#ifdef DEP_ENTRY
VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
	setenv("PLUGDEP_ENTRY_RAN", "1", 1);
	return -38;
}
#else
VH_EXPORT const char *g_module_check_init(void *module);
const char *g_module_check_init(void *module)
{
	setenv("PLUGDEP_GMODULE_RAN", "1", 1);
	return NULL;
}
#endif
