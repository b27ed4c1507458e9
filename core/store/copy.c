/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Volume bytes in and out: holes stay holes wherever both sides have them. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "store/convert.h"
#include "store/store-i.h"

#define BUF (UINT64_C(1) << 20)
#define GRAIN (UINT64_C(64) << 10) /* runs of zeros shorter than this are written out */
#define ZERO_STEP (UINT64_C(256) << 20)

/* The data at or after off in a file of `end` bytes: [*from, *to). Nothing more: *from = end. */
static void next_data(int fd, uint64_t base, uint64_t off, uint64_t end, uint64_t *from, uint64_t *to)
{
	off_t d = fd < 0 ? -2 : lseek(fd, (off_t)(base + off), SEEK_DATA), h;

	*from = off;
	*to = end;
	if (d == -1 && errno == ENXIO)
		*from = end;
	else if (d >= 0) {
		*from = MIN((uint64_t)d - base, end);
		h = lseek(fd, d, SEEK_HOLE);
		if (h > d)
			*to = MIN((uint64_t)h - base, end);
	}
}

static int cancelled(struct vh_job *j, struct vh_err *e)
{
	return job_cancelled(j) ? err_set(e, -ECANCELED, "cancelled") : 0;
}

/* Where bytes go: a volume or a file descriptor. Offsets are from the beginning of what is copied. */
struct sink {
	int (*data)(struct sink *s, const char *buf, uint64_t len, uint64_t off, struct vh_err *e);
	int (*zero)(struct sink *s, uint64_t len, uint64_t off, struct vh_err *e);
	struct blk_vol *v;
	int fd, sparse;
	uint64_t base;
};

static int vol_data(struct sink *s, const char *buf, uint64_t len, uint64_t off, struct vh_err *e)
{
	return blk_write(s->v, buf, len, off, e);
}

static int vol_zero(struct sink *s, uint64_t len, uint64_t off, struct vh_err *e)
{
	int ret = blk_zero(s->v, len, off, e);

	/* Zeros first, which is sure, then the space back, which is advisory but keeps them zeros. */
	if (!ret && blk_vol_info(s->v)->caps & VH_VOL_DISCARD_ZEROES)
		blk_discard(s->v, len, off, NULL);
	return ret;
}

static int fresh_zero(struct sink *s, uint64_t len, uint64_t off, struct vh_err *e)
{
	return 0; /* a volume that was made as zeros */
}

