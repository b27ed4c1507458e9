/* SPDX-License-Identifier: BSD-2-Clause
 * Copyright The vhost authors */
/*
 * A host for formats in one thread: volumes in memory, the blocking metadata service over them, and requests carried out as
 * the core does, step by step, so that a check can look between the steps.
 */
#ifndef SDK_CHECK_MAP_HOST_H
#define SDK_CHECK_MAP_HOST_H

#include <vhost/format.h>
#include "check.h"
#include "fmt/validate.h"

struct vh_meta { /* a volume in memory */
	uint8_t *data;
	uint64_t bytes, cap;
	uint64_t calls, writes; /* of the metadata service */
	int no_calls, no_writes; /* > 0: such a call breaks the rule that is being checked */
	int broken;
};

struct map_host {
	struct check_ctx *c;
	const struct vh_format_ops *ops;
	struct vh_meta vol, *vols[1];
	void *img;
	struct vh_image_info info;
	struct fmt_rules rules;
	struct vh_extent ext[16];
	uint8_t *model; /* what the disk must read as; NULL: not kept */
	uint8_t *maybe; /* 1: discarded since, may read as zeros too */
};

/* Creates an image of `bytes` and opens it; skips the check where the format cannot create. */
struct map_host *map_host_new(struct check_ctx *c, uint64_t bytes);
/* A second one, of a copy of the volume's bytes as they are. */
struct map_host *map_host_copy(struct map_host *h);
void map_host_open(struct map_host *h);
void map_host_close(struct map_host *h, int flush);
void map_host_free(struct map_host *h);

/* One map call, NOWAIT first, without after -EAGAIN; the answer validated. Returns a negative errno of the plugin's. */
int map_call(struct map_host *h, struct vh_map *m, uint32_t op, uint32_t flags, uint64_t pos, uint64_t len);
int map_commit(struct map_host *h, struct vh_map *m, int status);
int map_owes(const struct vh_map *m); /* has a COMMIT extent */
/* What the host does between map and commit: data from buf (NULL: zeros) with fills, punches. */
void map_data(struct map_host *h, const struct vh_map *m, const uint8_t *buf);
/* Whole requests; they keep the model. */
int map_write(struct map_host *h, const uint8_t *buf, uint64_t pos, uint64_t len);
int map_erase(struct map_host *h, uint32_t op, uint32_t flags, uint64_t pos, uint64_t len);
void map_read(struct map_host *h, uint8_t *buf, uint64_t pos, uint64_t len);
/* Phases of a flush; after each that returned 1, between(ctx) is called where the host would flush the volumes. */
void map_flush(struct map_host *h, void (*between)(struct map_host *h, void *ctx), void *ctx);
void map_compare(struct map_host *h, const char *when); /* the disk against the model */
void map_clean(struct map_host *h, const char *when);   /* check() finds nothing */
void map_random(struct map_host *h, int flushes);       /* one random request */

#endif
