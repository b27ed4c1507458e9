/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A load that verifies: random writes and reads of a volume through the block layer, every block stamped, so that a lost, torn or
 * misplaced write is found. What was acknowledged is kept in a file that is mapped, so that it survives the process.
 *
 *	vol-load POOL/VOLUME STATE-FILE SECONDS [DEPTH [UNTIL-ERROR]]     prints "running", then figures; status 1: something is wrong
 *	vol-load POOL/VOLUME STATE-FILE 0                                 only looks
 *
 * After SIGTERM it ends as soon as MORE writes have been acknowledged that were sent since: I/O goes on, or has come back.
 *
 * A block's generation may be newer than the acknowledged one only where a later write was attempted and not acknowledged.
 */
#include <fcntl.h>
#include <glib.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "store/store.h"

#define BLOCK 4096u
#define MOST 16u /* blocks of one request */
#define MORE 100u

struct mark { uint32_t acked, tried; };
struct stamp { uint64_t magic; uint32_t block, gen; };
#define MAGIC UINT64_C(0x76686f73744c4f41)

struct load;
struct slot {
	struct blk_io io;
	struct iovec iov[2];
	struct load *l;
	uint32_t first, n;
	uint64_t since;
	uint8_t *buf;
};

struct load {
	struct blk_vq *q;
	struct vh_loop *loop;
	struct slot *slots, flush;
	struct vh_task start;
	struct mark *mark;
	uint8_t *busy;
	uint32_t blocks;
	unsigned depth, flying;
	uint64_t rng, end, asked, more, writes, reads, flushes, errors, wrong, longest, last_flush;
	int flushing, until_error, first_error;
	GMutex lock;
	GCond cond;
	int ended;
};

static uint64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static volatile sig_atomic_t asked;

static void on_term(int sig)
{
	(void)sig;
	asked = 1;
}

static uint64_t rnd(struct load *l)
{
	l->rng ^= l->rng << 13;
	l->rng ^= l->rng >> 7;
	l->rng ^= l->rng << 17;
	return l->rng;
}

/* Every 512 bytes, so that a torn block shows. */
static void fill(uint8_t *p, uint32_t block, uint32_t gen)
{
	struct stamp s = {MAGIC, block, gen};

	memset(p, (int)(gen * 31 + block), BLOCK);
	for (unsigned at = 0; at < BLOCK; at += 512)
		memcpy(p + at, &s, sizeof(s));
}

/* 0: it is what it may be. */
static int judge(const struct load *l, const uint8_t *p, uint32_t block)
{
	const struct mark *m = &l->mark[block];
	uint8_t want[BLOCK];
	struct stamp s;

	memcpy(&s, p, sizeof(s));
	if (!s.magic) { /* zeros: never written */
		memset(want, 0, sizeof(want));
		return m->acked || memcmp(p, want, BLOCK);
	}
	if (s.magic != MAGIC || s.block != block || s.gen < m->acked || s.gen > m->tried)
		return 1;
	fill(want, block, s.gen);
	/* A write that was not acknowledged may be there in part. */
	return s.gen == m->acked && m->tried == m->acked && memcmp(p, want, BLOCK);
}

static void check(struct load *l, const uint8_t *p, uint32_t first, uint32_t n)
{
	for (uint32_t k = 0; k < n; k++, p += BLOCK) {
		struct stamp s;

		if (!judge(l, p, first + k))
			continue;
		memcpy(&s, p, sizeof(s));
		if (l->wrong++ < 10)
			fprintf(stderr, "block %u: generation %u (magic %s, block %u), acknowledged %u, tried %u\n", first + k, s.gen,
				s.magic == MAGIC ? "right" : "wrong", s.block, l->mark[first + k].acked, l->mark[first + k].tried);
	}
}

static void go(struct slot *s);

static void over(struct load *l)
{
	if (l->flying)
		return;
	g_mutex_lock(&l->lock);
	l->ended = 1;
	g_cond_signal(&l->cond);
	g_mutex_unlock(&l->lock);
}

