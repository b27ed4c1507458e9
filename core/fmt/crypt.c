/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The I/O of encrypted extents. Each chunk of a run has a bounce buffer of the queue: ciphertext never lies in guest memory,
 * where the guest could change it between the read and the decryption and so have any text decrypted for it. There is no
 * copy more for that: what is decrypted goes from the buffer straight to where it is wanted, what is encrypted comes
 * straight from there, each byte read once. Only sectors that a vector cuts in two are put together in the buffer.
 *
 * Sectors are read whole, also where a request wants a part. Written are whole sectors only: write.c has the rest of a
 * sector in head and tail, read under the exclusive lock.
 *
 * Small chunks are done on the queue's thread. Large ones go to CPU workers when there is something else to do meanwhile.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "fmt/impl.h"

#define CHUNK (128u << 10)
#define OFFLOAD (32u << 10) /* bytes that are worth a thread's wake-up: about 10 us of AES */
#define WORKERS 4u          /* chunks of one queue that workers have at once */

struct cop {
	struct sub sub; /* its I/O, of whole sectors; the first member */
	struct cop *next;
	struct fmt_queue *q;
	const struct crypt *crypt;
	struct crypt_ctx *ctx; /* a worker's */
	uint32_t layer, worker;
	uint64_t number; /* of the first sector */
	uint64_t want;   /* bytes, after `lead` others */
	uint32_t lead;
	struct vec v;
	uint8_t *buf;
	struct work work;
	struct note note;
	int result;
};

/* Decrypts into c->v. */
static int cop_decrypt(struct cop *c, struct crypt_ctx *x)
{
	uint64_t s = crypt_sector(c->crypt), number = c->number, left = c->want, lead = c->lead;
	uint64_t step = crypt_step(c->crypt);
	uint8_t *in = c->buf;
	int r;

	while (left) {
		struct vec v = c->v;
		struct iovec p = vec_next(&v, left);
		uint64_t n = lead ? 0 : p.iov_len & ~(s - 1);

		if (!p.iov_len)
			return -EINVAL; /* the vector is shorter than the request said */
		if (n) {
			r = crypt_run(c->crypt, x, 0, number, in, p.iov_base, n);
			vec_skip(&c->v, n);
			left -= n;
		} else {
			uint64_t some = s - lead < left ? s - lead : left;

			n = s;
			r = crypt_run(c->crypt, x, 0, number, in, in, s);
			vec_copy_to(&c->v, in + lead, some);
			left -= some;
			lead = 0;
		}
		if (r < 0)
			return r;
		in += n;
		number += n / s * step;
	}
	return 0;
}

/* Encrypts from c->v into the buffer. */
static int cop_encrypt(struct cop *c, struct crypt_ctx *x)
{
	uint64_t s = crypt_sector(c->crypt), number = c->number, left = c->want;
	uint64_t step = crypt_step(c->crypt);
	uint8_t *out = c->buf;
	int r;

	while (left) {
		struct vec v = c->v;
		struct iovec p = vec_next(&v, left);
		uint64_t n = p.iov_len & ~(s - 1);

		if (!p.iov_len)
			return -EINVAL;
		if (n) {
			r = crypt_run(c->crypt, x, 1, number, p.iov_base, out, n);
			vec_skip(&c->v, n);
		} else {
			n = s;
			if (vec_copy_from(&c->v, out, s) != s)
				return -EINVAL;
			r = crypt_run(c->crypt, x, 1, number, out, out, s);
		}
		if (r < 0)
			return r;
		left -= n;
		out += n;
		number += n / s * step;
	}
	return 0;
}

/* 1: r->cop is there; 0: it waits; -EIO: every buffer is lost. */
static int cop_get(struct req *r)
{
	struct crypt_pool *p = &r->q->crypt;

	if (r->cop)
		return 1;
	if (p->free) {
		r->cop = p->free;
		p->free = r->cop->next;
		return 1;
	}
	if (!p->live)
		return -EIO;
	r->waiting = WAIT_BUF;
	r->next = NULL;
	*p->wait_tail = r;
	p->wait_tail = &r->next;
	return 0;
}

