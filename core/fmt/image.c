/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Images as a whole: opening and closing, what they are, draining, resizing, counters. */
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include "fmt/impl.h"

/* One map call over the whole disk: whether it is one extent of volume `vol` at `addr` (set by the first). */
static int whole(struct fmt_layer *l, uint32_t op, uint32_t flags, uint16_t type, uint16_t need, int first, uint32_t *vol,
		 uint64_t *addr)
{
	struct vh_extent x = {0};
	struct vh_map m = {.op = op, .flags = flags, .cap = 1, .pos = 0, .len = l->info.bytes, .ext = &x};

	if (meta_map(l, &m, 1) || m.n != 1 || x.flags & VH_EXT_CRYPT || x.type != type || (x.flags & need) != need || x.len != l->info.bytes ||
	    (type == VH_EXT_TRIM && x.bytes != x.len))
		return 0;
	if (first) {
		*vol = x.vol;
		*addr = x.addr;
	}
	return x.vol == *vol && x.addr == *addr;
}

/*
 * A disk that is one pure extent of a volume, of a plugin that has no commit(), so that no answer can ever change but
 * under drain: then nothing of the machine is needed, and requests go straight to the volume.
 */
void flat_probe(struct fmt_image *i)
{
	struct fmt_layer *l = i->layers[0];

	i->flat = i->flat_discard = 0;
	if (l->ops->commit || l->ops->flush || !l->info.bytes || i->nlayers > 1)
		return;
	if (!whole(l, VH_MAP_READ, 0, VH_EXT_DATA, VH_EXT_CACHE, 1, &i->flat_vol, &i->flat_addr))
		return;
	if (!i->read_only) {
		if (!whole(l, VH_MAP_WRITE, VH_MAP_OVERWRITE_ONLY, VH_EXT_DATA, VH_EXT_CACHE | VH_EXT_PURE, 0, &i->flat_vol,
			   &i->flat_addr))
			return;
		if ((l->info.caps & VH_FMT_ZERO) &&
		    !whole(l, VH_MAP_ZERO, 0, VH_EXT_DATA, VH_EXT_PURE, 0, &i->flat_vol, &i->flat_addr))
			return;
		if (l->info.caps & VH_FMT_DISCARD) {
			if (!whole(l, VH_MAP_DISCARD, 0, VH_EXT_TRIM, VH_EXT_PURE, 0, &i->flat_vol, &i->flat_addr))
				return;
			i->flat_discard = !!(blk_vol_info(l->vols[i->flat_vol])->caps & VH_VOL_DISCARD);
		}
	}
	i->flat = !l->faulted;
}

static void image_free(struct fmt_image *i)
{
	if (i->meta_pool)
		worker_pool_free(i->meta_pool); /* before what its work uses */
	if (i->cpu_pool)
		worker_pool_free(i->cpu_pool);
	chain_close(i);
	while (i->excl_all) {
		struct excl *a = i->excl_all;

		i->excl_all = a[0].next;
		free(a);
	}
	if (i->zeros)
		munmap(i->zeros, i->zeros_bytes);
	pthread_mutex_destroy(&i->lock);
	pthread_cond_destroy(&i->cond);
	pthread_mutex_destroy(&i->excl_lock);
	pthread_mutex_destroy(&i->flush_lock);
	pthread_mutex_destroy(&i->service_lock);
	pthread_mutex_destroy(&i->put_lock);
	free(i->label);
	free(i);
}

