/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Vectors, the I/Os of a request on its volumes, and its buffers. */
#include "fmt/impl.h"

struct iovec vec_next(struct vec *v, uint64_t len)
{
	struct iovec out = {NULL, 0};

	if (v->pre.iov_len) {
		out.iov_base = v->pre.iov_base;
		out.iov_len = v->pre.iov_len < len ? v->pre.iov_len : len;
		v->pre.iov_base = (char *)v->pre.iov_base + out.iov_len;
		v->pre.iov_len -= out.iov_len;
		return out;
	}
	if (v->left && v->zeros) {
		out.iov_base = v->zeros->zeros;
		out.iov_len = v->left < len ? v->left : len;
		if (out.iov_len > v->zeros->zeros_bytes)
			out.iov_len = v->zeros->zeros_bytes;
		v->left -= out.iov_len;
		return out;
	}
	while (v->left && v->i < v->n && v->off == v->iov[v->i].iov_len) {
		v->i++;
		v->off = 0;
	}
	if (v->left && v->i < v->n) {
		uint64_t n = v->iov[v->i].iov_len - v->off;

		if (n > v->left)
			n = v->left;
		if (n > len)
			n = len;
		out.iov_base = (char *)v->iov[v->i].iov_base + v->off;
		out.iov_len = n;
		v->off += n;
		v->left -= n;
		return out;
	}
	out.iov_base = v->post.iov_base;
	out.iov_len = v->post.iov_len < len ? v->post.iov_len : len;
	v->post.iov_base = (char *)v->post.iov_base + out.iov_len;
	v->post.iov_len -= out.iov_len;
	return out;
}

void vec_skip(struct vec *v, uint64_t len)
{
	while (len) {
		struct iovec p = vec_next(v, len);

		if (!p.iov_len)
			return;
		len -= p.iov_len;
	}
}

uint64_t vec_take(struct vec *v, uint64_t len, struct iovec *out, uint32_t cap, uint32_t *n)
{
	uint64_t sum = 0;

	*n = 0;
	while (sum < len && *n < cap) {
		out[*n] = vec_next(v, len - sum);
		if (!out[*n].iov_len)
			break;
		sum += out[(*n)++].iov_len;
	}
	return sum;
}

void vec_zero(struct vec *v, uint64_t len)
{
	while (len) {
		struct iovec p = vec_next(v, len);

		if (!p.iov_len)
			return;
		memset(p.iov_base, 0, p.iov_len);
		len -= p.iov_len;
	}
}

void vec_copy_to(struct vec *v, const void *from, uint64_t len)
{
	const char *s = from;

	while (len) {
		struct iovec p = vec_next(v, len);

		if (!p.iov_len)
			return;
		memcpy(p.iov_base, s, p.iov_len);
		s += p.iov_len;
		len -= p.iov_len;
	}
}

uint64_t vec_copy_from(struct vec *v, void *to, uint64_t len)
{
	uint64_t sum = 0;

	while (sum < len) {
		struct iovec p = vec_next(v, len - sum);

		if (!p.iov_len)
			break;
		memcpy((char *)to + sum, p.iov_base, p.iov_len);
		sum += p.iov_len;
	}
	return sum;
}

/* The request's own is there unless it is in flight, so whoever gets NULL is stepped again. */
struct sub *sub_get(struct req *r)
{
	struct fmt_queue *q = r->q;
	struct sub *s = NULL;

	if (!r->own_busy) {
		r->own_busy = 1;
		s = &r->own;
	} else if (q->sub_free) {
		s = q->sub_free;
		q->sub_free = s->next;
	} else if (q->nsubs < q->max_subs) {
		s = &q->subs[q->nsubs++];
	}
	if (s)
		s->req = r;
	return s;
}

void sub_put(struct sub *s)
{
	struct req *r = s->req;

	if (s == &r->own) {
		r->own_busy = 0;
	} else {
		s->next = r->q->sub_free;
		r->q->sub_free = s;
	}
}

static void fvq_send(struct fvq *f, struct sub *s)
{
	f->inflight++;
	f->gathered = 1;
	blk_submit(f->vq, &s->bio);
}

void fvq_ended(struct fvq *f)
{
	struct sub *w;

	f->inflight--;
	w = f->wait;
	if (w) {
		f->wait = w->next;
		if (!f->wait)
			f->wait_tail = &f->wait;
		fvq_send(f, w);
	}
}

