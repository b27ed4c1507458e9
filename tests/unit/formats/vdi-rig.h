/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the tests of the vdi plugin share: images with options over fake volumes, and their bytes. */
#ifndef VDI_RIG_H
#define VDI_RIG_H

#include "rig.h"

#define VDI_MAP_OFF 4096u
#define VDI_DATA_OFF (1u << 20)
#define VDI_CAPS (VH_VOL_GROW | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_ZERO_ON_GROW)

const struct vh_format_ops *vdi_ops(void);
/* options: "block-size=4K,static=on", or NULL; parent: a vdi volume, or NULL */
int vdi_make(struct blk_vol *v, uint64_t bytes, const char *options, uint32_t prealloc, struct blk_vol *parent,
	     uint64_t parent_bytes, struct vh_err *e);
/* A new one in a new volume; fails the test when it cannot be made. */
struct blk_vol *vdi_new(uint64_t bytes, const char *options, struct blk_vol *parent, uint64_t parent_bytes);
/* Opens it (takes no reference), with `parent` as the option `backing` says. NULL: it failed, and e has the text. */
struct fmt_image *vdi_open_with(struct blk_vol *v, struct blk_vol *parent, int read_only, struct vh_err *e);
struct fmt_image *vdi_open(struct blk_vol *v, struct blk_vol *parent); /* fails the test */
uint32_t vdi_get32(struct blk_vol *v, uint64_t off);
void vdi_put32(struct blk_vol *v, uint64_t off, uint32_t x);

struct vdi_found { int leaks, corrupt, fixed; char last[160]; };
/* check() of the plugin itself, opened as for a repair. */
int vdi_check_raw(struct blk_vol *v, uint32_t repair, struct vdi_found *f);

#endif
