/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* One virtual machine: its KVM fds, memory slots, interrupts and vCPUs. */
#ifndef VM_VM_H
#define VM_VM_H

#include <linux/kvm.h>
#include "util/err.h"
#include "vm/bus.h"
#include "vm/memory.h"

struct vm;
struct vcpu;

enum vm_event { VM_SHUTDOWN, VM_RESET, VM_TRIPLE_FAULT, VM_ERROR, VM_PANIC };

struct vm_config {
	unsigned cpus;
	struct mem_config mem;
	const int *pin; /* host CPU of each vCPU or -1; NULL: none */
	/* [any] A vCPU thread or a device asks; handled by the machine's main loop. `text` for VM_ERROR. */
	void (*event)(void *ctx, enum vm_event ev, const char *text);
	void *event_ctx;
};

/* Opens /dev/kvm, makes the VM, irqchip, PIT and memory slots, the vCPUs with their CPUID; no thread runs yet. The slow
 * kernel calls run in a thread of their own: vm_ready() joins it, anything that needs the VM's fds calls it first. */
int vm_new(const struct vm_config *c, struct vm **out, struct vh_err *e);
int vm_ready(struct vm *v, struct vh_err *e);
void vm_free(struct vm *v); /* vCPU threads have ended */
struct mem *vm_mem(struct vm *v);
struct bus *vm_pio(struct vm *v);
struct bus *vm_mmio(struct vm *v);
int vm_fd(struct vm *v);
unsigned vm_cpus(const struct vm *v);
unsigned vm_phys_bits(const struct vm *v);
/* [any] The first event stands until vm_reset, others are dropped; a vCPU that posts one executes nothing after it. */
void vm_post_event(struct vm *v, enum vm_event ev, const char *text);

/* Initial state of the boot CPU; the others wait for SIPI. Kept, and set again by vm_reset. */
struct vm_boot {
	enum { VM_BOOT_LONG64, VM_BOOT_PVH32, VM_BOOT_REAL } mode;
	uint64_t rip, rsi, rsp, rbx; /* LONG64: rsi = boot_params; PVH32: rbx = start info */
	uint64_t cr3, gdt; /* LONG64: page tables; gdt: guest address of the boot GDT */
	uint16_t gdt_limit;
};
void vm_set_boot(struct vm *v, const struct vm_boot *b);

int vm_start(struct vm *v, struct vh_err *e);  /* makes the vCPU threads; they run at once */
void vm_pause(struct vm *v);                   /* [main] returns when no vCPU runs guest code; nests not */
void vm_resume(struct vm *v);                  /* KVM_KVMCLOCK_CTRL, then go */
int vm_reset(struct vm *v, struct vh_err *e);  /* [main] paused: vCPUs and irqchip as at power-on with vm_set_boot's state */
void vm_stop(struct vm *v);                    /* ends and joins the vCPU threads */
int vm_vcpu_tid(struct vm *v, unsigned i);
struct vm_cpu_stats { uint64_t exits, io, mmio, halts; };
/* [main] */
void vm_vcpu_stats(struct vm *v, unsigned i, struct vm_cpu_stats *out);

/* Interrupts. GSI 0-23 are the IOAPIC's pins (level or edge by their users). */
void vm_irq_line(struct vm *v, unsigned gsi, int level); /* [any] KVM_IRQ_LINE */
int vm_irqfd(struct vm *v, unsigned gsi, int fd, int resample_fd, int add);
/* An MSI vector: an eventfd whose signal is the message. */
struct vm_msi;
int vm_msi_new(struct vm *v, struct vm_msi **out, struct vh_err *e);
void vm_msi_free(struct vm_msi *m);
int vm_msi_set(struct vm_msi *m, uint64_t addr, uint32_t data); /* programs the route; 0/0 when masked */
int vm_msi_fd(struct vm_msi *m);                         /* for devices and vhost-net */
void vm_msi_signal(struct vm_msi *m);                           /* [any] one write(2) */
/* Doorbells: a write of `len` (0: any) at an address signals fd instead of exiting to user space. */
int vm_ioeventfd(struct vm *v, uint64_t addr, unsigned len, int pio, int fd, int add);

/* What kind of KVM this is, for `doctor` and errors. */
struct vm_probe { int api; int hw_virt; /* VT-x/AMD-V visible in /proc/cpuinfo */ int nested; int emulated_ring0; char text[160]; };
int vm_probe(struct vm_probe *out, struct vh_err *e);

#endif
