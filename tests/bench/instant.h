/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A volume without an fd, each of whose requests is answered where it is submitted. */
#ifndef INSTANT_H
#define INSTANT_H

#include <string.h>
#include "blk/volume.h"
#include "plug/plug.h"

struct instant {
	struct vh_volume_info info;
	int (*answer)(struct instant *v, struct vh_req *r); /* NULL: all is well */
};

static int instant_info(void *vol, struct vh_volume_info *i)
{
	memcpy(i, &((struct instant *)vol)->info, i->size);
	return 0;
}

static int instant_queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **q, struct vh_err *e)
{
	*q = vol;
	return 0;
}

static int instant_queue_start(void *q, struct vh_loop *l)
{
	return 0;
}

static void instant_end(void *x)
{
}

static const struct vh_io_ops *instant_io; /* plug_service(VH_SVC_IO) */

static uint32_t instant_submit(void *q, struct vh_req *const *r, uint32_t n)
{
	struct instant *v = q;

	for (uint32_t i = 0; i < n; i++)
		instant_io->done(r[i], v->answer ? v->answer(v, r[i]) : 0);
	return n;
}

static const struct vh_volume_ops instant_ops = {.size = sizeof(instant_ops), .info = instant_info, .queue_open = instant_queue_open,
	.queue_start = instant_queue_start, .queue_close = instant_end, .submit = instant_submit, .close = instant_end};

#endif
