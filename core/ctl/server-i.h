/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The control server's parts: server.c (its life, connections), methods.c (what can be called), jobs.c (what needs the
 * machine, and so runs on the main loop), console.c (the serial port's output and input).
 *
 * Threads: everything of a connection is touched by the server's own loop only. A job is handed over to the main loop and
 * back by posting. What the machine reports (output, state changes) is left under a lock, and the loop is told.
 */
#ifndef CTL_SERVER_I_H
#define CTL_SERVER_I_H

#include <glib.h>
#include <pthread.h>
#include <stdatomic.h>
#include "ctl/ctl-i.h"
#include "ctl/varlink.h"

#define CONNS_MAX 64u
#define OUT_MAX (256u << 10)    /* bytes waiting for a client; one that lets more gather is dropped */
#define STREAM_FILL (32u << 10) /* a stream is topped up to this, no request is taken beyond it */
#define CONSOLE_RING (64u << 10)
#define EVENTS_MAX 1024u

enum conn_mode { CONN_IDLE, CONN_JOB, CONN_STOP, CONN_EVENTS, CONN_CONSOLE, CONN_RAW };

struct job;
struct conn {
	struct ctl_server *s;
	struct conn *next;
	int fd, dead, eof, close_after, oneway;
	struct vh_watch *watch;
	enum conn_mode mode;
	GByteArray *in, *out;
	size_t out_at;
	struct job *job;
	uint64_t console_at; /* bytes of all output so far that it has had */
	uint8_t typed[1024]; /* RAW: taken from the client, not yet by the port */
	unsigned typed_n;
};

struct event {
	char *state, *reason;
	int64_t time; /* microseconds, wall clock */
};

struct ctl_server {
	struct mach *mach;
	struct vh_loop *main_loop, *loop; /* loop: NULL until the first client */
	char *name, *path;
	int64_t since;
	int listen_fd, closing, stopped;
	struct vh_watch *listen_watch; /* of main_loop, then of loop */
	struct vh_task adopt_task, event_task, console_task, reap_task;
	struct conn *conns;
	unsigned n_conns;
	struct job *jobs;
	struct vh_timer *force;
	uint64_t force_at; /* when the machine is ended, 0: never */

	pthread_mutex_t lock; /* what follows */
	GQueue events;        /* struct event, not yet told */
	char *state, *reason;
	uint8_t *ring;
	uint64_t ring_total;
	atomic_int streams;   /* connections that follow the console */
};

/* server.c: [ctl loop] */
void conn_send(struct conn *c, const void *data, size_t len); /* queues and tries; may mark it dead */
void conn_reply(struct conn *c, JsonObject *params, int continues);
void conn_error(struct conn *c, const char *error, JsonObject *params);
void conn_invalid(struct conn *c, const char *parameter);
void conn_failed(struct conn *c, const struct vh_err *e);
void conn_done(struct conn *c); /* a call has been answered: the next request may be worked off */
void conn_kill(struct conn *c);
size_t conn_waiting(const struct conn *c); /* bytes of output */
void conn_want_input(struct conn *c);      /* watch for it again */
char *ctl_time_text(int64_t us);               /* RFC 3339, g_free */
/* methods.c */
void ctl_dispatch(struct conn *c, const struct varlink_call *call);
JsonObject *ctl_event_object(const struct event *ev);
void ctl_state_get(struct ctl_server *s, struct event *out); /* copies; event_clear */
void event_clear(struct event *ev);
/* jobs.c */
enum job_op { JOB_BUTTON, JOB_QUIT, JOB_PAUSE, JOB_RESUME, JOB_RESET, JOB_BALLOON, JOB_STATS, JOB_INFO,
	      JOB_SNAP_CREATE, JOB_SNAP_LIST, JOB_SNAP_DELETE, JOB_RESIZE_DISK, JOB_LINK, JOB_NIC_LIMIT };
void job_start(struct ctl_server *s, struct conn *c, enum job_op op, int64_t arg, int then_wait);
/* Of a disk (or, JOB_LINK, a NIC); name: of a snapshot, or NULL. */
void job_start_disk(struct ctl_server *s, struct conn *c, enum job_op op, const char *disk, const char *name, int64_t arg);
/* A NIC's limits of what it receives and sends; NULL: as they are. */
void job_start_limit(struct ctl_server *s, struct conn *c, int64_t nic, const struct rate_limit *in, const struct rate_limit *out);
void job_forget(struct job *j); /* its connection is gone */
void jobs_drop(struct ctl_server *s); /* [main] the ctl loop has stopped */
/* console.c */
void console_attach(struct conn *c, int replay);
void console_detach(struct conn *c);
void console_pump(struct conn *c);        /* as much output as it has room for */
void console_type(struct conn *c);        /* offers what it typed */
void console_task(struct vh_task *t);

#endif
