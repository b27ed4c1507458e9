/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * An attached image: requests go to librbd with the guest's own buffers, completions come back on librbd's threads and are handed
 * to the queue's loop. Nothing here waits on a queue's thread.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include "ceph.h"

#define MAX_RANGE (UINT64_C(1) << 30) /* of a discard or zero request: so many objects at a time */

struct volume {
	struct ceph_pool *pool;
	struct vh_object *object;
	rbd_image_t image;
	uint32_t mode;
	char id[CEPH_ID_MAX], cookie[CEPH_COOKIE_MAX];
	_Atomic uint64_t bytes;
	uint64_t object_bytes, discard_gran, watch;
	atomic_int lost;
	/* The size changed outside: a thread asks for the new one, which may take a round trip. */
	pthread_mutex_t lock;
	pthread_cond_t idle;
	int asking, again, closing, watching;
};

struct scratch { /* vh_req.ctx */
	struct volume *v;
	atomic_uint handed; /* orders the request's setting up before its completion, also for those who check that */
};

/* ---- what the host asks ---- */

static int volume_info(void *vol, struct vh_volume_info *out)
{
	struct volume *v = vol;
	struct vh_volume_info i = {.size = out->size, .fd = -1};
	uint64_t h = UINT64_C(0xcbf29ce484222325);
	char text[160];

	if (v->mode == VH_ATTACH_RO || v->mode == VH_ATTACH_PEEK)
		i.caps = VH_VOL_READ_ONLY;
	else /* our own setting is no cache, but an image's metadata may turn one on: flushes are always passed on */
		i.caps = VH_VOL_WRITE_CACHE | VH_VOL_FLUSH | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_FAST_ZERO | VH_VOL_GROW |
			 VH_VOL_ZERO_ON_GROW | VH_VOL_LEASED;
	if (v->mode == VH_ATTACH_RO && v->cookie[0])
		i.caps |= VH_VOL_LEASED;
	i.bytes = atomic_load(&v->bytes);
	i.logical_block = 512;
	i.physical_block = i.min_io = 4096;
	i.opt_io = (uint32_t)v->object_bytes;
	i.buf_align = i.len_align = 1;
	i.max_segments = 1024;
	i.discard_gran = v->discard_gran;
	i.max_discard = i.max_zero = MAX_RANGE;
	snprintf(text, sizeof(text), "%s:%lld:%s:%s", v->pool->fsid, (long long)v->pool->id, v->pool->ns ? v->pool->ns : "", v->id);
	for (const char *c = text; *c; c++)
		h = (h ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
	snprintf(i.serial, sizeof(i.serial), "vh%016llx", (unsigned long long)h);
	snprintf(i.wwid, sizeof(i.wwid), "rbd.%.36s.%016llx", v->pool->fsid, (unsigned long long)h);
	memcpy(out, &i, i.size < sizeof(i) ? i.size : sizeof(i));
	return 0;
}

static int volume_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	struct volume *v = vol;
	int ret;

	if (v->mode != VH_ATTACH_RW_EXCL)
		return ceph_fail(e, -EROFS, "it is not attached for writing");
	if (bytes > INT64_MAX)
		return ceph_fail(e, -EFBIG, "no image can have %llu bytes", (unsigned long long)bytes);
	ret = rbd_resize2(v->image, bytes, 1, ceph_progress, NULL);
	if (ret)
		return ceph_fail(e, ret, "it cannot be made %llu bytes long: %s", (unsigned long long)bytes, ceph_why(ret));
	atomic_store(&v->bytes, bytes);
	return 0;
}

/* ---- the size, when others change it (through us, since we have the lock) ---- */

