/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * One small pool plugin in many variants, each wrong in one way (or unusual, and right): the build compiles this file once
 * per variant with -DV_NAME. Only tables and the entry matter here; the pool's functions are never called.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vhost/sugar.h>
#include <vhost/pool.h>

#ifndef V_ID
#define V_ID "variant"
#endif

/* ---- the note ---- */
#if defined(V_no_note)
#elif defined(V_wrong_major) || defined(V_wrong_draft) || defined(V_released) || defined(V_bad_id) || defined(V_two_majors)
__attribute__((used, section(VH_NOTE_SECTION), aligned(4))) static const struct vh_note note = {
	6, 48, VH_NOTE_TYPE, VH_NOTE_OWNER,
#if defined(V_wrong_major) || defined(V_two_majors)
	VH_ABI_MAJOR + 1, 0, 0, VH_KIND_POOL, V_ID
#elif defined(V_wrong_draft)
	VH_ABI_MAJOR, VH_ABI_MINOR, VH_ABI_DRAFT + 1, VH_KIND_POOL, V_ID
#elif defined(V_released)
	VH_ABI_MAJOR, VH_ABI_MINOR, 0, VH_KIND_POOL, V_ID
#else
	VH_ABI_MAJOR, VH_ABI_MINOR, VH_ABI_DRAFT, VH_KIND_POOL, "../evil"
#endif
};
#ifdef V_two_majors
VH_PLUGIN_NOTE(V_ID, VH_KIND_POOL);
#endif
#elif defined(V_id_mismatch)
VH_PLUGIN_NOTE("other", VH_KIND_POOL);
#elif defined(V_kind_mismatch)
VH_PLUGIN_NOTE(V_ID, VH_KIND_POOL | VH_KIND_NET);
#else
VH_PLUGIN_NOTE(V_ID, VH_KIND_POOL);
#endif

#ifdef V_two_notes
__attribute__((used, section(VH_NOTE_SECTION), aligned(4))) static const struct vh_note note2 = {
	6, 48, VH_NOTE_TYPE, VH_NOTE_OWNER, VH_ABI_MAJOR, VH_ABI_MINOR, VH_ABI_DRAFT, VH_KIND_POOL, "second"};
#endif

/* ---- a pool that nobody opens ---- */
static int p_open(const struct vh_opts *opts, struct vh_object *o, void **pool, struct vh_err *e) { return -ENOSYS; }
static void p_close(void *pool) {}
static int p_info(void *pool, struct vh_pool_info *i, struct vh_err *e) { return -ENOSYS; }
static int p_list(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e) { return -ENOSYS; }
static int p_stat(void *pool, const char *name, struct vh_vol_stat *st, struct vh_err *e) { return -ENOSYS; }
static int p_attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops,
		    struct vh_err *e) { return -ENOSYS; }

static const struct vh_opt opt_path = {sizeof(struct vh_opt), VH_OPT_PATH, VH_OPT_REQUIRED | VH_OPT_MAIN, "path",
	"the folder", NULL, NULL, 0, 0};
#ifdef V_bad_schema
static const struct vh_opt opt_bad = {sizeof(struct vh_opt), VH_OPT_SIZE, 0, "blocks", "how many", "1", NULL, 512, 4096};
static const struct vh_opt *const options[] = {&opt_path, &opt_bad, NULL};
#else
static const struct vh_opt *const options[] = {&opt_path, NULL};
#endif

#ifdef V_cap_lie
#define CAPS VH_POOL_CREATE
#else
#define CAPS 0
#endif
#define POOL_OPS { \
	.size = sizeof(struct vh_pool_ops), .caps = CAPS, .scheme = "variant", .pool_options = options, .open = p_open, \
	.close = p_close, .info = p_info, .list = p_list, .stat = p_stat, .attach = p_attach, }

#if defined(V_short_table)
/* Ends before attach, which is mandatory. */
static const struct vh_pool_ops the_ops = {
	.size = offsetof(struct vh_pool_ops, attach), .scheme = "variant", .open = p_open, .close = p_close,
	.info = p_info, .list = p_list, .stat = p_stat, .attach = p_attach};
#elif defined(V_null_member)
static const struct vh_pool_ops the_ops = {
	.size = sizeof(struct vh_pool_ops), .scheme = "variant", .open = p_open, .close = p_close,
	.info = p_info, .list = p_list, .attach = p_attach};
#elif defined(V_old_table)
/* An older plugin: knows nothing past attach; what lies behind in its memory is not ours to read. */
static const struct { struct vh_pool_ops ops; } the_ops_ = {{
	.size = offsetof(struct vh_pool_ops, reattach), .scheme = "variant", .pool_options = options, .open = p_open,
	.close = p_close, .info = p_info, .list = p_list, .stat = p_stat, .attach = p_attach,
	.reattach = (void *)0xdbdbdbdbdbdbdbdb, .meta_get = (void *)0xdbdbdbdbdbdbdbdb,
	.path = (void *)0xdbdbdbdbdbdbdbdb}};
#define the_ops the_ops_.ops
#elif defined(V_cut_member)
/* Ends in the middle of a pointer: that member is absent. */
static const struct vh_pool_ops the_ops = {
	.size = offsetof(struct vh_pool_ops, reattach) + 4, .scheme = "variant", .open = p_open, .close = p_close,
	.info = p_info, .list = p_list, .stat = p_stat, .attach = p_attach, .reattach = (void *)0xdbdbdbdbdbdbdbdb};
