/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Guest memory: one memfd, two ranges (below the 32-bit hole, and from 4 GiB), given out by the host page by page on first
 * touch. Everything that a guest names by address goes through mem_ptr or mem_iov; nothing else turns a guest address
 * into a pointer.
 */
#ifndef VM_MEMORY_H
#define VM_MEMORY_H

#include <sys/uio.h>
#include "util/err.h"

#define MEM_LOW_MAX 0xb0000000u /* 2.75 GiB: ECAM and the 32-bit PCI window lie above */
#define MEM_HIGH_BASE (UINT64_C(1) << 32)

struct mem_config {
	uint64_t bytes;
	int hugepages; /* bytes of one (2M, 1G as shift) or 0 */
	int thp, mergeable, prealloc, dump;
};
struct mem_range { uint64_t gpa, bytes; uint8_t *host; uint64_t fd_off; };
struct mem {
	int fd;
	uint64_t bytes;
	unsigned n;
	struct mem_range range[2];
};
int mem_new(const struct mem_config *c, struct mem **out, struct vh_err *e);
void mem_free(struct mem *m);
/* [gpa, gpa+len) as one host pointer, or NULL if any byte of it is not guest memory. len 0 is valid inside memory. */
static inline void *mem_ptr(const struct mem *m, uint64_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < m->n; i++) {
		uint64_t o = gpa - m->range[i].gpa;
		if (o < m->range[i].bytes && len <= m->range[i].bytes - o)
			return m->range[i].host + o;
	}
	return 0;
}
/* Gives pages back to the host (balloon, free page reporting); whole pages inside [gpa, gpa+len). */
int mem_release(struct mem *m, uint64_t gpa, uint64_t len);
int mem_zero(struct mem *m, uint64_t gpa, uint64_t len); /* reads as zeroes, untouched where whole pages are */
int mem_zero_all(struct mem *m); /* reboot: back to untouched */
uint64_t mem_resident(const struct mem *m);

#endif
