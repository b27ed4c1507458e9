/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A volume: what the plugin says about it, checked and completed; which engine serves it; its life. */
#include <fcntl.h>
#include <glib.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "blk/blk-i.h"
#include "util/log.h"

#define WORKERS_MAX 16

static int power_of_two(uint64_t n)
{
	return n && !(n & (n - 1));
}

/* Replaces "unknown" by what the contract says it means, and refuses nonsense. */
static int check_info(struct blk_vol *v, struct vh_err *e)
{
	struct vh_volume_info *i = &v->info;
	int free_form = i->fd >= 0 && !(i->caps & VH_VOL_FD_DIRECT);
	uint64_t gran;

	i->serial[sizeof(i->serial) - 1] = 0;
	i->wwid[sizeof(i->wwid) - 1] = 0;
	if (!i->logical_block)
		i->logical_block = 512;
	if (!i->physical_block)
		i->physical_block = i->logical_block;
	if (!i->buf_align)
		i->buf_align = i->logical_block;
	if (!i->len_align)
		i->len_align = i->logical_block;
	if (free_form) /* the page cache takes anything */
		i->buf_align = i->len_align = 1;
	if (!i->max_segments || i->max_segments > BLK_IOV_MAX)
		i->max_segments = BLK_IOV_MAX;
	if (!i->max_bytes || i->max_bytes > BLK_BYTES_MAX)
		i->max_bytes = BLK_BYTES_MAX;
	i->max_bytes &= ~((uint64_t)i->len_align - 1);
	if (!power_of_two(i->logical_block) || !power_of_two(i->physical_block) || !power_of_two(i->buf_align) ||
	    !power_of_two(i->len_align) || i->len_align > BLK_ALIGN_MAX || i->buf_align > BLK_ALIGN_MAX ||
	    i->logical_block > BLK_ALIGN_MAX)
		return err_set(e, -EPROTO, "its block sizes and alignments are not powers of two up to 64K");
	if (!i->max_bytes)
		return err_set(e, -EPROTO, "its largest request is smaller than a block");
	if (i->max_zero && !(i->max_zero &= ~((uint64_t)i->len_align - 1)))
		return err_set(e, -EPROTO, "its largest zero request is smaller than a block");
	gran = i->discard_gran > i->len_align ? i->discard_gran : i->len_align;
	if (i->max_discard && !(i->max_discard -= i->max_discard % gran))
		return err_set(e, -EPROTO, "its largest discard is smaller than its granularity");
	if (i->bytes > INT64_MAX)
		return err_set(e, -EPROTO, "its size is impossible");
	if (i->fd >= 0 && (i->fd_base % i->len_align || i->fd_base > INT64_MAX - i->bytes))
		return err_set(e, -EPROTO, "it begins at a misaligned byte of its file");
	if (i->caps & VH_VOL_GROW && !v->ops->resize)
		i->caps &= ~VH_VOL_GROW;
	return 0;
}

static int choose_engine(struct blk_vol *v, const struct blk_config *c, struct vh_err *e)
{
	int direct;

	if (v->fd < 0) {
		if (c->engine != BLK_ENGINE_AUTO)
			log_info("blk", "volume %s: its plugin moves the data, engine= has no effect", v->label);
		v->backend = &blk_submit_tier;
		return 0;
	}
	direct = v->info.caps & VH_VOL_FD_DIRECT && blk_fd_direct_ok(v);
	v->buffered = !direct;
	v->engine = c->engine;
	if (v->engine == BLK_ENGINE_AUTO)
		v->engine = direct ? BLK_ENGINE_AIO : BLK_ENGINE_THREADS;
	if (v->engine == BLK_ENGINE_AIO && !direct)
		log_warn("blk", "volume %s: libaio without O_DIRECT waits for the disk inside its system call", v->label);
	switch (v->engine) {
	case BLK_ENGINE_AIO:
		v->backend = &blk_aio;
		return 0;
	case BLK_ENGINE_URING:
		v->backend = &blk_uring;
		return 0;
	case BLK_ENGINE_THREADS:
		v->backend = &blk_threads;
		return 0;
	case BLK_ENGINE_AUTO:
		break;
	}
	return err_set(e, -EINVAL, "there is no I/O engine of number %d", (int)c->engine);
}

static int tier_complete(const struct vh_volume_ops *ops)
{
	return ops->queue_open && ops->queue_start && ops->queue_close && ops->submit;
}

/* What blk_vol_make() has made of it, however far it came. */
static void vol_free(struct blk_vol *v)
{
	if (v->fd >= 0)
		close(v->fd);
	pthread_mutex_destroy(&v->events.calling);
	pthread_cond_destroy(&v->cond);
	pthread_mutex_destroy(&v->lock);
	pthread_mutex_destroy(&v->main_lock);
	pthread_mutex_destroy(&v->sync.mutex);
	g_free(v->label);
	free(v);
}

/* On failure `vol` stays the caller's. */
int blk_vol_make(void *vol, const struct vh_volume_ops *ops, const struct blk_config *c, struct blk_vol *lower,
		 struct blk_vol **out, struct vh_err *e)
{
	struct blk_vol *v = aligned_alloc(64, sizeof(*v));
	const char *label = c->label ? c->label : "volume";
	int r, theirs;

