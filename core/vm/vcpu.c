/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A vCPU's thread. It runs the guest until the VM's mode says otherwise; to be told, it is sent a signal whose handler
 * sets immediate_exit in the vCPU's shared page: whether the signal comes before KVM_RUN or within it, KVM_RUN returns.
 */
#include "vm/vm-i.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

static __thread struct vcpu *current;

struct vcpu *vcpu_current(void)
{
	return current;
}

static void on_signal(int sig)
{
	struct vcpu *c = current;
	if (c)
		__atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
}

int vcpu_signal_setup(struct vh_err *e)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	sigemptyset(&sa.sa_mask);
	return sigaction(VCPU_SIGNAL, &sa, NULL) < 0 ? err_set(e, -errno, "cannot take signal %d", VCPU_SIGNAL) : 0;
}

int vcpu_create(struct vm *v, unsigned id, struct vh_err *e)
{
	struct vcpu *c = &v->vcpu[id];
	void *run;
	int r;

	r = c->fd = ioctl_retry(v->fd, KVM_CREATE_VCPU, (void *)(uintptr_t)id);
	if (r < 0)
		return err_set(e, r, "KVM refused to make vCPU %u: %s", id, strerror(-r));
	run = mmap(NULL, v->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->fd, 0);
	if (run == MAP_FAILED)
		return err_set(e, -errno, "cannot map vCPU %u: %s", id, strerror(errno));
	c->run = run;
	return cpuid_set(c, e);
}

/* A line about where the guest was, for errors. */
static void post_state(struct vcpu *c, enum vm_event ev, const char *what)
{
	struct kvm_regs r = {0};
	struct kvm_sregs s = {0};
	char text[400];

	ioctl(c->fd, KVM_GET_REGS, &r);
	ioctl(c->fd, KVM_GET_SREGS, &s);
	snprintf(text, sizeof text, "vCPU %u: %s at rip %#llx (cs %#x base %#llx, cr0 %#llx, cr4 %#llx, efer %#llx)", c->id, what,
		 r.rip, s.cs.selector, s.cs.base, s.cr0, s.cr4, s.efer);
	vm_post_event(c->vm, ev, text);
}

static void post_error(struct vcpu *c, const char *what)
{
	post_state(c, VM_ERROR, what);
}

static void internal_error(struct vcpu *c)
{
	struct kvm_run *run = c->run;
	char text[160], hex[3 * 15 + 1] = "";
	unsigned n = 0;

	if (run->internal.suberror != KVM_INTERNAL_ERROR_EMULATION) {
		snprintf(text, sizeof text, "KVM internal error %u (data %#llx %#llx)", run->internal.suberror,
			 run->internal.ndata > 0 ? run->internal.data[0] : 0, run->internal.ndata > 1 ? run->internal.data[1] : 0);
		post_error(c, text);
		return;
	}
	if (run->emulation_failure.ndata >= 3 && run->emulation_failure.flags & KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES)
		n = run->emulation_failure.insn_size > 15 ? 15 : run->emulation_failure.insn_size;
	for (unsigned i = 0; i < n; i++)
		snprintf(hex + i * 3, 4, " %02x", run->emulation_failure.insn_bytes[i]);
	snprintf(text, sizeof text, "KVM cannot emulate the instruction%s%s", n ? "" : " (bytes unknown)", hex);
	post_error(c, text);
}

static void exit_io(struct vcpu *c)
{
	struct kvm_run *run = c->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	unsigned size = run->io.size;
	int out = run->io.direction == KVM_EXIT_IO_OUT;

	for (uint32_t i = 0; i < run->io.count; i++, data += size)
		if (out)
			bus_write(c->vm->pio, run->io.port, data, size);
		else
			bus_read(c->vm->pio, run->io.port, data, size);
}

static void exit_mmio(struct vcpu *c)
{
	struct kvm_run *run = c->run;
	unsigned len = run->mmio.len > 8 ? 8 : run->mmio.len;

	if (run->mmio.is_write)
		bus_write(c->vm->mmio, run->mmio.phys_addr, run->mmio.data, len);
	else
		bus_read(c->vm->mmio, run->mmio.phys_addr, run->mmio.data, len);
}

static void exit_system_event(struct vcpu *c)
{
	switch (c->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		vm_post_event(c->vm, VM_SHUTDOWN, "the guest powered off");
		break;
	case KVM_SYSTEM_EVENT_RESET:
		vm_post_event(c->vm, VM_RESET, "the guest asked for a reset");
		break;
	case KVM_SYSTEM_EVENT_CRASH:
		vm_post_event(c->vm, VM_PANIC, "the guest reported a crash");
		break;
	default:
		post_error(c, "unknown system event");
	}
}

static void count(uint64_t *n)
{
	__atomic_store_n(n, *n + 1, __ATOMIC_RELAXED);
}