static void *ask_size(void *arg)
{
	struct volume *v = arg;

	pthread_mutex_lock(&v->lock);
	do {
		uint64_t bytes = 0;
		int ret;

		v->again = 0;
		pthread_mutex_unlock(&v->lock);
		ret = rbd_get_size(v->image, &bytes);
		if (!ret && bytes <= INT64_MAX && atomic_exchange(&v->bytes, bytes) != bytes && ceph_event)
			ceph_event->post(v->object, VH_EVENT_SIZE, bytes);
		pthread_mutex_lock(&v->lock);
	} while (v->again && !v->closing);
	v->asking = 0;
	pthread_cond_broadcast(&v->idle);
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

static void header_changed(void *arg)
{
	struct volume *v = arg;
	pthread_t t;

	pthread_mutex_lock(&v->lock);
	v->again = 1;
	if (!v->asking && !v->closing && !pthread_create(&t, NULL, ask_size, v)) {
		pthread_detach(t);
		v->asking = 1;
	}
	pthread_mutex_unlock(&v->lock);
}

/* ---- closing ---- */

struct closing { struct ceph_call call; struct volume *v; };

static void volume_free(struct volume *v)
{
	pthread_cond_destroy(&v->idle);
	pthread_mutex_destroy(&v->lock);
	free(v);
}

static void closing_fn(struct ceph_call *call)
{
	struct volume *v = ((struct closing *)call)->v;

	if (v->watching)
		rbd_update_unwatch(v->image, v->watch);
	pthread_mutex_lock(&v->lock);
	v->closing = 1;
	while (v->asking)
		pthread_cond_wait(&v->idle, &v->lock);
	pthread_mutex_unlock(&v->lock);
	call->result = ceph_image_shut(v->pool, v->image, v->mode == VH_ATTACH_RW_EXCL ? v->id : NULL, v->cookie);
}

static void closing_gone(struct ceph_call *call)
{
	volume_free(((struct closing *)call)->v);
	free(call);
}

static void volume_close(void *vol)
{
	struct volume *v = vol;
	struct ceph_pool *p = v->pool;
	struct closing *c = calloc(1, sizeof(*c));

	if (v->mode != VH_ATTACH_PEEK)
		ceph_attached(p, 0);
	if (!c) /* it is left behind, as in a process that dies */
		return;
	c->call.fn = closing_fn;
	c->call.gone = closing_gone;
	c->v = v;
	/* All requests have ended and nothing is cached: what is lost by not waiting is that the lock is given back. */
	if (ceph_bounded(p, &c->call, 10))
		closing_gone(&c->call);
	else
		ceph_warn("the cluster does not answer: an image of pool %s is left behind locked", p->name);
}

/* ---- queues: an image serves all threads, so there is nothing but the volume ---- */

static int queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **q, struct vh_err *e)
{
	*q = vol;
	return 0;
}

static int queue_start(void *q, struct vh_loop *l)
{
	return 0;
}

static void queue_close(void *q)
{
}

/* [a thread of librbd] */
static void completed(rbd_completion_t c, void *arg)
{
	struct vh_req *r = arg;
	struct scratch *s = r->ctx;
	ssize_t n = rbd_aio_get_return_value(c);
	int result = 0;

	atomic_load_explicit(&s->handed, memory_order_acquire);
	rbd_aio_release(c);
	if (n < 0)
		result = n < -4095 ? -EIO : (int)n;
	else if (r->op == VH_READ && (uint64_t)n != r->len) /* all or nothing */
		result = -EIO;
	if (result == -ESHUTDOWN || result == -EROFS) { /* blocklisted, or the lock is gone */
		if (!atomic_exchange(&s->v->lost, 1) && ceph_event)
			ceph_event->post(s->v->object, VH_EVENT_LEASE_LOST, 0);
		result = -EIO;
	}
	ceph_io->done_remote(r, result);
}

