/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A disk image in memory behind fmt/image.h whose completions a test can hold back or make fail. */
#ifndef FAKE_FMT_H
#define FAKE_FMT_H

#include "fmt/image.h"

#define FAKE_HELD 1024
struct fmt_image {
	uint8_t *data;
	uint64_t bytes;
	int read_only;
	int hold; /* atomic: keep requests until fake_release */
	int fail; /* atomic: result of everything */
	unsigned submitted, kicks, flushes, fua, unmap, zeroed, discards; /* atomic */
	void (*listener)(void *ctx, uint64_t bytes);
	void *listener_ctx;
	unsigned queues;
	struct fmt_queue *q[8];
};
struct fmt_queue {
	struct fmt_image *image;
	struct vh_loop *loop;
	struct fmt_io *io[FAKE_HELD];
	unsigned n;
	struct vh_task task;
};
struct fmt_image *fake_image(uint64_t bytes);
void fake_image_free(struct fmt_image *i);
void fake_release(struct fmt_image *i); /* [any] what was held completes, on its loop */
unsigned fake_count(unsigned *counter);

#endif
