/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Compressed clusters: raw deflate with a window of 4 KiB, or zstd. Stored bytes are followed by foreign ones up to the end of their
 * last sector: whoever decodes stops when the cluster is full. A cluster at the disk's end is filled up with zeros, since everybody
 * expects a whole one.
 */
#include <zlib.h>
#if Q2_HAVE_ZSTD
#include <zstd.h>
#endif
#if Q2_HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif
#include "qcow2.h"

#define WINDOW_BITS 12
#define LEVEL_DEFAULT 0
#define LEVEL_FAST (-1)
#define ZSTD_WINDOW_MAX 23 /* of what is decoded piecemeal: 8 MiB of memory */

/* ---- decoding ---- */

static int inflate_zlib(const void *in, uint64_t in_len, void *out, uint64_t out_len)
{
	z_stream z = {.next_in = (void *)(uintptr_t)in, .avail_in = (uInt)in_len, .next_out = out, .avail_out = (uInt)out_len};
	int r = inflateInit2(&z, -WINDOW_BITS);

	if (r != Z_OK)
		return -ENOMEM;
	r = inflate(&z, Z_FINISH);
	inflateEnd(&z);
	return (r == Z_STREAM_END || r == Z_BUF_ERROR) && !z.avail_out ? 0 : -EIO;
}

