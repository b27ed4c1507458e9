/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Reading through a chain: what a guest reads, and what fills take from the layers below or from the image's old content. */
#include "fmt/impl.h"

enum { JOB_NONE, JOB_LOAD, JOB_DECODE, JOB_OPAQUE };

void reader_init(struct reader *rd, uint32_t top, uint64_t pos, uint64_t len, const struct vec *v)
{
	rd->top = rd->layer = top;
	rd->pos = pos;
	rd->end = rd->win = pos + len;
	rd->v = *v;
	rd->run.vq = NULL;
	rd->ext_n = 0;
	rd->job = JOB_NONE;
}

/* An answer to rd->map: keep it for this request, and in the cache as far as that is allowed. */
static void take_answer(struct req *r)
{
	struct fmt_queue *q = r->q;
	struct reader *rd = &r->rd;
	uint64_t klo = r->locked ? r->lk.lo : 0, khi = r->locked ? r->lk.hi : 0;

	rd->ext_n = rd->map.n;
	rd->ext_layer = rd->layer;
	for (uint32_t k = 0; k < rd->ext_n; k++) {
		const struct vh_extent *x = &rd->ext[k];
		uint64_t lo = x->pos, hi = x->pos + x->len;
		struct cache_ext c;

		if (!(x->flags & VH_EXT_CACHE) || x->type > VH_EXT_BACKING)
			continue;
		if (rd->layer == 0 && x->type != VH_EXT_DATA && load_relaxed(&q->image->puts))
			continue;
		if (rd->layer == 0 && !lock_clip(q, rd->seq, klo, khi, &lo, &hi))
			continue;
		c = (struct cache_ext){.pos = lo, .len = hi - lo, .addr = x->addr + (lo - x->pos), .vol = x->vol, .type = x->type,
				       .flags = x->flags & VH_EXT_CRYPT};
		cache_put(&q->rcache[rd->layer], &c);
	}
}

/* The extent at rd->pos of rd->layer, from the last answer or from the cache. */
static int find(struct req *r, struct vh_extent *out)
{
	struct reader *rd = &r->rd;
	struct cache_ext c;

	for (uint32_t k = 0; rd->ext_layer == rd->layer && k < rd->ext_n; k++) {
		if (rd->pos >= rd->ext[k].pos && rd->pos - rd->ext[k].pos < rd->ext[k].len) {
			*out = rd->ext[k];
			return 1;
		}
	}
	if (__builtin_expect(load_relaxed(&r->q->image->puts), 0) && !r->q->forgot && !rd->layer) {
		r->q->forgot = 1;
		cache_clear(&r->q->rcache[0]);
	}
	if (!cache_find(&r->q->rcache[rd->layer], rd->pos, &c))
		return 0;
	count(&r->q->stats.cache_hits, 1);
	memset(out, 0, sizeof(*out));
	out->pos = c.pos;
	out->len = c.len;
	out->addr = c.addr;
	out->vol = c.vol;
	out->type = c.type;
	out->flags = c.flags;
	return 1;
}

static void advance(struct reader *rd, uint64_t n)
{
	rd->pos += n;
	if (rd->pos == rd->win) {
		rd->layer = rd->top;
		rd->win = rd->end;
	}
}

static void decode_on_cpu(struct meta_item *m)
{
	struct req *r = container_of(m, struct req, item);
	const struct vh_extent *x = &r->rd.jx;
	uint8_t *in = r->buf[BUF_DECODE]->p;
	int res = r->item_layer->ops->decode(r->item_layer->img, x, in, x->aux, in + 2 * r->item_layer->info.unit, x->bytes);

	req_answer(r, res > 0 ? -EIO : res);
}

static void read_on_worker(struct meta_item *m)
{
	struct req *r = container_of(m, struct req, item);
	struct fmt_layer *l = r->item_layer;
	int res;

	if (l->lock_core)
		pthread_rwlock_wrlock(&l->lock);
	res = l->ops->read(l->img, &r->oreq);
	if (l->lock_core)
		pthread_rwlock_unlock(&l->lock);
	req_answer(r, res > 0 ? -EIO : res);
}

