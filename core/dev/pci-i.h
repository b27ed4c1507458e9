/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the parts of the PCI bus share: pci.c (configuration space), pci-bar.c, pci-irq.c (INTx, MSI-X), pci-chipset.c. */
#ifndef DEV_PCI_I_H
#define DEV_PCI_I_H

#include <linux/pci_regs.h>
#include <stddef.h>
#include <string.h>
#include "dev/pci.h"
#include "util/log.h"

#define PCI_SLOT_LPC 31u
#define PCI_PIRQS 8u

struct pci_host {
	struct vm *vm;
	pthread_mutex_t lock; /* dev[], configuration spaces, BARs */
	struct pci_dev *dev[256];
	struct bus_region ecam, cf8;
	uint32_t address;      /* 0xcf8; atomic */
	uint8_t reset_control; /* 0xcf9; atomic */
	uint64_t win_base, win_size;
	int placed; /* the window is known, BARs have addresses */
	int bar_waits; /* some BAR could not be mapped because another was in the way */

	pthread_mutex_t irq_lock; /* what follows, and the devices' intx and irq_level */
	unsigned asserted[PCI_PIRQS]; /* functions that hold the line up */
	uint8_t pirq_isa[PCI_PIRQS];  /* ISA interrupt of each, 0: none */
	uint16_t isa_level; /* ISA lines that PIRQs hold up */

	struct pci_dev mch, lpc;
};

static inline uint16_t pci_get16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}
static inline uint32_t pci_get32(const uint8_t *p)
{
	return pci_get16(p) | (uint32_t)pci_get16(p + 2) << 16;
}
static inline void pci_put16(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}
static inline void pci_put32(uint8_t *p, uint32_t v)
{
	pci_put16(p, v & 0xffff);
	pci_put16(p + 2, v >> 16);
}

void pci_place_all(struct pci_host *h); /* pci.c; the host's lock is held */

/* pci-bar.c; the host's lock is held */
void pci_window_init(struct pci_host *h);
int pci_bar_place(struct pci_host *h, struct pci_dev *d, struct vh_err *e);
void pci_bar_home(struct pci_dev *d);   /* registers back to where pci_bar_place put them */
void pci_bar_update(struct pci_dev *d); /* makes the mapping what the registers say */
void pci_bar_unmap_all(struct pci_dev *d);

/* pci-irq.c */
void pci_msix_control(struct pci_dev *d); /* the control word or a mask changed */
void pci_msix_reset(struct pci_dev *d);
void pci_msix_exit(struct pci_dev *d);
int pci_msix_access(struct pci_dev *d, unsigned bar, uint64_t off, void *data, unsigned len, int write);
void pci_intx_update(struct pci_dev *d); /* INTx disable or MSI-X enable changed */
void pci_pirq_set(struct pci_host *h, const uint8_t isa[PCI_PIRQS]); /* the PIRQ routing registers changed */

/* pci-chipset.c */
int pci_chipset_init(struct pci_host *h, struct vh_err *e);
void pci_chipset_reset(struct pci_host *h);

#endif
