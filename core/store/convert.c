/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Copying a disk: setting it up, walking the source, cutting it into pieces, and their end. convert-i.h has the picture. */
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "store/convert-i.h"

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int cv_failed(struct cv *cv)
{
	return __atomic_load_n(&cv->error, __ATOMIC_RELAXED);
}

static void fail(struct cv *cv, int code)
{
	__atomic_store_n(&cv->error, code, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&cv->cond);
}

void cv_fail(struct cv *cv, int code, const char *what, const char *name, uint64_t pos)
{
	pthread_mutex_lock(&cv->lock);
	if (!cv->error) {
		if (code == -ENOSPC || code == -EDQUOT)
			err_remedy(&cv->err, "free space where the target lies");
		err_set(&cv->err, code, "%s %s at byte %llu: %s", what, name, (unsigned long long)pos, g_strerror(-code));
		fail(cv, code);
	}
	pthread_mutex_unlock(&cv->lock);
}

void cv_fail_err(struct cv *cv, struct vh_err *e)
{
	pthread_mutex_lock(&cv->lock);
	if (!cv->error) {
		err_move(&cv->err, e);
		fail(cv, cv->err.code);
	}
	pthread_mutex_unlock(&cv->lock);
}

void cv_differs(struct cv *cv, uint64_t at)
{
	pthread_mutex_lock(&cv->lock);
	cv->c->mismatch = MIN(cv->c->mismatch, at);
	__atomic_store_n(&cv->stop, 1, __ATOMIC_RELAXED);
	pthread_cond_broadcast(&cv->cond);
	pthread_mutex_unlock(&cv->lock);
}

static void write_out(struct work *w)
{
	struct cv *cv = (struct cv *)((char *)w - offsetof(struct cv, write_out));

	fmt_write_out(cv->c->dst);
	pthread_mutex_lock(&cv->lock);
	cv->writing_out = 0;
	pthread_cond_broadcast(&cv->cond);
	pthread_mutex_unlock(&cv->lock);
}

void cv_account(struct cv *cv, uint64_t *counter, uint64_t n)
{
	uint64_t done;
	int start = 0;

	pthread_mutex_lock(&cv->lock);
	*counter += n;
	done = cv->done += n;
	if (counter == &cv->c->written && cv->c->dst) {
		cv->unwritten += n;
		start = cv->unwritten >= WRITE_OUT && !cv->writing_out;
		if (start) {
			cv->unwritten = 0;
			cv->writing_out = 1;
		}
	}
	pthread_mutex_unlock(&cv->lock);
	if (start)
		worker_submit(cv->pool, &cv->write_out);
	job_progress(cv->job, (int64_t)done < 0 ? 0 : done, cv->c->bytes);
}

void piece_end(struct piece *p)
{
	struct cv *cv = p->cv;

	pthread_mutex_lock(&cv->lock);
	p->next = cv->free;
	cv->free = p;
	cv->nfree++;
	pthread_cond_signal(&cv->cond);
	pthread_mutex_unlock(&cv->lock);
}

/* A piece that is free, or NULL when it is over. */
static struct piece *take(struct cv *cv)
{
	struct piece *p = NULL;

	pthread_mutex_lock(&cv->lock);
	while (!cv->error && !cv->stop && !p) {
		struct timespec until;

		if (job_cancelled(cv->job)) {
			err_set(&cv->err, -ECANCELED, "cancelled");
			fail(cv, -ECANCELED);
			break;
		}
		p = cv->free;
		if (p)
			break;
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += 100000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&cv->cond, &cv->lock, &until);
	}
	if (p) {
		cv->free = p->next;
		cv->nfree--;
	}
	pthread_mutex_unlock(&cv->lock);
	return p;
}

/* Until everything in flight has ended. */
static void wait_all(struct cv *cv)
{
	pthread_mutex_lock(&cv->lock);
	while (cv->nfree < cv->npieces || cv->writing_out) {
		if (!cv->error && job_cancelled(cv->job)) {
			err_set(&cv->err, -ECANCELED, "cancelled");
			fail(cv, -ECANCELED);
		}
		pthread_cond_wait(&cv->cond, &cv->lock);
	}
	pthread_mutex_unlock(&cv->lock);
}

