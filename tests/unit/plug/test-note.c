/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* The note reader over bytes in memory: hand-made hostile files, and every single-byte change of a small one. */
#include <elf.h>
#include "stage.h"

/* A file with one PT_NOTE segment right behind the program header. */
struct tiny {
	Elf64_Ehdr h;
	Elf64_Phdr p[2];
	uint8_t notes[512];
};

static void tiny_init(struct tiny *t, const void *notes, size_t len)
{
	memset(t, 0, sizeof(*t));
	memcpy(t->h.e_ident, ELFMAG, SELFMAG);
	t->h.e_ident[EI_CLASS] = ELFCLASS64;
	t->h.e_ident[EI_DATA] = ELFDATA2LSB;
	t->h.e_type = ET_DYN;
	t->h.e_machine = EM_X86_64;
	t->h.e_phoff = offsetof(struct tiny, p);
	t->h.e_phentsize = sizeof(Elf64_Phdr);
	t->h.e_phnum = 2;
	t->p[0].p_type = PT_NOTE;
	t->p[0].p_offset = offsetof(struct tiny, notes);
	t->p[0].p_filesz = len;
	t->p[0].p_align = 4;
	memcpy(t->notes, notes, len);
}

static const struct vh_note good = {6, 48, VH_NOTE_TYPE, VH_NOTE_OWNER, VH_ABI_MAJOR, VH_ABI_MINOR, VH_ABI_DRAFT,
	VH_KIND_POOL | VH_KIND_FORMAT, "tiny"};

static int read_mem(const void *mem, size_t len, struct plug_ident *n, struct vh_err *e)
{
	/* An exact copy, so that a sanitizer sees the first byte past it. */
	g_autofree void *copy = g_memdup2(mem, len);
	struct elf_src s;
	int r = elf_open_mem(&s, copy, len, e);

	if (r < 0)
		return r;
	r = note_read(&s, n, e);
	elf_close(&s);
	return r;
}

static void test_good(void)
{
	struct plug_ident n;
	struct tiny t;
	ERR_AUTO(e);

	tiny_init(&t, &good, sizeof(good));
	g_assert_cmpint(read_mem(&t, sizeof(t), &n, &e), ==, 0);
	g_assert_cmpstr(n.id, ==, "tiny");
	g_assert_cmpuint(n.kinds, ==, VH_KIND_POOL | VH_KIND_FORMAT);
	g_assert_cmpint(note_check(&n, &e), ==, 0);
}

static void test_among_others(void)
{
	uint8_t buf[256] = {0};
	Elf64_Nhdr build = {4, 20, NT_GNU_BUILD_ID}, odd = {5, 3, 77};
	struct plug_ident n;
	struct tiny t;
	size_t at = 0;
	ERR_AUTO(e);

	memcpy(buf + at, &build, 12);
	memcpy(buf + at + 12, "GNU", 4);
	memset(buf + at + 16, 0xab, 20);
	at += 36;
	memcpy(buf + at, &odd, 12);
	memcpy(buf + at + 12, "ABCD", 5);
	at += 12 + 8 + 4;
	memcpy(buf + at, &good, sizeof(good));
	at += sizeof(good);
	tiny_init(&t, buf, at);
	g_assert_cmpint(read_mem(&t, sizeof(t), &n, &e), ==, 0);
	g_assert_cmpstr(n.id, ==, "tiny");
	g_assert_cmpuint(n.build_id_len, ==, 20);
	g_assert_cmpuint(n.build_id[19], ==, 0xab);
}

