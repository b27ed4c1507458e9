/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Room in the file of a sparse extent. The format has no record of what is free, so before the first change all tables are
 * read, and what they and the header do not name is free: the lowest place is taken first, then the file grows. A grain that
 * was freed goes through three lists (freed, unlinked, written) until a flush of the volume has made the unlink durable.
 */
#include <stdio.h>
#include <sys/random.h>
#include "vmdk.h"

int list_reserve(struct list *l, uint64_t more)
{
	uint64_t cap = l->cap ? l->cap : 64, *v;

	if (l->n + more <= l->cap)
		return 0;
	while (cap < l->n + more)
		cap *= 2;
	v = realloc(l->v, cap * sizeof(*v));
	if (!v)
		return -ENOMEM;
	l->v = v;
	l->cap = cap;
	return 0;
}

static int bit(const struct extent *x, uint64_t s)
{
	return s < x->nbits && (x->bits[s / 64] >> (s % 64) & 1);
}

/* Grains lie below sector 2^32. With grains of 4 KiB, the smallest in use, that is 64 MiB of bits; a file that is huge by name
 * with smaller ones gets no more. */
#define SLOTS_MAX (UINT64_C(1) << 29)

/* Slots [0, n) exist. */
static int bits_reserve(struct extent *x, uint64_t n)
{
	uint64_t words = DIV_UP(n, 64), cap = x->cap ? x->cap : 64, *b;

	if (n > SLOTS_MAX)
		return -EFBIG;
	if (n > x->nbits && words > x->cap) {
		while (cap < words)
			cap *= 2;
		b = realloc(x->bits, cap * 8);
		if (!b)
			return -ENOMEM;
		memset(b + x->cap, 0, (cap - x->cap) * 8);
		x->bits = b;
		x->cap = cap;
	}
	if (n > x->nbits) {
		x->nfree += n - x->nbits;
		x->nbits = n;
	}
	return 0;
}

static void bit_set(struct extent *x, uint64_t s)
{
	if (!bit(x, s))
		x->nfree--;
	x->bits[s / 64] |= UINT64_C(1) << (s % 64);
}

/* Every slot that [sector, sector+n) touches is taken. Returns 1 when one of them was before. */
static int mark(struct extent *x, uint64_t sector, uint64_t n, int *r)
{
	uint64_t lo, hi;
	int was = 0;

	if (*r < 0 || sector + n <= x->phase)
		return 0;
	lo = sector > x->phase ? (sector - x->phase) / x->grain : 0;
	hi = DIV_UP(sector + n - x->phase, x->grain);
	*r = bits_reserve(x, hi);
	for (uint64_t s = lo; s < hi && *r >= 0; s++) {
		was |= bit(x, s);
		bit_set(x, s);
	}
	return was;
}

void space_reset(struct extent *x)
{
	free(x->bits);
	x->bits = NULL;
	x->nbits = x->cap = x->nfree = x->hint = x->tab_at = x->tab_left = 0;
	x->freed.n = x->unlinked.n = x->written.n = x->held.n = 0;
	x->ready = x->damaged = 0;
}

static int mark_metadata(struct extent *x)
{
	uint64_t gd = DIV_UP((uint64_t)x->ngd * 4, SECTOR), first = UINT64_MAX;
	int r = 0;

	x->phase = x->overhead % x->grain;
	if (x->overhead && x->overhead <= x->end)
		mark(x, 0, x->overhead, &r);
	else
		mark(x, 0, 1, &r);
	if (r >= 0 && x->desc_at && x->desc_at < x->end)
		mark(x, x->desc_at, x->desc_size, &r);
	if (r >= 0 && x->gd_at)
		mark(x, x->gd_at, gd, &r);
	if (r >= 0 && x->rgd_at)
		mark(x, x->rgd_at, gd, &r);
	for (uint32_t k = 0; k < x->ngd && r >= 0; k++) {
		if (x->gd[k] && x->gd[k] < x->end)
			mark(x, x->gd[k], x->gt_sectors, &r);
		if (r >= 0 && x->rgd && x->rgd[k] && x->rgd[k] < x->end)
			mark(x, x->rgd[k], x->gt_sectors, &r);
	}
	/* An extent that says nothing of its overhead keeps what lies before its first table. */
	for (uint32_t k = 0; k < x->ngd && !x->overhead; k++)
		first = x->gd[k] ? MIN(first, x->gd[k]) : first;
	if (r >= 0 && first != UINT64_MAX)
		mark(x, 0, MIN(first, x->end), &r);
	return r;
}

