/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The VM: its life and what its vCPUs have in common.
 *
 * Set-up runs in a thread of its own, so that loading plugins and opening images costs nothing on top. Its order is
 * measured: memory slots before the irqchip, since each change of the slots after the first I/O device of KVM's is
 * registered waits for a grace period (0.1 ms before, 6 ms after); and CPUID before MSRs, which depend on it.
 */
#include "vm/vm-i.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/log.h"

static int open_kvm(struct vh_err *e)
{
	int fd = open("/dev/kvm", O_RDWR | O_CLOEXEC), r;
	if (fd < 0) {
		r = -errno;
		err_object(e, "/dev/kvm");
		err_set(e, r, "cannot be opened: %s", strerror(-r));
		if (r == -EACCES)
			err_remedy(e, "add the user to the group kvm");
		else if (r == -ENOENT)
			err_remedy(e, "enable virtualisation in the firmware and load kvm_intel or kvm_amd");
		return r;
	}
	r = ioctl_retry(fd, KVM_GET_API_VERSION, NULL);
	if (r != KVM_API_VERSION) {
		close(fd);
		err_object(e, "/dev/kvm");
		return err_set(e, r < 0 ? r : -EPROTO, "speaks version %d of the KVM interface, not %d", r, KVM_API_VERSION);
	}
	return fd;
}

static int add_slots(struct vm *v, struct vh_err *e)
{
	for (unsigned i = 0; i < v->mem->n; i++) {
		struct mem_range *g = &v->mem->range[i];
		struct kvm_userspace_memory_region s = {.slot = i, .guest_phys_addr = g->gpa, .memory_size = g->bytes,
							.userspace_addr = (uintptr_t)g->host};
		int r = ioctl_retry(v->fd, KVM_SET_USER_MEMORY_REGION, &s);
		if (r < 0)
			return err_set(e, r, "KVM refused %llu MiB of memory at %#llx: %s", (unsigned long long)(g->bytes >> 20),
				       (unsigned long long)g->gpa, strerror(-r));
	}
	return 0;
}

static int add_irqchip(struct vm *v, struct vh_err *e)
{
	struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
	int r = ioctl_retry(v->fd, KVM_CREATE_IRQCHIP, NULL);
	if (r < 0)
		return err_set(e, r, "KVM refused its interrupt controllers: %s", strerror(-r));
	r = ioctl_retry(v->fd, KVM_CREATE_PIT2, &pit);
	if (r < 0)
		log_warn("vm", "KVM has no interval timer (PIT): %s", strerror(-r));
	else
		v->have_pit = 1;
	if (v->n > 254) {
		struct kvm_enable_cap cap = {.cap = KVM_CAP_X2APIC_API,
					     .args = {KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK}};
		r = ioctl_retry(v->fd, KVM_ENABLE_CAP, &cap);
		if (r < 0) {
			err_set(e, r, "KVM has no 32-bit APIC ids, which %u vCPUs need: %s", v->n, strerror(-r));
			err_remedy(e, "use at most 254 vCPUs");
			return r;
		}
	}
	return 0;
}

static int check_limits(struct vm *v, struct vh_err *e)
{
	int max = ioctl(v->kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS), ids = ioctl(v->kvm, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPU_ID);
	struct mem_range *top = &v->mem->range[v->mem->n - 1];

	if (max < 4)
		max = 4;
	if (ids > 0 && ids < max)
		max = ids;
	if (v->n > (unsigned)max)
		return err_usage(e, "%u vCPUs are more than the %d that KVM allows on this machine", v->n, max);
	/* Half of the address space is for PCI. */
	if (v->phys_bits < 64 && top->gpa + top->bytes > UINT64_C(1) << (v->phys_bits - 1))
		return err_usage(e, "%llu MiB of memory do not fit a CPU with %u physical address bits",
				 (unsigned long long)(v->mem->bytes >> 20), v->phys_bits);
	return 0;
}

