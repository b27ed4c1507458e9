/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * What the files of core/blk share. A request (struct blk_io) that is aligned, inside the volume and within its limits
 * becomes one unit and goes straight to the backend; everything else is carried by a slow context, which breaks it into
 * units. docs/design/io.md has the picture.
 */
#ifndef BLK_I_H
#define BLK_I_H

#include <libaio.h>
#include <pthread.h>
#include <stdatomic.h>
#include "blk/volume.h"
#include "util/worker.h"

#define BLK_BOUNCE (128u << 10) /* bytes of a slow context's buffer */
#define BLK_SLOW 16u            /* slow contexts of a queue */
#define BLK_EXTRA (BLK_SLOW + 8u) /* units beyond the user's depth: slow contexts, flush rounds */
#define BLK_IOV_MAX 1024u
#define BLK_ALIGN_MAX (64u << 10)
#define BLK_BYTES_MAX (1u << 30) /* of one unit: results are ints */

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define container_of(p, type, member) ((type *)((char *)(p) - offsetof(type, member)))

/* blk_unit.flags, beside VH_REQ_*: not to be merged with others */
#define BLK_UNIT_ALONE 0x8000u

/* blk_vol.state: why requests do not take the short way. */
#define BLK_READ_ONLY 0x1u
#define BLK_FAILED 0x2u /* a flush failed */
#define BLK_LOST 0x4u   /* the lease is lost, or the storage while the volume is being left */

/* One operation of a backend. READ and WRITE end with the bytes done, the others with 0, all with a negative errno. */
struct blk_unit {
	struct blk_unit *next;
	struct blk_vq *q;
	void (*end)(struct blk_unit *u, int res); /* [queue], not from within blk_submit */
	const struct iovec *iov;
	uint64_t off, len;
	uint32_t niov;
	uint16_t op, flags;
	int res;
	uint16_t late;    /* counted as stalled */
	uint16_t dropped; /* the plugin gave it up because it was asked to */
	struct blk_unit *older, *newer; /* in flight, when there is a time limit */
	uint64_t since;
	union {
		struct iocb iocb;
		struct work work;
		struct blk_slot *slot;
	} e;
};

enum range_state { RANGE_NONE, RANGE_COUNTED, RANGE_WAITING, RANGE_HELD };
/* A modification's hold on bytes of the volume (rmw.c). */
struct blk_range {
	struct blk_range *next;
	uint64_t off, end;
	struct blk_vq *q; /* NULL: a thread waits on the volume's cond */
	void (*granted)(struct blk_range *r);
	struct vh_task task;
	uint8_t exclusive, state;
};

/* What is inside blk_io.priv. */
struct blk_priv {
	struct blk_unit u;
	struct blk_range range;
};
_Static_assert(sizeof(struct blk_priv) <= sizeof(((struct blk_io *)0)->priv), "blk_io.priv is large enough");
#define io_priv(io) ((struct blk_priv *)(io)->priv)
#define unit_io(u) container_of(u, struct blk_io, priv)

/* A request that needs more than one unit (slow.c). */
struct blk_slow {
	struct blk_slow *next;
	struct blk_io *io; /* NULL: free */
	struct blk_vq *q;
	struct blk_unit u;
	struct blk_range range;
	struct vh_task task;
	uint64_t wanted; /* end of the volume that it waits for */
	struct vh_task grow_task;
	int grow_result;
	uint64_t pos, lim; /* bytes of the request done; where the volume's bytes end */
	uint64_t a, b, chunk; /* the aligned range in hand, and how many of its bytes are the request's */
	unsigned idx; /* cursor into io->iov at pos */
	size_t at;
	uint8_t phase, direct, aligned, grown;
	uint8_t *bounce;
	struct iovec *iov; /* BLK_IOV_MAX, in the same mapping */
	struct iovec one;
};

