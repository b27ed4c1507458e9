/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the files of the plugin share. */
#ifndef LUKS_IMPL_H
#define LUKS_IMPL_H

#include <vhost/sugar.h>
#include "luks.h"

struct image {
	const struct vh_meta_ops *ops;
	struct vh_meta *volume;
	struct luks_area area;
	struct luks *luks; /* its key; the copy of the header has been given back */
	struct vh_cipher cipher;
	uint64_t bytes; /* of the disk; changes only in resize(), under drain */
	int locked;     /* opened for check() without a key */
};

const struct vh_host *luks_host(void);
const struct vh_meta_ops *luks_meta(struct vh_err *e);
void luks_area_of(struct luks_area *a, struct vh_meta *volume, const struct vh_meta_ops *m, int read_only);

/* create.c */
extern const struct vh_opt *const luks_create_options[];
int luks_image_create(struct vh_create *c, struct vh_job *j, struct vh_err *e);
int luks_image_measure(const struct vh_create *c, uint64_t used, uint64_t *required, uint64_t *full, struct vh_err *e);

/* amend.c */
extern const struct vh_opt *const luks_amend_options[];
int luks_image_amend(void *img, const struct vh_opts *o, struct vh_job *j, struct vh_err *e);
int luks_image_check(void *img, uint32_t repair, vh_check_fn *fn, void *ctx, struct vh_job *j, struct vh_err *e);
int luks_image_describe(void *img, vh_describe_fn *fn, void *ctx);

#endif
