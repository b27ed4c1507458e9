/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "fmt/evp.h"
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define SONAME "libcrypto.so.3"

struct evp_lib evp;
static char why_not[200];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void load(void)
{
	void *lib = dlopen(SONAME, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE), *f = lib;

#define FIND(name)                                                                                                     \
	if (f && (f = dlsym(lib, #name)))                                                                              \
		memcpy(&evp.name, &f, sizeof(f));
	EVP_LIB(FIND)
#undef FIND
	if (!f)
		snprintf(why_not, sizeof(why_not), "%s", dlerror());
}

int evp_load(struct vh_err *e)
{
	pthread_once(&once, load);
	if (!why_not[0])
		return 0;
	err_remedy(e, "install OpenSSL 3 (Debian: libssl3)");
	return err_set(e, -ELIBACC, "encrypted images need OpenSSL, which cannot be loaded: %s", why_not);
}
