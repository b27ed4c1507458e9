/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* bzImage and ELF headers, right ones and hostile ones. */
#include <elf.h>
#include <glib.h>
#include <string.h>

#include "boot/image.h"

struct blob { uint8_t *p; size_t n; };

static int blob_read(void *ctx, uint64_t off, void *buf, size_t len)
{
	struct blob *b = ctx;
	if (off > b->n || len > b->n - off)
		return -ENODATA;
	memcpy(buf, b->p + off, len);
	return 0;
}

static int parse(struct blob *b, struct boot_kernel *k, char **why)
{
	struct boot_source f = {b->n, blob_read, b};
	struct vh_err e = {0};
	int r = boot_parse(&f, k, &e);
	if (r < 0)
		g_assert_nonnull(e.cause);
	if (why)
		*why = g_strdup(e.cause);
	err_clear(&e);
	return r;
}

/* A bzImage with 3 set-up sectors and 8 KiB of kernel. */
static struct blob bzimage(void)
{
	struct blob b = {g_malloc0(4 * 512 + 8192), 4 * 512 + 8192};
	struct setup_header h = {.setup_sects = 3, .boot_flag = 0xaa55, .jump = 0x66eb, .header = 0x53726448, .version = 0x20f, .loadflags = 1,
				 .syssize = 512, .initrd_addr_max = 0x7fffffff, .kernel_alignment = 0x200000, .relocatable_kernel = 1,
				 .xloadflags = XLF_KERNEL_64 | XLF_CAN_BE_LOADED_ABOVE_4G, .cmdline_size = 2047, .pref_address = 0x1000000,
				 .init_size = 0x300000};
	memcpy(b.p + 0x1f1, &h, sizeof h);
	return b;
}

static struct setup_header *hdr(struct blob *b)
{
	return (struct setup_header *)(b->p + 0x1f1);
}

static void test_bzimage(void)
{
	struct blob b = bzimage();
	struct boot_kernel k;
	struct vh_err e = {0};

	g_assert_cmpint(parse(&b, &k, NULL), ==, 0);
	g_assert_cmpint(k.kind, ==, KIND_BZIMAGE);
	g_assert_cmpuint(k.seg[0].off, ==, 2048);
	g_assert_cmpuint(k.seg[0].file_bytes, ==, 8192);
	g_assert_cmpint(bzimage_place(&k, 64 << 20, &e), ==, 0);
	g_assert_cmphex(k.entry, ==, 0x1000200);
	/* 16 MiB and its preferred address do not go together: lower, aligned. */
	g_assert_cmpint(bzimage_place(&k, 16 << 20, &e), ==, 0);
	g_assert_cmphex(k.seg[0].gpa, ==, 0x200000);
	g_assert_cmpint(bzimage_place(&k, 4 << 20, &e), ==, -ENOSPC);
	g_assert_nonnull(e.remedy);
	err_clear(&e);
	k.hdr.relocatable_kernel = 0;
	g_assert_cmpint(bzimage_place(&k, 16 << 20, &e), ==, -ENOSPC);
	err_clear(&e);
	k.hdr.pref_address = ~UINT64_C(0) - 100; /* must not wrap */
	g_assert_cmpint(bzimage_place(&k, 16 << 20, &e), ==, -ENOSPC);
	err_clear(&e);
	g_free(b.p);
}

static void refused(struct blob b, const char *text)
{
	struct boot_kernel k;
	g_autofree char *why = NULL;
	g_assert_cmpint(parse(&b, &k, &why), <, 0);
	if (!strstr(why, text))
		g_error("'%s' does not say '%s'", why, text);
	g_free(b.p);
}

static void test_bzimage_refused(void)
{
	struct blob b;

	b = bzimage(), b.n = 100, refused(b, "too short");
	b = bzimage(), b.n = 0, refused(b, "too short");
	b = bzimage(), b.p[0x202] = 'X', refused(b, "neither");
	b = bzimage(), hdr(&b)->version = 0x20b, refused(b, "2.11");
	b = bzimage(), hdr(&b)->xloadflags = 0, refused(b, "64-bit");
	b = bzimage(), hdr(&b)->loadflags = 0, refused(b, "64-bit");
	b = bzimage(), hdr(&b)->setup_sects = 200, refused(b, "truncated");
	b = bzimage(), b.n = 2048 + 0x200, refused(b, "truncated");
	b = bzimage(), hdr(&b)->syssize = 0xffffffff, refused(b, "truncated");
	b = bzimage(), hdr(&b)->init_size = 16, refused(b, "less memory");
	b = bzimage(), hdr(&b)->init_size = 0xffffffff, refused(b, "asks for");
	b = bzimage(), hdr(&b)->kernel_alignment = 3, refused(b, "alignment");
	b = bzimage(), hdr(&b)->kernel_alignment = 0, refused(b, "alignment");
	b = bzimage(), hdr(&b)->jump = 0x10eb, refused(b, "truncated");
}

