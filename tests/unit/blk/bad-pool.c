/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A pool in memory that breaks one rule of the data path, as its option says: to see that vhost-plugin-check notices. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/pool.h>
#include <vhost/sugar.h>

static const struct vh_host *vh_host_ptr;
static const struct vh_io_ops *io;
static const struct vh_loop_ops *loops;

#define BYTES (8u << 20)
enum bad { GOOD, DOUBLE, LATE_TOUCH, WRONG_DATA, FOREIGN_DONE, TOO_MANY, POSITIVE, LEAK_FD, NOT_CLOEXEC, BIG_INFO, SHARED_WRITER,
	   UNKNOWN_OK, SHORT_CTX };
static const char *const choices[] = {"good", "double", "late-touch", "wrong-data", "foreign-done", "too-many", "positive",
	"leak-fd", "not-cloexec", "big-info", "shared-writer", "unknown-ok", "short-ctx", NULL};
static const struct vh_opt opt_bad = {.size = sizeof(struct vh_opt), .type = VH_OPT_ENUM, .name = "bad", .defval = "good",
	.choices = choices, .doc = "Which rule is broken"};
static const struct vh_opt *const options[] = {&opt_bad, NULL};

struct pool {
	uint8_t *mem;
	enum bad bad;
	unsigned seen, users;
	int exists;
};

struct queue {
	struct pool *p;
	struct vh_loop *l;
	struct vh_task late;
	const struct iovec *iov;
	struct iovec copy;
};

static int vol_info(void *vol, struct vh_volume_info *i)
{
	struct vh_volume_info mine = {.size = i->size, .fd = -1, .caps = VH_VOL_FLUSH, .bytes = BYTES, .buf_align = 1, .len_align = 1};
	struct pool *p = vol;

	if (p->users & 0x100)
		mine.caps |= VH_VOL_READ_ONLY;
	memcpy(i, &mine, p->bad != BIG_INFO && i->size < sizeof(mine) ? i->size : sizeof(mine));
	return 0;
}

static int queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **out, struct vh_err *e)
{
	struct queue *q = calloc(1, sizeof(*q));

	q->p = vol;
	if (q->p->bad == LEAK_FD)
		open("/dev/null", O_RDONLY | O_CLOEXEC);
	*out = q;
	return 0;
}

static int queue_start(void *vq, struct vh_loop *l)
{
	((struct queue *)vq)->l = l;
	return 0;
}

static void late_fn(struct vh_task *t)
{
	struct queue *q = (struct queue *)((char *)t - offsetof(struct queue, late));

	((volatile uint8_t *)q->copy.iov_base)[0] = 1;
}

static void *foreign(void *r)
{
	io->done(r, 0);
	return NULL;
}

static uint32_t submit(void *vq, struct vh_req *const *r, uint32_t n)
{
	struct queue *q = vq;
	struct pool *p = q->p;

	for (uint32_t i = 0; i < n; i++) {
		uint8_t *at = p->mem + r[i]->off;
		int odd = __atomic_add_fetch(&p->seen, 1, __ATOMIC_RELAXED) % 50 == 0, res = 0;
		pthread_t t;

		for (uint32_t k = 0; r[i]->op <= VH_WRITE && k < r[i]->niov; at += r[i]->iov[k++].iov_len) {
			if (r[i]->op == VH_READ)
				memcpy(r[i]->iov[k].iov_base, at, r[i]->iov[k].iov_len);
			else if (!(odd && p->bad == WRONG_DATA))
				memcpy(at, r[i]->iov[k].iov_base, r[i]->iov[k].iov_len);
		}
		if (r[i]->op > VH_FLUSH && p->bad != UNKNOWN_OK)
			res = -EOPNOTSUPP;
		if (p->bad == SHORT_CTX)
			memset(r[i]->ctx, 0, 64);
		if (odd && p->bad == POSITIVE)
			res = 512;
		if (odd && p->bad == LATE_TOUCH && r[i]->op == VH_READ) {
			q->copy = r[i]->iov[0];
			q->late.fn = late_fn;
			io->done(r[i], 0);
			loops->post(q->l, &q->late);
			continue;
		}
		if (odd && p->bad == FOREIGN_DONE) {
			pthread_create(&t, NULL, foreign, r[i]);
			pthread_join(t, NULL);
			continue;
		}
		io->done(r[i], res);
		if (odd && p->bad == DOUBLE)
			io->done(r[i], res);
	}
	return n + (p->bad == TOO_MANY);
}

static void vol_close(void *vol)
{
	((struct pool *)vol)->users = 0;
}

static const struct vh_volume_ops vol_ops = {.size = sizeof(vol_ops), .req_ctx = 16, .info = vol_info, .queue_open = queue_open,
	.queue_start = queue_start, .queue_close = free, .submit = submit, .close = vol_close};

static int pool_open(const struct vh_opts *o, struct vh_object *obj, void **pool, struct vh_err *e)
{
	struct pool *p = calloc(1, sizeof(*p));

	io = vh_service(vh_host_ptr, VH_SVC_IO, VH_END(io, ready));
	loops = vh_service(vh_host_ptr, VH_SVC_LOOP, VH_END(loops, post));
	p->mem = calloc(1, BYTES);
	p->bad = (enum bad)vh_opt_num(o, "bad", 0);
	if (p->bad == NOT_CLOEXEC)
		open("/dev/null", O_RDONLY);
	*pool = p;
	return 0;
}

static void pool_close(void *pool)
{
	free(((struct pool *)pool)->mem);
	free(pool);
}

static int pool_info(void *pool, struct vh_pool_info *i, struct vh_err *e)
{
	return 0;
}

static int pool_list(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	return 0;
}

static int pool_stat(void *pool, const char *name, struct vh_vol_stat *st, struct vh_err *e)
{
	strcpy(st->identity, "bad");
	return 0;
}

static int attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops, struct vh_err *e)
{
	struct pool *p = pool;
	int reads = a->mode == VH_ATTACH_RO;

	if (p->bad != SHARED_WRITER && p->users && !(reads && p->users & 0x100))
		return vh_host_ptr->err(e, -EBUSY, "in use by this process");
	p->users = reads ? 0x100 : 1;
	*vol = p;
	*ops = &vol_ops;
	return 0;
}

static const struct vh_pool_ops ops = {.size = sizeof(ops), .caps = VH_POOL_LEASE, .scheme = "bad", .pool_options = options,
	.open = pool_open, .close = pool_close, .info = pool_info, .list = pool_list, .stat = pool_stat, .attach = attach};

VH_PLUGIN_DEFINE("bad", VH_KIND_POOL, VH_IID_POOL, &ops, "1.0", "Breaks a rule on purpose", "LGPL-2.1-or-later", 0);
