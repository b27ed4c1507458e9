/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The volume group: making and opening it, what it holds, how full it is; and the plugin's tables. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "lvm.h"

#define TIMEOUT_NS UINT64_C(60000000000)
#define FULL 80.0 /* percent of a thin pool, from where on it is told */
#define ALL_CAPS (VH_POOL_CREATE | VH_POOL_REMOVE | VH_POOL_GROW | VH_POOL_SHRINK | VH_POOL_CLONE_FULL | VH_POOL_CLONE_COW | \
		  VH_POOL_SNAPSHOT | VH_POOL_LEASE | VH_POOL_META | VH_POOL_MAKE | VH_POOL_FILES)

const struct vh_host *lvm_host;
const struct vh_job_ops *lvm_job;
const struct vh_log_ops *lvm_log;

static const char *const wipes[] = {"none", "discard", "zero", NULL};
LVM_OPT(opt_vg, "vg", VH_OPT_STR, "The volume group", .flags = VH_OPT_REQUIRED | VH_OPT_MAIN, .min = 1, .max = 127);
LVM_OPT(opt_thin, "thin-pool", VH_OPT_STR, "The thin pool in it that new volumes are made in; none: volumes are thick", .min = 1, .max = 127);
LVM_OPT(opt_devices, "devices", VH_OPT_STR, "With --make: the block devices to make the group of, separated by commas");
LVM_OPT(opt_thin_size, "thin-size", VH_OPT_SIZE, "With --make: the thin pool's size; 0: nine tenths of what is free", .defval = "0");
LVM_OPT(opt_wipe, "wipe", VH_OPT_ENUM, "What is done to a volume's contents before it is deleted", .defval = "none", .choices = wipes);
LVM_OPT(opt_timeout, "timeout", VH_OPT_DURATION, "How long one command of lvm may take", .defval = "60s", .min = 1000000000,
    .max = INT64_C(86400000000000));
const struct vh_opt *const lvm_pool_options[] = {&opt_vg, &opt_thin, &opt_devices, &opt_thin_size, &opt_wipe, &opt_timeout, NULL};

static int from_options(const struct vh_opts *opts, struct lvm_pool *p, struct vh_err *e)
{
	const struct vh_val *wipe = vh_opt_get(opts, "wipe");
	int ret;

	p->vg = g_strdup(vh_opt_str(opts, "vg", ""));
	p->thin = g_strdup(vh_opt_str(opts, "thin-pool", NULL));
	p->wipe = wipe ? (enum lvm_wipe)CLAMP(wipe->num, LVM_WIPE_NONE, LVM_WIPE_ZERO) : LVM_WIPE_NONE;
	p->timeout = (uint64_t)MAX(1, vh_opt_num(opts, "timeout", TIMEOUT_NS));
	ret = lvm_vg_name_ok(p->vg, e);
	return ret || !p->thin ? ret : lvm_name_ok(p->thin, e);
}

static void pool_free(struct lvm_pool *p)
{
	lvm_forget(p);
	g_clear_pointer(&p->later, g_ptr_array_unref);
	g_free(p->recent);
	g_free(p->vg);
	g_free(p->thin);
	g_free(p);
}

/* The devices of the option, each once. */
static char **device_list(const struct vh_opts *opts, struct vh_err *e)
{
	const char *text = vh_opt_str(opts, "devices", "");
	g_auto(GStrv) parts = g_strsplit(text, ",", 0);
	GPtrArray *list = g_ptr_array_new();

	for (unsigned i = 0; parts[i]; i++) {
		struct stat st;
		int bad = parts[i][0] != '/' ? -EINVAL : stat(parts[i], &st) < 0 ? -errno : S_ISBLK(st.st_mode) ? 0 : -ENOTBLK;

		if (bad) {
			if (bad == -EINVAL)
				lvm_fail(e, bad, "devices: \"%s\" is no absolute path", parts[i]);
			else
				lvm_fail(e, bad, "the device %s: %s", parts[i], g_strerror(-bad));
			g_ptr_array_add(list, NULL);
			g_strfreev((char **)g_ptr_array_free(list, FALSE));
			return NULL;
		}
		g_ptr_array_add(list, g_strdup(parts[i]));
	}
	g_ptr_array_add(list, NULL);
	return (char **)g_ptr_array_free(list, FALSE);
}

