/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Proof of crash safety. A seeded load runs on a new image of a format, over volumes in memory that record every write,
 * flush and change of size. Then the states that a crash may leave are built one by one: every prefix of the record, and,
 * of what no flush had covered, samples that were lost, reordered or torn at 512 bytes. Each is opened again by the plugin
 * through the core, every sector is compared with what may be read there, check() may find leaks and nothing else, what it
 * repairs must stay as it was read, and the image must go on working. Now and then qemu-img gives its opinion.
 */
#ifndef CRASH_CRASH_H
#define CRASH_CRASH_H

#include <vhost/format.h>
#include "plug/options.h"
#include "util/err.h"
#include "util/job.h"

#define CRASH_SECTOR 512u

struct crash_spec {
	const char *format;          /* a plugin's id */
	const struct kvs *options;   /* of its create_options; may be NULL */
	const struct kvs *open_options;
	uint64_t bytes;              /* of the disk; 0: some allocation units */
	uint64_t states;             /* to look at */
	uint64_t seed;
	unsigned operations;         /* of one round; 0: by the format's unit */
	unsigned depth;              /* operations in flight; 0: 5. With 1 a seed gives the same record each time */
	int backing;                 /* 1: on a backing image, raw or of its own kind; 0: without; -1: every second round, where it can be */
	int snapshots, resizes;      /* the load has them, where the plugin has */
	uint64_t qemu_every;         /* 0: never */
	const char *keep;            /* a folder for the failing image and its record; NULL: none */
	const char *only;            /* the one state to look at, as crash_result.state names it; NULL: all */
	const char *trace;           /* a record that `keep` left, to be used instead of running the load; NULL: none */
};

struct crash_result {
	uint64_t states, rounds;
	uint64_t prefixes, lost, torn; /* by kind */
	uint64_t operations, writes, flushes; /* of the load; what its volumes saw */
	uint64_t checked;              /* by the format's own check */
	uint64_t leaks, repaired;      /* states with leaks; states that were repaired */
	uint64_t continued;            /* states that were written to and crashed no more */
	uint64_t qemu_checks, qemu_reads;
	char *qemu_why_not;            /* why qemu-img was not asked: g_free; NULL: it was, or was not wanted */
	char state[64];                /* of a failure */
	uint64_t fingerprint;          /* of its round's record */
	char *text;                    /* what is wrong with it: g_free; NULL: nothing */
};

/* 0: all states are good; 1: one is not, and *r says which; < 0: it could not be tried. [main] */
int crash_run(const struct crash_spec *s, struct crash_result *r, struct vh_job *j, struct vh_err *e);

#endif