static void keep_rate(struct cv *cv, uint64_t n)
{
	uint64_t rate = cv->c->rate, due;

	cv->passed += n;
	if (!rate)
		return;
	due = cv->started + (uint64_t)((unsigned __int128)cv->passed * 1000000000u / rate);
	for (uint64_t now = now_ns(); now < due && !cv_failed(cv) && !job_cancelled(cv->job); now = now_ns())
		g_usleep(MIN((due - now) / 1000 + 1, 100000));
}

static struct piece *emit(struct cv *cv, enum piece_kind kind, uint64_t pos, uint64_t len)
{
	struct piece *p = take(cv);

	if (!p)
		return NULL;
	p->kind = kind;
	p->pos = pos;
	p->len = len;
	p->filled = 0;
	p->seq = cv->ordered ? cv->seq++ : 0;
	keep_rate(cv, kind == PIECE_ZERO ? 0 : len);
	return p;
}

/* ---- the walker ---- */

/* What has been gathered becomes a piece. */
static int data_out(struct cv *cv)
{
	uint64_t lo = cv->lo, hi = cv->hi;
	struct piece *p;

	if (lo == hi)
		return 0;
	cv->lo = cv->hi = 0;
	if (cv->unit) {
		lo -= lo % cv->unit;
		hi = MIN((hi + cv->unit - 1) / cv->unit * cv->unit, cv->c->bytes);
	}
	/* What lies between has been counted, or will be, for what it is; the piece counts it once more. */
	cv_account(cv, cv->c->differs ? &cv->c->same : &cv->c->zero, cv->gathered - (hi - lo));
	cv->gathered = 0;
	p = emit(cv, PIECE_DATA, lo, hi - lo);
	if (!p)
		return 1;
	piece_start(p);
	return 0;
}

/* Pieces end at multiples of their size in the target; what is close together there goes as one. */
static int add_data(struct cv *cv, uint64_t pos, uint64_t len)
{
	int join = cv->c->fresh || cv->unit || cv->c->compare;

	while (len) {
		uint64_t at = cv->c->dst_off + pos, window = at - at % cv->piece_bytes;
		uint64_t n = MIN(len, window + cv->piece_bytes - at);

		if (cv->hi > cv->lo && (window != cv->window || (!join && pos != cv->hi)) && data_out(cv))
			return 1;
		if (cv->hi == cv->lo)
			cv->lo = pos;
		cv->window = window;
		cv->hi = pos + n;
		cv->gathered += n;
		pos += n;
		len -= n;
	}
	return 0;
}

static int add_zeros(struct cv *cv, uint64_t pos, uint64_t len)
{
	while (len) {
		uint64_t n = MIN(len, ZERO_BYTES);
		struct piece *p = emit(cv, PIECE_ZERO, pos, n);

		if (!p)
			return 1;
		piece_start(p);
		pos += n;
		len -= n;
	}
	return 0;
}

/* The part of a range that can be shared, as far as one can know before trying. */
static int add_share(struct cv *cv, const struct fmt_range *r, uint64_t pos)
{
	uint64_t to = cv->c->dst_off, lo = pos, hi = pos + r->len, align = MAX(cv->unit, 4096u);
	uint32_t unit, sub;

	fmt_units(cv->c->dst, &unit, &sub);
	align = MAX(unit, 4096u);
	lo = (to + lo + align - 1) / align * align - to;
	hi = (to + hi) / align * align - to;
	if (lo >= hi || hi > pos + r->len || (r->addr + (lo - pos)) % 4096)
		return add_data(cv, pos, r->len);
	if (lo > pos && add_data(cv, pos, lo - pos))
		return 1;
	while (lo < hi) {
		int known = __atomic_load_n(&cv->share, __ATOMIC_RELAXED);
		uint64_t n = MIN(hi - lo, known > 0 ? SHARE_BYTES : cv->piece_bytes);
		struct piece *p;

		if (known < 0)
			break;
		if (lo + n < hi)
			n -= n % align;
		if (!n)
			break;
		p = emit(cv, PIECE_SHARE, lo, n);
		if (!p)
			return 1;
		p->share = (struct fmt_share){r->vol, r->addr + (lo - pos)};
		piece_start(p);
		lo += n;
	}
	return lo < pos + r->len ? add_data(cv, lo, pos + r->len - lo) : 0;
}