static int start(struct volume *v, struct vh_req *r)
{
	struct scratch *s = r->ctx;
	rbd_completion_t c;
	int ret;

	s->v = v;
	atomic_store_explicit(&s->handed, 1, memory_order_release);
	ret = rbd_aio_create_completion(r, completed, &c);
	if (ret)
		return ret;
	switch (r->op) {
	case VH_READ:
		ret = rbd_aio_readv(v->image, r->iov, (int)r->niov, r->off, c);
		break;
	case VH_WRITE:
		ret = rbd_aio_writev(v->image, r->iov, (int)r->niov, r->off, c);
		break;
	case VH_FLUSH:
		ret = rbd_aio_flush(v->image, c);
		break;
	case VH_DISCARD:
		ret = rbd_aio_discard(v->image, r->off, r->len, c);
		break;
	case VH_ZERO: /* a discard would be a hint only */
		ret = rbd_aio_write_zeroes(v->image, r->off, r->len, c, 0, 0);
		break;
	default:
		ret = -EOPNOTSUPP;
	}
	if (ret < 0) /* then it is not called back */
		rbd_aio_release(c);
	return ret < 0 ? ret : 0;
}

static uint32_t submit(void *q, struct vh_req *const *r, uint32_t n)
{
	for (uint32_t k = 0; k < n; k++) {
		int ret = start(q, r[k]);

		if (ret)
			ceph_io->done(r[k], ret);
	}
	return n;
}

static const struct vh_volume_ops volume_ops = {
	.size = sizeof(volume_ops),
	.req_ctx = sizeof(struct scratch),
	.info = volume_info,
	.queue_open = queue_open,
	.queue_start = queue_start,
	.queue_close = queue_close,
	.submit = submit,
	.resize = volume_resize,
	.close = volume_close,
};

/* ---- attaching ---- */

int ceph_attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops, struct vh_err *e)
{
	const uint64_t known = VH_ATTACH_BUFFERED; /* nothing is ever buffered, so it asks for nothing */
	struct ceph_pool *p = pool;
	rbd_image_info_t info;
	struct volume *v;
	char gran[32];
	int ret = ceph_name_ok(a->name, e);

	if (ret)
		return ret;
	if (VH_KNOWS(a, flags) && a->flags & VH_MUST_UNDERSTAND & ~known)
		return ceph_fail(e, -EOPNOTSUPP, "an attach flag that pools of type ceph do not know");
	if (a->mode == VH_ATTACH_RW_SHARED)
		return ceph_fail(e, -EOPNOTSUPP, "an image is written by one VM at a time");
	if (a->mode > VH_ATTACH_PEEK)
		return ceph_fail(e, -EINVAL, "no such attach mode");
	v = calloc(1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->idle, NULL);
	v->pool = p;
	v->object = a->object;
	v->mode = a->mode;
	ret = ceph_id(p, a->name, v->id);
	if (ret)
		ret = ceph_errno(e, ret, p, a->name);
	else
		ret = ceph_lease(p, a->name, v->id, a->mode, a->holder, &v->image, v->cookie, e);
	if (ret) {
		volume_free(v);
		return ret;
	}
	ret = rbd_stat(v->image, &info, sizeof(info));
	if (!ret && info.size > INT64_MAX)
		ret = -EFBIG;
	if (!ret && a->mode != VH_ATTACH_PEEK) {
		ret = rbd_update_watch(v->image, &v->watch, header_changed, v);
		v->watching = !ret;
	}
	if (a->mode != VH_ATTACH_PEEK)
		ceph_attached(p, 1);
	if (ret) {
		volume_close(v);
		return ceph_errno(e, ret == -ENOENT ? -EIO : ret, p, a->name);
	}
	atomic_store(&v->bytes, info.size);
	v->object_bytes = info.obj_size;
	if (rados_conf_get(p->cluster, "rbd_discard_granularity_bytes", gran, sizeof(gran)) >= 0)
		v->discard_gran = strtoull(gran, NULL, 10);
	if (v->discard_gran < 512 || v->discard_gran & (v->discard_gran - 1) || v->discard_gran > info.obj_size)
		v->discard_gran = 65536 < info.obj_size ? 65536 : info.obj_size;
	*vol = v;
	*ops = &volume_ops;
	return 0;
}
