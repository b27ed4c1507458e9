/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The PCI bus: configuration accesses, BARs that are sized and moved, MSI-X masks and pending bits, INTx routing. */
#include <glib.h>
#include <linux/pci_regs.h>
#include <string.h>
#include "dev/pci.h"
#include "fake-vm.h"

#define SLOT1 (1 << 3)
#define LPC (31 << 3)

struct toy {
	struct pci_dev p;
	uint64_t last;  /* offset of the last access */
	unsigned reads, writes, moves;
};

static void toy_read(void *ctx, uint64_t off, void *data, unsigned len)
{
	struct toy *t = ctx;

	t->last = off;
	t->reads++;
	memset(data, 0x5a, len);
}
static void toy_write(void *ctx, uint64_t off, const void *data, unsigned len)
{
	struct toy *t = ctx;

	(void)data;
	(void)len;
	__atomic_store_n(&t->last, off, __ATOMIC_RELAXED);
	__atomic_fetch_add(&t->writes, 1, __ATOMIC_SEQ_CST);
}
static const struct bus_ops toy_ops = {toy_read, toy_write};

static void toy_moved(struct pci_dev *p, unsigned bar)
{
	(void)bar;
	((struct toy *)p)->moves++;
}

static struct toy *toy_new(struct pci_host *h, int is64, unsigned vectors)
{
	struct toy *t = g_new0(struct toy, 1);

	t->p.name = "toy";
	pci_init_config(&t->p, 0x1234, 0x5678, 0x1af4, 0x1100, 1, 0xff, 0, 0);
	t->p.bar[0] = (struct pci_bar){.size = 0x4000, .is64 = is64, .prefetch = is64, .ops = &toy_ops, .ctx = t};
	t->p.bar_moved = toy_moved;
	if (vectors)
		g_assert_cmpint(pci_msix_init(&t->p, vectors, 0, 0x1000, 0x3000, NULL), ==, 0);
	g_assert_cmpint(pci_add(h, &t->p, -1, NULL), ==, 0);
	return t;
}

struct rig {
	struct vm *v;
	struct pci_host *h;
};

static void rig_new(struct rig *r, unsigned bits)
{
	r->v = fake_vm(4 << 20, bits);
	g_assert_cmpint(pci_host_new(r->v, &r->h, NULL), ==, 0);
}

static void rig_free(struct rig *r)
{
	pci_host_free(r->h);
	fake_vm_free(r->v);
}

