/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A Linux bzImage, entered in 64-bit mode (Documentation/arch/x86/boot.rst, protocol 2.12 and later). */
#include "boot/image.h"

#include <stddef.h>
#include <string.h>

#define SETUP_HDR 0x1f1u
#define ENTRY_64 0x200u
#define MIN_PROTOCOL 0x20c
#define MAX_INIT_SIZE (UINT64_C(1) << 30)

int bzimage_parse(const struct boot_source *f, struct boot_kernel *k, struct vh_err *e)
{
	uint8_t head[0x300];
	struct setup_header *h = &k->hdr;
	size_t have = f->size < sizeof head ? (size_t)f->size : sizeof head, end;
	uint64_t setup;
	int r;

	memset(head, 0, sizeof head);
	if (have < 0x268) /* up to init_size */
		return err_set(e, -ENOEXEC, "is too short for a Linux kernel");
	r = f->read(f->ctx, 0, head, have);
	if (r < 0)
		return err_set(e, r, "cannot be read: %s", strerror(-r));
	if (memcmp(head + 0x202, "HdrS", 4) || head[0x1fe] != 0x55 || head[0x1ff] != 0xaa)
		return err_set(e, -ENOEXEC, "is neither a Linux bzImage nor an ELF file");
	/* The header ends where its jump leads; what is past it is zero in boot_params. */
	end = 0x202u + head[0x201];
	if (end > SETUP_HDR + sizeof *h)
		end = SETUP_HDR + sizeof *h;
	if (end < 0x264)
		return err_set(e, -ENOEXEC, "has a truncated kernel header");
	memset(h, 0, sizeof *h);
	memcpy(h, head + SETUP_HDR, end - SETUP_HDR);
	if (h->version < MIN_PROTOCOL) {
		err_set(e, -ENOEXEC, "speaks boot protocol %u.%02u, and 2.12 is needed", h->version >> 8, h->version & 0xff);
		err_remedy(e, "use a kernel of Linux 3.8 or later");
		return -ENOEXEC;
	}
	if (!(h->xloadflags & XLF_KERNEL_64) || !(h->loadflags & LOADED_HIGH)) {
		err_set(e, -ENOEXEC, "has no 64-bit entry point");
		err_remedy(e, "use a 64-bit kernel");
		return -ENOEXEC;
	}
	setup = ((h->setup_sects ? h->setup_sects : 4u) + 1u) * 512u;
	if (setup >= f->size || f->size - setup <= ENTRY_64)
		return err_set(e, -ENOEXEC, "is truncated: %llu bytes of set-up, %llu in the file", (unsigned long long)setup, (unsigned long long)f->size);
	/* syssize counts 16-byte units of the part after the set-up; signatures may follow it. */
	if ((uint64_t)h->syssize * 16 > f->size - setup + 15)
		return err_set(e, -ENOEXEC, "is truncated: its header says %llu bytes, the file has %llu",
			       (unsigned long long)(setup + (uint64_t)h->syssize * 16), (unsigned long long)f->size);
	if (h->init_size < f->size - setup && h->init_size < (uint64_t)h->syssize * 16)
		return err_set(e, -ENOEXEC, "needs less memory (%u bytes) than its own size", h->init_size);
	if (h->init_size > MAX_INIT_SIZE)
		return err_set(e, -ENOEXEC, "asks for %u MiB of memory to start", h->init_size >> 20);
	if (h->relocatable_kernel && (!h->kernel_alignment || h->kernel_alignment & (h->kernel_alignment - 1) || h->kernel_alignment > 1u << 30))
		return err_set(e, -ENOEXEC, "asks for an alignment of %#x", h->kernel_alignment);
	if (!h->cmdline_size)
		h->cmdline_size = 255;
	k->kind = KIND_BZIMAGE;
	k->n = 1;
	k->seg[0] = (struct boot_segment){.off = setup, .file_bytes = f->size - setup, .mem_bytes = f->size - setup};
	if (h->init_size > k->seg[0].mem_bytes)
		k->seg[0].mem_bytes = h->init_size;
	return 0;
}

int bzimage_place(struct boot_kernel *k, uint64_t low, struct vh_err *e)
{
	struct boot_segment *s = &k->seg[0];
	uint64_t at = k->hdr.pref_address, align = k->hdr.kernel_alignment;

	if (at >= LAYOUT_KERNEL_MIN && at < low && s->mem_bytes <= low - at && (!k->hdr.relocatable_kernel || !(at & (align - 1)))) {
		s->gpa = at;
	} else if (k->hdr.relocatable_kernel) {
		at = (LAYOUT_KERNEL_MIN + align - 1) & ~(align - 1);
		if (at >= low || s->mem_bytes > low - at)
			goto small;
		s->gpa = at;
	} else {
		goto small;
	}
	k->entry = s->gpa + ENTRY_64;
	return 0;
small:
	err_set(e, -ENOSPC, "needs %llu MiB of guest memory at %#llx, the guest has %llu MiB there", (unsigned long long)((s->mem_bytes + 0xfffff) >> 20),
		(unsigned long long)at, (unsigned long long)(low >> 20));
	err_remedy(e, "give the guest more memory");
	return -ENOSPC;
}
