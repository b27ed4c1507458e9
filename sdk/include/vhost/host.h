/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/* What the host hands to a plugin: error text and, by id, services. A plugin links to nothing of the host. */
#ifndef VHOST_HOST_H
#define VHOST_HOST_H

#include <stdarg.h>
#include <vhost/abi.h>

/* Handles of the host; a plugin only passes them back. */
struct vh_err;    /* where the text of one failing call goes; may be NULL */
struct vh_loop;   /* the event loop of one queue */
struct vh_watch;  /* an fd watched by a loop */
struct vh_timer;  /* a timer of a loop */
struct vh_job;    /* a long control call; may be NULL */
struct vh_queue;  /* the host's end of a volume queue */
struct vh_object; /* the host's end of an open pool, volume, image or port */
struct vh_meta;   /* blocking access to one volume of an image */
struct vh_req;

struct vh_host {
	uint32_t size;
	uint32_t minor; /* VH_ABI_MINOR of the host; information only */
	/* [any] A service's table (first member uint32_t size, lives as long as the process), or NULL when this host
	 * has none of that id. */
	const void *(*service)(const struct vh_host *host, const char *iid);
	/* [any] Attaches printf-like text (no newline; what failed and why, not the object, which the host adds) to a
	 * failing call and returns `code`, a negative errno, so that one line fails and explains. The first text of a
	 * call stands; later ones are added as context in front of it. e may be NULL. */
	int (*err)(struct vh_err *e, int code, const char *fmt, ...) VH_PRINTF(3, 4);
	int (*verr)(struct vh_err *e, int code, const char *fmt, va_list ap) VH_PRINTF(3, 0);
	/* [any] What a person can do about it, in the imperative ("add --create"). The last one stands. */
	void (*remedy)(struct vh_err *e, const char *fmt, ...) VH_PRINTF(2, 3);
};

/* Log. A plugin writes to neither standard output nor standard error. */
#define VH_SVC_LOG "vh.log/1"
#define VH_LOG_ERROR 0u
#define VH_LOG_WARN 1u
#define VH_LOG_INFO 2u
#define VH_LOG_DEBUG 3u
#define VH_LOG_TRACE 4u
struct vh_log_ops {
	uint32_t size, resv;
	/* [any] Whether a line of this level and topic would be shown; cheap. Topics are "plugin-id.part". */
	int (*enabled)(uint32_t level, const char *topic);
	/* [any] One line, no newline. Rate-limited per topic; may take a short lock, so not once per request. */
	void (*log)(uint32_t level, const char *topic, const char *fmt, ...) VH_PRINTF(3, 4);
	void (*vlog)(uint32_t level, const char *topic, const char *fmt, va_list ap) VH_PRINTF(3, 0);
};

/* Loops: one per queue's thread. Events are VH_IN | VH_OUT; errors and hang-ups are reported as both. */
#define VH_SVC_LOOP "vh.loop/1"
#define VH_IN 1u
#define VH_OUT 4u
/* A unit of deferred work, embedded in the plugin's own object: posting allocates nothing. */
struct vh_task {
	void (*fn)(struct vh_task *t); /* [queue] */
	void *host[2];                 /* the host's; zero before first use */
};
struct vh_loop_ops {
	uint32_t size, resv;
	/* [queue] Calls fn on the loop while fd is ready (level-triggered). The fd stays the plugin's. -ENOMEM,
	 * -EEXIST (fd watched already), -EPERM (fd cannot be polled). */
	int (*watch)(struct vh_loop *l, int fd, uint32_t events, void (*fn)(void *ctx, uint32_t events), void *ctx,
		     struct vh_watch **out);
	void (*watch_events)(struct vh_watch *w, uint32_t events); /* [queue] 0 pauses it */
	void (*unwatch)(struct vh_watch *w);                       /* [queue] fn is not called again */
	/* [queue] A one-shot timer, disarmed at first. -ENOMEM. */
	int (*timer)(struct vh_loop *l, void (*fn)(void *ctx), void *ctx, struct vh_timer **out);
	void (*timer_at)(struct vh_timer *t, uint64_t ns); /* [queue] CLOCK_MONOTONIC time; 0 disarms */
	void (*timer_free)(struct vh_timer *t);            /* [queue] */
	/* [any] Runs t->fn on the loop, once, soon, never inline. A task that is posted already is not posted twice
	 * (returns 0; 1 when it was posted now). The task's memory is the plugin's and lives until fn is called. */
	int (*post)(struct vh_loop *l, struct vh_task *t);
	uint64_t (*now)(struct vh_loop *l); /* [queue] CLOCK_MONOTONIC in ns as of this turn of the loop */
	int (*is_current)(struct vh_loop *l); /* [any] whether the caller runs on it (thread check) */
};

