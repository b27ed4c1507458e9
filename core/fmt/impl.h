/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What the parts of the map tier share. docs/design/mapping.md is the story; in short:
 *
 *   image   a chain of layers (a format over its volumes), the exclusive range locks, flush and drain state
 *   queue   everything a request touches on its way: pools, caches, volume queues, shared holders, gates
 *   req     one request that needs more than the flat path; a state machine that only its queue's thread steps
 *   sub     one I/O of a req on a volume
 *   note    a message to a queue from another thread
 */
#ifndef FMT_IMPL_H
#define FMT_IMPL_H

#include <pthread.h>
#include <string.h>
#include "fmt/crypt.h"
#include "fmt/image.h"
#include "fmt/validate.h"
#include "util/log.h"
#include "util/worker.h"

#define FMT_MAX_QUEUES 64u
#define FMT_MAX_DEPTH 256u    /* images of a chain */
#define FMT_MAX_REFS 4096u    /* files of one image */
#define FMT_MAX_UNIT (16u << 20)
#define FMT_SUB_IOV 64u       /* segments of one volume I/O; longer vectors are split */
#define FMT_READ_EXT 8u       /* extents of one read map */
#define FMT_WRITE_EXT 16u     /* of one allocating map */
#define FMT_GATHER 32u        /* segments of writes that allocate together */
#define FMT_RING 64u          /* invalidations that a map call may overlap and still be cached past its lock */
#define FMT_BUDGET (64u << 20) /* bytes of fill and decode buffers per image; each queue gets one of each in any case */
#define FMT_QUEUE_BUDGET (8u << 20)
#define FMT_PHASES 16u        /* most phases of one flush */

#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))
#define load_relaxed(p) __atomic_load_n(p, __ATOMIC_RELAXED)
#define store_relaxed(p, v) __atomic_store_n(p, v, __ATOMIC_RELAXED)
#define count(p, n) store_relaxed(p, load_relaxed(p) + (n)) /* one writer, readers anywhere */

struct req;
struct fmt_layer;

/* Pushed by any thread, run on the queue's. A note is in one list at a time. */
struct note {
	struct note *next;
	void (*fn)(struct fmt_queue *q, struct note *n);
};

/* A call for a meta worker (or, for decode, a CPU worker). */
enum meta_prio { META_COMMIT, META_MAP, META_FLUSH, META_PRIOS };
struct meta_item {
	struct meta_item *next;
	void (*fn)(struct meta_item *m); /* [meta] */
	struct work work;                /* decode only: it has a pool of its own */
};

/* Lets at most `threads` workers of a pool run the items of a layer, commits before maps before flushes. */
struct meta_runner {
	struct work work;
	struct meta_sched *sched;
	struct meta_runner *next; /* idle ones */
};
struct meta_sched {
	pthread_mutex_t lock;
	struct worker_pool *pool;
	struct meta_item *head[META_PRIOS], **tail[META_PRIOS];
	struct meta_runner runner[4], *idle;
};

/* Blocking access to one volume: what the ABI calls struct vh_meta. */
struct vh_meta {
	struct blk_vol *vol;
	int read_only;
	uint64_t clean_lo, clean_hi; /* zeros since the volume was made: nothing was written there through this */
};

/* A format over its volumes: the image itself (depth 0) or a backing image. */
struct fmt_layer {
	struct fmt_image *image;
	uint32_t depth;
	const struct vh_format_ops *ops;
	void *img;
	struct vh_object *object; /* the plugin's counters */
	uint32_t nvols;
	struct blk_vol **vols; /* NULL: an optional file that is not there */
	struct vh_meta *metas, **meta_ptrs;
	struct vh_image_info info;
	struct fmt_rules rules; /* for fmt_validate() */
	struct crypt *crypt;    /* of its CRYPT extents, or NULL */
	int read_only;
	int lock_core;         /* the host serialises map and commit */
	pthread_rwlock_t lock; /* lock_core: NOWAIT maps that change nothing shared, everything else exclusively */
	int faulted;           /* atomic */
	uint32_t vq_base;      /* index of its first volume in fmt_queue.vqs */
	struct meta_sched sched;
	uint64_t map_calls;    /* atomic; made off the queues */
};