static void test_config(void)
{
	struct rig r;

	rig_new(&r, 40);
	g_assert_cmphex(cfg_get(r.v, 0, 0, 4), ==, 0x29c08086);
	g_assert_cmphex(cfg_get(r.v, 0, 0x2c, 4), ==, 0x11001af4);
	g_assert_cmphex(cfg_get(r.v, LPC, 0, 4), ==, 0x29188086);
	g_assert_cmphex(cfg_get(r.v, LPC, 0xe, 1), ==, 0x80);
	g_assert_cmphex(cfg_get(r.v, 2 << 3, 0, 4), ==, 0xffffffff);
	g_assert_cmphex(mmio_get(r.v, PCI_ECAM_BASE + (1 << 20), 4), ==, 0xffffffff); /* bus 1 */
	/* Mechanism 1, in all widths. */
	pio_set(r.v, 0xcf8, 0x80000000u | LPC << 8, 4);
	g_assert_cmphex(pio_get(r.v, 0xcf8, 4), ==, 0x80000000u | LPC << 8);
	g_assert_cmphex(pio_get(r.v, 0xcfc, 4), ==, 0x29188086);
	g_assert_cmphex(pio_get(r.v, 0xcfe, 2), ==, 0x2918);
	g_assert_cmphex(pio_get(r.v, 0xcff, 1), ==, 0x29);
	pio_set(r.v, 0xcf8, 0x80000000u | LPC << 8 | 0x3c, 4);
	pio_set(r.v, 0xcfc, 0x0b, 1);
	g_assert_cmphex(cfg_get(r.v, LPC, 0x3c, 4), ==, 0x0000000b);
	pio_set(r.v, 0xcf8, LPC << 8, 4); /* not enabled */
	g_assert_cmphex(pio_get(r.v, 0xcfc, 4), ==, 0xffffffff);
	pio_set(r.v, 0xcf8, 0x80010000u, 4); /* bus 1 */
	g_assert_cmphex(pio_get(r.v, 0xcfc, 4), ==, 0xffffffff);
	/* The reset control register between them. */
	pio_set(r.v, 0xcf9, 0x02, 1);
	g_assert_cmpint(r.v->resets, ==, 0);
	g_assert_cmphex(pio_get(r.v, 0xcf9, 1), ==, 0x02);
	pio_set(r.v, 0xcf9, 0x06, 1);
	g_assert_cmpint(r.v->resets, ==, 1);
	g_assert_cmphex(pio_get(r.v, 0xcf8, 4), ==, 0x80010000u);
	/* PAM is plain storage; what would move things is not. */
	cfg_set(r.v, 0, 0x90, 0x33333330, 4);
	g_assert_cmphex(cfg_get(r.v, 0, 0x90, 4), ==, 0x33333330);
	cfg_set(r.v, 0, 0x60, 0xe0000001, 4);
	g_assert_cmphex(cfg_get(r.v, 0, 0x60, 4), ==, PCI_ECAM_BASE | 1);
	cfg_set(r.v, LPC, 0x40, 0x701, 4);
	g_assert_cmphex(cfg_get(r.v, LPC, 0x40, 4), ==, 0x601);
	cfg_set(r.v, LPC, 0xf0, 0xfed1c001, 4);
	g_assert_cmphex(cfg_get(r.v, LPC, 0xf0, 4), ==, 0xfed1c001);
	pci_host_reset(r.h);
	g_assert_cmphex(cfg_get(r.v, 0, 0x90, 4), ==, 0);
	g_assert_cmphex(cfg_get(r.v, LPC, 0xf0, 4), ==, 0);
	/* Identity is read-only; an access over a function's end is nobody's. */
	cfg_set(r.v, 0, 0, 0, 4);
	g_assert_cmphex(cfg_get(r.v, 0, 0, 4), ==, 0x29c08086);
	rig_free(&r);
}

static uint64_t bar_at(struct vm *v, unsigned devfn)
{
	return (cfg_get(v, devfn, 0x10, 4) & ~0xfu) | (uint64_t)cfg_get(v, devfn, 0x14, 4) << 32;
}

static void test_bars(void)
{
	struct rig r;
	struct toy *a, *b;
	uint64_t base, size, at, to;

	rig_new(&r, 40);
	a = toy_new(r.h, 1, 0);
	b = toy_new(r.h, 1, 0);
	g_assert_cmpuint(a->p.devfn, ==, SLOT1);
	g_assert_cmpuint(b->p.devfn, ==, 2 << 3);
	pci_window64(r.h, &base, &size);
	g_assert_cmphex(base, ==, UINT64_C(1) << 39);
	at = bar_at(r.v, SLOT1);
	g_assert_true(at >= base && at + 0x4000 <= base + size);
	g_assert_cmphex(bar_at(r.v, 2 << 3), !=, at);
	g_assert_cmphex(cfg_get(r.v, SLOT1, 0x10, 4) & 0xf, ==, 0xc);
	g_assert_cmphex(mmio_get(r.v, at + 0x123, 1), ==, 0x5a);
	g_assert_cmphex(a->last, ==, 0x123);
	/* Sizing: all ones, with decoding on, maps it nowhere. */
	cfg_set(r.v, SLOT1, 0x10, 0xffffffff, 4);
	cfg_set(r.v, SLOT1, 0x14, 0xffffffff, 4);
	g_assert_cmphex(cfg_get(r.v, SLOT1, 0x10, 4), ==, 0xffffc00c);
	g_assert_cmphex(cfg_get(r.v, SLOT1, 0x14, 4), ==, 0xffffffff);
	g_assert_cmphex(mmio_get(r.v, at, 4), ==, 0xffffffff);
	/* Moving, decoding off and on; a place below 4 GiB. */
	to = 0xc1230000;
	cfg_set(r.v, SLOT1, 4, 0, 2);
	cfg_set(r.v, SLOT1, 0x10, (uint32_t)to, 4);
	cfg_set(r.v, SLOT1, 0x14, 0, 4);
	g_assert_cmphex(mmio_get(r.v, to, 4), ==, 0xffffffff);
	cfg_set(r.v, SLOT1, 4, PCI_COMMAND_MEMORY, 2);
	g_assert_cmphex(mmio_get(r.v, to + 8, 4), ==, 0x5a5a5a5a);
	/* On top of another one: the earlier one wins, the later one gets it when that moves away. */
	cfg_set(r.v, 2 << 3, 0x14, 0, 4);
	cfg_set(r.v, 2 << 3, 0x10, (uint32_t)to, 4);
	b->reads = 0;
	mmio_get(r.v, to, 4);
	g_assert_cmpuint(b->reads, ==, 0);
	cfg_set(r.v, SLOT1, 4, 0, 2);
	mmio_get(r.v, to, 4);
	g_assert_cmpuint(b->reads, ==, 1);
	/* Where the CPU cannot address it is nowhere. */
	cfg_set(r.v, SLOT1, 0x14, 0x100, 4);
	cfg_set(r.v, SLOT1, 4, PCI_COMMAND_MEMORY, 2);
	g_assert_cmpint(a->p.bar[0].mapped, ==, 0);
	/* A reset brings it home. */
	pci_host_reset(r.h);
	g_assert_cmphex(bar_at(r.v, SLOT1), ==, at);
	g_assert_cmphex(mmio_get(r.v, at, 1), ==, 0x5a);
	pci_remove(r.h, &a->p);
	g_assert_cmphex(mmio_get(r.v, at, 1), ==, 0xff);
	g_assert_cmphex(cfg_get(r.v, SLOT1, 0, 4), ==, 0xffffffff);
	pci_remove(r.h, &b->p);
	g_free(a);
	g_free(b);
	rig_free(&r);
}

