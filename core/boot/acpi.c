/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The fixed ACPI tables: RSDP, XSDT, FADT (full hardware), FACS, MADT, MCFG and WAET around the DSDT. ACPI 6.5, ch. 5. */
#include "boot/acpi-i.h"
#include "boot/boot.h"
#include "vm/layout.h"

#include <string.h>

#define LAPIC_BASE 0xfee00000u
#define IOAPIC_BASE 0xfec00000u
#define MAX_LAPIC_ID 254u /* 255 is the xAPIC's broadcast */

struct __attribute__((packed)) header {
	char sig[4];
	uint32_t len;
	uint8_t rev, sum;
	char oem[6], table[8];
	uint32_t oem_rev;
	char creator[4];
	uint32_t creator_rev;
};
struct __attribute__((packed)) gas { uint8_t space, bits, off, access; uint64_t addr; };
struct __attribute__((packed)) rsdp {
	char sig[8];
	uint8_t sum;
	char oem[6];
	uint8_t rev;
	uint32_t rsdt, len;
	uint64_t xsdt;
	uint8_t ext_sum, reserved[3];
};
struct __attribute__((packed)) fadt {
	struct header h;
	uint32_t facs, dsdt;
	uint8_t reserved0, profile;
	uint16_t sci;
	uint32_t smi_cmd;
	uint8_t acpi_enable, acpi_disable, s4bios, pstate;
	uint32_t pm1a_evt, pm1b_evt, pm1a_cnt, pm1b_cnt, pm2_cnt, pm_tmr, gpe0, gpe1;
	uint8_t pm1_evt_len, pm1_cnt_len, pm2_cnt_len, pm_tmr_len, gpe0_len, gpe1_len, gpe1_base, cst_cnt;
	uint16_t c2_lat, c3_lat, flush_size, flush_stride;
	uint8_t duty_off, duty_width, day_alarm, month_alarm, century;
	uint16_t boot_arch;
	uint8_t reserved1;
	uint32_t flags;
	struct gas reset;
	uint8_t reset_value;
	uint16_t arm_boot_arch;
	uint8_t minor;
	uint64_t x_facs, x_dsdt;
	struct gas x_pm1a_evt, x_pm1b_evt, x_pm1a_cnt, x_pm1b_cnt, x_pm2_cnt, x_pm_tmr, x_gpe0, x_gpe1, sleep_ctl, sleep_sts;
	char hypervisor[8];
};
_Static_assert(sizeof(struct fadt) == 276 && sizeof(struct rsdp) == 36 && sizeof(struct header) == 36, "ACPI 6.5");

/* FADT flags and boot architecture. */
#define FADT_WBINVD (1u << 0)
#define FADT_PROC_C1 (1u << 2)
#define FADT_NO_SLEEP_BUTTON (1u << 5)
#define FADT_TIMER_32BIT (1u << 8)
#define FADT_RESET_REG (1u << 10)
#define BOOT_LEGACY_DEVICES 1u
#define BOOT_NO_VGA 4u

struct out { uint8_t *p; uint64_t base; size_t n, room; int bad; };

static uint8_t sum(const void *p, size_t n)
{
	uint8_t s = 0;
	for (size_t i = 0; i < n; i++)
		s = (uint8_t)(s + ((const uint8_t *)p)[i]);
	return s;
}

static void *reserve(struct out *o, size_t n, size_t align)
{
	size_t at = (o->n + align - 1) & ~(align - 1);
	if (o->bad || at > o->room || n > o->room - at) {
		o->bad = 1;
		return NULL;
	}
	memset(o->p + o->n, 0, at - o->n + n);
	o->n = at + n;
	return o->p + at;
}

static uint64_t gpa(const struct out *o, const void *p)
{
	return o->base + (uint64_t)((const uint8_t *)p - o->p);
}

static void finish(struct header *h, const char *sig, size_t len, unsigned rev)
{
	memcpy(h->sig, sig, 4);
	h->len = (uint32_t)len;
	h->rev = (uint8_t)rev;
	memcpy(h->oem, "VHOST ", 6);
	memcpy(h->table, "VHOSTQ35", 8);
	h->oem_rev = 1;
	memcpy(h->creator, "VHST", 4);
	h->creator_rev = 1;
	h->sum = 0;
	h->sum = (uint8_t)-sum(h, len);
}

static struct gas io(unsigned port, unsigned bits)
{
	/* Access size: 1 byte, 2 word, 3 dword. */
	return (struct gas){.space = 1, .bits = (uint8_t)bits, .access = bits == 8 ? 1 : bits == 16 ? 2 : bits == 32 ? 3 : 1, .addr = port};
}

