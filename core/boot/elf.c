/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* An ELF kernel (vmlinux, unikernels): its loadable segments, its entry, and the Xen note with the PVH entry. */
#include "boot/image.h"

#include <elf.h>
#include <string.h>

#define NOTE_PHYS32_ENTRY 18
#define MAX_PHDRS 128
#define MAX_NOTES (64u << 10)

/* A program header of either class. */
struct phdr { uint32_t type; uint64_t off, paddr, filesz, memsz, align; };

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;
	memcpy(&v, p, 4);
	return v;
}

/* The PVH entry among the notes in [p, p+n), 0 when there is none. Names and descriptions are padded to 4 bytes. */
static uint32_t find_note(const uint8_t *p, uint64_t n)
{
	while (n >= 12) {
		uint64_t name = get32(p), desc = get32(p + 4), type = get32(p + 8), name_pad = (name + 3) & ~UINT64_C(3), desc_pad = (desc + 3) & ~UINT64_C(3);
		if (name_pad > n - 12 || desc > n - 12 - name_pad)
			return 0;
		if (type == NOTE_PHYS32_ENTRY && name == 4 && !memcmp(p + 12, "Xen", 4) && (desc == 4 || desc == 8))
			return get32(p + 12 + name_pad);
		if (desc_pad > n - 12 - name_pad)
			return 0;
		p += 12 + name_pad + desc_pad;
		n -= 12 + name_pad + desc_pad;
	}
	return 0;
}

static int read_note(const struct boot_source *f, const struct phdr *ph, struct boot_kernel *k, struct vh_err *e)
{
	uint8_t buf[4096];
	uint64_t n = ph->filesz, off = ph->off;
	int r;

	if (off > f->size || n > f->size - off || n > MAX_NOTES)
		return 0; /* not ours to judge */
	/* The Xen notes are the first of vmlinux's; one window is enough for what a kernel has. */
	if (n > sizeof buf)
		n = sizeof buf;
	r = f->read(f->ctx, off, buf, (size_t)n);
	if (r < 0)
		return err_set(e, r, "cannot be read: %s", strerror(-r));
	if (!k->pvh_entry)
		k->pvh_entry = find_note(buf, n);
	return 0;
}

static int add_segment(const struct boot_source *f, const struct phdr *ph, struct boot_kernel *k, struct vh_err *e)
{
	struct boot_segment *s = &k->seg[k->n];

	if (!ph->memsz)
		return 0;
	if (k->n == BOOT_MAX_SEGMENTS)
		return err_set(e, -ENOEXEC, "has more than %d loadable segments", BOOT_MAX_SEGMENTS);
	if (ph->filesz > ph->memsz || ph->off > f->size || ph->filesz > f->size - ph->off)
		return err_set(e, -ENOEXEC, "is truncated: segment %u lies outside the file", k->n);
	if (ph->paddr < LAYOUT_KERNEL_MIN || ph->paddr + ph->memsz < ph->paddr)
		return err_set(e, -ENOEXEC, "wants to be loaded at %#llx, below 1 MiB", (unsigned long long)ph->paddr);
	*s = (struct boot_segment){ph->off, ph->paddr, ph->filesz, ph->memsz};
	for (unsigned i = 0; i < k->n; i++)
		if (s->gpa < k->seg[i].gpa + k->seg[i].mem_bytes && k->seg[i].gpa < s->gpa + s->mem_bytes)
			return err_set(e, -ENOEXEC, "has segments on top of each other at %#llx", (unsigned long long)s->gpa);
	k->n++;
	return 0;
}

static int in_segments(const struct boot_kernel *k, uint64_t addr)
{
	for (unsigned i = 0; i < k->n; i++)
		if (addr >= k->seg[i].gpa && addr - k->seg[i].gpa < k->seg[i].mem_bytes)
			return 1;
	return 0;
}

int elf_parse(const struct boot_source *f, struct boot_kernel *k, struct vh_err *e)
{
	union { Elf64_Ehdr h64; Elf32_Ehdr h32; unsigned char id[EI_NIDENT]; } h = {0};
	union { Elf64_Phdr p64; Elf32_Phdr p32; } raw;
	uint64_t phoff;
	unsigned phnum, phsize, is64;
	int r;

	r = f->size < sizeof h ? -ENOEXEC : f->read(f->ctx, 0, &h, sizeof h);
	if (r < 0)
		return err_set(e, r, "is too short for an ELF file, or cannot be read");
	is64 = h.id[EI_CLASS] == ELFCLASS64;
	if (h.id[EI_DATA] != ELFDATA2LSB || (!is64 && h.id[EI_CLASS] != ELFCLASS32) ||
	    (is64 ? h.h64.e_machine != EM_X86_64 : h.h32.e_machine != EM_386 && h.h32.e_machine != EM_X86_64))
		return err_set(e, -ENOEXEC, "is an ELF file, but not for x86");
	if ((is64 ? h.h64.e_type : h.h32.e_type) != ET_EXEC && (is64 ? h.h64.e_type : h.h32.e_type) != ET_DYN)
		return err_set(e, -ENOEXEC, "is an ELF file, but no executable");
	phoff = is64 ? h.h64.e_phoff : h.h32.e_phoff;
	phnum = is64 ? h.h64.e_phnum : h.h32.e_phnum;
	phsize = is64 ? h.h64.e_phentsize : h.h32.e_phentsize;
	if (phsize != (is64 ? sizeof raw.p64 : sizeof raw.p32) || !phnum || phnum > MAX_PHDRS || phoff > f->size ||
	    (uint64_t)phnum * phsize > f->size - phoff)
		return err_set(e, -ENOEXEC, "is an ELF file with broken program headers");
	k->kind = KIND_ELF;
	k->n = 0;
	for (unsigned i = 0; i < phnum; i++) {
		struct phdr ph;
		r = f->read(f->ctx, phoff + (uint64_t)i * phsize, &raw, phsize);
		if (r < 0)
			return err_set(e, r, "cannot be read: %s", strerror(-r));
		if (is64)
			ph = (struct phdr){raw.p64.p_type, raw.p64.p_offset, raw.p64.p_paddr, raw.p64.p_filesz, raw.p64.p_memsz, raw.p64.p_align};
		else
			ph = (struct phdr){raw.p32.p_type, raw.p32.p_offset, raw.p32.p_paddr, raw.p32.p_filesz, raw.p32.p_memsz, raw.p32.p_align};
		r = ph.type == PT_LOAD ? add_segment(f, &ph, k, e) : ph.type == PT_NOTE ? read_note(f, &ph, k, e) : 0;
		if (r < 0)
			return r;
	}
	if (!k->n)
		return err_set(e, -ENOEXEC, "is an ELF file with nothing to load");
	k->entry = is64 ? h.h64.e_entry : 0;
	if (k->entry && !in_segments(k, k->entry))
		k->entry = 0; /* a virtual address: no entry by the 64-bit protocol */
	if (k->pvh_entry && !in_segments(k, k->pvh_entry))
		return err_set(e, -ENOEXEC, "has its PVH entry %#x outside of what it loads", k->pvh_entry);
	if (!k->entry && !k->pvh_entry) {
		err_set(e, -ENOEXEC, "has no entry that can be used: no PVH note, no 64-bit physical entry");
		err_remedy(e, "build the kernel with CONFIG_PVH");
		return -ENOEXEC;
	}
	return 0;
}
