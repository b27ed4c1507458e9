/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Writing. Pure overwrites run under the shared lock and end here; as soon as a byte needs an allocation the rest of the
 * request goes on under the exclusive lock, in rounds of map, fills and data, commit (request.c leads them).
 */
#include "fmt/impl.h"

static void take_pure(struct req *r)
{
	struct fmt_queue *q = r->q;

	for (uint32_t k = 0; k < r->map.n; k++) {
		const struct vh_extent *x = &r->ext[k];
		uint64_t lo = x->pos, hi = x->pos + x->len;
		struct cache_ext c;

		if (!(x->flags & VH_EXT_CACHE) || !(x->flags & VH_EXT_PURE) || x->type != VH_EXT_DATA)
			continue;
		if (!lock_clip(q, r->map_seq, r->lk.lo, r->lk.hi, &lo, &hi))
			continue;
		c = (struct cache_ext){.pos = lo, .len = hi - lo, .addr = x->addr + (lo - x->pos), .vol = x->vol, .type = x->type,
				       .flags = x->flags & VH_EXT_CRYPT};
		cache_put(&q->wcache, &c);
	}
}

static int find_pure(struct req *r, struct cache_ext *out)
{
	if (cache_find(&r->q->wcache, r->pos, out)) {
		count(&r->q->stats.cache_hits, 1);
		return 1;
	}
	for (uint32_t k = 0; k < r->map.n; k++) {
		const struct vh_extent *x = &r->ext[k];

		if (x->type == VH_EXT_DATA && (x->flags & VH_EXT_PURE) && r->pos >= x->pos && r->pos - x->pos < x->len) {
			*out = (struct cache_ext){.pos = x->pos, .len = x->len, .addr = x->addr, .vol = x->vol,
						  .flags = x->flags & VH_EXT_CRYPT};
			return 1;
		}
	}
	return 0;
}

/* 1: known, or nothing pure there (escalate), or an error; 0: wait. */
static int ask_pure(struct req *r)
{
	int res;

	if (r->answered) {
		r->answered = 0;
		res = r->result;
	} else {
		r->map = (struct vh_map){.op = VH_MAP_WRITE, .flags = VH_MAP_OVERWRITE_ONLY, .cap = FMT_WRITE_EXT,
					 .pos = r->pos, .len = r->end - r->pos, .ext = r->ext};
		r->map_seq = r->q->inval_seq;
		res = req_map(r, r->q->image->layers[0], &r->map);
		if (res == 1)
			return 0;
	}
	if (res < 0) {
		r->map.n = 0;
		req_error(r, res);
	} else if (!r->map.n || r->ext[0].type != VH_EXT_DATA) {
		r->map.n = 0;
		r->escalate = 1;
	} else {
		take_pure(r);
	}
	return 1;
}

int write_pure_step(struct req *r)
{
	struct fmt_queue *q = r->q;
	struct fmt_layer *l = q->image->layers[0];
	uint16_t flags = r->io->flags & VH_REQ_FUA;

	for (;;) {
		struct cache_ext c;
		uint64_t off, n;

		if (r->error) {
			r->run.vq = NULL;
			return 1;
		}
		if (r->pos == r->end || r->escalate)
			return run_emit(r, &r->run);
		if (r->answered || !find_pure(r, &c)) {
			if (!ask_pure(r))
				return 0;
			continue;
		}
		off = r->pos - c.pos;
		n = c.len - off < r->end - r->pos ? c.len - off : r->end - r->pos;
		if (c.flags & VH_EXT_CRYPT) { /* parts of sectors: read and written back under the exclusive lock */
			uint64_t mask = crypt_sector(l->crypt) - 1;

			n = r->pos & mask ? 0 : n & ~mask;
			if (!n) {
				r->escalate = 1;
				continue;
			}
		}
		if (!run_add_at(&r->run, l, c.flags, r->pos, &q->vqs[l->vq_base + c.vol], VH_WRITE, flags, c.addr + off, n, &r->v)) {
			if (!run_emit(r, &r->run))
				return 0;
			continue;
		}
		vec_skip(&r->v, n);
		r->pos += n;
	}
}

