/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Interrupts of PCI functions: MSI-X with its table and pending bits, and INTx through the PIRQ router. */
#include <stdlib.h>
#include "dev/pci-i.h"

#define MSIX_ENTRY PCI_MSIX_ENTRY_SIZE

/*
 * INTx. The routes are those of ICH9: a PIRQ is IOAPIC pin 16-23 and, where its routing register says so, also an ISA
 * interrupt (which is how firmware without ACPI's APIC mode gets it). Slots 0-24 use PIRQ E-H, rotated, the others A-D.
 */
static unsigned pirq_of(unsigned slot, unsigned pin)
{
	return slot < 25 ? 4 + ((slot + pin) & 3) : pin & 3;
}

unsigned pci_intx_gsi(unsigned slot, unsigned pin)
{
	return 16 + pirq_of(slot, pin);
}

/* Under irq_lock. */
static void isa_lines(struct pci_host *h)
{
	uint16_t now = 0;

	for (unsigned i = 0; i < PCI_PIRQS; i++)
		if (h->asserted[i] && h->pirq_isa[i])
			now = (uint16_t)(now | 1u << h->pirq_isa[i]);
	for (unsigned irq = 0; irq < 16; irq++)
		if ((now ^ h->isa_level) >> irq & 1)
			vm_irq_line(h->vm, irq, now >> irq & 1);
	h->isa_level = now;
}

/* Under irq_lock. */
static void intx_route(struct pci_dev *d)
{
	struct pci_host *h = d->host;
	int level = d->intx && !d->intx_off;
	unsigned pirq;

	if (level == d->irq_level)
		return;
	d->irq_level = level;
	pirq = pirq_of(d->devfn >> 3, d->devfn & 3);
	if (level ? h->asserted[pirq]++ == 0 : --h->asserted[pirq] == 0)
		vm_irq_line(h->vm, 16 + pirq, level);
	isa_lines(h);
}

void pci_intx(struct pci_dev *d, int level)
{
	struct pci_host *h = d->host;

	if (!h)
		return;
	pthread_mutex_lock(&h->irq_lock);
	__atomic_store_n(&d->intx, level, __ATOMIC_RELAXED);
	intx_route(d);
	pthread_mutex_unlock(&h->irq_lock);
}

void pci_intx_update(struct pci_dev *d)
{
	struct pci_host *h = d->host;
	int off = (pci_get16(d->config + PCI_COMMAND) & PCI_COMMAND_INTX_DISABLE) || pci_msix_enabled(d);

	pthread_mutex_lock(&h->irq_lock);
	d->intx_off = off;
	intx_route(d);
	pthread_mutex_unlock(&h->irq_lock);
}

void pci_pirq_set(struct pci_host *h, const uint8_t isa[PCI_PIRQS])
{
	pthread_mutex_lock(&h->irq_lock);
	memcpy(h->pirq_isa, isa, PCI_PIRQS);
	isa_lines(h);
	pthread_mutex_unlock(&h->irq_lock);
}

int pci_msix_init(struct pci_dev *d, unsigned n, unsigned bar, uint32_t table_off, uint32_t pba_off, struct vh_err *e)
{
	static const uint8_t wmask[10] = {0, (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL) >> 8};
	uint8_t body[10];

	if (!n || n > PCI_MSIX_MAX || bar > 5 || table_off & 7 || pba_off & 7 ||
	    table_off + (uint64_t)n * MSIX_ENTRY > d->bar[bar].size || pba_off + (n + 63) / 64 * 8 > d->bar[bar].size)
		return err_set(e, -EINVAL, "%s: the MSI-X table does not fit", d->name);
	d->msix = calloc(n, sizeof(*d->msix));
	if (!d->msix)
		return err_set(e, -ENOMEM, "%s: no memory for %u interrupt vectors", d->name, n);
	pci_put16(body, n - 1);
	pci_put32(body + 2, table_off | bar);
	pci_put32(body + 6, pba_off | bar);
	d->msix_cap = pci_add_cap(d, PCI_CAP_ID_MSIX, body, sizeof(body), wmask);
	if (!d->msix_cap) {
		free(d->msix);
		d->msix = NULL;
		return err_set(e, -ENOSPC, "%s: no room for the MSI-X capability", d->name);
	}
	pthread_mutex_init(&d->msix_lock, NULL);
	d->msix_masked = 1;
	d->n_msix = n;
	d->msix_bar = bar;
	d->msix_table = table_off;
	d->msix_pba = pba_off;
	for (unsigned i = 0; i < n; i++)
		d->msix[i].ctrl = PCI_MSIX_ENTRY_CTRL_MASKBIT;
	return 0;
}

