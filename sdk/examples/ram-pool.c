/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * A pool of volumes in memory: the smallest complete storage plugin, made to be copied. It shows the pool contract, options,
 * and the submit tier, where a plugin moves the data itself; here every request is done inside submit.
 *
 * Volumes live as long as the pool is open. One that is attached and is not there is created with the pool's default size:
 *
 *	vhost run --disk type=ram,volume=scratch,pool.size=64M,format=raw ...
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <vhost/pool.h>
#include <vhost/sugar.h>

static const struct vh_host *vh_host_ptr; /* set by the entry point, which VH_PLUGIN_DEFINE makes */
static const struct vh_io_ops *io;

#define PAGE 4096u

struct pool;
struct vol {
	struct vol *next;
	struct pool *pool;
	char name[64];
	uint8_t *mem;          /* pool->limit bytes of address space, `bytes` of them usable */
	_Atomic uint64_t bytes; /* queues read it while resize() runs */
	unsigned readers, writers;
	uint32_t mode; /* of the attachment that holds it, if there is one writer */
};

struct pool {
	struct vol *vols;
	uint64_t size, limit;
};

/* What attach() returns: several may share a volume. */
struct handle {
	struct vol *vol;
	uint32_t mode;
};

static const struct vh_opt opt_size = {.size = sizeof(struct vh_opt), .type = VH_OPT_SIZE, .name = "size", .defval = "64M",
	.doc = "Size of a volume that is attached and does not exist", .min = PAGE, .max = INT64_C(1) << 46};
static const struct vh_opt opt_limit = {.size = sizeof(struct vh_opt), .type = VH_OPT_SIZE, .name = "limit", .defval = "64G",
	.doc = "Largest size of a volume", .min = PAGE, .max = INT64_C(1) << 46};
static const struct vh_opt *const pool_options[] = {&opt_size, &opt_limit, NULL};

/* ---- volumes ---- */

static uint64_t round_up(uint64_t n)
{
	return (n + PAGE - 1) & ~(uint64_t)(PAGE - 1);
}

static struct vol *vol_find(struct pool *p, const char *name)
{
	struct vol *v = p->vols;

	while (v && strcmp(v->name, name))
		v = v->next;
	return v;
}

static int vol_set_bytes(struct vol *v, uint64_t bytes, struct vh_err *e)
{
	uint64_t old = atomic_load(&v->bytes);

	if (bytes > v->pool->limit)
		return vh_host_ptr->err(e, -ENOSPC, "%llu bytes are more than the pool's limit", (unsigned long long)bytes);
	if (bytes > old && mprotect(v->mem, round_up(bytes), PROT_READ | PROT_WRITE) < 0)
		return vh_host_ptr->err(e, -errno, "no memory for %llu bytes", (unsigned long long)bytes);
	atomic_store(&v->bytes, bytes);
	if (bytes < old) { /* what grows back later reads as zeros */
		uint64_t keep = round_up(bytes);

		memset(v->mem + bytes, 0, (keep < old ? keep : old) - bytes);
		if (keep < old)
			madvise(v->mem + keep, round_up(old) - keep, MADV_DONTNEED);
	}
	return 0;
}

static void vol_free(struct vol *v)
{
	munmap(v->mem, round_up(v->pool->limit));
	free(v);
}

static int vol_new(struct pool *p, const char *name, uint64_t bytes, struct vol **out, struct vh_err *e)
{
	struct vol *v = calloc(1, sizeof(*v));
	int r;

	if (!v || strlen(name) >= sizeof(v->name)) {
		free(v);
		return vh_host_ptr->err(e, v ? -ENAMETOOLONG : -ENOMEM, v ? "the name is too long" : "no memory");
	}
	strcpy(v->name, name);
	v->pool = p;
	/* Address space only; pages are taken as they are written. */
	v->mem = mmap(NULL, round_up(p->limit), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (v->mem == MAP_FAILED) {
		free(v);
		return vh_host_ptr->err(e, -ENOMEM, "no address space for a volume; lower the pool's limit");
	}
	r = vol_set_bytes(v, bytes, e);
	if (r) {
		vol_free(v);
		return r;
	}
	v->next = p->vols;
	p->vols = v;
	*out = v;
	return 0;
}

static int volume_info(void *vol, struct vh_volume_info *i)
{
	struct handle *h = vol;
	struct vh_volume_info mine = {
		.fd = -1,
		.caps = VH_VOL_FLUSH | VH_VOL_FUA | VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_FAST_ZERO | VH_VOL_GROW |
			VH_VOL_ZERO_ON_GROW | VH_VOL_DISCARD_ZEROES | (h->mode == VH_ATTACH_RW_EXCL ? VH_VOL_LEASED : 0) |
			(h->mode == VH_ATTACH_RO || h->mode == VH_ATTACH_PEEK ? VH_VOL_READ_ONLY : 0),
		.bytes = atomic_load(&h->vol->bytes),
		.buf_align = 1,
		.len_align = 1,
		.discard_gran = PAGE,
	};

	mine.size = i->size; /* only what the host knows of the struct is written */
	memcpy(i, &mine, i->size < sizeof(mine) ? i->size : sizeof(mine));
	return 0;
}

static int volume_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	return vol_set_bytes(((struct handle *)vol)->vol, bytes, e);
}