struct elf {
	Elf64_Ehdr h;
	Elf64_Phdr ph[3];
	struct { uint32_t namesz, descsz, type; char name[4]; uint32_t desc; } note;
	uint8_t body[256];
};

static struct elf elf_image(void)
{
	struct elf x = {.h = {.e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = 1, .e_entry = 0x1000010, .e_phoff = offsetof(struct elf, ph),
			      .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 3, .e_ehsize = sizeof(Elf64_Ehdr)}};
	memcpy(x.h.e_ident, ELFMAG, SELFMAG);
	x.h.e_ident[EI_CLASS] = ELFCLASS64;
	x.h.e_ident[EI_DATA] = ELFDATA2LSB;
	x.ph[0] = (Elf64_Phdr){.p_type = PT_LOAD, .p_offset = offsetof(struct elf, body), .p_paddr = 0x1000000, .p_filesz = 128, .p_memsz = 4096};
	x.ph[1] = (Elf64_Phdr){.p_type = PT_LOAD, .p_offset = offsetof(struct elf, body) + 128, .p_paddr = 0x2000000, .p_filesz = 128, .p_memsz = 128};
	x.ph[2] = (Elf64_Phdr){.p_type = PT_NOTE, .p_offset = offsetof(struct elf, note), .p_filesz = sizeof x.note, .p_memsz = sizeof x.note};
	x.note.namesz = 4;
	x.note.descsz = 4;
	x.note.type = 18;
	memcpy(x.note.name, "Xen", 4);
	x.note.desc = 0x1000040;
	return x;
}

static void test_elf(void)
{
	struct elf x = elf_image();
	struct blob b = {(uint8_t *)&x, sizeof x};
	struct boot_kernel k;

	g_assert_cmpint(parse(&b, &k, NULL), ==, 0);
	g_assert_cmpint(k.kind, ==, KIND_ELF);
	g_assert_cmpuint(k.n, ==, 2);
	g_assert_cmphex(k.pvh_entry, ==, 0x1000040);
	g_assert_cmphex(k.entry, ==, 0x1000010);
	x.note.type = 17;
	g_assert_cmpint(parse(&b, &k, NULL), ==, 0);
	g_assert_cmphex(k.pvh_entry, ==, 0);
	x.h.e_entry = 0xffffffff81000000; /* virtual: no entry at all now */
	g_assert_cmpint(parse(&b, &k, NULL), <, 0);
}

static void elf_refused(struct elf x, const char *text)
{
	refused((struct blob){g_memdup2(&x, sizeof x), sizeof x}, text);
}

static void test_elf_refused(void)
{
	struct elf x;

	x = elf_image(), x.h.e_machine = EM_AARCH64, elf_refused(x, "not for x86");
	x = elf_image(), x.h.e_ident[EI_DATA] = ELFDATA2MSB, elf_refused(x, "not for x86");
	x = elf_image(), x.h.e_type = ET_REL, elf_refused(x, "no executable");
	x = elf_image(), x.h.e_phnum = 0, elf_refused(x, "program headers");
	x = elf_image(), x.h.e_phnum = 0xffff, elf_refused(x, "program headers");
	x = elf_image(), x.h.e_phoff = ~UINT64_C(0) - 8, elf_refused(x, "program headers");
	x = elf_image(), x.h.e_phentsize = 1, elf_refused(x, "program headers");
	x = elf_image(), x.ph[0].p_filesz = ~UINT64_C(0), elf_refused(x, "outside");
	x = elf_image(), x.ph[0].p_offset = ~UINT64_C(0) - 8, elf_refused(x, "outside");
	x = elf_image(), x.ph[0].p_filesz = 8192, elf_refused(x, "outside");
	x = elf_image(), x.ph[0].p_paddr = 0x1000, elf_refused(x, "below 1 MiB");
	x = elf_image(), x.ph[0].p_paddr = ~UINT64_C(0) - 100, elf_refused(x, "below 1 MiB");
	x = elf_image(), x.ph[1].p_paddr = 0x1000800, elf_refused(x, "on top of each other");
	x = elf_image(), x.note.desc = 0x100, elf_refused(x, "PVH entry");
	x = elf_image(), x.ph[0].p_memsz = x.ph[1].p_memsz = 0, elf_refused(x, "nothing to load");
	x = elf_image(), x.note.descsz = 0xffffffff, x.h.e_entry = 0, elf_refused(x, "no entry");
	x = elf_image(), x.note.namesz = 0xfffffffd, x.h.e_entry = 0, elf_refused(x, "no entry");
}

int main(int argc, char **argv)
{
	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/boot/bzimage", test_bzimage);
	g_test_add_func("/boot/bzimage-refused", test_bzimage_refused);
	g_test_add_func("/boot/elf", test_elf);
	g_test_add_func("/boot/elf-refused", test_elf_refused);
	return g_test_run();
}
