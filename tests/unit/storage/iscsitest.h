/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A real tgtd (tests/servers/tgt), volumes of it through the core, and a load that knows what must be on them. */
#ifndef ISCSITEST_H
#define ISCSITEST_H

#include "../blk/blk-test.h"
#include "store/store.h"

#define IQN "iqn.2024-01.test.vhost:disks"

void test_begin(void); /* VHOST_ROOT, and tgt_dir in it, which is not there yet */
void test_end(void);
void tgt_begin(void); /* and a server with one target in it */
void tgt_end(void);
extern char *tgt_dir;
/* tests/servers/tgt with these words after the folder; must succeed. */
void tgt(const char *verb, const char *words);

/* The volume lunN, its pool opened with `options` beside portal and target. */
extern uint64_t vol_io_timeout; /* of the next ones, ns; test_begin() sets none */
struct vol { struct store_pool *pool; struct blk_vol *v; };
int vol_try(struct vol *x, unsigned lun, uint32_t mode, const char *options, struct vh_err *e);
void vol_open(struct vol *x, unsigned lun, const char *options);
void vol_close(struct vol *x);

/* One writer per block at a time, over [0, blocks) of one queue: each block is overwritten as soon as the write before is done. */
#define LOAD_BLOCK 4096u
struct load;
struct load *load_start(struct blk_vol *v, unsigned first, unsigned blocks, unsigned depth);
uint64_t load_done(struct load *l); /* writes that have ended well, so far */
/* Waits until all is ended. Returns how many failed; what is on the disk must be what was written last. */
unsigned load_stop(struct load *l);
/* Reads all of it back: the number of blocks that are not what was acknowledged last. Frees l. */
unsigned load_verify(struct load *l, struct blk_vol *v);

#endif
