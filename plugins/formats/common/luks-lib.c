/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include "luks-lib.h"

struct luks_lib luks_lib;
static char why_not[200];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void)
{
	/* Never unloaded: what it has registered with other libraries would stay. */
	void *lib = dlopen(LUKS_LIB_SONAME, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
	void *f = lib;

#define FIND(name)                                                                                                     \
	if (f && (f = dlsym(lib, #name)))                                                                              \
		memcpy(&luks_lib.name, &f, sizeof(f));
	LUKS_LIB(FIND)
#undef FIND
	if (!f)
		snprintf(why_not, sizeof(why_not), "%s", dlerror());
}

const char *luks_lib_load(void)
{
	pthread_once(&once, load);
	return why_not[0] ? why_not : NULL;
}