static void failed(struct load *l, int result)
{
	l->errors++;
	if (!l->first_error)
		l->first_error = result;
}

static int stops(const struct load *l)
{
	return l->more >= MORE || now() >= l->end || (l->until_error && l->errors);
}

static void done(struct blk_io *io, int result)
{
	struct slot *s = (struct slot *)((char *)io - offsetof(struct slot, io));
	struct load *l = s->l;
	uint64_t took = now() - s->since;

	if (took > l->longest)
		l->longest = took;
	if (result < 0) {
		failed(l, result);
	} else if (io->op == VH_WRITE) {
		l->writes++;
		l->more += l->asked && s->since > l->asked;
		for (uint32_t k = 0; k < s->n; k++)
			__atomic_store_n(&l->mark[s->first + k].acked, l->mark[s->first + k].tried, __ATOMIC_RELEASE);
	} else {
		l->reads++;
		check(l, s->buf, s->first, s->n);
	}
	memset(l->busy + s->first, 0, s->n);
	l->flying--;
	go(s);
}

static void flushed(struct blk_io *io, int result)
{
	struct load *l = ((struct slot *)((char *)io - offsetof(struct slot, io)))->l;

	if (result < 0)
		failed(l, result);
	l->flushes++;
	l->flushing = 0;
	l->flying--;
	over(l);
}

static void go(struct slot *s)
{
	struct load *l = s->l;
	uint32_t n;

	if (asked && !l->asked)
		l->asked = now();
	if (stops(l)) {
		over(l);
		return;
	}
	if (!l->flushing && now() - l->last_flush > 50000000) {
		l->flushing = 1;
		l->last_flush = now();
		l->flush.l = l;
		l->flush.io = (struct blk_io){.op = VH_FLUSH, .done = flushed};
		l->flying++;
		blk_submit(l->q, &l->flush.io);
	}
	do {
		s->n = 1 + (uint32_t)(rnd(l) % 4 ? 0 : rnd(l) % MOST);
		s->first = (uint32_t)(rnd(l) % (l->blocks - s->n + 1));
		for (n = 0; n < s->n && !l->busy[s->first + n]; n++)
			;
	} while (n < s->n);
	memset(l->busy + s->first, 1, s->n);
	s->io = (struct blk_io){.op = rnd(l) % 3 ? VH_WRITE : VH_READ, .off = (uint64_t)s->first * BLOCK, .len = (uint64_t)s->n * BLOCK,
				.iov = s->iov, .niov = s->n > 1 ? 2 : 1, .done = done};
	s->iov[0] = (struct iovec){s->buf, s->n > 1 ? BLOCK + 512 : BLOCK}; /* not at a block's border */
	s->iov[1] = (struct iovec){s->buf + BLOCK + 512, s->io.len - BLOCK - 512};
	for (uint32_t k = 0; s->io.op == VH_WRITE && k < s->n; k++) {
		struct mark *m = &l->mark[s->first + k];

		__atomic_store_n(&m->tried, m->tried + 1, __ATOMIC_RELEASE);
		fill(s->buf + (size_t)k * BLOCK, s->first + k, m->tried);
	}
	s->since = now();
	l->flying++;
	blk_submit(l->q, &s->io);
}

static void start(struct vh_task *t)
{
	struct load *l = (struct load *)((char *)t - offsetof(struct load, start));

	for (unsigned k = 0; k < l->depth; k++)
		go(&l->slots[k]);
}

struct opening { struct load *l; struct blk_vol *v; int ret; struct vh_err err; };

static void open_fn(void *ctx)
{
	struct opening *o = ctx;

	o->ret = blk_vq_open(o->v, o->l->loop, o->l->depth + 1, &o->l->q, &o->err);
}

static void close_fn(void *ctx)
{
	blk_vq_close(((struct load *)ctx)->q);
}

static void must(int ret, struct vh_err *e, const char *what)
{
	if (ret >= 0)
		return;
	printf("%s: %s%s%s (%d)\n", what, e->object ? e->object : "", e->object ? ": " : "", e->cause ? e->cause : "", ret);
	exit(2);
}

