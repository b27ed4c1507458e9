/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * The two functions that make it a q35: the MCH at 00:00.0 and the ICH9 LPC bridge at 00:1f.0, as far as firmware and
 * kernels look at them. ECAM and the ACPI registers stay where the ACPI tables say they are: the registers that could
 * move them read as what firmware writes there and ignore writes of anything else.
 */
#include "dev/pci-i.h"

#define MCH_PCIEXBAR 0x60
#define MCH_PAM0 0x90
#define MCH_SMRAM 0x9d
#define LPC_PMBASE 0x40
#define LPC_ACPI_CNTL 0x44
#define LPC_PIRQ_A 0x60
#define LPC_PIRQ_E 0x68
#define LPC_RCBA 0xf0
#define PIRQ_OFF 0x80

static void lpc_write(struct pci_dev *d, unsigned off, unsigned len)
{
	uint8_t isa[PCI_PIRQS];

	if (off + len <= LPC_PIRQ_A || off >= LPC_PIRQ_E + 4)
		return;
	for (unsigned i = 0; i < PCI_PIRQS; i++) {
		uint8_t v = d->config[i < 4 ? LPC_PIRQ_A + i : LPC_PIRQ_E + i - 4];
		unsigned irq = v & 0xf;

		/* 9 is the SCI's; the others of the mask are the PC's own. */
		isa[i] = (uint8_t)(v & PIRQ_OFF || irq < 3 || irq == 8 || irq == 9 || irq == 13 ? 0 : irq);
	}
	pci_pirq_set(d->host, isa);
}

static void mch_defaults(struct pci_dev *d)
{
	pci_put32(d->config + MCH_PCIEXBAR, PCI_ECAM_BASE | 1); /* 256 MiB, enabled */
	memset(d->config + MCH_PAM0, 0, 7); /* plain storage: SeaBIOS takes the cleared bit for "copy the BIOS down" */
	d->config[MCH_SMRAM] = 0x02;
}

static void lpc_defaults(struct pci_dev *d)
{
	pci_put32(d->config + LPC_PMBASE, PCI_PM_BASE | 1);
	d->config[LPC_ACPI_CNTL] = 0x80;
	memset(d->config + LPC_PIRQ_A, PIRQ_OFF, 4);
	memset(d->config + LPC_PIRQ_E, PIRQ_OFF, 4);
	pci_put32(d->config + LPC_RCBA, 0);
}

void pci_chipset_reset(struct pci_host *h)
{
	pthread_mutex_lock(&h->lock);
	mch_defaults(&h->mch);
	lpc_defaults(&h->lpc);
	lpc_write(&h->lpc, LPC_PIRQ_A, 4);
	pthread_mutex_unlock(&h->lock);
}

int pci_chipset_init(struct pci_host *h, struct vh_err *e)
{
	int r;

	pci_init_config(&h->mch, 0x8086, 0x29c0, 0x1af4, 0x1100, 2, 6, 0, 0);
	h->mch.name = "the host bridge";
	memset(h->mch.wmask + MCH_PAM0, 0xff, 7);
	h->mch.wmask[MCH_SMRAM] = 0xff;
	mch_defaults(&h->mch);

	pci_init_config(&h->lpc, 0x8086, 0x2918, 0x1af4, 0x1100, 2, 6, 1, 0);
	h->lpc.name = "the LPC bridge";
	h->lpc.config[PCI_HEADER_TYPE] = 0x80;
	h->lpc.config_write = lpc_write;
	memset(h->lpc.wmask + LPC_PIRQ_A, 0x8f, 4);
	memset(h->lpc.wmask + LPC_PIRQ_E, 0x8f, 4);
	pci_put32(h->lpc.wmask + LPC_RCBA, 0xffffc001);
	lpc_defaults(&h->lpc);

	r = pci_add(h, &h->mch, 0, e);
	if (r)
		return r;
	r = pci_add(h, &h->lpc, PCI_SLOT_LPC << 3, e);
	if (r)
		pci_remove(h, &h->mch);
	return r;
}
