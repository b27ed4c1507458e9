/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* Opening a kernel and its initrd, and reading both into guest memory. */
#include "boot/image.h"

#include <elf.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ELF_CMDLINE_MAX 2047u /* what x86 Linux keeps of it */
#define PAGE 4096u

static int read_all(int fd, uint64_t off, void *buf, size_t len)
{
	uint8_t *p = buf;
	while (len) {
		ssize_t n = pread(fd, p, len > 1u << 30 ? 1u << 30 : len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return n < 0 ? -errno : -ENODATA;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int file_read(void *ctx, uint64_t off, void *buf, size_t len)
{
	return read_all(*(int *)ctx, off, buf, len);
}

static int open_file(const char *path, const char *what, int *fd, uint64_t *size, struct vh_err *e)
{
	struct stat st;
	int r;

	*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (*fd < 0 || fstat(*fd, &st) < 0) {
		r = -errno;
		err_object(e, "%s %s", what, path);
		return err_set(e, r, "cannot be opened: %s", strerror(-r));
	}
	if (!S_ISREG(st.st_mode)) {
		err_object(e, "%s %s", what, path);
		return err_set(e, -EINVAL, "is not a regular file");
	}
	*size = (uint64_t)st.st_size;
	return 0;
}

int boot_parse(const struct boot_source *f, struct boot_kernel *k, struct vh_err *e)
{
	unsigned char magic[SELFMAG];
	int r;

	memset(k, 0, sizeof *k);
	r = f->size < sizeof magic ? -ENOEXEC : f->read(f->ctx, 0, magic, sizeof magic);
	if (r < 0)
		return err_set(e, r, r == -ENOEXEC ? "is too short for a kernel" : "cannot be read");
	return memcmp(magic, ELFMAG, SELFMAG) ? bzimage_parse(f, k, e) : elf_parse(f, k, e);
}

static int choose_protocol(struct boot_image *i, enum boot_protocol want, struct vh_err *e)
{
	if (i->k.kind == KIND_BZIMAGE) {
		i->protocol = BOOT_LINUX64;
		if (want != BOOT_PVH)
			return 0;
		err_set(e, -ENOEXEC, "is a compressed bzImage, which has no PVH entry");
		err_remedy(e, "unpack its vmlinux (extract-vmlinux), or leave the protocol to vhost");
		return -ENOEXEC;
	}
	i->protocol = want != BOOT_AUTO ? want : i->k.pvh_entry ? BOOT_PVH : BOOT_LINUX64;
	if (i->protocol == BOOT_PVH && !i->k.pvh_entry) {
		err_set(e, -ENOEXEC, "has no PVH note");
		err_remedy(e, "build the kernel with CONFIG_PVH");
		return -ENOEXEC;
	}
	if (i->protocol == BOOT_LINUX64 && !i->k.entry)
		return err_set(e, -ENOEXEC, "has no 64-bit entry at a physical address");
	return 0;
}

int boot_open(const struct boot_config *c, struct boot_image **out, struct vh_err *e)
{
	struct boot_image *i = calloc(1, sizeof *i);
	size_t limit;
	int r;

	*out = NULL;
	if (!i)
		return err_set(e, -ENOMEM, "out of memory");
	i->kernel_fd = i->initrd_fd = -1;
	i->kernel = strdup(c->kernel);
	i->initrd = c->initrd ? strdup(c->initrd) : NULL;
	i->cmdline = strdup(c->cmdline ? c->cmdline : "");
	r = i->kernel && i->cmdline && (i->initrd || !c->initrd) ? 0 : err_set(e, -ENOMEM, "out of memory");
	if (!r)
		r = open_file(i->kernel, "kernel", &i->kernel_fd, &i->kernel_size, e);
	if (!r) {
		struct boot_source f = {i->kernel_size, file_read, &i->kernel_fd};
		r = boot_parse(&f, &i->k, e);
		if (!r)
			r = choose_protocol(i, c->protocol, e);
		if (r)
			err_object(e, "kernel %s", i->kernel);
	}
	if (!r && i->initrd) {
		r = open_file(i->initrd, "initrd", &i->initrd_fd, &i->initrd_size, e);
		if (!r && !i->initrd_size) {
			err_object(e, "initrd %s", i->initrd);
			r = err_set(e, -EINVAL, "is empty");
		}
	}
	if (!r) {
		limit = i->protocol == BOOT_PVH ? LAYOUT_CMDLINE_SIZE - 1 : i->k.kind == KIND_BZIMAGE ? i->k.hdr.cmdline_size : ELF_CMDLINE_MAX;
		if (limit > LAYOUT_CMDLINE_SIZE - 1)
			limit = LAYOUT_CMDLINE_SIZE - 1;
		if (strlen(i->cmdline) > limit)
			r = err_usage(e, "the kernel's command line has %zu characters, and this kernel takes %zu", strlen(i->cmdline), limit);
	}
	if (r)
		boot_close(i);
	else
		*out = i;
	return r;
}

void boot_close(struct boot_image *i)
{
	if (!i)
		return;
	if (i->kernel_fd >= 0)
		close(i->kernel_fd);
	if (i->initrd_fd >= 0)
		close(i->initrd_fd);
	free(i->kernel);
	free(i->initrd);
	free(i->cmdline);
	free(i);
}

static int load_segments(struct boot_image *i, struct mem *m, uint64_t *end, struct vh_err *e)
{
	for (unsigned n = 0; n < i->k.n; n++) {
		struct boot_segment *s = &i->k.seg[n];
		uint8_t *p = mem_ptr(m, s->gpa, s->mem_bytes);
		int r;
		if (!p || s->gpa + s->mem_bytes > MEM_LOW_MAX) {
			err_set(e, -ENOSPC, "needs memory at %#llx to %#llx, which the guest does not have", (unsigned long long)s->gpa,
				(unsigned long long)(s->gpa + s->mem_bytes));
			err_remedy(e, "give the guest more memory");
			return -ENOSPC;
		}
		r = read_all(i->kernel_fd, s->off, p, s->file_bytes);
		if (r < 0)
			return err_set(e, r, r == -ENODATA ? "has become shorter since it was opened" : "cannot be read: %s", strerror(-r));
		/* An ELF kernel expects zeroes after what was read; a bzImage clears what it uses. */
		if (i->k.kind == KIND_ELF)
			mem_zero(m, s->gpa + s->file_bytes, s->mem_bytes - s->file_bytes);
		if (s->gpa + s->mem_bytes > *end)
			*end = s->gpa + s->mem_bytes;
	}
	return 0;
}

/* The highest place that the kernel allows, so that it has room to unpack itself below. */
static int load_initrd(struct boot_image *i, struct mem *m, uint64_t kernel_end, uint64_t *at, struct vh_err *e)
{
	uint64_t top = m->range[0].bytes, size = (i->initrd_size + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	uint8_t *p;
	int r;

	*at = 0;
	if (!i->initrd)
		return 0;
	if (i->k.kind == KIND_BZIMAGE && (uint64_t)i->k.hdr.initrd_addr_max + 1 < top)
		top = ((uint64_t)i->k.hdr.initrd_addr_max + 1) & ~(uint64_t)(PAGE - 1);
	kernel_end = (kernel_end + PAGE - 1) & ~(uint64_t)(PAGE - 1);
	if (top > kernel_end && size <= top - kernel_end)
		*at = top - size;
	else if (m->n > 1 && size <= m->range[1].bytes && i->k.kind == KIND_BZIMAGE && i->k.hdr.xloadflags & XLF_CAN_BE_LOADED_ABOVE_4G)
		*at = m->range[1].gpa + m->range[1].bytes - size;
	p = *at ? mem_ptr(m, *at, size) : NULL;
	if (!p) {
		err_object(e, "initrd %s", i->initrd);
		err_set(e, -ENOSPC, "with %llu MiB does not fit beside the kernel in the guest's memory", (unsigned long long)(i->initrd_size >> 20));
		err_remedy(e, "give the guest more memory");
		return -ENOSPC;
	}
	r = read_all(i->initrd_fd, 0, p, i->initrd_size);
	if (r < 0) {
		err_object(e, "initrd %s", i->initrd);
		return err_set(e, r, r == -ENODATA ? "has become shorter since it was opened" : "cannot be read: %s", strerror(-r));
	}
	return 0;
}

int boot_load(struct boot_image *i, struct vm *v, struct pci_host *h, struct vm_boot *b, struct vh_err *e)
{
	struct mem *m = vm_mem(v);
	uint64_t end = 0, rsdp = 0, initrd = 0;
	int r = 0;

	memset(b, 0, sizeof *b);
	if (i->k.kind == KIND_BZIMAGE)
		r = bzimage_place(&i->k, m->range[0].bytes, e);
	if (!r)
		r = load_segments(i, m, &end, e);
	if (r) {
		err_object(e, "kernel %s", i->kernel);
		return r;
	}
	r = load_initrd(i, m, end, &initrd, e);
	if (!r)
		r = acpi_build(v, h, &rsdp, e);
	if (!r)
		r = i->protocol == BOOT_PVH ? boot_write_pvh(i, v, initrd, rsdp, b, e) : boot_write_linux(i, v, initrd, rsdp, b, e);
	return r;
}
