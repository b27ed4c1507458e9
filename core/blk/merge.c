/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Requests of one turn that follow each other in the volume go to the kernel as one: 32 reads of 4 KiB cost a disk, the kernel and
 * the guest, which hears of all at once, more than one of 128 KiB. Only neighbours in the order of submission are looked at, of the same operation and flags, up to
 * the volume's limits. The parts stay what they are (counted, timed, holding their ranges) and end one by one; when the whole fails
 * or comes back short, each part is sent again alone, so that an error is only that of the part that has it. Flushes are
 * not touched: they cover writes that have completed.
 */
#include <string.h>
#include <sys/mman.h>
#include "blk/blk-i.h"

#define MERGES 16u            /* of a queue, in flight */
/* Larger ones take from the disk what it could do at the same time (eight reads of 128 KiB as one were slower than as four). So do
 * reads that are not small themselves: joined, 4 KiB ones were 2.8 times as fast, 16 KiB 1.3, 32 KiB 1.0, 64 KiB 0.75, 128 KiB 0.8
 * (BENCHMARKING.md); for writes it makes no difference from 64 KiB on. */
#define MERGE_BYTES (256u << 10)
#define MERGE_READ (16u << 10) /* largest part */

struct blk_merge {
	struct blk_unit u;
	struct blk_merge *next;  /* free */
	struct blk_unit *parts;
	struct iovec *iov;       /* BLK_IOV_MAX, in the same mapping */
};

#define TABLE ((MERGES * sizeof(struct blk_merge) + 4095) & ~(size_t)4095)
#define ROOM (TABLE + MERGES * BLK_IOV_MAX * sizeof(struct iovec))

int blk_merge_init(struct blk_vq *q, struct vh_err *e)
{
	uint8_t *p;

	if (q->v->fd < 0 || q->v->buffered)
		return 0;
	p = mmap(NULL, ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return err_set(e, -ENOMEM, "no memory for a queue of volume %s", q->v->label);
	q->merge_mem = p;
	for (unsigned i = MERGES; i-- > 0;) {
		struct blk_merge *m = (struct blk_merge *)p + i;

		m->iov = (struct iovec *)(p + TABLE) + i * BLK_IOV_MAX;
		m->next = q->merge_free;
		q->merge_free = m;
	}
	return 0;
}

void blk_merge_fini(struct blk_vq *q)
{
	if (q->merge_mem)
		munmap(q->merge_mem, ROOM);
}

static int follows(const struct blk_unit *a, const struct blk_unit *b)
{
	return b && a->op <= VH_WRITE && a->op == b->op && a->off + a->len == b->off && a->flags == b->flags &&
	       !(a->flags & BLK_UNIT_ALONE) && (a->op == VH_WRITE || (a->len <= MERGE_READ && b->len <= MERGE_READ));
}

static void take_iov(struct blk_merge *m, const struct blk_unit *u)
{
	memcpy(m->iov + m->u.niov, u->iov, u->niov * sizeof(*u->iov));
	m->u.niov += u->niov;
	m->u.len += u->len;
}

/* One unit in place of `first` and those that follow it; returns the last of them, in whose place `next` is the list's. */
static struct blk_unit *join(struct blk_vq *q, struct blk_unit *first)
{
	const struct blk_vol *v = q->v;
	uint64_t max = v->max_bytes < MERGE_BYTES ? v->max_bytes : MERGE_BYTES;
	struct blk_merge *m = q->merge_free;
	struct blk_unit *last = first;

	if (first->niov + first->next->niov > v->max_segments || first->len + first->next->len > max)
		return first;
	q->merge_free = m->next;
	m->parts = first;
	m->u = (struct blk_unit){.q = q, .end = blk_merged, .op = first->op, .flags = first->flags | BLK_UNIT_ALONE,
				 .off = first->off, .iov = m->iov};
	take_iov(m, first);
	while (follows(last, last->next) && m->u.niov + last->next->niov <= v->max_segments && m->u.len + last->next->len <= max) {
		last = last->next;
		take_iov(m, last);
	}
	return last;
}

/* Looks through what a turn has gathered. */
void blk_merge(struct blk_vq *q)
{
	struct blk_unit **at = &q->out, *u, *last, *whole;

	while ((u = *at) && q->merge_free) {
		if (!follows(u, u->next)) {
			at = &u->next;
			continue;
		}
		whole = &q->merge_free->u;
		last = join(q, u);
		if (last == u) {
			at = &u->next;
			continue;
		}
		whole->next = last->next;
		last->next = NULL;
		*at = whole;
		at = &whole->next;
		if (!whole->next)
			q->out_tail = &whole->next;
	}
}

/* It marks a merged unit; blk_end() looks for it and never calls it. */
void blk_merged(struct blk_unit *u, int res)
{
}

void blk_merge_end(struct blk_vq *q, struct blk_unit *whole, int res)
{
	struct blk_merge *m = container_of(whole, struct blk_merge, u);
	struct blk_unit *u, *parts = m->parts;
	int good = res >= 0 && (uint64_t)res == whole->len;

	m->next = q->merge_free;
	q->merge_free = m;
	while ((u = parts)) {
		parts = u->next;
		if (good) {
			blk_end(q, u, (int)u->len);
			continue;
		}
		u->flags |= BLK_UNIT_ALONE;
		u->next = NULL;
		*q->out_tail = u;
		q->out_tail = &u->next;
		loop_defer(q->loop, &q->send_task);
	}
}