/* vgcreate makes physical volumes of its devices as well. A device with something on it is refused: nobody is there to answer
 * lvm's question. */
static int make_vg(const struct lvm_pool *p, const struct vh_opts *opts, struct vh_job *j, struct vh_err *e)
{
	g_auto(GStrv) devices = NULL;
	g_autoptr(GPtrArray) args = g_ptr_array_new();

	if (!vh_opt_str(opts, "devices", NULL)) {
		lvm_hint(e, "give the block devices to make it of: --devices /dev/sdb,/dev/sdc");
		return lvm_fail(e, -ENOENT, "there is no volume group %s", p->vg);
	}
	devices = device_list(opts, e);
	if (!devices)
		return -EINVAL;
	g_ptr_array_add(args, (char *)"vgcreate");
	/* Room in lvm's own metadata for 10,000 volumes and their tags, twice; volumes are activated when they are used. */
	g_ptr_array_add(args, (char *)"--metadatasize");
	g_ptr_array_add(args, (char *)"32m");
	g_ptr_array_add(args, (char *)"--setautoactivation");
	g_ptr_array_add(args, (char *)"n");
	g_ptr_array_add(args, p->vg);
	for (unsigned i = 0; devices[i]; i++)
		g_ptr_array_add(args, devices[i]);
	g_ptr_array_add(args, NULL);
	return lvm_runv(p, j, NULL, NULL, e, (const char *const *)args->pdata);
}

static int make_thin(const struct lvm_pool *p, const struct vh_opts *opts, struct vh_job *j, struct vh_err *e)
{
	uint64_t want = (uint64_t)vh_opt_num(opts, "thin-size", 0);
	g_autofree char *size = want ? g_strdup_printf("%llub", (unsigned long long)want) : g_strdup("90%FREE");
	struct lvm_lv *lv;
	int ret = lvm_lv_get(p, p->thin, 0, &lv, NULL);

	if (!ret) {
		ret = lvm_is_thin_pool(lv) ? 0 : lvm_fail(e, -EEXIST, "%s/%s exists already and is no thin pool", p->vg, p->thin);
		lvm_lv_free(lv);
		return ret;
	}
	if (ret != -ENOENT)
		return lvm_lv_get(p, p->thin, 0, &lv, e);
	ret = lvm_name_new_ok(p->thin, e);
	if (ret)
		return ret;
	/* A full pool answers at once, so that a guest is stopped and goes on, and is not left waiting. New blocks are zeroed:
	 * they may have been another volume's. */
	return lvm_run(p, j, NULL, NULL, e, "lvcreate", "--type", "thin-pool", "-n", p->thin, want ? "-L" : "-l", size, "-Zy", p->vg, NULL);
}

int lvm_make(const struct vh_opts *opts, struct vh_job *j, struct vh_err *e)
{
	struct lvm_pool *p = g_new0(struct lvm_pool, 1);
	struct lvm_vg vg;
	int ret = from_options(opts, p, e);

	if (!ret) {
		ret = lvm_vg_get(p, &vg, NULL);
		if (ret == -ENOENT)
			ret = make_vg(p, opts, j, e);
		else if (ret)
			ret = lvm_vg_get(p, &vg, e);
	}
	if (!ret && p->thin)
		ret = make_thin(p, opts, j, e);
	pool_free(p);
	return ret;
}

int lvm_open(const struct vh_opts *opts, struct vh_object *o, void **pool, struct vh_err *e)
{
	struct lvm_pool *p = g_new0(struct lvm_pool, 1);
	struct lvm_vg vg;
	int ret = from_options(opts, p, e);

	p->recent = g_new0(struct lvm_recent, 1);
	if (!ret)
		ret = lvm_vg_get(p, &vg, e);
	if (!ret && vg.exported) {
		lvm_hint(e, "vgimport %s, on the host that is to use it", p->vg);
		ret = lvm_fail(e, -EBUSY, "the volume group %s is exported", p->vg);
	}
	if (ret) {
		pool_free(p);
		return ret;
	}
	g_strlcpy(p->vg_uuid, vg.uuid, sizeof(p->vg_uuid));
	p->later = g_ptr_array_new_with_free_func((GDestroyNotify)lvm_lv_free);
	*pool = p;
	return 0;
}