/* An extent cache: DATA, ZERO and BACKING extents, disjoint, joined where they touch. cache.c */
struct cache_ext {
	uint64_t pos, len, addr;
	uint32_t vol;
	uint16_t type, flags;
};
struct cache_leaf;
struct cache {
	struct cache_leaf **dir; /* sorted by position */
	uint64_t *key;           /* where each of them begins */
	struct cache_leaf *leaves, *free;
	uint32_t n, fresh, cap, hand; /* leaves in use, ever touched, in all; the next to be evicted */
};
int cache_init(struct cache *c, uint32_t leaves);
void cache_fini(struct cache *c);
void cache_clear(struct cache *c);
int cache_find(const struct cache *c, uint64_t pos, struct cache_ext *out);
void cache_drop(struct cache *c, uint64_t lo, uint64_t hi);
void cache_put(struct cache *c, const struct cache_ext *x);

/* lock.c: range locks. A gate is an exclusive range as one queue sees it. */
struct excl;
struct gate {
	struct note note;
	struct excl *e;
	struct gate *prev, *next; /* in fmt_queue.gates, by arrival */
	uint64_t seq;
	uint32_t holders; /* shared requests of this queue that came before it and are not done */
	int active;
};
struct excl {
	struct note note; /* granted */
	struct req *req;
	struct excl *prev, *next; /* fmt_image.excl_first, by arrival; or the free list */
	uint64_t lo, hi;
	uint64_t mask;   /* queues that have a gate of it */
	uint32_t acks, waits, gates_left;
	const struct vh_map *map; /* allocating answer in flight, to refuse overlapping ones */
	struct gate gate[FMT_MAX_QUEUES];
};

struct shared { /* a shared holder, or waiter */
	struct shared *prev, *next;
	uint64_t lo, hi, seq;
	uint32_t blockers;
};

/* One volume queue of a fmt_queue, with its limit. */
struct fvq {
	struct blk_vq *vq;
	uint32_t depth, inflight;
	int gathered; /* submitted since the last kick */
	struct sub *wait, **wait_tail;
};

struct sub {
	struct blk_io bio;
	struct req *req;
	struct fvq *vq;
	struct sub *next;
	struct iovec iov[FMT_SUB_IOV];
};

/* A piece of a vector: pre, then `left` bytes of iov from (i, off), or of zeros, then post. */
struct vec {
	struct iovec pre, post;
	const struct iovec *iov;
	const struct fmt_image *zeros; /* whose zeros, instead of iov */
	uint32_t n, i;
	uint64_t off, left;
};

/* Contiguous bytes of one volume that are still to be submitted. */
struct run {
	struct fvq *vq; /* NULL: empty */
	uint16_t op, flags;
	uint64_t addr, len, pos;
	const struct fmt_layer *crypt; /* NULL: stored as it is. Else pos is the virtual byte at addr */
	struct vec v;
};

/* A read of [pos, end) as layer `top` and those below it have it, into a vector: for guests and for fills. */
struct reader {
	uint32_t top, layer;
	uint64_t pos, end, win; /* the next byte; what is known to be asked of `layer` ends at win */
	struct vec v;
	struct run run;
	struct vh_map map;
	uint64_t seq; /* of the queue when map was called */
	struct vh_extent ext[FMT_READ_EXT];
	uint32_t ext_layer, ext_n;
	uint32_t job;        /* enum: a compressed or opaque piece is under way */
	uint32_t resv;
	struct vh_extent jx; /* the extent of it */
	uint64_t jn;         /* how many bytes of it */
};

enum req_state { RS_READ, RS_WRITE, RS_LOCK, RS_MAP, RS_DATA, RS_COMMIT, RS_FLUSH, RS_END };
enum req_wait { WAIT_NO, WAIT_META, WAIT_BUF };

