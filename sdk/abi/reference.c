/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* A shared object that mentions every struct of the ABI, for abidw: sdk/abi/v1.abixml is made from its debug information. */
#include <vhost/filter.h>
#include <vhost/format.h>
#include <vhost/net.h>
#include <vhost/plugin.h>
#include <vhost/pool.h>

#define USE(type) VH_EXPORT void vh_abi_##type(const struct type *p); void vh_abi_##type(const struct type *p) { (void)p; }
USE(vh_note)
USE(vh_lower_ops)
USE(vh_filter_open)
USE(vh_filter_ops)
USE(vh_extent)
USE(vh_map)
USE(vh_ref)
USE(vh_cipher)
USE(vh_image_info)
USE(vh_open)
USE(vh_create)
USE(vh_create_ref)
USE(vh_snapshot)
USE(vh_format_ops)
USE(vh_host)
USE(vh_log_ops)
USE(vh_task)
USE(vh_loop_ops)
USE(vh_io_ops)
USE(vh_event_ops)
USE(vh_meta_ops)
USE(vh_job_ops)
USE(vh_secret_ops)
USE(vh_stats_ops)
USE(vh_req)
USE(vh_net_open)
USE(vh_net_info)
USE(vh_net_filter)
USE(vh_net_ops)
USE(vh_opt)
USE(vh_val)
USE(vh_opts)
USE(vh_plugin)
USE(vh_pool_info)
USE(vh_vol_stat)
USE(vh_vol_spec)
USE(vh_snap_spec)
USE(vh_attach)
USE(vh_pool_ops)
USE(vh_volume_info)
USE(vh_volume_ops)

/* And the one function. */
int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
	return host && out ? 0 : -1;
}