/*
 * The data of one answer, group by group: extents that follow each other in the volume, with nothing to fill between
 * them, are written as one. Parts of a group: begin, head fill, tail fill, then up to three runs.
 */
enum { PART_BEGIN, PART_HEAD, PART_TAIL, PART_READY, PART_FIRST, PART_BODY, PART_LAST, PART_OPAQUE, PART_SHARE };

static int mergeable(const struct vh_extent *a, const struct vh_extent *b)
{
	return a->type == VH_EXT_DATA && b->type == VH_EXT_DATA && a->vol == b->vol && a->addr + a->len == b->addr &&
	       !a->tail && !b->head && !((a->flags ^ b->flags) & VH_EXT_CRYPT);
}

/* Fill bytes past the volume's end read as zeros anyway where growing makes zeros. */
static int grows_zero(const struct blk_vol *v, uint64_t from)
{
	return (blk_vol_info(v)->caps & VH_VOL_ZERO_ON_GROW) && from >= blk_vol_bytes(v);
}

/* Starts reading [pos, pos+len) for a fill into the buffer at `at`. */
static void fill_begin(struct req *r, uint32_t fill, uint64_t pos, uint32_t len, uint32_t at)
{
	struct fmt_layer *l = r->q->image->layers[0];
	uint64_t limit = fill == VH_FILL_COPY ? l->info.bytes : l->info.backing_bytes, n = len;
	uint8_t *p = r->buf[BUF_FILL]->p + at;
	struct vec v = {0};

	if (fill == VH_FILL_BACKING) {
		uint64_t below = r->q->image->nlayers > 1 ? r->q->image->layers[1]->info.bytes : 0;

		if (below < limit)
			limit = below;
	}
	if (pos >= limit)
		n = 0;
	else if (n > limit - pos)
		n = limit - pos;
	memset(p + n, 0, len - n);
	v.pre = (struct iovec){p, n};
	reader_init(&r->rd, fill == VH_FILL_COPY ? 0 : 1, pos, n, &v);
}

static int reads_below(uint32_t fill)
{
	return fill == VH_FILL_BACKING || fill == VH_FILL_COPY;
}

static struct iovec fill_iov(struct req *r, uint32_t fill, uint32_t len, uint32_t at)
{
	if (!len)
		return (struct iovec){NULL, 0};
	return (struct iovec){reads_below(fill) ? r->buf[BUF_FILL]->p + at : r->q->image->zeros, len};
}

static uint64_t group_len(const struct req *r)
{
	return r->ext[r->xj].pos + r->ext[r->xj].len - r->ext[r->xi].pos;
}

/* 1: goes on at once. */
static int group_begin(struct req *r)
{
	struct vh_extent *x = &r->ext[r->xi], *y;

	r->xj = r->xi;
	if (r->share) {
		r->part = PART_SHARE;
		return 1;
	}
	if (x->type == VH_EXT_OPAQUE) {
		r->part = PART_OPAQUE;
		r->olen = 0;
		return 1;
	}
	if (x->type == VH_EXT_TRIM) {
		r->part = PART_BODY;
		return 1;
	}
	while (r->xj + 1 < r->map.n && mergeable(&r->ext[r->xj], &r->ext[r->xj + 1]))
		r->xj++;
	y = &r->ext[r->xj];
	r->head = x->head;
	r->fill_head = x->fill_head;
	r->tail = y->tail;
	r->fill_tail = y->fill_tail;
	if (x->flags & VH_EXT_CRYPT) { /* the rest of sectors that are overwritten in part */
		uint64_t mask = crypt_sector(r->q->image->layers[0]->crypt) - 1;

		if (!r->head && x->pos & mask) {
			r->head = (uint32_t)(x->pos & mask);
			r->fill_head = VH_FILL_COPY;
		}
		if (!r->tail && (y->pos + y->len) & mask) {
			r->tail = (uint32_t)(-(y->pos + y->len) & mask);
			r->fill_tail = VH_FILL_COPY;
		}
	}
	r->part = PART_HEAD;
	if (!(r->head && reads_below(r->fill_head)) && !(r->tail && reads_below(r->fill_tail))) {
		r->part = PART_READY;
		return 1;
	}
	if (r->nsubs) { /* the buffer may still be on its way to the volume */
		r->part = PART_BEGIN;
		return 0;
	}
	if (!buf_get(r, BUF_FILL)) {
		r->part = PART_BEGIN;
		return 0;
	}
	r->rd.top = UINT32_MAX; /* no fill begun */
	return 1;
}

