/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the tests of core/fmt share: images over fake volumes, a format shim that misbehaves as asked, loops with queues. */
#ifndef RIG_H
#define RIG_H

#include <glib.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "fake-blk.h"
#include "fmt/image.h"
#include "plug/options.h"
#include "plug/plug.h"
#include "util/loop-i.h"

/* Injected by the shim around the top image's plugin; in a million. Atomics. */
struct shim {
	_Atomic unsigned map_eagain, map_fail, commit_eagain, commit_fail, delay;
	_Atomic int map_error;
	_Atomic unsigned maps, allocs, commits, aborts, flushes;
	void (*on_map)(struct vh_map *m, int before); /* may be NULL */
	int (*map)(void *img, struct vh_map *m);      /* instead of the plugin's */
	unsigned reach; /* pure answers to an allocating write go on to the next multiple of this */
	const struct vh_cipher *crypt; /* when opening: the format encrypts all its data so; NULL: not */
	int lock_self; /* when opening: map and commit are not serialised by the core */
};
extern struct shim shim;
const struct vh_format_ops *shim_ops(const char *format);

/* A new image of a format over a fake volume; `backing` names a registered volume ("name", "format"), or NULL. */
void rig_create(struct blk_vol *v, const char *format, uint64_t bytes, const char *backing, const char *backing_format,
		uint64_t backing_bytes);
/* The same with options, further files (create_refs), and a backing volume; the files are made and registered by name. */
struct rig_files {
	unsigned n;
	struct blk_vol *vol[16];
	char *name[16];
};
void rig_make(struct rig_files *f, const char *name, const char *format, const struct kvs *options, uint64_t bytes,
	      const char *backing, const char *backing_format, struct blk_vol *backing_vol, uint64_t backing_bytes);
void rig_files_free(struct rig_files *f);
void rig_register(const char *name, struct blk_vol *v); /* resolvable; takes no reference */
void rig_forget(void);
/* Opens v (takes no reference). shimmed: through the shim. */
struct fmt_image *rig_open(struct blk_vol *v, const char *format, int shimmed, enum fmt_policy policy);
extern struct kvs rig_open_options; /* of every image that rig_open opens */
/* A passphrase in a file that nobody else may read, as secrets must be: opens with it from now on; the value for key-secret. */
const char *rig_passphrase(void);
void rig_passphrase_remove(void);
void rig_stopped(void *ctx, const char *label, int error);
extern _Atomic int rig_stops, rig_stop_error;

struct rig_queue {
	struct vh_loop *l;
	struct fmt_queue *q;
};
void rig_queue_open(struct rig_queue *r, struct fmt_image *i, unsigned depth);
void rig_queue_close(struct rig_queue *r);
/* One request, waited for. */
int rig_io(struct rig_queue *r, uint16_t op, uint16_t flags, void *buf, uint64_t len, uint64_t off);
/* One request, not waited for. */
struct rig_async {
	struct fmt_io io;
	struct iovec iov;
	struct rig_queue *r;
	_Atomic int done;
	int result;
};
void rig_start(struct rig_async *a, struct rig_queue *r, uint16_t op, uint16_t flags, void *buf, uint64_t len, uint64_t off);
int rig_wait(struct rig_async *a);
int rig_check(struct fmt_image *i); /* findings of the format's check */
struct rig_found { unsigned leaks, corrupt, fixed; };
void rig_check_all(struct fmt_image *i, int repair, struct rig_found *f); /* nothing when the format has no check */
uint64_t rig_rnd(uint64_t *s);

#endif
