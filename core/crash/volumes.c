/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Two kinds of volumes in memory: one that records, whose requests are done late and in another order than they came; and one
 * on a memory file, for the states that are opened: blocking access to it is a system call and no more.
 */
#include "crash/crash-i.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>
#include "blk/volume.h"
#include "util/loop.h"

#define DEPTH 1024u
#define MOST (UINT64_C(1) << 32) /* bytes of a volume: a load that needs more is a mistake */

struct rec {
	struct trace *trace;
	unsigned vol, align;
	uint64_t seed;
	struct mem mem; /* under trace->lock */
};

struct pending {
	struct vh_req *r;
	uint32_t event;
	int applied;
};

struct rec_queue {
	struct vh_task task; /* first */
	struct rec *v;
	struct vh_loop *loop;
	uint64_t rnd;
	uint32_t n;
	struct pending p[DEPTH];
};

static const struct vh_io_ops *io_service;

static int rec_info(void *vol, struct vh_volume_info *i)
{
	struct rec *v = vol;
	struct vh_volume_info mine = {
		.size = i->size, .fd = -1, .logical_block = 512, .len_align = v->align, .buf_align = 1, .discard_gran = 512,
		.caps = VH_VOL_FLUSH | VH_VOL_WRITE_CACHE | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_GROW | VH_VOL_ZERO_ON_GROW};

	pthread_mutex_lock(&v->trace->lock);
	mine.bytes = v->mem.bytes;
	pthread_mutex_unlock(&v->trace->lock);
	memcpy(i, &mine, MIN(i->size, sizeof(mine)));
	return 0;
}

static int rec_queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **out, struct vh_err *e)
{
	struct rec_queue *q = depth <= DEPTH ? g_new0(struct rec_queue, 1) : NULL;

	if (!q)
		return err_set(e, -ENOMEM, "%u requests at once are too many", depth);
	q->v = vol;
	q->rnd = (q->v->seed + depth) * 0x9e3779b97f4a7c15u | 1;
	*out = q;
	return 0;
}

/* Under the lock. */
static uint32_t event_begin(struct rec *v, uint16_t op, uint64_t off, uint64_t len)
{
	struct trace_event x = {.op = op, .vol = (uint16_t)v->vol, .off = off, .len = len, .begun = ++v->trace->time};

	if (!v->trace->recording)
		return UINT32_MAX;
	g_array_append_val(v->trace->events, x);
	return v->trace->events->len - 1;
}

/* The moment it happens. Under the lock. */
static void req_apply(struct rec *v, const struct vh_req *r, uint32_t event)
{
	struct trace_event *x = event == UINT32_MAX ? NULL : trace_at(v->trace, event);
	uint64_t at = r->off;

	if (r->op == VH_ZERO && r->off + r->len > v->mem.bytes)
		image_resize(&v->mem, r->off + r->len);
	if (r->op == VH_ZERO || r->op == VH_DISCARD)
		image_zero(&v->mem, r->off, r->len);
	if (x && r->op == VH_WRITE)
		x->data = g_malloc(r->len);
	for (uint32_t k = 0; k < r->niov && r->op <= VH_WRITE; k++) {
		uint8_t *p = r->iov[k].iov_base;
		uint64_t n = r->iov[k].iov_len;

		if (r->op == VH_READ) {
			image_read(&v->mem, at, p, n);
		} else if (x) { /* read once: it is a guest's memory */
			memcpy(x->data + (at - r->off), p, n);
			image_write(&v->mem, at, x->data + (at - r->off), n);
		} else {
			image_write(&v->mem, at, p, n);
		}
		at += n;
	}
	if (x)
		x->applied = ++v->trace->time;
}

static void rec_turn(struct vh_task *t)
{
	struct rec_queue *q = (struct rec_queue *)t;
	struct vh_req *ready[64];
	uint32_t n = 0, k = 0;

	pthread_mutex_lock(&q->v->trace->lock);
	for (uint32_t left = q->n; left && n < 64; left--) {
		struct pending *p = &q->p[k];

		if (!p->applied && crash_rnd(&q->rnd) % 2) {
			req_apply(q->v, p->r, p->event);
			p->applied = 1;
		}
		if (!p->applied || crash_rnd(&q->rnd) % 2) {
			k++;
			continue;
		}
		ready[n++] = p->r;
		if (p->event != UINT32_MAX)
			trace_at(q->v->trace, p->event)->ended = ++q->v->trace->time;
		*p = q->p[--q->n];
	}
	pthread_mutex_unlock(&q->v->trace->lock);
	if (q->n)
		loop_post(q->loop, &q->task);
	for (k = 0; k < n; k++)
		io_service->done(ready[k], 0);
}

static int rec_queue_start(void *vq, struct vh_loop *l)
{
	struct rec_queue *q = vq;

	q->loop = l;
	q->task.fn = rec_turn;
	return 0;
}

static void rec_queue_close(void *vq)
{
	struct rec_queue *q = vq;

	loop_cancel(q->loop, &q->task);
	g_free(q);
}

static uint32_t rec_submit(void *vq, struct vh_req *const *r, uint32_t n)
{
	struct rec_queue *q = vq;
	struct rec *v = q->v;

	for (uint32_t k = 0; k < n; k++) {
		pthread_mutex_lock(&v->trace->lock);
		if (r[k]->op == VH_READ) {
			req_apply(v, r[k], UINT32_MAX);
			pthread_mutex_unlock(&v->trace->lock);
			io_service->done(r[k], 0);
			continue;
		}
		q->p[q->n++] = (struct pending){.r = r[k], .event = event_begin(v, r[k]->op, r[k]->off, r[k]->len)};
		pthread_mutex_unlock(&v->trace->lock);
		loop_post(q->loop, &q->task);
	}
	return n;
}

