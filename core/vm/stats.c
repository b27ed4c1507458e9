/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Counters of a vCPU. Exits to this process are counted by the vCPU's thread; HLT never comes here, since KVM waits itself,
 * so its count is read from KVM's binary statistics, where the kernel has them (Linux 5.14).
 */
#include "vm/vm-i.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HALT_COUNTER "halt_exits"

/* Where in the statistics file the counter lies; -1: nowhere. */
static int64_t find_counter(int fd)
{
	struct kvm_stats_header h;
	struct { struct kvm_stats_desc d; char name[256]; } one;
	size_t size;

	if (pread(fd, &h, sizeof h, 0) != (ssize_t)sizeof h || !h.name_size || h.name_size > sizeof one.name || h.num_desc > 4096)
		return -1;
	size = sizeof one.d + h.name_size;
	for (uint32_t i = 0; i < h.num_desc; i++) {
		if (pread(fd, &one, size, (off_t)(h.desc_offset + i * size)) != (ssize_t)size)
			return -1;
		if (!strncmp(one.name, HALT_COUNTER, h.name_size) && one.d.size == 1)
			return (int64_t)h.data_offset + one.d.offset;
	}
	return -1;
}

static uint64_t halts(struct vcpu *c)
{
	uint64_t n = 0;

	int fd = __atomic_load_n(&c->stats_fd, __ATOMIC_ACQUIRE);

	if (fd >= 0 && !c->stats_tried) {
		c->stats_tried = 1;
		c->stats_at = find_counter(fd);
	}
	if (fd < 0 || c->stats_at < 0 || pread(fd, &n, sizeof n, (off_t)c->stats_at) != (ssize_t)sizeof n)
		return __atomic_load_n(&c->stats.halts, __ATOMIC_RELAXED);
	return n;
}

void vm_vcpu_stats(struct vm *v, unsigned i, struct vm_cpu_stats *out)
{
	*out = (struct vm_cpu_stats){0};
	if (i >= v->n || vm_wait_setup(v) < 0)
		return;
	struct vm_cpu_stats *s = &v->vcpu[i].stats;
	out->exits = __atomic_load_n(&s->exits, __ATOMIC_RELAXED);
	out->io = __atomic_load_n(&s->io, __ATOMIC_RELAXED);
	out->mmio = __atomic_load_n(&s->mmio, __ATOMIC_RELAXED);
	out->halts = halts(&v->vcpu[i]);
}
