/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What a kernel is handed: memory map, boot_params or start info, command line, GDT and page tables. */
#include "boot/image.h"

#include <stddef.h>
#include <string.h>
#include <sys/random.h>

#define SETUP_DATA_RNG_SEED 9
#define SEED_BYTES 64
#define START_INFO_MAGIC 0x336ec578u

struct hvm_start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist_paddr, cmdline_paddr, rsdp_paddr, memmap_paddr;
	uint32_t memmap_entries, reserved;
};
struct hvm_modlist_entry { uint64_t paddr, size, cmdline_paddr, reserved; };
struct hvm_memmap_entry { uint64_t addr, size; uint32_t type, reserved; };
_Static_assert(sizeof(struct hvm_start_info) == 56 && sizeof(struct hvm_memmap_entry) == 24, "Xen's start_info.h");
_Static_assert(sizeof(struct boot_params) == 4096, "the zero page");

unsigned boot_e820(const struct mem *m, struct boot_e820 *out, unsigned room)
{
	unsigned n = 0;
	if (room < 6)
		return 0;
	out[n++] = (struct boot_e820){0, LAYOUT_LOW_END, E820_RAM_TYPE};
	out[n++] = (struct boot_e820){LAYOUT_LOW_END, 0xa0000 - LAYOUT_LOW_END, E820_RESERVED_TYPE};
	out[n++] = (struct boot_e820){LAYOUT_ACPI, LAYOUT_ACPI_END - LAYOUT_ACPI, E820_RESERVED_TYPE};
	out[n++] = (struct boot_e820){LAYOUT_KERNEL_MIN, m->range[0].bytes - LAYOUT_KERNEL_MIN, E820_RAM_TYPE};
	/* Linux uses ECAM only where the firmware's map reserves it. */
	out[n++] = (struct boot_e820){PCI_ECAM_BASE, PCI_ECAM_SIZE, E820_RESERVED_TYPE};
	if (m->n > 1)
		out[n++] = (struct boot_e820){m->range[1].gpa, m->range[1].bytes, E820_RAM_TYPE};
	return n;
}

static void *low(struct vm *v, uint64_t gpa, uint64_t len, struct vh_err *e)
{
	void *p = mem_ptr(vm_mem(v), gpa, len);
	if (!p)
		err_set(e, -ENOSPC, "the guest has no memory at %#llx", (unsigned long long)gpa);
	return p;
}

static int write_cmdline(struct boot_image *i, struct vm *v, struct vh_err *e)
{
	size_t n = strlen(i->cmdline) + 1; /* boot_open checked it */
	char *p = low(v, LAYOUT_CMDLINE, n, e);
	if (!p)
		return -ENOSPC;
	memcpy(p, i->cmdline, n);
	return 0;
}

static int write_gdt(struct vm *v, uint64_t code, struct vm_boot *b, struct vh_err *e)
{
	const uint64_t gdt[] = {0, 0, code, UINT64_C(0x00cf93000000ffff), UINT64_C(0x00008b0000000067), 0};
	void *p = low(v, LAYOUT_GDT, sizeof gdt, e);
	if (!p)
		return -ENOSPC;
	memcpy(p, gdt, sizeof gdt);
	b->gdt = LAYOUT_GDT;
	b->gdt_limit = sizeof gdt - 1;
	return 0;
}

static int write_page_tables(struct vm *v, struct vm_boot *b, struct vh_err *e)
{
	uint64_t *t = low(v, LAYOUT_PAGE_TABLES, 6 * 4096, e);
	if (!t)
		return -ENOSPC;
	memset(t, 0, 2 * 4096);
	t[0] = (LAYOUT_PAGE_TABLES + 0x1000) | 3;
	for (unsigned i = 0; i < 4; i++)
		t[512 + i] = (LAYOUT_PAGE_TABLES + 0x2000 + i * 0x1000) | 3;
	for (unsigned i = 0; i < 4 * 512; i++)
		t[1024 + i] = ((uint64_t)i << 21) | 0x83;
	b->cr3 = LAYOUT_PAGE_TABLES;
	return 0;
}

/* The kernel takes its first random numbers from here, and zeroes it. */
static int write_seed(struct vm *v, struct vh_err *e)
{
	struct setup_data *d = low(v, LAYOUT_SETUP_DATA, sizeof *d + SEED_BYTES, e);
	if (!d)
		return -ENOSPC;
	*d = (struct setup_data){.type = SETUP_DATA_RNG_SEED, .len = SEED_BYTES};
	if (getrandom(d->data, SEED_BYTES, 0) != SEED_BYTES)
		d->len = 0;
	return 0;
}