/* With few address bits there is no window, and 64-bit BARs go below 4 GiB; all slots and functions fill up. */
static void test_placement(void)
{
	static const unsigned bits[] = {32, 36, 46, 52};

	for (unsigned i = 0; i < G_N_ELEMENTS(bits); i++) {
		struct rig r;
		struct toy *t[240];
		unsigned n;
		uint64_t base, size;

		rig_new(&r, bits[i]);
		pci_window64(r.h, &base, &size);
		g_assert_cmpuint(size == 0, ==, bits[i] == 32);
		g_assert_cmphex(base + size, <=, UINT64_C(1) << bits[i]);
		for (n = 0; n < 240; n++) {
			t[n] = toy_new(r.h, n & 1, 0);
			g_assert_cmpint(t[n]->p.bar[0].mapped, ==, 1);
			if (!size || !(n & 1))
				g_assert_true(t[n]->p.bar[0].addr >= PCI_MMIO32_BASE && t[n]->p.bar[0].addr < PCI_MMIO32_END);
		}
		g_assert_cmphex(cfg_get(r.v, SLOT1, 0xe, 1), ==, 0x80);
		for (n = 0; n < 240; n++) {
			pci_remove(r.h, &t[n]->p);
			g_free(t[n]);
		}
		rig_free(&r);
	}
}