static int fd_data(struct sink *s, const char *buf, uint64_t len, uint64_t off, struct vh_err *e)
{
	while (len) {
		ssize_t n = s->sparse ? pwrite(s->fd, buf, len, (off_t)(s->base + off)) : write(s->fd, buf, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return err_set(e, -errno, "writing: %s", g_strerror(errno));
		buf += n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

static int fd_zero(struct sink *s, uint64_t len, uint64_t off, struct vh_err *e)
{
	static const char zeros[GRAIN];
	int ret = 0;

	for (uint64_t n; !s->sparse && len && !ret; len -= n, off += n) {
		n = MIN(len, GRAIN);
		ret = fd_data(s, zeros, n, off, e);
	}
	return ret;
}

/* Splits a buffer into runs of data and of zeros. */
static int put(struct sink *s, const char *buf, uint64_t len, uint64_t off, struct vh_err *e)
{
	uint64_t at = 0;
	int ret = 0;

	while (at < len && !ret) {
		uint64_t n = MIN(GRAIN, len - at), run = n;
		int zero = zero_all(buf + at, n);

		while (at + run < len && (n = MIN(GRAIN, len - at - run)) && zero_all(buf + at + run, n) == zero)
			run += n;
		ret = zero ? s->zero(s, run, off + at, e) : s->data(s, buf + at, run, off + at, e);
		at += run;
	}
	return ret;
}

static int put_zeros(struct sink *s, uint64_t from, uint64_t to, uint64_t total, struct vh_job *j, struct vh_err *e)
{
	int ret = 0;

	while (from < to && !ret) {
		uint64_t n = MIN(to - from, ZERO_STEP);

		ret = cancelled(j, e);
		if (!ret)
			ret = s->zero(s, n, from, e);
		from += n;
		job_progress(j, from, total);
	}
	return ret;
}

/* A volume into a sink. */
static int from_volume(struct blk_vol *v, struct sink *s, struct vh_job *j, struct vh_err *e)
{
	const struct vh_volume_info *info = blk_vol_info(v);
	uint64_t bytes = blk_vol_bytes(v), off = 0, from, to;
	g_autofree char *buf = g_malloc(BUF);
	int ret = 0;

	while (off < bytes && !ret) {
		next_data(info->fd, info->fd_base, off, bytes, &from, &to);
		ret = put_zeros(s, off, from, bytes, j, e);
		for (off = from; off < to && !ret; ) {
			uint64_t n = MIN(to - off, BUF);

			ret = cancelled(j, e);
			if (!ret)
				ret = blk_read(v, buf, n, off, e);
			if (!ret)
				ret = put(s, buf, n, off, e);
			off += n;
			job_progress(j, off, bytes);
		}
	}
	return ret;
}

int store_export(struct blk_vol *v, int fd, struct vh_job *j, struct vh_err *e)
{
	struct sink s = {.data = fd_data, .zero = fd_zero, .fd = fd};
	off_t at = lseek(fd, 0, SEEK_CUR);
	struct stat st;
	int ret;

	/* Holes only where nothing is overwritten: in a new file, at its end. */
	s.sparse = at >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size <= at &&
		   !(fcntl(fd, F_GETFL) & O_APPEND);
	s.base = at >= 0 ? (uint64_t)at : 0;
	ret = from_volume(v, &s, j, e);
	if (!ret && s.sparse && ftruncate(fd, at + (off_t)blk_vol_bytes(v)) < 0)
		ret = err_set(e, -errno, "writing: %s", g_strerror(errno));
	if (!ret && s.sparse)
		lseek(fd, at + (off_t)blk_vol_bytes(v), SEEK_SET);
	return ret;
}

int store_copy(struct blk_vol *src, struct blk_vol *dst, struct vh_job *j, struct vh_err *e)
{
	struct sink s = {.data = vol_data, .zero = fresh_zero, .v = dst};
	int ret = from_volume(src, &s, j, e);

	return ret ? ret : blk_flush(dst, e);
}

static int too_large(uint64_t have, struct vh_err *e)
{
	g_autofree char *size = format_size(have);

	err_remedy(e, "make the volume larger: vhost vol resize");
	return err_set(e, -ENOSPC, "the data is larger than the volume's %s", size);
}

int store_import(struct blk_vol *v, int fd, uint64_t bytes, struct vh_job *j, struct vh_err *e)
{
	struct sink s = {.data = vol_data, .zero = vol_zero, .v = v};
	uint64_t room = blk_vol_bytes(v), off = 0, from, to, start;
	g_autofree char *buf = g_malloc(BUF);
	off_t at = lseek(fd, 0, SEEK_CUR);
	struct stat st;
	int ret = 0, file = at >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode);

	start = at >= 0 ? (uint64_t)at : 0;
	if (file)
		bytes = MIN(bytes, (uint64_t)st.st_size > start ? (uint64_t)st.st_size - start : 0);
	if (bytes != UINT64_MAX && bytes > room)
		return too_large(room, e);
	while (off < bytes && !ret) {
		if (file)
			next_data(fd, start, off, bytes, &from, &to);
		else
			from = off, to = bytes;
		ret = put_zeros(&s, off, from, room, j, e);
		for (off = from; off < to && !ret; ) {
			uint64_t want = MIN(to - off, BUF), got = 0;

			while (got < want && !ret) {
				ssize_t n = file ? pread(fd, buf + got, want - got, (off_t)(start + off + got)) :
						   read(fd, buf + got, want - got);

				if (n < 0 && errno != EINTR)
					ret = err_set(e, -errno, "reading: %s", g_strerror(errno));
				else if (!n)
					bytes = to = off + got; /* the end */
				if (n <= 0 && (ret || !n))
					break;
				got += n > 0 ? (uint64_t)n : 0;
			}
			if (!ret && off + got > room)
				ret = too_large(room, e);
			if (!ret)
				ret = cancelled(j, e);
			if (!ret)
				ret = put(&s, buf, got, off, e);
			off += got;
			job_progress(j, off, room);
		}
	}
	if (!ret)
		ret = put_zeros(&s, off, room, room, j, e);
	return ret ? ret : blk_flush(v, e);
}
