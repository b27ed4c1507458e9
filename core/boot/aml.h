/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/*
 * Writes ACPI Machine Language. Blocks (scope, device, method, package, if) are opened and closed; their lengths are
 * filled in at the close. An overflow or bad nesting is remembered in `bad` and never writes outside the buffer.
 */
#ifndef BOOT_AML_H
#define BOOT_AML_H

#include <stddef.h>
#include <stdint.h>

#define AML_DEPTH 16

struct aml {
	uint8_t *p;
	size_t n, room;
	size_t open[AML_DEPTH]; /* where each open block's contents begin, its length not yet there */
	unsigned depth;
	int bad;
};

void aml_init(struct aml *a, void *buf, size_t room);
void aml_bytes(struct aml *a, const void *p, size_t n);
void aml_byte(struct aml *a, unsigned b);
void aml_path(struct aml *a, const char *path); /* "\\_SB_", "PCI0", "\\_SB_.PCI0"; segments of up to 4 are padded */
void aml_int(struct aml *a, uint64_t v);
void aml_string(struct aml *a, const char *s);
void aml_eisaid(struct aml *a, const char *id); /* "PNP0A03" as an integer */

void aml_scope(struct aml *a, const char *path);
void aml_device(struct aml *a, const char *name);
void aml_method(struct aml *a, const char *name, unsigned args, int serialized);
void aml_package(struct aml *a, unsigned elements);
void aml_close(struct aml *a);

/* Name (NAME, ...): what follows is the value. */
void aml_name(struct aml *a, const char *name);
void aml_name_int(struct aml *a, const char *name, uint64_t v);
void aml_name_eisaid(struct aml *a, const char *name, const char *id);
void aml_name_string(struct aml *a, const char *name, const char *s);

/* Name (NAME, ResourceTemplate () {...}): resources follow, then aml_close. */
void aml_resources(struct aml *a, const char *name);
void aml_res_io(struct aml *a, uint16_t base, uint8_t len);
void aml_res_irq(struct aml *a, unsigned irq);
void aml_res_memory32(struct aml *a, uint32_t base, uint32_t len, int writable);
void aml_res_bus(struct aml *a, uint16_t first, uint16_t last);
void aml_res_io_window(struct aml *a, uint16_t first, uint16_t last);
void aml_res_memory_window(struct aml *a, uint64_t first, uint64_t last, int prefetch); /* 32 or 64 bits by value */
void aml_resources_close(struct aml *a);

#endif