static void test_msix(void)
{
	struct rig r;
	struct toy *t;
	uint64_t bar, entry;
	unsigned cap;
	struct vm_msi *m;

	rig_new(&r, 40);
	t = toy_new(r.h, 1, 70);
	bar = bar_at(r.v, SLOT1);
	cap = cfg_get(r.v, SLOT1, 0x34, 1);
	entry = bar + 0x1000 + 3 * 16;
	g_assert_cmphex(cfg_get(r.v, SLOT1, cap, 1), ==, 0x11);
	g_assert_cmphex(cfg_get(r.v, SLOT1, cap + 2, 2), ==, 69);
	g_assert_cmphex(mmio_get(r.v, entry + 12, 4), ==, 1);
	mmio_set(r.v, entry, 0xfee01000, 4);
	mmio_set(r.v, entry + 8, 0x51, 4);
	/* Off: a signal is nothing, not even pending. */
	pci_msix_signal(&t->p, 3);
	g_assert_cmphex(mmio_get(r.v, bar + 0x3000, 4), ==, 0);
	cfg_set(r.v, SLOT1, cap, 0x80000000, 4); /* as a dword */
	g_assert_true(pci_msix_enabled(&t->p));
	g_assert_cmpuint(r.v->msis, ==, 0); /* nothing is unmasked yet */
	pci_msix_signal(&t->p, 3);
	pci_msix_signal(&t->p, 66);
	g_assert_cmphex(mmio_get(r.v, bar + 0x3000, 4), ==, 8);
	g_assert_cmphex(mmio_get(r.v, bar + 0x3008, 4), ==, 4);
	/* The function's mask is above the vector's. */
	cfg_set(r.v, SLOT1, cap + 3, 0xc0, 1);
	mmio_set(r.v, entry + 12, 0, 4);
	g_assert_cmphex(mmio_get(r.v, bar + 0x3000, 4), ==, 8);
	cfg_set(r.v, SLOT1, cap + 3, 0x80, 1);
	m = t->p.msix[3].msi;
	g_assert_cmpuint(r.v->msis, ==, 1);
	g_assert_cmphex(m->addr, ==, 0xfee01000);
	g_assert_cmphex(m->data, ==, 0x51);
	g_assert_cmpuint(m->signals, ==, 1);
	g_assert_cmphex(mmio_get(r.v, bar + 0x3000, 4), ==, 0);
	pci_msix_signal(&t->p, 3);
	g_assert_cmpuint(m->signals, ==, 2);
	/* Masking and unmasking programs nothing; a new message does, also by qwords. */
	mmio_set(r.v, entry + 12, 1, 4);
	pci_msix_signal(&t->p, 3);
	g_assert_cmpuint(m->signals, ==, 2);
	mmio_set(r.v, entry + 12, 0, 4);
	g_assert_cmpuint(m->signals, ==, 3);
	g_assert_cmpuint(m->sets, ==, 1);
	uint64_t q = UINT64_C(0x00000001fee02000);
	bus_write(r.v->mmio, entry, &q, 8);
	g_assert_cmphex(m->addr, ==, q);
	q = UINT64_C(0x0000000100000052);
	bus_write(r.v->mmio, entry + 8, &q, 8); /* data and mask at once */
	pci_msix_signal(&t->p, 3);
	g_assert_cmpuint(m->signals, ==, 3);
	q = 0;
	bus_read(r.v->mmio, entry + 8, &q, 8);
	g_assert_cmphex(q, ==, UINT64_C(0x0000000100000052));
	mmio_set(r.v, entry + 12, 0, 4);
	g_assert_cmphex(m->data, ==, 0x52);
	/* What the device's own handler never sees, and what it does. */
	g_assert_cmpuint(t->reads + t->writes, ==, 0);
	mmio_get(r.v, entry + 1, 2);
	mmio_set(r.v, bar + 0x3000, 0xff, 4);
	g_assert_cmphex(mmio_get(r.v, bar + 0x3000, 4), ==, 0);
	g_assert_cmpuint(t->reads + t->writes, ==, 0);
	mmio_get(r.v, bar + 0x1000 + 70 * 16, 4);
	g_assert_cmpuint(t->reads, ==, 1);
	pci_msix_signal(&t->p, 70); /* no such vector */
	pci_host_reset(r.h);
	g_assert_false(pci_msix_enabled(&t->p));
	g_assert_cmphex(mmio_get(r.v, entry + 12, 4), ==, 1);
	pci_remove(r.h, &t->p);
	g_assert_cmpuint(r.v->msis, ==, 0);
	g_free(t);
	rig_free(&r);
}

