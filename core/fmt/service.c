/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Blocking access for commands. A flat disk is its volume; any other goes through a queue of the image's own, with a loop
 * of its own, made on first use, so that commands obey the same locks as guests.
 */
#include "fmt/impl.h"

struct wait_io {
	struct fmt_io io;
	struct fmt_queue *q;
	struct iovec iov;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int done, result;
};

static void wait_done(struct fmt_io *io, int result)
{
	struct wait_io *w = container_of(io, struct wait_io, io);

	pthread_mutex_lock(&w->lock);
	w->done = 1;
	w->result = result;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static void wait_submit(void *ctx)
{
	struct wait_io *w = ctx;

	fmt_submit(w->q, &w->io);
}

/* service_lock is held. */
static int service_open(struct fmt_image *i, struct vh_err *e)
{
	int r;

	if (i->service_queue)
		return 0;
	r = loop_new("fmt-service", &i->service_loop, e);
	if (r < 0)
		return r;
	r = queue_open(i, i->service_loop, 2, 1, &i->service_queue, e);
	if (r >= 0)
		r = loop_start(i->service_loop, e);
	if (r < 0) {
		fmt_queue_close(i->service_queue);
		loop_free(i->service_loop);
		i->service_queue = NULL;
		i->service_loop = NULL;
	}
	return r;
}

void service_close(struct fmt_image *i)
{
	if (!i->service_loop)
		return;
	loop_stop(i->service_loop);
	fmt_queue_close(i->service_queue);
	loop_free(i->service_loop);
	i->service_queue = NULL;
	i->service_loop = NULL;
}

static int blocking(struct fmt_image *i, uint16_t op, void *buf, uint64_t len, uint64_t off, const char *verb, struct vh_err *e)
{
	struct wait_io w = {.io = {.op = op, .niov = buf ? 1 : 0, .off = off, .len = len, .iov = &w.iov, .done = wait_done},
			    .iov = {buf, len}};
	int r;

	pthread_mutex_lock(&i->service_lock);
	r = service_open(i, e);
	if (r >= 0) {
		pthread_mutex_init(&w.lock, NULL);
		pthread_cond_init(&w.cond, NULL);
		w.q = i->service_queue;
		loop_call(i->service_loop, wait_submit, &w);
		pthread_mutex_lock(&w.lock);
		while (!w.done)
			pthread_cond_wait(&w.cond, &w.lock);
		pthread_mutex_unlock(&w.lock);
		pthread_mutex_destroy(&w.lock);
		pthread_cond_destroy(&w.cond);
		r = w.result;
		if (r < 0)
			err_set(e, r, "%s %llu bytes at %llu: %s%s", verb, (unsigned long long)len, (unsigned long long)off,
				strerror(-r), i->layers[0]->faulted ? " (the format's plugin is faulty)" : "");
	}
	pthread_mutex_unlock(&i->service_lock);
	if (r < 0)
		err_object(e, "image %s", i->label);
	return r;
}

int image_outside(struct fmt_image *i, uint64_t len, uint64_t off, struct vh_err *e)
{
	uint64_t bytes = load_relaxed(&i->bytes);

	if (off <= bytes && len <= bytes - off)
		return 0;
	return err_set(e, -EINVAL, "%llu bytes at %llu lie outside the disk of %llu bytes", (unsigned long long)len,
		       (unsigned long long)off, (unsigned long long)bytes);
}

int fmt_pread(struct fmt_image *i, void *buf, uint64_t len, uint64_t off, struct vh_err *e)
{
	int r = image_outside(i, len, off, e);

	if (r < 0)
		return r;
	if (i->flat)
		return blk_read(i->layers[0]->vols[i->flat_vol], buf, len, off + i->flat_addr, e);
	return blocking(i, VH_READ, buf, len, off, "reading", e);
}

int fmt_pwrite(struct fmt_image *i, const void *buf, uint64_t len, uint64_t off, struct vh_err *e)
{
	int r = image_outside(i, len, off, e);

	if (r < 0)
		return r;
	if (i->read_only)
		return err_set(e, -EROFS, "image %s is read-only", i->label);
	if (i->flat)
		return blk_write(i->layers[0]->vols[i->flat_vol], buf, len, off + i->flat_addr, e);
	return blocking(i, VH_WRITE, (void *)(uintptr_t)buf, len, off, "writing", e);
}

int fmt_pzero(struct fmt_image *i, uint64_t len, uint64_t off, struct vh_err *e)
{
	int r = image_outside(i, len, off, e);

	if (r < 0)
		return r;
	if (i->read_only)
		return err_set(e, -EROFS, "image %s is read-only", i->label);
	if (i->flat)
		return blk_zero(i->layers[0]->vols[i->flat_vol], len, off + i->flat_addr, e);
	return blocking(i, VH_ZERO, NULL, len, off, "zeroing", e);
}

int fmt_flush(struct fmt_image *i, struct vh_err *e)
{
	if (i->read_only)
		return 0;
	if (i->flat)
		return blk_flush(i->layers[0]->vols[i->flat_vol], e);
	return blocking(i, VH_FLUSH, NULL, 0, 0, "flushing", e);
}
