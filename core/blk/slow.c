/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Requests that one unit cannot do: misaligned offsets or buffers, more than the limits allow, past the end, zeros that the
 * volume cannot make, FUA that it does not have. A queue has a fixed set of contexts with a bounce buffer each; requests
 * wait for one in order. A context does its request piece by piece, one unit at a time.
 */
#include <string.h>
#include <sys/mman.h>
#include "blk/blk-i.h"

enum phase { P_READ, P_HEAD, P_TAIL, P_WRITE, P_ZERO, P_DISCARD, P_FLUSH };

#define SLOT_BYTES (BLK_BOUNCE + BLK_IOV_MAX * sizeof(struct iovec))
#define ZERO_STEP (1u << 20)

static void slow_next(struct blk_slow *s);
static void slow_begin(struct blk_slow *s);

static uint8_t *zeros;

static void zeros_init(void)
{
	uint8_t *p = mmap(NULL, BLK_BOUNCE + BLK_ALIGN_MAX, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (p != MAP_FAILED)
		zeros = (uint8_t *)(((uintptr_t)p + BLK_ALIGN_MAX - 1) & ~(uintptr_t)(BLK_ALIGN_MAX - 1));
}

/* Never written to, so it costs no memory but the kernel's own zero page. */
const void *blk_zeros(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;

	pthread_once(&once, zeros_init);
	return zeros;
}

/* ---- the cursor into the request's iovecs ---- */

static void cursor_forward(struct blk_slow *s, uint64_t n)
{
	const struct blk_io *io = s->io;

	s->pos += n;
	if (io->op > VH_WRITE)
		return;
	while (n && s->idx < io->niov) {
		uint64_t left = io->iov[s->idx].iov_len - s->at;

		if (n < left) {
			s->at += n;
			return;
		}
		n -= left;
		s->idx++;
		s->at = 0;
	}
}

/* Copies between the request's buffers at the cursor and buf; buf NULL with to_user: zeros. */
static void cursor_copy(const struct blk_slow *s, uint8_t *buf, uint64_t n, int to_user)
{
	const struct iovec *iov = s->io->iov;
	unsigned i = s->idx;
	size_t at = s->at;

	for (; n && i < s->io->niov; i++, at = 0) {
		size_t k = iov[i].iov_len - at < n ? iov[i].iov_len - at : n;
		uint8_t *user = (uint8_t *)iov[i].iov_base + at;

		if (!to_user)
			memcpy(buf, user, k);
		else if (buf)
			memcpy(user, buf, k);
		else
			memset(user, 0, k);
		if (buf)
			buf += k;
		n -= k;
	}
}

/* Whether what follows may go to and from the request's buffers as it lies there: those begin at good addresses, but a request
 * whose offset is no whole block leaves the cursor between them. */
static int cursor_aligned(const struct blk_slow *s)
{
	const struct blk_vol *v = s->q->v;
	unsigned i = s->idx;
	size_t at = s->at;

	for (; i < s->io->niov && at == s->io->iov[i].iov_len; i++)
		at = 0;
	return s->aligned && (i == s->io->niov || !((((uintptr_t)s->io->iov[i].iov_base + at) & v->buf_mask) | (at & v->len_mask)));
}

/* Fills s->iov with the request's buffers from the cursor on; returns the bytes, at most max. */
static uint64_t cursor_slice(struct blk_slow *s, uint64_t max, uint32_t *niov)
{
	const struct iovec *iov = s->io->iov;
	uint64_t sum = 0;
	unsigned i = s->idx, n = 0;
	size_t at = s->at;

	for (; i < s->io->niov && n < s->q->v->max_segments && sum < max; i++, at = 0) {
		size_t k = iov[i].iov_len - at;

		if (!k)
			continue;
		if (k > max - sum)
			k = max - sum;
		s->iov[n++] = (struct iovec){(uint8_t *)iov[i].iov_base + at, k};
		sum += k;
	}
	*niov = n;
	return sum;
}

/* ---- life of a context ---- */

static void slow_done(struct blk_slow *s, int res)
{
	struct blk_vq *q = s->q;
	struct blk_io *io = s->io;

	if (io->op != VH_READ)
		blk_modify_end(q, &s->range);
	s->io = NULL;
	if (q->slow_head) {
		struct blk_io *w = q->slow_head;

		q->slow_head = w->next;
		if (!q->slow_head)
			q->slow_tail = &q->slow_head;
		w->next = NULL;
		s->io = w;
		s->grown = 0;
		loop_defer(q->loop, &s->task);
	} else {
		s->next = q->slow_free;
		q->slow_free = s;
	}
	io->done(io, res);
}

static void issue(struct blk_slow *s, enum phase p, uint16_t op, uint16_t flags, uint64_t off, uint64_t len,
		  const struct iovec *iov, uint32_t niov);

static void slow_flush(struct blk_slow *s)
{
	issue(s, P_FLUSH, VH_FLUSH, 0, 0, 0, NULL, 0);
}

/* All data is where it belongs. */
static void slow_data_done(struct blk_slow *s)
{
	struct blk_vol *v = s->q->v;
	int native = s->io->op == VH_WRITE ? v->unit_flags & VH_REQ_FUA : v->fd < 0 && v->caps & VH_VOL_FUA && v->caps & VH_VOL_ZERO;

	if (s->io->op == VH_READ && s->lim < s->io->len) {
		cursor_copy(s, NULL, s->io->len - s->lim, 1);
		slow_done(s, 0);
	} else if (s->io->op != VH_READ && s->io->flags & VH_REQ_FUA && !native && v->caps & (VH_VOL_FLUSH | VH_VOL_WRITE_CACHE)) {
		slow_flush(s);
	} else {
		slow_done(s, 0);
	}
}

/* One block, or several, were moved to or from s->bounce; short by `got`. */
static int bounce_more(struct blk_slow *s, int res)
{
	struct blk_vol *v = s->q->v;
	struct blk_unit *u = &s->u;
	uint64_t step = (uint64_t)res & ~v->len_mask;

	if (res == (int)u->len)
		return 0;
	if (u->op == VH_WRITE) {
		if (!step)
			return -ENOSPC;
	} else if (!step) { /* the end of the file */
		memset((uint8_t *)u->iov->iov_base + res, 0, u->len - (uint64_t)res);
		return 0;
	}
	s->one = (struct iovec){(uint8_t *)u->iov->iov_base + step, u->len - step};
	issue(s, s->phase, u->op, u->flags, u->off + step, u->len - step, &s->one, 1);
	return 1;
}

static void bounce_io(struct blk_slow *s, enum phase p, uint16_t op, uint64_t off, uint64_t len)
{
	uint16_t flags = op == VH_WRITE ? s->io->flags & s->q->v->unit_flags : 0;

	s->one = (struct iovec){s->bounce + (off - s->a), len};
	issue(s, p, op, flags, off, len, &s->one, 1);
}

static void merge_and_write(struct blk_slow *s)
{
	uint64_t first = s->io->off + s->pos - s->a;

	if (s->io->op == VH_WRITE)
		cursor_copy(s, s->bounce + first, s->chunk, 0);
	else
		memset(s->bounce + first, 0, s->chunk);
	bounce_io(s, P_WRITE, VH_WRITE, s->a, s->b - s->a);
}

static void read_tail(struct blk_slow *s)
{
	struct blk_vol *v = s->q->v;
	uint64_t block = v->len_mask + 1, end = s->io->off + s->pos + s->chunk;

	/* The last block, unless the first one was the same. */
	if (end != s->b && (s->b - s->a > block || s->io->off + s->pos == s->a))
		bounce_io(s, P_TAIL, VH_READ, s->b - block, block);
	else
		merge_and_write(s);
}

static void unit_end(struct blk_unit *u, int res)
{
	struct blk_slow *s = container_of(u, struct blk_slow, u);
	struct blk_vol *v = s->q->v;
	int r;

	if (res < 0) {
		if (s->phase == P_ZERO && res == -EOPNOTSUPP && !(s->io->flags & VH_REQ_FAST_ONLY)) {
			atomic_store(&v->no_zero, 1);
			slow_next(s);
		} else if (s->phase == P_DISCARD && res == -EOPNOTSUPP) {
			slow_done(s, 0);
		} else {
			if (s->phase == P_FLUSH && !u->dropped)
				blk_latch(v, res);
			slow_done(s, res);
		}
		return;
	}
	switch ((enum phase)s->phase) {
	case P_READ:
	case P_WRITE:
		if (s->direct) {
			uint64_t step = (uint64_t)res & ~v->len_mask;

			if ((uint64_t)res == u->len)
				step = u->len;
			if (!step) {
				if (u->op == VH_WRITE) {
					slow_done(s, -ENOSPC);
					return;
				}
				/* The file is shorter than the volume says. */
				cursor_forward(s, (uint64_t)res);
				step = u->len - (uint64_t)res;
				cursor_copy(s, NULL, step, 1);
			}
			cursor_forward(s, step);
			slow_next(s);
			return;
		}
		r = bounce_more(s, res);
		if (r) {
			if (r < 0)
				slow_done(s, r);
			return;
		}
		if (u->op == VH_READ)
			cursor_copy(s, s->bounce + (s->io->off + s->pos - s->a), s->chunk, 1);
		cursor_forward(s, s->chunk);
		slow_next(s);
		return;
	case P_HEAD:
	case P_TAIL:
		r = bounce_more(s, res);
		if (r) {
			if (r < 0)
				slow_done(s, r);
		} else if (s->phase == P_HEAD) {
			read_tail(s);
		} else {
			merge_and_write(s);
		}
		return;
	case P_ZERO:
	case P_DISCARD:
		cursor_forward(s, u->len);
		slow_next(s);
		return;
	case P_FLUSH:
		slow_done(s, 0);
	}
}

static void issue(struct blk_slow *s, enum phase p, uint16_t op, uint16_t flags, uint64_t off, uint64_t len,
		  const struct iovec *iov, uint32_t niov)
{
	s->phase = (uint8_t)p;
	s->u = (struct blk_unit){.end = unit_end, .op = op, .flags = flags, .off = off, .len = len, .iov = iov, .niov = niov};
	blk_push(s->q, &s->u);
}

static uint64_t min64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

/* Zeros that are written: whole blocks from the zero page, a part of a block by read, merge, write. */
static int zero_by_write(struct blk_slow *s, uint64_t p, uint64_t left)
{
	struct blk_vol *v = s->q->v;
	uint64_t n = min64(min64(left & ~v->len_mask, v->max_bytes), ZERO_STEP), sum = 0;
	uint32_t k = 0;

	if (p & v->len_mask || !n)
		return 0;
	for (; sum < n && k < v->max_segments; k++) {
		uint64_t len = min64(n - sum, BLK_BOUNCE);

		s->iov[k] = (struct iovec){(void *)(uintptr_t)blk_zeros(), len};
		sum += len;
	}
	s->direct = 1;
	issue(s, P_WRITE, VH_WRITE, s->io->flags & v->unit_flags, p, sum, s->iov, k);
	return 1;
}

static int zero_native(struct blk_slow *s, uint64_t p, uint64_t left)
{
	struct blk_vol *v = s->q->v;
	uint16_t flags = s->io->flags & (VH_REQ_MAY_UNMAP | (v->caps & VH_VOL_FAST_ZERO ? VH_REQ_FAST_ONLY : 0) |
					 (v->fd < 0 && v->caps & VH_VOL_FUA ? VH_REQ_FUA : 0));
	uint64_t n = left & ~v->len_mask;

	if (!(v->caps & VH_VOL_ZERO) || atomic_load_explicit(&v->no_zero, memory_order_relaxed) || p & v->len_mask || !n)
		return 0;
	if (v->info.max_zero)
		n = min64(n, v->info.max_zero);
	issue(s, P_ZERO, VH_ZERO, flags, p, n, NULL, 0);
	return 1;
}

/* The next piece of the request. */
static void slow_next(struct blk_slow *s)
{
	struct blk_vol *v = s->q->v;
	struct blk_io *io = s->io;
	uint64_t p = io->off + s->pos, left = s->lim - s->pos, room, max;

	s->direct = 0;
	if (!left) {
		slow_data_done(s);
		return;
	}
	if (io->op == VH_DISCARD) {
		max = v->info.max_discard ? v->info.max_discard : left;
		issue(s, P_DISCARD, VH_DISCARD, 0, p, min64(left, max), NULL, 0);
		return;
	}
	if (io->op == VH_ZERO && (zero_native(s, p, left) || zero_by_write(s, p, left)))
		return;
	if (io->op <= VH_WRITE && !(p & v->len_mask) && left & ~v->len_mask && cursor_aligned(s)) {
		uint32_t niov;
		uint64_t n = cursor_slice(s, min64(left & ~v->len_mask, v->max_bytes), &niov);

		s->direct = 1;
		issue(s, io->op == VH_READ ? P_READ : P_WRITE, io->op, io->op == VH_WRITE ? io->flags & v->unit_flags : 0, p, n,
		      s->iov, niov);
		return;
	}
	s->a = p & ~v->len_mask;
	room = min64(BLK_BOUNCE, v->max_bytes);
	max = io->op == VH_ZERO ? v->len_mask + 1 : room; /* zeros: only the block that is not whole */
	s->chunk = min64(left, s->a + max - p);
	s->b = (p + s->chunk + v->len_mask) & ~v->len_mask;
	if (io->op == VH_READ)
		bounce_io(s, P_READ, VH_READ, s->a, s->b - s->a);
	else if (p != s->a)
		bounce_io(s, P_HEAD, VH_READ, s->a, v->len_mask + 1);
	else
		read_tail(s);
}

static void granted(struct blk_range *r)
{
	slow_next(container_of(r, struct blk_slow, range));
}

/* Discard is advisory: only whole granules inside the volume. */
static int discard_clip(struct blk_slow *s)
{
	struct blk_vol *v = s->q->v;
	uint64_t gran = v->info.discard_gran > v->len_mask + 1 ? v->info.discard_gran : v->len_mask + 1;
	uint64_t first = v->info.discard_align % gran, end = s->io->off + s->lim, off = s->io->off, cut;

	if (!(v->caps & VH_VOL_DISCARD) || atomic_load_explicit(&v->no_discard, memory_order_relaxed))
		return 0;
	cut = (off + gran - first) % gran;
	if (cut)
		off += gran - cut;
	cut = (end + gran - first) % gran;
	if (off >= end || end - off < cut || end - cut <= off)
		return 0;
	s->pos = off - s->io->off;
	s->lim = end - cut - s->io->off;
	return 1;
}

static void slow_begin(struct blk_slow *s)
{
	struct blk_vol *v = s->q->v;
	struct blk_io *io = s->io;
	uint64_t bytes = atomic_load_explicit(&v->bytes, memory_order_relaxed), end = io->off + io->len, bits = 0;
	int exclusive;

	s->pos = s->idx = s->at = 0;
	s->lim = end <= bytes ? io->len : bytes > io->off ? bytes - io->off : 0;
	s->range.state = RANGE_NONE;
	s->aligned = 1;
	if (io->op <= VH_WRITE) {
		for (uint32_t i = 0; i < io->niov; i++)
			bits |= ((uintptr_t)io->iov[i].iov_base & v->buf_mask) | (io->iov[i].iov_len & v->len_mask);
		s->aligned = !bits;
	}
	if (io->op == VH_READ) {
		slow_next(s);
		return;
	}
	s->q->wrote = 1;
	if (io->op == VH_DISCARD) {
		if (!discard_clip(s)) {
			slow_done(s, 0);
			return;
		}
	} else if (s->lim < io->len) {
		if (s->grown || !(v->caps & VH_VOL_GROW)) {
			slow_done(s, -ENOSPC);
			return;
		}
		blk_grow(s, end);
		return;
	} else if (io->op == VH_ZERO && io->flags & VH_REQ_FAST_ONLY &&
		   (!(v->caps & VH_VOL_FAST_ZERO) || atomic_load_explicit(&v->no_zero, memory_order_relaxed))) {
		slow_done(s, -EOPNOTSUPP);
		return;
	}
	s->range.granted = granted;
	exclusive = io->op != VH_DISCARD && (io->off | io->len) & v->len_mask;
	if (exclusive ? blk_range_begin(v, s->q, &s->range, io->off & ~v->len_mask, (end + v->len_mask) & ~v->len_mask, 1)
		      : blk_modify_begin(s->q, &s->range, io->off, end))
		slow_next(s);
}

void blk_slow_grown(struct blk_slow *s, int res)
{
	s->grown = 1;
	if (res < 0)
		slow_done(s, res);
	else
		slow_begin(s);
}

static void begin_fn(struct vh_task *t)
{
	slow_begin(container_of(t, struct blk_slow, task));
}

void blk_slow_start(struct blk_vq *q, struct blk_io *io)
{
	struct blk_slow *s = q->slow_free;

	io->next = NULL;
	if (!s || q->slow_head) {
		*q->slow_tail = io;
		q->slow_tail = &io->next;
		return;
	}
	q->slow_free = s->next;
	s->io = io;
	s->grown = 0;
	/* Some requests end without any unit: not within blk_submit. */
	loop_defer(q->loop, &s->task);
}

int blk_slow_init(struct blk_vq *q, struct vh_err *e)
{
	size_t table = (BLK_SLOW * sizeof(struct blk_slow) + 4095) & ~(size_t)4095;
	uint8_t *p;

	if (!blk_zeros())
		return err_set(e, -ENOMEM, "no memory for zeros");
	/* Bounce buffers come first, for their alignment; pages are only taken when touched. */
	p = mmap(NULL, BLK_SLOW * SLOT_BYTES + table + BLK_ALIGN_MAX, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return err_set(e, -ENOMEM, "no memory for bounce buffers");
	q->slow_mem = p;
	p = (uint8_t *)(((uintptr_t)p + BLK_ALIGN_MAX - 1) & ~(uintptr_t)(BLK_ALIGN_MAX - 1));
	q->slow_all = (struct blk_slow *)(p + BLK_SLOW * SLOT_BYTES);
	for (unsigned i = 0; i < BLK_SLOW; i++) {
		struct blk_slow *s = &q->slow_all[i];

		s->q = q;
		s->bounce = p + i * BLK_BOUNCE;
		s->iov = (struct iovec *)(p + BLK_SLOW * BLK_BOUNCE) + i * BLK_IOV_MAX;
		s->task.fn = begin_fn;
		s->next = q->slow_free;
		q->slow_free = s;
	}
	return 0;
}

void blk_slow_fini(struct blk_vq *q)
{
	size_t table = (BLK_SLOW * sizeof(struct blk_slow) + 4095) & ~(size_t)4095;

	if (!q->slow_mem)
		return;
	for (unsigned i = 0; i < BLK_SLOW; i++)
		loop_cancel(q->loop, &q->slow_all[i].task);
	munmap(q->slow_mem, BLK_SLOW * SLOT_BYTES + table + BLK_ALIGN_MAX);
}