static void test_intx(void)
{
	struct rig r;
	struct toy *a, *b, *five[3];
	unsigned gsi, cap;

	rig_new(&r, 40);
	a = toy_new(r.h, 0, 2);
	b = toy_new(r.h, 0, 0);
	for (int i = 0; i < 3; i++)
		five[i] = toy_new(r.h, 0, 2); /* slot 5 shares slot 1's line */
	gsi = pci_intx_gsi(1, 0);
	g_assert_cmpuint(gsi, ==, pci_intx_gsi(5, 0));
	g_assert_cmpuint(pci_intx_gsi(1, 3), ==, pci_intx_gsi(4, 0));
	g_assert_cmpuint(cfg_get(r.v, SLOT1, 0x3d, 1), ==, 1);
	pci_intx(&a->p, 1);
	g_assert_cmpint(r.v->line[gsi], ==, 1);
	g_assert_cmphex(cfg_get(r.v, SLOT1, 6, 1) & 8, ==, 8);
	pci_intx(&five[2]->p, 1);
	pci_intx(&a->p, 0);
	g_assert_cmpint(r.v->line[gsi], ==, 1); /* shared */
	pci_intx(&five[2]->p, 0);
	g_assert_cmpint(r.v->line[gsi], ==, 0);
	/* The command register's bit, and MSI-X in its place. */
	pci_intx(&a->p, 1);
	cfg_set(r.v, SLOT1, 4, 0x402, 2);
	g_assert_cmpint(r.v->line[gsi], ==, 0);
	cfg_set(r.v, SLOT1, 4, 0x002, 2);
	g_assert_cmpint(r.v->line[gsi], ==, 1);
	cap = cfg_get(r.v, SLOT1, 0x34, 1);
	cfg_set(r.v, SLOT1, cap + 2, 0x8000, 2);
	g_assert_cmpint(r.v->line[gsi], ==, 0);
	cfg_set(r.v, SLOT1, cap + 2, 0, 2);
	g_assert_cmpint(r.v->line[gsi], ==, 1);
	/* Firmware's routing to an ISA interrupt; 9 is not to be had. */
	cfg_set(r.v, LPC, 0x68 + gsi - 20, 0x0a, 1);
	g_assert_cmpint(r.v->line[10], ==, 1);
	cfg_set(r.v, LPC, 0x68 + gsi - 20, 0x09, 1);
	g_assert_cmpint(r.v->line[10], ==, 0);
	g_assert_cmpint(r.v->line[9], ==, 0);
	cfg_set(r.v, LPC, 0x68 + gsi - 20, 0x0b, 1);
	g_assert_cmpint(r.v->line[11], ==, 1);
	pci_host_reset(r.h);
	g_assert_cmpint(r.v->line[gsi] + r.v->line[10] + r.v->line[11], ==, 0);
	pci_intx(&a->p, 1);
	pci_remove(r.h, &a->p);
	g_assert_cmpint(r.v->line[gsi], ==, 0);
	pci_remove(r.h, &b->p);
	for (int i = 0; i < 3; i++) {
		pci_remove(r.h, &five[i]->p);
		g_free(five[i]);
	}
	g_free(a);
	g_free(b);
	rig_free(&r);
}

static int moving;
static struct toy *moved;
static void *hammer(void *p)
{
	struct rig *r = p;

	while (__atomic_load_n(&moving, __ATOMIC_SEQ_CST)) {
		for (unsigned i = 0; i < 4; i++)
			mmio_set(r->v, 0xc1000000 + i * 0x10000, 1, 4);
		pci_msix_signal(&moved->p, 0);
	}
	return NULL;
}

/* Two vCPUs write to a device while a third one moves it, masks it and removes it. */
static void test_moves_while_used(void)
{
	struct rig r;
	struct toy *t;
	GThread *th[2];
	unsigned cap;

	rig_new(&r, 40);
	t = toy_new(r.h, 0, 2);
	moved = t;
	cap = cfg_get(r.v, SLOT1, 0x34, 1);
	cfg_set(r.v, SLOT1, cap + 2, 0x8000, 2);
	__atomic_store_n(&moving, 1, __ATOMIC_SEQ_CST);
	for (int i = 0; i < 2; i++)
		th[i] = g_thread_new("vcpu", hammer, &r);
	for (unsigned i = 0; i < 2000; i++) {
		uint64_t at = 0xc1000000 + (i % 4) * 0x10000;

		cfg_set(r.v, SLOT1, 0x10, (uint32_t)at, 4);
		mmio_set(r.v, at + 0x1000 + 12, i & 1, 4);
		mmio_set(r.v, at + 0x1000 + 8, i, 4);
	}
	pci_hide(r.h, &t->p);
	unsigned was = t->writes;
	g_usleep(1000);
	g_assert_cmpuint(t->writes, ==, was);
	__atomic_store_n(&moving, 0, __ATOMIC_SEQ_CST);
	for (int i = 0; i < 2; i++)
		g_thread_join(th[i]);
	pci_remove(r.h, &t->p);
	g_free(t);
	rig_free(&r);
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/pci/config-space", test_config);
	g_test_add_func("/pci/bars", test_bars);
	g_test_add_func("/pci/placement", test_placement);
	g_test_add_func("/pci/msix", test_msix);
	g_test_add_func("/pci/intx", test_intx);
	g_test_add_func("/pci/moves-while-used", test_moves_while_used);
	return g_test_run();
}
