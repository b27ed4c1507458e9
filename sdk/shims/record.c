/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * A filter that records what changes a volume, with the data, in a file (record.h): when each request began and ended, and
 * where the flushes were. From the record and a copy of the volume at its beginning every state can be made that a crash may leave.
 *
 *	cp disk.img start.img; vhost run --disk default/web,filter=record,filter.log=/tmp/web.record ...
 *
 * Reads are not recorded. A thread of its own writes the file; when it cannot keep up, requests wait. When the file cannot be
 * written, changes fail with EIO rather than go unrecorded.
 */
#include "shim.h"
#include "record.h"
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#define LIMIT (UINT64_C(64) << 20) /* bytes that wait to be written */
#define ALIGN UINT64_C(65536) /* the most that a volume asks for */
#define RETRY_NS UINT64_C(1000000)

static const struct vh_opt opt_log = {.size = sizeof(struct vh_opt), .type = VH_OPT_PATH, .name = "log", .flags = VH_OPT_REQUIRED,
	.doc = "File to record into, which must not exist"};
static const struct vh_opt opt_data = {.size = sizeof(struct vh_opt), .type = VH_OPT_BOOL, .name = "data", .defval = "on",
	.doc = "Whether the data of writes is recorded as well"};
static const struct vh_opt *const options[] = {&opt_log, &opt_data, NULL};

static const struct vh_loop_ops *loop_ops;
static const struct vh_log_ops *log_ops;

/* An entry on its way to the file. A write's data is copied once, and the volume gets the copy: a guest may change its own. */
struct item {
	struct item *next;
	struct record_entry e;
	uint8_t *data; /* aligned as any volume wants it */
	atomic_int users; /* the file, and the request */
	struct vh_req below;
	struct iovec iov;
};

struct recorder {
	struct shim shim;
	int fd, data, closing;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct item *head, **tail;
	uint64_t waiting; /* bytes; under lock */
	atomic_int failed;
	_Atomic uint64_t ids;
	uint64_t opened;
};

struct scratch {
	struct recorder *r;
	struct item *item;
	struct vh_req *above;
};

struct record_queue {
	struct shim_queue q;
	struct vh_queue *hq;
	struct vh_timer *timer;
};

static uint64_t now_ns(clockid_t c)
{
	struct timespec t;

	clock_gettime(c, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void item_put(struct item *i)
{
	if (atomic_fetch_sub(&i->users, 1) > 1)
		return;
	free(i->data);
	free(i);
}

static struct item *item_new(struct recorder *r, uint16_t what, uint16_t op, uint64_t data)
{
	struct item *i = calloc(1, sizeof(*i));

	if (i && data)
		i->data = aligned_alloc(ALIGN, (data + ALIGN - 1) / ALIGN * ALIGN);
	if (!i || (data && !i->data)) {
		free(i);
		return NULL;
	}
	i->e = (struct record_entry){.bytes = (uint32_t)(sizeof(i->e) + (r->data ? (data + 7) / 8 * 8 : 0)), .what = what, .op = op};
	atomic_init(&i->users, 1);
	return i;
}

/* Takes over one use. The order here is the order in the file. */
static void item_push(struct recorder *r, struct item *i)
{
	pthread_mutex_lock(&r->lock);
	i->e.time = now_ns(CLOCK_MONOTONIC) - r->opened;
	*r->tail = i;
	r->tail = &i->next;
	r->waiting += i->e.bytes;
	pthread_cond_signal(&r->more);
	pthread_mutex_unlock(&r->lock);
}

static int write_all(int fd, const void *buf, uint64_t n)
{
	const uint8_t *p = buf;

	while (n) {
		ssize_t k = write(fd, p, n);

		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return k < 0 ? -errno : -ENOSPC;
		p += k;
		n -= (uint64_t)k;
	}
	return 0;
}

static int item_write(struct recorder *r, const struct item *i)
{
	static const uint8_t zeros[8];
	uint64_t n = i->e.bytes - sizeof(i->e), data = n ? i->e.len : 0;
	int ret = write_all(r->fd, &i->e, sizeof(i->e));

	if (!ret)
		ret = write_all(r->fd, i->data, data);
	return ret ? ret : write_all(r->fd, zeros, n - data);
}

static void *writer(void *arg)
{
	struct recorder *r = arg;

	pthread_mutex_lock(&r->lock);
	for (;;) {
		struct item *i = r->head;
		int ret = 0;

		if (!i) {
			if (r->closing)
				break;
			pthread_cond_wait(&r->more, &r->lock);
			continue;
		}
		r->head = i->next;
		if (!r->head)
			r->tail = &r->head;
		pthread_mutex_unlock(&r->lock);
		if (!atomic_load(&r->failed))
			ret = item_write(r, i);
		if (ret && !atomic_exchange(&r->failed, 1) && log_ops)
			log_ops->log(VH_LOG_ERROR, "record", "the record cannot be written (%s); from now on every change fails",
				     strerror(-ret));
		pthread_mutex_lock(&r->lock);
		r->waiting -= i->e.bytes;
		item_put(i);
	}
	pthread_mutex_unlock(&r->lock);
	return NULL;
}

static int writer_start(struct recorder *r)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&r->thread, NULL, writer, r);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return -ret;
}