static int zeros_init(struct fmt_image *i, struct vh_err *e)
{
	i->zeros_bytes = 2 * (size_t)i->layers[0]->info.unit;
	if (i->zeros_bytes < (1u << 16))
		i->zeros_bytes = 1u << 16;
	i->zeros = mmap(NULL, i->zeros_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (i->zeros == MAP_FAILED) {
		i->zeros = NULL;
		return err_set(e, -ENOMEM, "no memory for an image");
	}
	return 0;
}

int fmt_open(const struct fmt_spec *s, struct fmt_image **out, struct vh_err *e)
{
	struct fmt_image *i = calloc(1, sizeof(*i));
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	int r, cpu = 0;

	if (!i) {
		blk_vol_put(s->vol);
		return err_set(e, -ENOMEM, "no memory for an image");
	}
	pthread_mutex_init(&i->lock, NULL);
	pthread_cond_init(&i->cond, NULL);
	pthread_mutex_init(&i->excl_lock, NULL);
	pthread_mutex_init(&i->flush_lock, NULL);
	pthread_mutex_init(&i->service_lock, NULL);
	pthread_mutex_init(&i->put_lock, NULL);
	i->excl_wait_tail = &i->excl_wait;
	i->flush_next_tail = &i->flush_next;
	i->budget = FMT_BUDGET;
	i->label = strdup(s->label ? s->label : blk_vol_label(s->vol) ? blk_vol_label(s->vol) : "?");
	i->read_only = s->read_only || (blk_vol_info(s->vol)->caps & VH_VOL_READ_ONLY) != 0;
	i->on_read_error = s->on_read_error;
	i->on_write_error = s->on_write_error;
	i->stopped = s->stopped;
	i->stopped_ctx = s->stopped_ctx;
	r = i->label ? worker_pool_new("fmt-meta", 16, &i->meta_pool, e) : err_set(e, -ENOMEM, "no memory for an image");
	if (r < 0) {
		blk_vol_put(s->vol);
		goto error;
	}
	r = chain_open(i, s, e);
	if (r >= 0)
		r = zeros_init(i, e);
	for (uint32_t k = 0; r >= 0 && k < i->nlayers; k++)
		cpu |= i->decode_unit || i->layers[k]->crypt;
	if (r >= 0 && cpu)
		r = worker_pool_new("fmt-cpu", cpus > 0 ? (unsigned)cpus : 1, &i->cpu_pool, e);
	if (r < 0)
		goto error;
	flat_probe(i);
	*out = i;
	return 0;
error:
	if (i->label)
		err_object(e, "image %s", i->label);
	image_free(i);
	return r;
}

void fmt_close(struct fmt_image *i)
{
	ERR_AUTO(e);

	if (!i)
		return;
	service_close(i);
	if (!i->read_only && !i->layers[0]->faulted && chain_flush(i, &e) < 0)
		log_error("fmt", "image %s: flush when closing: %s", i->label, e.cause ? e.cause : "failed");
	image_free(i);
}

static uint32_t strictest(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

void fmt_get_info(const struct fmt_image *i, struct fmt_info *out)
{
	const struct fmt_layer *top = i->layers[0];
	const struct vh_volume_info *v0 = blk_vol_info(top->vols[0]);

	memset(out, 0, sizeof(*out));
	out->bytes = load_relaxed(&i->bytes);
	out->logical_block = 512;
	out->physical_block = 512;
	for (uint32_t k = 0; k < i->nlayers; k++) {
		for (uint32_t n = 0; n < i->layers[k]->nvols; n++) {
			const struct vh_volume_info *v = i->layers[k]->vols[n] ? blk_vol_info(i->layers[k]->vols[n]) : NULL;

			if (!v)
				continue;
			out->logical_block = strictest(out->logical_block, v->logical_block);
			out->physical_block = strictest(out->physical_block, v->physical_block);
			out->min_io = strictest(out->min_io, v->min_io);
			out->opt_io = strictest(out->opt_io, v->opt_io);
		}
	}
	/* Where sectors are chained, a torn write of one ruins its other bytes too: then the guest has no smaller ones. */
	if (top->crypt) {
		out->physical_block = strictest(out->physical_block, crypt_sector(top->crypt));
		if (top->info.cipher->algorithm != VH_CIPHER_AES_XTS)
			out->logical_block = strictest(out->logical_block, crypt_sector(top->crypt));
	}
	if (out->logical_block > 4096) /* what no guest driver takes; smaller requests are read, changed and written */
		out->logical_block = 4096;
	out->max_segments = i->flat ? v0->max_segments : 0;
	out->read_only = i->read_only;
	out->discard = !i->read_only && (i->flat ? i->flat_discard : !!(top->info.caps & VH_FMT_DISCARD));
	out->zero = !i->read_only;
	out->discard_gran = i->flat ? (uint32_t)(v0->discard_gran ? v0->discard_gran : out->logical_block) : top->info.unit;
	memcpy(out->serial, v0->serial, sizeof(out->serial));
	memcpy(out->wwid, v0->wwid, sizeof(out->wwid));
}

void fmt_units(const struct fmt_image *i, uint32_t *unit, uint32_t *subunit)
{
	*unit = i->layers[0]->info.unit;
	*subunit = i->layers[0]->info.subunit;
}

void fmt_write_out(struct fmt_image *i)
{
	for (uint32_t k = 0; k < i->layers[0]->nvols; k++)
		if (i->layers[0]->vols[k])
			blk_write_out(i->layers[0]->vols[k]);
}

void fmt_leave(struct fmt_image *i, uint64_t ns)
{
	for (uint32_t l = 0; l < i->nlayers; l++)
		for (uint32_t k = 0; k < i->layers[l]->nvols; k++)
			if (i->layers[l]->vols[k])
				blk_vol_leave(i->layers[l]->vols[k], ns);
}

int fmt_trouble(const struct fmt_image *i, unsigned *late)
{
	int lost = 0;

	*late = 0;
	for (uint32_t l = 0; l < i->nlayers; l++)
		for (uint32_t k = 0; k < i->layers[l]->nvols; k++)
			if (i->layers[l]->vols[k])
				lost |= blk_vol_trouble(i->layers[l]->vols[k], late);
	return lost;
}

void fmt_get_stats(const struct fmt_image *i, struct fmt_stats *out)
{
	struct fmt_image *w = (struct fmt_image *)(uintptr_t)i; /* only its lock is written */

	pthread_mutex_lock(&w->lock);
	*out = i->closed;
	for (uint32_t k = 0; k < FMT_MAX_QUEUES; k++) {
		const uint64_t *from;
		uint64_t *to = (uint64_t *)out;

		if (!i->queues[k])
			continue;
		from = (const uint64_t *)&i->queues[k]->stats;
		for (size_t n = 0; n < sizeof(*out) / sizeof(*to); n++)
			to[n] += load_relaxed(&from[n]);
	}
	pthread_mutex_unlock(&w->lock);
	for (uint32_t k = 0; k < i->nlayers; k++)
		out->map_calls += __atomic_load_n(&i->layers[k]->map_calls, __ATOMIC_RELAXED);
}
_Static_assert(sizeof(struct fmt_stats) % sizeof(uint64_t) == 0, "counters only");

void fmt_listen(struct fmt_image *i, void (*fn)(void *ctx, uint64_t bytes), void *ctx)
{
	pthread_mutex_lock(&i->lock);
	i->listener = fn;
	i->listener_ctx = ctx;
	pthread_mutex_unlock(&i->lock);
}

static void hold_queue(void *ctx)
{
	struct fmt_queue *q = ctx;

	q->hold = 1;
	pthread_mutex_lock(&q->image->lock);
	q->idle_wanted = 1;
	q->idle = !q->inflight;
	pthread_mutex_unlock(&q->image->lock);
}

static void release_queue(void *ctx)
{
	struct fmt_queue *q = ctx;

	queue_apply(q);
	if (q->service)
		return;
	q->idle_wanted = 0;
	q->hold = 0;
	loop_defer(q->loop, &q->done_task);
}

void fmt_drain_begin(struct fmt_image *i)
{
	int first;

	pthread_mutex_lock(&i->lock);
	first = !i->drains++;
	pthread_mutex_unlock(&i->lock);
	if (!first)
		return;
	for (uint32_t k = 0; k < FMT_MAX_QUEUES; k++)
		if (i->queues[k] && !i->queues[k]->service)
			loop_call(i->queues[k]->loop, hold_queue, i->queues[k]);
	pthread_mutex_lock(&i->lock);
	for (uint32_t k = 0; k < FMT_MAX_QUEUES; k++)
		while (i->queues[k] && !i->queues[k]->service && !i->queues[k]->idle)
			pthread_cond_wait(&i->cond, &i->lock);
	pthread_mutex_unlock(&i->lock);
}

void fmt_drain_end(struct fmt_image *i)
{
	ERR_AUTO(e);
	int last;

	pthread_mutex_lock(&i->lock);
	last = i->drains == 1;
	pthread_mutex_unlock(&i->lock);
	if (last) {
		if (layer_refresh(i->layers[0], &e) < 0)
			layer_fault(i->layers[0], "info() fails on an open image");
		flat_probe(i);
	}
	pthread_mutex_lock(&i->lock);
	i->drains--;
	pthread_mutex_unlock(&i->lock);
	for (uint32_t k = 0; last && k < FMT_MAX_QUEUES; k++)
		if (i->queues[k])
			loop_call(i->queues[k]->loop, release_queue, i->queues[k]);
}