static void cop_note(struct fmt_queue *q, struct note *n)
{
	struct req *r = container_of(n, struct req, note);

	r->waiting = WAIT_NO;
	req_step(r);
}

static struct req *cop_waiter(struct crypt_pool *p)
{
	struct req *w = p->wait;

	if (w) {
		p->wait = w->next;
		if (!p->wait)
			p->wait_tail = &p->wait;
		w->note.fn = cop_note;
	}
	return w;
}

static void cop_put(struct fmt_queue *q, struct cop *c)
{
	struct req *w = cop_waiter(&q->crypt);

	if (w) { /* handed over; it goes on in a turn of its own, so that nothing recurses */
		w->cop = c;
		note_push(q, &w->note);
	} else {
		c->next = q->crypt.free;
		q->crypt.free = c;
	}
}

/* An I/O that timed out may still read or write the buffer: nobody else gets it. */
static void cop_lose(struct fmt_queue *q)
{
	struct req *w;

	if (--q->crypt.live)
		return;
	while ((w = cop_waiter(&q->crypt)))
		note_push(q, &w->note);
}

void crypt_drop(struct req *r)
{
	if (r->cop)
		cop_put(r->q, r->cop);
	r->cop = NULL;
}

/* The chunk is done. */
static void cop_end(struct cop *c, int result)
{
	struct req *r = c->sub.req;
	struct fmt_queue *q = c->q;

	r->nsubs--;
	if (result == -ETIMEDOUT)
		r->timed_out = 1;
	if (result < 0)
		req_error(r, result);
	if (result == -ETIMEDOUT)
		cop_lose(q);
	else
		cop_put(q, c);
	req_step(r);
}

static void cop_work(struct work *w)
{
	struct cop *c = container_of(w, struct cop, work);

	c->result = c->sub.bio.op == VH_READ ? cop_decrypt(c, c->ctx) : cop_encrypt(c, c->ctx);
	note_push(c->q, &c->note);
}

static void cop_worked(struct fmt_queue *q, struct note *n)
{
	struct cop *c = container_of(n, struct cop, note);

	q->crypt.busy &= ~(1u << c->worker);
	if (c->sub.bio.op == VH_READ || c->result < 0)
		cop_end(c, c->result);
	else
		sub_queue(&c->sub);
}

/* 1: a worker does it, and its note will come. */
static int offload(struct cop *c)
{
	struct fmt_queue *q = c->q;
	uint32_t k = 0;

	if (c->want < OFFLOAD || !q->crypt.workers || (q->inflight < 2 && c->sub.req->nsubs < 2))
		return 0;
	while (k < q->crypt.workers && q->crypt.busy & 1u << k)
		k++;
	if (k == q->crypt.workers)
		return 0;
	q->crypt.busy |= 1u << k;
	c->worker = k;
	c->ctx = q->crypt.ctx[c->layer * (WORKERS + 1) + 1 + k];
	c->work.fn = cop_work;
	c->note.fn = cop_worked;
	worker_submit(q->image->cpu_pool, &c->work);
	return 1;
}

static struct crypt_ctx *ctx_of(const struct cop *c)
{
	return c->q->crypt.ctx[c->layer * (WORKERS + 1)];
}

static void cop_done(struct blk_io *io, int result)
{
	struct cop *c = container_of(io, struct cop, sub.bio);

	fvq_ended(c->sub.vq);
	if (result == 0 && io->op == VH_READ) {
		if (offload(c))
			return;
		result = cop_decrypt(c, ctx_of(c));
	}
	cop_end(c, result);
}

