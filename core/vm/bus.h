/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Port and MMIO dispatch. Handlers run on vCPU threads, several at once: a device has its own lock. Accesses are 1, 2, 4
 * or 8 bytes, little-endian in *data; a read that nobody claims gives all ones, a write is dropped. A BAR may move while
 * vCPUs run.
 */
#ifndef VM_BUS_H
#define VM_BUS_H

#include "util/err.h"

struct bus;
struct bus_ops {
	/* `off` is relative to the region's base. read fills `len` bytes of data (preset to ones). */
	void (*read)(void *ctx, uint64_t off, void *data, unsigned len);
	void (*write)(void *ctx, uint64_t off, const void *data, unsigned len);
};
struct bus_region {
	uint64_t base, len;
	const struct bus_ops *ops;
	void *ctx;
};
struct bus *bus_new(void);
void bus_free(struct bus *b);
/* The region is the caller's and lives until removed. Overlap: -EEXIST (a guest may cause it: not an error to log loudly;
 * the earlier region wins). bus_remove waits until no handler of it runs, except in the caller itself. */
int bus_add(struct bus *b, struct bus_region *r);
void bus_remove(struct bus *b, struct bus_region *r);
void bus_read(struct bus *b, uint64_t addr, void *data, unsigned len);
void bus_write(struct bus *b, uint64_t addr, const void *data, unsigned len);

#endif
