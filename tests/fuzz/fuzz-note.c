/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* A plugin file's bytes: ELF headers, notes, dynamic section. Whatever they are, nothing outside of them is read. */
#include <stdlib.h>
#include <string.h>
#include "plug/impl.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct plug_ident n;
	struct elf_src s;
	struct elf_dyn d;
	struct vh_err e = {0};

	if (!elf_open_mem(&s, data, size, &e)) {
		if (!note_read(&s, &n, &e)) {
			/* What is accepted may be used as a string and as a file name. */
			if (strnlen(n.id, sizeof(n.id)) == sizeof(n.id) || strchr(n.id, '/') || n.build_id_len > sizeof(n.build_id))
				abort();
			note_check(&n, &e);
		}
		if (!elf_dyn_read(&s, &d, &e))
			elf_dyn_clear(&d);
		elf_close(&s);
	}
	err_clear(&e);
	return 0;
}