void pci_msix_exit(struct pci_dev *d)
{
	if (!d->msix)
		return;
	for (unsigned i = 0; i < d->n_msix; i++)
		if (d->msix[i].msi)
			vm_msi_free(d->msix[i].msi);
	free(d->msix);
	d->msix = NULL;
	d->n_msix = 0;
	pthread_mutex_destroy(&d->msix_lock);
}

int pci_msix_enabled(const struct pci_dev *d)
{
	return __atomic_load_n(&d->msix_on, __ATOMIC_RELAXED);
}

static int vector_new(struct pci_dev *d, struct pci_msix *m)
{
	int r = m->msi ? 0 : vm_msi_new(d->host->vm, &m->msi, NULL);

	if (r)
		log_error("pci", "%s: no interrupt vector: %s", d->name, strerror(-r));
	return r;
}

/*
 * Brings a vector in line with its table entry, under msix_lock; `masked` is the function's mask or its disabled state. The
 * kernel's route is left alone when a vector is masked: a signal that has just passed the check of `live` is then delivered
 * where it was meant to go, instead of being lost, and masking, which guests do often, costs no ioctl.
 */
static void vector_update(struct pci_dev *d, struct pci_msix *m, int masked)
{
	uint64_t addr = (uint64_t)m->addr_hi << 32 | m->addr_lo;
	int r;

	if (masked || m->ctrl & PCI_MSIX_ENTRY_CTRL_MASKBIT) {
		__atomic_store_n(&m->live, 0, __ATOMIC_SEQ_CST);
		if (m->given && (m->set_addr || m->set_data)) { /* nobody but KVM can hold back what is signalled elsewhere */
			vm_msi_set(m->msi, 0, 0);
			m->set_addr = 0;
			m->set_data = 0;
		}
		return;
	}
	if (vector_new(d, m))
		return;
	if (addr != m->set_addr || m->data != m->set_data) {
		r = vm_msi_set(m->msi, addr, m->data);
		if (r) {
			log_error("pci", "%s: interrupt route to 0x%llx refused: %s", d->name, (unsigned long long)addr, strerror(-r));
			return;
		}
		m->set_addr = addr;
		m->set_data = m->data;
	}
	__atomic_store_n(&m->live, 1, __ATOMIC_SEQ_CST);
	if (m->pending) {
		m->pending = 0;
		vm_msi_signal(m->msi);
	}
}

static int function_masked(const struct pci_dev *d)
{
	return (pci_get16(d->config + d->msix_cap + PCI_MSIX_FLAGS) & (PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL)) !=
	       PCI_MSIX_FLAGS_ENABLE;
}

void pci_msix_control(struct pci_dev *d)
{
	pthread_mutex_lock(&d->msix_lock);
	d->msix_masked = function_masked(d);
	__atomic_store_n(&d->msix_on, !!(d->config[d->msix_cap + PCI_MSIX_FLAGS + 1] & PCI_MSIX_FLAGS_ENABLE >> 8),
			 __ATOMIC_RELAXED);
	for (unsigned i = 0; i < d->n_msix; i++) {
		if (!d->msix_on)
			d->msix[i].pending = 0;
		vector_update(d, &d->msix[i], d->msix_masked);
	}
	pthread_mutex_unlock(&d->msix_lock);
}

void pci_msix_reset(struct pci_dev *d)
{
	pthread_mutex_lock(&d->msix_lock);
	for (unsigned i = 0; i < d->n_msix; i++) {
		struct pci_msix *m = &d->msix[i];

		m->addr_lo = m->addr_hi = m->data = 0;
		m->ctrl = PCI_MSIX_ENTRY_CTRL_MASKBIT;
		m->pending = 0;
	}
	pthread_mutex_unlock(&d->msix_lock);
	pci_put16(d->config + d->msix_cap + PCI_MSIX_FLAGS, d->n_msix - 1);
	pci_msix_control(d);
}