/* ---- requests ---- */

static void record_done(struct vh_req *below, int result)
{
	struct item *i = (struct item *)((char *)below - offsetof(struct item, below));
	struct scratch *s = below->ctx;
	struct item *end = item_new(s->r, RECORD_END, below->op, 0);

	if (end) {
		end->e.id = i->e.id;
		end->e.off = i->e.off;
		end->e.len = i->e.len;
		end->e.result = result;
		item_push(s->r, end);
	} else if (below->op == VH_FLUSH && !result) {
		result = -ENOMEM; /* nobody may rely on what is not recorded */
	}
	item_put(i);
	shim_io->done(s->above, result);
}

static int record_begin(struct record_queue *q, struct vh_req *r)
{
	struct recorder *rec = (struct recorder *)q->q.shim;
	struct scratch *s = r->ctx;
	struct item *i = item_new(rec, RECORD_BEGIN, r->op, r->op == VH_WRITE ? r->len : 0);
	uint64_t at = 0;

	if (!i)
		return -ENOMEM;
	for (uint32_t k = 0; r->op == VH_WRITE && k < r->niov; k++) {
		memcpy(i->data + at, r->iov[k].iov_base, r->iov[k].iov_len);
		at += r->iov[k].iov_len;
	}
	*s = (struct scratch){rec, i, r};
	i->e.id = atomic_fetch_add(&rec->ids, 1) + 1;
	i->e.flags = r->flags;
	i->e.off = r->off;
	i->e.len = r->len;
	i->iov = (struct iovec){i->data, r->len};
	i->below = *r;
	i->below.ctx = s;
	if (r->op == VH_WRITE) {
		i->below.iov = &i->iov;
		i->below.niov = 1;
	}
	atomic_store(&i->users, 2);
	item_push(rec, i);
	shim_lower->submit(q->q.lower, &i->below, record_done);
	return 0;
}

static int too_much(struct recorder *r)
{
	int yes;

	pthread_mutex_lock(&r->lock);
	yes = r->waiting > LIMIT;
	pthread_mutex_unlock(&r->lock);
	return yes;
}

static void again(void *ctx)
{
	struct record_queue *q = ctx;

	if (too_much((struct recorder *)q->q.shim))
		loop_ops->timer_at(q->timer, loop_ops->now(q->q.loop) + RETRY_NS);
	else
		shim_io->ready(q->hq);
}

static uint32_t record_submit(void *vq, struct vh_req *const *r, uint32_t n)
{
	struct record_queue *q = vq;
	struct recorder *rec = (struct recorder *)q->q.shim;

	for (uint32_t k = 0; k < n; k++) {
		int ret = 0;

		if (r[k]->op == VH_READ) {
			shim_pass(&q->q, r[k]);
			continue;
		}
		if (too_much(rec)) {
			loop_ops->timer_at(q->timer, loop_ops->now(q->q.loop) + RETRY_NS);
			return k;
		}
		ret = atomic_load(&rec->failed) ? -EIO : record_begin(q, r[k]);
		if (ret)
			shim_io->done(r[k], ret);
	}
	return n;
}

static int record_queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **out, struct vh_err *e)
{
	int r = shim_queue_open(vol, hq, sizeof(struct record_queue), out, e);

	(void)depth;
	if (!r)
		((struct record_queue *)*out)->hq = hq;
	return r;
}

static int record_queue_start(void *vq, struct vh_loop *l)
{
	struct record_queue *q = vq;

	q->q.loop = l;
	return loop_ops->timer(l, again, q, &q->timer);
}

