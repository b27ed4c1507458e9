/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <pthread.h>
#include <string.h>
#include "fake-blk.h"
#include "util/loop-i.h"

#define MAX_PENDING 4096

struct blk_vol {
	pthread_mutex_t lock;
	int refs;
	char *label;
	uint8_t *data;
	uint64_t bytes, cap; /* bytes: atomic */
	struct vh_volume_info info;
	_Atomic unsigned fail_ppm;
	_Atomic int fail_error, held, sync, failed;
	_Atomic int op_error[6];
	_Atomic uint64_t ops[6];
	int recording;
	uint64_t time, start_bytes;
	uint8_t *start;
	GArray *events;
};

struct pending {
	struct blk_io *io;
	int applied, result;
	int event; /* index, -1 */
};

struct blk_vq {
	struct blk_vol *v;
	struct vh_loop *l;
	uint32_t depth, n;
	struct pending p[MAX_PENDING];
	struct vh_task task;
	uint64_t rnd;
	struct blk_vq *self;
};

_Atomic uint64_t fake_blocking_calls;

static uint64_t rnd(uint64_t *s)
{
	*s ^= *s << 13;
	*s ^= *s >> 7;
	*s ^= *s << 17;
	return *s;
}

struct blk_vol *fake_vol_new(const char *label, uint64_t bytes, uint64_t caps)
{
	struct blk_vol *v = g_new0(struct blk_vol, 1);

	pthread_mutex_init(&v->lock, NULL);
	v->refs = 1;
	v->label = g_strdup(label);
	v->cap = bytes > (1u << 20) ? bytes : 1u << 20;
	v->data = g_malloc0(v->cap);
	v->bytes = bytes;
	v->info = (struct vh_volume_info){.size = sizeof(v->info), .fd = -1, .bytes = bytes, .logical_block = 512,
					  .caps = caps | VH_VOL_FLUSH | VH_VOL_WRITE_CACHE};
	return v;
}

void fake_vol_fail(struct blk_vol *v, unsigned per_million, int error)
{
	v->fail_error = error;
	v->fail_ppm = per_million;
}

void fake_vol_hold(struct blk_vol *v, int held) { v->held = held; }
void fake_vol_sync(struct blk_vol *v, int sync) { v->sync = sync; }
void fake_vol_fail_op(struct blk_vol *v, uint16_t op, int error) { v->op_error[op] = error; }
uint8_t *fake_vol_data(struct blk_vol *v) { return v->data; }
uint64_t fake_vol_ops(struct blk_vol *v, uint16_t op) { return v->ops[op]; }

static void reserve(struct blk_vol *v, uint64_t bytes)
{
	if (bytes > v->cap) {
		uint64_t cap = v->cap;

		while (cap < bytes)
			cap *= 2;
		v->data = g_realloc(v->data, cap);
		memset(v->data + v->cap, 0, cap - v->cap);
		v->cap = cap;
	}
	if (bytes > v->bytes)
		__atomic_store_n(&v->bytes, bytes, __ATOMIC_RELEASE);
}

void fake_vol_set(struct blk_vol *v, const void *data, uint64_t bytes)
{
	reserve(v, bytes);
	memset(v->data, 0, v->cap);
	memcpy(v->data, data, bytes);
	v->bytes = bytes;
}

struct blk_vol *blk_vol_ref(struct blk_vol *v)
{
	__atomic_add_fetch(&v->refs, 1, __ATOMIC_RELAXED);
	return v;
}

void blk_vol_put(struct blk_vol *v)
{
	if (!v || __atomic_sub_fetch(&v->refs, 1, __ATOMIC_ACQ_REL))
		return;
	for (guint k = 0; v->events && k < v->events->len; k++)
		g_free(g_array_index(v->events, struct fake_event, k).data);
	if (v->events)
		g_array_free(v->events, TRUE);
	g_free(v->start);
	g_free(v->data);
	g_free(v->label);
	pthread_mutex_destroy(&v->lock);
	g_free(v);
}

