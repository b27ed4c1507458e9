/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Interrupts. An MSI vector is an eventfd bound to a GSI whose route is the message. KVM takes only the whole routing
 * table, at 40 to 80 us a time, so a guest that programs 30 vectors one by one would pay for each: vm_msi_set only
 * notes the message, and the first signal after it programs all noted ones at once. Until then, and where KVM refuses
 * the table, a vector is sent by KVM_SIGNAL_MSI. A vector whose eventfd was given away (vhost-net) is programmed at once.
 */
#include "vm/vm-i.h"

#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "util/log.h"

#define IOAPIC_PINS 24u
#define PIC_PINS 16u

struct vm_msi {
	struct vm *vm;
	unsigned gsi;
	int fd;
	/* Under irq_table.lock, except that vm_msi_signal reads live and fd. */
	uint64_t addr;
	uint32_t data;
	int live;     /* the irqfd is bound, and KVM's route is addr/data */
	int bound;    /* KVM_IRQFD is in place */
	int given;    /* someone else writes to fd */
	int used;     /* holds a message: addr and data are not both 0 */
};

struct irq_table {
	pthread_mutex_t lock;
	struct vm_msi **msi; /* by gsi - IOAPIC_PINS; NULL: free */
	unsigned n;
	struct kvm_irq_routing *routes; /* room for the pins and n messages */
	int told;
};

int irq_init(struct vm *v, struct vh_err *e)
{
	v->irq = calloc(1, sizeof *v->irq);
	if (!v->irq)
		return err_set(e, -ENOMEM, "out of memory");
	pthread_mutex_init(&v->irq->lock, NULL);
	return 0;
}

void irq_exit(struct vm *v)
{
	if (!v->irq)
		return;
	pthread_mutex_destroy(&v->irq->lock);
	free(v->irq->msi);
	free(v->irq->routes);
	free(v->irq);
	v->irq = NULL;
}

/* Destination bits 8-14 come in address bits 5-11 (see KVM_FEATURE_MSI_EXT_DEST_ID); KVM wants them in the high half. */
static uint32_t address_hi(uint64_t addr)
{
	return (uint32_t)(addr >> 32 | (addr >> 5 & 0x7f) << 8);
}

static void add_pin(struct kvm_irq_routing *t, unsigned gsi, unsigned chip, unsigned pin)
{
	t->entries[t->nr++] = (struct kvm_irq_routing_entry){.gsi = gsi, .type = KVM_IRQ_ROUTING_IRQCHIP,
							     .u.irqchip = {.irqchip = chip, .pin = pin}};
}

/* The whole table: KVM's default for the pins, then every noted message. Locked. */
static int program(struct vm *v)
{
	struct irq_table *t = v->irq;
	struct kvm_irq_routing *r = t->routes;

	if (vm_wait_setup(v) < 0)
		return -ENODEV;
	memset(r, 0, sizeof *r);
	for (unsigned i = 0; i < IOAPIC_PINS; i++) {
		if (i < PIC_PINS)
			add_pin(r, i, i < 8 ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE, i % 8);
		add_pin(r, i, KVM_IRQCHIP_IOAPIC, i);
	}
	for (unsigned i = 0; i < t->n; i++) {
		struct vm_msi *m = t->msi[i];
		if (m && m->used)
			r->entries[r->nr++] = (struct kvm_irq_routing_entry){
				.gsi = m->gsi, .type = KVM_IRQ_ROUTING_MSI,
				.u.msi = {.address_lo = (uint32_t)m->addr, .address_hi = address_hi(m->addr), .data = m->data}};
	}
	return ioctl_retry(v->fd, KVM_SET_GSI_ROUTING, r);
}

static int bind_fd(struct vm_msi *m, int on)
{
	struct kvm_irqfd f = {.fd = (uint32_t)m->fd, .gsi = m->gsi, .flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN};
	int r = m->bound == on ? 0 : ioctl_retry(m->vm->fd, KVM_IRQFD, &f);
	if (r >= 0)
		m->bound = on;
	return r;
}

/* Programs all noted messages and binds their eventfds. Locked. */
static int flush(struct vm *v)
{
	struct irq_table *t = v->irq;
	int r = program(v);

	for (unsigned i = 0; i < t->n && r >= 0; i++) {
		struct vm_msi *m = t->msi[i];
		if (m && m->used && !m->live) {
			r = bind_fd(m, 1);
			if (r >= 0)
				__atomic_store_n(&m->live, 1, __ATOMIC_RELEASE);
		}
	}
	if (r < 0 && !t->told) {
		t->told = 1;
		log_warn("vm", "KVM refused the interrupt routes (%s): interrupts go by system call", strerror(-r));
	}
	return r;
}

