/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Compressed grains: zlib streams. Several CPU workers encode and decode at once; the libraries' states are large, so they
 * are kept and used again. Reading is zlib's, whatever the level: it has seen more hostile input than any other.
 */
#include <zlib.h>
#ifdef HAVE_ISAL
#include <isa-l/igzip_lib.h>
#endif
#include "vmdk.h"

struct state {
	struct state *next;
	z_stream z;
#ifdef HAVE_ISAL
	struct isal_zstream *fast;
	uint8_t *fast_buf;
#endif
};

struct codec {
	pthread_mutex_t lock;
	int level;
	struct state *enc, *dec; /* idle ones */
};

struct codec *codec_new(int level)
{
	struct codec *c = calloc(1, sizeof(*c));

	if (c) {
		pthread_mutex_init(&c->lock, NULL);
		c->level = level;
	}
	return c;
}

static int zlib_level(int level)
{
	return level == LEVEL_DEFAULT ? Z_DEFAULT_COMPRESSION : level == LEVEL_FAST ? 1 : level - 1;
}

static void state_free(struct state *s, int enc)
{
#ifdef HAVE_ISAL
	free(s->fast);
	free(s->fast_buf);
#endif
	if (enc)
		deflateEnd(&s->z);
	else
		inflateEnd(&s->z);
	free(s);
}

void codec_free(struct codec *c)
{
	struct state *s;

	if (!c)
		return;
	while ((s = c->enc)) {
		c->enc = s->next;
		state_free(s, 1);
	}
	while ((s = c->dec)) {
		c->dec = s->next;
		state_free(s, 0);
	}
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static struct state *state_new(struct codec *c, int enc)
{
	struct state *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
#ifdef HAVE_ISAL
	if (enc && c->level == LEVEL_FAST) {
		s->fast = malloc(sizeof(*s->fast));
		s->fast_buf = malloc(ISAL_DEF_LVL1_DEFAULT);
		if (!s->fast || !s->fast_buf) {
			free(s->fast);
			free(s->fast_buf);
			free(s);
			return NULL;
		}
		return s; /* its zlib state is empty, which deflateEnd() knows */
	}
#endif
	if ((enc ? deflateInit(&s->z, zlib_level(c->level)) : inflateInit(&s->z)) != Z_OK) {
		free(s);
		return NULL;
	}
	return s;
}

static struct state *take(struct codec *c, int enc)
{
	struct state **list = enc ? &c->enc : &c->dec, *s;

	pthread_mutex_lock(&c->lock);
	s = *list;
	if (s)
		*list = s->next;
	pthread_mutex_unlock(&c->lock);
	return s ? s : state_new(c, enc);
}

static void give(struct codec *c, struct state *s, int enc)
{
	struct state **list = enc ? &c->enc : &c->dec;

	pthread_mutex_lock(&c->lock);
	s->next = *list;
	*list = s;
	pthread_mutex_unlock(&c->lock);
}

int64_t codec_encode(struct codec *c, const void *in, uint64_t in_len, void *out, uint64_t cap)
{
	struct state *s = take(c, 1);
	int64_t n = -ENOSPC;
	int r;

	if (!s)
		return -ENOMEM;
#ifdef HAVE_ISAL
	if (s->fast) {
		isal_deflate_stateless_init(s->fast);
		s->fast->gzip_flag = IGZIP_ZLIB;
		s->fast->level = 1;
		s->fast->level_buf = s->fast_buf;
		s->fast->level_buf_size = ISAL_DEF_LVL1_DEFAULT;
		s->fast->end_of_stream = 1;
		s->fast->flush = NO_FLUSH;
		s->fast->next_in = (uint8_t *)(uintptr_t)in;
		s->fast->avail_in = (uint32_t)in_len;
		s->fast->next_out = out;
		s->fast->avail_out = (uint32_t)cap;
		r = isal_deflate_stateless(s->fast);
		if (r == COMP_OK && !s->fast->avail_in)
			n = (int64_t)s->fast->total_out;
		give(c, s, 1);
		return n;
	}
#endif
	deflateReset(&s->z);
	s->z.next_in = (Bytef *)(uintptr_t)in;
	s->z.avail_in = (uInt)in_len;
	s->z.next_out = out;
	s->z.avail_out = (uInt)cap;
	r = deflate(&s->z, Z_FINISH);
	if (r == Z_STREAM_END)
		n = (int64_t)s->z.total_out;
	give(c, s, 1);
	return n;
}

int64_t codec_decode(struct codec *c, const void *in, uint64_t in_len, void *out, uint64_t out_len, int *more)
{
	struct state *s = take(c, 0);
	int64_t n = -EIO;
	uint8_t probe;
	int r;

	if (!s)
		return -ENOMEM;
	inflateReset(&s->z);
	s->z.next_in = (Bytef *)(uintptr_t)in;
	s->z.avail_in = (uInt)in_len;
	s->z.next_out = out;
	s->z.avail_out = (uInt)out_len;
	r = inflate(&s->z, Z_FINISH);
	*more = 0;
	if (r != Z_STREAM_END && !s->z.avail_out) { /* the check sum may be all that is left */
		s->z.next_out = &probe;
		s->z.avail_out = 1;
		r = inflate(&s->z, Z_FINISH);
		if (r != Z_STREAM_END && !s->z.avail_out) {
			*more = 1;
			n = (int64_t)out_len;
		} else if (r == Z_STREAM_END) {
			*more = !s->z.avail_out;
			n = (int64_t)out_len;
		}
	} else if (r == Z_STREAM_END) {
		n = (int64_t)s->z.total_out;
	}
	give(c, s, 0);
	return n;
}

uint64_t codec_store(const void *in, uint64_t in_len, void *out)
{
	const uint8_t *p = in;
	uint8_t *q = out;
	uLong sum = adler32(adler32(0, NULL, 0), in, (uInt)in_len);
	uint64_t left = in_len;

	*q++ = 0x78;
	*q++ = 0x01;
	do {
		uint32_t n = (uint32_t)MIN(left, 65535);

		*q++ = left == n;
		put16(q, n);
		put16(q + 2, ~n);
		memcpy(q + 4, p, n);
		q += 4 + n;
		p += n;
		left -= n;
	} while (left);
	for (int k = 3; k >= 0; k--)
		*q++ = (uint8_t)(sum >> (8 * k));
	return (uint64_t)(q - (uint8_t *)out);
}