const struct vh_volume_info *blk_vol_info(const struct blk_vol *v) { return &v->info; }
uint64_t blk_vol_bytes(const struct blk_vol *v) { return __atomic_load_n(&v->bytes, __ATOMIC_ACQUIRE); }
const char *blk_vol_label(const struct blk_vol *v) { return v->label; }
int blk_vol_failed(const struct blk_vol *v) { return v->failed; }

int blk_vol_resize(struct blk_vol *v, uint64_t bytes, struct vh_err *e)
{
	pthread_mutex_lock(&v->lock);
	if (bytes < v->bytes) {
		memset(v->data + bytes, 0, v->bytes - bytes);
		v->bytes = bytes;
	} else {
		reserve(v, bytes);
	}
	if (v->recording) { /* durable when it returns: nothing is written, but the volume is that large after a crash */
		struct fake_event ev = {.op = VH_ZERO, .off = bytes, .submitted = v->time + 1, .applied = v->time + 2,
					.completed = v->time + 3};

		v->time += 3;
		g_array_append_val(v->events, ev);
	}
	pthread_mutex_unlock(&v->lock);
	return 0;
}

void fake_vol_record(struct blk_vol *v)
{
	v->events = g_array_new(FALSE, TRUE, sizeof(struct fake_event));
	v->start = g_memdup2(v->data, v->bytes);
	v->start_bytes = v->bytes;
	v->recording = 1;
}

uint64_t fake_vol_time(struct blk_vol *v)
{
	uint64_t t;

	pthread_mutex_lock(&v->lock);
	t = v->time;
	pthread_mutex_unlock(&v->lock);
	return t;
}

const struct fake_event *fake_vol_events(struct blk_vol *v, uint32_t *n)
{
	*n = v->events->len;
	return (const struct fake_event *)(void *)v->events->data;
}

static int event_begin(struct blk_vol *v, uint16_t op, uint64_t off, uint64_t len)
{
	struct fake_event ev = {.op = op, .off = off, .len = len};
	int at;

	if (!v->recording || op == VH_READ)
		return -1;
	pthread_mutex_lock(&v->lock);
	ev.submitted = ++v->time;
	g_array_append_val(v->events, ev);
	at = (int)v->events->len - 1;
	pthread_mutex_unlock(&v->lock);
	return at;
}

static void event_end(struct blk_vol *v, int event, int result)
{
	if (event < 0)
		return;
	pthread_mutex_lock(&v->lock);
	if (!result)
		g_array_index(v->events, struct fake_event, event).completed = ++v->time;
	pthread_mutex_unlock(&v->lock);
}

/* The moment it happens to the volume's contents. */
static void apply(struct blk_vol *v, uint16_t op, const struct iovec *iov, uint32_t niov, uint64_t off, uint64_t len, int event)
{
	uint64_t at = off;

	pthread_mutex_lock(&v->lock);
	if (op == VH_WRITE || op == VH_ZERO)
		reserve(v, off + len);
	if (op == VH_ZERO || op == VH_DISCARD) {
		if (off < v->bytes)
			memset(v->data + off, 0, MIN(len, v->bytes - off));
	}
	for (uint32_t k = 0; k < niov && len; k++) {
		uint64_t n = MIN(iov[k].iov_len, len), have = at < v->bytes ? MIN(n, v->bytes - at) : 0;

		if (op == VH_WRITE) {
			memcpy(v->data + at, iov[k].iov_base, n);
		} else {
			memcpy(iov[k].iov_base, v->data + at, have);
			memset((uint8_t *)iov[k].iov_base + have, 0, n - have);
		}
		at += n;
		len -= n;
	}
	if (event >= 0) {
		struct fake_event *ev = &g_array_index(v->events, struct fake_event, event);

		ev->applied = ++v->time;
		if (op == VH_WRITE) {
			ev->data = g_memdup2(v->data + off, at - off);
			ev->len = at - off;
		}
	}
	pthread_mutex_unlock(&v->lock);
}

