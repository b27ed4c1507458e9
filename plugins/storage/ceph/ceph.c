/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The pool type `ceph`: its table and its entry. */
#include "ceph.h"

const struct vh_host *ceph_host;
const struct vh_io_ops *ceph_io;
const struct vh_event_ops *ceph_event;
const struct vh_job_ops *ceph_job;
const struct vh_log_ops *ceph_log;

static const struct vh_pool_ops ceph_ops = {
	.size = sizeof(ceph_ops),
	.caps = VH_POOL_CREATE | VH_POOL_REMOVE | VH_POOL_GROW | VH_POOL_SHRINK | VH_POOL_CLONE_FULL | VH_POOL_CLONE_COW |
		VH_POOL_SNAPSHOT | VH_POOL_LEASE | VH_POOL_LEASE_HOSTS | VH_POOL_META | VH_POOL_MAKE,
	.scheme = "ceph",
	.pool_options = ceph_pool_options,
	.vol_create_options = ceph_create_options,
	.make = ceph_make,
	.open = ceph_open,
	.close = ceph_close,
	.info = ceph_info,
	.list = ceph_list,
	.stat = ceph_stat,
	.create = ceph_create,
	.remove = ceph_remove,
	.resize = ceph_resize,
	.clone = ceph_clone,
	.snapshot_create = ceph_snapshot_create,
	.snapshot_list = ceph_snapshot_list,
	.snapshot_remove = ceph_snapshot_remove,
	.snapshot_rollback = ceph_snapshot_rollback,
	.attach = ceph_attach,
	.meta_get = ceph_meta_get,
	.meta_set = ceph_meta_set,
	.lease_break = ceph_lease_break,
	.flatten = ceph_flatten,
};

VH_PLUGIN_NOTE("ceph", VH_KIND_POOL);

static const char *const interfaces[] = {VH_IID_POOL, NULL};

static const void *get(const char *iid)
{
	return strcmp(iid, VH_IID_POOL) ? NULL : &ceph_ops;
}

static const struct vh_plugin plugin = {
	.size = sizeof(plugin), .built_minor = VH_ABI_MINOR, .id = "ceph", .version = "1.0", .summary = "RBD images of a Ceph cluster",
	.license = "LGPL-2.1-or-later", .flags = VH_PLUGIN_OWN_THREADS | VH_PLUGIN_NEEDS_NET, .interfaces = interfaces, .get = get};

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
	ceph_host = host;
	ceph_io = vh_service(host, VH_SVC_IO, VH_END(ceph_io, done_remote));
	ceph_event = vh_service(host, VH_SVC_EVENT, VH_END(ceph_event, post));
	ceph_job = vh_service(host, VH_SVC_JOB, VH_END(ceph_job, cancelled));
	ceph_log = vh_service(host, VH_SVC_LOG, VH_END(ceph_log, log));
	if (!ceph_io)
		return host->err(NULL, -EOPNOTSUPP, "this host has no service vh.io/1");
	*out = &plugin;
	return 0;
}