static void volume_close(void *vol)
{
	struct handle *h = vol;

	if (h->mode == VH_ATTACH_RW_EXCL || h->mode == VH_ATTACH_RW_SHARED)
		h->vol->writers--;
	else if (h->mode == VH_ATTACH_RO)
		h->vol->readers--;
	free(h);
}

/* ---- queues: the volume itself is the queue, since requests leave nothing behind ---- */

static int queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **q, struct vh_err *e)
{
	(void)hq, (void)depth, (void)e;
	*q = ((struct handle *)vol)->vol;
	return 0;
}

static int queue_start(void *q, struct vh_loop *l)
{
	(void)q, (void)l;
	return 0;
}

static void queue_close(void *q)
{
	(void)q;
}

/* Whole pages are given back to the system, which reads as zeros. */
static void zero(uint8_t *p, uint64_t len)
{
	uint8_t *first = (uint8_t *)round_up((uintptr_t)p), *last = (uint8_t *)((uintptr_t)(p + len) & ~(uintptr_t)(PAGE - 1));

	if (first >= last || madvise(first, (size_t)(last - first), MADV_DONTNEED) < 0) {
		memset(p, 0, len);
	} else {
		memset(p, 0, (size_t)(first - p));
		memset(last, 0, (size_t)(p + len - last));
	}
}

static int request_do(struct vol *v, const struct vh_req *r)
{
	uint8_t *p = v->mem + r->off;

	if (r->off > v->pool->limit || r->len > v->pool->limit - r->off || r->off + r->len > atomic_load(&v->bytes))
		return -EIO;
	switch (r->op) {
	case VH_READ:
		for (uint32_t i = 0; i < r->niov; p += r->iov[i++].iov_len)
			memcpy(r->iov[i].iov_base, p, r->iov[i].iov_len);
		return 0;
	case VH_WRITE:
		for (uint32_t i = 0; i < r->niov; p += r->iov[i++].iov_len)
			memcpy(p, r->iov[i].iov_base, r->iov[i].iov_len);
		return 0;
	case VH_DISCARD:
	case VH_ZERO:
		zero(p, r->len);
		return 0;
	case VH_FLUSH:
		return 0;
	}
	return -EOPNOTSUPP;
}

static uint32_t submit(void *q, struct vh_req *const *r, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		io->done(r[i], request_do(q, r[i]));
	return n;
}

static const struct vh_volume_ops volume_ops = {
	.size = sizeof(volume_ops),
	.info = volume_info,
	.queue_open = queue_open,
	.queue_start = queue_start,
	.queue_close = queue_close,
	.submit = submit,
	.resize = volume_resize,
	.close = volume_close,
};

/* ---- the pool ---- */

static int ram_open(const struct vh_opts *opts, struct vh_object *o, void **pool, struct vh_err *e)
{
	struct pool *p = calloc(1, sizeof(*p));

	(void)o;
	io = vh_service(vh_host_ptr, VH_SVC_IO, VH_END(io, done));
	if (!p || !io) {
		free(p);
		return vh_host_ptr->err(e, io ? -ENOMEM : -EOPNOTSUPP, io ? "no memory" : "this host has no service vh.io/1");
	}
	p->size = (uint64_t)vh_opt_num(opts, "size", 64 << 20);
	p->limit = (uint64_t)vh_opt_num(opts, "limit", INT64_C(64) << 30);
	if (p->limit < p->size)
		p->limit = p->size;
	*pool = p;
	return 0;
}

static void ram_close(void *pool)
{
	struct pool *p = pool;

	for (struct vol *v; (v = p->vols);) {
		p->vols = v->next;
		vol_free(v);
	}
	free(p);
}

static int ram_info(void *pool, struct vh_pool_info *i, struct vh_err *e)
{
	struct pool *p = pool;
	struct vh_pool_info mine = {.size = i->size, .capacity = UINT64_MAX, .available = UINT64_MAX};

	(void)e;
	mine.caps = VH_POOL_CREATE | VH_POOL_REMOVE | VH_POOL_GROW | VH_POOL_SHRINK | VH_POOL_LEASE;
	for (struct vol *v = p->vols; v; v = v->next)
		mine.allocated += atomic_load(&v->bytes);
	memcpy(i, &mine, i->size < sizeof(mine) ? i->size : sizeof(mine));
	return 0;
}

