/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the tests of qcow2's management share: a folder, QEMU's tools in it, images loaded from it into memory and stored back. */
#ifndef QCOW2_RIG_H
#define QCOW2_RIG_H

#include <glib/gstdio.h>
#include "../fmt/rig.h"

extern char *q2_dir; /* made by q2_main() */
extern int q2_all;   /* argument `all`: every kind of image, not only a few */

int q2_main(int argc, char **argv, void (*add)(void)); /* skips without QEMU's tools */
void q2_run(const char *fmt, ...) G_GNUC_PRINTF(1, 2);  /* a shell command in the folder; must succeed */
int q2_try(const char *fmt, ...) G_GNUC_PRINTF(1, 2);   /* its exit status */
char *q2_out(const char *fmt, ...) G_GNUC_PRINTF(1, 2); /* what it prints; must succeed */

uint8_t *q2_file(const char *name, gsize *n);
void q2_file_set(const char *name, const void *data, gsize n);
uint8_t *q2_raw(const char *name, gsize *n); /* what qemu-img reads of it */

/* An image, its volume in memory. */
struct q2_img {
	char *name;
	struct blk_vol *v;
	struct fmt_image *i;
};
#define Q2_RO 1
#define Q2_REPAIR 2
int q2_try_open(struct q2_img *m, const char *name, int how, const struct vh_opts *o, struct vh_err *e);
void q2_open_(struct q2_img *m, const char *name, int how);
void q2_close_(struct q2_img *m); /* and stores it, unless it was opened read-only */
/* Options of one kind: name, string value, numeric value; ended by NULL. */
struct vh_opts *q2_opts(const char *name, const char *str, int64_t num, ...) G_GNUC_NULL_TERMINATED;
void q2_opts_free(struct vh_opts *o);

struct q2_found { uint64_t leaks, bad, fixed; char first[256]; };
int q2_check_(struct q2_img *m, int repair, struct q2_found *f, struct vh_err *e);
/* Opens, checks, and compares with qemu-img's verdict: exit status 0, 2 or 3. Returns it. */
int q2_verdict(const char *name);
void q2_clean(const char *name); /* the same, and it must be clean */
/* The disk as it is read here equals `want`. */
void q2_reads(const char *name, const struct vh_opts *o, const uint8_t *want, gsize n, const char *when);
void q2_same(const uint8_t *a, const uint8_t *b, gsize n, const char *when);
const struct vh_format_ops *q2_ops(void);
uint64_t q2_be(const uint8_t *p, unsigned bytes);
void q2_put(uint8_t *p, unsigned bytes, uint64_t v);

#endif
