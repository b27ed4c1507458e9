/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * A pool whose volumes keep nothing: each request is complete as soon as it is submitted. For measuring what the host and
 * the device model cost by themselves.
 *
 *	vhost run --disk type=null,volume=x,pool.size=1G,format=raw ...
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vhost/pool.h>
#include <vhost/sugar.h>

static const struct vh_host *vh_host_ptr;
static const struct vh_io_ops *io;

struct pool {
	uint64_t bytes;
	int zeros; /* reads fill their buffers, else leave them as they are */
};

static const char *const reads_choices[] = {"zeros", "untouched", NULL};
static const struct vh_opt opt_size = {.size = sizeof(struct vh_opt), .type = VH_OPT_SIZE, .name = "size", .defval = "1G",
	.doc = "Size of every volume", .min = 4096, .max = INT64_C(1) << 60};
static const struct vh_opt opt_reads = {.size = sizeof(struct vh_opt), .type = VH_OPT_ENUM, .name = "reads",
	.defval = "zeros", .choices = reads_choices,
	.doc = "Whether reads fill their buffers with zeros or leave them untouched"};
static const struct vh_opt *const pool_options[] = {&opt_size, &opt_reads, NULL};

static int volume_info(void *vol, struct vh_volume_info *i)
{
	struct pool *p = vol;
	struct vh_volume_info mine = {
		.size = i->size,
		.fd = -1,
		.caps = VH_VOL_FLUSH | VH_VOL_FUA | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_FAST_ZERO,
		.bytes = p->bytes,
		.buf_align = 1,
		.len_align = 1,
	};

	memcpy(i, &mine, i->size < sizeof(mine) ? i->size : sizeof(mine));
	return 0;
}

/* The volume is its pool, and its queues are as well. */
static int queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **q, struct vh_err *e)
{
	(void)hq, (void)depth, (void)e;
	*q = vol;
	return 0;
}

static int queue_start(void *q, struct vh_loop *l)
{
	(void)q, (void)l;
	return 0;
}

static void nothing(void *x)
{
	(void)x;
}

static uint32_t submit(void *q, struct vh_req *const *r, uint32_t n)
{
	const struct pool *p = q;

	for (uint32_t i = 0; i < n; i++) {
		for (uint32_t k = 0; p->zeros && r[i]->op == VH_READ && k < r[i]->niov; k++)
			memset(r[i]->iov[k].iov_base, 0, r[i]->iov[k].iov_len);
		io->done(r[i], r[i]->op >= VH_READ && r[i]->op <= VH_ZERO ? 0 : -EOPNOTSUPP);
	}
	return n;
}

static const struct vh_volume_ops volume_ops = {
	.size = sizeof(volume_ops),
	.info = volume_info,
	.queue_open = queue_open,
	.queue_start = queue_start,
	.queue_close = nothing,
	.submit = submit,
	.close = nothing,
};

static int null_open(const struct vh_opts *opts, struct vh_object *o, void **pool, struct vh_err *e)
{
	struct pool *p = calloc(1, sizeof(*p));

	(void)o;
	io = vh_service(vh_host_ptr, VH_SVC_IO, VH_END(io, done));
	if (!p || !io) {
		free(p);
		return vh_host_ptr->err(e, io ? -ENOMEM : -EOPNOTSUPP, io ? "no memory" : "this host has no service vh.io/1");
	}
	p->bytes = (uint64_t)vh_opt_num(opts, "size", 1 << 30);
	p->zeros = vh_opt_num(opts, "reads", 0) == 0;
	*pool = p;
	return 0;
}

static int null_info(void *pool, struct vh_pool_info *i, struct vh_err *e)
{
	struct vh_pool_info mine = {.size = i->size, .capacity = UINT64_MAX, .available = UINT64_MAX};

	(void)pool, (void)e;
	memcpy(i, &mine, i->size < sizeof(mine) ? i->size : sizeof(mine));
	return 0;
}

/* Every name is a volume, so none is listed. */
static int null_list(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	(void)pool, (void)with_stat, (void)fn, (void)ctx, (void)e;
	return 0;
}

static int null_stat(void *pool, const char *name, struct vh_vol_stat *st, struct vh_err *e)
{
	struct vh_vol_stat mine = {.size = st->size, .flags = VH_STAT_SPARSE, .bytes = ((struct pool *)pool)->bytes};

	(void)e;
	snprintf(mine.identity, sizeof(mine.identity), "null:%p/%.63s", pool, name);
	memcpy(st, &mine, st->size < sizeof(mine) ? st->size : sizeof(mine));
	return 0;
}

static int null_attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops, struct vh_err *e)
{
	if (VH_KNOWS(a, flags) && a->flags & VH_MUST_UNDERSTAND & ~VH_ATTACH_BUFFERED)
		return vh_host_ptr->err(e, -EOPNOTSUPP, "an attach flag is not known");
	if (a->mode > VH_ATTACH_PEEK)
		return vh_host_ptr->err(e, -EINVAL, "there is no such mode of attach");
	*vol = pool;
	*ops = &volume_ops;
	return 0;
}

static const struct vh_pool_ops null_ops = {
	.size = sizeof(null_ops),
	.scheme = "null",
	.pool_options = pool_options,
	.open = null_open,
	.close = free,
	.info = null_info,
	.list = null_list,
	.stat = null_stat,
	.attach = null_attach,
};

VH_PLUGIN_DEFINE("null", VH_KIND_POOL, VH_IID_POOL, &null_ops, "1.0", "Volumes that keep nothing, for measuring", "BSD-2-Clause", 0);