static void record_queue_close(void *vq)
{
	struct record_queue *q = vq;

	if (q->timer)
		loop_ops->timer_free(q->timer);
	free(q);
}

static int record_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	struct recorder *r = vol;
	struct item *begin = item_new(r, RECORD_BEGIN, RECORD_RESIZE, 0), *end = item_new(r, RECORD_END, RECORD_RESIZE, 0);
	int ret;

	if (!begin || !end || atomic_load(&r->failed)) {
		free(begin);
		free(end);
		return vh_host_ptr->err(e, -EIO, "the change cannot be recorded");
	}
	begin->e.id = end->e.id = atomic_fetch_add(&r->ids, 1) + 1;
	begin->e.len = end->e.len = bytes;
	item_push(r, begin);
	ret = shim_resize(vol, bytes, e);
	end->e.result = ret;
	item_push(r, end);
	return ret;
}

static void recorder_free(struct recorder *r)
{
	pthread_cond_destroy(&r->more);
	pthread_mutex_destroy(&r->lock);
	if (r->fd >= 0)
		close(r->fd);
	free(r);
}

static void record_close(void *vol)
{
	struct recorder *r = vol;
	struct item *i = item_new(r, RECORD_END, RECORD_CLOSE, 0);

	if (i)
		item_push(r, i);
	pthread_mutex_lock(&r->lock);
	r->closing = 1;
	pthread_cond_signal(&r->more);
	pthread_mutex_unlock(&r->lock);
	pthread_join(r->thread, NULL);
	recorder_free(r);
}

static const struct vh_volume_ops volume_ops = {
	.size = sizeof(volume_ops),
	.req_ctx = sizeof(struct scratch),
	.info = shim_info,
	.queue_open = record_queue_open,
	.queue_start = record_queue_start,
	.queue_close = record_queue_close,
	.submit = record_submit,
	.resize = record_resize,
	.close = record_close,
};

static int record_open(const struct vh_filter_open *o, void **vol, const struct vh_volume_ops **ops, struct vh_err *e)
{
	struct record_head h = {.magic = RECORD_MAGIC, .version = RECORD_VERSION, .bytes = sizeof(h)};
	struct vh_volume_info i = {.size = sizeof(i), .fd = -1};
	const char *path = vh_opt_str(o->opts, "log", NULL);
	struct recorder *r;
	int ret = shim_services(e);

	if (ret)
		return ret;
	loop_ops = vh_service(vh_host_ptr, VH_SVC_LOOP, VH_END(loop_ops, now));
	log_ops = vh_service(vh_host_ptr, VH_SVC_LOG, VH_END(log_ops, log));
	if (!loop_ops || !path)
		return vh_host_ptr->err(e, -EOPNOTSUPP, path ? "this host has no loops" : "option log is missing");
	r = calloc(1, sizeof(*r));
	if (!r)
		return vh_host_ptr->err(e, -ENOMEM, "no memory");
	r->shim.lower = o->lower;
	r->data = vh_opt_num(o->opts, "data", 1) != 0;
	r->tail = &r->head;
	r->opened = now_ns(CLOCK_MONOTONIC);
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->more, NULL);
	r->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (r->fd < 0) {
		ret = -errno;
		if (ret == -EEXIST)
			vh_host_ptr->remedy(e, "remove it, or choose another name");
		vh_host_ptr->err(e, ret, "cannot make the record %s: %s", path, strerror(-ret));
		goto fail;
	}
	shim_lower->info(o->lower, &i);
	h.volume = i.bytes;
	h.time = now_ns(CLOCK_REALTIME);
	ret = write_all(r->fd, &h, sizeof(h));
	if (!ret)
		ret = writer_start(r);
	if (ret) {
		vh_host_ptr->err(e, ret, "cannot write the record %s: %s", path, strerror(-ret));
		goto fail;
	}
	*vol = r;
	*ops = &volume_ops;
	return 0;
fail:
	recorder_free(r);
	return ret;
}

static const struct vh_filter_ops record_ops = {
	.size = sizeof(record_ops), .name = "record", .options = options, .open = record_open};

VH_PLUGIN_DEFINE("record", VH_KIND_FILTER, VH_IID_FILTER, &record_ops, "1.0", "Records what changes a volume, in a file",
		 "BSD-2-Clause", 0);