int crypt_emit(struct req *r, struct run *run)
{
	const struct fmt_layer *l = run->crypt;
	uint64_t mask = crypt_sector(l->crypt) - 1;

	while (run->vq) {
		uint64_t lead = run->addr & mask, n = run->len < CHUNK - lead ? run->len : CHUNK - lead;
		struct cop *c;
		int res = cop_get(r);

		if (!res)
			return 0;
		if (res < 0) {
			req_error(r, res);
			run->vq = NULL;
			return 1;
		}
		c = r->cop;
		r->cop = NULL;
		c->q = r->q;
		c->crypt = l->crypt;
		c->layer = l->depth;
		c->number = crypt_number(l->crypt, run->pos - lead, run->addr - lead);
		c->lead = (uint32_t)lead;
		c->want = n;
		c->v = run->v;
		c->sub.req = r;
		c->sub.vq = run->vq;
		c->sub.iov[0] = (struct iovec){c->buf, (lead + n + mask) & ~mask};
		c->sub.bio.op = run->op;
		c->sub.bio.flags = run->flags;
		c->sub.bio.niov = 1;
		c->sub.bio.iov = c->sub.iov;
		c->sub.bio.off = run->addr - lead;
		c->sub.bio.len = c->sub.iov[0].iov_len;
		c->sub.bio.done = cop_done;
		vec_skip(&run->v, n);
		run->addr += n;
		run->pos += n;
		run->len -= n;
		if (!run->len)
			run->vq = NULL;
		r->nsubs++;
		if (run->op == VH_WRITE) {
			if (offload(c))
				continue;
			res = lead || n & mask ? -EIO : cop_encrypt(c, ctx_of(c)); /* never: write.c hands over whole sectors */
			if (res < 0) {
				r->nsubs--;
				req_error(r, res);
				cop_put(r->q, c);
				run->vq = NULL;
				return 1;
			}
		}
		sub_queue(&c->sub);
	}
	return 1;
}

int crypt_machine(struct fmt_queue *q)
{
	struct fmt_image *i = q->image;
	struct crypt_pool *p = &q->crypt;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t n = FMT_QUEUE_BUDGET / CHUNK;
	int any = 0;

	for (uint32_t k = 0; k < i->nlayers; k++)
		any |= i->layers[k]->crypt != NULL;
	if (!any)
		return 0;
	p->workers = cpus < 2 || !i->cpu_pool ? 0 : cpus < WORKERS ? (uint32_t)cpus : WORKERS;
	p->nctx = i->nlayers * (WORKERS + 1);
	p->ctx = calloc(p->nctx, sizeof(struct crypt_ctx *));
	p->cops = calloc(n, sizeof(*p->cops));
	p->bytes = (size_t)n * CHUNK;
	p->wait_tail = &p->wait;
	p->mem = mmap(NULL, p->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->mem == MAP_FAILED)
		p->mem = NULL;
	if (!p->ctx || !p->cops || !p->mem)
		return -ENOMEM;
	for (uint32_t k = 0; k < p->nctx; k++) {
		const struct fmt_layer *l = i->layers[k / (WORKERS + 1)];

		if (!l->crypt || k % (WORKERS + 1) > p->workers)
			continue;
		p->ctx[k] = crypt_ctx_new(l->crypt);
		if (!p->ctx[k])
			return -ENOMEM;
	}
	for (p->live = 0; p->live < n; p->live++) {
		struct cop *c = &p->cops[n - 1 - p->live];

		c->buf = p->mem + (size_t)(n - 1 - p->live) * CHUNK;
		c->next = p->free;
		p->free = c;
	}
	return 0;
}

void crypt_machine_free(struct fmt_queue *q)
{
	struct crypt_pool *p = &q->crypt;

	for (uint32_t k = 0; p->ctx && k < p->nctx; k++)
		crypt_ctx_free(p->ctx[k]);
	if (p->mem)
		munmap(p->mem, p->bytes);
	free(p->ctx);
	free(p->cops);
	memset(p, 0, sizeof(*p));
}
