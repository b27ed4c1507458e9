/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
#ifndef BOOT_ACPI_I_H
#define BOOT_ACPI_I_H

#include <stddef.h>
#include <stdint.h>

/* What the tables tell of; pure input, so that tests need no VM. */
struct acpi_config {
	unsigned cpus;
	uint8_t last_bus; /* of PCI */
	uint64_t ecam_base, mmio32_first, mmio32_last, mmio64_first, mmio64_last; /* last 0: no such window */
	unsigned (*intx_gsi)(unsigned slot, unsigned pin);
};
/* Writes the tables into buf as found at guest address base, RSDP first; bytes used, 0 when room is short. */
size_t acpi_write(const struct acpi_config *c, uint64_t base, void *buf, size_t room);
/* dsdt.c: the AML alone; bytes, 0 when room is short. */
size_t dsdt_write(const struct acpi_config *c, void *buf, size_t room);

#endif
