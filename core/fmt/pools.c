/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Everything that requests of a queue will ever need, allocated when the queue is opened; untouched pages cost nothing. */
#include <stdlib.h>
#include <sys/mman.h>
#include "fmt/impl.h"

/* How many allocations of a queue may be under way: all of its requests, within reason. */
#define EXCL_MIN 32u
#define EXCL_MAX 128u

static int pool_init(struct fmt_queue *q, enum buf_kind kind, size_t each, uint32_t most)
{
	struct fmt_image *i = q->image;
	struct buf_pool *p = &q->pool[kind];
	uint64_t budget;
	uint32_t n;

	pthread_mutex_lock(&i->lock);
	budget = i->budget < FMT_QUEUE_BUDGET ? i->budget : FMT_QUEUE_BUDGET;
	n = budget / each < most ? (uint32_t)(budget / each) : most;
	i->budget -= n * each;
	pthread_mutex_unlock(&i->lock);
	p->bytes = (n ? n : 1) * each;
	p->wait_tail = &p->wait;
	p->all = calloc(n ? n : 1, sizeof(*p->all));
	p->mem = mmap(NULL, p->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p->mem == MAP_FAILED)
		p->mem = NULL;
	if (!p->all || !p->mem)
		return -ENOMEM;
	for (uint32_t k = n ? n : 1; k-- > 0;) {
		p->all[k].p = p->mem + k * each;
		p->all[k].next = p->free;
		p->free = &p->all[k];
	}
	return 0;
}

static void pool_fini(struct fmt_queue *q, enum buf_kind kind)
{
	struct buf_pool *p = &q->pool[kind];

	if (p->mem) {
		munmap(p->mem, p->bytes);
		pthread_mutex_lock(&q->image->lock);
		q->image->budget += p->bytes;
		if (q->image->budget > FMT_BUDGET)
			q->image->budget = FMT_BUDGET;
		pthread_mutex_unlock(&q->image->lock);
	}
	free(p->all);
	memset(p, 0, sizeof(*p));
}

int queue_machine(struct fmt_queue *q)
{
	struct fmt_image *i = q->image;
	struct fmt_layer *top = i->layers[0];
	uint32_t extra = q->depth / 2;
	int r = -ENOMEM;

	q->max_subs = extra < 8 ? 8 : extra > 64 ? 64 : extra;
	q->reqs = calloc(q->depth, sizeof(*q->reqs));
	q->subs = calloc(q->max_subs, sizeof(*q->subs));
	q->rcache = calloc(i->nlayers, sizeof(*q->rcache));
	if (!q->reqs || !q->subs || !q->rcache)
		goto error;
	for (uint32_t k = 0; k < i->nlayers; k++)
		if (cache_init(&q->rcache[k], k < 4 ? 256 : 16))
			goto error;
	if (!i->read_only) {
		size_t unit = top->info.unit;

		q->excl_want = q->depth < EXCL_MIN ? EXCL_MIN : q->depth > EXCL_MAX ? EXCL_MAX : q->depth;
		if (excl_pool(i, q->excl_want) || cache_init(&q->wcache, 256) || pool_init(q, BUF_FILL, 2 * unit, q->depth))
			goto error;
	}
	if (crypt_machine(q))
		goto error;
	if (i->decode_unit && pool_init(q, BUF_DECODE, 3 * (size_t)i->decode_unit, 4))
		goto error;
	return 0;
error:
	queue_machine_free(q);
	return r;
}

void queue_machine_free(struct fmt_queue *q)
{
	for (uint32_t k = 0; q->rcache && k < q->image->nlayers; k++)
		cache_fini(&q->rcache[k]);
	cache_fini(&q->wcache);
	for (int k = 0; k < BUF_KINDS; k++)
		pool_fini(q, k);
	crypt_machine_free(q);
	if (q->excl_want)
		excl_unpool(q->image, q->excl_want);
	q->excl_want = 0;
	free(q->rcache);
	free(q->reqs);
	free(q->subs);
	q->rcache = NULL;
	q->reqs = q->req_free = NULL;
	q->subs = q->sub_free = NULL;
	q->nreqs = q->nsubs = 0;
}
