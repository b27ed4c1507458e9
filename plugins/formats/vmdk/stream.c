/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * streamOptimized: compressed grains, each behind a marker, their tables behind them, the directory and a footer at the end.
 * Written once, from the first byte to the last: nothing is written before what is there already, unless a flush comes in
 * the middle, since that must leave a complete image.
 */
#include "vmdk.h"

#define BUFFER (1u << 20)
#define MARK 12u /* the bytes of a grain's marker */

struct stream {
	pthread_mutex_t lock; /* of writing; taken before the image's */
	uint8_t *buf, *work;
	uint64_t at, n;       /* the buffer holds n bytes for byte `at` of the file; changes under the image's lock too */
	struct table *t;      /* the table that is being filled; pinned */
	uint64_t next;        /* grain */
	int complete;         /* tables, directory and footer of all that was put are written */
	uint64_t tail;        /* where they begin */
	int error;
};

int stream_open(struct image *im, struct vh_err *e)
{
	struct extent *x = &im->x[0];
	struct stream *s = calloc(1, sizeof(*s));

	if (!s)
		return fail(e, -ENOMEM, "no memory for a stream");
	s->buf = malloc(BUFFER);
	s->work = malloc(CODEC_ROOM(x->grain * SECTOR) + x->grain * SECTOR);
	pthread_mutex_init(&s->lock, NULL);
	s->at = MAX(x->overhead, 1 + x->desc_at + x->desc_size) * SECTOR;
	im->stream = s;
	return s->buf && s->work ? 0 : fail(e, -ENOMEM, "no memory for a stream");
}

void stream_free(struct image *im)
{
	struct stream *s = im->stream;

	if (!s)
		return;
	pthread_mutex_destroy(&s->lock);
	free(s->buf);
	free(s->work);
	free(s);
	im->stream = NULL;
}

int stream_unwritten(struct image *im, uint64_t sector)
{
	struct stream *s = im->stream;

	return s->n && (sector + im->x[0].grain * 2) * SECTOR > s->at;
}

static int write_out(struct image *im)
{
	struct stream *s = im->stream;
	struct vh_meta *v = im->x[0].v;
	int r = 0;

	/* The file must end where the stream ends; hosts that let a volume grow by writing give it more than that. */
	if (s->n && im->ops->bytes(v) < s->at + s->n)
		r = im->ops->resize(v, s->at + s->n);
	if (s->n && (r >= 0 || r == -EOPNOTSUPP))
		r = im->ops->write(v, s->buf, s->n, s->at);
	if (r < 0) {
		s->error = r; /* what comes later would stand behind a hole */
		return r;
	}
	pthread_mutex_lock(&im->lock);
	s->at += s->n;
	s->n = 0;
	im->x[0].end = MAX(im->x[0].end, DIV_UP(s->at, SECTOR));
	pthread_mutex_unlock(&im->lock);
	return 0;
}

int stream_write_out(struct image *im)
{
	struct stream *s = im->stream;
	int r;

	pthread_mutex_lock(&s->lock);
	r = s->error < 0 ? s->error : write_out(im);
	pthread_mutex_unlock(&s->lock);
	return r;
}

/* NULL: zeros. Buffers end at multiples of their size, so that the volume's own alignment is kept. */
static int append(struct image *im, const void *p, uint64_t n)
{
	struct stream *s = im->stream;

	while (n) {
		uint64_t room = BUFFER - s->at % BUFFER - s->n, k = MIN(room, n);
		int r;

		if (p)
			memcpy(s->buf + s->n, p, k);
		else
			memset(s->buf + s->n, 0, k);
		pthread_mutex_lock(&im->lock);
		s->n += k;
		pthread_mutex_unlock(&im->lock);
		p = p ? (const uint8_t *)p + k : NULL;
		n -= k;
		r = k == room ? write_out(im) : 0;
		if (r < 0)
			return r;
	}
	return 0;
}

static int append_padded(struct image *im, const void *p, uint64_t n)
{
	int r = append(im, p, n);

	return r < 0 ? r : append(im, NULL, ROUND_UP(n, SECTOR) - n);
}

static int append_marker(struct image *im, uint64_t sectors, uint32_t type)
{
	uint8_t m[SECTOR] = {0};

	put64(m, sectors);
	put32(m + 12, type);
	return append(im, m, sizeof(m));
}

static uint64_t position(const struct stream *s)
{
	return (s->at + s->n) / SECTOR;
}

