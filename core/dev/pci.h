/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * PCI: one root bus with configuration space by ECAM and by 0xcf8/0xcfc, BARs, MSI-X. All functions are on bus 0.
 */
#ifndef DEV_PCI_H
#define DEV_PCI_H

#include "vm/vm.h"

#define PCI_ECAM_BASE 0xb0000000u
#define PCI_ECAM_SIZE 0x10000000u
#define PCI_MMIO32_BASE 0xc0000000u /* up to PCI_MMIO32_END */
#define PCI_MMIO32_END 0xfec00000u
#define PCI_IO_BASE 0xc000u

struct pci_host;
struct pci_dev;

struct pci_bar {
	uint64_t size; /* power of two, 0: none; 64-bit BARs use two slots */
	int is64, prefetch, io;
	const struct bus_ops *ops;
	void *ctx;
	struct bus_region region; /* the bus's */
	uint64_t addr; /* as the guest programmed it */
	int mapped;
};
struct pci_msix { struct vm_msi *msi; uint32_t addr_lo, addr_hi, data, ctrl; int pending; };
struct pci_dev {
	struct pci_host *host;
	const char *name;
	unsigned devfn;
	uint8_t config[4096], wmask[4096], w1c[4096];
	struct pci_bar bar[6];
	struct pci_msix *msix;
	unsigned n_msix, msix_bar, msix_cap;
	uint32_t msix_table, msix_pba;
	int irq_level;
	/* After the default handling; may be NULL. */
	void (*config_write)(struct pci_dev *d, unsigned off, unsigned len);
	void (*config_read)(struct pci_dev *d, unsigned off, unsigned len);
	void (*reset)(struct pci_dev *d);
	void *priv;
};

int pci_host_new(struct vm *v, struct pci_host **out, struct vh_err *e); /* with MCH 00:00.0 and ICH9 LPC 00:1f.0 */
void pci_host_free(struct pci_host *h);
int pci_add(struct pci_host *h, struct pci_dev *d, int devfn, struct vh_err *e); /* devfn -1: next free; BARs get addresses */
void pci_remove(struct pci_host *h, struct pci_dev *d);
void pci_host_reset(struct pci_host *h); /* paused */
unsigned pci_add_cap(struct pci_dev *d, uint8_t id, const void *body, unsigned len, const void *wmask);
int pci_msix_init(struct pci_dev *d, unsigned n, unsigned bar, uint32_t table_off, uint32_t pba_off, struct vh_err *e);
int pci_msix_enabled(const struct pci_dev *d);
void pci_msix_signal(struct pci_dev *d, unsigned vec); /* [any] honours masks, sets pending */
void pci_intx(struct pci_dev *d, int level);           /* [any] when MSI-X is off */
/* The 64-bit window that ACPI's _CRS shows. */
void pci_window64(const struct pci_host *h, uint64_t *base, uint64_t *size);
unsigned pci_intx_gsi(unsigned slot, unsigned pin); /* for _PRT */

#endif
