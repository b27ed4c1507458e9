/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Reading a shared object as data. The file may be hostile: every offset and count of it is checked against the file's
 * length and against a bound of our own before it is used, and nothing of it is mapped or run.
 */
#include <elf.h>
#include <glib.h>
#include <string.h>
#include <unistd.h>
#include "plug/impl.h"

#define DYN_MAX 4096u            /* entries of the dynamic section */
#define STR_MAX (4u << 20)       /* bytes of the dynamic string table */
#define SYM_MAX (1u << 20)       /* dynamic symbols */
#define EXPORTS_MAX 65536u
#define HASH_STEP 256u /* words of a hash chain that are read at once */

int elf_read(struct elf_src *s, uint64_t off, void *buf, uint64_t len)
{
	if (off > s->len || len > s->len - off)
		return 0;
	if (off + len <= s->head_len) {
		memcpy(buf, s->head + off, len);
		return 1;
	}
	if (s->fd < 0) {
		memcpy(buf, s->mem + off, len);
		return 1;
	}
	while (len) {
		ssize_t n = pread(s->fd, buf, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return 0; /* it shrank meanwhile, or cannot be read */
		buf = (char *)buf + n;
		off += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 1;
}

static int elf_headers(struct elf_src *s, struct vh_err *e)
{
	Elf64_Ehdr h;
	uint64_t want = MIN(s->len, sizeof(s->head));

	if (!elf_read(s, 0, s->head, want))
		return err_set(e, -EIO, "cannot be read");
	s->head_len = (uint32_t)want;
	if (!elf_read(s, 0, &h, sizeof(h)) || memcmp(h.e_ident, ELFMAG, SELFMAG))
		return err_set(e, -ENOEXEC, "not a vhost plugin: not an ELF file");
	if (h.e_ident[EI_CLASS] != ELFCLASS64 || h.e_ident[EI_DATA] != ELFDATA2LSB || h.e_machine != EM_X86_64)
		return err_set(e, -ENOEXEC, "not a vhost plugin: built for another machine");
	if (h.e_type != ET_DYN)
		return err_set(e, -ENOEXEC, "not a vhost plugin: not a shared object");
	if (h.e_phentsize != sizeof(Elf64_Phdr) || !h.e_phnum || h.e_phnum > ELF_PH_MAX)
		return err_set(e, -ENOEXEC, "not a vhost plugin: %u program headers of %u bytes", h.e_phnum, h.e_phentsize);
	s->ph = g_new0(struct elf_ph, h.e_phnum);
	for (unsigned i = 0; i < h.e_phnum; i++) {
		Elf64_Phdr p;

		if (h.e_phoff > s->len || !elf_read(s, h.e_phoff + i * sizeof(p), &p, sizeof(p))) {
			g_clear_pointer(&s->ph, g_free);
			return err_set(e, -ENOEXEC, "not a vhost plugin: its program headers lie outside the file");
		}
		s->ph[i] = (struct elf_ph){p.p_type, p.p_flags, p.p_offset, p.p_vaddr, p.p_filesz, p.p_align};
	}
	s->n_ph = h.e_phnum;
	return 0;
}

int elf_open_fd(struct elf_src *s, int fd, struct vh_err *e)
{
	struct stat st;

	s->mem = NULL;
	s->head_len = s->n_ph = 0;
	s->ph = NULL;
	s->fd = fd;
	if (fstat(fd, &st) < 0)
		return err_set(e, -errno, "cannot be examined: %s", g_strerror(errno));
	s->len = (uint64_t)st.st_size;
	return elf_headers(s, e);
}

int elf_open_mem(struct elf_src *s, const void *mem, uint64_t len, struct vh_err *e)
{
	s->mem = mem;
	s->head_len = s->n_ph = 0;
	s->ph = NULL;
	s->fd = -1;
	s->len = len;
	return elf_headers(s, e);
}

void elf_close(struct elf_src *s)
{
	g_clear_pointer(&s->ph, g_free);
}

/* The file offset of a virtual address, when [vaddr, vaddr+len) comes from the file. */
static int elf_offset(const struct elf_src *s, uint64_t vaddr, uint64_t len, uint64_t *off)
{
	for (unsigned i = 0; i < s->n_ph; i++) {
		const struct elf_ph *p = &s->ph[i];
		uint64_t o = vaddr - p->vaddr;

		if (p->type != PT_LOAD || vaddr < p->vaddr || o > p->filesz || len > p->filesz - o)
			continue;
		if (p->off > s->len || o > s->len - p->off)
			return 0;
		*off = p->off + o;
		return 1;
	}
	return 0;
}

struct dyn_tables {
	uint64_t strtab, strsz, symtab, hash, gnu_hash, runpath;
	GArray *needed; /* uint64_t offsets into strtab */
};

static void dyn_entry(struct dyn_tables *t, struct elf_dyn *out, const Elf64_Dyn *d)
{
	switch (d->d_tag) {
	case DT_STRTAB:
		t->strtab = d->d_un.d_ptr;
		break;
	case DT_STRSZ:
		t->strsz = d->d_un.d_val;
		break;
	case DT_SYMTAB:
		t->symtab = d->d_un.d_ptr;
		break;
	case DT_HASH:
		t->hash = d->d_un.d_ptr;
		break;
	case DT_GNU_HASH:
		t->gnu_hash = d->d_un.d_ptr;
		break;
	case DT_RPATH:
	case DT_RUNPATH:
		t->runpath = d->d_un.d_val + 1; /* + 1: 0 stays "none" */
		break;
	case DT_NEEDED:
		g_array_append_val(t->needed, d->d_un.d_val);
		break;
	case DT_TEXTREL:
		out->textrel = 1;
		break;
	case DT_BIND_NOW:
		out->bind_now = 1;
		break;
	case DT_FLAGS:
		out->textrel |= !!(d->d_un.d_val & DF_TEXTREL);
		out->bind_now |= !!(d->d_un.d_val & DF_BIND_NOW);
		break;
	case DT_FLAGS_1:
		out->bind_now |= !!(d->d_un.d_val & DF_1_NOW);
		break;
	}
}

/* How many dynamic symbols there are: DT_HASH says it, DT_GNU_HASH's last chain ends with it. 0: cannot be told. */
static uint64_t symbol_count(struct elf_src *s, const struct dyn_tables *t)
{
	g_autofree uint32_t *words = NULL;
	uint32_t h[4];
	uint64_t off, last = 0;

	if (t->hash && elf_offset(s, t->hash, 8, &off) && elf_read(s, off, h, 8))
		return h[1];
	if (!t->gnu_hash || !elf_offset(s, t->gnu_hash, 16, &off) || !elf_read(s, off, h, 16))
		return 0;
	/* h: buckets, first hashed symbol, bloom words of 8 bytes, shift */
	if (h[0] > SYM_MAX || h[1] > SYM_MAX || h[2] > SYM_MAX)
		return 0;
	off += 16 + h[2] * UINT64_C(8);
	words = g_new(uint32_t, MAX(h[0], HASH_STEP));
	if (!elf_read(s, off, words, h[0] * UINT64_C(4)))
		return 0;
	for (uint32_t i = 0; i < h[0]; i++)
		last = MAX(last, words[i]);
	if (last < h[1])
		return h[1]; /* only undefined symbols */
	/* The chain words of the hashed symbols follow; the last symbol's has its lowest bit set. */
	off += h[0] * UINT64_C(4);
	while (last < SYM_MAX) {
		uint64_t at = off + (last - h[1]) * UINT64_C(4), n = at < s->len ? MIN((s->len - at) / 4, HASH_STEP) : 0;

		if (!n || !elf_read(s, at, words, n * 4))
			return 0;
		for (uint64_t i = 0; i < n; i++, last++)
			if (words[i] & 1)
				return last + 1;
	}
	return 0;
}

static const char *str_at(const char *tab, uint64_t size, uint64_t off)
{
	return off < size && memchr(tab + off, 0, size - off) ? tab + off : NULL;
}

static int read_exports(struct elf_src *s, const struct dyn_tables *t, const char *str, GPtrArray *names)
{
	uint64_t n = symbol_count(s, t), off;
	g_autofree Elf64_Sym *sym = NULL;

	if (!n || n > SYM_MAX || !elf_offset(s, t->symtab, n * sizeof(*sym), &off))
		return 0;
	sym = g_new(Elf64_Sym, n);
	if (!elf_read(s, off, sym, n * sizeof(*sym)))
		return 0;
	for (uint64_t i = 1; i < n && names->len < EXPORTS_MAX; i++) {
		unsigned bind = ELF64_ST_BIND(sym[i].st_info), vis = ELF64_ST_VISIBILITY(sym[i].st_other);
		const char *name = str_at(str, t->strsz, sym[i].st_name);

		if (sym[i].st_shndx == SHN_UNDEF || bind == STB_LOCAL || vis == STV_HIDDEN || vis == STV_INTERNAL || !name)
			continue;
		g_ptr_array_add(names, g_strdup(name));
	}
	return 1;
}

int elf_dyn_read(struct elf_src *s, struct elf_dyn *out, struct vh_err *e)
{
	g_autoptr(GArray) offs = g_array_new(FALSE, FALSE, sizeof(uint64_t));
	g_autoptr(GPtrArray) needed = g_ptr_array_new_with_free_func(g_free);
	g_autoptr(GPtrArray) exports = g_ptr_array_new_with_free_func(g_free);
	g_autofree Elf64_Dyn *entries = NULL;
	g_autofree char *str = NULL;
	struct dyn_tables t = {.needed = offs};
	const struct elf_ph *dyn = NULL;
	uint64_t off, n_dyn;

	memset(out, 0, sizeof(*out));
	out->exec_stack = 1; /* what the kernel assumes of a file that says nothing */
	for (unsigned i = 0; i < s->n_ph; i++) {
		if (s->ph[i].type == PT_DYNAMIC)
			dyn = &s->ph[i];
		out->relro |= s->ph[i].type == PT_GNU_RELRO;
		if (s->ph[i].type == PT_GNU_STACK)
			out->exec_stack = !!(s->ph[i].flags & PF_X);
	}
	if (!dyn)
		return err_set(e, -ENOEXEC, "not a vhost plugin: it has no dynamic section");
	n_dyn = MIN(dyn->filesz / sizeof(*entries), DYN_MAX);
	entries = g_new(Elf64_Dyn, n_dyn + 1);
	if (!elf_read(s, dyn->off, entries, n_dyn * sizeof(*entries)))
		return err_set(e, -ENOEXEC, "damaged: its dynamic section lies outside the file");
	for (uint64_t i = 0; i < n_dyn && entries[i].d_tag != DT_NULL; i++)
		dyn_entry(&t, out, &entries[i]);
	if (!t.strsz || t.strsz > STR_MAX || !elf_offset(s, t.strtab, t.strsz, &off))
		return err_set(e, -ENOEXEC, "damaged: its string table lies outside the file");
	str = g_malloc(t.strsz);
	if (!elf_read(s, off, str, t.strsz))
		return err_set(e, -ENOEXEC, "damaged: its string table cannot be read");
	if (!read_exports(s, &t, str, exports))
		return err_set(e, -ENOEXEC, "damaged: its symbol table cannot be read");
	for (unsigned i = 0; i < offs->len; i++) {
		const char *name = str_at(str, t.strsz, g_array_index(offs, uint64_t, i));

		if (!name)
			return err_set(e, -ENOEXEC, "damaged: a library name lies outside its string table");
		g_ptr_array_add(needed, g_strdup(name));
	}
	if (t.runpath)
		out->runpath = g_strdup(str_at(str, t.strsz, t.runpath - 1));
	g_ptr_array_add(needed, NULL);
	g_ptr_array_add(exports, NULL);
	out->needed = (char **)g_ptr_array_free(g_steal_pointer(&needed), FALSE);
	out->exports = (char **)g_ptr_array_free(g_steal_pointer(&exports), FALSE);
	return 0;
}

void elf_dyn_clear(struct elf_dyn *d)
{
	g_clear_pointer(&d->needed, g_strfreev);
	g_clear_pointer(&d->exports, g_strfreev);
	g_clear_pointer(&d->runpath, g_free);
}