/* Both copies of some tables: the redundant one is made like the first, should a crash have come between them. */
static int bring_in_step(struct extent *x, uint32_t k, uint32_t n, const uint8_t *raw, uint8_t *other)
{
	uint64_t each = x->gt_sectors * SECTOR;
	int r = tables_read(x, x->rgd, k, n, other);

	for (uint32_t j = 0; j < n && r >= 0; j++)
		if (x->rgd[k + j] && x->gd[k + j] && memcmp(raw + j * each, other + j * each, each))
			r = x->img->ops->write(x->v, raw + j * each, each, (uint64_t)x->rgd[k + j] * SECTOR);
	return r;
}

static int directory_write(struct extent *x, const uint32_t *dir, uint64_t at)
{
	uint64_t n = ROUND_UP((uint64_t)x->ngd * 4, SECTOR);
	uint8_t *raw = calloc(1, n);
	int r = raw ? x->img->ops->flush(x->v) : -ENOMEM;

	for (uint32_t k = 0; k < x->ngd && raw; k++)
		put32(raw + (size_t)k * 4, dir[k]);
	if (r >= 0)
		r = x->img->ops->write(x->v, raw, n, at * SECTOR);
	free(raw);
	return r;
}

/* After a crash: the first directory counts, also where the other one was written and it was not, or the reverse. */
static int forget_unpublished(struct extent *x)
{
	int any = 0;

	for (uint32_t k = 0; x->unclean && x->rgd && k < x->ngd; k++) {
		any |= !x->gd[k] != !x->rgd[k];
		if (!x->gd[k])
			x->rgd[k] = 0;
	}
	return any;
}

static int add_copies(struct extent *x)
{
	uint64_t n = x->gt_sectors * SECTOR, at;
	uint8_t *raw = malloc(n);
	int r = raw ? 0 : -ENOMEM;

	for (uint32_t k = 0; k < x->ngd && r >= 0; k++) {
		if (!x->gd[k] || x->rgd[k])
			continue;
		r = tables_read(x, x->gd, k, 1, raw);
		if (r < 0)
			break;
		pthread_mutex_lock(&x->img->lock);
		r = space_take_tables(x, x->gt_sectors, &at);
		pthread_mutex_unlock(&x->img->lock);
		if (r >= 0)
			r = x->img->ops->write(x->v, raw, n, at * SECTOR);
		if (r >= 0)
			x->rgd[k] = (uint32_t)at;
	}
	free(raw);
	return r < 0 ? r : directory_write(x, x->rgd, x->rgd_at);
}

/* Some grains lie across slots: whether any of them shares bytes with anything, sector by sector. 1: yes. */
static int overlaps(struct extent *x)
{
	uint64_t each = x->gt_sectors * SECTOR, gd = DIV_UP((uint64_t)x->ngd * 4, SECTOR);
	uint8_t *raw = malloc(each);
	struct bitmap b = {0};
	int r = raw ? bitmap_init(&b, 1, 0, MIN(x->end, FILE_SECTORS)) : -ENOMEM, was = 0;

	if (r >= 0) {
		bitmap_mark(&b, 0, x->overhead && x->overhead <= x->end ? x->overhead : 1);
		bitmap_mark(&b, x->desc_at, x->desc_size);
		bitmap_mark(&b, x->gd_at, gd);
		bitmap_mark(&b, x->rgd_at, x->rgd ? gd : 0);
	}
	for (uint32_t k = 0; k < x->ngd && r >= 0; k++) {
		if (x->gd[k])
			bitmap_mark(&b, x->gd[k], x->gt_sectors);
		if (x->rgd && x->rgd[k])
			bitmap_mark(&b, x->rgd[k], x->gt_sectors);
	}
	for (uint32_t k = 0; k < x->ngd && r >= 0 && !was; k++) {
		r = x->gd[k] ? tables_read(x, x->gd, k, 1, raw) : 0;
		for (uint32_t i = 0; i < x->gtes && r >= 0 && x->gd[k]; i++) {
			uint64_t g = get32(raw + (size_t)i * 4);

			if (g != GTE_NONE && !(g == GTE_ZERO && x->zero_gte))
				was |= bitmap_mark(&b, g, x->grain);
		}
	}
	free(b.bits);
	free(raw);
	return r < 0 ? r : was;
}

