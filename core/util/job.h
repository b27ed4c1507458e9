/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A long control call: progress for people and programs, cancelling. struct vh_job is this job. */
#ifndef UTIL_JOB_H
#define UTIL_JOB_H

#include <vhost/host.h>

struct vh_job {
	uint64_t done, total; /* atomics */
	int cancel;           /* atomic */
	void (*changed)(struct vh_job *j); /* may be NULL; any thread; at most about 10 times a second */
	void *user;
	uint64_t last_ns;
};
void job_progress(struct vh_job *j, uint64_t done, uint64_t total);
int job_cancelled(struct vh_job *j);
extern const struct vh_job_ops job_service;
/* A progress bar on standard error when that is a terminal and `quiet` is 0; SIGINT cancels the job. */
void job_begin(struct vh_job *j, const char *title, int quiet);
void job_end(struct vh_job *j);

#endif