#elif defined(V_long_table)
/* A newer plugin: its table goes on past what this host knows. */
static const struct { struct vh_pool_ops ops; unsigned char tail[512]; } the_ops_ = {
	{ .size = sizeof(struct vh_pool_ops) + 512, .scheme = "variant", .pool_options = options, .open = p_open,
	  .close = p_close, .info = p_info, .list = p_list, .stat = p_stat, .attach = p_attach },
	{ [0 ... 511] = 0xdb }};
#define the_ops the_ops_.ops
#elif defined(V_silly_size)
static const struct vh_pool_ops the_ops = { .size = 2, .scheme = "variant" };
#else
static const struct vh_pool_ops the_ops = POOL_OPS;
#endif

/* ---- the descriptor ---- */
static const void *get(const char *iid)
{
#if defined(V_get_null)
	return NULL;
#elif defined(V_get_any)
	return &the_ops;
#else
	return strcmp(iid, VH_IID_POOL) ? NULL : &the_ops;
#endif
}

#if defined(V_no_interfaces)
static const char *const iids[] = {NULL};
#elif defined(V_unknown_interface)
static const char *const iids[] = {"vh.teleport/3", VH_IID_POOL, NULL};
#elif defined(V_twice)
static const char *const iids[] = {VH_IID_POOL, VH_IID_POOL, NULL};
#elif defined(V_endless)
static const char *const iids[] = {[0 ... 99] = "vh.x/1", NULL};
#else
static const char *const iids[] = {VH_IID_POOL, NULL};
#endif

#ifdef V_fini
static void v_fini(void)
{
	setenv("VARIANT_FINI", "done", 1);
}
#else
#define v_fini NULL
#endif

static const struct vh_plugin desc = {
#ifdef V_short_desc
	.size = offsetof(struct vh_plugin, get),
#else
	.size = sizeof(struct vh_plugin),
#endif
	.id = V_ID, .version = "1.2", .summary = "A variant", .license = "MIT",
#if defined(V_unknown_flag)
	.flags = UINT64_C(1) << 31,
#elif defined(V_ignorable_flag)
	.flags = UINT64_C(1) << 63,
#endif
#ifndef V_no_get
	.get = get,
#endif
	.interfaces = iids, .fini = v_fini,
};

/* ---- the entry ---- */
#ifdef V_gmodule
VH_EXPORT const char *g_module_check_init(void *module);
const char *g_module_check_init(void *module)
{
	setenv("VARIANT_GMODULE_RAN", "1", 1);
	return NULL;
}
#endif
#ifdef V_gmodule_unload
VH_EXPORT void g_module_unload(void *module);
void g_module_unload(void *module) {}
#endif

#ifdef V_ctor_hang
__attribute__((constructor)) static void ctor(void)
{
	for (;;)
		pause();
}
#endif
#if defined(V_gmodule) || defined(V_wrong_major) || defined(V_count)
__attribute__((constructor)) static void ctor(void)
{
	setenv("VARIANT_CTOR_RAN", "1", 1);
}
#endif

#if defined(V_dep_entry) || defined(V_dep_gmodule)
void plugdep_used(void);
__attribute__((used)) static void (*const keep)(void) = plugdep_used;
#endif

#ifdef V_exports
VH_EXPORT int variant_helper(void);
int variant_helper(void) { return 1; }
#endif
#ifdef V_ctor
__attribute__((constructor)) static void ctor(void)
{
	umask(077);
}
#endif
#ifdef V_thread_entry
static void *thread(void *arg)
{
	pause();
	return NULL;
}
#endif

#if !defined(V_no_entry) && !defined(V_dep_entry)
VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
#if defined(V_fail)
	return -ENOMEDIUM;
#elif defined(V_fail_text)
	host->remedy(NULL, "buy a %s", "license");
	return host->err(NULL, -EKEYEXPIRED, "the license of %s has run out", V_ID);
#elif defined(V_fail_service)
	return host->service(host, "vh.teleport/3") ? 0 : -EOPNOTSUPP;
#elif defined(V_hang)
	for (;;)
		pause();
#elif defined(V_needs_service)
	*out = &desc;
	return ((const struct vh_stats_ops *)host->service(host, VH_SVC_STATS))->counter ? 0 : -1;
#elif defined(V_positive)
	return 7;
#elif defined(V_no_desc)
	return 0;
#elif defined(V_crash)
	__builtin_trap();
	return 0;
#else
#ifdef V_dirty_entry
	if (open("/dev/null", O_RDONLY) < 0)
		return -errno;
#endif
#ifdef V_thread_entry
	pthread_t t;

	if (pthread_create(&t, NULL, thread, NULL))
		return -EAGAIN;
#endif
#ifdef V_loud
	printf("variant 1.2, brought to you by us\n");
	fflush(stdout);
#endif
#ifdef V_host_greedy
	/* Reads a member that the host's table does not have. */
	if (((void *const volatile *)host)[host->size / sizeof(void *) + 1] == (void *)1)
		return -1;
#endif
#ifdef V_service_greedy
	const struct vh_log_ops *log = host->service(host, VH_SVC_LOG);

	if (log && ((void *const volatile *)log)[sizeof(*log) / sizeof(void *)] == (void *)1)
		return -1;
#endif
#ifdef V_count
	const char *n = getenv("VARIANT_ENTRIES");
	char text[16] = {(char)('1' + (n ? *n - '0' : 0)), 0};

	setenv("VARIANT_ENTRIES", text, 1);
	usleep(20000);
#endif
	*out = &desc;
	return 0;
#endif
}
#endif
