/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the files of core/vm share. */
#ifndef VM_VM_I_H
#define VM_VM_I_H

#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>

#include "vm/vm.h"

/* Makes KVM_RUN return; handled by vCPU threads only. */
#define VCPU_SIGNAL (SIGRTMAX - 1)

struct irq_table; /* irq.c */

/* A vCPU's registers as KVM made them: what a reset goes back to. */
struct vcpu_initial {
	struct kvm_sregs sregs;
	struct kvm_lapic_state lapic;
};

struct vcpu {
	struct vm *vm;
	unsigned id;
	int fd, tid, started;
	struct kvm_run *run;
	pthread_t thread;
	int parked; /* its own thread's: it asked for power-off or a reset and runs no further until vm_reset */
	struct vm_cpu_stats stats; /* written by its thread, read by any */
	/* KVM's own statistics, opened when first asked for (stats.c). */
	int stats_fd, stats_tried;
	int64_t stats_at;
	struct vcpu_initial initial;
};

enum vm_mode { VM_MODE_RUN, VM_MODE_PAUSE, VM_MODE_STOP };

struct vm {
	struct vm_config c;
	int kvm, fd;
	struct mem *mem;
	struct bus *pio, *mmio;
	unsigned n;
	struct vcpu *vcpu;
	size_t run_size;
	int *pin;
	struct vm_boot boot;
	int have_boot;

	/* The set-up thread and its result. */
	pthread_mutex_t setup_lock;
	pthread_t setup;
	int setup_running, setup_result, setup_done; /* done: atomic */
	struct vh_err setup_err;

	/* Set by the set-up thread. */
	struct kvm_cpuid2 *cpuid; /* without the per-vCPU parts */
	unsigned phys_bits;
	struct kvm_msrs *msrs; /* initial values, of the boot CPU */
	struct kvm_irqchip chip[3];
	struct kvm_pit_state2 pit;
	int have_chip, have_pit;

	/* Run state. mode is read without the lock by vCPU threads. */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	int mode;
	unsigned running; /* vCPU threads outside vcpu_wait */
	int event_posted; /* atomic: one end or reset is on its way, later ones are dropped until vm_reset */
	struct irq_table *irq;
};

int vm_wait_setup(const struct vm *v); /* joins the set-up thread, quietly; its result */

/* cpuid.c */
int cpuid_make(struct vm *v, struct vh_err *e); /* v->cpuid and v->phys_bits from KVM's list */
int cpuid_set(struct vcpu *c, struct vh_err *e);

/* vcpu.c */
int vcpu_create(struct vm *v, unsigned id, struct vh_err *e);
int vcpu_start(struct vcpu *c, struct vh_err *e);
void vcpu_kick(struct vcpu *c);
struct vcpu *vcpu_current(void); /* of the calling thread, or NULL */
int vcpu_signal_setup(struct vh_err *e);

/* state.c */
int state_save(struct vm *v, struct vh_err *e);
int state_reset_vcpu(struct vcpu *c, struct vh_err *e);
int state_reset_chips(struct vm *v, struct vh_err *e);
int state_boot(struct vm *v, struct vh_err *e);
void state_set_msrs(struct vcpu *c, const struct kvm_msrs *m); /* one by one where KVM refuses some */

/* irq.c */
int irq_init(struct vm *v, struct vh_err *e);
void irq_exit(struct vm *v);


/* 0 or positive, or -errno. */
static inline int ioctl_retry(int fd, unsigned long req, void *arg)
{
	int r;
	do
		r = ioctl(fd, req, arg);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : r;
}

#endif