static int rec_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	struct rec *v = vol;
	uint32_t k;

	if (bytes > MOST)
		return err_set(e, -ENOSPC, "%llu bytes are more than a crash test has", (unsigned long long)bytes);
	pthread_mutex_lock(&v->trace->lock);
	k = event_begin(v, TRACE_RESIZE, 0, bytes);
	image_resize(&v->mem, bytes);
	if (k != UINT32_MAX) {
		struct trace_event *x = trace_at(v->trace, k);

		x->applied = x->ended = ++v->trace->time;
		x->durable = !blk_growing(); /* a file that grows under a write is as long as that is after the next flush */
	}
	pthread_mutex_unlock(&v->trace->lock);
	return 0;
}

static void rec_close(void *vol)
{
	struct rec *v = vol;

	image_fini(&v->mem);
	g_free(v);
}

static const struct vh_volume_ops rec_ops = {
	.size = sizeof(rec_ops),
	.info = rec_info,
	.queue_open = rec_queue_open,
	.queue_start = rec_queue_start,
	.queue_close = rec_queue_close,
	.submit = rec_submit,
	.resize = rec_resize,
	.close = rec_close,
};

struct blk_vol *record_volume(struct trace *t, unsigned vol, const char *label, uint64_t seed, unsigned align, struct vh_err *e)
{
	struct blk_config c = {.label = label};
	struct rec *v = g_new0(struct rec, 1);
	struct blk_vol *b;

	io_service = plug_service(VH_SVC_IO);
	v->trace = t;
	v->vol = vol;
	v->align = align;
	v->seed = seed;
	image_init(&v->mem);
	if (blk_vol_new(v, &rec_ops, &c, &b, e) < 0) {
		rec_close(v);
		return NULL;
	}
	return b;
}

void record_start(struct trace *t, struct blk_vol *const *vols)
{
	pthread_mutex_lock(&t->lock);
	for (unsigned v = 0; v < t->volumes; v++) {
		void *vol;
		struct mem *m;

		blk_vol_ops(vols[v], &vol);
		m = &((struct rec *)vol)->mem;
		for (uint64_t k = 0; k < m->cap; k++)
			if (m->chunk[k])
				image_write(&t->start[v], k * MEM_CHUNK, m->chunk[k], MEM_CHUNK);
		image_resize(&t->start[v], m->bytes);
	}
	t->recording = 1;
	t->time = 0;
	pthread_mutex_unlock(&t->lock);
}

/* ---- memory files ---- */

struct file {
	int fd;
};

static int file_info(void *vol, struct vh_volume_info *i)
{
	struct file *f = vol;
	off_t end = lseek(f->fd, 0, SEEK_END);
	struct vh_volume_info mine = {.size = i->size, .fd = f->fd, .bytes = end < 0 ? 0 : (uint64_t)end, .logical_block = 512,
				      .caps = VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_GROW | VH_VOL_ZERO_ON_GROW};

	memcpy(i, &mine, MIN(i->size, sizeof(mine)));
	return 0;
}

static int file_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	struct file *f = vol;

	if (bytes > MOST)
		return err_set(e, -ENOSPC, "%llu bytes are more than a crash test has", (unsigned long long)bytes);
	return ftruncate(f->fd, (off_t)bytes) < 0 ? err_set(e, -errno, "cannot resize a memory file: %s", strerror(errno)) : 0;
}

static void file_close(void *vol)
{
	struct file *f = vol;

	close(f->fd);
	g_free(f);
}

static const struct vh_volume_ops file_ops = {
	.size = sizeof(file_ops), .info = file_info, .resize = file_resize, .close = file_close};

struct blk_vol *memory_volume(const char *label, int *fd, struct vh_err *e)
{
	struct blk_config c = {.label = label, .engine = BLK_ENGINE_THREADS};
	struct file *f = g_new0(struct file, 1);
	struct blk_vol *b;

	f->fd = memfd_create(label, MFD_CLOEXEC);
	if (f->fd < 0) {
		err_set(e, -errno, "cannot make a memory file: %s", strerror(errno));
		g_free(f);
		return NULL;
	}
	if (blk_vol_new(f, &file_ops, &c, &b, e) < 0) {
		file_close(f);
		return NULL;
	}
	*fd = f->fd;
	return b;
}

static int write_chunks(int fd, const struct mem *m, uint64_t from, uint64_t to)
{
	struct iovec iov[64];

	while (from < to) {
		unsigned n = 0;
		ssize_t done;

		for (; n < 64 && from + n < to; n++)
			iov[n] = (struct iovec){m->chunk[from + n], MEM_CHUNK};
		done = pwritev(fd, iov, (int)n, (off_t)(from * MEM_CHUNK));
		if (done != (ssize_t)n * (ssize_t)MEM_CHUNK)
			return done < 0 ? -errno : -ENOSPC;
		from += n;
	}
	return 0;
}

int memory_volume_set(struct blk_vol *v, int fd, const struct mem *m, struct vh_err *e)
{
	uint64_t n = MIN(m->cap, (m->bytes + MEM_CHUNK - 1) / MEM_CHUNK), k = 0;
	int r = 0;

	/* Its old contents go first: all of it if it is little. */
	if (ftruncate(fd, 0) < 0)
		r = -errno;
	while (k < n && !r) {
		uint64_t end = k;

		while (end < n && m->chunk[end])
			end++;
		r = write_chunks(fd, m, k, end);
		k = end + 1;
	}
	if (r)
		return err_set(e, r, "cannot fill a memory file: %s", strerror(-r));
	return blk_vol_resize(v, m->bytes, e);
}
