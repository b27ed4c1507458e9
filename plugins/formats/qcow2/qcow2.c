/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The plugin's table; an image's opening, closing, and what is done before its first change. */
#include <stdarg.h>
#include <stdio.h>
#include "qcow2.h"

static const struct vh_host *vh_host_ptr;
const struct vh_host *q2_host;
const struct vh_meta_ops *q2_io;
const struct vh_log_ops *q2_log;
const struct vh_job_ops *q2_job;

int q2_services(struct vh_err *e)
{
	const struct vh_meta_ops *m = vh_service(vh_host_ptr, VH_SVC_META, VH_UPTO(struct vh_meta_ops, resize));

	q2_host = vh_host_ptr;
	q2_log = vh_service(vh_host_ptr, VH_SVC_LOG, VH_UPTO(struct vh_log_ops, log));
	q2_job = vh_service(vh_host_ptr, VH_SVC_JOB, VH_UPTO(struct vh_job_ops, cancelled));
	if (!m)
		return q2_fail(e, -EOPNOTSUPP, "this host has no " VH_SVC_META " service");
	q2_io = m;
	return 0;
}

static const struct vh_opt opt_cache = {
	sizeof(struct vh_opt), VH_OPT_SIZE, 0, "cache-size",
	"Bytes of memory for mapping tables; 0: as much as the whole disk needs, up to 64M", "0", NULL, 0, INT64_C(1) << 36};
static const struct vh_opt *const open_options[] = {&opt_cache, NULL};

static const struct vh_format_ops ops = {
	.size = sizeof(struct vh_format_ops),
	.caps = VH_FMT_COMPRESSED | VH_FMT_CRYPT | VH_FMT_DISCARD | VH_FMT_ZERO | VH_FMT_LOCK_SELF | VH_FMT_DIRTY | VH_FMT_BACKING |
		VH_FMT_ENCODE,
	.name = "qcow2",
	.open_options = open_options,
	.create_options = q2_create_options,
	.probe = q2_probe,
	.inspect = q2_inspect,
	.open = q2_open,
	.close = q2_close,
	.info = NULL,
	.map = q2_map,
	.commit = q2_commit,
	.flush = q2_flush,
	.decode = q2_decode,
	.create = q2_create,
	.resize = q2_resize,
	.check = q2_check,
	.measure = q2_measure,
	.snapshot_create = q2_snapshot_create,
	.snapshot_list = q2_snapshot_list,
	.snapshot_apply = q2_snapshot_apply,
	.snapshot_remove = q2_snapshot_remove,
	.describe = q2_describe,
	.amend = q2_amend,
	.set_backing = q2_set_backing,
	.empty = q2_empty,
	.encode = q2_encode,
	.put = q2_put,
	.create_refs = q2_create_refs,
};

VH_PLUGIN_DEFINE("qcow2", VH_KIND_FORMAT, VH_IID_FORMAT, &ops, "1.0",
		 "QEMU's copy-on-write format, versions 2 and 3", "LGPL-2.1-or-later", 0);