int boot_write_linux(struct boot_image *i, struct vm *v, uint64_t initrd_at, uint64_t rsdp, struct vm_boot *b, struct vh_err *e)
{
	struct boot_params *z = low(v, LAYOUT_ZERO_PAGE, sizeof *z, e);
	struct boot_e820 map[8];
	int r;

	if (!z)
		return -ENOSPC;
	memset(z, 0, sizeof *z);
	if (i->k.kind == KIND_BZIMAGE) {
		z->hdr = i->k.hdr;
	} else {
		z->hdr.boot_flag = 0xaa55;
		z->hdr.header = 0x53726448; /* HdrS */
		z->hdr.version = 0x20f;
		z->hdr.kernel_alignment = 1u << 24;
	}
	z->hdr.type_of_loader = 0xff;
	z->hdr.vid_mode = 0xffff;
	z->hdr.cmd_line_ptr = LAYOUT_CMDLINE;
	z->hdr.code32_start = (uint32_t)i->k.seg[0].gpa;
	z->hdr.ramdisk_image = (uint32_t)initrd_at;
	z->ext_ramdisk_image = (uint32_t)(initrd_at >> 32);
	z->hdr.ramdisk_size = (uint32_t)i->initrd_size;
	z->ext_ramdisk_size = (uint32_t)(i->initrd_size >> 32);
	z->hdr.setup_data = LAYOUT_SETUP_DATA;
	z->acpi_rsdp_addr = rsdp;
	z->e820_entries = (uint8_t)boot_e820(vm_mem(v), map, 8);
	for (unsigned n = 0; n < z->e820_entries; n++)
		z->e820_table[n] = (struct boot_e820_entry){map[n].addr, map[n].size, map[n].type};
	z->alt_mem_k = (uint32_t)((vm_mem(v)->range[0].bytes - LAYOUT_KERNEL_MIN) >> 10);
	r = write_cmdline(i, v, e);
	if (!r)
		r = write_seed(v, e);
	if (!r)
		r = write_page_tables(v, b, e);
	if (!r)
		r = write_gdt(v, UINT64_C(0x00af9b000000ffff), b, e);
	b->mode = VM_BOOT_LONG64;
	b->rip = i->k.entry;
	b->rsi = LAYOUT_ZERO_PAGE;
	b->rsp = LAYOUT_STACK;
	return r;
}

int boot_write_pvh(struct boot_image *i, struct vm *v, uint64_t initrd_at, uint64_t rsdp, struct vm_boot *b, struct vh_err *e)
{
	struct { struct hvm_start_info info; struct hvm_modlist_entry module; struct hvm_memmap_entry map[8]; } *s;
	struct boot_e820 map[8];
	unsigned n;
	int r;

	_Static_assert(sizeof *s <= LAYOUT_START_INFO_SIZE, "fits its place");
	s = low(v, LAYOUT_START_INFO, sizeof *s, e);
	if (!s)
		return -ENOSPC;
	memset(s, 0, sizeof *s);
	n = boot_e820(vm_mem(v), map, 8);
	for (unsigned k = 0; k < n; k++)
		s->map[k] = (struct hvm_memmap_entry){map[k].addr, map[k].size, map[k].type, 0};
	s->info = (struct hvm_start_info){.magic = START_INFO_MAGIC, .version = 1, .cmdline_paddr = LAYOUT_CMDLINE, .rsdp_paddr = rsdp,
					  .memmap_paddr = LAYOUT_START_INFO + (uint64_t)((uint8_t *)s->map - (uint8_t *)s), .memmap_entries = n};
	if (initrd_at) {
		s->module = (struct hvm_modlist_entry){.paddr = initrd_at, .size = i->initrd_size};
		s->info.nr_modules = 1;
		s->info.modlist_paddr = LAYOUT_START_INFO + (uint64_t)((uint8_t *)&s->module - (uint8_t *)s);
	}
	r = write_cmdline(i, v, e);
	if (!r)
		r = write_gdt(v, UINT64_C(0x00cf9b000000ffff), b, e);
	b->mode = VM_BOOT_PVH32;
	b->rip = i->k.pvh_entry;
	b->rbx = LAYOUT_START_INFO;
	return r;
}
