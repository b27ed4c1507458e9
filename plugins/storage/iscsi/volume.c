/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* An attached LUN: what it can do, the sessions that its queues get, and what happens to it on its own account. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>
#include "iscsi.h"

#define TRANSFER_MAX (8u << 20)
#define DISCARD_MAX (UINT64_C(1) << 30)
#define ZERO_MAX (UINT64_C(32) << 20) /* one command: it should not take many seconds */

static int writes(const struct volume *v)
{
	return v->mode == VH_ATTACH_RW_EXCL || v->mode == VH_ATTACH_RW_SHARED;
}

static uint64_t least(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static int volume_info(void *vol, struct vh_volume_info *out)
{
	struct volume *v = vol;
	const struct lun *l = &v->lun;
	struct vh_volume_info i = {.size = out->size, .fd = -1};

	if (writes(v))
		i.caps = VH_VOL_FLUSH | (l->write_cache ? VH_VOL_WRITE_CACHE : 0) | (l->fua ? VH_VOL_FUA : 0) |
			 (l->write_same ? VH_VOL_ZERO : 0) | (l->unmap ? VH_VOL_DISCARD : 0) |
			 (l->unmap && l->zeroes_unmapped ? VH_VOL_DISCARD_ZEROES : 0) |
			 (l->write_same_unmap && l->zeroes_unmapped ? VH_VOL_FAST_ZERO : 0) | (v->reserved ? VH_VOL_LEASED : 0);
	else
		i.caps = VH_VOL_READ_ONLY;
	i.bytes = atomic_load(&v->bytes);
	i.logical_block = l->block;
	i.physical_block = i.min_io = l->physical;
	i.opt_io = l->opt_blocks && (uint64_t)l->opt_blocks * l->block <= TRANSFER_MAX ? l->opt_blocks * l->block : 0;
	i.buf_align = 1;
	i.len_align = l->block;
	i.max_segments = QUEUE_SEGMENTS;
	i.max_queues = v->pool->cfg.sessions;
	i.max_bytes = l->max_blocks ? least((uint64_t)l->max_blocks * l->block, TRANSFER_MAX) : TRANSFER_MAX;
	if (l->unmap) {
		i.max_discard = least((uint64_t)l->max_unmap * l->block, DISCARD_MAX);
		i.discard_gran = l->unmap_gran ? (uint64_t)l->unmap_gran * l->block : l->block;
		i.discard_align = (uint64_t)l->unmap_align * l->block;
	}
	i.max_zero = l->max_same ? least(least(l->max_same, ZERO_MAX) * l->block, ZERO_MAX) : ZERO_MAX;
	snprintf(i.serial, sizeof(i.serial), "%.31s", l->serial);
	snprintf(i.wwid, sizeof(i.wwid), "%.63s", l->id);
	memcpy(out, &i, i.size < sizeof(i) ? i.size : sizeof(i));
	return 0;
}

void volume_size(struct volume *v, uint64_t bytes)
{
	uint64_t old = atomic_exchange(&v->bytes, bytes);

	if (old == bytes)
		return;
	is_warn("%s of %s has %llu bytes now, it had %llu", v->name, v->pool->cfg.target, (unsigned long long)bytes,
		(unsigned long long)old);
	if (is_event)
		is_event->post(v->object, VH_EVENT_SIZE, bytes);
}

void volume_lost(struct volume *v, const char *why)
{
	if (atomic_exchange(&v->lost, 1))
		return;
	is_warn("%s of %s: %s; nothing is read or written any more", v->name, v->pool->cfg.target, why);
	if (is_event)
		is_event->post(v->object, VH_EVENT_LEASE_LOST, 0);
}

/* Told under a lock of their own: the last word must be how it is. */
void volume_down(struct volume *v)
{
	pthread_mutex_lock(&v->telling);
	if (!atomic_fetch_add(&v->down, 1) && is_event)
		is_event->post(v->object, VH_EVENT_DEGRADED, 0);
	pthread_mutex_unlock(&v->telling);
}

void volume_up(struct volume *v)
{
	pthread_mutex_lock(&v->telling);
	if (atomic_fetch_sub(&v->down, 1) == 1 && is_event)
		is_event->post(v->object, VH_EVENT_RECOVERED, 0);
	pthread_mutex_unlock(&v->telling);
}

/*
 * A sole writer's nexuses are always the same ones: logging in with one that the target still knows makes it end that session and
 * all that it had under way before it answers. So what a lost session sent can never be written after what its successor sends,
 * be that of this process or of the next one that has the volume. Others have nexuses of their own.
 */
static struct nexus nexus_for(const struct volume *v, unsigned index)
{
	uint64_t h = is_hash(v->pool->cfg.key, v->lun.identity);

	if (v->mode != VH_ATTACH_RW_EXCL)
		return nexus_random();
	return (struct nexus){(uint32_t)(h & 0xffffff), (uint32_t)(h >> 24 & 0x7f) << 8 | index};
}

/* A reader of a LUN that this host has reserved, for a VM say, joins in. */
static int visit(struct session *s, const struct volume *v, struct why *w)
{
	struct why none = {0};
	uint32_t gen = 0;

	if (!v->pool->cfg.reserve || !reserve_held(s, &v->lun))
		return 0;
	return reserve_join(s, &v->lun, v->name, &gen, w ? w : &none);
}

int volume_connect(struct volume *v, unsigned index, int stop_fd, struct session **out, struct why *w)
{
	struct nexus x = nexus_for(v, index);
	struct lun now = {.raw = v->lun.raw, .number = v->lun.number};
	struct session *s;
	uint32_t gen;
	int ret = session_open(&v->pool->cfg, &x, 0, stop_fd, &s, w);

	if (ret)
		return ret;
	ret = luns_probe(s, &now, 1, w);
	/* Another LUN by the same number would be another disk. */
	if (!ret && (now.type || !now.listed || !now.bytes))
		ret = why_set(w, -ENXIO, "%s of %s is gone", v->name, v->pool->cfg.target);
	else if (!ret && (strcmp(now.identity, v->lun.identity) || strcmp(now.serial, v->lun.serial) ||
			  now.block != v->lun.block))
		ret = why_set(w, -ENXIO, "%s of %s is another disk now (%s, it was %s)", v->name, v->pool->cfg.target, now.identity,
			      v->lun.identity);
	if (!ret && v->reserved) {
		pthread_mutex_lock(&v->lock);
		gen = v->gen;
		pthread_mutex_unlock(&v->lock);
		ret = reserve_join(s, &v->lun, v->name, &gen, w);
		pthread_mutex_lock(&v->lock);
		v->gen = ret ? v->gen : gen;
		pthread_mutex_unlock(&v->lock);
	} else if (!ret && !writes(v)) {
		ret = visit(s, v, w);
	}
	if (ret) {
		session_close(s, 0);
		return ret;
	}
	volume_size(v, now.bytes);
	s->stop_fd = -1;
	*out = s;
	return 0;
}

void volume_retire(struct volume *v, struct session *s)
{
	struct session *gone = s;

	pthread_mutex_lock(&v->lock);
	if (v->n_retired < sizeof(v->retired) / sizeof(v->retired[0])) {
		v->retired[v->n_retired++] = s;
		gone = NULL;
	}
	pthread_mutex_unlock(&v->lock);
	session_close(gone, 0);
}

static void volume_close(void *vol)
{
	struct volume *v = vol;
	struct session *s;
	struct why w = {0};
	int ret;

	fixer_stop(v);
	for (unsigned i = 0; i < v->n_retired; i++)
		session_close(v->retired[i], SECOND / 2);
	if (v->reserved && !atomic_load(&v->lost)) {
		ret = pool_session(v->pool, &s, &w);
		if (!ret)
			ret = reserve_leave(s, &v->lun, &w);
		if (ret)
			is_warn("%s of %s stays reserved for this host: %s", v->name, v->pool->cfg.target, w.text);
	}
	close(v->stop_fd);
	pthread_cond_destroy(&v->cond);
	pthread_mutex_destroy(&v->lock);
	pthread_mutex_destroy(&v->telling);
	free(v);
}

static const struct vh_volume_ops volume_ops = {
	.size = sizeof(volume_ops),
	.req_ctx = QUEUE_CTX,
	.info = volume_info,
	.queue_open = queue_open,
	.queue_start = queue_start,
	.queue_close = queue_close,
	.submit = queue_submit,
	.cancel = queue_cancel,
	.close = volume_close,
};

static int check(const struct volume *v, struct vh_err *e)
{
	if (v->lun.write_protected && writes(v)) {
		is_host->remedy(e, "use it read-only");
		return is_host->err(e, -EROFS, "the target has %s write-protected", v->name);
	}
	return 0;
}

int volume_attach(void *pool, const struct vh_attach *a, void **vol, const struct vh_volume_ops **ops, struct vh_err *e)
{
	struct pool *p = pool;
	struct volume *v;
	struct session *s;
	struct why w = {0};
	unsigned number;
	int ret;

	if (VH_KNOWS(a, flags) && a->flags & VH_MUST_UNDERSTAND & ~VH_ATTACH_BUFFERED)
		return is_host->err(e, -EOPNOTSUPP, "an attach flag that pools of type iscsi do not know");
	if (a->mode > VH_ATTACH_PEEK)
		return is_host->err(e, -EINVAL, "no such attach mode");
	if (!is_loop || !is_io)
		return is_host->err(e, -EOPNOTSUPP, "this host has no loops, or completes no requests");
	if (lun_parse(a->name, &number)) {
		is_host->remedy(e, "volumes of an iscsi pool are its LUNs: lun1, lun2, ...; vhost vol list shows them");
		return is_host->err(e, -ENOENT, "there is no volume %s", a->name);
	}
	v = calloc(1, sizeof(*v));
	if (!v)
		return is_host->err(e, -ENOMEM, "no memory");
	v->pool = p;
	v->mode = a->mode;
	v->object = a->object;
	v->stop_fd = eventfd(0, EFD_CLOEXEC);
	pthread_mutex_init(&v->lock, NULL);
	pthread_mutex_init(&v->telling, NULL);
	pthread_cond_init(&v->cond, NULL);
	ret = v->stop_fd < 0 ? -errno : pool_session(p, &s, &w);
	if (!ret)
		ret = lun_find(s, number, &v->lun, &w);
	if (!ret)
		ret = lun_probe_more(s, &v->lun, &w);
	lun_name(v->name, sizeof(v->name), &v->lun);
	if (!ret && (ret = check(v, e))) {
		volume_close(v);
		return ret;
	}
	if (!ret && p->cfg.reserve && a->mode == VH_ATTACH_RW_EXCL) {
		ret = reserve_join(s, &v->lun, v->name, &v->gen, &w);
		v->reserved = !ret;
	} else if (!ret && !writes(v)) {
		ret = visit(s, v, &w);
	}
	if (ret) {
		is_fail(e, ret, &w);
		volume_close(v);
		return ret;
	}
	atomic_store(&v->bytes, v->lun.bytes);
	*vol = v;
	*ops = &volume_ops;
	return 0;
}
