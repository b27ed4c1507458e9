/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Putting a kernel into guest memory, and the tables that it finds there. */
#ifndef BOOT_BOOT_H
#define BOOT_BOOT_H

#include "dev/pci.h"
#include "vm/vm.h"

enum boot_protocol { BOOT_AUTO, BOOT_LINUX64, BOOT_PVH };
struct boot_config {
	const char *kernel, *initrd, *cmdline;
	enum boot_protocol protocol; /* AUTO: bzImage: LINUX64; ELF: PVH when it has the note, else LINUX64 */
};
struct boot_image; /* files opened and checked, before there is a VM */
int boot_open(const struct boot_config *c, struct boot_image **out, struct vh_err *e);
/* Reads the files into guest memory, writes boot_params or start info, e820, page tables, GDT and ACPI; sets *b. Called
 * again at every reboot. */
int boot_load(struct boot_image *i, struct vm *v, struct pci_host *h, struct vm_boot *b, struct vh_err *e);
void boot_close(struct boot_image *i);

/* ACPI tables for `cpus` CPUs, written at the fixed place below 1 MiB; returns the RSDP's address. */
int acpi_build(struct vm *v, const struct pci_host *h, uint64_t *rsdp, struct vh_err *e);

#endif
