/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* What the storage plugins share about names. */
#ifndef STORAGE_NAME_H
#define STORAGE_NAME_H

#include <stddef.h>
#include <string.h>

/* How a name is quoted in an error: control characters would let it forge lines. */
static inline const char *name_printable(const char *name, char out[64])
{
	size_t n = 0;

	for (; name[n] && n < 60; n++)
		out[n] = (unsigned char)name[n] < 0x20 || name[n] == 0x7f ? '?' : name[n];
	strcpy(out + n, name[n] ? "..." : "");
	return out;
}

#endif