int pci_msix_fd(struct pci_dev *d, unsigned vec)
{
	struct pci_msix *m;
	int fd = -EINVAL;

	if (vec >= d->n_msix)
		return fd;
	m = &d->msix[vec];
	pthread_mutex_lock(&d->msix_lock);
	fd = vector_new(d, m);
	if (!fd) {
		m->given = 1;
		vector_update(d, m, d->msix_masked);
		fd = vm_msi_fd(m->msi);
	}
	pthread_mutex_unlock(&d->msix_lock);
	return fd;
}

void pci_msix_signal(struct pci_dev *d, unsigned vec)
{
	struct pci_msix *m;

	if (vec >= d->n_msix)
		return;
	m = &d->msix[vec];
	if (__atomic_load_n(&m->live, __ATOMIC_ACQUIRE)) {
		vm_msi_signal(m->msi);
		return;
	}
	pthread_mutex_lock(&d->msix_lock);
	if (m->live)
		vm_msi_signal(m->msi);
	else if (d->msix_on)
		m->pending = 1;
	pthread_mutex_unlock(&d->msix_lock);
}

/* One aligned dword of the table. */
static void table_write(struct pci_dev *d, uint32_t off, uint32_t v)
{
	struct pci_msix *m = &d->msix[off / MSIX_ENTRY];

	switch (off % MSIX_ENTRY) {
	case PCI_MSIX_ENTRY_LOWER_ADDR:
		m->addr_lo = v & ~3u;
		break;
	case PCI_MSIX_ENTRY_UPPER_ADDR:
		m->addr_hi = v;
		break;
	case PCI_MSIX_ENTRY_DATA:
		m->data = v;
		break;
	default:
		m->ctrl = v & PCI_MSIX_ENTRY_CTRL_MASKBIT;
	}
}

static uint32_t table_read(const struct pci_dev *d, uint32_t off)
{
	const struct pci_msix *m = &d->msix[off / MSIX_ENTRY];

	switch (off % MSIX_ENTRY) {
	case PCI_MSIX_ENTRY_LOWER_ADDR:
		return m->addr_lo;
	case PCI_MSIX_ENTRY_UPPER_ADDR:
		return m->addr_hi;
	case PCI_MSIX_ENTRY_DATA:
		return m->data;
	default:
		return m->ctrl;
	}
}

static uint32_t pba_read(const struct pci_dev *d, uint32_t off)
{
	uint32_t v = 0;

	for (unsigned i = 0; i < 32; i++)
		if (off * 8 + i < d->n_msix && d->msix[off * 8 + i].pending)
			v |= 1u << i;
	return v;
}

/* Table and PBA take aligned dwords and qwords; what else is undefined there reads as zeros and writes nothing. */
int pci_msix_access(struct pci_dev *d, unsigned bar, uint64_t off, void *data, unsigned len, int write)
{
	uint32_t v, table_len = d->n_msix * MSIX_ENTRY, pba_len = (d->n_msix + 63) / 64 * 8;
	int table = off >= d->msix_table && off - d->msix_table < table_len;

	if (bar != d->msix_bar || !(table || (off >= d->msix_pba && off - d->msix_pba < pba_len)))
		return 0;
	off -= table ? d->msix_table : d->msix_pba;
	if (!write)
		memset(data, 0, len);
	if (off % len || (len != 4 && len != 8))
		return 1;
	pthread_mutex_lock(&d->msix_lock);
	for (unsigned i = 0; i < len; i += 4) {
		if (write && table) {
			memcpy(&v, (uint8_t *)data + i, 4);
			table_write(d, (uint32_t)off + i, v);
		} else if (!write) {
			v = table ? table_read(d, (uint32_t)off + i) : pba_read(d, (uint32_t)off + i);
			memcpy((uint8_t *)data + i, &v, 4);
		}
	}
	if (write && table)
		vector_update(d, &d->msix[off / MSIX_ENTRY], d->msix_masked);
	pthread_mutex_unlock(&d->msix_lock);
	return 1;
}
