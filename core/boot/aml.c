/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* ACPI 6.5, chapter 20 (encoding) and 6.4 (resources). */
#include "boot/aml.h"

#include <stdlib.h>
#include <string.h>

void aml_init(struct aml *a, void *buf, size_t room)
{
	*a = (struct aml){.p = buf, .room = room};
}

void aml_bytes(struct aml *a, const void *p, size_t n)
{
	if (a->bad || n > a->room - a->n) {
		a->bad = 1;
		return;
	}
	memcpy(a->p + a->n, p, n);
	a->n += n;
}

void aml_byte(struct aml *a, unsigned b)
{
	uint8_t c = (uint8_t)b;
	aml_bytes(a, &c, 1);
}

static void word(struct aml *a, unsigned v)
{
	aml_byte(a, v);
	aml_byte(a, v >> 8);
}

static void dword(struct aml *a, uint32_t v)
{
	word(a, v & 0xffff);
	word(a, v >> 16);
}

static void qword(struct aml *a, uint64_t v)
{
	dword(a, (uint32_t)v);
	dword(a, (uint32_t)(v >> 32));
}

static void open_block(struct aml *a)
{
	if (a->depth == AML_DEPTH) {
		a->bad = 1;
		return;
	}
	a->open[a->depth++] = a->n;
}

/* Puts `n` bytes in front of what was written since `at`. */
static void insert(struct aml *a, size_t at, const uint8_t *p, size_t n)
{
	if (a->bad || n > a->room - a->n) {
		a->bad = 1;
		return;
	}
	memmove(a->p + at + n, a->p + at, a->n - at);
	memcpy(a->p + at, p, n);
	a->n += n;
}

void aml_close(struct aml *a)
{
	uint8_t len[4];
	size_t at, size, n;

	if (!a->depth) {
		a->bad = 1;
		return;
	}
	at = a->open[--a->depth];
	size = a->n - at;
	/* PkgLength counts itself: one byte up to 63, else 2 to 4 with the low nibble in the first. */
	n = size + 1 <= 0x3f ? 1 : size + 2 <= 0xfff ? 2 : size + 3 <= 0xfffff ? 3 : 4;
	size += n;
	if (n == 1) {
		len[0] = (uint8_t)size;
	} else {
		len[0] = (uint8_t)((n - 1) << 6 | (size & 15));
		for (size_t i = 1; i < n; i++)
			len[i] = (uint8_t)(size >> (4 + 8 * (i - 1)));
	}
	insert(a, at, len, n);
}

void aml_path(struct aml *a, const char *path)
{
	unsigned segments = 1;

	if (*path == '\\')
		aml_byte(a, *path++);
	for (const char *p = path; *p; p++)
		segments += *p == '.';
	if (segments == 2) {
		aml_byte(a, 0x2e);
	} else if (segments > 2) {
		aml_byte(a, 0x2f);
		aml_byte(a, segments);
	}
	while (*path) {
		char seg[4] = {'_', '_', '_', '_'};
		unsigned n = 0;
		for (; *path && *path != '.'; path++, n++)
			if (n < 4)
				seg[n] = *path;
		a->bad |= n > 4 || !n;
		aml_bytes(a, seg, 4);
		if (*path)
			path++;
	}
}

void aml_int(struct aml *a, uint64_t v)
{
	if (v <= 1) {
		aml_byte(a, (unsigned)v);
	} else if (v <= 0xff) {
		aml_byte(a, 0x0a);
		aml_byte(a, (unsigned)v);
	} else if (v <= 0xffff) {
		aml_byte(a, 0x0b);
		word(a, (unsigned)v);
	} else if (v <= 0xffffffff) {
		aml_byte(a, 0x0c);
		dword(a, (uint32_t)v);
	} else {
		aml_byte(a, 0x0e);
		qword(a, v);
	}
}

void aml_string(struct aml *a, const char *s)
{
	aml_byte(a, 0x0d);
	aml_bytes(a, s, strlen(s) + 1);
}

void aml_eisaid(struct aml *a, const char *id)
{
	unsigned v = 0;
	if (strlen(id) != 7) {
		a->bad = 1;
		return;
	}
	for (unsigned i = 0; i < 3; i++)
		v = v << 5 | ((unsigned)id[i] - 0x40u);
	v = v << 16 | (unsigned)strtoul(id + 3, NULL, 16);
	aml_byte(a, 0x0c);
	dword(a, __builtin_bswap32(v));
}

