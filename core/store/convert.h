/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Copying and comparing disks. One end is an image (any chain, any format) or a file descriptor that is read or written in
 * order (a pipe). What the source knows to be zeros is not read, what is found to be zeros is not written.
 */
#ifndef STORE_CONVERT_H
#define STORE_CONVERT_H

#include "fmt/image.h"
#include "util/job.h"

#define CONVERT_ALL UINT64_MAX

struct convert {
	struct fmt_image *src, *dst; /* NULL: src_fd, dst_fd, from where they stand */
	int src_fd, dst_fd;
	const char *src_name, *dst_name; /* for errors */
	uint64_t src_off, dst_off, bytes;
	int fresh;    /* the target reads as zeros where nothing is written */
	int differs;  /* the target shows a backing image: only what differs from that is written */
	int compress; /* the target's format encodes */
	int no_share; /* not by reflink */
	uint64_t grain; /* runs of zeros of at least this many bytes are not written; 0: what suits the target; CONVERT_ALL: none */
	unsigned parallel; /* requests in flight; 0: what suits the host */
	uint64_t rate;     /* bytes a second; 0: no limit */
	int compare;       /* writes nothing: looks whether they are the same (dst NULL: whether all is zeros) */
	uint64_t mismatch; /* out: the first byte that differs, CONVERT_ALL: none */
	/* Out: bytes of the disk. shared: by reflink. zero: known or found to be zeros. same: as in the backing image. got: what
	 * came from the pipe. */
	uint64_t written, shared, zero, same, got;
};
/* [main] Does not flush. -ECANCELED when the job is cancelled. */
int convert_run(struct convert *c, struct vh_job *j, struct vh_err *e);

struct compare {
	struct fmt_image *a, *b;
	const char *a_name, *b_name;
	int strict; /* sizes, and which parts are allocated, count as well */
	/* Out. at: the first byte that differs; what: "content", "size", "allocation", NULL: they are the same. */
	uint64_t at;
	const char *what;
};
int compare_run(struct compare *c, struct vh_job *j, struct vh_err *e); /* [main] 0, also when they differ */

struct bench {
	struct fmt_image *image;
	uint64_t count, off, step, bytes; /* requests; where the first begins; distance; bytes of each */
	unsigned depth, queues;
	int write, random;
	uint8_t pattern;
	uint64_t flush_every; /* requests; 0: never */
	int no_drain;         /* go on while a flush runs */
	int shared;           /* one buffer for all requests: in the processor's cache, whatever the depth */
	double seconds;       /* out */
	uint64_t errors;
};
int bench_run(struct bench *b, struct vh_job *j, struct vh_err *e); /* [main] */

/* Bytes of the disk that are not known to be zeros, in whole units of the target. */
int measure_used(struct fmt_image *i, uint64_t unit, uint64_t *used, struct vh_err *e); /* [main] */

/* zero.c: whether n bytes are all zero, and the run at the beginning of [p, p+n): its length, in whole grains but for the
 * end, and in *zero what it is. */
int zero_all(const void *p, uint64_t n);
uint64_t zero_run(const uint8_t *p, uint64_t n, uint64_t grain, int *zero);
/* Whether all of a volume reads as zeros; what is known to be a hole is not read. 1; 0: not in the MiB at *at; or an error. */
int zero_volume(struct blk_vol *v, struct vh_job *j, uint64_t *at, struct vh_err *e);

#endif