struct buf {
	struct buf *next;
	uint8_t *p;
};
enum buf_kind { BUF_FILL, BUF_DECODE, BUF_KINDS }; /* head and tail: 2 units; stored and decoded bytes: 3 units */
struct buf_pool {
	struct buf *all, *free;
	uint8_t *mem;
	size_t bytes;
	struct req *wait, **wait_tail;
};

/* Chunks of encrypted I/O, each with a buffer; contexts for the queue's thread and for workers, per layer. crypt.c */
struct cop;
struct crypt_pool {
	struct cop *cops, *free;
	uint8_t *mem;
	size_t bytes;
	struct req *wait, **wait_tail;
	uint32_t live, workers, busy, nctx; /* busy: a bit per worker's context */
	struct crypt_ctx **ctx;
};

struct req {
	struct req *next;
	struct fmt_queue *q;
	struct fmt_io *io;
	enum req_state state;
	uint16_t op;      /* VH_READ... */
	uint32_t nsubs;   /* in flight */
	int error;        /* the first */
	int waiting;      /* for a meta answer or a buffer: do not step */
	int answered;     /* an answer from a worker waits in `result` */
	int result;
	struct shared lk;
	int locked;       /* lk is held */
	struct excl *excl;
	uint64_t pos, end;
	int zero_src;     /* write zeros instead of the vector */
	int share;        /* FMT_SHARE */
	int escalate;
	struct vec v;     /* the data from pos on */
	struct run run;
	struct reader rd;
	struct vh_map map;
	uint64_t map_seq; /* of the queue when a pure map was called */
	uint32_t xi, xj, part, data_n; /* the group of extents being written, which part of it */
	uint32_t head, tail;           /* of the group, */
	uint8_t fill_head, fill_tail;  /* and whence */
	int map_live;     /* has a COMMIT extent: commit is owed */
	int timed_out;
	int more_phases;
	uint64_t fill_len;
	struct buf *buf[BUF_KINDS];
	struct cop *cop; /* handed over, not used yet */
	struct meta_item item;
	struct fmt_layer *item_layer;
	struct note note;
	uint32_t phase, flush_vol;
	uint64_t flush_seq;
	struct vh_req oreq; /* its vector is own.iov: nothing else is in flight then */
	uint64_t olen;
	uint16_t op_map;  /* VH_MAP_* of the exclusive rounds */
	uint16_t alone;   /* takes no others along, and goes along with nobody */
	uint16_t behind;  /* how often it has waited for another's allocation instead of asking for its own */
	struct req *with, **with_tail; /* gather.c: those that it has taken along, by `with_next` */
	struct req *with_next;
	struct iovec giov[FMT_GATHER]; /* of its data and theirs */
	struct sub own;   /* so that a request can always go on */
	int own_busy;
	struct vh_extent ext[FMT_WRITE_EXT];
};

/* fmt_io.priv */
struct fio {
	struct fmt_queue *q;
	struct fmt_io *next;
	int result, direction;
	struct shared lk; /* mapped.c */
	struct fvq *vq;
	union {
		struct blk_io bio;
		struct { struct work work; struct note note; } share; /* share.c, flat disks */
	};
};
#define fio_of(io) ((struct fio *)(io)->priv)
#define io_of(fio) ((struct fmt_io *)((char *)(fio) - offsetof(struct fmt_io, priv)))
_Static_assert(sizeof(struct fio) <= sizeof(((struct fmt_io *)0)->priv), "fmt_io.priv is too small");

struct io_list {
	struct fmt_io *head, **tail;
};

