/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#include "guest.h"

#define MAX_ADDRESS (UINT64_C(1) << 46) /* a hostile guest may have left anything there */

static uint64_t next_bar = 0xd0000000; /* for BARs that no firmware placed: inside the 32-bit window of vhost and q35 */

static void address(unsigned bdf, unsigned off)
{
	outl(0xcf8, 0x80000000u | bdf << 8 | (off & 0xfc));
}

uint32_t pci_read(unsigned bdf, unsigned off, unsigned len)
{
	address(bdf, off);
	return len == 1 ? inb((uint16_t)(0xcfc + (off & 3))) : len == 2 ? inw((uint16_t)(0xcfc + (off & 2))) : inl(0xcfc);
}

void pci_write(unsigned bdf, unsigned off, uint32_t v, unsigned len)
{
	address(bdf, off);
	if (len == 1)
		outb((uint16_t)(0xcfc + (off & 3)), (uint8_t)v);
	else if (len == 2)
		outw((uint16_t)(0xcfc + (off & 2)), (uint16_t)v);
	else
		outl(0xcfc, v);
}

static uint32_t size_bar(unsigned bdf, unsigned off)
{
	uint32_t was = pci_read(bdf, off, 4), mask;
	pci_write(bdf, off, 0xffffffff, 4);
	mask = pci_read(bdf, off, 4);
	pci_write(bdf, off, was, 4);
	return mask;
}

static void read_bars(struct pci_fn *f)
{
	unsigned n = (pci_read(f->bdf, 0x0e, 1) & 0x7f) ? 2 : 6;
	uint16_t cmd = (uint16_t)pci_read(f->bdf, 4, 2);

	pci_write(f->bdf, 4, cmd & ~3u, 2);
	for (unsigned i = 0; i < n; i++) {
		unsigned off = 0x10 + i * 4, slot = i;
		uint32_t low = pci_read(f->bdf, off, 4), mask = size_bar(f->bdf, off);
		if (!mask)
			continue;
		if (low & 1) {
			f->io[i] = 1;
			f->bar[i] = low & ~3u;
			f->size[i] = (uint16_t)(~(mask & ~3u) + 1);
			continue;
		}
		f->bar[slot] = low & ~15u;
		f->size[slot] = (uint32_t)(~(mask & ~15u) + 1);
		if ((low & 6) == 4 && i + 1 < n) {
			uint32_t hi_mask = size_bar(f->bdf, off + 4);
			f->bar[slot] |= (uint64_t)pci_read(f->bdf, off + 4, 4) << 32;
			f->size[slot] = ~((uint64_t)hi_mask << 32 | (mask & ~15u)) + 1;
			i++;
		}
		if (!f->bar[slot] || f->bar[slot] + f->size[slot] > MAX_ADDRESS) {
			next_bar = (next_bar + f->size[slot] - 1) & ~(f->size[slot] - 1);
			f->bar[slot] = next_bar;
			next_bar += f->size[slot];
			pci_write(f->bdf, off, (uint32_t)f->bar[slot], 4);
			if (i != slot)
				pci_write(f->bdf, off + 4, 0, 4);
		}
		if (f->bar[slot] + f->size[slot] > UINT64_C(1) << 32)
			map_device(f->bar[slot], f->size[slot]);
	}
	pci_write(f->bdf, 4, cmd | 7u, 2); /* I/O, memory, bus master */
}

int pci_find(unsigned index, struct pci_fn *f)
{
	for (unsigned bdf = 0; bdf < 256; bdf++) {
		uint32_t id;
		if (bdf & 7 && !(pci_read(bdf & ~7u, 0x0e, 1) & 0x80))
			continue;
		id = pci_read(bdf, 0, 4);
		if ((id & 0xffff) == 0xffff || index--)
			continue;
		memset(f, 0, sizeof *f);
		f->bdf = bdf;
		f->vendor = (uint16_t)id;
		f->device = (uint16_t)(id >> 16);
		read_bars(f);
		return 1;
	}
	return 0;
}