	if (!v)
		return err_set(e, -ENOMEM, "no memory for volume %s", label);
	memset(v, 0, sizeof(*v));
	atomic_store(&v->refs, 1);
	v->vol = vol;
	v->ops = ops;
	v->fd = -1;
	v->label = g_strdup(label);
	v->timeout = c->io_timeout_ns;
	v->ranges_tail = &v->ranges;
	pthread_mutex_init(&v->main_lock, NULL);
	pthread_mutex_init(&v->sync.mutex, NULL);
	pthread_mutex_init(&v->lock, NULL);
	v->flush.covered = UINT64_MAX;
	pthread_cond_init(&v->cond, NULL);
	blk_event_init(v);

	v->info = (struct vh_volume_info){.size = sizeof(v->info), .fd = -1};
	r = ops->info(vol, &v->info);
	if (r) {
		r = err_set(e, r < 0 ? r : -EPROTO, "its plugin cannot tell about it: %s", strerror(r < 0 ? -r : EPROTO));
		goto fail;
	}
	theirs = v->info.fd;
	r = check_info(v, e);
	if (r)
		goto fail;
	if (ops->req_ctx > 4096) {
		r = err_set(e, -EPROTO, "its plugin wants %u bytes per request, 4096 are the most", ops->req_ctx);
		goto fail;
	}
	if (theirs >= 0) {
		v->fd = fcntl(theirs, F_DUPFD_CLOEXEC, 3);
		if (v->fd < 0) {
			r = err_set(e, -errno, "its file descriptor cannot be used: %s", strerror(errno));
			goto fail;
		}
	} else if (!tier_complete(ops)) {
		r = err_set(e, -EPROTO, "its plugin gives neither a file descriptor nor a way to submit requests");
		goto fail;
	}
	v->info.fd = v->fd;
	v->fd_base = v->info.fd_base;
	if (v->fd >= 0 && c->no_flush)
		v->info.caps &= ~(VH_VOL_FLUSH | VH_VOL_FUA | VH_VOL_WRITE_CACHE);
	else if (v->fd >= 0)
		v->info.caps |= VH_VOL_FLUSH | VH_VOL_FUA;
	else
		v->info.bytes -= v->info.bytes % v->info.len_align; /* a last part of a block cannot be reached */
	if (c->read_only)
		v->info.caps |= VH_VOL_READ_ONLY;
	v->caps = v->info.caps;
	atomic_store(&v->state, v->caps & VH_VOL_READ_ONLY ? BLK_READ_ONLY : 0);
	atomic_store(&v->bytes, v->info.bytes);
	v->max_bytes = v->info.max_bytes;
	v->max_segments = v->info.max_segments;
	v->buf_mask = v->info.buf_align - 1;
	v->len_mask = v->info.len_align - 1;
	/* Without a write cache every completed write is durable as it is. */
	if (v->caps & VH_VOL_FUA || !(v->caps & (VH_VOL_WRITE_CACHE | VH_VOL_FLUSH)))
		v->unit_flags = v->caps & VH_VOL_FUA ? VH_REQ_FUA : 0;
	r = choose_engine(v, c, e);
	if (!r)
		r = worker_pool_new("blk", WORKERS_MAX, &v->workers, e);
	if (r)
		goto fail;
	v->lower = lower;
	*out = v;
	return 0;
fail:
	err_object(e, "volume %s", label);
	vol_free(v);
	return r;
}

int blk_vol_new(void *vol, const struct vh_volume_ops *ops, const struct blk_config *c, struct blk_vol **out,
		struct vh_err *e)
{
	return blk_vol_make(vol, ops, c, NULL, out, e);
}

struct blk_vol *blk_vol_ref(struct blk_vol *v)
{
	atomic_fetch_add(&v->refs, 1);
	return v;
}

void blk_vol_on_close(struct blk_vol *v, void (*fn)(void *ctx), void *ctx)
{
	v->closed = fn;
	v->closed_ctx = ctx;
}

void blk_vol_put(struct blk_vol *v)
{
	if (!v || atomic_fetch_sub(&v->refs, 1) > 1)
		return;
	blk_sync_fini(v);
	if (v->lower)
		blk_vol_listen(v->lower, NULL, NULL);
	/* Size events still under way may ask the plugin, so they end first. */
	blk_leave_fini(v); /* first: it may have the only thread that there is */
	blk_event_fini(v);
	worker_pool_free(v->workers);
	v->ops->close(v->vol);
	if (v->closed)
		v->closed(v->closed_ctx);
	blk_object_free(v->object);
	if (v->lower)
		blk_lower_free(v);
	vol_free(v);
}

const struct vh_volume_info *blk_vol_info(const struct blk_vol *v)
{
	return &v->info;
}

uint64_t blk_vol_bytes(const struct blk_vol *v)
{
	return atomic_load_explicit(&v->bytes, memory_order_acquire);
}

const char *blk_vol_label(const struct blk_vol *v)
{
	return v->label;
}

const struct vh_volume_ops *blk_vol_ops(const struct blk_vol *v, void **vol)
{
	*vol = v->vol;
	return v->ops;
}

int blk_vol_failed(const struct blk_vol *v)
{
	return !!(atomic_load(&v->state) & (BLK_FAILED | BLK_LOST));
}

enum blk_engine blk_vol_engine(const struct blk_vol *v)
{
	return v->engine;
}
