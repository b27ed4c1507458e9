/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Growth on demand, in steps, on a worker; and resizing by command. */
#include <string.h>
#include "blk/blk-i.h"
#include "util/log.h"

#define STEP_MIN (1u << 20)
#define STEP_MAX (64u << 20)

void blk_refresh(struct blk_vol *v)
{
	struct vh_volume_info i = {.size = sizeof(i), .fd = -1};
	int r = v->ops->info(v->vol, &i);

	if (r) {
		log_warn("blk", "volume %s: cannot read its size anew: %s", v->label, strerror(-r));
		return;
	}
	if (v->fd < 0) /* a last part of a block cannot be reached */
		i.bytes &= ~v->len_mask;
	if (i.bytes <= INT64_MAX)
		atomic_store(&v->bytes, i.bytes);
}

int blk_vol_resize(struct blk_vol *v, uint64_t bytes, struct vh_err *e)
{
	int r;

	if (bytes > INT64_MAX)
		return err_set(e, -EFBIG, "volume %s: %llu bytes are too many", v->label, (unsigned long long)bytes);
	if (atomic_load(&v->state) & (BLK_READ_ONLY | BLK_LOST))
		return err_set(e, -EROFS, "volume %s is open read-only", v->label);
	if (!v->ops->resize)
		return err_set(e, -EOPNOTSUPP, "volume %s cannot change its size while it is open", v->label);
	pthread_mutex_lock(&v->main_lock);
	r = v->ops->resize(v->vol, bytes, e);
	atomic_fetch_add(&v->other_mods, 1);
	if (r >= 0) {
		r = 0;
		blk_refresh(v);
	}
	pthread_mutex_unlock(&v->main_lock);
	/* A command's new size is durable when it says so. By our own flush, so that a write that failed before is latched. */
	if (!r && v->fd >= 0 && v->caps & VH_VOL_FLUSH) {
		r = blk_fd_op(v, VH_FLUSH, 0, 0, 0);
		if (r) {
			blk_latch(v, r);
			err_set(e, r, "volume %s: cannot make its new size durable: %s", v->label, strerror(-r));
		}
	}
	return r;
}

static __thread int growing;

int blk_growing(void)
{
	return growing;
}

/* To at least `end`, and by a step further, so that a growing image does not ask for each of its clusters. */
int blk_grow_now(struct blk_vol *v, uint64_t end, struct vh_err *e)
{
	uint64_t bytes = atomic_load(&v->bytes), step = bytes / 8, want, unit = v->len_mask + 1;
	int r = 0;

	step = step < STEP_MIN ? STEP_MIN : step > STEP_MAX ? STEP_MAX : step;
	if (unit < 4096)
		unit = 4096;
	end = (end + v->len_mask) & ~v->len_mask;
	want = (end + step + unit - 1) & ~(unit - 1);
	pthread_mutex_lock(&v->main_lock);
	if (atomic_load(&v->bytes) < end) {
		ERR_AUTO(first);

		growing = 1;
		r = v->ops->resize(v->vol, want, &first);
		if (r < 0)
			r = v->ops->resize(v->vol, end, e);
		growing = 0;
		atomic_fetch_add(&v->other_mods, 1);
		blk_refresh(v);
		if (r >= 0)
			r = atomic_load(&v->bytes) < end ? err_set(e, -ENOSPC, "volume %s did not grow", v->label) : 0;
	}
	pthread_mutex_unlock(&v->main_lock);
	return r;
}

static void grow_task(struct vh_task *t)
{
	struct blk_slow *s = container_of(t, struct blk_slow, grow_task);

	blk_slow_grown(s, s->grow_result);
}

static void grow_work(struct work *w)
{
	struct blk_vol *v = container_of(w, struct blk_vol, grow.work);

	for (;;) {
		struct blk_slow *list, *s;
		uint64_t end = 0;
		int r;

		pthread_mutex_lock(&v->lock);
		list = v->grow.waiting;
		v->grow.waiting = NULL;
		v->grow.busy = list != NULL;
		if (!list) /* blk_vol_put waits for this */
			pthread_cond_broadcast(&v->cond);
		pthread_mutex_unlock(&v->lock);
		if (!list)
			return;
		for (s = list; s; s = s->next)
			end = s->wanted > end ? s->wanted : end;
		r = blk_grow_now(v, end, NULL);
		while ((s = list)) {
			list = s->next;
			/* What there was no room for may have been another one's. */
			s->grow_result = r < 0 && s->wanted > atomic_load(&v->bytes) ? r : 0;
			loop_post(s->q->loop, &s->grow_task);
		}
	}
}

void blk_grow(struct blk_slow *s, uint64_t end)
{
	struct blk_vol *v = s->q->v;
	int start;

	s->wanted = end;
	s->grow_task = (struct vh_task){grow_task, {NULL, NULL}};
	pthread_mutex_lock(&v->lock);
	s->next = v->grow.waiting;
	v->grow.waiting = s;
	start = !v->grow.busy;
	v->grow.busy = 1;
	pthread_mutex_unlock(&v->lock);
	if (start) {
		v->grow.work.fn = grow_work;
		worker_submit(v->workers, &v->grow.work);
	}
}