static int set_up(struct vm *v, struct vh_err *e)
{
	uint64_t identity = 0xfffbc000;
	int r = cpuid_make(v, e);

	if (!r)
		r = check_limits(v, e);
	if (r)
		return r;
	v->fd = ioctl_retry(v->kvm, KVM_CREATE_VM, NULL);
	if (v->fd < 0)
		return err_set(e, v->fd, "KVM refused to make a VM: %s", strerror(-v->fd));
	/* Intel without unrestricted guests runs real mode in these pages; others ignore them. */
	if (ioctl(v->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 || ioctl(v->fd, KVM_SET_TSS_ADDR, identity + 0x1000) < 0)
		log_debug("vm", "no real-mode TSS: %s", strerror(errno));
	r = add_slots(v, e);
	if (!r)
		r = add_irqchip(v, e);
	for (unsigned i = 0; i < v->n && !r; i++)
		r = vcpu_create(v, i, e);
	if (!r)
		r = state_save(v, e);
	return r;
}

static void *setup_thread(void *arg)
{
	struct vm *v = arg;
	v->setup_result = set_up(v, &v->setup_err);
	return NULL;
}

int vm_new(const struct vm_config *c, struct vm **out, struct vh_err *e)
{
	struct vm *v;
	sigset_t all, old;
	int r;

	*out = NULL;
	if (!c->cpus || c->cpus > 4096)
		return err_usage(e, "%u vCPUs: there must be 1 to 4096", c->cpus);
	v = calloc(1, sizeof *v);
	if (!v)
		return err_set(e, -ENOMEM, "out of memory");
	v->c = *c;
	v->c.pin = NULL;
	v->n = c->cpus;
	v->kvm = v->fd = -1;
	pthread_mutex_init(&v->setup_lock, NULL);
	pthread_mutex_init(&v->lock, NULL);
	pthread_cond_init(&v->cond, NULL);
	v->vcpu = calloc(v->n, sizeof *v->vcpu);
	v->pin = calloc(v->n, sizeof *v->pin);
	v->pio = bus_new();
	v->mmio = bus_new();
	r = v->vcpu && v->pin && v->pio && v->mmio ? 0 : err_set(e, -ENOMEM, "out of memory");
	if (r)
		goto fail;
	for (unsigned i = 0; i < v->n; i++) {
		v->vcpu[i] = (struct vcpu){.vm = v, .id = i, .fd = -1, .stats_fd = -1};
		v->pin[i] = c->pin ? c->pin[i] : -1;
	}
	r = irq_init(v, e);
	if (!r)
		r = vcpu_signal_setup(e);
	if (r)
		goto fail;
	r = v->kvm = open_kvm(e);
	if (r < 0)
		goto fail;
	r = ioctl_retry(v->kvm, KVM_GET_VCPU_MMAP_SIZE, NULL);
	if (r < (int)sizeof(struct kvm_run)) {
		r = err_set(e, r < 0 ? r : -EPROTO, "KVM does not tell the size of a vCPU's shared page");
		goto fail;
	}
	v->run_size = (size_t)r;
	r = mem_new(&c->mem, &v->mem, e);
	if (r)
		goto fail;
	/* Signals belong to the main thread. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&v->setup, NULL, setup_thread, v);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	v->setup_running = r == 0;
	if (r) /* no thread: do it here */
		setup_thread(v);
	*out = v;
	return 0;
fail:
	v->setup_done = 1;
	vm_free(v);
	return r;
}

static int join_setup(struct vm *v, struct vh_err *e)
{
	int r;
	if (__atomic_load_n(&v->setup_done, __ATOMIC_ACQUIRE) && !v->setup_result)
		return 0;
	pthread_mutex_lock(&v->setup_lock);
	if (v->setup_running)
		pthread_join(v->setup, NULL);
	v->setup_running = 0;
	__atomic_store_n(&v->setup_done, 1, __ATOMIC_RELEASE);
	r = v->setup_result;
	if (r && e) {
		if (v->setup_err.code)
			err_move(e, &v->setup_err);
		else
			err_set(e, r, "the VM could not be made");
	}
	pthread_mutex_unlock(&v->setup_lock);
	return r;
}

int vm_ready(struct vm *v, struct vh_err *e)
{
	return join_setup(v, e);
}

int vm_wait_setup(const struct vm *v)
{
	return join_setup((struct vm *)v, NULL);
}

void vm_free(struct vm *v)
{
	if (!v)
		return;
	vm_stop(v);
	vm_wait_setup(v);
	irq_exit(v);
	for (unsigned i = 0; v->vcpu && i < v->n; i++) {
		if (v->vcpu[i].run)
			munmap(v->vcpu[i].run, v->run_size);
		if (v->vcpu[i].stats_fd >= 0)
			close(v->vcpu[i].stats_fd);
		if (v->vcpu[i].fd >= 0)
			close(v->vcpu[i].fd);
	}
	if (v->fd >= 0)
		close(v->fd);
	if (v->kvm >= 0)
		close(v->kvm);
	mem_free(v->mem);
	bus_free(v->pio);
	bus_free(v->mmio);
	err_clear(&v->setup_err);
	pthread_cond_destroy(&v->cond);
	pthread_mutex_destroy(&v->lock);
	pthread_mutex_destroy(&v->setup_lock);
	free(v->vcpu);
	free(v->pin);
	free(v->cpuid);
	free(v->msrs);
	free(v);
}

struct mem *vm_mem(struct vm *v)
{
	return v->mem;
}

struct bus *vm_pio(struct vm *v)
{
	return v->pio;
}

struct bus *vm_mmio(struct vm *v)
{
	return v->mmio;
}

int vm_fd(struct vm *v)
{
	vm_wait_setup(v);
	return v->fd;
}

unsigned vm_cpus(const struct vm *v)
{
	return v->n;
}

unsigned vm_phys_bits(const struct vm *v)
{
	vm_wait_setup(v);
	return v->phys_bits;
}

void vm_post_event(struct vm *v, enum vm_event ev, const char *text)
{
	struct vcpu *c = vcpu_current();

	if (c && c->vm == v)
		c->parked = 1; /* nothing after the write to the reset port is executed */
	if (__atomic_exchange_n(&v->event_posted, 1, __ATOMIC_ACQ_REL))
		return;
	if (v->c.event)
		v->c.event(v->c.event_ctx, ev, text);
}

void vm_set_boot(struct vm *v, const struct vm_boot *b)
{
	v->boot = *b;
	v->have_boot = 1;
}

int vm_start(struct vm *v, struct vh_err *e)
{
	int r = vm_ready(v, e);

	if (!r)
		r = state_boot(v, e);
	for (unsigned i = 0; i < v->n && !r; i++)
		r = vcpu_start(&v->vcpu[i], e);
	if (r)
		vm_stop(v);
	return r;
}

static void set_mode(struct vm *v, enum vm_mode mode)
{
	pthread_mutex_lock(&v->lock);
	__atomic_store_n(&v->mode, mode, __ATOMIC_SEQ_CST);
	pthread_cond_broadcast(&v->cond);
	pthread_mutex_unlock(&v->lock);
}

void vm_pause(struct vm *v)
{
	set_mode(v, VM_MODE_PAUSE);
	for (unsigned i = 0; i < v->n; i++)
		vcpu_kick(&v->vcpu[i]);
	pthread_mutex_lock(&v->lock);
	while (v->running)
		pthread_cond_wait(&v->cond, &v->lock);
	pthread_mutex_unlock(&v->lock);
}

void vm_resume(struct vm *v)
{
	/* So that the guest's soft lock-up watchdog forgives the gap. Fails with EINVAL where kvmclock is not in use. */
	for (unsigned i = 0; i < v->n; i++)
		if (v->vcpu[i].started)
			ioctl(v->vcpu[i].fd, KVM_KVMCLOCK_CTRL, 0);
	set_mode(v, VM_MODE_RUN);
}

int vm_reset(struct vm *v, struct vh_err *e)
{
	int r = state_reset_chips(v, e);
	for (unsigned i = 0; i < v->n && !r; i++)
		r = state_reset_vcpu(&v->vcpu[i], e);
	if (!r)
		r = state_boot(v, e);
	if (r)
		return err_context(e, "reset");
	pthread_mutex_lock(&v->lock);
	for (unsigned i = 0; i < v->n; i++)
		v->vcpu[i].parked = 0;
	__atomic_store_n(&v->event_posted, 0, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&v->lock);
	return 0;
}

void vm_stop(struct vm *v)
{
	if (!v->vcpu)
		return;
	set_mode(v, VM_MODE_STOP);
	for (unsigned i = 0; i < v->n; i++)
		vcpu_kick(&v->vcpu[i]);
	for (unsigned i = 0; i < v->n; i++) {
		if (v->vcpu[i].started)
			pthread_join(v->vcpu[i].thread, NULL);
		v->vcpu[i].started = 0;
	}
}

int vm_vcpu_tid(struct vm *v, unsigned i)
{
	return i < v->n ? __atomic_load_n(&v->vcpu[i].tid, __ATOMIC_RELAXED) : 0;
}
