/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* vmdk: VMware's disk format. The tables of the plugin; README.md says what it can do. */
#include "vmdk.h"

const struct vh_host *vmdk_host;

static int vmdk_probe(const void *buf, uint64_t len, uint64_t bytes)
{
	enum file_kind k;

	if (file_kind(buf, len, &k) < 0)
		return 0;
	return k == FILE_TEXT ? desc_is_text(buf, len) : k == FILE_SESPARSE ? 90 : 100;
}

const char *const vmdk_subformats[] = {"monolithicSparse", "monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat",
				       "streamOptimized", NULL};
const char *const vmdk_adapters[] = {"ide", "lsilogic", "buslogic", "legacyESX", NULL};
static const char *const levels[] = {"default", "fast", "1", "2", "3", "4", "5", "6", "7", "8", "9", NULL};
static const char *const parent_cid[] = {"check", "ignore", NULL};

#define OPT(TYPE, NAME, DOC, DEF, CHOICES, MAX) {sizeof(struct vh_opt), TYPE, 0, NAME, DOC, DEF, CHOICES, 0, MAX}
static const struct vh_opt
	opt_level = OPT(VH_OPT_ENUM, "compress-level", "How much work is put into a streamOptimized image that is written",
			"default", levels, 0),
	opt_parent = OPT(VH_OPT_ENUM, "parent-cid", "What happens when the parent was changed since this image was made over it",
			 "check", parent_cid, 0),
	opt_subformat = OPT(VH_OPT_ENUM, "subformat", "How the disk is laid out in files", "monolithicSparse", vmdk_subformats, 0),
	opt_adapter = OPT(VH_OPT_ENUM, "adapter-type", "The disk controller that the descriptor names", "ide", vmdk_adapters, 0),
	opt_hwversion = OPT(VH_OPT_INT, "hwversion", "The virtual hardware version that the descriptor names", NULL, NULL, 99),
	opt_tools = OPT(VH_OPT_INT, "toolsversion", "The version of the guest tools that the descriptor names", NULL, NULL,
			INT32_MAX),
	opt_compat6 = OPT(VH_OPT_BOOL, "compat6", "Hardware version 6, for VMware Workstation 6", "off", NULL, 0),
	opt_zeroed = OPT(VH_OPT_BOOL, "zeroed-grain", "Keep zeros as metadata; older programs do not know it", "off", NULL, 0);
static const struct vh_opt *const open_options[] = {&opt_level, &opt_parent, NULL};
static const struct vh_opt *const create_options[] = {&opt_subformat, &opt_adapter, &opt_hwversion, &opt_tools,
						      &opt_compat6, &opt_zeroed, NULL};

static const struct vh_format_ops vmdk_ops = {
	.size = sizeof(struct vh_format_ops),
	.caps = VH_FMT_COMPRESSED | VH_FMT_DISCARD | VH_FMT_ZERO | VH_FMT_LOCK_SELF | VH_FMT_DIRTY | VH_FMT_BACKING |
		VH_FMT_WRITE_ONCE | VH_FMT_ENCODE,
	.name = "vmdk",
	.open_options = open_options,
	.create_options = create_options,
	.probe = vmdk_probe,
	.inspect = vmdk_inspect,
	.open = vmdk_open,
	.close = vmdk_close,
	.info = vmdk_info,
	.map = vmdk_map,
	.commit = vmdk_commit,
	.flush = vmdk_flush,
	.decode = vmdk_decode,
	.create = vmdk_create,
	.resize = vmdk_resize,
	.check = vmdk_check,
	.measure = vmdk_measure,
	.describe = vmdk_describe,
	.set_backing = vmdk_set_backing,
	.empty = vmdk_empty,
	.encode = vmdk_encode,
	.put = vmdk_put,
	.create_refs = vmdk_create_refs,
};

static const char *const iids[] = {VH_IID_FORMAT, NULL};

static const void *get(const char *iid)
{
	return strcmp(iid, VH_IID_FORMAT) ? NULL : &vmdk_ops;
}

static const struct vh_plugin plugin = {
	.size = sizeof(plugin), .built_minor = VH_ABI_MINOR, .id = "vmdk", .version = "1.0",
	.summary = "Disks of VMware: sparse, flat, split, compressed", .license = "LGPL-2.1-or-later", .interfaces = iids,
	.get = get};

VH_PLUGIN_NOTE("vmdk", VH_KIND_FORMAT);

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *host, const struct vh_plugin **out)
{
	vmdk_host = host;
	*out = &plugin;
	return 0;
}
