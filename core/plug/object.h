/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The host's end of an open pool, volume, image or port: where a plugin's events go, and the counters that it registered.
 * It is made before the plugin's object is opened, and freed after that one is closed.
 */
#ifndef PLUG_OBJECT_H
#define PLUG_OBJECT_H

#include <vhost/host.h>

struct vh_object *plug_object_new(void);
/* Events go to fn from now on, the ones that came earlier first; fn NULL: they are dropped. fn is called on whatever
 * thread the plugin posts from, perhaps inside a call of the plugin: it only notes and defers. Name: for statistics. */
void plug_object_bind(struct vh_object *o, const char *name, void (*fn)(void *ctx, uint32_t event, uint64_t value),
		      void *ctx);
/* No call of fn runs or comes once this has returned (never from within fn). */
void plug_object_free(struct vh_object *o);
/* Every counter of every object: fn(ctx, object's name, counter's name, value). */
void plug_counters(void (*fn)(void *ctx, const char *object, const char *name, uint64_t value), void *ctx);

#endif
