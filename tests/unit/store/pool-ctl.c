/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * pool-ctl PLUGIN.so KEY=VALUE[,KEY=VALUE]... CALL ARG...: one call of a pool plugin, with a small host of its own, for scripts.
 * Calls: snap-create NAME SNAP, snap-list NAME, snap-remove NAME SNAP, snap-rollback NAME SNAP, clone SRC SNAP DST, hold MODE NAME
 * (attaches, says "held", and waits for the end of standard input; MODE: ro, excl, shared, peek), resize-held NAME BYTES,
 * entries NAME (what of a request's way the attached volume has: nothing, when the host does it all on its descriptor),
 * meta-set NAME KEY VALUE, meta-get NAME KEY. Exits with 1, text and code on standard error, when the call fails.
 */
#include <dlfcn.h>
#include <errno.h>
#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <vhost/pool.h>
#include "small-host.h"

static const void *host_service(const struct vh_host *h, const char *iid)
{
	return NULL;
}

static const struct vh_host host = {.size = sizeof(host), .service = host_service, .err = host_err, .verr = host_verr,
				    .remedy = host_remedy};

/* "wipe:=2": a number; "vg=x": text. */
static const struct vh_opts *options(char *text)
{
	g_auto(GStrv) parts = g_strsplit(text, ",", 0);
	const struct vh_val **list = g_new0(const struct vh_val *, g_strv_length(parts) + 1);
	struct vh_opts *o = g_new0(struct vh_opts, 1);

	for (unsigned i = 0; parts[i]; i++) {
		struct vh_val *v = g_new0(struct vh_val, 1);
		char *eq = strchr(parts[i], '=');

		if (!eq || eq == parts[i])
			g_error("%s is no KEY=VALUE", parts[i]);
		v->size = sizeof(*v);
		v->type = eq[-1] == ':' ? VH_OPT_INT : VH_OPT_STR;
		v->name = g_strndup(parts[i], (gsize)(eq - parts[i]) - (eq[-1] == ':'));
		v->str = g_strdup(eq + 1);
		v->num = strtoll(eq + 1, NULL, 0);
		list[i] = v;
	}
	*o = (struct vh_opts){.size = sizeof(*o), .n = g_strv_length(parts), .val = list};
	return o;
}

static int print_one(void *ctx, const char *name, const struct vh_vol_stat *st)
{
	printf("%s %llu\n", name, st ? (unsigned long long)st->bytes : 0ull);
	return 0;
}

static int hold(const struct vh_pool_ops *ops, void *pool, const char *mode, const char *name, const char *bytes, struct vh_err *e)
{
	const struct vh_volume_ops *vo;
	struct vh_attach a = {.size = sizeof(a), .name = name, .holder = "pid 0 pool-ctl hold"};
	char c[256];
	void *vol;
	int ret;

	a.mode = !strcmp(mode, "ro") ? VH_ATTACH_RO : !strcmp(mode, "shared") ? VH_ATTACH_RW_SHARED :
		 !strcmp(mode, "peek") ? VH_ATTACH_PEEK : VH_ATTACH_RW_EXCL;
	ret = ops->attach(pool, &a, &vol, &vo, e);
	if (ret)
		return ret;
	if (bytes) {
		ret = vo->resize(vol, strtoull(bytes, NULL, 0), e);
	} else {
		puts("held");
		fflush(stdout);
		while (read(0, c, sizeof(c)) > 0)
			;
	}
	if (!ret && bytes) {
		struct vh_volume_info i = {.size = sizeof(i)};

		ret = vo->info(vol, &i);
		printf("%llu\n", (unsigned long long)i.bytes);
	}
	vo->close(vol);
	return ret;
}

static int entries(const struct vh_pool_ops *ops, void *pool, const char *name, struct vh_err *e)
{
	struct vh_attach a = {.size = sizeof(a), .name = name, .holder = "pid 0 pool-ctl entries", .mode = VH_ATTACH_RW_EXCL};
	struct vh_volume_info i = {.size = sizeof(i)};
	const struct vh_volume_ops *vo;
	void *vol;
	int ret = ops->attach(pool, &a, &vol, &vo, e);

	if (ret)
		return ret;
	ret = vo->info(vol, &i);
	printf("fd=%s%s%s%s%s\n", i.fd >= 0 ? "yes" : "no", vo->queue_open ? " queue_open" : "", vo->queue_start ? " queue_start" : "",
	       vo->submit ? " submit" : "", vo->cancel ? " cancel" : "");
	vo->close(vol);
	return ret;
}

static int call(const struct vh_pool_ops *ops, void *pool, char **a, int n, struct vh_err *e)
{
	char buf[300] = "";
	int64_t len;

	if (!strcmp(a[0], "snap-create") && n == 3)
		return ops->snapshot_create(pool, &(struct vh_snap_spec){.size = sizeof(struct vh_snap_spec), .volume = a[1], .snap = a[2]}, e);
	if (!strcmp(a[0], "snap-list") && n == 2)
		return ops->snapshot_list(pool, a[1], print_one, NULL, e);
	if (!strcmp(a[0], "snap-remove") && n == 3)
		return ops->snapshot_remove(pool, a[1], a[2], NULL, e);
	if (!strcmp(a[0], "snap-rollback") && n == 3)
		return ops->snapshot_rollback(pool, a[1], a[2], NULL, e);
	if (!strcmp(a[0], "clone") && n == 4)
		return ops->clone(pool, a[1], *a[2] ? a[2] : NULL, a[3], VH_CLONE_COW, NULL, e);
	if (!strcmp(a[0], "hold") && n == 3)
		return hold(ops, pool, a[1], a[2], NULL, e);
	if (!strcmp(a[0], "resize-held") && n == 3)
		return hold(ops, pool, "excl", a[1], a[2], e);
	if (!strcmp(a[0], "entries") && n == 2)
		return entries(ops, pool, a[1], e);
	if (!strcmp(a[0], "meta-set") && n == 4)
		return ops->meta_set(pool, a[1], a[2], *a[3] ? a[3] : NULL, e);
	if (!strcmp(a[0], "meta-get") && n == 3) {
		len = ops->meta_get(pool, a[1], a[2], buf, sizeof(buf), e);
		if (len >= 0)
			printf("%s\n", buf);
		return len < 0 ? (int)len : 0;
	}
	fprintf(stderr, "no such call: %s\n", a[0]);
	return -EINVAL;
}

int main(int argc, char **argv)
{
	const struct vh_pool_ops *ops;
	const struct vh_plugin *p;
	vh_plugin_entry_fn *entry;
	struct vh_err e = {0};
	void *h, *pool;
	int ret;

	if (argc < 4) {
		fprintf(stderr, "pool-ctl PLUGIN.so OPTIONS CALL ARG...\n");
		return 2;
	}
	h = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
	entry = h ? (vh_plugin_entry_fn *)dlsym(h, VH_PLUGIN_ENTRY) : NULL;
	if (!entry || entry(&host, &p) || !(ops = p->get(VH_IID_POOL))) {
		fprintf(stderr, "%s: %s\n", argv[1], h ? "no pool plugin" : dlerror());
		return 2;
	}
	ret = ops->open(options(argv[2]), NULL, &pool, &e);
	if (!ret) {
		ret = call(ops, pool, argv + 3, argc - 3, &e);
		ops->close(pool);
	}
	if (ret)
		fprintf(stderr, "%s: %s (%s)\n", strerror(-ret), e.text, e.remedy);
	return ret != 0;
}
