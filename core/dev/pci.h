/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * PCI: one root bus with configuration space by ECAM and by 0xcf8/0xcfc, BARs, MSI-X. All functions are on bus 0.
 *
 * Locks: the host's lock covers configuration space and BAR placement and is held while config hooks and bar_moved run;
 * a BAR's handlers run without it and must never call what takes it (everything here marked [main] or [config]).
 */
#ifndef DEV_PCI_H
#define DEV_PCI_H

#include <pthread.h>
#include "vm/vm.h"

#define PCI_ECAM_BASE 0xb0000000u
#define PCI_ECAM_SIZE 0x10000000u
/* The last bus that the tables announce. Linux reads the vendor of 32 slots of every announced bus through 0xcf8, two exits each,
 * so 255 empty ones would cost 16,000 exits in each boot. */
#define PCI_LAST_BUS 0u
#define PCI_MMIO32_BASE 0xc0000000u /* up to PCI_MMIO32_END */
#define PCI_MMIO32_END 0xfec00000u
#define PCI_IO_WINDOW 0xc000u /* up to 0xffff */
#define PCI_PM_BASE 0x600u /* the LPC bridge's ACPI registers; fixed */
#define PCI_MSIX_MAX 2048u

struct pci_host;
struct pci_dev;

struct pci_bar {
	uint64_t size; /* power of two, 0: none; 64-bit BARs use two slots */
	int is64, prefetch, io;
	const struct bus_ops *ops;
	void *ctx;
	/* the bus's */
	struct pci_dev *dev;
	struct bus_region region;
	uint64_t home; /* where the VMM placed it, set again by a reset */
	uint64_t addr; /* as the guest programmed it */
	int mapped;
};
struct pci_msix {
	struct vm_msi *msi; /* made when the vector is first unmasked */
	int live;           /* atomic: neither masked nor disabled: a signal goes straight to msi */
	uint32_t addr_lo, addr_hi, data, ctrl;
	uint64_t set_addr; /* what msi was programmed with */
	uint32_t set_data;
	int pending;
	int given; /* somebody else signals msi, too: masking it is KVM's */
};
struct pci_dev {
	struct pci_host *host;
	const char *name;
	unsigned devfn;
	uint8_t config[4096], wmask[4096], w1c[4096];
	struct pci_bar bar[6];
	struct pci_msix *msix;
	pthread_mutex_t msix_lock; /* vectors; never held while another lock is taken but the VM's own */
	unsigned n_msix, msix_bar, msix_cap, cap_end;
	uint32_t msix_table, msix_pba;
	int msix_on;     /* atomic: enabled */
	int msix_masked; /* all vectors, by the function mask or because it is off; 1 before the first enabling */
	int intx;      /* atomic: what the device asks for */
	int intx_off;  /* disabled, or replaced by MSI-X */
	int irq_level; /* what the interrupt router sees of it */
	/* All optional. config_read: before the access; config_write: after the default handling; bar_moved: a BAR was mapped
	 * or unmapped (bar[n].mapped, .addr). The host's lock is held. */
	void (*config_read)(struct pci_dev *d, unsigned off, unsigned len);
	void (*config_write)(struct pci_dev *d, unsigned off, unsigned len);
	void (*bar_moved)(struct pci_dev *d, unsigned bar);
	void (*reset)(struct pci_dev *d); /* [main] no lock held */
	void *priv;
};

int pci_host_new(struct vm *v, struct pci_host **out, struct vh_err *e); /* with MCH 00:00.0 and ICH9 LPC 00:1f.0 */
void pci_host_free(struct pci_host *h);                                  /* [main] every other device was removed */
/* [main] devfn -1: next free; BARs get addresses and memory decode is on, at the latest when the
 * guest or pci_window64 looks. The caller has filled in config, bar[] and
 * hooks; d outlives its pci_remove. */
int pci_add(struct pci_host *h, struct pci_dev *d, int devfn, struct vh_err *e);
/* [main] The guest sees it no more: on return no handler of it runs or will. It may still interrupt. */
void pci_hide(struct pci_host *h, struct pci_dev *d);
void pci_remove(struct pci_host *h, struct pci_dev *d); /* [main] pci_hide, and the rest */
void pci_host_reset(struct pci_host *h);                /* [main] vCPUs are paused */
/* Before pci_add. Identity and class; the type 0 header's writable bits. */
void pci_init_config(struct pci_dev *d, uint16_t vendor, uint16_t device, uint16_t sub_vendor, uint16_t sub_device,
		     uint8_t revision, uint8_t base, uint8_t sub, uint8_t prog_if);
/* Before pci_add. Returns the capability's offset; body follows the two header bytes; wmask may be NULL (read-only). */
unsigned pci_add_cap(struct pci_dev *d, uint8_t id, const void *body, unsigned len, const void *wmask);
/* Before pci_add, when the BAR is described. Table and PBA accesses never reach the BAR's own handler. */
int pci_msix_init(struct pci_dev *d, unsigned n, unsigned bar, uint32_t table_off, uint32_t pba_off, struct vh_err *e);
int pci_msix_enabled(const struct pci_dev *d);          /* [any] */
void pci_msix_signal(struct pci_dev *d, unsigned vec);  /* [any] honours masks, sets pending */
/* [any] The eventfd whose signal is the vector, for who is no thread of ours; while the vector is masked a signal waits in it. */
int pci_msix_fd(struct pci_dev *d, unsigned vec);
void pci_intx(struct pci_dev *d, int level);            /* [any] INTA#; only the line while MSI-X is off */
/* [any] A BAR access as the bus makes it, MSI-X included. For tests and PCI_CFG capabilities. */
void pci_bar_read(struct pci_dev *d, unsigned bar, uint64_t off, void *data, unsigned len);
void pci_bar_write(struct pci_dev *d, unsigned bar, uint64_t off, const void *data, unsigned len);
/* [any] Configuration space, as ECAM makes it. */
void pci_config_read(struct pci_host *h, unsigned devfn, unsigned off, void *data, unsigned len);
void pci_config_write(struct pci_host *h, unsigned devfn, unsigned off, const void *data, unsigned len);
/* The 64-bit window that ACPI's _CRS shows; size 0: none (64-bit BARs are below 4 GiB then). The first call waits for KVM's
 * set-up (vm_phys_bits); pci_host_new and pci_add do not. */
void pci_window64(const struct pci_host *h, uint64_t *base, uint64_t *size);
/* The IOAPIC pin of a slot's interrupt pin (0: INTA), for _PRT. Level, active low, as PIRQ E-H (slots 0-24) or A-D. */
unsigned pci_intx_gsi(unsigned slot, unsigned pin);

#endif
