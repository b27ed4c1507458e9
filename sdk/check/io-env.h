/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* A volume of the plugin under check, and queues of it on threads of their own, with every promise of the host kept and
 * every promise of the plugin watched: io-env.c. The checks themselves are in io.c. */
#ifndef SDK_CHECK_IO_ENV_H
#define SDK_CHECK_IO_ENV_H

#include <pthread.h>
#include <stdatomic.h>
#include <vhost/volume.h>
#include "check.h"
#include "util/loop.h"

#define IO_REGION (4u << 20) /* bytes of the volume that the checks work on, at most */
#define IO_STRIPE (32u << 10)
#define IO_DEPTH 16u
#define IO_IOV_MAX 1024u

struct io_env {
	struct check_ctx *c;
	const struct vh_pool_ops *pops;
	void *pool, *vol;
	const struct vh_volume_ops *ops; /* the host's copy */
	struct vh_volume_info info;      /* unknown values replaced by what they mean */
	uint64_t region;
	char name[64];
	int keeps; /* the plugin keeps what is written: not with --set check.data=off */
	struct vh_object *object;
};

enum io_state { IO_IDLE, IO_OFFERED, IO_TAKEN, IO_ENDED };

struct io_queue;
struct io_req {
	struct vh_req req; /* first */
	struct io_queue *q;
	struct io_req *next;
	atomic_int state;
	int result, cancelled;
	uint8_t *map;      /* buffers: a mapping that becomes PROT_NONE once the request has ended */
	size_t map_len;
	uint8_t *want;     /* of a read */
	struct iovec *iov; /* IO_IOV_MAX */
	void (*ended)(struct io_req *r); /* on the loop, never within submit */
	struct vh_task task;
};

struct io_queue {
	struct io_env *env;
	struct vh_loop *loop;
	void *pq;
	unsigned index;
	struct io_req req[IO_DEPTH];
	struct io_req *out, **out_tail; /* not taken yet */
	struct io_req *ended;
	struct vh_task send_task;
	int blocked, ready, submitting;
	unsigned inflight;
	uint64_t random;
	/* of io-random */
	unsigned left;
	uint8_t *oracle, *known;
	unsigned queues;
	int odd, cancel;
	struct vh_task fill_task;
	atomic_int finished;
};

/* Opens the pool, makes a volume where the pool can, and attaches it. Skips the check when there is nothing to attach. */
void io_open(struct io_env *env, struct check_ctx *c, uint32_t mode);
int io_attach(struct io_env *env, uint32_t mode, void **vol, const struct vh_volume_ops **ops, struct vh_err *e);
void io_close(struct io_env *env);
/* Skips the check on the fd tier, where the host moves the data. */
void io_need_submit(struct io_env *env);
void io_info(struct io_env *env, struct vh_volume_info *i); /* asks the plugin again */

void io_queue_open(struct io_queue *q, struct io_env *env, unsigned index);
void io_queue_close(struct io_queue *q);
uint64_t io_random(struct io_queue *q, uint64_t bound);
/* On the loop: prepares buffers of len bytes in up to `pieces` pieces that obey the limits, filled with `fill` (< 0: random). */
void io_buffers(struct io_req *r, uint64_t len, unsigned pieces, int fill);
void io_submit_req(struct io_req *r); /* on the loop; sent at the end of the turn */
/* From the check's thread: one request, waited for. */
int io_do(struct io_queue *q, uint16_t op, uint16_t flags, uint64_t off, uint64_t len, void *buf);

#endif
