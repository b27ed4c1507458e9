/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#ifndef CRASH_I_H
#define CRASH_I_H

#include <glib.h>
#include <pthread.h>
#include <string.h>
#include "crash/crash.h"
#include "fmt/image.h"
#include "plug/plug.h"

#define CRASH_VOLUMES 16u /* of one image */

uint64_t crash_rnd(uint64_t *s);
static inline uint64_t crash_below(uint64_t *s, uint64_t n) { return n ? crash_rnd(s) % n : 0; }

/* ---- mem.c: the contents of a volume, sparse, cheap to copy ---- */
#define MEM_CHUNK 4096u
struct mem {
	uint8_t **chunk; /* NULL: zeros */
	uint8_t *shared; /* the chunk is another mem's */
	uint64_t cap;    /* chunks */
	uint64_t bytes;
};
void image_init(struct mem *m);
void image_fini(struct mem *m);
void image_write(struct mem *m, uint64_t off, const void *data, uint64_t len); /* grows */
void image_zero(struct mem *m, uint64_t off, uint64_t len); /* does not grow */
void image_read(const struct mem *m, uint64_t off, void *buf, uint64_t len); /* zeros past the end */
void image_resize(struct mem *m, uint64_t bytes);
void image_share(struct mem *to, const struct mem *from); /* `to` is empty; `from` does not change while it lives */

/* ---- trace.c: what happened to the volumes, in order ---- */
#define TRACE_RESIZE 16u /* beside VH_WRITE ... */
struct trace_event {
	uint16_t op, vol;
	uint8_t durable; /* by its own completion */
	uint64_t off, len; /* RESIZE: len is the new size */
	uint8_t *data;
	uint32_t begun, applied, ended; /* times: a counter of what is recorded; 0: never */
};
struct trace {
	pthread_mutex_t lock;
	uint32_t time;
	int recording;
	unsigned volumes;
	struct mem start[CRASH_VOLUMES];
	GArray *events; /* of struct trace_event, as they began */
	/* made by trace_end() */
	uint32_t *order, n_order; /* events that were applied, in that order */
	/* trace_state(): the volumes as of the first n_base of order, which are durable at any later time */
	struct mem base[CRASH_VOLUMES];
	uint32_t n_base, base_time;
};
struct trace *trace_new(unsigned volumes);
void trace_free(struct trace *t);
uint32_t trace_now(struct trace *t); /* a time of its own */
void trace_end(struct trace *t);
uint64_t trace_fingerprint(const struct trace *t);
static inline struct trace_event *trace_at(const struct trace *t, uint32_t k)
{
	return &g_array_index(t->events, struct trace_event, k);
}

/* How a crash treats what no flush had covered. */
enum crash_style {
	STYLE_PREFIX,    /* nothing is lost */
	STYLE_NOTHING,   /* all of it is lost */
	STYLE_SOME,      /* a random part is lost */
	STYLE_REVERSED,  /* it happened in the reverse order, up to a point */
	STYLE_ONE,       /* one of it is lost */
	STYLE_ONLY,      /* all but one are lost */
	STYLE_SMALL,     /* what is large is lost: data, as a rule */
	STYLE_LARGE,     /* what is small is lost */
	STYLE_TORN,      /* a random part is lost, by sectors */
	STYLE_TORN_ONE,  /* one of it is torn */
	STYLES
};
extern const char *const crash_style_names[STYLES];
/* The volumes after a crash at `time`. Times should ascend from call to call. Returns how many events could be lost. */
uint32_t trace_state(struct trace *t, uint32_t time, enum crash_style style, uint64_t seed, struct mem *out);

/* ---- volumes.c ---- */
/* A volume in memory that records into t as its volume number `vol`; completions are delayed and reordered by `seed`. */
struct blk_vol *record_volume(struct trace *t, unsigned vol, const char *label, uint64_t seed, unsigned align, struct vh_err *e);
/* From now on it records: what is in them is the beginning. */
void record_start(struct trace *t, struct blk_vol *const *vols);
/* A volume on a memory file, and setting what is in it. *fd is the caller's to look at while the volume lives. */
struct blk_vol *memory_volume(const char *label, int *fd, struct vh_err *e);
int memory_volume_set(struct blk_vol *v, int fd, const struct mem *m, struct vh_err *e);

