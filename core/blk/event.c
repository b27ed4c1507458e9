/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What happens to a volume on its own account: noted on whatever thread it comes from, handled on a worker. */
#include "blk/blk-i.h"
#include "plug/object.h"
#include "util/log.h"

/* Plugin events are 1 to 7, the core's follow. */
#define BITS 12u

static unsigned event_bit(uint32_t event)
{
	if (event >= BLK_EVENT_STALLED)
		event = event - BLK_EVENT_STALLED + 8;
	return event < BITS ? event : 0;
}

static uint32_t bit_event(unsigned bit)
{
	return bit >= 8 ? bit - 8 + BLK_EVENT_STALLED : bit;
}

static void handle(struct blk_vol *v, uint32_t event, uint64_t value)
{
	if (event == VH_EVENT_SIZE) {
		pthread_mutex_lock(&v->main_lock);
		blk_refresh(v);
		pthread_mutex_unlock(&v->main_lock);
		value = blk_vol_bytes(v);
	} else if (event == VH_EVENT_LEASE_LOST) {
		/* The plugin may cut short what is in flight; nothing new is sent since the event came. */
		pthread_mutex_lock(&v->lock);
		blk_cancel_queues(v);
		pthread_mutex_unlock(&v->lock);
	}
	pthread_mutex_lock(&v->events.calling);
	if (v->events.fn)
		v->events.fn(v->events.ctx, event, value);
	pthread_mutex_unlock(&v->events.calling);
}

static void event_work(struct work *w)
{
	struct blk_vol *v = container_of(w, struct blk_vol, events.work);

	for (;;) {
		uint64_t value;
		unsigned bit;

		pthread_mutex_lock(&v->lock);
		if (!v->events.pending) {
			v->events.busy = 0;
			pthread_cond_broadcast(&v->cond); /* blk_event_fini waits for this */
			pthread_mutex_unlock(&v->lock);
			return;
		}
		bit = (unsigned)__builtin_ctz(v->events.pending);
		v->events.pending &= ~(1u << bit);
		value = v->events.value[bit];
		pthread_mutex_unlock(&v->lock);
		handle(v, bit_event(bit), value);
	}
}

void blk_event(struct blk_vol *v, uint32_t event, uint64_t value)
{
	unsigned bit = event_bit(event);
	int start;

	if (!bit)
		return;
	pthread_mutex_lock(&v->lock);
	v->events.pending |= 1u << bit;
	v->events.value[bit] = value;
	start = !v->events.busy;
	v->events.busy = 1;
	pthread_mutex_unlock(&v->lock);
	if (start)
		worker_submit(v->workers, &v->events.work);
}

static void plugin_event(void *ctx, uint32_t event, uint64_t value)
{
	struct blk_vol *v = ctx;

	if (event > VH_EVENT_RX_FILTER)
		return;
	if (event == VH_EVENT_LEASE_LOST && !(atomic_fetch_or(&v->state, BLK_LOST) & BLK_LOST))
		log_error("blk", "volume %s: the exclusive right to it is lost; all I/O is stopped", v->label);
	if (event == VH_EVENT_DEGRADED || event == VH_EVENT_RECOVERED)
		blk_leave_event(v, event == VH_EVENT_DEGRADED);
	blk_event(v, event, value);
}

struct vh_object *blk_object_new(void)
{
	return plug_object_new();
}

void blk_object_free(struct vh_object *o)
{
	plug_object_free(o);
}

void blk_object_bind(struct vh_object *o, struct blk_vol *v)
{
	v->object = o;
	plug_object_bind(o, v->label, plugin_event, v);
}

void blk_vol_listen(struct blk_vol *v, void (*fn)(void *ctx, uint32_t event, uint64_t value), void *ctx)
{
	pthread_mutex_lock(&v->events.calling);
	v->events.fn = fn;
	v->events.ctx = ctx;
	pthread_mutex_unlock(&v->events.calling);
}

void blk_event_init(struct blk_vol *v)
{
	v->events.work.fn = event_work;
	pthread_mutex_init(&v->events.calling, NULL);
}

/* Nothing comes any more, and nothing is under way afterwards. The object itself outlives the plugin's volume. */
void blk_event_fini(struct blk_vol *v)
{
	if (v->object)
		plug_object_bind(v->object, v->label, NULL, NULL);
	pthread_mutex_lock(&v->lock);
	while (v->events.busy || v->grow.busy)
		pthread_cond_wait(&v->cond, &v->lock);
	pthread_mutex_unlock(&v->lock);
}
