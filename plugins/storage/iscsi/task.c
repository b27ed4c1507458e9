/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The SCSI command of a request. */
#include <stdlib.h>
#include <string.h>
#include "queue.h"

static uint8_t zeros[65536]; /* a block of WRITE SAME; blocks are no larger */

/* Tasks are made when the queue opens, by the library, and used again and again. */
static struct scsi_task *task_get(struct queue *q, uint8_t op, int dir, uint64_t len)
{
	struct scsi_task *t = q->tasks[--q->n_tasks];

	t->status = 0;
	t->cdb_size = 16;
	t->xfer_dir = dir;
	t->expxferlen = (int)len;
	memset(t->cdb, 0, sizeof(t->cdb));
	t->cdb[0] = op;
	t->residual_status = SCSI_RESIDUAL_NO_RESIDUAL;
	t->residual = 0;
	memset(&t->sense, 0, sizeof(t->sense));
	memset(&t->iovector_in, 0, sizeof(t->iovector_in));
	memset(&t->iovector_out, 0, sizeof(t->iovector_out));
	return t;
}

void task_put(struct queue *q, struct scsi_task *t)
{
	free(t->datain.data); /* sense data */
	t->datain.data = NULL;
	t->datain.size = 0;
	q->tasks[q->n_tasks++] = t;
}

struct scsi_task *rq_task(struct queue *q, struct rq *rq)
{
	const struct vh_req *r = rq->r;
	const struct lun *l = &q->v->lun;
	uint64_t lba = r->off / l->block, blocks = r->len / l->block;
	struct scsi_task *t;

	switch (rq->syncing ? VH_FLUSH : r->op) {
	case VH_READ:
	case VH_WRITE:
		t = task_get(q, r->op == VH_READ ? SCSI_OPCODE_READ16 : SCSI_OPCODE_WRITE16, r->op == VH_READ ? SCSI_XFER_READ :
			     SCSI_XFER_WRITE, r->len);
		if (r->flags & VH_REQ_FUA && r->op == VH_WRITE)
			t->cdb[1] = 8;
		is_put(t->cdb + 2, lba, 8);
		is_put(t->cdb + 10, blocks, 4);
		/* A copy: the library changes the array for the time of a system call, and this one is not ours. */
		memcpy(rq->iov, r->iov, r->niov * sizeof(*r->iov));
		if (r->op == VH_READ)
			scsi_task_set_iov_in(t, rq->iov, (int)r->niov);
		else
			scsi_task_set_iov_out(t, rq->iov, (int)r->niov);
		return t;
	case VH_ZERO:
		t = task_get(q, SCSI_OPCODE_WRITE_SAME16, SCSI_XFER_WRITE, l->block);
		if (r->flags & VH_REQ_MAY_UNMAP && l->write_same_unmap && l->zeroes_unmapped)
			t->cdb[1] = 8;
		is_put(t->cdb + 2, lba, 8);
		is_put(t->cdb + 10, blocks, 4);
		rq->iov[0] = (struct scsi_iovec){zeros, l->block};
		scsi_task_set_iov_out(t, rq->iov, 1);
		return t;
	case VH_DISCARD:
		t = task_get(q, SCSI_OPCODE_UNMAP, SCSI_XFER_WRITE, sizeof(rq->param));
		t->cdb_size = 10;
		is_put(t->cdb + 7, sizeof(rq->param), 2);
		memset(rq->param, 0, sizeof(rq->param));
		is_put(rq->param, sizeof(rq->param) - 2, 2);
		is_put(rq->param + 2, 16, 2);
		is_put(rq->param + 8, lba, 8);
		is_put(rq->param + 16, blocks, 4);
		rq->iov[0] = (struct scsi_iovec){rq->param, sizeof(rq->param)};
		scsi_task_set_iov_out(t, rq->iov, 1);
		return t;
	}
	t = task_get(q, SCSI_OPCODE_SYNCHRONIZECACHE10, SCSI_XFER_NONE, 0);
	t->cdb_size = 10;
	return t;
}