static struct header *write_dsdt(struct out *o, const struct acpi_config *c)
{
	struct header *h = reserve(o, sizeof *h, 16);
	size_t n = h ? dsdt_write(c, h + 1, o->room - o->n) : 0;

	if (!n) {
		o->bad = 1;
		return NULL;
	}
	o->n += n;
	finish(h, "DSDT", sizeof *h + n, 2);
	return h;
}

static struct header *write_facs(struct out *o)
{
	struct __attribute__((packed)) { char sig[4]; uint32_t len, hw_sig, wake; uint32_t lock, flags; uint64_t x_wake; uint8_t ver, r[31]; } *f;
	_Static_assert(sizeof *f == 64, "ACPI 6.5");
	f = reserve(o, sizeof *f, 64);
	if (!f)
		return NULL;
	memcpy(f->sig, "FACS", 4);
	f->len = 64;
	f->ver = 2;
	return (struct header *)f;
}

static struct header *write_fadt(struct out *o, const void *facs, const void *dsdt)
{
	struct fadt *f = reserve(o, sizeof *f, 16);
	if (!f || !facs || !dsdt)
		return NULL;
	f->facs = (uint32_t)gpa(o, facs);
	f->x_facs = 0; /* one of the two, and it is below 4 GiB */
	f->dsdt = (uint32_t)gpa(o, dsdt);
	f->x_dsdt = gpa(o, dsdt);
	f->profile = 4; /* enterprise server: no battery, no lid */
	f->sci = LAYOUT_SCI;
	f->smi_cmd = 0; /* always in ACPI mode */
	f->pm1a_evt = LAYOUT_PM_BASE;
	f->pm1a_cnt = LAYOUT_PM_CNT;
	f->pm_tmr = LAYOUT_PM_TIMER;
	f->gpe0 = LAYOUT_GPE0;
	f->pm1_evt_len = 4;
	f->pm1_cnt_len = 2;
	f->pm_tmr_len = 4;
	f->gpe0_len = LAYOUT_GPE0_LEN;
	f->c2_lat = 0xfff; /* no C2, no C3 */
	f->c3_lat = 0xfff;
	f->century = 0x32;
	f->day_alarm = 0;
	/* No 8042 flag: the controller answers for resets, but there is no keyboard to wait for. */
	f->boot_arch = BOOT_LEGACY_DEVICES | BOOT_NO_VGA;
	f->flags = FADT_WBINVD | FADT_PROC_C1 | FADT_NO_SLEEP_BUTTON | FADT_TIMER_32BIT | FADT_RESET_REG;
	f->reset = io(LAYOUT_RESET, 8);
	f->reset_value = 6;
	f->minor = 5;
	f->x_pm1a_evt = io(LAYOUT_PM_BASE, 32);
	f->x_pm1a_evt.access = 2;
	f->x_pm1a_cnt = io(LAYOUT_PM_CNT, 16);
	f->x_pm_tmr = io(LAYOUT_PM_TIMER, 32);
	f->x_gpe0 = io(LAYOUT_GPE0, LAYOUT_GPE0_LEN * 8);
	memcpy(f->hypervisor, "VHOST\0\0", 8);
	finish(&f->h, "FACP", sizeof *f, 6);
	return &f->h;
}

static void bytes(struct out *o, const void *p, size_t n)
{
	void *d = reserve(o, n, 1);
	if (d)
		memcpy(d, p, n);
}

static struct header *write_madt(struct out *o, const struct acpi_config *c)
{
	struct __attribute__((packed)) { struct header h; uint32_t lapic, flags; } *m = reserve(o, sizeof *m, 16);
	struct __attribute__((packed)) { uint8_t t, n, id, r; uint32_t addr, base; } ioapic = {1, 12, 0, 0, IOAPIC_BASE, 0};
	struct __attribute__((packed)) { uint8_t t, n, bus, irq; uint32_t gsi; uint16_t flags; } iso[] = {
		{2, 10, 0, 0, 2, 0}, {2, 10, 0, LAYOUT_SCI, LAYOUT_SCI, 0xd /* level, active high */}};
	struct __attribute__((packed)) { uint8_t t, n, uid; uint16_t flags; uint8_t lint; } nmi = {4, 6, 0xff, 0, 1};
	struct __attribute__((packed)) { uint8_t t, n; uint16_t flags; uint32_t uid; uint8_t lint, r[3]; } x2nmi = {10, 12, 0, 0xffffffff, 1, {0}};
	size_t from = o->n - sizeof *m;