static void keep_sectors(const struct fake_event *ev, uint8_t *out, uint64_t *rs, int part)
{
	for (uint64_t o = 0; o < ev->len;) {
		uint64_t n = 512 - (ev->off + o) % 512;

		if (n > ev->len - o)
			n = ev->len - o;
		if (!part || rnd(rs) % 4) {
			if (ev->op == VH_WRITE)
				memcpy(out + ev->off + o, ev->data + o, n);
			else
				memset(out + ev->off + o, 0, n);
		}
		o += n;
	}
}

static gint by_applied(gconstpointer a, gconstpointer b)
{
	const struct fake_event *x = *(const struct fake_event *const *)a, *y = *(const struct fake_event *const *)b;

	return x->applied < y->applied ? -1 : x->applied > y->applied;
}

void fake_vol_crash(struct blk_vol *v, uint64_t time, uint64_t seed, uint8_t **data, uint64_t *bytes)
{
	uint64_t floor = 0, size = v->start_bytes, rs = seed * 2 + 88172645463325252u;
	GPtrArray *order = g_ptr_array_new();
	uint8_t *out;
	int drop;

	for (guint k = 0; k < v->events->len; k++) {
		const struct fake_event *ev = &g_array_index(v->events, struct fake_event, k);

		if (ev->op == VH_FLUSH && ev->completed && ev->completed <= time && ev->submitted > floor)
			floor = ev->submitted;
		if (ev->op != VH_FLUSH && ev->applied && ev->applied <= time) {
			g_ptr_array_add(order, (gpointer)ev);
			size = MAX(size, ev->off + ev->len);
		}
	}
	g_ptr_array_sort(order, by_applied);
	out = g_malloc0(size);
	memcpy(out, v->start, v->start_bytes);
	drop = (int)(rnd(&rs) % 4); /* 0: nothing is lost, else more and more */
	for (guint k = 0; k < order->len; k++) {
		const struct fake_event *ev = order->pdata[k];
		int safe = ev->completed && ev->completed < floor;

		if (safe || !drop || (int)(rnd(&rs) % 4) >= drop)
			keep_sectors(ev, out, &rs, !safe && drop && rnd(&rs) % 3 == 0);
	}
	g_ptr_array_free(order, TRUE);
	*data = out;
	*bytes = size;
}

static int decide(struct blk_vol *v, uint64_t *rs, uint16_t op)
{
	if (v->op_error[op])
		return v->op_error[op];
	if (op == VH_FLUSH || !v->fail_ppm)
		return 0;
	return rnd(rs) % 1000000 < v->fail_ppm ? v->fail_error : 0;
}

static void run_one(struct blk_vq *q, struct pending *p)
{
	struct blk_io *io = p->io;
	uint64_t len = io->len;

	p->applied = 1;
	p->result = decide(q->v, &q->rnd, io->op);
	if (p->result && io->op == VH_WRITE)
		len = io->off % 512 || len % 512 ? len / 2 : len / 2 & ~UINT64_C(511); /* whole sectors where it can be */
	else if (p->result)
		return;
	apply(q->v, io->op, io->iov, io->niov, io->off, len, p->event);
}

static void vq_turn(struct vh_task *t)
{
	struct blk_vq *q = ((struct blk_vq *)((char *)t - offsetof(struct blk_vq, task)));
	struct pending ready[64];
	uint32_t n = 0, stop = q->n;

	if (q->v->held) {
		loop_post(q->l, t);
		return;
	}
	for (uint32_t k = 0; k < stop && n < 64;) {
		struct pending *p = &q->p[k];
		int sync = q->v->sync;

		if (!p->applied && (sync || rnd(&q->rnd) % 2))
			run_one(q, p);
		if (p->applied && (sync || rnd(&q->rnd) % 2)) {
			ready[n++] = *p;
			if (sync) {
				memmove(p, p + 1, (--q->n - k) * sizeof(*p));
			} else {
				*p = q->p[--q->n]; /* out of order, on purpose */
			}
			stop--;
		} else {
			k++;
		}
	}
	if (q->n)
		loop_post(q->l, t);
	for (uint32_t k = 0; k < n; k++) {
		event_end(q->v, ready[k].event, ready[k].result);
		ready[k].io->done(ready[k].io, ready[k].result);
	}
}