/* The table that is being filled, as it is now. */
static int append_table(struct image *im)
{
	struct stream *s = im->stream;
	struct extent *x = &im->x[0];
	uint8_t *raw = calloc(x->gt_sectors, SECTOR);
	int r = raw ? append_marker(im, x->gt_sectors, MARKER_GT) : -ENOMEM;

	if (r >= 0 && position(s) >= FILE_SECTORS)
		r = -EFBIG;
	if (r >= 0) {
		pthread_mutex_lock(&im->lock);
		x->gd[s->t->index] = (uint32_t)position(s);
		for (uint32_t k = 0; k < x->gtes; k++)
			put32(raw + (size_t)k * 4, s->t->e[k]);
		pthread_mutex_unlock(&im->lock);
		r = append(im, raw, x->gt_sectors * SECTOR);
	}
	free(raw);
	return r;
}

/* 0, or the error with which writing ended. */
static int table_for(struct image *im, uint32_t index)
{
	struct stream *s = im->stream;
	struct extent *x = &im->x[0];
	int r = 0;

	if (s->t && s->t->index == index)
		return 0;
	if (s->t) {
		r = append_table(im);
		if (r < 0)
			return r;
		/* It can be forgotten only when it can be read again. */
		r = write_out(im);
		if (r < 0)
			return r;
		pthread_mutex_lock(&im->lock);
		s->t->dirty = s->t->fresh = 0;
		table_put(s->t);
		s->t = NULL;
		tables_trim(im);
		pthread_mutex_unlock(&im->lock);
	}
	pthread_mutex_lock(&im->lock);
	r = table_new(x, index, &s->t);
	pthread_mutex_unlock(&im->lock);
	return r;
}

/* What a flush in the middle made complete goes on: its end must not be taken for one any more. */
static int resume(struct image *im)
{
	struct stream *s = im->stream;
	int r = im->ops->zero(im->x[0].v, 2 * SECTOR, s->at - 2 * SECTOR);

	if (r < 0)
		return r;
	pthread_mutex_lock(&im->lock);
	s->at = s->tail;
	if (s->t)
		im->x[0].gd[s->t->index] = 0;
	s->complete = 0;
	pthread_mutex_unlock(&im->lock);
	return 0;
}

static int put_grain(struct image *im, uint64_t g, const void *stored, uint64_t n)
{
	struct stream *s = im->stream;
	struct extent *x = &im->x[0];
	uint64_t sector;
	uint8_t m[MARK];
	int r = s->complete ? resume(im) : 0;

	if (r >= 0)
		r = table_for(im, (uint32_t)(g / x->gtes));
	if (r < 0)
		return r;
	sector = position(s);
	if (sector >= FILE_SECTORS)
		return -EFBIG;
	put64(m, g * x->grain);
	put32(m + 8, (uint32_t)n);
	r = append(im, m, MARK);
	if (r >= 0)
		r = append(im, stored, n);
	if (r >= 0)
		r = append(im, NULL, ROUND_UP(MARK + n, SECTOR) - MARK - n);
	if (r < 0)
		return r;
	pthread_mutex_lock(&im->lock);
	s->t->e[g % x->gtes] = (uint32_t)sector;
	x->end = MAX(x->end, position(s));
	s->next = g + 1;
	pthread_mutex_unlock(&im->lock);
	return 0;
}

int vmdk_put(void *img, uint64_t pos, uint64_t len, const void *stored, uint64_t n, struct vh_err *e)
{
	struct image *im = img;
	struct stream *s = im->stream;
	struct extent *x = &im->x[0];
	uint64_t grain = x->grain * SECTOR, bytes = im->sectors * SECTOR;
	int r;

	if (!s)
		return fail(e, -EOPNOTSUPP, "not a streamOptimized image that is being written");
	if (pos % grain || pos >= bytes || len != MIN(grain, bytes - pos) || !n || n > CODEC_ROOM(grain))
		return fail(e, -EINVAL, "%llu bytes at %llu are no grain", ULL(len), ULL(pos));
	pthread_mutex_lock(&s->lock);
	if (s->error) {
		r = s->error;
	} else if (pos / grain < s->next) {
		r = fail(e, -EINVAL, "a stream is written in ascending order; %llu was written already", ULL(pos));
		pthread_mutex_unlock(&s->lock);
		return r;
	} else if (n == len) { /* it did not get smaller: encode() handed it on as it was */
		uint8_t *whole = s->work + CODEC_ROOM(grain);

		memcpy(whole, stored, len);
		memset(whole + len, 0, grain - len);
		r = put_grain(im, pos / grain, s->work, codec_store(whole, grain, s->work));
	} else {
		r = put_grain(im, pos / grain, stored, n);
	}
	if (r < 0)
		s->error = r;
	pthread_mutex_unlock(&s->lock);
	return r < 0 ? fail(e, r, "cannot write the stream at byte %llu of the file", ULL(s->at)) : 0;
}

