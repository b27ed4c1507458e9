/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The DSDT: host bridge with its windows and interrupt routes, the legacy devices, processors and the S5 state. */
#include <stdio.h>

#include "boot/acpi-i.h"
#include "boot/aml.h"
#include "vm/layout.h"

#define PCI_SLOTS 32

static void routes(struct aml *a, const struct acpi_config *c)
{
	aml_name(a, "_PRT");
	aml_package(a, PCI_SLOTS * 4);
	for (unsigned slot = 0; slot < PCI_SLOTS; slot++)
		for (unsigned pin = 0; pin < 4; pin++) {
			aml_package(a, 4);
			aml_int(a, (uint64_t)slot << 16 | 0xffff);
			aml_int(a, pin);
			aml_int(a, 0);
			aml_int(a, c->intx_gsi(slot, pin));
			aml_close(a);
		}
	aml_close(a);
}

/*
 * Method (_OSC, 4): the guest may control the PCIe capability structure (bit 4 of the third word) and nothing else:
 * there is no native hot-plug, PME or error reporting.
 *   CreateDWordField (Arg3, 8, CTRL)
 *   CTRL = CTRL & 0x10
 *   Return (Arg3)
 */
static void osc(struct aml *a)
{
	aml_method(a, "_OSC", 4, 0);
	aml_byte(a, 0x8a); /* CreateDWordField */
	aml_byte(a, 0x6b); /* Arg3 */
	aml_int(a, 8);
	aml_path(a, "CTRL");
	aml_byte(a, 0x7b); /* And (CTRL, 0x10, CTRL) */
	aml_path(a, "CTRL");
	aml_int(a, 0x10);
	aml_path(a, "CTRL");
	aml_byte(a, 0xa4); /* Return */
	aml_byte(a, 0x6b);
	aml_close(a);
}

static void host_bridge(struct aml *a, const struct acpi_config *c)
{
	aml_device(a, "PCI0");
	aml_name_eisaid(a, "_HID", "PNP0A08");
	aml_name_eisaid(a, "_CID", "PNP0A03");
	aml_name_int(a, "_UID", 0);
	aml_name_int(a, "_SEG", 0);
	aml_name_int(a, "_BBN", 0);
	aml_resources(a, "_CRS");
	aml_res_bus(a, 0, c->last_bus);
	aml_res_io(a, 0xcf8, 8);
	aml_res_io_window(a, 0, 0xcf7);
	aml_res_io_window(a, 0xd00, 0xffff);
	if (c->mmio32_last)
		aml_res_memory_window(a, c->mmio32_first, c->mmio32_last, 0);
	if (c->mmio64_last)
		aml_res_memory_window(a, c->mmio64_first, c->mmio64_last, 1);
	aml_resources_close(a);
	routes(a, c);
	osc(a);
	aml_close(a);
}

static void simple_device(struct aml *a, const char *name, const char *hid, uint16_t port, uint8_t len, unsigned irq)
{
	aml_device(a, name);
	aml_name_eisaid(a, "_HID", hid);
	aml_name_int(a, "_UID", 0);
	aml_resources(a, "_CRS");
	aml_res_io(a, port, len);
	if (irq)
		aml_res_irq(a, irq);
	aml_resources_close(a);
	aml_close(a);
}

static void board(struct aml *a, const struct acpi_config *c)
{
	aml_device(a, "MRES"); /* what is in use and belongs to no device */
	aml_name_eisaid(a, "_HID", "PNP0C02");
	aml_name_int(a, "_UID", 0);
	aml_resources(a, "_CRS");
	aml_res_memory32(a, (uint32_t)c->ecam_base, 0x10000000, 1);
	aml_res_io(a, LAYOUT_PM_BASE, 0x30);
	aml_resources_close(a);
	aml_close(a);
	simple_device(a, "COM1", "PNP0501", 0x3f8, 8, 4);
	simple_device(a, "RTC_", "PNP0B00", 0x70, 2, 8);
	aml_device(a, "PEVT");
	aml_name_string(a, "_HID", "QEMU0001"); /* pvpanic */
	aml_name_int(a, "_UID", 0);
	aml_name_int(a, "_STA", 0xf);
	aml_resources(a, "_CRS");
	aml_res_io(a, LAYOUT_PVPANIC, 1);
	aml_resources_close(a);
	aml_close(a);
}

static void processors(struct aml *a, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		char name[8];
		snprintf(name, sizeof name, "C%03X", i & 0xfff);
		aml_device(a, name);
		aml_name_string(a, "_HID", "ACPI0007");
		aml_name_int(a, "_UID", i);
		aml_close(a);
	}
}

size_t dsdt_write(const struct acpi_config *c, void *buf, size_t room)
{
	struct aml a;

	aml_init(&a, buf, room);
	aml_scope(&a, "\\_SB_");
	host_bridge(&a, c);
	board(&a, c);
	processors(&a, c->cpus);
	aml_close(&a);
	aml_name(&a, "\\_S5_"); /* sleep type 0 in PM1a and PM1b; see platform's PM1a control */
	aml_package(&a, 4);
	for (unsigned i = 0; i < 4; i++)
		aml_int(&a, 0);
	aml_close(&a);
	return a.bad || a.depth ? 0 : a.n;
}
