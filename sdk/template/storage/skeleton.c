/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * skeleton: a pool type, to start from. As it stands it keeps volumes in memory: they live as long as the pool is open.
 * It shows every mandatory call, creating, removing and resizing, leases, and the submit tier. What is yours to change is
 * where a volume's bytes are: look for "YOURS".
 *
 * If your volumes are files or block devices, give their fd in info() and leave out the whole queue part: the host then
 * does the I/O itself, faster than any plugin (fd tier).
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <vhost/pool.h>
#include <vhost/sugar.h>

#define SKEL_NAME_MAX 63

struct skel_volume {
	struct skel_volume *next;
	struct skel_pool *pool;
	char name[SKEL_NAME_MAX + 1];
	int fd; /* YOURS: where the bytes are; here memory with a file's interface */
	uint64_t bytes;
	unsigned readers, writers; /* leases */
	struct vh_object *object;
};

struct skel_pool {
	pthread_mutex_t lock; /* calls of the pool and of its volumes come on different threads */
	struct skel_volume *volumes;
	uint64_t capacity, autocreate;
	unsigned attached;
};

/* One attached volume, as one user sees it. */
struct skel_handle {
	struct skel_volume *v;
	uint32_t mode;
};

struct skel_queue {
	struct skel_handle *h;
	const struct vh_io_ops *io;
};

VH_PLUGIN_NOTE("skeleton", VH_KIND_POOL);
static const struct vh_host *host;

/* ---- volumes ---- */

static struct skel_volume *skel_find(struct skel_pool *p, const char *name)
{
	for (struct skel_volume *v = p->volumes; v; v = v->next)
		if (!strcmp(v->name, name))
			return v;
	return NULL;
}

static uint64_t skel_used(const struct skel_pool *p)
{
	uint64_t sum = 0;

	for (const struct skel_volume *v = p->volumes; v; v = v->next)
		sum += v->bytes;
	return sum;
}

/* Under lock. */
static int skel_add(struct skel_pool *p, const char *name, uint64_t bytes, struct skel_volume **out, struct vh_err *e)
{
	struct skel_volume *v;

	if (!*name || strlen(name) > SKEL_NAME_MAX)
		return host->err(e, -EINVAL, "a volume's name has 1 to %d bytes", SKEL_NAME_MAX);
	if (!bytes || bytes % 512)
		return host->err(e, -EINVAL, "a volume's size is a multiple of 512 bytes, and not 0");
	if (bytes > p->capacity || p->capacity - bytes < skel_used(p))
		return host->err(e, -ENOSPC, "the pool has no room for %llu more bytes", (unsigned long long)bytes);
	v = calloc(1, sizeof(*v));
	if (!v)
		return host->err(e, -ENOMEM, "no memory");
	v->pool = p;
	v->bytes = bytes;
	memcpy(v->name, name, strlen(name) + 1);
	v->fd = memfd_create(v->name, MFD_CLOEXEC);
	if (v->fd < 0 || ftruncate(v->fd, (off_t)bytes) < 0) {
		int r = -errno;

		if (v->fd >= 0)
			close(v->fd);
		free(v);
		return host->err(e, r, "no memory for the volume: %s", strerror(-r));
	}
	v->next = p->volumes;
	p->volumes = v;
	*out = v;
	return 0;
}

static void skel_drop(struct skel_pool *p, struct skel_volume *v)
{
	struct skel_volume **at = &p->volumes;

	while (*at != v)
		at = &(*at)->next;
	*at = v->next;
	close(v->fd);
	free(v);
}

/* ---- an attached volume: struct vh_volume_ops ---- */

static int skel_vol_info(void *vol, struct vh_volume_info *i)
{
	struct skel_handle *h = vol;
	struct vh_volume_info full = {
		.fd = -1, /* submit tier */
		.caps = VH_VOL_DISCARD | VH_VOL_ZERO | VH_VOL_FAST_ZERO | VH_VOL_GROW | VH_VOL_ZERO_ON_GROW |
			VH_VOL_DISCARD_ZEROES | VH_VOL_LEASED,
		.logical_block = 512, .physical_block = 4096, .min_io = 4096, .opt_io = 65536, .buf_align = 1,
		.len_align = 512, .max_segments = 1024, .max_queues = 64, .max_bytes = 1 << 20, .discard_gran = 4096,
	};
	uint32_t size = i->size;

	if (h->mode == VH_ATTACH_RO || h->mode == VH_ATTACH_PEEK)
		full.caps |= VH_VOL_READ_ONLY;
	pthread_mutex_lock(&h->v->pool->lock);
	full.bytes = h->v->bytes;
	pthread_mutex_unlock(&h->v->pool->lock);
	snprintf(full.serial, sizeof(full.serial), "%.31s", h->v->name);
	/* Only what the host's struct has, whichever of the two is newer. */
	full.size = size;
	memcpy(i, &full, size < sizeof(full) ? size : sizeof(full));
	return 0;
}