int blk_vq_open(struct blk_vol *v, struct vh_loop *l, uint32_t depth, struct blk_vq **out, struct vh_err *e)
{
	static _Atomic uint64_t seed;
	struct blk_vq *q = g_new0(struct blk_vq, 1);

	q->v = v;
	q->l = l;
	q->depth = depth;
	q->task.fn = vq_turn;
	q->rnd = 0x9e3779b97f4a7c15u * ++seed;
	*out = q;
	return 0;
}

void blk_vq_close(struct blk_vq *q)
{
	g_assert_cmpuint(q->n, ==, 0);
	loop_cancel(q->l, &q->task);
	g_free(q);
}

void blk_submit(struct blk_vq *q, struct blk_io *io)
{
	uint64_t sum = 0;

	g_assert_true(loop_is_current(q->l));
	g_assert_cmpuint(q->n, <, q->depth);
	if (io->op == VH_READ || io->op == VH_WRITE) {
		for (uint32_t k = 0; k < io->niov; k++)
			sum += io->iov[k].iov_len;
		g_assert_cmpuint(sum, ==, io->len);
		g_assert_cmpuint(io->len, >, 0);
	}
	q->v->ops[io->op]++;
	q->p[q->n++] = (struct pending){.io = io, .event = event_begin(q->v, io->op, io->off, io->len)};
	loop_post(q->l, &q->task);
}

void blk_kick(struct blk_vq *q) { }
int blk_poll(struct blk_vq *q) { return 0; }

static uint64_t *thread_rnd(void)
{
	static __thread uint64_t s;

	if (!s)
		s = (uint64_t)(uintptr_t)&s * 0x9e3779b97f4a7c15u | 1;
	return &s;
}

static int blocking(struct blk_vol *v, uint16_t op, void *buf, uint64_t len, uint64_t off)
{
	struct iovec iov = {buf, len};
	int event, r = decide(v, thread_rnd(), op);

	if (loop_current)
		fake_blocking_calls++;
	v->ops[op]++;
	event = event_begin(v, op, off, len);
	if (r) {
		event_end(v, event, r);
		return r;
	}
	if (!v->sync && rnd(thread_rnd()) % 8 == 0)
		g_usleep(50);
	apply(v, op, &iov, buf ? 1 : 0, off, len, event);
	event_end(v, event, 0);
	return 0;
}

int blk_read(struct blk_vol *v, void *buf, uint64_t len, uint64_t off, struct vh_err *e)
{
	return blocking(v, VH_READ, buf, len, off);
}

int blk_write(struct blk_vol *v, const void *buf, uint64_t len, uint64_t off, struct vh_err *e)
{
	return blocking(v, VH_WRITE, (void *)(uintptr_t)buf, len, off);
}

int blk_zero(struct blk_vol *v, uint64_t len, uint64_t off, struct vh_err *e) { return blocking(v, VH_ZERO, NULL, len, off); }
int blk_discard(struct blk_vol *v, uint64_t len, uint64_t off, struct vh_err *e) { return blocking(v, VH_DISCARD, NULL, len, off); }
int blk_flush(struct blk_vol *v, struct vh_err *e) { return blocking(v, VH_FLUSH, NULL, 0, 0); }

/* What copying asks of files; these volumes are memory. */
void blk_next_data(struct blk_vol *v, uint64_t off, uint64_t end, uint64_t *from, uint64_t *to)
{
	*from = off;
	*to = end;
}

int blk_share(struct blk_vol *v, uint64_t off, struct blk_vol *from, uint64_t from_off, uint64_t len)
{
	return -EOPNOTSUPP;
}

void blk_write_out(struct blk_vol *v)
{
}