static int scan(struct extent *x)
{
	uint64_t each = x->gt_sectors * SECTOR, room = each * MIN(TABLES_AT_ONCE, MAX(1, (1u << 20) / each));
	uint32_t at_once = (uint32_t)(room / each);
	uint8_t *raw = malloc(2 * room);
	int odd = forget_unpublished(x), r = raw ? mark_metadata(x) : -ENOMEM;

	for (uint32_t k = 0, n; k < x->ngd && r >= 0; k += n) {
		n = 1;
		if (!x->gd[k])
			continue;
		while (n < at_once && k + n < x->ngd && x->gd[k + n])
			n++;
		r = tables_read(x, x->gd, k, n, raw);
		if (r >= 0 && x->unclean && x->rgd)
			r = bring_in_step(x, k, n, raw, raw + room);
		for (uint32_t j = 0; j < n && r >= 0; j++) {
			for (uint32_t i = 0; i < x->gtes && r >= 0; i++) {
				uint64_t g = get32(raw + j * each + (size_t)i * 4);

				if (g == GTE_NONE || (g == GTE_ZERO && x->zero_gte))
					continue;
				if (!entry_ok(x, g))
					x->damaged = 1;
				else if ((g - x->phase) % x->grain)
					odd |= (mark(x, g, x->grain, &r), 2);
				else if (mark(x, g, x->grain, &r))
					odd |= 4;
			}
		}
	}
	free(raw);
	if (odd & 4 && !(odd & 2)) /* two grains in one slot, all of them in slots */
		x->damaged = 1;
	if (r >= 0 && odd & 2 && !x->damaged) {
		r = overlaps(x);
		x->damaged = r > 0;
	}
	if (r >= 0 && odd & 1 && !x->damaged)
		r = add_copies(x);
	return r;
}

int header_write(struct extent *x)
{
	int r = x->img->ops->write(x->v, x->header, SECTOR, 0);

	return r < 0 ? r : x->img->ops->flush(x->v);
}

int space_begin(struct extent *x, int nowait)
{
	struct image *im = x->img;
	int r = 0;

	while (x->ready == 1 && !nowait)
		pthread_cond_wait(&im->cond, &im->lock);
	if (x->ready == 2)
		return x->damaged ? -EIO : 0;
	if (nowait)
		return -EAGAIN;
	x->ready = 1;
	pthread_mutex_unlock(&im->lock);
	/* Nothing has been changed yet, so that the file is what it says. */
	r = scan(x);
	if (r >= 0 && !x->damaged && !x->marked) {
		x->header[HDR_UNCLEAN] = 1;
		r = header_write(x);
		if (r < 0)
			x->header[HDR_UNCLEAN] = x->unclean;
	}
	pthread_mutex_lock(&im->lock);
	if (r < 0)
		space_reset(x);
	else if (!x->damaged) {
		x->marked = 1;
		x->unclean = 0; /* the copies are in step */
	}
	x->ready = r < 0 ? 0 : 2;
	pthread_cond_broadcast(&im->cond);
	return r < 0 ? r : x->damaged ? -EIO : 0;
}

int image_begin(struct image *im, int nowait)
{
	struct desc d = {.at = im->desc.at, .room = im->desc.room};
	const char *why;
	char hex[16];
	uint32_t cid;
	int r = 0;

	while (im->cid_state == 1 && !nowait)
		pthread_cond_wait(&im->cond, &im->lock);
	if (im->cid_state == 2)
		return 0;
	if (nowait)
		return -EAGAIN;
	im->cid_state = 1;
	pthread_mutex_unlock(&im->lock);
	if (im->desc.text && im->desc.has_cid) {
		do {
			if (getrandom(&cid, sizeof(cid), 0) != sizeof(cid))
				cid = im->desc.cid + 1;
		} while (cid >= CID_NONE - 1 || cid == im->desc.cid);
		snprintf(hex, sizeof(hex), "%08x", cid);
		r = desc_parse(&d, im->desc.text, im->desc.len, &why);
		if (r >= 0)
			r = desc_set(&d, "CID", hex, 0, "version");
		/* Whoever made an image over this one must see that it changed: the new id is durable before the first byte. */
		if (r >= 0)
			r = desc_write(im, &d, NULL);
		desc_free(&d);
	}
	pthread_mutex_lock(&im->lock);
	im->cid_state = r < 0 ? 0 : 2;
	pthread_cond_broadcast(&im->cond);
	return r < 0 ? r : 0;
}

