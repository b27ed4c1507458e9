/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Configuration space by both ways, BARs that move while they are in use. */
#include "lib/guest.h"

#define ECAM UINT64_C(0xb0000000)

static void same_both_ways(const struct pci_fn *f)
{
	for (unsigned off = 0; off < 64; off += 4)
		CHECK(pci_read(f->bdf, off, 4) == mmio_read32(ECAM + (f->bdf << 12) + off), "function %x: 0xcf8 and ECAM differ at %x", f->bdf, off);
	for (unsigned off = 0; off < 64; off++)
		CHECK(pci_read(f->bdf, off, 1) == mmio_read8(ECAM + (f->bdf << 12) + off), "function %x: bytes differ at %x", f->bdf, off);
}

/* The registers of a virtio device are found again wherever its BAR is put, and nothing is left behind. */
static void move_bar(struct pci_fn *f)
{
	uint64_t home = f->bar[4], was = home, to;
	uint32_t before;

	if (f->vendor != 0x1af4 || !f->size[4])
		return;
	before = mmio_read32(was + 20); /* device_status and on */
	for (unsigned i = 0; i < 32; i++) {
		to = 0xe0000000 + (uint64_t)i * f->size[4];
		mmio_write32(ECAM + (f->bdf << 12) + 0x20, (uint32_t)to);
		mmio_write32(ECAM + (f->bdf << 12) + 0x24, (uint32_t)(to >> 32));
		CHECK(mmio_read32(to + 20) == before, "function %x: its BAR is not at %lx", f->bdf, to);
		CHECK(mmio_read32(was + 20) == 0xffffffff || was == to, "function %x: something is left at %lx", f->bdf, was);
		was = to;
	}
	pci_write(f->bdf, 4, pci_read(f->bdf, 4, 2) & ~2u, 2);
	CHECK(mmio_read32(to + 20) == 0xffffffff, "function %x: decodes though memory is off", f->bdf);
	pci_write(f->bdf, 4, pci_read(f->bdf, 4, 2) | 2u, 2);
	CHECK(mmio_read32(to + 20) == before, "function %x: does not come back", f->bdf);
	mmio_write32(ECAM + (f->bdf << 12) + 0x20, (uint32_t)home);
	mmio_write32(ECAM + (f->bdf << 12) + 0x24, (uint32_t)(home >> 32));
}

void guest_main(void)
{
	struct pci_fn f;
	unsigned n;

	for (n = 0; pci_find(n, &f); n++) {
		print("%02x.%u %04x:%04x class %06x", f.bdf >> 3, f.bdf & 7, f.vendor, f.device, pci_read(f.bdf, 8, 4) >> 8);
		for (unsigned i = 0; i < 6; i++)
			if (f.size[i])
				print(" bar%u %s %lx+%lx", i, f.io[i] ? "io" : "mem", f.bar[i], f.size[i]);
		put("\n");
		same_both_ways(&f);
		move_bar(&f);
	}
	CHECK(n >= 2, "only %u functions", n);
	CHECK(pci_read(0xf8 - 8, 0, 4) == 0xffffffff, "an absent function answers");
	CHECK(mmio_read32(ECAM + (UINT64_C(5) << 20)) == 0xffffffff, "an absent bus answers");
	put("pci: ok\n");
}