/* ---- oracle.c: what may be read ---- */
#define ORACLE_RESIZE 16u
#define ORACLE_APPLY 17u /* the disk becomes what it was: values */
struct oracle_op {
	uint16_t op;
	uint8_t fua;
	uint32_t c, n;          /* sectors; RESIZE: those that come or go */
	uint64_t size;          /* RESIZE: sectors of the disk afterwards */
	uint32_t begun, ended;  /* of the trace; 0: has not */
	uint32_t *values;       /* APPLY: of all sectors */
};
#define VALUE_ZERO 0u
#define VALUE_BASE 1u
#define VALUE_OP 2u /* ... + index: written by that operation */
#define VALUE_BAD UINT32_MAX
struct oracle {
	GArray *ops;      /* of struct oracle_op */
	uint64_t start;   /* sectors at first */
	uint64_t most;    /* sectors at most, ever */
	uint64_t backing; /* sectors of the backing image; 0: none */
	/* for one time: oracle_at() */
	uint32_t at;
	uint32_t *first; /* the last operation on a sector that is durable, + 1; 0: none */
	uint32_t *zero;  /* the last one since then that may leave zeros, + 1 */
	uint32_t *apply; /* ... that is an APPLY, + 1 */
	GArray *sizes;   /* of uint64_t */
};
struct oracle *oracle_new(uint64_t start, uint64_t most, uint64_t backing);
void oracle_free(struct oracle *o);
uint32_t oracle_begin(struct oracle *o, const struct oracle_op *op); /* its index */
static inline struct oracle_op *oracle_op(const struct oracle *o, uint32_t k)
{
	return &g_array_index(o->ops, struct oracle_op, k);
}
const char *oracle_op_name(const struct oracle_op *x);
void oracle_fill(uint8_t *buf, uint32_t value, uint64_t sector, uint64_t n); /* contents of sectors */
uint32_t oracle_value(const uint8_t *sector, uint64_t number, int *shifted);  /* VALUE_* */
void oracle_at(struct oracle *o, uint32_t time); /* what may be read after a crash at that time */
int oracle_size_ok(const struct oracle *o, uint64_t sectors);
/* NULL: the sector may read so; else what is wrong, g_free. `encrypted`: a discard's hole, decrypted, is noise until it is durable. */
char *oracle_wrong(const struct oracle *o, uint64_t sector, const uint8_t *data, int encrypted);

/* ---- load.c, explore.c ---- */
struct round {
	const struct crash_spec *spec;
	const struct vh_format_ops *ops;
	struct optset *create_opts, *open_opts;
	unsigned number;
	uint64_t seed, bytes, unit;
	int backing;
	const char *base_format; /* of the backing image: raw, or the format itself */
	char base_name[48];
	int no_qemu;             /* it does not open images like this round's */
	unsigned volumes;
	char *names[CRASH_VOLUMES]; /* of the image's files */
	struct trace *trace;
	struct oracle *oracle;
	struct blk_vol *base;       /* the backing image, NULL */
	uint64_t base_bytes;
	int base_fd;
	struct blk_vol *vols[CRASH_VOLUMES]; /* recording, then those that states are opened on */
	int fds[CRASH_VOLUMES];
	uint64_t operations;
	int made;   /* there is an image */
	int encrypted;
	int marked; /* it was filled before the load, as it did not read as zeros */
	int broken; /* the load itself failed: the image did not even work without a crash */
};
int round_load(struct round *r, struct vh_err *e); /* makes the image and runs the load; fills trace and oracle */
int round_open(struct round *r, int read_only, struct fmt_image **out, struct vh_err *e);

/* ---- keep.c ---- */
/* The state in the volumes of r, with the record of its round, into a folder; and such a record instead of a load. */
int state_keep(struct round *r, const char *dir, struct crash_result *res, struct vh_err *e);
int trace_load(struct round *r, const char *path, struct vh_err *e);

/* ---- verify.c ---- */
/* Looks at the state in the volumes of r; 1 when something is wrong, and *text says what (g_free). */
int verify_state(struct round *r, uint64_t seed, int qemu, struct crash_result *res, char **text, struct vh_err *e);

/* ---- qemu.c ---- */
char *qemu_why_not(const char *format); /* NULL: it can be asked; g_free */
int qemu_opens(struct round *r, char **why_not, struct vh_err *e); /* the new image in the volumes; *why_not: g_free */
int qemu_checks(const char *format);          /* it has a check of that format */
int qemu_hates_leaks(const char *format);
/* Both: 0 good, 1 bad with *text (g_free), < 0 could not be run. */
int qemu_check(struct round *r, int leaks_ok, int *leaks, char **text, struct vh_err *e);
int qemu_read(struct round *r, char **text, struct vh_err *e);

#endif