void lvm_close(void *pool)
{
	struct lvm_pool *p = pool;

	for (guint i = 0; i < p->later->len; i++)
		lvm_deactivate(p, p->later->pdata[i]);
	pool_free(p);
}

/* What is wrong with the thin pools, the worst first: 0, or 1, 2 with the text. */
static uint32_t thin_health(const GPtrArray *pools, char *out, size_t cap)
{
	uint32_t worst = 0;
	double fullest = 0;

	for (guint i = 0; i < pools->len; i++) {
		const struct lvm_lv *t = pools->pdata[i];
		double full = MAX(t->data, t->meta);

		if (!lvm_is_thin_pool(t))
			continue;
		if (strstr(t->health, "failed") && worst < 2) {
			worst = 2;
			snprintf(out, cap, "the thin pool %s has failed: lvconvert --repair", t->name);
		} else if (strstr(t->health, "metadata_read_only") && worst < 2) {
			worst = 2;
			snprintf(out, cap, "the metadata of the thin pool %s is read-only: lvconvert --repair", t->name);
		} else if (worst < 2 && full >= FULL && full > fullest) {
			worst = 1;
			fullest = full;
			snprintf(out, cap, "the thin pool %s is full to %.1f%% (metadata %.1f%%)%s", t->name, MAX(t->data, 0), MAX(t->meta, 0),
				 full >= 100 ? ": writers are stopped; extend it" : "");
		}
	}
	return worst;
}

int lvm_info(void *pool, struct vh_pool_info *out, struct vh_err *e)
{
	struct lvm_pool *p = pool;
	struct vh_pool_info r = {.size = out->size, .caps = ALL_CAPS};
	const struct lvm_lv *thin = NULL;
	GPtrArray *pools = NULL;
	struct lvm_vg vg;
	int ret = lvm_vg_get(p, &vg, e);

	if (!ret)
		ret = lvm_lvs(p, "lv_layout={\"thin\" && \"pool\"}", 1, &pools, e);
	if (ret)
		return ret;
	r.capacity = vg.size;
	r.available = vg.free;
	for (guint i = 0; p->thin && i < pools->len; i++)
		if (!strcmp(((struct lvm_lv *)pools->pdata[i])->name, p->thin))
			thin = pools->pdata[i];
	if (thin) {
		r.capacity = thin->bytes;
		r.available = thin->data < 0 ? UINT64_MAX : (uint64_t)((100 - thin->data) / 100 * (double)thin->bytes);
		r.allocated = thin->data < 0 ? UINT64_MAX : thin->bytes - r.available;
	} else {
		r.allocated = vg.size - MIN(vg.free, vg.size);
	}
	r.health = thin_health(pools, r.detail, sizeof(r.detail));
	if (p->thin && !thin) {
		r.health = 2;
		snprintf(r.detail, sizeof(r.detail), "there is no thin pool %s", p->thin);
	}
	if (vg.missing) {
		r.health = MAX(r.health, 1);
		r.caps &= VH_POOL_FILES | VH_POOL_LEASE;
		snprintf(r.detail, sizeof(r.detail), "%llu of the group's devices %s missing", (unsigned long long)vg.missing,
			 vg.missing == 1 ? "is" : "are");
	} else if (vg.ro) {
		r.health = MAX(r.health, 1);
		r.caps &= VH_POOL_FILES | VH_POOL_LEASE;
		snprintf(r.detail, sizeof(r.detail), "the volume group is read-only");
	}
	g_ptr_array_unref(pools);
	memcpy(out, &r, r.size < sizeof(r) ? r.size : sizeof(r));
	return 0;
}

void lvm_fill_stat(const struct lvm_pool *p, const struct lvm_lv *lv, struct vh_vol_stat *v)
{
	v->bytes = lv->bytes;
	v->allocated = lv->bytes;
	v->mtime = lv->time;
	if (lvm_is_thin(lv)) {
		v->flags |= VH_STAT_SPARSE;
		v->allocated = lv->data < 0 ? UINT64_MAX : (uint64_t)(lv->data / 100 * (double)lv->bytes);
	}
	snprintf(v->identity, sizeof(v->identity), "lvm:%s/%s", p->vg_uuid, lv->uuid);
}