static void run(struct load *l, struct blk_vol *v, unsigned seconds)
{
	struct opening o = {.l = l, .v = v};

	must(loop_new("load", &l->loop, &o.err), &o.err, "loop");
	must(loop_start(l->loop, &o.err), &o.err, "loop");
	loop_call(l->loop, open_fn, &o);
	must(o.ret, &o.err, "queue");
	l->slots = g_new0(struct slot, l->depth);
	for (unsigned k = 0; k < l->depth; k++) {
		l->slots[k].l = l;
		l->slots[k].buf = g_malloc(MOST * BLOCK);
	}
	l->end = now() + seconds * UINT64_C(1000000000);
	l->start.fn = start;
	signal(SIGTERM, on_term);
	puts("running");
	fflush(stdout);
	loop_post(l->loop, &l->start);
	g_mutex_lock(&l->lock);
	while (!l->ended)
		g_cond_wait(&l->cond, &l->lock);
	g_mutex_unlock(&l->lock);
	loop_call(l->loop, close_fn, l);
	loop_stop(l->loop);
	loop_free(l->loop);
	for (unsigned k = 0; k < l->depth; k++)
		g_free(l->slots[k].buf);
	g_free(l->slots);
}

int main(int argc, char **argv)
{
	g_autofree char *pool_name = NULL, *volume = NULL, *buf = NULL;
	struct store_attach a = {.holder = "pid 0 vol-load"};
	unsigned seconds = argc > 3 ? (unsigned)atoi(argv[3]) : 0;
	struct load l = {.rng = (uint64_t)time(NULL) * 2654435761u | 1, .depth = argc > 4 ? (unsigned)atoi(argv[4]) : 16,
			 .until_error = argc > 5};
	struct store_pool *pool;
	struct vh_err e = {0};
	struct blk_vol *v;
	int fd, mapped;

	if (argc < 4)
		return 2;
	g_autofree char *holder = g_strdup_printf("pid %d vol-load", (int)getpid());
	a.holder = holder;
	must(store_name_split(argv[1], &pool_name, &volume, &e), &e, "name");
	must(store_pool_open(pool_name, &pool, &e), &e, "pool");
	a.name = volume;
	a.mode = seconds ? VH_ATTACH_RW_EXCL : VH_ATTACH_RO;
	must(store_attach(pool, &a, &v, &e), &e, "attach");
	l.blocks = (uint32_t)(blk_vol_bytes(v) / BLOCK);
	fd = open(argv[2], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	mapped = fd >= 0 && !ftruncate(fd, (off_t)(l.blocks * sizeof(*l.mark)));
	l.mark = mapped ? mmap(NULL, l.blocks * sizeof(*l.mark), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
	if (l.mark == MAP_FAILED || !l.blocks || !l.depth)
		return 2;
	l.busy = g_malloc0(l.blocks);
	if (seconds)
		run(&l, v, seconds);
	if (!l.errors) { /* after one the volume may be lost to us */
		buf = g_malloc(256 * BLOCK);
		for (uint32_t at = 0; at < l.blocks; at += 256) {
			uint32_t n = MIN(256, l.blocks - at);

			must(blk_read(v, buf, (uint64_t)n * BLOCK, (uint64_t)at * BLOCK, &e), &e, "reading back");
			check(&l, (uint8_t *)buf, at, n);
		}
	}
	printf("writes=%" PRIu64 " reads=%" PRIu64 " flushes=%" PRIu64 " errors=%" PRIu64 " first_error=%d wrong=%" PRIu64 " longest_ms=%" PRIu64 "\n",
	       l.writes, l.reads, l.flushes, l.errors, l.first_error, l.wrong, l.longest / 1000000);
	fflush(stdout);
	blk_vol_put(v);
	store_pool_close(pool);
	g_free(l.busy);
	return l.wrong ? 1 : l.errors ? 3 : 0;
}
