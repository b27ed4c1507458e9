/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * A guest that attacks: random writes to PCI configuration, BARs, ports and virtqueues. Ends with "hostile: done" and a
 * power-off unless an attack itself ended the VM. ms= (2000), seed=, what= (letters of: c config, b BARs, p ports, q queues).
 */
#include "lib/guest.h"

static struct pci_fn fn[32];
static unsigned n_fn;

/* An address that may hurt: inside memory, at its end, in a device, nowhere, wrapping. */
static uint64_t evil_address(void)
{
	uint64_t end = memory_below_4g();
	switch (rnd() % 8) {
	case 0: return 0x1000000 + rnd() % 0x100000; /* a few MiB that nobody needs */
	case 1: return end - rnd() % 64;
	case 2: return n_fn ? fn[rnd() % n_fn].bar[4] + rnd() % 8192 : 0;
	case 3: return 0xb0000000 + rnd() % 0x100000;
	case 4: return ~UINT64_C(0) - rnd() % 64;
	case 5: return rnd();
	case 6: return (UINT64_C(1) << 32) - rnd() % 64;
	default: return 0x1000000 + (rnd() & 0xff0);
	}
}

static uint32_t evil_word(void)
{
	static const uint32_t odd[] = {0, 1, 2, 0xff, 0x100, 0x7fff, 0x8000, 0xffff, 0x10000, 0x7fffffff, 0x80000000, 0xffffffff};
	return rnd() % 2 ? odd[rnd() % (sizeof odd / sizeof *odd)] : (uint32_t)rnd();
}

static void attack_config(void)
{
	unsigned bdf = n_fn && rnd() % 4 ? fn[rnd() % n_fn].bdf : (unsigned)(rnd() % 256), off = (unsigned)(rnd() % 256), len = 1u << rnd() % 3;
	if (rnd() % 2)
		pci_write(bdf, off, evil_word(), len);
	else
		mmio_write32(0xb0000000 + ((uint64_t)bdf << 12) + rnd() % 4096, evil_word());
	pci_read(bdf, off, len);
}

static void attack_bar(void)
{
	struct pci_fn *f;
	uint64_t a;
	unsigned b;
	if (!n_fn)
		return;
	f = &fn[rnd() % n_fn];
	b = (unsigned)(rnd() % 6);
	if (!f->size[b] || f->io[b])
		return;
	a = f->bar[b] + rnd() % (f->size[b] < 65536 ? f->size[b] : 65536);
	switch (rnd() % 6) {
	case 0: mmio_write8(a, (uint8_t)evil_word()); break;
	case 1: mmio_write16(a, (uint16_t)evil_word()); break;
	case 2: mmio_write32(a, evil_word()); break;
	case 3: mmio_write64(a, rnd()); break;
	case 4: mmio_read64(a); break;
	default: mmio_write32(a & ~UINT64_C(3), evil_word()); break;
	}
}

/* All ports but those whose use ends the machine, which is not what is tested here. */
static void attack_port(void)
{
	uint16_t p = (uint16_t)rnd();
	if (rnd() % 2) {
		static const uint16_t known[] = {0x60, 0x61, 0x70, 0x71, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x402, 0x600, 0x602, 0x620, 0x62f, 0xcf8, 0xcfc, 0xb2};
		p = known[rnd() % (sizeof known / sizeof *known)];
	}
	if (p > 0xfffc /* past the end of the I/O map */ || (p >= 0x601 && p <= 0x605) || p == 0x64 || p == 0x505 || (p >= 0x502 && p <= 0x505) || (p >= 0xcf6 && p <= 0xcf9) || (p >= 0x8f && p <= 0x92) ||
	    (p >= 0x61 && p <= 0x64) || (p >= 0x3f5 && p <= 0x3f8))
		return;
	switch (rnd() % 4) {
	case 0: outb(p, (uint8_t)evil_word()); break;
	case 1: outw(p, (uint16_t)evil_word()); break;
	case 2: outl(p, evil_word()); break;
	default: inl(p); break;
	}
}

static struct virtio dev;

/* A device that works, whose rings are then filled with rubbish. */
static void attack_queue(void)
{
	static const unsigned types[] = {1, 2, 3, 4, 5};
	unsigned n;
	if (!virtio_open(&dev, types[rnd() % 5], 0, rnd()))
		return;
	for (n = 0; n < 4 && virtio_queue(&dev, n, 16); n++)
		;
	if (!n)
		return;
	virtio_ok(&dev);
	for (unsigned round = 0; round < 40; round++) {
		struct vq *q = &dev.vq[rnd() % n];
		for (unsigned i = 0; i < q->size; i++)
			q->desc[i] = (struct vring_desc){evil_address(), evil_word(), (uint16_t)(rnd() % 8), (uint16_t)(rnd() % 2 ? rnd() % q->size : rnd())};
		for (unsigned i = 0; i < q->size; i++)
			q->avail->ring[i] = (uint16_t)(rnd() % 2 ? rnd() % q->size : rnd());
		q->avail->flags = (uint16_t)rnd();
		barrier();
		q->avail->idx = rnd() % 3 ? (uint16_t)(q->avail->idx + rnd() % 17) : (uint16_t)rnd();
		vq_kick(q);
		if (rnd() % 8 == 0)
			mmio_write8(dev.mmio ? dev.common + 0x70 : dev.common + 20, (uint8_t)rnd());
	}
	if (!dev.mmio)
		mmio_write8(dev.common + 20, 0);
	else
		mmio_write32(dev.common + 0x70, 0);
}

static void enumerate(void)
{
	for (n_fn = 0; n_fn < 32 && pci_find(n_fn, &fn[n_fn]); n_fn++)
		;
}

void guest_main(void)
{
	static char what[16];
	uint64_t end, n = 0;

	if (!arg_next("what", 0, what, sizeof what))
		memcpy(what, "qqbpc", 6);
	enumerate();
	end = now_ns() + arg_u64("ms", 2000) * 1000000u;
	while (now_ns() < end) {
		char c = what[rnd() % strlen(what)];
		if (c == 'q') {
			if (n % 64 == 0)
				attack_queue();
		} else {
			for (unsigned i = 0; i < 16; i++)
				c == 'c' ? attack_config() : c == 'b' ? attack_bar() : attack_port();
		}
		n++;
	}
	outb(0x3fb, 3); /* the serial port was attacked, too */
	outb(0x3fc, 3);
	print("\nhostile: done %lu rounds\n", n);
}