static int same_file(struct blk_vol *a, struct blk_vol *b)
{
	struct stat x, y;

	if (!a || !b)
		return 0;
	if (a == b)
		return 1;
	return blk_vol_info(a)->fd >= 0 && blk_vol_info(b)->fd >= 0 && !fstat(blk_vol_info(a)->fd, &x) &&
	       !fstat(blk_vol_info(b)->fd, &y) && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Over what the target shows already: `above` is what the source has there. */
struct diff {
	struct cv *cv;
	const struct fmt_range *above;
	uint64_t pos; /* of above */
};

static int diff_one(void *ctx, const struct fmt_range *r)
{
	struct diff *d = ctx;
	struct cv *cv = d->cv;
	const struct fmt_range *a = d->above;
	uint64_t pos = r->off - cv->c->dst_off, in = pos - d->pos;
	int same = 0;

	if (a->type == VH_EXT_ZERO)
		same = r->type == VH_EXT_ZERO;
	else if (a->type == r->type && !a->crypt && !r->crypt && same_file(a->vol, r->vol))
		/* The same bytes of the same file, which nobody writes. */
		same = a->type == VH_EXT_DATA ? a->addr + in == r->addr :
		       a->type == VH_EXT_COMPRESSED && a->addr == r->addr && !in && a->len == r->len;
	if (same) {
		cv_account(cv, &cv->c->same, r->len);
		return 0;
	}
	if (a->type == VH_EXT_ZERO && !cv->unit && !cv->c->compare)
		return add_zeros(cv, pos, r->len);
	return add_data(cv, pos, r->len);
}

static int walk_one(void *ctx, const struct fmt_range *r)
{
	struct cv *cv = ctx;
	struct convert *c = cv->c;
	uint64_t pos = r->off - c->src_off;

	if (c->differs && c->dst) {
		struct diff d = {cv, r, pos};

		return fmt_walk(c->dst, c->dst_off + pos, r->len, 1, diff_one, &d, &cv->walk_err);
	}
	if (r->type == VH_EXT_ZERO && cv->grain != CONVERT_ALL) {
		if (!c->fresh)
			return add_zeros(cv, pos, r->len);
		cv_account(cv, &c->zero, r->len);
		return 0;
	}
	if (r->type == VH_EXT_DATA && r->vol && !r->crypt && c->dst && !cv->ordered && !c->no_share &&
	    cv->grain != CONVERT_ALL && __atomic_load_n(&cv->share, __ATOMIC_RELAXED) >= 0)
		return add_share(cv, r, pos);
	return add_data(cv, pos, r->len);
}

/* A pipe is read here, in whole pieces. */
static void walk_pipe(struct cv *cv)
{
	struct convert *c = cv->c;
	uint64_t pos = 0;
	int end = 0;

	while (!end) {
		uint64_t want, got = 0;
		struct piece *p = emit(cv, PIECE_DATA, pos, 0);
		uint8_t extra;

		if (!p)
			return;
		want = cv->piece_bytes - (c->dst_off + pos) % cv->piece_bytes;
		want = MIN(want, c->bytes - pos);
		while (got < MAX(want, 1u)) {
			ssize_t n = want ? read(c->src_fd, p->buf + got, want - got) : read(c->src_fd, &extra, 1);

			if (n < 0 && errno == EINTR) {
				if (job_cancelled(cv->job))
					break;
				continue;
			}
			if (n < 0)
				cv_fail(cv, -errno, "reading", c->src_name, pos + got);
			if (n > 0 && !want)
				cv_fail(cv, -EFBIG, "more comes than the target has room for, reading", c->src_name, pos);
			if (n <= 0 || !want) {
				end = 1;
				break;
			}
			got += (uint64_t)n;
		}
		c->got += got;
		pos += got;
		p->len = p->n = got;
		p->filled = 1;
		if (got && !cv_failed(cv)) {
			piece_start(p);
		} else {
			if (cv->ordered)
				cv->seq--; /* nothing came with this number */
			piece_end(p);
		}
		if (!want)
			break;
	}
	/* What did not come is zeros. */
	if (!cv_failed(cv) && pos < c->bytes && c->dst && !c->fresh && !cv->ordered)
		add_zeros(cv, pos, c->bytes - pos);
}

/* ---- setting up ---- */

static void plan(struct cv *cv)
{
	struct convert *c = cv->c;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint32_t unit = 512, sub = 512, pieces;
	int aux = c->compress || c->differs;

	if (c->dst)
		fmt_units(c->dst, &unit, &sub);
	cv->ordered = c->compress || (!c->dst && !c->compare);
	cv->piece_bytes = aux ? PIECE_BYTES / 2 : PIECE_BYTES;
	/* A unit that is allocated for a part of it would be filled up, and written twice. */
	if (c->dst && !c->compare && unit > cv->piece_bytes)
		cv->piece_bytes = MIN(unit, PIECE_MAX);
	if (c->compress) {
		cv->unit = unit;
		/* Small enough that all cores have work, large enough that passing them on costs nothing. */
		cv->piece_bytes = MAX(unit, 256u << 10);
	}
	cv->grain = c->grain ? c->grain : MAX(sub, 4096u);
	if (c->differs && cv->grain != CONVERT_ALL)
		cv->grain = MAX(sub, 4096u);
	pieces = MEMORY / (cv->piece_bytes * (aux ? 2 : 1));
	cv->npieces = CLAMP(c->parallel ? c->parallel : 16u, 1u, MAX(pieces, 2u));
	if (c->src || (c->dst && (!cv->ordered || c->differs)))
		cv->nlanes = (unsigned)CLAMP(cpus, 1, (long)MIN(MAX_LANES, cv->npieces));
}

static int setup(struct cv *cv, struct vh_err *e)
{
	struct convert *c = cv->c;
	int aux = c->compress || c->differs;
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	size_t each = (size_t)cv->piece_bytes * (aux ? 2 : 1);
	uint8_t *mem;

	pthread_condattr_t attr;

	pthread_mutex_init(&cv->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&cv->cond, &attr);
	pthread_condattr_destroy(&attr);
	cv->write_out.fn = write_out;
	cv->mem_bytes = each * cv->npieces;
	mem = mmap(NULL, cv->mem_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	cv->mem = mem == MAP_FAILED ? NULL : mem;
	cv->pieces = g_try_new0(struct piece, cv->npieces);
	cv->ring = g_try_new0(struct piece *, cv->npieces);
	if (!cv->mem || !cv->pieces || !cv->ring)
		return err_set(e, -ENOMEM, "no memory for copying");
	for (unsigned k = 0; k < cv->npieces; k++) {
		struct piece *p = &cv->pieces[k];

		p->cv = cv;
		p->buf = cv->mem + k * each;
		p->aux = aux ? p->buf + cv->piece_bytes : NULL;
		if (cv->unit)
			p->encoded = g_new0(int64_t, cv->piece_bytes / cv->unit + 1);
		p->next = cv->free;
		cv->free = p;
	}
	cv->nfree = cv->npieces;
	/* One waits for the disk while another one computes. */
	return worker_pool_new("convert-cpu", (unsigned)MAX(cpus, 1) * 2, &cv->pool, e);
}

static void teardown(struct cv *cv)
{
	lanes_close(cv);
	worker_pool_free(cv->pool);
	for (unsigned k = 0; cv->pieces && k < cv->npieces; k++)
		g_free(cv->pieces[k].encoded);
	g_free(cv->pieces);
	g_free(cv->ring);
	if (cv->mem)
		munmap(cv->mem, cv->mem_bytes);
	err_clear(&cv->err);
	err_clear(&cv->walk_err);
	pthread_mutex_destroy(&cv->lock);
	pthread_cond_destroy(&cv->cond);
	g_free(cv);
}

/* Holes only where nothing is overwritten: in a file, at its end. */
static int seekable(int fd)
{
	off_t at = lseek(fd, 0, SEEK_CUR);
	struct stat st;

	return at >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size <= at;
}

static int check(struct convert *c, struct vh_err *e)
{
	struct fmt_encoding enc;
	struct fmt_info a, b;
	int ret;

	if (c->src) {
		fmt_get_info(c->src, &a);
		if (c->src_off > a.bytes || c->bytes > a.bytes - c->src_off)
			return err_set(e, -EINVAL, "%s ends before what is to be copied does", c->src_name);
	}
	if (!c->dst)
		return 0;
	fmt_get_info(c->dst, &b);
	if (c->compare)
		return c->dst_off > b.bytes || c->bytes > b.bytes - c->dst_off ?
			       err_set(e, -EINVAL, "%s ends before what is to be compared does", c->dst_name) : 0;
	if (c->dst_off > b.bytes || c->bytes > b.bytes - c->dst_off) {
		err_remedy(e, "make the target larger");
		return err_set(e, -ENOSPC, "%s has %llu bytes, and %llu are to be copied", c->dst_name,
			       (unsigned long long)b.bytes, (unsigned long long)c->bytes);
	}
	if (b.read_only)
		return err_set(e, -EROFS, "%s is read-only", c->dst_name);
	if (!c->compress)
		return 0;
	ret = fmt_encoding(c->dst, &enc, e);
	if (!ret && (c->dst_off % enc.unit || (!c->fresh && !c->differs)))
		ret = err_set(e, -EINVAL, "compressed data goes only where nothing is yet, in whole units");
	return ret;
}

/* What was never written to an encrypted range reads as noise, not as zeros. */
static int is_noise(void *ctx, const struct fmt_range *r)
{
	return r->type == VH_EXT_DATA && r->crypt;
}

int convert_run(struct convert *c, struct vh_job *j, struct vh_err *e)
{
	struct cv *cv;
	int ret = check(c, e);

	c->mismatch = CONVERT_ALL;
	if (!ret && c->dst && c->fresh && !c->compare) {
		ret = fmt_walk(c->dst, c->dst_off, c->bytes, 0, is_noise, NULL, e);
		if (ret > 0)
			ret = c->fresh = 0;
	}
	if (!c->dst) { /* what is read or written in order shows nothing */
		c->fresh = 1;
		c->differs = 0;
	}
	c->written = c->shared = c->zero = c->same = c->got = 0;
	if (ret || !c->bytes)
		return ret;
	cv = g_new0(struct cv, 1);
	cv->c = c;
	cv->job = j;
	cv->started = now_ns();
	cv->out_seek = !c->dst && seekable(c->dst_fd);
	plan(cv);
	ret = setup(cv, e);
	if (!ret)
		ret = lanes_open(cv, e);
	if (!ret) {
		if (c->src)
			ret = fmt_walk(c->src, c->src_off, c->bytes, 1, walk_one, cv, &cv->walk_err);
		else
			walk_pipe(cv);
		if (ret < 0)
			cv_fail_err(cv, &cv->walk_err);
		if (!cv_failed(cv) && !__atomic_load_n(&cv->stop, __ATOMIC_RELAXED))
			data_out(cv);
		wait_all(cv);
		order_finish(cv);
		ret = cv->error;
		if (ret)
			err_move(e, &cv->err);
	}
	teardown(cv);
	return ret;
}
