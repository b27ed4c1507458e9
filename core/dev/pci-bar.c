/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* BARs: the windows, placement by the VMM, sizing and moving by the guest while vCPUs run. */
#include "dev/pci-i.h"

/* Enough for any number of devices. */
#define WINDOW64_MAX (UINT64_C(1) << 40)
#define PHYS_BITS_MAX 46

/*
 * The 64-bit window lies in the upper half of what the CPU can address, in its third quarter: above any RAM that fits
 * there, below AMD's reserved range under 1 TiB. RAM that reaches into it pushes it up; no room gives no window.
 */
void pci_window_init(struct pci_host *h)
{
	const struct mem *m = vm_mem(h->vm);
	unsigned bits = vm_phys_bits(h->vm);
	uint64_t top, base, size, ram = MEM_HIGH_BASE;

	h->win_base = h->win_size = 0;
	if (bits < 34 || bits > 57)
		return;
	/* 4-level page tables map 47 bits to one side: guests that map memory one to one must reach the window. */
	if (bits > PHYS_BITS_MAX)
		bits = PHYS_BITS_MAX;
	for (unsigned i = 0; i < m->n; i++)
		if (m->range[i].gpa + m->range[i].bytes > ram)
			ram = m->range[i].gpa + m->range[i].bytes;
	top = UINT64_C(1) << bits;
	size = top / 4 < WINDOW64_MAX ? top / 4 : WINDOW64_MAX;
	base = top / 2;
	if (ram > base)
		base = (ram + (UINT64_C(1) << 30) - 1) & ~((UINT64_C(1) << 30) - 1);
	if (base >= top)
		return;
	if (size > top - base)
		size = top - base;
	h->win_base = base;
	h->win_size = size;
}

void pci_window64(const struct pci_host *host, uint64_t *base, uint64_t *size)
{
	struct pci_host *h = (struct pci_host *)host; /* placing late is nothing that callers see */

	pthread_mutex_lock(&h->lock);
	pci_place_all(h);
	pthread_mutex_unlock(&h->lock);
	*base = h->win_base;
	*size = h->win_size;
}

/* First fit between the homes of all BARs of the same address space. 0: no room. */
static uint64_t place(struct pci_host *h, struct pci_dev *d, const struct pci_bar *b, uint64_t from, uint64_t end)
{
	uint64_t at = (from + b->size - 1) & ~(b->size - 1);

again:
	if (at < from || at > end || b->size > end - at)
		return 0;
	for (unsigned i = 0; i <= 256; i++) {
		struct pci_dev *o = i < 256 ? h->dev[i] : d;

		for (unsigned n = 0; o && n < 6; n++) {
			const struct pci_bar *x = &o->bar[n];

			if (!x->size || !x->home || x->io != b->io || at >= x->home + x->size || x->home >= at + b->size)
				continue;
			at = (x->home + x->size + b->size - 1) & ~(b->size - 1);
			goto again;
		}
	}
	return at;
}

int pci_bar_place(struct pci_host *h, struct pci_dev *d, struct vh_err *e)
{
	for (unsigned n = 0; n < 6; n++)
		d->bar[n].home = 0;
	for (unsigned n = 0; n < 6; n++) {
		struct pci_bar *b = &d->bar[n];
		uint8_t *mask = d->wmask + PCI_BASE_ADDRESS_0 + 4 * n;
		uint64_t writable;

		if (!b->size)
			continue;
		if (b->size & (b->size - 1) || b->size < (b->io ? 4 : 16) || (b->is64 && n == 5) ||
		    (!b->is64 && b->size > UINT32_MAX) || (b->io && b->size > 256))
			return err_set(e, -EINVAL, "BAR %u of %s has a wrong size or place", n, d->name);
		if (b->io)
			b->home = place(h, d, b, PCI_IO_WINDOW, 0x10000);
		else if (b->is64 && b->prefetch && h->win_size)
			b->home = place(h, d, b, h->win_base, h->win_base + h->win_size);
		if (!b->io && !b->home)
			b->home = place(h, d, b, PCI_MMIO32_BASE, PCI_MMIO32_END);
		if (!b->home)
			return err_set(e, -ENOSPC, "no address space left for BAR %u of %s", n, d->name);
		writable = ~(b->size - 1);
		if (b->io)
			writable &= 0xffff;
		pci_put32(mask, (uint32_t)writable);
		if (b->is64)
			pci_put32(mask + 4, (uint32_t)(writable >> 32));
	}
	return 0;
}

void pci_bar_home(struct pci_dev *d)
{
	unsigned command = 0;

	for (unsigned n = 0; n < 6; n++) {
		struct pci_bar *b = &d->bar[n];
		uint8_t *reg = d->config + PCI_BASE_ADDRESS_0 + 4 * n;
		uint32_t type;

		if (!b->size)
			continue;
		type = b->io ? PCI_BASE_ADDRESS_SPACE_IO
			     : (b->is64 ? PCI_BASE_ADDRESS_MEM_TYPE_64 : 0u) | (b->prefetch ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0u);
		command |= b->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY;
		pci_put32(reg, (uint32_t)b->home | type);
		if (b->is64)
			pci_put32(reg + 4, (uint32_t)(b->home >> 32));
	}
	pci_put16(d->config + PCI_COMMAND, command);
}