/* The first sector of the lowest free slot. */
int space_take(struct extent *x, uint64_t *sector)
{
	uint64_t s = x->hint;

	if (x->nfree) {
		while (s < x->nbits) {
			uint64_t w = ~x->bits[s / 64] >> (s % 64);

			if (w) {
				s += (uint64_t)__builtin_ctzll(w);
				break;
			}
			s = (s / 64 + 1) * 64;
		}
		s = MIN(s, x->nbits);
	} else {
		s = x->nbits;
	}
	if (x->phase + (s + 1) * x->grain > FILE_SECTORS)
		return -ENOSPC;
	if (bits_reserve(x, s + 1) < 0)
		return -ENOMEM;
	bit_set(x, s);
	x->hint = s + 1;
	*sector = x->phase + s * x->grain;
	if (x->end < *sector + x->grain)
		__atomic_store_n(&x->end, *sector + x->grain, __ATOMIC_RELAXED); /* tables are read without the lock */
	return 0;
}

/* A grain that lies across slots is left alone until the tables are read again. */
void space_give(struct extent *x, uint64_t sector)
{
	uint64_t s = (sector - x->phase) / x->grain;

	if (sector < x->phase || (sector - x->phase) % x->grain || !bit(x, s))
		return;
	x->bits[s / 64] &= ~(UINT64_C(1) << (s % 64));
	x->nfree++;
	x->hint = MIN(x->hint, s);
}

int space_take_tables(struct extent *x, uint64_t sectors, uint64_t *sector)
{
	uint64_t n = DIV_UP(sectors, x->grain), s = x->nbits;

	if (x->tab_left < sectors) {
		if (x->phase + (s + n) * x->grain > FILE_SECTORS)
			return -ENOSPC;
		if (bits_reserve(x, s + n) < 0)
			return -ENOMEM;
		for (uint64_t k = 0; k < n; k++)
			bit_set(x, s + k);
		x->tab_at = x->phase + s * x->grain;
		x->tab_left = n * x->grain;
		if (x->end < x->tab_at + x->tab_left)
			__atomic_store_n(&x->end, x->tab_at + x->tab_left, __ATOMIC_RELAXED);
	}
	*sector = x->tab_at;
	x->tab_at += sectors;
	x->tab_left -= sectors;
	return 0;
}

uint64_t space_end(const struct extent *x)
{
	uint64_t s = x->nbits;

	if (x->ready != 2)
		return 0;
	while (s && !bit(x, s - 1))
		s--;
	return x->phase + s * x->grain;
}

int space_shrink(struct extent *x)
{
	struct image *im = x->img;
	uint64_t end, file = im->ops->bytes(x->v);
	int r;

	pthread_mutex_lock(&im->lock);
	space_reset(x);
	r = space_begin(x, 0);
	pthread_mutex_unlock(&im->lock);
	if (r < 0)
		return r;
	end = space_end(x);
	for (uint64_t s = 0, n; s < x->nbits && r >= 0; s += n) {
		n = 1;
		if (bit(x, s))
			continue;
		while (s + n < x->nbits && !bit(x, s + n))
			n++;
		r = im->ops->discard(x->v, n * x->grain * SECTOR, (x->phase + s * x->grain) * SECTOR);
		r = r == -EOPNOTSUPP ? 0 : r; /* advice */
	}
	if (r >= 0 && file > end * SECTOR) {
		r = im->ops->resize(x->v, end * SECTOR);
		if (r == -EOPNOTSUPP)
			r = im->ops->discard(x->v, file - end * SECTOR, end * SECTOR);
		r = r == -EOPNOTSUPP ? 0 : r;
		pthread_mutex_lock(&im->lock);
		x->end = DIV_UP(im->ops->bytes(x->v), SECTOR);
		pthread_mutex_unlock(&im->lock);
	}
	return r < 0 ? r : im->ops->flush(x->v);
}