/* Head, then tail. */
static int group_fill(struct req *r)
{
	const struct vh_extent *x = &r->ext[r->part == PART_HEAD ? r->xi : r->xj];
	uint32_t fill = r->part == PART_HEAD ? r->fill_head : r->fill_tail;
	uint32_t len = r->part == PART_HEAD ? r->head : r->tail, at = r->part == PART_HEAD ? 0 : r->q->image->layers[0]->info.unit;

	if (len && reads_below(fill)) {
		if (r->rd.top == UINT32_MAX)
			fill_begin(r, fill, r->part == PART_HEAD ? x->pos - len : x->pos + x->len, len, at);
		if (!reader_step(r) || r->nsubs)
			return 0;
		r->rd.top = UINT32_MAX;
		if (r->error)
			return 1;
	}
	r->part++;
	return 1;
}

static uint16_t zero_flags(const struct req *r)
{
	return r->io->flags & VH_REQ_MAY_UNMAP;
}

/* Decides how the group is written. */
static void group_ready(struct req *r)
{
	struct fmt_image *i = r->q->image;
	struct fmt_layer *l = i->layers[0];
	struct vh_extent *x = &r->ext[r->xi], *y = &r->ext[r->xj];
	uint32_t head = r->head, tail = r->tail;
	struct fvq *f = &r->q->vqs[l->vq_base + x->vol];
	struct vec v = r->v;

	r->part = PART_LAST;
	if (x->flags & VH_EXT_CRYPT) { /* whole sectors as one piece; zeros are encrypted like anything else */
		if (r->zero_src)
			v = (struct vec){.zeros = i};
		v.left = group_len(r);
		v.pre = fill_iov(r, r->fill_head, head, 0);
		v.post = fill_iov(r, r->fill_tail, tail, l->info.unit);
		run_add_at(&r->run, l, x->flags, x->pos - head, f, VH_WRITE, 0, x->addr - head, head + v.left + tail, &v);
		return;
	}
	if (head && r->fill_head == VH_FILL_ZERO && grows_zero(l->vols[x->vol], x->addr - head))
		head = 0;
	if (tail && r->fill_tail == VH_FILL_ZERO && grows_zero(l->vols[x->vol], y->addr + y->len))
		tail = 0;
	if (!r->zero_src) {
		v.left = group_len(r);
		v.pre = fill_iov(r, r->fill_head, head, 0);
		v.post = fill_iov(r, r->fill_tail, tail, l->info.unit);
		run_add(&r->run, f, VH_WRITE, 0, x->addr - head, head + v.left + tail, &v);
		return;
	}
	if (!(head && reads_below(r->fill_head)) && !(tail && reads_below(r->fill_tail))) {
		run_add(&r->run, f, VH_ZERO, zero_flags(r), x->addr - head, head + group_len(r) + tail, &v);
		return;
	}
	r->part = PART_FIRST;
	memset(&v, 0, sizeof(v));
	v.pre = fill_iov(r, r->fill_head, head, 0);
	if (head)
		run_add(&r->run, f, VH_WRITE, 0, x->addr - head, head, &v);
}