/* Where the registers put it; 0: nowhere. */
static uint64_t bar_wanted(const struct pci_dev *d, unsigned n)
{
	const struct pci_bar *b = &d->bar[n];
	const uint8_t *reg = d->config + PCI_BASE_ADDRESS_0 + 4 * n;
	unsigned command = pci_get16(d->config + PCI_COMMAND);
	uint64_t a = pci_get32(reg), end;

	if (!(command & (b->io ? PCI_COMMAND_IO : PCI_COMMAND_MEMORY)))
		return 0;
	if (b->is64)
		a |= (uint64_t)pci_get32(reg + 4) << 32;
	a &= ~(b->size - 1);
	end = a + b->size - 1;
	/* All ones is sizing, and the top of the address space is no place for a device. */
	if (end < a || (b->io && end >= 0xffff) || (!b->io && end == UINT32_MAX) || end >> vm_phys_bits(d->host->vm))
		return 0;
	return a;
}

static struct bus *bar_bus(const struct pci_dev *d, const struct pci_bar *b)
{
	return b->io ? vm_pio(d->host->vm) : vm_mmio(d->host->vm);
}

static void bar_bus_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	struct pci_bar *b = ctx;
	struct pci_dev *d = b->dev;

	pci_bar_read(d, (unsigned)(b - d->bar), off, data, len);
}

static void bar_bus_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct pci_bar *b = ctx;
	struct pci_dev *d = b->dev;

	pci_bar_write(d, (unsigned)(b - d->bar), off, data, len);
}

static const struct bus_ops bar_ops = {bar_bus_read, bar_bus_write};

void pci_bar_read(struct pci_dev *d, unsigned bar, uint64_t off, void *data, unsigned len)
{
	struct pci_bar *b = &d->bar[bar];

	if (off >= b->size || len > b->size - off)
		return;
	if (d->msix && pci_msix_access(d, bar, off, data, len, 0))
		return;
	if (b->ops && b->ops->read)
		b->ops->read(b->ctx, off, data, len);
}

void pci_bar_write(struct pci_dev *d, unsigned bar, uint64_t off, const void *data, unsigned len)
{
	struct pci_bar *b = &d->bar[bar];

	if (off >= b->size || len > b->size - off)
		return;
	if (d->msix && pci_msix_access(d, bar, off, (void *)data, len, 1))
		return;
	if (b->ops && b->ops->write)
		b->ops->write(b->ctx, off, data, len);
}

static void bar_unmap(struct pci_dev *d, unsigned n)
{
	struct pci_bar *b = &d->bar[n];

	if (!b->mapped)
		return;
	b->mapped = 0;
	/* First the doorbells, which the kernel would still ring at the old place. */
	if (d->bar_moved)
		d->bar_moved(d, n);
	bus_remove(bar_bus(d, b), &b->region);
}

static void bar_map(struct pci_dev *d, unsigned n)
{
	struct pci_bar *b = &d->bar[n];

	b->dev = d;
	b->region = (struct bus_region){b->addr, b->size, &bar_ops, b};
	if (bus_add(bar_bus(d, b), &b->region)) {
		/* Another BAR, not yet moved, or memory-mapped hardware is there: tried again when something moves away. */
		log_debug("pci", "%s: BAR %u cannot be mapped at 0x%llx", d->name, n, (unsigned long long)b->addr);
		d->host->bar_waits = 1;
		return;
	}
	b->mapped = 1;
	if (d->bar_moved)
		d->bar_moved(d, n);
}

static void retry_waiting(struct pci_host *h)
{
	h->bar_waits = 0;
	for (unsigned i = 0; i < 256; i++)
		for (unsigned n = 0; h->dev[i] && n < 6; n++) {
			struct pci_bar *b = &h->dev[i]->bar[n];

			if (b->size && b->addr && !b->mapped)
				bar_map(h->dev[i], n);
		}
}

void pci_bar_update(struct pci_dev *d)
{
	int moved = 0;

	for (unsigned n = 0; n < 6; n++) {
		struct pci_bar *b = &d->bar[n];
		uint64_t to;

		if (!b->size)
			continue;
		to = bar_wanted(d, n);
		if (to == b->addr)
			continue;
		moved |= b->mapped;
		bar_unmap(d, n);
		b->addr = to;
		if (to)
			bar_map(d, n);
	}
	if (moved && d->host->bar_waits)
		retry_waiting(d->host);
}

void pci_bar_unmap_all(struct pci_dev *d)
{
	for (unsigned n = 0; n < 6; n++) {
		bar_unmap(d, n);
		d->bar[n].addr = 0;
	}
	if (d->host->bar_waits)
		retry_waiting(d->host);
}
