/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The inside of a queue: queue.c has the life of a request, task.c what is sent for it, gather.c how much at once, clock.c what
 * time does. [queue] all of it. */
#ifndef ISCSI_QUEUE_H
#define ISCSI_QUEUE_H

#include "iscsi.h"

#define TICK (250 * MSEC)
#define TICK_DOWN (10 * MSEC)
#define LOOK_EVERY (10 * SECOND)

enum { RQ_WAIT, RQ_SENT };

struct rq {
	struct rq *next, *prev;
	struct vh_req *r;
	struct queue *q;
	struct scsi_task *task; /* while it is sent */
	uint64_t since, not_before;
	uint8_t state, sent_once, syncing, cancelled;
	unsigned tries;
	uint8_t param[24];
	struct scsi_iovec iov[QUEUE_SEGMENTS];
};
_Static_assert(sizeof(struct rq) <= QUEUE_CTX, "the scratch of a request");

struct queue {
	struct volume *v;
	unsigned index, depth;
	struct session *s; /* NULL: lost */
	struct vh_loop *loop;
	struct vh_watch *watch;
	struct vh_timer *timer;
	uint32_t events;
	struct rq *head, *tail;
	unsigned waiting; /* of the list, not sent */
	unsigned small;   /* writes since the last push */
	unsigned large;   /* those under way */
	uint64_t due;     /* bytes that the target has to answer */
	unsigned lowat;   /* of them wake the loop; see gather.c */
	struct vh_timer *guard;
	uint8_t fast, guarded;
	struct scsi_task **tasks; /* free ones */
	unsigned n_tasks;
	uint64_t heard, pinged, armed, looked;
	uint8_t lost, dropping, fenced_off, looking;
	struct queue_fix fix;
};

static inline int rq_modifies(const struct vh_req *r)
{
	return r->op != VH_READ && r->op != VH_FLUSH;
}

/* task.c */
struct scsi_task *rq_task(struct queue *q, struct rq *rq);
void task_put(struct queue *q, struct scsi_task *t);

/* queue.c */
void queue_arm(struct queue *q, uint64_t after); /* the clock: at the latest then */
void queue_send(struct queue *q, uint64_t now);  /* what waits, as far as it may go */
void queue_push(struct queue *q);                /* out with it; drops a session that is lost */
void queue_drop(struct queue *q);
void queue_back(struct queue *q, struct session *s);
void queue_finish(struct queue *q, struct rq *rq, int res);

/* gather.c */
#define ANSWER 48u /* bytes of an answer without data */
void gather_sent(struct queue *q, const struct vh_req *r, int sent); /* r went to the library, or came back */
int gather_push(struct queue *q);   /* what the library has, as far as the socket takes it; negative: the session is lost */
void gather_heard(struct queue *q); /* the socket is readable */
void gather_again(struct queue *q); /* it was read */
void gather_set(struct queue *q);   /* more was sent */
void gather_guard(void *queue);     /* its timer's */

/* clock.c */
void queue_give_up(struct queue *q, struct rq *rq); /* it waits, and nobody wants to wait for it */
void queue_tick(void *ctx);

#endif
