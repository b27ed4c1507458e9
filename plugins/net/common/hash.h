/* SPDX-License-Identifier: LGPL-2.1-or-later
 * Copyright The vhost authors */
/* FNV-1a, for names and addresses that are the same at every start. Begin with the basis. */
#ifndef NET_COMMON_HASH_H
#define NET_COMMON_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH64 UINT64_C(0xcbf29ce484222325)
#define HASH32 UINT32_C(0x811c9dc5)

static inline uint64_t hash64(uint64_t h, const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ ((const uint8_t *)p)[i]) * UINT64_C(0x100000001b3);
	return h;
}

static inline uint32_t hash32(uint32_t h, const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		h = (h ^ ((const uint8_t *)p)[i]) * UINT32_C(0x01000193);
	return h;
}

#endif
