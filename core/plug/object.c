/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <pthread.h>
#include <string.h>
#include "plug/object.h"
#include "plug/plug.h"

#define EARLY_MAX 8
#define COUNTERS_MAX 256

struct counter {
	struct counter *next;
	char *name;
	uint64_t value __attribute__((aligned(64))); /* its writer's cache line */
};
struct vh_object {
	struct vh_object *next;
	pthread_mutex_t lock; /* serialises events and their rebinding; a plugin's event is rare */
	char *name;
	void (*fn)(void *ctx, uint32_t event, uint64_t value);
	void *ctx;
	int bound;
	struct { uint32_t event; uint64_t value; } early[EARLY_MAX];
	unsigned n_early, n_counters;
	struct counter *counters;
};

static pthread_mutex_t objects_lock = PTHREAD_MUTEX_INITIALIZER;
static struct vh_object *objects;

struct vh_object *plug_object_new(void)
{
	struct vh_object *o = g_new0(struct vh_object, 1);
	pthread_mutexattr_t a;

	/* Recursive: fn may cause the next event on the same thread. */
	pthread_mutexattr_init(&a);
	pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
	pthread_mutex_init(&o->lock, &a);
	pthread_mutexattr_destroy(&a);
	pthread_mutex_lock(&objects_lock);
	o->next = objects;
	objects = o;
	pthread_mutex_unlock(&objects_lock);
	return o;
}

void plug_object_bind(struct vh_object *o, const char *name, void (*fn)(void *ctx, uint32_t event, uint64_t value),
		      void *ctx)
{
	pthread_mutex_lock(&objects_lock);
	g_free(o->name);
	o->name = g_strdup(name);
	pthread_mutex_unlock(&objects_lock);
	pthread_mutex_lock(&o->lock);
	o->fn = fn;
	o->ctx = ctx;
	o->bound = 1;
	for (unsigned i = 0; fn && i < o->n_early; i++)
		fn(ctx, o->early[i].event, o->early[i].value);
	o->n_early = 0;
	pthread_mutex_unlock(&o->lock);
}

void plug_object_free(struct vh_object *o)
{
	if (!o)
		return;
	pthread_mutex_lock(&objects_lock);
	for (struct vh_object **at = &objects; *at; at = &(*at)->next)
		if (*at == o) {
			*at = o->next;
			break;
		}
	pthread_mutex_unlock(&objects_lock);
	/* Waits for a call of fn that runs now. */
	pthread_mutex_lock(&o->lock);
	pthread_mutex_unlock(&o->lock);
	pthread_mutex_destroy(&o->lock);
	while (o->counters) {
		struct counter *c = o->counters;

		o->counters = c->next;
		g_free(c->name);
		free(c);
	}
	g_free(o->name);
	g_free(o);
}

void plug_counters(void (*fn)(void *ctx, const char *object, const char *name, uint64_t value), void *ctx)
{
	pthread_mutex_lock(&objects_lock);
	for (struct vh_object *o = objects; o; o = o->next)
		for (struct counter *c = o->counters; c; c = c->next)
			fn(ctx, o->name ? o->name : "", c->name, __atomic_load_n(&c->value, __ATOMIC_RELAXED));
	pthread_mutex_unlock(&objects_lock);
}

static void event_post(struct vh_object *o, uint32_t event, uint64_t value)
{
	if (!o)
		return;
	pthread_mutex_lock(&o->lock);
	if (o->bound) {
		if (o->fn)
			o->fn(o->ctx, event, value);
	} else if (o->n_early < EARLY_MAX) {
		o->early[o->n_early].event = event;
		o->early[o->n_early++].value = value;
	}
	pthread_mutex_unlock(&o->lock);
}

static uint64_t *stats_counter(struct vh_object *o, const char *name)
{
	struct counter *c;
	void *mem;

	if (!o || !name)
		return NULL;
	pthread_mutex_lock(&objects_lock);
	for (c = o->counters; c && strcmp(c->name, name); c = c->next)
		;
	if (!c && o->n_counters < COUNTERS_MAX && !posix_memalign(&mem, 64, sizeof(*c))) {
		c = mem;
		memset(c, 0, sizeof(*c));
		c->name = g_strdup(name);
		c->next = o->counters;
		o->counters = c;
		o->n_counters++;
	}
	pthread_mutex_unlock(&objects_lock);
	return c ? &c->value : NULL;
}

const struct vh_event_ops plug_event_service = {.size = sizeof(plug_event_service), .post = event_post};
const struct vh_stats_ops plug_stats_service = {.size = sizeof(plug_stats_service), .counter = stats_counter};