int vm_msi_new(struct vm *v, struct vm_msi **out, struct vh_err *e)
{
	struct irq_table *t = v->irq;
	struct vm_msi *m = calloc(1, sizeof *m);
	unsigned i;
	int r = 0;

	*out = NULL;
	if (!m)
		return err_set(e, -ENOMEM, "out of memory");
	m->vm = v;
	m->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (m->fd < 0) {
		r = err_set(e, -errno, "cannot make an interrupt's eventfd: %s", strerror(errno));
		free(m);
		return r;
	}
	pthread_mutex_lock(&t->lock);
	for (i = 0; i < t->n && t->msi[i]; i++)
		;
	if (i == t->n) {
		unsigned n = t->n * 2 + 32;
		void *p = realloc(t->msi, n * sizeof *t->msi);
		void *q = realloc(t->routes, sizeof *t->routes + (PIC_PINS + IOAPIC_PINS + n) * sizeof t->routes->entries[0]);
		if (p)
			t->msi = p;
		if (q)
			t->routes = q;
		if (p && q) {
			memset(t->msi + t->n, 0, (n - t->n) * sizeof *t->msi);
			t->n = n;
		} else {
			r = err_set(e, -ENOMEM, "out of memory");
		}
	}
	if (!r) {
		m->gsi = IOAPIC_PINS + i;
		t->msi[i] = m;
	}
	pthread_mutex_unlock(&t->lock);
	if (r) {
		close(m->fd);
		free(m);
		return r;
	}
	*out = m;
	return 0;
}

void vm_msi_free(struct vm_msi *m)
{
	if (!m)
		return;
	struct irq_table *t = m->vm->irq;
	pthread_mutex_lock(&t->lock);
	bind_fd(m, 0);
	t->msi[m->gsi - IOAPIC_PINS] = NULL; /* its route stays in KVM, unreachable, until the next table */
	pthread_mutex_unlock(&t->lock);
	close(m->fd);
	free(m);
}

int vm_msi_set(struct vm_msi *m, uint64_t addr, uint32_t data)
{
	struct irq_table *t = m->vm->irq;
	int r = 0;

	pthread_mutex_lock(&t->lock);
	if (m->addr != addr || m->data != data) {
		m->addr = addr;
		m->data = data;
		m->used = addr || data;
		__atomic_store_n(&m->live, 0, __ATOMIC_RELEASE);
		if (m->given) {
			/* While masked, a signal waits in the eventfd; binding it again delivers it. */
			if (!m->used)
				bind_fd(m, 0);
			else
				r = flush(m->vm);
		}
	}
	pthread_mutex_unlock(&t->lock);
	return r < 0 ? r : 0;
}

int vm_msi_fd(struct vm_msi *m)
{
	struct irq_table *t = m->vm->irq;
	pthread_mutex_lock(&t->lock);
	m->given = 1;
	if (m->used && !m->live)
		flush(m->vm);
	pthread_mutex_unlock(&t->lock);
	return m->fd;
}

static void signal_fd(struct vm_msi *m)
{
	uint64_t one = 1;
	if (write(m->fd, &one, sizeof one) < 0)
		log_debug("vm", "interrupt %u: %s", m->gsi, strerror(errno));
}

void vm_msi_signal(struct vm_msi *m)
{
	struct irq_table *t = m->vm->irq;

	if (__atomic_load_n(&m->live, __ATOMIC_ACQUIRE)) {
		signal_fd(m);
		return;
	}
	pthread_mutex_lock(&t->lock);
	if (!m->used) {
		if (m->given)
			signal_fd(m);
	} else if (m->live || flush(m->vm) >= 0) {
		signal_fd(m);
	} else {
		struct kvm_msi msg = {.address_lo = (uint32_t)m->addr, .address_hi = address_hi(m->addr), .data = m->data};
		ioctl_retry(m->vm->fd, KVM_SIGNAL_MSI, &msg);
	}
	pthread_mutex_unlock(&t->lock);
}

void vm_irq_line(struct vm *v, unsigned gsi, int level)
{
	struct kvm_irq_level l = {.irq = gsi, .level = level ? 1 : 0};
	if (vm_wait_setup(v) >= 0 && ioctl_retry(v->fd, KVM_IRQ_LINE, &l) < 0)
		log_debug("vm", "interrupt line %u: %s", gsi, strerror(errno));
}

int vm_irqfd(struct vm *v, unsigned gsi, int fd, int resample_fd, int on)
{
	struct kvm_irqfd f = {.fd = (uint32_t)fd, .gsi = gsi, .flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN};
	int r = vm_wait_setup(v);

	if (r < 0)
		return r;
	if (on && resample_fd >= 0) {
		f.flags |= KVM_IRQFD_FLAG_RESAMPLE;
		f.resamplefd = (uint32_t)resample_fd;
	}
	r = ioctl_retry(v->fd, KVM_IRQFD, &f);
	return r < 0 ? r : 0;
}

int vm_ioeventfd(struct vm *v, uint64_t addr, unsigned len, int pio, int fd, int on)
{
	struct kvm_ioeventfd f = {.addr = addr, .len = len, .fd = fd,
				  .flags = (on ? 0u : KVM_IOEVENTFD_FLAG_DEASSIGN) | (pio ? KVM_IOEVENTFD_FLAG_PIO : 0u)};
	int r = vm_wait_setup(v);

	if (r < 0)
		return r;
	r = ioctl_retry(v->fd, KVM_IOEVENTFD, &f);
	return r < 0 ? r : 0;
}
