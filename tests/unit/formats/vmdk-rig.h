/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the tests of the vmdk plugin share: images over fake volumes, many of them made by hand. */
#ifndef VMDK_RIG_H
#define VMDK_RIG_H

#include "rig.h"

#define VMDK_CAPS (VH_VOL_GROW | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_ZERO_ON_GROW)

const struct vh_format_ops *vmdk_ops(void);
struct blk_vol *vmdk_vol(const char *label); /* empty, grows */
/* Options "KEY=VALUE,..." or NULL; vols: volume 0 and the further files. */
int vmdk_make(struct blk_vol *const *vols, unsigned n, uint64_t bytes, const char *options, struct blk_vol *parent,
	      struct vh_err *e);
struct blk_vol *vmdk_new(uint64_t bytes, const char *options, struct blk_vol *parent); /* one file; fails the test */
void vmdk_name(const char *name, struct blk_vol *v); /* what references may lead to; takes no reference */
void vmdk_forget(void);
struct fmt_image *vmdk_open_with(struct blk_vol *v, int read_only, const char *options, struct vh_err *e);
struct fmt_image *vmdk_open(struct blk_vol *v); /* fails the test */

/* The plugin's own image, without the core above it. */
struct vmdk_raw {
	void *img;
	struct vh_meta *meta[8];
	unsigned n;
};
int vmdk_raw_open(struct vmdk_raw *r, struct blk_vol *const *vols, unsigned n, uint64_t flags, const char *options, struct vh_err *e);
void vmdk_raw_close(struct vmdk_raw *r);
int vmdk_raw_sync(struct vmdk_raw *r); /* every phase of a flush */

struct vmdk_found { int leaks, corrupt, fixed; char last[200]; };
/* check() of the image in these volumes, opened as for a repair; < 0: it failed, or did not open. */
int vmdk_check_raw(struct blk_vol *v, uint32_t repair, struct vmdk_found *f);

/* ---- by hand; offsets in sectors ---- */
void put_32(struct blk_vol *v, uint64_t off, uint32_t x);
void put_64(struct blk_vol *v, uint64_t off, uint64_t x);
uint32_t get_32(struct blk_vol *v, uint64_t off);
void put_bytes(struct blk_vol *v, uint64_t off, const void *p, uint64_t n);
void put_text(struct blk_vol *v, uint64_t off, const char *text);

struct sparse {
	uint32_t version, flags, gtes;
	uint64_t capacity, grain, desc_at, desc_size, rgd, gd, overhead;
	uint32_t compress;
};
void put_sparse(struct blk_vol *v, uint64_t off, const struct sparse *s);
/* A sparse image of `capacity` sectors with small grains and tables (8 and 128); thin: no table is there yet. */
struct blk_vol *vmdk_small(uint64_t capacity, int rgd, int zero_grain, int thin, const char *parent, uint32_t parent_cid);
#define SMALL_GRAIN 4096u
#define SMALL_GTES 128u

#endif
