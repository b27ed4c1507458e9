/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the tests of core/blk share: volumes to test with, and blocking helpers around a queue. */
#ifndef BLK_TEST_H
#define BLK_TEST_H

#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include "blk/volume.h"

/* A temporary file of `bytes` on the file system of `dir`, as an fd-tier volume; flags: O_DIRECT or 0. NULL when the file
 * system refuses them. `align`: len_align and buf_align that it claims. */
struct blk_vol *test_file_volume(const char *dir, int flags, uint64_t bytes, uint32_t align, const struct blk_config *c);
const char *test_tmpfs(void); /* a folder on tmpfs, or NULL */
const char *test_disk(void);  /* one on a disk */

/* A submit-tier volume in memory with everything adjustable. */
struct fake {
	uint8_t *mem;
	uint64_t bytes, cap; /* cap: where growing ends */
	struct vh_volume_info info;
	uint32_t room;       /* takes this many requests at a time per queue, then blocks; 0: all */
	int inline_done, remote; /* how it completes: inside submit, from a thread, else from the loop */
	int fail_flush;      /* errno of the next flushes */
	int hold;            /* keeps requests until fake_release() */
	int obey;            /* with hold: one that is cancelled ends */
	int lies;            /* with inline_done: says that it did not take the last one, which it has completed */
	atomic_int n_queues, submits, flushes, cancels, opens, fua, writes, violations;
	atomic_int in_submit;
	struct vh_object *object;
	pthread_mutex_t lock;
	struct fake_req { struct vh_req *r; struct fake_q *q; struct fake_req *next; } held[4096];
	unsigned n_held;
	pthread_t threads[4];
	struct fake_req *queue, **queue_tail; /* for the threads; not a GAsyncQueue, which TSan cannot see through */
	pthread_cond_t more;
	int ending;
};
struct fake *fake_new(uint64_t bytes, uint32_t align);
void fake_free(struct fake *f); /* the volume is put */
void fake_release(struct fake *f);
struct blk_vol *fake_volume(struct fake *f, const struct blk_config *c);
extern const struct vh_volume_ops fake_ops;

/* A loop with its thread, and a queue on it. */
struct tq {
	struct vh_loop *l;
	struct blk_vq *q;
};
void tq_open(struct tq *t, struct blk_vol *v, uint32_t depth);
void tq_close(struct tq *t);
int tq_iov(struct tq *t, int op, int flags, uint64_t off, uint64_t len, const struct iovec *iov, unsigned niov);
int tq_io(struct tq *t, int op, int flags, void *buf, uint64_t len, uint64_t off); /* waits; the result */

/* The random test: `queues` queues, each with its own part of the volume byte by byte (so neighbours share blocks), against
 * an in-memory oracle. */
void random_test(struct blk_vol *v, unsigned queues, unsigned depth, unsigned ops, uint64_t bytes, int modify);

#endif
