/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Images in real files of one folder, with the files that they name beside them: for tests against other programs. */
#ifndef VMDK_FILE_H
#define VMDK_FILE_H

#include <glib.h>
#include "fmt/image.h"
#include "plug/options.h"
#include "plug/plug.h"

const struct vh_format_ops *vmdk_ops(void);
struct blk_vol *vmdk_file(const char *path, int make); /* NULL: cannot be opened */
/* Options as KEY=VALUE,...; NULL: none. */
struct fmt_image *vmdk_file_open(const char *path, int read_only, int repair, const char *options, struct vh_err *e);
int vmdk_file_create(const char *path, uint64_t bytes, const char *options, const char *backing, uint32_t prealloc, struct vh_err *e);
/* A streamOptimized image of the bytes of a raw file, encoded by several threads; writes must ascend, or it fails. */
int vmdk_file_stream(const char *raw, const char *path, const char *level, const char *flush_at, struct vh_err *e);

/* A plugin's image without the core above it. */
struct vmdk_raw {
	const struct vh_format_ops *ops;
	void *img;
	struct blk_vol *vol[8];
	struct vh_meta *meta[8];
	uint32_t n;
};
int vmdk_raw_open(struct vmdk_raw *r, struct blk_vol *const *vols, uint32_t n, uint64_t flags, const char *options, struct vh_err *e);
void vmdk_raw_close(struct vmdk_raw *r);
struct optset *vmdk_options(vh_schema schema, const char *text);

#endif