struct fmt_queue {
	struct fmt_image *image;
	struct vh_loop *loop;
	uint32_t depth, index;
	/* the flat path: the whole disk is one extent of one volume */
	int flat, flat_discard;
	struct fvq *flat_vq;
	uint64_t flat_addr;
	uint64_t bytes;
	int read_only, hold; /* hold: drains */
	int service;         /* the image's own, which no drain stops */
	uint32_t inflight;   /* begun and not completed */
	uint32_t submitting; /* inside fmt_submit: completions wait for the end of the turn */
	int idle_wanted, idle; /* idle: under image->lock */
	int broken;          /* no memory for the machine */
	int forgot;          /* what rcache[0] knew before the first fmt_put() */
	uint32_t excl_want; /* tickets that it brought */
	uint32_t posters;    /* atomic: threads inside note_push */
	int resume_posted;   /* atomic */
	struct note resume_note;
	struct fvq *vqs;
	uint32_t nvqs;
	struct io_list backlog, done, kept;
	struct vh_task done_task, note_task, gather_task;
	struct req *gather, **gather_tail; /* hold their range, and look for others at the end of the turn */
	int in_notes;
	struct note *notes; /* atomic stack */
	/* the full machine, NULL while flat */
	struct req *reqs, *req_free; /* the first nreqs have been used; memory is touched as it is needed */
	struct sub *subs, *sub_free;
	uint32_t nreqs, nsubs, max_subs;
	struct buf_pool pool[BUF_KINDS];
	struct crypt_pool crypt;
	struct cache *rcache; /* per layer */
	struct cache wcache;  /* pure writes of the top layer */
	struct shared *sh_first, *sh_last;
	struct gate *gate_first, *gate_last;
	uint64_t seqno; /* order of arrivals at this queue */
	uint64_t inval_seq;
	struct { uint64_t lo, hi; } ring[FMT_RING];
	struct fmt_stats stats;
};

struct fmt_image {
	char *label;
	struct fmt_layer **layers;
	uint32_t nlayers, nvqs;
	uint64_t bytes; /* atomic */
	int read_only;
	enum fmt_policy on_read_error, on_write_error;
	void (*stopped)(void *ctx, const char *label, int error);
	void *stopped_ctx;
	int is_stopped; /* atomic */
	int no_keep;    /* atomic: fmt_keep(i, 0) */
	int flat, flat_discard; /* as fmt_flat() found it */
	uint32_t flat_vol;
	uint64_t flat_addr;
	struct worker_pool *meta_pool, *cpu_pool;
	uint8_t *zeros; /* at least 2 * unit bytes, read-only */
	size_t zeros_bytes;
	uint32_t decode_unit; /* the largest unit of a layer that has compressed data; 0: none */
	uint64_t budget;      /* left of FMT_BUDGET */

	pthread_mutex_t lock; /* queues, listener, drain */
	pthread_cond_t cond;
	struct fmt_queue *queues[FMT_MAX_QUEUES];
	uint32_t nqueues, drains;
	void (*listener)(void *ctx, uint64_t bytes);
	void *listener_ctx;
	struct fmt_stats closed; /* of queues that are gone */

	pthread_mutex_t excl_lock; /* lock.c; never taken for a request that is mapped */
	struct excl *excl_first, *excl_last, *excl_free, *excl_all;
	struct req *excl_wait, **excl_wait_tail;
	uint32_t excl_want, excl_total;

	pthread_mutex_t flush_lock; /* flush.c */
	struct req *flush_now, *flush_next, **flush_next_tail;
	int flushing;
	uint64_t commit_seq, flushed_seq; /* atomics */

	pthread_mutex_t put_lock; /* compressed.c */
	int puts;                 /* atomic: fmt_put() is used, so what is absent is not cached */

	pthread_mutex_t service_lock; /* blocking access: one at a time */
	struct vh_loop *service_loop;
	struct fmt_queue *service_queue;
};

/* chain.c */
int chain_open(struct fmt_image *i, const struct fmt_spec *s, struct vh_err *e);
void chain_close(struct fmt_image *i);
int layer_refresh(struct fmt_layer *l, struct vh_err *e); /* asks info() again */
void layer_fault(struct fmt_layer *l, const char *why); /* [any] */
extern const struct vh_meta_ops fmt_meta_service;