	if (!m)
		return NULL;
	m->lapic = LAPIC_BASE;
	m->flags = 1; /* there are PICs as well */
	for (unsigned i = 0; i < c->cpus; i++) {
		struct __attribute__((packed)) { uint8_t t, n, uid, id; uint32_t flags; } l = {0, 8, (uint8_t)i, (uint8_t)i, 1};
		struct __attribute__((packed)) { uint8_t t, n; uint16_t r; uint32_t id, flags, uid; } x = {9, 16, 0, i, 1, i};
		if (i <= MAX_LAPIC_ID)
			bytes(o, &l, sizeof l);
		else
			bytes(o, &x, sizeof x);
	}
	bytes(o, &ioapic, sizeof ioapic);
	bytes(o, iso, sizeof iso);
	bytes(o, &nmi, sizeof nmi);
	if (c->cpus > MAX_LAPIC_ID + 1)
		bytes(o, &x2nmi, sizeof x2nmi);
	if (o->bad)
		return NULL;
	finish(&m->h, "APIC", o->n - from, 5);
	return &m->h;
}

static struct header *write_mcfg(struct out *o, const struct acpi_config *c)
{
	struct __attribute__((packed)) { struct header h; uint64_t r; uint64_t base; uint16_t seg; uint8_t first, last; uint32_t r2; } *m = reserve(o, sizeof *m, 16);
	if (!m)
		return NULL;
	m->base = c->ecam_base;
	m->last = c->last_bus;
	finish(&m->h, "MCFG", sizeof *m, 1);
	return &m->h;
}

static struct header *write_waet(struct out *o)
{
	struct __attribute__((packed)) { struct header h; uint32_t flags; } *w = reserve(o, sizeof *w, 16);
	if (!w)
		return NULL;
	w->flags = 3; /* RTC needs no acknowledge loop; the PM timer reads right the first time */
	finish(&w->h, "WAET", sizeof *w, 1);
	return &w->h;
}

size_t acpi_write(const struct acpi_config *c, uint64_t base, void *buf, size_t room)
{
	struct out o = {.p = buf, .base = base, .room = room};
	struct rsdp *r = reserve(&o, sizeof *r, 16);
	struct __attribute__((packed)) { struct header h; uint64_t table[4]; } *x = reserve(&o, sizeof *x, 16);
	struct header *dsdt, *facs, *t[4];

	dsdt = write_dsdt(&o, c);
	facs = write_facs(&o);
	t[0] = write_fadt(&o, facs, dsdt);
	t[1] = write_madt(&o, c);
	t[2] = write_mcfg(&o, c);
	t[3] = write_waet(&o);
	if (o.bad)
		return 0;
	for (unsigned i = 0; i < 4; i++)
		x->table[i] = gpa(&o, t[i]);
	finish(&x->h, "XSDT", sizeof *x, 1);
	memcpy(r->sig, "RSD PTR ", 8);
	memcpy(r->oem, "VHOST ", 6);
	r->rev = 2;
	r->len = sizeof *r;
	r->xsdt = gpa(&o, x);
	r->sum = (uint8_t)-sum(r, 20);
	r->ext_sum = (uint8_t)-sum(r, sizeof *r);
	return o.n;
}

int acpi_build(struct vm *v, const struct pci_host *h, uint64_t *rsdp, struct vh_err *e)
{
	struct acpi_config c = {.cpus = vm_cpus(v), .last_bus = PCI_LAST_BUS, .ecam_base = PCI_ECAM_BASE, .mmio32_first = PCI_MMIO32_BASE,
				.mmio32_last = PCI_MMIO32_END - 1, .intx_gsi = pci_intx_gsi};
	void *p = mem_ptr(vm_mem(v), LAYOUT_ACPI, LAYOUT_ACPI_END - LAYOUT_ACPI);
	uint64_t base64 = 0, size64 = 0;

	if (h)
		pci_window64(h, &base64, &size64);
	c.mmio64_first = base64;
	c.mmio64_last = size64 ? base64 + size64 - 1 : 0;
	if (!p)
		return err_set(e, -ENOSPC, "the guest has no memory for ACPI tables");
	if (!acpi_write(&c, LAYOUT_ACPI, p, LAYOUT_ACPI_END - LAYOUT_ACPI))
		return err_usage(e, "the ACPI tables for %u vCPUs do not fit below 1 MiB", c.cpus);
	*rsdp = LAYOUT_ACPI;
	return 0;
}