/* A way to move data. All [queue] but open and close. */
struct blk_backend {
	const char *name;
	int (*open)(struct blk_vq *q, struct vh_err *e);
	void (*close)(struct blk_vq *q);
	void (*send)(struct blk_vq *q); /* takes units from q->out as far as it can; completes into q->finished */
	int (*reap)(struct blk_vq *q);  /* completions found without a system call: calls blk_end(); may be NULL */
	int (*sleep)(struct blk_vq *q, int going); /* as loop_poller.sleep; may be NULL */
	void (*cancel)(struct blk_vq *q, struct blk_unit *u); /* a hint; may be NULL */
	void (*cancel_all)(struct blk_vq *q);
};
extern const struct blk_backend blk_aio, blk_uring, blk_threads, blk_submit_tier;

struct blk_flush_round;
struct blk_merge;

struct blk_vol {
	/* Read by every request, seldom written. */
	_Alignas(64) atomic_uint state; /* BLK_READ_ONLY ... */
	atomic_int rmw_on;              /* modifications register with the range lock (rmw.c) */
	atomic_uint_fast64_t bytes;
	uint64_t max_bytes;
	uint64_t buf_mask, len_mask;
	uint32_t max_segments;
	int fd, buffered; /* fd tier: the core's duplicate; page cache */
	uint64_t fd_base;
	uint64_t caps;
	uint16_t unit_flags; /* VH_REQ_* that a WRITE unit may carry */

	_Alignas(64) atomic_int refs;
	const struct blk_backend *backend;
	enum blk_engine engine;
	struct vh_volume_info info;
	const struct vh_volume_ops *ops;
	void *vol;
	void (*closed)(void *ctx);
	void *closed_ctx;
	struct blk_vol *lower; /* of a filter */
	struct vh_lower *lower_handle;
	struct worker_pool *workers;
	struct vh_object *object;
	char *label;
	uint64_t timeout;
	atomic_int no_zero, no_discard; /* fd tier: the file system refused once */
	atomic_uint stalled;

	pthread_mutex_t main_lock; /* serialises [main] calls of the plugin; before `lock` */
	pthread_mutex_t lock;      /* what follows */
	pthread_cond_t cond;
	struct blk_vq *queues;
	unsigned n_queues;
	struct blk_range *ranges, **ranges_tail; /* held and waiting, in order of arrival */
	unsigned n_exclusive;
	uint64_t last_exclusive;
	struct { /* growth on demand (grow.c) */
		struct blk_slow *waiting;
		struct work work;
		int busy;
	} grow;
	struct { /* flush of every queue (flush.c) */
		struct blk_unit *waiting, *current;
		unsigned left;
		int result;
		/* fd tier: how many modifications had ended, on all queues, when the last flush that has ended well was
		 * submitted, UINT64_MAX before the first; and those of queues that are closed. */
		uint64_t covered, closed;
	} flush;
	atomic_uint_fast64_t other_mods; /* modifications that have ended and went through no queue */
	struct { /* blocking requests through a queue of the volume's own (sync.c) */
		pthread_mutex_t mutex; /* its opening and closing; before main_lock */
		struct vh_loop *loop;
		struct blk_vq *q;
		unsigned users; /* under `lock` */
	} sync;
	struct { /* the end of a volume whose storage is lost (leave.c); under `lock` */
		struct work work;
		uint64_t at; /* 0: it is not being left */
		int down, ended, watched;
	} leave;
	struct { /* events on their way to the listener (event.c) */
		void (*fn)(void *ctx, uint32_t event, uint64_t value);
		void *ctx;
		struct work work;
		unsigned pending, busy; /* under `lock` */
		uint64_t value[12];
		pthread_mutex_t calling; /* held while fn runs */
	} events;
};