void flat_probe(struct fmt_image *i); /* whether the disk is one extent that stays */
int layer_report(struct fmt_layer *l, struct vh_map *m); /* [main] a map call on a worker, waited for */
int chain_flush(struct fmt_image *i, struct vh_err *e); /* [main] no queue is open */

/* service.c */
int image_outside(struct fmt_image *i, uint64_t len, uint64_t off, struct vh_err *e); /* -EINVAL with a text */
void service_close(struct fmt_image *i);

/* meta.c */
int meta_init(struct meta_sched *s, struct worker_pool *pool, uint32_t threads);
void meta_fini(struct meta_sched *s);
void meta_submit(struct meta_sched *s, struct meta_item *m, enum meta_prio prio);
/* A map call, its answer validated; nowait: -EAGAIN also when the image's lock is taken. */
int meta_map(struct fmt_layer *l, struct vh_map *m, int nowait);
int meta_commit(struct fmt_layer *l, struct vh_map *m, int status, int nowait);
/* The same for a request: inline, else on a worker (returns 1: the request waits, and is stepped with r->answered). */
int req_map(struct req *r, struct fmt_layer *l, struct vh_map *m);
int req_commit(struct req *r, int status);
void req_call(struct req *r, struct fmt_layer *l, void (*fn)(struct meta_item *m), enum meta_prio prio);
void req_call_cpu(struct req *r, void (*fn)(struct meta_item *m));
void req_answer(struct req *r, int result); /* [any] from a worker */

/* queue.c */
void note_push(struct fmt_queue *q, struct note *n); /* [any] */
void notes_run(struct fmt_queue *q);
void io_end(struct fmt_queue *q, struct fmt_io *io, int result); /* error policy, then completion */
void queue_apply(struct fmt_queue *q); /* [queue] takes over what a drain has changed */
int queue_open(struct fmt_image *i, struct vh_loop *l, uint32_t depth, int service, struct fmt_queue **out, struct vh_err *e);
/* pools.c: what the full machine needs, allocated once */
int queue_machine(struct fmt_queue *q);
void queue_machine_free(struct fmt_queue *q);
static inline void io_list_init(struct io_list *l) { l->head = NULL; l->tail = &l->head; }
static inline void io_list_add(struct io_list *l, struct fmt_io *io)
{
	fio_of(io)->next = NULL;
	*l->tail = io;
	l->tail = &fio_of(io)->next;
}
static inline struct fmt_io *io_list_take(struct io_list *l)
{
	struct fmt_io *io = l->head;

	if (io) {
		l->head = fio_of(io)->next;
		if (!l->head)
			l->tail = &l->head;
	}
	return io;
}

/* Of a request that is one blk_io in its fmt_io: the common case costs no branch too many. */
static inline void fio_ended(struct fio *f, int result)
{
	struct fmt_io *io = io_of(f);

	if (result == 0 && !f->q->idle_wanted) {
		f->q->inflight--;
		io->done(io, 0);
		return;
	}
	io_end(f->q, io, result);
}

/* mapped.c: what is wholly known, without a request. 0: the machine's */
int mapped_begin(struct fmt_queue *q, struct fmt_io *io);

/* request.c */
int req_begin(struct fmt_queue *q, struct fmt_io *io); /* 0: no free request */
void req_step(struct req *r);
void req_error(struct req *r, int error);

/* gather.c */
int gather_behind(struct req *r);        /* instead of a ticket: 1 when it waits behind one of its queue that covers it */
int gather_later(struct req *r);         /* granted: 1 when it is stepped at the end of the turn, with others or without */
void gather_run(struct fmt_queue *q);    /* now */
void gather_task(struct vh_task *t);

/* read.c, write.c, flush.c: return 1 when their state is finished, 0 to wait */
void reader_init(struct reader *rd, uint32_t top, uint64_t pos, uint64_t len, const struct vec *v);
int reader_step(struct req *r);
int write_pure_step(struct req *r);
int write_data_step(struct req *r);
void flush_begin(struct req *r);
int flush_step(struct req *r);