static void sub_done(struct blk_io *io, int result)
{
	struct sub *s = container_of(io, struct sub, bio);
	struct req *r = s->req;

	fvq_ended(s->vq);
	r->nsubs--;
	if (result == -ETIMEDOUT)
		r->timed_out = 1;
	/* A hole that could not be punched still holds what nobody will read; one that may yet be punched is another matter. */
	if (result < 0 && (io->op != VH_DISCARD || result == -ETIMEDOUT))
		req_error(r, result);
	sub_put(s);
	req_step(r);
}

void sub_submit(struct sub *s)
{
	s->bio.done = sub_done;
	s->req->nsubs++;
	sub_queue(s);
}

void sub_queue(struct sub *s)
{
	struct fvq *f = s->vq;

	if (f->inflight < f->depth) {
		fvq_send(f, s);
	} else {
		s->next = NULL;
		*f->wait_tail = s;
		f->wait_tail = &s->next;
	}
}

int run_emit(struct req *r, struct run *run)
{
	if (run->vq && run->crypt)
		return crypt_emit(r, run);
	while (run->vq) {
		struct sub *s = sub_get(r);
		uint64_t n = run->len;

		if (!s)
			return 0;
		s->bio.niov = 0;
		s->bio.iov = NULL;
		if (run->op == VH_READ || run->op == VH_WRITE) {
			n = vec_take(&run->v, n, s->iov, FMT_SUB_IOV, &s->bio.niov);
			s->bio.iov = s->iov;
			if (!n) { /* the vector is shorter than the request said */
				sub_put(s);
				req_error(r, -EINVAL);
				run->vq = NULL;
				return 1;
			}
		}
		s->vq = run->vq;
		s->bio.op = run->op;
		s->bio.flags = run->flags;
		s->bio.off = run->addr;
		s->bio.len = n;
		run->addr += n;
		run->len -= n;
		if (!run->len)
			run->vq = NULL;
		sub_submit(s);
	}
	return 1;
}

int run_add_at(struct run *run, const struct fmt_layer *l, uint16_t xflags, uint64_t pos, struct fvq *vq, uint16_t op, uint16_t flags,
	       uint64_t addr, uint64_t len, const struct vec *v)
{
	const struct fmt_layer *crypt = xflags & VH_EXT_CRYPT ? l : NULL;

	if (!run->vq) {
		*run = (struct run){.vq = vq, .op = op, .flags = flags, .addr = addr, .len = len, .pos = pos, .crypt = crypt, .v = *v};
		return 1;
	}
	if (run->vq != vq || run->op != op || run->flags != flags || run->addr + run->len != addr || run->crypt != crypt ||
	    (crypt && run->pos + run->len != pos))
		return 0;
	run->len += len;
	return 1;
}

int run_add(struct run *run, struct fvq *vq, uint16_t op, uint16_t flags, uint64_t addr, uint64_t len, const struct vec *v)
{
	return run_add_at(run, NULL, 0, 0, vq, op, flags, addr, len, v);
}

int buf_get(struct req *r, enum buf_kind kind)
{
	struct buf_pool *p = &r->q->pool[kind];

	if (r->buf[kind])
		return 1;
	if (p->free) {
		r->buf[kind] = p->free;
		p->free = p->free->next;
		return 1;
	}
	r->waiting = WAIT_BUF;
	r->next = NULL;
	*p->wait_tail = r;
	p->wait_tail = &r->next;
	return 0;
}

static void buf_note(struct fmt_queue *q, struct note *n)
{
	struct req *r = container_of(n, struct req, note);

	r->waiting = WAIT_NO;
	req_step(r);
}

void buf_put(struct req *r, enum buf_kind kind)
{
	struct buf_pool *p = &r->q->pool[kind];
	struct req *w = p->wait;

	if (!r->buf[kind])
		return;
	if (w) { /* handed over; it goes on in a turn of its own, so that nothing recurses */
		p->wait = w->next;
		if (!p->wait)
			p->wait_tail = &p->wait;
		w->buf[kind] = r->buf[kind];
		w->note.fn = buf_note;
		note_push(r->q, &w->note);
	} else {
		r->buf[kind]->next = p->free;
		p->free = r->buf[kind];
	}
	r->buf[kind] = NULL;
}