struct blk_vq {
	struct blk_vol *v;
	struct vh_loop *loop;
	const struct blk_backend *backend;
	void *priv; /* the backend's */
	void (*ended)(struct blk_vq *q, struct blk_unit *u); /* submit tier: gives the slot back */
	struct blk_unit *out, **out_tail;           /* to be sent */
	struct blk_unit *finished, **finished_tail; /* to be ended */
	struct vh_task send_task;
	struct loop_poller poller;
	unsigned depth, cap; /* the user's, the backend's */
	unsigned inflight;   /* pushed, not ended */
	uint8_t sending, reaping, blocked, ready;
	uint8_t internal; /* the volume's own, for blocking calls */
	uint8_t closing, wrote; /* closing: under v->lock; wrote: something, ever */
	/* Slow contexts: free, and requests that wait for one. */
	struct blk_slow *slow_free, *slow_all;
	struct blk_io *slow_head, **slow_tail;
	void *slow_mem;
	struct blk_merge *merge_free; /* merge.c */
	void *merge_mem;
	/* In flight by age, when there is a time limit. */
	struct blk_unit *oldest, *newest;
	struct vh_timer *timer;
	unsigned n_late;
	struct blk_unit flush_unit; /* this queue's part of a flush round */
	struct vh_task flush_task;
	int flush_busy; /* under v->lock */
	unsigned guests; /* blocking calls that go through a user's queue (sync.c); under v->lock */
	struct vh_task lost_task;
	struct vh_lower_q *lower; /* of a filter: what it opened below */
	struct blk_vq *next; /* of the volume, under its lock */

	_Alignas(64) atomic_uint writes; /* modifications in flight that the range lock does not know */
	atomic_uint_fast64_t mods;       /* modifications that have ended; only its own thread writes it */
	/* Completions by other threads. */
	_Alignas(64) _Atomic(struct blk_unit *) remote;
	atomic_uint posters;
	struct vh_task remote_task;
};

/* queue.c */
void blk_push(struct blk_vq *q, struct blk_unit *u);             /* [queue] sends it at the end of the turn */
void blk_finish(struct blk_vq *q, struct blk_unit *u, int res);  /* [queue] ends it later in this turn */
void blk_end(struct blk_vq *q, struct blk_unit *u, int res);     /* [queue] ends it now */
void blk_end_remote(struct blk_vq *q, struct blk_unit *u, int res); /* [any] */
void blk_unpop(struct blk_vq *q, struct blk_unit *u);            /* puts it back in front of q->out */
static inline struct blk_unit *blk_pop(struct blk_vq *q)
{
	struct blk_unit *u = q->out;

	if (u && !(q->out = u->next))
		q->out_tail = &q->out;
	return u;
}
void blk_timed_add(struct blk_vq *q, struct blk_unit *u);        /* starts the time limit, if there is one */
void blk_io_fail(struct blk_vq *q, struct blk_io *io, int res); /* [queue] never inline */
void blk_cancel_queues(struct blk_vol *v);             /* under v->lock: the hint for everything under way */
void blk_leave_event(struct blk_vol *v, int down);     /* [any] */
void blk_leave_fini(struct blk_vol *v);
int blk_vq_open_internal(struct blk_vol *v, struct vh_loop *l, uint32_t depth, struct blk_vq **out, struct vh_err *e);
void blk_latch(struct blk_vol *v, int res);                     /* [any] a flush failed */

/* slow.c */
int blk_slow_init(struct blk_vq *q, struct vh_err *e);
void blk_slow_fini(struct blk_vq *q);
void blk_slow_start(struct blk_vq *q, struct blk_io *io); /* [queue] never calls done() inline */
const void *blk_zeros(void); /* BLK_BOUNCE zero bytes */

/* rmw.c */
int blk_range_begin(struct blk_vol *v, struct blk_vq *q, struct blk_range *r, uint64_t off, uint64_t end, int exclusive);
void blk_range_end(struct blk_vol *v, struct blk_range *r);
void blk_range_quiet(struct blk_vol *v); /* [any] a queue's count fell to 0 while rmw_on */
static inline void blk_uncount(struct blk_vq *q)
{
	if (atomic_fetch_sub(&q->writes, 1) == 1 && unlikely(atomic_load(&q->v->rmw_on)))
		blk_range_quiet(q->v);
}
/* A modification of whole blocks. The two sequentially consistent accesses pair with those of blk_range_begin: either it
 * sees the count, or this sees rmw_on. 1: go on, 0: r->granted() is called on the queue's loop. */
