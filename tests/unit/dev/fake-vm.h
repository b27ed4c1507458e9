/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A virtual machine without KVM: real memory and buses, interrupts and doorbells that only count. */
#ifndef FAKE_VM_H
#define FAKE_VM_H

#include "vm/vm.h"

#define FAKE_BELLS 64
struct fake_bell {
	uint64_t addr;
	int fd;
};
struct vm {
	struct mem *mem;
	struct bus *pio, *mmio;
	unsigned phys_bits;
	int resets;            /* VM_RESET events */
	uint8_t line[24];      /* atomic: KVM_IRQ_LINE levels */
	unsigned msis;         /* that exist */
	struct fake_bell bell[FAKE_BELLS];
	unsigned n_bells;
	uint64_t next_gpa;     /* bump allocator of guest memory */
};
struct vm_msi {
	struct vm *vm;
	uint64_t addr;
	uint32_t data;
	unsigned sets;
	unsigned signals; /* atomic */
	int fd;           /* 0: nobody asked for it */
};

struct vm *fake_vm(uint64_t bytes, unsigned phys_bits);
void fake_vm_free(struct vm *v);
uint64_t fake_alloc(struct vm *v, uint64_t bytes, uint64_t align); /* zeroed guest memory; its address */
void *fake_at(struct vm *v, uint64_t gpa);
int fake_ring(struct vm *v, uint64_t addr); /* as the kernel would: 1 if a doorbell is there */

/* MMIO and ports, as a vCPU makes them. */
uint32_t mmio_get(struct vm *v, uint64_t addr, unsigned len);
void mmio_set(struct vm *v, uint64_t addr, uint32_t value, unsigned len);
uint32_t pio_get(struct vm *v, uint16_t port, unsigned len);
void pio_set(struct vm *v, uint16_t port, uint32_t value, unsigned len);
/* By ECAM. */
uint32_t cfg_get(struct vm *v, unsigned devfn, unsigned off, unsigned len);
void cfg_set(struct vm *v, unsigned devfn, unsigned off, uint32_t value, unsigned len);

#endif