int lvm_list(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	struct lvm_pool *p = pool;
	GPtrArray *list;
	int ret = lvm_lvs(p, NULL, 0, &list, e);

	if (ret)
		return ret;
	lvm_clean(p, list);
	for (guint i = 0; !ret && i < list->len; i++) {
		const struct lvm_lv *lv = list->pdata[i];
		struct vh_vol_stat v = {.size = sizeof(v)};

		if (!lvm_is_volume(lv))
			continue;
		lvm_fill_stat(p, lv, &v);
		p->current = lv;
		ret = fn(ctx, lv->name, with_stat ? &v : NULL) ? 1 : 0;
	}
	p->current = NULL;
	g_ptr_array_unref(list);
	return ret;
}

int lvm_stat(void *pool, const char *name, struct vh_vol_stat *out, struct vh_err *e)
{
	struct lvm_pool *p = pool;
	struct vh_vol_stat v = {.size = out->size};
	struct lvm_lv *lv;
	int ret = lvm_lv_get(p, name, LVM_RECENT, &lv, e);

	if (ret)
		return ret;
	if (!lvm_is_volume(lv)) {
		ret = lvm_fail(e, -ENOENT, lvm_is_thin_pool(lv) ? "a thin pool is no volume" : "there is no such volume in the volume group %s", p->vg);
		lvm_lv_free(lv);
		return ret;
	}
	lvm_fill_stat(p, lv, &v);
	if (lvm_in_use(p, lv))
		v.flags |= VH_STAT_IN_USE;
	lvm_lv_free(lv);
	memcpy(out, &v, v.size < sizeof(v) ? v.size : sizeof(v));
	return 0;
}

static int path(void *pool, const char *name, char *buf, uint64_t cap, struct vh_err *e)
{
	struct lvm_pool *p = pool;
	int ret = lvm_name_ok(name, e);

	if (ret)
		return ret;
	if ((uint64_t)snprintf(buf, cap, "/dev/%s/%s", p->vg, name) >= cap)
		return lvm_fail(e, -ENAMETOOLONG, "the path is too long");
	return 0;
}

static const struct vh_pool_ops ops = {
	.size = sizeof(ops),
	.caps = ALL_CAPS,
	.scheme = "lvm",
	.pool_options = lvm_pool_options,
	.vol_create_options = lvm_create_options,
	.make = lvm_make,
	.open = lvm_open,
	.close = lvm_close,
	.info = lvm_info,
	.list = lvm_list,
	.stat = lvm_stat,
	.create = lvm_create,
	.remove = lvm_remove,
	.resize = lvm_resize,
	.clone = lvm_clone,
	.snapshot_create = lvm_snapshot_create,
	.snapshot_list = lvm_snapshot_list,
	.snapshot_remove = lvm_snapshot_remove,
	.snapshot_rollback = lvm_snapshot_rollback,
	.attach = lvm_attach,
	.meta_get = lvm_meta_get,
	.meta_set = lvm_meta_set,
	.path = path,
};

static const char *const iids[] = {VH_IID_POOL, NULL};

static const void *get(const char *iid)
{
	return strcmp(iid, VH_IID_POOL) ? NULL : &ops;
}

static const struct vh_plugin plugin = {
	.size = sizeof(plugin), .built_minor = VH_ABI_MINOR, .id = "lvm", .version = "1.0", .summary = "Volumes as logical volumes of LVM",
	.license = "LGPL-2.1-or-later", .flags = VH_PLUGIN_NEEDS_ROOT, .interfaces = iids, .get = get};

VH_PLUGIN_NOTE("lvm", VH_KIND_POOL);

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
	lvm_host = host;
	lvm_job = vh_service(host, VH_SVC_JOB, sizeof(*lvm_job));
	lvm_log = vh_service(host, VH_SVC_LOG, sizeof(*lvm_log));
	*out = &plugin;
	return 0;
}
