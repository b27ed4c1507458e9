/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include <glib.h>
#include <sys/eventfd.h>
#include <string.h>
#include <unistd.h>
#include "dev/pci.h"
#include "fake-vm.h"

struct vm *fake_vm(uint64_t bytes, unsigned phys_bits)
{
	struct vm *v = g_new0(struct vm, 1);
	struct mem_config c = {.bytes = bytes};

	g_assert_cmpint(mem_new(&c, &v->mem, NULL), ==, 0);
	v->pio = bus_new();
	v->mmio = bus_new();
	v->phys_bits = phys_bits;
	v->next_gpa = 0x100000;
	return v;
}

void fake_vm_free(struct vm *v)
{
	g_assert_cmpuint(v->msis, ==, 0);
	g_assert_cmpuint(v->n_bells, ==, 0);
	bus_free(v->pio);
	bus_free(v->mmio);
	mem_free(v->mem);
	g_free(v);
}

uint64_t fake_alloc(struct vm *v, uint64_t bytes, uint64_t align)
{
	uint64_t at = (v->next_gpa + align - 1) & ~(align - 1);

	v->next_gpa = at + bytes;
	memset(fake_at(v, at), 0, bytes);
	g_assert_nonnull(mem_ptr(v->mem, at, bytes));
	return at;
}

void *fake_at(struct vm *v, uint64_t gpa)
{
	void *p = mem_ptr(v->mem, gpa, 1);

	g_assert_nonnull(p);
	return p;
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
unsigned vm_phys_bits(const struct vm *v)
{
	return v->phys_bits;
}
void vm_post_event(struct vm *v, enum vm_event ev, const char *text)
{
	(void)text;
	v->resets += ev == VM_RESET;
}
void vm_irq_line(struct vm *v, unsigned gsi, int level)
{
	g_assert_cmpuint(gsi, <, 24);
	__atomic_store_n(&v->line[gsi], (uint8_t)level, __ATOMIC_SEQ_CST);
}

int vm_msi_new(struct vm *v, struct vm_msi **out, struct vh_err *e)
{
	(void)e;
	*out = g_new0(struct vm_msi, 1);
	(*out)->vm = v;
	v->msis++;
	return 0;
}
void vm_msi_free(struct vm_msi *m)
{
	m->vm->msis--;
	if (m->fd)
		close(m->fd);
	g_free(m);
}
int vm_msi_set(struct vm_msi *m, uint64_t addr, uint32_t data)
{
	m->addr = addr;
	m->data = data;
	m->sets++;
	return 0;
}
int vm_msi_fd(struct vm_msi *m)
{
	if (!m->fd)
		m->fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return m->fd;
}
void vm_msi_signal(struct vm_msi *m)
{
	__atomic_fetch_add(&m->signals, 1, __ATOMIC_SEQ_CST);
}

int vm_ioeventfd(struct vm *v, uint64_t addr, unsigned len, int pio, int fd, int add)
{
	g_assert_cmpuint(len, ==, 0);
	g_assert_false(pio);
	for (unsigned i = 0; i < v->n_bells; i++) {
		if (v->bell[i].addr != addr)
			continue;
		g_assert_false(add);
		g_assert_cmpint(v->bell[i].fd, ==, fd);
		v->bell[i] = v->bell[--v->n_bells];
		return 0;
	}
	g_assert_true(add);
	if (v->n_bells == FAKE_BELLS)
		return -ENOSPC;
	v->bell[v->n_bells++] = (struct fake_bell){addr, fd};
	return 0;
}

int fake_ring(struct vm *v, uint64_t addr)
{
	uint64_t one = 1;

	for (unsigned i = 0; i < v->n_bells; i++)
		if (v->bell[i].addr == addr) {
			g_assert_cmpint(write(v->bell[i].fd, &one, 8), ==, 8);
			return 1;
		}
	return 0;
}

uint32_t mmio_get(struct vm *v, uint64_t addr, unsigned len)
{
	uint32_t x = 0;

	bus_read(v->mmio, addr, &x, len);
	return x;
}
void mmio_set(struct vm *v, uint64_t addr, uint32_t value, unsigned len)
{
	if (!fake_ring(v, addr))
		bus_write(v->mmio, addr, &value, len);
}
uint32_t pio_get(struct vm *v, uint16_t port, unsigned len)
{
	uint32_t x = 0;

	bus_read(v->pio, port, &x, len);
	return x;
}
void pio_set(struct vm *v, uint16_t port, uint32_t value, unsigned len)
{
	bus_write(v->pio, port, &value, len);
}
uint32_t cfg_get(struct vm *v, unsigned devfn, unsigned off, unsigned len)
{
	return mmio_get(v, PCI_ECAM_BASE + (uint64_t)devfn * 4096 + off, len);
}
void cfg_set(struct vm *v, unsigned devfn, unsigned off, uint32_t value, unsigned len)
{
	mmio_set(v, PCI_ECAM_BASE + (uint64_t)devfn * 4096 + off, value, len);
}
