/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#ifndef STORE_UNNAMED_H
#define STORE_UNNAMED_H

#include <glib.h>
#include "blk/volume.h"

/* A file of a folder that has no name yet. */
struct unnamed { int dir, fd; };
int unnamed_open(const char *folder, struct unnamed *u, struct vh_err *e); /* -EOPNOTSUPP, without a text: not here */
int unnamed_volume(struct unnamed *u, const char *label, int direct, struct blk_vol **out, struct vh_err *e);
int unnamed_publish(struct unnamed *u, const char *name, int replace, struct vh_err *e); /* what is in it is durable, then it has a name */
int unnamed_settle(struct unnamed *u, struct vh_err *e); /* the name is durable too */
void unnamed_close(struct unnamed *u);

#endif