static int skel_queue_open(void *vol, struct vh_queue *hq, uint32_t depth, void **q, struct vh_err *e)
{
	struct skel_queue *mine = calloc(1, sizeof(*mine));

	if (!mine)
		return host->err(e, -ENOMEM, "no memory");
	mine->h = vol;
	mine->io = vh_service(host, VH_SVC_IO, sizeof(struct vh_io_ops));
	*q = mine;
	return 0;
}

static int skel_queue_start(void *q, struct vh_loop *l)
{
	return 0; /* YOURS: watch your connection's fd on the loop */
}

static void skel_queue_close(void *q)
{
	free(q);
}

/* YOURS: send the request to where the bytes are, and complete it when the answer comes; never block here. */
static int skel_do(struct skel_volume *v, const struct vh_req *r)
{
	ssize_t n;

	switch (r->op) {
	case VH_READ:
		n = preadv(v->fd, r->iov, (int)r->niov, (off_t)r->off);
		return n < 0 ? -errno : (uint64_t)n == r->len ? 0 : -EIO;
	case VH_WRITE:
		n = pwritev(v->fd, r->iov, (int)r->niov, (off_t)r->off);
		return n < 0 ? -errno : (uint64_t)n == r->len ? 0 : -EIO;
	case VH_DISCARD:
	case VH_ZERO:
		return fallocate(v->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)r->off, (off_t)r->len) < 0 ?
			-errno : 0;
	case VH_FLUSH:
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

static uint32_t skel_submit(void *q, struct vh_req *const *r, uint32_t n)
{
	struct skel_queue *mine = q;

	for (uint32_t i = 0; i < n; i++)
		mine->io->done(r[i], skel_do(mine->h->v, r[i]));
	return n;
}

static int skel_vol_resize(void *vol, uint64_t bytes, struct vh_err *e)
{
	struct skel_handle *h = vol;
	struct skel_volume *v = h->v;
	struct skel_pool *p = v->pool;
	int r = 0;

	pthread_mutex_lock(&p->lock);
	if (!bytes || bytes % 512)
		r = host->err(e, -EINVAL, "a volume's size is a multiple of 512 bytes, and not 0");
	else if (bytes > v->bytes && bytes - v->bytes > p->capacity - skel_used(p))
		r = host->err(e, -ENOSPC, "the pool has no room for that");
	else if (ftruncate(v->fd, (off_t)bytes) < 0)
		r = host->err(e, -errno, "cannot change the size: %s", strerror(errno));
	else
		v->bytes = bytes;
	pthread_mutex_unlock(&p->lock);
	return r;
}

static void skel_vol_close(void *vol)
{
	struct skel_handle *h = vol;
	struct skel_pool *p = h->v->pool;

	pthread_mutex_lock(&p->lock);
	if (h->mode == VH_ATTACH_RO)
		h->v->readers--;
	else if (h->mode != VH_ATTACH_PEEK)
		h->v->writers--;
	p->attached--;
	pthread_mutex_unlock(&p->lock);
	free(h);
}

static const struct vh_volume_ops skel_volume_ops = {
	.size = sizeof(struct vh_volume_ops),
	.info = skel_vol_info,
	.queue_open = skel_queue_open,
	.queue_start = skel_queue_start,
	.queue_close = skel_queue_close,
	.submit = skel_submit,
	.resize = skel_vol_resize,
	.close = skel_vol_close,
};

/* ---- the pool: struct vh_pool_ops ---- */

static int skel_open(const struct vh_opts *opts, struct vh_object *o, void **pool, struct vh_err *e)
{
	struct skel_pool *p;

	/* What the pool cannot do without is asked for here, where a person reads the answer. */
	if (!vh_service(host, VH_SVC_IO, sizeof(struct vh_io_ops)))
		return host->err(e, -EOPNOTSUPP, "this vhost has no service %s", VH_SVC_IO);
	p = calloc(1, sizeof(*p));
	if (!p)
		return host->err(e, -ENOMEM, "no memory");
	pthread_mutex_init(&p->lock, NULL);
	p->capacity = (uint64_t)vh_opt_num(opts, "capacity", 0);
	p->autocreate = (uint64_t)vh_opt_num(opts, "autocreate", 0) & ~UINT64_C(511);
	*pool = p;
	return 0;
}

static void skel_close(void *pool)
{
	struct skel_pool *p = pool;

	while (p->volumes)
		skel_drop(p, p->volumes);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

static int skel_info(void *pool, struct vh_pool_info *i, struct vh_err *e)
{
	struct skel_pool *p = pool;
	struct vh_pool_info full = {.size = i->size, .caps = VH_POOL_CREATE | VH_POOL_REMOVE | VH_POOL_GROW |
		VH_POOL_SHRINK | VH_POOL_LEASE};

	pthread_mutex_lock(&p->lock);
	full.capacity = p->capacity;
	full.allocated = skel_used(p);
	full.available = full.capacity - full.allocated;
	pthread_mutex_unlock(&p->lock);
	memcpy(i, &full, i->size < sizeof(full) ? i->size : sizeof(full));
	return 0;
}

static void skel_fill_stat(const struct skel_volume *v, struct vh_vol_stat *st)
{
	struct vh_vol_stat full = {.size = st->size, .bytes = v->bytes, .allocated = UINT64_MAX};
	struct stat s;

	if (!fstat(v->fd, &s)) {
		full.allocated = (uint64_t)s.st_blocks * 512;
		full.mtime = (int64_t)s.st_mtim.tv_sec * 1000000000 + s.st_mtim.tv_nsec;
		/* YOURS: the same for every name and path by which this volume can be reached, on every host. */
		snprintf(full.identity, sizeof(full.identity), "skeleton:%llx:%llx", (unsigned long long)s.st_dev,
			 (unsigned long long)s.st_ino);
	}
	if (v->readers || v->writers)
		full.flags |= VH_STAT_IN_USE;
	memcpy(st, &full, st->size < sizeof(full) ? st->size : sizeof(full));
}

static int skel_list(void *pool, int with_stat, vh_list_fn *fn, void *ctx, struct vh_err *e)
{
	struct skel_pool *p = pool;
	int r = 0;

	pthread_mutex_lock(&p->lock);
	for (struct skel_volume *v = p->volumes; v && !r; v = v->next) {
		struct vh_vol_stat st = {.size = sizeof(st)};

		skel_fill_stat(v, &st);
		r = fn(ctx, v->name, with_stat ? &st : NULL);
	}
	pthread_mutex_unlock(&p->lock);
	return r;
}

static int skel_stat(void *pool, const char *name, struct vh_vol_stat *st, struct vh_err *e)
{
	struct skel_pool *p = pool;
	struct skel_volume *v;

	pthread_mutex_lock(&p->lock);
	v = skel_find(p, name);
	if (v)
		skel_fill_stat(v, st);
	pthread_mutex_unlock(&p->lock);
	return v ? 0 : host->err(e, -ENOENT, "there is no such volume");
}

/* Idempotent: the same spec again is success, another size is -EEXIST. */
static int skel_create(void *pool, struct vh_vol_spec *s, struct vh_job *j, struct vh_err *e)
{
	struct skel_pool *p = pool;
	struct skel_volume *v;
	int r = 0;

	pthread_mutex_lock(&p->lock);
	v = skel_find(p, s->name);
	if (v && v->bytes != s->bytes)
		r = host->err(e, -EEXIST, "there is one already, of %llu bytes", (unsigned long long)v->bytes);
	else if (!v)
		r = skel_add(p, s->name, s->bytes, &v, e);
	pthread_mutex_unlock(&p->lock);
	if (!r && VH_KNOWS(s, zeroed))
		s->zeroed = 1;
	return r;
}

static int skel_remove(void *pool, const char *name, struct vh_job *j, struct vh_err *e)
{
	struct skel_pool *p = pool;
	struct skel_volume *v;
	int r = 0;

	pthread_mutex_lock(&p->lock);
	v = skel_find(p, name);
	if (v && (v->readers || v->writers))
		r = host->err(e, -EBUSY, "it is in use by this process");
	else if (v)
		skel_drop(p, v);
	pthread_mutex_unlock(&p->lock);
	return r;
}

static int skel_resize(void *pool, const char *name, uint64_t bytes, uint32_t prealloc, struct vh_job *j,
		       struct vh_err *e)
{
	struct skel_pool *p = pool;
	struct skel_handle h = {0};
	int busy = 0;

	pthread_mutex_lock(&p->lock);
	h.v = skel_find(p, name);
	busy = h.v && (h.v->readers || h.v->writers);
	pthread_mutex_unlock(&p->lock);
	if (!h.v)
		return host->err(e, -ENOENT, "there is no such volume");
	if (busy)
		return host->err(e, -EBUSY, "it is in use by this process");
	return skel_vol_resize(&h, bytes, e);
}

/* Under lock. Readers share, a writer is alone, shared writers share among themselves; a peek takes no lease. */
static int skel_lease(struct skel_volume *v, uint32_t mode, struct vh_err *e)
{
	switch (mode) {
	case VH_ATTACH_PEEK:
		return 0;
	case VH_ATTACH_RO:
		if (v->writers)
			return host->err(e, -EBUSY, "it is written by this process");
		v->readers++;
		return 0;
	case VH_ATTACH_RW_EXCL:
		if (v->writers || v->readers)
			return host->err(e, -EBUSY, "it is in use by this process");
		v->writers++;
		return 0;
	default:
		return host->err(e, -EOPNOTSUPP, "this pool has no shared writers");
	}
}

static int skel_attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops,
		       struct vh_err *e)
{
	struct skel_pool *p = pool;
	struct skel_handle *h;
	struct skel_volume *v;
	int r = 0;

	/* Flags that must be understood and are not: refuse. (Buffered or not makes no difference in memory.) */
	if (a->flags & VH_MUST_UNDERSTAND & ~VH_ATTACH_BUFFERED)
		return host->err(e, -EOPNOTSUPP, "unknown attach flags 0x%llx", (unsigned long long)a->flags);
	h = calloc(1, sizeof(*h));
	if (!h)
		return host->err(e, -ENOMEM, "no memory");
	pthread_mutex_lock(&p->lock);
	v = skel_find(p, a->name);
	if (!v && p->autocreate)
		r = skel_add(p, a->name, p->autocreate, &v, e);
	else if (!v)
		r = host->err(e, -ENOENT, "there is no such volume");
	if (!r)
		r = skel_lease(v, a->mode, e);
	if (!r) {
		v->object = a->object;
		p->attached++;
	}
	pthread_mutex_unlock(&p->lock);
	if (r) {
		free(h);
		return r;
	}
	h->v = v;
	h->mode = a->mode;
	*vol = h;
	*ops = &skel_volume_ops;
	return 0;
}

/* ---- options, tables, entry ---- */

static const struct vh_opt skel_opt_capacity = {
	sizeof(struct vh_opt), VH_OPT_SIZE, 0, "capacity", "most bytes that all volumes together may have", "1G", NULL, 512,
	INT64_C(1) << 50};
static const struct vh_opt skel_opt_autocreate = {
	sizeof(struct vh_opt), VH_OPT_SIZE, 0, "autocreate",
	"size of a volume that springs into being when it is first used; 0 for none", "0", NULL, 0, INT64_C(1) << 50};
static const struct vh_opt *const skel_options[] = {&skel_opt_capacity, &skel_opt_autocreate, NULL};

static const struct vh_pool_ops skel_ops = {
	.size = sizeof(struct vh_pool_ops),
	.caps = VH_POOL_CREATE | VH_POOL_REMOVE | VH_POOL_GROW | VH_POOL_SHRINK | VH_POOL_LEASE,
	.scheme = "skeleton",
	.pool_options = skel_options,
	.open = skel_open,
	.close = skel_close,
	.info = skel_info,
	.list = skel_list,
	.stat = skel_stat,
	.create = skel_create,
	.remove = skel_remove,
	.resize = skel_resize,
	.attach = skel_attach,
};

static const void *skel_get(const char *iid)
{
	return strcmp(iid, VH_IID_POOL) ? NULL : &skel_ops;
}

static const char *const skel_interfaces[] = {VH_IID_POOL, NULL};
static const struct vh_plugin skel_plugin = {
	.size = sizeof(struct vh_plugin),
	.built_minor = VH_ABI_MINOR,
	.id = "skeleton",
	.version = "0.1",
	.summary = "Volumes in memory",
	.license = "BSD-2-Clause",
	.interfaces = skel_interfaces,
	.get = skel_get,
};

VH_EXPORT int vh_plugin_entry_v1(const struct vh_host *h, const struct vh_plugin **out)
{
	host = h;
	*out = &skel_plugin;
	return 0;
}