/* Enters the guest and handles what it came back for; -EINTR when it was told to leave. */
static int run_once(struct vcpu *c)
{
	char text[120];

	if (ioctl(c->fd, KVM_RUN, 0) < 0) {
		int err = errno;
		if (err == EINTR || err == EAGAIN)
			return -err;
		snprintf(text, sizeof text, "KVM_RUN failed: %s", strerror(err));
		post_error(c, text);
		c->parked = 1;
		return -err;
	}
	count(&c->stats.exits);
	switch (c->run->exit_reason) {
	case KVM_EXIT_IO:
		count(&c->stats.io);
		exit_io(c);
		return 0;
	case KVM_EXIT_MMIO:
		count(&c->stats.mmio);
		exit_mmio(c);
		return 0;
	case KVM_EXIT_HLT:
		count(&c->stats.halts);
		return 0;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
	case KVM_EXIT_SET_TPR:
		return 0;
	case KVM_EXIT_SHUTDOWN:
		post_state(c, VM_TRIPLE_FAULT, "triple fault");
		return 0;
	case KVM_EXIT_SYSTEM_EVENT:
		exit_system_event(c);
		return 0;
	case KVM_EXIT_INTERNAL_ERROR:
		internal_error(c);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		snprintf(text, sizeof text, "the CPU refused the guest's state (reason %#llx)",
			 c->run->fail_entry.hardware_entry_failure_reason);
		post_error(c, text);
		break;
	default:
		snprintf(text, sizeof text, "unexpected KVM exit %u", c->run->exit_reason);
		post_error(c, text);
	}
	c->parked = 1;
	return 0;
}

/* What KVM holds of an interrupted port or MMIO access is finished, so that registers may be read and set. */
static void finish_access(struct vcpu *c)
{
	int parked = c->parked;
	for (;;) {
		__atomic_store_n(&c->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
		/* An error here ends the same way as one outside: parked, and told once. */
		if (run_once(c) < 0 || (c->parked && !parked))
			break;
	}
	__atomic_store_n(&c->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
}

/* Out of the guest, until the mode is RUN and nothing parks this vCPU; 0 when it is STOP. */
static int vcpu_wait(struct vcpu *c)
{
	struct vm *v = c->vm;
	int go;

	if (__atomic_load_n(&v->mode, __ATOMIC_SEQ_CST) != VM_MODE_STOP)
		finish_access(c);
	pthread_mutex_lock(&v->lock);
	v->running--;
	pthread_cond_broadcast(&v->cond);
	while (v->mode == VM_MODE_PAUSE || (v->mode == VM_MODE_RUN && c->parked))
		pthread_cond_wait(&v->cond, &v->lock);
	go = v->mode == VM_MODE_RUN;
	if (go)
		v->running++;
	pthread_mutex_unlock(&v->lock);
	return go;
}

static void *vcpu_thread(void *arg)
{
	struct vcpu *c = arg;
	char name[16];
	sigset_t own;

	current = c;
	__atomic_store_n(&c->tid, gettid(), __ATOMIC_RELAXED);
	snprintf(name, sizeof name, "vcpu%u", c->id);
	prctl(PR_SET_NAME, name);
	sigemptyset(&own);
	sigaddset(&own, VCPU_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &own, NULL);
	/* Here, and by no other thread: a vCPU's ioctl waits for its KVM_RUN to end, which with an idle or spinning guest is never. */
	__atomic_store_n(&c->stats_fd, ioctl(c->fd, KVM_GET_STATS_FD, NULL), __ATOMIC_RELEASE);
	for (;;) {
		/* First allow KVM_RUN, then look: a kick in between sets immediate_exit again. */
		__atomic_store_n(&c->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
		if ((__atomic_load_n(&c->vm->mode, __ATOMIC_SEQ_CST) != VM_MODE_RUN || c->parked) && !vcpu_wait(c))
			break;
		run_once(c);
	}
	current = NULL;
	return NULL;
}

int vcpu_start(struct vcpu *c, struct vh_err *e)
{
	struct vm *v = c->vm;
	pthread_attr_t attr;
	sigset_t all, old;
	int r, pin = v->pin[c->id];

	pthread_attr_init(&attr);
	if (pin >= 0) {
		cpu_set_t set;
		CPU_ZERO(&set);
		if (pin < CPU_SETSIZE)
			CPU_SET(pin, &set);
		pthread_attr_setaffinity_np(&attr, sizeof set, &set);
	}
	pthread_mutex_lock(&v->lock);
	v->running++;
	pthread_mutex_unlock(&v->lock);
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&c->thread, &attr, vcpu_thread, c);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (!r) {
		c->started = 1;
		return 0;
	}
	pthread_mutex_lock(&v->lock);
	v->running--;
	pthread_mutex_unlock(&v->lock);
	if (pin >= 0 && r == -EINVAL)
		return err_usage(e, "vCPU %u cannot be pinned to CPU %d: this process may not run there", c->id, pin);
	return err_set(e, r, "cannot start vCPU %u: %s", c->id, strerror(-r));
}

void vcpu_kick(struct vcpu *c)
{
	if (c->started)
		pthread_kill(c->thread, VCPU_SIGNAL);
}