/* One compressed or opaque piece, at a time: nothing else of the request is in flight. 1: done, 0: wait. */
static int job_step(struct req *r)
{
	struct reader *rd = &r->rd;
	struct fmt_layer *l = r->q->image->layers[rd->layer];
	struct sub *s;

	switch (rd->job) {
	case JOB_LOAD:
		if (r->nsubs || !buf_get(r, BUF_DECODE))
			return 0;
		s = sub_get(r);
		s->vq = &r->q->vqs[l->vq_base + rd->jx.vol];
		s->iov[0] = (struct iovec){r->buf[BUF_DECODE]->p, rd->jx.aux};
		s->bio.op = VH_READ;
		s->bio.flags = 0;
		s->bio.niov = 1;
		s->bio.iov = s->iov;
		s->bio.off = rd->jx.addr;
		s->bio.len = rd->jx.aux;
		rd->job = JOB_DECODE;
		sub_submit(s);
		return 0;
	case JOB_DECODE:
		if (r->nsubs)
			return 0;
		if (!r->answered) {
			r->item_layer = l;
			req_call_cpu(r, decode_on_cpu);
			return 0;
		}
		r->answered = 0;
		if (r->result < 0)
			req_error(r, r->result);
		else
			vec_copy_to(&rd->v, r->buf[BUF_DECODE]->p + 2 * l->info.unit + rd->jx.head + (rd->pos - rd->jx.pos),
				    rd->jn);
		buf_put(r, BUF_DECODE);
		break;
	case JOB_OPAQUE:
		if (r->nsubs)
			return 0;
		if (!r->answered) {
			uint32_t n;

			rd->jn = vec_take(&rd->v, rd->jn, r->own.iov, FMT_SUB_IOV, &n);
			if (!rd->jn) { /* the vector is shorter than the request said */
				req_error(r, -EINVAL);
				break;
			}
			r->oreq = (struct vh_req){.size = sizeof(r->oreq), .op = VH_READ, .off = rd->pos, .len = rd->jn,
						  .iov = r->own.iov, .niov = n};
			req_call(r, l, read_on_worker, META_MAP);
			return 0;
		}
		r->answered = 0;
		if (r->result < 0)
			req_error(r, r->result);
		break;
	}
	rd->job = JOB_NONE;
	advance(rd, rd->jn);
	return 1;
}

/* Maps what is not known; 1: known now, or an error; 0: wait. */
static int ask(struct req *r, struct fmt_layer *l)
{
	struct reader *rd = &r->rd;
	int res;

	if (r->answered) {
		r->answered = 0;
		res = r->result;
	} else {
		rd->map = (struct vh_map){.op = VH_MAP_READ, .cap = FMT_READ_EXT, .pos = rd->pos, .len = rd->win - rd->pos,
					  .ext = rd->ext};
		rd->ext_n = 0;
		rd->seq = r->q->inval_seq;
		res = req_map(r, l, &rd->map);
		if (res == 1)
			return 0;
	}
	if (res < 0)
		req_error(r, res);
	else
		take_answer(r);
	return 1;
}

int reader_step(struct req *r)
{
	struct fmt_queue *q = r->q;
	struct fmt_image *i = q->image;
	struct reader *rd = &r->rd;

	for (;;) {
		struct fmt_layer *l;
		struct vh_extent x;
		uint64_t off, n;

		if (r->error) {
			rd->run.vq = NULL;
			r->answered = 0;
			if (!r->nsubs)
				buf_put(r, BUF_DECODE);
			return 1;
		}
		if (rd->job) {
			if (!job_step(r))
				return 0;
			continue;
		}
		if (rd->pos == rd->end)
			return run_emit(r, &rd->run);
		l = i->layers[rd->layer];
		if (r->answered || !find(r, &x)) {
			if (!ask(r, l))
				return 0;
			continue;
		}
		off = rd->pos - x.pos;
		n = x.len - off < rd->win - rd->pos ? x.len - off : rd->win - rd->pos;
		if (x.type == VH_EXT_DATA) {
			struct fvq *f = &q->vqs[l->vq_base + x.vol];

			if (!run_add_at(&rd->run, l, x.flags, rd->pos, f, VH_READ, 0, x.addr + off, n, &rd->v)) {
				if (!run_emit(r, &rd->run))
					return 0;
				continue;
			}
			vec_skip(&rd->v, n);
			advance(rd, n);
			continue;
		}
		if (x.type == VH_EXT_BACKING && rd->layer + 1 < i->nlayers && rd->pos < i->layers[rd->layer + 1]->info.bytes) {
			uint64_t left = i->layers[rd->layer + 1]->info.bytes - rd->pos;

			rd->win = rd->pos + (n < left ? n : left);
			rd->layer++;
			continue;
		}
		if (!run_emit(r, &rd->run)) /* the run's vector must not skip what follows */
			return 0;
		switch (x.type) {
		case VH_EXT_COMPRESSED:
		case VH_EXT_OPAQUE:
			rd->job = x.type == VH_EXT_OPAQUE ? JOB_OPAQUE : JOB_LOAD;
			rd->jx = x;
			rd->jn = n;
			break;
		default: /* ZERO, or past the end of the backing image */
			vec_zero(&rd->v, n);
			advance(rd, n);
		}
	}
}
