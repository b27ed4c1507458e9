/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The parts of the iscsi plugin. A target is a pool, a LUN a volume.
 *
 * config.c   what the options say; secrets, names
 * session.c  one session: connecting, logging in, commands that are waited for
 * probe.c    what a LUN is, from answers that nobody trusts
 * reserve.c  persistent reservations
 * pool.c     the pool's table
 * volume.c   attached LUNs
 * queue.c    requests of one queue over its session; gather.c, task.c, clock.c, queue.h: its parts
 * sense.c    what an answer means for a request
 * fixer.c    the thread that brings lost sessions back
 */
#ifndef ISCSI_PLUGIN_H
#define ISCSI_PLUGIN_H

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <iscsi/iscsi.h>
#include <iscsi/scsi-lowlevel.h>
#include <vhost/pool.h>
#include <vhost/sugar.h>

#define SECOND UINT64_C(1000000000)
#define MSEC UINT64_C(1000000)

extern const struct vh_host *is_host;
extern const struct vh_log_ops *is_log;       /* NULL: the host has none */
extern const struct vh_secret_ops *is_secret; /* likewise */
extern const struct vh_loop_ops *is_loop;
extern const struct vh_io_ops *is_io;
extern const struct vh_event_ops *is_event;   /* likewise */
#define is_warn(...) do { if (is_log) is_log->log(VH_LOG_WARN, "iscsi.session", __VA_ARGS__); } while (0)
#define is_note(...) do { if (is_log) is_log->log(VH_LOG_INFO, "iscsi.session", __VA_ARGS__); } while (0)

uint64_t is_now(void); /* CLOCK_MONOTONIC, ns */

/* Why something failed, where there is no struct vh_err (the fixer's thread). The first text stands. */
struct why { char text[512], remedy[256]; };
int why_set(struct why *w, int code, const char *fmt, ...) VH_PRINTF(3, 4);
void why_remedy(struct why *w, const char *fmt, ...) VH_PRINTF(2, 3);
int is_fail(struct vh_err *e, int code, const struct why *w); /* hands it to the host */

/* ---- config.c ---- */

struct secret { char text[256]; }; /* locked memory */
struct config {
	char host[256], target[224], initiator[224], user[256], target_user[256];
	unsigned port;
	struct secret *secret, *target_secret;
	uint64_t timeout, login_timeout; /* ns; timeout 0: none */
	unsigned sessions;
	int reserve;
	uint64_t key; /* of reservations: this host's */
};
extern const struct vh_opt *const is_pool_options[];
int config_read(struct config *c, const struct vh_opts *o, struct vh_err *e);
void config_clear(struct config *c);
uint64_t is_hash(uint64_t seed, const char *text); /* FNV-1a, mixed */
/* Printable ASCII only, without spaces at the ends; returns the length. */
size_t is_text(char *out, size_t cap, const uint8_t *in, size_t n);

/* ---- session.c ---- */

struct session {
	struct iscsi_context *ctx; /* NULL: it is lost */
	const struct config *cfg;
	int stop_fd;               /* readable: give up; -1 */
	int connected, logged_in, login_status;
	char error[128]; /* of connecting */
};
/* An I_T nexus of this host: `rnd` and `qual` are the ISID. */
struct nexus { uint32_t rnd, qual; };
struct nexus nexus_random(void);
/* Connects and logs in, within the login time limit. discovery: a discovery session, without a target. */
int session_open(const struct config *c, const struct nexus *x, int discovery, int stop_fd, struct session **out, struct why *w);
void session_close(struct session *s, uint64_t wait); /* wait: ns for a logout; 0: just closes. NULL is fine */
int session_dead(struct session *s); /* looks whether the target has closed it */
/* The targets that the portal offers, as text, at most cap bytes. */
int session_discover(const struct config *c, char *out, size_t cap, struct why *w);

/* Commands. Several may be under way; when waiting fails the session is lost and every command has ended. */
struct cmd {
	struct scsi_task *task;
	int done, status;
	const uint8_t *out;
	struct iscsi_data data;
};
int cmd_start(struct session *s, struct cmd *c, int lun, const uint8_t *cdb, int cdb_len, int dir, int len, const void *out,
	      struct why *w);
int cmd_wait(struct session *s, struct cmd *c, unsigned n, struct why *w);
int cmd_lost(const struct cmd *c); /* it has no answer: the session ended */
/* 0, -EAGAIN (unit attention: again), or an error with its text. */
int cmd_result(const struct cmd *c, const char *what, struct why *w);
size_t cmd_data(const struct cmd *c, const uint8_t **data); /* what came in */
void cmd_end(struct cmd *c);
/* All of it, with unit attentions retried. c->task stays for cmd_data() until cmd_end(). */
int cmd_run(struct session *s, struct cmd *c, int lun, const uint8_t *cdb, int cdb_len, int dir, int len, const void *out,
	    const char *what, struct why *w);

int session_lun_reset(struct session *s, int lun, struct why *w); /* ends everybody's commands */

/* ---- probe.c ---- */