static void test_hostile(void)
{
	struct vh_note v = good;
	struct plug_ident n;
	struct tiny t;
	ERR_AUTO(e);

	/* Sizes that would overflow 32 bits when added. */
	v.owner_size = UINT32_MAX;
	v.desc_size = UINT32_MAX;
	tiny_init(&t, &v, sizeof(v));
	g_assert_cmpint(read_mem(&t, sizeof(t), &n, &e), ==, -ENOEXEC);
	err_clear(&e);
	/* A descriptor that ends after the segment. */
	v = good;
	v.desc_size = 400;
	tiny_init(&t, &v, sizeof(v));
	g_assert_cmpint(read_mem(&t, sizeof(t), &n, &e), ==, -ENOEXEC);
	err_clear(&e);
	/* Cut short. */
	v = good;
	v.desc_size = 16;
	tiny_init(&t, &v, sizeof(v));
	g_assert_cmpint(read_mem(&t, sizeof(t), &n, &e), ==, -ENOEXEC);
	g_assert_nonnull(strstr(e.cause, "cut short"));
	err_clear(&e);
	/* An id without its end. */
	v = good;
	memset(v.id, 'a', sizeof(v.id));
	tiny_init(&t, &v, sizeof(v));
	g_assert_cmpint(read_mem(&t, sizeof(t), &n, &e), ==, -ENOEXEC);
	err_clear(&e);
	/* Segments outside the file, at its very end, and with wrapping offsets. */
	tiny_init(&t, &good, sizeof(good));
	t.p[0].p_offset = UINT64_MAX - 8;
	g_assert_cmpint(read_mem(&t, sizeof(t), &n, &e), ==, -ENOEXEC);
	err_clear(&e);
	tiny_init(&t, &good, sizeof(good));
	t.p[0].p_filesz = UINT64_MAX;
	g_assert_cmpint(read_mem(&t, sizeof(t), &n, &e), ==, -ENOEXEC);
	err_clear(&e);
	tiny_init(&t, &good, sizeof(good));
	t.h.e_phoff = UINT64_MAX - 8;
	g_assert_cmpint(read_mem(&t, sizeof(t), &n, &e), ==, -ENOEXEC);
	err_clear(&e);
	tiny_init(&t, &good, sizeof(good));
	t.h.e_phnum = 0xffff;
	g_assert_cmpint(read_mem(&t, sizeof(t), &n, &e), ==, -ENOEXEC);
}

/* Every byte of headers and note set to some values: any answer will do, but memory stays in bounds. */
static void test_every_byte(void)
{
	static const uint8_t values[] = {0, 1, 4, 0x7f, 0x80, 0xff};
	size_t len = offsetof(struct tiny, notes) + sizeof(good);
	unsigned ok = 0;

	for (size_t i = 0; i < len; i++)
		for (unsigned j = 0; j < G_N_ELEMENTS(values); j++) {
			struct plug_ident n;
			struct tiny t;

			tiny_init(&t, &good, sizeof(good));
			((uint8_t *)&t)[i] = values[j];
			ok += !read_mem(&t, sizeof(t), &n, NULL);
		}
	g_assert_cmpuint(ok, >, 0);
	for (size_t i = 0; i < len; i++) {
		struct plug_ident n;
		struct tiny t;

		tiny_init(&t, &good, sizeof(good));
		g_assert_cmpint(read_mem(&t, i, &n, NULL), <, 0);
	}
}

/* The dynamic section of a real file with each of its bytes bent: elf_dyn_read answers or refuses, in bounds. */
static void test_dynamic(void)
{
	g_autofree char *path = stage("dep_entry"), *data = NULL;
	struct elf_src s;
	struct elf_dyn d;
	uint64_t off = 0, len = 0;
	gsize size;
	ERR_AUTO(e);
	int found = 0;

	g_assert_true(g_file_get_contents(path, &data, &size, NULL));
	g_assert_cmpint(elf_open_mem(&s, data, size, &e), ==, 0);
	g_assert_cmpint(elf_dyn_read(&s, &d, &e), ==, 0);
	g_assert_true(g_strv_contains((const char *const *)d.needed, "libplugdep-dep_entry.so"));
	g_assert_false(g_strv_contains((const char *const *)d.exports, "vh_plugin_entry_v1"));
	g_assert_true(d.relro);
	g_assert_false(d.exec_stack);
	elf_dyn_clear(&d);
	for (unsigned i = 0; i < s.n_ph; i++)
		if (s.ph[i].type == PT_DYNAMIC) {
			off = s.ph[i].off;
			len = s.ph[i].filesz;
			found = 1;
		}
	elf_close(&s);
	g_assert_true(found);
	for (uint64_t i = 0; i < len; i++) {
		char old = data[off + i];

		for (unsigned j = 0; j < 3; j++) {
			data[off + i] = (char)(j == 0 ? 0xff : j == 1 ? old + 1 : 0);
			if (elf_open_mem(&s, data, size, NULL) < 0)
				continue;
			if (!elf_dyn_read(&s, &d, NULL))
				elf_dyn_clear(&d);
			elf_close(&s);
		}
		data[off + i] = old;
	}
}

int main(int argc, char **argv)
{
	int r;

	g_test_init(&argc, &argv, NULL);
	g_test_add_func("/plug/note/good", test_good);
	g_test_add_func("/plug/note/among-others", test_among_others);
	g_test_add_func("/plug/note/hostile", test_hostile);
	g_test_add_func("/plug/note/every-byte", test_every_byte);
	g_test_add_func("/plug/note/dynamic", test_dynamic);
	r = g_test_run();
	stage_done();
	return r;
}