static int append_end(struct image *im)
{
	struct extent *x = &im->x[0];
	uint64_t n = (uint64_t)x->ngd * 4, gd;
	uint8_t *raw = malloc(n), footer[SECTOR];
	int r = raw ? 0 : -ENOMEM;

	if (r >= 0 && im->stream->t)
		r = append_table(im);
	if (r >= 0)
		r = append_marker(im, DIV_UP(n, SECTOR), MARKER_GD);
	gd = position(im->stream);
	for (uint32_t k = 0; k < x->ngd && r >= 0; k++)
		put32(raw + (size_t)k * 4, x->gd[k]);
	if (r >= 0)
		r = append_padded(im, raw, n);
	free(raw);
	if (r >= 0)
		r = append_marker(im, 1, MARKER_FOOTER);
	memcpy(footer, x->header, SECTOR);
	put64(footer + HDR_GD, gd);
	if (r >= 0)
		r = append(im, footer, SECTOR);
	if (r >= 0)
		r = append_marker(im, 0, MARKER_EOS);
	return r < 0 ? r : write_out(im);
}

void stream_close(struct image *im)
{
	struct stream *s = im->stream;

	/* Where a volume is written by blocks larger than a sector, it may have grown to a whole one. */
	if (s->complete && !s->error && im->ops->bytes(im->x[0].v) > s->at)
		im->ops->resize(im->x[0].v, s->at);
}

int stream_flush(struct image *im)
{
	struct stream *s = im->stream;
	int r = 0;

	if (!s)
		return 0;
	pthread_mutex_lock(&s->lock);
	if (s->error)
		r = s->error;
	if (r >= 0 && !s->complete) {
		s->tail = s->at + s->n;
		r = append_end(im);
		if (r < 0)
			s->error = r;
		else
			s->complete = 1;
	}
	pthread_mutex_unlock(&s->lock);
	return r < 0 ? r : 0;
}

int64_t vmdk_encode(void *img, const void *in, uint64_t in_len, void *out, uint64_t cap)
{
	struct image *im = img;
	uint64_t grain = im->nx ? im->x[0].grain * SECTOR : 0;
	uint8_t *whole = NULL;
	int64_t n;

	if (!im->stream || !in_len || in_len > grain || cap < in_len)
		return -EINVAL;
	if (in_len < grain) { /* at the disk's end: other readers want whole grains */
		whole = calloc(1, grain);
		if (!whole)
			return -ENOMEM;
		memcpy(whole, in, in_len);
	}
	n = codec_encode(im->codec, whole ? whole : in, grain, out, in_len - 1);
	free(whole);
	if (n == -ENOSPC) {
		memcpy(out, in, in_len);
		n = (int64_t)in_len;
	}
	return n;
}

int vmdk_decode(void *img, const struct vh_extent *ext, const void *in, uint64_t in_len, void *out, uint64_t out_len)
{
	struct image *im = img;
	struct extent *x = extent_at(im, ext->pos);
	uint64_t grain = x->grain * SECTOR, n = in_len, lba;
	const uint8_t *p = in;
	uint8_t *whole = NULL;
	int64_t got;
	int more = 0;

	if (!out_len || out_len > grain)
		return -EINVAL;
	if (x->markers) {
		if (in_len < MARK)
			return -EIO;
		lba = get64(p);
		n = get32(p + 8);
		/* The marker is part of a file that anybody may have written: it says how much, but not how much there is. */
		if (!n || n > in_len - MARK || lba != (ext->pos - ext->head) / SECTOR - x->first)
			return -EIO;
		p += MARK;
	}
	if (out_len < grain) { /* the last grain may be stored whole */
		whole = malloc(grain);
		if (!whole)
			return -ENOMEM;
	}
	got = codec_decode(im->codec, p, n, whole ? whole : out, grain, &more);
	if (got >= 0 && ((uint64_t)got < out_len || more))
		got = -EIO;
	if (got >= 0 && whole)
		memcpy(out, whole, out_len);
	free(whole);
	return got < 0 ? (int)got : 0;
}