struct lun {
	int raw;             /* as REPORT LUNS gives it: what libiscsi puts on the wire */
	unsigned number;     /* for people */
	uint8_t type;        /* of peripheral device; 0 is a disk */
	int listed;          /* the target knows it */
	uint64_t bytes;
	uint32_t block, physical;
	int thin, zeroes_unmapped; /* LBPME, LBPRZ */
	char serial[64], id[72], identity[160]; /* id: "naa.600...", may be empty */
	/* of lun_probe_more */
	int write_protected, write_cache, fua, unmap, write_same, write_same_unmap;
	uint32_t max_blocks, opt_blocks, max_unmap, unmap_gran, unmap_align;
	uint64_t max_same;
};
int lun_name(char *out, size_t cap, const struct lun *l);
int lun_parse(const char *name, unsigned *number);
/* All LUNs of the target; *out for free(). */
int luns_read(struct session *s, struct lun **out, unsigned *n, struct why *w);
/* Size and identity of several at once; those that are no disks, or that fail, have type != 0 or bytes 0. */
int luns_probe(struct session *s, struct lun *l, unsigned n, struct why *w);
int lun_find(struct session *s, unsigned number, struct lun *out, struct why *w); /* -ENOENT; probed */
/* The size in an answer to READ CAPACITY (16) of n bytes; 0: none that makes sense, or other blocks. */
int lun_size(const uint8_t *d, size_t n, uint32_t block, uint64_t *bytes);
int lun_probe_more(struct session *s, struct lun *l, struct why *w);

/* ---- reserve.c ---- */

struct reservation { uint64_t key; uint8_t type; int held; };
/* Registers this session's nexus and holds the LUN for this host, or finds that it does. *gen: the target's generation of
 * reservations as last seen, 0 at first. -EBUSY: somebody else's, named; -ESTALE: ours was taken away meanwhile. */
int reserve_join(struct session *s, const struct lun *l, const char *name, uint32_t *gen, struct why *w);
int reserve_leave(struct session *s, const struct lun *l, struct why *w); /* for all of this host's nexuses */
int reserve_break(struct session *s, const struct lun *l, struct why *w); /* takes it away from whoever has it */
int reserve_held(struct session *s, const struct lun *l); /* 1: by somebody */

/* ---- pool.c ---- */

struct pool {
	struct config cfg;
	struct session *ctl; /* opened when it is needed */
};
int pool_session(struct pool *p, struct session **out, struct why *w);
void pool_session_drop(struct pool *p);

/* ---- volume.c, fixer.c ---- */

struct queue;
struct volume {
	struct pool *pool;
	struct lun lun;
	char name[16];
	uint32_t mode;
	int reserved;
	struct vh_object *object;
	_Atomic uint64_t bytes;
	atomic_uint down;     /* queues without a session */
	atomic_uint unfenced; /* queues whose lost session may still write what was reported as failed */
	atomic_int lost;      /* the reservation is gone: nothing is sent any more */
	unsigned n_queues;    /* under lock */
	uint64_t used;        /* bit map of queue indices; under lock */
	pthread_mutex_t lock, telling;
	pthread_cond_t cond;
	pthread_t thread;
	int running, stopping, stop_fd;
	struct queue *fix; /* waiting for a session, in order */
	struct session *retired[16];
	unsigned n_retired;
	uint32_t gen;
};
int volume_attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops, struct vh_err *e);
/* A session for queue `index` of the volume, checked to lead to the same LUN. */
int volume_connect(struct volume *v, unsigned index, int stop_fd, struct session **out, struct why *w);
void volume_size(struct volume *v, uint64_t bytes); /* [any] what the target says now */
void volume_lost(struct volume *v, const char *why); /* [any] */
void volume_retire(struct volume *v, struct session *s); /* [any] it is closed with the volume */
void volume_down(struct volume *v);
void volume_up(struct volume *v);
int fixer_start(struct volume *v);
void fixer_stop(struct volume *v);
void fixer_want(struct queue *q); /* [queue] a new session for q: queue_fresh() has it one day */

/* ---- queue.c ---- */

/* What queue.c and fixer.c share of a queue; under the volume's lock but for `fresh`. */
struct queue_fix {
	struct queue *next;
	unsigned refs;
	int wanted, closed;
	struct session *_Atomic fresh;
	uint64_t since, told;
};
struct queue_fix *queue_fix(struct queue *q);
struct volume *queue_volume(struct queue *q);
unsigned queue_index(const struct queue *q);
void queue_free(struct queue *q); /* nobody refers to it any more */
#define QUEUE_CTX 2240u /* scratch of one request */
#define QUEUE_SEGMENTS 128u
int queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **q, struct vh_err *e);
int queue_start(void *q, struct vh_loop *l);
void queue_close(void *q);
uint32_t queue_submit(void *q, struct vh_req *const *r, uint32_t n);
void queue_cancel(void *q, struct vh_req *r); /* clock.c */

/* ---- sense.c ---- */

enum verdict {
	V_DONE,    /* *res is the result */
	V_AGAIN,   /* at once: it was not done */
	V_LATER,   /* after a pause: it was not done */
	V_RESYNC,  /* the session goes, and what the LUN is, is looked at anew */
	V_LOST,    /* the reservation is gone */
};
enum verdict sense_judge(const struct volume *v, uint16_t op, int status, const struct scsi_task *t, int *res);

/* SCSI's numbers: n bytes, the highest first. */
static inline uint64_t is_be(const uint8_t *p, unsigned n)
{
	uint64_t v = 0;

	while (n--)
		v = v << 8 | *p++;
	return v;
}

static inline void is_put(uint8_t *p, uint64_t v, unsigned n)
{
	while (n--) {
		p[n] = (uint8_t)v;
		v >>= 8;
	}
}

#endif