static int inflate_any(const void *in, uint64_t in_len, void *out, uint64_t out_len)
{
#if Q2_HAVE_ISAL
	struct inflate_state *s = malloc(sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	isal_inflate_init(s);
	s->crc_flag = ISAL_DEFLATE;
	s->next_in = (uint8_t *)(uintptr_t)in;
	s->avail_in = (uint32_t)in_len;
	s->next_out = out;
	s->avail_out = (uint32_t)out_len;
	r = isal_inflate_stateless(s);
	r = (r == ISAL_DECOMP_OK || r == ISAL_OUT_OVERFLOW) && !s->avail_out ? 0 : -EIO;
	free(s);
	if (!r)
		return 0;
#endif
	return inflate_zlib(in, in_len, out, out_len); /* and it says what is damaged */
}

#if Q2_HAVE_ZSTD
/* Frames that do not tell where they end, or hold more than a cluster. */
static int zstd_piecemeal(ZSTD_DCtx *d, const void *in, uint64_t in_len, void *out, uint64_t out_len)
{
	ZSTD_inBuffer i = {in, in_len, 0};
	ZSTD_outBuffer o = {out, out_len, 0};

	ZSTD_DCtx_reset(d, ZSTD_reset_session_and_parameters);
	if (ZSTD_isError(ZSTD_DCtx_setParameter(d, ZSTD_d_windowLogMax, ZSTD_WINDOW_MAX)))
		return -EIO;
	while (o.pos < o.size) {
		size_t in_was = i.pos, out_was = o.pos;

		if (ZSTD_isError(ZSTD_decompressStream(d, &o, &i)) || (i.pos == in_was && o.pos == out_was))
			return -EIO;
	}
	return 0;
}

static int zstd_decode(const void *in, uint64_t in_len, void *out, uint64_t out_len)
{
	ZSTD_DCtx *d = ZSTD_createDCtx();
	size_t frame = ZSTD_findFrameCompressedSize(in, in_len), n;
	int r = 0;

	if (!d)
		return -ENOMEM;
	n = ZSTD_isError(frame) ? 0 : ZSTD_decompressDCtx(d, out, out_len, in, frame);
	if (ZSTD_isError(frame) || ZSTD_isError(n) || n != out_len)
		r = zstd_piecemeal(d, in, in_len, out, out_len);
	ZSTD_freeDCtx(d);
	return r;
}
#endif

int q2_decode(void *img, const struct vh_extent *x, const void *in, uint64_t in_len, void *out, uint64_t out_len)
{
	const struct q2 *q = img;

	if (in_len > 4 * q->cluster || out_len > q->cluster)
		return -EIO;
#if Q2_HAVE_ZSTD
	if (q->h.compression == Q2_ZSTD)
		return zstd_decode(in, in_len, out, out_len);
#endif
	return q->h.compression == Q2_ZLIB ? inflate_any(in, in_len, out, out_len) : -EOPNOTSUPP;
}

/* ---- encoding ---- */

const struct vh_opt q2_opt_level = {
	sizeof(struct vh_opt), VH_OPT_STR, 0, "compress-level",
	"How hard to try when writing compressed: default (as QEMU), fast, or a level of zlib (1 to 9) or zstd (1 to 19)",
	"default", NULL, 1, 16};

int q2_compress_open(struct q2 *q, const struct vh_opts *o, struct vh_err *e)
{
	const char *s = vh_opt_str(o, "compress-level", "default");
	long max = q->h.compression == Q2_ZSTD ? 19 : 9, n;
	char *end;

	q->level = LEVEL_DEFAULT;
	if (!strcmp(s, "default"))
		return 0;
	if (!strcmp(s, "fast")) {
		q->level = LEVEL_FAST;
		return 0;
	}
	n = strtol(s, &end, 10);
	if (*end || n < 1 || n > max)
		return q2_fail(e, -EINVAL, "compress-level=%s: default, fast, or a number from 1 to %ld", s, max);
	q->level = (int)n;
	return 0;
}

static int64_t deflate_zlib(int level, const void *in, uint64_t in_len, void *out, uint64_t cap)
{
	z_stream z = {.next_in = (void *)(uintptr_t)in, .avail_in = (uInt)in_len, .next_out = out, .avail_out = (uInt)cap};
	int r = deflateInit2(&z, level, Z_DEFLATED, -WINDOW_BITS, 9, Z_DEFAULT_STRATEGY);

	if (r != Z_OK)
		return -ENOMEM;
	r = deflate(&z, Z_FINISH);
	deflateEnd(&z);
	return r == Z_STREAM_END ? (int64_t)z.total_out : -ENOSPC;
}

static int64_t deflate_fast(const void *in, uint64_t in_len, void *out, uint64_t cap)
{
#if Q2_HAVE_ISAL
	struct isal_zstream *z = malloc(sizeof(*z));
	uint8_t *level = malloc(ISAL_DEF_LVL1_DEFAULT);
	int64_t n = -ENOMEM;

	if (z && level) {
		isal_deflate_init(z); /* the streaming way: only there is the window of hist_bits obeyed */
		z->level = 1;
		z->level_buf = level;
		z->level_buf_size = ISAL_DEF_LVL1_DEFAULT;
		z->gzip_flag = IGZIP_DEFLATE;
		z->hist_bits = WINDOW_BITS;
		z->end_of_stream = 1;
		z->flush = NO_FLUSH;
		z->next_in = (uint8_t *)(uintptr_t)in;
		z->avail_in = (uint32_t)in_len;
		z->next_out = out;
		z->avail_out = (uint32_t)cap;
		n = isal_deflate(z) == COMP_OK && z->internal_state.state == ZSTATE_END ? (int64_t)z->total_out : -ENOSPC;
	}
	free(z);
	free(level);
	return n;
#else
	return deflate_zlib(1, in, in_len, out, cap);
#endif
}

#if Q2_HAVE_ZSTD
static int64_t zstd_encode(int level, const void *in, uint64_t in_len, void *out, uint64_t cap)
{
	size_t n = ZSTD_compress(out, cap, in, in_len, level);

	return ZSTD_isError(n) ? -ENOSPC : (int64_t)n;
}
#endif

int64_t q2_encode(void *img, const void *in, uint64_t in_len, void *out, uint64_t cap)
{
	const struct q2 *q = img;
	uint8_t *padded = NULL;
	int64_t n = -EOPNOTSUPP;

	if (in_len > q->cluster || !in_len)
		return -EINVAL;
	if (in_len < q->cluster) {
		padded = calloc(1, q->cluster);
		if (!padded)
			return -ENOMEM;
		memcpy(padded, in, in_len);
		in = padded;
	}
	/* One byte less than a cluster, or nothing is won. */
	if (cap >= q->cluster)
		cap = q->cluster - 1;
	if (q->h.compression == Q2_ZLIB && q->level == LEVEL_FAST)
		n = deflate_fast(in, q->cluster, out, cap);
	else if (q->h.compression == Q2_ZLIB)
		n = deflate_zlib(q->level == LEVEL_DEFAULT ? Z_DEFAULT_COMPRESSION : q->level, in, q->cluster, out, cap);
#if Q2_HAVE_ZSTD
	else if (q->h.compression == Q2_ZSTD)
		n = zstd_encode(q->level == LEVEL_DEFAULT ? ZSTD_CLEVEL_DEFAULT : q->level == LEVEL_FAST ? 1 : q->level, in, q->cluster, out, cap);
#endif
	free(padded);
	return n;
}

/* ---- storing ---- */

/* Room for n bytes behind what was stored last, or in a new cluster; counts are raised. */
static int room(struct q2 *q, uint64_t n, uint64_t *off)
{
	uint64_t mask = q->cluster - 1, at, left, fresh;
	int r, kept;

	pthread_mutex_lock(&q->alloc_lock);
	at = q->comp_off;
	pthread_mutex_unlock(&q->alloc_lock);
	left = at & mask ? q->cluster - (at & mask) : 0;
	if (left >= n) {
		r = q2_ref_add(q, at, n, 1);
		if (r < 0 && r != -ERANGE)
			return r;
		pthread_mutex_lock(&q->alloc_lock);
		kept = q->comp_off == at; /* else the cluster became free meanwhile, and may be another's */
		if (r >= 0 && kept)
			q->comp_off = at + n; /* at a cluster's end: as if there were nothing left */
		pthread_mutex_unlock(&q->alloc_lock);
		if (r >= 0 && kept) {
			*off = at;
			return 0;
		}
		if (r >= 0)
			q2_ref_add(q, at, n, -1);
		left = 0;
	}
	r = q2_alloc(q, 1, &fresh);
	if (r < 0)
		return r;
	*off = fresh;
	if (left && fresh == at + left && q2_ref_add(q, at, left, 1) >= 0) { /* across the boundary */
		pthread_mutex_lock(&q->alloc_lock);
		kept = q->comp_off == at;
		pthread_mutex_unlock(&q->alloc_lock);
		if (kept)
			*off = at;
		else
			q2_ref_add(q, at, left, -1);
	}
	pthread_mutex_lock(&q->alloc_lock);
	q->comp_off = *off + n;
	pthread_mutex_unlock(&q->alloc_lock);
	return 0;
}

int q2_put(void *img, uint64_t pos, uint64_t len, const void *stored, uint64_t n, struct vh_err *e)
{
	struct q2 *q = img;
	struct q2_entry x = {0, 0};
	uint64_t off;
	int r = q2_services(e);

	if (r < 0)
		return r;
	if (q->read_only)
		return q2_fail(e, -EROFS, "the image is open for reading only");
	if (q->has_data || q->h.crypt)
		return q2_fail(e, -EOPNOTSUPP, "an image that is encrypted, or has an external data file, holds no compressed clusters");
	if (pos & (q->cluster - 1) || !n || n >= q->cluster || pos >= q->h.bytes || len != q2_min(q->cluster, q->h.bytes - pos))
		return q2_fail(e, -EINVAL, "%llu stored bytes for %llu bytes at %llu are not one cluster's", (unsigned long long)n,
			       (unsigned long long)len, (unsigned long long)pos);
	r = q2_writing_begin(q, e);
	if (r < 0)
		return r;
	r = room(q, n, &off);
	if (r < 0)
		return q2_fail(e, r, "no room for a compressed cluster");
	x.e = q2_compressed_entry(q, off, n);
	r = x.e ? q2_write(q, stored, n, off) : -EFBIG;
	if (r >= 0)
		r = q2_entry_replace(q, pos, x);
	if (r < 0) {
		q2_ref_add(q, off, n, -1);
		return q2_fail(e, r, "cannot store a compressed cluster");
	}
	return 0;
}
