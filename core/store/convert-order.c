/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Pieces that are stored in order. Workers encode them side by side; whoever finishes the next one stores it, and all that
 * wait behind it, so that storing costs no change of threads.
 */
#include <string.h>
#include <unistd.h>
#include "store/convert-i.h"

/* Classifies and encodes what a worker can do alone. */
static void encode(struct piece *p)
{
	struct cv *cv = p->cv;
	struct convert *c = cv->c;
	uint64_t unit = cv->unit;

	for (uint64_t at = 0, k = 0; at < p->n && !cv_failed(cv); at += unit, k++) {
		uint64_t n = MIN(unit, p->n - at);

		if (c->differs ? !memcmp(p->buf + at, p->aux + at, n) : zero_all(p->buf + at, n)) {
			p->encoded[k] = 0;
			continue;
		}
		p->encoded[k] = fmt_encode(c->dst, p->buf + at, n, p->aux + at, n);
		if (p->encoded[k] < 0 && p->encoded[k] != -ENOSPC)
			cv_fail(cv, (int)p->encoded[k], "compressing for", c->dst_name, c->dst_off + p->pos + at);
	}
}

static void store_encoded(struct piece *p)
{
	struct cv *cv = p->cv;
	struct convert *c = cv->c;
	uint64_t unit = cv->unit;
	ERR_AUTO(e);

	for (uint64_t at = 0, k = 0; at < p->n && !cv_failed(cv); at += unit, k++) {
		uint64_t n = MIN(unit, p->n - at), off = c->dst_off + p->pos + at;
		int r = 0;

		if (!p->encoded[k]) {
			cv_account(cv, c->differs ? &c->same : &c->zero, n);
			continue;
		}
		r = p->encoded[k] > 0 ? fmt_put(c->dst, off, n, p->aux + at, (uint64_t)p->encoded[k], &e) :
					fmt_pwrite(c->dst, p->buf + at, n, off, &e);
		if (r < 0)
			cv_fail_err(cv, &e);
		else
			cv_account(cv, &c->written, n);
	}
}

static int write_fd(struct cv *cv, const uint8_t *buf, uint64_t n)
{
	while (n) {
		ssize_t w = write(cv->c->dst_fd, buf, n);

		if (w < 0 && errno == EINTR)
			continue;
		if (w < 0) {
			cv_fail(cv, -errno, "writing", cv->c->dst_name, cv->out_pos);
			return -1;
		}
		buf += w;
		n -= (uint64_t)w;
		cv->out_pos += (uint64_t)w;
	}
	return 0;
}

static int write_zeros(struct cv *cv, uint64_t until)
{
	static const uint8_t zeros[64 << 10];
	uint64_t n = until - cv->out_pos;

	if (cv->out_seek && n) {
		if (lseek(cv->c->dst_fd, (off_t)n, SEEK_CUR) < 0) {
			cv_fail(cv, -errno, "writing", cv->c->dst_name, cv->out_pos);
			return -1;
		}
		cv->out_pos = until;
	}
	while (cv->out_pos < until)
		if (write_fd(cv, zeros, MIN(until - cv->out_pos, sizeof(zeros))))
			return -1;
	return 0;
}

static void store_stream(struct piece *p)
{
	struct cv *cv = p->cv;
	struct convert *c = cv->c;

	p->at = 0;
	while (p->at < p->n) {
		enum run_kind kind;
		uint64_t n = piece_run(p, &kind);

		/* What is not written is made up for when something follows. */
		if (kind == RUN_DATA && (write_zeros(cv, p->pos + p->at) || write_fd(cv, p->buf + p->at, n)))
			return;
		cv_account(cv, kind == RUN_DATA ? &c->written : &c->zero, n);
		p->at += n;
	}
}

static void store(struct piece *p)
{
	if (!cv_failed(p->cv)) {
		if (p->cv->c->compress)
			store_encoded(p);
		else
			store_stream(p);
	}
	piece_end(p);
}

static void worker(struct work *w)
{
	struct piece *p = (struct piece *)((char *)w - offsetof(struct piece, work));
	struct cv *cv = p->cv;

	if (cv->c->compress && !cv_failed(cv))
		encode(p);
	pthread_mutex_lock(&cv->lock);
	cv->ring[p->seq % cv->npieces] = p;
	if (!cv->storing) {
		cv->storing = 1;
		while ((p = cv->ring[cv->next_seq % cv->npieces]) && p->seq == cv->next_seq) {
			cv->ring[cv->next_seq++ % cv->npieces] = NULL;
			pthread_mutex_unlock(&cv->lock);
			store(p);
			pthread_mutex_lock(&cv->lock);
		}
		cv->storing = 0;
	}
	pthread_mutex_unlock(&cv->lock);
}

void order_piece(struct piece *p)
{
	p->work.fn = worker;
	worker_submit(p->cv->pool, &p->work);
}

int order_finish(struct cv *cv)
{
	struct convert *c = cv->c;

	if (c->dst || c->compare || cv_failed(cv))
		return 0;
	if (!cv->out_seek)
		return write_zeros(cv, c->bytes);
	/* The file ends where the disk does, also in a hole. */
	if (cv->out_pos < c->bytes) {
		off_t here = lseek(c->dst_fd, 0, SEEK_CUR);

		if (here < 0 || ftruncate(c->dst_fd, here + (off_t)(c->bytes - cv->out_pos)) < 0 ||
		    lseek(c->dst_fd, 0, SEEK_END) < 0) {
			cv_fail(cv, -errno, "writing", c->dst_name, cv->out_pos);
			return -1;
		}
	}
	return 0;
}