static void stat_fill(const struct vol *v, struct vh_vol_stat *st)
{
	struct vh_vol_stat mine = {.size = st->size, .bytes = atomic_load(&v->bytes), .allocated = UINT64_MAX};

	mine.flags = VH_STAT_SPARSE | (v->readers || v->writers ? VH_STAT_IN_USE : 0);
	snprintf(mine.identity, sizeof(mine.identity), "ram:%p", (const void *)v->mem);
	memcpy(st, &mine, st->size < sizeof(mine) ? st->size : sizeof(mine));
}

static int ram_list(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	struct vh_vol_stat st = {.size = sizeof(st)};

	(void)e;
	for (struct vol *v = ((struct pool *)pool)->vols, *next; v; v = next) {
		next = v->next;
		stat_fill(v, &st);
		if (fn(ctx, v->name, with_stat ? &st : NULL))
			return 1;
	}
	return 0;
}

static int no_volume(const char *name, struct vh_err *e)
{
	return vh_host_ptr->err(e, -ENOENT, "there is no volume %s", name);
}

static int ram_stat(void *pool, const char *name, struct vh_vol_stat *st, struct vh_err *e)
{
	struct vol *v = vol_find(pool, name);

	if (!v)
		return no_volume(name, e);
	stat_fill(v, st);
	return 0;
}

static int ram_create(void *pool, struct vh_vol_spec *s, struct vh_job *j, struct vh_err *e)
{
	struct vol *v = vol_find(pool, s->name);

	(void)j;
	if (v && atomic_load(&v->bytes) != s->bytes)
		return vh_host_ptr->err(e, -EEXIST, "volume %s exists with another size", s->name);
	if (VH_KNOWS(s, zeroed))
		s->zeroed = !v;
	return v ? 0 : vol_new(pool, s->name, s->bytes, &v, e);
}

static int ram_remove(void *pool, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct pool *p = pool;

	(void)j;
	for (struct vol **at = &p->vols, *v; (v = *at); at = &v->next) {
		if (strcmp(v->name, name))
			continue;
		if (v->readers || v->writers)
			return vh_host_ptr->err(e, -EBUSY, "volume %s is in use by this process", name);
		*at = v->next;
		vol_free(v);
		return 0;
	}
	return 0; /* gone already */
}

static int ram_resize(void *pool, const char *name, uint64_t bytes, uint32_t prealloc, struct vh_job *j, struct vh_err *e)
{
	struct vol *v = vol_find(pool, name);

	(void)prealloc, (void)j;
	if (!v)
		return no_volume(name, e);
	if (v->readers || v->writers)
		return vh_host_ptr->err(e, -EBUSY, "volume %s is in use by this process", name);
	return vol_set_bytes(v, bytes, e);
}

static int ram_attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops, struct vh_err *e)
{
	struct vol *v = vol_find(pool, a->name);
	struct handle *h;
	int r;

	if (VH_KNOWS(a, flags) && a->flags & VH_MUST_UNDERSTAND & ~VH_ATTACH_BUFFERED)
		return vh_host_ptr->err(e, -EOPNOTSUPP, "an attach flag is not known");
	if (a->mode > VH_ATTACH_PEEK)
		return vh_host_ptr->err(e, -EINVAL, "there is no such mode of attach");
	if (!v) {
		r = vol_new(pool, a->name, ((struct pool *)pool)->size, &v, e);
		if (r)
			return r;
	}
	if ((a->mode == VH_ATTACH_RO && v->writers) || (a->mode == VH_ATTACH_RW_EXCL && (v->readers || v->writers)) ||
	    (a->mode == VH_ATTACH_RW_SHARED && (v->readers || (v->writers && v->mode != VH_ATTACH_RW_SHARED))))
		return vh_host_ptr->err(e, -EBUSY, "volume %s is in use by this process", a->name);
	h = calloc(1, sizeof(*h));
	if (!h)
		return vh_host_ptr->err(e, -ENOMEM, "no memory");
	h->vol = v;
	h->mode = a->mode;
	if (a->mode == VH_ATTACH_RO) {
		v->readers++;
	} else if (a->mode != VH_ATTACH_PEEK) {
		v->writers++;
		v->mode = a->mode;
	}
	*vol = h;
	*ops = &volume_ops;
	return 0;
}

static const struct vh_pool_ops ram_ops = {
	.size = sizeof(ram_ops),
	.caps = VH_POOL_CREATE | VH_POOL_REMOVE | VH_POOL_GROW | VH_POOL_SHRINK | VH_POOL_LEASE,
	.scheme = "ram",
	.pool_options = pool_options,
	.open = ram_open,
	.close = ram_close,
	.info = ram_info,
	.list = ram_list,
	.stat = ram_stat,
	.create = ram_create,
	.remove = ram_remove,
	.resize = ram_resize,
	.attach = ram_attach,
};

VH_PLUGIN_DEFINE("ram", VH_KIND_POOL, VH_IID_POOL, &ram_ops, "1.0", "Volumes in memory", "BSD-2-Clause", 0);