/* The runs that follow the first one. 1: the group is done. */
static int group_go_on(struct req *r)
{
	struct fmt_layer *l = r->q->image->layers[0];
	struct vh_extent *x = &r->ext[r->xi], *y = &r->ext[r->xj];
	uint32_t vol = x->type == VH_EXT_TRIM && !x->bytes ? 0 : x->vol;
	struct fvq *f = &r->q->vqs[l->vq_base + vol];
	struct vec v = {0};

	switch (r->part) {
	case PART_FIRST: /* the head is out: the zeros between */
		run_add(&r->run, f, VH_ZERO, zero_flags(r), x->addr, group_len(r), &v);
		r->part = PART_BODY;
		return 0;
	case PART_BODY:
		r->part = PART_LAST;
		if (x->type == VH_EXT_TRIM) {
			/* Until the unlinking is durable a crash brings the old mapping back, and of a hole it makes garbage, not
			 * zeros, where what is read is decrypted. Discards promise nothing. */
			int punch = x->bytes && !(l->crypt && r->op != VH_DISCARD);

			if (punch && (blk_vol_info(l->vols[vol])->caps & VH_VOL_DISCARD))
				run_add(&r->run, f, VH_DISCARD, 0, x->addr, x->bytes, &v);
		} else if (r->tail) {
			v.pre = fill_iov(r, r->fill_tail, r->tail, l->info.unit);
			run_add(&r->run, f, VH_WRITE, 0, y->addr + y->len, r->tail, &v);
		}
		return 0;
	default:
		if (!r->zero_src)
			vec_skip(&r->v, group_len(r));
		r->data_n = r->xi = r->xj + 1;
		r->part = PART_BEGIN;
		return 1;
	}
}

static void write_on_worker(struct meta_item *m)
{
	struct req *r = container_of(m, struct req, item);
	struct fmt_layer *l = r->item_layer;
	int res;

	if (l->lock_core)
		pthread_rwlock_wrlock(&l->lock);
	res = l->ops->write(l->img, &r->oreq);
	if (l->lock_core)
		pthread_rwlock_unlock(&l->lock);
	if (!res)
		__atomic_add_fetch(&l->image->commit_seq, 1, __ATOMIC_SEQ_CST);
	req_answer(r, res > 0 ? -EIO : res);
}

/* 0: wait; 1: the piece is written, or it failed. */
static int opaque_step(struct req *r)
{
	struct fmt_image *i = r->q->image;
	struct vh_extent *x = &r->ext[r->xi];
	uint64_t n = x->len - r->olen;
	uint32_t segs = 0;

	if (r->nsubs)
		return 0;
	if (r->answered) {
		r->answered = 0;
		if (r->result < 0)
			req_error(r, r->result);
		r->olen += r->oreq.len;
	} else {
		if (r->zero_src) {
			if (n > i->zeros_bytes)
				n = i->zeros_bytes;
			r->own.iov[segs++] = (struct iovec){i->zeros, n};
		} else {
			n = vec_take(&r->v, n, r->own.iov, FMT_SUB_IOV, &segs);
		}
		if (!n) {
			req_error(r, -EINVAL);
			return 1;
		}
		r->oreq = (struct vh_req){.size = sizeof(r->oreq), .op = VH_WRITE, .off = x->pos + r->olen, .len = n,
					  .iov = r->own.iov, .niov = segs};
		req_call(r, i->layers[0], write_on_worker, META_MAP);
		return 0;
	}
	if (!r->error && r->olen == x->len) {
		r->xi++;
		r->part = PART_BEGIN;
	}
	return 1;
}

int write_data_step(struct req *r)
{
	for (;;) {
		if (r->error) {
			r->run.vq = NULL;
			r->answered = 0;
			return 1;
		}
		if (!run_emit(r, &r->run))
			return 0;
		if (r->xi == r->map.n)
			return 1;
		switch (r->part) {
		case PART_BEGIN:
			if (!group_begin(r))
				return 0;
			break;
		case PART_HEAD:
		case PART_TAIL:
			if (!group_fill(r))
				return 0;
			break;
		case PART_READY:
			group_ready(r);
			break;
		case PART_OPAQUE:
			if (!opaque_step(r))
				return 0;
			break;
		case PART_SHARE:
			if (!share_step(r))
				return 0;
			break;
		default:
			group_go_on(r);
		}
	}
}
