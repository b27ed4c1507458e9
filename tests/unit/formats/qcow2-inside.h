/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The qcow2 plugin linked in, with a small host, over volumes in memory. */
#ifndef QCOW2_INSIDE_H
#define QCOW2_INSIDE_H

#include <glib.h>
#include <stdio.h>
#include "../../../plugins/formats/qcow2/refcount.h"

struct vh_meta { uint8_t *data; uint64_t cap, bytes, writes, limit; }; /* bytes past cap are a hole */
struct vh_err { char text[512]; int code; };

int inside_main(int argc, char **argv, void (*add)(void));
extern const struct vh_format_ops *ops;
uint64_t rnd(void);

struct vh_meta *vol_new(void);
void vol_free(struct vh_meta *m);
int m_write(struct vh_meta *m, const void *buf, uint64_t len, uint64_t off); /* buf NULL: zeros */
int m_resize(struct vh_meta *m, uint64_t bytes);
struct given { const char *name; int64_t num; }; /* options; a NULL name ends them */
void create(struct vh_meta *m, uint64_t bytes, uint32_t prealloc, const struct given *g);
struct vh_meta *mapped(const struct given *g); /* a new image of a MiB with its first cluster mapped */
int try_open(struct vh_meta *m, uint64_t flags, struct q2 **q, struct vh_err *e);
struct q2 *must_open(struct vh_meta *m, uint64_t flags);
int flush(struct q2 *q); /* all phases */
void found(void *ctx, uint32_t what, uint64_t off, const char *text); /* counts into an int */
void clean(struct q2 *q);                                             /* check finds nothing */

void put_be(uint8_t *p, uint64_t v, int n);
struct vh_extent first(struct q2 *q, uint32_t op, uint32_t flags, uint64_t pos, int want); /* of 4 KiB; map answers `want` */
uint8_t *l2_entry(struct vh_meta *m, uint64_t index, uint32_t entry); /* of the first L2 table */

#endif
