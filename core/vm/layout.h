/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Where a directly booted kernel finds things, in guest-physical memory:
 *
 *   0x00001000  GDT: code 0x10, data 0x18, task 0x20
 *   0x00002000  PVH start info, its module list and memory map
 *   0x00007000  boot_params (zero page)
 *   0x00009000  page tables: PML4, PDPT, 4 page directories of 2 MiB pages, identity, 4 GiB
 *   0x0001f000  top of the boot stack
 *   0x00020000  command line, 64 KiB
 *   0x00030000  setup_data: seed of the kernel's random numbers
 *   0x0009fc00  end of usable conventional memory
 *   0x000e0000  ACPI: RSDP, then the tables, up to 1 MiB (reserved in e820)
 *   0x00100000  usable memory up to MEM_LOW_MAX: the kernel at its preferred address, the initrd at the top
 *   0xb0000000  PCI ECAM, 256 MiB (reserved in e820)
 *   0xc0000000  32-bit PCI window, up to the IOAPIC at 0xfec00000
 *   0xfee00000  local APIC; 0xfffbc000 four pages for KVM on old Intel
 *   0x100000000 the rest of memory; above it the 64-bit PCI window
 */
#ifndef VM_LAYOUT_H
#define VM_LAYOUT_H

#define LAYOUT_GDT 0x1000u
#define LAYOUT_START_INFO 0x2000u
#define LAYOUT_START_INFO_SIZE 0x1000u
#define LAYOUT_ZERO_PAGE 0x7000u
#define LAYOUT_PAGE_TABLES 0x9000u
#define LAYOUT_STACK 0x1f000u
#define LAYOUT_CMDLINE 0x20000u
#define LAYOUT_CMDLINE_SIZE 0x10000u
#define LAYOUT_SETUP_DATA 0x30000u
#define LAYOUT_LOW_END 0x9fc00u
#define LAYOUT_ACPI 0xe0000u
#define LAYOUT_ACPI_END 0x100000u
#define LAYOUT_KERNEL_MIN 0x100000u

/* I/O ports of the platform that ACPI tells of. */
#define LAYOUT_PM_BASE 0x600u
#define LAYOUT_PM_CNT 0x604u
#define LAYOUT_PM_TIMER 0x608u
#define LAYOUT_GPE0 0x620u
#define LAYOUT_GPE0_LEN 16u
#define LAYOUT_SCI 9u
#define LAYOUT_PVPANIC 0x505u
#define LAYOUT_RESET 0xcf9u

#endif