/* Completion of data requests (io.h). */
#define VH_SVC_IO "vh.io/1"
struct vh_io_ops {
	uint32_t size, resv;
	/* [queue] The one completion of an accepted request: 0 or a negative errno. May be called inside submit. The
	 * request and its buffers must not be touched afterwards. Lock-free. */
	void (*done)(struct vh_req *r, int result);
	/* [any] The same from a foreign thread; posts to the queue's loop. */
	void (*done_remote)(struct vh_req *r, int result);
	/* [queue] After submit took fewer requests than it was offered: there is room again. */
	void (*ready)(struct vh_queue *q);
};

/* What happens to an object on its own account. */
#define VH_SVC_EVENT "vh.event/1"
#define VH_EVENT_SIZE 1u       /* volume: its size changed outside the host's control; value = bytes */
#define VH_EVENT_DEGRADED 2u   /* volume: the link is lost, the plugin is retrying */
#define VH_EVENT_RECOVERED 3u  /* volume: I/O flows again */
#define VH_EVENT_LEASE_LOST 4u /* volume: the exclusive right is gone: the host stops all I/O at once */
#define VH_EVENT_LINK 5u       /* port: value = 1 up, 0 down */
#define VH_EVENT_MTU 6u        /* port: value = bytes */
#define VH_EVENT_RX_FILTER 7u  /* port: the backend lost its filters; set them again */
struct vh_event_ops {
	uint32_t size, resv;
	void (*post)(struct vh_object *o, uint32_t event, uint64_t value); /* [any] handled later, never inline */
};

/* Blocking access to the volumes of an image, only while the host runs a [meta] call, or a [main] call of the format
 * contract. Offsets are volume bytes, any alignment; each call is bounded by the volume's time limit (-ETIMEDOUT). */
#define VH_SVC_META "vh.meta/1"
struct vh_meta_ops {
	uint32_t size, resv;
	int (*read)(struct vh_meta *m, void *buf, uint64_t len, uint64_t off); /* past the end: zeros */
	int (*write)(struct vh_meta *m, const void *buf, uint64_t len, uint64_t off); /* past the end: grows, or -ENOSPC */
	int (*zero)(struct vh_meta *m, uint64_t len, uint64_t off);
	int (*flush)(struct vh_meta *m);
	uint64_t (*bytes)(struct vh_meta *m); /* the volume's size now */
	/* Changes the volume's size. Shrinking only in a [main] call. -EOPNOTSUPP, -ENOSPC. */
	int (*resize)(struct vh_meta *m, uint64_t bytes);
	/* Gives the range back to the volume; advisory; only where the format's rules allow (no published mapping). */
	int (*discard)(struct vh_meta *m, uint64_t len, uint64_t off);
};

/* Long control calls. */
#define VH_SVC_JOB "vh.job/1"
struct vh_job_ops {
	uint32_t size, resv;
	void (*progress)(struct vh_job *j, uint64_t done, uint64_t total); /* [any] j may be NULL */
	int (*cancelled)(struct vh_job *j); /* [any] 1: end soon with -ECANCELED, leaving nothing behind */
};

/* Secrets by name, as an option of type SECRET gives it. Never in option strings, logs or errors. */
#define VH_SVC_SECRET "vh.secret/1"
struct vh_secret_ops {
	uint32_t size, resv;
	/* [main] Copies the secret; returns its length, -ENOENT, -EACCES (readable by others), -ENOSPC (cap too
	 * small). The caller wipes buf with explicit_bzero. */
	int64_t (*get)(const char *name, void *buf, uint64_t cap, struct vh_err *e);
};

/* Named counters, shown by `vhost vm stats`. */
#define VH_SVC_STATS "vh.stats/1"
struct vh_stats_ops {
	uint32_t size, resv;
	/* [main] A 64-bit counter under the object's name; the plugin adds to it with relaxed atomics. Freed by the
	 * host when the object is closed. NULL: no memory. */
	uint64_t *(*counter)(struct vh_object *o, const char *name);
};

#endif