/* share.c */
void share_flat(struct fmt_queue *q, struct fmt_io *io);
int share_step(struct req *r); /* one extent; 1: it is done, 0: wait */

/* io.c: vectors and volume I/O */
static inline void vec_init(struct vec *v, const struct iovec *iov, uint32_t n, uint64_t len)
{
	memset(v, 0, sizeof(*v));
	v->iov = iov;
	v->n = n;
	v->left = len;
}
struct iovec vec_next(struct vec *v, uint64_t len); /* the next contiguous piece of at most len bytes; moves on */
void vec_skip(struct vec *v, uint64_t len);
uint64_t vec_take(struct vec *v, uint64_t len, struct iovec *out, uint32_t cap, uint32_t *n);
void vec_zero(struct vec *v, uint64_t len);
void vec_copy_to(struct vec *v, const void *from, uint64_t len);
uint64_t vec_copy_from(struct vec *v, void *to, uint64_t len); /* how much there was */
struct sub *sub_get(struct req *r);
void sub_put(struct sub *s);
void sub_submit(struct sub *s);
void sub_queue(struct sub *s); /* with a done() of its own, which calls */
void fvq_ended(struct fvq *f); /* this first */
int run_emit(struct req *r, struct run *run); /* 1: all submitted, 0: wait for a sub */
/* Adds [addr, addr+len) to the run if it goes on where the run ends; 0: emit it first. */
int run_add(struct run *run, struct fvq *vq, uint16_t op, uint16_t flags, uint64_t addr, uint64_t len, const struct vec *v);
/* The same for an extent of layer l that may be encrypted, at virtual byte pos. */
int run_add_at(struct run *run, const struct fmt_layer *l, uint16_t xflags, uint64_t pos, struct fvq *vq, uint16_t op, uint16_t flags,
	       uint64_t addr, uint64_t len, const struct vec *v);
int buf_get(struct req *r, enum buf_kind kind); /* 1: r->buf[kind] is there; 0: it waits */
void buf_put(struct req *r, enum buf_kind kind);

/* crypt.c: encrypted I/O */
int crypt_machine(struct fmt_queue *q);
void crypt_machine_free(struct fmt_queue *q);
int crypt_emit(struct req *r, struct run *run); /* as run_emit */
void crypt_drop(struct req *r); /* gives back what it did not use */

/* lock.c */
void shared_enter(struct fmt_queue *q, struct shared *s, uint64_t lo, uint64_t hi); /* no gate is there: nothing to wait for */
void shared_leave(struct fmt_queue *q, struct shared *s);
int shared_acquire(struct req *r, uint64_t lo, uint64_t hi); /* 0: it waits, and is stepped when it has it */
void shared_release(struct req *r);
int excl_pool(struct fmt_image *i, uint32_t n); /* one queue more: n tickets for each that uses them */
void excl_unpool(struct fmt_image *i, uint32_t n);
void excl_acquire(struct req *r, uint64_t lo, uint64_t hi); /* always answers by a step, in state RS_MAP */
void excl_release(struct req *r);
void excl_attach(struct fmt_queue *q); /* a new queue learns the exclusive ranges; image->lock is held */
void excl_detach(struct fmt_queue *q); /* image->lock is held; nobody posts to it any more */
void excl_settle(struct fmt_queue *q); /* then answers what was posted */
int excl_ahead(struct req *r);   /* 1: a write of the same queue has a ticket, or waits for its grant, that covers it */
int excl_overlap(struct req *r); /* 1: its allocating answer overlaps one that is in flight */
/* What may be cached of [*lo, *hi) by an answer to a map called at `seq`, around what is locked. 0: nothing. */
int lock_clip(const struct fmt_queue *q, uint64_t seq, uint64_t locked_lo, uint64_t locked_hi, uint64_t *lo, uint64_t *hi);

#endif
