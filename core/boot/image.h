/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the files of core/boot share: an opened kernel and how each kind puts itself into memory. */
#ifndef BOOT_IMAGE_H
#define BOOT_IMAGE_H

#include <asm/bootparam.h>

#include "boot/boot.h"
#include "vm/layout.h"

#define BOOT_MAX_SEGMENTS 32

enum boot_kind { KIND_BZIMAGE, KIND_ELF };

/* A piece of the file that goes to a place in memory; mem_bytes past file_bytes are zero. */
struct boot_segment { uint64_t off, gpa, file_bytes, mem_bytes; };

struct boot_kernel {
	enum boot_kind kind;
	struct boot_segment seg[BOOT_MAX_SEGMENTS];
	unsigned n;
	uint64_t entry;        /* 64-bit entry, of ELF; 0: none */
	uint32_t pvh_entry;    /* 0: none */
	struct setup_header hdr; /* of bzImage */
};

struct boot_image {
	struct boot_kernel k;
	int kernel_fd, initrd_fd;
	uint64_t kernel_size, initrd_size;
	char *kernel, *initrd, *cmdline;
	enum boot_protocol protocol; /* decided: LINUX64 or PVH */
};

/* Parsers of hostile bytes, pure: `read` gives bytes of the file at an offset, all or -errno. */
struct boot_source {
	uint64_t size;
	int (*read)(void *ctx, uint64_t off, void *buf, size_t len);
	void *ctx;
};
int bzimage_parse(const struct boot_source *f, struct boot_kernel *k, struct vh_err *e);
int elf_parse(const struct boot_source *f, struct boot_kernel *k, struct vh_err *e);
/* Looks at the magic. */
int boot_parse(const struct boot_source *f, struct boot_kernel *k, struct vh_err *e);

/* Where a bzImage goes in a guest with `low` bytes below the hole; -ENOSPC when it does not fit. */
int bzimage_place(struct boot_kernel *k, uint64_t low, struct vh_err *e);

/* Memory map of the guest in e820 terms, for boot_params and for start info. */
struct boot_e820 { uint64_t addr, size; uint32_t type; };
#define E820_RAM_TYPE 1
#define E820_RESERVED_TYPE 2
unsigned boot_e820(const struct mem *m, struct boot_e820 *out, unsigned room);

/* tables.c: the structures around the kernel; initrd at [at, at+size) or size 0. */
int boot_write_linux(struct boot_image *i, struct vm *v, uint64_t initrd_at, uint64_t rsdp, struct vm_boot *b, struct vh_err *e);
int boot_write_pvh(struct boot_image *i, struct vm *v, uint64_t initrd_at, uint64_t rsdp, struct vm_boot *b, struct vh_err *e);

#endif