static inline int blk_modify_begin(struct blk_vq *q, struct blk_range *r, uint64_t off, uint64_t end)
{
	if (!q->v->len_mask) {
		r->state = RANGE_NONE;
		return 1;
	}
	atomic_fetch_add(&q->writes, 1);
	if (likely(!atomic_load(&q->v->rmw_on))) {
		r->state = RANGE_COUNTED;
		return 1;
	}
	blk_uncount(q);
	return blk_range_begin(q->v, q, r, off, end, 0);
}
static inline void blk_modify_end(struct blk_vq *q, struct blk_range *r)
{
	if (likely(r->state == RANGE_COUNTED))
		blk_uncount(q);
	else if (r->state == RANGE_HELD)
		blk_range_end(q->v, r);
	r->state = RANGE_NONE;
}

/* fd.c: one operation on the volume's fd, blocking; as blk_unit results. */
int64_t blk_fd_rw(struct blk_vol *v, int op, int flags, const struct iovec *iov, unsigned niov, uint64_t off);
int blk_fd_op(struct blk_vol *v, int op, int flags, uint64_t off, uint64_t len);
int blk_fd_write_zeros(struct blk_vol *v, uint64_t off, uint64_t end); /* sync.c: any bytes, written out */
int blk_fd_direct_ok(struct blk_vol *v);

/* engine-threads.c */
void blk_work(struct blk_vq *q, struct blk_unit *u); /* runs a unit on the volume's workers */

/* submit.c */
extern const struct vh_io_ops blk_io_service;
/* filter.c */
extern const struct vh_lower_ops blk_lower_service;
void blk_lower_free(struct blk_vol *v);
void blk_lower_close(struct blk_vq *q); /* what a filter's queue opened below */

/* flush.c */
void blk_flush_push(struct blk_vq *q, struct blk_unit *u); /* u is a FLUSH; ends as if pushed */
void blk_flush_leave(struct blk_vq *q); /* before a queue closes */

/* fd tier: whether no modification has ended since the last flush that has ended well was submitted; else *mods is how many
 * have, for blk_flush_covered() when this one has ended well. */
int blk_flush_needless(struct blk_vol *v, uint64_t *mods);
void blk_flush_covered(struct blk_vol *v, uint64_t mods);

/* merge.c */
int blk_merge_init(struct blk_vq *q, struct vh_err *e);
void blk_merge_fini(struct blk_vq *q);
void blk_merge(struct blk_vq *q);
void blk_merged(struct blk_unit *u, int res);
void blk_merge_end(struct blk_vq *q, struct blk_unit *u, int res);

/* grow.c */
void blk_grow(struct blk_slow *s, uint64_t end); /* blk_slow_grown(s, res) follows on the queue */
void blk_slow_grown(struct blk_slow *s, int res);
int blk_grow_now(struct blk_vol *v, uint64_t end, struct vh_err *e); /* [main] */
void blk_refresh(struct blk_vol *v); /* under main_lock: reads the size anew */

/* sync.c */
void blk_sync_fini(struct blk_vol *v);
int blk_sync_make_room(struct blk_vol *v); /* gives up the volume's own queue: 1 if there was one */

/* event.c */
void blk_event_init(struct blk_vol *v);
void blk_event_fini(struct blk_vol *v);
void blk_event(struct blk_vol *v, uint32_t event, uint64_t value); /* [any] deferred */

/* volume.c */
int blk_vol_make(void *vol, const struct vh_volume_ops *ops, const struct blk_config *c, struct blk_vol *lower,
		 struct blk_vol **out, struct vh_err *e);

#endif
