/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * How many commands go out together, and how many answers one wake-up takes.
 *
 * A near target answers sooner than a thread sleeps and wakes. Each answer then costs a turn of the loop, and the target gets the
 * next commands one at a time, each for a turn of its own. So while answers come fast and many are due, the socket wakes the loop
 * only when a share of them is there (SO_RCVLOWAT), or GATHER later: the guard. Nothing else may happen while it waits for more than
 * a byte: errors and the end of the connection wake it all the same, and a guard that finds no answer ends the gathering.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include "queue.h"

#define GATHER (MSEC / 10)
#define DEPTH_MIN 12       /* commands under way */
#define SHARE 4            /* of what they have to answer */
#define SMALL 32768u       /* bytes of a request; an answer that is larger is worth a turn of its own */
#define CORK_MIN 3

static void socket_lowat(struct queue *q, unsigned bytes)
{
	int n = (int)bytes;

	if (bytes == q->lowat)
		return;
	if (!setsockopt(iscsi_get_fd(q->s->ctx), SOL_SOCKET, SO_RCVLOWAT, &n, sizeof(n)))
		q->lowat = bytes;
	else
		q->fast = 0;
}

static void guard_arm(struct queue *q)
{
	uint64_t at = q->lowat > 1 ? is_loop->now(q->loop) + GATHER : UINT64_MAX;

	if (at != UINT64_MAX || q->guarded)
		is_loop->timer_at(q->guard, at);
	q->guarded = at != UINT64_MAX;
}

/* A power of two, so that it seldom changes. */
void gather_set(struct queue *q)
{
	unsigned sent = q->depth - q->n_tasks;
	unsigned lowat = 1;

	if (!q->s || q->lost)
		return;
	if (q->fast && sent >= DEPTH_MIN && q->due / sent <= SMALL)
		while (lowat * 2 * SHARE <= q->due)
			lowat *= 2;
	socket_lowat(q, lowat);
	if (q->lowat == 1 || !q->guarded)
		guard_arm(q);
}

void gather_heard(struct queue *q)
{
	uint64_t now = is_loop->now(q->loop);

	q->fast = now - q->heard < GATHER;
	q->heard = now;
}

/* The threshold stays until the next commands go out, or the guard finds that there are none. */
void gather_again(struct queue *q)
{
	if (q->s && !q->lost)
		guard_arm(q);
}

void gather_guard(void *ctx)
{
	struct queue *q = ctx;
	uint64_t due = q->due;

	q->guarded = 0;
	if (!q->s)
		return;
	if (iscsi_service(q->s->ctx, POLLIN) < 0)
		q->lost = 1;
	if (q->due != due)
		q->heard = is_loop->now(q->loop);
	else
		q->fast = 0;
	queue_push(q);
	gather_set(q);
}

void gather_sent(struct queue *q, const struct vh_req *r, int sent)
{
	uint64_t bytes = ANSWER + (r->op == VH_READ ? r->len : 0);

	q->due += sent ? bytes : -bytes;
	if (r->op == VH_WRITE && r->len > SMALL) /* its data goes out as the target asks for it */
		q->large += sent ? 1 : -1u;
	else
		q->small += sent && r->op == VH_WRITE;
}

int gather_push(struct queue *q)
{
	/*
	 * The library sends each command, and each piece of data behind it (8 KiB with tgtd), by a system call of its own: two packets
	 * instead of part of one unless told otherwise. Reads have no data, and held back they leave the target without work.
	 */
	int cork = q->large || q->small >= CORK_MIN, fd = iscsi_get_fd(q->s->ctx), ret;

	q->small = 0;
	if (cork)
		setsockopt(fd, IPPROTO_TCP, TCP_CORK, &(int){1}, sizeof(int));
	ret = iscsi_service(q->s->ctx, POLLOUT);
	if (cork && ret >= 0)
		setsockopt(fd, IPPROTO_TCP, TCP_CORK, &(int){0}, sizeof(int));
	return ret;
}