void aml_scope(struct aml *a, const char *path)
{
	aml_byte(a, 0x10);
	open_block(a);
	aml_path(a, path);
}

void aml_device(struct aml *a, const char *name)
{
	aml_byte(a, 0x5b);
	aml_byte(a, 0x82);
	open_block(a);
	aml_path(a, name);
}

void aml_method(struct aml *a, const char *name, unsigned args, int serialized)
{
	aml_byte(a, 0x14);
	open_block(a);
	aml_path(a, name);
	aml_byte(a, (args & 7) | (serialized ? 8u : 0));
}

void aml_package(struct aml *a, unsigned elements)
{
	aml_byte(a, 0x12);
	open_block(a);
	a->bad |= elements > 255;
	aml_byte(a, elements);
}

void aml_name(struct aml *a, const char *name)
{
	aml_byte(a, 0x08);
	aml_path(a, name);
}

void aml_name_int(struct aml *a, const char *name, uint64_t v)
{
	aml_name(a, name);
	aml_int(a, v);
}

void aml_name_eisaid(struct aml *a, const char *name, const char *id)
{
	aml_name(a, name);
	aml_eisaid(a, id);
}

void aml_name_string(struct aml *a, const char *name, const char *s)
{
	aml_name(a, name);
	aml_string(a, s);
}

/* A buffer whose size is known at its close: the block's contents are the resources alone until then. */
void aml_resources(struct aml *a, const char *name)
{
	aml_name(a, name);
	aml_byte(a, 0x11);
	open_block(a);
}

void aml_resources_close(struct aml *a)
{
	struct aml size;
	uint8_t buf[10];

	aml_byte(a, 0x79); /* end tag, with a checksum of 0: not used */
	aml_byte(a, 0);
	if (!a->depth || a->bad) {
		a->bad = 1;
		return;
	}
	aml_init(&size, buf, sizeof buf);
	aml_int(&size, a->n - a->open[a->depth - 1]);
	insert(a, a->open[a->depth - 1], buf, size.n);
	aml_close(a);
}

void aml_res_io(struct aml *a, uint16_t base, uint8_t len)
{
	aml_byte(a, 0x47);
	aml_byte(a, 1); /* decodes 16 bits */
	word(a, base);
	word(a, base);
	aml_byte(a, 1);
	aml_byte(a, len);
}

void aml_res_irq(struct aml *a, unsigned irq)
{
	aml_byte(a, 0x22); /* edge, active high, not shared */
	word(a, 1u << irq);
}

void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len, int writable)
{
	aml_byte(a, 0x86);
	word(a, 9);
	aml_byte(a, writable ? 1 : 0);
	dword(a, base);
	dword(a, len);
}

/* Address space descriptors: range type, flags 0x0c = both ends fixed, produced for the bus below. */
void aml_res_bus(struct aml *a, uint16_t first, uint16_t last)
{
	aml_byte(a, 0x88);
	word(a, 13);
	aml_byte(a, 2);
	aml_byte(a, 0x0c);
	aml_byte(a, 0);
	word(a, 0);
	word(a, first);
	word(a, last);
	word(a, 0);
	word(a, (unsigned)(last - first) + 1);
}

void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last)
{
	aml_byte(a, 0x88);
	word(a, 13);
	aml_byte(a, 1);
	aml_byte(a, 0x0c);
	aml_byte(a, 3); /* entire range */
	word(a, 0);
	word(a, first);
	word(a, last);
	word(a, 0);
	word(a, (unsigned)(last - first) + 1);
}

void aml_res_memory_window(struct aml *a, uint64_t first, uint64_t last, int prefetch)
{
	int wide = last > 0xffffffff;
	aml_byte(a, wide ? 0x8a : 0x87);
	word(a, wide ? 43 : 23);
	aml_byte(a, 0);
	aml_byte(a, 0x0c);
	aml_byte(a, prefetch ? 7 : 1); /* read-write; prefetchable or not cacheable */

	if (wide) {
		qword(a, 0);
		qword(a, first);
		qword(a, last);
		qword(a, 0);
		qword(a, last - first + 1);
		return;
	}
	dword(a, 0);
	dword(a, (uint32_t)first);
	dword(a, (uint32_t)last);
	dword(a, 0);
	dword(a, (uint32_t)(last - first + 1));
}
