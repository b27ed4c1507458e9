/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Findings of `vhost doctor`. */
#ifndef CMD_DOCTOR_H
#define CMD_DOCTOR_H

#include <glib.h>
#include "util/err.h"

enum doctor_level { DOCTOR_OK, DOCTOR_NOTE, DOCTOR_PROBLEM }; /* PROBLEM: `vhost run` cannot work */
struct doctor; /* the list of findings */
/* remedy NULL: nothing is to be done. */
void doctor_add(struct doctor *d, enum doctor_level level, const char *topic, const char *remedy, const char *fmt, ...)
	G_GNUC_PRINTF(5, 6);
/* The first part of `path` that does not let us pass or does not exist, with what to do; NULL: all of it is passable. */
char *doctor_blocked(const char *path, int want, char **remedy);

/* One file per field. */
void doctor_kvm(struct doctor *d);    /* doctor-host.c */
void doctor_limits(struct doctor *d);
void doctor_net(struct doctor *d);    /* doctor-net.c */
void doctor_plugins(struct doctor *d);
void doctor_folders(struct doctor *d); /* doctor-store.c */
void doctor_pools(struct doctor *d);

#endif
