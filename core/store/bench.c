/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Requests in a row, so many in flight, as a guest would send them: for comparing engines, formats and programs. */
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include "store/convert-i.h"

struct bench_run;
struct slot {
	struct fmt_io io;
	struct iovec iov;
	struct bench_lane *l;
	struct slot *next;
};

struct bench_lane {
	struct bench_run *r;
	struct vh_loop *loop;
	struct fmt_queue *q;
	struct vh_task task;
	struct slot *slots, *idle;
	struct slot flush;
	uint64_t left, at, done, since, rng;
	unsigned flying;
	int flushing;
};

struct bench_run {
	struct bench *b;
	struct vh_job *job;
	struct bench_lane *lane;
	uint64_t disk, around; /* bytes; where offsets begin anew */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned running;
	uint64_t done;
	int error;
};

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void go_on(struct bench_lane *l);

static uint64_t next_offset(struct bench_lane *l)
{
	struct bench *b = l->r->b;
	uint64_t off;

	if (b->random) { /* xorshift */
		l->rng ^= l->rng << 13;
		l->rng ^= l->rng >> 7;
		l->rng ^= l->rng << 17;
		return l->rng % (l->r->disk / b->bytes) * b->bytes;
	}
	off = l->at % l->r->around;
	l->at = off + b->step;
	return off;
}

static uint64_t divisor(uint64_t a, uint64_t b) /* the greatest of both */
{
	return b ? divisor(b, a % b) : a;
}

/* At the end requests go on at the beginning: a step further on, and aligned as they were, since parts of blocks are other work. */
static uint64_t around(const struct bench *b, uint64_t disk)
{
	uint64_t unit = divisor(divisor(b->off, b->step), b->bytes);

	return (disk - b->bytes) / unit * unit + unit;
}

static void flushed(struct fmt_io *io, int result)
{
	struct bench_lane *l = ((struct slot *)((char *)io - offsetof(struct slot, io)))->l;

	l->flying--;
	l->flushing = 0;
	if (result < 0)
		__atomic_store_n(&l->r->error, result, __ATOMIC_RELAXED);
	go_on(l);
}

static void ended(struct fmt_io *io, int result)
{
	struct slot *s = (struct slot *)((char *)io - offsetof(struct slot, io));
	struct bench_lane *l = s->l;

	s->next = l->idle;
	l->idle = s;
	l->flying--;
	l->done++;
	l->since++;
	if (result < 0)
		__atomic_store_n(&l->r->error, result, __ATOMIC_RELAXED);
	go_on(l);
}

static void go_on(struct bench_lane *l)
{
	struct bench_run *r = l->r;
	struct bench *b = r->b;
	int error = __atomic_load_n(&r->error, __ATOMIC_RELAXED) || job_cancelled(r->job);

	if (b->flush_every && l->since >= b->flush_every && !l->flushing && (b->no_drain || !l->flying) && !error) {
		l->flushing = 1;
		l->since = 0;
		l->flush = (struct slot){.l = l, .io = {.op = VH_FLUSH, .done = flushed}};
		l->flying++;
		fmt_submit(l->q, &l->flush.io);
	}
	while (l->idle && l->left && !error && (!b->flush_every || b->no_drain || (l->since < b->flush_every && !l->flushing))) {
		struct slot *s = l->idle;

		l->idle = s->next;
		l->left--;
		l->flying++;
		s->io.off = next_offset(l);
		s->io.len = b->bytes;
		fmt_submit(l->q, &s->io);
	}
	if (l->flying)
		return;
	pthread_mutex_lock(&r->lock);
	r->done += l->done;
	r->running--;
	pthread_cond_signal(&r->cond);
	pthread_mutex_unlock(&r->lock);
}

static void start(struct vh_task *t)
{
	go_on((struct bench_lane *)((char *)t - offsetof(struct bench_lane, task)));
}

int bench_run(struct bench *b, struct vh_job *j, struct vh_err *e)
{
	struct bench_run r = {.b = b, .job = j};
	unsigned depth = MAX(b->depth, 1u), queues = CLAMP(b->queues, 1u, MIN(depth, 64u)), each = (depth + queues - 1) / queues;
	size_t one = (b->bytes + 4095) & ~UINT64_C(4095), all = b->shared ? one : one * each * queues;
	struct fmt_info info;
	uint64_t started;
	uint8_t *mem;
	int ret = 0;

	fmt_get_info(b->image, &info);
	r.disk = info.bytes;
	if (!b->bytes || b->bytes > info.bytes || b->bytes > (UINT64_C(1) << 30))
		return err_usage(e, "requests of %llu bytes do not fit the disk of %llu", (unsigned long long)b->bytes,
				 (unsigned long long)info.bytes);
	if (b->write && info.read_only)
		return err_set(e, -EROFS, "the image is read-only");
	if (!b->step)
		b->step = b->bytes;
	r.around = around(b, r.disk);
	mem = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		return err_set(e, -ENOMEM, "no memory for %u requests", depth);
	memset(mem, b->pattern, all);
	pthread_mutex_init(&r.lock, NULL);
	pthread_cond_init(&r.cond, NULL);
	r.lane = g_new0(struct bench_lane, queues);
	for (unsigned k = 0; k < queues && !ret; k++) {
		struct bench_lane *l = &r.lane[k];

		l->r = &r;
		l->task.fn = start;
		l->rng = 0x9e3779b97f4a7c15u * (k + 1);
		l->left = b->count / queues + (k < b->count % queues);
		/* Each queue has its own part of the way. */
		l->at = b->off + (b->count / queues) * k * b->step;
		l->slots = g_new0(struct slot, each);
		for (unsigned s = 0; s < each; s++) {
			struct slot *x = &l->slots[s];

			x->l = l;
			x->iov = (struct iovec){mem + (b->shared ? 0 : one * (k * each + s)), b->bytes};
			x->io = (struct fmt_io){.op = b->write ? VH_WRITE : VH_READ, .niov = 1, .iov = &x->iov, .done = ended};
			x->next = l->idle;
			l->idle = x;
		}
		ret = loop_new("bench", &l->loop, e);
		if (!ret)
			ret = fmt_queue_open(b->image, l->loop, each + 1, &l->q, e);
		if (!ret)
			ret = loop_start(l->loop, e);
	}
	started = now_ns();
	r.running = ret ? 0 : queues;
	for (unsigned k = 0; k < queues && !ret; k++)
		loop_post(r.lane[k].loop, &r.lane[k].task);
	pthread_mutex_lock(&r.lock);
	while (r.running)
		pthread_cond_wait(&r.cond, &r.lock);
	pthread_mutex_unlock(&r.lock);
	b->seconds = (double)(now_ns() - started) / 1e9;
	for (unsigned k = 0; k < queues; k++) {
		struct bench_lane *l = &r.lane[k];

		if (l->loop)
			loop_stop(l->loop);
		fmt_queue_close(l->q);
		loop_free(l->loop);
		g_free(l->slots);
	}
	g_free(r.lane);
	munmap(mem, all);
	pthread_mutex_destroy(&r.lock);
	pthread_cond_destroy(&r.cond);
	if (!ret && r.error)
		ret = err_set(e, r.error, "a request failed: %s", g_strerror(-r.error));
	if (!ret && job_cancelled(j))
		ret = err_set(e, -ECANCELED, "cancelled");
	return ret;
}
