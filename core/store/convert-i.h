/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * How a disk is copied. The caller's thread walks the source and cuts it into pieces, as many as may be in flight; a piece
 * belongs to a lane (a loop with a queue of each image), which reads it, looks for zeros and writes it. Where order matters
 * (a pipe, compressed units) pieces go through workers, who encode side by side and then store one after the other.
 */
#ifndef CONVERT_I_H
#define CONVERT_I_H

#include <glib.h>
#include <pthread.h>
#include "store/convert.h"
#include "util/worker.h"

#define PIECE_BYTES (512u << 10) /* what lies between reading and writing stays in the cores' caches */
#define PIECE_MAX (2u << 20)
#define PIECE_IOS 8u
#define MEMORY (24u << 20) /* of all pieces */
#define SHARE_BYTES (UINT64_C(64) << 20)
#define ZERO_BYTES (UINT64_C(256) << 20)
#define WRITE_OUT (UINT64_C(32) << 20) /* so much is left to the page cache before the disk begins to write */
#define MAX_LANES 4u

enum piece_kind { PIECE_DATA, PIECE_ZERO, PIECE_SHARE };
enum run_kind { RUN_DATA, RUN_ZERO, RUN_SAME };

struct cv;
struct piece;
struct out {
	struct fmt_io io;
	struct iovec iov;
	struct piece *p;
	int busy, zero;
};

struct piece {
	struct cv *cv;
	struct lane *lane;
	struct piece *next;
	struct vh_task task;
	struct work work;
	enum piece_kind kind;
	uint64_t pos, len, seq; /* of what is copied, which begins at 0 */
	uint64_t cur, n;        /* the part in hand: at pos + cur, n bytes */
	uint64_t at;            /* of it, looked at and submitted */
	unsigned flying;
	int filled;             /* the walker has read it */
	uint8_t *buf, *aux;     /* aux: what is below, or encoded units */
	int64_t *encoded;       /* per unit: bytes, 0: zeros, -ENOSPC: plain */
	struct fmt_share share;
	struct out out[PIECE_IOS];
};

struct lane {
	struct cv *cv;
	struct vh_loop *loop;
	struct fmt_queue *src, *dst;
};

struct cv {
	struct convert *c;
	struct vh_job *job;
	struct lane lane[MAX_LANES];
	unsigned nlanes, npieces, next_lane;
	struct piece *pieces;
	uint8_t *mem;
	size_t mem_bytes;
	uint32_t piece_bytes, unit; /* unit: of compression */
	uint64_t grain;
	int ordered;
	struct worker_pool *pool;
	struct work write_out;

	pthread_mutex_t lock; /* what follows */
	pthread_cond_t cond;
	struct piece *free;
	unsigned nfree;
	int error; /* the first */
	int stop;  /* atomic: no more pieces: what was looked for is found */
	struct vh_err err;
	int share; /* atomic: 0 not known, 1 works, -1 does not */
	uint64_t done, unwritten;
	int writing_out;
	/* convert-order.c */
	struct piece **ring;
	uint64_t next_seq, seq;
	int storing;

	/* the walker's */
	uint64_t lo, hi, window, gathered; /* data that becomes the next piece, and how much of it is */
	uint64_t started;        /* ns, for the rate */
	uint64_t passed;
	struct vh_err walk_err;
	uint64_t out_pos;        /* of a pipe, the storing thread's */
	int out_seek;
};

/* convert.c */
void cv_fail(struct cv *cv, int code, const char *what, const char *name, uint64_t pos); /* [any] the first counts */
void cv_fail_err(struct cv *cv, struct vh_err *e); /* [any] takes it over */
int cv_failed(struct cv *cv);
void cv_differs(struct cv *cv, uint64_t at); /* [any] comparing */
void piece_end(struct piece *p); /* [any] */
void cv_account(struct cv *cv, uint64_t *counter, uint64_t n); /* [any] */

/* convert-lane.c */
int lanes_open(struct cv *cv, struct vh_err *e);
void lanes_close(struct cv *cv);
void piece_start(struct piece *p); /* [walker] */
/* What the next run of the part in hand is, and how long. */
uint64_t piece_run(struct piece *p, enum run_kind *kind);

/* convert-order.c */
void order_piece(struct piece *p); /* [any] it is filled */
int order_finish(struct cv *cv);   /* [walker] everything before has been stored */

#endif
